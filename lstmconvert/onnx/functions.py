"""Activations as the LSTM operator spells them: a function's name with its alpha and beta.

Names and meanings are those of the operator's documentation (onnx/defs/rnn/defs.cc, "Activation
functions"). Alpha and beta are lists of the numbers of those functions alone that take one, in the
order f, g, h; where a list ends early, the function's default holds. That order and the defaults
are as ONNX Runtime 1.32 takes them (measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lstmconvert.model.activations import (
    KERAS3_HARD_SIGMOID_ALPHA,
    LINEAR,
    SIGMOID,
    TANH,
    Activation,
)


class ActivationFunction(NamedTuple):
    """One activation function of a node: its ONNX name, alpha and beta where it takes them."""

    name: str
    alpha: float | None = None
    beta: float | None = None


def spell(activation: Activation) -> ActivationFunction | None:
    """Return the ONNX function that computes an activation, None if there is none."""
    if activation.custom:
        return None
    plain = _PLAIN.get(activation)
    if plain is not None:
        return plain
    name, constants = activation.name, activation.constants
    if name == "relu":
        return _relu(constants.get("negative_slope", 0.0), constants.get("threshold", 0.0),
                     constants.get("max_value", math.inf))
    wanted = _WITH_CONSTANTS.get(name)
    if wanted is None or set(constants) != set(wanted[1]):
        return None
    return ActivationFunction(wanted[0], *(float(constants[key]) for key in wanted[1]))


_PLAIN = {
    SIGMOID: ActivationFunction("Sigmoid"),
    TANH: ActivationFunction("Tanh"),
    LINEAR: ActivationFunction("Affine", 1.0, 0.0),
    Activation("relu"): ActivationFunction("Relu"),
    Activation("softsign"): ActivationFunction("Softsign"),
    Activation("softplus"): ActivationFunction("Softplus"),
    # clip((x + 1) / 2, 0, 1), and elu with a scale of one
    Activation("sparse_sigmoid"): ActivationFunction("HardSigmoid", 0.5, 0.5),
    Activation("celu", {"alpha": 1.0}): ActivationFunction("Elu", 1.0),
}
#: Our name -> ONNX's, and our constants in the order alpha, beta.
_WITH_CONSTANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "hard_sigmoid": ("HardSigmoid", ("alpha", "beta")),
    "leaky_relu": ("LeakyRelu", ("negative_slope",)),
    "thresholded_relu": ("ThresholdedRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "affine": ("Affine", ("alpha", "beta")),
    "scaled_tanh": ("ScaledTanh", ("alpha", "beta")),
}


def _relu(slope: float, threshold: float, ceiling: float) -> ActivationFunction | None:
    if ceiling != math.inf or (slope and threshold):
        return None
    if slope:
        return ActivationFunction("LeakyRelu", float(slope))
    return (
        ActivationFunction("ThresholdedRelu", float(threshold))
        if threshold
        else ActivationFunction("Relu")
    )


def as_lists(functions: Iterable[ActivationFunction]) -> dict[str, list[str] | list[float]]:
    """Return the attributes `activations`, `activation_alpha` and `activation_beta`."""
    functions = list(functions)
    alphas = [f.alpha for f in functions if f.alpha is not None]
    betas = [f.beta for f in functions if f.beta is not None]
    result: dict[str, list[str] | list[float]] = {"activations": [f.name for f in functions]}
    if alphas:
        result["activation_alpha"] = alphas
    if betas:
        result["activation_beta"] = betas
    return result


#: Lower-case ONNX name -> our name, the constants' names, and their defaults (None: there is none).
_KNOWN: dict[str, tuple[str, tuple[str, ...], tuple[float | None, ...]]] = {
    "sigmoid": ("sigmoid", (), ()),
    "tanh": ("tanh", (), ()),
    "relu": ("relu", (), ()),
    "softsign": ("softsign", (), ()),
    "softplus": ("softplus", (), ()),
    "hardsigmoid": ("hard_sigmoid", ("alpha", "beta"), (0.2, 0.5)),
    "leakyrelu": ("leaky_relu", ("negative_slope",), (0.01,)),
    "thresholdedrelu": ("thresholded_relu", ("alpha",), (1.0,)),
    "elu": ("elu", ("alpha",), (1.0,)),
    "affine": ("affine", ("alpha", "beta"), (None, None)),
    "scaledtanh": ("scaled_tanh", ("alpha", "beta"), (None, None)),
}


def from_lists(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """Return the activations of a node, in the order of `names`.

    Raises:
        ValueError: a name is not a function of the operator, or a number is missing.
    """
    left = [list(alphas), list(betas)]
    return [_activation(name, left) for name in names]


def _activation(name: str, left: list[list[float]]) -> Activation:
    if name.lower() not in _KNOWN:
        raise ValueError(f"no activation of the LSTM operator: {name[:40]}")
    ours, keys, defaults = _KNOWN[name.lower()]
    constants: dict[str, float] = {}
    for key, default, numbers in zip(keys, defaults, left, strict=False):
        value = exact(numbers.pop(0)) if numbers else default
        if value is None or not math.isfinite(value):
            raise ValueError(f"{name} without its constants")
        constants[key] = value
    result = Activation(ours, constants)
    return LINEAR if result == Activation("affine", {"alpha": 1.0, "beta": 0.0}) else result


def exact(value: float) -> float:
    """Return the number that was meant by a float32: 1/6, else the one of the fewest digits."""
    single = np.float32(value)
    if single == np.float32(KERAS3_HARD_SIGMOID_ALPHA):
        return KERAS3_HARD_SIGMOID_ALPHA
    return float(str(single))
