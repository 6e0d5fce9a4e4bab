"""What a model is, as typed facts: what `inspect` returns, prints and gives as JSON.

    {"version": 1,
     "source": {"name", "container", "layout", "keras_version", "era", "sha256", "origin",
                "whole_model", "file_order": {"gates": ["input", …], "axis": "columns"}, "notes",
                "losses", "opens": {"release", "because": [{"layer", "what", "release"}]}},
     "parameters": {"total", "lstm", "other"},
     "layers": [{"name", "path", "class", "parameters", "merge_mode", …options…, "unknown": […],
                 "directions": {"forward": {…options…}, "backward": {…}},
                 "cells": [{"direction", "index", "units", "input_dim", "dtype", "activation",
                            "recurrent_activation", "use_bias", "parameters", …options…,
                            "tensors": {"kernel": {"shape": [7, 8]}, …},
                            "gates": {"forget": {"columns": [2, 4], "kernel": [7, 2], …}, …},
                            "stats": {"forget": {"kernel": {"min", …}}},
                            "values": {"forget": {"kernel": [[…], …], "bias": […]}}}],
                 "opaque": [{"direction", "index", "class"}]}],
     "neighbours": [{"name", "class", "path", "inputs", "outputs", "parameters", "config",
                     "tensors": {"kernel": {"shape", "dtype", "paths"}}, "unnamed": […paths…],
                     "missing": […]}],
     "other": [{"name", "shape", "dtype", "parameters"}]}

`layers[].options` are those of the layer and of its forward direction; a layer with one cell has
that cell's keys too. `columns` are half-open, in Keras's fused order. `source.file_order` is how
this file joins the gates, and null where it keeps each gate by itself; where it is not Keras's
order, each gate has `file_range` too, half-open along that axis. An activation is `{"name",
…constants…}`. `stats` and `values` are there when they are asked for: gate -> part, and a cell's
own parts (a projection, an initial state) under `""`. Values are nested lists in the shape that
`gates` gives, so `values.forget.kernel[input][unit]`; a number is the shortest text that reads back
as the same float32 (float64 for float64 weights), and those that JSON does not have are the texts
"NaN", "Infinity" and "-Infinity". Unknown is null, and listed under `unknown`. `source.sha256` is
of this very file; `origin` is the file that a per-gate file was made from, or null. `neighbours`
are the layers other than LSTMs, as the config describes them: of each, what its class calls a
weight, and `paths`, the names under `other` of the tensors that it is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lstmconvert.checks import words
from lstmconvert.checks.page import Printed, ReportPage
from lstmconvert.checks.stats import Stats, cell_stats
from lstmconvert.containers import table
from lstmconvert.conversion import Opens
from lstmconvert.errors import UsageError
from lstmconvert.files import opening
from lstmconvert.files.jsontext import JsonObject, parse_object
from lstmconvert.keras.configs import releases
from lstmconvert.keras.reading.read import ParsedConfigs, parsing_once
from lstmconvert.limits import JSON_NUMBERS
from lstmconvert.model.gates import GATES, Gate, by_letters, columns
from lstmconvert.model.layer import Cell, Direction, FusedGates, LSTMLayer, OpaqueCell
from lstmconvert.model.model import KERAS, PER_GATE, Model, alone
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.model.options import (
    UNKNOWN,
    CellOptions,
    DirectionOptions,
    LayerOptions,
    Options,
    options_to_json,
    unknown_names,
)
from lstmconvert.tensors import progress
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Shape, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOrder:
    """How a file joins the gates.

    Fields: `gates`, in the order of the file; `axis`: `columns`, or `rows` where units are rows;
    `interleaved`: whether the gates alternate unit by unit, instead of lying in four blocks.
    """

    gates: tuple[Gate, ...]
    axis: str = "columns"
    interleaved: bool = False

    @property
    def is_keras(self) -> bool:
        """Whether a gate is where Keras has it: at the same columns."""
        in_order = tuple(gate for gate in GATES if gate in self.gates)
        return self.gates == in_order and self.axis == "columns" and not self.interleaved

    def range_of(self, gate: Gate, units: int) -> tuple[int, int] | None:
        """Return the half-open range of a gate along the axis; None where they are interleaved."""
        return None if self.interleaved else columns(gate, units, self.gates)

    def to_json(self) -> JsonObject:
        """Return the order as one JSON object."""
        return {
            "gates": [str(gate) for gate in self.gates],
            "axis": self.axis,
            "interleaved": self.interleaved,
        }


def file_order(model: Model, cell: Cell) -> FileOrder | None:
    """Return how the model's file joins the gates of a cell; None where each is by itself."""
    if model.layout == PER_GATE:
        return None
    if model.layout == KERAS:
        is_split = cell.places and "kernel" not in cell.places
        return None if is_split else FileOrder(gates=tuple(g for g in GATES if g in cell.gates))
    from lstmconvert.layouts.rows import row_of

    row = row_of(model.layout)
    slot = next(slot for slot in row.slots if "kernel" in slot.parts)
    if slot.per_gate:
        return None
    gates = tuple(gate for gate in by_letters(slot.order or row.order) if gate in cell.gates)
    axis = "rows" if slot.transposed else "columns"
    return FileOrder(gates=gates, axis=axis, interleaved=slot.interleaved)


