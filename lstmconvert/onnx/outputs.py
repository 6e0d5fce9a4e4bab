"""What a graph does with an LSTM node's outputs, as far as that tells options of a layer.

A node always computes every step of every direction. What follows it says whether only the last
step counts (return_sequences) and how two directions are joined (merge_mode). Values are followed
with the meaning of each of their axes: T time, D directions, B batch, H units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx

from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.nodes import LSTMNode
from lstmconvert.onnx.scopes import Graphs, attributes
from lstmconvert.options import UNKNOWN, Unknown
from lstmconvert.tensors import Tensor

#: Nodes that hand their first input on as it is, as far as its axes go.
_HAND_ON = frozenset({"Cast", "Dropout", "Identity"})
#: So many nodes behind an LSTM are looked at.
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Use:
    """What of a node's outputs is used.

    Fields: `steps`: all steps, or some beside the last; `hidden` and `carry`: the last states, as
    outputs of their own; `merge_mode`, `UNKNOWN` where the graph joins the directions in no way of
    Keras's, or not at all; `turned`: whether the order of time is turned round.
    """

    steps: bool
    hidden: bool
    carry: bool
    merge_mode: str | Unknown
    turned: bool


def use(node: LSTMNode, graphs: Graphs, constants: Constants) -> Use:
    """Return what the graph does with a node's outputs; if nothing, all that the node has count."""
    names = [node.output(name) for name in ("Y", "Y_h", "Y_c")]
    used = [graphs.is_used(name) for name in names]
    if not any(used):
        used = [bool(name) for name in names]
    steps, hidden, carry = used
    tracer = _Tracer(graphs, constants, node)
    axes = "BTDH" if node.batch_first else "TDBH"
    ends = tracer.ends(_Value(names[0], axes)) if steps else []
    is_last = bool(ends) and all(end.last for end in ends)
    if not steps and hidden:  # what is returned is the last step, by its other name
        axes = axes.replace("T", "")
        ends, hidden = tracer.ends(_Value(names[1], axes, last=True)), False
    modes = {end.mode for end in ends}
    mode = modes.pop() if len(modes) == 1 else None
    turned = bool(ends) and all(end.turned for end in ends)
    return Use(steps and not is_last, hidden, carry, UNKNOWN if mode is None else mode, turned)


@dataclass(frozen=True, slots=True)
class _Value:
    """A value on its way.

    Fields: `name`; `axes`, a letter each; `half`: 0 or 1, or None for both directions; `last`:
    whether it is the last step alone; `turned`: whether time runs the other way; `mode`: how the
    directions were joined.
    """

    name: str
    axes: str
    half: int | None = None
    last: bool = False
    turned: bool = False
    mode: str | None = None


