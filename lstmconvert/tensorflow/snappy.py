"""Snappy, decompressed: the blocks of tables that early TensorFlow wrote.

Format: https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.tensorflow.wire import varint


def decompress(data: memoryview, where: object) -> memoryview:
    """Return the bytes of one compressed block.

    Raises:
        CorruptFile: it refers behind its begin, or its length is not the one that it declares.
        LimitExceeded: it declares more than a message may have.
    """
    length, at = varint(data, 0, where)
    limits.PROTOBUF_BYTES.check(length, where, "the compressed block")
    output = bytearray()
    while at < len(data):
        element = _copy if data[at] & 3 else _literal
        at = element(data, at, output, where)
        if len(output) > length:
            raise _damaged("it is longer than it declares", where)
    if len(output) != length:
        raise _damaged("it is shorter than it declares", where)
    return memoryview(output)


def _literal(data: memoryview, at: int, output: bytearray, where: object) -> int:
    size, at = data[at] >> 2, at + 1
    if size >= 60:  # 60 to 63: the length minus one follows, in one to four bytes
        extra = size - 59
        size, at = int.from_bytes(data[at : at + extra], "little"), at + extra
    if size + 1 > len(data) - at:
        raise _damaged("a literal is cut off", where)
    output += data[at : at + size + 1]
    return at + size + 1


def _copy(data: memoryview, at: int, output: bytearray, where: object) -> int:
    tag = data[at]
    extra = (0, 1, 2, 4)[tag & 3]
    if extra >= len(data) - at:
        raise _damaged("a copy is cut off", where)
    offset = int.from_bytes(data[at + 1 : at + 1 + extra], "little")
    if extra == 1:
        size, offset = 4 + (tag >> 2 & 7), offset | tag >> 5 << 8
    else:
        size = (tag >> 2) + 1
    if not 0 < offset <= len(output):
        raise _damaged("a copy refers to bytes before the block", where)
    start = len(output) - offset
    piece = output[start : start + size]
    output += (piece * (size // len(piece) + 1))[:size]  # a copy may overlap its own end
    return at + 1 + extra


def _damaged(reason: str, where: object) -> CorruptFile:
    return CorruptFile(f"not a valid snappy block: {reason}", where=where)
