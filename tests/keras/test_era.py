"""A Keras 2 archive goes back to Keras 2, and to Keras 3 where that is asked for.

The oracles are tf_keras, which wrote the files, and Keras 3.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.modern_models import example, outputs, samples

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget, UsageError

tf_keras = pytest.importorskip("tf_keras")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
X = np.random.default_rng(2).normal(size=(2, 5, 4)).astype("f4")


def old(custom: bool = False) -> Any:
    """A model of Keras 2; with a Lambda, which does not cross."""
    layers = tf_keras.layers
    inputs = layers.Input((5, 4))
    hidden = layers.LSTM(3, recurrent_activation="hard_sigmoid", name="lstm")(inputs)
    if custom:
        hidden = layers.Lambda(lambda x: x * 2.0, name="double")(hidden)
    return tf_keras.Model(inputs, layers.Dense(2, name="head")(hidden))


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("between", ["", "m.safetensors", "m.npz"])
def test_it_goes_back_to_keras_2(custom: bool, between: str, tmp_path: Path) -> None:
    model = old(custom)
    source = tmp_path / "m.keras"
    model.save(str(source))
    if between:
        lc.convert(source, tmp_path / between)
    back = tmp_path / "back.keras"
    result = lc.convert(tmp_path / between if between else source, back)
    assert result.whole_model
    assert any("Keras 2" in warning for warning in result.warnings)
    loaded = tf_keras.models.load_model(str(back), compile=False, safe_mode=False)
    assert np.array_equal(np.asarray(loaded(X)), np.asarray(model(X)))
    assert dict(lc.load(back).texts) == dict(lc.load(source).texts)


def test_it_is_modernised_where_that_is_asked_for(tmp_path: Path) -> None:
    model = old()
    source, target = tmp_path / "m.keras", tmp_path / "three.keras"
    model.save(str(source))
    assert lc.convert(source, target, era="keras3").whole_model
    loaded = importlib.import_module("keras").saving.load_model(str(target), compile=False)
    np.testing.assert_allclose(np.asarray(loaded(X)), np.asarray(model(X)), atol=1e-6)


#: Models that go back to Keras 2: what built them, in which kind of file, and the other kind.
BACK = [
    ("convolutions", "keras", "keras", "h5"),
    ("sequence_to_sequence", "keras", "h5", "keras"),
    ("attention", "keras", "keras", "keras"),
    ("nested", "keras", "keras", "h5"),
    ("nested", "tf_keras", "h5", "keras"),
    ("branches", "tf_keras", "keras", "h5"),
]


@pytest.mark.parametrize(("name", "library", "suffix", "target"), BACK)
def test_a_model_goes_back_to_keras_2(
    name: str, library: str, suffix: str, target: str, tmp_path: Path
) -> None:
    model, given, wanted = example(library, name)
    source, back = tmp_path / f"m.{suffix}", tmp_path / f"back.{target}"
    model.save(str(source))
    result = lc.convert(source, back, era="keras2")
    assert result.whole_model
    assert result.opens is None
    assert lc.load(back).source.era == "keras2"
    again = outputs(tf_keras.models.load_model(str(back), compile=False), given)
    assert len(again) == len(wanted)
    for a, b in zip(again, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def test_a_model_of_keras_1_goes_on_to_keras_2_and_no_further(tmp_path: Path) -> None:
    source = Path("fixtures/keras-1.2.2/sequential.h5")
    lc.convert(source, tmp_path / "two.h5", era="keras2")
    lc.convert(source, tmp_path / "three.keras")
    keras = importlib.import_module("keras")
    three = keras.saving.load_model(str(tmp_path / "three.keras"), compile=False)
    two = tf_keras.models.load_model(str(tmp_path / "two.h5"), compile=False)
    given = samples(two, "x")
    np.testing.assert_allclose(outputs(two, given)[0], outputs(three, given)[0], atol=1e-6)


def _three(keras: Any, kind: str) -> Any:
    layers = keras.layers
    x = keras.Input((5, 4))
    if kind == "masks":
        masked = layers.Masking()(x)
        return keras.Model(x, layers.Add(name="add")([masked, layers.LSTM(
            4, return_sequences=True)(masked)]))
    h = layers.LSTM(3, return_sequences=True)(x)
    ends = {
        "operation": lambda: h[:, -1],
        "hard_sigmoid": lambda: layers.Dense(2, activation="hard_sigmoid", name="dense")(h),
        "class": lambda: layers.RMSNormalization(name="rms")(h),
    }
    return keras.Model(x, ends[kind]())


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("operation", "no operations between layers"),
        ("hard_sigmoid", "tf_keras has no such activation"),
        ("class", "no such class"),
        ("masks", "a mask reaches it"),
    ],
)
def test_what_keras_2_does_not_have_is_refused_by_name(
    kind: str, what: str, tmp_path: Path
) -> None:
    source, back = tmp_path / "m.keras", tmp_path / "back.keras"
    _three(importlib.import_module("keras"), kind).save(str(source))
    with pytest.raises(UnsupportedByTarget, match=what) as refusal:
        lc.convert(source, back, era="keras2")
    assert refusal.value.target == "Keras 2"
    assert refusal.value.layer
    assert not back.exists()


def test_a_file_of_keras_2_that_cannot_be_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "m.keras"
    old().save(str(source))
    with pytest.raises(UnsupportedByTarget, match="Keras 2"):
        lc.convert(source, tmp_path / "back.keras", era="keras2", dtype="float16")
    lambdas = tmp_path / "lambda.keras"
    old(custom=True).save(str(lambdas))
    with pytest.raises(UnsupportedByTarget, match="Python code"):
        lc.convert(lambdas, tmp_path / "back.h5", era="keras2")


def test_the_era_is_effective_or_refused(tmp_path: Path) -> None:
    source, weights = tmp_path / "m.keras", tmp_path / "m.weights.h5"
    model = old()
    model.save(str(source))
    model.save_weights(str(weights))
    with pytest.raises(UsageError, match="--era is for"):
        lc.convert(source, tmp_path / "m.safetensors", era="keras3")
    with pytest.raises(UnsupportedByTarget, match="config"):
        lc.convert(weights, tmp_path / "again.weights.h5", era="keras3")


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_rescaled_hard_sigmoid_is_no_unchanged_file(suffix: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"m.{suffix}", tmp_path / f"three.{suffix}"
    model = old()
    model.save(str(source))
    result = lc.convert(source, target, rescale_hard_sigmoid=True)
    assert result.losses
    loaded = importlib.import_module("keras").saving.load_model(str(target), compile=False)
    np.testing.assert_allclose(np.asarray(loaded(X)), np.asarray(model(X)), atol=1e-6)
