"""TensorFlow.js's layers model: `model.json`, a Keras 2 config and a list of weights, and shards.

    {"format": "layers-model", "modelTopology": {"model_config": {…}, "keras_version": …},
     "weightsManifest": [{"paths": ["x.bin"], "weights": [{"name", "shape", "dtype"}, …]}],
     "userDefinedMetadata": {"lstmconvert": {…}}}

The shards of a group, one after another, hold its weights, little-endian, in the list's order
(tfjs-core/src/io/types.ts). A file of TensorFlow.js is read as what it is, a legacy Keras store
with its config; a file that we wrote is read by its metadata.

We write each layer between an input and an output of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.kerasconfig import Dialect
from lstmconvert.containers.modules import Arrays, KerasStore, Opened, Writing
from lstmconvert.errors import CorruptFile, NotAModel, SourceError
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import DType
from lstmconvert.tensors.streaming import write_to
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

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


def read(file: Opened) -> Arrays:
    """Read tensors, lazily, by the names of the list, and our metadata.

    With our metadata, the tensors have the names that they had before they were written. A file
    without them is a Keras model.

    Raises:
        CorruptFile, LimitExceeded: the list does not fit the shards.
        SourceError: a shard is missing, or the weights are quantized.
    """
    value, where = file.json, str(file.path)
    if not isinstance(value, dict) or not isinstance(value.get(MANIFEST), list):
        raise CorruptFile("not a model of TensorFlow.js", where=where)
    tensors: dict[str, Tensor] = {}
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
        shards = _Shards([file.neighbours.file(path, where) for path in paths], where)
        for entry in weights:
            name, tensor = shards.next(entry)
            if name in tensors:
                raise CorruptFile("two weights of one name", where=where, found=name)
            tensors[name] = tensor
    user = value.get(USER)
    if not isinstance(user, dict) or metadata.KEY not in user:
        return Arrays(tensors, {}, store=partial(_keras_store, value, tensors, where))
    ours = {_ours(name): tensor for name, tensor in tensors.items()}
    return Arrays(ours, {metadata.KEY: canonical(user[metadata.KEY])})


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


def _keras_store(value: JsonObject, stored: Mapping[str, Tensor], where: str) -> KerasStore:
    """Return a file as a legacy Keras store with its config.

    Raises:
        NotAModel: it is a graph model, which has no layers.
    """
    topology = value.get(TOPOLOGY)
    topology = topology if isinstance(topology, dict) else {}
    config = topology.get("model_config", topology)
    if not isinstance(config, dict) or "class_name" not in config:
        raise NotAModel(
            "a graph model of TensorFlow.js, which has no layers",
            where=where,
            expected="a layers model (format: layers-model)",
        )
    version = topology.get("keras_version")
    # What TensorFlow.js writes itself is spelled as Keras 2 spells it.
    is_keras = isinstance(version, str) and version[:1].isdigit()
    version = version if is_keras else "2.15.0"
    # The manifest may list weights in any order; a legacy store lists layers as the config does.
    layers: dict[str, list[str]] = {name: [] for name in _layer_names(config)}
    for name in stored:
        layers.setdefault(name.partition("/")[0], []).append(name)
    # Who wrote it is stated, as in every file of Keras: what trains in a browser convolves as
    # TensorFlow does, and so does what the converter takes (Theano's kernels it turns round).
    writer = {"keras_version": version, "backend": "tensorflow"}
    attributes: dict[str, Any] = {"": {"layer_names": list(layers), **writer}}
    attributes |= {layer: {"weight_names": names} for layer, names in layers.items()}
    tensors = {f"{layer}/{name}": stored[name] for layer, names in layers.items() for name in names}
    tree = StoredTree(tensors, attributes, frozenset({"", *layers}))
    return KerasStore(tree, canonical(_without_gaps(config)), version)


def _layer_names(config: JsonObject) -> list[str]:
    """Return the names of a model's layers, in the order of its config."""
    inner = config.get("config")
    listed = inner.get("layers", []) if isinstance(inner, dict) else inner
    configs = [x.get("config") for x in listed or [] if isinstance(x, dict)]
    names = [x.get("name") for x in configs if isinstance(x, dict)]
    return [name for name in dict.fromkeys(names) if isinstance(name, str)]


def _without_gaps(value: Json) -> Json:
    """Return a config without the keys that TensorFlow.js leaves null and Keras never does."""
    if isinstance(value, list):
        return [_without_gaps(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if v is not None or k not in _GAPS}
    return {key: _without_gaps(item) for key, item in kept.items()}


#: tfjs-layers/src/common.ts, `tensorNameRegex`, without the slash.
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")
_DIALECT = Dialect(title="TensorFlow.js", target="tfjs", library="tf_keras")


def write(path: Path, content: Writing) -> None:
    """Write a file and its one shard.

    Raises:
        UnknownOption: an option is unknown that the config has to say.
        UnsupportedByTarget: a name that TensorFlow.js does not take, or halves that differ.
    """
    second = content.second_file
    if second is None:
        raise AssertionError("a model.json has a file beside it")
    layers = []
    for prefix, layer in content.layers:
        name = prefix.rstrip(".")
        if name == ALONE or not _NAME.fullmatch(name or ALONE):
            raise _DIALECT.refused(layer, "name", name)
        made = _DIALECT.layer(layer, name or ALONE)
        layers.append({**made, "inputs": layer.input_dim})
    weights: list[Json] = []
    with open(second.temporary, "wb") as file:
        for name, tensor in content.tensors.items():
            weights.append(_entry(name, tensor))
            write_to(file, tensor, partial(content.sums.add, name))
    text = content.metadata()[metadata.KEY]
    value: JsonObject = {
        "format": "layers-model",
        "generatedBy": "lstmconvert",
        "convertedBy": None,
        TOPOLOGY: {
            "keras_version": "2.15.0",
            "backend": "tensorflow",
            "model_config": _model(layers),
        },
        MANIFEST: [{"paths": [second.name], "weights": weights}],
        USER: {metadata.KEY: parse_object(text, metadata.KEY)},
    }
    path.write_text(canonical(value), encoding="utf-8")


def _model(layers: list[JsonObject]) -> JsonObject:
    inputs, nodes = [], []
    for layer in layers:
        name = layer["name"]
        size = layer.pop("inputs")
        config = {"name": f"{name}_x", "batch_input_shape": [None, None, size], "dtype": "float32"}
        inputs.append({"class_name": "InputLayer", "name": f"{name}_x", "config": config})
        nodes.append({**layer, "inbound_nodes": [[[f"{name}_x", 0, 0, {}]]]})
    return {
        "class_name": "Model",
        "config": {
            "name": "lstmconvert",
            "layers": [*({**item, "inbound_nodes": []} for item in inputs), *nodes],
            "input_layers": [[item["name"], 0, 0] for item in inputs],
            "output_layers": [[item["name"], 0, 0] for item in nodes],
        },
    }


def _entry(name: str, tensor: Tensor) -> JsonObject:
    layer, dot, rest = name.rpartition(".")
    where = layer if dot else ALONE
    return {"name": f"{where}/{rest}", "shape": list(tensor.shape), "dtype": "float32"}
