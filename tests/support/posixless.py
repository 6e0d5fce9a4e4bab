"""What Windows does not have is taken away, and what it forbids fails: a plugin of pytest.

    python -m pytest -p support.posixless tests/files tests/cli

Python on Windows lacks `os.preadv` and the like, locks and limits of POSIX, `fork`, and some
signals. There `os.kill` ends a process whatever the signal, and nobody renames, replaces or deletes
a file that is open, or opens a folder. These fail for our own code alone, as what the standard
library does for itself on Linux is not what it does there.

Children are treated in the same way, through a `sitecustomize` on their path. What cannot be
played: names (a colon, `CON`), text files with `\\r\\n`, and time stamps of other precision.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

TAKEN = {
    os: ("preadv", "pread", "pwritev", "pwrite", "fork", "sched_getaffinity", "posix_fadvise",
         "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"),
    signal: ("SIGKILL", "SIGCHLD", "pthread_sigmask"),
}  # fmt: skip
MODULES = ("fcntl", "resource")
_SITE = Path(__file__).with_name("posixless_site")
#: Modules that only hand a call on.
_BETWEEN = ("pathlib", "contextlib", "os")


def take_away() -> None:
    """Take the names away, once."""
    for module, names in TAKEN.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for module_name in MODULES:
        sys.modules[module_name] = None  # type: ignore[assignment]  # it cannot be imported
    multiprocessing.set_start_method("spawn", force=True)
    os.kill = _ours_fails(os.kill, "os.kill ends a process on Windows")
    os.open = _no_folder(os.open)
    for name, both in (("replace", True), ("rename", True), ("unlink", False), ("remove", False)):
        setattr(os, name, _closed_only(getattr(os, name), both=both))


def _is_ours() -> bool:
    """Whether our own code made the call, itself or through a module that hands it on."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _BETWEEN:
            return name.partition(".")[0] == "lstmconvert"
        frame = frame.f_back
    return False


def _ours_fails(real: Callable[..., Any], message: str) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(*args: Any, **options: Any) -> Any:
        if _is_ours():
            raise AssertionError(message)
        return real(*args, **options)

    return call


def _no_folder(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(path: Any, *args: Any, **options: Any) -> Any:
        if _is_ours() and os.path.isdir(path):
            raise PermissionError(13, os.strerror(13), str(path))
        return real(path, *args, **options)

    return call


def _closed_only(real: Callable[..., Any], *, both: bool) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(path: Any, *args: Any, **options: Any) -> Any:
        if _is_ours():
            for each in (path, *args[:1]) if both else (path,):
                if _is_open(each):
                    raise PermissionError(13, os.strerror(13), str(each))
            if both and real.__name__ == "rename" and os.path.lexists(args[0]):
                raise FileExistsError(17, os.strerror(17), str(args[0]))
        return real(path, *args, **options)

    return call


def _is_open(path: Any) -> bool:
    """Whether any process has a file open."""
    try:
        wanted = os.stat(path)
        with contextlib.closing(_all_open()) as all_open:
            # A file that is replaced meanwhile leaves its number to whoever creates the next one.
            return any(
                os.path.samestat(wanted, each) and os.path.samestat(wanted, os.stat(path))
                for each in all_open
            )
    except OSError:
        return False


def _all_open() -> Generator[os.stat_result, None, None]:
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:  # another's, or over
            continue
        for descriptor in descriptors:
            with contextlib.suppress(OSError):  # it is closed by now
                yield os.stat(f"/proc/{process}/fd/{descriptor}")


if not hasattr(builtins, "_posixless"):  # once in a process
    builtins._posixless = True  # type: ignore[attr-defined]
    take_away()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(_SITE), os.environ.get("PYTHONPATH")])
    )
