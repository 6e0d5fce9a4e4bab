"""The config of a Keras 3 model, kept as it is, for the other container.

A legacy file's config leaves the module of each layer out, and an archive's needs that of the model
itself (keras/src/saving/serialization_lib.py, `deserialize_keras_object`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lstmconvert.jsontext import JsonObject, canonical, parse_object
from lstmconvert.keras import emit
from lstmconvert.keras.modern.operations import OPERATIONS
from lstmconvert.keras.modern.parts import Part, no_row
from lstmconvert.keras.nodes import node
from lstmconvert.layer import LSTMLayer

Fitted = Callable[[LSTMLayer], LSTMLayer]

_MODULES = {"Sequential": "keras", "Functional": "keras.src.models.functional"}
#: Bare operations, those too that Keras 3 puts into a model of its own accord to compute masks.
#: Keras itself does not find them again when a legacy file names them.
_MASKING = ("NotEqual", "Any", "All", "ZerosLike", "OnesLike", "LogicalOr", "LogicalAnd")
_OPERATIONS: Mapping[str, str] = {
    **dict.fromkeys(_MASKING, "keras.src.ops.numpy"),
    **{o.class_name: o.module for o in OPERATIONS.values() if o.module.startswith("keras.src.ops")},
}


def config(root: Part, fitted: Fitted | None, text: str) -> str:
    """Return the model's config for either container.

    Args:
        root: the model.
        fitted: returns a neutral layer as it is written; None if its config still holds.
        text: the source's config.
    """
    value = parse_object(text, "model_config")
    if fitted is None and "module" in value:
        return text
    return canonical(_stamped(value, root, fitted))


def _stamped(value: JsonObject, part: Part, fitted: Fitted | None) -> JsonObject:
    """Return an object with its module, and its LSTM layers spelled anew if they are fitted."""
    if "module" not in value:
        module = _module(part)
        registered = part.class_name if module.startswith("keras.src.ops") else None
        value = {**value, "module": module, "registered_name": registered}
    config = value.get("config")
    if part.layer is not None:
        if fitted is None:
            return value
        return {**value, **emit.Spelling().layer_config(fitted(part.layer), part.node.name)}
    if not isinstance(config, dict):
        return value
    if part.is_model:
        children = (child for _, child in part.children)
        layers = [
            item if node(item, part.name).is_operation else _stamped(item, next(children), fitted)
            for item in part.node.listed("layers")
        ]
        return {**value, "config": {**config, "layers": layers}}
    if part.class_name == "TimeDistributed":
        inner = _stamped(config["layer"], part.children[0][1], fitted)
        return {**value, "config": {**config, "layer": inner}}
    return value


def is_operation(part: Part) -> bool:
    """Whether a part is a bare operation, which has no weights, by a legacy file's config."""
    # Concatenate is a layer too, and a layer says whether it is trainable.
    return part.class_name in _OPERATIONS and "trainable" not in part.node.config


def _module(part: Part) -> str:
    if part.is_model:
        return _MODULES.get(part.class_name, "keras")
    if is_operation(part):
        return _OPERATIONS[part.class_name]
    if part.opaque:
        raise no_row(part.name, part.class_name)
    return "keras.layers"
