"""Further views of tensors that cost nothing: turned, stacked, cut and reshaped.

Frameworks keep a kernel with its units as rows, glue kernel and recurrent kernel into one matrix,
or lay the two directions of a layer one behind the other. Each of these is a view here, read in
slabs like any other tensor, and each has its inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lstmconvert.dtypes import Array, DType, little_endian
from lstmconvert.errors import CorruptFile
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors import Columns, Computed, Shape, SideBySide, Tensor

#: How many buffers a slab of a transposed tensor may take.
_LARGER = 4


class Transposed(Tensor):
    """A matrix with rows and columns exchanged. Make one with `transposed`."""

    def __init__(self, base: Tensor) -> None:
        rows, columns = base.shape
        self.base, self.shape, self.dtype = base, (columns, rows), base.dtype

    def slabs(self, budget: int = BUFFER_BYTES) -> Iterator[tuple[int, int]]:
        # Each slab takes a pass over the base, so they are fewer and larger.
        return super().slabs(_LARGER * budget)

    def rows(self, start: int, stop: int) -> Array:
        return np.ascontiguousarray(self.base.columns(start, stop).T)

    def columns(self, start: int, stop: int) -> Array:
        return np.ascontiguousarray(self.base.rows(start, stop).T)


def transposed(tensor: Tensor) -> Tensor:
    """Return a matrix turned; a vector as it is. Turning twice gives the first tensor itself."""
    if len(tensor.shape) < 2:
        return tensor
    tensor = whole(tensor)
    if isinstance(tensor, SideBySide):
        bases = tuple(part.base for part in tensor.parts if isinstance(part, Transposed))
        if len(bases) == len(tensor.parts):
            return Stacked(bases, tensor.shape[::-1])
    return tensor.base if isinstance(tensor, Transposed) else Transposed(tensor)


def whole(tensor: Tensor) -> Tensor:
    """Return the base whose columns `tensor` puts together again, else `tensor` itself."""
    base = tensor.whole if isinstance(tensor, SideBySide) else None
    return tensor if base is None else base


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors joined along the last axis; a single one as it is."""
    return parts[0] if len(parts) == 1 else SideBySide(tuple(parts))


def columns(base: Tensor, start: int, stop: int) -> Tensor:
    """Return a range of the last axis; the whole of it is `base` itself.

    Columns of a turned matrix are rows of what was turned, so that each reads its own part alone.
    """
    if (start, stop) == (0, base.shape[-1]):
        return base
    if isinstance(base, Transposed):
        return Transposed(Rows(base.base, start, stop, (stop - start, base.base.shape[1])))
    return Columns(base, start, stop)


class Stacked(Tensor):
    """Tensors of one dtype and width, one below the other in the matrix view.

    Args:
        parts: the tensors.
        shape: the shape of the result; its last axis is the parts'.
    """

    def __init__(self, parts: tuple[Tensor, ...], shape: Shape) -> None:
        self.parts, self.shape, self.dtype = parts, shape, parts[0].dtype

    def rows(self, start: int, stop: int) -> Array:
        pieces, end = [], 0
        for part in self.parts:
            begin, end = end, end + part.matrix_shape[0]
            low, high = max(start, begin), min(stop, end)
            if low < high:
                pieces.append(part.rows(low - begin, high - begin))
        if not pieces:
            return np.empty((0, self.matrix_shape[1]), self.dtype)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def columns(self, start: int, stop: int) -> Array:
        return np.concatenate([part.columns(start, stop) for part in self.parts])


class Rows(Tensor):
    """A range of the rows of another tensor's matrix view, in a shape of its own."""

    def __init__(self, base: Tensor, start: int, stop: int, shape: Shape) -> None:
        self.base, self.start, self.stop = base, start, stop
        self.shape, self.dtype = shape, base.dtype

    def rows(self, start: int, stop: int) -> Array:
        return self.base.rows(self.start + start, self.start + stop)


class Reshaped(Tensor):
    """The same elements, in C order, in another shape."""

    def __init__(self, base: Tensor, shape: Shape) -> None:
        self.base, self.shape, self.dtype = base, shape, base.dtype
        if self.size != base.size:
            raise CorruptFile("another number of elements", found=base.shape, expected=shape)

    def rows(self, start: int, stop: int) -> Array:
        width = self.matrix_shape[1]
        return self.base.elements(start * width, stop * width).reshape(stop - start, width)


class Zeros(Tensor):
    """Nothing but +0.0."""

    def __init__(self, shape: Shape, dtype: DType) -> None:
        self.shape, self.dtype = shape, dtype

    def rows(self, start: int, stop: int) -> Array:
        return np.zeros((stop - start, self.matrix_shape[1]), self.dtype)


class Added(Tensor):
    """A number added to every element, rounded in the tensor's own dtype."""

    def __init__(self, base: Tensor, amount: float) -> None:
        self.base, self.amount = base, amount
        self.shape, self.dtype = base.shape, base.dtype

    def rows(self, start: int, stop: int) -> Array:
        with np.errstate(all="ignore"):
            found = self.base.rows(start, stop)
            return np.asarray(found + self.dtype.type(self.amount), self.dtype)


def interleaved(tensor: Tensor, count: int) -> Tensor:
    """Return the columns of `count` blocks in turn: column u of block g becomes u * count + g."""
    return Computed(tensor, tensor.shape, _regroup(count, apart=False))


def apart(tensor: Tensor, count: int) -> Tensor:
    """The inverse of `interleaved`."""
    return Computed(tensor, tensor.shape, _regroup(count, apart=True))


def _regroup(count: int, *, apart: bool) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        size = array.shape[-1] // count
        inner = (size, count) if apart else (count, size)
        split = array.reshape(*array.shape[:-1], *inner)
        return np.swapaxes(split, -1, -2).reshape(array.shape)

    return change


def is_zero(tensor: Tensor) -> bool:
    """Whether every element is +0.0, bit for bit."""
    return not any(little_endian(block).view(np.uint8).any() for block in tensor.blocks())
