"""Whether the ONNX graph of a whole model computes what Keras computes: `verify --whole`.

The model is written as ONNX, and for the Keras that runs it, into a temporary folder. Keras opens
nothing but what was written here: every class in it is one of Keras's own, and a config that would
make Keras run, import or fetch something is not opened.

How much two answers may differ is measured: Keras runs the same rows together and one by one, and
the difference says how much this model makes of rounding errors.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmconvert.checks.verification import (
    BATCH,
    VerifiedLayer,
    VerifyReport,
    check_engines,
    compared,
)
from lstmconvert.errors import (
    LSTMConvertError,
    UsageError,
    install,
)
from lstmconvert.files.jsontext import parse_object
from lstmconvert.keras.configs import code
from lstmconvert.live.keras import import_library
from lstmconvert.live.sources import imported
from lstmconvert.reference.maths import EPSILONS, FUNCTIONS, NOISE
from lstmconvert.tensors.dtypes import Array, dtype_of

if TYPE_CHECKING:
    import onnx

#: The Kerases that judge, by the eras of the files that each is asked about. Keras 3 is asked about
#: all: an older model is written for it first.
_JUDGES = {"keras": ("keras1", "keras2", "keras3"), "tf_keras": ("keras2",)}
#: Package -> the extra of this package that installs it.
_EXTRAS = {"keras": "keras", "onnxruntime": "onnxruntime", "openvino": "openvino"}
#: The engines that run the graph. OpenVINO only where it is asked for.
_RUNNERS = ("onnxruntime", "openvino")
ENGINES = (*_JUDGES, *_RUNNERS)
#: The lengths that axes of any length are given, in turn, until Keras takes one: convolutions and
#: pooling need a length.
_LENGTHS = (16, 64, 256)
#: Indices go up to the rows of the smallest table that an input picks from, and no further.
_INDICES = 10
#: Nodes that hand indices on to a Gather.
_HAND_ON = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
#: Numbers of TensorProto.DataType -> the names of the types that round more than float32.
_HALVES = {10: "float16", 16: "bfloat16"}

Answers = list[Array]


def verify(
    a: str | Path,
    *,
    engines: Sequence[str] = (),
    asked: tuple[float, float] | None = None,
    seed: int = 0,
) -> VerifyReport:
    """Run a whole model in Keras and, written as ONNX, in ONNX Runtime, and compare every output.

    Args:
        a: a file of a whole model.
        engines: names out of `ENGINES`, which must then be installed; by default Keras, tf_keras
            for a file of Keras 2, and ONNX Runtime, where they are installed.
        asked: rtol and atol, or None.
        seed: of the input.

    Raises:
        UsageError: an engine is unknown.
        MissingPackage: an engine that was named is not installed.
        UnsupportedByTarget: ONNX cannot say a layer, or the file is not a whole model.
    """
    from lstmconvert.api import convert, load

    chosen = _chosen(engines)
    path = Path(a)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "model.onnx")
        convert(path, graph, whole=True, warn=False)
        model = load(path)
        lines: list[VerifiedLayer] = []
        runners: dict[str, _Runner] = {}
        for name in _RUNNERS:
            if name in chosen:
                made = _Runner.of(name, graph)
                if isinstance(made, str):
                    lines.append(_skipped(name, made))
                else:
                    runners[name] = made
        era = model.source.era or "keras3"
        tops = dict(_tops(graph)) if runners else {}
        words = _words(graph) if runners else []
        for library in (name for name in chosen if name in _JUDGES):
            if not runners:
                lines.append(_skipped(library, "no engine ran the graph"))
                continue
            if era not in _JUDGES[library]:
                if library in engines:
                    lines.append(_skipped(library, f"it does not open files of {era}"))
                continue
            given = next(iter(runners.values())).inputs
            candidates = _inputs(given, tops, words, seed)
            judge = _judge(library, path, Path(folder), candidates)
            if isinstance(judge, str):
                lines.append(_skipped(library, judge))
                continue
            for name, runner in runners.items():
                lines += _lines(name, library, runner, judge, asked)
    return VerifyReport(a=path.name, b=None, seed=seed, lines=tuple(lines), whole=True)


def _chosen(names: Sequence[str]) -> list[str]:
    check_engines(
        names, ENGINES, "no engine for whole models", lambda name: find_spec(name) is not None,
        _needs, "leave --whole out to run layer by layer",
    )  # fmt: skip
    if names:
        return list(dict.fromkeys(names))
    return [name for name in ENGINES if name != "openvino" and find_spec(name) is not None]


def _needs(name: str) -> str:
    return install(_EXTRAS[name]) if name in _EXTRAS else f"pip install {name}"


def _skipped(engine: str, why: str) -> VerifiedLayer:
    return VerifiedLayer(layer="the whole model", file="a", engine=engine, skipped=why)


# ---- the graph -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Input:
    """One input of the graph: its name, NumPy's name of its type, its axes, None where any."""

    name: str
    dtype: str
    axes: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class _Runner:
    """A graph in an engine: its inputs, the names of its outputs, and what runs it."""

    inputs: Sequence[_Input]
    outputs: Sequence[str]
    run: Callable[[Sequence[Array]], Answers]
    dtype: str

    @classmethod
    def of(cls, engine: str, path: Path) -> _Runner | str:
        """Return a graph in an engine, or why the engine does not take it."""
        import onnx

        proto = onnx.load(str(path), load_external_data=False)
        given = {weight.name for weight in proto.graph.initializer}
        inputs = [_input(value) for value in proto.graph.input if value.name not in given]
        outputs = [value.name for value in proto.graph.output]
        run = _in_onnxruntime if engine == "onnxruntime" else _in_openvino
        try:
            return cls(inputs, outputs, run(path, [value.name for value in inputs]), _dtype(proto))
        except Exception as error:  # each engine has errors of its own
            return _short(f"it does not take the graph: {error}")


