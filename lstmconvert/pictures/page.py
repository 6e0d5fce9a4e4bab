"""The page: one HTML file that shows every gate, with no server, no network and no clock.

The same input gives the same bytes. Whatever comes from a file is escaped, and the page's policy
lets nothing run and nothing apply but its own script and style, by their hashes.

The page is made of cards: shapes, gates, spread, units, over time, difference. A card is whole
without scripts: pictures, tables and sentences are there. What the script needs beside them goes
along as JSON, in the element with the class `data`.

Why the tensors have their shapes is shown by a strip of the fused tensors, the sum, and the
equations. Kernel, recurrent kernel and bias share the same columns: the gates side by side, a
column for each unit. So the strip stacks them on one set of columns, in the gates' colours, which
mean a gate here and never a value.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lstmconvert.checks import words
from lstmconvert.checks.compare import BY_SHAPE, OptionDiff, option_diffs, paired
from lstmconvert.checks.inspection import (
    TELLING,
    Inspection,
    every_block,
    file_order,
    order_text,
    unknown_options,
)
from lstmconvert.checks.words import (
    MEANING,
    activation_text,
    file_facts,
    formula,
    gate_count,
    is_convolution,
    row_name,
)
from lstmconvert.checks.words import shape as shape_of
from lstmconvert.checks.words import size as size_of
from lstmconvert.errors import LSTMConvertError, UsageError, counted
from lstmconvert.files import writing
from lstmconvert.keras.configs.nodes import input_shape
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import GATES, Gate, columns
from lstmconvert.model.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model, alone
from lstmconvert.model.options import UNKNOWN
from lstmconvert.pictures import colours, maps, overtime
from lstmconvert.pictures.maps import Levels
from lstmconvert.pictures.overtime import Map, SourceRun
from lstmconvert.pictures.survey import (
    BINS,
    MATRICES,
    MOST_DOTS,
    TICKS,
    Band,
    Change,
    Extreme,
    Survey,
    Units,
    histogram,
    matrix_dots,
    rows_of,
    same_shapes,
    survey,
    units_of,
)
from lstmconvert.pictures.words import (
    SYMBOLS,
    UNKNOWN_FUNCTION,
    ceiling,
    escaped,
    exact,
    function,
    minus,
    rounded,
)
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Tensor

# -- why the tensors have their shapes -----------------------------------------------------------


#: Up to this number of columns and rows of a part, every weight is a cell of the strip.
MOST_COLUMNS, MOST_STRIP_ROWS = 48, 24
#: Part -> its name in the strip, in full and for a narrow one, the vector that meets its rows, and
#: its letter in equations.
PARTS = {
    "kernel": ("kernel", "kernel", "x", "K"),
    "recurrent_kernel": ("recurrent", "recur.", "h", "R"),
    "bias": ("bias", "bias", "1", "b"),
    "recurrent_bias": ("second bias", "bias 2", "1", "b′"),
    "peephole": ("peephole", "peeph.", "c", "p"),
    "layer_norm": ("norm scale", "scale", "", "γ"),
    "layer_norm_bias": ("norm shift", "shift", "", "β"),
}
_PLAIN_FUNCTIONS = frozenset({"sigmoid", "tanh"})


def order_of(cell: Cell) -> tuple[Gate, ...]:
    """Return the gates that a cell stores, in Keras's order."""
    return tuple(gate for gate in GATES if gate in cell.gates)


def shape_text(cell: Cell, part: str = "kernel") -> str:
    """`7×8`, the shape of a part of all gates, fused."""
    return words.shape(cell.fused_shape(part))


def paragraphs(layer: LSTMLayer, cell: Cell, *, is_fed: bool) -> Iterator[str]:
    """Yield what the text says, as HTML, a paragraph each.

    Args:
        layer: the layer.
        cell: one of its cells.
        is_fed: whether the layer's input is this cell's, and not the output of a cell below.
    """
    yield f"<p class=lead>{' '.join(_lead(cell))}</p>"
    yield f'<p class="quiet steps">{_steps(layer) if is_fed else _ANY_STEPS}</p>'
    total = f"<b>{cell.parameters:,}</b> parameters"
    yield f"<p class=sum>{formula(cell)} = {total}</p>"


def _lead(cell: Cell) -> Iterator[str]:
    gates, units, outputs = len(cell.gates), cell.units, cell.recurrent_dim
    fused = gates * units
    if is_convolution(cell):
        window = words.shape(cell.fused_shape("kernel")[:-2])
        places = math.prod(cell.fused_shape("kernel")[:-2])
        inner = words.shape(cell.fused_shape("recurrent_kernel")[:-2])
        count = math.prod(cell.fused_shape("recurrent_kernel")[:-2]) * outputs
        yield (
            f"A row for each of <b>{window} positions × {counted(cell.input_dim, 'channel')} = "
            f"{places * cell.input_dim:,}</b>; a column for each of <b>{counted(gates, 'gate')} × "
            f"{counted(units, 'filter')} = {fused:,}</b>. So the kernel is "
            f"<b>{shape_text(cell)}</b>. The recurrent kernel has the same columns, and a row for "
            f"each of {inner} positions × {counted(outputs, 'filter')} fed back = {count:,}"
            + _bias_clause(cell)
        )
    else:
        fed = (
            f"{counted(outputs, 'projected output')} fed back"
            if "projection" in cell.parts
            else f"{counted(outputs, 'unit')} fed back"
        )
        yield (
            f"A row for each of the <b>{counted(cell.input_dim, 'input')}</b>; a column for each "
            f"of <b>{counted(gates, 'gate')} × {counted(units, 'unit')} = {fused:,}</b>. So the "
            f"kernel is <b>{shape_text(cell)}</b>. The recurrent kernel has the same columns, and "
            f"a row for each of the {fed}" + _bias_clause(cell)
        )
    yield from _clauses(cell)


def _bias_clause(cell: Cell) -> str:
    if "bias" not in cell.gate_parts:
        return ". There is no bias."
    if "recurrent_bias" in cell.gate_parts:
        return "; each of the two biases, one row. Both are added."
    return "; the bias, one row."


def _clauses(cell: Cell) -> Iterator[str]:
    """Yield a sentence for each part that a plain LSTM does not have."""
    unit = "filter" if is_convolution(cell) else "unit"
    if cell.options.input_forget:
        yield "The input gate is not stored: it is 1 − the forget gate."
    if "peephole" in cell.gate_parts:
        missing = len(cell.gates) - gate_count(cell, "peephole")
        less = ", the cell gate has none" if missing else ""
        yield (
            f"A peephole is one number for each {unit} and gate, which multiplies the {unit}’s own "
            f"cell state: one more row{less}."
        )
    if "layer_norm" in cell.gate_parts:
        shift = " and a shift β" if "layer_norm_bias" in cell.gate_parts else ""
        yield f"The gates are normalised, with a scale γ{shift} for each column."
    if "projection" in cell.parts:
        shape = words.shape(cell.parts["projection"].shape)
        bias = ", and a bias for each output" if "projection_bias" in cell.parts else ""
        yield (
            f"The projection turns {counted(cell.units, 'unit')} into "
            f"{counted(cell.recurrent_dim, 'output')}: {shape}{bias}."
        )
    if "state_norm" in cell.parts:
        yield f"The cell state is normalised too, with a number for each {unit}."
    stored = [
        name
        for part, name in (("initial_hidden", "output h₀"), ("initial_cell", "cell state c₀"))
        if part in cell.parts
    ]
    if stored:
        yield f"The first {' and '.join(stored)} are stored, and not zero."


_ANY_STEPS = "The time steps appear in no shape: every step uses the same weights."


def _steps(layer: LSTMLayer) -> str:
    try:
        shape = input_shape(layer)
    except LSTMConvertError:
        return _ANY_STEPS
    if len(shape) < 3 or shape[1] is None:
        return _ANY_STEPS
    inner = ", ".join("None" if size is None else str(size) for size in shape[1:])
    return (
        f"The {counted(shape[1], 'time step')} of Input(({inner})) appear in no shape: every step "
        "uses the same weights."
    )


def equations(cell: Cell) -> Iterator[str]:
    """Yield the equations as HTML: a button for each gate, then the two states."""
    known = cell.options
    yield "<div class=eqs>"
    for gate in GATES:
        letter = gate.letter
        yield (
            f'<button type=button class="eq lit {letter}" data-g={letter} aria-pressed=false>'
            f"<span class=math>{_symbol(gate)}<span class=is>=</span>"
            f"<span>{_gate_maths(cell, gate)}</span></span>"
            f"<span class=note>{MEANING[gate]}{_columns(cell, gate)}</span></button>"
        )
    forget, new = _symbol(Gate.FORGET), _symbol(Gate.CELL)
    state = f"{forget} ⊙ {_state('c', 't−1')} + {_symbol(Gate.INPUT)} ⊙ {new}"
    yield _state_line("c", _clipped(state, known.cell_clip))
    last = _state("c", "t")
    if "state_norm" in cell.parts:
        last = f"norm({last})"
    shown = (
        f"{_symbol(Gate.OUTPUT)} ⊙ {function(known.output_activation or known.activation)}({last})"
    )
    if "projection" in cell.parts:
        shown = f"({shown})·<b>P</b>"
        if "projection_bias" in cell.parts:
            shown += " + <b>b</b><sub>P</sub>"
        shown = _clipped(shown, known.projection_clip)
    yield _state_line("h", shown)
    yield from _strip_legend(cell)
    yield "</div>"


