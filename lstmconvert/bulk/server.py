"""What starts workers: a process that they are copies of, or, without copies, the interpreter.

A copy takes two milliseconds, and the imports of a worker that starts anew take a hundred. So a
process imports what a conversion needs once, and copies itself. It has one thread, so that no copy
finds a lock that another thread held. A system without fork starts every worker as a program.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn, Protocol

from lstmconvert import blas

if TYPE_CHECKING:
    import socket

#: The imports that conversions of Keras's files need; other kinds import their own.
_NEEDED = (
    "lstmconvert.bulk.worker",
    "lstmconvert.api",
    "lstmconvert.keras.reading.load",
    "safetensors",
)
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from {module} import {function}; {function}({given})"
)


class Pipe(NamedTuple):
    """Both directions between this process and a worker, what ends it, and its number, if known."""

    incoming: BinaryIO
    outgoing: BinaryIO
    close: Callable[[], object]
    process: int = 0


class Starter(Protocol):
    """What starts workers. It may be asked from several threads at once."""

    def start(self) -> Pipe:
        """Start a worker.

        Raises:
            OSError: it cannot be started.
        """

    def close(self) -> None:
        """End whatever starts workers; these live until their pipes are closed."""


class Server:
    """A process that workers are copies of, as its parent sees it.

    It ends when this is closed, or its parent is over; one that somebody killed is replaced.
    """

    def __init__(self, control: socket.socket, stop: Callable[[], object]) -> None:
        self._control, self._stop = control, stop
        self._lock = threading.Lock()

    def start(self) -> Pipe:
        import socket

        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
            except OSError:  # somebody has killed the server
                self.close()
                other = _started()
                self._control, self._stop = other._control, other._stop
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
        incoming, outgoing = ours.makefile("rb"), ours.makefile("wb")

        def close() -> None:
            for end in (outgoing, incoming, ours):
                with contextlib.suppress(OSError):
                    end.close()

        return Pipe(incoming, outgoing, close)

    def close(self) -> None:
        self._control.close()
        self._stop()


class Programs:
    """Starts every worker as a program of its own, where a process cannot copy itself."""

    def start(self) -> Pipe:
        import subprocess

        # An interrupt of the terminal is for the parent, which lets workers finish.
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        with _deaf():
            process = subprocess.Popen(  # noqa: S603  # this interpreter, and this package
                [sys.executable, "-c", _program("lstmconvert.bulk.worker", "main")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                creationflags=flags,
            )
        incoming: Any = process.stdout
        outgoing: Any = process.stdin

        def close() -> None:
            for end in (outgoing, incoming):
                with contextlib.suppress(OSError):
                    end.close()
            process.wait()

        return Pipe(incoming, outgoing, close, process.pid)

    def close(self) -> None:
        pass


def _program(module: str, function: str, given: str = "") -> str:
    return _PROGRAM.format(path=sys.path, module=module, function=function, given=given)


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


def take() -> Starter:
    """Return the server that was begun, or what starts workers otherwise."""
    if _begun:
        return _begun.pop()
    return _started() if hasattr(os, "fork") else Programs()


def end() -> None:
    """End the server that was begun for nothing."""
    while _begun:
        _begun.pop().close()


def serve(number: int) -> NoReturn:
    """Be a server, until the other side of the socket of that number is closed."""
    import socket
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
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            ends = socket.socket(fileno=numbers[0])
            worker.answer(ends.makefile("rb"), ends.makefile("wb"))
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
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forked() -> Server:
    import socket

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
    import socket
    import subprocess

    ours, theirs = socket.socketpair()
    text = _program(__name__, "serve", str(theirs.fileno()))
    with theirs, _deaf():
        process = subprocess.Popen(  # noqa: S603  # this interpreter, and this module
            [sys.executable, "-c", text], pass_fds=[theirs.fileno()]
        )

    def stop() -> None:
        process.kill()
        process.wait()

    return Server(ours, stop)
