"""What notebooks show: small, escaped, without scripts, and the numbers of the file."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from support.cli import FIXTURES, KERAS, SEED95
from support.neutral import make_cell, make_layer
from support.pages import pixels

import lstmconvert as lc
from lstmconvert.checks.page import ReportPage
from lstmconvert.pictures.notebook import Html


class Balance(HTMLParser):
    """Checks that every element that is opened is closed in its place, and that nothing runs."""

    VOID = frozenset({"img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "style", "link", "iframe")
        assert not any(name.startswith("on") for name, _ in attrs)
        for name, value in attrs:
            assert name != "src" or (value or "").startswith("data:image/png;base64,")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def html(value: object) -> str:
    text: str = value._repr_html_()  # type: ignore[attr-defined]  # what a notebook asks for
    Balance(text)
    return text


def test_a_gate_is_its_numbers() -> None:
    gate = lc.load(SEED95)["lstm"].forget_gate
    numbers = re.findall(r"color:#(?:000|fff)\">([^<]*)</td>", html(gate))
    rows = np.asarray(gate)
    assert [float(text.replace("−", "-")) for text in numbers] == pytest.approx(
        rows.ravel().tolist(), abs=0.0005
    )


def test_a_large_gate_is_a_picture() -> None:
    layer = make_layer(make_cell(rng(), 257, 128, scale=0.1))
    text = html(layer)
    pictures = re.findall(r"base64,([^\"]*)\"", text)
    assert len(pictures) == 4
    indices, _ = pixels(base64.b64decode(pictures[0]))
    assert indices.size <= 20_000
    assert "a dot is the weight farthest from 0 of 2×2" in text
    assert len(text) < 80_000
    assert len(html(layer.forget_gate)) < 20_000


def test_models_layers_cells_and_reports_show_themselves() -> None:
    model = lc.load(KERAS / "both_unlike.keras")
    assert "both · backward" in html(model)
    assert "<b>forward</b>" in html(model["both"])
    assert "2 channels, 3 filters" in html(lc.load(FIXTURES / "keras-2.3.1/conv_lstm.h5")["conv"])
    assert "5 inputs, 2 units" in html(model["both"].forward.cells[0])
    report = lc.diff(SEED95, FIXTURES / "keras-2.3.1" / "seed95.h5")
    assert "equal: 12 tensors of 1 layer, bit for bit" in html(report)
    assert "kernel[:, 2:4] is the forget gate" in html(lc.inspect(SEED95, values=True))
    assert "<table>" in html(lc.verify(SEED95, engines=["numpy"]))


def test_a_result_shows_what_was_written(tmp_path: object) -> None:
    result = lc.convert(SEED95, f"{tmp_path}/a&b.safetensors", layout="torch", dtype="float16")
    text = html(result)
    assert "a&amp;b.safetensors" in text
    for warning in result.warnings:
        assert "<b>Warning:</b>" in text, warning


def test_names_are_text_and_many_layers_are_cut() -> None:
    layers = [make_layer(make_cell(rng(), 3, 2), name=f"<b>{i}\u202e") for i in range(60)]
    model = lc.Model(layers=tuple(layers), source=lc.load(SEED95).source)
    text = html(model)
    assert "&lt;b&gt;3\\u202e" in text
    assert "\u202e" not in text
    assert "and 20 more layers" in text
    stack = make_layer([make_cell(rng(), 2, 2) for _ in range(9)])
    assert "and 5 more cells" in html(stack)


def test_its_page_is_one_that_reports_write_to() -> None:
    page: ReportPage = Html()
    page.paragraph("a < b", label="name", bold=True)
    page.table([["1", "<2>"]], header=("x", "y"), right=(0,))
    page.hint("next")
    page.note("so")
    page.warning("oh")
    Balance(str(page))
    assert "a &lt; b" in str(page)
    assert "&lt;2&gt;" in str(page)


def test_what_is_not_finite_has_a_colour_of_its_own() -> None:
    layer = make_layer(make_cell(rng(), 3, 2))
    kernel = layer.forget_gate.kernel.copy()
    kernel[0, 0], kernel[1, 1] = np.nan, np.inf
    text = html(layer.replacing({"forget_gate.kernel": kernel}).forget_gate)
    assert text.count("background:#e6007e") == 2
    assert "NaN" in text
    assert "Inf" in text
