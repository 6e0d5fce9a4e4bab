"""The weights of the LSTM operators of a `.tflite` file, a flatbuffer that LiteRT runs.

An operator UNIDIRECTIONAL_SEQUENCE_LSTM, or LSTM with the full kernel, takes its arrays by number
(tensorflow/lite/kernels/lstm_shared.h); here they have these numbers' names. An operator whose
input was reversed, next to one with the same input that was not, is the backward half of a
Bidirectional.

The schema is the one that comes with ai-edge-litert. It checks no offsets but Python's own bounds,
so counts are checked here before any loop runs up to them, and numbers are read by `tensors`.

A whole model that is a chain of layers is one graph, from `model.x` to `model.y`. An entry of our
own in the file's metadata says which tensors are the arrays of the layers that are not LSTMs.

Otherwise we write each layer as the fused LSTM operator, between an input and an output. A backward
half is an operator between two REVERSE_V2, and CONCATENATION joins the two. Input `<layer>.x` is
(1, time, inputs). Output `<layer>.y` is every step's, (1, time, width); with
return_sequences=False, it is the last step's that each direction computes, (1, width), by
STRIDED_SLICE. The batch is one, because the states are variables of the file, which
`reset_all_variables` sets to zero.

LSTMs that a converter took apart are found in the file's graphs, read as a `Flow`. A converter
leaves a layer's steps one after the other (unrolled), or a WHILE whose body is a subgraph of its
own; there the list of all steps is a tensor that is cut in three and joined again around each new
step. Variables are the constants that a graph gives them which CALL_ONCE names, as what is made to
be trained on a device has it. Every tensor says its shape. Operators and their options:
tensorflow/lite/schema/schema.fbs and tensorflow/lite/kernels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing, carries_nothing
from lstmconvert.errors import CorruptFile, MissingPackage, SourceError, install
from lstmconvert.files.jsontext import JsonObject, canonical, parse_object
from lstmconvert.model import edit
from lstmconvert.model.activations import KERAS2, Activation, Functions
from lstmconvert.model.chain import Chain, Holds, Link
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.pergate import metadata
from lstmconvert.spelled.flow import Carried, Flow, FlowNode, Ref
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, SourceFile, Tensor
from lstmconvert.tensors.views import transposed

if TYPE_CHECKING:
    from lstmconvert.spelled.layers import Recovered


# -- the graph, as a flow ------------------------------------------------------------------------


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


class GraphTensor(NamedTuple):
    """One tensor: its name, its shape, and its numbers, if they are in the file."""

    name: str
    shape: tuple[int, ...]
    tensor: Tensor | None


class Subgraph(NamedTuple):
    """One graph of a file."""

    tables: Sequence[GraphTensor]
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
        self.flow.nodes[graph, place] = FlowNode(kind, tuple(inputs), stated)

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
        self.flow.nodes[inner] = FlowNode(kind, tuple(inputs), stated)
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
        self.flow.nodes[product] = FlowNode("matmul", tuple(inputs[:2]), {"turned": True})
        self._fused(graph, operator, "add", [product, inputs[2]])

    def _matmul(self, graph: int, operator: Operator) -> None:
        inputs, options = self._refs(graph, operator), operator.options
        is_turned = bool(options.AdjY()) if options is not None else False
        kind = "other" if options is not None and options.AdjX() else "matmul"
        self._add(graph, operator.outputs[0], kind, inputs, turned=is_turned, what="BATCH_MATMUL")

    def _split(self, graph: int, operator: Operator) -> None:
        inputs = self._refs(graph, operator)
        value, axis_ref = inputs[::-1] if operator.kind == "SPLIT" else (inputs[0], inputs[-1])
        axis = self.flow.integers(axis_ref)
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
        order = self.flow.integers(inputs[1]) if len(inputs) > 1 else None
        self._add(
            graph, operator.outputs[0], "transpose", inputs[:1],
            order=tuple(order) if order else None,
        )  # fmt: skip

    def _slice(self, graph: int, operator: Operator) -> None:
        inputs, place = self._refs(graph, operator), operator.outputs[0]
        begin, size = (self.flow.integers(ref) for ref in inputs[1:3])
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
        numbers = self.flow.integers(ref)
        node = self.flow.nodes.get(ref)
        if numbers is None and node is not None and node.kind == "concat":
            numbers = self.flow.integers(node.inputs[-1])
        return bool(numbers) and numbers is not None and numbers[-1] in allowed

    def _cuts(
        self, graph: int, place: int, at: Ref, cuts: Sequence[tuple[str, dict[str, Any]]]
    ) -> None:
        for number, (kind, stated) in enumerate(cuts):
            target: Ref = (graph, place) if number == len(cuts) - 1 else (graph, place, number)
            self.flow.nodes[target] = FlowNode(kind, (at,), stated)
            at = target
        if not cuts:
            self._add(graph, place, "identity", [at])

    def _strided(self, graph: int, operator: Operator) -> None:
        inputs, place, options = self._refs(graph, operator), operator.outputs[0], operator.options
        begin, end, stride = (self.flow.integers(ref) for ref in inputs[1:4])
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
        is_last = self.flow.is_last_axis(inputs[0], axis)
        for number, place in enumerate(operator.outputs):
            kind = "other" if is_last else "take"
            self._add(graph, place, kind, inputs[:1], axis=axis, index=number, axes=-1)

    def _pack(self, graph: int, operator: Operator) -> None:
        self._add(graph, operator.outputs[0], "stack", self._refs(graph, operator))

    def _gather(self, graph: int, operator: Operator) -> None:
        inputs, place = self._refs(graph, operator), operator.outputs[0]
        axis = operator.options.Axis() if operator.options is not None else 0
        chosen = self.flow.integers(inputs[1])
        if self.flow.is_last_axis(inputs[0], axis):
            self._add(graph, place, "other", inputs, what="GATHER")
        elif chosen is not None and len(chosen) == 1:
            self._add(graph, place, "take", inputs[:1], axis=axis, index=chosen[0])
        elif chosen is None:
            self._add(graph, place, "move", inputs[:1], counter=inputs[1])
        else:
            self._add(graph, place, "move", inputs[:1], time="unknown")

    def _reverse(self, graph: int, operator: Operator) -> None:
        inputs = self._refs(graph, operator)
        axes = self.flow.integers(inputs[1])
        is_last = axes is None or any(self.flow.is_last_axis(inputs[0], axis) for axis in axes)
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
                self.flow.nodes[inner] = FlowNode("identity", (start,))
                self.flow.nodes[outer] = FlowNode("identity", (start,))
                continue
            self.flow.carried[inner] = Carried(given, start)
            self.flow.nodes[outer] = FlowNode("move", (given,), {"axes": 0})
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
                flow.nodes[following] = FlowNode("other", (ref, new[0]), {"what": "append"})


# -- the file ------------------------------------------------------------------------------------


#: Number of an operator's input -> the name of the array there.
INPUTS: Mapping[int, str] = {
    **{1 + n: f"input_to_{gate}_weights" for n, gate in enumerate(GATES)},
    **{5 + n: f"recurrent_to_{gate}_weights" for n, gate in enumerate(GATES)},
    **{9 + n: f"cell_to_{gate}_weights" for n, gate in enumerate(("input", "forget", "output"))},
    **{12 + n: f"{gate}_gate_bias" for n, gate in enumerate(GATES)},
    16: "projection_weights",
    17: "projection_bias",
}
#: Inputs 20 to 23 scale a layer normalization, which has no place here.
_NORMS = range(20, 24)
_DTYPES: Mapping[int, DType] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 10: np.dtype("<f8")}
#: The integers that weights, peepholes and biases are when a converter quantized them
#: (tensorflow/lite/tools/optimize/operator_property.cc).
_INTEGERS: Mapping[int, DType] = {
    9: np.dtype("<i1"), 7: np.dtype("<i2"), 2: np.dtype("<i4"), 4: np.dtype("<i8"),
}  # fmt: skip
#: The errors of the generated code where a file points out of itself.
_ERRORS = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)


def schema() -> Any:
    """Return the generated schema.

    Raises:
        MissingPackage: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingPackage(
            "a .tflite file needs ai-edge-litert, which is not installed",
            hint=install("tflite"),
        ) from None
    return schema_py_generated


