"""Flax's `.msgpack`: a tree of dicts whose leaves are arrays, as `flax.serialization` writes it.

An array is an extension of type 1 that holds (shape, dtype's name, bytes), packed again; one above
2^30 bytes is a dict of flat chunks (flax/serialization.py). There is no place for metadata: Flax
gives back every key, and refuses a tree that has others than its module.

Every length is known before its bytes come, so that the numbers go through a few megabytes of
memory both ways. The library has to have all of a file in memory, and is not used. Bytes of the
format are those of its specification (github.com/msgpack/msgpack, spec.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.errors import CorruptFile, UsageError
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.streaming import pour, write_at
from lstmconvert.tensors.tensor import FileTensor, Shape, SourceFile, Tensor
from lstmconvert.tensors.views import Reshaped

_ARRAY = 1
_CHUNKED = "__msgpack_chunked_array__"
_CHUNK_BYTES = 1 << 30
_DTYPES = ("float32", "float64", "float16", "bfloat16")
_OTHERS = (
    "bool", "complex64", "complex128",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)  # fmt: skip


def read(file: Opened) -> Arrays:
    """Read a file's arrays, named by the dots between their keys. Numbers and texts are passed by.

    Raises:
        CorruptFile, LimitExceeded: it is not of this format, or too large.
    """
    source = file.source
    limits.TENSOR_BYTES.check(source.size, source.path, "the file's bytes")
    reader = _Reader(source, 0, source.size)
    tree = reader.value(0)
    if reader.at != source.size:
        raise reader.damaged("bytes behind the tree")
    if not isinstance(tree, dict):
        raise CorruptFile("no tree of arrays", where=source.path, found=type(tree).__name__)
    tensors: dict[str, Tensor] = {}
    for name, tensor in _leaves(tree, "", source.path):
        limits.ARRAYS.check(len(tensors) + 1, source.path, "the number of arrays")
        if name in tensors:
            raise CorruptFile("two arrays of one name", where=source.path, found=name)
        tensors[name] = tensor
    return Arrays(tensors, {})


def _leaves(tree: dict[str, Any], prefix: str, where: object) -> Iterator[tuple[str, Tensor]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and _CHUNKED in value:
            yield name, _joined(value, name, where)
        elif isinstance(value, dict):
            yield from _leaves(value, f"{name}.", where)
        elif isinstance(value, Tensor):
            yield name, value


def _joined(value: dict[str, Any], name: str, where: object) -> Tensor:
    match value:
        case {"shape": dict(shape), "chunks": dict(chunks)}:
            named = [shape.get(str(axis)) for axis in range(len(shape))]
            sizes = [size for size in named if isinstance(size, int) and size >= 0]
            stored = [chunks.get(str(index)) for index in range(len(chunks))]
            parts = [part for part in stored if isinstance(part, Tensor) and len(part.shape) == 1]
            is_complete = parts and len(parts) == len(stored) and len(sizes) == len(named)
            if is_complete and len({part.dtype for part in parts}) == 1:
                whole = _Joined(tuple(parts))
                if whole.size == prod(sizes):
                    return Reshaped(whole, tuple(sizes))
    raise CorruptFile("the chunks of an array do not fit it", where=f"{where}: {name}")


class _Joined(Tensor):
    """Vectors, one behind the other."""

    def __init__(self, parts: tuple[Tensor, ...]) -> None:
        self._parts = parts
        self.shape, self.dtype = (sum(part.size for part in parts),), parts[0].dtype

    def rows(self, start: int, stop: int) -> Array:
        return self.elements(start * self.size, stop * self.size).reshape(stop - start, self.size)

    def blocks(self, budget: int = limits.BUFFER_BYTES) -> Iterator[Array]:
        for part in self._parts:
            yield from part.blocks(budget)

    def elements(self, start: int, stop: int) -> Array:
        pieces, begin = [np.empty(0, self.dtype)], 0
        for part in self._parts:
            low, high = max(start - begin, 0), min(stop - begin, part.size)
            if low < high:
                pieces.append(part.elements(low, high))
            begin += part.size
        return np.concatenate(pieces)


# -- the format, read -----------------------------------------------------------------------------

#: First byte -> how a number, or the length of what follows, is stored behind it.
_NUMBERS = dict(zip(range(0xCA, 0xD4), map(struct.Struct, (
    ">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q",
)), strict=True))  # fmt: skip
_LENGTHS = dict(zip(
    (0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF),
    map(struct.Struct, (*(">B", ">H", ">I") * 3, *(">H", ">I") * 2)),
    strict=True,
))  # fmt: skip
_NIL, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3
_BINS, _EXTENSIONS, _FIXED = (0xC4, 0xC5, 0xC6), (0xC7, 0xC8, 0xC9), range(0xD4, 0xD9)
_LISTS, _MAPS = (0xDC, 0xDD), (0xDE, 0xDF)
#: The longest key, and name of a dtype, that is read.
_LONGEST_TEXT = 1 << 16
#: No more of a list is kept: the one that counts is a shape.
_LONGEST_LIST = 256


class _Bytes(NamedTuple):
    """Where bytes are."""

    offset: int
    size: int


class _Reader:
    """Reads values, one after the other.

    Args:
        source: the file.
        at, end: where the values begin and end.
    """

    def __init__(self, source: SourceFile, at: int, end: int) -> None:
        self.source, self.at, self._end = source, at, end
        self._seen, self._deepest = 0, limits.TREE_DEPTH.value

    def damaged(self, reason: str) -> CorruptFile:
        return CorruptFile(
            f"no msgpack of Flax: {reason}", where=self.source.path, expected="a tree of arrays"
        )

    def _take(self, size: int) -> bytearray:
        if size > self._end - self.at:
            raise self.damaged("it ends before what it begins")
        data = bytearray(size)
        self.source.read_near(memoryview(data), self.at)
        self.at += size
        return data

    def _skip(self, size: int) -> _Bytes:
        if size > self._end - self.at:
            raise self.damaged("it ends before what it begins")
        self.at += size
        return _Bytes(self.at - size, size)

    def value(self, depth: int) -> Any:
        """Return a value: a dict, a list, a text, a number, a `Tensor`, or where bytes are."""
        (first,) = self._take(1)
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first < 0x90:
            return self._map(first & 0xF, depth)
        if first < 0xA0:
            return self._list(first & 0xF, depth)
        if first < 0xC0:
            return self._text(first & 0x1F)
        if first in (_NIL, _FALSE, _TRUE):
            return None if first == _NIL else first == _TRUE
        if first in _NUMBERS:
            return _NUMBERS[first].unpack(self._take(_NUMBERS[first].size))[0]
        if first in _FIXED:
            return self._extension(1 << first - _FIXED.start)
        if first not in _LENGTHS:
            raise self.damaged(f"a value that begins with {first:#x}")
        (length,) = _LENGTHS[first].unpack(self._take(_LENGTHS[first].size))
        if first in _BINS:
            return self._skip(length)
        if first in _EXTENSIONS:
            return self._extension(length)
        if first in _LISTS:
            return self._list(length, depth)
        return self._map(length, depth) if first in _MAPS else self._text(length)

    def _text(self, length: int) -> str | None:
        if length > _LONGEST_TEXT:
            self._skip(length)
            return None
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise self.damaged("a text that is not UTF-8") from None

    def _begin(self, count: int, depth: int) -> None:
        """Count a dict or a list: a byte of the file is an object of sixty."""
        where = self.source.path
        if count > self._end - self.at:
            raise self.damaged("it ends before what it begins")
        if depth > self._deepest:
            limits.TREE_DEPTH.check(depth, where, "the depth of its dicts")
        limits.ARRAYS.check(count, where, "the number of a dict's entries")
        self._seen += 1
        limits.ARRAYS.check(self._seen, where, "the number of dicts")

    def _list(self, count: int, depth: int) -> list[Any]:
        self._begin(count, depth)
        items: list[Any] = []
        for _ in range(count):
            item = self.value(depth + 1)
            if len(items) < _LONGEST_LIST:
                items.append(item)
        return items

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        self._begin(count, depth)
        result: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str):
                raise self.damaged("a key that is not a text")
            if key in result:
                raise self.damaged(f"the key {key[:40]!r} appears twice")
            result[key] = self.value(depth + 1)
        return result

    def _extension(self, length: int) -> Tensor | None:
        (code,) = self._take(1)
        place = self._skip(length)
        return self._array(place) if code == _ARRAY else None

    def _array(self, place: _Bytes) -> Tensor:
        where = self.source.path
        inside = _Reader(self.source, place.offset, place.offset + place.size)
        match inside.value(0):
            case [[*sizes], str(name), _Bytes(offset, size)] if (
                inside.at == place.offset + place.size and all(type(s) is int for s in sizes)
            ):
                shape: Shape = tuple(sizes)
            case _:
                raise CorruptFile("not an array", where=where)
        if name not in _DTYPES and name not in _OTHERS:
            raise CorruptFile("an array of no numbers", where=where, found=name[:40])
        dtype = dtype_of(name)
        limits.RANK.check(len(shape), where, "the number of its axes")
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != size:
            raise CorruptFile(
                "the array's data is not as long as its shape says",
                where=where,
                found=f"{size} bytes",
                expected=f"{name}{shape}",
            )
        return FileTensor(self.source, offset, shape, dtype)


# -- the format, written --------------------------------------------------------------------------


class _Run(NamedTuple):
    """The numbers of a tensor from byte `start` on, `size` bytes of them."""

    name: str
    start: int
    size: int


def write(path: Path, content: Writing) -> None:
    """Write a file that `flax.serialization.msgpack_restore` reads.

    Raises:
        UsageError: a name is also a module of others.
    """
    tree: dict[str, Any] = {}
    for name in content.tensors:
        *folders, leaf = name.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise UsageError("an array has the name of a module", where=path, found=name)
        node[leaf] = _leaf(name, content.tensors[name])
    runs: dict[str, list[tuple[_Run, int]]] = {}
    with open(path, "wb") as file:
        end = 0
        for piece in _packed(tree):
            if isinstance(piece, bytes):
                file.seek(end)
                file.write(piece)
                end += len(piece)
            else:
                runs.setdefault(piece.name, []).append((piece, end))
                end += piece.size
        file.truncate(end)
        file.flush()

        def sink(name: str, offset: int, piece: Array) -> None:
            data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
            content.sums.add(name, data)
            for run, begin in runs[name]:
                low = max(run.start, offset)
                high = min(run.start + run.size, offset + data.nbytes)
                if low < high:
                    part = data[low - offset : high - offset]
                    write_at(file.fileno(), begin + low - run.start, part)

        pour(content.tensors.items(), sink)


class _Leaf(NamedTuple):
    """An array: its shape, its dtype's name, and its numbers."""

    shape: Shape
    dtype: str
    run: _Run


