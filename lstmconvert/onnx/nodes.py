"""One LSTM node as gates and options: what the operator's attributes and inputs say.

The operator is that of onnx/defs/rnn/defs.cc, versions 1 to 22, which differ in nothing that
matters here; where its text leaves something open, ONNX Runtime decides (measured with 1.32).

What the graph does with the node's inputs is read too, as far as it belongs to the layer. Keras's
exporters turn the sequence round before the node where a layer has go_backwards, and the node
itself says "forward". Initial states are constants, constants spread over the batch, zeros of the
batch's size, or what the caller of the graph passes, or what other nodes compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.model import wellformed
from lstmconvert.model.activations import SIGMOID, TANH, Activation
from lstmconvert.model.gates import GATES, Gate, blocks, entries, split
from lstmconvert.model.layer import Cell, GateWeights, weights_of
from lstmconvert.model.options import CellOptions
from lstmconvert.onnx import functions
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.skeleton import DEFAULT_DOMAINS, GraphScope, attributes
from lstmconvert.onnx.weights import ORDER, PEEPHOLES
from lstmconvert.tensors.dtypes import Array, bits
from lstmconvert.tensors.tensor import ArrayTensor, Tensor
from lstmconvert.tensors.views import is_zero, negated, transposed

# -- what the graph does with the inputs ---------------------------------------------------------


#: Nodes whose output has the numbers of their first input, in the same order.
_HAND_ON = frozenset({"Cast", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear"})
#: Nodes that add or take axes of length 1, or nothing.
_SAME = frozenset({"Identity", "Squeeze", "Unsqueeze"})
#: Nodes that arrange the numbers of their first input, and make none.
_ARRANGE = frozenset(
    {
        *("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze"),
    }
)
#: A chain of nodes before an LSTM is followed for this many nodes.
_STEPS = 64
#: A Slice that starts at or behind this index starts at the end, whatever the length is; one that
#: ends before its negative runs to the first element. Exporters write the limits of int32 or int64.
_FAR = 2**30


# ---- the order of time ---------------------------------------------------------------------------


def is_turned(
    place: tuple[GraphScope, str, str], axes: str, constants: Constants, lengths: str
) -> bool:
    """Return whether the graph turns a sequence round before an LSTM is given it.

    Args:
        place: the graph, the value, and where it is, for messages.
        axes: of the value, a letter each: T is time.
        constants: of the model.
        lengths: the value that tells the node how long each sequence is; empty if none does.

    Raises:
        SourceError: it turns a part of each sequence round, and what part is not known.
    """
    scope, name, where = place
    turned = False
    for _ in range(_STEPS):
        holder = scope.holder(name)
        node = holder.producers.get(name) if holder else None
        if holder is None or node is None or not node.input:
            break
        if node.domain not in DEFAULT_DOMAINS:
            break
        scope, name = holder, node.input[0]
        if node.op_type in _HAND_ON:
            continue
        behind = _Step(scope, node, axes, constants)
        before = behind.axes_before()
        if before is not None:
            axes = before
            continue
        reversal = behind.reversal(lengths)
        if reversal is None:
            break
        if not reversal:
            raise SourceError(
                "the graph turns a part of each sequence round before the LSTM: no layer does that",
                where=where,
                found=f"{node.op_type} {node.name}".strip()[:120],
                expected="every step, from the last to the first",
                hint="export the model again with a batch and a length that may vary, or convert "
                "the model that it was exported from",
            )
        turned = not turned
    return turned


@dataclass(frozen=True, slots=True)
class _Step:
    """One node before an LSTM, and the letters of its output's axes."""

    scope: GraphScope
    node: onnx.NodeProto
    axes: str
    constants: Constants

    def axes_before(self) -> str | None:
        """Return the letters of the input's axes if the node only moves, adds or drops axes."""
        if self.node.op_type == "Transpose":
            order = _order(self.node, len(self.axes))
            if order is None:
                return None
            return "".join(self.axes[order.index(place)] for place in range(len(order)))
        if self.node.op_type not in ("Squeeze", "Unsqueeze"):
            return None
        listed = attributes(self.node).get("axes")  # an attribute until opset 13
        numbers = list(listed.ints) if listed is not None else self._integers(1)
        if numbers is None:
            return None
        letters = list(self.axes)
        if self.node.op_type == "Unsqueeze":
            places = {number % len(letters) for number in numbers}
            return "".join(a for place, a in enumerate(letters) if place not in places)
        rank = len(letters) + len(numbers)
        for place in sorted(number % rank for number in numbers):
            letters.insert(place, "1")
        return "".join(letters)

    def reversal(self, lengths: str) -> bool | None:
        """Return whether the node turns every sequence round as a whole, or only in part.

        None: it does something else.
        """
        kind = self.node.op_type
        if kind == "ReverseSequence":
            return self._of_sequences(lengths)
        if kind == "Slice":
            return self._of_slice()
        return self._of_gather() if kind == "Gather" else None

    def _of_sequences(self, lengths: str) -> bool | None:
        given = attributes(self.node)
        time = given["time_axis"].i if "time_axis" in given else 0
        if _letter(self.axes, time) != "T" or len(self.node.input) < 2:
            return None
        if lengths and _root(self.scope, self.node.input[1], 0) == _root(self.scope, lengths, 0):
            return True  # within its length each, and the node reads no further
        size = _size(self.scope, self.node.input[1], self.constants)
        if isinstance(size, list):
            time_steps = _static_size(self.scope, self.node.input[0], time)
            return time_steps is not None and all(number == time_steps for number in size)
        return size is not None and size == _root(self.scope, self.node.input[0], time)

    def _of_slice(self) -> bool | None:
        if len(self.node.input) < 5 or not self.node.input[4]:
            return None
        starts, ends, axes, steps = (self._integers(place) for place in (1, 2, 3, 4))
        if axes is None and not self.node.input[3] and starts is not None:
            axes = list(range(len(starts)))
        if steps is None or axes is None or len(steps) != len(axes):
            return None
        for index, axis in enumerate(axes):
            if _letter(self.axes, axis) == "T" and steps[index] < 0:
                if steps != [-1] or starts is None or ends is None:
                    return False
                size = _static_size(self.scope, self.node.input[0], axis % len(self.axes))
                from_end = starts[0] == -1 or starts[0] >= _FAR
                to_start = ends[0] < -_FAR
                if size is not None:
                    from_end = from_end or starts[0] >= size - 1
                    to_start = to_start or ends[0] < -size
                return from_end and to_start
        return None

    def _of_gather(self) -> bool | None:
        given = attributes(self.node)
        axis = given["axis"].i if "axis" in given else 0
        if _letter(self.axes, axis) != "T" or len(self.node.input) < 2:
            return None
        places = _integers(self.scope, self.node.input[1], self.constants)
        if places is None or len(places) < 2 or places != sorted(places, reverse=True):
            return None
        size = _static_size(self.scope, self.node.input[0], axis % len(self.axes))
        if size is None:
            return False
        return [place % size for place in places] == list(range(size - 1, -1, -1))

    def _integers(self, place: int) -> list[int] | None:
        if place >= len(self.node.input) or not self.node.input[place]:
            return None
        return _integers(self.scope, self.node.input[place], self.constants)


