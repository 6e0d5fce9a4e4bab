"""Flax's optimized cells take the arrays as they are, and its reverse is Keras's go_backwards.

That the plain cells answer as Keras does, case by case, is in test_live.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
from support.layout_tools import case, close

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx
    from flax.traverse_util import unflatten_dict

NAMES = ("plain", "no-bias", "bidirectional")


def nested(arrays: Mapping[str, Array]) -> Any:
    return unflatten_dict({name: jnp.asarray(array) for name, array in arrays.items()}, sep=".")


@pytest.mark.parametrize("name", NAMES)
def test_flax_linen(name: str) -> None:
    known, kind = case(name), linen.OptimizedLSTMCell
    units = known.layer.units

    module = (
        linen.Bidirectional(linen.RNN(kind(units)), linen.RNN(kind(units)))
        if known.both
        else linen.RNN(kind(units))
    )
    wanted = jax.eval_shape(module.init, jax.random.PRNGKey(0), known.x)["params"]
    params = nested(lc.arrange(known.layer, "flax"))
    assert jax.tree.structure(params) == jax.tree.structure(wanted)
    close(module.apply({"params": params}, known.x), known.y)


def test_flax_go_backwards_is_its_reverse() -> None:
    """RNN(reverse=True) answers in reverse, as Keras's go_backwards does."""
    import keras
    import numpy as np

    known = case("plain")
    layer = keras.layers.LSTM(3, return_sequences=True, go_backwards=True)
    layer(known.x)
    layer.set_weights([0.5 * w + 0.1 for w in layer.get_weights()])
    params = nested(lc.arrange(lc.from_keras(layer), "flax"))
    module = linen.RNN(linen.LSTMCell(3), reverse=True)
    close(module.apply({"params": params}, known.x), np.asarray(layer(known.x)))


@pytest.mark.parametrize("name", NAMES)
def test_flax_nnx(name: str) -> None:
    known, kind, layout = case(name), nnx.OptimizedLSTMCell, "nnx-optimized"

    def rnn() -> Any:
        return nnx.RNN(kind(known.x.shape[-1], known.layer.units, rngs=nnx.Rngs(0)))

    module = nnx.Bidirectional(rnn(), rnn()) if known.both else rnn()
    pure = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    params = nested(lc.arrange(known.layer, layout))
    assert jax.tree.structure(params) == jax.tree.structure(pure)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, pure)
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, params)
    nnx.update(module, state)
    close(module(jnp.asarray(known.x)), known.y)
