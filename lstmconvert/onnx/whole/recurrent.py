"""Recurrent layers as nodes: LSTM, GRU and RNN, of one direction or two, in stacks, with masks.

Each node stands for a cell, or for the two alike of a Bidirectional. Steps come in and go out with
the time first, as the operators have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.keras.configs import values as configvalues
from lstmconvert.keras.configs.nodes import node as node_of
from lstmconvert.keras.modern.parts import Part
from lstmconvert.model import naming
from lstmconvert.model.activations import Activation
from lstmconvert.model.fit import check_known
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.onnx import functions
from lstmconvert.onnx.messages import NUMBERS, Axis
from lstmconvert.onnx.weights import Named
from lstmconvert.onnx.whole import masks
from lstmconvert.onnx.whole.cells import (
    GatedCell,
    Loop,
    RecurrentCell,
    SimpleCell,
    StandardCell,
    looped,
    run_cell,
    zero_state,
)
from lstmconvert.onnx.whole.site import TARGET, Site
from lstmconvert.onnx.whole.writer import (
    BEFORE,
    END,
    TIME_MAJOR,
    GraphWriter,
    Order,
    Row,
    Shape,
    Value,
)
from lstmconvert.tensors.dtypes import dtype_of
from lstmconvert.tensors.tensor import Tensor

#: Classes whose cell is that of a GRU, or of a SimpleRNN.
_GRU = frozenset({"GRU", "GRUCell", "CuDNNGRU"})
_SIMPLE = frozenset({"SimpleRNN", "SimpleRNNCell"})
#: Options that the graph of an LSTM layer depends on.
_NEEDED = (
    *("activation", "recurrent_activation", "return_sequences", "return_state", "go_backwards"),
    *("stateful", "merge_mode"),
)
#: merge_mode -> what joins the halves of one node's output along its axis of directions, and what
#: joins two values.
_REDUCED = {"sum": "ReduceSum", "ave": "ReduceMean", "mul": "ReduceProd"}
_JOINED = {"sum": "Add", "ave": "Add", "mul": "Mul"}


class Half(NamedTuple):
    """One direction. Fields: `cells`; `backwards`; `zero`: zero_output_for_mask; `in_order`:
    whether its steps come in the order of the input though it runs backwards."""

    cells: tuple[RecurrentCell, ...]
    backwards: bool
    zero: bool
    in_order: bool = False


class Layer(NamedTuple):
    """A recurrent layer: one half, or the two of a Bidirectional, and what it returns."""

    halves: tuple[Half, ...]
    sequences: bool
    states: bool
    stateful: bool
    time_major: bool
    merge_mode: str | None = None

    @property
    def cells(self) -> tuple[RecurrentCell, ...]:
        """The cells of all halves."""
        return tuple(cell for half in self.halves for cell in half.cells)


# ---- from the model's parts to layers ------------------------------------------------------------


def lstm(site: Site) -> Any:
    """Write a layer that holds LSTM cells."""
    layer = site.part.layer
    if layer is None:
        raise site.refused("layer")
    check_known(layer, TARGET, _NEEDED)
    if any(cell.options.convolution is not None for _, _, cell in layer.cells()):
        return _convolved(site, layer)
    halves = tuple(
        Half(
            cells=tuple(
                _cell(site, layer, side, index, cell) for index, cell in enumerate(half.cells)
            ),
            backwards=bool(half.options.go_backwards),
            zero=half.options.zero_output_for_mask is True,
            in_order=half.options.keeps_time_order,
        )
        for side, half in layer.directions
    )
    options = layer.forward.options
    merge_mode = layer.options.merge_mode if layer.backward is not None else None
    return run(
        site,
        Layer(
            halves=halves,
            sequences=options.return_sequences is True,
            states=options.return_state is True,
            stateful=options.stateful is True,
            time_major=options.time_major is True,
            merge_mode=None if merge_mode is None else str(merge_mode),
        ),
    )


def _cell(
    site: Site, layer: LSTMLayer, side: str, index: int, cell: Cell | OpaqueCell
) -> RecurrentCell:
    name = naming.prefix(layer, side, index)
    if isinstance(cell, Cell):
        return StandardCell(site, Named(name, cell))
    config = node_of(cell.config, name).config if cell.config else {}
    return keras_cell(site, name, cell.class_name, config, cell.tensors)


def keras_cell(
    site: Site, name: str, class_name: str, config: JsonObject, arrays: Sequence[Tensor]
) -> RecurrentCell:
    """Return the cell of a GRU or a SimpleRNN.

    Args:
        site: the layer's.
        name: what the names of its values begin with.
        class_name: of the layer or of the cell.
        config: its keywords.
        arrays: its weights, in Keras's order.

    Raises:
        UnsupportedByTarget: it is another class, or has an activation of the user's own.
    """
    kinds = [_activation(site, config, "activation", "tanh")]
    if class_name in _SIMPLE:
        return SimpleCell(site, name, arrays, kinds)
    if class_name not in _GRU:
        raise site.refused(class_name, why="a cell whose class is not known here")
    kinds.insert(0, _activation(site, config, "recurrent_activation", "sigmoid"))
    # Keras 3 has True where its config says nothing; before it was always said.
    reset_after = config.get("reset_after", site.era == "keras3")
    return GatedCell(site, name, arrays, kinds, reset_after=bool(reset_after))


def _activation(site: Site, config: JsonObject, key: str, default: str) -> Activation:
    function = configvalues.activation(config.get(key, default), site.era, f"{site.label}.{key}")
    if function.custom:
        raise site.refused(key, function)
    return function


def gated(site: Site) -> Any:
    """Write a GRU, SimpleRNN or RNN layer."""
    half, config = _half(site, site.part, site.path), site.config
    return run(site, _layer(site, (half,), config))


def bidirectional(site: Site) -> Any:
    """Write a Bidirectional of layers that hold no LSTM."""
    parts = [part for _, part in site.part.children]
    names = [f"{site.path}.{side}" for side in ("forward", "backward")]
    halves = tuple(_half(site, part, name) for part, name in zip(parts, names, strict=True))
    layer = _layer(site, halves, parts[0].config)
    # Keras decides what masked steps give (keras/src/layers/rnn/bidirectional.py).
    halves = tuple(
        Half(cells=half.cells, backwards=half.backwards, zero=layer.sequences) for half in halves
    )
    merge_mode = site.config.get("merge_mode", "concat")
    if merge_mode not in ("concat", "sum", "mul", "ave", None):
        raise site.refused("merge_mode", merge_mode)
    return run(
        site,
        Layer(
            halves=halves, sequences=layer.sequences, states=layer.states,
            stateful=layer.stateful, time_major=layer.time_major, merge_mode=merge_mode,
        ),
    )  # fmt: skip


def _layer(site: Site, halves: tuple[Half, ...], config: JsonObject) -> Layer:
    def flag(key: str) -> bool:
        value = config.get(key)
        return value is not None and configvalues.flag(value, f"{site.label}.{key}")

    return Layer(
        halves=halves,
        sequences=flag("return_sequences"),
        states=flag("return_state"),
        stateful=flag("stateful"),
        time_major=flag("time_major"),
    )


def _half(site: Site, part: Part, name: str) -> Half:
    if part.layer is not None:
        raise site.refused("layer", part.class_name)
    cells = [(name, below) for _, below in part.children]
    if cells and cells[0][1].class_name == "StackedRNNCells":
        stack = [below for _, below in cells[0][1].children]
        cells = [(f"{name}.cells.{index}", below) for index, below in enumerate(stack)]
    if not cells:
        raise site.refused(part.class_name, why="a recurrent layer whose class is not known here")
    return Half(
        cells=tuple(
            keras_cell(site, where, below.class_name, below.config, below.arrays)
            for where, below in cells
        ),
        backwards=bool(part.config.get("go_backwards", False)),
        zero=part.config.get("zero_output_for_mask") is True,
    )


# ---- running -------------------------------------------------------------------------------------


class _Given(NamedTuple):
    """What a layer runs on: `x` by name (time, batch, features), or compacted by `mask`; `batch`:
    the length of the batch axis; `loops`: whether a Scan takes the place of nodes."""

    x: str
    mask: Value | None
    batch: Any
    loops: bool


class _Ran(NamedTuple):
    """What a half has computed: `steps`: (time, batch, units) in the order of the input, or None
    where one node ran both; `states` of its cells, (batch, units) each."""

    steps: str
    states: list[list[str]]


def run(site: Site, layer: Layer) -> Any:
    """Write a recurrent layer on the arguments of its site; return its output, or all of them."""
    value = site.given(site.arguments[0])
    if value.rank != 3:
        raise CorruptFile("a recurrent layer on an input that is not a sequence", where=site.label)
    if layer.time_major and site.mask is not None:
        return _with_batch_first(site, layer)
    batch_axis = 1 if layer.time_major else 0
    mask = _mask(site)
    loops = not all(cell.is_node for cell in layer.cells)
    if mask is not None and not loops:
        x = masks.compacted(site, value, mask)
    else:
        x = site.writer.form(value, value.straight if layer.time_major else TIME_MAJOR)
    given = _Given(x=x, mask=mask, batch=value.shape[batch_axis], loops=loops)
    starts = _starts(site, layer, given)
    pair = _pair(layer)
    if pair and not loops:
        outputs, ran = _one_node(site, layer, given, starts)
    else:
        ran, at = [], 0
        for index, half in enumerate(layer.halves):
            count = len(half.cells)
            ran.append(_half_run(site, layer, index, given, starts[at : at + count]))
            at += count
        outputs = _separate(site, layer, given, ran)
    states = [state for half in ran for cell in half.states for state in cell]
    if layer.stateful:
        _keep_states(site, layer, given.batch, [cell for half in ran for cell in half.states])
    shape = value.shape
    return _returned(site, layer, outputs, states, (shape[0], shape[1]), site.passing)


def _with_batch_first(site: Site, layer: Layer) -> Any:
    """Write a layer whose time comes first, and whose mask is (time, batch)."""
    given, mask = site.arguments[0], _mask(site)
    site.arguments = [_swapped(given)]
    site.mask = None if mask is None else _swapped(mask)
    result = run(site, layer._replace(time_major=False))
    if not layer.sequences:
        return result
    several = result if isinstance(result, list) else [result]
    outputs = 2 if len(layer.halves) == 2 and layer.merge_mode is None else 1
    turned = [_swapped(value) for value in several[:outputs]]
    for value in turned:
        value.mask = mask
    results = [*turned, *several[outputs:]]
    return results if isinstance(result, list) else results[0]


def _swapped(value: Value) -> Value:
    """Return a value with its first two axes the other way round: no node is needed for that."""
    other = {0: 1, 1: 0}

    def renamed(order: Order) -> Order:
        return tuple(other.get(axis, axis) for axis in order)

    result = Value("", value.dtype, (value.shape[1], value.shape[0], *value.shape[2:]))
    result.forms = {renamed(order): name for order, name in value.forms.items()}
    result.makers = {renamed(order): make for order, make in value.makers.items()}
    return result


def _mask(site: Site) -> Value | None:
    mask: Any = site.mask
    if isinstance(mask, list):
        mask = mask[0] if mask else None
    if mask is None:
        return None
    if mask.rank == 3 and mask.shape[2] == 1:
        name = site.op("Squeeze", [site.writer.form(mask), site.ints(2)], "mask")
        mask = Value(name, "bool", mask.shape[:2])
    if not isinstance(mask, Value) or mask.rank != 2:
        raise site.refused("mask", f"a mask of {mask.rank} axes")
    return mask


def _pair(layer: Layer) -> bool:
    """Whether one bidirectional node does."""
    if len(layer.halves) != 2 or any(len(half.cells) != 1 for half in layer.halves):
        return False
    forward, backward = layer.halves
    if forward.backwards or not backward.backwards or forward.zero != backward.zero:
        return False
    return forward.cells[0].kind == backward.cells[0].kind


def _attributes(cells: Sequence[RecurrentCell]) -> dict[str, Any]:
    spelled = [functions.spell(kind) for cell in cells for kind in cell.functions]
    return {
        "hidden_size": cells[0].units,
        **functions.as_lists(function for function in spelled if function is not None),
        **cells[0].attributes(),
    }


def _node(
    site: Site,
    given: _Given,
    cells: Sequence[RecurrentCell],
    x: str,
    direction: str,
    starts: Sequence[Sequence[str]],
) -> list[str]:
    """Add one node, and return Y and the last states, (directions, batch, units) each."""
    writer, first = site.writer, cells[0]
    name = first.name if len(cells) == 1 else site.path
    label = name if site.label == site.path else f"{name}{site.label[len(site.path) :]}"
    inputs = [x, *first.inputs(name, cells)]
    inputs.append(masks.compaction(writer, given.mask).lengths if given.mask else "")
    for index, what in enumerate(first.states):
        rows = [start[index] for start in starts]
        inputs.append(_rows(site, rows, f"{label}.initial_{what}"))
    while not inputs[-1]:
        inputs.pop()
    outputs = [writer.graph.unique(f"{label}.{part}") for part in ("Y", *_lasts(first))]
    writer.graph.nodes_outputs(
        first.operator, inputs, label, outputs, direction=direction, **_attributes(cells)
    )
    return outputs


def _lasts(cell: RecurrentCell) -> list[str]:
    return [f"Y_{state}" for state in cell.states]


def _row_table(writer: GraphWriter) -> dict[str, Row]:
    """The states that are rows of a node's output: name -> its place there."""
    table: dict[str, Row] = writer.cached("rows", dict)
    return table


