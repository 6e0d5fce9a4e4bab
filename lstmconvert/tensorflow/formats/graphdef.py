"""TensorFlow's graphs, as data: nodes, the functions that loops run, and a few of their attributes.

    MetaGraphDef    the file `prefix.meta` beside a checkpoint of TensorFlow 1
    GraphDef        node 1, library 2; as a file, a frozen graph: weights are constants
    NodeDef         name 1, op 2, input 3 (`node`, `node:1`, `node:output:1`, `^control`), attr 5

Formats: tensorflow/core/protobuf/meta_graph.proto, core/framework/graph.proto, node_def.proto,
attr_value.proto, tensor.proto, function.proto, op_def.proto. A graph is a program: no part of it is
run.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.wire import (
    LENGTH,
    Buffer,
    MessageSpan,
    Parser,
    blob,
    blobs,
    encoded,
    fixed32,
    integer,
    message,
    messages,
    text,
    texts,
    varint,
)
from lstmconvert.tensorflow.formats.checkpoint import DTYPES, STRING, ShapeProto
from lstmconvert.tensors.dtypes import DType, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, SourceFile, Tensor
from lstmconvert.tensors.views import Filled

#: Field numbers: MetaGraphDef.graph_def, GraphDef.node and .library.
_GRAPH_DEF, _NODE, _LIBRARY = 2, 1, 2
#: FunctionDefLibrary.function, FunctionDef.node_def.
_FUNCTION, _FUNCTION_NODE = 1, 3
#: FunctionDef.signature, NodeDef.name.
_SIGNATURE, _NAME_FIELD = 1, 1
#: NodeDef.attr, the key and value of an attribute, AttrValue.tensor, TensorProto.tensor_content.
_ATTRIBUTE, _KEY, _VALUE, _TENSOR, _CONTENT = 5, 1, 2, 8, 4
#: Messages up to this size are read whole; of a larger one, the content stays in the file.
_SMALL = 4096
#: The names of operations (tensorflow/core/framework/node_def_util.cc, `ValidateOpType`).
_OPERATION = re.compile(rb"[A-Z][A-Za-z0-9_>]*")
_NAME = re.compile(rb"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
#: How deeply loops may be nested.
_NESTING = 16
#: The scope of operations that `tf.gradients` adds, which train a model and are not part of it.
_GRADIENTS = re.compile(r"gradients(_\d+)?")


@dataclass(frozen=True, slots=True)
class TensorProto:
    """A constant: its type, its shape, and its numbers, as bytes or as a packed list."""

    dtype: int = integer(1)
    shape: ShapeProto | None = message(2, ShapeProto)
    content: bytes = blob(4)
    floats: bytes = blob(5)
    doubles: bytes = blob(6)
    integers: bytes = blob(7)
    strings: tuple[bytes, ...] = blobs(8)
    longs: bytes = blob(10)
    flags: bytes = blob(11)
    halves: bytes = blob(13)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Its shape; empty for one number."""
        return tuple(dim.size for dim in self.shape.dims) if self.shape is not None else ()


@dataclass(frozen=True, slots=True)
class FunctionName:
    """NameAttrList: the function that a loop runs."""

    name: str = text(1)


@dataclass(frozen=True, slots=True)
class ListValue:
    """AttrValue.ListValue: integers, as a packed list."""

    integers: bytes = blob(3)


@dataclass(frozen=True, slots=True)
class AttrValue:
    """A value of an attribute: a text, an integer, a float (its bits), a flag, a constant, a
    function, or a list of integers."""

    content: bytes = blob(2)
    number: int = integer(3)
    bits: int = fixed32(4)
    flag: int = integer(5)
    shape: ShapeProto | None = message(7, ShapeProto)
    listed: ListValue | None = message(1, ListValue)
    tensor: TensorProto | None = message(8, TensorProto)
    function: FunctionName | None = message(10, FunctionName)


@dataclass(frozen=True, slots=True)
class _Attribute:
    name: str = text(1)
    value: AttrValue | None = message(2, AttrValue)