@dataclass(frozen=True, slots=True)
class Clips:
    """The bounds that an operator puts on its states: `cell`, `projection`; None is not a bound."""

    cell: float | None
    projection: float | None


@dataclass(frozen=True, slots=True)
class _Operator:
    inputs: tuple[int, ...]
    source: int
    reversed: bool
    clips: Clips


def read(file: Opened) -> Arrays:
    """Read the tensors of a file's LSTM operators, lazily, their clips, and our metadata.

    Raises:
        MissingPackage: ai-edge-litert is not installed.
        CorruptFile, LimitExceeded: it is not such a flatbuffer.
        SourceError: its weights are quantized, or it has no LSTM operator.
    """
    generated, source = schema(), file.source
    limits.FLATBUFFER_BYTES.check(source.size, source.path, "its size")
    try:
        opened = _File(source, generated)
        tensors, texts, clips = opened.read()
        spelled = None if clips else opened.spelled()  # each operator has its clips
    except _ERRORS as error:
        raise CorruptFile(
            "not a flatbuffer of LiteRT, or damaged",
            where=source.path,
            found=f"{type(error).__name__}: {error}"[:120],
        ) from None
    if spelled is not None:
        return _taken_apart(spelled, source)
    notes = tuple(
        f"{prefix.rstrip('.') or 'lstm'}: weights of few bits, read as the numbers that they stand "
        "for; the file also rounds what it is given as it runs, and a layer does not"
        for prefix in opened.quantized
    )
    return Arrays(
        tensors, texts, completed=lambda layer: _completed(layer, clips), notes=notes
    )


