"""The one sink of the command line: data to stdout, talk to stderr, nothing else prints.

Names come from files, so every text is made printable here: no control character of a file reaches
a terminal. Characters that a stream cannot encode are spelled in ASCII.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from json.encoder import encode_basestring_ascii
from typing import Any, TextIO

import click

from lstmconvert.checks import page
from lstmconvert.errors import printable


class Level(IntEnum):
    """How much is printed in addition to the answer: `-q`, neither, `-v`."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


#: How much this run tells. It is of the process, as its terminal is.
_level = Level.NORMAL


def speak(level: Level) -> None:
    """Set how much is told from here on."""
    global _level
    _level = level


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
        label: put before the first line.
        hang: blanks before the text, in place of the label, on each further line.
        bold: for headings.
    """
    lines = page.wrapped(
        text, _width(sys.stdout) or page.WIDTH, indent=indent, label=label, hang=hang
    )
    for each in lines:
        _write(sys.stdout, each, {"bold": True} if bold else {})


def as_json(value: Any) -> None:
    """Print one JSON value as data: the same bytes for the same value, ASCII only.

    Args:
        value: the value. An iterator is a list, of which each item is made when it is printed.
    """
    waiting, size = list[str](), 0
    for piece in _pieces(value, ""):
        waiting.append(piece)
        size += len(piece)
        if size > _PIECE:
            click.echo("".join(waiting), nl=False)
            waiting, size = [], 0
    click.echo("".join(waiting))


def plain(text: str) -> None:
    """Print lines of data that are ours, as they are."""
    click.echo(_encodable(text.rstrip("\n"), sys.stdout))


def markdown(text: str) -> None:
    """Print a page of the guide: laid out on a terminal, as it is in a pipe."""
    if not _is_terminal(sys.stdout):
        plain(text)
        return
    from rich.console import Console  # imported late: it takes as long as a small conversion
    from rich.markdown import Markdown

    console = Console(color_system="auto" if _coloured(sys.stdout) else None, width=width())
    begin = 0
    for match in _TABLE.finditer(text):
        console.print(Markdown(text[begin : match.start()], hyperlinks=False))
        line()
        _markdown_table(match[0])
        line()
        begin = match.end()
    console.print(Markdown(text[begin:], hyperlinks=False))


#: A table in Markdown: its header, the line below it, its rows.
_TABLE = re.compile(r"^\|.*\n\|[-|: ]+\n(?:\|.*\n?)*", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")
_STRONG = re.compile(r"\*\*([^*\s][^*]*)\*\*")


def _markdown_table(text: str) -> None:
    """Print a table of the guide as any other: rich before 13.4 knows none, and the later ones cut
    words where there is little room."""
    shown = _STRONG.sub(r"\1", _LINK.sub(r"\1 (\2)", text)).replace("`", "")
    header, _, *rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", each)[1:-1]]
        for each in shown.splitlines()
    ]
    table(rows, header=header)


def detail(text: str) -> None:
    """Say what only `-v` asks for."""
    _talk(Level.VERBOSE, printable(text), {"dim": True})


def note(text: str) -> None:
    """Say something that the user did not ask for."""
    _talk(Level.NORMAL, f"note: {printable(text)}", {})


def done(text: str) -> None:
    """Say what was done."""
    _talk(Level.NORMAL, printable(text), {})


def warning(text: str) -> None:
    """Warn."""
    _talk(Level.NORMAL, f"warning: {printable(text)}", {"fg": "yellow"})


def hint(text: str) -> None:
    """Say in one line what to do next, where nothing went wrong."""
    _talk(Level.NORMAL, f"hint: {printable(text)}", {})


def error(text: str, hint: str | None = None) -> None:
    """Say in one line what went wrong, and in another what to do next."""
    _talk(Level.QUIET, f"lstmconvert: error: {printable(text)}", {"fg": "red"})
    if hint is not None:
        _talk(Level.QUIET, f"hint: {printable(hint)}", {})


def trace(text: str) -> None:
    """Print a line of a traceback, or that the user ended the run."""
    _talk(Level.QUIET, printable(text), {})


def _talk(least: Level, text: str, style: dict[str, Any]) -> None:
    if _level >= least:
        _write(sys.stderr, text, style)


def table(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str] = (),
    right: Sequence[int] = (),
    indent: int = 2,
) -> None:
    """Print a table: wrapped to fit a terminal, at natural width in a pipe. See `Page.table`."""
    coloured = _coloured(sys.stdout)
    lines = page.drawn(
        [[_encodable(text, sys.stdout) for text in row] for row in rows],
        header=[_encodable(text, sys.stdout) for text in header],
        right=right,
        indent=indent,
        width=_width(sys.stdout),
        coloured=coloured,
    )
    if lines:
        click.echo("\n".join(lines), color=coloured)  # at once: each call writes


class _Bar:
    """A bar with the time that is left, on a terminal: drawn once the work takes a second."""

    PATIENCE_SECONDS = 1.0

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._total = self._done = 0
        self._bar: Any = None

    def expect(self, size: int) -> None:
        self._total += size
        self._draw()

    def advance(self, size: int) -> None:
        self._done += size
        self._draw()

    def _draw(self) -> None:
        if self._bar is None:
            if time.monotonic() - self._began < self.PATIENCE_SECONDS:
                return
            # imported late: what takes less than a second needs none of it
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

            console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
            columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("")
            self._bar.start()
        total = max(self._total, self._done)
        self._bar.update(self._task, total=total, completed=self._done)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Show how far what is done meanwhile is, and the time that is left, on a terminal."""
    if is_quiet() or not _is_terminal(sys.stderr):
        yield
        return
    from lstmconvert.tensors.progress import watched

    bar = _Bar()
    try:
        with watched(bar):
            yield
    finally:
        bar.end()