def _rows(site: Site, names: Sequence[str], label: str) -> str:
    """Join states (batch, units) along a new first axis of directions."""
    if not any(names):
        return ""
    table = _row_table(site.writer)
    places = [table.get(name, ("", 0, 0)) for name in names]
    source = places[0][0]
    if source and places == [(source, index, len(names)) for index in range(len(names))]:
        return source  # all that one node has given
    rows = [site.op("Unsqueeze", [name, site.ints(0)], "initial_row") for name in names]
    return rows[0] if len(rows) == 1 else site.writer.op("Concat", rows, label, axis=0)


def _half_run(
    site: Site, layer: Layer, index: int, given: _Given, starts: Sequence[Sequence[str]]
) -> _Ran:
    half = layer.halves[index]
    if given.loops:
        return _loops(site, half, given, starts)
    x, states, steps = given.x, list[list[str]](), ""
    for number, (cell, start) in enumerate(zip(half.cells, starts, strict=True)):
        direction = "reverse" if half.backwards else "forward"
        made = _node(site, given, [cell], x, direction, [start])
        last = [site.op("Squeeze", [name, site.ints(0)], "last") for name in made[1:]]
        rows = _row_table(site.writer)
        rows.update((name, (row, 0, 1)) for name, row in zip(last, made[1:], strict=True))
        states.append(_kept(site, given, last, start))
        if number + 1 < len(half.cells) or layer.sequences:
            steps = x = site.op("Squeeze", [made[0], site.ints(1)], "steps")
    return _Ran(steps, states)


