"""Files that others write, read back bit for bit: PyTorch's exporters, Keras's export, tf2onnx."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.onnx_tools import difference, run

import lstmconvert as lc
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.reference import run as reference
from lstmconvert.tensors.dtypes import Array, same_bits

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BOUND = 2e-6
BATCH, TIME, INPUTS, UNITS = 2, 5, 4, 3

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters' own


def x_of(seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(BATCH, TIME, INPUTS)).astype("f4")


# ---- PyTorch -------------------------------------------------------------------------------------


def exported(path: Path, dynamo: bool, **options: Any) -> Any:
    """Export a random torch.nn.LSTM, and return it."""
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.LSTM(INPUTS, UNITS, batch_first=True, **options)

        def forward(self, x: Any) -> Any:
            return self.encoder(x)

    torch.manual_seed(0)
    model = Model().eval()
    x = torch.from_numpy(x_of())
    more = {} if dynamo else {"input_names": ["x"], "dynamic_axes": {"x": [0, 1]}}
    torch.onnx.export(model, (x,), str(path), dynamo=dynamo, verbose=False, **more)
    return model.encoder


def assert_torch_gates(cell: Cell, module: Any, suffix: str) -> None:
    units = module.hidden_size
    for index, gate in enumerate(Gate):  # PyTorch's order: i f g o
        rows = slice(index * units, (index + 1) * units)
        weights = cell.gates[gate]
        for part, key in (
            ("kernel", "weight_ih"),
            ("recurrent_kernel", "weight_hh"),
            ("bias", "bias_ih"),
            ("recurrent_bias", "bias_hh"),
        ):
            found, wanted = getattr(weights, part), getattr(module, f"{key}_{suffix}", None)
            if wanted is None:
                assert found is None
                continue
            assert same_bits(found, wanted.detach().numpy()[rows].T)


OPTIONS: dict[str, Any] = {
    "plain": {},
    "no-bias": {"bias": False},
    "two": {"num_layers": 2},
    "both": {"bidirectional": True},
    "two-both": {"num_layers": 2, "bidirectional": True},
}


@pytest.mark.engines
@pytest.mark.parametrize(
    ("kind", "dynamo"),
    [
        *((kind, False) for kind in OPTIONS),
        # The dynamo exporter is slow to start, and slow.
        pytest.param("no-bias", True, marks=pytest.mark.slow),
        pytest.param("two-both", True, marks=pytest.mark.slow),
    ],
)
def test_pytorch(kind: str, dynamo: bool, tmp_path: Path) -> None:
    import torch

    module = exported(tmp_path / "model.onnx", dynamo, **OPTIONS[kind])
    model = lc.load(tmp_path / "model.onnx")
    assert list(model) == ["encoder", "encoder_1"][: len(model)]
    x = torch.from_numpy(x_of(1))
    steps = x.numpy()
    for index, layer in enumerate(model.layers):
        assert layer.forward.options.return_sequences is True
        assert_torch_gates(layer.forward.lstm_cells[0], module, f"l{index}")
        if layer.backward is not None:
            assert layer.options.merge_mode == "concat"
            assert_torch_gates(layer.backward.lstm_cells[0], module, f"l{index}_reverse")
        (steps,) = reference(layer, steps).outputs
    assert difference([steps], [module(x)[0].detach().numpy()]) < BOUND


@pytest.mark.engines
def test_pytorch_into_keras(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    import torch

    module = exported(tmp_path / "model.onnx", False, bidirectional=True)
    result = lc.convert(tmp_path / "model.onnx", tmp_path / "model.keras")
    assert {"summed" in loss for loss in result.losses} == {True}  # of each half, the two biases
    outputs = keras.models.load_model(tmp_path / "model.keras")(x_of(1))
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    wanted, (hidden, carry) = module(torch.from_numpy(x_of(1)))
    states = [part[side] for side in (0, 1) for part in (hidden, carry)]
    wanted = [array.detach().numpy() for array in (wanted, *states)]
    assert difference([np.asarray(array) for array in outputs], wanted) < BOUND


# ---- Keras and tf2onnx ---------------------------------------------------------------------------


def random_weights(model: Any) -> Any:
    rng = np.random.default_rng(0)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([(0.6 * rng.normal(size=shape)).astype("f4") for shape in shapes])
    return model


def assert_keras_weights(layers: Any, model: Any) -> None:
    """Assert that every fused kernel, recurrent kernel and bias is bit for bit the model's."""
    parts = ("kernel", "recurrent_kernel", "bias")
    found = [
        cell.fused(part).read()
        for layer in layers
        for _, _, cell in layer.cells()
        for part in parts
        if part in cell.gate_parts
    ]
    wanted = [*model.get_weights()]
    if len(wanted) == 2:  # tf2onnx writes a bias of zeros where there is none
        wanted.append(np.zeros(4 * UNITS, "f4"))
    assert len(found) == len(wanted)
    assert all(same_bits(one, np.asarray(two)) for one, two in zip(found, wanted, strict=True))


