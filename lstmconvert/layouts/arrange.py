"""From neutral cells to a framework's named arrays: the first of the two functions that read a row.

What a target cannot express was settled before, by `fit`: this is bit for bit, and `gather` undoes
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lstmconvert.dtypes import DType
from lstmconvert.gates import Gate
from lstmconvert.layer import Cell, LSTMLayer
from lstmconvert.layouts.row import Form, Row, Slot
from lstmconvert.tensors import Shape, Tensor
from lstmconvert.views import Reshaped, Stacked, Zeros, interleaved, side_by_side, transposed

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
            found = [(side, dict(_arrays(cell, slot, row, biased))) for side, cell in cells]
            if row.joined:
                place = row.place(index, len(grid), "forward", both)
                result.update(_joined([arrays for _, arrays in found], place))
                continue
            for side, arrays in found:
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
    return {
        key.format(**place): _stacked([arrays[key] for arrays in sides]) for key in sides[0]
    }


def _stacked(tensors: list[Tensor]) -> Tensor:
    return Stacked(tuple(tensors), (len(tensors), *tensors[0].shape))


def _arrays(cell: Cell, slot: Slot, row: Row, biased: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of one slot, by key without `{gate}`."""
    if not _wanted(cell, slot, biased):
        return
    if slot.of_cell:
        yield slot.key, _formed(_turned(cell.parts[slot.parts[0]], slot), slot, 1)
        return
    order = row.order_of(slot)
    if not slot.per_gate:
        yield slot.key, _formed(_turned(_matrix(cell, slot, order), slot), slot, len(order))
        return
    for gate in order:
        key = slot.key.replace("{gate}", row.gate_name(slot, gate))
        yield key, _formed(_turned(_matrix(cell, slot, (gate,)), slot), slot, 1)


def _wanted(cell: Cell, slot: Slot, biased: bool) -> bool:
    there = {*cell.gate_parts, *cell.parts}
    if slot.parts[0] in BIASES:
        return biased and (slot.filled or bool(there & set(slot.parts)) or "bias" in slot.parts)
    return set(slot.parts) <= there


def _matrix(cell: Cell, slot: Slot, order: tuple[Gate, ...]) -> Tensor:
    pieces = [_fused(cell, part, order) for part in slot.parts]
    if slot.below and len(pieces) > 1:
        rows = sum(piece.shape[0] for piece in pieces)
        return Stacked(tuple(pieces), (rows, pieces[0].shape[1]))
    joined = side_by_side(pieces)
    return interleaved(joined, len(order)) if slot.interleaved else joined


def _fused(cell: Cell, part: str, order: tuple[Gate, ...]) -> Tensor:
    if part not in cell.gate_parts:
        return zeros(cell, len(order), cell.dtype)
    return side_by_side([cell.gates[gate].tensors[part] for gate in order])


def zeros(cell: Cell, gates: int, dtype: DType) -> Tensor:
    """Return the bias of so many gates of a cell that has none."""
    return Zeros((cell.units * gates,), dtype)


def _turned(tensor: Tensor, slot: Slot) -> Tensor:
    return transposed(tensor) if slot.transposed else tensor


def _formed(tensor: Tensor, slot: Slot, gates: int) -> Tensor:
    if not slot.is_vector or slot.form is Form.FLAT:
        return tensor
    size = tensor.size
    shapes: dict[Form, Shape] = {
        Form.ROW: (1, size),
        Form.COLUMN: (size, 1),
        Form.GATES: (gates, size // gates),
    }
    return Reshaped(tensor, shapes[slot.form])
