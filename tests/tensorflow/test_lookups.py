"""Vocabularies that only a SavedModel's tables and assets have, or a checkpoint's: run by Keras."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
layers = tf_keras.layers
GIVEN = [np.array([["x y", "zz é"], ["w\nq", "r"]]), np.array([[7, -5], [1, 3]]), np.array([[1.5]])]


def same(path: Path, wanted: list[Any], given: list[Any]) -> None:
    results = keras.models.load_model(path)([tf.constant(item) for item in given])
    for result, expected in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("lookups")
    (folder / "words.txt").write_text("r\ns\nx y\n")
    texts, whole, real = (tf_keras.Input((n,), dtype=t) for n, t in
                          ((2, "string"), (2, "int64"), (1, "float32")))
    words = np.array([["x y", "z"], ["w\nq", "x y"]])
    many = layers.StringLookup(output_mode="multi_hot", mask_token="", num_oov_indices=2)
    many.adapt(words)
    split = layers.TextVectorization(output_sequence_length=3, name="split")
    split.adapt(np.array([["the x"], ["y é y"]]))
    turned = layers.IntegerLookup(num_oov_indices=2, mask_token=7)
    turned.adapt(np.array([[1, 2], [2, -5]]))
    bins = layers.Discretization(num_bins=4)
    bins.adapt(np.arange(50.0) ** 2 / 100)
    file = layers.StringLookup(vocabulary=str(folder / "words.txt"), name="file")
    ends = [many(texts), file(texts), split(texts[:, :1]), turned(whole), bins(real),
            layers.IntegerLookup(vocabulary=[4, 9], invert=True)(whole)]
    model = tf_keras.Model([texts, whole, real], ends)
    model.save(folder / "saved", save_format="tf")
    given = [tf.constant(item) for item in (*GIVEN[:2], np.array([[1.5], [20.0]]))]
    return folder / "saved", [np.asarray(end) for end in model(given)]


def test_a_savedmodel_brings_its_vocabularies(
    saved: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    path, wanted = saved
    result = lc.convert(path, tmp_path / "today.keras", warn=False)
    assert result.whole_model
    assert any("file: its vocabulary is that of the SavedModel's own assets/words.txt" in text
               for text in result.warnings)
    same(tmp_path / "today.keras", wanted, [*GIVEN[:2], np.array([[1.5], [20.0]])])


@pytest.mark.parametrize(
    ("lines", "why"),
    [("r\n[UNK]\n", "reserved token"), ("r\nr\n", "one index"), (None, "No such file")],
)
def test_what_would_give_other_indices_is_refused(
    lines: str | None, why: str, saved: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    shutil.copytree(saved[0], tmp_path / "saved")
    words = tmp_path / "saved/assets/words.txt"
    if lines is None:
        words.unlink()
    else:
        words.write_text(lines)
    with pytest.raises(UnsupportedByTarget, match="address") as error:
        lc.convert(tmp_path / "saved", tmp_path / "today.keras", warn=False)
    assert error.value.where == "file"
    assert "its vocabulary is not read" in (hint := str(error.value.hint))
    assert why in hint
    notes = " ".join(str(item) for item in lc.inspect(tmp_path / "saved").source.notes)
    assert "file: its vocabulary is not read" in notes
    assert why in notes


def test_a_table_that_can_change_is_in_the_checkpoint(tmp_path: Path) -> None:
    """As TensorFlow 2.4 saved it: with the tokens for masks and for unknown words in it."""
    tables = {}
    for outside in (1, 2):
        tables[f"words{outside}"] = old = tf.Module()
        old._table = tf.lookup.experimental.MutableHashTable("string", "int64", -1)
        indices = tf.constant([2 + outside, 0, 1 + outside, 1], "int64")
        old._table.insert(["b", "", "a", "[UNK]"], indices)
    x, steps = tf_keras.Input((3,), dtype="string"), tf_keras.Input((2, 1))
    words = [layers.StringLookup(mask_token="", num_oov_indices=count, name=f"words{count}")(x)
             for count in (1, 2)]
    model = tf_keras.Model([x, steps], [*words, layers.LSTM(1)(steps)])
    kept = [tables.get(layer.name, layer) for layer in model.layers]
    saver = tf.train.Checkpoint(**{f"layer-{at}": layer for at, layer in enumerate(kept)})
    saver.write(str(tmp_path / "old"))
    config = tmp_path / "config.json"
    config.write_text(model.to_json())
    done = lc.convert(tmp_path / "old.index", tmp_path / "today.keras", config=config, warn=False)
    told = [text for text in done.warnings if "as it does any unknown word" in text]
    assert [text.partition(";")[0] for text in told] == [
        "words2: its table gives [UNK] the index 1"
    ]
    given = [tf.constant([["a", "b", "z"]]), tf.ones((1, 2, 1))]
    found, more, state = keras.models.load_model(tmp_path / "today.keras")(given)
    assert np.asarray(found).tolist() == [[2, 3, 1]]
    assert np.asarray(more)[0, :2].tolist() == [3, 4]
    np.testing.assert_allclose(np.asarray(state), np.asarray(model.layers[-1](given[1])), atol=1e-6)
