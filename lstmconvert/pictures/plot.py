"""The gates of a cell as a matplotlib figure, for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmconvert.checks import words
from lstmconvert.checks.words import ROWS, is_convolution, row_name
from lstmconvert.errors import MissingPackage, install
from lstmconvert.model.gates import columns
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.pictures import colours, maps
from lstmconvert.pictures.survey import Band, Survey, matrix_dots, survey
from lstmconvert.pictures.words import SYMBOLS, ceiling, minus
from lstmconvert.tensors.dtypes import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Cells that are drawn one by one in a vector file, and cells that have their number in them.
_VECTORS, _NUMBERED = 40_000, 400
#: Rows that have a name each; more are named by their part.
_NAMED = 40
#: Distances between the gates and between the parts, in cells of a small plot.
_GAP = 0.6
#: Dots of a plot: more than print can show.
_DOTS = 400_000


def plot(layer: LSTMLayer | Cell, ax: Axes | None = None) -> Axes:
    """Draw the gates of a cell: side by side, kernel over recurrent kernel over bias.

    >>> import lstmconvert as lc
    >>> ax = lc.plot(lc.load("fixtures/keras-3.15.1/seed95.keras")["lstm"])
    >>> ax.figure.savefig("gates.pdf")

    A column is a unit. The colours run on one scale for all gates, symmetric about 0: to the
    largest weight where there are few, else to the 99th percentile of their sizes. Saved as PDF or
    SVG, text and lines are vectors, and so are the weights, up to some ten thousand; more are one
    picture in it, at their own resolution. A weight is then a dot, or of a layer with more than
    400,000 weights a dot is the weight farthest from 0 of a block.

    Args:
        layer: a layer with one cell, or a cell.
        ax: where to draw; by default a new figure of a fitting size.

    Returns:
        the axes, whose figure is `ax.figure`.

    Raises:
        MissingPackage: matplotlib is not installed.
        UsageError: the layer has several cells: give one, `layer.backward.cells[0]`.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingPackage(
            "matplotlib is not installed", hint=install("plot")
        ) from None
    cell = layer.cell if isinstance(layer, LSTMLayer) else layer
    surveyed = survey(cell, most_dots=_DOTS)
    if ax is None:
        _, ax = plt.subplots(figsize=_size(surveyed), layout="constrained")
    _draw(surveyed, ax)
    return ax


def _size(surveyed: Survey) -> tuple[float, float]:
    """Return a figure's size in inches: cells of a fifth of an inch, up to a page's width."""
    width = surveyed.units * len(surveyed.gates)
    height = sum(band.rows for band in surveyed.bands)
    each = min(0.45, 10 / width)
    return max(5.0, each * width + 1.6), float(np.clip(height * min(each, 0.24) + 1.0, 2.4, 8.0))


