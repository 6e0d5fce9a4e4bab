"""MXNet's `.params`: named arrays one after another, then their names.

    u64 0x112, u64 0 · u64 count · for each array: u32 0xf993fac9 (0xf993faca with NumPy's shapes),
    i32 storage, 0 for dense · i32 rank, i64 for each axis · i32 device, i32 number · i32 dtype ·
    the numbers · u64 count · for each name: u64 length, its bytes

(mxnet src/ndarray/ndarray.cc, `NDArray::Save`.) MXNet reads no further, so that our metadata have
a place at the end of the file.
"""

from __future__ import annotations

import struct
from functools import partial
from math import prod
from pathlib import Path

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.files.jsontext import canonical, parse_object
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import dtype_of
from lstmconvert.tensors.streaming import write_to
from lstmconvert.tensors.tensor import FileTensor, SourceFile, Tensor

SIGNATURE = struct.pack("<Q", 0x112)
_V2, _V3 = 0xF993FAC9, 0xF993FACA
#: mshadow/base.h, `TypeFlag`.
_DTYPES = {
    "float32": 0,
    "float64": 1,
    "float16": 2,
    "uint8": 3,
    "int32": 4,
    "int8": 5,
    "int64": 6,
    "bool": 7,
    "bfloat16": 12,
}
_NAMES = {number: name for name, number in _DTYPES.items()}
_CPU = (1, 0)


class _Cursor:
    """Reads little-endian numbers from one place after another."""

    def __init__(self, source: SourceFile) -> None:
        self.source, self.offset = source, 0

    def numbers(self, form: str) -> tuple[int, ...]:
        form = f"<{form}"
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def bytes(self, length: int) -> bytes:
        data = bytes(self.source.read_at(self.offset, length))
        self.offset += length
        return data


def read(file: Opened) -> Arrays:
    """Read a file's tensors, lazily, and its metadata.

    Raises:
        CorruptFile, LimitExceeded: it is truncated, too large or not of this format.
    """
    source = file.source
    cursor = _Cursor(source)
    cursor.numbers("QQ")
    (count,) = cursor.numbers("Q")
    limits.ARRAYS.check(count, source.path, "the number of arrays")
    tensors = [_array(cursor) for _ in range(count)]
    (named,) = cursor.numbers("Q")
    if named != count:
        raise CorruptFile(
            "not one name for each array", where=source.path, found=named, expected=count
        )
    named_tensors: dict[str, Tensor] = {}
    for tensor in tensors:
        (length,) = cursor.numbers("Q")
        limits.PATH_LENGTH.check(length, source.path, "the length of a name")
        try:
            name = cursor.bytes(length).decode()
        except UnicodeDecodeError:
            raise CorruptFile("a name is not a text", where=source.path) from None
        # The Module API writes arg: and aux: before the names.
        named_tensors[name.removeprefix("arg:").removeprefix("aux:")] = tensor
    if len(named_tensors) != count:
        raise CorruptFile("two arrays of one name", where=source.path)
    return Arrays(named_tensors, _texts(cursor))


def _texts(cursor: _Cursor) -> dict[str, str]:
    rest = cursor.source.size - cursor.offset
    if not rest:
        return {}
    limits.JSON_BYTES.check(rest, cursor.source.path, "the JSON text")
    value = parse_object(cursor.bytes(rest), f"{cursor.source.path}: {metadata.KEY}")
    return {metadata.KEY: canonical(value)}


def _array(cursor: _Cursor) -> Tensor:
    where = cursor.source.path
    magic, storage, rank = cursor.numbers("Iii")
    if magic not in (_V2, _V3) or storage:
        raise CorruptFile(
            "an array in a form that is not read here",
            where=where,
            found=f"{magic:#x}, storage {storage}",
            expected=f"{_V2:#x}, storage 0 (dense): written by MXNet 1.0 or later",
        )
    limits.RANK.check(rank, where, "the number of its axes")
    shape = cursor.numbers(f"{max(rank, 0)}q")
    *_, kind = cursor.numbers("iii")
    if kind not in _NAMES or rank < 0 or any(size < 0 for size in shape):
        raise CorruptFile("not an array", where=where, found=f"shape {shape}, dtype {kind}")
    dtype = dtype_of(_NAMES[kind])
    limits.TENSOR_BYTES.check(prod(shape) * dtype.itemsize, where, "an array")
    tensor = FileTensor(cursor.source, cursor.offset, shape, dtype)
    cursor.offset += tensor.nbytes
    return tensor


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        UnsupportedByTarget: a dtype that MXNet does not have.
    """
    tensors = content.tensors
    with open(path, "wb") as file:
        file.write(struct.pack("<QQQ", 0x112, 0, len(tensors)))
        for name, tensor in tensors.items():
            if tensor.dtype.name not in _DTYPES:
                raise UnsupportedByTarget(
                    "MXNet has no such dtype",
                    where=name,
                    option="dtype",
                    target="params",
                    found=tensor.dtype.name,
                    hint="leave the other tensors out: without --with-other",
                )
            rank, kind = len(tensor.shape), _DTYPES[tensor.dtype.name]
            file.write(struct.pack(f"<Iii{rank}q", _V2, 0, rank, *tensor.shape))
            file.write(struct.pack("<iii", *_CPU, kind))
            write_to(file, tensor, partial(content.sums.add, name))
        file.write(struct.pack("<Q", len(tensors)))
        for name in tensors:
            raw = name.encode()
            file.write(struct.pack("<Q", len(raw)) + raw)
        final = content.metadata()
        if metadata.KEY in final:
            file.write(final[metadata.KEY].encode())
