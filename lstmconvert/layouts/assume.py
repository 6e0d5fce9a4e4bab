"""What a framework does not say and Keras wants to know: Keras's defaults, listed as assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lstmconvert.keras.era import DEFAULTS
from lstmconvert.layer import Direction, LSTMLayer
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model import Model
from lstmconvert.options import UNKNOWN

#: Options of a direction that a Keras layer cannot be without.
_WANTED = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "zero_output_for_mask",
)


def is_foreign(layer: LSTMLayer) -> bool:
    """Whether a layer came from a framework's arrays, without metadata of ours."""
    return layer.class_name in {row.class_name for row in ROWS.values()}


def layer(value: LSTMLayer) -> tuple[LSTMLayer, str | None]:
    """Return a layer with Keras's defaults for what its framework does not say, and what they are;
    None if it says all.

    The functions of its gates are no such thing: where the framework leaves them to its user, they
    stay unknown.
    """
    if not is_foreign(value):
        return value, None
    said: dict[str, Any] = {}
    forward = _filled(value.forward, said)
    backward = value.backward and _filled(value.backward, {})
    options = value.options
    if backward is not None and options.merge_mode is UNKNOWN:
        said["merge_mode"] = "concat"
        options = replace(options, merge_mode="concat")
    if backward is not None and "zero_output_for_mask" in said:
        # Keras sets both halves so (keras/src/layers/rnn/bidirectional.py).
        del said["zero_output_for_mask"]
    text = ", ".join(f"{key}={val}" for key, val in said.items())
    filled = replace(value, forward=forward, backward=backward, options=options)
    if not said:
        return filled, None
    return filled, f"{value.name}: assumed, as {_framework(value)} does not say: {text}"


def model(value: Model) -> Model:
    """Return a model whose layers are filled in, with a note for each."""
    found = [layer(item) for item in value.layers]
    notes = tuple(text for _, text in found if text is not None)
    return replace(value, layers=tuple(item for item, _ in found), notes=(*value.notes, *notes))


def _filled(direction: Direction, said: dict[str, Any]) -> Direction:
    for name in _WANTED:
        if getattr(direction.options, name) is UNKNOWN:
            said[name] = DEFAULTS[name]
    return replace(direction, options=replace(direction.options, **_missing(direction)))


def _missing(direction: Direction) -> dict[str, Any]:
    return {
        name: DEFAULTS[name]
        for name in _WANTED
        if getattr(direction.options, name) is UNKNOWN
    }


def _framework(value: LSTMLayer) -> str:
    return next(row.title for row in ROWS.values() if row.class_name == value.class_name)
