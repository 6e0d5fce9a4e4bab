"""Files that Keras 2.12 to 2.15 wrote on Windows: their groups are called `layers\\lstm\\cell`.

The writer is tf_keras's own, with Windows's way to join paths in the place of TensorFlow's.
"""

from __future__ import annotations

import ntpath
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import lstmconvert as lc

tf_keras = pytest.importorskip("tf_keras")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]


class OnWindows:
    """A module, with one attribute on the way to `io.gfile.join` replaced."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module, self._replaced = module, replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._module, name)


def save(made: Any, path: Path) -> None:
    """Save a model as Keras does on Windows."""
    import tensorflow as tf
    from tf_keras.src.saving import saving_lib

    gfile = OnWindows(tf.io.gfile, join=ntpath.join)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving_lib, "tf", OnWindows(tf, io=OnWindows(tf.io, gfile=gfile)))
        made.save_weights(str(path)) if path.name.endswith(".weights.h5") else made.save(str(path))


def model() -> Any:
    layers = tf_keras.layers
    inner = tf_keras.Sequential([layers.Input((5, 4)), layers.LSTM(3, name="deep")], name="inner")
    made = tf_keras.Sequential(
        [
            layers.Input((5, 4)),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both"),
            layers.TimeDistributed(layers.Dense(4), name="each"),
            inner,
            layers.Dense(2, name="head"),
        ]
    )
    made.compile("adam", "mse")
    made.optimizer.build(made.trainable_variables)  # what a fit makes, without its traces
    return made


@pytest.mark.parametrize("suffix", ["keras", "weights.h5"])
def test_they_are_read_and_written_as_everywhere(suffix: str, tmp_path: Path) -> None:
    made = model()
    path = tmp_path / f"windows.{suffix}"
    save(made, path)
    found = lc.load(path)
    kernels = [np.asarray(w) for w in made.weights if w.shape == (4, 12)]
    deep = next(layer for layer in found.values() if layer.units == 3)
    assert np.array_equal(deep.cell.fused("kernel").read(), kernels[0])
    assert len(found) == 2
    assert any("Windows" in note for note in found.notes)
    assert not any("\\" in name for name in found.other)
    # Written anew, it opens where no Windows is: here.
    back = tmp_path / f"back.{suffix}"
    assert lc.convert(path, back).all_weights
    if suffix == "weights.h5":
        with h5py.File(back) as file:
            assert not any("\\" in name for name in file)
        other = model()
        other.load_weights(str(back))
        for one, two in zip(made.weights, other.weights, strict=True):
            assert np.array_equal(one, two)
