"""The page in a real browser: it asks nothing of the network, reads out the file's own numbers to
pointer and keys, sorts, follows the theme, and is readable by axe's rules."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import Browser, launch
from support.cli import FIXTURES, KERAS, SEED95
from support.neutral import make_cell, make_layer
from support.pages import arrays_of, with_arrays
from support.thinned import ALL, turns

import lstmconvert as lc
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.pictures import page as pages
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.slow
GATES = tuple(Gate)
HOSTILE = "<img src=x onerror=alert(1)>"


def rng() -> np.random.Generator:
    return np.random.default_rng(6)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = launch()
    yield chromium
    chromium.close()


def wide_layer() -> LSTMLayer:
    """One whose pictures are levels: 45 inputs, 70 units, with extremes, -0.0 and NaN."""
    layer = make_layer(make_cell(rng(), 45, 70, scale=0.1), name="wide")
    arrays = arrays_of(layer.cell)
    arrays[Gate.FORGET]["bias"][:] = 1 + rng().normal(size=70) * 0.3
    arrays[Gate.CELL]["kernel"][3, 5] = 7.75
    arrays[Gate.INPUT]["kernel"][0, 0] = np.nan
    return with_arrays(layer, arrays)


def nudged(layer: LSTMLayer, amount: float = 0.25) -> LSTMLayer:
    arrays = arrays_of(layer.cell)
    arrays[Gate.FORGET]["kernel"][0, 1] += np.float32(amount)
    bias = arrays[Gate.OUTPUT]["bias"]
    bias[1] = np.nextafter(bias[1], np.float32(9))
    return with_arrays(layer, arrays)


def projected() -> LSTMLayer:
    vectors = ("bias", "recurrent_bias", "peephole", "layer_norm", "layer_norm_bias")
    shapes = {"initial_cell": (6,), "state_norm": (6,)}
    cell = make_cell(rng(), 4, 6, projected=3, gate_parts=vectors, parts=shapes)
    return make_layer(cell, name="odd")


def masked() -> dict[str, Any]:
    x = rng().normal(size=(9, 7))
    x[[2, 3]] = 0
    return {"x": x, "mask_value": 0.0}


PAGES: dict[str, Any] = {
    "example": lambda: pages.view(SEED95, **masked()),
    "both": lambda: pages.view(KERAS / "both_unlike.keras", x=rng().normal(size=(9, 5))),
    "convolution": lambda: pages.view(FIXTURES / "keras-2.3.1" / "conv_lstm.h5"),
    "stack": lambda: pages.view(KERAS / "rnn_stack_gru.keras"),
    "unknown": lambda: pages.view(KERAS / "seed95.weights.h5", x=np.ones((4, 7))),
    "projected": lambda: pages.view(projected()),
    "wide": lambda: pages.view(wide_layer(), x=rng().normal(size=(30, 45))),
    "two": lambda: pages.view(SEED95, nudged(lc.load(SEED95)["lstm"]), x=np.ones((4, 7))),
    "two wide": lambda: pages.view(wide_layer(), nudged(wide_layer())),
    "hostile": lambda: pages.view(make_layer(make_cell(rng(), 3, 2), name=HOSTILE)),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pages")

    def made(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            PAGES[name]().save(path)
        return path

    return made


# Axe and the sizes take seconds: each page in one theme and with axe at one width.
@pytest.mark.parametrize(("name", "theme"), turns(PAGES, ("light", "dark")))
def test_no_request_no_message_no_sideways_scroll_and_nothing_for_axe(
    browser: Browser, page: Any, name: str, theme: str
) -> None:
    path = page(name)
    browser.open(path, width=360, theme=theme)
    for width in (360, 900, 1600, 2560):
        browser("size", width=width)
        sizes = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes == [width, width]
        cut = browser.evaluate(
            "[...document.querySelectorAll('.strip')].filter(s => s.clientWidth).flatMap(s => "
            "[...s.querySelectorAll('text')].filter(t => t.getBBox().x < 0 || "
            "t.getBBox().x + t.getBBox().width > s.viewBox.baseVal.width + 1)"
            ".map(t => t.textContent))"
        )
        assert cut == []
        if width in ((360, 1600) if ALL else (360,) if list(PAGES).index(name) % 3 else (1600,)):
            assert browser("axe") == []
    log = browser("log")
    assert log == {"log": [], "requests": [path.resolve().as_uri()]}


def test_the_page_is_whole_without_a_script(browser: Browser, page: Any, tmp_path: Path) -> None:
    """The policy refuses a script that is not the page's own: so one byte more stops it."""
    html = page("wide").read_text(encoding="utf-8").replace('"use strict";', '"use strict"; ')
    path = tmp_path / "no-script.html"
    path.write_text(html, encoding="utf-8")
    browser.open(path, script=False)
    assert browser.evaluate("document.documentElement.dataset.ready") is None
    assert any("Content Security Policy" in text for text in browser("log")["log"])
    shown = browser.evaluate(
        "[...document.images].map(i => i.complete && i.naturalWidth && i.clientWidth > 50)"
    )
    assert all(shown)
    assert len(shown) == 10  # four gates, and six maps over time


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def check(reading: list[str], layer: LSTMLayer) -> bool:
    """Compare a reading with the file; tell whether it was an exact one."""
    chip, value, _, code = reading
    gate = Gate(chip.removesuffix(" gate"))
    match = re.fullmatch(r"(\w+)\[([\d, ]+)\]", code)
    assert match, reading
    index = tuple(int(part) for part in match[2].split(","))
    fused = layer.cell.fused(match[1]).read()
    start = GATES.index(gate) * layer.units
    assert start <= index[-1] < start + layer.units, reading
    weight = fused[index]
    if value == "NaN":
        assert math.isnan(weight), reading
        return True
    if value.startswith("≈"):
        near, off = value.removeprefix("≈ ").split(" ±")
        last = 0.5 * 10 ** -len(near.partition(".")[2])
        assert abs(number(near) - weight) <= number(off) + last, reading
        return False
    assert np.float32(number(value)) == weight, reading
    return True


