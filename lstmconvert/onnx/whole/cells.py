"""The cells of recurrent layers: their weights as inputs of a node, one step as operators, and such
steps in a loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import GATES
from lstmconvert.onnx import functions
from lstmconvert.onnx.messages import Body, Declared, Node
from lstmconvert.onnx.weights import Named, Weights
from lstmconvert.onnx.whole import activations
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Shape
from lstmconvert.tensors.tensor import Tensor

#: Keras's gates of a GRU are in the operator's order: update (z), reset (r), candidate (h).
_GRU_GATES = 3


class RecurrentCell(ABC):
    """One cell.

    Fields: `site` of what holds it; `name`: what the names of its values begin with; `units`;
    `functions`: its activations in the operator's order.
    """

    operator: str
    gates: int
    states: tuple[str, ...] = ("h",)
    #: The axis that a softmax is taken along: a step's features, which are its second.
    row_axis = 1

    @property
    def projected_width(self) -> int:
        """The features of what `projected` returns."""
        return self.gates * self.units

    def __init__(self, site: Site, name: str, units: int, kinds: Sequence[Activation]) -> None:
        self.site, self.name, self.units, self.functions = site, name, units, tuple(kinds)

    @property
    def is_node(self) -> bool:
        """Whether the operator can say the cell: its activations, in a type that ONNX Runtime's
        kernel has."""
        spelled = all(functions.spell(function) is not None for function in self.functions)
        return spelled and self.site.compute != "float64"

    @property
    @abstractmethod
    def kind(self) -> object:
        """What two cells have in common if one bidirectional node can stand for both."""

    def attributes(self) -> dict[str, Any]:
        """Return attributes that only this operator has."""
        return {}

    @abstractmethod
    def inputs(self, name: str, others: Sequence[RecurrentCell]) -> list[str]:
        """Return the names of W, R and B of a node of this name, empty where it has none; `others`
        are the cell itself, or it and that of the other direction."""

    @abstractmethod
    def projected(self, x: str) -> str:
        """Return what one step needs of the input, (time, batch, …), for all steps at once."""

    @abstractmethod
    def prepared(self) -> None:
        """Make what `step` needs before a loop's body begins."""

    @abstractmethod
    def step(self, x: str, states: Sequence[str]) -> list[str]:
        """Return the next states: `x` is one step of what `projected` returns."""

    def _activated(self, name: str, index: int) -> str:
        function = self.functions[index]
        if function.name in activations.ROWS:
            return activations.ROWS[function.name](self.site, name, self.row_axis)
        return activations.element(self.site, name, function)


class StandardCell(RecurrentCell):
    """An LSTM."""

    operator, states, gates = "LSTM", ("h", "c"), len(GATES)

    def __init__(self, site: Site, named: Named) -> None:
        cell = named.cell
        options = cell.options
        kinds = [options.recurrent_activation, options.activation]
        kinds.append(options.output_activation or options.activation)
        known = [kind for kind in kinds if isinstance(kind, Activation)]
        for kind in known:
            if kind.custom:
                raise site.refused("activation", kind)
        super().__init__(site, named.name, cell.units, known)
        self.named, self.cell = named, cell
        self._recurrent = ""

    @property
    def kind(self) -> object:
        options = self.cell.options
        return (
            "LSTM", self.units, self.cell.input_dim, self.cell.gate_parts,
            options.gate_clip, options.input_forget, self.cell.dtype.name,
            self.cell.use_bias or bool(options.forget_bias),
        )  # fmt: skip

    def inputs(self, name: str, others: Sequence[RecurrentCell]) -> list[str]:
        cells = [other.named for other in others if isinstance(other, StandardCell)]
        site = self.site

        def make() -> list[str]:
            made = Weights(site.writer.graph, name, cells, site.compute).inputs()
            return [made[key] for key in ("W", "R", "B")]

        names: list[str] = site.writer.cached(("LSTM", name), make)
        return names

    def projected(self, x: str) -> str:
        kernel = self._joined("kernel", 1)
        made = self.site.op("MatMul", [x, kernel], "inputs")
        if not self.cell.use_bias:
            return made
        made = self.site.op("Add", [made, self._joined("bias", 0)], "inputs_biased")
        if "recurrent_bias" in self.cell.gate_parts:
            made = self.site.op("Add", [made, self._joined("recurrent_bias", 0)], "inputs_biased")
        return made

    def _joined(self, part: str, axis: int) -> str:
        names = []
        for gate in GATES:
            tensor = self.cell.gates[gate].tensors[part]
            name = f"{self.name}.{gate}_gate.{part}"
            names.append(self._cast(self.site.writer.graph.weight(name, tensor), tensor))
        return self.site.op("Concat", names, f"{part}_of_gates", axis=axis)

    def _cast(self, name: str, tensor: Tensor) -> str:
        return name if tensor.dtype.name == self.site.compute else self.site.to(
            name, self.site.compute
        )

    def prepared(self) -> None:
        self._recurrent = self._joined("recurrent_kernel", 1)

    def step(self, x: str, states: Sequence[str]) -> list[str]:
        site, (h, c) = self.site, states
        z = site.op("Add", [x, site.op("MatMul", [h, self._recurrent])], "gates")
        return self.gated(z, c, axis=1)

    def gated(self, z: str, c: str, axis: int) -> list[str]:
        """Return the next states from the four gates before their activations, side by side."""
        site = self.site
        gates = site.ops("Split", _split_inputs(site, z, [self.units] * 4), 4, "split", axis=axis)
        i, f, o = (self._activated(gates[index], 0) for index in (0, 1, 3))
        new = site.op("Mul", [i, self._activated(gates[2], 1)])
        carry = site.op("Add", [site.op("Mul", [f, c]), new], "next_c")
        return [site.op("Mul", [o, self._activated(carry, 2)], "next_h"), carry]