@dataclass(frozen=True, slots=True)
class _Attributes:
    listed: tuple[_Attribute, ...] = messages(5, _Attribute)


@dataclass(frozen=True, slots=True)
class _Node:
    name: str = text(1)
    op: str = text(2)
    inputs: tuple[str, ...] = texts(3)


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str = text(1)


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str = text(1)
    arguments: tuple[_Argument, ...] = messages(2, _Argument)
    results: tuple[_Argument, ...] = messages(3, _Argument)


@dataclass(frozen=True, slots=True)
class _Result:
    name: str = text(1)
    tensor: str = text(2)


@dataclass(frozen=True, slots=True)
class _Function:
    signature: _Signature | None = message(1, _Signature)
    results: tuple[_Result, ...] = messages(4, _Result)


class _Library(NamedTuple):
    """The functions of a graph: the arguments and the results of each."""

    arguments: dict[str, tuple[str, ...]]
    results: dict[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True)
class GraphOperation:
    """One operation.

    Fields: `graph`: the name of the function that it is in, or empty; `name`; `op`; `inputs`:
    `(name, output)` of the tensors that it takes, without those it only waits for; `attributes`;
    `content`: where the bytes of a large constant are in the file.
    """

    graph: str
    name: str
    op: str
    inputs: tuple[tuple[str, int], ...]
    attributes: Mapping[str, AttrValue] = field(default_factory=dict)
    content: MessageSpan | None = None

    def number(self, attribute: str, default: float) -> float:
        """Return an attribute that is a float."""
        value = self.attributes.get(attribute)
        if value is None:
            return default
        return float(struct.unpack("<f", struct.pack("<I", value.bits))[0])

    @property
    def scalar(self) -> float | None:
        """The value of a constant of one number; None of any other node."""
        value = self.attributes.get("value")
        tensor = value.tensor if value is not None and self.op == "Const" else None
        if tensor is None or (tensor.shape is not None and tensor.shape.dims):
            return None
        name = DTYPES.get(tensor.dtype, "")
        data = tensor.content or tensor.floats or tensor.doubles
        if "float" not in name or len(data) != dtype_of(name).itemsize:
            return None
        return float(np.frombuffer(data, dtype_of(name))[0])


@dataclass(frozen=True)
class GraphDef:
    """A graph and its functions.

    Fields: `nodes`: (function or empty, name) -> node; `arguments`: function -> the names of its
    arguments; `results`: function -> the tensors that it returns.
    """

    nodes: Mapping[tuple[str, str], GraphOperation]
    arguments: Mapping[str, tuple[str, ...]]
    results: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)

    @property
    def forward(self) -> GraphDef:
        """The graph without what only trains it."""
        nodes = {
            key: node
            for key, node in self.nodes.items()
            if not any(_GRADIENTS.fullmatch(part) for part in node.name.split("/"))
        }
        return GraphDef(nodes, self.arguments, self.results)

    @cached_property
    def callers(self) -> Mapping[str, GraphOperation]:
        """Function -> the loop that runs it."""
        loops: dict[str, GraphOperation] = {}
        for node in self.nodes.values():
            body = node.attributes.get("body")
            if body is not None and body.function is not None:
                loops.setdefault(body.function.name, node)
        return loops

    @cached_property
    def consumers(self) -> Mapping[tuple[str, str, int], list[GraphOperation]]:
        """(function or empty, name, output) -> the nodes that take that tensor."""
        takers: dict[tuple[str, str, int], list[GraphOperation]] = {}
        for node in self.nodes.values():
            for name, output in node.inputs:
                takers.setdefault((node.graph, name, output), []).append(node)
        return takers

    def source(self, node: GraphOperation, index: int) -> GraphOperation | None:
        """Return the node that makes an input of a node; of a loop's body, that outside which makes
        its argument. None where there is none."""
        if index >= len(node.inputs):
            return None
        graph, (name, _) = node.graph, node.inputs[index]
        for _ in range(_NESTING):
            source = self.nodes.get((graph, name))
            arguments = self.arguments.get(graph, ())
            if source is not None or name not in arguments or graph not in self.callers:
                return source
            caller, at = self.callers[graph], arguments.index(name)
            if at >= len(caller.inputs):
                return None
            graph, (name, _) = caller.graph, caller.inputs[at]
        return None


