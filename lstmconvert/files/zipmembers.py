"""Zip archives: their members by exact name, never extracted; and the entries that we write.

Stored members are read in place, at their offset in the archive: Keras stores, it does not deflate.
Deflated ones are unpacked to one nameless temporary file, a megabyte at a time. A large member is
written where it stays (`ArchiveFile`): once, and read once for its checksum.

Programs differ in how they read an archive that contradicts itself, so it must not: the directory
and the headers before the members give the same names, no members share bytes, the first begins the
archive, and the end record ends it.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile, SourceError
from lstmconvert.files.opening import Window, pieces
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors.checksums import Check
from lstmconvert.tensors.tensor import SourceFile, read_into, write_whole

SIGNATURE = b"PK\x03\x04"

_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # PKZIP APPNOTE 4.3.7
_END_RECORD = struct.Struct("<4s4H2IH")  # 4.3.16
_ENCRYPTED, _UTF8 = 0x1, 0x800  # 4.4.4
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can state: no clock
#: Members up to this size are checked against their CRC when they are opened, larger ones when
#: the first of their numbers is asked for.
_CHECK_NOW = 16 * limits.MIB


#: What `zipfile` raises on broken archives depends on where the break is.
_BROKEN = (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error)


def entry(name: str) -> zipfile.ZipInfo:
    """Return the entry of a member that we write: stored, with a fixed date.

    The same input gives the same bytes.
    """
    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = 0o644 << 16
    return info


class ZipMembers:
    """The members of a zip archive, each once, none encrypted.

    Args:
        source: the archive: a file, or a window into one (an archive that is itself a member).
        may_lack_sums: whether its writer may have left all checksums zero, and none are checked
            then.

    Raises:
        CorruptFile: no zip archive, damaged, or with a member twice.
        LimitExceeded: too many members, or one that expands too much.
    """

    def __init__(self, source: SourceFile | Window, *, may_lack_sums: bool = False) -> None:
        window = source if isinstance(source, Window) else Window(source)
        self.source, self._start = window.source, window.offset
        self._end = window.offset + window.size
        try:
            self._archive = zipfile.ZipFile(_Bounded(self.source, window.offset, window.size))
        except _BROKEN as error:
            raise self._damaged(str(error)) from None
        infos = self._archive.infolist()
        limits.ZIP_MEMBERS.check(len(infos), self.source.path, "the number of archive members")
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise CorruptFile("an archive member appears twice", where=self.source.path)
        self._offsets = self._laid_out(infos)
        limits.check_expansion(
            sum(info.file_size for info in infos),
            sum(info.compress_size for info in infos),
            self.source.path,
        )
        self.lacks_sums = may_lack_sums and not any(info.CRC for info in infos)
        self._scratch: Scratch | None = None
        #: The small members that were checked, and the checks of the large ones that were opened.
        self._checked: set[str] = set()
        self._checks: dict[str, Check] = {}

    def __deepcopy__(self, memo: object) -> ZipMembers:
        """Return the archive itself, as `SourceFile` does."""
        return self

    def _laid_out(self, infos: list[zipfile.ZipInfo]) -> dict[str, int]:
        """Return each member's offset in the source, once they are one behind the other."""
        offsets, end = {}, 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end or (end == 0 and info.header_offset):
                raise self._damaged("its members overlap, or are not where it begins")
            offset = self._data_offset(info)
            offsets[info.filename] = offset
            end = offset - self._start + info.compress_size
        if end > self._archive.start_dir:
            raise self._damaged("its last member runs into its directory")
        self._check_end()
        return offsets

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        begin = self._start + info.header_offset
        encoding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
        name = info.orig_filename.encode(encoding)
        size = _LOCAL_HEADER.size + len(name)
        data = self.source.peek(begin, size)
        fields = _LOCAL_HEADER.unpack_from(data)
        is_named = fields[9] == len(name) and data[_LOCAL_HEADER.size :] == name
        if fields[0] != SIGNATURE or not is_named or 0 in name:
            raise self._damaged(f"no member where {info.filename} should begin")
        return begin + size + int(fields[10])

    def _check_end(self) -> None:
        comment = len(self._archive.comment)
        begin = self._end - comment - _END_RECORD.size
        record = self.source.peek(max(begin, self._start), _END_RECORD.size)
        fields = _END_RECORD.unpack(record)
        if fields[0] != b"PK\x05\x06" or fields[7] != comment:
            raise self._damaged("it does not end with its end record")
        if fields[4] not in (len(self._infos), 0xFFFF):  # 0xFFFF: more, or counted elsewhere
            raise self._damaged(f"{len(self._infos)} members where {fields[4]} are counted")

    def _damaged(self, reason: str) -> CorruptFile:
        return _damaged(self.source, reason)

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, as the archive lists them. They are never used as paths."""
        return tuple(self._infos)

    def read(self, name: str) -> bytes:
        """Return a small member whole: a config."""
        where = f"{self.source.path}: {name}"
        info = self._infos[name]
        size = info.file_size
        limits.CONFIG_BYTES.check(size, where, "the archive member")
        # Else a few kilobytes would be hundreds of megabytes, once they are parsed.
        beyond = size - self.source.size
        limits.PACKED_BYTES.check(beyond, where, "what the archive member has beyond the archive")
        window = self._place(info)
        data = bytes(window.source.read_at(window.offset, window.size))
        _check_sum(self.source, info, zlib.crc32(data), self.lacks_sums)
        return data

    def open(self, name: str) -> Window:
        """Return a member as a window into the archive, or into a temporary file if deflated."""
        info = self._infos[name]
        window = self._place(info)
        if window.source is not self.source:  # unpacked, and its checksum was compared
            return window
        if info.file_size <= _CHECK_NOW:
            if name not in self._checked:
                _compare(self.source, info, window.offset, self.lacks_sums)
                self._checked.add(name)
            return window
        if name not in self._checks:
            # Of the archive it holds nothing: in a cycle, files would be open for a while.
            compare = partial(_compare, self.source, info, window.offset, self.lacks_sums)
            self._checks[name] = Check(compare)
        return Window(_Member(self.source, self._checks[name]), window.offset, window.size)

    def _place(self, info: zipfile.ZipInfo) -> Window:
        """Return where the bytes of a member are. Of a stored one they are not checked yet."""
        where = f"{self.source.path}: {info.filename}"
        if info.flag_bits & _ENCRYPTED:
            raise CorruptFile("the archive member is encrypted", where=where)
        limits.check_expansion(info.file_size, info.compress_size, where)
        if info.compress_type == zipfile.ZIP_STORED:
            if info.file_size != info.compress_size:
                raise self._damaged(f"{info.filename} is stored, and its two sizes differ")
            return Window(self.source, self._offsets[info.filename], info.file_size)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            return self._unpacked(info)
        raise CorruptFile(
            "the archive member is compressed in a way that Keras does not write",
            where=where,
            found=f"method {info.compress_type}",
            expected="stored, or deflate",
        )

    def check_large(self) -> None:
        """Check the CRC of the large members that were opened; small ones were checked then."""
        for check in list(self._checks.values()):
            check.now()

    def digest(self) -> str:
        """Return the SHA-256 of the source, and check the members that were opened in that pass.

        Raises:
            CorruptFile: the CRC of a member is wrong, or the file changed since it was opened.
        """
        digest, end = hashlib.sha256(), 0
        pending = [name for name, check in list(self._checks.items()) if not check.is_done]
        for name in sorted(pending, key=lambda name: self._offsets[name]):
            info, offset = self._infos[name], self._offsets[name]
            self._feed(end, offset, digest)
            _compare(self.source, info, offset, self.lacks_sums, digest)
            self._checks[name].is_done = True
            end = offset + info.file_size
        self._feed(end, self.source.size, digest)
        self.source.check_unchanged()
        return digest.hexdigest()

    def _feed(self, start: int, stop: int, digest: hashlib._Hash) -> None:
        for piece in pieces(self.source, start, stop):
            digest.update(piece)

    def _unpacked(self, info: zipfile.ZipInfo) -> Window:
        if self._scratch is None:
            self._scratch = Scratch(self.source)
        try:
            return self._scratch.add(self._inflated(info))
        except OSError as error:
            import tempfile

            raise SourceError(
                f"a compressed archive cannot be unpacked: {error.strerror or error}",
                where=tempfile.gettempdir(),
                hint="TMPDIR names another directory for temporary files",
            ) from None

    def _inflated(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._archive.open(info) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
        except (*_BROKEN, EOFError, zlib.error) as error:
            raise self._damaged(f"{info.filename}: {error}") from None


def _damaged(source: SourceFile, reason: str) -> CorruptFile:
    return CorruptFile(
        f"not a readable zip archive: {reason}",
        where=source.path,
        hint=DAMAGED,
    )


def _compare(
    source: SourceFile,
    info: zipfile.ZipInfo,
    offset: int,
    lacks_sums: bool,
    digest: hashlib._Hash | None = None,
) -> None:
    """Read a member, and raise if its CRC is not the one that the archive says."""
    if source.is_closed:  # a file of our own, which has been compared
        return
    crc = 0
    for piece in pieces(source, offset, offset + info.file_size):
        crc = zlib.crc32(piece, crc)
        if digest is not None:
            digest.update(piece)
    _check_sum(source, info, crc, lacks_sums)


def _check_sum(source: SourceFile, info: zipfile.ZipInfo, crc: int, lacks_sums: bool) -> None:
    if crc != info.CRC and not lacks_sums:
        raise _damaged(source, f"bad CRC-32 of {info.filename}")


class _Member(SourceFile):
    """An archive's bytes, of which those of one member are checked before they are handed out.

    Args:
        archive: the file.
        check: of the member.
    """

    def __init__(self, archive: SourceFile, check: Check) -> None:
        super().__init__(archive.path, archive.descriptor)
        self._archive, self._status, self._check = archive, archive._status, check
        self._is_kept = False  # the archive keeps its bytes, and each read asks for the check

    def _fill(self, buffer: memoryview, offset: int) -> None:
        self._check.due()
        self._archive._fill(buffer, offset)

    def _block(self, start: int, end: int) -> bytearray:
        self._check.due()
        return self._archive._block(start, end)

    def peek(self, offset: int, length: int) -> bytes:
        return self._archive.peek(offset, length)

    def check_unchanged(self) -> None:
        self._archive.check_unchanged()


#: Bytes of an archive's end that are read at once: the directory of a few members, and the records
#: behind it.
_TAIL_BYTES = 4096


class _Bounded(Window):
    """What `zipfile` reads from: it takes the archive's directory in one read, of any size."""

    def __init__(self, source: SourceFile, offset: int, size: int) -> None:
        super().__init__(source, offset, size)
        self._tail_size = min(size, _TAIL_BYTES)
        self._tail = source.peek(offset + size - self._tail_size, self._tail_size)
        self._most = limits.ZIP_DIRECTORY_BYTES.value

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            path = self.source.path
            limits.ZIP_DIRECTORY_BYTES.check(size, path, "the archive's directory")
        begin = self._position - self.size + self._tail_size
        if begin < 0 or size < 0:
            return super().read(size) or b""
        data = self._tail[begin : begin + size]
        self._position += len(data)
        return data


