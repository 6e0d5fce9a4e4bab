"""How a framework arranges the weights of a layer other than an LSTM: rows, and the two functions
that read them.

A row is data. `arrange` gives a layer's weights the framework's names and orientation, `gather`
brings them back bit for bit. Which weights a class has, and what Keras calls them, the table of
`keras.modern.classes` says; of a GRU and a SimpleRNN, the gates are in Keras's order z r h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.model.neighbours import Neighbour, NeighbourCell
from lstmconvert.tensors.dtypes import Array as NumPyArray
from lstmconvert.tensors.tensor import Computed, Tensor
from lstmconvert.tensors.views import (
    Added,
    Filled,
    Reshaped,
    Zeros,
    columns,
    concatenated,
    is_zero,
    rows,
    side_by_side,
    stacked,
    transposed,
)

#: The gates of a class, in the order in which Keras joins them (keras/src/layers/rnn/gru.py,
#: `GRUCell.call`; simple_rnn.py): update, reset, candidate.
GATES: Mapping[str, str] = {"GRU": "zrh", "SimpleRNN": "h"}
_BIAS, _SECOND = "bias", "recurrent_bias"


class Turn(StrEnum):
    """What is done to an array of Keras. Each has an inverse."""

    SAME = "same"
    #: (inputs, outputs) to (outputs, inputs).
    TRANSPOSED = "transposed"
    #: (*window, inputs, outputs) to (outputs, inputs, *window).
    OUTPUTS_FIRST = "outputs first"
    #: (*window, inputs, outputs) to (outputs, *window, inputs).
    WINDOW_INSIDE = "window inside"
    #: (outputs,) to (outputs, 1), or (outputs, 1, 1): an axis for each of the window.
    COLUMN = "column"
    #: (1, …, channels) to (channels,).
    CHANNELS = "channels"
    #: (1, …, 1) to (): one number for all channels.
    SINGLE = "single"
    #: (channels,) to (1, …, 1, channels): an axis for each of the layer's input.
    BROADCAST = "broadcast"


class NeighbourSlot(NamedTuple):
    """One array of a framework.

    Fields: `key`, its name; `role`: what Keras calls it; `turn`; `fill`: the number that it is full
    of where the layer has no such weight, None where it is left out then.
    """

    key: str
    role: str
    turn: Turn = Turn.SAME
    fill: float | None = None


class GateSlot(NamedTuple):
    """One array of a recurrent cell, or with `{gate}` in its key one for each gate.

    Fields: `key`, with the place `{d}` for the direction; `parts`: `kernel`, `recurrent_kernel`,
    `bias`, `recurrent_bias`; the first two may lie one below the other in one array; `gates` in it,
    in its order, of Keras's letters; `names`: what `{gate}` stands for, gate by gate; `turned`:
    whether units are rows.
    """

    key: str
    parts: tuple[str, ...]
    gates: str
    names: tuple[str, ...] = ()
    turned: bool = False


class NeighbourRow(NamedTuple):
    """One class of Keras in one framework.

    Fields: `title`: the framework's class; `slots`, or for a recurrent class `gate_slots`; `needs`:
    keyword -> the values with which the framework computes what Keras computes; `takes`: keyword ->
    the argument by which the framework's user passes it; `folded`: gates of which the framework has
    one bias where Keras has two; `negated`: gates whose weights have the other sign there;
    `absent`: why the framework has no such class, empty where it has one;
    `always_bias`: whether a bias is there even where the layer has none; `constants`: name -> dtype
    of zeros of no axes that the framework has beside the weights; `hint`, for its user.
    """

    title: str
    slots: tuple[NeighbourSlot, ...] = ()
    gate_slots: tuple[GateSlot, ...] = ()
    needs: Mapping[str, tuple[Json, ...]] = {}
    takes: Mapping[str, str] = {}
    folded: str = ""
    negated: str = ""
    absent: str = ""
    always_bias: bool = False
    constants: Mapping[str, str] = {}
    hint: str = ""


class Arranged(NamedTuple):
    """A layer's arrays under a framework's names, or why there are none.

    Fields: `tensors`; `reason`: what the framework has no place for, empty where it has one;
    `loss`: what was rounded; `notices`: what the caller has to pass or do.
    """

    tensors: Mapping[str, Tensor] = {}
    reason: str = ""
    loss: str = ""
    notices: tuple[str, ...] = ()


Rows = Mapping[str, NeighbourRow]
Pieces = dict[tuple[str, str], Tensor]


def row_for(layer: Neighbour, table: Rows) -> NeighbourRow | None:
    """Return a layer's row: of a recurrent layer in a wrapper, that of the layer inside."""
    classes = {cell.class_name for cell in layer.cells} or {layer.class_name}
    return table.get(classes.pop()) if len(classes) == 1 else None


