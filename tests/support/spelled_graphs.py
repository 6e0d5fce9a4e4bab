"""ONNX graphs of plain operators: LSTMs spelled out in many ways, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STEPS, WIDTH, UNITS = 3, 2, 3


class Graph:
    """A graph that is being made: nodes and initializers."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Any] = {}
        self._count = 0

    def weight(self, *shape: int, name: str | None = None) -> str:
        """Add random weights, and return their name."""
        name = name or f"w{len(self.weights)}"
        if name not in self.weights:
            self.weights[name] = self.rng.uniform(-0.9, 0.9, shape).astype("f4")
        return name

    def constant(self, value: Any, dtype: str = "f4") -> str:
        """Add a constant, and return its name."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(value, dtype)
        return name

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, and return its name."""
        self._count += 1
        name = f"v{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def split(self, value: str, count: int) -> list[str]:
        """Cut a value into equal columns."""
        self._count += 1
        names = [f"v{self._count}_{place}" for place in range(count)]
        self.nodes.append(helper.make_node("Split", [value], names, axis=-1, num_outputs=count))
        return names

    def model(self, output: str, *, shape: tuple[int, ...] = (2, STEPS, WIDTH)) -> onnx.ModelProto:
        """Return the model: one input x, one output."""
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def step_of(self, time: int) -> str:
        """Return one step of the input."""
        return self("Gather", "x", self.constant(time, "i8"), axis=1)

    def zeros(self, width: int = UNITS) -> str:
        """Return a state of zeros."""
        return self.constant(np.zeros((2, width)))


State = tuple[str, ...]
Step = Callable[[Graph, str, State], State]


def unrolled(step: Step, states: int, seed: int, width: int = UNITS) -> onnx.ModelProto:
    """Return a graph that takes one step after the other. The first state is the output."""
    graph = Graph(seed)
    state = tuple(graph.zeros(width) for _ in range(states))
    outputs = []
    for time in range(STEPS):
        state = step(graph, graph.step_of(time), state)
        outputs.append(graph("Unsqueeze", state[0], graph.constant([1], "i8")))
    return graph.model(graph("Concat", *outputs, axis=1))


def affine(graph: Graph, name: str, width: int, *inputs: str) -> str:
    """Return a product with the inputs side by side, and a bias, with weights of one name."""
    sizes = WIDTH + UNITS * (len(inputs) - 1)
    joined = graph("Concat", *inputs, axis=-1) if len(inputs) > 1 else inputs[0]
    product = graph("MatMul", joined, graph.weight(sizes, width, name=f"{name}.w"))
    return graph("Add", product, graph.weight(width, name=f"{name}.b"))


def mixed(graph: Graph, forget: str, state: str, added: str, new: str) -> str:
    """Return forget * state + added * new."""
    return graph("Add", graph("Mul", forget, state), graph("Mul", added, new))


# -- what is not an LSTM ---------------------------------------------------------------------------


def gru(graph: Graph, x: str, state: State) -> State:
    (h,) = state
    z, r = graph.split(graph("Sigmoid", affine(graph, "zr", 2 * UNITS, x, h)), 2)
    new = graph("Tanh", affine(graph, "n", UNITS, x, graph("Mul", r, h)))
    return (mixed(graph, z, h, graph("Sub", graph.constant(1.0), z), new),)


def simple(graph: Graph, x: str, state: State) -> State:
    return (graph("Tanh", affine(graph, "s", UNITS, x, *state)),)


def minimal(graph: Graph, x: str, state: State) -> State:
    """A minimal gated unit."""
    (h,) = state
    f = graph("Sigmoid", affine(graph, "f", UNITS, x, h))
    new = graph("Tanh", affine(graph, "n", UNITS, x, h))
    return (mixed(graph, graph("Sub", graph.constant(1.0), f), h, f, new),)


