"""Attacks through HDF5: SECURITY section 2, and what it leads to."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
from crafted import (
    LEGACY,
    SECRET,
    V3_CELL,
    WEIGHTS,
    Bench,
    craft,
    hdf5_attack,
    kernel,
)
from h5py import h5d, h5p, h5s, h5t, h5z

MIB = 1 << 20


def _replaced(file: h5py.File, group: str) -> str:
    """Take the kernel away, and return its name."""
    del file[kernel(group)]
    return kernel(group)


# --- other files ----------------------------------------------------------------------------------


@hdf5_attack("external storage")
def external_storage(file: h5py.File, group: str, bench: Bench) -> None:
    bench.victim.write_bytes(SECRET)
    name = _replaced(file, group)
    file.create_dataset(name, (7, 8), "f4", external=[(str(bench.victim), 0, 224)])


def _victim_store(bench: Bench) -> None:
    with h5py.File(bench.victim, "w") as victim:
        victim["0"] = np.ones((7, 8), "f4")
        victim["kernel"] = np.ones((7, 8), "f4")


@hdf5_attack("a soft or external link")
def external_link_to_a_dataset(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    file[_replaced(file, group)] = h5py.ExternalLink(str(bench.victim), "0")


@hdf5_attack("a soft or external link")
def external_link_to_a_group(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    del file[group]
    file[group] = h5py.ExternalLink(str(bench.victim), "/")


@hdf5_attack("a soft or external link")
def external_link_at_the_root(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    top = group.partition("/")[0]
    del file[top]
    file[top] = h5py.ExternalLink(str(bench.victim), "/")


@hdf5_attack("a soft or external link")
def soft_link(file: h5py.File, group: str, bench: Bench) -> None:
    file.move(kernel(group), f"{group}/elsewhere")
    file[kernel(group)] = h5py.SoftLink(f"/{group}/elsewhere")


@hdf5_attack("a soft or external link")
def soft_link_loop(file: h5py.File, group: str, bench: Bench) -> None:
    name = _replaced(file, group)
    file[name] = h5py.SoftLink(f"/{name}")


@hdf5_attack("a soft or external link")
def dangling_link(file: h5py.File, group: str, bench: Bench) -> None:
    file[f"{group}/dangling"] = h5py.SoftLink("/nowhere")


@hdf5_attack("virtual dataset")
def virtual_dataset(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    layout = h5py.VirtualLayout((7, 8), "f4")
    layout[...] = h5py.VirtualSource(str(bench.victim), "0", (7, 8))
    file.create_virtual_dataset(_replaced(file, group), layout)


@craft("a name that HDF5 cannot write")
def link_behind_a_name_that_is_a_path(bench: Bench) -> Path:
    # Listed first is `a/b`; looking that up would follow the external link `a`.
    path = bench.copy(WEIGHTS)
    _victim_store(bench)
    with h5py.File(path, "r+") as file:
        group = file.create_group("layers/aaa")
        group.create_group("A.b")
        group["a"] = h5py.ExternalLink(str(bench.victim), "/")
    data = path.read_bytes()
    return bench.write(WEIGHTS, data.replace(b"A.b", b"A/b"))


# --- sizes ----------------------------------------------------------------------------------------


@hdf5_attack("expands beyond the limit")
def shape_bomb_chunked(file: h5py.File, group: str, bench: Bench) -> None:
    name = _replaced(file, group)
    file.create_dataset(name, (1 << 31, 8), "f4", chunks=(1024, 8), fillvalue=1.0)


@hdf5_attack("is above the limit")
def shape_bomb_of_a_petabyte(file: h5py.File, group: str, bench: Bench) -> None:
    name = _replaced(file, group)
    file.create_dataset(name, (1 << 45, 8), "f4", chunks=(1024, 8), fillvalue=1.0)


@hdf5_attack("expands beyond the limit")
def shape_bomb_contiguous(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_dataset(_replaced(file, group), (1 << 31, 8), "f4")


@hdf5_attack("no stored data")
def nothing_stored(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_dataset(_replaced(file, group), (7, 8), "f4")


@hdf5_attack("missing chunks")
def gaps_between_the_chunks(file: h5py.File, group: str, bench: Bench) -> None:
    data = file.create_dataset(_replaced(file, group), (7, 8), "f4", chunks=(1, 8))
    data[0] = 1.0


def _deflated_zeros(size: int) -> bytes:
    packer, parts = zlib.compressobj(9), []
    for _ in range(size // MIB):
        parts.append(packer.compress(bytes(MIB)))
    return b"".join([*parts, packer.flush()])


@hdf5_attack("expands beyond the limit")
def gzip_bomb(file: h5py.File, group: str, bench: Bench) -> None:
    data = file.create_dataset(
        _replaced(file, group), (3 * MIB, 8), "f4", chunks=(MIB, 8), compression="gzip"
    )
    for row in range(0, 3 * MIB, MIB):
        data.id.write_direct_chunk((row, 0), _ZEROS)


@hdf5_attack("expands beyond the limit")
def gzip_bomb_in_many_small_ones(file: h5py.File, group: str, bench: Bench) -> None:
    for index in range(20):
        data = file.create_dataset(
            f"{group}/more/{index}", (MIB, 8), "f4", chunks=(MIB, 8), compression="gzip"
        )
        data.id.write_direct_chunk((0, 0), _ZEROS)


_ZEROS = _deflated_zeros(32 * MIB)


@hdf5_attack("the size of an HDF5 chunk is above the limit")
def chunk_bomb(file: h5py.File, group: str, bench: Bench) -> None:
    # A kernel of 224 bytes, in one chunk of 2 GiB.
    data = file.create_dataset(
        _replaced(file, group),
        (7, 8),
        "f4",
        maxshape=(None, None),
        chunks=(64 * MIB, 8),
        compression="gzip",
    )
    data.id.write_direct_chunk((0, 0), _ZEROS)


@hdf5_attack("stands in two places")
def one_dataset_of_many_names(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_dataset("big", data=np.zeros(MIB, "u1"))
    for index in range(1000):
        file[f"again{index}"] = file["big"]


@craft("the datasets overlap")
def datasets_that_share_their_bytes(bench: Bench) -> Path:
    path = bench.copy(WEIGHTS)
    sizes = [1009 + 2 * index for index in range(40)]
    with h5py.File(path, "r+") as file:
        for size in sizes:
            file.create_dataset(f"layers/part{size}", data=np.full(size, 7, "u1"))
        file.create_dataset("layers/zz", data=np.zeros(100_000, "u1"))
    data = path.read_bytes()
    for size in sizes:
        data = data.replace(struct.pack("<Q", size), struct.pack("<Q", 90_000))
    return bench.write(WEIGHTS, data)


@hdf5_attack("a group or dataset stands in two places")
def hard_link_cycle(file: h5py.File, group: str, bench: Bench) -> None:
    file[f"{group}/self"] = file[group]


@hdf5_attack("the nesting of the HDF5 groups is above the limit")
def five_hundred_levels(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_group("/".join(["deep"] * 500))


@hdf5_attack("path is above the limit")
def a_name_of_five_thousand(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_group("n" * 5000)


@craft("an attribute's size is above the limit")
def huge_attribute(bench: Bench) -> Path:
    path = bench.folder / WEIGHTS
    with h5py.File(path, "w", libver="latest") as file:  # allows large ones
        group = file.create_group("layers/lstm/cell/vars")
        group.attrs["name"] = np.zeros(65 * MIB, "S1")
    return path


# --- kinds of data --------------------------------------------------------------------------------


@hdf5_attack("a foreign compression filter")
def foreign_filter(file: h5py.File, group: str, bench: Bench) -> None:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((7, 8))
    plist.set_filter(32001, h5z.FLAG_OPTIONAL, ())  # blosc
    name = _replaced(file, group)
    parent, _, leaf = name.rpartition("/")
    space = h5s.create_simple((7, 8))
    data = h5d.create(file[parent].id, leaf.encode(), h5t.IEEE_F32LE, space, plist)
    data.write_direct_chunk((0, 0), bytes(224))


@hdf5_attack("a named type")
def named_type(file: h5py.File, group: str, bench: Bench) -> None:
    file[f"{group}/type"] = np.dtype("f4")


@hdf5_attack("numbers in a format of their own")
def float_with_another_bias(file: h5py.File, group: str, bench: Bench) -> None:
    stored = h5t.IEEE_F32LE.copy()
    stored.set_ebias(126)  # HDF5 converts it; its bytes read as float32 are half of it
    name = _replaced(file, group)
    parent, _, leaf = name.rpartition("/")
    data = h5d.create(file[parent].id, leaf.encode(), stored, h5s.create_simple((7, 8)))
    data.write(h5s.ALL, h5s.ALL, np.ones((7, 8), "f4"))


@hdf5_attack("numbers in a format of their own")
def integer_of_twenty_bits(file: h5py.File, group: str, bench: Bench) -> None:
    stored = h5t.STD_I32LE.copy()
    stored.set_precision(20)
    stored.set_offset(4)
    data = h5d.create(file[group].id, b"packed", stored, h5s.create_simple((4,)))
    data.write(h5s.ALL, h5s.ALL, np.arange(4, dtype="i4"))


def _dtype_attack(name: str, data: object, dtype: object = None) -> None:
    def attack(file: h5py.File, group: str, bench: Bench) -> None:
        file.create_dataset(_replaced(file, group), data=data, dtype=dtype)

    attack.__name__ = f"kernel_of_{name}"
    hdf5_attack("")(attack)


_LISTS = np.empty((7, 8), object)
for _index in np.ndindex(7, 8):
    _LISTS[_index] = np.ones(3, "f4")
_COMPOUND = np.dtype([("r", "f4"), ("x", "f4")])
_dtype_attack("integers", np.ones((7, 8), "i4"))
_dtype_attack("booleans", np.ones((7, 8), "?"))
_dtype_attack("complex", np.ones((7, 8), "c8"))
_dtype_attack("records", np.ones((7, 8), _COMPOUND))
_dtype_attack("bytes", np.full((7, 8), b"abcd", "S4"))
_dtype_attack("opaque", np.zeros((7, 8), "V2"))
_dtype_attack("texts", np.full((7, 8), "x", object), h5py.string_dtype())
_dtype_attack("references", np.full((7, 8), None, object), h5py.ref_dtype)
_dtype_attack("lists", _LISTS, h5py.vlen_dtype("f4"))
_dtype_attack("enum", np.ones((7, 8), "i4"), h5py.enum_dtype({"A": 1, "B": 2}, "i4"))
_dtype_attack("long_doubles", np.ones((7, 8), "longdouble"))
_dtype_attack("other_floats", np.ones((7, 8), "f8"))
_dtype_attack("no_shape", h5py.Empty("f4"))
_dtype_attack("a_scalar", np.float32(1))
_dtype_attack("no_rows", np.ones((0, 8), "f4"))
_dtype_attack("no_units", np.ones((7, 0), "f4"))
_dtype_attack("twelve_axes", np.ones((7, 8, *[1] * 10), "f4"))
_dtype_attack("another_width", np.ones((7, 12), "f4"))
_dtype_attack("no_fourth_gate", np.ones((7, 6), "f4"))


@hdf5_attack(None)
def big_endian(file: h5py.File, group: str, bench: Bench) -> None:
    values = file[kernel(group)][()]
    file.create_dataset(_replaced(file, group), data=values.astype(">f4"))


@hdf5_attack(None)
def chunked_and_compressed(file: h5py.File, group: str, bench: Bench) -> None:
    values = file[kernel(group)][()]
    file.create_dataset(
        _replaced(file, group),
        data=values,
        chunks=(2, 3),
        compression="gzip",
        shuffle=True,
        fletcher32=True,
    )


@craft(None)
def user_block(bench: Bench) -> Path:
    data = (bench.copy(WEIGHTS)).read_bytes()
    return bench.write("crafted.h5", b"\0" * 512 + data)


# --- names and attributes -------------------------------------------------------------------------


@hdf5_attack(None)
def names_that_mislead(file: h5py.File, group: str, bench: Bench) -> None:
    for name in ("..", " ", "\t", "a\nb", "%2e%2e", "\u202ecod.exe", "C:\\x", "\x1b[31mred"):
        file.create_dataset(f"extra/{name}", data=np.ones(2, "f4"))


@craft("lists a layer twice")
def one_layer_listed_often(bench: Bench) -> Path:
    path = bench.copy(LEGACY)
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["layer_names"] = [b"lstm"] * 3000
        file["model_weights/lstm"].attrs["weight_names"] = [b"lstm/lstm_cell/kernel"] * 2000
    return path


def _attribute_attack(name: str, value: object, refused: str) -> None:
    def make(bench: Bench) -> Path:
        path = bench.copy(LEGACY)
        with h5py.File(path, "r+") as file:
            file["model_weights/lstm"].attrs["weight_names"] = value
        return path

    make.__name__ = f"weight_names_{name}"
    craft(refused)(make)


_attribute_attack("empty", h5py.Empty("S3"), "no weight_names")
_attribute_attack("numbers", np.arange(3), "no weight_names")
_attribute_attack("escaping", ["../../../dense/dense/kernel"] * 2, "a listed weight is missing")
_attribute_attack("absolute", ["/layers/lstm"], "a listed weight is missing")
_attribute_attack("control", ["a\n\x1b[31m\u202e"], "a listed weight is missing")


@craft("a listed layer has no group")
def layer_names_that_are_not_there(bench: Bench) -> Path:
    path = bench.copy(LEGACY)
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["layer_names"] = ["\x1b[2J\r\n", "lstm"]
    return path


@craft("an array of a layer is missing")
def two_arrays_of_one_number(bench: Bench) -> Path:
    path = bench.copy(WEIGHTS)
    with h5py.File(path, "r+") as file:
        file.move(f"{V3_CELL}/1", f"{V3_CELL}/00")
    return path

