"""Writing an HDF5 weight store: the tree through h5py, the numbers by offset, streaming."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.zipmembers import Part
from lstmconvert.tensors.streaming import Sums, pour_into
from lstmconvert.tensors.tensor import Tensor

#: Keras cuts longer attributes (keras/src/legacy/saving/legacy_h5_format.py).
HEADER_LIMIT = 64512

#: Group path (the root's is empty) -> attribute name -> a text, or a list of texts.
GroupAttributes = Mapping[str, Mapping[str, str | Sequence[str]]]


def write(
    target: Path | Part,
    tensors: Mapping[str, Tensor],
    attributes: GroupAttributes,
    sums: Sums,
) -> None:
    """Write a new HDF5 file, the same bytes for the same input.

    Args:
        target: the file to write, or an empty end of one that is open.
        tensors: full path -> tensor.
        attributes: the groups to make, empty ones too, and their attributes.
        sums: takes the checksum of each tensor.

    Raises:
        UnsupportedByTarget: a dtype or a text that Keras's HDF5 files do not hold.
    """
    _check_texts(tensors, attributes)
    offsets: dict[str, int] = {}
    # Through a file of Python's, because what h5py says about a full disk is not an OSError.
    begin = 0 if isinstance(target, Path) else target.begin
    with open(target, "wb+") if isinstance(target, Path) else nullcontext(target) as opened:
        with h5py.File(opened, "w") as file:
            for group, values in attributes.items():
                _add_attributes(file.require_group(group or "/"), values)
            for name, tensor in tensors.items():
                offsets[name] = begin + _allocate(file, name, tensor)
        opened.flush()
        pour_into(opened.fileno(), tensors, offsets, sums)


def _check_texts(names: Iterable[str], attributes: GroupAttributes) -> None:
    texts = [*names, *attributes]
    for values in attributes.values():
        for value in values.values():
            texts += [value] if isinstance(value, str) else value
    for text in texts:
        if "\0" in text:
            raise UnsupportedByTarget(
                "an HDF5 file cannot hold a text with a null character",
                where=repr(text)[:80],
                option="name",
                target="HDF5",
            )


def _allocate(file: h5py.File, name: str, tensor: Tensor) -> int:
    """Create a contiguous dataset with its space on disk, and return its offset in the file."""
    group, _, leaf = name.rpartition("/")
    parent = file.require_group(group or "/")
    is_bfloat16 = tensor.dtype.name == "bfloat16"
    dtype = np.dtype("V2") if is_bfloat16 else tensor.dtype
    if not is_bfloat16 and dtype.kind not in "fiubc":
        raise UnsupportedByTarget(
            "an HDF5 file of Keras cannot hold this dtype",
            where=name,
            option="dtype",
            target="HDF5",
            found=tensor.dtype.name,
        )
    space = h5s.create_simple(tensor.shape) if tensor.shape else h5s.create(h5s.SCALAR)
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(h5d.CONTIGUOUS)
    plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    dataset = h5d.create(parent.id, leaf.encode(), h5t.py_create(dtype, logical=True), space, plist)
    if is_bfloat16:
        h5py.Dataset(dataset).attrs["dtype"] = "bfloat16"
    return int(dataset.get_offset()) if tensor.size else 0


def _add_attributes(group: h5py.Group, values: Mapping[str, str | Sequence[str]]) -> None:
    for name, value in values.items():
        if isinstance(value, str):
            group.attrs[name] = value
        else:
            _add_list(group, name, [text.encode() for text in value])


def _add_list(group: h5py.Group, name: str, texts: list[bytes]) -> None:
    array = np.asarray(texts) if texts else np.zeros(0)
    chunks = [array]
    while any(chunk.nbytes > HEADER_LIMIT for chunk in chunks):
        chunks = np.array_split(array, len(chunks) + 1)
    if len(chunks) == 1:
        group.attrs[name] = array
        return
    for index, chunk in enumerate(chunks):
        group.attrs[f"{name}{index}"] = chunk
