"""MATLAB's `.mat` files: written and read with SciPy, whose own files are read too."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import io
from scipy.io import matlab
from scipy.special import expit
from support.cli import KERAS, SEED95, failure, run
from support.layout_tools import SINGLE, case, close
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.containers import mat
from lstmconvert.tensors.dtypes import Array, same_bits
from lstmconvert.tensors.tensor import SourceFile


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


@pytest.mark.engines
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


_REAL = Path(matlab.__file__).parent / "tests" / "data"
#: Of SciPy's collection: the fields of a function's workspace; a file that no MATLAB writes.
_PASSED_BY = ("sqr", "parabola", "some_functions", "nasty_duplicate_fieldnames")
_LEVEL_5 = [
    path
    for path in sorted(_REAL.glob("*.mat"))
    if path.read_bytes().startswith(b"MATLAB ") and path.stem not in _PASSED_BY
]


@pytest.mark.skipif(not _LEVEL_5, reason="SciPy is installed without its test data")
def test_real_files_of_matlab_read_as_scipy_reads_them() -> None:
    # Little-endian and big, MATLAB 5 to 7.4 and Octave, plain and compressed.
    assert len(_LEVEL_5) > 50
    count = 0
    for path in _LEVEL_5:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                theirs = io.loadmat(path)
            except Exception:
                with pytest.raises(lc.LSTMConvertError):
                    mat.arrays(SourceFile(path))
                continue
        ours = mat.arrays(SourceFile(path))
        for name, array in ours.items():
            there = theirs
            for word in name.split("."):
                there = there[word] if there is theirs else there[0, 0][word]
            assert np.array_equal(array, there, equal_nan=True), (path.name, name)
            count += 1
        arrays = {n: v for n, v in theirs.items() if isinstance(v, np.ndarray) and n[0] != "_"}
        assert {n for n, v in arrays.items() if v.dtype.kind in "fiu"} <= set(ours), path.name
    assert count > 20


def test_numbers_are_of_their_class_however_they_are_stored(tmp_path: Path) -> None:
    # MATLAB stores a double matrix of whole numbers as bytes, as it does a fresh LSTM's bias.
    lc.convert(SEED95, tmp_path / "x.mat")
    ones = struct.pack("<IIII", 14, 56, 6, 8) + struct.pack("<II", 6, 0)
    ones += struct.pack("<IIii", 5, 8, 8, 1) + struct.pack("<HH4s", 1, 1, b"b")
    ones += struct.pack("<II", 2, 8) + bytes([0, 0, 1, 1, 0, 0, 255, 0])
    head = (tmp_path / "x.mat").read_bytes()[:128]
    (tmp_path / "y.mat").write_bytes(head + ones)
    (array,) = mat.arrays(SourceFile(tmp_path / "y.mat")).values()
    assert array.dtype == np.float64
    assert array[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 255, 0]


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
    assert "--with-other is for destinations of named arrays" in error


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


def test_other_versions_are_refused_by_name(tmp_path: Path) -> None:
    """Version 4 has no structs, and no signature to be known by."""
    path = tmp_path / "x.mat"
    numbers = {"Bias": np.ones((8, 1), np.float32), "n": np.array([[1.0]])}
    io.savemat(path, numbers, format="4")
    little = path.read_bytes()
    big = struct.pack(">5i", 1010, 8, 1, 0, 5) + b"Bias\0" + np.ones(8, ">f4").tobytes()
    for version, data in (("4", little), ("4", big), ("7.3", b"MATLAB 7.3 MAT-file".ljust(600))):
        path.write_bytes(data)
        error, hint = failure("inspect", path)
        assert f"a .mat file of version {version}, which is not read" in error
        assert "'-v7'" in hint
    path.write_bytes(b"\xff" * 40)
    assert "unknown bytes ff ff" in failure("inspect", path)[0]


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMCONVERT_MAX_RATIO_FLOOR_BYTES", "1000000")
    zeros = np.zeros((1 << 9, 1 << 10), np.float64)
    io.savemat(tmp_path / "x.mat", {"InputWeights": zeros}, do_compression=True)
    error, hint = failure("inspect", tmp_path / "x.mat")
    assert "expands beyond the limit" in error
    assert "LSTMCONVERT_MAX_RATIO" in hint
