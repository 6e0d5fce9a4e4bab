"""From neutral cells to a framework's named arrays: the first of the two functions that read a row.

`fit` has already settled what the framework cannot express. What is left is bit for bit, and
`gather` undoes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lstmconvert.layouts.row import Form, Row, Slot
from lstmconvert.model.gates import Gate, fuse, fuse_first
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.tensors.tensor import Shape, Tensor
from lstmconvert.tensors.views import (
    Reshaped,
    Zeros,
    concatenated,
    interleaved,
    side_by_side,
    stacked,
    transposed,
)

BIASES = ("bias", "recurrent_bias")


def arrange(layers: Sequence[LSTMLayer], row: Row) -> dict[str, Tensor]:
    """Return the arrays of one layer, or of several as one stack, under the framework's names.

    Args:
        layers: fitted layers (see `fit`).
        row: the framework.
    """
    grid = grid_of(layers)
    biased = row.always_bias or any(cell.use_bias for cells in grid for _, cell in cells)
    result: dict[str, Tensor] = {}
    for index, cells in enumerate(grid):
        both = len(cells) > 1
        for slot in row.slots:
            halves = [(side, dict(_arrays(cell, slot, row, biased))) for side, cell in cells]
            if row.joined:
                place = row.place(index, len(grid), "forward", both)
                result.update(_joined([arrays for _, arrays in halves], place))
                continue
            for side, arrays in halves:
                place = row.place(index, len(grid), side, both)
                result.update({key.format(**place): tensor for key, tensor in arrays.items()})
    return result


def grid_of(layers: Sequence[LSTMLayer]) -> list[list[tuple[str, Cell]]]:
    """Return the cells of a stack: for each of its members, `(side, cell)` of each direction."""
    if len(layers) > 1:
        return [[(s, d.lstm_cells[0]) for s, d in layer.directions] for layer in layers]
    halves = [[(side, cell) for cell in d.lstm_cells] for side, d in layers[0].directions]
    return [list(cells) for cells in zip(*halves, strict=True)]


def _joined(sides: list[dict[str, Tensor]], place: dict[str, str]) -> dict[str, Tensor]:
    return {key.format(**place): stacked([arrays[key] for arrays in sides]) for key in sides[0]}


def _arrays(cell: Cell, slot: Slot, row: Row, biased: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of one slot, by key without `{gate}`."""
    if not _wanted(cell, slot, biased):
        return
    if slot.of_cell:
        yield slot.key, _turned(cell.parts[slot.parts[0]], slot)
        return
    order = row.order_of(slot)
    if not slot.per_gate:
        yield slot.key, _array(cell, slot, order)
        return
    for gate in order:
        key = slot.key.replace("{gate}", row.gate_name(slot, gate))
        yield key, _array(cell, slot, (gate,))


def _wanted(cell: Cell, slot: Slot, biased: bool) -> bool:
    parts = {*cell.gate_parts, *cell.parts}
    if slot.parts[0] in BIASES:
        return biased and (slot.filled or bool(parts & set(slot.parts)) or "bias" in slot.parts)
    return set(slot.parts) <= parts


def _array(cell: Cell, slot: Slot, order: tuple[Gate, ...]) -> Tensor:
    """Return the array that holds the parts of a slot for some gates."""
    parts = [{gate: _part(cell, gate, part) for gate in order} for part in slot.parts]
    if slot.leading:
        if slot.below:
            blocks = {gate: concatenated([part[gate] for part in parts]) for gate in order}
            return fuse_first({gate: _turned(blocks[gate], slot) for gate in order}, order)
        return stacked([_turned(part[gate], slot) for part in parts for gate in order])
    pieces = [fuse(part, order) for part in parts]
    joined = concatenated(pieces) if slot.below else side_by_side(pieces)
    return _turned(interleaved(joined, len(order)) if slot.interleaved else joined, slot)


def _part(cell: Cell, gate: Gate, part: str) -> Tensor:
    if part in BIASES and part not in cell.gate_parts:
        return Zeros((cell.units,), cell.dtype)
    return cell.tensor(gate, part)


def _turned(tensor: Tensor, slot: Slot) -> Tensor:
    """Return a matrix with units as rows, or a vector of two axes, where the slot says so."""
    shapes: dict[Form, Shape] = {Form.ROW: (1, tensor.size), Form.COLUMN: (tensor.size, 1)}
    if slot.form in shapes:
        return Reshaped(tensor, shapes[slot.form])
    return transposed(tensor) if slot.transposed else tensor
