"""The weights of the LSTM operators of a `.tflite` file, a flatbuffer that LiteRT runs.

An operator UNIDIRECTIONAL_SEQUENCE_LSTM, or LSTM with the full kernel, takes its arrays by number
(tensorflow/lite/kernels/lstm_shared.h); here they have these numbers' names. An operator whose
input was reversed, beside one with the same input that was not, is the backward half of a
Bidirectional.

The schema is the one that comes with ai-edge-litert. It checks no offsets but Python's own bounds,
so that counts are checked here before anything is counted up to, and numbers are read by `tensors`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lstmconvert import limits, metadata
from lstmconvert.dtypes import DType
from lstmconvert.errors import CorruptFile, MissingPackage, SourceError
from lstmconvert.jsontext import canonical, parse_object
from lstmconvert.layer import LSTMLayer
from lstmconvert.tensors import FileTensor, SourceFile, Tensor

_GATES = ("input", "forget", "cell", "output")
#: Number of an operator's input -> the name of the array there.
INPUTS: Mapping[int, str] = {
    **{1 + n: f"input_to_{gate}_weights" for n, gate in enumerate(_GATES)},
    **{5 + n: f"recurrent_to_{gate}_weights" for n, gate in enumerate(_GATES)},
    **{9 + n: f"cell_to_{gate}_weights" for n, gate in enumerate(("input", "forget", "output"))},
    **{12 + n: f"{gate}_gate_bias" for n, gate in enumerate(_GATES)},
    16: "projection_weights",
    17: "projection_bias",
}
#: Inputs 20 to 23 scale a layer normalization, which has no place here.
_NORMS = range(20, 24)
_DTYPES: Mapping[int, DType] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 10: np.dtype("<f8")}
#: What the generated code raises where a file points out of itself.
_ERRORS = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)


def schema() -> Any:
    """Return the generated schema.

    Raises:
        MissingPackage: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingPackage(
            "a .tflite file needs ai-edge-litert, which is not installed",
            hint="pip install 'lstmconvert[tflite]'",
        ) from None
    return schema_py_generated


@dataclass(frozen=True, slots=True)
class Clips:
    """What an operator bounds its states by: `cell`, `projection`; None is no bound."""

    cell: float | None
    projection: float | None


