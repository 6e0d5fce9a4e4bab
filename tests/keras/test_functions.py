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
from google.protobuf import json_format
from keras.src import ops
from keras.src.ops.operation import Operation
from support.modern_models import STEPS, WIDTH, filled, outputs, samples
from tf_keras.src.engine import base_layer

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.keras.modern import operations

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
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


def comparisons(h: Any, a: Any) -> list[Any]:
    low, high = h > -0.1, h <= 0.2
    return [
        *(low, h >= 0.0, h < 0.1, high, tf.equal(a, a), tf.not_equal(a, 0.0), low & high),
        *(low | high, ~low, tf.math.logical_xor(low, high), tf.where(low, h, 0.0)),
        *(tf.where(low, 1.0, h), tf.where(h > 0.0, h, tf.zeros_like(h)), backend.elu(a, 0.5)),
        *(tf.reduce_any(low, axis=1), tf.reduce_all(high, axis=[1, 2]), tf.math.is_nan(a)),
        *(tf.math.is_finite(a), tf.math.count_nonzero(h, axis=1)),
    ]


def attention(h: Any, a: Any) -> list[Any]:
    scores = tf.matmul(h, h, transpose_b=True) / tf.math.sqrt(tf.cast(3, tf.float32))
    heads = tf.reshape(tf.nn.softmax(scores) @ h, (tf.shape(h)[0], -1, 3, 1))
    return [
        *(scores, tf.transpose(heads, [0, 2, 1, 3]), tf.matmul(h, h, transpose_a=True)),
        *(tf.linalg.matmul(h, h, adjoint_b=True), tf.tensordot(h, np.eye(3, 2, dtype="f"), 1)),
        *(tf.linalg.matvec(h, a), tf.linalg.matrix_transpose(h), tf.linalg.band_part(h, -1, 0)),
        *(backend.dot(h, tf.ones((3, 2))), backend.batch_dot(h, a, axes=(2, 1))),
        *(backend.batch_flatten(h), tf.linalg.trace(h), tf.linalg.diag_part(h)),
    ]


