"""ncnn loads our `.param` and `.bin` and runs them; they come back; what lies is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.chain_models import LARGE, saved
from support.chain_models import in_ncnn as answer
from support.cli import KERAS, SEED95, failure, run
from support.layout_tools import SINGLE, case, close
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source

#: Models of `support.chain_models` that ncnn computes, with what is lost in each.
WHOLE = {
    **dict.fromkeys(("amplifier", "convolution", "last"), 0),
    **dict.fromkeys(("normalized", "layered", "functions", "both", "both-last", "backwards"), 0),
    "gru": 1,
}


@pytest.mark.engines
@pytest.mark.parametrize(
    ("name", "scale"),
    [*((name, 1.0) for name in WHOLE), *((name, LARGE) for name in ("amplifier", "gru"))],
)
def test_a_whole_chain(name: str, scale: float, tmp_path: Path) -> None:
    """It runs as Keras does, comes home by our metadata, and by the config alone."""
    keras = pytest.importorskip("keras")
    path, x, wanted = saved(keras, tmp_path, name, scale=scale)
    result = lc.convert(path, tmp_path / "x.param", warn=False)
    assert (result.whole_model, result.left_out, len(result.losses)) == (True, (), WHOLE[name])
    y = answer(tmp_path / "x.param", x, "model")
    assert abs(y.reshape(wanted.shape) - wanted).max() < 2e-6 * max(1, abs(wanted).max())
    if scale != 1:
        return
    lc.convert(tmp_path / "x.param", tmp_path / "home.keras", warn=False)
    text = (tmp_path / "x.param").read_text().partition("# lstmconvert")[0]
    (tmp_path / "x.param").write_text(text)
    done = lc.convert(tmp_path / "x.param", tmp_path / "again.keras", config=path, warn=False)
    assert done.whole_model
    assert lc.diff(tmp_path / "home.keras", tmp_path / "again.keras")
    assert bool(lc.diff(path, tmp_path / "home.keras")) is not WHOLE[name]


@pytest.mark.engines
def test_what_ncnn_lacks_is_refused_by_name(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    k = keras.layers
    lacking = {
        "reset_after": k.GRU(2, reset_after=False, return_sequences=True, name="odd"),
        "softplus": k.Dense(2, "softplus", name="odd"),
        "SimpleRNN": k.SimpleRNN(2, return_sequences=True, name="odd"),
    }
    for reason, layer in lacking.items():
        made = keras.Sequential([k.Input((None, 2)), k.LSTM(2, return_sequences=True), layer])
        made.save(tmp_path / "x.keras")
        error, hint = failure("convert", tmp_path / "x.keras", tmp_path / "x.param")
        assert ("odd" in error, reason in error, "--lstm-only" in hint) == (True, True, True)
        assert [x.name for x in tmp_path.iterdir()] == ["x.keras"]
    error, _ = failure("convert", SEED95, tmp_path / "x.param", "--dtype", "float16")
    assert "dense" in error
    clash = [k.Input((None, 2)), k.LSTM(2, name="a"), k.Dense(1, name="a.last")]
    keras.Sequential(clash).save(tmp_path / "x.keras")
    assert "a.last" in failure("convert", tmp_path / "x.keras", tmp_path / "x.param")[0]


@pytest.mark.engines
@pytest.mark.parametrize("name", SINGLE)
def test_ncnn(name: str, tmp_path: Path) -> None:
    known = case(name)
    lc.save(known.layer, tmp_path / "x.ncnn.param", layout="ncnn")
    close(answer(tmp_path / "x.ncnn.param", known.x, known.layer.name), known.y)
    assert (tmp_path / "x.ncnn.bin").exists()


@pytest.mark.engines
def test_a_projection_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    layer = make_layer(make_cell(rng, 5, 4, projected=2), return_sequences=True)
    x = rng.normal(size=(2, 6, 5)).astype(np.float32)
    lc.save(layer, tmp_path / "x.param", bare=True)
    close(answer(tmp_path / "x.param", x, "_"), reference.run(layer, x).outputs[0])
    assert lc.diff(lc.load(tmp_path / "x.param"), lc.load(tmp_path / "x.param"))


@pytest.mark.engines
@pytest.mark.parametrize("bare", [False, True])
def test_stacked_cells_follow_one_another(bare: bool, tmp_path: Path) -> None:
    """One net with one input and one output, beside another layer's."""
    rng = np.random.default_rng(8)
    cells = [make_cell(rng, 5, 4), make_cell(rng, 4, 3), make_cell(rng, 3, 2)]
    stack = make_layer(cells, name="rnn", return_sequences=True)
    alone = make_layer(make_cell(rng, 5, 4), name="rnn_2", return_sequences=True)
    layers = (stack,) if bare else (stack, alone)
    model = Model(layers=layers, source=Source(container="live"), container="live")
    x = rng.normal(size=(2, 6, 5)).astype(np.float32)
    lc.save(model, tmp_path / "x.param", bare=bare)
    assert (tmp_path / "x.param").read_text().count("Input ") == len(layers)
    for layer in layers:
        name = "_" if bare else layer.name
        close(answer(tmp_path / "x.param", x, name), reference.run(layer, x).outputs[0])
    found = next(iter(lc.load(tmp_path / "x.param").values()))
    assert len(found.forward.cells) == 3


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras"])
@pytest.mark.parametrize("bare", [False, True])
def test_every_option_comes_back(source: Path, bare: bool, tmp_path: Path) -> None:
    lc.convert(source, tmp_path / "x.param", bare=bare, lstm_only=True)
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
    for before in ("Mystery c 1 1 in a 0=2", "Gemm c 1 1 in a 5=1 8=2 9=3 18=1"):
        path = other_layers(tmp_path, layer, before, b"")
        error, _ = failure("inspect", path)
        assert before.partition(" 1 1")[0] in error
    path = other_layers(tmp_path, layer, "Convolution c 1 1 in a 0=2 6=4000000", bytes(4))
    error, _ = failure("inspect", path)
    assert "the second file ends inside" in error