def arrange(layer: Neighbour, table: Rows, sides: Sequence[str]) -> Arranged:
    """Return a layer's arrays under a framework's names, without the layer's own before them.

    Args:
        layer: the layer, with all its weights.
        table: class -> row, of the framework.
        sides: what `{d}` is for one direction, and for the forward and backward half.
    """
    row = row_for(layer, table)
    if row is None or row.absent:
        return Arranged(reason=_none(layer, row))
    if not layer.is_named:
        return Arranged(reason="its config does not fit its weights")
    reason = next(_unmet(layer, row), "")
    if reason:
        return Arranged(reason=reason)
    notices = tuple(_notices(layer, row))
    if row.gate_slots:
        return _arrange_cells(layer, row, sides, notices)
    tensors: dict[str, Tensor] = {}
    known = next(iter(layer.tensors.values()))
    left = set(layer.tensors)
    for slot, role, key in _plain(layer, row, sides):
        tensor = layer.tensors.get(role)
        left.discard(role)
        if tensor is None and slot.fill is None:
            continue
        if tensor is None:
            tensor = Filled(known.shape, known.dtype, slot.fill or 0.0)
        if reason := _unturned(layer, role, tensor, slot.turn):
            return Arranged(reason=reason.format(title=row.title))
        tensors[key] = _turned(tensor, slot.turn, _axes_of(layer, slot.turn))
    if left:
        return Arranged(reason=f"{row.title} has no {min(left)}")
    for name, dtype in row.constants.items():
        tensors[name] = Zeros((), np.dtype(dtype))
    return Arranged(tensors=tensors, notices=notices)


def gather(
    layer: Neighbour, table: Rows, sides: Sequence[str], arrays: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], set[str], str]:
    """Return a layer's weights as Keras has them, out of a framework's arrays.

    Args:
        layer: the layer that its config describes; its `missing` names the weights.
        table, sides: as for `arrange`.
        arrays: the framework's names -> arrays.

    Returns:
        role -> tensor, the names that were used, and what was rounded, or nothing.

    Raises:
        CorruptFile: an array is missing, or holds what the layer has no place for.
    """
    row = row_for(layer, table)
    if row is None or row.absent:
        raise CorruptFile(
            "the weights of this layer are in no file of this framework",
            where=layer.name,
            found=_none(layer, row),
        )
    reason = next(_unmet(layer, row), "")
    if reason:
        raise CorruptFile(
            f"{row.title} does not compute what the config says", where=layer.name, found=reason
        )
    if row.gate_slots:
        return _gather_cells(layer, row, sides, arrays)
    result: dict[str, Tensor] = {}
    used = {name for name in row.constants if name in arrays}
    roles = {*layer.missing, *layer.tensors}
    for slot, role, key in _plain(layer, row, sides):
        if role not in roles:
            if key not in arrays:
                continue
            used.add(key)
            if slot.fill is None or not _is_full(arrays[key], slot.fill):
                raise _no_place(layer, key, role)
            continue
        if key not in arrays:
            raise _absent(layer, key, arrays)
        used.add(key)
        result[role] = _turned_back(layer, arrays[key], slot)
    return result, used, ""


def _none(layer: Neighbour, row: NeighbourRow | None) -> str:
    """Return why a framework has no place for a layer's class."""
    return row.absent if row else f"how it arranges a {layer.class_name} is not known here"


def _plain(
    layer: Neighbour, row: NeighbourRow, sides: Sequence[str]
) -> Iterator[tuple[NeighbourSlot, str, str]]:
    """Yield a row's plain slots with the role and the name that each has in a layer."""
    places = [("", "")]
    if layer.cells:
        prefixes = [cell.prefix for cell in layer.cells]
        places = list(zip(prefixes, _sides(layer, sides), strict=True))
    for prefix, side in places:
        for slot in row.slots:
            yield slot, f"{prefix}{slot.role}", f"{side}{slot.key}"


def _no_place(layer: Neighbour, key: str, role: str) -> CorruptFile:
    return CorruptFile(
        f"the config has no {role} in this layer",
        where=layer.name,
        found=key,
        expected=", ".join((*layer.tensors, *layer.missing)),
    )


def _absent(layer: Neighbour, key: str, arrays: Mapping[str, Tensor]) -> CorruptFile:
    return CorruptFile(
        f"the weights of {layer.name} ({layer.class_name}) are not all there",
        where=layer.name,
        found=", ".join(list(arrays)[:6]) or "no arrays of it",
        expected=key,
    )