def _columns(cell: Cell, gate: Gate) -> str:
    if gate not in cell.gates:
        return ""
    start, stop = columns(gate, cell.units, order_of(cell))
    axes = ":, " * (len(cell.fused_shape("kernel")) - 1)
    name = f"K<sub>{SYMBOLS[gate][0]}</sub>"
    return f" <code>{name} = kernel[{axes}{start}:{stop}]</code>"


def _symbol(gate: Gate) -> str:
    return f'<var class="{gate.letter} sym">{SYMBOLS[gate]}</var>'


def _state(letter: str, step: str) -> str:
    return f"<var>{letter}</var><sub>{step}</sub>"


def _state_line(letter: str, text: str) -> str:
    return (
        f'<p class="eq state"><span class=math><var class=sym>{letter}<sub>t</sub></var>'
        f"<span class=is>=</span><span>{text}</span></span></p>"
    )


def _clipped(text: str, bound: object) -> str:
    if bound is None:
        return text
    limit = UNKNOWN_FUNCTION if bound is UNKNOWN else minus(f"{bound:g}")
    return f"clip({text}, ±{limit})"


def _gate_maths(cell: Cell, gate: Gate) -> str:
    known = cell.options
    if gate not in cell.gates:
        return f"1 − {_symbol(Gate.FORGET)}"
    tag = f"<sub class={gate.letter}>{gate.letter}</sub>"
    times = " ∗ " if is_convolution(cell) else "·"
    has = cell.gates[gate].tensors
    total = f"{_state('x', 't')}{times}<b>K</b>{tag} + {_state('h', 't−1')}{times}<b>R</b>{tag}"
    if "layer_norm" in has:
        total = (
            f"norm({total}; <b>γ</b>{tag}{', <b>β</b>' + tag if 'layer_norm_bias' in has else ''})"
        )
    for part in ("bias", "recurrent_bias"):
        if part in has:
            total += f" + <b>{PARTS[part][3]}</b>{tag}"
    if gate is Gate.FORGET and known.forget_bias != 0.0:
        added = known.forget_bias
        total += " + bias?" if added is UNKNOWN else f" + {minus(f'{added:g}')}"
    if "peephole" in has:
        step = "t" if gate is Gate.OUTPUT else "t−1"
        total += f" + <b>p</b>{tag} ⊙ {_state('c', step)}"
    total = _clipped(total, known.gate_clip)
    name = known.activation if gate is Gate.CELL else known.recurrent_activation
    return f"{function(name)}({total})"


def _strip_legend(cell: Cell) -> Iterator[str]:
    """Yield what the equations' functions are, where they are not the plain ones."""
    known = cell.options
    lines = {
        function(value): activation_text(value)
        for value in (known.recurrent_activation, known.activation, known.output_activation)
        if isinstance(value, Activation) and value.name not in _PLAIN_FUNCTIONS
    }
    notes = [f"{short} is {escaped(full)}." for short, full in lines.items() if short != full]
    if UNKNOWN in (known.activation, known.recurrent_activation):
        notes.append(f"{UNKNOWN_FUNCTION} is a function that this file does not say.")
    if "layer_norm" in cell.gate_parts:
        notes.append(
            "What the norm adds to a variance, and whether it sees the bias, is not stored."
        )
    if is_convolution(cell):
        notes.append("∗ is a convolution.")
    if notes:
        yield f'<p class="quiet fine">{" ".join(notes)}</p>'


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Pixels of a strip: `labels`, the names' width; `grid`, the columns' greatest width."""

    labels: int
    grid: int
    is_wide: bool


_WIDE, _NARROW = _Sizes(112, 384, True), _Sizes(60, 208, False)
_TAB, _NUMBERS, _GAP, _VECTOR, _BRACKET = 36, 18, 10, 17, 20
_MOST_HEIGHT, _LEAST_HEIGHT = 240, 26


@dataclass(frozen=True, slots=True)
class _Block:
    """A part in a strip: `top` and `height` in pixels; `rows` that are drawn as cells, or 0."""

    part: str
    top: float
    height: float
    rows: int


def strips(cell: Cell) -> str:
    """Return the strip as two SVG pictures, one for wide and one for narrow pages."""
    return "".join(_strip(cell, sizes) for sizes in (_WIDE, _NARROW))


#: Pixels that a letter and a × take in a wide font, and the room between a name and its vector.
_LETTER, _TIMES, _AFTER = 7.6, 10.0, 12


def _with_room(cell: Cell, sizes: _Sizes) -> _Sizes:
    """Return sizes in which every name fits: the columns give way, so that all stay in place."""
    texts = []
    for part in cell.gate_parts:
        name, shape = PARTS[part][0 if sizes.is_wide else 1], shape_text(cell, part)
        is_vector = len(cell.fused_shape(part)) == 1
        texts += [f"{name} {shape}" if is_vector and sizes.is_wide else name]
        texts += [] if is_vector else [shape]
    labels = max(sizes.labels, math.ceil(max(map(_pixels, texts))) + _AFTER)
    return _Sizes(labels, sizes.grid - (labels - sizes.labels), sizes.is_wide)


def _pixels(text: str) -> float:
    return sum(_TIMES if letter == "×" else _LETTER for letter in text)


def _strip(cell: Cell, sizes: _Sizes) -> str:
    sizes = _with_room(cell, sizes)
    order = order_of(cell)
    count = len(order) * cell.units
    is_fine = count > MOST_COLUMNS
    step = sizes.grid / count if is_fine else min(46, sizes.grid // count)
    left, width = sizes.labels + _BRACKET, step * count
    has_numbers = not is_fine and step >= 8 + 6 * len(str(count - 1))
    blocks = list(_blocks(cell, _TAB + (_NUMBERS if has_numbers else 6)))
    foot = blocks[-1].top + blocks[-1].height
    height = foot + 62 + (_LEAST_HEIGHT + _GAP if "projection" in cell.parts else 0)
    spoken = ", ".join(_spoken_columns(gate, cell.units, order) for gate in order)
    parts = [
        (
            f'<svg class="strip {"wide" if sizes.is_wide else "narrow"}" role=img '
            f'width={left + width + 1:g} height={height:g} viewBox="0 0 {left + width + 1:g} '
            f'{height:g}" aria-label="The fused tensors side by side in columns: {spoken}">'
        ),
    ]
    for block in blocks:
        parts += _label(cell, block, sizes)
    for place, gate in enumerate(order):
        at = left + place * cell.units * step
        parts += _gate(cell, gate, order, blocks, at, step, has_numbers, is_fine)
    if "projection" in cell.parts:
        parts += _projection(cell, sizes, foot + 62, left, width)
    return "".join([*parts, "</svg>"])


def _spoken_columns(gate: Gate, units: int, order: tuple[Gate, ...]) -> str:
    start, stop = columns(gate, units, order)
    return f"{gate} gate {start} to {stop - 1}" if units > 1 else f"{gate} gate {start}"


def _blocks(cell: Cell, top: float) -> Iterator[_Block]:
    rows = {part: math.prod(cell.fused_shape(part)[:-1]) for part in cell.gate_parts}
    solid = sum(count for count in rows.values() if count > MOST_STRIP_ROWS)
    for part, count in rows.items():
        drawn = 0 if count > MOST_STRIP_ROWS else count
        if len(cell.fused_shape(part)) == 1:
            height: float = _VECTOR
        elif drawn:
            height = count * (17 if count <= 8 else 12 if count <= 14 else 9)
        else:
            height = max(_LEAST_HEIGHT, round(_MOST_HEIGHT * count / solid))
        yield _Block(part, top, height, drawn)
        top += height + _GAP


def _label(cell: Cell, block: _Block, sizes: _Sizes) -> list[str]:
    long, short, vector, _ = PARTS[block.part]
    name, shape = (long if sizes.is_wide else short), shape_text(cell, block.part)
    middle = block.top + block.height / 2
    right = sizes.labels - _AFTER
    if block.height < 2 * _VECTOR:
        texts = [
            f"<text class=t x={right} y={middle + 4:g}>{name} <tspan class=q>{shape}</tspan></text>"
        ]
        if not sizes.is_wide:
            texts = [f"<text class=t x={right} y={middle + 4:g}>{name}</text>"]
    else:
        texts = [
            f"<text class=t x={right} y={middle - 3:g}>{name}</text>",
            f'<text class="t q" x={right} y={middle + 12:g}>{shape}</text>',
        ]
    bracket = f"M{sizes.labels + 14:g} {block.top:g}h-5v{block.height:g}h5"
    return [
        *texts,
        f"<text class=v x={sizes.labels:g} y={middle + 5:g}>{vector}</text>" if vector else "",
        f'<path class=k d="{bracket}"/>' if vector else "",
    ]


def _gate(
    cell: Cell,
    gate: Gate,
    order: tuple[Gate, ...],
    blocks: list[_Block],
    at: float,
    step: float,
    has_numbers: bool,
    is_fine: bool,
) -> list[str]:
    letter, width = gate.letter, step * cell.units
    start, stop = columns(gate, cell.units, order)
    middle = at + width / 2
    title = str(gate) if width >= 46 else SYMBOLS[gate]
    span = f"{start}:{stop}"
    parts = [
        f'<g class="lit {letter}" data-g={letter}>',
        f"<rect class=tab x={at + 0.5:g} y=0 width={width - 1:g} height={_TAB - 6} rx=3 />",
        f"<text class=n x={middle:g} y=13>{title}</text>",
    ]
    if width >= 6 * len(span) + 4:
        parts.append(f'<text class="n r" x={middle:g} y=26>{span}</text>')
    if has_numbers:
        parts += [
            f"<text class=m x={at + (unit + 0.5) * step:g} y={_TAB + 9}>{start + unit}</text>"
            for unit in range(cell.units)
        ]
    lines = ""
    for block in blocks:
        if block.part not in cell.gates[gate].tensors:
            continue
        parts.append(
            f"<rect class=b x={at + 0.5:g} y={block.top:g} width={width - 1:g} "
            f"height={block.height:g} rx=1.5 />"
        )
        if not is_fine:
            lines += "".join(
                f"M{at + unit * step:g} {block.top:g}v{block.height:g}"
                for unit in range(1, cell.units)
            )
        if block.rows > 1:
            each = block.height / block.rows
            lines += "".join(
                f"M{at:g} {block.top + row * each:g}h{width:g}" for row in range(1, block.rows)
            )
    foot = blocks[-1].top + blocks[-1].height
    known = cell.options
    name = function(known.activation if gate is Gate.CELL else known.recurrent_activation)
    return [
        *parts,
        f'<path class=l d="{lines}"/>' if lines else "",
        f'<path class=a d="M{middle:g} {foot + 5:g}v12m-3.5-4l3.5 4l3.5-4"/>',
        f"<text class=m x={middle:g} y={foot + 31:g}>{name}</text>",
        f"<text class=s x={middle:g} y={foot + 51:g}>{SYMBOLS[gate]}</text></g>",
    ]


def _projection(cell: Cell, sizes: _Sizes, top: float, left: float, width: float) -> list[str]:
    shape = words.shape(cell.parts["projection"].shape)
    wide = max(24.0, min(width, width * cell.recurrent_dim / (len(cell.gates) * cell.units)))
    name = "projection" if sizes.is_wide else "proj."
    return [
        f"<text class=t x={sizes.labels - 12} y={top + 10}>{name}</text>",
        f'<text class="t q" x={sizes.labels - 12} y={top + 25}>{shape}</text>',
        f"<rect class=p x={left:g} y={top:g} width={wide:g} height={_LEAST_HEIGHT} rx=1.5 />",
    ]


# -- the cards -----------------------------------------------------------------------------------


#: A cell with no more units and rows than this has its numbers in the cells of a table.
TABLE_UNITS, TABLE_ROWS = 12, 40
#: Significant digits of the largest number of a table.
_DIGITS = 3
#: Band -> the name of its rows in a reading: "input 4 → unit 1". A vector's name is enough.
_ROWS = {"kernel": "input", "recurrent_kernel": "unit"}
_VECTORS = {part: names[0] for part, names in PARTS.items() if part not in _ROWS}
_CELL_PARTS = {
    "projection": "projection",
    "projection_bias": "projection bias",
    "state_norm": "state norm scale",
    "state_norm_bias": "state norm shift",
    "initial_hidden": "first output h₀",
    "initial_cell": "first cell state c₀",
}
_OWN_LETTERS = {"state_norm": "γ", "state_norm_bias": "β", "projection_bias": "b"}
_OWN_LETTERS |= {"initial_hidden": "h₀", "initial_cell": "c₀"}


@dataclass(slots=True)
class Scene:
    """One cell to show.

    Fields: `number`, of the cell on the page; `title`, its name; `survey` and `units`; `other`, the
    name of the other source, where the cell has a counterpart of the same shapes; `names` of the
    two sources; `options` that differ; `mismatch`: why there is no counterpart, or None; `runs`:
    what happens over time, of each source, or why nothing is shown.
    """

    number: int
    title: str
    survey: Survey
    units: Units
    is_paired: bool = False
    options: Sequence[OptionDiff] = ()
    mismatch: str | None = None
    runs: Sequence[SourceRun] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"c{self.number}"

    @property
    def is_table(self) -> bool:
        rows = sum(band.rows for band in self.survey.bands)
        return self.survey.units <= TABLE_UNITS and rows <= TABLE_ROWS

    @property
    def unit(self) -> str:
        return "filter" if is_convolution(self.survey.cell) else "unit"


@dataclass(frozen=True, slots=True)
class Scale:
    """The colours' span: `limits` to choose among, (name, limit, sentence); the first is shown."""

    limits: tuple[tuple[str, float, str], ...]
    levels: Levels

    @property
    def limit(self) -> float:
        return self.limits[0][1]


