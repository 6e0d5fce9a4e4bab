"""Models in whose layers model-optimization put pruning wrappers, read as what is in these.

`PruneLowMagnitude` around a layer holds that layer, and for each pruned weight a mask and a
threshold, and one counter of steps: `prune_low_magnitude_dense/mask:0`, `…/threshold:0`,
`…/pruning_step:0`. In a v3 store these are numbered in the wrapper's group, and the layer is in the
group `layer` there. The weights themselves are stored with their zeros, and a layer computes with
them as they are; `strip_pruning` of that package leaves the same layers
(tensorflow_model_optimization/python/core/sparsity/keras/pruning_wrapper.py and prune.py of 0.8.1).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.keras.configs.nodes import ConfigNode, node
from lstmconvert.keras.configs.sketch import layer_groups
from lstmconvert.keras.stores import legacy, v3store

_WRAPPER = "PruneLowMagnitude"
_COUNTERS = re.compile(r"(?:.*/)?(?:mask|threshold|pruning_step)(?:_\d+)?(?::\d+)?")
#: What an object's config says of its class.
_OF_CLASS = ("module", "class_name", "config", "registered_name", "build_config")
_LISTS = re.compile(r"weight_names\d*")


class Unwrapped(NamedTuple):
    """A config without its wrappers.

    Fields: `text`; `names` of the wrappers, which the layers in them now have; `groups`: of a v3
    store, a layer's group with wrappers -> without; `wrappers`: the groups of those.
    """

    text: str
    names: list[str]
    groups: Mapping[str, str]
    wrappers: frozenset[str]

    def moved(self, path: str) -> str | None:
        """Return where a path of a v3 store lies without wrappers; None if it is one's own."""
        steps = path.split("/")
        for count in range(len(steps), 0, -1):
            above = "/".join(steps[:count])
            if above in self.groups:
                return "/".join([self.groups[above], *steps[count:]])
            if above in self.wrappers:
                return None if count < len(steps) else path
        return path

    def is_own(self, name: str, *scopes: str) -> bool:
        """Whether a variable's name is that of a mask, threshold or counter of a wrapper."""
        known = {*name.split("/")[:-1], *scopes}
        return _COUNTERS.fullmatch(name) is not None and not known.isdisjoint(self.names)

    def note(self, left_out: int) -> str:
        """Return what the user should know."""
        names = self.names
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return (
            f"pruning wrappers of model-optimization are taken away from {shown}: the weights stay "
            f"as they are pruned, and {left_out} masks, thresholds and counters are left out"
        )


def unwrapped(
    text: str, container: str = v3store.CONTAINERS[0], groups: Collection[str] = ()
) -> Unwrapped | None:
    """Return a config without the wrappers in it; None if it has none, or one in another wrapper.

    Args:
        text: the model's config.
        container: the group of a v3 store that holds a model's layers.
        groups: of the store, as far as they are known.
    """
    value = parse(text, "model_config")
    names: list[str] = []
    without = _without(value, names)
    places: dict[str, str] = {}
    wrappers: set[str] = set()

    def compare(old: ConfigNode, new: ConfigNode, group: str, today: str) -> None:
        before = layer_groups(old, group, container, groups)
        after = layer_groups(new, today, container, ())
        for (item, where), (left, target) in zip(before, after, strict=True):
            if item.class_name == _WRAPPER:
                wrappers.add(where)
                places[f"{where}/layer"] = target
                continue
            places[where] = target
            if item.is_model:
                compare(item, left, where, target)

    if names:
        compare(node(value, "model_config"), node(without, "model_config"), "", "")
    if not names or len(wrappers) != len(names):
        return None
    return Unwrapped(canonical(without), names, places, frozenset(wrappers))


def stripped(text: str, tree: StoredTree) -> tuple[str, StoredTree, tuple[str, ...]] | None:
    """Return a config and a weight store without the wrappers, and notes for the user.

    The layers keep the wrappers' names, by which the file's groups and calls know them.

    Args:
        text: the model's config.
        tree: the whole file.

    Returns:
        None if no layer is wrapped.
    """
    if not legacy.is_legacy(tree):
        return _of_v3(text, tree)
    names: list[str] = []
    config = canonical(_without(parse(text, "model_config"), names))
    if not names:
        return None
    without = Unwrapped(config, names, {}, frozenset())
    root = legacy.ROOT if legacy.ROOT in tree.groups else ""
    attributes, tensors = dict(tree.attributes), dict(tree.tensors)
    gone: list[str] = []
    for path, listed in tree.attributes.items():
        # A nested model's group lists the weights of all its layers.
        if not path.startswith(root):
            continue
        kept: dict[str, str | list[str]] = dict(listed)
        for key in filter(_LISTS.fullmatch, listed):
            weights = listed[key]
            weights = [weights] if isinstance(weights, str) else list(weights)
            leaf = path.rpartition("/")[2]
            of_wrappers = [name for name in weights if without.is_own(name, leaf)]
            gone += [f"{path}/{name}" for name in of_wrappers]
            kept[key] = [name for name in weights if name not in of_wrappers]
        attributes[path] = kept
    for path in gone:
        tensors.pop(path, None)
    return config, tree._replace(attributes=attributes, tensors=tensors), (without.note(len(gone)),)


def _of_v3(text: str, tree: StoredTree) -> tuple[str, StoredTree, tuple[str, ...]] | None:
    tops = {path.partition("/")[0] for path in tree.groups}
    container = next((name for name in v3store.CONTAINERS if name in tops), v3store.CONTAINERS[0])
    without = unwrapped(text, container, frozenset(tree.groups))
    if without is None:
        return None
    tensors = {new: tensor for path, tensor in tree.tensors.items() if (new := without.moved(path))}
    attributes = {
        new: value for path, value in tree.attributes.items()
        if (new := without.moved(path)) is not None
    }
    groups = frozenset(new for path in tree.groups if (new := without.moved(path)) is not None)
    note = without.note(len(tree.tensors) - len(tensors))
    changed = tree._replace(attributes=attributes, tensors=tensors, groups=groups)
    return without.text, changed, (note,)


def _without(value: Json, names: list[str]) -> Json:
    if isinstance(value, list):
        return [_without(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    config = value.get("config")
    config = config if isinstance(config, dict) else {}
    inner = config.get("layer") if value.get("class_name") == _WRAPPER else None
    if not isinstance(inner, dict) or not isinstance(inner.get("config"), dict):
        return {key: _without(item, names) for key, item in value.items()}
    name = config.get("name", value.get("name"))
    names.append(str(name))
    shape = {key: config[key] for key in ("batch_input_shape",) if key in config}
    around: JsonObject = {k: v for k, v in value.items() if k not in _OF_CLASS}
    around.update((k, v) for k, v in inner.items() if k in _OF_CLASS)
    layer = {**shape, **inner["config"], "name": name}
    return {**around, "config": _without(layer, names)}