def hover_all(browser: Browser, layer: LSTMLayer, count: int, name: str) -> int:
    """Hover over `count` places of the gates' card, and compare each with the file."""
    exact = 0
    dice = np.random.default_rng(len(name))
    if browser.evaluate("document.querySelectorAll('.gates .nums').length"):
        cells = browser.evaluate("document.querySelectorAll('.gates .nums td').length")
        for _ in range(count):
            browser("hover", selector=".gates .nums td", nth=int(dice.integers(cells)))
            exact += check(browser.reading or [], layer)
        return exact
    for step in range(count):
        nth = step % 4
        browser("hover", selector=".gates .plot canvas", nth=nth)
        box = browser.evaluate(
            f"(b => [b.width, b.height])(document.querySelectorAll('.gates .plot canvas')[{nth}]"
            ".getBoundingClientRect())"
        )
        x, y = dice.uniform(1, box[0] - 1), dice.uniform(1, box[1] - 1)
        browser("hover", selector=".gates .plot canvas", nth=nth, x=x, y=y)
        exact += check(browser.reading or [], layer)
    return exact


def sort_by(browser: Browser, heading: str, times: int = 1) -> None:
    nth = browser.evaluate(
        "[...document.querySelectorAll('.ut th button')].findIndex("
        f"b => b.textContent.startsWith('{heading}'))"
    )
    for _ in range(times):
        browser("click", selector=".ut th button", nth=nth)


#: So many places before the units are sorted, and after: of `wide`, few are exact.
HOVERED = {"example": 40 if ALL else 12, "wide": 40}


@pytest.mark.parametrize("name", ["example", "wide"])
def test_hovered_numbers_are_the_files_unsorted_and_sorted(
    browser: Browser, page: Any, name: str
) -> None:
    layer = lc.load(SEED95)["lstm"] if name == "example" else wide_layer()
    browser.open(page(name))
    count = HOVERED[name]
    first = hover_all(browser, layer, count, name)
    sort_by(browser, "half-life", 2)
    second = hover_all(browser, layer, count, name + " sorted")
    if name == "example":
        assert first == second == count
    else:
        assert 0 < first + second < 2 * count  # biases and extremes are exact, the rest is not


