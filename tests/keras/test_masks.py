"""Padded inputs give the same numbers before and after: masks mean what they meant.

The oracles are tf_keras, which wrote the models, Keras 3, and Keras 3 as its next version hands
masks on, in a child process.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from support.masked_models import IDS, STEPS, WIDTH, models

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
MODELS = models(tf_keras)
#: Models in which Keras 2 and Keras 3 hand masks on otherwise.
UNLIKE = (
    *("concatenate", "concatenate_one", "add", "multiply", "maximum", "multiplied", "rescaled"),
    *("decoded", "pooled"),
)
#: Keras as it is developed: recurrent layers hand no mask on.
LATER = """
import sys
import numpy as np
import keras
from keras.src.layers.rnn.bidirectional import Bidirectional
from keras.src.layers.rnn.rnn import RNN

def changed(kind):
    before = kind.__init__
    def init(self, *args, **more):
        before(self, *args, **more)
        self.supports_masking = False
    kind.__init__ = init
    kind.compute_mask = lambda self, *args, **more: None

changed(RNN)
changed(Bidirectional)
for path in sys.argv[1:]:
    given = np.load(path + ".npz")
    inputs = [given[name] for name in given.files if name != "wanted"]
    model = keras.saving.load_model(path, compile=False)
    outputs = np.asarray(model(inputs if len(inputs) > 1 else inputs[0]))
    print(path.rpartition("/")[2], float(np.abs(outputs - given["wanted"]).max()))
"""


def made(make: Any) -> tuple[Any, list[Any], Any]:
    """Return a model with weights that are not 0, padded inputs for it, and its outputs."""
    rng = np.random.default_rng(7)
    model = make()
    model.set_weights([rng.normal(size=w.shape) * 0.7 for w in model.get_weights()])
    inputs = []
    for tensor in model.inputs:
        shape = (4, *[STEPS if size is None else size for size in tensor.shape[1:]])
        if len(shape) == 2:
            x = rng.integers(1, IDS, shape).astype("f4")
            x[rng.random(shape) < 0.4] = 0
        else:
            x = rng.normal(size=shape).astype("f4")
            x[rng.random(shape[:2]) < 0.3] = 0.5
            x[rng.random(shape[:2]) < 0.2] = 0
        inputs.append(x)
    return model, inputs, np.asarray(model(inputs if len(inputs) > 1 else inputs[0]))


@functools.cache
def of_keras_2(name: str) -> tuple[Any, list[Any], Any]:
    return made(MODELS[name])


def outputs(path: Path, inputs: list[Any]) -> Any:
    model = keras.saving.load_model(str(path), compile=False)
    return np.asarray(model(inputs if len(inputs) > 1 else inputs[0]))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_keras_2_gives_the_same_numbers_in_keras_3(name: str, tmp_path: Path) -> None:
    model, inputs, wanted = of_keras_2(name)
    model.save(tmp_path / "old.h5")
    assert lc.convert(tmp_path / "old.h5", tmp_path / "new.keras").whole_model
    np.testing.assert_allclose(outputs(tmp_path / "new.keras", inputs), wanted, atol=2e-6)


@pytest.mark.parametrize("name", MODELS)
def test_an_h5_that_cannot_hold_a_mask_is_refused_by_name(name: str, tmp_path: Path) -> None:
    model, inputs, wanted = of_keras_2(name)
    model.save(tmp_path / "old.keras")
    if name in UNLIKE:
        with pytest.raises(UnsupportedByTarget, match="another mask") as error:
            lc.convert(tmp_path / "old.keras", tmp_path / "new.h5")
        assert error.value.layer in {layer.name for layer in model.layers}
        return
    lc.convert(tmp_path / "old.keras", tmp_path / "new.h5")
    np.testing.assert_allclose(outputs(tmp_path / "new.h5", inputs), wanted, atol=2e-6)


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_what_the_other_keras_has_zeros_for_is_refused(name: str, tmp_path: Path) -> None:
    """Of a ConvLSTM in a Bidirectional, Keras 2 repeats the output at masked steps."""
    layers = (module := pytest.importorskip(name)).layers
    x = module.Input((None, 4, 2))
    pair = layers.ConvLSTM1D(2, 3, padding="same", return_sequences=True)
    model = module.Model(x, layers.Bidirectional(pair, name="pair")(layers.Masking()(x)))
    source = tmp_path / f"old.{'keras' if name == 'keras' else 'h5'}"
    model.save(source)
    options: Any = {"era": "keras2"} if name == "keras" else {}
    with pytest.raises(UnsupportedByTarget) as error:
        lc.convert(source, tmp_path / f"new.{'h5' if options else 'keras'}", **options)
    assert error.value.layer == "pair"


def stack_of_keras_3(masked: bool) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((STEPS,)),
            layers.Embedding(IDS, WIDTH, mask_zero=masked),
            layers.LSTM(3, return_sequences=True),
            layers.LSTM(2),
        ]
    )


def test_they_give_the_same_numbers_where_layers_hand_no_mask_on(tmp_path: Path) -> None:
    """In a child process, which changes its Keras: one for all models."""
    paths = []

    def written(name: str, found: tuple[Any, list[Any], Any]) -> Path:
        model, inputs, wanted = found
        source, path = tmp_path / "old.h5", tmp_path / f"{name}.keras"
        model.save(source)
        assert lc.convert(source, path).whole_model
        np.savez(f"{path}.npz", *inputs, wanted=wanted)
        paths.append(str(path))
        return path

    for name in MODELS:
        written(name, of_keras_2(name))
    for masked in (True, False):  # a stack of Keras 3 is written with its masks
        found = made(lambda masked=masked: stack_of_keras_3(masked))
        path = written(f"stack-{masked}", found)
        assert np.array_equal(outputs(path, found[1]), found[2])
        assert isinstance(keras.saving.load_model(str(path)), keras.Sequential) is not masked
    done = subprocess.run(
        [sys.executable, "-c", LATER, *paths], capture_output=True, text=True, check=True
    )
    differences = dict(line.split() for line in done.stdout.splitlines() if ".keras" in line)
    assert differences.keys() == {Path(path).name for path in paths}
    assert {name: d for name, d in differences.items() if float(d) > 2e-6} == {}


def test_what_is_not_the_same_everywhere_is_told(tmp_path: Path) -> None:
    """A mask that comes into a model from outside: no layer inside can compute it."""
    layers = tf_keras.layers
    inner = tf_keras.Sequential(
        [layers.Input((STEPS, WIDTH)), layers.LSTM(3, return_sequences=True), layers.LSTM(2)]
    )
    ids = layers.Input((STEPS,))
    made_of = inner(layers.Embedding(IDS, WIDTH, mask_zero=True)(ids))
    model, inputs, wanted = made(lambda: tf_keras.Model(ids, made_of))
    model.save(tmp_path / "m.h5")
    result = lc.convert(tmp_path / "m.h5", tmp_path / "m.keras")
    assert any("Keras 3.16" in warning for warning in result.warnings)
    np.testing.assert_allclose(outputs(tmp_path / "m.keras", inputs), wanted, atol=2e-6)
