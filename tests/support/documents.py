"""The README and the pages of the guide: their snippets, and the files that these are about.

A page may name files by short names that read well, in a comment at its top:

    <!-- files
    model.keras = fixtures/keras-3.15.1/seed95.keras
    -->

Each of its snippets is run in a folder that holds them under these names.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
GUIDE = ROOT / "lstmconvert" / "guide"

_BLOCK = re.compile(r"^```([\w-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A command in a cell of a table, which prints nothing that is compared.
_CELL = re.compile(r"`(lstmconvert [^`]*)`")
_FILES = re.compile(r"<!-- files\n(.*?)-->", re.DOTALL)
#: Stands before a block that no test runs, and says why.
_NOT_RUN = re.compile(r"<!-- not run: (.*?) -->\n\Z", re.DOTALL)


class Snippet(NamedTuple):
    """A fenced block: its kind, its text, its line in the page, and why it is not run, if so."""

    kind: str
    text: str
    line: int
    not_run: str | None


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def snippets(self) -> list[Snippet]:
        """Every fenced block, in the order of the page."""
        result = []
        for match in _BLOCK.finditer(self.text):
            before = self.text[: match.start()]
            reason = _NOT_RUN.search(before)
            result.append(
                Snippet(match[1], match[2], before.count("\n") + 1, reason[1] if reason else None)
            )
        return result

    @cached_property
    def commands(self) -> list[tuple[str, int]]:
        """The commands in cells of tables, and their lines."""
        return [
            (command, number)
            for number, line in enumerate(self.text.splitlines(), 1)
            if line.startswith("|")
            for command in _CELL.findall(line)
        ]

    def files(self, folder: Path) -> None:
        """Put into a folder what the page's snippets name, and the fixtures."""
        (folder / "fixtures").symlink_to(ROOT / "fixtures")
        listed = _FILES.search(self.text)
        for line in listed[1].splitlines() if listed else ():
            name, _, path = (part.strip() for part in line.partition("="))
            destination = folder / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, destination)
            else:
                shutil.copy(ROOT / path, destination)


PAGES = [Page(path) for path in (ROOT / "README.md", *sorted(GUIDE.glob("*.md")))]
README = PAGES[0]
