"""The weight store of Keras 3 (and of Keras 2.12 to 2.15): `layers/lstm/cell/vars/0`.

On Windows, Keras 2.12 to 2.15 joined the names with its own separator: `layers\\lstm\\cell/vars/0`
(keras/saving/saving_lib.py, `tf.io.gfile.join`). No Keras finds those groups elsewhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from lstmconvert.errors import CorruptFile
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.keras.stores.stored import Stored
from lstmconvert.tensors.tensor import Tensor

#: `0`, `1`, …, and not `00`, which would be a second 0.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")

OPTIMIZER = "optimizer"
#: The group of a random generator's state (keras/src/random/seed_generator.py): no weight.
SEED_GENERATOR = "seed_generator"
#: Groups that hold a model's layers: today's, and that of Keras 2.12 to 2.14.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


@dataclass(frozen=True, eq=False)
class V3Store:
    """A v3 store by group.

    Fields: `tensors`: full path -> tensor; `vars`: group -> its arrays in order (`""` is the root);
    `named`: group -> its arrays that have names in place of numbers; `names`: group -> the `name`
    attribute of its `vars` group (Keras 3.6 and later); `groups`: the path of every group.
    """

    tensors: Mapping[str, Tensor]
    vars: dict[str, list[Stored]] = field(default_factory=dict)
    named: dict[str, list[Stored]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()

    @property
    def container(self) -> str:
        """The name of the group that holds the model's layers."""
        roots = {path.partition("/")[0] for path in self.tensors}
        return next((name for name in CONTAINERS if name in roots), CONTAINERS[0])

    @cached_property
    def own_names(self) -> frozenset[str]:
        """The layers' own names, as far as they are stored."""
        return frozenset(self.names.values())

    def below(self, group: str) -> list[str]:
        """Return the groups with arrays at or below a group, in order."""
        return self._below.get(group, [])

    def arrays_below(self, group: str) -> list[Stored]:
        """Return the arrays at or below a group, without the states of its random generators."""
        holders = ((self.vars, self._below), (self.named, self._named_below))
        return [
            stored
            for arrays, index in holders
            for name in index.get(group, [])
            if name.rpartition("/")[2] != SEED_GENERATOR
            for stored in arrays[name]
        ]

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        return _by_group(self.vars)

    @cached_property
    def _named_below(self) -> dict[str, list[str]]:
        return _by_group(self.named)


def _by_group(groups: Iterable[str]) -> dict[str, list[str]]:
    """Return group -> those of `groups` that are at or below it."""
    result: dict[str, list[str]] = {"": list(groups)}
    for name in groups:
        path = name
        while path:
            result.setdefault(path, []).append(name)
            path = path.rpartition("/")[0]
    return result


def is_v3(tree: StoredTree) -> bool:
    """Whether a tree is a v3 store: arrays are in groups called `vars`, and no group is legacy."""
    return any("/vars/" in f"/{path}" for path in tree.tensors) or (
        not tree.tensors and any(holder(path) is not None for path in tree.groups)
    )


def of_windows(tree: StoredTree, where: object) -> StoredTree | None:
    """Return a store that Keras wrote on Windows with its groups as every other system has them;
    None if the store has another form.

    Raises:
        CorruptFile: two of its arrays would have one path.
    """
    starts = tuple(f"{name}\\" for name in CONTAINERS)
    backslashed = [path for path in tree.groups if "\\" in path]  # as in hardly any store
    if not any(path.startswith(starts) for path in backslashed):
        return None
    paths = {path: path.replace("\\", "/") for path in (*tree.tensors, *tree.groups)}
    tensors = {paths[path]: tensor for path, tensor in tree.tensors.items()}
    if len(tensors) != len(tree.tensors):
        raise CorruptFile("two arrays of one path, written on Windows and elsewhere", where=where)
    groups = set(paths.values()) - tensors.keys()
    for path in list(groups):
        while path := path.rpartition("/")[0]:
            groups.add(path)
    attributes = {paths.get(path, path): known for path, known in tree.attributes.items()}
    return StoredTree(tensors, attributes, frozenset(groups))


def holder(path: str) -> str | None:
    """Return the group of which another, called `vars`, holds the arrays; None of other groups."""
    if path == "vars" or path.endswith("/vars"):
        return path[:-4].rstrip("/")
    return None


@lru_cache(64)
def _number(name: str) -> int | None:
    """Return the number that is an array's name; None of another name."""
    return int(name) if _NUMBER.fullmatch(name) else None


def read_store(tree: StoredTree, where: object) -> V3Store:
    """Sort a tree into groups of arrays.

    Raises:
        CorruptFile: an array is outside any `vars` group's 0, 1, 2, ….
    """
    numbered: dict[str, dict[int, Stored]] = defaultdict(dict)
    named: dict[str, list[Stored]] = defaultdict(list)
    known, group = None, None
    for path, tensor in tree.tensors.items():
        parent, _, leaf = path.rpartition("/")
        if parent != known:  # those of a group follow one another
            known, group = parent, holder(parent)
        if group is None:
            continue
        number = _number(leaf)
        if number is not None:
            numbered[group][number] = Stored(path, tensor)
        else:  # a layer that names its own variables: carried, not interpreted
            named[group].append(Stored(path, tensor))
    result = {}
    for group, arrays in numbered.items():
        try:
            result[group] = [arrays[index] for index in range(len(arrays))]
        except KeyError:
            raise CorruptFile(
                "an array of a layer is missing",
                where=f"{where}: {group}/vars",
                found=", ".join(map(str, sorted(arrays))),
            ) from None
    return V3Store(
        tensors=tree.tensors,
        vars=result,
        named=dict(named),
        names=_names(tree),
        groups=tree.groups,
    )


def _names(tree: StoredTree) -> dict[str, str]:
    names = {}
    for path, attributes in tree.attributes.items():
        name = attributes.get("name")
        if isinstance(name, str) and (group := holder(path)) is not None:
            names[group] = name
    return names
