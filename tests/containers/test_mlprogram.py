"""Packages of Core ML that coremltools wrote: every number against PyTorch's own module."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.cli import FIXTURES, failure, run

import lstmconvert as lc
from lstmconvert.errors import CorruptFile, NoLSTM, NotAModel, SourceError
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2

FOLDER = FIXTURES / "coremltools-9.0"
#: PyTorch's names of a direction -> ours; its gates are in the order input, forget, cell, output.
SIDES = {"": "forward", "_reverse": "backward"}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "torch.io.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", ["torch", "network", "half"])
def test_weights_are_the_modules_own(name: str, weights: dict[str, np.ndarray]) -> None:
    model = lc.load(FOLDER / f"{name}.mlpackage")
    dtype = np.float16 if name == "half" else np.float32
    assert len(model) == 2
    for number, layer in enumerate(model.values()):
        for side, ours in SIDES.items():
            cell = dict(layer.directions)[ours].lstm_cells[0]
            end = f"l{number}{side}"
            kernel = weights[f"lstm.weight_ih_{end}"].astype(dtype)
            recurrent = weights[f"lstm.weight_hh_{end}"].astype(dtype)
            bias = (weights[f"lstm.bias_ih_{end}"] + weights[f"lstm.bias_hh_{end}"]).astype(dtype)
            gates = (cell.input_gate, cell.forget_gate, cell.cell_gate, cell.output_gate)
            for position, gate in enumerate(gates):
                rows = slice(3 * position, 3 * position + 3)
                assert np.array_equal(gate.kernel, kernel[rows].T)
                assert np.array_equal(gate.recurrent_kernel, recurrent[rows].T)
                assert gate.bias is not None
                assert np.array_equal(gate.bias, bias[rows])
        assert layer.forward.options.return_sequences is True


def test_what_an_operation_says() -> None:
    layer = lc.load(FOLDER / "options.mlpackage")["options"]
    options = layer.forward.lstm_cells[0].options
    assert options.recurrent_activation == HARD_SIGMOID_KERAS2
    assert (options.activation.name, options.output_activation.name) == ("relu", "tanh")
    assert options.cell_clip == 0.5
    assert layer.forward.options.go_backwards is True
    assert layer.forward.options.return_sequences is False
    with np.load(FOLDER / "options.io.npz") as arrays:
        peephole = layer.forward.lstm_cells[0].forget_gate.peephole
        assert peephole is not None
        assert np.array_equal(peephole, arrays["peephole"][2:4])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("options", "initial_h from a constant of the program"),
        ("stated", "initial_h from the input h"),
    ],
)
def test_initial_states_are_told(name: str, words: str) -> None:
    (note,) = lc.load(FOLDER / f"{name}.mlpackage").notes
    assert words in note
    assert "initial_state=[h, c], each (batch, 2)" in note


def test_compressed_weights_are_named() -> None:
    with pytest.raises(SourceError, match=r"weight_ih.*constexpr_affine_dequantize") as caught:
        lc.load(FOLDER / "quantized.mlpackage")
    assert "decompress_weights" in str(caught.value.hint)


def test_through_the_command_line(tmp_path: Path) -> None:
    done = run("batch", FOLDER, "--out-dir", tmp_path)
    assert "7 written, 1 failed" in done.err
    done = run("inspect", FOLDER / "torch.mlpackage")
    assert "a Core ML package (.mlpackage)" in done.out
    _, hint = failure("convert", FOLDER / "torch.mlpackage", tmp_path / "x.mlpackage")
    assert "write a .mlmodel" in hint


def copied(folder: Path, name: str = "torch") -> Path:
    shutil.copytree(FOLDER / f"{name}.mlpackage", folder / "x.mlpackage")
    return folder / "x.mlpackage"


INSIDE = Path("Data", "com.apple.CoreML")


def test_the_model_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ML program") as caught:
        lc.load(FOLDER / "torch.mlpackage" / INSIDE / "model.mlmodel")
    assert "Manifest.json" in str(caught.value.hint)
    package = copied(tmp_path)
    (package / INSIDE / "model.mlmodel").unlink()
    with pytest.raises(NotAModel, match="without its model"):
        lc.load(package)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b"@model_path/weights/weight.bin", b"@model_path/../../weight.bin\0\0", CorruptFile),
        (b"@model_path/weights/weight.bin", b"@model_path/weights/WEIGHT.bin", CorruptFile),
        (b"lstm", b"lstn", NoLSTM),
        (b"bidirectional", b"bidirectionam", CorruptFile),
        (b"sigmoid", b"sigmoie", SourceError),
    ],
)
def test_programs_that_lie(old: bytes, new: bytes, error: type[Exception], tmp_path: Path) -> None:
    path = copied(tmp_path) / INSIDE / "model.mlmodel"
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(error):
        lc.load(tmp_path / "x.mlpackage")["lstm"]


def test_weights_that_lie(tmp_path: Path) -> None:
    path = copied(tmp_path) / INSIDE / "weights" / "weight.bin"
    data = path.read_bytes()
    for damaged, words in (
        (data.replace(b"\xef\xbe\xad\xde", b"\0\0\0\0"), "no numbers of that type"),
        (data[:200], "truncated"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=words):
            lc.load(tmp_path / "x.mlpackage")


def test_a_link_in_a_package_is_never_followed(tmp_path: Path) -> None:
    path = copied(tmp_path) / INSIDE / "weights" / "weight.bin"
    path.rename(tmp_path / "elsewhere.bin")
    try:
        os.symlink(tmp_path / "elsewhere.bin", path)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(CorruptFile, match="symbolic link"):
        lc.load(tmp_path / "x.mlpackage")
