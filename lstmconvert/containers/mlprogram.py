"""The LSTMs of a Core ML package (`.mlpackage`), whose model is an ML program.

A program is a list of operations in MIL, Core ML's intermediate language. Each `lstm` among them
names its weights, constants of the program, and says its functions, its clip and its direction
(coremltools/converters/mil/mil/ops/defs/iOS15/recurrent.py). A constant lies in the program, or in
a file of the package (coremltools/mlmodel/src/MILBlob/Blob/StorageFormat.hpp).

Names and numbers of the messages are those of coremltools/mlmodel/format/MIL.proto. Fields that
are not here are not read. A package may also hold a neural network: then it is read as one.

We write each layer as one `lstm` between two `transpose`, with an input `<layer>_x` of (1, time,
inputs) and an output `<layer>_y` of (1, time, width), or (1, width) of a layer that gives its last
output alone. It is the program that coremltools makes of the same arguments.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.containers import arrays, mlmodel, table
from lstmconvert.containers.cheader import identifier
from lstmconvert.containers.modules import Arrays, Asked, Opened, Writing
from lstmconvert.containers.table import Container
from lstmconvert.conversion import Draft, Options
from lstmconvert.errors import CorruptFile, NoLSTM, NotAModel, SourceError, UsageError
from lstmconvert.files import opening
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.files.wire import Schema
from lstmconvert.model import settings
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.layer import Cell, Direction, LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.onnx.functions import exact
from lstmconvert.pergate import metadata
from lstmconvert.tensors.streaming import pour_into, write_to
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
        **{
            kind: mlmodel.MESSAGES[kind]
            for kind in (
                *("ModelDescription", "Metadata", "UserDefined", "FeatureDescription"),
                *("FeatureType", "ArrayFeatureType", "ShapeRange", "SizeRange", "Empty"),
            )
        },
        "Model": {
            "specificationVersion": "1 int32",
            "description": "2 ModelDescription",
            "mlProgram": "502 Program",
        },
        "Program": {"version": "1 int64", "functions": "2* Function_"},
        "Function_": {"key": "1 string", "value": "2 Function"},
        "Function": {"inputs": "1* NamedValue", "opset": "2 string", "blocks": "3* Block_"},
        "Block_": {"key": "1 string", "value": "2 Block"},
        "Block": {"outputs": "2* string", "operations": "3* Operation"},
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
        "NamedValue": {"name": "1 string", "type": "2 Type"},
        "Value": {"type": "2 Type", "immediate": "3 Immediate", "blob": "5 Blob"},
        "Type": {"tensor": "1 TensorType"},
        "TensorType": {
            "dataType": "1 int32",
            "rank": "2 int64",
            "dimensions": "3* Dimension",
        },
        "Dimension": {"constant": "1 Constant", "unknown": "2 Empty"},
        "Constant": {"size": "1 uint64"},
        "Immediate": {"tensor": "1 TensorValue"},
        "TensorValue": {
            "floats": "1 Bytes",
            "ints": "2 Numbers",
            "bools": "3 Flags",
            "strings": "4 Texts",
            "bytes": "7 Bytes",
        },
        "Bytes": {"values": "1 bytes"},
        "Numbers": {"values": "1* int32"},
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
    inner, model = _opened(file)
    program = model.get("mlProgram")
    if program is None:
        row = table.container("mlmodel")
        if row is None:
            raise AssertionError(file.path)
        return arrays.open_model(inner, row, asked)
    return arrays.opened(_arrays(inner, model), inner, _row(), asked)


def read(file: Opened) -> Arrays:
    """Read the arrays of a program's LSTMs. Raises as `open`."""
    return _arrays(*_opened(file))


def _row() -> Container:
    row = table.container("mlpackage")
    if row is None:
        raise AssertionError
    return row


def _opened(file: Opened) -> tuple[Opened, Values]:
    """Open the model in a package, and the files beside it."""
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
    return inner, _SCHEMA.decode("Model", data, path, limits.COREML_MESSAGES)


def _arrays(inner: Opened, model: Values) -> Arrays:
    program = _Program(inner, model.get("mlProgram", {}), _names(model, inner.source))
    return program.arrays()._replace(texts=mlmodel.texts_of(model, inner.source))