def order_text(order: FileOrder) -> str:
    """`this file joins the gates as input, cell, forget, output along its columns`."""
    how = "unit by unit " if order.interleaved else ""
    return f"this file joins the gates {how}as {', '.join(order.gates)} along its {order.axis}"


def _lambdas(model: Model) -> list[str]:
    """Return what the config says of each Lambda."""
    text = model.texts.get("model_config", "")
    if "Lambda" not in text:
        return []
    from lstmconvert.keras.configs import code  # rarely needed: start-up is faster without

    is_older = model.source.era != "keras3"
    return [each.text(replaceable=is_older) for each in code.lambdas(text)]


VERSION = 1


def inspect(
    source: str | Path | Model | LSTMLayer,
    *,
    layer: str | None = None,
    stats: bool = False,
    values: bool = False,
    gate: Gate | str | None = None,
) -> Inspection:
    """Return what a model is: layers, shapes, which columns are which gate's, options, parameters.

    >>> report = inspect("fixtures/keras-3.15.1/seed95.keras")
    >>> report.layers[0].cells[0].gates["forget"].columns
    (2, 4)
    >>> print(report.parameters)
    {'total': 95, 'lstm': 80, 'other': 15}

    Args:
        source: a file or directory that `load` opens, a model, or a layer.
        layer: report this layer alone; totals and other tensors stay those of the model.
        stats: read the weights, and report their range, mean, and what is unusual in them.
        values: report the weights themselves.
        gate: `stats` and `values` of this gate alone: `input`, `forget`, `cell` or `output`.

    Returns:
        typed facts, which print as the command's tables.

    Raises:
        SourceError: the file is missing, damaged, hostile or no model.
        UnknownLayer: the model has no layer of that name.
        UsageError: the gate is unknown, or no cell has it.
    """
    path = None
    parsed: ParsedConfigs = {}
    if isinstance(source, (str, Path)):
        from lstmconvert.api import opened

        path = Path(source)
        with parsing_once(parsed):
            source = opened(path, any_model=True)
    model = alone(source) if isinstance(source, LSTMLayer) else source
    return Inspection(
        model=model,
        path=path,
        layer=layer,
        stats=stats,
        values=values,
        gate=_gate(gate),
        parsed=parsed,
    )


