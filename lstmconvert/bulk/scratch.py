"""Temporary folders of a batch: what fetches and sends files needs, within a limit.

Whoever uses one holds a file in it. So what a killed worker left is known from what another is
using, and the next run of the same user on this host removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import DestinationError
from lstmconvert.files import locking

_START = "lstmconvert-batch-"
_HELD = "held"
#: A folder without a held file is just being made, unless it is older than this, in seconds.
_NEW = 3600.0


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield an empty temporary folder, which is removed at the end.

    Raises:
        LimitExceeded: the batch has taken more temporary space than it may.
        DestinationError: there is no temporary folder that can be written to.
    """
    limits.TEMPORARY_BYTES.check(_used(), tempfile.gettempdir(), "the temporary space of batches")
    try:
        descriptor = None
        while descriptor is None:  # another may take it for one that nobody holds, and remove it
            outer = Path(tempfile.mkdtemp(prefix=f"{_START}{locking.host()}-"))
            descriptor = locking.create_held(outer / _HELD)
        inner = outer / "files"
        inner.mkdir()
    except OSError as error:
        raise DestinationError(
            f"no temporary folder: {error.strerror or error}",
            where=tempfile.gettempdir(),
            hint="name another in the environment variable TMPDIR",
        ) from None
    try:
        yield inner
    finally:
        shutil.rmtree(outer, ignore_errors=True)
        os.close(descriptor)
        shutil.rmtree(outer, ignore_errors=True)  # where an open file cannot be removed


def sweep() -> None:
    """Remove the folders that killed workers of this user left on this host."""
    for path in _all():
        lock = path / _HELD
        with contextlib.suppress(OSError):
            if not _is_mine(path):
                continue
            if lock.exists():
                with locking.abandoned(lock, is_ours=True) as is_abandoned:
                    if is_abandoned:
                        shutil.rmtree(path, ignore_errors=True)
            elif time.time() - path.stat().st_mtime > _NEW:
                shutil.rmtree(path, ignore_errors=True)


def _all() -> list[Path]:
    start = f"{_START}{locking.host()}-"
    try:
        with os.scandir(tempfile.gettempdir()) as entries:
            return [Path(each.path) for each in entries if each.name.startswith(start)]
    except OSError:
        return []


def _is_mine(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()


def _used() -> int:
    """Return the bytes that all such folders of this host take."""
    total = 0
    for path in _all():
        for parent, _, names in os.walk(path):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(parent, name)).st_size
    return total
