"""The records of a checkpoint's index, format V2, and the names of the files they speak of.

Formats: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/framework/types.proto,
tensor_shape.proto and tensor_slice.proto, tensorflow/core/lib/strings/ordered_code.cc
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files.wire import fixed32, integer, message, messages
from lstmconvert.tensors.dtypes import DType, dtype_of
from lstmconvert.tensors.tensor import Shape

#: tensorflow.DataType -> NumPy name, of the types that are plain numbers.
DTYPES: dict[int, str] = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}
STRING = 7
#: What else may be in a checkpoint: serialised C++ objects, quantised and packed numbers.
OTHER_DTYPES: dict[int, str] = {
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    20: "resource",
    21: "variant",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
    33: "float4_e2m1fn",
}
BIG_ENDIAN = 1


@dataclass(frozen=True, slots=True)
class Version:
    """VersionDef: the oldest reader that understands the file."""

    min_consumer: int = integer(2)


@dataclass(frozen=True, slots=True)
class Header:
    """BundleHeaderProto, the value of the empty key."""

    num_shards: int = integer(1)
    endianness: int = integer(2)
    version: Version | None = message(3, Version)


@dataclass(frozen=True, slots=True)
class Dim:
    """One axis of a shape."""

    size: int = integer(1)


@dataclass(frozen=True, slots=True)
class ShapeProto:
    """TensorShapeProto."""

    dims: tuple[Dim, ...] = messages(2, Dim)
    unknown_rank: int = integer(3)


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of one axis; without a length, the whole axis."""

    start: int = integer(1)
    length: int | None = integer(2, default=None)


@dataclass(frozen=True, slots=True)
class Slice:
    """TensorSliceProto: which part of a partitioned variable; an extent for each axis."""

    extents: tuple[Extent, ...] = messages(1, Extent)


@dataclass(frozen=True, slots=True)
class Entry:
    """BundleEntryProto: where a tensor is; with slices, only what the whole is."""

    dtype: int = integer(1)
    shape: ShapeProto | None = message(2, ShapeProto)
    shard: int = integer(3)
    offset: int = integer(4)
    size: int = integer(5)
    crc: int = fixed32(6)
    slices: tuple[Slice, ...] = messages(7, Slice)


def shard_name(prefix: str, index: int, count: int) -> str:
    """Return a data file's name (tensorflow/core/util/tensor_bundle/naming.cc)."""
    return f"{prefix}.data-{index:05d}-of-{count:05d}"


def index_path(prefix: Path) -> Path:
    """Return the path of the index of a checkpoint."""
    return prefix.with_name(f"{prefix.name}.index")


def shape_of(proto: ShapeProto | None, where: object) -> Shape:
    """Return a stored tensor's shape.

    Raises:
        CorruptFile: an axis is unknown or negative.
        LimitExceeded: it has too many axes.
    """
    proto = proto or ShapeProto()
    shape = tuple(dim.size for dim in proto.dims)
    limits.RANK.check(len(shape), where, "the number of axes")
    if proto.unknown_rank or any(size < 0 for size in shape):
        raise CorruptFile("a stored tensor without a shape", where=where, found=shape)
    limits.TENSOR_BYTES.check(math.prod(max(1, size) for size in shape), where, "the shape")
    return shape


def dtype_named(number: int, where: object) -> DType | None:
    """Return the dtype of plain numbers, or None for other types.

    Raises:
        CorruptFile: TensorFlow does not have the type.
    """
    if number in DTYPES:
        return dtype_of(DTYPES[number])
    if number == STRING or number in OTHER_DTYPES:
        return None
    raise CorruptFile("an unknown TensorFlow type", where=where, found=number)


def check_bytes(shape: Shape, itemsize: int, size: int, where: object) -> None:
    """Refuse a tensor whose bytes are not as many as its shape says.

    Raises:
        CorruptFile: they are more or fewer.
        LimitExceeded: they are more than a tensor may have.
    """
    limits.TENSOR_BYTES.check(size, where, "the tensor")
    if math.prod(shape) * itemsize != size:
        raise CorruptFile(
            "a tensor's size does not agree with its shape",
            where=where,
            found=f"{size:,} bytes",
            expected=f"{math.prod(shape) * itemsize:,} for the shape {shape}",
        )


def slice_key(name: bytes, part: Slice) -> bytes:
    """Return the key of one slice (saved_tensor_slice_util.cc, EncodeTensorNameSlice).

    An ordered code: the number 0, the name, the number of axes, a start and a length for each.
    """
    escaped = name.replace(b"\x00", b"\x00\xff")  # 0xff is escaped too; UTF-8 does not have it
    key = _number(0) + escaped + b"\x00\x01" + _number(len(part.extents))
    for extent in part.extents:
        length = -1 if extent.length is None else extent.length
        key += _signed_number(extent.start) + _signed_number(length)
    return key


def _number(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def _signed_number(value: int) -> bytes:
    # Seven bits a byte; the leading bits count the bytes, inverted for a negative number.
    size = (~value if value < 0 else value).bit_length() // 7 + 1
    header = ((1 << size) - 1) << 7 * size
    return ((value & (1 << 8 * size) - 1) ^ header).to_bytes(size, "big")