@dataclass(frozen=True, slots=True)
class _Operator:
    inputs: tuple[int, ...]
    source: int
    reversed: bool
    clips: Clips


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a file's LSTM operators, lazily, and our metadata.

    Raises:
        MissingPackage: ai-edge-litert is not installed.
        CorruptFile, LimitExceeded: it is no such flatbuffer.
        SourceError: its weights are quantized, or it has no LSTM operator.
    """
    tensors, texts, _ = opened(source)
    return tensors, texts


def opened(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Clips]]:
    """Return what `read` does, and the clips of each operator by the prefix of its arrays."""
    generated = schema()
    limits.FLATBUFFER_BYTES.check(source.size, source.path, "its size")
    try:
        return _File(source, generated).read()
    except _ERRORS as error:
        raise CorruptFile(
            "not a flatbuffer of LiteRT, or damaged",
            where=source.path,
            found=f"{type(error).__name__}: {error}"[:120],
        ) from None


class _File:
    def __init__(self, source: SourceFile, generated: Any) -> None:
        self._source, self._schema = source, generated
        self._data = bytes(source.read_at(0, source.size))
        self._model = generated.Model.GetRootAs(self._data, 0)
        self._codes = [
            max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            for code in self._items(self._model, "OperatorCodes")
        ]

    def _items(self, table: Any, name: str) -> Iterator[Any]:
        """Yield the tables of a vector, whose length is checked."""
        count = getattr(table, f"{name}Length")()
        if count > len(self._data) // 4:
            raise CorruptFile(f"more {name} than the file has room for", where=self._source.path)
        limits.ONNX_NODES.check(count, self._source.path, f"the number of {name}")
        for number in range(count):
            yield getattr(table, name)(number)

    def read(self) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Clips]]:
        found: dict[str, Tensor] = {}
        clips: dict[str, Clips] = {}
        total = 0
        for graph in self._items(self._model, "Subgraphs"):
            tensors = list(self._items(graph, "Tensors"))
            operators, halves = self._operators(graph)
            for number, operator in enumerate(operators):
                prefix, arrays = self._arrays(
                    operator, tensors, self._widened(graph), _prefix(number, halves)
                )
                if arrays.keys() & found.keys():
                    raise CorruptFile("two arrays of one name", where=self._source.path)
                found |= arrays
                total += sum(tensor.nbytes for tensor in arrays.values())
                # A buffer may be shared, but not by thousands: a small file would be a large one.
                limits.check_expansion(total, self._source.size, self._source.path)
                clips[prefix] = operator.clips
        if not found:
            raise SourceError(
                "no operator of it is an LSTM",
                where=self._source.path,
                found=f"operators {sorted(set(self._codes))[:12]}",
                expected="UNIDIRECTIONAL_SEQUENCE_LSTM (44) or LSTM (16)",
                hint="Keras 3's LSTMs become loops of simpler operators when they are converted, "
                "tf_keras's become one operator: convert from the Keras file instead",
            )
        return found, self._texts(), clips

    def _texts(self) -> dict[str, str]:
        for entry in self._items(self._model, "Metadata"):
            if entry.Name() == metadata.KEY.encode():
                tensor = self._buffer(entry.Buffer())
                limits.JSON_BYTES.check(tensor[1], self._source.path, "the JSON text")
                raw = bytes(self._source.read_at(*tensor))
                value = parse_object(raw, f"{self._source.path}: {metadata.KEY}")
                return {metadata.KEY: canonical(value)}
        return {}

    def _buffer(self, number: int) -> tuple[int, int]:
        """Return the offset and size of a buffer's bytes."""
        if not 0 <= number < self._model.BuffersLength():
            raise CorruptFile("no such buffer", where=self._source.path, found=number)
        buffer = self._model.Buffers(number)
        if buffer.Offset() > 1:  # behind the flatbuffer, in a large file
            return buffer.Offset(), buffer.Size()
        table = buffer._tab
        field = table.Offset(4)  # the generated code gives a copy, and no offset
        return (table.Vector(field), table.VectorLen(field)) if field else (0, 0)

    def _operators(self, graph: Any) -> tuple[list[_Operator], list[int | None]]:
        """Return the LSTM operators of a graph, and for each its forward half, if it has one."""
        builtin = self._schema.BuiltinOperator
        turned: dict[int, int] = {}
        result: list[_Operator] = []
        for operator in self._items(graph, "Operators"):
            code, inputs = self._codes[operator.OpcodeIndex()], operator.InputsAsNumpy()
            if code == builtin.REVERSE_V2 and len(inputs):
                turned[int(operator.OutputsAsNumpy()[0])] = int(inputs[0])
            elif code in (builtin.UNIDIRECTIONAL_SEQUENCE_LSTM, builtin.LSTM):
                given = tuple(int(number) for number in inputs[:32])
                if len(given) < 18:  # the basic kernel of LSTM joins its four matrices
                    continue
                options = self._options(operator, code)
                origin = turned.get(given[0], given[0])
                result.append(_Operator(given, origin, given[0] in turned, options))
        return result, [_forward_half(one, result) for one in result]

    def _options(self, operator: Any, code: int) -> Clips:
        name = "LSTMOptions"
        if code == self._schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM:
            name = "UnidirectionalSequenceLSTMOptions"
        table, options = operator.BuiltinOptions(), getattr(self._schema, name)()
        if table is None:
            return Clips(None, None)
        options.Init(table.Bytes, table.Pos)
        function = options.FusedActivationFunction()
        if function != self._schema.ActivationFunctionType.TANH:
            raise SourceError(
                "an LSTM operator with another function than tanh",
                where=self._source.path,
                found=f"fused_activation_function {function}",
                expected="TANH (4)",
            )
        return Clips(options.CellClip() or None, options.ProjClip() or None)

    def _widened(self, graph: Any) -> dict[int, int]:
        """Return tensors that are float16 ones in float32: output -> input of a DEQUANTIZE."""
        return {
            int(operator.OutputsAsNumpy()[0]): int(operator.InputsAsNumpy()[0])
            for operator in self._items(graph, "Operators")
            if self._codes[operator.OpcodeIndex()] == self._schema.BuiltinOperator.DEQUANTIZE
        }

    def _arrays(
        self, operator: _Operator, tensors: list[Any], widened: Mapping[int, int], prefix: str
    ) -> tuple[str, dict[str, Tensor]]:
        inputs = operator.inputs
        if any(inputs[n] >= 0 for n in _NORMS if n < len(inputs)):
            raise SourceError(
                "an LSTM operator with layer normalization", where=self._source.path
            )
        given = {role: inputs[number] for number, role in INPUTS.items() if inputs[number] >= 0}
        places = {role: widened.get(number, number) for role, number in given.items()}
        if any(not 0 <= number < len(tensors) for number in places.values()):
            raise CorruptFile("an operator takes a tensor that is not there", where=prefix)
        names = {role: _text(tensors[number].Name()) for role, number in places.items()}
        own = {name.removesuffix(role) for role, name in names.items() if name.endswith(role)}
        if len(own) == 1 and all(name.endswith(role) for role, name in names.items()):
            prefix = own.pop()  # we wrote it
        return prefix, {
            prefix + role: self._tensor(tensors[number], role) for role, number in places.items()
        }

    def _tensor(self, table: Any, role: str) -> Tensor:
        where = f"{self._source.path}: {role}"
        if table.Type() not in _DTYPES:
            raise SourceError(
                "quantized weights, which are not read",
                where=where,
                found=f"tensor type {table.Type()}",
                expected="float32 or float16",
                hint="convert the model again without optimizations",
            )
        dtype = _DTYPES[table.Type()]
        limits.RANK.check(table.ShapeLength(), where, "the number of its axes")
        shape = tuple(int(size) for size in table.ShapeAsNumpy()) if table.ShapeLength() else ()
        offset, size = self._buffer(table.Buffer())
        if any(n < 0 for n in shape) or size != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise CorruptFile(
                "its numbers have not its shape", where=where, found=size, expected=str(shape)
            )
        return FileTensor(self._source, offset, shape, dtype)