def _input(value: onnx.ValueInfoProto) -> _Input:
    from lstmconvert.onnx.messages import NAMES

    kind = value.type.tensor_type
    axes = [axis.dim_value or None for axis in kind.shape.dim]
    return _Input(value.name, NAMES.get(kind.elem_type, "string"), axes)


def _dtype(proto: onnx.ModelProto) -> str:
    """Return the dtype of the coarsest numbers that the graph computes with."""
    kinds = {weight.data_type for weight in proto.graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in proto.graph.input}
    for node in proto.graph.node:
        kinds |= {a.i for a in node.attribute if a.name == "to"}
    halves = [_HALVES[kind] for kind in kinds if kind in _HALVES]
    return max(halves, key=EPSILONS.__getitem__) if halves else ""


def _in_onnxruntime(path: Path, names: Sequence[str]) -> Callable[[Sequence[Array]], Answers]:
    runtime = imported("onnxruntime", _needs("onnxruntime"))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(arrays: Sequence[Array]) -> Answers:
        return [np.asarray(y) for y in session.run(None, dict(zip(names, arrays, strict=True)))]

    return run


def _in_openvino(path: Path, names: Sequence[str]) -> Callable[[Sequence[Array]], Answers]:
    openvino = imported("openvino", _needs("openvino"))
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)

    def run(arrays: Sequence[Array]) -> Answers:
        results = compiled(dict(zip(names, arrays, strict=True)))
        return [np.asarray(results[index]) for index in range(len(compiled.outputs))]

    return run


# ---- the input -----------------------------------------------------------------------------------


def _inputs(
    inputs: Sequence[_Input], tops: Mapping[str, int], words: Sequence[str], seed: int
) -> Iterator[list[Array]]:
    """Yield a random input for each length, the shortest first."""
    for length in _LENGTHS:
        rng = np.random.default_rng(seed)
        yield [
            _texts(rng, _shape(value, length), words)
            if value.dtype == "string"
            else _random(rng, value, length, tops.get(value.name))
            for value in inputs
        ]


