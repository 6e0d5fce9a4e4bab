"""The forms in which Keras's files keep the arrays of one cell, each read and written here.

    fused       kernel (input_dim, 4*units), recurrent_kernel, bias: gates i f c o side by side;
                of a cell with peepholes also an array (units,) for each gate that has one
    separate    one array per gate and part: Keras 0.x and 1.x
    cudnn       as fused, but each gate's block holds cuDNN's own memory, and two biases: CuDNNLSTM

Kernels of a convolution may also be turned: `th` has (filters, channels, rows, columns), Keras 1's
Theano ordering; `flip` has both spatial axes reversed, as Theano convolves. A form is written as
`separate:th,flip`. What reads it and what writes it are inverses, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.model.gates import GATES, Gate, blocks, fuse, split
from lstmconvert.model.layer import Cell, GateWeights, weights_of
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Computed, Shape, SideBySide, Tensor

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

Gates = dict[Gate, GateWeights]


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


def gates(arrays: Arrays, form: str) -> Gates:
    """Take the gates out of the arrays of a cell.

    Raises:
        CorruptFile: the form is unknown.
        ValueError: an array is not one block for each gate.
    """
    base, turns = _parse(form)
    turned = {key: _turned(stored.tensor, turns, back=False) for key, stored in arrays.items()}
    return _READ[base](turned)


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
        raise CorruptFile("a place for an array that the cell has not", found=min(odd))
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


def _parse(form: str) -> tuple[str, tuple[str, ...]]:
    base, _, rest = form.partition(":")
    turns = tuple(rest.split(",")) if rest else ()
    if base not in _READ or not set(turns) <= {TRANSPOSED, FLIPPED}:
        raise CorruptFile("no such form of a cell's arrays", found=form)
    return base, turns


def _read_fused(arrays: Mapping[str, Tensor]) -> Gates:
    cut = {role: split(tensor) for role, tensor in arrays.items() if role in ROLES}
    parts = {gate: {role: cut[role][gate] for role in cut} for gate in GATES}
    for gate in GATES:
        if (peephole := arrays.get(f"{gate}_gate.peephole")) is not None:
            parts[gate]["peephole"] = peephole
    return weights_of(parts)


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
