"""Why a tensor of an LSTM has its shape, in words: `7 inputs × 4 gates × 2 units`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lstmconvert.gates import Gate

if TYPE_CHECKING:  # `batch` counts without them
    from lstmconvert.layer import Cell
    from lstmconvert.tensors import Shape

#: Gate -> what it decides, in the order of the design.
MEANING = {
    Gate.INPUT: "how much new content enters",
    Gate.FORGET: "how much old state stays",
    Gate.CELL: "the new content itself",
    Gate.OUTPUT: "how much state is shown",
}


def shape(value: Shape) -> str:
    """`7×8`, `8`, `()`."""
    return "×".join(map(str, value)) or "()"


def number(value: int) -> str:
    """`1,234`."""
    return f"{value:,}"


def counted(count: int, noun: str) -> str:
    """`1 unit`, `2 units`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def is_convolution(cell: Cell) -> bool:
    """Whether the kernels have a window: ConvLSTM."""
    return len(_kernel(cell)) > 2


def size(cell: Cell) -> str:
    """`7 inputs, 2 units`."""
    return f"{counted(cell.input_dim, _input(cell))}, {counted(cell.units, _unit(cell))}"


def gate_count(cell: Cell, part: str) -> int:
    """How many gates have a part: 4, or 3 of a peephole."""
    return sum(part in weights.tensors for weights in cell.gates.values())


def reason(cell: Cell, part: str) -> str:
    """Say what the axes of a fused part are."""
    gates = counted(gate_count(cell, part), "gate")
    units = counted(cell.units, _unit(cell))
    if part not in ("kernel", "recurrent_kernel"):
        return f"{gates} × {units}"
    window = [f"{shape(_kernel(cell)[:-2])} window"] if is_convolution(cell) else []
    if part == "kernel":
        rows = counted(cell.input_dim, _input(cell))
    elif cell.recurrent_dim == cell.units:
        rows = units
    else:
        rows = f"{cell.recurrent_dim:,} projected"
    return " × ".join([*window, rows, gates, units])


def part_reason(cell: Cell, part: str) -> str:
    """Say what the axes of a cell's own part are."""
    if part == "projection":
        return f"{counted(cell.units, _unit(cell))} × {cell.recurrent_dim:,} projected"
    return "one for each of the hidden state" if part == "initial_hidden" else ""


def formula(cell: Cell) -> str:
    """`4·(7·2 + 2·2 + 2)`: how the number of parameters comes about."""
    terms: dict[int, list[str]] = {}
    for part in cell.gate_parts:
        one = next(w.tensors[part].shape for w in cell.gates.values() if part in w.tensors)
        terms.setdefault(gate_count(cell, part), []).append("·".join(map(str, one)))
    sums = [
        f"{count}·({' + '.join(items)})" if len(items) > 1 else f"{count}·{items[0]}"
        for count, items in terms.items()
    ]
    own = ["·".join(map(str, tensor.shape)) or "1" for tensor in cell.parts.values()]
    return " + ".join([*sums, *own])


def _kernel(cell: Cell) -> Shape:
    return cell.gates[Gate.FORGET].tensors["kernel"].shape


def _input(cell: Cell) -> str:
    return "channel" if is_convolution(cell) else "input"


def _unit(cell: Cell) -> str:
    return "filter" if is_convolution(cell) else "unit"
