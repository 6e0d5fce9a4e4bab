"""A tree of parts as Keras 3 serializes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lstmconvert.dtypes import FLOATS
from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.keras import emit
from lstmconvert.keras.inputshape import input_shape
from lstmconvert.keras.modern import graph, objects
from lstmconvert.keras.modern.classes import INPUT_KEYWORDS
from lstmconvert.keras.modern.parts import Part, unsupported
from lstmconvert.keras.nodes import snake_case
from lstmconvert.layer import LSTMLayer

#: Keras's own module for a model that its layers' calls make: it has no public name.
_FUNCTIONAL_MODULE = "keras.src.models.functional"
_INPUT_SHAPES = ("batch_input_shape", "batch_shape")
_LAYERS = "keras.layers"


class Emitter:
    """Serializes parts.

    Args:
        era: of the source.
        policy: the dtype policy of layers whose config says none.
        fitted: returns a neutral layer as Keras 3 can have it.
        graphs: of each functional model, its layers in Keras 3's order.

    Raises:
        UnsupportedByTarget: Keras 3 has no form for a value.
    """

    def __init__(
        self,
        era: str,
        policy: str,
        fitted: Callable[[LSTMLayer], LSTMLayer],
        graphs: Mapping[Part, graph.Graph],
    ) -> None:
        self._era, self._policy, self._fitted, self._graphs = era, policy, fitted, graphs

    def root(self, part: Part) -> JsonObject:
        """Return the serialized model."""
        if part.class_name == "Sequential" and not self._starts_with_input(part):
            shape = self._input_shape(part)
            if shape is None:
                raise unsupported(
                    "the config does not say the shape of the input", part.name, "input_shape"
                )
            return self._sequential(part, shape)
        return self._emit(part)

    def _emit(self, part: Part) -> JsonObject:
        if part.operation is not None:
            return part.operation
        if part.layer is not None:
            return emit.Spelling().layer_config(self._fitted(part.layer), part.name)
        if part.class_name == "Sequential" and part.is_model:
            starts = self._starts_with_input(part)
            return self._sequential(part, None if starts else _stated_shape(part))
        if part.is_model:
            return self._functional(part)
        if part.class_name == "InputLayer":
            return self._input(part.name, part.config, _stated_shape(part))
        return objects.serialized(_LAYERS, part.class_name, self._keywords(part))

    # -- models ------------------------------------------------------------------------------

    def _starts_with_input(self, part: Part) -> bool:
        return bool(part.children) and part.children[0][1].class_name == "InputLayer"

    def _input_shape(self, part: Part) -> list[int | None] | None:
        """The input's shape of a Sequential: from its first layer, or what that layer's arrays
        allow."""
        found = _stated_shape(part) or _shape(part.config.get("build_input_shape"))
        first = part.children[0][1] if part.children else part
        if found is None and first.layer is not None:
            return list(input_shape(first.layer))
        if found is None and first.class_name == "Embedding":
            return [None, None]
        return found

    def _sequential(self, part: Part, shape: list[int | None] | None) -> JsonObject:
        layers = [self._emit(child) for _, child in part.children]
        if shape is not None:
            first = part.children[0][1]
            layers.insert(0, self._input(_input_name(part), _innermost(first).config, shape))
        config: JsonObject = {"name": part.name, "layers": layers}
        result = objects.serialized("keras", "Sequential", config)
        return {**result, "build_config": {"input_shape": shape}} if shape else result

    def _functional(self, part: Part) -> JsonObject:
        calls = self._graphs[part]
        layers: list[JsonObject] = []
        for _, child in part.children:
            written = [graph.written_call(call) for call in calls.calls[child.name]]
            layers.append({**self._emit(child), "name": child.name, "inbound_nodes": written})
        config = {
            "name": part.name,
            **_frozen(part),
            "layers": layers,
            "input_layers": graph.written_ends(calls.inputs, part),
            "output_layers": graph.written_ends(calls.outputs, part),
        }
        return objects.serialized(_FUNCTIONAL_MODULE, "Functional", config)

    def _input(
        self, name: str, config: JsonObject, shape: list[int | None] | None
    ) -> JsonObject:
        if shape is None:
            raise unsupported("an input without a shape", name, "batch_shape")
        dtype = config.get("dtype") or config.get("input_dtype")
        known = objects.policy(dtype, name)
        if known is not None:
            dtype = objects.DEFAULT_POLICY if known.startswith("mixed_") else known
        elif not isinstance(dtype, str):
            dtype = self._policy if self._policy in FLOATS else objects.DEFAULT_POLICY
        written: JsonObject = {"batch_shape": shape, "dtype": dtype, "name": name}
        if config.get("sparse") is True:
            written["sparse"] = True
        return objects.serialized(_LAYERS, "InputLayer", written)

    # -- layers ------------------------------------------------------------------------------

    def _keywords(self, part: Part) -> JsonObject:
        policy = self._policy_of(part)
        result: JsonObject = {"name": part.name}
        if part.weights or part.children:
            result.update(_frozen(part))
        if policy != objects.DEFAULT_POLICY:
            result["dtype"] = policy
        for key, value in part.config.items():
            if key in ("name", "trainable", "dtype") or key in INPUT_KEYWORDS:
                continue
            if key == "merge_mode" or value is not None:
                result[key] = self._value(part, key, value, objects.computed_in(policy))
        result.update(self._inner(part))
        return result

    def _policy_of(self, part: Part) -> str:
        stated = objects.policy(part.config.get("dtype"), part.name)
        if stated is not None:
            return stated
        floats = [t.dtype.name for p in part.walk() for t in p.arrays if t.dtype.name in FLOATS]
        return floats[0] if floats else self._policy

    def _value(self, part: Part, key: str, value: Json, dtype: str) -> Json:
        written: Json = value
        if objects.kind_of(key) is not None:
            written = objects.spelled(key, value, part.name)
        elif key in ("activation", "recurrent_activation"):
            written = objects.activation(value, self._era, dtype, part.name)
        if written is None and value is not None:
            raise unsupported(f"Keras 3 has no such {key}", part.name, key, _short(value))
        return written

    def _inner(self, part: Part) -> JsonObject:
        inner = part.children
        if part.class_name == "TimeDistributed":
            return {"layer": self._emit(inner[0][1])}
        if part.class_name == "Bidirectional":
            return {"layer": self._emit(inner[0][1]), "backward_layer": self._emit(inner[1][1])}
        if part.class_name == "RNN":
            return {"cell": self._emit(inner[0][1])}
        if part.class_name == "StackedRNNCells":
            return {"cells": [self._emit(cell) for _, cell in inner]}
        return {}


def _short(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _frozen(part: Part) -> JsonObject:
    return {} if part.trainable else {"trainable": False}


def _innermost(part: Part) -> Part:
    while part.is_model and part.children:
        part = part.children[0][1]
    return part


def _input_name(part: Part) -> str:
    first = _innermost(part)
    names = {child.name for _, child in part.children}
    name = f"{first.name or snake_case(first.class_name)}_input"
    while name in names:
        name = f"{name}_"
    return name


def _stated_shape(part: Part) -> list[int | None] | None:
    """The input's shape, batch included, as the part's own config has it; a model's is that of its
    first layer."""
    while True:
        config = part.node.config
        for key in _INPUT_SHAPES:
            found = _shape(config.get(key))
            if found is not None:
                return found
        found = _shape(config.get("input_shape"))
        if found is not None:
            return [None, *found]
        if not part.is_model or not part.children:
            return None
        part = part.children[0][1]


def _shape(value: Json) -> list[int | None] | None:
    if isinstance(value, dict):  # {"class_name": "TupleWrapper" or "__tuple__", "items": […]}
        value = value.get("items")
    if not isinstance(value, list) or not value:
        return None
    return list(value) if all(size is None or _is_size(size) for size in value) else None


def _is_size(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
