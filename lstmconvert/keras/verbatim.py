"""What a layer's own config says, verbatim, of things that change no option of the neutral model.

Only a layer that is rebuilt for the Keras that wrote it asks: how a stack of cells is called and
computed, how tf_keras multiplies, whether a Bidirectional was given a backward layer.
"""

from __future__ import annotations

from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.keras import values
from lstmconvert.layer import Direction, LSTMLayer
from lstmconvert.options import UNKNOWN


def arguments(layer: LSTMLayer, direction: Direction) -> JsonObject:
    """Return the keyword arguments of the LSTM or RNN that is one direction; {} if unknown."""
    own = _inner(layer.config)
    if layer.backward is None:
        return own
    if direction is layer.backward and is_given_backward(layer):
        return _inner(own["backward_layer"])
    return _inner(own.get("layer"))


def is_given_backward(layer: LSTMLayer) -> bool:
    """Whether the config of a Bidirectional states its backward layer, as Keras 3's always does."""
    return isinstance(_inner(layer.config).get("backward_layer"), dict)


def cells(layer: LSTMLayer, direction: Direction) -> list[JsonObject]:
    """Return the keyword arguments of each cell of a direction; those of an LSTM are its own."""
    known = arguments(layer, direction)
    if "cell" not in known:
        return [known]
    cell = _inner(known["cell"])
    inside = cell.get("cells")
    return [_inner(item) for item in inside] if isinstance(inside, list) else [cell]


def is_stack(layer: LSTMLayer, direction: Direction) -> bool:
    """Whether the cells of a direction are a StackedRNNCells, which may be one of a single cell."""
    cell = _inner(arguments(layer, direction).get("cell"))
    return len(direction.cells) > 1 or isinstance(cell.get("cells"), list)


def stack(layer: LSTMLayer, direction: Direction) -> JsonObject:
    """Return the arguments of the StackedRNNCells of a direction that have a say beside its cells:
    name, dtype policy, trainable. A policy is left out where the layer has another one by now."""
    known = arguments(layer, direction)
    cell = _inner(known.get("cell"))
    result: JsonObject = {}
    if isinstance(cell.get("name"), str):
        result["name"] = cell["name"]
    if cell.get("trainable") is False:
        result["trainable"] = False
    outer = values.policy(known.get("dtype"), layer.name)
    if outer in (UNKNOWN, direction.options.policy):
        own = values.policy(cell.get("dtype"), layer.name)
        if isinstance(own, str):
            result["dtype"] = own
    return result


def activation_layer(layer: LSTMLayer, option: str, class_name: str) -> JsonObject:
    """Return name and policy of the layer that stands in the place of an activation, from the first
    cell of that option and class; {} if there is none."""
    said = _inner(_activation_object(layer, option, class_name))
    policy = values.policy(said.get("dtype"), layer.name)
    found: JsonObject = {"name": said.get("name"), "dtype": policy}
    return {key: item for key, item in found.items() if isinstance(item, str)}


def activation_build(layer: LSTMLayer, option: str, class_name: str) -> JsonObject:
    """Return the `build_config` of that layer, which tf_keras states of one that was called."""
    build = _activation_object(layer, option, class_name).get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    is_shape = isinstance(shape, list) and all(x is None or type(x) is int for x in shape)
    return {"build_config": {"input_shape": shape}} if is_shape else {}


def _activation_object(layer: LSTMLayer, option: str, class_name: str) -> JsonObject:
    for _, direction in layer.directions:
        for known in cells(layer, direction):
            value = known.get(option)
            if isinstance(value, dict) and value.get("class_name") == class_name:
                return value
    return {}


def _inner(value: Json) -> JsonObject:
    config = value.get("config") if isinstance(value, dict) else None
    return config if isinstance(config, dict) else {}
