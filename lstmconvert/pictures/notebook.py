"""What notebooks show of models, layers, cells, gates and reports: small, and without scripts.

A notebook has a style of its own, so everything here carries its few colours with it, and text has
the notebook's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lstmconvert.checks import words
from lstmconvert.checks.inspection import every_block
from lstmconvert.checks.page import WIDTH, Printed
from lstmconvert.checks.words import ROWS, file_facts, size
from lstmconvert.checks.words import shape as shape_of
from lstmconvert.conversion import Result
from lstmconvert.errors import counted
from lstmconvert.model.gates import GATES, columns
from lstmconvert.model.layer import GATE_PARTS, Cell, GateWeights, LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.pictures import colours, maps
from lstmconvert.pictures.maps import Levels
from lstmconvert.pictures.survey import MATRICES, farthest
from lstmconvert.pictures.words import SYMBOLS, ceiling, escaped, minus, rounded
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Tensor

#: A gate with no more columns and rows than this is a table of numbers.
_COLUMNS, _ROWS = 12, 40
#: A gate's picture has no more dots than this, and is this wide: a notebook keeps what it shows.
_DOTS, _PIXELS = 20_000, 220
#: How many layers of a model, and cells of a layer, are shown.
_LAYERS, _CELLS = 40, 4
_QUIET = "color:#808691"  # readable on white and on black: 3.7 and 5.6 to 1
_CELL = "padding:1px 8px;text-align:right;white-space:nowrap"


def gate(weights: GateWeights) -> str:
    """Return a gate as a table of numbers, or as a picture where it is large."""
    sizes = [_limit_of(tensor) for tensor in weights.tensors.values()]
    return f"<div>{_gate(weights, '', max(sizes, default=1.0))}</div>"


def cell(value: Cell) -> str:
    """Return a cell's gates side by side, on one scale."""
    return _titled(size(value), _gates(value))


def layer(value: LSTMLayer) -> str:
    """Return a layer's cells, the first few of them."""
    blocks = list(every_block(value))
    parts = []
    for block in blocks[:_CELLS]:
        name = f"<b>{escaped(block.label)}</b> · " if block.label else ""
        parts.append(f"<div>{name}{_quiet(size(block.cell))}{_gates(block.cell)}</div>")
    if len(blocks) > _CELLS:
        parts.append(_quiet(f"and {counted(len(blocks) - _CELLS, 'more cell')}"))
    facts = f"{escaped(value.class_name)} · {counted(value.parameters, 'parameter')}"
    return f"<div><b>{escaped(value.name)}</b> · {_quiet(facts)}{''.join(parts)}</div>"


def model(value: Model) -> str:
    """Return a model's layers as a table."""
    rows = []
    for item in value.layers[:_LAYERS]:
        for block in every_block(item):
            name = f"{item.name} · {block.label}" if block.label else item.name
            kernel = shape_of(block.cell.fused_shape("kernel"))
            facts = [item.class_name, f"{block.cell.input_dim:,}", f"{block.cell.units:,}"]
            rows.append([name, *facts, kernel, f"{block.cell.parameters:,}"])
    header = ("layer", "class", "inputs", "units", "kernel", "parameters")
    total = value.parameters
    facts = [file_facts(value), counted(total["total"], "parameter")]
    if total["other"]:
        facts.append(f"{total['lstm']:,} of them in LSTM layers")
    more = len(value.layers) - _LAYERS
    rest = _quiet(f"and {counted(more, 'more layer')}") if more > 0 else ""
    return (
        f"<div>{_quiet(escaped(' · '.join(facts)))}{_table(rows, header, (2, 3, 4, 5))}{rest}</div>"
    )


def report(value: Printed) -> str:
    """Return a report as the headings, sentences and tables that the command line prints."""
    page = Html()
    value.show(page)
    return str(page)


