"""Bounds of processor time that hold on a slow or busy machine too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

#: What `_work` takes on a quiet machine of 2023.
_USUAL_SECONDS = 0.1
#: Below this nothing is measured: no bound is so low.
_SHORT_SECONDS = 0.5


def _work() -> float:
    """Return the processor time of some fixed work of Python's."""
    start, numbers = time.process_time(), {}
    for number in range(200_000):
        numbers[str(number)] = number % 7
    return time.process_time() - start


def usual(seconds: float) -> float:
    """Return what this much processor time, just spent, would have been on the usual machine."""
    if seconds < _SHORT_SECONDS:
        return seconds
    return seconds / max(1.0, _work() / _USUAL_SECONDS)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes more processor time than this, as the usual machine counts it."""
    start = time.process_time()
    yield
    spent = time.process_time() - start
    assert usual(spent) < seconds, f"{spent:.2f} s of processor time"
