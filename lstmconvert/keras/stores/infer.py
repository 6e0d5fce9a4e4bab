"""Recognising LSTM cells in a v3 store without a config: by paths and shapes alone.

A weights file does not state activations or directions' options; they stay unknown. What
its groups do say is where cells are (`cell`, `cell/cells/…`, `forward_layer`, `backward_layer`),
and a cell's two kernels have shapes that no other layer's arrays have (`cells.gate_count`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs.nodes import PEEPHOLE_CELL
from lstmconvert.keras.configs.sketch import CellSketch, DirectionSketch, LayerSketch, natural
from lstmconvert.keras.stores.stored import (
    ROLES,
    Stored,
    disagree,
    gate_count,
    is_foreign_name,
    is_named_like_a_class,
    listed,
    not_plain,
    roles_of,
    taken_by_arrays,
    taken_by_name,
    taken_for_peepholes,
)
from lstmconvert.keras.stores.v3store import CONTAINERS, V3Store
from lstmconvert.model.gates import GATES

_STACK = "cell/cells/"
_HALVES = ("forward_layer", "backward_layer")
_STRUCTURE = frozenset({*CONTAINERS, "cell", "cells", "vars", "layer", *_HALVES})
_CELL_KINDS = {3: "GRUCell", 1: "SimpleRNNCell"}


#: Keras's names for the group of an LSTM, and for an LSTM's cell.
_LSTM = re.compile(r"lstm(_\d+)?")
#: Its names for the groups of layers, by class, that an LSTM cell may be in.
_OWN_GROUPS = frozenset(
    {
        *("lstm", "rnn", "bidirectional", "time_distributed", "lstm_cell", "cu_dnnlstm"),
        *("conv_lst_m1_d", "conv_lst_m2_d", "conv_lst_m3_d", "stacked_rnn_cells"),
        *("conv_lst_m1d", "conv_lst_m2d", "conv_lst_m3d"),
    }
)
_LSTM_CELL = re.compile(r"lstm_cell(_\d+)?")


def layers(
    store: V3Store, where: object, notes: list[str], root: str = "", outer: str = ""
) -> list[LayerSketch]:
    """Sketch every layer with an LSTM cell at or below the group `root`.

    A cell is known by all arrays in its group, and a layer by all in its own: what has an LSTM's
    arrays and others computes something else, and is left out.

    Args:
        store: the store.
        where: the file, for errors.
        notes: notes for the user; layers that are left out are added.
        root: the group to look in; the root of the store by default.
        outer: the canonical name of what is at `root`.

    Raises:
        CorruptFile: what Keras calls an LSTM's cell does not have the arrays of one.
    """
    owners: dict[str, None] = {}
    left: dict[str, list[str]] = {}
    for group in sorted(store.below(root), key=natural):
        count = kind(store, group)
        if count is None and _is_called_lstm(store, group):
            arrays = dict(zip(ROLES, store.vars[group], strict=False))
            raise disagree(f"{where}: {group}", listed(arrays))
        owner = _owner(group)
        if count is None and _begins_as_lstm(store, group):
            left[owner] = [stored.path for stored in _extras(store, group)]
        elif count == len(GATES) and owner not in owners:
            extras = [stored.path for stored in _beside_cells(store, owner)]
            if not extras:
                owners[owner] = None
            elif owner == root:  # a model that holds a cell and other layers
                owners[group] = None
            else:
                left[owner] = extras
    for owner, extras in left.items():
        below = [path.removeprefix(owner).strip("/") for path in extras]
        notes.append(not_plain(_name(store, owner, root, outer), "", below))
    sketches = [_sketch(store, owner, root, outer) for owner in owners if owner not in left]
    for sketch in sketches:
        notes.extend(_taken(store, sketch))
    return sketches


def _taken(store: V3Store, sketch: LayerSketch) -> Iterator[str]:
    """Yield notes on what is taken for an LSTM by its arrays alone."""
    parent, _, leaf = sketch.group.rpartition("/")
    kind_name = re.sub(r"_\d+$", "", leaf)
    # A model's layers are in groups that are named by their classes.
    if _leaf(parent) in CONTAINERS and kind_name not in _OWN_GROUPS:
        yield taken_by_arrays(sketch.name, f"the group of a class called {kind_name}")
        return
    for cell in sketch.cells:
        name = store.names.get(cell.group, "")
        if cell.is_lstm and is_foreign_name(name):
            yield taken_by_arrays(sketch.name, f"a cell called {name}")
        elif cell.class_name == PEEPHOLE_CELL and "peephole" not in name:
            yield taken_for_peepholes(sketch.name)
    is_named = sketch.group in store.names and _leaf(parent) not in CONTAINERS
    if is_named and is_named_like_a_class(sketch.name):
        yield taken_by_name(sketch.name)


def _is_called_lstm(store: V3Store, group: str) -> bool:
    if not 2 <= len(store.vars.get(group, [])) <= len(ROLES) or _extras(store, group):
        return False
    owner, _, leaf = group.rpartition("/")
    is_cell = leaf == "cell" and _LSTM.fullmatch(_leaf(owner)) is not None
    return is_cell or _LSTM_CELL.fullmatch(store.names.get(group, "")) is not None


def kind(store: V3Store, group: str) -> int | None:
    """Tell what all arrays of a group are: 4 for an LSTM cell, 3 GRU, 1 simple RNN, else None."""
    shapes = tuple([stored.tensor.shape for stored in store.vars.get(group, [])])
    if roles_of(shapes) is None:
        return None
    count = gate_count(*shapes[:2])
    is_cell = _leaf(group) == "cell" or f"/{_STACK}" in f"/{group}"
    if count == len(GATES) and _extras(store, group):
        return None
    # A layer that is not a cell may keep two or three arrays: only the LSTM's shapes are telling.
    return count if is_cell or count == len(GATES) else None


def _begins_as_lstm(store: V3Store, group: str) -> bool:
    shapes = [stored.tensor.shape for stored in store.vars.get(group, [])[:2]]
    return len(shapes) == 2 and gate_count(*shapes) == len(GATES)


def _extras(store: V3Store, group: str) -> list[Stored]:
    """Return the arrays of a cell's group, and below it, that an LSTM cell does not have."""
    arrays = store.vars.get(group, [])
    roles = roles_of(tuple([stored.tensor.shape for stored in arrays])) or ROLES
    known = {stored.path for stored in arrays[: len(roles)]}
    return [stored for stored in store.arrays_below(group) if stored.path not in known]


