"""Sharded weights of Keras 3.10 and later: a `.weights.json` beside its HDF5 shards.

    {"weight_map": {"/layers/lstm/cell/vars": ["x_00000.weights.h5", …]}, …}

(keras/src/saving/saving_lib.py, `ShardedH5IOStore`.) The arrays of one cell may lie in two shards.
"""

from __future__ import annotations

import os
from pathlib import Path

from lstmconvert.errors import CorruptFile
from lstmconvert.files import open_source, whole_text
from lstmconvert.jsontext import Json, parse_object
from lstmconvert.keras.hdf5 import read_tree
from lstmconvert.keras.tree import Attributes, Tree
from lstmconvert.tensors import SourceFile, Tensor

SUFFIX = ".weights.json"
WEIGHT_MAP = "weight_map"


def is_shard_map(value: Json) -> bool:
    """Whether a JSON value is a map of shards."""
    return isinstance(value, dict) and isinstance(value.get(WEIGHT_MAP), dict)


def read(path: Path) -> tuple[list[SourceFile], Tree]:
    """Read every shard of a map as one tree; return the map's file and theirs, and the tree.

    Raises:
        CorruptFile: a shard is no plain file name beside the map, is missing, or two shards hold
            one array.
    """
    text = open_source(path)
    value = parse_object(whole_text(text), path)
    if not is_shard_map(value):
        raise CorruptFile("no weight_map of shards", where=path)
    sources = [text]
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Attributes] = {}
    groups: set[str] = set()
    for name in _names(value[WEIGHT_MAP], path):
        source = open_source(path.parent / name)
        tree = read_tree(source)
        if twice := tensors.keys() & tree.tensors.keys():
            raise CorruptFile("two shards hold one array", where=path, found=min(twice))
        sources.append(source)
        tensors.update(tree.tensors)
        attributes.update(tree.attributes)
        groups.update(tree.groups)
    return sources, Tree(tensors, attributes, frozenset(groups))


def _names(weight_map: dict[str, Json], path: Path) -> list[str]:
    names: dict[str, None] = {}
    for value in weight_map.values():
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not _is_plain(name):
                raise CorruptFile(
                    "a shard must be a plain file name beside the map",
                    where=path,
                    found=repr(name)[:80],
                )
            if os.path.islink(path.parent / name):  # false for a name that is too long
                raise CorruptFile("a shard is a symbolic link", where=path.parent / name)
            names[name] = None
    if not names:
        raise CorruptFile("the weight_map is empty", where=path)
    return list(names)


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0:")
