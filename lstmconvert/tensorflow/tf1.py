"""The cells of TensorFlow 1 in a checkpoint, by the names of their variables.

    rnn/basic_lstm_cell/kernel                        (input_dim + recurrent_dim, 4 * units), bias
    rnn/multi_rnn_cell/cell_0/lstm_cell/kernel        a stack
    bidirectional_rnn/fw/lstm_cell/kernel, …/bw/…     two directions
    …/w_i_diag, w_f_diag, w_o_diag                    peepholes (units,)
    …/projection/kernel, …/projection/bias            (units, projected)
    …/input/gamma, …/input/beta, …                    LayerNormBasicLSTMCell
    RNN/MultiRNNCell/Cell0/BasicLSTMCell/Linear/Matrix    the same in TensorFlow 0.x
    BiRNN_FW/LSTMCell/W_0, BiRNN/FW/LSTMCell/W_0

A cell is a scope of variables, spelled as its version of TensorFlow did:

    kernel, bias, w_i_diag, projection/kernel           1.2 on
    weights, biases, projection/weights                 1.0 and 1.1
    W_0, W_1 (rows), B, W_I_diag, W_P_0                 LSTMCell of 0.x
    Linear/Matrix, Linear/Bias                          BasicLSTMCell of 0.x

(tensorflow/contrib/rnn/python/tools/checkpoint_convert.py maps the old names to the new.) The scope
may have any name, and a Dense layer has arrays of the same shapes. So what a scope is goes by the
name that TensorFlow gives a cell by itself; else by arrays that only an LSTM has; else by the place
where `dynamic_rnn`, `MultiRNNCell` and `bidirectional_dynamic_rnn` make a cell's variables, if the
shapes allow no other cell. The user decides the rest.

One matrix holds the input's rows, then the state's; its gates are in the order i c f o
(tensorflow/python/ops/rnn_cell_impl.py, `BasicLSTMCell.call`: i, j, f, o). A forget bias is added
at run time and stored nowhere, nor are the activation and the clip of the cell state.

What a graph of TensorFlow 1 says about its cells: the one beside a checkpoint, or a frozen one.

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

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain, pairwise
from typing import NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.model import wellformed
from lstmconvert.model.activations import KERAS2, LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.gates import Gate, by_letters, split
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, weights_of
from lstmconvert.model.naming import layer_names
from lstmconvert.model.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions, Unknown
from lstmconvert.spelled.flow import Flow
from lstmconvert.tensorflow.formats.checkpoint import Partitioned, Piece
from lstmconvert.tensorflow.formats.graphdef import AttrValue, GraphDef, GraphOperation
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import Reshaped, columns, rows, transposed

# -- the graph -----------------------------------------------------------------------------------


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
#: The most nodes that are looked at for what feeds a cell.
_LOOKED_AT = 200
#: The most terms that are added before a gate's function, and layers that run on one cell.
_SUMMANDS, _DEEPEST = 4, 64
#: The outputs of the split.
_CELL, _FORGET, _OUTPUT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class GraphCellFacts:
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


def facts(graph: GraphDef) -> dict[str, GraphCellFacts]:
    """Return the name of a kernel's variable -> what the graph says about its cells."""
    return _CellReader(graph).facts()


_NO = AttrValue()


