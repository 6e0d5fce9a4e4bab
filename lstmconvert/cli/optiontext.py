"""A layer's options in words: activations with their maths, and what is not Keras's default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lstmconvert.activations import (
    KERAS2_HARD_SIGMOID_ALPHA,
    KERAS3_HARD_SIGMOID_ALPHA,
    Activation,
)
from lstmconvert.keras.era import DEFAULTS
from lstmconvert.layer import Cell, Direction, LSTMLayer
from lstmconvert.options import UNKNOWN

_HARD_SIGMOIDS = {
    KERAS2_HARD_SIGMOID_ALPHA: "hard_sigmoid of Keras 1 and 2, clip(0.2*x + 0.5, 0, 1)",
    KERAS3_HARD_SIGMOID_ALPHA: "hard_sigmoid of Keras 3, clip(x/6 + 0.5, 0, 1)",
}
_RUN = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "time_major",
    "zero_output_for_mask",
    "activity_regularizer",
)
_CELL = (
    "unit_forget_bias",
    "dropout",
    "recurrent_dropout",
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
)
#: What only other frameworks' cells have, and the value that means "not there".
_FOREIGN = {
    "gate_clip": None,
    "cell_clip": None,
    "projection_clip": None,
    "input_forget": False,
    "forget_bias": 0.0,
}


def rows(layer: LSTMLayer, name: str, direction: Direction, cell: Cell) -> list[tuple[str, str]]:
    """Return `(option, what it is)` of one cell, as it runs in its direction."""
    known = cell.options
    result = []
    if known.activation is not UNKNOWN:
        uses = "cell gate" if known.output_activation else "cell gate, state on its way out"
        result.append(("activation", f"{activation(known.activation)}: {uses}"))
    if known.output_activation is not None:
        result.append(
            ("output_activation", f"{activation(known.output_activation)}: state on its way out")
        )
    if known.recurrent_activation is not UNKNOWN:
        result.append(
            ("recurrent_activation", f"{activation(known.recurrent_activation)}: all other gates")
        )
    if known.convolution:
        result.append(
            ("convolution", ", ".join(f"{k}={text(v)}" for k, v in known.convolution.items()))
        )
    set_here = [f"{k}={text(v)}" for k, v in _not_default(layer, name, direction, cell)]
    if set_here:
        result.append(("also", ", ".join(set_here)))
    return result


def activation(value: Activation | Any) -> str:
    """`tanh`, `hard_sigmoid of Keras 1 and 2, clip(0.2*x + 0.5, 0, 1)`."""
    if value is UNKNOWN:
        return "unknown"
    if value.custom:
        return f"{value} (custom: known by name only)"
    if value.name == "hard_sigmoid" and value.constants.get("beta") == 0.5:
        return _HARD_SIGMOIDS.get(value.constants.get("alpha", 0.0), str(value))
    return str(value)


def text(value: Any) -> str:
    """One option's value as Python would show it; of an object, its class."""
    if isinstance(value, Activation):
        return activation(value)
    if isinstance(value, dict):
        return str(value.get("class_name", "set"))
    if isinstance(value, (list, tuple)):
        return "×".join(map(str, value))
    return str(value)


def _not_default(
    layer: LSTMLayer, name: str, direction: Direction, cell: Cell
) -> Iterator[tuple[str, Any]]:
    for option in _RUN:
        value = getattr(direction.options, option)
        default = option == "go_backwards" and name == "backward"
        if value is not UNKNOWN and value != (default or DEFAULTS[option]):
            yield option, value
    if direction.options.keeps_time_order:
        yield "keeps_time_order", True
    for option in _CELL:
        value = getattr(cell.options, option)
        if value is not UNKNOWN and value != DEFAULTS[option]:
            yield option, value
    for option, absent in _FOREIGN.items():
        value = getattr(cell.options, option)
        if value != absent:
            yield option, value
    if layer.options.trainable is False:
        yield "trainable", False
    if layer.options.masked is True:
        yield "masked", True
    if cell.options.policy not in (UNKNOWN, cell.dtype.name):
        yield "dtype policy", cell.options.policy