def _gate(name: Gate | str | None) -> Gate | None:
    if name is None or name in set(Gate):
        return None if name is None else Gate(name)
    raise UsageError("no such gate", found=name, expected=", ".join(GATES))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Where a model came from.

    Fields: `name` of the file, None for a model in memory; `container`, the kind of file; `layout`,
    how it arranges the gates; `keras_version` and `era`, as far as the file says them; `origin`,
    the container that the file was first made from, where it was made from another; `whole_model`:
    whether it holds a model's config and all its tensors; `file_order`: how the file joins the
    gates of the first cell, None where it keeps each by itself; `notes`; `losses` of earlier
    conversions; `opens`: the first release of Keras 3 that opens a file of Keras 3, and what an
    older one does not have.
    """

    name: str | None
    container: str
    layout: str
    keras_version: str | None
    era: str | None
    origin: str | None
    whole_model: bool
    file_order: FileOrder | None
    notes: tuple[str, ...]
    losses: tuple[str, ...]
    opens: Opens | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """A tensor that belongs to no LSTM: its full path in the source, shape, dtype, size."""

    name: str
    shape: Shape
    dtype: str
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFacts:
    """One gate.

    Fields: `columns`, half-open, in Keras's fused order; `file_range`, likewise along the axis on
    which this file joins the gates, None where it keeps each by itself; `shapes`: part -> shape.
    """

    columns: tuple[int, int]
    file_range: tuple[int, int] | None
    shapes: Mapping[str, Shape]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """One cell.

    Fields: `direction` and `index`, its place in the layer; `units` and `input_dim`; `dtype` of the
    weights; `options`; `use_bias`; `parameters`; `tensors`: part -> shape, of all gates side by
    side as in Keras; `file_order`: how this file joins the gates, None where it keeps each by
    itself; `gates`; `stats` and `values`, where they were asked for: gate -> part, and `""` for
    the cell's own parts.
    """

    direction: str
    index: int
    units: int
    input_dim: int
    dtype: str
    options: CellOptions
    use_bias: bool
    parameters: int
    tensors: Mapping[str, Shape]
    file_order: FileOrder | None
    gates: Mapping[Gate, GateFacts]
    stats: Mapping[str, Mapping[str, Stats]] | None = None
    values: Mapping[str, Mapping[str, Array]] | None = None

    def to_json(self) -> JsonObject:
        """Return the cell as one JSON object."""
        order = self.file_order
        result: JsonObject = {
            "direction": self.direction,
            "index": self.index,
            "units": self.units,
            "input_dim": self.input_dim,
            "dtype": self.dtype,
            **_options(self.options),
            "use_bias": self.use_bias,
            "parameters": self.parameters,
            "tensors": {part: {"shape": list(shape)} for part, shape in self.tensors.items()},
            "gates": {
                str(name): {
                    "columns": list(gate.columns),
                    **_file_range(gate, order),
                    **{part: list(shape) for part, shape in gate.shapes.items()},
                }
                for name, gate in self.gates.items()
            },
        }
        if self.stats is not None:
            result["stats"] = {
                gate: {part: stats.to_json() for part, stats in parts.items()}
                for gate, parts in self.stats.items()
            }
        if self.values is not None:
            result["values"] = {
                gate: {part: words.plain(array).tolist() for part, array in parts.items()}
                for gate, parts in self.values.items()
            }
        return result


def _file_range(gate: GateFacts, order: FileOrder | None) -> JsonObject:
    if order is None or order.is_keras or gate.file_range is None:
        return {}
    return {"file_range": list(gate.file_range)}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueFacts:
    """A cell that is not an LSTM: its place in the layer, and its class."""

    direction: str
    index: int
    class_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """One LSTM layer.

    Fields: `name`, `path` in the source, `class_name`, `parameters`; `options` of the layer and
    `directions`, those of each; `unknown`: the names of the options that the file does not say;
    `cells`; `opaque`, the cells that are not LSTMs.
    """

    name: str
    path: str
    class_name: str
    parameters: int
    options: LayerOptions
    directions: Mapping[str, DirectionOptions]
    unknown: tuple[str, ...]
    cells: tuple[CellFacts, ...]
    opaque: tuple[OpaqueFacts, ...]

    def to_json(self) -> JsonObject:
        """Return the layer as one JSON object."""
        directions = {name: _options(options) for name, options in self.directions.items()}
        options = _options(self.options)
        layer_options = {key: value for key, value in options.items() if value is not None}
        cells = [cell.to_json() for cell in self.cells]
        result: JsonObject = {
            "name": self.name,
            "path": self.path,
            "class": self.class_name,
            "parameters": self.parameters,
            "merge_mode": None,
            "masked": None,
            **directions["forward"],
            **layer_options,
            "unknown": list(self.unknown),
            "directions": directions,
            "cells": cells,
            "opaque": [
                {"direction": cell.direction, "index": cell.index, "class": cell.class_name}
                for cell in self.opaque
            ],
        }
        if len(cells) == 1:
            result |= {key: value for key, value in cells[0].items() if key not in result}
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspection(Printed):
    """What a model is. It prints as `lstmconvert inspect` does.

    Fields: `model`, and `path` of its file; `layer`, `stats`, `values`, `gate`: what was asked;
    `parsed`: the configs that were parsed when the file was opened.
    """

    model: Model
    path: Path | None = None
    layer: str | None = None
    stats: bool = False
    values: bool = False
    gate: Gate | None = None
    parsed: ParsedConfigs = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_gate(self.chosen, self.gate)

    def __repr__(self) -> str:
        count = f"{len(self.model)} LSTM layers" if len(self.model) != 1 else "1 LSTM layer"
        return f"Inspection({self.path or self.model.container}: {count})"

    @property
    def chosen(self) -> tuple[LSTMLayer, ...]:
        """The layers that were asked for."""
        return self.model.layers if self.layer is None else (self.model[self.layer],)

    @cached_property
    def source(self) -> SourceFacts:
        """Where the model came from."""
        model, source = self.model, self.model.source
        return SourceFacts(
            name=self.path.resolve().name if self.path else None,
            container=model.container,
            layout=model.layout,
            keras_version=source.keras_version,
            era=source.era,
            origin=source.container if model.is_converted else None,
            whole_model=model.is_whole,
            file_order=next(
                (file_order(model, cell) for layer in model.layers for _, _, cell in layer.cells()),
                None,
            ),
            notes=(*model.notes, *_lambdas(model)),
            losses=model.losses,
            opens=self._opens(),
        )

    @property
    def parameters(self) -> dict[str, int]:
        """`{"total", "lstm", "other"}`: how many weights there are."""
        return self.model.parameters

    def read(self) -> None:
        """Read the weights that were asked for now, and not when they are looked at first.

        Raises:
            LimitExceeded: see `layers`.
        """
        if self.stats and progress.is_watched():
            cells = (cell for layer in self.chosen for _, _, cell in layer.cells())
            progress.expect(sum(array.nbytes for cell in cells for array in cell.arrays()))
        if self._is_read:
            _ = self.layers

    @property
    def _is_read(self) -> bool:
        """Whether weights are read, not their shapes alone."""
        return self.stats or self.values

    @cached_property
    def layers(self) -> tuple[LayerFacts, ...]:
        """The LSTM layers.

        Raises:
            LimitExceeded: more values than one report should hold.
        """
        if self.values:
            cells = [cell for layer in self.chosen for _, _, cell in layer.cells()]
            count = sum(t.size for cell in cells for _, _, t in listed(cell, self.gate))
            JSON_NUMBERS.check(count, self.path or self.model.container, "the number of values")
        return tuple(self._layer(layer) for layer in self.chosen)

    @cached_property
    def other(self) -> tuple[TensorFacts, ...]:
        """The tensors that belong to no LSTM."""
        return tuple(
            TensorFacts(
                name=name, shape=tensor.shape, dtype=tensor.dtype.name, parameters=tensor.size
            )
            for name, tensor in self.model.other.items()
        )

    @cached_property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The layers other than LSTMs, as the config describes them."""
        with parsing_once(self.parsed):
            return tuple(self.model.neighbours.values())

    @cached_property
    def sha256(self) -> str | None:
        """The SHA-256 of the file; of a file that another was converted to, of that very file."""
        if not self.model.is_converted:
            return self.model.source.sha256
        return opening.digest_of_file(opening.open_source(self.path)) if self.path else None

    def to_json(self) -> JsonObject:
        """Return the facts as one JSON object, which the module's head describes.

        Raises:
            CorruptFile: the file changed meanwhile.
        """
        facts = self.streamed().items()
        return {key: list(fact) if isinstance(fact, Iterator) else fact for key, fact in facts}

    def streamed(self) -> JsonObject:
        """Return what `to_json` does, with iterators for its lists: thousands of layers take more
        memory than the model, unless each is forgotten once it is written. Raises as `to_json`."""
        source, neighbours = self.source, self.neighbours
        layers = self.layers if self._is_read else map(self._layer, self.chosen)
        origin = {"container": source.origin, "sha256": self.model.source.sha256}
        return {
            "version": VERSION,
            "source": {
                "name": source.name,
                "container": source.container,
                "layout": source.layout,
                "keras_version": source.keras_version,
                "era": source.era,
                "sha256": self.sha256,
                "origin": origin if source.origin else None,
                "whole_model": source.whole_model,
                "file_order": None if source.file_order is None else source.file_order.to_json(),
                "notes": list(source.notes),
                "losses": list(source.losses),
                "opens": None if source.opens is None else source.opens.to_json(),
            },
            "parameters": self.parameters,
            "layers": (layer.to_json() for layer in layers),
            "neighbours": map(_neighbour, neighbours),
            "other": (
                {
                    "name": name,
                    "shape": list(tensor.shape),
                    "dtype": tensor.dtype.name,
                    "parameters": tensor.size,
                }
                for name, tensor in self.model.other.items()
            ),
        }

    def show(self, page: ReportPage, *, digits: int | None = 3) -> None:
        """Write the report to a page.

        Args:
            page: the page.
            digits: of `values`: significant digits of the largest weight; None: the shortest text
                that reads back as the same number.
        """
        from lstmconvert.checks import explain

        explain.model(page, self, digits=digits)

    def _opens(self) -> Opens | None:
        """Return from which release on Keras 3 opens the file, where it is one of Keras 3's that
        holds a config."""
        model = self.model
        text = model.texts.get("model_config")
        if text is None or model.is_converted or model.source.era != "keras3":
            return None
        row = table.container(model.source.container)
        is_h5 = row is not None and ".h5" in row.suffixes
        known = self.parsed.get((text, model.source.keras_version))
        config = parse_object(text, "model_config") if known is None else known.root.whole
        return releases.opens(config, is_h5=is_h5)

    def _layer(self, layer: LSTMLayer) -> LayerFacts:
        return LayerFacts(
            name=layer.name,
            path=layer.path,
            class_name=layer.class_name,
            parameters=layer.parameters,
            options=layer.options,
            directions={name: direction.options for name, direction in layer.directions},
            unknown=tuple(unknown_options(layer)),
            cells=tuple(
                self._cell(direction, index, cell) for direction, index, cell in layer.cells()
            ),
            opaque=tuple(
                OpaqueFacts(direction=name, index=index, class_name=cell.class_name)
                for name, direction in layer.directions
                for index, cell in enumerate(direction.cells)
                if isinstance(cell, OpaqueCell)
            ),
        )

    def _cell(self, direction: str, index: int, cell: Cell) -> CellFacts:
        gates = tuple(gate for gate in GATES if gate in cell.gates)
        order = file_order(self.model, cell)
        stats = None
        values: dict[str, dict[str, Array]] | None = None
        if self.stats:
            only = self.gate
            stats = {k: v for k, v in cell_stats(cell).items() if only is None or k == only}
        if self.values:
            values = {}
            for gate, part, tensor in listed(cell, self.gate):
                values.setdefault(gate, {})[part] = tensor.read()
        return CellFacts(
            direction=direction,
            index=index,
            units=cell.units,
            input_dim=cell.input_dim,
            dtype=cell.dtype.name,
            options=cell.options,
            use_bias=cell.use_bias,
            parameters=cell.parameters,
            tensors={part: cell.fused_shape(part) for part in cell.gate_parts}
            | {part: tensor.shape for part, tensor in cell.parts.items()},
            file_order=order,
            gates={
                gate: GateFacts(
                    columns=columns(gate, cell.units, gates),
                    file_range=None if order is None else order.range_of(gate, cell.units),
                    shapes=cell.gate_shapes(gate),
                )
                for gate in gates
            },
            stats=stats,
            values=values,
        )


