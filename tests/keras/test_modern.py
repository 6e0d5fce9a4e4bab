"""Whole models onward to today's Keras, and across containers: loaded by it, and run.

The oracles are the outputs that the old writers recorded, and tf_keras and Keras 3 themselves on
models of many kinds of layer (`modern_models`).
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from support.modern_models import (
    MODELS,
    example,
    filled,
    outputs,
    samples,
)

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.tensors.dtypes import same_bits

#: Keras and tf_keras warn of masks that a layer drops, and of their own old formats.
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"
OLD = [
    *("keras-1.1.0/both.h5", "keras-1.1.0/seed95.h5", "keras-1.2.2/both.h5"),
    *("keras-1.2.2/consume.h5", "keras-1.2.2/conv_lstm.h5", "keras-1.2.2/sequential.h5"),
    *("keras-1.2.2-theano/both.h5", "keras-1.2.2-theano/seed95.h5"),
    *("keras-2.0.8/seed95.h5", "keras-2.0.8/zoo.h5", "keras-2.1.6/zoo.h5", "keras-2.2.4/zoo.h5"),
    *("keras-2.3.1/zoo.h5", "keras-2.3.1/conv_lstm.h5", "keras-2.3.1/sequential.h5"),
    *("tf-1.15.5/zoo.h5", "tf-1.15.5/sequential.h5", "tf-2.12.1/zoo.h5", "tf-2.12.1/seed95.keras"),
    *("tf-2.13.1/zoo.keras", "tf-2.14.1/zoo.keras", "tf-2.15.1/zoo.keras", "tf-2.15.1/seed95.h5"),
    *("tf-2.15.1/both_unlike.keras", "tf-2.15.1/conv_lstm.keras", "tf_keras-2.21.0/zoo.h5"),
    *("tf_keras-2.21.0/seed95.keras", "keras-3.15.1/fitted.h5", "keras-3.0.5/zoo_plain.h5"),
]
#: Sums in float32, in another order than the writer's engine; deep models add up.
CLOSE = 2e-6


def recorded(path: Path) -> tuple[list[Any], list[Any]]:
    record = np.load(path.with_name(f"{path.name.split('.')[0]}.io.npz"))
    count = {kind: sum(name[0] == kind for name in record.files) for kind in "xy"}
    return [record[f"x{i}"] for i in range(count["x"])], [
        record[f"y{i}"] for i in range(count["y"])
    ]


def assert_close(found: list[Any], wanted: list[Any]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", OLD)
def test_an_old_file_gives_its_recorded_numbers_in_keras_3(name: str, tmp_path: Path) -> None:
    path = FIXTURES / name
    result = lc.convert(path, tmp_path / "today.keras", era="keras3")
    assert result.whole_model
    model = keras.models.load_model(tmp_path / "today.keras")
    given, wanted = recorded(path)
    assert_close(outputs(model, given), wanted)


@pytest.mark.parametrize("name", ["keras-1.2.2/consume.h5", "keras-2.3.1/zoo.h5"])
def test_the_way_through_a_per_gate_file_is_the_same(name: str, tmp_path: Path) -> None:
    lc.convert(FIXTURES / name, tmp_path / "gates.safetensors")
    lc.convert(tmp_path / "gates.safetensors", tmp_path / "through.keras", era="keras3")
    lc.convert(FIXTURES / name, tmp_path / "straight.keras", era="keras3")
    assert (tmp_path / "through.keras").read_bytes() == (tmp_path / "straight.keras").read_bytes()


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_tf_keras_runs_in_keras_3(name: str, suffix: str, tmp_path: Path) -> None:
    old, given, wanted = example("tf_keras", name)
    old.save(tmp_path / f"old{suffix}")
    assert lc.convert(tmp_path / f"old{suffix}", tmp_path / "today.keras", era="keras3").whole_model
    assert_close(outputs(keras.models.load_model(tmp_path / "today.keras"), given), wanted)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_keras_3_crosses_both_ways(name: str, tmp_path: Path) -> None:
    model, given, wanted = example("keras", name)
    model.save(tmp_path / "one.keras")
    made = lc.convert(tmp_path / "one.keras", tmp_path / "two.h5")
    assert made.whole_model
    assert not any("optimizer" in text for text in made.warnings)  # it was never compiled
    assert lc.diff(tmp_path / "one.keras", tmp_path / "two.h5")
    assert lc.convert(tmp_path / "two.h5", tmp_path / "three.keras").whole_model
    for made_file in ("two.h5", "three.keras"):
        again = keras.models.load_model(tmp_path / made_file)
        for one, other in zip(outputs(again, given), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
        stored = {w.path.split("/", 1)[-1]: np.asarray(w) for w in again.weights}
        assert len(stored) <= len(model.weights)
        for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            assert same_bits(mine, theirs)


def test_a_concatenation_of_masks_leaves_keras_its_own_name(tmp_path: Path) -> None:
    """Keras 3 calls the operation that joins the masks `concatenate` too, and refuses both."""
    layer = tf_keras.layers
    words = layer.Input((4,))
    x = layer.Embedding(10, 3, mask_zero=True)(words)
    x = layer.Concatenate(name="concatenate")([x, layer.LSTM(2, return_sequences=True)(x)])
    tf_keras.Model(words, layer.LSTM(2)(x)).save(tmp_path / "old.h5")
    lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
    config = json.loads(zipfile.ZipFile(tmp_path / "today.keras").read("config.json"))
    names = {one["name"] for one in config["config"]["layers"]}
    assert "concatenate_layer" in names
    assert "concatenate" not in names


@pytest.mark.parametrize("after", [True, False])
def test_halves_of_unlike_width_are_refused_where_keras_3_cannot_go_on(
    after: bool, tmp_path: Path
) -> None:
    layer = tf_keras.layers
    start = layer.Input((4, 3))
    both = layer.Bidirectional(
        layer.LSTM(2, return_sequences=True),
        backward_layer=layer.LSTM(5, return_sequences=True, go_backwards=True),
        name="both",
    )
    x = layer.Dropout(0.1)(both(start))
    aside = layer.Dense(2)(x if after else start)
    old = filled(tf_keras.Model(start, [x, aside]), "halves")
    old.save(tmp_path / "old.h5")
    if after:
        with pytest.raises(UnsupportedByTarget, match=r"both: .*equal width"):
            lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
        return
    lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
    given = samples(old, "halves")
    today = keras.models.load_model(tmp_path / "today.keras")
    assert_close(outputs(today, given), outputs(old, given))


def test_a_mask_inside_a_nested_model_is_no_obstacle_in_an_h5(tmp_path: Path) -> None:
    """Keras 3 itself does not open this .h5: it does not know the operations of the mask."""
    layer = keras.layers
    start = keras.Input((5, 3))
    x = layer.LSTM(3, return_sequences=True)(layer.Masking(0.5)(start))
    inner = keras.Model(start, layer.Dense(2)(x), name="inner")
    outer = keras.Input((5, 3))
    model = filled(keras.Model(outer, layer.LSTM(2)(inner(outer))), "masks")
    model.save(tmp_path / "old.h5")
    assert lc.convert(tmp_path / "old.h5", tmp_path / "again.keras").whole_model
    given = samples(model, "masks")
    given[0][0, -2:] = 0.5
    found = outputs(keras.models.load_model(tmp_path / "again.keras"), given)
    assert all(map(same_bits, found, outputs(model, given)))


def test_an_activation_layer_computes_in_its_own_dtype(tmp_path: Path) -> None:
    layer = tf_keras.layers
    old = tf_keras.Sequential(
        [
            layer.Input((4, 3), dtype="float64"),
            layer.LSTM(3, activation=layer.ELU(0.3, dtype="float64"), dtype="float64"),
            layer.Dense(2, activation=layer.LeakyReLU(0.3, dtype="float64"), dtype="float64"),
        ]
    )
    filled(old, "wide").save(tmp_path / "old.h5")
    lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
    given = [np.random.default_rng(1).normal(size=(2, 4, 3))]
    (found,) = outputs(keras.models.load_model(tmp_path / "today.keras"), given)
    (wanted,) = outputs(old, given)
    assert found.dtype == wanted.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)


def test_no_name_has_a_slash_in_keras_3(tmp_path: Path) -> None:
    layer = tf_keras.layers
    far = layer.LSTM(3, return_sequences=True, go_backwards=True, name="s/far")
    near = layer.LSTM(3, return_sequences=True, name="s/near")
    cells = [layer.LSTMCell(2, name="c/0"), layer.GRUCell(3, name="c/1")]
    old = tf_keras.Sequential(
        [
            layer.Input((4, 3)),
            layer.LSTM(2, return_sequences=True, name="a/b"),
            layer.LSTM(3, return_sequences=True, name="a_b"),
            layer.Bidirectional(near, backward_layer=far, name="s/both"),
            layer.RNN(layer.StackedRNNCells(cells, name="s/cells"), name="s/rnn"),
            layer.RepeatVector(2, name="s/again"),
            layer.LSTM(2, activation=layer.ELU(0.3, name="s/elu"), name="s/last"),
        ],
        name="s/model",
    )
    old = filled(old, "slashes")
    old.save(tmp_path / "old.h5")
    assert lc.convert(tmp_path / "old.h5", tmp_path / "today.keras").whole_model
    given = samples(old, "slashes")
    today = keras.models.load_model(tmp_path / "today.keras")
    assert [found.name for found in today.layers][:3] == ["a_b_1", "a_b", "s_both"]
    assert_close(outputs(today, given), outputs(old, given))
    for found in lc.load(tmp_path / "old.h5").values():
        assert "/" not in lc.to_keras(found).name


def test_a_class_outside_the_table_is_refused_by_name(tmp_path: Path) -> None:
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Input((4, 3)),
            tf_keras.layers.LSTM(2),
            tf_keras.layers.Lambda(lambda x: x, name="trick"),
        ]
    )
    model.save(tmp_path / "old.h5")
    with pytest.raises(lc.LSTMConvertError, match="trick"):
        lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
    assert not (tmp_path / "today.keras").exists()
    result = lc.convert(tmp_path / "old.h5", tmp_path / "today.keras", lstm_only=True)
    assert not result.whole_model


def test_assets_have_no_place_in_an_h5(tmp_path: Path) -> None:
    with pytest.raises(lc.LSTMConvertError, match="holds no asset files"):
        lc.convert(FIXTURES / "keras-3.15.1" / "text.keras", tmp_path / "text.h5")


@pytest.mark.parametrize("through", [True, False])
def test_a_dtype_is_set_in_the_whole_model_s_config_too(through: bool, tmp_path: Path) -> None:
    source = FIXTURES / "keras-3.15.1" / "seed95.keras"
    if through:
        lc.convert(source, tmp_path / "half.safetensors", dtype="float16")
        lc.convert(tmp_path / "half.safetensors", tmp_path / "half.keras")
    else:
        lc.convert(source, tmp_path / "half.keras", dtype="float16")
    model = keras.models.load_model(tmp_path / "half.keras")
    assert model.get_layer("lstm").dtype_policy.name == "float16"
    assert model.layers[-1].dtype_policy.name == "float32"
    kept = lc.load(tmp_path / "half.keras")["lstm"].forget_gate.kernel
    wanted = lc.load(source)["lstm"].forget_gate.kernel.astype("float16")
    assert same_bits(kept, wanted)


def test_the_ends_of_a_model_are_lists_of_tensors(tmp_path: Path) -> None:
    """Keras 3.0 to 3.5 read no others (keras/src/models/functional.py, `map_tensors`)."""
    layers = tf_keras.layers
    inputs = layers.Input((5, 4))
    tf_keras.Model(inputs, layers.LSTM(3, name="last")(inputs)).save(str(tmp_path / "m.h5"))
    lc.convert(tmp_path / "m.h5", tmp_path / "m.keras")
    config = json.loads(lc.load(tmp_path / "m.keras").texts["model_config"])["config"]
    assert config["output_layers"] == [["last", 0, 0]]
    assert len(config["input_layers"]) == 1
    assert isinstance(config["input_layers"][0], list)
