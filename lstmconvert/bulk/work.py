"""One file of many: what a worker does. Whatever happens to it, the answer is an outcome.

A task may come twice: its worker died when all was done, or the run was killed before the report
had a line of it. So a destination that exists is looked at before it is judged. It is done if it is
what this run would write. A report's row proves that by hashes; without one, the file is converted
again into a temporary folder, and the bytes are compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lstmconvert import __version__
from lstmconvert.bulk import stores
from lstmconvert.bulk.ends import Ends
from lstmconvert.bulk.outcome import FAILED, LOST, PASSED_OVER, SKIPPED, WRITTEN, Outcome
from lstmconvert.conversion import Request, checked, made_with
from lstmconvert.errors import DestinationError, LSTMConvertError, NoLSTM, NotAModel
from lstmconvert.files.jsontext import canonical
from lstmconvert.files.opening import url_of

if TYPE_CHECKING:
    from lstmconvert.bulk.outcome import FileIdentity, Known
    from lstmconvert.bulk.plan import Job
    from lstmconvert.conversion import Result
    from lstmconvert.model.model import Model


class Task(NamedTuple):
    """One file to convert.

    Fields: `number`: of the job in the plan; `job`; `known`: what a report says about the
    destination, if it does; `again`: whether this run may have begun it before; `attempt`: counts
    from 1; `is_new`: whether nothing was at the destination when the task was made. An engine may
    run a task a second time and not tell: if something is there then, this run wrote it.
    """

    number: int
    job: Job
    known: Known | None = None
    again: bool = False
    attempt: int = 1
    is_new: bool = False


class Order(NamedTuple):
    """What is asked of every file of a run.

    Fields: `options` of `lstmconvert.convert`; `made_with`: those that decide what is written, as
    JSON; `skip_without_lstm`: whether a file without an LSTM is passed over, and does not count
    as failed.
    """

    options: Mapping[str, Any]
    made_with: Mapping[str, Any]
    skip_without_lstm: bool = False


def order(options: Mapping[str, Any], *, skip_without_lstm: bool = False) -> Order:
    """Return the order of a run, with whole paths: a worker may be in another folder.

    Raises:
        SourceError: the config among the options cannot be read.
    """
    options = dict(options)
    for name in ("config", "into"):
        if options.get(name) is not None:
            options[name] = Path(os.path.abspath(options[name]))
    return Order(options, made_with(checked(Request, options)), skip_without_lstm)


def convert_several(tasks: Sequence[Task], given: Order) -> list[Outcome]:
    """Convert some files, one after the other: what a worker of an executor is sent."""
    return [convert(task, given) for task in tasks]


def convert(task: Task, given: Order) -> Outcome:
    """Convert one file, or find that it has been converted."""
    start = time.perf_counter()
    job = task.job
    try:
        try:
            outcome = _outcome(task, given)
        except stores.DestinationAppeared:  # perhaps by this task, if it ran twice
            outcome = _outcome(task._replace(again=True), given)
    except LSTMConvertError as error:
        outcome = _stopped(job, error, given)
    except MemoryError as error:
        text = f"{job.source}: not enough memory"
        outcome = _unmade(job, FAILED, text, None, type(error).__name__, may_pass=True)
    except Exception as error:  # a bad file never stops the others
        text = f"{job.source}: {str(error) or type(error).__name__}"
        outcome = _unmade(job, FAILED, text, None, type(error).__name__)
    return outcome(seconds=time.perf_counter() - start, attempts=task.attempt)


#: Makes an outcome: how long it took, and how often it was tried, is still to be said.
Made = Callable[..., Outcome]


def _outcome(task: Task, given: Order) -> Made:
    with Ends(task.job, again=task.again) as ends:
        return _done(task, given, ends) or _converted(task.job, given, ends)


def _stopped(job: Job, error: LSTMConvertError, given: Order) -> Made:
    is_none = job.doubtful and isinstance(error, (NotAModel, NoLSTM))
    is_unwanted = given.skip_without_lstm and isinstance(error, NoLSTM)
    status = PASSED_OVER if is_none or is_unwanted else FAILED
    may_pass = stores.may_pass(error.__cause__)
    return _unmade(job, status, str(error), error.hint, type(error).__name__, may_pass=may_pass)


def _unmade(
    job: Job, status: str, error: str, hint: str | None, kind: str, *, may_pass: bool = False
) -> Made:
    return partial(
        Outcome,
        source=job.source,
        destination=job.destination,
        status=status,
        error=error,
        hint=hint,
        kind=kind,
        may_pass=may_pass,
    )


def died(task: Task) -> Outcome:
    """Return the outcome of a file whose worker, a process of ours, died of it."""
    job = task.job
    text = f"{job.source}: the process that converted it died: of a crash, of a limit, or killed"
    hint = "lstmconvert convert --isolate tells of what"
    outcome = _unmade(job, FAILED, text, hint, "BrokenProcessPool", may_pass=True)
    return outcome(attempts=task.attempt)


def lost(task: Task, reason: str, kind: str) -> Outcome:
    """Return the outcome of a file of which nobody knows what became.

    Args:
        task: what was to be done.
        reason: why, in the executor's own words where it has any.
        kind: the class of its error.
    """
    job = task.job
    hint = "the same command tries it again, and finds it done if it is"
    outcome = _unmade(job, LOST, f"{job.source}: {reason}", hint, kind, may_pass=True)
    return outcome(attempts=task.attempt)


# -- what is there already ------------------------------------------------------------------------


def _done(task: Task, given: Order, ends: Ends) -> Made | None:
    """Return that the destination is what would be written; None if there is no destination.

    Raises:
        DestinationError: the destination is something else.
    """
    known = task.known
    if given.options.get("force") or not ends.exists:
        return None
    reason = _difference(known, given, ends)
    if reason is None and known is not None:
        return _done_before(task, given, known.sources, known.files, known)
    if given.options.get("dry_run"):
        raise _other(task.job, reason)
    return _compared(task, given, ends, reason)


def _difference(known: Known | None, given: Order, ends: Ends) -> str | None:
    """Return why a destination is not known to be what would be written; None if it is."""
    if known is None:
        return "no report says how it was made"
    if known.options != given.made_with:
        return f"the report says that it was made with other options: {canonical(known.options)}"
    if not ends.is_source(known.sources, given.options):
        return "the report says that it was made from other bytes of the source"
    if not ends.holds(known.files):
        return "it is not the file that the report says was written"
    if known.tool != __version__:
        return f"the report says that version {known.tool} made it"
    return None


def _compared(task: Task, given: Order, ends: Ends, reason: str | None) -> Made:
    """Convert into a temporary folder, and return that the destination is the same, if it is."""
    from lstmconvert import api

    with ends.reading() as source, ends.elsewhere() as path:
        model, result = api.converted(source, path, with_lstm=True, **given.options)
        files = tuple(map(stores.facts_of, result.files))
        if not ends.holds(files, result.files):
            names = [path.name for path in result.files]
            stated = None if task.known else _stated(task.job, names, model, given)
            raise _other(task.job, stated or reason)
        return _done_before(task, given, ends.was_read(model, given.options), files, result)


def _stated(job: Job, names: Sequence[str], model: Model, given: Order) -> str | None:
    """Return in what a destination on this machine says itself that it was made otherwise.

    Args:
        names: of the destination, and of the files that belong to it.
        model: of the source.
    """
    from lstmconvert import api
    from lstmconvert.tensors.tensor import written_by_us

    if url_of(Path(job.destination)):
        return None
    try:
        # Closed at once, as Windows replaces no open file.
        with written_by_us([Path(job.destination).with_name(name) for name in names]):
            existing = api.load(job.destination)
    except LSTMConvertError:
        return None
    if not existing.is_converted:  # it says nothing
        return None
    if existing.source.sha256 != model.source.sha256:
        return "it says itself that it was made from other bytes of the source"
    wanted = {name: value for name, value in given.made_with.items() if name != "layout"}
    if existing.made_with != wanted:
        made = canonical(existing.made_with) if existing.made_with else "none"
        return f"it says itself that it was made with other options: {made}"
    return None


def _other(job: Job, reason: str | None) -> DestinationError:
    why = f": {reason}" if reason else ""
    return DestinationError(
        f"the destination exists, and is not what would be written{why}",
        where=job.destination,
        hint="--force replaces it",
    )


def _done_before(
    task: Task,
    given: Order,
    sources: tuple[FileIdentity, ...],
    files: tuple[FileIdentity, ...],
    made: Known | Result,
) -> Made:
    # A task that comes again may have done it the first time, unless a report was before it.
    may_be_ours = (task.again or task.is_new) and made is not task.known
    return partial(
        Outcome,
        source=task.job.source,
        destination=task.job.destination,
        status=WRITTEN if may_be_ours else SKIPPED,
        layers=tuple(made.layers),
        warnings=tuple(made.warnings),
        losses=tuple(made.losses),
        left_out=tuple(made.left_out),
        compiled=made.compiled,
        sources=sources,
        files=files,
        options=given.made_with,
    )


# -- converting -----------------------------------------------------------------------------------


def _converted(job: Job, given: Order, ends: Ends) -> Made:
    from lstmconvert import api
    from lstmconvert.files import writing

    options = given.options
    force, dry = bool(options.get("force")), bool(options.get("dry_run"))
    with ends.reading() as source, ends.writing(dry=dry) as path, writing.swept():
        model, result = api.converted(source, path, with_lstm=True, **options)
        return partial(
            Outcome,
            source=job.source,
            destination=job.destination,
            status=WRITTEN,
            layers=result.layers,
            warnings=result.warnings,
            losses=result.losses,
            left_out=result.left_out,
            compiled=result.compiled,
            sources=ends.was_read(model, options),
            files=ends.sent(result.files, force=force),
            options=given.made_with,
        )
