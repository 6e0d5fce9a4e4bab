"""The weight store of Keras 3 (and of Keras 2.12 to 2.15): `layers/lstm/cell/vars/0`."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import field
from functools import cached_property

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.stored import Stored
from lstmconvert.keras.tree import Tree
from lstmconvert.records import dataclass
from lstmconvert.tensors import Tensor

#: `0`, `1`, …, and not `00`, which would be a second 0.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")

OPTIMIZER = "optimizer"
#: Groups that hold a model's layers: today's, and that of Keras 2.12 to 2.14.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


@dataclass(frozen=True)
class V3Store:
    """A v3 store by group.

    Fields: `tensors`: full path -> tensor; `vars`: group -> its arrays in order (`""` is the root);
    `names`: group -> the `name` attribute of its `vars` group (Keras 3.6 and later); `groups`: the
    path of every group.
    """

    tensors: dict[str, Tensor]
    vars: dict[str, list[Stored]] = field(default_factory=dict)
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

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        result: dict[str, list[str]] = {"": list(self.vars)}
        for name in self.vars:
            path = name
            while path:
                result.setdefault(path, []).append(name)
                path = path.rpartition("/")[0]
        return result


def is_v3(tree: Tree) -> bool:
    """Whether a tree is a v3 store: arrays lie in groups called `vars`, and no group is legacy."""
    return any("/vars/" in f"/{path}" for path in tree.tensors) or (
        not tree.tensors and any(map(is_vars, tree.groups))
    )


def is_vars(path: str) -> bool:
    """Whether a group is one that holds a layer's arrays."""
    return path == "vars" or path.endswith("/vars")


def read_store(tree: Tree, where: object) -> V3Store:
    """Sort a tree into groups of arrays.

    Raises:
        CorruptFile: an array lies outside any `vars` group's 0, 1, 2, ….
    """
    numbered: dict[str, dict[int, Stored]] = defaultdict(dict)
    for path, tensor in tree.tensors.items():
        group, _, leaf = path.rpartition("/")
        if is_vars(group):
            if not _NUMBER.fullmatch(leaf):
                continue  # a layer that names its own variables: carried, not interpreted
            numbered[group[: -len("vars")].rstrip("/")][int(leaf)] = Stored(path, tensor)
    result = {}
    for group, arrays in numbered.items():
        if sorted(arrays) != list(range(len(arrays))):
            raise CorruptFile(
                "an array of a layer is missing",
                where=f"{where}: {group}/vars",
                found=", ".join(map(str, sorted(arrays))),
            )
        result[group] = [arrays[index] for index in range(len(arrays))]
    return V3Store(dict(tree.tensors), result, _names(tree), tree.groups)


def _names(tree: Tree) -> dict[str, str]:
    names = {}
    for path, attributes in tree.attributes.items():
        name = attributes.get("name")
        if isinstance(name, str) and is_vars(path):
            names[path[: -len("vars")].rstrip("/")] = name
    return names