def _neighbour(layer: Neighbour) -> JsonObject:
    return {
        "name": layer.name,
        "class": layer.class_name,
        "path": layer.path,
        "inputs": layer.inputs,
        "outputs": layer.outputs,
        "parameters": layer.parameters,
        "config": layer.config,
        "tensors": {
            role: {
                "shape": list(tensor.shape),
                "dtype": tensor.dtype.name,
                "paths": list(layer.paths[role]),
            }
            for role, tensor in layer.tensors.items()
        },
        "unnamed": list(layer.unnamed),
        "missing": list(layer.missing),
    }


def listed(cell: Cell, gate: Gate | None = None) -> list[tuple[str, str, Tensor]]:
    """Return `(gate, part, tensor)` of a cell in order; the cell's own parts have no gate.

    Args:
        cell: the cell.
        gate: this gate's tensors alone.
    """
    tensors = [
        (str(name), part, tensor)
        for name in GATES
        if name in cell.gates and gate in (None, name)
        for part, tensor in cell.gates[name].tensors.items()
    ]
    parts = cell.parts.items() if gate is None else ()
    return tensors + [("", part, tensor) for part, tensor in parts]


def check_gate(layers: Sequence[LSTMLayer], gate: Gate | None) -> None:
    """Raise `UsageError` if a gate is asked for that no cell of the layers stores."""
    if gate is None:
        return
    cells = [cell for layer in layers for _, _, cell in layer.cells()]
    if not any(gate in cell.gates for cell in cells):
        raise UsageError(
            f"no cell stores the {gate} gate: the input gate is 1 - the forget gate",
            where=", ".join(layer.name for layer in layers[:3]),
            found=", ".join(cells[0].gates),
            hint="--gate forget shows the gate that it follows from",
        )


