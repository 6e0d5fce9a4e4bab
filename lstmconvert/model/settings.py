"""Options that a file does not say and the user supplies.

They come from `--set [LAYER.]OPTION=VALUE`, or from another description of the same layers
(`--config FILE`). Nothing that is known is replaced: where the two disagree, the caller gets an
error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from lstmconvert.errors import CorruptFile, UsageError, close_to
from lstmconvert.model import edit
from lstmconvert.model.activations import KERAS2, KERAS3, MATHS_NAMES, Activation
from lstmconvert.model.layer import Cell, Direction, LSTMLayer
from lstmconvert.model.model import Model, unknown_layer
from lstmconvert.model.options import (
    UNKNOWN,
    CellOptions,
    DirectionOptions,
    LayerOptions,
    check_type,
    value_to_json,
)
from lstmconvert.tensors.dtypes import name_of
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import is_zero

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
        UsageError: the option or its value is unknown.
    """
    key, equals, value = text.partition("=")
    layer, _, option = key.rpartition(".")
    if option not in NAMES:
        raise UsageError(
            "--set: no such option",
            found=option or text,
            expected=f"[LAYER.]OPTION=VALUE, with one of {', '.join(NAMES)}",
            hint=close_to(option, NAMES)
            or "lstmconvert inspect --json says which options of a layer are unknown",
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


#: Types, and how `--set` spells their values.
_VALUES_OF = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text",
    "NoneType": "none", "dict": "an object of JSON", "list": "a list of JSON",
}  # fmt: skip
_TYPE_NAME = re.compile(rf"\b({'|'.join(_VALUES_OF)})\b")


