"""The page as bytes: what it says is so, and it lets nothing run but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cli import FIXTURES, KERAS, SEED95, failure, run
from support.corpus import CORPUS
from support.neutral import make_cell, make_layer
from support.pages import Page, arrays_of, pixels, with_arrays

import lstmconvert as lc
from lstmconvert.errors import LSTMConvertError, UsageError
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.options import UNKNOWN
from lstmconvert.pictures import colours
from lstmconvert.pictures import page as pages
from lstmconvert.pictures.survey import farthest, survey, units_of

KB = 1000


def rng() -> np.random.Generator:
    return np.random.default_rng(15)


def looked(*args: object, **options: object) -> Page:
    return Page(pages.view(*args, **options).html)  # type: ignore[arg-type]


def test_the_example_answers_why_7_by_8() -> None:
    text = looked(SEED95).text
    assert "A row for each of the 7 inputs; a column for each of 4 gates × 2 units = 8." in text
    assert "The 18 time steps of Input((18, 7)) appear in no shape" in text
    assert "4·(7·2 + 2·2 + 2) = 80 parameters" in text
    assert "Kf = kernel[:, 2:4]" in text
    assert hashlib.sha256(SEED95.read_bytes()).hexdigest() in text
    assert "95, of them 80 in LSTM layers" in text


def test_the_numbers_in_the_cells_are_the_files() -> None:
    page = looked(SEED95)
    numbers = re.findall(r"<td class=v\d+[^>]*>([^<]*)", page.html)
    forget = lc.load(SEED95)["lstm"].forget_gate
    rows = np.concatenate([forget.kernel, forget.recurrent_kernel, forget.bias[None]])
    shown = numbers[20:40]
    assert [float(text.replace("−", "-")) for text in shown] == pytest.approx(
        rows.ravel().tolist(), abs=0.0005
    )
    assert numbers.count("−0") == 3  # stored so
    assert page.html.count('title="minus zero, as stored"') == 3


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rng().normal(size=(18, 7)))
    command = ["view", SEED95, "--input", tmp_path / "x.npy", "-o"]
    assert run(*command, tmp_path / "a.html").code == 0
    done = subprocess.run(
        [sys.executable, "-m", "lstmconvert", *map(str, command), str(tmp_path / "b.html")],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b""
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_its_policy_lets_only_its_own_style_and_script_work() -> None:
    html = looked(SEED95).html
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert style
    assert len(script) == 1

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert policy[1] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style[1])}'; "
        f"script-src 'sha256-{digest(script[0])}'; base-uri 'none'; form-action 'none'"
    )
    for tag, attributes in Page(html).elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert "style" not in attributes, tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert "http" not in html.replace('http-equiv="Content', "")


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "'-alert(1)-'\u202e<!--",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text(name: str) -> None:
    layer = make_layer(make_cell(rng(), 3, 2), name=name)
    plain = looked(make_layer(make_cell(rng(), 3, 2), name="lstm"), x=np.ones((4, 3)))
    other = make_layer(make_cell(rng(), 3, 4), name=name)
    custom = Activation("<img src=x>", custom=True)
    odd = make_layer(make_cell(rng(), 3, 2, activation=custom), name=name)
    page = looked(layer, x=np.ones((4, 3)))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    shown = name.replace("\u202e", r"\u202e")
    assert shown in page.text
    for more in (looked(layer, other), looked(odd, x=np.ones((4, 3)))):
        tags = [tag for tag, _ in more.elements]
        assert tags.count("script") == 1 + len(more.boards)
        assert not {"img", "svg"} & {tag for tag, attrs in more.elements if "onload" in attrs}
        assert "alert(1)>" not in re.sub(r"&[a-z#0-9]+;", "", more.html) or shown in more.text
        assert "\u202e" not in more.html


@pytest.mark.slow
@pytest.mark.parametrize(
    ("root", "least"), [(FIXTURES, 50), pytest.param(CORPUS, 20, marks=pytest.mark.corpus)]
)
def test_the_sum_is_the_files_count_for_every_file(root: Path, least: int) -> None:
    seen = 0
    for path in sorted(root.rglob("*")):
        if not path.name.endswith((".keras", ".h5", ".safetensors", ".onnx", ".pt", ".tflite")):
            continue
        try:
            model = lc.load(path)
        except LSTMConvertError:
            continue
        if model.parameters["lstm"] > 3_000_000:
            continue
        text = pages.view(model).html
        sums = re.findall(r"<p class=sum>([\d·+() ]+) = <b>([\d,]+)</b>", text)
        cells = [cell for layer in model.layers for _, _, cell in layer.cells()]
        for (left, right), cell in zip(sums, cells, strict=False):
            total = eval(left.replace("·", "*"))  # noqa: S307  # digits, as just matched
            assert total == cell.parameters == int(right.replace(",", "")), path
            seen += 1
    assert seen >= least


def test_parts_that_a_plain_lstm_does_not_have_have_their_clause_term_and_block() -> None:
    vectors = ("bias", "recurrent_bias", "peephole", "layer_norm", "layer_norm_bias")
    cell = make_cell(
        rng(), 4, 6, projected=3, gate_parts=vectors, gate_clip=3.0, cell_clip=10.0, forget_bias=1.0
    )
    page = looked(make_layer(cell))
    text = page.text
    assert "a row for each of the 3 projected outputs fed back" in text
    assert "each of the two biases, one row" in text
    assert "one more row, the cell gate has none" in text
    assert "a scale γ and a shift β for each column" in text
    assert "The projection turns 6 units into 3 outputs: 6×3." in text
    assert "σ(clip(norm(xt·Kf + ht−1·Rf; γf, βf) + bf + b′f + 1 + pf ⊙ ct−1, ±3))" in text
    assert "po ⊙ ct, ±3" in text
    assert "clip(f ⊙ ct−1 + i ⊙ c̃, ±10)" in text
    assert "(o ⊙ tanh(ct))·P" in text
    for name in ("second bias", "peephole", "norm scale", "norm shift", "projection"):
        assert f">{name}" in page.html
    assert "<td class=none>" in page.html  # the cell gate has no peephole


@pytest.mark.parametrize("shape", [(7, 2), (512, 512), (4096, 2048)])
def test_no_name_of_the_strip_is_cut(shape: tuple[int, int]) -> None:
    """A digit takes 7.3 pixels of a wide font; names end at `x`, and begin at 0 or later."""
    from lstmconvert.pictures.page import strips
    from lstmconvert.tensors.tensor import ArrayTensor

    units = shape[1]
    cell = make_cell(rng(), 1, 1, gate_parts=("bias", "recurrent_bias", "peephole"))
    sizes = {"kernel": shape, "recurrent_kernel": (units, units)}

    class Wide(ArrayTensor):
        """A tensor whose shape alone is asked for."""

        def __init__(self, shape: tuple[int, ...]) -> None:
            self.shape, self.dtype = shape, np.dtype("f4")

    gates = {
        gate: replace(w, tensors={p: Wide(sizes.get(p, (units,))) for p in w.tensors})
        for gate, w in cell.gates.items()
    }
    drawn = strips(replace(cell, gates=gates))
    names = re.findall(r'<text class="?t[^>]* x=(\d+)[^>]*>(.*?)</text>', drawn)
    assert len(names) >= 10
    for x, inner in names:
        assert 7.3 * len(re.sub("<[^>]*>", "", inner)) <= int(x), inner
    for width in re.findall(r"<svg [^>]*width=([\d.]+)", drawn):
        assert float(width) <= 520
    narrow = re.findall(r'<svg class="strip narrow" role=img width=([\d.]+)', drawn)
    assert float(narrow[0]) <= 300


def test_coupled_gates_and_no_bias() -> None:
    cell = make_cell(rng(), 4, 3, gate_parts=(), input_forget=True)
    text = looked(make_layer(cell)).text
    assert "3 gates × 3 units = 9" in text
    assert "There is no bias. The input gate is not stored: it is 1 − the forget gate." in text
    assert "i=1 − f" in text


def test_a_convolution_has_positions_channels_and_filters() -> None:
    text = looked(FIXTURES / "keras-2.3.1" / "conv_lstm.h5").text
    assert "A row for each of 3×2 positions × 2 channels = 12" in text
    assert "a column for each of 4 gates × 3 filters = 12. So the kernel is 3×2×2×12." in text
    assert "2 channels → 3 filters" in text
    assert "hard σ(xt ∗ Ki + ht−1 ∗ Ri + bi)" in text
    assert "hard σ is hard_sigmoid of Keras 1 and 2, clip(0.2*x + 0.5, 0, 1)" in text
    assert "ρ" not in text
    assert "read by others" not in text


def test_what_no_file_says_is_told_and_not_guessed() -> None:
    x = np.ones((5, 7))
    text = looked(KERAS / "seed95.weights.h5", x=x).text
    assert "unknown, because the file does not say it: activation, recurrent activation" in text
    assert "act?(xt·Ki" in text
    assert "Not computed: lstm: the source does not say" in text
    assert "--set lstm." in text
    assert "half-life: the file does not say the forget gate’s function" in text.replace("'", "’")


def test_a_bidirectional_and_a_stack_show_every_cell() -> None:
    page = looked(KERAS / "both_unlike.keras")
    assert [a["id"] for t, a in page.elements if t == "section" and a.get("class") == "cell"] == [
        "c0",
        "c1",
    ]
    assert "both · forward" in page.text
    assert "both · backward" in page.text
    text = looked(KERAS / "rnn_stack_gru.keras").text
    assert "is a GRUCell, no LSTM, and is not shown" in text


def test_pictures_hold_the_numbers_to_half_a_step() -> None:
    cell = make_cell(rng(), 90, 60, scale=0.1)
    arrays = arrays_of(cell)
    arrays[Gate.CELL]["kernel"][3, 4] = 7.5
    arrays[Gate.CELL]["recurrent_kernel"][5, 6] = np.nan
    layer = with_arrays(make_layer(cell), arrays)
    page = looked(layer)
    (board, *_) = page.boards
    half, reach = board["half"], board["reach"]
    for number, gate in enumerate(layer.cell.gates):
        indices, palette = pixels(page.pictures[number])
        weights = np.concatenate([layer.cell.gates[gate].kernel, arrays[gate]["recurrent_kernel"]])
        known = (indices[: len(weights)].astype(float) - half) / half * reach
        is_level = indices[: len(weights)] <= 2 * half
        within = np.abs(weights) <= reach
        assert (np.abs(known - weights)[is_level & within] <= reach / half / 2 + 1e-6).all()
        assert ((indices[: len(weights)] == 2 * half + 1) == ~np.isfinite(weights)).all()
        assert len(palette) == 3 * (2 * half + 3)
        places, values = board["sources"][0]["beyond"][number] or ["", ""]
        listed = dict(
            zip(
                np.frombuffer(base64.b64decode(places), "<u4").tolist(),
                np.frombuffer(base64.b64decode(values), "<f4").tolist(),
                strict=True,
            )
        )
        beyond = np.flatnonzero((np.abs(weights) > reach) & np.isfinite(weights))
        rows = {int(at): float(weights.ravel()[at]) for at in beyond}
        assert {at: v for at, v in listed.items() if at < weights.size} == rows
        bias = np.frombuffer(base64.b64decode(board["sources"][0]["vectors"][number]), "<f4")
        assert np.array_equal(bias, arrays[gate]["bias"])
    assert "not finite" in page.text


@pytest.mark.parametrize(
    ("shape", "most"),
    [
        ((257, 128), 300 * KB),
        pytest.param((512, 512), 3000 * KB, marks=pytest.mark.slow),
        ((7, 2), 80 * KB),
    ],
)
@pytest.mark.parametrize("kind", ["normal", "uniform", "heavy"])
def test_sizes(shape: tuple[int, int], most: int, kind: str) -> None:
    if shape == (512, 512) and kind != "uniform":
        pytest.skip("the smaller layer tells; once is enough for the large one")
    layer = make_layer(make_cell(rng(), *shape))
    arrays = arrays_of(layer.cell)
    draw = {
        "normal": lambda size: rng().normal(size=size) * 0.1,
        "uniform": lambda size: rng().uniform(-0.1, 0.1, size),
        "heavy": lambda size: rng().standard_t(3, size) * 0.1,
    }[kind]
    for parts in arrays.values():
        for part, array in parts.items():
            parts[part] = draw(array.shape).astype(np.float32)
    html = pages.view(with_arrays(layer, arrays)).html
    assert len(html.encode()) <= most


@pytest.mark.slow
def test_a_large_cell_is_reduced_by_blocks_that_keep_the_extremes() -> None:
    layer = make_layer(make_cell(rng(), 300, 200, scale=0.1))
    arrays = arrays_of(layer.cell)
    arrays[Gate.OUTPUT]["kernel"][123, 77] = -3.25
    layer = with_arrays(layer, arrays)
    found = survey(layer.cell, most_dots=20_000)
    assert found.block == 5
    dots = found.gates[Gate.OUTPUT].dots
    assert dots[123 // 5, 77 // 5] == np.float32(-3.25)
    assert sum(gate.dots.size for gate in found.gates.values()) <= 20_000
    whole = survey(layer.cell)
    for gate, known in whole.gates.items():
        reduced = found.gates[gate]
        assert np.allclose(known.squares, reduced.squares)
        places = [(one.largest.row, one.largest.unit) for one in (known, reduced)]
        assert places[0] == places[1]
        assert known.radius == pytest.approx(reduced.radius, rel=1e-5)
        assert known.spread["kernel"].to_json() == pytest.approx(reduced.spread["kernel"].to_json())


def test_blocks_at_the_edges_and_what_is_not_finite() -> None:
    numbers = rng().normal(size=(7, 5)).astype(np.float32)
    numbers[6, 4] = np.nan
    dots = farthest(numbers, 3)
    assert dots.shape == (3, 2)
    for row in range(3):
        for col in range(2):
            block = numbers[3 * row : 3 * row + 3, 3 * col : 3 * col + 3].ravel()
            if np.isnan(block).any():
                assert np.isnan(dots[row, col])
            else:
                assert dots[row, col] == block[np.argmax(np.abs(block))]


def planted() -> LSTMLayer:
    """A layer of 64 units: 7 dead, 11's input gate stuck shut, 13's forget gate stuck open, 21 a
    twin of 20, 31 one of 30 in the same bits."""
    layer = make_layer(make_cell(rng(), 40, 64, scale=0.05))
    arrays = arrays_of(layer.cell)
    for array in arrays[Gate.CELL].values():
        array[..., 7] = 0
    arrays[Gate.INPUT]["bias"][11] = -60
    arrays[Gate.FORGET]["bias"][13] = 70
    for parts in arrays.values():
        for part, array in parts.items():
            array[..., 31] = array[..., 30]
            array[..., 21] = array[..., 20] * (1.002 if part != "bias" else 1)
    return with_arrays(layer, arrays)


def test_planted_units_are_flagged_and_no_others() -> None:
    facts = units_of(survey(planted().cell))
    assert facts.flags == {
        7: ["dead"],
        11: ["input stuck shut"],
        13: ["forget stuck open"],
        21: ["twin of 20"],
        31: ["twin of 30, same bits"],
    }
    page = looked(planted())
    assert "5 of 64 units are flagged." in page.text


def test_flags_are_so_when_the_layer_runs() -> None:
    from lstmconvert import reference

    layer = planted()
    x = rng().uniform(-1, 1, (30, 40))
    taken = reference.trace(layer, x)["forward", 0]
    assert not taken.hidden[:, 7].any()
    assert (taken.gates[Gate.INPUT][:, 11] < 0.01).all()
    assert (taken.gates[Gate.FORGET][:, 13] > 0.99).all()
    assert np.array_equal(taken.hidden[:, 31], taken.hidden[:, 30])


def test_half_life_is_the_number_of_steps_that_halve_a_state() -> None:
    layer = make_layer(make_cell(rng(), 3, 2))
    arrays = arrays_of(layer.cell)
    for parts in arrays.values():
        for part in parts:
            parts[part][:] = 0
    arrays[Gate.FORGET]["bias"][:] = [2.0, 5.0]
    found = survey(with_arrays(layer, arrays).cell)
    lives = units_of(found).half_life
    assert lives is not None
    kept = 1 / (1 + np.exp(-np.array([2.0, 5.0])))
    assert kept**lives == pytest.approx([0.5, 0.5])


def test_rules_that_do_not_hold_are_left_out_and_told() -> None:
    relu = Activation("relu")
    facts = units_of(survey(make_cell(rng(), 3, 2, activation=relu)))
    assert any("relu does not bound" in text for text in facts.left_out)
    facts = units_of(survey(make_cell(rng(), 3, 2, gate_parts=("bias", "peephole"))))
    assert any("peephole" in text for text in facts.left_out)
    facts = units_of(survey(make_cell(rng(), 3, 2, recurrent_activation=UNKNOWN)))
    assert facts.half_life is None
    facts = units_of(survey(make_cell(rng(), 3, 4, projected=2)))
    assert facts.read_by is None


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_every_dtype(dtype: str) -> None:
    cell = make_cell(rng(), 4, 3, dtype=dtype)
    board = looked(make_layer(cell)).boards[0]
    kind = "<f8" if dtype == "float64" else "<f4"
    numbers = np.frombuffer(base64.b64decode(board["sources"][0]["exact"]), kind)
    wanted = [
        np.concatenate([w.kernel, w.recurrent_kernel, w.bias[None]]).ravel()
        for w in cell.gates.values()
    ]
    assert np.array_equal(numbers, np.concatenate(wanted).astype(kind))


# -- Two sources -----------------------------------------------------------------------------------


def nudged(layer: LSTMLayer, amount: float = 0.1) -> LSTMLayer:
    arrays = arrays_of(layer.cell)
    arrays[Gate.FORGET]["kernel"][0, 1] += np.float32(amount)
    bias = arrays[Gate.OUTPUT]["bias"]
    bias[1] = np.nextafter(bias[1], np.float32(9))
    return with_arrays(layer, arrays)


def test_two_sources_say_what_differs() -> None:
    layer = lc.load(SEED95)["lstm"]
    page = looked(layer, nudged(layer))
    assert "2 of 80 weights differ; the largest difference is 0.100" in page.text
    assert page.html.count("<td class=same>=") == 78
    board = page.boards[0]
    one, two = (
        np.frombuffer(base64.b64decode(source["exact"]), "<f4") for source in board["sources"]
    )
    assert int((one.view("u4") != two.view("u4")).sum()) == 2
    assert "Difference" not in looked(layer).text
    assert "All 80 weights of the gates are equal, bit for bit." in looked(SEED95, SEED95).text


def test_a_difference_too_small_for_a_colour_is_marked() -> None:
    layer = make_layer(make_cell(rng(), 90, 60, scale=0.1))
    page = looked(layer, nudged(layer))
    board = page.boards[-1]
    marks = sum(
        int((pixels(picture)[0] == 2 * board["half"] + 2).sum()) for picture in page.pictures[-4:]
    )
    assert marks == 1
    assert len(page.boards[0]["sources"][1]["png"]) == 4


def test_other_options_and_shapes_and_layers() -> None:
    one = make_layer(make_cell(rng(), 3, 2), name="a")
    other = make_layer(make_cell(rng(), 3, 2, activation=Activation("relu")), name="a")
    text = looked(one, other).text
    assert "activationtanhrelu" in text.replace(" ", "")
    wider = make_layer(make_cell(rng(), 3, 4), name="a")
    text = looked(one, wider).text
    assert "The shapes differ, so the numbers are not compared" in text
    assert "(3, 2) in A and (3, 4) in B" in text
    stranger = make_layer(make_cell(rng(), 9, 5), name="b")
    text = looked(one, stranger).text
    assert "Only in A: a." in text
    assert "Only in B: b." in text


# -- Over time -------------------------------------------------------------------------------------


def test_an_input_over_time_is_the_references() -> None:
    from lstmconvert import reference

    layer = lc.load(SEED95)["lstm"]
    x = rng().normal(size=(18, 7))
    page = looked(layer, x=x)
    taken = reference.trace(layer, x)["forward", 0]
    board = page.boards[-1]
    numbers = np.frombuffer(base64.b64decode(board["sources"][0]["exact"]), "<f4")
    wanted = [taken.gates[g] for g in (Gate.INPUT, Gate.FORGET, Gate.CELL, Gate.OUTPUT)]
    wanted += [taken.carry, taken.hidden]
    assert np.array_equal(numbers, np.concatenate([w.T.ravel() for w in wanted]))
    assert "18 steps of the given input" in page.text


def test_masked_steps_are_hatched_and_not_judged() -> None:
    layer = make_layer(make_cell(rng(), 3, 2))
    x = rng().normal(size=(6, 3))
    x[[1, 4]] = -1
    page = looked(layer, x=x, mask_value=-1)
    assert page.boards[-1]["masked"] == [1, 4]
    assert "2 of them masked (hatched)" in page.text
    masked = replace(layer, options=replace(layer.options, masked=True))
    assert "In its model a mask reaches this layer" in looked(masked, x=x).text


def test_a_projection_and_a_convolution_and_a_backward_half_over_time() -> None:
    layer = make_layer(make_cell(rng(), 4, 6, projected=3))
    board = looked(layer, x=rng().normal(size=(5, 4))).boards[-1]
    assert board["bands"][0]["rows"] == 3
    settings = {"strides": 1, "dilation_rate": 1, "padding": "same", "data_format": "channels_last"}
    layer = make_layer(make_cell(rng(), 2, 3, window=(3, 2), convolution=settings))
    text = looked(layer, x=rng().normal(size=(4, 5, 4, 2))).text
    assert "A row is a filter’s mean over all positions." in text
    text = looked(KERAS / "both_concat.keras", x=rng().normal(size=(4, 5))).text
    assert "This direction reads the steps from the last to the first." in text


def test_two_sources_over_time_and_their_difference() -> None:
    layer = lc.load(SEED95)["lstm"]
    page = looked(layer, nudged(layer), x=rng().normal(size=(5, 7)))
    times = [board for board in page.boards if board["kind"] == "t"]
    one, two, change = (
        np.frombuffer(base64.b64decode(board["sources"][0]["exact"]), "<f4") for board in times
    )
    assert np.array_equal(two - one, change)
    assert change.any()
    assert "B − A" in page.text


def test_a_batch_is_its_first_and_said_so() -> None:
    text = looked(SEED95, x=rng().normal(size=(3, 5, 7))).text
    assert "The first of 3 sequences." in text


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not fit the layer"):
        pages.view(SEED95, x=np.ones(7))
    with pytest.raises(UsageError, match="holds no numbers"):
        pages.view(SEED95, x=np.array([["a"]]))
    with pytest.raises(UsageError, match="there is none"):
        pages.view(SEED95, mask_value=0)
    with pytest.raises(UsageError, match="an input feeds one layer") as caught:
        pages.view(KERAS / "zoo.keras", x=np.ones((3, 7)))
    assert "--layer" in str(caught.value.hint)
    text = looked(SEED95, x=np.ones((4, 5))).text
    assert "Not computed: lstm: the input does not fit the layer" in text
    table = tmp_path / "x.csv"
    table.write_text("1,2,3\n4,five,6\n")
    error, _ = failure("view", SEED95, "--input", table, "-o", tmp_path / "x.html")
    assert "row 2 of the numbers is not a time step; found 'five'" in error
    assert not (tmp_path / "x.html").exists()


def test_a_table_above_its_limit_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("1,2,3,4,5,6,7\n")
    done = run("view", SEED95, "--input", table, "-o", tmp_path / "p.html",
               LSTMCONVERT_MAX_CSV_BYTES="13")  # fmt: skip
    assert (done.code, (tmp_path / "p.html").exists()) == (2, False)
    assert "LSTMCONVERT_MAX_CSV_BYTES=14" in done.err


@pytest.mark.parametrize("head", ["", "a,b,c,d,e,f,g\n", "\ufeff"])
def test_a_csv_gives_the_page_of_its_numbers(tmp_path: Path, head: str) -> None:
    x = rng().normal(size=(4, 7))
    rows = "\n".join(",".join(map(repr, map(float, row))) for row in x)
    (tmp_path / "x.csv").write_text(head + rows + "\n", encoding="utf-8")
    path = tmp_path / "page.html"
    assert run("view", SEED95, "--input", tmp_path / "x.csv", "-o", path).code == 0
    assert path.read_text(encoding="utf-8") == pages.view(SEED95, x=x).html


# -- The command, and pages of many cells ----------------------------------------------------------


def test_the_command_writes_and_refuses_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SEED95.resolve()
    monkeypatch.chdir(tmp_path)
    code, out, err = run("view", source)
    assert (code, out, err) == (0, "", "wrote seed95.keras.html\n")
    error, hint = failure("view", source)
    assert "the destination exists" in error
    assert hint == "--force replaces it"
    assert run("view", source, "--force").code == 0
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert run("view", source, "-o", "b.html", "--open").code == 0
    assert opened == [(tmp_path / "b.html").as_uri()]
    assert (
        "no LSTM layer of that name" in failure("view", source, "-o", "c.html", "--layer", "x")[0]
    )
    assert "give --input too" in failure("view", source, "-o", "c.html", "--mask-value", "0")[0]
    assert failure("view", source, "-o", source)[0].endswith("are the same file")


def test_options_that_weights_do_not_say_may_be_given(tmp_path: Path) -> None:
    config = KERAS / "seed95.keras"
    np.save(tmp_path / "x.npy", np.ones((3, 7)))
    path = tmp_path / "page.html"
    command = ["view", KERAS / "seed95.weights.h5", "--input", tmp_path / "x.npy", "-o", path]
    assert run(*command, "--config", config).code == 0
    assert "Not computed" not in path.read_text(encoding="utf-8")
    assert run(*command, "--force", "--set", "activation=tanh").code == 0
    assert "Not computed" in path.read_text(encoding="utf-8")


def test_a_model_of_many_cells_draws_some_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [make_layer(make_cell(rng(), 3, 2), name=f"l{i}") for i in range(6)]
    model = lc.Model(layers=tuple(layers), source=lc.load(SEED95).source)
    monkeypatch.setattr(pages, "MOST_CELLS", 4)
    page = looked(model)
    assert page.html.count("<section class=cell") == 4
    assert "The first 4 of 6 cells are drawn; --layer NAME draws another layer’s." in page.text
    assert page.html.count("<tr><th scope=row>") > 6
    assert "l5" in page.text
    alone = looked(model, layer="l5")
    assert alone.html.count("<section class=cell") == 1


def test_a_page_in_a_notebook_is_a_frame_of_its_own() -> None:
    html = pages.view(SEED95)._repr_html_()
    assert html.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert html.count("<") == 2


@pytest.mark.slow
def test_a_model_of_600_mb_takes_one_pass_and_150_mb(tmp_path: Path) -> None:
    """One pass: each byte of the weights is read once. The whole process stays under 150 MB."""
    path = tmp_path / "huge.safetensors"
    units, inputs = 4096, 5064  # 4 * units * (inputs + units + 1) * 4 bytes = 600 MB
    header = {}
    at = 0
    for gate in Gate:
        for part, shape in (
            ("kernel", (inputs, units)),
            ("recurrent_kernel", (units, units)),
            ("bias", (units,)),
        ):
            size = 4 * int(np.prod(shape))
            name = f"lstm.{gate}_gate.{part}"
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = rng().normal(size=1 << 18).astype("<f4").tobytes()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        left = at
        while left:
            left -= file.write(block[: min(left, len(block))])
    code = f"""
