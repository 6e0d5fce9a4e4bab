"""The programs that can run a layer, for `verify`: each a row, imported when it runs."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lstmconvert.errors import UnsupportedByTarget, install
from lstmconvert.live.sources import built, imported, one_way
from lstmconvert.model.chain import Answer
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import Array

#: With more weights, tinygrad's emulation in Python takes longer than a second or two.
_EMULATED = 5_000
#: How the C header is compiled.
_C99 = ("-std=c99", "-O2", "-ffp-contract=off", "-shared", "-fPIC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A program that runs a layer.

    Fields: `name`; `package`, of Python, or `program`: what must be installed; `extra` of this
    package that installs it, if there is one; `run`: from a layer that gives every output and x
    (batch, time, inputs) to its outputs; `container`: of the files that it runs as they are, if
    there are some; `play`: from such a file, the stored part of one input, to its answer.
    """

    name: str
    run: Callable[[LSTMLayer, Array], Array]
    container: str = ""
    play: Callable[[Path, Answer], Array] | None = None
    package: str = ""
    program: str = ""
    extra: str = ""

    @property
    def needs(self) -> str:
        """How to get it, in a few words."""
        if self.extra:
            return install(self.extra)
        return f"pip install {self.package}" if self.package else f"install {self.program}"

    @property
    def installed(self) -> bool:
        """Whether its package or program is there."""
        if self.package:
            return find_spec(self.package) is not None
        return shutil.which(self.program) is not None


def _numpy(layer: LSTMLayer, x: Array) -> Array:
    from lstmconvert import reference

    return _joined(reference.run(layer, x, dtype="float64").outputs)


def _joined(outputs: Any) -> Array:
    """Return one array of a layer's outputs: of two, side by side."""
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return np.concatenate([np.asarray(output) for output in several], axis=-1)


def _keras(library: str) -> Callable[[LSTMLayer, Array], Array]:
    def run(layer: LSTMLayer, x: Array) -> Array:
        from lstmconvert.live.keras import import_library, to_keras

        returned = to_keras(layer, library=library)(x.astype(layer.dtype))
        outputs = returned if isinstance(returned, (list, tuple)) else (returned,)
        # The two libraries have each a way of their own to give an array away.
        keras = import_library(library)
        convert = keras.ops.convert_to_numpy if hasattr(keras, "ops") else _own_numpy
        return _joined(tuple(np.asarray(convert(value)) for value in outputs))

    return run


def _own_numpy(value: Any) -> Array:
    return np.asarray(value.numpy())


def _torch(layer: LSTMLayer, x: Array) -> Array:
    import torch

    from lstmconvert.live.torch import array_of, tensor_of, to_torch

    with torch.no_grad():
        outputs, _ = to_torch(layer)(tensor_of(x.astype(layer.dtype)))
    return array_of(outputs)


def _onnxruntime(layer: LSTMLayer, x: Array) -> Array:
    import onnxruntime

    from lstmconvert.api import save
    from lstmconvert.model.layer import compute_dtypes

    (dtype, *_) = sorted(compute_dtypes(layer))
    if dtype in ("float64", "bfloat16"):
        raise UnsupportedByTarget(
            f"ONNX Runtime has no LSTM in {dtype}",
            layer=layer.name,
            option="dtype",
            target="onnxruntime",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.onnx")
        save(layer, path, warn=False)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x.astype(dtype)}
        outputs: Any = session.run(None, feed)
    return _joined(tuple(map(np.asarray, outputs)))


#: NumPy's name of the types of a graph's inputs.
_OF_GRAPHS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
#: How long an axis of any length is in an input that does not matter: room for a convolution.
_ANY = 8


