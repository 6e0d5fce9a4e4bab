"""Layers that Keras builds for one shape, out of SavedModels: the metadata says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

import lstmconvert as lc

#: Keras 3.15 warns of inputs in a list, which Keras 3.3 needs.
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore:The structure of")]

LAYERS = tf_keras.layers
#: Kind -> the shape that it is fed, and the layer.
KINDS: dict[str, tuple[tuple[int, ...], Any]] = {
    "stateful": ((2, 5, 3), lambda: LAYERS.LSTM(4, stateful=True, return_sequences=True)),
    "unrolled": ((2, 5, 3), lambda: LAYERS.LSTM(4, unroll=True)),
    "both": ((2, 5, 3), lambda: LAYERS.Bidirectional(LAYERS.LSTM(4, unroll=True))),
    "images": ((2, 3, 6, 6, 2), lambda: LAYERS.ConvLSTM2D(4, (3, 2), padding="same")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_savedmodel_goes_to_keras_3(kind: str, tmp_path: Path) -> None:
    shape, make = KINDS[kind]
    rng = np.random.default_rng(0)
    inputs = tf_keras.Input(batch_shape=shape)
    model = tf_keras.Model(inputs, make()(inputs))
    model.set_weights([rng.normal(size=w.shape).astype("f4") for w in model.get_weights()])
    model.save(tmp_path / "saved", save_format="tf", save_traces=False)
    lc.convert(tmp_path / "saved", tmp_path / "today.keras")
    today = keras.models.load_model(tmp_path / "today.keras")
    x = rng.normal(size=shape).astype("f4")
    # Two engines of one arithmetic, float32: a few rounding steps.
    np.testing.assert_allclose(np.asarray(today(x)), model(x).numpy(), rtol=0, atol=2e-6)
