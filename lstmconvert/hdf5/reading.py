"""An HDF5 file as a tree of tensors and texts, read without the HDF5 library.

What Keras and h5py write is read here, by default and with `libver="latest"`: groups of both
formats, attributes of texts, and datasets of numbers: compact, contiguous, or in chunks with HDF5's
own filters. A file can also point elsewhere: at other files (external and soft links, external
storage, virtual datasets), at native code (foreign filters), at types of its own. Keras writes none
of these, and they are refused by name.

A dataset is not read in a walk. It knows where its numbers are, and they are read when touched.

Of a chunked dataset, it knows where its chunks are, and what they hold. HDF5 has six kinds of index
for chunks, and three filters of its own: gzip, shuffle and a checksum ("HDF5 File Format
Specification Version 3.0", whose names and numbers are those of the comments). The library believes
the length of a chunk, so that a checksum of a chunk of two bytes ends the process; here everything
is compared with what the dataset says.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile
from lstmconvert.files.opening import Window
from lstmconvert.hdf5 import structures
from lstmconvert.hdf5.structures import (
    GROUP,
    MANY,
    PLAIN,
    REFERENCE,
    SIGNATURE,
    SOFT,
    UNDEFINED,
    WORD,
    Blocks,
    Entry,
    Heap,
    Parts,
    Recorded,
    Records,
    SymbolTable,
    Texts,
    Type,
    node,
    root_entry,
    signatures,
)
from lstmconvert.hdf5.structures import messages as messages_of
from lstmconvert.limits import BUFFER_BYTES, Limit
from lstmconvert.tensors.dtypes import Array, DType, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

if TYPE_CHECKING:  # imported late: few files need it
    from lstmconvert.hdf5.alike import Like

# -- chunked datasets ----------------------------------------------------------------------------


#: The filters of HDF5 itself (H5Zpublic.h).
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
_SUM_BYTES, _PIECE = 4, 1 << 20


class ChunkPlace(NamedTuple):
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

Placed = Iterator[tuple[Shape, ChunkPlace]]


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
) -> dict[Shape, ChunkPlace]:
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
        return {first: ChunkPlace(layout.address, size, mask)}
    if layout.kind in (0, _TREE):
        read = _later_tree if layout.kind else _tree
        inside = read(blocks, layout, is_packed)
    else:
        inside = _numbered(blocks, layout, shape, most, is_packed)
    stored: dict[Shape, ChunkPlace] = {}
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
            yield (
                _index(blocks, layout, begins),
                ChunkPlace(child, packed & _MASK_BITS, packed >> 32),
            )

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


def _place(data: bytes, layout: Layout) -> ChunkPlace | None:
    """Return where a chunk is: an address, and if it is packed, its size and its filters."""
    (address,) = WORD.unpack_from(data)
    if address == UNDEFINED:
        return None
    if len(data) == WORD.size:
        return ChunkPlace(address, layout.bytes, 0)
    size = int.from_bytes(data[WORD.size : -_MASK.size], "little")
    return ChunkPlace(address, size, _MASK.unpack(data[-_MASK.size :])[0])


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


Elements = Iterator[tuple[int, "ChunkPlace | None"]]


def _implicit(blocks: Blocks, layout: Layout, count: int) -> Elements:
    if layout.address + count * layout.bytes > blocks.size:
        raise blocks.damaged("a chunk is past the end of the file")
    for number in range(count):
        yield number, ChunkPlace(layout.address + number * layout.bytes, layout.bytes, 0)


class _Array:
    """What arrays of chunks have in common (VII.C, VII.D).

    Fields: `head`, the bytes before what a block holds, without its place; `width`, of an element.
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
        places: Mapping[Shape, ChunkPlace],
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
            hint=DAMAGED,
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
            in_chunk = [
                slice(max(low, begin) - begin, min(high, end) - begin)
                for low, high, begin, end in zip(lows, highs, begins, ends, strict=True)
            ]
            in_result = [
                slice(part.start + begin - low, part.stop + begin - low)
                for part, begin, low in zip(in_chunk, begins, lows, strict=True)
            ]
            result[tuple(in_result)] = self._unpacked(self._places[index])[tuple(in_chunk)]
        return result

    def _unpacked(self, place: ChunkPlace) -> Array:
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


