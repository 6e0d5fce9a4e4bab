"""A whole model that is written has the variables that Keras counts: it loads, or is refused."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.keras.configs.nodes import node
from lstmconvert.keras.modern.crossing import check_legacy, check_v3, variables

keras = pytest.importorskip("keras")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
CROSSINGS = [("h5", "keras"), ("keras", "h5")]
X = np.random.default_rng(2).normal(size=(2, 5, 4)).astype("f4")


def nested(library: Any, order: str) -> Any:
    """An RNN over a stack in which there is another stack."""
    layers = library.layers
    cell, stack = layers.LSTMCell, layers.StackedRNNCells
    if order == "first":
        cells = stack([stack([cell(2), cell(3)]), cell(3)])
    else:
        cells = stack([cell(3), stack([cell(2), layers.GRUCell(3)])])
    inputs = layers.Input((5, 4))
    return library.Model(inputs, layers.Dense(2)(layers.RNN(cells, name="rnn")(inputs)))


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize(("source", "target"), CROSSINGS)
@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_a_stack_in_a_stack_crosses(
    library: str, source: str, target: str, order: str, tmp_path: Path
) -> None:
    model = nested(importlib.import_module(library), order)
    model.save(str(tmp_path / f"m.{source}"))
    read = lc.load(tmp_path / f"m.{source}")["rnn"]
    assert len(read.forward.cells) == 3
    assert lc.convert(tmp_path / f"m.{source}", tmp_path / f"m2.{target}").whole_model
    loaded = keras.saving.load_model(str(tmp_path / f"m2.{target}"), compile=False)
    np.testing.assert_allclose(np.asarray(loaded(X)), np.asarray(model(X)), atol=1e-6)


@pytest.mark.parametrize("order", ["first", "last"])
def test_a_stack_in_a_stack_is_read_from_weights_alone(order: str, tmp_path: Path) -> None:
    model = nested(keras, order)
    model.save_weights(str(tmp_path / "m.weights.h5"))
    model.save(str(tmp_path / "m.keras"))
    cells = next(iter(lc.load(tmp_path / "m.weights.h5").values())).forward.cells
    wanted = lc.load(tmp_path / "m.keras")["rnn"].forward.cells
    assert list(map(repr, cells)) == list(map(repr, wanted))


def tuned(kind: str) -> Any:
    layers = keras.layers
    ids = layers.Input((5,))
    embedding, head = layers.Embedding(9, 4, name="tuned"), layers.Dense(2, name="head")
    if kind != "embedding":
        embedding, head = layers.Embedding(9, 4), layers.Dense(2, name="tuned")
    model = keras.Model(ids, head(layers.LSTM(3)(embedding(ids))))
    layer = model.get_layer("tuned")
    layer.quantize("int8") if kind == "quantized" else layer.enable_lora(2)
    return model


@pytest.mark.parametrize("kind", ["lora", "embedding", "quantized"])
@pytest.mark.parametrize(("source", "target"), CROSSINGS)
def test_lora_and_quantized_layers_are_refused_by_name(
    kind: str, source: str, target: str, tmp_path: Path
) -> None:
    tuned(kind).save(str(tmp_path / f"m.{source}"))
    told = "quantized" if kind == "quantized" else "LoRA"
    with pytest.raises(UnsupportedByTarget, match=told) as e:
        lc.convert(tmp_path / f"m.{source}", tmp_path / f"m2.{target}")
    assert e.value.layer == "tuned"
    # The same kind of file keeps them.
    assert lc.convert(tmp_path / f"m.{source}", tmp_path / f"same.{source}").whole_model


LAYERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("LSTM", {"units": 2}, (5, 4)),
    ("LSTM", {"units": 2, "use_bias": False}, (5, 4)),
    ("GRU", {"units": 2, "reset_after": False}, (5, 4)),
    ("SimpleRNN", {"units": 2}, (5, 4)),
    ("ConvLSTM1D", {"filters": 2, "kernel_size": 2}, (5, 4, 3)),
    ("Dense", {"units": 2, "use_bias": False}, (5, 4)),
    ("BatchNormalization", {}, (5, 4)),
    ("BatchNormalization", {"center": False, "scale": False}, (5, 4)),
    ("LayerNormalization", {"center": False}, (5, 4)),
    ("Normalization", {}, (5, 4)),
    ("Normalization", {"mean": 1.0, "variance": 2.0}, (5, 4)),
    ("SeparableConv1D", {"filters": 2, "kernel_size": 2}, (5, 4)),
    ("PReLU", {}, (5, 4)),
    ("Dropout", {"rate": 0.5}, (5, 4)),
]


@pytest.mark.parametrize(("name", "options", "shape"), LAYERS)
def test_the_count_is_keras_own(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    layer = getattr(keras.layers, name)(**options)
    layer.build((None, *shape))
    config = keras.saving.serialize_keras_object(layer)
    assert variables(node(config, name)) == len(layer.weights)


def test_another_number_of_arrays_is_refused() -> None:
    model = keras.Sequential([keras.layers.Input((5, 4)), keras.layers.LSTM(2, name="lstm")])
    config = keras.saving.serialize_keras_object(model)
    check_legacy(config, {"lstm": ("a", "b", "c")})
    check_v3(config, [f"layers/lstm/cell/vars/{index}" for index in range(3)])
    with pytest.raises(UnsupportedByTarget, match="counts 3"):
        check_legacy(config, {"lstm": ("a", "b")})
    with pytest.raises(UnsupportedByTarget, match="counts 3"):
        check_v3(config, ["layers/lstm/cell/vars/0"])
