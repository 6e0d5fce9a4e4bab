"""HDF5 read without its library: what h5py sees in a file, or a refusal that says what is wrong."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import hdf5later
from support.cli import FIXTURES
from support.corpus import CORPUS
from support.thinned import ALL, each, rounds

from lstmconvert.errors import CorruptFile, LSTMConvertError
from lstmconvert.files.opening import Window, open_source
from lstmconvert.files.zipmembers import ZipMembers
from lstmconvert.hdf5 import reading
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.hdf5.structures import SIGNATURE, Blocks, checksum


def window(path: Path) -> Window | None:
    """Where HDF5 lies in a file, if it does."""
    if not path.is_file() or not path.stat().st_size:
        return None
    start = path.read_bytes()[:8]
    if start == SIGNATURE:
        return Window(open_source(path))
    if start[:4] == b"PK\x03\x04":
        try:
            return ZipMembers(open_source(path)).open("model.weights.h5")
        except (CorruptFile, KeyError):
            return None
    return None


def read(path: Path) -> StoredTree:
    return reading.read_tree(open_source(path))


def facts(tree: StoredTree) -> Any:
    """All that a tree says, and every number."""
    tensors = {k: (v.shape, v.dtype, v.read().tobytes()) for k, v in tree.tensors.items()}
    attributes = {key: dict(value) for key, value in tree.attributes.items() if value}
    return tensors, attributes, tree.groups


def by_h5py(file: h5py.File) -> Any:
    """The same, as h5py sees it."""
    tensors: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    groups = {""}

    def visit(name: str, item: Any) -> None:
        name = name.strip("/")
        if isinstance(item, h5py.Dataset):
            value = np.asarray(item[()])
            value = value.astype(value.dtype.newbyteorder("<"))
            tensors[name] = value.shape, value.dtype, value.tobytes()
            return
        groups.add(name)
        if texts := dict(filter(None, (text_of(key, item.attrs) for key in item.attrs))):
            attributes[name] = texts

    visit("", file)
    file.visititems(visit)
    return tensors, attributes, groups


def text_of(key: str, attributes: Any) -> tuple[str, Any] | None:
    """An attribute of texts, or of nothing; None for others."""
    value, kind = attributes[key], attributes.get_id(key).dtype
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray) and not value.size:
        return key, []
    if h5py.check_string_dtype(kind) is None:
        return None
    if not isinstance(value, np.ndarray):
        return key, value if isinstance(value, str) else value.decode()
    return key, [one if isinstance(one, str) else one.decode() for one in value.ravel()]


@pytest.mark.parametrize(
    ("root", "least"),
    [
        pytest.param(FIXTURES, 60, marks=pytest.mark.slow),
        pytest.param(CORPUS, 25, marks=pytest.mark.corpus),
    ],
)
def test_every_real_file_is_read_as_h5py_reads_it(root: Path, least: int) -> None:
    count = 0
    for path in sorted(root.rglob("*")):
        if path.suffix not in (".h5", ".hdf5", ".keras"):
            continue
        where = window(path)
        if where is None or where.size > 100_000_000:
            continue
        ours = facts(reading.read_tree(where.source, where.offset, where.size))
        with h5py.File(where) as file:
            tensors, attributes, groups = by_h5py(file)
        for name, (shape, dtype, data) in tensors.items():
            mine = ours[0].pop(name)
            assert (mine[0], mine[2]) == (shape, data), (path, name)
            assert mine[1] == dtype or mine[1].name == "bfloat16", (path, name)
        assert (ours[0], ours[1], ours[2]) == ({}, attributes, groups), path
        count += 1
    assert count > least


def written(path: Path, write: Callable[[h5py.File], None], **options: Any) -> None:
    with h5py.File(path, "w", **options) as file:
        write(file)


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


def _shapes(file: h5py.File) -> None:
    file.create_dataset("growing", data=np.ones((2, 3)), maxshape=(None, 3))
    file.create_dataset("none", (0, 3), "f4")
    file.create_dataset("reversed", data=np.arange(3, dtype=">f4"))
    file.create_dataset("flags", data=np.array([True, False]))
    file.create_dataset("complex", data=np.array([1 + 2j, -0.0j], "c8"))
    file.create_dataset("texts", data=np.array([b"a", b"bc"], "S3"))
    file.create_dataset("choice", dtype=h5py.enum_dtype({"A": 1, "B": 5}, "i4"), data=[1, 5])
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((5,))
    h5py.Dataset(h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F64LE, space, plist))[...] = 3.5


def _large(file: h5py.File) -> None:
    """Attributes and links in each place where they may lie: header, block of a heap, apart."""
    group = file.create_group("layers")
    for number in range(2000):
        group.create_group(f"a name of some length, number {number}")
    for number in range(100):
        group.attrs[f"note{number}"] = "?" * number
    if file.libver[0] != "earliest":  # which allows large ones
        group.attrs["large"] = np.array([b"x" * 100_000], "S100000")
        group.attrs["middle"] = np.array([b"y" * 5000], "S5000")


WAYS: list[dict[str, Any]] = [
    {}, {"libver": "v108"}, {"libver": "v110"}, {"libver": "latest"}, {"userblock_size": 1024},
    {"libver": "latest", "userblock_size": 512, "track_order": True},
    {"track_order": True}, {"fs_strategy": "page", "fs_persist": True},
    {"libver": "latest", "fs_strategy": "fsm", "fs_persist": True},
]  # fmt: skip


#: What has hundreds of groups is written in every form of a group, and not in each way.
MANY = [(_crowd, WAYS[at]) for at in ((0, 3, 6) if ALL else (0, 3))]
MANY += [(_large, WAYS[at]) for at in ((0, 2, 3, 5) if ALL else (0, 2, 5))]
FEW = list(itertools.product((_texts, _notes, _numbers, _shapes), WAYS))


@pytest.mark.parametrize(("write", "options"), [*MANY, *FEW])
def test_what_h5py_writes(
    tmp_path: Path, write: Callable[[h5py.File], None], options: dict[str, Any]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", **options) as file:
        write(file)
    with h5py.File(path) as file:
        expected = by_h5py(file)
    assert facts(read(path)) == expected


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    for number, options in enumerate(WAYS):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w", **options) as file:
            for name in "bca":
                file.create_dataset(name, data=np.zeros(2))
                file.attrs[name] = name
        tree = read(path)
        assert [*tree.tensors] == [*tree.attributes[""]] == ["a", "b", "c"]


def _soft(file: h5py.File) -> None:
    file.create_dataset("w", data=np.zeros(3))
    file["again"] = h5py.SoftLink("/w")


def _external(file: h5py.File) -> None:
    file["again"] = h5py.ExternalLink("elsewhere.h5", "/w")


def _many_links(file: h5py.File) -> None:
    for number in range(100):
        file[f"{number}"] = h5py.SoftLink("/w")


def _twice(file: h5py.File) -> None:
    file.create_dataset("w", data=np.zeros(3))
    file["again"] = file["w"]


def _named(file: h5py.File) -> None:
    file["type"] = np.dtype("f4")


def _of_named_type(file: h5py.File) -> None:
    file["type"] = np.dtype("f4")
    file.create_dataset("a", (3,), dtype=file["type"])[...] = 1
    del file["type"]


def _stored_elsewhere(file: h5py.File) -> None:
    file.create_dataset("w", (3,), "f4", external=[("elsewhere", 0, 12)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[...] = h5py.VirtualSource("elsewhere.h5", "w", (3,))
    file.create_virtual_dataset("w", layout)


def _foreign(file: h5py.File) -> None:
    file.create_dataset("w", data=np.zeros((4, 4)), compression="lzf")


def _nothing(file: h5py.File) -> None:
    file.create_dataset("w", (4, 4), "f4")


def _odd_numbers(file: h5py.File) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    h5py.h5d.create(file.id, b"w", kind, h5py.h5s.create_simple((3,)))


REFUSED = [
    (_soft, "a soft or external link"), (_external, "a soft or external link"),
    (_many_links, "a soft or external link"), (_twice, "is in two places"),
    (_named, "named type"), (_of_named_type, "named type"),
    (_stored_elsewhere, "external storage"), (_virtual, "a virtual dataset"),
    (_foreign, "a foreign compression filter"), (_nothing, "no stored data"),
    (_odd_numbers, "numbers in a format of their own"),
]  # fmt: skip


@each("options", WAYS)
@each("write, words", REFUSED)
def test_what_is_refused(
    tmp_path: Path, write: Callable[[h5py.File], None], words: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", **options) as file:
        write(file)
    with pytest.raises(CorruptFile, match=words):
        read(path)


def test_a_flipped_bit_in_a_later_format_is_found(tmp_path: Path) -> None:
    """Its structures have checksums. The numbers have none, nor have texts of any length."""
    whole = hdf5later.write(FIXTURES / "keras-3.6.0" / "seed95.weights.h5", tmp_path / "v.h5")
    valid, data = facts(read(whole)), whole.read_bytes()
    dice, path, refused = np.random.default_rng(3), tmp_path / "a.h5", 0
    for at in dice.integers(0, len(data), rounds(300)):
        mutant = bytearray(data)
        mutant[at] ^= 1 << int(dice.integers(8))
        path.write_bytes(mutant)
        try:
            found = facts(read(path))
        except LSTMConvertError:
            refused += 1
            continue
        assert found[2] == valid[2]
        assert {k: [*v] for k, v in found[1].items()} == {k: [*v] for k, v in valid[1].items()}
        assert {k: v[:2] for k, v in found[0].items()} == {k: v[:2] for k, v in valid[0].items()}
    assert refused > rounds(300) // 5


def test_the_checksum_is_hdf5s() -> None:
    for length in (0, 1, 11, 12, 13, 24, 25, 1000):
        data = bytes(range(256)) * 4
        theirs = hdf5later.checksum(data[:length]) if length else 0xDEADBEEF
        assert checksum(data[:length]) == theirs


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
    with pytest.raises(CorruptFile, match="share one place"):
        read(path)


def test_a_text_longer_than_its_place_is_refused(tmp_path: Path) -> None:
    """The library makes room for it: gigabytes, and half a minute."""
    path = tmp_path / "a.h5"
    written(path, lambda file: file.attrs.__setitem__("name", "y" * 77))
    data = path.read_bytes()
    assert data.count(struct.pack("<I", 77)) > 0
    at = data.find(struct.pack("<I", 77))
    path.write_bytes(data[:at] + struct.pack("<I", 77 | 1 << 30) + data[at + 4 :])
    with pytest.raises(CorruptFile, match="longer than"):
        read(path)


@pytest.mark.parametrize("at", [16, 18])
def test_nodes_that_end_behind_the_file(at: int, tmp_path: Path) -> None:
    """The superblock says how many names fit into a node, of which few may be used."""
    path = tmp_path / "a.h5"
    written(path, _numbers)
    data = bytearray(path.read_bytes())
    data[at : at + 2] = struct.pack("<H", 30_000)
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="past the end"):
        read(path)


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}])
def test_a_file_that_is_cut(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    written(path, _numbers, **options)
    data = path.read_bytes()
    for length in (len(data) - 1, len(data) // 2, 100, 50, 9, 8):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptFile):
            read(path)


def test_the_library_is_not_imported(tmp_path: Path) -> None:
    text = (
        "import sys, lstmconvert; m = lstmconvert.load(sys.argv[1]); "
        "m['lstm'].forget_gate.kernel; print('h5py' in sys.modules)"
    )
    fixture = FIXTURES / "keras-3.15.1" / "seed95.keras"
    later = hdf5later.write(FIXTURES / "keras-3.6.0" / "seed95.weights.h5", tmp_path / "a.h5")
    for path in (fixture, later):
        run = subprocess.run([sys.executable, "-c", text, path], capture_output=True, check=True)
        assert run.stdout.strip() == b"False"


def _layers(file: h5py.File) -> None:
    for number in range(3):
        group = file.create_group(f"layer_{number}/vars")
        group.attrs["name"] = f"layer_{number}"
        for name in ("0", "1"):
            group.create_dataset(name, data=np.full((4, 6), number, "f4"))


def test_what_is_like_what_was_read_before_is_checked_as_well(tmp_path: Path) -> None:
    """Headers and names that are known by their bytes skip no check of where they lead to."""
    path = tmp_path / "a.h5"
    written(path, _layers)
    valid, data = facts(read(path)), path.read_bytes()
    assert facts(read(path)) == valid
    with h5py.File(path) as file:
        places = [file[f"layer_{number}/vars/0"].id.get_offset() for number in range(3)]
        headers = [h5py.h5o.get_info(file[f"layer_{n}/vars/0"].id).addr for n in range(3)]
    first, second = (struct.pack("<Q", place) for place in places[:2])
    heaps = [at for at in range(0, len(data), 8) if data[at : at + 4] == b"HEAP"]
    nodes = [at for at in range(0, len(data), 8) if data[at : at + 4] == b"TREE"]
    tables = [at for at in range(0, len(data), 8) if data[at : at + 4] == b"SNOD"]
    past = struct.pack("<Q", len(data))
    mutants = [
        (data.replace(second, first), None),  # as much is stored as before
        (data.replace(second, past), "past the end of the file"),
        (data.replace(struct.pack("<Q", headers[1]), struct.pack("<Q", headers[0])), "two places"),
        (_led(data, heaps[-1] + 24, heaps[-2] + 24), "two places"),
        (_led(data, nodes[-1] + 32, nodes[-2] + 32), "two places"),
        (_led(data, nodes[-1] + 32, None, past), "past the end"),
        (_led(data, tables[-1] + 16, None, past), "past the end"),
    ]
    for mutant, words in mutants:
        path.write_bytes(mutant)
        if words is None:
            assert facts(read(path))[1:] == valid[1:]
            continue
        with pytest.raises(CorruptFile, match=words):
            read(path)


@pytest.mark.parametrize("is_tree", [True, False])
def test_two_empty_groups_have_two_trees_and_two_heaps(is_tree: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    written(path, lambda file: [file.create_group(name) for name in "abc"])
    assert read(path).groups == {"", "a", "b", "c"}
    data = path.read_bytes()
    trees, heaps = (
        [struct.pack("<Q", at) for at in range(0, len(data), 8) if data[at : at + 4] == word]
        for word in (b"TREE", b"HEAP")
    )
    shared = trees[-1 - is_tree] + heaps[-2 + is_tree]
    assert data.count(trees[-1] + heaps[-1]) == 2  # in the header, and where it is led to
    path.write_bytes(data.replace(trees[-1] + heaps[-1], shared))
    with pytest.raises(CorruptFile, match="two places"):
        read(path)


def _led(data: bytes, at: int, source: int | None, word: bytes = b"") -> bytes:
    """A file in which a word is that of another place, or another one."""
    word = data[source : source + 8] if source is not None else word
    return data[:at] + word + data[at + 8 :]


def _outcome(path: Path) -> Any:
    try:
        return facts(read(path))
    except LSTMConvertError as error:
        return str(error)


def test_a_small_file_like_one_before_is_known_by_what_was_read_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, like = tmp_path / "a.h5", tmp_path / "b.h5"
    written(path, _layers)
    data = path.read_bytes()
    with h5py.File(path) as file:
        places = [file[f"layer_{n}/vars/{k}"].id.get_offset() for n in range(3) for k in "01"]
        headers = [h5py.h5o.get_info(file[f"layer_1/vars{k}"].id).addr for k in ("", "/1")]
    other = bytearray(data)
    for number, place in enumerate(places):
        other[place : place + 96] = np.full(24, number, "f4").tobytes()
    like.write_bytes(other)
    monkeypatch.setattr(reading, "_small", {})
    read(path)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_Walk", None)  # it is not walked
        again = facts(read(like))
    with h5py.File(like) as file:
        assert again == by_h5py(file)
    monkeypatch.setenv("LSTMCONVERT_MAX_HDF5_OBJECTS", "3")
    with pytest.raises(LSTMConvertError, match="number of HDF5 objects"):
        read(like)
    monkeypatch.delenv("LSTMCONVERT_MAX_HDF5_OBJECTS")
    dice, seen = np.random.default_rng(5), set()
    in_headers = [at for first in headers for at in range(first, first + 144, 3)]
    for at in (*dice.integers(0, len(data), rounds(300)), *in_headers):
        mutant = bytearray(data)
        mutant[at] ^= 1 << int(dice.integers(8))
        like.write_bytes(mutant)
        reading._small.clear()
        fresh = _outcome(like)
        reading._small.clear()
        read(path)
        assert _outcome(like) == fresh, at
        seen.add(str(fresh))
    assert len(seen) > 5


#: So many that their file is too large to be one of many small ones.
LAYERS = 80


def _many_layers(file: h5py.File) -> None:
    """Layers as a store of Keras has them, of two kinds."""
    for number in range(LAYERS):
        layer = file.create_group(f"layers/lstm_{number}" if number else "layers/lstm")
        layer.create_group("vars").attrs["name"] = f"lstm_{number}"
        inside = layer.create_group("cell/vars")
        inside.attrs["name"] = "lstm_cell"
        for index, shape in enumerate(((3 if number % 5 else 2, 8), (2, 8), (8,))):
            inside.create_dataset(str(index), data=np.full(shape, number, "f4"))


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alike") / "a.h5"
    written(path, _many_layers)
    return path


def test_a_group_that_is_like_one_beside_it_is_not_walked(
    layered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked, item = [], reading._Walk.item

    def noted(walk: Any, address: int, path: str, *rest: Any) -> None:
        walked.append(path)
        item(walk, address, path, *rest)

    monkeypatch.setattr(reading._Walk, "item", noted)
    with h5py.File(layered) as file:
        known = by_h5py(file)
    tree = read(layered)
    assert facts(tree) == known
    assert len(walked) < 7 * LAYERS / 2
    walked.clear()
    monkeypatch.setattr(reading, "MANY", 1 << 30)
    alone = read(layered)
    assert len(walked) >= 4 * LAYERS
    for one, other in ((tree.tensors, alone.tensors), (tree.attributes, alone.attributes)):
        assert [*one] == [*other]  # the order is a walk's


@pytest.mark.parametrize("limit", ["HDF5_OBJECTS", "PATH_LENGTH", "HDF5_DEPTH", "TENSOR_BYTES"])
def test_groups_that_are_alike_are_held_against_the_limits(
    limit: str, layered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = {"HDF5_OBJECTS": 400, "PATH_LENGTH": 21, "HDF5_DEPTH": 3, "TENSOR_BYTES": 80}[limit]
    monkeypatch.setenv(f"LSTMCONVERT_MAX_{limit}", str(most))
    error = _outcome(layered)
    monkeypatch.setattr(reading, "MANY", 1 << 30)
    assert error == _outcome(layered)
    assert isinstance(error, str)


def _mutants(path: Path) -> Iterator[bytearray]:
    """A file with one bit, or one address, that is another, in what is no number of a dataset."""
    dice, data = np.random.default_rng(7), path.read_bytes()
    headers, numbers = [], []
    with h5py.File(path) as file:

        def visit(_: str, item: Any) -> None:
            headers.append(h5py.h5o.get_info(item.id).addr)
            if isinstance(item, h5py.Dataset):
                numbers.append(item.id.get_offset())

        file.visititems(visit)
    words = (b"TREE", b"HEAP", b"SNOD")
    signs = [[at for at in range(0, len(data), 8) if data.startswith(word, at)] for word in words]
    signs.append(headers)
    led = {struct.pack("<Q", at): ats for ats in (*signs, numbers) for at in ats}
    places = [at for at in range(0, len(data), 8) if data[at : at + 8] in led]
    for ats in (*signs, numbers):
        middle = ats[len(ats) // 2]
        for other in (ats[0], len(data) - 8, len(data), (1 << 64) - 1):
            yield bytearray(data.replace(struct.pack("<Q", middle), struct.pack("<Q", other)))
    for _ in range(rounds(150)):
        mutant = bytearray(data)
        at = int(dice.choice(places))
        others = [*dice.choice(led[data[at : at + 8]], 3), len(data), len(data) - 8]
        mutant[at : at + 8] = struct.pack("<Q", int(dice.choice(others)))
        yield mutant
        near = int(dice.choice([at for ats in signs for at in ats]))
        mutant = bytearray(data)
        mutant[near + int(dice.integers(100))] ^= 1 << int(dice.integers(8))
        yield mutant


def test_groups_that_are_alike_are_refused_as_a_walk_refuses_them(
    layered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "b.h5", set()
    for number, mutant in enumerate(_mutants(layered)):
        path.write_bytes(mutant)
        outcome = _outcome(path)
        with monkeypatch.context() as patch:
            patch.setattr(reading, "MANY", 1 << 30)
            assert outcome == _outcome(path), number
        seen.add(outcome if isinstance(outcome, str) else "")
    assert len(seen) > 5


def test_a_file_is_not_compared_with_itself_again_and_again(
    layered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read to compare it is a few times the file, however many groups have groups."""
    blocks = Blocks(Window(open_source(layered)))
    pieces = list(iter(lambda: blocks.stretch(0, blocks.size), None))
    assert 2 < len(pieces) < 10
    monkeypatch.setattr(Blocks, "stretch", lambda *_: None)
    with h5py.File(layered) as file:
        assert facts(read(layered)) == by_h5py(file)