def _plain(value: str, option: str) -> Any:
    spelled = {"true": "true", "false": "false", "none": "null", "null": "null"}
    lowered = spelled.get(value.lower(), value)
    try:
        parsed = json.loads(lowered)
    except ValueError:
        parsed = value
    try:
        check_type(option, parsed, "--set")
    except CorruptFile as error:
        raise UsageError(
            "--set has a value of the wrong type",
            where=option,
            found=value,
            expected=_TYPE_NAME.sub(lambda name: _VALUES_OF[name[0]], error.expected or ""),
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
        raise UsageError(
            "no such activation",
            found=name,
            expected=", ".join(sorted(MATHS_NAMES)),
            hint=close_to(name, MATHS_NAMES),
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
    of_side = {"forward": values, "backward": _turned(values)}
    layer = edit.map_directions(
        layer,
        lambda side, direction: replace(
            direction, options=_filled(direction.options, of_side[side], layer.name)
        ),
    )
    layer = edit.map_cells(
        layer,
        lambda side, _, cell: replace(
            cell, options=_filled(cell.options, of_side[side], layer.name)
        ),
    )
    return replace(layer, options=_filled(layer.options, values, layer.name))


def _turned(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a backward half, which always runs the other way than the forward half
    (keras/src/layers/rnn/bidirectional.py refuses two halves that run the same way)."""
    if "go_backwards" not in values:
        return values
    return {**values, "go_backwards": not values["go_backwards"]}


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
                found=value_to_json(old),
                expected=value_to_json(new),
                hint="leave the setting away; what a file says is changed where it was made: set "
                "the option in Keras and save the model again",
            )
        changes[field.name] = new
    return replace(options, **changes)


Options = TypeVar("Options")
#: Options that a config of Keras does not say, so that its word on them is not a contradiction.
_FOREIGN = frozenset(
    {
        *("gate_clip", "cell_clip", "projection_clip", "input_forget", "forget_bias"),
        *("keeps_time_order", "output_activation"),
    }
)
#: Keys that tell how an object was made, and change nothing about it.
_SPELLING = ("module", "registered_name", "build_config", "shared_object_id")
_HINT = "give the config of this model, or leave --config away"


def filled(model: Model, described: Sequence[LSTMLayer], where: str) -> Model:
    """Return a model whose unknown options are those of the same layers in a description.

    Args:
        model: the model.
        described: layers with options, whose weights do not count.
        where: what describes them, for errors.

    Raises:
        UsageError: the description is of other layers, or says other than the file.
    """
    pairs = _pairs(model.layers, described, where)
    layers = tuple(
        _layer(layer, pairs[layer.name], where) if layer.name in pairs else layer
        for layer in model.layers
    )
    return replace(model, layers=layers)


def _pairs(
    layers: Sequence[LSTMLayer], described: Sequence[LSTMLayer], where: str
) -> dict[str, LSTMLayer]:
    """Return the description of each layer that has one: by name, else by order."""
    by_name = {other.name: other for other in described}
    configs = [other.config for other in described]
    if not described or any(layer.config and layer.config in configs for layer in layers):
        # The layers were found by this very config: others are inside layers of a user's class.
        pairs = [(layer, by_name[layer.name]) for layer in layers if layer.name in by_name]
    elif all(layer.name in by_name for layer in layers):
        pairs = [(layer, by_name[layer.name]) for layer in layers]
    elif len(layers) == len(described):
        pairs = list(zip(layers, described, strict=True))
    else:
        raise UsageError(
            "the config is of another model",
            where=where,
            found=_listed(described),
            expected=_listed(layers),
            hint=_HINT,
        )
    for layer, other in pairs:
        if _form(layer) != _form(other) or not _takes(layer, other):
            raise UsageError(
                "the config is of another model",
                where=f"{where}: {other.name}",
                found=_description(other),
                expected=_description(layer),
                hint=_HINT,
            )
    return {layer.name: other for layer, other in pairs}


def _form(layer: LSTMLayer) -> list[tuple[str, tuple[int, ...]]]:
    """Return the units of every cell, by direction."""
    return [
        (side, tuple(cell.units if isinstance(cell, Cell) else 0 for cell in direction.cells))
        for side, direction in layer.directions
    ]


def _takes(layer: LSTMLayer, other: LSTMLayer) -> bool:
    """Whether the layer's weights are for the inputs that the description states, if it does."""
    stated = other.input_shape[-1] if other.input_shape else None
    return stated is None or stated == layer.input_dim


def _description(layer: LSTMLayer) -> str:
    units = "+".join("/".join(map(str, sizes)) for _, sizes in _form(layer))
    stated = layer.input_shape[-1] if layer.input_shape else None
    inputs = f", {stated} inputs" if stated is not None else ""
    return f"{layer.class_name} of {units} units{inputs}"


def _listed(layers: Sequence[LSTMLayer]) -> str:
    shown = ", ".join(f"{layer.name} ({_description(layer)})" for layer in layers[:5])
    return f"{len(layers)} LSTM layers: {shown}{', …' if len(layers) > 5 else ''}"


def _layer(layer: LSTMLayer, other: LSTMLayer, where: str) -> LSTMLayer:
    if layer.config is not None and layer.config == other.config:
        return layer  # it was read by this very config
    place, halves = f"{where}: {other.name}", dict(other.directions)
    dtype = name_of(layer.dtype)

    def direction(side: str, known: Direction) -> Direction:
        stated = halves[side]
        return replace(
            known,
            options=_options(known.options, stated.options, place, dtype),
            name=known.name or stated.name,
            class_name=known.class_name or stated.class_name,
        )

    def cell(side: str, index: int, known: Cell) -> Cell:
        stated = halves[side].cells[index]
        if not isinstance(stated, Cell):
            return known
        return replace(
            known,
            options=_options(_opened(known, stated), stated.options, place, dtype),
            name=known.name or stated.name,
            class_name=known.class_name or stated.class_name,
        )

    done = edit.map_cells(edit.map_directions(layer, direction), cell)
    done = replace(done, options=_options(layer.options, other.options, place, dtype))
    if layer.config is not None:
        return done
    return replace(
        done,
        class_name=other.class_name,
        config=other.config,
        input_shape=layer.input_shape or other.input_shape,
    )


def _opened(known: Cell, stated: Cell) -> CellOptions:
    """Return a cell's options without what looks known and is not."""
    options = known.options
    if options.convolution is None and stated.options.convolution is not None:
        options = replace(options, convolution=stated.options.convolution)
    if stated.options.use_bias is False and all(map(is_zero, _biases(known))):
        # A framework that always has a bias stores zeros for a layer without one.
        options = replace(options, use_bias=False)
    return options


def _biases(cell: Cell) -> Iterator[Tensor]:
    for weights in cell.gates.values():
        for part in ("bias", "recurrent_bias"):
            if part in weights.tensors:
                yield weights.tensors[part]


def _options(known: Options, stated: Options, place: str, dtype: str) -> Options:
    changes: dict[str, Any] = {}
    for field in fields(known):  # type: ignore[arg-type]  # each is a data class
        name = field.name
        old, new = getattr(known, name), getattr(stated, name)
        if new is UNKNOWN or (name == "policy" and not _stores(new, dtype)):
            continue
        if old is UNKNOWN:
            changes[name] = new
        elif name not in _FOREIGN and _unspelled(old) != _unspelled(new):
            raise UsageError(
                "the config says otherwise than the file",
                where=f"{place}.{name}",
                found=value_to_json(new),
                expected=value_to_json(old),
                hint=_HINT,
            )
    return replace(known, **changes)  # type: ignore[type-var]  # each is a data class


def _stores(policy: Any, dtype: str) -> bool:
    """Whether the weights of a dtype policy are of a dtype: those of mixed policies are float32."""
    return bool(("float32" if policy.startswith("mixed_") else policy) == dtype)


def _unspelled(value: Any) -> Any:
    """Return an option's value without what only spells it."""
    if isinstance(value, dict):
        return {key: _unspelled(item) for key, item in value.items() if key not in _SPELLING}
    if isinstance(value, (list, tuple)):
        return [_unspelled(item) for item in value]
    return value


def states_to_pass(origins: Sequence[tuple[str, str]], units: int, directions: int) -> str:
    """Return what to pass to a layer whose initial states a graph is given or computes.

    Args:
        origins: `initial_h` or `initial_c`, and where it comes from.
        units: of each direction.
        directions: 1 or 2.
    """
    places = "; ".join(f"{name} from {origin}" for name, origin in origins)
    wanted = "[h, c]" if directions == 1 else "[forward h, forward c, backward h, backward c]"
    rest = ", the other zero" if len(origins) == 1 else ""
    return (
        f"the graph gives the LSTM its initial states ({places}{rest}), which are not weights and "
        f"are not carried: pass them in each call, initial_state={wanted}, each (batch, {units})"
    )
