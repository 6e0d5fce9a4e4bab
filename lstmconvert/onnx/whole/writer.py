"""The graph of a whole model while it is written: names, constants, values, and turns of axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from lstmconvert.onnx.messages import NUMBERS, Axis, Body, Declared, Graph, Node, Style
from lstmconvert.tensors.dtypes import Array, DType, dtype_of
from lstmconvert.tensors.tensor import Tensor

#: The axes of a stored array, each by the number of the axis of Keras's that it is: (1, 0, 2) is an
#: array of steps whose time comes first.
Order = tuple[int, ...]
Shape = tuple[Axis, ...]
#: The name of an array, an index of its first axis, and how long that axis is.
Row = tuple[str, int, int]


class Value:
    """A tensor of the model, in one or more arrangements of its axes.

    A convolution of ONNX wants its channels before its windows and an LSTM its time first, where
    Keras has both last: so a value stays as the node that made it left it, and is turned when
    another wants it otherwise, once.

    Fields: `forms`: order -> the name that the graph has for it; `makers`: order -> what adds the
    nodes of that form when it is first asked for; `dtype`, by NumPy's name; `shape`, in Keras's
    order; `mask`: the mask that Keras attaches to it, or None; `compact`: what adds the nodes of
    the same steps with the masked ones moved to the end, time first, and the mask that says which;
    `folded`: the same numbers with batch and steps as one axis, and a value whose first two axes
    they are; `row`: where a state stands in a node's output of the states of all directions.
    """

    __slots__ = ("compact", "dtype", "folded", "forms", "makers", "mask", "row", "shape")

    def __init__(self, name: str, dtype: str, shape: Shape, order: Order | None = None) -> None:
        self.forms: dict[Order, str] = {}
        self.makers: dict[Order, Callable[[], str]] = {}
        self.dtype, self.shape = dtype, tuple(shape)
        self.mask: Value | None = None
        self.compact: tuple[Callable[[], str], Value] | None = None
        self.folded: tuple[Value, Value] | None = None
        self.row: Row | None = None
        if name:
            self.forms[self.straight if order is None else order] = name

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def straight(self) -> Order:
        """Keras's own order."""
        return tuple(range(len(self.shape)))

    def static(self, axis: int) -> int | None:
        """The length of an axis where it is known when the graph is written."""
        size = self.shape[axis]
        return size if isinstance(size, int) else None

    def again(self) -> Value:
        """Return the same tensor as another value, for another mask."""
        other = Value("", self.dtype, self.shape)
        other.forms, other.makers = self.forms, self.makers
        other.mask, other.compact, other.folded = self.mask, self.compact, self.folded
        other.row = self.row
        return other

    def __repr__(self) -> str:
        names = ", ".join(f"{name}{order}" for order, name in self.forms.items())
        return f"Value({names or 'not made yet'}, {self.dtype}, {self.shape})"


def turn(stored: Order, wanted: Order) -> tuple[int, ...]:
    """Return the `perm` of a Transpose from one order to another."""
    return tuple(stored.index(axis) for axis in wanted)


def channels_first(rank: int) -> Order:
    """The order (batch, channels, window) of what Keras has as (batch, window, channels)."""
    return (0, rank - 1, *range(1, rank - 1))


#: (time, batch, features) of what Keras has as (batch, time, features).
TIME_MAJOR: Order = (1, 0, 2)


#: The last index of an axis and beyond: where a Slice to the end ends.
END = 2**63 - 1
#: Before the first index: where a Slice that runs backwards ends.
BEFORE = -(2**63)
FLOATS = frozenset({"float32", "float16", "bfloat16", "float64"})