def result(value: Result) -> str:
    """Return what a conversion wrote."""
    page = Html()
    for text in value.warnings:
        page.warning(text)
    page.line(value.summary)
    return str(page)


class Html:
    """A page (see `lstmconvert.checks.page`) of HTML."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def __str__(self) -> str:
        return f"<div>{''.join(self._parts)}</div>"

    def line(self, text: str = "", *, bold: bool = False, indent: int = 0) -> None:
        # Numbers in columns are lines with blanks between them.
        kind = "font-weight:600;" if bold else ""
        self._parts.append(
            f'<div style="{kind}white-space:pre;font-family:monospace">{" " * indent}'
            f"{escaped(text)}</div>"
            if "  " in text
            else f'<div style="{kind}margin-left:{indent / 2:g}em">{escaped(text)}&nbsp;</div>'
        )

    def paragraph(
        self, text: str, *, indent: int = 0, label: str = "", hang: int = 0, bold: bool = False
    ) -> None:
        del hang
        kind = "font-weight:600;" if bold else ""
        head = f"<b>{escaped(label.strip())}</b> " if label.strip() else ""
        margin = f"margin-left:{indent / 2:g}em"
        self._parts.append(f'<div style="{kind}{margin}">{head}{escaped(text)}</div>')

    def table(
        self,
        rows: Sequence[Sequence[str]],
        *,
        header: Sequence[str] = (),
        right: Sequence[int] = (),
        indent: int = 2,
    ) -> None:
        del indent
        self._parts.append(_table(rows, header, right))

    def note(self, text: str) -> None:
        self._parts.append(_quiet(escaped(text)))

    def warning(self, text: str) -> None:
        self._parts.append(f"<div><b>Warning:</b> {escaped(text)}</div>")

    def hint(self, text: str) -> None:
        self._parts.append(_quiet(escaped(text)))

    def width(self) -> int:
        return WIDTH


def _titled(title: str, inner: str) -> str:
    return f"<div>{_quiet(title)}{inner}</div>"


def _quiet(text: str) -> str:
    return f'<span style="{_QUIET}">{text}</span>'


def _table(
    rows: Sequence[Sequence[str]], header: Sequence[str] = (), right: Sequence[int] = ()
) -> str:
    def line(texts: Sequence[str], tag: str) -> str:
        cells = "".join(
            f'<{tag} style="{_CELL if at in right else _CELL.replace("right", "left")}">'
            f"{escaped(text)}</{tag}>"
            for at, text in enumerate(texts)
        )
        return f"<tr>{cells}</tr>"

    head = f"<thead>{line(header, 'th')}</thead>" if header else ""
    return f"<table>{head}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def _gates(value: Cell) -> str:
    order = [name for name in GATES if name in value.gates]
    tensors = [t for name in order for t in value.gates[name].tensors.values()]
    limit = max(map(_limit_of, tensors))
    parts = []
    for name in order:
        start, stop = columns(name, value.units, tuple(order))
        parts.append(_gate(value.gates[name], f"{start}:{stop}", limit))
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px 24px">{"".join(parts)}</div>'


def _gate(weights: GateWeights, place: str, limit: float) -> str:
    name = weights.gate
    chip = (
        f'<b style="background:{colours.gate(name)};color:#fff;border-radius:3px;padding:0 .4em;'
        f'font-style:italic">{SYMBOLS[name]}</b>'
    )
    shapes = ", ".join(f"{part} {shape_of(t.shape)}" for part, t in weights.tensors.items())
    inner = _numbers(weights, limit)
    if not inner:
        inner, limit = _picture(weights, limit)
    return (
        f"<div>{chip} <b>{name}</b> {_quiet(place)}{inner}"
        f'<div style="{_QUIET};font-size:85%;max-width:{_PIXELS}px">{escaped(shapes)}; '
        f"colours ±{rounded(limit)}</div></div>"
    )


def _limit_of(tensor: Tensor) -> float:
    """Return the largest finite size of a tensor's numbers, rounded up."""
    largest = 0.0
    for block in tensor.blocks():
        with np.errstate(all="ignore"):
            sizes = np.abs(block.astype(np.float64))
            largest = max(largest, float(sizes[np.isfinite(sizes)].max(initial=0.0)))
    return ceiling(largest)


