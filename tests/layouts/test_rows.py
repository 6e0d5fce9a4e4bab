"""The table's rows: checked when they are made, and enough to add a framework by data alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from support import toy as support_toy
from support.neutral import make_cell, make_layer
from support.thinned import each, rounds

import lstmconvert as lc
from lstmconvert.containers import table
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layouts import rows
from lstmconvert.layouts.arrange import arrange
from lstmconvert.layouts.gather import ModuleStructure, gather
from lstmconvert.layouts.row import Form, Names, Row, Slot
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.activations import ANY, KERAS3, Functions
from lstmconvert.model.gates import by_letters
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import same_bits
from lstmconvert.tensors.tensor import ArrayTensor

#: A slot and a row with nothing wrong, which each case changes.
SLOT: dict[str, Any] = {"key": "{d}{k}W", "parts": ("kernel",)}
ROW: dict[str, Any] = {
    "name": "toy",
    "title": "Toy LSTM",
    "slots": (
        Slot(**SLOT),
        Slot(key="{d}{k}U", parts=("recurrent_kernel",)),
        Slot(key="{d}{k}b", parts=("bias",)),
    ),
    "evidence": "made up",
    "hint": "It is not a framework.",
}

BAD_SLOTS: dict[str, dict[str, Any]] = {
    "parts that are unknown": {"parts": ("kernle",)},
    "or listed twice": {"parts": ("bias", "bias")},
    "no others": {"key": "{d}{x}W"},
    "cannot be one array": {"parts": ("kernel", "bias")},
    "cannot be one array: .*projection": {"parts": ("projection", "kernel")},
    "other parts do not": {"parts": ("bias", "recurrent_bias"), "below": True},
    "a matrix has no form": {"form": Form.COLUMN},
    "a vector is not transposed": {"parts": ("bias",), "transposed": True},
    "those of one part": {"parts": ("kernel", "recurrent_kernel"), "interleaved": True},
    "and no first axis": {"leading": True, "interleaved": True},
    "has no axis of gates": {"key": "{gate}W", "leading": True},
    "of none, has no axis of gates": {"parts": ("projection",), "interleaved": True},
    "is the form": {"parts": ("bias",), "leading": True, "form": Form.ROW},
    "no place for {gate}": {"gates": Names("i", "f", "c", "o")},
    "only a bias is filled": {"filled": True},
    "an order of other gates": {"order": "ifg"},
    "an order of other gates than cfio: iof": {"order": "iof"},
    "an order of other gates than fio": {"parts": ("peephole",), "order": "ifco"},
    "no peephole": {"parts": ("peephole",)},
}
BAD_ROWS: dict[str, dict[str, Any]] = {
    "no hint": {"hint": ""},
    "no evidence": {"evidence": " "},
    "no title": {"title": ""},
    "lists unknown options: go_backward": {"expresses": frozenset({"go_backward"})},
    "lists unknown options: merge_mode": {"expresses": frozenset({"merge_mode"})},
    "unknown dtypes": {"dtypes": ("float8",)},
    "merge modes that are unknown": {"merge_modes": ("concat", "add")},
    "lack concat": {"merge_modes": ("sum",)},
    "no order of the four gates": {"order": "ifgo"},
    "no halves": {"single": True, "alike": True},
    "are not an axis": {"paired": True, "joined": True},
    "no format of a number": {"index": "cells."},
    "no part has two slots": {"slots": (*ROW["slots"], Slot(key="c", parts=("bias",)))},
    "a kernel and a recurrent kernel are needed": {"slots": ROW["slots"][:1]},
    "two arrays would be called 'forward.cells.0.W'": {
        "slots": (*ROW["slots"], Slot(key="{d}{k}W", parts=("peephole",), order="ifo"))
    },
    "two arrays would be called 'W'": {
        "slots": (Slot(key="W", parts=("kernel",)), *ROW["slots"][1:])
    },
}


@each("words", BAD_SLOTS)
def test_a_slot_is_checked_when_it_is_made(words: str) -> None:
    Slot(**SLOT)
    with pytest.raises(ValueError, match=rf"slot '.*': .*{words}"):
        Slot(**SLOT | BAD_SLOTS[words])


@each("words", BAD_ROWS)
def test_a_row_is_checked_when_it_is_made(words: str) -> None:
    Row(**ROW)
    with pytest.raises(ValueError, match=rf"row 'toy': .*{words}"):
        Row(**ROW | BAD_ROWS[words])


# ---- toy frameworks, by data alone --------------------------------------------------------------

#: The gates as a first axis; kernels turned, above each other or apart; the biases in one array.
TOYS: dict[str, tuple[Slot, ...]] = {
    "first axis": (
        Slot(key="{d}{k}W", parts=("kernel",), leading=True),
        Slot(key="{d}{k}U", parts=("recurrent_kernel",), leading=True, transposed=True),
        Slot(key="{d}{k}b", parts=("bias",), leading=True),
    ),
    "first axis, above each other": (
        Slot(key="{d}{k}W", parts=("kernel", "recurrent_kernel"), below=True, leading=True),
        Slot(key="{d}{k}b", parts=("bias", "recurrent_bias"), leading=True, order="iofc"),
    ),
    "first axis, side by side": (
        Slot(
            key="{d}{k}W",
            parts=("kernel", "recurrent_kernel"),
            below=True,
            leading=True,
            transposed=True,
        ),
        Slot(key="{d}{k}b", parts=("bias",), form=Form.ROW),
        Slot(key="{d}{k}p", parts=("peephole",), leading=True, order="ofi"),
    ),
    "turned, side by side": (
        Slot(key="{d}{k}W", parts=("kernel", "recurrent_kernel"), below=True, transposed=True),
        Slot(key="{d}{k}{gate}", parts=("bias",), form=Form.COLUMN),
    ),
    "alternating": (
        Slot(key="{d}{k}W", parts=("kernel",), interleaved=True),
        Slot(key="{d}{k}U", parts=("recurrent_kernel",), interleaved=True, transposed=True),
        Slot(key="{d}{k}b", parts=("bias",), interleaved=True),
    ),
}


def toy(name: str, **facts: Any) -> Row:
    return Row(**ROW | {"slots": TOYS[name], "order": "cofi"} | facts)


@pytest.mark.parametrize("name", TOYS)
@settings(max_examples=rounds(8), deadline=None)
@given(
    inputs=st.integers(1, 5),
    units=st.integers(1, 5),
    both=st.booleans(),
    joined=st.booleans(),
    depth=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_a_toy_layout_comes_back_bit_for_bit(
    name: str, inputs: int, units: int, both: bool, joined: bool, depth: int, seed: int
) -> None:
    slots = TOYS[name]
    if joined:
        keys = [slot.key.replace("{d}", "") for slot in slots]
        slots = tuple(replace(s, key=key) for s, key in zip(slots, keys, strict=True))
    row = toy(name, slots=slots, joined=joined, bidirectional=joined)
    rng = np.random.default_rng(seed)
    parts = [part for part in ("bias", "recurrent_bias", "peephole") if part in row.parts]

    def half() -> list[Any]:
        sizes = [inputs, units, units][: depth + 1]
        return [make_cell(rng, sizes[k], units, gate_parts=parts) for k in range(depth)]

    layer = make_layer(*[half() for _ in range(1 + both)])
    arrays = arrange([layer], row)
    again = {key: ArrayTensor(tensor.read()) for key, tensor in arrays.items()}
    (found,), used = gather(again, row, ModuleStructure(depth=depth, both=both), "lstm")
    assert used == set(arrays)
    for one, two in zip(layer.cells(), found.cells(), strict=True):
        for (key, tensor), (other, back) in zip(one[2].tensors(), two[2].tensors(), strict=True):
            assert key == other
            assert same_bits(tensor.read(), back.read()), key


def test_a_leading_gate_axis_is_the_documented_one() -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    arrays = {key: tensor.read() for key, tensor in arrange([layer], toy("first axis")).items()}
    gates = [layer.cell.gates[gate] for gate in by_letters("cofi")]
    assert same_bits(arrays["W"], np.stack([gate.kernel for gate in gates]))
    assert arrays["W"].shape == (4, 3, 2)
    assert same_bits(arrays["U"], np.stack([gate.recurrent_kernel.T for gate in gates]))
    biases = [gate.bias for gate in gates if gate.bias is not None]
    assert same_bits(arrays["b"], np.stack(biases))


@pytest.mark.parametrize("shape", [(5, 3, 2), (4, 6), (4, 3, 2, 1), (3, 8), (4,), ()])
def test_another_shape_than_a_leading_gate_axis_is_refused(shape: tuple[int, ...]) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    arrays = dict(arrange([layer], toy("first axis")))
    arrays["W"] = ArrayTensor(np.zeros(shape, np.float32))
    with pytest.raises(lc.LSTMConvertError, match="W: an array of a shape that Toy LSTM"):
        gather(arrays, toy("first axis"), ModuleStructure(), "lstm")


def test_a_row_in_the_table_is_all_that_a_framework_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One entry, and files of the toy are written, known by their names, told and refused."""
    facts: dict[str, Any] = {
        "activation": ANY,
        "recurrent_activation": Functions((KERAS3["sigmoid"], KERAS3["hard_sigmoid"])),
        "dtypes": ("float32",),
        "recognised": True,
        "slots": (
            Slot(key="{d}{k}toy_W", parts=("kernel",), leading=True),
            Slot(key="{d}{k}toy_U", parts=("recurrent_kernel",), leading=True),
            Slot(key="{d}{k}toy_b", parts=("bias",), leading=True),
        ),
    }
    monkeypatch.setitem(rows._TABLE, "toy", toy("first axis", **facts))
    path = tmp_path / "toy.safetensors"
    cell = make_cell(np.random.default_rng(1), 3, 2, activation=KERAS3["mish"])
    layer = make_layer(cell, return_sequences=True)
    result = lc.save(_model(layer), path, layout="toy")
    assert any("the caller passes activation=mish" in text for text in result.warnings)
    for file in (path, _without_metadata(path)):
        found = lc.load(file)["lstm"]
        assert same_bits(found.forget_gate.kernel, layer.forget_gate.kernel)
    assert lc.load(_without_metadata(path)).layout == "toy"
    for refused in (
        make_layer(make_cell(np.random.default_rng(1), 3, 2, dtype="float16")),
        make_layer(
            make_cell(np.random.default_rng(1), 3, 2, recurrent_activation=KERAS3["relu"])
        ),
    ):
        with pytest.raises(lc.LSTMConvertError, match="Toy LSTM cannot express"):
            lc.save(_model(refused), path, layout="toy", force=True)


