"""The bytes that the HDF5 library gets to see, and a look at its structures before it does.

The library follows what a file says: a chain of free places that is a ring, a heap whose last place
is of no size, a tree that grows out of itself keep it busy for ever, or overrun its stack. It reads
each structure from its first byte on, so that it can be checked as it is read. Offsets are those of
"HDF5 File Format Specification Version 3.0".
"""

from __future__ import annotations

import io
import struct

from lstmconvert.files import Window
from lstmconvert.keras.hdf5text import signatures
from lstmconvert.tensors import SourceFile

_SIZE, _PAIR = struct.Struct("<Q"), struct.Struct("<QQ")
_OBJECT, _HEAP_HEADER = struct.Struct("<H6xQ"), 16  # III.E
_NAMES = struct.Struct("<8xQQQ")  # III.D: size, first free place, where they are
_NO_MORE = 1
_TREE, _TREE_HEADER = struct.Struct("<4sBBH"), 24  # III.A.1
_GROUPS, _CHUNKS, _POINTER = 0, 1, 8


class Guarded(Window):
    """A window that gives HDF5 all the bytes it asks for, or an error.

    h5py ignores a short read and goes on with whatever the buffer held.

    Fields: `base`, where addresses count from; `key`, the size of a key in the tree of chunks that
    is read next; `reads`, the places that were read since the list was last cleared.
    """

    def __init__(self, source: SourceFile, offset: int, size: int | None) -> None:
        super().__init__(source, offset, size)
        self.base = next(signatures(self), 0)
        self.key = 0
        self.reads: list[tuple[int, int]] = []
        self._walking = True
        self._checked: set[int] = set()
        self._children: set[int] = set()
        self._checks = {
            b"GCOL": self._texts, b"HEAP": self._names, b"TREE": self._tree, b"MDCI": self._image
        }  # fmt: skip

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:  # the short way: 10,000 layers take 200,000 calls
            self._position = offset
            return offset
        return super().seek(offset, whence)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed: any buffer
        count, start = len(view), self._position
        if count > self.size - start:
            raise OSError("the file ends before its data")
        self.source.read_into(view, self.offset + start)
        self._position += count
        if self._walking:
            self.reads.append((start, count))
        check = self._checks.get(bytes(view[:4]))
        if check is not None and start not in self._checked:
            self._checked.add(start)
            try:
                check(view)
            except struct.error:
                raise OSError("a structure that is cut off") from None
        return count

    def walked(self) -> None:
        """Check nothing but heaps of texts from now on: data may begin as a structure does."""
        self._walking, self._checks = False, {b"GCOL": self._texts}
        self.reads.clear()

    def bytes_at(self, start: int, length: int) -> bytes:
        """Read on our own account."""
        if start + length > self.size:
            raise OSError("the file ends before its data")
        return bytes(self.source.read_at(self.offset + start, length))

    def _texts(self, view: memoryview) -> None:
        """Check that a global heap has an end."""
        (size,) = _SIZE.unpack_from(view, _HEAP_HEADER - _SIZE.size)
        heap = self.bytes_at(self._position - len(view), size)
        offset = _HEAP_HEADER
        while offset <= size - _HEAP_HEADER:
            index, length = _OBJECT.unpack_from(heap, offset)
            # The size of free space, object 0, counts its header; other objects are padded.
            step = length if index == 0 else _HEAP_HEADER + -(-length // 8) * 8
            if step < _HEAP_HEADER or step > size - offset:
                raise OSError("a heap whose objects do not fit into it")
            offset += step

    def _names(self, view: memoryview) -> None:
        """Check that the chain of free places in a heap of names has an end."""
        size, free, address = _NAMES.unpack_from(view)
        room = size
        if self.base + address + size > self.size:
            raise OSError("a heap of names behind the end of the file")
        known: set[int] = set()
        while free != _NO_MORE:
            if free > size or free in known:
                raise OSError("a heap of names whose free places have no end")
            known.add(free)
            following, length = _PAIR.unpack(self.bytes_at(self.base + address + free, _PAIR.size))
            room -= length
            if length < _PAIR.size or room < 0:
                raise OSError("a heap of names whose free places have no end")
            free = following

    def _tree(self, view: memoryview) -> None:
        """Check that a tree's node has children one level below it, and that no other has them."""
        _, kind, level, used = _TREE.unpack_from(view)
        key = _SIZE.size if kind == _GROUPS else self.key
        step = key + _POINTER
        if kind > _CHUNKS or _TREE_HEADER + used * step + key > len(view):
            raise OSError("a tree with a node that is fuller than it can be")
        if level == 0 and kind == _CHUNKS:
            return
        below = _TREE.pack(b"TREE", kind, level - 1, 0)[:6] if level else b"SNOD"
        for index in range(used):
            (child,) = _SIZE.unpack_from(view, _TREE_HEADER + key + index * step)
            if child in self._children or self.bytes_at(self.base + child, len(below)) != below:
                raise OSError("a tree with a branch that is none, or that grows in two places")
            self._children.add(child)

    def _image(self, _: memoryview) -> None:
        raise OSError("structures kept in a cache's image, as Keras never writes")
