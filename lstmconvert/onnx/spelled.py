"""The graphs of an ONNX model as a `Flow`: what its operators do to features and steps.

Loops and scans become values that are carried. Operators: onnx/docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from lstmconvert.model.activations import Activation
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.skeleton import (
    DEFAULT_DOMAINS,
    Graphs,
    GraphScope,
    Skeleton,
    attributes,
    is_known,
)
from lstmconvert.spelled.flow import Carried, Flow, FlowNode, Ref
from lstmconvert.tensors.tensor import ArrayTensor, Shape, Tensor

_UNARY = {
    "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Neg": "neg",
    "Reciprocal": "reciprocal", "Abs": "abs", "Sqrt": "sqrt",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Max": "max", "Min": "min",
    "Pow": "pow", "Sum": "add",
}  # fmt: skip
#: Operator -> the function, and its constants: attribute -> our name and ONNX's default.
_FUNCTIONS: Mapping[str, tuple[str, Mapping[str, tuple[str, float]]]] = {
    "Relu": ("relu", {}),
    "Softsign": ("softsign", {}),
    "Softplus": ("softplus", {}),
    "Selu": ("selu", {}),
    "Elu": ("elu", {"alpha": ("alpha", 1.0)}),
    "LeakyRelu": ("leaky_relu", {"alpha": ("negative_slope", 0.01)}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": ("alpha", 0.2), "beta": ("beta", 0.5)}),
}
_SAME = frozenset({"Identity", "Dropout", "Cast", "CastLike"})
#: What keeps the features of its first input.
_MOVING = frozenset({"Tile", "SequenceAt", "SplitToSequence", "ConcatFromSequence"})
#: Operators that are not followed, element by element: what they say of a mask.
_ELEMENTWISE = frozenset(
    {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor"}
)
#: How many Identity nodes a value of a loop is handed on by, at most.
_HANDED_ON = 8
#: The largest index of a Slice: to the end.
_END = (1 << 31) - 1


def flow_of(skeleton: Skeleton, graphs: Graphs, constants: Constants) -> Flow:
    """Return the graphs of a model as a flow."""
    return _Reader(skeleton, graphs, constants).flow


class _Reader:
    def __init__(self, skeleton: Skeleton, graphs: Graphs, constants: Constants) -> None:
        self.flow = Flow()
        self._graphs, self._constants = graphs, constants
        self._shapes: dict[Ref, Ref] = {}
        self._version = graphs.opsets.get("", 1)
        for scope in graphs.scopes:
            for name, proto in scope.initializers.items():
                if is_known(proto):
                    self.flow.constants[id(scope), name] = skeleton.tensor(proto)
            for name, shape in scope.shapes.items():
                self.flow.known_ranks[id(scope), name] = len(shape)
                if shape and shape[-1] is not None and shape[-1] > 0:
                    self.flow.known_widths[id(scope), name] = shape[-1]
        self.flow.outputs.update(
            (id(graphs.scopes[0]), name) for name in graphs.scopes[0].outputs
        )
        readers: dict[str, Callable[[GraphScope, onnx.NodeProto, list[Ref]], None]] = {
            "Gemm": self._gemm, "MatMul": self._matmul, "Clip": self._clip, "Slice": self._slice,
            "Split": self._split, "Concat": self._concat, "Transpose": self._transpose,
            "Reshape": self._reshape, "Gather": self._gather, "Squeeze": self._expand,
            "Unsqueeze": self._expand, "Constant": self._constant, "Loop": self._loop,
            "Scan": self._scan, "Shape": self._shape_of, "ConstantOfShape": self._fill,
            "ReverseSequence": self._reverse, "SequenceInsert": self._insert,
            "Flatten": self._flatten, "Einsum": self._einsum, "Expand": self._broadcast,
        }  # fmt: skip
        for scope, node in graphs.nodes:
            inputs = [self._ref(scope, name) for name in node.input]
            for name in node.output:
                self.flow.names[id(scope), name] = node.name or name
            reader = readers.get(node.op_type) if node.domain in DEFAULT_DOMAINS else None
            if reader is not None:
                reader(scope, node, inputs)
            else:
                self._plain(scope, node, inputs)
        self.flow.join_steps()

    # -- values ------------------------------------------------------------------------------------

    def _ref(self, scope: GraphScope, name: str) -> Ref:
        holder = scope.holder(name) if name else None
        return (id(holder), name)

    def _add(
        self, scope: GraphScope, name: str, kind: str, inputs: list[Ref], **stated: Any
    ) -> None:
        if name:
            self.flow.nodes[id(scope), name] = FlowNode(kind, tuple(inputs), stated)

    def _stated(self, node: onnx.NodeProto) -> dict[str, Any]:
        return {
            name: onnx.helper.get_attribute_value(value)
            for name, value in attributes(node).items()
            if value.type in _PLAIN
        }

    # -- operators ---------------------------------------------------------------------------------

    def _plain(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        kind, name = node.op_type, next(iter(node.output), "")
        if node.domain not in DEFAULT_DOMAINS:
            kind = "other"
        if kind in _BINARY and len(inputs) == 2 and self._counted(scope, name, kind, inputs):
            return
        inner = [self._untransposed(ref) for ref in inputs]
        if kind in _UNARY and len(inputs) == 1:
            self._add(scope, name, _UNARY[kind], inputs)
        elif kind in _BINARY and len(inputs) == 2 and None not in inner:
            both: Ref = (id(scope), name, "transposed")
            self.flow.nodes[both] = FlowNode(_BINARY[kind], tuple(inner))
            self._add(scope, name, "transpose", [both], order=(1, 0))
        elif kind in _BINARY and len(inputs) == 2:
            self._add(scope, name, _BINARY[kind], inputs)
        elif kind in _FUNCTIONS and len(inputs) == 1:
            stated = self._stated(node)
            function, names = _FUNCTIONS[kind]
            numbers = {ours: float(stated.get(key, d)) for key, (ours, d) in names.items()}
            self._add(scope, name, "function", inputs, activation=Activation(function, numbers))
        elif kind == "Where" and len(inputs) == 3:
            self._add(scope, name, "where", inputs)
        elif kind in _SAME and inputs:
            self._add(scope, name, "identity", inputs[:1])
        elif kind in _MOVING and inputs:
            counter = inputs[1] if kind == "SequenceAt" and len(inputs) > 1 else None
            self._add(scope, name, "move", inputs[:1], counter=counter)
        else:
            for output in node.output:
                self._add(scope, output, "other", inputs, what=node.op_type)
            ranks = [self.flow.rank(ref) for ref in inputs] if kind in _ELEMENTWISE else []
            if kind.startswith("Reduce") and self._stated(node).get("keepdims", 1):
                ranks = [self.flow.rank(inputs[0])] if inputs else []
            known = [rank for rank in ranks if rank is not None]
            if known and len(known) == len(ranks):
                self.flow.known_ranks[id(scope), name] = max(known)

    def _counted(self, scope: GraphScope, name: str, kind: str, inputs: list[Ref]) -> bool:
        """Compute what is made of sizes; return whether it is."""
        listed = [self.flow.integers(ref) for ref in inputs]
        first, second = listed
        if first is None or second is None or len(first) != 1 or len(second) != 1:
            return False
        a, b = first[0], second[0]
        if (kind == "Div" and b == 0) or kind not in ("Add", "Sub", "Mul", "Div"):
            return False
        number = {"Add": a + b, "Sub": a - b, "Mul": a * b, "Div": a // (b or 1)}[kind]
        if abs(number) > _END:
            return False
        tensor = self.flow.constant(inputs[0])
        shape = tensor.shape if tensor is not None else ()
        self.flow.constants[id(scope), name] = _integers(number, shape)
        return True

    def _shape_of(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        self._shapes[id(scope), node.output[0]] = inputs[0]
        self._add(scope, node.output[0], "other", inputs, what="Shape")

    def _gemm(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        stated, name = self._stated(node), node.output[0]
        has_addend = len(inputs) > 2 and bool(node.input[2])
        has_addend = has_addend and stated.get("beta", 1.0) != 0.0
        plain = stated.get("alpha", 1.0) == 1.0
        plain = plain and (not has_addend or stated.get("beta", 1.0) == 1.0)
        if not plain or stated.get("transA", 0) or len(inputs) < 2:
            self._add(scope, name, "other", inputs, what="Gemm")
            return
        turned = bool(stated.get("transB", 0))
        if not has_addend:
            self._product(scope, name, inputs[:2], turned=turned)
            return
        product: Ref = (id(scope), name, "product")
        self.flow.nodes[product] = FlowNode("matmul", tuple(inputs[:2]), {"turned": turned})
        self._add(scope, name, "add", [product, inputs[2]])

    def _matmul(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        self._product(scope, node.output[0], inputs, turned=False)

    def _product(self, scope: GraphScope, name: str, inputs: list[Ref], *, turned: bool) -> None:
        """Add a product. That of weights and a transposed value is the transpose of the value
        times the weights' own."""
        value = None if turned else self._untransposed(inputs[1])
        if value is None or self.flow.constant(inputs[0]) is None:
            self._add(scope, name, "matmul", inputs, turned=turned)
            return
        product: Ref = (id(scope), name, "product")
        self.flow.nodes[product] = FlowNode("matmul", (value, inputs[0]), {"turned": True})
        self.flow.known_ranks[product] = 2
        self._add(scope, name, "transpose", [product], order=(1, 0))

    def _untransposed(self, ref: Ref) -> Ref | None:
        """Return the matrix that a value is the transpose of; None if it is none."""
        node = self.flow.nodes.get(ref)
        is_turned = node is not None and node.kind == "transpose" and node.get("order") == (1, 0)
        return node.inputs[0] if node is not None and is_turned else None

    def _einsum(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        """A product of features and a matrix, as its equation says: `ab,b->a`, `bi,ij->bj`."""
        name, equation = node.output[0], self._stated(node).get("equation", b"")
        sides = equation.decode("ascii", "replace").replace(" ", "").split("->")
        letters = sides[0].split(",")
        places = ((0, 1), (1, 0)) if len(sides) == len(letters) == len(inputs) == 2 else ()
        for value, weights in places:
            is_weights = len(set(letters[weights])) == len(letters[weights]) == 2
            if not is_weights or self.flow.constant(inputs[weights]) is None:
                continue
            leading, last = letters[value][:-1], letters[value][-1:]
            first, second = letters[weights]
            made = second if last == first else first
            is_product = last in (first, second) and made not in letters[value]
            if is_product and sides[1] == leading + made and last not in leading:
                pair = [inputs[value], inputs[weights]]
                self._add(scope, name, "matmul", pair, turned=last == second)
                return
        self._add(scope, name, "other", inputs, what="Einsum")

    def _clip(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        stated = self._stated(node)
        bounds: dict[str, float] = {}
        for place, (name, ours) in enumerate((("min", "low"), ("max", "high")), 1):
            if name in stated:
                bounds[ours] = float(stated[name])
            elif len(inputs) > place and node.input[place]:
                number = self.flow.scalar(inputs[place])
                if number is None:
                    self._add(scope, node.output[0], "other", inputs, what="Clip")
                    return
                bounds[ours] = number
        self._add(scope, node.output[0], "clip", inputs[:1], **bounds)

    def _slice(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        stated, name = self._stated(node), node.output[0]
        if "starts" in stated:
            starts, ends = list(stated["starts"]), list(stated["ends"])
            axes, steps = list(stated.get("axes", range(len(starts)))), [1] * len(starts)
        else:
            listed = [self.flow.integers(ref) for ref in inputs[1:]]
            if len(listed) < 2 or listed[0] is None or listed[1] is None:
                axis = listed[2] if len(listed) > 2 else None
                is_moved = axis is not None and len(axis) == 1 and not self.flow.is_last_axis(
                    inputs[0], axis[0]
                )
                self._add(
                    scope, name, "move" if is_moved else "other", inputs[:1], what="Slice",
                    counter=inputs[1] if is_moved else None,
                )  # fmt: skip
                return
            starts, ends = listed[0], listed[1]
            axes = (listed[2] if len(listed) > 2 else None) or list(range(len(starts)))
            steps = (listed[3] if len(listed) > 3 else None) or [1] * len(starts)
        at = inputs[0]
        holder = scope.holder(node.input[0])
        sizes = (holder.shapes.get(node.input[0]) if holder is not None else None) or ()

        def is_whole(axis: int, start: int, stop: int, step: int) -> bool:
            size = sizes[axis] if -len(sizes) <= axis < len(sizes) else None
            return start == 0 and step == 1 and stop >= (_END if size is None else size)

        cuts = [
            cut for cut in zip(axes, starts, ends, steps, strict=False) if not is_whole(*cut)
        ]
        for place, (axis, start, stop, step) in enumerate(cuts):
            target: Ref = (id(scope), name)
            if place < len(cuts) - 1:
                target = (id(scope), name, place)
            if step == -1 and (start == -1 or start >= _END) and stop <= -_END:
                kind = "other" if self.flow.is_last_axis(at, axis) else "move"
                self.flow.nodes[target] = FlowNode(kind, (at,), _REVERSED)
            elif step == 1:
                end = None if stop >= _END else stop
                cut_node = FlowNode("slice", (at,), {"axis": axis, "start": start, "stop": end})
                self.flow.nodes[target] = cut_node
            else:
                self.flow.nodes[target] = FlowNode("other", (at,), {"what": "Slice"})
            at = target
        if not cuts:
            self._add(scope, name, "identity", [at])

    def _split(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        stated = self._stated(node)
        axis = stated.get("axis", 0)
        sizes = list(stated["split"]) if "split" in stated else None
        if sizes is None and len(inputs) > 1 and node.input[1]:
            sizes = self.flow.integers(inputs[1])
        count = len(node.output)
        if sizes is None and self.flow.is_last_axis(inputs[0], axis):
            width = self.flow.width(inputs[0])
            if width is None:
                for name in node.output:
                    self._add(scope, name, "other", inputs, what="Split")
                return
            size = -(-width // count)
            sizes = [size] * (count - 1) + [width - size * (count - 1)]
        at = 0
        for place, name in enumerate(node.output):
            if sizes is None:
                self._add(scope, name, "take", inputs[:1], axis=axis, index=place, axes=0)
                continue
            self._add(
                scope, name, "slice", inputs[:1], axis=axis, start=at, stop=at + sizes[place]
            )
            at += sizes[place]

    def _concat(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        axis = self._stated(node).get("axis", 0)
        self._add(scope, node.output[0], "concat", inputs, axis=axis)

    def _transpose(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        order = self._stated(node).get("perm")
        twice = self._untransposed(inputs[0])
        if twice is not None and order is not None and tuple(order) == (1, 0):
            self._add(scope, node.output[0], "identity", [twice])
            return
        self._add(
            scope, node.output[0], "transpose", inputs, order=tuple(order) if order else None
        )

    def _filled(self, scope: GraphScope, name: str, ref: Ref) -> bool:
        """Whether a value is one number everywhere; if so, what is made of it is so, too."""
        node = self.flow.nodes.get(ref)
        if node is None or node.kind != "fill":
            return False
        self._add(scope, name, "fill", [], value=node.get("value"))
        return True

    def _broadcast(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        """Expand: a constant row for each of the batch is that row."""
        name = node.output[0]
        if self._filled(scope, name, inputs[0]):
            return
        tensor = self.flow.constant(inputs[0])
        shape = self._shape(inputs[1]) if len(inputs) > 1 else None
        kind = "move"
        if tensor is not None and tensor.shape and tensor.size == tensor.shape[-1]:
            kind = "identity" if shape and shape[-1] in (1, tensor.size) else "move"
        self._add(scope, name, kind, inputs[:1])

    def _flatten(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        rank, width = self.flow.rank(inputs[0]), self.flow.width(inputs[0])
        axis = self._stated(node).get("axis", 1)
        if rank is None or width is None or axis % (rank or 1) != rank - 1:
            self._add(scope, node.output[0], "other", inputs, what="Flatten")
        else:
            self._add(scope, node.output[0], "reshape", inputs[:1], shape=(-1, width))

    def _reshape(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        if self._filled(scope, node.output[0], inputs[0]):
            return
        shape = self._shape(inputs[1]) if len(inputs) > 1 else None
        if shape and shape[-1] == 0 and self.flow.rank(inputs[0]) == len(shape):
            shape = (*shape[:-1], self.flow.width(inputs[0]) or 0)
        self._add(scope, node.output[0], "reshape", inputs[:1], shape=shape)

    def _shape(self, ref: Ref) -> tuple[int, ...] | None:
        """Return a shape: of one that is joined of parts, the last axis and -1 before it."""
        numbers = self.flow.integers(ref)
        if numbers is not None:
            return tuple(numbers)
        node = self.flow.nodes.get(self.flow.origin(ref))
        if node is None or node.kind != "concat":
            return None
        last = self.flow.integers(node.inputs[-1])
        return (*[-1] * (len(node.inputs) - 1), last[-1]) if last else None

    def _gather(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        axis = self._stated(node).get("axis", 0)
        name = node.output[0]
        chosen = self.flow.integers(inputs[1])
        sized = self._shapes.get(inputs[0])
        if sized is not None and chosen is not None and len(chosen) == 1:
            width, index = self.flow.width(sized), self.flow.constant(inputs[1])
            if self.flow.is_last_axis(sized, chosen[0]) and width is not None and index is not None:
                self.flow.constants[id(scope), name] = _integers(width, index.shape)
                return
        is_last = self.flow.is_last_axis(inputs[0], axis)
        index_rank = self.flow.rank(inputs[1])
        axes = index_rank - 1 if index_rank is not None else None
        if chosen is not None and self.flow.constant(inputs[0]) is not None and len(chosen) == 1:
            self._add(scope, name, "take", inputs[:1], axis=axis, index=chosen[0], axes=axes)
        elif is_last:
            self._add(scope, name, "other", inputs, what="Gather")
        elif chosen is not None and len(chosen) == 1:
            self._add(scope, name, "take", inputs[:1], axis=axis, index=chosen[0], axes=axes)
        elif chosen is not None:
            back = chosen == list(range(len(chosen) - 1, -1, -1))
            time = "reverse" if back else None if chosen == sorted(chosen) else "unknown"
            self._add(scope, name, "move", inputs[:1], time=time, axes=axes)
        else:
            self._add(scope, name, "move", inputs[:1], counter=inputs[1], axes=axes)

    def _expand(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        axes = self._stated(node).get("axes")
        if axes is None and len(inputs) > 1:
            axes = self.flow.integers(inputs[1])
        rank = self.flow.rank(inputs[0])
        change = len(axes or ()) * (1 if node.op_type == "Unsqueeze" else -1)
        made = rank + max(change, 0) if rank is not None else None
        is_constant = self.flow.constant(inputs[0]) is not None
        is_last = axes is None or any(axis == -1 or axis == (made or 0) - 1 for axis in axes)
        if is_last and not is_constant and axes is not None and rank != 1:
            self._add(scope, node.output[0], "other", inputs, what=node.op_type)
            return
        self._add(scope, node.output[0], "expand", inputs[:1])
        if rank is not None and axes is not None:
            self.flow.known_ranks[id(scope), node.output[0]] = rank + change

    def _constant(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        del inputs
        try:
            tensor = self._constants.tensor(scope, node.output[0])
        except NotConstantError:
            self._add(scope, node.output[0], "other", [], what="Constant")
        else:
            self.flow.constants[id(scope), node.output[0]] = tensor

    def _fill(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        del inputs  # the shape
        value = attributes(node).get("value")
        number = 0.0
        if value is not None:
            array = onnx.numpy_helper.to_array(value.t)
            number = float(array.ravel()[0]) if array.size == 1 else float("nan")
        self._add(scope, node.output[0], "fill", [], value=number)

    def _reverse(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        self._add(scope, node.output[0], "move", inputs[:1], time="reverse", axes=0)

    def _insert(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        self._add(scope, node.output[0], "other", inputs[:2], what="append")

    # -- loops -------------------------------------------------------------------------------------

    def _body(
        self, scope: GraphScope, node: onnx.NodeProto
    ) -> tuple[GraphScope, list[str], list[str]] | None:
        bodies = scope.inner.get(id(node), [])
        graph = attributes(node).get("body")
        if len(bodies) != 1 or graph is None:
            return None
        return bodies[0], [value.name for value in graph.g.input], bodies[0].outputs

    def _loop(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        read = self._body(scope, node)
        if read is None or len(read[1]) != len(inputs):
            self._plain(scope, node, inputs)
            return
        body, takes, gives = read
        counter: Ref = (id(body), takes[0])
        ends: Ref = (id(body), takes[0], "following")
        zero, unit = (id(body), takes[0], 0), (id(body), takes[0], 1)
        self.flow.nodes[ends] = FlowNode("add", (counter, unit))
        self.flow.constants[zero] = _integers(0)
        self.flow.constants[unit] = _integers(1)
        self.flow.carried[counter] = Carried(ends, zero)
        count = len(takes) - 2
        for place in range(count):
            self._carry(body, takes[place + 2], gives[place + 1], inputs[place + 2])
            self._final(scope, node, place, self._ref(body, gives[place + 1]))
        for place in range(count, len(node.output)):
            self._stacked(scope, node.output[place], self._ref(body, gives[place + 1]))

    def _scan(self, scope: GraphScope, node: onnx.NodeProto, inputs: list[Ref]) -> None:
        read = self._body(scope, node)
        stated = self._stated(node)
        scanned = stated.get("num_scan_inputs")
        if self._version < 9:
            inputs = inputs[1:]
        if read is None or scanned is None or len(read[1]) != len(inputs):
            self._plain(scope, node, inputs)
            return
        body, takes, gives = read
        count = len(takes) - scanned
        key = "directions" if self._version < 9 else "scan_input_directions"
        back = list(stated.get(key, [0] * scanned))
        for place in range(count):
            self._carry(body, takes[place], gives[place], inputs[place])
            self._final(scope, node, place, self._ref(body, gives[place]))
        for place in range(scanned):
            time = "scan_back" if back[place] else "scan"
            at = count + place
            self._add(body, takes[at], "move", [inputs[at]], time=time, axes=-1)
        for place in range(count, len(node.output)):
            self._stacked(scope, node.output[place], self._ref(body, gives[place]))

    def _carry(self, body: GraphScope, taken: str, given: str, start: Ref) -> None:
        same = given
        for _ in range(_HANDED_ON):
            maker = body.producers.get(same)
            if maker is None or maker.op_type != "Identity" or len(maker.input) != 1:
                break
            same = maker.input[0]
        if taken == same:  # in every step
            self._add(body, taken, "identity", [start])
        else:
            self.flow.carried[id(body), taken] = Carried(self._ref(body, given), start)

    def _final(self, scope: GraphScope, node: onnx.NodeProto, place: int, following: Ref) -> None:
        if place < len(node.output) and node.output[place]:
            self._add(scope, node.output[place], "move", [following], axes=0)
            self.flow.finals.setdefault(following, []).append((id(scope), node.output[place]))

    def _stacked(self, scope: GraphScope, name: str, step: Ref) -> None:
        if name:
            self._add(scope, name, "move", [step], axes=1)
            self.flow.stacked.setdefault(step, []).append((id(scope), name))


_REVERSED: Mapping[str, Any] = {"time": "reverse", "axes": 0, "what": "Slice"}
_PLAIN = frozenset(
    {
        onnx.AttributeProto.FLOAT,
        onnx.AttributeProto.INT,
        onnx.AttributeProto.STRING,
        onnx.AttributeProto.FLOATS,
        onnx.AttributeProto.INTS,
    }
)


def _integers(value: int, shape: Shape = ()) -> Tensor:
    return ArrayTensor(np.full(shape, value, np.int64))
