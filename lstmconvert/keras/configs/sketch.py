"""From a config to sketches: which recurrent layers a model has, and where a v3 store keeps them.

A sketch knows names, classes and options' sources, and no arrays yet. The same sketch is filled
from a v3 store, by group path, or from a legacy store, by order.

Group paths follow keras/src/saving/saving_lib.py, `_save_state` and `_save_container_state`: the
layers of a model are under `layers/`, each in a group named by its class and a counter; wrappers
and cells are under the attribute that holds them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs.nodes import (
    CELL_CLASSES,
    CUDNN_CLASSES,
    PEEPHOLE_CELL,
    RECURRENT,
    ConfigNode,
    counted,
    node,
    snake_case,
)

STACKED = "StackedRNNCells"
_WRAPPERS = frozenset({"TimeDistributed"})
_OTHER_RECURRENT = frozenset({"GRU", "SimpleRNN", "CuDNNGRU"})
#: Cells, and layers that are their own cell, that are not LSTMs and whose weights are known.
_OTHER_CELLS = _OTHER_RECURRENT | {"GRUCell", "SimpleRNNCell", STACKED}


class CellSketch(NamedTuple):
    """One cell: its v3 group, and the config of the object that it is, if there is one."""

    group: str
    class_name: str
    is_lstm: bool
    node: ConfigNode | None
    is_separate: bool  # `node` is a cell of its layer, not the layer that is its cell
    trainable: bool = True

    @property
    def is_foreign(self) -> bool:
        """Whether it may be of a user's own class: only that code tells what it computes."""
        if self.node is None or (self.is_lstm and self.class_name != PEEPHOLE_CELL):
            return False
        return self.node.custom or self.class_name not in _OTHER_CELLS


class DirectionSketch(NamedTuple):
    """One direction: its v3 group, its config, its cells."""

    group: str
    node: ConfigNode | None
    cells: tuple[CellSketch, ...]


class LayerSketch(NamedTuple):
    """One recurrent layer, LSTM or not.

    Fields: `name`, canonical; `group`, in a v3 store; `top`, the name of the model's own layer
    that holds it (a legacy store's group); `class_name`; `node`; `directions`, one or two.
    """

    name: str
    group: str
    top: str
    class_name: str
    node: ConfigNode | None
    directions: tuple[DirectionSketch, ...]

    @property
    def has_lstm(self) -> bool:
        """Whether any cell is an LSTM."""
        return any(cell.is_lstm for direction in self.directions for cell in direction.cells)

    @property
    def cells(self) -> tuple[CellSketch, ...]:
        """The cells of both directions, in the order of Keras's weights."""
        return tuple([cell for direction in self.directions for cell in direction.cells])

    @property
    def foreign_cell(self) -> CellSketch | None:
        """A cell of a user's own class, if there is one: only its code tells what it computes."""
        return next((cell for cell in self.cells if cell.is_foreign), None)


class OtherLayer(NamedTuple):
    """A layer that is not sketched.

    Fields: `node`; `name`, canonical; `group`, in a v3 store; `top`, the name of the model's own
    layer that holds it; `is_recurrent`: whether it is, for certain, a recurrent layer itself.
    """

    node: ConfigNode
    name: str
    group: str
    top: str
    is_recurrent: bool = False


@dataclass(slots=True, eq=False)
class ConfigSketch:
    """What a config says about a model.

    Fields: `layers`: the recurrent layers, in order; `custom`: layers of a user's own class, known
    as such by the config; `others`: all other layers that are not recurrent by their class, of
    Keras's classes or, in a config of Keras 1 or 2, of anyone's; `classes`: (class, name) of every
    top-level layer, for messages; `notes`: what the user should know of layers that are left.
    """

    layers: list[LayerSketch] = field(default_factory=list)
    custom: list[OtherLayer] = field(default_factory=list)
    others: list[OtherLayer] = field(default_factory=list)
    classes: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


_INPUT = "InputLayer"
#: Keras 1's, of several Sequentials.
_MERGE = "Merge"


class _Place(NamedTuple):
    group: str
    outer: str
    top: str
    trainable: bool

    def below(self, part: str, name: str = "") -> _Place:
        outer = f"{self.outer}/{name}".strip("/") if name else self.outer
        return _Place(f"{self.group}/{part}".strip("/"), outer, self.top, self.trainable)


