"""MLX layers out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmconvert.errors import install
from lstmconvert.live.sources import built, imported, layers_of, value_of
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array, dtype_of

_ROW, _NEEDS = "mlx", install("mlx")


def to_mlx(value: LSTMLayer | Model, *, allow_lossy: bool = False) -> Any:
    """Return an `mlx.nn.LSTM` with the weights of a layer, fed (batch, time, inputs).

    It answers with all hidden and all cell states.

    Args:
        value: a layer. A stack of cells gives a tuple of modules, a Bidirectional `Both`, a model a
            dict by layer name.
        allow_lossy: give a warning, not an error, for what MLX cannot express.

    Raises:
        MissingPackage: MLX is not installed.
        UnknownOption: MLX's maths depend on an option that is unknown.
        UnsupportedByTarget: MLX cannot express an option or the dtype of a layer.
    """
    return built(value, _ROW, _lstm, allow_lossy=allow_lossy)


def _lstm(arrays: Mapping[str, Array]) -> Any:
    nn = imported("mlx.nn", _NEEDS)
    kernel = arrays["Wx"]
    module = nn.LSTM(kernel.shape[1], kernel.shape[0] // 4, bias="bias" in arrays)
    module.load_weights([(name, from_array(array)) for name, array in arrays.items()])
    return module


def from_array(array: Array) -> Any:
    """Return an array as MLX has it, bit for bit. It is not float64, which MLX would round."""
    return imported("mlx.core", _NEEDS).array(array)


def from_mlx(module: Any, *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of an `mlx.nn.LSTM`; of a module with several, a model.

    Args:
        module: the module; every LSTM inside it is found, and named by its path.
        name: of the layer, where the module is itself the LSTM.

    Raises:
        MissingPackage: MLX is not installed.
        NoLSTM: there is no LSTM in it.
    """
    nn = imported("mlx.nn", _NEEDS)
    layers: list[LSTMLayer] = []
    for path, child in reversed(module.named_modules()):
        if isinstance(child, nn.LSTM):
            arrays = {key: to_array(value) for key, value in child.parameters().items()}
            layers += layers_of(arrays, [_ROW], path.replace(".", "/") or name)
    return value_of(layers, type(module).__name__)


def to_array(array: Any) -> Array:
    """Return an array of MLX as NumPy has it, bit for bit."""
    core = imported("mlx.core", _NEEDS)
    if array.dtype == core.bfloat16:
        return np.array(array.view(core.uint16)).view(dtype_of("bfloat16"))
    return np.array(array)