def _names(model: Values, source: SourceFile) -> JsonObject:
    """Return our names of the LSTMs whose operations cannot have them."""
    for entry in model.get("description", {}).get("metadata", {}).get("userDefined", ()):
        if entry.get("key") == _NAMES:
            text = entry.get("value", "")
            limits.JSON_BYTES.check(len(text), source.path, "the JSON text")
            return parse_object(text.encode(), f"{source.path}: {_NAMES}")
    return {}


class _Program:
    """The operations of a program, and the constants that they name."""

    def __init__(self, file: Opened, program: Values, names: JsonObject) -> None:
        self._file, self._where, self._names = file, str(file.path), names
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
            name = str(self._names.get(lstm.name, lstm.name))
            prefix, path = f"{name}.", name.replace(".", "/")
            if name == mlmodel.ALONE and len(self._lstms) == 1:
                prefix, path = "", "lstm"
            if path in facts:
                raise CorruptFile("two operations of one name", where=self._where, found=name)
            tensors |= {f"{prefix}{key}": tensor for key, tensor in lstm.arrays()}
            facts[path] = lstm.facts()
            note = lstm.states()
            if note:
                notes.append(f"{name}: {note}")
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


# -- writing ----------------------------------------------------------------------------------

#: Of each dtype: its number in MIL.proto, in StorageFormat.hpp, and in FeatureTypes.proto
#: (ArrayFeatureType.ArrayDataType); the opset, the set of operations, whose `lstm` takes it, and
#: the version of the specification that has that opset (coremltools/__init__.py,
#: `_OPSET`, `_SPECIFICATION_VERSION_IOS_15`, `_17`).
_DTYPES = {
    "float32": (11, 2, 65568, "CoreML5", 6),
    "float16": (10, 1, 65552, "CoreML7", 8),
}
_BOOL, _STRING, _INT32 = 1, 2, 23
#: The most steps: an input of a program has a bound (coremltools/converters/_converters_entry.py).
_STEPS = 65536
#: The file of the numbers, and how they are laid in it: what the file begins with is a count and a
#: version, and each array has its description before it (StorageFormat.hpp).
_BLOBS, _ALIGNED, _BLOB_VERSION = "weight.bin", 64, 2
#: coremltools keeps arrays of fewer numbers in the program (converters/mil/backend/mil/load.py,
#: `should_use_weight_file`).
_FEW = 10
#: What names of a program are (converters/mil/mil/passes, `sanitize_name_strings`), and where our
#: names are of layers that are called otherwise.
_NAME, _NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "lstmconvert.names"
_SPELLED = {ours: theirs for theirs, ours in _FUNCTIONS.items()}
_OPTIONS = {
    "recurrent_activation": "recurrent_activation",
    "cell_activation": "activation",
    "activation": "output_activation",
}
#: The numbers of the two items by which a package names its parts: the same in each package, as
#: they only have to differ from one another.
_ITEMS = {
    "0f5d5cb8-6a3e-4f0e-9a55-1c1b2f3f0a01": ("model.mlmodel", "CoreML Model Specification"),
    "0f5d5cb8-6a3e-4f0e-9a55-1c1b2f3f0a02": ("weights", "CoreML Model Weights"),
}


def draft(model: Model, destination: Path, container: str, how: Options) -> Draft:
    """Return what a package will hold. Raises as `arrays.draft`."""
    row = table.container(container)
    if row is None:
        raise AssertionError(container)
    return arrays.draft(model, destination, row, how.layout or row.layouts[0], how)


def write(path: Path, content: Writing) -> None:
    """Write a package into a folder, which is empty.

    Raises:
        UnsupportedByTarget: the halves differ in an option that Core ML has once.
        UsageError: two layers would have one name.
    """
    inside = path / _MODEL
    (inside.parent / _WEIGHTS).mkdir(parents=True)
    writer = _Writer(content.tensors)
    for prefix, layer in content.layers:
        writer.add(layer, prefix)
    with (inside.parent / _WEIGHTS / _BLOBS).open("wb") as file:
        for at, head in writer.heads():
            file.seek(at)
            file.write(head)
        file.flush()
        places = [writer.places[name] for name in writer.blobs]
        pour_into(file.fileno(), writer.blobs, places, content.sums)
    described = mlmodel.description(content.metadata()[metadata.KEY])
    if writer.names:
        described["userDefined"].append({"key": _NAMES, "value": canonical(writer.names)})
    with inside.open("wb") as file:
        for piece in _SCHEMA.encode("Model", writer.model(described)):
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                write_to(file, piece)
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            key: {
                "author": "com.apple.CoreML",
                "description": description,
                "name": name,
                "path": f"com.apple.CoreML/{name}",
            }
            for key, (name, description) in _ITEMS.items()
        },
        "rootModelIdentifier": next(iter(_ITEMS)),
    }
    (path / "Manifest.json").write_text(f"{canonical(manifest)}\n", "utf-8")


