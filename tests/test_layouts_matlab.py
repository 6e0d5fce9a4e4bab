"""MATLAB's `.mat` files: written and read with SciPy, whose own files are read too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli import KERAS, SEED95, failure, run
from layout_tools import SINGLE, case, close
from neutral import make_cell, make_layer
from scipy import io
from scipy.special import expit

import lstmconvert as lc
from lstmconvert.dtypes import Array, same_bits


def lstm_layer(x: Array, weights: dict[str, Array]) -> Array:
    """What lstmLayer computes, from its properties (MathWorks, documentation of lstmLayer)."""
    wide, tall, bias = (
        weights[key].astype(np.float64) for key in ("InputWeights", "RecurrentWeights", "Bias")
    )
    units = tall.shape[1]
    outputs = []
    for sequence in x.astype(np.float64):
        h = c = np.zeros((units, 1))
        steps = []
        for step in sequence:
            i, f, g, o = np.split(wide @ step[:, None] + tall @ h + bias, 4)
            c = expit(f) * c + expit(i) * np.tanh(g)
            h = expit(o) * np.tanh(c)
            steps.append(h[:, 0])
        outputs.append(steps)
    return np.array(outputs)


@pytest.mark.parametrize("name", [n for n in SINGLE if "bidirectional" not in n])
def test_the_properties_of_lstm_layer(name: str, tmp_path: Path) -> None:
    known = case(name)
    lc.save(known.layer, tmp_path / "x.mat", layout="matlab")
    found = io.loadmat(tmp_path / "x.mat")[known.layer.name][0, 0]
    close(lstm_layer(known.x, {key: found[key] for key in found.dtype.names}), known.y)


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras"])
@pytest.mark.parametrize("bare", [False, True])
def test_every_option_comes_back(source: Path, bare: bool, tmp_path: Path) -> None:
    for name in ("x.mat", "y.mat"):
        lc.convert(source, tmp_path / name, bare=bare)
    report = lc.diff(source, tmp_path / "x.mat")
    assert report.layers
    assert all(report.layers)
    assert not any(layer.unknown for layer in report.layers)
    assert (tmp_path / "x.mat").read_bytes() == (tmp_path / "y.mat").read_bytes()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_without_our_metadata(compressed: bool, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    arrays = lc.arrange(layer, "matlab")
    cells = np.array(["a", "b"], object)
    value = {"net": {"enc": arrays, "note": "text"}, "fs": 44100.0, "cells": cells}
    io.savemat(tmp_path / "x.mat", value, do_compression=compressed)
    model = lc.load(tmp_path / "x.mat")
    assert (list(model), model.layout, model.container) == (["net/enc"], "matlab", "mat")
    assert same_bits(model["net/enc"].output_gate.kernel, layer.output_gate.kernel)
    assert run("convert", tmp_path / "x.mat", tmp_path / "x.keras").code == 0


def test_what_it_cannot_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = {
        "dtype": make_layer(make_cell(rng, 3, 2, dtype="float16")),
        "name": make_layer(make_cell(rng, 3, 2), name="my lstm"),
    }
    for option, layer in layers.items():
        with pytest.raises(lc.LSTMConvertError) as caught:
            lc.save(layer, tmp_path / "x.mat")
        assert getattr(caught.value, "option", None) == option
        assert not list(tmp_path.iterdir())
    error, _ = failure("convert", SEED95, tmp_path / "x.mat", "--with-other")
    assert "MATLAB" in error


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:140],
        lambda data: data[:-20],
        lambda data: data[:128],
        lambda data: b"MATLAB 7.3 MAT-file" + data[19:],
        lambda data: data[:128] + bytes(8) + data[136:],
        lambda data: data[:128] + b"\xff" * 16 + data[144:],
    ],
)
def test_files_that_lie_are_refused(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.mat")
    data = (tmp_path / "x.mat").read_bytes()
    (tmp_path / "x.mat").write_bytes(change(data))
    failure("inspect", tmp_path / "x.mat")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMCONVERT_MAX_RATIO_FLOOR_BYTES", "1000000")
    zeros = np.zeros((1 << 9, 1 << 10), np.float64)
    io.savemat(tmp_path / "x.mat", {"InputWeights": zeros}, do_compression=True)
    error, hint = failure("inspect", tmp_path / "x.mat")
    assert "expands beyond the limit" in error
    assert "LSTMCONVERT_MAX_RATIO" in hint
