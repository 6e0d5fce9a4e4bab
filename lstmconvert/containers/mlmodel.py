"""The LSTMs of a Core ML `.mlmodel`, a protocol buffer that holds each gate of a layer separately.

A layer keeps its weights as `inputGateWeightMatrix` and so on, its functions, its clip and the way
it reads (coremltools/mlmodel/format/NeuralNetwork.proto, UniDirectionalLSTMLayerParams and
BiDirectionalLSTMLayerParams). Networks inside pipelines are read too.

The part of the specification that an LSTM takes is here, as a table of messages. Names and numbers
are those of coremltools/mlmodel/format (Model.proto, FeatureTypes.proto, NeuralNetwork.proto).
Fields that are not here are not read. Lists of float32 are declared as the bytes that they are in a
file, so that no number passes through another type.

We write each layer as one LSTM of a neural network, with an input and an output. Around it are
the layers that coremltools puts there when it converts one of its programs
(converters/mil/backend/nn/op_mapping.py, `lstm`), as the LSTM takes (time, batch, inputs, 1, 1).
Input `<layer>_x` is (1, time, inputs); output `<layer>_y` is (1, time, width), or (1, width) of a
layer that gives its last output alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.cheader import identifier
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.errors import (
    CorruptFile,
    SourceError,
    UnsupportedByTarget,
    UsageError,
)
from lstmconvert.files.jsontext import canonical, parse_object
from lstmconvert.files.wire import Schema, Stretch, length_of
from lstmconvert.model import edit, settings
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.layer import Cell, Direction, LSTMLayer
from lstmconvert.onnx.functions import exact
from lstmconvert.pergate import metadata
from lstmconvert.tensors.streaming import pour_into
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

#: A message as a dictionary: see `Schema`.
Values = dict[str, Any]

#: The name of a file's one layer, where no name stands before those of its arrays.
ALONE = "_"
#: The threshold that means no clip, as coremltools writes it (models/neural_network/builder.py,
#: add_unilstm). The format has no way to state it: a threshold of 0, or none, means 50.
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
    """What a layer states in addition to its weights.

    Fields: `functions`: of each direction those of the gates, the cell gate and the output;
    `cell_clip`, `forget_bias`, `return_sequences`; `go_backwards`: of a lone direction.
    """

    functions: tuple[tuple[Activation, Activation, Activation], ...]
    cell_clip: float | None
    forget_bias: float
    return_sequences: bool
    go_backwards: bool


def read(file: Opened) -> Arrays:
    """Read the arrays of a file's LSTMs, what else each layer states, and our metadata.

    Raises:
        CorruptFile, LimitExceeded: it is not such a protocol buffer, or contradicts itself.
        SourceError: it is an ML program, has no LSTM layer, or its weights are quantized.
    """
    source = file.source
    limits.COREML_BYTES.check(source.size, source.path, "its size")
    try:
        data = Stretch(source, 0, source.size)
        model = SCHEMA.decode("Model", data, source.path, limits.COREML_MESSAGES)
    except CorruptFile:
        raise CorruptFile("not a model of Core ML, or damaged", where=source.path) from None
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Facts] = {}
    notes: list[str] = []
    for layer, network in _layers(model):
        name = layer.get("name", "")
        prefix = "" if name == ALONE else f"{name or 'lstm'}."
        arrays, stated = _lstm(layer, f"{source.path}: {name}")
        if any(prefix + key in tensors for key in arrays):
            raise CorruptFile("two layers of one name", where=source.path, found=name)
        tensors |= {prefix + key: tensor for key, tensor in arrays.items()}
        facts[prefix.rstrip(".").replace(".", "/") or "lstm"] = stated
        note = network.states(layer)
        if note:
            notes.append(f"{name}: {note}")
    if not tensors:
        raise _nothing(model, source)
    texts = texts_of(model, source)
    return Arrays(
        tensors, texts, completed=lambda layer: completed(layer, facts), notes=tuple(notes)
    )


def _nothing(model: Values, source: SourceFile) -> SourceError:
    if "mlProgram" in model:
        return SourceError(
            "an ML program, whose weights are elsewhere in its package",
            where=source.path,
            expected="a neural network",
            hint="give the package: the folder .mlpackage that holds Manifest.json",
        )
    return SourceError(
        "no layer of it is an LSTM", where=source.path, expected="a neural network with LSTM layers"
    )


def _layers(model: Values) -> Iterator[tuple[Values, _Network]]:
    for kind in ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor"):
        network = _Network(model, model.get(kind, {}).get("layers", ()))
        for layer in network.layers:
            if "uniDirectionalLSTM" in layer or "biDirectionalLSTM" in layer:
                yield layer, network
    enclosed = (model.get(kind, {}) for kind in ("pipelineClassifier", "pipelineRegressor"))
    for pipeline in (model.get("pipeline", {}), *(each.get("pipeline", {}) for each in enclosed)):
        for inner in pipeline.get("models", ()):
            yield from _layers(inner)


#: Layers that give numbers of their input, in another shape or in parts.
_SHAPING = frozenset({"squeeze", "expandDims", "transpose", "splitND"})
_CONSTANTS = ("loadConstantND", "loadConstant")


class _Network:
    """The layers of a network, and where each gets its input from."""

    def __init__(self, model: Values, layers: Sequence[Values]) -> None:
        self.layers = layers
        self._makers = {name: layer for layer in layers for name in layer.get("output", ())}
        features = model.get("description", {}).get("input", ())
        self._optional = {
            item.get("name", "") for item in features if item.get("type", {}).get("isOptional")
        }

    def states(self, layer: Values) -> str | None:
        """Return what to pass for the initial states of an LSTM, unless they are zero."""
        kinds = ("initial_h", "initial_c", "initial_h of the way back", "initial_c of the way back")
        origins = [
            (kind, origin)
            for kind, name in zip(kinds, layer.get("input", ())[1:], strict=False)
            if (origin := self._origin(name)) is not None
        ]
        both = "biDirectionalLSTM" in layer
        lstm = layer["biDirectionalLSTM" if both else "uniDirectionalLSTM"]
        units = lstm.get("outputVectorSize", 0)
        return settings.states_to_pass(origins, units, 2 if both else 1) if origins else None

    def _origin(self, name: str) -> str | None:
        """Return where a state comes from, in words; None if it is zero."""
        maker = self._makers.get(name)
        for _ in self.layers:
            if maker is None or _SHAPING.isdisjoint(maker):
                break
            name = next(iter(maker.get("input", ())), "")
            maker = self._makers.get(name)
        if maker is None:  # Core ML takes zeros for an optional input that is not given
            return None if name in self._optional else f"the input {name}"
        for kind in _CONSTANTS:
            if kind in maker:
                data = maker[kind].get("data", {})
                numbers = [np.frombuffer(data[k], d) for k, d in DTYPES.items() if k in data]
                is_zero = all(not array.any() for array in numbers) and "rawValue" not in data
                return None if is_zero else "a constant of the network"
        return f"what {maker.get('name', '')} computes"


def _lstm(layer: Values, where: str) -> tuple[dict[str, Tensor], Facts]:
    both = "biDirectionalLSTM" in layer
    lstm = layer["biDirectionalLSTM" if both else "uniDirectionalLSTM"]
    weights = lstm.get("weightParams", ()) if both else [lstm.get("weightParams", {})]
    lists = [lstm.get(key, ()) for key in (_LISTS.values() if both else ("activations",))]
    if len(weights) != len(lists):
        raise CorruptFile("two directions have two of weightParams", where=where)
    params = lstm.get("params", {})
    if params.get("coupledInputAndForgetGate"):
        raise SourceError("an LSTM whose input and forget gate are coupled", where=where)
    sizes = lstm.get("inputVectorSize", 0), lstm.get("outputVectorSize", 0)
    tensors: dict[str, Tensor] = {}
    for side, half in zip(("forward.", "backward.") if both else ("",), weights, strict=True):
        arrays = _arrays(half, *sizes, where)
        tensors |= {side + key: tensor for key, tensor in arrays if _is_meant(key, params)}
    clip = params.get("cellClipThreshold", UNSAID_CLIP)
    if not clip > 0:
        raise CorruptFile("cellClipThreshold is not a bound", where=where, found=clip)
    return tensors, Facts(
        functions=tuple(_functions(items, where) for items in lists),
        cell_clip=None if clip >= NO_CLIP else exact(clip),
        forget_bias=1.0 if params.get("forgetBias") else 0.0,
        return_sequences=params.get("sequenceOutput", False),
        go_backwards=not both and lstm.get("reverseInput", False),
    )


def _is_meant(key: str, params: Values) -> bool:
    if key.endswith("BiasVector"):
        return "hasBiasVectors" in params
    return "hasPeepholeVectors" in params or not key.endswith("PeepholeVector")


def _arrays(weights: Values, inputs: int, units: int, where: str) -> Iterator[tuple[str, Tensor]]:
    limits.UNITS.check(units, where, "the number of units")
    for name in SCHEMA.names("LSTMWeightParams"):
        if name not in weights:
            continue
        shape: Shape = (units,)
        if name.endswith("Matrix"):
            shape = (units, inputs if name.endswith("WeightMatrix") else units)
        yield name, _tensor(weights[name], shape, f"{where}: {name}")


def _tensor(value: Values, shape: Shape, where: str) -> Tensor:
    stored = [(value[key], dtype) for key, dtype in DTYPES.items() if key in value]
    if "rawValue" in value or "int8RawValue" in value:
        raise SourceError(
            "quantized weights, which are not read",
            where=where,
            expected="float32 or float16",
            hint="convert the model again without quantization",
        )
    raw, dtype = stored[0] if stored else (b"", "<f4")
    if len(raw) != math.prod(shape) * np.dtype(dtype).itemsize or not raw:
        raise misfit(where, len(raw), shape, dtype)
    if isinstance(raw, Stretch):
        return FileTensor(raw.source, raw.offset, shape, np.dtype(dtype))
    return ArrayTensor(np.frombuffer(raw, dtype).reshape(shape))


def misfit(where: str, size: int, shape: Shape, dtype: str) -> CorruptFile:
    """Return the error of numbers that take `size` bytes where a shape and a dtype take others."""
    return CorruptFile(
        "its numbers do not have its shape",
        where=where,
        found=f"{size} bytes",
        expected=f"{shape} of {np.dtype(dtype).name}",
    )


def _functions(items: Sequence[Values], where: str) -> tuple[Activation, Activation, Activation]:
    functions = [_function_of(item) for item in items]
    match functions:
        case [Activation() as gates, Activation() as cell, Activation() as output]:
            return gates, cell, output
    raise CorruptFile(
        "an LSTM has three functions of those that Core ML allows one",
        where=where,
        found=", ".join(name for item in items for name in item),
        expected=", ".join(FUNCTIONS),
    )


def _function_of(item: Values) -> Activation | None:
    (name, stated), *others = item.items() or [("", {})]
    function = None if others else FUNCTIONS.get(name)
    if function is None:
        return None
    # A file may leave constants out. The function has no others.
    wanted = {**_IDENTITY, **function.constants}
    return function if all(exact(stated[key]) == wanted[key] for key in stated) else None


def texts_of(model: Values, source: SourceFile) -> dict[str, str]:
    """Return our metadata in a model's description."""
    for entry in model.get("description", {}).get("metadata", {}).get("userDefined", ()):
        if entry.get("key") == metadata.KEY:
            text = entry.get("value", "")
            limits.JSON_BYTES.check(len(text), source.path, "the JSON text")
            value = parse_object(text.encode(), f"{source.path}: {metadata.KEY}")
            return {metadata.KEY: canonical(value)}
    return {}


