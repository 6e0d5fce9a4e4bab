"""An HDF5 file as a tree of tensors and texts, read without the HDF5 library.

What Keras and h5py write is read here, by default and with `libver="latest"`: groups of both
formats, attributes of texts, and datasets of numbers: compact, contiguous, or in chunks with HDF5's
own filters. A file can also point elsewhere: at other files (external and soft links, external
storage, virtual datasets), at native code (foreign filters), at types of its own. Keras writes none
of these, and they are refused by name.

A dataset is not read in a walk. It knows where its numbers are, and they are read when touched.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files.opening import Window
from lstmconvert.hdf5 import structures
from lstmconvert.hdf5.chunks import (
    DEFLATE,
    FLETCHER32,
    SHUFFLE,
    ChunkedTensor,
    Filter,
    layout_of,
    places,
)
from lstmconvert.hdf5.structures import (
    PAIR,
    REFERENCE,
    SIGNATURE,
    UNDEFINED,
    WORD,
    Blocks,
    Entry,
    Heap,
    Records,
    Table,
    Texts,
    Type,
    root_entry,
    signatures,
)
from lstmconvert.hdf5.structures import messages as messages_of
from lstmconvert.limits import Limit
from lstmconvert.tensors.dtypes import Array, DType, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

Attributes = Mapping[str, "str | list[str]"]


class Tree(NamedTuple):
    """All that an HDF5 file holds: full path -> tensor, and full group path -> text attributes.

    The root group's path is empty.
    """

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Attributes]
    groups: frozenset[str] = frozenset()


#: Superblocks (II.A): of version 0 and 1, and of 2 and 3.
_SUPERBLOCK, _MORE = struct.Struct("<8s8B2HI"), struct.Struct("<4Q")
_LATER = struct.Struct("<8s4B4Q")
_WIDTHS = (8, 8)  # the bytes of an address and of a length
#: Later formats say elsewhere how many entries their tables have; these are HDF5's defaults.
_LEAF, _INNER = 2 * 4, 2 * 16

_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = 0, 1, 2, 3
_COMPACT_SIZE, _LAYOUT = struct.Struct("<xxH"), struct.Struct("<xxQQ")

#: The records of trees of version 2 that lead to links and to attributes, by name; the first begin
#: with the hash of a name.
_LINK_RECORDS, _ATTRIBUTE_RECORDS, _HASH = 5, 8, 4

_REFERENCES = np.dtype(f"V{REFERENCE.size}")
_PARTS = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
_TWO_BYTES = np.dtype("V2")
#: So many types and shapes of datasets are kept.
_DESCRIBED = 64

#: The kind of a message -> what it says, and where that is in the file.
Parts = dict[int, tuple[bytes, int]]


def is_hdf5(source: SourceFile) -> bool:
    """Whether an HDF5 signature is at byte 0, or behind a user block (512, 1024, 2048, …)."""
    return any(True for _ in signatures(Window(source)))


def read_tree(source: SourceFile, offset: int = 0, size: int | None = None) -> Tree:
    """Walk the HDF5 file that is at bytes `offset` to `offset + size` of an open file.

    Raises:
        CorruptFile: it does not fit together, or it holds a link, external storage, a virtual
            dataset, a foreign filter, a named type, or a dataset without stored data.
        LimitExceeded: it is deeper, larger or denser than the limits allow.
    """
    window = Window(source, offset, size)
    start = next(signatures(window), None)
    if start is None:
        raise Blocks(window).damaged("it has no HDF5 signature")
    blocks = Blocks(Window(source, window.offset + start, window.size - start))
    try:
        return _Walk(blocks).tree()
    except (struct.error, IndexError):
        raise blocks.damaged("a structure is cut off") from None


class _Walk:
    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.texts = blocks, Texts(blocks)
        self.source, self.offset = blocks.window.source, blocks.window.offset
        self.tensors: dict[str, Tensor] = {}
        self.attributes: dict[str, Attributes] = {}
        self.groups: set[str] = set()
        self.seen: set[int] = set()
        self.declared = self.stored = 0
        # Thousands of layers have arrays of a few types and shapes.
        self.described: dict[tuple[bytes, bytes], tuple[Type, DType, Shape, Shape, int]] = {}
        # Looked up once: a file of 10,000 layers has 70,000 objects.
        self.depth, self.longest = limits.HDF5_DEPTH.value, limits.PATH_LENGTH.value
        self.objects, self.rank = limits.HDF5_OBJECTS.value, limits.RANK.value
        self.largest = limits.TENSOR_BYTES.value

    def where(self, path: str) -> str:
        return f"{self.source.path}: {path or '/'}"

    def fail(self, message: str, path: str, **facts: Any) -> NoReturn:
        raise CorruptFile(message, where=self.where(path), **facts)

    # --- the file ---

    def tree(self) -> Tree:
        version = self.blocks.at(len(SIGNATURE), 1)[0]
        if version in (0, 1):
            root = self._first_superblock(version)
        elif version in (2, 3):
            root = self._later_superblock()
        else:
            raise self.blocks.unread(f"a superblock of version {version}")
        _, address, table = root
        self.item(address or 0, "", 0, table)
        if "" not in self.groups:
            raise self.blocks.damaged("its root is no group")
        return Tree(self.tensors, self.attributes, frozenset(self.groups))

    def _first_superblock(self, version: int) -> Entry:
        head = self.blocks.at(0, _SUPERBLOCK.size)
        _, _, _, _, _, _, *widths, _, leaf, inner, _ = _SUPERBLOCK.unpack(head)
        at = _SUPERBLOCK.size + 4 * version  # version 1 says how wide trees of chunks are
        base, _, end, driver = _MORE.unpack(self.blocks.at(at, _MORE.size))
        self._check_ends(tuple(widths), base, end, driver)
        self.table = Table(self.blocks, 2 * leaf, 2 * inner)
        return root_entry(self.blocks, at + _MORE.size)

    def _later_superblock(self) -> Entry:
        head = self.blocks.at(0, _LATER.size + 4)
        self.blocks.verified(head, b"superblock")
        _, _, *widths, _, base, extension, end, root = _LATER.unpack(head[: _LATER.size])
        self._check_ends(tuple(widths), base, end, UNDEFINED)
        self.table = Table(self.blocks, _LEAF, _INNER)
        if extension != UNDEFINED:
            for kind, _, _ in messages_of(self.blocks, extension):
                if kind in (structures.SHARED_TABLE, structures.DRIVER, structures.CACHE):
                    raise self.blocks.unread("structures that are kept elsewhere")
        return b"", root, None

    def _check_ends(self, widths: tuple[int, ...], base: int, end: int, driver: int) -> None:
        if widths != _WIDTHS:
            raise self.blocks.unread("addresses that are not of eight bytes")
        if driver != UNDEFINED:
            raise self.blocks.unread("parts in other files")
        if end - base > self.blocks.size:  # the base may be of a file without its user block
            raise self.blocks.truncated(end)
        self.blocks.size = min(self.blocks.size, max(0, end - base))

    # --- groups ---

    def item(self, address: int, path: str, depth: int, table: bytes | None = None) -> None:
        """Read the group or dataset whose header is at an address.

        Args:
            table: where a group's tables are, if who leads here says so.
        """
        if address in self.seen:
            self.fail("a group or dataset is in two places, as Keras never writes", path)
        self.seen.add(address)
        if depth > self.depth:
            what = "the nesting of the HDF5 groups"
            limits.HDF5_DEPTH.check(depth, self.where(path), what)
        parts: dict[int, tuple[bytes, int]] = {}
        attributes: list[bytes] = []
        links: list[bytes] = []
        for kind, body, place in messages_of(self.blocks, address):
            if kind == structures.ATTRIBUTE:
                attributes.append(body)
            elif kind == structures.LINK:
                links.append(body)
            elif kind in parts:
                raise self.blocks.damaged("an object with two messages of one kind")
            else:
                parts[kind] = body, place
        if structures.LAYOUT in parts:
            if structures.DATATYPE not in parts or structures.DATASPACE not in parts:
                raise self.blocks.damaged("a dataset without a type or a shape")
            self.tensors[path] = self.dataset(parts, attributes, path)
        elif structures.SYMBOLS in parts or structures.LINKS in parts:
            self.groups.add(path)
            if attributes or structures.ATTRIBUTES in parts:
                texts = self.texts_of(parts, attributes, path)
                if texts:
                    self.attributes[path] = texts
            if table is not None and table != parts.get(structures.SYMBOLS, (table, 0))[0]:
                raise self.blocks.damaged("a group with two tables")
            start = f"{path}/" if path else ""
            for entry in self.entries(parts, links, path):
                self.child(entry, start, path, depth)
        elif structures.DATATYPE in parts:
            self.fail("a named type, which Keras never writes", path)
        else:
            raise self.blocks.damaged("no group or dataset where one should be")

    def entries(self, parts: Parts, links: list[bytes], path: str) -> list[Entry]:
        """Return what is in a group, sorted by name; a few more than there may be at most."""
        if structures.SYMBOLS in parts:
            tree, heap = PAIR.unpack(parts[structures.SYMBOLS][0])
            return self.table.entries(tree, heap, self.objects - len(self.seen))
        places = structures.elsewhere(parts[structures.LINKS][0], WORD.size)
        bounds = limits.HDF5_OBJECTS, len(self.seen), "the number of HDF5 objects"
        links = [*links, *self.in_heap(places, _LINK_RECORDS, bounds, path)]
        entries = [structures.link(self.blocks, link) for link in links]
        entries.sort(key=lambda entry: entry[0])
        if len({name for name, _, _ in entries}) != len(entries):
            raise self.blocks.damaged("a name appears twice in a group")
        return entries

    def in_heap(
        self, places: tuple[int, int], kind: int, bounds: tuple[Limit, int, str], path: str
    ) -> Iterator[bytes]:
        """Yield the links or attributes that are too many for their object's header.

        Args:
            places: of their heap, and of the tree that leads to them.
            kind: of the tree's records.
            bounds: a limit for their number, the count to add to it, and its name.
        """
        heap_address, tree = places
        if heap_address == UNDEFINED:
            return
        records = Records(self.blocks, tree)
        if records.kind != kind:
            raise self.blocks.damaged("a tree of another kind")
        limit, more, what = bounds
        limit.check(records.total + more, self.where(path), what)
        heap = Heap(self.blocks, heap_address)
        if heap.total != records.total:
            raise self.blocks.damaged("a heap with more or fewer objects than lead to it")
        start = _HASH if kind == _LINK_RECORDS else 0
        for record in records:
            yield heap.object(record[start:])

    def child(self, entry: Entry, start: str, path: str, depth: int) -> None:
        name, address, table = entry
        here = start + name.decode("utf-8", "backslashreplace")
        if len(here) > self.longest:
            where = self.source.path
            limits.PATH_LENGTH.check(len(here), where, "the length of an HDF5 path")
        # Two names of bytes that are not UTF-8 may be one text.
        is_twice = here in self.tensors or here in self.groups
        if name in (b"", b".") or b"/" in name or is_twice:
            self.fail("a name that HDF5 cannot write", path, found=repr(name)[:80])
        if address is None:
            self.fail("a soft or external link, which Keras never writes", here)
        if len(self.seen) >= self.objects:
            what = "the number of HDF5 objects"
            limits.HDF5_OBJECTS.check(len(self.seen) + 1, self.where(path), what)
        self.item(address, here, depth + 1, table)

    def texts_of(self, parts: Parts, bodies: list[bytes], path: str) -> Attributes:
        """Return the text attributes of an object, sorted by name."""
        if not bodies and structures.ATTRIBUTES not in parts:
            return {}
        bounds = limits.HDF5_ATTRIBUTES, len(bodies), "the number of attributes"
        if structures.ATTRIBUTES in parts:
            places = structures.elsewhere(parts[structures.ATTRIBUTES][0], 2)
            bodies = [*bodies, *self.in_heap(places, _ATTRIBUTE_RECORDS, bounds, path)]
        if len(bodies) > 1:  # as rarely, and limits take time to look up
            limits.HDF5_ATTRIBUTES.check(len(bodies), self.where(path), bounds[2])
        return dict(sorted(structures.attributes(self.blocks, self.texts, bodies)))

    # --- datasets ---

    def dataset(self, parts: Parts, attributes: list[bytes], path: str) -> Tensor:
        if structures.EXTERNAL in parts:
            self.fail("a dataset with external storage, which reads other files", path)
        layout, place = parts[structures.LAYOUT]
        version, form = layout[:2]
        if version not in (3, 4, 5) or form > _VIRTUAL:
            raise self.blocks.unread(f"a layout of version {version}")
        if form == _VIRTUAL:
            self.fail("a virtual dataset, which reads other files", path)
        described = parts[structures.DATATYPE][0], parts[structures.DATASPACE][0]
        known = self.described.get(described)
        if known is None:
            known = self.array_of(parts, attributes, path)
            # Attributes tell what two bytes are.
            if known[0].dtype.itemsize != _TWO_BYTES.itemsize and len(self.described) < _DESCRIBED:
                self.described[described] = known
        kind, dtype, shape, most, declared = known
        tensor: Tensor
        if not declared:
            return ArrayTensor(np.zeros(shape, kind.dtype))
        if form == _CHUNKED:
            tensor = self.chunked(parts, shape, most, dtype, path)
        else:
            tensor = self.whole(layout, place, shape, dtype, declared, path)
        if kind.is_text:
            return _TextTensor(tensor, self.texts, self.where(path), self.blocks.size)
        if kind.unread is not None:
            return _Unread(tensor, kind.unread, self.where(path))
        return tensor

    def array_of(
        self, parts: Parts, attributes: list[bytes], path: str
    ) -> tuple[Type, DType, Shape, Shape, int]:
        """Return a dataset's type, the dtype that is stored, its shape, the largest that it may
        grow to, and the bytes of all its elements."""
        kind = self.type_of(parts, attributes, path)
        spaces = structures.space(self.blocks, parts[structures.DATASPACE][0])
        if spaces is None:
            self.fail("a dataset without a shape", path)
        shape, most = spaces
        if len(shape) > self.rank:
            limits.RANK.check(len(shape), self.where(path), "the number of axes")
        # Texts are stored as references to a heap.
        dtype = _REFERENCES if kind.is_text else kind.dtype
        declared = math.prod(shape) * dtype.itemsize
        if declared > self.largest:
            limits.TENSOR_BYTES.check(declared, self.where(path), "the tensor's bytes")
        return kind, dtype, shape, most, declared

    def whole(
        self, layout: bytes, place: int, shape: Shape, dtype: DType, declared: int, path: str
    ) -> Tensor:
        """Return a dataset that is in one piece: in the file, or in the message itself."""
        if layout[1] == _COMPACT:
            (size,) = _COMPACT_SIZE.unpack_from(layout)
            address = place + _COMPACT_SIZE.size
        else:
            address, size = _LAYOUT.unpack_from(layout)
            size = 0 if address == UNDEFINED else size
        self.count(declared, size, path)
        if size != declared or address + size > self.blocks.size:
            self.fail("a dataset is past the end of the file, or is of another size", path)
        return FileTensor(self.source, self.offset + address, shape, dtype)

    def chunked(self, parts: Parts, shape: Shape, most: Shape, dtype: DType, path: str) -> Tensor:
        layout = layout_of(self.blocks, parts[structures.LAYOUT][0])
        if len(layout.chunk) != len(shape) or layout.itemsize != dtype.itemsize:
            self.fail("a dataset whose chunks are of another shape", path)
        filters = self.filters(parts, path)
        limits.CHUNK_BYTES.check(layout.bytes, self.where(path), "the size of an HDF5 chunk")
        stored = places(self.blocks, layout, shape, most, bool(filters))
        size = sum(place.size for place in stored.values())
        self.count(math.prod(shape) * dtype.itemsize, size, path)
        moved = {
            index: place._replace(offset=place.offset + self.offset)
            for index, place in stored.items()
        }
        return ChunkedTensor(self.source, shape, dtype, layout.chunk, filters, moved)

    def count(self, declared: int, stored: int, path: str) -> None:
        """Hold a dataset's size, and that of all together, against the bytes stored for them.

        A thousand datasets may share their bytes.
        """
        if declared > stored:
            limits.check_expansion(declared, stored, self.where(path))
        if not stored:
            self.fail("a dataset with no stored data", path)
        self.declared, self.stored = self.declared + declared, self.stored + stored
        if self.stored > self.blocks.size:
            self.fail(
                "the datasets overlap, or the file is truncated",
                "",
                found=f"{self.stored:,} bytes in datasets, {self.blocks.size:,} in the file",
            )
        if self.declared > self.stored:
            limits.check_expansion(self.declared, self.stored, self.source.path)

    def filters(self, parts: Parts, path: str) -> tuple[Filter, ...]:
        if structures.FILTERS not in parts:
            return ()
        result = structures.filters(self.blocks, parts[structures.FILTERS][0])
        for code, _ in result:
            if code not in (DEFLATE, SHUFFLE, FLETCHER32):
                self.fail(
                    "a dataset with a foreign compression filter",
                    path,
                    found=f"filter {code}",
                    expected="none, gzip, shuffle or fletcher32",
                    hint="rewrite the file with h5repack -f NONE",
                )
        return tuple(Filter(code, value) for code, value in result)

    def type_of(self, parts: Parts, attributes: list[bytes], path: str) -> Type:
        kind = structures.type_of(parts[structures.DATATYPE][0])
        if kind is None:
            self.fail("numbers in a format of their own", path)
        if kind.dtype != _TWO_BYTES or kind.unread is not None:
            return kind
        # Keras writes bfloat16 as an opaque type, with this attribute in a v3 store
        # (keras/src/saving/saving_lib.py, H5IOStore.__setitem__), and with none in a legacy one,
        # which it cannot read back. No other dtype of its weights is opaque and of two bytes.
        name = self.texts_of(parts, attributes, path).get("dtype", "bfloat16")
        return Type(dtype_of("bfloat16")) if name == "bfloat16" else kind


class _TextTensor(Tensor):
    """A dataset of texts of any length: an array of Python's `bytes`."""

    def __init__(self, references: Tensor, texts: Texts, where: str, most: int) -> None:
        self._references, self._texts = references, texts
        self.shape, self.dtype = references.shape, np.dtype(object)
        # Their lengths are looked at first, so that one long text is not read a thousand times.
        total = sum(
            int(block.view(_PARTS)["length"].sum(dtype=np.uint64)) for block in references.blocks()
        )
        if total > most:
            raise CorruptFile("texts that share one place, as Keras never writes", where=where)

    def rows(self, start: int, stop: int) -> Array:
        references = np.ascontiguousarray(self._references.rows(start, stop))
        result = np.empty(references.shape, object)
        for index, reference in np.ndenumerate(references.view(_PARTS)):
            length, heap, number = reference.item()
            result[index] = self._texts.text((length, heap, number))
        return result


class _Unread(Tensor):
    """A dataset whose elements are not read: its shape is known, and its numbers are refused."""

    def __init__(self, stored: Tensor, what: str, where: str) -> None:
        self.shape, self.dtype = stored.shape, stored.dtype
        self._what, self._where = what, where

    def rows(self, start: int, stop: int) -> Array:  # noqa: ARG002  # as every tensor
        raise CorruptFile(
            f"a dataset of {self._what}, which are not read",
            where=self._where,
            hint="Keras writes none: take the dataset out of the file",
        )
