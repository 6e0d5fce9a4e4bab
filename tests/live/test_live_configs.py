"""What a layer's config says beyond the typed options comes back too: stacks, activation layers,
how tf_keras multiplies. Configs are equal as JSON, weights and outputs bit for bit."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import keras_tools as tools

import lstmconvert as lc
from lstmconvert.tensors.dtypes import same_bits

pytestmark = pytest.mark.engines

keras = pytest.importorskip("keras")
tf_keras = pytest.importorskip("tf_keras")

X = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("f4")
LIBRARIES = {"keras": keras, "tf_keras": tf_keras}


def filled(layer: Any) -> Any:
    """Build a layer, and give it weights of its own."""
    rng = np.random.default_rng(1)
    layer.build(X.shape)
    layer(X)  # activation layers are built by the first call
    layer.set_weights(
        [rng.normal(size=w.shape).astype(w.dtype.name) for w in layer.get_weights()]
    )
    return layer


def config_of(layer: Any) -> Any:
    return tools.as_json(layer.get_config())


def assert_comes_back(original: Any, library: str, path: Path | None = None) -> None:
    layer = lc.from_keras(original)
    if path is not None:
        lc.save(layer, path)
        (layer,) = lc.load(path).layers
    live = lc.to_keras(layer, library=library)
    assert type(live) is type(original)
    assert config_of(live) == config_of(original)
    for one, two in zip(live.get_weights(), original.get_weights(), strict=True):
        assert same_bits(one, two)
    tools.assert_same_outputs(tools.call(live, [X]), tools.call(original, [X]))


def stack(layers: Any, *sizes: int, **options: Any) -> Any:
    return layers.StackedRNNCells([layers.LSTMCell(size) for size in sizes], **options)


KINDS: dict[str, Callable[[Any], Any]] = {
    "stack of one": lambda la: la.RNN(stack(la, 3)),
    "list of one": lambda la: la.RNN([la.LSTMCell(3)]),
    "policy of a stack": lambda la: la.RNN(
        stack(la, 3, 2, name="mine", dtype="mixed_float16"), dtype="float32"
    ),
    "frozen stack": lambda la: la.RNN(stack(la, 3, 2, trainable=False)),
    "stack both ways": lambda la: la.Bidirectional(
        la.RNN(stack(la, 3, 2, name="there")),
        backward_layer=la.RNN(stack(la, 2, 4, name="back"), go_backwards=True),
    ),
    "stack mirrored": lambda la: la.Bidirectional(la.RNN(stack(la, 3, 2, name="mine"))),
    "sequences both ways": lambda la: la.Bidirectional(la.LSTM(2, return_sequences=True)),
    "activation layer": lambda la: la.LSTM(3, activation=la.ReLU(2.0, threshold=0.5, name="mine")),
    "activation layer both ways": lambda la: la.Bidirectional(la.LSTM(3, activation=la.ReLU(2.0))),
    "gru beside": lambda la: la.RNN([la.LSTMCell(3), la.GRUCell(2)]),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", KINDS)
def test_live_layers_come_back(kind: str, library: str, tmp_path: Path) -> None:
    original = filled(KINDS[kind](LIBRARIES[library].layers))
    assert_comes_back(original, library)
    assert_comes_back(original, library, tmp_path / "layer.safetensors")


TF_KERAS: dict[str, Callable[[Any], Any]] = {
    "gate by gate": lambda la: la.RNN(la.LSTMCell(3, implementation=1)),
    "gate by gate in a stack": lambda la: la.RNN(
        [la.LSTMCell(3), la.LSTMCell(2, implementation=1)]
    ),
    "layer": lambda la: la.LSTM(3, implementation=1),
    "time_major": lambda la: la.LSTM(3, time_major=True, return_sequences=True),
    "leaky": lambda la: la.LSTM(3, activation=la.LeakyReLU(0.25)),
}


@pytest.mark.parametrize("kind", TF_KERAS)
def test_what_only_tf_keras_has(kind: str) -> None:
    assert_comes_back(filled(TF_KERAS[kind](tf_keras.layers)), "tf_keras")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_wrapped_layer_is_taken_out(library: str) -> None:
    layers = LIBRARIES[library].layers
    wrapper = layers.TimeDistributed(layers.LSTM(2, name="inner"), name="outer")
    wrapper.build((1, 3, 4, 5))
    layer = lc.from_keras(wrapper)
    assert layer.name == "outer/inner"
    live = lc.to_keras(layer, library=library)
    assert config_of(live) == config_of(wrapper.layer)


def test_a_global_policy_changes_nothing() -> None:
    both = keras.layers.Bidirectional(keras.layers.RNN([keras.layers.LSTMCell(2)]))
    original = filled(both)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert_comes_back(original, "keras")
    finally:
        keras.config.set_dtype_policy(before)


def test_reading_and_building_warn_of_nothing() -> None:
    original = filled(keras.layers.LSTM(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lc.to_keras(lc.from_keras(original))


class Unregistered(keras.regularizers.Regularizer):
    """A user's own, of which Keras knows no name but its class's."""

    def __call__(self, x: Any) -> Any:
        return 0.0 * keras.ops.sum(x)

    def get_config(self) -> dict[str, Any]:
        return {}


def test_an_unregistered_object_is_custom() -> None:
    layer = lc.from_keras(filled(keras.layers.LSTM(2, kernel_regularizer=Unregistered())))
    with pytest.raises(lc.LSTMConvertError, match="a custom kernel_regularizer"):
        lc.to_keras(layer)
    live = lc.to_keras(layer, custom_objects={"Unregistered": Unregistered})
    assert isinstance(live.cell.kernel_regularizer, Unregistered)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_with_a_stack_of_one(suffix: str, tmp_path: Path) -> None:
    original = filled(keras.layers.RNN(stack(keras.layers, 3)))
    lc.save(lc.from_keras(original), tmp_path / f"alone{suffix}")
    model = keras.models.load_model(tmp_path / f"alone{suffix}", compile=False)
    tools.assert_same_outputs(tools.call(model, [X]), tools.call(original, [X]))
    assert type(model.layers[-1].cell) is keras.layers.StackedRNNCells


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.filterwarnings("ignore:bfloat16")
def test_bfloat16_that_keras_cannot_read_back(tmp_path: Path) -> None:
    """Keras writes a legacy `.h5` of bfloat16 with nothing that says so, and fails to load it."""
    lstm = keras.layers.LSTM(2, dtype="bfloat16", recurrent_initializer="glorot_uniform")
    model = keras.Sequential([keras.Input((4, 5)), lstm])
    model.save(tmp_path / "lost.h5")
    with pytest.raises(Exception, match="No cast function"):
        keras.models.load_model(tmp_path / "lost.h5", compile=False)
    lc.convert(tmp_path / "lost.h5", tmp_path / "found.keras")
    again = keras.models.load_model(tmp_path / "found.keras", compile=False)
    tools.assert_same_outputs(tools.call(again, [X]), tools.call(model, [X]))


@pytest.mark.parametrize("source", ["keras-3.15.1/seed95.keras", "keras-2.3.1/seed95.h5"])
@pytest.mark.parametrize("alone", [True, False])
def test_what_keras_3_3_and_3_5_ask_of_a_file(source: str, alone: bool, tmp_path: Path) -> None:
    """A group of the model itself, and no key or class that they do not know (tried with 3.3.3,
    3.5.0 and 3.10.0)."""
    path = tmp_path / "new.keras"
    lc.convert(tools.FIXTURES / source, tmp_path / "g.safetensors", lstm_only=alone)
    lc.convert(tmp_path / "g.safetensors", path)
    with zipfile.ZipFile(path) as archive:
        store = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(store) as file:
        assert "vars" in file
    if alone or source.endswith(".h5"):
        text = str(tools.config_of(path))
        assert "'Orthogonal'" not in text


def test_orthogonal_by_the_name_that_every_keras_3_knows(tmp_path: Path) -> None:
    initializer = keras.initializers.Orthogonal(gain=2.0)
    layer = filled(keras.layers.LSTM(2, recurrent_initializer=initializer))
    lc.save(lc.from_keras(layer), tmp_path / "a.keras")
    assert "'OrthogonalInitializer'" in str(tools.config_of(tmp_path / "a.keras"))
    again = keras.models.load_model(tmp_path / "a.keras", compile=False).layers[-1]
    assert again.get_config()["recurrent_initializer"] == layer.get_config()[
        "recurrent_initializer"
    ]