def constants(h: Any, a: Any) -> list[Any]:
    ramp = np.array([1.0, 2.0, 3.0])
    return [
        *(h * ramp, ramp.astype("float32") * a, tf.subtract(tf.constant([1.0, 2.0, 3.0]), h)),
        *(tf.nn.bias_add(h, ramp.astype("float32")), h @ np.ones((3, 2), "float32"), a / 3),
        *(tf.cast(h * 9.0, "int32") // np.array([1, 2, 3]), tf.cast(a, "int32") / 7),
        *(tf.cast(a, "float16") * np.array([1.0, 2.0, 3.0]), tf.math.squared_difference(a, 2.0)),
    ]


def picked(h: Any, a: Any) -> list[Any]:
    numbers = tf.cast(tf.abs(a * 2.0), "int32")
    last, middle = tf.unstack(h, axis=1)[-1], tf.unstack(h, axis=-1)[1]
    values, places = tf.math.top_k(h, 2)
    return [
        *(tf.gather(h, [0, 2], axis=1), tf.gather(h, 1, axis=2), last, middle, values, places),
        *(tf.gather(np.eye(9, 2, dtype="f"), numbers), tf.one_hot(numbers, 5), tf.argmax(h, -1)),
        *(tf.one_hot(numbers, 4, axis=1, dtype="int32"), tf.argmin(h, axis=1), tf.argmax(h)),
        *(tf.argmax(h, -1, output_type=tf.int32), tf.argsort(h), tf.sort(h, axis=1)),
        *(tf.argsort(h, direction="DESCENDING"), tf.sort(h, direction="DESCENDING")),
        *(tf.slice(h, [0, 1, 0], [-1, 2, 3]), tf.repeat(h, 2, axis=1), tf.roll(h, 1, axis=1)),
        *(tf.repeat(h, [1, 2, 3], axis=2), *tf.split(h, [1, -1], axis=-1), backend.repeat(a, 3)),
        *(tf.sequence_mask(numbers, 5), backend.repeat_elements(h, 2, 1), h[:, ::-1]),
    ]


def computed(h: Any, a: Any) -> list[Any]:
    return [
        *(tf.cumsum(h, axis=1), tf.cumsum(h, axis=1, reverse=True), tf.math.cumprod(h, axis=1)),
        *(tf.add_n([h, h * 2.0, h]), tf.math.reduce_std(h, axis=1), backend.var(h, axis=-1)),
        *(tf.math.reduce_variance(h, axis=1, keepdims=True), tf.reduce_logsumexp(h, axis=1)),
        *(tf.norm(h, axis=1), tf.norm(h, ord=1, axis=2), tf.math.reduce_euclidean_norm(h, 1)),
        *(h % 0.3, h // 0.3, tf.math.divide_no_nan(a, a), tf.stop_gradient(a), tf.round(a * 9.0)),
        *(tf.math.ceil(a), tf.math.erf(a), tf.tan(a), tf.atan2(a, h[:, 0]), tf.math.log_sigmoid(a)),
        *(tf.pad(h, [[0, 0], [1, 0], [0, 0]], constant_values=2.0), tf.ensure_shape(a, (None, 3))),
        *(tf.pad(h, [[0, 0], [1, 1], [0, 0]], "REFLECT"), tf.nn.max_pool1d(h, 2, 2, "VALID")),
        *(tf.nn.avg_pool1d(h, 2, 1, "SAME"), tf.image.resize(h[..., None], [3, 5])),
        *(backend.std(h, 1), tf.ones_like(h, dtype="int32"), tf.nn.moments(h, [1])[1]),
        tf.compat.v1.nn.crelu(a),
    ]


def lengths(h: Any, a: Any) -> list[Any]:
    """The number of samples, which every reshape by hand asks for."""
    rows = tf.shape(h)[0]
    return [
        *(tf.reshape(h, [rows, -1]), tf.reshape(h, tf.stack([rows, 9, 2])), tf.zeros([rows, 2])),
        *(tf.reshape(h, [rows * STEPS, 3]), tf.fill([rows, 2, 1], 7), tf.ones((rows, 3)) * a),
        *(tf.reshape(tf.transpose(h, [0, 2, 1]), [tf.shape(a)[0], 3, -1]), tf.reshape(a, [-1])),
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
    old = model([arithmetic, shapes, reductions, activations, comparisons, attention, constants,
                 picked, computed, lengths])  # fmt: skip
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
    ("function", "name", "why"),
    [
        (lambda h: tf.cumsum(h, axis=1, exclusive=True), "tf.math.cumsum", "no such exclusive"),
        (lambda h: tf.einsum("bij,bkj->bik", h, h), "tf.einsum", "do not hold"),
        (lambda h: tf.nn.dropout(h, 0.5), "tf.nn.dropout", "other numbers with each run"),
        (lambda h: tf.boolean_mask(h, h > 0.0), "tf.compat.v1.boolean_mask", "depends on the num"),
        (lambda h: tf.where(h > 0.0), "tf.where", "no fixed number"),
        (lambda h: h[h > 0.0], "tf.__operators__.getitem", "slice_spec"),
        (lambda h: h[:, tf.shape(h)[1] - 1], "tf.__operators__.getitem", "only the data has"),
        (tf.shape, "", "is a shape"),
        # Its first axis is no longer that of the samples.
        (lambda h: tf.reshape(tf.reshape(h, [-1, 9]), [tf.shape(h)[0], -1, 9]), "tf.reshape", ""),
        (lambda h: tf.reshape(h, tf.shape(h)), "tf.reshape", "only the data has"),
        (lambda h: tf.strings.as_string(h), "tf.strings.as_string", "no operation"),
    ],
)
def test_what_keras_3_cannot_say_is_refused_by_name(
    function: Any, name: str, why: str, tmp_path: Path
) -> None:
    model([lambda h, _: [function(h)]]).save(tmp_path / "old.h5")
    with pytest.raises(UnsupportedByTarget, match=why) as caught:
        lc.convert(tmp_path / "old.h5", tmp_path / "today.keras")
    assert (caught.value.layer or "").startswith(name)
    assert not (tmp_path / "today.keras").exists()


def operators(path: Path, functions: Callable[[Any, Any], list[Any]]) -> Any:
    """Write a model as TensorFlow 2.0 to 2.3 did, with a layer for each operator of a graph, and
    return it as tf_keras reads it."""
    x = tf_keras.Input((STEPS, WIDTH), name="x")
    old = tf_keras.Model(x, tf_keras.layers.LSTM(3, return_sequences=True, name="h")(x))
    with tf.Graph().as_default() as graph:
        h = tf.compat.v1.placeholder("float32", (None, STEPS, 3), "h")
        ends = functions(h, h[:, -1])
    config = json.loads(old.to_json())
    for made in graph.get_operations():
        if made.type in ("Placeholder", "Const"):
            continue
        plain = {str(index): tf.get_static_value(tensor).tolist()
                 for index, tensor in enumerate(made.inputs) if tensor.op.type == "Const"}
        inner = {"name": made.name, "trainable": True, "dtype": "float32", "constants": plain,
                 "node_def": json_format.MessageToDict(made.node_def)}
        refs = [[name_of(tensor), 0, tensor.value_index, {}]
                for tensor in made.inputs if tensor.op.type != "Const"]
        config["config"]["layers"].append({
            "class_name": "TensorFlowOpLayer", "config": inner, "inbound_nodes": [refs],
            "name": f"tf_op_layer_{made.name}",
        })
    config["config"]["output_layers"] = [[name_of(end), 0, end.value_index] for end in ends]
    path.write_text(json.dumps(config))
    known = {"TensorFlowOpLayer": base_layer.TensorFlowOpLayer}
    return filled(tf_keras.models.model_from_json(path.read_text(), known), "operators")


def name_of(tensor: Any) -> str:
    return "h" if tensor.op.type == "Placeholder" else f"tf_op_layer_{tensor.op.name}"


def plain_operators(h: Any, a: Any) -> list[Any]:
    return [
        *(a + 1.5, 2.0 - a, a / 2.0, -a, tf.abs(a), tf.maximum(a, 0.25), a > 0.1, tf.exp(a)),
        *(tf.sqrt(tf.square(a)), tf.tanh(a), tf.sigmoid(a), tf.nn.relu(a), h[:, 1:5:2], h[..., 1]),
        *(h[:, tf.newaxis, 0], h[:, ::-1], tf.nn.softmax(h), tf.matmul(h, h, transpose_b=True)),
        *(tf.transpose(h, [0, 2, 1]), tf.add_n([a, a]), tf.reduce_sum(h, 1), tf.tile(a, [1, 2])),
        *(tf.reduce_mean(h, [1, 2], keepdims=True), tf.concat([h, h * 2.0], -1), tf.cumsum(h, 1)),
        *(tf.stack([a, a], 1), tf.unstack(h, axis=1)[2], *tf.split(h, 3, axis=2)),
        *(*tf.split(h, [1, 5], axis=1), tf.reshape(h, [tf.shape(h)[0], 18]), tf.expand_dims(a, 1)),
        *(tf.reshape(h, [-1, 9]), tf.squeeze(h[:, :1], 1), tf.where(h > 0.0, h, h * 0.1)),
        *(tf.gather(h, [0, 2], axis=1), tf.argmax(h, -1), tf.cast(a, "int32"), *tf.math.top_k(h)),
        *(tf.pad(h, [[0, 0], [1, 0], [0, 0]]), tf.one_hot(tf.cast(a, "int32"), 3)),
        *(tf.nn.bias_add(h, [1.0, 2.0, 3.0]), tf.nn.leaky_relu(a, 0.3)),
        tf.einsum("bij,bkj->bik", h, h),
    ]


def test_operators_of_graphs_run_in_keras_3(tmp_path: Path) -> None:
    old = operators(tmp_path / "old.json", plain_operators)
    given = samples(old, "operators")
    old.save_weights(tmp_path / "old.h5")
    lc.convert(tmp_path / "old.h5", tmp_path / "today.keras", config=tmp_path / "old.json")
    compare(tmp_path / "today.keras", given, outputs(old, given))


def test_an_operator_of_no_function_is_refused(tmp_path: Path) -> None:
    old = operators(tmp_path / "old.json", lambda h, _: [tf.math.lgamma(h)])
    old.save_weights(tmp_path / "old.h5")
    with pytest.raises(UnsupportedByTarget, match="operator Lgamma"):
        lc.convert(tmp_path / "old.h5", tmp_path / "today.keras", config=tmp_path / "old.json")


def test_operations_of_keras_3_go_from_h5_to_keras(tmp_path: Path) -> None:
    ops = keras.ops
    x = keras.Input((STEPS, WIDTH))
    h = keras.layers.LSTM(3, return_sequences=True)(x)
    ids = ops.argmax(h, axis=-1)
    new = keras.Model(x, [
        ops.einsum("bij,bkj->bik", h, h), ops.greater(h, 0.1), ids, ops.repeat(h, 2, axis=1),
        ops.take(h, [0, 2], axis=1), ops.cumsum(h, axis=1), ops.not_equal(ids, 1), h[:, -1],
        ops.where(h > 0, h, 0.0), *ops.top_k(h, 2), ops.one_hot(ids, 3), *ops.split(h, 3, axis=1),
        ops.norm(h, axis=-1), ops.swapaxes(h, 1, 2), ops.tensordot(h, np.eye(3, 2, dtype="f"), 1),
        ops.stop_gradient(h), ops.logsumexp(h, axis=1), ops.clip(h, -0.1, 0.1), ops.std(h, axis=1),
        ops.max_pool(h, 2), ops.average(h, axis=1), ops.maximum(h, 0.0), ops.isnan(h),
    ])  # fmt: skip
    filled(new, "operations")
    given = samples(new, "operations")
    new.save(tmp_path / "a.h5")
    assert lc.convert(tmp_path / "a.h5", tmp_path / "a.keras").whole_model
    compare(tmp_path / "a.keras", given, outputs(new, given))


def test_every_operation_of_keras_3_has_its_module() -> None:
    there = {
        name: module.__name__
        for module in (ops.core, ops.image, ops.linalg, ops.math, ops.nn, ops.numpy)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Operation)
        and value.__module__ == module.__name__ and value is not Operation
    }  # fmt: skip
    runs_code = {"AssociativeScan", "Cond", "ForiLoop", "JVP", "Map", "Scan", "Switch",
                 "VectorizedMap", "WhileLoop"}  # fmt: skip
    assert there.keys() - operations.BARE.keys() <= runs_code | {"SegmentReduction"}
    assert all(there.get(name, module) == module for name, module in operations.BARE.items())


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