def completed(layer: LSTMLayer, clips: Mapping[str, Clips]) -> LSTMLayer:
    """Return a layer whose cells have the clips of their operators."""
    halves = {}
    for side, direction in layer.directions:
        bare, sided = f"{layer.path}.", f"{layer.path}.{side}."
        found = clips.get(sided, clips.get(bare, Clips(None, None)))
        cells = tuple(
            replace(
                cell,
                options=replace(
                    cell.options, cell_clip=found.cell, projection_clip=found.projection
                ),
            )
            for cell in direction.lstm_cells
        )
        halves[side] = replace(direction, cells=cells)
    return replace(layer, forward=halves["forward"], backward=halves.get("backward"))


def _forward_half(one: _Operator, operators: list[_Operator]) -> int | None:
    """Return the number of the forward half of a backward one."""
    if not one.reversed:
        return None
    for number, other in enumerate(operators):
        if other.source == one.source and not other.reversed:
            return number
    return None


def _prefix(number: int, halves: list[int | None]) -> str:
    """Return what stands before an operator's arrays: lstm., lstm_1.forward., …"""
    forward = halves[number]
    leader = number if forward is None else forward
    count = sum(half is None for half in halves[:leader])
    name = "lstm." if count == 0 else f"lstm_{count}."
    if forward is not None:
        return f"{name}backward."
    return f"{name}forward." if number in halves else name


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")
