"""The graphs of a `.tflite` file as a `Flow`, for LSTMs that a converter took apart.

A converter leaves a layer's steps one after the other (unrolled), or a WHILE whose body is a
subgraph of its own; there the list of all steps is a tensor that is cut in three and joined again
around each new step. Variables are the constants that a graph gives them which CALL_ONCE names, as
what is made to be trained on a device has it. Every tensor says its shape. Operators and their
options: tensorflow/lite/schema/schema.fbs and tensorflow/lite/kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.model.activations import KERAS2, Activation
from lstmconvert.spelled.flow import Carried, Flow, Node, Ref
from lstmconvert.tensors.dtypes import DType
from lstmconvert.tensors.tensor import Tensor

_UNARY = {
    "LOGISTIC": "sigmoid", "TANH": "tanh", "EXP": "exp", "NEG": "neg", "ABS": "abs",
    "SQRT": "sqrt", "LOG": "log",
}  # fmt: skip
_BINARY = {
    "ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div", "MAXIMUM": "max", "MINIMUM": "min",
    "POW": "pow",
}  # fmt: skip
_FUNCTIONS = {
    "RELU": KERAS2["relu"],
    "RELU6": Activation("relu", {"max_value": 6.0}),
    "ELU": KERAS2["elu"],
}
#: ActivationFunctionType: what an operator does with its result.
_FUSED: dict[int, tuple[str, Activation | None]] = {
    1: ("function", KERAS2["relu"]),
    3: ("function", Activation("relu", {"max_value": 6.0})),
    4: ("tanh", None),
}
_SAME = frozenset({"DEQUANTIZE", "CAST", "READ_VARIABLE"})
_MOVING = frozenset({"TILE", "BROADCAST_TO"})
#: TensorType -> dtype, of the types that a step is made of.
DTYPES: dict[int, DType] = {
    0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4"), 4: np.dtype("<i8"),
    10: np.dtype("<f8"),
}  # fmt: skip


class Operator(NamedTuple):
    """One operator: its name, the numbers of its tensors, and its options (None: it has none)."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


class Table(NamedTuple):
    """One tensor: its name, its shape, and its numbers, if they are in the file."""

    name: str
    shape: tuple[int, ...]
    tensor: Tensor | None


