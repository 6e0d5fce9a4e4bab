"""frugally-deep's JSON: a Keras config, and each layer's arrays, flat, as float32 in base64.

    {"architecture": {"class_name": …, "config": …, "keras_version": …},
     "trainable_params": {layer: {"weights": […], "recurrent_weights": […], "bias": […]}}}

A Bidirectional's have forward_ and backward_ before their names
(frugally-deep/keras_export/convert_model.py, `show_lstm_layer`, `encode_floats`). The arrays of an
LSTM have only one shape that fits; those of other layers have lost theirs, and are not read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from math import isqrt
from typing import Any

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.errors import CorruptFile
from lstmconvert.jsontext import Json, JsonObject, canonical
from lstmconvert.keras.hdf5 import Tree
from lstmconvert.tensors import ArrayTensor, Tensor

LAYOUT = "frugally-deep"
_CONFIG, _PARAMS = "architecture", "trainable_params"
_HALVES = ("", "forward_", "backward_")
_ROLES = ("weights", "recurrent_weights", "bias")


def looks_like(value: Json) -> bool:
    """Whether a JSON value is of this container."""
    return isinstance(value, dict) and _CONFIG in value and isinstance(value.get(_PARAMS), dict)


def keras_tree(value: JsonObject, where: str) -> tuple[Tree, str, str | None]:
    """Return the recurrent layers of a file as a legacy Keras store, the config's text and version.

    Raises:
        CorruptFile: it is not of this format, or an LSTM's arrays do not fit each other.
    """
    config = value[_CONFIG]
    if not isinstance(config, dict):
        raise CorruptFile("not a config", where=f"{where}: {_CONFIG}")
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Any] = {}
    for layer, params in value[_PARAMS].items():
        if not isinstance(params, dict):
            raise CorruptFile("not a layer's arrays", where=f"{where}: {layer}")
        found = {
            f"{layer}/{half}lstm/lstm_cell/{name}": array
            for half in _HALVES
            if f"{half}recurrent_weights" in params
            for name, array in _cell(params, half, f"{where}: {layer}")
        }
        if found:
            attributes[layer] = {"weight_names": list(found)}
            tensors |= {f"{layer}/{name}": ArrayTensor(array) for name, array in found.items()}
    groups = frozenset({"", *attributes})
    attributes[""] = {"layer_names": [layer for layer in attributes if layer]}
    version = config.get("keras_version")
    known = version if isinstance(version, str) else None
    return Tree(tensors, attributes, groups), canonical(config), known


def _cell(params: JsonObject, half: str, where: str) -> Iterator[tuple[str, Array]]:
    found = {
        role: _floats(params[half + role], f"{where}.{half}{role}")
        for role in _ROLES
        if half + role in params
    }
    recurrent = found["recurrent_weights"]
    # Four gates of (units, units); a GRU's three give no whole number of units, or no such bias.
    units = isqrt(recurrent.size // 4)
    kernel, bias = found.get("weights"), found.get("bias")
    if units * units * 4 != recurrent.size or not units:
        return
    if kernel is None or kernel.size % (4 * units) or (bias is not None and bias.size != 4 * units):
        raise CorruptFile(
            "the arrays of an LSTM do not fit each other",
            where=where,
            found=", ".join(f"{role} {array.size}" for role, array in found.items()),
        )
    yield "kernel", kernel.reshape(-1, 4 * units)
    yield "recurrent_kernel", recurrent.reshape(units, 4 * units)
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
    with np.errstate(over="ignore"):
        return np.array(value, np.float64).astype(np.float32)