class _CellReader:
    def __init__(self, graph: GraphDef) -> None:
        self._graph = graph
        self._splits: dict[str, list[GraphOperation]] = {}
        self._blocks: dict[str, list[GraphOperation]] = {}
        for node in graph.nodes.values():
            if node.op in BLOCKS:
                kernel = self._variable(graph.source(node, BLOCKS[node.op].kernel))
                if kernel is not None:
                    self._blocks.setdefault(kernel, []).append(node)
            elif node.op in ("Split", "SplitV"):
                kernel = self._kernel_of(node)
                if kernel is not None:
                    self._splits.setdefault(kernel, []).append(node)

    def facts(self) -> dict[str, GraphCellFacts]:
        result: dict[str, GraphCellFacts] = {}
        for kernel, nodes in self._blocks.items():
            result[kernel] = _agreed([self._block(node) for node in nodes], 1)
        for kernel, nodes in self._splits.items():
            cells = [self._cell(node) for node in nodes]
            result[kernel] = _agreed(cells, self._layers(nodes))
        return result

    # -- from a split back to its kernel -----------------------------------------------------

    def _kernel_of(self, split: GraphOperation) -> str | None:
        product = self._product(split)
        if product is None:
            return None
        names = [self._variable(self._graph.source(product, index)) for index in range(2)]
        return next((name for name in names if name is not None), None)

    def _product(self, split: GraphOperation) -> GraphOperation | None:
        """Return the product with the kernel that a split cuts."""
        at: GraphOperation | None = self._graph.source(split, 0 if split.op == "SplitV" else 1)
        for _ in range(_SUMMANDS):
            if at is None or at.op == "MatMul":
                return at
            if at.op not in _ADDING:
                return None
            at = self._graph.source(at, 0)
        return None

    def weight(self, node: GraphOperation, index: int) -> str | None:
        """Return the name of the variable or constant that is an input of a node, if it is one."""
        return self._variable(self._graph.source(node, index))

    def _variable(self, node: GraphOperation | None) -> str | None:
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

    def _next(self, node: GraphOperation, output: int = 0) -> list[GraphOperation]:
        """Return the nodes that take an output; of one that is normalised, what takes that."""
        takers = self._graph.consumers.get((node.graph, node.name, output), [])
        if not any(taker.op == "Mean" for taker in takers):
            return takers
        for product in takers:
            sums = [] if product.op != "Mul" else self._next(product)
            if len(sums) == 1 and sums[0].op in _ADDING:
                return self._next(sums[0])
        return takers

    def _block(self, node: GraphOperation) -> GraphCellFacts:
        block = BLOCKS[node.op]
        clip = node.number("cell_clip", block.clip)
        return GraphCellFacts(
            forget_bias=node.number("forget_bias", block.forget_bias),
            activation=TANH,
            output_activation=None,
            cell_clip=clip if clip > 0 else None,
            projection_clip=None,
            order=block.order,
        )

    def _cell(self, split: GraphOperation) -> GraphCellFacts:
        activation, product = self._candidate(split)
        state, clip = self._state(product)
        function, hidden = self._output(split, state)
        is_same = function == activation
        return GraphCellFacts(
            forget_bias=self._forget_bias(split),
            activation=activation,
            output_activation=None if is_same else function,
            cell_clip=clip,
            projection_clip=self._projection_clip(hidden),
        )

    def _forget_bias(self, split: GraphOperation) -> float | Unknown:
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

    def _candidate(
        self, split: GraphOperation
    ) -> tuple[Activation | Unknown, GraphOperation | None]:
        """Return the activation of the candidate, and its product with the input gate."""
        for node in self._next(split, _CELL):
            if node.op == "Mul":
                return LINEAR, node
            if node.op in _FUNCTIONS:
                products = [after for after in self._next(node) if after.op == "Mul"]
                return _FUNCTIONS[node.op], products[0] if len(products) == 1 else None
        return UNKNOWN, None

    def _state(
        self, product: GraphOperation | None
    ) -> tuple[GraphOperation | None, float | Unknown | None]:
        """Return the new cell state, and what it is clipped to."""
        sums = [node for node in self._next(product) if node.op in _ADDING] if product else []
        if len(sums) != 1:
            return None, UNKNOWN
        return self._clipped(sums[0])

    def _clipped(self, node: GraphOperation) -> tuple[GraphOperation, float | Unknown | None]:
        """Return a tensor as it is after a clip to a symmetric range, and the range."""
        for after in self._next(node):
            if after.op == "ClipByValue":
                return after, self._bound(after, 2)
            if after.op == "Minimum":
                last = [other for other in self._next(after) if other.op == "Maximum"]
                return (last[0], self._bound(after, 1)) if len(last) == 1 else (after, UNKNOWN)
        return node, None

    def _bound(self, node: GraphOperation, index: int) -> float | Unknown:
        source = self._graph.source(node, index)
        value = source.scalar if source is not None else None
        return UNKNOWN if value is None else value

    def _output(
        self, split: GraphOperation, state: GraphOperation | None
    ) -> tuple[Activation | Unknown, GraphOperation | None]:
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

    def _projection_clip(self, hidden: GraphOperation | None) -> float | Unknown | None:
        if hidden is None:
            return UNKNOWN
        for node in self._next(hidden):
            if node.op == "MatMul" and self._variable(self._graph.source(node, 1)) is not None:
                return self._clipped(node)[1]
        return None

    # -- layers that share a kernel ------------------------------------------------------------

    def _layers(self, splits: list[GraphOperation]) -> int:
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

    def _feeding(self, split: GraphOperation) -> Iterator[tuple[str, str]]:
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


