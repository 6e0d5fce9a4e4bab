"""What a reader does grows with what the file holds, and no faster: counted, not timed."""

from __future__ import annotations

import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support.crafted import FIXTURES
from support.growth import check_linear, steps
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.errors import LSTMConvertError
from lstmconvert.files import pickled
from lstmconvert.files.opening import Window
from lstmconvert.model.model import Model, Source
from lstmconvert.onnx import constants
from lstmconvert.tensorflow.formats import checkpoint
from lstmconvert.tensors.tensor import SourceFile

pytestmark = pytest.mark.slow


def _many(count: int) -> Model:
    """A model of many layers that share their numbers."""
    layer = make_layer(make_cell(np.random.default_rng(3), 3, 2))
    layers = tuple(replace(layer, name=f"lstm_{number}") for number in range(count))
    return Model(layers=layers, source=Source(container="arrays"), container="arrays")


def _reading(suffix: str, folder: Path, **options: Any) -> Callable[[int], Callable[[], Any]]:
    def work(count: int) -> Callable[[], Any]:
        path = folder / f"{count}{suffix}"
        if not path.exists():
            lc.save(_many(count), path, warn=False, **options)
        return lambda: lc.load(path)

    return work


def test_operators_of_a_tflite(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    check_linear(_reading(".tflite", tmp_path), few=30)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".safetensors", {}),
        (".npz", {}),
        (".json", {"layout": "torch"}),
        (".safetensors", {"layout": "torch"}),
        (".params", {"layout": "mxnet"}),
        (".msgpack", {}),
        (".mat", {}),
        (".mlmodel", {}),
        (".keras", {}),
        (".weights.h5", {}),
        (".h5", {}),
    ],
)
def test_layers(suffix: str, options: dict[str, Any], tmp_path: Path) -> None:
    # A Core ML model of more than 64 KiB is parsed where it lies, with more calls for each layer.
    # An HDF5 file of up to 64 KiB that was read before is known by its bytes.
    few = 120 if suffix in (".mlmodel", ".h5", ".keras") else 30
    check_linear(_reading(suffix, tmp_path, **options), few=few)


def test_modules_of_a_framework_without_metadata(tmp_path: Path) -> None:
    """They are found by the names of their arrays, and gathered one by one."""

    def work(count: int) -> Callable[[], Any]:
        path = tmp_path / f"{count}.safetensors"
        if not path.exists():
            lc.save(_many(count), path, layout="torch", warn=False)
            arrays = safetensors.numpy.load_file(path)
            safetensors.numpy.save_file(arrays, path)
        return lambda: lc.load(path)

    check_linear(work, few=40, count=steps)


def _refused(path: Path) -> None:
    with pytest.raises(LSTMConvertError):
        lc.load(path)


@pytest.mark.parametrize("name", ["lstm_{}.x", "a.b.c.d.{}.weight", "{}/kernel", "other/{}"])
def test_names_of_what_is_no_layer(name: str, tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], Any]:
        path = tmp_path / f"{count}.safetensors"
        arrays = {name.format(number): np.zeros(0, np.float32) for number in range(count)}
        safetensors.numpy.save_file(arrays, path)
        return lambda: _refused(path)

    check_linear(work, few=100, count=steps)


def test_assets_of_an_archive(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], Any]:
        path = tmp_path / f"{count}.keras"
        shutil.copy(FIXTURES / "seed95.keras", path)
        with zipfile.ZipFile(path, "a") as archive:
            for number in range(count):
                archive.writestr(f"assets/{number}", b"")
        return lambda: lc.load(path)

    check_linear(work, few=300, count=steps)


@pytest.mark.parametrize(
    "opcodes",
    [b"]0", b")0", b"}0", b"\x8f0", b"(10", b"](00", b"N\x850", b"\x8c\x01a0", b"Nr%s0", b"(NNe"],
)
def test_containers_in_a_pickle(opcodes: bytes, tmp_path: Path) -> None:
    """Made and dropped, nested, filled, remembered."""

    def work(count: int) -> Callable[[], Any]:
        numbers = (struct.pack("<I", number) for number in range(count))
        body = b"".join(opcodes.replace(b"%s", number) for number in numbers)
        if opcodes == b"](00":  # a list, a mark and nothing to take
            body = b"]" * count + b"a" * (count - 1) + b"0"
        if opcodes == b"(NNe":
            body = b"]" + opcodes * count + b"0"
        if opcodes == b"(10":
            body = b"(1" * count
        path = tmp_path / f"{count}.pickle"
        path.write_bytes(b"\x80\x04" + body + b"N.")
        return lambda: pickled.read_pickle(Window(SourceFile(path)), "here")

    check_linear(work, few=300, count=steps)


@pytest.mark.parametrize("copies", [False, True])
def test_elements_of_a_compressed_block(copies: bool) -> None:
    """Literals of a byte, or copies of sixty-four."""

    def work(count: int) -> Callable[[], Any]:
        body = b"\0a" + (b"\xfe\1\0" if copies else b"\0a") * count
        length, digits = 1 + (64 if copies else 1) * count, b""
        while length:
            digits += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
            length >>= 7
        return lambda: checkpoint.decompress(memoryview(digits + body), "here")

    check_linear(work, few=300, count=steps)


def test_nodes_behind_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is computed by itself, and none makes a model of its own."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper

    def work(count: int) -> Callable[[], Any]:
        path = tmp_path / f"{count}.onnx"
        weights = {"W0": (1, 8, 3), "R": (1, 8, 2)}
        nodes = [make.make_node("Neg", [f"W{n}"], [f"W{n + 1}"]) for n in range(count)]
        nodes += [make.make_node("LSTM", ["X", f"W{count}", "R"], ["Y"], hidden_size=2, name="a")]
        graph = make.make_graph(
            nodes,
            "graph",
            [make.make_tensor_value_info("X", 1, [None, None, 3])],
            [make.make_tensor_value_info("Y", 1, None)],
            [onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items()],
        )
        version = [make.make_opsetid("", 14)]
        onnx.save(make.make_model(graph, opset_imports=version, ir_version=8), path)
        return lambda: lc.load(path)

    started = []
    evaluator = constants.ReferenceEvaluator
    monkeypatch.setattr(constants, "ReferenceEvaluator", lambda *a: started.append(evaluator(*a)))
    check_linear(work, few=30, count=steps)
    assert not started


@pytest.mark.slow
def test_layers_of_a_graph(tmp_path: Path) -> None:
    """Above half a megabyte a graph is walked once more, before it is trusted."""
    check_linear(_reading(".onnx", tmp_path), few=300)
