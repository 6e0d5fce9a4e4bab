"""TensorFlow's graphs as a `Flow`: what their operations do to features and steps.

A cell, or a layer, that is one operation is written out here in the steps that it stands for
(tensorflow/core/ops/rnn_ops.cc), so it is found, proved and asked how it runs as any other.

Loops are written in two ways. TensorFlow 1's are nodes of the graph itself:

    Merge(Enter(start), NextIteration(following)) → Switch → … the step …      Exit: the last value

TensorFlow 2's are functions: `While` has a body whose results are the next step's arguments. Arrays
of steps are TensorArrays in the first, TensorLists in the second
(tensorflow/core/ops/control_flow_ops.cc, data_flow_ops.cc, list_ops.cc).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lstmconvert.model.activations import KERAS2, Activation
from lstmconvert.spelled.flow import Carried, Flow, FlowNode, Ref
from lstmconvert.tensorflow.formats import graphdef
from lstmconvert.tensorflow.formats.graphdef import AttrValue, GraphDef, GraphOperation
from lstmconvert.tensorflow.tf1 import BLOCKS, VARIABLES
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

_UNARY = {
    "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Neg": "neg",
    "Reciprocal": "reciprocal", "Inv": "reciprocal", "Abs": "abs", "Sqrt": "sqrt",
}  # fmt: skip
_BINARY = {
    **dict.fromkeys(("Add", "AddV2", "BiasAdd", "BiasAddV1", "AddN"), "add"),
    "Sub": "sub", "Mul": "mul", "RealDiv": "div", "Div": "div", "Pow": "pow",
    "Maximum": "max", "Minimum": "min",
}
_FUNCTIONS: Mapping[str, Activation] = {
    **{name.capitalize(): KERAS2[name] for name in ("relu", "elu", "selu", "softsign", "softplus")},
    "Relu6": Activation("relu", {"max_value": 6.0}),
}
_SAME = frozenset(
    {
        *("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "Cast"),
        *("ReadVariableOp", "Enter", "NextIteration", "Switch", "RefEnter", "RefSwitch"),
        *("EnsureShape", "PlaceholderWithDefault"),
    }
)
#: What keeps the features of one of its inputs: which, and how many axes more it has.
_MOVING: Mapping[str, tuple[int, int]] = {
    "TensorArrayScatterV3": (2, 0),
    "TensorArrayGatherV3": (2, 0),
    "TensorListFromTensor": (0, 0),
    "TensorListStack": (0, 0),
    "Tile": (0, 0),
}
#: What takes one step of many: the input that holds them, and the input that says which.
_TAKING = {"TensorArrayReadV3": (2, 1), "TensorListGetItem": (0, 1)}
#: What adds one step to many: the input that holds them, and the step.
_ADDING = {"TensorArrayWriteV3": (3, 2), "TensorListSetItem": (0, 2)}
#: The outputs of a cell of one operation: i, cs, f, o, ci, co, h.
_BLOCK_OUTPUTS, _STATE, _HIDDEN = 7, 1, 6
#: How many operations a number of steps is made in, at most.
_LONGEST_LENGTH = 8
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_LOOPS = frozenset({"While", "StatelessWhile"})
#: What ends a loop or a step of one, if nothing takes it.
_OPEN = frozenset({"Exit", "Switch", "Merge", "NextIteration", "Enter", "LoopCond", "Shape"})
_WHILE = re.compile(r"(^|/)while(_\d+)?(/|$)")
_NONE = AttrValue()


def flow_of(
    graph: GraphDef, where: object, variables: Mapping[str, Tensor] | None = None
) -> Flow:
    """Return a graph as a flow.

    Args:
        graph: the graph, with all attributes.
        where: the file, for errors.
        variables: the values of its variables, by name, where a checkpoint has them.
    """
    return _Reader(graph, where, variables).flow


class _Reader:
    def __init__(
        self, graph: GraphDef, where: object, variables: Mapping[str, Tensor] | None
    ) -> None:
        self.flow, self._graph = Flow(), graph
        self._bound: dict[str, str] = {"": ""}
        for node in graph.nodes.values():
            tensor = graphdef.constant(node, where)
            if node.op in VARIABLES:
                tensor = (variables or {}).get(node.name)
            if tensor is not None:
                self.flow.constants[node.graph, node.name, 0] = tensor
            shape = node.attributes.get("shape", _NONE).shape
            if node.op == "Placeholder" and shape is not None and not shape.unknown_rank:
                ref = (node.graph, node.name, 0)
                self.flow.known_ranks[ref] = len(shape.dims)
                if shape.dims and shape.dims[-1].size > 0:
                    self.flow.known_widths[ref] = shape.dims[-1].size
        readers: dict[str, Callable[[GraphOperation, list[Ref]], None]] = {
            "MatMul": self._matmul, "Split": self._split, "SplitV": self._split,
            "ConcatV2": self._concat, "Concat": self._concat, "Pack": self._pack,
            "Unpack": self._unpack, "StridedSlice": self._strided, "Transpose": self._transpose,
            "Reshape": self._reshape, "ExpandDims": self._expand, "Squeeze": self._expand,
            "ReverseV2": self._reverse, "ReverseSequence": self._reverse, "Fill": self._fill,
            "ZerosLike": self._fill, "Merge": self._merge, "Exit": self._exit,
            "ClipByValue": self._clip, "LeakyRelu": self._leaky,
            "LSTMBlockCell": self._block, "BlockLSTM": self._fused, "BlockLSTMV2": self._fused,
        }  # fmt: skip
        self._links()
        for node in self._in_order():
            if node.op == "Const" or node.op in VARIABLES:
                continue
            self.flow.forget()
            inputs: list[Ref] = [(node.graph, *source) for source in node.inputs]
            scope = self._bound.get(node.graph, node.graph)
            self.flow.names[node.graph, node.name, 0] = f"{scope}/{node.name}".strip("/")
            readers.get(node.op, self._plain)(node, inputs)
        self.flow.join_steps()
        ends = self._ends()
        if variables is None:
            # Where values of another kind are left over, the outputs are `Identity`.
            named = [node for node in ends if node.op == "Identity" and "while" not in node.name]
            self.flow.outputs.update(("", node.name, 0) for node in named or ends)
        else:
            # The whole graph that was run: a loop hands on states that nothing takes.
            for node in ends:
                is_open = node.op in _OPEN or _WHILE.search(node.name) is not None
                listed = self.flow.open_ends if is_open else self.flow.outputs
                listed.add(("", node.name, 0))

    def _ends(self) -> list[GraphOperation]:
        """Return what depends on the inputs of a graph and is taken by nothing. A graph does not
        list its outputs: they are among these."""
        nodes = self._graph.nodes.values()
        taken = {source for node in nodes for source, _ in node.inputs if not node.graph}
        given: set[Ref] = {
            ("", node.name, 0) for node in nodes if node.op.startswith("Placeholder")
        }
        reached = self.flow.behind(given)
        return [
            node
            for node in nodes
            if not node.graph and node.name not in taken and ("", node.name, 0) in reached
        ]

    def _in_order(self) -> list[GraphOperation]:
        """Return the nodes, each behind those whose values it takes, except at a loop's end."""
        ordered: dict[tuple[str, str], GraphOperation] = {}
        open_: set[tuple[str, str]] = set()
        waiting = list(self._graph.nodes.values())[::-1]
        while waiting:
            node = waiting[-1]
            key = (node.graph, node.name)
            if key in ordered:
                waiting.pop()
                continue
            sources = [self._graph.nodes.get((node.graph, name)) for name, _ in node.inputs]
            missing = [
                source for source in sources
                if source is not None and source.op != "NextIteration"
                and (source.graph, source.name) not in ordered
            ]  # fmt: skip
            if missing and key not in open_:
                open_.add(key)
                waiting += missing
            else:
                ordered[key] = waiting.pop()
        return list(ordered.values())

    # -- functions ---------------------------------------------------------------------------------

    def _links(self) -> None:
        """Join functions to where they are called: each once."""
        for node in self._graph.nodes.values():
            key = "body" if node.op in _LOOPS else "f" if node.op in _CALLS else None
            function = node.attributes.get(key, _NONE).function if key is not None else None
            if function is None or function.name in self._bound:
                continue
            arguments = self._graph.arguments.get(function.name)
            results = self._graph.results.get(function.name)
            if arguments is None or results is None or len(arguments) != len(node.inputs):
                continue
            outer_name = self._bound.get(node.graph, node.graph)
            self._bound[function.name] = f"{outer_name}/{node.name}".strip("/")
            gives: list[Ref] = [(function.name, *result) for result in results]
            for place, name in enumerate(arguments):
                inner: Ref = (function.name, name, 0)
                start: Ref = (node.graph, *node.inputs[place])
                if key == "f" or (place < len(gives) and self._is_same(gives[place], inner)):
                    self.flow.nodes[inner] = FlowNode("identity", (start,))
                elif place < len(gives):
                    self.flow.carried[inner] = Carried(gives[place], start)
            for place, give in enumerate(gives):
                outer: Ref = (node.graph, node.name, place)
                self.flow.nodes[outer] = FlowNode("move", (give,), {"axes": 0})
                if key == "body":
                    self.flow.finals.setdefault(give, []).append(outer)

    def _is_same(self, given: Ref, argument: Ref) -> bool:
        """Whether a loop hands an argument on as it is."""
        at: Any = given
        for _ in range(8):
            if at == argument:
                return True
            node = self._graph.nodes.get((at[0], at[1]))
            if node is None or node.op not in ("Identity", "Switch"):
                return False
            at = (node.graph, *node.inputs[0])
        return False

    # -- values ------------------------------------------------------------------------------------

    def _add(
        self, node: GraphOperation, kind: str, inputs: list[Ref], output: int = 0, **stated: Any
    ) -> None:
        self.flow.nodes[node.graph, node.name, output] = FlowNode(kind, tuple(inputs), stated)

    def _plain(self, node: GraphOperation, inputs: list[Ref]) -> None:
        kind = node.op
        if kind in _UNARY and len(inputs) == 1:
            self._add(node, _UNARY[kind], inputs)
        elif kind in _BINARY and len(inputs) == 2:
            self._add(node, _BINARY[kind], inputs)
        elif kind in _FUNCTIONS and len(inputs) == 1:
            self._add(node, "function", inputs, activation=_FUNCTIONS[kind])
        elif kind in ("Select", "SelectV2") and len(inputs) == 3:
            self._add(node, "where", inputs)
        elif kind in _SAME and inputs:
            for output in range(2 if kind.endswith("Switch") else 1):
                self._add(node, "identity", inputs[:1], output)
        elif kind in _MOVING and len(inputs) > _MOVING[kind][0]:
            place, axes = _MOVING[kind]
            self._add(node, "move", [inputs[place]], axes=axes)
        elif kind in _TAKING and len(inputs) > max(_TAKING[kind]):
            place, index = _TAKING[kind]
            self._add(node, "move", [inputs[place]], counter=inputs[index], axes=-1)
        elif kind in _ADDING and len(inputs) > max(_ADDING[kind]):
            place, step = _ADDING[kind]
            is_one = self.flow.scalar(inputs[1]) is not None
            pair = [inputs[place], inputs[step]]
            self._add(node, "other", pair, what="append", at_one_place=is_one)
        elif (node.graph, node.name, 0) not in self.flow.nodes:
            self._add(node, "other", inputs, what=kind)

    def _matmul(self, node: GraphOperation, inputs: list[Ref]) -> None:
        if node.attributes.get("transpose_a", _NONE).flag or len(inputs) != 2:
            self._add(node, "other", inputs, what="MatMul")
            return
        turned = bool(node.attributes.get("transpose_b", _NONE).flag)
        self._add(node, "matmul", inputs, turned=turned)
        self.flow.known_ranks[node.graph, node.name, 0] = 2

    def _split(self, node: GraphOperation, inputs: list[Ref]) -> None:
        is_listed = node.op == "SplitV"
        value, axis_ref = (inputs[0], inputs[2]) if is_listed else (inputs[1], inputs[0])
        axes = self.flow.integers(axis_ref)
        count = node.attributes.get("num_split", _NONE).number
        width = self.flow.width(value)
        sizes = self.flow.integers(inputs[1]) if is_listed else None
        if sizes is None and width is not None and count > 0 and not width % count:
            sizes = [width // count] * count
        if axes is None or len(axes) != 1 or sizes is None or min(sizes, default=0) < 1:
            if not 0 < count <= 4096:
                count = 1
            for output in range(count):
                self._add(node, "other", [value], output, what=node.op)
            return
        rank, start = self.flow.rank(value), 0
        is_last = axes[0] == -1 or not rank or axes[0] % rank == rank - 1
        for output, size in enumerate(sizes):
            if is_last or is_listed:
                stated = {"axis": axes[0], "start": start, "stop": start + size}
                self._add(node, "slice", [value], output, **stated)
            else:
                self._add(node, "take", [value], output, axis=axes[0], index=output, axes=0)
            start += size

    def _concat(self, node: GraphOperation, inputs: list[Ref]) -> None:
        is_old = node.op == "Concat"
        values, axis_ref = (inputs[1:], inputs[0]) if is_old else (inputs[:-1], inputs[-1])
        axis = self.flow.integers(axis_ref)
        self._add(node, "concat", values, axis=axis[0] if axis else None)

    def _pack(self, node: GraphOperation, inputs: list[Ref]) -> None:
        axis = node.attributes.get("axis", _NONE).number
        if all(self.flow.constant(ref) is not None for ref in inputs):
            listed = [self.flow.integers(ref) for ref in inputs]
            if all(numbers is not None and len(numbers) == 1 for numbers in listed):
                values = [numbers[0] for numbers in listed if numbers is not None]
                self.flow.constants[node.graph, node.name, 0] = _integers(values)
                return
        self._add(node, "stack", inputs, axis=axis)

    def _unpack(self, node: GraphOperation, inputs: list[Ref]) -> None:
        axis = node.attributes.get("axis", _NONE).number
        count = node.attributes.get("num", _NONE).number
        rank = self.flow.rank(inputs[0])
        is_last = axis == -1 or bool(rank and axis % rank == rank - 1)
        for output in range(min(count, 1 << 16)):
            kind = "other" if is_last else "take"
            stated = {"axis": axis, "index": output, "axes": -1, "what": "Unpack"}
            self._add(node, kind, inputs[:1], output, **stated)

    def _strided(self, node: GraphOperation, inputs: list[Ref]) -> None:
        listed = [self.flow.integers(ref) for ref in inputs[1:]]
        begin, end, stride = (*listed, None, None, None)[:3]
        masks = {
            name: node.attributes.get(f"{name}_mask", _NONE).number
            for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
        }
        if begin is None or end is None or stride is None or masks["new_axis"]:
            self._add(node, "other", inputs, what="StridedSlice")
            return
        cuts: list[tuple[str, dict[str, Any]]] = []
        dots = None
        for place, (start, stop, step) in enumerate(zip(begin, end, stride, strict=False)):
            bit = 1 << place
            if masks["ellipsis"] & bit:
                dots = place
                continue
            axis = place if dots is None else place - len(begin)
            first = None if masks["begin"] & bit else start
            last = None if masks["end"] & bit else stop
            if masks["shrink_axis"] & bit:
                cuts.append(("take", {"axis": axis, "index": start, "axes": -1}))
            elif step == -1 and first is None and last is None:
                cuts.append(("move", {"time": "reverse", "axes": 0}))
            elif step != 1:
                cuts.append(("other", {"what": "StridedSlice"}))
            elif first not in (None, 0) or last is not None:
                cuts.append(("slice", {"axis": axis, "start": first, "stop": last}))
        at: Ref = inputs[0]
        for place, (kind, stated) in enumerate(cuts):
            is_end = place == len(cuts) - 1
            target: Ref = (node.graph, node.name, 0 if is_end else f"cut {place}")
            self.flow.nodes[target] = FlowNode(kind, (at,), stated)
            at = target
        if not cuts:
            self._add(node, "identity", inputs[:1])

    def _transpose(self, node: GraphOperation, inputs: list[Ref]) -> None:
        order = self.flow.integers(inputs[1])
        if order is not None:
            self._add(node, "transpose", inputs[:1], order=tuple(order))
            return
        # `dynamic_rnn` exchanges the first two axes, however many there are.
        joined = self.flow.nodes.get(self.flow.origin(inputs[1]))
        is_usual = (
            joined is not None and joined.kind == "concat" and len(joined.inputs) == 2
            and self.flow.integers(joined.inputs[0]) == [1, 0]
        )  # fmt: skip
        self._add(node, "move" if is_usual else "other", inputs[:1], what="Transpose", axes=0)

    def _reshape(self, node: GraphOperation, inputs: list[Ref]) -> None:
        shape = self.flow.integers(inputs[1])
        packed = self.flow.nodes.get(self.flow.origin(inputs[1]))
        if shape is None and packed is not None and packed.kind in ("stack", "concat"):
            last = self.flow.integers(packed.inputs[-1])
            if last:
                shape = [-1] * (len(packed.inputs) - 1) + [last[-1]]
        self._add(node, "reshape", inputs[:1], shape=tuple(shape) if shape else None)

    def _expand(self, node: GraphOperation, inputs: list[Ref]) -> None:
        self._add(node, "expand", inputs[:1])
        rank = self.flow.rank(inputs[0])
        if rank is not None and node.op == "ExpandDims":
            axis = self.flow.integers(inputs[1])
            if axis is None or axis[0] in (-1, rank):
                self._add(node, "other", inputs, what="ExpandDims")
            self.flow.known_ranks[node.graph, node.name, 0] = rank + 1

    def _reverse(self, node: GraphOperation, inputs: list[Ref]) -> None:
        axis = self.flow.integers(inputs[1]) if node.op == "ReverseV2" else [0]
        rank = self.flow.rank(inputs[0])
        is_last = axis is None or axis[0] == -1 or (rank is not None and axis[0] == rank - 1)
        kind = "other" if is_last else "move"
        self._add(node, kind, inputs[:1], time="reverse", axes=0, what=node.op)

    def _fill(self, node: GraphOperation, inputs: list[Ref]) -> None:
        value = 0.0 if node.op == "ZerosLike" else self.flow.scalar(inputs[1])
        if value is None:
            self._add(node, "other", inputs, what="Fill")
        else:
            self._add(node, "fill", [], value=value)

    def _clip(self, node: GraphOperation, inputs: list[Ref]) -> None:
        bounds = [self.flow.scalar(ref) for ref in inputs[1:]]
        if len(bounds) != 2 or None in bounds:
            self._add(node, "other", inputs, what="ClipByValue")
        else:
            self._add(node, "clip", inputs[:1], low=bounds[0], high=bounds[1])

    def _leaky(self, node: GraphOperation, inputs: list[Ref]) -> None:
        slope = node.number("alpha", 0.2)
        function = Activation("leaky_relu", {"negative_slope": slope})
        self._add(node, "function", inputs[:1], activation=function)

    # -- cells of one operation --------------------------------------------------------------------

    def _block(self, node: GraphOperation, inputs: list[Ref]) -> None:
        """One step: its outputs are i, cs, f, o, ci, co, h."""
        x, c, h = inputs[:3]
        values = self._step(node, x, c, h, inputs[3:])
        for output, value in enumerate(values or ()):
            self._add(node, "identity", [value], output)
        if values is None:
            for output in range(_BLOCK_OUTPUTS):
                self._add(node, "other", inputs, output, what=node.op)

    def _fused(self, node: GraphOperation, inputs: list[Ref]) -> None:
        """All steps, in a loop. Behind the length that it is given there are zeros."""
        length, x, c_start, h_start = inputs[:4]
        c, h, step, counts, zero, y = (
            (node.graph, node.name, name) for name in ("c", "h", "x", "counts", "zero", "y")
        )
        self.flow.nodes[step] = FlowNode("move", (x,), {"time": "scan", "axes": -1})
        values = self._step(node, step, c, h, inputs[4:])
        outer: list[Ref] = [(node.graph, node.name, output) for output in range(_BLOCK_OUTPUTS)]
        for ref in outer if values is None else ():
            self.flow.nodes[ref] = FlowNode("other", tuple(inputs), {"what": node.op})
        if values is None:
            return
        state, hidden = values[_STATE], values[_HIDDEN]
        self.flow.carried[c] = Carried(state, c_start)
        self.flow.carried[h] = Carried(hidden, h_start)
        if not self._is_whole(length, x):
            self.flow.nodes[counts] = FlowNode("other", (length,), {"what": "Less"})
            self.flow.nodes[zero] = FlowNode("fill", (), {"value": 0.0})
            self.flow.nodes[y] = FlowNode("where", (counts, hidden, zero))
            for name, new, old in (("c1", state, c), ("h1", hidden, h)):
                chosen: Ref = (node.graph, node.name, name)
                self.flow.nodes[chosen] = FlowNode("where", (counts, new, old))
                self.flow.carried[old] = self.flow.carried[old]._replace(following=chosen)
            hidden = y
        for output, value in enumerate((*values[:_HIDDEN], hidden)):
            self.flow.nodes[outer[output]] = FlowNode("move", (value,), {"axes": 1})
            self.flow.stacked.setdefault(value, []).append(outer[output])
        self.flow.finals.setdefault(self.flow.carried[c].following, []).append(outer[_STATE])

    def _is_whole(self, length: Ref, x: Ref) -> bool:
        """Whether a length is that of an input, (steps, batch, features)."""
        ref = length
        for _ in range(_LONGEST_LENGTH):
            node = self._graph.nodes.get((ref[0], ref[1])) if isinstance(ref, tuple) else None
            if node is None:
                return False
            if node.op == "Const":
                sizes, count = self._sizes(x), self.flow.integers(ref)
                return sizes is None or (count is not None and count[0] in sizes[:2])
            if node.op == "Shape":
                return True
            if node.op not in (*_SAME, "StridedSlice"):
                return False
            ref = (node.graph, *node.inputs[0])
        return False

    def _sizes(self, ref: Ref) -> list[int] | None:
        """Return the sizes of the placeholder that a value comes from, if all are known."""
        at = self.flow.origin(ref)
        node = self._graph.nodes.get((at[0], at[1])) if isinstance(at, tuple) else None
        shape = node.attributes.get("shape", _NONE).shape if node is not None else None
        sizes = [dim.size for dim in shape.dims] if shape is not None else []
        return sizes if sizes and min(sizes) > 0 else None

    def _step(
        self, node: GraphOperation, x: Ref, c: Ref, h: Ref, weights: list[Ref]
    ) -> list[Ref] | None:
        """Write out a step; return i, c, f, o, the candidate, the function of c, h. None where the
        graph does not have the weights: kernel, three peepholes, bias."""
        block = BLOCKS[node.op]
        kernel, *diagonals, bias = weights[:5]
        tensor = self.flow.constant(kernel)
        if tensor is None or len(tensor.shape) != 2 or tensor.shape[1] % 4:
            return None
        units = tensor.shape[1] // 4
        has_peepholes = bool(node.attributes.get("use_peephole", _NONE).flag)

        def made(name: str, kind: str, *inputs: Ref, **stated: Any) -> Ref:
            ref: Ref = (node.graph, node.name, f"step {name}")
            self.flow.nodes[ref] = FlowNode(kind, inputs, stated)
            return ref

        joined = made("xh", "concat", x, h, axis=-1)
        total = made("z", "add", made("xw", "matmul", joined, kernel), bias)
        sums: dict[str, Ref] = {}
        for place, letter in enumerate(block.order):
            stated = {"axis": -1, "start": place * units, "stop": (place + 1) * units}
            sums[letter] = made(letter, "slice", total, **stated)
        peepholes = dict(zip("ifo", diagonals, strict=True))

        def gate(letter: str, state: Ref) -> Ref:
            whole = sums[letter]
            if has_peepholes:
                peephole = made(f"{letter} peephole", "mul", state, peepholes[letter])
                whole = made(f"{letter} seen", "add", whole, peephole)
            added = node.number("forget_bias", block.forget_bias) if letter == "f" else 0.0
            if added:
                bias_ref: Ref = (node.graph, node.name, "forget bias")
                self.flow.constants[bias_ref] = ArrayTensor(np.array(added, np.float32))
                whole = made("f more", "add", whole, bias_ref)
            return made(f"{letter} gate", "sigmoid", whole)

        i, f = gate("i", c), gate("f", c)
        candidate = made("g", "tanh", sums["c"])
        state = made("sum", "add", made("kept", "mul", f, c), made("new", "mul", i, candidate))
        self.flow.names[state] = self.flow.names[node.graph, node.name, 0]
        clip = node.number("cell_clip", block.clip)
        if clip > 0:
            state = made("clip", "clip", state, low=-clip, high=clip)
        o, function = gate("o", state), made("co", "tanh", state)
        hidden = made("h", "mul", function, o)
        return [i, state, f, o, candidate, function, hidden]

    # -- loops of TensorFlow 1 ---------------------------------------------------------------------

    def _merge(self, node: GraphOperation, inputs: list[Ref]) -> None:
        sources = [self._graph.source(node, index) for index in range(2)]
        for place, source in enumerate(sources):
            start = sources[1 - place]
            if source is not None and start is not None and source.op == "NextIteration":
                following: Ref = (source.graph, *source.inputs[0])
                ref: Ref = (node.graph, node.name, 0)
                if self._is_same(following, ref):
                    self._add(node, "identity", [inputs[1 - place]])
                else:
                    self.flow.carried[ref] = Carried(following, inputs[1 - place])
                return
        self._add(node, "other", inputs, what="Merge")

    def _exit(self, node: GraphOperation, inputs: list[Ref]) -> None:
        """The last value of what a Merge carries."""
        switch = self._graph.source(node, 0)
        merge = self._graph.source(switch, 0) if switch is not None else None
        if merge is None or merge.op != "Merge":
            self._add(node, "identity", inputs)
            return
        for index in range(2):
            source = self._graph.source(merge, index)
            if source is not None and source.op == "NextIteration":
                following: Ref = (source.graph, *source.inputs[0])
                self._add(node, "move", [following], axes=0)
                outer: Ref = (node.graph, node.name, 0)
                self.flow.finals.setdefault(following, []).append(outer)
                return
        self._add(node, "identity", inputs)


def _integers(values: list[int]) -> Any:
    return ArrayTensor(np.array(values, np.int64))
