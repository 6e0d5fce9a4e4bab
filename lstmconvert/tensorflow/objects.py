"""What hangs where in a TensorFlow 2 checkpoint: recurrent cells, and a known model's layers.

Without a config, recurrent cells are found in the graph of objects, by the names of edges:

    layer_with_weights-0/cell/kernel, recurrent_kernel, bias        LSTM, RNN(LSTMCell)
    …/cell/cells/0/kernel                                           a stack
    …/forward_layer/cell/kernel, …/backward_layer/…                 Bidirectional
    …/layer/cell/kernel                                             inside a wrapper

A variable's key is only one path to it; here every edge counts (`ObjectGraph`). A cell is known by
all variables that hang on it, and a layer by all that hang on it: what has an LSTM's variables and
others computes something else, and is left out.

With a config, the weights of each layer are found.

By the graph of objects: a model has an edge to each of its layers, in the order of its config:
`layer-0`, `layer-1`, … in Keras 2 (tf_keras/src/engine/functional.py,
`_layer_checkpoint_dependencies`), those of the list `_operations` or `_layers` in Keras 3. (Of a
Sequential, Keras 3 may save `_functional` alone, where bare operations stand between the layers:
the names of the variables tell those.) A layer has an edge to each of its variables, cells and
wrapped layers, by the name of the attribute that holds it.

By the variables' own names, where no edge leads to a layer: Keras 3's `export` keeps a list of
variables, TensorFlow 1's Saver a table by name. A name is a path of objects:
`stack/time_distributed/dense/kernel`. The names of enclosing models may precede the
layer's; between that and the role are those of cells, halves and wrapped layers, which the
config has in the order in which they were made.

Either way each weight is named as a v3 store would name it, with the attribute in place of the
number: `layers/lstm/cell/kernel`.

What training keeps of itself is not a weight: optimizers, metrics, counters, the states that a
stateful layer carries from batch to batch, the seeds of dropout. A variable is a weight if any path
leads to it that passes through none of them: Keras 3's optimizer, for one, has edges to the weights
too.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.configs.nodes import PEEPHOLE_CELL, RECURRENT, ConfigNode, node
from lstmconvert.keras.configs.sketch import (
    STACKED,
    CellSketch,
    DirectionSketch,
    LayerSketch,
    cell_groups,
    layer_groups,
    mirrored,
    natural,
)
from lstmconvert.keras.modern.classes import CLASSES, IN_A_CELL, UNCROSSED
from lstmconvert.keras.stores.legacycells import CELL_SCOPE
from lstmconvert.keras.stores.stored import (
    CLASS_OF_GATES,
    PEEPHOLES,
    ROLES,
    Stored,
    gate_count,
    is_foreign_name,
    is_named_like_a_class,
    not_plain,
    taken_by_arrays,
    taken_by_name,
)
from lstmconvert.keras.stores.v3store import CONTAINERS
from lstmconvert.model.gates import GATES
from lstmconvert.tensorflow.formats.checkpoint import Bundle
from lstmconvert.tensorflow.formats.objectgraph import ROOT, ObjectGraph

_HALVES = ("forward_layer", "backward_layer")
_HALF_SCOPE = re.compile(r"(forward|backward)_\w+")
#: Objects on the way that are lists of layers, or the model itself.
_LISTS = frozenset({"model", "layers", "_layers", "_operations"})
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
        cells_of: dict[int, list[int]] = {}
        for cell, extras in self.strange.items():
            if self.graph.path(cell) is not None:
                left.setdefault(self._owner(cell), []).extend(extras)
                cells_of.setdefault(self._owner(cell), []).append(cell)
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
            name = self._name(owner, cells_of.get(owner, [])) or self.graph.path(owner) or ""
            notes.append(not_plain(name, "", extras))
        return result

    def _doubts(
        self, sketch: LayerSketch, by_cell: Mapping[int, dict[str, Stored]]
    ) -> Iterator[str]:
        for cell, arrays in by_cell.items():
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
        class_name = PEEPHOLE_CELL if has_peepholes else CLASS_OF_GATES[count]
        return CellSketch(self.graph.path(cell) or path, class_name, is_lstm, None, is_separate)

    def _name(self, owner: int, others: Collection[int] = ()) -> str:
        """The layer's name, from the names of its variables: `enc/lstm_cell/kernel` is enc's.

        A variable's name may begin with the model's, which is not part of a layer's: as many parts
        count as there are objects on the way to the layer.
        """
        path = (self.graph.path(owner) or "").split("/")
        depth = len([part for part in path if part not in _LISTS]) or 1
        for _, cells in [*self._halves(owner), ("", others)]:
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


# -- the layers of a model -----------------------------------------------------------------------


#: Variables of TensorFlow 1's optimizers, after the variable that they belong to.
_POWER = re.compile(r"beta[12]_power(_\d+)?")
_SLOT = re.compile(
    rf"(Adam|AdamW|AdaMax|Nadam|LazyAdam|Momentum|RMSProp|Adagrad|Adadelta|Ftrl)(_\d+)?"
    rf"|{_POWER.pattern}"
)
#: Edges that Keras and `tf.train.Checkpoint` give to what training keeps. Below `keras_api` are the
#: metrics of `compile` and the states of stateful layers; it leads to weights, too, but not alone.
_TRAINING_EDGES = frozenset(
    {
        "optimizer",
        "keras_api",
        "save_counter",
        "_random_generator",
        "seed_generator",
    }
)
#: What an optimizer has, under whatever name it hangs: of Keras 2, of TensorFlow 2.11 on, of Keras
#: 3 (keras/src/optimizers/base_optimizer.py).
_OPTIMIZERS = ({"iter", "learning_rate"}, {"_iterations", "_learning_rate"})


def training_keys(
    bundle: Bundle, metrics: Collection[str] = (), model: int = ROOT
) -> set[str]:
    """Return the keys of the variables that are not weights.

    Args:
        bundle: the checkpoint.
        metrics: the paths of objects that are known to be metrics.
        model: the object that is the model; other objects do not hold its weights.
    """
    if bundle.graph is None:
        return {key for key in bundle.tensors if _is_named_so(bundle, key)}
    weights = _weight_keys(bundle.graph, metrics, model)
    return {key for key in bundle.tensors if key in bundle.graph.keys and key not in weights}


def _is_named_so(bundle: Bundle, key: str) -> bool:
    first, _, last = key.rpartition("/")
    if not _SLOT.fullmatch(last):
        return False
    # An optimizer that was made in a scope of its own has that before the variable's name.
    scopes = first.split("/")
    return _POWER.fullmatch(last) is not None or any(
        "/".join(scopes[start:]) in bundle.tensors for start in range(len(scopes))
    )


def _weight_keys(graph: ObjectGraph, metrics: Collection[str], model: int) -> set[str]:
    left_out = {node for path in metrics if (node := graph.find(path)) is not None}
    slots = graph.slots
    seen = {model} if graph.nodes else set()
    waiting = list(seen)
    keys: set[str] = set()
    while waiting:
        at = waiting.pop()
        for attribute in graph.nodes[at].attributes:
            if attribute.key not in slots and not attribute.full_name.endswith(SEED):
                keys.add(attribute.key)
        names = {child.name for child in graph.nodes[at].children}
        # Keras 3's stateful layers have them beside their cell, and nowhere else.
        carried = {"states"} if "cell" in names else set()
        for child in graph.nodes[at].children:
            if child.name in carried:
                continue
            if child.node in seen or child.node in left_out or child.name in _TRAINING_EDGES:
                continue
            seen.add(child.node)
            if not _is_optimizer(graph, child.node):
                waiting.append(child.node)
    return keys


def _is_optimizer(graph: ObjectGraph, at: int) -> bool:
    names = {child.name for child in graph.nodes[at].children}
    return any(has <= names for has in _OPTIMIZERS)


# -- by the graph of objects -------------------------------------------------------------------


_FIRST = "layer-0"
_FUNCTIONAL = "_functional"
_LISTS_OF_LAYERS = ("_operations", "_layers")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
#: A list may have had this many times the objects that it has; with more it is not one of layers.
_SPARSE = 100
#: Attributes of attributes: a dense layer of an attention is one step below it.
_DEPTH = 3


class PlacedModel(NamedTuple):
    """A model in a checkpoint.

    Fields: `keys`: the name of each weight, as above -> its key in the checkpoint; `layers`: the
    name of each layer's group, its config, and its node in the graph of objects, where there is
    one.
    """

    keys: dict[str, str]
    layers: tuple[tuple[str, ConfigNode, int], ...] = ()


def place(root: ConfigNode, bundle: Bundle) -> PlacedModel:
    """Return where the weights of a model are.

    Args:
        root: the model's config.
        bundle: the checkpoint.

    Raises:
        CorruptFile: the graph has no such model.
    """
    start = model_of(bundle)
    if bundle.graph is None or start is None:
        return PlacedModel(_place_by_name(root, bundle))
    placer = _Placer(bundle, bundle.graph)
    placer.model(root, start, "")
    return PlacedModel(placer.keys, tuple(placer.layers))


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
        self.keys: dict[str, str] = {}
        self.layers: list[tuple[str, ConfigNode, int]] = []
        self._steps = 0

    def listed(self, at: int) -> list[int | None]:
        """The layers of a model, None for what was not saved; empty if it is none."""
        children = self._graph.children(at)
        if _FIRST in children:
            return _numbered(children, "layer-")
        if _FUNCTIONAL in children and "_layers" not in children:
            return self.listed(children[_FUNCTIONAL])
        lists = [children[name] for name in _LISTS_OF_LAYERS if name in children]
        return _numbered(self._graph.children(lists[0]), "") if lists else []

    def model(self, item: ConfigNode, at: int, group: str) -> None:
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
            layer_node = by_layer.get(id(child.whole))
            if layer_node is not None:
                self._layer(child, layer_node, below)

    def _nodes(self, item: ConfigNode, at: int, every: list[Json]) -> list[int | None]:
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
        self, model: ConfigNode, every: list[Json], listed: list[int | None]
    ) -> list[int | None]:
        """Return the node of each layer: that whose variables begin with the layer's name, or with
        the model's and then the layer's."""
        nodes: dict[str, int] = {}
        for at in filter(None, listed):  # the root is not a layer
            for name in self._variable_names(at):
                first, _, rest = name.partition("/")
                first = rest.partition("/")[0] if first == model.name and "/" in rest else first
                nodes.setdefault(first, at)
        return [nodes.get(node(value, model.name).name) for value in every]

    def _variable_names(self, at: int) -> Iterator[str]:
        for _, below in self._below(at):
            yield from (attribute.full_name for attribute in self._graph.nodes[below].attributes)

    def _below(self, at: int, *, as_named: bool = False) -> Iterator[tuple[str, int]]:
        """Yield `(path, node)` of what hangs on a layer, the nearest first, each once; attributes
        without the _ that private ones begin with, or `as_named`."""
        seen, waiting = {at}, deque([("", at, 0)])
        while waiting:
            above, parent, depth = waiting.popleft()
            for name, child in self._graph.children(parent).items():
                self._steps += 1
                if child in seen or name in BOOKKEEPING:
                    continue
                seen.add(child)
                path = f"{above}/{name if as_named else name.lstrip('_')}"
                yield path, child
                if depth < _DEPTH:
                    waiting.append((path, child, depth + 1))
        limits.PROTOBUF_MESSAGES.check(self._steps, self._bundle.path, "the edges below the layers")

    def _layer(self, item: ConfigNode, at: int, group: str) -> None:
        self.layers.append((group, item, at))
        if item.is_model:
            self.model(item, at, group)
            return
        parts = dict(_parts(item))
        for edge, below in parts.items():
            self._part(below, at, edge, f"{group}/{edge}")
        if item.class_name == STACKED:
            self._cells(item, at, group)
        elif not parts:
            as_named = item.custom or item.class_name not in {*CLASSES, *UNCROSSED}
            self._weights(at, group, as_named=as_named)

    def _part(self, item: ConfigNode, at: int, edge: str, group: str) -> None:
        child = self._graph.children(at).get(edge)
        if child is not None:
            self._layer(item, child, group)

    def _cells(self, item: ConfigNode, at: int, group: str) -> None:
        cells = self._graph.children(at).get("cells")
        for index, (cell, leaf) in enumerate(cell_groups(item)):
            if cells is not None:
                self._part(cell, cells, str(index), f"{group}/cells/{leaf}")

    def _weights(self, at: int, group: str, *, as_named: bool) -> None:
        for path, below in self._below(at, as_named=as_named):
            key = self._key(below)
            if key is not None:
                self.keys.setdefault(f"{group}{path}", key)

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


def _starts_with_input(model: ConfigNode) -> bool:
    first = next(iter(model.listed("layers")), None)
    is_input = isinstance(first, dict) and first.get("class_name") == "InputLayer"
    return is_input and model.class_name == "Sequential"


def _parts(item: ConfigNode) -> Iterator[tuple[str, ConfigNode]]:
    """Yield the attribute and the config of each layer inside a wrapper."""
    inner = item.child("layer")
    if item.class_name == "PruneLowMagnitude" and inner:  # of model-optimization
        yield "layer", inner
    if item.custom:
        return
    if item.class_name == "TimeDistributed" and inner:
        yield "layer", inner
    elif item.class_name == "Bidirectional" and inner:
        yield "forward_layer", inner
        yield "backward_layer", item.child("backward_layer") or mirrored(inner)
    elif item.class_name == "RNN" and (cell := item.child("cell")):
        yield "cell", cell


# -- by the variables' own names ---------------------------------------------------------------


_VARIABLE_LIST = "variables/"
_PREFIXES = ("forward_", "backward_")


#: Scope below a layer -> (role, key) of the variables in it.
_Scopes = dict[tuple[str, ...], list[tuple[str, str]]]


class _Variable(NamedTuple):
    parts: tuple[str, ...]
    key: str


def _place_by_name(root: ConfigNode, bundle: Bundle) -> dict[str, str]:
    """Return the name of each weight of a model, as `placing.place` does.

    Raises:
        CorruptFile: the names are not those of the config's layers.
    """
    placer = _NamePlacer(list(_variables(bundle)), bundle)
    placer.model(root, "", frozenset())
    return placer.keys


def _variables(bundle: Bundle) -> Iterator[_Variable]:
    """Yield the variables: in the order of the list, or of TensorFlow 1's, as a model has them."""
    if bundle.graph is None:
        for key in sorted(bundle.tensors.keys() - training_keys(bundle), key=forward_first):
            yield _Variable(tuple(key.split("/")), key)
        return
    names = {
        key: name
        for name, key in full_names(bundle)
        if key.startswith(_VARIABLE_LIST) and not name.endswith(SEED)
    }
    for key in sorted(names, key=natural):
        yield _Variable(tuple(names[key].split("/")), key)


