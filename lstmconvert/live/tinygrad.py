"""tinygrad cells out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmconvert.errors import UnsupportedByTarget, install
from lstmconvert.live.sources import built, imported, layers_of, value_of
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array

_ROW, _NEEDS = "tinygrad", install("tinygrad")


def to_tinygrad(value: LSTMLayer | Model, *, allow_lossy: bool = False) -> Any:
    """Return a `tinygrad.nn.LSTMCell` with the weights of a layer: one step of a batch.

    Args:
        value: a layer. A stack of cells gives a tuple of cells, a Bidirectional `Both`, a model a
            dict by layer name.
        allow_lossy: give a warning, not an error, for what tinygrad cannot express.

    Raises:
        MissingPackage: tinygrad is not installed.
        UnknownOption: tinygrad's maths depend on an option that is unknown.
        UnsupportedByTarget: tinygrad cannot express an option or the dtype of a layer.
    """
    return built(value, _ROW, _cell, allow_lossy=allow_lossy)


def _cell(arrays: Mapping[str, Array]) -> Any:
    tinygrad, nn = imported("tinygrad", _NEEDS), imported("tinygrad.nn", _NEEDS)
    kernel = arrays["weight_ih"]
    if kernel.dtype.name == "bfloat16":
        raise UnsupportedByTarget(
            "tinygrad takes no NumPy array of bfloat16",
            option="dtype",
            target=_ROW,
            found="bfloat16",
            hint="cast it first: convert it with --dtype float32, which is exact",
        )
    cell = nn.LSTMCell(kernel.shape[1], kernel.shape[0] // 4, bias="bias_ih" in arrays)
    for name, array in arrays.items():
        setattr(cell, name, tinygrad.Tensor(np.ascontiguousarray(array)))
    return cell


def from_tinygrad(value: Any, *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of a `tinygrad.nn.LSTMCell`; of an object with several, a model.

    Args:
        value: the cell, or any object that `get_state_dict` takes.
        name: of the layer, where the object is itself the cell.

    Raises:
        MissingPackage: tinygrad is not installed.
        NoLSTM: there is no LSTM in it.
    """
    state = imported("tinygrad.nn.state", _NEEDS).get_state_dict(value)
    arrays = {key: tensor.numpy() for key, tensor in state.items()}
    return value_of(layers_of(arrays, [_ROW], name), type(value).__name__)