def _taken_apart(spelled: Recovered, source: SourceFile) -> Arrays:
    """Return the arrays of LSTMs that are not operators, under the names of an operator's."""
    tensors: dict[str, Tensor] = {}
    layers = {f"lstm_{number}": layer for number, layer in enumerate(spelled.layers)}
    for path, layer in layers.items():
        parts = {"kernel": "input_to_{}_weights", "recurrent_kernel": "recurrent_to_{}_weights"}
        parts |= {"bias": "{}_gate_bias", "peephole": "cell_to_{}_weights"}
        if layer.cell.options.input_forget:
            raise SourceError(
                "an LSTM whose input gate is one less its forget gate", where=source.path
            )
        for gate, weights in layer.cell.gates.items():
            for part, tensor in weights.tensors.items():
                if part in parts:
                    tensors[f"{path}.{parts[part].format(gate)}"] = transposed(tensor)
        projection = layer.cell.parts.get("projection")
        if projection is not None:
            tensors[f"{path}.projection_weights"] = transposed(projection)
    return Arrays(
        tensors,
        {},
        completed=lambda layer: layers[layer.path],
        notes=spelled.notes,
    )


class _File:
    def __init__(self, source: SourceFile, generated: Any) -> None:
        self._source, self._schema = source, generated
        self._data = bytes(source.read_at(0, source.size))
        self._model = generated.Model.GetRootAs(self._data, 0)
        self._codes = [
            max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            for code in self._items(self._model, "OperatorCodes")
        ]
        #: The prefixes of the operators whose weights are integers with scales.
        self.quantized: list[str] = []

    def _items(self, table: Any, name: str) -> Iterator[Any]:
        """Yield the tables of a vector, whose length is checked."""
        count = getattr(table, f"{name}Length")()
        if count > len(self._data) // 4:
            raise CorruptFile(f"more {name} than the file has room for", where=self._source.path)
        limits.ONNX_NODES.check(count, self._source.path, f"the number of {name}")
        for number in range(count):
            yield getattr(table, name)(number)

    def read(self) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Clips]]:
        arrays_by_name: dict[str, Tensor] = {}
        clips: dict[str, Clips] = {}
        total = 0
        for graph in self._items(self._model, "Subgraphs"):
            tensors = list(self._items(graph, "Tensors"))
            operators, halves = self._operators(graph)
            widened = self._widened(graph)
            for number, operator in enumerate(operators):
                prefix, arrays = self._arrays(
                    operator, tensors, widened, _prefix(number, halves)
                )
                if arrays.keys() & arrays_by_name.keys():
                    raise CorruptFile("two arrays of one name", where=self._source.path)
                arrays_by_name |= arrays
                if any(tensors[n].Type() in _INTEGERS for n in operator.inputs[1:16] if n >= 0):
                    self.quantized.append(prefix)
                total += sum(tensor.nbytes for tensor in arrays.values())
                # A buffer may be shared, but not by thousands: a small file would be a large one.
                limits.check_expansion(total, self._source.size, self._source.path)
                clips[prefix] = operator.clips
        return arrays_by_name | self._others(), self._texts(), clips

    def spelled(self) -> Recovered:
        """Return the LSTMs that a converter took apart into plain operators.

        Raises:
            SourceError: there are none.
        """
        from lstmconvert.spelled.layers import recovered  # rarely needed

        graphs = [*map(self._subgraph, self._graphs())]
        result = recovered(flow_of(graphs))
        if any(each.kind == "CALL_ONCE" for graph in graphs for each in graph.operators):
            begun = (
                "the weights that are variables have the values that the file begins with; what "
                "they became since is in the files that it saved"
            )
            result = replace(result, more=(begun,))
        if not result.layers:
            raise SourceError(
                "no operator of it is an LSTM, and no cell of plain operators is in it",
                where=self._source.path,
                found=f"operators {', '.join(self._operator_names()[:12])}",
                expected="UNIDIRECTIONAL_SEQUENCE_LSTM, LSTM, or its steps",
                hint=(
                    f"what looks like a cell is none: {result.refused[0]}"
                    if result.refused
                    else "its weights are variables that the file does not hold: convert again, "
                    "with TFLiteConverter.from_keras_model"
                    if "VAR_HANDLE" in self._operator_names()
                    else "tf_keras's LSTMs become one operator when they are converted: convert "
                    "from the Keras file instead"
                ),
            )
        return result

    def _graphs(self) -> Iterator[Any]:
        return self._items(self._model, "Subgraphs")

    def _subgraph(self, graph: Any) -> Subgraph:
        builtin = {
            number: name
            for name, number in vars(self._schema.BuiltinOperator).items()
            if isinstance(number, int)
        }
        options = {
            number: name
            for name, number in vars(self._schema.BuiltinOptions).items()
            if isinstance(number, int)
        }
        operators = [
            Operator(
                builtin.get(self._codes[item.OpcodeIndex()], "CUSTOM"),
                _ints(item, "Inputs"),
                _ints(item, "Outputs"),
                self._options_of(item, options.get(item.BuiltinOptionsType(), "NONE")),
            )
            for item in self._items(graph, "Operators")
        ]
        tables = [self._table(table) for table in self._items(graph, "Tensors")]
        taken = {n for item in operators for n in (*item.inputs, *item.outputs) if n >= 0}
        ends = _ints(graph, "Inputs"), _ints(graph, "Outputs")
        if max({*taken, *ends[0], *ends[1]}, default=0) >= max(len(tables), 1):
            raise CorruptFile(
                "an operator takes a tensor that is not there", where=self._source.path
            )
        return Subgraph(tables, operators, *ends)

    def _options_of(self, operator: Any, name: str) -> Any:
        table = operator.BuiltinOptions()
        if table is None or name == "NONE":
            return None
        options = getattr(self._schema, name)()
        options.Init(table.Bytes, table.Pos)
        return options

    def _table(self, table: Any) -> GraphTensor:
        shape = _ints(table, "Shape")
        offset, size = self._buffer(table.Buffer())
        dtype = DTYPES.get(table.Type())
        tensor: Tensor | None = None
        if dtype is None or not size or min(shape, default=0) < 0:
            return GraphTensor(_text(table.Name()), shape, None)
        if size == int(np.prod(shape, dtype=object)) * dtype.itemsize:
            tensor = FileTensor(self._source, offset, shape, dtype)
        return GraphTensor(_text(table.Name()), shape, tensor)

    def _others(self) -> dict[str, Tensor]:
        """Return the arrays of layers that are not LSTMs, of a file of ours."""
        for entry in self._items(self._model, "Metadata"):
            if entry.Name() == _KEPT.encode():
                place = self._buffer(entry.Buffer())
                limits.JSON_BYTES.check(place[1], self._source.path, "the JSON text")
                where = f"{self._source.path}: {_KEPT}"
                return self._kept(parse_object(bytes(self._source.read_at(*place)), where), where)
        return {}

    def _kept(self, stated: JsonObject, where: str) -> dict[str, Tensor]:
        tables = {
            _text(table.Name()): table
            for graph in self._items(self._model, "Subgraphs")
            for table in self._items(graph, "Tensors")
        }
        tensors: dict[str, Tensor] = {}
        for name, item in stated.items():
            match item:
                case [[*shape], [*order]] if (
                    name in tables and sorted(order) == [*range(len(shape))]
                ):
                    pass
                case _:
                    raise CorruptFile("not an array of the file", where=f"{where}.{name}"[:200])
            array = self._tensor(tables[name], name).read()
            turned = tuple(shape[axis] for axis in order)
            # A convolution's window has two axes there, of which the first is 1.
            if tuple(n for n in array.shape if n != 1) != tuple(n for n in turned if n != 1):
                raise CorruptFile("an array does not have its shape", where=f"{where}.{name}"[:200])
            array = array.reshape(turned)
            back = [order.index(axis) for axis in range(len(order))]
            tensors[name] = ArrayTensor(np.ascontiguousarray(array.transpose(back)))
        return tensors

    def _operator_names(self) -> list[str]:
        kinds = vars(self._schema.BuiltinOperator).items()
        names = {number: name for name, number in kinds if isinstance(number, int)}
        return [names.get(code, str(code)) for code in sorted(set(self._codes))]

    def _texts(self) -> dict[str, str]:
        for entry in self._items(self._model, "Metadata"):
            if entry.Name() == metadata.KEY.encode():
                tensor = self._buffer(entry.Buffer())
                limits.JSON_BYTES.check(tensor[1], self._source.path, "the JSON text")
                raw = bytes(self._source.read_at(*tensor))
                value = parse_object(raw, f"{self._source.path}: {metadata.KEY}")
                return {metadata.KEY: canonical(value)}
        return {}

    def _buffer(self, number: int) -> tuple[int, int]:
        """Return the offset and size of a buffer's bytes."""
        if not 0 <= number < self._model.BuffersLength():
            raise CorruptFile("no such buffer", where=self._source.path, found=number)
        buffer = self._model.Buffers(number)
        if buffer.Offset() > 1:  # behind the flatbuffer, in a large file
            return buffer.Offset(), buffer.Size()
        table = buffer._tab
        field = table.Offset(4)  # the generated code gives a copy, and no offset
        return (table.Vector(field), table.VectorLen(field)) if field else (0, 0)

    def _operators(self, graph: Any) -> tuple[list[_Operator], list[int | None]]:
        """Return the LSTM operators of a graph, and for each its forward half, if it has one."""
        builtin = self._schema.BuiltinOperator
        turned: dict[int, int] = {}
        result: list[_Operator] = []
        for operator in self._items(graph, "Operators"):
            code, inputs = self._codes[operator.OpcodeIndex()], operator.InputsAsNumpy()
            if code == builtin.REVERSE_V2 and len(inputs):
                turned[int(operator.OutputsAsNumpy()[0])] = int(inputs[0])
            elif code in (builtin.UNIDIRECTIONAL_SEQUENCE_LSTM, builtin.LSTM):
                given = tuple(int(number) for number in inputs[:32])
                if len(given) < 18:  # the basic kernel of LSTM joins its four matrices
                    continue
                options = self._options(operator, code)
                origin = turned.get(given[0], given[0])
                result.append(_Operator(given, origin, given[0] in turned, options))
        return result, [_forward_half(operator, result) for operator in result]

    def _options(self, operator: Any, code: int) -> Clips:
        name = "LSTMOptions"
        if code == self._schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM:
            name = "UnidirectionalSequenceLSTMOptions"
        table, options = operator.BuiltinOptions(), getattr(self._schema, name)()
        if table is None:
            return Clips(None, None)
        options.Init(table.Bytes, table.Pos)
        function = options.FusedActivationFunction()
        if function != self._schema.ActivationFunctionType.TANH:
            raise SourceError(
                "an LSTM operator with another function than tanh",
                where=self._source.path,
                found=f"fused_activation_function {function}",
                expected="TANH (4)",
            )
        return Clips(options.CellClip() or None, options.ProjClip() or None)

    def _widened(self, graph: Any) -> dict[int, int]:
        """Return tensors that are float16 ones in float32: output -> input of a DEQUANTIZE."""
        return {
            int(operator.OutputsAsNumpy()[0]): int(operator.InputsAsNumpy()[0])
            for operator in self._items(graph, "Operators")
            if self._codes[operator.OpcodeIndex()] == self._schema.BuiltinOperator.DEQUANTIZE
        }

    def _arrays(
        self, operator: _Operator, tensors: list[Any], widened: Mapping[int, int], prefix: str
    ) -> tuple[str, dict[str, Tensor]]:
        inputs = operator.inputs
        if any(inputs[n] >= 0 for n in _NORMS if n < len(inputs)):
            raise SourceError(
                "an LSTM operator with layer normalization", where=self._source.path
            )
        given = {role: inputs[number] for number, role in INPUTS.items() if inputs[number] >= 0}
        places = {role: widened.get(number, number) for role, number in given.items()}
        if any(not 0 <= number < len(tensors) for number in places.values()):
            raise CorruptFile("an operator takes a tensor that is not there", where=prefix)
        names = {role: _text(tensors[number].Name()) for role, number in places.items()}
        prefixes = {name.removesuffix(role) for role, name in names.items() if name.endswith(role)}
        if len(prefixes) == 1 and all(name.endswith(role) for role, name in names.items()):
            prefix = prefixes.pop()  # we wrote it
        return prefix, {
            prefix + role: self._tensor(tensors[number], role) for role, number in places.items()
        }

    def _tensor(self, table: Any, role: str) -> Tensor:
        where = f"{self._source.path}: {role}"
        dtype = {**_DTYPES, **_INTEGERS}.get(table.Type())
        if dtype is None:
            raise SourceError(
                "weights of a type that is not read",
                where=where,
                found=f"tensor type {table.Type()}",
                expected="float32, float16, or int8 with scales",
                hint="convert the model again without optimizations",
            )
        limits.RANK.check(table.ShapeLength(), where, "the number of its axes")
        shape = tuple(int(size) for size in table.ShapeAsNumpy()) if table.ShapeLength() else ()
        offset, size = self._buffer(table.Buffer())
        if any(n < 0 for n in shape) or size != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise CorruptFile(
                "its numbers do not have its shape", where=where, found=size, expected=str(shape)
            )
        stored = FileTensor(self._source, offset, shape, dtype)
        return stored if table.Type() in _DTYPES else _dequantized(stored, table, where)


