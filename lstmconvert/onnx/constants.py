"""Values that a graph computes from constants alone: exporters hide weights behind such nodes.

An initializer stays in its file. What lies behind Concat, Slice, Transpose, Cast, DequantizeLinear
and the like is computed node by node by the onnx library's own reference evaluator, once the size
of the result is known to be harmless. No node with a graph inside it, no random one and none of a
foreign domain is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import load_op

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.onnx.messages import NAMES, NUMBERS
from lstmconvert.onnx.skeleton import DEFAULT_DOMAINS, Graphs, GraphScope, Skeleton, attributes
from lstmconvert.tensors.dtypes import Array, DType, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Shape, Tensor

#: The operators that are computed: arrangement, number types, and the arithmetic of scales and
#: norms. Nothing whose work is more than its inputs and outputs are long.
_OPERATORS = frozenset(
    {
        *("Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear"),
        *("Expand", "Flatten", "Gather", "Identity", "Pad", "Range", "Reshape", "Shape"),
        *("Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
        *("GatherElements", "GatherND", "QuantizeLinear", "ReverseSequence", "ScatterElements"),
        *("ScatterND", "Add", "Div", "Mul", "Neg", "Sub", "Abs", "Clip", "Exp", "Max", "Min"),
        *("Pow", "Reciprocal", "Round", "Sqrt", "Sum", "ReduceL1", "ReduceL2", "ReduceMax"),
        *("ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Einsum"),
    }
)
#: Operators whose result is as large as their input, and of its dtype.
_SAME_SIZE = frozenset({"Abs", "Exp", "Identity", "Neg", "Reciprocal", "Round", "Sqrt"})
#: Inputs up to this many bytes are shown to shape inference: axes, sizes, scales.
_SHOWN = 4096
#: Operators of which the evaluator has only later versions, and these mean the same.
_EVALUATED_FROM = {"DequantizeLinear": 19}
_SCALARS = {"value_float": "float32", "value_int": "int64"}
_VECTORS = {"value_floats": "float32", "value_ints": "int64"}


class NotConstantError(Exception):
    """A value that depends on what a graph is given: `args` are its name and why."""


class Constants:
    """The constants of one model.

    Args:
        skeleton: the model.
        graphs: its graphs.
    """

    def __init__(self, skeleton: Skeleton, graphs: Graphs) -> None:
        self._skeleton, self._graphs = skeleton, graphs
        self._known: dict[tuple[int, str], Tensor] = {}
        self._made = 0
        #: Names of the initializers that have been asked for, by graph.
        self.asked: set[tuple[int, str]] = set()

    def tensor(self, scope: GraphScope, name: str) -> Tensor:
        """Return the value that a name has in a graph.

        Raises:
            NotConstantError: it depends on an input of the graph, or is made by a node that is not
                run here.
            CorruptFile: the file contradicts itself.
            LimitExceeded: the value is far larger than the file.
        """
        waiting = [(scope, name)]
        open_: set[tuple[int, str]] = set()
        while waiting:
            place = self._place(*waiting[-1])
            key = (id(place[0]), place[1])
            if key in self._known:
                open_.discard(key)
                waiting.pop()
                continue
            needed = [item for item in self._needs(*place) if self._missing(*item)]
            if not needed:
                self._known[key] = self._value(*place)
                continue
            if key in open_:
                raise CorruptFile("a value that is made from itself", where=self._where(name))
            open_.add(key)
            waiting += needed
        holder, inner = self._place(scope, name)
        return self._known[id(holder), inner]

    def leaves(self, scope: GraphScope, name: str) -> frozenset[tuple[int, str]]:
        """Return the initializers that a constant is made of."""
        waiting, seen = [self._place(scope, name)], set[tuple[int, str]]()
        result = set()
        while waiting:
            place = waiting.pop()
            key = (id(place[0]), place[1])
            if key not in seen:
                seen.add(key)
                needed = [self._place(*item) for item in self._needs(*place)]
                waiting += needed
                if place[1] in place[0].initializers:
                    result.add(key)
        return frozenset(result)

    def _missing(self, scope: GraphScope, name: str) -> bool:
        holder, inner = self._place(scope, name)
        return (id(holder), inner) not in self._known

    def _where(self, name: str) -> str:
        return f"{self._skeleton.source.path}: {name}"

    def _place(self, scope: GraphScope, name: str) -> tuple[GraphScope, str]:
        """Return where a value is made, behind nodes that hand it on as it is."""
        for _ in range(len(self._graphs.nodes) + 1):
            holder = scope.holder(name)
            if holder is None:
                raise CorruptFile("a name that nothing has", where=self._where(name))
            node = holder.producers.get(name)
            if name in holder.initializers or node is None or node.op_type != "Identity":
                return holder, name
            if len(node.input) != 1:
                raise CorruptFile("an Identity without its input", where=self._where(name))
            scope, name = holder, node.input[0]
        raise CorruptFile("a value that is made from itself", where=self._where(name))

    def _needs(self, scope: GraphScope, name: str) -> list[tuple[GraphScope, str]]:
        if name in scope.initializers:
            return []
        node = scope.producers.get(name)
        if node is None:
            kind = "a sparse initializer" if name in scope.sparse else "an input of the graph"
            raise NotConstantError(name, kind)
        if node.op_type not in _OPERATORS or node.domain not in DEFAULT_DOMAINS:
            raise NotConstantError(name, f"made by {node.op_type[:40]}")
        if node.op_type == "Einsum" and not _keeps_axes(node):
            raise NotConstantError(name, "made by an Einsum that sums")
        return [(scope, item) for item in node.input if item]

    def _value(self, scope: GraphScope, name: str) -> Tensor:
        proto = scope.initializers.get(name)
        if proto is not None:
            self.asked.add((id(scope), name))
            return self._skeleton.tensor(proto)
        node = scope.producers[name]
        if node.op_type == "Constant":
            return self._constant(node, name)
        feeds = {item: self.tensor(scope, item) for item in node.input if item}
        results = self._run(node, feeds)
        for output, array in results.items():
            self._known[id(scope), output] = ArrayTensor(array)
        return self._known[id(scope), name]

    def _constant(self, node: onnx.NodeProto, name: str) -> Tensor:
        stated = attributes(node)
        if len(stated) == 1:
            ((key, value),) = stated.items()
            if key == "value" and value.type == onnx.AttributeProto.TENSOR:
                return self._skeleton.tensor(value.t)
            if key in _SCALARS:
                number = value.f if key == "value_float" else value.i
                return ArrayTensor(np.asarray(number, dtype_of(_SCALARS[key])))
            if key in _VECTORS:
                numbers = list(value.floats if key == "value_floats" else value.ints)
                return ArrayTensor(np.asarray(numbers, dtype_of(_VECTORS[key])))
        raise NotConstantError(name, "a Constant of a kind that is not read here")

    # ---- running a node ----------------------------------------------------------------------

    def _run(self, node: onnx.NodeProto, feeds: Mapping[str, Tensor]) -> dict[str, Array]:
        where = self._where(node.output[0])
        self._check_size(node, feeds, where)
        arrays = {name: tensor.read() for name, tensor in feeds.items()}
        try:
            with np.errstate(all="ignore"):
                results = self._operator(node, feeds).run(
                    *(arrays[name] if name else None for name in node.input)
                )
        except Exception as error:  # operators raise whatever NumPy does
            raise CorruptFile(
                f"a constant that cannot be computed: {node.op_type}: {str(error)[:120]}",
                where=where,
            ) from None
        made = {
            name: np.asarray(result)
            for name, result in zip(node.output, results, strict=False)
            if name
        }
        if len(made) != sum(map(bool, node.output)):
            raise CorruptFile("a constant that its operator does not make", where=where)
        if any(array.dtype.name not in NUMBERS for array in made.values()):
            raise CorruptFile("a constant that is not a number", where=where)
        return made

    def _operator(self, node: onnx.NodeProto, feeds: Mapping[str, Tensor]) -> Any:
        """Return the evaluator's operator for a node: a model of one node takes a hundred times as
        long to begin, and a file may have 100,000 nodes."""
        version = max(self._graphs.opsets.get("", 1), _EVALUATED_FROM.get(node.op_type, 1))
        types = [_type(feeds[name]) for name in node.input if name]
        make = load_op(
            "", node.op_type, version, node=node, input_types=types,
            evaluator_cls=ReferenceEvaluator,
        )  # fmt: skip
        settings = {
            "log": lambda *_: None,
            "opsets": {"": version},
            "verbose": 0,
            "new_ops": None,
            "existing_functions": {},
            "evaluator_cls": ReferenceEvaluator,
        }
        return make(node, settings)

    def _check_size(
        self, node: onnx.NodeProto, feeds: Mapping[str, Tensor], where: str
    ) -> None:
        """Refuse a result far larger than the file: a few bytes can expand to terabytes."""
        for size in self._sizes(node, feeds, where):
            self._made += size
        limits.check_expansion(self._made, self._skeleton.stored, where)

    def _sizes(
        self, node: onnx.NodeProto, feeds: Mapping[str, Tensor], where: str
    ) -> list[int]:
        if node.op_type in _SAME_SIZE and len(feeds) == 1:
            return [tensor.nbytes for tensor in feeds.values()]
        version = self._graphs.opsets.get("", 1)
        shown = {n: t for n, t in feeds.items() if t.nbytes <= _SHOWN}
        try:
            inferred = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, version, ""),
                node,
                {name: _type(tensor) for name, tensor in feeds.items()},
                {n: onnx.numpy_helper.from_array(t.read(), n) for n, t in shown.items()},
                opset_imports=[onnx.helper.make_opsetid("", version)],
            )
        except Exception as error:  # the library's own are untyped
            raise CorruptFile(
                f"a constant that does not fit its operator: {str(error)[:120]}", where=where
            ) from None
        return [_bytes(inferred.get(name), where) for name in node.output if name]


def _keeps_axes(node: onnx.NodeProto) -> bool:
    """Whether an Einsum sums over no axis: it is no more work then than its result is long."""
    stated = attributes(node).get("equation")
    equation = stated.s.decode("ascii", "replace") if stated is not None else ""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    letters = set(terms) - {","}
    return bool(arrow) and letters <= set(result) and all(x.isalpha() for x in letters)


def _type(tensor: Tensor) -> onnx.TypeProto:
    return _type_of(tensor.dtype, tensor.shape)


@lru_cache(maxsize=1024)
def _type_of(dtype: DType, shape: Shape) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(NUMBERS[dtype.name], shape)


def _bytes(kind: onnx.TypeProto | None, where: str) -> int:
    if kind is None or not kind.HasField("tensor_type"):
        raise CorruptFile("a constant that is not a tensor", where=where)
    tensor = kind.tensor_type
    sizes = [axis.dim_value for axis in tensor.shape.dim if axis.HasField("dim_value")]
    if not tensor.HasField("shape") or len(sizes) != len(tensor.shape.dim):
        raise CorruptFile("a constant whose size cannot be told", where=where)
    total = dtype_of(NAMES.get(tensor.elem_type, "float64")).itemsize
    for size in sizes:
        total *= size
    limits.TENSOR_BYTES.check(total, where, "the constant")
    return total