def plan(
    root: ConfigNode, container: str = "layers", groups: Collection[str] = frozenset()
) -> ConfigSketch:
    """Sketch every recurrent layer of a model's config.

    Args:
        root: the model, or one layer alone.
        container: the v3 group that holds a model's layers.
        groups: the groups of the store, as far as they are known.
    """
    result = ConfigSketch()
    walker = _Walker(result, container, groups)
    walker.note_class(root)
    if root.is_model:
        for child, group in walker.children(root, ""):
            result.classes.append((child.class_name, child.name))
            walker.visit(child, _Place(group, "", child.name, root.is_trainable))
    else:
        result.classes.append((root.class_name, root.name))
        walker.visit(root, _Place("", "", root.name, True))
    return result


def layer_groups(
    model: ConfigNode, group: str, container: str, groups: Collection[str]
) -> Iterator[tuple[ConfigNode, str]]:
    """Yield the layers of a model that is in a group of a v3 store, each with its own group.

    Args as for `plan`.
    """
    return _Walker(ConfigSketch(), container, groups).children(model, group)


class _Walker:
    def __init__(self, result: ConfigSketch, container: str, groups: Collection[str]) -> None:
        self.result, self.container, self.groups = result, container, groups

    @cached_property
    def existing(self) -> dict[str, dict[str, list[str]]]:
        """The groups of the store: parent -> kind -> names."""
        result: dict[str, dict[str, list[str]]] = {}
        for path in self.groups:
            parent, _, leaf = path.rpartition("/")
            kind, _, number = leaf.rpartition("_")
            if not number.isdecimal():
                kind = leaf
            result.setdefault(parent, {}).setdefault(kind, []).append(leaf)
        return result

    def children(self, model: ConfigNode, group: str) -> Iterator[tuple[ConfigNode, str]]:
        parent = f"{group}/{self.container}".strip("/")
        used: dict[str, int] = {}
        items = model.layers()
        names = [counted(child.stored_class, used) for child in items]
        for child, name in zip(items, self._stored_names(parent, items, names), strict=True):
            yield child, f"{parent}/{name}"

    def _stored_names(
        self, parent: str, items: Sequence[ConfigNode], names: Sequence[str]
    ) -> Sequence[str]:
        """Keras 2.12 and 2.13 count a layer with weights twice: lstm, lstm_2, lstm_4. Where the
        counted groups are not there, the layers of a class are its groups in order."""
        pairs = zip(items, names, strict=True)
        # A Sequential stores no group for its input.
        counted_names = {f"{parent}/{name}" for item, name in pairs if item.class_name != _INPUT}
        if counted_names.issubset(self.groups):
            return names
        by_kind: dict[str, list[str]] = {}
        for item, name in zip(items, names, strict=True):
            by_kind.setdefault(snake_case(item.stored_class), []).append(name)
        renamed: dict[str, str] = {}
        for kind, expected in by_kind.items():
            stored = self.existing.get(parent, {}).get(kind, [])
            if len(stored) == len(expected) and not set(expected) <= set(stored):
                renamed.update(zip(expected, sorted(stored, key=natural), strict=True))
        return [renamed.get(name, name) for name in names]

    def visit(self, item: ConfigNode, place: _Place) -> None:
        if place.trainable and not item.is_trainable:
            place = place._replace(trainable=False)
        if item.custom:
            self.result.custom.append(_other(item, item.name, place))
        elif item.is_model:
            self.note_class(item)
            for child, group in self.children(item, place.group):
                outer = _join(place.outer, item.name)
                self.visit(child, _Place(group, outer, place.top, place.trainable))
        elif item.class_name == _MERGE:
            self._branches(item, place)
        elif item.class_name in _WRAPPERS:
            inner = item.child("layer")
            if inner is not None:
                self.visit(inner, place.below("layer", item.name))
        else:
            self._recurrent(item, place)

    def note_class(self, item: ConfigNode) -> None:
        """Note a model of a user's own class."""
        if item.own_class:
            self.result.notes.append(
                f"{item.name}: the class {item.own_class} is the user's own; its config is that of "
                f"a {item.class_name} model, and it is read as one"
            )

    def _branches(self, merge: ConfigNode, place: _Place) -> None:
        """Visit the models that a Merge begins a Sequential of Keras 1 with: their layers are
        stored as the model's own (keras/models.py of Keras 1.2.2, `flattened_layers`)."""
        for index, value in enumerate(merge.listed("layers")):
            branch = node(value, f"{merge.name}.layers[{index}]")
            inside = self.children(branch, place.group) if branch.is_model else [(branch, "")]
            for child, group in inside:
                self.visit(child, _Place(group, place.outer, child.name, place.trainable))

    def _recurrent(self, item: ConfigNode, place: _Place) -> None:
        directions = self._directions(item, place)
        if any(direction.cells for direction in directions):
            if not all(direction.cells for direction in directions):
                raise CorruptFile("half of a Bidirectional has no cells", where=item.name)
            self.result.layers.append(
                LayerSketch(
                    name=_join(place.outer, item.name),
                    group=place.group,
                    top=place.top,
                    class_name=item.class_name,
                    node=item,
                    directions=directions,
                )
            )
        elif item.class_name != "Bidirectional":
            self.result.others.append(_other(item, item.name, place))
        elif (inner := item.child("layer")) is not None:
            # Only a recurrent layer can be there, so a class that is not known is a user's own.
            other = _other(inner, item.name, place)._replace(is_recurrent=True)
            self.result.custom.append(other)

    def _directions(self, item: ConfigNode, place: _Place) -> tuple[DirectionSketch, ...]:
        if item.class_name != "Bidirectional":
            return (_direction(item, place),) if _is_recurrent(item) else ()
        forward = item.child("layer")
        if forward is None or not _is_recurrent(forward):
            return ()
        backward = item.child("backward_layer") or mirrored(forward)
        return (
            _direction(forward, place.below("forward_layer")),
            _direction(backward, place.below("backward_layer")),
        )


