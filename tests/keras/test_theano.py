"""Models trained on Theano compute in Keras 3 what they computed there, or are refused by name.

Theano convolves with flipped kernels, and `same` pads half of the kernel on both sides
(keras/backend/theano_backend.py of Keras 1.2.2 and 2.3.1). The files are written by tf_keras, with
the backend's name changed: what such a file computes on Theano is done here with explicit zeros.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]  # the writers' own
LENGTHS = {1: (7,), 2: (6, 7)}


def saved(layer: Any, rank: int, path: Path) -> tuple[Path, Any]:
    """Save a model of one layer that pads and an LSTM, as if it had been trained on Theano."""
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    inputs = tf_keras.layers.Input((*LENGTHS[rank], 3))
    x = layer(inputs)
    x = tf_keras.layers.Reshape((-1, x.shape[-1]))(x)
    model = tf_keras.Model(inputs, [x, tf_keras.layers.LSTM(2, name="lstm")(x)])
    model.save(str(path))
    with h5py.File(path, "r+") as file:
        for group in (file, file["model_weights"]):
            group.attrs["backend"] = np.bytes_(b"theano")
    return path, model


def on_theano(x: Any, kernel: Any, bias: Any) -> Any:
    """Convolve with a flipped kernel between halves of zeros, and leave out what is too much."""
    import tensorflow as tf

    sizes = kernel.shape[:-2]
    flipped = np.flip(kernel, tuple(range(len(sizes))))
    zeros = [(0, 0), *((size // 2, size // 2) for size in sizes), (0, 0)]
    y = tf.nn.convolution(np.pad(x, zeros), flipped, padding="VALID").numpy() + bias
    return y[(slice(None), *(slice(n) for n in x.shape[1:-1]))]


@pytest.mark.parametrize("size", [(2,), (3,), (4,), (1,), (2, 3), (3, 4), (2, 2)], ids=str)
def test_a_convolution_computes_the_same(size: Sequence[int], tmp_path: Path) -> None:
    import tf_keras

    rank = len(size)
    kind = getattr(tf_keras.layers, f"Conv{rank}D")
    layer = kind(4, size, padding="same", name="conv")
    path, model = saved(layer, rank, tmp_path / "m.h5")
    x = np.random.default_rng(1).normal(size=(2, *LENGTHS[rank], 3)).astype("f4")
    expected = on_theano(x, *model.get_layer("conv").get_weights()).reshape(2, -1, 4)
    assert lc.convert(path, tmp_path / "m.keras").whole_model
    keras = importlib.import_module("keras")
    loaded = keras.saving.load_model(str(tmp_path / "m.keras"), compile=False)
    np.testing.assert_allclose(np.asarray(loaded(x)[0]), expected, rtol=0, atol=2e-6)


#: Class -> the rank of its window, and how it is made.
REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "Conv1D": (1, {"filters": 4, "kernel_size": 3, "strides": 2}),
    "SeparableConv1D": (1, {"filters": 4, "kernel_size": 2}),
    "MaxPooling1D": (1, {"pool_size": 2}),
    "AveragePooling2D": (2, {"pool_size": 5, "strides": 1}),
    "DepthwiseConv2D": (2, {"kernel_size": 2}),
    "Conv2DTranspose": (2, {"filters": 2, "kernel_size": 3, "strides": 2}),
    "Conv2D": (2, {"filters": 2, "kernel_size": 2, "dilation_rate": 3}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nothing_in_keras_3_computes_is_refused_by_name(name: str, tmp_path: Path) -> None:
    import tf_keras

    rank, options = REFUSED[name]
    layer = getattr(tf_keras.layers, name)(**options, padding="same")
    path, _ = saved(layer, rank, tmp_path / "m.h5")
    with pytest.raises(UnsupportedByTarget, match="Theano pads") as raised:
        lc.convert(path, tmp_path / "m.keras")
    assert layer.name in str(raised.value)
    assert lc.convert(path, tmp_path / "lstm.keras", lstm_only=True).layers == ("lstm",)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_pool_that_pads_alike_crosses(padding: str, tmp_path: Path) -> None:
    import tf_keras

    layer = tf_keras.layers.MaxPooling1D(3, strides=1, padding=padding)
    path, _ = saved(layer, 1, tmp_path / "m.h5")
    assert lc.convert(path, tmp_path / "m.keras").whole_model