def opened(scene: Scene, letter: str, title: str, kind: str = "") -> str:
    """Return how a card begins, up to its heading; sections are named by both headings."""
    key = f"{scene.key}{letter}"
    return (
        f'<section class="card {kind}" aria-labelledby="{key} {scene.key}t">'
        f"<div class=top><h3 id={key}>{title}</h3>"
    )


def data(value: Any) -> str:
    """Return a JSON value for the script, with no character that could end its element."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json" class=data>{text}</script>'


# -- Gates ---------------------------------------------------------------------------------------


def scale_of(scene: Scene) -> Scale:
    """Return one scale for all gates, and for both sources."""
    survey = scene.survey
    largest = survey.largest
    sizes = matrix_dots(survey)
    dots = [gate.dots for gate in survey.gates.values()]
    for gate in survey.gates.values():
        if gate.change is not None:
            largest = max(largest, abs(gate.change.farthest.value))
            others = np.abs(gate.change.other).ravel()
            sizes = np.concatenate([sizes, others[np.isfinite(others)]])
            dots.append(gate.change.other)
    everything = ceiling(largest)
    if scene.is_table:
        levels = Levels(maps.HALVES[0], everything, everything)
        return Scale((("all", everything, ""),), levels)
    limits = []
    noun = "weights" if survey.block == 1 else "dots"
    for part, name in zip(maps.SPANS, ("99 %", "99.9 %"), strict=True):
        limit = ceiling(maps.quantile(sizes, part)) if maps.quantile(sizes, part) else everything
        count = int((sizes > limit).sum())
        text = (
            f"{count:,} of {len(sizes):,} {noun} lie beyond, up to {rounded(float(sizes.max()))}."
            if count
            else ""
        )
        limits.append((name, limit, text))
    limits.append(("all", everything, ""))
    return Scale(tuple(limits), maps.levels_for(dots, sizes, limits[0][1]))


def gates(scene: Scene) -> Iterator[str]:
    """Yield the card of the four gates."""
    scale = scale_of(scene)
    survey = scene.survey
    yield opened(scene, "g", "Gates", "gates")
    yield "<p class=quiet>One scale for all, symmetric about 0. "
    if not scene.is_table:
        yield (
            f"A column is a {scene.unit}; rows are "
            f"{'positions and channels' if is_convolution(survey.cell) else 'inputs'}, then what "
            "is fed back, then the bias. "
        )
    if survey.block > 1:
        yield (
            f"Each dot: the weight farthest from 0 of a block of {survey.block} rows × "
            f"{survey.block} {scene.unit}s. Sorting does not move these pictures. "
        )
    yield "<span class=blocks></span></p>"
    if scene.is_paired:
        name = f"{scene.key}s"
        yield "<fieldset class=which><legend class=sr>Which numbers</legend>"
        for index, text in enumerate(("A", "B", "B − A")):
            checked = " checked" if index == 0 else ""
            yield f"<label><input type=radio name={name} value={index}{checked}>{text}</label>"
        yield "</fieldset>"
    yield _legend(scale)
    yield "</div>"
    kind = "tables" if scene.is_table else "maps"
    count = len(survey.gates)
    yield f'<div class="panels {kind}{" few" if survey.units <= 5 else ""} n{count}">'
    for gate in survey.gates:
        yield from _panel(scene, gate, scale)
    yield f"</div>{data(_board(scene, scale))}</section>"


def _legend(scale: Scale) -> str:
    limit = scale.limit
    text = rounded(limit)
    bar = "".join(f"<i class=v{level}></i>" for level in range(colours.LEVELS))
    spoken = f"Colour scale from minus {text}, blue, through 0, grey, to {text}, orange"
    is_clipped = bool(scale.limits[0][2])
    ends = (f"≤ −{text}", f"≥ {text}") if is_clipped else (f"−{text}", text)
    chooser = ""
    if len(scale.limits) > 1:
        options = "".join(
            f"<option value={index}>{name}</option>"
            for index, (name, _, _) in enumerate(scale.limits)
        )
        chooser = (
            f"<p class=beyond><span class=bt>{scale.limits[0][2]}</span> <label>Colours span "
            f"<select>{options}</select></label></p>"
        )
    return (
        f"<div class=legend>{chooser}<div class=scale><div class=bar role=img "
        f'aria-label="{spoken}">{bar}</div><div class=ticks aria-hidden=true><span>{ends[0]}</span>'
        f"<span>0</span><span>{ends[1]}</span></div></div></div>"
    )


def _panel(scene: Scene, gate: Gate, scale: Scale) -> Iterator[str]:
    survey, letter = scene.survey, gate.letter
    start, stop = columns(gate, survey.units, tuple(survey.gates))
    note = f"{scene.key}n{letter}"
    yield (
        f'<div class="panel {letter}"><div class=ph data-g={letter}>'
        f"<button type=button class=pn data-g={letter} aria-pressed=false>"
        f'{_chip(gate)}{gate}</button><span class="quiet tn">{start}:{stop}</span>'
    )
    if scene.is_table:
        yield "</div>"
        yield _table(scene, gate, scale, note)
    else:
        yield (
            f'<button type=button class=ex aria-pressed=false aria-label="Show the {gate} gate '
            'large" title="Show large">⤢</button></div>'
        )
        sizes = ", ".join(_spoken(band, survey) for band in survey.bands if gate in band.gates)
        picture = maps.picture(survey.gates[gate].dots, scale.levels)
        yield _plot(
            picture,
            f"{gate} gate: {sizes}. Arrow keys move, Enter goes to the {scene.unit}.",
            note,
            survey.gates[gate].dots.shape,
        )
    yield f'<p class="quiet big" id={note}>{_largest(scene, survey.gates[gate].largest)}</p></div>'


def _plot(picture: bytes, label: str, note: str, shape: tuple[int, ...]) -> str:
    described = f" aria-describedby={note}" if note else ""
    return (
        f'<div class=plot role=application aria-roledescription="heat map" '
        f'aria-label="{label}"{described}><img alt="" width={shape[1]} height={shape[0]} '
        f'src="data:image/png;base64,{maps.inline(picture)}"></div>'
    )


def _chip(gate: Gate) -> str:
    return f'<b class="chip {gate.letter}">{SYMBOLS[gate]}</b>'


def _spoken(band: Band, survey: Survey) -> str:
    name = band.part.replace("_", " ")
    if not band.is_matrix:
        return f"{name} {survey.units}"
    shape = (*survey.cell.fused_shape(band.part)[:-1], survey.units)
    return f"{name} {' by '.join(map(str, shape))}"


def _largest(scene: Scene, largest: Extreme, what: str = "largest") -> str:
    cell = scene.survey.cell
    size = scene.survey.gates[next(iter(scene.survey.gates))].dots.dtype.itemsize
    if largest.part in MATRICES:
        name = row_name(cell, largest.part, largest.row).partition(" ")[2]
        place = f"{largest.part.partition('_')[0]} {name}"
    else:
        place = _VECTORS[largest.part]
    return f"{what} {exact(largest.value, size)} ({place}, {scene.unit} {largest.unit})"


def _table(scene: Scene, gate: Gate, scale: Scale, note: str) -> str:
    survey = scene.survey
    places = words.decimals(scale.limit, _DIGITS)

    def cells(row: int) -> list[str]:
        return [_number(value, places, scale.limit) for value in survey.gates[gate].dots[row]]

    name = f'aria-label="{gate} gate" aria-describedby={note}'
    return _numbers(scene, name, _band_rows(scene, gate, cells), survey.units)


def _band_rows(
    scene: Scene, gate: Gate, cells: Callable[[int], list[str]]
) -> Iterator[list[tuple[str, list[str]]]]:
    """Yield for each band its rows: how a row begins, and its cells; blank ones for a missing part.

    Args:
        scene: the cell.
        gate: the gate.
        cells: the row of the picture -> its cells.
    """
    top = 0
    for band in scene.survey.bands:
        rows = []
        for row in range(band.rows):
            head = _row_head(scene, band.part, row)
            blank = ["<td class=none>"] * scene.survey.units
            rows.append((head, cells(top + row) if gate in band.gates else blank))
        yield rows
        top += band.rows


def _numbers(
    scene: Scene,
    attributes: str,
    parts: Iterable[list[tuple[str, list[str]]]],
    columns: int,
    corner: str | None = None,
) -> str:
    """Return numbers as a table that the script can move through.

    Args:
        scene: the cell.
        attributes: of the table.
        parts: groups of rows; a row is how it begins, and its cells.
        columns: how many columns it has.
        corner: what the columns are; units by default.
    """
    kind = " conv" if is_convolution(scene.survey.cell) else ""
    heads = "".join(f"<th scope=col>{column}" for column in range(columns))
    body = "".join(
        "<tbody>" + "".join(f"<tr><th scope=row>{head}{''.join(row)}" for head, row in rows)
        for rows in parts
    )
    return (
        f'<div class=wrap><table role=grid class="nums u{columns}{kind}" {attributes}><thead><tr>'
        f"<th scope=col>{corner or scene.unit}{heads}{body}</table></div>"
    )


def _row_head(scene: Scene, part: str, row: int) -> str:
    cell = scene.survey.cell
    letter, _, rest = row_name(cell, part, row).partition(" ")
    if part == "recurrent_bias":
        letter = "b′"
    if is_convolution(cell) and part in MATRICES:
        return f"<var>{letter}</var> {rest}"
    return f"<var>{letter}</var>" + (f"<sub>{rest}</sub>" if rest else "")


def _number(value: float, places: int, limit: float) -> str:
    """Return one number as a table's cell, coloured by its value."""
    number = float(value)
    if not math.isfinite(number):
        return f"<td class=vx>{minus(words.fixed(number, 0, 1))}"
    level = int(colours.levels(np.array(number), limit))
    if number == 0 and math.copysign(1, number) < 0:
        return f'<td class=v{level} title="minus zero, as stored">−0'
    return f"<td class=v{level}>{minus(words.fixed(number, places, _DIGITS))}"