def _letter(axes: str, axis: int) -> str:
    return axes[axis] if -len(axes) <= axis < len(axes) else ""


def _order(node: onnx.NodeProto, rank: int) -> list[int] | None:
    """Return a Transpose's order of axes; without one it turns them all round."""
    given = attributes(node).get("perm")
    order = list(given.ints) if given is not None else list(range(rank))[::-1]
    return order if sorted(order) == list(range(rank)) else None


def _integers(scope: GraphScope, name: str, constants: Constants) -> list[int] | None:
    try:
        tensor = constants.tensor(scope, name)
    except NotConstantError:
        return None
    if tensor.dtype.kind not in "iu":
        return None
    return [int(number) for number in tensor.read().reshape(-1)]


#: A value, by its graph and name, and one of its axes.
_Axis = tuple[int, str, int]


def _root(scope: GraphScope, name: str, axis: int) -> _Axis | None:
    """Return the earliest value whose given axis is as long as that of a value, and that axis."""
    for _ in range(_STEPS):
        holder = scope.holder(name)
        if holder is None:
            return None
        node = holder.producers.get(name)
        scope = holder
        if node is None or not node.input or node.domain not in DEFAULT_DOMAINS:
            break
        if node.op_type == "Transpose":
            given = attributes(node).get("perm")
            if given is None or not 0 <= axis < len(given.ints):
                break
            axis = given.ints[axis]
        elif node.op_type not in _HAND_ON and node.op_type != "ReverseSequence":
            break
        name = node.input[0]
    return id(scope), name, axis


