"""What a graph of TensorFlow 1 says about its cells: the one beside a checkpoint, or a frozen one.

A cell of TensorFlow 1 adds its forget bias, applies its activation and clips its state by
operations of the graph, which `prefix.meta` holds (tensorflow/python/ops/rnn_cell_impl.py of 1.15,
`BasicLSTMCell.call` and `LSTMCell.call`):

    i, j, f, o = split(matmul(concat([x, h]), kernel) + bias)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * activation(j)    [clipped]
    h = activation(c) * sigmoid(o)                                   [projected, clipped]

They are followed from the variable of the kernel on, which is a constant in a frozen graph. What is
not written like that stays unknown. A cell that is one operation says all by its attributes.

`LayerNormBasicLSTMCell` of tf.contrib normalises each of i, j, f, o behind the split, and c, by
`tf.nn.moments` and `tf.nn.batch_normalization` (contrib/rnn/python/ops/rnn_cell.py,
contrib/layers/python/layers/layers.py, `layer_norm`). Such operations are stepped over.

The operation of cuDNN takes one vector. Keras makes it of the matrices of a layer, one gate after
the other, those of the input and then those of the state, each (units, inputs), and behind them
the biases in the same order; the gates are i f c o (keras/layers/rnn/lstm.py, `gpu_lstm`, and
gru_lstm_utils.py, `canonical_to_params`). MXNet cuts it so too, of several layers and both
directions: all matrices, layer by layer and direction by direction, and behind them all biases
(mxnet/rnn/rnn_cell.py, `FusedRNNCell._slice_weights`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lstmconvert.model.activations import KERAS2, LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.gates import Gate, by_letters
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, weights_of
from lstmconvert.model.naming import layer_names
from lstmconvert.model.options import (
    UNKNOWN,
    CellOptions,
    DirectionOptions,
    LayerOptions,
    Unknown,
)
from lstmconvert.spelled.flow import Flow
from lstmconvert.tensorflow.formats.graphdef import AttrValue, Graph, Node
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import Reshaped, columns, transposed

#: Operations that hand on what they are given.
_PASSING = frozenset({"Identity", "Enter", "ReadVariableOp", "Switch", "Cast"})
#: Operations that hold a variable, whose numbers are in a checkpoint.
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable"})
#: Variables, and what they are in a frozen graph.
_WEIGHTS = VARIABLES | {"Const"}
_ADDING = frozenset({"Add", "AddV2", "BiasAdd", "BiasAddV1"})
_JOINING = frozenset({"ConcatV2", "Concat"})
_FUNCTIONS: Mapping[str, Activation] = {
    "Tanh": TANH,
    "Identity": LINEAR,
    **{name.capitalize(): KERAS2[name] for name in ("relu", "sigmoid", "elu", "selu")},
    **{name.capitalize(): KERAS2[name] for name in ("softsign", "softplus")},
}


class _Block(NamedTuple):
    """A cell that is one operation (tensorflow/core/ops/rnn_ops.cc): which input is its kernel, the
    clip of the cell state and the forget bias that it has unless it says another, and the order of
    its gates. After the kernel come three peepholes and the bias."""

    kernel: int
    clip: float
    forget_bias: float
    order: str = "icfo"


BLOCKS: Mapping[str, _Block] = {
    "LSTMBlockCell": _Block(3, 3.0, 1.0),
    "BlockLSTM": _Block(4, 3.0, 1.0),
    "BlockLSTMV2": _Block(4, 0.0, 0.0, "ifco"),
}
#: So many nodes are looked at for what feeds a cell.
_LOOKED_AT = 200
#: So many terms are added before a gate's function, and so many layers run on one cell, at most.
_SUMMANDS, _DEEPEST = 4, 64
#: The outputs of the split.
_CELL, _FORGET, _OUTPUT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What a graph says about the cells that run on one kernel.

    Fields: `forget_bias`, `activation`, `output_activation`, `cell_clip`, `projection_clip`, as
    `CellOptions` has them, `UNKNOWN` where the graph is not read; `layers`: how many layers of a
    stack run on this kernel; `order` of its gates.
    """

    forget_bias: float | Unknown = UNKNOWN
    activation: Activation | Unknown = UNKNOWN
    output_activation: Activation | Unknown | None = UNKNOWN
    cell_clip: float | Unknown | None = UNKNOWN
    projection_clip: float | Unknown | None = UNKNOWN
    layers: int = 1
    order: str = "icfo"


def facts(graph: Graph) -> dict[str, CellFacts]:
    """Return the name of a kernel's variable -> what the graph says about its cells."""
    return _CellReader(graph).facts()


_NO = AttrValue()


