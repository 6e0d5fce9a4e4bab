"""Where the weights of a model's layers are in the object graph of a TensorFlow 2 checkpoint.

A model has an edge to each of its layers, in the order of its config: `layer-0`, `layer-1`, … in
Keras 2 (tf_keras/src/engine/functional.py, `_layer_checkpoint_dependencies`), those of the list
`_operations` or `_layers` in Keras 3. A layer has an edge to each of its variables, cells and
wrapped layers, by the name of the attribute that holds it. The result names each variable as a v3
store would, with the attribute in place of the number: `layers/lstm/cell/kernel`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.nodes import Node
from lstmconvert.keras.sketch import STACKED, cell_groups, layer_groups, mirrored
from lstmconvert.keras.v3store import CONTAINERS
from lstmconvert.tensorflow.bundle import Bundle
from lstmconvert.tensorflow.objectgraph import ROOT, ObjectGraph

_FIRST = "layer-0"
#: Edges of a layer that lead to no attribute of its own.
_BOOKKEEPING = frozenset(
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
_LISTS = ("_operations", "_layers")
#: Attributes of attributes: a dense layer of an attention is one step below it.
_DEPTH = 3


def place(root: Node, bundle: Bundle) -> dict[str, str]:
    """Return the name of each weight of a model, as above -> its key in the checkpoint.

    Args:
        root: the model's config.
        bundle: the checkpoint.

    Raises:
        CorruptFile: the graph has no such model.
    """
    graph = bundle.graph
    placer = _Placer(bundle, graph) if graph is not None else None
    start = placer.start() if placer else None
    if placer is None or start is None:
        raise CorruptFile("the checkpoint has no model that lists its layers", where=bundle.path)
    placer.model(root, start, "")
    return placer.found


class _Placer:
    def __init__(self, bundle: Bundle, graph: ObjectGraph) -> None:
        self._bundle, self._graph = bundle, graph
        self.found: dict[str, str] = {}

    def start(self) -> int | None:
        """The model: the root, or what hangs on it (`tf.train.Checkpoint(model=…)`)."""
        below = self._graph.children(ROOT) if self._graph.nodes else {}
        models = [at for at in (ROOT, *below.values()) if self._graph.nodes and self._listed(at)]
        return models[0] if models else None

    def _listed(self, at: int) -> list[int]:
        """The layers of a model; empty if it is none."""
        children = self._graph.children(at)
        if _FIRST in children:
            return list(_counted(children, "layer-"))
        for name in _LISTS:
            if name in children:
                return list(_counted(self._graph.children(children[name]), ""))
        return []

    def model(self, item: Node, at: int, group: str) -> None:
        """Place the layers of a model at a node."""
        listed = self._listed(at)
        own = [value for value in item.listed("layers") if not _is_input_of(item, value)]
        every = item.listed("layers")
        items = own if len(listed) == len(own) else every
        if len(items) != len(listed):
            raise CorruptFile(
                "the config and the checkpoint are of different models",
                where=f"{self._bundle.path}: {item.name or item.class_name}",
                found=f"{len(listed)} layers",
                expected=f"{len(every)}",
            )
        nodes = {id(value): found for value, found in zip(items, listed, strict=True)}
        for child, below in layer_groups(item, group, CONTAINERS[0], ()):
            if id(child.whole) in nodes:
                self._layer(child, nodes[id(child.whole)], below)

    def _layer(self, item: Node, at: int, group: str) -> None:
        if item.is_model:
            self.model(item, at, group)
            return
        parts = dict(_parts(item))
        for edge, below in parts.items():
            self._below(below, at, edge, f"{group}/{edge}")
        if item.class_name == STACKED:
            self._cells(item, at, group)
        elif not parts:
            self._weights(at, group, {at})

    def _below(self, item: Node, at: int, edge: str, group: str) -> None:
        found = self._graph.children(at).get(edge)
        if found is not None:
            self._layer(item, found, group)

    def _cells(self, item: Node, at: int, group: str) -> None:
        cells = self._graph.children(at).get("cells")
        for index, (cell, leaf) in enumerate(cell_groups(item)):
            if cells is not None:
                self._below(cell, cells, str(index), f"{group}/cells/{leaf}")

    def _weights(self, at: int, group: str, seen: set[int]) -> None:
        for name, child in self._graph.children(at).items():
            if name in _BOOKKEEPING or child in seen:
                continue
            path = f"{group}/{name.lstrip('_')}"
            key = self._key(child)
            if key is not None:
                self.found.setdefault(path, key)
            elif len(seen) <= _DEPTH:
                self._weights(child, path, {*seen, child})

    def _key(self, at: int) -> str | None:
        keys = (attribute.key for attribute in self._graph.nodes[at].attributes)
        return next((key for key in keys if key in self._bundle.tensors), None)


def _counted(children: Mapping[str, int], prefix: str) -> Iterator[int]:
    index = 0
    while (found := children.get(f"{prefix}{index}")) is not None:
        yield found
        index += 1


def _is_input_of(model: Node, value: object) -> bool:
    """Whether a layer is the input of a Sequential, which Keras 2 does not count."""
    is_input = isinstance(value, dict) and value.get("class_name") == "InputLayer"
    return is_input and model.class_name == "Sequential"


def _parts(item: Node) -> Iterator[tuple[str, Node]]:
    """Yield the attribute and the config of what a wrapper wraps."""
    if item.custom:
        return
    inner = item.child("layer")
    if item.class_name == "TimeDistributed" and inner:
        yield "layer", inner
    elif item.class_name == "Bidirectional" and inner:
        yield "forward_layer", inner
        yield "backward_layer", item.child("backward_layer") or mirrored(inner)
    elif item.class_name == "RNN" and (cell := item.child("cell")):
        yield "cell", cell
