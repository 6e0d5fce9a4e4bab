"""Chunked and filtered HDF5 datasets, read as h5py reads them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from support.crafted import FIXTURES, KERAS
from support.thinned import ALL, turns

from lstmconvert.errors import CorruptFile
from lstmconvert.files.opening import open_source
from lstmconvert.hdf5 import reading
from lstmconvert.hdf5.reading import SHUFFLE, ChunkedTensor, ChunkPlace, Filter
from lstmconvert.tensors.tensor import Tensor

PACKED: list[dict[str, Any]] = [
    {}, {"compression": "gzip"}, {"shuffle": True}, {"fletcher32": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
]  # fmt: skip
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((7,), (3,)), ((9, 8), (2, 5)), ((9, 8), (9, 8)), ((5, 4, 6), (2, 3, 4)), ((3, 5), (4, 7)),
]  # fmt: skip
KINDS = ("<f4", ">f8", "<f2", "<i8", "|u1", "?", "<c8")


def tensors(path: Path) -> dict[str, Tensor]:
    return dict(reading.read_tree(open_source(path)).tensors)


#: How far a dataset may grow, which decides how later formats find its chunks.
GROWTH: list[Callable[[tuple[int, ...]], tuple[int | None, ...]]] = [
    lambda shape: shape,
    lambda shape: tuple(3 * size for size in shape),
    lambda shape: (None, *shape[1:]),
    lambda shape: (*shape[:-1], None),
    lambda shape: (None,) * len(shape),
]


@pytest.mark.parametrize("growth", GROWTH)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_every_kind_of_chunk_is_read_as_h5py_reads_it(
    libver: str, growth: Callable[..., tuple[int | None, ...]], tmp_path: Path
) -> None:
    """Each kind of number in each shape and in each packing: a third of all that go together."""
    path, random, count = tmp_path / "a.h5", np.random.default_rng(0), 0
    with h5py.File(path, "w", libver=libver) as file:
        for place, kind in enumerate(KINDS):
            for number, (shape, chunk) in enumerate(SHAPES):
                for index, options in enumerate(PACKED):
                    if (place + number + index) % 3:
                        continue
                    count += 1
                    data = (random.standard_normal(shape) * 50).astype(kind)
                    file.create_dataset(
                        f"{number}/{index}{kind}",
                        data=data,
                        chunks=chunk,
                        maxshape=tuple(
                            most and max(most, step)
                            for most, step in zip(growth(shape), chunk, strict=True)
                        ),
                        **options,
                    )
    found = tensors(path)
    with h5py.File(path) as file:
        for name, tensor in found.items():
            theirs = file[name][()]
            theirs = theirs.astype(theirs.dtype.newbyteorder("<"))
            assert isinstance(tensor, ChunkedTensor)
            assert tensor.read().tobytes() == theirs.tobytes(), name
            pieces = b"".join(block.tobytes() for block in tensor.blocks(64))
            assert pieces == theirs.tobytes(), name
            assert tensor.elements(2, 5).tobytes() == theirs.ravel()[2:5].tobytes()
    assert len(found) == count > 50


@pytest.mark.parametrize(
    ("growth", "packed"), turns(GROWTH, ({}, {"compression": "gzip", "shuffle": True}))
)
def test_thousands_of_chunks(
    growth: Callable[..., tuple[int | None, ...]], packed: dict[str, Any], tmp_path: Path
) -> None:
    """Pages of arrays, blocks of blocks, and trees of several levels."""
    shape, chunk = (97, 61), (1, 2)
    data = np.random.default_rng(0).standard_normal(shape).astype("f4")
    for libver in ("earliest", "latest"):
        path = tmp_path / f"{libver}.h5"
        with h5py.File(path, "w", libver=libver) as file:
            most = growth(shape)
            file.create_dataset("w", data=data, chunks=chunk, maxshape=most, **packed)
        assert tensors(path)["w"].read().tobytes() == data.tobytes()


def test_chunks_with_room_made_early(tmp_path: Path) -> None:
    path, data = tmp_path / "a.h5", np.arange(35, dtype="f4").reshape(5, 7)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2, 3))
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(path, "w", libver="latest") as file:
        space = h5py.h5s.create_simple((5, 7), (9, 10))
        one = h5py.h5d.create(file.id, b"w", h5py.h5t.IEEE_F32LE, space, plist)
        h5py.Dataset(one)[...] = data
    assert tensors(path)["w"].read().tobytes() == data.tobytes()


@pytest.fixture(scope="module")
def of_every_growth(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of datasets with every kind of index."""
    path, data = tmp_path_factory.mktemp("growth") / "a.h5", np.zeros((97, 61), "f4")
    with h5py.File(path, "w", libver="latest") as file:
        for number, growth in enumerate(GROWTH):
            most = growth((97, 61))
            file.create_dataset(f"{number}", data=data, chunks=(1, 2), maxshape=most)
    return path.read_bytes()


@pytest.mark.parametrize("signature", [b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB",
                                       b"BTHD", b"BTIN", b"BTLF", b"OHDR"])  # fmt: skip
