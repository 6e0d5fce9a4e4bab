"""Opening a model file without its weights: they stay in the file until they are touched.

The file is walked as a protocol buffer (field numbers: onnx/onnx.proto); tensors' `raw_data` is
left out and replaced by the place where it lies, and what remains, a few kilobytes as a rule, is
parsed by the onnx library. Nothing outside the file is opened before a tensor that lies there is
asked for.

From a TensorProto to a tensor, everything is checked before an array is made:
`onnx.numpy_helper.to_array` accepts a dimension of -1, and ignores the field that it does not use;
neither passes here. At the end the graphs of a model, one in another, are taken apart: what each
name means in each of them.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile, LimitExceeded, NotAModel
from lstmconvert.files import opening
from lstmconvert.files.neighbours import Neighbours
from lstmconvert.files.wire import FIXED, LENGTH, VARINT, varint
from lstmconvert.onnx import messages
from lstmconvert.onnx.messages import NAMES, PACKED
from lstmconvert.pergate.checksums import Described
from lstmconvert.tensors.dtypes import Array, DType, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

#: Typed field -> the types that it holds: as themselves, or as bits of narrower ones (onnx.proto).
_NUMBER_FIELDS: dict[str, frozenset[str]] = {
    "float_data": frozenset({"float32", "complex64"}),
    "int32_data": frozenset(
        {
            *("int32", "int16", "int8", "uint16", "uint8", "bool"),
            *("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        }
    ),
    "int64_data": frozenset({"int64"}),
    "double_data": frozenset({"float64"}),
    "uint64_data": frozenset({"uint32", "uint64"}),
}
#: The elements of the typed fields on the wire.
_WIDE = {
    "float_data": "<f4",
    "int32_data": "<i8",
    "int64_data": "<i8",
    "double_data": "<f8",
    "uint64_data": "<u8",
}
#: Types whose numbers stand in `int32_data` as their bits.
_BITS = frozenset({"float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"})
_VALUES = (*_NUMBER_FIELDS, "raw_data", "string_data")


def is_known(proto: onnx.TensorProto) -> bool:
    """Whether a tensor's type is one of numbers that NumPy can have."""
    return proto.data_type in NAMES or proto.data_type in PACKED


def shape_of(proto: onnx.TensorProto, where: str) -> Shape:
    """Return a tensor's shape.

    Raises:
        CorruptFile: a dimension is negative, or it is a segment of another tensor.
        LimitExceeded: it has too many axes, or is too large.
    """
    shape = tuple(proto.dims)
    limits.RANK.check(len(shape), where, "the number of a tensor's axes")
    if any(size < 0 for size in shape):
        raise CorruptFile("a negative dimension", where=where, found=str(shape))
    if proto.HasField("segment"):
        raise CorruptFile("a tensor in segments, which no one writes", where=where)
    limits.TENSOR_BYTES.check(
        math.prod(shape) * dtype_of(_name(proto, where)).itemsize, where, "the tensor"
    )
    return shape


