"""The engines on JAX: Flax, nnx, Haiku and Equinox, each run through its live object."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.layer import LSTMLayer
from lstmconvert.live.sources import one_way


def flax(layer: LSTMLayer, x: Array) -> Array:
    """Run `nn.RNN`, or `nn.Bidirectional`."""
    import jax

    from lstmconvert.live.flax import to_flax

    with jax.enable_x64(layer.dtype.itemsize > 4):
        module, variables = to_flax(layer)
        return _one(module.apply(variables, jax.numpy.asarray(x.astype(layer.dtype))))


def nnx(layer: LSTMLayer, x: Array) -> Array:
    """Run `nnx.RNN`, or `nnx.Bidirectional`."""
    import jax

    from lstmconvert.live.nnx import to_nnx

    with jax.enable_x64(layer.dtype.itemsize > 4):
        return _one(to_nnx(layer)(jax.numpy.asarray(x.astype(layer.dtype))))


def _one(found: Any) -> Array:
    outputs = found if isinstance(found, tuple) else (found,)
    return np.concatenate([np.asarray(output) for output in outputs], axis=-1)


def haiku(layer: LSTMLayer, x: Array) -> Array:
    """Run `hk.LSTM`, one cell and direction at a time."""
    import jax

    from lstmconvert.live.haiku import to_haiku

    with jax.enable_x64(layer.dtype.itemsize > 4):

        def run(made: Any, x: Array) -> Array:
            transformed, params = made
            return np.asarray(transformed.apply(params, jax.numpy.asarray(x)))

        return one_way(to_haiku(layer), x.astype(layer.dtype), run)


def equinox(layer: LSTMLayer, x: Array) -> Array:
    """Run `eqx.nn.LSTMCell`, scanned over time and mapped over the batch."""
    import jax

    from lstmconvert.live.equinox import to_equinox

    def run(cell: Any, x: Array) -> Array:
        state = jax.numpy.zeros(cell.hidden_size, x.dtype)

        def step(carry: Any, value: Any) -> Any:
            carry = cell(value, carry)
            return carry, carry[0]

        outputs: Any = jax.vmap(lambda sequence: jax.lax.scan(step, (state, state), sequence)[1])
        return np.asarray(outputs(jax.numpy.asarray(x)))

    with jax.enable_x64(layer.dtype.itemsize > 4):
        return one_way(to_equinox(layer), x.astype(layer.dtype), run)