def _board(scene: Scene, scale: Scale) -> dict[str, Any]:
    """Return what the script needs of the gates' numbers."""
    survey = scene.survey
    known = list(survey.gates.values())
    sources = [_map_source(survey, scale, [g.dots for g in known], [g.vectors for g in known])]
    texts = [[_largest(scene, gate.largest) for gate in known]]
    changes = [gate.change for gate in known if gate.change is not None]
    if scene.is_paired:
        others = [change.other for change in changes]
        source = _map_source(survey, scale, others, [change.vectors for change in changes])
        if not survey.is_exact:
            source["png"] = [maps.inline(maps.picture(dots, scale.levels)) for dots in others]
        sources.append(source)
        texts.append([_largest(scene, change.farthest) for change in changes])
        texts.append([_largest(scene, c.largest, "largest difference") for c in changes])
    return {
        "kind": "w",
        "panels": [[gate.letter, f"{gate} gate", SYMBOLS[gate]] for gate in survey.gates],
        "bands": [_band(scene, band) for band in survey.bands],
        "cols": [scene.unit, survey.units, 1],
        "block": survey.block,
        "size": known[0].dots.dtype.itemsize,
        "half": scale.levels.half,
        "reach": scale.levels.reach,
        "off": maps.step_text(scale.levels),
        "limits": [list(limit) for limit in scale.limits],
        "sources": sources,
        "notes": texts,
    }


def _band(scene: Scene, band: Band) -> dict[str, Any]:
    cell = scene.survey.cell
    shape = cell.fused_shape(band.part)
    is_window = is_convolution(cell) and band.is_matrix
    row = "channel" if is_window else _ROWS.get(band.part, "")
    if band.part == "recurrent_kernel" and not is_window and "projection" in cell.parts:
        row = "output"
    follows = band.part == "recurrent_kernel" and "projection" not in cell.parts
    return {
        "name": band.part,
        "letter": PARTS[band.part][2] if band.is_matrix else PARTS[band.part][3],
        "row": row or _VECTORS[band.part],
        "rows": band.rows,
        "dots": band.dots,
        "shape": list(shape[:-1]),
        "has": [gate.letter for gate in band.gates],
        "follow": int(follows),
    }


def _map_source(
    survey: Survey, scale: Scale, dots: Sequence[Array], vectors: Sequence[dict[str, Array]]
) -> dict[str, Any]:
    if survey.is_exact:
        return {"exact": maps.packed(np.concatenate([numbers.ravel() for numbers in dots]))}
    return {
        "beyond": [scale.levels.beyond(numbers) for numbers in dots],
        "vectors": [
            maps.packed(np.concatenate([v.astype("<f4") for v in known.values()]))
            if known and survey.block == 1
            else ""
            for known in vectors
        ],
    }


# -- Parts of the cell that are not its gates' -----------------------------------------------------


def own_parts(scene: Scene) -> Iterator[str]:
    """Yield a card with the cell's own parts: a projection, norms, first states."""
    for number, (part, tensor) in enumerate(scene.survey.cell.parts.items()):
        numbers = _matrix(tensor)
        name = _CELL_PARTS.get(part, part.replace("_", " "))
        yield opened(scene, f"p{number}", name[0].upper() + name[1:], "own")
        follows = tensor.shape[0] == scene.survey.units and part != "initial_hidden"
        yield f"<p class=quiet>{shape_of(tensor.shape)}, on a scale of its own.</p>"
        finite = np.abs(numbers[np.isfinite(numbers)])
        limit = ceiling(float(finite.max(initial=0.0)))
        levels = Levels(maps.HALVES[0], limit, limit)
        yield _legend(Scale((("all", limit, ""),), levels)) + "</div>"
        row, column = ("unit", "output") if len(tensor.shape) > 1 else ("", "unit")
        is_table = numbers.shape[1] <= TABLE_UNITS and len(numbers) <= TABLE_ROWS
        yield "<div class=panels><div class=panel>"
        if is_table:
            places = words.decimals(limit, _DIGITS)
            rows = [
                (
                    f"{row} {index}" if len(tensor.shape) > 1 else _OWN_LETTERS.get(part, "w"),
                    [_number(value, places, limit) for value in line],
                )
                for index, line in enumerate(numbers)
            ]
            yield _numbers(scene, f'aria-label="{name}"', [rows], numbers.shape[1], column)
        else:
            label = f"{name}: {' by '.join(map(str, tensor.shape))}. Arrow keys move."
            yield _plot(maps.picture(numbers, levels), label, "", numbers.shape)
        is_exact = numbers.size <= 16_384
        source: dict[str, Any] = {"beyond": [[]], "vectors": [""]}
        if is_exact:
            source = {"exact": maps.packed(numbers)}
        board = {
            "kind": "w",
            "panels": [["P", name, "P"]],
            "bands": [
                {
                    "name": part,
                    "letter": "",
                    "row": row or name,
                    "rows": len(numbers),
                    "dots": len(numbers),
                    "shape": list(tensor.shape[:-1]),
                    "has": ["P"],
                    "follow": int(follows and len(tensor.shape) > 1),
                }
            ],
            "cols": [column, numbers.shape[1], int(follows and len(tensor.shape) == 1)],
            "block": 1,
            "size": numbers.dtype.itemsize,
            "half": levels.half,
            "reach": levels.reach,
            "off": maps.step_text(levels),
            "limits": [["all", limit, ""]],
            "sources": [source],
            "notes": [],
        }
        yield f"</div></div>{data(board)}</section>"