# -- the tree ------------------------------------------------------------------------------------


Attributes = Mapping[str, "str | list[str]"]


class StoredTree(NamedTuple):
    """All that an HDF5 file holds: full path -> tensor, and full group path -> text attributes.

    The root group's path is empty.
    """

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Attributes]
    groups: frozenset[str] = frozenset()


#: Superblocks (II.A): of version 0 and 1, and of 2 and 3.
_SUPERBLOCK, _MORE = struct.Struct("<8s8B2HI"), struct.Struct("<4Q")
_LATER = struct.Struct("<8s4B4Q")
_WIDTHS = (8, 8)  # the bytes of an address and of a length
#: Later formats say elsewhere how many entries their tables have; these are HDF5's defaults.
_LEAF, _INNER = 2 * 4, 2 * 16

_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = 0, 1, 2, 3
_COMPACT_SIZE, _LAYOUT = struct.Struct("<xxH"), struct.Struct("<xxQQ")

#: The records of trees of version 2 that lead to links and to attributes, by name; the first begin
#: with the hash of a name.
_LINK_RECORDS, _ATTRIBUTE_RECORDS, _HASH = 5, 8, 4

_REFERENCES = np.dtype(f"V{REFERENCE.size}")
_PARTS = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
_TWO_BYTES = np.dtype("V2")
_NO_OBJECT = "no group or dataset where one should be"
#: The most types and shapes of datasets that are kept.
_DESCRIBED = 64


def is_hdf5(source: SourceFile) -> bool:
    """Whether an HDF5 signature is at byte 0, or behind a user block (512, 1024, 2048, …)."""
    return any(True for _ in signatures(Window(source)))


def read_tree(source: SourceFile, offset: int = 0, size: int | None = None) -> StoredTree:
    """Walk the HDF5 file that is at bytes `offset` to `offset + size` of an open file.

    Raises:
        CorruptFile: it does not fit together, or it holds a link, external storage, a virtual
            dataset, a foreign filter, a named type, or a dataset without stored data.
        LimitExceeded: it is deeper, larger or denser than the limits allow.
    """
    window = Window(source, offset, size)
    start = next(signatures(window), None)
    if start is None:
        raise Blocks(window).damaged("it has no HDF5 signature")
    window = Window(source, window.offset + start, window.size - start)
    if window.size > _SMALL:
        return _walked(Blocks(window))
    blocks = Recorded(window)
    held = [limit.value for limit in _HELD]
    data, _ = blocks.find(0, window.size)
    known = _small.get(window.size)
    if known is not None and known.held == held and known.pieces == _parts(data, known.places):
        return known.tree(window)
    blocks.parts.clear()
    tree = _walked(blocks)
    _keep(tree, data, blocks, held)
    return tree


def _walked(blocks: Blocks) -> StoredTree:
    try:
        return _Walk(blocks).tree()
    except (struct.error, IndexError):
        raise blocks.damaged("a structure is cut off") from None


# --- small files that are like one before ---------------------------------------------------------

#: A file of no more bytes is one of a batch, perhaps, which differ in nothing but their numbers.
_SMALL, _MOST_SMALL = 1 << 16, 16
#: The limits that a walk holds a file against whose datasets are all in one piece.
_HELD = (
    limits.HDF5_DEPTH, limits.HDF5_OBJECTS, limits.HDF5_ATTRIBUTES, limits.ATTRIBUTE_BYTES,
    limits.PATH_LENGTH, limits.RANK, limits.TENSOR_BYTES,
)  # fmt: skip


