"""The config of a model for Keras 3: spelled anew from a tree of parts, or kept as it is.

The config of a Keras 3 model is kept for the other container: a legacy file's config leaves the
module of each layer out, and an archive's needs that of the model itself
(keras/src/saving/serialization_lib.py, `deserialize_keras_object`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.keras.configs import spelling, values, verbatim
from lstmconvert.keras.configs.nodes import input_shape, node, snake_case
from lstmconvert.keras.modern import graph
from lstmconvert.keras.modern.classes import INPUT_KEYWORDS
from lstmconvert.keras.modern.operations import BARE
from lstmconvert.keras.modern.parts import Part, no_row, unsupported
from lstmconvert.keras.writing import emit
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import FLOATS

#: Keywords whose None is not what Keras 3 takes where they are left out.
_MEANING = frozenset({"merge_mode", "ngrams", "oov_token", "split", "standardize"})
_INPUT_SHAPES = ("batch_input_shape", "batch_shape")


class Emitter:
    """Serializes parts.

    Args:
        era: of the source.
        policy: the dtype policy of layers whose config says none.
        fitted: returns a neutral layer as Keras 3 can have it.
        graphs: of each functional model, its layers in Keras 3's order.
        notes: notes for the user; what is left out is added.

    Raises:
        UnsupportedByTarget: Keras 3 has no form for a value.
    """

    _spelling = emit.Spelling()

    def __init__(
        self,
        era: str,
        policy: str,
        fitted: Callable[[LSTMLayer], LSTMLayer],
        graphs: Mapping[Part, graph.CallGraph],
        notes: dict[str, None],
    ) -> None:
        self._notes = notes
        self._era, self._policy, self._fitted, self._graphs = era, policy, fitted, graphs

    def root(self, part: Part) -> JsonObject:
        """Return the serialized model."""
        if part.class_name == "Sequential" and not _starts_with_input(part):
            shape = input_shape_of(part)
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
            return self._spelling.layer_config(self._fitted(part.layer), part.name)
        if part.custom:
            return kept_class(part)
        if part.class_name == "Sequential" and part.is_model:
            starts = _starts_with_input(part)
            return self._sequential(part, None if starts else stated_shape(part))
        if part.is_model:
            return self._functional(part)
        if part.class_name == "InputLayer":
            return self._input(part.name, part.config, stated_shape(part))
        return spelling.serialized(spelling.LAYERS, part.class_name, self._keywords(part))

    # -- models ------------------------------------------------------------------------------

    def _sequential(self, part: Part, shape: list[int | None] | None) -> JsonObject:
        layers = [self._emit(child) for _, child in part.children]
        if shape is not None:
            first = part.children[0][1]
            layers.insert(0, self._input(input_name(part), innermost(first).config, shape))
        config: JsonObject = {"name": part.name, "layers": layers}
        result = spelling.serialized_model("Sequential", config)
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
        return spelling.serialized_model("Functional", config)

    def _input(
        self, name: str, config: JsonObject, shape: list[int | None] | None
    ) -> JsonObject:
        if shape is None:
            raise unsupported("an input without a shape", name, "batch_shape")
        dtype = input_dtype(config, self._policy, name)
        written: JsonObject = {"batch_shape": shape, "dtype": dtype, "name": name}
        if config.get("sparse") is True:
            written["sparse"] = True
        return spelling.serialized(spelling.LAYERS, "InputLayer", written)

    # -- layers ------------------------------------------------------------------------------

    def _keywords(self, part: Part) -> JsonObject:
        policy = self._policy_of(part)
        result: JsonObject = {"name": part.name}
        if part.weights or part.children:
            result.update(_frozen(part))
        if policy != spelling.DEFAULT_POLICY:
            result["dtype"] = policy
        stated = part.config.get("dtype")
        gives_places = part.config.get("output_mode") == "int"  # in other modes, a policy's numbers
        if gives_places and str(stated).lstrip("u").startswith("int"):
            result["dtype"] = stated
        for key, value in part.config.items():
            if key in ("name", "trainable", "dtype") or key in INPUT_KEYWORDS:
                continue
            if _is_custom(key, value, part.name):
                self._notes[spelling.left_out(part.name, key, value)] = None
            elif key in _MEANING or value is not None:
                result[key] = self._value(part, key, value, spelling.computed_in(policy))
        result.update(self._inner(part))
        return result

    def _policy_of(self, part: Part) -> str:
        stated = spelling.policy(part.config.get("dtype"), part.name)
        if stated is not None:
            return stated
        floats = [t.dtype.name for p in part.walk() for t in p.arrays if t.dtype.name in FLOATS]
        return floats[0] if floats else self._policy

    def _value(self, part: Part, key: str, value: Json, dtype: str) -> Json:
        written: Json = value
        if spelling.kind_of(key) is not None:
            written = spelling.spelled(key, value, part.name)
        elif key in ("activation", "recurrent_activation"):
            era = "keras3" if part.replaced else self._era
            function = values.activation(value, era, part.name)
            stated = _stated_dtype(value, part.name)
            written = spelling.activation(function, dtype, self._spelling.library, stated)
        if written is None and value is not None:
            what = f"{self._spelling.target} has no such {key}"
            raise unsupported(what, part.name, key, _short(value))
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


def kept_class(part: Part) -> JsonObject:
    """Return a layer of the user's own class as Keras 3 serializes it, its config as it stands: but
    for the shape of an input, which a layer of Keras 3 does not take, and a dtype that Keras 2
    states as an object. No module is named, so that Keras imports nothing for it."""
    config = {key: value for key, value in part.config.items() if key != "batch_input_shape"}
    if "name" in config:
        config["name"] = part.name
    policy = spelling.policy(config.get("dtype"), part.name)
    if policy is not None:
        config["dtype"] = policy
    written = spelling.serialized("", part.class_name, config)
    return {**written, "module": None, "registered_name": part.custom}


#: Class -> today's keyword -> what tf_keras calls it; None: it has none, and it changes no number
#: of a trained model.
_KEYWORDS_OF_KERAS2: Mapping[str, Mapping[str, str | None]] = {
    "LeakyReLU": {"negative_slope": "alpha"},
    "MultiHeadAttention": {"seed": None},
    "SimpleRNN": {"seed": None},
    "SimpleRNNCell": {"activity_regularizer": None},
    "GRUCell": {"activity_regularizer": None},
}
_INITIALIZERS = {today: name for name, today in spelling.OLDEST_NAMES.items()}
#: Classes that Keras 2 does not have.
_NOT_IN_KERAS2 = frozenset({"RMSNormalization"})
#: The module of a functional model; tf_keras puts `tf_` before it (tf_keras/src/saving).
_FUNCTIONAL_OF_KERAS2 = "keras.src.engine.functional"


class Keras2Emitter(Emitter):
    """Serializes parts for Keras 2: tf_keras, and tf.keras of TensorFlow 2.13 to 2.15."""

    _spelling = emit.Spelling("tf_keras")

    def _functional(self, part: Part) -> JsonObject:
        calls = self._graphs[part]
        if calls.operations:
            name, operation = next(iter(calls.operations.items()))
            what = "Keras 2 has no operations between layers as Keras 3 has them"
            raise unsupported(what, name, "function", operation.get("class_name"))
        late = {child.name for _, child in part.children if _counts_from_one(child)}
        layers: list[JsonObject] = []
        for _, child in part.children:
            made = [graph.keras2_call(c, child, late) for c in calls.calls[child.name]]
            layers.append({**self._emit(child), "name": child.name, "inbound_nodes": made})
        config = {
            "name": part.name,
            **_frozen(part),
            "layers": layers,
            "input_layers": graph.keras2_ends(calls.inputs, late),
            "output_layers": graph.keras2_ends(calls.outputs, late),
        }
        return {**keras2_model(part), "config": config}

    def _input(
        self, name: str, config: JsonObject, shape: list[int | None] | None
    ) -> JsonObject:
        written = super()._input(name, config, shape)
        stated = dict(written["config"])
        return {**written, "config": {"batch_input_shape": stated.pop("batch_shape"), **stated}}

    def _keywords(self, part: Part) -> JsonObject:
        if part.class_name in _NOT_IN_KERAS2:
            raise unsupported("Keras 2 has no such class", part.name, part.class_name)
        named = _KEYWORDS_OF_KERAS2.get(part.class_name, {})
        result: JsonObject = {}
        for key, value in super()._keywords(part).items():
            if (name := named.get(key, key)) is not None:
                result[name] = value
        if part.class_name == "MultiHeadAttention":
            # It reads these, and builds itself when it is called where they are unknown.
            result.update(dict.fromkeys(("query_shape", "key_shape", "value_shape")))
        return result

    def _value(self, part: Part, key: str, value: Json, dtype: str) -> Json:
        written = super()._value(part, key, value, dtype)
        if spelling.kind_of(key) == "initializer" and isinstance(written, dict):
            written["class_name"] = _INITIALIZERS.get(written["class_name"], written["class_name"])
        return written


def keras2_model(part: Part) -> JsonObject:
    """Return what Keras 2 says of the class of a model in an archive, but its config."""
    is_functional = part.class_name == "Functional"
    module = _FUNCTIONAL_OF_KERAS2 if is_functional else spelling.model_module(part.class_name)
    written = spelling.serialized(module, part.class_name, {})
    written["registered_name"] = part.class_name if is_functional else None
    return {key: value for key, value in written.items() if key != "config"}


def _counts_from_one(part: Part) -> bool:
    """Whether tf_keras counts the making of a nested model as its first call
    (tf_keras/src/engine/functional.py, `_should_skip_first_node`)."""
    if part.is_model and part.class_name == "Sequential":
        return _starts_with_input(part) or stated_shape(part) is not None
    return part.is_model


def without_modules(value: Json) -> Any:
    """Return a config as an `.h5` of Keras 2 has it, which names no modules."""
    if isinstance(value, list):
        return [without_modules(item) for item in value]
    if not isinstance(value, dict):
        return value
    gone = ("module", "registered_name", "build_config") if "class_name" in value else ()
    return {key: without_modules(item) for key, item in value.items() if key not in gone}


def _is_custom(keyword: str, value: Json, where: str) -> bool:
    """Whether a value is an initializer, regularizer or constraint of the user's own."""
    is_object = spelling.kind_of(keyword) is not None and value is not None
    return is_object and spelling.spelled(keyword, value, where) is None