def test_a_flipped_bit_in_an_index_is_found(
    signature: bytes, of_every_growth: bytes, tmp_path: Path
) -> None:
    path, whole = tmp_path / "a.h5", of_every_growth
    places = [at.start() for at in re.finditer(signature, whole)]
    assert places
    for at in places[: 3 if ALL else 1]:
        path.write_bytes(whole[: at + 6] + bytes([whole[at + 6] ^ 1]) + whole[at + 7 :])
        with pytest.raises(CorruptFile):
            tensors(path)


def test_bfloat16_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    data = np.arange(24, dtype=np.float32).reshape(4, 6).astype(ml_dtypes.bfloat16)
    with h5py.File(path, "w") as file:
        one = file.create_dataset("w", data=data.view("V2"), chunks=(3, 3), compression="gzip")
        one.attrs["dtype"] = "bfloat16"
    tensor = tensors(path)["w"]
    assert tensor.dtype.name == "bfloat16"
    assert tensor.read().tobytes() == data.tobytes()


def test_a_filter_that_a_chunk_goes_without(tmp_path: Path) -> None:
    path, data = tmp_path / "a.h5", np.arange(12, dtype="f4").reshape(3, 4)
    with h5py.File(path, "w") as file:
        one = file.create_dataset("w", (3, 4), "f4", chunks=(3, 4), compression="gzip")
        one.id.write_direct_chunk((0, 0), data.tobytes(), filter_mask=1)
    assert tensors(path)["w"].read().tobytes() == data.tobytes()


def test_chunks_behind_a_user_block(tmp_path: Path) -> None:
    path, data = tmp_path / "a.h5", np.arange(12, dtype="f4").reshape(3, 4)
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("w", data=data, chunks=(2, 3), shuffle=True)
    assert tensors(path)["w"].read().tobytes() == data.tobytes()


def test_shuffled_elements_of_no_size_are_refused() -> None:
    path, places = FIXTURES / KERAS, {(0,): ChunkPlace(0, 8, 0)}
    tensor = ChunkedTensor(
        open_source(path), (2,), np.dtype("<f4"), (2,), (Filter(SHUFFLE, 0),), places
    )
    with pytest.raises(CorruptFile, match="of no size"):
        tensor.read()


def test_a_long_chunk_has_h5pys_checksum(tmp_path: Path) -> None:
    path, data = tmp_path / "a.h5", np.random.default_rng(1).bytes(5 << 20) + b"\1"
    with h5py.File(path, "w") as file:
        whole = np.frombuffer(data, "u1")
        file.create_dataset("w", data=whole, chunks=(len(data),), fletcher32=True)
    assert tensors(path)["w"].read().tobytes() == data


@pytest.mark.parametrize(
    ("options", "stored", "words"),
    [
        ({"compression": "gzip"}, b"\1\2", "cannot be unpacked"),
        ({"compression": "gzip"}, zlib.compress(bytes(400)), "of another size"),
        ({"compression": "gzip"}, zlib.compress(bytes(60)), "of another size"),
        ({"compression": "gzip"}, zlib.compress(bytes(80))[:-2], "of another size"),
        ({"fletcher32": True}, b"\1\2", "checksum is wrong"),
        ({"fletcher32": True}, bytes(80) + b"\0\0\0\1", "checksum is wrong"),
        ({"fletcher32": True}, bytes(40), "of another size"),
        ({"shuffle": True}, bytes(79), "of another size"),
    ],
)
def test_chunks_that_are_none(
    options: dict[str, Any], stored: bytes, words: str, tmp_path: Path
) -> None:
    """HDF5's own filters end the process over some of these."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        one = file.create_dataset("w", (5, 4), "f4", chunks=(5, 4), **options)
        one.id.write_direct_chunk((0, 0), stored)
    with pytest.raises(CorruptFile, match=words):
        tensors(path)["w"].read()


@pytest.mark.parametrize("options", PACKED[:3])  # h5py sums no texts
def test_texts_in_a_dataset(options: dict[str, Any], tmp_path: Path) -> None:
    path, kind = tmp_path / "a.h5", h5py.string_dtype()
    with h5py.File(path, "w") as file:
        chunks = (2,) if options else None
        file.create_dataset("t", data=["one", "", "three"], dtype=kind, chunks=chunks, **options)
        file.create_dataset("n", (2,), h5py.vlen_dtype("f4"))[0] = [1.0, 2.0]
        record = np.dtype([("text", kind), ("number", "f4")])
        file.create_dataset("c", data=np.array([("a", 1.0)], record))
        file.create_dataset("r", data=[file.ref], dtype=h5py.ref_dtype)
    found = tensors(path)
    assert found["t"].read().tolist() == [b"one", b"", b"three"]
    for name, what in (("c", "records"), ("n", "lists"), ("r", "references")):
        with pytest.raises(CorruptFile, match=f"a dataset of {what}, which are not read"):
            found[name].read()


def test_texts_of_one_place_are_refused(tmp_path: Path) -> None:
    """Else three gigabytes of text would be in a file of a megabyte."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        texts = ["x" * 1_000_000, *["y"] * 3000]
        at = file.create_dataset("t", data=texts, dtype=h5py.string_dtype()).id.get_offset()
    data = bytearray(path.read_bytes())
    data[at : at + 16 * 3001] = data[at : at + 16] * 3001
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="share one place"):
        tensors(path)