class _CellReader:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._splits: dict[str, list[Node]] = {}
        self._blocks: dict[str, list[Node]] = {}
        for node in graph.nodes.values():
            if node.op in BLOCKS:
                kernel = self._variable(graph.source(node, BLOCKS[node.op].kernel))
                if kernel is not None:
                    self._blocks.setdefault(kernel, []).append(node)
            elif node.op in ("Split", "SplitV"):
                kernel = self._kernel_of(node)
                if kernel is not None:
                    self._splits.setdefault(kernel, []).append(node)

    def facts(self) -> dict[str, CellFacts]:
        result: dict[str, CellFacts] = {}
        for kernel, nodes in self._blocks.items():
            result[kernel] = _agreed([self._block(node) for node in nodes], 1)
        for kernel, nodes in self._splits.items():
            cells = [self._cell(node) for node in nodes]
            result[kernel] = _agreed(cells, self._layers(nodes))
        return result

    # -- from a split back to its kernel -----------------------------------------------------

    def _kernel_of(self, split: Node) -> str | None:
        product = self._product(split)
        if product is None:
            return None
        names = [self._variable(self._graph.source(product, index)) for index in range(2)]
        return next((name for name in names if name is not None), None)

    def _product(self, split: Node) -> Node | None:
        """Return the product with the kernel that a split cuts."""
        at: Node | None = self._graph.source(split, 0 if split.op == "SplitV" else 1)
        for _ in range(_SUMMANDS):
            if at is None or at.op == "MatMul":
                return at
            if at.op not in _ADDING:
                return None
            at = self._graph.source(at, 0)
        return None

    def weight(self, node: Node, index: int) -> str | None:
        """Return the name of the variable or constant that is an input of a node, if it is one."""
        return self._variable(self._graph.source(node, index))

    def _variable(self, node: Node | None) -> str | None:
        for _ in range(_LOOKED_AT):
            if node is None or node.op in _WEIGHTS:
                return node.name if node is not None else None
            # Kernels of 0.x are joined from the shards of their rows.
            index = 1 if node.op == "Concat" else 0
            if node.op not in _PASSING | _JOINING:
                return None
            node = self._graph.source(node, index)
        return None

    # -- from a split on -----------------------------------------------------------------------

    def _next(self, node: Node, output: int = 0) -> list[Node]:
        """Return the nodes that take an output; of one that is normalised, what takes that."""
        takers = self._graph.consumers.get((node.graph, node.name, output), [])
        if not any(taker.op == "Mean" for taker in takers):
            return takers
        for product in takers:
            sums = [] if product.op != "Mul" else self._next(product)
            if len(sums) == 1 and sums[0].op in _ADDING:
                return self._next(sums[0])
        return takers

    def _block(self, node: Node) -> CellFacts:
        block = BLOCKS[node.op]
        clip = node.number("cell_clip", block.clip)
        return CellFacts(
            forget_bias=node.number("forget_bias", block.forget_bias),
            activation=TANH,
            output_activation=None,
            cell_clip=clip if clip > 0 else None,
            projection_clip=None,
            order=block.order,
        )

    def _cell(self, split: Node) -> CellFacts:
        activation, product = self._candidate(split)
        state, clip = self._state(product)
        function, hidden = self._output(split, state)
        is_same = function == activation
        return CellFacts(
            forget_bias=self._forget_bias(split),
            activation=activation,
            output_activation=None if is_same else function,
            cell_clip=clip,
            projection_clip=self._projection_clip(hidden),
        )

    def _forget_bias(self, split: Node) -> float | Unknown:
        for node in self._next(split, _FORGET):
            if node.op == "Sigmoid":
                return 0.0
            if node.op in _ADDING:
                sources = [self._graph.source(node, index) for index in range(2)]
                values = [source.scalar for source in sources if source is not None]
                numbers = [value for value in values if value is not None]
                if len(numbers) == 1:
                    return numbers[0]
        return UNKNOWN

    def _candidate(self, split: Node) -> tuple[Activation | Unknown, Node | None]:
        """Return the activation of the candidate, and its product with the input gate."""
        for node in self._next(split, _CELL):
            if node.op == "Mul":
                return LINEAR, node
            if node.op in _FUNCTIONS:
                products = [after for after in self._next(node) if after.op == "Mul"]
                return _FUNCTIONS[node.op], products[0] if len(products) == 1 else None
        return UNKNOWN, None

    def _state(self, product: Node | None) -> tuple[Node | None, float | Unknown | None]:
        """Return the new cell state, and what it is clipped to."""
        sums = [node for node in self._next(product) if node.op in _ADDING] if product else []
        if len(sums) != 1:
            return None, UNKNOWN
        return self._clipped(sums[0])

    def _clipped(self, node: Node) -> tuple[Node, float | Unknown | None]:
        """Return a tensor as it is after a clip to a symmetric range, and the range."""
        for after in self._next(node):
            if after.op == "ClipByValue":
                return after, self._bound(after, 2)
            if after.op == "Minimum":
                last = [other for other in self._next(after) if other.op == "Maximum"]
                return (last[0], self._bound(after, 1)) if len(last) == 1 else (after, UNKNOWN)
        return node, None

    def _bound(self, node: Node, index: int) -> float | Unknown:
        source = self._graph.source(node, index)
        value = source.scalar if source is not None else None
        return UNKNOWN if value is None else value

    def _output(
        self, split: Node, state: Node | None
    ) -> tuple[Activation | Unknown, Node | None]:
        """Return the activation of the output, and the output: its product with the gate."""
        gates = [node for node in self._next(split, _OUTPUT) if node.op in {"Sigmoid", *_ADDING}]
        if state is None or len(gates) != 1:
            return UNKNOWN, None
        gate = gates[0]
        for _ in range(_SUMMANDS):  # with a peephole, which is added
            if gate.op not in _ADDING:
                break
            after = [node for node in self._next(gate) if node.op in {"Sigmoid", *_ADDING}]
            if len(after) != 1:
                return UNKNOWN, None
            gate = after[0]
        hidden = [node for node in self._next(gate) if node.op == "Mul"]
        for product in hidden:
            sources = [self._graph.source(product, index) for index in range(2)]
            for source in sources:
                if source is state:
                    return LINEAR, product
                if source is not None and source.op in _FUNCTIONS and source is not gate:
                    return _FUNCTIONS[source.op], product
        return UNKNOWN, None

    def _projection_clip(self, hidden: Node | None) -> float | Unknown | None:
        if hidden is None:
            return UNKNOWN
        for node in self._next(hidden):
            if node.op == "MatMul" and self._variable(self._graph.source(node, 1)) is not None:
                return self._clipped(node)[1]
        return None

    # -- layers that share a kernel ------------------------------------------------------------

    def _layers(self, splits: list[Node]) -> int:
        """Return how many cells of one kernel feed one another within a step."""
        mine = {(node.graph, node.name) for node in splits}
        fed_by = {
            (node.graph, node.name): [key for key in self._feeding(node) if key in mine]
            for node in splits
        }
        depths = dict.fromkeys(fed_by, 1)
        for _ in range(_DEEPEST):
            deeper = {
                key: 1 + max((depths[other] for other in before), default=0)
                for key, before in fed_by.items()
            }
            if deeper == depths:
                return max(depths.values(), default=1)
            depths = deeper
        return 1  # they feed one another in a circle, which no stack does

    def _feeding(self, split: Node) -> Iterator[tuple[str, str]]:
        """Yield the splits of the cells whose outputs are the input of a cell in the same step."""
        product = self._product(split)
        joined = self._graph.source(product, 0) if product is not None else None
        if joined is None or joined.op not in _JOINING:
            return
        start = self._graph.source(joined, 1 if joined.op == "Concat" else 0)
        seen: set[tuple[str, str]] = set()
        waiting = [start]
        while waiting and len(seen) < _LOOKED_AT:
            node = waiting.pop()
            # A loop's own edges lead to another step.
            if node is None or node.op in ("Switch", "Merge", "Enter") or node.graph != split.graph:
                continue
            key = (node.graph, node.name)
            if key in seen:
                continue
            seen.add(key)
            if node.op in ("Split", "SplitV"):
                yield key
            else:
                waiting.extend(self._graph.source(node, index) for index in range(len(node.inputs)))


