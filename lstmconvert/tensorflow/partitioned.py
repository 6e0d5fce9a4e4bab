"""Variables that were saved in pieces, as `tf.fixed_size_partitioner` cuts them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.dtypes import Array, DType
from lstmconvert.errors import CorruptFile
from lstmconvert.tensorflow.entries import Slice
from lstmconvert.tensors import Shape, Tensor

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Piece:
    """A tensor that fills `start` to `start + tensor.shape` of a larger one of shape `whole`."""

    start: Shape
    tensor: Tensor
    whole: Shape

    @cached_property
    def rows(self) -> Rows:
        """The rows of the whole that this piece has a part of, in order: `(rows,)`."""
        rows = np.zeros(1, np.int64)
        axes = zip(self.start[:-1], self.tensor.shape[:-1], self.whole[:-1], strict=True)
        for start, length, size in axes:
            rows = (rows[:, None] * size + np.arange(start, start + length)).reshape(-1)
        return rows


class Partitioned(Tensor):
    """Pieces that tile a tensor, read as one.

    Raises:
        CorruptFile: they overlap, leave a gap, or are of different dtypes.
        LimitExceeded: they are more than the limit.
    """

    def __init__(self, shape: Shape, dtype: DType, pieces: tuple[Piece, ...], where: str) -> None:
        self.shape, self.dtype, self.pieces = shape, dtype, pieces
        limits.PARTITIONS.check(len(pieces), where, "the number of partitions")
        if any(piece.tensor.dtype != dtype for piece in pieces):
            raise CorruptFile("the partitions of a variable differ in dtype", where=where)
        if sum(piece.tensor.size for piece in pieces) != self.size or _overlap(pieces):
            raise CorruptFile("the partitions of a variable do not tile it", where=where)

    def rows(self, start: int, stop: int) -> Array:
        result = np.empty((stop - start, self.matrix_shape[1]), self.dtype)
        for piece in self.pieces:
            first, last = np.searchsorted(piece.rows, (start, stop))
            left, width = piece.start[-1], piece.tensor.shape[-1]
            places = piece.rows[first:last] - start
            result[places, left : left + width] = piece.tensor.rows(int(first), int(last))
        return result


def piece_bounds(part: Slice, whole: Shape, where: str) -> tuple[Shape, Shape]:
    """Return where a slice begins, and its shape.

    Raises:
        CorruptFile: it has not the axes of the whole, or reaches outside.
    """
    if not whole or len(part.extents) != len(whole):
        raise CorruptFile("a partition has other axes than its variable", where=where)
    start, shape = [], []
    for extent, size in zip(part.extents, whole, strict=True):
        length = size if extent.length is None else extent.length
        if extent.start < 0 or length < 0 or extent.start + length > size:
            raise CorruptFile("a partition reaches outside its variable", where=where)
        start.append(extent.start)
        shape.append(length)
    return tuple(start), tuple(shape)


def _overlap(pieces: tuple[Piece, ...]) -> bool:
    begin = np.array([piece.start for piece in pieces])
    end = begin + np.array([piece.tensor.shape for piece in pieces])
    shared = np.logical_and(begin[:, None] < end, begin < end[:, None]).all(axis=2)
    return int(shared.sum()) > int(shared.diagonal().sum())