class Subgraph(NamedTuple):
    """One graph of a file."""

    tables: Sequence[Table]
    operators: Sequence[Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def flow_of(graphs: Sequence[Subgraph]) -> Flow:
    """Return the graphs of a file as a flow; the first is the main one."""
    return _Reader(graphs).flow


class _Reader:
    def __init__(self, graphs: Sequence[Subgraph]) -> None:
        self.flow, self._graphs = Flow(), graphs
        self._bound: set[int] = {0}
        for number, graph in enumerate(graphs):
            for place, table in enumerate(graph.tables):
                ref = (number, place)
                self.flow.names[ref] = table.name
                self.flow.known_ranks[ref] = len(table.shape)
                if table.shape and table.shape[-1] > 0:
                    self.flow.known_widths[ref] = table.shape[-1]
                if table.tensor is not None:
                    self.flow.constants[ref] = table.tensor
        if graphs:
            self.flow.outputs.update((0, place) for place in graphs[0].outputs)
        self._readers: dict[str, Callable[[int, Operator], None]] = {
            "FULLY_CONNECTED": self._connected, "BATCH_MATMUL": self._matmul,
            "SPLIT": self._split, "SPLIT_V": self._split, "CONCATENATION": self._concat,
            "RESHAPE": self._reshape, "SQUEEZE": self._reshape, "EXPAND_DIMS": self._reshape,
            "TRANSPOSE": self._transpose, "SLICE": self._slice, "STRIDED_SLICE": self._strided,
            "UNPACK": self._unpack, "PACK": self._pack, "GATHER": self._gather,
            "REVERSE_V2": self._reverse, "WHILE": self._while, "FILL": self._fill,
        }  # fmt: skip
        self._begin_variables()
        for number, graph in enumerate(graphs):
            for operator in graph.operators:
                self._readers.get(operator.kind, self._plain)(number, operator)
        self.flow.forget()
        self._join_cut_lists()
        self.flow.join_steps()

    # -- variables ---------------------------------------------------------------------------------

    def _begin_variables(self) -> None:
        """Give each variable the constant that the file begins with."""
        handles: dict[Ref, tuple[Any, Any]] = {}
        begins: set[int] = set()
        for number, graph in enumerate(self._graphs):
            for operator in graph.operators:
                options = operator.options
                if operator.kind == "VAR_HANDLE" and options is not None and operator.outputs:
                    name = options.Container(), options.SharedName()
                    handles[number, operator.outputs[0]] = name
                elif operator.kind == "CALL_ONCE" and options is not None:
                    begins.add(options.InitSubgraphIndex())
        values: dict[tuple[Any, Any], list[Tensor | None]] = {}
        for number, graph in enumerate(self._graphs):
            for operator in graph.operators if number in begins else ():
                if operator.kind == "ASSIGN_VARIABLE" and len(operator.inputs) == 2:
                    handle, value = self._refs(number, operator)
                    if handle in handles:
                        values.setdefault(handles[handle], []).append(self.flow.constant(value))
        for handle, name in handles.items():
            known = values.get(name, [])
            if len(known) == 1 and known[0] is not None:
                self.flow.constants[handle] = known[0]
                self.flow.known_ranks[handle] = len(known[0].shape)
        self.flow.forget()

    # -- values ------------------------------------------------------------------------------------

    def _refs(self, graph: int, operator: Operator) -> list[Ref]:
        return [(graph, place) for place in operator.inputs if place >= 0]

    def _shape(self, graph: int, place: int) -> tuple[int, ...]:
        return self._graphs[graph].tables[place].shape

    def _add(
        self, graph: int, place: int, kind: str, inputs: Sequence[Ref], **stated: Any
    ) -> None:
        self.flow.nodes[graph, place] = Node(kind, tuple(inputs), stated)

    def _numbers(self, ref: Ref) -> list[int] | None:
        tensor = self.flow.constant(ref)
        if tensor is None or tensor.dtype.kind != "i" or tensor.size > 64:
            return None
        return [int(number) for number in tensor.read().ravel()]

    def _fused(
        self, graph: int, operator: Operator, kind: str, inputs: Sequence[Ref], **stated: Any
    ) -> None:
        """Add a node, and the function that its operator applies to it."""
        place = operator.outputs[0]
        code = operator.options.FusedActivationFunction() if operator.options is not None else 0
        if code == 0:
            self._add(graph, place, kind, inputs, **stated)
            return
        inner: Ref = (graph, place, "before")
        self.flow.nodes[inner] = Node(kind, tuple(inputs), stated)
        function, activation = _FUSED.get(code, ("other", None))
        self._add(graph, place, function, [inner], activation=activation, what="a function")

    def _plain(self, graph: int, operator: Operator) -> None:
        kind, inputs = operator.kind, self._refs(graph, operator)
        if kind in _BINARY and len(inputs) == 2:
            has_function = hasattr(operator.options, "FusedActivationFunction")
            plain = operator if has_function else operator._replace(options=None)
            self._fused(graph, plain, _BINARY[kind], inputs)
            return
        for place in operator.outputs:
            if kind in _UNARY and len(inputs) == 1:
                self._add(graph, place, _UNARY[kind], inputs)
            elif kind in _FUNCTIONS and len(inputs) == 1:
                self._add(graph, place, "function", inputs, activation=_FUNCTIONS[kind])
            elif kind in ("SELECT", "SELECT_V2") and len(inputs) == 3:
                self._add(graph, place, "where", inputs)
            elif kind in _SAME and len(inputs) == 1:
                self._add(graph, place, "identity", inputs)
            elif kind in _MOVING and inputs:
                self._add(graph, place, "move", inputs[:1])
            else:
                self._add(graph, place, "other", inputs, what=kind)

    def _connected(self, graph: int, operator: Operator) -> None:
        inputs, place = self._refs(graph, operator), operator.outputs[0]
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            self._fused(graph, operator, "matmul", inputs[:2], turned=True)
            return
        product: Ref = (graph, place, "product")
        self.flow.nodes[product] = Node("matmul", tuple(inputs[:2]), {"turned": True})
        self._fused(graph, operator, "add", [product, inputs[2]])

    def _matmul(self, graph: int, operator: Operator) -> None:
        inputs, options = self._refs(graph, operator), operator.options
        is_turned = bool(options.AdjY()) if options is not None else False
        kind = "other" if options is not None and options.AdjX() else "matmul"
        self._add(graph, operator.outputs[0], kind, inputs, turned=is_turned, what="BATCH_MATMUL")

    def _is_last(self, ref: Ref, axis: int) -> bool:
        rank = self.flow.rank(ref)
        return axis == -1 or rank is None or axis % rank == rank - 1

    def _split(self, graph: int, operator: Operator) -> None:
        inputs = self._refs(graph, operator)
        value, axis_ref = inputs[::-1] if operator.kind == "SPLIT" else (inputs[0], inputs[-1])
        axis = self._numbers(axis_ref)
        start = 0
        for place in operator.outputs:
            shape = self._shape(graph, place)
            if not axis or not shape:
                self._add(graph, place, "other", [value], what=operator.kind)
                continue
            size = shape[axis[0]]
            self._add(graph, place, "slice", [value], axis=axis[0], start=start, stop=start + size)
            start += size

    def _concat(self, graph: int, operator: Operator) -> None:
        axis = operator.options.Axis() if operator.options is not None else None
        self._fused(graph, operator, "concat", self._refs(graph, operator), axis=axis)

    def _reshape(self, graph: int, operator: Operator) -> None:
        place, inputs = operator.outputs[0], self._refs(graph, operator)
        before, shape = self._shape(graph, operator.inputs[0]), self._shape(graph, place)
        if operator.kind == "EXPAND_DIMS" and shape and before and shape[-1] == before[-1]:
            self._add(graph, place, "expand", inputs[:1])
        else:
            self._add(graph, place, "reshape", inputs[:1], shape=shape)

    def _transpose(self, graph: int, operator: Operator) -> None:
        inputs = self._refs(graph, operator)
        order = self._numbers(inputs[1]) if len(inputs) > 1 else None
        self._add(
            graph, operator.outputs[0], "transpose", inputs[:1],
            order=tuple(order) if order else None,
        )  # fmt: skip

    def _slice(self, graph: int, operator: Operator) -> None:
        inputs, place = self._refs(graph, operator), operator.outputs[0]
        begin, size = (self._numbers(ref) for ref in inputs[1:3])
        before = self._shape(graph, operator.inputs[0])
        if begin is None or size is None:
            whole = (-1, before[-1]) if before else ()
            keeps = self._ends_with(inputs[1], (0,)) and self._ends_with(inputs[2], whole)
            self._add(graph, place, "move" if keeps else "other", inputs[:1], what="SLICE", axes=0)
            return
        cuts = [
            (axis, start, None if length < 0 else start + length)
            for axis, (start, length) in enumerate(zip(begin, size, strict=False))
            if start or (length >= 0 and length != before[axis])
        ]
        self._cuts(graph, place, inputs[0], [
            ("slice", {"axis": axis, "start": start, "stop": stop}) for axis, start, stop in cuts
        ])  # fmt: skip

    def _ends_with(self, ref: Ref, allowed: tuple[int, ...]) -> bool:
        """Whether the last of some integers, of which the first may be computed, is allowed."""
        numbers = self._numbers(ref)
        node = self.flow.nodes.get(ref)
        if numbers is None and node is not None and node.kind == "concat":
            numbers = self._numbers(node.inputs[-1])
        return bool(numbers) and numbers is not None and numbers[-1] in allowed

    def _cuts(
        self, graph: int, place: int, at: Ref, cuts: Sequence[tuple[str, dict[str, Any]]]
    ) -> None:
        for number, (kind, stated) in enumerate(cuts):
            target: Ref = (graph, place) if number == len(cuts) - 1 else (graph, place, number)
            self.flow.nodes[target] = Node(kind, (at,), stated)
            at = target
        if not cuts:
            self._add(graph, place, "identity", [at])

    def _strided(self, graph: int, operator: Operator) -> None:
        inputs, place, options = self._refs(graph, operator), operator.outputs[0], operator.options
        begin, end, stride = (self._numbers(ref) for ref in inputs[1:4])
        before = self._shape(graph, operator.inputs[0])
        if (
            begin is None or end is None or stride is None or options is None
            or options.EllipsisMask() or options.NewAxisMask()
        ):  # fmt: skip
            self._add(graph, place, "other", inputs, what="STRIDED_SLICE")
            return
        cuts: list[tuple[str, dict[str, Any]]] = []
        for axis, (start, stop, step) in enumerate(zip(begin, end, stride, strict=False)):
            bit = 1 << axis
            first = 0 if options.BeginMask() & bit else start
            last = before[axis] if options.EndMask() & bit else stop
            if options.ShrinkAxisMask() & bit:
                cuts.append(("take", {"axis": axis, "index": start, "axes": -1}))
            elif step != 1:
                cuts.append(("other", {"what": "STRIDED_SLICE"}))
            elif first or last != before[axis]:
                cuts.append(("slice", {"axis": axis, "start": first, "stop": last}))
        self._cuts(graph, place, inputs[0], cuts)

    def _unpack(self, graph: int, operator: Operator) -> None:
        inputs = self._refs(graph, operator)
        axis = operator.options.Axis() if operator.options is not None else 0
        is_last = self._is_last(inputs[0], axis)
        for number, place in enumerate(operator.outputs):
            kind = "other" if is_last else "take"
            self._add(graph, place, kind, inputs[:1], axis=axis, index=number, axes=-1)

    def _pack(self, graph: int, operator: Operator) -> None:
        self._add(graph, operator.outputs[0], "stack", self._refs(graph, operator))

    def _gather(self, graph: int, operator: Operator) -> None:
        inputs, place = self._refs(graph, operator), operator.outputs[0]
        axis = operator.options.Axis() if operator.options is not None else 0
        chosen = self._numbers(inputs[1])
        if self._is_last(inputs[0], axis):
            self._add(graph, place, "other", inputs, what="GATHER")
        elif chosen is not None and len(chosen) == 1:
            self._add(graph, place, "take", inputs[:1], axis=axis, index=chosen[0])
        elif chosen is None:
            self._add(graph, place, "move", inputs[:1], counter=inputs[1])
        else:
            self._add(graph, place, "move", inputs[:1], time="unknown")

    def _reverse(self, graph: int, operator: Operator) -> None:
        inputs = self._refs(graph, operator)
        axes = self._numbers(inputs[1])
        is_last = axes is None or any(self._is_last(inputs[0], axis) for axis in axes)
        kind = "other" if is_last else "move"
        self._add(graph, operator.outputs[0], kind, inputs[:1], time="reverse", axes=0)

    def _fill(self, graph: int, operator: Operator) -> None:
        inputs = self._refs(graph, operator)
        value = self.flow.scalar(inputs[1])
        kind = "other" if value is None else "fill"
        self._add(graph, operator.outputs[0], kind, [], value=value, what="FILL")

    # -- loops -------------------------------------------------------------------------------------

    def _while(self, graph: int, operator: Operator) -> None:
        number = operator.options.BodySubgraphIndex() if operator.options is not None else -1
        starts = self._refs(graph, operator)
        body = self._graphs[number] if 0 < number < len(self._graphs) else None
        counts = {len(starts), len(operator.outputs)}
        if body is not None:
            counts |= {len(body.inputs), len(body.outputs)}
        if body is None or number in self._bound or len(counts) > 1:
            self._plain(graph, operator)
            return
        self._bound.add(number)
        for place, start in enumerate(starts):
            inner: Ref = (number, body.inputs[place])
            given: Ref = (number, body.outputs[place])
            outer: Ref = (graph, operator.outputs[place])
            if inner == given:
                self.flow.nodes[inner] = Node("identity", (start,))
                self.flow.nodes[outer] = Node("identity", (start,))
                continue
            self.flow.carried[inner] = Carried(given, start)
            self.flow.nodes[outer] = Node("move", (given,), {"axes": 0})
            self.flow.finals.setdefault(given, []).append(outer)

    def _join_cut_lists(self) -> None:
        """A list that is cut at a step and joined again around a new one has this one added."""
        flow = self.flow
        for ref, (following, _) in list(flow.carried.items()):
            node = flow.nodes.get(following)
            if node is None or node.kind != "concat" or flow.is_last(following):
                continue
            new = [part for part in node.inputs if flow.origin(part) != flow.origin(ref)]
            if len(new) == 1 and len(node.inputs) > 1:
                flow.nodes[following] = Node("other", (ref, new[0]), {"what": "append"})
