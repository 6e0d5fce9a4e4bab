"""`--isolate`: the work is done in a child process with limits, whose death is one typed error.

A file that overruns a buffer of a C library, or has it allocate or loop without end, takes the
child down. The parent parses nothing: it waits, passes on the child's output, and removes what the
child may have left next to the destination.

The child is a fork of this process. Where there is no fork (Windows) it runs the same command
again, and its time is all that is limited, by the clock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import click

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, LimitExceeded, LSTMConvertError
from lstmconvert.files import writing
from lstmconvert.limits import confine

Done = TypeVar("Done")

#: Beyond it, Windows says which exception ended a process.
_LARGEST_CODE = 255
#: How long a child may take to tidy up after an interrupt that it heard of itself.
_GRACE_SECONDS = 2.0


def run(work: Callable[[], Done], sources: str, destination: Path | None = None) -> Done | int:
    """Do the work in a child process; return its exit code in the parent.

    In the child this returns what `work` returns, so that it ends as any run of the program does.

    Args:
        work: what parses the files.
        sources: their names, for the message.
        destination: what `work` writes, if anything.

    Raises:
        CorruptFile: the child died of a signal.
        LimitExceeded: it ran out of the memory or of the processor time that it may use.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as talk:
        if hasattr(os, "fork"):
            child = os.fork()
            if not child:
                return _limited(work, talk, sources)
            code = os.waitstatus_to_exitcode(_waited(child))
        else:
            code = _run_again(talk, sources)
        if 0 <= code <= _LARGEST_CODE:
            _pass_on(talk)
            return code
    if destination is not None:
        writing.remove_stale(destination)
    raise _death(code, sources)


def _limited(work: Callable[[], Done], talk: BinaryIO, sources: str) -> Done:
    os.dup2(talk.fileno(), sys.stderr.fileno())
    if not confine():
        _warn("memory")
    try:
        return work()
    except MemoryError:
        raise _too_large(limits.ISOLATED_BYTES, sources, "not enough memory") from None


def _warn(what: str) -> None:
    from lstmconvert.cli import output

    output.warning(f"--isolate: this system does not limit the {what} of a process")


def _run_again(talk: BinaryIO, sources: str) -> int:
    """Run the command in a new process, without `--isolate`; return its exit code."""
    arguments = click.get_current_context().find_root().obj
    command = [sys.executable, "-m", "lstmconvert"]
    command += [argument for argument in arguments if argument != "--isolate"]
    _warn("memory")
    seconds = limits.ISOLATED_SECONDS.value
    with subprocess.Popen(command, stderr=talk) as child:  # noqa: S603  # it is this command
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.terminate()
            duration = f"not done after {seconds} seconds"
            raise _too_large(limits.ISOLATED_SECONDS, sources, duration) from None
        except KeyboardInterrupt:  # a terminal tells the child as well
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_SECONDS)
            child.terminate()
            raise


def _waited(child: int) -> int:
    """Wait for the child's end, and see to it that an interrupt reaches it."""
    interrupted = 0.0
    while True:
        try:
            if not interrupted:
                return os.waitpid(child, 0)[1]
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            if time.monotonic() > interrupted + _GRACE_SECONDS:
                os.kill(child, signal.SIGINT)
                interrupted = time.monotonic()
            time.sleep(0.01)
        except KeyboardInterrupt:
            # A terminal tells the child as well; whoever sends the signal to us alone does not.
            interrupted = interrupted or time.monotonic()


def _pass_on(talk: BinaryIO) -> None:
    talk.seek(0)
    with contextlib.suppress(OSError):
        shutil.copyfileobj(talk, sys.stderr.buffer)
        sys.stderr.flush()


def _death(code: int, sources: str) -> LSTMConvertError:
    number = -code
    if number > 0 and number == getattr(signal, "SIGXCPU", None):
        return _too_large(limits.ISOLATED_SECONDS, sources, "out of processor time")
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}" if number > 0 else f"exit code {code:#x}"
    if name == "SIGKILL":  # by the system when memory runs out
        return _too_large(limits.ISOLATED_BYTES, sources, "killed, perhaps because memory ran out")
    return CorruptFile(
        "the process that read it crashed",
        where=sources,
        found=name,
        hint="the file breaks a C library that parses it: do not trust it, or save it again",
    )


def _too_large(limit: limits.Limit, sources: str, found: str) -> LimitExceeded:
    return LimitExceeded(
        "reading it took more than --isolate allows",
        where=sources,
        found=found,
        expected=f"at most {limit.value:,} ({limit.reason})",
        hint=f"if you trust the file, raise {limit.variable}, now {limit.value}",
    )
