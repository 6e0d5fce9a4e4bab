"""Options as JSON and back: the one spelling used in the per-gate file and by `inspect --json`.

Unknown is null, and is listed by name, because some options (merge_mode, seed) may be null and
known.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from lstmconvert.activations import MATHS_NAMES, Activation
from lstmconvert.errors import CorruptFile
from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.options import FLAGS, UNKNOWN, CellOptions, DirectionOptions, LayerOptions

Options = CellOptions | DirectionOptions | LayerOptions
AnyOptions = TypeVar("AnyOptions", CellOptions, DirectionOptions, LayerOptions)

_ACTIVATIONS = frozenset({"activation", "recurrent_activation", "output_activation"})


_OBJECTS = ("_initializer", "_regularizer", "_constraint")


def to_json(options: Options) -> JsonObject:
    """Return every option by name; unknown ones are null and named under `unknown`."""
    result: JsonObject = {}
    for field in fields(options):
        value = getattr(options, field.name)
        result[field.name] = value_to_json(value)
    result["unknown"] = unknown(options)
    return result


def unknown(options: Options) -> list[str]:
    """Return the names of the options that are unknown."""
    return [f.name for f in fields(options) if getattr(options, f.name) is UNKNOWN]


def value_to_json(value: Any) -> Json:
    """Return one option's value as JSON."""
    if value is UNKNOWN:
        return None
    if isinstance(value, Activation):
        return value.to_json()
    return value


def from_json(kind: type[AnyOptions], value: Json, where: str) -> AnyOptions:
    """Read options that `to_json` wrote.

    Raises:
        CorruptFile: an option is missing, unknown to this version, or of the wrong type.
    """
    names = {field.name for field in fields(kind)} | {"unknown"}
    if isinstance(value, dict) and "time_major" in value:
        value = {"keeps_time_order": False, **value}  # which the first writers did not say
    if not isinstance(value, dict) or set(value) != names:
        odd = sorted(names ^ set(value)) if isinstance(value, dict) else value
        raise CorruptFile("not the options of this format", where=where, found=str(odd)[:80])
    absent = value["unknown"]
    is_listed = isinstance(absent, list) and all(isinstance(name, str) for name in absent)
    if not is_listed or not names.issuperset(absent):
        raise CorruptFile("not a list of options", where=f"{where}.unknown")
    known: dict[str, Any] = {
        name: UNKNOWN if name in absent else _value(name, value[name], where)
        for name in names - {"unknown"}
    }
    return kind(**known)


def _value(name: str, value: Json, where: str) -> Any:
    if name in _ACTIVATIONS and value is not None:
        return activation_from_json(value, f"{where}.{name}")
    check_type(name, value, where)
    if name.endswith(_OBJECTS) and value is not None:
        texts = value.get("class_name"), value.get("registered_name", "")
        is_object = all(isinstance(text, str) for text in texts)
        if not is_object or not isinstance(value.get("config"), dict):
            raise CorruptFile(
                "not a serialized object", where=f"{where}.{name}", found=str(value)[:60]
            )
    return value


def activation_from_json(value: Json, where: str) -> Activation:
    """Read `{"name": …, …constants…}`.

    Raises:
        CorruptFile: it is not that.
    """
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise CorruptFile("not an activation", where=where, found=str(value)[:60])
    rest = {key: item for key, item in value.items() if key not in ("name", "custom")}
    is_custom = value.get("custom", False) is True
    is_number = all(
        isinstance(item, (int, float)) and not isinstance(item, bool) for item in rest.values()
    )
    if not is_number or (not is_custom and value["name"] not in MATHS_NAMES):
        raise CorruptFile("not an activation", where=where, found=str(value)[:60])
    return Activation(value["name"], rest, is_custom)


#: Those of Keras, and ours.
_FLAGS = (*FLAGS, "keeps_time_order", "masked", "input_forget")
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_FLAGS, (bool,)),
    **dict.fromkeys(("dropout", "recurrent_dropout", "forget_bias"), (int, float)),
    **dict.fromkeys(("gate_clip", "cell_clip", "projection_clip"), (int, float, type(None))),
    "seed": (int, type(None)),
    "policy": (str,),
    "merge_mode": (str, type(None)),
}


def check_type(name: str, value: Json, where: str) -> None:
    """Raise `CorruptFile` if `value` cannot be the value of the option `name`."""
    allowed = _TYPES.get(name, (dict, type(None)))
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise CorruptFile(
            "an option of the wrong type",
            where=f"{where}.{name}",
            found=str(value)[:60],
            expected=" or ".join(kind.__name__ for kind in allowed),
        )
