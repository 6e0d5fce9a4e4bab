"""The guide: pages of Markdown, and JSON Schemas of the reports. `lstmconvert guide` shows them.

A page is a file of this folder, and its topic the name of that file. The text of a page is tested.
"""

from __future__ import annotations

import re
from pathlib import Path

from lstmconvert.errors import UsageError, close_to

_FOLDER = Path(__file__).parent
_INDEX = "index"
_SCHEMAS = "schemas"
#: Notes to the tests: no reader needs them.
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


def topics() -> list[str]:
    """Return the names of the pages and, after them, of the schemas."""
    pages = sorted(path.stem for path in _FOLDER.glob("*.md") if path.stem != _INDEX)
    schemas = sorted(path.stem for path in (_FOLDER / _SCHEMAS).glob("*.json"))
    return [*pages, *(f"{_SCHEMAS}/{name}" for name in schemas)]


def text(topic: str | None = None) -> str:
    """Return a page as Markdown, or a schema as JSON.

    Args:
        topic: one of `topics()`; None: the list of the pages.

    Raises:
        UsageError: there is no such topic.
    """
    known = topics()
    if topic not in (None, _INDEX, *known):
        raise UsageError(
            "the guide has no such page",
            found=topic,
            expected=", ".join(known),
            hint=close_to(str(topic), known) or "lstmconvert guide lists the pages",
        )
    name = topic or _INDEX
    if name.startswith(f"{_SCHEMAS}/"):
        return (_FOLDER / f"{name}.json").read_text(encoding="utf-8")
    return _COMMENT.sub("", (_FOLDER / f"{name}.md").read_text(encoding="utf-8"))
