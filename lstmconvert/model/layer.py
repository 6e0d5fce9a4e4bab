"""The neutral model: gates, cells, directions and layers, belonging to no framework.

Everything here is frozen. Arrays have Keras's orientation, rows are inputs and columns are units,
and are read from their file when they are touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmconvert.errors import UsageError
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.model.gates import GATES, Gate, fuse, width_of
from lstmconvert.model.options import CellOptions, DirectionOptions, LayerOptions
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import Shape, Tensor, as_numpy_asks
from lstmconvert.tensors.views import equal_columns

if TYPE_CHECKING:  # NumPy takes long to import it
    from numpy.typing import ArrayLike

#: The parts that each gate may have, in the order of the design's table.
GATE_PARTS: tuple[str, ...] = (
    "kernel",
    "recurrent_kernel",
    "bias",
    "recurrent_bias",
    "peephole",
    "layer_norm",
    "layer_norm_bias",
)


class _Names(dict[str, str]):
    """Part -> its name in its cell: made once for each gate, for files have thousands of each."""

    def __init__(self, gate: Gate) -> None:
        super().__init__({part: f"{gate}_gate.{part}" for part in GATE_PARTS})
        self._gate = gate

    def __missing__(self, part: str) -> str:
        return f"{self._gate}_gate.{part}"


_NAMES = {gate: _Names(gate) for gate in GATES}
#: The parts of a cell that do not belong to a gate.
CELL_PARTS: tuple[str, ...] = (
    "projection",
    "projection_bias",
    "state_norm",
    "state_norm_bias",
    "initial_hidden",
    "initial_cell",
)


@dataclass(frozen=True, slots=True)
class GateWeights:
    """The tensors of one gate.

    Fields: `gate`, and `tensors`: part name -> lazily read tensor. Each part is also an attribute
    that reads the array: `kernel` (*window, input_dim, units), `recurrent_kernel`
    (*window, recurrent_dim, units), and `bias`, `recurrent_bias`, `peephole`, `layer_norm`,
    `layer_norm_bias`, each (units,) or None where the gate has none.
    """

    gate: Gate
    tensors: Mapping[str, Tensor]

    @property
    def kernel(self) -> Array:
        return self.tensors["kernel"].read()

    @property
    def recurrent_kernel(self) -> Array:
        return self.tensors["recurrent_kernel"].read()

    @property
    def bias(self) -> Array | None:
        return self._optional("bias")

    @property
    def recurrent_bias(self) -> Array | None:
        return self._optional("recurrent_bias")

    @property
    def peephole(self) -> Array | None:
        return self._optional("peephole")

    @property
    def layer_norm(self) -> Array | None:
        return self._optional("layer_norm")

    @property
    def layer_norm_bias(self) -> Array | None:
        return self._optional("layer_norm_bias")

    def _optional(self, part: str) -> Array | None:
        return self.tensors[part].read() if part in self.tensors else None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all of the gate as one matrix, a column for each unit, for NumPy and pandas.

        Its rows are those of `kernel`, of `recurrent_kernel`, and one for each vector (`bias` and
        the like), in the order of `GATE_PARTS`: as `lstmconvert inspect --values` prints them.
        """
        parts = [self.tensors[part] for part in GATE_PARTS if part in self.tensors]
        rows = np.concatenate([part.rows(0, part.matrix_shape[0]) for part in parts])
        rows.flags.writeable = False
        return as_numpy_asks(rows, dtype, copy)

    def __iter__(self) -> Iterator[Array]:
        """Yield the rows of that matrix."""
        return iter(self.__array__())

    def _repr_html_(self) -> str:
        """Show it in a notebook, whose protocol this is."""
        from lstmconvert.pictures import notebook  # only notebooks need pictures

        return notebook.gate(self)

    def __repr__(self) -> str:
        parts = ", ".join(f"{part} {shape_text(t.shape)}" for part, t in self.tensors.items())
        return f"{self.gate}_gate({parts})"


def weights_of(parts: Mapping[Gate, Mapping[str, Tensor]]) -> dict[Gate, GateWeights]:
    """Return the weights of the gates that have any, in the order of `GATES` and `GATE_PARTS`.

    Args:
        parts: gate -> part name -> tensor.
    """
    return {
        gate: GateWeights(gate, {p: parts[gate][p] for p in GATE_PARTS if p in parts[gate]})
        for gate in GATES
        if parts.get(gate)
    }


_PLACES = {gate: index for index, gate in enumerate(GATES)}


