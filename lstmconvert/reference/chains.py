"""The forward pass of a chain of layers in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from lstmconvert import reference
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.model import edit
from lstmconvert.model.chain import Answer, Chain, Link
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, compute_dtypes
from lstmconvert.model.options import UNKNOWN
from lstmconvert.reference import maths
from lstmconvert.tensors import quantized
from lstmconvert.tensors.dtypes import Array


@np.errstate(all="ignore")
def run(chain: Chain, x: ArrayLike, dtype: DTypeLike = "float64") -> Array:
    """Return what a chain gives for a batch of sequences, as Keras computes it.

    Args:
        chain: the chain.
        x: (batch, time, inputs).
        dtype: float32 or float64: what is computed in.

    Returns:
        (batch, time, outputs); (batch, outputs) where the chain gives the last step alone.

    Raises:
        UnknownOption, UnsupportedByTarget: as `reference.run`.
    """
    value = given = np.asarray(x, dtype)
    for link in chain.links:
        value = _KINDS[link.kind](link, value)
    return value + given if chain.skip else value


#: How long the input of a stored answer is, where the model takes any length, and how its numbers
#: are rounded, so that a text of it is short.
_STEPS, _DECIMALS = 8, 2
#: How many pixels an axis of a ConvLSTM's input has, where the model takes any number.
_PIXELS = 6


def answer(chain: Chain) -> Answer:
    """Return an input for a chain, and what the chain gives for it in float64.

    The input is the same for each chain of as many inputs and steps: a few normal numbers.

    Raises:
        UnknownOption: as `run`.
        UnsupportedByTarget: as `run`; or an output is infinite or NaN.
    """
    dtypes = {t.dtype.name for link in chain.links for t in link.arrays.values()}
    for link in chain.links:
        if link.layer is not None:
            dtypes |= {link.layer.dtype.name, *compute_dtypes(link.layer)}
    shape = (1, chain.steps or _STEPS, chain.inputs)
    return _answer(shape, dtypes, partial(run, chain), "the model")


def answer_of(layer: LSTMLayer, shape: Sequence[int | None]) -> Answer:
    """Return an input for one LSTM layer, and what the layer gives for it in float64.

    Args:
        layer: the layer. One that does not say whether it gives every step does.
        shape: of its input, None where any size will do; the batch and time axes come first.

    Raises: as `answer`.
    """
    _, steps, *inner = shape
    sizes = (1, steps or _STEPS, *(size or _PIXELS for size in inner))
    if layer.forward.options.time_major is True:
        sizes = (sizes[1], 1, *sizes[2:])
    dtypes = {layer.dtype.name, *compute_dtypes(layer)}
    return _answer(sizes, dtypes, partial(run_layer, layer), layer.name)._replace(layer=layer.name)


def _answer(
    shape: Sequence[int], dtypes: set[str], given: Callable[..., Array], name: str
) -> Answer:
    x = np.random.default_rng(0).normal(size=shape).round(_DECIMALS)
    y = given(x)
    if not np.isfinite(y).all():
        raise UnsupportedByTarget(
            "what it gives for the input of a check is not finite",
            where=name,
            option="check",
            hint="leave --check away",
        )
    noise = float(abs(given(x, "float32") - y).max(initial=0.0))
    largest = max(1.0, float(abs(y).max(initial=0.0)))
    coarsest = max(dtypes, key=maths.EPSILONS.__getitem__)
    return Answer(x, y, maths.allowed(noise, largest, coarsest))


def run_layer(layer: LSTMLayer, x: ArrayLike, dtype: DTypeLike = "float64") -> Array:
    """Return what one LSTM layer gives for a batch, its two outputs side by side if it has two.

    Raises: as `run`.
    """
    layer = edit.map_directions(layer, _known)
    return np.concatenate(reference.run(layer, x, dtype=dtype).outputs, axis=-1)


def _known(_: str, direction: Direction) -> Direction:
    """Return a direction that gives every step where it does not say."""
    if direction.options.return_sequences is not UNKNOWN:
        return direction
    return replace(direction, options=replace(direction.options, return_sequences=True))


def every_step(chain: Chain) -> Chain:
    """Return a chain that gives every step, as programs do that run it step by step."""
    links = (
        link._replace(
            return_sequences=True,
            layer=link.layer and edit.map_directions(link.layer, _giving_every_step),
        )
        for link in chain.links
    )
    return chain._replace(links=tuple(links), steps=None)


def answered(chain: Chain, answer: Answer) -> Array:
    """Return what a chain gives for the input of a stored answer: every step, where that has."""
    has_steps = answer.y.ndim > 2
    return run(every_step(chain) if has_steps and not chain.gives_sequence else chain, answer.x)


def alone(layer: LSTMLayer) -> Chain:
    """Return the chain of one LSTM layer that gives every step."""
    layer = edit.map_directions(layer, _giving_every_step)
    link = Link(name=layer.name, kind="LSTM", inputs=layer.input_dim, outputs=layer.units,
                layer=layer)  # fmt: skip
    return Chain(inputs=layer.input_dim, links=(link,))


def _giving_every_step(_: str, direction: Direction) -> Direction:
    options = replace(direction.options, return_sequences=True, return_state=False)
    return replace(direction, options=options)


def rounded(chain: Chain, kind: str) -> Chain:
    """Return a chain whose matrices have the numbers that integers of a kind stand for."""

    def change(_: str, __: int, cell: Cell) -> Cell:
        return edit.map_gates(cell, lambda _, tensors: quantized.rounded(tensors, kind))

    links = (
        link._replace(
            layer=link.layer and edit.map_cells(link.layer, change),
            arrays=quantized.rounded(link.arrays, kind),
        )
        for link in chain.links
    )
    return chain._replace(links=tuple(links))


def distance(chains: Sequence[Chain], kind: str) -> tuple[float, float]:
    """Return how far the outputs go, at most, where matrices become integers, for the input of
    `answer`; and the largest output before.

    Args:
        chains: the model as one chain, or each of its LSTM layers as one.
        kind: of the integers.
    """
    most = largest = 0.0
    for chain in chains:
        before, after = answer(chain).y, answer(rounded(chain, kind)).y
        most = max(most, float(abs(after - before).max(initial=0.0)))
        largest = max(largest, float(abs(before).max(initial=0.0)))
    return most, largest


def _array(link: Link, role: str, like: Array) -> Array:
    return link.arrays[role].read().astype(like.dtype)


def _lstm(link: Link, x: Array) -> Array:
    if link.layer is None:
        raise AssertionError("an LSTM has its layer")
    return reference.run(link.layer, x, dtype=x.dtype).outputs[0]


def _with_bias(link: Link, value: Array) -> Array:
    if "bias" in link.arrays:
        value = value + _array(link, "bias", value)
    return maths.apply(link.activation, value)


def _dense(link: Link, x: Array) -> Array:
    return _with_bias(link, x @ _array(link, "kernel", x))


def _conv1d(link: Link, x: Array) -> Array:
    kernel = _array(link, "kernel", x)
    reach = (len(kernel) - 1) * link.dilation
    before = {"valid": 0, "causal": reach, "same": reach // 2}[link.padding]
    after = reach - before if link.padding == "same" else 0
    padded = np.pad(x, ((0, 0), (before, after), (0, 0)))
    steps = padded.shape[1] - reach
    inner, width = kernel.shape[1], link.outputs // link.groups
    parts = []
    for group in range(link.groups):
        part = padded[:, :, group * inner : (group + 1) * inner]
        weights = kernel[:, :, group * width : (group + 1) * width]
        total = np.zeros((len(x), steps, width), x.dtype)
        for tap, matrix in enumerate(weights):
            start = tap * link.dilation
            total += part[:, start : start + steps] @ matrix
        parts.append(total)
    return _with_bias(link, np.concatenate(parts, axis=-1))


def _batch_normalization(link: Link, x: Array) -> Array:
    variance = _array(link, "moving_variance", x)
    scale = 1 / np.sqrt(variance + x.dtype.type(link.epsilon))
    if "gamma" in link.arrays:
        scale = scale * _array(link, "gamma", x)
    value: Array = (x - _array(link, "moving_mean", x)) * scale
    return value + _array(link, "beta", x) if "beta" in link.arrays else value


def _layer_normalization(link: Link, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    value: Array = centred / np.sqrt(variance + x.dtype.type(link.epsilon))
    if "gamma" in link.arrays:
        value = value * _array(link, "gamma", x)
    return value + _array(link, "beta", x) if "beta" in link.arrays else value


def _prelu(link: Link, x: Array) -> Array:
    slopes = _array(link, "alpha", x).reshape(-1)
    return np.where(x > 0, x, slopes * x)


def _activation(link: Link, x: Array) -> Array:
    return maths.apply(link.activation, x)


def _gru(link: Link, x: Array) -> Array:
    kernel, recurrent = _array(link, "kernel", x), _array(link, "recurrent_kernel", x)
    units = link.outputs
    biases = np.zeros((2, 3 * units), x.dtype)
    if "bias" in link.arrays:
        bias = _array(link, "bias", x)
        biases[: 1 if bias.ndim == 1 else 2] = bias
    hidden = np.zeros((len(x), units), x.dtype)
    steps = []
    for step in np.swapaxes(x, 0, 1):
        given = step @ kernel + biases[0]
        before = hidden @ recurrent[:, : 2 * units] + biases[1, : 2 * units]
        gates = maths.apply(link.recurrent_activation, given[:, : 2 * units] + before)
        update, reset = gates[:, :units], gates[:, units:]
        last = recurrent[:, 2 * units :]
        if link.reset_after:
            inner = reset * (hidden @ last + biases[1, 2 * units :])
        else:
            inner = (reset * hidden) @ last
        candidate = maths.apply(link.activation, given[:, 2 * units :] + inner)
        hidden = update * hidden + (1 - update) * candidate
        steps.append(hidden)
    return np.stack(steps, axis=1) if link.return_sequences else hidden


_KINDS: Mapping[str, Callable[[Link, Array], Array]] = {
    "LSTM": _lstm,
    "Dense": _dense,
    "Conv1D": _conv1d,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "PReLU": _prelu,
    "Activation": _activation,
    "GRU": _gru,
}