def _static_size(scope: GraphScope, name: str, axis: int) -> int | None:
    """Return the length of an axis if it is one of an input of the graph that states it."""
    root = _root(scope, name, axis)
    holder = scope.holder(name)
    while holder is not None and root is not None:
        if id(holder) == root[0] and (shape := holder.shapes.get(root[1])) is not None:
            return shape[root[2]] if root[2] < len(shape) else None
        holder = holder.outer
    return None


def _size(scope: GraphScope, name: str, constants: Constants) -> _Axis | list[int] | None:
    """Return what the lengths of sequences are: the length of an axis, or numbers; None: neither.

    tf2onnx writes Expand(Gather(Shape(x), 0), Gather(Shape(x), 1)) for "all steps, for each of
    the batch".
    """
    numbers = _integers(scope, name, constants)
    if numbers is not None:
        return numbers
    picked: int | None = None
    for _ in range(_STEPS):
        holder = scope.holder(name)
        node = holder.producers.get(name) if holder else None
        if holder is None or node is None or not node.input:
            return None
        scope, name = holder, node.input[0]
        if node.op_type == "Shape":
            whole = not {"start", "end"} & attributes(node).keys()
            return _root(scope, name, picked) if whole and picked is not None else None
        if node.op_type in ("Gather", "Slice"):
            if picked is not None:
                return None
            ends = [_integers(scope, item, constants) for item in node.input[1:3]]
            places = ends[0]
            if places is None or len(places) != 1 or places[0] < 0:
                return None
            if node.op_type == "Slice" and ends[1] != [places[0] + 1]:
                return None
            picked = places[0]
        elif node.op_type not in (_ARRANGE - {"Split", "Transpose"}):
            return None
    return None


# ---- initial states ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InitialState:
    """What an LSTM's state is before the first step.

    Fields: `array`: (directions, units), if it is constant; `origin`: in words, where it comes
    from if it is not.
    """

    array: Array | None = None
    origin: str = ""


def initial_state(
    place: tuple[GraphScope, str, str], constants: Constants, shape: tuple[int, int, bool]
) -> InitialState:
    """Return what an initial state is.

    Args:
        place: the graph, the value, and where it is, for messages.
        constants: of the model.
        shape: directions, units, and whether the batch comes first.

    Raises:
        SourceError: it differs from row to row of the batch.
        CorruptFile: it has the wrong shape.
    """
    scope, name, where = place
    directions, units, batch_first = shape
    try:
        array = constants.tensor(scope, name).read()
    except NotConstantError:
        if _is_zero(scope, name, constants):
            return InitialState()
        spread = _spread(scope, name, constants, shape)
        return InitialState(spread) if spread is not None else _from_elsewhere(scope, name)
    if array.ndim == 3 and batch_first:
        array = np.swapaxes(array, 0, 1)
    if array.ndim != 3 or array.shape[::2] != (directions, units) or not array.shape[1]:
        raise CorruptFile(
            "the LSTM's initial state has the wrong shape", where=where, found=str(array.shape)
        )
    if not np.array_equal(bits(array), bits(np.broadcast_to(array[:, :1], array.shape))):
        raise SourceError(
            "the LSTM's initial state differs from row to row of the batch: no layer keeps that",
            where=where,
        )
    return InitialState(array[:, 0])


def _spread(
    scope: GraphScope, name: str, constants: Constants, shape: tuple[int, int, bool]
) -> Array | None:
    """Return what is spread over the batch by Expand; None if it is something else."""
    directions, units, _ = shape
    for _ in range(_STEPS):
        holder = scope.holder(name)
        node = holder.producers.get(name) if holder else None
        if holder is None or node is None or not node.input:
            return None
        scope = holder
        if node.op_type == "Concat" and directions == 2 and len(node.input) == 2:
            axis = attributes(node).get("axis")
            halves = [_spread(scope, half, constants, (1, units, False)) for half in node.input]
            if axis is None or axis.i != 0 or halves[0] is None or halves[1] is None:
                return None
            return np.concatenate([halves[0], halves[1]])
        name = node.input[0]
        if node.op_type == "Expand":
            try:
                array = constants.tensor(scope, name).read()
            except NotConstantError:
                return None
            is_vector = directions == 1 and array.size == units and array.shape[-1:] == (units,)
            return array.reshape(1, units) if is_vector else None
        if node.op_type not in _SAME:
            return None
    return None