def _draw(surveyed: Survey, ax: Axes) -> None:
    from matplotlib.colors import ListedColormap, Normalize

    limit = _limit(surveyed)
    colours_of = ListedColormap(list(colours.scale())).with_extremes(
        bad=colours.NOT_FINITE["light"]
    )
    scale = Normalize(-limit, limit)
    dots = sum(gate.dots.size for gate in surveyed.gates.values())
    gap = _GAP if dots <= _NUMBERED else 0.04 * sum(band.dots for band in surveyed.bands)
    width = -(-surveyed.units // surveyed.block)
    side = _GAP if dots <= _NUMBERED else 0.06 * width
    mesh: Any = None
    for place, (gate, known) in enumerate(surveyed.gates.items()):
        left = place * (width + side)
        for band, top in _tops(surveyed, gap):
            if gate not in band.gates:
                continue
            rows = _rows(surveyed, known.dots, band)
            mesh = ax.pcolormesh(
                left + np.arange(width + 1),
                top + np.arange(band.dots + 1) * _tall(surveyed, band),
                np.ma.masked_invalid(rows),
                cmap=colours_of,
                norm=scale,
                edgecolors="white" if dots <= _NUMBERED else "none",
                linewidth=0.8 if dots <= _NUMBERED else 0,
                rasterized=dots > _VECTORS,
                antialiased=dots <= _NUMBERED,
            )
            if dots <= _NUMBERED:
                _numbers(ax, rows, left, top, limit)
        start, stop = columns(gate, surveyed.units, tuple(surveyed.gates))
        ax.text(
            left + width / 2,
            -0.35 * gap - 0.02 * sum(band.dots for band in surveyed.bands),
            f"{gate} {start}:{stop}" if width <= 2 else f"{gate} ({SYMBOLS[gate]})  {start}:{stop}",
            ha="center",
            va="bottom",
            color=colours.gate(gate),
            fontweight="bold",
            fontsize=9,
        )
    _axes(surveyed, ax, gap, side)
    bar = ax.figure.colorbar(mesh, ax=ax, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    beyond = float(matrix_dots(surveyed).max(initial=0.0)) > limit
    bar.set_ticks([-limit, 0, limit])
    ends = ("≤ ", "≥ ") if beyond else ("", "")
    bar.set_ticklabels([f"{ends[0]}{minus(f'{-limit:g}')}", "0", f"{ends[1]}{limit:g}"])


def _limit(surveyed: Survey) -> float:
    sizes = matrix_dots(surveyed)
    if surveyed.weights <= _NUMBERED:
        return ceiling(surveyed.largest)
    return ceiling(maps.quantile(sizes, maps.SPANS[0]) or surveyed.largest)


def _tops(surveyed: Survey, gap: float) -> list[tuple[Band, float]]:
    result, top = [], 0.0
    for band in surveyed.bands:
        result.append((band, top))
        top += band.dots * _tall(surveyed, band) + gap
    return result


def _tall(surveyed: Survey, band: Band) -> float:
    """How tall a row is: one of biases is no thinner than the eye needs."""
    rows = sum(other.dots for other in surveyed.bands)
    return 1.0 if band.is_matrix else max(1.0, 0.015 * rows)


def _rows(surveyed: Survey, dots: Array, band: Band) -> Array:
    first = sum(other.dots for other in surveyed.bands[: surveyed.bands.index(band)])
    return dots[first : first + band.dots]


def _numbers(ax: Axes, rows: Array, left: float, top: float, limit: float) -> None:
    places, inks = words.decimals(limit, 2), colours.inks()
    for (row, column), value in np.ndenumerate(rows):
        text = minus(words.fixed(float(value), places, 2))
        ink = "#000"
        if np.isfinite(value):
            ink = inks[int(colours.levels(np.array(value), limit))]
        ax.text(
            left + column + 0.5,
            top + row + 0.5,
            text,
            ha="center",
            va="center",
            color=ink,
            fontsize=6.5,
        )


def _axes(surveyed: Survey, ax: Axes, gap: float, side: float) -> None:
    width = -(-surveyed.units // surveyed.block)
    count = len(surveyed.gates)
    tops = _tops(surveyed, gap)
    last, top = tops[-1]
    ax.set_xlim(0, count * width + (count - 1) * side)
    ax.set_ylim(top + last.dots * _tall(surveyed, last), 0)
    for line in ax.spines.values():
        line.set_visible(False)
    ax.tick_params(length=0, labelsize=8)
    rows = sum(band.dots for band in surveyed.bands)
    if rows <= _NAMED and surveyed.block == 1:
        places = [
            (start + row + 0.5, band, row) for band, start in tops for row in range(band.rows)
        ]
        names = [_name(surveyed, band, row) for _, band, row in places]
        ax.set_yticks([at for at, _, _ in places], names)
    else:
        letters = [ROWS[band.part].replace("'", "′") for band, _ in tops]
        middles = [start + band.dots * _tall(surveyed, band) / 2 for band, start in tops]
        ax.set_yticks(middles, letters)
    if surveyed.units <= 16 and surveyed.block == 1:
        units = [
            place * (width + side) + unit + 0.5 for place in range(count) for unit in range(width)
        ]
        ax.set_xticks(units, [str(unit) for _ in range(count) for unit in range(width)])
    else:
        ends = [
            place * (width + side) + at
            for place in range(count)
            for at in (0.04 * width, 0.96 * width)
        ]
        ax.set_xticks(ends, [text for _ in range(count) for text in ("0", str(surveyed.units - 1))])
    ax.set_xlabel("filter" if is_convolution(surveyed.cell) else "unit", fontsize=8)


def _name(surveyed: Survey, band: Band, row: int) -> str:
    return row_name(surveyed.cell, band.part, row).replace("'", "′")
