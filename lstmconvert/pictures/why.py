"""Why the tensors have their shapes: a strip of the fused tensors, the sum, and the equations.

Kernel, recurrent kernel and bias share the same columns: the gates side by side, a column for each
unit. So the strip stacks them on one set of columns, in the gates' colours, which mean a gate here
and never a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lstmconvert.checks import words
from lstmconvert.checks.words import MEANING, activation_text, formula, gate_count, is_convolution
from lstmconvert.errors import LSTMConvertError, counted
from lstmconvert.keras.configs.nodes import input_shape
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import GATES, Gate, columns
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.options import UNKNOWN
from lstmconvert.pictures.words import SYMBOLS, UNKNOWN_FUNCTION, escaped, function, minus

#: Up to this number of columns and rows of a part, every weight is a cell of the strip.
MOST_COLUMNS, MOST_ROWS = 48, 24
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
    yield from _legend(cell)
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


def _legend(cell: Cell) -> Iterator[str]:
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
    spoken = ", ".join(_spoken(gate, cell.units, order) for gate in order)
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


def _spoken(gate: Gate, units: int, order: tuple[Gate, ...]) -> str:
    start, stop = columns(gate, units, order)
    return f"{gate} gate {start} to {stop - 1}" if units > 1 else f"{gate} gate {start}"


def _blocks(cell: Cell, top: float) -> Iterator[_Block]:
    rows = {part: math.prod(cell.fused_shape(part)[:-1]) for part in cell.gate_parts}
    solid = sum(count for count in rows.values() if count > MOST_ROWS)
    for part, count in rows.items():
        drawn = 0 if count > MOST_ROWS else count
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
