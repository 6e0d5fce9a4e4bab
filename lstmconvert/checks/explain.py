"""`inspect` for people: which tensor, what shape, why, and which columns are which gate.

`--values` adds the weights themselves, gate by gate, a column for each unit. The gates are side by
side where they fit the screen, else one below the other. A matrix that is too large shows its
corners, and a line says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lstmconvert.checks import words
from lstmconvert.checks.inspection import (
    TELLING,
    ExplainedCell,
    FileOrder,
    Inspection,
    all_options,
    blocks_of,
    check_gate,
    every_block,
    file_order,
    kind,
    listed,
    order_text,
    unknown_options,
)
from lstmconvert.checks.page import ReportPage
from lstmconvert.checks.stats import Stats
from lstmconvert.checks.words import file_facts, neighbour_text, option_rows
from lstmconvert.errors import counted, number
from lstmconvert.model.gates import GATES, Gate, columns
from lstmconvert.model.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Tensor

# -- --values ------------------------------------------------------------------------------------


#: Significant digits of the largest weight, unless the user says how many.
DIGITS = 3
#: A part with more rows than this shows its corners: two thirds of this number are first rows.
_VALUE_ROWS, _CORNER_ROWS = 40, 9
_INDENT, _GAP = 2, 2
#: No column is narrower, so that the gates' names fit above one unit.
_NARROWEST = 6
_DOTS = "…"


@dataclass(frozen=True, slots=True)
class _Cut:
    """The indices of an axis that are shown: the `first` ones and the `last` ones of `size`.

    `last` is 0 where all are shown.
    """

    size: int
    first: int
    last: int = 0

    @property
    def indices(self) -> list[int]:
        return [*range(self.first), *range(self.size - self.last, self.size)]

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Return a text for each index that is shown, with dots where others are left out."""
        return [*texts[: self.first], _DOTS, *texts[self.first :]] if self.last else list(texts)