def _dequantized(stored: Tensor, table: Any, where: str) -> Tensor:
    """Return the float32 numbers that integers stand for: (q - zero point) * scale, with one scale,
    or one for each row (tensorflow/lite/schema/schema.fbs, QuantizationParameters).

    Raises:
        CorruptFile: it has no scale, or not as many as rows.
    """
    given = table.Quantization()
    count = given.ScaleLength() if given is not None else 0
    axis = given.QuantizedDimension() if given is not None else 0
    rows = stored.shape[axis] if 0 <= axis < len(stored.shape) else 1
    if count not in (1, rows) or (count > 1 and axis) or given.ZeroPointLength() not in (0, count):
        raise CorruptFile(
            "integers without a scale, or with another number of scales",
            where=where,
            found=count,
            expected=f"1, or {rows}, along the first axis",
        )
    shape = (count, *[1] * (len(stored.shape) - 1)) if count > 1 else ()
    scale = np.array([given.Scale(n) for n in range(count)], np.float32).reshape(shape)
    zero = [given.ZeroPoint(n) for n in range(count)] if given.ZeroPointLength() else [0] * count
    whole = stored.read().astype(np.int64) - np.array(zero, np.int64).reshape(shape)
    return ArrayTensor((whole.astype(np.float32) * scale).astype(np.float32))


