"""Random whole models, each out of a seed, in ONNX Runtime and in Keras 3.

A seed takes a second or two. Without LSTMCONVERT_TESTS=all every twentieth of the 300 is run, and
the first twelve.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.random_models import random_model
from support.thinned import ALL
from support.whole_tools import (
    BATCHES,
    FLOAT32,
    answers,
    example,
    predicted,
    randomized,
    session,
    written,
)

from lstmconvert.tensors.dtypes import Array

#: Keras warns of masks that end at a layer.
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::UserWarning")]
#: In all; the first of them run every time; of the others one in so many, if not all.
COUNT, QUICK = 300, 12
STEP = 1 if ALL else 30
#: How many times Keras's own rounding, see `noise`, an answer may be off.
_NOISE = 16.0


def noise(model: Any, inputs: list[Array], together: list[Array]) -> list[float]:
    """Return how far Keras's answers are from those to the same rows, one by one.

    It takes several times as long as all the rest of a test.
    """
    rows = [
        predicted(model, [array[i : i + 1] for array in inputs]) for i in range(len(inputs[0]))
    ]
    apart = [np.concatenate([row[index] for row in rows]) for index in range(len(together))]
    return [
        float(np.nan_to_num(np.abs(one - two)).max(initial=0.0))
        for one, two in zip(apart, together, strict=True)
    ]


def assert_agrees(seed: int, folder: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(seed)
    keras.backend.clear_session()
    model = randomized(random_model(keras, seed), seed)
    ran = session(written(model, folder / "model.onnx"))
    calls: list[tuple[list[Array], list[Array], list[Array]]] = []
    for batch, length in zip(BATCHES, (9, 14), strict=True):
        inputs = example(model, batch, length, seed=seed + length)
        for array in inputs:  # steps that Masking takes out, with gaps
            if array.ndim == 3:
                array[np.random.default_rng(seed).random(array.shape[:2]) < 0.3] = 0.0
        wanted = predicted(model, inputs)
        computed = answers(ran, inputs)
        assert len(computed) == len(wanted)
        if all(array.size for array in wanted):
            calls.append((inputs, computed, wanted))
    assert calls
    # The scale of an output is that of all its answers: those to one input may cancel out.
    scales = [
        max(float(np.abs(np.nan_to_num(array)).max()) for array in answer)
        for answer in zip(*(wanted for _, _, wanted in calls), strict=True)
    ]
    for inputs, computed, wanted in calls:
        far = []
        for array, right, scale in zip(computed, wanted, scales, strict=True):
            assert array.shape == right.shape
            assert (np.isnan(array) == np.isnan(right)).all()
            apart = float(np.abs(np.nan_to_num(array) - np.nan_to_num(right)).max())
            far.append(apart - FLOAT32 * scale)
        if max(far) > 0.0:  # only here is it asked how far Keras is from itself
            for beyond, rounding in zip(far, noise(model, inputs, wanted), strict=True):
                assert beyond <= _NOISE * rounding, (seed, beyond, rounding)


@pytest.mark.parametrize("seed", range(QUICK))
def test_random_models(seed: int, tmp_path: Path) -> None:
    assert_agrees(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(QUICK, COUNT, STEP))
def test_more_random_models(seed: int, tmp_path: Path) -> None:
    assert_agrees(seed, tmp_path)