def _matrix(tensor: Tensor) -> Array:
    numbers = tensor.rows(0, tensor.matrix_shape[0])
    with np.errstate(all="ignore"):
        return numbers if numbers.dtype.itemsize == 8 else numbers.astype(np.float32)


# -- Spread --------------------------------------------------------------------------------------


def spread(scene: Scene) -> Iterator[str]:
    """Yield the card of how the weights of each gate are spread."""
    survey, limit = scene.survey, scale_of(scene).limit
    is_ticks = survey.weights <= TICKS
    yield opened(scene, "d", "Spread", "spread")
    has_radius = any(gate.radius is not None for gate in survey.gates.values())
    yield "<p class=quiet>"
    yield (
        "A tick for each weight: kernel above, recurrent kernel below."
        if is_ticks
        else "Share of weights by value, on the axis of the colours. Filled: kernel. Line: "
        "recurrent kernel."
    )
    if has_radius:
        yield (
            " ρ is the spectral radius of the gate’s recurrent kernel, the size of its largest "
            "eigenvalue; it is no verdict on stability."
        )
    yield f"</p></div><div class='panels n{len(survey.gates)}'>"
    bins = {
        (gate, part): histogram(survey, gate, part, limit)
        for gate in survey.gates
        for part in MATRICES
    }
    shares = {key: counts / max(1, counts.sum()) for key, counts in bins.items()}
    tallest = max(float(share.max()) for share in shares.values()) or 1.0
    for gate, known in survey.gates.items():
        letter = gate.letter
        radius = "" if known.radius is None else f"ρ {rounded(known.radius)}"
        means = [
            (part.partition("_")[0], known.spread[part])
            for part in MATRICES
            if part in known.spread
        ]
        stds = " · ".join(f"{rounded(s.std or 0.0)} {name}" for name, s in means)
        spoken = "; ".join(
            f"{name}: mean {rounded(s.mean or 0.0)}, standard deviation {rounded(s.std or 0.0)}, "
            f"{rounded(s.min or 0.0)} to {rounded(s.max or 0.0)}"
            for name, s in means
        )
        drawing = (
            _ticks(survey, gate, limit)
            if is_ticks
            else _histogram([shares[gate, part] for part in MATRICES], tallest)
        )
        text = rounded(limit)
        yield (
            f'<div class="panel {letter}" data-g={letter}><div class=ph><span class=pn>'
            f"{_chip(gate)}{gate}</span><span class='quiet tn'>{radius}</span></div>"
            f'<svg class=hist role=img aria-label="{gate} gate. {spoken}" viewBox="0 0 410 60" '
            f"preserveAspectRatio=none>{drawing}</svg><div class=ticks aria-hidden=true>"
            f"<span>−{text}</span><span>0</span><span>{text}</span></div>"
            f"<p class='quiet big'>std {stds}</p></div>"
        )
    yield "</div></section>"


def _ticks(survey: Survey, gate: Gate, limit: float) -> str:
    paths = []
    for part, top in zip(MATRICES, (4, 31), strict=True):
        values = rows_of(survey, gate, part).ravel()
        places = sorted(
            {round(float(205 + 204 * v / limit), 1) for v in values[np.isfinite(values)]}
        )
        paths.append("".join(f"M{x:g} {top}v25" for x in places))
    return f'<path class=ax d="M205 0v60M0 30h410"/><path class=tk d="{"".join(paths)}"/>'


def _histogram(shares: Sequence[Array], tallest: float) -> str:
    width = 410 // BINS
    heights = [[round(float(57 * s / tallest), 1) for s in share] for share in shares]
    area = "M0 60" + "".join(f"V{60 - h:g}h{width}" for h in heights[0]) + "V60z"
    line = "M0 60" + "".join(f"V{60 - h:g}h{width}" for h in heights[1]) + "V60"
    axes = "M205 0v60M0 60h410"
    return f'<path class=ax d="{axes}"/><path class=ar d="{area}"/><path class=ln d="{line}"/>'


# -- Units ---------------------------------------------------------------------------------------


def units(scene: Scene) -> Iterator[str]:
    """Yield the card with a row for each unit."""
    facts, survey = scene.units, scene.survey
    runs = [run for run in scene.runs if run.trace is not None][:1]
    run = runs[0] if runs else None
    word = scene.unit
    yield opened(scene, "u", f"{word.title()}s", "units")
    flagged = len(facts.flags)
    flags = (
        f"No {word} is flagged."
        if not flagged
        else f"{flagged:,} of {counted(survey.units, word)} "
        f"{'is' if flagged == 1 else 'are'} flagged."
    )
    moves = "Sorting also reorders the columns of the pictures. " if survey.block == 1 else ""
    yield f"<p class=quiet>{moves}{flags}</p></div><div class=scroll>"
    heads = [
        word,
        "forget bias",
        "half-life, steps",
        *(f"norm {_chip(gate)}<span class=sr>, {gate} gate</span>" for gate in Gate),
        *(["read by others"] if facts.read_by is not None else []),
        *(["half-life over the input"] if run is not None else []),
        "flags",
    ]
    yield "<table class=ut><thead><tr>"
    for index, text in enumerate(heads):
        order = " aria-sort=ascending" if index == 0 else ""
        yield f"<th scope=col{order}><button type=button>{text}</button>"
    yield "<tbody>"
    for unit in range(survey.units):
        cells = [f"<tr><th scope=row>{unit}"]
        cells.append(_fact(facts.forget_bias, unit))
        cells.append(_fact(facts.half_life, unit))
        cells += [_fact(facts.norms.get(gate), unit) for gate in Gate]
        if facts.read_by is not None:
            cells.append(_fact(facts.read_by, unit))
        if run is not None:
            cells.append(_fact(run.half_life, unit))
        odd = [*facts.flags.get(unit, ()), *(run.flags.get(unit, ()) if run is not None else ())]
        cells.append(f"<td>{', '.join(odd)}")
        yield "".join(cells)
    yield "</table></div>"
    yield from _rules(scene)
    yield "</section>"


def _finite(numbers: Array) -> Array:
    finite: Array = numbers[np.isfinite(numbers)]
    return finite


def _fact(numbers: Array | None, unit: int) -> str:
    if numbers is None:
        return "<td>—"
    number = float(numbers[unit])
    return "<td>NaN" if math.isnan(number) else f"<td>{rounded(number)}"


def _rules(scene: Scene) -> Iterator[str]:
    word, convolution = scene.unit, is_convolution(scene.survey.cell)
    yield (
        "<details><summary>What the columns and flags mean</summary><dl class=rules>"
        "<dt>half-life<dd>ln 0.5 / ln σ(b<sub>f</sub>), σ the layer’s own recurrent activation: "
        "after how many steps half of the cell state is left, with no input and no output fed "
        "back. "
        "No bias counts as 0; two biases are added; a peephole is left out."
        f"<dt>norm<dd>√Σw² of the {word}’s column in kernel and recurrent kernel, without the bias."
    )
    if not convolution:
        yield (
            "<dt>read by others<dd>√Σw² of the unit’s row of the recurrent kernel over all gates. "
            "It says nothing about later layers."
        )
    yield (
        "<dt>dead<dd>Every weight of its cell gate is 0, the bias too, and the activation sends 0 "
        "to 0: from a zero state its output is 0 whatever comes in."
        "<dt>stuck open, stuck shut<dd>b ± Σ|w| keeps the gate above 0.99, or below 0.01, for "
        "every input in [−1, 1] and every output fed back in [−1, 1]."
        "<dt>twin of<dd>Kernel and recurrent columns over all gates differ by at most 1 % of the "
        "larger norm, and no bias by more than 0.01; “same bits” if they are equal."
        "<dt>not finite<dd>A weight is NaN or infinite."
    )
    if any(run.trace is not None for run in scene.runs):
        yield (
            "<dt>half-life over the input<dd>ln 0.5 / the mean of ln f<sub>t</sub> over the given "
            "steps.<dt>idle<dd>|h| ≤ 1e−6 at every given step.<dt>open, shut in 99 % of steps<dd>"
            "The gate is above 0.99, or below 0.01, in at least 99 % of the given steps."
        )
    for text in scene.units.left_out:
        name, _, reason = text.partition(": ")
        yield f"<dt>not said<dd>{escaped(name)}{': ' if reason else ''}{escaped(reason)}."
    yield "</dl></details>"


