"""Lambda layers by expressions: tf_keras runs the code, and Keras 3 and ONNX Runtime ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras.src import ops

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.keras.modern import expressions
from lstmconvert.keras.modern.operations import BARE

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
STEPS, WIDTH = 5, 3
K = tf_keras.backend

#: Name -> what the code of the Lambda is, and the same as an expression.
OF_ONE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "last": (lambda x: x[:, -1, :], "x[:, -1, :]"),
    "inner": (lambda x: x[..., 1], "x[..., 1]"),
    "new": (lambda x: x[:, None], "x[:, None]"),
    "turned": (lambda x: x[:, ::-1, 1:], "x[:, ::-1, 1:]"),
    "wider": (lambda x: K.expand_dims(x, -1), "ops.expand_dims(x, -1)"),
    "scaled": (lambda x: x * 2.0 - 1.0, "x * (4 / 2) - 1.0"),
    "powers": (lambda x: 1.0 / (x**2 + 3.0), "1 / (x ** 2 + 3.0)"),
    "total": (lambda x: K.sum(x, axis=1), "ops.sum(x, axis=1)"),
    "mean": (lambda x: K.mean(x, axis=-1, keepdims=True), "ops.mean(x, -1, keepdims=True)"),
    "unit": (lambda x: K.l2_normalize(x, axis=-1), "x / ops.sqrt(ops.sum(x * x, -1, True))"),
    "swapped": (lambda x: K.permute_dimensions(x, (0, 2, 1)), "ops.transpose(x, (0, 2, 1))"),
    "flat": (lambda x: tf.reshape(x, (-1, STEPS * WIDTH)), "ops.reshape(x, (-1, 15))"),
    "soft": (lambda x: tf.nn.softmax(-x, axis=1), "ops.softmax(-x, axis=1)"),
    "products": (lambda x: tf.matmul(x, x, transpose_b=True), "x @ ops.swapaxes(x, 1, 2)"),
    "cut": (lambda x: tf.clip_by_value(x, -0.1, 0.2), "ops.clip(x, -0.1, 0.2)"),
    "picked": (lambda x: tf.gather(x, [2, 0], axis=1), "ops.take(x, [2, 0], axis=1)"),
    "kept": (lambda x: tf.where(x > 0.1, x, 0.0 * x), "ops.where(x > 0.1, x, x * 0.0)"),
    "same": (lambda x: x, "x"),
    "joined": (lambda x: tf.concat([x, tf.abs(x)], -1), "ops.concatenate([x, ops.abs(x)], -1)"),
    "twice": (lambda x: K.repeat_elements(x, 2, axis=1), "ops.repeat(x, 2, axis=1)"),
}
#: The same of a list of two tensors.
OF_TWO: dict[str, tuple[Callable[[Any], Any], str]] = {
    "both": (lambda x: x[0] * x[1], "x[0] * x[1]"),
    "apart": (
        lambda x: K.sqrt(K.sum(K.square(x[0] - x[1]), axis=1)),
        "ops.sqrt(ops.sum(ops.square(x[0] - x[1]), axis=1))",
    ),
}
EVERY = OF_ONE | OF_TWO
X = np.random.default_rng(4).normal(size=(2, STEPS, WIDTH)).astype("float32")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """An old model with every Lambda above, and what it gives."""
    inputs = tf_keras.Input((STEPS, WIDTH))
    h = tf_keras.layers.LSTM(WIDTH, return_sequences=True)(inputs)
    layer = tf_keras.layers.Lambda
    outputs = [layer(code, name=name)(h) for name, (code, _) in OF_ONE.items()]
    outputs += [layer(code, name=name)([h, inputs]) for name, (code, _) in OF_TWO.items()]
    made = tf_keras.Model(inputs, outputs)
    path = tmp_path_factory.mktemp("lambda") / "old.h5"
    made.save(path)
    return path, [np.asarray(each) for each in made(X)]


def replacing(**expressions: str) -> list[str]:
    return [f"{name}={text}" for name, text in expressions.items()]


def every(**others: str) -> list[str]:
    """Every expression, some by others."""
    return replacing(**{name: text for name, (_, text) in EVERY.items()} | others)


def test_keras_computes_what_the_code_did(written: Any, tmp_path: Path) -> None:
    path, expected = written
    result = lc.convert(path, tmp_path / "new.keras", replace=every(), warn=False)
    assert "Lambda" not in lc.load(result.destination).texts["model_config"]
    given = keras.models.load_model(result.destination)(X)
    for name, ours, theirs in zip(EVERY, given, expected, strict=True):
        assert ours.shape == theirs.shape, name
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6), name  # sums in another order


def test_onnx_runtime_computes_it_too(written: Any, tmp_path: Path) -> None:
    import onnxruntime

    path, expected = written
    result = lc.convert(path, tmp_path / "new.onnx", whole=True, replace=every(), warn=False)
    session = onnxruntime.InferenceSession(result.destination)
    given = session.run(None, {session.get_inputs()[0].name: X})
    for name, ours, theirs in zip(EVERY, given, expected, strict=False):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize("suffix", ["keras", "onnx"])
def test_a_sequential_becomes_functional(suffix: str, tmp_path: Path) -> None:
    layers = tf_keras.layers
    inner = tf_keras.Sequential(
        [layers.Dense(2, input_shape=(STEPS, WIDTH)), layers.Lambda(lambda x: x * 2, name="in")]
    )
    made = tf_keras.Sequential(
        [
            layers.Lambda(lambda x: x + 1, name="first", input_shape=(STEPS, WIDTH)),
            inner,
            layers.LSTM(2),
            layers.Lambda(lambda x: x[:, :1], name="out"),
        ]
    )
    made.save(tmp_path / "old.h5")
    expected = np.asarray(made(X))
    replace = replacing(first="x + 1", out="x[:, :1]", **{"in": "x * 2"})
    target = tmp_path / f"new.{suffix}"
    lc.convert(
        tmp_path / "old.h5", target, replace=replace, whole=suffix == "onnx", warn=False
    )
    if suffix == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(target)
        given = session.run(None, {session.get_inputs()[0].name: X})[0]
    else:
        given = keras.models.load_model(target)(X)
    assert np.allclose(given, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y + 1", "outside of the grammar"),
        ("__import__('os').system('true')", "outside of the grammar"),
        ("x.__class__", "outside of the grammar"),
        ("ops.shape(x)", "not among the functions"),
        ("ops.summ(x)", "not among the functions"),
        ("ops.sum(x, 1, True, 3)", "has the arguments"),
        ("ops.sum(x, axes=1)", "has the arguments"),
        ("ops.sum(*x)", "has the arguments"),
        ("ops.reshape(x)", "needs newshape"),
        ("ops.sum(x, axis=x)", "not a plain value"),
        ("ops.exp(1.0)", "of no tensor"),
        ("x[1.5]", "not a whole number"),
        ("x + 'a'", "neither a tensor nor a number"),
        ("9 ** 9 ** 9 * x", "outside of the grammar"),
        ("1 / 0 + x", "not a number"),
        ("lambda: x", "outside of the grammar"),
        ("x if x else x", "outside of the grammar"),
        ("[x for x in x]", "outside of the grammar"),
        ("x < x < x", "outside of the grammar"),
        ("1 + 1", "not a tensor"),
        ("ops.concatenate(x)", "takes a list"),
        ("x +", "not an expression"),
        ("(" * 900 + "x", "not an expression"),
        ("x" * 3000, "too long"),
        ("x" + " + x" * 400, "too deep"),
        ("-" * 500 + "x", "too deep"),
    ],
)
def test_what_is_outside_of_the_grammar_is_refused(
    text: str, message: str, written: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        lc.convert(written[0], tmp_path / "new.keras", replace=every(last=text))
    assert not (tmp_path / "new.keras").exists()


def test_a_lambda_that_is_not_replaced_is_refused(written: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedByTarget, match="Python code") as caught:
        lc.convert(written[0], tmp_path / "new.keras", replace=["last=x[:, -1]"])
    assert "--replace" in str(caught.value.hint)
    report = lc.inspect(written[0])
    (note,) = [text for text in report.source.notes if text.startswith("wider: ")]
    assert f"note: {note}" in str(report).splitlines()
    assert "code in the file, which is never run here; the names in it: K, expand_dims;" in note
    with pytest.raises(UsageError, match="list of tensors"):
        lc.convert(written[0], tmp_path / "new.keras", replace=every(both="x"))
    with pytest.raises(UsageError, match="list of tensors"):
        lc.convert(written[0], tmp_path / "new.keras", replace=every(both="x + 1"))


def test_the_table_is_that_of_keras() -> None:
    for name, function in expressions.FUNCTIONS.items():
        theirs = inspect.signature(getattr(ops, name)).parameters
        ours = (*function.tensors, *function.others)
        assert tuple(theirs)[: len(function.tensors)] == function.tensors, name
        for argument in ours[len(function.tensors) :]:
            assert argument in theirs, (name, argument)
            default = theirs[argument].default
            is_needed = default is inspect.Parameter.empty
            ours_is = function.stated.get(argument, default)
            # None is Keras's float type there.
            assert is_needed or ours_is in (default, default or "float32"), (name, argument)
        module = __import__(BARE[function.class_name], fromlist=["ops"])
        made = inspect.signature(getattr(module, function.class_name).__init__).parameters
        assert {*function.others, *function.stated} <= made.keys(), name