def _other(item: ConfigNode, name: str, place: _Place) -> OtherLayer:
    return OtherLayer(item, _join(place.outer, name), place.group, place.top)


def natural(path: str) -> tuple[tuple[str, int], ...]:
    """A sort key under which `lstm_10` comes after `lstm_2`."""
    parts = re.split(r"(\d{1,18})", path)
    pairs = ((parts[i], int(parts[i + 1])) for i in range(0, len(parts) - 1, 2))
    return (*pairs, (parts[-1], -1))


def mirrored(forward: ConfigNode) -> ConfigNode:
    """Return the backward half that Bidirectional makes of its forward layer
    (keras/src/layers/rnn/bidirectional.py, `__init__`)."""
    bare = forward.name.removeprefix("forward_")
    backwards = not forward.config.get("go_backwards", False)
    config = {**forward.config, "name": f"backward_{bare}", "go_backwards": backwards}
    return node({**forward.whole, "config": config}, forward.name)


_ANY_RECURRENT = RECURRENT | _OTHER_RECURRENT | {"RNN"}


def _is_recurrent(item: ConfigNode) -> bool:
    return item.class_name in _ANY_RECURRENT


def _direction(item: ConfigNode, place: _Place) -> DirectionSketch:
    return DirectionSketch(place.group, item, tuple(_cells(item, place)))


def _cells(item: ConfigNode, place: _Place) -> Iterator[CellSketch]:
    trainable = place.trainable and item.is_trainable
    # CuDNNLSTM has no cell object: its variables are its own.
    is_alone = item.class_name in CUDNN_CLASSES
    group = place.group if is_alone else f"{place.group}/cell".strip("/")
    if item.class_name != "RNN" or item.custom:
        is_lstm = item.class_name in RECURRENT and not item.custom
        yield CellSketch(group, item.class_name, is_lstm, item, False, trainable)
        return
    cell = item.child("cell")
    if cell is None:
        return
    if cell.class_name != STACKED or cell.custom:
        yield _own_cell(cell, group, trainable)
        return
    for member, leaf in leaf_cells(cell):
        yield _own_cell(member, f"{group}/cells/{leaf}", trainable)


def leaf_cells(stack: ConfigNode) -> Iterator[tuple[ConfigNode, str]]:
    """Yield the cells of a StackedRNNCells that are not stacks themselves, each with the path of
    its group below `cells`. A stack in a stack computes what one of all their cells does."""
    for cell, leaf in cell_groups(stack):
        if cell.class_name == STACKED and not cell.custom:
            yield from ((inner, f"{leaf}/cells/{path}") for inner, path in leaf_cells(cell))
        else:
            yield cell, leaf


def cell_groups(stack: ConfigNode) -> Iterator[tuple[ConfigNode, str]]:
    """Yield the cells of a StackedRNNCells, each with the name of its group below `cells`."""
    used: dict[str, int] = {}
    for index, part in enumerate(stack.listed("cells")):
        cell = node(part, f"{stack.name}.cells[{index}]")
        yield cell, counted(cell.class_name, used)


def _own_cell(cell: ConfigNode, group: str, trainable: bool) -> CellSketch:
    is_plain = cell.class_name in CELL_CLASSES and not cell.custom
    is_lstm = is_plain or cell.class_name == PEEPHOLE_CELL
    return CellSketch(group, cell.class_name, is_lstm, cell, True, trainable and cell.is_trainable)


def _join(outer: str, name: str) -> str:
    return f"{outer}/{name}" if outer else name
