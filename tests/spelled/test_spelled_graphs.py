"""LSTMs without an operator in frozen graphs of TensorFlow: Keras's layers, unrolled and in loops.

TensorFlow makes the graphs; its own outputs and weights are what ours are compared with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert import reference

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

STEPS, WIDTH = 4, 3
X = np.random.default_rng(2).normal(size=(2, STEPS, WIDTH)).astype("f4")


def frozen(layers: list[Any], keras: Any, path: Path, *, lowered: bool) -> tuple[Any, list[Any]]:
    """Write the frozen graph of a model; return what it gives for `X`, and its weights.

    `lowered`: loops are nodes of the graph, as in TensorFlow 1; else they are functions.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants as convert

    model = keras.Sequential([keras.Input((STEPS, WIDTH)), *layers])
    X[0, 2] = 0  # what Masking leaves out, where there is one
    rng = np.random.default_rng(4)
    model.set_weights([rng.uniform(-0.8, 0.8, w.shape).astype("f4") for w in model.get_weights()])
    signature = tf.TensorSpec((None, STEPS, WIDTH), tf.float32)
    function = tf.function(lambda x: model(x)).get_concrete_function(signature)
    constant = convert.convert_variables_to_constants_v2(function, lower_control_flow=lowered)
    path.write_bytes(constant.graph.as_graph_def().SerializeToString())
    return np.asarray(model(X)), model.get_weights()


STACK: tuple[dict[str, Any], ...] = (
    {"activation": "relu", "return_sequences": True},
    {"recurrent_activation": "hard_sigmoid", "go_backwards": True, "use_bias": False},
)
MODELS: dict[str, tuple[str, tuple[dict[str, Any], ...], bool]] = {
    "tf_keras, loops": ("tf_keras", STACK, True),
    "tf_keras, functions": ("tf_keras", ({"return_sequences": True},), False),
    "tf_keras, unrolled": ("tf_keras", ({"unroll": True, "return_sequences": True},), False),
    "Keras 3, loops": ("keras", STACK, True),
    "tf_keras, masked": ("tf_keras", ({"return_sequences": True}, {}), False),
    "Keras 3, masked": ("keras", ({"return_sequences": True, "zero_output_for_mask": True},), True),
    "tf_keras, unrolled, masked": ("tf_keras", ({"unroll": True, "return_sequences": True},), True),
    "Keras 3, functions": ("keras", STACK, False),
}


@pytest.mark.parametrize("name", MODELS)
def test_keras_layers(name: str, tmp_path: Path) -> None:
    import importlib

    engine, options, lowered = MODELS[name]
    keras = importlib.import_module(engine)
    is_masked = "masked" in name
    layers = [keras.layers.LSTM(2 + k, **given) for k, given in enumerate(options)]
    layers = [*([keras.layers.Masking()] if is_masked else []), *layers]
    y, weights = frozen(layers, keras, tmp_path / "x.pb", lowered=lowered)
    model = lc.load(tmp_path / "x.pb")
    value: Any = X
    mine = []
    for layer in model.layers:
        assert layer.options.masked is is_masked
        mask = (X != 0).any(-1) if is_masked else None
        (value,) = reference.run(layer, value, mask=mask).outputs
        mine += [layer.cell.fused(part).read() for part in layer.cell.gate_parts]
    np.testing.assert_allclose(value, y, rtol=0, atol=1e-6)
    for ours, theirs in zip(mine, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    backwards = [layer.forward.options.go_backwards for layer in model.layers]
    assert backwards == [bool(given.get("go_backwards")) for given in options]
    assert not any("kernel" in name or "MatMul" in name for name in model.other)


def test_what_is_recovered_goes_everywhere(tmp_path: Path) -> None:
    """To a Keras file, which Keras opens and runs."""
    import keras

    layers = [keras.layers.LSTM(2, activation="relu", return_sequences=True)]
    y, _ = frozen(layers, keras, tmp_path / "x.pb", lowered=False)
    lc.convert(tmp_path / "x.pb", tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_allclose(np.asarray(again(X)), y, rtol=0, atol=1e-6)


def test_a_layer_that_runs_often_is_one(tmp_path: Path) -> None:
    import tf_keras

    inner, side = tf_keras.layers.LSTM(2, unroll=True), tf_keras.Input((STEPS, WIDTH))
    both = tf_keras.layers.Concatenate()([inner(side), inner(2 * side)])
    y, weights = frozen([tf_keras.Model(side, both)], tf_keras, tmp_path / "x.pb", lowered=False)
    model = lc.load(tmp_path / "x.pb")
    (layer,) = model.layers
    assert any("the graph runs it 2 times" in note for note in model.notes)
    for part, theirs in zip(layer.cell.gate_parts, weights, strict=True):
        np.testing.assert_array_equal(layer.cell.fused(part).read(), theirs)
    ours = [reference.run(layer, x).outputs[0] for x in (X, 2 * X)]
    np.testing.assert_allclose(np.concatenate(ours, axis=-1), y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_other_cells_are_none(kind: str, tmp_path: Path) -> None:
    import tf_keras

    frozen([getattr(tf_keras.layers, kind)(2)], tf_keras, tmp_path / "x.pb", lowered=True)
    with pytest.raises(lc.NoLSTM):
        lc.load(tmp_path / "x.pb")
