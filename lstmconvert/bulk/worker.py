"""A worker: a process that converts the files it is sent, one after the other."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from queue import SimpleQueue
from typing import Any, BinaryIO, NoReturn

from lstmconvert.bulk import work


def answer(incoming: BinaryIO, outgoing: BinaryIO) -> NoReturn:
    """Answer tasks with outcomes, until the other side is closed.

    What comes first is the order of the run, and whether memory is limited, and processor time for
    each file; then tasks.
    """
    messages: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_follow, args=(incoming, messages), daemon=True).start()
    given, isolated = messages.get()
    while True:
        task = messages.get()
        if isolated:
            from lstmconvert.limits import confine  # not every system has limits

            confine()
        pickle.dump(work.convert(task, given), outgoing)
        outgoing.flush()


def _follow(incoming: BinaryIO, messages: SimpleQueue[Any]) -> None:
    """Pass on messages, and die when the other side does: nobody waits for an outcome then."""
    try:
        while True:
            messages.put(pickle.load(incoming))  # noqa: S301  # the process that we belong to
    except BaseException:
        os._exit(0)


def main() -> NoReturn:
    """Be a worker that was started as a program, and talks through its input and output."""
    incoming = sys.stdin.buffer
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else gets among the outcomes
    answer(incoming, outgoing)