F32, F16 = bytes(4), struct.pack("<I", 0x01306B47)
#: A layer before the LSTM, and its weights: with a flag, or raw, as ncnn's own sources read them.
BEFORE: dict[str, list[tuple[int, bytes | None]]] = {
    "Convolution c 1 1 in a 0=2 1=1 5=1 6=6": [(6, F32), (2, None)],
    "Convolution c 1 1 in a 0=3 1=1 6=9": [(9, F16)],
    "Convolution1D c 1 1 in a 0=2 1=3 5=1 6=18": [(18, F16), (2, None)],
    "ConvolutionDepthWise c 1 1 in a 0=3 1=1 5=1 6=3 7=3": [(3, F32), (3, None)],
    "ConvolutionDepthWise1D c 1 1 in a 0=3 1=1 5=1 6=3 7=3": [(3, F32), (3, None)],
    "Convolution3D c 1 1 in a 0=2 1=1 5=1 6=6": [(6, F32), (2, None)],
    "Deconvolution c 1 1 in a 0=2 1=1 5=1 6=6": [(6, F32), (2, None)],
    "Deconvolution1D c 1 1 in a 0=2 1=1 6=6": [(6, F32)],
    "DeconvolutionDepthWise c 1 1 in a 0=3 1=1 5=1 6=3 7=3": [(3, F32), (3, None)],
    "Embed c 1 1 in a 0=2 1=7 2=1 3=14": [(14, F32), (2, None)],
    "InnerProduct c 1 1 in a 0=2 1=0 2=6": [(6, F16)],
    "BatchNorm c 1 1 in a 0=3": [(3, None)] * 4,
    "Bias c 1 1 in a 0=3": [(3, None)],
    "PReLU c 1 1 in a 0=3": [(3, None)],
    "Scale c 1 1 in a 0=3 1=1": [(3, None)] * 2,
    "Scale c 2 1 in in2 a 0=-233": [],
    "Normalize c 1 1 in a 3=3": [(3, None)],
    "GroupNorm c 1 1 in a 0=1 1=3": [(3, None)] * 2,
    "GroupNorm c 1 1 in a 0=1 1=3 3=0": [],
    "InstanceNorm c 1 1 in a 0=3": [(3, None)] * 2,
    "LayerNorm c 1 1 in a 0=3": [(3, None)] * 2,
    "LayerNorm c 1 1 in a 0=3 2=0": [],
    "RMSNorm c 1 1 in a 0=3": [(3, None)],
    "Padding c 1 1 in a 4=0 6=3": [(3, None)],
    "Quantize c 1 1 in a": [(1, None)],
    "Dequantize c 1 1 in a 0=2 1=2": [(2, None)] * 2,
    "Requantize c 1 1 in a 0=1 1=2 2=2": [(1, None), (2, None), (2, None)],
    "GRU c 1 1 in a 0=2 1=18": [(18, F32), (8, F32), (12, F32)],
    "GRU c 1 1 in a 0=2 1=36 2=2": [(36, F32), (16, F32), (24, F32)],
    "RNN c 1 1 in a 0=2 1=6": [(6, F32), (2, F32), (4, F32)],
    "MemoryData c 0 1 a 0=5": [(5, None)],
    "MemoryData c 0 1 a 0=5 1=3 21=0": [(15, F32)],
    "MemoryData c 0 1 a 0=5 1=3 2=2": [(30, None)],
    "Gemm c 1 1 in a 5=1 6=1 8=2 9=3 10=4": [(6, F32), (2, F32)],
    "MultiHeadAttention c 1 1 in a 0=4 1=2 2=16": [(16, F32), (4, None)] * 4,
    "Softmax c 1 1 in a 0=0 1=1": [],
    "Swish c 1 1 in a": [],
    "Reshape c 1 1 in a 0=3": [],
}