class _Writer:
    """Makes the program of some layers, and lays out the file of its numbers."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._features: dict[str, list[Values]] = {"input": [], "output": []}
        self._inputs: list[Values] = []
        self._operations: list[Values] = []
        self._opset, self._version = _DTYPES["float32"][3:]
        self._end = _ALIGNED
        #: The arrays of the file, and where each begins in it, by a name.
        self.blobs: dict[str, Tensor] = {}
        self.places: dict[str, int] = {}
        #: Names of operations -> ours, where they differ.
        self.names: dict[str, Json] = {}

    def model(self, described: Values) -> Values:
        """Return the whole model.

        Args:
            described: its metadata.
        """
        outputs = [feature["name"] for feature in self._features["output"]]
        block = {"outputs": outputs, "operations": self._operations}
        function = {
            "inputs": self._inputs,
            "opset": self._opset,
            "blocks": [{"key": self._opset, "value": block}],
        }
        return {
            "specificationVersion": self._version,
            "description": {**self._features, "metadata": described},
            "mlProgram": {"version": 1, "functions": [{"key": "main", "value": function}]},
        }

    def heads(self) -> Iterator[tuple[int, bytes]]:
        """Yield what stands before the arrays in their file, and where it goes."""
        yield 0, struct.pack("<II", len(self.blobs), _BLOB_VERSION).ljust(_ALIGNED, b"\0")
        for name, tensor in self.blobs.items():
            kind, at = _DTYPES[tensor.dtype.name][1], self.places[name]
            head = _BLOB.pack(_MARK, kind, tensor.nbytes, at)
            yield at - _ALIGNED, head.ljust(_ALIGNED, b"\0")

    def add(self, layer: LSTMLayer, prefix: str) -> None:
        """Add a layer.

        Args:
            layer: the layer.
            prefix: what the names of its arrays begin with.
        """
        base, both = identifier(layer.name), layer.backward is not None
        if any(feature["name"] == f"{base}_x" for feature in self._features["input"]):
            raise UsageError("two layers would have one name", where=layer.name, found=base)
        if both:
            mlmodel.check_halves(layer, _SHARED)
        ours = prefix.rstrip(".") or mlmodel.ALONE
        name = ours if _NAME.fullmatch(ours) else base
        if name != ours:
            self.names[name] = ours
        cell = layer.forward.lstm_cells[0]
        dtype, _, feature, opset, version = _DTYPES[cell.dtype.name]
        if version > self._version:
            self._opset, self._version = opset, version
        units = cell.units * (2 if both else 1)
        is_whole = layer.forward.options.return_sequences is not False
        x, y = f"{base}_x", f"{base}_y"
        self._feature(x, feature, layer.input_dim)
        self._inputs.append({"name": x, "type": _type(dtype, (1, None, layer.input_dim))})
        turned = _type(dtype, (None, 1, layer.input_dim))
        self._transpose(f"{base}_turned", x, turned)
        given = self._arguments(layer, prefix, f"{base}_", is_whole)
        outputs = (
            (f"{base}_steps" if is_whole else f"{base}_step", (None if is_whole else 1, 1, units)),
            (f"{base}_h" if is_whole else y, (1, units)),
            (f"{base}_c", (1, units)),
        )
        self._operation(
            "lstm",
            name,
            {**given, "x": f"{base}_turned"},
            [{"name": end, "type": _type(dtype, shape)} for end, shape in outputs],
        )
        if is_whole:
            self._transpose(y, f"{base}_steps", _type(dtype, (1, None, units)))
        made = {"dataType": feature, "shape": () if is_whole else (1, units)}
        self._features["output"].append({"name": y, "type": {"multiArrayType": made}})

    def _feature(self, name: str, dtype: int, width: int) -> None:
        ranges = [(1, 1), (1, _STEPS), (width, width)]
        array = {
            "dataType": dtype,
            "shape": (1, 1, width),
            "shapeRange": {
                "sizeRanges": [{"lowerBound": low, "upperBound": high} for low, high in ranges]
            },
        }
        self._features["input"].append({"name": name, "type": {"multiArrayType": array}})

    def _transpose(self, name: str, source: str, made: Values) -> None:
        perm = self._constant(
            f"{name}_perm", _type(_INT32, (3,)), {"ints": {"values": [1, 0, 2]}}
        )
        inputs = {"perm": perm, "x": source}
        self._operation("transpose", name, inputs, [{"name": name, "type": made}])

    def _arguments(
        self, layer: LSTMLayer, prefix: str, start: str, is_whole: bool
    ) -> dict[str, str]:
        """Add the constants that an operation takes, and return their names."""
        both, cell = layer.backward is not None, layer.forward.lstm_cells[0]
        is_back = layer.forward.options.go_backwards is True
        direction = "bidirectional" if both else "reverse" if is_back else "forward"
        units = cell.units * (2 if both else 1)
        zeros = ArrayTensor(np.zeros((1, units), cell.dtype))
        given = {name: self._array(start + name, zeros) for name in ("initial_h", "initial_c")}
        for side in ("", "_back") if both else ("",):
            for role in _ARRAYS:
                tensor = self._tensors.get(f"{prefix}{role}{side}")
                if tensor is not None:
                    given[role + side] = self._array(start + role + side, tensor)
        given["direction"] = self._word(f"{start}direction", direction)
        given["output_sequence"] = self._constant(
            f"{start}output_sequence", _type(_BOOL, ()), {"bools": {"values": [is_whole]}}
        )
        for theirs, ours in _OPTIONS.items():
            function: Any = getattr(cell.options, ours) or cell.options.activation
            given[theirs] = self._word(start + theirs, _SPELLED[function])  # the row allows these
        if cell.options.cell_clip is not None:
            clip = ArrayTensor(np.array(cell.options.cell_clip, cell.dtype))
            given["clip"] = self._array(f"{start}clip", clip)
        return given

    def _array(self, name: str, tensor: Tensor) -> str:
        number = _DTYPES[tensor.dtype.name][0]
        made = _type(number, tensor.shape)
        if tensor.size < _FEW:
            kind = "floats" if tensor.dtype.name == "float32" else "bytes"
            return self._constant(name, made, {kind: {"values": tensor}})
        place = self._end + _ALIGNED
        self.blobs[name], self.places[name] = tensor, place
        blob = {"fileName": f"{_HERE}{_WEIGHTS}/{_BLOBS}", "offset": self._end}
        self._end = -(-(place + tensor.nbytes) // _ALIGNED) * _ALIGNED
        return self._constant(name, made, blob=blob)

    def _word(self, name: str, text: str) -> str:
        return self._constant(name, _type(_STRING, ()), {"strings": {"values": [text]}})

    def _constant(
        self, name: str, made: Values, value: Values | None = None, *, blob: Values | None = None
    ) -> str:
        content: Values = {"blob": blob} if blob else _immediate(value or {})
        self._operation(
            "const", name, {}, [{"name": name, "type": made}], {"val": {"type": made, **content}}
        )
        return name

    def _operation(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, str],
        outputs: list[Values],
        attributes: Mapping[str, Values] | None = None,
    ) -> None:
        named = {"type": _type(_STRING, ()), **_immediate({"strings": {"values": [name]}})}
        self._operations.append(
            {
                "type": kind,
                "inputs": [
                    {"key": key, "value": {"arguments": [{"name": value}]}}
                    for key, value in sorted(inputs.items())
                ],
                "outputs": outputs,
                "attributes": [
                    {"key": key, "value": value}
                    for key, value in {"name": named, **(attributes or {})}.items()
                ],
            }
        )


def _immediate(value: Values) -> Values:
    return {"immediate": {"tensor": value}}


def _type(dtype: int, shape: Sequence[int | None]) -> Values:
    """Return the type of an array; a size of None is not known."""
    sizes: list[Values] = [
        {"unknown": {}} if size is None else {"constant": {"size": size}} for size in shape
    ]
    return {"tensor": {"dataType": dtype, "rank": len(shape), "dimensions": sizes}}


def _function(option: str) -> Callable[[Direction], object]:
    def read(half: Direction) -> object:
        cell: Cell = half.lstm_cells[0]
        return getattr(cell.options, option) or cell.options.activation

    return read


#: What the two halves of a bidirectional `lstm` share.
_SHARED: Mapping[str, Callable[[Direction], object]] = {
    "cell_clip": lambda half: half.lstm_cells[0].options.cell_clip,
    **{option: _function(option) for option in _OPTIONS.values()},
}
