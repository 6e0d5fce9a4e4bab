"""Whole models of TensorFlow.js, to Keras's own containers: Keras loads them and predicts the same.

The files are made as the converter makes them (tensorflowjs/converters/keras_h5_conversion.py): the
topology is what tf_keras says of the model, the weights are tf_keras's, layer by layer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmconvert as lc

tf_keras = pytest.importorskip("tf_keras")
keras = pytest.importorskip("keras")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

STEPS, WIDTH = 6, 4
X = np.random.default_rng(3).normal(size=(2, STEPS, WIDTH)).astype("f4")


def convolving() -> Any:
    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Input((STEPS, WIDTH)),
            layers.Conv1D(3, 2, name="zz_first"),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="mid"),
            layers.LSTM(3, name="aa_last"),
            layers.Dense(2, name="head"),
        ]
    )


def write(model: Any, path: Path, version: str | None, backend: str | None) -> None:
    """Write a model as the converter does, its layers in the order of their names."""
    layers = sorted(model.layers, key=lambda layer: layer.name)
    weights = [(w.name.removesuffix(":0"), w.numpy()) for layer in layers for w in layer.weights]
    specs = [{"name": n, "shape": list(a.shape), "dtype": "float32"} for n, a in weights]
    topology: dict[str, Any] = {"model_config": json.loads(model.to_json())}
    for key in ("keras_version", "backend"):
        topology["model_config"].pop(key)
    if version is not None:
        topology |= {"keras_version": version, "backend": backend}
    shard = path.with_name("group1-shard1of1.bin")
    shard.write_bytes(b"".join(array.tobytes() for _, array in weights))
    manifest = [{"paths": [shard.name], "weights": specs}]
    text = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    path.write_text(json.dumps(text))


@pytest.mark.parametrize(
    ("version", "backend"), [("2.15.0", "tensorflow"), ("tfjs-layers 4.22.0", "tensor_flow.js")]
)
@pytest.mark.parametrize(("target", "library"), [("keras", keras), ("h5", tf_keras)])
def test_a_whole_model_predicts_the_same(
    target: str, library: Any, version: str, backend: str, tmp_path: Path
) -> None:
    tf_keras.utils.set_random_seed(1)
    model = convolving()
    write(model, tmp_path / "model.json", version, backend)
    destination = tmp_path / f"m.{target}"
    assert lc.convert(tmp_path / "model.json", destination).whole_model
    loaded = library.models.load_model(str(destination), compile=False)
    theirs = np.asarray(model(X))
    np.testing.assert_allclose(np.asarray(loaded(X)), theirs, atol=1e-6)
