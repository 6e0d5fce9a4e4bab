"""What stands beside a model in its file, and what changes no number of it, does not stop it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import lstmconvert as lc

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
LIBRARIES = ("tf_keras", "keras")
X = np.random.default_rng(2).normal(size=(2, 5, 4)).astype("f4")


def model(library: str, custom: bool = False) -> Any:
    keras = importlib.import_module(library)
    layers = keras.layers

    class Mine(keras.initializers.Initializer):  # type: ignore[misc,name-defined]
        def __call__(self, shape: Any, *_: Any, **__: Any) -> Any:
            return np.full(shape, 0.25, "f4")

        def get_config(self) -> dict[str, Any]:
            return {}

    class Decay(keras.regularizers.Regularizer):  # type: ignore[misc,name-defined]
        def __call__(self, _: Any) -> Any:
            return 0.0

        def get_config(self) -> dict[str, Any]:
            return {}

    more = {"kernel_initializer": Mine(), "bias_regularizer": Decay()} if custom else {}
    inputs = layers.Input((5, 4))
    hidden = layers.LSTM(3, name="lstm", **more)(inputs)
    hidden = layers.Dense(3, name="mid", **more)(hidden)
    return keras.Model(inputs, layers.Dense(2, name="head")(hidden))


@pytest.mark.parametrize("place", ["info/input_size", "model_weights/notes"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_arrays_that_no_layer_lists_do_not_stop_a_model(
    library: str, place: str, tmp_path: Path
) -> None:
    made = model(library)
    source, target = tmp_path / "m.h5", tmp_path / "m.keras"
    made.save(str(source))
    with h5py.File(source, "a") as file:
        file[place] = np.arange(3)
    result = lc.convert(source, target)
    assert result.whole_model
    assert any(place in warning for warning in result.warnings)
    loaded = importlib.import_module("keras").saving.load_model(str(target), compile=False)
    np.testing.assert_allclose(np.asarray(loaded(X)), np.asarray(made(X)), atol=1e-6)
    # Where the file goes back into its own kind, they stay.
    lc.convert(source, tmp_path / "back.h5")
    with h5py.File(tmp_path / "back.h5") as file:
        assert np.array_equal(file[place], np.arange(3))


@pytest.mark.parametrize(("source", "target"), [("h5", "keras"), ("keras", "h5")])
@pytest.mark.parametrize("library", LIBRARIES)
def test_initializers_and_penalties_of_the_users_own_are_left_out(
    library: str, source: str, target: str, tmp_path: Path
) -> None:
    made = model(library, custom=True)
    made.save(str(tmp_path / f"m.{source}"))
    result = lc.convert(tmp_path / f"m.{source}", tmp_path / f"m2.{target}")
    assert result.whole_model
    told = "\n".join(result.warnings)
    for layer in ("lstm", "mid"):
        assert f"{layer}: its kernel_initializer Mine" in told
        assert f"{layer}: its bias_regularizer Decay" in told
    keras3 = importlib.import_module("keras")
    loaded = keras3.saving.load_model(str(tmp_path / f"m2.{target}"), compile=False)
    np.testing.assert_allclose(np.asarray(loaded(X)), np.asarray(made(X)), atol=1e-6)


def test_they_are_left_out_of_lstm_layers_alone(tmp_path: Path) -> None:
    made = model("keras", custom=True)
    made.save(str(tmp_path / "m.keras"))
    result = lc.convert(tmp_path / "m.keras", tmp_path / "lstm.keras", lstm_only=True)
    assert not result.whole_model
    assert any("kernel_initializer Mine" in warning for warning in result.warnings)
    loaded = importlib.import_module("keras").saving.load_model(str(tmp_path / "lstm.keras"))
    theirs = made.get_layer("lstm")(X)
    np.testing.assert_allclose(np.asarray(loaded(X)), np.asarray(theirs), atol=1e-6)