def _split_inputs(site: Site, name: str, sizes: Sequence[int]) -> list[str]:
    return [name, site.ints(*sizes)]


class _KerasCell(RecurrentCell):
    """A cell whose weights are as Keras has them: kernel, recurrent kernel, and bias if any."""

    def __init__(
        self, site: Site, name: str, arrays: Sequence[Tensor], kinds: Sequence[Activation]
    ) -> None:
        if len(arrays) not in (2, 3) or len(arrays[0].shape) != 2 or len(arrays[1].shape) != 2:
            raise CorruptFile("the weights of a recurrent cell do not fit", where=site.label)
        units = arrays[1].shape[0]
        if any(array.shape[1] != self.gates * units for array in arrays[:2]):
            raise CorruptFile(
                "the weights of a recurrent cell do not fit",
                where=site.label,
                found=", ".join(str(array.shape) for array in arrays),
            )
        super().__init__(site, name, units, kinds)
        self.arrays = arrays
        self._parts: dict[str, str] = {}

    @property
    def kind(self) -> object:
        shapes = tuple(array.shape for array in self.arrays)
        return self.operator, shapes, self.arrays[0].dtype.name, tuple(self.attributes().items())

    def inputs(self, name: str, others: Sequence[RecurrentCell]) -> list[str]:
        cells = [other for other in others if isinstance(other, _KerasCell)]

        def make() -> list[str]:
            parts = [[cell._matrix(0), cell._matrix(1), cell._bias()] for cell in cells]
            if len(parts) == 1:
                return parts[0]
            return [
                self.site.op("Concat", list(names), f"{label}", axis=0) if all(names) else ""
                for names, label in zip(zip(*parts, strict=True), "WRB", strict=True)
            ]

        names: list[str] = self.site.writer.cached((self.operator, name), make)
        return names

    def _stored(
        self, index: int, axes: Sequence[int] | None = None, shape: Sequence[int] | None = None
    ) -> str:
        role = ("kernel", "recurrent_kernel", "bias")[index]
        path = self.site.path
        self.site.path = self.name
        try:
            return self.site.stored(self.arrays[index], role, axes, shape)
        finally:
            self.site.path = path

    def _matrix(self, index: int) -> str:
        rows, columns = self.arrays[index].shape
        return self._stored(index, (1, 0), (1, columns, rows))

    def _bias(self) -> str:
        if len(self.arrays) < 3:
            return ""
        bias, size = self.arrays[2], self.gates * self.units
        if bias.size == 2 * size:
            return self._stored(2, None, (1, 2 * size))
        given = self._stored(2, None, (1, size))
        zeros = self.site.filled((1, size), 0.0, "no_recurrent_bias")
        return self.site.op("Concat", [given, zeros], "B", axis=1)

    def _bias_rows(self) -> Iterator[str]:
        """Yield the input's bias, and the recurrent one where there is one, each (gates · units,).
        """
        if len(self.arrays) < 3:
            return
        bias, size = self.arrays[2], self.gates * self.units
        if bias.size == size:
            yield self._stored(2, None, (1, size))
            return
        rows = self._stored(2, None, (1, 2 * size))
        yield from self.site.ops(
            "Split", _split_inputs(self.site, rows, [size, size]), 2, "bias_rows", axis=1
        )

    def _plain(self, index: int) -> str:
        """Return a matrix as Keras has it, out of the initializer that nodes would take."""
        turned = self._matrix(index)
        flat = self.site.op("Squeeze", [turned, self.site.ints(0)], f"matrix_{index}")
        return self.site.op("Transpose", [flat], f"matrix_{index}_turned", perm=[1, 0])

    def projected(self, x: str) -> str:
        made = self.site.op("MatMul", [x, self._plain(0)], "inputs")
        bias = list(self._bias_rows())
        self._parts["recurrent_bias"] = bias[1] if len(bias) > 1 else ""
        return self.site.op("Add", [made, bias[0]], "inputs_biased") if bias else made


