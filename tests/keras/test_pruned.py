"""Pruning wrappers of model-optimization are taken away, and what is in them computes the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmconvert as lc

tf_keras = pytest.importorskip("tf_keras")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
X = np.random.default_rng(3).normal(size=(3, 5, 4)).astype("f4")
HAS_PACKAGE = importlib.util.find_spec("tensorflow_model_optimization") is not None


class PruneLowMagnitude(tf_keras.layers.Wrapper):  # type: ignore[misc]  # tf_keras has no types
    """What the wrapper of that package stores: its config and its variables."""

    def __init__(self, layer: Any, **options: Any) -> None:
        super().__init__(layer, **{"name": f"prune_low_magnitude_{layer.name}", **options})

    def build(self, shape: Any) -> None:
        super().build(shape)
        for weight in self.layer.trainable_weights:
            if "bias" in weight.name:
                continue
            self.add_weight("mask", weight.shape, initializer="ones", trainable=False)
            self.add_weight("threshold", (), trainable=False)
        self.add_weight("pruning_step", (), "int64", trainable=False)

    def call(self, x: Any) -> Any:
        return self.layer(x)

    def get_config(self) -> dict[str, Any]:
        schedule = {"class_name": "ConstantSparsity", "config": {"target_sparsity": 0.5}}
        return {**super().get_config(), "pruning_schedule": schedule, "block_size": (1, 1)}


def wrapped(layer: Any) -> Any:
    if HAS_PACKAGE:
        import tensorflow_model_optimization as package

        return package.sparsity.keras.prune_low_magnitude(layer)
    return PruneLowMagnitude(layer)


@pytest.mark.parametrize("kind", ["functional", "nested", "sequential"])
def test_an_h5_is_read_as_without_them(kind: str, tmp_path: Path) -> None:
    layers = tf_keras.layers
    # Of an LSTM it has two masks of one name, and TensorFlow writes no .h5 of these.
    lstm, dense = layers.LSTM(3, name="lstm"), wrapped(layers.Dense(2, name="dense"))
    first = wrapped(layers.Dense(3, name="first"))
    norm = layers.BatchNormalization(name="norm")
    if kind == "sequential":
        model = tf_keras.Sequential([layers.Input((5, 4)), first, lstm, norm, dense])
    else:
        inputs = layers.Input((5, 4))
        inner = tf_keras.Sequential([layers.Input((3,)), norm, dense], name="inner")
        last = inner if kind == "nested" else lambda x: dense(norm(x))
        model = tf_keras.Model(inputs, last(lstm(first(inputs))))
    model.save(str(tmp_path / "m.h5"))
    read = lc.load(tmp_path / "m.h5")
    assert list(read) == ["lstm"]
    assert "prune_low_magnitude_first" in read.neighbours
    assert any("6 masks, thresholds and counters" in text for text in read.notes)
    assert not any("mask" in path for path in read.other)
    for target in ("new.keras", "same.h5"):
        result = lc.convert(tmp_path / "m.h5", tmp_path / target, warn=False)
        assert result.whole_model
        assert any("pruning wrappers" in text for text in result.warnings)
    keras = pytest.importorskip("keras")
    wanted = np.asarray(model(X))
    loaded = keras.saving.load_model(str(tmp_path / "new.keras"))
    np.testing.assert_allclose(np.asarray(loaded(X)), wanted, atol=1e-6)
    same = tf_keras.models.load_model(str(tmp_path / "same.h5"))
    np.testing.assert_allclose(np.asarray(same(X)), wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["m.keras", "saved"])
def test_a_keras_archive_and_a_savedmodel_are_read_as_without_them(
    name: str, tmp_path: Path
) -> None:
    """The groups of a class are counted: `dense` is another layer without the wrappers."""
    layers = tf_keras.layers
    inner = tf_keras.Sequential([layers.Input((3,)), layers.Dense(2), wrapped(layers.Dense(4))])
    first, plain, last = wrapped(layers.Dense(3)), layers.Dense(5), wrapped(layers.Dense(2))
    steps = [layers.Input((5, 4)), first, plain, layers.LSTM(3), inner, last]
    model = tf_keras.Sequential(steps)
    random = np.random.default_rng(5)
    model.set_weights([
        random.normal(size=w.shape).astype(w.dtype) if w.dtype.kind == "f" else w
        for w in model.get_weights()
    ])
    model.save(str(tmp_path / name), save_format="keras" if name == "m.keras" else "tf")
    result = lc.convert(tmp_path / name, tmp_path / "new.keras", era="keras3", warn=False)
    assert result.whole_model
    assert any("9 masks, thresholds and counters" in text for text in result.warnings)
    keras = pytest.importorskip("keras")
    loaded = keras.saving.load_model(str(tmp_path / "new.keras"))
    np.testing.assert_allclose(np.asarray(loaded(X)), np.asarray(model(X)), atol=1e-6)
