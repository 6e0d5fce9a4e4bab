"""`inspect` for people: which tensor, what shape, why, and which columns are which gate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lstmconvert.checks import values as weights
from lstmconvert.checks import words
from lstmconvert.checks.inspection import (
    TELLING,
    Block,
    FileOrder,
    Inspection,
    blocks_of,
    every_block,
    file_order,
    kind,
    order_text,
    unknown_options,
)
from lstmconvert.checks.page import Page
from lstmconvert.checks.stats import Stats
from lstmconvert.checks.words import file_facts, neighbour_text, option_rows
from lstmconvert.errors import counted, number
from lstmconvert.model.gates import GATES, Gate, columns
from lstmconvert.model.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.model.options import UNKNOWN

#: A model with more cells than this is shown as one table, a row a cell.
_DETAILED = 4
_OTHER_ROWS = 12
#: How many rows are shown of a model with many cells; how many alike rows become one.
_ROWS, _ALIKE = 40, 4


def model(page: Page, report: Inspection, *, digits: int | None = weights.DIGITS) -> None:
    """Write the report of a model, or of one layer of it.

    Args:
        page: where to.
        report: the facts.
        digits: of the weights, as in `lstmconvert.checks.values.show`.
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
        weights.show(page, chosen, gate=report.gate, digits=digits)
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


def _file(page: Page, report: Inspection) -> None:
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


def _overview(page: Page, model: Model, blocks: list[Block]) -> None:
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


def _run(blocks: list[Block], start: int) -> int:
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


def _row(run: list[Block]) -> tuple[str, ...]:
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


def _layer(page: Page, model: Model, layer: LSTMLayer, blocks: list[Block]) -> None:
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


def _block(page: Page, model: Model, block: Block) -> None:
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


def _gates(page: Page, model: Model, block: Block) -> None:
    cell, order = block.cell, file_order(model, block.cell)
    gates = tuple(gate for gate in GATES if gate in cell.gates)
    parts = [part for part in cell.gate_parts if part in ("kernel", "recurrent_kernel", "bias")]
    is_foreign = order is not None and not order.is_keras
    rows = []
    for gate in gates:
        shown = [words.shape(cell.gates[gate].tensors[part].shape) for part in parts]
        here = [_file_place(order, gate, cell)] if order is not None and is_foreign else []
        rows.append((gate, *here, _range(gate, cell, gates), *shown, words.MEANING[gate]))
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


def _stats(page: Page, report: Inspection) -> None:
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


def _neighbours(page: Page, layers: Sequence[Neighbour]) -> set[str]:
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


def _others(page: Page, model: Model, neighbours: Sequence[Neighbour]) -> None:
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


def _unknown(page: Page, layers: tuple[LSTMLayer, ...]) -> None:
    missing = {layer.name: unknown_options(layer) for layer in layers}
    missing = {name: options for name, options in missing.items() if set(options) - _QUIET}
    if not missing:
        return
    names = list(dict.fromkeys(option for options in missing.values() for option in options))
    first = next((o for o in TELLING if o in names), names[0])
    shown = [o for o in TELLING if o in names] or names[:_UNKNOWN_SHOWN]
    rest = len(names) - len(shown)
    who = ", ".join(missing) if len(missing) <= 3 else f"{len(missing):,} layers"
    more = f" and {counted(rest, 'other option')}" if rest else ""
    page.line()
    page.paragraph(f"unknown of {who}, because the file does not say it: {', '.join(shown)}{more}")
    example = f"{next(iter(missing))}.{first}={_EXAMPLES.get(first, 'VALUE')}"
    page.paragraph(
        "to supply it, convert with --config FILE (the text of to_json(), a .keras or a "
        f"whole-model .h5), or one by one with --set {shlex.quote(example)}"
    )


#: Unknown of nearly every file, and worth no words when only these are: whether a mask arrives is
#: up to the model around, and old configs name no policy.
_QUIET = {"masked", "policy"}
#: So many are named when none of those is among them.
_UNKNOWN_SHOWN = 5
_EXAMPLES = {"activation": "tanh", "recurrent_activation": "sigmoid", "policy": "float32"}
