"""Random whole models, each out of a seed, in ONNX Runtime and in Keras 3.

A seed takes four seconds. Without LSTMCONVERT_RANDOM_MODELS=all, which takes twenty minutes, every
tenth of the 300 is run, and the first twelve.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.random_models import random_model
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
STEP = 1 if os.environ.get("LSTMCONVERT_RANDOM_MODELS") == "all" else 10
#: How many times Keras's own rounding, see `noise`, an answer may be off.
_NOISE = 16.0


def noise(model: Any, inputs: list[Array], together: list[Array]) -> list[float]:
    """Return how far Keras's answers are from those to the same rows, one by one."""
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
    pairs: list[list[tuple[Array, Array, float]]] = []
    for batch in BATCHES:
        for length in (9, 14):
            inputs = example(model, batch, length, seed=seed + length)
            for array in inputs:  # steps that Masking takes out, with gaps
                if array.ndim == 3:
                    array[np.random.default_rng(seed).random(array.shape[:2]) < 0.3] = 0.0
            wanted = predicted(model, inputs)
            computed = answers(ran, inputs)
            assert len(computed) == len(wanted)
            if not all(array.size for array in wanted):
                continue
            noises = noise(model, inputs, wanted)
            pairs.append(list(zip(computed, wanted, noises, strict=True)))
    for output in zip(*pairs, strict=True):
        # The scale of an output is that of all its answers: those to one input may cancel out.
        scale = max(float(np.abs(np.nan_to_num(wanted)).max()) for _, wanted, _ in output)
        for array, wanted, rounding in output:
            assert array.shape == wanted.shape
            assert (np.isnan(array) == np.isnan(wanted)).all()
            apart = float(np.abs(np.nan_to_num(array) - np.nan_to_num(wanted)).max())
            assert apart <= FLOAT32 * scale + _NOISE * rounding, (seed, apart, scale, rounding)


@pytest.mark.parametrize("seed", range(QUICK))
def test_random_models(seed: int, tmp_path: Path) -> None:
    assert_agrees(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(QUICK, COUNT, STEP))
def test_more_random_models(seed: int, tmp_path: Path) -> None:
    assert_agrees(seed, tmp_path)