def _is_zero(scope: GraphScope, name: str, constants: Constants) -> bool:
    """Whether a value is +0.0 all through, whatever its size: exporters write zeros of a batch."""
    waiting = [(scope, name)]
    for _ in range(_STEPS):
        if not waiting:
            return True
        scope, name = waiting.pop()
        try:
            if bits(constants.tensor(scope, name).read()).any():
                return False
            continue
        except NotConstantError:
            pass
        holder = scope.holder(name)
        node = holder.producers.get(name) if holder else None
        if holder is None or node is None or not node.input:
            return False
        if node.op_type == "ConstantOfShape":
            value = attributes(node).get("value")
            if value is not None and np.any(bits(onnx.numpy_helper.to_array(value.t))):
                return False
        elif node.op_type == "Concat":
            waiting += [(holder, item) for item in node.input]
        elif node.op_type in _ARRANGE:
            waiting.append((holder, node.input[0]))
        else:
            return False
    return False


def _from_elsewhere(scope: GraphScope, name: str) -> InitialState:
    """Say in words what an initial state that is not constant is made of."""
    inputs: list[str] = []
    for owner, leaf in _leaves(scope, name):
        if owner is None:
            inputs.append(f"the graph's input {leaf}")
        else:
            inputs.append(owner)
    return InitialState(origin=" and ".join(dict.fromkeys(inputs))[:200])


def _leaves(scope: GraphScope, name: str) -> Iterator[tuple[str | None, str]]:
    """Yield the inputs of the graph that a value is arranged of: None and the name.

    For what an operator computes, or what a graph around hands on, the first is that, in words.
    """
    waiting: list[tuple[GraphScope, str]] = [(scope, name)]
    seen: set[tuple[int, str]] = set()
    while waiting and len(seen) < limits.ONNX_NODES.value:
        scope, name = waiting.pop()
        holder = scope.holder(name)
        if holder is None or (id(holder), name) in seen:
            continue
        seen.add((id(holder), name))
        node = holder.producers.get(name)
        if node is None:
            if name in holder.inputs and name not in holder.initializers:
                is_outermost = holder.outer is None
                yield (None if is_outermost else f"the {holder.owner} around it"), name
        elif node.op_type == "Concat":
            waiting += [(holder, item) for item in reversed(node.input)]
        elif node.op_type in _ARRANGE:
            waiting.append((holder, node.input[0]))
        elif node.op_type == "If":
            index = list(node.output).index(name)
            for branch in holder.inner.get(id(node), ()):
                waiting += [(branch, item) for item in branch.outputs[index : index + 1]]
        elif node.op_type == "Where":
            waiting += [(holder, item) for item in reversed(node.input[1:])]
        else:
            yield f"what {node.op_type[:40]} {node.name[:80]}".rstrip() + " computes", name


# -- the node ------------------------------------------------------------------------------------


_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_OUTPUTS = ("Y", "Y_h", "Y_c")
_KINDS: dict[str, int] = {
    "activation_alpha": onnx.AttributeProto.FLOATS,
    "activation_beta": onnx.AttributeProto.FLOATS,
    "activations": onnx.AttributeProto.STRINGS,
    "clip": onnx.AttributeProto.FLOAT,
    "direction": onnx.AttributeProto.STRING,
    "hidden_size": onnx.AttributeProto.INT,
    "input_forget": onnx.AttributeProto.INT,
    "layout": onnx.AttributeProto.INT,
    "output_sequence": onnx.AttributeProto.INT,  # version 1 only
}
_DIRECTIONS = ("forward", "reverse", "bidirectional")
#: The quantized LSTM of ONNX Runtime.
OPERATOR, DOMAIN = "DynamicQuantizeLSTM", "com.microsoft"
#: Weight -> the inputs that hold its scale and its zero point, by their places.
SCALES = {"W": (8, 9), "R": (10, 11)}
_TYPES = ("int8", "uint8")


