"""Converting in workers: processes of this machine, each of which has one file at a time."""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import socket
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from lstmconvert.bulk import interrupts, one, server
from lstmconvert.bulk.report import Outcome
from lstmconvert.bulk.sources import Job, Task


class Pool:
    """A number of workers. One that dies of its file is replaced, and that file has failed.

    Args:
        workers: how many.
        options: of `convert`.
        isolated: whether their memory is limited, and their processor time for each file.
    """

    def __init__(self, workers: int, options: Mapping[str, Any], *, isolated: bool = False) -> None:
        self._count, self._first = workers, (options, isolated)
        self._workers: set[_Worker] = set()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Pool:
        self._server = server.take()
        self._selector = selectors.DefaultSelector()
        wake, waker = os.pipe()
        self._selector.register(wake, selectors.EVENT_READ)
        self._open.callback(os.close, wake)
        self._open.callback(os.close, waker)
        self._open.callback(self._selector.close)
        self._open.enter_context(interrupts.held(lambda: os.write(waker, b"!")))
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.close()
        self._server.close()
        self._open.close()

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome, as they are done.

        Raises:
            KeyboardInterrupt: there was one. `begun` then has the outcomes of what was begun.
        """
        waiting = iter(tasks)
        for task in islice(waiting, self._count):
            self._begin(task)
        while self._workers:
            for key, _ in self._selector.select():
                if key.data is None:
                    raise KeyboardInterrupt
                job, outcome = key.data.answer()
                self._go_on(key.data, next(waiting, None))
                yield job, outcome

    def begun(self) -> Iterator[Outcome]:
        """Yield the outcomes of what the workers have begun, when it is done."""
        while self._workers:
            worker = self._workers.pop()
            yield worker.answer()[1]
            worker.close()

    def _begin(self, task: Task) -> None:
        worker = self._started()
        self._workers.add(worker)
        self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        worker.give(task)

    def _started(self) -> _Worker:
        try:
            return _Worker(self._server, self._first)
        except OSError:  # somebody has killed the server
            self._server.close()
            self._server = server.take()
            return _Worker(self._server, self._first)

    def _go_on(self, worker: _Worker, task: Task | None) -> None:
        if task is not None and worker.is_alive:
            worker.give(task)
            return
        self._workers.remove(worker)
        self._selector.unregister(worker.socket)
        worker.close()
        if task is not None:
            self._begin(task)


class _Worker:
    """A worker, as this process sees it."""

    def __init__(self, parent: server.Server, first: Any) -> None:
        self.is_alive = True
        self.socket, theirs = socket.socketpair()
        self._stream = self.socket.makefile("rwb")
        try:
            with theirs:
                parent.start(theirs)
        except OSError:
            self.close()
            raise
        self._send(first)

    def give(self, task: Task) -> None:
        """Let it begin a task."""
        self._job = task.job
        self._send(tuple(task))

    def answer(self) -> tuple[Job, Outcome]:
        """Wait for the outcome of its job."""
        try:
            outcome: Outcome = pickle.load(self._stream)  # noqa: S301  # a process of ours
        except (EOFError, OSError, pickle.UnpicklingError):
            self.is_alive = False
            outcome = one.died(self._job)
        return self._job, outcome

    def close(self) -> None:
        """Let it end."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self.socket.close()

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # it is dead, as its answer will tell
            pickle.dump(message, self._stream)
            self._stream.flush()
