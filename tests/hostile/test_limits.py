"""What is above a limit is refused by an error that says how to raise it, and that way works."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.bundlefiles import block, entry, header, nested, table
from support.cli import FIXTURES, KERAS
from support.crafted import CRAFTS, Bench
from support.crafted_others import valid, written
from support.npzfiles import npy

import lstmconvert as lc
from lstmconvert import limits
from lstmconvert.errors import CorruptFile, LimitExceeded
from lstmconvert.limits import Limit
from lstmconvert.pergate import gatesfile

LIMITS = {limit.name: limit for limit in vars(limits).values() if isinstance(limit, Limit)}


def craft(name: str) -> Callable[[Path], Path]:
    """A crafted file that converts."""
    from support import crafted_kinds  # noqa: F401  # it fills the list

    (found,) = [one for one in CRAFTS if one.name == name]
    assert found.refused is None
    return lambda folder: found.make(Bench(folder, folder, folder))


def kind(name: str) -> Callable[[Path], Path]:
    """A valid file of another framework's container."""
    return lambda folder: written(valid(name), folder)


def packed(folder: Path) -> Path:
    """A compressed MATLAB file."""
    from support.fuzz_targets import TARGETS

    return TARGETS["mat-compressed"].make(folder)


def stack(folder: Path) -> Path:
    """The weights alone of a stack of unlike cells, taken out of a whole model."""
    path = folder / "x.weights.h5"
    with zipfile.ZipFile(KERAS / "rnn_stack_gru.keras") as archive:
        path.write_bytes(archive.read("model.weights.h5"))
    return path


def fixture(name: str) -> Callable[[Path], Path]:
    """A file as it is."""
    return lambda _: FIXTURES / name


def empty_messages(folder: Path) -> Path:
    """A SavedModel with ten thousand objects of which it says nothing."""
    path = written({name: data for name, data in valid("savedmodel").items()
                    if "keras_metadata" not in name}, folder)  # fmt: skip
    (path / "saved_model.pb").write_bytes(nested(2, nested(7, b"\x0a\0" * 10_000)))
    return path


#: Limit -> a file that a limit of one refuses.
FILES: dict[str, Callable[[Path], Path]] = {
    "json_bytes": kind("npz"),
    "json_values": kind("npz"),
    "config_bytes": kind("rtneural"),
    "json_depth": kind("fdeep"),
    "json_dense": lambda folder: sparse(folder / "x.json"),
    "packed_bytes": lambda folder: deflated(folder / "x.keras"),
    "header_bytes": lambda folder: converted(folder / "x.safetensors"),
    "hdf5_depth": fixture("keras-3.15.1/seed95.h5"),
    "hdf5_objects": fixture("keras-3.15.1/seed95.weights.h5"),
    "hdf5_attributes": craft("chunked_and_compressed-legacy"),
    "attribute_bytes": fixture("keras-3.15.1/seed95.h5"),
    "chunk_bytes": craft("chunked_and_compressed-legacy"),
    "zip_directory_bytes": fixture("keras-3.15.1/seed95.keras"),
    "stack_cells": stack,
    "zip_members": kind("chainer"),
    "rank": kind("params"),
    "arrays": kind("msgpack"),
    "eqx_leaves": kind("eqx"),
    "tree_depth": kind("msgpack"),
    "units": fixture("keras-3.15.1/seed95.keras"),
    "tensor_bytes": kind("mat"),
    "path_length": kind("params"),
    "npy_header_bytes": kind("npz"),
    "pickle_opcodes": fixture("keras-3.15.1/seed95.npz.keras"),
    "pickle_objects": fixture("keras-3.15.1/seed95.npz.keras"),
    "pickle_text_bytes": fixture("keras-3.15.1/seed95.npz.keras"),
    "directory_files": fixture("keras-3.15.1/seed95.unzipped"),
    "protobuf_bytes": kind("checkpoint"),
    "protobuf_messages": kind("savedmodel"),
    "protobuf_dense": empty_messages,
    "coreml_bytes": kind("mlmodel"),
    "coreml_messages": kind("mlmodel"),
    "flatbuffer_bytes": kind("tflite"),
    "onnx_nodes": lambda folder: converted(folder / "x.onnx"),
    "ratio": packed,
    "ratio_floor_bytes": packed,
}
#: Limits that no file here reaches: a test of its own below, or of test_isolate.
APART = {
    *("onnx_depth", "partitions", "isolated_bytes", "isolated_seconds", "report_bytes"),
    # Of stores: tests/bulk/test_stores.py
    *("download_bytes", "download_seconds", "download_stall_seconds", "temporary_bytes"),
    "store_attempts",
    # Of an index that is compressed, which TensorFlow writes no more: tests/tensorflow
    "snappy_bytes",
    # Of numbers that are printed, or given: tests/cli/test_values.py, tests/pictures/test_page.py
    *("json_numbers", "csv_bytes"),
}
#: Both must be passed: one is lowered with the other.
TOGETHER = {"ratio": "ratio_floor_bytes", "ratio_floor_bytes": "ratio"}