class Scratch(SourceFile):
    """A nameless file that grows: what is unpacked of one archive. Errors name the archive."""

    def __init__(self, archive: SourceFile) -> None:
        import tempfile  # rare: Keras stores its members

        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as its tensors are
        weakref.finalize(self, self._file.close)
        super().__init__(archive.path, self._file.fileno())

    def add(self, chunks: Iterator[bytes]) -> Window:
        """Append, and return a window onto what was appended."""
        start = self._file.seek(0, os.SEEK_END)  # reads may have moved the file's place
        self._file.writelines(chunks)
        self._file.flush()
        self._status = os.fstat(self.descriptor)
        self.size = self._status.st_size
        self._looked_at, self._is_kept = None, False  # it grows, and nobody else writes to it
        return Window(self, start, self.size - start)


class ArchiveFile(io.BufferedRandom):
    """A new file for `zipfile.ZipFile`, one of whose members may be there before it is written.

    Args:
        path: the file, whose old content is lost.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb+"))
        self._is_there = False

    def write(self, data: Any, /) -> int:
        """Write bytes; or pass over them, while a member is summed that is there already."""
        if not self._is_there:
            return super().write(data)
        self.seek(len(data), io.SEEK_CUR)
        return len(data)

    def add(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, write: Callable[[FilePart], None]
    ) -> None:
        """Add a member.

        Args:
            archive: the archive, which writes to this file.
            info: the member's entry, with about its size.
            write: writes the member's bytes, in any order.
        """
        with archive.open(info, "w") as member:
            begin = self.tell()
            write(FilePart(self, begin))
            self.flush()
            size = self.seek(0, io.SEEK_END) - begin
            self.seek(begin)
            self._is_there = True
            try:
                buffer = memoryview(bytearray(min(size, BUFFER_BYTES)))
                while (at := self.tell()) < begin + size:
                    piece = buffer[: begin + size - at]
                    # Through this object: where there is no `pread`, a positioned read moves the
                    # descriptor that it has.
                    count = self.readinto(piece)
                    if not count:
                        raise OSError("the file was cut while it was written")
                    self.seek(at)
                    member.write(piece[:count])
            finally:
                self._is_there = False


class FilePart(io.RawIOBase):
    """A file from an offset on, as a file of its own, which is read and written by offset: the HDF5
    library moves to another place before each of the few bytes that it reads or writes.

    Args:
        file: the whole, whose own place does not count until this has been written.
        begin: the offset, in bytes.
    """

    def __init__(self, file: io.BufferedRandom, begin: int) -> None:
        super().__init__()
        file.flush()
        self._descriptor, self.begin, self._at = file.fileno(), begin, 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            offset += os.fstat(self._descriptor).st_size - self.begin
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        count = read_into(self._descriptor, buffer, self.begin + self._at)
        self._at += count
        return count

    def write(self, data: Any, /) -> int:
        write_whole(self._descriptor, data, self.begin + self._at)
        self._at += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        os.ftruncate(self._descriptor, self.begin + size)
        return size

    def flush(self) -> None:
        """Do nothing, as nothing waits. It is here because h5py calls it even after an error, in
        whose course Python does not find the one of the class above."""

    def fileno(self) -> int:
        return self._descriptor
