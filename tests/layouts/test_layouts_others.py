"""OpenVINO and ONNX Runtime run plain arrays; MLX loads a file; TensorFlow 1's cells have more.

That engines answer as Keras does, case by case, is in test_live.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.layout_tools import BATCH, SINGLE, STEPS, case, close, joined
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.live.engines import ENGINES
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines

NAMES = SINGLE


def test_mlx_loads_our_file_as_it_is(tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx import nn

    known, path = case("plain"), tmp_path / "x.safetensors"
    lc.save(known.layer, path, layout="mlx", bare=True)
    module = nn.LSTM(known.x.shape[-1], known.layer.units)
    module.load_weights(str(path), strict=True)
    close(np.array(module(mx.array(known.x))[0]), known.y)


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
    x = rng.normal(size=(3, 6, 5)).astype(np.float32)
    close(ENGINES["tf1"].run(layer, x), reference.run(layer, x).outputs[0])


def test_the_check_itself_can_fail() -> None:
    known = case("bidirectional")
    halves = np.split(known.y, 2, axis=-1)
    with pytest.raises(AssertionError):
        close(joined(halves), known.y)
    with pytest.raises(AssertionError):
        close(known.y + 1e-4, known.y)
