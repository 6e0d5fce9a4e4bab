"""The LSTMs of a Core ML package (`.mlpackage`), whose model is an ML program.

A program is a list of operations in MIL, Core ML's intermediate language. Each `lstm` among them
names its weights, constants of the program, and says its functions, its clip and its direction
(coremltools/converters/mil/mil/ops/defs/iOS15/recurrent.py). A constant lies in the program, or in
a file of the package (coremltools/mlmodel/src/MILBlob/Blob/StorageFormat.hpp).

Names and numbers of the messages are those of coremltools/mlmodel/format/MIL.proto. Fields that
are not here are not read. A package may also hold a neural network: then it is read as one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.containers import arrays, mlmodel, table
from lstmconvert.containers.modules import Arrays, Asked
from lstmconvert.containers.opened import Opened
from lstmconvert.errors import CorruptFile, NoLSTM, NotAModel, SourceError
from lstmconvert.files import opening
from lstmconvert.files.wire import Schema
from lstmconvert.model import settings
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.model import Model
from lstmconvert.onnx.functions import exact
from lstmconvert.tensors.tensor import ArrayTensor, FileTensor, Shape, SourceFile, Tensor

Values = dict[str, Any]

#: Where a package has its model, and the folder of its weights beside it
#: (coremltools/models/utils.py, `save_spec`; `_MLPACKAGE_AUTHOR_NAME`).
_MODEL, _WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "weights"
#: How a program begins the name of a file of its package.
_HERE = "@model_path/"
#: The arrays of an operation, for its first or only direction; `_back` follows for the second.
_ARRAYS = ("weight_ih", "weight_hh", "bias", "peephole")
_DECOMPRESS = (
    "a compressed model is read once it is decompressed: coremltools.optimize.coreml."
    "decompress_weights"
)
#: Functions -> ours. `scaled_tanh` has constants that the operation does not say. `hard_sigmoid` is
#: the `sigmoidHard` of Core ML's other LSTMs (coremltools/models/neural_network/builder.py,
#: `_set_recurrent_activation`), whose constants are 0.2 and 0.5.
_FUNCTIONS: Mapping[str, Activation] = {
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "relu": Activation("relu"),
    "linear": LINEAR,
    "hard_sigmoid": HARD_SIGMOID_KERAS2,
}
#: MIL.proto, DataType -> dtype; and StorageFormat.hpp, BlobDataType -> dtype.
_TYPES = {10: "<f2", 11: "<f4"}
_BLOB_TYPES = {1: "<f2", 2: "<f4"}
#: What stands before the numbers of a constant in a file: a mark, the type, the bytes, their place.
_BLOB, _MARK = struct.Struct("<IIQQ"), 0xDEADBEEF

_SCHEMA = Schema(
    {
        "Model": {"mlProgram": "502 Program"},
        "Program": {"functions": "2* Function_"},
        "Function_": {"key": "1 string", "value": "2 Function"},
        "Function": {"blocks": "3* Block_"},
        "Block_": {"key": "1 string", "value": "2 Block"},
        "Block": {"operations": "3* Operation"},
        "Operation": {
            "type": "1 string",
            "inputs": "2* Input",
            "outputs": "3* NamedValue",
            "blocks": "4* Block",
            "attributes": "5* Attribute",
        },
        "Input": {"key": "1 string", "value": "2 Argument"},
        "Argument": {"arguments": "1* Binding"},
        "Binding": {"name": "1 string", "value": "2 Value"},
        "Attribute": {"key": "1 string", "value": "2 Value"},
        "NamedValue": {"name": "1 string"},
        "Value": {"type": "2 Type", "immediate": "3 Immediate", "blob": "5 Blob"},
        "Type": {"tensor": "1 TensorType"},
        "TensorType": {"dataType": "1 int32", "dimensions": "3* Dimension"},
        "Dimension": {"constant": "1 Constant"},
        "Constant": {"size": "1 uint64"},
        "Immediate": {"tensor": "1 TensorValue"},
        "TensorValue": {
            "floats": "1 Bytes",
            "bools": "3 Flags",
            "strings": "4 Texts",
            "bytes": "7 Bytes",
        },
        "Bytes": {"values": "1 bytes"},
        "Flags": {"values": "1* bool"},
        "Texts": {"values": "1* string"},
        "Blob": {"fileName": "1 string", "offset": "2 uint64"},
    }
)


def open(file: Opened, asked: Asked) -> Model:  # noqa: A001  # what every such module calls it
    """Open a package.

    Raises:
        CorruptFile, LimitExceeded: one of its files contradicts itself or another; it holds a
            symbolic link.
        NoLSTM: no operation of its program is an `lstm`.
        SourceError: an LSTM's weights are compressed, or its functions have no name here.
    """
    opening.files_below(file.path)  # raises where a link leads out of it
    path = file.path / _MODEL
    if not path.is_file():
        raise NotAModel("a package of Core ML without its model", where=path, expected=_MODEL)
    weights = (path.parent / _WEIGHTS).glob("*")
    parts = {f"{_WEIGHTS}/{part.name}": opening.open_part(part) for part in weights}
    inner = Opened(path, parts)
    source = inner.source
    limits.COREML_BYTES.check(source.size, path, "its size")
    data = memoryview(source.read_at(0, source.size))
    model = _SCHEMA.decode("Model", data, path, limits.COREML_MESSAGES)
    program = model.get("mlProgram")
    row = table.container("mlmodel" if program is None else "mlpackage")
    if row is None:
        raise AssertionError(path)
    if program is None:
        return arrays.open_model(inner, row, asked)
    return arrays.opened(_Program(inner, program).arrays(), inner, row, asked)


class _Program:
    """The operations of a program, and the constants that they name."""

    def __init__(self, file: Opened, program: Values) -> None:
        self._file, self._where = file, str(file.path)
        self._lstms: list[Values] = []
        self._made_by: dict[str, Values] = {}
        for function in program.get("functions", ()):
            for specialization in function.get("value", {}).get("blocks", ()):
                self._gather(specialization.get("value", {}))

    def _gather(self, block: Values) -> None:
        for operation in block.get("operations", ()):
            for output in operation.get("outputs", ()):
                self._made_by[output.get("name", "")] = operation
            if operation.get("type") == "lstm":
                self._lstms.append(operation)
            for inner in operation.get("blocks", ()):
                self._gather(inner)

    def arrays(self) -> Arrays:
        """Return the arrays of every LSTM, and what else each says."""
        tensors: dict[str, Tensor] = {}
        facts: dict[str, mlmodel.Facts] = {}
        notes: list[str] = []
        for operation in self._lstms:
            lstm = _Operation(self, operation)
            name = lstm.name
            if name in facts:
                raise CorruptFile("two operations of one name", where=self._where, found=name)
            tensors |= {f"{name}.{key}": tensor for key, tensor in lstm.arrays()}
            facts[name.replace(".", "/")] = lstm.facts()
            told = lstm.states()
            if told:
                notes.append(f"{name}: {told}")
        if not tensors:
            raise NoLSTM(
                "no operation of the program is an LSTM",
                where=self._where,
                expected="lstm among its operations",
            )
        return Arrays(
            tensors, {}, completed=lambda layer: mlmodel.completed(layer, facts), notes=tuple(notes)
        )

    def constant(self, operation: Values, key: str) -> Values | None:
        """Return the value of an operation's argument, or None if it has no such argument.

        Raises:
            SourceError: it is computed, or compressed.
        """
        bindings = _argument(operation, key)
        if not bindings:
            return None
        if "value" in bindings[0]:
            return dict(bindings[0]["value"])
        maker = self._made_by.get(bindings[0].get("name", ""), {})
        kind = maker.get("type", "an input")
        if kind != "const":
            raise SourceError(
                f"{key} of an LSTM is not a constant of the program",
                where=self._where,
                found=kind[:80],
                hint=_DECOMPRESS if kind.startswith("constexpr_") else None,
            )
        return _attribute(maker, "val")

    def origin(self, operation: Values, key: str) -> str:
        """Return what gives an argument that is not a constant, in words."""
        name = _argument(operation, key)[0].get("name", "")
        maker = self._made_by.get(name)
        return f"the input {name}" if maker is None else f"what {maker.get('type', '')} computes"

    def tensor(self, value: Values, key: str) -> Tensor:
        """Return a constant as an array."""
        described = value.get("type", {}).get("tensor", {})
        shape = tuple(
            item.get("constant", {}).get("size", 0) for item in described.get("dimensions", ())
        )
        dtype = _TYPES.get(described.get("dataType", 0))
        where = f"{self._where}: {key}"
        if dtype is None:
            raise SourceError(
                "numbers that are not read", where=where, expected="float16 or float32"
            )
        if "blob" in value:
            return self._stored(value["blob"], shape, dtype, where)
        values = value.get("immediate", {}).get("tensor", {})
        raw = b"".join(values.get(kind, {}).get("values", b"") for kind in ("floats", "bytes"))
        if len(raw) != math.prod(shape) * np.dtype(dtype).itemsize:
            raise mlmodel.misfit(where, len(raw), shape, dtype)
        return ArrayTensor(np.frombuffer(raw, dtype).reshape(shape))

    def _stored(self, blob: Values, shape: Shape, dtype: str, where: str) -> Tensor:
        """Return a constant that lies in a file of the package."""
        name = blob.get("fileName", "").removeprefix(_HERE)
        source: SourceFile = self._file.neighbours.file(name, where)
        head = source.read_at(blob.get("offset", 0), _BLOB.size)
        mark, kind, size, offset = _BLOB.unpack(head)
        if mark != _MARK or _BLOB_TYPES.get(kind) != dtype:
            raise CorruptFile(
                "no numbers of that type are where a constant should be", where=where, found=name
            )
        if size != math.prod(shape) * np.dtype(dtype).itemsize:
            raise mlmodel.misfit(where, size, shape, dtype)
        return FileTensor(source, offset, shape, np.dtype(dtype))


class _Operation:
    """One `lstm`."""

    def __init__(self, program: _Program, operation: Values) -> None:
        self._program, self._operation = program, operation
        direction = self._text("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise CorruptFile("an LSTM of no known direction", where=self.name, found=direction)
        self._both, self._back = direction == "bidirectional", direction == "reverse"

    @property
    def name(self) -> str:
        """Its name, or else that of its first output."""
        texts = _texts(_attribute(self._operation, "name") or {})
        outputs = self._operation.get("outputs", ())
        return texts[0] if texts else next((item.get("name", "") for item in outputs), "lstm")

    def arrays(self) -> Iterator[tuple[str, Tensor]]:
        """Yield its arrays by their names."""
        for side in ("", "_back") if self._both else ("",):
            for key in _ARRAYS:
                value = self._program.constant(self._operation, key + side)
                if value is None:
                    continue
                yield key + side, self._program.tensor(value, f"{self.name}: {key}{side}")

    def facts(self) -> mlmodel.Facts:
        """Return what else it says."""
        functions = (
            self._function("recurrent_activation", "sigmoid"),
            self._function("cell_activation", "tanh"),
            self._function("activation", "tanh"),
        )
        clip = self._program.constant(self._operation, "clip")
        bound = None
        if clip is not None:
            bound = float(self._program.tensor(clip, "clip").read().reshape(-1)[0])
        if bound is not None and not bound > 0:
            raise CorruptFile("clip is not a bound", where=self.name, found=bound)
        flags = self._given("output_sequence").get("bools", {}).get("values", ())
        return mlmodel.Facts(
            functions=(functions,) * (2 if self._both else 1),
            cell_clip=None if bound is None else exact(bound),
            forget_bias=0.0,
            return_sequences=bool(flags and flags[0]),
            go_backwards=self._back,
        )

    def states(self) -> str | None:
        """Return what to pass for the initial states, unless they are zero."""
        origins: list[tuple[str, str]] = []
        for key in ("initial_h", "initial_c"):
            if not _argument(self._operation, key):
                continue
            try:
                value = self._program.constant(self._operation, key) or {}
            except SourceError:
                origins.append((key, self._program.origin(self._operation, key)))
                continue
            tensor = self._program.tensor(value, key)
            if tensor.read().any():
                origins.append((key, "a constant of the program"))
        if not origins:
            return None
        value = self._program.constant(self._operation, "weight_hh") or {}
        units = self._program.tensor(value, "weight_hh").shape[-1]
        return settings.states_to_pass(origins, units, 2 if self._both else 1)

    def _function(self, key: str, default: str) -> Activation:
        name = self._text(key, default)
        function = _FUNCTIONS.get(name)
        if function is None:
            raise SourceError(
                f"{key} of an LSTM is a function whose constants the program does not say",
                where=self.name,
                found=name[:80],
                expected=", ".join(_FUNCTIONS),
            )
        return function

    def _text(self, key: str, default: str) -> str:
        value = self._program.constant(self._operation, key)
        texts = _texts(value or {})
        return texts[0] if texts else default

    def _given(self, key: str) -> Values:
        value = self._program.constant(self._operation, key) or {}
        return dict(value.get("immediate", {}).get("tensor", {}))


def _argument(operation: Values, key: str) -> Sequence[Values]:
    for item in operation.get("inputs", ()):
        if item.get("key") == key:
            bindings: Sequence[Values] = item.get("value", {}).get("arguments", ())
            return bindings
    return ()


def _attribute(operation: Values, key: str) -> Values | None:
    for item in operation.get("attributes", ()):
        if item.get("key") == key:
            return dict(item.get("value", {}))
    return None


def _texts(value: Values) -> Sequence[str]:
    texts: Sequence[str] = (
        value.get("immediate", {}).get("tensor", {}).get("strings", {}).get("values", ())
    )
    return texts
