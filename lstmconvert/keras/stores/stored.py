"""The forms in which Keras's files keep the arrays of one cell, each read and written here.

    fused       kernel (input_dim, 4*units), recurrent_kernel, bias: gates i f c o side by side;
                of a cell with peepholes also an array (units,) for each gate that has one
    separate    one array per gate and part: Keras 0.x and 1.x
    cudnn       as fused, but each gate's block holds cuDNN's own memory, and two biases: CuDNNLSTM

Kernels of a convolution may also be turned: `th` has (filters, channels, rows, columns), Keras 1's
Theano ordering; `flip` has both spatial axes reversed, as Theano convolves. A form is written as
`separate:th,flip`. What reads it and what writes it are inverses, bit for bit.

`cell` makes a neutral cell of its arrays: their form is recognised, their shapes are checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs.nodes import PEEPHOLE_CELL
from lstmconvert.model import wellformed
from lstmconvert.model.gates import GATES, Gate, blocks, fuse, split
from lstmconvert.model.layer import Cell, FusedGates, GateWeights, weights_of
from lstmconvert.model.model import Model
from lstmconvert.model.options import CellOptions
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Computed, Shape, SideBySide, Tensor

# -- forms ---------------------------------------------------------------------------------------


#: The order in which a Keras cell creates, and a file lists, its weights.
ROLES: tuple[str, ...] = ("kernel", "recurrent_kernel", "bias")
#: The name of a peephole's variable -> its role (tensorflow_addons/rnn/peephole_lstm_cell.py, and
#: `tf.keras.experimental.PeepholeLSTMCell` of TensorFlow 2.0 to 2.9), in the order of the weights.
PEEPHOLES: Mapping[str, str] = {
    "input_gate_peephole_weights": "input_gate.peephole",
    "forget_gate_peephole_weights": "forget_gate.peephole",
    "output_gate_peephole_weights": "output_gate.peephole",
}
FUSED, SEPARATE, CUDNN = "fused", "separate", "cudnn"
TRANSPOSED, FLIPPED = "th", "flip"

Gates = Mapping[Gate, GateWeights]


class Stored(NamedTuple):
    """One array of a file: its full path there, and the array."""

    path: str
    tensor: Tensor


#: The arrays of a cell: by role, or by `input_gate.kernel` and so on where gates are separate.
Arrays = Mapping[str, Stored]


class CellArrays(NamedTuple):
    """The arrays of a cell, and how its convolution kernels are turned."""

    arrays: Arrays
    turns: tuple[str, ...] = ()


def form_of(arrays: Arrays, turns: tuple[str, ...] = ()) -> str:
    """Tell the form of a cell's arrays by their keys, and a bias of 8 * units.

    Args:
        arrays: the arrays.
        turns: how its convolution kernels are turned, as far as names and config tell.
    """
    if any(key.endswith("_gate.kernel") for key in arrays):
        form = SEPARATE
    elif _is_cudnn(arrays):
        form = CUDNN
    else:
        form = FUSED
    if not turns or max(len(stored.tensor.shape) for stored in arrays.values()) <= 2:
        return form
    return f"{form}:{','.join(turns)}"


def _is_cudnn(arrays: Arrays) -> bool:
    # Nothing but the doubled bias tells a CuDNNLSTM from an LSTM by its arrays.
    if not set(ROLES) <= set(arrays):
        return False
    return arrays["bias"].tensor.shape == (2 * arrays["recurrent_kernel"].tensor.shape[-1],)


def gates_of(arrays: Arrays, form: str) -> Gates:
    """Take the gates out of the arrays of a cell.

    Raises:
        CorruptFile: the form is unknown.
        ValueError: an array is not one block for each gate.
    """
    base, turns = _parse(form)
    tensors = {key: stored.tensor for key, stored in arrays.items()}
    if turns:
        tensors = {key: _turned(tensor, turns, back=False) for key, tensor in tensors.items()}
    return _READ[base](tensors)


def holds(cell: Cell) -> bool:
    """Whether the form in which a cell's source keeps its arrays has a place for all of them."""
    base, _ = _parse(cell.stored_as)
    second = set() if base == CUDNN else {"recurrent_bias"}
    return not (cell.parts or second & set(cell.gate_parts))


def places(cell: Cell) -> dict[str, Tensor]:
    """Return the arrays of a cell in the form that its source keeps them: full path -> tensor."""
    base, turns = _parse(cell.stored_as)
    arrays = _WRITE[base](cell)
    if odd := cell.places.keys() - arrays.keys():
        raise CorruptFile("a place for an array that the cell does not have", found=min(odd))
    return {
        path: _turned(arrays[key], turns, back=True) for key, path in cell.places.items()
    }


def tensors(model: Model) -> dict[str, Tensor]:
    """Return every tensor but the optimizer's at the full path that the source gives it."""
    result = dict(model.other)
    for layer in model.layers:
        for _, _, cell in layer.cells():
            result.update(places(cell))
    return result


@lru_cache(64)
def _parse(form: str) -> tuple[str, tuple[str, ...]]:
    base, _, rest = form.partition(":")
    turns = tuple(rest.split(",")) if rest else ()
    if base not in _READ or not set(turns) <= {TRANSPOSED, FLIPPED}:
        raise CorruptFile("no such form of a cell's arrays", found=form)
    return base, turns


def _read_fused(arrays: Mapping[str, Tensor]) -> Gates:
    parts = tuple([role for role in ROLES if role in arrays])
    gates = FusedGates(parts, tuple([arrays[role] for role in parts]))
    if len(arrays) == len(parts):
        return gates
    with_peepholes = {gate: dict(weights.tensors) for gate, weights in gates.items()}
    for gate, tensors in with_peepholes.items():
        if (peephole := arrays.get(f"{gate}_gate.peephole")) is not None:
            tensors["peephole"] = peephole
    return weights_of(with_peepholes)


