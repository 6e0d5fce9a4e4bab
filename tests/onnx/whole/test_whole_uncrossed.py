"""Classes that go to ONNX and to no other Keras: wrappers of weights, spectrograms, grouped heads,
and Keras 2's locally connected layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.whole_tools import FLOAT32, beside_lstm, distances, randomized

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::UserWarning")]
Made = tuple[list[Any], list[Any]]
#: Logarithms of what waves leave of each other: a sum in another order is another small number,
#: and where the loudest is near to what it is compared with, decibels are near to none.
LOGARITHMS = 2e-5


def _steps(batch: int) -> list[Array]:
    """Return steps of which some are masked: gaps, and an end."""
    steps = np.random.default_rng(1).normal(size=(batch, 6, 4)).astype("float32")
    steps[0, 2] = 0
    steps[-1, 4:] = 0
    return [steps]


def _noise(*shape: int) -> Callable[[int], list[Array]]:
    rng = np.random.default_rng(1)
    return lambda batch: [rng.normal(size=(batch, *shape)).astype("float32")]


def _grouped(keras: Any) -> Made:
    m, x = keras.layers, keras.Input((6, 4))
    masked = m.Masking()(x)
    return [x], [
        m.GroupQueryAttention(3, 4, 2, use_gate=True)(x, x),
        m.GroupQueryAttention(3, 4, 2)(x, x, use_causal_mask=True),
        m.GroupQueryAttention(3, 4, 1, sliding_window=2)(masked, x),
        m.GroupQueryAttention(3, 4, 2, dropout=0.1)(x, masked),
        *m.GroupQueryAttention(3, 2, 2)(x, x, return_attention_scores=True),
        m.LSTM(2)(m.GroupQueryAttention(3, 4, 2)(masked, x)),
    ]


def _windows(keras: Any) -> Made:
    m, x = keras.layers, keras.Input((6, 4))
    return [x], [
        m.MultiHeadAttention(2, 3, use_gate=True)(x, x),
        m.MultiHeadAttention(2, 3, sliding_window=2)(x, x),
        m.MultiHeadAttention(2, 3, sliding_window=2)(x, x, use_causal_mask=True),
        m.MultiHeadAttention(2, 3, sliding_window=3, use_gate=True)(m.Masking()(x), x),
    ]


def _spectral(keras: Any) -> Made:
    m, x = keras.layers, keras.Input((6, 4))
    masked = m.Masking()(x)
    return [x], [
        m.SpectralNormalization(m.Dense(3))(x),
        m.SpectralNormalization(m.Conv1D(3, 2, activation="relu"))(masked),
        # Keras hands on the mask of a layer that hands it on.
        m.LSTM(2)(m.SpectralNormalization(m.Dense(3))(masked)),
    ]


def _reversible(keras: Any) -> Made:
    m, words = keras.layers, keras.Input((6,), dtype="int32")
    one = m.ReversibleEmbedding(7, 4, tie_weights=False, mask_zero=True)
    two = m.ReversibleEmbedding(7, 4, logit_soft_cap=0.3)
    x, y = one(words), two(words)
    told = m.LSTM(4, return_sequences=True)(y)
    return [words], [one(x, reverse=True), two(told, reverse=True), m.LSTM(3)(x)]


def _spectrograms(keras: Any) -> Made:
    m, x = keras.layers, keras.Input((None, 2))
    modes = ("magnitude", "psd", "real", "imag", "angle", "stft", "log")
    layers = [
        m.STFTSpectrogram(mode, 16, 5, expand_dims=mode in ("psd", "angle")) for mode in modes
    ]
    layers.append(m.STFTSpectrogram(frame_length=16, fft_length=32, padding="same", scaling=None))
    return [x], [layer(x) for layer in layers]


def _sounds(keras: Any) -> Made:
    m, x = keras.layers, keras.Input((4000,))
    return [x], [
        m.MelSpectrogram(256, 100, sampling_rate=8000, num_mel_bins=20)(x),
        m.MelSpectrogram(
            200, 64, 150, window="hamming", num_mel_bins=20, power_to_db=False, mag_exp=1.0
        )(x),
        m.MelSpectrogram(512, top_db=20.0, ref_power=2.0)(x),
    ]


def _pixels(keras: Any) -> Made:
    m, x = keras.layers, keras.Input((6, 5, 3))
    return [x], [m.AutoContrast()(x), m.AutoContrast(value_range=(0, 1))(x), m.Solarization()(x)]


def _local(keras: Any) -> Made:
    m, x = keras.layers, keras.Input((6, 4))
    image = m.Reshape((6, 4, 1))(x)
    return [x], [
        m.LocallyConnected1D(3, 2, strides=2, activation="tanh")(x),
        m.LocallyConnected1D(2, 3, use_bias=False)(x),
        m.LocallyConnected2D(2, (3, 2), strides=(1, 2))(image),
        m.LocallyConnected1D(3, 2, data_format="channels_first")(x),
        m.LocallyConnected2D(2, (2, 1), data_format="channels_first")(m.Reshape((2, 3, 4))(x)),
    ]


def _words(batch: int) -> list[Array]:
    return [np.random.default_rng(1).integers(0, 7, (batch, 6)).astype("int32")]


def _levels(batch: int) -> list[Array]:
    return [np.random.default_rng(1).integers(0, 256, (batch, 6, 5, 3)).astype("float32")]


#: What -> the Keras that has it, what builds it, what it is given, and how far apart it may be.
CASES: dict[str, tuple[str, Callable[[Any], Made], Callable[[int], list[Array]], float]] = {
    "grouped": ("keras", _grouped, _steps, FLOAT32),
    "windows": ("keras", _windows, _steps, FLOAT32),
    "spectral": ("keras", _spectral, _steps, FLOAT32),
    "reversible": ("keras", _reversible, _words, FLOAT32),
    "spectrograms": ("keras", _spectrograms, _noise(61, 2), LOGARITHMS),
    "sounds": ("keras", _sounds, _noise(4000), LOGARITHMS),
    "pixels": ("keras", _pixels, _levels, FLOAT32),
    "local": ("tf_keras", _local, _steps, FLOAT32),
}


@pytest.mark.parametrize("case", CASES)
def test_classes(case: str, tmp_path: Path) -> None:
    name, build, inputs, most = CASES[case]
    keras = pytest.importorskip(name)
    model = beside_lstm(keras, *build(keras))
    if case != "spectrograms":  # whose weights are waves
        randomized(model)
    noise = np.random.default_rng(2).normal(size=(9, 6, 2)).astype("float32")
    path = tmp_path / "model.onnx"
    apart = distances(
        model, path, inputs=lambda batch, _: [*inputs(batch), noise[:batch]], lengths=[6]
    )
    assert {name: far for name, far in apart.items() if far > most} == {}
    if most > FLOAT32:
        assert sum(far > FLOAT32 for far in apart.values()) <= 2
    if name == "keras":
        lc.convert(path, tmp_path / "back.keras", warn=False)
        assert lc.diff(path.with_suffix(".keras"), tmp_path / "back.keras")
    if case in ("grouped", "reversible", "spectral"):
        model.save(tmp_path / "model.h5")
        lc.convert(tmp_path / "model.h5", path, whole=True, warn=False, force=True)
