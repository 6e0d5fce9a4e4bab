"""Converting many files, here or on any executor: in order, whatever becomes of each."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
)
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lstmconvert.bulk import one, pool, stores
from lstmconvert.bulk.report import NAME, Outcome, Report
from lstmconvert.bulk.sources import Job, jobs
from lstmconvert.errors import DestinationError, UsageError

#: So many files are handed out before the first of them is done: enough that no worker waits, and
#: no more than fits a scheduler's patience when there are a hundred thousand.
_IN_FLIGHT = 256

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
    workers: int = 1,
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
            the same paths. By default the files are converted here, in `workers` processes.
        workers: how many processes; 1 is this one.
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
    from lstmconvert import targets

    target = targets.target_of(Path(f"x{suffix}"), options.get("layout"))
    if workers < 1:
        raise UsageError("a number of processes", found=workers, expected="1 or more")
    todo = plan(sources, out_dir, suffix=suffix)
    kept = Report(_report_path(report, out_dir, dry=bool(options.get("dry_run"))))
    done: dict[Job, Outcome] = {}
    _sweep(todo)
    options = {"layout": target.default, **{k: v for k, v in options.items() if v is not None}}
    try:
        with _Runner(executor, workers, options, kept.known) as runner:
            try:
                for job, outcome in runner.outcomes(todo):
                    done[job] = outcome
                    kept.add(outcome)
                    if on_event is not None:
                        on_event(outcome)
            finally:
                for outcome in runner.begun():
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


class _Runner:
    """Hands out jobs, a bounded number at a time, and yields their outcomes as they come.

    Args:
        executor: the caller's, or None.
        workers: how many processes, without one.
        options: of `convert`.
        known: what earlier runs report, by destination.
    """

    def __init__(
        self,
        executor: Executor | None,
        workers: int,
        options: Mapping[str, Any],
        known: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._given, self._workers = executor, workers
        self._options, self._known = options, known
        self._pool: Executor | None = None
        self._running: dict[Future[Outcome], Job] = {}
        #: What is done; None for an interrupt.
        self._ended: SimpleQueue[Future[Outcome] | None] = SimpleQueue()
        self._handler: Any = None

    def __enter__(self) -> _Runner:
        if self._given is None and self._workers > 1:
            self._pool = pool.of(self._workers)
        if (self._given or self._pool) and _may_be_interrupted():
            # An exception in the midst of a pool's own work would leave it waiting for ever.
            self._handler = signal.signal(signal.SIGINT, lambda *_: self._ended.put(None))
        return self

    def __exit__(self, *error: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def outcomes(self, todo: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome, as they are done."""
        executor = self._given or self._pool
        if executor is None:
            for job in todo:
                yield job, one.convert(job, self._options, self._reported(job))
            return
        waiting, running = iter(todo), self._running
        while True:
            for job in islice(waiting, _IN_FLIGHT - len(running)):
                future = self._submit(job, self._pool or executor)
                running[future] = job
                future.add_done_callback(self._ended.put)
            if not running:
                return
            ended = self._ended.get()
            if ended is None:
                raise KeyboardInterrupt
            done = running.pop(ended)
            yield done, self._outcome(ended, done)

    def _reported(self, job: Job) -> Mapping[str, Any] | None:
        """What an earlier run reports of the destination."""
        return self._known.get(stores.same(job.destination))

    def begun(self) -> Iterator[Outcome]:
        """Take back what was handed out and not begun; yield the outcomes of what was."""
        begun = [future for future in self._running if not future.cancel()]
        for future in begun:
            with contextlib.suppress(BrokenExecutor, CancelledError):
                yield future.result()

    def _submit(self, job: Job, executor: Executor) -> Future[Outcome]:
        known = self._reported(job)
        try:
            return executor.submit(one.convert, job, self._options, known)
        except BrokenExecutor:
            if self._pool is None:
                raise
            self._pool.shutdown(wait=True)
            self._pool = pool.of(self._workers)
            return self._pool.submit(one.convert, job, self._options, known)

    def _outcome(self, future: Future[Outcome], job: Job) -> Outcome:
        """Return a job's outcome. Where a worker died, all that it shared its pool with fail; each
        of them is tried again by itself, and only the one that kills its process has failed."""
        try:
            return future.result()
        except BrokenExecutor:
            if self._given is not None:
                return one.died(job)
        with pool.of(1) as alone:
            try:
                known = self._reported(job)
                return alone.submit(one.convert, job, self._options, known).result()
            except BrokenExecutor:
                return one.died(job)


def _may_be_interrupted() -> bool:
    """Whether this is the thread that an interrupt comes to, as Python's own exception."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
