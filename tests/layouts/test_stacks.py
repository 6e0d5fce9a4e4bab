"""`--stack a,b` joins layers that follow one another, and refuses all others, for every target.

The models are Keras's own: with something between two LSTM layers, a stack of the two computes
other numbers than the model does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import run

import lstmconvert as lc
from lstmconvert.errors import UsageError
from lstmconvert.layouts.rows import ROWS

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]  # the writers' own
UNITS = 3
CHAINED = sorted(row.name for row in ROWS.values() if row.chained)
#: Rows that only layers of two directions fit.
TWO_DIRECTIONS = {"chainer-bi"}
STACK = ["s=a,b"]


def _branch(keras: Any, x: Any) -> Any:
    return keras.layers.Add()([x, keras.layers.Dense(UNITS)(x)])


#: What lies between layer a and layer b -> how it is made.
BETWEEN: dict[str, Callable[[Any, Any], Any]] = {
    "BatchNormalization": lambda keras, x: keras.layers.BatchNormalization()(x),
    "LayerNormalization": lambda keras, x: keras.layers.LayerNormalization()(x),
    "Dense": lambda keras, x: keras.layers.Dense(UNITS)(x),
    "Activation": lambda keras, x: keras.layers.Activation("relu")(x),
    "Add": lambda keras, x: keras.layers.Add()([x, x]),
    "a branch": _branch,
    "an LSTM": lambda keras, x: keras.layers.LSTM(UNITS, return_sequences=True, name="c")(x),
    "a model": lambda keras, x: keras.Sequential(
        [keras.layers.Input((5, UNITS)), keras.layers.Dense(UNITS)]
    )(x),
}
HANDED_ON: dict[str, Callable[[Any, Any], Any]] = {
    "nothing": lambda _, x: x,
    "Dropout": lambda keras, x: keras.layers.Dropout(0.5)(x),
    "SpatialDropout1D": lambda keras, x: keras.layers.SpatialDropout1D(0.5)(x),
}


def made(library: str, between: Callable[[Any, Any], Any], path: Path) -> Path:
    keras = importlib.import_module(library)
    inputs = keras.layers.Input((5, UNITS))
    x = keras.layers.LSTM(UNITS, return_sequences=True, name="a")(inputs)
    x = keras.layers.LSTM(UNITS, name="b")(between(keras, x))
    keras.Model(inputs, x).save(str(path))
    return path


@pytest.mark.parametrize("container", ["h5", "keras"])
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("between", BETWEEN)
def test_layers_with_something_between_are_no_stack(
    library: str, between: str, container: str, tmp_path: Path
) -> None:
    path = made(library, BETWEEN[between], tmp_path / f"m.{container}")
    model = lc.load(path)
    for layout in CHAINED:
        target = tmp_path / f"{layout}.safetensors"
        with pytest.raises(UsageError, match="something lies between"):
            lc.save(model, target, layout=layout, stacks=STACK)
        assert not target.exists()
    code, _, err = run(
        "convert", path, tmp_path / "x.safetensors", "--to", "torch", "--stack", *STACK
    )
    assert code == 2
    assert "--stack: b is not given what a gives" in err


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("between", HANDED_ON)
def test_layers_that_follow_one_another_are_one(
    library: str, between: str, tmp_path: Path
) -> None:
    model = lc.load(made(library, HANDED_ON[between], tmp_path / "m.keras"))
    for layout in set(CHAINED) - TWO_DIRECTIONS:
        lc.save(model, tmp_path / f"{layout}.safetensors", layout=layout, stacks=STACK, warn=False)


def test_a_chosen_pair_of_layers_is_still_of_the_whole_model(tmp_path: Path) -> None:
    path = made("keras", BETWEEN["an LSTM"], tmp_path / "m.keras")
    with pytest.raises(UsageError, match="b is given the output of c"):
        lc.convert(path, tmp_path / "x.npz", layout="torch", layers=["a", "b"], stacks=STACK)
    lc.convert(path, tmp_path / "x.npz", layout="torch", stacks=["s=a,c,b"])


def test_the_order_of_a_stack_is_that_of_the_model(tmp_path: Path) -> None:
    model = lc.load(made("keras", HANDED_ON["nothing"], tmp_path / "m.keras"))
    for layout in CHAINED:
        with pytest.raises(UsageError):
            lc.save(model, tmp_path / "x.safetensors", layout=layout, stacks=["s=b,a"])
