"""The checksums of our own files: a changed bit is found, and named; so is a changed option."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import onnx
import pytest
import safetensors
import safetensors.numpy
from support.cli import failure
from support.crafted_safetensors import joined, split, unsealed
from support.fuzz_targets import everything, numbers
from support.keras_tools import FIXTURES, LATEST
from support.thinned import ALL

import lstmconvert as lc
from lstmconvert.errors import CorruptFile, LSTMConvertError
from lstmconvert.model.model import alone
from lstmconvert.onnx import write as onnx_write
from lstmconvert.tensors import tensor

SOURCE = FIXTURES / LATEST / "seed95.keras"
KERNEL = "lstm.forget_gate.kernel"
#: What a file of ours is made with: its name, and options.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "safetensors": ("a.safetensors", {}),
    "npz": ("a.npz", {}),
    "onnx": ("a.onnx", {}),
    "fused onnx": ("a.onnx", {"fused": True}),
    "whole onnx": ("a.onnx", {"whole": True}),
    "onnx in two files": ("two.onnx", {}),
    "fused onnx in two files": ("two.onnx", {"fused": True}),
    "onnx with other tensors": ("a.onnx", {"with_other": True}),
    "bfloat16 safetensors": ("a.safetensors", {"dtype": "bfloat16"}),
    "bfloat16 npz": ("a.npz", {"dtype": "bfloat16"}),
    "float16 onnx": ("a.onnx", {"dtype": "float16"}),
}


def make(kind: str, folder: Path, source: Path = SOURCE) -> Path:
    """Write a file of ours."""
    name, options = KINDS[kind]
    with pytest.MonkeyPatch.context() as patch:
        if name.startswith("two"):
            patch.setattr(onnx_write, "PROTOBUF_BYTES", 1000)
        lc.convert(source, folder / name, **options)
    return folder / name


def by_the_library(path: Path) -> tuple[str, Iterator[tuple[str, bytes]]]:
    """Return the metadata text of a file, and the bytes of its tensors, read by other programs."""
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "np") as file:
            texts = file.metadata()
        header, body = split(path.read_bytes())
        places = {name: entry["data_offsets"] for name, entry in header.items() if name[0] != "_"}
        return texts["lstmconvert"], ((n, body[a:b]) for n, (a, b) in places.items())
    if path.suffix == ".npz":
        arrays = dict(np.load(path))
        text = arrays.pop("__metadata__").tobytes().decode()
        return text, ((name, array.tobytes()) for name, array in arrays.items())
    model = onnx.load(path)
    (text,) = (p.value for p in model.metadata_props if p.key == "lstmconvert")
    return text, (
        (t.name, onnx.numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_checksums_are_those_of_the_bytes(kind: str, tmp_path: Path) -> None:
    """Another program reads the tensors, and another library computes their CRC-32C."""
    path = make(kind, tmp_path)
    text, tensors = by_the_library(path)
    described = json.loads(text)
    assert described["version"] == 2
    wanted = {name: f"{google_crc32c.value(data):08x}" for name, data in tensors}
    if path.suffix == ".onnx":  # nor have the graph's small constants one
        wanted = {name: wanted[name] for name in described["checksums"]}
    assert described["checksums"] == wanted
    assert len(wanted) >= 3
    if "dtype" not in KINDS[kind][1]:
        wanted_numbers = numbers(alone(lc.load(SOURCE)["lstm"]))
        assert numbers(alone(lc.load(path)["lstm"])) == wanted_numbers


def unfound(path: Path, file: Path, step: int) -> dict[int, str]:
    """Change bytes of a file in turn; return the places of those that change what is read.

    Args:
        path: what is opened.
        file: what is changed: the same file, or the one beside it.
        step: 1 for each byte, 41 for every 41st.
    """
    data, valid, result = file.read_bytes(), everything(lc.load(path)), {}
    for at in range(0, len(data), step):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        file.write_bytes(changed)
        try:
            model = lc.load(path)
            now = everything(model)
        except LSTMConvertError:
            continue
        if now != valid and not any("changed since" in note for note in model.notes):
            result[at] = "other numbers" if now[0] != valid[0] else "other options"
    file.write_bytes(data)
    return result


def mentions(data: bytes, text: bytes) -> set[int]:
    """Return the places of a text's bytes wherever it is in a file."""
    found, at = set[int](), data.find(text)
    while at >= 0:
        found |= set(range(at, at + len(text)))
        at = data.find(text, at + 1)
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LSTM of one unit and one input, weights only: the smallest file there is."""
    folder = tmp_path_factory.mktemp("tiny")
    arrays = {
        f"lstm.{gate}_gate.{part}": np.full(shape, 0.5 + index, np.float32)
        for index, gate in enumerate(("input", "forget", "cell", "output"))
        for part, shape in (("kernel", (1, 1)), ("recurrent_kernel", (1, 1)), ("bias", (1,)))
    }
    safetensors.numpy.save_file(arrays, folder / "names.safetensors")
    path = folder / "tiny.safetensors"
    settings = ["activation=tanh", "recurrent_activation=sigmoid"]
    settings += ["go_backwards=false", "return_sequences=true", "return_state=false"]
    lc.convert(folder / "names.safetensors", path, settings=settings)
    return path


KINDS_TO_FLIP = [
    *("safetensors", "npz"),
    *("onnx", "fused onnx", "onnx in two files"),
]


#: A graph takes minutes to be opened once for each of its bytes.
STEPS = [pytest.param(kind, 101, id=kind) for kind in KINDS_TO_FLIP]
STEPS += [
    pytest.param(
        kind, 1 if ALL or kind == "safetensors" else 5, id=f"{kind}-slow", marks=pytest.mark.slow
    )
    for kind in KINDS_TO_FLIP
]


@pytest.mark.parametrize(("kind", "step"), STEPS)
def test_every_byte_of_a_small_file(kind: str, step: int, tiny: Path, tmp_path: Path) -> None:
    """Bytes are changed in turn. What is not found is the name of our metadata alone.

    A text of that name is ours, and a text of another name is anybody's: the numbers are the same,
    and the options are unknown. Of a graph, a changed name is told in a note.
    """
    path = make(kind, tmp_path, tiny)
    for file in sorted(tmp_path.iterdir()):
        ours = mentions(file.read_bytes(), b"lstmconvert")
        if file.suffix == ".onnx":  # the tags and lengths before it: then there is no such field
            ours |= {at - count for at in ours for count in range(6)}
        result = unfound(path, file, step)
        assert set(result) <= ours
        assert set(result.values()) <= {"other options"}


@pytest.mark.parametrize("kind", ["safetensors", "npz", "onnx", "onnx in two files"])
def test_the_tensor_and_the_file_are_named(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path)
    kernel = lc.load(path)["lstm"].forget_gate.kernel.tobytes()
    hit = next(file for file in tmp_path.iterdir() if kernel in file.read_bytes())
    data = bytearray(hit.read_bytes())
    data[data.index(kernel) + 5] ^= 1
    hit.write_bytes(data)
    with pytest.raises(CorruptFile) as error:
        lc.load(path)["lstm"].forget_gate.kernel.sum()
    assert KERNEL in str(error.value)
    assert str(hit) in str(error.value)
    if kind != "npz":  # the others are whole; small members are checked when they are opened
        assert lc.load(path)["lstm"].input_gate.kernel.shape == (7, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(shape=entry["shape"][::-1]),
        lambda entry: entry.update(dtype="I32"),
    ],
    ids=["shape", "dtype"],
)
def test_a_header_that_reads_the_bytes_another_way(
    change: Callable[[Any], None], tmp_path: Path
) -> None:
    """The bytes are the same; the seal knows what they were."""
    path = make("safetensors", tmp_path)
    header, body = split(path.read_bytes())
    change(header["other/layers/dense/vars/0"])
    path.write_bytes(joined(header, body))
    with pytest.raises(CorruptFile, match="seal"):
        lc.load(path)


def test_an_option_that_was_changed(tmp_path: Path) -> None:
    path = make("safetensors", tmp_path)
    header, body = split(path.read_bytes())
    text = header["__metadata__"]["lstmconvert"]
    assert text.count('"dropout":0.0') >= 1
    header["__metadata__"]["lstmconvert"] = text.replace('"dropout":0.0', '"dropout":0.5')
    path.write_bytes(joined(header, body))
    with pytest.raises(CorruptFile, match="seal") as error:
        lc.load(path)
    assert "guide integrity" in str(error.value.hint)


def test_version_1_is_read(tmp_path: Path) -> None:
    """As it was written before there were checksums, and in containers that keep none."""
    path = make("safetensors", tmp_path)
    valid = numbers(lc.load(path))
    header, body = split(path.read_bytes())
    value = unsealed(json.loads(header["__metadata__"]["lstmconvert"]))
    header["__metadata__"]["lstmconvert"] = json.dumps(value)
    old = tmp_path / "old.safetensors"
    old.write_bytes(joined(header, body))
    assert numbers(lc.load(old)) == valid
    again = tmp_path / "again.safetensors"
    lc.convert(old, again)
    assert again.read_bytes() == path.read_bytes()


def test_a_framework_changes_its_files(tmp_path: Path) -> None:
    """They are trained and saved again, with our metadata, and have no checksums."""
    path = tmp_path / "a.safetensors"
    lc.convert(SOURCE, path, layout="torch")
    with safetensors.safe_open(path, "np") as file:
        texts = file.metadata()
    assert json.loads(texts["lstmconvert"])["version"] == 1
    arrays = safetensors.numpy.load_file(path)
    arrays = {name: array + np.float32(1) for name, array in arrays.items()}
    safetensors.numpy.save_file(arrays, path, texts)
    kernel = lc.load(path)["lstm"].forget_gate.kernel
    assert np.array_equal(kernel, lc.load(SOURCE)["lstm"].forget_gate.kernel + np.float32(1))


def edited(path: Path, out: Path, metadata: Callable[[dict[str, str]], dict[str, str]]) -> Path:
    """Change numbers through the safetensors library, as a user would, and keep the metadata."""
    with safetensors.safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        texts = metadata(file.metadata())
    arrays[KERNEL] = arrays[KERNEL] + np.float32(1)
    safetensors.numpy.save_file(arrays, out, texts)
    return out


def accepted(texts: dict[str, str]) -> dict[str, str]:
    """What `lstmconvert guide integrity` says to do."""
    value = json.loads(texts["lstmconvert"])
    value["version"] = 1
    del value["checksums"], value["seal"]
    return {**texts, "lstmconvert": json.dumps(value)}


def test_a_file_that_was_edited(tmp_path: Path) -> None:
    path = make("safetensors", tmp_path)
    other = edited(path, tmp_path / "edited.safetensors", lambda texts: texts)
    line, hint = failure("convert", other, tmp_path / "out.keras")
    assert "bad CRC-32C of a tensor" in line
    assert KERNEL in line
    assert "lstmconvert guide integrity" in hint
    assert not (tmp_path / "out.keras").exists()
    meant = edited(path, tmp_path / "meant.safetensors", accepted)
    kernel = lc.load(meant)["lstm"].forget_gate.kernel
    assert np.array_equal(kernel, lc.load(path)["lstm"].forget_gate.kernel + np.float32(1))
    lc.convert(meant, tmp_path / "out.keras")


def test_an_npz_that_was_edited(tmp_path: Path) -> None:
    """NumPy makes a new archive, whose own checksums are right."""
    path = make("npz", tmp_path)
    arrays = dict(np.load(path))
    arrays[KERNEL] = np.asfortranarray(arrays[KERNEL] + np.float32(1))
    np.savez(tmp_path / "edited.npz", **arrays)
    assert zipfile.ZipFile(tmp_path / "edited.npz").testzip() is None
    with pytest.raises(CorruptFile, match="bad CRC-32C of a tensor"):
        lc.load(tmp_path / "edited.npz")["lstm"].forget_gate.kernel.sum()
    arrays[KERNEL] = np.asfortranarray(arrays[KERNEL] - np.float32(1))
    assert not arrays[KERNEL].flags.c_contiguous
    np.savez(tmp_path / "same.npz", **arrays)
    wanted = lc.load(path)["lstm"].forget_gate.kernel
    if np.array_equal(arrays[KERNEL], wanted):  # else the sum was rounded
        assert np.array_equal(lc.load(tmp_path / "same.npz")["lstm"].forget_gate.kernel, wanted)


def test_an_onnx_graph_that_was_pruned(tmp_path: Path) -> None:
    """A weight that is gone is not damage: the graph is another, and is read as any graph."""
    path = make("onnx with other tensors", tmp_path)
    model = onnx.load(path)
    name = next(t.name for t in model.graph.initializer if t.name.startswith("other/"))
    kept = [t for t in model.graph.initializer if t.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, path)
    assert any("changed since" in note for note in lc.load(path).notes)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_checking_takes_no_pass_of_its_own(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with checksums is read as often as one without."""
    path = make("safetensors", tmp_path)
    plain = tmp_path / "plain.safetensors"
    header, body = split(path.read_bytes())
    value = unsealed(json.loads(header["__metadata__"]["lstmconvert"]))
    header["__metadata__"]["lstmconvert"] = json.dumps(value)
    plain.write_bytes(joined(header, body))
    counts: dict[Path, int] = {}
    real = tensor.FileTensor._near

    def read(self: Any, begin: int, count: int) -> bytearray:
        counts[self.source.path] = counts.get(self.source.path, 0) + count
        return real(self, begin, count)

    compared = []
    monkeypatch.setattr(tensor.FileTensor, "_near", read)
    monkeypatch.setattr(tensor.CheckedTensor, "_compare", lambda self: compared.append(self))
    for source in (path, plain):
        for name in ("out.npz", "out.keras"):
            lc.convert(source, tmp_path / name, force=True, dtype=dtype)
    assert counts[path] == counts[plain] > 0
    assert not compared
