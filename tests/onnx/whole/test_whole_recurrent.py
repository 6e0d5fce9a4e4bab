"""Recurrent layers of whole models: every cell, direction and state, with masks that have gaps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.thinned import ALL, pairs, turns
from support.whole_tools import (
    FLOAT32,
    answers,
    beside_lstm,
    compared,
    distance,
    example,
    predicted,
    randomized,
    session,
    written,
)

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines
ERAS = ("keras", "tf_keras")
Make = Callable[..., Any]
CELLS: dict[str, Make] = {
    "lstm": lambda m, **o: m.LSTM(3, **o),
    "lstm-odd": lambda m, **o: m.LSTM(
        3, activation="relu", recurrent_activation="hard_sigmoid", **o
    ),
    "lstm-gelu": lambda m, **o: m.LSTM(3, activation="gelu", use_bias=False, **o),
    "gru": lambda m, **o: m.GRU(3, **o),
    "gru-before": lambda m, **o: m.GRU(3, reset_after=False, **o),
    "gru-swish": lambda m, **o: m.GRU(3, activation="swish", **o),
    "gru-before-swish": lambda m, **o: m.GRU(3, activation="swish", reset_after=False, **o),
    "gru-bare": lambda m, **o: m.GRU(3, use_bias=False, **o),
    "simple": lambda m, **o: m.SimpleRNN(3, **o),
    "simple-softmax": lambda m, **o: m.SimpleRNN(3, activation="softmax", **o),
    "stack": lambda m, **o: m.RNN([m.LSTMCell(4), m.GRUCell(2), m.SimpleRNNCell(3)], **o),
    "stack-alien": lambda m, **o: m.RNN([m.GRUCell(2), m.SimpleRNNCell(3)], **o),
    "stack-scanned": lambda m, **o: m.RNN([m.LSTMCell(4, activation="gelu"), m.GRUCell(2)], **o),
    "cell": lambda m, **o: m.RNN(m.LSTMCell(3), **o),
}


def library(name: str) -> Any:
    return pytest.importorskip(name)


def masked_input(keras: Any) -> tuple[Any, Any]:
    """Return the input of a model and steps whose mask has whatever gaps the input says."""
    given = keras.Input((None, 4))
    return given, keras.layers.Masking(9.0)(given)


def with_gaps(batch: int, length: int) -> list[Array]:
    """Steps of which some are masked: at the start, the end, between, all, none."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(batch, length, 4)).astype(np.float32)
    masks = [
        rng.random(length) < 0.5, np.arange(length) < 2, np.arange(length) > length - 3,
        np.ones(length, bool), np.zeros(length, bool), np.arange(length) % 2 == 0,
    ]  # fmt: skip
    for row in range(batch):
        x[row, masks[row % len(masks)]] = 9.0
    return [x, rng.normal(size=(batch, length, 2)).astype(np.float32)]


# A cell is run plain in one Keras and masked in the other: what is written does not depend on it.
@pytest.mark.parametrize(("cell", "name"), turns(CELLS, ERAS))
def test_plain(name: str, cell: str, tmp_path: Path) -> None:
    """Last outputs, sequences, states, backwards: each an output of one model."""
    keras = library(name)
    x = keras.Input((None, 4))
    outputs: list[Any] = []
    for sequences, state, back in pairs(*[(False, True)] * 3):
        layer = CELLS[cell](
            keras.layers, return_sequences=sequences, return_state=state, go_backwards=back
        )
        found = layer(x)
        outputs += found if isinstance(found, (list, tuple)) else [found]
    model = randomized(beside_lstm(keras, [x], outputs))
    assert compared(model, tmp_path / "model.onnx") < FLOAT32


@pytest.mark.parametrize(("cell", "name"), turns(CELLS, ERAS[::-1]))
def test_masked(name: str, cell: str, tmp_path: Path) -> None:
    keras = library(name)
    given, x = masked_input(keras)
    outputs: list[Any] = []
    for sequences, state, back in pairs(*[(False, True)] * 3):
        options = {"return_sequences": sequences, "return_state": state, "go_backwards": back}
        found = CELLS[cell](keras.layers, **options)(x)
        outputs += found if isinstance(found, (list, tuple)) else [found]
    model = randomized(beside_lstm(keras, [given], outputs))
    assert compared(model, tmp_path / "model.onnx", inputs=with_gaps, lengths=(7, 5)) < FLOAT32