def deflated(path: Path) -> Path:
    """An archive that is smaller than the config in it."""
    with zipfile.ZipFile(KERAS / "seed95.keras") as whole, zipfile.ZipFile(path, "w") as small:
        for name in whole.namelist():
            data = whole.read(name) + (b" " * 100_000 if name == "config.json" else b"")
            small.writestr(name, data, zipfile.ZIP_DEFLATED)
    return path


def sparse(path: Path) -> Path:
    """A JSON text of many short keys."""
    lc.convert(KERAS / "seed95.keras", path, layout="torch")
    keys = ", ".join(f'"{number}": 0' for number in range(1000))
    path.write_text(f'{{"x": {{{keys}}}, {path.read_text()[1:]}')
    return path


def converted(path: Path) -> Path:
    lc.convert(KERAS / "seed95.keras", path, force=True)
    return path


def everything(path: Path) -> None:
    """Read all that is in a file, and its hash."""
    model = lc.load(path)
    for tensor in gatesfile.tensors(model).values():
        tensor.read()
    model.source.digest()


def test_every_limit_is_tried() -> None:
    assert FILES.keys() | APART == LIMITS.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_limit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FILES[name](tmp_path)
    everything(path)
    for lowered in (name, *filter(None, [TOGETHER.get(name)])):
        monkeypatch.setenv(LIMITS[lowered].variable, "1")
    with pytest.raises(LimitExceeded) as caught:
        everything(path)
    assert LIMITS[name].variable in str(caught.value.hint)
    monkeypatch.setenv(LIMITS[name].variable, str(LIMITS[name].default + 1))
    everything(path)


def test_what_is_above_a_limit_when_it_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "x.safetensors"
    monkeypatch.setenv(limits.HEADER_BYTES.variable, "100")
    with pytest.raises(LimitExceeded, match="header is above") as caught:
        lc.convert(KERAS / "seed95.keras", destination)
    assert caught.value.where == str(destination)
    assert not list(tmp_path.iterdir())


def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lc.convert_many([KERAS / "seed95.keras"], tmp_path)
    monkeypatch.setenv(limits.REPORT_BYTES.variable, "100")
    with pytest.raises(LimitExceeded, match="the report is above") as caught:
        lc.convert_many([KERAS / "seed95.keras"], tmp_path)
    assert limits.REPORT_BYTES.variable in str(caught.value.hint)


def test_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = nested(7, b"") * 2
    records = [(b"", header()), (b"x", entry(extra=slices))]
    (tmp_path / "x.index").write_bytes(table([block(records)]))
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(8))
    monkeypatch.setenv(limits.PARTITIONS.variable, "1")
    with pytest.raises(LimitExceeded, match="partitions is above") as caught:
        lc.load(tmp_path / "x.index")
    assert limits.PARTITIONS.variable in str(caught.value.hint)


def test_nested_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.crafted_onnx import CRAFTS as ONNX

    (nested_60,) = [one for one in ONNX if one.name == "onnx_nested_60"]
    path = nested_60.make(Bench(tmp_path, tmp_path, tmp_path))
    with pytest.raises(CorruptFile, match="not a valid ONNX file"):  # it passes the limit
        lc.load(path)
    monkeypatch.setenv(limits.ONNX_DEPTH.variable, "10")
    with pytest.raises(LimitExceeded) as caught:
        lc.load(path)
    assert limits.ONNX_DEPTH.variable in str(caught.value.hint)


# A limit is not a wall: what honest giants have passes when it is raised.


def test_nine_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, other=np.ones((1,) * 9, "f4"), **_torch())
    with pytest.raises(LimitExceeded):
        lc.load(path)
    monkeypatch.setenv(limits.RANK.variable, "9")
    assert lc.load(path).other["other"].shape == (1,) * 9


def test_a_longer_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(60_000)
    np.savez(tmp_path / "x.npz", **_torch())
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("other.npy", npy(header, bytes(4)))
    with pytest.raises(LimitExceeded):
        lc.load(tmp_path / "x.npz")
    monkeypatch.setenv(limits.NPY_HEADER_BYTES.variable, "60000")
    assert lc.load(tmp_path / "x.npz").other["other"].shape == (1,)


def test_deeper_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgpack

    tree = msgpack.unpackb(
        written(valid("msgpack"), tmp_path).read_bytes(), ext_hook=msgpack.ExtType
    )
    for _ in range(70):
        tree = {"a": tree}
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb(tree))
    with pytest.raises(LimitExceeded):
        lc.load(tmp_path / "x.msgpack")
    monkeypatch.setenv(limits.TREE_DEPTH.variable, "100")
    assert len(lc.load(tmp_path / "x.msgpack")) == 1


def test_deeper_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(valid("rtneural"), tmp_path).read_text()
    (tmp_path / "x.json").write_text('{"x": ' + "[" * 300 + "]" * 300 + ", " + text[1:])
    with pytest.raises(LimitExceeded):
        lc.load(tmp_path / "x.json")
    monkeypatch.setenv(limits.JSON_DEPTH.variable, "301")
    assert len(lc.load(tmp_path / "x.json")) == 1


def _torch() -> dict[str, np.ndarray]:
    (layer,) = lc.load(KERAS / "seed95.keras").values()
    return dict(lc.arrange(layer, "torch"))
