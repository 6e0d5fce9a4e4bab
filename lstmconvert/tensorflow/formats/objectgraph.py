"""The graph of objects in a checkpoint: which variable hangs below which layer, under which name.

A checkpoint's keys are one path to each variable, the first that TensorFlow's walk came upon, and
not always the telling one (`variables/4`, `optimizer/_trainable_variables/0`). The graph has every
edge, and so every other path. It has cycles: each question here visits an edge once.
Format: tensorflow/core/protobuf/trackable_object_graph.proto
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files.wire import Buffer, Parser, integer, messages, text

ROOT = 0


@dataclass(frozen=True, slots=True)
class Child:
    """An edge: the object `node`, called `name` by its parent."""

    node: int = integer(1)
    name: str = text(2)


@dataclass(frozen=True, slots=True)
class Attribute:
    """A value of an object: its `name`, `VARIABLE_VALUE` for a variable's, and the key it is under.

    `full_name` is the variable's own name: `enc/lstm_cell/kernel`.
    """

    name: str = text(1)
    full_name: str = text(2)
    key: str = text(3)


@dataclass(frozen=True, slots=True)
class SlotVariable:
    """An optimizer's variable `node`, called `name`, that belongs to the variable `variable`."""

    variable: int = integer(1)
    name: str = text(2)
    node: int = integer(3)


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """An object: its children, in the order they were tracked, its values, its slots."""

    children: tuple[Child, ...] = messages(1, Child)
    attributes: tuple[Attribute, ...] = messages(2, Attribute)
    slots: tuple[SlotVariable, ...] = messages(3, SlotVariable)


@dataclass(frozen=True, slots=True)
class _GraphMessage:
    nodes: tuple[TrackedObject, ...] = messages(1, TrackedObject)


@dataclass(frozen=True, slots=True)
class SlotOf:
    """That a key is an optimizer's slot `name` of the variable under `key` (None: not saved)."""

    key: str | None
    name: str


def escaped(name: str) -> str:
    """Return an edge's name as keys spell it (tensorflow/python/checkpoint/util.py)."""
    return name.replace(".", "..").replace("/", ".S")


class ObjectGraph:
    """The objects of a checkpoint or SavedModel; node 0 is the root.

    Raises:
        CorruptFile: an edge or slot leads to a node that is not there.
    """

    def __init__(self, nodes: Sequence[TrackedObject], where: object) -> None:
        self.nodes: tuple[TrackedObject, ...] = tuple(nodes)
        self._where = where
        self._spelled = 0
        for node in self.nodes:
            ends = [child.node for child in node.children]
            ends += [end for slot in node.slots for end in (slot.variable, slot.node)]
            for end in ends:
                if not 0 <= end < len(self.nodes):
                    raise CorruptFile(
                        "the object graph refers to an object that it does not have",
                        where=where,
                        found=end,
                        expected=f"0 to {len(self.nodes) - 1}",
                    )

    @cached_property
    def _paths(self) -> Mapping[int, tuple[int, Child] | None]:
        """Node -> the edge by which the shortest path reaches it; the first in order, of several.

        An edge each, not a path each: a chain of a million objects has paths of a terabyte.
        """
        edges: dict[int, tuple[int, Child] | None] = {ROOT: None} if self.nodes else {}
        queue = deque(edges)
        while queue:
            parent = queue.popleft()
            for child in self.nodes[parent].children:
                if child.node not in edges:
                    edges[child.node] = (parent, child)
                    queue.append(child.node)
        return edges

    @cached_property
    def parents(self) -> Mapping[int, tuple[tuple[int, str], ...]]:
        """Node -> the parents it hangs below, each with the name that it has there."""
        edges_above: dict[int, list[tuple[int, str]]] = {}
        for index, node in enumerate(self.nodes):
            for child in node.children:
                edges_above.setdefault(child.node, []).append((index, child.name))
        return {node: tuple(edges) for node, edges in edges_above.items()}

    def path(self, node: int) -> str | None:
        """Return the shortest path from the root, `""` for itself; None if none leads there.

        Raises:
            LimitExceeded: all paths that were asked for are longer than the limit, together.
        """
        names: list[str] = []
        if node not in self._paths:
            return None
        while (edge := self._paths[node]) is not None:
            node, child = edge
            names.append(escaped(child.name))
        self._spelled += sum(map(len, names)) + len(names)
        limits.PROTOBUF_BYTES.check(self._spelled, self._where, "the length of the object paths")
        return "/".join(reversed(names))

    def paths(self, node: int) -> tuple[str, ...]:
        """Return one path for each edge that leads to a node, the shortest first."""
        paths = []
        for parent, name in self.parents.get(node, ()):
            if (above := self.path(parent)) is not None:
                paths.append(f"{above}/{escaped(name)}" if above else escaped(name))
        return tuple(sorted(paths, key=lambda path: (path.count("/"), path)))

    def find(self, path: str) -> int | None:
        """Return the node that a path leads to, or None."""
        node = ROOT if self.nodes else None
        for name in path.split("/") if path else ():
            if node is None:
                return None
            node = self.children(node).get(name)
        return node

    def children(self, node: int) -> Mapping[str, int]:
        """Return a node's children by name, as paths spell it."""
        return {escaped(child.name): child.node for child in self.nodes[node].children}

    @cached_property
    def keys(self) -> Mapping[str, tuple[int, Attribute]]:
        """Checkpoint key -> the node whose value is there, and the value's attribute."""
        return {
            attribute.key: (index, attribute)
            for index, node in enumerate(self.nodes)
            for attribute in node.attributes
        }

    @cached_property
    def slots(self) -> Mapping[str, SlotOf]:
        """Checkpoint key -> whose slot it is, for the keys of optimizers that have slots."""
        slots: dict[str, SlotOf] = {}
        for node in self.nodes:
            for slot in node.slots:
                owner = self.nodes[slot.variable].attributes
                for attribute in self.nodes[slot.node].attributes:
                    slots[attribute.key] = SlotOf(owner[0].key if owner else None, slot.name)
        return slots


def parse_object_graph(data: Buffer, where: object) -> ObjectGraph:
    """Read a serialised TrackableObjectGraph.

    Raises:
        CorruptFile: it is not a graph, or an edge leads nowhere.
        LimitExceeded: it has too many objects.
    """
    return ObjectGraph(Parser(where).parse(_GraphMessage, data).nodes, where)