def _cut(size: int, most: int, corner: int) -> _Cut:
    """Return all of `size` indices, or where they are more than `most`, `corner` of them."""
    if size <= most:
        return _Cut(size, size)
    last = max(1, corner // 3)
    return _Cut(size, max(1, corner - last), last)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a gate, or of the cell: the rows that are shown, and in them all columns.

    Fields: `gate`, empty for the cell's own parts; `rows`; `names`, of the rows that are shown;
    `numbers` (rows that are shown, columns).
    """

    gate: str
    part: str
    rows: _Cut
    names: list[str]
    numbers: Array


@dataclass(frozen=True, slots=True)
class _Style:
    """How numbers are written.

    Fields: `digits`, significant ones of the largest weight, or None for the shortest text that
    reads back as the same number; `places`, decimals; `itemsize`, bytes of a weight; `width` of a
    column, `margin` of the names, `fitting`: how many columns the screen has room for.
    """

    digits: int | None
    places: int
    itemsize: int
    width: int = 0
    margin: int = 0
    fitting: int = 0

    def text(self, value: float) -> str:
        if self.digits is None:
            return words.exact(value, self.itemsize)
        return words.fixed(value, self.places, self.digits)


def show_values(
    page: ReportPage, layers: Sequence[LSTMLayer], *, gate: Gate | None, digits: int | None
) -> None:
    """Print the weights of every cell.

    Args:
        layers: the layers.
        gate: this gate alone.
        digits: significant digits of the largest weight; None for the shortest text that reads
            back as the same number.

    Raises:
        UsageError: no cell has the gate.
    """
    check_gate(layers, gate)
    for layer in layers:
        for block in every_block(layer):
            name = f"{layer.name}.{block.label}" if block.label else layer.name
            page.line()
            if gate is not None and gate not in block.cell.gates:
                page.paragraph(f"{name} stores no {gate} gate", bold=True)
                continue
            unit = "filter" if words.is_convolution(block.cell) else "unit"
            page.paragraph(f"{name}: weights, a column for each {unit}", bold=True)
            _cell(page, block.cell, gate, digits)


def _cell(page: ReportPage, cell: Cell, gate: Gate | None, digits: int | None) -> None:
    parts = [_read(cell, *place) for place in listed(cell, gate)]
    style = _style(page, parts, digits, cell.dtype.itemsize)
    order = [name for name in GATES if name in cell.gates]
    gates = [name for name in order if gate in (None, name)]
    is_together = len(gates) * cell.units <= style.fitting
    units = _cut(cell.units, cell.units if is_together else style.fitting, style.fitting - 1)
    for group in [gates] if is_together else [[name] for name in gates]:
        page.line()
        _heads(page, cell, group, tuple(order), units, style)
        for name in cell.gate_parts:
            _rows(
                page,
                [part for part in parts if part.part == name and part.gate in group],
                group,
                units,
                style,
            )
    cuts = [units, *(part.rows for part in parts)]
    for part in parts:
        if not part.gate:
            cuts.append(_cut(part.numbers.shape[1], style.fitting, style.fitting - 1))
            page.line()
            page.line(part.part, indent=_INDENT)
            _print(
                page, "column", cuts[-1].texts([str(index) for index in cuts[-1].indices]), style
            )
            _rows(page, [part], [""], cuts[-1], style)
    if any(cut.last for cut in cuts):
        page.line()
        page.paragraph(
            f"corners of {counted(cell.parameters, 'weight')}: --json prints all of them, and "
            "convert writes them to .npz as arrays",
            indent=_INDENT,
        )


def _read(cell: Cell, gate: str, part: str, tensor: Tensor) -> _Part:
    """Read the rows that are shown, and no others."""
    count, _ = tensor.matrix_shape
    rows = _cut(count, _VALUE_ROWS, _CORNER_ROWS)
    pieces = [tensor.rows(0, rows.first), tensor.rows(count - rows.last, count)]
    with np.errstate(invalid="ignore"):  # to widen a signalling NaN is an invalid operation
        numbers = np.concatenate(pieces).astype(np.float64)
    if gate:
        names = [words.row_name(cell, part, row) for row in rows.indices]
    else:
        names = [f"row {row}" if len(tensor.shape) > 1 else "" for row in rows.indices]
    return _Part(gate, part, rows, rows.texts(names), numbers)


def _style(page: ReportPage, parts: Sequence[_Part], digits: int | None, itemsize: int) -> _Style:
    sizes = np.concatenate([np.abs(part.numbers).ravel() for part in parts])
    largest = sizes[np.isfinite(sizes)].max(initial=0.0)
    style = _Style(digits, words.decimals(largest, digits or 1), itemsize)
    texts = [style.text(value) for part in parts for value in part.numbers.flat]
    width = max(_NARROWEST, *map(len, texts))
    margin = max(len("column"), *(len(name) for part in parts for name in part.names))
    fitting = max(3, (page.width() - _INDENT - margin) // (width + _GAP))
    return replace(style, width=width, margin=margin, fitting=fitting)


def _heads(
    page: ReportPage,
    cell: Cell,
    group: Sequence[Gate],
    order: tuple[Gate, ...],
    units: _Cut,
    style: _Style,
) -> None:
    """Print which gate, unit and column of the fused kernel the columns are."""
    labels = units.texts([str(unit) for unit in units.indices])
    start, stop = columns(group[0], cell.units, order)
    if len(group) == 1:
        page.line(
            f"{group[0]} gate, columns {start}:{stop} of Keras's fused kernel", indent=_INDENT
        )
        _print(page, "unit", labels, style)
        return
    block = cell.units * (style.width + _GAP)
    heads = "".join(str(gate).rjust(block) for gate in group)
    page.line(" " * style.margin + heads, indent=_INDENT)
    _print(page, "unit", labels * len(group), style)
    _print(page, "column", [str(start + index) for index in range(len(group) * cell.units)], style)


def _rows(
    page: ReportPage, parts: Sequence[_Part], group: Sequence[str], columns: _Cut, style: _Style
) -> None:
    """Print one part of the gates of a group, side by side; a gate without it has blanks."""
    texts: list[str]
    by_gate = {part.gate: part for part in parts}
    shown = 0
    for name in parts[0].names if parts else ():
        texts = []
        for gate in group:
            part = by_gate.get(gate)
            if part is None:
                texts += columns.texts([""] * len(columns.indices))
            elif name == _DOTS:
                texts += [_DOTS] * (len(columns.indices) + bool(columns.last))
            else:
                row = part.numbers[shown]
                texts += columns.texts([style.text(row[index]) for index in columns.indices])
        shown += name != _DOTS
        _print(page, name, texts, style)


def _print(page: ReportPage, name: str, texts: Sequence[str], style: _Style) -> None:
    cells = "".join(" " * _GAP + text.rjust(style.width) for text in texts)
    page.line((name.ljust(style.margin) + cells).rstrip(), indent=_INDENT)


# -- the report -------------------------------------------------------------------------------


#: A model with more cells than this is shown as one table, a row a cell.
_DETAILED = 4
_OTHER_ROWS = 12
#: How many rows are shown of a model with many cells; how many alike rows become one.
_ROWS, _ALIKE = 40, 4


def model(page: ReportPage, report: Inspection, *, digits: int | None = DIGITS) -> None:
    """Write the report of a model, or of one layer of it.

    Args:
        page: where to.
        report: the facts.
        digits: of the weights, as in `show_values`.
    """
    model, chosen = report.model, report.chosen
    is_whole = report.layer is None
    _file(page, report)
    blocks = [block for layer in chosen for block in blocks_of(layer)]
    is_long = is_whole and len(blocks) > _DETAILED
    if is_long:
        _overview(page, model, blocks)
    else:
        for layer in chosen:
            _layer(page, model, layer, [block for block in blocks if block.layer is layer])
    if report.values:
        show_values(page, chosen, gate=report.gate, digits=digits)
    if report.stats:
        _stats(page, report)
    if is_whole:
        _others(page, model, report.neighbours)
    _unknown(page, chosen)
    if is_long and report.path is not None:
        name = shlex.quote(str(report.path))
        page.hint(f"lstmconvert inspect {name} --layer NAME explains one layer")
    if report.source.opens is not None and is_whole:
        page.note(report.source.opens.text)
    for text in report.source.notes:
        page.note(text)
    for text in model.losses:
        page.note(f"an earlier conversion lost: {text}")


def _file(page: ReportPage, report: Inspection) -> None:
    model, path = report.model, report.path
    if path is not None:
        page.line(path.name or str(path), bold=True)
    page.paragraph(file_facts(model))
    total, layers = model.parameters, counted(len(model.layers), "LSTM layer")
    parameters = counted(total["total"], "parameter")
    if model.other:
        weighted = [layer for layer in report.neighbours if layer.tensors and not layer.missing]
        named = sum(tensor.size for layer in weighted for tensor in layer.tensors.values())
        others = counted(len(model.other), "other tensor")
        if named == total["other"]:
            others = counted(len(weighted), "other layer")
        lstm = f"{number(total['lstm'])} in {layers}, " if model.layers else ""
        page.paragraph(f"{parameters}: {lstm}{number(total['other'])} in {others}")
    else:
        page.paragraph(f"{parameters}, all in {layers}" if model.layers else parameters)
    if not model.layers:
        page.line()
        page.paragraph(
            "No LSTM layer: there are no gates to name. The whole model goes to today's Keras "
            "(.keras, .h5) and to ONNX (--whole)."
        )


def _overview(page: ReportPage, model: Model, blocks: list[ExplainedCell]) -> None:
    """Print one row for each cell, one for a run of layers that are alike."""
    rows = []
    index = 0
    while index < len(blocks):
        run = _run(blocks, index)
        rows.append(_row(blocks[index : index + run]))
        index += run
    page.line()
    more = len(rows) - _ROWS
    header = ("layer", "class", "kernel", "recurrent", "bias", "parameters")
    page.table(rows[:_ROWS] if more > 0 else rows, header=header, right=(5,))
    if more > 0:
        page.line(f"… and {more:,} more: --json lists them all", indent=2)
    page.line()
    order = file_order(model, blocks[0].cell)
    page.paragraph(
        "kernel is inputs × 4 gates of units, recurrent units × 4 gates of units, bias 4 gates of "
        "units, joined as Keras does: along the last axis lie the input, forget, cell and output "
        "gate, in this order; with 2 units, columns 0:2, 2:4, 4:6 and 6:8.",
        indent=2,
    )
    if order is None:
        page.paragraph("This file itself stores each gate separately.", indent=2)
    elif not order.is_keras:
        text = order_text(order)
        page.paragraph(f"{text[0].upper()}{text[1:]}.", indent=2)


def _run(blocks: list[ExplainedCell], start: int) -> int:
    """Return how many blocks from `start` on make one row."""
    first = blocks[start]
    if first.label:
        return 1
    same = (first.layer.class_name, kind(first.cell))
    stop = start + 1
    while stop < len(blocks) and not blocks[stop].label:
        if (blocks[stop].layer.class_name, kind(blocks[stop].cell)) != same:
            break
        stop += 1
    return stop - start if stop - start >= _ALIKE else 1


def _row(run: list[ExplainedCell]) -> tuple[str, ...]:
    first, last = run[0], run[-1]
    name = first.layer.name
    if first.count > 1:
        name += "".join(f".{part}" for part in first.label.split(".")[1:]) + ", each half"
    elif first.label:
        name += f".{first.label}"
    if len(run) > 1:
        name += f" … {last.layer.name} ({len(run):,})"
    cell = first.cell
    each = " each" if len(run) > 1 or first.count > 1 else ""
    return (
        name,
        first.layer.class_name,
        words.shape(cell.fused_shape("kernel")),
        words.shape(cell.fused_shape("recurrent_kernel")),
        words.shape(cell.fused_shape("bias")) if cell.use_bias else "none",
        number(cell.parameters) + each,
    )


def _layer(page: ReportPage, model: Model, layer: LSTMLayer, blocks: list[ExplainedCell]) -> None:
    page.line()
    mode = layer.options.merge_mode
    facts = [layer.class_name]
    if layer.backward is not None and mode is not UNKNOWN:
        facts.append(f"merge_mode {mode}")
    if len(blocks) == 1 and not blocks[0].label:
        facts.append(_size(blocks[0].cell))
    facts.append(counted(layer.parameters, "parameter"))
    page.paragraph(f"{layer.name}: {', '.join(facts)}", bold=True)
    for block in blocks:
        page.line()
        _block(page, model, block)
    for name, direction in layer.directions:
        for index, cell in enumerate(direction.cells):
            if isinstance(cell, OpaqueCell):
                page.line()
                page.paragraph(
                    f"{name}.cells.{index} is a {cell.class_name}, no LSTM: its tensors are "
                    "among the others",
                    indent=2,
                )


def _block(page: ReportPage, model: Model, block: ExplainedCell) -> None:
    cell = block.cell
    if block.label:
        page.paragraph(f"{block.label}: {_size(cell)}", indent=2)
        page.line()
    rows = [
        (
            part,
            words.shape(cell.fused_shape(part)),
            words.reason(cell, part),
            number(_count(cell, part)),
        )
        for part in cell.gate_parts
    ]
    if not cell.use_bias:
        rows.append(("bias", "none", "use_bias=False", "0"))
    rows += [
        (part, words.shape(t.shape), words.part_reason(cell, part), number(t.size))
        for part, t in cell.parts.items()
    ]
    each = " each" if block.count > 1 else ""
    rows.append(("", "", f"{words.formula(cell)} =", number(cell.parameters) + each))
    page.table(rows, header=("tensor", "shape", "why", "parameters"), right=(3,))
    page.line()
    _gates(page, model, block)
    options = option_rows(block.layer, block.name, block.direction, cell)
    if options:
        page.line()
    for label, text in options:
        page.paragraph(text, indent=2, label=label, hang=len("recurrent_activation") + 2)


def _size(cell: Cell) -> str:
    return f"{words.size(cell)}, {cell.dtype.name}"


def _count(cell: Cell, part: str) -> int:
    return sum(w.tensors[part].size for w in cell.gates.values() if part in w.tensors)


def _gates(page: ReportPage, model: Model, block: ExplainedCell) -> None:
    cell, order = block.cell, file_order(model, block.cell)
    gates = tuple(gate for gate in GATES if gate in cell.gates)
    parts = [part for part in cell.gate_parts if part in ("kernel", "recurrent_kernel", "bias")]
    is_foreign = order is not None and not order.is_keras
    rows = []
    for gate in gates:
        shown = [words.shape(cell.gates[gate].tensors[part].shape) for part in parts]
        in_file = [_file_place(order, gate, cell)] if order is not None and is_foreign else []
        rows.append((gate, *in_file, _range(gate, cell, gates), *shown, words.MEANING[gate]))
    places = [f"{order.axis} here", "Keras columns"] if order and is_foreign else ["columns"]
    page.table(rows, header=("gate", *places, *parts, "decides"))
    axes = ":, " * (len(cell.fused_shape("kernel")) - 1)
    where = f"kernel[{axes}{_range(gates[1], cell, gates)}] is the {gates[1]} gate's"
    if order is None:
        text = f"this file stores each gate separately; joined as Keras does, {where}"
        page.paragraph(text, indent=2)
    elif is_foreign:
        page.paragraph(f"{order_text(order)}; joined as Keras does, {where}", indent=2)
    else:
        page.paragraph(f"side by side along the last axis: {where}", indent=2)


def _range(gate: Gate, cell: Cell, gates: tuple[Gate, ...]) -> str:
    start, stop = columns(gate, cell.units, gates)
    return f"{start}:{stop}"


def _file_place(order: FileOrder, gate: Gate, cell: Cell) -> str:
    """`4:6`; `1::4` where the gates alternate."""
    place = order.range_of(gate, cell.units)
    if place is None:
        return f"{order.gates.index(gate)}::{len(order.gates)}"
    return f"{place[0]}:{place[1]}"


def _stats(page: ReportPage, report: Inspection) -> None:
    rows, odd = [], []
    for layer, facts in zip(report.chosen, report.layers, strict=True):
        for block, cell in zip(every_block(layer), facts.cells, strict=True):
            for gate, parts in (cell.stats or {}).items():
                for part, stats in parts.items():
                    tensor = f"{gate}_gate.{part}" if gate else part
                    name = ".".join(filter(None, [layer.name, block.label, tensor]))
                    strange = ", ".join(
                        f"{count:,} {_ODD[key]}" for key, count in stats.odd().items() if count
                    )
                    rows.append((name, *_moments(stats), strange))
                    if stats.nan or stats.inf:
                        odd.append(f"{name} holds {strange}; they are kept as they are")
    page.line()
    header = ("weights", "min", "max", "mean", "std", "remarkable")
    page.table(rows, header=header, right=(1, 2, 3, 4))
    for text in odd:
        page.warning(text)


_ODD = {"nan": "NaN", "inf": "Inf", "negative_zero": "-0.0", "denormal": "denormal"}


def _moments(stats: Stats) -> list[str]:
    values = (stats.min, stats.max, stats.mean, stats.std)
    return ["none" if value is None else f"{value:.3g}" for value in values]


def _neighbours(page: ReportPage, layers: Sequence[Neighbour]) -> set[str]:
    """Write the layers other than LSTMs; return the paths of the tensors that they name."""
    weighted = [layer for layer in layers if layer.tensors or layer.missing]
    if weighted:
        page.line()
        page.line("other layers", bold=True)
        for layer in weighted[:_OTHER_ROWS]:
            text = neighbour_text(layer)
            page.paragraph(text, indent=2, label=f"{layer.name}: ", hang=2)
        if len(weighted) > _OTHER_ROWS:
            count = len(weighted) - _OTHER_ROWS
            page.line(f"… and {count:,} more: --json lists them all", indent=2)
    return {path for layer in weighted for paths in layer.paths.values() for path in paths}


def _others(page: ReportPage, model: Model, neighbours: Sequence[Neighbour]) -> None:
    named = _neighbours(page, neighbours)
    items = [(path, tensor) for path, tensor in model.other.items() if path not in named]
    if items:
        page.line()
        page.line("other tensors", bold=True)
        rows = [
            (name, words.shape(tensor.shape), tensor.dtype.name, number(tensor.size))
            for name, tensor in items[:_OTHER_ROWS]
        ]
        page.table(rows, header=("name", "shape", "dtype", "parameters"), right=(3,))
        if len(items) > _OTHER_ROWS:
            page.line(f"… and {len(items) - _OTHER_ROWS:,} more: --json lists them all", indent=2)
    if model.optimizer:
        kept = f"{counted(len(model.optimizer), 'tensor')} that only training needs"
        page.line(f"not counted: {kept}", indent=2)
    if model.assets:
        page.line(f"not counted: {counted(len(model.assets), 'asset file')}", indent=2)


def _unknown(page: ReportPage, layers: tuple[LSTMLayer, ...]) -> None:
    missing: dict[str, list[str]] = {}
    known: dict[tuple[int, ...], list[str]] = {}  # layers of one kind share their options
    for layer in layers:
        shared = tuple(map(id, all_options(layer)))
        names = known.get(shared)
        if names is None:
            names = known[shared] = unknown_options(layer)
        if not _QUIET.issuperset(names):
            missing[layer.name] = names
    if not missing:
        return
    names = list(dict.fromkeys(option for options in missing.values() for option in options))
    first = next((o for o in TELLING if o in names), names[0])
    shown = [o for o in TELLING if o in names] or names[:_UNKNOWN_SHOWN]
    rest = len(names) - len(shown)
    owners = ", ".join(missing) if len(missing) <= 3 else f"{len(missing):,} layers"
    more = f" and {counted(rest, 'other option')}" if rest else ""
    page.line()
    text = f"unknown of {owners}, because the file does not say it: {', '.join(shown)}{more}"
    page.paragraph(text)
    example = f"{next(iter(missing))}.{first}={_EXAMPLES.get(first, 'VALUE')}"
    page.paragraph(
        "to supply it, convert with --config FILE (the text of to_json(), a .keras or a "
        f"whole-model .h5), or one by one with --set {shlex.quote(example)}"
    )


#: Unknown of nearly every file, and worth no words when only these are: whether a mask arrives is
#: up to the model around, and old configs name no policy.
_QUIET = {"masked", "policy"}
#: The most that are named when none of those is among them.
_UNKNOWN_SHOWN = 5
_EXAMPLES = {"activation": "tanh", "recurrent_activation": "sigmoid", "policy": "float32"}