def completed(layer: LSTMLayer, facts: Mapping[str, Facts]) -> LSTMLayer:
    """Return a layer with what the file states about it in addition to its weights."""
    stated = facts[layer.path]
    functions = dict(zip(("forward", "backward"), stated.functions, strict=False))

    def run(side: str, direction: Direction) -> Direction:
        options = replace(
            direction.options,
            return_sequences=stated.return_sequences,
            go_backwards=side == "backward" or stated.go_backwards,
        )
        return replace(direction, options=options)

    def computed(side: str, _: int, cell: Cell) -> Cell:
        gates, activation, output = functions[side]
        options = replace(
            cell.options,
            activation=activation,
            recurrent_activation=gates,
            output_activation=None if output == activation else output,
            cell_clip=stated.cell_clip,
            forget_bias=stated.forget_bias,
        )
        return replace(cell, options=options)

    return edit.map_cells(edit.map_directions(layer, run), computed)


#: The messages that are read and written (Model.proto, NeuralNetwork.proto, FeatureTypes.proto).
MESSAGES: Mapping[str, Mapping[str, str]] = {
    "Model": {
        "specificationVersion": "1 int32",
        "description": "2 ModelDescription",
        "pipelineClassifier": "200 PipelineOf",
        "pipelineRegressor": "201 PipelineOf",
        "pipeline": "202 Pipeline",
        "neuralNetworkRegressor": "303 NeuralNetwork",
        "neuralNetworkClassifier": "403 NeuralNetwork",
        "neuralNetwork": "500 NeuralNetwork",
        "mlProgram": "502 Empty",
        "serializedModel": "3000 Empty",
    },
    "PipelineOf": {"pipeline": "1 Pipeline"},
    "Pipeline": {"models": "1* Model"},
    "ModelDescription": {
        "input": "1* FeatureDescription",
        "output": "10* FeatureDescription",
        "metadata": "100 Metadata",
    },
    "Metadata": {"shortDescription": "1 string", "userDefined": "100* UserDefined"},
    "UserDefined": {"key": "1 string", "value": "2 string"},
    "FeatureDescription": {"name": "1 string", "type": "3 FeatureType"},
    "FeatureType": {"multiArrayType": "5 ArrayFeatureType", "isOptional": "1000 bool"},
    "ArrayFeatureType": {"shape": "1* int64", "dataType": "2 int32", "shapeRange": "31 ShapeRange"},
    "ShapeRange": {"sizeRanges": "1* SizeRange"},
    "SizeRange": {"lowerBound": "1 uint64", "upperBound": "2 int64"},
    "NeuralNetwork": {"layers": "1* Layer", "arrayInputShapeMapping": "5 int32"},
    "Layer": {
        "name": "1 string",
        "input": "2* string",
        "output": "3* string",
        "loadConstant": "290 LoadConstantND",
        "uniDirectionalLSTM": "420 UniDirectionalLSTM",
        "biDirectionalLSTM": "430 BiDirectionalLSTM",
        "splitND": "975 Empty",
        "transpose": "985 Axes",
        "loadConstantND": "1070 LoadConstantND",
        "squeeze": "1120 SignedAxes",
        "expandDims": "1125 SignedAxes",
    },
    "Axes": {"axes": "1* uint64"},
    "SignedAxes": {"axes": "1* int64"},
    "LoadConstantND": {"shape": "1* uint64", "data": "2 WeightParams"},
    "UniDirectionalLSTM": {
        "inputVectorSize": "1 uint64",
        "outputVectorSize": "2 uint64",
        "activations": "10* ActivationParams",
        "params": "15 LSTMParams",
        "weightParams": "20 LSTMWeightParams",
        "reverseInput": "100 bool",
    },
    "BiDirectionalLSTM": {
        "inputVectorSize": "1 uint64",
        "outputVectorSize": "2 uint64",
        "activationsForwardLSTM": "10* ActivationParams",
        "activationsBackwardLSTM": "11* ActivationParams",
        "params": "15 LSTMParams",
        "weightParams": "20* LSTMWeightParams",
    },
    "LSTMParams": {
        "sequenceOutput": "10 bool",
        "hasBiasVectors": "20 bool",
        "forgetBias": "30 bool",
        "hasPeepholeVectors": "40 bool",
        "coupledInputAndForgetGate": "50 bool",
        "cellClipThreshold": "60 float",
    },
    "LSTMWeightParams": {
        f"{gate}{part}": f"{start + number} WeightParams"
        for part, start in (
            ("WeightMatrix", 1),
            ("RecursionMatrix", 20),
            ("BiasVector", 40),
            ("PeepholeVector", 60),
        )
        for number, gate in enumerate(
            ("inputGate", "forgetGate", "outputGate")
            if part == "PeepholeVector"
            else ("inputGate", "forgetGate", "blockInput", "outputGate")
        )
    },
    "WeightParams": {
        "floatValue": "1 bytes",
        "float16Value": "2 bytes",
        "rawValue": "30 bytes",
        "int8RawValue": "31 bytes",
    },
    "ActivationParams": {
        "linear": "5 Slope",
        "ReLU": "10 Empty",
        "tanh": "30 Empty",
        "scaledTanh": "31 Slope",
        "sigmoid": "40 Empty",
        "sigmoidHard": "41 Slope",
    },
    "Slope": {"alpha": "1 float", "beta": "2 float"},
    "Empty": {},
}


