"""What the arrays of a cell and of a layer must be like. Every reader asks here.

A reader knows how its files name and arrange the arrays. Whether they are those of one LSTM cell is
decided only in this module, so that no file is accepted by one reader, written, and then refused
by another.
"""

from __future__ import annotations

from collections.abc import Mapping

from lstmconvert.errors import CorruptFile
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import CELL_PARTS, GATE_PARTS, Cell, Direction, LSTMLayer
from lstmconvert.tensors.dtypes import FLOATS, name_of
from lstmconvert.tensors.tensor import Shape, Tensor

#: The parts that every gate has.
MATRICES: tuple[str, ...] = ("kernel", "recurrent_kernel")
_GATES = frozenset(GATES)
_COUPLED = _GATES - {Gate.INPUT}
#: How many arrays an error message lists.
_LISTED = 8


def check_cell(
    cell: Cell,
    where: object,
    *,
    arrays: Mapping[str, Tensor] | None = None,
    expected: str | None = None,
    hint: str | None = None,
) -> None:
    """Raise an error unless the parts, shapes and dtypes of a cell are those of one LSTM cell.

    All four gates are there (all but the input gate, where it is coupled to the forget gate). A
    part that one gate has, every gate has: no cell has a bias in some of its gates only. The
    one exception is the peephole, which the cell gate never has. All arrays have one floating
    dtype, and none is empty.

    Args:
        cell: the cell.
        where: the place, for the error.
        arrays: the arrays that the cell was made of, under the names that the file gives them; by
            default the tensors of the cell, under our names.
        expected: what a cell looks like in this kind of file, for the error.
        hint: what the user can do, for the error.

    Raises:
        CorruptFile: something is wrong. The error says what, and lists the arrays.
    """
    of_parts = _by_part(cell)
    fault = (
        _parts_fault(cell, of_parts)
        or _dtype_fault(cell, of_parts, arrays)
        or _shape_fault(cell, of_parts)
    )
    if fault is not None:
        listed = dict(cell.tensors()) if arrays is None else arrays
        raise CorruptFile(
            f"these are not the arrays of one LSTM cell: {fault}",
            where=where,
            found=listing(listed),
            expected=expected,
            hint=hint,
        )


def listing(arrays: Mapping[str, Tensor]) -> str:
    """Return the names, shapes and dtypes of arrays, for a message."""
    items = [f"{name} {tensor.shape} {name_of(tensor.dtype)}" for name, tensor in arrays.items()]
    more = f", and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return (", ".join(items[:_LISTED]) or "no arrays") + more


def check_layer(layer: LSTMLayer, where: object, *, hint: str | None = None) -> None:
    """Raise an error unless the cells of a layer fit each other.

    In a stack each cell takes what the one before gives, and both halves of a Bidirectional take
    inputs of one width. The cells themselves are checked by `check_cell`.

    Raises:
        CorruptFile: they do not.
    """
    if layer.backward is None and len(layer.forward.cells) == 1:
        return  # one cell has nothing to fit
    for side, direction in layer.directions:
        _check_chain(direction, side, where, hint)
    first = {d.cells[0].input_dim for _, d in layer.directions if isinstance(d.cells[0], Cell)}
    if len(first) > 1:
        raise CorruptFile(
            "the two halves of a layer take inputs of different widths",
            where=where,
            found=" and ".join(map(str, sorted(first))),
            hint=hint,
        )


def _check_chain(direction: Direction, side: str, where: object, hint: str | None) -> None:
    width: int | None = None
    for index, cell in enumerate(direction.cells):
        if not isinstance(cell, Cell):
            width = None  # what a cell of another kind gives is not known here
            continue
        if width is not None and cell.input_dim != width:
            raise CorruptFile(
                f"a cell of a stack does not take what the cell before it gives: {side}, "
                f"cell {index}",
                where=where,
                found=f"{cell.input_dim} inputs",
                expected=str(width),
                hint=hint,
            )
        width = cell.recurrent_dim