def _beside_cells(store: V3Store, owner: str) -> list[Stored]:
    """Return the arrays of a layer's group that are not those of its cells."""
    known: set[str] = set()
    for half in ("", *_HALVES):
        group = f"{owner}/{half}".strip("/")
        cells = _cell_groups(store, group)
        known.update(stored.path for cell in cells for stored in store.arrays_below(cell))
        known.update(stored.path for stored in _states(store, group, len(cells)))
    return [stored for stored in store.arrays_below(owner) if stored.path not in known]


def _states(store: V3Store, group: str, cells: int) -> list[Stored]:
    """Return the states that a stateful layer of Keras 3 saves as its own arrays: two a cell, each
    (batch, *image, units) (keras/src/layers/rnn/rnn.py, `_create_state_variables`)."""
    arrays = store.vars.get(group, [])
    is_states = len(arrays) == 2 * cells and all(len(s.tensor.shape) >= 2 for s in arrays)
    return arrays if is_states else []


def _owner(group: str) -> str:
    owner, stack, _ = f"/{group}".rpartition(f"/{_STACK}")
    if not stack:
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
            _cell_class(store, cell),
            kind(store, cell) == len(GATES),
            None,
            is_separate=f"/{_STACK}" in f"/{cell}",
        )
        for cell in _cell_groups(store, group)
    )
    return DirectionSketch(group, None, cells)


def _cell_class(store: V3Store, cell: str) -> str:
    if kind(store, cell) != len(GATES):
        return _CELL_KINDS[kind(store, cell) or 1]
    return PEEPHOLE_CELL if has_peepholes(store, cell) else "LSTMCell"


def has_peepholes(store: V3Store, group: str) -> bool:
    """Whether the arrays of a group are exactly those of an LSTM cell with peepholes."""
    return kind(store, group) == len(GATES) and len(store.vars[group]) > len(ROLES)


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
    # With the stacks around it, where one stack holds another.
    classes = {tuple(re.sub(r"_\d+$", "", part) for part in name.split("/")) for name in stack}
    if len(classes) == 1 and len({name.rpartition("/")[0] for name in stack}) == 1:
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
    is_named = re.fullmatch(r"rnn(_\d+)?", _leaf(owner)) is not None
    has_peepholes = direction.cells[0].class_name == PEEPHOLE_CELL
    is_rnn = is_named or has_peepholes or len(direction.cells) > 1
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
    inner = named if owner in store.names else plain
    return "/".join(filter(None, [outer, *inner])) or "lstm"


def _leaf(path: str) -> str:
    return path.rpartition("/")[2]
