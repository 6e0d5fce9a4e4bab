"""The operator's arrangement of weights, as views of tensors: transposed, stacked, cut.

W is (directions, 4 * units, input_dim), R likewise, B (directions, 8 * units), P
(directions, 3 * units); the gates' order is i o f c (P: i o f).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lstmconvert import limits
from lstmconvert.dtypes import Array
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors import Shape, Tensor

_STRIP_BYTES = 8 * limits.MIB


class Transposed(Tensor):
    """A matrix with rows and columns exchanged."""

    def __init__(self, base: Tensor) -> None:
        self.base, self.dtype = base, base.dtype
        self.shape = (base.shape[1], base.shape[0])
        self._strip: tuple[int, Array] = (0, np.empty((0, self.shape[1]), self.dtype))

    def rows(self, start: int, stop: int) -> Array:
        first, strip = self._strip
        if not first <= start <= stop <= first + len(strip):
            # A strip of columns costs a pass over the base: take a broad one, and keep it for the
            # rows that come next.
            first, width = start, max(1, self.nbytes // max(1, self.shape[0]))
            last = min(max(stop, start + _STRIP_BYTES // width), self.shape[0])
            strip = self.base.columns(first, last).T
        done = stop == self.shape[0]
        self._strip = (0, np.empty((0, self.shape[1]), self.dtype)) if done else (first, strip)
        return strip[start - first : stop - first]


class Stacked(Tensor):
    """Tensors of one dtype, one behind the other in memory, under a shape of their own."""

    def __init__(self, parts: Sequence[Tensor], shape: Shape) -> None:
        self.parts, self.shape, self.dtype = tuple(parts), shape, parts[0].dtype
        if math.prod(shape) != sum(part.size for part in parts):
            raise ValueError(f"{shape} does not hold the parts")

    def rows(self, start: int, stop: int) -> Array:
        width = self.matrix_shape[1]
        pieces, at = [], 0
        for part in self.parts:
            first, last = max(start * width - at, 0), min(stop * width - at, part.size)
            if first < last:
                pieces.append(part.elements(first, last))
            at += part.size
        return np.concatenate(pieces or [np.empty(0, self.dtype)]).reshape(stop - start, width)

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        for part in self.parts:
            yield from part.blocks(budget)


class Slab(Tensor):
    """Neighbouring elements of another tensor, in C order, under a shape of their own."""

    def __init__(self, base: Tensor, start: int, shape: Shape) -> None:
        self.base, self.start, self.shape, self.dtype = base, start, shape, base.dtype

    def rows(self, start: int, stop: int) -> Array:
        width = self.matrix_shape[1]
        return self.elements(start * width, stop * width).reshape(stop - start, width)

    def elements(self, start: int, stop: int) -> Array:
        return self.base.elements(self.start + start, self.start + stop)
