"""The forward pass against tf_keras (Keras 2): its hard_sigmoid, time_major, and what it shares.

Both Keras generations live in one process here; only tf_keras is called.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from support.neutral import from_keras_layer

from lstmconvert.model.activations import KERAS2, KERAS3
from lstmconvert.reference import run

pytestmark = pytest.mark.engines

tf_keras = pytest.importorskip("tf_keras")
layers = tf_keras.layers

#: As in test_reference_keras.py: the same operations in another order.
FLOAT64 = 1e-13
FLOAT32 = 2e-6
BATCH, STEPS, INPUTS = 3, 4, 4
SCATTERED = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]], bool)
MASKS = {"none": None, "scattered": SCATTERED, "nothing": np.zeros((BATCH, STEPS), bool)}
BOTH = (False, True)
#: The names of tf_keras; `gelu` has float32 constants in float64 (test_maths.py).
NAMES = (
    *("elu", "hard_sigmoid", "linear", "mish", "relu", "selu", "sigmoid", "softmax", "softplus"),
    *("softsign", "swish", "tanh"),
)


def check(layer: Any, shape: tuple[int, ...] = (INPUTS,), mask: Any = None) -> None:
    """Give a layer random weights, call it and the forward pass, compare all it returns."""
    rng = np.random.default_rng(0)
    dtype, time_major = layer.dtype, getattr(layer, "time_major", False)
    x = rng.normal(size=(BATCH, STEPS, *shape)).astype(dtype)
    if time_major:
        x, mask = x.swapaxes(0, 1), None if mask is None else mask.T
    layer.build(x.shape)
    layer.set_weights([0.4 * rng.normal(size=w.shape) for w in layer.get_weights()])
    theirs = layer(x, mask=None if mask is None else tf_keras.backend.constant(mask, "bool"))
    flat = [
        np.asarray(a) for a in (_flat(theirs) if isinstance(theirs, list | tuple) else [theirs])
    ]
    ours = run(from_keras_layer(layer, KERAS2), x, mask=mask)
    mine = [*ours.outputs, *ours.states][: len(flat)]
    assert [a.shape for a in mine] == [a.shape for a in flat]
    tolerance = FLOAT64 if dtype == "float64" else FLOAT32
    for one, two in zip(mine, flat, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        return [values]
    return [leaf for value in values for leaf in _flat(value)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("time_major", BOTH)
@pytest.mark.parametrize("backwards", BOTH)
def test_lstm(backwards: bool, time_major: bool, mask: str) -> None:
    for sequences, zero in itertools.product(BOTH, BOTH):
        layer = layers.LSTM(
            3,
            return_sequences=sequences,
            return_state=True,
            go_backwards=backwards,
            time_major=time_major,
            zero_output_for_mask=zero,
            dtype="float64",
        )
        check(layer, mask=MASKS[mask])


@pytest.mark.parametrize("name", NAMES)
def test_activations(name: str) -> None:
    for role in ("activation", "recurrent_activation"):
        check(layers.LSTM(3, return_sequences=True, dtype="float64", **{role: name}))


def test_hard_sigmoid_of_keras_3_is_another() -> None:
    layer = layers.LSTM(3, recurrent_activation="hard_sigmoid", dtype="float64")
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, INPUTS))
    theirs = np.asarray(layer(x))
    wrong = run(from_keras_layer(layer, KERAS3), x).outputs[0]
    assert np.abs(wrong - theirs).max() > 1e-3
    np.testing.assert_allclose(
        run(from_keras_layer(layer, KERAS2), x).outputs[0], theirs, atol=FLOAT64
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
def test_bidirectional(merge: str | None, dtype: str) -> None:
    common = {"return_sequences": True, "return_state": True, "dtype": dtype}
    one = layers.LSTM(3, recurrent_activation="hard_sigmoid", **common)
    other = layers.LSTM(3, activation="softsign", go_backwards=True, **common)
    layer = layers.Bidirectional(one, merge_mode=merge, backward_layer=other, dtype=dtype)
    check(layer, mask=SCATTERED)


@pytest.mark.parametrize("backwards", BOTH)
def test_stack(backwards: bool) -> None:
    cells = [layers.LSTMCell(width, dtype="float64") for width in (5, 2, 3)]
    stack = layers.StackedRNNCells(cells, dtype="float64")
    options = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    check(layers.RNN(stack, go_backwards=backwards, **options), mask=SCATTERED)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_conv_lstm(padding: str) -> None:
    """Keras 2's default recurrent activation here is its hard_sigmoid."""
    layer = layers.ConvLSTM2D(
        3, (3, 2), strides=(2, 1), padding=padding, return_sequences=True, dtype="float64"
    )
    assert layer.get_config()["recurrent_activation"] == "hard_sigmoid"
    check(layer, shape=(6, 5, 2), mask=SCATTERED)
