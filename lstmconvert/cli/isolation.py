"""`--isolate`: the work is done in a child process with limits, whose death is one typed error.

A file that overruns a buffer of the HDF5 library, or has it allocate or loop without end, takes the
child down. The parent parses nothing: it waits, passes on what the child said, and removes what the
child may have left beside the destination.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from lstmconvert import limits, writing
from lstmconvert.confinement import confine
from lstmconvert.errors import CorruptFile, LimitExceeded, LSTMConvertError, UsageError

Done = TypeVar("Done")

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
        UsageError: this system has no `fork`, or no limits.
    """
    if not hasattr(os, "fork"):
        raise UsageError("--isolate needs fork and setrlimit, which this system does not have")
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as talk:
        child = os.fork()
        if not child:
            return _limited(work, talk, sources)
        code = os.waitstatus_to_exitcode(_waited(child))
        if code >= 0:
            _pass_on(talk)
            return code
    if destination is not None:
        writing.remove_stale(destination)
    raise _death(-code, sources)


def _limited(work: Callable[[], Done], talk: BinaryIO, sources: str) -> Done:
    os.dup2(talk.fileno(), sys.stderr.fileno())
    confine()
    try:
        return work()
    except MemoryError:
        raise _too_large(limits.ISOLATED_BYTES, sources, "not enough memory") from None


def _waited(child: int) -> int:
    """Wait for the child's end, and see to it that an interrupt reaches it."""
    told = 0.0
    while True:
        try:
            if not told:
                return os.waitpid(child, 0)[1]
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            if time.monotonic() > told + _GRACE_SECONDS:
                os.kill(child, signal.SIGINT)
                told = time.monotonic()
            time.sleep(0.01)
        except KeyboardInterrupt:
            # A terminal tells the child as well; whoever sends the signal to us alone does not.
            told = told or time.monotonic()


def _pass_on(talk: BinaryIO) -> None:
    talk.seek(0)
    with contextlib.suppress(OSError):
        shutil.copyfileobj(talk, sys.stderr.buffer)
        sys.stderr.flush()


def _death(number: int, sources: str) -> LSTMConvertError:
    if number == getattr(signal, "SIGXCPU", None):
        return _too_large(limits.ISOLATED_SECONDS, sources, "out of processor time")
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if name == "SIGKILL":  # by the system when memory runs out
        return _too_large(limits.ISOLATED_BYTES, sources, "killed, perhaps for want of memory")
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
