"""What the user should know of a Keras file that is written: who opens it, what is assumed."""

from __future__ import annotations

import json

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.keras.modern.objects import COMPOSITION_NAME
from lstmconvert.model import Model

_BFLOAT16 = (
    "bfloat16: Keras on TensorFlow cannot build such a layer with its default orthogonal "
    "initializer, nor load this file; Keras on JAX or PyTorch can"
)
#: Keras 3.9.2 does not load such a file, 3.10.0 does.
_COMPOSED = (
    "Keras 2's hard_sigmoid is written as a composition of layers, which Keras 3.10 and later "
    "load (for an older one: --rescale-hard-sigmoid, which rounds)"
)


def bfloat16(model: Model) -> tuple[str, ...]:
    """Return a warning if a layer is in bfloat16."""
    if not any(layer.dtype.name == "bfloat16" for layer in model.layers):
        return ()
    return (_BFLOAT16,)


def refuse_bfloat16(model: Model) -> None:
    """Raise `UnsupportedByTarget` if a layer is in bfloat16, for a legacy `.h5`."""
    for layer in model.layers:
        if layer.dtype.name == "bfloat16":
            raise UnsupportedByTarget(
                "Keras cannot read bfloat16 back from a legacy .h5",
                where=layer.name,
                layer=layer.name,
                option="dtype",
                target="h5",
                found="bfloat16",
                hint="write .keras or .weights.h5, or cast with --dtype float32",
            )


def composed(config: str) -> tuple[str, ...]:
    """Return a warning if a model's config has Keras 2's hard_sigmoid in Keras 3's layers."""
    return (_COMPOSED,) if json.dumps(COMPOSITION_NAME) in config else ()


def assumed(model: Model) -> tuple[str, ...]:
    """Return a warning that lists the options that no one said and Keras's defaults stand for."""
    from lstmconvert import optionjson

    names: dict[str, None] = {}
    for layer in model.layers:
        for _, direction in layer.directions:
            names.update(dict.fromkeys(optionjson.unknown(direction.options)))
            for cell in direction.lstm_cells:
                names.update(dict.fromkeys(optionjson.unknown(cell.options)))
    names.pop("time_major", None)
    if not names:
        return ()
    return (f"unknown, and written as Keras's defaults: {', '.join(names)}",)
