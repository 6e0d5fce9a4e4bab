"""Chunked HDF5 datasets: where their chunks are, and what they hold.

Names and numbers in comments are those of "HDF5 File Format Specification Version 3.0". HDF5 has
six kinds of index for chunks, and three filters of its own: gzip, shuffle and a checksum. The
library believes the length of a chunk, so that a checksum of a chunk of two bytes ends the process;
here everything is compared with what the dataset says.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.hdf5.structures import UNDEFINED, WORD, Blocks, Records, node
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import Shape, SourceFile, Tensor

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


# --- where chunks are (IV.A.2.i) ------------------------------------------------------------------

#: Kinds of an index of chunks, in a layout message of version 4. Before, all were trees.
_SINGLE, _IMPLICIT, _FIXED, _EXTENSIBLE, _TREE = 1, 2, 3, 4, 5
#: Flags: chunks at the edges go without filters; the single chunk is filtered.
_BARE_EDGES, _PACKED = 1, 2
_KEY, _MASK = struct.Struct("<II"), struct.Struct("<I")
#: A node of a tree of chunks has at most twice as many children (superblock 0: the default).
CHILDREN = 2 * 32

Placed = Iterator[tuple[Shape, Place]]


class Layout(NamedTuple):
    """How a dataset is cut into chunks, and where their index is.

    Fields: `chunk`, the shape of one; `itemsize`, an element's bytes; `kind`, of the index, 0 for
    a tree of version 1; `details`, from a layout message of version 4, or 5 (HDF5 2); `address`, of
    the index or of the only chunk.
    """

    chunk: Shape
    itemsize: int
    kind: int
    details: bytes
    address: int

    @property
    def bytes(self) -> int:
        """The size of a chunk, unpacked."""
        return math.prod(self.chunk) * self.itemsize


def layout_of(blocks: Blocks, message: bytes) -> Layout:
    """Return what the layout message of a chunked dataset says.

    Raises:
        CorruptFile: chunks of no size, or an unknown index.
    """
    kind, details = 0, b""
    if message[0] == 3:
        address, *sizes = struct.unpack_from(f"<Q{message[2]}I", message, 3)
    else:
        flags, axes, width = message[2:5]
        at = 5 + axes * width
        sizes = [
            int.from_bytes(message[5 + axis * width : 5 + axis * width + width], "little")
            for axis in range(axes)
        ]
        kind = message[at]
        if flags & _BARE_EDGES:
            raise blocks.unread("chunks at the edges that go without filters")
        lengths = {_SINGLE: 12 if flags & _PACKED else 0, _FIXED: 1, _EXTENSIBLE: 5, _TREE: 6}
        details = message[at + 1 : at + 1 + lengths.get(kind, 0)]
        (address,) = WORD.unpack_from(message, at + 1 + len(details))
    if len(sizes) < 2 or not all(sizes):
        raise blocks.damaged("chunks of no size")
    *chunk, itemsize = sizes
    if kind not in range(_TREE + 1):
        raise blocks.unread("an unknown index of chunks")
    return Layout(tuple(chunk), itemsize, kind, details, address)


def places(
    blocks: Blocks, layout: Layout, shape: Shape, most: Shape, is_packed: bool
) -> dict[Shape, Place]:
    """Return the index of each stored chunk in the grid of chunks -> where it is.

    Args:
        shape, most: the dataset's shape, and the largest that it may grow to.
        is_packed: whether chunks pass a filter, and so may have any size.

    Raises:
        CorruptFile: the index does not fit together.
    """
    if layout.address == UNDEFINED:
        return {}
    first = (0,) * len(shape)
    if layout.kind == _SINGLE:
        size, mask = struct.unpack("<QI", layout.details or struct.pack("<QI", layout.bytes, 0))
        return {first: Place(layout.address, size, mask)}
    if layout.kind in (0, _TREE):
        read = _later_tree if layout.kind else _tree
        inside = read(blocks, layout, is_packed)
    else:
        inside = _numbered(blocks, layout, shape, most, is_packed)
    stored: dict[Shape, Place] = {}
    for index, place in inside:
        if index in stored:
            raise blocks.damaged("a chunk that is in two places")
        stored[index] = place
    return stored


def _tree(blocks: Blocks, layout: Layout, _: bool) -> Placed:
    """Read a tree of version 1 (III.A.1): a key has a chunk's size, its filters, its place."""
    axes = len(layout.chunk)
    key = _KEY.size + WORD.size * (axes + 1)
    last: Shape = ()

    def branch(address: int, level: int | None) -> Placed:
        nonlocal last
        level, numbers = node(blocks, address, 1, level, CHILDREN, key)
        step = key // WORD.size + 1
        for at in range(0, len(numbers) - step, step):
            packed, *begins, _ = numbers[at : at + step - 1]
            child = numbers[at + step - 1]
            if level:
                yield from branch(child, level)
                continue
            index = tuple(begins)
            if index <= last:
                raise blocks.damaged("the chunks of a dataset are not sorted, or appear twice")
            last = index
            yield _index(blocks, layout, begins), Place(child, packed & _MASK_BITS, packed >> 32)

    yield from branch(layout.address, None)


