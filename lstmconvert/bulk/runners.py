"""Where files are converted: in this process, in workers of this machine, on any executor.

Whatever becomes of a task, its file gets an outcome. An executor that loses a task says so in words
of its own: those stand in the outcome, whose status is `lost`. Where several files were in the same
boat (sent together, or on a worker that died of another's file), each is tried once more by itself,
so that a file which kills its worker is lost alone.

Workers of this machine are processes, each of which has one file at a time. For each there is a
thread here that sends it a task and waits for the outcome. A worker that dies of its file is
replaced, and that file alone has failed. An interrupt in the midst of handing out files waits until
it does no harm.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lstmconvert.bulk import server, work
from lstmconvert.bulk.outcome import Outcome
from lstmconvert.bulk.work import Order, Task
from lstmconvert.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future


@contextlib.contextmanager
def interrupts_held(then: Callable[[], object]) -> Iterator[None]:
    """Call `then` where an interrupt would raise `KeyboardInterrupt` inside the block.

    In another thread than the main one, or where the caller handles interrupts, nothing is changed.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: then())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


Done = tuple[Task, Outcome]

#: How many files an executor is handed for each that it works on: no worker waits for the next.
_AHEAD = 3
#: How many workers are assumed of an executor that does not tell.
_ASSUMED_WORKERS = 64
#: No more files are sent together than this: what is sent together is lost together.
_MOST_TOGETHER = 32
#: How many files in a row may be lost although each was tried by itself; after that, the executor
#: itself is lost.
_MOST_LOST = 20
#: How long what was begun is waited for after an interrupt, in seconds.
PATIENCE = 60.0
#: How long an executor may answer nothing before it is considered lost, in seconds.
STALL = 1800.0


