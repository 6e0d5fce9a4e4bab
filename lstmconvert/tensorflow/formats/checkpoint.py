"""TensorFlow's checkpoints of both formats: a prefix, one of its files, a directory, or a V1 file.

Format V2, written since TensorFlow 1.0: an index, and shards of data. `prefix.index` is a table of
entries, `prefix.data-00000-of-00001` the numbers. Shards of another `-of-N` than the index has are
leftovers of an earlier save, and are not looked at. The object graph is a tensor of one string.
Layout of string tensors (tensor_bundle.cc, WriteStringTensor): the lengths as varints, a masked CRC
of the lengths, the bytes. The CRCs run over the lengths as integers of four bytes (eight, if they
need them). A variable may have been saved in pieces, as `tf.fixed_size_partitioner` cuts it.
Formats: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/framework/types.proto,
tensor_shape.proto and tensor_slice.proto, tensorflow/core/lib/strings/ordered_code.cc

Format V1 was TensorFlow's own before 1.0: one table that holds the numbers too. The value of the
empty key lists the tensors; every other value is a slice of one, as a protocol buffer of its
numbers. They are held in memory: such files are a few megabytes.
Format: tensorflow/core/util/saved_tensor_slice.proto, tensorflow/core/framework/tensor.proto

The tables of both are LevelDB's sorted-string tables, in TensorFlow's `core/lib/io/table`. A file
is blocks, an index block of their places, and a footer of 48 bytes with the index's place. A block
is entries (length shared with the previous key, rest of the key, value), then offsets for binary
search, which a reader from front to back does not need; then one byte (compression) and a CRC.
Format: https://github.com/google/leveldb/blob/main/doc/table_format.md

The blocks of early tables are compressed with snappy:
https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile, NotAModel, SourceError
from lstmconvert.files.opening import open_part, open_source
from lstmconvert.files.wire import Parser, blob, fixed32, integer, message, messages, text, varint
from lstmconvert.tensorflow.formats.objectgraph import ObjectGraph, parse_object_graph
from lstmconvert.tensors.checksums import crc32c, unmask
from lstmconvert.tensors.dtypes import Array, DType, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, CheckedTensor, Shape, SourceFile, Tensor

# -- sorted tables -------------------------------------------------------------------------------


#: The last eight bytes of every table (tensorflow/core/lib/io/format.h, kTableMagicNumber).
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")

_FOOTER_BYTES = 48
_TRAILER = struct.Struct("<BI")
_UNCOMPRESSED, _SNAPPY = 0, 1


class Handle(NamedTuple):
    """The place of a block, without its trailer."""

    offset: int
    size: int


def is_table(source: SourceFile) -> bool:
    """Whether a file ends as a table does."""
    size = source.size
    return size >= _FOOTER_BYTES and source.read_at(size - len(MAGIC), len(MAGIC)) == MAGIC


class SortedTable:
    """A table's entries, in key order.

    Raises:
        NotAModel: the file does not end as a table does.
        CorruptFile: a block is outside the file or fails its check; keys out of order.
        LimitExceeded: its keys are longer than the limit, all together.
    """

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self._key_bytes = self._unpacked = 0
        if not is_table(source):
            raise NotAModel(
                "not a checkpoint index, or a truncated one",
                where=source.path,
                hint="copy or download it again",
            )
        footer = memoryview(source.read_at(source.size - _FOOTER_BYTES, _FOOTER_BYTES))
        _, at = self._handle(footer, 0)
        self._index, _ = self._handle(footer, at)

    def __iter__(self) -> Iterator[tuple[bytes, memoryview]]:
        previous: bytes | None = None
        for handle in self._blocks():
            for key, value in self._entries(self._read(handle)):
                if previous is not None and key <= previous:
                    raise self._damaged("its keys are out of order")
                previous = key
                yield key, value

    def _blocks(self) -> Iterator[Handle]:
        end = 0
        for _, value in self._entries(self._read(self._index)):
            handle, _ = self._handle(value, 0)
            if handle.offset < end:  # a block listed a million times would be read as often
                raise self._damaged("its blocks overlap")
            end = handle.offset + handle.size
            yield handle

    def _handle(self, data: memoryview, at: int) -> tuple[Handle, int]:
        offset, at = varint(data, at, self.source.path)
        size, at = varint(data, at, self.source.path)
        return Handle(offset, size), at

    def _read(self, handle: Handle) -> memoryview:
        offset, size = handle
        if offset + size + _TRAILER.size > self.source.size - _FOOTER_BYTES:
            raise self._damaged("a block is outside the file")
        stored = memoryview(self.source.read_at(offset, size + _TRAILER.size))
        kind, check = _TRAILER.unpack(stored[size:])
        if crc32c(stored[: size + 1]) != unmask(check):
            raise self._damaged("bad CRC-32C of a block")
        if kind == _UNCOMPRESSED:
            return stored[:size]
        if kind != _SNAPPY:
            raise self._damaged(f"compression {kind}, which TensorFlow does not have")
        block = decompress(stored[:size], self.source.path)
        self._unpacked += len(block)  # two hundred bytes may come of ten
        limits.SNAPPY_BYTES.check(self._unpacked, self.source.path, "the compressed blocks")
        return block

    def _entries(self, block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        path, at, key = self.source.path, 0, b""
        end = self._end_of_entries(block)
        while at < end:
            shared, at = varint(block, at, path)
            rest, at = varint(block, at, path)
            length, at = varint(block, at, path)
            if shared > len(key) or rest + length > end - at:
                raise self._damaged("an entry does not fit into its block")
            key = key[:shared] + bytes(block[at : at + rest])
            self._key_bytes += len(key)  # prefixes repeat: short entries can have long keys
            limits.PROTOBUF_BYTES.check(self._key_bytes, path, "the length of the keys")
            yield key, block[at + rest : at + rest + length]
            at += rest + length

    def _end_of_entries(self, block: memoryview) -> int:
        if len(block) < 4:
            raise self._damaged("a block is too short")
        restarts = int.from_bytes(block[-4:], "little")
        end = len(block) - 4 - 4 * restarts
        if end < 0:
            raise self._damaged("a block is too short")
        return end

    def _damaged(self, reason: str) -> CorruptFile:
        return CorruptFile(
            f"not a readable checkpoint index: {reason}",
            where=self.source.path,
            hint=DAMAGED,
        )


def decompress(data: memoryview, where: object) -> memoryview:
    """Return the bytes of one compressed block.

    Raises:
        CorruptFile: it refers behind its begin, or its length is not the one that it declares.
        LimitExceeded: it declares more than a message may have.
    """
    length, at = varint(data, 0, where)
    limits.SNAPPY_BYTES.check(length, where, "the compressed block")
    output = bytearray()
    while at < len(data):
        element = _copy if data[at] & 3 else _literal
        at = element(data, at, output, where)
        if len(output) > length:
            raise _damaged_block("it is longer than it declares", where)
    if len(output) != length:
        raise _damaged_block("it is shorter than it declares", where)
    return memoryview(output)


def _literal(data: memoryview, at: int, output: bytearray, where: object) -> int:
    size, at = data[at] >> 2, at + 1
    if size >= 60:  # 60 to 63: the length minus one follows, in one to four bytes
        extra = size - 59
        size, at = int.from_bytes(data[at : at + extra], "little"), at + extra
    if size + 1 > len(data) - at:
        raise _damaged_block("a literal is cut off", where)
    output += data[at : at + size + 1]
    return at + size + 1


def _copy(data: memoryview, at: int, output: bytearray, where: object) -> int:
    tag = data[at]
    extra = (0, 1, 2, 4)[tag & 3]
    if extra >= len(data) - at:
        raise _damaged_block("a copy is cut off", where)
    offset = int.from_bytes(data[at + 1 : at + 1 + extra], "little")
    if extra == 1:
        size, offset = 4 + (tag >> 2 & 7), offset | tag >> 5 << 8
    else:
        size = (tag >> 2) + 1
    if not 0 < offset <= len(output):
        raise _damaged_block("a copy refers to bytes before the block", where)
    start = len(output) - offset
    piece = output[start : start + size]
    output += (piece * (size // len(piece) + 1))[:size]  # a copy may overlap its own end
    return at + 1 + extra


def _damaged_block(reason: str, where: object) -> CorruptFile:
    return CorruptFile(f"not a valid snappy block: {reason}", where=where)


# -- the records of an index ---------------------------------------------------------------------


#: tensorflow.DataType -> NumPy name, of the types that are plain numbers.
DTYPES: dict[int, str] = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}
STRING = 7
#: What else may be in a checkpoint: serialised C++ objects, quantised and packed numbers.
OTHER_DTYPES: dict[int, str] = {
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    20: "resource",
    21: "variant",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
    33: "float4_e2m1fn",
}
BIG_ENDIAN = 1


@dataclass(frozen=True, slots=True)
class Version:
    """VersionDef: the oldest reader that understands the file."""

    min_consumer: int = integer(2)


@dataclass(frozen=True, slots=True)
class BundleHeader:
    """BundleHeaderProto, the value of the empty key."""

    num_shards: int = integer(1)
    endianness: int = integer(2)
    version: Version | None = message(3, Version)


@dataclass(frozen=True, slots=True)
class Dim:
    """One axis of a shape."""

    size: int = integer(1)


@dataclass(frozen=True, slots=True)
class ShapeProto:
    """TensorShapeProto."""

    dims: tuple[Dim, ...] = messages(2, Dim)
    unknown_rank: int = integer(3)


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of one axis; without a length, the whole axis."""

    start: int = integer(1)
    length: int | None = integer(2, default=None)