# -- options -----------------------------------------------------------------------------------


def _configs(layer: Neighbour) -> list[JsonObject]:
    return [cell.config for cell in layer.cells] or [layer.config]


def _unmet(layer: Neighbour, row: NeighbourRow) -> Iterator[str]:
    for config in _configs(layer):
        for keyword, values in row.needs.items():
            value = _value(config, keyword)
            if value not in values:
                wanted = " or ".join(map(str, values))
                yield f"{keyword} is {value}, and {row.title} has {wanted}"


def _value(config: JsonObject, keyword: str) -> Json:
    value = config.get(keyword)
    if isinstance(value, dict):
        inner = value.get("config")
        if value.get("class_name") == "function" and isinstance(inner, str):
            return inner
        return value.get("class_name")
    return value


#: The values of Keras's keywords that every framework takes for granted.
_USUAL: Mapping[str, tuple[Json, ...]] = {
    "strides": (1, [1], [1, 1], None),
    "dilation_rate": (1, [1], [1, 1], None),
    "groups": (1, None),
    "padding": ("valid", None),
    "activation": ("tanh", None),
    "recurrent_activation": ("sigmoid", None),
}


def _notices(layer: Neighbour, row: NeighbourRow) -> Iterator[str]:
    """Yield what the framework's user has to pass or to do, so that it computes the same."""
    config = _configs(layer)[0]
    passed = [
        f"{argument}={value!r}"
        for keyword, argument in row.takes.items()
        if (value := _value(config, keyword)) is not None
        and value not in _USUAL.get(keyword, ())
    ]
    if config.get("use_bias") is False and not row.always_bias:
        passed.append("no bias")
    if passed:
        listed = ", ".join(passed)
        yield f"{row.title} keeps no options with its weights: the caller passes {listed}"
    after = _value(config, "activation")
    if not layer.cells and after not in (None, "linear"):
        yield f"{row.title} has no activation: the caller applies {after} to its output"
    if config.get("mask_zero") is True:
        yield "mask_zero: the caller must skip the steps whose index is 0"
    yield from _of_cells(layer)
    if row.hint:
        yield row.hint


def _of_cells(layer: Neighbour) -> Iterator[str]:
    for cell in layer.cells[:1]:
        if (reset := cell.config.get("reset_after")) is not None:
            which = "after" if reset else "before"
            yield f"the reset gate works {which} the product with the recurrent kernel in both"
        if cell.config.get("go_backwards") is True and len(layer.cells) == 1:
            yield "go_backwards: the caller feeds the reversed sequence"
    if len(layer.cells) > 1 and layer.config.get("merge_mode", "concat") != "concat":
        yield f"the caller joins the two directions: merge_mode is {layer.config['merge_mode']}"


# -- arrays of other classes -------------------------------------------------------------------


def _window(layer: Neighbour) -> int:
    """Return how many axes a convolution's window has."""
    return 2 if layer.class_name.endswith("2D") else 1


def _axes_of(layer: Neighbour, turn: Turn) -> int:
    """Return how many axes count for a turn: those of the input, or of a window."""
    return (layer.rank or 0) if turn is Turn.BROADCAST else _window(layer)


def _unturned(layer: Neighbour, role: str, tensor: Tensor, turn: Turn) -> str:
    """Return why an array cannot be turned, with the place `{title}`; empty where it can."""
    if turn is Turn.CHANNELS and tensor.size != (tensor.shape or (1,))[-1]:
        return f"its {role} has more axes than {{title}} has"
    if turn is Turn.SINGLE and tensor.size != 1:
        return f"its {role} has {tensor.size} numbers, and {{title}} has one for all channels"
    if turn is Turn.BROADCAST and layer.rank is None:
        return "{title}'s arrays have an axis for each of its input, which the file does not say"
    return ""


def _axes(rank: int, turn: Turn) -> tuple[int, ...]:
    window = tuple(range(rank - 2))
    if turn is Turn.OUTPUTS_FIRST:
        return (rank - 1, rank - 2, *window)
    return (rank - 1, *window, rank - 2)