from lstmconvert import blas
blas.single()
from lstmconvert.tensors import tensor
read = 0
fill = tensor.SourceFile._fill
def counted(self, buffer, offset):
    global read
    read += len(buffer)
    return fill(self, buffer, offset)
tensor.SourceFile._fill = counted
from lstmconvert.pictures.page import view
html = view({str(path)!r}).html
# Not `ru_maxrss`: it holds the memory of the process that started this one.
with open("/proc/self/status") as status:
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
print(peak, read, len(html), "farthest from 0 of a block of" in html)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    peak, read, size, says_so = done.stdout.split()
    assert at >= 600e6
    assert int(peak) * 1024 < 150e6
    assert int(read) < 2.05 * at  # the SHA-256 of the file reads every byte once more
    assert int(size) < 6e6
    assert says_so == "True"


# -- Colours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", colours.THEMES)
def test_colours_are_readable_and_fall_evenly(theme: str) -> None:
    scale = colours.scale(theme)
    worst = min(
        colours.contrast(ink, colour)
        for ink, colour in zip(colours.inks(theme), scale, strict=True)
    )
    assert worst >= 4.5
    lights = [colours._to_oklab(colours._rgb(colour))[0] for colour in scale]
    steps = np.diff(lights)
    toward, away = steps[: colours.MIDDLE], steps[colours.MIDDLE :]
    sign = 1 if theme == "light" else -1
    assert (sign * toward > 0).all()
    assert (sign * away < 0).all()
    assert np.abs(np.array(lights) - lights[::-1]).max() < 0.05
    table = colours.PAGE[theme]
    for letter in "ifco":
        assert colours.contrast(table[letter], table["card"]) >= 4.5
        assert colours.contrast(table[letter], table["chip"]) >= 4.5
    assert colours.contrast(table["quiet"], table["card"]) >= 4.5
    assert scale[colours.MIDDLE] == {"light": "#f1f1ef", "dark": "#2a2d33"}[theme]
