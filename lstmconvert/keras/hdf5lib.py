"""The one place where the HDF5 library is let at a file, and every guard on it.

HDF5 can point a name at another file (external and soft links), a dataset at another file (external
storage, virtual datasets), declare petabytes and store nothing, and load native code for a filter.
It can also give one dataset a thousand names. A Keras file does none of that: its groups are hard
links, its datasets plain numbers, contiguous, each stored once. What differs is refused here.
Contiguous data is not read through HDF5 at all, but by offset.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5pl, h5t

from lstmconvert import limits
from lstmconvert.dtypes import DType, dtype_of
from lstmconvert.errors import CorruptFile, LSTMConvertError
from lstmconvert.keras.hdf5chunks import (
    DEFLATE,
    FLETCHER32,
    SHUFFLE,
    ChunkedTensor,
    Filter,
    Place,
)
from lstmconvert.keras.hdf5dataset import DatasetTensor, reason
from lstmconvert.keras.hdf5guard import Guarded
from lstmconvert.keras.hdf5header import Headers
from lstmconvert.keras.hdf5text import Unfamiliar
from lstmconvert.keras.tree import Attributes, Tree
from lstmconvert.limits import Limit
from lstmconvert.tensors import ArrayTensor, FileTensor, SourceFile, Tensor

#: Filters that HDF5 carries itself. Any other would be a plug-in: native code named by the file.
_FILTERS = frozenset({DEFLATE, SHUFFLE, FLETCHER32})

#: The limits that every object of a file is held against.
_OFTEN = (
    limits.HDF5_DEPTH,
    limits.HDF5_OBJECTS,
    limits.HDF5_ATTRIBUTES,
    limits.PATH_LENGTH,
    limits.ATTRIBUTE_BYTES,
    limits.TENSOR_BYTES,
    limits.RANK,
)

#: A byte that is no UTF-8 is spelled with so many letters.
_SPELLED = 4

_SHARED = "attributes whose texts are damaged, or share one place"
_CHUNK_KEY = 8  # a chunk's size and filters, and its place on each axis and in the element
#: A text's length, and where it is, in a dataset (VIII.B).
_LIST, _LENGTHS = np.dtype("V16"), np.dtype([("n", "<u4"), ("place", "V12")])
_WIDTHS = (8, 8)  # of addresses and lengths


def read(source: SourceFile, offset: int = 0, size: int | None = None) -> Tree:
    """Walk the HDF5 file that lies at bytes `offset` to `offset + size` of an open file.

    Raises:
        CorruptFile: HDF5 cannot parse it, or it holds a link, external storage, a virtual dataset,
            a foreign filter, or a dataset without stored data.
        LimitExceeded: it is deeper, larger or denser than the limits allow.
    """
    window = Guarded(source, offset, size)
    walk = _Walk(window)
    try:
        with _no_plugins():
            file = h5py.File(window, "r")
            if file.id.get_create_plist().get_sizes() != _WIDTHS:
                raise OSError("its addresses are not of eight bytes, as Keras's are")
            root = h5g.open(file.id, b"/")
            walk.group(root, h5o.get_info(root).addr, "", 0)
    except LSTMConvertError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, UnicodeError) as error:
        # What h5py raises on broken files depends on where the break is.
        raise CorruptFile(
            f"HDF5 cannot read it: {reason(error)}",
            where=source.path,
            hint="the file is truncated or damaged: copy or download it again",
        ) from None
    window.walked()
    return Tree(walk.tensors, walk.attributes, frozenset(walk.groups))


@contextlib.contextmanager
def _no_plugins() -> Iterator[None]:
    """HDF5 loads every library of its plug-in folders when it cannot open a file by itself."""
    paths = [h5pl.get(index) for index in range(h5pl.size())]
    for _ in paths:
        h5pl.remove(0)
    try:
        yield
    finally:
        for path in paths:
            h5pl.append(path)


class _Walk:
    def __init__(self, window: Guarded) -> None:
        self.window, self.headers = window, Headers(window)
        self.source, self.offset, self.size = window.source, window.offset, window.size
        self.declared = self.stored = self.text = 0
        self.tensors: dict[str, Tensor] = {}
        self.attributes: dict[str, Attributes] = {}
        self.groups: set[str] = set()
        self.seen: set[int] = set()
        self.types: list[tuple[Any, DType]] = []
        self.count = 0
        # Looked up once: a file of 10,000 layers has 70,000 objects.
        self.limits = {limit: limit.value for limit in _OFTEN}

    def check(self, limit: Limit, amount: int, path: str, what: str) -> None:
        if amount > self.limits[limit]:
            limit.check(amount, f"{self.source.path}: {path or '/'}", what)

    def fail(self, message: str, path: str, **facts: Any) -> CorruptFile:
        return CorruptFile(message, where=f"{self.source.path}: {path or '/'}", **facts)

    def group(self, group: Any, address: int, path: str, depth: int) -> None:
        self.check(limits.HDF5_DEPTH, depth, path, "the nesting of the HDF5 groups")
        self._once(address, path)
        self.groups.add(path)
        attributes = dict(self._attributes(group, address, path))
        if attributes:
            self.attributes[path] = attributes
        links: list[tuple[bytes, int, int]] = []
        group.links.iterate(lambda name, info: links.append((name, info.type, info.u)), info=True)
        self.count += len(links)
        self.check(limits.HDF5_OBJECTS, self.count, path, "the number of HDF5 objects")
        for name, kind, target in links:
            self._child(group, name, kind, target, path, depth)

    def _once(self, address: int, path: str) -> None:
        if address in self.seen:
            raise self.fail("a group or dataset stands in two places, as Keras never writes", path)
        self.seen.add(address)

    def _child(
        self, group: Any, name: bytes, kind: int, address: int, path: str, depth: int
    ) -> None:
        here = f"{path}/{_text(name)}" if path else _text(name)
        self.check(limits.PATH_LENGTH, len(here), "", "the length of an HDF5 path")
        if name in (b"", b".") or b"/" in name or here in self.tensors or here in self.groups:
            # HDF5 would look such a name up as a path, and might follow a link on its way.
            raise self.fail("a name that HDF5 cannot write", path, found=repr(name)[:80])
        if kind != h5l.TYPE_HARD:
            raise self.fail("a soft or external link, which Keras never writes", here)
        child = h5o.open(group, name)
        if isinstance(child, h5g.GroupID):
            self.group(child, address, here, depth + 1)
        elif isinstance(child, h5d.DatasetID):
            self._once(address, here)
            self.tensors[here] = self._tensor(child, address, here)
        else:
            raise self.fail("a named type, which Keras never writes", here)

    def _attributes(
        self, item: Any, address: int, path: str
    ) -> Iterator[tuple[str, str | list[str]]]:
        self.window.reads.clear()
        self.check(
            limits.HDF5_ATTRIBUTES, h5a.get_num_attrs(item), path, "the number of attributes"
        )
        names: list[bytes] = []
        h5a.iterate(item, names.append)  # by number, each would take as long as all
        for name in names:
            attribute = h5a.open(item, name=name)
            space = attribute.get_space()
            if space.get_simple_extent_type() == h5py.h5s.NULL:
                continue
            shape, dtype = space.get_simple_extent_dims(), attribute.dtype
            size = math.prod(shape) * dtype.itemsize
            self.check(limits.ATTRIBUTE_BYTES, size, "", "an attribute's size")
            kind = h5py.check_string_dtype(dtype)
            if size and kind is None:
                continue  # numbers, references: nothing that Keras reads back
            if size and kind.length is None:
                texts = self._texts(address, name, path)
            else:
                value = np.empty(shape, dtype)
                attribute.read(value)
                texts = _texts(value)
            self.text += len(texts) if isinstance(texts, str) else sum(map(len, texts))
            if self.text > _SPELLED * self.size:
                raise self.fail(_SHARED, path)
            yield _text(name), texts

    def _texts(self, address: int, name: bytes, path: str) -> str | list[str]:
        try:
            return self.headers.texts(address, name)
        except (Unfamiliar, struct.error):
            raise self.fail(_SHARED, path, found=f"attribute {_text(name)!r}"[:80]) from None

    def _tensor(self, dataset: Any, address: int, path: str) -> Tensor:
        plist = dataset.get_create_plist()
        layout = plist.get_layout()
        if layout == h5d.VIRTUAL:
            raise self.fail("a virtual dataset, which reads other files", path)
        if plist.get_external_count():
            raise self.fail("a dataset with external storage, which reads other files", path)
        dtype, shape = self._dtype(dataset, address, path), self._shape(dataset, path)
        if layout == h5d.CHUNKED:
            self.window.key = _CHUNK_KEY * (2 + len(plist.get_chunk()))
        declared = math.prod(shape) * dtype.itemsize
        self.check(limits.TENSOR_BYTES, declared, path, "the tensor's bytes")
        if declared == 0:
            return ArrayTensor(np.zeros(shape, dtype))
        stored = dataset.get_storage_size()
        if declared > stored:
            limits.check_expansion(declared, stored, f"{self.source.path}: {path}")
        if stored == 0:
            raise self.fail("a dataset with no stored data", path, found=f"shape {shape}")
        self._count(declared, stored)
        if layout == h5d.CONTIGUOUS and not dtype.hasobject:
            return FileTensor(self.source, self.offset + dataset.get_offset(), shape, dtype)
        filters = self._filters(plist, path)
        if layout == h5d.CHUNKED:
            chunk = plist.get_chunk()
            self._check_chunks(dataset, chunk, dtype, path)
            # Behind a user block, versions of HDF5 count a chunk's place from here or from there.
            if not self.window.base and (dtype.kind in "biufc" or dtype.name == "bfloat16"):
                return self._chunked(dataset, chunk, filters, dtype)
        if dtype.kind == "O":
            self._check_lists(dataset, plist, filters, path)
        return DatasetTensor(dataset, shape, dtype, self.source)

    def _count(self, declared: int, stored: int) -> None:
        """Bound all datasets together: a thousand of them may share their bytes."""
        self.declared, self.stored = self.declared + declared, self.stored + stored
        if self.stored > self.size:
            raise self.fail(
                "the datasets overlap, or the file is truncated",
                "",
                found=f"{self.stored:,} bytes in datasets, {self.size:,} in the file",
            )
        limits.check_expansion(self.declared, self.stored, self.source.path)

    def _check_chunks(self, dataset: Any, chunk: tuple[int, ...], dtype: DType, path: str) -> None:
        size = math.prod(chunk) * dtype.itemsize
        limits.CHUNK_BYTES.check(size, f"{self.source.path}: {path}", "the size of an HDF5 chunk")
        count = math.prod(-(-n // step) for n, step in zip(dataset.shape, chunk, strict=True))
        if dataset.get_num_chunks() != count:  # HDF5 would fill the gaps with zeros
            raise self.fail(
                "a dataset with missing chunks",
                path,
                found=f"{dataset.get_num_chunks():,}",
                expected=f"{count:,}",
            )

    def _chunked(
        self, dataset: Any, chunk: tuple[int, ...], filters: tuple[Filter, ...], dtype: DType
    ) -> Tensor:
        places: dict[tuple[int, ...], Place] = {}

        def add(found: Any) -> None:
            index = tuple(n // step for n, step in zip(found.chunk_offset, chunk, strict=True))
            places[index] = Place(self.offset + found.byte_offset, found.size, found.filter_mask)

        dataset.chunk_iter(add)
        shape = tuple(map(int, dataset.shape))
        return ChunkedTensor(self.source, shape, dtype, chunk, filters, places)

    def _check_lists(
        self, dataset: Any, plist: Any, filters: tuple[Filter, ...], path: str
    ) -> None:
        """Check that texts, and lists, of any length are together no longer than the file."""
        stored, shape = dataset.get_type(), tuple(map(int, dataset.shape))
        raw: Tensor
        if isinstance(stored, h5t.TypeReferenceID):
            return  # it is not followed
        if plist.get_layout() == h5d.CONTIGUOUS:
            raw = FileTensor(self.source, self.offset + dataset.get_offset(), shape, _LIST)
        elif plist.get_layout() == h5d.CHUNKED and not self.window.base:
            raw = self._chunked(dataset, plist.get_chunk(), filters, _LIST)
        else:
            raise self.fail("texts where Keras never writes any", path)
        each = stored.get_super().get_size() if isinstance(stored, h5t.TypeVlenID) else 1
        total = sum(int(part.view(_LENGTHS)["n"].sum(dtype=np.uint64)) for part in raw.blocks())
        if total * each > self.size:
            raise self.fail("texts that share one place, as Keras never writes", path)

    def _filters(self, plist: Any, path: str) -> tuple[Filter, ...]:
        result = []
        for index in range(plist.get_nfilters()):
            code, _, values, _ = plist.get_filter(index)
            if code not in _FILTERS:
                raise self.fail(
                    "a dataset with a foreign compression filter",
                    path,
                    found=f"filter {code}",
                    expected="none, gzip, shuffle or fletcher32",
                    hint="rewrite the file with h5repack -f NONE",
                )
            result.append(Filter(code, values[0] if values else 0))
        return tuple(result)

    def _shape(self, dataset: Any, path: str) -> tuple[int, ...]:
        space = dataset.get_space()
        if space.get_simple_extent_type() == h5py.h5s.NULL:
            raise self.fail("a dataset without a shape", path)
        shape = space.get_simple_extent_dims()
        self.check(limits.RANK, len(shape), path, "the number of axes")
        return tuple(map(int, shape))

    def _dtype(self, dataset: Any, address: int, path: str) -> DType:
        stored = dataset.get_type()
        for known, name in self.types:  # a file has one or two, and comparing them is quick
            if stored.equal(known):
                return name
        dtype: DType = stored.dtype
        if dtype.kind in "biufc" and not stored.equal(h5t.py_create(dtype, logical=True)):
            # h5py converts these as it reads. The bytes in the file are other numbers.
            raise self.fail("numbers in a format of their own", path, found=f"nearly {dtype.name}")
        if dtype.kind in "biufc":
            self.types = [*self.types[-3:], (stored, dtype)]
        if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None:
            # Keras writes bfloat16 as an opaque type, with this attribute in a v3 store
            # (keras/src/saving/saving_lib.py, H5IOStore.__setitem__), and with none in a legacy
            # one, which it cannot read back. No other dtype of its weights is opaque and of two
            # bytes.
            marks = dict(self._attributes(dataset, address, path))
            if marks.get("dtype", "bfloat16") == "bfloat16":
                return dtype_of("bfloat16")
        return dtype


def _text(name: bytes | str) -> str:
    if isinstance(name, str):  # h5py decodes with surrogates what is no UTF-8
        name = name.encode("utf-8", "surrogateescape")
    return name.decode("utf-8", "backslashreplace")


def _texts(value: Any) -> str | list[str]:
    if isinstance(value, (str, bytes)):
        return _text(value)
    if isinstance(value, np.ndarray) and value.ndim:
        return [_text(item) for item in value.ravel().tolist()]
    return _text(value.item() if hasattr(value, "item") else str(value))
