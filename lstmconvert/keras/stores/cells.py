"""From the arrays of one Keras cell to a neutral cell: its form recognised, its shapes checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs.nodes import PEEPHOLE_CELL
from lstmconvert.keras.stores import stored
from lstmconvert.keras.stores.stored import PEEPHOLES, ROLES, Arrays, Stored
from lstmconvert.model import wellformed
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import Cell
from lstmconvert.model.options import CellOptions
from lstmconvert.tensors.tensor import Shape

#: The arrays of an LSTM cell, as messages have them.
FORM = "kernel (input_dim, 4*units), recurrent_kernel (units, 4*units), bias (4*units,)"

#: Names that Keras gives to cells by their class; of its own LSTM's, and of those with peepholes.
_CELL_NAME = re.compile(r"\w*cell(_\d+)?")
_OWN_NAME = re.compile(r"((peephole_)?lstm_|lstm_v1_)?cell(_\d+)?")
#: Keras's names for layers of a class that ends in LSTM, and for layers of its own classes.
_CLASS_LIKE = re.compile(r"\w+lstm(_\d+)?")
_OWN_LAYER = re.compile(r"(forward_|backward_)?(lstm|cu_dnnlstm|conv_lst_?m\w*)(_\d+)*")
#: The most names of arrays in a note.
_SHOWN = 6


#: The class of a cell, by the number of its gates.
CLASS_OF_GATES = {4: "LSTMCell", 3: "GRUCell", 1: "SimpleRNNCell"}


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


def roles_of(shapes: Sequence[Shape]) -> tuple[str, ...] | None:
    """Return the roles of the arrays that a cell lists without names, by their number and shapes.

    Args:
        shapes: of all its arrays, in the order in which the cell makes its weights.

    Returns:
        Roles of a recurrent cell of Keras's own, or of an LSTM cell with peepholes; None where
        the arrays are not exactly those of one cell.
    """
    count = gate_count(*shapes[:2]) if len(shapes) >= 2 else None
    if count is None:
        return None
    if len(shapes) <= len(ROLES):
        return ROLES[: len(shapes)]
    fused, extras = shapes[2:-len(PEEPHOLES)], list(shapes[-len(PEEPHOLES) :])
    width = shapes[1][-1]
    units = width // len(GATES)
    is_peephole = count == len(GATES) and len(shapes[0]) == 2 and extras == [(units,)] * 3
    if not is_peephole or list(fused) not in ([], [(width,)]):
        return None
    return (*ROLES[: 2 + len(fused)], *PEEPHOLES.values())


def by_role(arrays: Sequence[Stored], where: str) -> dict[str, Stored]:
    """Name the arrays that a v3 store numbers: kernel, recurrent_kernel, and bias if there is one;
    peepholes, if there are.

    Raises:
        CorruptFile: there are other arrays than a cell has.
    """
    roles = roles_of([stored.tensor.shape for stored in arrays])
    if roles is None and len(arrays) in (2, 3):
        roles = ROLES[: len(arrays)]  # of other shapes than a cell's: the cell's check says which
    if roles is None:
        raise CorruptFile(
            "not the arrays of an LSTM cell",
            where=where,
            found=f"{len(arrays)} arrays",
            expected="kernel, recurrent_kernel and bias",
        )
    return dict(zip(roles, arrays, strict=True))


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
    try:
        gates = stored.gates(arrays, form)
    except ValueError as error:
        raise CorruptFile(
            f"these are not the arrays of one LSTM cell: {error}",
            where=where,
            found=listed(arrays),
            expected=FORM,
        ) from None
    result = Cell(
        gates=gates,
        options=options,
        name=name,
        class_name=class_name,
        places={key: array.path for key, array in arrays.items()},
        stored_as=form,
    )
    tensors = {role: array.tensor for role, array in arrays.items()}
    wellformed.check_cell(result, where, arrays=tensors, expected=FORM)
    if units is not None and units != result.units:
        raise CorruptFile(
            "the config and the stored arrays disagree",
            where=where,
            found=listed(arrays),
            expected=f"units={units}, so recurrent_kernel (…, {units}, {4 * units})",
        )
    return result


def listed(arrays: Mapping[str, Stored]) -> str:
    """Return the arrays of a supposed cell with their shapes, for a message."""
    return wellformed.listing({role: array.tensor for role, array in arrays.items()})


def disagree(where: str, found: str) -> CorruptFile:
    """Return the error for arrays that should be those of an LSTM cell, and are not."""
    return CorruptFile(
        "these are not the arrays of one LSTM cell", where=where, found=found, expected=FORM
    )


def is_foreign_name(name: str) -> bool:
    """Whether a name is that of a cell of a class that is not Keras's own LSTM cell, as Keras names
    an object by its class: `qlstm_cell`. A name that the user gave states nothing."""
    return _CELL_NAME.fullmatch(name) is not None and not _OWN_NAME.fullmatch(name)


def is_named_like_a_class(name: str) -> bool:
    """Whether a layer's name is what Keras would call a layer of a user's own class: `my_lstm` for
    `MyLSTM`. A user may give a layer of Keras's own LSTM such a name, too."""
    leaf = name.rpartition("/")[2]
    return _CLASS_LIKE.fullmatch(leaf) is not None and not _OWN_LAYER.fullmatch(leaf)


def taken_by_name(name: str) -> str:
    """Return the note for a layer that is read as an LSTM, and named as a class of the user's own.

    Args:
        name: of the layer.
    """
    return (
        f"{name}: it has the arrays of an LSTM and is read as one; Keras names layers of a user's "
        "own class like that, too, and such a class may compute something else"
    )


def taken_by_arrays(name: str, place: str) -> str:
    """Return the note for what has an LSTM's arrays and no others, and is called otherwise.

    Args:
        name: of the layer.
        place: where its arrays are, in words.
    """
    return (
        f"{name}: its arrays are those of an LSTM, and it is read as one; they lie in {place}, "
        "which may compute something else"
    )


def taken_for_peepholes(name: str) -> str:
    """Return the note for three arrays (units,) without names behind those of an LSTM."""
    return (
        f"{name}: three arrays (units,) are taken for the peepholes of the input, forget and "
        f"output gate, by their number and shapes: {PEEPHOLE_CELL} has them so"
    )


def not_plain(name: str, class_name: str, arrays: Sequence[str]) -> str:
    """Return the note for a recurrent layer that is left out, since its kind is unknown.

    Args:
        name: of the layer.
        class_name: of the layer or its cell; empty where no config names it.
        arrays: its arrays, or those that an LSTM does not have.
    """
    shown = ", ".join(arrays[:_SHOWN])
    if arrays[_SHOWN:]:
        shown += f" and {len(arrays) - _SHOWN} more"
    if class_name:
        kept = f" (arrays {shown})" if arrays else ""
        return f"{name}: the custom class {class_name} is left as it is{kept}"
    return (
        f"{name}: it has the arrays of an LSTM and other ones ({shown}), so it is another kind "
        "of layer, and left as it is"
    )