class _Small(NamedTuple):
    """A small file that was walked. What is in another of its size follows from the bytes that the
    walk read, and the limits: where they are the same, so is what is in it, but for the numbers.

    Fields: `held`: the limits; `places` and `pieces`: the bytes, and where they are; `arrays`: of
    each dataset the path, the address of its numbers, its shape, and the dtype that is stored.
    """

    held: list[int]
    places: list[slice]
    pieces: list[bytes]
    arrays: list[tuple[str, int, Shape, DType]]
    attributes: Mapping[str, Attributes]
    groups: frozenset[str]

    def tree(self, window: Window) -> StoredTree:
        """Return what is in a file like it."""
        tensors = {
            path: FileTensor(window.source, window.offset + address, shape, dtype)
            for path, address, shape, dtype in self.arrays
        }
        return StoredTree(tensors, _copied(self.attributes), self.groups)


#: By the size of the file.
_small: dict[int, _Small] = {}


def _stored(tensor: FileTensor) -> DType:
    return tensor.dtype if tensor.is_little_endian else tensor.dtype.newbyteorder(">")


def _parts(data: bytes, places: list[slice]) -> list[bytes]:
    return [data[place] for place in places]


def _copied(attributes: Mapping[str, Attributes]) -> dict[str, Attributes]:
    return {
        path: {name: text if isinstance(text, str) else [*text] for name, text in texts.items()}
        for path, texts in attributes.items()
    }


def _keep(tree: StoredTree, data: bytes, blocks: Recorded, held: list[int]) -> None:
    """Keep what was read of a small file, if all its datasets are in one piece."""
    offset = blocks.window.offset
    arrays = [
        (path, tensor.offset - offset, tensor.shape, _stored(tensor))
        for path, tensor in tree.tensors.items()
        if type(tensor) is FileTensor
    ]
    if len(arrays) < len(tree.tensors):
        return
    places, end = list[slice](), -1
    for start, length in sorted(blocks.parts):
        if start > end:
            places.append(slice(start, start + length))
        elif start + length > end:
            places[-1] = slice(places[-1].start, start + length)
        end = max(end, start + length)
    if len(_small) >= _MOST_SMALL:
        _small.clear()
    attributes = _copied(tree.attributes)
    pieces = _parts(data, places)
    _small[blocks.window.size] = _Small(held, places, pieces, arrays, attributes, tree.groups)


# --- the walk -------------------------------------------------------------------------------------


