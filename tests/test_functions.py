"""TensorFlow's functions between the layers of a model, in Keras 3: run by both Keras libraries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from modern_models import STEPS, WIDTH, filled, outputs, samples

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget

pytestmark = pytest.mark.filterwarnings("ignore")
backend = tf_keras.backend


def arithmetic(h: Any, a: Any) -> list[Any]:
    b = tf_keras.layers.Add(name="add")([a, a])
    return [
        *(a + 1.5, 2.0 - a, a * 2, a / 2.0, 1.0 / (b + 3.0), -a, (a * a) ** 2, abs(a), a + b),
        *(tf.maximum(a, b), tf.minimum(a, 0.25), h @ tf.transpose(h, [0, 2, 1])),
        *(tf.exp(a), tf.math.log(a * a), tf.sqrt(a * a), tf.square(a), tf.sin(a), tf.sign(a)),
        *(tf.math.rsqrt(a * a), tf.math.reciprocal(b), tf.math.log1p(a * a)),
    ]  # fmt: skip


def shapes(h: Any, a: Any) -> list[Any]:
    joined = tf.concat([a, tf_keras.layers.Dense(3, name="reshape")(a)], axis=-1)
    one, two, three = tf.split(joined, [1, 2, 3], axis=-1)
    return [
        *(h[:, 0], h[..., 1], h[:, 1:5:2], h[:, -2:, 0], h[:, tf.newaxis], one, two, three),
        *tf.split(joined, 2, axis=1),
        *(tf.reshape(joined, [-1, 3, 2]), tf.expand_dims(a, 1), tf.squeeze(h[:, :1], axis=1)),
        *(tf.transpose(h, [0, 2, 1]), tf.stack([a, a * 2], axis=1), tf.tile(a, [1, 2])),
        *(tf.reverse(h, axis=[1]), tf.pad(h, [[0, 0], [2, 1], [0, 0]]), tf.cast(a, "float16")),
        *(tf.identity(a), tf.clip_by_value(a, -0.1, 0.2)),
    ]


def reductions(h: Any, a: Any) -> list[Any]:
    return [
        *(tf.reduce_mean(h, axis=1), tf.reduce_sum(h, axis=[1, 2]), tf.reduce_max(h, axis=-1)),
        *(tf.reduce_min(h, axis=1, keepdims=True), tf.reduce_prod(h, axis=2)),
        *(backend.sum(h, axis=1), backend.mean(a, axis=-1, keepdims=True), backend.max(h, axis=1)),
        *(tf.math.l2_normalize(h, axis=-1), backend.l2_normalize(a, axis=1)),
    ]


def activations(h: Any, a: Any) -> list[Any]:
    return [
        *(tf.nn.relu(a), tf.nn.relu6(a * 9.0), tf.sigmoid(a), tf.tanh(a), tf.nn.softmax(h)),
        *(tf.nn.softmax(h, axis=1), tf.nn.log_softmax(a), tf.nn.elu(a), tf.nn.selu(a)),
        *(tf.nn.leaky_relu(a), tf.nn.leaky_relu(a, alpha=0.3), tf.nn.gelu(a), tf.nn.silu(a)),
        *(tf.nn.gelu(a, approximate=True), tf.nn.softplus(a), tf.nn.softsign(a)),
        *(tf_keras.activations.relu(a), backend.softmax(a), backend.sigmoid(a), backend.tanh(a)),
    ]


def model(functions: Sequence[Callable[[Any, Any], list[Any]]]) -> Any:
    x = tf_keras.Input((STEPS, WIDTH))
    h = tf_keras.layers.LSTM(3, return_sequences=True)(x)
    found = [y for each in functions for y in each(h, h[:, -1])]
    return filled(tf_keras.Model(x, found), "functions")


def compare(path: Path, given: list[Any], wanted: list[Any]) -> None:
    again = outputs(keras.models.load_model(path), given)
    assert len(again) == len(wanted)
    for found, expected in zip(again, wanted, strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_functions_run_in_keras_3(tmp_path: Path) -> None:
    old = model([arithmetic, shapes, reductions, activations])
    given = samples(old, "functions")
    wanted = outputs(old, given)
    old.save(tmp_path / "old.h5")
    assert lc.convert(tmp_path / "old.h5", tmp_path / "today.keras").whole_model
    compare(tmp_path / "today.keras", given, wanted)


def test_functions_cross_both_ways_and_drop_masks(tmp_path: Path) -> None:
    words = tf_keras.Input((STEPS,), name="words")
    told = tf_keras.layers.Embedding(4, WIDTH, mask_zero=True)(words)
    changed = (told * 2.0, tf.identity(told), tf.math.l2_normalize(told, -1), told[:, 1:])
    found = [tf_keras.layers.LSTM(2)(each) for each in (told, *changed, tf.nn.relu(told))]
    old = filled(tf_keras.Model(words, found), "masked")
    given = [np.array([[1, 0, 2, 3, 0, 0], [0, 1, 2, 0, 1, 3]], "float32")]
    wanted = outputs(old, given)
    old.save(tmp_path / "old.keras")
    for name in ("one.h5", "two.keras"):
        source = tmp_path / ("old.keras" if name == "one.h5" else "one.h5")
        assert lc.convert(source, tmp_path / name).whole_model
        compare(tmp_path / name, given, wanted)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda h: tf.cumsum(h, axis=1), "tf.math.cumsum"),
        (lambda h: h * np.array([1.0, 2.0, 3.0]), "tf.math.multiply"),
        (lambda h: tf.reshape(h, [tf.shape(h)[0], -1]), "tf.compat.v1.shape"),
        (lambda h: tf.pad(h, [[0, 0], [1, 0], [0, 0]], constant_values=2.0), "tf.compat.v1.pad"),
        (lambda h: tf.linalg.matmul(h, h, transpose_b=True), "tf.linalg.matmul"),
    ],
)
def test_what_keras_3_cannot_say_is_refused_by_name(
    function: Any, name: str, tmp_path: Path
) -> None:
    model([lambda h, _: [function(h)]]).save(tmp_path / "old.h5")
    with pytest.raises(UnsupportedByTarget) as caught:
        lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
    assert (caught.value.layer or "").startswith(name)
    assert not (tmp_path / "today.keras").exists()


def test_an_ellipsis_is_not_written_where_keras_does_not_load_it(tmp_path: Path) -> None:
    x = keras.Input((STEPS, WIDTH))
    h = keras.layers.LSTM(3, return_sequences=True)(x)
    keras.Model(x, h[..., 0]).save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedByTarget, match="Ellipsis"):
        lc.convert(tmp_path / "a.keras", tmp_path / "a.h5")


@pytest.mark.parametrize("function", [None, ["relu"], {}, "os.system"])
def test_a_function_that_is_none_of_the_table_s(function: Any, tmp_path: Path) -> None:
    model([lambda h, _: [tf.nn.relu(h)]]).save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][-1]["config"]["function"] = function
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(UnsupportedByTarget, match="no operation of Keras 3 is known"):
        lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
