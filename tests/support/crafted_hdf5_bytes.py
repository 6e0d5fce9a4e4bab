"""Attacks through HDF5's own structures: what keeps the HDF5 library busy for ever, or kills it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from support import hdf5later
from support.crafted import FIXTURES, LEGACY, WEIGHTS, Bench, craft

_SIZE = struct.Struct("<Q")
#: Where a tree's first child is said (file format III.A.1): for names; for chunks of a matrix.
_FIRST_CHILD = {0: 24 + 8, 1: 24 + 32}


def _places(data: bytes, signature: bytes) -> Iterator[int]:
    at = data.find(signature)
    while at >= 0:
        yield at
        at = data.find(signature, at + 1)


def _packed(bench: Bench) -> Path:
    """The valid file with a dataset in chunks: no longer what is read without the library."""
    path = bench.copy(WEIGHTS)
    with h5py.File(path, "r+") as file:
        file.create_dataset("more", data=np.ones((40, 3), "f4"), chunks=(2, 3))
    return path


@craft("a heap of texts")
def heap_without_an_end(bench: Bench) -> Path:
    # HDF5 itself walks over free space of no size for ever.
    data = bytearray(bench.copy(LEGACY).read_bytes())
    heap = data.index(b"GCOL")
    offset = heap + 16
    while int.from_bytes(data[offset : offset + 2], "little"):
        length = int.from_bytes(data[offset + 8 : offset + 16], "little")
        offset += 16 + -(-length // 8) * 8
    data[offset + 8 : offset + 16] = bytes(8)
    return bench.write(LEGACY, bytes(data))


@craft("a heap of texts")
def large_heap_without_an_end(bench: Bench) -> Path:
    # Read in two pieces, of which the second holds the end.
    path = _packed(bench)
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "x" * 6000
    data = bytearray(path.read_bytes())
    heap = next(at for at in _places(data, b"GCOL") if _SIZE.unpack_from(data, at + 8)[0] > 6000)
    data[heap + 24 : heap + 32] = _SIZE.pack(5984)
    data[heap + 32 + 5984 : heap + 48 + 5984] = bytes(16)
    return bench.write(WEIGHTS, bytes(data))


@craft("free places have no end")
def names_whose_free_places_are_a_ring(bench: Bench) -> Path:
    data = bytearray(_packed(bench).read_bytes())
    for heap in _places(data, b"HEAP"):
        size, free, address = struct.unpack_from("<QQQ", data, heap + 8)
        if free < size:
            data[address + free : address + free + 8] = _SIZE.pack(free)
    return bench.write(WEIGHTS, bytes(data))


@craft("past the end of the file")
def names_in_a_heap_of_any_size(bench: Bench) -> Path:
    data = bytearray(_packed(bench).read_bytes())
    for heap in _places(data, b"HEAP"):
        size, free, address = struct.unpack_from("<QQQ", data, heap + 8)
        if free < size:
            data[address + free : address + free + 8] = _SIZE.pack(free)
            data[heap + 8 : heap + 16] = _SIZE.pack(1 << 60)
    return bench.write(WEIGHTS, bytes(data))


def _grown_into_itself(bench: Bench, kind: int) -> Path:
    data = bytearray(_packed(bench).read_bytes())
    for tree in _places(data, b"TREE"):
        if data[tree + 4] == kind:
            data[tree + 5] = 1
            first = tree + _FIRST_CHILD[kind]
            data[first : first + 8] = _SIZE.pack(tree)
    return bench.write(WEIGHTS, bytes(data))


@craft("a tree with a branch that is not a node")
def tree_of_names_that_grows_into_itself(bench: Bench) -> Path:
    return _grown_into_itself(bench, 0)


@craft("a tree with a branch that is not a node")
def tree_of_chunks_that_grows_into_itself(bench: Bench) -> Path:
    return _grown_into_itself(bench, 1)


@craft("in two places")
def tree_with_one_leaf_for_all_branches(bench: Bench) -> Path:
    # Each level more would be so many times as many names.
    path = bench.copy(WEIGHTS)
    with h5py.File(path, "r+") as file:
        file.create_dataset("more", data=np.ones((40, 3), "f4"), chunks=(2, 3))
        for number in range(60):
            file.create_group(f"many/{number}")
    data = bytearray(path.read_bytes())
    for tree in _places(data, b"TREE"):
        kind, level, used = struct.unpack_from("<BBH", data, tree + 4)
        if kind == 0 and level == 0 and used > 2:
            data[tree + 48 : tree + 56] = data[tree + 32 : tree + 40]
    return bench.write(WEIGHTS, bytes(data))


@craft("share one place")
def one_text_of_many_entries(bench: Bench) -> Path:
    # Twelve gigabytes of text in a file of four megabytes.
    path = _packed(bench)
    with h5py.File(path, "r+") as file:
        file.attrs["large"] = "x" * 4_000_000
        file.attrs["many"] = ["y" * 77] * 3000
    data = bytearray(path.read_bytes())
    at = data.find(struct.pack("<I", 4_000_000))
    large, small = data[at : at + 16], struct.pack("<I", 77)
    for at in _places(data, small):
        data[at : at + 16] = large
    return bench.write(WEIGHTS, bytes(data))


@craft("a text is longer than its place")
def text_longer_than_its_place(bench: Bench) -> Path:
    path = _packed(bench)
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "x" * 777
        file.attrs["large"] = "y" * 4_000_000
    data = bytearray(path.read_bytes())
    at = data.find(struct.pack("<I", 777))
    data[at : at + 4] = struct.pack("<I", 4_000_000)
    return bench.write(WEIGHTS, bytes(data))


@craft("is longer than the file")
def text_of_gigabytes_in_a_later_format(bench: Bench) -> Path:
    path = bench.folder / WEIGHTS
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("layers/lstm/cell/vars")
        group["0"], group["1"], group["2"] = np.ones((7, 8)), np.ones((2, 8)), np.ones(8)
        group.attrs["note"] = "z" * 777
    valid = path.read_bytes()
    data = valid.replace(struct.pack("<I", 777), struct.pack("<I", (1 << 32) - 16))
    return bench.write(WEIGHTS, hdf5later.signed(data, valid))


@craft("not a readable HDF5 file")
def heap_of_attributes_with_nothing_in_it(bench: Bench) -> Path:
    # h5py cannot close such a file, and would say so in ten lines.
    path = hdf5later.write(FIXTURES / WEIGHTS, bench.folder / WEIGHTS)
    valid = path.read_bytes()
    data, heap = bytearray(valid), valid.index(b"FRHP")
    for start, stop in ((22, 32), (38, 40), (47, 48), (55, 56), (70, 71)):
        data[heap + start : heap + stop] = bytes(stop - start)
    return bench.write(WEIGHTS, hdf5later.signed(bytes(data), valid))


@craft("not a readable HDF5 file")
def signature_of_a_heap_and_no_more(bench: Bench) -> Path:
    data = bench.copy(LEGACY).read_bytes()
    return bench.write(LEGACY, b"GCOL" + bytes(508) + data[:1024] + b"GCOL")


@craft("the number of attributes is above the limit")
def attributes_by_the_thousand(bench: Bench) -> Path:
    # To find one by its number takes as long as to read all.
    path = bench.folder / WEIGHTS
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("layers/lstm/cell/vars")
        group["0"], group["1"], group["2"] = np.ones((7, 8)), np.ones((2, 8)), np.ones(8)
        for number in range(2001):
            group.attrs.create(f"{number}", np.int8(0))
    return path