def _completed(layer: LSTMLayer, clips: Mapping[str, Clips]) -> LSTMLayer:
    """Return a layer whose cells have the clips of their operators."""

    def clipped(side: str, _: int, cell: Cell) -> Cell:
        bare, sided = f"{layer.path}.", f"{layer.path}.{side}."
        clip = clips.get(sided, clips.get(bare, Clips(None, None)))
        options = replace(cell.options, cell_clip=clip.cell, projection_clip=clip.projection)
        return replace(cell, options=options)

    return edit.map_cells(layer, clipped)


def _forward_half(backward: _Operator, operators: list[_Operator]) -> int | None:
    """Return the number of the forward half of a backward one."""
    if not backward.reversed:
        return None
    for number, other in enumerate(operators):
        if other.source == backward.source and not other.reversed:
            return number
    return None


def _prefix(number: int, halves: list[int | None]) -> str:
    """Return the prefix of an operator's arrays: lstm., lstm_1.forward., …"""
    forward = halves[number]
    leader = number if forward is None else forward
    count = sum(half is None for half in halves[:leader])
    name = "lstm." if count == 0 else f"lstm_{count}."
    if forward is not None:
        return f"{name}backward."
    return f"{name}forward." if number in halves else name


def _ints(table: Any, name: str) -> tuple[int, ...]:
    """Return a vector of integers; empty where there is none."""
    if not getattr(table, f"{name}Length")():
        return ()
    return tuple(int(number) for number in getattr(table, f"{name}AsNumpy")())


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")


