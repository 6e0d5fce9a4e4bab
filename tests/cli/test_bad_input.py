"""Bad input of every kind: its one clear line, exit 2, and nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.crafted import FIXTURES, KERAS, LEGACY, LEGACY_CELL, V3_CELL, WEIGHTS, members, zipped
from support.jail import Jail, Run
from support.thinned import each

import lstmconvert
from lstmconvert import limits
from lstmconvert.errors import DestinationError, LimitExceeded, NoLSTM, SourceError, UsageError

SOURCE = FIXTURES / KERAS
LEGACY_WEIGHTS = "../keras-2.3.1/seed95.weights-only.h5"


@pytest.fixture(scope="module")
def jail() -> Iterator[Jail]:
    with Jail() as one:
        yield one


def check(run: Run, words: str, hint: str = "") -> None:
    """One line with `words`, one hint, exit 2."""
    assert run.code == 2, run
    assert not run.stdout
    error, advice = run.stderr.splitlines()
    assert error.startswith("lstmconvert: error: ")
    assert words in error, error
    assert advice.startswith("hint: ")
    assert hint in advice, advice
    assert "a fault of lstmconvert itself" not in error, error


def _written(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "model.keras"
        path.write_bytes(data)
        return path

    return make


def _cut(name: str, part: float) -> Callable[[Path], Path]:
    data = (FIXTURES / name).read_bytes()
    return _written(data[: int(len(data) * part)])


def _hdf5(folder: Path, fill: Callable[[h5py.File], object]) -> Path:
    path = folder / "model.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def _cell(folder: Path, *shapes: tuple[int, ...]) -> Path:
    path = shutil.copy(FIXTURES / WEIGHTS, folder)
    with h5py.File(path, "r+") as file:
        for index, shape in enumerate(shapes):
            del file[f"{V3_CELL}/{index}"]
            file[f"{V3_CELL}/{index}"] = np.ones(shape, "f4")
    return _written(zipped({**members(), "model.weights.h5": Path(path).read_bytes()}))(folder)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"

SOURCES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "truncated-keras": (_cut(KERAS, 0.6), "not a readable zip archive", "truncated or damaged"),
    "truncated-weights": (_cut(WEIGHTS, 0.6), "the file is truncated", "download it again"),
    "truncated-legacy": (_cut(LEGACY, 0.9), "the file is truncated", "download it again"),
    "first-bytes": (_cut(KERAS, 0.0005), "", ""),
    "empty": (_written(b""), "the file is empty", "again"),
    "text": (_written(b"just some text\n"), "found text", "kinds of files"),
    "lfs-pointer": (_written(LFS), "a Git LFS pointer", "git lfs pull"),
    "html": (_written(b"<!DOCTYPE html><html>404</html>"), "an HTML page", ""),
    "pickle": (_written(pickle.dumps({"a": 1}, 4)), "a pickle that holds no Keras model", ""),
    "gzip": (_written(b"\x1f\x8b\x08" + bytes(20)), "unpack it first", ""),
    "zeros": (_written(bytes(1000)), "not a model file", ""),
    "json": (_written(b'{"a": 1}'), "a JSON file, and no model", ""),
    "architecture": (_written(members()["config.json"]), "without weights", "--config"),
    "another-zip": (_written(zipped({"a.txt": b"x"})), "not a Keras archive", ""),
    "no-such-file": (lambda folder: folder / "gone.keras", "No such file", "check the path"),
    "directory": (lambda folder: folder, "holds no model", ""),
    "below-a-file": (lambda folder: _written(b"x")(folder) / "a", "Not a directory", ""),
    "long-name": (lambda folder: folder / ("n" * 300), "too long", ""),
    "device": (lambda _: Path("/dev/zero"), "not a regular file", ""),
    "another-hdf5": (
        lambda folder: _hdf5(folder, lambda file: file.create_dataset("x", data=[1.0])),
        "not one that Keras wrote",
        "",
    ),
    "empty-hdf5": (lambda folder: _hdf5(folder, lambda _: None), "not one that Keras", ""),
    "kernels-disagree": (
        lambda folder: _cell(folder, (7, 8), (3, 12)),
        "kernel (7, 8) float32, recurrent_kernel (3, 12) float32",
        "",
    ),
    "no-fourth-gate": (
        lambda folder: _cell(folder, (7, 10), (2, 10)),
        "kernel (7, 10) float32, recurrent_kernel (2, 10) float32",
        "",
    ),
    "bias-disagrees": (lambda folder: _cell(folder, (7, 8), (2, 8), (6,)), "bias (6,)", ""),
    "bias-of-two-axes": (lambda folder: _cell(folder, (7, 8), (2, 8), (3, 8)), "bias (3, 8)", ""),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(name: str, jail: Jail, tmp_path: Path) -> None:
    make, words, hint = SOURCES[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    run = jail.run("convert", make(tmp_path / "in"), tmp_path / "out" / "lstm.safetensors")
    check(run, words, hint)
    assert not run.events
    assert os.listdir(tmp_path / "out") == []


def _altered(fixture: str, array: str, shape: tuple[int, ...], folder: Path) -> Path:
    path = Path(shutil.copy(FIXTURES / fixture, folder))
    with h5py.File(path, "r+") as file:
        del file[array]
        file[array] = np.ones(shape, "f4")
    return path


@each("fixture, array",
    [
        (WEIGHTS, f"{V3_CELL}/{{}}"),
        (LEGACY, f"{LEGACY_CELL}/{{}}"),
        (LEGACY_WEIGHTS, "lstm/lstm/{}:0"),
    ],
)
@each("which, shape", [(0, (7, 9)), (1, (2, 9)), (1, (3, 12)), (2, (9,))])
def test_shapes_of_no_lstm(
    fixture: str, array: str, which: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Without a config too, what Keras calls an LSTM is none that may be passed over."""
    roles = ("0", "1", "2") if array.startswith(V3_CELL) else ("kernel", "recurrent_kernel", "bias")
    path = _altered(fixture, array.format(roles[which]), shape, tmp_path)
    with pytest.raises(SourceError) as error:
        lstmconvert.load(path)
    assert str(error.value.where).startswith(f"{path}: ")
    assert str(shape) in str(error.value.found)
    assert "recurrent_kernel (units, 4*units)" in str(error.value.expected)


