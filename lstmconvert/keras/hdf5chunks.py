"""Chunked HDF5 datasets: where the chunks lie is asked of the library, what they hold is read here.

The library checks no chunk's length before its filters take it for granted: a checksum of a chunk
of two bytes ends the process. Three filters are all that HDF5 carries itself, and they are small.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.dtypes import Array, DType
from lstmconvert.errors import CorruptFile
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors import Shape, SourceFile, Tensor

#: The filters of HDF5 itself (H5Zpublic.h).
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
_SUM_BYTES, _PIECE = 4, 1 << 20


class Place(NamedTuple):
    """Where a chunk is stored, and which filters it goes without (bit i: the i-th)."""

    offset: int
    size: int
    mask: int


class Filter(NamedTuple):
    """A filter's number, and its first parameter: a shuffled element's size."""

    code: int
    value: int


class ChunkedTensor(Tensor):
    """A dataset in chunks.

    Args:
        source: the open file.
        shape: of the dataset.
        dtype: as stored.
        chunk: the shape of a chunk; those at the edges are stored whole.
        filters: in the order in which they were applied.
        places: the index of a chunk in the grid of chunks -> where it is.

    Raises:
        CorruptFile: chunks are missing, or lie elsewhere than in the file and the dataset.
    """

    def __init__(
        self,
        source: SourceFile,
        shape: Shape,
        dtype: DType,
        chunk: Shape,
        filters: tuple[Filter, ...],
        places: Mapping[Shape, Place],
    ) -> None:
        self.source, self.shape, self._stored = source, shape, dtype
        self.dtype = dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype
        self._chunk, self._filters, self._places = chunk, filters, places
        self._bytes = math.prod(chunk) * dtype.itemsize
        grid = [-(-size // step) for size, step in zip(shape, chunk, strict=True)]
        inside = sum(
            all(0 <= index < count for index, count in zip(one, grid, strict=True))
            for one in places
        )
        if inside != len(places) or inside != math.prod(grid):  # HDF5 would fill gaps with zeros
            raise self._damaged(
                "a dataset with missing chunks", f"{inside:,}", f"{math.prod(grid):,}"
            )
        for place in places.values():
            if place.offset + place.size > source.size:
                raise self._damaged("a chunk behind the end of the file", f"{place.offset:,}")

    def _damaged(self, what: str, found: str, expected: str | None = None) -> CorruptFile:
        return CorruptFile(
            what,
            where=self.source.path,
            found=found,
            expected=expected,
            hint="the file is truncated or damaged: copy or download it again",
        )

    def slabs(self, budget: int = BUFFER_BYTES) -> Iterator[tuple[int, int]]:
        count, width = self.matrix_shape
        band = self._chunk[0] * math.prod(self.shape[1:-1]) if len(self.shape) > 1 else 1
        size = width * self.dtype.itemsize
        if band * size > limits.CHUNK_BYTES.value:  # then a chunk is unpacked more than once
            yield from super().slabs(budget)
            return
        step = band * max(1, budget // max(1, band * size))
        for start in range(0, count, step):
            yield start, min(start + step, count)

    def rows(self, start: int, stop: int) -> Array:
        if len(self.shape) < 2:
            return self._box(0, self.size).reshape(1, -1)[start:stop]
        inner = math.prod(self.shape[1:-1])
        first, last = start // inner, -(-stop // inner)
        whole = self._box(first, last).reshape(-1, self.shape[-1])
        return whole[start - first * inner : stop - first * inner]

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        if len(self.shape) > 1:
            yield from super().blocks(budget)
            return
        (step,) = self._chunk  # a vector is one row, of any length
        step *= max(1, budget // self._bytes)
        for start in range(0, self.size, step):
            yield self._box(start, min(start + step, self.size))

    def _box(self, first: int, last: int) -> Array:
        """Read indices `first` to `last` of the first axis."""
        result = np.empty((last - first, *self.shape[1:]), self.dtype)
        lows = (first, *[0] * (len(self.shape) - 1))
        highs = (last, *self.shape[1:])
        grid = [
            range(low // step, -(-high // step))
            for low, high, step in zip(lows, highs, self._chunk, strict=True)
        ]
        for index in itertools.product(*grid):
            begins = [number * step for number, step in zip(index, self._chunk, strict=True)]
            ends = [begin + step for begin, step in zip(begins, self._chunk, strict=True)]
            here = [
                slice(max(low, begin) - begin, min(high, end) - begin)
                for low, high, begin, end in zip(lows, highs, begins, ends, strict=True)
            ]
            there = [
                slice(part.start + begin - low, part.stop + begin - low)
                for part, begin, low in zip(here, begins, lows, strict=True)
            ]
            result[tuple(there)] = self._unpacked(self._places[index])[tuple(here)]
        return result

    def _unpacked(self, place: Place) -> Array:
        data = bytes(self.source.read_at(place.offset, place.size))
        for number in reversed(range(len(self._filters))):
            if not place.mask >> number & 1:
                data = self._undone(self._filters[number], data)
        if len(data) != self._bytes:
            raise self._damaged("a chunk of another size", f"{len(data):,}", f"{self._bytes:,}")
        return np.frombuffer(data, self._stored).reshape(self._chunk)

    def _undone(self, one: Filter, data: bytes) -> bytes:
        if one.code == FLETCHER32:
            body, stored = data[:-_SUM_BYTES], int.from_bytes(data[-_SUM_BYTES:], "little")
            if len(data) < _SUM_BYTES or stored != fletcher32(body):
                raise self._damaged("a chunk whose checksum is wrong", f"{stored:#x}")
            return body
        if one.code == SHUFFLE:
            if not one.value:
                raise self._damaged("a chunk of shuffled elements of no size", "0")
            return _unshuffled(data, one.value)
        room = self._bytes + _SUM_BYTES * len(self._filters)
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(data, room + 1)
        except zlib.error as error:
            raise self._damaged("a compressed chunk that cannot be unpacked", str(error)) from None
        if not unpacker.eof or len(data) > room:
            raise self._damaged("a compressed chunk of another size", "no end")
        return data


def _unshuffled(data: bytes, size: int) -> bytes:
    """Put the bytes of each element together again; a rest lies behind (H5Zshuffle.c)."""
    count = len(data) // size
    whole = np.frombuffer(data[: count * size], np.uint8)
    return whole.reshape(size, -1).T.tobytes() + data[count * size :]


def fletcher32(data: bytes) -> int:
    """Fletcher's checksum of big-endian words of 16 bits, as H5_checksum_fletcher32 computes it."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2")
    one = two = 0
    for start in range(0, len(words), _PIECE):
        piece = words[start : start + _PIECE].astype(np.uint64)
        count = len(piece)
        two += count * one + int((piece * np.arange(count, 0, -1, dtype=np.uint64)).sum())
        one += int(piece.sum())
    return _folded(two) << 16 | _folded(one)


def _folded(total: int) -> int:
    return (total - 1) % 0xFFFF + 1 if total else 0
