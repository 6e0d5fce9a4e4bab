"""From the keyword arguments of a Keras layer to the typed options of the neutral model.

The tables below are the one place for the names and defaults of LSTM options. A key that a config
leaves out has the default of the Keras that wrote it; where that is not known either, `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from lstmconvert.activations import SIGMOID, TANH
from lstmconvert.errors import CorruptFile
from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.keras import values
from lstmconvert.keras.era import Era
from lstmconvert.keras.nodes import CONV_LSTM_CLASSES
from lstmconvert.options import FLAGS, UNKNOWN, CellOptions, DirectionOptions, LayerOptions

_MERGE_MODES = ("concat", "sum", "ave", "mul")  # keras/src/layers/rnn/bidirectional.py

Reader = Callable[[Json, str], Any]

#: Readers of one value each. Activations are read apart: they depend on the era.
_OBJECTS: tuple[str, ...] = (
    *(
        f"{part}_{kind}"
        for kind in ("initializer", "regularizer", "constraint")
        for part in ("kernel", "recurrent", "bias")
    ),
    "activity_regularizer",
)

_READERS: dict[str, Reader] = {
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
    known = _read(CellOptions, config, era, where)
    for name in ("activation", "recurrent_activation"):
        value = config[name] if name in config else _default(name, era)
        known[name] = (
            UNKNOWN if value is UNKNOWN else values.activation(value, era.name, f"{where}.{name}")
        )
    if "kernel_size" in config:
        known["convolution"] = {
            key: _items(config[key]) for key in _CONVOLUTION if config.get(key) is not None
        }
    return CellOptions(**known)


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
    return DirectionOptions(**_read(DirectionOptions, era.modern(config), era, where))


def layer_options(config: JsonObject, era: Era, where: str) -> LayerOptions:
    """Read the options of the outermost layer: a Bidirectional's, or an LSTM's own.

    Raises:
        CorruptFile: a value has the wrong type.
    """
    known = _read(LayerOptions, era.modern(config), era, where)
    # What is no Bidirectional merges nothing.
    mode = config.get("merge_mode", "concat") if "layer" in config else None
    if mode is not None and mode not in _MERGE_MODES:
        raise CorruptFile(
            "no such merge_mode",
            where=f"{where}.merge_mode",
            found=values.shown(mode),
            expected=f"{', '.join(_MERGE_MODES)} or null",
        )
    return LayerOptions(merge_mode=mode, **known)


def _read(
    kind: type[CellOptions | DirectionOptions | LayerOptions],
    config: JsonObject,
    era: Era,
    where: str,
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in fields(kind):
        reader = _READERS.get(field.name)
        if reader is None:
            continue
        key = _KEYS.get(field.name, field.name)
        value = config[key] if key in config else _default(field.name, era)
        result[field.name] = value if value is UNKNOWN else reader(value, f"{where}.{key}")
    return result


def _default(name: str, era: Era) -> Json:
    return era.defaults.get(name, UNKNOWN)


def _seed(value: Json, where: str) -> int | None:
    return values.integer(value, where, low=-(2**63), high=2**64)
