"""Whole models: nested and shared layers, wrappers, functions between layers, attention, dtypes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.whole_tools import FLOAT32, beside_lstm, compared, distances, randomized

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines
ERAS = ("keras", "tf_keras")


@pytest.mark.parametrize("name", ERAS)
@pytest.mark.parametrize("length", [3, None])
def test_time_distributed(name: str, length: int | None, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    m = keras.layers
    makes: dict[str, tuple[Callable[[], Any], tuple[int | None, ...]]] = {
        "conv": (lambda: m.Conv1D(3, 3, padding="same"), (6, 4)),
        "lstm": (lambda: m.LSTM(3), (5, 4)),
        "dense": (lambda: m.Dense(3, activation="relu"), (4,)),
        "flatten": (lambda: m.Flatten(), (5, 4)),
        "model": (lambda: keras.Sequential(
            [keras.Input((6, 4)), m.Conv1D(3, 2), m.LSTM(2), m.Dense(3)]), (6, 4)),
        "bidirectional": (lambda: m.Bidirectional(m.LSTM(3)), (5, 4)),
        "embedding": (lambda: m.Embedding(6, 3), (5,)),
        "batchnorm": (lambda: m.BatchNormalization(), (5, 4)),
        "pool": (lambda: m.GlobalMaxPooling1D(), (5, 4)),
    }  # fmt: skip
    inputs, outputs = [], []
    for inner, (make, rest) in makes.items():
        dtype = "int32" if inner == "embedding" else "float32"
        inputs.append(keras.Input((length, *rest), dtype=dtype))
        outputs.append(m.TimeDistributed(make())(inputs[-1]))
    model = randomized(beside_lstm(keras, inputs, outputs))
    far = distances(model, tmp_path / "model.onnx").values()
    assert not {key: value for key, value in zip(makes, far, strict=True) if not value < FLOAT32}


ATTENTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bare": {"use_bias": False},
    "values": {"value_dim": 5},
    "out": {"output_shape": 7},
}


@pytest.mark.parametrize("name", ERAS)
def test_multi_head_attention(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    x, y = keras.Input((None, 4)), keras.Input((5, 6))
    outputs: list[Any] = []
    for options in ATTENTIONS.values():
        layer, causal, scored = (keras.layers.MultiHeadAttention(2, 3, **options) for _ in "abc")
        outputs += [
            layer(x, y),
            causal(x, x, use_causal_mask=True),
            *scored(x, y, return_attention_scores=True),
        ]
    model = randomized(beside_lstm(keras, [x, y], outputs))
    assert compared(model, tmp_path / "model.onnx") < FLOAT32


@pytest.mark.filterwarnings("ignore::UserWarning")  # that masks end at some layers
def test_nested_model_keeps_a_mask_that_an_attention_takes_off(tmp_path: Path) -> None:
    """Keras states the mask where it calls the model, as an argument."""
    keras = pytest.importorskip("keras")
    m = keras.layers
    words, inner = keras.Input((None,)), keras.Input((None, 4))
    nested = keras.Model(inner, m.LSTM(3, return_sequences=True)(m.Dense(2)(inner)))
    x = m.Embedding(6, 4, mask_zero=True)(words)
    seen = m.MultiHeadAttention(2, 3)(x, x)
    read, again = nested(x), nested(m.Dense(4)(x))
    outputs = [m.GlobalAveragePooling1D()(read), m.LSTM(2)(seen), m.LSTM(2)(again)]
    model = randomized(keras.Model(words, outputs))

    def inputs(batch: int, length: int) -> list[Array]:
        ids = np.random.default_rng(8).integers(0, 6, (batch, length)).astype("float32")
        ids[:, 0] = 1
        ids[:, 2] = 0
        return [ids]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs, lengths=(5,)) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_attention_over_images(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    x = keras.Input((3, 5, 4))
    axes: tuple[tuple[int, ...] | None, ...] = (None, (1,), (2,))
    y = [keras.layers.MultiHeadAttention(2, 3, attention_axes=each)(x, x) for each in axes]
    model = randomized(beside_lstm(keras, [x], y))
    assert compared(model, tmp_path / "model.onnx") < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_attention_mask(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    x, flags = keras.Input((5, 4)), keras.Input((5, 5), dtype="bool")
    y = keras.layers.MultiHeadAttention(2, 3)(x, x, attention_mask=flags)
    model = randomized(beside_lstm(keras, [x, flags], y))

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(8)
        steps = [rng.normal(size=(batch, 5, size)).astype("float32") for size in (4, 2)]
        return [steps[0], rng.random((batch, 5, 5)) < 0.6, steps[1]]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs, lengths=(1,)) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_nested_and_shared(name: str, tmp_path: Path) -> None:
    """A model in a model in a model, layers and models that are called twice."""
    keras = pytest.importorskip(name)
    m = keras.layers
    lowest = keras.Sequential([m.Dense(4, activation="relu"), m.LSTM(3, return_sequences=True)])
    a, b = keras.Input((None, 4)), keras.Input((None, 4))
    both = keras.Model([a, b], [m.Add()([lowest(a), b[..., :3] * 2.0]), lowest(b)])
    x, y = keras.Input((None, 4)), keras.Input((None, 4))
    one, two = both([x, y])
    three, _ = both([y, x])
    shared = m.Dense(2)
    model = randomized(keras.Model([x, y], [shared(one), shared(two), m.LSTM(2)(three)]))
    assert compared(model, tmp_path / "model.onnx") < FLOAT32


def test_shared_layer_that_copies_and_casts(tmp_path: Path) -> None:
    """Called on floats it copies, called on integers it casts: each output keeps its own name."""
    keras = pytest.importorskip("keras")
    x, whole = keras.Input((4, 4, 3)), keras.Input((4, 4, 3), dtype="uint8")
    flip = keras.layers.RandomFlip(name="flip")
    model = keras.Model([x, whole], [flip(x), flip(whole)])

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(length)
        shape = (batch, 4, 4, 3)
        return [rng.random(shape).astype("float32"), rng.integers(0, 256, shape).astype("uint8")]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs, lengths=(1,)) == 0


def _keras3(k: Any, x: Any, y: Any) -> list[Any]:
    o = k.ops
    return [
        x + y, x - 1.5, 2.0 * x, x / y, -x, x**2, abs(x), o.exp(x), o.sqrt(abs(x)), o.tanh(x),
        o.mean(x, axis=1), o.sum(x, axis=(1, 2), keepdims=True), o.max(x, axis=-1),
        o.var(x, axis=1), o.std(x, axis=-1, keepdims=True), x[:, -1], x[:, 1:, ::2],
        x[:, ::-1], x[..., 0], x[:, None], o.squeeze(o.mean(x, 1, keepdims=True), 1),
        o.expand_dims(x, -1),
        o.transpose(x, (0, 2, 1)), o.swapaxes(x, 1, 2), o.reshape(x, (-1, 2, 2)),
        o.concatenate([x, y], axis=-1), o.stack([x, y], axis=1), *o.split(x, 2, axis=-1),
        *o.split(x, [1, 3], axis=2), o.tile(x, (1, 1, 2)), o.repeat(x, 2, axis=1), o.flip(x, 1),
        o.pad(x, ((0, 0), (1, 2), (0, 0))), o.clip(x, -0.5, 0.5), o.matmul(x, o.swapaxes(y, 1, 2)),
        o.einsum("btc,bsc->bts", x, y), o.relu(x), o.sigmoid(x), o.gelu(x),
        o.gelu(x, approximate=False), o.softmax(x, axis=1), o.log_softmax(x), o.leaky_relu(x),
        o.elu(x), o.selu(x), o.silu(x), o.softplus(x), o.softsign(x), o.relu6(x), o.hard_sigmoid(x),
        o.where(x > y, x, y), o.maximum(x, 0.1), o.minimum(x, y), o.cumsum(x, axis=1),
        o.normalize(x, axis=-1), o.log1p(abs(x)), o.expm1(x), o.square(x), o.rsqrt(abs(x) + 1.0),
        o.reciprocal(x), o.sign(x), o.floor(x), o.sin(x), o.cos(x), o.log(abs(x)),
        o.cast(x > 0, "float32"), o.cast(o.argmax(x, axis=-1), "float32"), o.amin(x, axis=1),
        o.prod(x, axis=-1),
    ]  # fmt: skip


def _tensorflow(k: Any, x: Any, y: Any) -> list[Any]:
    import tensorflow as tf

    del k
    return [
        x + y, x - y, 2.0 * x, x / y, tf.exp(x), tf.tanh(x), tf.reduce_mean(x, 1),
        tf.reduce_sum(x, [1, 2], keepdims=True), tf.reduce_max(x, -1), x[:, -1], x[:, 1:, ::2],
        x[..., 0], x[:, tf.newaxis], tf.squeeze(x[:, :1], 1), tf.expand_dims(x, -1),
        tf.transpose(x, (0, 2, 1)), tf.reshape(x, (-1, 2, 2)), tf.concat([x, y], -1),
        tf.stack([x, y], 1), *tf.split(x, 2, -1), tf.tile(x, (1, 1, 2)), tf.reverse(x, [1]),
        tf.pad(x, ((0, 0), (1, 2), (0, 0))), tf.clip_by_value(x, -0.5, 0.5), tf.nn.relu(x),
        tf.sigmoid(x), tf.nn.gelu(x), tf.nn.softmax(x, 1), tf.nn.leaky_relu(x), tf.nn.selu(x),
        tf.nn.silu(x), tf.math.l2_normalize(x, -1), tf.math.log1p(abs(x)), tf.math.expm1(x),
        tf.matmul(x, tf.transpose(y, (0, 2, 1))), tf.maximum(x, y), tf.sqrt(tf.abs(x)),
        tf.math.softplus(x), tf.nn.log_softmax(x), tf.square(x), tf.math.rsqrt(tf.abs(x) + 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ERAS)
def test_functions(name: str, tmp_path: Path) -> None:
    """Every function between layers that is carried."""
    keras = pytest.importorskip(name)
    x, y = keras.Input((None, 4)), keras.Input((None, 4))
    outputs = (_keras3 if name == "keras" else _tensorflow)(keras, x, y)
    model = randomized(beside_lstm(keras, [x, y], outputs))
    assert compared(model, tmp_path / "model.onnx") < FLOAT32


#: policy -> what half a step of its numbers is, relative: no more can be expected.
POLICIES = {"mixed_float16": 2e-3, "mixed_bfloat16": 1.6e-2, "float16": 2e-3, "bfloat16": 1.6e-2}


@pytest.mark.parametrize("policy", POLICIES)
def test_policies(policy: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    m = keras.layers
    x = keras.Input((None, 4))
    y = m.Dense(6, activation="relu", dtype=policy)(x)
    y = normal = m.BatchNormalization(dtype=policy)(y)
    # TensorFlow has no orthogonal matrices of bfloat16.
    options = {"recurrent_initializer": "zeros", "return_sequences": True}
    y = m.LSTM(5, dtype=policy, **options)(y)
    y = m.LayerNormalization(dtype=policy)(y)
    y = m.Conv1D(4, 2, padding="same", dtype=policy)(y)
    y = m.Add(dtype=policy)([y, m.Dropout(0.3, dtype=policy)(y)])
    y = m.GlobalAveragePooling1D(dtype=policy)(y)
    model = keras.Model(x, [m.Dense(3, activation="softmax", dtype="float32")(y), normal])
    assert compared(randomized(model), tmp_path / "model.onnx") < POLICIES[policy]
    ends = onnx.load(tmp_path / "model.onnx").graph.output
    kinds = [value.type.tensor_type.elem_type for value in ends]
    # ONNX Runtime hands no bfloat16 out.
    half = onnx.TensorProto.FLOAT if "bfloat16" in policy else onnx.TensorProto.FLOAT16
    assert kinds == [onnx.TensorProto.FLOAT, half]


def test_float64(tmp_path: Path) -> None:
    """ONNX Runtime has no float64 LSTM: it is a Scan of what there is."""
    keras = pytest.importorskip("keras")
    m = keras.layers
    x = keras.Input((None, 4), dtype="float64")
    y = m.Dense(6, activation="softplus", dtype="float64")(x)
    y = m.Bidirectional(m.LSTM(5, return_sequences=True, dtype="float64"), dtype="float64")(y)
    y = m.GRU(3, return_sequences=True, dtype="float64")(y)
    y = m.LayerNormalization(dtype="float64")(m.BatchNormalization(dtype="float64")(y))
    y = m.Dense(3, activation="hard_sigmoid", dtype="float64")(y)
    model = randomized(keras.Model(x, [y, m.SimpleRNN(2, dtype="float64")(y)]))
    assert compared(model, tmp_path / "model.onnx") < 1e-14


def test_what_onnx_runtime_has_not_in_float64_is_told(tmp_path: Path) -> None:
    """The graph is right, and other engines run it: the warning names layer and operator."""
    import onnxruntime

    keras = pytest.importorskip("keras")
    m = keras.layers
    x = keras.Input((None, 4), dtype="float64")
    y = m.Conv1D(3, 2, name="window", dtype="float64")(x)
    y = m.AveragePooling1D(2, name="pool", dtype="float64")(y)
    model = keras.Model(x, m.LSTM(2, dtype="float64")(y))
    model.save(tmp_path / "model.keras")
    result = lc.convert(tmp_path / "model.keras", tmp_path / "x.onnx", whole=True, warn=False)
    told = [text for text in result.warnings if "float64" in text]
    assert [text.partition(":")[0] for text in told] == ["window", "pool"]
    assert "no Conv in float64" in told[0]
    assert "no AveragePool in float64" in told[1]
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])


def test_large_means(tmp_path: Path) -> None:
    """A BatchNormalization whose means are far larger than its deviations."""
    keras = pytest.importorskip("keras")
    x = keras.Input((None, 4))
    layer = keras.layers.BatchNormalization()
    model = randomized(beside_lstm(keras, [x], layer(x)))
    statistics = [np.full(4, 3000, "float32"), np.ones(4, "float32")]
    layer.set_weights([*layer.get_weights()[:2], *statistics])

    def inputs(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(9)
        steps = [rng.normal(size=(batch, length, size)).astype("float32") for size in (4, 2)]
        return [steps[0] + 3000, steps[1]]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32
