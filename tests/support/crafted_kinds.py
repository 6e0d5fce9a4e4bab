"""Attacks through HDF5: data that are not weights, names and attributes that mislead."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from support.crafted import LEGACY, V3_CELL, WEIGHTS, Bench, craft, hdf5_attack, kernel, taken

# --- kinds of data --------------------------------------------------------------------------------


@hdf5_attack("a foreign compression filter")
def foreign_filter(file: h5py.File, group: str, bench: Bench) -> None:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((7, 8))
    plist.set_filter(32001, h5z.FLAG_OPTIONAL, ())  # blosc
    name = taken(file, group)
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
    name = taken(file, group)
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
        file.create_dataset(taken(file, group), data=data, dtype=dtype)

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
_dtype_attack("opaque", np.zeros((7, 8), "V4"))
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
    file.create_dataset(taken(file, group), data=values.astype(">f4"))


@hdf5_attack(None)
def chunked_and_compressed(file: h5py.File, group: str, bench: Bench) -> None:
    values = file[kernel(group)][()]
    file.create_dataset(
        taken(file, group),
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