def _in_onnxruntime(path: Path, answer: Answer) -> Array:
    """Run the graph of a file. What feeds other layers of it is zero."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        places = {place.name: place for place in session.get_inputs()}
        wanted = [value.name for value in session.get_outputs()]
        if answer.layer is None:
            start, results = next(iter(places), ""), wanted[:1] if len(places) == 1 else []
        else:
            ends = (f"{answer.layer}.y", f"{answer.layer}.y_backward")
            start, results = f"{answer.layer}.x", [name for name in wanted if name in ends]
        if start not in places or not results:
            raise _refused("onnxruntime", "the graph has no input and output of its own for it")
        feed = {
            name: _fed(place, answer.x if name == start else None) for name, place in places.items()
        }
        outputs = session.run(results, feed)
    except UnsupportedByTarget:
        raise
    except Exception as error:  # its own, without a base
        raise _refused("onnxruntime", f"ONNX Runtime does not run the graph: {error}") from None
    return _first_row(_joined(tuple(map(np.asarray, outputs))), answer)


def _fed(place: Any, x: Array | None) -> Array:
    """Return what an input of a graph is fed: a batch of equal rows, or zeros."""
    if place.type not in _OF_GRAPHS:
        raise _refused("onnxruntime", f"its input is of the type {place.type}")
    if x is None:
        sizes = [size if isinstance(size, int) else _ANY for size in place.shape]
        return np.zeros(sizes, _OF_GRAPHS[place.type])
    x = x.astype(_OF_GRAPHS[place.type])
    for axis, size in enumerate(place.shape):
        if isinstance(size, int) and x.shape[axis] == 1:
            x = x.repeat(size, axis)
    return x


def _first_row(y: Array, answer: Answer) -> Array:
    """Return the first row of a batch, where there are more."""
    for axis, size in enumerate(answer.y.shape):
        if size == 1 and y.ndim == answer.y.ndim:
            y = y.take([0], axis)
    return y


def _refused(engine: str, why: str) -> UnsupportedByTarget:
    text = " ".join(why.split())[:200]
    return UnsupportedByTarget(text, option="check", target=engine, where="the stored check")


def _in_litert(path: Path, answer: Answer) -> Array:
    """Run the graph of a file in LiteRT, from zero states."""
    runtime = imported("ai_edge_litert.interpreter", install("tflite"))
    name = "model" if answer.layer is None else answer.layer
    try:
        interpreter = runtime.Interpreter(str(path))
        starts = [each for each in interpreter.get_input_details() if each["name"] == f"{name}.x"]
        ends = [each for each in interpreter.get_output_details() if each["name"] == f"{name}.y"]
        if not starts or not ends:
            raise _refused("litert", "the graph has no input and output of its own for it")
        interpreter.resize_tensor_input(starts[0]["index"], answer.x.shape)
        interpreter.allocate_tensors()
        interpreter.reset_all_variables()
        interpreter.set_tensor(starts[0]["index"], answer.x.astype(np.float32))
        interpreter.invoke()
        return np.array(interpreter.get_tensor(ends[0]["index"]))
    except (RuntimeError, ValueError) as error:
        raise _refused("litert", f"LiteRT does not run the graph: {error}") from None


def _litert(layer: LSTMLayer, x: Array) -> Array:
    """Run LiteRT on the file of the layer, one sequence at a time."""
    from lstmconvert.api import save
    from lstmconvert.model.chain import Answer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.tflite")
        save(layer, path, warn=False)
        rows = [_in_litert(path, Answer(row[None], row[None], 0.0, layer.name)) for row in x]
    return np.concatenate(rows)


def _flax(layer: LSTMLayer, x: Array) -> Array:
    """Run `nn.RNN`, or `nn.Bidirectional`."""
    import jax

    from lstmconvert.live.flax import to_flax

    with jax.enable_x64(layer.dtype.itemsize > 4):
        module, variables = to_flax(layer)
        return _joined(module.apply(variables, jax.numpy.asarray(x.astype(layer.dtype))))


def _nnx(layer: LSTMLayer, x: Array) -> Array:
    """Run `nnx.RNN`, or `nnx.Bidirectional`."""
    import jax

    from lstmconvert.live.flax import to_nnx

    with jax.enable_x64(layer.dtype.itemsize > 4):
        return _joined(to_nnx(layer)(jax.numpy.asarray(x.astype(layer.dtype))))


def _haiku(layer: LSTMLayer, x: Array) -> Array:
    """Run `hk.LSTM`, one cell and direction at a time."""
    import jax

    from lstmconvert.live.haiku import to_haiku

    with jax.enable_x64(layer.dtype.itemsize > 4):

        def run(made: Any, x: Array) -> Array:
            transformed, params = made
            return np.asarray(transformed.apply(params, jax.numpy.asarray(x)))

        return one_way(to_haiku(layer), x.astype(layer.dtype), run)


def _equinox(layer: LSTMLayer, x: Array) -> Array:
    """Run `eqx.nn.LSTMCell`, scanned over time and mapped over the batch."""
    import jax

    from lstmconvert.live.equinox import to_equinox

    def run(cell: Any, x: Array) -> Array:
        state = jax.numpy.zeros(cell.hidden_size, x.dtype)

        def step(carry: Any, value: Any) -> Any:
            carry = cell(value, carry)
            return carry, carry[0]

        outputs: Any = jax.vmap(lambda sequence: jax.lax.scan(step, (state, state), sequence)[1])
        return np.asarray(outputs(jax.numpy.asarray(x)))

    with jax.enable_x64(layer.dtype.itemsize > 4):
        return one_way(to_equinox(layer), x.astype(layer.dtype), run)


def _mlx(layer: LSTMLayer, x: Array) -> Array:
    """Run `mlx.nn.LSTM`, one cell and direction at a time."""
    from lstmconvert.live.mlx import from_array, to_array, to_mlx

    made = to_mlx(layer)
    return one_way(made, x.astype(layer.dtype), lambda m, x: to_array(m(from_array(x))[0]))


def _tinygrad(layer: LSTMLayer, x: Array) -> Array:
    """Run `tinygrad.nn.LSTMCell`, one step, cell and direction at a time."""
    from lstmconvert.live.tinygrad import to_tinygrad

    tiny = imported("tinygrad", install("tinygrad"))

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
        return imported("tinygrad.helpers", install("tinygrad")).Context(DEV="PYTHON")
    return nullcontext()


def _tf1(layer: LSTMLayer, x: Array) -> Array:
    """Run TensorFlow 1's `LSTMCell` in a graph, one cell and direction at a time."""
    legacy = imported("tf_keras.src.layers.rnn.legacy_cells", "pip install tf_keras")
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
    tf = imported("tensorflow", install("keras"))
    (cell, arrays), v1 = made, tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y, _ = v1.nn.dynamic_rnn(cell, tf.constant(x), dtype=x.dtype)
        for variable in cell.variables:
            # rnn/lstm_cell/projection/kernel:0
            key = variable.name.partition("lstm_cell")[2].partition("/")[2][:-2].replace("/", ".")
            session.run(variable.initializer, {variable.initializer.inputs[1]: arrays[key]})
        return np.asarray(session.run(y))