class _Walk:
    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.texts = blocks, Texts(blocks)
        self.source, self.offset = blocks.window.source, blocks.window.offset
        self.tensors: dict[str, Tensor] = {}
        self.attributes: dict[str, Attributes] = {}
        self.groups: set[str] = set()
        self.seen: set[int] = set()
        self.declared = self.stored = 0
        # Thousands of layers have arrays of a few types and shapes.
        self.described: dict[tuple[bytes, bytes], tuple[Type, DType, Shape, Shape, int]] = {}
        # Looked up once: a file of 10,000 layers has 70,000 objects.
        self.depth, self.longest = limits.HDF5_DEPTH.value, limits.PATH_LENGTH.value
        self.objects, self.rank = limits.HDF5_OBJECTS.value, limits.RANK.value
        self.largest = limits.TENSOR_BYTES.value

    def where(self, path: str) -> str:
        return f"{self.source.path}: {path or '/'}"

    def fail(self, message: str, path: str, **facts: Any) -> NoReturn:
        raise CorruptFile(message, where=self.where(path), **facts)

    # --- the file ---

    def tree(self) -> StoredTree:
        version = self.blocks.at(len(SIGNATURE), 1)[0]
        if version in (0, 1):
            root = self._first_superblock(version)
        elif version in (2, 3):
            root = self._later_superblock()
        else:
            raise self.blocks.unread(f"a superblock of version {version}")
        _, address, kind, table = root
        if kind == SOFT:
            raise self.blocks.damaged(_NO_OBJECT)
        self.item(address, "", 0, table if kind == GROUP else None)
        if "" not in self.groups:
            raise self.blocks.damaged("its root is not a group")
        self.check_sums()
        return StoredTree(self.tensors, self.attributes, frozenset(self.groups))

    def _first_superblock(self, version: int) -> Entry:
        head = self.blocks.at(0, _SUPERBLOCK.size)
        _, _, _, _, _, _, *widths, _, leaf, inner, _ = _SUPERBLOCK.unpack(head)
        at = _SUPERBLOCK.size + 4 * version  # version 1 says how wide trees of chunks are
        base, _, end, driver = _MORE.unpack(self.blocks.at(at, _MORE.size))
        self._check_ends(tuple(widths), base, end, driver)
        self.table = SymbolTable(self.blocks, 2 * leaf, 2 * inner)
        return root_entry(self.blocks, at + _MORE.size)

    def _later_superblock(self) -> Entry:
        head = self.blocks.at(0, _LATER.size + 4)
        self.blocks.verified(head, b"superblock")
        _, _, *widths, _, base, extension, end, root = _LATER.unpack(head[: _LATER.size])
        self._check_ends(tuple(widths), base, end, UNDEFINED)
        self.table = SymbolTable(self.blocks, _LEAF, _INNER)
        if extension != UNDEFINED:
            elsewhere = {structures.SHARED_TABLE, structures.DRIVER, structures.CACHE}
            if not elsewhere.isdisjoint(messages_of(self.blocks, extension)[0]):
                raise self.blocks.unread("structures that are kept elsewhere")
        return "", root, PLAIN, b""

    def _check_ends(self, widths: tuple[int, ...], base: int, end: int, driver: int) -> None:
        if widths != _WIDTHS:
            raise self.blocks.unread("addresses that are not of eight bytes")
        if driver != UNDEFINED:
            raise self.blocks.unread("parts in other files")
        if end - base > self.blocks.size:  # the base may be of a file without its user block
            raise self.blocks.truncated(end)
        self.blocks.end_at(min(self.blocks.size, max(0, end - base)))

    # --- groups ---

    def item(self, address: int, path: str, depth: int, table: bytes | None = None) -> None:
        """Read the group or dataset whose header is at an address.

        Args:
            table: where a group's tables are, if who leads here says so.
        """
        if address in self.seen:
            self.fail("a group or dataset is in two places, as Keras never writes", path)
        self.seen.add(address)
        if depth > self.depth:
            what = "the nesting of the HDF5 groups"
            limits.HDF5_DEPTH.check(depth, self.where(path), what)
        parts, attributes, links = messages_of(self.blocks, address)
        if structures.LAYOUT in parts:
            if structures.DATATYPE not in parts or structures.DATASPACE not in parts:
                raise self.blocks.damaged("a dataset without a type or a shape")
            self.tensors[path] = self.dataset(address, parts, attributes, path)
        elif structures.SYMBOLS in parts or structures.LINKS in parts:
            self.groups.add(path)
            if attributes or structures.ATTRIBUTES in parts:
                texts = self.texts_of(parts, attributes, path)
                if texts:
                    self.attributes[path] = texts
            if structures.SYMBOLS in parts:
                tables, _ = parts[structures.SYMBOLS]
                if table is not None and table != tables:
                    raise self.blocks.damaged("a group with two tables")
                entries = self.table.entries(tables, self.objects - len(self.seen), path)
            else:
                entries = self.linked(parts, links, path)
            self.children(entries, path, depth)
        elif structures.DATATYPE in parts:
            self.fail("a named type, which Keras never writes", path)
        else:
            raise self.blocks.damaged(_NO_OBJECT)

    def linked(self, parts: Parts, links: list[bytes], path: str) -> Iterable[Entry]:
        """Return what is in a group of a later format, sorted by name."""
        places = structures.elsewhere(parts[structures.LINKS][0], WORD.size)
        bounds = limits.HDF5_OBJECTS, len(self.seen), "the number of HDF5 objects"
        links = [*links, *self.in_heap(places, _LINK_RECORDS, bounds, path)]
        entries = [structures.link(self.blocks, link) for link in links]
        entries.sort(key=lambda entry: entry[0])
        if len({name for name, *_ in entries}) != len(entries):
            raise self.blocks.damaged("a name appears twice in a group")
        return structures.entries_of(self.blocks, entries, path)

    def in_heap(
        self, places: tuple[int, int], kind: int, bounds: tuple[Limit, int, str], path: str
    ) -> Iterator[bytes]:
        """Yield the links or attributes that are too many for their object's header.

        Args:
            places: of their heap, and of the tree that leads to them.
            kind: of the tree's records.
            bounds: a limit for their number, the count to add to it, and its name.
        """
        heap_address, tree = places
        if heap_address == UNDEFINED:
            return
        records = Records(self.blocks, tree)
        if records.kind != kind:
            raise self.blocks.damaged("a tree of another kind")
        limit, more, what = bounds
        limit.check(records.total + more, self.where(path), what)
        heap = Heap(self.blocks, heap_address)
        if heap.total != records.total:
            raise self.blocks.damaged("a heap with more or fewer objects than lead to it")
        start = _HASH if kind == _LINK_RECORDS else 0
        for record in records:
            yield heap.object(record[start:])

    def children(self, entries: Iterable[Entry], path: str, depth: int) -> None:
        """Read what is in a group."""
        start, seen = f"{path}/" if path else "", self.seen
        may_be_known, siblings = depth < self.depth, None
        if isinstance(entries, list) and len(entries) >= MANY:
            from lstmconvert.hdf5.alike import Siblings  # few files need it: others start faster

            siblings = Siblings(self.blocks, self.table, entries)
        for name, address, kind, table in entries:
            here = start + name
            if siblings is not None:
                like = siblings.like(address)
                if like is not None and self.alike(like, here):
                    continue
            if len(here) > self.longest:
                where = self.source.path
                limits.PATH_LENGTH.check(len(here), where, "the length of an HDF5 path")
            if kind == SOFT:
                self.fail("a soft or external link, which Keras never writes", here)
            if len(seen) >= self.objects:
                what = "the number of HDF5 objects"
                limits.HDF5_OBJECTS.check(len(seen) + 1, self.where(path), what)
            if kind == GROUP:
                self.item(address, here, depth + 1, table)
                if siblings is not None:
                    siblings.learn(address)
            elif address in seen or not may_be_known or not self.known_array(address, here):
                self.item(address, here, depth + 1)

    def alike(self, group: Like, path: str) -> bool:
        """Take over a group that is like one beside it, and return whether it was: not where it is
        to be refused, of which its walk tells why."""
        pattern, headers, nodes, places, texts = group
        seen, tensors = self.seen, self.tensors
        is_good = seen.isdisjoint(headers) and len(seen) + len(headers) <= self.objects
        if not is_good or len(path) + pattern.longest > self.longest:
            return False
        self.blocks.visit(*nodes, length=pattern.bytes)
        seen.update(headers)
        self.groups.update([path + below for below in pattern.groups])
        for (below, name), text in zip(pattern.texts, texts, strict=True):
            self.attributes[path + below] = {name: structures.as_text(self.texts.ended(text))}
        source, offset = self.source, self.offset
        for (below, (shape, dtype, _)), place in zip(pattern.arrays, places, strict=True):
            tensors[path + below] = FileTensor(source, offset + place, shape, dtype)
        self.declared, self.stored = self.declared + pattern.stored, self.stored + pattern.stored
        return True

    def texts_of(self, parts: Parts, bodies: list[bytes], path: str) -> Attributes:
        """Return the text attributes of an object, sorted by name."""
        if not bodies and structures.ATTRIBUTES not in parts:
            return {}
        bounds = limits.HDF5_ATTRIBUTES, len(bodies), "the number of attributes"
        if structures.ATTRIBUTES in parts:
            places = structures.elsewhere(parts[structures.ATTRIBUTES][0], 2)
            bodies = [*bodies, *self.in_heap(places, _ATTRIBUTE_RECORDS, bounds, path)]
        if len(bodies) > 1:  # as rarely, and limits take time to look up
            limits.HDF5_ATTRIBUTES.check(len(bodies), self.where(path), bounds[2])
        return structures.attributes(self.blocks, self.texts, bodies)

    # --- datasets ---

    def known_array(self, address: int, path: str) -> bool:
        """Read a dataset whose header is like one that was read before, and return whether it was:
        no other object is read, and none that is to be refused. Its bytes are summed up, and the
        sum is held against the file at the end."""
        header = structures.array_at(self.blocks, address)
        if header is None:
            return False
        (shape, dtype, declared), place, size, known = header
        is_good = size == declared <= self.largest and place + size <= self.blocks.size
        if not is_good or len(shape) > self.rank:
            return False
        self.blocks.take(address, known.size)
        self.seen.add(address)
        self.declared, self.stored = self.declared + size, self.stored + size
        self.tensors[path] = FileTensor(self.source, self.offset + place, shape, dtype)
        return True

    def dataset(
        self, address: int, parts: Parts, attributes: list[bytes], path: str
    ) -> Tensor:
        if structures.EXTERNAL in parts:
            self.fail("a dataset with external storage, which reads other files", path)
        layout, place = parts[structures.LAYOUT]
        version, form = layout[:2]
        if version not in (3, 4, 5) or form > _VIRTUAL:
            raise self.blocks.unread(f"a layout of version {version}")
        if form == _VIRTUAL:
            self.fail("a virtual dataset, which reads other files", path)
        described = parts[structures.DATATYPE][0], parts[structures.DATASPACE][0]
        known = self.described.get(described)
        if known is None:
            known = self.array_of(parts, attributes, path)
            # Attributes tell what two bytes are.
            if known[0].dtype.itemsize != _TWO_BYTES.itemsize and len(self.described) < _DESCRIBED:
                self.described[described] = known
        kind, dtype, shape, most, declared = known
        tensor: Tensor
        if not declared:
            return ArrayTensor(np.zeros(shape, kind.dtype))
        if form == _CHUNKED:
            tensor = self.chunked(parts, shape, most, dtype, path)
        else:
            tensor = self.whole(layout, place, shape, dtype, declared, path)
        if kind.is_text:
            return _TextTensor(tensor, self.texts, self.where(path), self.blocks.size)
        if kind.unread is not None:
            return _Unread(tensor, kind.unread, self.where(path))
        if form == _CONTIGUOUS and dtype.kind != "V":  # of which attributes tell what it is
            structures.learn_array(self.blocks, address, (shape, dtype, declared))
        return tensor

    def array_of(
        self, parts: Parts, attributes: list[bytes], path: str
    ) -> tuple[Type, DType, Shape, Shape, int]:
        """Return a dataset's type, the dtype that is stored, its shape, the largest that it may
        grow to, and the bytes of all its elements."""
        kind = self.type_of(parts, attributes, path)
        spaces = structures.space(self.blocks, parts[structures.DATASPACE][0])
        if spaces is None:
            self.fail("a dataset without a shape", path)
        shape, most = spaces
        if len(shape) > self.rank:
            limits.RANK.check(len(shape), self.where(path), "the number of axes")
        # Texts are stored as references to a heap.
        dtype = _REFERENCES if kind.is_text else kind.dtype
        declared = math.prod(shape) * dtype.itemsize
        if declared > self.largest:
            limits.TENSOR_BYTES.check(declared, self.where(path), "the tensor's bytes")
        return kind, dtype, shape, most, declared

    def whole(
        self, layout: bytes, place: int, shape: Shape, dtype: DType, declared: int, path: str
    ) -> Tensor:
        """Return a dataset that is in one piece: in the file, or in the message itself."""
        if layout[1] == _COMPACT:
            (size,) = _COMPACT_SIZE.unpack_from(layout)
            address = place + _COMPACT_SIZE.size
        else:
            address, size = _LAYOUT.unpack_from(layout)
            size = 0 if address == UNDEFINED else size
        self.count(declared, size, path)
        if size != declared or address + size > self.blocks.size:
            self.fail("a dataset is past the end of the file, or is of another size", path)
        return FileTensor(self.source, self.offset + address, shape, dtype)

    def chunked(self, parts: Parts, shape: Shape, most: Shape, dtype: DType, path: str) -> Tensor:
        layout = layout_of(self.blocks, parts[structures.LAYOUT][0])
        if len(layout.chunk) != len(shape) or layout.itemsize != dtype.itemsize:
            self.fail("a dataset whose chunks are of another shape", path)
        filters = self.filters(parts, path)
        limits.CHUNK_BYTES.check(layout.bytes, self.where(path), "the size of an HDF5 chunk")
        stored = places(self.blocks, layout, shape, most, bool(filters))
        size = sum(place.size for place in stored.values())
        self.count(math.prod(shape) * dtype.itemsize, size, path)
        moved = {
            index: place._replace(offset=place.offset + self.offset)
            for index, place in stored.items()
        }
        return ChunkedTensor(self.source, shape, dtype, layout.chunk, filters, moved)

    def count(self, declared: int, stored: int, path: str) -> None:
        """Hold a dataset's size, and that of all together, against the bytes stored for them.

        A thousand datasets may share their bytes.
        """
        if declared > stored:
            limits.check_expansion(declared, stored, self.where(path))
        if not stored:
            self.fail("a dataset with no stored data", path)
        self.declared, self.stored = self.declared + declared, self.stored + stored
        self.check_sums()

    def check_sums(self) -> None:
        """Hold the size of all datasets against the bytes stored for them."""
        if self.stored > self.blocks.size:
            self.fail(
                "the datasets overlap, or the file is truncated",
                "",
                found=f"{self.stored:,} bytes in datasets, {self.blocks.size:,} in the file",
            )
        if self.declared > self.stored:
            limits.check_expansion(self.declared, self.stored, self.source.path)

    def filters(self, parts: Parts, path: str) -> tuple[Filter, ...]:
        if structures.FILTERS not in parts:
            return ()
        result = structures.filters(self.blocks, parts[structures.FILTERS][0])
        for code, _ in result:
            if code not in (DEFLATE, SHUFFLE, FLETCHER32):
                self.fail(
                    "a dataset with a foreign compression filter",
                    path,
                    found=f"filter {code}",
                    expected="none, gzip, shuffle or fletcher32",
                    hint="rewrite the file with h5repack -f NONE",
                )
        return tuple(Filter(code, value) for code, value in result)

    def type_of(self, parts: Parts, attributes: list[bytes], path: str) -> Type:
        kind = structures.type_of(parts[structures.DATATYPE][0])
        if kind is None:
            self.fail("numbers in a format of their own", path)
        if kind.dtype != _TWO_BYTES or kind.unread is not None:
            return kind
        # Keras writes bfloat16 as an opaque type, with this attribute in a v3 store
        # (keras/src/saving/saving_lib.py, H5IOStore.__setitem__), and with none in a legacy one,
        # which it cannot read back. No other dtype of its weights is opaque and of two bytes.
        name = self.texts_of(parts, attributes, path).get("dtype", "bfloat16")
        return Type(dtype_of("bfloat16")) if name == "bfloat16" else kind


