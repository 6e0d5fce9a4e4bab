"""Where the weights of a model's layers are in the object graph of a TensorFlow 2 checkpoint.

A model has an edge to each of its layers, in the order of its config: `layer-0`, `layer-1`, … in
Keras 2 (tf_keras/src/engine/functional.py, `_layer_checkpoint_dependencies`), those of the list
`_operations` or `_layers` in Keras 3. (Of a Sequential, Keras 3 may save `_functional` alone, where
bare operations stand between the layers: the names of the variables tell those.) A layer has an
edge to each of its variables, cells and wrapped layers, by the name of the attribute that holds it.
The result names each variable as a v3 store would, with the attribute in place of the number:
`layers/lstm/cell/kernel`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping

from lstmconvert import limits
from lstmconvert.checkpoints import byname
from lstmconvert.errors import CorruptFile
from lstmconvert.jsontext import Json
from lstmconvert.keras.nodes import Node, node
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
_FUNCTIONAL = "_functional"
_LISTS = ("_operations", "_layers")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
#: So many times as many objects may a list have had as it has: a million would be no list of ours.
_SPARSE = 100
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
    start = model_of(bundle)
    if bundle.graph is None or start is None:
        return byname.place(root, bundle)
    placer = _Placer(bundle, bundle.graph)
    placer.model(root, start, "")
    return placer.found


def model_of(bundle: Bundle) -> int | None:
    """Return the object that is the model: the root, or what hangs on it
    (`tf.train.Checkpoint(model=…)`); None if no such object lists layers."""
    graph = bundle.graph
    if graph is None or not graph.nodes:
        return None
    placer = _Placer(bundle, graph)
    return next((at for at in (ROOT, *graph.children(ROOT).values()) if placer.listed(at)), None)


class _Placer:
    def __init__(self, bundle: Bundle, graph: ObjectGraph) -> None:
        self._bundle, self._graph = bundle, graph
        self.found: dict[str, str] = {}
        self._steps = 0

    def listed(self, at: int) -> list[int | None]:
        """The layers of a model, None for what was not saved; empty if it is none."""
        children = self._graph.children(at)
        if _FIRST in children:
            return _numbered(children, "layer-")
        if _FUNCTIONAL in children and "_layers" not in children:
            return self.listed(children[_FUNCTIONAL])
        lists = [children[name] for name in _LISTS if name in children]
        return _numbered(self._graph.children(lists[0]), "") if lists else []

    def model(self, item: Node, at: int, group: str) -> None:
        """Place the layers of a model at a node."""
        layers = list(layer_groups(item, group, CONTAINERS[0], ()))
        every = item.listed("layers")
        nodes = self._nodes(item, at, every)
        if len(nodes) != len(every):
            raise CorruptFile(
                "the config and the checkpoint are of different models",
                where=f"{self._bundle.path}: {item.name or item.class_name}",
                found=f"{len(nodes)} layers",
                expected=f"{len(every)}",
            )
        by_layer = {id(value): node for value, node in zip(every, nodes, strict=True)}
        for child, below in layers:
            found = by_layer.get(id(child.whole))
            if found is not None:
                self._layer(child, found, below)

    def _nodes(self, item: Node, at: int, every: list[Json]) -> list[int | None]:
        """Return the node of each entry of a model's config."""
        listed = self.listed(at)
        if _FIRST in self._graph.children(at):
            # Keras 2 does not count the input of a Sequential.
            is_less = len(listed) == len(every) - 1 and _starts_with_input(item)
            return [None, *listed] if is_less else listed
        if _FUNCTIONAL in self._graph.children(at):
            # As many as the config says: no operation stands between them.
            is_plain = len(listed) == len(every) and _starts_with_input(item)
            return listed if is_plain else self._named(item, every, listed)
        missing = len(every) - len(listed)  # bare operations at the end
        return [*listed, *[None] * missing]

    def _named(
        self, model: Node, every: list[Json], listed: list[int | None]
    ) -> list[int | None]:
        """Return the node of each layer: that whose variables begin with the layer's name, or with
        the model's and then the layer's."""
        nodes: dict[str, int] = {}
        for at in filter(None, listed):  # the root is no layer
            for name in self._variable_names(at):
                first, _, rest = name.partition("/")
                first = rest.partition("/")[0] if first == model.name and "/" in rest else first
                nodes.setdefault(first, at)
        return [nodes.get(node(value, model.name).name) for value in every]

    def _variable_names(self, at: int) -> Iterator[str]:
        for _, below in self._below(at):
            yield from (attribute.full_name for attribute in self._graph.nodes[below].attributes)

    def _below(self, at: int) -> Iterator[tuple[str, int]]:
        """Yield `(path, node)` of what hangs on a layer, the nearest first, each once."""
        seen, waiting = {at}, deque([("", at, 0)])
        while waiting:
            above, parent, depth = waiting.popleft()
            for name, child in self._graph.children(parent).items():
                self._steps += 1
                if child in seen or name in _BOOKKEEPING:
                    continue
                seen.add(child)
                path = f"{above}/{name.lstrip('_')}"
                yield path, child
                if depth < _DEPTH:
                    waiting.append((path, child, depth + 1))
        limits.PROTOBUF_MESSAGES.check(self._steps, self._bundle.path, "the edges below the layers")

    def _layer(self, item: Node, at: int, group: str) -> None:
        if item.is_model:
            self.model(item, at, group)
            return
        parts = dict(_parts(item))
        for edge, below in parts.items():
            self._part(below, at, edge, f"{group}/{edge}")
        if item.class_name == STACKED:
            self._cells(item, at, group)
        elif not parts:
            self._weights(at, group)

    def _part(self, item: Node, at: int, edge: str, group: str) -> None:
        found = self._graph.children(at).get(edge)
        if found is not None:
            self._layer(item, found, group)

    def _cells(self, item: Node, at: int, group: str) -> None:
        cells = self._graph.children(at).get("cells")
        for index, (cell, leaf) in enumerate(cell_groups(item)):
            if cells is not None:
                self._part(cell, cells, str(index), f"{group}/cells/{leaf}")

    def _weights(self, at: int, group: str) -> None:
        for path, below in self._below(at):
            key = self._key(below)
            if key is not None:
                self.found.setdefault(f"{group}{path}", key)

    def _key(self, at: int) -> str | None:
        keys = (attribute.key for attribute in self._graph.nodes[at].attributes)
        return next((key for key in keys if key in self._bundle.tensors), None)


def _numbered(children: Mapping[str, int], prefix: str) -> list[int | None]:
    """Return the children that are called by a number, in that order; None where one is missing."""
    names = (name.removeprefix(prefix) for name in children if name.startswith(prefix))
    numbers = [int(name) for name in names if _NUMBER.fullmatch(name)]
    if not numbers or max(numbers) > _SPARSE * len(numbers):
        return []
    return [children.get(f"{prefix}{number}") for number in range(max(numbers) + 1)]


def _starts_with_input(model: Node) -> bool:
    first = next(iter(model.listed("layers")), None)
    is_input = isinstance(first, dict) and first.get("class_name") == "InputLayer"
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