def _model(layer: LSTMLayer) -> Model:
    return Model(layers=(layer,), source=Source(container="live"), container="live")


def _without_metadata(path: Path) -> Path:
    bare = path.with_name("bare.safetensors")
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), bare)
    return bare


# ---- every row of the table ---------------------------------------------------------------------


@each("layout", sorted(ROWS))
def test_what_a_row_allows_is_taken_and_nothing_else(layout: str) -> None:
    """At each border of a row's data: functions, merge modes and dtypes."""
    row = ROWS[layout]
    rng = np.random.default_rng(2)
    options = {"forget_bias": row.forget_bias}
    halves = 2 if row.paired else 1

    def attempt(made: dict[str, Any], count: int = halves, **run: Any) -> str | None:
        cells = [make_cell(rng, 3, 2, **options | made) for _ in range(count)]
        try:
            lc.arrange(make_layer(*cells, **run), layout)
        except UnsupportedByTarget as error:
            return error.option
        return None

    for dtype in ("float32", "float16", "bfloat16", "float64"):
        assert attempt({"dtype": dtype}) == (None if dtype in row.dtypes else "dtype")
    for option in ("activation", "recurrent_activation"):
        allowed = getattr(row, option)
        for activation in KERAS3.values():
            wanted = None if activation in allowed else option
            assert attempt({option: activation}) == wanted, activation
    if not row.single:
        for mode in ("concat", "sum", "mul", "ave", None):
            wanted = mode in row.merge_modes or not row.bidirectional
            assert attempt({}, 2, merge_mode=mode) == (None if wanted else "merge_mode"), mode


def test_a_framework_with_a_file_of_its_own_is_one_row_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A row here and a row and module of a container: `.toy` is the toy framework's own file."""
    own = support_toy.ROW._replace(layouts=("toy",), default="toy", fixed=True)
    monkeypatch.setattr(table, "CONTAINERS", (*table.CONTAINERS, own))
    monkeypatch.setitem(rows._TABLE, "toy", toy("first axis"))
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2), return_sequences=True)
    done = lc.save(_model(layer), tmp_path / "x.toy")
    assert (done.container, done.layout) == ("toy", "toy")
    found = lc.load(tmp_path / "x.toy")
    assert (found.container, found.layout) == ("toy", "toy")
    for (key, tensor), (other, back) in zip(
        layer.cell.tensors(), found["lstm"].cell.tensors(), strict=True
    ):
        assert key == other
        assert same_bits(tensor.read(), back.read()), key
    assert b"lstm.W float32 4x3x2" in (tmp_path / "x.toy").read_bytes()
