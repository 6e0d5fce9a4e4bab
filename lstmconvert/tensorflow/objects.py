"""Recurrent cells in the object graph of a TensorFlow 2 checkpoint: roles by the names of edges.

    layer_with_weights-0/cell/kernel, recurrent_kernel, bias        LSTM, RNN(LSTMCell)
    …/cell/cells/0/kernel                                           a stack
    …/forward_layer/cell/kernel, …/backward_layer/…                 Bidirectional
    …/layer/cell/kernel                                             inside a wrapper

A variable's key is only one path to it; here every edge counts (`ObjectGraph`). A cell is known by
all variables that hang on it, and a layer by all that hang on it: what has an LSTM's variables and
others computes something else, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from lstmconvert import limits
from lstmconvert.keras.configs.nodes import PEEPHOLE_CELL
from lstmconvert.keras.configs.sketch import CellSketch, DirectionSketch, LayerSketch, natural
from lstmconvert.keras.stores.cells import (
    gate_count,
    is_foreign_name,
    is_named_like_a_class,
    not_plain,
    taken_by_arrays,
    taken_by_name,
)
from lstmconvert.keras.stores.legacycells import CELL_SCOPE
from lstmconvert.keras.stores.stored import PEEPHOLES, ROLES, Stored
from lstmconvert.model.gates import GATES
from lstmconvert.tensorflow.formats.bundle import Bundle
from lstmconvert.tensorflow.formats.objectgraph import ROOT, ObjectGraph

_HALVES = ("forward_layer", "backward_layer")
_HALF_SCOPE = re.compile(r"(forward|backward)_\w+")
#: Objects on the way that are lists of layers, or the model itself.
_LISTS = frozenset({"model", "layers", "_layers", "_operations"})
_KINDS = {4: "LSTMCell", 3: "GRUCell", 1: "SimpleRNNCell"}
#: Edges of a layer that lead to no attribute of its own.
BOOKKEEPING = frozenset(
    {
        "variables",
        "trainable_variables",
        "non_trainable_variables",
        "regularization_losses",
        "keras_api",
        "signatures",
        "states",
    }
)
#: Edges that lead to what random generators keep.
_NO_WEIGHTS = frozenset({"_random_generator", "seed_generator", "_seed_generators"})
#: The end of the name of the state of a random generator (keras/src/random/seed_generator.py).
SEED = "seed_generator_state"


@dataclass(frozen=True, slots=True)
class GraphLayer:
    """A recurrent layer of the graph.

    Fields: `node` of the layer; `path`, the shortest; `sketch`, its structure, without options;
    `arrays`: those of each cell of the sketch, by the `id` of the cell; `doubts`: notes on what is
    taken for an LSTM by its arrays alone, for where nothing else says what it is.
    """

    node: int
    path: str
    sketch: LayerSketch
    arrays: Mapping[int, dict[str, Stored]]
    doubts: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """The keys of its arrays."""
        return {stored.path for cell in self.arrays.values() for stored in cell.values()}

    @property
    def names(self) -> list[str]:
        """The names of its arrays, by the edges that lead to them from the layer: `cell/kernel`."""
        return sorted(
            f"{cell.group.removeprefix(self.path)}/{role}".strip("/")
            for cell in self.sketch.cells
            for role in self.arrays[id(cell)]
        )


def layers(bundle: Bundle, notes: list[str]) -> list[GraphLayer]:
    """Return the recurrent layers of a checkpoint's graph, in the order of their paths.

    Args:
        bundle: the checkpoint.
        notes: notes for the user; layers that are left out are added.
    """
    if bundle.graph is None:
        return []
    finder = _Finder(bundle, bundle.graph)
    recurrent = [finder.layer(owner) for owner in finder.owners(notes)]
    return sorted(recurrent, key=lambda layer: natural(layer.path))


def arrays_below(bundle: Bundle, path: str) -> list[str]:
    """Return the names of the variables below an object of the graph: `cell/kernel`.

    Args:
        bundle: the checkpoint.
        path: of the object.
    """
    node = bundle.graph.find(path) if bundle.graph is not None else None
    if bundle.graph is None or node is None:
        return []
    return _Finder(bundle, bundle.graph).variables_below(node, ())


class _Finder:
    def __init__(self, bundle: Bundle, graph: ObjectGraph) -> None:
        self.bundle, self.graph = bundle, graph
        self.cells: dict[int, dict[str, Stored]] = {}
        #: Objects that have an LSTM's variables and others: those others, by name.
        self.strange: dict[int, list[str]] = {}
        self._steps = 0
        for index in range(len(graph.nodes)):
            arrays = self._arrays(index)
            if arrays is None:
                continue
            extras = self.variables_below(index, {stored.path for stored in arrays.values()})
            if extras and self._count(arrays) == len(GATES):
                self.strange[index] = extras
            else:
                self.cells[index] = arrays

    def _count(self, arrays: Mapping[str, Stored]) -> int | None:
        return gate_count(*(arrays[role].tensor.shape for role in ("kernel", "recurrent_kernel")))

    def variables_below(self, node: int, known: Collection[str]) -> list[str]:
        """Return the names of the variables below a node whose keys are not known."""
        seen, waiting, names = {node}, [(node, "")], []
        while waiting:
            at, above = waiting.pop()
            for name, child in self.graph.children(at).items():
                self._steps += 1
                if child in seen or name in BOOKKEEPING or name in _NO_WEIGHTS:
                    continue
                seen.add(child)
                path = f"{above}/{name}".strip("/")
                stored = self._variable(child)
                if stored is not None and stored.path not in known:
                    full_name = self.graph.nodes[child].attributes[0].full_name
                    if not full_name.endswith(SEED) and stored.path not in self.graph.slots:
                        names.append(path)
                waiting.append((child, path))
        limits.PROTOBUF_MESSAGES.check(self._steps, self.bundle.path, "the edges below the cells")
        return sorted(names)

    def _arrays(self, node: int) -> dict[str, Stored] | None:
        """The arrays of a recurrent cell, if the node is one."""
        children = self.graph.children(node)
        if not {"kernel", "recurrent_kernel"} <= set(children):
            return None
        arrays = {
            role: stored
            for role in ROLES
            if role in children and (stored := self._variable(children[role])) is not None
        }
        if not {"kernel", "recurrent_kernel"} <= set(arrays) or self._count(arrays) is None:
            return None
        if set(PEEPHOLES) <= set(children):
            peepholes = {role: self._variable(children[name]) for name, role in PEEPHOLES.items()}
            arrays |= {role: stored for role, stored in peepholes.items() if stored is not None}
        return arrays

    def _variable(self, node: int) -> Stored | None:
        for attribute in self.graph.nodes[node].attributes:
            tensor = self.bundle.tensors.get(attribute.key)
            if tensor is not None:
                return Stored(attribute.key, tensor)
        return None

    def owners(self, notes: list[str]) -> list[int]:
        """The layers: each is what holds cells, and no half of a Bidirectional."""
        owners: dict[int, None] = {}
        left: dict[int, list[str]] = {}
        held: dict[int, list[int]] = {}
        for cell, extras in self.strange.items():
            if self.graph.path(cell) is not None:
                left.setdefault(self._owner(cell), []).extend(extras)
                held.setdefault(self._owner(cell), []).append(cell)
        for cell in self.cells:
            if self.graph.path(cell) is not None:
                owners[self._owner(cell)] = None
        result = []
        for owner in owners:
            if owner in left or not self._has_lstm(owner):
                continue
            cells = [cell for _, half in self._halves(owner) for cell in half]
            known = {stored.path for cell in cells for stored in self.cells[cell].values()}
            extras = self.variables_below(owner, known)
            if not extras:
                result.append(owner)
            elif owner == ROOT:  # a model that holds a cell and other layers
                result.extend(cells)
            else:
                left[owner] = extras
        for owner, extras in left.items():
            name = self._name(owner, held.get(owner, [])) or self.graph.path(owner) or ""
            notes.append(not_plain(name, "", extras))
        return result

    def _doubts(
        self, sketch: LayerSketch, held: Mapping[int, dict[str, Stored]]
    ) -> Iterator[str]:
        for cell, arrays in held.items():
            names = {
                attribute.full_name.split("/")[-2]
                for stored in arrays.values()
                for attribute in [self.graph.keys[stored.path][1]]
                if "/" in attribute.full_name
            }
            is_lstm = any(id(s) == cell and s.is_lstm for s in sketch.cells)
            if is_lstm and len(names) == 1 and is_foreign_name(name := names.pop()):
                yield taken_by_arrays(sketch.name, f"a cell called {name}")
                return
        if sketch.has_lstm and is_named_like_a_class(sketch.name):
            yield taken_by_name(sketch.name)

    def _owner(self, cell: int) -> int:
        layer = self._parent(cell, "cell")
        if layer is None:
            layer = self._stack_owner(cell)
        if layer is None:
            layer = cell
        for half in _HALVES:
            outer = self._parent(layer, half)
            if outer is not None:
                return outer
        return layer

    def _stack_owner(self, cell: int) -> int | None:
        for parent, name in self.graph.parents.get(cell, ()):
            stack = self._parent(parent, "cells") if name.isdigit() else None
            layer = self._parent(stack, "cell") if stack is not None else None
            if layer is not None:
                return layer
        return None

    def _parent(self, node: int, edge: str) -> int | None:
        return next((p for p, name in self.graph.parents.get(node, ()) if name == edge), None)

    def _cells_of(self, layer: int) -> list[int]:
        if layer in self.cells:
            return [layer]
        cell = self.graph.children(layer).get("cell")
        if cell is None or cell in self.cells:
            return [] if cell is None else [cell]
        cells = self.graph.children(cell).get("cells")
        listed = self.graph.children(cells) if cells is not None else {}
        order = sorted((name for name in listed if name.isdigit()), key=int)
        return [listed[name] for name in order if listed[name] in self.cells]

    def _halves(self, layer: int) -> list[tuple[str, list[int]]]:
        children = self.graph.children(layer)
        if any(half in children for half in _HALVES):
            return [(half, self._cells_of(children[half])) for half in _HALVES if half in children]
        return [("", self._cells_of(layer))]

    def _is_lstm(self, cell: int) -> bool:
        return self._count(self.cells[cell]) == len(GATES)

    def _has_lstm(self, layer: int) -> bool:
        return any(self._is_lstm(cell) for _, cells in self._halves(layer) for cell in cells)

    def layer(self, owner: int) -> GraphLayer:
        path = self.graph.path(owner) or ""
        arrays: dict[int, dict[str, Stored]] = {}
        directions = []
        for half, cells in self._halves(owner):
            sketches = [self._sketch(cell, path, len(cells) > 1) for cell in cells]
            arrays.update({id(s): self.cells[c] for s, c in zip(sketches, cells, strict=True)})
            directions.append(DirectionSketch(f"{path}/{half}".strip("/"), None, tuple(sketches)))
        sketch = LayerSketch(
            name=self._name(owner) or path,
            group=path,
            top=path,
            class_name=_class_name(directions),
            node=None,
            directions=tuple(directions),
        )
        return GraphLayer(owner, path, sketch, arrays, tuple(self._doubts(sketch, arrays)))

    def _sketch(self, cell: int, path: str, is_separate: bool) -> CellSketch:
        arrays = self.cells[cell]
        count = self._count(arrays) or 1
        is_lstm = count == len(GATES)
        has_peepholes = is_lstm and not set(PEEPHOLES.values()).isdisjoint(arrays)
        class_name = PEEPHOLE_CELL if has_peepholes else _KINDS[count]
        return CellSketch(self.graph.path(cell) or path, class_name, is_lstm, None, is_separate)

    def _name(self, owner: int, held: Collection[int] = ()) -> str:
        """The layer's name, from the names of its variables: `enc/lstm_cell/kernel` is enc's.

        A variable's name may begin with the model's, which is not part of a layer's: as many parts
        count as there are objects on the way to the layer.
        """
        path = (self.graph.path(owner) or "").split("/")
        depth = len([part for part in path if part not in _LISTS]) or 1
        for _, cells in [*self._halves(owner), ("", held)]:
            for cell in cells:
                kernel = self.graph.children(cell)["kernel"]
                full = next((a.full_name for a in self.graph.nodes[kernel].attributes), "")
                parts = [p for p in full.split("/")[:-1] if not CELL_SCOPE.fullmatch(p)]
                if len(parts) > 1 and _HALF_SCOPE.fullmatch(parts[-1]):
                    parts = parts[:-1]
                return "/".join(list(dict.fromkeys(parts))[-depth:])
        return ""


def _class_name(directions: list[DirectionSketch]) -> str:
    if len(directions) > 1:
        return "Bidirectional"
    is_rnn = len(directions[0].cells) > 1 or directions[0].cells[0].class_name == PEEPHOLE_CELL
    return "RNN" if is_rnn else "LSTM"


def full_names(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield `(full name, key)` of the variables that the graph names: `enc/lstm_cell/kernel`."""
    graph = bundle.graph
    for key, (_, attribute) in graph.keys.items() if graph is not None else ():
        if attribute.full_name and key in bundle.tensors:
            yield attribute.full_name, key
