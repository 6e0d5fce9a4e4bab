"""MATLAB's `.mat`, level 5: each layer a struct, whose fields are its arrays or structs of them.

`lstm.forward.Bias` is the field `Bias` of the struct `forward` in the struct `lstm`. SciPy writes
it; our metadata are a variable of bytes. The date in the file's head is left out, so that the same
input gives the same bytes.

We read the elements of a file ourselves: SciPy's reader is C code that trusts them, and a damaged
tag makes it read outside its tables.

    a head of 128 bytes, its last two the byte order · elements: u32 type, u32 bytes, the data
    (up to 4 bytes of data are in the tag itself: u16 bytes, u16 type) · padded to 8 bytes

A compressed element is a zlib stream of one other. A matrix is an element of elements: flags with
its class, dimensions, name, and the numbers in column order, which may be stored as narrower
integers than its class; or, of a struct, the width of a field's name, the names, a matrix for each.
("MAT-File Format", MathWorks, chapter 1: tables 1-1 to 1-3; scipy/io/matlab/_mio5_params.py.)
Other classes (texts, cells, sparse, objects, functions) are skipped.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.containers.table import SAVE_IN_MATLAB
from lstmconvert.errors import (
    CorruptFile,
    MissingPackage,
    SourceError,
    UnsupportedByTarget,
    install,
)
from lstmconvert.files.jsontext import canonical, parse_object
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import ArrayTensor, SourceFile, Tensor

#: How a file of version 7.3 begins, which is HDF5.
_HDF5 = b"MATLAB 7.3"
_TEXT = b"MATLAB 5.0 MAT-file, written by lstmconvert"
_TEXT_BYTES = 116
_DTYPES = ("float32", "float64")


def _scipy() -> Any:
    try:
        from scipy import io as scipy_io
    except ImportError:
        raise MissingPackage(
            "SciPy writes .mat files, and is not installed",
            hint=install("matlab"),
        ) from None
    return scipy_io


def read(file: Opened) -> Arrays:
    """Read a file's real arrays, those in structs by dotted names, and our metadata.

    Raises:
        SourceError: it is of version 7.3.
        CorruptFile, LimitExceeded: see `arrays`.
    """
    source = file.source
    if file.head.startswith(_HDF5):
        raise SourceError(
            "a .mat file of version 7.3, which is not read",
            where=source.path,
            expected="version 5 to 7",
            hint=SAVE_IN_MATLAB,
        )
    variables = arrays(source)
    text = variables.pop(metadata.KEY, None)
    tensors: dict[str, Tensor] = {name: ArrayTensor(array) for name, array in variables.items()}
    if text is None:
        return Arrays(tensors, {})
    value = parse_object(text.tobytes(), f"{source.path}: {metadata.KEY}")
    return Arrays(tensors, {metadata.KEY: canonical(value)})


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        MissingPackage: SciPy is not installed.
        UnsupportedByTarget: a name, dtype or rank that MATLAB does not have.
    """
    scipy_io = _scipy()
    tree: dict[str, Any] = {}
    for name, tensor in content.tensors.items():
        *folders, last = _words(name)
        if tensor.dtype.name not in _DTYPES:
            raise _refused(name, "dtype", tensor.dtype.name, ", ".join(_DTYPES))
        if len(tensor.shape) != 2:
            raise _refused(name, "rank", str(tensor.shape), "two axes")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = tensor.read()
    if metadata.KEY in tree:
        raise _refused(metadata.KEY, "name", metadata.KEY, "another: it is the metadata's")
    final = content.metadata()
    if metadata.KEY in final:
        tree[metadata.KEY] = np.frombuffer(final[metadata.KEY].encode(), np.uint8)[None]
    with open(path, "wb") as file:
        scipy_io.savemat(file, tree, long_field_names=True)
        file.seek(0)
        file.write(_TEXT.ljust(_TEXT_BYTES))


def _words(name: str) -> list[str]:
    words = name.split(".")
    if not all(NAME.fullmatch(word) for word in words):
        raise _refused(name, "name", name, "letters, digits and underlines, 63 at most")
    return words


def _refused(name: str, option: str, found: str, expected: str) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        f"MATLAB has no such {option} here",
        where=name,
        option=option,
        target="mat",
        found=found,
        expected=expected,
        hint="--bare leaves the layer's name away" if option == "name" else None,
    )


