"""Opening a model file without its weights: they stay in the file until they are touched.

The file is walked as a protocol buffer (field numbers: onnx/onnx.proto); tensors' `raw_data` is
left out and replaced by the place where it lies, and what remains, a few kilobytes as a rule, is
parsed by the onnx library. Nothing outside the file is opened before a tensor that lies there is
asked for.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import onnx
from google.protobuf.message import DecodeError

from lstmconvert import files, limits
from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.neighbours import Neighbours
from lstmconvert.onnx import external, protofile, values
from lstmconvert.tensors import SourceFile, Tensor

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_WINDOW = 64 * limits.KIB
#: Messages up to this size are taken as they are.
_SMALL = 1024
#: Graphs up to this size are parsed uncounted: two bytes can make a message of two hundred.
_UNCOUNTED = limits.MIB // 2

_RAW_DATA, _EXTERNAL_DATA = 9, 13
#: Message -> field number -> the message that the field holds.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Entry", 25: "Function", 14: "Entry"},
    "Graph": {1: "Node", 5: "Tensor", 11: "Value", 12: "Value", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Function": {7: "Node", 11: "Attribute", 9: "Entry"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Value": {2: "Type"},
    "Type": {1: "Array", 8: "Array", 4: "Element", 9: "Element", 5: "Map"},
    "Array": {2: "Shape"},
    "Shape": {1: "Entry"},
    "Element": {1: "Type"},
    "Map": {2: "Type"},
    "Tensor": {_EXTERNAL_DATA: "Entry"},
    "Entry": {},
}
#: What no reader of weights needs: training graphs, declared types of inner values.
_LEFT_OUT = {"Model": frozenset({20}), "Graph": frozenset({13, 14})}


@dataclass(slots=True)
class Skeleton:
    """A parsed model whose large tensors are still in the file.

    Fields: `proto`, the parsed model; `source`, the file; `mark`: the key, different each time and
    unknown to any file, under which a tensor says where its numbers lie in it.
    """

    proto: onnx.ModelProto
    source: SourceFile
    mark: str
    _neighbours: Neighbours = field(init=False)

    def __post_init__(self) -> None:
        self._neighbours = Neighbours(self.source.path)

    def tensor(self, proto: onnx.TensorProto) -> Tensor:
        """Return a tensor of the file, lazily, its sizes checked.

        Raises:
            CorruptFile: its numbers are not where or what they should be.
            LimitExceeded: it is too large.
        """
        where = f"{self.source.path}: {proto.name}"
        entries = [(entry.key, entry.value) for entry in proto.external_data]
        if len(entries) == 1 and entries[0][0] == self.mark:
            offset, length = map(int, entries[0][1].split())
            return values.raw(proto, self.source, offset, length, where)
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            place = external.place(self._neighbours, entries, where)
            return values.raw(proto, *place, where)
        return values.inline(proto, where)

    @property
    def stored(self) -> int:
        """The bytes of the file, and of the data files beside it that are open."""
        return self.source.size + self._neighbours.size

    def digest(self) -> str:
        """Return the SHA-256 of the file, or with data files beside it over all of them."""
        beside = self._neighbours.paths
        if not beside:
            return files.digest_of_file(self.source)
        opened = [self.source, *self._neighbours.files]
        return files.digest_of_files(
            self.source.path.parent, [self.source.path, *beside], opened
        )

    def check(self) -> None:
        """Raise `CorruptFile` if a file was written to since it was opened."""
        self.source.check_unchanged()
        self._neighbours.check()


def read(source: SourceFile) -> Skeleton:
    """Parse a model file.

    Raises:
        CorruptFile: it is no protocol buffer, or no model.
        NotAModel: it is one in ONNX's text format, or something else.
        LimitExceeded: its graph is too large or nested too deeply.
    """
    mark = secrets.token_hex(16)
    data = _Stripper(source, mark).message("Model", 0, source.size, 0)
    limits.PROTOBUF_BYTES.check(len(data), source.path, "the graph")
    if len(data) > _UNCOUNTED:
        _count(data, source)
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise _corrupt(source, str(error)[:120]) from None
    if proto.ir_version <= 0 or not proto.HasField("graph"):
        raise NotAModel(
            "not an ONNX model",
            where=source.path,
            found="no ir_version" if proto.HasField("graph") else "no graph",
        )
    return Skeleton(proto, source, mark)


def _count(data: bytes, source: SourceFile) -> None:
    counter = _Counter(source)
    counter.walk("Model", memoryview(data))


class _Stripper:
    """Copies messages of a file, but for their raw data."""

    def __init__(self, source: SourceFile, mark: str) -> None:
        self._source, self._mark = source, mark
        self._window, self._start = b"", 0
        self._total = self._messages = 0
        self._most = limits.ONNX_NODES.value

    def message(self, kind: str, start: int, end: int, depth: int) -> bytes:
        """Return one message, bytes `start` to `end` of the file, without raw data."""
        limits.ONNX_DEPTH.check(depth, self._source.path, "the nesting of graphs")
        if end - start <= _SMALL:
            return self._copied(start, end)
        fields, left_out = _FIELDS[kind], _LEFT_OUT.get(kind, frozenset())
        pieces: list[bytes] = []
        raw: tuple[int, int] | None = None
        at = run = start  # from `run` on, the bytes are copied as they are
        while at < end:
            here = at
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire != _LENGTH:
                at = self._skip(wire, at, end)
                continue
            length, first = self._varint(at, end)
            at = self._within(first + length, end)
            is_raw = kind == "Tensor" and number == _RAW_DATA
            inner = fields.get(number)
            if inner is not None:
                self._seen()
            is_small = inner is None or length <= _SMALL
            if is_small and not is_raw and number not in left_out:
                continue
            pieces.append(self._copied(run, here))
            run = at
            if is_raw and raw is not None:
                raise _corrupt(self._source, "a tensor with raw_data twice")
            if is_raw:
                raw = (first, length)
            elif inner is not None and number not in left_out:
                pieces.append(_framed(number, self.message(inner, first, at, depth + 1)))
        pieces.append(self._copied(run, end))
        if raw is not None:
            pieces.append(_framed(_EXTERNAL_DATA, self._pointer(*raw)))
        return b"".join(pieces)

    def _seen(self) -> None:
        self._messages += 1
        if self._messages > self._most:
            _too_many(self._messages, self._source)
        if self._messages & 0xFFF == 0:
            limits.check_density(self._messages, self._source.size, self._source.path)

    def _pointer(self, offset: int, length: int) -> bytes:
        entry = onnx.StringStringEntryProto(key=self._mark, value=f"{offset} {length}")
        data: bytes = entry.SerializeToString()
        return data

    def _copied(self, start: int, end: int) -> bytes:
        self._total += end - start
        limits.PROTOBUF_BYTES.check(self._total, self._source.path, "the graph")
        if self._start <= start and end <= self._start + len(self._window):
            return self._window[start - self._start : end - self._start]
        if end - start > _WINDOW:
            return bytes(self._source.read_at(start, end - start))
        self._load(start)
        return self._window[: end - start]

    def _load(self, start: int) -> None:
        length = min(_WINDOW, self._source.size - start)
        self._window, self._start = bytes(self._source.read_at(start, length)), start

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        if not self._start <= at <= self._start + len(self._window) - 10:
            self._load(at)
        byte = self._window[at - self._start] if at < end else 0x80
        if byte < 0x80:
            return byte, at + 1
        value, position = _varint(self._window, at - self._start, self._source)
        return value, self._within(position + self._start, end)

    def _skip(self, wire: int, at: int, end: int) -> int:
        if wire == _VARINT:
            return self._varint(at, end)[1]
        if wire not in _WIDTHS:
            raise _corrupt(self._source, f"the wire type {wire}")
        return self._within(at + _WIDTHS[wire], end)

    def _within(self, at: int, end: int) -> int:
        if at > end:
            raise _corrupt(self._source, "a field is longer than its message")
        return at


class _Counter:
    """Counts the messages of a graph before they are made."""

    def __init__(self, source: SourceFile) -> None:
        self._source, self._count = source, 0
        self._most = limits.ONNX_NODES.value

    def walk(self, kind: str, view: memoryview) -> None:
        fields, at = _FIELDS[kind], 0
        while at < len(view):
            tag, at = view[at], at + 1
            if tag >= 0x80:
                tag, at = _varint(view, at - 1, self._source)
            wire = tag & 7
            if wire == _VARINT:
                _, at = _varint(view, at, self._source)
            elif wire in _WIDTHS:
                at += _WIDTHS[wire]
            elif wire == _LENGTH:
                length, at = _varint(view, at, self._source)
                if tag >> 3 in fields:
                    self._count += 1
                    if self._count > self._most:
                        _too_many(self._count, self._source)
                    if self._count & 0xFFF == 0:
                        limits.check_density(self._count, self._source.size, self._source.path)
                    if length > 1:
                        self.walk(fields[tag >> 3], view[at : at + length])
                at += length
            else:
                raise _corrupt(self._source, f"the wire type {wire}")


def _too_many(count: int, source: SourceFile) -> None:
    limits.ONNX_NODES.check(count, source.path, "the number of the graph's parts")


def _varint(data: bytes | memoryview, at: int, source: SourceFile) -> tuple[int, int]:
    value = shift = 0
    for index in range(at, min(at + 10, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise _corrupt(source, "a variable-length integer is cut off or too long")


def _framed(number: int, payload: bytes) -> bytes:
    return protofile.varint(number << 3 | _LENGTH) + protofile.varint(len(payload)) + payload


def _corrupt(source: SourceFile, message: str) -> CorruptFile:
    return CorruptFile(
        f"not a valid ONNX file: {message}",
        where=source.path,
        hint="the file is truncated or damaged: copy or download it again",
    )
