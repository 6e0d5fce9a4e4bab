"""Layers that prepare images, words and categories, on to Keras 3: run by both Keras libraries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from support.modern_models import filled

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
layers = tf_keras.layers
RANDOM = np.random.default_rng(0)


def images() -> tuple[Any, list[Any]]:
    """What is random is idle when the model predicts."""
    x = tf_keras.Input((6, 5, 3))
    several = [
        layers.Resizing(4, 7), layers.Resizing(4, 7, "nearest", crop_to_aspect_ratio=True),
        layers.Resizing(3, 3, "bicubic"), layers.CenterCrop(3, 2), layers.CenterCrop(8, 4),
        layers.RandomFlip("horizontal", seed=3), layers.RandomRotation((-0.1, 0.2)),
        layers.RandomZoom(0.1), layers.RandomTranslation(0.1, (0.1, 0.2)),
        layers.RandomContrast(0.1), layers.RandomBrightness(0.1), layers.Rescaling(0.1, 2.0),
        layers.EinsumDense("abcd,de->abce", (None, None, 2), bias_axes="e", activation="relu"),
    ]  # fmt: skip
    steps = layers.Reshape((4, 21))(several[0](x))
    ends = [layers.LSTM(2)(steps), *(layer(x) for layer in several)]
    given = [RANDOM.uniform(0, 255, (2, 6, 5, 3)).astype("float32")]
    return filled(tf_keras.Model(x, ends), "images"), given


def words() -> tuple[Any, list[Any]]:
    """A vocabulary in the config, and one in a file of the .keras."""
    text, tokens = tf_keras.Input((1,), dtype="string"), tf_keras.Input((3,), dtype="string")
    adapted = layers.TextVectorization(output_sequence_length=4)
    adapted.adapt(["the cat sat", "the dog"])
    known = ["a", "b"]
    masked = layers.Embedding(9, 3, mask_zero=True)(adapted(text))
    ends = [
        layers.LSTM(2)(masked), adapted(text),
        layers.TextVectorization(vocabulary=known, standardize=None, ngrams=2)(text),
        layers.TextVectorization(vocabulary=["c", "t"], split="character")(text),
        *(layer(tokens) for layer in (
            layers.StringLookup(vocabulary=known, mask_token="", num_oov_indices=2),
            layers.StringLookup(vocabulary=known, output_mode="multi_hot"),
            layers.Hashing(5), layers.Hashing(5, salt=[3, 4], mask_value=""),
        )),
        layers.HashedCrossing(7)([tokens[:, :1], text]),
    ]  # fmt: skip
    lines = np.array([["the cat Sat!"], ["a dog, the"]])
    given = [lines, np.array([["a", "b", "z"], ["", "b", "a"]])]
    return tf_keras.Model([text, tokens], ends), given


def numbers() -> tuple[Any, list[Any]]:
    whole, real = tf_keras.Input((3,), dtype="int64"), tf_keras.Input((3,))
    ends = [
        *(layer(whole) for layer in (
            layers.IntegerLookup(vocabulary=[1, 2]),
            layers.IntegerLookup(vocabulary=[1], mask_token=0),
            layers.IntegerLookup(vocabulary=[1, 2], output_mode="count"),
            layers.StringLookup(vocabulary=["a", "b"], invert=True), layers.Hashing(5),
            layers.CategoryEncoding(10), layers.CategoryEncoding(10, output_mode="count"),
        )),
        layers.CategoryEncoding(10, output_mode="one_hot")(whole[:, :1]),
        layers.Discretization([1.0, 2.0])(real),
        layers.Discretization([1.0, 2.0], output_mode="one_hot")(real[:, :1]),
        layers.EinsumDense("ab,bc->ac", 3)(real),
    ]  # fmt: skip
    given = [np.array([[1, 2, 9], [3, 0, 1]]), np.array([[0.5, 1.5, 9.0], [1.0, 2.0, -3.0]], "f")]
    return filled(tf_keras.Model([whole, real], ends), "numbers"), given


@pytest.mark.parametrize("make", [images, words, numbers])
def test_layers_that_prepare_the_input_go_on_to_keras_3(
    make: Callable[[], tuple[Any, list[Any]]], tmp_path: Path
) -> None:
    old, given = make()
    given = [tf.constant(item) for item in given]
    wanted = old(given, training=False)
    old.save(tmp_path / "old.keras")
    assert lc.convert(tmp_path / "old.keras", tmp_path / "today.h5").whole_model
    assert lc.convert(tmp_path / "today.h5", tmp_path / "today.keras").whole_model
    for name in ("today.h5", "today.keras"):
        results = keras.models.load_model(tmp_path / name)(given, training=False)
        for result, expected in zip(results, wanted, strict=True):
            # Keras 3 gives places and counts as other whole numbers than tf_keras.
            result, expected = np.asarray(result), np.asarray(expected)
            if expected.dtype.kind == "O":
                assert (result == expected).all()
            else:
                np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape", "dtype", "why"),
    [
        (lambda: layers.RandomCrop(3, 2), (6, 5, 3), "float32", "cuts it to size"),
        (lambda: layers.RandomHeight(0.1), (6, 5, 3), "float32", "changes the size"),
        (lambda: layers.Resizing(3, 3, "area"), (6, 5, 3), "float32", "no such interpolation"),
        (lambda: layers.LocallyConnected1D(2, 1), (3, 2), "float32", "another at each place"),
        (lambda: layers.StringLookup(vocabulary=["a"], idf_weights=[1.0], output_mode="tf_idf"),
         (3,), "string", "idf_weights"),
        (lambda: layers.TextVectorization(vocabulary=["a"], standardize=tf.strings.lower), (1,),
         "string", "no such standardize"),
    ],
)  # fmt: skip
def test_what_no_layer_of_keras_3_does_is_refused_by_name(
    layer: Any, shape: tuple[int, ...], dtype: str, why: str, tmp_path: Path
) -> None:
    x = tf_keras.Input(shape, dtype=dtype)
    old = tf_keras.Model(x, layer()(x))
    old.save(tmp_path / "old.keras")
    with pytest.raises(UnsupportedByTarget, match=why):
        lc.convert(tmp_path / "old.keras", tmp_path / "today.h5")


def test_a_vocabulary_is_never_a_path_and_never_missing(tmp_path: Path) -> None:
    x = tf_keras.Input((3,), dtype="string")
    old = tf_keras.Model(x, layers.StringLookup(vocabulary=["a"], name="words")(x))
    (tmp_path / "words.txt").write_text("a\nb\n")
    old.save(tmp_path / "old.h5")
    for value, why in ((str(tmp_path / "words.txt"), "path or an address"), (None, "vocabulary")):
        with h5py.File(tmp_path / "old.h5", "r+") as file:
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"][-1]["config"]["vocabulary"] = value
            file.attrs["model_config"] = json.dumps(config)
        with pytest.raises(UnsupportedByTarget, match=why):
            lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
