"""From a path to a checkpoint: a prefix, one of its files, a directory, or a V1 file.

Format V1 was TensorFlow's own before 1.0: one table that holds the numbers too. The value of the
empty key lists the tensors; every other value is a slice of one, as a protocol buffer of its
numbers. They are held in memory: such files are a few megabytes.
Format: tensorflow/core/util/saved_tensor_slice.proto, tensorflow/core/framework/tensor.proto
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files.opening import open_source
from lstmconvert.files.wire import Parser, blob, integer, message, messages, text
from lstmconvert.tensorflow.formats import entries
from lstmconvert.tensorflow.formats.bundle import (
    Bundle,
    Partitioned,
    Piece,
    piece_bounds,
    read_bundle,
)
from lstmconvert.tensorflow.formats.entries import (
    ShapeProto,
    Slice,
    check_bytes,
    index_path,
    shape_of,
)
from lstmconvert.tensorflow.formats.table import Table, is_table
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import ArrayTensor, Shape, SourceFile, Tensor

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
    here = state.with_name(name) if _PLAIN.fullmatch(name) and name.isprintable() else None
    if here is None or not (index_path(here).is_file() or here.is_file()):
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
        dtype = entries.dtype_named(meta.dtype, where)
        if dtype is None:
            unread[name] = entries.OTHER_DTYPES.get(meta.dtype, "string")
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
    for key, value in Table(source):
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
    for key, value in Table(source):
        # Field 1 is an embedded message here, and a number (num_shards) in an index.
        return key == b"" and bytes(value[:1]) == b"\x0a"
    return False
