"""`inspect` for people: which tensor, what shape, why, and which columns are which gate."""

from __future__ import annotations

import shlex
from pathlib import Path

from lstmconvert.cli import kinds, optiontext, output, overview, shapes
from lstmconvert.cli.blocks import Block, blocks_of, every_block
from lstmconvert.cli.shapes import counted, number
from lstmconvert.describe import is_per_gate, unknown_options
from lstmconvert.gates import GATES, columns
from lstmconvert.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model import Model
from lstmconvert.options import UNKNOWN
from lstmconvert.stats import Stats, cell_stats

#: A model with more cells than this is shown as one table, a row a cell.
_DETAILED = 4
_OTHER_ROWS = 12


def model(model: Model, path: Path, *, layer: str | None, stats: bool) -> None:
    """Print the report of a model, or of one layer of it."""
    layers = model.layers if layer is None else (model[layer],)
    _file(model, path)
    blocks = [block for item in layers for block in blocks_of(item)]
    if layer is None and len(blocks) > _DETAILED:
        overview.show(blocks)
    else:
        for item in layers:
            _layer(model, item, [block for block in blocks if block.layer is item])
    if stats:
        _stats(layers)
    if layer is None:
        _others(model)
    _unknown(layers)
    if layer is None and len(blocks) > _DETAILED:
        output.hint(f"lstmconvert inspect {shlex.quote(str(path))} --layer NAME explains one layer")
    for text in model.notes:
        output.note(text)
    for text in model.losses:
        output.note(f"an earlier conversion lost: {text}")


def _file(model: Model, path: Path) -> None:
    output.line(path.name or str(path), bold=True)
    output.paragraph(kinds.facts(model))
    total, layers = model.parameters, counted(len(model.layers), "LSTM layer")
    parameters = counted(total["total"], "parameter")
    if model.other:
        others = counted(len(model.other), "other tensor")
        output.paragraph(
            f"{parameters}: {number(total['lstm'])} in {layers}, "
            f"{number(total['other'])} in {others}"
        )
    else:
        output.paragraph(f"{parameters}, all in {layers}")


def _layer(model: Model, layer: LSTMLayer, blocks: list[Block]) -> None:
    output.line()
    mode = layer.options.merge_mode
    facts = [layer.class_name]
    if layer.backward is not None and mode is not UNKNOWN:
        facts.append(f"merge_mode {mode}")
    if len(blocks) == 1 and not blocks[0].label:
        facts.append(_size(blocks[0].cell))
    facts.append(counted(layer.parameters, "parameter"))
    output.paragraph(f"{layer.name}: {', '.join(facts)}", bold=True)
    for block in blocks:
        output.line()
        _block(model, block)
    for name, direction in layer.directions:
        for index, cell in enumerate(direction.cells):
            if isinstance(cell, OpaqueCell):
                output.line()
                output.paragraph(
                    f"{name}.cells.{index} is a {cell.class_name}, no LSTM: its tensors are "
                    "among the others",
                    indent=2,
                )


def _block(model: Model, block: Block) -> None:
    cell = block.cell
    if block.label:
        output.paragraph(f"{block.label}: {_size(cell)}", indent=2)
        output.line()
    rows = [
        (
            part,
            shapes.shape(cell.fused_shape(part)),
            shapes.reason(cell, part),
            number(_count(cell, part)),
        )
        for part in cell.gate_parts
    ]
    if not cell.use_bias:
        rows.append(("bias", "none", "use_bias=False", "0"))
    rows += [
        (part, shapes.shape(t.shape), shapes.part_reason(cell, part), number(t.size))
        for part, t in cell.parts.items()
    ]
    each = " each" if block.count > 1 else ""
    rows.append(("", "", f"{shapes.formula(cell)} =", number(cell.parameters) + each))
    output.table(rows, header=("tensor", "shape", "why", "parameters"), right=(3,))
    output.line()
    _gates(model, block)
    options = optiontext.rows(block.layer, block.name, block.direction, cell)
    if options:
        output.line()
    for label, text in options:
        output.paragraph(text, indent=2, label=label, hang=len("recurrent_activation") + 2)


def _size(cell: Cell) -> str:
    return f"{shapes.size(cell)}, {cell.dtype.name}"


def _count(cell: Cell, part: str) -> int:
    return sum(w.tensors[part].size for w in cell.gates.values() if part in w.tensors)


