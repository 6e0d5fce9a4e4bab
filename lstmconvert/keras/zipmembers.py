"""The one place where a zip archive is opened: its members by exact name, never extracted.

Stored members are read in place, at their offset in the archive: Keras stores, it does not deflate.
A deflated one is unpacked to a nameless temporary file, a megabyte at a time.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files import Window
from lstmconvert.tensors import SourceFile

SIGNATURE = b"PK\x03\x04"

_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # PKZIP APPNOTE 4.3.7
_ENCRYPTED = 0x1
#: Members up to this size are checked against their CRC when they are opened, larger ones when
#: the archive is read as a whole.
_CHECK_NOW = 16 * limits.MIB


class ZipMembers:
    """The members of a zip archive, each once, none encrypted.

    Args:
        source: the archive: a file, or a window into one (an archive that is itself a member).

    Raises:
        CorruptFile: no zip archive, damaged, or with a member twice.
        LimitExceeded: too many members, or one that expands too much.
    """

    def __init__(self, source: SourceFile | Window) -> None:
        window = source if isinstance(source, Window) else Window(source)
        self.source, self._start = window.source, window.offset
        self._end = window.offset + window.size
        try:
            self._archive = zipfile.ZipFile(Window(self.source, window.offset, window.size))
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, struct.error) as error:
            raise self._damaged(str(error)) from None
        infos = self._archive.infolist()
        limits.ZIP_MEMBERS.check(len(infos), self.source.path, "the number of archive members")
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise CorruptFile("an archive member stands twice", where=self.source.path)
        if sum(info.compress_size for info in infos) > window.size:
            raise self._damaged("its members overlap")  # one megabyte listed a thousand times
        self._unchecked: list[tuple[str, int, zipfile.ZipInfo]] = []

    def _damaged(self, reason: str) -> CorruptFile:
        return CorruptFile(
            f"not a readable zip archive: {reason}",
            where=self.source.path,
            hint="the file is truncated or damaged: copy or download it again",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, as the archive lists them. They are never used as paths."""
        return tuple(self._infos)

    def read(self, name: str) -> bytes:
        """Return a small member whole (a config, an asset)."""
        window = self.open(name)
        return bytes(window.source.read_at(window.offset, window.size))

    def open(self, name: str) -> Window:
        """Return a member as a window into the archive, or into a temporary file if deflated."""
        info = self._infos[name]
        where = f"{self.source.path}: {name}"
        if info.flag_bits & _ENCRYPTED:
            raise CorruptFile("the archive member is encrypted", where=where)
        limits.check_expansion(info.file_size, info.compress_size, where)
        if info.compress_type == zipfile.ZIP_STORED:
            return self._in_place(info)
        return self._unpacked(info)

    def _in_place(self, info: zipfile.ZipInfo) -> Window:
        if info.file_size != info.compress_size:
            raise self._damaged(f"{info.filename} is stored, and its two sizes differ")
        begin = self._start + info.header_offset
        header = self.source.read_at(begin, _LOCAL_HEADER.size)
        fields = _LOCAL_HEADER.unpack(header)
        if fields[0] != SIGNATURE:
            raise self._damaged(f"no member where {info.filename} should begin")
        offset = begin + _LOCAL_HEADER.size + fields[9] + fields[10]
        if offset + info.file_size > self._end:
            raise self._damaged(f"{info.filename} ends behind the archive")
        if info.file_size <= _CHECK_NOW:
            self._check(info.filename, offset, info)
        else:
            self._unchecked.append((info.filename, offset, info))
        return Window(self.source, offset, info.file_size)

    def check_large(self) -> None:
        """Check the CRC of the large members that were opened; small ones were checked then."""
        for name, offset, info in self._unchecked:
            self._check(name, offset, info)
        self._unchecked.clear()

    def _check(self, name: str, offset: int, info: zipfile.ZipInfo) -> None:
        crc, end = 0, offset + info.file_size
        for start in range(offset, end, _CHUNK):
            crc = zlib.crc32(self.source.read_at(start, min(_CHUNK, end - start)), crc)
        if crc != info.CRC:
            raise self._damaged(f"bad CRC-32 of {name}")

    def _unpacked(self, info: zipfile.ZipInfo) -> Window:
        handle, name = tempfile.mkstemp(prefix="lstmconvert-")
        try:
            with os.fdopen(handle, "wb") as target, self._archive.open(info) as member:
                while chunk := member.read(_CHUNK):
                    target.write(chunk)
            unpacked = SourceFile(Path(name))
            unpacked.path = self.source.path  # errors name the archive, not the nameless file
            return Window(unpacked)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise self._damaged(f"{info.filename}: {error}") from None
        finally:
            os.unlink(name)