def _kept(
    site: Site, given: _Given, states: Sequence[str], starts: Sequence[str]
) -> list[str]:
    """Return the last states: of a sequence without a step that counts, the first ones."""
    if given.mask is None:
        return list(states)
    is_any = masks.compaction(site.writer, given.mask).any
    return [
        site.op("Where", [is_any, state, start or site.number(0.0)], "kept")
        for state, start in zip(states, starts, strict=True)
    ]


def _loops(
    site: Site, half: Half, given: _Given, starts: Sequence[Sequence[str]]
) -> _Ran:
    steps, states = given.x, list[list[str]]()
    for number, (cell, start) in enumerate(zip(half.cells, starts, strict=True)):
        shape: Shape = (given.batch, cell.units)
        is_last = number + 1 == len(half.cells)
        zero = zero_state(site, given.x, shape)
        loop = Loop(
            x=(steps, (given.batch, None)),
            states=[name or zero for name in start],
            shape=shape,
            mask=_scanned_mask(site, given),
            backwards=half.backwards,
            zero=half.zero and is_last,
            in_order=True,
        )
        steps, last = run_cell(site, cell, loop)
        states.append(last)
    return _Ran(steps, states)


def _scanned_mask(site: Site, given: _Given) -> tuple[str, Shape] | None:
    """Return the mask as a Scan takes it: (time, batch, 1), and the shape of one step."""
    if given.mask is None:
        return None
    name = site.writer.form(given.mask, (1, 0))
    column = site.op("Unsqueeze", [name, site.ints(2)], "mask_column")
    return column, (given.batch, 1)