@dataclass(frozen=True, slots=True)
class Slice:
    """TensorSliceProto: which part of a partitioned variable; an extent for each axis."""

    extents: tuple[Extent, ...] = messages(1, Extent)


@dataclass(frozen=True, slots=True)
class Entry:
    """BundleEntryProto: where a tensor is; with slices, only what the whole is."""

    dtype: int = integer(1)
    shape: ShapeProto | None = message(2, ShapeProto)
    shard: int = integer(3)
    offset: int = integer(4)
    size: int = integer(5)
    crc: int = fixed32(6)
    slices: tuple[Slice, ...] = messages(7, Slice)


def shard_name(prefix: str, index: int, count: int) -> str:
    """Return a data file's name (tensorflow/core/util/tensor_bundle/naming.cc)."""
    return f"{prefix}.data-{index:05d}-of-{count:05d}"


def index_path(prefix: Path) -> Path:
    """Return the path of the index of a checkpoint."""
    return prefix.with_name(f"{prefix.name}.index")


def shape_of(proto: ShapeProto | None, where: object) -> Shape:
    """Return a stored tensor's shape.

    Raises:
        CorruptFile: an axis is unknown or negative.
        LimitExceeded: it has too many axes.
    """
    proto = proto or ShapeProto()
    shape = tuple(dim.size for dim in proto.dims)
    limits.RANK.check(len(shape), where, "the number of axes")
    if proto.unknown_rank or any(size < 0 for size in shape):
        raise CorruptFile("a stored tensor without a shape", where=where, found=shape)
    limits.TENSOR_BYTES.check(math.prod(max(1, size) for size in shape), where, "the shape")
    return shape