def _shape(value: _Input, length: int) -> list[int]:
    return [size or (length if place else BATCH) for place, size in enumerate(value.axes)]


def _texts(rng: np.random.Generator, shape: Sequence[int], words: Sequence[str]) -> Array:
    """Return texts of one word or some, of those that the graph knows and of others."""
    every = [*words, "Ünknown!"]
    made = [
        " ".join(every[index] for index in rng.integers(0, len(every), count))
        for count in rng.integers(1, 4, int(np.prod(shape)))
    ]
    return np.asarray(made, object).reshape(shape)


def _words(path: Path) -> list[str]:
    """Return the texts that a graph has places for; none without a word: Keras runs no LSTM over no
    steps."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    listed = (a.strings for node in nodes for a in node.attribute if a.name == "keys_strings")
    return sorted({text.decode() for texts in listed for text in texts} - {""})


def _random(rng: np.random.Generator, value: _Input, length: int, top: int | None) -> Array:
    shape = _shape(value, length)
    if value.dtype == "bool":
        return rng.random(shape) < 0.5
    dtype = dtype_of(value.dtype)
    if top is not None or dtype.kind in "iu":
        return rng.integers(0, min(top or _INDICES, _INDICES), shape).astype(dtype)
    # Numbers that every dtype has, so that no engine sees another input.
    return rng.normal(size=shape).astype(dtype_of("bfloat16")).astype(dtype)


def _tops(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the inputs that pick rows of a table, with the number of its rows."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    rows = {weight.name: weight.dims[0] for weight in graph.initializer if weight.dims}
    origins = {value.name: value.name for value in graph.input}
    least: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in _HAND_ON and node.input[0] in origins:
            origins.update((name, origins[node.input[0]]) for name in node.output)
        elif node.op_type == "Gather" and node.input[1] in origins and node.input[0] in rows:
            name = origins[node.input[1]]
            least[name] = min(rows[node.input[0]], least.get(name, _INDICES))
    yield from least.items()


# ---- Keras ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judge:
    """What a Keras answers to an input, and for each output how far apart the same rows were, alone
    and together."""

    inputs: Sequence[Array]
    answers: Answers
    noises: Sequence[float]


def _judge(
    library: str, source: Path, folder: Path, candidates: Iterator[list[Array]]
) -> _Judge | str:
    """Return what a Keras computes of the first input that it takes, or why it was not asked."""
    try:
        model = _opened(library, source, folder)
    except LSTMConvertError as error:
        return error.message
    if isinstance(model, str):
        return model
    why = ""
    for inputs in candidates:
        try:
            answers = _called(model, inputs)
            return _Judge(inputs, answers, _noises(model, inputs, answers))
        except Exception as error:  # whatever Keras and its backend raise
            why = _short(f"it does not run the model: {error}")
    return why


def _opened(library: str, source: Path, folder: Path) -> Any:
    """Return the model in a Keras, out of a file that is written here; or why there is none.

    Raises:
        LSTMConvertError: the model cannot be written for that Keras.
    """
    from lstmconvert.api import convert, load
    from lstmconvert.containers import table

    row = table.container(load(source).container)
    era = "keras3" if library == "keras" else "keras2"
    # Keras 2's files are written where one of them is the source.
    stays = era == "keras2" and row is not None and row.is_keras
    suffix = row.suffixes[0] if row is not None and stays else ".keras"
    path = folder / f"{library}{suffix}"
    result = convert(source, path, era=era, warn=False)
    if not result.whole_model:
        return "the whole model could not be written for it"
    config = load(path).texts["model_config"]
    findings = code.findings(parse_object(config, path))
    if findings:
        name, what = findings[0]
        return f"not opened, since of {name} Keras {what}"
    models = import_library(library).models
    # A legacy .h5 has no safe mode: what it would guard against is what was looked for above.
    safe = {"safe_mode": True} if suffix == ".keras" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return models.load_model(str(path), compile=False, **safe)
    except Exception as error:  # whatever Keras raises
        return _short(f"it does not open what was written for it: {error}")


def _called(model: Any, inputs: Sequence[Any]) -> Answers:
    if any(array.dtype.kind == "O" for array in inputs):  # texts, which Keras takes as tensors
        tensorflow = imported("tensorflow", _needs("tensorflow"))
        inputs = [tensorflow.constant(array) for array in inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old model lists its single input, and is given it
        answer = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(value) for value in _flat(answer)]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _flat(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _noises(model: Any, inputs: Sequence[Array], answers: Answers) -> list[float]:
    """Return how much each output changes when the rows of the batch are given one by one."""
    nothing = [0.0] * len(answers)
    free = all(tensor.shape[0] is None for tensor in model.inputs)
    if not free or any(array.shape[0] != BATCH for array in (*inputs, *answers)):
        return nothing
    rows = [_called(model, [array[i : i + 1] for array in inputs]) for i in range(BATCH)]
    result = []
    for index, together in enumerate(answers):
        row_by_row = np.concatenate([row[index] for row in rows])
        if row_by_row.shape != together.shape or together.dtype.kind not in "fV":
            return nothing
        with np.errstate(all="ignore"):
            distance = np.abs(row_by_row.astype(np.float64) - together.astype(np.float64))
        result.append(float(distance[np.isfinite(distance)].max(initial=0.0)))
    return result


def answered(library: str, source: Path, x: Array) -> Array | str:
    """Return what a Keras gives for one input of the whole model in a file, or why it was not
    asked."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = _opened(library, source, Path(folder))
        except LSTMConvertError as error:
            return error.message
        if isinstance(model, str):
            return model
        try:
            (given,) = model.inputs
            rows = x.repeat(given.shape[0] or 1, axis=0)  # some take one size of a batch alone
            (answer,) = _called(model, [rows.astype(dtype_of(str(given.dtype)))])
        except Exception as error:  # whatever Keras and its backend raise
            return _short(f"it does not run the model: {error}")
        return answer[:1]


