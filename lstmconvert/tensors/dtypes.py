"""One table of the number types that cross a file border.

Names are NumPy's (`float32`, `bfloat16`), which are Keras's too. safetensors' short names are
those of its format description (`dtype` field of the header).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np

from lstmconvert.errors import UnsupportedByTarget

DType = np.dtype[Any]
Array = np.ndarray[Any, np.dtype[Any]]

#: The dtypes that LSTM weights may have.
FLOATS: tuple[str, ...] = ("float32", "float16", "bfloat16", "float64")

#: NumPy name -> safetensors name (safetensors/src/tensor.rs, enum Dtype).
SAFETENSORS: dict[str, str] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "bfloat16": "BF16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "float64": "F64",
    "uint64": "U64",
    "int64": "I64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
FROM_SAFETENSORS: dict[str, str] = {short: name for name, short in SAFETENSORS.items()}

#: What NumPy alone does not know and ml_dtypes adds.
_ML_DTYPES = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})


@cache
def dtype_of(name: str) -> DType:
    """Return the little-endian (or byte-sized) NumPy dtype called `name`.

    ml_dtypes is imported only for the types that need it: it costs start-up time.
    """
    if name in _ML_DTYPES:
        import ml_dtypes

        kind: DType = np.dtype(getattr(ml_dtypes, name))
        return kind
    return np.dtype(name).newbyteorder("<")


@lru_cache
def name_of(dtype: DType) -> str:
    """Return `dtype.name`, which NumPy makes up anew, slowly, whenever it is asked."""
    return str(dtype.name)


def safetensors_name(dtype: DType, where: str) -> str:
    """Return safetensors' name of `dtype`.

    Raises:
        UnsupportedByTarget: safetensors has no such type (strings, float128, …).
    """
    try:
        return SAFETENSORS[name_of(dtype)]
    except KeyError:
        raise UnsupportedByTarget(
            "safetensors cannot hold this dtype",
            where=where,
            option="dtype",
            target="safetensors",
            found=dtype.name,
            expected=", ".join(SAFETENSORS),
            hint="convert with --lstm-only to leave the other tensors out",
        ) from None


def little_endian(array: Array) -> Array:
    """Return `array` C-contiguous and little-endian, the same numbers bit for bit.

    Every array passes here on its way to a file: safetensors 0.8.0 writes the raw memory of a
    non-contiguous array, a gate's column slice for one (safetensors issue 825).
    """
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(array.shape)


def bits(array: Array) -> Array:
    """Return the memory of `array` as unsigned integers, for comparisons that see -0.0 and NaN."""
    return as_bits(little_endian(array).reshape(-1))


def as_bits(array: Array) -> Array:
    """`bits` without a copy: a view of an array whose last axis is contiguous in memory."""
    size = array.dtype.itemsize
    return array.view(np.dtype(f"<u{size}") if size in (1, 2, 4, 8) else np.uint8)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays have one dtype, one shape and the same bits."""
    return (
        a.dtype.name == b.dtype.name
        and a.shape == b.shape
        and bool(np.array_equal(bits(a), bits(b)))
    )
