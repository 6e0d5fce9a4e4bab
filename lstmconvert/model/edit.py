"""Changed copies of cells, layers and models. The model is frozen, so that an edit makes a new one.

`map_directions`, `map_cells` and `map_gates` reach every place of a layer, both halves of a
Bidirectional included. On them stand the edits that several writers need: one bias out of two, and
another run-time forget bias. A model may be cut down to some of its layers or cast to another
dtype, and weights may be replaced by others, by name: arrays that are read are read-only, since a
change to them would reach neither the model nor a file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lstmconvert.errors import UsageError, close_to
from lstmconvert.model import naming
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, weights_of
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import FLOATS, Array, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Cast, Tensor
from lstmconvert.tensors.views import Added, Zeros, is_zero

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Parts = Mapping[str, Tensor]


def map_directions(
    layer: LSTMLayer, change: Callable[[str, Direction], Direction]
) -> LSTMLayer:
    """Return a layer whose directions are `change("forward", …)` and `change("backward", …)`."""
    halves = {side: change(side, direction) for side, direction in layer.directions}
    return replace(layer, forward=halves["forward"], backward=halves.get("backward"))


def map_cells(layer: LSTMLayer, change: Callable[[str, int, Cell], Cell]) -> LSTMLayer:
    """Return a layer whose LSTM cells are `change(side, index, cell)`. Opaque cells stay."""

    def changed(side: str, direction: Direction) -> Direction:
        cells = (
            change(side, index, cell) if isinstance(cell, Cell) else cell
            for index, cell in enumerate(direction.cells)
        )
        return replace(direction, cells=tuple(cells))

    return map_directions(layer, changed)


def map_gates(cell: Cell, change: Callable[[Gate, Parts], Parts]) -> Cell:
    """Return a cell whose gates have the tensors `change(gate, tensors)`, by part."""
    changed = {gate: change(gate, weights.tensors) for gate, weights in cell.gates.items()}
    return replace(cell, gates=weights_of(changed))


def without_parts(cell: Cell, parts: Iterable[str]) -> Cell:
    """Return a cell without some gate parts and cell parts."""
    gone = frozenset(parts)

    def kept(tensors: Parts) -> Parts:
        return {part: tensor for part, tensor in tensors.items() if part not in gone}

    return replace(map_gates(cell, lambda _, tensors: kept(tensors)), parts=kept(cell.parts))


def bias_of(cell: Cell, gate: Gate) -> Tensor:
    """Return the bias (units,) of a gate; zeros where the cell has none."""
    return cell.gates[gate].tensors.get("bias", Zeros((cell.units,), cell.dtype))


def has_second_bias(cell: Cell) -> bool:
    """Whether a recurrent bias is there that is not +0.0 all through, so that it counts."""
    seconds = (weights.tensors.get("recurrent_bias") for weights in cell.gates.values())
    return any(second is not None and not is_zero(second) for second in seconds)


def with_one_bias(cell: Cell) -> Cell:
    """Return a cell whose recurrent bias is added to its bias, rounded to the dtype.

    A recurrent bias of +0.0 leaves the bias as it is, -0.0 included.
    """
    if "recurrent_bias" not in cell.gate_parts:
        return cell

    def summed(gate: Gate, tensors: Parts) -> Parts:
        rest = {part: tensor for part, tensor in tensors.items() if part != "recurrent_bias"}
        first, second = bias_of(cell, gate), tensors["recurrent_bias"]
        return {**rest, "bias": first if is_zero(second) else Added(first, second)}

    changed = map_gates(cell, summed)
    if cell.use_bias:
        return changed
    return replace(changed, options=replace(cell.options, use_bias=True))


def with_forget_bias(cell: Cell, amount: float) -> Cell:
    """Return a cell that computes the same with another run-time forget bias.

    What is added to the forget gate at run time and the stored bias of that gate make one sum. The
    difference between the old and the new `options.forget_bias`, which must be known, goes into
    the stored bias, rounded to the dtype. A cell without a bias gets one, of zeros.

    Args:
        cell: the cell.
        amount: what is added at run time from now on: 0.0 folds all of it into the stored bias.
    """
    difference = float(cell.options.forget_bias or 0.0) - amount
    if not difference:
        return cell

    def folded(gate: Gate, tensors: Parts) -> Parts:
        bias = bias_of(cell, gate)
        return {**tensors, "bias": Added(bias, difference) if gate is Gate.FORGET else bias}

    options = replace(cell.options, forget_bias=amount, use_bias=True)
    return replace(map_gates(cell, folded), options=options)


def with_scaled_input(layer: LSTMLayer, scale: Array, shift: Array) -> LSTMLayer:
    """Return a layer that computes from x what it computed from `x * scale + shift`.

    Computed in float64, and rounded to the dtype of its weights. A cell without a bias gets one.

    Args:
        layer: the layer.
        scale, shift: (input_dim,) float64.
    """

    def first(_: str, index: int, cell: Cell) -> Cell:
        if index:
            return cell

        def scaled(gate: Gate, tensors: Parts) -> Parts:
            kernel = tensors["kernel"].read().astype(np.float64)
            bias = bias_of(cell, gate).read().astype(np.float64) + shift @ kernel
            dtype = tensors["kernel"].dtype
            both = {"kernel": kernel * scale[:, np.newaxis], "bias": bias}
            return {**tensors, **{p: ArrayTensor(array.astype(dtype)) for p, array in both.items()}}

        options = replace(cell.options, use_bias=True)
        return replace(map_gates(cell, scaled), options=options)

    return map_cells(layer, first)


def layer_replacing(whole: LSTMLayer, arrays: Mapping[str, ArrayLike]) -> LSTMLayer:
    """Return a layer with other weights. See `LSTMLayer.replacing`."""
    start = f"{whole.name}."
    tensors = {name.removeprefix(start): tensor for name, tensor in naming.tensors(whole)}
    return _layer(whole, {start + k: v for k, v in _taken(arrays, tensors, whole.name).items()})


def model_replacing(whole: Model, arrays: Mapping[str, ArrayLike]) -> Model:
    """Return a model with other weights. See `Model.replacing`."""
    tensors = {name: tensor for each in whole.layers for name, tensor in naming.tensors(each)}
    other = {naming.other(path): path for path in whole.other}
    tensors |= {name: whole.other[path] for name, path in other.items()}
    taken = _taken(arrays, tensors, "the model")
    edited = ", ".join(arrays)
    return replace(
        whole,
        layers=tuple(_layer(each, taken) for each in whole.layers),
        other={**whole.other, **{other[k]: v for k, v in taken.items() if k in other}},
        notes=(*whole.notes, f"edited after it was read: {edited}") if arrays else whole.notes,
    )


def _taken(
    arrays: Mapping[str, ArrayLike], tensors: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Return the new tensors, each of the shape and dtype of the one that it replaces.

    Raises:
        UsageError: no tensor has that name, or it has another shape or dtype.
    """
    result: dict[str, Tensor] = {}
    for name, value in arrays.items():
        if name not in tensors:
            raise _no_tensor(name, tensors, where)
        array, old = np.array(value), tensors[name]
        if array.shape != old.shape:
            raise UsageError(
                "an array of another shape", where=name, found=array.shape, expected=old.shape
            )
        if array.dtype.name != old.dtype.name:
            raise UsageError(
                "an array of another dtype, which would be rounded or widened unasked",
                where=name,
                found=array.dtype.name,
                expected=old.dtype.name,
                hint=f'array.astype("{old.dtype.name}") converts it',
            )
        result[name] = ArrayTensor(array)
    return result