@pytest.mark.parametrize("name", ["example", "wide"])
def test_numbers_by_keys_are_the_files(browser: Browser, page: Any, name: str) -> None:
    layer = lc.load(SEED95)["lstm"] if name == "example" else wide_layer()
    browser.open(page(name), width=1200)
    selector = ".gates .nums td" if name == "example" else ".gates .plot"
    browser("focus", selector=selector)
    keys = ["ArrowRight", "ArrowDown", "f", "End", "PageDown", "Home", "o", "PageDown", "ArrowLeft"]
    keys += ["PageUp", "PageUp", "c", "Shift+ArrowDown", "ArrowUp", "i", "Shift+ArrowRight", "m"]
    places = set()
    for key in keys:
        browser("press", key=key)
        reading = browser.reading or []
        check(reading, layer)
        places.add(tuple(reading))
    assert len(places) > 10
    stops = browser.evaluate("document.querySelectorAll('.gates [tabindex=\"0\"]').length")
    assert stops == 1
    browser("press", key="c")
    browser("press", key="m")
    value = (browser.reading or [])[1]
    weights = np.concatenate([w.read().ravel() for w in layer.cell_gate.tensors.values()])
    assert abs(number(value)) == np.nanmax(np.abs(weights))
    unit = re.search(r"unit (\d+)$", (browser.reading or [])[2])
    assert unit
    browser("press", key="Enter")
    assert browser.evaluate("document.activeElement.textContent") == unit[1]
    assert browser.evaluate("document.activeElement.closest('tr').className") == "on"


def test_hover_and_focus_light_the_same_and_a_pin_stays(browser: Browser, page: Any) -> None:
    browser.open(page("example"))
    lit = (
        "[...document.querySelectorAll('.lit, .panel')].map(e => { const s = getComputedStyle(e); "
        "const outline = e.matches(':focus') ? 'none' : s.outlineStyle;"
        "return [s.opacity, outline, s.backgroundColor].join(); })"
    )
    plain = browser.evaluate(lit)

    def settled() -> Any:
        browser.evaluate("new Promise(done => setTimeout(done, 400))")
        return browser.evaluate(lit)

    browser("hover", selector=".eq.f")
    hovered = settled()
    assert hovered != plain
    browser("away")
    assert settled() == plain
    browser("focus", selector=".eq.f")
    browser("away")
    assert settled() == hovered
    browser("press", key="Enter")
    assert browser.evaluate("document.querySelector('.eq.f').ariaPressed") == "true"
    browser.evaluate("document.activeElement.blur()")
    browser("away")
    assert browser.evaluate("document.querySelector('.cell').dataset.hl") == "f"
    browser("hover", selector=".strip.wide .o")
    assert browser.evaluate("document.querySelector('.cell').dataset.hl") == "o"
    browser("away")
    assert browser.evaluate("document.querySelector('.cell').dataset.hl") == "f"
    browser("click", selector=".gates .pn", nth=1)
    browser("away")
    browser.evaluate("document.activeElement.blur()")
    assert browser.evaluate("document.querySelector('.cell').dataset.hl ?? ''") == ""


