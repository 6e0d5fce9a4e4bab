"""From a framework's named arrays to neutral layers: the other function that reads a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.layouts.row import Row, Slot
from lstmconvert.model import edit, wellformed
from lstmconvert.model.gates import GATES, Gate, blocks, entries, split, split_first
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, weights_of
from lstmconvert.model.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions, Unknown
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import Reshaped, deinterleaved, rows, transposed

SIDES = ("forward", "backward")


class ModuleStructure(NamedTuple):
    """How many cells a module has, and where: what its names say, or our metadata.

    Fields: `prefix`, before every key; `depth`, how many cells are stacked; `both`: whether
    there are two directions.
    """

    prefix: str = ""
    depth: int = 1
    both: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        """`forward`, and `backward` if there are both."""
        return SIDES if self.both else SIDES[:1]


def gather(
    arrays: Mapping[str, Tensor], row: Row, structure: ModuleStructure, name: str
) -> tuple[tuple[LSTMLayer, ...], set[str]]:
    """Return the layers of one module, and the names of the arrays that they are made of.

    A stack becomes several layers where the framework chains layers, else one layer of several
    cells.

    Raises:
        CorruptFile: an array is missing, or the shapes contradict each other.
    """
    used: set[str] = set()
    grid: list[list[Cell]] = []
    for index in range(structure.depth):
        cells = []
        for number, side in enumerate(structure.sides):
            place = row.place(index, structure.depth, side, structure.both)
            reader = _CellReader(arrays, row, structure.prefix, place, number)
            cells.append(reader.cell())
            used |= reader.used
        grid.append(cells)
    if not row.chained:
        return (_layer(name, grid, row, is_last=True),), used
    names = [name] if len(grid) == 1 else [f"{name}_l{index}" for index in range(len(grid))]
    layers = (
        _layer(layer_name, [cells], row, is_last=index == len(grid) - 1)
        for index, (layer_name, cells) in enumerate(zip(names, grid, strict=True))
    )
    return tuple(layers), used


def _layer(name: str, grid: list[list[Cell]], row: Row, *, is_last: bool) -> LSTMLayer:
    halves: list[Direction] = []
    for number, side in enumerate(SIDES[: len(grid[0])]):
        backwards: bool | Unknown = UNKNOWN if "go_backwards" in row.expresses else False
        halves.append(
            Direction(
                cells=tuple(cells[number] for cells in grid),
                options=DirectionOptions(
                    # Each of a chain hands its whole sequence to the next.
                    return_sequences=UNKNOWN if is_last else True,
                    go_backwards=True if side == "backward" else backwards,
                    time_major=False,
                ),
            )
        )
    both = len(halves) > 1
    only = row.merge_modes if row.bidirectional else ()
    merge = only[0] if len(only) == 1 else UNKNOWN
    layer = LSTMLayer(
        name=name,
        path=name,
        class_name=row.class_name,
        forward=halves[0],
        backward=halves[1] if both else None,
        options=LayerOptions(merge_mode=merge) if both else LayerOptions(),
    )
    wellformed.check_layer(layer, name, hint="is it this layout? --from names another")
    return layer


class _CellReader:
    """Reads one cell of a module.

    Args:
        arrays: every array there is, by name.
        row: the framework.
        prefix: of the names of the module's arrays.
        place: what `{d}` and `{k}` of the keys represent.
        side: 0 for the forward half, 1 for the backward half.

    Raises:
        CorruptFile: an array is missing, or the shapes contradict each other.
    """

    def __init__(
        self,
        arrays: Mapping[str, Tensor],
        row: Row,
        prefix: str,
        place: Mapping[str, str],
        side: int,
    ) -> None:
        self._arrays, self._row, self._prefix = arrays, row, prefix
        self._place, self._side = place, side
        self._gates: dict[Gate, dict[str, Tensor]] = {gate: {} for gate in GATES}
        self._parts: dict[str, Tensor] = {}
        self.used: set[str] = set()

    def cell(self) -> Cell:
        """Return the cell."""
        # Cell parts first: a projection says how wide the hidden state is.
        for slot in sorted(self._row.slots, key=lambda slot: not slot.of_cell):
            if slot.per_gate:
                for gate in self._row.order_of(slot):
                    key = slot.key.replace("{gate}", self._row.gate_name(slot, gate))
                    self._put(slot, key, (gate,))
            else:
                self._put(slot, slot.key, self._row.order_of(slot))
        gates = weights_of(self._gates)
        fixed: dict[str, Any] = dict(self._row.fixed)
        cell = Cell(
            gates=gates,
            options=CellOptions(
                **fixed,
                use_bias=any("bias" in weights.tensors for weights in gates.values()),
                forget_bias=self._row.forget_bias,
            ),
            parts=self._parts,
        )
        wellformed.check_cell(
            cell,
            self._prefix.rstrip("./") or self._row.title,
            arrays={name: self._arrays[name] for name in sorted(self.used)},
            expected=", ".join(key_names(self._row, self._place)[:8]),
            hint="is it this layout? --from names another",
        )
        if "bias" in cell.gate_parts and not edit.has_second_bias(cell):
            return edit.without_parts(cell, ["recurrent_bias"])
        return cell

    def _put(self, slot: Slot, key: str, order: tuple[Gate, ...]) -> None:
        name = self._prefix + key.format(**self._place)
        if name not in self._arrays:
            return
        self.used.add(name)
        tensor = self._arrays[name]
        try:
            if self._row.joined:
                tensor = _half(tensor, self._side)
            if slot.of_cell:
                self._parts[slot.parts[0]] = self._turned(tensor, slot)
                return
            for part, gates in self._cut(tensor, slot, order):
                for gate, piece in gates.items():
                    self._gates[gate][part] = piece
        except ValueError as error:
            raise CorruptFile(
                f"an array of a shape that {self._row.title} does not give it: {error}",
                where=name,
                found=self._arrays[name].shape,
                hint="is it this layout? --from names another",
            ) from None

    def _cut(
        self, tensor: Tensor, slot: Slot, order: tuple[Gate, ...]
    ) -> Iterator[tuple[str, dict[Gate, Tensor]]]:
        """Yield each part that an array holds, gate by gate."""
        if slot.leading:
            yield from self._cut_first(tensor, slot, order)
            return
        tensor = self._turned(tensor, slot)
        pieces: tuple[Tensor, ...]
        if slot.below:
            pieces = self._rows_of(tensor, tensor.shape[-1] // len(order))
        else:
            pieces = blocks(tensor, len(slot.parts))
        for part, piece in zip(slot.parts, pieces, strict=True):
            if slot.interleaved:
                piece = deinterleaved(piece, len(order))
            yield part, split(piece, order)

    def _cut_first(
        self, tensor: Tensor, slot: Slot, order: tuple[Gate, ...]
    ) -> Iterator[tuple[str, dict[Gate, Tensor]]]:
        """`_cut` of an array whose first axis is the gates."""
        if not slot.below:
            count = len(order) * len(slot.parts)
            pieces = [self._turned(piece, slot) for piece in entries(tensor, count)]
            for number, part in enumerate(slot.parts):
                of_part = pieces[number * len(order) : (number + 1) * len(order)]
                yield part, dict(zip(order, of_part, strict=True))
            return
        rows_of = {
            gate: self._rows_of(turned, turned.shape[-1])
            for gate, piece in split_first(tensor, order).items()
            if (turned := self._turned(piece, slot)).shape
        }
        for number, part in enumerate(slot.parts):
            yield part, {gate: pieces[number] for gate, pieces in rows_of.items()}

    def _turned(self, tensor: Tensor, slot: Slot) -> Tensor:
        """Return a vector as (n,), and a matrix with its inputs as rows."""
        shape = tensor.shape
        if slot.is_vector:
            if len(shape) == 1:
                return tensor
            if not shape or max(shape) != tensor.size:
                raise ValueError("a vector is expected")
            return Reshaped(tensor, (tensor.size,))
        is_window = "convolution" in self._row.expresses and not slot.transposed
        if len(shape) < 2 or (len(shape) > 2 and not is_window):
            raise ValueError("a matrix is expected")
        return transposed(tensor) if slot.transposed else tensor

    def _rows_of(self, tensor: Tensor, units: int) -> tuple[Tensor, Tensor]:
        """Cut a matrix whose upper rows are the kernel, the lower ones the recurrent kernel."""
        projection = self._parts.get("projection")
        state = projection.shape[-1] if projection is not None else units
        count = tensor.shape[0]
        if not units or count <= state:
            raise ValueError(f"more than {state} rows are expected, of inputs and state")
        return rows(tensor, 0, count - state), rows(tensor, count - state, count)


def _half(tensor: Tensor, side: int) -> Tensor:
    """Return one direction of an array whose first axis is the directions."""
    count = tensor.shape[0] if tensor.shape else 0
    if not side < count <= len(SIDES):
        raise ValueError("a first axis of directions is expected")
    return entries(tensor, count)[side]


def key_names(row: Row, place: Mapping[str, str]) -> list[str]:
    """Return the names of every array that a cell at one place can have."""
    return [
        slot.key.replace("{gate}", row.gate_name(slot, gate)).format(**place)
        for slot in row.slots
        for gate in (row.order_of(slot) if slot.per_gate else (Gate.INPUT,))
    ]