@dataclass(frozen=True, slots=True, kw_only=True)
class LSTMNode:
    """An LSTM node, checked.

    Fields: `node`; `scope`, its graph; `name`, for messages and for the layer; `direction`;
    `batch_first`: layout 1; `activations`: three for each direction; `clip`, or None; `coupled`:
    input_forget; `values`: W and R, and B and P where there are; `states`: initial_h and initial_c
    where they are constant, (directions, units); `origins`: where they come from if they are not;
    `turned`: whether the graph turns the sequence round before the node.
    """

    node: onnx.NodeProto
    scope: GraphScope
    name: str
    direction: str
    batch_first: bool
    activations: Sequence[Activation]
    clip: float | None
    coupled: bool
    values: Mapping[str, Tensor] = field(repr=False)
    states: Mapping[str, Array] = field(repr=False)
    origins: Mapping[str, str] = field(repr=False)
    turned: bool = False

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def units(self) -> int:
        return self.values["R"].shape[2]

    @property
    def is_quantized(self) -> bool:
        return is_quantized(self.node)

    def reads_backwards(self, half: int) -> bool:
        """Whether a direction reads its sequences from the end, as the graph is given them."""
        return (self.direction == "reverse" or half == 1) != self.turned

    @property
    def has_lengths(self) -> bool:
        return bool(self.input("sequence_lens"))

    def input(self, name: str) -> str:
        """Return the name of an input's value, empty if there is none."""
        index = _INPUTS.index(name)
        return self.node.input[index] if index < len(self.node.input) else ""

    def place(self, name: str) -> tuple[GraphScope, str, str]:
        """Return an input's graph and value, and where that is, for messages."""
        return self.scope, self.input(name), f"{self.name}: {name}"

    @property
    def shape(self) -> tuple[int, int, bool]:
        """The number of directions, the units, and whether the batch comes first."""
        return self.directions, self.units, self.batch_first

    def output(self, name: str) -> str:
        """Return the name of an output's value, empty if there is none."""
        index = _OUTPUTS.index(name)
        return self.node.output[index] if index < len(self.node.output) else ""


def is_lstm(node: onnx.NodeProto) -> bool:
    """Whether a node is the standard LSTM operator, or the quantized one of ONNX Runtime."""
    standard = node.op_type == "LSTM" and node.domain in DEFAULT_DOMAINS
    return standard or is_quantized(node)


def read(node: onnx.NodeProto, scope: GraphScope, constants: Constants, where: str) -> LSTMNode:
    """Read one node.

    Raises:
        SourceError: a weight is not a constant.
        CorruptFile: the node contradicts the operator or itself.
    """
    stated = _attributes(node, where)
    direction = _text(stated.get("direction", b"forward"))
    if direction not in _DIRECTIONS:
        raise CorruptFile("no such direction", where=where, found=direction[:40])
    clip = stated.get("clip")
    if clip is not None and not (clip > 0 and math.isfinite(clip)):
        raise CorruptFile("a clip that is no bound", where=where, found=clip)
    result = LSTMNode(
        node=node,
        scope=scope,
        name=where,
        direction=direction,
        batch_first=stated.get("layout", 0) == 1,
        activations=_activations(stated, 2 if direction == "bidirectional" else 1, where),
        clip=None if clip is None else functions.exact(clip),
        coupled=stated.get("input_forget", 0) != 0,
        values=_values(node, scope, constants, where),
        states={},
        origins={},
    )
    _check_shapes(result, stated.get("hidden_size"), where)
    states = {
        name: initial_state(result.place(name), constants, result.shape)
        for name in ("initial_h", "initial_c")
        if result.input(name)
    }
    axes = "BTI" if result.batch_first else "TBI"
    return replace(
        result,
        states={name: state.array for name, state in states.items() if state.array is not None},
        origins={name: state.origin for name, state in states.items() if state.origin},
        turned=is_turned(result.place("X"), axes, constants, result.input("sequence_lens")),
    )