def dtype_named(number: int, where: object) -> DType | None:
    """Return the dtype of plain numbers, or None for other types.

    Raises:
        CorruptFile: TensorFlow does not have the type.
    """
    if number in DTYPES:
        return dtype_of(DTYPES[number])
    if number == STRING or number in OTHER_DTYPES:
        return None
    raise CorruptFile("an unknown TensorFlow type", where=where, found=number)


def check_bytes(shape: Shape, itemsize: int, size: int, where: object) -> None:
    """Refuse a tensor whose bytes are not as many as its shape says.

    Raises:
        CorruptFile: they are more or fewer.
        LimitExceeded: they are more than a tensor may have.
    """
    limits.TENSOR_BYTES.check(size, where, "the tensor")
    if math.prod(shape) * itemsize != size:
        raise CorruptFile(
            "a tensor's size does not agree with its shape",
            where=where,
            found=f"{size:,} bytes",
            expected=f"{math.prod(shape) * itemsize:,} for the shape {shape}",
        )


def slice_key(name: bytes, part: Slice) -> bytes:
    """Return the key of one slice (saved_tensor_slice_util.cc, EncodeTensorNameSlice).

    An ordered code: the number 0, the name, the number of axes, a start and a length for each.
    """
    escaped = name.replace(b"\x00", b"\x00\xff")  # 0xff is escaped too; UTF-8 does not have it
    key = _number(0) + escaped + b"\x00\x01" + _number(len(part.extents))
    for extent in part.extents:
        length = -1 if extent.length is None else extent.length
        key += _signed_number(extent.start) + _signed_number(length)
    return key


