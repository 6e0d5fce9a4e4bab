"""ncnn's `.param`, a text of layers, and its `.bin`, their weights one after another.

    7767517
    2 2                                          layers, blobs
    Input in 0 1 x                               type, name, inputs, outputs, their names
    LSTM lstm 1 1 x y 0=2 1=56 2=0 3=2           … number=value

A weight blob is a four-byte flag (0: float32 follow, 0x01306b47: float16), then its numbers, up to
a multiple of four bytes; a vector of another layer has no flag (ncnn/src/modelbin.cpp; parameters
of an LSTM: src/layer/lstm.cpp). ncnn reads no further than the last layer, so that a line below it
can hold our metadata.

A whole model that is a chain of layers is one net, from blob `model.x` to `model.y`. Otherwise each
LSTM is one, from `<layer>.x` to `<layer>.y`. A sequence has the steps as rows and the features as
columns; Convolution1D, BatchNorm and PReLU want it turned (src/layer/convolution1d.cpp), and
Permute turns it before and after them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing, carries_nothing
from lstmconvert.errors import CorruptFile, SourceError, UnsupportedByTarget
from lstmconvert.files import opening
from lstmconvert.files.jsontext import canonical, parse_object
from lstmconvert.model.activations import LINEAR, ONLY_SIGMOID, ONLY_TANH, Activation, Functions
from lstmconvert.model.chain import Holds, Link
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import DType
from lstmconvert.tensors.streaming import write_to
from lstmconvert.tensors.tensor import FileTensor, Shape, SourceFile, Tensor
from lstmconvert.tensors.views import concatenated

SIGNATURE = b"7767517\n"
#: The suffix of the second file.
SECOND_SUFFIX = ".bin"
_MARK = "# lstmconvert "
_LSTM, _ALONE = "LSTM", "_"
#: The arrays of an LSTM, in their order, and whether each is always there.
_ROLES = {"weight_xc": True, "bias_c": True, "weight_hc": True, "weight_hr": False}
_DTYPES: Mapping[bytes, DType] = {
    bytes(4): np.dtype("<f4"),
    struct.pack("<I", 0x01306B47): np.dtype("<f2"),
}
_FLAGS = {dtype.name: flag for flag, dtype in _DTYPES.items()}
#: Other flags (src/modelbin.cpp): bytes, and float32 with a scale. Any flag but these and those of
#: `_DTYPES` is followed by a table of 256 numbers, of which each byte is one.
_INT8, _RAW = struct.pack("<I", 0x000D4B38), struct.pack("<I", 0x0002C056)
_TABLE_BYTES = 256 * 4

#: Returns a layer's parameter of a number, or else the default that ncnn has for it.
_Number = Callable[[int, int], int]
#: Yields the weight blobs of a layer: how many numbers, and whether a flag says how they lie.
_Weights = Callable[[_Number], Iterable[tuple[int, bool]]]


def _kernels(
    *,
    bias: int = 5,
    weights: int = 6,
    dynamic: int | None = None,
    scales: int | None = None,
    grouped: bool = False,
) -> _Weights:
    """Return the weights of a convolution, or of what is stored like one.

    Args:
        bias, weights, dynamic, scales: the numbers of the parameters that say whether there is a
            bias, how many weights there are, whether they are an input, and whether there are
            scales of 8-bit weights.
        grouped: whether there is one scale for each group.
    """

    def blobs(number: _Number) -> Iterator[tuple[int, bool]]:
        if dynamic is not None and number(dynamic, 0):
            return
        outputs = number(0, 0)
        yield number(weights, 0), True
        if number(bias, 0):
            yield outputs, False
        term = 0 if scales is None else number(scales, 0)
        if term:
            each = number(7, 1) if grouped else outputs
            yield 1 if grouped and term in (2, 102) else each, False
            yield 1, False
        if term > 100:
            yield 1, False

    return blobs


def _vectors(size: int, count: int, affine: int | None = None) -> _Weights:
    """Return the weights of a layer: `count` vectors, if its parameter `affine` is not 0."""

    def blobs(number: _Number) -> Iterator[tuple[int, bool]]:
        if affine is None or number(affine, 1):
            yield from [(number(size, 0), False)] * count

    return blobs


def _recurrent(gates: int, biases: int) -> _Weights:
    """Return the weights of a recurrent layer that is not an LSTM."""

    def blobs(number: _Number) -> Iterator[tuple[int, bool]]:
        units, sides = number(0, 0), 2 if number(2, 0) == 2 else 1
        yield number(1, 0), True
        yield biases * units * sides, True
        yield gates * units * units * sides, True
        if number(8, 0):
            yield from [(gates * units * sides, False)] * 2

    return blobs


def _data(number: _Number) -> Iterator[tuple[int, bool]]:
    width, height, depth, channels = (number(key, 0) for key in (0, 1, 11, 2))
    sizes = (width, height, depth, channels) if depth else (width, height, channels)
    count = prod(sizes if depth or channels else sizes[:2] if height else sizes[:1])
    if count:
        yield count, number(21, 1) == 0


def _gemm(number: _Number) -> Iterator[tuple[int, bool]]:
    rows, columns, inner = (number(key, 0) for key in (7, 8, 9))
    if number(4, 0) == 1:
        yield rows * inner, True
    if number(5, 0) == 1:
        yield inner * columns, True
    shapes = {0: 1, 1: rows, 2: rows, 3: rows * columns, 4: columns}
    if number(6, 0) == 1 and number(10, 0) in shapes:
        yield shapes[number(10, 0)], True


def _attention(number: _Number) -> Iterator[tuple[int, bool]]:
    width, size = number(0, 0), number(2, 0)
    inputs = size // width if width else 0
    for count, bias in (
        (size, width),
        (width * number(3, width), width),
        (width * number(4, width), width),
        (size, inputs),
    ):
        yield count, True
        yield bias, False


def _no_weights(_: _Number) -> Iterator[tuple[int, bool]]:
    yield from ()


#: The parts of the second file that each layer reads (ncnn/src/layer/*.cpp, `load_param`,
#: `load_model`).
_LAYERS: Mapping[str, _Weights] = {
    "InnerProduct": _kernels(bias=1, weights=2, scales=8),
    "Embed": _kernels(bias=2, weights=3),
    "Convolution": _kernels(dynamic=19, scales=8),
    "ConvolutionDepthWise": _kernels(dynamic=19, scales=8, grouped=True),
    **dict.fromkeys(("Convolution1D", "ConvolutionDepthWise1D"), _kernels(dynamic=19)),
    **dict.fromkeys(
        ("Deconvolution", "Deconvolution1D", "DeconvolutionDepthWise", "DeconvolutionDepthWise1D"),
        _kernels(dynamic=28),
    ),
    **dict.fromkeys(("Convolution3D", "ConvolutionDepthWise3D", "DeformableConv2D"), _kernels()),
    **dict.fromkeys(("Deconvolution3D", "DeconvolutionDepthWise3D"), _kernels()),
    "BatchNorm": _vectors(0, 4),
    "Bias": _vectors(0, 1),
    "PReLU": _vectors(0, 1),
    "Normalize": _vectors(3, 1),
    "Padding": _vectors(6, 1),
    "GroupNorm": _vectors(1, 2, 3),
    "InstanceNorm": _vectors(0, 2, 2),
    "LayerNorm": _vectors(0, 2, 2),
    "RMSNorm": _vectors(0, 1, 2),
    # A Scale of -233 takes its numbers from a second input.
    "Scale": lambda number: (
        [(number(0, 0), False)] * (2 if number(1, 0) else 1) if number(0, 0) != -233 else []
    ),
    "Quantize": lambda number: [(number(0, 1), False)],
    "Dequantize": lambda number: [(number(0, 1), False), (number(1, 0), False)],
    "Requantize": lambda number: [
        *((number(0, 1), False), (number(1, 1), False), (number(2, 0), False))
    ],
    "GRU": _recurrent(3, 4),
    "RNN": _recurrent(1, 1),
    "MemoryData": _data,
    "Gemm": _gemm,
    "MultiHeadAttention": _attention,
    **dict.fromkeys(
        (
            *("AbsVal", "ArgMax", "BinaryOp", "BNLL", "Cast", "CELU", "Clip", "Concat", "CopyTo"),
            *("Crop", "CumulativeSum", "DeepCopy", "Diag", "Dropout", "Einsum", "Eltwise", "ELU"),
            *("Erf", "Exp", "ExpandDims", "Flatten", "Flip", "Fold", "GELU", "GLU", "GridSample"),
            *("HardSigmoid", "HardSwish", "Input", "Interp", "InverseSpectrogram", "Log", "LRN"),
            *("MatMul", "Mish", "MVN", "Noop", "Packing", "Permute", "PixelShuffle", "Pooling"),
            *("Pooling1D", "Pooling3D", "Power", "Reduction", "ReLU", "Reorg", "Reshape", "SELU"),
            *("RotaryEmbed", "SDPA", "Shrink", "ShuffleChannel", "Sigmoid", "Slice", "Softmax"),
            *("Softplus", "Spectrogram", "Split", "SPP", "Squeeze", "StatisticsPooling", "Swish"),
            *("TanH", "Threshold", "Tile", "UnaryOp", "Unfold"),
        ),
        _no_weights,
    ),
}
#: Layers whose weights lie packed in blocks where this parameter is not 0.
_PACKED = {"Gemm": 18, "MultiHeadAttention": 18, "Embed": 18}


#: Arrays in one blob, one after another: the name of each, and its shape.
_Parts = list[tuple[str, Shape]]


def _inner_product(number: _Number) -> Iterator[_Parts]:
    outputs = number(0, 0)
    yield [("weight_data", (outputs, number(2, 0) // max(outputs, 1)))]
    yield [("bias_data", (outputs,))]


def _embed(number: _Number) -> Iterator[_Parts]:
    yield [("weight_data", (number(1, 0), number(0, 0)))]
    yield [("bias_data", (number(0, 0),))]


def _convolved(axes: int) -> Callable[[_Number], Iterator[_Parts]]:
    """Return the arrays of a convolution whose window has `axes` axes."""

    def parts(number: _Number) -> Iterator[_Parts]:
        outputs, width = number(0, 0), number(1, 0)
        window = (number(11, width), width)[-axes:]
        yield [("weight_data", (outputs, number(6, 0) // max(outputs * prod(window), 1), *window))]
        yield [("bias_data", (outputs,))]

    return parts


def _named_vectors(size: int, *names: str) -> Callable[[_Number], Iterator[_Parts]]:
    """Return vectors, as long as the parameter `size` says."""

    def parts(number: _Number) -> Iterator[_Parts]:
        for name in names:
            yield [(name, (number(size, 0),))]

    return parts


def _cells(gates: int, *last: str) -> Callable[[_Number], Iterator[_Parts]]:
    """Return the arrays of a recurrent layer, not an LSTM; `last`: its other bias of a gate."""

    def parts(number: _Number) -> Iterator[_Parts]:
        units = number(0, 0)
        sides = ("forward.", "backward.") if number(2, 0) == 2 else ("",)
        inputs = number(1, 0) // max(len(sides) * gates * units, 1)
        yield [(f"{side}weight_xc_data", (gates * units, inputs)) for side in sides]
        biases = [("bias_c_data", (gates * units,)), *((name, (units,)) for name in last)]
        yield [(side + name, shape) for side in sides for name, shape in biases]
        yield [(f"{side}weight_hc_data", (gates * units, units)) for side in sides]

    return parts


#: The arrays that a layer's first blobs hold, under the names that ncnn's own members have
#: (ncnn/src/layer/*.h).
_ARRAYS: Mapping[str, Callable[[_Number], Iterator[_Parts]]] = {
    "InnerProduct": _inner_product,
    "Embed": _embed,
    **dict.fromkeys(("Convolution1D", "ConvolutionDepthWise1D"), _convolved(1)),
    **dict.fromkeys(("Convolution", "ConvolutionDepthWise"), _convolved(2)),
    "BatchNorm": _named_vectors(0, "slope_data", "mean_data", "var_data", "bias_data"),
    "PReLU": _named_vectors(0, "slope_data"),
    "LayerNorm": _named_vectors(0, "gamma_data", "beta_data"),
    # gru.cpp: its four biases are those of R, U and N, and that of N inside the reset gate.
    "GRU": _cells(3, "bias_bn_data"),
    "RNN": _cells(1),
}


@dataclass(frozen=True, slots=True)
class _Layer:
    kind: str
    name: str
    numbers: Mapping[int, int]


def read(file: Opened) -> Arrays:
    """Read the tensors of a file's layers, lazily, and its metadata.

    Layers that are not known here are passed over after the last LSTM, and refused before it.

    Raises:
        CorruptFile, LimitExceeded: it is not of this format, or does not fit the second file.
        SourceError: the second file is missing.
    """
    source = file.source
    try:
        lines = opening.whole_text(source).decode().splitlines()
    except UnicodeDecodeError:
        raise CorruptFile("not a text", where=source.path) from None
    count = _counts(lines, source.path)
    layers = [_layer(line, source.path) for line in lines[2 : 2 + count]]
    last = max((n for n, layer in enumerate(layers) if layer.kind == _LSTM), default=-1)
    layers = [*layers[: last + 1], *takewhile(_is_known, layers[last + 1 :])]
    second = source.path.with_suffix(SECOND_SUFFIX).name
    reader = _Blobs(file.neighbours.only(second, str(source.path)))
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        for role, tensor in reader.of(layer):
            prefix = "" if layer.name == _ALONE else f"{layer.name}."
            if prefix + role in tensors:
                raise CorruptFile("two layers of one name", where=source.path, found=layer.name)
            tensors[prefix + role] = tensor
    texts = [line.removeprefix(_MARK) for line in lines[2 + count :] if line.startswith(_MARK)]
    if not texts:
        return Arrays(tensors, {})
    value = parse_object(texts[0], f"{source.path}: {metadata.KEY}")
    return Arrays(tensors, {metadata.KEY: canonical(value)})


def _counts(lines: list[str], where: object) -> int:
    numbers = lines[1].split() if len(lines) > 1 else []
    if len(numbers) != 2 or not numbers[0].isascii() or not numbers[0].isdigit():
        raise CorruptFile("no count of layers and blobs", where=where, found=str(numbers)[:60])
    count = int(numbers[0][:12])
    if count > len(lines) - 2:
        raise CorruptFile(
            "fewer layers than it says", where=where, found=len(lines) - 2, expected=count
        )
    return count


def _layer(line: str, where: object) -> _Layer:
    words = line.split()
    blobs = [int(word) for word in words[2:4] if word.isascii() and word.isdigit()]
    if len(words) < 4 or len(blobs) != 2 or len(words) < 4 + sum(blobs):
        raise CorruptFile("not a layer", where=where, found=line[:80])
    numbers: dict[int, int] = {}
    for word in words[4 + sum(blobs) :]:
        key, equals, value = word.partition("=")
        if equals and key.isascii() and key.isdigit() and _is_whole(value):
            numbers[int(key[:4])] = int(value)
    return _Layer(words[0], words[1], numbers)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 12


def _is_known(layer: _Layer) -> bool:
    """Whether it is known how much of the second file a layer takes."""
    packed = _PACKED.get(layer.kind)
    is_packed = packed is not None and layer.numbers.get(packed, 0) != 0
    return layer.kind in _LAYERS and not is_packed


class _Blobs:
    """Reads the weights of layer after layer from the second file."""

    def __init__(self, source: SourceFile) -> None:
        self._source, self._offset = source, 0

    def of(self, layer: _Layer) -> Iterator[tuple[str, Tensor]]:
        """Yield a layer's arrays, each with its name; skip what has none."""
        if layer.kind == _LSTM:
            shapes = _shapes(layer, self._source.path)
            yield from ((role, self._blob(shape, layer)) for role, shape in shapes.items())
        else:
            yield from self._other(layer)

    def _other(self, layer: _Layer) -> Iterator[tuple[str, Tensor]]:
        """Yield the arrays of a layer that is not an LSTM, and go past its weights.

        Raises:
            SourceError: its kind is not known here, or it has its weights in packed blocks.
            CorruptFile: they are not where they should be.
        """
        if not _is_known(layer):
            raise SourceError(
                "a layer whose weights are not known here stands before an LSTM's",
                where=self._source.path,
                found=f"{layer.kind} {layer.name}",
                expected="a layer of ncnn itself, with weights as numbers",
                hint="nothing is damaged, but where the LSTM's weights begin is not known: convert "
                "the model that it was made of",
            )
        named = iter(_ARRAYS[layer.kind](layer.numbers.get) if layer.kind in _ARRAYS else ())
        for count, is_flagged in _LAYERS[layer.kind](layer.numbers.get):
            start, size = self._offset, 4 * max(count, 0)
            dtype: DType | None = _DTYPES[bytes(4)]
            if is_flagged:
                flag = bytes(self._source.read_at(start, 4))
                size = _stored(flag, max(count, 0))
                start, dtype = start + 4, _DTYPES.get(flag)
            self._offset += size
            if self._offset > self._source.size:
                raise CorruptFile(
                    "the second file ends inside a layer's weights",
                    where=f"{self._source.path}: {layer.name}",
                    found=self._source.size,
                    expected=f"at least {self._offset}",
                )
            parts = next(named, [])
            # Weights in another form than numbers of 32 or 16 bits have no names.
            if dtype is None or not parts:
                continue
            wanted = sum(prod(shape) for _, shape in parts)
            if wanted != count or not count:  # then what follows is not where it should be
                raise CorruptFile(
                    "the weights of a layer do not fit its outputs",
                    where=f"{self._source.path}: {layer.name}",
                    found=f"{count} numbers",
                    expected=f"{wanted}, or as many for each more input",
                )
            for name, shape in parts:
                tensor = FileTensor(self._source, start, shape, dtype)
                start += tensor.nbytes
                yield name, tensor

    def _blob(self, shape: Shape, layer: _Layer) -> Tensor:
        flag = bytes(self._source.read_at(self._offset, 4))
        if flag not in _DTYPES:
            raise CorruptFile(
                "weights in a form that is not read here",
                where=f"{self._source.path}: {layer.name}",
                found=f"flag 0x{flag[::-1].hex()}",
                expected="float32 or float16",
            )
        tensor = FileTensor(self._source, self._offset + 4, shape, _DTYPES[flag])
        self._offset += 4 + -(-tensor.nbytes // 4) * 4
        return tensor


def _stored(flag: bytes, count: int) -> int:
    """Return how many bytes a blob of `count` numbers takes, with the flag before them."""
    if flag in _DTYPES:
        return 4 + -(-count * _DTYPES[flag].itemsize // 4) * 4
    if flag == _RAW:
        return 4 + 4 * count
    in_bytes = -(-count // 4) * 4
    return 4 + in_bytes if flag == _INT8 else 4 + _TABLE_BYTES + in_bytes


def _shapes(layer: _Layer, where: object) -> dict[str, Shape]:
    output, size = layer.numbers.get(0, 0), layer.numbers.get(1, 0)
    units, direction = layer.numbers.get(3, output), layer.numbers.get(2, 0)
    sides = 2 if direction == 2 else 1
    for amount in (output, units):
        limits.UNITS.check(amount, where, "the number of units")
    is_whole = units > 0 and output > 0 and size > 0 and size % (sides * 4 * units) == 0
    if not is_whole or direction not in (0, 2):
        raise CorruptFile(
            "an LSTM that is not read here",
            where=f"{where}: {layer.name}",
            found=", ".join(f"{key}={value}" for key, value in layer.numbers.items()),
            expected="0=outputs 1=size 2=0 or 2 (direction) 3=units",
        )
    shapes: dict[str, Shape] = {
        "weight_xc": (sides, 4 * units, size // (sides * 4 * units)),
        "bias_c": (sides, 4, units),
        "weight_hc": (sides, 4 * units, output),
    }
    return shapes if output == units else {**shapes, "weight_hr": (sides, output, units)}


#: The functions that it computes, each by a layer: name -> its type, and the numbers of its
#: parameters with the constants that are their values, or numbers (ncnn/src/layer/*.cpp).
_FUNCTIONS: Mapping[str, tuple[str, Mapping[int, str | float]]] = {
    "tanh": ("TanH", {}),
    "sigmoid": ("Sigmoid", {}),
    "relu": ("ReLU", {}),
    "leaky_relu": ("ReLU", {0: "negative_slope"}),
    "elu": ("ELU", {0: "alpha"}),
    "selu": ("SELU", {}),
    "silu": ("Swish", {}),
    "hard_sigmoid": ("HardSigmoid", {0: "alpha", 1: "beta"}),
}
HOLDS = Holds(
    title="ncnn",
    kinds=frozenset(
        {
            *("Dense", "Conv1D", "BatchNormalization", "LayerNormalization", "PReLU"),
            *("Activation", "GRU"),
        }
    ),
    activations=Functions(
        tuple(map(Activation, ("tanh", "sigmoid", "relu", "selu", "silu", "softmax"))),
        (
            ("leaky_relu", ("negative_slope",)),
            ("elu", ("alpha",)),
            ("hard_sigmoid", ("alpha", "beta")),
            ("relu", ("max_value",)),
        ),
    ),
    gru=(ONLY_TANH, ONLY_SIGMOID),
    reset=(True,),
    paddings=("causal", "same", "valid"),
    groups=True,
    # The biases and vectors of these layers have no flag (modelbin.cpp): they are float32.
    dtypes=("float32",),
)


carried = carries_nothing


def write(path: Path, content: Writing) -> None:
    """Write a file and its second file.

    Raises:
        UnsupportedByTarget: a dtype or a name that ncnn does not have, or other tensors.
    """
    if content.second_file is None:
        raise AssertionError("a .param has a file beside it")
    lines: list[str] = []
    blobs = 0
    with open(content.second_file.temporary, "wb") as file:
        for net in _nets(content, file):
            lines += net.lines()
            blobs += net.blobs
    final = content.metadata()
    with open(path, "w", encoding="utf-8", newline="\n") as text:
        text.write(f"{SIGNATURE.decode()}{len(lines)} {blobs}\n")
        text.writelines(f"{line}\n" for line in lines)
        if metadata.KEY in final:
            text.write(f"{_MARK}{final[metadata.KEY]}\n")


def _nets(content: Writing, file: BinaryIO) -> Iterator[_Net]:
    """Yield a net for each layer, or for the whole chain of layers."""
    cells = _cells_by_layer(content)
    chain = content.chain
    if chain is None or chain.is_one_lstm:
        for prefix, layer in content.layers:
            net = _Net(prefix.rstrip(".") or _ALONE, content.tensors, file)
            net.lstm(layer, cells[prefix])
            yield net
        return
    fitted = {layer.name: (layer, cells[prefix]) for prefix, layer in content.layers}
    net = _Net("model", content.tensors, file)
    for link in chain.links:
        if link.layer is not None:
            net.lstm(*fitted[link.name])
        else:
            net.link(link)
    yield net


def _cells_by_layer(content: Writing) -> dict[str, list[str]]:
    """Return the prefix of each layer -> the names of its LSTMs: several of a stack."""
    prefixes = sorted((prefix for prefix, _ in content.layers), key=len, reverse=True)
    cells: dict[str, list[str]] = {prefix: [] for prefix in prefixes}
    for name in content.tensors:
        owner, _, role = name.rpartition(".")
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        if prefix is not None and role in _ROLES and owner not in cells[prefix]:
            cells[prefix].append(owner)
    return cells


@dataclass(slots=True)
class _Line:
    """A layer of a net: its type, name, the blobs that it takes and gives, and its parameters."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: str = ""

    def __str__(self) -> str:
        blobs = f"{len(self.inputs)} {len(self.outputs)}"
        words = (self.kind, self.name, blobs, *self.inputs, *self.outputs, self.numbers)
        return " ".join(filter(None, words))


class _Net:
    """Builds a net from its only input to its only output, and writes the weights as it goes."""

    def __init__(self, name: str, tensors: Mapping[str, Tensor], file: BinaryIO) -> None:
        self._name, self._tensors, self._file = name, tensors, file
        self._lines = [_Line("Input", f"{name}.in", (), (f"{name}.x",))]
        # Whether there is a row for each step, or one step alone; whether rows are the features.
        self._is_sequence, self._is_turned = True, False

    @property
    def blobs(self) -> int:
        """How many blobs it has."""
        return sum(len(line.outputs) for line in self._lines)

    def lines(self) -> list[str]:
        """Return its layers, the last of which gives the net's output."""
        self._turn(self._name, to=False)
        self._lines[-1].outputs = (f"{self._name}.y",)
        return list(map(str, self._lines))

    def _add(
        self,
        kind: str,
        name: str,
        numbers: str = "",
        *,
        inputs: tuple[str, ...] = (),
        outputs: tuple[str, ...] = (),
    ) -> None:
        """Add a layer: it takes the output of the one before it, unless `inputs` says more."""
        if name.split() != [name][: len(name)] or len(name) > _NAME:
            raise _refused(name, "name", name, "layers with names of one word")
        if len(self._lines) == 1 and kind in _IN_PLACE:
            self._add("DeepCopy", f"{self._name}.copy")
        given, made = inputs or self._lines[-1].outputs, outputs or (f"{name}.out",)
        taken = {word for line in self._lines for word in (line.name, *line.outputs)}
        if taken & {name, *made}:  # a layer of the user's is called as one of ours
            raise _refused(name, "name", name, "layers that no other layer is called as")
        self._lines.append(_Line(kind, name, given, made, numbers))

    def _turn(self, name: str, *, to: bool) -> None:
        """Let the rows of the blob be the features, or the steps."""
        if self._is_sequence and self._is_turned is not to:
            self._add("Permute", f"{name}.turned", "0=1")
            self._is_turned = to

    # ---- LSTMs -------------------------------------------------------------------------------

    def lstm(self, layer: LSTMLayer, cells: Sequence[str]) -> None:
        """Add an LSTM layer, whose cells have these names."""
        name, options = cells[0], layer.forward.options
        self._turn(name, to=False)
        if options.go_backwards is True:
            if layer.backward is not None:
                raise _refused(layer.name, "go_backwards of a first half", "True", "False")
            self._add("Flip", f"{name or _ALONE}.flipped", "-23300=1,0")
        for cell in cells:
            start = f"{cell}." if cell else ""
            arrays = {
                role: self._tensors[start + role]
                for role in _ROLES
                if start + role in self._tensors
            }
            self._lstm(cell, arrays)
        if options.return_sequences is not False:
            return
        if layer.backward is None:
            self._last(name or _ALONE)
        else:
            self._ends(name or _ALONE, layer.forward.lstm_cells[-1].recurrent_dim)

    def _lstm(self, name: str, arrays: Mapping[str, Tensor]) -> None:
        if not all(role in arrays for role, always in _ROLES.items() if always):
            raise _refused(name, "arrays", name or "other tensors", "those of an LSTM")
        sides, rows, output = arrays["weight_hc"].shape
        size = arrays["weight_xc"].size
        numbers = f"0={output} 1={size} 2={2 if sides == 2 else 0} 3={rows // 4}"
        self._add(_LSTM, name or _ALONE, numbers)
        for tensor in arrays.values():
            self._write(tensor, name)

    def _last(self, name: str) -> None:
        """Take the last step alone."""
        self._add("Crop", f"{name}.last", f"-23309=1,-1 -23310=1,{_END} -23311=1,0")
        self._flatten(name)

    def _ends(self, name: str, units: int) -> None:
        """Take the last step of the first half, and the first step of the second one."""
        self._add("Split", f"{name}.both", outputs=(f"{name}.a", f"{name}.b"))
        ends = (("a", f"-23309=2,-1,0 -23310=2,{_END},{units}"),
                ("b", f"-23309=2,0,{units} -23310=2,1,{_END}"))  # fmt: skip
        for half, corners in ends:
            self._add("Crop", f"{name}.{half}.last", f"{corners} -23311=2,0,1",
                      inputs=(f"{name}.{half}",))  # fmt: skip
        joined = (f"{name}.a.last.out", f"{name}.b.last.out")
        self._add("Concat", f"{name}.joined", "0=1", inputs=joined)
        self._flatten(name)

    def _flatten(self, name: str) -> None:
        self._add("Reshape", f"{name}.step", "0=-1")
        self._is_sequence = False

    # ---- other layers of a chain -------------------------------------------------------------

    def link(self, link: Link) -> None:
        """Add a layer of a chain that is not an LSTM."""
        start = f"{link.neighbour.replace('/', '.')}."
        arrays = {
            name.removeprefix(start): tensor
            for name, tensor in self._tensors.items()
            if name.startswith(start)
        }
        name = start.removesuffix(".")
        _WRITERS[link.kind](self, link, name, arrays)

    def _activation(self, link: Link, name: str, _: Mapping[str, Tensor]) -> None:
        self._function(link.activation, name)

    def _function(self, function: Activation, name: str) -> None:
        if function == LINEAR:
            return
        constants = function.constants
        if function.name == "softmax":
            self._turn(name, to=False)
            self._add("Softmax", name, f"0={1 if self._is_sequence else 0} 1=1")
        elif "max_value" in constants:
            self._add("Clip", name, f"0={_real(0.0)} 1={_real(constants['max_value'])}")
        else:
            kind, numbers = _FUNCTIONS[function.name]
            values = (
                f"{key}={_real(constants[value] if isinstance(value, str) else value)}"
                for key, value in numbers.items()
            )
            self._add(kind, name, " ".join(values))

    def _dense(self, link: Link, name: str, arrays: Mapping[str, Tensor]) -> None:
        self._turn(name, to=False)
        weight, bias = arrays["weight_data"], arrays.get("bias_data")
        self._add("InnerProduct", name,
                  f"0={link.outputs} 1={int(bias is not None)} 2={weight.size}")  # fmt: skip
        self._weights(weight, bias, name)
        self._function(link.activation, f"{name}.function")

    def _conv1d(self, link: Link, name: str, arrays: Mapping[str, Tensor]) -> None:
        self._turn(name, to=True)
        weight, bias = arrays["weight_data"], arrays.get("bias_data")
        reach = (link.window - 1) * link.dilation
        before = {"valid": 0, "causal": reach, "same": reach // 2}[link.padding]
        after = reach - before if link.padding == "same" else 0
        numbers = (
            f"0={link.outputs} 1={link.window} 2={link.dilation} 4={before} 15={after} "
            f"5={int(bias is not None)} 6={weight.size}"
        )
        if link.groups == 1:
            self._add("Convolution1D", name, numbers)
        else:
            self._add("ConvolutionDepthWise1D", name, f"{numbers} 7={link.groups}")
        self._weights(weight, bias, name)
        self._function(link.activation, f"{name}.function")

    def _weights(self, weight: Tensor, bias: Tensor | None, name: str) -> None:
        self._write(weight, name)
        if bias is not None:
            self._write(bias, name, flagged=False)

    def _batch_normalization(
        self, link: Link, name: str, arrays: Mapping[str, Tensor]
    ) -> None:
        self._turn(name, to=True)
        self._add("BatchNorm", name, f"0={link.outputs} 1={_real(link.epsilon)}")
        for role in ("slope_data", "mean_data", "var_data", "bias_data"):
            self._write(arrays[role], name, flagged=False)

    def _layer_normalization(
        self, link: Link, name: str, arrays: Mapping[str, Tensor]
    ) -> None:
        self._turn(name, to=False)
        affine = int(bool(arrays))
        self._add("LayerNorm", name, f"0={link.outputs} 1={_real(link.epsilon)} 2={affine}")
        for role in ("gamma_data", "beta_data") if affine else ():
            self._write(arrays[role], name, flagged=False)

    def _prelu(self, link: Link, name: str, arrays: Mapping[str, Tensor]) -> None:
        self._turn(name, to=True)
        self._add("PReLU", name, f"0={link.outputs}")
        self._write(arrays["slope_data"], name, flagged=False)

    def _gru(self, link: Link, name: str, arrays: Mapping[str, Tensor]) -> None:
        self._turn(name, to=False)
        self._add("GRU", name, f"0={link.outputs} 1={arrays['weight_xc_data'].size}")
        self._write(arrays["weight_xc_data"], name)
        self._write(concatenated([arrays["bias_c_data"], arrays["bias_bn_data"]]), name)
        self._write(arrays["weight_hc_data"], name)
        if not link.return_sequences:
            self._last(name)

    def _write(self, tensor: Tensor, name: str, *, flagged: bool = True) -> None:
        """Write an array to the second file."""
        if tensor.dtype.name not in _FLAGS:
            raise _refused(name, "dtype", tensor.dtype.name, ", ".join(_FLAGS))
        if flagged:
            self._file.write(_FLAGS[tensor.dtype.name])
        write_to(self._file, tensor)
        self._file.write(bytes(-tensor.nbytes % 4))


#: The longest name that is written: ncnn reads up to 255 characters (src/net.cpp, `load_param`).
_NAME = 200
#: Layers that change their input. ncnn ends the process where that is the memory of its caller
#: (src/net.cpp, `do_forward_layer`, asks how many share it without asking whether that is counted).
_IN_PLACE = frozenset(
    {
        *("BatchNorm", "Clip", "LayerNorm", "PReLU", "Softmax"),
        *(kind for kind, _ in _FUNCTIONS.values()),
    }
)
#: Past the last row of every blob, for Crop.
_END = 2**31 - 1
_WRITERS: Mapping[str, Callable[[_Net, Link, str, Mapping[str, Tensor]], None]] = {
    "Dense": _Net._dense,
    "Conv1D": _Net._conv1d,
    "BatchNormalization": _Net._batch_normalization,
    "LayerNormalization": _Net._layer_normalization,
    "PReLU": _Net._prelu,
    "Activation": _Net._activation,
    "GRU": _Net._gru,
}


def _real(value: float) -> str:
    """Return a float32 in the up to 15 characters that ncnn reads (src/paramdict.cpp)."""
    return f"{float(np.float32(value)):.8e}"


def _refused(name: str, option: str, found: str, expected: str) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        f"ncnn has no such {option}",
        where=name or "ncnn",
        layer=name,
        option=option,
        target="ncnn",
        found=found,
        expected=expected,
        hint="--dtype float32 casts" if option == "dtype" else None,
    )
