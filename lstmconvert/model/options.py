"""The options of a layer, its directions and its cells. Each is typed, or unknown.

Their JSON is the one spelling used in the per-gate file and by `inspect --json`. Unknown is null
there, and is listed by name, because some options (merge_mode, seed) may be null and known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Literal, TypeVar

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.model.activations import MATHS_NAMES, Activation


class Unknown(Enum):
    """The type of `UNKNOWN`: what a file does not say. It is false, and null in JSON."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "unknown"

    __str__ = __repr__

    def __bool__(self) -> Literal[False]:
        return False


UNKNOWN = Unknown.UNKNOWN

#: The options of Keras's layers and cells that are true or false.
FLAGS = (
    "use_bias",
    "unit_forget_bias",
    "trainable",
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "time_major",
    "zero_output_for_mask",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """What the weights of one step do. An option is `UNKNOWN` if no file states it.

    `activation` is applied to the cell gate and, unless there is an `output_activation`, to the
    cell state to get the output; `recurrent_activation` to the input, forget and output gate. The
    initializers, regularizers and constraints are `{"class_name", "config"}` objects, or None.
    `unit_forget_bias` is how the bias was initialised: it never changes a stored number, whereas
    `forget_bias` is added at run time. `convolution` is set for ConvLSTM only: kernel_size,
    strides, padding, data_format, dilation_rate.
    """

    activation: Activation | Unknown = UNKNOWN
    recurrent_activation: Activation | Unknown = UNKNOWN
    output_activation: Activation | None = None
    use_bias: bool | Unknown = UNKNOWN
    unit_forget_bias: bool | Unknown = UNKNOWN
    dropout: float | Unknown = UNKNOWN
    recurrent_dropout: float | Unknown = UNKNOWN
    seed: int | Unknown | None = UNKNOWN
    kernel_initializer: Any = UNKNOWN
    recurrent_initializer: Any = UNKNOWN
    bias_initializer: Any = UNKNOWN
    kernel_regularizer: Any = UNKNOWN
    recurrent_regularizer: Any = UNKNOWN
    bias_regularizer: Any = UNKNOWN
    kernel_constraint: Any = UNKNOWN
    recurrent_constraint: Any = UNKNOWN
    bias_constraint: Any = UNKNOWN
    trainable: bool | Unknown = UNKNOWN
    policy: str | Unknown = UNKNOWN
    gate_clip: float | Unknown | None = None
    cell_clip: float | Unknown | None = None
    projection_clip: float | Unknown | None = None
    input_forget: bool = False
    forget_bias: float | Unknown = 0.0
    convolution: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionOptions:
    """How the cells of one direction are run over time. `UNKNOWN`: no file states the option.

    With `go_backwards` the input is read from its end, and Keras returns the sequence reversed.
    With `keeps_time_order` the sequence comes in the order of the input, as from ONNX's `reverse`.
    It is for a layer of one direction: a Bidirectional always reverses its backward half's output.
    `policy` is the name of the dtype policy (`float32`, `mixed_float16`, …).
    """

    return_sequences: bool | Unknown = UNKNOWN
    return_state: bool | Unknown = UNKNOWN
    go_backwards: bool | Unknown = UNKNOWN
    stateful: bool | Unknown = UNKNOWN
    unroll: bool | Unknown = UNKNOWN
    time_major: bool | Unknown = UNKNOWN
    keeps_time_order: bool = False
    zero_output_for_mask: bool | Unknown = UNKNOWN
    activity_regularizer: Any = UNKNOWN
    trainable: bool | Unknown = UNKNOWN
    policy: str | Unknown = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """Options of the layer as a whole.

    `merge_mode` is that of a Bidirectional (`concat`, `sum`, `mul`, `ave` or None: two outputs).
    `masked` says whether a mask reaches the layer in its model. `trainable` and `policy` are those
    of the outer layer.
    """

    merge_mode: str | Unknown | None = UNKNOWN
    masked: bool | Unknown = UNKNOWN
    trainable: bool | Unknown = UNKNOWN
    policy: str | Unknown = UNKNOWN


Options = CellOptions | DirectionOptions | LayerOptions
AnyOptions = TypeVar("AnyOptions", CellOptions, DirectionOptions, LayerOptions)

_ACTIVATIONS = frozenset({"activation", "recurrent_activation", "output_activation"})


_OBJECTS = ("_initializer", "_regularizer", "_constraint")


def options_to_json(options: Options) -> JsonObject:
    """Return every option by name; unknown ones are null and named under `unknown`."""
    names = option_names(type(options))
    result: JsonObject = {name: value_to_json(getattr(options, name)) for name in names}
    result["unknown"] = unknown_names(options)
    return result


def unknown_names(options: Options) -> list[str]:
    """Return the names of the options that are unknown."""
    return [name for name in option_names(type(options)) if getattr(options, name) is UNKNOWN]


def option_names(kind: object) -> tuple[str, ...]:
    """Return the names of a kind's options: of one of the three data classes."""
    return _NAMES[kind]


#: Made once, as thousands of layers may ask for them.
_NAMES: dict[object, tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (CellOptions, DirectionOptions, LayerOptions)
}


def value_to_json(value: Any) -> Json:
    """Return one option's value as JSON."""
    if value is UNKNOWN:
        return None
    if isinstance(value, Activation):
        return value.to_json()
    return value


def options_from_json(kind: type[AnyOptions], value: Json, where: str) -> AnyOptions:
    """Read options that `to_json` wrote.

    Raises:
        CorruptFile: an option is missing, unknown to this version, or of the wrong type.
    """
    names = {*option_names(kind), "unknown"}
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
