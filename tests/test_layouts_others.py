"""MLX, tinygrad, OpenVINO, ONNX Runtime and TensorFlow 1's cells run the weights."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import BATCH, SINGLE, STEPS, case, checked, close, joined
from neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.dtypes import Array

NAMES = SINGLE


@pytest.mark.parametrize("name", NAMES)
def test_mlx(name: str, tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx import nn

    known = case(name)

    def run(arrays: Mapping[str, Array], x: Array) -> Any:
        module = nn.LSTM(x.shape[-1], known.layer.units, bias="bias" in arrays)
        from safetensors.numpy import save_file

        path = tmp_path / "mlx.safetensors"
        save_file({key: np.ascontiguousarray(a) for key, a in arrays.items()}, path)
        module.load_weights(str(path), strict=True)
        hidden, _ = module(mx.array(x))
        return np.array(hidden)

    checked(known, run, "mlx")


def test_mlx_loads_our_file_as_it_is(tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx import nn

    known, path = case("plain"), tmp_path / "x.safetensors"
    lc.save(known.layer, path, layout="mlx", bare=True)
    module = nn.LSTM(known.x.shape[-1], known.layer.units)
    module.load_weights(str(path), strict=True)
    close(np.array(module(mx.array(known.x))[0]), known.y)


TINYGRAD = """
    import sys
    import numpy as np
    from tinygrad import Tensor
    from tinygrad.nn import LSTMCell

    found = np.load(sys.argv[1])
    x, arrays = found["x"], {k: found[k] for k in found.files if k != "x"}
    width = arrays["weight_hh"].shape[1]
    cell = LSTMCell(x.shape[-1], width, bias="bias_ih" in arrays)
    for key, array in arrays.items():
        assert getattr(cell, key).shape == array.shape
        getattr(cell, key).assign(Tensor(array)).realize()
    state = (Tensor.zeros(x.shape[0], width), Tensor.zeros(x.shape[0], width))
    outputs = []
    for step in range(x.shape[1]):
        state = tuple(Tensor(s.numpy()) for s in cell(Tensor(x[:, step]), state))
        outputs.append(state[0].numpy())
    np.save(sys.argv[2], np.stack(outputs, 1))
"""


@pytest.mark.parametrize("name", ["plain", "no-bias", "bidirectional"])
def test_tinygrad(name: str, tmp_path: Path) -> None:
    """In a process of its own: its Python device is chosen when it is imported."""
    known = case(name)

    def run(arrays: Mapping[str, Array], x: Array) -> Any:
        result = tmp_path / "y.npy"
        np.savez(tmp_path / "in.npz", x=x, **arrays)
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(TINYGRAD), tmp_path / "in.npz", result],
            env={**os.environ, "DEV": "PYTHON"},
            check=True,
            timeout=120,
        )
        return np.load(result)

    checked(known, run, "tinygrad")


def _in_time(y: Array) -> Array:
    """(batch, directions, time, units), all in the input's order of time, to Keras's outputs."""
    return np.concatenate(list(np.moveaxis(y, 1, 0)), axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_openvino(name: str) -> None:
    import openvino as ov
    from openvino import opset14 as ops

    known, arrays = case(name), lc.arrange(case(name).layer, "openvino")
    sides, units = (2 if known.both else 1), known.layer.units
    x = ops.parameter(list(known.x.shape), np.float32)
    state = ops.constant(np.zeros((BATCH, sides, units), np.float32))
    node = ops.lstm_sequence(
        x,
        state,
        state,
        ops.constant(np.full(BATCH, STEPS, np.int32)),
        *(ops.constant(arrays[key]) for key in ("W", "R", "B")),
        units,
        "bidirectional" if known.both else "forward",
    )
    model = ov.Model([node.output(0)], [x])
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    close(_in_time(compiled([known.x])[0]), known.y)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_arrays(name: str) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    known, arrays = case(name), lc.arrange(case(name).layer, "onnx")
    node = helper.make_node(
        "LSTM",
        ["x", *(key for key in ("W", "R", "B") if key in arrays)],
        ["y"],
        hidden_size=known.layer.units,
        direction="bidirectional" if known.both else "forward",
    )
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, BATCH, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list("tdbu"))],
        [numpy_helper.from_array(array, key) for key, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(data, providers=providers)
    (y,) = session.run(None, {"x": np.ascontiguousarray(np.swapaxes(known.x, 0, 1))})
    close(_in_time(np.moveaxis(y, 2, 0)[:, :].swapaxes(1, 2)), known.y)


@pytest.mark.filterwarnings("ignore:layer.*forget gate:UserWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:tensorflow")
@pytest.mark.filterwarnings("ignore:.*tf.nn.rnn_cell:UserWarning")
@pytest.mark.filterwarnings("ignore:.*(deprecated|equivalent):UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_tensorflow_1(name: str) -> None:
    known = case(name)

    def run(arrays: Mapping[str, Array], x: Array) -> Any:
        return tf1_run(arrays, x, known.layer.units)

    checked(known, run, "tf1")


def tf1_run(arrays: Mapping[str, Array], x: Array, units: int, **options: Any) -> Any:
    import tensorflow as tf
    from tf_keras.src.layers.rnn.legacy_cells import LSTMCell

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cell = LSTMCell(units, **options)
        y, _ = v1.nn.dynamic_rnn(cell, tf.constant(x), dtype=tf.float32)
        variables = {
            # rnn/lstm_cell/kernel:0, and rnn/lstm_cell_1/… the second time
            v.name.partition("lstm_cell")[2].partition("/")[2][:-2]: v
            for v in cell.variables
        }
        assert set(variables) == {key.replace(".", "/") for key in arrays}
        for key, array in arrays.items():
            variable = variables[key.replace(".", "/")]
            assert variable.shape == array.shape
            session.run(variable.initializer, {variable.initializer.inputs[1]: array})
        return session.run(y)


@pytest.mark.filterwarnings("ignore:.*forget gate:UserWarning")
def test_tensorflow_1_peepholes_projection_and_clips() -> None:
    rng = np.random.default_rng(3)
    layer = make_layer(
        make_cell(
            rng,
            5,
            4,
            projected=2,
            gate_parts=("bias", "peephole"),
            cell_clip=0.5,
            projection_clip=0.25,
        ),
        return_sequences=True,
    )
    arrays = lc.arrange(layer, "tf1")
    x = rng.normal(size=(3, 6, 5)).astype(np.float32)
    options = {"use_peepholes": True, "num_proj": 2, "cell_clip": 0.5, "proj_clip": 0.25}
    close(tf1_run(arrays, x, 4, **options), reference.run(layer, x).outputs[0])


def test_the_check_itself_can_fail() -> None:
    known = case("bidirectional")
    halves = np.split(known.y, 2, axis=-1)
    with pytest.raises(AssertionError):
        close(joined(halves), known.y)
    with pytest.raises(AssertionError):
        close(known.y + 1e-4, known.y)
