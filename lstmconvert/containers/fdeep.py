"""frugally-deep's JSON: a Keras config, and each layer's arrays, flat, as float32 in base64.

    {"architecture": {"class_name": …, "config": …, "keras_version": …},
     "trainable_params": {layer: {"weights": […], "recurrent_weights": […], "bias": […]}}}

A Bidirectional's have forward_ and backward_ before their names, those of stacked cells cell0_ and
so on (frugally-deep/keras_export/convert_model.py, `show_lstm_layer`, `encode_floats`;
include/fdeep/import_model.hpp, `create_rnn_layer`). The arrays of an LSTM have only one shape that
fits. Those of other layers have lost their shapes and are not read. frugally-deep ignores keys that
it does not know, so the file can hold our metadata.

We write a whole model that is a chain of layers, or each LSTM between an input and an output of its
own. The shapes of the other layers' arrays stand in a key of ours. The config is a functional
model as Keras 3 spells it (include/fdeep/import_model.hpp, `create_model_layer`, `create_nodes`).
The test case that `convert_model.py` adds is there on request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert.containers.jsonarrays import EXACT
from lstmconvert.containers.kerasconfig import Dialect
from lstmconvert.containers.modules import Arrays, KerasStore, Opened, Writing, carries_nothing
from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.keras.configs import spelling
from lstmconvert.keras.configs.spelling import serialized_model
from lstmconvert.layouts.rows import FRUGALLY_DEEP_FUNCTIONS
from lstmconvert.model.activations import KERAS3, Functions
from lstmconvert.model.chain import Chain, Holds, Link
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

LAYOUT = "frugally-deep"
#: The layer of a file whose arrays have no layer name before theirs.
ALONE = "_"
CONFIG, PARAMS = "architecture", "trainable_params"
#: Their name of an array, and Keras's.
_ROLES = {"weights": "kernel", "recurrent_weights": "recurrent_kernel", "bias": "bias"}
_RECURRENT = "recurrent_weights"
#: Keras's name of an array -> theirs, where it is another.
_KEYS = {"kernel": "weights", "recurrent_kernel": "recurrent_weights"}
_SHAPES = "lstmconvert_shapes"
#: What follows a layer's name in that of the layer of its function.
_FUNCTION = ".function"
#: include/fdeep/import_model.hpp, `create_activation_layer_type_name`. Its log_sigmoid and
#: log_softmax are logarithms of numbers that become zero, and are left out; so are hard_shrink and
#: soft_shrink, which look for a threshold in the config of the layer that has the function.
_FUNCTIONS = (
    *("tanh", "sigmoid", "relu", "softmax", "selu", "elu", "exponential", "gelu", "softsign"),
    *("softplus", "silu", "hard_sigmoid", "relu6", "leaky_relu", "celu", "hard_tanh"),
    *("tanh_shrink", "sparse_plus", "squareplus"),
)
#: The functions with constants of a model's own, which are layers: `create_leaky_relu_layer`,
#: `create_elu_layer`, `create_relu_layer`, which reads its constants where there is a largest one.
_LAYERS = (
    ("leaky_relu", ("negative_slope",)),
    ("elu", ("alpha",)),
    ("relu", ("max_value",)),
    ("relu", ("max_value", "negative_slope")),
    ("relu", ("max_value", "threshold")),
    ("relu", ("max_value", "negative_slope", "threshold")),
)
HOLDS = Holds(
    title="frugally-deep",
    kinds=frozenset(
        {
            *("Dense", "Conv1D", "BatchNormalization", "LayerNormalization", "PReLU"),
            *("Activation", "GRU"),
        }
    ),
    activations=Functions(tuple(KERAS3[name] for name in _FUNCTIONS), _LAYERS),
    gru=(FRUGALLY_DEEP_FUNCTIONS, FRUGALLY_DEEP_FUNCTIONS),
    paddings=("causal", "same", "valid"),
)
#: Characters of base64 in one string (convert_model.py, `encode_floats`).
_CHUNK = 1024


def read(file: Opened) -> Arrays:
    """Read the arrays of a file's LSTMs, `<layer>.forward_weights` and so on, and our metadata.

    A file that we did not write is a Keras model, and its arrays are read as such.

    Raises:
        CorruptFile: it is not of this format, or an LSTM's arrays do not fit each other.
    """
    value, where = file.json, str(file.path)
    if not isinstance(value, dict) or not isinstance(value.get(PARAMS), dict):
        raise CorruptFile("not a model of frugally-deep", where=where)
    if metadata.KEY not in value:
        return Arrays({}, {}, store=partial(_keras_store, value, where))
    tensors: dict[str, Tensor] = {}
    for layer, params in value[PARAMS].items():
        prefix = "" if layer == ALONE else f"{layer}."
        tensors |= {
            f"{prefix}{start}{role}": ArrayTensor(array)
            for start, role, array in _arrays(params, f"{where}: {layer}")
        }
    tensors |= _others(value, where)
    return Arrays(tensors, {metadata.KEY: canonical(value[metadata.KEY])})


def _others(value: JsonObject, where: str) -> dict[str, Tensor]:
    """Return the arrays of layers that are not LSTMs, which lost their shapes."""
    stated = value.get(_SHAPES, {})
    if not isinstance(stated, dict):
        raise CorruptFile("not the shapes of arrays", where=f"{where}: {_SHAPES}")
    tensors: dict[str, Tensor] = {}
    for name, shape in stated.items():
        layer, _, role = name.rpartition(".")
        params, key = value[PARAMS].get(layer), _KEYS.get(role, role)
        sizes = shape if isinstance(shape, list) else []
        is_shape = bool(sizes) and all(type(n) is int and 0 <= n < 1 << 40 for n in sizes)
        if not is_shape or not isinstance(params, dict) or key not in params:
            raise CorruptFile("not the shape of an array", where=f"{where}: {_SHAPES}.{name}")
        flat = _floats(params[key], f"{where}.{layer}.{key}")
        if flat.size != prod(sizes):
            raise CorruptFile(
                "an array does not have its shape",
                where=f"{where}: {layer}.{key}",
                found=flat.size,
                expected=str(sizes),
            )
        tensors[name] = ArrayTensor(_turned_back(flat, sizes))
    return tensors


def _turned(array: Array) -> Array:
    """Return an array as it lies there: a window of a Conv1D comes after the outputs
    (convert_model.py, `prepare_filter_weights_conv_1d`)."""
    return np.moveaxis(array, [0, 1, 2], [1, 2, 0]) if array.ndim == 3 else array


def _turned_back(flat: Array, shape: list[int]) -> Array:
    if len(shape) != 3:
        return flat.reshape(shape)
    window, inner, outputs = shape
    return np.moveaxis(flat.reshape(outputs, window, inner), [1, 2, 0], [0, 1, 2])


def _keras_store(value: JsonObject, where: str) -> KerasStore:
    """Return the recurrent layers of a file as a legacy Keras store, with the model's config.

    Raises:
        CorruptFile: it is not of this format, or an LSTM's arrays do not fit each other.
    """
    config = value[CONFIG]
    if not isinstance(config, dict):
        raise CorruptFile("not a config", where=f"{where}: {CONFIG}")
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Any] = {}
    for layer, params in value[PARAMS].items():
        arrays = {
            f"{layer}/{start}lstm/lstm_cell/{_ROLES[role]}": array
            for start, role, array in _arrays(params, f"{where}: {layer}")
        }
        if arrays:
            attributes[layer] = {"weight_names": list(arrays)}
            tensors |= {f"{layer}/{name}": ArrayTensor(array) for name, array in arrays.items()}
    groups = frozenset({"", *attributes})
    attributes[""] = {"layer_names": [layer for layer in attributes if layer]}
    version = config.get("keras_version")
    known = version if isinstance(version, str) else None
    tree = StoredTree(tensors, attributes, groups)
    return KerasStore(tree, canonical(config), known, whole=False)


def encoded(array: Array) -> list[Json]:
    """Return float32 numbers as this format has them."""
    text = base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")
    return [text[place : place + _CHUNK] for place in range(0, len(text), _CHUNK)]


def _arrays(params: Json, where: str) -> Iterator[tuple[str, str, Array]]:
    """Yield the arrays of a layer's LSTMs: the prefix of the name, the name, the array."""
    if not isinstance(params, dict):
        raise CorruptFile("not a layer's arrays", where=where)
    starts = [key.removesuffix(_RECURRENT) for key in params if key.endswith(_RECURRENT)]
    for start in sorted(starts, key=_place):
        yield from ((start, *named) for named in _cell(params, start, where))