def _attributes(node: onnx.NodeProto, where: str) -> dict[str, Any]:
    result = {}
    for name, attribute in attributes(node).items():
        if name not in _KINDS or attribute.type != _KINDS[name]:
            raise SourceError(
                "no attribute of an LSTM",
                where=where,
                found=name[:40],
                expected=", ".join(_KINDS),
                hint="nothing is damaged: it is of a draft, or of another operator set than ONNX's",
            )
        result[name] = onnx.helper.get_attribute_value(attribute)
    return result


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _activations(
    stated: Mapping[str, Any], directions: int, where: str
) -> Sequence[Activation]:
    if "activations" not in stated:
        return [SIGMOID, TANH, TANH] * directions
    names = [_text(name) for name in stated["activations"]]
    if len(names) != 3 * directions:
        raise CorruptFile(
            "an LSTM needs three activations for each direction", where=where, found=len(names)
        )
    try:
        return functions.from_lists(
            names, stated.get("activation_alpha", ()), stated.get("activation_beta", ())
        )
    except ValueError as error:
        raise CorruptFile(str(error), where=where) from None


def _values(
    node: onnx.NodeProto, scope: GraphScope, constants: Constants, where: str
) -> dict[str, Tensor]:
    result = {}
    for place, name in enumerate(_INPUTS):
        if name in ("W", "R", "B", "P"):
            tensor = _constant(node, place, name, (scope, constants, where))
            if tensor is not None:
                result[name] = tensor
    missing = {"W", "R"} - result.keys()
    if missing:
        raise CorruptFile("an LSTM without weights", where=where, found=f"no {min(missing)}")
    if is_quantized(node):
        for name, (scale, zero) in SCALES.items():
            scales = _constant(node, scale, f"{name}_scale", (scope, constants, where))
            if scales is None:
                raise CorruptFile("a quantized weight without its scale", where=where, found=name)
            offset = _constant(node, zero, f"{name}_zero_point", (scope, constants, where))
            result[name] = dequantized(result[name], scales, offset, f"{where}: {name}")
    return result


def _constant(
    node: onnx.NodeProto, place: int, name: str, known: tuple[GraphScope, Constants, str]
) -> Tensor | None:
    """Return what a node is given at a place; None if nothing is."""
    scope, constants, where = known
    value = node.input[place] if place < len(node.input) else ""
    if not value:
        return None
    try:
        return constants.tensor(scope, value)
    except NotConstantError as error:
        made, why = error.args
        raise SourceError(
            f"the LSTM's {name} is not a constant: the file does not hold the weights",
            where=where,
            found=f"{made}, {why}",
            expected="an initializer, or what is computed from initializers",
            hint="make the weights initializers of the graph, and try again",
        ) from None


def _check_shapes(node: LSTMNode, hidden_size: int | None, where: str) -> None:
    values, count = node.values, node.directions
    w, r = values["W"].shape, values["R"].shape
    units = r[2] if len(r) == 3 else -1
    if units < 1 or len(w) != 3 or w[2] < 1 or hidden_size not in (None, units):
        raise CorruptFile(
            "W and R disagree with each other or with hidden_size",
            where=where,
            found=f"W {w}, R {r}, hidden_size {hidden_size}",
        )
    wanted = {
        "W": (count, 4 * units, w[2]),
        "R": (count, 4 * units, units),
        "B": (count, 8 * units),
        "P": (count, 3 * units),
    }
    for name, shape in wanted.items():
        if name in values and values[name].shape != shape:
            raise CorruptFile(
                f"the LSTM's {name} has the wrong shape",
                where=where,
                found=str(values[name].shape),
                expected=str(shape),
            )


# ---- to gates ------------------------------------------------------------------------------------


