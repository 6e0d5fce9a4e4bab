"""Live Keras layers out of neutral ones, and back. The one module of ours that imports Keras.

A layer is rebuilt from the config that we emit, through closed tables of Keras's own classes:
nothing that a file names is imported, looked up or called otherwise.

The other way, a live model is saved by its own library into a nameless temporary file, and read
from there: what we read is exactly what that Keras would have written, of any version and backend.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert.errors import (
    ConversionWarning,
    MissingPackage,
    UnsupportedByTarget,
    UsageError,
    install,
)
from lstmconvert.files.jsontext import Json, JsonObject, parse
from lstmconvert.keras.configs import spelling
from lstmconvert.keras.configs.era import DEFAULTS, Era
from lstmconvert.keras.configs.nodes import input_shape, node
from lstmconvert.keras.configs.sketch import CellSketch, plan
from lstmconvert.keras.reading import load, read
from lstmconvert.keras.stores.stored import ROLES, CellArrays, Stored
from lstmconvert.keras.writing import emit
from lstmconvert.keras.writing.emit import KerasFitter
from lstmconvert.keras.writing.layerstore import arrays_of
from lstmconvert.model.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array, same_bits
from lstmconvert.tensors.tensor import ArrayTensor, SourceFile

LIBRARIES = ("keras", "tf_keras")

#: Keras's own classes that a config of ours may name, by module.
_LAYERS = frozenset(
    {
        *("LSTM", "LSTMCell", "RNN", "StackedRNNCells", "Bidirectional"),
        *("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        *("GRU", "GRUCell", "SimpleRNN", "SimpleRNNCell"),
        *("ReLU", "LeakyReLU", "ELU", "Rescaling"),
    }
)
_TABLES: dict[str, tuple[str, frozenset[str]]] = {
    "layers": (spelling.LAYERS, _LAYERS),
    **{
        f"{kind}s": (
            spelling.MODULES[kind],
            frozenset(classes) | {spelling.OLDEST_NAMES.get(name, name) for name in classes},
        )
        for kind, classes in spelling.CLASSES.items()
    },
}
#: Arguments that hold an initializer: built as zeros first, and set when the weights are there.
_INITIALIZER_KEYS = ("kernel_initializer", "recurrent_initializer", "bias_initializer")


def to_keras(
    value: LSTMLayer | Model,
    *,
    library: str = "keras",
    custom_objects: Mapping[str, Any] | None = None,
    rescale_hard_sigmoid: bool = False,
    allow_lossy: bool = False,
) -> Any:
    """Return a live, built Keras layer equal to a neutral one; of a model, name -> layer.

    Args:
        value: the layer, or the model.
        library: `keras` (Keras 3, on whatever backend it runs) or `tf_keras`.
        custom_objects: name -> a user's own activation, initializer, regularizer or constraint.
        rescale_hard_sigmoid: compute Keras 2's hard_sigmoid by Keras 3's with rescaled weights
            (rounded) instead of by a composition of Keras's own layers (exact).
        allow_lossy: give a warning, not an error, for what Keras cannot express, such as a clip.

    Raises:
        MissingPackage: Keras is not installed.
        UnknownOption: the source does not say an option that changes the numbers.
        UnsupportedByTarget: Keras cannot express an option, or a custom object is missing.
    """
    if isinstance(value, Model):
        return {
            name: to_keras(
                layer,
                library=library,
                custom_objects=custom_objects,
                rescale_hard_sigmoid=rescale_hard_sigmoid,
                allow_lossy=allow_lossy,
            )
            for name, layer in value.items()
        }
    builder = _Builder(import_library(library), library, dict(custom_objects or {}))
    spelling = emit.Spelling(library, frozenset(custom_objects or {}))
    fitter = KerasFitter(
        spelling.target,
        rescale=rescale_hard_sigmoid,
        allow_lossy=allow_lossy,
        keeps_time_major=spelling.has_time_major,
    )
    from lstmconvert.layouts import assume

    # A framework's arrays say less than a Keras layer has: the rest is Keras's default.
    layer = fitter.fit(assume.layer(value)[0])
    for loss in fitter.losses:
        _warn(loss)
    return builder.layer(layer)


def import_library(name: str) -> Any:
    """Import Keras 3 or tf_keras.

    Raises:
        UsageError: another name.
        MissingPackage: it is not installed.
    """
    if name not in LIBRARIES:
        raise UsageError("no such Keras", found=name, expected=" or ".join(LIBRARIES))
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"{name} is not installed, or its backend is not: {error}",
            hint=install("keras") if name == "keras" else "pip install tf_keras",
        ) from None


def _warn(text: str) -> None:
    import warnings

    warnings.warn(text, ConversionWarning, stacklevel=4)


@dataclass(frozen=True, slots=True)
class _Builder:
    keras: Any
    library: str
    custom: dict[str, Any]

    def layer(self, layer: LSTMLayer) -> Any:
        spelling = emit.Spelling(self.library, frozenset(self.custom))
        config = spelling.layer_config(layer, layer.own_name)
        shape = input_shape(layer)
        with self._scope():
            live = self._object(_with_zeros(config), layer.name)
            live.build(shape)
            for (_, cell), target in zip(_cells(layer), live_cells(live), strict=True):
                arrays = [tensor.read() for tensor in arrays_of(cell, layer)]
                self._assign(target, arrays, layer.name)
            self._set_initializers(config, live, layer.name)
            if self.library == "tf_keras" and layer.backward is not None:
                self._restate_halves(config["config"], live, layer.name)
        return live

    def _restate_halves(self, config: JsonObject, live: Any, where: str) -> None:
        """Give their initializers to the copies by which tf_keras states the halves, which it made
        before the halves had their own."""
        self._set_initializers(config["layer"], live.layer, where)
        stated = _cell_configs(getattr(live, "_backward_layer_config", None))
        for half, cell in zip(stated, live_cells(live.backward_layer), strict=False):
            for key in half.keys() & set(_INITIALIZER_KEYS):
                half[key] = self.keras.saving.serialize_keras_object(getattr(cell, key))

    def _set_initializers(self, config: JsonObject, live: Any, where: str) -> None:
        for cell_config, target in zip(_cell_configs(config), live_cells(live), strict=True):
            for key in _INITIALIZER_KEYS:
                if hasattr(target, key):
                    setattr(target, key, self._initializer(cell_config.get(key), key, where))

    def _assign(self, target: Any, arrays: list[Array], where: str) -> None:
        for role, array in zip(ROLES, arrays, strict=False):
            variable = getattr(target, role)
            variable.assign(array)
            kept = read_variable(variable, self.library)
            if not same_bits(kept, array):
                raise UnsupportedByTarget(
                    f"this backend of Keras does not keep the bits of {role}",
                    where=where,
                    layer=where,
                    option="dtype",
                    target=self.library,
                    found=f"{array.dtype.name}, kept as {kept.dtype.name}",
                )

    def _scope(self) -> Any:
        if not self.custom:
            return contextlib.nullcontext()
        return self.keras.utils.custom_object_scope(self.custom)

    def _object(self, value: JsonObject, where: str) -> Any:
        class_name = value["class_name"]
        if value.get("registered_name") in self.custom:
            return self._custom(value)
        if class_name == "Sequential":
            return self.keras.Sequential(
                [self._object(item, where) for item in value["config"]["layers"]]
            )
        for module, (path, allowed) in _TABLES.items():
            if value["module"].startswith(path) and class_name in allowed:
                return self._call(getattr(self.keras, module), value, where)
        raise UnsupportedByTarget(
            "a class that is not Keras's own",
            where=where,
            layer=where,
            option=class_name,
            target=self.library,
            hint="pass it in custom_objects",
        )

    def _call(self, module: Any, value: JsonObject, where: str) -> Any:
        factory: Callable[..., Any] = getattr(module, value["class_name"])
        arguments = {
            key: self._value(item, f"{where}.{key}") for key, item in value["config"].items()
        }
        made = factory(**arguments)
        if "build_config" in value:
            made.build(tuple(value["build_config"]["input_shape"]))
        return made

    def _value(self, value: Json, where: str) -> Any:
        if isinstance(value, dict):
            return self._object(value, where)
        if isinstance(value, list):
            return [self._value(item, where) for item in value]
        return self.custom.get(value, value) if isinstance(value, str) else value

    def _custom(self, value: JsonObject) -> Any:
        supplied = self.custom[value["registered_name"]]
        if hasattr(supplied, "from_config"):
            return supplied.from_config(value["config"])
        return supplied

    def _initializer(self, value: Json, key: str, where: str) -> Any:
        if value is None:
            value = DEFAULTS[key]
        if isinstance(value, str):
            return self.keras.initializers.get(self.custom.get(value, value))
        return self._object(value, f"{where}.{key}")


def _with_zeros(value: Json) -> Any:
    """Return a config whose LSTM weights start as zeros: on TensorFlow, Keras cannot draw bfloat16
    ones from its default orthogonal initializer."""
    if isinstance(value, list):
        return [_with_zeros(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: _with_zeros(item) for key, item in value.items()}
    if _is_cell(value):
        result["config"].update(dict.fromkeys(_INITIALIZER_KEYS, "zeros"))
    return result


def _is_cell(value: JsonObject) -> bool:
    config = value.get("config")
    return isinstance(config, dict) and ("units" in config or "filters" in config)


def _cell_configs(value: Json) -> Iterator[JsonObject]:
    """Yield the arguments of every object that has weights, in the order of Keras's weights."""
    if value is None:
        return
    if _is_cell(value):
        yield value["config"]
        return
    config = value["config"]
    for part in (config.get("layer"), config.get("backward_layer", config.get("layer"))):
        yield from _cell_configs(part)
    yield from _cell_configs(config.get("cell"))
    for item in config.get("cells", []):
        yield from _cell_configs(item)


