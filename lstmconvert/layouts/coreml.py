"""A `.mlmodel` of Core ML: each layer as one LSTM of a neural network, with an input and an output.

Around the LSTM stand the layers that coremltools puts there when it converts one of its programs
(converters/mil/backend/nn/op_mapping.py, `lstm`), as the LSTM takes (time, batch, inputs, 1, 1).
Input `<layer>_x` is (1, time, inputs); output `<layer>_y` is (1, time, width), or (1, width) of a
layer that gives its last output alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits, metadata
from lstmconvert.activations import Activation
from lstmconvert.containers import coremlspec, mlmodel
from lstmconvert.errors import UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.layer import Cell, Direction, LSTMLayer
from lstmconvert.layouts.cheader import identifier
from lstmconvert.layouts.write import Content
from lstmconvert.tensors import SourceFile, Tensor

#: The first version with arrays of any number of axes (Model.proto: iOS 13, macOS 10.15).
_VERSION = 4
_FLOAT32, _EXACT_ARRAY_MAPPING = 65568, 1
_STORED = {np.dtype(dtype).name: field for field, dtype in mlmodel.DTYPES.items()}
_FUNCTIONS = {ours: theirs for theirs, ours in mlmodel.FUNCTIONS.items()}
_LISTS = {"forward": "activationsForwardLSTM", "backward": "activationsBackwardLSTM"}


def write(
    path: Path, content: Content, texts: Callable[[], Mapping[str, str]], *_: object
) -> Mapping[str, Tensor]:
    """Write a file, and return the arrays that it holds.

    Raises:
        UnknownOption: a function is unknown.
        UnsupportedByTarget: a function, a dtype, or halves that differ in what they share.
        UsageError: two layers would have one name.
    """
    size = sum(tensor.nbytes for tensor in content.tensors.values())
    limits.COREML_BYTES.check(size, path, "the weights together")
    model = coremlspec.message("Model")(specificationVersion=_VERSION)
    model.neuralNetwork.arrayInputShapeMapping = _EXACT_ARRAY_MAPPING
    for item, layer in zip(content.arranged["modules"], content.model.values(), strict=True):
        _Writer(model, layer, item["prefix"], content.tensors).write()
    texts()  # the first has no hash of the source yet
    described = model.description.metadata
    described.shortDescription = "LSTM weights, by lstmconvert"
    described.userDefined.add(key=metadata.KEY, value=texts()[metadata.KEY])
    path.write_bytes(model.SerializeToString(deterministic=True))
    return mlmodel.read(SourceFile(path))[0]


class _Writer:
    """Writes one layer into a model."""

    def __init__(
        self, model: Any, layer: LSTMLayer, prefix: str, arrays: Mapping[str, Tensor]
    ) -> None:
        self._model, self._layer, self._prefix, self._arrays = model, layer, prefix, arrays
        self._own = identifier(layer.name)
        self._cell = layer.forward.lstm_cells[0]
        self._both = layer.backward is not None

    def write(self) -> None:
        """Add the layer, with its input and output."""
        layer, own = self._layer, self._own
        if any(feature.name == f"{own}_x" for feature in self._model.description.input):
            raise UsageError("two layers would have one name", where=layer.name, found=own)
        self._feature("input", "x", (1, 1, layer.input_dim))
        sequence = layer.forward.options.return_sequences is not False
        self._node("turned", "x", "transpose", axes=[1, 0, 2])
        self._node("deep", "turned", "expandDims", axes=[3, 4])
        self._lstm(sequence)
        self._node("flat", "out", "squeeze", axes=[3, 4] if sequence else [0, 3, 4])
        if sequence:
            self._node("y", "flat", "transpose", axes=[1, 0, 2])
        else:
            self._model.neuralNetwork.layers[-1].output[0] = f"{own}_y"
        self._feature("output", "y", ())

    def _feature(self, kind: str, end: str, shape: tuple[int, ...]) -> None:
        feature = getattr(self._model.description, kind).add(name=f"{self._own}_{end}")
        array = feature.type.multiArrayType
        array.dataType = _FLOAT32
        array.shape.extend(shape)
        for axis, size in enumerate(shape):
            # The second axis is time, of any length.
            array.shapeRange.sizeRanges.add(lowerBound=size, upperBound=-1 if axis == 1 else size)

    def _node(self, end: str, source: str | None, kind: str, **fields: Any) -> Any:
        own = self._own
        node = self._model.neuralNetwork.layers.add(name=f"{own}_{end}", output=[f"{own}_{end}"])
        if source is not None:
            node.input.append(f"{own}_{source}")
        parameters = getattr(node, kind)
        for key, value in fields.items():
            getattr(parameters, key).extend(value)
        return parameters

    def _states(self) -> list[str]:
        """Add the initial states, zeros, and return their names without the layer's."""
        sides = ("", "_back") if self._both else ("",)
        names = [f"{state}0{side}" for side in sides for state in "hc"]
        for name in names:
            shape = (1, 1, self._cell.units, 1, 1)
            constant = self._node(name, None, "loadConstantND", shape=shape)
            constant.data.floatValue = bytes(4 * self._cell.units)
        return names

    def _lstm(self, sequence: bool) -> None:
        layer, states = self._layer, self._states()
        kind = "biDirectionalLSTM" if self._both else "uniDirectionalLSTM"
        lstm = self._node("out", "deep", kind)
        node = self._model.neuralNetwork.layers[-1]
        node.name = self._prefix.rstrip(".") or mlmodel.ALONE
        node.input.extend(f"{self._own}_{name}" for name in states)
        node.output.extend(f"{self._own}_{name}_next" for name in states)
        lstm.inputVectorSize, lstm.outputVectorSize = layer.input_dim, self._cell.units
        self._params(lstm.params, sequence)
        for side, direction in layer.directions:
            cell = direction.lstm_cells[0]
            activations = getattr(lstm, _LISTS[side]) if self._both else lstm.activations
            for option in ("recurrent_activation", "activation", "output_activation"):
                self._function(activations.add(), cell, option)
            weights = lstm.weightParams.add() if self._both else lstm.weightParams
            self._weights(weights, f"{side}." if self._both else "")
        if not self._both:
            lstm.reverseInput = layer.forward.options.go_backwards is True
        else:
            self._check_halves()

    def _params(self, params: Any, sequence: bool) -> None:
        params.sequenceOutput = sequence
        ends = {key.removeprefix(self._prefix) for key in self._arrays}
        params.hasBiasVectors = any(key.endswith("BiasVector") for key in ends)
        params.hasPeepholeVectors = "peephole" in self._cell.gate_parts
        params.cellClipThreshold = self._cell.options.cell_clip or mlmodel.NO_CLIP

    def _check_halves(self) -> None:
        halves = dict(self._layer.directions)
        for option, read in _SHARED.items():
            values = [read(half) for half in halves.values()]
            if values[0] != values[1]:
                raise self._refused(option, f"{values[0]} and {values[1]}", "one for both halves")
        if halves["forward"].options.go_backwards is True:
            raise self._refused("go_backwards", "forward half: True", "False")

    def _function(self, item: Any, cell: Cell, option: str) -> None:
        value = getattr(cell.options, option)
        if option == "output_activation" and value is None:
            value = cell.options.activation
        if not isinstance(value, Activation):
            raise UnknownOption(
                "the file does not say what a neural network has to say",
                where=self._layer.name,
                found=f"unknown: {option}",
                hint=f"--set {option}=VALUE",
            )
        if value not in _FUNCTIONS:
            raise self._refused(option, str(value), ", ".join(map(str, _FUNCTIONS)))
        getattr(item, _FUNCTIONS[value]).SetInParent()

    def _weights(self, weights: Any, side: str) -> None:
        for key in weights.DESCRIPTOR.fields_by_name:
            tensor = self._arrays.get(f"{self._prefix}{side}{key}")
            if tensor is None:
                continue
            if tensor.dtype.name not in _STORED:
                raise self._refused(
                    "dtype", tensor.dtype.name, " or ".join(_STORED), "--dtype float32 casts"
                )
            setattr(getattr(weights, key), _STORED[tensor.dtype.name], tensor.read().tobytes())

    def _refused(
        self, option: str, found: str, expected: str, hint: str | None = None
    ) -> UnsupportedByTarget:
        return UnsupportedByTarget(
            f"Core ML cannot express {option}",
            where=self._layer.name,
            layer=self._layer.name,
            option=option,
            target="coreml",
            found=found,
            expected=expected,
            hint=hint,
        )


#: What the two halves of a biDirectionalLSTM share.
_SHARED: Mapping[str, Callable[[Direction], object]] = {
    "cell_clip": lambda half: half.lstm_cells[0].options.cell_clip,
    "peephole": lambda half: "peephole" in half.lstm_cells[0].gate_parts,
}