#: The options that change what a layer computes: of those that are unknown, they are named first.
TELLING = (
    "activation",
    "recurrent_activation",
    "merge_mode",
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
)


def unknown_options(layer: LSTMLayer) -> list[str]:
    """Return the names of the options that are unknown, each once."""
    names = {name for options in all_options(layer) for name in unknown_names(options)}
    if layer.backward is None:
        names.discard("merge_mode")  # it has none
    return sorted(names)


def all_options(layer: LSTMLayer) -> list[Options]:
    """Return the options of a layer, of its directions, and of its LSTM cells."""
    result: list[Options] = [layer.options]
    for _, direction in layer.directions:
        result.append(direction.options)
        result += [cell.options for cell in direction.cells if isinstance(cell, Cell)]
    return result


def _options(options: Options) -> dict[str, Any]:
    return {key: value for key, value in options_to_json(options).items() if key != "unknown"}


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedCell:
    """One cell to explain: its layer, direction and place, and how many are just like it."""

    layer: LSTMLayer
    label: str
    name: str
    direction: Direction
    cell: Cell
    count: int = 1


def blocks_of(layer: LSTMLayer) -> Iterator[ExplainedCell]:
    """Yield a layer's cells; of two halves that are just alike, the forward one."""
    forward, backward = layer.forward, layer.backward
    if backward is not None and _alike(forward, backward):
        for block in of_direction(layer, "forward", forward):
            label = block.label.replace("forward", "forward and backward, alike", 1)
            yield ExplainedCell(layer, label, "forward", forward, block.cell, 2)
        return
    yield from every_block(layer)


