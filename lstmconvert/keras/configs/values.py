"""Reading single values of a Keras config: types checked, names looked up in closed tables."""

from __future__ import annotations

import math
import re
from typing import Any

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, KERAS2, KERAS3, LINEAR, Activation
from lstmconvert.model.options import UNKNOWN, Unknown

#: Modules whose functions are Keras's own. Anything else is a user's, and only a name to us.
_KERAS_MODULES = ("keras", "tf_keras", "builtins")

#: Activation layers in the place of a function: class -> (our name, key in config -> constant).
_LAYERS: dict[str, tuple[str, dict[str, str]]] = {
    "ReLU": (
        "relu",
        {"max_value": "max_value", "negative_slope": "negative_slope", "threshold": "threshold"},
    ),
    "LeakyReLU": ("leaky_relu", {"negative_slope": "negative_slope", "alpha": "negative_slope"}),
    "ELU": ("elu", {"alpha": "alpha"}),
    "ThresholdedReLU": ("thresholded_relu", {"theta": "alpha"}),
    "Softmax": ("softmax", {}),
}

#: The Keras 3 composition that is Keras 2's hard_sigmoid: Rescaling(0.2, 0.5), ReLU(max_value=1).
COMPOSITION = (("Rescaling", {"scale": 0.2, "offset": 0.5}), ("ReLU", {"max_value": 1.0}))


def integer(value: Json, where: str, low: int = 1, high: int | None = None) -> int:
    """Return an integer that is not a bool and is in range.

    Raises:
        CorruptFile: it is not an integer, or out of range.
        LimitExceeded: it is above the limit, where there is no other bound.
    """
    if isinstance(value, float) and value.is_integer():  # JSON written by other languages
        value = int(value)
    most = limits.UNITS.value if high is None else high
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= most:
        if high is None and type(value) is int and value > most:
            limits.UNITS.check(value, where, "the number")
        raise CorruptFile(
            "not a valid integer", where=where, found=shown(value), expected=f"{low} to {most:,}"
        )
    return value


def flag(value: Json, where: str) -> bool:
    """Return a bool (0 and 1 count as such), or raise `CorruptFile`."""
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise CorruptFile(
        "not a boolean", where=where, found=shown(value), expected="true or false"
    )


