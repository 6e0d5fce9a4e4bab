"""The `keras` layout: real Keras takes the arrays with `set_weights`, and runs them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from support.neutral import from_keras_weights

import lstmconvert as lc
from lstmconvert.tensors.dtypes import same_bits

pytestmark = pytest.mark.engines


@pytest.mark.parametrize(("inputs", "units"), [(7, 2), (3, 3), (4, 1)])
def test_keras_takes_the_arrays_and_runs_them(inputs: int, units: int) -> None:
    random = np.random.default_rng(inputs * 10 + units)
    original = keras.layers.LSTM(units, return_sequences=True)
    original.build((None, None, inputs))
    original.set_weights(
        [random.standard_normal(w.shape).astype("float32") for w in original.weights]
    )
    arrays: dict[str, Any] = lc.arrange(from_keras_weights(original.get_weights()), "keras")
    copy = keras.layers.LSTM(units, return_sequences=True)
    copy.build((None, None, inputs))
    copy.set_weights([arrays[name] for name in ("kernel", "recurrent_kernel", "bias")])
    for one, other in zip(original.get_weights(), copy.get_weights(), strict=True):
        assert same_bits(one, other)
    x = random.standard_normal((3, 5, inputs)).astype("float32")
    np.testing.assert_array_equal(np.asarray(copy(x)), np.asarray(original(x)))
