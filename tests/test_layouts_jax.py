"""Flax (linen and nnx), Haiku and Equinox run the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
from layout_tools import BATCH, SINGLE, case, checked, close

import lstmconvert as lc
from lstmconvert.dtypes import Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox
    import haiku
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx
    from flax.traverse_util import unflatten_dict

NAMES = SINGLE


def nested(arrays: Mapping[str, Array]) -> Any:
    return unflatten_dict({name: jnp.asarray(array) for name, array in arrays.items()}, sep=".")


@pytest.mark.parametrize("kind", [linen.LSTMCell, linen.OptimizedLSTMCell])
@pytest.mark.parametrize("name", NAMES)
def test_flax_linen(name: str, kind: Any) -> None:
    known = case(name)
    units = known.layer.units

    class Both(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            forward = linen.RNN(kind(units), name="forward_rnn")
            backward = linen.RNN(kind(units), name="backward_rnn")
            return linen.Bidirectional(forward, backward)(x)

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


@pytest.mark.parametrize(
    ("layout", "kind"), [("nnx", nnx.LSTMCell), ("nnx-optimized", nnx.OptimizedLSTMCell)]
)
@pytest.mark.parametrize("name", NAMES)
def test_flax_nnx(name: str, layout: str, kind: Any) -> None:
    known = case(name)

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


@pytest.mark.filterwarnings("ignore:layer.*forget gate:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_haiku(name: str) -> None:
    known = case(name)

    def run(arrays: Mapping[str, Array], x: Array) -> Any:
        def forward(x: Any) -> Any:
            core = haiku.LSTM(known.layer.units)
            y, _ = haiku.dynamic_unroll(core, x, core.initial_state(BATCH), time_major=False)
            return y

        params = {"lstm/linear": {key.removeprefix("linear."): a for key, a in arrays.items()}}
        transformed = haiku.without_apply_rng(haiku.transform(forward))
        wanted = jax.eval_shape(transformed.init, jax.random.PRNGKey(0), x)
        assert jax.tree.structure(params) == jax.tree.structure(wanted)
        return transformed.apply(params, x)

    checked(known, run, "haiku")


@pytest.mark.parametrize("name", NAMES)
def test_equinox(name: str) -> None:
    known = case(name)

    def run(arrays: Mapping[str, Array], x: Array) -> Any:
        units = known.layer.units
        cell = equinox.nn.LSTMCell(
            x.shape[-1], units, use_bias="bias" in arrays, key=jax.random.PRNGKey(0)
        )
        for key, array in arrays.items():
            assert getattr(cell, key).shape == array.shape
            cell = equinox.tree_at(lambda c, k=key: getattr(c, k), cell, jnp.asarray(array))

        def one(sequence: Any) -> Any:
            def step(state: Any, value: Any) -> Any:
                state = cell(value, state)
                return state, state[0]

            return jax.lax.scan(step, (jnp.zeros(units), jnp.zeros(units)), sequence)[1]

        return jax.vmap(one)(jnp.asarray(x))

    checked(known, run, "equinox")