SCHEMA = Schema(MESSAGES)

#: The first version with arrays of any number of axes (Model.proto: iOS 13, macOS 10.15).
_VERSION = 4
_FLOAT32, _EXACT_ARRAY_MAPPING = 65568, 1
_STORED = {np.dtype(dtype).name: field for field, dtype in DTYPES.items()}
_FUNCTIONS = {ours: theirs for theirs, ours in FUNCTIONS.items()}
_LISTS = {"forward": "activationsForwardLSTM", "backward": "activationsBackwardLSTM"}
_OPTIONS = ("recurrent_activation", "activation", "output_activation")


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        UnsupportedByTarget: the halves differ in an option that Core ML has once.
        UsageError: two layers would have one name.
    """
    size = sum(tensor.nbytes for tensor in content.tensors.values())
    limits.COREML_BYTES.check(size, path, "the weights together")
    nodes: list[Values] = []
    features: dict[str, list[Values]] = {"input": [], "output": []}
    for prefix, layer in content.layers:
        _Writer(nodes, features, layer, prefix, content.tensors).write()

    def pieces(*, is_known: bool) -> Iterator[tuple[int, bytes | Tensor]]:
        """Yield the pieces of the file with what of our metadata is known, and where each goes."""
        described = description(content.metadata(is_known=is_known)[metadata.KEY])
        model = {
            "specificationVersion": _VERSION,
            "description": {**features, "metadata": described},
            "neuralNetwork": {"layers": nodes, "arrayInputShapeMapping": _EXACT_ARRAY_MAPPING},
        }
        at = 0
        for piece in SCHEMA.encode("Model", model):
            yield at, piece
            at += length_of(piece)

    with open(path, "wb") as file:
        # By its name, an array is compared by its checksum when it is read back.
        names = {id(tensor): name for name, tensor in content.tensors.items()}
        placed = [(at, piece) for at, piece in pieces(is_known=False) if isinstance(piece, Tensor)]
        weights = {names.get(id(piece), str(at)): piece for at, piece in placed}
        if len(weights) < len(placed):  # one array stands in two places
            weights = {str(at): piece for at, piece in placed}
        pour_into(file.fileno(), weights, [at for at, _ in placed], content.sums)
        for at, piece in pieces(is_known=True):  # with the hash of the source, which is known now
            if isinstance(piece, bytes):
                file.seek(at)
                file.write(piece)


def description(text: str) -> Values:
    """Return the metadata of a model, with ours."""
    return {
        "shortDescription": "LSTM weights, by lstmconvert",
        "userDefined": [{"key": metadata.KEY, "value": text}],
    }


class _Writer:
    """Writes one layer as nodes and features of a model."""

    def __init__(
        self,
        nodes: list[Values],
        features: Mapping[str, list[Values]],
        layer: LSTMLayer,
        prefix: str,
        arrays: Mapping[str, Tensor],
    ) -> None:
        self._nodes, self._features = nodes, features
        self._layer, self._prefix, self._arrays = layer, prefix, arrays
        self._base = identifier(layer.name)
        self._cell = layer.forward.lstm_cells[0]
        self._both = layer.backward is not None

    def write(self) -> None:
        """Add the layer, with its input and output."""
        layer, base = self._layer, self._base
        if any(feature["name"] == f"{base}_x" for feature in self._features["input"]):
            raise UsageError("two layers would have one name", where=layer.name, found=base)
        self._feature("input", "x", (1, 1, layer.input_dim))
        sequence = layer.forward.options.return_sequences is not False
        self._node("turned", "x", "transpose", {"axes": [1, 0, 2]})
        self._node("deep", "turned", "expandDims", {"axes": [3, 4]})
        self._lstm(sequence)
        last = self._node("flat", "out", "squeeze", {"axes": [3, 4] if sequence else [0, 3, 4]})
        if sequence:
            self._node("y", "flat", "transpose", {"axes": [1, 0, 2]})
        else:
            last["output"] = [f"{base}_y"]
        self._feature("output", "y", ())

    def _feature(self, kind: str, end: str, shape: tuple[int, ...]) -> None:
        array: Values = {"dataType": _FLOAT32, "shape": shape}
        if shape:
            # The second axis is time, of any length.
            ranges = [
                {"lowerBound": size, "upperBound": -1 if axis == 1 else size}
                for axis, size in enumerate(shape)
            ]
            array["shapeRange"] = {"sizeRanges": ranges}
        feature = {"name": f"{self._base}_{end}", "type": {"multiArrayType": array}}
        self._features[kind].append(feature)

    def _node(self, end: str, source: str | None, kind: str, parameters: Values) -> Values:
        name = f"{self._base}_{end}"
        inputs = [] if source is None else [f"{self._base}_{source}"]
        node = {"name": name, "input": inputs, "output": [name], kind: parameters}
        self._nodes.append(node)
        return node

    def _states(self) -> list[str]:
        """Add the initial states, zeros, and return their names without the layer's."""
        sides = ("", "_back") if self._both else ("",)
        names = [f"{state}0{side}" for side in sides for state in "hc"]
        zeros = {"floatValue": bytes(4 * self._cell.units)}
        for name in names:
            constant = {"shape": (1, 1, self._cell.units, 1, 1), "data": zeros}
            self._node(name, None, "loadConstantND", constant)
        return names

    def _lstm(self, sequence: bool) -> None:
        layer, states = self._layer, self._states()
        halves = [direction.lstm_cells[0] for _, direction in layer.directions]
        functions = [[self._function(cell, option) for option in _OPTIONS] for cell in halves]
        lstm: Values = {
            "inputVectorSize": layer.input_dim,
            "outputVectorSize": self._cell.units,
            "params": self._params(sequence),
        }
        if self._both:
            check_halves(layer, _SHARED)
            lstm |= dict(zip(_LISTS.values(), functions, strict=True))
            lstm["weightParams"] = [self._weights(f"{side}.") for side in _LISTS]
            node = self._node("out", "deep", "biDirectionalLSTM", lstm)
        else:
            lstm |= {"activations": functions[0], "weightParams": self._weights("")}
            lstm["reverseInput"] = layer.forward.options.go_backwards is True
            node = self._node("out", "deep", "uniDirectionalLSTM", lstm)
        node["name"] = self._prefix.rstrip(".") or ALONE
        node["input"] += [f"{self._base}_{name}" for name in states]
        node["output"] += [f"{self._base}_{name}_next" for name in states]

    def _params(self, sequence: bool) -> Values:
        ends = {key.removeprefix(self._prefix) for key in self._arrays}
        return {
            "sequenceOutput": sequence,
            "hasBiasVectors": any(key.endswith("BiasVector") for key in ends),
            "hasPeepholeVectors": "peephole" in self._cell.gate_parts,
            "cellClipThreshold": self._cell.options.cell_clip or NO_CLIP,
        }

    def _function(self, cell: Cell, option: str) -> Values:
        value: Any = getattr(cell.options, option) or cell.options.activation
        return {_FUNCTIONS[value]: {}}  # the row allows no other

    def _weights(self, side: str) -> Values:
        weights: Values = {}
        for key in SCHEMA.names("LSTMWeightParams"):
            tensor = self._arrays.get(f"{self._prefix}{side}{key}")
            if tensor is not None:
                weights[key] = {_STORED[tensor.dtype.name]: tensor}
        return weights


def check_halves(layer: LSTMLayer, shared: Mapping[str, Callable[[Direction], object]]) -> None:
    """Raise `UnsupportedByTarget` if two halves differ in what Core ML has once.

    Args:
        layer: the layer, which has both.
        shared: option -> what reads it of a half.
    """
    for option, read in shared.items():
        values = [read(half) for _, half in layer.directions]
        if values[0] != values[1]:
            both = f"{values[0]} and {values[1]}"
            raise _refused(layer, option, both, "one for both halves")
    if layer.forward.options.go_backwards is True:
        raise _refused(layer, "go_backwards", "forward half: True", "False")


def _refused(layer: LSTMLayer, option: str, found: str, expected: str) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        f"Core ML cannot express {option}",
        where=layer.name,
        layer=layer.name,
        option=option,
        target="coreml",
        found=found,
        expected=expected,
    )


#: The fields that the two halves of a biDirectionalLSTM share.
_SHARED: Mapping[str, Callable[[Direction], object]] = {
    "cell_clip": lambda half: half.lstm_cells[0].options.cell_clip,
    "peephole": lambda half: "peephole" in half.lstm_cells[0].gate_parts,
}