def _agreed(cells: list[CellFacts], layers: int) -> CellFacts:
    """Return what all cells of a kernel have; unknown where they differ."""
    first = cells[0]

    def same(name: str) -> object:
        values = [getattr(item, name) for item in cells]
        return values[0] if all(value == values[0] for value in values) else UNKNOWN

    names = ("forget_bias", "activation", "output_activation", "cell_clip", "projection_clip")
    values = {name: same(name) for name in names}
    if len(cells) == 1 and layers == 1:
        return first
    return CellFacts(**values, layers=layers, order=first.order)  # type: ignore[arg-type]  # of one name each


# -- the operation of cuDNN -----------------------------------------------------------------------

#: The operations, each with the input, the states and the vector of the weights as its first inputs
#: (tensorflow/core/ops/cudnn_rnn_ops.cc).
CUDNN = frozenset({"CudnnRNN", "CudnnRNNV2", "CudnnRNNV3"})
_ON_AMD = (
    "taken to be in cuDNN's order of gates, i f c o; a graph that was frozen on a card of AMD has "
    "i f o c there, and does not say so"
)


def of_cudnn(
    graph: Graph, constants: Mapping[str, Tensor], flow: Flow
) -> tuple[tuple[LSTMLayer, ...], frozenset[str], tuple[str, ...]]:
    """Return the layers that are operations of cuDNN, the constants that they take, and notes.

    Args:
        graph: a frozen graph.
        constants: its constants, by name.
        flow: the same graph, for sizes. Where it does not tell them, there is no layer.
    """
    reader = _CellReader(graph)
    layers: list[tuple[str, tuple[Direction, ...]]] = []
    taken: set[str] = set()
    for node in graph.nodes.values():
        if node.op not in CUDNN or _text(node, "rnn_mode", "lstm") != "lstm":
            continue
        name = reader.weight(node, 3) if len(node.inputs) > 3 else None
        inputs, units = (_width(graph, flow, node, place) for place in range(2))
        if name is None or name not in constants or inputs is None or units is None:
            continue
        sides = 2 if _text(node, "direction", "unidirectional") == "bidirectional" else 1
        stack = _cut(constants[name], inputs, units, sides)
        if stack is None or _text(node, "input_mode", "linear_input") == "skip_input":
            continue
        taken.add(name)
        scope = name.removesuffix("/read").rpartition("/")[0] or name
        layers += ((scope, _directions(cells, is_last=cells is stack[-1])) for cells in stack)
    names = layer_names(scope for scope, _ in layers)
    made = tuple(
        LSTMLayer(
            name=name,
            path=scope,
            class_name="LSTM" if len(directions) == 1 else "Bidirectional",
            forward=directions[0],
            backward=directions[1] if len(directions) > 1 else None,
            options=LayerOptions(merge_mode="concat" if len(directions) > 1 else UNKNOWN),
        )
        for name, (scope, directions) in zip(names, layers, strict=True)
    )
    return made, frozenset(taken), (f"{', '.join(names)}: {_ON_AMD}",) if names else ()