def _one_node(
    site: Site, layer: Layer, given: _Given, starts: Sequence[Sequence[str]]
) -> tuple[list[Value], list[_Ran]]:
    """Run both halves in one node; return the layer's outputs."""
    cells = [half.cells[0] for half in layer.halves]
    made = _node(site, given, cells, given.x, "bidirectional", starts)
    ran = []
    for index, start in enumerate(starts):
        picked = [
            site.op("Gather", [name, site.writer.place(index)], f"last_{index}", axis=0)
            for name in (made[1:] if layer.states or layer.stateful else ())
        ]
        rows = _row_table(site.writer)
        rows.update((name, (row, index, 2)) for name, row in zip(picked, made[1:], strict=False))
        ran.append(_Ran("", [_kept(site, given, picked, start)] if picked else []))
    units = cells[0].units
    if layer.merge_mode is None:
        return _halves_apart(site, layer, given, made, units), ran
    width = 2 * units if layer.merge_mode == "concat" else units
    if not layer.sequences:
        return [_joined_last(site, layer, given, made[1], width)], ran
    return [_joined_steps(site, layer, given, made[0], width)], ran


def _halves_apart(
    site: Site, layer: Layer, given: _Given, made: Sequence[str], units: int
) -> list[Value]:
    source, axis = (made[0], 1) if layer.sequences else (made[1], 0)
    results = []
    for index, half in enumerate(layer.halves):
        name = site.op("Gather", [source, site.writer.place(index)], f"half_{index}", axis=axis)
        if layer.sequences:
            results.append(_steps_value(site, layer, given, name, units, half))
        else:
            results.append(_last_value(site, given, name, units, zero=False, backwards=False))
    return results


def _joined_last(
    site: Site, layer: Layer, given: _Given, last: str, width: int
) -> Value:
    mode = str(layer.merge_mode)
    if mode == "concat":
        turned = site.op("Transpose", [last], "halves", perm=[1, 0, 2])
        name = site.op("Reshape", [turned, site.ints(0, width)], "concat")
    else:
        name = site.reduce(_REDUCED[mode], last, [0], mode)
    return _last_value(site, given, name, width, zero=False, backwards=False)


def _joined_steps(site: Site, layer: Layer, given: _Given, y: str, width: int) -> Value:
    """Join the halves' steps, (time, 2, batch, units)."""
    mode = str(layer.merge_mode)

    def straight() -> str:
        if mode == "concat":
            turned = site.op("Transpose", [y], "halves", perm=[2, 0, 1, 3])
            return site.op("Reshape", [turned, site.ints(0, 0, width)], "concat")
        return site.op("Transpose", [by_time()], "batch_first", perm=list(TIME_MAJOR))

    def by_time() -> str:
        def make() -> str:
            if mode == "concat":
                turned = site.op("Transpose", [y], "halves_by_time", perm=[0, 2, 1, 3])
                return site.op("Reshape", [turned, site.ints(0, 0, width)], "concat_by_time")
            return site.reduce(_REDUCED[mode], y, [1], mode)

        return str(site.writer.cached((y, "by time"), make))

    value = Value("", site.compute, (*_axes(given, layer), width))
    if given.mask is None:
        order: Order = value.straight if layer.time_major else TIME_MAJOR
        if layer.time_major:
            value.makers[order] = by_time
        elif mode == "concat":
            value.makers = {value.straight: straight, TIME_MAJOR: by_time}
        else:
            value.makers[TIME_MAJOR] = by_time
        return value
    mask = given.mask
    value.makers[value.straight] = lambda: masks.looked_up(
        site, straight(), mask, backwards=False, zero=True
    )
    value.compact = (by_time, mask)
    return value


