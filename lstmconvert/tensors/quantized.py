"""Weights as small whole numbers with scales, for processors with little memory.

A weight is `scale * integer`, where the integer is at most 127 or 32,767 in size and the scale is
that of the weight's column: the largest weight of the column, divided by that number. The integers
lie around zero (symmetric), so that no offset has to be added up when the layer runs.

A column, that is all weights of one unit of one gate, has a scale of its own. The error of a weight
is at most half a scale. With one scale for a whole matrix, its largest weight would make every
other one as coarse; a column's largest weight is that of few neighbours. The scale of a column
stands outside its sum, so that a step costs one more product for each unit, and not for each weight
(R. Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, 3.1).

Biases and what else is not a matrix keep their numbers: they are few, and their errors would not
average out. So does a matrix of so few rows that its scales take more than its integers save.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

#: Name of the integers -> the largest of them. The smallest is as far from zero, so that -128 and
#: -32,768 are left out.
LARGEST: Mapping[str, int] = {"int8": 127, "int16": 32_767}
#: The arrays that are matrices: what their names end with.
MATRICES = ("kernel", "recurrent_kernel")


class Quantized(NamedTuple):
    """A matrix as integers and scales.

    Fields: `integers`, shaped as the matrix, int8 or int16; `scales` (columns,), of the matrix's
    dtype.
    """

    integers: Array
    scales: Array

    @property
    def numbers(self) -> Array:
        """The weights that they stand for, in the dtype of the scales."""
        numbers: Array = self.integers.astype(self.scales.dtype) * self.scales
        return numbers

    @property
    def nbytes(self) -> int:
        """How many bytes both take."""
        return self.integers.nbytes + self.scales.nbytes


def is_smaller(name: str, shape: tuple[int, ...], dtype: DType, kind: str) -> bool:
    """Whether an array is a matrix that takes fewer bytes as integers and scales.

    Args:
        name: of the array; its last part says what it is.
        shape, dtype: of the array. All axes but the last are its rows.
        kind: of `LARGEST`.
    """
    if name.rpartition(".")[2] not in MATRICES or len(shape) < 2:
        return False
    rows = int(np.prod(shape[:-1]))
    return rows * np.dtype(kind).itemsize + dtype.itemsize < rows * dtype.itemsize


def quantized(array: Array, kind: str) -> Quantized:
    """Return a matrix of finite numbers as integers and scales, one for each column.

    Args:
        array: float32 or float64; the columns are its last axis.
        kind: of `LARGEST`.
    """
    most = LARGEST[kind]
    columns = array.reshape(-1, array.shape[-1]).astype(np.float64)
    scales = (abs(columns).max(axis=0, initial=0.0) / most).astype(array.dtype)
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(scales * array.dtype.type(most))
    scales = np.where(is_finite, scales, np.nextafter(scales, array.dtype.type(0)))
    wide = np.where(scales > 0, scales, 1).astype(np.float64)
    integers = np.clip(np.rint(columns / wide), -most, most)
    return Quantized(integers.astype(kind).reshape(array.shape), scales)


def rounded(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return named arrays, of which each matrix has the numbers that its integers stand for."""
    return {
        name: ArrayTensor(quantized(tensor.read(), kind).numbers)
        if is_smaller(name, tensor.shape, tensor.dtype, kind)
        else tensor
        for name, tensor in tensors.items()
    }


def nbytes(tensors: Mapping[str, Tensor], kind: str | None) -> int:
    """Return how many bytes named arrays take; with `kind`, their matrices as integers."""
    return sum(
        int(np.prod(tensor.shape)) * np.dtype(kind).itemsize
        + tensor.shape[-1] * tensor.dtype.itemsize
        if kind is not None and is_smaller(name, tensor.shape, tensor.dtype, kind)
        else tensor.nbytes
        for name, tensor in tensors.items()
    )