def _parts(weights: GateWeights) -> list[tuple[str, Tensor]]:
    return [(part, weights.tensors[part]) for part in GATE_PARTS if part in weights.tensors]


def _numbers(weights: GateWeights, limit: float) -> str:
    """Return a small gate as a table of coloured numbers; a large one as nothing."""
    parts = _parts(weights)
    units = parts[0][1].shape[-1]
    if units > _COLUMNS or sum(tensor.matrix_shape[0] for _, tensor in parts) > _ROWS:
        return ""
    places = words.decimals(limit, 3)
    scale, inks = colours.scale(), colours.inks()
    lines = []
    for part, tensor in parts:
        for row, numbers in enumerate(_wide(tensor)):
            index = f"<sub>{row}</sub>" if part in MATRICES else ""
            cells = "".join(_number(v, places, limit, scale, inks) for v in map(float, numbers))
            lines.append(f'<tr><th style="{_CELL}"><i>{ROWS[part]}</i>{index}</th>{cells}</tr>')
    heads = "".join(f'<th style="{_CELL}">{unit}</th>' for unit in range(units))
    return f'<table><tr><th style="{_CELL}">unit</th>{heads}</tr>{"".join(lines)}</table>'


def _number(
    value: float, places: int, limit: float, scale: tuple[str, ...], inks: tuple[str, ...]
) -> str:
    text = minus(words.fixed(value, places, 3))
    if not np.isfinite(value):
        back, ink = colours.NOT_FINITE["light"], "#000"
    else:
        level = int(colours.levels(np.array(value), limit))
        back, ink = scale[level], inks[level]
    return f'<td style="{_CELL};background:{back};color:{ink}">{text}</td>'


def _wide(tensor: Tensor) -> Array:
    with np.errstate(all="ignore"):  # to widen a signalling NaN is an invalid operation
        return tensor.rows(0, tensor.matrix_shape[0]).astype(np.float64)


def _picture(weights: GateWeights, limit: float) -> tuple[str, float]:
    """Return a large gate as a picture, and the number at the last colour."""
    parts = _parts(weights)
    units = parts[0][1].shape[-1]
    rows = sum(tensor.matrix_shape[0] for _, tensor in parts)
    block = 1
    while -(-rows // block) * -(-units // block) > _DOTS:
        block += 1
    lines = []
    for _, tensor in parts:
        count, width = tensor.matrix_shape
        # Whole blocks of rows at a time, so that a large gate takes a few megabytes.
        step = block * max(1, 250_000 // (width * block))
        for start in range(0, count, step):
            with np.errstate(all="ignore"):
                piece = tensor.rows(start, min(start + step, count)).astype(np.float32)
            lines.append(farthest(piece, block))
    dots = np.concatenate(lines)
    sizes = np.abs(dots[np.isfinite(dots)])
    limit = min(limit, ceiling(maps.quantile(sizes, maps.SPANS[0])))
    image = maps.picture(dots, Levels(maps.HALVES[0], limit, limit))
    width = min(_PIXELS, 14 * dots.shape[1])
    height = min(3 * _PIXELS, max(8, round(width * dots.shape[0] / dots.shape[1])))
    each = f"; a dot is the weight farthest from 0 of {block}×{block}" if block > 1 else ""
    label = f"{weights.gate} gate: kernel above, recurrent kernel, bias below{each}"
    return (
        f'<div><img src="data:image/png;base64,{maps.inline(image)}" width={width} '
        f'height={height} alt="{label}" title="{label}" '
        'style="image-rendering:pixelated;display:block;margin:3px 0"></div>'
    ), limit