# ---- comparing -----------------------------------------------------------------------------------


def _lines(
    engine: str,
    library: str,
    runner: _Runner,
    judge: _Judge,
    asked: tuple[float, float] | None,
) -> list[VerifiedLayer]:
    """Compare an engine's answer with a Keras's, output by output."""
    try:
        answers = runner.run(judge.inputs)
    except Exception as error:  # each engine has errors of its own
        return [_skipped(engine, _short(f"it does not run the graph: {error}"))]
    if len(answers) < len(judge.answers):
        raise UsageError(
            "the graph has fewer outputs than the model",
            found=len(answers),
            expected=len(judge.answers),
        )
    lines = []
    # Behind the model's outputs come the final states of stateful layers, which Keras keeps.
    for name, answer, wanted, noise in zip(
        runner.outputs, answers, judge.answers, judge.noises, strict=False
    ):
        line = VerifiedLayer(layer=name, file="a", engine=engine, against=library, output=name)
        if answer.shape != wanted.shape:
            raise UsageError(
                "the graph's output has another shape than Keras's",
                where=name,
                found=answer.shape,
                expected=wanted.shape,
            )
        bound = _bound(runner, wanted, noise)
        lines.append(compared(line, answer, wanted.astype(np.float64), bound, asked))
    return lines


def _bound(runner: _Runner, wanted: Array, noise: float) -> Array:
    wide = wanted.astype(np.float64)
    if wanted.dtype.name not in EPSILONS:
        return np.zeros(wide.shape)
    epsilon = EPSILONS[runner.dtype or wanted.dtype.name]
    scale = float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))
    return np.full(wide.shape, NOISE * noise + FUNCTIONS * epsilon * scale)


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