def _cells(layer: LSTMLayer) -> Iterator[tuple[str, Cell | OpaqueCell]]:
    for name, direction in layer.directions:
        for cell in direction.cells:
            yield name, cell


def read_variable(variable: Any, library: str) -> Array:
    """Return the array of a live variable, in its own dtype."""
    import warnings

    with warnings.catch_warnings():
        # Keras's variables, and TensorFlow's, know no `copy` of NumPy 2, which grumbles.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        if library == "tf_keras":
            return np.asarray(variable.numpy())
        return np.asarray(import_library(library).ops.convert_to_numpy(variable.value))


def live_cells(live: Any) -> Iterator[Any]:
    """Yield the objects that hold `kernel`, in the order of Keras's weights."""
    if hasattr(live, "forward_layer"):
        yield from live_cells(live.forward_layer)
        yield from live_cells(live.backward_layer)
    elif hasattr(live, "cells"):
        for cell in live.cells:
            yield from live_cells(cell)
    elif hasattr(live, "cell"):
        yield from live_cells(live.cell)
    elif hasattr(live, "layer"):  # TimeDistributed
        yield from live_cells(live.layer)
    else:
        yield live


LIVE = "live"


def from_keras(value: Any) -> LSTMLayer | Model:
    """Return a live Keras layer as a neutral layer, a live model as a neutral model.

    Args:
        value: a built `keras` (Keras 3) or `tf_keras` layer or model.

    Raises:
        UsageError: it is neither, it is not built, or the layer is not an LSTM.
        NoLSTM: the model has no LSTM layer.
    """
    library = _library(value)
    if isinstance(value, import_library(library).Model):
        return _model(value)
    return _layer(value, library)


