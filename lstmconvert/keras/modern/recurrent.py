"""Recurrent cells that are no LSTM, from the arrays of Keras 1 and of cuDNN."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.tensors import Computed, SideBySide, Tensor

_GRU = 3
_LEAF = re.compile(r"(?P<scope>.+)_(?P<role>[WUb])_(?P<gate>[zrh])(?::\d+)?")
#: A Keras 1 GRU lists its arrays gate by gate (keras/layers/recurrent.py of Keras 1.2.2).
_ORDER = tuple((gate, role) for gate in "zrh" for role in "WUb")
_NAMES = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}

Named = tuple[str, Tensor]


def keras1_cell(found: Sequence[Named]) -> tuple[list[Named], int]:
    """Join the nine arrays of a Keras 1 GRU at the start of a list to three.

    Returns:
        What stands for the first arrays, and how many they were: one, and it as it is, where they
        are no such cell.
    """
    matches = [_LEAF.fullmatch(name.rpartition("/")[2]) for name, _ in found[: len(_ORDER)]]
    keys = tuple((m["gate"], m["role"]) for m in matches if m)
    if keys != _ORDER or len({m["scope"] for m in matches if m}) != 1:
        return [found[0]], 1
    tensors = [tensor for _, tensor in found[: len(_ORDER)]]
    joined = [
        (name, SideBySide(tuple(tensors[start :: len(_NAMES)])))
        for start, name in enumerate(_NAMES.values())
    ]
    return [(name, tensor) for name, tensor in joined], len(_ORDER)


def gru_of_cudnn(arrays: Sequence[Tensor]) -> list[Tensor]:
    """Unpack a CuDNNGRU as Keras does (tf_keras/src/saving/legacy/hdf5_format.py,
    `_convert_rnn_weights`): each gate's block of the kernel holds cuDNN's own (units, inputs) in
    C order, the recurrent block its transpose, and the two biases become two rows."""
    kernel, recurrent, bias = arrays

    def unpacked(array: Array) -> Array:
        rows, _ = array.shape
        blocks = np.split(array, _GRU, axis=1)
        return np.concatenate([b.reshape(-1).reshape(-1, rows).T for b in blocks], axis=1)

    def transposed(array: Array) -> Array:
        return np.concatenate([b.T for b in np.split(array, _GRU, axis=1)], axis=1)

    return [
        Computed(kernel, kernel.shape, unpacked),
        Computed(recurrent, recurrent.shape, transposed),
        Computed(bias, (2, bias.size // 2), lambda array: array.reshape(2, -1)),
    ]
