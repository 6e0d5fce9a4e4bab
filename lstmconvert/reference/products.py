"""How a cell multiplies with its kernels: as matrices, or as convolutions (ConvLSTM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.errors import UsageError
from lstmconvert.records import dataclass

Sizes = tuple[int, ...]

#: `same` as Theano pads it (measured on files that Keras 1.2.2 wrote there).
SAME_BEFORE = "same, extra before"


class Products(Protocol):
    """What a cell needs of its kernels, whatever their rank."""

    def of_input(self, x: Array, kernel: Array) -> Array:
        """Return (time, batch, …, units) of x (time, batch, …, inputs), all steps at once."""

    def of_state(self, hidden: Array, kernel: Array) -> Array:
        """Return (batch, …, units) of a hidden state (batch, …, recurrent_dim)."""

    def per_unit(self, values: Array) -> Array:
        """Return values (units,) in a shape that broadcasts along the axis of units."""

    def width(self, shape: Sizes) -> int:
        """Return the length of the axis of inputs or units."""

    def with_width(self, shape: Sizes, width: int) -> Sizes:
        """Return `shape` with another number of units."""


class Dense:
    """Kernels (input_dim, units): plain matrix products."""

    def of_input(self, x: Array, kernel: Array) -> Array:
        product: Array = x @ kernel
        return product

    of_state = of_input

    def per_unit(self, values: Array) -> Array:
        return values

    def width(self, shape: Sizes) -> int:
        return shape[-1]

    def with_width(self, shape: Sizes, width: int) -> Sizes:
        return (*shape[:-1], width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """Kernels (*window, channels, filters): the input's and the state's convolution of ConvLSTM.

    The state's is always stride 1, undilated and `same`, and has no bias
    (keras/src/layers/rnn/conv_lstm.py, `recurrent_conv`).

    Fields: `strides` and `dilation_rate`, one number for each axis of the window; `padding`,
    `same` or `valid`; `channels_first`, whether channels come before the spatial axes in
    everything the layer takes and returns; `extra_before`, whether the odd zero of `same` lies
    before (Theano) or behind.
    """

    strides: Sizes
    dilation_rate: Sizes
    padding: str
    channels_first: bool
    extra_before: bool = False

    def of_input(self, x: Array, kernel: Array) -> Array:
        flat = x.reshape(-1, *x.shape[2:])
        result = self._convolved(flat, kernel, self.strides, self.dilation_rate, self.padding)
        return result.reshape(*x.shape[:2], *result.shape[1:])

    def of_state(self, hidden: Array, kernel: Array) -> Array:
        ones = (1,) * len(self.strides)
        return self._convolved(hidden, kernel, ones, ones, "same")

    def _convolved(
        self, x: Array, kernel: Array, strides: Sizes, dilation: Sizes, padding: str
    ) -> Array:
        last = np.moveaxis(x, 1, -1) if self.channels_first else x
        if padding == "same" and self.extra_before:
            padding = SAME_BEFORE
        result = convolve(last, kernel, strides, dilation, padding)
        return np.moveaxis(result, -1, 1) if self.channels_first else result

    def per_unit(self, values: Array) -> Array:
        return values.reshape(-1, *[1] * len(self.strides)) if self.channels_first else values

    def width(self, shape: Sizes) -> int:
        return shape[self._channels]

    def with_width(self, shape: Sizes, width: int) -> Sizes:
        sizes = list(shape)
        sizes[self._channels] = width
        return tuple(sizes)

    @property
    def _channels(self) -> int:
        return -1 - len(self.strides) if self.channels_first else -1


def convolve(x: Array, kernel: Array, strides: Sizes, dilation: Sizes, padding: str) -> Array:
    """Return the cross-correlation that deep learning calls a convolution.

    Args:
        x: (batch, *spatial, channels).
        kernel: (*window, channels, filters).
        strides: the step along each spatial axis.
        dilation: the distance of neighbouring kernel elements along each spatial axis.
        padding: `same` (zeros around, as TensorFlow spreads them: the odd one behind), `valid`, or
            `SAME_BEFORE` (the odd one before).

    Returns:
        (batch, *spatial', filters).
    """
    window = kernel.shape[:-2]
    spans = [(length - 1) * rate + 1 for length, rate in zip(window, dilation, strict=True)]
    if padding != "valid":
        x = _padded(x, spans, strides, before=padding == SAME_BEFORE)
    sizes = [
        (length - span) // stride + 1
        for length, span, stride in zip(x.shape[1:-1], spans, strides, strict=True)
    ]
    if min(sizes) < 1:
        raise UsageError(
            "the input is smaller than the window", found=x.shape[1:-1], expected=tuple(spans)
        )
    total = np.zeros((len(x), *sizes, kernel.shape[-1]), x.dtype)
    for place in np.ndindex(*window):
        total += x[:, *_slices(place, sizes, strides, dilation)] @ kernel[place]
    return total


def _slices(place: Sizes, sizes: Sequence[int], strides: Sizes, dilation: Sizes) -> list[slice]:
    """The inputs that one element of the window meets, one for each output."""
    return [
        slice(at * rate, at * rate + (size - 1) * stride + 1, stride)
        for at, size, stride, rate in zip(place, sizes, strides, dilation, strict=True)
    ]


def _padded(x: Array, spans: Sequence[int], strides: Sizes, *, before: bool) -> Array:
    # tensorflow.org/api_docs/python/tf/nn, "Notes on padding": ceil(length / stride) outputs.
    needs = [
        max((-(-length // stride) - 1) * stride + span - length, 0)
        for length, span, stride in zip(x.shape[1:-1], spans, strides, strict=True)
    ]
    split = [(need // 2, need - need // 2) for need in needs]
    if before:
        split = [(high, low) for low, high in split]
    return np.pad(x, [(0, 0), *split, (0, 0)])