def _axes(given: _Given, layer: Layer) -> tuple[Any, Any]:
    return (None, given.batch) if layer.time_major else (given.batch, None)


def _separate(
    site: Site, layer: Layer, given: _Given, ran: Sequence[_Ran]
) -> list[Value]:
    """Return the outputs of halves that ran apart."""
    values = []
    for side, (half, half_run) in enumerate(zip(layer.halves, ran, strict=True)):
        units = half.cells[-1].units
        if not layer.sequences:
            last = half_run.states[-1][0]
            zero = half.zero and len(layer.halves) == 1
            values.append(
                _last_value(site, given, last, units, zero=zero, backwards=half.backwards)
            )
            continue
        value = _steps_value(site, layer, given, half_run.steps, units, half)
        # Keras returns what it computed last at the end. A Bidirectional turns its second half.
        is_turned = side == 1 or half.in_order
        if half.backwards != is_turned:
            value = _flipped(site, value, 0 if layer.time_major else 1)
        values.append(value)
    if len(values) == 1 or layer.merge_mode is None:
        return values
    return [_merged(site, str(layer.merge_mode), values)]


def _flipped(site: Site, value: Value, axis: int) -> Value:
    """Return steps, along one axis, from the last to the first."""
    name, order = site.writer.native(value)
    ints = [site.ints(-1), site.ints(BEFORE), site.ints(order.index(axis)), site.ints(-1)]
    return Value(site.op("Slice", [name, *ints], "turned"), value.dtype, value.shape, order)


def _merged(site: Site, mode: str, values: Sequence[Value]) -> Value:
    """Return what two halves give as one value."""
    first, second = values
    _, order = site.writer.native(first)
    names = [site.writer.form(value, order) for value in values]
    width = first.shape[-1]
    if mode == "concat":
        known = [size for size in (width, second.shape[-1]) if isinstance(size, int)]
        width = sum(known) if len(known) == len(values) else None
        name = site.op("Concat", names, axis=order.index(first.rank - 1))
    else:
        if width != second.shape[-1]:
            raise CorruptFile("halves of unlike width cannot be merged so", where=site.label)
        name = site.op(_JOINED[mode], names, mode)
        if mode == "ave":
            name = site.op("Div", [name, site.number(2.0)], "ave")
    return Value(name, site.compute, (*first.shape[:-1], width), order)


def _steps_value(
    site: Site, layer: Layer, given: _Given, steps: str, units: int, half: Half
) -> Value:
    """Return (time, batch, units) as what Keras gives at each step, in the input's order."""
    shape: Shape = (*_axes(given, layer), units)
    if given.mask is None or given.loops:
        order = tuple(range(3)) if layer.time_major else TIME_MAJOR
        return Value(steps, site.compute, shape, order)
    mask, value = given.mask, Value("", site.compute, shape)
    is_zero = half.zero

    def make() -> str:
        straight = site.op("Transpose", [steps], "batch_first", perm=list(TIME_MAJOR))
        return masks.looked_up(site, straight, mask, backwards=half.backwards, zero=is_zero)

    value.makers[value.straight] = make
    value.compact = (lambda: steps, mask)
    return value


def _last_value(
    site: Site, given: _Given, last: str, width: int, *, zero: bool, backwards: bool
) -> Value:
    """Return the last output, (batch, units): of a sequence without a step that counts it is zero,
    whatever its state; with zero_output_for_mask the last step itself must count."""
    shape: Shape = (given.batch, width)
    if given.mask is None:
        return Value(last, site.compute, shape)
    known = masks.compaction(site.writer, given.mask)
    counts = known.ends(first=backwards) if zero else known.any
    name = site.op("Where", [counts, last, site.number(0.0)], "last_output")
    return Value(name, site.compute, shape)


def _returned(
    site: Site,
    layer: Layer,
    outputs: Sequence[Value],
    states: Sequence[str],
    axes: tuple[Any, Any],
    passing: Any,
) -> Any:
    results = []
    for value in outputs:
        if layer.sequences:
            value.shape = (*axes, value.shape[-1])
            value.mask = passing[0] if isinstance(passing, list) and passing else passing
        results.append(value)
    if layer.states:
        batch = axes[1] if layer.time_major else axes[0]
        cells = [(cell, state) for cell in layer.cells for state in cell.states]
        for name, (cell, _) in zip(states, cells, strict=True):
            state = Value(name, site.compute, (batch, cell.units))
            state.row = _row_table(site.writer).get(name)
            results.append(state)
    return results if len(results) > 1 else results[0]


# ---- states --------------------------------------------------------------------------------------