def every_block(layer: LSTMLayer) -> Iterator[ExplainedCell]:
    """Yield all of a layer's cells."""
    for name, direction in layer.directions:
        yield from of_direction(layer, name, direction)


def of_direction(layer: LSTMLayer, name: str, direction: Direction) -> Iterator[ExplainedCell]:
    """Yield the cells of one direction."""
    for index, cell in enumerate(direction.cells):
        labels = [name] if layer.backward is not None else []
        labels += [f"cells.{index}"] if len(direction.cells) > 1 else []
        if isinstance(cell, Cell):
            yield ExplainedCell(layer, ".".join(labels), name, direction, cell)


def _alike(first: Direction, second: Direction) -> bool:
    if len(first.cells) != len(second.cells):
        return False
    for a, b in zip(first.cells, second.cells, strict=True):
        if not isinstance(a, Cell) or not isinstance(b, Cell) or kind(a) != kind(b):
            return False
    turns = first.options.go_backwards, second.options.go_backwards
    if turns not in ((UNKNOWN, UNKNOWN), (False, True)):
        return False
    return replace(first.options, go_backwards=True) == replace(second.options, go_backwards=True)


def kind(cell: Cell) -> object:
    """What two cells that look the same have in common: shapes, dtypes and options."""
    gates = cell.gates
    parts = [(part, tensor.shape, tensor.dtype) for part, tensor in cell.parts.items()]
    if isinstance(gates, FusedGates):
        arrays = zip(gates.parts, gates.arrays, strict=True)
        return [(part, array.shape, array.dtype) for part, array in arrays], parts, cell.options
    each = [
        [(part, tensor.shape, tensor.dtype) for part, tensor in gates[gate].tensors.items()]
        for gate in GATES
        if gate in gates
    ]
    if len(each) < len(GATES) or any(other != each[0] for other in each):
        return [*gates], each, parts, cell.options
    fused = [(part, (*shape[:-1], len(GATES) * shape[-1]), dtype) for part, shape, dtype in each[0]]
    return fused, parts, cell.options
