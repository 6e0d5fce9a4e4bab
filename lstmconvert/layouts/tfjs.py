"""A layers model of TensorFlow.js: each layer between an input and an output of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from lstmconvert import metadata
from lstmconvert.containers import tfjs
from lstmconvert.containers.arrays import Beside
from lstmconvert.dtypes import little_endian
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.layouts.kerasconfig import Dialect
from lstmconvert.layouts.write import Content
from lstmconvert.neighbours import Neighbours
from lstmconvert.tensors import SourceFile, Tensor

#: tfjs-layers/src/common.ts, `tensorNameRegex`, without the slash.
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*")
_DIALECT = Dialect(
    title="TensorFlow.js",
    target="tfjs",
    library="tf_keras",
    # tfjs-layers/src/activations.ts
    functions=frozenset(
        {
            *("elu", "gelu", "hard_sigmoid", "linear", "mish", "relu", "selu"),
            *("sigmoid", "softmax", "softplus", "softsign", "swish", "tanh"),
        }
    ),
)


def write(
    path: Path, content: Content, texts: Callable[[], Mapping[str, str]], beside: Beside | None
) -> Mapping[str, Tensor]:
    """Write a file and its one shard, and return what they hold.

    Raises:
        UnknownOption: an option is unknown that the config has to say.
        UnsupportedByTarget: a function, a dtype, or unlike halves.
    """
    if beside is None:
        raise AssertionError("a model.json has a file beside it")
    texts()
    layers = []
    for item, layer in zip(content.arranged["modules"], content.model.values(), strict=True):
        name = item["prefix"].rstrip(".")
        if name == tfjs.ALONE or not _NAME.fullmatch(name or tfjs.ALONE):
            raise _DIALECT.refused(layer, "name", name)
        made = _DIALECT.layer(layer, name or tfjs.ALONE)
        layers.append({**made, "inputs": layer.input_dim})
    weights: list[Json] = []
    with open(beside.temporary, "xb") as file:
        for name, tensor in content.tensors.items():
            weights.append(_entry(name, tensor))
            for block in tensor.blocks():
                file.write(little_endian(block).tobytes())
    text = texts()[metadata.KEY]
    value: JsonObject = {
        "format": "layers-model",
        "generatedBy": "lstmconvert",
        "convertedBy": None,
        tfjs.TOPOLOGY: {
            "keras_version": "2.15.0",
            "backend": "tensorflow",
            "model_config": _model(layers),
        },
        tfjs.MANIFEST: [{"paths": [beside.name], "weights": weights}],
        tfjs.USER: {metadata.KEY: parse_object(text, metadata.KEY)},
    }
    path.write_text(canonical(value), encoding="utf-8")
    known = Neighbours(path, {beside.name: SourceFile(beside.temporary)})
    return tfjs.read(SourceFile(path), known)[0]


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
    if tensor.dtype.name != "float32":
        raise UnsupportedByTarget(
            "TensorFlow.js has weights in float32",
            where=name,
            option="dtype",
            target="tfjs",
            found=tensor.dtype.name,
            hint="--dtype float32 casts",
        )
    where = layer if dot else tfjs.ALONE
    return {"name": f"{where}/{rest}", "shape": list(tensor.shape), "dtype": "float32"}
