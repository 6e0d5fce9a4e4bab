"""Keras's defaults for options that a framework does not say and Keras needs. They are reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lstmconvert.conversion import ASSUMED
from lstmconvert.keras.configs.era import DEFAULTS
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model import edit
from lstmconvert.model.layer import Direction, LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.model.options import UNKNOWN

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
    """Return a layer with Keras's defaults for what its framework does not say, and a note on them.

    The note is None if nothing was assumed. The functions of the gates are never assumed: where the
    framework leaves them to its user, they stay unknown.
    """
    if not is_foreign(value):
        return value, None
    assumed: dict[str, Any] = _missing(value.forward)
    filled = edit.map_directions(
        value,
        lambda _, direction: replace(
            direction, options=replace(direction.options, **_missing(direction))
        ),
    )
    if value.backward is not None:
        # Keras sets it in both halves itself (keras/src/layers/rnn/bidirectional.py).
        assumed.pop("zero_output_for_mask", None)
        if value.options.merge_mode is UNKNOWN:
            assumed["merge_mode"] = "concat"
            filled = replace(filled, options=replace(value.options, merge_mode="concat"))
    if not assumed:
        return filled, None
    text = ", ".join(f"{key}={val}" for key, val in assumed.items())
    return filled, f"{value.name}: {ASSUMED}{_framework(value)} does not say: {text}"


def model(value: Model) -> Model:
    """Return a model whose layers are filled in, with a note for each."""
    filled = [layer(item) for item in value.layers]
    notes = tuple(note for _, note in filled if note is not None)
    return replace(value, layers=tuple(item for item, _ in filled), notes=(*value.notes, *notes))


def _missing(direction: Direction) -> dict[str, Any]:
    return {
        name: DEFAULTS[name]
        for name in _WANTED
        if getattr(direction.options, name) is UNKNOWN
    }


def _framework(value: LSTMLayer) -> str:
    return next(row.title for row in ROWS.values() if row.class_name == value.class_name)
