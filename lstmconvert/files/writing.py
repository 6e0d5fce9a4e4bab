"""A destination holds either the whole new file or its old contents, in every case.

A file is written under a temporary name, and read back and compared before it takes its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import DestinationError, LSTMConvertError
from lstmconvert.files import locking, names
from lstmconvert.files.opening import url_of
from lstmconvert.limits import MIB
from lstmconvert.tensors.checksums import checking_later
from lstmconvert.tensors.dtypes import Array, as_bits
from lstmconvert.tensors.streaming import SMALL, Sums, checksums, pour
from lstmconvert.tensors.tensor import Tensor, written_by_us

_SUFFIX, _KEPT = "lstmconvert-tmp", ".lstmconvert-old"
#: How many bytes of a long name the temporary file carries: file systems allow 255.
_NAME_BYTES = 160
#: Hashing or flushing fewer bytes takes less than to start a thread and to wait for it.
WORTH_A_THREAD = 4 * MIB
_swept: ContextVar[bool] = ContextVar("_swept", default=False)


@contextlib.contextmanager
def replacing(
    destination: Path, *, force: bool = False, source: Path | None = None
) -> Iterator[Path]:
    """Yield the path of an empty temporary file that becomes `destination` if the block succeeds.

    The temporary file is in the same directory, is flushed to disk before it takes the name, and
    is removed when the block fails. The next process removes the leftovers of a killed one.
    An existing destination keeps its permissions.

    Raises:
        DestinationError: `destination` exists and `force` is off; it is the source, a directory,
            or in no directory; the disk is full or read-only.
    """
    with replacing_all([destination], force=force, source=source) as (temporary,):
        yield temporary


class Written(NamedTuple):
    """What reads a file back whose writer knows where it put what.

    Fields: `check` compares what lies in the file with what was written; `seal` puts in place what
    is known only then, and compares it. Both raise `DestinationError` where it differs.
    """

    check: Callable[[], None]
    seal: Callable[[], None]


#: Whether a folder that is there may be replaced by a new one.
Replaceable = Callable[[Path], bool]


@contextlib.contextmanager
def replacing_all(
    destinations: Sequence[Path],
    *,
    force: bool = False,
    source: Path | None = None,
    replaceable: Replaceable | None = None,
) -> Iterator[list[Path]]:
    """Do what `replacing` does for files that belong together: all take their names, or none.

    The first is the one that is opened, and leads to the others. No file system gives two names at
    once, so that an old first file is never beside a new second one: the old files are kept in a
    hidden folder while the new ones take their names. If that fails they are put back at once. If
    the process is killed in that moment there is no first file, and whoever writes there next puts
    the old ones back. Raises as `replacing`.

    With `replaceable` the destinations are folders, and empty ones are yielded. No file system
    replaces a folder that is not empty, so that an old one is kept as such files are.
    """
    for destination in destinations:
        check_destination(destination, force=force, source=source, replaceable=replaceable)
    if not _swept.get():
        for destination in destinations:
            remove_stale(destination)
    temporaries: list[Path] = []
    descriptors: list[int] = []
    try:
        is_folder = replaceable is not None
        modes = [_mode(destination, is_folder=is_folder) for destination in destinations]
        for destination, mode in zip(destinations, modes, strict=True):
            create = locking.create_held if replaceable is None else locking.create_held_folder
            _begin_temporary(destination, create, temporaries, descriptors)
            if mode is not None:
                os.chmod(temporaries[-1], mode | stat.S_IRUSR | stat.S_IWUSR | _ENTER[is_folder])
        with checking_later(), written_by_us(temporaries):
            yield temporaries
        for temporary, mode in zip(temporaries, modes, strict=True):
            (_flush_folder if is_folder else _flush)(temporary)
            if mode is not None:
                os.chmod(temporary, mode)
        if not locking.has_locks():  # then a file must be closed before it is renamed
            _let_go(descriptors, temporaries)
        _take_names(list(zip(temporaries, destinations, strict=True)), force)
    except OSError as error:
        raise DestinationError(
            f"cannot write: {error.strerror or error}", where=destinations[0]
        ) from None
    except LSTMConvertError as error:  # the user knows the file by its final name
        for temporary, destination in zip(temporaries, destinations, strict=False):
            error.where = error.where and error.where.replace(str(temporary), str(destination))
        raise
    finally:
        try:
            _let_go(descriptors, [])
        finally:  # an interrupt may come at any moment
            for temporary in temporaries:
                with contextlib.suppress(OSError):
                    _remove(temporary)


def _begin_temporary(
    destination: Path,
    create: Callable[[Path], int | None],
    temporaries: list[Path],
    descriptors: list[int],
) -> None:
    """Create the temporary file of a destination, and hold it: its path and its descriptor are
    appended, the path first, as an interrupt may come at any moment.

    It is named after the host, and a number that nobody else draws.
    """
    while True:
        end = f"{locking.host()}.{os.urandom(4).hex()}.{_SUFFIX}"
        temporaries.append(destination.with_name(f"{_stem(destination)}.{end}"))
        descriptor = create(temporaries[-1])
        if descriptor is not None:
            descriptors.append(descriptor)
            return
        temporaries.pop()


#: What the owner of a file, and of a folder, needs besides reading and writing.
_ENTER = (0, stat.S_IXUSR)


def _mode(destination: Path, *, is_folder: bool) -> int | None:
    """Return the permissions of a file or folder; None if there is none of that kind."""
    try:
        mode = destination.stat().st_mode
    except OSError:
        return None
    return stat.S_IMODE(mode) if stat.S_ISDIR(mode) is is_folder else None


def _flush(path: Path) -> None:
    """Send a file to the disk."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Send a folder to the disk, with all that is in it."""
    for part in path.iterdir():
        (_flush_folder if part.is_dir() else _flush)(part)
    with contextlib.suppress(OSError):  # some systems open no folder, and some flush none
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a file or a link; or a folder of ours, with all that is in it."""
    try:
        os.unlink(path)
    except (IsADirectoryError, PermissionError):  # the first as Linux says of a folder
        if path.is_symlink() or not path.is_dir():
            raise
        import shutil  # rarely needed: start-up is faster without

        shutil.rmtree(path)


def _let_go(descriptors: list[int], temporaries: Sequence[Path]) -> None:
    for temporary in temporaries:
        os.utime(temporary)  # as just written, so that nobody takes them for abandoned
    while descriptors:
        os.close(descriptors.pop())


def _stem(destination: Path) -> str:
    return os.fsdecode(os.fsencode(f".{destination.name}")[:_NAME_BYTES])


@contextlib.contextmanager
def flushing(path: Path) -> Iterator[None]:
    """Send a file's pages to the disk while the block reads it back: the disk need not wait.

    A failure is left to the flush in `replacing`, which comes after and reports it.
    """
    if os.stat(path).st_size <= WORTH_A_THREAD:
        _begin_flush(path)
        yield
        return

    def flush() -> None:
        with contextlib.suppress(OSError), open(path, "rb+") as file:
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
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                # It means to drop the pages, before which Linux begins to write those that must be.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def check_destination(
    destination: Path,
    *,
    force: bool = False,
    source: Path | None = None,
    replaceable: Replaceable | None = None,
) -> None:
    """Raise `DestinationError` if `destination` cannot become a new file; with `replaceable`, a new
    folder."""
    try:
        _check_destination(destination, force, source, replaceable)
    except (OSError, ValueError) as error:  # too long, not to be looked at, a null character
        raise DestinationError(
            f"cannot write: {getattr(error, 'strerror', None) or error}", where=destination
        ) from None


def _check_destination(
    destination: Path, force: bool, source: Path | None, replaceable: Replaceable | None
) -> None:
    if (fault := names.fault(destination.name)) is not None:
        raise DestinationError(
            f"no file can have this name: {fault}", where=destination, hint="choose another name"
        )
    try:
        os.lstat(destination)  # raises otherwise than for a name that is free
        is_there = True
    except (FileNotFoundError, NotADirectoryError):
        is_there = False
    if not is_there and not os.path.isdir(destination.parent):
        if url := url_of(destination):
            raise DestinationError(
                "a URL, where the file must be on this machine",
                where=destination,
                found=url,
                hint="lstmconvert convert SRC URL writes to it",
            )
        raise DestinationError(
            "the destination's directory does not exist",
            where=destination.parent,
            hint=f"mkdir -p {destination.parent}",
        )
    if is_there and destination.is_dir() and (replaceable is None or not replaceable(destination)):
        raise DestinationError(
            "the destination is a directory"
            if replaceable is None
            else "the destination is a folder of another kind, and is not replaced",
            where=destination,
        )
    if is_there and source is not None and _is_same(source, destination):
        raise DestinationError("source and destination are the same file", where=destination)
    is_folder = source is not None and os.path.isdir(source)
    if source is not None and is_folder and source.resolve() in destination.resolve().parents:
        raise DestinationError("the destination lies inside the source", where=destination)
    if is_there and source is not None and destination.resolve() in source.resolve().parents:
        raise DestinationError("the source lies inside the destination", where=destination)
    if is_there and not force:
        raise DestinationError(
            "the destination exists", where=destination, hint="--force replaces it"
        )


def _is_same(source: Path, destination: Path) -> bool:
    try:
        return os.path.samefile(source, destination)
    except OSError:  # one of them is not there, or its name is too long: whoever opens it says so
        return False


def _take_names(pairs: list[tuple[Path, Path]], force: bool) -> None:
    """Give files their names, the first file last."""
    if len(pairs) == 1 and not pairs[0][0].is_dir():
        _take_name(*pairs[0], force)
        return
    folder = pairs[0][1].parent
    with locking.alone(folder):
        kept = folder / f"{_KEPT}.{locking.host()}.{os.urandom(4).hex()}"
        try:
            kept.mkdir()
            for index, (temporary, destination) in enumerate(pairs):
                if force and os.path.lexists(destination):
                    os.replace(destination, kept / f"{index}{_WAS}.{destination.name}")
                else:
                    note = kept / f"{index}{_WAS_NOT}.{destination.name}"
                    note.write_text(_number(temporary), "ascii")
            for temporary, destination in reversed(pairs):
                _take_name(temporary, destination, force)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error counts; who is next tries again
                _put_back(kept)
            raise
        try:
            _forget(kept)
        except BaseException:  # an interrupt: the new files have their names
            _forget(kept)
            raise


#: How a name in the folder of old files begins, behind its number: it was there, or was not, and
#: then the number of the new file is in it, so that nobody else's is removed.
_WAS, _WAS_NOT = "a", "b"
_KEPT_NAME = re.compile(rf"(\d)([{_WAS}{_WAS_NOT}])\.(.+)", re.DOTALL)


def _put_back(kept: Path) -> None:
    """Give old files their names again, the first file last, and remove new ones."""
    entries = [match for match in map(_KEPT_NAME.fullmatch, os.listdir(kept)) if match]
    for entry in sorted(entries, key=lambda entry: entry[1], reverse=True):
        destination = kept.with_name(entry[3])
        if entry[2] == _WAS:
            os.replace(kept / entry[0], destination)
        elif (kept / entry[0]).read_text("ascii") == _number(destination):
            _remove(destination)
    _forget(kept)


def _number(path: Path) -> str:
    """Return what tells a file from all others on its disk, whatever its name is; or nothing."""
    return str(path.lstat().st_ino) if os.path.lexists(path) else ""


def _forget(kept: Path) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(kept):
            _remove(kept / name)
        kept.rmdir()


def _recover(kept: Path) -> None:
    """End what a killed process began: the old files are put back unless all new ones are there."""
    entries = {match[1]: match for match in map(_KEPT_NAME.fullmatch, os.listdir(kept)) if match}
    first = entries.get("0")
    if first is not None and not os.path.lexists(kept.with_name(first[3])):
        _put_back(kept)
    else:
        _forget(kept)


def _take_name(temporary: Path, destination: Path, force: bool) -> None:
    if force:
        os.replace(temporary, destination)
        return
    try:
        # Unlike a rename, a link fails when another process took the name meanwhile.
        os.link(temporary, destination)
    except FileExistsError:
        raise _appeared(destination) from None
    except (OSError, AttributeError):  # a file system, or a system, without hard links
        try:
            os.rename(temporary, destination)
        except OSError as error:  # the first as Windows says, the others of a folder
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise _appeared(destination) from None
            raise


def _appeared(destination: Path) -> DestinationError:
    return DestinationError(
        "the destination appeared meanwhile", where=destination, hint="--force replaces it"
    )


def is_temporary(name: str) -> bool:
    """Whether this is the name of a folder that is being written, or that is about to give way."""
    return name.startswith(_KEPT) or (name.startswith(".") and name.endswith(_SUFFIX))


@contextlib.contextmanager
def swept() -> Iterator[None]:
    """Leave it to the caller to look for stale files: one look, where thousands are written."""
    token = _swept.set(True)
    try:
        yield
    finally:
        _swept.reset(token)


def remove_stale(destination: Path) -> None:
    """Remove files that dead processes left next to `destination`, and restore those they moved."""
    _sweep(destination.parent, _stem(destination))


def sweep(folder: Path) -> None:
    """Remove what dead processes left in a folder, for whatever destination."""
    _sweep(folder, None)


#: The stem of a destination, the host, and a number.
_TEMPORARY = re.compile(rf"(\..+)\.([0-9a-f]{{1,10}})\.[0-9a-f]{{8}}\.{_SUFFIX}", re.DOTALL)


def _sweep(folder: Path, stem: str | None) -> None:
    """Remove the stale files of destinations with a stem, or of all."""
    kept: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name) if entry.name.endswith(_SUFFIX) else None
            if match and stem in (None, match[1]):
                path = folder / entry.name
                # Without locks, the time of a folder does not tell that a file in it grows.
                is_ours = match[2] == locking.host()
                is_ours = is_ours and (locking.has_locks() or not entry.is_dir())
                with locking.abandoned(path, is_ours) as is_abandoned:
                    if is_abandoned:
                        with contextlib.suppress(OSError):
                            _remove(path)
            elif entry.name.startswith(_KEPT) and entry.is_dir(follow_symlinks=False):
                kept.append(folder / entry.name)
    if kept:
        with locking.alone(folder):  # whoever lives has it while such a folder is there
            for path in kept:
                with contextlib.suppress(OSError):
                    _recover(path)


def differs(path: Path, what: str) -> DestinationError:
    """Return the error of a file that is not on the disk as it was written."""
    return DestinationError(
        f"the written file differs from the intended one: {what}", where=path
    )


def check_written(
    intended: Mapping[str, Tensor],
    written: Mapping[str, Tensor],
    destination: Path,
    sums: Sums | None = None,
) -> None:
    """Read a written file back, and compare its contents with the tensors that it should hold.

    Args:
        intended: name -> tensor.
        written: the same, as a reader finds it in the file.
        destination: the file, for errors.
        sums: the checksums of the bytes that were written. What lies in the file is compared with
            them, and with `meant` itself, bit for bit, where they have none.

    Raises:
        DestinationError: a tensor is missing or differs: the disk or the writer is at fault.
    """

    def compare(key: str, offset: int, piece: Array) -> None:
        start = offset // piece.itemsize if piece.itemsize else 0
        read = written[key].elements(start, start + piece.size)
        if piece.nbytes <= SMALL:
            is_same = piece.tobytes() == read.tobytes()
        else:
            is_same = np.array_equal(as_bits(piece), as_bits(read.reshape(piece.shape)))
        if not is_same:
            raise differs(destination, key)

    for key, tensor in intended.items():
        actual = written.get(key)
        if actual is None or actual.shape != tensor.shape or actual.dtype != tensor.dtype:
            raise differs(destination, key)
    passed = {} if sums is None else sums.of(intended)
    # In the order in which they lie in the file.
    stored = checksums({key: actual for key, actual in written.items() if key in passed})
    for key, crc in stored.items():
        if crc != passed[key]:
            raise differs(destination, key)
    pour([(key, tensor) for key, tensor in intended.items() if key not in passed], compare)