class FusedGates(Mapping[Gate, GateWeights]):
    """The weights of four gates that lie side by side, cut when they are first asked for.

    It stands for the dictionary of them, of which files have thousands.

    Args:
        parts: of each gate, in the order of `GATE_PARTS`.
        arrays: of each part the tensor of all gates, (…, 4 * units).

    Raises:
        ValueError: the last axis of an array is not four equal blocks.
    """

    __slots__ = ("_columns", "arrays", "parts")

    def __init__(self, parts: tuple[str, ...], arrays: tuple[Tensor, ...]) -> None:
        for array in arrays:
            width_of(array.shape, len(GATES))
        self.parts, self.arrays = parts, arrays
        self._columns: tuple[Tensor, ...] = ()

    def columns(self) -> tuple[Tensor, ...]:
        """Return the tensors, those of one gate after the other, each in the order of `parts`."""
        if not self._columns:
            count = len(GATES)
            cut = [equal_columns(a, a.shape[-1] // count, count) for a in self.arrays]
            self._columns = tuple(chain.from_iterable(zip(*cut, strict=True)))
        return self._columns

    def tensor(self, gate: Gate, part: str) -> Tensor:
        """Return one tensor, of a part that the gates have."""
        return self.columns()[_PLACES[gate] * len(self.parts) + self.parts.index(part)]

    def whole(self, part: str) -> Tensor:
        """Return the array of a part that the gates have."""
        return self.arrays[self.parts.index(part)]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Return what `Cell.tensors` does."""
        return zip(_names_of(self.parts), self.columns(), strict=True)

    def __getitem__(self, gate: Gate) -> GateWeights:
        index, count = _PLACES[gate], len(self.parts)
        tensors = self.columns()[index * count : (index + 1) * count]
        return GateWeights(GATES[index], dict(zip(self.parts, tensors, strict=True)))

    def __contains__(self, gate: object) -> bool:
        return gate in _PLACES

    def __iter__(self) -> Iterator[Gate]:
        return iter(GATES)

    def __len__(self) -> int:
        return len(GATES)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process the numbers are taken along, once.
        return FusedGates, (self.parts, self.arrays)

    def __repr__(self) -> str:
        return repr(dict(self))


@lru_cache(64)
def _names_of(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_NAMES[gate][part] for gate in GATES for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueCell:
    """A cell of another kind (a GRU, for example) at its place in a stack or a Bidirectional.

    Its tensors are also in the model's `other`. `paths` names them there, in the order of its
    weights. `tensors` holds the tensors themselves, where the file has them.
    """

    class_name: str
    name: str | None
    config: JsonObject | None
    paths: tuple[str, ...] = ()
    tensors: tuple[Tensor, ...] = ()

    def __repr__(self) -> str:
        return f"OpaqueCell({self.class_name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The weights of one step of one direction, and the options that say what they do.

    Fields: `gates`: gate -> its weights (no input gate if `options.input_forget`); `parts`: cell
    parts such as `projection`; `options`; `name` and `class_name` of the cell object in the source,
    where there is one; `places`: where the source keeps each array, `kernel` or `input_gate.kernel`
    -> full path; `stored_as`: the form in which it keeps them (`lstmconvert.keras.stores.stored`).
    """

    gates: Mapping[Gate, GateWeights]
    options: CellOptions
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    name: str | None = None
    class_name: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    stored_as: str = "fused"

    def _shape_in_gate(self, part: str) -> Shape:
        """The shape of a part in the gate that every cell has."""
        gates = self.gates
        if isinstance(gates, FusedGates):
            shape = gates.whole(part).shape
            return (*shape[:-1], shape[-1] // len(GATES))
        return gates[Gate.FORGET].tensors[part].shape

    @property
    def units(self) -> int:
        """The width of the cell state."""
        return self._shape_in_gate("kernel")[-1]

    @property
    def input_dim(self) -> int:
        """The width of the input (its channels, for ConvLSTM)."""
        return self._shape_in_gate("kernel")[-2]

    @property
    def recurrent_dim(self) -> int:
        """The width of the hidden state: `units`, or the projected size."""
        return self._shape_in_gate("recurrent_kernel")[-2]

    @property
    def dtype(self) -> DType:
        """The dtype of the stored weights."""
        gates = self.gates
        if isinstance(gates, FusedGates):
            return gates.whole("kernel").dtype
        return gates[Gate.FORGET].tensors["kernel"].dtype

    @property
    def use_bias(self) -> bool:
        """Whether a bias is stored."""
        gates = self.gates
        has = gates.parts if isinstance(gates, FusedGates) else gates[Gate.FORGET].tensors
        return "bias" in has

    @property
    def gate_parts(self) -> tuple[str, ...]:
        """The parts that the gates of this cell have, in the order of `GATE_PARTS`."""
        gates = self.gates
        if isinstance(gates, FusedGates):
            return gates.parts
        return tuple(p for p in GATE_PARTS if any(p in g.tensors for g in gates.values()))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Return `(forget_gate.kernel, tensor)` pairs: gates in order, then parts of the cell."""
        gates = self.gates
        if isinstance(gates, FusedGates):
            return chain(gates.named(), self.parts.items())
        pairs = [
            (_NAMES[gate][part], tensor)
            for gate in GATES
            if gate in gates
            for part, tensor in gates[gate].tensors.items()
        ]
        if self.parts:
            pairs += self.parts.items()
        return iter(pairs)

    def fused(self, part: str, order: tuple[Gate, ...] = GATES) -> Tensor:
        """Return one part of all gates side by side: Keras's `kernel` for `"kernel"`."""
        return fuse({gate: self.tensor(gate, part) for gate in order}, order)

    def tensor(self, gate: Gate, part: str) -> Tensor:
        """Return a part of a gate.

        Raises:
            KeyError: the cell has no such gate or part.
        """
        gates = self.gates
        if isinstance(gates, FusedGates) and part in gates.parts:
            return gates.tensor(gate, part)
        return gates[gate].tensors[part]

    def arrays(self) -> list[Tensor]:
        """Return the tensors that all weights are in: fused ones where gates lie side by side."""
        gates = self.gates
        if isinstance(gates, FusedGates):
            return [*gates.arrays, *self.parts.values()]
        return [tensor for _, tensor in self.tensors()]

    @property
    def count(self) -> int:
        """The number of tensors."""
        gates = self.gates
        if isinstance(gates, FusedGates):
            return len(GATES) * len(gates.parts) + len(self.parts)
        return sum([len(weights.tensors) for weights in gates.values()]) + len(self.parts)

    def gate_shapes(self, gate: Gate) -> dict[str, Shape]:
        """Return part -> shape of the tensors of a gate."""
        gates = self.gates
        if not isinstance(gates, FusedGates):
            return {part: tensor.shape for part, tensor in gates[gate].tensors.items()}
        shapes = [array.shape for array in gates.arrays]
        cut = [(*shape[:-1], width_of(shape, len(GATES))) for shape in shapes]
        return dict(zip(gates.parts, cut, strict=True))

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum([array.size for array in self.arrays()])

    @property
    def input_gate(self) -> GateWeights:
        return self.gates[Gate.INPUT]

    @property
    def forget_gate(self) -> GateWeights:
        return self.gates[Gate.FORGET]

    @property
    def cell_gate(self) -> GateWeights:
        return self.gates[Gate.CELL]

    @property
    def output_gate(self) -> GateWeights:
        return self.gates[Gate.OUTPUT]

    def _repr_html_(self) -> str:
        """Show it in a notebook, whose protocol this is."""
        from lstmconvert.pictures import notebook  # only notebooks need pictures

        return notebook.cell(self)

    def __repr__(self) -> str:
        parts = ", ".join(f"{p} {shape_text(self.fused_shape(p))}" for p in self.gate_parts)
        return f"Cell({self.input_dim} inputs -> {self.units} units, {self.dtype.name}: {parts})"

    def fused_shape(self, part: str) -> Shape:
        """The shape of `fused(part)`."""
        gates = self.gates
        if isinstance(gates, FusedGates):
            return gates.whole(part).shape
        shape = next(g.tensors[part].shape for g in gates.values() if part in g.tensors)
        count = sum(part in g.tensors for g in gates.values())
        return (*shape[:-1], shape[-1] * count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """An ordered list of cells that are run over time in one direction.

    Fields: `cells`: one, or several for StackedRNNCells; `options`; `name` and `class_name` of the
    layer object in the source (`forward_lstm`, `LSTM`; `RNN` over cells).
    """

    cells: tuple[Cell | OpaqueCell, ...]
    options: DirectionOptions
    name: str | None = None
    class_name: str | None = None

    @property
    def lstm_cells(self) -> tuple[Cell, ...]:
        """The cells that are LSTMs."""
        return tuple(cell for cell in self.cells if isinstance(cell, Cell))

    @property
    def is_convolutional(self) -> bool:
        """Whether its cells are those of a ConvLSTM."""
        return any(cell.options.convolution is not None for cell in self.lstm_cells)

    @property
    def units(self) -> int:
        """The width of the output: the last cell's units."""
        return last_cell(self).units

    def __repr__(self) -> str:
        return f"Direction({self.name or 'unnamed'}, {list(self.cells)!r})"


def last_cell(direction: Direction) -> Cell:
    """Return the last LSTM cell of a direction."""
    return direction.lstm_cells[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LSTMLayer:
    """One LSTM layer: one direction, or the two of a Bidirectional.

    Fields: `name`, unique in its model (enclosing wrappers and models are parts of it, joined by
    `/`); `path` in the source; `class_name` (`LSTM`, `Bidirectional`, `RNN`, `ConvLSTM2D`, …);
    `forward` and, for a Bidirectional, `backward`; `options`; `config`: the JSON object of the
    source, verbatim, or None; `input_shape`, with the batch and time axes, where the source's model
    states it outside the layer.

    The gates of a layer with one cell can be reached directly: `layer.forget_gate.kernel`.
    """

    name: str
    path: str
    class_name: str
    forward: Direction
    backward: Direction | None = None
    options: LayerOptions = field(default_factory=LayerOptions)
    config: JsonObject | None = None
    input_shape: tuple[int | None, ...] | None = None

    @property
    def own_name(self) -> str:
        """The name of the layer object in the source, without enclosing models and wrappers."""
        inner = self.config.get("config") if self.config else None
        name = inner.get("name") if isinstance(inner, dict) else None
        return name if isinstance(name, str) and name else self.name.rpartition("/")[2]

    @property
    def directions(self) -> tuple[tuple[str, Direction], ...]:
        """`("forward", …)`, and `("backward", …)` of a Bidirectional."""
        forward = (("forward", self.forward),)
        return forward if self.backward is None else (*forward, ("backward", self.backward))

    def cells(self) -> Iterator[tuple[str, int, Cell]]:
        """Yield `(direction, index, cell)` of every LSTM cell."""
        for direction, value in self.directions:
            for index, cell in enumerate(value.cells):
                if isinstance(cell, Cell):
                    yield direction, index, cell

    @property
    def cell(self) -> Cell:
        """The one cell of a layer that has one.

        Raises:
            UsageError: it has several; go through `forward.cells` and `backward.cells`.
        """
        cells = [cell for _, _, cell in self.cells()]
        if len(cells) != 1:
            raise UsageError(
                "the layer has several cells",
                where=self.name,
                found=str(len(cells)),
                hint="name one: layer.forward.cells[0], layer.backward.cells[0]",
            )
        return cells[0]

    @property
    def input_gate(self) -> GateWeights:
        return self.cell.input_gate

    @property
    def forget_gate(self) -> GateWeights:
        return self.cell.forget_gate

    @property
    def cell_gate(self) -> GateWeights:
        return self.cell.cell_gate

    @property
    def output_gate(self) -> GateWeights:
        return self.cell.output_gate

    @property
    def units(self) -> int:
        """The width of one direction's output."""
        return self.forward.units

    @property
    def input_dim(self) -> int:
        """The width of the input."""
        return next(cell for _, _, cell in self.cells()).input_dim

    @property
    def dtype(self) -> DType:
        """The dtype of the stored weights (of the first cell)."""
        return next(cell for _, _, cell in self.cells()).dtype

    @property
    def parameters(self) -> int:
        """The number of weights of all LSTM cells."""
        return sum(cell.parameters for _, _, cell in self.cells())

    def replacing(self, arrays: Mapping[str, ArrayLike]) -> LSTMLayer:
        """Return this layer with other weights: the way to edit it. The layer itself stays.

        >>> import lstmconvert as lc
        >>> layer = lc.load("fixtures/keras-3.15.1/seed95.keras")["lstm"]
        >>> bias = layer.forget_gate.bias
        >>> edited = layer.replacing({"forget_gate.bias": bias + 1})
        >>> bool((edited.forget_gate.bias == bias + 1).all())
        True

        Args:
            arrays: name -> array of the same shape and dtype. Names are those of the per-gate file
                without the layer's: `forget_gate.kernel`, `backward.output_gate.bias`,
                `cells.1.input_gate.recurrent_kernel`, `projection`.

        Raises:
            UsageError: no weights have that name, or they have another shape or dtype.
        """
        from lstmconvert.model.edit import layer_replacing

        return layer_replacing(self, arrays)

    def _repr_html_(self) -> str:
        """Show it in a notebook, whose protocol this is."""
        from lstmconvert.pictures import notebook  # only notebooks need pictures

        return notebook.layer(self)

    def __repr__(self) -> str:
        cells = ", ".join(f"{d}.cells[{i}]={c!r}" for d, i, c in self.cells())
        return f"LSTMLayer({self.name!r}, {self.class_name}, {self.parameters:,} weights, {cells})"


def shape_text(shape: Shape) -> str:
    """`(7, 8)`, `(8,)`, `()`."""
    return str(tuple(shape))


def compute_dtypes(layer: LSTMLayer) -> set[str]:
    """Return the dtypes that the cells of a layer compute in."""
    return {compute_dtype(d, cell) for _, d in layer.directions for cell in d.lstm_cells}


def compute_dtype(direction: Direction, cell: Cell) -> str:
    """Return the dtype that a cell computes in: that of its weights, unless its policy is mixed."""
    for policy in (cell.options.policy, direction.options.policy):
        if isinstance(policy, str) and policy.startswith("mixed_"):
            return policy.removeprefix("mixed_")
    return cell.dtype.name
