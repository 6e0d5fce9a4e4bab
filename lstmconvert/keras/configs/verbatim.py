"""What a layer's own config says, verbatim, of things that change no option of the neutral model.

Only a layer that is rebuilt for the Keras that wrote it asks: how a stack of cells is called and
computed, how tf_keras multiplies, whether a Bidirectional was given a backward layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs import values
from lstmconvert.model.layer import Direction, LSTMLayer
from lstmconvert.model.options import UNKNOWN


def arguments(layer: LSTMLayer, direction: Direction) -> JsonObject:
    """Return the keyword arguments of the LSTM or RNN that is one direction; {} if unknown."""
    known = _inner(layer.config)
    if layer.backward is None:
        return known
    if direction is layer.backward and is_given_backward(layer):
        return _inner(known["backward_layer"])
    return _inner(known.get("layer"))


def is_given_backward(layer: LSTMLayer) -> bool:
    """Whether the config of a Bidirectional states its backward layer, as Keras 3's always does."""
    return isinstance(_inner(layer.config).get("backward_layer"), dict)


def cells(layer: LSTMLayer, direction: Direction) -> list[JsonObject]:
    """Return the keyword arguments of each cell of a direction; those of an LSTM are its own."""
    known = arguments(layer, direction)
    if "cell" not in known:
        return [known]
    return list(_leaves(_inner(known["cell"])))


def _leaves(cell: JsonObject) -> Iterator[JsonObject]:
    """Yield the cells of a stack, and of the stacks in it; any other cell itself."""
    inside = cell.get("cells")
    if isinstance(inside, list):
        for item in inside:
            yield from _leaves(_inner(item))
    else:
        yield cell


def is_nested(layer: LSTMLayer) -> bool:
    """Whether a stack of cells of a layer holds another stack, by the layer's config."""
    for _, direction in layer.directions:
        inside = _inner(arguments(layer, direction).get("cell")).get("cells")
        if isinstance(inside, list) and any("cells" in _inner(item) for item in inside):
            return True
    return False


def is_stack(layer: LSTMLayer, direction: Direction) -> bool:
    """Whether the cells of a direction are a StackedRNNCells, which may be one of a single cell."""
    cell = _inner(arguments(layer, direction).get("cell"))
    return len(direction.cells) > 1 or isinstance(cell.get("cells"), list)


def stack(layer: LSTMLayer, direction: Direction) -> JsonObject:
    """Return the arguments of the StackedRNNCells of a direction, other than its cells: name,
    dtype policy, trainable. A policy is left out where the layer has another one now."""
    known = arguments(layer, direction)
    cell = _inner(known.get("cell"))
    result: JsonObject = {}
    if isinstance(cell.get("name"), str):
        result["name"] = cell["name"]
    if cell.get("trainable") is False:
        result["trainable"] = False
    outer = values.policy(known.get("dtype"), layer.name)
    if outer in (UNKNOWN, direction.options.policy):
        policy = values.policy(cell.get("dtype"), layer.name)
        if isinstance(policy, str):
            result["dtype"] = policy
    return result


def activation_layer(layer: LSTMLayer, option: str, class_name: str) -> JsonObject:
    """Return name and policy of the layer that replaces an activation, from the first
    cell of that option and class; {} if there is none."""
    stated = _inner(_activation_object(layer, option, class_name))
    policy = values.policy(stated.get("dtype"), layer.name)
    kept: JsonObject = {"name": stated.get("name"), "dtype": policy}
    return {key: item for key, item in kept.items() if isinstance(item, str)}


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
