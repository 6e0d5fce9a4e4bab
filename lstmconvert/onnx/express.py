"""What the LSTM operator can express of a layer; what it cannot is refused by name.

Everything that a graph around the operator can make up for is no reason: go_backwards, merge_mode,
stacks of cells, a run-time forget bias.
"""

from __future__ import annotations

from dataclasses import replace

from lstmconvert import needed
from lstmconvert.activations import Activation
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.gates import Gate
from lstmconvert.layer import Cell, Direction, GateWeights, LSTMLayer, OpaqueCell
from lstmconvert.layouts import assume
from lstmconvert.onnx.functions import spell
from lstmconvert.options import UNKNOWN
from lstmconvert.views import Added, Zeros

TARGET = "ONNX"
_GATE_PARTS = frozenset({"kernel", "recurrent_kernel", "bias", "recurrent_bias", "peephole"})
_CELL_PARTS = frozenset({"initial_hidden", "initial_cell"})
_NEEDED_CELL = ("activation", "recurrent_activation", "forget_bias")
_NEEDED_DIRECTION = ("return_sequences", "return_state", "go_backwards")
_MERGE_MODES = ("concat", "sum", "mul", "ave", None)
#: f(-x) = 1 - f(x): what a coupled gate needs, because ONNX Runtime computes the forget gate from
#: the input gate, and not the other way round.
_SYMMETRIC = ("sigmoid", "hard_sigmoid", "sparse_sigmoid")


def check(layer: LSTMLayer, *, masks: bool) -> None:
    """Raise the error of a layer that no graph of ours computes.

    Args:
        layer: the layer.
        masks: whether the graph takes sequence lengths.

    Raises:
        UnknownOption: an option that shapes the graph is unknown.
        UnsupportedByTarget: the operator cannot express an option or a part.
    """
    for _, direction in layer.directions:
        for cell in direction.cells:
            if isinstance(cell, OpaqueCell):
                raise _unsupported(layer, "cell", cell.class_name)
            _check_parts(layer, cell)
    direction_options = (*_NEEDED_DIRECTION, *(("zero_output_for_mask",) if masks else ()))
    needed.check(layer, TARGET, cell=_NEEDED_CELL, direction=direction_options)
    if layer.backward is not None and layer.options.merge_mode not in _MERGE_MODES:
        raise _unsupported(layer, "merge_mode", layer.options.merge_mode)
    for _, _, cell in layer.cells():
        _check_cell(layer, cell)
    dtypes = compute_dtypes(layer)
    if len(dtypes) > 1:
        raise _unsupported(layer, "cells of several dtypes", ", ".join(sorted(dtypes)))


def compute_dtypes(layer: LSTMLayer) -> set[str]:
    """Return the dtypes that the cells of a layer compute in."""
    return {compute_dtype(d, cell) for _, d in layer.directions for cell in d.lstm_cells}


def compute_dtype(direction: Direction, cell: Cell) -> str:
    """Return the dtype that a cell computes in: that of its weights, unless its policy is mixed."""
    for policy in (cell.options.policy, direction.options.policy):
        if isinstance(policy, str) and policy.startswith("mixed_"):
            return policy.removeprefix("mixed_")
    return cell.dtype.name


def with_folded_forget_bias(layer: LSTMLayer) -> tuple[LSTMLayer, tuple[str, ...]]:
    """Return the layer with a run-time forget bias added to the stored one, and what is lost."""
    amounts = {c.options.forget_bias for _, _, c in layer.cells() if c.options.forget_bias}
    if not amounts:
        return layer, ()
    change, backward = _folded, layer.backward
    layer = replace(
        layer, forward=change(layer.forward), backward=change(backward) if backward else None
    )
    text = ", ".join(map(str, sorted(amounts, key=str)))
    return layer, (
        (
            f"{layer.name}: fused ONNX weights have no run-time forget bias: {text} is added to "
            "the stored bias, rounded"
        ),
    )


def with_every_output(layer: LSTMLayer) -> LSTMLayer:
    """Return a layer of a framework's arrays with all outputs that their framework does not choose.

    Nothing is guessed by that: every step and the last states are what such a layer can give.
    """
    if not assume.is_foreign(layer):
        return layer
    change, backward = _giving_all, layer.backward
    return replace(
        layer, forward=change(layer.forward), backward=change(backward) if backward else None
    )


def _giving_all(direction: Direction) -> Direction:
    known = direction.options
    states = True if known.return_state is UNKNOWN else known.return_state
    steps = True if known.return_sequences is UNKNOWN else known.return_sequences
    return replace(direction, options=replace(known, return_state=states, return_sequences=steps))


def _folded(direction: Direction) -> Direction:
    return replace(
        direction,
        cells=tuple(_with_bias(c) if isinstance(c, Cell) else c for c in direction.cells),
    )


def _with_bias(cell: Cell) -> Cell:
    amount = cell.options.forget_bias
    if not amount:
        return cell
    gates = {}
    for gate, weights in cell.gates.items():
        bias = weights.tensors.get("bias", Zeros((cell.units,), cell.dtype))
        if gate is Gate.FORGET:
            bias = Added(bias, float(amount))
        gates[gate] = GateWeights(gate, {**weights.tensors, "bias": bias})
    return replace(
        cell, gates=gates, options=replace(cell.options, forget_bias=0.0, use_bias=True)
    )


def _check_parts(layer: LSTMLayer, cell: Cell) -> None:
    if cell.options.convolution is not None or len(cell.fused_shape("kernel")) != 2:
        raise _unsupported(layer, "convolution", "ConvLSTM")
    for part in (*cell.gate_parts, *cell.parts):
        if part not in _GATE_PARTS | _CELL_PARTS:
            raise _unsupported(layer, part, "a stored tensor")
    for option in ("cell_clip", "projection_clip"):
        if getattr(cell.options, option) is not None:
            raise _unsupported(layer, option, getattr(cell.options, option))


def _check_cell(layer: LSTMLayer, cell: Cell) -> None:
    for option in ("activation", "recurrent_activation", "output_activation"):
        value = getattr(cell.options, option)
        if value is not None and spell(value) is None:
            raise _unsupported(layer, option, value)
    if cell.options.input_forget and not _is_symmetric(cell.options.recurrent_activation):
        raise _unsupported(layer, "input_forget", cell.options.recurrent_activation)


def _is_symmetric(activation: object) -> bool:
    return (
        isinstance(activation, Activation)
        and activation.name in _SYMMETRIC
        and activation.constants.get("beta", 0.5) == 0.5
    )


def _unsupported(layer: LSTMLayer, option: str, found: object) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        f"{TARGET}'s LSTM cannot express {option}",
        where=layer.name,
        layer=layer.name,
        option=option,
        target=TARGET,
        found=str(found),
        hint="leave the layer out with --layer, or let --allow-lossy leave it out",
    )