class _TextTensor(Tensor):
    """A dataset of texts of any length: an array of Python's `bytes`."""

    def __init__(self, references: Tensor, texts: Texts, where: str, most: int) -> None:
        self._references, self._texts = references, texts
        self.shape, self.dtype = references.shape, np.dtype(object)
        # Their lengths are looked at first, so that one long text is not read a thousand times.
        total = sum(
            int(block.view(_PARTS)["length"].sum(dtype=np.uint64)) for block in references.blocks()
        )
        if total > most:
            raise CorruptFile("texts that share one place, as Keras never writes", where=where)

    def rows(self, start: int, stop: int) -> Array:
        references = np.ascontiguousarray(self._references.rows(start, stop))
        result = np.empty(references.shape, object)
        for index, reference in np.ndenumerate(references.view(_PARTS)):
            length, heap, number = reference.item()
            result[index] = self._texts.text((length, heap, number))
        return result


class _Unread(Tensor):
    """A dataset whose elements are not read: its shape is known, and its numbers are refused."""

    def __init__(self, stored: Tensor, what: str, where: str) -> None:
        self.shape, self.dtype = stored.shape, stored.dtype
        self._what, self._where = what, where

    def rows(self, start: int, stop: int) -> Array:  # noqa: ARG002  # as every tensor
        raise CorruptFile(
            f"a dataset of {self._what}, which are not read",
            where=self._where,
            hint="Keras writes none: take the dataset out of the file",
        )
