"""What a layout does not hold is told, asked for or refused: nothing goes without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert.containers import table
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.activations import KERAS3
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.model.options import UNKNOWN

BOTH = sorted(name for name, row in ROWS.items() if not row.single)


def made(layout: str, both: bool = True, cell: Any = None, **run: Any) -> LSTMLayer:
    rng = np.random.default_rng(5)
    options = {"forget_bias": ROWS[layout].forget_bias} | (cell or {})
    cells = [make_cell(rng, 3, 2, **options) for _ in range(1 + both)]
    return make_layer(*cells, **run)


def told(layer: LSTMLayer, layout: str, folder: Path, container: str = "safetensors") -> str:
    """Return the warnings with which a layer is written."""
    row = table.container(container)
    assert row is not None
    model = Model(layers=(layer,), source=Source(container="live"), container="live")
    path = folder / f"x{row.suffixes[0]}"
    return "\n".join(lc.save(model, path, layout=layout, force=True).warnings)


def holds(container: str, layout: str) -> bool:
    row = table.container(container)
    return row is not None and row.holds(layout)


ARRAYS = [name for name in BOTH if holds("safetensors", name)]


@each("layout", ARRAYS)
@each("mode", ["concat", "sum", "ave", None, UNKNOWN])
def test_a_merge_mode_is_told_where_the_caller_joins(
    layout: str, mode: Any, tmp_path: Path
) -> None:
    """The framework joins in one way alone, or its user passes the mode, or its user joins."""
    row = ROWS[layout]
    layer = made(layout, merge_mode=mode, return_sequences=True)
    if row.bidirectional and mode not in (*row.merge_modes, UNKNOWN):
        with pytest.raises(lc.LSTMConvertError, match="cannot express merge_mode"):
            told(layer, layout, tmp_path)
        return
    text = told(layer, layout, tmp_path)
    if not row.bidirectional:
        verb = {"concat": "concatenates", "sum": "adds", "ave": "averages", None: "keeps"}
        assert verb.get(mode, "joins the two as the model does") in text
    elif len(row.merge_modes) == 1:
        assert ("does not say how its two halves are joined" in text) is (mode is UNKNOWN)
    else:
        assert (f"merge_mode={mode}" in text) is (mode != "concat")


@pytest.mark.parametrize("layout", [n for n in ROWS if "go_backwards" in ROWS[n].expresses])
def test_the_direction_of_time_is_told_where_the_caller_passes_it(
    layout: str, tmp_path: Path
) -> None:
    for backwards in (False, True, UNKNOWN):
        layer = made(layout, both=False, go_backwards=backwards, return_sequences=True)
        text = told(layer, layout, tmp_path)
        assert (f"the caller passes go_backwards={backwards}" in text) is (backwards is not False)


@each("layout", [n for n in ARRAYS if ROWS[n].bidirectional])
@each("sequences", [False, True])
def test_one_step_of_two_directions_is_told_where_every_step_is_given(
    layout: str, sequences: bool, tmp_path: Path
) -> None:
    layer = made(layout, return_sequences=sequences)
    wanted = not sequences and not ROWS[layout].gives_last
    text = told(layer, layout, tmp_path)
    assert ("gives every step: with return_sequences=False" in text) is wanted
    assert ("first 2 columns" in text) is wanted


@pytest.mark.parametrize("option", ["gate_clip", "cell_clip", "projection_clip"])
def test_clips_are_told_where_the_caller_passes_them(option: str, tmp_path: Path) -> None:
    for layout in (name for name, row in ROWS.items() if option in row.expresses):
        part = {"projected": 1} if option == "projection_clip" else {}
        layer = made(layout, both=False, cell={option: 0.5, **part}, return_sequences=True)
        assert f"the caller passes {option}=0.5" in told(layer, layout, tmp_path), layout


def test_the_options_of_a_convolution_are_told(tmp_path: Path) -> None:
    options = {"kernel_size": [2, 2], "strides": [1, 1], "padding": "same"}
    cell = {"window": (2, 2), "convolution": options}
    layer = made("keras", both=False, cell=cell, return_sequences=True)
    assert "padding=same" in told(layer, "keras", tmp_path)


DOCUMENTS = [
    (row.layouts[0], row.name) for row in table.written() if row.document and row.layouts
]


@pytest.mark.parametrize(("layout", "container"), DOCUMENTS)
def test_a_document_says_the_options_itself(layout: str, container: str, tmp_path: Path) -> None:
    row = ROWS[layout]
    cell: dict[str, Any] = {}
    for option in ("activation", "recurrent_activation"):
        for other in (KERAS3["relu"], KERAS3["linear"]):
            if other in getattr(row, option):
                cell[option] = other
    both = not row.single
    layer = made(
        layout, both=both, cell=cell, merge_mode=row.merge_modes[-1], return_sequences=True
    )
    assert "the caller passes" not in told(layer, layout, tmp_path, container)
    # And what it would have to say is asked for.
    for option in cell:
        unknown = made(layout, both=both, cell={**cell, option: UNKNOWN}, return_sequences=True)
        with pytest.raises(lc.LSTMConvertError, match=f"unknown: {option}"):
            told(unknown, layout, tmp_path, container)


# ---- ONNX graphs that join their directions in no way of Keras's --------------------------------


def unmerged(path: Path) -> Path:
    """A bidirectional node whose output (steps, directions, batch, units) leaves the graph."""
    rng = np.random.default_rng(3)
    shapes = {"W": (2, 8, 3), "R": (2, 8, 2), "B": (2, 16)}
    values = [
        numpy_helper.from_array(rng.normal(size=shape).astype("f4"), name)
        for name, shape in shapes.items()
    ]
    node = helper.make_node(
        "LSTM", ["x", *shapes], ["y"], "lstm", direction="bidirectional", hidden_size=2
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2, 1, 2])],
        values,
    )
    onnx.save(helper.make_model(graph), path)
    return path


@each("layout", [n for n in ARRAYS if not ROWS[n].forget_bias])
def test_two_directions_that_nothing_joins_need_no_merge_mode(layout: str, tmp_path: Path) -> None:
    """A target without that option does not ask for it."""
    done = lc.convert(unmerged(tmp_path / "x.onnx"), tmp_path / "y.safetensors", layout=layout)
    assert "merge_mode" in "\n".join(done.warnings) or not ROWS[layout].bidirectional
    back = lc.load(tmp_path / "y.safetensors")["lstm"]
    assert back.options.merge_mode is UNKNOWN


def test_a_target_that_joins_them_asks(tmp_path: Path) -> None:
    with pytest.raises(lc.LSTMConvertError, match="unknown: merge_mode"):
        lc.convert(unmerged(tmp_path / "x.onnx"), tmp_path / "y.keras")
    done = lc.convert(
        tmp_path / "x.onnx", tmp_path / "y.keras", settings=["merge_mode=sum"]
    )
    assert done.written


def test_a_loss_that_is_allowed_is_declared_and_stays_in_the_metadata(tmp_path: Path) -> None:
    layer = made("torch", both=False, cell={"gate_clip": 0.5}, return_sequences=True)
    model = Model(layers=(layer,), source=Source(container="live"), container="live")
    done = lc.save(model, tmp_path / "x.safetensors", layout="torch", allow_lossy=True)
    assert any("gate_clip" in text and "lost, as allowed" in text for text in done.losses)
    assert lc.load(tmp_path / "x.safetensors")["lstm"].cell.options.gate_clip == 0.5


def test_unknown_clips_are_asked_for(tmp_path: Path) -> None:
    layer = made("torch", both=False, cell={"cell_clip": UNKNOWN}, return_sequences=True)
    with pytest.raises(lc.LSTMConvertError, match="unknown: cell_clip"):
        told(layer, "torch", tmp_path)
