"""Further views of tensors that copy nothing: transposed, stacked, cut and reshaped.

Frameworks store a kernel with its units as rows, join kernel and recurrent kernel in one matrix,
or store the two directions of a layer one after the other. Each of these is a view here, which is
read in slabs of rows like any other tensor, and each has an inverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.limits import BUFFER_BYTES, MIB
from lstmconvert.tensors.dtypes import Array, DType, little_endian
from lstmconvert.tensors.tensor import Changed, Columns, Shape, SideBySide, Tensor

#: How many bytes of a matrix that is turned are in memory at once, as they are stored: as much as
#: the budget for memory leaves (150 MB), with as much again, half of it at a time, turned.
PANEL = 64 * MIB
#: Rows and columns of a tile, and what is between its rows, so that they do not meet in the cache
#: (measured: the fastest of 32 to 512).
_TILE, _PAD = 256, 16
#: And how many of them are handed on turned, at once: a few rows of any matrix of that size.
_TURNED = 2 * MIB


def turned(matrix: Array) -> Array:
    """Return a matrix with rows and columns exchanged, C-contiguous, through tiles that the caches
    hold: NumPy copies a transposed array column by column, at a fifth of the speed."""
    rows, columns = matrix.shape
    result = np.empty((columns, rows), matrix.dtype)
    if matrix.size <= _TILE * _TILE:
        result[...] = matrix.T
        return result
    scratch = np.empty((_TILE, _TILE + _PAD), matrix.dtype)
    for left in range(0, columns, _TILE):
        for top in range(0, rows, _TILE):
            tile = matrix[top : top + _TILE, left : left + _TILE]
            near = scratch[: tile.shape[0], : tile.shape[1]]
            near[...] = tile
            result[left : left + _TILE, top : top + _TILE] = near.T
    return result


class Transposed(Tensor):
    """A matrix with rows and columns exchanged. Make one with `transposed`."""

    def __init__(self, base: Tensor) -> None:
        rows, columns = base.shape
        self.base, self.shape, self.dtype = base, (columns, rows), base.dtype

    @property
    def grain(self) -> int:
        return PANEL // 2

    def rows(self, start: int, stop: int) -> Array:
        return turned(self.base.columns(start, stop))

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        return turned(self.base.window(first, last, start, stop))

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        # Each byte of the base is read once, in panels of columns.
        width = self.shape[1] * self.dtype.itemsize
        wide, step = max(1, PANEL // max(1, width)), max(1, max(budget, _TURNED) // max(1, width))
        for first in range(0, self.shape[0] if self.size else 0, wide):
            panel = self.base.columns(first, min(first + wide, self.shape[0]))
            for start in range(0, panel.shape[1], step):
                yield turned(panel[:, start : start + step])
            del panel  # before the next is read


def transposed(tensor: Tensor) -> Tensor:
    """Return a matrix transposed; a vector unchanged. Transposing twice gives the first tensor."""
    if len(tensor.shape) < 2:
        return tensor
    tensor = whole(tensor)
    if isinstance(tensor, SideBySide):
        bases = tuple(part.base for part in tensor.parts if isinstance(part, Transposed))
        if len(bases) == len(tensor.parts):
            return Stacked(bases, tensor.shape[::-1])
    return tensor.base if isinstance(tensor, Transposed) else Transposed(tensor)


def whole(tensor: Tensor) -> Tensor:
    """Return the one tensor whose columns `tensor` joins again in order, else `tensor` itself."""
    base = tensor.whole if isinstance(tensor, SideBySide) else None
    return tensor if base is None else base


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors joined along the last axis; a single tensor unchanged."""
    if len(parts) == 1:
        return parts[0]
    bases = [part.base for part in parts if isinstance(part, Transposed)]
    if len(bases) == len(parts):
        return transposed(concatenated(bases))
    return SideBySide(tuple(parts))


def columns(base: Tensor, start: int, stop: int) -> Tensor:
    """Return a range of the last axis; `base` itself if the range is the whole axis.

    Columns of a transposed matrix are rows of the matrix that was transposed, so only those rows
    are read.
    """
    if (start, stop) == (0, base.shape[-1]):
        return base
    if isinstance(base, Transposed):
        return Transposed(rows(base.base, start, stop))
    if isinstance(base, Columns):
        return Columns(base.base, base.start + start, base.start + stop)
    return Columns(base, start, stop)


def equal_columns(base: Tensor, width: int, count: int) -> Sequence[Tensor]:
    """Return the last axis cut into `count` ranges of `width` columns each."""
    if count > 1 and not isinstance(base, (Transposed, Columns)):
        return Columns.equal(base, width, count)
    return [columns(base, k * width, (k + 1) * width) for k in range(count)]


