"""From the keyword arguments of a Keras layer to the typed options of the neutral model.

The tables below are the one place for the names and defaults of LSTM options. A key that a config
leaves out has the default of the Keras that wrote it; where that is not known either, `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs import values
from lstmconvert.keras.configs.era import Era
from lstmconvert.keras.configs.nodes import CONV_LSTM_CLASSES
from lstmconvert.model.activations import SIGMOID, TANH
from lstmconvert.model.options import (
    FLAGS,
    UNKNOWN,
    AnyOptions,
    CellOptions,
    DirectionOptions,
    LayerOptions,
)
from lstmconvert.model.options import option_names as names_of

_MERGE_MODES = ("concat", "sum", "ave", "mul")  # keras/src/layers/rnn/bidirectional.py

ValueReader = Callable[[Json, str], Any]

#: Readers of one value each. Activations are read elsewhere: they depend on the era.
_OBJECTS: tuple[str, ...] = (
    *(
        f"{part}_{kind}"
        for kind in ("initializer", "regularizer", "constraint")
        for part in ("kernel", "recurrent", "bias")
    ),
    "activity_regularizer",
)

_READERS: dict[str, ValueReader] = {
    **dict.fromkeys(FLAGS, values.flag),
    **dict.fromkeys(_OBJECTS, values.object_spec),
    "dropout": values.number,
    "recurrent_dropout": values.number,
    "seed": lambda value, where: None if value is None else _seed(value, where),
    "policy": values.policy,
}

_KEYS = {"policy": "dtype"}

_CONVOLUTION = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")


def cell_options(
    config: JsonObject, era: Era, where: str, class_name: str = "LSTM"
) -> CellOptions:
    """Read the options of an LSTM, LSTMCell or ConvLSTM config.

    Raises:
        CorruptFile: a value has the wrong type.
    """
    config = era.modern(config)
    if class_name in CONV_LSTM_CLASSES:
        era = era.convolutional

    def read() -> CellOptions:
        known = _read(CellOptions, config, era, where)
        for name in ("activation", "recurrent_activation"):
            value = config[name] if name in config else _default(name, era)
            known[name] = (
                UNKNOWN
                if value is UNKNOWN
                else values.activation(value, era.name, f"{where}.{name}")
            )
        if "kernel_size" in config:
            known["convolution"] = {
                key: _items(config[key]) for key in _CONVOLUTION if config.get(key) is not None
            }
        return CellOptions(**known)

    return _shared(CellOptions, config, era, read)


def _items(value: Json) -> Json:
    """Return a tuple as SavedModels spell it, `{"class_name": "__tuple__", "items": […]}`, as a
    list (tf_keras/src/saving/legacy/saved_model/json_utils.py, `Encoder`)."""
    if isinstance(value, dict) and isinstance(value.get("items"), list):
        return value["items"]
    return value


def cudnn(known: CellOptions) -> CellOptions:
    """Return the options of a cell in cuDNN's form, which has these activations and no others."""
    return replace(known, activation=TANH, recurrent_activation=SIGMOID)


def theano(known: CellOptions) -> CellOptions:
    """Return the options of a ConvLSTM trained on Theano: under `same` padding, an even kernel has
    its odd zero before, where every other backend has it behind. No Keras of today can say so."""
    convolution = dict(known.convolution or {})
    if any(size % 2 == 0 for size in convolution.get("kernel_size", ())):
        convolution["extra_before"] = True
    return replace(known, convolution=convolution)


def direction_options(config: JsonObject, era: Era, where: str) -> DirectionOptions:
    """Read the options of an LSTM or RNN config that say how it is run over time.

    Raises:
        CorruptFile: a value has the wrong type.
    """
    config = era.modern(config)
    return _shared(
        DirectionOptions,
        config,
        era,
        lambda: DirectionOptions(**_read(DirectionOptions, config, era, where)),
    )


def layer_options(config: JsonObject, era: Era, where: str) -> LayerOptions:
    """Read the options of the outermost layer: a Bidirectional's, or an LSTM's own.

    Raises:
        CorruptFile: a value has the wrong type.
    """
    modern = era.modern(config)
    mode = _merge_mode(config, where)

    def read() -> LayerOptions:
        return LayerOptions(merge_mode=mode, **_read(LayerOptions, modern, era, where))

    return _shared(LayerOptions, modern, era, read, mode)


def _merge_mode(config: JsonObject, where: str) -> str | None:
    # Only a Bidirectional merges anything.
    mode = config.get("merge_mode", "concat") if "layer" in config else None
    if mode is not None and mode not in _MERGE_MODES:
        raise CorruptFile(
            "no such merge_mode",
            where=f"{where}.merge_mode",
            found=values.shown(mode),
            expected=f"{', '.join(_MERGE_MODES)} or null",
        )
    return mode


#: What was read, by what it was read from. The layers of a model, and the models of a folder,
#: mostly have the same options. They are then one object, which nobody changes.
_known: dict[tuple[type, Era, str | None, str], Any] = {}
_MOST_KNOWN = 256


#: What a config says and is not an option: layers that differ in nothing else have the same.
_NO_OPTIONS = dict.fromkeys(("name", "units", "filters"))


class _Values(NamedTuple):
    """A config; its values without what is not an option, as objects and as text."""

    config: JsonObject
    values: JsonObject
    objects: list[int]
    text: str


#: The config that was asked for last: the options of a layer, of a direction and of a cell are
#: asked for one after the other, and layers mostly share their values.
_last = _Values({}, {}, [], "")


def _text_of(config: JsonObject) -> str:
    """Return the values of a config as text, since 1, 1.0 and True are equal."""
    global _last
    last = _last
    if last.config is config:
        return last.text
    values = {**config, **_NO_OPTIONS}
    objects = [*map(id, values.values())]
    is_same = objects == last.objects and [*values] == [*last.values]
    text = last.text if is_same else repr(values)
    _last = _Values(config, values, objects, text)
    return text  # not that of `_last`, which another thread may have set since


def _shared(
    kind: type[AnyOptions],
    config: JsonObject,
    era: Era,
    read: Callable[[], AnyOptions],
    mode: str | None = None,
) -> AnyOptions:
    """Return the options of a config: those of one with the same values, or new ones."""
    key = kind, era, mode, _text_of(config)
    known: AnyOptions | None = _known.get(key)
    if known is None:
        known = read()
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = known
    return known


_changed: dict[tuple[int, str, Any], tuple[Any, Any]] = {}


def changed(options: AnyOptions, name: str, value: Any) -> AnyOptions:
    """Return options with another value of one of them: one object for the same change of one
    object.

    Args:
        name: of the option.
        value: a text, a flag, or `UNKNOWN`.
    """
    if getattr(options, name) is value:
        return options
    key = id(options), name, value
    known = _changed.get(key)
    if known is None or known[0] is not options:
        if len(_changed) >= _MOST_KNOWN:
            _changed.clear()
        known = _changed[key] = options, replace(options, **{name: value})
    result: AnyOptions = known[1]
    return result


def _read(
    kind: type[CellOptions | DirectionOptions | LayerOptions],
    config: JsonObject,
    era: Era,
    where: str,
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in names_of(kind):
        reader = _READERS.get(name)
        if reader is None:
            continue
        key = _KEYS.get(name, name)
        value = config[key] if key in config else _default(name, era)
        result[name] = value if value is UNKNOWN else reader(value, f"{where}.{key}")
    return result


def _default(name: str, era: Era) -> Json:
    return era.defaults.get(name, UNKNOWN)


def _seed(value: Json, where: str) -> int | None:
    return values.integer(value, where, low=-(2**63), high=2**64)
