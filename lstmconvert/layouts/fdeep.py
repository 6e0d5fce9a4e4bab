"""A model of frugally-deep: each layer between an input and an output of its own.

The config is a functional model as Keras 3 spells it (include/fdeep/import_model.hpp,
`create_model_layer`, `create_nodes`), without the test cases that `convert_model.py` adds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from lstmconvert import metadata
from lstmconvert.containers import fdeep
from lstmconvert.dtypes import Array
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.keras.emit import serialized
from lstmconvert.layer import LSTMLayer
from lstmconvert.layouts.kerasconfig import Dialect
from lstmconvert.layouts.write import Content
from lstmconvert.tensors import SourceFile, Tensor

_DIALECT = Dialect(
    title="frugally-deep",
    target=fdeep.LAYOUT,
    library="keras",
    # include/fdeep/import_model.hpp, `create_activation_layer_type_name`
    functions=frozenset(
        {
            *("elu", "exponential", "gelu", "hard_sigmoid", "linear", "relu", "selu"),
            *("sigmoid", "softmax", "softplus", "softsign", "tanh"),
        }
    ),
)


def write(
    path: Path, content: Content, texts: Callable[[], Mapping[str, str]], *_: object
) -> Mapping[str, Tensor]:
    """Write a file, and return the arrays that it holds.

    Raises:
        UnknownOption: an option is unknown that the config has to say.
        UnsupportedByTarget: a function, a dtype, unlike halves, or two outputs.
    """
    texts()
    entries: list[tuple[LSTMLayer, JsonObject]] = []
    params: JsonObject = {}
    known = hashlib.sha256()
    for item, layer in zip(content.arranged["modules"], content.model.values(), strict=True):
        prefix = item["prefix"]
        name = prefix.rstrip(".") or fdeep.ALONE
        if layer.backward is not None and layer.options.merge_mode is None:
            raise _DIALECT.refused(layer, "merge_mode", "None")
        entries.append((layer, _DIALECT.layer(layer, name)))
        params[name] = {}
        for key, tensor in content.tensors.items():
            if key.startswith(prefix) and "." not in key.removeprefix(prefix):
                params[name][key.removeprefix(prefix)] = fdeep.encoded(_floats(layer, tensor))
                known.update(tensor.read().tobytes())
        known.update(name.encode())
    value: JsonObject = {
        fdeep.CONFIG: _model(entries),
        "image_data_format": "channels_last",
        "input_shapes": [[None, layer.input_dim] for layer, _ in entries],
        "output_shapes": [_output_shape(layer) for layer, _ in entries],
        fdeep.PARAMS: params,
        "hash": known.hexdigest(),
        metadata.KEY: parse_object(texts()[metadata.KEY], metadata.KEY),
    }
    path.write_text(canonical(value), encoding="utf-8")
    return fdeep.read(SourceFile(path))[0]


def _floats(layer: LSTMLayer, tensor: Tensor) -> Array:
    if tensor.dtype.name != "float32":
        raise UnsupportedByTarget(
            "frugally-deep has weights in float32",
            where=layer.name,
            layer=layer.name,
            option="dtype",
            target=fdeep.LAYOUT,
            found=tensor.dtype.name,
            hint="--dtype float32 casts",
        )
    return tensor.read()


def _output_shape(layer: LSTMLayer) -> list[int | None]:
    widths = [direction.units for _, direction in layer.directions]
    width = sum(widths) if layer.options.merge_mode == "concat" else widths[0]
    return [None, width] if layer.forward.options.return_sequences is True else [width]


def _model(entries: list[tuple[LSTMLayer, JsonObject]]) -> JsonObject:
    layers: list[JsonObject] = []
    for layer, entry in entries:
        source = f"{entry['name']}_input"
        shape: list[Json] = [None, None, layer.input_dim]
        config: JsonObject = {"name": source, "batch_shape": shape, "dtype": "float32"}
        made = _DIALECT.entry("InputLayer", config)
        layers.append({**made, "name": source, "inbound_nodes": []})
        history: JsonObject = {"shape": shape, "dtype": "float32", "keras_history": [source, 0, 0]}
        tensor: JsonObject = {"class_name": "__keras_tensor__", "config": history}
        layers.append({**entry, "inbound_nodes": [{"args": [tensor], "kwargs": {}}]})
    whole: JsonObject = {
        "name": "lstmconvert",
        "layers": layers,
        "input_layers": [[f"{entry['name']}_input", 0, 0] for _, entry in entries],
        "output_layers": [[entry["name"], 0, 0] for _, entry in entries],
    }
    # The module that Keras itself writes: Functional has no public name.
    model = serialized("keras.src.models.functional", "Functional", whole)
    return {**model, "keras_version": "3.15.1"}
