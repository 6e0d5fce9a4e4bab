"""Texts of any length in the attributes of HDF5 objects, read without the library.

The library believes the length of a text before it looks at the text, and makes room for it: four
gigabytes for a name; and it reads one text of a megabyte a thousand times where a thousand entries
share it. So it only says which attributes there are, and the texts are read here. Offsets are those
of "HDF5 File Format Specification Version 3.0".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from lstmconvert import limits
from lstmconvert.files import Window
from lstmconvert.keras import hdf5text
from lstmconvert.keras.hdf5guard import Guarded
from lstmconvert.keras.hdf5text import Unfamiliar

_OLD, _OLD_MESSAGE = struct.Struct("<BxHIIxxxx"), struct.Struct("<HHBxxx")  # IV.A.1.a
_NEW, _NEW_MESSAGE = struct.Struct("<4sBB"), struct.Struct("<BHB")  # IV.A.1.b
_TIMES, _PHASES, _ORDER = 0x20, 0x10, 0x04
_CHECKSUM, _SIGNATURE = 4, 4
_PAIR = struct.Struct("<QQ")
_ATTRIBUTE, _CONTINUED = 12, 16
_SHARED = 2
#: Where an attribute's name stands in its message: version 3, and 1.
_NAME_AT = (9, 8)
_VARIABLE, _TEXT = 9, 1
#: So many bytes are searched in all: more than the heaps of a thousand objects.
_SEARCHED = 256 * limits.MIB

Message = tuple[int, int, bytes]


class Headers:
    """The attribute messages of objects.

    Args:
        window: what the library reads, too.
    """

    def __init__(self, window: Guarded) -> None:
        base, self._window = window.base, window
        inner = Window(window.source, window.offset + base, window.size - base)
        self._blocks = hdf5text.Blocks(inner, limits.ATTRIBUTE_BYTES.value)
        self._heaps = hdf5text.Heaps(self._blocks)
        self._left = _SEARCHED
        self._known: tuple[int, dict[bytes, bytes]] = (-1, {})

    def texts(self, address: int, name: bytes) -> str | list[str]:
        """Return the texts of an attribute of the object whose header lies at an address.

        Raises:
            Unfamiliar: it is not found, or holds more than the file.
            CorruptFile: a text is longer than its place.
        """
        if self._known[0] != address:
            self._known = address, dict(self._attributes(address))
        message = self._known[1].get(name)
        return self._read(self._apart(name) if message is None else message)

    def _attributes(self, address: int) -> Iterator[tuple[bytes, bytes]]:
        for kind, flags, body in self._messages(address):
            if kind == _ATTRIBUTE and not flags & _SHARED:
                yield hdf5text.parts(body)[0], body

    def _messages(self, address: int) -> Iterator[Message]:
        head = self._blocks.at(address, _OLD.size)
        new = head.startswith(b"OHDR")
        start, size, ordered = self._first(address) if new else (
            address + _OLD.size, _OLD.unpack(head)[3], False
        )  # fmt: skip
        blocks, known = [(start, size)], set()
        for start, size in blocks:
            if start in known:
                raise Unfamiliar
            known.add(start)
            data = self._blocks.at(start, size)
            for kind, flags, body in _split(data, new, ordered):
                if kind == _CONTINUED:
                    place, length = _PAIR.unpack_from(body)
                    inside = (place + _SIGNATURE, length - _SIGNATURE - _CHECKSUM)
                    blocks.append(inside if new else (place, length))
                else:
                    yield kind, flags, body

    def _first(self, address: int) -> tuple[int, int, bool]:
        _, _, flags = _NEW.unpack(self._blocks.at(address, _NEW.size))
        start = address + _NEW.size + 16 * bool(flags & _TIMES) + 4 * bool(flags & _PHASES)
        width = 1 << (flags & 3)
        size = int.from_bytes(self._blocks.at(start, width), "little")
        return start + width, size, bool(flags & _ORDER)

    def _apart(self, name: bytes) -> bytes:
        """Find an attribute that is kept in a heap of its object: among the bytes just read."""
        found: dict[tuple[bytes, ...], bytes] = {}
        for start, length in self._window.reads:
            self._left -= length
            if self._left < 0:
                raise Unfamiliar
            data = self._window.bytes_at(start, length)
            at = data.find(name + b"\0")
            while at >= 0:
                for before in _NAME_AT:
                    parts = _parts_of(data[max(0, at - before) :], name)
                    if parts is not None:
                        found[parts] = data[at - before :]
                at = data.find(name + b"\0", at + 1)
        if len(found) != 1:
            raise Unfamiliar
        return next(iter(found.values()))

    def _read(self, message: bytes) -> str | list[str]:
        _, datatype, space, value = hdf5text.parts(message)
        shape = hdf5text.shape_of(space)
        if shape is None or datatype[0] & 0xF != _VARIABLE or datatype[1] & 0xF != _TEXT:
            raise Unfamiliar
        size = math.prod(shape) * hdf5text.REFERENCE.size
        if size > len(value):
            raise Unfamiliar
        found = hdf5text.REFERENCE.iter_unpack(value[:size])
        texts = [hdf5text.name_text(self._heaps.text(one).partition(b"\0")[0]) for one in found]
        return texts if shape else texts[0]


def _split(data: bytes, new: bool, ordered: bool) -> Iterator[Message]:
    head = _NEW_MESSAGE if new else _OLD_MESSAGE
    before, position = head.size + 2 * ordered, 0
    while position + before <= len(data):  # the rest of a new one is a gap
        kind, size, flags = head.unpack_from(data, position)
        position += before
        if position + size > len(data):
            raise Unfamiliar
        yield kind, flags, data[position : position + size]
        position += size


def _parts_of(data: bytes, name: bytes) -> tuple[bytes, ...] | None:
    try:
        found, datatype, space, value = hdf5text.parts(data)
        shape = hdf5text.shape_of(space)
    except (Unfamiliar, struct.error):
        return None
    if found != name or shape is None or datatype[0] & 0xF != _VARIABLE:
        return None
    return datatype, space, value[: math.prod(shape) * hdf5text.REFERENCE.size]
