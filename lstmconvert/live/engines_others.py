"""The engines MLX, tinygrad, TensorFlow 1's cells, OpenVINO and the C compiler."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layer import LSTMLayer
from lstmconvert.live.sources import built, imported, one_way

#: So many weights tinygrad's emulation in Python runs in a second or two.
_EMULATED = 5_000
_C99 = ("-std=c99", "-O2", "-ffp-contract=off", "-shared", "-fPIC")


def mlx(layer: LSTMLayer, x: Array) -> Array:
    """Run `mlx.nn.LSTM`, one cell and direction at a time."""
    from lstmconvert.live.mlx import from_array, to_array, to_mlx

    made = to_mlx(layer)
    return one_way(made, x.astype(layer.dtype), lambda m, x: to_array(m(from_array(x))[0]))


def tinygrad(layer: LSTMLayer, x: Array) -> Array:
    """Run `tinygrad.nn.LSTMCell`, one step, cell and direction at a time."""
    from lstmconvert.live.tinygrad import to_tinygrad

    tiny = imported("tinygrad", "tinygrad")

    def run(cell: Any, x: Array) -> Array:
        zeros = np.zeros((x.shape[0], cell.weight_hh.shape[1]), x.dtype)
        state, outputs = (tiny.Tensor(zeros), tiny.Tensor(zeros)), []
        for step in range(x.shape[1]):
            hidden, carry = cell(tiny.Tensor(np.ascontiguousarray(x[:, step])), state)
            state = (tiny.Tensor(hidden.numpy()), tiny.Tensor(carry.numpy()))
            outputs.append(hidden.numpy())
        return np.stack(outputs, 1)

    with _device(tiny, layer):
        return one_way(to_tinygrad(layer), x.astype(layer.dtype), run)


def _device(tiny: Any, layer: LSTMLayer) -> Any:
    """Return a context with a device: tinygrad's own choice, or its emulation in Python."""
    try:
        tiny.Device[tiny.Device.DEFAULT]
    except RuntimeError:
        if layer.parameters > _EMULATED:
            raise UnsupportedByTarget(
                "tinygrad finds no device here, and its emulation is slow",
                layer=layer.name,
                option="parameters",
                target="tinygrad",
                found=layer.parameters,
                expected=f"at most {_EMULATED}",
            ) from None
        return imported("tinygrad.helpers", "tinygrad").Context(DEV="PYTHON")
    return nullcontext()


def tf1(layer: LSTMLayer, x: Array) -> Array:
    """Run TensorFlow 1's `LSTMCell` in a graph, one cell and direction at a time."""
    legacy = imported("tf_keras.src.layers.rnn.legacy_cells", "tf_keras")
    cells = iter(layer.cells())

    def make(arrays: dict[str, Array]) -> Any:
        options, projection = next(cells)[2].options, arrays.get("projection.kernel")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated
            made = legacy.LSTMCell(
                arrays["kernel"].shape[1] // 4,
                use_peepholes="w_f_diag" in arrays,
                cell_clip=options.cell_clip,
                num_proj=None if projection is None else projection.shape[1],
                proj_clip=options.projection_clip,
            )
        return made, arrays

    return one_way(built(layer, "tf1", make), x.astype(layer.dtype), _in_graph)


def _in_graph(made: Any, x: Array) -> Array:
    tf = imported("tensorflow", "tensorflow")
    (cell, arrays), v1 = made, tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y, _ = v1.nn.dynamic_rnn(cell, tf.constant(x), dtype=x.dtype)
        for variable in cell.variables:
            # rnn/lstm_cell/projection/kernel:0
            key = variable.name.partition("lstm_cell")[2].partition("/")[2][:-2].replace("/", ".")
            session.run(variable.initializer, {variable.initializer.inputs[1]: arrays[key]})
        return np.asarray(session.run(y))


def openvino(layer: LSTMLayer, x: Array) -> Array:
    """Run OpenVINO on the ONNX file of the layer."""
    from lstmconvert.api import save
    from lstmconvert.onnx.express import compute_dtypes

    ov = imported("openvino", "openvino")
    (dtype, *_) = sorted(compute_dtypes(layer))
    if dtype != "float32":
        raise UnsupportedByTarget(
            "OpenVINO is run in float32 here",
            layer=layer.name,
            option="dtype",
            target="openvino",
            found=dtype,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.onnx")
        save(layer, path)
        try:
            options = {"INFERENCE_PRECISION_HINT": "f32"}
            compiled = ov.Core().compile_model(str(path), "CPU", options)
            found = compiled([x.astype(dtype)])
            return np.concatenate([found[index] for index in range(len(found))], axis=-1)
        except RuntimeError as error:
            raise UnsupportedByTarget(
                f"OpenVINO refuses it: {str(error).strip().splitlines()[-1][:120]}",
                layer=layer.name,
                option="activation",
                target="openvino",
            ) from None


def c(layer: LSTMLayer, x: Array) -> Array:
    """Run the C header's forward pass, compiled here."""
    from lstmconvert.api import save
    from lstmconvert.layouts.cheader import identifier

    kind, own = ("double" if layer.dtype.itemsize > 4 else "float"), identifier(layer.name)
    x = np.ascontiguousarray(x.astype(layer.dtype))
    width = sum(direction.units for _, direction in layer.directions)
    y = np.zeros((*x.shape[:2], width), layer.dtype)
    with tempfile.TemporaryDirectory() as folder:
        save(layer, Path(folder, "lstm.h"))
        source, library = Path(folder, "lstm.c"), Path(folder, "lstm.so")
        source.write_text(
            f'#include "lstm.h"\nvoid run(const {kind} *x, int steps, {kind} *y)'
            f"{{ {own}_forward(x, steps, y); }}\n"
        )
        command = ["gcc", *_C99, "-o", str(library), str(source), "-lm"]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own file
        run = ctypes.CDLL(str(library)).run
        for one, two in zip(x, y, strict=True):
            run(ctypes.c_void_p(one.ctypes.data), len(one), ctypes.c_void_p(two.ctypes.data))
    return y