def rows(base: Tensor, start: int, stop: int, shape: Shape | None = None) -> Tensor:
    """Return a range of the rows of the matrix view.

    Args:
        base: the tensor.
        start, stop: the range.
        shape: the shape of the result, of `stop - start` rows; by default
            `(stop - start, columns)`.
    """
    if isinstance(base, Transposed) and shape is None:
        return Transposed(columns(base.base, start, stop))
    shape = (stop - start, base.shape[-1]) if shape is None else shape
    if shape == base.shape:
        return base
    if isinstance(base, Rows):
        return Rows(base.base, base.start + start, base.start + stop, shape)
    return Rows(base, start, stop, shape)


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """Return matrices one below the other: (sum of their rows, columns)."""
    joined: list[Tensor] = []
    for part in parts:
        before = joined[-1] if joined else None
        if isinstance(before, Rows) and isinstance(part, Rows) and before.is_above(part):
            joined[-1] = rows(before.base, before.start, part.stop)
        else:
            joined.append(part)
    if len(joined) == 1:
        return joined[0]
    count = sum(part.shape[0] for part in parts)
    return Stacked(tuple(joined), (count, *parts[0].shape[1:]))


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape along a new first axis: (count, *shape)."""
    return Stacked(tuple(parts), (len(parts), *parts[0].shape))


class Stacked(Tensor):
    """Tensors of one dtype and width, one below the other in the matrix view.

    Args:
        parts: the tensors.
        shape: the shape of the result; its last axis is the parts'.
    """

    def __init__(self, parts: tuple[Tensor, ...], shape: Shape) -> None:
        self.parts, self.shape, self.dtype = parts, shape, parts[0].dtype

    @property
    def grain(self) -> int:
        return max(part.grain for part in self.parts)

    def rows(self, start: int, stop: int) -> Array:
        return self.window(start, stop, 0, self.matrix_shape[1])

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        result: Array | None = None
        end = 0
        for part in self.parts:
            begin, end = end, end + part.matrix_shape[0]
            low, high = max(start, begin), min(stop, end)
            if low >= high:
                continue
            piece = part.window(low - begin, high - begin, first, last)
            if high - low == stop - start:
                return piece
            if result is None:
                result = np.empty((stop - start, last - first), self.dtype)
            result[low - start : high - start] = piece
        return np.empty((0, last - first), self.dtype) if result is None else result

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        for part in self.parts:
            yield from part.blocks(budget)


class Rows(Tensor):
    """A range of the rows of another tensor's matrix view, in a given shape. Made by `rows`."""

    def __init__(self, base: Tensor, start: int, stop: int, shape: Shape) -> None:
        self.base, self.start, self.stop = base, start, stop
        self.shape, self.dtype = shape, base.dtype

    def is_above(self, other: Rows) -> bool:
        """Whether another range of the same matrix begins where this one ends."""
        is_matrix = len(self.shape) == len(other.shape) == 2
        return is_matrix and self.base is other.base and self.stop == other.start

    def rows(self, start: int, stop: int) -> Array:
        return self.base.rows(self.start + start, self.start + stop)

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        return self.base.window(self.start + start, self.start + stop, first, last)


class Reshaped(Tensor):
    """The elements of another tensor, in C order, in another shape."""

    def __init__(self, base: Tensor, shape: Shape) -> None:
        self.base, self.shape, self.dtype = base, shape, base.dtype
        if self.size != base.size:
            raise CorruptFile("the number of elements differs", found=base.shape, expected=shape)

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        return self.base.blocks(budget)

    def rows(self, start: int, stop: int) -> Array:
        width = self.matrix_shape[1]
        return self.base.elements(start * width, stop * width).reshape(stop - start, width)


class Zeros(Tensor):
    """Zeros: every element is +0.0."""

    def __init__(self, shape: Shape, dtype: DType) -> None:
        self.shape, self.dtype = shape, dtype

    def rows(self, start: int, stop: int) -> Array:
        return np.zeros((stop - start, self.matrix_shape[1]), self.dtype)


class Filled(Tensor):
    """One number everywhere."""

    def __init__(self, shape: Shape, dtype: DType, value: float) -> None:
        self.shape, self.dtype, self.value = shape, dtype, value

    def rows(self, start: int, stop: int) -> Array:
        return np.full((stop - start, self.matrix_shape[1]), self.value, self.dtype)


class Added(Tensor):
    """A number, or a tensor of the same shape, added to every element and rounded to the dtype."""

    def __init__(self, base: Tensor, amount: float | Tensor) -> None:
        self.base, self.amount = base, amount
        self.shape, self.dtype = base.shape, base.dtype

    def rows(self, start: int, stop: int) -> Array:
        with np.errstate(all="ignore"):  # infinity and NaN are results like others
            if isinstance(self.amount, Tensor):
                amount = self.amount.rows(start, stop)
            else:
                amount = self.dtype.type(self.amount)
            return np.asarray(self.base.rows(start, stop) + amount, self.dtype)


def interleaved(tensor: Tensor, count: int) -> Tensor:
    """Return the columns of `count` blocks in turn: column u of block g becomes u * count + g."""
    return Regrouped(tensor, (count, tensor.shape[-1] // count))


def deinterleaved(tensor: Tensor, count: int) -> Tensor:
    """The inverse of `interleaved`."""
    return Regrouped(tensor, (tensor.shape[-1] // count, count))


class Regrouped(Tensor):
    """The columns of another tensor in another order: each row, seen as a matrix, is transposed.

    Args:
        base: the tensor.
        inner: the shape of that matrix.
    """

    def __init__(self, base: Tensor, inner: tuple[int, int]) -> None:
        self.base, self.inner = base, inner
        self.shape, self.dtype = base.shape, base.dtype

    def rows(self, start: int, stop: int) -> Array:
        array = self.base.rows(start, stop)
        return np.swapaxes(array.reshape(-1, *self.inner), 1, 2).reshape(array.shape)


def is_zero(tensor: Tensor) -> bool:
    """Whether every element is +0.0, bit for bit."""
    return not any(little_endian(block).view(np.uint8).any() for block in tensor.blocks())


class Negated(Changed):
    """Another tensor's numbers, negated. Make one with `negated`."""

    def __init__(self, base: Tensor) -> None:
        self.base, self.shape, self.dtype = base, base.shape, base.dtype

    def _changed(self, array: Array) -> Array:
        return np.negative(array)


def negated(tensor: Tensor) -> Tensor:
    """Return a tensor negated. Twice gives the first tensor itself."""
    return tensor.base if isinstance(tensor, Negated) else Negated(tensor)
