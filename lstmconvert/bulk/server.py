"""The process that workers are copies of: it imports what a conversion needs, once.

A copy takes two milliseconds, and the imports of a worker that starts anew take a hundred. The
process has one thread, so that no copy finds a lock that another thread held.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from lstmconvert import blas

#: What conversions of Keras's files need; other kinds import their own.
_NEEDED = ("lstmconvert.bulk.worker", "lstmconvert.api", "lstmconvert.keras.load", "safetensors")
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({number})"


class Server:
    """Such a process, as its parent sees it. It ends when this is closed, or its parent is over."""

    def __init__(self, control: socket.socket, stop: Callable[[], object]) -> None:
        self._control, self._stop = control, stop

    def start(self, end: socket.socket) -> None:
        """Let a worker begin at the other side of a socket.

        Raises:
            OSError: the server is over.
        """
        socket.send_fds(self._control, [b"1"], [end.fileno()])

    def close(self) -> None:
        """End it; its workers live until their sockets are closed."""
        self._control.close()
        self._stop()


#: What `begin` started and nobody has taken.
_begun: list[Server] = []


def begin() -> None:
    """Start a server while this process does something else, if it can be done by a fork.

    This process must be as it was started: `lstmconvert batch` calls this before all else.
    """
    # Where the shell has closed one of these, the socket would take its number.
    is_open = None not in (sys.stdin, sys.stdout, sys.stderr)
    if hasattr(os, "fork") and is_open and _is_single():
        _begun.append(_forked())


def take() -> Server:
    """Return the server that was begun, or one that starts now."""
    return _begun.pop() if _begun else _started()


def end() -> None:
    """End the server that was begun for nothing."""
    while _begun:
        _begun.pop().close()


def serve(number: int) -> NoReturn:
    """Be a server, until the other side of the socket of that number is closed."""
    from importlib import import_module

    blas.single()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a worker that is over
    gc.disable()
    for name in _NEEDED:
        import_module(name)
    gc.freeze()
    gc.enable()
    control = socket.socket(fileno=number)
    while True:
        _, numbers, _, _ = socket.recv_fds(control, 1, 1)
        if not numbers:
            os._exit(0)
        if not os.fork():
            from lstmconvert.bulk import worker

            control.close()
            worker.work(numbers[0])
        os.close(numbers[0])


def _is_single() -> bool:
    """Whether this process has no other thread, a C library's neither. Only Linux tells."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let a process that starts here have no interrupts: its parent finishes what was begun."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forked() -> Server:
    ours, theirs = socket.socketpair()
    with theirs, _deaf():
        process = os.fork()
        if not process:
            try:
                ours.close()
                serve(theirs.detach())
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:  # never back into what the parent does
                os._exit(1)

    def stop() -> None:
        with contextlib.suppress(OSError):  # the caller waits for all children, and was first
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)

    return Server(ours, stop)


def _started() -> Server:
    """Start a server as a program: a fork would copy the locks that threads of the caller hold."""
    import subprocess

    ours, theirs = socket.socketpair()
    text = _PROGRAM.format(path=sys.path, module=__name__, number=theirs.fileno())
    with theirs, _deaf():
        process = subprocess.Popen(  # noqa: S603  # this interpreter, and this module
            [sys.executable, "-c", text], pass_fds=[theirs.fileno()]
        )

    def stop() -> None:
        process.kill()
        process.wait()

    return Server(ours, stop)
