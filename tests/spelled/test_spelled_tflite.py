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


@pytest.mark.slow
def test_integers_are_what_they_stand_for(tmp_path: Path) -> None:
    """A model that the converter made wholly of integers: LiteRT says the scales."""
    import tensorflow as tf
    import tf_keras
    from ai_edge_litert.interpreter import Interpreter

    model = tf_keras.Sequential(
        [tf_keras.Input((STEPS, WIDTH), batch_size=1), tf_keras.layers.LSTM(5)]
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([X] for _ in range(4))
    (tmp_path / "x.tflite").write_bytes(converter.convert())
    found = lc.load(tmp_path / "x.tflite")
    assert any("the numbers that they stand for" in note for note in found.notes)
    (layer,) = found.layers
    interpreter = Interpreter(str(tmp_path / "x.tflite"))
    interpreter.allocate_tensors()
    stood_for = set()
    for detail in interpreter.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if detail["dtype"] in (np.int8, np.int32) and len(scales) == 1:
            try:
                whole = interpreter.get_tensor(detail["index"])
            except ValueError:  # of a step
                continue
            stood_for.add((whole.astype("f4") * scales.astype("f4")).tobytes())
    for gate in layer.cell.gates.values():
        for tensor in gate.tensors.values():
            assert np.ascontiguousarray(tensor.read().T).tobytes() in stood_for
    for part, weights in zip(layer.cell.gate_parts, model.get_weights(), strict=True):
        np.testing.assert_allclose(layer.cell.fused(part).read(), weights, rtol=0, atol=0.02)


@pytest.mark.slow
def test_variables_are_what_the_file_begins_with(tmp_path: Path) -> None:
    """A model that can be trained where it runs: two functions, and one that sets the weights."""
    import tensorflow as tf

    rng = np.random.default_rng(3)
    shapes = ((WIDTH, 8), (2, 8), (8,))
    first = [rng.uniform(-0.8, 0.8, shape).astype("f4") for shape in shapes]
    module = tf.Module()
    module.w, module.r, module.b = (tf.Variable(array) for array in first)

    @tf.function
    def infer(x: Any) -> Any:
        h, c, outputs = tf.zeros((1, 2)), tf.zeros((1, 2)), []
        for time in range(STEPS):
            z = tf.matmul(x[:, time], module.w) + tf.matmul(h, module.r) + module.b
            i, f, g, o = tf.split(z, 4, -1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            outputs.append(h)
        return tf.stack(outputs, 1)

    @tf.function
    def train(scale: Any) -> Any:
        for variable in (module.w, module.r, module.b):
            variable.assign(variable * scale)
        return scale

    module.infer, module.train = infer, train
    signatures = {
        "infer": infer.get_concrete_function(tf.TensorSpec(X.shape, tf.float32, name="x")),
        "train": train.get_concrete_function(tf.TensorSpec((), tf.float32, name="scale")),
    }
    tf.saved_model.save(module, str(tmp_path / "folder"), signatures=signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "folder"))
    converter.experimental_enable_resource_variables = True
    (tmp_path / "x.tflite").write_bytes(converter.convert())
    found = lc.load(tmp_path / "x.tflite")
    (layer,) = found.layers
    assert any("the values that the file begins with" in note for note in found.notes)
    for part, array in zip(layer.cell.gate_parts, first, strict=True):
        np.testing.assert_array_equal(layer.cell.fused(part).read(), array)
    (ours,) = reference.run(layer, X).outputs
    np.testing.assert_allclose(ours, np.asarray(infer(X)), rtol=0, atol=1e-6)
