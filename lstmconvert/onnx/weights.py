"""From the gates of a cell to the operator's W, R, B and P.

Gate by gate, the initializers have our names and Keras's orientation; Concat joins them in the
operator's order, Transpose turns them, Unsqueeze gives them the axis of directions. Fused, the
initializers are W, R, B and P themselves, under the names that those values have otherwise too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lstmconvert.gates import Gate, by_letters
from lstmconvert.layer import Cell
from lstmconvert.onnx.builder import Graph
from lstmconvert.onnx.negated import negated
from lstmconvert.onnx.types import NUMBERS
from lstmconvert.tensors import SideBySide, Tensor
from lstmconvert.views import Stacked, Zeros, transposed

#: The order of the gates in W, R and B, and of the peepholes in P (onnx/defs/rnn/defs.cc).
ORDER = by_letters("iofc")
PEEPHOLES = by_letters("iof")


@dataclass(frozen=True, slots=True)
class Named:
    """A cell under the name that its tensors and values start with: `lstm`, `rnn.cells.0`."""

    name: str
    cell: Cell


class Weights:
    """Puts the weights of one node into a graph.

    Args:
        graph: the graph.
        name: of the node: its values are `<name>.W` and so on.
        cells: one, or the forward and the backward one of a bidirectional node.
        compute: the dtype that the node computes in.
    """

    def __init__(self, graph: Graph, name: str, cells: Sequence[Named], compute: str) -> None:
        self._graph, self._name, self._cells, self._compute = graph, name, cells, compute
        self._vectors: dict[str, str] = {}

    def inputs(self) -> dict[str, str]:
        """Return the names of W, R, B and P, empty where the node has none."""
        add = self._fused_inputs if self._graph.style.fused else self._gate_inputs
        parts = {part for named in self._cells for part in named.cell.gate_parts}
        has_bias = bool(parts & {"bias", "recurrent_bias"}) or any(
            named.cell.options.forget_bias for named in self._cells
        )
        wanted = {"W": True, "R": True, "B": has_bias, "P": "peephole" in parts}
        return {key: self._cast(add(key), key) if there else "" for key, there in wanted.items()}

    def _cast(self, value: str, key: str) -> str:
        """A mixed policy keeps its weights wide, and computes in 16 bits."""
        if self._cells[0].cell.dtype.name == self._compute:
            return value
        name = f"{self._name}.{key}_{self._compute}"
        return self._graph.node("Cast", [value], name, to=NUMBERS[self._compute])

    # ---- gate by gate ------------------------------------------------------------------------

    def _gate_inputs(self, key: str) -> str:
        several = len(self._cells) > 1
        rows = []
        for named in self._cells:
            start = f"{named.name}.{key}"
            joined = self._joined(named, key, f"{start}_gates")
            if key in ("W", "R"):
                joined = self._graph.node("Transpose", [joined], f"{start}_turned", perm=(1, 0))
            name = f"{start}_row" if several else start
            axis = self._graph.integers(0)
            rows.append(self._graph.node("Unsqueeze", [joined, axis], name))
        if not several:
            return rows[0]
        return self._graph.node("Concat", rows, f"{self._name}.{key}", axis=0)

    def _joined(self, named: Named, key: str, name: str) -> str:
        if key in ("W", "R"):
            part = "kernel" if key == "W" else "recurrent_kernel"
            gates = [self._gate(named, gate, part) for gate in ORDER]
            return self._graph.node("Concat", gates, name, axis=1)
        if key == "P":
            gates = [self._vector(named, gate, "peephole") for gate in PEEPHOLES]
            return self._graph.node("Concat", gates, name, axis=0)
        gates = [self._vector(named, gate, "bias") for gate in ORDER]
        if "recurrent_bias" in named.cell.gate_parts:
            gates += [self._vector(named, gate, "recurrent_bias") for gate in ORDER]
        else:
            count, dtype = 4 * named.cell.units, named.cell.dtype
            gates.append(self._graph.zeros(count, dtype, f"{named.name}.no_recurrent_bias"))
        return self._graph.node("Concat", gates, name, axis=0)

    def _vector(self, named: Named, gate: Gate, part: str) -> str:
        source = _stored(named.cell, gate)
        if source is not gate:
            stored = self._vector(named, source, part)
            return self._graph.node("Neg", [stored], f"{named.name}.coupled_{part}")
        key = f"{named.name}.{gate}_gate.{part}"
        if key not in self._vectors:
            self._vectors[key] = self._biased(named, gate, part)
        return self._vectors[key]

    def _biased(self, named: Named, gate: Gate, part: str) -> str:
        cell = named.cell
        is_forget_bias = part == "bias" and gate is Gate.FORGET
        extra = float(cell.options.forget_bias or 0.0) if is_forget_bias else 0.0
        if part not in cell.gates[gate].tensors:
            name = f"{named.name}.no_{gate}_gate_{part}"
            return self._graph.zeros(cell.units, cell.dtype, name, extra)
        stored = self._gate(named, gate, part)
        if not extra:
            return stored
        constant = self._graph.scalar(extra, cell.dtype.name)
        return self._graph.node("Add", [stored, constant], f"{named.name}.forget_bias")

    def _gate(self, named: Named, gate: Gate, part: str) -> str:
        cell, source = named.cell, _stored(named.cell, gate)
        name = f"{named.name}.{source}_gate.{part}"
        self._graph.weight(name, cell.gates[source].tensors[part])
        if source is gate:
            return name
        return self._graph.node("Neg", [name], f"{named.name}.coupled_{part}")

    # ---- fused -------------------------------------------------------------------------------

    def _fused_inputs(self, key: str) -> str:
        stacks = [_fused(named.cell, key) for named in self._cells]
        shape = (len(stacks), *stacks[0].shape)
        return self._graph.weight(f"{self._name}.{key}", Stacked(tuple(stacks), shape))


def _fused(cell: Cell, key: str) -> Tensor:
    """Return W or R (4 * units, inputs), B (8 * units,) or P (3 * units,) of one direction."""
    if key in ("W", "R"):
        part = "kernel" if key == "W" else "recurrent_kernel"
        gates = tuple(transposed(_tensor(cell, gate, part)) for gate in ORDER)
        rows, width = gates[0].shape
        return Stacked(gates, (len(gates) * rows, width))
    if key == "P":
        return SideBySide(tuple(_tensor(cell, gate, "peephole") for gate in PEEPHOLES))
    parts = ("bias", "recurrent_bias")
    return SideBySide(tuple(_tensor(cell, gate, part) for part in parts for gate in ORDER))


def _tensor(cell: Cell, gate: Gate, part: str) -> Tensor:
    source = _stored(cell, gate)
    tensor = cell.gates[source].tensors.get(part)
    if tensor is None:
        return Zeros((cell.units,), cell.dtype)
    return tensor if source is gate else negated(tensor)


def _stored(cell: Cell, gate: Gate) -> Gate:
    """Return the gate whose weights stand for `gate`: of coupled gates, one alone is stored.

    ONNX Runtime computes f = 1 - i from the input gate (1.32, measured). Ours is i = 1 - f from the
    forget gate; the negated weights in the input gate's place make both say the same, whoever
    reads them.
    """
    if gate is Gate.INPUT and cell.options.input_forget:
        return Gate.FORGET
    return gate