def gates(
    node: LSTMNode, direction: int, *, with_empty: bool = True
) -> dict[Gate, GateWeights]:
    """Return the weights of each gate of a direction.

    Args:
        node: the node.
        direction: 0 or 1.
        with_empty: keep a second bias and peepholes that are +0.0 all through. They change nothing.
    """
    values = {
        name: entries(tensor, node.directions)[direction] for name, tensor in node.values.items()
    }
    fused = {
        "kernel": split(transposed(values["W"]), ORDER),
        "recurrent_kernel": split(transposed(values["R"]), ORDER),
    }
    if "B" in values:
        first, second = (split(half, ORDER) for half in blocks(values["B"], 2))
        fused["bias"] = first
        if with_empty or not all(map(is_zero, second.values())):
            fused["recurrent_bias"] = second
    if "P" in values:
        peepholes = split(values["P"], PEEPHOLES)
        if with_empty or not all(map(is_zero, peepholes.values())):
            fused["peephole"] = peepholes
    parts: dict[Gate, dict[str, Tensor]] = {
        gate: {part: tensors[gate] for part, tensors in fused.items() if gate in tensors}
        for gate in GATES
    }
    if node.coupled:
        # ONNX stores the input gate, and ONNX Runtime computes f = 1 - i. Here the forget gate is
        # stored, and i = 1 - f: the same with every sign turned, for the functions that
        # `_check_coupled` lets pass.
        parts[Gate.FORGET] = {p: negated(tensor) for p, tensor in parts.pop(Gate.INPUT).items()}
    return weights_of(parts)


def cell(node: LSTMNode, direction: int) -> Cell:
    """Return one direction as a cell, without a second bias or peepholes that change nothing.

    Raises:
        CorruptFile: the weights are not those of one cell; coupled gates with a function that has
            no counterpart.
    """
    recurrent, activation, output = node.activations[3 * direction : 3 * direction + 3]
    if node.coupled:
        _check_coupled(node, recurrent)
    result = Cell(
        gates=gates(node, direction, with_empty=False),
        options=CellOptions(
            activation=activation,
            recurrent_activation=recurrent,
            output_activation=None if output == activation else output,
            use_bias="B" in node.values,
            policy=node.values["W"].dtype.name,
            gate_clip=node.clip,
            input_forget=node.coupled,
        ),
        parts={
            part: ArrayTensor(node.states[name][direction])
            for name, part in (("initial_h", "initial_hidden"), ("initial_c", "initial_cell"))
            if name in node.states and bits(node.states[name][direction]).any()
        },
    )
    wellformed.check_cell(result, node.name, arrays=node.values)
    return result


def _check_coupled(node: LSTMNode, recurrent: Activation) -> None:
    if recurrent.name not in ("sigmoid", "hard_sigmoid") or (
        recurrent.constants.get("beta", 0.5) != 0.5
    ):
        raise CorruptFile(
            "input_forget with a function whose mirror image is another: it is read as nothing",
            where=node.name,
            found=str(recurrent),
        )


# ---- ONNX Runtime's DynamicQuantizeLSTM: W and R as 8-bit integers -------------------------------
#
# `onnxruntime.quantization.quantize_dynamic` puts it in an LSTM's place. Its inputs are the
# LSTM's, and four more (onnxruntime/docs/ContribOperators.md); W and R lie the other way round, and
# a weight is (q - zero point) * scale, with one scale for each direction or each column of one.


def is_quantized(node: onnx.NodeProto) -> bool:
    """Whether a node is ONNX Runtime's quantized LSTM."""
    return node.op_type == OPERATOR and node.domain == DOMAIN


def dequantized(stored: Tensor, scale: Tensor, zero: Tensor | None, where: str) -> Tensor:
    """Return W or R of the operator LSTM, (directions, 4 * units, inputs), float32.

    Args:
        stored: (directions, inputs, 4 * units), of 8 bits.
        scale, zero: (directions,), or (directions, 4 * units).
        where: for messages.

    Raises:
        CorruptFile: a type or a shape is not the operator's.
    """
    shape = stored.shape
    shapes = (shape[:1], (*shape[:1], *shape[2:]))
    fits = (
        len(shape) == 3
        and stored.dtype.name in _TYPES
        and scale.dtype.name == "float32"
        and scale.shape in shapes
        and (zero is None or (zero.dtype == stored.dtype and zero.shape in shapes))
    )
    if not fits:
        raise CorruptFile(
            "the weights of a quantized LSTM do not fit their scales",
            where=where,
            found=f"{stored.dtype.name} {shape}, scale {scale.dtype.name} {scale.shape}",
        )
    whole = stored.read().astype(np.int32)
    if zero is not None:
        whole -= _each_column(zero.read()).astype(np.int32)
    values = whole.astype(np.float32) * _each_column(scale.read())
    return ArrayTensor(np.ascontiguousarray(values.swapaxes(1, 2)))


def _each_column(array: Array) -> Array:
    return array.reshape(array.shape[0], 1, -1)