class WholeGraph(Graph):
    """A graph whose small constants are initializers: fewer nodes than a Constant for each."""

    def __init__(self, style: Style, taken: Sequence[str]) -> None:
        super().__init__(style)
        self._names = set(taken)
        #: Initializer -> where its numbers come from: the source's path, and how they are turned.
        self.origins: dict[str, tuple[str, tuple[int, ...] | None, tuple[int, ...]]] = {}

    def unique(self, wanted: str) -> str:
        """Return a name that nothing has, and take it."""
        name, number = wanted, 0
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def nodes_outputs(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        outputs: Sequence[str],
        **attributes: Any,
    ) -> Sequence[str]:
        self._names.update(outputs)
        return super().nodes_outputs(operator, inputs, name, outputs, **attributes)

    def weight(self, name: str, tensor: Tensor) -> str:
        self._names.add(name)
        return super().weight(name, tensor)

    def constant(self, array: Array, name: str) -> str:
        """Add a small initializer, and return its name: one that is there already if it has the
        same numbers, else a name with a number."""
        wanted, number = name, 0
        while (existing := self.defaults.get(name)) is not None and not _is_same(existing, array):
            number += 1
            name = f"{wanted}_{number}"
        self.defaults[name] = array
        return name

    def integers(self, *values: int) -> str:
        text = "_".join(str(value).replace("-", "minus_") for value in values)
        return self.constant(np.asarray(values, np.int64), f"ints_{text}")

    def scalar(self, value: float, dtype: str) -> str:
        array = np.asarray(value, dtype_of(dtype))
        return self.constant(array, f"{dtype}_{array.item()!r}")

    def zeros(self, count: int, dtype: DType, name: str, value: float = 0.0) -> str:
        del name  # shared by all that need it
        filled = np.full(count, value, dtype)
        return self.constant(filled, f"{dtype.name}_{float(value)!r}_times_{count}")

    def turned(self, matrix: str, name: str, dtype: DType, *, new_axis: bool = False) -> str:
        """As `Graph.turned`, by one node: a product with 1.0, which changes no number. ONNX
        Runtime has an Einsum of these types alone (1.32)."""
        if not new_axis or dtype.name not in ("float32", "float64"):
            return super().turned(matrix, name, dtype, new_axis=new_axis)
        factor = self.zeros(1, dtype, "", 1.0)
        return self.node("Einsum", [matrix, factor], name, equation="rc,d->dcr")

    def rename(self, old: str, new: str, start: int = 0) -> None:
        """Give a value that a node makes another name, in the nodes from `start` on."""
        for node in self.nodes[start:]:
            node.inputs = [new if name == old else name for name in node.inputs]
            node.outputs = [new if name == old else name for name in node.outputs]

    def prune(self) -> None:
        """Take out what no output needs: nodes, their last outputs, constants and weights."""
        needed = {value.name for value in self.outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if needed.isdisjoint(node.outputs):
                continue
            if node.operator in ("LSTM", "GRU", "RNN"):
                node.outputs = [name if name in needed else "" for name in node.outputs]
                while not node.outputs[-1]:
                    node.outputs.pop()
            needed.update(node.inputs)
            for value in node.attributes.values():
                if isinstance(value, Body):
                    needed.update(name for inner in value.nodes for name in inner.inputs)
            kept.append(node)
        self.nodes = kept[::-1]
        inputs = {value.name for value in self.inputs}
        self.defaults = {k: v for k, v in self.defaults.items() if k in needed or k in inputs}
        self.weights = {k: v for k, v in self.weights.items() if k in needed}


def _is_same(first: Array, second: Array) -> bool:
    alike = first.dtype == second.dtype and first.shape == second.shape
    return alike and first.tobytes() == second.tobytes()


class GraphWriter:
    """Adds nodes for one model.

    Args:
        graph: the graph.
        opset: the version of the operators.
        is_modern: whether Keras 3 wrote the model: masks and a few functions differ.
        assets: the files that a .keras has of its layers, by path.
    """

    def __init__(
        self,
        graph: WholeGraph,
        opset: int,
        *,
        is_modern: bool,
        assets: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        self.graph, self.opset, self.is_modern, self.assets = graph, opset, is_modern, assets
        self._cache: dict[Any, Any] = {}
        self.warnings: list[str] = []

    # ---- nodes -------------------------------------------------------------------------------

    def op(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        return self.ops(operator, inputs, name, 1, **attributes)[0]

    def ops(
        self, operator: str, inputs: Sequence[str], name: str, count: int, **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs, and return their names."""
        name = self.graph.unique(name)
        outputs = [name] if count == 1 else [f"{name}.{index}" for index in range(count)]
        self.graph.nodes_outputs(operator, inputs, name, outputs, **attributes)
        return outputs

    def warn(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def cached(self, key: Any, make: Any) -> Any:
        """Return what `make` returns, called once for a key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def ints(self, *values: int) -> str:
        """Return the name of a constant (n,) of int64."""
        return self.graph.integers(*values)

    def place(self, value: int) -> str:
        """Return the name of a constant () of int64."""
        return self.graph.scalar(value, "int64")

    def number(self, value: float, dtype: str) -> str:
        """Return the name of a constant () of a dtype."""
        return self.graph.scalar(value, dtype)

    def reduce(
        self, operator: str, name: str, axes: Sequence[int], label: str, *, keep: bool
    ) -> str:
        """Add a reduction: its axes are an input of ReduceSum from opset 13 on, of the others
        from 18 on, and an attribute before."""
        if operator == "ReduceSum" or self.opset >= 18:
            return self.op(operator, [name, self.ints(*axes)], label, keepdims=int(keep))
        return self.op(operator, [name], label, axes=list(axes), keepdims=int(keep))

    # ---- arrangements ------------------------------------------------------------------------

    def form(self, value: Value, order: Order | None = None) -> str:
        """Return the name of a value with its axes in an order, Keras's own by default."""
        order = value.straight if order is None else order
        name = value.forms.get(order)
        if name is None and order in value.makers:
            name = value.forms[order] = value.makers[order]()
        if name is None:
            start, stored = self.native(value)
            label = f"{start}.axes_{''.join(map(str, order))}"
            name = self.op("Transpose", [start], label, perm=list(turn(stored, order)))
            value.forms[order] = name
        return name

    def native(self, value: Value, *, last: bool = False) -> tuple[str, Order]:
        """Return a form that the graph has already, and its order.

        Args:
            value: the value.
            last: whether its last axis must be Keras's last.
        """
        orders = [*value.forms, *value.makers]
        fitting = [order for order in orders if not last or order[-1:] == value.straight[-1:]]
        order = fitting[0] if fitting else value.straight
        return self.form(value, order), order

    # ---- types -------------------------------------------------------------------------------

    def cast(self, value: Value, dtype: str) -> Value:
        """Return a value in another dtype, as Keras casts what a layer is given."""
        if value.dtype == dtype:
            return value
        key = ("cast", id(value.forms), dtype)
        forms, _ = self.cached(key, lambda: self._cast(value, dtype))
        result = Value("", dtype, value.shape)
        result.forms, result.mask = forms, value.mask
        return result

    def _cast(self, value: Value, dtype: str) -> tuple[dict[Order, str], Value]:
        name, order = self.native(value)
        made = self.op("Cast", [name], f"{name}.{dtype}", to=NUMBERS[dtype])
        # The value is kept with it, so that its `id` stays its own.
        return {order: made}, value

    # ---- ends --------------------------------------------------------------------------------

    def input(self, name: str, dtype: str, shape: Sequence[Any]) -> Value:
        """Declare an input of the graph."""
        name = self.graph.unique(name)
        self.graph.input(name, dtype, list(shape))
        return Value(name, dtype, tuple(shape))

    def outputs(self, ends: Sequence[tuple[Value, str]]) -> None:
        """Make values the outputs of the graph, each under a name of Keras's."""
        names = [self.form(value) for value, _ in ends]
        inputs = {item.name for item in self.graph.inputs}
        wanted_names = {wanted for _, wanted in ends}
        made = {name for node in self.graph.nodes for name in node.outputs}
        for name in sorted(wanted_names & made - set(names)):  # the same value in another order
            self.graph.rename(name, self.graph.unique(f"{name}.stored"))
        done: dict[str, str] = {}
        copies: list[tuple[str, str]] = []
        for index, (value, wanted) in enumerate(ends):
            name = names[index]
            if name in inputs or name in done or name not in made:
                copies.append((name, wanted))
            else:
                done[name] = wanted
            self.graph.outputs.append(Declared(wanted, value.dtype, value.shape))
        # All at once: one value may be called what another is to be.
        for node in self.graph.nodes:
            node.inputs = [done.get(name, name) for name in node.inputs]
            node.outputs = [done.get(name, name) for name in node.outputs]
        for name, wanted in copies:
            start = done.get(name, name)
            self.graph.nodes_outputs("Identity", [start], f"{wanted}.identity", [wanted])

    def weight(self, name: str, tensor: Tensor, origin: Any) -> str:
        """Add an initializer, once; `origin` as `WholeGraph.origins`."""
        self.graph.weight(name, tensor)
        if origin is not None:
            self.graph.origins[name] = origin
        return name
