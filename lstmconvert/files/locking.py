"""Who works where: one process at a time in a folder, and files that a living process holds.

Process numbers do not tell this: two containers, and two hosts on one disk, have the same ones,
and on Windows to ask for a process by its number ends it. So a file is locked by whoever writes it.
Where there are no locks (Windows), nobody can delete a file that is open; the time says the rest.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_LOCK = ".lstmconvert-lock"
#: How old a lock file may be: it is held while a few names are changed.
_LOCK_SECONDS = 10.0
#: How long a file that nobody holds is left alone where locks cannot say so: it may be that of a
#: process that is about to give it its name; and where it is another host's, whose lock may not
#: be seen from here.
_ALONE_SECONDS, _ELSEWHERE_SECONDS = 600.0, 86_400.0


def _fcntl() -> ModuleType | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl


def has_locks() -> bool:
    """Whether files can be locked here. If not, a file must be closed before it is renamed."""
    return _fcntl() is not None


@functools.cache
def host() -> str:
    """Return eight letters that represent this host, or this container."""
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return f"{zlib.crc32(name.encode()):08x}"


def create_held(path: Path, mode: int = 0o666) -> int | None:
    """Create a file, and hold it until the descriptor that is returned is closed.

    Between the two a sweep may take it for a file that nobody holds. It then has the lock while it
    removes the file (`abandoned`). We wait for the lock and look whether the file is still there.

    Returns:
        None if another removed the file before it was locked.

    Raises:
        OSError: it exists, or cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, mode)
    fcntl = _fcntl()
    if fcntl is None or _locked(fcntl, path, descriptor):
        return descriptor
    return None


def create_held_folder(path: Path) -> int | None:
    """Do for a folder what `create_held` does for a file."""
    os.mkdir(path)
    fcntl = _fcntl()
    if fcntl is None:  # where folders cannot be opened either: nothing holds it
        return os.open(os.devnull, os.O_RDONLY)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    return descriptor if _locked(fcntl, path, descriptor) else None


def _locked(fcntl: ModuleType, path: Path, descriptor: int) -> bool:
    """Wait for the lock of what was just created, and close it if another removed it before."""
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return True
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return False


@contextlib.contextmanager
def abandoned(path: Path, is_ours: bool) -> Iterator[bool]:
    """Yield whether nobody holds a file that was created by `create_held`.

    If so the block holds it, and may remove it: whoever has just created it waits meanwhile.

    Args:
        path: the file.
        is_ours: whether it was made on this host.
    """
    fcntl = _fcntl()
    descriptor = -1
    try:
        age = time.time() - os.stat(path).st_mtime
        if fcntl is not None:  # an open file could not be renamed where there are no locks
            descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield False
        return
    is_free = is_ours or age > _ELSEWHERE_SECONDS
    try:
        if fcntl is None:
            is_free = age > (_ALONE_SECONDS if is_ours else _ELSEWHERE_SECONDS)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_free = False
    except OSError:  # a file system without locks
        is_free = age > _ELSEWHERE_SECONDS
    try:
        yield is_free
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other is in such a block for this folder, and keep others out of it.

    The lock is on the folder itself, and leaves no file; where folders cannot be locked it is a
    file in it, which is removed. Where there can be neither, as on some network file systems, the
    block just runs.
    """
    fcntl = _fcntl()
    if fcntl is None:
        with _lock_file(folder / _LOCK):
            yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    descriptor = None
    until = time.monotonic() + 3 * _LOCK_SECONDS
    while descriptor is None and time.monotonic() < until:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            with contextlib.suppress(OSError):  # Windows keeps it while its owner lives
                if time.time() - path.stat().st_mtime > _LOCK_SECONDS:
                    path.unlink()
            time.sleep(0.01)
        except PermissionError:  # on Windows also of a file that is about to go
            until = min(until, time.monotonic() + 0.5)
            time.sleep(0.01)
        except OSError:
            break
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