class SimpleCell(_KerasCell):
    """A SimpleRNN."""

    operator, gates = "RNN", 1

    def prepared(self) -> None:
        self._parts["recurrent"] = self._plain(1)

    def step(self, x: str, states: Sequence[str]) -> list[str]:
        site = self.site
        carried = site.op("MatMul", [states[0], self._parts["recurrent"]])
        return [self._activated(site.op("Add", [x, carried]), 0)]


class GatedCell(_KerasCell):
    """A GRU; `reset_after`: whether the reset gate comes after the product with the state."""

    operator, gates = "GRU", _GRU_GATES

    def __init__(
        self,
        site: Site,
        name: str,
        arrays: Sequence[Tensor],
        kinds: Sequence[Activation],
        *,
        reset_after: bool,
    ) -> None:
        super().__init__(site, name, arrays, kinds)
        self._reset_after = reset_after

    def attributes(self) -> dict[str, Any]:
        return {"linear_before_reset": int(self._reset_after)}

    def prepared(self) -> None:
        recurrent = self._plain(1)
        if self._reset_after:
            self._parts["recurrent"] = recurrent
            return
        sizes = [2 * self.units, self.units]
        gates, candidate = self.site.ops(
            "Split", _split_inputs(self.site, recurrent, sizes), 2, "recurrent_apart", axis=1
        )
        self._parts.update(gates=gates, candidate=candidate)

    def step(self, x: str, states: Sequence[str]) -> list[str]:
        site, h = self.site, states[0]
        thirds = [self.units] * 3
        xz, xr, xh = site.ops("Split", _split_inputs(site, x, thirds), 3, "split", axis=1)
        if self._reset_after:
            carried = site.op("MatMul", [h, self._parts["recurrent"]])
            if self._parts["recurrent_bias"]:
                carried = site.op("Add", [carried, self._parts["recurrent_bias"]])
            parts = site.ops("Split", _split_inputs(site, carried, thirds), 3, "state", axis=1)
        else:
            carried = site.op("MatMul", [h, self._parts["gates"]])
            parts = site.ops("Split", _split_inputs(site, carried, thirds[:2]), 2, "state", axis=1)
        update = self._activated(site.op("Add", [xz, parts[0]]), 0)
        reset = self._activated(site.op("Add", [xr, parts[1]]), 0)
        if self._reset_after:
            inner = site.op("Mul", [reset, parts[2]])
        else:
            inner = site.op("MatMul", [site.op("Mul", [reset, h]), self._parts["candidate"]])
        candidate = self._activated(site.op("Add", [xh, inner]), 1)
        kept = site.op("Mul", [update, h])
        rest = site.op("Sub", [site.number(1.0), update])
        return [site.op("Add", [kept, site.op("Mul", [rest, candidate])], "next_h")]


# ---- loops over time -----------------------------------------------------------------------------
#
# A cell that no operator can say is written step by step into the body of a Scan. A body has names
# of its own: one that the outer graph has too would give shape inference a false type.

#: From a step's input and the states to the next states: the first of them is the output.
Step = Callable[[str, Sequence[str]], Sequence[str]]


