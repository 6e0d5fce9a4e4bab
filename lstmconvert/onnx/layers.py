"""One layer as a graph: batch-major in, and out of it exactly what the Keras layer returns.

A direction is LSTM nodes, one after another for stacked cells; what Keras does with the order of
time, masks that end early and two directions is computed around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lstmconvert.model import naming
from lstmconvert.model.activations import Activation
from lstmconvert.model.layer import Cell, LSTMLayer, compute_dtype
from lstmconvert.onnx import functions
from lstmconvert.onnx.messages import NUMBERS, Graph
from lstmconvert.onnx.weights import Named, Weights
from lstmconvert.tensors.dtypes import dtype_of

#: From the last step to the first: Slice runs to before the smallest integer.
_LAST, _BEFORE_FIRST, _BACK = -1, -(2**63), -1


class Axes(NamedTuple):
    """The names of the batch and time axes, and whether time comes first."""

    batch: str
    time: str
    time_major: bool

    def of(self, width: int, steps: bool = True) -> list[int | str]:
        """Return a shape: (batch, time, width), (time, batch, width) or (batch, width)."""
        if not steps:
            return [self.batch, width]
        both = [self.time, self.batch] if self.time_major else [self.batch, self.time]
        return [*both, width]


class Feed(NamedTuple):
    """What a layer is fed by another: a value, its axes, the lengths of its sequences."""

    value: str
    axes: Axes
    lengths: Lengths | None


def add(graph: Graph, layer: LSTMLayer, axes: Axes, feed: Feed | None, ends: bool) -> Feed:
    """Add a layer's nodes, inputs and outputs.

    Args:
        graph: the graph.
        layer: the layer, which `express.fit` returned.
        axes: of its input; those of `feed` if there is one.
        feed: what it is fed by in a chain; None: it has an input of its own.
        ends: whether its first output leaves the graph.

    Returns:
        what it feeds another.
    """
    cell = layer.forward.lstm_cells[0]
    compute = compute_dtype(layer.forward, cell)
    axes = feed.axes if feed else axes
    x = feed.value if feed else graph.input(f"{layer.name}.x", compute, axes.of(layer.input_dim))
    if not axes.time_major:
        x = graph.node("Transpose", [x], f"{layer.name}.x_by_time", perm=(1, 0, 2))
    shape = graph.node("Shape", [x], f"{layer.name}.shape")
    sizes = graph.node("Gather", [shape, graph.integers(0, 1)], f"{layer.name}.sizes")
    known = feed.lengths if feed else None
    if known is None and graph.style.lengths:
        known = _lengths(graph, layer.name, sizes, axes.batch)
    around = Around(
        graph=graph, x=x, sizes=sizes, compute=compute, batch=axes.batch, lengths=known
    )
    return _outputs(_Out(around, layer, axes, ends), run(around, layer))


class _Out(NamedTuple):
    around: Around
    layer: LSTMLayer
    axes: Axes
    ends: bool

    @property
    def graph(self) -> Graph:
        return self.around.graph

    @property
    def sequences(self) -> bool:
        return bool(self.layer.forward.options.return_sequences)

    @property
    def widths(self) -> list[int]:
        return [direction.units for _, direction in self.layer.directions]

    def declare(self, value: str, width: int, steps: bool) -> str:
        return self.graph.output(value, self.around.compute, self.axes.of(width, steps))


def _outputs(out: _Out, runs: Sequence[DirectionOutputs]) -> Feed:
    name = out.layer.name
    results = [
        _result(out, side, run)
        for (side, _), run in zip(out.layer.directions, runs, strict=True)
    ]
    merge_mode = out.layer.options.merge_mode if len(runs) > 1 else None
    if merge_mode is not None:
        results = [_merged(out, str(merge_mode), results)]
    widths = [sum(out.widths)] if merge_mode == "concat" else out.widths
    names = [f"{name}.y", f"{name}.y_backward"]
    for value, width, wanted in zip(results, widths, names, strict=False):
        _finished(out, value, wanted)
        if out.ends:
            out.declare(wanted, width, out.sequences)
    if out.layer.forward.options.return_state:
        _return_states(out, runs)
    return Feed(names[0], out.axes, out.around.lengths)


def _finished(out: _Out, value: str, wanted: str) -> None:
    if out.sequences and not out.axes.time_major:
        out.graph.node("Transpose", [value], wanted, perm=(1, 0, 2))
    else:
        out.graph.node("Identity", [value], wanted)


def _return_states(out: _Out, runs: Sequence[DirectionOutputs]) -> None:
    cells = [cell for _, _, cell in out.layer.cells()]
    states = [state for run in runs for state in run.states]
    for state, cell in zip(states, cells, strict=True):
        for value, label in ((state.hidden, "h"), (state.cell, "c")):
            output = out.graph.node("Identity", [value], f"{state.name}.{label}")
            out.declare(output, cell.units, False)


def _result(out: _Out, side: str, run: DirectionOutputs) -> str:
    """Return one direction's output: the steps in Keras's order of time, or the last one."""
    direction = dict(out.layer.directions)[side]
    label = out.layer.name if out.layer.backward is None else f"{out.layer.name}.{side}"
    backwards = bool(direction.options.go_backwards)
    if not out.sequences:
        return _last(out, run, label, backwards, direction.options.zero_output_for_mask is True)
    zero = out.layer.backward is not None or direction.options.zero_output_for_mask is True
    steps = _padded(out, run, label, zero or backwards)
    # Keras returns what it computed last at the end. A Bidirectional turns its backward half round.
    is_turned = side == "backward" or direction.options.keeps_time_order
    return _turned(out, steps, label) if backwards != is_turned else steps


def _last(out: _Out, run: DirectionOutputs, label: str, backwards: bool, zero: bool) -> str:
    graph, known = out.graph, out.around.lengths
    final = run.states[-1].hidden
    if known is None:
        return final
    # The last output of a sequence without a step is zero, whatever its state. With
    # zero_output_for_mask (which a Bidirectional then turns off) the last step itself must count.
    zero = zero and out.layer.backward is None
    counts = known.is_whole if zero and not backwards else known.is_any
    nothing = graph.scalar(0.0, out.around.compute)
    return graph.node("Where", [counts, final, nothing], f"{label}.last")


def _padded(out: _Out, run: DirectionOutputs, label: str, zero: bool) -> str:
    """Put in what Keras returns behind the end of a sequence: zero, or the last output again."""
    graph, known = out.graph, out.around.lengths
    if known is None:
        return run.steps
    fill = graph.scalar(0.0, out.around.compute)
    if not zero:
        last = _last(out, run, label, False, False)
        fill = graph.node("Unsqueeze", [last, graph.integers(0)], f"{label}.last_output")
    return graph.node("Where", [known.is_valid, run.steps, fill], f"{label}.padded")


def _turned(out: _Out, steps: str, label: str) -> str:
    ints = [out.graph.integers(n) for n in (_LAST, _BEFORE_FIRST, 0, _BACK)]
    return out.graph.node("Slice", [steps, *ints], f"{label}.turned")


def _merged(out: _Out, mode: str, halves: Sequence[str]) -> str:
    graph, name = out.graph, out.layer.name
    if mode == "concat":
        return graph.node("Concat", halves, f"{name}.concat", axis=-1)
    if mode == "mul":
        return graph.node("Mul", halves, f"{name}.mul")
    total = graph.node("Add", halves, f"{name}.sum")
    if mode == "sum":
        return total
    two = graph.scalar(2.0, out.around.compute)
    return graph.node("Div", [total, two], f"{name}.ave")


# ---- the nodes -----------------------------------------------------------------------------------


class States(NamedTuple):
    """The final state of one cell: its name and the values (batch, units)."""

    name: str
    hidden: str
    cell: str


class DirectionOutputs(NamedTuple):
    """What one direction computes: `steps` (time, batch, units), in the input's own order of time
    whichever way it ran, and the final states of its cells."""

    steps: str
    states: tuple[States, ...]


class Around(NamedTuple):
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


def run(around: Around, layer: LSTMLayer) -> list[DirectionOutputs]:
    """Add the nodes of a layer: a run for each direction."""
    if is_one_node(layer):
        cells = [_named(layer, side, 0) for side, _ in layer.directions]
        return _node(around, layer.name, cells, around.x, "bidirectional")
    return [_direction(around, layer, side) for side, _ in layer.directions]


def is_one_node(layer: LSTMLayer) -> bool:
    """Whether one bidirectional node does: both halves of one cell, alike except for their weights
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


