"""What a graph does with an LSTM node's inputs, as far as that belongs to the layer.

Keras's exporters turn the sequence round before the node where a layer has go_backwards, and the
node itself says "forward". Initial states are constants, constants spread over the batch, zeros of
the batch's size, or what the caller of the graph passes, or what other nodes compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.skeleton import DEFAULT_DOMAINS, Scope, attributes
from lstmconvert.tensors.dtypes import Array, bits

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
    place: tuple[Scope, str, str], axes: str, constants: Constants, lengths: str
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

    scope: Scope
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


def _integers(scope: Scope, name: str, constants: Constants) -> list[int] | None:
    try:
        tensor = constants.tensor(scope, name)
    except NotConstantError:
        return None
    if tensor.dtype.kind not in "iu":
        return None
    return [int(number) for number in tensor.read().reshape(-1)]


#: A value, by its graph and name, and one of its axes.
_Axis = tuple[int, str, int]


def _root(scope: Scope, name: str, axis: int) -> _Axis | None:
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


def _static_size(scope: Scope, name: str, axis: int) -> int | None:
    """Return the length of an axis if it is one of an input of the graph that states it."""
    root = _root(scope, name, axis)
    holder = scope.holder(name)
    while holder is not None and root is not None:
        if id(holder) == root[0] and (shape := holder.shapes.get(root[1])) is not None:
            return shape[root[2]] if root[2] < len(shape) else None
        holder = holder.outer
    return None


def _size(scope: Scope, name: str, constants: Constants) -> _Axis | list[int] | None:
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
    place: tuple[Scope, str, str], constants: Constants, shape: tuple[int, int, bool]
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
    scope: Scope, name: str, constants: Constants, shape: tuple[int, int, bool]
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


def _is_zero(scope: Scope, name: str, constants: Constants) -> bool:
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


def _from_elsewhere(scope: Scope, name: str) -> InitialState:
    """Say in words what an initial state that is not constant is made of."""
    inputs: list[str] = []
    for owner, leaf in _leaves(scope, name):
        if owner is None:
            inputs.append(f"the graph's input {leaf}")
        else:
            inputs.append(owner)
    return InitialState(origin=" and ".join(dict.fromkeys(inputs))[:200])


def _leaves(scope: Scope, name: str) -> Iterator[tuple[str | None, str]]:
    """Yield the inputs of the graph that a value is arranged of: None and the name.

    For what an operator computes, or what a graph around hands on, the first is that, in words.
    """
    waiting: list[tuple[Scope, str]] = [(scope, name)]
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