def _number(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def _signed_number(value: int) -> bytes:
    # Seven bits a byte; the leading bits count the bytes, inverted for a negative number.
    size = (~value if value < 0 else value).bit_length() // 7 + 1
    header = ((1 << size) - 1) << 7 * size
    return ((value & (1 << 8 * size) - 1) ^ header).to_bytes(size, "big")


# -- format V2 -----------------------------------------------------------------------------------


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
    index = open_part(index_path(prefix))
    limits.PROTOBUF_BYTES.check(index.size, index.path, "the checkpoint index")
    reader = _IndexReader(prefix, index)
    for key, value in SortedTable(index):
        reader.record(key, value)
    return reader.finish()


class _IndexReader:
    def __init__(self, prefix: Path, index: SourceFile) -> None:
        self.prefix, self.index = prefix, index
        self.parser = Parser(index.path)
        self.header: BundleHeader | None = None
        self.wholes: dict[str, Entry] = {}
        self.slices: dict[bytes, Entry] = {}
        self.shards: dict[int, SourceFile] = {}
        self.stored: list[tuple[str, CheckedTensor]] = []

    def record(self, key: bytes, value: memoryview) -> None:
        """Take one record of the index; the first is the header."""
        if self.header is None:
            if key != _HEADER_KEY:
                raise CorruptFile("the checkpoint index has no header", where=self.index.path)
            self.header = self.parser.parse(BundleHeader, value)
            self._check_header(self.header)
        elif key.startswith(_SLICE_PREFIX):
            self.slices[key] = self.parser.parse(Entry, value)
        else:
            self.wholes[self.parser.text(key)] = self.parser.parse(Entry, value)

    def _check_header(self, header: BundleHeader) -> None:
        path = self.index.path
        if header.num_shards < 1 or header.endianness not in (0, BIG_ENDIAN):
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
            dtype = dtype_named(entry.dtype, where)
            if dtype is not None:
                tensors[key] = self._tensor(key, entry, dtype, where)
            elif entry.dtype == STRING and not entry.slices:
                strings[key] = self._strings(entry, where)
            else:
                unread[key] = OTHER_DTYPES.get(entry.dtype, "string")
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
            stored = self.slices.get(slice_key(key.encode(), part))
            if stored is None or stored.slices:
                raise CorruptFile("a partition of a variable is missing", where=where)
            start, shape = piece_bounds(part, whole, where)
            dtype = dtype_named(stored.dtype, where)
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
        return self.header is not None and self.header.endianness == BIG_ENDIAN

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
            hint=DAMAGED,
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


# -- format V1, and paths ------------------------------------------------------------------------


#: The file of a directory that names its newest checkpoint, in protobuf's text format
#: (tensorflow/python/training/checkpoint_state.proto).
STATE_FILE = "checkpoint"

_STATE_BYTES = limits.MIB
_STATE = re.compile(rb'^model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_LAST = re.compile(r".*[/\\]", re.DOTALL)
_PLAIN = re.compile(r"(?!\.\.?$)[^/\\]{1,200}")
#: Ends of the names of a checkpoint's files, after its prefix.
_SUFFIX = re.compile(r"(.+)(\.index|\.meta|\.data-\d{5,}-of-\d{5,})")


def read_checkpoint(path: Path) -> Bundle:
    """Read a checkpoint of any format; its tensors are read when they are touched.

    Args:
        path: a prefix (`dir/ckpt-1`), its `.index`, `.meta` or data file, a directory with a
            `checkpoint` file or with one index, or a file of format V1.

    Raises:
        NotAModel: no checkpoint is there.
        CorruptFile, LimitExceeded: as `read_bundle`.
    """
    if path.is_dir():
        path = newest(path)
    elif path.name == STATE_FILE and path.is_file():
        path = newest(path.parent)
    match = _SUFFIX.fullmatch(path.name)
    if match is not None:
        path = path.with_name(match.group(1))
    if index_path(path).exists() or (match is not None and not path.exists()):
        return read_bundle(path)
    source = open_source(path)
    if is_table(source) and is_v1(source):
        return read_v1(path)
    raise NotAModel(
        "no TensorFlow checkpoint",
        where=path,
        expected="a prefix, an .index file, or a directory with a `checkpoint` file",
    )


def newest(directory: Path) -> Path:
    """Return the prefix of the checkpoint that a directory's `checkpoint` file names.

    Without that file, the directory must hold one index.

    Raises:
        NotAModel: it holds none, or several.
        CorruptFile: the file names no neighbour.
    """
    state = directory / STATE_FILE
    if state.is_file():
        return directory / _named(state)
    prefixes = sorted(path for path in directory.glob("*.index") if path.is_file())
    if len(prefixes) != 1:
        raise NotAModel(
            "a directory that holds no checkpoint" if not prefixes else "several checkpoints",
            where=directory,
            found=", ".join(path.name for path in prefixes[:5]) or None,
            hint="name the checkpoint itself, without its suffix .index" if prefixes else None,
        )
    return prefixes[0].with_suffix("")


def _named(state: Path) -> str:
    source = open_source(state)
    match = _STATE.search(source.read_at(0, min(source.size, _STATE_BYTES)))
    if match is None:
        raise NotAModel("it names no checkpoint", where=state)
    written = _ESCAPE.sub(_unescaped, match.group(1)).decode("utf-8", "surrogateescape")
    # TF1 writes the path that the directory had then. Its last part is looked for here; TensorFlow
    # would follow it, to anywhere on this machine.
    name = _LAST.sub("", written) if _ABSOLUTE.match(written) else written
    path = state.with_name(name) if _PLAIN.fullmatch(name) and name.isprintable() else None
    if path is None or not (index_path(path).is_file() or path.is_file()):
        raise CorruptFile(
            "the checkpoint that it names is not in its own directory",
            where=state,
            found=repr(written[:200]),
            expected="the name of a neighbour",
            hint="name the checkpoint itself: the path of its .index",
        )
    return name


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match.group(1)
    return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else code


_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})")