def _direction(around: Around, layer: LSTMLayer, side: str) -> DirectionOutputs:
    direction = dict(layer.directions)[side]
    way = "reverse" if direction.options.go_backwards else "forward"
    x, states = around.x, list[States]()
    for index in range(len(direction.cells)):
        named = _named(layer, side, index)
        done = _node(around, named.name, [named], x, way)[0]
        x = done.steps
        states += done.states
    return DirectionOutputs(x, tuple(states))


def _node(
    around: Around, name: str, cells: Sequence[Named], x: str, direction: str
) -> list[DirectionOutputs]:
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
    steps = _by_direction(graph, outputs[0], cells, 1, "steps")
    hidden = _by_direction(graph, outputs[1], cells, 0, "last_h")
    carry = _by_direction(graph, outputs[2], cells, 0, "last_c")
    return [
        DirectionOutputs(
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


def _by_direction(
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


# ---- sequences of several lengths in one batch ---------------------------------------------------
#
# Keras keeps the state at a masked step and repeats the last output there, or gives zeros with
# zero_output_for_mask; a Bidirectional that returns sequences always gives zeros. The operator says
# nothing of its output behind the end of a sequence, so all of that is computed around it.

#: The default: longer than any sequence, so every sequence is whole.
_WHOLE = np.iinfo(np.int32).max
_INT32 = NUMBERS["int32"]


class Lengths(NamedTuple):
    """The lengths of one batch, as values of a graph.

    Fields: `given`: (batch,) int32 from 0 to time; `positive`: the same, at least 1: what the
    operator is given; `is_valid`: (time, batch, 1), true within a sequence; `is_any` and
    `is_whole`: (batch, 1), whether a sequence has a step at all, and whether it has every step.
    """

    given: str
    positive: str
    is_valid: str
    is_any: str
    is_whole: str


def _lengths(graph: Graph, layer: str, sizes: str, batch: str) -> Lengths:
    """Add the input `<layer>.lengths` and what follows from it.

    Args:
        graph: the graph.
        layer: the layer's name.
        sizes: the value (2,) int64: time and batch.
        batch: the name of the batch axis.
    """
    default = np.asarray([_WHOLE], np.int32)
    given = graph.input(f"{layer}.lengths", "int32", [f"{batch}_or_1"], default)
    time64 = graph.node("Gather", [sizes, graph.integers(0)], f"{layer}.time_64")
    time = graph.node("Cast", [time64], f"{layer}.time_32", to=_INT32)
    count = graph.node("Gather", [sizes, graph.integers(1)], f"{layer}.count")
    zero, unity = graph.scalar(0, "int32"), graph.scalar(1, "int32")
    least = graph.node("Max", [given, zero], f"{layer}.lengths_from_0")
    most = graph.node("Min", [least, time], f"{layer}.lengths_to_time")
    each = graph.node("Expand", [most, count], f"{layer}.lengths_each")
    positive = graph.node("Max", [each, unity], f"{layer}.lengths_from_1")
    column = graph.node("Unsqueeze", [each, graph.integers(1)], f"{layer}.lengths_column")
    end = graph.node("Squeeze", [time], f"{layer}.end")
    steps = graph.node("Range", [zero, end, unity], f"{layer}.step_numbers")
    step_column = graph.node("Unsqueeze", [steps, graph.integers(1, 2)], f"{layer}.step_column")
    return Lengths(
        given=each,
        positive=positive,
        is_valid=graph.node("Less", [step_column, column], f"{layer}.is_valid"),
        is_any=graph.node("Greater", [column, zero], f"{layer}.is_any"),
        is_whole=graph.node("Equal", [column, time], f"{layer}.is_whole"),
    )