class Runner(Protocol):
    """What converts files."""

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Yield each task with its outcome, as they finish: one for each, in every case.

        Raises:
            KeyboardInterrupt: the user interrupted the run, and `begun` has the outcomes of tasks
                that were begun.
        """

    def begun(self) -> Iterator[Done]:
        """Take back what was not begun; yield the outcomes of what was, or may have been."""


class Ways(NamedTuple):
    """How a runner works.

    Fields: `executor`: the caller's, or None; `workers`: how many processes of this machine,
    without an executor, and None for this process alone; `isolated`: whether these have limits;
    `stall`: after how many seconds without an answer an executor is lost; `size`: how many files
    the run has, by which it is decided how many are sent together.
    """

    executor: Executor | None = None
    workers: int | None = None
    isolated: bool = False
    stall: float = STALL
    size: int = 0


def runner(ways: Ways, given: Order) -> AbstractContextManager[Runner]:
    """Return what converts files, for a `with` block.

    Raises:
        UsageError: there are no processes of ours that could have limits.
    """
    if ways.isolated and (ways.executor is not None or ways.workers is None or not _has_limits()):
        raise UsageError(
            "isolated files need processes of this machine, and a system with setrlimit",
            hint="say how many with workers (--jobs), and give no executor",
        )
    if ways.executor is not None:
        return _on(ways.executor, given, ways)
    if ways.workers is None:
        return contextlib.nullcontext(_Here(given))

    return Pool(ways.workers, given, isolated=ways.isolated)


def _has_limits() -> bool:
    from importlib.util import find_spec

    return find_spec("resource") is not None


class _Here:
    def __init__(self, given: Order) -> None:
        self._given = given

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for task in tasks:
            yield task, work.convert(task, self._given)

    def begun(self) -> Iterator[Done]:
        return iter(())


# -- executors of others -------------------------------------------------------------------------


@contextlib.contextmanager
def _on(executor: Executor, given: Order, ways: Ways) -> Iterator[Runner]:
    with contextlib.ExitStack() as stack:
        running = _OnExecutor(executor, given, ways, stack)
        # An exception in the midst of an executor's own work would leave it waiting for ever.
        stack.enter_context(interrupts_held(running.interrupt))
        yield running


def workers_of(executor: Executor) -> int:
    """Return how many files an executor works on at once, if it tells."""
    for name in ("workers", "_max_workers"):
        count = getattr(executor, name, None)
        count = count() if callable(count) else count
        if isinstance(count, int) and count > 0:
            return count
    return _ASSUMED_WORKERS


class _OnExecutor:
    """Hands out tasks, a bounded number at a time."""

    def __init__(
        self, executor: Executor, given: Order, ways: Ways, stack: contextlib.ExitStack
    ) -> None:
        self._executor, self._given, self._ways, self._stack = executor, given, ways, stack
        self._running: dict[Future[list[Outcome]], list[Task]] = {}
        #: Tasks that were in one boat with what was lost, each to be tried alone.
        self._suspects: deque[Task] = deque()
        self._lost_in_a_row = 0
        #: Why nothing more is handed out: reason and class, in the executor's words.
        self._over: tuple[str, str] | None = None
        self._replacement: Pool | None = None
        #: Finished tasks; None for an interrupt.
        self.ended: SimpleQueue[Future[list[Outcome]] | None] = SimpleQueue()

    def interrupt(self) -> None:
        """Let `outcomes` raise `KeyboardInterrupt` where it does no harm."""
        if self._replacement is not None:
            self._replacement.interrupt()
        else:
            self.ended.put(None)

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Done]:
        waiting = iter(tasks)
        while self._over is None and self._replacement is None:
            self._fill(waiting)
            if not self._running:
                if not self._suspects:
                    return
                self._submit([self._suspects.popleft()])
                continue
            yield from self._answered(self._next())
        if self._replacement is not None:
            yield from self._replacement.outcomes(_chained(self._drained(), waiting))
            return
        reason, kind = self._over or ("", "")
        for task in self._drained():
            yield task, work.lost(task, reason, kind)
        for task in waiting:
            yield task, work.lost(task, f"it was not begun: {reason}", kind)

    def _fill(self, waiting: Iterator[Task]) -> None:
        if self._suspects and self._running:
            return  # first what runs; then the suspects, each alone
        workers = workers_of(self._executor)
        together = max(1, min(_MOST_TOGETHER, self._ways.size // (workers * 8)))
        while not self._suspects and len(self._running) < workers * _AHEAD:
            several = list(islice(waiting, together))
            if not several:
                return
            self._submit(several)
            if self._over is not None or self._replacement is not None:
                return

    def _submit(self, tasks: list[Task]) -> None:
        try:
            future = self._executor.submit(work.convert_several, tasks, self._given)
        except Exception as error:  # it is shut down, broken or not connected
            self._suspects.extendleft(reversed(tasks))
            self._break(error)
            return
        self._running[future] = tasks
        future.add_done_callback(self.ended.put)

    def _next(self) -> Future[list[Outcome]] | None:
        """Return what is done; None if nothing is for too long."""
        try:
            ended = self.ended.get(timeout=self._ways.stall)
        except Empty:
            reason = f"the executor has answered nothing for {self._ways.stall:.0f} seconds"
            self._over = reason, "TimeoutError"
            return None
        if ended is None:
            raise KeyboardInterrupt
        return ended

    def _answered(self, future: Future[list[Outcome]] | None) -> Iterator[Done]:
        if future is None or future not in self._running:
            return
        tasks = self._running.pop(future)
        try:
            outcomes = future.result()
        except BaseException as error:  # any error by which the engine reports a lost task
            yield from self._lost(tasks, error)
            return
        self._lost_in_a_row = 0
        yield from zip(tasks, outcomes, strict=True)

    def _lost(self, tasks: list[Task], error: BaseException) -> Iterator[Done]:
        if _is_broken(error):  # then all that run have failed alike, and one of them is the cause
            self._suspects.extend(task._replace(again=True) for task in tasks)
            self._break(error)
            return
        if len(tasks) > 1 or self._running or not tasks[0].again:
            self._suspects.extend(task._replace(again=True) for task in tasks)
            return
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= _MOST_LOST:
            self._over = f"{_MOST_LOST} files in a row were lost: {_words(error)}", _kind(error)
        yield tasks[0], work.lost(tasks[0], _words(error), _kind(error))

    def _break(self, error: BaseException) -> None:
        """Go on without this executor: in processes of ours, if it was a pool of processes."""
        from concurrent.futures.process import BrokenProcessPool

        if isinstance(error, BrokenProcessPool):

            pool = Pool(workers_of(self._executor), self._given)
            self._replacement = self._stack.enter_context(pool)
        else:
            self._over = f"the executor is over: {_words(error)}", _kind(error)

    def _drained(self) -> Iterator[Task]:
        """Yield what was handed out and has no outcome yet."""
        for tasks in self._running.values():
            self._suspects.extend(task._replace(again=True) for task in tasks)
        self._running.clear()
        while self._suspects:
            yield self._suspects.popleft()

    def begun(self) -> Iterator[Done]:
        """Yield the outcomes of what was handed out.

        Only pools of the standard library tell what they have not begun; of other executors it is
        waited for, and what does not come in time is lost: it may or may not have been done.
        """
        if self._replacement is not None:
            yield from self._replacement.begun()
            return
        if is_of_this_process(self._executor):
            for future in [future for future in self._running if future.cancel()]:
                del self._running[future]
        with contextlib.suppress(KeyboardInterrupt):  # a second one: no more patience
            yield from self._awaited()
        reason = "the run was interrupted while this was handed out"
        for task in self._drained():
            yield task, work.lost(task, reason, "Interrupted")

    def _awaited(self) -> Iterator[Done]:
        import time

        until = time.monotonic() + PATIENCE
        while self._running and (left := until - time.monotonic()) > 0:
            try:
                ended = self.ended.get(timeout=left)
            except Empty:
                return
            if ended is None:
                raise KeyboardInterrupt
            yield from self._answered(ended)


def _chained(first: Iterator[Task], then: Iterator[Task]) -> Iterator[Task]:
    yield from first
    yield from then


def is_of_this_process(executor: Executor) -> bool:
    """Whether it is of the standard library: a task that it cancels was not begun, and its workers
    see what this process sees."""
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    return type(executor) in (ProcessPoolExecutor, ThreadPoolExecutor)


def _is_broken(error: BaseException) -> bool:
    from concurrent.futures import BrokenExecutor

    return isinstance(error, BrokenExecutor)


def _words(error: BaseException) -> str:
    """Return what an engine says, in one line."""
    text = " ".join(str(error).split())
    return f"{_kind(error)}: {text[:400]}" if text else _kind(error)


def _kind(error: BaseException) -> str:
    return type(error).__name__


class Pool:
    """A number of workers.

    Args:
        workers: how many.
        given: what is asked of every file.
        isolated: whether their memory is limited, and their processor time for each file.
    """

    def __init__(self, workers: int, given: Order, *, isolated: bool = False) -> None:
        self._count, self._first = workers, (given, isolated)
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        #: Finished tasks; None for an interrupt.
        self._done: SimpleQueue[tuple[Task, Outcome] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Pool:
        self._starter = server.take()
        self._open.enter_context(interrupts_held(self.interrupt))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._starter.close()
        self._open.close()

    def interrupt(self) -> None:
        """Let `outcomes` raise `KeyboardInterrupt` where it does no harm."""
        self._done.put(None)

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task with its outcome, as they finish.

        Raises:
            KeyboardInterrupt: the user interrupted the run. `begun` then has the outcomes of
                tasks that were begun.
        """
        waiting = iter(tasks)
        for task in islice(waiting, self._count):
            if len(self._threads) < self._count:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
            self._begin(task)
        while self._running:
            done = self._done.get()
            if done is None:
                raise KeyboardInterrupt
            self._running -= 1
            for task in islice(waiting, 1):
                self._begin(task)
            yield done

    def _begin(self, task: Task) -> None:
        self._tasks.put(task)
        self._running += 1

    def begun(self) -> Iterator[tuple[Task, Outcome]]:
        """Yield the outcomes of what the workers have begun, when it is done."""
        while self._running:
            done = self._done.get()
            if done is not None:  # a further interrupt changes nothing: they are nearly done
                self._running -= 1
                yield done

    def _work(self) -> None:
        """Be the thread of one worker, and of each that replaces it."""
        worker: _Worker | None = None
        while (task := self._tasks.get()) is not None:
            try:
                worker = worker or _Worker(self._starter, self._first)
                outcome = worker.outcome(task)
            except (EOFError, OSError, pickle.UnpicklingError):
                outcome = work.died(task)
                if worker is not None:
                    worker.close()
                worker = None
            except BaseException as error:  # a thread that ends would be waited for in vain
                outcome = work.lost(task, str(error) or type(error).__name__, type(error).__name__)
            self._done.put((task, outcome))
        if worker is not None:
            worker.close()


class _Worker:
    """A worker, as its thread sees it.

    Args:
        starter: what starts it.
        first: the message that it is sent before all tasks.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, starter: server.Starter, first: Any) -> None:
        self._ends = starter.start()
        self._send(first)

    def outcome(self, task: Task) -> Outcome:
        """Let it do a task, and wait until it is done.

        Raises:
            EOFError, OSError, pickle.UnpicklingError: it died.
        """
        self._send(task)
        outcome: Outcome = pickle.load(self._ends.incoming)  # noqa: S301  # a process of ours
        return outcome

    def _send(self, message: Any) -> None:
        pickle.dump(message, self._ends.outgoing)
        self._ends.outgoing.flush()

    def close(self) -> None:
        """Let it end."""
        self._ends.close()
