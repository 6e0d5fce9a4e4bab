"""The numbers that old files were trained to give, by the program that recorded them.

Each oracle is an input and an output that the writer of a file stored beside it: real Keras 1 on
TensorFlow and Theano, Keras 2, and the corpus. Here the neutral layer gives them in the reference
pass, and as a live layer of today's Keras.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.corpus import CORPUS

import lstmconvert as lc
from lstmconvert import reference

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"

#: float32 sums in another order than the writer's engine: a few units in the last place.
CLOSE = 1e-6

RECORDED = [
    ("dl4j__simple_lstm_tf_keras_1", "lstm_1"),
    ("dl4j__simple_lstm_th_keras_1", "lstm_1"),
    ("dl4j__simple_flatten_lstm_tf_keras_2", "lstm_1"),
]
#: Fixtures whose first output is their one recurrent layer's, or a layer's named here.
ALONE = [
    ("keras-1.1.0/both.h5", "both", 0),
    ("keras-1.1.0/consume.h5", "gpu", 0),
    ("keras-1.2.2/both.h5", "both", 0),
    ("keras-1.2.2/consume.h5", "gpu", 0),
    ("keras-1.2.2/conv_lstm.h5", "conv", 0),
    ("keras-1.2.2-theano/both.h5", "both", 0),
    ("keras-1.2.2-theano/conv_lstm.h5", "conv", 0),
    ("keras-2.0.8/conv_lstm.h5", "conv", 0),
    ("keras-2.3.1/conv_lstm.h5", "conv", 0),
    ("tf-1.15.5/conv_lstm.h5", "conv", 0),
    ("tf-2.15.1/conv_lstm.keras", "c1", 0),
    ("tf-2.15.1/both_unlike.h5", "both", 0),
    ("tf-2.15.1/both_unlike.keras", "both", 0),
]
#: What today's Keras has no words for, and is refused by name: Theano's padding.
REFUSED = {"keras-1.2.2-theano/conv_lstm.h5"}


def ours(layer: lc.LSTMLayer, x: Any) -> Any:
    return reference.run(layer, x).outputs[0]


def live(layer: lc.LSTMLayer, x: Any) -> Any:
    return np.asarray(lc.to_keras(layer)(x))


@pytest.mark.corpus
@pytest.mark.parametrize("run", [ours, live])
@pytest.mark.parametrize(("stem", "name"), RECORDED)
def test_activations_that_the_corpus_records(stem: str, name: str, run: Any) -> None:
    layer = lc.load(CORPUS / f"{stem}_model.h5")[name]
    with h5py.File(CORPUS / f"{stem}_inputs_and_outputs.h5") as file:
        (x,) = (dataset[()] for dataset in file["inputs"].values())
        wanted = file["activations"][name][()]
    np.testing.assert_allclose(run(layer, x), wanted, rtol=0, atol=CLOSE)


def recorded(path: str) -> tuple[Any, Any]:
    """The first input and output that the writer of a fixture recorded."""
    record = np.load(FIXTURES / f"{path.rpartition('.')[0]}.io.npz")
    return record["x0"], record["y0"]


def with_today_s_hard_sigmoid(layer: lc.LSTMLayer) -> lc.LSTMLayer:
    from dataclasses import replace

    from lstmconvert.model.activations import HARD_SIGMOID_KERAS3

    def changed(direction: Any) -> Any:
        cells = tuple(
            replace(c, options=replace(c.options, recurrent_activation=HARD_SIGMOID_KERAS3))
            for c in direction.cells
        )
        return replace(direction, cells=cells)

    halves = {name: changed(direction) for name, direction in layer.directions}
    return replace(layer, **halves)


@pytest.mark.corpus
def test_today_s_hard_sigmoid_would_be_another_function() -> None:
    """The check above can fail: with Keras 3's slope the same weights give other numbers."""
    stem, name = RECORDED[0]
    layer = with_today_s_hard_sigmoid(lc.load(CORPUS / f"{stem}_model.h5")[name])
    with h5py.File(CORPUS / f"{stem}_inputs_and_outputs.h5") as file:
        (x,) = (dataset[()] for dataset in file["inputs"].values())
        wanted = file["activations"][name][()]
    assert np.abs(ours(layer, x) - wanted).max() > 0.05


def test_today_s_hard_sigmoid_would_be_another_function_in_fixtures_too() -> None:
    path, name, _ = ALONE[0]
    x, wanted = recorded(path)
    layer = lc.load(FIXTURES / path)[name]
    assert np.abs(ours(layer, x) - wanted).max() < CLOSE
    assert np.abs(ours(with_today_s_hard_sigmoid(layer), x) - wanted).max() > 0.01


@pytest.mark.engines
@pytest.mark.parametrize("run", [ours, live])
@pytest.mark.parametrize(("path", "name", "output"), ALONE)
def test_outputs_that_the_writer_recorded(path: str, name: str, output: int, run: Any) -> None:
    layer = lc.load(FIXTURES / path)[name]
    record = np.load(FIXTURES / f"{path.rpartition('.')[0]}.io.npz")
    wanted = record[f"y{output}"]
    if run is live and path in REFUSED:
        with pytest.raises(lc.LSTMConvertError, match="Theano's padding"):
            run(layer, record["x0"])
        return
    np.testing.assert_allclose(run(layer, record["x0"]), wanted, rtol=0, atol=CLOSE)


@pytest.mark.engines
@pytest.mark.parametrize(
    "path", ["keras-2.3.1/cudnn.h5", "tf-2.15.1/cudnn.h5", "tf-2.15.1/cudnn_both.h5"]
)
def test_cudnn_is_unpacked_as_tf_keras_unpacks_it(path: str) -> None:
    """tf_keras's own converter of CuDNNLSTM weights, `_convert_rnn_weights`, sums the biases."""
    import tf_keras
    from tf_keras.src.saving.legacy import hdf5_format

    model = lc.load(FIXTURES / path)
    for layer in model.layers:
        for _, _, cell in layer.cells():


            stored = [
                np.asarray(h5py.File(FIXTURES / path)[cell.places[role]][()])
                for role in ("kernel", "recurrent_kernel", "bias")
            ]
            plain = tf_keras.layers.LSTM(cell.units)
            plain.build((None, None, cell.input_dim))
            kernel, recurrent, bias = hdf5_format._convert_rnn_weights(plain, stored)
            np.testing.assert_array_equal(cell.fused("kernel").read(), kernel)
            np.testing.assert_array_equal(cell.fused("recurrent_kernel").read(), recurrent)
            rebuilt = lc.load(FIXTURES / path)[layer.name]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")  # TensorFlow warns too, of its own deprecations
                weights = lc.to_keras(rebuilt).get_weights()
            assert any("recurrent_bias are summed" in str(warning.message) for warning in caught)
            assert any(np.array_equal(weight, bias) for weight in weights)
