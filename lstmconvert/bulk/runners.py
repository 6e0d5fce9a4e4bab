"""Where files are converted: in this process, in workers of this machine, on any executor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from lstmconvert.bulk import interrupts, one
from lstmconvert.bulk.report import Outcome
from lstmconvert.bulk.sources import Job, Task
from lstmconvert.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

#: So many files are handed to an executor before the first of them is done: enough that no worker
#: waits, and no more than fits a scheduler's patience when there are a hundred thousand.
_IN_FLIGHT = 256


class Runner(Protocol):
    """What converts files."""

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome, as they are done.

        Raises:
            KeyboardInterrupt: there was one, and `begun` has the outcomes of what was begun.
        """

    def begun(self) -> Iterator[Outcome]:
        """Take back what was not begun; yield the outcomes of what was, when it is done."""


def runner(
    executor: Executor | None, workers: int | None, options: Mapping[str, Any], *, isolated: bool
) -> AbstractContextManager[Runner]:
    """Return what converts files, for a `with` block.

    Args:
        executor: the caller's, or None.
        workers: how many processes, without an executor; None is this process alone.
        options: of `convert`.
        isolated: whether the processes have limits.

    Raises:
        UsageError: there are no processes of ours that could have them.
    """
    if isolated and (executor is not None or workers is None or not hasattr(os, "fork")):
        raise UsageError(
            "isolated files need processes of this machine, and a system with fork",
            hint="say how many with workers, and give no executor",
        )
    if executor is not None:
        return _on(executor, options)
    if workers is None:
        return contextlib.nullcontext(_Here(options))
    if hasattr(os, "fork"):
        from lstmconvert.bulk.pool import Pool

        return Pool(workers, options, isolated=isolated)
    return _on_processes(workers, options)


@contextlib.contextmanager
def _on(executor: Executor, options: Mapping[str, Any]) -> Iterator[Runner]:
    given = _OnExecutor(executor, options)
    # An exception in the midst of an executor's own work would leave it waiting for ever.
    with interrupts.held(lambda: given.ended.put(None)):
        yield given


@contextlib.contextmanager
def _on_processes(workers: int, options: Mapping[str, Any]) -> Iterator[Runner]:
    """Do without copies of a process, on Windows."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as executor, _on(executor, options) as found:
        yield found


class _Here:
    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[tuple[Job, Outcome]]:
        for job, known in tasks:
            yield job, one.convert(job, self._options, known)

    def begun(self) -> Iterator[Outcome]:
        return iter(())


class _OnExecutor:
    """Hands out jobs, a bounded number at a time."""

    def __init__(self, executor: Executor, options: Mapping[str, Any]) -> None:
        self._executor, self._options = executor, options
        self._running: dict[Future[Outcome], Job] = {}
        #: What is done; None for an interrupt.
        self.ended: SimpleQueue[Future[Outcome] | None] = SimpleQueue()

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[tuple[Job, Outcome]]:
        waiting, running = iter(tasks), self._running
        while True:
            for job, known in islice(waiting, _IN_FLIGHT - len(running)):
                future = self._executor.submit(one.convert, job, self._options, known)
                running[future] = job
                future.add_done_callback(self.ended.put)
            if not running:
                return
            ended = self.ended.get()
            if ended is None:
                raise KeyboardInterrupt
            job = running.pop(ended)
            yield job, _outcome(ended, job)

    def begun(self) -> Iterator[Outcome]:
        from concurrent.futures import BrokenExecutor, CancelledError

        begun = [future for future in self._running if not future.cancel()]
        for future in begun:
            with contextlib.suppress(BrokenExecutor, CancelledError):
                yield future.result()


def _outcome(future: Future[Outcome], job: Job) -> Outcome:
    from concurrent.futures import BrokenExecutor

    try:
        return future.result()
    except BrokenExecutor:
        return one.died(job)
