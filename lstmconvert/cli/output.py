"""The one sink of the command line: data to stdout, talk to stderr, nothing else prints.

Names come from files, so every text is made printable here: no control character of a file reaches
a terminal. What a stream cannot encode is spelled in ASCII.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

import click

from lstmconvert.errors import printable

#: The columns of a pipe's prose, and of a terminal that does not tell.
WIDTH = 80
#: No word that is shorter is broken by a narrow terminal.
_LEAST = 8
_ASCII = {"×": "x", "·": "*", "→": "->", "…": "...", "≠": "!="}


def line(text: str = "", *, bold: bool = False, indent: int = 0) -> None:
    """Print one line of data."""
    _write(sys.stdout, " " * indent + printable(text), {"bold": True} if bold else {})


def paragraph(
    text: str, *, indent: int = 0, label: str = "", hang: int = 0, bold: bool = False
) -> None:
    """Print a sentence or two of data, wrapped to the terminal (80 columns in a pipe).

    Args:
        text: the sentence.
        indent: blanks before each line.
        label: stands before the first line.
        hang: blanks before the text, in place of the label, on each further line.
        bold: for headings.
    """
    margin = " " * indent
    lines = textwrap.wrap(
        printable(text),
        max(_width(sys.stdout) or WIDTH, 20 + indent + hang),
        initial_indent=margin + label.ljust(hang),
        subsequent_indent=margin + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for wrapped in lines:
        _write(sys.stdout, wrapped, {"bold": True} if bold else {})


def as_json(value: Any) -> None:
    """Print one JSON value as data: the same bytes for the same value, ASCII only."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def note(text: str) -> None:
    """Say something that the user did not ask for."""
    _write(sys.stderr, f"note: {printable(text)}", {})


def done(text: str) -> None:
    """Say what was done."""
    _write(sys.stderr, printable(text), {})


def warning(text: str) -> None:
    """Warn."""
    _write(sys.stderr, f"warning: {printable(text)}", {"fg": "yellow"})


def error(text: str) -> None:
    """Say in one line what went wrong."""
    _write(sys.stderr, f"lstmconvert: error: {printable(text)}", {"fg": "red"})


def hint(text: str) -> None:
    """Say in one line what to do next."""
    _write(sys.stderr, f"hint: {printable(text)}", {})


def table(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str] = (),
    right: Sequence[int] = (),
    indent: int = 2,
) -> None:
    """Print rows as aligned columns: wrapped to fit a terminal, at natural width in a pipe.

    Columns are wrapped between words. Only words longer than `_LEAST` are broken, where they must.

    Args:
        rows: the cells.
        header: the columns' names; none by default.
        right: the indices of right-aligned columns.
        indent: blanks before each line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(text: str) -> Text:
        return Text(_encodable(printable(text), sys.stdout))

    width = _width(sys.stdout)
    drawn = Table(box=None, show_header=bool(header), pad_edge=False, header_style="dim")
    drawn.padding = (0, 2, 0, 0)
    for index, size in enumerate(_column_widths(rows, header, width and width - indent)):
        drawn.add_column(
            cell(header[index]) if header else "",
            justify="right" if index in right else "left",
            width=size,
            overflow="fold",
        )
    for row in rows:
        drawn.add_row(*map(cell, row))
    console = Console(
        file=io.StringIO(),
        width=100_000,  # the columns have widths of their own
        force_terminal=_coloured(sys.stdout),
        color_system="standard" if _coloured(sys.stdout) else None,
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(drawn)
    for text in capture.get().splitlines():
        click.echo((" " * indent + text).rstrip(), color=_coloured(sys.stdout))


def _column_widths(
    rows: Sequence[Sequence[str]], header: Sequence[str], room: int | None
) -> list[int]:
    """Return how wide each column is: as its longest text, and where that is too much for the
    room, the widest give way, down to their longest words, and then the longest words. In a pipe
    nothing is wrapped, so that a name stays in one piece for grep."""
    from rich.cells import cell_len

    listed = [*rows, header] if header else rows
    columns = [[printable(t) for t in texts] for texts in zip(*listed, strict=True)]
    widths = [max(map(cell_len, texts)) for texts in columns]
    words = [max(cell_len(word) for text in texts for word in text.split(" ")) for texts in columns]
    while room is not None and sum(widths) + 2 * (len(widths) - 1) > room:
        slack = [index for index, size in enumerate(widths) if size > words[index]]
        widest = max(slack or range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= (0 if slack else _LEAST):
            break
        widths[widest] -= 1
    return widths


def _write(stream: TextIO, text: str, style: dict[str, Any]) -> None:
    text = _encodable(text, stream)
    coloured = _coloured(stream)
    click.echo(click.style(text, **style) if coloured and style else text, stream, color=coloured)


def _coloured(stream: TextIO) -> bool:
    # https://no-color.org: set and not empty means no colour.
    return _is_terminal(stream) and not os.environ.get("NO_COLOR")


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _width(stream: TextIO) -> int | None:
    return shutil.get_terminal_size((WIDTH, 24)).columns if _is_terminal(stream) else None


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for fancy, plain in _ASCII.items():
            text = text.replace(fancy, plain)
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _finite(value: Any) -> Any:
    """Spell the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
