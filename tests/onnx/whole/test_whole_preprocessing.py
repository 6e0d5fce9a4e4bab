"""Layers before and between others that prepare numbers: images, categories, equations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.whole_tools import (
    FLOAT32,
    answers,
    beside_lstm,
    compared,
    distance,
    distances,
    predicted,
    randomized,
    session,
    without_beside,
    written,
)

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines
ERAS = ("keras", "tf_keras")


def _filled(*makes: Callable[[int, int], Array]) -> Callable[[int, int], list[Array]]:
    """Return what makes the inputs of a model with an LSTM beside its layers."""
    rng = np.random.default_rng(1)
    return lambda batch, length: [
        *(make(batch, length) for make in makes),
        rng.normal(size=(batch, length, 2)).astype(np.float32),
    ]


def _pixels(dtype: str) -> Callable[[int, int], Array]:
    rng = np.random.default_rng(0)
    return lambda batch, _: rng.integers(0, 256, (batch, 9, 7, 3)).astype(dtype)


@pytest.mark.parametrize("name", ERAS)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_images(name: str, dtype: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    m = keras.layers
    x = keras.Input((9, 7, 3), dtype=dtype)
    outputs = [
        *(m.Resizing(5, 12, interpolation=how)(x) for how in ("nearest", "bilinear", "bicubic")),
        m.Resizing(6, 4, crop_to_aspect_ratio=True)(x),
        m.CenterCrop(4, 5)(x),
        m.CenterCrop(12, 5)(x),
        m.RandomCrop(4, 5)(m.Rescaling(1 / 255)(x)),
        m.RandomRotation(0.1)(m.RandomFlip()(x)),
        m.RandomContrast(0.1)(m.RandomZoom(0.1)(x)),
    ]
    if name == "keras" and dtype == "float32":
        outputs.append(m.Resizing(4, 12, pad_to_aspect_ratio=True, fill_value=2.0)(x))
    model = beside_lstm(keras, [x], outputs)
    apart = distances(model, tmp_path / "model.onnx", inputs=_filled(_pixels(dtype)))
    # A whole number that is nearly in the middle of two is rounded to one or the other.
    is_rounded = dtype == "uint8" and name == "keras"
    assert max(apart.values()) < (1 / 200 if is_rounded else FLOAT32)


@pytest.mark.parametrize("name", ERAS)
def test_categories(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    m, listed = keras.layers, [10, 12, 15]
    x, y = keras.Input((None,), dtype="int64"), keras.Input((1,), dtype="int64")
    z = keras.Input((None,))
    adapted = m.IntegerLookup()
    adapted.adapt(np.array([10, 10, 12, 15, 12, 12]))
    outputs = [
        m.Embedding(5, 3)(m.IntegerLookup(vocabulary=listed, mask_token=11)(x)),
        m.IntegerLookup(vocabulary=listed, num_oov_indices=3)(x),
        m.IntegerLookup(vocabulary=listed, output_mode="multi_hot", mask_token=11)(x),
        m.IntegerLookup(
            vocabulary=listed, output_mode="count", pad_to_max_tokens=True, max_tokens=9
        )(x),
        m.CategoryEncoding(17, output_mode="count")(x),
        m.CategoryEncoding(17, output_mode="multi_hot")(x),
        m.CategoryEncoding(17, output_mode="one_hot")(y),
        m.Discretization([-1.0, 0.0, 0.5])(z),
        m.Discretization([-1.0, 0.0, 0.5], output_mode="count")(z),
    ]
    if name == "keras":  # tf_keras keeps what it has adapted in a table that no .h5 holds
        outputs.append(adapted(x))
    model = randomized(beside_lstm(keras, [x, y, z], outputs))
    rng = np.random.default_rng(0)
    inputs = _filled(
        lambda batch, length: rng.integers(10, 17, (batch, length)),
        lambda batch, _: rng.integers(10, 17, (batch, 1)),
        lambda batch, length: rng.normal(size=(batch, length)).astype(np.float32),
    )
    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_texts(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    m, listed = keras.layers, ["um", "zwölf", "uhr"]
    x, y = keras.Input((None,), dtype="string"), keras.Input((None,), dtype="int64")
    outputs = [
        m.Embedding(5, 3)(m.StringLookup(vocabulary=listed)(x)),
        m.StringLookup(vocabulary=listed, mask_token="")(x),
        m.StringLookup(vocabulary=listed, output_mode="multi_hot", mask_token="")(x),
        m.StringLookup(vocabulary=listed, output_mode="count", max_tokens=9,
                       pad_to_max_tokens=True)(x),
    ]  # fmt: skip
    model = randomized(beside_lstm(keras, [x, y], [*outputs, y]))
    path = written(model, tmp_path / "model.onnx")
    texts = np.array([["uhr", "", "zwölf"], ["um", "[UNK]", "sonst"]], object)
    steps = np.ones((2, 3, 2), np.float32)
    numbers = np.array([[0, 1, 2], [3, 4, 7]])
    ran = session(path)
    for one, two in zip(
        answers(ran, [texts, numbers, steps]), predicted(model, [texts, numbers, steps]),
        strict=True,
    ):
        assert distance(one, two) < FLOAT32
    back = keras.Sequential([keras.Input((None,), dtype="int64"),
                             m.StringLookup(vocabulary=listed, invert=True)])  # fmt: skip
    if name == "keras":
        ran = session(written(back, tmp_path / "back.onnx"))
        told = [text.decode() for text in np.asarray(back(numbers)).reshape(-1)]
        assert answers(ran, [numbers])[0].reshape(-1).tolist() == told


@pytest.mark.parametrize("name", ERAS)
def test_sentences(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    tf = pytest.importorskip("tensorflow")
    m, x = keras.layers, keras.Input((1,), dtype="string")
    options: list[dict[str, Any]] = [
        {"output_sequence_length": 3}, {"output_mode": "count"}, {"standardize": "lower"},
        {"standardize": None, "output_mode": "multi_hot"}, {"split": None, "standardize": "lower"},
        {"standardize": "strip_punctuation", "output_sequence_length": 9},
        {"ngrams": 3}, {"ngrams": (2,), "output_mode": "count"},
        {"ngrams": (3, 1), "output_sequence_length": 4}, {"ngrams": 2, "split": None},
    ]  # fmt: skip
    listed = ["um", "uhr", "Ä", "ärger", "Ärger", "dont", "don't", "um uhr", "um uhr dont"]
    outputs = [m.TextVectorization(vocabulary=listed, **row)(x) for row in options]
    model = beside_lstm(keras, [x], outputs)
    ran = session(written(model, tmp_path / "model.onnx"))
    sentences = ["Um ÄRGER, ärger, Ä!", "", " .. a-b\tUM\v\r\n [Uhr] Don't", "um uhr"]
    texts = np.array(sentences, object)[:, None]
    oracle = without_beside(model)
    for rows in (slice(0, 4), slice(1, 2)):
        steps = np.ones((len(texts[rows]), 1, 2), np.float32)
        wanted = [np.asarray(y) for y in oracle(tf.constant(texts[rows]), training=False)]
        for found, right in zip(answers(ran, [texts[rows], steps]), wanted, strict=False):
            assert found.dtype == right.dtype
            assert found.tolist() == right.tolist()
    with pytest.raises(lc.UnsupportedByTarget, match="opset 17"):
        written(model, tmp_path / "old.onnx", opset=17)


def test_contrast_in_tiles(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layer = keras.layers.ContrastLimitedAdaptiveHistogramEqualization
    x, y = keras.Input((9, 7, 3)), keras.Input((9, 7, 3), dtype="uint8")
    outputs = [
        layer(tile_grid_size=(2, 3))(x),
        layer(value_range=(0, 300), clip_limit=0.0, tile_grid_size=(3, 1))(x),
        layer(data_format="channels_first", tile_grid_size=(4, 2), clip_limit=1.5)(x),
        layer(tile_grid_size=(2, 2))(y),
    ]
    model = beside_lstm(keras, [x, y], outputs)
    inputs = _filled(_pixels("float32"), _pixels("uint8"))
    apart = distances(model, tmp_path / "model.onnx", inputs=inputs)
    # A whole number that is nearly another is cut to it or to the one below.
    assert {name: far for name, far in apart.items() if far > FLOAT32 and far > 1 / 200} == {}
    assert sorted(apart.values())[2] < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_equations(name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(name)
    m = keras.layers
    x = keras.Input((3, 4))
    rows = [
        ("abc,cd->abd", (None, 5), "d", None),
        ("...x,xy->...y", 5, "y", "relu"),
        ("abc,bcd->abd", (3, 5), "bd", None),
        ("abc,bd->adc", (5, 4), "d", None),
        ("abc,cd->abd", (None, 2), None, None),
    ]
    outputs = [
        m.EinsumDense(equation, output_shape=shape, bias_axes=axes, activation=function)(x)
        for equation, shape, axes, function in rows
    ]
    model = randomized(beside_lstm(keras, [x], outputs))
    assert compared(model, tmp_path / "model.onnx") < FLOAT32
    if name == "keras":
        back = lc.convert(tmp_path / "model.onnx", tmp_path / "back.keras")
        assert back is not None


def test_adaptive_pooling_and_images_of_any_size(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    m = keras.layers
    x, y = keras.Input((9, 7, 3)), keras.Input((None, 8, 3))
    outputs = [
        m.AdaptiveAveragePooling2D((4, 3))(x),
        m.AdaptiveMaxPooling2D(2)(x),
        m.AdaptiveMaxPooling2D((3, 3), data_format="channels_first")(x),
        m.CenterCrop(4, 5)(y),
        m.Resizing(5, 5)(y),
    ]
    model = beside_lstm(keras, [x, y], outputs)
    assert compared(model, tmp_path / "model.onnx") < FLOAT32


def test_what_needs_the_size_of_an_image_is_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input((None, None, 3))
    model = beside_lstm(keras, [x], [keras.layers.Resizing(4, 4, crop_to_aspect_ratio=True)(x)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(lc.UnsupportedByTarget, match="size is not known") as caught:
        lc.convert(tmp_path / "model.keras", tmp_path / "model.onnx", whole=True)
    assert caught.value.option == "crop_to_aspect_ratio"