def lstm_like(change: str) -> Step:
    """Return a step of an LSTM with one thing wrong."""

    def step(graph: Graph, x: str, state: State) -> State:
        h, c = state
        i, f, g, o = graph.split(affine(graph, "z", 4 * UNITS, x, h), 4)
        if change == "gates of other inputs":
            o = affine(graph, "o", UNITS, x, c)
        i, f, g, o = (
            graph("Sigmoid", i), graph("Sigmoid", f), graph("Tanh", g), graph("Sigmoid", o),
        )
        if change == "minus":
            new = graph("Sub", graph("Mul", f, c), graph("Mul", i, g))
        elif change == "three products":
            new = graph("Add", mixed(graph, f, c, i, g), graph("Mul", i, c))
        elif change == "state squared":
            new = mixed(graph, f, graph("Mul", c, c), i, g)
        elif change == "gate squared":
            new = mixed(graph, graph("Mul", f, f), c, i, g)
        elif change == "output feeds the state":
            new = mixed(graph, f, h, i, g)
        else:
            new = mixed(graph, f, c, i, g)
        if change == "scaled state":
            new = graph("Mul", new, graph.constant(0.5))
        seen = c if change == "old state out" else new
        out = graph("Mul", o, graph("Tanh", seen))
        if change == "output added":
            out = graph("Add", out, h)
        if change == "normalised":
            out = graph("Div", out, graph("ReduceSum", out, graph.constant([-1], "i8")))
        if change == "output of another gate":
            out = graph("Mul", graph("Tanh", o), graph("Tanh", new))
        if change == "states exchanged":
            return new, out
        return out, new

    return step


CHANGES = (
    *("gates of other inputs", "minus", "three products", "state squared", "gate squared"),
    *("output feeds the state", "scaled state", "old state out", "output added", "normalised"),
    *("output of another gate", "states exchanged"),
)


def layers(kind: str, seed: int) -> onnx.ModelProto:
    """Return a graph without recurrence, of gates and products."""
    graph = Graph(seed)
    value, depth = graph.step_of(0), int(graph.rng.integers(1, 4))
    width = WIDTH
    for layer in range(depth):
        names = [f"{kind}{layer}{part}" for part in "abcd"]

        def product(name: str, value: str = value, width: int = width) -> str:
            weights = graph.weight(width, UNITS, name=f"{name}.w")
            return graph("Add", graph("MatMul", value, weights), graph.weight(UNITS, name=name))

        if kind == "highway":
            gate, new = graph("Sigmoid", product(names[0])), graph("Tanh", product(names[1]))
            rest = graph("Sub", graph.constant(1.0), gate)
            value = mixed(graph, gate, new, rest, product(names[2]))
        elif kind == "wavenet":
            gate, new = graph("Sigmoid", product(names[0])), graph("Tanh", product(names[1]))
            value = graph("Add", graph("Mul", gate, new), product(names[2]))
        elif kind == "squeeze":
            inner = graph("Relu", product(names[0]))
            weights = graph.weight(UNITS, UNITS, name=f"{names[1]}.w")
            gate = graph("Sigmoid", graph("MatMul", inner, weights))
            value = graph("Mul", gate, inner)
        elif kind == "attention":
            query, key, held = (product(name) for name in names[:3])
            score = graph("Softmax", graph("Mul", query, key), axis=-1)
            value = graph("Mul", score, held)
        else:  # an LSTM's formulas, each layer with weights of its own: a ladder, and no recurrence
            f, i, o = (graph("Sigmoid", product(name)) for name in names[:3])
            g = graph("Tanh", product(names[3]))
            new = mixed(graph, f, graph.weight(2, UNITS), i, g)
            value = graph("Mul", o, graph("Tanh", new))
        width = UNITS
    return graph.model(value)


def random_graph(seed: int) -> onnx.ModelProto:
    """Return random products, gates and sums, of which several look like parts of a cell."""
    graph = Graph(seed)
    values = [graph("Tanh", affine(graph, "first", UNITS, graph.step_of(0)))]
    for _ in range(30):
        kind = graph.rng.choice(["Add", "Mul", "Mul", "Sigmoid", "Tanh", "Sub", "MatMul", "mix"])
        first, second, third, fourth = (values[k] for k in graph.rng.integers(0, len(values), 4))
        if kind in ("Add", "Mul", "Sub"):
            values.append(graph(kind, first, second))
        elif kind == "MatMul":
            weights = graph.weight(UNITS, UNITS, name=f"r{graph.rng.integers(0, 3)}")
            values.append(graph("MatMul", first, weights))
        elif kind == "mix":
            values.append(mixed(graph, first, second, third, fourth))
        else:
            values.append(graph(str(kind), first))
    return graph.model(values[-1])
