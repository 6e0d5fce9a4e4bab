"""Writing an HDF5 weight store: the tree through h5py, the numbers by offset, streaming."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5p, h5s, h5t

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.zipmembers import FilePart
from lstmconvert.tensors.dtypes import DType
from lstmconvert.tensors.streaming import Sums, pour_into
from lstmconvert.tensors.tensor import Tensor

#: Keras cuts longer attributes (keras/src/legacy/saving/legacy_h5_format.py).
HEADER_LIMIT = 64512

#: Group path (the root's is empty) -> attribute name -> a text, or a list of texts.
GroupAttributes = Mapping[str, Mapping[str, str | Sequence[str]]]


def write(
    target: Path | FilePart,
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
    offsets: list[int] = []
    # Through a file of Python's, because what h5py says about a full disk is not an OSError.
    with open(target, "wb+") if isinstance(target, Path) else nullcontext(target) as opened:
        part = opened if isinstance(opened, FilePart) else FilePart(opened, 0)
        with h5py.File(part, "w") as file:
            tree = _Tree(file)
            for group, values in attributes.items():
                tree.add_attributes(group, values)
            for name, tensor in tensors.items():
                offsets.append(part.begin + tree.allocate(name, tensor))
            del tree  # which holds a group open
        pour_into(part.fileno(), tensors, offsets, sums)


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


class _Tree:
    """The groups and datasets of a file that is being written.

    It calls the functions that h5py's own objects call, with what those make anew each time: a file
    of 10,000 layers has 60,000 groups and datasets.
    """

    def __init__(self, file: h5py.File) -> None:
        # The library's cache of two megabytes would grow to 32 and more, as little is looked up.
        cache = file.id.get_mdc_config()
        cache.incr_mode = cache.flash_incr_mode = 0  # H5C_incr__off, H5C_flash_incr__off
        file.id.set_mdc_config(cache)
        self._root = self._group = h5g.open(file.id, b"/")
        #: The path of the group, and those of all that were made.
        self._path, self._made = "", {""}
        self._links = {}
        for coding in (h5t.CSET_ASCII, h5t.CSET_UTF8):
            self._links[coding] = h5p.create(h5p.LINK_CREATE)
            self._links[coding].set_create_intermediate_group(True)
            self._links[coding].set_char_encoding(coding)
        self._contiguous = h5p.create(h5p.DATASET_CREATE)
        self._contiguous.set_layout(h5d.CONTIGUOUS)
        self._contiguous.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        self._contiguous.set_fill_time(h5d.FILL_TIME_NEVER)
        self._contiguous.set_obj_track_times(False)
        self._types: dict[DType, h5t.TypeID] = {}
        self._text, self._scalar = h5py.string_dtype(), h5s.create_simple(())
        self._stored = h5t.py_create(self._text, logical=True)
        self._in_memory = h5t.py_create(self._text)

    def group(self, path: str) -> h5g.GroupID:
        """Return a group, which is made where it is not there."""
        if path == self._path:
            return self._group
        name = path.encode()
        if path in self._made:
            self._group = h5g.open(self._root, name or b"/")
        else:
            coding = h5t.CSET_ASCII if path.isascii() else h5t.CSET_UTF8
            self._group = h5g.create(self._root, name, lcpl=self._links[coding])
            above = path
            while above not in self._made:
                self._made.add(above)
                above = above.rpartition("/")[0]
        self._path = path
        return self._group

    def allocate(self, name: str, tensor: Tensor) -> int:
        """Create a contiguous dataset with its space on disk, and return its offset in the file."""
        group, _, leaf = name.rpartition("/")
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
        if dtype not in self._types:
            self._types[dtype] = h5t.py_create(dtype, logical=True)
        parent, kind = self.group(group), self._types[dtype]
        space = h5s.create_simple(tensor.shape) if tensor.shape else h5s.create(h5s.SCALAR)
        dataset = h5d.create(parent, leaf.encode(), kind, space, self._contiguous)
        if is_bfloat16:
            self._add_text(dataset, "dtype", "bfloat16")
        return int(dataset.get_offset()) if tensor.size else 0

    def add_attributes(self, path: str, values: Mapping[str, str | Sequence[str]]) -> None:
        """Add attributes to a group."""
        group = self.group(path)
        for name, value in values.items():
            if isinstance(value, str):
                self._add_text(group, name, value)
            else:
                _add_list(h5py.Group(group), name, [text.encode() for text in value])

    def _add_text(self, item: h5g.GroupID | h5d.DatasetID, name: str, text: str) -> None:
        attribute = h5a.create(item, name.encode(), self._stored, self._scalar)
        attribute.write(np.array(text, self._text), mtype=self._in_memory)


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
