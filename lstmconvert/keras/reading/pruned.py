"""Models in whose layers model-optimization put pruning wrappers, read as what is in these.

`PruneLowMagnitude` around a layer holds that layer, and for each pruned weight a mask and a
threshold, and one counter of steps: `prune_low_magnitude_dense/mask:0`, `…/threshold:0`,
`…/pruning_step:0`. The weights themselves are stored with their zeros, and a layer computes with
them as they are; `strip_pruning` of that package leaves the same layers
(tensorflow_model_optimization/python/core/sparsity/keras/pruning_wrapper.py and prune.py of 0.8.1).
"""

from __future__ import annotations

import re

from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse
from lstmconvert.hdf5.reading import Tree
from lstmconvert.keras.stores import legacy

_WRAPPER = "PruneLowMagnitude"
_COUNTERS = re.compile(r"(?:.*/)?(?:mask|threshold|pruning_step)(?:_\d+)?(?::\d+)?")
_LISTS = re.compile(r"weight_names\d*")


def stripped(text: str, tree: Tree) -> tuple[str, Tree, tuple[str, ...]] | None:
    """Return a config and a legacy store without the wrappers, and notes for the user.

    The layers keep the wrappers' names, by which the file's groups and calls know them.

    Args:
        text: the model's config.
        tree: the whole file.

    Returns:
        None if no layer is wrapped, or the store is of another kind.
    """
    if not legacy.is_legacy(tree):
        return None
    names: list[str] = []
    config = canonical(_without(parse(text, "model_config"), names))
    if not names:
        return None
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
            of_wrappers = [name for name in weights if _is_own(name, path, names)]
            gone += [f"{path}/{name}" for name in of_wrappers]
            kept[key] = [name for name in weights if name not in of_wrappers]
        attributes[path] = kept
    for path in gone:
        tensors.pop(path, None)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    note = (
        f"pruning wrappers of model-optimization are taken away from {shown}: the weights stay as "
        f"they are pruned, and {len(gone)} masks, thresholds and counters are left out"
    )
    return config, tree._replace(attributes=attributes, tensors=tensors), (note,)


def _is_own(name: str, path: str, wrappers: list[str]) -> bool:
    scopes = {*name.split("/")[:-1], path.rpartition("/")[2]}
    return _COUNTERS.fullmatch(name) is not None and not scopes.isdisjoint(wrappers)


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
    around: JsonObject = {k: v for k, v in value.items() if k not in ("class_name", "config")}
    layer = {**shape, **inner["config"], "name": name}
    return {**around, "class_name": inner.get("class_name"), "config": _without(layer, names)}