def number(value: Json, where: str) -> float:
    """Return a finite number as float, or raise `CorruptFile`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CorruptFile("not a number", where=where, found=shown(value))
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if result - result != 0:  # 1e400 is read as infinity
        raise CorruptFile("not a finite number", where=where, found=shown(value))
    return result


def text(value: Json, where: str) -> str:
    """Return a string, or raise `CorruptFile`."""
    if not isinstance(value, str):
        raise CorruptFile("not a string", where=where, found=shown(value))
    return value


def shown(value: Json) -> str:
    """Return a value as a message shows it: short."""
    result = repr(value)
    return result if len(result) <= 60 else f"{result[:57]}…"


def activation(value: Json, era: str, where: str) -> Activation:
    """Return the function that an activation entry means to the Keras of `era`."""
    table = KERAS3 if era == "keras3" else KERAS2
    if value is None:
        return LINEAR
    if isinstance(value, str):
        return table.get(value) or Activation(value, custom=True)
    if not isinstance(value, dict):
        raise CorruptFile("not an activation", where=where, found=shown(value))
    return _activation_object(value, era, where)


def _activation_object(value: JsonObject, era: str, where: str) -> Activation:
    class_name, config = value.get("class_name"), value.get("config")
    if not isinstance(class_name, str):
        raise CorruptFile("an activation without a class_name", where=where, found=shown(value))
    if class_name == "function" and isinstance(config, str) and _is_keras(value):
        return activation(config, era, where)
    if class_name == "Activation" and isinstance(config, dict):
        return activation(config.get("activation"), era, where)
    if is_composition(value):
        return HARD_SIGMOID_KERAS2
    if class_name in _LAYERS and isinstance(config, dict) and _is_keras(value):
        name, keys = _LAYERS[class_name]
        constants = {
            ours: number(config[key], f"{where}.{key}")
            for key, ours in keys.items()
            if config.get(key) is not None
        }
        return Activation(name, constants)
    label = value.get("registered_name") or (config if isinstance(config, str) else class_name)
    return Activation(str(label), custom=True)


def _is_keras(value: JsonObject) -> bool:
    module, registered = value.get("module"), value.get("registered_name")
    inside = module is None or str(module).split(".")[0] in _KERAS_MODULES
    # A class that was never registered has no module, and its own name as the registered one.
    never = "module" in value and module is None
    return inside and not (isinstance(registered, str) and (">" in registered or never))


def is_composition(value: Json) -> bool:
    """Whether an activation object is Keras 2's hard_sigmoid spelled in Keras 3's own layers."""
    if not isinstance(value, dict) or value.get("class_name") != "Sequential":
        return False
    config = value.get("config")
    layers = config.get("layers", []) if isinstance(config, dict) else []
    layers = [x for x in layers if isinstance(x, dict) and x.get("class_name") != "InputLayer"]
    return len(layers) == len(COMPOSITION) and all(
        layer.get("class_name") == class_name and _has(layer.get("config"), wanted)
        for layer, (class_name, wanted) in zip(layers, COMPOSITION, strict=True)
    )


def _has(config: Json, wanted: dict[str, float]) -> bool:
    # Every other constant of these layers must be at its neutral default.
    neutral = {"negative_slope": 0.0, "threshold": 0.0}
    return isinstance(config, dict) and all(
        (config.get(key) == value) for key, value in wanted.items()
    ) and all(config.get(key, value) in (None, value) for key, value in neutral.items())


#: Names of Keras's own initializers, regularizers and constraints that are not today's class name
#: nor its snake_case spelling.
_IRREGULAR = {
    "l1": "L1",
    "l2": "L2",
    "l1l2": "L1L2",
    "l1_l2": "L1L2",
    "one": "Ones",
    "zero": "Zeros",
    "uniform": "RandomUniform",
    "normal": "RandomNormal",
    "maxnorm": "MaxNorm",
    "nonneg": "NonNeg",
    "unitnorm": "UnitNorm",
    "lecun_uniform": "LecunUniform",
    # Keras 1 had one class for all penalties, under several names (keras/regularizers.py, 1.2.2).
    "WeightRegularizer": "L1L2",
    "L1L2Regularizer": "L1L2",
    "ActivityRegularizer": "L1L2",
    "OrthogonalInitializer": "Orthogonal",
    "IdentityInitializer": "Identity",
}


#: Keras 1's keywords that are called otherwise today (keras/constraints.py, 1.2.2).
_RENAMED_KEYS = {"m": "max_value"}


#: The constants of those classes that are defaults of an LSTM layer, and are called by name alone.
_CONSTANTS = {"Orthogonal": {"gain": 1.0}}


def object_spec(value: Json, where: str) -> JsonObject | None:
    """Return an initializer, regularizer or constraint as `{"class_name", "config"}`.

    Nulls of its config are dropped, and the default's constant is stated, so that the spellings of
    different Keras versions compare equal; a class that is not Keras's own keeps its
    `registered_name`.
    """
    if value is None:
        return None
    if isinstance(value, str):
        camel = re.sub(r"(?:^|_)([a-z0-9])", lambda m: m[1].upper(), value)
        name = _IRREGULAR.get(value, camel)
        return {"class_name": name, "config": dict(_CONSTANTS.get(name, {}))}
    if isinstance(value, dict) and "class_name" not in value and isinstance(value.get("name"), str):
        # Keras 1: {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}
        rest = {key: item for key, item in value.items() if key != "name"}
        value = {"class_name": value["name"], "config": rest}
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        raise CorruptFile("not a serialized object", where=where, found=shown(value))
    config = value.get("config") or {}
    if not isinstance(config, dict):
        config = {"value": config}
    class_name = value["class_name"]
    spec: JsonObject = {
        "class_name": _IRREGULAR.get(class_name, class_name),
        "config": {key: item for key, item in config.items() if item is not None},
    }
    if _is_keras(value):
        # TensorFlow 1 gave its initializers a dtype, which does nothing and is not an argument now.
        spec["config"].pop("dtype", None)
        for old in _RENAMED_KEYS.keys() & spec["config"].keys():
            spec["config"][_RENAMED_KEYS[old]] = spec["config"].pop(old)
        spec["config"] = {**_CONSTANTS.get(spec["class_name"], {}), **spec["config"]}
    else:
        spec["registered_name"] = value.get("registered_name") or class_name
    return spec


def policy(value: Json, where: str) -> str | Unknown:
    """Return the name of a dtype policy: a string, or a serialized (D)TypePolicy object."""
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    name: Any = value
    if isinstance(value, dict):
        config = value.get("config")
        name = config.get("name") if isinstance(config, dict) else value.get("name")
    return text(name, where)
