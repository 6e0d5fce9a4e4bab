"""TensorFlow.js's layers model: `model.json`, a Keras 2 config and a list of weights, and shards.

    {"format": "layers-model", "modelTopology": {"model_config": {…}, "keras_version": …},
     "weightsManifest": [{"paths": ["x.bin"], "weights": [{"name", "shape", "dtype"}, …]}],
     "userDefinedMetadata": {"lstmconvert": {…}}}

The shards of a group, one after another, hold its weights, little-endian, in the list's order
(tfjs-core/src/io/types.ts). It is read as what it is, a legacy Keras store with its config; a file
of ours by its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from lstmconvert import files, limits, metadata
from lstmconvert.dtypes import DType
from lstmconvert.errors import CorruptFile, NotAModel, SourceError
from lstmconvert.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.keras.tree import Tree
from lstmconvert.neighbours import Neighbours
from lstmconvert.tensors import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

TOPOLOGY, MANIFEST, USER = "modelTopology", "weightsManifest", "userDefinedMetadata"
LAYOUT = "tfjs"
#: The layer of a file whose arrays have no layer name before theirs.
ALONE = "0"
_GAPS = frozenset({"unit_forget_bias", "implementation"})
_DTYPES: Mapping[str, DType] = {
    "float32": np.dtype("<f4"),
    "int32": np.dtype("<i4"),
    "bool": np.dtype("?"),
    "uint8": np.dtype("u1"),
}


def looks_like(value: Json) -> bool:
    """Whether a JSON value is of this container."""
    return isinstance(value, dict) and TOPOLOGY in value and isinstance(value.get(MANIFEST), list)


def read(source: SourceFile, beside: Neighbours) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's tensors, lazily, and our metadata. Raises as `from_value`."""
    value = parse_object(files.whole_text(source), source.path)
    return from_value(value, beside, str(source.path))


def from_value(
    value: JsonObject, beside: Neighbours, where: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors, by the names of the list, and our metadata.

    With our metadata, the tensors have the names that they had before they were written.

    Raises:
        CorruptFile, LimitExceeded: the list does not fit the files beside.
        SourceError: a file beside is missing, or the weights are quantized.
    """
    found: dict[str, Tensor] = {}
    seen: set[str] = set()
    for group in value[MANIFEST]:
        match group:
            case {"paths": [*paths], "weights": [*weights]}:
                pass
            case _:
                raise CorruptFile("not a group of weights", where=f"{where}: {MANIFEST}")
        if not all(isinstance(path, str) for path in paths):
            raise CorruptFile("not a list of paths", where=f"{where}: {MANIFEST}")
        if len({*paths, *seen}) != len(paths) + len(seen):  # a small file would be read for ever
            raise CorruptFile("a shard is listed twice", where=f"{where}: {MANIFEST}")
        seen.update(paths)
        shards = _Shards([beside.file(path, where) for path in paths], where)
        for entry in weights:
            name, tensor = shards.next(entry)
            if name in found:
                raise CorruptFile("two weights of one name", where=where, found=name)
            found[name] = tensor
    user = value.get(USER)
    if not isinstance(user, dict) or metadata.KEY not in user:
        return found, {}
    return {_ours(name): t for name, t in found.items()}, {
        metadata.KEY: canonical(user[metadata.KEY])
    }


def _ours(name: str) -> str:
    layer, _, rest = name.partition("/")
    return rest if layer == ALONE else f"{layer}.{rest}"


class _Shards:
    """The files of a group, read as one."""

    def __init__(self, sources: list[SourceFile], where: str) -> None:
        self._sources, self._where = sources, where
        self._offset = 0

    def next(self, entry: Any) -> tuple[str, Tensor]:
        match entry:
            case {"name": str(name), "shape": [*shape], "dtype": str(kind)}:
                pass
            case _:
                raise CorruptFile("not a weight", where=f"{self._where}: {MANIFEST}")
        if "quantization" in entry or kind not in _DTYPES:
            raise SourceError(
                "quantized weights, or of a kind that is not read",
                where=f"{self._where}: {name}",
                found=kind,
                expected=", ".join(_DTYPES),
                hint="convert the model again without quantization",
            )
        limits.RANK.check(len(shape), f"{self._where}: {name}", "the number of its axes")
        if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
            raise CorruptFile("not a shape", where=f"{self._where}: {name}", found=str(shape)[:60])
        return name, self._tensor(tuple(shape), _DTYPES[kind], name)

    def _tensor(self, shape: Shape, dtype: DType, name: str) -> Tensor:
        size = prod(shape) * dtype.itemsize
        pieces = list(self._pieces(self._offset, size))
        if sum(length for _, _, length in pieces) != size:
            raise CorruptFile("the shards end before its numbers", where=f"{self._where}: {name}")
        self._offset += size
        if len(pieces) == 1:
            source, offset, _ = pieces[0]
            return FileTensor(source, offset, shape, dtype)
        raw = b"".join(source.read_at(offset, length) for source, offset, length in pieces)
        return ArrayTensor(np.frombuffer(raw, dtype).reshape(shape))

    def _pieces(self, start: int, size: int) -> Iterator[tuple[SourceFile, int, int]]:
        begin = 0
        for source in self._sources:
            low, high = max(start, begin), min(start + size, begin + source.size)
            if low < high:
                yield source, low - begin, high - low
            begin += source.size


def keras_tree(value: JsonObject, found: Mapping[str, Tensor], where: str) -> tuple[Tree, str, str]:
    """Return a file as a legacy Keras store: the store, the config's text, the version.

    Raises:
        NotAModel: it is a graph model, which has no layers.
    """
    topology = value[TOPOLOGY]
    config = topology.get("model_config", topology) if isinstance(topology, dict) else None
    if not isinstance(config, dict) or "class_name" not in config:
        raise NotAModel(
            "a graph model of TensorFlow.js, which has no layers",
            where=where,
            expected="a layers model (format: layers-model)",
        )
    version = topology.get("keras_version")
    # What TensorFlow.js writes itself is spelled as Keras 2 spells it.
    is_keras = isinstance(version, str) and version[:1].isdigit()
    layers: dict[str, list[str]] = {}
    for name in found:
        layers.setdefault(name.partition("/")[0], []).append(name)
    attributes: dict[str, Any] = {"": {"layer_names": list(layers)}}
    attributes |= {layer: {"weight_names": names} for layer, names in layers.items()}
    tensors = {f"{layer}/{name}": found[name] for layer, names in layers.items() for name in names}
    tree = Tree(tensors, attributes, frozenset({"", *layers}))
    return tree, canonical(_without_gaps(config)), version if is_keras else "2.15.0"


def _without_gaps(value: Json) -> Json:
    """Return a config without the keys that TensorFlow.js leaves null and Keras never does."""
    if isinstance(value, list):
        return [_without_gaps(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if v is not None or k not in _GAPS}
    return {key: _without_gaps(item) for key, item in kept.items()}
