"""The plain part of HDF5 that Keras's files are made of, read without the HDF5 library.

Superblock 0, groups as symbol tables, object headers of version 1, contiguous datasets of numbers,
attributes of texts: so writes h5py by default, and so has every Keras from 0.x on. Whatever is not
exactly so, or does not fit together, is not read here at all: `read` returns None, and the library
says what it is. Offsets and names are those of "HDF5 File Format Specification Version 3.0".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np

from lstmconvert import limits
from lstmconvert.dtypes import DType
from lstmconvert.files import Window
from lstmconvert.keras import hdf5text
from lstmconvert.keras.hdf5text import SIGNATURE, Unfamiliar, name_text
from lstmconvert.keras.tree import Attributes, Tree
from lstmconvert.tensors import FileTensor, Tensor

_SUPERBLOCK = struct.Struct("<8s8B2HI4Q")  # II.A; the root's entry follows
_VERSIONS = (0, 0, 0, 0, 0, 8, 8, 0)  # of its parts; the sizes of offsets and of lengths
_HEADER = struct.Struct("<BxHIIxxxx")  # IV.A.1.a
_MESSAGE = struct.Struct("<HHB3x")
_TREE = struct.Struct("<4sBBHQQ")  # III.A.1
_HEAP = struct.Struct("<4sB3xQQQ")  # III.D
_SYMBOLS = struct.Struct("<4sBxH")  # III.B
_ENTRY = struct.Struct("<QQI4x16s")  # III.C
_PAIR, _KEY = struct.Struct("<QQ"), struct.Struct("<Q")
_LAYOUT = struct.Struct("<BBQQ")  # IV.A.2.i
_SPACE = struct.Struct("<BBBx4x")  # IV.A.2.b
_FILL_SIZE = struct.Struct("<3xBI")
_UNDEFINED = (1 << 64) - 1

#: Header messages (IV.A.2).
_DATASPACE, _DATATYPE, _DATA_LAYOUT, _ATTRIBUTE, _CONTINUED, _SYMBOL_TABLE = 1, 3, 8, 12, 16, 17
#: Those that say nothing of names and numbers -> how they begin: room, a fill value, a time.
_FILL = 5
_PASSED_BY = {0: b"", _FILL: b"\2", 18: b"\1"}
_HARMLESS = 0b101  # flags of messages: it never changes, it is not to be shared
_CONTIGUOUS = 1
#: Tables of names, and headers, are of some kilobytes; 10,000 layers have names of 200.
_LARGEST = 16 * limits.MIB
#: A tree of so many levels has more leaves than a file has bytes.
_DEEPEST = 12

#: The end of the chain of free places in a heap of names (III.D).
_NO_MORE = 1

Message = tuple[int, bytes]
#: Where an object's header is; 1 if its tables, as a group's, are said here too (2: a soft link);
#: and those.
Entry = tuple[int, int, bytes]


def read(window: Window) -> Tree | None:
    """Return what a file holds, or None if it is not as plain as this.

    Raises:
        CorruptFile: the file ends early, or a text is longer than its place. The library would
            believe that, and make room.
    """
    try:
        return _Plain(window).tree()
    except (Unfamiliar, struct.error):
        return None


def _number_types() -> dict[bytes, DType]:
    """Return the datatype messages (IV.A.2.d) of little-endian numbers, as HDF5 encodes them."""
    result = {}
    for size, exponent, mantissa in ((2, 5, 10), (4, 8, 23), (8, 11, 52)):
        bits, bias = 8 * size, (1 << exponent - 1) - 1
        flags = bytes((0x20, bits - 1, 0))  # the mantissa's first bit is implied; where the sign is
        properties = struct.pack("<HHBBBBI", 0, bits, mantissa, exponent, 0, mantissa, bias)
        result[b"\x11" + flags + struct.pack("<I", size) + properties] = np.dtype(f"<f{size}")
    for size in (1, 2, 4, 8):
        for kind, signed in (("u", 0), ("i", 8)):
            start = bytes((0x10, signed, 0, 0)) + struct.pack("<I", size)
            result[start + struct.pack("<HH", 0, 8 * size)] = np.dtype(f"<{kind}{size}")
    return result


_NUMBERS = _number_types()


class _Plain:
    def __init__(self, window: Window) -> None:
        self.blocks = hdf5text.Blocks(window, _LARGEST)
        self.source, self.offset, self.size = window.source, window.offset, window.size
        self.heaps = hdf5text.Heaps(self.blocks)
        self.tensors: dict[str, Tensor] = {}
        self.attributes: dict[str, Attributes] = {}
        self.groups: set[str] = set()
        self.seen: set[int] = set()
        self.stored = self.leaf = self.inner = 0
        self.objects, self.depth = limits.HDF5_OBJECTS.value, limits.HDF5_DEPTH.value
        self.longest, self.rank = limits.PATH_LENGTH.value, limits.RANK.value
        self.largest = limits.TENSOR_BYTES.value

    def tree(self) -> Tree:
        signature, *versions, leaf, inner, flags, base, free, end, driver = _SUPERBLOCK.unpack(
            self.blocks.at(0, _SUPERBLOCK.size)
        )
        if signature != SIGNATURE or tuple(versions) != _VERSIONS or flags or base:
            raise Unfamiliar
        if (free, driver) != (_UNDEFINED, _UNDEFINED):
            raise Unfamiliar
        if end > self.size:
            raise self.blocks.truncated(end)
        self.size, self.leaf, self.inner = end, 2 * leaf, 2 * inner
        _, address, kind, cached = _ENTRY.unpack(self.blocks.at(_SUPERBLOCK.size, _ENTRY.size))
        self.item((address, kind, cached), "", 0)
        if "" not in self.groups:
            raise Unfamiliar
        return Tree(self.tensors, self.attributes, frozenset(self.groups))

    def item(self, entry: Entry, path: str, depth: int) -> None:
        address, kind, cached = entry
        if address in self.seen or depth > self.depth or len(self.seen) > self.objects or kind > 1:
            raise Unfamiliar
        self.seen.add(address)
        parts: dict[int, bytes] = {}
        attributes: list[bytes] = []
        for number, data in self.messages(address):
            if number == _ATTRIBUTE:
                attributes.append(data)
            elif parts.setdefault(number, data) is not data:
                raise Unfamiliar
        if parts.keys() == {_SYMBOL_TABLE}:
            if kind and cached != parts[_SYMBOL_TABLE]:
                raise Unfamiliar
            self.group(parts[_SYMBOL_TABLE], attributes, path, depth)
        elif parts.keys() == {_DATASPACE, _DATATYPE, _DATA_LAYOUT} and not kind:
            self.tensors[path] = self.dataset(parts)
        else:
            raise Unfamiliar

    def messages(self, address: int) -> Iterator[Message]:
        """Yield the messages of an object's header, but those that say nothing here."""
        version, count, references, size = _HEADER.unpack(self.blocks.at(address, _HEADER.size))
        if version != 1 or references != 1:
            raise Unfamiliar
        blocks = [(address + _HEADER.size, size)]
        for start, length in blocks:
            data, position = self.blocks.at(start, length), 0
            while position < length:
                kind, size, flags = _MESSAGE.unpack_from(data, position)
                position += _MESSAGE.size
                body, position, count = data[position : position + size], position + size, count - 1
                if flags & ~_HARMLESS or size % 8 or position > length or count < 0:
                    raise Unfamiliar
                if kind == _CONTINUED:
                    blocks.append(_PAIR.unpack(body))
                elif kind not in _PASSED_BY:
                    yield kind, body
                elif not body.startswith(_PASSED_BY[kind]) or (kind == _FILL and not _fits(body)):
                    raise Unfamiliar
        if count:
            raise Unfamiliar

    def group(self, table: bytes, attributes: list[bytes], path: str, depth: int) -> None:
        self.groups.add(path)
        found = dict(sorted(hdf5text.attributes(attributes, self.heaps)))
        if found:
            self.attributes[path] = found
        tree, heap = _PAIR.unpack(table)
        last = b""
        for name, entry in self.entries(tree, None, self.names(heap)):
            if name <= last or name == b"." or b"/" in name:  # sorted, and each stands once
                raise Unfamiliar
            last = name
            here = f"{path}/{name_text(name)}" if path else name_text(name)
            if len(here) > self.longest or here in self.tensors or here in self.groups:
                raise Unfamiliar
            self.item(entry, here, depth + 1)

    def names(self, address: int) -> bytes:
        """Return the bytes of a heap of names, whose free places are chained in it."""
        signature, version, size, free, start = _HEAP.unpack(self.blocks.at(address, _HEAP.size))
        if signature != b"HEAP" or version != 0 or self.blocks.visit(start):
            raise Unfamiliar
        names, room = self.blocks.at(start, size), size
        while free != _NO_MORE:
            following, length = _PAIR.unpack_from(names, min(free, size))
            room -= length
            if length < _PAIR.size or free + length > size or room < 0:
                raise Unfamiliar
            free = following
        return names

    def entries(
        self, address: int, level: int | None, names: bytes
    ) -> Iterator[tuple[bytes, Entry]]:
        """Yield the entries of a group by name. Each child's names lie between two keys."""
        head = self.blocks.at(address, _TREE.size)
        signature, kind, found, used, _, _ = _TREE.unpack(head)
        is_next = found <= _DEEPEST if level is None else found == level - 1
        if signature != b"TREE" or kind != 0 or not is_next or used > self.inner:
            raise Unfamiliar
        room = _TREE.size + _KEY.size * (2 * self.inner + 1)  # the library reads a node as a whole
        if self.blocks.visit(address) or address + room > self.size:
            raise Unfamiliar
        size = _KEY.size * (2 * used + 1)
        keys = [key for (key,) in _KEY.iter_unpack(self.blocks.at(address + _TREE.size, size))]
        low = _name(names, keys[0])
        for child, key in zip(keys[1::2], keys[2::2], strict=True):
            high = _name(names, key)
            inside = self.entries(child, found, names) if found else self.symbols(child, names)
            for name, entry in inside:
                if not low < name <= high:
                    raise Unfamiliar
                yield name, entry
            low = high

    def symbols(self, address: int, names: bytes) -> Iterator[tuple[bytes, Entry]]:
        signature, version, count = _SYMBOLS.unpack(self.blocks.at(address, _SYMBOLS.size))
        if signature != b"SNOD" or version != 1 or count > self.leaf:
            raise Unfamiliar
        room = _SYMBOLS.size + self.leaf * _ENTRY.size
        if self.blocks.visit(address) or address + room > self.size:
            raise Unfamiliar
        data = self.blocks.at(address + _SYMBOLS.size, count * _ENTRY.size)
        for name, header, kind, cached in _ENTRY.iter_unpack(data):
            yield _name(names, name), (header, kind, cached)

    def dataset(self, parts: dict[int, bytes]) -> Tensor:
        dtype, shape = _dtype(parts[_DATATYPE]), self.shape(parts[_DATASPACE])
        version, kind, address, size = _LAYOUT.unpack_from(parts[_DATA_LAYOUT])
        declared = math.prod(shape) * dtype.itemsize
        if version != 3 or kind != _CONTIGUOUS or not 0 < declared == size <= self.largest:
            raise Unfamiliar
        self.stored += size
        if address + size > self.size or self.stored > self.size:
            raise Unfamiliar
        return FileTensor(self.source, self.offset + address, shape, dtype)

    def shape(self, data: bytes) -> tuple[int, ...]:
        version, rank, flags = _SPACE.unpack_from(data)
        if version != 1 or rank > self.rank or flags > 1:
            raise Unfamiliar
        sizes = struct.unpack_from(f"<{rank << flags}Q", data, _SPACE.size)
        if sizes[rank:] not in ((), sizes[:rank]):  # the largest it may grow to
            raise Unfamiliar
        return sizes[:rank]


def _fits(fill: bytes) -> bool:
    """Whether a fill value (IV.A.2.f), if there is one, lies within its message."""
    is_defined, size = _FILL_SIZE.unpack_from(fill)
    return not is_defined or (is_defined == 1 and bool(size <= len(fill) - _FILL_SIZE.size))


def _dtype(data: bytes) -> DType:
    # A message is padded with zeros to a multiple of eight bytes.
    for length in (12, 20):
        known = _NUMBERS.get(data[:length])
        if known is not None and not any(data[length:]):
            return known
    raise Unfamiliar


def _name(names: bytes, offset: int) -> bytes:
    end = names.find(b"\0", offset) if offset < len(names) else -1
    if end < 0:
        raise Unfamiliar
    return names[offset:end]
