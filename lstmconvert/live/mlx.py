"""MLX layers out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmconvert.dtypes import Array, dtype_of
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layer import LSTMLayer
from lstmconvert.live.sources import built, imported, layers_of, value_of
from lstmconvert.model import Model

_ROW, _EXTRA = "mlx", "'lstmconvert[mlx]'"


def to_mlx(value: LSTMLayer | Model, *, allow_lossy: bool = False) -> Any:
    """Return an `mlx.nn.LSTM` with the weights of a layer, fed (batch, time, inputs).

    It answers with all hidden and all cell states.

    Args:
        value: a layer. A stack of cells gives a tuple of modules, a Bidirectional `Both`, a model a
            dict by layer name.
        allow_lossy: give a warning, not an error, for what MLX cannot express.

    Raises:
        MissingPackage: MLX is not installed.
        UnknownOption: MLX's maths depend on an option that no file said.
        UnsupportedByTarget: MLX cannot express an option or the dtype of a layer.
    """
    return built(value, _ROW, _lstm, allow_lossy=allow_lossy)


def _lstm(arrays: Mapping[str, Array]) -> Any:
    nn = imported("mlx.nn", _EXTRA)
    kernel = arrays["Wx"]
    module = nn.LSTM(kernel.shape[1], kernel.shape[0] // 4, bias="bias" in arrays)
    module.load_weights([(name, from_array(array)) for name, array in arrays.items()])
    return module


def from_array(array: Array) -> Any:
    """Return an array as MLX has it, bit for bit.

    Raises:
        UnsupportedByTarget: it is float64, which MLX would round silently.
    """
    if array.dtype.itemsize > 4:
        raise UnsupportedByTarget(
            "MLX would round float64 to float32",
            option="dtype",
            target=_ROW,
            found=array.dtype.name,
            hint="cast it first: convert it with --dtype float32",
        )
    return imported("mlx.core", _EXTRA).array(array)


def from_mlx(module: Any, *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of an `mlx.nn.LSTM`; of a module with several, a model.

    Args:
        module: the module; every LSTM inside it is found, and named by its path.
        name: of the layer, where the module is itself the LSTM.

    Raises:
        MissingPackage: MLX is not installed.
        NoLSTM: there is no LSTM in it.
    """
    nn = imported("mlx.nn", _EXTRA)
    layers: list[LSTMLayer] = []
    for path, found in reversed(module.named_modules()):
        if isinstance(found, nn.LSTM):
            arrays = {key: to_array(value) for key, value in found.parameters().items()}
            layers += layers_of(arrays, [_ROW], path.replace(".", "/") or name)
    return value_of(layers, type(module).__name__)


def to_array(array: Any) -> Array:
    """Return an array of MLX as NumPy has it, bit for bit."""
    core = imported("mlx.core", _EXTRA)
    if array.dtype == core.bfloat16:
        return np.array(array.view(core.uint16)).view(dtype_of("bfloat16"))
    return np.array(array)
