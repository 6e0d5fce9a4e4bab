"""A destination holds the whole new file, or what it held before, whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from lstmconvert.errors import DestinationError, LSTMConvertError
from lstmconvert.limits import MIB
from lstmconvert.locking import alone

_SUFFIX = "lstmconvert-tmp"
#: Of a long name, the temporary file carries so many bytes: file systems allow 255.
_NAME_BYTES = 160
#: Hashing or flushing fewer bytes takes less than to start a thread and to wait for it.
WORTH_A_THREAD = 4 * MIB
_swept: ContextVar[bool] = ContextVar("_swept", default=False)
#: The temporary files of this process, which are not stale.
_mine: set[str] = set()


@contextlib.contextmanager
def replacing(
    destination: Path, *, force: bool = False, source: Path | None = None
) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes `destination` if the block succeeds.

    The temporary file lies in the same directory, is flushed to disk before it takes the name, and
    is removed when the block fails. What a killed process left there is removed by the next one.

    Raises:
        DestinationError: `destination` exists and `force` is off; it is the source, a directory,
            or in no directory; the disk is full or read-only.
    """
    with replacing_all([destination], force=force, source=source) as (temporary,):
        yield temporary


@contextlib.contextmanager
def replacing_all(
    destinations: Sequence[Path], *, force: bool = False, source: Path | None = None
) -> Iterator[list[Path]]:
    """Do what `replacing` does for files that belong together: all take their names, or none.

    The first is the one that is opened, and leads to the others. No file system gives two names at
    once: so an old first file is gone before another is replaced, and an old one is never beside a
    new one. Raises as `replacing`.
    """
    for destination in destinations:
        check_destination(destination, force=force, source=source)
    if not _swept.get():
        for destination in destinations:
            remove_stale(destination)
    # Two threads may write to one destination at once, and a process number comes again.
    end = f"{os.getpid()}.{os.urandom(4).hex()}.{_SUFFIX}"
    temporaries = [one.with_name(f"{_stem(one)}.{end}") for one in destinations]
    _mine.update(one.name for one in temporaries)
    try:
        yield temporaries
        for temporary in temporaries:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        _take_names(list(zip(temporaries, destinations, strict=True)), force)
    except OSError as error:
        raise DestinationError(
            f"cannot write: {error.strerror or error}", where=destinations[0]
        ) from None
    except LSTMConvertError as error:  # of what is read back: the user knows the file by its name
        for temporary, destination in zip(temporaries, destinations, strict=True):
            error.where = error.where and error.where.replace(str(temporary), str(destination))
        raise
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()
            _mine.discard(temporary.name)


def _stem(destination: Path) -> str:
    return os.fsdecode(os.fsencode(f".{destination.name}")[:_NAME_BYTES])


@contextlib.contextmanager
def flushing(path: Path) -> Iterator[None]:
    """Send a file's pages to the disk while the block reads it back: the disk need not wait.

    A failure is left to the flush in `replacing`, which comes after and reports it.
    """
    if path.stat().st_size <= WORTH_A_THREAD:
        _begin_flush(path)
        yield
        return

    def flush() -> None:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.fsync(file.fileno())

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _begin_flush(path: Path) -> None:
    """Have the system send a small file's pages to the disk, and wait for nothing."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            # It means to drop the pages, before which Linux begins to write those that must be.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_destination(
    destination: Path, *, force: bool = False, source: Path | None = None
) -> None:
    """Raise `DestinationError` if `destination` cannot become a new file."""
    try:
        _check_destination(destination, force, source)
    except (OSError, ValueError) as error:  # too long, not to be looked at, a null character
        raise DestinationError(
            f"cannot write: {getattr(error, 'strerror', None) or error}", where=destination
        ) from None


def _check_destination(destination: Path, force: bool, source: Path | None) -> None:
    if not destination.parent.is_dir():
        raise DestinationError(
            "the destination's directory does not exist",
            where=destination.parent,
            hint=f"mkdir -p {destination.parent}",
        )
    if destination.is_dir():
        raise DestinationError("the destination is a directory", where=destination)
    if source is not None and _is_same(source, destination):
        raise DestinationError("source and destination are the same file", where=destination)
    if source is not None and source.resolve() in destination.resolve().parents:
        raise DestinationError("the destination lies inside the source", where=destination)
    if os.path.lexists(destination) and not force:
        raise DestinationError(
            "the destination exists", where=destination, hint="--force replaces it"
        )


def _is_same(source: Path, destination: Path) -> bool:
    try:
        return os.path.samefile(source, destination)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _take_names(pairs: list[tuple[Path, Path]], force: bool) -> None:
    """Give files their names, the first file last."""
    if len(pairs) == 1:
        _take_name(*pairs[0], force)
        return
    taken: list[Path] = []
    with alone(pairs[0][1].parent):
        if force:
            pairs[0][1].unlink(missing_ok=True)
        try:
            for temporary, destination in reversed(pairs):
                _take_name(temporary, destination, force)
                taken.append(destination)
        except BaseException:
            for destination in taken:  # without the first they are nothing
                destination.unlink(missing_ok=True)
            raise


def _take_name(temporary: Path, destination: Path, force: bool) -> None:
    if force:
        os.replace(temporary, destination)
        return
    try:
        # Unlike a rename, a link fails when another process took the name meanwhile.
        os.link(temporary, destination)
    except FileExistsError:
        raise DestinationError(
            "the destination appeared meanwhile", where=destination, hint="--force replaces it"
        ) from None
    except OSError:  # a file system without hard links
        os.rename(temporary, destination)


@contextlib.contextmanager
def swept() -> Iterator[None]:
    """Leave it to the caller to look for stale files: one look, where thousands are written."""
    token = _swept.set(True)
    try:
        yield
    finally:
        _swept.reset(token)


def remove_stale(destination: Path) -> None:
    """Remove what dead processes left beside `destination`."""
    _sweep(destination.parent, re.escape(_stem(destination)))


def sweep(folder: Path) -> None:
    """Remove what dead processes left in a folder, for whatever destination."""
    _sweep(folder, r"\..+")


def _sweep(folder: Path, start: str) -> None:
    pattern = re.compile(rf"({start}\.(\d{{1,10}})\.[0-9a-f]{{8}}\.{_SUFFIX})(\..*)?", re.DOTALL)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and match[1] not in _mine and not _alive(int(match[2])):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _alive(process: int) -> bool:
    if process == os.getpid():  # an earlier one of the same number, in a container for one
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _has_ended(process)


def _has_ended(process: int) -> bool:
    """Whether a process is over, and its parent has not asked for its end: a zombie, on Linux."""
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[:1] == [b"Z"]
