"""The bytes, and the text attributes, of plain HDF5 files: what `hdf5plain` is built on."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files import Window

SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: The latest blocks of the file are kept: groups and their headers lie near each other.
_BLOCK, _BLOCKS = 1 << 16, 16

_ATTRIBUTE = struct.Struct("<BBHHH")  # IV.A.2.m
_HEAP = struct.Struct("<4sB3xQ")  # III.E, and an object in it
_OBJECT = struct.Struct("<HH4xQ")
REFERENCE = struct.Struct("<IQI")  # VIII.B: length, collection, object
_SIZE, _SPACE = struct.Struct("<4xI"), struct.Struct("<4B")
#: A datatype's first byte (IV.A.2.d): its version and, in the lower half, its class.
_VERSION_1 = 0x10
_FIXED_TEXT, _VARIABLE = 3, 9
_NUMBERS = (0, 1)


class Unfamiliar(Exception):
    """The file is not as Keras writes it: the HDF5 library reads it, or says what is wrong."""


def signatures(window: Window) -> Iterator[int]:
    """Yield where in a window an HDF5 file may begin: at 0, or behind a user block (II.A)."""
    start = 0
    while start + len(SIGNATURE) <= window.size:
        if window.source.read_at(window.offset + start, len(SIGNATURE)) == SIGNATURE:
            yield start
        start = start * 2 or 512


class Blocks:
    """A file's bytes, read in blocks.

    Args:
        window: where the file lies.
        largest: how many bytes may be asked for at once.
    """

    def __init__(self, window: Window, largest: int) -> None:
        self._window, self._largest, self.size = window, largest, window.size
        # Whoever asks for the same bytes again and again follows a file that was made for it.
        self._left = 2 * window.size + _BLOCK
        self._kept: dict[int, bytes] = {}
        self._visited: set[int] = set()

    def at(self, address: int, length: int) -> bytes:
        """Return the bytes at an address.

        Raises:
            Unfamiliar: the file ends before, or it is more than is read at once.
        """
        self.spend(length)
        if length > self._largest or address + length > self._window.size:
            raise Unfamiliar
        number, start = divmod(address, _BLOCK)
        if start + length <= _BLOCK:
            block = self._kept.get(number) or self._block(number)
            return block[start : start + length]
        return bytes(self._window.source.read_at(self._window.offset + address, length))

    def _block(self, number: int) -> bytes:
        if len(self._kept) == _BLOCKS:
            del self._kept[next(iter(self._kept))]
        begin = number * _BLOCK
        length = min(_BLOCK, self._window.size - begin)
        block = bytes(self._window.source.read_at(self._window.offset + begin, length))
        self._kept[number] = block
        return block

    def spend(self, length: int) -> None:
        """Count bytes that were asked for.

        Raises:
            Unfamiliar: they are twice what the file holds.
        """
        self._left -= length
        if self._left < 0:
            raise Unfamiliar

    def damaged(self, reason: str) -> CorruptFile:
        """Return the error of a file that no reader can make sense of."""
        return CorruptFile(
            f"HDF5 cannot read it: {reason}",
            where=self._window.source.path,
            hint="the file is damaged: copy or download it again",
        )

    def truncated(self, end: int) -> CorruptFile:
        """Return the error of a file that should be longer."""
        return CorruptFile(
            "HDF5 cannot read it: the file is truncated",
            where=self._window.source.path,
            found=f"{self._window.size:,} bytes",
            expected=f"{end:,}",
            hint="copy or download it again",
        )

    def visit(self, address: int) -> bool:
        """Whether a node has been visited before."""
        known = address in self._visited
        self._visited.add(address)
        return known


class Heaps:
    """The global heaps, where texts of any length lie."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._found: dict[int, dict[int, bytes]] = {}

    def text(self, reference: tuple[int, int, int]) -> bytes:
        """Return the text that a length, a heap's address and a number in it refer to."""
        length, address, number = reference
        if length > self._blocks.size:
            raise self._blocks.damaged("a text is longer than the file")
        if address not in self._found:
            self._found[address] = self._objects(address)
        data = self._found[address].get(number)
        if data is not None and length > len(data):
            raise self._blocks.damaged("a text is longer than its place")
        if data is None or len(data) != length:
            raise Unfamiliar
        self._blocks.spend(length)
        return data

    def _objects(self, address: int) -> dict[int, bytes]:
        signature, version, size = _HEAP.unpack(self._blocks.at(address, _HEAP.size))
        if signature != b"GCOL" or version != 1:
            raise Unfamiliar
        data, position = self._blocks.at(address, size), _HEAP.size
        found: dict[int, bytes] = {}
        while position + _OBJECT.size <= size:
            number, _, length = _OBJECT.unpack_from(data, position)
            if number == 0:  # what is free, to the end
                if length != size - position:
                    raise Unfamiliar
                break
            position += _OBJECT.size
            if position + length > size or number in found:
                raise Unfamiliar
            found[number] = data[position : position + length]
            position += -(-length // 8) * 8
        return found


def attributes(messages: list[bytes], heaps: Heaps) -> Iterator[tuple[str, str | list[str]]]:
    """Yield the text attributes among some attribute messages, and those that hold nothing."""
    names = set()
    for data in messages:
        name, datatype, space, value = parts(data)
        if name in names:
            raise Unfamiliar
        names.add(name)
        shape = shape_of(space)
        if shape is None:
            continue
        (size,) = _SIZE.unpack_from(datatype)
        count = math.prod(shape)
        if size * count > min(limits.ATTRIBUTE_BYTES.value, len(value)):
            raise Unfamiliar
        if datatype[0] - _VERSION_1 in _NUMBERS and size * count:
            continue
        texts = [name_text(item) for item in _texts(datatype, size, count, value, heaps)]
        yield name_text(name), texts if shape else texts[0]


def parts(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return an attribute's name, datatype, dataspace and value."""
    version, flags, *sizes = _ATTRIBUTE.unpack_from(data)
    if version not in (1, 3) or flags:
        raise Unfamiliar
    position = _ATTRIBUTE.size + (version == 3)
    parts = []
    for size in sizes:
        if position + size > len(data):
            raise Unfamiliar
        parts.append(data[position : position + size])
        position += size if version == 3 else -(-size // 8) * 8
    name, datatype, space = parts
    if not name.endswith(b"\0") or b"\0" in name[:-1] or len(datatype) < 8:
        raise Unfamiliar
    return name[:-1], datatype, space, data[position:]


def shape_of(space: bytes) -> tuple[int, ...] | None:
    """Return a dataspace's shape; None if it holds nothing and has no shape."""
    version, rank, flags, kind = _SPACE.unpack_from(space)
    if version == 1 and flags <= 1:
        start = 8
    elif version == 2 and flags <= 1 and kind <= 2:
        start = 4
        if kind == 2:
            return None
    else:
        raise Unfamiliar
    if rank > limits.RANK.value:
        raise Unfamiliar
    return struct.unpack_from(f"<{rank}Q", space, start)


def _texts(datatype: bytes, size: int, count: int, value: bytes, heaps: Heaps) -> Iterator[bytes]:
    kind = datatype[0] - _VERSION_1
    if kind == _FIXED_TEXT:
        for index in range(count):
            yield value[index * size : (index + 1) * size].rstrip(b"\0")
    elif kind == _VARIABLE and size == REFERENCE.size and datatype[1] & 0xF == 1:
        for reference in REFERENCE.iter_unpack(value[: count * size]):
            yield heaps.text(reference).partition(b"\0")[0]
    elif count:
        raise Unfamiliar


def name_text(name: bytes) -> str:
    """Decode a name, keeping what is no UTF-8 apart."""
    return name.decode("utf-8", "backslashreplace")