# -- Over time -----------------------------------------------------------------------------------


def over_time(scene: Scene) -> Iterator[str]:
    """Yield the card of what the given input does, for each source, and their difference."""
    if not scene.runs:
        return
    yield opened(scene, "o", "Over time", "time")
    traces = [run for run in scene.runs if run.trace is not None]
    if traces:
        word = scene.unit
        yield (
            f"<p class=quiet>{traces[0].steps_text} A row is a {word}. Gates: blue shut (0), "
            "grey half, orange open (1).</p>"
        )
    yield "</div>"
    for run in scene.runs:
        if len(scene.runs) > 1:
            yield f"<h4>{escaped(run.name)}</h4>"
        if run.trace is None:
            yield f"<p>Not computed: {escaped(run.reason)}</p>"
            continue
        for note in run.notes:
            yield f"<p class=quiet>{escaped(note)}</p>"
        groups: dict[int, list[Map]] = {}
        for item in run.maps:
            groups.setdefault(len(item.numbers), []).append(item)
        for items in groups.values():
            yield from _time_maps(scene, run, items)
    yield "</section>"


def _time_maps(scene: Scene, run: SourceRun, items: Sequence[Map]) -> Iterator[str]:
    """Yield maps that have the same rows: the units, or what a projection makes of them."""
    yield "<div class='panels time'>"
    numbers, panels = [], []
    for item in items:
        numbers.append(item.numbers)
        levels = Levels(maps.HALVES[0], item.reach, item.reach, item.centre)
        letter = item.gate.letter if item.gate is not None else item.symbol
        lit = f' class="panel {letter}" data-g={letter}' if item.gate else " class=panel"
        finite = _finite(item.numbers)
        facts = (
            f"mean {rounded(float(finite.mean()))}, smallest {rounded(float(finite.min()))}, "
            f"largest {rounded(float(finite.max()))}"
            if len(finite)
            else "no finite number"
        )
        label = f"{item.name} over {counted(run.steps, 'step')}: {facts}. Arrow keys move."
        yield (
            f"<div{lit}><div class=ph><span class=pn>{item.name} <var>{item.symbol}</var></span>"
            f'<span class="quiet tn">{item.span}</span></div>'
        )
        yield _plot(maps.picture(item.numbers, levels), label, "", item.numbers.shape)
        yield (
            f"<div class='ticks under' aria-hidden=true><span>0</span><span>step</span>"
            f"<span>{run.steps - 1}</span></div></div>"
        )
        panels.append(
            [letter if item.gate else item.key, item.name, item.symbol, item.centre, item.reach]
        )
    total = sum(array.size for array in numbers)
    source: dict[str, Any] = {"beyond": [[] for _ in numbers], "vectors": [""] * len(numbers)}
    if total <= 16_384:
        source = {"exact": maps.packed(np.concatenate([a.ravel() for a in numbers]))}
    rows = len(items[0].numbers)
    is_units = rows == scene.survey.units
    board = {
        "kind": "t",
        "panels": panels,
        "bands": [
            {
                "name": "",
                "letter": "",
                "row": scene.unit if is_units else "output",
                "rows": rows,
                "dots": rows,
                "shape": [rows],
                "has": [panel[0] for panel in panels],
                "follow": int(is_units),
            }
        ],
        "cols": ["step", run.steps, 0],
        "block": 1,
        "size": 4,
        "half": maps.HALVES[0],
        "reach": 1,
        "off": 1 / maps.HALVES[0] / 2,
        "limits": [["all", 1, ""]],
        "sources": [source],
        "masked": [int(step) for step in np.flatnonzero(run.masked)],
        "notes": [],
    }
    yield f"{data(board)}</div>"


# -- Difference ----------------------------------------------------------------------------------


def difference(scene: Scene, names: Sequence[str]) -> Iterator[str]:
    """Yield the card of what differs from the other source."""
    if not scene.is_paired and scene.mismatch is None and not scene.options:
        return
    yield opened(scene, "f", "Difference", "difference")
    yield "</div>"
    if scene.mismatch is not None:
        yield f"<p>{escaped(scene.mismatch)}</p>"
    changes = {g: k.change for g, k in scene.survey.gates.items() if k.change is not None}
    if changes:
        yield f"<p class=lead>{_summary(scene)}</p>"
    if scene.options:
        yield from _option_rows(scene.options, names)
    count = sum(change.count for change in changes.values())
    if count:
        yield from _change_maps(scene)
    yield "</section>"


def _summary(scene: Scene) -> str:
    changes = [gate.change for gate in scene.survey.gates.values() if gate.change is not None]
    count = sum(change.count for change in changes)
    total = scene.survey.weights
    if not count:
        return f"All {total:,} weights of the gates are equal, bit for bit."
    largest = max((change.largest for change in changes), key=lambda place: abs(place.value))
    distances = [change.ulp for change in changes if change.ulp is not None]
    ulp = f", at most {_ulp(max(distances))} apart" if distances else ""
    verb = "differs" if count == 1 else "differ"
    return (
        f"<b>{count:,} of {total:,}</b> weights {verb}; the largest difference is "
        f"<b>{rounded(abs(largest.value))}</b>{ulp}."
    )


def _ulp(distance: int) -> str:
    """Return a distance in units of the last place; past a million only its size counts."""
    return f"{distance:,} ULP" if distance < 1_000_000 else f"{distance:.1e} ULP".replace("+", "")


def _option_rows(options: Sequence[OptionDiff], names: Sequence[str]) -> Iterator[str]:
    yield "<div class=scroll><table class=opts><thead><tr><th scope=col>option"
    yield "".join(f"<th scope=col>{escaped(name)}" for name in names) + "<tbody>"
    for option in options:
        yield (
            f"<tr><th scope=row>{escaped(option.option.replace('_', ' '))}"
            f"<td>{_option(option, option.a, 'a')}<td>{_option(option, option.b, 'b')}"
        )
    yield "</table></div>"


def _option(option: OptionDiff, value: Any, side: str) -> str:
    if option.unknown_in == side:
        return "<span class=quiet>unknown</span>"
    match value:
        case {"name": str(name), **constants}:
            inner = ", ".join(f"{key}={_short(value)}" for key, value in constants.items())
            return escaped(f"{name}({inner})" if inner else name)
        case {"class_name": str(name)}:
            return escaped(name)
    return escaped(value)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _change_maps(scene: Scene) -> Iterator[str]:
    survey = scene.survey
    changes = [gate.change for gate in survey.gates.values() if gate.change is not None]
    largest = max(abs(change.largest.value) for change in changes)
    limit = ceiling(largest)
    levels = Levels(maps.HALVES[0], limit, limit)
    scale = Scale((("all", limit, ""),), levels)
    yield (
        "<div class=top><p class=quiet>B − A, on a scale of its own. "
        + (
            "= marks weights with the same bits."
            if scene.is_table
            else "A dot marks a difference too small for a colour."
        )
        + f"</p>{_legend(scale)}</div>"
    )
    kind = "tables" if scene.is_table else "maps"
    few = " few" if survey.units <= 5 else ""
    yield f'<div class="panels {kind}{few} n{len(changes)}">'
    for gate, known in survey.gates.items():
        change = known.change
        if change is None:
            continue
        letter, note = gate.letter, f"{scene.key}m{gate.letter}"
        top = f"max {rounded(abs(change.largest.value))}" if change.count else "equal"
        yield (
            f'<div class="panel {letter}" data-g={letter}><div class=ph><span class=pn>'
            f"{_chip(gate)}{gate}</span><span class='quiet tn'>{top}</span></div>"
        )
        if scene.is_table:
            yield _change_table(scene, gate, change, limit)
        else:
            picture = maps.picture(change.dots, levels, change.marks)
            label = f"{gate} gate, differences. Arrow keys move."
            yield _plot(picture, label, note, change.dots.shape)
        ulp = f" · at most {_ulp(change.ulp)} apart" if change.ulp is not None else ""
        verb = "differs" if change.count == 1 else "differ"
        text = f"{counted(change.count, 'weight')} {verb}{ulp}"
        yield f"<p class='quiet big' id={note}>{text}</p></div>"
    board = _board(scene, scale)
    board["notes"] = []
    board["sources"] = (
        []
        if survey.is_exact
        else [
            {
                "beyond": [[] for _ in changes],
                "vectors": [maps.packed(_vectors(survey, change.dots)) for change in changes],
            }
        ]
    )
    board["difference"] = 1
    yield f"</div>{data(board)}"


def _vectors(survey: Survey, dots: Array) -> Array:
    """Return the rows of a map that are not a matrix's, one after the other."""
    top, rows = 0, []
    for band in survey.bands:
        if not band.is_matrix:
            rows.append(dots[top])
        top += band.dots
    return np.concatenate(rows).astype("<f4") if rows else np.zeros(0, "<f4")


def _change_table(scene: Scene, gate: Gate, change: Change, limit: float) -> str:
    survey = scene.survey
    places = words.decimals(limit, _DIGITS)

    def cells(row: int) -> list[str]:
        return [
            _number(value, places, limit) if is_changed else "<td class=same>="
            for value, is_changed in zip(change.dots[row], change.marks[row], strict=True)
        ]

    name = f'aria-label="{gate} gate, differences"'
    return _numbers(scene, name, _band_rows(scene, gate, cells), survey.units)


