"""Whole models without an LSTM layer go on to today's Keras and to ONNX. They have no gates.

The oracle is the Keras that wrote the file: what it predicted is what Keras 3 predicts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import failure, run

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines

STEPS, INPUTS = 6, 4


def _gru(layers: Any) -> list[Any]:
    return [
        layers.Masking(name="mask"),
        layers.Bidirectional(layers.GRU(3, return_sequences=True, time_major=False), name="both"),
        layers.GRU(2, reset_after=False, recurrent_activation="hard_sigmoid", name="before"),
        layers.Dense(2, activation="softmax", name="head"),
    ]


def _simple(layers: Any) -> list[Any]:
    return [
        layers.SimpleRNN(3, go_backwards=True, name="simple"),
        layers.Dense(1, use_bias=False, name="head"),
    ]


def _convolution(layers: Any) -> list[Any]:
    return [
        layers.Conv1D(5, 3, padding="causal", activation="relu", name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.MaxPooling1D(2, name="pool"),
        layers.Flatten(name="flat"),
        layers.Dense(2, name="head"),
    ]


MODELS = {"gru": _gru, "simple": _simple, "convolution": _convolution}


def made(build: Callable[[Any], list[Any]], path: Path) -> tuple[Array, Array]:
    """Write a model of Keras 2 with random weights; return an input, and what it predicts."""
    model, rng = _model(build)
    x = rng.normal(size=(3, STEPS, INPUTS)).astype(np.float32)
    model.save(path)
    return x, np.asarray(model(x))


def _model(build: Callable[[Any], list[Any]]) -> tuple[Any, np.random.Generator]:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((STEPS, INPUTS)), *build(tf_keras.layers)])
    rng = np.random.default_rng(3)
    shapes = [weight.shape for weight in model.get_weights()]
    # A variance is positive.
    model.set_weights([0.1 + np.abs(rng.normal(scale=0.5, size=shape)) for shape in shapes])
    return model, rng


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", MODELS)
def test_it_predicts_the_same_in_keras_3(name: str, suffix: str, tmp_path: Path) -> None:
    import keras

    source = tmp_path / f"old{suffix}"
    x, wanted = made(MODELS[name], source)
    for target in (".keras", ".h5"):
        path = tmp_path / f"new{target}"
        done = run("convert", source, path, *(["--era", "keras3"] if suffix == target else []))
        assert done.code == 0, done.err
        assert "no LSTM layer, the whole model" in done.err
        model = keras.saving.load_model(path, compile=False)
        assert np.abs(np.asarray(model(x)) - wanted).max() <= 1e-6
    # From one store of Keras 3 into the other and back: the same bits.
    lc.convert(tmp_path / "new.keras", tmp_path / "again.h5")
    lc.convert(tmp_path / "again.h5", tmp_path / "again.keras")
    first, second = (
        keras.saving.load_model(tmp_path / file, compile=False).get_weights()
        for file in ("new.keras", "again.keras")
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("weights", ["x.weights.h5", "x.h5", "x.ckpt"])
def test_weights_and_a_config_are_a_whole_model(weights: str, tmp_path: Path) -> None:
    import keras

    model, _ = _model(_gru)
    model.save_weights(tmp_path / weights)
    config, path = tmp_path / "config.json", tmp_path / "new.keras"
    config.write_text(model.to_json())
    done = run("convert", tmp_path / weights, path, "--config", config)
    assert done.code == 0, done.err
    new = keras.saving.load_model(path, compile=False)
    pairs = zip(new.get_weights(), model.get_weights(), strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)

    # The config of a model that lacks its first layer with weights.
    value = json.loads(model.to_json())
    del value["config"]["layers"][2]
    config.write_text(json.dumps(value))
    error, _ = failure("convert", tmp_path / weights, tmp_path / "x.keras", "--config", config)
    assert "of another model" in error or "no layer of the config" in error


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", MODELS)
def test_it_predicts_the_same_in_onnx(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    source = tmp_path / "old.h5"
    x, wanted = made(MODELS[name], source)
    assert run("convert", source, tmp_path / "new.onnx", "--whole").code == 0
    session = onnxruntime.InferenceSession(tmp_path / "new.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x})
    assert np.abs(output - wanted).max() <= 2e-6


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_it_has_no_gates_to_name(tmp_path: Path) -> None:
    source = tmp_path / "old.h5"
    made(_gru, source)
    shown = run("inspect", source)
    assert "No LSTM layer: there are no gates to name." in shown.out
    assert "before: GRU, 6 inputs, 2 units" in shown.out
    facts = json.loads(run("inspect", source, "--json").out)
    assert facts["layers"] == []
    assert facts["parameters"]["lstm"] == 0
    error, hint = failure("convert", source, tmp_path / "x.safetensors")
    assert "the model has no LSTM layer; found layers" in error
    assert "goes to .keras, .h5 and .onnx" in hint
    for command in (
        ("convert", source, tmp_path / "x.onnx"),
        ("convert", source, tmp_path / "x.keras", "--lstm-only"),
        ("convert", source, tmp_path / "x.keras", "--layer", "both"),
        ("view", source, tmp_path / "x.html"),
        ("verify", source),
    ):
        error, _ = failure(*command)
        assert "no LSTM layer" in error, command
    with pytest.raises(lc.NoLSTM):
        lc.load(source)
    report = lc.convert_many([source], tmp_path / "out", suffix=".keras")
    assert [outcome.kind for outcome in report] == ["NoLSTM"]
    assert {path.name for path in tmp_path.iterdir()} <= {"old.h5", "out"}
