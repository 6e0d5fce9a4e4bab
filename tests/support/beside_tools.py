"""A Keras model whose layers beside the LSTM each have an input of their own, and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from lstmconvert.tensors.dtypes import Array

BATCH, STEPS, FEATURES, UNITS = 2, 6, 3, 4
#: Both engines compute in float32, in another order.
TOLERANCE = 2e-6


@dataclass(frozen=True)
class Known:
    """Fields: `path` of the file; `inputs` and `outputs`: layer -> array, as Keras computed it."""

    path: Path
    inputs: dict[str, Array]
    outputs: dict[str, Array]

    def check(self, name: str, got: Any) -> None:
        """Compare what a framework computed with what Keras did."""
        np.testing.assert_allclose(
            np.asarray(got), self.outputs[name], atol=TOLERANCE, rtol=0, err_msg=name
        )


def _layers(layers: Any) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Return name -> layer, and the shape that it is fed."""
    line, image = (STEPS, FEATURES), (STEPS, 5, FEATURES)
    cell = {"return_sequences": True}
    made = [
        (layers.LSTM(UNITS, name="lstm", **cell), line),
        (layers.Dense(5, activation="relu", name="head"), line),
        (layers.Embedding(9, 4, name="words"), (STEPS,)),
        (layers.BatchNormalization(epsilon=0.02, name="normed"), line),
        (layers.BatchNormalization(scale=False, name="shifted"), line),
        (layers.LayerNormalization(epsilon=0.0008, name="even"), line),
        (layers.Conv1D(4, 2, padding="same", name="wave"), line),
        (layers.Conv1D(6, 3, strides=2, dilation_rate=1, groups=3, name="groups"), line),
        (layers.Conv2D(4, (2, 3), name="image"), image),
        (layers.PReLU(shared_axes=[1], name="leak"), line),
        (layers.PReLU(shared_axes=[1, 2], name="drop"), line),
        (layers.GRU(UNITS, name="after", **cell), line),
        (layers.GRU(UNITS, reset_after=False, name="before", **cell), line),
        (layers.Bidirectional(layers.GRU(UNITS, **cell), name="both"), line),
        (layers.SimpleRNN(UNITS, name="simple", **cell), line),
        (layers.SimpleRNN(UNITS, activation="relu", name="rectified", **cell), line),
    ]
    return {layer.name: (layer, shape) for layer, shape in made}


@cache
def model() -> Known:
    """Build the model, give it random weights, run each layer, and save it as a `.keras`."""
    import keras

    keras.utils.set_random_seed(11)
    rng = np.random.default_rng(11)
    table = _layers(keras.layers)
    inputs = {}
    for name, (_, shape) in table.items():
        dtype = "int32" if name == "words" else "float32"
        inputs[name] = keras.Input(shape, dtype=dtype, name=f"x_{name}")
    outputs = {name: table[name][0](x) for name, x in inputs.items()}
    whole = keras.Model(list(inputs.values()), list(outputs.values()))
    for layer in whole.layers:
        weights = [rng.uniform(-0.9, 0.9, w.shape).astype("float32") for w in layer.get_weights()]
        if isinstance(layer, keras.layers.BatchNormalization):
            weights[-1] = np.abs(weights[-1]) + 0.1  # a variance
        layer.set_weights(weights)
    x = {
        name: rng.integers(0, 9, (BATCH, *shape)).astype("int32")
        if name == "words"
        else rng.normal(size=(BATCH, *shape)).astype("float32")
        for name, (_, shape) in table.items()
    }
    answers = dict(zip(x, map(np.asarray, whole(list(x.values()))), strict=True))
    path = Path(mkdtemp()) / "beside.keras"
    whole.save(path)
    return Known(path, x, answers)


def relu(value: Any) -> Any:
    """The activation of `head`, which no framework's dense layer has."""
    return np.maximum(np.asarray(value), 0)
