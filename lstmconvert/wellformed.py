"""What the arrays of a cell and of a layer must be like, whoever put them together."""

from __future__ import annotations

from lstmconvert.dtypes import FLOATS, name_of
from lstmconvert.gates import Gate
from lstmconvert.layer import Cell, Direction, LSTMLayer


def cell_fault(cell: Cell, *, whole: bool) -> str | None:
    """Return what is wrong with the parts, shapes or dtypes of a cell; None if nothing is.

    Args:
        cell: the cell.
        whole: every gate must have what one of them has. Frameworks that keep each gate apart can
            train a bias of one gate alone; a file without metadata must be complete.
    """
    wanted = set(Gate) - ({Gate.INPUT} if cell.options.input_forget else set())
    if set(cell.gates) != wanted:
        return f"its gates are {', '.join(sorted(cell.gates)) or 'none'}"
    for weights in cell.gates.values():
        if not {"kernel", "recurrent_kernel"} <= set(weights.tensors):
            return f"a gate or a part of one is missing: {weights.gate}_gate has no kernels"
    for part in cell.gate_parts:
        gates = {gate for gate, weights in cell.gates.items() if part in weights.tensors}
        all_gates = wanted - {Gate.CELL} if part == "peephole" else wanted
        if not gates <= all_gates or (whole and gates != all_gates):
            return f"a gate or a part of one is missing, or one too many: {part}"
        shapes = {cell.gates[gate].tensors[part].shape for gate in gates}
        if len(shapes) != 1:
            return f"the {part} of the gates differ in shape"
    names = {name_of(tensor.dtype) for _, tensor in cell.tensors()}
    if len(names) != 1 or not names <= set(FLOATS):
        return f"its dtypes are {', '.join(sorted(names))}"
    return _shape_fault(cell)


def _shape_fault(cell: Cell) -> str | None:
    gate = cell.gates[Gate.FORGET].tensors
    kernel, recurrent = gate["kernel"].shape, gate["recurrent_kernel"].shape
    if len(kernel) < 2 or len(kernel) != len(recurrent) or kernel[-1] != recurrent[-1]:
        return f"kernel {kernel} and recurrent_kernel {recurrent} disagree"
    if 0 in kernel or 0 in recurrent:
        return f"kernel {kernel} and recurrent_kernel {recurrent} hold no number"
    width = cell.parts["projection"].shape[-1:] if "projection" in cell.parts else kernel[-1:]
    if recurrent[-2:-1] != width:
        return f"recurrent_kernel {recurrent} is not fed by an output of {width}"
    for part in cell.gate_parts:
        found = next(w.tensors[part].shape for w in cell.gates.values() if part in w.tensors)
        if part not in ("kernel", "recurrent_kernel") and found != kernel[-1:]:
            return f"{part} {found} is not of {kernel[-1]} units"
    return None


def layer_fault(layer: LSTMLayer) -> str | None:
    """Return what is wrong between the cells of a layer: what one gives is what the next takes, and
    both halves take the same; None if nothing is."""
    for name, direction in layer.directions:
        if fault := _chain_fault(direction):
            return f"{name}: {fault}"
    first = {d.cells[0].input_dim for _, d in layer.directions if isinstance(d.cells[0], Cell)}
    return None if len(first) < 2 else f"its halves take {' and '.join(map(str, sorted(first)))}"


def _chain_fault(direction: Direction) -> str | None:
    before: int | None = None
    for index, cell in enumerate(direction.cells):
        if not isinstance(cell, Cell):
            before = None
            continue
        if before is not None and cell.input_dim != before:
            return f"cell {index} takes {cell.input_dim}, and the one before gives {before}"
        before = cell.fused_shape("recurrent_kernel")[-2]
    return None
