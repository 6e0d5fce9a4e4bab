"""A row's data at its borders, by the real engine: what it allows runs, and what it does not fails.

The functions of frugally-deep are tried in `containers/test_fdeep.py`, those of the C header in
`containers/test_cheader.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support.layout_tools import close
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.containers import mlmodel
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.activations import KERAS2, KERAS3, Activation
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.onnx import functions
from lstmconvert.tensors.dtypes import FLOATS, Array

#: Every function with the constants of a bare name, and some with others.
FUNCTIONS = list(
    dict.fromkeys(
        [
            *KERAS3.values(),
            *KERAS2.values(),
            Activation("relu", {"negative_slope": 0.1}),
            Activation("relu", {"threshold": 0.5}),
            Activation("relu", {"max_value": 1.0}),
            Activation("relu", {"negative_slope": 0.1, "threshold": 0.5}),
            Activation("elu", {"alpha": 0.5}),
            Activation("affine", {"alpha": 2.0, "beta": 0.5}),
            Activation("scaled_tanh", {"alpha": 2.0, "beta": 0.5}),
            Activation("thresholded_relu", {"alpha": 0.5}),
            Activation("mine", custom=True),
        ]
    )
)
#: OpenVINO's name of each function that it may have, from its list of operations.
OPENVINO = {
    **{name: name for name in ("relu", "sigmoid", "tanh", "elu", "selu", "gelu", "softplus")},
    "softsign": "softsign", "mish": "mish", "silu": "swish", "linear": "linear",
    "hard_sigmoid": "hardsigmoid", "exponential": "exp", "hard_silu": "hswish",
}


def layer_of(dtype: str = "float32", **options: Any) -> LSTMLayer:
    cell = make_cell(np.random.default_rng(3), 3, 2, dtype=dtype, scale=0.2, **options)
    return make_layer(cell, return_sequences=True)


X = np.random.default_rng(4).normal(size=(1, 5, 3)).astype(np.float32)


def openvino(arrays: dict[str, Array], x: Array, names: list[str]) -> Array:
    import openvino as ov
    from openvino import opset13 as ops

    given = ops.parameter(list(x.shape), x.dtype)
    zeros = ops.constant(np.zeros((1, 1, 2), x.dtype))
    lengths = ops.constant(np.array([x.shape[1]], np.int32))
    weights = [ops.constant(arrays[key]) for key in ("W", "R", "B")]
    node = ops.lstm_sequence(given, zeros, zeros, lengths, *weights, 2, "forward", names)
    model = ov.Core().compile_model(ov.Model([node.output(0)], [given]), "CPU")
    return np.asarray(model(x)[0])[:, 0]


@pytest.mark.engines
@pytest.mark.parametrize("option", ["activation", "recurrent_activation"])
def test_openvino_has_the_functions_of_its_row(option: str) -> None:
    allowed = getattr(ROWS["openvino"], option)
    plain = lc.arrange(layer_of(), "openvino")
    assert {a.name for a in allowed.exact} <= OPENVINO.keys()
    for name, theirs in OPENVINO.items():
        names = ["sigmoid", "tanh", "tanh"]
        for place in (1, 2) if option == "activation" else (0,):
            names[place] = theirs
        if KERAS3[name] in allowed:
            layer = layer_of(**{option: KERAS3[name]})
            arrays = dict(lc.arrange(layer, "openvino"))
            close(openvino(arrays, X, names), reference.run(layer, X).outputs[0])
        else:
            with pytest.raises(RuntimeError):
                openvino(dict(plain), X, names)


@pytest.mark.engines
def test_mlx_has_the_dtypes_of_its_row(tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    for dtype in FLOATS:
        arrays = dict(lc.arrange(layer_of(dtype), "gates"))
        safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors")
        if dtype in ROWS["mlx"].dtypes:
            loaded = mx.load(str(tmp_path / "x.safetensors"))
            assert {str(array.dtype) for array in loaded.values()} == {f"mlx.core.{dtype}"}
        else:
            with pytest.raises(RuntimeError, match="unsupported dtype"):
                mx.load(str(tmp_path / "x.safetensors"))


@pytest.mark.engines
@pytest.mark.parametrize("dtype", FLOATS)
def test_torch_has_every_dtype(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    assert dtype in ROWS["torch"].dtypes
    module = lc.to_torch(layer_of(dtype))
    answer = module(torch.from_numpy(X).to(module.weight_ih_l0.dtype))[0]
    assert str(answer.dtype) == f"torch.{dtype}"


@pytest.mark.engines
def test_hls4ml_has_the_functions_of_its_row() -> None:
    """It compiles a class of that name, and this file has them all."""
    spec = find_spec("hls4ml")  # which imports nothing
    if spec is None or spec.origin is None:
        pytest.skip("hls4ml is not installed")
    file = Path(spec.origin).parent / "templates/vivado/nnet_utils/nnet_recr_activations.h"
    classes = set(re.findall(r"class (\w+) : public Activation", file.read_text()))
    for functions_ in (ROWS["hls4ml"].activation, ROWS["hls4ml"].recurrent_activation):
        assert {activation.name for activation in functions_.exact} == classes
        assert not functions_.families


#: Runs the module in one dtype; as a program, since Paddle and PyTorch share no process.
_PADDLE = """
import sys
import numpy as np
import paddle
found, dtype = np.load(sys.argv[1]), sys.argv[2]
paddle.set_default_dtype(dtype)
module = paddle.nn.LSTM(3, 2)
module.eval()
module.set_state_dict({key: found[key] for key in found if key != "x"})
y = module(paddle.to_tensor(found["x"]).astype(dtype))[0]
np.save(sys.argv[3], y.astype("float64").numpy())
"""


@pytest.mark.engines
@pytest.mark.parametrize("dtype", FLOATS)
def test_paddle_runs_the_dtypes_of_its_row(dtype: str, tmp_path: Path) -> None:
    if find_spec("paddle") is None:
        pytest.skip("Paddle is not installed")
    is_allowed = dtype in ROWS["paddle"].dtypes
    layer = layer_of(dtype if is_allowed else "float32")
    arrays = {key: np.asarray(value) for key, value in lc.arrange(layer, "paddle").items()}
    np.savez(tmp_path / "in.npz", x=X, **arrays)
    command = [sys.executable, "-c", _PADDLE, tmp_path / "in.npz", dtype, tmp_path / "out.npy"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode == 0) is is_allowed, done.stderr[-2000:]
    if is_allowed:
        wanted = reference.run(layer, X.astype(np.float64)).outputs[0]
        assert np.abs(np.load(tmp_path / "out.npy") - wanted).max() < 1e-6
    else:
        with pytest.raises(UnsupportedByTarget, match=dtype):
            lc.arrange(layer_of(dtype), "paddle")


@pytest.mark.engines
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("engine", ["flax", "nnx", "haiku", "equinox", "tinygrad"])
def test_engines_run_the_dtypes_of_their_rows(engine: str, dtype: str) -> None:
    if (engine, dtype) == ("tinygrad", "bfloat16"):
        pytest.skip("tinygrad's arrays of NumPy have no bfloat16, its files have")
    pytest.importorskip("haiku" if engine == "haiku" else engine.replace("nnx", "flax"))
    assert dtype in ROWS[engine].dtypes
    report = lc.verify(layer_of(dtype), engines=["numpy", engine])
    assert report, report.lines
    assert report.lines[-1].dtype == dtype


# ---- one fact, one place ------------------------------------------------------------------------


@each("activation", FUNCTIONS, ids=str)
def test_the_row_of_onnx_has_what_the_operator_spells(activation: Activation) -> None:
    for allowed in (ROWS["onnx"].activation, ROWS["onnx"].recurrent_activation):
        assert (activation in allowed) is (functions.spell(activation) is not None)


@each("activation", FUNCTIONS, ids=str)
def test_the_row_of_core_ml_has_what_its_network_names(activation: Activation) -> None:
    for allowed in (ROWS["coreml"].activation, ROWS["coreml"].recurrent_activation):
        assert (activation in allowed) is (activation in mlmodel.FUNCTIONS.values())