def _starts(site: Site, layer: Layer, given: _Given) -> list[list[str]]:
    """Return the first states of each cell, (batch, units), empty where they are zero."""
    writer = site.writer
    count = sum(len(cell.states) for cell in layer.cells)
    initial = site.keywords.get("initial_state")
    names: list[str] = []
    if initial is not None:
        flat = [initial] if isinstance(initial, Value) else list(_flat(initial))
        if len(flat) != count:
            raise site.refused("initial_state", f"{len(flat)} states for {count}")
        given_states = [writer.cast(state, site.compute) for state in flat]
        names = [writer.form(state) for state in given_states]
        table = _row_table(writer)
        table.update((n, s.row) for n, s in zip(names, given_states, strict=True) if s.row)
    elif layer.stateful:
        names = _carried(site, layer, given)
    else:
        names = [""] * count
    result, at = [], 0
    for cell in layer.cells:
        stored = _stored_starts(site, cell)
        names_of_cell = names[at : at + len(cell.states)]
        result.append([name or other for name, other in zip(names_of_cell, stored, strict=True)])
        at += len(cell.states)
    return result


def _flat(value: Any) -> Any:
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, Value):
            yield item
        else:
            yield from _flat(item)


def _stored_starts(site: Site, cell: RecurrentCell) -> list[str]:
    """Return the first states that a cell itself holds: none of Keras's does."""
    parts = cell.cell.parts if isinstance(cell, StandardCell) else {}
    if parts:
        raise site.refused(next(iter(parts)))
    return [""] * len(cell.states)


def _carried(site: Site, layer: Layer, given: _Given) -> list[str]:
    """Return the states of a stateful layer: inputs of the graph, zero unless they are given."""
    kept = site.writer.cached("states", dict)
    names = []
    for cell in layer.cells:
        for state in cell.states:
            name = f"{cell.name}.{state}_in"
            if name in kept:  # a layer that is called twice goes on from its first call
                names.append(site.writer.form(kept[name][0]))
                continue
            sizes = (given.batch if isinstance(given.batch, int) else 1, cell.units)
            default = np.zeros(sizes, dtype_of(site.compute))
            axis = given.batch if isinstance(given.batch, int) else "batch_or_1"
            site.writer.graph.input(name, site.compute, [axis, cell.units], default)
            made = name
            if not isinstance(given.batch, int):
                sizes_name = site.op("Shape", [given.x], "sizes")
                batch = site.op("Gather", [sizes_name, site.ints(1)], "batch")
                full = site.op("Concat", [batch, site.ints(cell.units)], "state_shape", axis=0)
                made = site.op("Expand", [name, full], f"{state}_in_each")
            names.append(made)
    return names


def _keep_states(
    site: Site, layer: Layer, batch: Any, states: Sequence[Sequence[str]]
) -> None:
    kept = site.writer.cached("states", dict)
    for cell, names in zip(layer.cells, states, strict=True):
        for state, name in zip(cell.states, names, strict=True):
            value = Value(name, site.compute, (batch, cell.units))
            kept[f"{cell.name}.{state}_in"] = (value, f"{cell.name}.{state}_out")


def end_states(writer: GraphWriter) -> list[tuple[Value, str]]:
    """Return the states that stateful layers end with, as outputs of the graph."""
    return list(writer.cached("states", dict).values())


def kept_states(writer: GraphWriter) -> list[Value]:
    """Return the states that stateful layers have ended with so far."""
    return [value for value, _ in writer.cached("states", dict).values()]


# ---- ConvLSTM: no operator says it, so that it is a Scan of convolutions -------------------------


def _convolved(site: Site, layer: LSTMLayer) -> Any:
    """Write a ConvLSTM1D, 2D or 3D, alone or in a Bidirectional."""
    value = site.given(site.arguments[0])
    options = layer.forward.options
    steps: list[Value] = []
    states: list[Value] = []
    initial = _initial_states(site.keywords.get("initial_state"))
    for index, (side, direction) in enumerate(layer.directions):
        half = _ConvolvedHalf(site, layer, side, direction, value)
        start = initial[2 * index : 2 * index + 2]
        half_steps, last = half.run(start)
        is_turned = side == "backward" or direction.options.keeps_time_order
        if options.return_sequences and bool(direction.options.go_backwards) != is_turned:
            half_steps = _flipped(site, half_steps, 1)
        steps.append(half_steps)
        states += last
    mode = layer.options.merge_mode
    results = list(steps)
    if layer.backward is not None and mode is not None:
        results = [_merged(site, str(mode), steps)]
    if options.return_sequences:
        for result in results:
            result.mask = site.passing
    if options.return_state:
        results = [*results, *states]
    return results if len(results) > 1 else results[0]


def _initial_states(value: Any) -> list[Value]:
    if value is None:
        return []
    return [value] if isinstance(value, Value) else list(value)