class Loop(NamedTuple):
    """What a loop runs over.

    Fields: `x`: (time, batch, …), and the shape of one step of it; `states`: names of the first
    states, and the shape that all have; `mask`: (time, batch, 1, …) bool and the shape of one step
    of it, or None; `backwards`: from the last step to the first; `zero`: whether a masked step
    gives zero, and not the last output once more; `in_order`: whether the outputs come in the order
    of the input, and not in that of the computation.
    """

    x: tuple[str, Shape]
    states: Sequence[str]
    shape: Shape
    mask: tuple[str, Shape] | None
    backwards: bool
    zero: bool
    in_order: bool


def looped(site: Site, loop: Loop, step: Step) -> tuple[str, list[str]]:
    """Add a Scan, and return its outputs, (time, batch, …), and the last states."""
    count = len(loop.states)
    is_repeating = loop.mask is not None and not loop.zero
    dtype = site.compute
    with inside(site) as nodes:
        before = [name_inside(site, f"state_{index}") for index in range(count)]
        x = name_inside(site, "step")
        keep, last = name_inside(site, "keep"), name_inside(site, "last_output")
        after = list(step(x, before))
        output = after[0]
        if loop.mask is not None:
            after = [
                site.op("Where", [keep, new, old], "kept")
                for new, old in zip(after, before, strict=True)
            ]
            other = last if is_repeating else site.number(0.0)
            output = site.op("Where", [keep, output, other], "output")
        carried = [*before, *([last] if is_repeating else [])]
        results = [*after, *([output] if is_repeating else [])]
        # Each output of a body needs a name of its own.
        ends = [site.op("Identity", [name], "end") for name in (*results, output)]
    inputs = [Declared(name, dtype, loop.shape) for name in carried]
    inputs.append(Declared(x, dtype, loop.x[1]))
    if loop.mask is not None:
        inputs.append(Declared(keep, "bool", loop.mask[1]))
    outputs = [Declared(name, dtype, loop.shape) for name in ends]
    body = Body(f"{site.label}.body", nodes, inputs, outputs)
    given = list(loop.states)
    if is_repeating:
        given.append(zeros(site, loop))
    scanned = [loop.x[0], *([loop.mask[0]] if loop.mask else [])]
    direction = int(loop.backwards)
    made = site.ops(
        "Scan",
        [*given, *scanned],
        len(ends),
        body=body,
        num_scan_inputs=len(scanned),
        scan_input_directions=[direction] * len(scanned),
        scan_output_directions=[direction if loop.in_order else 0],
    )
    return made[-1], made[:count]


def run_cell(site: Site, cell: RecurrentCell, loop: Loop) -> tuple[str, list[str]]:
    """Run one cell over `loop.x`, (time, batch, features)."""
    projected = cell.projected(loop.x[0])
    cell.prepared()
    step: Shape = (loop.shape[0], cell.projected_width)
    return looped(site, loop._replace(x=(projected, step)), cell.step)


def zeros(site: Site, loop: Loop) -> str:
    """Return zeros in the shape of a state, of as many rows as the batch has."""
    return zero_state(site, loop.x[0], loop.shape)


def zero_state(site: Site, steps: str, shape: Shape) -> str:
    """Return zeros in a shape whose first axis is the second of `steps`, (time, batch, …)."""

    def make() -> str:
        if all(isinstance(size, int) for size in shape):
            return site.filled([size for size in shape if isinstance(size, int)], 0.0, "zero_state")
        sizes = site.op("Shape", [steps], "sizes")
        batch = site.op("Gather", [sizes, site.ints(1)], "batch")
        rest = [size for size in shape[1:] if isinstance(size, int)]
        full = site.op("Concat", [batch, site.ints(*rest)], "state_shape", axis=0)
        return site.op("Expand", [site.number(0.0), full], "zero_state")

    return str(site.writer.cached(("zeros", steps, tuple(shape), site.compute), make))


def name_inside(site: Site, what: str) -> str:
    """Return the name of an input of a body."""
    return site.writer.graph.unique(f"{site.label}.body.{what}")


@contextmanager
def inside(site: Site) -> Iterator[list[Node]]:
    """Take the nodes that are added meanwhile out of the graph."""
    graph = site.writer.graph
    outer, graph.nodes = graph.nodes, []
    try:
        yield graph.nodes
    finally:
        graph.nodes = outer
