"""From a TensorProto to a tensor: everything is checked before an array is made.

`onnx.numpy_helper.to_array` accepts a dimension of -1, and ignores the field that it does not use;
neither passes here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from lstmconvert import limits
from lstmconvert.dtypes import Array, DType, dtype_of
from lstmconvert.errors import CorruptFile
from lstmconvert.onnx.types import NAMES, PACKED
from lstmconvert.tensors import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

#: Typed field -> the types that it holds: as themselves, or as bits of narrower ones (onnx.proto).
_FIELDS: dict[str, frozenset[str]] = {
    "float_data": frozenset({"float32", "complex64"}),
    "int32_data": frozenset(
        {
            *("int32", "int16", "int8", "uint16", "uint8", "bool"),
            *("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        }
    ),
    "int64_data": frozenset({"int64"}),
    "double_data": frozenset({"float64"}),
    "uint64_data": frozenset({"uint32", "uint64"}),
}
#: What the typed fields hold on the wire.
_WIDE = {
    "float_data": "<f4",
    "int32_data": "<i8",
    "int64_data": "<i8",
    "double_data": "<f8",
    "uint64_data": "<u8",
}
#: Types whose numbers stand in `int32_data` as their bits.
_BITS = frozenset({"float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"})
_VALUES = (*_FIELDS, "raw_data", "string_data")


def is_known(proto: onnx.TensorProto) -> bool:
    """Whether a tensor's type is one of numbers that NumPy can have."""
    return proto.data_type in NAMES or proto.data_type in PACKED


def shape_of(proto: onnx.TensorProto, where: str) -> Shape:
    """Return a tensor's shape.

    Raises:
        CorruptFile: a dimension is negative, or it is a segment of another tensor.
        LimitExceeded: it has too many axes, or is too large.
    """
    shape = tuple(proto.dims)
    limits.RANK.check(len(shape), where, "the number of a tensor's axes")
    if any(size < 0 for size in shape):
        raise CorruptFile("a negative dimension", where=where, found=str(shape))
    if proto.HasField("segment"):
        raise CorruptFile("a tensor in segments, which no one writes", where=where)
    limits.TENSOR_BYTES.check(
        math.prod(shape) * dtype_of(_name(proto, where)).itemsize, where, "the tensor"
    )
    return shape


def raw(
    proto: onnx.TensorProto, source: SourceFile, offset: int, length: int, where: str
) -> Tensor:
    """Return a tensor whose numbers lie in a file.

    Raises:
        CorruptFile: the numbers are more or fewer than its shape says, or there are others too.
    """
    shape, dtype = shape_of(proto, where), dtype_of(_name(proto, where))
    _check_one_field([*_present(proto), "raw_data"], where)
    if proto.data_type in PACKED:
        _check_count(-(-math.prod(shape) // 2), length, "bytes", where)
        return ArrayTensor(_unpacked(bytes(source.read_at(offset, length)), shape, dtype))
    _check_count(math.prod(shape) * dtype.itemsize, length, "bytes", where)
    return FileTensor(source, offset, shape, dtype)


def inline(proto: onnx.TensorProto, where: str) -> Tensor:
    """Return a tensor whose numbers are in the message.

    Raises:
        CorruptFile: there is not exactly one field of numbers, of the right type and count.
    """
    shape, name = shape_of(proto, where), _name(proto, where)
    present = _present(proto)
    count = math.prod(shape)
    if not present and count == 0:
        return ArrayTensor(np.empty(shape, dtype_of(name)))
    _check_one_field(present, where)
    if proto.data_type in PACKED:
        return ArrayTensor(_packed_inline(proto, present[0], shape, where))
    if present == ["raw_data"]:
        _check_count(count * dtype_of(name).itemsize, len(proto.raw_data), "bytes", where)
        array = np.frombuffer(proto.raw_data, dtype_of(name))
        return ArrayTensor(array.reshape(shape))
    if name not in _FIELDS.get(present[0], ()):
        raise CorruptFile("numbers in the wrong field", where=where, found=present[0])
    numbers = np.asarray(getattr(proto, present[0]), _WIDE[present[0]])
    _check_count(count * (2 if name == "complex64" else 1), len(numbers), "numbers", where)
    return ArrayTensor(_narrowed(numbers, name, where).reshape(shape))


def _packed_inline(proto: onnx.TensorProto, field: str, shape: Shape, where: str) -> Array:
    if field == "raw_data":
        data = bytes(proto.raw_data)
    elif field == "int32_data" and all(0 <= byte < 256 for byte in proto.int32_data):
        data = bytes(proto.int32_data)
    else:
        raise CorruptFile("numbers in the wrong field", where=where, found=field)
    _check_count(-(-math.prod(shape) // 2), len(data), "bytes", where)
    return _unpacked(data, shape, dtype_of(_name(proto, where)))


def _unpacked(data: bytes, shape: Shape, dtype: DType) -> Array:
    pairs = np.frombuffer(data, np.uint8)
    halves = np.stack([pairs & 0xF, pairs >> 4], axis=-1).reshape(-1)[: math.prod(shape)]
    if dtype.kind == "i":  # the sign of four bits, spread over eight
        halves = ((halves ^ 8).astype(np.int8) - 8).astype(np.int8)
    return halves.astype(dtype).reshape(shape)


def _narrowed(numbers: Array, name: str, where: str) -> Array:
    dtype = dtype_of(name)
    if name == "complex64":
        return numbers.view(dtype)
    if name in _BITS:
        stored = numbers.astype(f"<u{dtype.itemsize}")
        result = stored.view(dtype)
    else:
        stored = result = numbers.astype(dtype)
    if not np.array_equal(stored, numbers, equal_nan=dtype.kind == "f"):
        raise CorruptFile("numbers that its type does not have", where=where)
    return result


def _present(proto: onnx.TensorProto) -> list[str]:
    return [name for name in _VALUES if len(getattr(proto, name))]


def _check_one_field(present: Sequence[str], where: str) -> None:
    if len(present) != 1 or present[0] == "string_data":
        raise CorruptFile(
            "a tensor must have its numbers in exactly one field",
            where=where,
            found=" and ".join(present) or "none",
        )


def _check_count(wanted: int, found: int, what: str, where: str) -> None:
    if wanted != found:
        raise CorruptFile(
            "a tensor has more or fewer numbers than its shape says",
            where=where,
            found=f"{found:,} {what}",
            expected=f"{wanted:,}",
        )


def _name(proto: onnx.TensorProto, where: str) -> str:
    name = NAMES.get(proto.data_type) or PACKED.get(proto.data_type)
    if name is None:
        raise CorruptFile(
            "a tensor of a type that is not read here", where=where, found=proto.data_type
        )
    return name
