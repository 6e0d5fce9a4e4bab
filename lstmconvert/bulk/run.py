"""Converting many files, here or on any executor: in order, whatever becomes of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from lstmconvert.bulk import ends, listing, report, runners, scratch, stores, work
from lstmconvert.bulk.outcome import Outcome
from lstmconvert.bulk.plan import Plan, Shard
from lstmconvert.bulk.runners import Ways, runner
from lstmconvert.bulk.work import Task
from lstmconvert.conversion import ConvertOptions, Request, takes
from lstmconvert.errors import DestinationError, SourceError, UsageError
from lstmconvert.files.names import is_url

if TYPE_CHECKING:
    from concurrent.futures import Executor

OnEvent = Callable[[Outcome], object]


def plan(
    sources: Sequence[str | Path],
    out_dir: str | Path,
    *,
    suffix: str = ".safetensors",
    listed: Iterable[str] = (),
    root: str | Path | None = None,
    keep_suffix: bool = False,
    shard: Shard | None = None,
) -> Plan:
    """Return which file becomes which. No file is read.

    Args:
        sources: files, folders and globs, or URLs of them.
        out_dir: the output folder, or the URL of one.
        suffix: of the destinations; it names their container.
        listed: further files, folders or URLs. Those that are not there fail in their turn, and
            each keeps its path below `root`.
        root: a folder or URL; by default the current folder.
        keep_suffix: let every source keep its suffix in the name of its destination.
        shard: take the sources of one shard alone.

    Raises:
        SourceError: one of `sources` is not there, or holds no model.
        UsageError: two sources would have one destination.
    """
    todo = Plan(os.fspath(out_dir), suffix, keep_suffix=keep_suffix)
    folder = None if is_url(todo.out_dir) else todo.out_dir
    for given in [os.fspath(source) for source in sources]:
        before = len(todo)
        if is_url(given):
            for place in stores.expanded(given, todo.passed):
                _add_remote(todo, place)
        else:
            for source in listing.expanded(given, folder, todo.passed):
                todo.add(source)
        if len(todo) == before:
            raise SourceError(
                "no model there", where=given, hint="give files, folders or globs that exist"
            )
    start = os.fspath(root) if root is not None else os.getcwd()
    start = start if is_url(start) else os.path.abspath(start)
    for text in listed:
        if is_url(text):
            _add_remote(todo, stores.below(text, start))
        elif os.path.isdir(text):
            for source in listing.expanded(text, folder, todo.passed):
                todo.add(listing.below(os.path.join(source.root, source.place), start))
        else:
            todo.add(listing.below(text, start))
    return todo.settled(shard)


def _add_remote(todo: Plan, place: stores.StoredSource) -> None:
    todo.add(listing.Listed("", place.place, place.doubtful), place.remote)


@takes(Request)
def convert_many(
    sources: Sequence[str | Path],
    out_dir: str | Path,
    *,
    suffix: str = ".safetensors",
    executor: Executor | None = None,
    workers: int | None = None,
    isolate: bool = False,
    report: str | Path | None = None,
    on_event: OnEvent | None = None,
    keep_suffix: bool = False,
    skip_without_lstm: bool = False,
    retries: int = 0,
    stall: float = runners.STALL,
    **options: Unpack[ConvertOptions],
) -> list[Outcome]:
    """Convert many files; a bad one never stops the others.

    A destination that exists is looked at. It counts as done if it is what would be written: the
    report says so, with the hashes of source and destination, options and version; or, where it
    does not, a conversion into a temporary folder gives the same bytes. Anything else has failed,
    unless `force`.

    >>> import lstmconvert as lc, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outcomes = lc.convert_many(["fixtures/keras-3.15.1/seed95.*"], folder, suffix=".npz")
    ...     sum(map(bool, outcomes)) > 1
    True

    Args:
        sources: files, folders (searched for models; their sub-folders are kept below `out_dir`)
            and globs, or fsspec URLs of them.
        out_dir: the output folder, or its URL.
        suffix: of the destinations; it names their container.
        executor: any `concurrent.futures.Executor`, which is not shut down. Its workers must see
            the same paths; one of them is asked before all.
        workers: how many processes of this machine, without an executor; a file that makes one of
            them crash has failed, and the others go on. By default this process does all.
        isolate: limit the memory of these processes, and their processor time for each file.
        report: the file, or its URL, that keeps what became of each, a JSON object a line; by
            default `lstmconvert-batch.jsonl` in `out_dir`.
        on_event: called with each outcome, as the files are done, in the caller's thread.
        keep_suffix: let every source keep its suffix: `m.keras` becomes `m.keras.safetensors`.
        skip_without_lstm: a file without an LSTM layer is passed over: it does not count as failed.
        retries: how often a file is tried again whose failure may pass: its worker was lost, its
            store was busy.
        stall: after how many seconds without any answer an executor is considered lost.
        options: those of `lstmconvert.convert`.

    Returns:
        The outcomes, in the order of the sources, and of the names inside a folder; each is true
        if its destination holds the right file.

    Raises:
        SourceError, UsageError: see `plan`. Nothing has been converted then.
        DestinationError: the report could not be written. Converted files stay.
        BaseException: what `on_event` raises, or an interrupt. Then no further file is begun, and
            those that were begun are finished.
    """
    todo = plan(sources, out_dir, suffix=suffix, keep_suffix=keep_suffix)
    ways = Ways(executor, workers, isolated=isolate, stall=stall, size=len(todo))
    done: dict[int, Outcome] = {}
    with Run(
        todo, ways, place=report, skip_without_lstm=skip_without_lstm, retries=retries, **options
    ) as run:
        for index, outcome in run.outcomes():
            done[index] = outcome
            if on_event is not None:
                on_event(outcome)
    return [done[index] for index in range(len(todo))]


class Run:
    """One run over a plan, for a `with` block: at its end the report is closed.

    Args:
        todo: the jobs of the run.
        ways: where, and by how many.
        place: path or URL of the report; None: `report_name` in the output folder.
        report_name: see `place`.
        skip_without_lstm, retries: see `convert_many`.
        options: those of `lstmconvert.convert`.

    Raises:
        UsageError, DestinationError, CorruptFile: nothing can be begun so.
    """

    def __init__(
        self,
        todo: Plan,
        ways: Ways,
        *,
        place: str | Path | None = None,
        report_name: str = report.NAME,
        skip_without_lstm: bool = False,
        retries: int = 0,
        **options: Unpack[ConvertOptions],
    ) -> None:
        from lstmconvert import api

        target = api.check_target(f"x{todo.suffix}", **options)
        if ways.workers is not None and ways.workers < 1:
            raise UsageError(
                "--jobs is a number of processes", found=ways.workers, expected="1 or more"
            )
        if retries < 0:
            raise UsageError("--retries is a number", found=retries, expected="0 or more")
        given = {"layout": target.default, **{k: v for k, v in options.items() if v is not None}}
        self._todo, self._ways, self._retries = todo, ways, retries
        self._order = work.order(given, skip_without_lstm=skip_without_lstm)
        dry = bool(options.get("dry_run"))
        self._runner = runner(ways, self._order)
        self._open = ExitStack()
        where = _report_place(place, todo.out_dir, report_name, dry=dry)
        #: Path or URL of the report; None: none is written.
        self.report = None if dry else where
        self._kept = self._open.enter_context(report.ReportFile(where, dry=dry))
        #: How many jobs have an outcome, by status.
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        with self._open:
            self._kept.close(job.destination for job in self._todo)

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Yield the index of each job with its outcome, as they finish.

        Raises:
            KeyboardInterrupt: the user interrupted the run. The outcomes of tasks that were begun
                have been yielded.
        """
        if self._ways.executor is not None and len(self._todo):
            self._probe(self._ways.executor)
        scratch.sweep()
        _sweep(self._todo)
        try:
            with self._runner as running:
                yield from self._rounds(running)
        finally:
            _sweep(self._todo)

    def _probe(self, executor: Executor) -> None:
        """Ask a worker of another machine, before all, whether it can do the tasks of this run."""
        from lstmconvert.bulk import engines

        if runners.is_of_this_process(executor):
            return
        source = next((j.source for j in self._todo if os.path.lexists(j.source)), None)
        folder = (
            None
            if is_url(self._todo.out_dir) or not os.path.isdir(self._todo.out_dir)
            else self._todo.out_dir
        )
        engines.probe(executor, source, folder)

    def _rounds(self, running: runners.Runner) -> Iterator[tuple[int, Outcome]]:
        tasks: Iterable[Task] = map(self._task, range(len(self._todo)))
        try:
            for attempt in range(self._retries + 1):
                is_last = attempt == self._retries
                again: list[Task] = []
                for task, outcome in running.outcomes(tasks):
                    if outcome.may_pass and not outcome and not is_last:
                        again.append(task._replace(again=True, attempt=task.attempt + 1))
                    else:
                        yield self._noted(task, outcome)
                tasks = again
        except BaseException as error:
            for task, outcome in running.begun():
                noted = self._noted(task, outcome)
                if isinstance(error, KeyboardInterrupt):
                    yield noted
            raise

    def _task(self, index: int) -> Task:
        job = self._todo[index]
        return Task(index, job, self._kept.known(job.destination), is_new=ends.is_missing(job))

    def _noted(self, task: Task, outcome: Outcome) -> tuple[int, Outcome]:
        self._kept.add(outcome)
        self.counts[outcome.status] += 1
        return task.number, outcome


def _report_place(place: str | Path | None, out_dir: str, name: str, *, dry: bool) -> str:
    if place is None:
        if is_url(out_dir):
            return f"{out_dir.rstrip('/')}/{name}"
        if os.path.lexists(out_dir) and not os.path.isdir(out_dir):
            raise DestinationError(
                "--out-dir names a file, and what is made needs a folder",
                where=out_dir,
                hint="name another folder; one that is not there is made",
            )
        if not dry:
            with stores.errors(DestinationError, out_dir):
                Path(out_dir).mkdir(parents=True, exist_ok=True)
        return os.path.join(out_dir, name)
    text = os.fspath(place)
    if not is_url(text) and not Path(text).absolute().parent.is_dir():
        raise DestinationError("the report's directory does not exist", where=text)
    return text


def _sweep(todo: Plan) -> None:
    """Remove what killed processes left where files are written."""
    from lstmconvert.files import writing

    if is_url(todo.out_dir):
        return
    folders = {todo.destination_place(index).rpartition("/")[0] for index in range(len(todo))}
    for folder in folders:
        writing.sweep(Path(todo.out_dir, folder))
