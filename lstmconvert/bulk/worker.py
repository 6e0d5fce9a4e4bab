"""A worker: a process that converts what it is sent, one file after the other."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import threading
from typing import NoReturn

from lstmconvert.bulk import one
from lstmconvert.confinement import confine


def work(number: int) -> NoReturn:
    """Answer jobs with outcomes, until the other side of the socket of that number is closed.

    What comes first are the options, and whether memory is limited, and processor time for each
    file; then jobs, each with what an earlier run reports of it.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    threading.Thread(target=_follow, args=(number,), daemon=True).start()
    stream = socket.socket(fileno=number).makefile("rwb")
    with contextlib.suppress(EOFError, OSError):
        options, isolated = pickle.load(stream)  # noqa: S301  # the process that we belong to
        while True:
            job, known = pickle.load(stream)  # noqa: S301  # as above
            if isolated:
                confine()
            pickle.dump(one.convert(job, options, known), stream)
            stream.flush()
    os._exit(0)


def _follow(number: int) -> None:
    """Die when the other side does: nobody waits for the file that is being converted."""
    poll = select.poll()
    poll.register(number, select.POLLHUP)
    poll.poll()
    os._exit(1)
