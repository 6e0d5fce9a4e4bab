"""The messages of an ONNX model that are written here, and their bytes.

Importing the onnx library takes longer than all else that a small conversion does, so what is
written is made here: a protocol buffer is its fields one after another
(https://protobuf.dev/programming-guides/encoding; field numbers and number types: onnx/onnx.proto).

`Graph` is one under construction: nodes, inputs, outputs, and weights that stay in their files.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.files.wire import encoded as varint
from lstmconvert.tensors.dtypes import Array, DType, dtype_of, little_endian
from lstmconvert.tensors.tensor import Tensor

# -- the messages --------------------------------------------------------------------------------


#: NumPy name -> number of the enumeration.
NUMBERS: dict[str, int] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "complex64": 14,
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e5m2": 19,
}
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}

#: Whole numbers of four bits, two in a byte, the lower half first, and what they are read as.
PACKED: dict[int, str] = {21: "uint8", 22: "int8"}

#: Opsets that can be asked for: LSTM-14 is the oldest whose batch-major neighbours (Squeeze and
#: Unsqueeze with axes as inputs, bfloat16 Concat) are all there.
OLDEST = 14
#: LSTM-22 differs from LSTM-14 in nothing but that it takes bfloat16.
BFLOAT16_SINCE = 22

#: Opset -> the version of the file format that came with it (onnx/helper.py, VERSION_TABLE).
_IR_VERSIONS = {14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
#: The newest of them.
TABLED = max(_IR_VERSIONS)


def ir_version(opset: int) -> int:
    """Return the oldest version of the file format that has an opset."""
    known = _IR_VERSIONS.get(opset)
    if known is not None:
        return known
    from onnx import helper

    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)], True))


def newest() -> int:
    """Return the newest opset that the installed onnx knows."""
    import onnx

    return onnx.defs.onnx_opset_version()


#: Operators that are not of ONNX's own domain -> theirs, and domain -> the opset that has them.
DOMAINS: dict[str, str] = {"LabelEncoder": "ai.onnx.ml"}
OPSETS: dict[str, int] = {"ai.onnx.ml": 2}
#: The number of texts, which no array here is of: inputs of a graph alone.
_TEXT = 8

#: One axis of a declared shape: a number, a name for a size that is known when the graph runs, or
#: None where nothing is known of it.
Axis = int | str | None

_VARINT, _LENGTH, _FIXED32 = 0, 2, 5
#: AttributeProto.AttributeType.
_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS, _STRINGS = range(1, 9)


class Node:
    """One node: operator, inputs, outputs, name, attributes."""

    __slots__ = ("attributes", "inputs", "name", "operator", "outputs")

    def __init__(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str,
        attributes: Mapping[str, object],
    ) -> None:
        self.operator, self.name, self.attributes = operator, name, dict(attributes)
        self.inputs, self.outputs = list(inputs), list(outputs)


class Declared(NamedTuple):
    """The name, dtype (NumPy's name of it) and axes of an input, an output or a value; of a value
    of unknown rank, the axes are None."""

    name: str
    dtype: str
    axes: Sequence[Axis] | None


class Body(NamedTuple):
    """A graph: of the model, or inside a Scan. `constants`: small initializers by name."""

    name: str
    nodes: Sequence[Node]
    inputs: Sequence[Declared]
    outputs: Sequence[Declared]
    constants: Mapping[str, Array] = {}
    values: Sequence[Declared] = ()


def integer(number: int, value: int) -> bytes:
    """Return a field that holds an integer."""
    return varint(number << 3 | _VARINT) + varint(value)


def head(number: int, length: int) -> bytes:
    """Return what comes before `length` bytes of a text, a message or raw data."""
    return varint(number << 3 | _LENGTH) + varint(length)


def framed(number: int, payload: bytes) -> bytes:
    """Return a field that holds bytes."""
    return head(number, len(payload)) + payload


def text(number: int, value: str) -> bytes:
    """Return a field that holds a text."""
    return framed(number, value.encode())


def _real(number: int, value: float) -> bytes:
    return varint(number << 3 | _FIXED32) + struct.pack("<f", value)


def tensor_head(name: str, shape: Sequence[int], dtype: str) -> bytes:
    """Return a TensorProto without its numbers."""
    dims = b"".join(integer(1, size) for size in shape)
    return dims + integer(2, NUMBERS[dtype]) + (text(8, name) if name else b"")


def tensor(name: str, array: Array) -> bytes:
    """Return a TensorProto."""
    raw = little_endian(array).tobytes()
    return tensor_head(name, array.shape, array.dtype.name) + framed(9, raw)


def external(entries: Mapping[str, object]) -> bytes:
    """Return what a TensorProto says of numbers that lie in another file."""
    return b"".join(
        framed(13, text(1, key) + text(2, str(value))) for key, value in entries.items()
    ) + integer(14, 1)


def attribute(name: str, value: object) -> bytes:
    """Return an AttributeProto.

    Raises:
        TypeError: there is no such attribute.
    """
    return text(1, name) + _valued(value)


def _valued(value: object) -> bytes:
    if isinstance(value, (bool, int)):
        return integer(3, value) + integer(20, _INT)
    if isinstance(value, float):
        return _real(2, value) + integer(20, _FLOAT)
    if isinstance(value, str):
        return text(4, value) + integer(20, _STRING)
    if isinstance(value, np.ndarray):
        return framed(5, tensor("", value)) + integer(20, _TENSOR)
    if isinstance(value, Body):
        return framed(6, graph(value)) + integer(20, _GRAPH)
    if isinstance(value, (list, tuple)):
        kinds = {type(item) for item in value}
        if kinds <= {int}:
            return b"".join(integer(8, item) for item in value) + integer(20, _INTS)
        if kinds <= {float}:
            return b"".join(_real(7, item) for item in value) + integer(20, _FLOATS)
        if kinds == {str}:
            return b"".join(text(9, item) for item in value) + integer(20, _STRINGS)
    raise TypeError(f"no attribute of ONNX: {value!r}")


def node(value: Node) -> bytes:
    """Return a NodeProto."""
    parts = [text(1, name) for name in value.inputs]
    parts += [text(2, name) for name in value.outputs]
    parts += [text(3, value.name), text(4, value.operator)]
    if value.operator in DOMAINS:
        parts.append(text(7, DOMAINS[value.operator]))
    parts += [framed(5, attribute(key, value.attributes[key])) for key in sorted(value.attributes)]
    return b"".join(parts)


def declared(value: Declared) -> bytes:
    """Return a ValueInfoProto."""
    shape = b""
    if value.axes is not None:
        shape = framed(2, b"".join(framed(1, _axis(axis)) for axis in value.axes))
    kind = integer(1, _TEXT if value.dtype == "string" else NUMBERS[value.dtype]) + shape
    return text(1, value.name) + framed(2, framed(1, kind))


def _axis(axis: Axis) -> bytes:
    if axis is None:
        return b""
    return text(2, axis) if isinstance(axis, str) else integer(1, axis)


def graph(value: Body) -> bytes:
    """Return a GraphProto."""
    parts = [framed(1, node(item)) for item in value.nodes]
    parts.append(text(2, value.name))
    parts += [framed(5, tensor(name, array)) for name, array in value.constants.items()]
    for number, items in ((11, value.inputs), (12, value.outputs), (13, value.values)):
        parts += [framed(number, declared(item)) for item in items]
    return b"".join(parts)


def model(
    ir_version: int, producer: tuple[str, str], opset: int, nodes: Sequence[Node] = ()
) -> bytes:
    """Return a ModelProto without its graph, which is appended to it; `nodes`: the graph's."""
    producer_name, version = producer
    used = {DOMAINS[item.operator] for item in nodes if item.operator in DOMAINS}
    versions = {"": opset, **{domain: OPSETS[domain] for domain in sorted(used)}}
    return (
        integer(1, ir_version)
        + text(2, producer_name)
        + text(3, version)
        + b"".join(framed(8, text(1, d) + integer(2, number)) for d, number in versions.items())
    )


def metadata(texts: Mapping[str, str]) -> bytes:
    """Return a ModelProto of nothing but metadata: appended to a model, it is part of it."""
    return b"".join(framed(14, text(1, key) + text(2, texts[key])) for key in sorted(texts))


# -- a graph under construction ------------------------------------------------------------------


Axes = Sequence[Axis]


class Style(NamedTuple):
    """What a user chooses of a graph.

    Fields: `fused`: W, R and B as initializers, not gates; `states`: initial states are inputs;
    `lengths`: the lengths of the sequences are an input.
    """

    fused: bool = False
    states: bool = False
    lengths: bool = False


class Graph:
    """Nodes in the order they run, and what they run on.

    Every value has the name of the node that makes it, so that both read alike in a viewer. Names
    with a dot belong to a layer (`lstm.W`); shared constants have none.

    Fields: `style`; `weights`: initializers by name, written streaming; `defaults`: small
    initializers that give inputs a default.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.nodes: list[Node] = []
        self.inputs: list[Declared] = []
        self.outputs: list[Declared] = []
        self.defaults: dict[str, Array] = {}
        self.weights: dict[str, Tensor] = {}
        self._made: set[str] = set()

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name, which is the node's."""
        return self.nodes_outputs(operator, inputs, name, (name,), **attributes)[0]

    def nodes_outputs(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        outputs: Sequence[str],
        **attributes: Any,
    ) -> Sequence[str]:
        """Add a node with several outputs, and return their names."""
        self.nodes.append(Node(operator, inputs, outputs, name, attributes))
        return outputs

    def input(self, name: str, dtype: str, axes: Axes, default: Array | None = None) -> str:
        """Declare an input; with a default, it need not be given."""
        self.inputs.append(Declared(name, dtype, axes))
        if default is not None:
            self.defaults[name] = default
        return name

    def output(self, name: str, dtype: str, axes: Axes) -> str:
        """Declare a value an output."""
        self.outputs.append(Declared(name, dtype, axes))
        return name

    def weight(self, name: str, tensor: Tensor) -> str:
        """Add an initializer."""
        self.weights[name] = tensor
        return name

    def integers(self, *values: int) -> str:
        """Return the name of a constant (n,) of int64, shared by all that need it."""
        name = "ints_" + "_".join(map(str, values))
        if name not in self._made:
            self._made.add(name)
            self.node("Constant", (), name, value_ints=list(values))
        return name

    def scalar(self, value: float, dtype: str) -> str:
        """Return the name of a constant () of a dtype, shared by all that need it."""
        name = f"{dtype}_{value:g}"
        if name not in self._made:
            self._made.add(name)
            self.node("Constant", (), name, value=np.asarray(value, dtype_of(dtype)))
        return name

    def zeros(self, count: int, dtype: DType, name: str, value: float = 0.0) -> str:
        """Return the name of a constant (count,), all of one value, that takes no space."""
        fill = np.asarray([value], dtype)
        return self.node("ConstantOfShape", [self.integers(count)], name, value=fill)

    def turned(self, matrix: str, name: str, dtype: DType, *, new_axis: bool = False) -> str:
        """Return a matrix with its axes the other way round, and a new first axis if asked for.

        Args:
            matrix: its name.
            name: the result's.
            dtype: of its numbers.
            new_axis: whether the result is (1, columns, rows).
        """
        del dtype
        if not new_axis:
            return self.node("Transpose", [matrix], name, perm=(1, 0))
        turned = self.node("Transpose", [matrix], f"{matrix}_turned", perm=(1, 0))
        return self.node("Unsqueeze", [turned, self.integers(0)], name)

    def prune(self) -> None:
        """Take out the nodes that no output needs, and the outputs of LSTM nodes that none does."""
        needed = {value.name for value in self.outputs}
        kept = []
        for node in reversed(self.nodes):
            if needed.isdisjoint(node.outputs):
                continue
            if node.operator == "LSTM":
                node.outputs = [name if name in needed else "" for name in node.outputs]
                while not node.outputs[-1]:
                    node.outputs.pop()
            needed.update(node.inputs)
            kept.append(node)
        self.nodes = kept[::-1]

    def body(self) -> Body:
        """Return the graph without its weights."""
        return Body("lstmconvert", self.nodes, self.inputs, self.outputs, self.defaults)
