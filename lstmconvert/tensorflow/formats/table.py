"""The sorted-string tables of checkpoints: LevelDB's format, in TensorFlow's `core/lib/io/table`.

A file is blocks, an index block of their places, and a footer of 48 bytes with the index's place.
A block is entries (length shared with the previous key, rest of the key, value), then offsets for
binary search, which a reader from front to back needs not; then one byte (compression) and a CRC.
Format: https://github.com/google/leveldb/blob/main/doc/table_format.md

The blocks of early tables are compressed with snappy:
https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files.wire import varint
from lstmconvert.tensors.checksums import crc32c, unmask
from lstmconvert.tensors.tensor import SourceFile

#: The last eight bytes of every table (tensorflow/core/lib/io/format.h, kTableMagicNumber).
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")

_FOOTER_BYTES = 48
_TRAILER = struct.Struct("<BI")
_UNCOMPRESSED, _SNAPPY = 0, 1


class Handle(NamedTuple):
    """The place of a block, without its trailer."""

    offset: int
    size: int


def is_table(source: SourceFile) -> bool:
    """Whether a file ends as a table does."""
    size = source.size
    return size >= _FOOTER_BYTES and source.read_at(size - len(MAGIC), len(MAGIC)) == MAGIC


class Table:
    """A table's entries, in key order.

    Raises:
        NotAModel: the file does not end as a table does.
        CorruptFile: a block is outside the file or fails its check; keys out of order.
        LimitExceeded: its keys are longer than the limit, all together.
    """

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self._key_bytes = self._unpacked = 0
        if not is_table(source):
            raise NotAModel(
                "not a checkpoint index, or a truncated one",
                where=source.path,
                hint="copy or download it again",
            )
        footer = memoryview(source.read_at(source.size - _FOOTER_BYTES, _FOOTER_BYTES))
        _, at = self._handle(footer, 0)
        self._index, _ = self._handle(footer, at)

    def __iter__(self) -> Iterator[tuple[bytes, memoryview]]:
        previous: bytes | None = None
        for handle in self._blocks():
            for key, value in self._entries(self._read(handle)):
                if previous is not None and key <= previous:
                    raise self._damaged("its keys are out of order")
                previous = key
                yield key, value

    def _blocks(self) -> Iterator[Handle]:
        end = 0
        for _, value in self._entries(self._read(self._index)):
            handle, _ = self._handle(value, 0)
            if handle.offset < end:  # a block listed a million times would be read as often
                raise self._damaged("its blocks overlap")
            end = handle.offset + handle.size
            yield handle

    def _handle(self, data: memoryview, at: int) -> tuple[Handle, int]:
        offset, at = varint(data, at, self.source.path)
        size, at = varint(data, at, self.source.path)
        return Handle(offset, size), at

    def _read(self, handle: Handle) -> memoryview:
        offset, size = handle
        if offset + size + _TRAILER.size > self.source.size - _FOOTER_BYTES:
            raise self._damaged("a block is outside the file")
        stored = memoryview(self.source.read_at(offset, size + _TRAILER.size))
        kind, check = _TRAILER.unpack(stored[size:])
        if crc32c(stored[: size + 1]) != unmask(check):
            raise self._damaged("bad CRC-32C of a block")
        if kind == _UNCOMPRESSED:
            return stored[:size]
        if kind != _SNAPPY:
            raise self._damaged(f"compression {kind}, which TensorFlow does not have")
        block = decompress(stored[:size], self.source.path)
        self._unpacked += len(block)  # two hundred bytes may come of ten
        limits.SNAPPY_BYTES.check(self._unpacked, self.source.path, "the compressed blocks")
        return block

    def _entries(self, block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        path, at, key = self.source.path, 0, b""
        end = self._end_of_entries(block)
        while at < end:
            shared, at = varint(block, at, path)
            rest, at = varint(block, at, path)
            length, at = varint(block, at, path)
            if shared > len(key) or rest + length > end - at:
                raise self._damaged("an entry does not fit into its block")
            key = key[:shared] + bytes(block[at : at + rest])
            self._key_bytes += len(key)  # prefixes repeat: short entries can have long keys
            limits.PROTOBUF_BYTES.check(self._key_bytes, path, "the length of the keys")
            yield key, block[at + rest : at + rest + length]
            at += rest + length

    def _end_of_entries(self, block: memoryview) -> int:
        if len(block) < 4:
            raise self._damaged("a block is too short")
        restarts = int.from_bytes(block[-4:], "little")
        end = len(block) - 4 - 4 * restarts
        if end < 0:
            raise self._damaged("a block is too short")
        return end

    def _damaged(self, reason: str) -> CorruptFile:
        return CorruptFile(
            f"not a readable checkpoint index: {reason}",
            where=self.source.path,
            hint="the file is truncated or damaged: copy or download it again",
        )


def decompress(data: memoryview, where: object) -> memoryview:
    """Return the bytes of one compressed block.

    Raises:
        CorruptFile: it refers behind its begin, or its length is not the one that it declares.
        LimitExceeded: it declares more than a message may have.
    """
    length, at = varint(data, 0, where)
    limits.SNAPPY_BYTES.check(length, where, "the compressed block")
    output = bytearray()
    while at < len(data):
        element = _copy if data[at] & 3 else _literal
        at = element(data, at, output, where)
        if len(output) > length:
            raise _damaged_block("it is longer than it declares", where)
    if len(output) != length:
        raise _damaged_block("it is shorter than it declares", where)
    return memoryview(output)


def _literal(data: memoryview, at: int, output: bytearray, where: object) -> int:
    size, at = data[at] >> 2, at + 1
    if size >= 60:  # 60 to 63: the length minus one follows, in one to four bytes
        extra = size - 59
        size, at = int.from_bytes(data[at : at + extra], "little"), at + extra
    if size + 1 > len(data) - at:
        raise _damaged_block("a literal is cut off", where)
    output += data[at : at + size + 1]
    return at + size + 1


def _copy(data: memoryview, at: int, output: bytearray, where: object) -> int:
    tag = data[at]
    extra = (0, 1, 2, 4)[tag & 3]
    if extra >= len(data) - at:
        raise _damaged_block("a copy is cut off", where)
    offset = int.from_bytes(data[at + 1 : at + 1 + extra], "little")
    if extra == 1:
        size, offset = 4 + (tag >> 2 & 7), offset | tag >> 5 << 8
    else:
        size = (tag >> 2) + 1
    if not 0 < offset <= len(output):
        raise _damaged_block("a copy refers to bytes before the block", where)
    start = len(output) - offset
    piece = output[start : start + size]
    output += (piece * (size // len(piece) + 1))[:size]  # a copy may overlap its own end
    return at + 1 + extra


def _damaged_block(reason: str, where: object) -> CorruptFile:
    return CorruptFile(f"not a valid snappy block: {reason}", where=where)
