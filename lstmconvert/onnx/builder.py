"""A graph under construction: nodes, inputs, outputs, and weights that stay in their files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.onnx.messages import Axis, Body, Declared, Node
from lstmconvert.tensors.dtypes import Array, DType, dtype_of
from lstmconvert.tensors.tensor import Tensor

Axes = Sequence[Axis]


class Style(NamedTuple):
    """What a user chooses of a graph.

    Fields: `fused`: W, R and B as initializers, not gates; `states`: initial states are inputs;
    `lengths`: the lengths of the sequences are an input.
    """

    fused: bool = False
    states: bool = False
    lengths: bool = False


class Graph:
    """Nodes in the order they run, and what they run on.

    Every value has the name of the node that makes it, so that both read alike in a viewer. Names
    with a dot belong to a layer (`lstm.W`); shared constants have none.

    Fields: `style`; `weights`: initializers by name, written streaming; `defaults`: small
    initializers that give inputs a default.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.nodes: list[Node] = []
        self.inputs: list[Declared] = []
        self.outputs: list[Declared] = []
        self.defaults: dict[str, Array] = {}
        self.weights: dict[str, Tensor] = {}
        self._made: set[str] = set()

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name, which is the node's."""
        return self.nodes_outputs(operator, inputs, name, (name,), **attributes)[0]

    def nodes_outputs(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        outputs: Sequence[str],
        **attributes: Any,
    ) -> Sequence[str]:
        """Add a node with several outputs, and return their names."""
        self.nodes.append(Node(operator, inputs, outputs, name, attributes))
        return outputs

    def input(self, name: str, dtype: str, axes: Axes, default: Array | None = None) -> str:
        """Declare an input; with a default, it need not be given."""
        self.inputs.append(Declared(name, dtype, axes))
        if default is not None:
            self.defaults[name] = default
        return name

    def output(self, name: str, dtype: str, axes: Axes) -> str:
        """Declare a value an output."""
        self.outputs.append(Declared(name, dtype, axes))
        return name

    def weight(self, name: str, tensor: Tensor) -> str:
        """Add an initializer."""
        self.weights[name] = tensor
        return name

    def integers(self, *values: int) -> str:
        """Return the name of a constant (n,) of int64, shared by all that need it."""
        name = "ints_" + "_".join(map(str, values))
        if name not in self._made:
            self._made.add(name)
            self.node("Constant", (), name, value_ints=list(values))
        return name

    def scalar(self, value: float, dtype: str) -> str:
        """Return the name of a constant () of a dtype, shared by all that need it."""
        name = f"{dtype}_{value:g}"
        if name not in self._made:
            self._made.add(name)
            self.node("Constant", (), name, value=np.asarray(value, dtype_of(dtype)))
        return name

    def zeros(self, count: int, dtype: DType, name: str, value: float = 0.0) -> str:
        """Return the name of a constant (count,), all of one value, that takes no space."""
        fill = np.asarray([value], dtype)
        return self.node("ConstantOfShape", [self.integers(count)], name, value=fill)

    def turned(self, matrix: str, name: str, dtype: DType, *, new_axis: bool = False) -> str:
        """Return a matrix with its axes the other way round, and a new first axis if asked for.

        Args:
            matrix: its name.
            name: the result's.
            dtype: of its numbers.
            new_axis: whether the result is (1, columns, rows).
        """
        del dtype
        if not new_axis:
            return self.node("Transpose", [matrix], name, perm=(1, 0))
        turned = self.node("Transpose", [matrix], f"{matrix}_turned", perm=(1, 0))
        return self.node("Unsqueeze", [turned, self.integers(0)], name)

    def prune(self) -> None:
        """Take out the nodes that no output needs, and the outputs of LSTM nodes that none does."""
        needed = {value.name for value in self.outputs}
        kept = []
        for node in reversed(self.nodes):
            if needed.isdisjoint(node.outputs):
                continue
            if node.operator == "LSTM":
                node.outputs = [name if name in needed else "" for name in node.outputs]
                while not node.outputs[-1]:
                    node.outputs.pop()
            needed.update(node.inputs)
            kept.append(node)
        self.nodes = kept[::-1]

    def body(self) -> Body:
        """Return the graph without its weights."""
        return Body("lstmconvert", self.nodes, self.inputs, self.outputs, self.defaults)