def _agreed(cells: list[GraphCellFacts], layers: int) -> GraphCellFacts:
    """Return what all cells of a kernel have; unknown where they differ."""
    first = cells[0]

    def same(name: str) -> object:
        values = [getattr(item, name) for item in cells]
        return values[0] if all(value == values[0] for value in values) else UNKNOWN

    names = ("forget_bias", "activation", "output_activation", "cell_clip", "projection_clip")
    values = {name: same(name) for name in names}
    if len(cells) == 1 and layers == 1:
        return first
    return GraphCellFacts(**values, layers=layers, order=first.order)  # type: ignore[arg-type]  # of one name each


# -- the operation of cuDNN -----------------------------------------------------------------------

#: The operations, each with the input, the states and the vector of the weights as its first inputs
#: (tensorflow/core/ops/cudnn_rnn_ops.cc).
CUDNN = frozenset({"CudnnRNN", "CudnnRNNV2", "CudnnRNNV3"})
_ON_AMD = (
    "taken to be in cuDNN's order of gates, i f c o; a graph that was frozen on a card of AMD has "
    "i f o c there, and does not say so"
)


def of_cudnn(
    graph: GraphDef, constants: Mapping[str, Tensor], flow: Flow
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


def _text(node: GraphOperation, attribute: str, default: str) -> str:
    return node.attributes.get(attribute, _NO).content.decode("ascii", "replace") or default


def _width(graph: GraphDef, flow: Flow, node: GraphOperation, place: int) -> int | None:
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


# -- the variables -------------------------------------------------------------------------------


GATE_COUNT = 4
_WITH_PEEPHOLE = (Gate.INPUT, Gate.FORGET, Gate.OUTPUT)


@dataclass(frozen=True, slots=True)
class CellNames:
    """How a version named a cell's variables.

    Fields: `kernel`, `bias`, `projection`, `projection_bias`; `diagonal`, with `{}` for the gate.
    """

    kernel: str
    bias: str
    projection: str
    projection_bias: str
    diagonal: str = "w_{}_diag"

    @property
    def peepholes(self) -> dict[str, Gate]:
        """Variable -> gate."""
        letters = {gate.letter: gate for gate in _WITH_PEEPHOLE}
        if self.diagonal[0].isupper():
            letters = {letter.upper(): gate for letter, gate in letters.items()}
        return {self.diagonal.format(letter): gate for letter, gate in letters.items()}


SPELLINGS = (
    CellNames("kernel", "bias", "projection/kernel", "projection/bias"),
    CellNames("weights", "biases", "projection/weights", "projection/biases"),
    CellNames("W_0", "B", "W_P_0", "", "W_{}_diag"),
    CellNames("Linear/Matrix", "Linear/Bias", "", ""),
)
_LAYER_NORMS = ("input/gamma", "state/gamma")
_SHARD = re.compile(r"(W|W_P)_0")

#: Names that TensorFlow gives its LSTM cells by itself: lstm_cell_1, BasicLSTMCell, …
_LSTM = re.compile(r"\w*lstm\w*cell\d*")
#: Its cells of that name that compute something else.
_OTHER_LSTM = re.compile(
    r"\w*(coupledinputforgetgate|phased|grid|timefreq|conv|weightnorm|group|glstm)\w*"
)
#: What else may be where a cell's variables are: other cells, wrappers of cells, layers.
_NO_LSTM = re.compile(
    r"(basicrnn|gru|grublock|ugrnn|nas|intersectionrnn|indrnn|attention)\w*cell\w*|nasrnn"
    r"|\w*projection\w*|\w*wrapper|gates|candidate|\w*attention\w*|\w*dense\d*|\w*linear\d*"
    r"|\w*conv\w*|\w*layer\d*|fullyconnected\d*|fc\d*|\w*out(put)?\d*|\w*softmax\w*|\w*logits\w*"
)
#: A user's name that says it: lstm, my_lstm_2, lstm_fw.
_SAYS_LSTM = re.compile(r"\w*lstm(fw|bw|forward|backward)?\d*")
#: Scopes that run a cell.
_RUNNERS = re.compile(
    r"(\w+_)?rnn(_\d+)?|cell_?\d+|(\w+_)?(fw|bw)|attention_wrapper(_\d+)?", re.IGNORECASE
)


class Evidence(Enum):
    """How a scope is known to be a cell."""

    NAME = "its name"
    SHAPES = "its arrays and their place"
    OPEN = "nothing: it may be another cell, or a Dense layer"


@dataclass(frozen=True, slots=True)
class CellScope:
    """A scope that has the arrays of a cell.

    Fields: `path`; `kernel` (input_dim + recurrent_dim, 4 * units); `bias`, `projection`, if it has
    them; `spelling`; `keys` of the variables that these are; `evidence`.
    """

    path: str
    kernel: Tensor
    bias: Tensor | None
    projection: Tensor | None
    spelling: CellNames
    keys: frozenset[str]
    evidence: Evidence = field(default=Evidence.NAME)

    @property
    def units(self) -> int:
        """The width of the cell state, if it is a cell."""
        return self.kernel.shape[1] // GATE_COUNT

    @property
    def inputs(self) -> int:
        """The width of the input, if it is a cell."""
        state = self.projection.shape[-1] if self.projection is not None else self.units
        return self.kernel.shape[0] - state

    @property
    def fits(self) -> bool:
        """Whether the shapes are those of an LSTM cell."""
        bias, columns = self.bias, self.kernel.shape[1]
        of_projection = self.projection is None or self.projection.shape[:1] == (self.units,)
        return (
            columns > 0
            and columns % GATE_COUNT == 0
            and self.inputs > 0
            and of_projection
            and (bias is None or bias.shape == (columns,))
        )


def scopes(tensors: Mapping[str, Tensor], where: object) -> Iterator[CellScope]:
    """Yield every scope that is a cell, or may be one, sorted by path.

    Raises:
        CorruptFile: the shards of a kernel are of several dtypes.
    """
    scopes_by_path: dict[str, CellScope] = {}
    for key in sorted(tensors):
        for spelling in SPELLINGS:
            path = key.removesuffix(f"/{spelling.kernel}")
            if path == key or path in scopes_by_path:
                continue
            scope = _scope(tensors, path, spelling, where)
            if scope is not None:
                scopes_by_path[path] = scope
    yield from (scopes_by_path[path] for path in sorted(scopes_by_path))


def _scope(
    tensors: Mapping[str, Tensor], path: str, spelling: CellNames, where: object
) -> CellScope | None:
    bias = tensors.get(f"{path}/{spelling.bias}")
    has_norms = any(f"{path}/{norm}" in tensors for norm in _LAYER_NORMS)
    if f"{path}/recurrent_kernel" in tensors or (bias is None and not has_norms):
        return None
    joined = _joined(tensors, f"{path}/{spelling.kernel}", where)
    if joined is None:
        return None
    (kernel, keys), projection = joined, None
    if spelling.projection and f"{path}/{spelling.projection}" in tensors:
        joined = _joined(tensors, f"{path}/{spelling.projection}", where)
        if joined is None:
            return None
        projection, keys = joined[0], keys | joined[1]
    without_evidence = CellScope(path, kernel, bias, projection, spelling, frozenset(keys))
    evidence = _evidence(without_evidence, tensors)
    return None if evidence is None else replace(without_evidence, evidence=evidence)


def _joined(
    tensors: Mapping[str, Tensor], key: str, where: object
) -> tuple[Tensor, set[str]] | None:
    """Return a matrix, and its keys: all of its rows, where 0.x cut it into shards. None if it is
    none, or its shards are not parts of one."""
    scope, _, leaf = key.rpartition("/")
    match = _SHARD.fullmatch(leaf)
    if match is None or f"{scope}/{match[1]}_1" not in tensors:
        return (tensors[key], {key}) if len(tensors[key].shape) == 2 else None
    keys: list[str] = []
    while f"{scope}/{match[1]}_{len(keys)}" in tensors:
        keys.append(f"{scope}/{match[1]}_{len(keys)}")
    shards = [tensors[shard_key] for shard_key in keys]
    if any(len(shard.shape) != 2 or shard.shape[1:] != shards[0].shape[1:] for shard in shards):
        return None
    whole = (sum(shard.shape[0] for shard in shards), shards[0].shape[1])
    pieces, row = [], 0
    for shard in shards:
        pieces.append(Piece((row, 0), shard, whole))
        row += shard.shape[0]
    dtype = shards[0].dtype
    return Partitioned(whole, dtype, tuple(pieces), f"{where}: {key}"), set(keys)


def _evidence(scope: CellScope, tensors: Mapping[str, Tensor]) -> Evidence | None:
    plain = scope.path.rpartition("/")[2].replace("_", "").lower()
    if _LSTM.fullmatch(plain):
        return None if _OTHER_LSTM.fullmatch(plain) else Evidence.NAME
    if not scope.fits or _NO_LSTM.fullmatch(plain):
        return None
    has_diagonals = any(f"{scope.path}/{leaf}" in tensors for leaf in scope.spelling.peepholes)
    if has_diagonals or scope.projection is not None or scope.bias is None:
        return Evidence.SHAPES
    # A BasicRNNCell has (input_dim + units, units) there: more rows than columns.
    is_alone = scope.kernel.shape[0] <= scope.kernel.shape[1]
    if _SAYS_LSTM.fullmatch(plain) or (is_alone and is_run(scope.path)):
        return Evidence.SHAPES
    return Evidence.OPEN


def is_run(path: str) -> bool:
    """Whether a scope is where a cell's would."""
    outer = path.rpartition("/")[0]
    return _RUNNERS.fullmatch(outer.rpartition("/")[2]) is not None


# -- from cells to layers ----------------------------------------------------------------------


ORDER = by_letters("icfo")
_NOT_STORED = (
    "without its graph (the .meta file), a checkpoint of TensorFlow 1 says neither forget_bias "
    "(its default is 1.0), nor activation (tanh), nor cell_clip (none; LSTMBlockCell 3.0): unknown "
    "until --set forget_bias=1.0 and so on"
)
_SHOWN = 8
_TAKE_THEM = "if it is an LSTM cell, say so: --from tf1 (and name the layers with --layer)"

_STACK = re.compile(
    r"(?:(?P<outer>.*)/)?multi_?rnn_?cell(?:_\d+)?/cell_?(?P<index>\d{1,6})(?:/rnn)?",
    re.DOTALL | re.IGNORECASE,
)
_HALF = re.compile(
    r"(?:(?P<outer>.*)/)?(?:(?P<joined>BiRNN)_)?(?P<half>fw|bw)", re.DOTALL | re.IGNORECASE
)
_NORMS = {"input": Gate.INPUT, "transform": Gate.CELL, "forget": Gate.FORGET, "output": Gate.OUTPUT}
#: The CPU twin of cuDNN's LSTM: its checkpoints have no forget bias, and these functions.
_CUDNN = "cudnncompatiblelstmcell"


@dataclass(frozen=True, slots=True)
class Read:
    """What the variables of a checkpoint are.

    Fields: `layers`, sorted by name; `used`: the keys of their variables; `guessed`: scopes that
    are cells by their arrays and place, whatever their name; `open`: scopes that may be;
    `repeated`: scopes that several layers of a stack run on; `kernels`: the `id` of a cell -> the
    keys of its kernel.
    """

    layers: tuple[LSTMLayer, ...]
    used: frozenset[str]
    guessed: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    kernels: Mapping[int, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    outer: str
    half: str
    index: int


#: Half -> number in its stack -> cell.
_Halves = Mapping[str, Mapping[int, Cell]]


def read(
    tensors: Mapping[str, Tensor],
    where: object,
    *,
    takes_open: bool = False,
    facts: Mapping[str, GraphCellFacts] | None = None,
) -> Read:
    """Return the LSTM layers among a checkpoint's variables.

    Args:
        tensors: the variables, by name.
        where: for errors.
        takes_open: whether what has a cell's arrays is one, whatever its name and place.
        facts: what the graph says about the cells, by the name of the kernel; None without a graph.

    Raises:
        CorruptFile: the arrays of a cell do not fit each other.
    """
    candidates = list(scopes(tensors, where))
    chained = _chained(candidates)
    known: list[CellScope] = []
    unknown: list[str] = []
    guessed: list[str] = []
    for scope in candidates:
        if scope.evidence is Evidence.OPEN and not takes_open and scope.path not in chained:
            unknown.append(scope.path)
            continue
        known.append(scope)
        if scope.evidence is not Evidence.NAME and not takes_open:
            guessed.append(scope.path)
    used: set[str] = set()
    cells: dict[str, Cell] = {}
    repeats: dict[str, int] = {}
    for scope in known:
        stated = next((facts[key] for key in scope.keys if key in facts), None) if facts else None
        cells[scope.path] = _cell(tensors, scope, where, used, stated)
        if stated is not None and stated.layers > 1 and scope.inputs == _outputs(scope):
            repeats[scope.path] = stated.layers
    return Read(
        _layers(cells, repeats),
        frozenset(used),
        tuple(guessed),
        tuple(unknown),
        tuple(f"{path}, {count} times" for path, count in repeats.items()),
        {id(cells[scope.path]): scope.keys for scope in known},
    )


def notes(cells_read: Read) -> tuple[str, ...]:
    """Return notes for the user on the cells."""
    cells = [cell for layer in cells_read.layers for _, _, cell in layer.cells()]
    result = []
    if any(cell.options.forget_bias is UNKNOWN for cell in cells):
        result.append(_NOT_STORED)
    if cells_read.repeated:
        shared = "layers of one stack share their weights, which are written for each"
        result.append(f"{shared}: {_listed(cells_read.repeated)}")
    if cells_read.guessed:
        taken = "taken for LSTM cells by arrays and place, not by name"
        result.append(f"{taken}: {_listed(cells_read.guessed)}")
    near = [path for path in cells_read.open if is_run(path)]
    if near:
        kept = "kept among the other tensors, though it has the arrays of an LSTM cell"
        result.append(f"{kept}: {_listed(near)}; {_TAKE_THEM}")
    return tuple(result)


def open_hint(cells_read: Read) -> str | None:
    """Return what to do where nothing is surely a cell, if something may be."""
    if not cells_read.open:
        return None
    paths = _listed(cells_read.open)
    return f"the arrays of an LSTM cell, or of a Dense layer: {paths}; {_TAKE_THEM}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _chained(candidates: list[CellScope]) -> set[str]:
    """Return the scopes that their neighbours show to be LSTM cells, as they fit no other cell of
    the same arrays: each cell of a stack as wide as the next one's input, and two halves of other
    widths, or one of them a cell for sure, with one input."""
    stacks: dict[tuple[str, str], dict[int, CellScope]] = {}
    for scope in candidates:
        outer = scope.path.rpartition("/")[0]
        if scope.fits:
            place = _place(outer)
            stacks.setdefault((place.outer, place.half), {})[place.index] = scope
    chained: set[str] = set()
    for (outer, half), stack in stacks.items():
        cells = [stack[index] for index in sorted(stack)]
        if len(cells) > 1 and _is_chain([(scope.inputs, _outputs(scope)) for scope in cells]):
            chained |= {scope.path for scope in cells}
        other = stacks.get((outer, "backward" if half == "forward" else "forward"), {})
        for index in stack.keys() & other.keys():
            cell, neighbour = stack[index], other[index]
            is_sure = neighbour.evidence is not Evidence.OPEN or cell.units != neighbour.units
            if is_sure and cell.inputs == neighbour.inputs:
                chained.add(cell.path)
    return chained


def _outputs(scope: CellScope) -> int:
    return scope.kernel.shape[0] - scope.inputs


def _is_chain(sizes: list[tuple[int, int]]) -> bool:
    return all(before == after for (_, before), (after, _) in pairwise(sizes))


def _layers(cells: Mapping[str, Cell], repeats: Mapping[str, int]) -> tuple[LSTMLayer, ...]:
    by_outer: dict[str, dict[str, dict[int, Cell]]] = {}
    for path, place in _places(cells).items():
        half = by_outer.setdefault(place.outer, {}).setdefault(place.half, {})
        for index in range(repeats.get(path, 1)):
            half[place.index + index] = cells[path]
    whole = dict(chain.from_iterable(_separated(path, halves) for path, halves in by_outer.items()))
    names = layer_names(whole)
    return tuple(
        _layer(name, path, halves)
        for name, (path, halves) in zip(names, whole.items(), strict=True)
    )


def _places(paths: Iterable[str]) -> dict[str, _Place]:
    """Return where each cell is: cells side by side in one scope are layers of their own."""
    places = {path: _place(path.rpartition("/")[0] or path) for path in paths}
    counts = Counter(places.values())
    return {
        path: place if counts[place] == 1 else _below(place, path.rpartition("/")[2])
        for path, place in places.items()
    }


def _below(place: _Place, name: str) -> _Place:
    return _Place(f"{place.outer}/{name}", place.half, place.index)


def _separated(path: str, halves: _Halves) -> Iterator[tuple[str, _Halves]]:
    """Yield the layers at a place. Where something else is between the cells of a stack, or is
    joined to their inputs, each is a layer of its own, and so is a backward half alone."""
    if not all(map(_is_stack, halves.values())):
        for index in sorted({index for cells in halves.values() for index in cells}):
            at_index = {half: {0: cells[index]} for half, cells in halves.items() if index in cells}
            yield from _separated(f"{path}/cell_{index}", at_index)
    elif "forward" not in halves:
        yield f"{path}/bw", {"forward": halves["backward"]}
    else:
        yield path, halves


def _is_stack(cells: Mapping[int, Cell]) -> bool:
    sizes = [(cells[index].input_dim, cells[index].recurrent_dim) for index in sorted(cells)]
    return sorted(cells) == list(range(min(cells), min(cells) + len(cells))) and _is_chain(sizes)


def _place(scope: str) -> _Place:
    index, half = 0, "forward"
    stack = _STACK.fullmatch(scope)
    if stack is not None:
        scope, index = stack["outer"] or "multi_rnn_cell", int(stack["index"])
    sided = _HALF.fullmatch(scope)
    if sided is not None:
        half = "forward" if sided["half"].lower() == "fw" else "backward"
        scope = "/".join(filter(None, (sided["outer"], sided["joined"]))) or "bidirectional_rnn"
    return _Place(scope, half, index)


def _layer(name: str, path: str, halves: _Halves) -> LSTMLayer:
    directions = {
        half: Direction(
            cells=tuple(cells[index] for index in sorted(cells)),
            options=DirectionOptions(
                # `bidirectional_dynamic_rnn` reverses the input of the one half.
                go_backwards=half == "backward" if len(halves) > 1 else UNKNOWN,
                time_major=UNKNOWN,
            ),
        )
        for half, cells in halves.items()
    }
    stacked = any(len(direction.cells) > 1 for direction in directions.values())
    layer = LSTMLayer(
        name=name,
        path=path,
        class_name="Bidirectional" if len(halves) > 1 else "RNN" if stacked else "LSTM",
        forward=directions["forward"],
        backward=directions.get("backward"),
    )
    wellformed.check_layer(layer, path)
    return layer


def _cell(
    tensors: Mapping[str, Tensor],
    scope: CellScope,
    where: object,
    used: set[str],
    stated: GraphCellFacts | None,
) -> Cell:
    """Return a cell, and add the keys of its variables to `used`."""
    kernel, bias = scope.kernel, scope.bias
    if not scope.fits:
        raise CorruptFile(
            "not the arrays of one LSTM cell",
            where=f"{where}: {scope.path}",
            found=f"kernel {kernel.shape}, bias {bias.shape if bias is not None else 'none'}",
            expected="kernel (input_dim + recurrent_dim, 4*units), bias (4*units,)",
        )
    fused: dict[str, Tensor] = {
        "kernel": rows(kernel, 0, scope.inputs),
        "recurrent_kernel": rows(kernel, scope.inputs, kernel.shape[0]),
    }
    used |= scope.keys
    if bias is not None:
        fused["bias"] = bias
        used.add(f"{scope.path}/{scope.spelling.bias}")
    order = by_letters(stated.order) if stated is not None else ORDER
    cut = {part: split(tensor, order) for part, tensor in fused.items()}
    gates = {gate: {part: cut[part][gate] for part in cut} for gate in ORDER}
    _add_gate_parts(gates, tensors, scope, used)
    cell = Cell(
        gates=weights_of(gates),
        options=_options(scope.path, bias is not None, scope.projection is not None, stated),
        parts=dict(_parts(tensors, scope, used)),
    )
    below = f"{scope.path}/"
    arrays = {key: tensor for key, tensor in tensors.items() if key in used and below in key}
    wellformed.check_cell(cell, f"{where}: {scope.path}", arrays=arrays)
    return cell


def _options(
    scope: str, use_bias: bool, projects: bool, stated: GraphCellFacts | None
) -> CellOptions:
    if scope.rpartition("/")[2].replace("_", "").lower().startswith(_CUDNN):
        return CellOptions(activation=TANH, recurrent_activation=SIGMOID, use_bias=use_bias)
    stated = stated or GraphCellFacts()
    output = stated.output_activation
    return CellOptions(
        # A cell has one function; where the graph shows half of it, none is known.
        activation=UNKNOWN if isinstance(output, Unknown) else stated.activation,
        recurrent_activation=SIGMOID,  # every cell of TensorFlow 1 has it built in
        output_activation=None if isinstance(output, Unknown) else output,
        use_bias=use_bias,
        forget_bias=stated.forget_bias,
        cell_clip=stated.cell_clip,
        projection_clip=stated.projection_clip if projects else None,
    )


def _parts(
    tensors: Mapping[str, Tensor], scope: CellScope, used: set[str]
) -> Iterator[tuple[str, Tensor]]:
    if scope.projection is not None:
        yield "projection", scope.projection
    names = {
        "projection_bias": scope.spelling.projection_bias,
        "state_norm": "state/gamma",
        "state_norm_bias": "state/beta",
    }
    for part, name in names.items():
        key = f"{scope.path}/{name}"
        if name and key in tensors:
            used.add(key)
            yield part, tensors[key]


def _add_gate_parts(
    gates: Mapping[Gate, dict[str, Tensor]],
    tensors: Mapping[str, Tensor],
    scope: CellScope,
    used: set[str],
) -> None:
    wanted = [(gate, "peephole", name) for name, gate in scope.spelling.peepholes.items()]
    for name, gate in _NORMS.items():
        wanted.append((gate, "layer_norm", f"{name}/gamma"))
        wanted.append((gate, "layer_norm_bias", f"{name}/beta"))
    for gate, part, name in wanted:
        key = f"{scope.path}/{name}"
        if key not in tensors:
            continue
        used.add(key)
        gates[gate][part] = tensors[key]