HEAD = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
_LEVEL = 0x0100
#: Table 1-1: types of data.
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 14, 15, 16
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"
}  # fmt: skip
#: Table 1-3: classes of arrays.
_STRUCT = 2
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"
}  # fmt: skip
#: A bit of the flags.
_COMPLEX = 0x0800
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


class _Element(NamedTuple):
    kind: int
    data: memoryview


class _Reader:
    def __init__(self, order: str, where: object) -> None:
        self.order, self.where = order, where
        self.variables: dict[str, Array] = {}
        self._seen = 0

    def error(self, message: str, found: object = None, expected: str | None = None) -> CorruptFile:
        return CorruptFile(
            f"not MATLAB's: {message}", where=self.where, found=found, expected=expected
        )

    def numbers(self, form: str, data: memoryview) -> tuple[int, ...]:
        values: tuple[int, ...] = struct.unpack(f"{self.order}{form}", data)
        return values

    def elements(self, data: memoryview) -> Iterator[_Element]:
        """Yield the elements that fill `data`."""
        while data:
            element, size = self.first(data)
            yield element
            data = data[size:]

    def first(self, data: memoryview) -> tuple[_Element, int]:
        """Return the element that begins here, and how many bytes it takes."""
        if len(data) < 8:
            raise self.error("an element is truncated", f"{len(data)} bytes", "8 at least")
        kind, size = self.numbers("II", data[:8])
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise self.error("a short element is too long", f"{size} bytes", "4 at most")
            return _Element(kind, data[4 : 4 + size]), 8
        if size > len(data) - 8:
            raise self.error("an element is truncated", f"{len(data) - 8} bytes", f"{size}")
        return _Element(kind, data[8 : 8 + size]), 8 + size + -size % 8

    def take(self, parts: Iterator[_Element], what: str, kinds: set[int]) -> memoryview:
        """Return the data of the next element, which must be of one of these types."""
        part = next(parts, None)
        if part is None or part.kind not in kinds:
            raise self.error(f"an array without its {what}", None if part is None else part.kind)
        return part.data

    def matrix(self, data: memoryview, path: str | None, depth: int) -> None:
        """Take the numbers of an array, which has a name of its own unless it is a field."""
        limits.TREE_DEPTH.check(depth, self.where, "the depth of its structs")
        self._seen += 1
        limits.ARRAYS.check(self._seen, self.where, "the number of arrays")
        parts = self.elements(data)
        flags = self.take(parts, "flags", {_UINT32})
        if len(flags) != 8:
            raise self.error("an array without its flags", f"{len(flags)} bytes", "8")
        word, _ = self.numbers("II", flags)
        kind = word & 0xFF
        if kind != _STRUCT and (kind not in _CLASSES or word & _COMPLEX):
            return
        shape = self.shape(self.take(parts, "dimensions", {_INT32, _UINT32}))
        stored_name = self.text(self.take(parts, "name", {_INT8, _UTF8}))
        name = stored_name if path is None else path
        if not name:  # MATLAB's own workspace of functions
            return
        if kind == _STRUCT:
            self.fields(parts, name, shape, depth)
            return
        if not all(NAME.fullmatch(word) for word in name.split(".")) or name in self.variables:
            raise self.error("a name that no variable has, or has twice", repr(name)[:80])
        self.variables[name] = self.array(parts, shape, np.dtype(_CLASSES[kind]), name)

    def shape(self, data: memoryview) -> tuple[int, ...]:
        rank = len(data) // 4
        limits.RANK.check(rank, self.where, "the number of axes")
        shape = self.numbers(f"{rank}i", data[: 4 * rank])
        if rank < 2 or len(data) % 4 or min(shape) < 0:
            raise self.error("not the dimensions of an array", shape, "two or more")
        return shape

    def text(self, data: memoryview) -> str:
        try:
            return bytes(data).rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            raise self.error("a name that is not ASCII", repr(bytes(data[:40]))) from None

    def fields(
        self, parts: Iterator[_Element], name: str, shape: tuple[int, ...], depth: int
    ) -> None:
        if math.prod(shape) != 1:  # an array of structs is not a layer
            return
        width = self.take(parts, "width of field names", {_INT32})
        text = self.take(parts, "field names", {_INT8, _UTF8})
        (step,) = self.numbers("i", width) if len(width) == 4 else (0,)
        if step < 1 or len(text) % step:
            raise self.error("the field names of a struct are damaged", f"{len(text)} bytes")
        names = [self.text(text[at : at + step]) for at in range(0, len(text), step)]
        if len(set(names)) != len(names):
            raise self.error("two fields of one name", name)
        for field in names:
            data = self.take(parts, f"field {field!r}", {_MATRIX})
            if data:  # else it is []
                self.matrix(data, f"{name}.{field}", depth + 1)
        self.end(parts, name)

    def array(
        self, parts: Iterator[_Element], shape: tuple[int, ...], dtype: DType, name: str
    ) -> Array:
        part = next(parts, None)
        if part is None or part.kind not in _NUMBERS:
            raise self.error(f"no numbers in {name}", None if part is None else part.kind)
        stored = np.dtype(f"{self.order}{_NUMBERS[part.kind]}")
        size = math.prod(shape) * stored.itemsize
        limits.TENSOR_BYTES.check(size, self.where, "an array")
        if size != len(part.data):
            raise self.error(
                f"{name} is not as long as its shape says", f"{len(part.data)} bytes", f"{size}"
            )
        self.end(parts, name)
        values = np.frombuffer(part.data, stored).reshape(shape, order="F")
        if stored.newbyteorder("=") == dtype:
            return np.ascontiguousarray(values)
        with np.errstate(invalid="ignore", over="ignore"):
            wide = np.ascontiguousarray(values, dtype)
            exact = stored.kind != "f" and bool((wide.astype(stored) == values).all())
        if not exact:
            raise self.error(f"{name} is stored as {stored.name}", expected=dtype.name)
        return wide

    def end(self, parts: Iterator[_Element], name: str) -> None:
        if next(parts, None) is not None:
            raise self.error(f"more data in {name} than its class has")


