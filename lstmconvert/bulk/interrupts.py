"""An interrupt in the midst of handing out files waits until it does no harm."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def held(then: Callable[[], object]) -> Iterator[None]:
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
