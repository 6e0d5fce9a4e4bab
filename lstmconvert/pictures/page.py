"""The page: one HTML file that shows every gate, with no server, no network and no clock.

The same input gives the same bytes. Whatever comes from a file is escaped, and the page's policy
lets nothing run and nothing apply but its own script and style, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lstmconvert.checks.compare import option_diffs, paired
from lstmconvert.checks.inspection import (
    TELLING,
    Inspection,
    every_block,
    file_order,
    order_text,
    unknown_options,
)
from lstmconvert.checks.report import BY_SHAPE, OptionDiff
from lstmconvert.checks.words import file_facts
from lstmconvert.checks.words import size as size_of
from lstmconvert.errors import UsageError, counted
from lstmconvert.files import writing
from lstmconvert.model.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model, alone
from lstmconvert.pictures import cards, colours, overtime, why
from lstmconvert.pictures.cards import Scene
from lstmconvert.pictures.overtime import Run
from lstmconvert.pictures.survey import MOST_DOTS, same_shapes, survey
from lstmconvert.pictures.units import units_of
from lstmconvert.pictures.words import escaped, rounded

#: How many cells a page draws; the others are in its table, and `layer=` draws them.
MOST_CELLS = 48
#: All pictures of a page have no more dots than this, some 12 MB: each cell gets its share.
PAGE_DOTS = 4 * MOST_DOTS
#: The table of layers has no more rows than this.
MOST_ROWS = 1000
#: So many unknown options are named, where none of them changes what a layer computes.
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
    sources: Sequence[Loaded], pairs: Sequence[_Pair], feeds: Mapping[str, overtime.Given]
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
    runs: Mapping[tuple[str, int], list[Run]],
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
    sources: Sequence[Loaded], pair: _Pair, feeds: Mapping[str, overtime.Given]
) -> dict[tuple[str, int], list[Run]]:
    feed = feeds.get(pair.layer.name)
    if feed is None:
        return {}
    by_source = [overtime.runs(sources[0].name, pair.layer, feed)]
    if pair.other is not None:
        by_source.append(overtime.runs(sources[1].name, pair.other, feed))
    result: dict[tuple[str, int], list[Run]] = {}
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
                who = f"{escaped(layer.name)}: " if len(shown) > 1 else ""
                yield f'<p class="note quiet">{who}unknown, because the file does not say it: '
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
    who = ("Written by", f"Keras {version}") if version else ("Kind", file_facts(model))
    within = (
        f"<b>{total['total']:,}</b>, of them {total['lstm']:,} in LSTM layers"
        if total["other"]
        else f"<b>{total['total']:,}</b>"
    )
    facts = [(who[0], escaped(who[1])), ("Parameters", within)]
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
    title = f"Why {why.shape_text(cell)}"
    yield cards.opened(scene, "a", title, "whycard")
    yield "</div><div class=why><div class=text>"
    yield from why.paragraphs(layer, cell, is_fed=key[1] == 0)
    yield _file_order(sources[0].model, cell)
    yield f"</div><div class=strips>{why.strips(cell)}</div>"
    yield from why.equations(cell)
    yield "</div></section>"
    yield from cards.gates(scene)
    yield from cards.own_parts(scene)
    yield from cards.spread(scene)
    yield from cards.units(scene)
    yield from cards.over_time(scene)
    yield from cards.difference(scene, [f"A · {sources[0].name}", f"B · {sources[-1].name}"])
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
    parts += [f".u{count}{{--n:{count}}}" for count in range(1, cards.TABLE_UNITS + 1)]
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
