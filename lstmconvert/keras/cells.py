"""From the arrays of one Keras cell to a neutral cell: shapes checked, gates told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lstmconvert.dtypes import FLOATS
from lstmconvert.errors import CorruptFile
from lstmconvert.gates import GATES, Gate, columns
from lstmconvert.layer import Cell, CellOptions, GateWeights
from lstmconvert.tensors import Columns, Shape, Tensor

#: The order in which a Keras cell creates, and a file lists, its weights.
ROLES: tuple[str, ...] = ("kernel", "recurrent_kernel", "bias")


class Stored(NamedTuple):
    """One array of a file: its full path there, and the array."""

    path: str
    tensor: Tensor


def gate_count(kernel: Shape, recurrent: Shape) -> int | None:
    """Tell a cell's kind by its shapes: 4 for LSTM, 3 for GRU, 1 for a simple RNN, else None.

    `recurrent` is (*window, units, count * units) and `kernel` (*window, input_dim, count * units);
    no other pair of arrays that Keras keeps side by side looks like that.
    """
    if len(kernel) != len(recurrent) or len(kernel) < 2 or kernel[-1] != recurrent[-1]:
        return None
    if kernel[:-2] != recurrent[:-2] and len(kernel) < 3:
        return None
    units = recurrent[-2]
    count, rest = divmod(recurrent[-1], units) if units else (0, 1)
    return count if not rest and count in (1, 3, 4) else None


def fused_cell(
    arrays: Sequence[Stored],
    options: CellOptions,
    where: str,
    *,
    name: str | None = None,
    class_name: str | None = None,
    units: int | None = None,
) -> Cell:
    """Build a cell from `kernel`, `recurrent_kernel` and perhaps `bias`, gates side by side.

    Args:
        arrays: kernel (*window, input_dim, 4 * units), recurrent_kernel (*window, units,
            4 * units), bias (4 * units,) if there is one; in this order.
        options: the cell's options.
        where: the path to name in an error.
        name, class_name: of the source's own cell object.
        units: what the config says, if there is one.

    Raises:
        CorruptFile: the shapes or dtypes are not those of one LSTM cell.
    """
    by_role = dict(zip(ROLES, arrays, strict=False))
    _check(by_role, len(arrays), options, units, where)
    width = by_role["recurrent_kernel"].tensor.shape[-1] // len(GATES)
    gates = {
        gate: GateWeights(
            gate,
            {
                role: Columns(stored.tensor, *columns(gate, width))
                for role, stored in by_role.items()
            },
        )
        for gate in GATES
    }
    return Cell(
        gates=gates,
        options=options,
        name=name,
        class_name=class_name,
        places={role: stored.path for role, stored in by_role.items()},
    )


def separate_cell(
    gates: Mapping[Gate, Mapping[str, Stored]],
    options: CellOptions,
    where: str,
    *,
    units: int | None = None,
) -> Cell:
    """Build a cell from one array per gate and part, as Keras 1 stores them.

    Raises:
        CorruptFile: the shapes or dtypes are not those of one LSTM cell.
    """
    parts = {
        gate: GateWeights(gate, {part: stored.tensor for part, stored in arrays.items()})
        for gate, arrays in gates.items()
    }
    cell = Cell(
        gates=parts,
        options=options,
        places={
            f"{gate}_gate.{part}": stored.path
            for gate, arrays in gates.items()
            for part, stored in arrays.items()
        },
    )
    for part in ROLES:
        shapes = {weights.tensors[part].shape for weights in parts.values()}
        if len(shapes) != 1:
            raise _disagree(where, f"{part} of the four gates: {sorted(shapes)}")
    _check_shapes({part: cell.fused_shape(part) for part in ROLES}, units, where)
    _check_dtypes([t for g in parts.values() for t in g.tensors.values()], where)
    return cell


def _check(
    by_role: Mapping[str, Stored], count: int, options: CellOptions, units: int | None, where: str
) -> None:
    if count not in (2, 3):
        raise CorruptFile(
            "not the arrays of an LSTM cell",
            where=where,
            found=f"{count} arrays",
            expected="kernel, recurrent_kernel and bias",
        )
    if options.use_bias in (True, False) and options.use_bias is not (count == 3):
        raise CorruptFile(
            "use_bias and the stored arrays disagree",
            where=where,
            found=f"use_bias={options.use_bias}, {count} arrays",
        )
    _check_shapes({role: stored.tensor.shape for role, stored in by_role.items()}, units, where)
    _check_dtypes([stored.tensor for stored in by_role.values()], where)


def _check_shapes(shapes: Mapping[str, Shape], units: int | None, where: str) -> None:
    kernel, recurrent = shapes["kernel"], shapes["recurrent_kernel"]
    found = ", ".join(f"{role} {shape}" for role, shape in shapes.items())
    if gate_count(kernel, recurrent) != len(GATES):
        raise _disagree(where, found)
    width = recurrent[-2]
    if "bias" in shapes and shapes["bias"] != (4 * width,):
        raise _disagree(where, found)
    if units is not None and units != width:
        raise CorruptFile(
            "the config and the stored arrays disagree",
            where=where,
            found=found,
            expected=f"units={units}, so recurrent_kernel (…, {units}, {4 * units})",
        )


def _disagree(where: str, found: str) -> CorruptFile:
    return CorruptFile(
        "these are not the arrays of one LSTM cell",
        where=where,
        found=found,
        expected="kernel (input_dim, 4*units), recurrent_kernel (units, 4*units), bias (4*units,)",
    )


def _check_dtypes(tensors: Sequence[Tensor], where: str) -> None:
    names = {tensor.dtype.name for tensor in tensors}
    if len(names) != 1 or not names <= set(FLOATS):
        raise CorruptFile(
            "LSTM weights of a dtype that Keras does not give them",
            where=where,
            found=", ".join(sorted(names)),
            expected=f"one of {', '.join(FLOATS)}",
        )
