"""The check that a file holds: one input and what the model gives for it, and `verify FILE`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.cli import KERAS, SEED95, failure, run
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.checks.verification import VerifiedLayer
from lstmconvert.containers import table
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import dtype_of

AMPLIFIER = Path("fixtures/rtneural-keras-3.15.1/lstm_1d.json")
WHOLE = "the whole model"
#: File -> the source, the options, of what the check is, and the engine that runs the file itself.
FILES: dict[str, tuple[Path, dict[str, Any], str, str]] = {
    "x.safetensors": (SEED95, {}, WHOLE, ""),
    "x.npz": (SEED95, {}, WHOLE, ""),
    "layers.safetensors": (SEED95, {"lstm_only": True}, "lstm", ""),
    "torch.safetensors": (SEED95, {"layout": "torch"}, "lstm", ""),
    "x.onnx": (SEED95, {}, "lstm", "onnxruntime"),
    "fused.onnx": (SEED95, {"fused": True}, "lstm", "onnxruntime"),
    "whole.onnx": (SEED95, {"whole": True}, WHOLE, "onnxruntime"),
    "both.onnx": (KERAS / "both_none.keras", {}, "both", "onnxruntime"),
    "half.onnx": (SEED95, {"dtype": "float16"}, "lstm", "onnxruntime"),
    "x.tflite": (AMPLIFIER, {}, WHOLE, "litert"),
    "layers.tflite": (SEED95, {"lstm_only": True}, "lstm", "litert"),
    "x.nam": (AMPLIFIER, {}, WHOLE, ""),
    "x.aidax": (AMPLIFIER, {}, WHOLE, ""),
    "x.json": (AMPLIFIER, {"layout": "frugally-deep"}, WHOLE, ""),
    "arrays.json": (SEED95, {"layout": "torch"}, "lstm", ""),
    # The model gives the last step alone, and these programs every one.
    "last.aidax": (SEED95, {}, WHOLE, ""),
    "last.h": (SEED95, {}, WHOLE, "c"),
    "x.h": (AMPLIFIER, {"prefix": "amp"}, WHOLE, "c"),
    "small.h": (AMPLIFIER, {"prefix": "amp", "weights": "int8"}, WHOLE, "c"),
    "double.h": (AMPLIFIER, {"prefix": "amp", "dtype": "float64"}, WHOLE, "c"),
}
#: Those of which it takes an engine's package to run the file itself.
ENGINES = [name for name, (_, _, _, engine) in FILES.items() if engine not in ("", "c")]


def stored(path: Path, *engines: str) -> list[VerifiedLayer]:
    """Return the lines of `verify` about the check in a file."""
    report = lc.verify(path, engines=engines)
    assert report.stored == len({line.layer for line in report.lines if line.against == "stored"})
    return [line for line in report.lines if line.against == "stored"]


def verify(*words: object, code: int) -> str:
    """Return what `verify` prints, in one line, where its exit code has to be that."""
    done = run("verify", *words)
    assert done.code == code, done
    return " ".join(done.out.split())


def made(name: str, folder: Path) -> Path:
    source, options, _, engine = FILES[name]
    if engine == "litert":
        pytest.importorskip("ai_edge_litert")
    lc.convert(source, folder / name, check=True, warn=False, **options)
    return folder / name


@pytest.mark.parametrize("name", FILES)
def test_a_file_answers_as_it_states(name: str, tmp_path: Path) -> None:
    path, (_, _, of, engine) = made(name, tmp_path), FILES[name]
    (line,) = stored(path, "c" if engine == "c" else "numpy")
    assert (line.layer, line.skipped, bool(line)) == (of, None, True)
    bound = {"half.onnx": 0.1, "double.h": 1e-13}.get(name, 5e-6)
    assert 0 < line.allowed < bound
    assert line.max_abs < line.allowed / 5


@pytest.mark.engines
@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_of_a_file_runs_it(name: str, tmp_path: Path) -> None:
    path, (_, _, of, engine) = made(name, tmp_path), FILES[name]
    (line,) = stored(path, engine)
    assert (line.layer, line.engine, line.skipped, bool(line)) == (of, engine, None, True)


@pytest.mark.engines
def test_keras_runs_whole_models(tmp_path: Path) -> None:
    (line,) = stored(made("x.nam", tmp_path), "keras")
    assert (line.layer, line.skipped, bool(line)) == (WHOLE, None, True)


# ---- each check can fail ------------------------------------------------------------------------


def largest_in(data: bytes, numbers: Any) -> tuple[bytes, bytes]:
    """Return the bytes of the largest of some float32 numbers that is there once, and with a bit
    changed: the largest of its mantissa, which makes the number a quarter smaller or larger."""
    for number in sorted(np.ravel(numbers).astype("<f4"), key=abs, reverse=True):
        raw = number.tobytes()
        if data.count(raw) == 1:
            return raw, (np.frombuffer(raw, "<u4") ^ (1 << 22)).tobytes()
    raise AssertionError("no such number")


def with_a_flipped_bit(path: Path, source: Path) -> None:
    """Flip a bit of a large weight of a binary file."""
    data = path.read_bytes()
    (layer, *_) = lc.load(source).layers
    kernels = np.concatenate([layer.cell.gates[gate].recurrent_kernel for gate in layer.cell.gates])
    path.write_bytes(data.replace(*largest_in(data, kernels)))


@pytest.mark.parametrize("name", ["torch.safetensors", "layers.tflite", "x.tflite"])
def test_a_flipped_bit_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    path = made(name, tmp_path)
    with_a_flipped_bit(path, FILES[name][0])
    engines = [] if name == "torch.safetensors" else ["litert"]
    for engine in ("numpy", *engines):
        (line,) = stored(path, engine)
        assert line.bad
        assert line.first_bad is not None
        assert line.max_abs > line.allowed
    told = verify(path, "--engine", "numpy", code=1)
    assert "first at [0, " in told
    assert f"{name}, stored" in told


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.onnx"])
def test_where_there_are_checksums_they_come_first(name: str, tmp_path: Path) -> None:
    path = made(name, tmp_path)
    with_a_flipped_bit(path, FILES[name][0])
    error, _ = failure("verify", path, "--engine", "numpy")
    assert "CRC-32" in error


def test_a_per_gate_file_without_checksums_is_checked(tmp_path: Path) -> None:
    """Version 1 has none: what says that the numbers are meant says nothing of the check."""
    safe_open = pytest.importorskip("safetensors").safe_open
    from safetensors.numpy import load_file, save_file

    path = made("x.safetensors", tmp_path)
    with safe_open(path, "np") as file:
        texts = file.metadata()
    value = json.loads(texts["lstmconvert"])
    del value["checksums"], value["seal"]
    tensors = load_file(path)
    for changed in (0.0, 0.01):
        tensors["lstm.forget_gate.recurrent_kernel"][0, 1] += changed
        save_file(tensors, path, {**texts, "lstmconvert": json.dumps({**value, "version": 1})})
        (line,) = stored(path, "numpy")
        assert bool(line) is not changed
        assert (line.first_bad is None) is not changed


@pytest.mark.engines
def test_a_changed_graph_is_found_by_the_engine_that_runs_it(tmp_path: Path) -> None:
    """Checksums are of weights: another order of the gates in the graph is in none."""
    path = made("x.onnx", tmp_path)
    proto = onnx.load(path)
    node = next(n for n in proto.graph.node if n.op_type == "Concat")
    node.input[0], node.input[1] = node.input[1], node.input[0]
    onnx.save(proto, path)
    (line,) = stored(path, "onnxruntime")
    assert line.bad
    assert line.first_bad is not None


@pytest.mark.parametrize("name", ["x.nam", "x.json", "arrays.json"])
def test_a_changed_number_of_a_text_is_found(name: str, tmp_path: Path) -> None:
    path = made(name, tmp_path)
    value = json.loads(path.read_text())
    if name == "x.nam":
        value["weights"][-2] = 0.5
    elif name == "arrays.json":
        value["tensors"]["lstm.weight_hh_l0"]["data"][0][0] = 0.5
    else:
        value["trainable_params"]["dense"]["bias"] = ["AAAAPw=="]  # 0.5
    path.write_text(json.dumps(value))
    (line,) = stored(path, "numpy")
    assert line.bad
    assert line.first_bad is not None


def test_rtneurals_own_batches_are_its_check(tmp_path: Path) -> None:
    path = made("x.aidax", tmp_path)
    value = json.loads(path.read_text())
    small, large = json.loads(json.dumps(value)), json.loads(json.dumps(value))
    bias = value["layers"][1]["weights"][1][0]
    # No program of that format would take offence.
    small["layers"][1]["weights"][1][0] = float(np.float32(bias + 1e-4))
    path.write_text(json.dumps(small))
    (line,) = stored(path, "numpy")
    assert line.bad
    large["layers"][1]["weights"][1][0] = 0.5
    path.write_text(json.dumps(large))
    error, _ = failure("verify", path, "--engine", "numpy")
    assert "the first at step 0" in error
    del value["lstmconvert"]
    path.write_text(json.dumps(value))
    (line,) = stored(path, "numpy")
    assert line
    assert line.allowed == pytest.approx(1e-3)


def test_a_changed_header_is_found(tmp_path: Path) -> None:
    for name, integer in {"x.h": False, "small.h": True}.items():
        path = made(name, tmp_path)
        text = path.read_text()
        if integer:
            begin = text.index("static const int8_t amp_lstm_cell_gate_recurrent_kernel[3][3]")
            path.write_text(text[:begin] + text[begin:].replace("127", "120", 1))
        else:
            begin = text.index("static const float amp_dense_bias[1] ")
            path.write_text(text[:begin] + text[begin:].replace("{", "{1 + ", 1))
        (line,) = stored(path, "c")
        assert line.bad
        assert line.first_bad is not None
        assert "first at [0, " in verify(path, "--engine", "c", code=1)


# ---- what is said -------------------------------------------------------------------------------


def test_a_header_is_run_only_on_request(tmp_path: Path) -> None:
    path = made("x.h", tmp_path)
    assert "--engine c compiles it and runs it" in verify(path, code=2)
    path.write_text("#include <stdio.h>\n")
    assert "no C header that lstmconvert wrote" in failure("verify", path)[0]
    rng = np.random.default_rng(1)
    lc.save(make_layer(make_cell(rng, 3, 2), make_cell(rng, 3, 2)), tmp_path / "two.h")
    assert "the file holds no check" in verify(tmp_path / "two.h", "--engine", "c", code=2)


def test_a_file_without_a_check_says_so(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.safetensors", warn=False)
    told = verify(tmp_path / "x.safetensors", "--engine", "numpy", code=2)
    assert "x.safetensors holds no check: convert --check stores one" in told
    path = made("torch.safetensors", tmp_path)
    done = run("verify", path, "--engine", "numpy", "--json")
    assert done.json["stored"] == 1
    assert [line["against"] for line in done.json["lines"]] == ["stored", None]


def test_an_engine_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made("x.onnx", tmp_path)
    monkeypatch.setattr(
        "lstmconvert.live.engines.find_spec", lambda name: name == "numpy" or None
    )
    monkeypatch.setattr(shutil, "which", lambda _: None)
    numpy, runtime = stored(path)
    assert numpy.skipped is None
    assert runtime.skipped == "it is not installed: pip install onnxruntime"


def test_a_container_takes_a_check_or_names_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(lc.LSTMConvertError, match=r"--check is for .*\.safetensors, .*\.onnx, \.h"):
        lc.convert(SEED95, tmp_path / "x.keras", check=True)
    takers = {file.container for file in lc.formats().files if file.check}
    assert {row.name for row in table.written()} - takers == {
        "keras", "weights.h5", "h5", "msgpack", "eqx",
    }  # fmt: skip


def test_the_check_of_another_file_is_left_out_by_name(tmp_path: Path) -> None:
    path = made("x.safetensors", tmp_path)
    result = lc.convert(path, tmp_path / "y.safetensors", warn=False)
    assert result.warnings == (
        "the check that the source has is left out: --check stores a new one",
    )
    assert lc.load(tmp_path / "y.safetensors").answers == ()
    result = lc.convert(path, tmp_path / "y.keras", warn=False)
    assert "the check that the source has is left out" in result.warnings
    result = lc.convert(path, tmp_path / "z.safetensors", check=True, warn=False)
    assert not result.warnings
    assert (tmp_path / "z.safetensors").read_bytes() == path.read_bytes()


def test_a_model_that_is_no_chain_is_checked_layer_by_layer(tmp_path: Path) -> None:
    result = lc.convert(KERAS / "neighbours.keras", tmp_path / "x.safetensors", check=True,
                        warn=False)  # fmt: skip
    (told,) = (text for text in result.warnings if "check" in text)
    assert "SimpleRNN" in told
    assert told.endswith("it is of each LSTM layer alone")
    (line,) = stored(tmp_path / "x.safetensors", "numpy")
    assert line.layer == "lstm"


def test_a_cell_that_is_not_run_here_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(lc.LSTMConvertError, match="LSTM cells only; found GRU"):
        lc.convert(KERAS / "both_gru.keras", tmp_path / "x.safetensors", check=True)
    assert not list(tmp_path.iterdir())


def test_layers_that_are_no_matrices_are_checked(tmp_path: Path) -> None:
    lc.convert(KERAS / "conv_lstm2d.keras", tmp_path / "x.npz", check=True, warn=False)
    lines = stored(tmp_path / "x.npz", "numpy")
    assert [line.layer for line in lines] == ["c1", "c2"]
    assert all(lines)


@pytest.mark.engines
def test_each_layer_of_a_graph_of_several_is_run(tmp_path: Path) -> None:
    """The other inputs of the graph are fed zeros."""
    lc.convert(KERAS / "both_rnn.keras", tmp_path / "x.onnx", check=True, warn=False)
    lines = stored(tmp_path / "x.onnx", "onnxruntime")
    assert [(line.layer, line.skipped, bool(line)) for line in lines] == [
        ("b1", None, True), ("b2", None, True),
    ]  # fmt: skip


def test_an_option_that_counts_and_is_unknown_is_asked_for(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, activation=UNKNOWN))
    with pytest.raises(lc.LSTMConvertError, match="activation"):
        lc.save(layer, tmp_path / "x.safetensors", check=True)
    assert not list(tmp_path.iterdir())


def test_an_answer_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    layer.forget_gate.tensors["bias"]._array[0] = np.nan
    with pytest.raises(lc.LSTMConvertError, match="not finite"):
        lc.save(layer, tmp_path / "x.safetensors", check=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_bound_is_that_of_the_dtype(dtype: str, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, dtype=dtype))
    assert layer.dtype == dtype_of(dtype)
    lc.save(layer, tmp_path / "x.safetensors", check=True)
    (answer,) = lc.load(tmp_path / "x.safetensors").answers
    low, high = {"float16": (0.01, 0.1), "bfloat16": (0.1, 0.5), "float64": (0, 1e-13)}[dtype]
    assert low < answer.bound < high


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "other"},
        {"layer": 3},
        {"bound": -1.0},
        {"bound": "1"},
        {"x": {"shape": [1, 2], "numbers": [1.0]}},
        {"y": {"shape": [1], "numbers": [True]}},
        {"y": {"shape": [-1], "numbers": []}},
        {"y": []},
        {"bound": None},
    ],
)
def test_a_check_that_is_none_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = made("arrays.json", tmp_path)
    value = json.loads(path.read_text())
    value["lstmconvert"]["check"][0] |= change
    path.write_text(json.dumps(value))
    assert "check" in failure("verify", path, "--engine", "numpy")[0]