@pytest.mark.parametrize("before", BEFORE)
def test_where_the_weights_begin_behind_each_kind_of_layer(before: str, tmp_path: Path) -> None:
    """ncnn itself reads the same files, and answers as our reading of them does."""
    pytest.importorskip("ncnn")
    rng = np.random.default_rng(1)
    layer = make_layer(make_cell(rng, 3, 2), name="enc", return_sequences=True)
    lc.save(layer, tmp_path / "own.param")
    own = (tmp_path / "own.param").read_text().splitlines()[2:4]
    weights = b""
    for count, flag in BEFORE[before]:
        numbers = rng.normal(size=count)
        data = numbers.astype("<f2" if flag == F16 else "<f4").tobytes()
        weights += (flag or b"") + data + bytes(-len(data) % 4)
    lines = ["Input first 0 1 in", "Input second 0 1 in2", before, *own]
    (tmp_path / "x.param").write_text(f"7767517\n{len(lines)} 5\n" + "\n".join(lines) + "\n")
    (tmp_path / "x.bin").write_bytes(weights + (tmp_path / "own.bin").read_bytes())
    read = lc.load(tmp_path / "x.param")
    assert lc.diff(read, lc.load(tmp_path / "own.param"), weights_only=True)
    x = rng.normal(size=(1, 5, 3)).astype(np.float32)
    close(answer(tmp_path / "x.param", x, "enc"), reference.run(layer, x).outputs[0])


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


@each(
    "change",
    [
        lambda text: text.replace("4 4\n", "9999999 4\n", 1),
        lambda text: text.replace("4 4\n", "x\n", 1),
        lambda text: text.replace("4 4\n", "1 4\n", 1),
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
    lc.convert(SEED95, tmp_path / "x.param", lstm_only=True)
    text = (tmp_path / "x.param").read_text()
    assert change(text) != text
    (tmp_path / "x.param").write_text(change(text))
    failure("inspect", tmp_path / "x.param")


def test_the_file_beside(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.param", lstm_only=True)
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
