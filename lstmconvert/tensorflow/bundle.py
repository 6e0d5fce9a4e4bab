"""Checkpoints of format V2, as TensorFlow writes them since 1.0: an index, and shards of data.

`prefix.index` is a table of entries, `prefix.data-00000-of-00001` the numbers. Shards of another
`-of-N` than the index has are leftovers of an earlier save, and are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lstmconvert import limits
from lstmconvert.dtypes import DType
from lstmconvert.errors import CorruptFile, NotAModel, SourceError
from lstmconvert.files import open_source
from lstmconvert.tensorflow import entries
from lstmconvert.tensorflow.crc32c import crc32c, unmask
from lstmconvert.tensorflow.entries import Entry, Header, check_bytes, shape_of, shard_name
from lstmconvert.tensorflow.objectgraph import ObjectGraph, parse_object_graph
from lstmconvert.tensorflow.partitioned import Partitioned, Piece, piece_bounds
from lstmconvert.tensorflow.strings import Strings
from lstmconvert.tensorflow.table import Table
from lstmconvert.tensorflow.wire import Parser
from lstmconvert.tensors import FileTensor, Shape, SourceFile, Tensor

#: The key of the graph of objects (tensorflow/python/checkpoint/checkpoint.py); TF1 has none.
OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

_HEADER_KEY = b""
#: The version of the format (tensor_bundle.cc, kTensorBundleVersion).
_VERSION = 1
#: No name begins with a zero byte: that is how the keys of slices begin.
_SLICE_PREFIX = b"\x00"
_CHUNK = limits.BUFFER_BYTES
#: Tensors are checked against their CRC while the index is read, until this many bytes were;
#: the others when the checkpoint is read as a whole.
_CHECK_NOW = 16 * limits.MIB


@dataclass(frozen=True, slots=True)
class Checked:
    """Bytes of a shard, and the masked CRC-32C that they must have."""

    key: str
    source: SourceFile
    offset: int
    size: int
    crc: int

    def check(self) -> None:
        """Raise `CorruptFile` if the bytes are not those that were saved."""
        crc, end = 0, self.offset + self.size
        for start in range(self.offset, end, _CHUNK):
            crc = crc32c(self.source.read_at(start, min(_CHUNK, end - start)), crc)
        if crc != unmask(self.crc):
            raise CorruptFile(
                "bad CRC-32C of a tensor",
                where=f"{self.source.path}: {self.key}",
                hint="the data is damaged, or of another save: copy or download it again",
            )


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checkpoint: every tensor under its key, in key order.

    Fields: `path` (what was asked for), `tensors`, `strings` (tensors of byte strings), `unread`
    (key -> TensorFlow's name of a type that is no plain number), `graph` (None in TF1 checkpoints),
    `sources` (what it consists of, open), `unchecked` (tensors whose CRC was not compared yet).
    """

    path: Path
    tensors: Mapping[str, Tensor]
    strings: Mapping[str, Strings] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    graph: ObjectGraph | None = None
    sources: tuple[SourceFile, ...] = ()
    unchecked: list[Checked] = field(default_factory=list)

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of `sources`."""
        return tuple(source.path for source in self.sources)

    def check_large(self) -> None:
        """Check the CRC of the tensors that were too large to check at once."""
        while self.unchecked:
            self.unchecked[-1].check()
            self.unchecked.pop()


def read_bundle(prefix: Path) -> Bundle:
    """Read the index of a checkpoint; its tensors are read when they are touched.

    Raises:
        SourceError: the index, or a shard it needs, is missing.
        CorruptFile: index, tensors or object graph contradict each other or their checks.
        LimitExceeded: something is larger than the limits allow.
    """
    index = open_source(entries.index_path(prefix))
    limits.PROTOBUF_BYTES.check(index.size, index.path, "the checkpoint index")
    reader = _Reader(prefix, index)
    for key, value in Table(index):
        reader.record(key, value)
    return reader.finish()


class _Reader:
    def __init__(self, prefix: Path, index: SourceFile) -> None:
        self.prefix, self.index = prefix, index
        self.parser = Parser(index.path)
        self.header: Header | None = None
        self.wholes: dict[str, Entry] = {}
        self.slices: dict[bytes, Entry] = {}
        self.shards: dict[int, SourceFile] = {}
        self.checks: list[Checked] = []

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
        return Bundle(
            path=self.prefix,
            tensors=tensors,
            strings=strings,
            unread=unread,
            graph=self._graph(strings),
            sources=(self.index, *(self.shards[i] for i in sorted(self.shards))),
            unchecked=self._checked(),
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
        self.checks.append(Checked(key, shard, entry.offset, entry.size, entry.crc))
        stored = dtype.newbyteorder(">") if self._is_big and dtype.itemsize > 1 else dtype
        return FileTensor(shard, entry.offset, shape, stored)

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
            raise CorruptFile("a tensor lies in no shard of the checkpoint", where=where)
        if entry.shard not in self.shards:
            path = self.prefix.with_name(shard_name(self.prefix.name, entry.shard, count))
            self.shards[entry.shard] = self._open_shard(path)
        shard = self.shards[entry.shard]
        if entry.offset + entry.size > shard.size:
            shard.read_at(entry.offset, entry.size)  # raises, and says what is missing
        return shard

    def _open_shard(self, path: Path) -> SourceFile:
        try:
            return open_source(path)
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
        for check in sorted(self.checks, key=lambda one: (one.source.path, one.offset, one.size)):
            path, end = last
            if check.source.path == path and check.offset < end and check.size:
                raise CorruptFile(
                    "two tensors lie on the same bytes",
                    where=f"{check.source.path}: {check.key}",
                )
            last = check.source.path, check.offset + check.size

    def _checked(self) -> list[Checked]:
        """Check the first tensors, and return those that are left for later."""
        done, later = 0, []
        for check in self.checks:
            done += check.size
            if done <= _CHECK_NOW:
                check.check()
            else:
                later.append(check)
        return later
