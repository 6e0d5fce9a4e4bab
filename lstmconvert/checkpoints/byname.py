"""The weights of a whole model by the variables' own names, where no edge leads to a layer.

Keras 3's `export` keeps a list of variables, TensorFlow 1's Saver a table by name. A name is a
path of objects: `stack/time_distributed/dense/kernel`. Before the layer's own name may stand those
of the models around it; between that and the role, those of cells, halves and wrapped layers, which
the config has in the order in which they were made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from lstmconvert.checkpoints import objects
from lstmconvert.checkpoints.state import SEED, training_keys
from lstmconvert.errors import CorruptFile
from lstmconvert.keras.modern.classes import CLASSES, IN_A_CELL
from lstmconvert.keras.nodes import RECURRENT, Node
from lstmconvert.keras.sketch import STACKED, cell_groups, layer_groups, mirrored, natural
from lstmconvert.keras.v3store import CONTAINERS
from lstmconvert.tensorflow.bundle import Bundle

_LIST = "variables/"
_HALVES = ("forward_", "backward_")


#: Scope below a layer -> (role, key) of the variables in it.
_Scopes = dict[tuple[str, ...], list[tuple[str, str]]]


class _Variable(NamedTuple):
    parts: tuple[str, ...]
    key: str


def place(root: Node, bundle: Bundle) -> dict[str, str]:
    """Return the name of each weight of a model, as `placing.place` does.

    Raises:
        CorruptFile: the names are not those of the config's layers.
    """
    placer = _Placer(list(_variables(bundle)), bundle)
    placer.model(root, "", frozenset())
    return placer.found


def _variables(bundle: Bundle) -> Iterator[_Variable]:
    """Yield the variables: in the order of the list, or of TensorFlow 1's, as a model has them."""
    if bundle.graph is None:
        for key in sorted(bundle.tensors.keys() - training_keys(bundle), key=forward_first):
            yield _Variable(tuple(key.split("/")), key)
        return
    names = {
        key: name
        for name, key in objects.full_names(bundle)
        if key.startswith(_LIST) and not name.endswith(SEED)
    }
    for key in sorted(names, key=natural):
        yield _Variable(tuple(names[key].split("/")), key)


def forward_first(path: str) -> list[tuple[object, bool]]:
    """A sort key for paths: `lstm_2` before `lstm_10`, a forward half before the backward one."""
    return [
        (natural(part.removeprefix(_HALVES[0]).removeprefix(_HALVES[1])), part[:9] == _HALVES[1])
        for part in path.split("/")
    ]


class _Placer:
    def __init__(self, variables: list[_Variable], bundle: Bundle) -> None:
        self._bundle = bundle
        self._having: dict[str, list[_Variable]] = {}
        for one in variables:
            for part in set(one.parts):
                self._having.setdefault(part, []).append(one)
        self._given: dict[tuple[str, ...], int] = {}
        self.found: dict[str, str] = {}

    def model(self, item: Node, group: str, outer: Collection[str]) -> None:
        """Place the layers of a model; `outer` are the names that may stand before theirs."""
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
        own = self._own(item.name, outer)
        scopes: _Scopes = {}
        for rest, key in own:
            scopes.setdefault(rest[:-1], []).append((rest[-1], key))
        for below, weights in self._paired(item, scopes, list(_parts(item, group))):
            self.found.update({f"{below}/{role}": key for role, key in weights})

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

    def _own(self, name: str, outer: Collection[str]) -> list[_Variable]:
        """The variables of a layer, each with what follows the layer's name in its own."""
        runs: list[dict[tuple[str, ...], _Variable]] = [{}]
        for parts, key in self._having.get(name, ()):
            at = next((i for i, part in enumerate(parts) if part not in outer), len(parts))
            starts = [i for i in range(at + 1) if parts[i : i + 1] == (name,)]
            if not starts or starts[-1] == len(parts) - 1:
                continue
            if parts in runs[-1]:  # several models have a layer of that name
                runs.append({})
            runs[-1][parts] = _Variable(parts[starts[-1] + 1 :], key)
        same = tuple(one.key for run in runs for one in run.values())
        index = self._given[same] = self._given.get(same, -1) + 1
        return list(runs[index].values()) if index < len(runs) else []


def _parts(item: Node, group: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a layer that have weights, each its group and the name of the object, in
    the order they are made."""
    inner = item.child("layer")
    name = item.class_name
    if name == "TimeDistributed" and inner:
        yield from _parts(inner, f"{group}/layer")
    elif name == "Bidirectional" and inner:
        yield from _parts(inner, f"{group}/forward_layer")
        backward = item.child("backward_layer") or mirrored(inner)
        yield from _parts(backward, f"{group}/backward_layer")
    elif name == "RNN" and (cell := item.child("cell")):
        yield from _parts(cell, f"{group}/cell")
    elif name == STACKED:
        for cell, leaf in cell_groups(item):
            yield from _parts(cell, f"{group}/cells/{leaf}")
    elif name in {*RECURRENT, *IN_A_CELL} and not name.startswith("CuDNN"):
        yield f"{group}/cell", "cell"
    elif name in CLASSES and CLASSES[name].parts:
        yield from ((f"{group}/{part}", part) for part in CLASSES[name].parts)
    else:
        yield group, item.name