@dataclass(frozen=True, slots=True)
class _TensorMeta:
    name: str = text(1)
    shape: ShapeProto | None = message(2, ShapeProto)
    dtype: int = integer(3)
    slices: tuple[Slice, ...] = messages(4, Slice)


@dataclass(frozen=True, slots=True)
class _Meta:
    tensors: tuple[_TensorMeta, ...] = messages(1, _TensorMeta)


@dataclass(frozen=True, slots=True)
class _Values:
    """TensorProto: one of its lists, packed."""

    floats: bytes = blob(5)
    doubles: bytes = blob(6)
    ints: bytes = blob(7)
    complex_floats: bytes = blob(9)
    longs: bytes = blob(10)
    bools: bytes = blob(11)
    complex_doubles: bytes = blob(12)
    halves: bytes = blob(13)


@dataclass(frozen=True, slots=True)
class _Data:
    name: str = text(1)
    part: Slice | None = message(2, Slice)
    values: _Values | None = message(3, _Values)


@dataclass(frozen=True, slots=True)
class _Record:
    meta: _Meta | None = message(1, _Meta)
    data: _Data | None = message(2, _Data)


#: Where the numbers of a dtype are, if not among the integers (tensorflow/core/framework/types.h).
_LISTS: dict[str, str] = {
    "float32": "floats",
    "float64": "doubles",
    "complex64": "complex_floats",
    "complex128": "complex_doubles",
    "int64": "longs",
    "bool": "bools",
    "float16": "halves",
}
_FIXED = frozenset({"float32", "float64", "complex64", "complex128"})