def _write_fused(cell: Cell) -> dict[str, Tensor]:
    peepholes = {
        f"{gate}_gate.peephole": weights.tensors["peephole"]
        for gate, weights in cell.gates.items()
        if "peephole" in weights.tensors
    }
    return {role: cell.fused(role) for role in ROLES if role in cell.gate_parts} | peepholes


def _read_separate(arrays: Mapping[str, Tensor]) -> Gates:
    parts: dict[Gate, dict[str, Tensor]] = {gate: {} for gate in GATES}
    for key, tensor in arrays.items():
        gate, _, role = key.partition("_gate.")
        parts[Gate(gate)][role] = tensor
    return weights_of(parts)


def _write_separate(cell: Cell) -> dict[str, Tensor]:
    return dict(cell.tensors())


def _read_cudnn(arrays: Mapping[str, Tensor]) -> Gates:
    """Unpack cuDNN's memory: a gate's block of `kernel`, (input_dim, units), holds in C order the
    row-major (units, input_dim) matrix of cuDNN; one of `recurrent_kernel` its transpose; `bias`
    the input's four biases, then the recurrent four (tf_keras/src/saving/legacy/hdf5_format.py,
    `_convert_rnn_weights`)."""
    fused = _read_fused({role: arrays[role] for role in ("kernel", "recurrent_kernel")})
    biases = [split(half) for half in blocks(arrays["bias"], 2)]
    return weights_of(
        {
            gate: {
                "kernel": _same(weights.tensors["kernel"], _unpack),
                "recurrent_kernel": _same(weights.tensors["recurrent_kernel"], _transpose),
                "bias": biases[0][gate],
                "recurrent_bias": biases[1][gate],
            }
            for gate, weights in fused.items()
        }
    )


def _write_cudnn(cell: Cell) -> dict[str, Tensor]:
    def packed(role: str, change: Callable[[Array], Array]) -> Tensor:
        return fuse({g: _same(w.tensors[role], change) for g, w in cell.gates.items()})

    return {
        "kernel": packed("kernel", _pack),
        "recurrent_kernel": packed("recurrent_kernel", _transpose),
        "bias": SideBySide((cell.fused("bias"), cell.fused("recurrent_bias"))),
    }


def _unpack(block: Array) -> Array:
    rows, units = block.shape
    return block.reshape(-1).reshape(units, rows).T


def _pack(kernel: Array) -> Array:
    return np.ascontiguousarray(kernel.T).reshape(kernel.shape)


def _transpose(block: Array) -> Array:
    return block.T


def _same(tensor: Tensor, change: Callable[[Array], Array]) -> Tensor:
    return Computed(tensor, tensor.shape, change)


_READ = {FUSED: _read_fused, SEPARATE: _read_separate, CUDNN: _read_cudnn}
_WRITE = {FUSED: _write_fused, SEPARATE: _write_separate, CUDNN: _write_cudnn}


def _turned(tensor: Tensor, turns: tuple[str, ...], *, back: bool) -> Tensor:
    if not turns or len(tensor.shape) < 3:
        return tensor

    def change(array: Array) -> Array:
        if TRANSPOSED in turns:
            array = np.transpose(array, _axes(array.ndim, False))
        if FLIPPED in turns:
            array = np.flip(array, tuple(range(array.ndim - 2)))
        return array

    def change_back(array: Array) -> Array:
        if FLIPPED in turns:
            array = np.flip(array, tuple(range(array.ndim - 2)))
        return np.transpose(array, _axes(array.ndim, True)) if TRANSPOSED in turns else array

    shape = tensor.shape
    if TRANSPOSED in turns:
        shape = tuple(shape[axis] for axis in _axes(len(shape), back))
    return Computed(tensor, shape, change_back if back else change)


def _axes(rank: int, back: bool) -> Shape:
    """(filters, channels, *window) to (*window, channels, filters), or back."""
    window = tuple(range(2, rank))
    return (rank - 1, rank - 2, *range(rank - 2)) if back else (*window, 1, 0)


# -- from arrays to a cell -----------------------------------------------------------------------


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


@lru_cache(256)
def roles_of(shapes: tuple[Shape, ...]) -> tuple[str, ...] | None:
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
    roles = roles_of(tuple([stored.tensor.shape for stored in arrays]))
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
    kinds = tuple([(key, array.tensor.shape, array.tensor.dtype) for key, array in arrays.items()])
    asked = kinds, turns, options.use_bias, options.input_forget, units
    known = _sound.get(asked)
    form = known or form_of(arrays, turns)
    try:
        gates = gates_of(arrays, form)
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
    if known is not None:
        return result
    tensors = {role: array.tensor for role, array in arrays.items()}
    wellformed.check_cell(result, where, arrays=tensors, expected=FORM)
    if units is not None and units != result.units:
        raise CorruptFile(
            "the config and the stored arrays disagree",
            where=where,
            found=listed(arrays),
            expected=f"units={units}, so recurrent_kernel (…, {units}, {4 * units})",
        )
    if len(_sound) >= _MOST_SOUND:
        _sound.clear()
    _sound[asked] = form
    return result


#: The form of arrays that were found to be those of an LSTM cell, by all that this depends on:
#: their names, shapes and dtypes, and what the config says. Cells by the thousand are alike.
_sound: dict[tuple[object, ...], str] = {}
_MOST_SOUND = 256


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
