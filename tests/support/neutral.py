"""Neutral layers for tests, built directly: random ones, and ones from Keras's fused arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstmconvert.model.activations import KERAS3, SIGMOID, TANH, Activation
from lstmconvert.model.gates import GATES, Gate, columns
from lstmconvert.model.layer import Cell, Direction, GateWeights, LSTMLayer, OpaqueCell
from lstmconvert.model.options import CellOptions, DirectionOptions, LayerOptions
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Columns, Tensor

AnyCell = Cell | OpaqueCell
Table = Mapping[str, Activation]

#: Names of the direction's options that Keras's configs and `make_layer` share.
_RUN = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "time_major")
_CONVOLUTION = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")


def make_cell(
    rng: np.random.Generator,
    input_dim: int,
    units: int,
    *,
    projected: int | None = None,
    window: tuple[int, ...] = (),
    gate_parts: Sequence[str] = ("bias",),
    parts: Mapping[str, tuple[int, ...]] | None = None,
    dtype: str = "float32",
    scale: float = 0.5,
    **options: Any,
) -> Cell:
    """Return a cell with normally distributed weights, biases too.

    Args:
        rng: where the numbers come from.
        input_dim: the width of the input.
        units: the width of the state.
        projected: the width of the hidden state, and then a `projection` is there.
        window: the kernel's window, for ConvLSTM.
        gate_parts: which of the vectors `bias`, `recurrent_bias`, `peephole`, … the gates have.
        parts: shapes of further cell parts.
        dtype: of the weights.
        scale: their standard deviation.
        options: of `CellOptions`; tanh and sigmoid are the default.
    """

    def tensor(*shape: int) -> Tensor:
        return ArrayTensor((scale * rng.normal(size=shape)).astype(dtype_of(dtype)))

    def weights(gate: Gate) -> GateWeights:
        vectors = [part for part in gate_parts if part != "peephole" or gate is not Gate.CELL]
        return GateWeights(
            gate,
            {
                "kernel": tensor(*window, input_dim, units),
                "recurrent_kernel": tensor(*window, projected or units, units),
                **{part: tensor(units) for part in vectors},
            },
        )

    shapes = dict(parts or {}) | ({"projection": (units, projected)} if projected else {})
    gates = [g for g in GATES if not (options.get("input_forget") and g is Gate.INPUT)]
    return Cell(
        gates={gate: weights(gate) for gate in gates},
        options=CellOptions(**({"activation": TANH, "recurrent_activation": SIGMOID} | options)),
        parts={part: tensor(*shape) for part, shape in shapes.items()},
    )


def make_direction(cells: Sequence[AnyCell], **options: Any) -> Direction:
    """Return a direction over `cells`; the options are Keras's defaults unless given."""
    off = dict.fromkeys((*_RUN, "zero_output_for_mask"), False)
    return Direction(cells=tuple(cells), options=DirectionOptions(**(off | options)))


def make_layer(
    cells: AnyCell | Sequence[AnyCell],
    backward: AnyCell | Sequence[AnyCell] | None = None,
    *,
    name: str = "lstm",
    merge_mode: Any = "concat",
    backward_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> LSTMLayer:
    """Return a layer over `cells`, and `backward` cells for a Bidirectional.

    `options` are of `DirectionOptions`; the backward half has the same with go_backwards turned
    round, unless `backward_options` say otherwise.
    """
    turned = {"go_backwards": not options.get("go_backwards", False)}
    return LSTMLayer(
        name=name,
        path=name,
        class_name="LSTM" if backward is None else "Bidirectional",
        forward=make_direction(_several(cells), **options),
        backward=None
        if backward is None
        else make_direction(
            _several(backward), **(options | turned | dict(backward_options or {}))
        ),
        options=LayerOptions() if backward is None else LayerOptions(merge_mode=merge_mode),
    )


def _several(cells: AnyCell | Sequence[AnyCell]) -> Sequence[AnyCell]:
    return [cells] if isinstance(cells, Cell | OpaqueCell) else cells


def cell_from_keras_weights(
    kernel: Array, recurrent_kernel: Array, bias: Array | None = None, **options: Any
) -> Cell:
    """Return a cell whose gates are columns of Keras's fused arrays (…, 4 * units)."""
    fused = {"kernel": kernel, "recurrent_kernel": recurrent_kernel}
    if bias is not None:
        fused["bias"] = bias
    bases = {part: ArrayTensor(array) for part, array in fused.items()}
    units = kernel.shape[-1] // len(GATES)
    gates = {
        gate: GateWeights(
            gate, {part: Columns(base, *columns(gate, units)) for part, base in bases.items()}
        )
        for gate in GATES
    }
    defaults = {"activation": TANH, "recurrent_activation": SIGMOID}
    return Cell(gates=gates, options=CellOptions(**(defaults | options)))


def from_keras_weights(
    weights: Sequence[Array],
    backward: Sequence[Array] | None = None,
    *,
    cell_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> LSTMLayer:
    """Return a layer of one cell a direction from `[kernel, recurrent_kernel, bias]`.

    `cell_options` are of `CellOptions`; the other options are of `make_layer`.
    """
    cells = dict(cell_options or {})
    return make_layer(
        cell_from_keras_weights(*weights, **cells),
        None if backward is None else cell_from_keras_weights(*backward, **cells),
        **options,
    )


def from_keras_layer(layer: Any, table: Table = KERAS3) -> LSTMLayer:
    """Return the neutral layer of a live, built Keras or tf_keras layer (test-only, and blunt).

    Args:
        layer: LSTM, ConvLSTM, RNN over LSTM cells, or a Bidirectional of those.
        table: what the activations' names mean.
    """
    if not hasattr(layer, "forward_layer"):
        half = _direction_of(layer, table)
        return LSTMLayer(name=layer.name, path=layer.name, class_name="LSTM", forward=half)
    return LSTMLayer(
        name=layer.name,
        path=layer.name,
        class_name="Bidirectional",
        forward=_direction_of(layer.forward_layer, table),
        backward=_direction_of(layer.backward_layer, table),
        options=LayerOptions(merge_mode=layer.merge_mode),
    )


def _direction_of(layer: Any, table: Table) -> Direction:
    cells = getattr(layer.cell, "cells", [layer.cell])
    options = {name: getattr(layer, name, False) for name in _RUN}
    options["zero_output_for_mask"] = layer.zero_output_for_mask
    return make_direction([_cell_of(cell, table) for cell in cells], **options)


def _cell_of(cell: Any, table: Table) -> Cell:
    config = cell.get_config()
    convolution = {name: config[name] for name in _CONVOLUTION if name in config} or None
    return cell_from_keras_weights(
        *(np.asarray(weight) for weight in cell.get_weights()),
        activation=table[config["activation"]],
        recurrent_activation=table[config["recurrent_activation"]],
        convolution=convolution,
    )
