"""The programs that can run a layer, for `verify`: each a row, imported when it runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layer import LSTMLayer
from lstmconvert.live import engines_jax as jax
from lstmconvert.live import engines_others as others


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A program that runs a layer.

    Fields: `name`; `package`, of Python, or `program`: what must be installed; `run`: from a layer
    that gives every output and x (batch, time, inputs) to its outputs.
    """

    name: str
    run: Callable[[LSTMLayer, Array], Array]
    package: str = ""
    program: str = ""

    @property
    def needs(self) -> str:
        """How to get it, in a few words."""
        return f"pip install {self.package}" if self.package else f"install {self.program}"

    @property
    def installed(self) -> bool:
        """Whether its package or program is there."""
        if self.package:
            return find_spec(self.package) is not None
        return shutil.which(self.program) is not None


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


def _onnxruntime(layer: LSTMLayer, x: Array) -> Array:
    import onnxruntime

    from lstmconvert.api import save
    from lstmconvert.onnx.express import compute_dtypes

    (dtype, *_) = sorted(compute_dtypes(layer))
    if dtype in ("float64", "bfloat16"):
        raise UnsupportedByTarget(
            f"ONNX Runtime has no LSTM in {dtype}",
            layer=layer.name,
            option="dtype",
            target="onnxruntime",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.onnx")
        save(layer, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x.astype(dtype)}
        outputs: Any = session.run(None, feed)
    return _one(tuple(map(np.asarray, outputs)))


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            Engine(name="numpy", package="numpy", run=_numpy),
            Engine(name="keras", package="keras", run=_keras("keras")),
            Engine(name="tf_keras", package="tf_keras", run=_keras("tf_keras")),
            Engine(name="torch", package="torch", run=_torch),
            Engine(name="onnxruntime", package="onnxruntime", run=_onnxruntime),
            Engine(name="openvino", package="openvino", run=others.openvino),
            Engine(name="flax", package="flax", run=jax.flax),
            Engine(name="nnx", package="flax", run=jax.nnx),
            Engine(name="haiku", package="haiku", run=jax.haiku),
            Engine(name="equinox", package="equinox", run=jax.equinox),
            Engine(name="mlx", package="mlx", run=others.mlx),
            Engine(name="tinygrad", package="tinygrad", run=others.tinygrad),
            Engine(name="tf1", package="tf_keras", run=others.tf1),
            Engine(name="c", program="gcc", run=others.c),
        )
    }
)
