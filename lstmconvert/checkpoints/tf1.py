"""The cells of TensorFlow 1 in a checkpoint, by the names of their variables.

    rnn/basic_lstm_cell/kernel                        (input_dim + recurrent_dim, 4 * units), bias
    rnn/multi_rnn_cell/cell_0/lstm_cell/kernel        a stack
    bidirectional_rnn/fw/lstm_cell/kernel, …/bw/…     two directions
    …/w_i_diag, w_f_diag, w_o_diag                    peepholes (units,)
    …/projection/kernel, …/projection/bias            (units, projected)
    …/input/gamma, …/input/beta, …                    LayerNormBasicLSTMCell

One matrix holds the input's rows, then the state's; its gates lie in the order i c f o
(tensorflow/python/ops/rnn_cell_impl.py, `BasicLSTMCell.call`: i, j, f, o). A forget bias is added
at run time and stored nowhere, nor are the activation and the clip of the cell state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lstmconvert.activations import SIGMOID, TANH
from lstmconvert.errors import CorruptFile
from lstmconvert.gates import Gate, by_letters, columns
from lstmconvert.layer import (
    UNKNOWN,
    Cell,
    CellOptions,
    Direction,
    DirectionOptions,
    GateWeights,
    LSTMLayer,
)
from lstmconvert.naming import layer_names
from lstmconvert.tensors import Columns, Rows, Tensor

ORDER = by_letters("icfo")
#: The default that TensorFlow adds to the forget gate at run time, for messages only.
USUAL_FORGET_BIAS = 1.0

_CELL = re.compile(
    r"(?:(?P<outer>.*)/)?(?P<cell>(?:\w*_)?(?:basic_|block_|fused_)?lstm_(?:\w+_)?cell(?:_\d+)?)"
    r"/(?P<leaf>kernel|weights|Matrix)",
    re.DOTALL | re.IGNORECASE,
)
_STACK = re.compile(
    r"(?:(?P<outer>.*)/)?multi_rnn_cell(?:_\d+)?/cell_(?P<index>\d{1,6})", re.DOTALL
)
_HALF = re.compile(r"(?:(?P<outer>.*)/)?(?P<half>fw|bw)", re.DOTALL)
_BIASES = {"kernel": "bias", "weights": "biases", "Matrix": "Bias"}
_PEEPHOLES = {"w_i_diag": Gate.INPUT, "w_f_diag": Gate.FORGET, "w_o_diag": Gate.OUTPUT}
_NORMS = {"input": Gate.INPUT, "transform": Gate.CELL, "forget": Gate.FORGET, "output": Gate.OUTPUT}
#: The CPU twin of cuDNN's LSTM: its checkpoints have no forget bias, and these functions.
_CUDNN = "cudnn_compatible_lstm_cell"


@dataclass(frozen=True, slots=True)
class _Place:
    outer: str
    half: str
    index: int


def layers(tensors: Mapping[str, Tensor], where: object) -> tuple[LSTMLayer, ...]:
    """Return the LSTM layers among a checkpoint's variables, sorted by name.

    Raises:
        CorruptFile: the arrays of a cell do not fit each other.
    """
    found: dict[str, dict[str, dict[int, Cell]]] = {}
    for key in sorted(tensors):
        match = _CELL.fullmatch(key)
        if match is not None and _is_kernel(tensors, key, match):
            place = _place(match["outer"] or match["cell"])
            cell = _cell(tensors, key.rpartition("/")[0], match["leaf"], where)
            found.setdefault(place.outer, {}).setdefault(place.half, {})[place.index] = cell
    names = layer_names(found)
    return tuple(
        _layer(name, path, halves, where)
        for name, (path, halves) in zip(names, found.items(), strict=True)
    )


def _is_kernel(tensors: Mapping[str, Tensor], key: str, match: re.Match[str]) -> bool:
    scope = key.rpartition("/")[0]
    has_bias = f"{scope}/{_BIASES[match['leaf']]}" in tensors
    return len(tensors[key].shape) == 2 and (has_bias or f"{scope}/state/gamma" in tensors)


def _place(scope: str) -> _Place:
    index, half = 0, "forward"
    stack = _STACK.fullmatch(scope)
    if stack is not None:
        scope, index = stack["outer"] or "multi_rnn_cell", int(stack["index"])
    found = _HALF.fullmatch(scope)
    if found is not None:
        half = "forward" if found["half"] == "fw" else "backward"
        scope = found["outer"] or "bidirectional_rnn"
    return _Place(scope, half, index)


def _layer(
    name: str, path: str, halves: Mapping[str, Mapping[int, Cell]], where: object
) -> LSTMLayer:
    if "forward" not in halves:
        raise CorruptFile("a bidirectional layer without its fw half", where=f"{where}: {path}")
    directions = {
        half: Direction(
            cells=tuple(cells[index] for index in sorted(cells)),
            options=DirectionOptions(
                # `bidirectional_dynamic_rnn` reverses the input of the one half.
                go_backwards=half == "backward" if len(halves) > 1 else UNKNOWN,
                time_major=UNKNOWN,
            ),
        )
        for half, cells in halves.items()
    }
    stacked = any(len(direction.cells) > 1 for direction in directions.values())
    return LSTMLayer(
        name=name,
        path=path,
        class_name="Bidirectional" if len(halves) > 1 else "RNN" if stacked else "LSTM",
        forward=directions["forward"],
        backward=directions.get("backward"),
    )


def _cell(tensors: Mapping[str, Tensor], scope: str, leaf: str, where: object) -> Cell:
    kernel = tensors[f"{scope}/{leaf}"]
    bias = tensors.get(f"{scope}/{_BIASES[leaf]}")
    projection = tensors.get(f"{scope}/projection/kernel")
    units, rest = divmod(kernel.shape[1], len(ORDER))
    state = projection.shape[-1] if projection is not None else units
    inputs = kernel.shape[0] - state
    shapes_fit = not rest and units and inputs > 0
    if not shapes_fit or (bias is not None and bias.shape != (4 * units,)):
        raise CorruptFile(
            "not the arrays of one LSTM cell",
            where=f"{where}: {scope}",
            found=f"kernel {kernel.shape}, bias {bias.shape if bias is not None else 'none'}",
            expected="kernel (input_dim + recurrent_dim, 4*units), bias (4*units,)",
        )
    fused: dict[str, Tensor] = {
        "kernel": Rows(kernel, 0, inputs),
        "recurrent_kernel": Rows(kernel, inputs, inputs + state),
    }
    if bias is not None:
        fused["bias"] = bias
    gates: dict[Gate, dict[str, Tensor]] = {
        gate: {part: Columns(base, *columns(gate, units, ORDER)) for part, base in fused.items()}
        for gate in Gate
    }
    parts = dict(_parts(tensors, scope))
    _add_gate_parts(gates, tensors, scope, units, where)
    return Cell(
        gates={gate: GateWeights(gate, gates[gate]) for gate in Gate},
        options=_options(scope, "bias" in fused, projection is not None),
        parts=parts,
    )


def _options(scope: str, use_bias: bool, projects: bool) -> CellOptions:
    if scope.rpartition("/")[2].startswith(_CUDNN):
        return CellOptions(activation=TANH, recurrent_activation=SIGMOID, use_bias=use_bias)
    return CellOptions(
        recurrent_activation=SIGMOID,  # every cell of TensorFlow 1 has it built in
        use_bias=use_bias,
        forget_bias=UNKNOWN,
        cell_clip=UNKNOWN,
        projection_clip=UNKNOWN if projects else None,
    )


def _parts(tensors: Mapping[str, Tensor], scope: str) -> Iterator[tuple[str, Tensor]]:
    names = {
        "projection": "projection/kernel",
        "projection_bias": "projection/bias",
        "state_norm": "state/gamma",
        "state_norm_bias": "state/beta",
    }
    for part, name in names.items():
        if f"{scope}/{name}" in tensors:
            yield part, tensors[f"{scope}/{name}"]


def _add_gate_parts(
    gates: Mapping[Gate, dict[str, Tensor]],
    tensors: Mapping[str, Tensor],
    scope: str,
    units: int,
    where: object,
) -> None:
    wanted = [(gate, "peephole", name) for name, gate in _PEEPHOLES.items()]
    for name, gate in _NORMS.items():
        wanted.append((gate, "layer_norm", f"{name}/gamma"))
        wanted.append((gate, "layer_norm_bias", f"{name}/beta"))
    for gate, part, name in wanted:
        tensor = tensors.get(f"{scope}/{name}")
        if tensor is None:
            continue
        if tensor.shape != (units,):
            raise CorruptFile(
                f"a {part} of another size than its cell",
                where=f"{where}: {scope}/{name}",
                found=str(tensor.shape),
                expected=f"({units},)",
            )
        gates[gate][part] = tensor


def used(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the keys of the variables that belong to LSTM cells."""
    scopes = {
        key.rpartition("/")[0]
        for key in tensors
        if (match := _CELL.fullmatch(key)) is not None and _is_kernel(tensors, key, match)
    }
    names = {*_PEEPHOLES, *("kernel", "bias", "weights", "biases", "Matrix", "Bias")}
    names |= {f"{name}/{part}" for name in (*_NORMS, "state") for part in ("gamma", "beta")}
    names |= {"projection/kernel", "projection/bias"}
    return {f"{scope}/{name}" for scope in scopes for name in names} & set(tensors)
