"""What the user supplies for what a file does not say: `--set [LAYER.]OPTION=VALUE`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from lstmconvert import optionjson
from lstmconvert.activations import KERAS2, KERAS3, MATHS_NAMES, Activation
from lstmconvert.errors import CorruptFile, UsageError
from lstmconvert.layer import Cell, Direction, LSTMLayer
from lstmconvert.model import Model, unknown_layer
from lstmconvert.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions
from lstmconvert.records import dataclass

_ACTIVATIONS = ("activation", "recurrent_activation", "output_activation")
NAMES: tuple[str, ...] = tuple(
    dict.fromkeys(
        field.name
        for kind in (CellOptions, DirectionOptions, LayerOptions)
        for field in fields(kind)
    )
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One option's value, for one layer, or for all where `layer` is None."""

    layer: str | None
    option: str
    value: Any


def parse(text: str, era: str | None) -> Setting:
    """Parse `[LAYER.]OPTION=VALUE`.

    Args:
        text: the setting. A value is JSON (`true`, `0.5`, `null`), or a bare word; an activation
            is a name, with constants where it needs them: `hard_sigmoid(alpha=0.2)`.
        era: the Keras whose names are meant, if it is known.

    Raises:
        UsageError: no such option, or no such value.
    """
    key, equals, value = text.partition("=")
    layer, _, option = key.rpartition(".")
    if option not in NAMES:
        close = get_close_matches(option, NAMES, n=1)
        raise UsageError(
            "--set: no such option",
            found=option or text,
            expected="[LAYER.]OPTION=VALUE",
            hint=f"did you mean {close[0]}?"
            if close
            else "lstmconvert inspect --json lists a layer's options, and which are unknown",
        )
    if not equals:
        raise UsageError(
            "--set: an option without a value",
            found=text,
            expected="[LAYER.]OPTION=VALUE",
            hint=f"--set {text}=VALUE",
        )
    if option in _ACTIVATIONS:
        return Setting(layer or None, option, _activation(value, era))
    return Setting(layer or None, option, _plain(value, option))


def _plain(value: str, option: str) -> Any:
    spelled = {"true": "true", "false": "false", "none": "null", "null": "null"}
    lowered = spelled.get(value.lower(), value)
    try:
        parsed = json.loads(lowered)
    except ValueError:
        parsed = value
    try:
        optionjson.check_type(option, parsed, "--set")
    except CorruptFile as error:
        raise UsageError(
            "--set has a value of the wrong type",
            where=option,
            found=value,
            expected=error.expected and error.expected.replace("NoneType", "none"),
        ) from None
    return parsed


_CALL = re.compile(r"(\w+)(?:\((.*)\))?")
_NUMBER = re.compile(r"\s*(\w+)\s*=\s*(-?[\d.]+(?:e-?\d+)?)\s*(?:/\s*([\d.]+))?\s*", re.IGNORECASE)


def _activation(text: str, era: str | None) -> Activation:
    match = _CALL.fullmatch(text.strip())
    if match is None:
        raise UsageError("not an activation", found=text, expected="a name, such as sigmoid")
    name, arguments = match.groups()
    if arguments is not None:
        return Activation(_known(name), _constants(arguments, text))
    table = KERAS2 if era in ("keras1", "keras2") else KERAS3
    if name == "hard_sigmoid" and era is None:
        raise UsageError(
            "hard_sigmoid is two functions: Keras 1 and 2 clip 0.2*x+0.5, Keras 3 clips x/6+0.5",
            found=text,
            expected="hard_sigmoid(alpha=0.2,beta=0.5) or hard_sigmoid(alpha=1/6,beta=0.5)",
        )
    if name not in table:
        _known(name)
    return table[name]


def _known(name: str) -> str:
    if name not in MATHS_NAMES:
        close = get_close_matches(name, MATHS_NAMES, n=1)
        raise UsageError(
            "no such activation",
            found=name,
            expected=", ".join(sorted(MATHS_NAMES)),
            hint=f"did you mean {close[0]}?" if close else None,
        )
    return name


def _constants(text: str, whole: str) -> dict[str, float]:
    result = {}
    for part in text.split(","):
        match = _NUMBER.fullmatch(part)
        if match is None:
            raise UsageError("not an activation's constants", found=whole, expected="alpha=0.2")
        name, number, divisor = match.groups()
        try:
            result[name] = float(number) / float(divisor or 1)
        except (ValueError, ZeroDivisionError):  # such as 1.2.3, and 1/0
            raise UsageError("not a number", found=part.strip(), expected="alpha=0.2") from None
    return result


def apply(model: Model, texts: tuple[str, ...]) -> Model:
    """Return the model with the settings filled in.

    Raises:
        UsageError: a setting names no option or no layer, or contradicts what the file says.
    """
    settings = [parse(text, model.source.era) for text in texts]
    names = {layer.name: layer for layer in model.layers}
    for setting in settings:
        if setting.layer is not None and setting.layer not in names:
            raise unknown_layer(setting.layer, names)
    layers = tuple(
        _apply(layer, [s for s in settings if s.layer in (None, layer.name)])
        for layer in model.layers
    )
    return replace(model, layers=layers)


def _apply(layer: LSTMLayer, settings: list[Setting]) -> LSTMLayer:
    if not settings:
        return layer
    values = {setting.option: setting.value for setting in settings}
    backward = layer.backward
    return replace(
        layer,
        forward=_direction(layer.forward, values, layer.name),
        backward=_direction(backward, _turned(values), layer.name) if backward else None,
        options=_filled(layer.options, values, layer.name),
    )


def _turned(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a backward half: it runs the other way than the forward one, always
    (keras/src/layers/rnn/bidirectional.py refuses two halves that run the same way)."""
    if "go_backwards" not in values:
        return values
    return {**values, "go_backwards": not values["go_backwards"]}


def _direction(direction: Direction, values: Mapping[str, Any], where: str) -> Direction:
    return replace(
        direction,
        options=_filled(direction.options, values, where),
        cells=tuple(
            replace(cell, options=_filled(cell.options, values, where))
            if isinstance(cell, Cell)
            else cell
            for cell in direction.cells
        ),
    )


def _filled(options: Any, values: Mapping[str, Any], where: str) -> Any:
    changes = {}
    for field in fields(options):
        if field.name not in values:
            continue
        old, new = getattr(options, field.name), values[field.name]
        if old is not UNKNOWN and old != new:
            raise UsageError(
                "the file says otherwise: --set supplies what a file does not say",
                where=f"{where}.{field.name}",
                found=optionjson.value_to_json(old),
                expected=optionjson.value_to_json(new),
            )
        changes[field.name] = new
    return replace(options, **changes)