def _by_part(cell: Cell) -> dict[str, dict[Gate, Tensor]]:
    """Return part -> gate -> tensor. It is made once for each cell: files have thousands."""
    of_parts: dict[str, dict[Gate, Tensor]] = {part: {} for part in MATRICES}
    for gate, weights in cell.gates.items():
        for part, tensor in weights.tensors.items():
            if part not in of_parts:
                of_parts[part] = {}
            of_parts[part][gate] = tensor
    return of_parts


def _parts_fault(cell: Cell, of_parts: Mapping[str, Mapping[Gate, Tensor]]) -> str | None:
    wanted = _COUPLED if cell.options.input_forget else _GATES
    if missing := [gate for gate in GATES if gate in wanted and gate not in cell.gates]:
        return f"the {missing[0]} gate is missing"
    if extra := [gate for gate in cell.gates if gate not in wanted]:
        return f"there is an {extra[0]} gate, and it should be coupled to the forget gate"
    for part, having in of_parts.items():
        owners = wanted - {Gate.CELL} if part == "peephole" else wanted
        if having.keys() == owners:
            continue
        if missing := [gate for gate in GATES if gate in owners and gate not in having]:
            others = ", and other gates have one" if having else ""
            return f"the {missing[0]} gate has no {part}{others}"
        return f"the cell gate has a {part}"
    odd = [part for part in of_parts if part not in GATE_PARTS]
    odd += [part for part in cell.parts if part not in CELL_PARTS]
    if odd:
        return f"no cell has a part of that name: {odd[0]}"
    use_bias = cell.options.use_bias
    if use_bias in (True, False) and use_bias is not bool(of_parts.get("bias")):
        return f"use_bias={use_bias} and the stored biases contradict each other"
    return None


def _dtype_fault(
    cell: Cell,
    of_parts: Mapping[str, Mapping[Gate, Tensor]],
    arrays: Mapping[str, Tensor] | None,
) -> str | None:
    dtypes = {tensor.dtype for having in of_parts.values() for tensor in having.values()}
    dtypes |= {tensor.dtype for tensor in cell.parts.values()}
    if len(dtypes) == 1 and name_of(dtypes.pop()) in FLOATS:
        return None
    listed = dict(cell.tensors()) if arrays is None else arrays
    first = {name_of(tensor.dtype): name for name, tensor in reversed([*listed.items()])}
    each = " and ".join(f"{array} {dtype}" for dtype, array in sorted(first.items()))
    return f"their dtype is not one of {', '.join(FLOATS)}, the same in all: {each}"


def _shape_fault(cell: Cell, of_parts: Mapping[str, Mapping[Gate, Tensor]]) -> str | None:
    shapes: dict[str, Shape] = {}
    for part, tensors in of_parts.items():
        of_gates = {tensor.shape for tensor in tensors.values()}
        if len(of_gates) > 1:
            return f"the {part} of the gates differ in shape, {sorted(of_gates)}"
        (shapes[part],) = of_gates
    kernel, recurrent = shapes["kernel"], shapes["recurrent_kernel"]
    if len(kernel) < 2 or len(kernel) != len(recurrent) or kernel[:-2] != recurrent[:-2]:
        return f"kernel {kernel} and recurrent_kernel {recurrent} of a gate do not fit each other"
    if 0 in kernel or 0 in recurrent:
        return f"kernel {kernel} and recurrent_kernel {recurrent} of a gate hold no number"
    units, parts = kernel[-1], {part: tensor.shape for part, tensor in cell.parts.items()}
    hidden = parts["projection"][-1:] if "projection" in parts else (units,)
    if recurrent[-2:] != (*hidden, units):
        return (
            f"kernel {kernel} makes {units} units, and recurrent_kernel {recurrent} of a gate is "
            f"not ({', '.join(map(str, (*hidden, units)))})"
        )
    wanted: dict[str, Shape] = {
        "kernel": kernel,
        "recurrent_kernel": recurrent,
        "projection": (units, *hidden),
        "projection_bias": hidden,
        "initial_hidden": hidden,
    }
    for part, shape in (shapes | parts).items():
        expected = wanted.get(part, (units,))
        if shape != expected:
            return f"the {part} is {shape}, and not {expected}"
    return None
