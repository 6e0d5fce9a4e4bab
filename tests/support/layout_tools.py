"""What the layout tests share: Keras layers with random weights, and what Keras answers.

Every case has random biases, unlike directions, several steps and a batch of more than one, so
that a swapped gate, a turned matrix or a lost bias shows.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import lstmconvert as lc
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import Array

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

INPUTS, UNITS, STEPS, BATCH = 5, 3, 6, 4
#: Largest absolute difference allowed between two float32 engines.
TOLERANCE = 2e-6


@dataclass(frozen=True)
class Case:
    """Layers that follow one another, an input, and Keras's answer.

    Fields: `x` (batch, time, inputs); `layers`, neutral; `y`: (batch, time, width), every output of
    the last; `states`: hidden and cell of each direction of the last.
    """

    name: str
    layers: tuple[LSTMLayer, ...]
    x: Array
    y: Array
    states: tuple[Array, ...]

    @property
    def layer(self) -> LSTMLayer:
        assert len(self.layers) == 1
        return self.layers[0]

    @property
    def both(self) -> bool:
        return self.layers[0].backward is not None


def _lstm(units: int, **options: Any) -> Any:
    import keras

    return keras.layers.LSTM(units, return_sequences=True, return_state=True, **options)


def _both(units: int, **options: Any) -> Any:
    import keras

    return keras.layers.Bidirectional(_lstm(units, **options))


BUILDERS: Mapping[str, Callable[[], list[Any]]] = {
    "plain": lambda: [_lstm(UNITS)],
    "square": lambda: [_lstm(INPUTS)],
    "one-unit": lambda: [_lstm(1)],
    "no-bias": lambda: [_lstm(UNITS, use_bias=False)],
    "bidirectional": lambda: [_both(UNITS)],
    "bidirectional-no-bias": lambda: [_both(UNITS, use_bias=False)],
    "stacked": lambda: [_lstm(UNITS), _lstm(UNITS)],
    "stacked-bidirectional": lambda: [_both(UNITS), _both(UNITS)],
}
SINGLE = ("plain", "square", "one-unit", "no-bias", "bidirectional", "bidirectional-no-bias")


@functools.cache
def case(name: str, dtype: str = "float32") -> Case:
    """Return a case by name, with the weights in one dtype."""
    rng = np.random.default_rng(sum(name.encode()))
    x = rng.normal(size=(BATCH, STEPS, INPUTS)).astype(dtype)
    layers, y, states = [], x, ()
    for number, built in enumerate(BUILDERS[name]()):
        built.name = f"layer{number}"
        built(y)
        shapes = [weight.shape for weight in built.get_weights()]
        built.set_weights([rng.normal(scale=0.6, size=shape) for shape in shapes])
        y, *states = (np.asarray(out) for out in built(y))
        layers.append(lc.from_keras(built))
    return Case(name, tuple(layers), x, y, tuple(states))


def close(found: Any, wanted: Any, tolerance: float = TOLERANCE) -> float:
    """Assert that two arrays are equal to rounding; return the largest difference."""
    one, two = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert one.shape == two.shape
    worst = float(np.abs(one - two).max())
    assert worst <= tolerance, worst
    return worst


def joined(outputs: Sequence[Array]) -> Array:
    """Return a backward half's outputs, in its own order of time, joined to the forward half's."""
    forward, backward = outputs
    return np.concatenate([forward, np.flip(backward, 1)], axis=-1)


def directions(x: Array, both: bool) -> list[Array]:
    """Return the input of each direction: (batch, time, inputs), reversed for the backward one."""
    return [x, np.flip(x, 1).copy()] if both else [x]


def checked(case: Case, run: Callable[[Mapping[str, Array], Array], Array], layout: str) -> float:
    """Assert that a framework that runs one direction at a time answers as Keras does.

    Args:
        case: one layer.
        run: from the arrays of one direction and x (batch, time, inputs) to (batch, time, units).
        layout: the layout.
    """
    arrays = lc.arrange(case.layer, layout)
    outputs = []
    for side, x in zip(ROWS[layout].sides[1:], directions(case.x, case.both), strict=False):
        own = {
            name.removeprefix(side): array
            for name, array in arrays.items()
            if not case.both or name.startswith(side)
        }
        assert own
        outputs.append(np.asarray(run(own, x)))
    return close(joined(outputs) if case.both else outputs[0], case.y)
