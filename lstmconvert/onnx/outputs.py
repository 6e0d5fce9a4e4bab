"""What a graph does with an LSTM node's outputs, as far as that tells options of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from lstmconvert.layer import UNKNOWN, Unknown
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.nodes import LSTMNode
from lstmconvert.onnx.scopes import Graphs, attributes

_HAND_ON = frozenset({"Cast", "Identity", "ReverseSequence", "Where", "Dropout"})
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Use:
    """Which outputs of a node are used: all steps, the last hidden state, the last cell state."""

    steps: bool
    hidden: bool
    carry: bool


def use(node: LSTMNode, graphs: Graphs) -> Use:
    """Return which outputs go anywhere; if none does, those that the node has."""
    names = [node.output(name) for name in ("Y", "Y_h", "Y_c")]
    used = [graphs.is_used(name) for name in names]
    return Use(*(used if any(used) else map(bool, names)))


@dataclass(frozen=True, slots=True)
class _Value:
    """A value on its way: its name; which half it is, or None for both; and of both, whether their
    axis lies next to that of the units."""

    name: str
    half: int | None
    adjacent: bool


def merge_mode(
    node: LSTMNode, graphs: Graphs, constants: Constants, is_sequence: bool
) -> str | Unknown:
    """Return how the graph joins the two directions of a node, `UNKNOWN` where it is not plain."""
    name = node.output("Y" if is_sequence else "Y_h")
    adjacent = node.batch_first
    waiting, modes = [_Value(name, None, adjacent)], set[str]()
    axis = (2 if is_sequence else 1) if node.batch_first else (1 if is_sequence else 0)
    tracer = _Tracer(graphs, constants, node, axis)
    for _ in range(_STEPS):
        if not waiting:
            break
        value = waiting.pop()
        for user in graphs.uses.get(value.name, ()):
            mode = tracer.mode(user, value)
            if mode is not None:
                modes.add(mode)
            else:
                waiting += tracer.behind(user, value)
    return modes.pop() if len(modes) == 1 and "" not in modes else UNKNOWN


class _Tracer:
    def __init__(
        self, graphs: Graphs, constants: Constants, node: LSTMNode, axis: int
    ) -> None:
        self._graphs, self._constants, self._node, self._axis = graphs, constants, node, axis
        self._halves: dict[str, int] = {}

    def mode(self, user: onnx.NodeProto, value: _Value) -> str | None:
        """Return the merge mode that a node is, empty if it joins in no way of Keras's."""
        if value.half is None:
            is_flat = user.op_type in ("Reshape", "Flatten") and user.input[0] == value.name
            return ("concat" if value.adjacent else "") if is_flat else None
        if user.op_type == "Concat":
            order = [self._halves.get(name) for name in user.input]
            return None if None in order else "concat" if order == [0, 1] else ""
        if user.op_type == "Mul" and all(name in self._halves for name in user.input):
            return "mul"
        if user.op_type == "Add" and all(name in self._halves for name in user.input):
            return self._sum(user)
        return None

    def _sum(self, user: onnx.NodeProto) -> str:
        after = self._graphs.uses.get(user.output[0], [])
        if len(after) == 1 and after[0].op_type in ("Div", "Mul"):
            for name in after[0].input:
                wanted = 2.0 if after[0].op_type == "Div" else 0.5
                if name != user.output[0] and self._numbers(name) == [wanted]:
                    return "ave"
            return ""
        return "sum"

    def behind(self, user: onnx.NodeProto, value: _Value) -> Iterator[_Value]:
        """Yield what a node makes of a value, where it keeps the halves apart or as they are."""
        kind, half = user.op_type, value.half
        if not user.input or not user.output:
            return
        if kind in _HAND_ON or (kind == "Squeeze" and half is not None):
            yield self._found(user.output[0], half, value.adjacent)
        elif kind == "Transpose" and half is not None:
            yield self._found(user.output[0], half, False)
        elif kind == "Transpose":
            yield self._found(user.output[0], None, self._is_adjacent(user))
        elif kind == "Split" and half is None and len(user.output) == 2:
            for index, name in enumerate(user.output):
                yield self._found(name, index, False)
        elif kind in ("Slice", "Gather") and half is None:
            index = self._index(user)
            if index is not None:
                yield self._found(user.output[0], index, False)
        elif kind in ("Slice", "Gather", "Unsqueeze") and user.input[0] == value.name:
            yield self._found(user.output[0], half, False)

    def _found(self, name: str, half: int | None, adjacent: bool) -> _Value:
        if half is not None:
            self._halves[name] = half
        return _Value(name, half, adjacent)

    def _is_adjacent(self, user: onnx.NodeProto) -> bool:
        found = attributes(user).get("perm")
        perm = list(found.ints) if found is not None else []
        return len(perm) > 2 and perm[-2:] == [self._axis, len(perm) - 1]

    def _index(self, user: onnx.NodeProto) -> int | None:
        """Return which direction a Gather or Slice takes, None if it is not plain."""
        found = attributes(user)
        if user.op_type == "Gather":
            axis = found["axis"].i if "axis" in found else 0
            picked = self._numbers(user.input[1]) if len(user.input) > 1 else None
        else:
            axes = self._numbers(user.input[3]) if len(user.input) > 3 else None
            axis = axes[0] if axes is not None and len(axes) == 1 else -1
            picked = self._numbers(user.input[1]) if len(user.input) > 1 else None
        if axis != self._axis or picked is None or len(picked) != 1:
            return None
        return {0: 0, 1: 1, -1: 1, -2: 0}.get(int(picked[0]))

    def _numbers(self, name: str) -> list[float] | None:
        try:
            tensor = self._constants.tensor(self._node.scope, name)
        except NotConstantError:
            return None
        return [float(x) for x in tensor.read().reshape(-1)] if tensor.size <= 4 else None
