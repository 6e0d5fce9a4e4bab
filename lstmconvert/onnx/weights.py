"""From the gates of a cell to the operator's W, R, B and P.

Gate by gate, the initializers have our names and Keras's orientation; Concat joins them in the
operator's order, Transpose turns them, Unsqueeze gives them the axis of directions; in a whole
model one node does both (`Graph.turned`). Fused, the initializers are W, R, B and P themselves,
under the names that those values have otherwise too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lstmconvert.model.gates import Gate, by_letters, fuse
from lstmconvert.model.layer import Cell
from lstmconvert.onnx.messages import NUMBERS, Graph
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import Zeros, negated, side_by_side, stacked, transposed

#: The order of the gates in W, R and B, and of the peepholes in P (onnx/defs/rnn/defs.cc).
ORDER = by_letters("iofc")
PEEPHOLES = by_letters("iof")


class Named(NamedTuple):
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
        return {k: self._cast(add(k), k) if is_stored else "" for k, is_stored in wanted.items()}

    def _cast(self, value: str, key: str) -> str:
        """A mixed policy keeps its weights wide, and computes in 16 bits."""
        if self._cells[0].cell.dtype.name == self._compute:
            return value
        name = f"{self._name}.{key}_{self._compute}"
        return self._graph.node("Cast", [value], name, to=NUMBERS[self._compute])

    # ---- gate by gate ------------------------------------------------------------------------

    def _gate_inputs(self, key: str) -> str:
        """Join the gates of all directions, then give the directions an axis of their own."""
        name = self._name if len(self._cells) > 1 else self._cells[0].name
        joined = self._joined(key, f"{name}.{key}_gates")
        is_matrix, dtype = key in ("W", "R"), self._cells[0].cell.dtype
        if len(self._cells) == 1:
            if is_matrix:
                return self._graph.turned(joined, f"{name}.{key}", dtype, new_axis=True)
            return self._graph.node("Unsqueeze", [joined, self._graph.integers(0)], f"{name}.{key}")
        if is_matrix:
            joined = self._graph.turned(joined, f"{joined}_turned", dtype)
        rows = {"W": 4, "R": 4, "B": 8, "P": 3}[key] * self._cells[0].cell.units
        shape = self._graph.integers(len(self._cells), rows, *((-1,) if is_matrix else ()))
        return self._graph.node("Reshape", [joined, shape], f"{name}.{key}")

    def _joined(self, key: str, name: str) -> str:
        """Return what the gates of all directions are, one after the other in the node's order:
        vectors, or the columns of a matrix."""
        if key in ("W", "R"):
            part = "kernel" if key == "W" else "recurrent_kernel"
            gates = [self._gate(named, gate, part) for named in self._cells for gate in ORDER]
            return self._graph.node("Concat", gates, name, axis=1)
        rows = [row for named in self._cells for row in self._rows(named, key)]
        return self._graph.node("Concat", rows, name, axis=0)

    def _rows(self, named: Named, key: str) -> list[str]:
        """Return the vectors of B or P of one direction."""
        if key == "P":
            return [self._vector(named, gate, "peephole") for gate in PEEPHOLES]
        gates = [self._vector(named, gate, "bias") for gate in ORDER]
        if "recurrent_bias" in named.cell.gate_parts:
            return gates + [self._vector(named, gate, "recurrent_bias") for gate in ORDER]
        count, dtype = 4 * named.cell.units, named.cell.dtype
        return [*gates, self._graph.zeros(count, dtype, f"{named.name}.no_recurrent_bias")]

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
        halves = [_fused(named.cell, key) for named in self._cells]
        return self._graph.weight(f"{self._name}.{key}", stacked(halves))


def _fused(cell: Cell, key: str) -> Tensor:
    """Return W or R (4 * units, inputs), B (8 * units,) or P (3 * units,) of one direction."""
    if key in ("W", "R"):
        return transposed(_fused_part(cell, "kernel" if key == "W" else "recurrent_kernel"))
    if key == "P":
        return _fused_part(cell, "peephole", PEEPHOLES)
    return side_by_side([_fused_part(cell, "bias"), _fused_part(cell, "recurrent_bias")])


def _fused_part(cell: Cell, part: str, order: tuple[Gate, ...] = ORDER) -> Tensor:
    return fuse({gate: _tensor(cell, gate, part) for gate in order}, order)


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