def _leaf(name: str, tensor: Tensor) -> Any:
    dtype = tensor.dtype.name
    if tensor.nbytes <= _CHUNK_BYTES:
        return _Leaf(tensor.shape, dtype, _Run(name, 0, tensor.nbytes))
    itemsize = tensor.dtype.itemsize
    step = _CHUNK_BYTES // itemsize
    chunks = [
        _Leaf((count,), dtype, _Run(name, start * itemsize, count * itemsize))
        for start in range(0, tensor.size, step)
        for count in [min(step, tensor.size - start)]
    ]
    return {
        _CHUNKED: True,
        "shape": {str(axis): size for axis, size in enumerate(tensor.shape)},
        "chunks": {str(number): chunk for number, chunk in enumerate(chunks)},
    }


def _packed(value: Any) -> Iterator[bytes | _Run]:
    """Yield the bytes of a value, and in their place the numbers of arrays."""
    if isinstance(value, dict):
        yield _head(len(value), 0x80, 15, (0xDE, 0xDF), (2, 4))
        for key, item in value.items():
            yield _text(key)
            yield from _packed(item)
    elif value is True:
        yield bytes([_TRUE])
    elif isinstance(value, int):
        yield _number(value)
    else:
        shape, dtype, run = value
        sizes = b"".join(map(_number, shape))
        before = b"\x93" + _head(len(shape), 0x90, 15, (0xDC, 0xDD), (2, 4)) + sizes
        before += _text(dtype) + _head(run.size, 0, -1, _BINS, (1, 2, 4))
        yield _extension(len(before) + run.size) + before
        yield run


def _head(
    length: int, short: int, most: int, codes: tuple[int, ...], widths: tuple[int, ...]
) -> bytes:
    """Return the shortest head for a length: in its first byte where it is at most `most`."""
    if length <= most:
        return bytes([short | length])
    for code, width in zip(codes, widths, strict=True):
        if length < 1 << 8 * width:
            return bytes([code]) + length.to_bytes(width, "big")
    raise UsageError("more than a msgpack can hold", found=f"{length:,}")


def _text(text: str) -> bytes:
    data = text.encode()
    return _head(len(data), 0xA0, 31, (0xD9, 0xDA, 0xDB), (1, 2, 4)) + data


def _number(number: int) -> bytes:
    return _head(number, 0, 127, (0xCC, 0xCD, 0xCE, 0xCF), (1, 2, 4, 8))


def _extension(length: int) -> bytes:
    if length.bit_count() == 1 and length <= 16:
        head = bytes([_FIXED.start + length.bit_length() - 1])
    else:
        head = _head(length, 0, -1, _EXTENSIONS, (1, 2, 4))
    return head + bytes([_ARRAY])
