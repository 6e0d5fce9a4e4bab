"""Classes of the user's that Keras knows no name for: most subclassed models of real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import lstmconvert as lc

pytestmark = pytest.mark.engines

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"


class Tagger(keras.Model):
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


class Encoder(tf_keras.layers.Layer):
    """A layer of the user's own that runs two of Keras's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = tf_keras.layers.LSTM(3, return_sequences=True, name="first")
        self.both = tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(2), name="both")

    def call(self, x: Any) -> Any:
        return self.both(self.first(x))


class Mine(tf_keras.layers.LSTM):
    """A layer of the user's own that may compute anything."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["old.h5", "old.weights-only.h5"])
def test_layers_inside_a_layer_of_the_user_s_in_a_legacy_file(name: str, tmp_path: Path) -> None:
    inputs = tf_keras.Input((5, 4))
    mine = Mine(2, return_sequences=True, name="mine")
    last = tf_keras.layers.LSTM(1, name="last")
    encoder = Encoder(name="encoder")
    told = tf_keras.layers.RepeatVector(2)(encoder(mine(inputs)))
    model = tf_keras.Model(inputs, last(told))
    (model.save if name == "old.h5" else model.save_weights)(tmp_path / name)
    read = lc.load(tmp_path / name)
    own = {"last", "encoder/first", "encoder/both"}
    assert set(read) == (own if name == "old.h5" else own | {"mine"})
    for found, layer in (("encoder/first", encoder.first), ("last", last)):
        forget = read[found].forget_gate.kernel
        assert np.array_equal(forget, layer.cell.kernel.numpy()[:, layer.units : 2 * layer.units])
    backward = read["encoder/both"].backward
    assert backward is not None
    kernel = encoder.both.backward_layer.cell.kernel.numpy()
    assert np.array_equal(backward.lstm_cells[0].forget_gate.kernel, kernel[:, 2:4])
    assert str(read["last"].cell.options.activation) == ("tanh" if name == "old.h5" else "unknown")
    assert any("mine" in note for note in read.notes) is (name == "old.h5")


@pytest.mark.filterwarnings("ignore")
def test_a_subclassed_model_s_weights_have_the_layers_own_names(tmp_path: Path) -> None:
    class Old(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__(name="old")
            self.run = tf_keras.layers.LSTM(3, name="lstm")

        def call(self, x: Any) -> Any:
            return self.run(x)

    model = Old()
    model(np.zeros((1, 2, 3), "float32"))
    model.save_weights(tmp_path / "old.h5")
    assert list(lc.load(tmp_path / "old.h5")) == ["lstm"]


def test_the_branches_that_a_merge_of_keras_1_joins(tmp_path: Path) -> None:
    source = FIXTURES / "keras-1.2.2" / "sequential.h5"
    shutil.copy(source, tmp_path / "merged.h5")
    with h5py.File(tmp_path / "merged.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        first, *rest = config["config"]
        branch = {"class_name": "Sequential", "config": [first]}
        merge = {"name": "merge_1", "mode": "concat", "layers": [branch, rest[0]]}
        config["config"] = [{"class_name": "Merge", "config": merge}, *rest[1:]]
        file.attrs["model_config"] = json.dumps(config).encode()
    found, wanted = lc.load(tmp_path / "merged.h5"), lc.load(source)
    assert list(found) == list(wanted)
    for name, layer in wanted.items():
        assert np.array_equal(found[name].forget_gate.kernel, layer.forget_gate.kernel)
        assert found[name].cell.options == layer.cell.options
    with pytest.raises(lc.LSTMConvertError, match="Merge"):
        lc.convert(tmp_path / "merged.h5", tmp_path / "today.keras")
