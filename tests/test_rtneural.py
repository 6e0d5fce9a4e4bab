"""RTNeural's JSON, both ways: files of its own with the outputs that were recorded with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import CORPUS, SEED95, failure, run
from layout_tools import close
from neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.dtypes import Array, same_bits
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import Model, Source

START = "jatinchowdhury18_RTNeural__"


def recorded(name: str) -> tuple[Array, Array]:
    x, y = (np.loadtxt(CORPUS / f"{START}{name}_{end}_python.csv") for end in "xy")
    return x.reshape(1, -1, 1), y


def sequences(layer: LSTMLayer) -> LSTMLayer:
    """The layer with every option as RTNeural has it: every output, in order."""
    from dataclasses import replace

    options = replace(
        layer.forward.options, return_sequences=True, zero_output_for_mask=False, time_major=False
    )
    return replace(layer, forward=replace(layer.forward, options=options))


def dense(x: Array, weights: Any, activation: str) -> Array:
    kernel, bias = (np.asarray(w, np.float64) for w in weights)
    y = x @ kernel + bias
    return np.tanh(y) if activation == "tanh" else y


@pytest.mark.parametrize("name", ["lstm", "lstm_1d"])
def test_a_recorded_model_answers_as_recorded(name: str) -> None:
    path = CORPUS / f"{START}{name}.json"
    model, plain = lc.load(path), json.loads(path.read_text())
    x, wanted = recorded(name)
    layers = iter(model.values())
    for layer in plain["layers"]:
        if layer["type"] == "lstm":
            x = reference.run(sequences(next(layers)), x, dtype="float64").outputs[0]
        else:
            x = dense(x, layer["weights"], layer["activation"])
    close(x.reshape(wanted.shape), wanted, 1e-6)


def test_a_recorded_state_dict_answers_as_recorded() -> None:
    path = CORPUS / f"{START}lstm_torch.json"
    model, plain = lc.load(path), json.loads(path.read_text())
    x, wanted = recorded("lstm_torch")
    for layer in model.values():
        x = reference.run(sequences(layer), x, dtype="float64").outputs[0]
    x = dense(x, [np.transpose(plain["dense.weight"]), plain["dense.bias"]], "")
    close(x.reshape(wanted.shape), wanted, 1e-6)


def test_arrays_go_out_as_they_came_in(tmp_path: Path) -> None:
    for name in ("lstm", "lstm_1d"):
        source, path = CORPUS / f"{START}{name}.json", tmp_path / f"{name}.json"
        lc.convert(source, path, layout="rtneural")
        before, after = (json.loads(p.read_text()) for p in (source, path))
        wanted = next(layer for layer in before["layers"] if layer["type"] == "lstm")
        (found,) = after["layers"]
        assert found["weights"] == wanted["weights"]
        assert (found["type"], found["activation"], found["shape"]) == (
            wanted["type"],
            wanted["activation"],
            wanted["shape"],
        )
        assert after["in_shape"] == [None, None, len(wanted["weights"][0])]


def test_every_option_comes_back(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.json", layout="rtneural")
    report = lc.diff(lc.load(SEED95), lc.load(tmp_path / "x.json"))
    assert all(report.layers)
    assert report.layers


def test_a_chain_of_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a, b, c = (
        make_layer(make_cell(rng, inputs, 3), name=name)
        for inputs, name in ((2, "z"), (3, "a"), (4, "c"))
    )
    model = Model(layers=(a, b), source=Source(container="live"), container="live")
    lc.save(model, tmp_path / "x.json", layout="rtneural")
    assert list(lc.load(tmp_path / "x.json")) == ["z", "a"]
    shapes = [x["shape"] for x in json.loads((tmp_path / "x.json").read_text())["layers"]]
    assert shapes == [[None, None, 3], [None, None, 3]]
    model = Model(layers=(a, c), source=Source(container="live"), container="live")
    with pytest.raises(lc.LSTMConvertError, match="follow one another"):
        lc.save(model, tmp_path / "y.json", layout="rtneural")


def test_what_it_cannot_hold(tmp_path: Path) -> None:
    cell = make_cell(np.random.default_rng(1), 2, 3)
    with pytest.raises(lc.LSTMConvertError, match="Bidirectional"):
        lc.save(make_layer(cell, cell), tmp_path / "x.json", layout="rtneural")
    layer = make_layer(cell)
    layer.forget_gate.tensors["bias"]._array[0] = np.nan
    with pytest.raises(lc.LSTMConvertError, match="NaN"):
        lc.save(layer, tmp_path / "x.json", layout="rtneural")


@pytest.mark.parametrize(
    "layers",
    [
        [3],
        [{"type": "lstm", "weights": [[[1.0]]]}],
        [{"type": "lstm", "weights": [[[1.0]], [[1.0]], [[1.0]]]}],
        [{"type": "lstm", "weights": [[["x"]], [[1.0]], [1.0]]}],
        [{"type": "dense", "weights": [[[1.0]], [1.0]]}],
    ],
)
def test_files_that_lie_are_refused(layers: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"in_shape": [None, None, 1], "layers": layers}))
    failure("inspect", tmp_path / "x.json")


def test_the_command(tmp_path: Path) -> None:
    source = CORPUS / f"{START}lstm.json"
    assert run("inspect", source).code == 0
    assert run("convert", source, tmp_path / "x.safetensors").code == 0
    found = lc.load(tmp_path / "x.safetensors")["lstm"]
    assert same_bits(found.forget_gate.kernel, lc.load(source)["lstm"].forget_gate.kernel)
