"""How far a long piece of work is: told to whoever watches, and to no one by default.

Whoever begins something long says how much is to come (`expect`), and whoever does it says how much
is done (`advance`); in bytes, or in whatever else the two agree on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Watcher(Protocol):
    """Who watches: a bar on a terminal, for one."""

    def expect(self, size: int) -> None:
        """Hear that so much more work is to come."""

    def advance(self, size: int) -> None:
        """Hear that so much is done."""


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
    """Say that so much more work is to come."""
    for watcher in _watchers:
        watcher.expect(size)


def advance(size: int) -> None:
    """Say that so much is done."""
    for watcher in _watchers:
        watcher.advance(size)