def _turned(tensor: Tensor, turn: Turn, axes: int) -> Tensor:
    """Return a turned array; `axes`: of a window, or of the layer's input."""
    if turn is Turn.SAME:
        return tensor
    if turn is Turn.SINGLE:
        return Reshaped(tensor, ())
    if turn is Turn.BROADCAST:
        return Reshaped(tensor, (*(1,) * (axes - 1), tensor.size))
    if turn is Turn.TRANSPOSED:
        return transposed(tensor)
    if turn is Turn.COLUMN:
        return Reshaped(tensor, (tensor.size, *(1,) * axes))
    if turn is Turn.CHANNELS:
        return Reshaped(tensor, (tensor.size,))
    return _permuted(tensor, _axes(len(tensor.shape), turn))


def _permuted(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    shape = tuple(tensor.shape[axis] for axis in axes)
    return Computed(tensor, shape, lambda array: np.transpose(array, axes))


def _turned_back(layer: Neighbour, tensor: Tensor, slot: NeighbourSlot) -> Tensor:
    if slot.turn is Turn.SAME:
        return tensor
    if slot.turn is Turn.TRANSPOSED:
        return transposed(tensor)
    if slot.turn in (Turn.COLUMN, Turn.BROADCAST):
        return Reshaped(tensor, (tensor.size,))
    if slot.turn in (Turn.CHANNELS, Turn.SINGLE):
        shared = layer.config.get("shared_axes")
        ones = (1,) * len(shared) if isinstance(shared, list) else ()
        if layer.rank is not None:  # the features may be shared too
            ones = (1,) * (layer.rank - 2)
        return Reshaped(tensor, (*ones, tensor.size))
    axes = _axes(len(tensor.shape), slot.turn)
    return _permuted(tensor, tuple(int(axis) for axis in np.argsort(axes)))


def _is_full(tensor: Tensor, value: float) -> bool:
    return bool((tensor.read() == tensor.dtype.type(value)).all())


# -- recurrent cells ---------------------------------------------------------------------------


def _arrange_cells(
    layer: Neighbour, row: NeighbourRow, sides: Sequence[str], notices: tuple[str, ...]
) -> Arranged:
    tensors: dict[str, Tensor] = {}
    loss = ""
    for cell, side in zip(layer.cells, _sides(layer, sides), strict=True):
        pieces = _pieces(layer, cell)
        second = {gate for part, gate in pieces if part == _SECOND}
        kept = {g for slot in row.gate_slots if _SECOND in slot.parts for g in slot.gates}
        for gate in second - kept:
            extra = pieces.pop((_SECOND, gate))
            if is_zero(extra):
                continue
            if gate not in row.folded:
                return Arranged(reason=f"{row.title} has no second bias of the candidate")
            pieces[_BIAS, gate] = Added(pieces[_BIAS, gate], extra)
            loss = f"the two biases of its gates are added up, as {row.title} has one"
        for slot in row.gate_slots:
            tensors.update(_slot_arrays(row, slot, pieces, side, cell))
    return Arranged(tensors=tensors, loss=loss, notices=notices)


def _sides(layer: Neighbour, sides: Sequence[str]) -> Sequence[str]:
    return sides[:1] if len(layer.cells) == 1 else sides[1:]


def _pieces(layer: Neighbour, cell: NeighbourCell) -> Pieces:
    """Cut a cell's arrays into one for each part and gate."""
    gates = GATES[cell.class_name]
    result: Pieces = {}
    for part in ("kernel", "recurrent_kernel", _BIAS):
        tensor = layer.tensors.get(f"{cell.prefix}{part}")
        if tensor is None:
            continue
        units = tensor.shape[-1] // len(gates)
        vectors = {part: tensor}
        if part == _BIAS and len(tensor.shape) > 1:
            flat = (tensor.shape[-1],)
            vectors = {_BIAS: rows(tensor, 0, 1, flat), _SECOND: rows(tensor, 1, 2, flat)}
        for name, whole in vectors.items():
            for index, gate in enumerate(gates):
                result[name, gate] = columns(whole, index * units, (index + 1) * units)
    return result


def _slot_arrays(
    row: NeighbourRow, slot: GateSlot, pieces: Pieces, side: str, cell: NeighbourCell
) -> Iterator[tuple[str, Tensor]]:
    key = slot.key.replace("{d}", side)
    for name, gates in _members(slot):
        joined = [
            side_by_side([_piece(row, pieces, part, gate) for gate in gates])
            for part in slot.parts
            if _has(row, part, cell)
        ]
        if not joined:
            continue
        array = concatenated(joined) if len(joined) > 1 else joined[0]
        yield key.replace("{gate}", name), transposed(array) if slot.turned else array


def _members(slot: GateSlot) -> list[tuple[str, str]]:
    """Return the arrays that a slot is: (name of the gate, gates in it)."""
    return list(zip(slot.names, slot.gates, strict=True)) if slot.names else [("", slot.gates)]


def _has(row: NeighbourRow, part: str, cell: NeighbourCell) -> bool:
    if part not in (_BIAS, _SECOND):
        return True
    return row.always_bias or cell.config.get("use_bias") is not False


def _piece(row: NeighbourRow, pieces: Pieces, part: str, gate: str) -> Tensor:
    tensor = pieces.get((part, gate))
    if tensor is None:
        kernel = pieces["recurrent_kernel", gate]
        return Zeros((kernel.shape[-1],), kernel.dtype)
    return _negated(tensor) if gate in row.negated else tensor


def _negated(tensor: Tensor) -> Tensor:
    return Computed(tensor, tensor.shape, _negative)


_negative: Callable[[NumPyArray], NumPyArray] = np.negative


def _gather_cells(
    layer: Neighbour, row: NeighbourRow, sides: Sequence[str], arrays: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], set[str], str]:
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    losses: list[str] = []
    for cell, side in zip(layer.cells, _sides(layer, sides), strict=True):
        pieces: Pieces = {}
        for slot in row.gate_slots:
            for name, gates in _members(slot):
                key = slot.key.replace("{d}", side).replace("{gate}", name)
                if key not in arrays:
                    optional = set(slot.parts) <= {_BIAS, _SECOND}
                    if optional and cell.config.get("use_bias") is False:
                        continue
                    raise _absent(layer, key, arrays)
                used.add(key)
                _cut(layer, row, slot, gates, arrays[key], pieces, key)
        for part, tensor in _joined(layer, cell, pieces, losses):
            result[f"{cell.prefix}{part}"] = tensor
    return result, used, "; ".join(dict.fromkeys(losses))


