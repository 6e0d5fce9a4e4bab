"""Pickles, `.npy` members and archives made byte by byte, for the tests of their readers."""

from __future__ import annotations

import pickle
import pickletools
import struct
import zipfile
from pathlib import Path

import numpy as np

from lstmconvert.files.opening import Window
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.keras.stores.npzstore import read_tree
from lstmconvert.tensors.tensor import SourceFile

HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"

MEMBER = "layers/lstm/cell.npy"


def npy(header: bytes, data: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header + data


def window(path: Path, data: bytes) -> Window:
    path.write_bytes(data)
    return Window(SourceFile(path))


def store(
    path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> StoredTree:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return read_tree(Window(SourceFile(path)))


def of_pickle(path: Path, data: bytes) -> StoredTree:
    return store(path, {MEMBER: npy(HEADER, data)})


def boxed(value: object) -> bytes:
    """`value` in an array of one object, pickled as NumPy's savez does."""
    box = np.empty((), object)
    box[()] = value
    return pickle.dumps(box, protocol=4)


def variable(value: bytes, module: bytes = b"keras.src.backend") -> bytes:
    """A Variable whose state has one `_value`, given as opcodes, in the object array of savez."""
    box = pickle.dumps(np.empty((), object), protocol=3)
    start = box.rindex(b"N")  # the array's one element, None
    made = b"c" + module + b"\nVariable\n)\x81}X\x06\0\0\0_value" + value + b"sb"
    return box[:start] + b"}X\x01\0\0\x000" + made + b"s" + box[start + 1 :]


def opcodes(value: object) -> bytes:
    """The opcodes of a value, without protocol and memo, to be put into a larger pickle."""
    data = pickletools.optimize(pickle.dumps(value, protocol=3))
    assert b"q" not in data[:4]
    return data[2:-1]