#: How many names an error lists: it is one line.
_SHOWN = 12


def _no_tensor(name: str, names: Collection[str], where: str) -> UsageError:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return UsageError(
        f"no weights of that name in {where}",
        found=name,
        expected=", ".join(list(names)[:_SHOWN]) + more,
        hint=close_to(name, names),
    )


def _layer(whole: LSTMLayer, tensors: Mapping[str, Tensor]) -> LSTMLayer:
    def changed(old: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
        return {name: tensors.get(start + name, tensor) for name, tensor in old.items()}

    def cell(side: str, index: int, old: Cell) -> Cell:
        start = naming.prefix(whole, side, index)
        gates = map_gates(old, lambda gate, parts: changed(parts, f"{start}.{gate}_gate."))
        return replace(gates, parts=changed(old.parts, f"{start}."))

    return map_cells(whole, cell)


def only_layers(model: Model, names: Collection[str]) -> Model:
    """Return the model with only the named layers, and nothing else of the file.

    Raises:
        UnknownLayer: no layer has one of the names.
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
        raise UsageError(
            "no such dtype",
            where="--dtype",
            found=name,
            expected=", ".join(FLOATS),
            hint=close_to(name, FLOATS),
        )
    lost = [
        f"{layer.name}: weights rounded from {layer.dtype.name} to {name}, as asked"
        for layer in model.layers
        if narrows(layer.dtype.name, name)
    ]
    return replace(
        model,
        layers=tuple(_cast_layer(layer, name) for layer in model.layers),
        losses=(*model.losses, *lost),
    )


#: Pairs of dtypes: the second has every number of the first.
_WIDENS = {
    ("float16", "float32"),
    ("bfloat16", "float32"),
    ("float16", "float64"),
    ("bfloat16", "float64"),
    ("float32", "float64"),
}


def narrows(old: str, new: str) -> bool:
    """Whether a cast from one dtype to another may round a number."""
    return old != new and (old, new) not in _WIDENS


def _cast_layer(layer: LSTMLayer, name: str) -> LSTMLayer:
    layer = map_directions(
        layer, lambda _, half: replace(half, options=replace(half.options, policy=name))
    )
    layer = map_cells(layer, lambda _, __, cell: _cast_cell(cell, name))
    return replace(layer, options=replace(layer.options, policy=name))


def _cast_cell(cell: Cell, name: str) -> Cell:
    def cast(tensors: Parts) -> Parts:
        return {part: _cast_tensor(tensor, name) for part, tensor in tensors.items()}

    options = replace(cell.options, policy=name)
    cell = map_gates(cell, lambda _, tensors: cast(tensors))
    return replace(cell, parts=cast(cell.parts), options=options)


def _cast_tensor(tensor: Tensor, name: str) -> Tensor:
    return tensor if tensor.dtype.name == name else Cast(tensor, dtype_of(name))