def read_v1(path: Path) -> Bundle:
    """Read a checkpoint of format V1; given one shard, all of them.

    Raises:
        SourceError: a shard is missing.
        CorruptFile: the table or its records contradict themselves.
        LimitExceeded: something is larger than the limits allow.
    """
    sources = tuple(open_source(file) for file in _shards(path))
    metas: dict[str, _TensorMeta] = {}
    pieces: dict[str, list[_Data]] = {}
    for source in sources:
        _collect(source, metas, pieces)
    tensors: dict[str, Tensor] = {}
    unread: dict[str, str] = {}
    for name in sorted(metas):
        meta, where = metas[name], f"{path}: {name}"
        dtype = dtype_named(meta.dtype, where)
        if dtype is None:
            unread[name] = OTHER_DTYPES.get(meta.dtype, "string")
        else:
            tensors[name] = _tensor(meta, dtype, pieces.get(name, []), where)
    return Bundle(path=path, tensors=tensors, unread=unread, sources=sources)


def _shards(path: Path) -> tuple[Path, ...]:
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return (path,)
    name, count = match.group(1), int(match.group(2))
    limits.PARTITIONS.check(count, path, "the number of shards")
    return tuple(path.with_name(f"{name}-{i:05d}-of-{count:05d}") for i in range(count))


def _collect(
    source: SourceFile, metas: dict[str, _TensorMeta], pieces: dict[str, list[_Data]]
) -> None:
    limits.TENSOR_BYTES.check(source.size, source.path, "the checkpoint")
    parser = Parser(source.path)
    for key, value in SortedTable(source):
        record = parser.parse(_Record, value)
        if key == b"" and record.meta is not None:
            metas.update((meta.name, meta) for meta in record.meta.tensors)
        elif record.data is not None:
            pieces.setdefault(record.data.name, []).append(record.data)


def _tensor(meta: _TensorMeta, dtype: DType, parts: list[_Data], where: str) -> Tensor:
    shape = shape_of(meta.shape, where)
    if len(parts) == 1 and _is_whole(parts[0]):
        return ArrayTensor(_array(parts[0], shape, dtype, where))
    pieces = []
    for part in parts:
        start, piece = piece_bounds(part.part or Slice(), shape, where)
        pieces.append(Piece(start, ArrayTensor(_array(part, piece, dtype, where)), shape))
    return Partitioned(shape, dtype, tuple(pieces), where)


def _is_whole(data: _Data) -> bool:
    return data.part is None or all(extent.length is None for extent in data.part.extents)


def _array(data: _Data, shape: Shape, dtype: DType, where: str) -> Array:
    name = _LISTS.get(dtype.name, "ints")
    payload = getattr(data.values or _Values(), name)
    if dtype.name in _FIXED:
        check_bytes(shape, dtype.itemsize, len(payload), where)
        return np.frombuffer(payload, dtype).reshape(shape)
    numbers = _varints(payload, where)
    check_bytes(shape, 1, len(numbers), where)
    if dtype.name == "float16":
        return numbers.astype("<u2").view(dtype).reshape(shape)
    return numbers.astype(dtype).reshape(shape)


def _varints(payload: bytes, where: str) -> Array:
    """Return the integers of a packed list, `(count,)`, int64."""
    octets = np.frombuffer(payload, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if (ends[-1] + 1 if len(ends) else 0) != len(octets) or (lengths > 10).any():
        raise CorruptFile("a list of integers is cut off", where=where)
    result = np.zeros(len(ends), np.uint64)
    for index in range(int(lengths.max(initial=0))):
        more = lengths > index
        bits = (octets[starts[more] + index] & 0x7F).astype(np.uint64)
        result[more] |= bits << np.uint64(7 * index)
    return result.view(np.int64)


def is_v1(source: SourceFile) -> bool:
    """Whether a table's first record is that of a V1 checkpoint; in an index, it is a header."""
    for key, value in SortedTable(source):
        # Field 1 is an embedded message here, and a number (num_shards) in an index.
        return key == b"" and bytes(value[:1]) == b"\x0a"
    return False
