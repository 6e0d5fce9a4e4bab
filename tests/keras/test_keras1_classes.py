"""Classes that only Keras 1 had, in NumPy as its source computes them, against Keras 3.

keras/layers/core.py and keras/layers/convolutional.py of Keras 1.2.2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget

keras = pytest.importorskip("keras")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
RNG = np.random.default_rng(5)


def write(path: Path, layers: list[dict[str, Any]], weights: dict[str, dict[str, Any]]) -> None:
    """Write an .h5 as Keras 1.2.2 did, with TensorFlow."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps(
            {"class_name": "Sequential", "config": layers}
        ).encode()
        root = file.create_group("model_weights")
        names = [layer["config"]["name"] for layer in layers]
        root.attrs["layer_names"] = [name.encode() for name in names]
        root.attrs["keras_version"] = b"1.2.2"
        for name in names:
            group, stored = root.create_group(name), weights.get(name, {})
            group.attrs["weight_names"] = [f"{name}_{key}:0".encode() for key in stored]
            for key, array in stored.items():
                group[f"{name}_{key}:0"] = array


def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, "trainable": True, **config}}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("f4")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def converted(tmp_path: Path, x: np.ndarray, target: str) -> np.ndarray:
    out = tmp_path / f"new.{target}"
    result = lc.convert(tmp_path / "m.h5", out, era="keras3", warn=False)
    assert result.whole_model
    return np.asarray(keras.saving.load_model(str(out), compile=False)(x))


REST = {"W_regularizer": None, "b_regularizer": None, "activity_regularizer": None,
        "W_constraint": None, "b_constraint": None, "init": "glorot_uniform"}  # fmt: skip


@pytest.mark.parametrize("target", ["keras", "h5"])
@pytest.mark.parametrize("bias", [True, False])
def test_highway_and_maxout(bias: bool, target: str, tmp_path: Path) -> None:
    x = normal(6, 4)
    w, carry, b, b_carry = normal(4, 4), normal(4, 4), normal(4), normal(4)
    maxout, b_maxout = normal(3, 4, 2), normal(3, 2)
    highway = {"W": w, "W_carry": carry, **({"b": b, "b_carry": b_carry} if bias else {})}
    layers = [
        layer("Highway", "h", activation="tanh", bias=bias, input_dim=4, input_dtype="float32",
              batch_input_shape=[None, 4], **REST),
        layer("MaxoutDense", "m", output_dim=2, nb_feature=3, bias=bias, input_dim=None, **REST),
    ]  # fmt: skip
    write(
        tmp_path / "m.h5",
        layers,
        {"h": highway, "m": {"W": maxout, **({"b": b_maxout} if bias else {})}},
    )
    gate = sigmoid(x @ carry + bias * b_carry)
    hidden = np.tanh(x @ w + bias * b) * gate + (1 - gate) * x
    wanted = (np.einsum("bi,fio->bfo", hidden, maxout) + bias * b_maxout).max(axis=1)
    np.testing.assert_allclose(converted(tmp_path, x, target), wanted, atol=2e-6)


def convolved(x: np.ndarray, kernel: np.ndarray, rate: int) -> np.ndarray:
    """(batch, steps, inputs) with (size, inputs, filters), `valid`."""
    size = len(kernel)
    steps = x.shape[1] - (size - 1) * rate
    taps = [x[:, k * rate : k * rate + steps] @ kernel[k] for k in range(size)]
    return np.sum(taps, axis=0)


def test_atrous_convolution_1d(tmp_path: Path) -> None:
    x, kernel, bias = normal(2, 9, 3), normal(3, 1, 3, 4), normal(4)
    layers = [
        layer("AtrousConvolution1D", "c", nb_filter=4, filter_length=3, subsample_length=1,
              border_mode="valid", atrous_rate=2, activation="relu", bias=True, input_dim=3,
              input_length=9, batch_input_shape=[None, 9, 3], **REST),
    ]  # fmt: skip
    write(tmp_path / "m.h5", layers, {"c": {"W": kernel, "b": bias}})
    wanted = np.maximum(convolved(x, kernel[:, 0], 2) + bias, 0)
    np.testing.assert_allclose(converted(tmp_path, x, "keras"), wanted, atol=2e-6)


@pytest.mark.parametrize("ordering", ["tf", "th"])
def test_atrous_convolution_2d(ordering: str, tmp_path: Path) -> None:
    x, kernel, bias = normal(2, 7, 8, 3), normal(3, 2, 3, 4), normal(4)
    is_first = ordering == "th"
    shape = [None, 3, 7, 8] if is_first else [None, 7, 8, 3]
    layers = [
        layer("AtrousConvolution2D", "c", nb_filter=4, nb_row=3, nb_col=2, subsample=[1, 1],
              border_mode="valid", atrous_rate=[2, 3], dim_ordering=ordering, bias=True,
              activation="linear", batch_input_shape=shape, **REST),
    ]  # fmt: skip
    stored = np.transpose(kernel, (3, 2, 0, 1)) if is_first else kernel
    write(tmp_path / "m.h5", layers, {"c": {"W": stored, "b": bias}})
    wanted = np.zeros((2, 3, 5, 4), "f4") + bias
    for i in range(3):
        for j in range(2):
            wanted += x[:, 2 * i : 2 * i + 3, 3 * j : 3 * j + 5] @ kernel[i, j]
    lc.convert(tmp_path / "m.h5", tmp_path / "new.keras", warn=False)
    loaded = keras.saving.load_model(str(tmp_path / "new.keras"), compile=False)
    assert loaded.layers[0].dilation_rate == (2, 3)
    if not is_first:  # TensorFlow convolves no channels that are first on a CPU
        np.testing.assert_allclose(np.asarray(loaded(x)), wanted, atol=5e-6)
    np.testing.assert_array_equal(loaded.layers[0].kernel, kernel)


@pytest.mark.parametrize(
    ("mode", "step", "size"), [("valid", 1, 6), ("same", 2, 8), ("valid", 2, 9), ("valid", 2, 10)]
)
def test_deconvolution_2d(mode: str, step: int, size: int, tmp_path: Path) -> None:
    x, kernel, bias = normal(2, 4, 4, 3), normal(3, 3, 3, 2), normal(2)
    layers = [
        layer("Deconvolution2D", "d", nb_filter=2, nb_row=3, nb_col=3, subsample=[step, step],
              border_mode=mode, output_shape=[None, size, size, 2], dim_ordering="tf", bias=True,
              activation="linear", batch_input_shape=[None, 4, 4, 3], **REST),
    ]  # fmt: skip
    write(tmp_path / "m.h5", layers, {"d": {"W": kernel, "b": bias}})
    if size == 10:  # it could be given a row of zeros at its end
        with pytest.raises(UnsupportedByTarget, match="another size"):
            converted(tmp_path, x, "keras")
        return
    # Each input pixel adds its kernel: keras/backend/tensorflow_backend.py, `deconv2d`.
    whole = np.zeros((2, 3 * step + 3, 3 * step + 3, 2), "f4")
    for i in range(4):
        for j in range(4):
            place = whole[:, step * i : step * i + 3, step * j : step * j + 3]
            place += np.einsum("bi,rcio->brco", x[:, i, j], kernel)
    wanted = whole[:, :size, :size] + bias
    found = converted(tmp_path, x, "keras")
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=5e-6)
