"""One direction of a layer as LSTM nodes: one after another for stacked cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstmconvert import naming
from lstmconvert.activations import Activation
from lstmconvert.dtypes import dtype_of
from lstmconvert.layer import Cell, LSTMLayer
from lstmconvert.onnx import functions
from lstmconvert.onnx.builder import Graph
from lstmconvert.onnx.lengths import Lengths
from lstmconvert.onnx.types import NUMBERS
from lstmconvert.onnx.weights import Named, Weights


@dataclass(frozen=True, slots=True)
class States:
    """The final state of one cell: its name and the values (batch, units)."""

    name: str
    hidden: str
    cell: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one direction computes: `steps` (time, batch, units), in the input's own order of time
    whichever way it ran, and the final states of its cells."""

    steps: str
    states: tuple[States, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What surrounds the nodes of a layer.

    Fields: `graph`; `x`: the input (time, batch, input_dim); `sizes`: its first two sizes, (2,)
    int64; `compute`: the dtype; `batch`: the name of the batch axis; `lengths`, or None.
    """

    graph: Graph
    x: str
    sizes: str
    compute: str
    batch: str
    lengths: Lengths | None


def run(around: Around, layer: LSTMLayer) -> list[Run]:
    """Add the nodes of a layer: a run for each direction."""
    if is_one_node(layer):
        cells = [_named(layer, side, 0) for side, _ in layer.directions]
        return _node(around, layer.name, cells, around.x, "bidirectional")
    return [_direction(around, layer, side) for side, _ in layer.directions]


def is_one_node(layer: LSTMLayer) -> bool:
    """Whether one bidirectional node does: both halves of one cell, alike but for their weights
    and activations, the backward one reading from the end."""
    if layer.backward is None:
        return False
    if layer.forward.options.go_backwards or not layer.backward.options.go_backwards:
        return False
    halves = [direction.lstm_cells for _, direction in layer.directions]
    if any(len(cells) != 1 for cells in halves):
        return False
    first, second = (_shape(cells[0]) for cells in halves)
    return first == second


def _shape(cell: Cell) -> tuple[object, ...]:
    options = cell.options
    return (
        cell.units,
        cell.input_dim,
        cell.gate_parts,
        options.gate_clip,
        options.input_forget,
        cell.use_bias or bool(options.forget_bias),
    )


def _named(layer: LSTMLayer, side: str, index: int) -> Named:
    cell = dict(layer.directions)[side].lstm_cells[index]
    return Named(naming.prefix(layer, side, index), cell)


def _direction(around: Around, layer: LSTMLayer, side: str) -> Run:
    direction = dict(layer.directions)[side]
    way = "reverse" if direction.options.go_backwards else "forward"
    x, states = around.x, list[States]()
    for index in range(len(direction.cells)):
        named = _named(layer, side, index)
        done = _node(around, named.name, [named], x, way)[0]
        x = done.steps
        states += done.states
    return Run(x, tuple(states))


def _node(
    around: Around, name: str, cells: Sequence[Named], x: str, direction: str
) -> list[Run]:
    graph, lengths = around.graph, around.lengths
    weights = Weights(graph, name, cells, around.compute).inputs()
    starts = [_starts(around, named) for named in cells]
    inputs = [
        x,
        weights["W"],
        weights["R"],
        weights["B"],
        lengths.positive if lengths else "",
        _start(graph, name, "initial_h", [start[0] for start in starts]),
        _start(graph, name, "initial_c", [start[1] for start in starts]),
        weights["P"],
    ]
    while not inputs[-1]:
        inputs.pop()
    outputs = [f"{name}.{part}" for part in ("Y", "Y_h", "Y_c")]
    graph.nodes_outputs(
        "LSTM", inputs, name, outputs, direction=direction, **_attributes(cells)
    )
    steps = _apart(graph, outputs[0], cells, 1, "steps")
    hidden = _apart(graph, outputs[1], cells, 0, "last_h")
    carry = _apart(graph, outputs[2], cells, 0, "last_c")
    return [
        Run(
            steps[index],
            (
                States(
                    named.name,
                    _kept(around, hidden[index], starts[index][0], f"{named.name}.kept_h"),
                    _kept(around, carry[index], starts[index][1], f"{named.name}.kept_c"),
                ),
            ),
        )
        for index, named in enumerate(cells)
    ]


def _attributes(cells: Sequence[Named]) -> dict[str, object]:
    options = [named.cell.options for named in cells]
    spelled = [
        functions.spell(activation)
        for option in options
        for activation in (
            option.recurrent_activation,
            option.activation,
            option.output_activation or option.activation,
        )
        if isinstance(activation, Activation)
    ]
    result: dict[str, object] = {
        "hidden_size": cells[0].cell.units,
        **functions.as_lists(function for function in spelled if function is not None),
    }
    if isinstance(options[0].gate_clip, (int, float)):
        result["clip"] = float(options[0].gate_clip)
    if options[0].input_forget:
        result["input_forget"] = 1
    return result


def _apart(
    graph: Graph, value: str, cells: Sequence[Named], axis: int, label: str
) -> list[str]:
    """Take the axis of directions off a node's output: a value for each direction."""
    names = [f"{named.name}.{label}" for named in cells]
    halves: Sequence[str] = [value]
    if len(cells) > 1:
        ones = graph.integers(*[1] * len(cells))
        halves = graph.nodes_outputs(
            "Split", [value, ones], f"{value}_apart", [f"{n}_row" for n in names], axis=axis
        )
    where = graph.integers(axis)
    return [
        graph.node("Squeeze", [half, where], name)
        for half, name in zip(halves, names, strict=True)
    ]


def _kept(around: Around, final: str, start: str, name: str) -> str:
    """Return a final state, which of an empty sequence is the initial one."""
    if around.lengths is None:
        return final
    start = start or around.graph.scalar(0.0, around.compute)
    return around.graph.node("Where", [around.lengths.is_any, final, start], name)


def _starts(around: Around, named: Named) -> tuple[str, str]:
    """Return the initial states of a cell, (batch, units), empty where they are zero."""
    hidden = _initial(around, named, "initial_h", "initial_hidden")
    carry = _initial(around, named, "initial_c", "initial_cell")
    return hidden, carry


def _initial(around: Around, named: Named, label: str, part: str) -> str:
    graph, cell = around.graph, named.cell
    stored = cell.parts.get(part)
    dtype = around.compute
    name = f"{named.name}.{label}"
    if graph.style.states:
        default = np.zeros((1, cell.units), dtype_of(dtype))
        if stored is not None:
            default = stored.read().reshape(1, -1).astype(dtype_of(dtype))
        value = graph.input(name, dtype, [f"{around.batch}_or_1", cell.units], default)
    elif stored is None:
        return ""
    else:
        value = graph.weight(f"{named.name}.{part}", stored)
        if stored.dtype.name != dtype:
            value = graph.node("Cast", [value], f"{name}_{dtype}", to=NUMBERS[dtype])
    batch = graph.node("Gather", [around.sizes, graph.integers(1)], f"{name}_count")
    units = graph.integers(cell.units)
    shape = graph.node("Concat", [batch, units], f"{name}_shape", axis=0)
    return graph.node("Expand", [value, shape], f"{name}_each")


def _start(graph: Graph, name: str, label: str, starts: Sequence[str]) -> str:
    """Join the initial states of the directions: (directions, batch, units)."""
    if not any(starts):
        return ""
    rows = [
        graph.node("Unsqueeze", [start, graph.integers(0)], f"{start}_row") for start in starts
    ]
    return rows[0] if len(rows) == 1 else graph.node("Concat", rows, f"{name}.{label}_all", axis=0)