def forward_first(path: str) -> list[tuple[object, bool]]:
    """A sort key for paths: `lstm_2` before `lstm_10`, a forward half before the backward one."""
    return [
        (
            natural(part.removeprefix(_PREFIXES[0]).removeprefix(_PREFIXES[1])),
            part[:9] == _PREFIXES[1],
        )
        for part in path.split("/")
    ]


class _NamePlacer:
    def __init__(self, variables: list[_Variable], bundle: Bundle) -> None:
        self._bundle = bundle
        self._having: dict[str, list[_Variable]] = {}
        for variable in variables:
            for part in set(variable.parts):
                self._having.setdefault(part, []).append(variable)
        self._given: dict[tuple[str, ...], int] = {}
        self.keys: dict[str, str] = {}

    def model(self, item: ConfigNode, group: str, outer: Collection[str]) -> None:
        """Place the layers of a model; `outer` are the names that may precede theirs."""
        names = {*outer, item.name}
        for child, below in layer_groups(item, group, CONTAINERS[0], ()):
            inner = child.child("layer") if child.class_name == "TimeDistributed" else None
            if child.is_model:
                self.model(child, below, names)
            elif inner is not None and inner.is_model:
                self.model(inner, f"{below}/layer", {*names, child.name})
            else:
                self._layer(child, below, names)

    def _layer(self, item: ConfigNode, group: str, outer: Collection[str]) -> None:
        variables = self._variables_of(item.name, outer)
        scopes: _Scopes = {}
        for rest, key in variables:
            scopes.setdefault(rest[:-1], []).append((rest[-1], key))
        for below, weights in self._paired(item, scopes, list(_named_parts(item, group))):
            self.keys.update({f"{below}/{role}": key for role, key in weights})

    def _paired(
        self, item: ConfigNode, scopes: _Scopes, parts: list[tuple[str, str]]
    ) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Pair the parts of a layer with the scopes of its variables: by name, else in order."""
        by_leaf = {scope[-1] if scope else "": weights for scope, weights in scopes.items()}
        if len(by_leaf) == len(parts) and {name for _, name in parts} == set(by_leaf):
            return ((group, by_leaf[name]) for group, name in parts)
        # TensorFlow 1 has no order; that of two halves is in their names.
        are_halves = item.class_name == "Bidirectional" and len(parts) == len(_PREFIXES)
        is_known = self._bundle.graph is not None or are_halves
        if scopes and (len(scopes) != len(parts) or (len(parts) > 1 and not is_known)):
            raise CorruptFile(
                "the config and the names of the variables disagree",
                where=f"{self._bundle.path}: {item.name}",
                found=", ".join("/".join(scope) or "." for scope in scopes),
                expected=", ".join(name for _, name in parts),
            )
        return ((group, w) for (group, _), w in zip(parts, scopes.values(), strict=False))

    def _variables_of(self, name: str, outer: Collection[str]) -> list[_Variable]:
        """The variables of a layer, each with the part of its name after the layer's."""
        runs: list[dict[tuple[str, ...], _Variable]] = [{}]
        for parts, key in self._having.get(name, ()):
            at = next((i for i, part in enumerate(parts) if part not in outer), len(parts))
            starts = [i for i in range(at + 1) if parts[i : i + 1] == (name,)]
            if not starts or starts[-1] == len(parts) - 1:
                continue
            if parts in runs[-1]:  # several models have a layer of that name
                runs.append({})
            runs[-1][parts] = _Variable(parts[starts[-1] + 1 :], key)
        same = tuple(variable.key for run in runs for variable in run.values())
        index = self._given[same] = self._given.get(same, -1) + 1
        return list(runs[index].values()) if index < len(runs) else []


def _named_parts(item: ConfigNode, group: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a layer that have weights, each its group and the name of the object, in
    the order they are made."""
    inner = item.child("layer")
    name = item.class_name
    if name == "TimeDistributed" and inner:
        yield from _named_parts(inner, f"{group}/layer")
    elif name == "Bidirectional" and inner:
        yield from _named_parts(inner, f"{group}/forward_layer")
        backward = item.child("backward_layer") or mirrored(inner)
        yield from _named_parts(backward, f"{group}/backward_layer")
    elif name == "RNN" and (cell := item.child("cell")):
        yield from _named_parts(cell, f"{group}/cell")
    elif name == STACKED:
        for cell, leaf in cell_groups(item):
            yield from _named_parts(cell, f"{group}/cells/{leaf}")
    elif name in {*RECURRENT, *IN_A_CELL} and not name.startswith("CuDNN"):
        yield f"{group}/cell", "cell"
    elif name in CLASSES and CLASSES[name].parts:
        yield from ((f"{group}/{part}", part) for part in CLASSES[name].parts)
    else:
        yield group, item.name
