"""The processes that convert many files here."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.context import BaseContext

#: What a worker needs is imported once, in the process that the workers are copies of.
_PRELOADED = [
    "lstmconvert.api",
    "lstmconvert.bulk.one",
    "lstmconvert.keras.load",
    "safetensors",
]


def of(workers: int) -> ProcessPoolExecutor:
    """Return a pool of so many processes, which leave an interrupt to this one."""
    return ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start)


def warm() -> None:
    """Let the process that workers are copies of begin its imports, while this one does its own."""
    if hasattr(os, "fork"):
        from multiprocessing import forkserver

        _context()
        forkserver.ensure_running()


def _context() -> BaseContext:
    # Not `fork`: it copies locks that threads of the caller hold. Not `spawn`: it imports NumPy
    # anew in each worker. A fork server has no threads, and has imported it once.
    if not hasattr(os, "fork"):
        return get_context("spawn")
    from lstmconvert.bulk.server import Context  # Windows has not what it is made of

    context = Context()
    context.set_forkserver_preload(_PRELOADED)
    return context


def _start() -> None:
    """Leave an interrupt to the parent, which lets what was begun be finished; die when it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the pool's queue would wait for ever for another job