def picture(browser: Browser, nth: int = 0) -> Array:
    """Return what a canvas shows, (height, width, 4) bytes, read by the test alone."""
    width, height, text = browser.evaluate(
        "(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let t = ''; for (let i = 0; i < d.length; i += 8192)"
        "t += String.fromCharCode(...d.subarray(i, i + 8192));"
        "return [c.width, c.height, btoa(t)]; })"
        f"(document.querySelectorAll('.gates .plot canvas')[{nth}])"
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def test_sorting_reorders_columns_and_recurrent_rows(browser: Browser, page: Any) -> None:
    layer = wide_layer()
    browser.open(page("wide"), width=1600)
    before = picture(browser, 1)
    sort_by(browser, "half-life")
    shown = browser.evaluate(
        "[...document.querySelectorAll('.ut tbody th')].map(e => Number(e.textContent))"
    )
    bias = layer.forget_gate.bias
    assert bias is not None
    order = np.argsort(bias, kind="stable")
    lives = browser.evaluate(
        "[...document.querySelectorAll('.ut tbody tr')].map(e => e.children[2].textContent)"
    )
    assert [number(text) for text in lives] == sorted(number(text) for text in lives)
    assert np.allclose(bias[shown], bias[order], atol=0.02)
    after = picture(browser, 1)
    step = before.shape[1] // 70
    columns = before[: 45 * step].reshape(45 * step, 70, step, 4)
    assert np.array_equal(columns[:, shown], after[: 45 * step].reshape(45 * step, 70, step, 4))
    # The recurrent rows follow: the gap between the parts is the same before and after.
    gap = 6
    top = 45 * step + gap
    rows = before[top : top + 70 * step].reshape(70, step, 70, step, 4)
    moved = after[top : top + 70 * step].reshape(70, step, 70, step, 4)
    assert np.array_equal(rows[np.ix_(shown, range(step), shown)], moved)
    assert "Sorted by half-life, steps, ascending. The pictures follow." in browser.evaluate(
        "document.querySelector('.said').textContent"
    )
    assert browser.evaluate("document.querySelectorAll('.ut [aria-sort]').length") == 1


def test_tables_follow_the_order_of_the_units(browser: Browser, page: Any) -> None:
    browser.open(page("example"))
    sort_by(browser, "half-life")  # unit 1 first
    heads = "[...document.querySelectorAll('.gates .nums')].map(t => t.tHead.innerText.trim())"
    assert {tuple(text.split()) for text in browser.evaluate(heads)} == {("unit", "1", "0")}
    rows = browser.evaluate(
        "[...document.querySelectorAll('.gates .nums')[1].tBodies[1].rows].map(r => "
        "[...r.cells].map(c => c.textContent))"
    )
    recurrent = lc.load(SEED95)["lstm"].forget_gate.recurrent_kernel
    assert [row[0] for row in rows] == ["h1", "h0"]
    shown = [[number(text) for text in row[1:]] for row in rows]
    assert np.allclose(shown, recurrent[::-1, ::-1], atol=0.0005)


def test_the_theme_recolours_pictures(browser: Browser, page: Any, tmp_path: Path) -> None:
    layer = wide_layer()
    arrays = arrays_of(layer.cell)
    arrays[Gate.INPUT]["kernel"][1, 1] = 0
    path = tmp_path / "zero.html"
    pages.view(with_arrays(layer, arrays)).save(path)
    browser.open(path, theme="light")
    step = picture(browser).shape[1] // 70
    at = step + step // 2
    assert picture(browser)[at, at].tolist() == [0xF1, 0xF1, 0xEF, 255]
    assert picture(browser)[0, 0].tolist() == [0xE6, 0x00, 0x7E, 255]  # NaN
    browser("media", colorScheme="dark")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert picture(browser)[at, at].tolist() == [0x2A, 0x2D, 0x33, 255]
    assert picture(browser)[0, 0].tolist() == [0xFF, 0x4F, 0xB0, 255]
    card = browser.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert card == "rgb(27, 29, 33)"


def test_a_hostile_name_is_text(browser: Browser, page: Any) -> None:
    path = page("hostile")
    browser.open(path)
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("document.querySelector('h2').textContent") == HOSTILE
    browser("hover", selector=".gates .nums td")
    assert browser("log") == {"log": [], "requests": [path.resolve().as_uri()]}


def test_two_sources_are_read_side_by_side(browser: Browser, page: Any) -> None:
    one = lc.load(SEED95)["lstm"]
    two = nudged(one)
    browser.open(page("two"))
    place = 20 + 1  # the forget gate's kernel[0, 1]
    a, b = (layer.forget_gate.kernel[0, 1] for layer in (one, two))
    browser("hover", selector=".gates .nums td", nth=place)
    value = (browser.reading or [])[1]
    texts = re.fullmatch(r"A (\S+) · B (\S+) · B − A (\S+) \(([\d,]+) ULP\)", value)
    assert texts
    assert np.float32(number(texts[1])) == a
    assert np.float32(number(texts[2])) == b
    assert number(texts[3]) == pytest.approx(float(b) - float(a), abs=0.001)
    places = [int(np.float32(v).view(np.int32)) for v in (a, b)]
    ordered = [p if p >= 0 else -(1 << 31) - p - 1 for p in places]
    assert number(texts[4]) == abs(ordered[1] - ordered[0])
    browser("hover", selector=".gates .nums td", nth=0)
    assert (browser.reading or [])[1].endswith("in A and B, the same bits")
    text = f"document.querySelectorAll('.gates .nums td')[{place}].textContent"
    for nth, wanted in ((1, b), (2, float(b) - float(a)), (0, a)):
        browser("click", selector=".which label", nth=nth)
        assert number(browser.evaluate(text)) == pytest.approx(float(wanted), abs=0.0006)
    browser("click", selector=".which label", nth=2)
    shown = browser.evaluate(
        "[...document.querySelectorAll('.gates .nums td')].map(e => e.textContent)"
    )
    assert sum(text == "=" for text in shown) == 78
    # One unit in the last place is written with an exponent, and never as zero.
    assert sum(re.fullmatch(r"\de−\d+", text) is not None for text in shown) == 1


def test_two_wide_sources_swap_their_pictures(browser: Browser, page: Any) -> None:
    one, two = wide_layer(), nudged(wide_layer())
    browser.open(page("two wide"))
    pictures = []
    for nth in (0, 1, 2):
        browser("click", selector=".which label", nth=nth)
        pictures.append(picture(browser, 1))
    assert not np.array_equal(pictures[0], pictures[1])
    step = pictures[0].shape[1] // 70
    changed = (pictures[0] != pictures[1]).any(axis=2)
    assert changed[:step, step : 2 * step].all()
    assert changed.sum() == step * step
    browser("hover", selector=".gates .plot canvas", nth=1, x=1.5 * step, y=0.5 * step)
    value = (browser.reading or [])[1]
    off = [layer.forget_gate.kernel[0, 1] for layer in (one, two)]
    near = [number(text) for text in re.findall(r"≈ (\S+) ±", value)]
    assert near == pytest.approx([*map(float, off), float(off[1] - off[0])], abs=0.02)
    # The one unit in the last place has a dot, in the card of the difference and in the gates'.
    for card in (".gates", ".difference"):
        dark = browser.evaluate(
            f"(c => [...new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height)"
            f".data.buffer)])(document.querySelectorAll('{card} .plot canvas')[3])"
        )
        ink = 255 << 24 | 0x1F << 16 | 0x1C << 8 | 0x1A
        assert ink in dark, card


def test_time_maps_read_out_the_reference(browser: Browser, page: Any) -> None:
    from lstmconvert import reference

    given = masked()
    taken = reference.trace(lc.load(SEED95)["lstm"], given["x"], mask=given["x"].any(axis=1))
    browser.open(page("example"))
    canvas = ".time .plot canvas"
    box = browser.evaluate(
        f"(b => [b.width, b.height])(document.querySelector('{canvas}').getBoundingClientRect())"
    )
    step, row = box[0] / 9, box[1] / 2
    for nth, gate in ((1, Gate.FORGET), (3, Gate.OUTPUT)):
        browser("hover", selector=canvas, nth=nth, x=4.5 * step, y=1.5 * row)
        chip, value, where = browser.reading or []
        assert (chip, where) == (f"{gate} gate", "step 4, unit 1")
        assert np.float32(number(value)) == np.float32(taken["forward", 0].gates[gate][4, 1])
    browser("hover", selector=canvas, nth=1, x=2.5 * step, y=0.5 * row)
    assert (browser.reading or [])[2] == "step 2, masked, unit 0"


def test_large_shows_a_panel_across_the_card(browser: Browser, page: Any) -> None:
    browser.open(page("wide"), width=1600)
    width = "document.querySelectorAll('.gates .plot canvas')[2].width"
    before = browser.evaluate(width)
    browser("click", selector=".ex", nth=2)
    assert browser.evaluate(width) > 2 * before
    sizes = browser.evaluate("(r => [r.width, r.height])($('.ex').getBoundingClientRect())")
    assert min(sizes) >= 24
    browser("click", selector=".ex", nth=2)
    assert browser.evaluate(width) == before


def test_more_numbers_than_pixels_are_blocks_that_keep_the_farthest(
    browser: Browser, tmp_path: Path
) -> None:
    layer = make_layer(make_cell(rng(), 30, 700, scale=0.05))
    arrays = arrays_of(layer.cell)
    arrays[Gate.FORGET]["kernel"][17, 501] = -6.5
    path = tmp_path / "many.html"
    pages.view(with_arrays(layer, arrays)).save(path)
    browser.open(path, width=900)
    browser("focus", selector=".gates .plot", nth=1)
    browser("press", key="m")
    assert (browser.reading or [])[1:] == ["−6.5", "input 17 → unit 501", "kernel[17, 1201]"]
    assert "farthest from 0 of" in browser.evaluate("document.querySelector('.blocks').textContent")


def test_a_dark_page_prints_light_with_nothing_cut(
    browser: Browser, page: Any, tmp_path: Path
) -> None:
    browser.open(page("wide"), theme="dark", width=1600)
    browser("hover", selector=".gates .plot canvas")
    pdf = tmp_path / "page.pdf"
    browser("pdf", file=str(pdf))
    assert pdf.read_bytes().startswith(b"%PDF")
    browser("media", media="print", colorScheme="dark")
    facts = browser.evaluate(
        "(() => { dispatchEvent(new Event('beforeprint'));"
        "const s = getComputedStyle(document.documentElement);"
        "return [s.backgroundColor, s.getPropertyValue('--v20').trim(),"
        "getComputedStyle($('.out')).display, $('details').open,"
        "document.documentElement.scrollWidth <= innerWidth]; })()"
    )
    assert facts == ["rgb(255, 255, 255)", "#f1f1ef", "none", True, True]
    assert picture(browser)[0, 0].tolist() == [0xE6, 0x00, 0x7E, 255]  # the light theme's NaN
