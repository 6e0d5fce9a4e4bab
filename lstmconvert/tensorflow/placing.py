"""Where the weights of a model's layers are in a checkpoint, and which variables are not weights.

By the graph of objects of TensorFlow 2: a model has an edge to each of its layers, in the order of
its config: `layer-0`, `layer-1`, … in Keras 2 (tf_keras/src/engine/functional.py,
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
from typing import NamedTuple

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.configs.nodes import RECURRENT, Node, node
from lstmconvert.keras.configs.sketch import STACKED, cell_groups, layer_groups, mirrored, natural
from lstmconvert.keras.modern.classes import CLASSES, IN_A_CELL, UNCROSSED
from lstmconvert.keras.stores.v3store import CONTAINERS
from lstmconvert.tensorflow import objects
from lstmconvert.tensorflow.formats.bundle import Bundle
from lstmconvert.tensorflow.formats.objectgraph import ROOT, ObjectGraph

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
            if attribute.key not in slots and not attribute.full_name.endswith(objects.SEED):
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
_LISTS = ("_operations", "_layers")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
#: So many times as many objects may a list have had as it has: a million would be no list of ours.
_SPARSE = 100
#: Attributes of attributes: a dense layer of an attention is one step below it.
_DEPTH = 3


class Placed(NamedTuple):
    """A model in a checkpoint.

    Fields: `keys`: the name of each weight, as above -> its key in the checkpoint; `layers`: the
    name of each layer's group, its config, and its node in the graph of objects, where there is
    one.
    """

    keys: dict[str, str]
    layers: tuple[tuple[str, Node, int], ...] = ()


def place(root: Node, bundle: Bundle) -> Placed:
    """Return where the weights of a model are.

    Args:
        root: the model's config.
        bundle: the checkpoint.

    Raises:
        CorruptFile: the graph has no such model.
    """
    start = model_of(bundle)
    if bundle.graph is None or start is None:
        return Placed(_place_by_name(root, bundle))
    placer = _Placer(bundle, bundle.graph)
    placer.model(root, start, "")
    return Placed(placer.keys, tuple(placer.layers))


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
        self.layers: list[tuple[str, Node, int]] = []
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
            layer_node = by_layer.get(id(child.whole))
            if layer_node is not None:
                self._layer(child, layer_node, below)

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
                if child in seen or name in objects.BOOKKEEPING:
                    continue
                seen.add(child)
                path = f"{above}/{name if as_named else name.lstrip('_')}"
                yield path, child
                if depth < _DEPTH:
                    waiting.append((path, child, depth + 1))
        limits.PROTOBUF_MESSAGES.check(self._steps, self._bundle.path, "the edges below the layers")

    def _layer(self, item: Node, at: int, group: str) -> None:
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

    def _part(self, item: Node, at: int, edge: str, group: str) -> None:
        child = self._graph.children(at).get(edge)
        if child is not None:
            self._layer(item, child, group)

    def _cells(self, item: Node, at: int, group: str) -> None:
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


def _starts_with_input(model: Node) -> bool:
    first = next(iter(model.listed("layers")), None)
    is_input = isinstance(first, dict) and first.get("class_name") == "InputLayer"
    return is_input and model.class_name == "Sequential"


def _parts(item: Node) -> Iterator[tuple[str, Node]]:
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
_HALVES = ("forward_", "backward_")


#: Scope below a layer -> (role, key) of the variables in it.
_Scopes = dict[tuple[str, ...], list[tuple[str, str]]]


class _Variable(NamedTuple):
    parts: tuple[str, ...]
    key: str


def _place_by_name(root: Node, bundle: Bundle) -> dict[str, str]:
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
        for name, key in objects.full_names(bundle)
        if key.startswith(_VARIABLE_LIST) and not name.endswith(objects.SEED)
    }
    for key in sorted(names, key=natural):
        yield _Variable(tuple(names[key].split("/")), key)


def forward_first(path: str) -> list[tuple[object, bool]]:
    """A sort key for paths: `lstm_2` before `lstm_10`, a forward half before the backward one."""
    return [
        (natural(part.removeprefix(_HALVES[0]).removeprefix(_HALVES[1])), part[:9] == _HALVES[1])
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

    def model(self, item: Node, group: str, outer: Collection[str]) -> None:
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

    def _layer(self, item: Node, group: str, outer: Collection[str]) -> None:
        variables = self._variables_of(item.name, outer)
        scopes: _Scopes = {}
        for rest, key in variables:
            scopes.setdefault(rest[:-1], []).append((rest[-1], key))
        for below, weights in self._paired(item, scopes, list(_named_parts(item, group))):
            self.keys.update({f"{below}/{role}": key for role, key in weights})

    def _paired(
        self, item: Node, scopes: _Scopes, parts: list[tuple[str, str]]
    ) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Pair the parts of a layer with the scopes of its variables: by name, else in order."""
        by_leaf = {scope[-1] if scope else "": weights for scope, weights in scopes.items()}
        if len(by_leaf) == len(parts) and {name for _, name in parts} == set(by_leaf):
            return ((group, by_leaf[name]) for group, name in parts)
        # TensorFlow 1 has no order; that of two halves is in their names.
        are_halves = item.class_name == "Bidirectional" and len(parts) == len(_HALVES)
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


def _named_parts(item: Node, group: str) -> Iterator[tuple[str, str]]:
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
