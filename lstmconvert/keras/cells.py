"""From the arrays of one Keras cell to a neutral cell: its form recognised, its shapes checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lstmconvert.dtypes import FLOATS, name_of
from lstmconvert.errors import CorruptFile
from lstmconvert.gates import GATES
from lstmconvert.keras import stored
from lstmconvert.keras.stored import ROLES, Arrays, Stored
from lstmconvert.layer import Cell
from lstmconvert.options import CellOptions
from lstmconvert.tensors import Shape, Tensor

#: The arrays of an LSTM cell, as messages have them.
FORM = "kernel (input_dim, 4*units), recurrent_kernel (units, 4*units), bias (4*units,)"


def gate_count(kernel: Shape, recurrent: Shape) -> int | None:
    """Tell a cell's kind by its shapes: 4 for LSTM, 3 for GRU, 1 for a simple RNN, else None.

    `recurrent` is (*window, units, count * units) and `kernel` (*window, input_dim, count * units);
    no other pair of arrays that Keras keeps side by side looks like that.
    """
    if len(kernel) != len(recurrent) or len(kernel) < 2 or kernel[-1] != recurrent[-1]:
        return None
    if 0 in kernel or 0 in recurrent:
        return None
    count, rest = divmod(recurrent[-1], recurrent[-2])
    return count if not rest and count in (1, 3, 4) else None


def by_role(arrays: Sequence[Stored], where: str) -> dict[str, Stored]:
    """Name the arrays that a v3 store numbers: kernel, recurrent_kernel, and bias if there is one.

    Raises:
        CorruptFile: there are not two or three.
    """
    if len(arrays) not in (2, 3):
        raise CorruptFile(
            "not the arrays of an LSTM cell",
            where=where,
            found=f"{len(arrays)} arrays",
            expected="kernel, recurrent_kernel and bias",
        )
    return dict(zip(ROLES, arrays, strict=False))


def cell(
    arrays: Arrays,
    options: CellOptions,
    where: str,
    *,
    turns: tuple[str, ...] = (),
    name: str | None = None,
    class_name: str | None = None,
    units: int | None = None,
) -> Cell:
    """Build a cell.

    Args:
        arrays: its arrays, in any form that `stored` knows.
        options: the cell's options.
        where: the path to name in an error.
        turns: how its convolution kernels are turned.
        name, class_name: of the source's own cell object.
        units: what the config says, if there is one.

    Raises:
        CorruptFile: the shapes or dtypes are not those of one LSTM cell, or not the config's.
    """
    form = stored.form_of(arrays, turns)
    if form == stored.FUSED:
        _check_shapes({role: one.tensor.shape for role, one in arrays.items()}, units, where)
    result = Cell(
        gates=stored.gates(arrays, form),
        options=options,
        name=name,
        class_name=class_name,
        places={key: one.path for key, one in arrays.items()},
        stored_as=form,
    )
    _check_gates(result, where)
    _check_shapes({part: result.fused_shape(part) for part in result.gate_parts}, units, where)
    _check_dtypes([tensor for _, tensor in result.tensors()], where)
    if options.use_bias in (True, False) and options.use_bias is not result.use_bias:
        raise CorruptFile(
            "use_bias and the stored arrays disagree",
            where=where,
            found=f"use_bias={options.use_bias}, arrays {', '.join(arrays)}",
        )
    return result


def _check_gates(found: Cell, where: str) -> None:
    for part in found.gate_parts:
        shapes = {weights.tensors[part].shape for weights in found.gates.values()}
        if len(shapes) != 1:
            raise disagree(where, f"{part} of the four gates: {sorted(shapes)}")


def _check_shapes(shapes: dict[str, Shape], units: int | None, where: str) -> None:
    kernel, recurrent = shapes["kernel"], shapes["recurrent_kernel"]
    found = ", ".join(f"{role} {shape}" for role, shape in shapes.items())
    if gate_count(kernel, recurrent) != len(GATES):
        raise disagree(where, found)
    width = recurrent[-2]
    if any(shapes.get(part, (4 * width,)) != (4 * width,) for part in ("bias", "recurrent_bias")):
        raise disagree(where, found)
    if units is not None and units != width:
        raise CorruptFile(
            "the config and the stored arrays disagree",
            where=where,
            found=found,
            expected=f"units={units}, so recurrent_kernel (…, {units}, {4 * units})",
        )


def listed(arrays: Mapping[str, Stored]) -> str:
    """Return the arrays of what should be a cell with their shapes, for a message."""
    return ", ".join(f"{role} {one.tensor.shape}" for role, one in arrays.items())


def disagree(where: str, found: str) -> CorruptFile:
    """Return the error for arrays that should be those of an LSTM cell, and are not."""
    return CorruptFile(
        "these are not the arrays of one LSTM cell",
        where=where,
        found=found,
        expected=FORM,
    )


def _check_dtypes(tensors: Sequence[Tensor], where: str) -> None:
    names = {name_of(tensor.dtype) for tensor in tensors}
    if len(names) != 1 or not names <= set(FLOATS):
        raise CorruptFile(
            "LSTM weights of a dtype that Keras does not give them",
            where=where,
            found=", ".join(sorted(names)),
            expected=f"one of {', '.join(FLOATS)}",
        )
