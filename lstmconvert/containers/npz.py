"""npz: NumPy's zip of arrays, stored, dates fixed, the same bytes for the same input.

The metadata object is a U8 member `__metadata__`. bfloat16, which NumPy does not know, is stored as
uint16, and the object names those arrays under `bfloat16`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.files import npy
from lstmconvert.files.jsontext import canonical, parse_object
from lstmconvert.files.zipmembers import ZipMembers, entry
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import Array, dtype_of, safetensors_name
from lstmconvert.tensors.streaming import Sums, write_to
from lstmconvert.tensors.tensor import Retyped, Tensor

METADATA = "__metadata__"
BFLOAT16 = "bfloat16"
_SUFFIX = ".npy"


def read(file: Opened) -> Arrays:
    """Read a file's tensors, lazily, and its metadata.

    Raises:
        CorruptFile, LimitExceeded: see `ZipMembers` and `npy.read_tensor`; or the metadata member
            is not a JSON object.
    """
    source, members = file.source, ZipMembers(file.source)

    def check() -> None:
        members.check_large()
        source.check_unchanged()

    return Arrays(*_read(members), check=check)


def _read(members: ZipMembers) -> tuple[dict[str, Tensor], dict[str, str]]:
    source = members.source
    arrays = {
        name.removesuffix(_SUFFIX): npy.read_tensor(members.open(name), f"{source.path}: {name}")
        for name in members.names
        if name.endswith(_SUFFIX)
    }
    if METADATA not in arrays:
        return arrays, {}
    where, text = f"{source.path}: {METADATA}", arrays.pop(METADATA)
    limits.JSON_BYTES.check(text.nbytes, where, "the JSON text")
    value = parse_object(text.read().tobytes(), where)
    for name in _names(value.pop(BFLOAT16, []), arrays, where):
        arrays[name] = Retyped(arrays[name], dtype_of(BFLOAT16))
    # The same text as was written: its checksum did not count the names of the narrow arrays.
    return arrays, {metadata.KEY: canonical(value)}


def _names(value: object, arrays: Mapping[str, Tensor], where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(x, str) and x in arrays for x in value):
        raise CorruptFile("not a list of tensors", where=f"{where}.{BFLOAT16}")
    return value


def write(path: Path, content: Writing) -> None:
    """Write a file, a member at a time.

    Raises:
        UnsupportedByTarget: a dtype that the per-gate format does not have, or a name that a zip
            does not.
    """
    narrow, tensors = [], content.tensors
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(tensors):
            tensor = tensors[name]
            _check_name(name)
            safetensors_name(tensor.dtype, name)
            if tensor.dtype.name == BFLOAT16:
                narrow.append(name)
                tensor = Retyped(tensor, np.dtype("<u2"))
            _write_member(archive, name, tensor, content.sums)
        value = parse_object(content.metadata()[metadata.KEY], METADATA)
        text = canonical({**value, BFLOAT16: narrow} if narrow else value)
        _write_array(archive, METADATA, np.frombuffer(text.encode(), np.uint8))


def _check_name(name: str) -> None:
    if "\0" in name:
        raise UnsupportedByTarget(
            "a zip cannot hold a name with a null character",
            where=repr(name)[:80],
            option="name",
            target="npz",
        )


def _write_member(archive: zipfile.ZipFile, name: str, tensor: Tensor, sums: Sums) -> None:
    with archive.open(entry(f"{name}{_SUFFIX}"), "w", force_zip64=True) as file:
        header = {
            "descr": npy_format.dtype_to_descr(tensor.dtype),
            "fortran_order": False,
            "shape": tensor.shape,
        }
        npy_format.write_array_header_1_0(file, header)
        write_to(file, tensor, partial(sums.add, name))


def _write_array(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    with archive.open(entry(f"{name}{_SUFFIX}"), "w") as file:
        npy_format.write_array(file, array, allow_pickle=False)