def _directions(cells: tuple[Cell, ...], *, is_last: bool) -> tuple[Direction, ...]:
    return tuple(
        Direction(
            cells=(cell,),
            options=DirectionOptions(
                return_sequences=UNKNOWN if is_last else True, go_backwards=place == 1
            ),
        )
        for place, cell in enumerate(cells)
    )


def _text(node: Node, attribute: str, default: str) -> str:
    return node.attributes.get(attribute, _NO).content.decode("ascii", "replace") or default


def _width(graph: Graph, flow: Flow, node: Node, place: int) -> int | None:
    """Return the length of the last axis of an input."""
    if place >= len(node.inputs):
        return None
    width = flow.width((node.graph, *node.inputs[place]))
    source = graph.source(node, place)
    while source is not None and source.op in _PASSING and source.inputs:
        source = graph.source(source, 0)
    if width is None and source is not None and source.op == "Fill":  # as tf.zeros(shape)
        shape = flow.constant((source.graph, *source.inputs[0]))
        packed = flow.nodes.get((source.graph, *source.inputs[0]))
        if shape is None and packed is not None and packed.kind in ("stack", "concat"):
            shape = flow.constant(packed.inputs[-1])
        width = int(shape.read().reshape(-1)[-1]) if shape is not None and shape.size else None
    return width


def _cut(vector: Tensor, inputs: int, units: int, sides: int) -> list[tuple[Cell, ...]] | None:
    """Return the cells of each layer of a stack, if the vector is as long as some layers take."""
    if len(vector.shape) != 1 or inputs < 1 or units < 1:
        return None
    widths: list[int] = []
    total = 0
    while total < vector.size:
        widths.append(inputs if not widths else sides * units)
        total += 4 * sides * units * (widths[-1] + units + 2)
    if total != vector.size:
        return None
    at, gates = 0, by_letters("ifco")

    def cut(*shape: int) -> Tensor:
        nonlocal at
        size = shape[0] * (shape[1] if len(shape) > 1 else 1)
        part = columns(vector, at, at + size)
        at += size
        return Reshaped(part, shape) if len(shape) > 1 else part

    places = [(layer, side) for layer in range(len(widths)) for side in range(sides)]
    parts: dict[tuple[int, int], dict[Gate, dict[str, Tensor]]] = {
        place: {gate: {} for gate in gates} for place in places
    }
    for place in places:
        for part, width in (("kernel", widths[place[0]]), ("recurrent_kernel", units)):
            for gate in gates:
                parts[place][gate][part] = transposed(cut(units, width))
    for place in places:
        for part in ("bias", "recurrent_bias"):
            for gate in gates:
                parts[place][gate][part] = cut(units)
    options = CellOptions(
        activation=TANH, recurrent_activation=SIGMOID, output_activation=None, use_bias=True,
        forget_bias=0.0, cell_clip=None, projection_clip=None,
    )  # fmt: skip
    return [
        tuple(
            Cell(gates=weights_of(parts[layer, side]), options=options, parts={})
            for side in range(sides)
        )
        for layer in range(len(widths))
    ]
