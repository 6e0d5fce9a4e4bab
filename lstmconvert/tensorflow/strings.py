"""String tensors of a checkpoint: the object graph is one.

Layout (tensor_bundle.cc, WriteStringTensor): the lengths as varints, a masked CRC of the lengths,
the bytes. The CRCs run over the lengths as integers of four bytes (eight, if they need them).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.tensorflow.crc32c import crc32c, unmask
from lstmconvert.tensorflow.wire import varint
from lstmconvert.tensors import Shape, SourceFile

_CHECK = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Strings:
    """A tensor of byte strings; read, and checked, when it is asked for."""

    source: SourceFile
    offset: int
    size: int
    shape: Shape
    crc: int
    where: str
    byteorder: str = "<"

    def read(self) -> tuple[bytes, ...]:
        """Return the strings, in C order.

        Raises:
            CorruptFile: their lengths or their CRC do not agree with what is stored.
            LimitExceeded: they are longer than the limit.
        """
        limits.PROTOBUF_BYTES.check(self.size, self.where, "the string tensor")
        data = memoryview(self.source.read_at(self.offset, self.size))
        count = math.prod(self.shape)
        if count > self.size:
            raise self._damaged("its shape has more strings than it has bytes")
        if self.size == 0:
            return ()
        lengths, at = self._lengths(data, count)
        crc = crc32c(self._integers(lengths))
        check = data[at : at + _CHECK.size]
        self._check(crc, int.from_bytes(check, "little" if self.byteorder == "<" else "big"))
        at += _CHECK.size
        self._check(crc32c(data[at:], crc32c(check, crc)), self.crc)
        strings = []
        for length in lengths:
            strings.append(bytes(data[at : at + length]))
            at += length
        return tuple(strings)

    def _lengths(self, data: memoryview, count: int) -> tuple[list[int], int]:
        lengths, at = [], 0
        for _ in range(count):
            length, at = varint(data, at, self.where)
            lengths.append(length)
        if at + _CHECK.size + sum(lengths) != len(data):
            raise self._damaged("the lengths of its strings do not add up")
        return lengths, at

    def _integers(self, lengths: list[int]) -> bytes:
        # PROTOBUF_BYTES may be raised, lengths past 32 bits included: those take eight bytes.
        if max(lengths, default=0) <= 0xFFFF_FFFF:
            return np.array(lengths, f"{self.byteorder}u4").tobytes()
        kinds = ("I" if length <= 0xFFFF_FFFF else "Q" for length in lengths)
        return struct.pack(self.byteorder + "".join(kinds), *lengths)

    def _check(self, crc: int, stored: int) -> None:
        if crc != unmask(stored):
            raise self._damaged("bad CRC-32C")

    def _damaged(self, reason: str) -> CorruptFile:
        return CorruptFile(
            f"not a readable string tensor: {reason}",
            where=self.where,
            hint="the file is truncated or damaged: copy or download it again",
        )
