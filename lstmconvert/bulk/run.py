"""Converting many files, here or on any executor: in order, whatever becomes of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstmconvert.bulk import stores
from lstmconvert.bulk.report import NAME, Outcome, Report
from lstmconvert.bulk.runners import runner
from lstmconvert.bulk.sources import Job, Task, jobs
from lstmconvert.errors import DestinationError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

OnEvent = Callable[[Outcome], object]


def plan(
    sources: Sequence[str | Path], out_dir: str | Path, *, suffix: str = ".safetensors"
) -> list[Job]:
    """Return which file becomes which, and read no file.

    Args:
        sources: files, folders and globs, or URLs of them.
        out_dir: the folder, or URL of one, for what is made.
        suffix: of the destinations; it names their container.

    Raises:
        SourceError: one of the sources is not there, or holds no model.
        UsageError: two sources would have one destination, or there is no such suffix.
    """
    folder = os.fspath(out_dir)
    found = stores.expanded([os.fspath(source) for source in sources], folder)
    return jobs(found, lambda place: stores.joined(folder, place), suffix)


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
    **options: Any,
) -> list[Outcome]:
    """Convert many files; a bad one never stops the others.

    Files that an earlier call has done are skipped: those of which `report` says that they were
    made from a source of the same SHA-256, with the same options.

    >>> import lstmconvert as lc, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outcomes = lc.convert_many(["fixtures/keras-3.15.1/seed95.*"], folder, suffix=".npz")
    ...     sum(map(bool, outcomes)) > 1
    True

    Args:
        sources: files, folders (searched for models; their sub-folders are kept below `out_dir`)
            and globs, or fsspec URLs of them.
        out_dir: the folder for what is made, or its URL.
        suffix: of the destinations; it names their container.
        executor: any `concurrent.futures.Executor`, which is not shut down. Its workers must see
            the same paths.
        workers: how many processes of this machine, without an executor; a file that makes one of
            them crash has failed, and the others go on. By default this process does all.
        isolate: limit the memory of these processes, and their processor time for each file.
        report: the file that keeps what became of each, a JSON object a line; by default
            `lstmconvert-batch.jsonl` in `out_dir`, and none where that is a URL.
        on_event: called with each outcome, as the files are done, in the caller's thread.
        options: those of `lstmconvert.convert`.

    Returns:
        The outcomes, in the order of the sources, and of the names inside a folder; each is true
        if its destination holds what it should.

    Raises:
        SourceError, UsageError: see `plan`. Nothing has been converted then.
        BaseException: what `on_event` raises, or an interrupt. Then no further file is begun, and
            those that were begun are finished.
    """
    return convert_jobs(
        plan(sources, out_dir, suffix=suffix),
        out_dir,
        suffix=suffix,
        executor=executor,
        workers=workers,
        isolate=isolate,
        report=report,
        on_event=on_event,
        **options,
    )


def convert_jobs(
    todo: Sequence[Job],
    out_dir: str | Path,
    *,
    suffix: str = ".safetensors",
    executor: Executor | None = None,
    workers: int | None = None,
    isolate: bool = False,
    report: str | Path | None = None,
    on_event: OnEvent | None = None,
    **options: Any,
) -> list[Outcome]:
    """Do what `convert_many` does, with what `plan` has found."""
    from lstmconvert import targets

    target = targets.target_of(Path(f"x{suffix}"), options.get("layout"))
    if workers is not None and workers < 1:
        raise UsageError("a number of processes", found=workers, expected="1 or more")
    options = {"layout": target.default, **{k: v for k, v in options.items() if v is not None}}
    making = runner(executor, workers, options, isolated=isolate)
    kept = Report(_report_path(report, out_dir, dry=bool(options.get("dry_run"))))
    done: dict[Job, Outcome] = {}
    _sweep(todo)
    try:
        with making as running:
            try:
                tasks = (Task(job, kept.of(job.destination)) for job in todo)
                for job, outcome in running.outcomes(tasks):
                    done[job] = outcome
                    kept.add(outcome)
                    if on_event is not None:
                        on_event(outcome)
            finally:
                for outcome in running.begun():
                    kept.add(outcome)
    finally:
        _sweep(todo)
        kept.close(job.destination for job in todo)
    return [done[job] for job in todo]


def _report_path(report: str | Path | None, out_dir: str | Path, *, dry: bool) -> Path | None:
    if dry:
        return None
    if report is not None:
        if not Path(report).parent.is_dir():
            raise DestinationError("the report's directory does not exist", where=report)
        return Path(report)
    if stores.is_url(os.fspath(out_dir)):
        return None
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    return Path(out_dir, NAME)


def _sweep(todo: Sequence[Job]) -> None:
    """Remove what killed processes left where files are written."""
    from lstmconvert import writing

    here = (job.destination for job in todo if not stores.is_url(job.destination))
    for folder in {os.path.dirname(destination) for destination in here}:
        writing.sweep(Path(folder))
