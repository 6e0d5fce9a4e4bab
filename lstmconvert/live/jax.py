"""What the frameworks on JAX share: arrays that keep their bits, and activations as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from lstmconvert.errors import UnknownOption, UnsupportedByTarget, install
from lstmconvert.live.sources import imported
from lstmconvert.model.activations import LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.options import UNKNOWN, Unknown
from lstmconvert.tensors.dtypes import Array

Function = Callable[[Any], Any]
NEEDS = install("jax")


def array(value: Array) -> Any:
    """Return an array as JAX has it, bit for bit.

    Raises:
        MissingPackage: JAX is not installed.
        UnsupportedByTarget: it is float64, and JAX has not been told to hold that.
    """
    jax = imported("jax", NEEDS)
    if value.dtype.itemsize > 4 and not jax.config.jax_enable_x64:
        raise UnsupportedByTarget(
            "JAX would round float64 to float32",
            option="dtype",
            target="jax",
            found=value.dtype.name,
            hint="call jax.config.update('jax_enable_x64', True) first",
        )
    return jax.numpy.asarray(value)


def nested(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return arrays named `cell.ii.kernel` as a tree of dicts."""
    tree: dict[str, Any] = {}
    for name, value in arrays.items():
        *folders, leaf = name.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = array(value)
    return tree


def flat(tree: Any, prefix: str = "") -> dict[str, Array]:
    """Return a tree of mappings as arrays named `cell.ii.kernel`."""
    if not isinstance(tree, Mapping):
        return {prefix: np.asarray(tree)} if hasattr(tree, "shape") else {}
    arrays: dict[str, Array] = {}
    for key, value in tree.items():
        arrays |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return arrays


def functions(layer: LSTMLayer) -> dict[str, Function]:
    """Return Flax's arguments `gate_fn` and `activation_fn` for a layer.

    Raises:
        UnknownOption: they are unknown.
        UnsupportedByTarget: JAX does not have a function, or the cells differ in theirs.
    """
    pairs = {
        (cell.options.recurrent_activation, cell.options.activation) for _, _, cell in layer.cells()
    }
    if len(pairs) > 1:
        raise UnsupportedByTarget(
            "one pair of functions for all cells",
            where=layer.name,
            layer=layer.name,
            option="activation",
            target="flax",
            found=" and ".join(f"{gate}, {cell}" for gate, cell in pairs),
        )
    ((gate, cell),) = pairs
    return {
        "gate_fn": function_of(gate, layer, "recurrent_activation"),
        "activation_fn": function_of(cell, layer, "activation"),
    }


def function_of(activation: Activation | Unknown, layer: LSTMLayer, option: str) -> Function:
    """Return an activation as a function of JAX. Raises as `functions`."""
    if isinstance(activation, Unknown):
        raise UnknownOption(
            "the file does not say what a live object of Flax depends on",
            where=layer.name,
            found=f"unknown: {option}",
            hint=f"load it with settings=['{option}=VALUE']",
        )
    entry = _table().get(activation.name)
    if entry is None or activation.custom or set(activation.constants) - set(entry[1]):
        raise UnsupportedByTarget(
            "JAX has no such function",
            where=layer.name,
            layer=layer.name,
            option=option,
            target="flax",
            found=activation,
            expected=", ".join(_table()),
        )
    function, constants = entry
    return partial(function, **activation.constants) if constants else function


def activation_of(function: Any) -> Activation | Unknown:
    """Return what a function of a live object is, where it is JAX's own; else unknown."""
    for activation in (SIGMOID, TANH, LINEAR, *map(Activation, ("relu", "softplus", "silu"))):
        if function is _table()[activation.name][0]:
            return activation
    return UNKNOWN


def _table() -> dict[str, tuple[Function, tuple[str, ...]]]:
    """Return `name -> (function, the names of its constants)`."""
    jax = imported("jax", NEEDS)
    nn, np_ = jax.nn, jax.numpy
    return {
        "linear": (nn.identity, ()),
        "tanh": (np_.tanh, ()),
        "sigmoid": (nn.sigmoid, ()),
        "hard_sigmoid": (_hard_sigmoid, ("alpha", "beta")),
        "relu": (nn.relu, ()),
        "leaky_relu": (nn.leaky_relu, ("negative_slope",)),
        "elu": (nn.elu, ("alpha",)),
        "celu": (nn.celu, ("alpha",)),
        "selu": (nn.selu, ()),
        "silu": (nn.silu, ()),
        "softplus": (nn.softplus, ()),
        "softsign": (nn.soft_sign, ()),
        "exponential": (np_.exp, ()),
        "log_sigmoid": (nn.log_sigmoid, ()),
        "mish": (nn.mish, ()),
        "hard_silu": (nn.hard_silu, ()),
        "hard_tanh": (nn.hard_tanh, ()),
        "gelu": (partial(nn.gelu, approximate=False), ()),
    }


def _hard_sigmoid(x: Any, alpha: float, beta: float) -> Any:
    return imported("jax.numpy", NEEDS).clip(alpha * x + beta, 0.0, 1.0)