def _stated_dtype(value: Json, where: str) -> JsonObject:
    """Return the dtype of the layer that replaces an activation, if it states one."""
    config = value.get("config") if isinstance(value, dict) else None
    stated = spelling.policy(config.get("dtype"), where) if isinstance(config, dict) else None
    return {"dtype": stated} if stated else {}


def _short(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _frozen(part: Part) -> JsonObject:
    return {} if part.trainable else {"trainable": False}


def written_input(part: Part) -> JsonObject:
    """Return the serialized InputLayer of a part that states its shape."""
    written: JsonObject = {
        "batch_shape": stated_shape(part),
        "dtype": spelling.policy(part.config.get("dtype"), part.name) or spelling.DEFAULT_POLICY,
        "name": part.name,
    }
    return spelling.serialized(spelling.LAYERS, "InputLayer", written)


def _starts_with_input(part: Part) -> bool:
    return bool(part.children) and part.children[0][1].class_name == "InputLayer"


def input_shape_of(part: Part) -> list[int | None] | None:
    """Return the input's shape of a Sequential: from its first layer, or what that layer's arrays
    allow; None where neither tells."""
    shape = stated_shape(part) or _shape(part.config.get("build_input_shape"))
    first = part.children[0][1] if part.children else part
    if shape is None and first.layer is not None:
        return list(input_shape(first.layer))
    if shape is None and first.class_name == "Embedding":
        return [None, None]
    return shape


def input_dtype(config: JsonObject, policy: str, name: str) -> str:
    """Return the dtype of a model's input.

    Args:
        config: of the InputLayer, or of the layer that is fed.
        policy: the dtype policy of layers whose config says none.
        name: of the layer, for errors.
    """
    dtype = config.get("dtype") or config.get("input_dtype")
    known = spelling.policy(dtype, name)
    if known is not None:
        return spelling.DEFAULT_POLICY if known.startswith("mixed_") else known
    if isinstance(dtype, str):
        return dtype
    return policy if policy in FLOATS else spelling.DEFAULT_POLICY


def innermost(part: Part) -> Part:
    """Return the first layer of a model, inside the models that it begins with."""
    while part.is_model and part.children:
        part = part.children[0][1]
    return part


def input_name(part: Part) -> str:
    """Return a name for the input of a Sequential that has no layer for it."""
    first = innermost(part)
    names = {child.name for _, child in part.children}
    name = f"{first.name or snake_case(first.class_name)}_input"
    while name in names:
        name = f"{name}_"
    return name


def stated_shape(part: Part) -> list[int | None] | None:
    """The input's shape, batch included, as the part's own config has it; a model's is that of its
    first layer."""
    while True:
        config = part.node.config
        for key in _INPUT_SHAPES:
            shape = _shape(config.get(key))
            if shape is not None:
                return shape
        shape = _shape(config.get("input_shape"))
        if shape is not None:
            return [None, *shape]
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


# -- a config of Keras 3 that is kept ----------------------------------------------------------


Fitted = Callable[[LSTMLayer], LSTMLayer]

def kept_config(
    root: Part, fitted: Fitted, text: str, notes: dict[str, None], *, anew: bool
) -> str:
    """Return the model's config for either container.

    Args:
        root: the model.
        fitted: returns a neutral layer as it is written.
        text: the source's config.
        notes: notes for the user; what is left out is added.
        anew: whether the configs of the LSTM layers no longer hold.
    """
    value = parse_object(text, "model_config")
    is_own = any(
        part.node.own_class or part.custom or _is_nested(part) for part in root.walk()
    )
    left_out: dict[str, None] = {}
    plain = _without_custom(value, left_out)
    notes.update(left_out)
    if not anew and "module" in value and not is_own and not left_out:
        return text
    return canonical(_stamped(plain, root, fitted, anew))


def _without_custom(value: Json, notes: dict[str, None], where: str = "") -> Any:
    """Return a config without initializers, regularizers and constraints of the user's own."""
    if isinstance(value, list):
        return [_without_custom(item, notes, where) for item in value]
    if not isinstance(value, dict):
        return value
    result: JsonObject = {}
    where = str(value.get("name") or where)
    for key, item in value.items():
        is_object = isinstance(item, dict) and isinstance(item.get("class_name"), str)
        if is_object and _is_custom(key, item, where):
            notes[spelling.left_out(where, key, item)] = None
        else:
            result[key] = _without_custom(item, notes, where)
    return result


def _is_nested(part: Part) -> bool:
    """Whether a part is written as one stack of cells, and its config has stacks in a stack."""
    return part.layer is not None and verbatim.is_nested(part.layer)


def _stamped(value: JsonObject, part: Part, fitted: Fitted, anew: bool) -> JsonObject:
    """Return an object with its module, and its LSTM layers spelled anew where they must be."""
    if part.node.own_class:
        written = spelling.serialized_model(part.class_name, {})
        value = {**value, **written, "config": value["config"]}
    if part.custom:
        written = kept_class(part)
        return {**value, **written, "config": value["config"]}
    if "module" not in value:
        module = _module_of(part)
        registered = part.class_name if module.startswith("keras.src.ops") else None
        value = {**value, "module": module, "registered_name": registered}
    config = value.get("config")
    if part.layer is not None:
        if not anew and not _is_nested(part):
            return value
        return {**value, **emit.Spelling().layer_config(fitted(part.layer), part.node.name)}
    if not isinstance(config, dict):
        return value
    if part.is_model:
        children = (child for _, child in part.children)
        layers = [
            item
            if node(item, part.name).is_operation
            else _stamped(item, next(children), fitted, anew)
            for item in config["layers"]
        ]
        return {**value, "config": {**config, "layers": layers}}
    if part.class_name == "TimeDistributed":
        inner = _stamped(config["layer"], part.children[0][1], fitted, anew)
        return {**value, "config": {**config, "layer": inner}}
    return value


def is_operation(part: Part) -> bool:
    """Whether a part is a bare operation, which has no weights, by a legacy file's config, in which
    Keras itself does not find it again."""
    # Concatenate is a layer too, and a layer says whether it is trainable.
    return part.class_name in BARE and "trainable" not in part.node.config


def _module_of(part: Part) -> str:
    if part.is_model:
        return spelling.model_module(part.class_name)
    if is_operation(part):
        return BARE[part.class_name]
    if part.opaque:
        raise no_row(part.name, part.class_name)
    return spelling.LAYERS