_MASK_BITS = (1 << 32) - 1


def _index(blocks: Blocks, layout: Layout, begins: list[int]) -> Shape:
    if any(begin % step for begin, step in zip(begins, layout.chunk, strict=True)):
        raise blocks.damaged("a chunk that is out of place")
    return tuple(begin // step for begin, step in zip(begins, layout.chunk, strict=True))


def _later_tree(blocks: Blocks, layout: Layout, is_packed: bool) -> Placed:
    """Read a tree of version 2 (III.A.2), records of type 10 and 11."""
    records = Records(blocks, layout.address)
    axes = len(layout.chunk)
    start = records.size - WORD.size * axes
    if records.kind != (11 if is_packed else 10) or start < WORD.size:
        raise blocks.damaged("a tree that does not fit its chunks")
    for record in records:
        place = _place(record[:start], layout)
        if place is not None:
            yield struct.unpack_from(f"<{axes}Q", record, start), place


def _place(data: bytes, layout: Layout) -> Place | None:
    """Return where a chunk is: an address, and if it is packed, its size and its filters."""
    (address,) = WORD.unpack_from(data)
    if address == UNDEFINED:
        return None
    if len(data) == WORD.size:
        return Place(address, layout.bytes, 0)
    size = int.from_bytes(data[WORD.size : -_MASK.size], "little")
    return Place(address, size, _MASK.unpack(data[-_MASK.size :])[0])


def _numbered(
    blocks: Blocks, layout: Layout, shape: Shape, most: Shape, is_packed: bool
) -> Placed:
    """Read an index by number: of a chunk in the grid of the largest shape, in C order.

    An axis that may grow for ever comes first there.
    """
    grid = [-(-size // step) for size, step in zip(most, layout.chunk, strict=True)]
    inside = [-(-size // step) for size, step in zip(shape, layout.chunk, strict=True)]
    order = sorted(range(len(grid)), key=lambda axis: most[axis] != UNDEFINED)
    steps = [math.prod(grid[axis] for axis in order[at + 1 :]) for at in range(len(order))]
    if layout.kind == _IMPLICIT:
        elements = _implicit(blocks, layout, math.prod(grid))
    else:
        read = _fixed if layout.kind == _FIXED else _extensible
        elements = read(blocks, layout, is_packed)
    for number, place in elements:
        if place is not None:
            index = [0] * len(grid)
            for axis, step in zip(order, steps, strict=True):
                index[axis], number = divmod(number, step)
            # Room made early is for all that the dataset may grow to.
            if layout.kind != _IMPLICIT or all(map(int.__lt__, index, inside)):
                yield tuple(index), place


Elements = Iterator[tuple[int, "Place | None"]]


def _implicit(blocks: Blocks, layout: Layout, count: int) -> Elements:
    if layout.address + count * layout.bytes > blocks.size:
        raise blocks.damaged("a chunk is past the end of the file")
    for number in range(count):
        yield number, Place(layout.address + number * layout.bytes, layout.bytes, 0)


class _Array:
    """What arrays of chunks have in common (VII.C, VII.D).

    Fields: `head`, the bytes before what a block holds, but for its place; `width`, of an element.
    """

    def __init__(self, blocks: Blocks, layout: Layout, header: bytes, is_packed: bool) -> None:
        self.blocks, self.layout = blocks, layout
        kind, self.width = header[5], header[6]
        least = WORD.size + (_MASK.size + 1 if is_packed else 0)
        if kind != is_packed or self.width < least or (not is_packed and self.width != least):
            raise blocks.damaged("an array that does not fit its chunks")
        self._start = bytes((0, kind)) + WORD.pack(layout.address)
        self.head = 4 + len(self._start)

    def block(self, address: int, size: int, signature: bytes) -> bytes:
        """Return a block without its checksum.

        Args:
            size: of the block, the checksum included.
        """
        self.blocks.visit(address)
        data = self.blocks.signed(address, size, signature)
        if data[4 : self.head] != self._start:
            raise self.blocks.damaged("a block of another array")
        return data

    def elements(self, data: bytes, number: int) -> Elements:
        """Yield numbers and places of the elements in some bytes."""
        for at in range(0, len(data), self.width):
            yield number, _place(data[at : at + self.width], self.layout)
            number += 1

    def pages(
        self, address: int, number: int, count: int, page: int, written: bytes
    ) -> Elements:
        """Yield the elements of pages, each of which has a checksum.

        Args:
            address: where the first page is.
            number: of the first element.
            count, page: how many elements there are, and in a page.
            written: a bit for each page: whether it was ever written.
        """
        for index, start in enumerate(range(0, count, page)):
            length = min(page, count - start) * self.width
            if written[index // 8] & 0x80 >> index % 8:
                data = self.blocks.at(address, length + _SUM_BYTES)
                yield from self.elements(self.blocks.verified(data, b"page"), number + start)
            address += length + _SUM_BYTES


_FIXED_HEADER = struct.Struct("<4s4BQQ")
_EXTENSIBLE_HEADER = struct.Struct("<4s8B6QQ")


def _fixed(blocks: Blocks, layout: Layout, is_packed: bool) -> Elements:
    """Read a fixed array (VII.C)."""
    header = blocks.signed(layout.address, _FIXED_HEADER.size + _SUM_BYTES, b"FAHD")
    *_, bits, count, address = _FIXED_HEADER.unpack(header)
    array, page = _Array(blocks, layout, header, is_packed), 1 << min(bits, 63)
    if address == UNDEFINED:
        return
    if count <= page:
        size = array.head + count * array.width + _SUM_BYTES
        yield from array.elements(array.block(address, size, b"FADB")[array.head :], 0)
        return
    pages = -(-count // page)
    size = array.head + -(-pages // 8) + _SUM_BYTES
    written = array.block(address, size, b"FADB")[array.head :]
    yield from array.pages(address + size, 0, count, page, written)


def _extensible(blocks: Blocks, layout: Layout, is_packed: bool) -> Elements:
    """Read an extensible array (VII.D): blocks of growing size, which blocks of blocks lead to.

    The `level`-th block of blocks leads to 2^(level // 2) blocks of `least` · 2^((level + 1) // 2)
    elements. The first levels' blocks are listed in the index block itself.
    """
    header = blocks.signed(layout.address, _EXTENSIBLE_HEADER.size + _SUM_BYTES, b"EAHD")
    _, _, _, _, bits, direct, least, pointers, page_bits, *_, address = (
        _EXTENSIBLE_HEADER.unpack(header)
    )
    array, page = _Array(blocks, layout, header, is_packed), 1 << min(page_bits, 63)
    if address == UNDEFINED:
        return
    if bits > 64 or least.bit_count() != 1 or pointers.bit_count() != 1:
        raise blocks.damaged("an array that does not fit together (EAHD)")
    wide, listed = -(-bits // 8), 2 * (pointers - 1)
    levels, inside = bits - least.bit_length() + 2, 2 * (pointers.bit_length() - 1)
    size = array.head + direct * array.width
    whole = size + WORD.size * (listed + max(0, levels - inside)) + _SUM_BYTES
    data = array.block(address, whole, b"EAIB")
    yield from array.elements(data[array.head : size], 0)
    addresses = [address for (address,) in WORD.iter_unpack(data[size:])]
    numbered, number, before = iter(addresses), direct, 0

    def leaf(address: int, start: int, count: int, written: bytes) -> Elements:
        size = array.head + wide + (0 if count > page else count * array.width) + _SUM_BYTES
        data = array.block(address, size, b"EADB")
        if int.from_bytes(data[array.head : array.head + wide], "little") != start:
            raise blocks.damaged("a block that is out of place (EADB)")
        if count > page:
            return array.pages(address + size, number, count, page, written)
        return array.elements(data[array.head + wide :], number)

    for level in range(levels):
        count, many = least << (level + 1) // 2, 1 << level // 2
        bitmap = -(-(count // page) // 8) if count > page else 0
        children, written = [], b""
        if level < inside:
            if bitmap:
                raise blocks.damaged("an array that does not fit together (EAHD)")
            children = [next(numbered, UNDEFINED) for _ in range(many)]
        elif (address := next(numbered, UNDEFINED)) != UNDEFINED:
            size = array.head + wide + many * (bitmap + WORD.size) + _SUM_BYTES
            data = array.block(address, size, b"EASB")[array.head + wide :]
            written = data[: many * bitmap]
            children = [child for (child,) in WORD.iter_unpack(data[many * bitmap :])]
        # The place of a block that the index block lists is off by the blocks before its level
        # (H5EA__lookup_elmt).
        shift = before * count if level < inside else 0
        before += many
        for index, child in enumerate(children):
            if child != UNDEFINED:
                bits_of_pages = written[index * bitmap : (index + 1) * bitmap]
                yield from leaf(child, number - direct + shift, count, bits_of_pages)
            number += count
        number += count * (many - len(children))


# --- what they hold -------------------------------------------------------------------------------


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
        CorruptFile: chunks are missing, or are outside the file or the dataset.
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
            all(0 <= index < count for index, count in zip(corner, grid, strict=True))
            for corner in places
        )
        if inside != len(places) or inside != math.prod(grid):  # HDF5 would fill gaps with zeros
            raise self._damaged(
                "a dataset with missing chunks", f"{inside:,}", f"{math.prod(grid):,}"
            )
        for place in places.values():
            if place.offset + place.size > source.size:
                raise self._damaged("a chunk past the end of the file", f"{place.offset:,}")

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

    def _undone(self, step: Filter, data: bytes) -> bytes:
        if step.code == FLETCHER32:
            body, stored = data[:-_SUM_BYTES], int.from_bytes(data[-_SUM_BYTES:], "little")
            if len(data) < _SUM_BYTES or stored != fletcher32(body):
                raise self._damaged("a chunk whose checksum is wrong", f"{stored:#x}")
            return body
        if step.code == SHUFFLE:
            if not step.value:
                raise self._damaged("a chunk of shuffled elements of no size", "0")
            return _unshuffled(data, step.value)
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
    """Put the bytes of each element together again; a remainder follows (H5Zshuffle.c)."""
    count = len(data) // size
    whole = np.frombuffer(data[: count * size], np.uint8)
    return whole.reshape(size, -1).T.tobytes() + data[count * size :]


def fletcher32(data: bytes) -> int:
    """Fletcher's checksum of big-endian words of 16 bits, as H5_checksum_fletcher32 computes it."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2")
    first = second = 0
    for start in range(0, len(words), _PIECE):
        piece = words[start : start + _PIECE].astype(np.uint64)
        count = len(piece)
        second += count * first + int((piece * np.arange(count, 0, -1, dtype=np.uint64)).sum())
        first += int(piece.sum())
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    return (total - 1) % 0xFFFF + 1 if total else 0
