"""`inspect` as a call: typed facts, which print as the command does, and where a file has gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import FIXTURES, KERAS, SEED95, run
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert.checks import inspection
from lstmconvert.files.jsontext import parse
from lstmconvert.keras.reading import read
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.gates import Gate


def test_facts_of_the_example() -> None:
    report = lc.inspect(SEED95)
    (layer,) = report.layers
    (cell,) = layer.cells
    assert (layer.name, layer.class_name, layer.parameters) == ("lstm", "LSTM", 80)
    assert (cell.units, cell.input_dim, cell.dtype, cell.use_bias) == (2, 7, "float32", True)
    assert cell.gates[Gate.FORGET].columns == (2, 4)
    assert cell.gates[Gate.FORGET].shapes["kernel"] == (7, 2)
    assert str(cell.options.activation) == "tanh"
    assert [(t.name, t.shape, t.parameters) for t in report.other] == [
        ("layers/dense/vars/0", (2, 5), 10),
        ("layers/dense/vars/1", (5,), 5),
    ]
    assert report.source.era == "keras3"
    assert report.source.whole_model
    assert repr(report) == f"Inspection({SEED95}: 1 LSTM layer)"


def test_the_config_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the most time where there are thousands of layers."""
    texts: list[object] = []

    def counted(text: str, *others: Any) -> Any:
        texts.append(text)
        return parse(text, *others)

    monkeypatch.setattr(read, "parse", counted)
    monkeypatch.setattr(inspection, "parse_object", counted)
    report = lc.inspect(SEED95)
    assert report.source.opens is not None
    assert [layer.name for layer in report.neighbours] == ["dense"]
    assert texts == [report.model.texts["model_config"]]


@pytest.mark.parametrize("name", ["seed95.keras", "both_unlike.keras", "zoo.keras", "names.keras"])
def test_it_prints_what_the_command_prints(name: str) -> None:
    path = KERAS / name
    said = run("inspect", path, "--stats")
    lines = str(lc.inspect(path, stats=True)).splitlines()
    talk = [line for line in lines if line.startswith(("note: ", "hint: ", "warning: "))]
    assert [line for line in lines if line not in talk] == said.out.splitlines()
    assert talk == said.err.splitlines()
    assert lc.inspect(path).to_json() == run("inspect", path, "--json").json


def test_a_model_and_a_layer_are_inspected_too() -> None:
    model = lc.load(SEED95)
    of_model, of_layer = lc.inspect(model), lc.inspect(model["lstm"])
    assert of_model.layers == of_layer.layers == lc.inspect(SEED95).layers
    assert of_model.to_json()["source"]["name"] is None
    assert "80 parameters, all in 1 LSTM layer" in str(of_layer)


def test_values_and_stats_are_arrays_and_numbers() -> None:
    model = lc.load(SEED95)
    (cell,) = lc.inspect(model, values=True, stats=True, gate="forget").layers[0].cells
    assert cell.values is not None
    assert cell.stats is not None
    assert list(cell.values) == list(cell.stats) == ["forget"]
    kernel = model["lstm"].forget_gate.kernel
    assert np.array_equal(cell.values["forget"]["kernel"], kernel)
    assert cell.stats["forget"]["kernel"].max == kernel.max()


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(lc.UsageError, match="no such gate; found candidate; expected input, "):
        lc.inspect(SEED95, gate="candidate")
    with pytest.raises(lc.UnknownLayer, match="lsmt: no LSTM layer of that name"):
        _ = lc.inspect(SEED95, layer="lsmt").layers


@each("name", ROWS)
def test_the_file_s_own_order_is_where_the_gates_are(name: str, tmp_path: Path) -> None:
    """The ranges cut each gate's kernel out of an array of the file."""
    layer = make_layer(make_cell(np.random.default_rng(5), 7, 2))
    path = tmp_path / "x.npz"
    try:
        lc.save(layer, path, layout=name)
    except (lc.UnsupportedByTarget, lc.UsageError):
        return  # there is no place for this layer, or not in this kind of file
    cell = lc.inspect(path).layers[0].cells[0]
    order, kernels = cell.file_order, layer.cell.gates
    with np.load(path) as file:
        arrays = [np.squeeze(file[key]) for key in file.files if file[key].ndim > 1]
    for gate, facts in cell.gates.items():
        kernel = kernels[gate].kernel
        if order is None:  # by itself, its units along one axis or the other
            pieces = [*arrays, *(array.T for array in arrays)]
        else:
            turned = [array.T if order.axis == "rows" else array for array in arrays]
            start, stop = facts.file_range or (order.gates.index(gate), None)
            step = 1 if facts.file_range else len(order.gates)
            pieces = [array[..., start:stop:step] for array in turned]
        assert any(_begins_with(piece, kernel) for piece in pieces), gate


def _begins_with(piece: np.ndarray, kernel: np.ndarray) -> bool:
    return piece.size > 0 and bool(np.array_equal(np.atleast_2d(piece)[: len(kernel)], kernel))


def test_another_order_is_said_and_keras_s_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    lc.convert(SEED95, path, layout="onnx")
    shown = run("inspect", path).out
    assert "  gate    rows here  Keras columns  kernel " in shown
    assert "\n  forget  4:6        2:4 " in shown
    assert "joins the gates as input, output, forget, cell along its rows;" in shown
    report = run("inspect", path, "--json").json
    assert report["source"]["file_order"] == {
        "gates": ["input", "output", "forget", "cell"],
        "axis": "rows",
        "interleaved": False,
    }
    gate = report["layers"][0]["cells"][0]["gates"]["forget"]
    assert (gate["columns"], gate["file_range"]) == ([2, 4], [4, 6])


@pytest.mark.parametrize("name", ["keras-3.15.1/seed95.h5", "keras-1.2.2/seed95.h5"])
def test_a_keras_file_says_nothing_of_other_orders(name: str) -> None:
    path = FIXTURES / name
    if not path.exists():
        pytest.skip("not among the fixtures")
    report = run("inspect", path, "--json").json
    assert "file_range" not in str(report)
    assert " here" not in run("inspect", path).out


def test_tensorflow_1_says_its_own_order() -> None:
    report = lc.inspect(FIXTURES / "tf-1.15.5-cells" / "basic")
    order = report.source.file_order
    assert order is not None
    assert [str(gate) for gate in order.gates] == ["input", "cell", "forget", "output"]
    assert order.axis == "columns"
    assert "joins the gates as input, cell, forget, output along its columns" in str(report)
