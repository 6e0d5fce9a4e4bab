"""frugally-deep's JSON: a Keras config, and each layer's arrays, flat, as float32 in base64.

    {"architecture": {"class_name": …, "config": …, "keras_version": …},
     "trainable_params": {layer: {"weights": […], "recurrent_weights": […], "bias": […]}}}

A Bidirectional's have forward_ and backward_ before their names, those of stacked cells cell0_ and
so on (frugally-deep/keras_export/convert_model.py, `show_lstm_layer`, `encode_floats`;
include/fdeep/import_model.hpp, `create_rnn_layer`). The arrays of an LSTM have only one shape that
fits; those of other layers have lost theirs, and are not read. Keys that it does not know are none
of its business, so that our metadata have a place in a file.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from math import isqrt
from typing import Any

import numpy as np

from lstmconvert import files, metadata
from lstmconvert.containers.jsonarrays import EXACT
from lstmconvert.dtypes import Array
from lstmconvert.errors import CorruptFile
from lstmconvert.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.keras.tree import Tree
from lstmconvert.tensors import ArrayTensor, SourceFile, Tensor

LAYOUT = "frugally-deep"
#: The layer of a file whose arrays have no layer name before theirs.
ALONE = "_"
CONFIG, PARAMS = "architecture", "trainable_params"
#: What they call an array, and what Keras does.
_ROLES = {"weights": "kernel", "recurrent_weights": "recurrent_kernel", "bias": "bias"}
_RECURRENT = "recurrent_weights"
#: Characters of base64 in one string (convert_model.py, `encode_floats`).
_CHUNK = 1024


def looks_like(value: Json) -> bool:
    """Whether a JSON value is of this container."""
    return isinstance(value, dict) and CONFIG in value and isinstance(value.get(PARAMS), dict)


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's arrays and its metadata. Raises as `from_value`."""
    return from_value(parse_object(files.whole_text(source), source.path), str(source.path))


def from_value(value: JsonObject, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the arrays of a file's LSTMs, `<layer>.forward_weights` and so on, and our metadata.

    Raises:
        CorruptFile: it is not of this format, or an LSTM's arrays do not fit each other.
    """
    found: dict[str, Tensor] = {}
    for layer, params in value[PARAMS].items():
        prefix = "" if layer == ALONE else f"{layer}."
        found |= {
            f"{prefix}{start}{role}": ArrayTensor(array)
            for start, role, array in _arrays(params, f"{where}: {layer}")
        }
    texts = {metadata.KEY: canonical(value[metadata.KEY])} if metadata.KEY in value else {}
    return found, texts


def keras_tree(value: JsonObject, where: str) -> tuple[Tree, str, str | None]:
    """Return the recurrent layers of a file as a legacy Keras store, the config's text and version.

    Raises:
        CorruptFile: it is not of this format, or an LSTM's arrays do not fit each other.
    """
    config = value[CONFIG]
    if not isinstance(config, dict):
        raise CorruptFile("not a config", where=f"{where}: {CONFIG}")
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Any] = {}
    for layer, params in value[PARAMS].items():
        found = {
            f"{layer}/{start}lstm/lstm_cell/{_ROLES[role]}": array
            for start, role, array in _arrays(params, f"{where}: {layer}")
        }
        if found:
            attributes[layer] = {"weight_names": list(found)}
            tensors |= {f"{layer}/{name}": ArrayTensor(array) for name, array in found.items()}
    groups = frozenset({"", *attributes})
    attributes[""] = {"layer_names": [layer for layer in attributes if layer]}
    version = config.get("keras_version")
    known = version if isinstance(version, str) else None
    return Tree(tensors, attributes, groups), canonical(config), known


def encoded(array: Array) -> list[Json]:
    """Return float32 numbers as this format has them."""
    text = base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")
    return [text[place : place + _CHUNK] for place in range(0, len(text), _CHUNK)]


def _arrays(params: Json, where: str) -> Iterator[tuple[str, str, Array]]:
    """Yield the arrays of a layer's LSTMs: what stands before their name, the name, the array."""
    if not isinstance(params, dict):
        raise CorruptFile("not a layer's arrays", where=where)
    starts = [key.removesuffix(_RECURRENT) for key in params if key.endswith(_RECURRENT)]
    for start in sorted(starts, key=_place):
        yield from ((start, *found) for found in _cell(params, start, where))


def _place(start: str) -> tuple[bool, int]:
    number = re.search(r"\d{1,6}", start)
    return start.startswith("backward"), int(number[0]) if number else 0


def _cell(params: JsonObject, start: str, where: str) -> Iterator[tuple[str, Array]]:
    found = {
        role: _floats(params[start + role], f"{where}.{start}{role}")
        for role in _ROLES
        if start + role in params
    }
    recurrent = found[_RECURRENT]
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
