"""Reports as text: what the library's reports print as, and the command line's commands print.

A report writes its headings, sentences and tables to a `ReportPage`. The command line's page is
`lstmconvert.cli.output`, which knows the terminal; `Text` is one without a terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Protocol
from unicodedata import combining, east_asian_width

from lstmconvert.errors import printable

#: The columns of prose where there is no terminal.
WIDTH = 80


class ReportPage(Protocol):
    """Where a report is written to."""

    def line(self, text: str = "", *, bold: bool = False, indent: int = 0) -> None:
        """Write one line."""

    def paragraph(
        self, text: str, *, indent: int = 0, label: str = "", hang: int = 0, bold: bool = False
    ) -> None:
        """Write a sentence or two, wrapped.

        Args:
            text: the sentence.
            indent: blanks before each line.
            label: put before the first line.
            hang: blanks before the text, in place of the label, on each further line.
            bold: for headings.
        """

    def table(
        self,
        rows: Sequence[Sequence[str]],
        *,
        header: Sequence[str] = (),
        right: Sequence[int] = (),
        indent: int = 2,
    ) -> None:
        """Write rows as aligned columns.

        Args:
            rows: the cells.
            header: the columns' names; none by default.
            right: the indices of right-aligned columns.
            indent: blanks before each line.
        """

    def note(self, text: str) -> None:
        """Say something that the user did not ask for."""

    def warning(self, text: str) -> None:
        """Warn."""

    def hint(self, text: str) -> None:
        """Say what to do next."""

    def width(self) -> int:
        """Return how many columns there are for numbers side by side."""


class Text:
    """A page without a terminal: prose is wrapped at 80 columns, tables are as wide as they are."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def line(self, text: str = "", *, bold: bool = False, indent: int = 0) -> None:
        del bold
        self._lines.append(" " * indent + printable(text))

    def paragraph(
        self, text: str, *, indent: int = 0, label: str = "", hang: int = 0, bold: bool = False
    ) -> None:
        del bold
        self._lines += wrapped(text, WIDTH, indent=indent, label=label, hang=hang)

    def table(
        self,
        rows: Sequence[Sequence[str]],
        *,
        header: Sequence[str] = (),
        right: Sequence[int] = (),
        indent: int = 2,
    ) -> None:
        self._lines += drawn(rows, header=header, right=right, indent=indent)

    def note(self, text: str) -> None:
        self.line(f"note: {text}")

    def warning(self, text: str) -> None:
        self.line(f"warning: {text}")

    def hint(self, text: str) -> None:
        self.line(f"hint: {text}")

    def width(self) -> int:
        return WIDTH


class Printed:
    """A report that prints as the command line prints it."""

    __slots__ = ()

    def show(self, page: ReportPage) -> None:
        """Write the report to a page."""
        raise NotImplementedError

    def __str__(self) -> str:
        text = Text()
        self.show(text)
        return str(text)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show it so in IPython and notebooks, whose protocol this is."""
        del cycle
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """Show it in a notebook, whose protocol this is."""
        from lstmconvert.pictures import notebook  # only notebooks need pictures

        return notebook.report(self)


def wrapped(text: str, width: int, *, indent: int, label: str, hang: int) -> list[str]:
    """Return a sentence as lines. See `Page.paragraph`."""
    margin = " " * indent
    return textwrap.wrap(
        printable(text),
        max(width, 20 + indent + hang),
        initial_indent=margin + label.ljust(hang),
        subsequent_indent=margin + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def drawn(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str] = (),
    right: Sequence[int] = (),
    indent: int = 2,
    width: int | None = None,
    coloured: bool = False,
) -> list[str]:
    """Return rows as lines of aligned columns. See `Page.table`.

    Args:
        rows, header, right, indent: as there.
        width: the columns of the terminal, into which the table is wrapped between words. Where
            even its longest words do not fit beside one another, each row is a paragraph: no word
            is broken, so that a name can be copied. None: wrap nothing.
        coloured: dim the header.
    """
    rows = [[printable(text) for text in row] for row in rows]
    header = [printable(title) for title in header]
    room = width and width - indent
    widths = _column_widths(rows, header, room)
    if width is not None and room is not None and _total(widths) > room:
        return _paragraphs(rows, header, width, indent)
    lines = []
    if header:
        shown = _side_by_side([[title] for title in header], widths, right)[0]
        lines.append(f"\x1b[2m{shown}\x1b[0m" if coloured else shown)
    for row in rows:
        cells = [_folded(text, size) for text, size in zip(row, widths, strict=True)]
        lines += _side_by_side(cells, widths, right)
    return [" " * indent + line for line in lines]


def _folded(text: str, width: int) -> list[str]:
    """Return a cell as lines that are no wider, broken between words."""
    if columns_of(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _side_by_side(
    cells: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[int]
) -> list[str]:
    """Return cells of a row, each of one line or more, side by side and two blanks apart."""
    lines = []
    for parts in zip_longest(*cells, fillvalue=""):
        padded = []
        for index, (part, width) in enumerate(zip(parts, widths, strict=True)):
            blanks = " " * (width - columns_of(part))
            padded.append(blanks + part if index in right else part + blanks)
        lines.append("  ".join(padded).rstrip())
    return lines


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: those of East Asia take two."""
    if text.isascii():
        return len(text)
    return sum(
        2 if east_asian_width(char) in "WF" else 0 if combining(char) else 1 for char in text
    )


def _column_widths(
    rows: Sequence[Sequence[str]], header: Sequence[str], room: int | None
) -> list[int]:
    """Return how wide each column is.

    A column is as wide as its longest text. Where that is too much for the room, the widest columns
    give way, down to their longest words. Without a room nothing is wrapped.
    """
    listed = [*rows, header] if header else rows
    columns = list(zip(*listed, strict=True))
    widths = [max(map(columns_of, texts)) for texts in columns]
    if room is None or _total(widths) <= room:
        return widths
    words = [
        max(columns_of(word) for text in texts for word in text.split(" ")) for texts in columns
    ]
    while _total(widths) > room:
        slack = [index for index, size in enumerate(widths) if size > words[index]]
        if not slack:
            break
        widths[max(slack, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    """Return how wide a table is with two blanks between its columns."""
    return sum(widths) + 2 * (len(widths) - 1)


def _paragraphs(
    rows: Sequence[Sequence[str]], header: Sequence[str], width: int, indent: int
) -> list[str]:
    """Return each row as a paragraph: its first cell, and below it the others by name."""
    lines = []
    for row in rows:
        first, *others = zip(header or [""] * len(row), row, strict=True)
        lines += wrapped(first[1], width, indent=indent, label="", hang=0)
        for name, cell in others:
            text = f"{name}: {cell}" if name and cell else cell
            lines += wrapped(text, width, indent=indent + 2, label="", hang=0)
    return lines