def _cut(
    layer: Neighbour,
    row: NeighbourRow,
    slot: GateSlot,
    gates: str,
    tensor: Tensor,
    pieces: Pieces,
    key: str,
) -> None:
    array = transposed(tensor) if slot.turned else tensor
    rank = 1 if slot.parts[0] in (_BIAS, _SECOND) else 2
    if len(array.shape) != rank or array.shape[-1] % len(gates):
        raise _misshapen(layer, key, tensor, f"{rank} axes, units of {len(gates)} gates")
    units = array.shape[-1] // len(gates)
    blocks = {slot.parts[0]: array}
    if len(slot.parts) > 1:
        inputs = array.shape[0] - units
        if inputs < 1:
            raise _misshapen(layer, key, tensor, f"more than {units} rows")
        blocks = {
            slot.parts[0]: rows(array, 0, inputs),
            slot.parts[1]: rows(array, inputs, array.shape[0]),
        }
    for part, block in blocks.items():
        for index, gate in enumerate(gates):
            piece = columns(block, index * units, (index + 1) * units)
            pieces[part, gate] = _negated(piece) if gate in row.negated else piece


def _misshapen(layer: Neighbour, key: str, tensor: Tensor, expected: str) -> CorruptFile:
    return CorruptFile(
        "an array of another shape",
        where=f"{layer.name}: {key}",
        found="×".join(map(str, tensor.shape)) or "()",
        expected=expected,
    )


def _joined(
    layer: Neighbour, cell: NeighbourCell, pieces: Pieces, losses: list[str]
) -> Iterator[tuple[str, Tensor]]:
    gates = GATES[cell.class_name]
    for part in ("kernel", "recurrent_kernel"):
        yield part, side_by_side([pieces[part, gate] for gate in gates])
    biases = [pieces.get((_BIAS, gate)) for gate in gates]
    seconds = [pieces.get((_SECOND, gate)) for gate in gates]
    present = [tensor for tensor in (*biases, *seconds) if tensor is not None]
    if cell.config.get("use_bias") is False:
        if not all(map(is_zero, present)):
            raise _no_place(layer, _BIAS, _BIAS)
        return
    first = [tensor or _zeros(pieces, gate) for tensor, gate in zip(biases, gates, strict=True)]
    second = [tensor or _zeros(pieces, gate) for tensor, gate in zip(seconds, gates, strict=True)]
    if cell.config.get("reset_after"):
        yield _BIAS, stacked([side_by_side(first), side_by_side(second)])
        return
    if not all(map(is_zero, second)):
        losses.append("its two biases are added up, as Keras has one")
        first = [Added(a, b) for a, b in zip(first, second, strict=True)]
    yield _BIAS, side_by_side(first)


def _zeros(pieces: Pieces, gate: str) -> Tensor:
    kernel = pieces["recurrent_kernel", gate]
    return Zeros((kernel.shape[-1],), kernel.dtype)


