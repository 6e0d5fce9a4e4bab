"""LSTMs that TensorFlow's converter took apart: LiteRT runs the files, and tells what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert import reference

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

STEPS, WIDTH = 4, 3
X = np.random.default_rng(2).normal(size=(1, STEPS, WIDTH)).astype("f4")


def converted(layers: list[Any], keras: Any, path: Path) -> list[Any]:
    """Write a model as TensorFlow's converter does, and return its weights."""
    import tensorflow as tf

    model = keras.Sequential([keras.Input((STEPS, WIDTH), batch_size=1), *layers])
    X[0, 2] = 0  # what Masking leaves out, where there is one
    rng = np.random.default_rng(4)
    model.set_weights([rng.uniform(-0.8, 0.8, w.shape).astype("f4") for w in model.get_weights()])
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return model.get_weights()


def answer(path: Path) -> Any:
    """Return what LiteRT makes of `X`."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], X)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()


MODELS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "Keras 3, unrolled": ("keras", ({"unroll": True, "return_sequences": True},)),
    "Keras 3, WHILE": (
        "keras",
        ({"return_sequences": True}, {"recurrent_activation": "hard_sigmoid", "use_bias": False}),
    ),
    "tf_keras, WHILE": ("tf_keras", ({"activation": "relu", "go_backwards": True},)),
    "tf_keras, masked": ("tf_keras", ({"return_sequences": True}, {})),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_the_converter_took_apart(name: str, tmp_path: Path) -> None:
    import importlib

    engine, options = MODELS[name]
    keras = importlib.import_module(engine)
    is_masked = "masked" in name
    layers = [keras.layers.LSTM(2 + k, **given) for k, given in enumerate(options)]
    layers = [*([keras.layers.Masking()] if is_masked else []), *layers]
    weights = converted(layers, keras, tmp_path / "x.tflite")
    model = lc.load(tmp_path / "x.tflite")
    value: Any = X
    mine = []
    for layer in model.layers:
        assert layer.options.masked is is_masked
        mask = (X != 0).any(-1) if is_masked else None
        (value,) = reference.run(layer, value, mask=mask).outputs
        mine += [layer.cell.fused(part).read() for part in layer.cell.gate_parts]
    np.testing.assert_allclose(value, answer(tmp_path / "x.tflite"), rtol=0, atol=1e-6)
    for ours, theirs in zip(mine, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert "recovered from plain operations" in model.notes[0]


def test_a_gru_is_none(tmp_path: Path) -> None:
    import keras

    converted([keras.layers.GRU(2)], keras, tmp_path / "x.tflite")
    with pytest.raises(lc.SourceError, match="no cell of plain operators"):
        lc.load(tmp_path / "x.tflite")


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    """A GRU behind an LSTM."""
    import keras

    layers = [keras.layers.LSTM(2, return_sequences=True), keras.layers.GRU(2)]
    converted(layers, keras, tmp_path / "x.tflite")
    model = lc.load(tmp_path / "x.tflite")
    assert len(model.layers) == 1
    assert any("are left out" in note for note in model.notes)