def _library(value: Any) -> str:
    for kind in type(value).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("keras", "tf_keras"):
            return root
    raise UsageError(
        "not a live object of Keras 3 or tf_keras",
        found=f"{type(value).__module__}.{type(value).__name__}",
    )


def _model(value: Any) -> Model:
    if not value.built:
        raise UsageError("the model is not built: call it once on data, or build() it")
    handle, name = tempfile.mkstemp(suffix=".keras")
    os.close(handle)
    try:
        value.save(name)
        model = load.load_zip(SourceFile(Path(name)))
    finally:
        os.unlink(name)
    source = replace(model.source, container=LIVE, digest=None, check=lambda: None)
    return replace(model, source=source, container=LIVE, describe=load.neighbours)


def _layer(value: Any, library: str) -> LSTMLayer:
    if not value.built:
        raise UsageError("the layer is not built: call it once on data, or build() it")
    era = Era("keras3" if library == "keras" else "keras2", import_library(library).__version__)
    whole = parse(_config(value, library), f"live {type(value).__name__}")
    sketches = [s for s in plan(node(whole, "live")).layers if s.has_lstm]
    if len(sketches) != 1:
        raise UsageError(
            "not an LSTM layer",
            found=type(value).__name__,
            expected="LSTM, Bidirectional, RNN over LSTMCell, or a model",
        )
    arrays_of_cell = dict(zip(map(id, sketches[0].cells), _stored(value, library), strict=True))

    def arrays(cell: CellSketch) -> CellArrays:
        return arrays_of_cell[id(cell)]

    return read.build_layer(sketches[0], arrays, era, _name(value))


def _name(value: Any) -> str:
    """Return the path of a live layer below itself: a TimeDistributed is only a part of it."""
    if hasattr(value, "layer") and not hasattr(value, "forward_layer"):
        return f"{value.name}/{_name(value.layer)}"
    return str(value.name)


def _config(value: Any, library: str) -> str:
    config = import_library(library).saving.serialize_keras_object(value)
    return json.dumps(config)


def _stored(value: Any, library: str) -> Iterator[CellArrays]:
    for index, cell in enumerate(live_cells(value)):
        variables = [getattr(cell, role, None) for role in ROLES]
        yield CellArrays(
            {
                role: Stored(f"cells/{index}/{role}", ArrayTensor(read_variable(variable, library)))
                for role, variable in zip(ROLES, variables, strict=True)
                if variable is not None
            }
        )