class _Tracer:
    def __init__(self, graphs: Graphs, constants: Constants, node: LSTMNode) -> None:
        self._graphs, self._constants, self._node = graphs, constants, node
        self._seen: dict[str, _Value] = {}

    def ends(self, start: _Value) -> list[_Value]:
        """Follow a value until it is used for something else; return what it is there."""
        waiting, result = [start], list[_Value]()
        for _ in range(_STEPS):
            if not waiting:
                return result
            value = waiting.pop()
            self._seen[value.name] = value
            if value.name in self._graphs.outputs:
                result.append(value)
            for user in self._graphs.uses.get(value.name, ()):
                following = self._behind(user, value)
                if following is None:
                    result.append(value)
                waiting += following or ()
        return [start]

    def _behind(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        """Return what a node makes of a value; None if that is not followed.

        A node that waits for the other half returns nothing, and is met again from there.
        """
        kind = user.op_type
        if not user.output or (value.mode is None and kind in ("Concat", "Add", "Mul")):
            return self._joined(user, value)
        if user.input[0] != value.name and kind != "Where":
            return None
        name = user.output[0]
        if kind in _HAND_ON or (kind == "Where" and value.name in user.input[1:]):
            return [replace(value, name=name)]
        if kind == "Transpose":
            return self._transposed(user, value)
        if kind == "Squeeze":
            axes = self._axes(user, 1, value)
            if axes is None:
                return None
            kept = "".join(a for index, a in enumerate(value.axes) if index not in axes)
            half = 0 if self._node.directions == 1 and "D" not in kept else value.half
            return [replace(value, name=name, axes=kept, half=half)]
        if kind == "Split":
            return self._split(user, value)
        if kind in ("Slice", "Gather"):
            return self._picked(user, value)
        if kind == "ReverseSequence" and "T" in value.axes:
            return [replace(value, name=name, turned=not value.turned)]
        if kind == "Reshape" and value.half is None and value.axes.endswith("DH"):
            mode = "concat" if self._node.directions == 2 else None
            return [replace(value, name=name, axes=f"{value.axes[:-2]}H", mode=mode, half=0)]
        return None

    def _transposed(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        found = attributes(user).get("perm")
        order = list(found.ints) if found is not None else []
        if sorted(order) != list(range(len(value.axes))):
            return None
        axes = "".join(value.axes[index] for index in order)
        return [replace(value, name=user.output[0], axes=axes)]

    def _split(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        axis = attributes(user)["axis"].i if "axis" in attributes(user) else 0
        if value.half is not None or self._letter(value, axis) != "D" or len(user.output) != 2:
            return None
        return [replace(value, name=name, half=i) for i, name in enumerate(user.output)]

    def _picked(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        place = self._pick(user, value)
        if place is None:
            return None
        letter, index, axes = place
        found = replace(value, name=user.output[0], axes=axes)
        if letter == "T" and index is None:
            return [replace(found, turned=not value.turned)]
        if letter == "D" and value.half is None and index is not None:
            half = index if index >= 0 else index + self._node.directions
            return [replace(found, half=half)] if half in (0, 1) else None
        if letter == "T" and not value.turned and (value.half is not None or self._is_single):
            reads_back = self._node.direction == "reverse" or value.half == 1
            if index == (0 if reads_back else -1):
                return [replace(found, last=True)]
        return None

    @property
    def _is_single(self) -> bool:
        return self._node.directions == 1

    def _pick(self, user: onnx.NodeProto, value: _Value) -> tuple[str, int | None, str] | None:
        """Return the axis that a Gather or Slice picks one place of, the place, and the axes left.

        The place is None for a Slice from the last to the first.
        """
        if user.op_type == "Gather":
            found = attributes(user)
            axis = found["axis"].i if "axis" in found else 0
            picked = self._numbers(user, 1)
            letter = self._letter(value, axis)
            if picked is None or len(picked) != 1 or not letter:
                return None
            is_scalar = self._rank(user, 1) == 0
            return letter, picked[0], value.axes.replace(letter, "") if is_scalar else value.axes
        starts, ends, axes = (self._numbers(user, place) for place in (1, 2, 3))
        steps = self._numbers(user, 4) if len(user.input) > 4 else [1]
        if starts is None or ends is None or axes is None or steps is None:
            return None
        if [len(numbers) for numbers in (starts, ends, axes, steps)] != [1, 1, 1, 1]:
            return None
        letter = self._letter(value, axes[0])
        if steps == [-1] and starts[0] in (-1, 2**63 - 1, 2**31 - 1) and ends[0] < -(2**30):
            return (letter, None, value.axes) if letter == "T" else None
        is_one = ends[0] == starts[0] + 1 or (starts[0] == -1 and ends[0] >= 2**30)
        return (letter, starts[0], value.axes) if letter and is_one and steps == [1] else None

    def _joined(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        if value.half is None or self._is_single or not user.output:
            return None
        others = [self._seen.get(name) for name in user.input]
        if any(other is None for other in others):
            return []  # met again from the other half
        both = [other for other in others if other is not None]
        halves = [other.half for other in both]
        if sorted(h for h in halves if h is not None) != [0, 1] or both[0].axes != both[1].axes:
            return None
        mode = {"Concat": "concat", "Add": "sum", "Mul": "mul"}[user.op_type]
        name = user.output[0]
        if mode == "concat" and not self._joins_units(user, value, halves):
            return None
        if mode == "sum":
            mode, name = self._average(user)
        last = all(other.last for other in both)
        turned = any(other.turned for other in both)
        return [_Value(name, value.axes, 0, last, turned, mode)]

    def _joins_units(
        self, user: onnx.NodeProto, value: _Value, halves: Sequence[int | None]
    ) -> bool:
        return halves == [0, 1] and self._letter(value, attributes(user)["axis"].i) == "H"

    def _average(self, user: onnx.NodeProto) -> tuple[str, str]:
        """Tell a sum from an average: a sum that is halved, and used for nothing else."""
        after = self._graphs.uses.get(user.output[0], [])
        if len(after) == 1 and after[0].op_type in ("Div", "Mul") and len(after[0].input) == 2:
            wanted = 2.0 if after[0].op_type == "Div" else 0.5
            for place in (0, 1):
                if after[0].input[place] != user.output[0]:
                    tensor = self._small(after[0], place)
                    if tensor == [wanted] and (place == 1 or wanted == 0.5):
                        return "ave", after[0].output[0]
        return "sum", user.output[0]

    # ---- constants ---------------------------------------------------------------------------

    def _letter(self, value: _Value, axis: int) -> str:
        rank = len(value.axes)
        return value.axes[axis] if -rank <= axis < rank else ""

    def _axes(self, user: onnx.NodeProto, place: int, value: _Value) -> set[int] | None:
        found = attributes(user).get("axes")  # an attribute until opset 13
        axes = list(found.ints) if found is not None else self._numbers(user, place)
        return None if axes is None else {axis % len(value.axes) for axis in axes}

    def _numbers(self, user: onnx.NodeProto, place: int) -> list[int] | None:
        found = self._small(user, place)
        return None if found is None else [int(number) for number in found]

    def _small(self, user: onnx.NodeProto, place: int) -> list[float] | None:
        if place >= len(user.input) or not user.input[place]:
            return None
        try:
            tensor = self._tensor(user, place)
        except NotConstantError:
            return None
        return list(tensor.read().reshape(-1).tolist()) if tensor.size <= 4 else None

    def _rank(self, user: onnx.NodeProto, place: int) -> int:
        return len(self._tensor(user, place).shape)

    def _tensor(self, user: onnx.NodeProto, place: int) -> Tensor:
        return self._constants.tensor(self._graphs.homes[id(user)], user.input[place])


def neighbours(node: LSTMNode, graphs: Graphs) -> Iterator[str]:
    """Yield the names of nodes around one: those before it, then those behind it, nearest first."""
    value = node.input("X")
    for _ in range(_NEAR):
        before = node.scope.producers.get(value)
        if before is None or before.op_type == "LSTM":
            break
        yield before.name
        value = before.input[0] if before.input else ""
    value = next((output for output in node.node.output if graphs.is_used(output)), "")
    for _ in range(_NEAR):
        users = graphs.uses.get(value, [])
        if len(users) != 1 or users[0].op_type == "LSTM" or not users[0].output:
            break
        yield users[0].name
        value = users[0].output[0]


#: So many nodes away, a node's name still tells the layer.
_NEAR = 3
