"""A view of a tensor with every sign turned: exact, and its own inverse."""

from __future__ import annotations

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.tensors import Tensor


class Negated(Tensor):
    """Another tensor's numbers, negated. Make one with `negated`."""

    def __init__(self, base: Tensor) -> None:
        self.base, self.shape, self.dtype = base, base.shape, base.dtype

    def rows(self, start: int, stop: int) -> Array:
        return np.negative(self.base.rows(start, stop))

    def columns(self, start: int, stop: int) -> Array:
        return np.negative(self.base.columns(start, stop))


def negated(tensor: Tensor) -> Tensor:
    """Return a tensor negated. Twice gives the first tensor itself."""
    return tensor.base if isinstance(tensor, Negated) else Negated(tensor)