def raw(
    proto: onnx.TensorProto, source: SourceFile, offset: int, length: int, where: str
) -> Tensor:
    """Return a tensor whose numbers lie in a file.

    Raises:
        CorruptFile: the numbers are more or fewer than its shape says, or there are others too.
    """
    shape, dtype = shape_of(proto, where), dtype_of(_name(proto, where))
    _check_one_field([*_present(proto), "raw_data"], where)
    if proto.data_type in PACKED:
        _check_count(-(-math.prod(shape) // 2), length, "bytes", where)
        return ArrayTensor(_unpacked(bytes(source.read_at(offset, length)), shape, dtype))
    _check_count(math.prod(shape) * dtype.itemsize, length, "bytes", where)
    return FileTensor(source, offset, shape, dtype)


def inline(proto: onnx.TensorProto, where: str) -> Tensor:
    """Return a tensor whose numbers are in the message.

    Raises:
        CorruptFile: there is not exactly one field of numbers, of the right type and count.
    """
    shape, name = shape_of(proto, where), _name(proto, where)
    present = _present(proto)
    count = math.prod(shape)
    if not present and count == 0:
        return ArrayTensor(np.empty(shape, dtype_of(name)))
    _check_one_field(present, where)
    if proto.data_type in PACKED:
        return ArrayTensor(_packed_inline(proto, present[0], shape, where))
    if present == ["raw_data"]:
        _check_count(count * dtype_of(name).itemsize, len(proto.raw_data), "bytes", where)
        array = np.frombuffer(proto.raw_data, dtype_of(name))
        return ArrayTensor(array.reshape(shape))
    if name not in _NUMBER_FIELDS.get(present[0], ()):
        raise CorruptFile("numbers in the wrong field", where=where, found=present[0])
    numbers = np.asarray(getattr(proto, present[0]), _WIDE[present[0]])
    _check_count(count * (2 if name == "complex64" else 1), len(numbers), "numbers", where)
    return ArrayTensor(_narrowed(numbers, name, where).reshape(shape))


def _packed_inline(proto: onnx.TensorProto, field: str, shape: Shape, where: str) -> Array:
    if field == "raw_data":
        data = bytes(proto.raw_data)
    elif field == "int32_data" and all(0 <= byte < 256 for byte in proto.int32_data):
        data = bytes(proto.int32_data)
    else:
        raise CorruptFile("numbers in the wrong field", where=where, found=field)
    _check_count(-(-math.prod(shape) // 2), len(data), "bytes", where)
    return _unpacked(data, shape, dtype_of(_name(proto, where)))


def _unpacked(data: bytes, shape: Shape, dtype: DType) -> Array:
    pairs = np.frombuffer(data, np.uint8)
    halves = np.stack([pairs & 0xF, pairs >> 4], axis=-1).reshape(-1)[: math.prod(shape)]
    if dtype.kind == "i":  # the sign of four bits, spread over eight
        halves = ((halves ^ 8).astype(np.int8) - 8).astype(np.int8)
    return halves.astype(dtype).reshape(shape)


def _narrowed(numbers: Array, name: str, where: str) -> Array:
    dtype = dtype_of(name)
    if name == "complex64":
        return numbers.view(dtype)
    if name in _BITS:
        stored = numbers.astype(f"<u{dtype.itemsize}")
        result = stored.view(dtype)
    else:
        stored = result = numbers.astype(dtype)
    if not np.array_equal(stored, numbers, equal_nan=dtype.kind == "f"):
        raise CorruptFile("numbers that its type does not have", where=where)
    return result


def _present(proto: onnx.TensorProto) -> list[str]:
    return [name for name in _VALUES if len(getattr(proto, name))]


def _check_one_field(present: Sequence[str], where: str) -> None:
    if len(present) != 1 or present[0] == "string_data":
        raise CorruptFile(
            "a tensor must have its numbers in exactly one field",
            where=where,
            found=" and ".join(present) or "none",
        )


def _check_count(wanted: int, stored: int, what: str, where: str) -> None:
    if wanted != stored:
        raise CorruptFile(
            "a tensor has more or fewer numbers than its shape says",
            where=where,
            found=f"{stored:,} {what}",
            expected=f"{wanted:,}",
        )


def _name(proto: onnx.TensorProto, where: str) -> str:
    name = NAMES.get(proto.data_type) or PACKED.get(proto.data_type)
    if name is None:
        raise CorruptFile(
            "a tensor of a type that is not read here", where=where, found=proto.data_type
        )
    return name


# ---- the file ------------------------------------------------------------------------------------

_WINDOW = 64 * limits.KIB
#: Messages up to this size are taken as they are.
_SMALL = 1024
#: Graphs up to this size are parsed uncounted: two bytes can make a message of two hundred.
_UNCOUNTED = limits.MIB // 2

_RAW_DATA, _EXTERNAL_DATA = 9, 13
#: The keys of onnx.proto's `external_data`; what else a writer put there is not read.
_LOCATION, _OFFSET, _LENGTH = "location", "offset", "length"
_DIGITS = 19
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
#: Fields that no reader of weights needs: training graphs, declared types of inner values.
_LEFT_OUT = {"Model": frozenset({20}), "Graph": frozenset({13, 14})}


@dataclass(slots=True)
class Skeleton:
    """A parsed model whose large tensors are still in the file.

    Fields: `proto`, the parsed model; `source`, the file; `mark`: the key, different each time and
    unknown to any file, under which a tensor says where its numbers lie in it;
    `described`: our metadata, where they hold checksums of the tensors.
    """

    proto: onnx.ModelProto
    source: SourceFile
    mark: str
    described: Described | None = None
    _neighbours: Neighbours = field(init=False)

    def __post_init__(self) -> None:
        self._neighbours = Neighbours(self.source.path)

    def tensor(self, proto: onnx.TensorProto) -> Tensor:
        """Return a tensor of the file, lazily, its sizes checked.

        Raises:
            CorruptFile: its numbers are not where or what they should be.
            LimitExceeded: it is too large.
        """
        tensor = self._tensor(proto)
        if self.described is None:
            return tensor
        return self.described.with_checksum(tensor, proto.name)

    def _tensor(self, proto: onnx.TensorProto) -> Tensor:
        where = f"{self.source.path}: {proto.name}"
        entries = [(entry.key, entry.value) for entry in proto.external_data]
        if len(entries) == 1 and entries[0][0] == self.mark:
            offset, length = map(int, entries[0][1].split())
            return raw(proto, self.source, offset, length, where)
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            place = _place(self._neighbours, entries, where)
            return raw(proto, *place, where)
        return inline(proto, where)

    @property
    def stored(self) -> int:
        """The bytes of the file, and of the data files beside it that are open."""
        return self.source.size + self._neighbours.size

    def digest(self) -> str:
        """Return the SHA-256 of the file, or with data files beside it over all of them."""
        data_files = self._neighbours.paths
        if not data_files:
            return opening.digest_of_file(self.source)
        opened = [self.source, *self._neighbours.files]
        return opening.digest_of_files(
            self.source.path.parent, [self.source.path, *data_files], opened
        )

    def check(self) -> None:
        """Raise `CorruptFile` if a file was written to since it was opened."""
        self.source.check_unchanged()
        self._neighbours.check()


def read(source: SourceFile) -> Skeleton:
    """Parse a model file.

    Raises:
        CorruptFile: it is not a protocol buffer, or no model.
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
    """Count the messages of a graph before they are made."""
    fields = _Fields(source, data)

    def walk(kind: str, start: int, end: int) -> None:
        inside = _FIELDS[kind]
        for number, _, first, after in fields.of(start, end):
            if number in inside:
                fields.count()
                if after - first > 1:
                    walk(inside[number], first, after)

    walk("Model", 0, len(data))


class _Fields:
    """The fields of messages, of a file through a window, or of bytes.

    Args:
        source: the file.
        data: what is read in its place, if anything is.
    """

    def __init__(self, source: SourceFile, data: bytes = b"") -> None:
        self._source, self._is_file = source, not data
        self._window, self._start = data, 0
        self._messages, self._most = 0, limits.ONNX_NODES.value

    def of(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, start, start of the payload and end of each field of a message that has a
        length; others are stepped over.

        Raises:
            CorruptFile: it is not a message.
        """
        at = start
        while at < end:
            here = at
            tag, at = self._varint(at, end)
            wire = tag & 7
            if wire == LENGTH:
                length, first = self._varint(at, end)
                at = self._within(first + length, end)
                yield tag >> 3, here, first, at
            elif wire == VARINT:
                _, at = self._varint(at, end)
            elif wire in FIXED:
                at = self._within(at + FIXED[wire], end)
            else:
                raise _corrupt(self._source, f"the wire type {wire}")

    def count(self) -> None:
        """Count one more message.

        Raises:
            LimitExceeded: there are too many of them, or too many for so long a file.
        """
        self._messages += 1
        if self._messages > self._most:
            limits.ONNX_NODES.check(
                self._messages, self._source.path, "the number of the graph's parts"
            )
        if self._messages & 0xFFF == 0:
            limits.check_density(self._messages, self._source.size, self._source.path)

    def copied(self, start: int, end: int) -> bytes:
        """Return bytes of the file."""
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
        if self._is_file and not self._start <= at <= self._start + len(self._window) - 10:
            self._load(at)
        byte = self._window[at - self._start] if at < end else 0x80
        if byte < 0x80:
            return byte, at + 1
        value, position = varint(self._window, at - self._start, self._source.path)
        return value, self._within(position + self._start, end)

    def _within(self, at: int, end: int) -> int:
        if at > end:
            raise _corrupt(self._source, "a field is longer than its message")
        return at


class _Stripper:
    """Copies messages of a file, without their raw data."""

    def __init__(self, source: SourceFile, mark: str) -> None:
        self._source, self._mark, self._fields = source, mark, _Fields(source)
        self._total = 0

    def message(self, kind: str, start: int, end: int, depth: int) -> bytes:
        """Return one message, bytes `start` to `end` of the file, without raw data."""
        limits.ONNX_DEPTH.check(depth, self._source.path, "the nesting of graphs")
        if end - start <= _SMALL:
            return self._copied(start, end)
        messages_inside, left_out = _FIELDS[kind], _LEFT_OUT.get(kind, frozenset())
        pieces: list[bytes] = []
        raw: tuple[int, int] | None = None
        run = start  # from here on, the bytes are copied as they are
        for number, here, first, after in self._fields.of(start, end):
            is_raw = kind == "Tensor" and number == _RAW_DATA
            inner = messages_inside.get(number)
            if inner is not None:
                self._fields.count()
            is_small = inner is None or after - first <= _SMALL
            if is_small and not is_raw and number not in left_out:
                continue
            pieces.append(self._copied(run, here))
            run = after
            if is_raw and raw is not None:
                raise _corrupt(self._source, "a tensor with raw_data twice")
            if is_raw:
                raw = (first, after - first)
            elif inner is not None and number not in left_out:
                piece = self.message(inner, first, after, depth + 1)
                pieces.append(messages.framed(number, piece))
        pieces.append(self._copied(run, end))
        if raw is not None:
            pieces.append(messages.framed(_EXTERNAL_DATA, self._pointer(*raw)))
        return b"".join(pieces)

    def _pointer(self, offset: int, length: int) -> bytes:
        entry = onnx.StringStringEntryProto(key=self._mark, value=f"{offset} {length}")
        data: bytes = entry.SerializeToString()
        return data

    def _copied(self, start: int, end: int) -> bytes:
        self._total += end - start
        limits.PROTOBUF_BYTES.check(self._total, self._source.path, "the graph")
        return self._fields.copied(start, end)


def _corrupt(source: SourceFile, message: str) -> CorruptFile:
    return CorruptFile(
        f"not a valid ONNX file: {message}",
        where=source.path,
        hint=DAMAGED,
    )


# ---- data files beside the model: see `neighbours` for where they may lie ------------------------


def _place(
    neighbours: Neighbours, entries: Sequence[tuple[str, str]], where: str
) -> tuple[SourceFile, int, int]:
    """Return the file, offset and length that a tensor's entries name.

    Raises:
        CorruptFile: the entries are not those of a tensor, or lead out of the folder.
        SourceError: there is no such file, or it cannot be opened.
    """
    texts = dict(entries)
    if len(texts) != len(entries) or _LOCATION not in texts:
        raise CorruptFile("external data without one location", where=where)
    source = neighbours.file(texts[_LOCATION], where)
    offset = _number(texts.get(_OFFSET, "0"), where)
    length = _number(texts[_LENGTH], where) if _LENGTH in texts else source.size - offset
    if offset + length > source.size or length < 0:
        raise CorruptFile(
            "external data behind the end of its file",
            where=where,
            found=f"{offset:,} + {length:,}",
            expected=f"at most {source.size:,}",
        )
    return source, offset, length


def _number(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise CorruptFile("external data at no valid place", where=where, found=text[:40])
    return int(text)


# ---- graphs --------------------------------------------------------------------------------------

#: The default domain of operators has two spellings.
DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(eq=False, slots=True)
class GraphScope:
    """One graph: its initializers, the nodes that make its values, its inputs, by name.

    `outputs`: the names of its outputs, in order; `owner`: the operator that the graph is inside
    of, empty for the outermost; `inner`: the graphs inside each of its nodes, by the node's `id`;
    `shapes`: of the inputs that state one, None for an axis that may vary; `sparse`: the names of
    initializers that list only what is not zero; they are not graphs_of.
    """

    outer: GraphScope | None
    owner: str = ""
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    inputs: set[str] = field(default_factory=set)
    outputs: list[str] = field(default_factory=list)
    inner: dict[int, list[GraphScope]] = field(default_factory=dict)
    shapes: dict[str, list[int | None]] = field(default_factory=dict)
    sparse: set[str] = field(default_factory=set)

    def holder(self, name: str) -> GraphScope | None:
        """Return the graph, this one or one around it, that a name belongs to."""
        scope: GraphScope | None = self
        while scope is not None:
            if name in scope.initializers or name in scope.producers:
                return scope
            if name in scope.inputs or name in scope.sparse:
                return scope
            scope = scope.outer
        return None


@dataclass(slots=True)
class Graphs:
    """All graphs of a model.

    Fields: `scopes`, the outermost first; `nodes`: every node with its graph; `uses`: value name
    -> the nodes that take it; `homes`: the graph of each node, by `id`; `outputs`: the names of
    values that leave their graph; `opsets`: domain -> version.
    """

    scopes: list[GraphScope] = field(default_factory=list)
    nodes: list[tuple[GraphScope, onnx.NodeProto]] = field(default_factory=list)
    uses: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    homes: dict[int, GraphScope] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    opsets: dict[str, int] = field(default_factory=dict)

    def is_used(self, name: str) -> bool:
        """Whether a value goes anywhere."""
        return bool(name) and (name in self.uses or name in self.outputs)


def graphs_of(skeleton: Skeleton) -> Graphs:
    """Take a model's graphs apart; functions of its own are put in where they are called.

    Raises:
        CorruptFile: a function calls itself, or is not there.
        LimitExceeded: with its functions put in, the graph has too many nodes.
    """
    model = skeleton.proto
    versions = [entry.domain for entry in model.opset_import]
    properties = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    if not all(type(text) is str for text in (*versions, *properties)):
        raise CorruptFile("a text that is not UTF-8", where=skeleton.source.path)
    if model.functions:
        model = _inlined(skeleton)
    graphs = Graphs(
        opsets={
            "" if entry.domain in DEFAULT_DOMAINS else entry.domain: entry.version
            for entry in model.opset_import
        }
    )
    _walk(model.graph, None, graphs, skeleton)
    return graphs


def _walk(
    graph: onnx.GraphProto,
    outer: GraphScope | None,
    graphs: Graphs,
    skeleton: Skeleton,
    owner: str = "",
) -> GraphScope:
    scope = GraphScope(outer, owner)
    graphs.scopes.append(scope)
    _check_names(graph, skeleton)
    scope.inputs.update(value.name for value in graph.input)
    scope.shapes.update(_shapes(graph.input))
    scope.sparse.update(proto.values.name for proto in graph.sparse_initializer)
    for proto in graph.initializer:
        if proto.name in scope.initializers:
            raise CorruptFile(
                "two initializers of one name", where=f"{skeleton.source.path}: {proto.name}"
            )
        scope.initializers[proto.name] = proto
    scope.outputs = [value.name for value in graph.output]
    graphs.outputs.update(scope.outputs)
    for node in graph.node:
        graphs.nodes.append((scope, node))
        graphs.homes[id(node)] = scope
        scope.producers.update((name, node) for name in node.output if name)
        for name in node.input:
            graphs.uses.setdefault(name, []).append(node)
        for inner in _inner(node):
            inside = _walk(inner, scope, graphs, skeleton, node.op_type[:40])
            scope.inner.setdefault(id(node), []).append(inside)
    return scope


def _shapes(values: Iterable[onnx.ValueInfoProto]) -> Iterator[tuple[str, list[int | None]]]:
    for value in values:
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and kind.HasField("shape"):
            yield (
                value.name,
                [axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim],
            )


def _check_names(graph: onnx.GraphProto, skeleton: Skeleton) -> None:
    """Refuse texts that are not UTF-8: protobuf hands them out as bytes."""
    texts: list[str] = [value.name for value in (*graph.input, *graph.output)]
    for proto in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        texts.append(proto.name)
        texts += (text for entry in proto.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        texts += (*node.input, *node.output, node.name, node.op_type, node.domain)
        texts += (attribute.name for attribute in node.attribute)
        texts += (text for entry in node.metadata_props for text in (entry.key, entry.value))
    if not all(type(text) is str for text in texts):
        raise CorruptFile("a name that is not UTF-8", where=skeleton.source.path)


def _inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _inlined(skeleton: Skeleton) -> onnx.ModelProto:
    from onnx import inliner

    _check_calls(skeleton)
    try:
        return inliner.inline_local_functions(skeleton.proto)
    except Exception as error:  # the library's own are untyped
        raise CorruptFile(
            f"a model whose functions do not fit: {str(error)[:120]}", where=skeleton.source.path
        ) from None


def _check_calls(skeleton: Skeleton) -> None:
    """Count the nodes that there will be, before there are."""
    model = skeleton.proto
    bodies = {(f.domain, f.name, f.overload): list(f.node) for f in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(nodes: list[onnx.NodeProto], path: tuple[object, ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += 1
            if key in bodies:
                if key in path:
                    raise CorruptFile(
                        "a function that calls itself",
                        where=skeleton.source.path,
                        found=node.op_type,
                    )
                if key not in sizes:
                    sizes[key] = size(bodies[key], (*path, key))
                total += sizes[key]
            for inner in _inner(node):
                total += size(list(inner.node), path)
        return total

    try:
        count = size(list(model.graph.node), ())
    except RecursionError:
        raise LimitExceeded("functions in functions", where=skeleton.source.path) from None
    limits.ONNX_NODES.check(count, skeleton.source.path, "the number of nodes")


def attributes(node: onnx.NodeProto) -> Mapping[str, onnx.AttributeProto]:
    """Return a node's attributes by name."""
    return {attribute.name: attribute for attribute in node.attribute}