# -- the page ------------------------------------------------------------------------------------


#: How many cells a page draws; the others are in its table, and `layer=` draws them.
MOST_CELLS = 48
#: All pictures of a page have no more dots than this, some 12 MB: each cell gets its share.
PAGE_DOTS = 4 * MOST_DOTS
#: The table of layers has no more rows than this.
MOST_ROWS = 1000
#: The most unknown options that are named, where none of them changes what a layer computes.
_UNKNOWN_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Page:
    """A page as HTML text. In a notebook it shows itself.

    Fields: `html`, the whole document; `title`.
    """

    html: str
    title: str

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the page to a file, whole or not at all, and return its path.

        Raises:
            DestinationError: the file exists (and no `force`), or cannot be written.
        """
        path = Path(path)
        with writing.replacing(path, force=force) as temporary:
            temporary.write_bytes(self.html.encode("utf-8"))
        return path

    def _repr_html_(self) -> str:
        # A frame separates the page's style, script and policy from the notebook's.
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" title="{html.escape(self.title)}" '
            'width="100%" height="760" style="border:0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self.html.encode('utf-8')):,} bytes)"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model to show that is open already: its name, and the file it was loaded from."""

    model: Model
    name: str
    path: Path | None


def view(
    a: str | Path | Model | LSTMLayer | Loaded,
    b: str | Path | Model | LSTMLayer | Loaded | None = None,
    *,
    layer: str | None = None,
    x: ArrayLike | None = None,
    mask_value: float | None = None,
) -> Page:
    """Make a page to look at: gates, units and, with an input, what happens over time.

    Args:
        a: a file, a model or a layer.
        b: another, whose layers are set against those of `a`: side by side, and as a difference.
        layer: show this layer alone.
        x: an input of that layer, or of the only one: (time, inputs), or a batch of such, of which
            the first is taken. The gates over time are then shown, as the NumPy reference has them.
        mask_value: steps all of whose inputs are this number are skipped, as Keras's `Masking`
            marks them.

    Returns:
        the page: `page.save("page.html")` writes it, and a notebook shows it.

    Raises:
        SourceError: a file cannot be read.
        UnknownLayer: no layer of that name.
        UsageError: `x` without a layer to feed, or of another shape; `mask_value` without `x`.
    """
    sources = [_source(value) for value in (a, b) if value is not None]
    if x is None and mask_value is not None:
        raise UsageError("mask_value marks steps of an input, and there is none", expected="x=")
    fed = None if x is None else _fed(sources[0], layer)
    pairs = _pairs(sources, layer)
    feeds = {}
    if fed is not None:
        feeds[fed.name] = overtime.given(fed, np.asarray(x), mask_value)
    text = "".join(_document(sources, pairs, feeds))
    for source in sources:
        source.model.source.check()
    return Page(text, sources[0].name)


def _source(value: str | Path | Model | LSTMLayer | Loaded) -> Loaded:
    if isinstance(value, Loaded):
        return value
    if isinstance(value, LSTMLayer):
        return Loaded(alone(value), value.name, None)
    if isinstance(value, Model):
        return Loaded(value, "model", None)
    from lstmconvert import api  # which makes pages of models that are there already no slower

    return Loaded(api.load(value), Path(value).resolve().name, Path(value))


