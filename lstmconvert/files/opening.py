"""Opening what a path names: bytes, windows into them, directories, and their hashes."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, NotAModel, SourceError
from lstmconvert.limits import HOT_BYTES
from lstmconvert.tensors.tensor import SourceFile

_LFS = b"version https://git-lfs.github.com/spec/"


#: A scheme of one letter is a drive of Windows.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def url_of(path: Path) -> str | None:
    """Return the URL that a path was meant to be; None if it is a path.

    A `Path` of `s3://bucket/x` is `s3:/bucket/x`.
    """
    text = path.as_posix()
    return text.replace(":/", "://", 1) if _SCHEME.match(text) else None


def open_source(path: Path) -> SourceFile:
    """Open a regular file for reading.

    Raises:
        SourceError: it does not exist, is a directory, or may not be read.
        NotAModel: it is empty, or a Git LFS pointer.
    """
    try:
        mode = os.stat(str(path)).st_mode
        if stat.S_ISDIR(mode):
            raise NotAModel("a directory that holds no model", where=path)
        if not stat.S_ISREG(mode):
            raise NotAModel("not a regular file", where=path)
        source = SourceFile(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        if url := url_of(path):
            raise SourceError(
                "a URL, where the file must be on this machine",
                where=path,
                found=url,
                hint="the commands open the URL of a source; or download it",
            ) from None
        hint = "check the path" if isinstance(error, FileNotFoundError) else None
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(reason, where=path, hint=hint) from None
    if source.size == 0:
        raise NotAModel("the file is empty", where=path, hint="copy or download it again")
    if head(source, len(_LFS)) == _LFS:
        raise NotAModel(
            "the file is a Git LFS pointer, not the model itself",
            where=path,
            hint="run `git lfs pull` in its repository",
        )
    return source


def open_part(path: Path) -> SourceFile:
    """Open a file that belongs to a model of several files.

    Raises:
        CorruptFile: it is a symbolic link, which may lead anywhere.
        SourceError, NotAModel: as `open_source`.
    """
    if path.is_symlink():
        raise CorruptFile(
            "a symbolic link among a model's files",
            where=path,
            hint="copy the model with the files themselves: `cp -rL`",
        )
    return open_source(path)


def head(source: SourceFile, length: int) -> bytes:
    """Return the first bytes of a file: `length`, or fewer if it is shorter."""
    return source.peek(0, min(length, source.size))


def whole_text(source: SourceFile) -> bytes:
    """Return a file that must be a JSON text, in memory.

    Raises:
        LimitExceeded: it is too large for one.
    """
    limits.CONFIG_BYTES.check(source.size, source.path, "the JSON file")
    return bytes(source.read_at(0, source.size))


def pieces(source: SourceFile, start: int, stop: int) -> Iterator[memoryview]:
    """Read the bytes from `start` to `stop`, in pieces, each of which is gone with the next."""
    buffer = memoryview(bytearray(min(HOT_BYTES, max(0, stop - start))))
    for offset in range(start, stop, HOT_BYTES):
        piece = buffer[: stop - offset]
        source.read_into(piece, offset)
        yield piece


def digest_of_file(source: SourceFile) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        CorruptFile: the file changed since it was opened.
    """
    digest = hashlib.sha256()
    for piece in pieces(source, 0, source.size):
        digest.update(piece)
    source.check_unchanged()
    return digest.hexdigest()


def digest_of_files(
    root: Path, paths: Iterable[Path], read: Iterable[SourceFile] = ()
) -> str:
    """Return the SHA-256 over sorted lines `hash path` of the files of a directory.

    Args:
        root: the directory.
        paths: the files.
        read: those of them that a model was read from. They are opened anew here.

    Raises:
        CorruptFile: a file changed, so that the hash is not that of the bytes that were read.
    """
    lines = sorted(
        f"{digest_of_file(open_source(path))} {path.relative_to(root).as_posix()}\n"
        for path in paths
    )
    for source in read:
        source.check_in_place()
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files below a folder.

    Raises:
        SourceError: it is not there, or cannot be read.
    """
    if path.is_dir():
        return digest_of_files(path, files_below(path))
    return digest_of_file(open_source(path))


def files_below(root: Path) -> list[Path]:
    """Return every regular file of a directory, sorted; links are not followed.

    Raises:
        CorruptFile: the directory holds a symbolic link.
        LimitExceeded: it holds more files than the limit.
    """
    paths: list[Path] = []
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink():
                raise CorruptFile("a symbolic link in a model's directory", where=path)
            if path.is_file():
                paths.append(path)
        limits.DIRECTORY_FILES.check(len(paths), root, "the number of files")
    return sorted(paths)


class Window(io.RawIOBase):
    """A read-only view of bytes `offset` to `offset + size` of an open file, as a file object."""

    def __init__(self, source: SourceFile, offset: int = 0, size: int | None = None) -> None:
        super().__init__()
        self.source, self.offset = source, offset
        self.size = source.size - offset if size is None else size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed: any buffer
        count = max(0, min(len(view), self.size - self._position))
        self.source.read_into(view[:count], self.offset + self._position)
        self._position += count
        return count