def read_meta_graph(whole: MessageSpan) -> GraphDef:
    """Read the graph of a MetaGraphDef: a `.meta` file, or one in a SavedModel.

    Raises:
        CorruptFile: it is not a MetaGraphDef.
        LimitExceeded: it has too many nodes.
    """
    parser = Parser(whole.source.path)
    nodes: dict[tuple[str, str], GraphOperation] = {}
    library = _Library({}, {})
    for span in whole.find(_GRAPH_DEF):
        for number, payload in parser.embedded(span.read(), _NODE, _LIBRARY):
            if number == _NODE:
                node = _node(parser, "", payload)
                nodes["", node.name] = node
            else:
                for node in _functions(parser, payload, library):
                    nodes[node.graph, node.name] = node
    return GraphDef(nodes, library.arguments, library.results)


def read_graph(source: SourceFile) -> GraphDef:
    """Read a GraphDef, a file or the part of a MetaGraphDef. Large constants stay in the file.

    Raises:
        CorruptFile: it is not a GraphDef.
        LimitExceeded: it has too many nodes.
    """
    parser, whole = Parser(source.path), _place_of_graph(source)
    if whole is None:
        raise CorruptFile("not a graph of TensorFlow", where=source.path)
    nodes: dict[tuple[str, str], GraphOperation] = {}
    library = _Library({}, {})
    for number, span in whole.embedded():
        if number == _NODE:
            node = _node_in_file(parser, span)
            if ("", node.name) in nodes:
                raise CorruptFile("two nodes of one name", where=source.path, found=node.name)
            nodes["", node.name] = node
        elif number == _LIBRARY:
            for node in _functions(parser, span.read(), library):
                nodes[node.graph, node.name] = node
    return GraphDef(nodes, library.arguments, library.results)


def is_graph(source: SourceFile) -> bool:
    """Whether a file is a GraphDef; a `.meta` file, whether it is a MetaGraphDef."""
    try:
        return _place_of_graph(source) is not None
    except CorruptFile:
        return False


def _place_of_graph(source: SourceFile) -> MessageSpan | None:
    """Return where the GraphDef of a file is.

    Raises:
        CorruptFile: the file is a `.meta` and is cut off.
    """
    whole = MessageSpan(source, 0, source.size)
    if _begins_as_graph(whole):
        return whole
    graphs = whole.find(_GRAPH_DEF) if source.path.suffix == ".meta" else iter(())
    return next((span for span in graphs if _begins_as_graph(span)), None)


def _begins_as_graph(span: MessageSpan) -> bool:
    """Whether a message begins as a GraphDef: with a node that has a name and an operation."""
    where = span.source.path
    head = span.source.peek(span.offset, min(_SMALL, span.size))
    if head[:1] != bytes((_NODE << 3 | LENGTH,)):
        return False
    try:
        length, at = varint(head, 1, where)
        end = at + length
        for tag, pattern in ((1 << 3 | LENGTH, _NAME), (2 << 3 | LENGTH, _OPERATION)):
            if head[at : at + 1] != bytes((tag,)):
                return False
            length, at = varint(head, at + 1, where)
            if pattern.fullmatch(head[at : at + length]) is None:
                return False
            at += length
    except CorruptFile:
        return False
    return at <= end <= span.size


def function(
    meta_graph: MessageSpan, name: str
) -> tuple[dict[str, GraphOperation], tuple[str, ...]]:
    """Return the nodes of one function of a MetaGraphDef by name, and its arguments; none if it is
    not there. Raises as `read_meta_graph`."""
    parser = Parser(meta_graph.source.path)
    for graph in meta_graph.find(_GRAPH_DEF):
        for listed in graph.find(_LIBRARY):
            for span in listed.find(_FUNCTION):
                heads = [parser.parse(_Signature, head.read()) for head in span.find(_SIGNATURE)]
                if not heads or heads[0].name != name:
                    continue
                payload = span.read()
                below = parser.embedded(payload, _FUNCTION_NODE)
                nodes = [_node(parser, name, item) for _, item in below]
                return {n.name: n for n in nodes}, tuple(a.name for a in heads[0].arguments)
    return {}, ()


