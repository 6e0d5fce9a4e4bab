"""Parts and variants of a model: some of its layers, its LSTMs alone, another dtype."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from lstmconvert.dtypes import FLOATS, dtype_of
from lstmconvert.errors import UsageError
from lstmconvert.layer import Cell, Direction, GateWeights, LSTMLayer
from lstmconvert.model import Model
from lstmconvert.tensors import Cast, Tensor


def layers(model: Model, names: Collection[str]) -> Model:
    """Return the model with the named layers alone, and nothing else of the file.

    Raises:
        UnknownLayer: a name is no layer's.
    """
    for name in names:
        model[name]
    return replace(lstm_only(model), layers=tuple(x for x in model.layers if x.name in names))


def lstm_only(model: Model) -> Model:
    """Return the model without the tensors and texts of anything but its LSTM layers."""
    return replace(
        model,
        other={},
        optimizer={},
        assets={},
        texts={},
        source=replace(model.source, structure=None),
    )


def cast(model: Model, name: str) -> Model:
    """Return the model with its LSTM weights in another dtype, and that dtype as their policy.

    A narrowing cast is recorded among the losses.

    Raises:
        UsageError: not a dtype of LSTM weights.
    """
    if name not in FLOATS:
        raise UsageError("no such dtype", where="--dtype", found=name, expected=", ".join(FLOATS))
    lost = [
        f"{layer.name}: weights rounded from {layer.dtype.name} to {name}, as asked"
        for layer in model.layers
        if _narrows(layer.dtype.name, name)
    ]
    return replace(
        model,
        layers=tuple(_cast_layer(layer, name) for layer in model.layers),
        losses=(*model.losses, *lost),
    )


#: Every number of the first is a number of the second.
_WIDENS = {
    ("float16", "float32"),
    ("bfloat16", "float32"),
    ("float16", "float64"),
    ("bfloat16", "float64"),
    ("float32", "float64"),
}


def _narrows(old: str, new: str) -> bool:
    return old != new and (old, new) not in _WIDENS


def _cast_layer(layer: LSTMLayer, name: str) -> LSTMLayer:
    return replace(
        layer,
        forward=_cast_direction(layer.forward, name),
        backward=_cast_direction(layer.backward, name) if layer.backward else None,
        options=replace(layer.options, policy=name),
    )


def _cast_direction(direction: Direction, name: str) -> Direction:
    return replace(
        direction,
        cells=tuple(
            _cast_cell(cell, name) if isinstance(cell, Cell) else cell for cell in direction.cells
        ),
        options=replace(direction.options, policy=name),
    )


def _cast_cell(cell: Cell, name: str) -> Cell:
    return replace(
        cell,
        gates={
            gate: GateWeights(gate, {p: _cast_tensor(t, name) for p, t in weights.tensors.items()})
            for gate, weights in cell.gates.items()
        },
        parts={part: _cast_tensor(tensor, name) for part, tensor in cell.parts.items()},
        options=replace(cell.options, policy=name),
    )


def _cast_tensor(tensor: Tensor, name: str) -> Tensor:
    return tensor if tensor.dtype.name == name else Cast(tensor, dtype_of(name))