def _fed(source: Loaded, name: str | None) -> LSTMLayer:
    """Return the layer that an input is for."""
    if name is not None:
        return source.model[name]
    if len(source.model.layers) == 1:
        return source.model.layers[0]
    names = ", ".join(source.model)
    raise UsageError(
        "an input feeds one layer, and the model has several",
        where=source.name,
        found=names if len(names) < 400 else f"{len(source.model):,} layers",
        hint="name the layer that the input is for: --layer NAME",
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A layer, and its counterpart in the other source, with how it was found."""

    layer: LSTMLayer
    other: LSTMLayer | None = None
    how: str = ""


def _pairs(sources: Sequence[Loaded], name: str | None) -> list[_Pair]:
    first = sources[0].model
    layers = first.layers if name is None else (first[name],)
    if len(sources) == 1:
        return [_Pair(layer) for layer in layers]
    matches, _, _ = paired(first.layers, sources[1].model.layers)
    matched = {first.name: (second, how) for first, second, how in matches}
    return [_Pair(layer, *matched.get(layer.name, (None, ""))) for layer in layers]


def _document(
    sources: Sequence[Loaded], pairs: Sequence[_Pair], feeds: Mapping[str, overtime.InputSequence]
) -> Iterator[str]:
    style, script = _style(), _script()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    title = " and ".join(source.name for source in sources)
    yield (
        '<!doctype html><html lang=en><head><meta charset=utf-8><meta http-equiv="Content-Security-'
        f'Policy" content="{policy}"><meta name=viewport content="width=device-width,'
        'initial-scale=1"><meta name=color-scheme content="light dark"><meta name=referrer '
        f"content=no-referrer><title>{escaped(title)}: gates</title><style>{style}</style></head>"
        "<body><a class=skip href=#c0>To the first layer</a><main>"
    )
    budget = _dots(pairs, len(sources))
    sections: list[str] = []
    rows: list[str] = []
    number = 0
    for pair in pairs:
        runs = _runs(sources, pair, feeds)
        for block in every_block(pair.layer):
            key = (block.name, _index(pair.layer, block.name, block.cell))
            is_drawn = number < MOST_CELLS
            scene = None
            if is_drawn:
                scene = _scene(number, pair, key, block.label, budget, runs)
                sections += _section(scene, pair, key, sources)
            rows.append(_row(number, pair.layer, block.label, block.cell, scene))
            number += 1
    yield from _top(sources, pairs, rows, number)
    yield from sections
    yield (
        "<footer class=quiet>Made by lstmconvert. This page is one file and asks nothing of the "
        "network.</footer></main><div class='sr said' aria-live=polite></div>"
        "<output class=out aria-live=polite hidden></output>"
        f"<script>{script}</script></body></html>\n"
    )


def _index(layer: LSTMLayer, side: str, cell: Cell) -> int:
    return next(i for s, i, c in layer.cells() if s == side and c is cell)


def _dots(pairs: Sequence[_Pair], sources: int) -> int:
    """Return how many dots a cell's pictures may have, so that all of the page fit together."""
    sizes = [
        sum(tensor.size for tensor in cell.gates[gate].tensors.values())
        for pair in pairs
        for _, _, cell in pair.layer.cells()
        for gate in (next(iter(cell.gates)),)
    ]
    sizes = sorted(4 * size for size in sizes[:MOST_CELLS])
    room = PAGE_DOTS // (1 if sources == 1 else 3)
    left = len(sizes)
    for size in sizes:
        if size * left > room:
            return min(MOST_DOTS, max(1, room // left))
        room -= size
        left -= 1
    return MOST_DOTS


def _scene(
    number: int,
    pair: _Pair,
    key: tuple[str, int],
    label: str,
    budget: int,
    runs: Mapping[tuple[str, int], list[SourceRun]],
) -> Scene:
    cell = next(cell for side, index, cell in pair.layer.cells() if (side, index) == key)
    other = None if pair.other is None else _cell(pair.other, key)
    mismatch = None
    if pair.other is not None and (other is None or not same_shapes(cell, other)):
        mismatch = _mismatch(cell, other)
        other = None
    surveyed = survey(cell, other, most_dots=budget)
    options = [] if pair.other is None else _options(pair.layer, pair.other, key)
    title = escaped(pair.layer.name) + (f" · {label.replace('.', ' · ')}" if label else "")
    return Scene(
        number=number,
        title=title,
        survey=surveyed,
        units=units_of(surveyed),
        is_paired=other is not None,
        options=options,
        mismatch=mismatch,
        runs=runs.get(key, []),
    )


def _cell(layer: LSTMLayer, key: tuple[str, int]) -> Cell | None:
    return next((cell for side, index, cell in layer.cells() if (side, index) == key), None)


def _mismatch(cell: Cell, other: Cell | None) -> str:
    if other is None:
        return "The other source has no LSTM cell at this place."
    shapes = [{name: tensor.shape for name, tensor in side.tensors()} for side in (cell, other)]
    names = [
        name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)
    ]
    first = names[0]
    sides = [str(shape.get(first, "none")) for shape in shapes]
    more = f", and {counted(len(names) - 1, 'more tensor')}" if len(names) > 1 else ""
    return (
        f"The shapes differ, so the numbers are not compared: {first} is {sides[0]} in A and "
        f"{sides[1]} in B{more}."
    )


def _options(layer: LSTMLayer, other: LSTMLayer, key: tuple[str, int]) -> list[OptionDiff]:
    """Return the differing options of the layer (with its first cell) and of this cell."""
    places = [(side, index) for side, index, _ in layer.cells()]
    first = places[0]
    differences = option_diffs(layer, other)
    if len(places) == 1:
        return differences
    from lstmconvert.model.naming import prefix

    names = {place: prefix(layer, *place) for place in places}
    return [
        option
        for option in differences
        if option.where == names[key] or (key == first and option.where not in names.values())
    ]


def _runs(
    sources: Sequence[Loaded], pair: _Pair, feeds: Mapping[str, overtime.InputSequence]
) -> dict[tuple[str, int], list[SourceRun]]:
    feed = feeds.get(pair.layer.name)
    if feed is None:
        return {}
    by_source = [overtime.runs(sources[0].name, pair.layer, feed)]
    if pair.other is not None:
        by_source.append(overtime.runs(sources[1].name, pair.other, feed))
    result: dict[tuple[str, int], list[SourceRun]] = {}
    for key in by_source[0]:
        runs = [part[key] for part in by_source if key in part]
        names = ("A", "B")
        if len(by_source) > 1:
            for run, letter in zip(runs, names, strict=False):
                run.name = f"{letter} · {run.name}"
        if len(runs) == 2 and runs[0].trace is not None and runs[1].trace is not None:
            shapes = [[item.numbers.shape for item in run.maps] for run in runs]
            if shapes[0] == shapes[1]:
                runs.append(overtime.difference(runs[0], runs[1], "B − A"))
        result[key] = runs
    return result


def _top(
    sources: Sequence[Loaded], pairs: Sequence[_Pair], rows: Sequence[str], count: int
) -> Iterator[str]:
    if len(sources) == 1:
        yield f"<h1>{escaped(sources[0].name)}</h1>{_facts(sources[0])}"
    else:
        a, b = sources
        yield f"<h1>{escaped(a.name)} and {escaped(b.name)}</h1><div class=sources>"
        for letter, source in zip("AB", sources, strict=True):
            yield f"<div><b>{letter} · {escaped(source.name)}</b>{_facts(source)}</div>"
        yield "</div>"
        yield from _only_one_side(sources, pairs)
    for source in sources:
        for text in (*source.model.notes, *source.model.losses):
            yield f'<p class="note quiet">{escaped(text)}</p>'
    shown = {pair.layer.name for pair in pairs}
    for layer in sources[0].model.layers:
        if layer.name in shown:
            unknown = _unknown(layer)
            if unknown:
                prefix = f"{escaped(layer.name)}: " if len(shown) > 1 else ""
                yield f'<p class="note quiet">{prefix}unknown, because the file does not say it: '
                yield f"{unknown}</p>"
            for side, direction in layer.directions:
                for index, cell in enumerate(direction.cells):
                    if isinstance(cell, OpaqueCell):
                        yield (
                            f'<p class="note quiet">{escaped(layer.name)}.{side}.cells.{index} is '
                            f"a {escaped(cell.class_name)}, no LSTM, and is not shown.</p>"
                        )
    if count > 1:
        yield "<div class=scroll><table class=list><thead><tr><th scope=col>layer<th scope=col "
        yield "class=opt>class<th scope=col>inputs<th scope=col>units<th scope=col>parameters"
        yield "<th scope=col class=opt>largest |w|<th scope=col>flagged<tbody>"
        yield from rows[:MOST_ROWS]
        yield "</table></div>"
    if count > MOST_CELLS:
        yield (
            f"<p>The first {MOST_CELLS} of {count:,} cells are drawn; <code>--layer NAME</code> "
            "draws another layer’s.</p>"
        )
    if count > MOST_ROWS:
        yield f"<p>{count - MOST_ROWS:,} more cells are not listed.</p>"


def _facts(source: Loaded) -> str:
    model = source.model
    total = model.parameters
    version = model.source.keras_version
    writer = ("Written by", f"Keras {version}") if version else ("Kind", file_facts(model))
    within = (
        f"<b>{total['total']:,}</b>, of them {total['lstm']:,} in LSTM layers"
        if total["other"]
        else f"<b>{total['total']:,}</b>"
    )
    facts = [(writer[0], escaped(writer[1])), ("Parameters", within)]
    digest = Inspection(model=model, path=source.path).sha256
    if digest:
        facts.append(("SHA-256", f"<code>{digest}</code>"))
    items = "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in facts)
    return f"<dl class=head>{items}</dl>"


def _only_one_side(sources: Sequence[Loaded], pairs: Sequence[_Pair]) -> Iterator[str]:
    """Yield what the two sources do not both have, and which layers were paired by shape."""
    _, only_a, only_b = paired(sources[0].model.layers, sources[1].model.layers)
    for letter, layers in (("A", only_a), ("B", only_b)):
        if layers:
            names = ", ".join(escaped(layer.name) for layer in layers[:20])
            more = f" and {len(layers) - 20:,} more" if len(layers) > 20 else ""
            yield f'<p class="note quiet">Only in {letter}: {names}{more}.</p>'
    for pair in pairs:
        if pair.other is not None and pair.how == BY_SHAPE:
            yield (
                f'<p class="note quiet">{escaped(pair.layer.name)} is set against '
                f"{escaped(pair.other.name)}: paired by order and shape.</p>"
            )


def _unknown(layer: LSTMLayer) -> str:
    names = unknown_options(layer)
    words = {"masked": "masks", "policy": "dtype policy"}
    first = [name for name in (*TELLING, *words) if name in names] or names[:_UNKNOWN_SHOWN]
    shown = [words.get(name, name.replace("_", " ")) for name in first]
    more = f" and {counted(len(names) - len(shown), 'other')}" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def _row(number: int, layer: LSTMLayer, label: str, cell: Cell, scene: Scene | None) -> str:
    name = escaped(layer.name) + (f" · {label.replace('.', ' · ')}" if label else "")
    linked = f"<a href=#c{number}>{name}</a>" if scene is not None else name
    largest = rounded(scene.survey.largest) if scene is not None else ""
    flagged = f"{len(scene.units.flags):,}" if scene is not None else ""
    return (
        f"<tr><th scope=row>{linked}<td class=opt>{escaped(layer.class_name)}<td>{cell.input_dim:,}"
        f"<td>{cell.units:,}<td>{cell.parameters:,}<td class=opt>{largest}<td>{flagged}"
    )


def _section(
    scene: Scene, pair: _Pair, key: tuple[str, int], sources: Sequence[Loaded]
) -> Iterator[str]:
    cell, layer = scene.survey.cell, pair.layer
    yield f"<section class=cell id={scene.key} aria-labelledby={scene.key}t>"
    yield f"<h2 id={scene.key}t>{scene.title}</h2>"
    flow = size_of(cell).replace(", ", " → ")
    if "projection" in cell.parts:
        flow += f" → {counted(cell.recurrent_dim, 'output')}"
    yield (
        f"<p class=quiet>{escaped(layer.class_name)} · {flow} · {cell.dtype.name} · "
        f"{counted(cell.parameters, 'parameter')}</p>"
    )
    title = f"Why {shape_text(cell)}"
    yield opened(scene, "a", title, "whycard")
    yield "</div><div class=why><div class=text>"
    yield from paragraphs(layer, cell, is_fed=key[1] == 0)
    yield _file_order(sources[0].model, cell)
    yield f"</div><div class=strips>{strips(cell)}</div>"
    yield from equations(cell)
    yield "</div></section>"
    yield from gates(scene)
    yield from own_parts(scene)
    yield from spread(scene)
    yield from units(scene)
    yield from over_time(scene)
    yield from difference(scene, [f"A · {sources[0].name}", f"B · {sources[-1].name}"])
    yield "</section>"


def _file_order(model: Model, cell: Cell) -> str:
    """Say how the file itself joins the gates, where that is not as Keras does."""
    order = file_order(model, cell)
    if order is None:
        text = "This file stores each gate separately"
    elif order.is_keras:
        return ""
    else:
        text = order_text(order)
    return (
        f'<p class="quiet">{escaped(text[0].upper() + text[1:])}; the columns here are those that '
        "Keras would give them.</p>"
    )


@cache
def _style() -> str:
    """Return the style sheet, with the colours of both themes."""
    light, dark = (_variables(theme) for theme in colours.THEMES)
    parts = [f":root{{color-scheme:light dark;{light}}}", _asset("page.css")]
    parts += [f".v{level}{{background:var(--v{level})}}" for level in range(colours.LEVELS)]
    parts += [_inks("light")]
    parts += [f".u{count}{{--n:{count}}}" for count in range(1, TABLE_UNITS + 1)]
    for letter in "ifco":
        parts.append(
            f".cell[data-hl={letter}] .lit:not(.{letter}){{opacity:.4}}"
            f".cell[data-hl={letter}] .panel.{letter}{{outline:2px solid var(--{letter});"
            "outline-offset:7px;border-radius:4px}"
            f".cell[data-hl={letter}] .eq.{letter}{{background:color-mix(in srgb,var(--{letter}) "
            "14%,transparent)}"
        )
    parts.append(f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}{_inks('dark')}}}")
    return "".join(parts)


def _variables(theme: str) -> str:
    named = dict(colours.PAGE[theme])
    named |= {f"v{level}": colour for level, colour in enumerate(colours.scale(theme))}
    named["vx"] = colours.NOT_FINITE[theme]
    return "".join(f"--{name}:{colour};" for name, colour in named.items())


def _inks(theme: str) -> str:
    """Return rules for the ink on each colour of the scale."""
    groups: dict[str, list[str]] = {}
    for level, ink in enumerate(colours.inks(theme)):
        groups.setdefault(ink, []).append(f".v{level}")
    return "".join(f"{','.join(names)}{{color:{ink}}}" for ink, names in groups.items())


@cache
def _script() -> str:
    return _asset("page.js")


def _asset(name: str) -> str:
    """Return a file of this folder without comment lines and the blanks that lines begin with."""
    text = files("lstmconvert.pictures").joinpath(name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    kept = [line for line in lines if line and not line.startswith("//")]
    return ("" if name.endswith(".css") else "\n").join(kept)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