def top_node(meta_graph: MessageSpan, name: str) -> GraphOperation | None:
    """Return one node of a MetaGraphDef that is in no function, with its attributes."""
    parser = Parser(meta_graph.source.path)
    for graph in meta_graph.find(_GRAPH_DEF):
        for span in graph.find(_NODE):
            heads = [parser.text(head.read()) for head in span.find(_NAME_FIELD)]
            if heads == [name]:
                return _node(parser, "", span.read())
    return None


def strings(node: GraphOperation, where: object) -> tuple[bytes, ...] | None:
    """Return the texts of a constant of texts; None of any other node.

    Raises:
        CorruptFile: it has another number of them than its shape.
    """
    value = node.attributes.get("value")
    proto = value.tensor if value is not None and node.op == "Const" else None
    if proto is None or proto.dtype != STRING:
        return None
    if math.prod(proto.sizes) != len(proto.strings):
        raise CorruptFile("a constant's texts do not fit its shape", where=where,
                          found=len(proto.strings), expected=proto.sizes)
    return proto.strings


def constant(node: GraphOperation, where: object) -> Tensor | None:
    """Return the value of a constant, lazily where it is large; None of types that are not numbers.

    Numbers that are fewer than the shape has go on with the last one
    (tensorflow/python/framework/tensor_util.py, `MakeNdarray`).

    Raises:
        CorruptFile: its numbers do not fit its shape.
    """
    value = node.attributes.get("value")
    proto = value.tensor if value is not None and node.op == "Const" else None
    if proto is None or proto.dtype not in DTYPES:
        return None
    dtype, shape = dtype_of(DTYPES[proto.dtype]), proto.sizes
    if any(size < 0 for size in shape) or (proto.shape is not None and proto.shape.unknown_rank):
        raise CorruptFile("a constant of no shape", where=f"{where}: {node.name}", found=shape)
    count = math.prod(shape)
    stored = node.content.size if node.content is not None else len(proto.content)
    if stored:
        if stored != count * dtype.itemsize:
            raise CorruptFile(
                "a constant's numbers do not fit its shape",
                where=f"{where}: {node.name}",
                found=f"{stored:,} bytes",
                expected=f"{count * dtype.itemsize:,}, for {shape} of {dtype}",
            )
        if node.content is not None:
            return FileTensor(node.content.source, node.content.offset, shape, dtype)
        return ArrayTensor(np.frombuffer(proto.content, dtype).reshape(shape))
    numbers = _numbers(proto, dtype, where)
    if len(numbers) > count:
        raise CorruptFile(
            "a constant has more numbers than its shape",
            where=f"{where}: {node.name}",
            found=len(numbers),
            expected=count,
        )
    if len(numbers) <= 1 and count > 1:
        return Filled(shape, dtype, numbers[0] if len(numbers) else dtype.type(0))
    array = np.zeros(count, dtype)
    array[: len(numbers)] = numbers
    if 0 < len(numbers) < count:
        array[len(numbers) :] = numbers[-1]
    return ArrayTensor(array.reshape(shape))


def _numbers(proto: TensorProto, dtype: DType, where: object) -> np.ndarray[Any, Any]:
    """Return the numbers that a constant lists one by one."""
    if proto.floats or proto.doubles:
        kind, data = ("<f4", proto.floats) if proto.floats else ("<f8", proto.doubles)
        if len(data) % int(kind[-1]):
            raise CorruptFile("a packed list is cut off", where=where)
        return np.frombuffer(data, kind).astype(dtype)
    packed = proto.integers or proto.longs or proto.flags or proto.halves
    values, at = [], 0
    while at < len(packed):
        value, at = varint(packed, at, where)
        values.append(value)
    unsigned = np.array(values, np.uint64)
    if proto.halves:  # the bits of each
        return unsigned.astype(np.uint16).view(dtype if dtype.itemsize == 2 else np.uint16)
    return unsigned.view(np.int64).astype(dtype)


