"""Classes of the user's that Keras knows no name for: most subclassed models of real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

import lstmconvert as lc


class Tagger(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A subclassed model that is registered nowhere."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.encoder = keras.layers.LSTM(4, return_sequences=True)
        self.both = keras.layers.Bidirectional(keras.layers.LSTM(3))
        self.head = keras.layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.both(self.encoder(x)))


def test_a_subclassed_model_that_is_not_registered(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("f4")
    model = Tagger()
    wanted = model(x)
    model.save(tmp_path / "tagger.keras")
    read = lc.load(tmp_path / "tagger.keras")
    assert sorted(layer.class_name for layer in read.layers) == ["Bidirectional", "LSTM"]
    gate = next(layer for layer in read.layers if layer.class_name == "LSTM").forget_gate
    assert np.array_equal(gate.kernel, model.encoder.cell.kernel.numpy()[:, 4:8])
    lc.convert(tmp_path / "tagger.keras", tmp_path / "tagger.safetensors")
    lc.convert(tmp_path / "tagger.safetensors", tmp_path / "again.keras")
    again = keras.models.load_model(
        tmp_path / "again.keras", custom_objects={"Tagger": Tagger}
    )
    assert np.array_equal(again(x), wanted)


def test_a_stack_whose_first_cell_is_no_lstm(tmp_path: Path) -> None:
    cells = [keras.layers.GRUCell(2), keras.layers.LSTMCell(3)]
    inputs = keras.Input((5, 4))
    stack = keras.layers.RNN(cells, return_sequences=True, name="stack")
    keras.Model(inputs, stack(inputs)).save(tmp_path / "stack.keras")
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("f4")
    rebuilt = lc.to_keras(lc.load(tmp_path / "stack.keras")["stack"])
    assert np.array_equal(rebuilt(x), stack(x))
