"""`inspect --values`: the weights themselves, gate by gate, a column for each unit.

The gates are side by side where they fit the screen, else one below the other. A matrix that is
too large shows its corners, and a line says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lstmconvert.checks import numbertext, words
from lstmconvert.checks.inspection import check_gate, every_block, listed
from lstmconvert.checks.page import Page
from lstmconvert.errors import counted
from lstmconvert.model.gates import GATES, Gate, columns
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Tensor

#: Significant digits of the largest weight, unless the user says how many.
DIGITS = 3
#: A part with more rows than this shows its corners: two thirds of this number are first rows.
_ROWS, _CORNER_ROWS = 40, 9
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
            return numbertext.exact(value, self.itemsize)
        return numbertext.fixed(value, self.places, self.digits)


def show(page: Page, layers: Sequence[LSTMLayer], *, gate: Gate | None, digits: int | None) -> None:
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


def _cell(page: Page, cell: Cell, gate: Gate | None, digits: int | None) -> None:
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
    rows = _cut(count, _ROWS, _CORNER_ROWS)
    pieces = [tensor.rows(0, rows.first), tensor.rows(count - rows.last, count)]
    with np.errstate(invalid="ignore"):  # to widen a signalling NaN is an invalid operation
        numbers = np.concatenate(pieces).astype(np.float64)
    if gate:
        names = [words.row_name(cell, part, row) for row in rows.indices]
    else:
        names = [f"row {row}" if len(tensor.shape) > 1 else "" for row in rows.indices]
    return _Part(gate, part, rows, rows.texts(names), numbers)


def _style(page: Page, parts: Sequence[_Part], digits: int | None, itemsize: int) -> _Style:
    sizes = np.concatenate([np.abs(part.numbers).ravel() for part in parts])
    largest = sizes[np.isfinite(sizes)].max(initial=0.0)
    style = _Style(digits, numbertext.decimals(largest, digits or 1), itemsize)
    texts = [style.text(value) for part in parts for value in part.numbers.flat]
    width = max(_NARROWEST, *map(len, texts))
    margin = max(len("column"), *(len(name) for part in parts for name in part.names))
    fitting = max(3, (page.width() - _INDENT - margin) // (width + _GAP))
    return replace(style, width=width, margin=margin, fitting=fitting)


def _heads(
    page: Page,
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
    page: Page, parts: Sequence[_Part], group: Sequence[str], columns: _Cut, style: _Style
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


def _print(page: Page, name: str, texts: Sequence[str], style: _Style) -> None:
    cells = "".join(" " * _GAP + text.rjust(style.width) for text in texts)
    page.line((name.ljust(style.margin) + cells).rstrip(), indent=_INDENT)
