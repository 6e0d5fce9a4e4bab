"""Recurrent cells in the object graph of a TensorFlow 2 checkpoint: roles by the names of edges.

    layer_with_weights-0/cell/kernel, recurrent_kernel, bias        LSTM, RNN(LSTMCell)
    …/cell/cells/0/kernel                                           a stack
    …/forward_layer/cell/kernel, …/backward_layer/…                 Bidirectional
    …/layer/cell/kernel                                             inside a wrapper

A variable's key is only one path to it; here every edge counts (`ObjectGraph`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lstmconvert.gates import GATES
from lstmconvert.keras.cells import gate_count
from lstmconvert.keras.sketch import CellSketch, DirectionSketch, LayerSketch, natural
from lstmconvert.keras.stored import ROLES, Stored
from lstmconvert.tensorflow.bundle import Bundle
from lstmconvert.tensorflow.objectgraph import ObjectGraph

_HALVES = ("forward_layer", "backward_layer")
_CELL_SCOPE = re.compile(r"(stacked_rnn_cells|\w*_cell)(_\d+)?")
_HALF_SCOPE = re.compile(r"(forward|backward)_\w+")
#: Objects on the way that are lists of layers, or the model itself.
_LISTS = frozenset({"model", "layers", "_layers", "_operations"})
_KINDS = {4: "LSTMCell", 3: "GRUCell", 1: "SimpleRNNCell"}


@dataclass(frozen=True, slots=True)
class Found:
    """A recurrent layer of the graph.

    Fields: `node` of the layer; `path`, the shortest; `sketch`, its structure, without options;
    `arrays`: those of each cell of the sketch, by the `id` of the cell.
    """

    node: int
    path: str
    sketch: LayerSketch
    arrays: Mapping[int, dict[str, Stored]]

    @property
    def keys(self) -> set[str]:
        """The keys of its arrays."""
        return {stored.path for cell in self.arrays.values() for stored in cell.values()}


def layers(bundle: Bundle) -> list[Found]:
    """Return the recurrent layers of a checkpoint's graph, in the order of their paths."""
    if bundle.graph is None:
        return []
    finder = _Finder(bundle, bundle.graph)
    found = [finder.layer(owner) for owner in finder.owners()]
    return sorted(found, key=lambda layer: natural(layer.path))


class _Finder:
    def __init__(self, bundle: Bundle, graph: ObjectGraph) -> None:
        self.bundle, self.graph = bundle, graph
        self.cells = {
            index: arrays
            for index in range(len(graph.nodes))
            if (arrays := self._arrays(index)) is not None
        }

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
        if not {"kernel", "recurrent_kernel"} <= set(arrays):
            return None
        shapes = [arrays[role].tensor.shape for role in ("kernel", "recurrent_kernel")]
        return arrays if gate_count(*shapes) is not None else None

    def _variable(self, node: int) -> Stored | None:
        for attribute in self.graph.nodes[node].attributes:
            tensor = self.bundle.tensors.get(attribute.key)
            if tensor is not None:
                return Stored(attribute.key, tensor)
        return None

    def owners(self) -> list[int]:
        """The layers: each is what holds cells, and no half of a Bidirectional."""
        result: dict[int, None] = {}
        for cell in self.cells:
            if self.graph.path(cell) is not None:
                result[self._owner(cell)] = None
        return [owner for owner in result if self._has_lstm(owner)]

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
        arrays = self.cells[cell]
        shapes = [arrays[role].tensor.shape for role in ("kernel", "recurrent_kernel")]
        return gate_count(*shapes) == len(GATES)

    def _has_lstm(self, layer: int) -> bool:
        return any(self._is_lstm(cell) for _, cells in self._halves(layer) for cell in cells)

    def layer(self, owner: int) -> Found:
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
        return Found(owner, path, sketch, arrays)

    def _sketch(self, cell: int, path: str, own: bool) -> CellSketch:
        arrays = self.cells[cell]
        count = gate_count(*(arrays[r].tensor.shape for r in ("kernel", "recurrent_kernel"))) or 1
        return CellSketch(self.graph.path(cell) or path, _KINDS[count], count == 4, None, own)

    def _name(self, owner: int) -> str:
        """The layer's name, from the names of its variables: `enc/lstm_cell/kernel` is enc's.

        A variable's name may begin with the model's, which is no part of a layer's: as many parts
        count as there are objects on the way to the layer.
        """
        path = (self.graph.path(owner) or "").split("/")
        depth = len([part for part in path if part not in _LISTS]) or 1
        for _, cells in self._halves(owner):
            for cell in cells:
                kernel = self.graph.children(cell)["kernel"]
                full = next((a.full_name for a in self.graph.nodes[kernel].attributes), "")
                parts = [p for p in full.split("/")[:-1] if not _CELL_SCOPE.fullmatch(p)]
                if len(parts) > 1 and _HALF_SCOPE.fullmatch(parts[-1]):
                    parts = parts[:-1]
                return "/".join(list(dict.fromkeys(parts))[-depth:])
        return ""


def _class_name(directions: list[DirectionSketch]) -> str:
    if len(directions) > 1:
        return "Bidirectional"
    return "RNN" if len(directions[0].cells) > 1 else "LSTM"


def full_names(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield `(full name, key)` of the variables that the graph names: `enc/lstm_cell/kernel`."""
    graph = bundle.graph
    for key, (_, attribute) in graph.keys.items() if graph is not None else ():
        if attribute.full_name and key in bundle.tensors:
            yield attribute.full_name, key
