"""The programs that can run a layer, for `verify`: each a row, imported when it runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layer import Direction, LSTMLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A program that runs a layer.

    Fields: `name`; `package`: what must be installed; `run`: from a layer that gives every output
    and x (batch, time, inputs) to its outputs.
    """

    name: str
    package: str
    run: Callable[[LSTMLayer, Array], Array]

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return find_spec(self.package) is not None


def _numpy(layer: LSTMLayer, x: Array) -> Array:
    from lstmconvert import reference

    return _one(reference.run(layer, x, dtype="float64").outputs)


def _one(outputs: tuple[Array, ...]) -> Array:
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)


def _keras(library: str) -> Callable[[LSTMLayer, Array], Array]:
    def run(layer: LSTMLayer, x: Array) -> Array:
        from lstmconvert.keras.rebuild import import_library, to_keras

        found = to_keras(layer, library=library)(x.astype(layer.dtype))
        outputs = found if isinstance(found, (list, tuple)) else (found,)
        # The two libraries have each a way of their own to give an array away.
        keras = import_library(library)
        convert = keras.ops.convert_to_numpy if hasattr(keras, "ops") else _own_numpy
        return _one(tuple(np.asarray(convert(value)) for value in outputs))

    return run


def _own_numpy(value: Any) -> Array:
    return np.asarray(value.numpy())


def _torch(layer: LSTMLayer, x: Array) -> Array:
    import torch

    from lstmconvert.containers.torchfile import array_of
    from lstmconvert.live.torch import tensor_of, to_torch

    with torch.no_grad():
        outputs, _ = to_torch(layer)(tensor_of(x.astype(layer.dtype)))
    return array_of(outputs)


def _mlx(layer: LSTMLayer, x: Array) -> Array:
    mx, nn = import_module("mlx.core"), import_module("mlx.nn")

    from lstmconvert.layouts.plain import arrange

    if layer.dtype.name != "float32":
        raise UnsupportedByTarget(
            "MLX is run in float32 here", layer=layer.name, option="dtype", target="mlx"
        )
    outputs = []
    for side, direction in layer.directions:
        turned = np.flip(x, 1) if side == "backward" else x
        arrays = arrange(_half(layer, direction), "mlx")
        cell = direction.lstm_cells[0]
        module = nn.LSTM(cell.input_dim, cell.units, bias="bias" in arrays)
        module.load_weights([(name, mx.array(array)) for name, array in arrays.items()])
        hidden = np.array(module(mx.array(turned.astype(np.float32)))[0])
        outputs.append(np.flip(hidden, 1) if side == "backward" else hidden)
    if layer.backward is not None:
        arrange(layer, "mlx")  # refuses what the caller cannot join by concatenation
    return _one(tuple(outputs))


def _half(layer: LSTMLayer, direction: Direction) -> LSTMLayer:
    options = replace(direction.options, go_backwards=False)
    forward = replace(direction, options=options)
    return replace(layer, forward=forward, backward=None) if layer.backward else layer


def _onnxruntime(layer: LSTMLayer, x: Array) -> Array:
    import onnxruntime

    from lstmconvert.api import save

    if layer.dtype.name == "float64":
        raise UnsupportedByTarget(
            "ONNX Runtime has no LSTM in float64",
            layer=layer.name,
            option="dtype",
            target="onnxruntime",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.onnx")
        save(layer, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (first, *_) = session.get_outputs()
        feed = {session.get_inputs()[0].name: x.astype(layer.dtype)}
        outputs: Any = session.run([first.name], feed)
    return np.asarray(outputs[0])


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            Engine(name="numpy", package="numpy", run=_numpy),
            Engine(name="keras", package="keras", run=_keras("keras")),
            Engine(name="tf_keras", package="tf_keras", run=_keras("tf_keras")),
            Engine(name="torch", package="torch", run=_torch),
            Engine(name="onnxruntime", package="onnxruntime", run=_onnxruntime),
            Engine(name="mlx", package="mlx", run=_mlx),
        )
    }
)
