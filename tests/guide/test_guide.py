"""The pages of the guide: what is generated is current, and what is linked is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import write_guide
from support.documents import GUIDE, PAGES, README, Page
from support.thinned import each

import lstmconvert
from lstmconvert.cli.main import COMMANDS

BY_NAME = {page.path.stem: page for page in PAGES}
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_generated_is_current(page: Page) -> None:
    """`python tests/support/write_guide.py` makes it so."""
    assert write_guide.renewed(page.text) == page.text


def test_a_page_that_is_behind_is_seen() -> None:
    text = "a\n<!-- generated: files -->\n(behind)\n<!-- end -->\nb\n"
    assert "(behind)" not in write_guide.renewed(text)
    assert write_guide.renewed(text).endswith("<!-- end -->\nb\n")


@each("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Page) -> None:
    for target in LINK.findall(page.text):
        if not target.startswith(("http://", "https://")):
            assert (page.path.parent / target).exists(), target


def test_the_index_and_the_readme_name_every_page() -> None:
    pages = {path.stem for path in GUIDE.glob("*.md")} - {"index"}
    assert pages <= {Path(target).stem for target in LINK.findall(BY_NAME["index"].text)}
    assert pages <= {Path(target).stem for target in LINK.findall(README.text)}


def test_the_library_page_shows_every_public_name() -> None:
    page = BY_NAME["library"]
    shown = set(re.findall(r"\blc\.(\w+)", page.text)) | {"LSTMConvertError"}
    assert set(lstmconvert.__all__) <= shown


def test_the_page_of_commands_has_each() -> None:
    text = BY_NAME["commands"].text
    for name in COMMANDS:
        assert f"\n## {name}\n" in text
