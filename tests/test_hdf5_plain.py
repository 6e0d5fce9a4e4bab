"""HDF5 read without its library: what the library reads, or nothing at all."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cli import CORPUS, FIXTURES

from lstmconvert.errors import CorruptFile
from lstmconvert.files import Window, open_source
from lstmconvert.keras import hdf5, hdf5lib, hdf5plain
from lstmconvert.keras.tree import Tree
from lstmconvert.keras.zipmembers import ZipMembers

#: The one dtype that Keras marks by an attribute, and that is left to the library.
LEFT_TO_THE_LIBRARY = "bfloat16"


def window(path: Path) -> Window | None:
    """Where HDF5 lies in a file, if it does."""
    if not path.stat().st_size or not path.is_file():
        return None
    with open(path, "rb") as file:
        start = file.read(8)
    if start == hdf5plain.SIGNATURE:
        return Window(open_source(path))
    if start[:4] == b"PK\x03\x04":
        try:
            return ZipMembers(open_source(path)).open("model.weights.h5")
        except (CorruptFile, KeyError):
            return None
    return None


def facts(tree: Tree) -> Any:
    """All that a tree says, in its order."""
    tensors = [(k, vars(v).get("offset"), v.shape, v.dtype) for k, v in tree.tensors.items()]
    attributes = [(key, list(value.items())) for key, value in tree.attributes.items()]
    return tensors, attributes, tree.groups


def both(where: Window) -> tuple[Tree | None, Tree]:
    return hdf5plain.read(where), hdf5lib.read(where.source, where.offset, where.size)


REAL = [
    path
    for root in (FIXTURES, CORPUS)
    if root.is_dir()
    for path in sorted(root.rglob("*"))
    if path.suffix in (".h5", ".hdf5", ".keras")
]


def test_every_real_file_is_plain_and_read_as_the_library_reads_it() -> None:
    found = 0
    for path in REAL:
        where = window(path)
        if where is None:
            continue
        plain, by_library = both(where)
        assert (plain is None) == path.name.startswith(LEFT_TO_THE_LIBRARY), path
        if plain is not None:
            assert facts(plain) == facts(by_library), path
            found += 1
    assert found > 60


def written(path: Path, write: Callable[[h5py.File], None], **options: Any) -> Window:
    with h5py.File(path, "w", **options) as file:
        write(file)
    return Window(open_source(path))


def _crowd(file: h5py.File) -> None:
    for number in range(700):  # three levels of a group's tree
        file.create_group(f"layer_{number}").attrs["name"] = f"Schicht {number} ü"
    file["layer_1"].create_dataset("w", data=np.arange(3.0, dtype="f4"))


def _texts(file: h5py.File) -> None:
    file.attrs["model_config"] = "{" + "x" * 70_000 + "}"
    file.attrs["fixed"] = np.array([b"one", b"three\0"], "S8")
    file.attrs["many"] = ["b", "a", "", "ü"]
    file.attrs["none"] = np.zeros(0)
    file.attrs["empty"] = h5py.Empty("f4")
    file.attrs["number"] = 3
    file.attrs["scalar"] = np.bytes_(b"bytes")


def _notes(file: h5py.File) -> None:
    _texts(file)
    for number in range(20):  # more than a header holds, in a later format
        file.attrs[f"note{number}"] = f"of {number}"
    file.create_dataset("w", data=np.zeros((64, 64)), chunks=(3, 5), compression="gzip")


def _numbers(file: h5py.File) -> None:
    for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
        file.create_dataset(f"a/{kind}", data=np.arange(6).reshape(3, 2).astype(kind))
        file.create_dataset(f"b/{kind}", data=np.array(1, kind))
    file["a/f4"].attrs["a note"] = "of no meaning"


@pytest.mark.parametrize("write", [_crowd, _texts, _numbers])
def test_what_h5py_writes(tmp_path: Path, write: Callable[[h5py.File], None]) -> None:
    plain, by_library = both(written(tmp_path / "a.h5", write))
    assert plain is not None
    assert facts(plain) == facts(by_library)


def _compressed(file: h5py.File) -> None:
    file.create_dataset("w", data=np.zeros((64, 64)), compression="gzip")


def _chunked(file: h5py.File) -> None:
    file.create_dataset("w", data=np.zeros((4, 4)), chunks=(2, 2))


def _reversed(file: h5py.File) -> None:
    file.create_dataset("w", data=np.arange(3, dtype=">f4"))


def _flags(file: h5py.File) -> None:
    file.create_dataset("w", data=np.array([True, False]))


def _soft(file: h5py.File) -> None:
    file.create_dataset("w", data=np.zeros(3))
    file["again"] = h5py.SoftLink("/w")


def _twice(file: h5py.File) -> None:
    file.create_dataset("w", data=np.zeros(3))
    file["again"] = file["w"]


def _ordered(file: h5py.File) -> None:
    file.create_group("a", track_order=True)


@pytest.mark.parametrize(
    "write", [_compressed, _chunked, _reversed, _flags, _soft, _twice, _ordered]
)
def test_what_is_not_plain_is_left_to_the_library(
    tmp_path: Path, write: Callable[[h5py.File], None]
) -> None:
    assert hdf5plain.read(written(tmp_path / "a.h5", write)) is None


LATER: list[dict[str, Any]] = [
    {"libver": "latest"}, {"libver": "v108"}, {"userblock_size": 1024},
    {"libver": "latest", "userblock_size": 512, "track_order": True},
]  # fmt: skip


def test_later_formats_and_user_blocks_are_left_to_the_library(tmp_path: Path) -> None:
    latest = written(tmp_path / "a.h5", _numbers, libver="latest")
    behind = written(tmp_path / "b.h5", _numbers, userblock_size=512)
    for where in (latest, behind):
        assert hdf5plain.read(where) is None
        assert hdf5.read_tree(where.source).tensors.keys() >= {"a/f4", "b/u8"}


@pytest.mark.parametrize("write", [_crowd, _texts, _notes, _numbers])
def test_texts_of_later_formats_are_those_of_the_first(
    tmp_path: Path, write: Callable[[h5py.File], None]
) -> None:
    first = hdf5lib.read(written(tmp_path / "a.h5", write).source)
    for number, options in enumerate(LATER):
        path = tmp_path / f"{number}.h5"
        later = hdf5lib.read(written(path, write, **options).source)
        assert later.attributes == first.attributes, options
        assert later.tensors.keys() == first.tensors.keys()


def test_one_text_for_many_attributes_is_refused(tmp_path: Path) -> None:
    """Else a small file would be gigabytes of text."""

    def write(file: h5py.File) -> None:
        file.attrs["name"] = "x" * 50_000
        for number in range(100):
            file.create_group(f"g{number}").attrs["name"] = "y" * 77

    path = tmp_path / "a.h5"
    written(path, write)
    data = bytearray(path.read_bytes())
    at = data.find(struct.pack("<I", 50_000))
    large, small = data[at : at + 16], struct.pack("<I", 77)
    assert data.count(small) >= 100
    at = data.find(small)
    while at >= 0:
        data[at : at + 16] = large
        at = data.find(small, at + 16)
    path.write_bytes(data)
    where = Window(open_source(path))
    assert hdf5plain.read(where) is None
    with pytest.raises(CorruptFile, match="share one place"):
        hdf5lib.read(where.source)


def test_a_text_longer_than_its_place_is_refused(tmp_path: Path) -> None:
    """The library makes room for it: gigabytes, and half a minute."""
    path = tmp_path / "a.h5"
    written(path, lambda file: file.attrs.__setitem__("name", "y" * 77))
    data = path.read_bytes()
    assert data.count(struct.pack("<I", 77)) > 0
    at = data.find(struct.pack("<I", 77))
    path.write_bytes(data[:at] + struct.pack("<I", 77 | 1 << 30) + data[at + 4 :])
    with pytest.raises(CorruptFile, match="longer than"):
        hdf5.read_tree(open_source(path))


@pytest.mark.parametrize("at", [16, 18])
def test_nodes_that_end_behind_the_file_are_left_to_the_library(at: int, tmp_path: Path) -> None:
    """The superblock says how many names fit into a node, of which few may be used."""
    path = tmp_path / "a.h5"
    written(path, _numbers)
    data = bytearray(path.read_bytes())
    data[at : at + 2] = struct.pack("<H", 30_000)
    path.write_bytes(data)
    assert hdf5plain.read(Window(open_source(path))) is None
    with pytest.raises(CorruptFile):
        hdf5.read_tree(open_source(path))


def test_the_library_is_not_imported_for_a_keras_file() -> None:
    text = (
        "import sys, lstmconvert; m = lstmconvert.load(sys.argv[1]); "
        "m['lstm'].forget_gate.kernel; print('h5py' in sys.modules)"
    )
    path = FIXTURES / "keras-3.15.1" / "seed95.keras"
    run = subprocess.run([sys.executable, "-c", text, path], capture_output=True, check=True)
    assert run.stdout.strip() == b"False"