class _ConvolvedHalf:
    """One direction of the layer over (batch, time, window, channels)."""

    def __init__(
        self, site: Site, layer: LSTMLayer, side: str, direction: Direction, value: Value
    ) -> None:
        cells = direction.lstm_cells
        if len(cells) != 1 or len(direction.cells) != 1:
            raise site.refused("cells", len(direction.cells))
        cell = cells[0]
        known: Mapping[str, Any] = cell.options.convolution or {}
        self._site, self._direction, self._value = site, direction, value
        self._cell: Cell = cell
        self._named = StandardCell(site, Named(naming.prefix(layer, side, 0), cell))
        self._rank = len(known["kernel_size"])
        self._known = known
        self._is_first = known.get("data_format") == "channels_first"
        if self._is_first:  # Keras takes a softmax along the last axis, whatever that is
            self._named.row_axis = self._rank + 1
        if value.rank != self._rank + 3:
            raise CorruptFile("a ConvLSTM on other than steps of windows", where=site.label)

    def run(self, start: Sequence[Value]) -> tuple[Value, list[Value]]:
        """Return the steps, or the last output, and the last states."""
        site, units = self._site, self._cell.units
        inputs, spaces = self._projected()
        batch = self._value.shape[0]
        shape: Shape = (batch, units, *spaces)
        kernel = self._weights("recurrent_kernel")
        is_kept = self._direction.options.stateful is True and not start
        names = self._carried(shape) if is_kept else self._starts(start, inputs, shape)
        mask = self._mask(spaces)
        sequences = bool(self._direction.options.return_sequences)
        loop = Loop(
            x=(inputs, (batch, 4 * units, *spaces)),
            states=names,
            shape=shape,
            mask=mask,
            backwards=bool(self._direction.options.go_backwards),
            zero=self._direction.options.zero_output_for_mask is True,
            in_order=True,
        )
        size = [int(k) for k in self._known["kernel_size"]]
        pads = self._pads([k - 1 for k in size])

        def step(x: str, states: Sequence[str]) -> Sequence[str]:
            carried = site.op("Conv", [states[0], kernel], kernel_shape=size, pads=pads)
            return self._named.gated(site.op("Add", [x, carried], "gates"), states[1], axis=1)

        steps, last = looped(site, loop, step)
        ends = [Value(name, site.compute, *self._outer(shape)) for name in last]
        if self._direction.options.stateful is True:
            kept = site.writer.cached("states", dict)
            for state, end in zip("hc", ends, strict=True):
                name = f"{self._named.name}.{state}"
                kept[f"{name}_in"] = (end, f"{name}_out")
        if sequences:
            rest, order = self._outer(shape)
            after = (1, 0, *(axis + 1 for axis in order[1:]))
            full: Shape = (batch, self._value.shape[1], *rest[1:])
            return Value(steps, site.compute, full, after), ends
        return self._last(steps, shape), ends

    def _last(self, steps: str, shape: Shape) -> Value:
        """Return what the last step gives: the first one's of a half that runs backwards."""
        place = 0 if self._direction.options.go_backwards else -1
        site = self._site
        name = site.op("Gather", [steps, site.writer.place(place)], "last_output", axis=0)
        return Value(name, site.compute, *self._outer(shape))

    def _outer(self, shape: Shape) -> tuple[Shape, Order]:
        """Return Keras's shape of (batch, channels, window), and the order that this is of it."""
        if self._is_first:
            return shape, tuple(range(len(shape)))
        rank = len(shape)
        return (shape[0], *shape[2:], shape[1]), (0, rank - 1, *range(1, rank - 1))

    def _projected(self) -> tuple[str, list[Axis]]:
        """Return the convolution of all steps at once, (time, batch, 4 · units, window), and the
        sizes of its window."""
        site, value, rank = self._site, self._value, self._rank
        channels = 2 if self._is_first else value.rank - 1
        spaces = [axis for axis in range(2, value.rank) if axis != channels]
        name = site.writer.form(value, (1, 0, channels, *spaces))
        sizes = [value.static(axis) for axis in (channels, *spaces)]
        flat = self._target(name, sizes, 2)
        rows = site.op("Reshape", [name, flat], "each_step")
        window = [int(k) for k in self._known["kernel_size"]]
        strides = [int(s) for s in self._known.get("strides") or [1] * rank]
        dilation = [int(d) for d in self._known.get("dilation_rate") or [1] * rank]
        same = self._known.get("padding") == "same"
        outer: list[Axis] = []
        totals: list[int] = []
        for size, k, s, d in zip(sizes[1:], window, strides, dilation, strict=True):
            span = (k - 1) * d + 1
            if size is None:
                if same and s > 1:
                    raise site.refused("strides", strides, "an image whose size is not known")
                total = span - 1 if same else 0
                outer.append(None)
            elif same:
                out = -(-size // s)
                total = max((out - 1) * s + span - size, 0)
                outer.append(out)
            else:
                total = 0
                outer.append((size - span) // s + 1)
            totals.append(total)
        inputs = [rows, self._weights("kernel")]
        if self._cell.use_bias:
            inputs.append(self._bias())
        made = site.op(
            "Conv", inputs, kernel_shape=window, strides=strides, dilations=dilation,
            pads=self._pads(totals),
        )  # fmt: skip
        return self._by_step(made, name, outer), outer

    def _pads(self, totals: Sequence[int]) -> list[int]:
        """Return the zeros before and behind each axis: an odd one lies behind, and of a layer
        trained on Theano before."""
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return [*more, *less] if self._known.get("extra_before") else [*less, *more]

    def _target(self, name: str, sizes: Sequence[int | None], start: int) -> str:
        site = self._site
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes):
            return site.ints(-1, *known)
        shape = site.op("Shape", [name], "shape")
        rest = site.op("Slice", [shape, site.ints(start), site.ints(END)], "behind")
        return site.op("Concat", [site.ints(-1), rest], "each_step_shape", axis=0)

    def _by_step(self, made: str, steps: str, spaces: Sequence[Axis]) -> str:
        """Return the rows of all steps as (time, batch, …) again."""
        site, time = self._site, self._value.static(1)
        known = [size for size in spaces if isinstance(size, int)]
        channels = 4 * self._cell.units
        if time is not None and len(known) == len(spaces):
            return site.op("Reshape", [made, site.ints(time, -1, channels, *known)], "inputs")
        shape = site.op("Shape", [steps], "steps_shape")
        first = site.op("Slice", [shape, site.ints(0), site.ints(2)], "steps_and_batch")
        rest = site.ints(channels, *known)
        if len(known) < len(spaces):
            inner = site.op("Shape", [made], "inner_shape")
            rest = site.op("Slice", [inner, site.ints(1), site.ints(END)], "inner")
        target = site.op("Concat", [first, rest], "inputs_shape", axis=0)
        return site.op("Reshape", [made, target], "inputs")

    def _weights(self, part: str) -> str:
        """Return the kernels of the gates as one of a Conv, (4 · units, channels, window)."""
        names = [self._gate(gate, part) for gate in GATES]
        rank = self._rank
        joined = self._site.op("Concat", names, f"{part}_of_gates", axis=rank + 1)
        perm = [rank + 1, rank, *range(rank)]
        return self._site.op("Transpose", [joined], f"{part}_turned", perm=perm)

    def _bias(self) -> str:
        names = [self._gate(gate, "bias") for gate in GATES]
        return self._site.op("Concat", names, "bias_of_gates", axis=0)

    def _gate(self, gate: Any, part: str) -> str:
        tensor = self._cell.gates[gate].tensors[part]
        site = self._site
        name = site.writer.graph.weight(f"{self._named.name}.{gate}_gate.{part}", tensor)
        if tensor.dtype.name == site.compute:
            return name
        return site.op("Cast", [name], "gate", to=NUMBERS[site.compute])

    def _starts(self, start: Sequence[Value], inputs: str, shape: Shape) -> list[str]:
        site = self._site
        if start:
            if len(start) != 2:
                raise site.refused("initial_state", f"{len(start)} states")
            _, order = self._outer(shape)
            return [site.writer.form(site.writer.cast(s, site.compute), order) for s in start]
        if all(isinstance(size, int) for size in shape[1:]):
            zero = zero_state(site, inputs, shape)
        else:
            sizes = site.op("Shape", [inputs], "inputs_sizes")
            batch = site.op("Gather", [sizes, site.ints(1)], "batch")
            rest = site.op("Slice", [sizes, site.ints(3), site.ints(END)], "window")
            parts = [batch, site.ints(self._cell.units), rest]
            full = site.op("Concat", parts, "state_shape", axis=0)
            zero = site.op("Expand", [site.number(0.0), full], "zero_state")
        return [zero, zero]

    def _carried(self, shape: Shape) -> list[str]:
        """Return the states of a stateful layer: inputs of the graph in Keras's own shape, zero
        unless they are given."""
        site, (outer, order) = self._site, self._outer(shape)
        sizes = [size for size in outer if isinstance(size, int)]
        if len(sizes) < len(outer):
            raise site.refused("stateful", "a batch or an image whose size is not known")
        names, kept = [], site.writer.cached("states", dict)
        for state in "hc":
            name = f"{self._named.name}.{state}_in"
            if name in kept:  # a layer that is called twice goes on from its first call
                names.append(site.writer.form(kept[name][0], order))
                continue
            zeros = np.zeros(sizes, dtype_of(site.compute))
            site.writer.graph.input(name, site.compute, sizes, zeros)
            names.append(site.writer.form(Value(name, site.compute, tuple(sizes)), order))
        return names

    def _mask(self, spaces: Sequence[Axis]) -> tuple[str, Shape] | None:
        """Return the mask of the steps, or that of each pixel which a Masking makes, time first."""
        site, mask, batch = self._site, self._site.mask, self._value.shape[0]
        if mask is None:
            return None
        form = site.writer.form
        if mask.rank == 2:
            axes = range(2, self._rank + 3)
            column = site.op("Unsqueeze", [form(mask, (1, 0)), site.ints(*axes)], "mask_column")
            return column, (batch, *[1] * (self._rank + 1))
        # Keras puts it on the outputs as it is: no other size goes, nor channels first.
        if self._is_first or mask.shape[2:] != tuple(spaces) or None in spaces:
            raise site.refused("mask", f"a mask of {mask.rank} axes")
        order = (1, 0, *range(2, mask.rank))
        pixels = site.op("Unsqueeze", [form(mask, order), site.ints(2)], "mask_of_pixels")
        return pixels, (batch, 1, *spaces)