@pytest.mark.parametrize(("cell", "name"), turns(["lstm", "lstm-gelu", "gru", "stack"], ERAS))
def test_zero_output(name: str, cell: str, tmp_path: Path) -> None:
    keras = library(name)
    given, x = masked_input(keras)
    outputs = [
        CELLS[cell](
            keras.layers, return_sequences=sequences, go_backwards=back, zero_output_for_mask=True
        )(x)
        for sequences, back in itertools.product((False, True), repeat=2)
    ]
    model = randomized(beside_lstm(keras, [given], outputs))
    assert compared(model, tmp_path / "model.onnx", inputs=with_gaps, lengths=(7, 5)) < FLOAT32


HALVES = [name for name in CELLS if not name.startswith("stack-alien")]


MODES = ("concat", "sum", "ave", "mul", None)


@pytest.mark.parametrize(
    ("cell", "name", "masked"),
    [
        *((cell, name, False) for cell, name in turns(HALVES, ERAS[::-1])),
        *((cell, name, True) for cell, name in turns(HALVES, ERAS)),
    ],
)
def test_bidirectional(name: str, cell: str, masked: bool, tmp_path: Path) -> None:
    """Every way to merge for an LSTM; two for other cells, in turn: a merge knows no cell."""
    keras = library(name)
    given, x = masked_input(keras) if masked else (keras.Input((None, 4)),) * 2
    outputs: list[Any] = []
    at = HALVES.index(cell) + masked
    ways = itertools.product(MODES, (False, True))
    if cell != "lstm" and not ALL:
        ways = zip((MODES[at % 5], MODES[(at + 2) % 5]), (False, True), strict=True)
    for mode, sequences in ways:
        layer = CELLS[cell](keras.layers, return_sequences=sequences)
        found = keras.layers.Bidirectional(layer, merge_mode=mode)(x)
        outputs += found if isinstance(found, (list, tuple)) else [found]
    model = randomized(beside_lstm(keras, [given], outputs))
    inputs = with_gaps if masked else None
    assert compared(model, tmp_path / "model.onnx", inputs=inputs, lengths=(7, 5)) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_bidirectional_states(name: str, tmp_path: Path) -> None:
    keras = library(name)
    given, x = masked_input(keras)
    layer = keras.layers.Bidirectional(keras.layers.LSTM(3, return_state=True))
    y, *states = layer(x)
    other = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))
    again = other(x, initial_state=states)
    model = randomized(beside_lstm(keras, [given], [y, *states, again]))
    assert compared(model, tmp_path / "model.onnx", inputs=with_gaps, lengths=(7, 5)) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_unlike_halves(name: str, tmp_path: Path) -> None:
    keras = library(name)
    given, x = masked_input(keras)
    layers = keras.layers
    outputs = []
    for sequences in (False, True):
        halves = [
            (layers.LSTM(3, return_sequences=sequences),
             layers.GRU(3, return_sequences=sequences, go_backwards=True)),
            (layers.LSTM(3, return_sequences=sequences, go_backwards=True),
             layers.LSTM(3, return_sequences=sequences)),
            (layers.LSTM(3, return_sequences=sequences, activation="relu"),
             layers.LSTM(3, return_sequences=sequences, go_backwards=True)),
        ]  # fmt: skip
        outputs += [layers.Bidirectional(a, backward_layer=b)(x) for a, b in halves]
    model = randomized(beside_lstm(keras, [given], outputs))
    assert compared(model, tmp_path / "model.onnx", inputs=with_gaps, lengths=(7, 5)) < FLOAT32


