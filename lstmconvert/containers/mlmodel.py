"""The LSTMs of a Core ML `.mlmodel`, a protocol buffer: a layer's gates lie one by one in it.

A layer keeps its weights as `inputGateWeightMatrix` and so on, its functions, its clip and the way
it reads (coremltools/mlmodel/format/NeuralNetwork.proto, UniDirectionalLSTMLayerParams and
BiDirectionalLSTMLayerParams). Networks inside pipelines are read too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lstmconvert import limits, metadata
from lstmconvert.activations import HARD_SIGMOID_KERAS2, LINEAR, SIGMOID, TANH, Activation
from lstmconvert.containers import coremlspec
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.jsontext import canonical, parse_object
from lstmconvert.layer import LSTMLayer
from lstmconvert.onnx.functions import exact
from lstmconvert.tensors import ArrayTensor, Shape, SourceFile, Tensor

#: What the one layer of a file is called whose arrays have no name before theirs.
ALONE = "_"
#: What stands for no clip: coremltools writes it so (models/neural_network/builder.py,
#: add_unilstm). No clip at all cannot be said: a threshold of 0, or none, means 50.
NO_CLIP, UNSAID_CLIP = 50000.0, 50.0
#: Their functions for recurrent layers -> ours. The messages are empty: the hard sigmoid there is
#: that of 0.2 and 0.5 alone (NeuralNetwork.proto, UniDirectionalLSTMLayerParams; builder.py,
#: _set_recurrent_activation).
FUNCTIONS: Mapping[str, Activation] = {
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "ReLU": Activation("relu"),
    "sigmoidHard": HARD_SIGMOID_KERAS2,
    "linear": LINEAR,
}
_IDENTITY = {"alpha": 1.0, "beta": 0.0}
#: Two ways to keep numbers, and the dtypes that they are read as.
DTYPES = {"floatValue": "<f4", "float16Value": "<f2"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a layer says beside its weights.

    Fields: `functions`: of each direction those of the gates, the cell gate and the output;
    `cell_clip`, `forget_bias`, `return_sequences`; `go_backwards`: of a lone direction.
    """

    functions: tuple[tuple[Activation, Activation, Activation], ...]
    cell_clip: float | None
    forget_bias: float
    return_sequences: bool
    go_backwards: bool


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the arrays of a file's LSTMs, and our metadata.

    Raises:
        CorruptFile, LimitExceeded: it is no such protocol buffer, or contradicts itself.
        SourceError: it is an ML program, has no LSTM layer, or its weights are quantized.
    """
    tensors, texts, _ = opened(source)
    return tensors, texts


def opened(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Facts]]:
    """Return what `read` does, and what each layer says, by its path."""
    from google.protobuf.message import DecodeError

    limits.COREML_BYTES.check(source.size, source.path, "its size")
    data = bytes(source.read_at(0, source.size))
    try:
        coremlspec.check_messages(data, source.path)
        model = coremlspec.message("Model").FromString(data)
    except (DecodeError, CorruptFile):
        raise CorruptFile("not a model of Core ML, or damaged", where=source.path) from None
    found: dict[str, Tensor] = {}
    facts: dict[str, Facts] = {}
    for layer in _layers(model):
        prefix = "" if layer.name == ALONE else f"{layer.name or 'lstm'}."
        arrays, said = _lstm(layer, f"{source.path}: {layer.name}")
        if any(prefix + key in found for key in arrays):
            raise CorruptFile("two layers of one name", where=source.path, found=layer.name)
        found |= {prefix + key: tensor for key, tensor in arrays.items()}
        facts[prefix.rstrip(".").replace(".", "/") or "lstm"] = said
    if not found:
        raise _nothing(model, source)
    return found, _texts(model, source), facts


def _nothing(model: Any, source: SourceFile) -> SourceError:
    if model.HasField("mlProgram"):
        return SourceError(
            "an ML program, whose weights lie elsewhere in its package",
            where=source.path,
            expected="a neural network",
            hint="convert the model that it was made of; coremltools makes a neural network with "
            "convert_to='neuralnetwork'",
        )
    return SourceError(
        "no layer of it is an LSTM", where=source.path, expected="a neural network with LSTM layers"
    )


def _layers(model: Any) -> Iterator[Any]:
    for kind in ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor"):
        for layer in getattr(model, kind).layers:
            if layer.HasField("uniDirectionalLSTM") or layer.HasField("biDirectionalLSTM"):
                yield layer
    for pipeline in (model.pipeline, model.pipelineClassifier.pipeline,
                     model.pipelineRegressor.pipeline):  # fmt: skip
        for inner in pipeline.models:
            yield from _layers(inner)


def _lstm(layer: Any, where: str) -> tuple[dict[str, Tensor], Facts]:
    both = layer.HasField("biDirectionalLSTM")
    lstm = layer.biDirectionalLSTM if both else layer.uniDirectionalLSTM
    weights = list(lstm.weightParams) if both else [lstm.weightParams]
    lists = [lstm.activationsForwardLSTM, lstm.activationsBackwardLSTM] if both else [
        lstm.activations
    ]
    if len(weights) != len(lists):
        raise CorruptFile("two directions have two of weightParams", where=where)
    params = lstm.params
    if params.coupledInputAndForgetGate:
        raise SourceError("an LSTM whose input and forget gate are coupled", where=where)
    found: dict[str, Tensor] = {}
    for side, half in zip(("forward.", "backward.") if both else ("",), weights, strict=True):
        arrays = _arrays(half, lstm.inputVectorSize, lstm.outputVectorSize, where)
        found |= {side + key: tensor for key, tensor in arrays if _is_meant(key, params)}
    clip = params.cellClipThreshold or UNSAID_CLIP
    if not clip > 0:
        raise CorruptFile("cellClipThreshold is no bound", where=where, found=clip)
    return found, Facts(
        functions=tuple(_functions(items, where) for items in lists),
        cell_clip=None if clip >= NO_CLIP else exact(clip),
        forget_bias=1.0 if params.forgetBias else 0.0,
        return_sequences=params.sequenceOutput,
        go_backwards=not both and lstm.reverseInput,
    )


def _is_meant(key: str, params: Any) -> bool:
    if key.endswith("BiasVector"):
        return bool(params.hasBiasVectors)
    return bool(params.hasPeepholeVectors) or not key.endswith("PeepholeVector")


def _arrays(weights: Any, inputs: int, units: int, where: str) -> Iterator[tuple[str, Tensor]]:
    limits.UNITS.check(units, where, "the number of units")
    for field, value in weights.ListFields():
        shape: Shape = (units,)
        if field.name.endswith("Matrix"):
            shape = (units, inputs if field.name.endswith("WeightMatrix") else units)
        yield field.name, _tensor(value, shape, f"{where}: {field.name}")


def _tensor(value: Any, shape: Shape, where: str) -> Tensor:
    stored = [(getattr(value, key), dtype) for key, dtype in DTYPES.items() if getattr(value, key)]
    if value.rawValue or value.int8RawValue:
        raise SourceError(
            "quantized weights, which are not read",
            where=where,
            expected="float32 or float16",
            hint="convert the model again without quantization",
        )
    raw, dtype = stored[0] if stored else (b"", "<f4")
    if len(raw) != math.prod(shape) * np.dtype(dtype).itemsize or not raw:
        raise CorruptFile(
            "its numbers have not its shape",
            where=where,
            found=f"{len(raw)} bytes",
            expected=f"{shape} of {np.dtype(dtype).name}",
        )
    return ArrayTensor(np.frombuffer(raw, dtype).reshape(shape))


def _functions(items: Any, where: str) -> tuple[Activation, Activation, Activation]:
    found = [_meant(item) for item in items]
    match found:
        case [Activation() as gates, Activation() as cell, Activation() as output]:
            return gates, cell, output
    raise CorruptFile(
        "an LSTM has three functions of those that Core ML allows one",
        where=where,
        found=", ".join(field.name for item in items for field, _ in item.ListFields()),
        expected=", ".join(FUNCTIONS),
    )


def _meant(item: Any) -> Activation | None:
    fields = item.ListFields()
    found = FUNCTIONS.get(fields[0][0].name) if len(fields) == 1 else None
    if found is None:
        return None
    # Constants need not be said, and if they are, they are the only ones.
    said = {field.name: exact(number) for field, number in fields[0][1].ListFields()}
    wanted = {**_IDENTITY, **found.constants}
    return found if all(number == wanted[key] for key, number in said.items()) else None


def _texts(model: Any, source: SourceFile) -> dict[str, str]:
    for entry in model.description.metadata.userDefined:
        if entry.key == metadata.KEY:
            limits.JSON_BYTES.check(len(entry.value), source.path, "the JSON text")
            value = parse_object(entry.value.encode(), f"{source.path}: {metadata.KEY}")
            return {metadata.KEY: canonical(value)}
    return {}


def completed(layer: LSTMLayer, facts: Mapping[str, Facts]) -> LSTMLayer:
    """Return a layer with what the file says of it beside its weights."""
    said = facts[layer.path]
    halves = {}
    for (side, direction), (gates, cell, output) in zip(
        layer.directions, said.functions, strict=True
    ):
        options: dict[str, Any] = {
            "activation": cell,
            "recurrent_activation": gates,
            "output_activation": None if output == cell else output,
            "cell_clip": said.cell_clip,
            "forget_bias": said.forget_bias,
        }
        cells = tuple(
            replace(one, options=replace(one.options, **options))
            for one in direction.lstm_cells
        )
        run = replace(
            direction.options,
            return_sequences=said.return_sequences,
            go_backwards=side == "backward" or said.go_backwards,
        )
        halves[side] = replace(direction, cells=cells, options=run)
    return replace(layer, forward=halves["forward"], backward=halves.get("backward"))
