"""ONNX Runtime runs what we write, and computes what Keras computes, whatever the layer's options.

The bound of float32 is some times what was measured: both sum the same products in another order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.onnx_tools import difference, run, write

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras")

FLOAT32, FLOAT16 = 2e-6, 4e-3
BATCH, TIME, INPUTS, UNITS = 3, 5, 4, 3
MERGE_MODES = ("concat", "sum", "mul", "ave", None)
#: Every activation of Keras that the operator knows, by the name or layer that Keras has for it.
ACTIVATIONS = ("relu", "elu", "softsign", "softplus", "linear", "leaky_relu", "hard_sigmoid")


def random_weights(layer: Any, seed: int = 0) -> Any:
    """Give a layer normally distributed weights, biases too."""
    rng = np.random.default_rng(seed)
    shapes = [(weight.shape, weight.dtype) for weight in layer.get_weights()]
    layer.set_weights([(0.6 * rng.normal(size=shape)).astype(dtype) for shape, dtype in shapes])
    return layer


def built(layer: Any) -> Any:
    """Build a layer and give it random weights."""
    layer.build((None, None, INPUTS))
    return random_weights(layer)


def inputs(dtype: str = "float32", batch: int = BATCH) -> Array:
    return np.random.default_rng(1).normal(size=(batch, TIME, INPUTS)).astype(dtype)


def bidirectional(**options: Any) -> Any:
    """Return a Bidirectional of two LSTMs, of which the options' go_backwards is the first's."""
    turned = {"go_backwards": not options.get("go_backwards", False)}
    return keras.layers.Bidirectional(
        keras.layers.LSTM(UNITS, **options),
        backward_layer=keras.layers.LSTM(UNITS, **(options | turned)),
    )


def arrays(values: Any) -> list[Array]:
    values = values if isinstance(values, (list, tuple)) else [values]
    return [keras.ops.convert_to_numpy(value) for value in values]


def compared(
    layer: Any, path: Path, x: Array | None = None, *, fused: bool = False
) -> float:
    """Return how far ONNX Runtime is from a Keras layer."""
    x = inputs() if x is None else x
    neutral = lc.from_keras(layer)
    found = run(write(neutral, path, fused=fused), {f"{neutral.name}.x": x})
    assert next(iter(found)) == f"{neutral.name}.y"
    return difference(list(found.values()), arrays(layer(x)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer.onnx"


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["onwards", "backwards"])
@pytest.mark.parametrize("state", [False, True], ids=["plain", "state"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_lstm(sequences: bool, state: bool, go_backwards: bool, fused: bool, path: Path) -> None:
    layer = built(
        keras.layers.LSTM(
            UNITS, return_sequences=sequences, return_state=state, go_backwards=go_backwards
        )
    )
    assert compared(layer, path, fused=fused) < FLOAT32


@pytest.mark.parametrize("use_bias", [False, True])
def test_without_and_with_a_bias_in_one_step_and_one_row(use_bias: bool, path: Path) -> None:
    layer = built(keras.layers.LSTM(1, use_bias=use_bias))
    assert compared(layer, path, inputs()[:1, :1]) < FLOAT32


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str, path: Path) -> None:
    layer = built(keras.layers.LSTM(UNITS, activation=activation, recurrent_activation="softsign"))
    assert compared(layer, path) < 10 * FLOAT32  # unbounded functions grow over five steps


@pytest.mark.parametrize("activation", ["hard_sigmoid", "relu", "sparse_sigmoid", "linear", "elu"])
def test_recurrent_activations(activation: str, path: Path) -> None:
    layer = built(keras.layers.LSTM(UNITS, recurrent_activation=activation))
    assert compared(layer, path) < 10 * FLOAT32


@pytest.mark.parametrize("state", [False, True], ids=["plain", "state"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("merge_mode", MERGE_MODES, ids=str)
def test_bidirectional(merge_mode: str | None, sequences: bool, state: bool, path: Path) -> None:
    inner = keras.layers.LSTM(UNITS, return_sequences=sequences, return_state=state)
    layer = built(keras.layers.Bidirectional(inner, merge_mode=merge_mode))
    assert compared(layer, path) < FLOAT32


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("merge_mode", ["concat", None], ids=str)
def test_unlike_halves(merge_mode: str | None, sequences: bool, fused: bool, path: Path) -> None:
    layer = built(
        keras.layers.Bidirectional(
            keras.layers.LSTM(UNITS, return_sequences=sequences, activation="relu"),
            backward_layer=keras.layers.LSTM(
                UNITS + 2,
                return_sequences=sequences,
                go_backwards=True,
                recurrent_activation="hard_sigmoid",
                use_bias=False,
            ),
            merge_mode=merge_mode,
        )
    )
    assert compared(layer, path, fused=fused) < 10 * FLOAT32


def test_halves_that_differ_in_their_activations_alone_are_one_node(path: Path) -> None:
    import onnx

    layer = built(
        keras.layers.Bidirectional(
            keras.layers.LSTM(UNITS, activation="elu"),
            backward_layer=keras.layers.LSTM(
                UNITS, go_backwards=True, recurrent_activation="hard_sigmoid"
            ),
        )
    )
    assert compared(layer, path) < FLOAT32
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "LSTM"]
    assert len(nodes) == 1


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_a_bidirectional_whose_forward_half_goes_backwards(sequences: bool, path: Path) -> None:
    layer = bidirectional(return_sequences=sequences, go_backwards=True)
    assert compared(built(layer), path) < FLOAT32


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["onwards", "backwards"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_stacked_cells(sequences: bool, go_backwards: bool, fused: bool, path: Path) -> None:
    cells = [keras.layers.LSTMCell(units) for units in (UNITS, 5, 2)]
    layer = built(
        keras.layers.RNN(
            cells, return_sequences=sequences, return_state=True, go_backwards=go_backwards
        )
    )
    found = arrays(layer(inputs()))
    neutral = lc.from_keras(layer)
    result = run(write(neutral, path, fused=fused), {f"{neutral.name}.x": inputs()})
    states = [array for state in layer(inputs())[1:] for array in arrays(state)]
    assert difference(list(result.values()), [found[0], *states]) < FLOAT32


def test_a_single_cell(path: Path) -> None:
    assert compared(built(keras.layers.RNN(keras.layers.LSTMCell(UNITS))), path) < FLOAT32


@pytest.mark.parametrize("wrapped", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["onwards", "backwards"])
@pytest.mark.parametrize("zero", [False, True], ids=["repeat", "zero"])
def test_lengths(
    zero: bool, go_backwards: bool, sequences: bool, wrapped: bool, path: Path
) -> None:
    options = {
        "return_sequences": sequences,
        "return_state": True,
        "go_backwards": go_backwards,
        "zero_output_for_mask": zero,
    }
    layer = built(bidirectional(**options) if wrapped else keras.layers.LSTM(UNITS, **options))
    lengths = np.array([0, 2, TIME, 3], "i4")
    x, mask = inputs(batch=4), np.arange(TIME) < lengths[:, None]
    neutral = lc.from_keras(layer)
    name = neutral.name
    write(neutral, path, length_input=True)
    found = run(path, {f"{name}.x": x, f"{name}.lengths": lengths})
    assert difference(list(found.values()), arrays(layer(x, mask=mask))) < FLOAT32
    whole = run(path, {f"{name}.x": x})
    assert difference(list(whole.values()), arrays(layer(x))) < FLOAT32


@pytest.mark.parametrize("wrapped", [False, True], ids=["one", "both"])
def test_state_inputs(wrapped: bool, path: Path) -> None:
    inner = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    layer = built(keras.layers.Bidirectional(inner) if wrapped else inner)
    rng = np.random.default_rng(2)
    prefixes = ["forward", "backward"] if wrapped else [""]
    neutral = lc.from_keras(layer)
    names = [
        ".".join(filter(None, (neutral.name, prefix, f"initial_{part}")))
        for prefix in prefixes
        for part in "hc"
    ]
    states = [rng.normal(size=(BATCH, UNITS)).astype("f4") for _ in names]
    write(neutral, path, state_inputs=True)
    x = inputs()
    feeds = {f"{neutral.name}.x": x}
    found = run(path, feeds | dict(zip(names, states, strict=True)))
    assert difference(list(found.values()), arrays(layer(x, initial_state=states))) < FLOAT32
    assert difference(list(run(path, feeds).values()), arrays(layer(x))) < FLOAT32
    one_row = {name: state[:1] for name, state in zip(names, states, strict=True)}
    alike = [np.repeat(state[:1], BATCH, axis=0) for state in states]
    found = run(path, feeds | one_row)
    assert difference(list(found.values()), arrays(layer(x, initial_state=alike))) < FLOAT32


def test_states_and_lengths_together(path: Path) -> None:
    layer = built(keras.layers.LSTM(UNITS, return_sequences=True, return_state=True))
    rng = np.random.default_rng(2)
    states = [rng.normal(size=(BATCH, UNITS)).astype("f4") for _ in range(2)]
    lengths = np.array([0, 2, TIME], "i4")
    x, mask = inputs(), np.arange(TIME) < lengths[:, None]
    neutral = lc.from_keras(layer)
    write(neutral, path, state_inputs=True, length_input=True)
    feeds = {"x": x, "lengths": lengths, "initial_h": states[0], "initial_c": states[1]}
    found = run(path, {f"{neutral.name}.{key}": value for key, value in feeds.items()})
    wanted = arrays(layer(x, mask=mask, initial_state=states))
    assert difference(list(found.values()), wanted) < FLOAT32


@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["one", "both"])
def test_float16(policy: str, wrapped: bool, path: Path) -> None:
    inner = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True, dtype=policy)
    layer = keras.layers.Bidirectional(inner, dtype=policy) if wrapped else inner
    x = inputs("float16")
    assert compared(built(layer), path, x) < FLOAT16
    assert all(array.dtype == np.float16 for array in run(path, {f"{layer.name}.x": x}).values())


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_time_major(sequences: bool, path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    layer = tf_keras.layers.LSTM(
        UNITS, time_major=True, return_sequences=sequences, recurrent_activation="hard_sigmoid"
    )
    x = np.ascontiguousarray(np.swapaxes(inputs(), 0, 1))
    layer(x)
    random_weights(layer)
    neutral = lc.from_keras(layer)
    found = run(write(neutral, path), {f"{neutral.name}.x": x})
    assert difference(list(found.values()), [layer(x).numpy()]) < FLOAT32


def chained(model: Any, tmp_path: Path, **options: Any) -> float:
    """Return how far a chained file is from a Keras model."""
    source, path = tmp_path / "model.keras", tmp_path / "model.onnx"
    model.save(source)
    result = lc.convert(source, path, chain=True, **options)
    assert not result.warnings
    first = lc.load(source).layers[0].name
    found = run(path, {f"{first}.x": inputs()})
    assert len(found) == 1
    return difference(list(found.values()), arrays(model(inputs())))


def test_a_chain_of_neighbours(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.layers.Input((None, INPUTS)),
            keras.layers.LSTM(UNITS, return_sequences=True),
            keras.layers.Dropout(0.5),
            keras.layers.Bidirectional(keras.layers.LSTM(UNITS, return_sequences=True)),
            keras.layers.LSTM(2),
        ]
    )
    assert chained(random_weights(model), tmp_path) < FLOAT32


def test_a_chain_in_a_functional_model(tmp_path: Path) -> None:
    start = keras.layers.Input((None, INPUTS))
    middle = keras.layers.LSTM(UNITS, return_sequences=True, name="one")(start)
    end = keras.layers.LSTM(2, name="two")(middle)
    assert chained(random_weights(keras.Model(start, end)), tmp_path, length_input=True) < FLOAT32


def test_without_chain_each_layer_stands_alone(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.layers.Input((None, INPUTS)),
            keras.layers.LSTM(UNITS, return_sequences=True, name="one"),
            keras.layers.LSTM(2, name="two"),
        ]
    )
    random_weights(model).save(tmp_path / "model.keras")
    lc.convert(tmp_path / "model.keras", tmp_path / "model.onnx")
    x, z = inputs(), np.random.default_rng(3).normal(size=(2, 4, UNITS)).astype("f4")
    found = run(tmp_path / "model.onnx", {"one.x": x, "two.x": z})
    wanted = arrays([model.layers[0](x), model.layers[1](z)])
    assert list(found) == ["one.y", "two.y"]
    assert difference(list(found.values()), wanted) < FLOAT32
