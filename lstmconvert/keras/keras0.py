"""Keras 0.x: weights without names, and configs whose `name` is a class.

    layer_0/param_0, param_1, …      a Sequential's layers, by number (keras/models.py of Keras 0.3)
    graph/param_0, …                 a Graph's weights, in one group
    {"name": "Sequential", "layers": [{"name": "LSTM", "output_dim": 2, …}, …]}
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.keras.nodes import snake_case

_PARAM = re.compile(r"(layer_\d{1,6}|graph)/param_(\d{1,6})")


def weight_names(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return layer -> the names of its weights, in order; empty if the paths are not Keras 0.x's.

    Layers without weights leave an empty group, and have no part in it.
    """
    found: dict[tuple[int, str], dict[int, str]] = {}
    for path in paths:
        match = _PARAM.fullmatch(path)
        if match is None:
            return {}
        number = int(match[1].partition("_")[2] or 0)
        found.setdefault((number, match[1]), {})[int(match[2])] = path.partition("/")[2]
    if any(sorted(params) != list(range(len(params))) for params in found.values()):
        return {}
    return {
        layer: [params[index] for index in sorted(params)]
        for (_, layer), params in sorted(found.items())
    }


def is_config(value: Json) -> bool:
    """Whether a model's config is one of Keras 0.x."""
    return (
        isinstance(value, dict)
        and "class_name" not in value
        and value.get("name") == "Sequential"
        and isinstance(value.get("layers"), list)
    )


def modern(value: JsonObject) -> JsonObject:
    """Return a config of Keras 0.x as Keras 1 writes it; layers get a name where they have none."""
    layers = [_layer(item, index) for index, item in enumerate(value["layers"])]
    return {"class_name": "Sequential", "config": layers}


def _layer(value: Json, index: int) -> Json:
    if is_config(value):
        return modern(value)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return value
    class_name, own = value["name"], value.get("custom_name")
    config = {key: item for key, item in value.items() if key != "custom_name"}
    # Of the same class and unnamed, layers had their class's name all of them.
    is_default = not isinstance(own, str) or own in (class_name, class_name.lower())
    config["name"] = f"{snake_case(class_name)}_{index}" if is_default else own
    if class_name == "Merge" and isinstance(config.get("layers"), list):
        config["layers"] = [_layer(item, number) for number, item in enumerate(config["layers"])]
    return {"class_name": class_name, "config": config}
