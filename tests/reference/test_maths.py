"""The maths of every activation, against Keras 3 and tf_keras, value by value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.thinned import each

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.model import activations
from lstmconvert.model.activations import KERAS2, KERAS3, Activation
from lstmconvert.reference import maths
from lstmconvert.reference.maths import MATHS, apply

#: Rows around every kink (0, ±0.5, ±1, ±2.5, ±3, 6), and far out, where naive formulas overflow.
GRID = np.concatenate(
    [np.linspace(-8, 8, 321), [-700.0, -89.0, -30.0, -0.0, 30.0, 89.0, 700.0]]
).reshape(-1, 8)
#: float64: both sides round each operation once; float32 likewise, and TensorFlow's vectorised
#: exp and tanh may err by a few units in the last place.
TOLERANCE = {"float64": 4e-15, "float32": 2e-6}
#: Keras on TensorFlow has these constants (a slope of 0.2, the root of 2) as float32 numbers in
#: float64 too; what is compared there is checked against its definition as well, below.
FLOAT32_CONSTANTS = frozenset({"leaky_relu", "gelu", "relu"})
#: Keras up to 3.15.1 computes it wrong (keras issue 23425): see `test_sparsemax`.
WRONG_IN_KERAS = frozenset({"sparsemax"})


NAMES_OF_KERAS_2 = (
    *("elu", "exponential", "gelu", "hard_sigmoid", "linear", "mish", "relu", "selu", "sigmoid"),
    *("softmax", "softplus", "softsign", "swish", "tanh"),
)


def close(ours: np.ndarray, theirs: Any, tolerance: float) -> None:
    theirs = np.asarray(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def tolerance(name: str, dtype: str) -> float:
    return TOLERANCE["float32" if name in FLOAT32_CONSTANTS else dtype]


@pytest.mark.engines
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", sorted(KERAS3.keys() - WRONG_IN_KERAS))
def test_names_of_keras_3(name: str, dtype: str) -> None:
    keras = pytest.importorskip("keras")
    x = GRID.astype(dtype)
    close(apply(KERAS3[name], x), keras.activations.get(name)(x), tolerance(name, dtype))


@pytest.mark.engines
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES_OF_KERAS_2)
def test_names_of_keras_2(name: str, dtype: str) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    x = GRID.astype(dtype)
    theirs = tf_keras.activations.get(name)(tf_keras.backend.constant(x, dtype=dtype))
    close(apply(KERAS2[name], x), theirs, tolerance(name, dtype))


WITH_CONSTANTS: list[tuple[str, dict[str, float]]] = [
    ("relu", {"negative_slope": 0.3}),
    ("relu", {"max_value": 2.0}),
    ("relu", {"max_value": 6.0, "negative_slope": 0.25}),
    ("relu", {"threshold": 1.5}),
    ("relu", {"threshold": -1.5}),
    ("relu", {"threshold": -1.5, "max_value": 1.0, "negative_slope": 0.1}),
    ("relu", {"threshold": 1.0, "max_value": 3.0, "negative_slope": 0.5}),
    ("leaky_relu", {"negative_slope": 0.01}),
    ("elu", {"alpha": 0.7}),
    ("celu", {"alpha": 0.7}),
    ("gelu", {"approximate": 1.0}),
    ("gelu", {"approximate": 0.0}),
    ("hard_shrink", {"threshold": 0.2}),
    ("soft_shrink", {"threshold": 0.2}),
    ("squareplus", {"b": 1.0}),
    ("threshold", {"threshold": 0.3, "default_value": -2.0}),
]


@pytest.mark.engines
@pytest.mark.parametrize(("name", "constants"), WITH_CONSTANTS)
def test_constants_of_keras_3(name: str, constants: dict[str, float]) -> None:
    keras = pytest.importorskip("keras")
    theirs = {k: bool(v) if k == "approximate" else v for k, v in constants.items()}
    expected = getattr(keras.activations, name)(GRID, **theirs)
    close(apply(Activation(name, constants), GRID), expected, tolerance(name, "float64"))


#: (activation, its definition): ONNX's functions of an LSTM, which no Keras has, and those that
#: Keras gives to float32 accuracy only.
BY_DEFINITION: list[tuple[Activation, Callable[[float], float]]] = [
    (Activation("leaky_relu", {"negative_slope": 0.2}), lambda x: x if x > 0 else 0.2 * x),
    (Activation("relu", {"negative_slope": 0.3}), lambda x: x if x > 0 else 0.3 * x),
    (Activation("gelu"), lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2))),
    (
        Activation("gelu", {"approximate": 1.0}),
        lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    (Activation("affine", {"alpha": 0.7, "beta": -0.2}), lambda x: 0.7 * x - 0.2),
    (
        Activation("scaled_tanh", {"alpha": 1.7, "beta": 2 / 3}),
        lambda x: 1.7 * math.tanh(2 / 3 * x),
    ),
    (Activation("thresholded_relu", {"alpha": 1.0}), lambda x: x if x > 1.0 else 0.0),
    (
        Activation("hard_sigmoid", {"alpha": 0.3, "beta": 0.4}),
        lambda x: min(1.0, max(0.0, 0.3 * x + 0.4)),
    ),
]


@pytest.mark.parametrize(
    ("activation", "definition"), BY_DEFINITION, ids=[str(row[0]) for row in BY_DEFINITION]
)
def test_definitions(activation: Activation, definition: Callable[[float], float]) -> None:
    expected = np.array([definition(x) for x in GRID.flat]).reshape(GRID.shape)
    close(apply(activation, GRID), expected, 1e-15)


def test_sparsemax() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 5))
    ours = apply(Activation("sparsemax"), rows)
    np.testing.assert_allclose(ours.sum(axis=-1), 1.0, atol=1e-15)
    for row, result in zip(rows, ours, strict=True):
        # one threshold for the whole row, the definition: max(x - tau, 0) that sums to one
        (tau,) = {round(float(t), 12) for t in (row - result)[result > 0]}
        np.testing.assert_allclose(result, np.maximum(row - tau, 0), atol=1e-11)


@pytest.mark.engines
def test_sparsemax_is_keras_s_where_keras_is_right() -> None:
    keras = pytest.importorskip("keras")
    far_apart = np.array([[3.0, 1.0, -1.0], [0.0, 5.0, 2.0]])  # supports of one value
    close(apply(Activation("sparsemax"), far_apart), keras.activations.sparsemax(far_apart), 0)


def test_the_two_hard_sigmoids_differ() -> None:
    x = np.linspace(-2.4, 2.4, 9)
    old, new = (apply(table["hard_sigmoid"], x) for table in (KERAS2, KERAS3))
    np.testing.assert_allclose(old, 0.2 * x + 0.5, atol=1e-15)
    np.testing.assert_allclose(new, x / 6 + 0.5, atol=1e-15)
    assert np.abs(old - new).max() > 0.07


def test_the_table_has_every_name() -> None:
    assert {a.name for a in (*KERAS3.values(), *KERAS2.values())} <= set(MATHS)


@pytest.mark.engines
def test_every_name_that_keras_has_is_known_or_refused() -> None:
    keras_activations = pytest.importorskip("keras.src.activations")
    needs_constants = {"threshold"}
    assert set(keras_activations.ALL_OBJECTS_DICT) - needs_constants == set(KERAS3) | {"glu"}


@each("shape", [(1,), (3, 1), (2, 3, 4), (0, 3)])
@each("name", KERAS3)
def test_shape_and_dtype_stay(name: str, shape: tuple[int, ...]) -> None:
    for dtype in ("float32", "float64"):
        result = apply(KERAS3[name], np.ones(shape, dtype))
        assert (result.shape, result.dtype.name) == (shape, dtype)


@each("name", KERAS3)
def test_nan_stays_visible_without_a_warning(name: str) -> None:
    # relu and its like compare, and a comparison with NaN is false: they give their lower value.
    quiet = {"relu", "relu6", "leaky_relu", "hard_shrink", "soft_shrink"}
    result = apply(KERAS3[name], np.array([[np.nan, 1.0]]))
    assert np.isnan(result[0, 0]) or name in quiet


def test_far_values_give_no_warning() -> None:
    far = np.array([[-1e38, 1e38, np.inf, -np.inf]], np.float32)
    for activation in KERAS3.values():
        apply(activation, far)


@pytest.mark.parametrize(
    "activation",
    [
        Activation("glu"),
        Activation("no_such_thing"),
        Activation("tanh", {"alpha": 1.0}),
        Activation("hard_sigmoid"),
    ],
    ids=str,
)
def test_refused(activation: Activation) -> None:
    with pytest.raises(UnsupportedByTarget) as caught:
        apply(activation, GRID)
    assert caught.value.option == "activation"
    assert activation.name in str(caught.value)


def test_constants_have_one_source() -> None:
    assert pytest.approx(1 / 6) == activations.KERAS3_HARD_SIGMOID_ALPHA
    assert pytest.approx(1.67326324, abs=1e-8) == maths.SELU_ALPHA