def _functions(
    parser: Parser, listed: Buffer, library: _Library
) -> Iterator[GraphOperation]:
    """Yield the nodes of a library's functions; add their arguments and results to `library`."""
    for _, payload in parser.embedded(listed, _FUNCTION):
        function = parser.parse(_Function, payload)
        signature = function.signature or _Signature()
        library.arguments[signature.name] = tuple(item.name for item in signature.arguments)
        tensors = {item.name: _tensor(item.tensor) for item in function.results}
        library.results[signature.name] = tuple(
            tensors.get(item.name, ("", 0)) for item in signature.results
        )
        for _, below in parser.embedded(payload, _FUNCTION_NODE):
            yield _node(parser, signature.name, below)


def _node(parser: Parser, graph: str, payload: Buffer) -> GraphOperation:
    plain = parser.parse(_Node, payload)
    listed = parser.parse(_Attributes, payload).listed
    attributes = {item.name: item.value for item in listed if item.value is not None}
    return GraphOperation(graph, plain.name, plain.op, _inputs(plain), attributes)


def _inputs(plain: _Node) -> tuple[tuple[str, int], ...]:
    return tuple(_tensor(text) for text in plain.inputs if not text.startswith("^"))


def _node_in_file(parser: Parser, span: MessageSpan) -> GraphOperation:
    if span.size <= _SMALL:
        return _node(parser, "", span.read())
    plain = parser.parse(_Node, b"".join(_small_fields(span, _ATTRIBUTE)))
    attributes: dict[str, AttrValue] = {}
    content: MessageSpan | None = None
    for item in span.find(_ATTRIBUTE):
        if item.size > _SMALL:
            key, value, content = _large(parser, item, content)
        else:
            small = parser.parse(_Attribute, item.read())
            key, value = small.name, small.value
        if value is not None:
            attributes[key] = value
    return GraphOperation("", plain.name, plain.op, _inputs(plain), attributes, content)


def _large(
    parser: Parser, item: MessageSpan, content: MessageSpan | None
) -> tuple[str, AttrValue | None, MessageSpan | None]:
    """Read a large attribute: its key, its value, and where the bytes of a constant are."""
    key = next((parser.text(span.read()) for span in item.find(_KEY)), "")
    for value in item.find(_VALUE):
        tensors = list(value.find(_TENSOR)) if key == "value" else []
        if not tensors:
            return key, parser.parse(AttrValue, value.read()), content
        places = list(tensors[0].find(_CONTENT))
        if places and places[0].size > _SMALL // 2:
            proto = parser.parse(TensorProto, b"".join(_small_fields(tensors[0], _CONTENT)))
            return key, AttrValue(tensor=proto), places[0]
        return key, parser.parse(AttrValue, value.read()), content
    return key, None, content


def _small_fields(span: MessageSpan, left_out: int) -> Iterator[bytes]:
    """Yield the bytes of a message without the fields of one number."""
    at = span.offset
    for field_span in span.find(left_out):
        start = field_span.offset - _head_size(left_out, field_span.size)
        yield bytes(MessageSpan(span.source, at, start - at).read())
        at = field_span.offset + field_span.size
    yield bytes(MessageSpan(span.source, at, span.offset + span.size - at).read())


def _head_size(number: int, length: int) -> int:
    return len(encoded(number << 3 | LENGTH)) + len(encoded(length))


def _tensor(text: str) -> tuple[str, int]:
    """Read the name of a tensor: `node`, `node:1`, and in functions `node:output:1`."""
    name, _, rest = text.partition(":")
    output = rest.rpartition(":")[2]
    return name, int(output) if output.isdecimal() and len(output) < 9 else 0
