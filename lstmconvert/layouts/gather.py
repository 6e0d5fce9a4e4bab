"""From a framework's named arrays to neutral layers: the other function that reads a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lstmconvert.errors import CorruptFile
from lstmconvert.gates import GATES, Gate
from lstmconvert.layer import GATE_PARTS, Cell, Direction, GateWeights, LSTMLayer
from lstmconvert.layouts.row import Row, Slot
from lstmconvert.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions, Unknown
from lstmconvert.records import dataclass
from lstmconvert.tensors import Shape, Tensor
from lstmconvert.views import Reshaped, Rows, apart, columns, is_zero, transposed

SIDES = ("forward", "backward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """How many cells a module has, and where: what its names say, or our metadata.

    Fields: `prefix`, before every key; `depth`, how many lie one on the other; `both`: whether
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
    arrays: Mapping[str, Tensor], row: Row, structure: Structure, name: str
) -> tuple[tuple[LSTMLayer, ...], set[str]]:
    """Return the layers of one module, and the names of the arrays that they are made of.

    A stack is as many layers where the framework chains them, else one layer of several cells.

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
        _layer(own, [cells], row, is_last=index == len(grid) - 1)
        for index, (own, cells) in enumerate(zip(names, grid, strict=True))
    )
    return tuple(layers), used


def _layer(name: str, grid: list[list[Cell]], row: Row, *, is_last: bool) -> LSTMLayer:
    halves = []
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
    merge = "concat" if row.bidirectional and "merge_mode" not in row.expresses else UNKNOWN
    return LSTMLayer(
        name=name,
        path=name,
        class_name=row.class_name,
        forward=halves[0],
        backward=halves[1] if both else None,
        options=LayerOptions(merge_mode=merge) if both else LayerOptions(),
    )


class _CellReader:
    """Reads one cell of a module.

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
        # Cell parts first: a projection says how wide the state is.
        for slot in sorted(self._row.slots, key=lambda slot: not slot.of_cell):
            if slot.per_gate:
                for gate in self._row.order_of(slot):
                    key = slot.key.replace("{gate}", self._row.gate_name(slot, gate))
                    self._put(slot, key, (gate,))
            else:
                self._put(slot, slot.key, self._row.order_of(slot))
        self._drop_empty_bias()
        gates = {
            gate: GateWeights(gate, {p: found[p] for p in GATE_PARTS if p in found})
            for gate, found in self._gates.items()
            if found
        }
        self._check(gates)
        fixed: dict[str, Any] = dict(self._row.fixed)
        options = CellOptions(
            **fixed,
            use_bias="bias" in gates[Gate.FORGET].tensors,
            forget_bias=self._row.forget_bias,
            input_forget=Gate.INPUT not in gates,
        )
        return Cell(gates=gates, options=options, parts=self._parts)

    def _put(self, slot: Slot, key: str, order: tuple[Gate, ...]) -> None:
        name = self._prefix + key.format(**self._place)
        if name not in self._arrays:
            return
        self.used.add(name)
        tensor = self._of_side(self._arrays[name], name)
        if slot.is_vector and len(tensor.shape) != 1:
            tensor = Reshaped(tensor, (tensor.size,))
        if slot.transposed:
            tensor = transposed(tensor)
        if slot.of_cell:
            self._parts[slot.parts[0]] = tensor
        elif slot.below and len(slot.parts) > 1:
            self._split_rows(tensor, slot, order, name)
        else:
            self._split(tensor, slot.parts, slot, order, name)

    def _of_side(self, tensor: Tensor, name: str) -> Tensor:
        if not self._row.joined:
            return tensor
        if len(tensor.shape) < 2 or tensor.shape[0] <= self._side:
            raise _odd(name, tensor.shape, "a leading axis of directions")
        shape, count = tensor.shape[1:], tensor.matrix_shape[0] // tensor.shape[0]
        return Rows(tensor, self._side * count, (self._side + 1) * count, shape)

    def _split_rows(self, tensor: Tensor, slot: Slot, order: tuple[Gate, ...], name: str) -> None:
        if len(tensor.shape) != 2 or tensor.shape[1] % len(order):
            raise _odd(name, tensor.shape, f"a matrix of {len(order)} gates")
        units = tensor.shape[1] // len(order)
        projection = self._parts.get("projection")
        state = projection.shape[-1] if projection is not None else units
        inputs = tensor.shape[0] - state
        if inputs < 1:
            raise _odd(name, tensor.shape, f"more than {state} rows")
        for part, start, stop in (
            (slot.parts[0], 0, inputs),
            (slot.parts[1], inputs, tensor.shape[0]),
        ):
            rows = Rows(tensor, start, stop, (stop - start, tensor.shape[1]))
            self._split(rows, (part,), slot, order, name)

    def _split(
        self, tensor: Tensor, parts: tuple[str, ...], slot: Slot, order: tuple[Gate, ...], name: str
    ) -> None:
        count = len(order) * len(parts)
        if not tensor.shape or tensor.shape[-1] % count:
            raise _odd(name, tensor.shape, f"{count} blocks of one width")
        units = tensor.shape[-1] // count
        if slot.interleaved:
            tensor = apart(tensor, len(order))
        for number, (part, gate) in enumerate((p, g) for p in parts for g in order):
            self._gates[gate][part] = columns(tensor, number * units, (number + 1) * units)

    def _drop_empty_bias(self) -> None:
        seconds = [found["recurrent_bias"] for found in self._gates.values() if _both(found)]
        if seconds and all(map(is_zero, seconds)):
            for found in self._gates.values():
                found.pop("recurrent_bias", None)

    def _check(self, gates: Mapping[Gate, GateWeights]) -> None:
        where = self._prefix.rstrip("./") or self._row.title
        needed = ("kernel", "recurrent_kernel")
        for gate in GATES[1:] if Gate.INPUT not in gates else GATES:
            missing = [p for p in needed if gate not in gates or p not in gates[gate].tensors]
            if missing:
                raise CorruptFile(
                    f"the {missing[0]} of the {gate} gate is missing",
                    where=where,
                    found=", ".join(sorted(self.used)[:8]) or "nothing",
                    expected=", ".join(key_names(self._row, self._place)[:8]),
                )
        for part in {part for weights in gates.values() for part in weights.tensors}:
            shapes = {w.tensors[part].shape for w in gates.values() if part in w.tensors}
            if len(shapes) != 1:
                raise CorruptFile(f"the {part} of the gates differ in shape", where=where)
            if part != "peephole" and any(part not in w.tensors for w in gates.values()):
                raise CorruptFile(f"a gate has no {part}, and another has one", where=where)
        self._check_widths(gates, where)

    def _check_widths(self, gates: Mapping[Gate, GateWeights], where: str) -> None:
        tensors = gates[Gate.FORGET].tensors
        kernel, recurrent = tensors["kernel"].shape, tensors["recurrent_kernel"].shape
        units = kernel[-1]
        projection = self._parts.get("projection")
        state = projection.shape[-1] if projection is not None else units
        vectors = [t.shape for p, t in tensors.items() if p not in ("kernel", "recurrent_kernel")]
        is_matrix = len(kernel) >= 2 and len(kernel) == len(recurrent)
        if (
            not is_matrix
            or recurrent[-2:] != (state, units)
            or any(shape != (units,) for shape in vectors)
            or (projection is not None and projection.shape != (units, state))
        ):
            raise CorruptFile(
                "the shapes of its arrays do not fit each other",
                where=where,
                found=f"kernel {kernel}, recurrent_kernel {recurrent}, vectors {vectors}",
                expected=f"recurrent_kernel ({state}, {units})",
                hint="is it this layout? --from names another",
            )


def key_names(row: Row, place: Mapping[str, str]) -> list[str]:
    """Return the names of every array that a cell at one place can have."""
    return [
        slot.key.replace("{gate}", row.gate_name(slot, gate)).format(**place)
        for slot in row.slots
        for gate in (row.order_of(slot) if slot.per_gate else (Gate.INPUT,))
    ]


def _both(found: Mapping[str, Tensor]) -> bool:
    return "recurrent_bias" in found and "bias" in found


def _odd(name: str, shape: Shape, expected: str) -> CorruptFile:
    return CorruptFile("an array of no such shape", where=name, found=shape, expected=expected)