@pytest.mark.parametrize(
    ("cell", "masked", "name"),
    pairs(
        ["lstm", "lstm-gelu", "gru", "simple", "stack"], [False, True], ERAS,
        # Keras 3 takes no states of a stack that mixes kinds of cells.
        fits=lambda cell, _, name: (cell, name) != ("stack", "keras"),
    ),
)  # fmt: skip
def test_initial_state(name: str, cell: str, masked: bool, tmp_path: Path) -> None:
    """States of one layer start another."""
    keras = library(name)
    given, x = masked_input(keras) if masked else (keras.Input((None, 4)),) * 2
    first = CELLS[cell](keras.layers, return_state=True)
    _, *states = first(x)
    outputs = []
    for back in (False, True):
        layer = CELLS[cell](
            keras.layers, return_sequences=True, return_state=True, go_backwards=back
        )
        outputs += layer(x, initial_state=states)
    model = randomized(beside_lstm(keras, [given], outputs))
    if masked:  # where nothing has been seen yet, TensorFlow and JAX differ
        assert compared(model, tmp_path / "model.onnx", inputs=with_gaps, lengths=(7,)) < FLOAT32
    else:
        assert compared(model, tmp_path / "model.onnx") < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_two_masked_in_a_row(name: str, tmp_path: Path) -> None:
    keras = library(name)
    layers = keras.layers
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(6, 4, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.Dropout(0.5)(x)
    x = layers.LSTM(3, return_sequences=True)(x)
    y = layers.Dense(2)(x)
    z = layers.Bidirectional(layers.GRU(3))(x)
    model = randomized(keras.Model(ids, [x, y, z]))
    assert compared(model, tmp_path / "model.onnx", lengths=(7, 5)) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_stateful(name: str, tmp_path: Path) -> None:
    """Two calls: what the first ends with is passed to the second."""
    keras = library(name)
    layers, batch = keras.layers, 2
    x = keras.Input(batch_shape=(batch, None, 4))
    y = layers.LSTM(3, stateful=True, return_sequences=True)(x)
    y = layers.GRU(2, stateful=True)(y)
    z = layers.Bidirectional(layers.LSTM(2, stateful=True))(x)
    model = randomized(keras.Model(x, [y, z]))
    path = written(model, tmp_path / "model.onnx")
    ran = session(path)
    rng = np.random.default_rng(0)
    states: dict[str, Array] = {}
    first = ran.get_inputs()[0].name
    names = [value.name for value in ran.get_outputs()]
    for _ in range(3):
        given = rng.normal(size=(batch, 5, 4)).astype(np.float32)
        found = dict(zip(names, ran.run(None, {first: given, **states}), strict=True))
        states = {k.replace("_out", "_in"): v for k, v in found.items() if k.endswith("_out")}
        assert len(states) == 7
        for one, two in zip(list(found.values())[:2], model(given), strict=True):
            assert distance(one, np.asarray(two)) < FLOAT32


@pytest.mark.parametrize("name", ERAS)
def test_cells_of_several_sizes(name: str, tmp_path: Path) -> None:
    """Constants of one name in one layer, zeros of its cells for one, may differ in size."""
    keras = library(name)
    layers = keras.layers
    kinds = (layers.SimpleRNNCell, lambda n: layers.GRUCell(n, reset_after=False), layers.LSTMCell)
    x = keras.Input((None, 4))
    stacks = [layers.RNN([kind(3), kind(5)])(x) for kind in kinds]
    model = randomized(keras.Model(x, [*stacks, layers.RNN([kind(2) for kind in kinds])(x)]))
    assert compared(model, tmp_path / "model.onnx") < FLOAT32


@pytest.mark.parametrize("name", ERAS)
@pytest.mark.parametrize("both", [False, True], ids=["alone", "bidirectional"])
def test_stateful_conv_lstm(name: str, both: bool, tmp_path: Path) -> None:
    """Its states are inputs and outputs of the graph in Keras's shape."""
    keras = library(name)
    layers, batch = keras.layers, 2
    x = keras.Input(batch_shape=(batch, None, 5, 4, 2))
    layer = layers.ConvLSTM2D(3, 3, padding="same", stateful=True, return_sequences=True)
    model = randomized(keras.Model(x, (layers.Bidirectional(layer) if both else layer)(x)))
    ran = session(written(model, tmp_path / "model.onnx"))
    rng = np.random.default_rng(0)
    states: dict[str, Array] = {}
    names = [value.name for value in ran.get_outputs()]
    for _ in range(3):
        given = rng.normal(size=(batch, 3, 5, 4, 2)).astype(np.float32)
        feed = {ran.get_inputs()[0].name: given, **states}
        found = dict(zip(names, ran.run(None, feed), strict=True))
        states = {k.replace("_out", "_in"): v for k, v in found.items() if k.endswith("_out")}
        assert [value.shape for value in states.values()] == [(2, 5, 4, 3)] * (4 if both else 2)
        assert distance(next(iter(found.values())), np.asarray(model(given))) < FLOAT32


@pytest.mark.parametrize(
    ("kind", "sequences"),
    turns(["LSTM", "GRU", "SimpleRNN", "backwards", "zero", "both"], [False, True]),
)
def test_time_first_and_masked(kind: str, sequences: bool, tmp_path: Path) -> None:
    """The mask of such a layer is (time, batch), too."""
    keras = library("tf_keras")
    layers = keras.layers
    how = {"return_sequences": sequences, "time_major": True}
    made = {
        "backwards": lambda: layers.LSTM(3, go_backwards=True, **how),
        "zero": lambda: layers.RNN(layers.LSTMCell(3), zero_output_for_mask=True, **how),
        "both": lambda: layers.Bidirectional(layers.LSTM(3, **how)),
    }
    layer = made[kind]() if kind in made else getattr(layers, kind)(3, **how)
    x = keras.Input((None, 4))  # the first axis is time: Keras calls it the batch
    y = layer(layers.Masking(0.0)(x))
    steps = keras.Input((None, 2))
    model = randomized(keras.Model([x, steps], [y, layers.LSTM(1, name="beside")(steps)]))

    def inputs(length: int, batch: int) -> list[Array]:
        rng = np.random.default_rng(length)
        x, beside = (rng.normal(size=(length, batch, n)).astype("float32") for n in (4, 2))
        x[rng.random((length, batch)) < 0.4] = 0.0
        return [x, beside]

    assert compared(model, tmp_path / "model.onnx", inputs=inputs) < FLOAT32


@pytest.mark.parametrize(
    ("name", "rank", "masked"),
    pairs(
        ERAS, [1, 2, 3], [False, True],
        # Keras 3 itself has no mask of steps of a higher rank.
        fits=lambda name, rank, masked: not (name == "keras" and rank > 1 and masked),
    ),
)  # fmt: skip
def test_conv_lstm(name: str, rank: int, masked: bool, tmp_path: Path) -> None:
    keras = library(name)
    layers = keras.layers
    shape = (None, *(6, 5, 4)[:rank], 2)
    given = x = keras.Input(shape)
    if masked:
        steps = keras.Input((None,), dtype="bool")
    made = getattr(layers, f"ConvLSTM{rank}D")
    kinds: list[dict[str, Any]] = [
        {"padding": "same"}, {"padding": "valid", "strides": 2},
        {"padding": "same", "return_sequences": True, "go_backwards": True},
        {"padding": "same", "return_state": True, "recurrent_activation": "hard_sigmoid"},
        {"padding": "same", "return_sequences": True, "dilation_rate": 2, "use_bias": False},
    ]  # fmt: skip
    outputs: list[Any] = []
    for options in kinds:
        layer = made(3, 3 if "strides" not in options else 2, **options)
        found = layer(x, mask=steps) if masked else layer(x)
        outputs += found if isinstance(found, (list, tuple)) else [found]
    model = randomized(keras.Model([given, steps] if masked else given, outputs))

    def random(batch: int, length: int) -> list[Array]:
        rng = np.random.default_rng(0)
        sizes = [batch, length, *shape[1:]]
        found = [rng.normal(size=[int(n or 0) for n in sizes]).astype(np.float32)]
        if masked:
            found.append(rng.random((batch, length)) < 0.6)
        return found

    assert compared(model, tmp_path / "model.onnx", inputs=random, lengths=(4, 3)) < FLOAT32


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Array], list[Array]]:
    """One file of Keras, an input and its answers: for every opset the same."""
    keras = library("keras")
    given, x = masked_input(keras)
    layers = keras.layers
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="ave")(x)
    y = layers.LayerNormalization()(y)
    y = layers.Dense(4, activation="gelu")(y)
    z = layers.GlobalAveragePooling1D()(layers.GRU(3, return_sequences=True)(y))
    model = randomized(keras.Model(given, [y, z]))
    path = tmp_path_factory.mktemp("opsets") / "model.keras"
    model.save(path)
    # A row that is masked throughout has the mean 0 / 0, in Keras too.
    inputs = with_gaps(6, 7)[:1]
    return path, inputs, predicted(model, inputs)


