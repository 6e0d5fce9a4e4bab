"""Messages name what is in the way, and a next step that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.cli import SEED95, failure

from lstmconvert import errors

SEED = str(SEED95.resolve())
CONVERT = ["convert", SEED]


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        ([*CONVERT, "x.keras", "--config", "s3://b/m.keras"], "a URL, where the", "download it"),
        (["inspect", "nothing://b/m.keras"], "expected s3://, gs://, hf://", "--help"),
        ([*CONVERT, "x.safetensor"], "found .safetensor", "did you mean .safetensors?"),
        ([*CONVERT, "x.oxnn"], "found .oxnn", "did you mean .onnx?"),
        ([*CONVERT, "x.npz", "--set", "foo=1"], "with one of activation, ", "inspect --json"),
        ([*CONVERT, "x.npz", "--set", "dropuot=1"], "found dropuot", "did you mean dropout?"),
        ([*CONVERT, "x.npz", "--set", "stateful=true"], "the file says otherwise", "in Keras"),
        (["verify", SEED, "--engine", "pytorch"], "no such engine", "did you mean torch?"),
    ],
)
def test_of_what_the_user_says(
    args: list[str], error: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, advice = failure(*args)
    assert error in text
    assert hint in advice


def npy(folder: Path) -> str:
    np.save(folder / "a.npy", np.zeros((2, 3)))
    return "a.npy"


def graph(folder: Path) -> str:
    (folder / "frozen.pb").write_bytes(b"\n\x10\n\x01x\x12\x0bPlaceholder")
    return "frozen.pb"


def meta(folder: Path) -> str:
    (folder / "m.meta").write_bytes(b"\n\x9d\x02\n\x0c1.12.0")
    return "m.meta"


def ncnn(folder: Path) -> str:
    lines = ["Input i 0 1 x", "Mystery c 1 1 x y 0=2 1=3", "LSTM l 1 1 y z 0=2 1=56 2=0"]
    (folder / "c.param").write_text("\n".join(["7767517", "3 3", *lines]))
    (folder / "c.bin").write_bytes(bytes(400))
    return "c.param"


def hdf5(folder: Path) -> str:
    import h5py

    with h5py.File(folder / "x.h5", "w") as file:
        file["info/input_size"] = 1
    return "x.h5"


@pytest.mark.parametrize(
    ("make", "error", "hint"),
    [
        (npy, "a.npy: one array of NumPy, without a name", "np.savez(path, **arrays)"),
        (graph, "no constant belongs to an LSTM cell; found operations Placeholder", "model"),
        (meta, "m.meta: the graph of a TensorFlow checkpoint, without its weights", ".index"),
        (ncnn, "found Mystery c", "nothing is damaged"),
        (hdf5, "an HDF5 file, and not one that Keras wrote", "save the model or its weights"),
    ],
)
def test_of_files_that_are_whole_and_not_read(
    make: Callable[[Path], str],
    error: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text, advice = failure("inspect", make(tmp_path))
    assert error in text
    assert hint in advice
    assert "download" not in advice


def test_operators_have_names(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    flatbuffers = pytest.importorskip("flatbuffers")
    from ai_edge_litert import schema_py_generated as schema

    model, code = schema.ModelT(), schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = 9, 9
    model.version, model.operatorCodes, model.buffers = 3, [code], [schema.BufferT()]
    model.subgraphs = [schema.SubGraphT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "x.tflite").write_bytes(builder.Output())
    text, _ = failure("inspect", tmp_path / "x.tflite")
    assert "found operators FULLY_CONNECTED" in text


def test_long_names_leave_a_line_that_can_be_read(tmp_path: Path) -> None:
    names = [f"{letter * 40_000}" for letter in "abcde"]
    save_file({name: np.zeros(1, np.float32) for name in names}, tmp_path / "x.safetensors")
    text, _ = failure("inspect", tmp_path / "x.safetensors")
    assert len(text) < 3_000
    assert "…" in text
    assert len(str(errors.CorruptFile("x" * 9_000, where="y" * 9_000, found="z" * 9_000))) < 4_000


def test_what_installs_something_has_one_spelling() -> None:
    """`pip install 'lstmconvert[extra]'`, for extras that the project has."""
    extras = re.findall(r"^(\w+) = \[", Path("pyproject.toml").read_text(), re.MULTILINE)
    for path in Path("lstmconvert").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "lstmconvert[" not in text or path.name in ("errors.py", "table.py"), path
        for extra in re.findall(r"\binstall\(\"(\w+)\"\)", text):
            assert extra in extras, (path, extra)


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["--suffix", "safetensors"], "--suffix names no kind of file", "did you mean .safeten"),
        (["--suffix", ".keros"], "--suffix names no kind of file", "did you mean .keras?"),
        (["--suffix", ".engine"], "--suffix names no kind of file", "write a .onnx, of which"),
        (["--to", "pytorch"], "--suffix .safetensors: safetensors does not", "did you mean torch?"),
        (["--suffix", ""], "--suffix names no kind of file", "--help shows"),
    ],
)
def test_batch_names_the_option_that_is_wrong(
    args: list[str], error: str, hint: str, tmp_path: Path
) -> None:
    said, way = failure("batch", SEED95, "--out-dir", tmp_path / "out", *args)
    assert said.startswith(error)
    assert way.startswith(hint)
    assert not (tmp_path / "out").exists()


def test_batch_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"precious")
    said, _ = failure("batch", SEED95, "--out-dir", path)
    assert said == f"{path}: --out-dir names a file, and what is made needs a folder"
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["inspect", SEED95, "--stats", "--gate", "forgt"], "did you mean forget?"),
        (["convert", SEED95, "a.keras", "--era", "kears2"], "did you mean keras2?"),
        (["completion", "bsh"], "did you mean bash?"),
        (["convert", SEED95, "a.npz", "--dtype", "float23"], "did you mean float32?"),
        (["formats", "trch"], "did you mean torch?"),
        (["guide", "layout"], "did you mean layouts?"),
        (["verify", SEED95, "--engine", "nmpy"], "did you mean numpy?"),
        (["inspect", SEED95, "--layer", "lst"], "did you mean lstm?"),
        (["inspct", SEED95], "did you mean inspect?"),
        (["inspect", SEED95, "--jsn"], "did you mean --json?"),
    ],
)
def test_whatever_is_spelled_almost_right_is_named(args: list[object], hint: str) -> None:
    assert failure(*args)[1] == hint