def test_truncated_metadata_is_told_from_a_damaged_disk(jail: Jail, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    lstmconvert.convert(SOURCE, whole)
    data = whole.read_bytes()
    for length in (3, 8, 9, len(data) // 2, len(data) - 1):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(data[:length])
        check(jail.run("convert", path, tmp_path / "out.safetensors"), "", "")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        (WEIGHTS, "lstm.keras"),
        (LEGACY, "lstm.keras"),
        (KERAS, "lstm.h5"),
        (KERAS, "lstm"),
        (LEGACY, "lstm.txt"),
        (WEIGHTS, "lstm.safetensors"),
    ],
)
def test_wrong_suffix(fixture: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = Path(shutil.copy(FIXTURES / fixture, tmp_path / "in" / name))
    lstmconvert.convert(source, tmp_path / "out.safetensors")
    found = lstmconvert.load(tmp_path / "out.safetensors")["lstm"].forget_gate.kernel
    assert np.array_equal(found, lstmconvert.load(SOURCE)["lstm"].forget_gate.kernel)


def test_per_gate_file_of_another_suffix(tmp_path: Path) -> None:
    lstmconvert.convert(SOURCE, tmp_path / "a.safetensors")
    os.rename(tmp_path / "a.safetensors", tmp_path / "a.keras")
    assert list(lstmconvert.load(tmp_path / "a.keras")) == ["lstm"]


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5", ".h5", ".npz"])
def test_bits_are_kept(suffix: str, tmp_path: Path) -> None:
    # Quiet and signalling NaN with payloads, infinities, -0.0, subnormals.
    odd = [0x7FC00001, 0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001]
    source = Path(shutil.copy(FIXTURES / LEGACY, tmp_path))
    with h5py.File(source, "r+") as file:
        kernel = file["model_weights/lstm/lstm/lstm_cell/kernel"]
        bits = kernel[()].view("u4")
        bits[:, 3] = odd
        kernel[...] = bits.view("f4")
    destination = tmp_path / f"out{suffix}"
    lstmconvert.convert(source, destination)
    found = lstmconvert.load(destination)["lstm"].forget_gate.kernel
    assert found[:, 1].view("u4").tolist() == odd


# --- destinations ---------------------------------------------------------------------------------

OLD = b"what was there before"


def test_destination_below_a_file(jail: Jail, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    run = jail.run("convert", SOURCE, tmp_path / "file" / "lstm.safetensors")
    check(run, "does not exist", "mkdir -p")
    assert (tmp_path / "file").read_bytes() == OLD


def test_destination_in_no_directory(jail: Jail, tmp_path: Path) -> None:
    check(jail.run("convert", SOURCE, tmp_path / "no" / "lstm.safetensors"), "does not exist")
    assert os.listdir(tmp_path) == []


def test_destination_is_a_directory(jail: Jail, tmp_path: Path) -> None:
    (tmp_path / "lstm.safetensors").mkdir()
    for force in ([], ["--force"]):
        run = jail.run("convert", SOURCE, tmp_path / "lstm.safetensors", *force)
        check(run, "is a directory")
    assert os.listdir(tmp_path / "lstm.safetensors") == []


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="no directory where root cannot write")
@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5", ".h5"])
def test_destination_that_not_even_root_can_write(suffix: str, jail: Jail) -> None:
    check(jail.run("convert", SOURCE, Path(f"/sys/lstm{suffix}")), "cannot write: ")


def test_destination_exists(jail: Jail, tmp_path: Path) -> None:
    destination = tmp_path / "lstm.safetensors"
    destination.write_bytes(OLD)
    check(jail.run("convert", SOURCE, destination), "the destination exists", "--force")
    assert destination.read_bytes() == OLD
    assert jail.run("convert", SOURCE, destination, "--force").code == 0
    assert list(lstmconvert.load(destination)) == ["lstm"]


def test_destination_is_a_dangling_link(jail: Jail, tmp_path: Path) -> None:
    destination = tmp_path / "lstm.safetensors"
    destination.symlink_to(tmp_path / "nowhere")
    check(jail.run("convert", SOURCE, destination), "the destination exists", "--force")
    assert jail.run("convert", SOURCE, destination, "--force").code == 0
    assert not destination.is_symlink()
    assert os.listdir(tmp_path) == [destination.name]


@pytest.mark.parametrize("how", ["same", "symlink", "hardlink", "detour", "linked-directory"])
def test_destination_is_the_source(how: str, jail: Jail, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = Path(shutil.copy(SOURCE, folder / "model.keras"))
    destination = folder / "other.keras"
    if how == "same":
        destination = source
    elif how == "symlink":
        destination.symlink_to(source)
    elif how == "hardlink":
        os.link(source, destination)
    elif how == "detour":
        destination = folder / ".." / "in" / "model.keras"
    else:
        (tmp_path / "link").symlink_to(folder)
        destination = tmp_path / "link" / "model.keras"
    for force in ([], ["--force"]):
        check(jail.run("convert", source, destination, *force), "are the same file")
    assert source.read_bytes() == SOURCE.read_bytes()


def test_destination_inside_the_source(jail: Jail, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name, data in members().items():
        (source / name).write_bytes(data)
    run = jail.run("convert", source, source / "model.weights.h5", "--force")
    check(run, "inside the source")
    assert (source / "model.weights.h5").read_bytes() == members()["model.weights.h5"]


def test_destination_is_a_shard(jail: Jail, tmp_path: Path) -> None:
    shard = Path(shutil.copy(FIXTURES / WEIGHTS, tmp_path))
    source = tmp_path / "model.weights.json"
    source.write_text(f'{{"weight_map": {{"/layers": ["{shard.name}"]}}}}')
    run = jail.run("convert", source, shard, "--force", allow=[tmp_path])
    check(run, "are the same file")
    assert shard.read_bytes() == (FIXTURES / WEIGHTS).read_bytes()


@pytest.mark.parametrize("name", ["lstm.xyz", "lstm", ".safetensor", "lstm.keras.zip"])
def test_destination_of_no_kind(name: str, jail: Jail, tmp_path: Path) -> None:
    check(jail.run("convert", SOURCE, tmp_path / name), "suffix names no kind of file")
    assert os.listdir(tmp_path) == []


def test_paths_with_a_null(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        lstmconvert.load("a\0b")
    with pytest.raises((DestinationError, UsageError)):
        lstmconvert.convert(SOURCE, "a\0b.safetensors")


@pytest.mark.parametrize("options", [{"chunks": (1000,)}, {"chunks": (999,), "compression": 9}])
def test_a_long_vector_is_read_in_pieces(options: dict[str, object], tmp_path: Path) -> None:
    values = np.arange(100_001, dtype=">f4")
    path = Path(shutil.copy(FIXTURES / WEIGHTS, tmp_path))
    with h5py.File(path, "r+") as file:
        file.create_dataset("layers/dense/vars/2", data=values, **options)
    tensor = lstmconvert.load(path).other["layers/dense/vars/2"]
    blocks = list(tensor.blocks(10_000))
    assert max(block.nbytes for block in blocks) <= 10_000
    assert np.array_equal(np.concatenate(blocks), values)
    assert np.array_equal(tensor.read(), values)
    assert np.array_equal(tensor.elements(5, 70_000), values[5:70_000])


# --- limits ---------------------------------------------------------------------------------------


def test_a_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = limits.HDF5_OBJECTS.variable
    monkeypatch.setenv(variable, "3")
    with pytest.raises(LimitExceeded) as caught:
        lstmconvert.load(SOURCE)
    assert variable in str(caught.value.hint)
    monkeypatch.setenv(variable, "1000")
    assert list(lstmconvert.load(SOURCE)) == ["lstm"]


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "1e9", "٣"])
def test_a_limit_is_a_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.HDF5_OBJECTS.variable, value)
    with pytest.raises(UsageError, match="positive integer"):
        lstmconvert.load(SOURCE)


def test_every_limit_has_a_reason() -> None:
    found = [value for value in vars(limits).values() if isinstance(value, limits.Limit)]
    assert len(found) > 20
    assert all(limit.reason and limit.default > 0 for limit in found)
    assert len({limit.variable for limit in found}) == len(found)


def test_a_custom_class_that_is_passed_over_is_named(tmp_path: Path) -> None:
    whole = json.loads(members()["config.json"])
    (lstm,) = [x for x in whole["config"]["layers"] if x["class_name"] == "LSTM"]
    lstm.update(class_name="MyLSTM", module="mine", registered_name="mine>MyLSTM")
    config = json.dumps(whole).encode()
    path = _written(zipped({**members(), "config.json": config}))(tmp_path)
    with pytest.raises(NoLSTM) as error:
        lstmconvert.load(path)
    assert error.value.hint == "lstm: the custom class MyLSTM is left as it is"
