"""ONNX Runtime's quantized LSTM, made by its own quantization, as the layer that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.onnx_tools import difference, node_model, run, weights

import lstmconvert as lc
from lstmconvert.errors import CorruptFile
from lstmconvert.reference import run as reference
from lstmconvert.tensors.dtypes import Array, same_bits

TIME, BATCH, INPUTS, UNITS = 6, 2, 5, 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quantized.onnx"


def quantized(path: Path, *, each: bool, signed: bool, direction: str) -> dict[str, Array]:
    """Quantize one LSTM as a user does, and return the weights that it had."""
    tools = pytest.importorskip("onnxruntime.quantization")
    directions = 2 if direction == "bidirectional" else 1
    given = weights(np.random.default_rng(0), INPUTS, UNITS, directions)
    whole = path.with_name("whole.onnx")
    onnx.save(node_model(given, direction=direction, name="/encoder/LSTM"), whole)
    kind = tools.QuantType.QInt8 if signed else tools.QuantType.QUInt8
    # Seven bits: with eight, a processor without VNNI cuts off the sums of its products, as
    # ONNX Runtime's page on quantization says, and its answer is another one.
    tools.quantize_dynamic(
        whole, path, per_channel=each, weight_type=kind, reduce_range=True
    )
    assert [node.op_type for node in onnx.load(path).graph.node] == ["DynamicQuantizeLSTM"]
    return given


@pytest.mark.parametrize("each", [False, True], ids=["one scale", "a scale a column"])
@pytest.mark.parametrize("signed", [False, True], ids=["uint8", "int8"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_its_weights_are_read(direction: str, signed: bool, each: bool, path: Path) -> None:
    given = quantized(path, each=each, signed=signed, direction=direction)
    model = lc.load(path)
    assert list(model) == ["encoder"]
    assert not model.other
    assert any("8 bits" in note for note in model.notes)
    layer = model["encoder"]
    for index, (_, side) in enumerate(layer.directions):
        cell = side.lstm_cells[0]
        for gate, row in zip("iofc", range(4), strict=True):
            name = {"i": "input", "o": "output", "f": "forget", "c": "cell"}[gate]
            found = {g.value: w for g, w in cell.gates.items()}[name]
            rows = slice(row * UNITS, (row + 1) * UNITS)
            assert same_bits(found.bias, given["B"][index, rows])
            assert 0 < difference([found.kernel], [given["W"][index, rows].T]) < 0.02
            assert 0 < difference([found.recurrent_kernel], [given["R"][index, rows].T]) < 0.02
    x = np.random.default_rng(1).normal(size=(TIME, BATCH, INPUTS)).astype("f4")
    wanted = run(path, {"X": x})["Y_h"]
    apart = replace(layer, options=replace(layer.options, merge_mode=None))
    states = reference(apart, np.swapaxes(x, 0, 1)).states
    # What the graph rounds as it runs is what differs: 8 bits of what it is given.
    assert difference([np.stack(states[::2])], [wanted]) < 0.02


@pytest.mark.parametrize(
    "change",
    [
        {"W_scale": np.ones((2,), "f4")},
        {"W_scale": np.ones((1,), "f8")},
        {"R_zero_point": np.zeros((1,), "i4")},
        {"R_quantized": np.zeros((UNITS, 4 * UNITS), "i1")},
        {"W_quantized": np.zeros((1, INPUTS, 4 * UNITS), "f4")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_scales_that_do_not_fit(change: Mapping[str, Any], path: Path) -> None:
    quantized(path, each=False, signed=True, direction="forward")
    model = onnx.load(path)
    for proto in model.graph.initializer:
        if proto.name in change:
            proto.CopyFrom(numpy_helper.from_array(change[proto.name], proto.name))
    onnx.save(model, path)
    with pytest.raises(CorruptFile):
        lc.load(path)