def answer(layers: tuple[LSTMLayer, ...], x: Array) -> Array:
    for layer in layers:
        (x,) = reference(layer, x).outputs
    return x


def stack(keras: Any, kind: str) -> Any:
    """Return a model of a kind, with random weights."""
    layers = keras.layers
    table = {
        "two": lambda: [layers.LSTM(UNITS, name="encoder", return_sequences=True),
                        layers.LSTM(2, name="decoder")],
        "no-bias": lambda: [layers.LSTM(UNITS, name="encoder", use_bias=False)],
        "both": lambda: [layers.Bidirectional(layers.LSTM(UNITS), name="encoder")],
        "average": lambda: [
            layers.Bidirectional(
                layers.LSTM(UNITS, return_sequences=True), name="encoder", merge_mode="ave"
            )
        ],
        "hard_sigmoid": lambda: [
            layers.LSTM(UNITS, name="encoder", recurrent_activation="hard_sigmoid")
        ],
        "backwards": lambda: [
            layers.LSTM(UNITS, name="encoder", return_sequences=True, go_backwards=True),
            layers.LSTM(2, name="decoder", go_backwards=True),
        ],
        "backwards_then_forwards": lambda: [
            layers.LSTM(UNITS, name="encoder", return_sequences=True, go_backwards=True),
            layers.LSTM(2, name="decoder"),
        ],
    }
    start = layers.Input((TIME, INPUTS))
    end = start
    for layer in table[kind]():
        end = layer(end)
    return random_weights(keras.Model(start, end))


def check(model: Any, path: Path, kind: str) -> None:
    found = lc.load(path)
    for layer in found.layers:
        backwards = kind.startswith("backwards") and (kind == "backwards" or "enc" in layer.name)
        assert layer.forward.options.go_backwards is backwards
        assert layer.forward.options.keeps_time_order is False
    is_stack = kind in ("two", "backwards", "backwards_then_forwards")
    names = ["encoder", "decoder"] if is_stack else ["encoder"]
    assert [name.rpartition("/")[2].removesuffix("_1") for name in found] == names
    assert_keras_weights(found.layers, model)
    x = x_of(1)
    wanted = np.asarray(model(x))
    assert difference([answer(found.layers, x)], [wanted]) < BOUND
    (feed,) = _inputs(path)
    assert difference([next(iter(run(path, {feed: x}).values()))], [wanted]) < BOUND


def _inputs(path: Path) -> list[str]:
    import onnx

    return [value.name for value in onnx.load(path).graph.input]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two", "both", "backwards", "backwards_then_forwards"])
def test_the_export_of_keras(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    keras = pytest.importorskip("keras")
    model = stack(keras, kind)
    model(x_of())
    model.export(str(tmp_path / "model.onnx"), format="onnx", verbose=False)
    check(model, tmp_path / "model.onnx", kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["two", "no-bias", "average", "hard_sigmoid", "backwards", "backwards_then_forwards"],
)
def test_tf2onnx(kind: str, tmp_path: Path) -> None:
    tf2onnx = pytest.importorskip("tf2onnx")
    keras = pytest.importorskip("tf_keras")
    import tensorflow as tf

    model = stack(keras, kind)
    signature = (tf.TensorSpec((None, TIME, INPUTS), tf.float32, name="x"),)
    traced = tf.function(lambda x: model(x), input_signature=signature)
    tf2onnx.convert.from_function(
        traced, input_signature=signature, opset=15, output_path=str(tmp_path / "model.onnx")
    )
    check(model, tmp_path / "model.onnx", kind)
