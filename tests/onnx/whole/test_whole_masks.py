"""Masks of whole models mean what they mean in the Keras that wrote the model.

Where branches meet, tf_keras ANDs their masks and Keras 3 ORs them; some classes pass a mask in one
and stop it in the other. A masked mean shows the mask that a layer has behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.thinned import groups
from support.whole_tools import FLOAT32, beside_lstm, compared, distances, randomized

from lstmconvert.tensors.dtypes import Array

#: Keras says so where a layer stops a mask.
_STOPPED = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
pytestmark = [pytest.mark.engines, _STOPPED]
ERAS = ("keras", "tf_keras")
Build = Callable[[Any, "Given"], Any]


class Given(NamedTuple):
    """Two masked values and an unmasked one, (batch, time, 4) each."""

    a: Any
    b: Any
    c: Any


_CHOSEN: dict[str, Callable[[Given], list[Any]]] = {
    "both": lambda s: [s.a, s.b],
    "one": lambda s: [s.c, s.a],
    "three": lambda s: [s.a, s.b, s.c],
}
#: name -> what builds it.
MERGED: dict[str, Build] = {
    **{
        f"{name}-{which}".lower(): lambda m, s, n=name, w=which: getattr(m, n)()(_CHOSEN[w](s))
        for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
        for which in ("both", "one", *(() if name == "Subtract" else ("three",)))
    },
    "concatenate-both": lambda m, s: m.Concatenate()([s.a, s.b]),
    "concatenate-one": lambda m, s: m.Concatenate()([s.a, s.c]),
    "concatenate-time": lambda m, s: m.Concatenate(axis=1)([s.a, s.b]),
    "maximum-masked-first": lambda m, s: m.Maximum()([s.a, s.c]),
    "dense": lambda m, s: m.Dense(3)(s.a),
    "activation": lambda m, s: m.Activation("tanh")(s.a),
    "linear": lambda m, s: m.Activation("linear")(s.a),
    "dropout": lambda m, s: m.Dropout(0.5)(s.a),
    "spatialdropout": lambda m, s: m.SpatialDropout1D(0.5)(s.a),
    "noise": lambda m, s: m.GaussianNoise(0.5)(s.a),
    "batchnorm": lambda m, s: m.BatchNormalization()(s.a),
    "layernorm": lambda m, s: m.LayerNormalization()(s.a),
    "unitnorm": lambda m, s: m.UnitNormalization()(s.a),
    "activityregularization": lambda m, s: m.ActivityRegularization(0.1)(s.a),
    "relu": lambda m, s: m.ReLU()(s.a),
    "leaky": lambda m, s: m.LeakyReLU()(s.a),
    "elu": lambda m, s: m.ELU()(s.a),
    "rescaling": lambda m, s: m.Rescaling(2.0)(s.a),
    "normalization": lambda m, s: m.Normalization(mean=1.0, variance=2.0)(s.a),
    "conv": lambda m, s: m.Conv1D(3, 3, padding="same")(s.a),
    "pool": lambda m, s: m.MaxPooling1D(2, 1, padding="same")(s.a),
    "upsampling": lambda m, s: m.UpSampling1D(1)(s.a),
    "zeropadding": lambda m, s: m.ZeroPadding1D(0)(s.a),
    "cropping": lambda m, s: m.Cropping1D(0)(s.a),
    "reshape": lambda m, s: m.Reshape((-1, 4))(s.a),
    "permute": lambda m, s: m.Permute((1, 2))(s.a),
    "time-dense": lambda m, s: m.TimeDistributed(m.Dense(3))(s.a),
    "lstm": lambda m, s: m.LSTM(3, return_sequences=True)(s.a),
    "bidirectional": lambda m, s: m.Bidirectional(m.GRU(3, return_sequences=True))(s.a),
    "attention": lambda m, s: m.Attention()([s.a, s.b]),
    "attention-query": lambda m, s: m.Attention()([s.a, s.c]),
    "attention-value": lambda m, s: m.Attention()([s.c, s.a]),
    "attention-causal": lambda m, s: m.Attention()([s.a, s.b], use_causal_mask=True),
    "additive": lambda m, s: m.AdditiveAttention(use_scale=True)([s.a, s.b]),
    "multihead": lambda m, s: m.MultiHeadAttention(2, 3)(s.a, s.b),
    "multihead-self": lambda m, s: m.MultiHeadAttention(2, 3)(s.a, s.a),
    "multihead-key": lambda m, s: m.MultiHeadAttention(2, 3)(s.c, s.c, key=s.a),
    "multihead-residual": lambda m, s: m.Add()([s.a, m.MultiHeadAttention(2, 3)(s.a, s.a)]),
    "multihead-twice": lambda m, s: m.Add()(
        [m.MultiHeadAttention(2, 3)(s.a, s.a), m.MultiHeadAttention(2, 2)(s.a, s.b)]
    ),
    "multihead-dropout": lambda m, s: m.MultiHeadAttention(2, 3, dropout=0.3)(s.a, s.b),
    "multihead-causal": lambda m, s: m.MultiHeadAttention(2, 3)(
        s.a, s.b, use_causal_mask=True
    ),
}


def sequences(batch: int, length: int) -> list[Array]:
    """Ids with zeros here and there, and steps."""
    rng = np.random.default_rng(3)
    size = (batch, length)
    ids = [rng.integers(0, 5, size) * (rng.random(size) < 0.7) for _ in "ab"]
    for each in ids:
        each[:, 1] = 3  # no row is masked throughout: what comes then is another test
    steps = rng.normal(size=(batch, length, 4))
    beside = rng.normal(size=(batch, length, 2))
    floats = [values.astype("float32") for values in (steps, beside)]
    return [*(each.astype("int32") for each in ids), *floats]


def masked(keras: Any) -> tuple[list[Any], Given]:
    """Return the inputs of a model, and what is behind them."""
    ids = [keras.Input((None,), dtype="int32") for _ in "ab"]
    plain = keras.Input((None, 4))
    a, b = (keras.layers.Embedding(5, 4, mask_zero=True)(each) for each in ids)
    return [*ids, plain], Given(a, b, plain)


@pytest.mark.parametrize("name", ERAS)
@pytest.mark.parametrize("cases", groups(MERGED, 14))
def test_mask_behind(name: str, cases: list[str], tmp_path: Path) -> None:
    """What a layer gives, and by a masked mean, or an LSTM for the first, what mask is behind it.

    How an LSTM heeds a mask is another test.
    """
    keras = pytest.importorskip(name)
    layers = keras.layers
    inputs, given = masked(keras)
    outputs: dict[str, Any] = {}
    for case in cases:
        y = outputs[case] = MERGED[case](layers, given)
        outputs[f"mean of {case}"] = layers.GlobalAveragePooling1D()(y)
        if case == cases[0]:
            outputs[f"LSTM of {case}"] = layers.LSTM(2)(y)
    model = randomized(beside_lstm(keras, inputs, list(outputs.values())))
    far = distances(model, tmp_path / "model.onnx", inputs=sequences, lengths=(6, 9)).values()
    worst = {key: value for key, value in zip(outputs, far, strict=True) if not value < FLOAT32}
    assert not worst


@pytest.mark.parametrize("name", ERAS)
def test_all_masked(name: str, tmp_path: Path) -> None:
    """Rows that are masked throughout: shares of none, or of all, as that class has them."""
    keras = pytest.importorskip(name)
    inputs, given = masked(keras)
    cases = ("multihead", "multihead-dropout", "attention", "additive")
    outputs = [MERGED[case](keras.layers, given) for case in cases]
    model = randomized(beside_lstm(keras, inputs, outputs))

    def emptied(batch: int, length: int) -> list[Array]:
        given = sequences(batch, length)
        given[0][0] = given[1][-1] = 0
        return given

    assert compared(model, tmp_path / "model.onnx", inputs=emptied) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_softmax_with_mask(name: str, tmp_path: Path) -> None:
    """A Softmax layer takes a mask that has the shape of its scores."""
    keras = pytest.importorskip(name)
    layers = keras.layers
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(5, 4, mask_zero=True)(ids)
    scores = layers.Reshape((-1,))(layers.Dense(1)(x))
    flags = keras.Input((None,), dtype="bool")
    y = layers.Softmax()(scores, mask=flags)
    model = randomized(beside_lstm(keras, [ids, flags], [y]))

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(4)
        flags = rng.random((batch, length)) < 0.6
        flags[0] = False
        given = rng.integers(0, 5, (batch, length)).astype("int32")
        return [given, flags, rng.normal(size=(batch, length, 2)).astype("float32")]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_masks_into_nested_models(name: str, tmp_path: Path) -> None:
    """A mask enters a nested model, passes its layers, and comes out again."""
    keras = pytest.importorskip(name)
    layers = keras.layers
    inner_input = keras.Input((None, 4))
    inner = keras.Model(inner_input, layers.Dense(3)(layers.Dropout(0.2)(inner_input)))
    second = keras.Sequential([layers.LSTM(3, return_sequences=True), layers.Dense(2)])
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(5, 4, mask_zero=True)(ids)
    y = second(inner(x))
    z = layers.GlobalAveragePooling1D()(y)
    shared = inner(layers.LayerNormalization()(x))
    model = randomized(keras.Model(ids, [y, z, layers.LSTM(2)(shared)]))

    def inputs(batch: int, length: int) -> list[Array]:
        return sequences(batch, length)[:1]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_mask_given_by_hand(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    layers = keras.layers
    x, flags = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    y = layers.LSTM(3, return_sequences=True)(x, mask=flags)
    z = layers.Bidirectional(layers.LSTM(2))(y, mask=flags)
    w = layers.GlobalAveragePooling1D()(x, mask=flags)
    model = randomized(keras.Model([x, flags], [y, z, w]))

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(5)
        flags = rng.random((batch, length)) < 0.6
        flags[:, 0] = True
        return [rng.normal(size=(batch, length, 4)).astype("float32"), flags]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_masks_of_pixels(name: str, tmp_path: Path) -> None:
    """A Masking before a ConvLSTM says which pixels to skip; and what a Bidirectional of them has
    at a masked step differs."""
    keras = pytest.importorskip(name)
    m, x, steps = keras.layers, keras.Input((None, 4, 2)), keras.Input((None,), dtype="bool")
    y = m.Masking()(x)
    row: dict[str, Any] = {"padding": "same", "return_sequences": True}
    outputs = [
        m.ConvLSTM1D(3, 3, **row)(y), m.Bidirectional(m.ConvLSTM1D(2, 3, **row))(y),
        m.ConvLSTM1D(2, 3, padding="same", go_backwards=True)(y),
        m.Bidirectional(m.ConvLSTM1D(2, 3, **row), merge_mode="sum")(x, mask=steps),
    ]  # fmt: skip

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(batch)
        pixels = rng.normal(size=(batch, length, 4, 2)).astype(np.float32)
        pixels[:, 1] = pixels[-1, 0] = pixels[0, -1] = pixels[:, 2, 3] = 0
        return [pixels, pixels[:, :, 0, 0] != 0]

    model = randomized(keras.Model([x, steps], outputs))
    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_sequential(name: str, tmp_path: Path) -> None:
    """No config of a Sequential says a mask: each Keras makes it as it runs."""
    keras = pytest.importorskip(name)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, 4)), layers.Masking(0.0), layers.Dense(4),
            layers.LSTM(3, return_sequences=True), layers.BatchNormalization(),
            layers.Bidirectional(layers.GRU(3, return_sequences=True)), layers.Dropout(0.1),
            layers.GlobalAveragePooling1D(), layers.Dense(2, activation="softmax"),
        ]
    )  # fmt: skip
    randomized(model)

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(6)
        x = rng.normal(size=(batch, length, 4)).astype("float32")
        x[rng.random((batch, length)) < 0.4] = 0
        x[:, 2] = 1
        return [x]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32


def test_time_distributed_over_a_mask_of_steps(tmp_path: Path) -> None:
    """Keras 3 hands each step its part of a mask of (batch, time, steps)."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    x, flags = keras.Input((3, 5, 4)), keras.Input((3, 5), dtype="bool")
    y = layers.TimeDistributed(layers.LSTM(2))(x, mask=flags)
    model = randomized(keras.Model([x, flags], y))

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(7)
        flags = rng.random((batch, 3, 5)) < 0.6
        return [rng.normal(size=(batch, 3, 5, 4)).astype("float32"), flags]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs, lengths=(1,)) < FLOAT32
