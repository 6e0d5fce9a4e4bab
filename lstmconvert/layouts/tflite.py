"""A `.tflite` model: each layer as the fused LSTM operator, between an input and an output.

A backward half is an operator between two REVERSE_V2, and CONCATENATION joins the two. Input
`<layer>.x` is (1, time, inputs), and output `<layer>.y` every step's. The batch is one, as the
states are variables of the file, which `reset_all_variables` sets to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits, metadata
from lstmconvert.containers import tflite
from lstmconvert.dtypes import Array
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layer import Cell, LSTMLayer
from lstmconvert.layouts.write import Content
from lstmconvert.tensors import SourceFile, Tensor

_STATES = (18, 19)
_COUNT = 24
_VERSION = 3


def write(
    path: Path, content: Content, texts: Callable[[], Mapping[str, str]], *_: object
) -> Mapping[str, Tensor]:
    """Write a file, and return the arrays that it holds.

    Raises:
        MissingPackage: ai-edge-litert is not installed.
        UnsupportedByTarget: a dtype other than float32; more than a flatbuffer holds.
    """
    import flatbuffers

    size = sum(tensor.nbytes for tensor in content.tensors.values())
    limits.FLATBUFFER_BYTES.check(size, path, "the weights together")
    graph = _Graph(tflite.schema(), content.tensors)
    layers = list(content.model.values())
    for item, layer in zip(content.arranged["modules"], layers, strict=True):
        graph.layer(layer, item["prefix"])
    texts()  # the first has no hash of the source yet
    text = texts()[metadata.KEY]
    model = graph.model(text.encode())
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return tflite.read(SourceFile(path))[0]


class _Graph:
    """Builds the one graph of a model."""

    def __init__(self, generated: Any, tensors: Mapping[str, Tensor]) -> None:
        self._schema, self._arrays = generated, tensors
        self._graph = generated.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._graph.name = "main"
        self._buffers = [generated.BufferT()]  # the empty one, by convention
        self._codes: list[int] = []

    def model(self, text: bytes) -> Any:
        model = self._schema.ModelT()
        model.version, model.description = _VERSION, "lstmconvert"
        model.subgraphs, model.buffers = [self._graph], self._buffers
        model.operatorCodes = [self._code(code) for code in self._codes]
        entry = self._schema.MetadataT()
        entry.name, entry.buffer = metadata.KEY, self._buffer(np.frombuffer(text, np.uint8))
        model.metadata = [entry]
        return model

    def layer(self, layer: LSTMLayer, prefix: str) -> None:
        name = layer.name
        x = self._tensor(f"{name}.x", (1, 1, layer.input_dim), signature=(1, -1, layer.input_dim))
        self._graph.inputs.append(x)
        both = layer.backward is not None
        outputs = []
        for side, direction in layer.directions:
            back, y = side == "backward", x
            if back:
                y = self._reversed(y, layer.input_dim, f"{name}.x.reversed")
            for index, cell in enumerate(direction.lstm_cells):
                place = f"{side}." if both else ""
                place += f"cells.{index}." if len(direction.cells) > 1 else ""
                y = self._lstm(cell, y, prefix + place)
            if back:
                y = self._reversed(y, cell.recurrent_dim, f"{name}.backward.y")
            outputs.append((y, cell.recurrent_dim))
        y = outputs[0][0]
        if both:
            y = self._joined([one for one, _ in outputs], sum(n for _, n in outputs), name)
        self._graph.tensors[y].name = f"{name}.y"
        self._graph.outputs.append(y)

    def _lstm(self, cell: Cell, x: int, prefix: str) -> int:
        inputs = [-1] * _COUNT
        inputs[0] = x
        for number, role in tflite.INPUTS.items():
            if prefix + role in self._arrays:
                inputs[number] = self._constant(prefix + role)
        for number, width in zip(_STATES, (cell.recurrent_dim, cell.units), strict=True):
            inputs[number] = self._tensor(f"{prefix}state{number}", (1, width), variable=True)
        options = self._schema.UnidirectionalSequenceLSTMOptionsT()
        options.fusedActivationFunction = self._schema.ActivationFunctionType.TANH
        options.cellClip = cell.options.cell_clip or 0.0
        options.projClip = cell.options.projection_clip or 0.0
        y = self._tensor(f"{prefix}y", (1, 1, cell.recurrent_dim), signature=(1, -1, -1))
        self._operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, y, options)
        return y

    def _reversed(self, x: int, width: int, name: str) -> int:
        axis = self._tensor(f"{name}.axis", (1,), data=np.ones(1, np.int32))
        y = self._tensor(name, (1, 1, width), signature=(1, -1, width))
        self._operator("REVERSE_V2", [x, axis], y, self._schema.ReverseV2OptionsT())
        return y

    def _joined(self, parts: list[int], width: int, name: str) -> int:
        options = self._schema.ConcatenationOptionsT()
        options.axis = 2
        y = self._tensor(f"{name}.y", (1, 1, width), signature=(1, -1, width))
        self._operator("CONCATENATION", parts, y, options)
        return y

    def _constant(self, name: str) -> int:
        array = self._arrays[name].read()
        if array.dtype != np.float32:
            raise UnsupportedByTarget(
                "the operator takes float32",
                where=name,
                option="dtype",
                target="tflite",
                found=array.dtype.name,
                hint="--dtype float32 casts",
            )
        return self._tensor(name, array.shape, data=array)

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        data: Array | None = None,
        variable: bool = False,
        signature: tuple[int, ...] | None = None,
    ) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.isVariable = name, list(shape), variable
        tensor.hasRank = True
        if signature is not None:
            tensor.shapeSignature = list(signature)
        types = self._schema.TensorType
        tensor.type = types.FLOAT32
        if data is not None:
            tensor.type = types.INT32 if data.dtype == np.int32 else types.FLOAT32
            tensor.buffer = self._buffer(np.ascontiguousarray(data).reshape(-1).view(np.uint8))
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _buffer(self, data: Array) -> int:
        buffer = self._schema.BufferT()
        buffer.data = data
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _operator(self, kind: str, inputs: list[int], output: int, options: Any) -> None:
        code = getattr(self._schema.BuiltinOperator, kind)
        if code not in self._codes:
            self._codes.append(code)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.index(code)
        operator.inputs, operator.outputs = inputs, [output]
        name = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, name)
        operator.builtinOptions = options
        self._graph.operators.append(operator)

    def _code(self, number: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.version = number, 1
        code.deprecatedBuiltinCode = min(number, 127)  # one byte, for readers before 2020
        return code