@pytest.mark.parametrize("opset", range(14, 23))
def test_opsets(
    opset: int, judged: tuple[Path, list[Array], list[Array]], tmp_path: Path
) -> None:
    source, inputs, wanted = judged
    path = tmp_path / "model.onnx"
    lc.convert(source, path, whole=True, warn=False, opset=opset)
    for ours, theirs in zip(answers(session(path), inputs), wanted, strict=True):
        assert distance(ours, theirs) < FLOAT32


def test_names_and_axes(tmp_path: Path) -> None:
    """Inputs and outputs have Keras's names; batch and time may be of any length."""
    keras = library("keras")
    layers = keras.layers
    one, two = keras.Input((None, 4), name="left"), keras.Input((5, 4), name="right")
    shared = layers.LSTM(3, return_sequences=True, name="shared")
    y = layers.Concatenate(axis=1, name="both")([shared(one), shared(two)])
    model = randomized(keras.Model([one, two], [y, layers.LSTM(2, name="last")(y)]))
    ran = session(written(model, tmp_path / "model.onnx"))
    assert [(v.name, v.shape) for v in ran.get_inputs()] == [
        ("left", ["batch", "left_time", 4]), ("right", ["batch", 5, 4]),
    ]  # fmt: skip
    assert [v.name for v in ran.get_outputs()] == ["both", "last"]
    given = example(model, 2, 6)
    found = answers(ran, given)
    for ours, theirs in zip(found, model(given), strict=True):
        assert distance(ours, np.asarray(theirs)) < FLOAT32
