"""Recognising LSTM cells in a v3 store without a config: by paths and shapes alone.

A weights file says nothing of activations or directions' options; all of those stay unknown. What
its groups do say is where cells lie (`cell`, `cell/cells/…`, `forward_layer`, `backward_layer`),
and a cell's two kernels have shapes that no other layer's arrays have (`cells.gate_count`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.gates import GATES
from lstmconvert.keras.cells import disagree, gate_count, listed
from lstmconvert.keras.sketch import CellSketch, DirectionSketch, LayerSketch, natural
from lstmconvert.keras.stored import ROLES
from lstmconvert.keras.v3store import CONTAINERS, V3Store

_STACK = "cell/cells/"
_HALVES = ("forward_layer", "backward_layer")
_STRUCTURE = frozenset({*CONTAINERS, "cell", "cells", "vars", "layer", *_HALVES})
_CELL_KINDS = {3: "GRUCell", 1: "SimpleRNNCell"}


#: What Keras itself calls the group of an LSTM, and an LSTM's cell.
_LSTM = re.compile(r"lstm(_\d+)?")
_LSTM_CELL = re.compile(r"lstm_cell(_\d+)?")


def layers(store: V3Store, where: object, root: str = "", outer: str = "") -> list[LayerSketch]:
    """Sketch every layer with an LSTM cell at or below the group `root`.

    Args:
        store: the store.
        where: the file, for errors.
        root: the group to look in; the root of the store by default.
        outer: the canonical name of what lies at `root`.

    Raises:
        CorruptFile: what Keras calls an LSTM's cell has not the arrays of one.
    """
    owners: dict[str, None] = {}
    for group in sorted(store.below(root), key=natural):
        if kind(store, group) == len(GATES):
            owners[_owner(group)] = None
        elif _is_called_lstm(store, group):
            arrays = dict(zip(ROLES, store.vars[group], strict=False))
            raise disagree(f"{where}: {group}", listed(arrays))
    return [_sketch(store, owner, root, outer) for owner in owners]


def _is_called_lstm(store: V3Store, group: str) -> bool:
    if not 2 <= len(store.vars.get(group, [])) <= len(ROLES):
        return False
    owner, _, leaf = group.rpartition("/")
    is_cell = leaf == "cell" and _LSTM.fullmatch(_leaf(owner)) is not None
    return is_cell or _LSTM_CELL.fullmatch(store.names.get(group, "")) is not None


def kind(store: V3Store, group: str) -> int | None:
    """Tell what the arrays of a group are: 4 for an LSTM cell, 3 GRU, 1 simple RNN, else None."""
    arrays = store.vars.get(group, [])
    if not 2 <= len(arrays) <= 3:
        return None
    count = gate_count(arrays[0].tensor.shape, arrays[1].tensor.shape)
    is_cell = _leaf(group) == "cell" or f"/{_STACK}" in f"/{group}"
    # A layer that is no cell may keep two or three arrays: only the LSTM's shapes are telling.
    return count if is_cell or count == len(GATES) else None


def _owner(group: str) -> str:
    owner, found, _ = f"/{group}".rpartition(f"/{_STACK}")
    if not found:
        parent, _, leaf = f"/{group}".rpartition("/")
        owner = parent if leaf == "cell" else f"/{group}"
    owner = owner.strip("/")
    parent, _, leaf = owner.rpartition("/")
    return parent if leaf in _HALVES else owner


def _sketch(store: V3Store, owner: str, root: str, outer: str) -> LayerSketch:
    halves = [f"{owner}/{half}".strip("/") for half in _HALVES]
    if any(_cell_groups(store, half) for half in halves):
        directions = tuple(_direction(store, half) for half in halves)
        class_name = "Bidirectional"
    else:
        directions = (_direction(store, owner),)
        class_name = _class_name(store, owner, directions[0])
    return LayerSketch(
        name=_name(store, owner, root, outer),
        group=owner,
        top=owner,
        class_name=class_name,
        node=None,
        directions=directions,
    )


def _direction(store: V3Store, group: str) -> DirectionSketch:
    cells = tuple(
        CellSketch(
            cell,
            "LSTMCell" if kind(store, cell) == len(GATES) else _CELL_KINDS[kind(store, cell) or 1],
            kind(store, cell) == len(GATES),
            None,
            own=f"/{_STACK}" in f"/{cell}",
        )
        for cell in _cell_groups(store, group)
    )
    return DirectionSketch(group, None, cells)


def _cell_groups(store: V3Store, group: str) -> list[str]:
    single = f"{group}/cell".strip("/")
    if kind(store, single) is not None:
        return [single]
    cells = f"{group}/{_STACK}".strip("/")
    stack = [name for name in store.below(cells) if name != cells and kind(store, name)]
    if stack:
        return _in_order(store, sorted(stack, key=natural), group)
    return [group] if kind(store, group) == len(GATES) else []


def _in_order(store: V3Store, stack: list[str], where: str) -> list[str]:
    """Order the cells of a stack. Groups are counted class by class, so the order between classes
    is not stored; each cell's input must then be as wide as the output of the one before."""
    classes = {re.sub(r"_\d+$", "", _leaf(name)) for name in stack}
    if len(classes) == 1:
        return stack
    limits.STACK_CELLS.check(len(stack), where, "the number of unlike cells in a stack")
    fitting = list(islice(_chains(store, [], stack), 2))
    if len(fitting) != 1:
        raise CorruptFile(
            "the order of a stack of unlike cells is not stored in a weights file",
            where=where,
            found=", ".join(map(_leaf, stack)),
            hint="give the model's config with --config",
        )
    return fitting[0]


def _chains(store: V3Store, done: list[str], left: list[str]) -> Iterable[list[str]]:
    if not left:
        yield done
    for name in left:
        width = store.vars[name][0].tensor.shape[-2]
        if not done or width == store.vars[done[-1]][1].tensor.shape[-2]:
            yield from _chains(store, [*done, name], [x for x in left if x != name])


def _class_name(store: V3Store, owner: str, direction: DirectionSketch) -> str:
    group = direction.cells[0].group
    rank = len(store.vars[group][0].tensor.shape)
    if rank > 2:
        return f"ConvLSTM{rank - 2}D"
    if group == owner:
        return "LSTMCell"
    is_rnn = re.fullmatch(r"rnn(_\d+)?", _leaf(owner)) or len(direction.cells) > 1
    return "RNN" if is_rnn else "LSTM"


def _name(store: V3Store, owner: str, root: str, outer: str) -> str:
    parts = owner.split("/")
    start = len(root.split("/")) if root else 0
    named, plain = [], []
    for index in range(start, len(parts)):
        group = "/".join(parts[: index + 1])
        if group in store.names:
            named.append(store.names[group])
        if parts[index] not in _STRUCTURE:
            plain.append(parts[index])
    own = named if owner in store.names else plain
    return "/".join(filter(None, [outer, *own])) or "lstm"


def _leaf(path: str) -> str:
    return path.rpartition("/")[2]
