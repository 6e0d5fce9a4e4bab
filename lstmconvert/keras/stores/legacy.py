"""The weight store of legacy HDF5: `layer_names` and `weight_names`, in every spelling.

    model_weights/                     attrs layer_names, backend, keras_version (whole model)
      <layer>/                         attr weight_names, in the order of the layer's weights
        <weight name>                  a dataset, at the path that its name spells

A weights-only file has the same without `model_weights`. Lists too long for an attribute are cut
into `weight_names0`, `weight_names1`, … (keras/src/legacy/saving/legacy_h5_format.py). A file of
Keras 0.x has no lists (`keras1`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.hdf5.reading import Attributes, StoredTree
from lstmconvert.keras.configs.era import keras0_weight_names
from lstmconvert.keras.stores.stored import Stored
from lstmconvert.tensors.tensor import Tensor

ROOT = "model_weights"
OPTIMIZER = "optimizer_weights"
TOP_LEVEL = "top_level_model_weights"
#: Root attributes that say who wrote the file.
WRITER = ("keras_version", "backend")


class LegacyStore(NamedTuple):
    """A legacy store by layer.

    Fields: `root`: `model_weights`, or empty; `weights`: layer name -> its arrays in the order of
    `weight_names`; `names`: layer name -> those names; `attributes`: who wrote it; `tensors`: every
    dataset of the file.
    """

    root: str
    weights: Mapping[str, list[Stored]]
    names: Mapping[str, tuple[str, ...]]
    attributes: Mapping[str, str]
    tensors: Mapping[str, Tensor]


def is_legacy(tree: StoredTree) -> bool:
    """Whether a tree is a legacy store."""
    return bool(keras0_weight_names(tree.tensors)) or any(
        _listed(tree.attributes.get(path, {}), "layer_names") is not None for path in ("", ROOT)
    )


def read_store(tree: StoredTree, where: object) -> LegacyStore:
    """Sort a tree into layers.

    Raises:
        CorruptFile: a listed layer or weight is missing.
    """
    root = ROOT if ROOT in tree.groups else ""
    attributes = tree.attributes.get(root, {})
    layers = _listed(attributes, "layer_names")
    unnamed = keras0_weight_names(tree.tensors) if layers is None else {}
    if unnamed:
        return _unnamed(tree, unnamed, where)
    if layers is None:
        raise CorruptFile("no layer_names attribute", where=f"{where}: {root or '/'}")
    if len(set(layers)) != len(layers):
        raise CorruptFile("layer_names lists a layer twice", where=f"{where}: {root or '/'}")
    weights: dict[str, list[Stored]] = {}
    names: dict[str, tuple[str, ...]] = {}
    if _path(root, TOP_LEVEL) in tree.groups and TOP_LEVEL not in layers:
        layers = [*layers, TOP_LEVEL]
    for layer in layers:
        path = _path(root, layer)
        listed = _listed(tree.attributes.get(path, {}), "weight_names")
        if path not in tree.groups or listed is None:
            raise CorruptFile(
                "a listed layer has no group, or its group no weight_names",
                where=f"{where}: {path}",
            )
        names[layer] = tuple(listed)
        weights[layer] = [_weight(tree, path, name, where) for name in listed]
    return LegacyStore(root, weights, names, _writer(tree, root), tree.tensors)


def _unnamed(tree: StoredTree, listed: Mapping[str, list[str]], where: object) -> LegacyStore:
    weights = {
        layer: [_weight(tree, layer, name, where) for name in names]
        for layer, names in listed.items()
    }
    names = {layer: tuple(listed_names) for layer, listed_names in listed.items()}
    return LegacyStore("", weights, names, {}, tree.tensors)


def _weight(tree: StoredTree, layer: str, name: str, where: object) -> Stored:
    path = _path(layer, name.replace("//", "/").strip("/"))
    if path not in tree.tensors:
        raise CorruptFile("a listed weight is missing", where=f"{where}: {path}")
    return Stored(path, tree.tensors[path])


def _writer(tree: StoredTree, root: str) -> dict[str, str]:
    writer: dict[str, str] = {}
    for path in ("", root):
        for key in WRITER:
            value = tree.attributes.get(path, {}).get(key)
            if isinstance(value, str):
                writer[key] = value
    return writer


def _listed(attributes: Attributes, name: str) -> list[str] | None:
    whole = attributes.get(name)
    if whole is not None:
        return [whole] if isinstance(whole, str) else list(whole)
    result: list[str] = []
    index = 0
    while (chunk := attributes.get(f"{name}{index}")) is not None:
        result.extend([chunk] if isinstance(chunk, str) else chunk)
        index += 1
    return result if index else None


def _path(*parts: str) -> str:
    return "/".join(part for part in parts if part)