def _openvino(layer: LSTMLayer, x: Array) -> Array:
    """Run OpenVINO on the ONNX file of the layer."""
    from lstmconvert.api import save
    from lstmconvert.model.layer import compute_dtypes

    ov = imported("openvino", install("openvino"))
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
        save(layer, path, warn=False)
        try:
            options = {"INFERENCE_PRECISION_HINT": "f32"}
            compiled = ov.Core().compile_model(str(path), "CPU", options)
            results = compiled([x.astype(dtype)])
            return np.concatenate([results[index] for index in range(len(results))], axis=-1)
        except RuntimeError as error:
            raise UnsupportedByTarget(
                f"OpenVINO refuses it: {str(error).strip().splitlines()[-1][:120]}",
                layer=layer.name,
                option="activation",
                target="openvino",
            ) from None


def _c(layer: LSTMLayer, x: Array) -> Array:
    """Run the C header's forward pass, compiled here."""
    from lstmconvert.api import save
    from lstmconvert.containers.cheader import identifier

    kind, base = ("double" if layer.dtype.itemsize > 4 else "float"), identifier(layer.name)
    x = np.ascontiguousarray(x.astype(layer.dtype))
    width = sum(direction.units for _, direction in layer.directions)
    y = np.zeros((*x.shape[:2], width), layer.dtype)
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder, "lstm.h")
        save(layer, header, warn=False)
        run = _compiled(header, kind, f"{base}_forward(x, steps, y)")
        for sequence, output in zip(x, y, strict=True):
            run(sequence, output)
    return y


def _compiled(header: Path, kind: str, call: str) -> Callable[[Array, Array], None]:
    """Compile a call of a header's function, and return what runs it.

    Args:
        header: the file, in a folder for the program.
        kind: C's type of the numbers.
        call: of x, steps and y, in C.
    """
    source, library = header.with_suffix(".c"), header.with_suffix(".so")
    source.write_text(
        f'#include "{header.name}"\nvoid run(const {kind} *x, int steps, {kind} *y)'
        f"{{ {call}; }}\n"
    )
    command = ["gcc", *_C99, "-o", str(library), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  # as was asked for
    if done.returncode:
        raise _refused("c", f"gcc does not compile it: {done.stderr}")
    run = ctypes.CDLL(str(library)).run

    def play(x: Array, y: Array) -> None:
        x_start, y_start = (ctypes.c_void_p(array.ctypes.data) for array in (x, y))
        run(x_start, len(x), y_start)

    return play


def _in_c(path: Path, answer: Answer) -> Array:
    """Compile a header, and run its whole model."""
    from lstmconvert.containers import cheader

    player = cheader.player(path)
    if player is None:
        raise AssertionError("a header with an answer")
    dtype = np.dtype("float64" if player.kind == "double" else "float32")
    x, y = np.ascontiguousarray(answer.x[0].astype(dtype)), np.zeros(answer.y.shape[1:], dtype)
    call = f"static {player.name}_state s; {player.name}_reset(&s); "
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder, "lstm.h")
        shutil.copyfile(path, header)
        _compiled(header, player.kind, f"{call}{player.name}_run(&s, x, steps, y)")(x, y)
    return y[None]


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            Engine(name="numpy", package="numpy", run=_numpy),
            Engine(name="keras", package="keras", extra="keras", run=_keras("keras")),
            Engine(name="tf_keras", package="tf_keras", run=_keras("tf_keras")),
            Engine(name="torch", package="torch", extra="torch", run=_torch),
            Engine(name="onnxruntime", package="onnxruntime", run=_onnxruntime,
                   container="onnx", play=_in_onnxruntime),
            Engine(name="openvino", package="openvino", extra="openvino", run=_openvino),
            Engine(name="flax", package="flax", extra="jax", run=_flax),
            Engine(name="nnx", package="flax", extra="jax", run=_nnx),
            Engine(name="haiku", package="haiku", extra="jax", run=_haiku),
            Engine(name="equinox", package="equinox", extra="jax", run=_equinox),
            Engine(name="mlx", package="mlx", extra="mlx", run=_mlx),
            Engine(name="tinygrad", package="tinygrad", extra="tinygrad", run=_tinygrad),
            Engine(name="tf1", package="tf_keras", run=_tf1),
            Engine(name="litert", package="ai_edge_litert", extra="tflite", run=_litert,
                   container="tflite", play=_in_litert),
            Engine(name="c", program="gcc", run=_c, container="c", play=_in_c),
        )
    }
)