def _gates(model: Model, block: Block) -> None:
    cell = block.cell
    order = tuple(gate for gate in GATES if gate in cell.gates)
    parts = [part for part in cell.gate_parts if part in ("kernel", "recurrent_kernel", "bias")]
    rows = []
    for gate in order:
        start, stop = columns(gate, cell.units, order)
        found = [shapes.shape(cell.gates[gate].tensors[part].shape) for part in parts]
        rows.append((gate, f"{start}:{stop}", *found, shapes.MEANING[gate]))
    output.table(rows, header=("gate", "columns", *parts, "decides"))
    start, stop = columns(order[1], cell.units, order)
    axes = ":, " * (len(cell.fused_shape("kernel")) - 1)
    where = f"kernel[{axes}{start}:{stop}] is the {order[1]} gate's"
    if is_per_gate(model) or (cell.places and "kernel" not in cell.places):
        where = f"this file keeps each gate apart; joined as Keras does, {where}"
    else:
        where = f"side by side along the last axis: {where}"
    output.paragraph(where, indent=2)


def _stats(layers: tuple[LSTMLayer, ...]) -> None:
    rows, odd = [], []
    for layer in layers:
        for block in every_block(layer):
            for gate, parts in cell_stats(block.cell).items():
                for part, stats in parts.items():
                    tensor = f"{gate}_gate.{part}" if gate else part
                    name = ".".join(filter(None, [layer.name, block.label, tensor]))
                    strange = ", ".join(
                        f"{count:,} {_ODD[key]}" for key, count in stats.odd().items() if count
                    )
                    rows.append((name, *_moments(stats), strange))
                    if stats.nan or stats.inf:
                        odd.append(f"{name} holds {strange}; they are kept as they are")
    output.line()
    output.table(rows, header=("weights", "min", "max", "mean", "std", ""), right=(1, 2, 3, 4))
    for text in odd:
        output.warning(text)


_ODD = {"nan": "NaN", "inf": "Inf", "negative_zero": "-0.0", "denormal": "denormal"}


def _moments(stats: Stats) -> list[str]:
    values = (stats.min, stats.max, stats.mean, stats.std)
    return ["none" if value is None else f"{value:.3g}" for value in values]


def _others(model: Model) -> None:
    if model.other:
        output.line()
        output.line("other tensors", bold=True)
        items = list(model.other.items())
        rows = [
            (name, shapes.shape(tensor.shape), tensor.dtype.name, number(tensor.size))
            for name, tensor in items[:_OTHER_ROWS]
        ]
        output.table(rows, header=("name", "shape", "dtype", "parameters"), right=(3,))
        if len(items) > _OTHER_ROWS:
            output.line(f"… and {len(items) - _OTHER_ROWS:,} more: --json lists them all", indent=2)
    if model.optimizer:
        kept = f"{counted(len(model.optimizer), 'tensor')} that only training needs"
        output.line(f"not counted: {kept}", indent=2)
    if model.assets:
        output.line(f"not counted: {counted(len(model.assets), 'asset file')}", indent=2)


def _unknown(layers: tuple[LSTMLayer, ...]) -> None:
    missing = {layer.name: unknown_options(layer) for layer in layers}
    missing = {name: options for name, options in missing.items() if set(options) - _QUIET}
    if not missing:
        return
    names = list(dict.fromkeys(option for options in missing.values() for option in options))
    first = next((o for o in _TELLING if o in names), names[0])
    shown = [o for o in _TELLING if o in names] or names[:_UNKNOWN_SHOWN]
    rest = len(names) - len(shown)
    who = ", ".join(missing) if len(missing) <= 3 else f"{len(missing):,} layers"
    more = f" and {counted(rest, 'other option')}" if rest else ""
    output.line()
    output.paragraph(
        f"unknown of {who}, because the file does not say it: {', '.join(shown)}{more}"
    )
    example = f"{next(iter(missing))}.{first}={_EXAMPLES.get(first, 'VALUE')}"
    output.paragraph(
        "to supply it, convert with --config FILE (the text of to_json(), a .keras or a "
        f"whole-model .h5), or one by one with --set {shlex.quote(example)}"
    )


#: Unknown of nearly every file, and worth no words when only these are: whether a mask arrives is
#: up to the model around, and old configs name no policy.
_QUIET = {"masked", "policy"}
#: The options that change what a layer computes.
_TELLING = (
    "activation",
    "recurrent_activation",
    "merge_mode",
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
)
#: So many are named when none of those is among them.
_UNKNOWN_SHOWN = 5
_EXAMPLES = {"activation": "tanh", "recurrent_activation": "sigmoid", "policy": "float32"}
