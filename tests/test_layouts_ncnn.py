"""ncnn loads our `.param` and `.bin` and runs them; they come back; what lies is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli import KERAS, SEED95, failure, run
from layout_tools import SINGLE, case, close
from neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.dtypes import Array
from lstmconvert.layer import LSTMLayer


def answer(path: Path, x: Array, name: str) -> Array:
    import ncnn

    net = ncnn.Net()
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path.with_suffix(".bin"))) == 0
    outputs = []
    for sequence in x:
        with net.create_extractor() as extractor:
            extractor.input(f"{name}.x", ncnn.Mat(np.ascontiguousarray(sequence)))
            _, y = extractor.extract(f"{name}.y")
            outputs.append(np.array(y))
    return np.stack(outputs)


@pytest.mark.parametrize("name", SINGLE)
def test_ncnn(name: str, tmp_path: Path) -> None:
    known = case(name)
    lc.save(known.layer, tmp_path / "x.ncnn.param", layout="ncnn")
    close(answer(tmp_path / "x.ncnn.param", known.x, known.layer.name), known.y)
    assert (tmp_path / "x.ncnn.bin").exists()


def test_a_projection_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    layer = make_layer(make_cell(rng, 5, 4, projected=2), return_sequences=True)
    x = rng.normal(size=(2, 6, 5)).astype(np.float32)
    lc.save(layer, tmp_path / "x.param", bare=True)
    close(answer(tmp_path / "x.param", x, "_"), reference.run(layer, x).outputs[0])
    assert lc.diff(lc.load(tmp_path / "x.param"), lc.load(tmp_path / "x.param"))


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras"])
@pytest.mark.parametrize("bare", [False, True])
def test_every_option_comes_back(source: Path, bare: bool, tmp_path: Path) -> None:
    lc.convert(source, tmp_path / "x.param", bare=bare)
    report = lc.diff(source, tmp_path / "x.param")
    assert report.layers
    assert all(report.layers)
    assert not any(layer.unknown for layer in report.layers)


def other_layers(tmp_path: Path, layer: LSTMLayer, before: str, weights: bytes) -> Path:
    """A file as another program writes it: without our metadata, an LSTM behind other layers."""
    lc.save(layer, tmp_path / "own.param", force=True)
    own = [x for x in (tmp_path / "own.param").read_text().splitlines() if x.startswith("LSTM")]
    lines = ["Input in 0 1 in", before, *own, "Odd z 0 0"]
    (tmp_path / "x.param").write_text(f"7767517\n{len(lines)} 4\n" + "\n".join(lines) + "\n")
    (tmp_path / "x.bin").write_bytes(weights + (tmp_path / "own.bin").read_bytes() + b"odd")
    return tmp_path / "x.param"


def test_an_lstm_behind_other_layers(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2), name="enc")
    weights = bytes(4) + bytes(4 * 6) + bytes(4 * 2)
    path = other_layers(tmp_path, layer, "InnerProduct fc 1 1 in a 0=2 1=1 2=6", weights)
    found = lc.load(path)
    assert (list(found), found.layout, found.container) == (["enc"], "ncnn", "ncnn")
    assert np.array_equal(found["enc"].forget_gate.kernel, layer.forget_gate.kernel)
    assert run("inspect", path).code == 0
    first = found.source.sha256
    (tmp_path / "x.bin").write_bytes((tmp_path / "x.bin").read_bytes() + b"!")
    assert lc.load(path).source.sha256 != first
    path = other_layers(tmp_path, layer, "Convolution c 1 1 in a 0=2", b"")
    error, _ = failure("inspect", path)
    assert "Convolution c" in error


def test_float16_is_read_as_it_is(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 1, dtype="float16"))
    lc.save(layer, tmp_path / "x.param")
    assert (tmp_path / "x.bin").read_bytes()[:4] == struct.pack("<I", 0x01306B47)
    assert lc.load(tmp_path / "x.param")["lstm"].dtype.name == "float16"
    double = make_layer(make_cell(np.random.default_rng(1), 3, 1, dtype="float64"))
    with pytest.raises(lc.LSTMConvertError, match="dtype"):
        lc.save(double, tmp_path / "y.param")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.bin", "x.param"]


def test_neither_file_is_replaced_without_force(tmp_path: Path) -> None:
    for name in ("x.bin", "x.param"):
        (tmp_path / name).write_text("mine")
        error, hint = failure("convert", SEED95, tmp_path / "x.param")
        assert ("exists" in error, "--force" in hint) == (True, True)
        assert [p.name for p in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "x.bin").write_text("mine")
    assert run("convert", SEED95, tmp_path / "x.param", "--force").code == 0
    assert run("convert", tmp_path / "x.param", tmp_path / "y.keras").code == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("2 2\n", "9999999 2\n", 1),
        lambda text: text.replace("2 2\n", "x\n", 1),
        lambda text: text.replace("2 2\n", "1 2\n", 1),
        lambda text: text.replace("0=2", "0=-2"),
        lambda text: text.replace("3=2", "3=0"),
        lambda text: text.replace("3=2", "3=99999999999"),
        lambda text: text.replace("2=0", "2=1"),
        lambda text: text.replace("1=56", "1=5600000"),
        lambda text: text.replace("1=56", "1=55"),
        lambda text: text.replace("LSTM lstm 1 1", "LSTM lstm 1 1111"),
        lambda text: text.replace("# lstmconvert {", "# lstmconvert {{"),
        lambda text: text[:8],
    ],
)
def test_files_that_lie_are_refused(change: Callable[[str], str], tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.param")
    text = (tmp_path / "x.param").read_text()
    assert change(text) != text
    (tmp_path / "x.param").write_text(change(text))
    failure("inspect", tmp_path / "x.param")


def test_the_file_beside(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.param")
    data = (tmp_path / "x.bin").read_bytes()
    for wrong in (data[:-1], b"", b"\x01" + data[1:]):
        (tmp_path / "x.bin").write_bytes(wrong)
        failure("inspect", tmp_path / "x.param")
    (tmp_path / "x.bin").unlink()
    error, _ = failure("inspect", tmp_path / "x.param")
    assert "x.bin" in error
    (tmp_path / "y.bin").write_bytes(data)
    (tmp_path / "x.bin").symlink_to(tmp_path / "y.bin")
    failure("inspect", tmp_path / "x.param")