def _place(start: str) -> tuple[bool, int]:
    number = re.search(r"\d{1,6}", start)
    return start.startswith("backward"), int(number[0]) if number else 0


def _cell(params: JsonObject, start: str, where: str) -> Iterator[tuple[str, Array]]:
    arrays = {
        role: _floats(params[start + role], f"{where}.{start}{role}")
        for role in _ROLES
        if start + role in params
    }
    recurrent = arrays[_RECURRENT]
    # Four gates of (units, units); a GRU's three give no whole number of units, or no such bias.
    units = isqrt(recurrent.size // 4)
    kernel, bias = arrays.get("weights"), arrays.get("bias")
    if units * units * 4 != recurrent.size or not units:
        return
    if kernel is None or kernel.size % (4 * units) or (bias is not None and bias.size != 4 * units):
        raise CorruptFile(
            "the arrays of an LSTM do not fit each other",
            where=where,
            found=", ".join(f"{role} {array.size}" for role, array in arrays.items()),
        )
    yield "weights", kernel.reshape(-1, 4 * units)
    yield _RECURRENT, recurrent.reshape(units, 4 * units)
    if bias is not None:
        yield "bias", bias


def _floats(value: Json, where: str) -> Array:
    if not isinstance(value, list):
        raise CorruptFile("not an array", where=where)
    if all(isinstance(item, str) for item in value):
        try:
            raw = base64.b64decode("".join(value), validate=True)
        except (binascii.Error, ValueError):
            raw = b"?"
        if len(raw) % 4:
            raise CorruptFile("not float32 in base64", where=where)
        return np.frombuffer(raw, "<f4")
    if not all(type(item) in (int, float) for item in value):
        raise CorruptFile("not numbers", where=where)
    if any(type(item) is int and abs(item) > EXACT for item in value):
        raise CorruptFile("an integer that no float holds", where=where)
    with np.errstate(over="ignore"):
        return np.array(value, np.float64).astype(np.float32)


_DIALECT = Dialect(title="frugally-deep", target=LAYOUT, library="keras")


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        UnknownOption: an option is unknown that the config has to say.
        UnsupportedByTarget: the halves differ.
    """
    if content.chain is not None:
        _write_chain(path, content, content.chain)
        return
    entries: list[tuple[LSTMLayer, JsonObject]] = []
    params: JsonObject = {}
    known = hashlib.sha256()
    for prefix, layer in content.layers:
        name = prefix.rstrip(".") or ALONE
        entries.append((layer, _DIALECT.layer(layer, name)))
        params[name] = {}
        for key, tensor in content.tensors.items():
            if key.startswith(prefix) and "." not in key.removeprefix(prefix):
                params[name][key.removeprefix(prefix)] = encoded(tensor.read())
                known.update(tensor.read().tobytes())
        known.update(name.encode())
    value: JsonObject = {
        CONFIG: _model(entries),
        "image_data_format": "channels_last",
        "input_shapes": [[None, layer.input_dim] for layer, _ in entries],
        "output_shapes": [_output_shape(layer) for layer, _ in entries],
        PARAMS: params,
        "hash": known.hexdigest(),
        metadata.KEY: parse_object(content.metadata()[metadata.KEY], metadata.KEY),
    }
    path.write_text(canonical(value), encoding="utf-8")


carried = carries_nothing


def _write_chain(path: Path, content: Writing, chain: Chain) -> None:
    known = hashlib.sha256()
    params: JsonObject = {}
    shapes: JsonObject = {}
    layers = dict(zip((layer.name for _, layer in content.layers), content.layers, strict=True))
    entries: list[JsonObject] = []
    for link in chain.links:
        name, arrays = link.prefix.removesuffix("."), {}
        if link.layer is not None:
            prefix, layer = layers[link.name]
            entries.append(_DIALECT.layer(layer, name))
            arrays = {
                key.removeprefix(prefix): tensor.read()
                for key, tensor in content.tensors.items()
                if key.startswith(prefix) and "." not in key.removeprefix(prefix)
            }
        else:
            entries += _entries(link, name)
            for role in link.arrays:
                array = content.tensors[link.prefix + role].read()
                arrays[_KEYS.get(role, role)] = _turned(array)
                shapes[link.prefix + role] = list(array.shape)
        params[name] = {key: encoded(array) for key, array in arrays.items()}
        known.update(name.encode())
        for array in arrays.values():
            known.update(np.ascontiguousarray(array).tobytes())
    width = chain.outputs
    answer = content.answer
    value: JsonObject = {
        CONFIG: _chained(entries, chain.inputs),
        "image_data_format": "channels_last",
        "input_shapes": [[None, chain.inputs]],
        "output_shapes": [[None, width] if chain.gives_sequence else [width]],
        PARAMS: params,
        "hash": known.hexdigest(),
        _SHAPES: shapes,
        metadata.KEY: parse_object(content.metadata()[metadata.KEY], metadata.KEY),
    }
    if answer is not None:
        value["tests"] = [{"inputs": [_case(answer.x)], "outputs": [_case(answer.y)]}]
    path.write_text(canonical(value), encoding="utf-8")


def _case(array: Array) -> JsonObject:
    """Return one tensor of a test case (convert_model.py, `gen_test_data`): without the batch."""
    return {"shape": list(array.shape[1:]), "values": encoded(array)}


def _entries(link: Link, name: str) -> list[JsonObject]:
    """Return the layer of a link, and the layer of its function where that has no name."""
    function = spelling.activation(link.activation, "float32")
    if isinstance(function, str):
        return [{"name": name, **_DIALECT.entry(link.kind, _config(link, name, function))}]
    end = name if link.kind == "Activation" else f"{name}{_FUNCTION}"
    # A ReLU's constants have to be there, all of them.
    zeros = {"negative_slope": 0.0, "threshold": 0.0} if link.activation.name == "relu" else {}
    config = {"name": end, "dtype": "float32", **zeros, **link.activation.constants}
    class_name = spelling.ACTIVATION_LAYERS[link.activation.name]
    last: JsonObject = {"name": end, **_DIALECT.entry(class_name, config)}
    if link.kind == "Activation":
        return [last]
    return [{"name": name, **_DIALECT.entry(link.kind, _config(link, name, "linear"))}, last]


def _config(link: Link, name: str, function: str) -> JsonObject:
    """Return what the engine reads of a layer's config, whose activation has a name."""
    config: JsonObject = {"name": name, "trainable": True, "dtype": "float32"}
    bias: JsonObject = {"use_bias": "bias" in link.arrays, "activation": function}
    normalization: JsonObject = {
        "axis": -1,
        "epsilon": link.epsilon,
        "center": "beta" in link.arrays,
        "scale": "gamma" in link.arrays,
    }
    further: Mapping[str, JsonObject] = {
        "Dense": {"units": link.outputs, **bias},
        "Activation": {"activation": function},
        "PReLU": {"shared_axes": [1]},
        "BatchNormalization": normalization,
        "LayerNormalization": normalization,
    }
    if link.kind == "Conv1D":
        return config | bias | {
            "filters": link.outputs,
            "kernel_size": [link.window],
            "strides": [1],
            "padding": link.padding,
            "dilation_rate": [link.dilation],
            "groups": 1,
            "data_format": "channels_last",
        }
    if link.kind == "GRU":
        return config | bias | {
            "units": link.outputs,
            "recurrent_activation": spelling.activation(link.recurrent_activation, "float32"),
            "reset_after": link.reset_after,
            "return_sequences": link.return_sequences,
            "return_state": False,
            "go_backwards": False,
            "stateful": False,
            "unroll": False,
        }
    return config | further[link.kind]


def _chained(entries: Sequence[JsonObject], inputs: int) -> JsonObject:
    """Return the config of a functional model in which each layer takes what the last one gives."""
    shape: list[Json] = [None, None, inputs]
    config: JsonObject = {"name": "model_input", "batch_shape": shape, "dtype": "float32"}
    first = {**_DIALECT.entry("InputLayer", config), "name": "model_input", "inbound_nodes": []}
    layers = [first]
    for entry in entries:
        history = {"shape": shape, "dtype": "float32", "keras_history": [layers[-1]["name"], 0, 0]}
        given: JsonObject = {"class_name": "__keras_tensor__", "config": history}
        layers.append({**entry, "inbound_nodes": [{"args": [given], "kwargs": {}}]})
    whole: JsonObject = {
        "name": "lstmconvert",
        "layers": layers,
        "input_layers": [["model_input", 0, 0]],
        "output_layers": [[layers[-1]["name"], 0, 0]],
    }
    return {**serialized_model("Functional", whole), "keras_version": "3.15.1"}


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
    model = serialized_model("Functional", whole)
    return {**model, "keras_version": "3.15.1"}