def arrays(source: SourceFile) -> dict[str, Array]:
    """Return the real arrays of a file, those in structs by dotted names: C-contiguous.

    Raises:
        CorruptFile: an element does not say what MATLAB would, or is cut off.
        LimitExceeded: too many, too large, too deep, or compressed data that expands too far.
    """
    limits.TENSOR_BYTES.check(source.size, source.path, "its size")
    data = memoryview(bytes(source.read_at(0, source.size)))
    order = _ORDERS.get(bytes(data[HEAD - 2 : HEAD]))
    reader = _Reader(order or "<", source.path)
    if order is None or len(data) < HEAD or reader.numbers("H", data[124:126]) != (_LEVEL,):
        raise reader.error("no head of a file of level 5")
    expanded = stored = 0
    for element in _elements(reader, data[HEAD:]):
        if element.kind == _COMPRESSED:
            stored += len(element.data)
            inner = _expanded(reader, element.data, expanded, stored)
            expanded += len(inner)
            element, used = reader.first(memoryview(inner))
            if used != len(inner):
                raise reader.error("a compressed element of another length", len(inner), str(used))
        if element.kind != _MATRIX:
            raise reader.error("an element that is not an array", f"type {element.kind}")
        if element.data:
            reader.matrix(element.data, None, 0)
    return reader.variables


def _elements(reader: _Reader, rest: memoryview) -> list[_Element]:
    """Return the elements of a file. They are counted before one is read, which takes longer."""
    elements = []
    while rest:
        element, size = reader.first(rest)
        elements.append(element)
        limits.ARRAYS.check(len(elements), reader.where, "the number of arrays")
        rest = rest[8 + len(element.data) if element.kind == _COMPRESSED else size :]
    return elements


def _expanded(reader: _Reader, data: memoryview, before: int, stored: int) -> bytes:
    """Expand a stream, unless it and those before it expand too far."""
    stream, pieces, rest = zlib.decompressobj(), [], bytes(data)
    total = before
    try:
        while not stream.eof:
            piece = stream.decompress(rest, limits.BUFFER_BYTES)
            if not piece and not stream.eof:
                raise reader.error("a compressed element is cut off")
            pieces.append(piece)
            total += len(piece)
            limits.check_expansion(total, stored, reader.where)
            rest = stream.unconsumed_tail
    except zlib.error as error:
        raise reader.error(f"a compressed element is damaged: {error}"[:120]) from None
    if stream.unused_data:
        raise reader.error("bytes after a compressed element's end")
    return b"".join(pieces)
