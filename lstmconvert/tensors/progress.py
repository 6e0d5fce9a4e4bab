"""How far a long piece of work is, for a watcher; there is none by default.

The function that begins long work says how much there is (`expect`). The one that does it says how
much is done (`advance`), in the same unit: bytes, for most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Watcher(Protocol):
    """Who watches: a bar on a terminal, for one."""

    def expect(self, size: int) -> None:
        """Add to the work that is to come."""

    def advance(self, size: int) -> None:
        """Add to the work that is done."""


_watchers: list[Watcher] = []


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher of what is done meanwhile."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def is_watched() -> bool:
    """Whether anyone watches: it may cost something to find out how much is to come."""
    return bool(_watchers)


def expect(size: int) -> None:
    """Add to the work that is to come."""
    for watcher in _watchers:
        watcher.expect(size)


def advance(size: int) -> None:
    """Add to the work that is done."""
    for watcher in _watchers:
        watcher.advance(size)
