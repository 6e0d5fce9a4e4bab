"""The NumPy maths of every activation that makes sense in an LSTM.

An activation is its name and its constants (`model.activations`); here a name is a function
and the constants are its keyword arguments. Constants that have a default here are those a bare
name may leave out. Every function returns the dtype it was given: Python floats are weak in
NumPy's promotion, so they never widen float32.

Formulas are Keras's (keras/src/activations/activations.py and keras/src/backend/tensorflow/nn.py)
and, for `affine`, `scaled_tanh` and `thresholded_relu`, ONNX's (operators LSTM and
ThresholdedRelu).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.model.activations import Activation
from lstmconvert.tensors.dtypes import Array

Function = Callable[[Array], Array]

#: Klambauer et al. 2017, "Self-Normalizing Neural Networks", equation 14.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
#: The cubic term of the tanh approximation of gelu: Hendrycks and Gimpel 2016, section 2.
GELU_CUBIC = 0.044715


#: Dtype -> the distance of 1 from the next larger number.
EPSILONS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
#: How many times the rounding error of the reference an engine may have: it sums in another order.
NOISE = 16.0
#: How many units in the last place of the largest output an engine's own functions may be off.
FUNCTIONS = 16.0


def allowed(noise: Array | float, largest: float, dtype: str) -> Any:
    """Return how far from the reference in float64 the answer of an engine may be.

    Args:
        noise: how far the reference in float32 is from it.
        largest: the largest output in size.
        dtype: what the engine computes in.
    """
    epsilon = EPSILONS[dtype]
    return NOISE * epsilon / EPSILONS["float32"] * noise + FUNCTIONS * epsilon * largest


@np.errstate(all="ignore")  # NaN and infinity go through, as they do in every framework
def apply(activation: Activation, x: Array) -> Array:
    """Return `activation` of `x`, in the shape and dtype of `x`.

    Functions of a row (softmax and its kin) take the last axis, as Keras does.

    Raises:
        UnsupportedByTarget: the name or one of its constants is not in the table.
    """
    return _bound(activation)(x)


@cache
def _bound(activation: Activation) -> Function:
    function = MATHS.get(activation.name)
    if function is None:
        raise _unsupported(activation, _REFUSED.get(activation.name, "no such activation here"))
    try:
        inspect.signature(function).bind(None, **activation.constants)
    except TypeError:
        raise _unsupported(activation, "not the constants this activation has") from None
    return partial(function, **activation.constants)


def _unsupported(activation: Activation, message: str) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        message,
        option="activation",
        target="reference",
        found=activation,
        expected=f"one of {', '.join(sorted(MATHS))}",
        hint="name an activation of Keras with --set LAYER.OPTION=VALUE",
    )


def _linear(x: Array) -> Array:
    return x


def _sigmoid(x: Array) -> Array:
    # exp is taken of numbers up to zero only: it cannot overflow, and small results stay exact.
    small: Array = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _tanh(x: Array) -> Array:
    return np.tanh(x)


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _hard_silu(x: Array) -> Array:
    return x * _hard_sigmoid(x, 1 / 6, 0.5)


def _relu(
    x: Array, negative_slope: float = 0.0, max_value: float = math.inf, threshold: float = 0.0
) -> Array:
    # Keras clips to [0, max_value] before it adds the negative side, which starts at the
    # threshold (activations.py, `ReLU.static_call`).
    above = np.where(x > threshold, x, 0.0)
    if max_value != math.inf:
        above = np.clip(above, 0.0, max_value)
    return above - negative_slope * np.maximum(threshold - x, 0.0) if negative_slope else above


def _leaky_relu(x: Array, negative_slope: float) -> Array:
    return np.where(x > 0, x, negative_slope * x)


def _thresholded_relu(x: Array, alpha: float) -> Array:
    return np.where(x > alpha, x, 0.0)


def _threshold(x: Array, threshold: float, default_value: float) -> Array:
    return np.where(x > threshold, x, default_value)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _selu(x: Array) -> Array:
    return SELU_SCALE * _elu(x, SELU_ALPHA)


def _celu(x: Array, alpha: float) -> Array:
    return np.maximum(x, 0.0) + alpha * np.expm1(np.minimum(x, 0.0) / alpha)


def _erfc(x: Array) -> Array:
    # NumPy has none; the standard library's is right to the last digits of float64.
    return np.asarray(np.vectorize(math.erfc, otypes=[np.float64])(x), dtype=x.dtype)


def _gelu(x: Array, approximate: float = 0.0) -> Array:
    if approximate:
        bend: Array = np.tanh(math.sqrt(2 / math.pi) * (x + GELU_CUBIC * x * x * x))
        return (1 + bend) * (0.5 * x)
    # 1 + erf(z) = erfc(-z), which keeps its digits where erf is near -1
    return 0.5 * x * _erfc(x / -math.sqrt(2))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _log_sigmoid(x: Array) -> Array:
    return -_softplus(-x)


def _mish(x: Array) -> Array:
    return x * np.tanh(_softplus(x))


def _softsign(x: Array) -> Array:
    divisor: Array = 1 + np.abs(x)
    return x / divisor


def _exponential(x: Array) -> Array:
    return np.exp(x)


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _hard_tanh(x: Array) -> Array:
    return np.clip(x, -1.0, 1.0)


def _hard_shrink(x: Array, threshold: float) -> Array:
    return np.where(np.abs(x) > threshold, x, 0.0)


def _soft_shrink(x: Array, threshold: float) -> Array:
    return np.where(x > threshold, x - threshold, np.where(x < -threshold, x + threshold, 0.0))


def _tanh_shrink(x: Array) -> Array:
    return x - np.tanh(x)


def _squareplus(x: Array, b: float) -> Array:
    return (x + np.sqrt(x * x + b)) / 2


def _sparse_plus(x: Array) -> Array:
    return np.where(x <= -1, 0.0, np.where(x < 1, (x + 1) * (x + 1) / 4, x))


def _sparse_sigmoid(x: Array) -> Array:
    return np.clip((x + 1) / 2, 0.0, 1.0)


def _softmax(x: Array) -> Array:
    weights: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Array = weights.sum(axis=-1, keepdims=True)
    return weights / total


def _log_softmax(x: Array) -> Array:
    shifted: Array = x - x.max(axis=-1, keepdims=True)
    total: Array = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted - total


def _sparsemax(x: Array) -> Array:
    # Martins and Astudillo 2016, algorithm 1: project onto the simplex. The k largest values that
    # stay above the threshold are its support; the others become zero. Keras up to 3.15.1 takes a
    # wrong threshold where the support is more than one value (keras issue 23425, mended by pull
    # request 23469); this is the definition.
    falling = np.flip(np.sort(x, axis=-1), axis=-1)
    total = np.cumsum(falling, axis=-1) - 1
    count = np.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = (falling * count > total).sum(axis=-1, keepdims=True)
    last = np.take_along_axis(total, np.maximum(support - 1, 0), axis=-1)
    result: Array = np.maximum(x - last / support.astype(x.dtype), 0.0)
    return result


def _affine(x: Array, alpha: float, beta: float) -> Array:
    return alpha * x + beta


def _scaled_tanh(x: Array, alpha: float, beta: float) -> Array:
    return alpha * np.tanh(beta * x)


#: Activation name -> its maths; the constants are keyword arguments.
MATHS: dict[str, Callable[..., Array]] = {
    "linear": _linear,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "hard_sigmoid": _hard_sigmoid,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "thresholded_relu": _thresholded_relu,
    "threshold": _threshold,
    "elu": _elu,
    "selu": _selu,
    "celu": _celu,
    "gelu": _gelu,
    "softplus": _softplus,
    "softsign": _softsign,
    "exponential": _exponential,
    "silu": _silu,
    "hard_silu": _hard_silu,
    "hard_tanh": _hard_tanh,
    "hard_shrink": _hard_shrink,
    "soft_shrink": _soft_shrink,
    "tanh_shrink": _tanh_shrink,
    "squareplus": _squareplus,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _sparse_sigmoid,
    "log_sigmoid": _log_sigmoid,
    "mish": _mish,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "sparsemax": _sparsemax,
    "affine": _affine,
    "scaled_tanh": _scaled_tanh,
}

#: Names that Keras knows and no LSTM can use, with the reason.
_REFUSED: dict[str, str] = {"glu": "this activation halves the width, so no LSTM can have it"}
