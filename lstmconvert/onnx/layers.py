"""One layer as a graph: batch-major in, and out of it exactly what the Keras layer returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lstmconvert.layer import LSTMLayer
from lstmconvert.onnx import lengths, recurrence
from lstmconvert.onnx.builder import Graph
from lstmconvert.onnx.express import compute_dtype
from lstmconvert.onnx.recurrence import Around, Run

#: From the last step to the first: Slice runs to before the smallest integer.
_LAST, _BEFORE_FIRST, _BACK = -1, -(2**63), -1


@dataclass(frozen=True, slots=True)
class Axes:
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


@dataclass(frozen=True, slots=True)
class Feed:
    """What a layer is fed by another: a value, its axes, the lengths of its sequences."""

    value: str
    axes: Axes
    lengths: lengths.Lengths | None


def add(graph: Graph, layer: LSTMLayer, axes: Axes, feed: Feed | None, ends: bool) -> Feed:
    """Add a layer's nodes, inputs and outputs.

    Args:
        graph: the graph.
        layer: the layer, which `express.check` let pass.
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
        known = lengths.add(graph, layer.name, sizes, axes.batch)
    around = Around(
        graph=graph, x=x, sizes=sizes, compute=compute, batch=axes.batch, lengths=known
    )
    return _outputs(_Out(around, layer, axes, ends), recurrence.run(around, layer))


@dataclass(frozen=True, slots=True)
class _Out:
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


def _outputs(out: _Out, runs: Sequence[Run]) -> Feed:
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


def _return_states(out: _Out, runs: Sequence[Run]) -> None:
    cells = [cell for _, _, cell in out.layer.cells()]
    states = [state for run in runs for state in run.states]
    for state, cell in zip(states, cells, strict=True):
        for value, label in ((state.hidden, "h"), (state.cell, "c")):
            output = out.graph.node("Identity", [value], f"{state.name}.{label}")
            out.declare(output, cell.units, False)


def _result(out: _Out, side: str, run: Run) -> str:
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


def _last(out: _Out, run: Run, label: str, backwards: bool, zero: bool) -> str:
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


def _padded(out: _Out, run: Run, label: str, zero: bool) -> str:
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