#: The entry of the metadata that says which tensors are arrays of layers that are not LSTMs.
_KEPT = f"{metadata.KEY}_others"
#: Function -> its operator.
_OPERATORS: Mapping[str, str] = {
    "tanh": "TANH",
    "sigmoid": "LOGISTIC",
    "relu": "RELU",
    "elu": "ELU",
    "softmax": "SOFTMAX",
    "leaky_relu": "LEAKY_RELU",
}
HOLDS = Holds(
    title="TensorFlow Lite",
    kinds=frozenset({"Dense", "Conv1D", "BatchNormalization", "PReLU", "Activation"}),
    activations=Functions(
        (
            *map(Activation, ("tanh", "sigmoid", "relu", "softmax")),
            Activation("elu", {"alpha": 1.0}),
        ),
        (("leaky_relu", ("negative_slope",)),),
    ),
    paddings=("causal", "same", "valid"),
    groups=True,
    # tensorflow/lite/schema/schema.fbs, `BuiltinOperator`: it has LSTMs and a plain RNN.
    reasons={"GRU": "it has no such operator, and WHILE would run a second graph for each step"},
)


carried = carries_nothing


_STATES = (18, 19)
_COUNT = 24
_VERSION = 3


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        MissingPackage: ai-edge-litert is not installed.
        LimitExceeded: more than a flatbuffer holds.
    """
    kinds = schema()
    import flatbuffers  # a package that ai-edge-litert brings

    size = sum(tensor.nbytes for tensor in content.tensors.values())
    limits.FLATBUFFER_BYTES.check(size, path, "the weights together")
    graph = _Graph(kinds, content.tensors)
    for prefix, layer in content.layers:
        if content.chain is None:
            graph.layer(layer, prefix)
    if content.chain is not None:
        graph.chain(content.chain, content)
    text = content.metadata()[metadata.KEY]
    model = graph.model(text.encode())
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


class _Graph:
    """Builds the one graph of a model."""

    def __init__(self, generated: Any, tensors: Mapping[str, Tensor]) -> None:
        self._schema, self._arrays = generated, tensors
        self._graph = generated.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._graph.name = "main"
        self._buffers = [generated.BufferT()]  # the empty one, by convention
        self._codes: list[int] = []
        self._is_sequence = True
        #: Name of an array of a layer other than an LSTM -> its shape, and how its axes are turned.
        self.kept: JsonObject = {}

    def model(self, text: bytes) -> Any:
        model = self._schema.ModelT()
        model.version, model.description = _VERSION, "lstmconvert"
        model.subgraphs, model.buffers = [self._graph], self._buffers
        model.operatorCodes = [self._code(code) for code in self._codes]
        entry = self._schema.MetadataT()
        entry.name, entry.buffer = metadata.KEY, self._buffer(np.frombuffer(text, np.uint8))
        model.metadata = [entry]
        if self.kept:
            kept = self._schema.MetadataT()
            raw = np.frombuffer(canonical(self.kept).encode(), np.uint8)
            kept.name, kept.buffer = _KEPT, self._buffer(raw)
            model.metadata.append(kept)
        return model

    def layer(self, layer: LSTMLayer, prefix: str) -> None:
        x = self._given(layer.name, layer.input_dim)
        self._give(self._layer(layer, prefix, x), layer.name)

    def chain(self, chain: Chain, content: Writing) -> None:
        """Add a whole model, from `model.x` to `model.y`."""
        prefixes = {layer.name: prefix for prefix, layer in content.layers}
        fitted = {layer.name: layer for _, layer in content.layers}
        y = self._given("model", chain.inputs)
        for link in chain.links:
            if link.layer is not None:
                y = self._layer(fitted[link.name], prefixes[link.name], y)
                self._is_sequence = link.return_sequences and self._is_sequence
            else:
                y = _WRITERS[link.kind](self, link, y)
        self._give(y, "model")

    def _given(self, name: str, width: int) -> int:
        x = self._tensor(f"{name}.x", (1, 1, width), signature=(1, -1, width))
        self._graph.inputs.append(x)
        return x

    def _give(self, y: int, name: str) -> None:
        self._graph.tensors[y].name = f"{name}.y"
        self._graph.outputs.append(y)

    # ---- the other layers of a chain ---------------------------------------------------------

    def _made(
        self, kind: str, inputs: list[int], name: str, width: int, options: Any = None
    ) -> int:
        """Add an operator whose output is a step, or a sequence of steps, of that width."""
        shape = (1, 1, width) if self._is_sequence else (1, width)
        signature = (1, -1, width) if self._is_sequence else (1, width)
        y = self._tensor(name, shape, signature=signature)
        self._operator(kind, inputs, y, options)
        return y

    def _array(
        self, link: Link, role: str, order: tuple[int, ...] | None = None, *, row: bool = False
    ) -> int:
        """Add an array of a layer, its axes in another order where the operator wants that.

        `row`: an axis of 1 comes after the first one.
        """
        name = link.prefix + role
        array = self._arrays[name].read()
        turned = array if order is None else array.transpose(order)
        self.kept[name] = [list(array.shape), list(order or range(array.ndim))]
        if row:
            turned = turned[:, np.newaxis]
        return self._tensor(name, turned.shape, data=turned)

    def _number(self, value: float, name: str) -> int:
        return self._tensor(name, (1,), data=np.array([value], np.float32))

    def _function(self, link: Link, x: int) -> int:
        kind = _OPERATORS.get(link.activation.name)
        if kind is None:
            return x
        options = None
        if kind == "SOFTMAX":
            options = self._schema.SoftmaxOptionsT()
            options.beta = 1.0
        elif kind == "LEAKY_RELU":
            options = self._schema.LeakyReluOptionsT()
            options.alpha = link.activation.constants["negative_slope"]
        return self._made(kind, [x], f"{link.prefix}function", link.outputs, options)

    def dense(self, link: Link, x: int) -> int:
        options = self._schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        bias = self._array(link, "bias") if "bias" in link.arrays else -1
        inputs = [x, self._array(link, "kernel", (1, 0)), bias]
        y = self._made("FULLY_CONNECTED", inputs, f"{link.prefix}sum", link.outputs, options)
        return self._function(link, y)

    def conv1d(self, link: Link, x: int) -> int:
        """CONV_2D over images of one row, with zeros before the first step where it is causal."""
        start, made = link.prefix, self._schema
        reach = (link.window - 1) * link.dilation
        if link.padding == "causal" and reach:
            edges = np.array([[0, 0], [reach, 0], [0, 0]], np.int32)
            given = [x, self._tensor(f"{start}edges", edges.shape, data=edges)]
            x = self._made("PAD", given, f"{start}padded", link.inputs, made.PadOptionsT())
        row = self._tensor(f"{start}row", (1,), data=np.array([1], np.int32))
        image = self._tensor(f"{start}image", (1, 1, 1, link.inputs),
                             signature=(1, 1, -1, link.inputs))  # fmt: skip
        self._operator("EXPAND_DIMS", [x, row], image, made.ExpandDimsOptionsT())
        options = made.Conv2DOptionsT()
        options.strideW = options.strideH = options.dilationHFactor = 1
        options.dilationWFactor = link.dilation
        same = link.padding == "same"
        options.padding = made.Padding.SAME if same else made.Padding.VALID
        window = self._array(link, "kernel", (2, 0, 1), row=True)
        bias = np.zeros(link.outputs, np.float32)  # the operator has always one
        inputs = [image, window, self._array(link, "bias") if "bias" in link.arrays else
                  self._tensor(f"{start}no_bias", bias.shape, data=bias)]  # fmt: skip
        summed = self._tensor(f"{start}filtered", (1, 1, 1, link.outputs),
                              signature=(1, 1, -1, link.outputs))  # fmt: skip
        self._operator("CONV_2D", inputs, summed, options)
        squeezed = made.SqueezeOptionsT()
        squeezed.squeezeDims = [1]
        y = self._made("SQUEEZE", [summed], f"{start}sum", link.outputs, squeezed)
        return self._function(link, y)

    def batch_normalization(self, link: Link, x: int) -> int:
        variance = self._array(link, "moving_variance")
        shape, start = (link.outputs,), link.prefix
        wide = self._tensor(f"{start}variance", shape)
        epsilon = self._number(link.epsilon, f"{start}epsilon")
        self._operator("ADD", [variance, epsilon], wide, self._schema.AddOptionsT())
        scale = self._tensor(f"{start}scale", shape)
        self._operator("RSQRT", [wide], scale, None)
        inputs = [x, self._array(link, "moving_mean")]
        width, made = link.outputs, self._schema
        y = self._made("SUB", inputs, f"{start}centred", width, made.SubOptionsT())
        y = self._made("MUL", [y, scale], f"{start}scaled", width, made.MulOptionsT())
        for role, kind in (("gamma", "MUL"), ("beta", "ADD")):
            if role in link.arrays:
                options = getattr(self._schema, f"{kind.capitalize()}OptionsT")()
                inputs = [y, self._array(link, role)]
                y = self._made(kind, inputs, f"{start}{role}.y", link.outputs, options)
        return y

    def prelu(self, link: Link, x: int) -> int:
        inputs = [x, self._array(link, "alpha")]
        return self._made("PRELU", inputs, f"{link.prefix}y", link.outputs)

    def activation(self, link: Link, x: int) -> int:
        return self._function(link, x)

    def _layer(self, layer: LSTMLayer, prefix: str, x: int) -> int:
        """Add an LSTM layer, and return its output."""
        name = layer.name
        both = layer.backward is not None
        is_last = layer.forward.options.return_sequences is False
        outputs = []
        for side, direction in layer.directions:
            back, y = side == "backward", x
            if back:
                y = self._reversed(y, layer.input_dim, f"{name}.x.reversed")
            for index, cell in enumerate(direction.lstm_cells):
                place = f"{side}." if both else ""
                place += f"cells.{index}." if len(direction.cells) > 1 else ""
                y = self._lstm(cell, y, prefix + place)
            if is_last:
                # Of the backward half the last step that it computes, which is the first in time.
                y = self._last_step(y, cell.recurrent_dim, f"{name}.{side}.last")
            elif back:
                y = self._reversed(y, cell.recurrent_dim, f"{name}.backward.y")
            outputs.append(y)
        y = outputs[0]
        if both:
            width = sum(half.lstm_cells[-1].recurrent_dim for _, half in layer.directions)
            y = self._joined(outputs, (1, width) if is_last else (1, 1, width), f"{name}.y")
        return y

    def _lstm(self, cell: Cell, x: int, prefix: str) -> int:
        inputs = [-1] * _COUNT
        inputs[0] = x
        for number, role in INPUTS.items():
            if prefix + role in self._arrays:
                inputs[number] = self._constant(prefix + role)
        for number, width in zip(_STATES, (cell.recurrent_dim, cell.units), strict=True):
            inputs[number] = self._tensor(f"{prefix}state{number}", (1, width), variable=True)
        options = self._schema.UnidirectionalSequenceLSTMOptionsT()
        options.fusedActivationFunction = self._schema.ActivationFunctionType.TANH
        options.cellClip = cell.options.cell_clip or 0.0
        options.projClip = cell.options.projection_clip or 0.0
        y = self._tensor(f"{prefix}y", (1, 1, cell.recurrent_dim), signature=(1, -1, -1))
        self._operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, y, options)
        return y

    def _reversed(self, x: int, width: int, name: str) -> int:
        axis = self._tensor(f"{name}.axis", (1,), data=np.ones(1, np.int32))
        y = self._tensor(name, (1, 1, width), signature=(1, -1, width))
        self._operator("REVERSE_V2", [x, axis], y, self._schema.ReverseV2OptionsT())
        return y

    def _last_step(self, x: int, width: int, name: str) -> int:
        """Return (1, width): x[:, -1, :] of x (1, time, width)."""
        options = self._schema.StridedSliceOptionsT()
        # A bit for each axis: whether `begin` or `end` is not looked at, and whether the axis goes.
        options.beginMask, options.endMask, options.shrinkAxisMask = 0b101, 0b111, 0b010
        given = [[0, -1, 0], [0, 0, 0], [1, 1, 1]]
        ends = [
            self._tensor(f"{name}.{end}", (3,), data=np.array(numbers, np.int32))
            for end, numbers in zip(("begin", "end", "strides"), given, strict=True)
        ]
        y = self._tensor(name, (1, width), signature=(1, width))
        self._operator("STRIDED_SLICE", [x, *ends], y, options)
        return y

    def _joined(self, parts: list[int], shape: tuple[int, ...], name: str) -> int:
        """Join the outputs of two directions along their last axis; `shape` is that of one step."""
        options = self._schema.ConcatenationOptionsT()
        options.axis = len(shape) - 1
        signature = tuple(-1 if axis == 1 and len(shape) > 2 else n for axis, n in enumerate(shape))
        y = self._tensor(name, shape, signature=signature)
        self._operator("CONCATENATION", parts, y, options)
        return y

    def _constant(self, name: str) -> int:
        array = self._arrays[name].read()
        return self._tensor(name, array.shape, data=array)

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        data: Array | None = None,
        variable: bool = False,
        signature: tuple[int, ...] | None = None,
    ) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.isVariable = name, list(shape), variable
        tensor.hasRank = True
        if signature is not None:
            tensor.shapeSignature = list(signature)
        types = self._schema.TensorType
        tensor.type = types.FLOAT32
        if data is not None:
            tensor.type = types.INT32 if data.dtype == np.int32 else types.FLOAT32
            tensor.buffer = self._buffer(np.ascontiguousarray(data).reshape(-1).view(np.uint8))
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _buffer(self, data: Array) -> int:
        buffer = self._schema.BufferT()
        buffer.data = data
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _operator(self, kind: str, inputs: list[int], output: int, options: Any) -> None:
        code = getattr(self._schema.BuiltinOperator, kind)
        if code not in self._codes:
            self._codes.append(code)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.index(code)
        operator.inputs, operator.outputs = inputs, [output]
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, name)
            operator.builtinOptions = options
        self._graph.operators.append(operator)

    def _code(self, number: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.version = number, 1
        code.deprecatedBuiltinCode = min(number, 127)  # one byte, for readers before 2020
        return code


_WRITERS: Mapping[str, Callable[[_Graph, Link, int], int]] = {
    "Dense": _Graph.dense,
    "Conv1D": _Graph.conv1d,
    "BatchNormalization": _Graph.batch_normalization,
    "PReLU": _Graph.prelu,
    "Activation": _Graph.activation,
}