def _write(stream: TextIO, text: str, style: dict[str, Any]) -> None:
    text = _encodable(text, stream)
    coloured = _coloured(stream)
    click.echo(click.style(text, **style) if coloured and style else text, stream, color=coloured)


def is_quiet() -> bool:
    """Whether only the answer is asked for."""
    return _level == Level.QUIET


def width() -> int:
    """Return the columns of the terminal that data goes to; of a pipe 80."""
    return _width(sys.stdout) or page.WIDTH


def _coloured(stream: TextIO) -> bool:
    # https://no-color.org and https://force-color.org: set and not empty.
    if os.environ.get("NO_COLOR"):
        return False
    return _is_terminal(stream) or bool(os.environ.get("FORCE_COLOR"))


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _width(stream: TextIO) -> int | None:
    return shutil.get_terminal_size((page.WIDTH, 24)).columns if _is_terminal(stream) else None


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for fancy, plain in _ASCII.items():
            text = text.replace(fancy, plain)
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


#: So many characters of JSON are printed at once.
_PIECE = 1 << 16


def _pieces(value: Any, margin: str) -> Iterator[str]:
    """Yield what `_indented` returns: of an object each value by itself, of a list each item."""
    is_object = isinstance(value, dict)
    if not is_object and not isinstance(value, (list, tuple, Iterator)):
        yield _indented(value, margin)
        return
    inner, ends = f"{margin}  ", "{}" if is_object else "[]"
    before = ends[0]
    for item in value:
        if is_object:
            yield f"{before}\n{inner}{encode_basestring_ascii(item)}: "
            yield from _pieces(value[item], inner)
        else:
            yield f"{before}\n{inner}{_indented(item, inner)}"
        before = ","
    yield ends if before == ends[0] else f"\n{margin}{ends[1]}"


def _indented(value: Any, margin: str) -> str:
    """Return what `json.dumps` gives with `indent=2`, for which that has no C: a report of many
    layers takes five times as long. The numbers that JSON does not have are spelled as texts.

    Args:
        value: the value.
        margin: the blanks before the line that it begins in.
    """
    inner, spell = f"{margin}  ", _SPELLED.get
    if isinstance(value, dict):
        items = [
            f"{encode_basestring_ascii(key)}: "
            f"{text(item) if (text := spell(type(item))) else _indented(item, inner)}"
            for key, item in value.items()
        ]
        ends = "{}"
    elif isinstance(value, (list, tuple)):
        items = [
            text(item) if (text := spell(type(item))) else _indented(item, inner) for item in value
        ]
        ends = "[]"
    else:
        kind = next((kind for kind in _SPELLED if isinstance(value, kind)), None)
        return json.dumps(value) if kind is None else _SPELLED[kind](value)
    if not items:
        return ends
    between = f",\n{inner}"
    return f"{ends[0]}\n{inner}{between.join(items)}\n{margin}{ends[1]}"


def _number(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


#: Type -> how a value that holds no others is spelled. A flag is a number, too, and comes first.
_SPELLED: dict[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    bool: {True: "true", False: "false"}.__getitem__,
    int: int.__repr__,
    float: _number,
    type(None): lambda _: "null",
}
