"""Checkpoints of format V2, as TensorFlow writes them since 1.0: an index, and shards of data.

`prefix.index` is a table of entries, `prefix.data-00000-of-00001` the numbers. Shards of another
`-of-N` than the index has are leftovers of an earlier save, and are not looked at.

The object graph is a tensor of one string. Layout of string tensors (tensor_bundle.cc,
WriteStringTensor): the lengths as varints, a masked CRC of the lengths, the bytes. The CRCs run
over the lengths as integers of four bytes (eight, if they need them).

A variable may have been saved in pieces, as `tf.fixed_size_partitioner` cuts it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, NotAModel, SourceError
from lstmconvert.files.opening import open_part
from lstmconvert.files.wire import Parser, varint
from lstmconvert.tensorflow.formats import entries
from lstmconvert.tensorflow.formats.entries import (
    Entry,
    Header,
    Slice,
    check_bytes,
    shape_of,
    shard_name,
)
from lstmconvert.tensorflow.formats.objectgraph import ObjectGraph, parse_object_graph
from lstmconvert.tensorflow.formats.table import Table
from lstmconvert.tensors.checksums import crc32c, unmask
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import CheckedTensor, Shape, SourceFile, Tensor

#: The key of the graph of objects (tensorflow/python/checkpoint/checkpoint.py); TF1 has none.
OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_HEADER_KEY = b""
#: The version of the format (tensor_bundle.cc, kTensorBundleVersion).
_VERSION = 1
#: No name begins with a zero byte: that is how the keys of slices begin.
_SLICE_PREFIX = b"\x00"
_CHUNK = limits.BUFFER_BYTES
#: Tensors are checked against their CRC while the index is read, until this many bytes were; the
#: others when the first of their numbers is asked for.
_CHECK_NOW = 16 * limits.MIB


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checkpoint: every tensor under its key, in key order.

    Fields: `path` (what was asked for), `tensors`, `strings` (tensors of byte strings), `unread`
    (key -> TensorFlow's name of a type that is not a plain number), `graph` (None in TF1
    checkpoints), `sources` (what it consists of, open).
    """

    path: Path
    tensors: Mapping[str, Tensor]
    strings: Mapping[str, Strings] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    graph: ObjectGraph | None = None
    sources: tuple[SourceFile, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of `sources`."""
        return tuple(source.path for source in self.sources)


def read_bundle(prefix: Path) -> Bundle:
    """Read the index of a checkpoint; its tensors are read when they are touched.

    Raises:
        SourceError: the index, or a shard it needs, is missing.
        CorruptFile: index, tensors or object graph contradict each other or their checks.
        LimitExceeded: something is larger than the limits allow.
    """
    index = open_part(entries.index_path(prefix))
    limits.PROTOBUF_BYTES.check(index.size, index.path, "the checkpoint index")
    reader = _IndexReader(prefix, index)
    for key, value in Table(index):
        reader.record(key, value)
    return reader.finish()


class _IndexReader:
    def __init__(self, prefix: Path, index: SourceFile) -> None:
        self.prefix, self.index = prefix, index
        self.parser = Parser(index.path)
        self.header: Header | None = None
        self.wholes: dict[str, Entry] = {}
        self.slices: dict[bytes, Entry] = {}
        self.shards: dict[int, SourceFile] = {}
        self.stored: list[tuple[str, CheckedTensor]] = []

    def record(self, key: bytes, value: memoryview) -> None:
        """Take one record of the index; the first is the header."""
        if self.header is None:
            if key != _HEADER_KEY:
                raise CorruptFile("the checkpoint index has no header", where=self.index.path)
            self.header = self.parser.parse(Header, value)
            self._check_header(self.header)
        elif key.startswith(_SLICE_PREFIX):
            self.slices[key] = self.parser.parse(Entry, value)
        else:
            self.wholes[self.parser.text(key)] = self.parser.parse(Entry, value)

    def _check_header(self, header: Header) -> None:
        path = self.index.path
        if header.num_shards < 1 or header.endianness not in (0, entries.BIG_ENDIAN):
            raise CorruptFile("the checkpoint index has an impossible header", where=path)
        if header.version is not None and header.version.min_consumer > _VERSION:
            raise NotAModel(
                "a checkpoint format newer than is known here",
                where=path,
                found=header.version.min_consumer,
                expected=_VERSION,
            )

    def finish(self) -> Bundle:
        """Resolve every entry, and return the checkpoint."""
        if self.header is None:
            raise CorruptFile("the checkpoint index has no header", where=self.index.path)
        tensors: dict[str, Tensor] = {}
        strings: dict[str, Strings] = {}
        unread: dict[str, str] = {}
        for key, entry in self.wholes.items():
            where = f"{self.index.path}: {key}"
            dtype = entries.dtype_named(entry.dtype, where)
            if dtype is not None:
                tensors[key] = self._tensor(key, entry, dtype, where)
            elif entry.dtype == entries.STRING and not entry.slices:
                strings[key] = self._strings(entry, where)
            else:
                unread[key] = entries.OTHER_DTYPES.get(entry.dtype, "string")
        self._check_overlap()
        self._check_first()
        return Bundle(
            path=self.prefix,
            tensors=tensors,
            strings=strings,
            unread=unread,
            graph=self._graph(strings),
            sources=(self.index, *(self.shards[i] for i in sorted(self.shards))),
        )

    def _graph(self, strings: Mapping[str, Strings]) -> ObjectGraph | None:
        if OBJECT_GRAPH_KEY not in strings:
            return None
        graph, where = strings[OBJECT_GRAPH_KEY], f"{self.index.path}: {OBJECT_GRAPH_KEY}"
        if graph.shape != ():
            raise CorruptFile("the object graph is not one string", where=where)
        return parse_object_graph(graph.read()[0], where)

    def _tensor(self, key: str, entry: Entry, dtype: DType, where: str) -> Tensor:
        shape = shape_of(entry.shape, where)
        if entry.slices:
            return Partitioned(shape, dtype, tuple(self._pieces(key, entry, shape, where)), where)
        return self._stored(key, entry, shape, dtype, where)

    def _stored(self, key: str, entry: Entry, shape: Shape, dtype: DType, where: str) -> Tensor:
        check_bytes(shape, dtype.itemsize, entry.size, where)
        shard = self._shard(entry, where)
        stored = dtype.newbyteorder(">") if self._is_big and dtype.itemsize > 1 else dtype
        crc = unmask(entry.crc)
        tensor = CheckedTensor(shard, entry.offset, shape, stored, crc, key)
        self.stored.append((key, tensor))
        return tensor

    def _pieces(self, key: str, entry: Entry, whole: Shape, where: str) -> Iterator[Piece]:
        limits.PARTITIONS.check(len(entry.slices), where, "the number of partitions")
        for part in entry.slices:
            stored = self.slices.get(entries.slice_key(key.encode(), part))
            if stored is None or stored.slices:
                raise CorruptFile("a partition of a variable is missing", where=where)
            start, shape = piece_bounds(part, whole, where)
            dtype = entries.dtype_named(stored.dtype, where)
            if dtype is None or shape != shape_of(stored.shape, where):
                raise CorruptFile("a partition is not of the shape that it fills", where=where)
            yield Piece(start, self._stored(key, stored, shape, dtype, where), whole)

    def _strings(self, entry: Entry, where: str) -> Strings:
        shape = shape_of(entry.shape, where)
        shard = self._shard(entry, where)
        order = ">" if self._is_big else "<"
        return Strings(shard, entry.offset, entry.size, shape, entry.crc, where, order)

    @property
    def _is_big(self) -> bool:
        return self.header is not None and self.header.endianness == entries.BIG_ENDIAN

    def _shard(self, entry: Entry, where: str) -> SourceFile:
        count = self.header.num_shards if self.header is not None else 0
        if not 0 <= entry.shard < count or entry.offset < 0 or entry.size < 0:
            raise CorruptFile("a tensor is in no shard of the checkpoint", where=where)
        if entry.shard not in self.shards:
            path = self.prefix.with_name(shard_name(self.prefix.name, entry.shard, count))
            self.shards[entry.shard] = self._open_shard(path)
        shard = self.shards[entry.shard]
        if entry.offset + entry.size > shard.size:
            shard.read_at(entry.offset, entry.size)  # raises, and says what is missing
        return shard

    def _open_shard(self, path: Path) -> SourceFile:
        try:
            return open_part(path)
        except NotAModel as error:
            if path.is_file() and path.stat().st_size == 0:
                return SourceFile(path)  # every tensor of it may be empty
            raise error
        except SourceError as error:
            error.hint = "a checkpoint is its index and all its data files: copy them together"
            raise

    def _check_overlap(self) -> None:
        """Refuse tensors that share bytes: a small file could be read a million times."""
        last = (Path(), 0)
        order = sorted(
            self.stored, key=lambda item: (item[1].source.path, item[1].offset, item[1].nbytes)
        )
        for key, tensor in order:
            path, end = last
            if tensor.source.path == path and tensor.offset < end and tensor.nbytes:
                raise CorruptFile(
                    "two tensors share the same bytes", where=f"{tensor.source.path}: {key}"
                )
            last = tensor.source.path, tensor.offset + tensor.nbytes

    def _check_first(self) -> None:
        size = 0
        for _, tensor in self.stored:
            size += tensor.nbytes
            if size <= _CHECK_NOW:
                tensor.verify()


_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Strings:
    """A tensor of byte strings; read, and checked, when it is asked for."""

    source: SourceFile
    offset: int
    size: int
    shape: Shape
    crc: int
    where: str
    byteorder: str = "<"

    def read(self) -> tuple[bytes, ...]:
        """Return the strings, in C order.

        Raises:
            CorruptFile: their lengths or their CRC do not agree with the stored bytes.
            LimitExceeded: they are longer than the limit.
        """
        limits.PROTOBUF_BYTES.check(self.size, self.where, "the string tensor")
        data = memoryview(self.source.read_at(self.offset, self.size))
        count = math.prod(self.shape)
        if count > self.size:
            raise self._damaged("its shape has more strings than it has bytes")
        if self.size == 0:
            return ()
        lengths, at = self._lengths(data, count)
        crc = crc32c(self._integers(lengths))
        check = data[at : at + _CRC.size]
        self._check(crc, int.from_bytes(check, "little" if self.byteorder == "<" else "big"))
        at += _CRC.size
        self._check(crc32c(data[at:], crc32c(check, crc)), self.crc)
        strings = []
        for length in lengths:
            strings.append(bytes(data[at : at + length]))
            at += length
        return tuple(strings)

    def _lengths(self, data: memoryview, count: int) -> tuple[list[int], int]:
        lengths, at = [], 0
        for _ in range(count):
            length, at = varint(data, at, self.where)
            lengths.append(length)
        if at + _CRC.size + sum(lengths) != len(data):
            raise self._damaged("the lengths of its strings do not add up")
        return lengths, at

    def _integers(self, lengths: list[int]) -> bytes:
        # PROTOBUF_BYTES may be raised, lengths past 32 bits included: those take eight bytes.
        if max(lengths, default=0) <= 0xFFFF_FFFF:
            return np.array(lengths, f"{self.byteorder}u4").tobytes()
        kinds = ("I" if length <= 0xFFFF_FFFF else "Q" for length in lengths)
        return struct.pack(self.byteorder + "".join(kinds), *lengths)

    def _check(self, crc: int, stored: int) -> None:
        if crc != unmask(stored):
            raise self._damaged("bad CRC-32C")

    def _damaged(self, reason: str) -> CorruptFile:
        return CorruptFile(
            f"not a readable string tensor: {reason}",
            where=self.where,
            hint="the file is truncated or damaged: copy or download it again",
        )


Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Piece:
    """A tensor that fills `start` to `start + tensor.shape` of a larger one of shape `whole`."""

    start: Shape
    tensor: Tensor
    whole: Shape

    @cached_property
    def rows(self) -> Rows:
        """The rows of the whole that this piece has a part of, in order: `(rows,)`."""
        rows = np.zeros(1, np.int64)
        axes = zip(self.start[:-1], self.tensor.shape[:-1], self.whole[:-1], strict=True)
        for start, length, size in axes:
            rows = (rows[:, None] * size + np.arange(start, start + length)).reshape(-1)
        return rows


class Partitioned(Tensor):
    """Pieces that tile a tensor, read as one.

    Raises:
        CorruptFile: they overlap, leave a gap, or are of different dtypes.
        LimitExceeded: they are more than the limit.
    """

    def __init__(self, shape: Shape, dtype: DType, pieces: tuple[Piece, ...], where: str) -> None:
        self.shape, self.dtype, self.pieces = shape, dtype, pieces
        limits.PARTITIONS.check(len(pieces), where, "the number of partitions")
        if any(piece.tensor.dtype != dtype for piece in pieces):
            raise CorruptFile("the partitions of a variable differ in dtype", where=where)
        if sum(piece.tensor.size for piece in pieces) != self.size or _overlap(pieces):
            raise CorruptFile("the partitions of a variable do not tile it", where=where)

    def rows(self, start: int, stop: int) -> Array:
        result = np.empty((stop - start, self.matrix_shape[1]), self.dtype)
        for piece in self.pieces:
            first, last = np.searchsorted(piece.rows, (start, stop))
            left, width = piece.start[-1], piece.tensor.shape[-1]
            places = piece.rows[first:last] - start
            result[places, left : left + width] = piece.tensor.rows(int(first), int(last))
        return result


def piece_bounds(part: Slice, whole: Shape, where: str) -> tuple[Shape, Shape]:
    """Return where a slice begins, and its shape.

    Raises:
        CorruptFile: it does not have the axes of the whole, or reaches outside.
    """
    if not whole or len(part.extents) != len(whole):
        raise CorruptFile("a partition has other axes than its variable", where=where)
    start, shape = [], []
    for extent, size in zip(part.extents, whole, strict=True):
        length = size if extent.length is None else extent.length
        if extent.start < 0 or length < 0 or extent.start + length > size:
            raise CorruptFile("a partition reaches outside its variable", where=where)
        start.append(extent.start)
        shape.append(length)
    return tuple(start), tuple(shape)


def _overlap(pieces: tuple[Piece, ...]) -> bool:
    begin = np.array([piece.start for piece in pieces])
    end = begin + np.array([piece.tensor.shape for piece in pieces])
    shared = np.logical_and(begin[:, None] < end, begin < end[:, None]).all(axis=2)
    return int(shared.sum()) > int(shared.diagonal().sum())
