"""ncnn's `.param`, a text of layers, and the `.bin` beside it, their weights one after another.

    7767517
    2 2                                          layers, blobs
    Input in 0 1 x                               type, name, inputs, outputs, their names
    LSTM lstm 1 1 x y 0=2 1=56 2=0 3=2           … number=value

A weight blob is a four-byte flag (0: float32 follow, 0x01306b47: float16), then its numbers, up to
a multiple of four bytes (ncnn/src/modelbin.cpp; parameters of an LSTM: src/layer/lstm.cpp). ncnn
reads no further than the last layer, so that our metadata have a place in a line below it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmconvert import files, limits, metadata
from lstmconvert.containers.arrays import Beside
from lstmconvert.dtypes import DType, little_endian
from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.jsontext import canonical, parse_object
from lstmconvert.neighbours import Neighbours
from lstmconvert.tensors import FileTensor, Shape, SourceFile, Tensor

SIGNATURE = b"7767517\n"
#: The suffix of the file beside.
BESIDE = ".bin"
_MARK = "# lstmconvert "
_LSTM, _ALONE = "LSTM", "_"
#: The arrays of an LSTM, in their order, and whether each is always there.
_ROLES = {"weight_xc": True, "bias_c": True, "weight_hc": True, "weight_hr": False}
_DTYPES: Mapping[bytes, DType] = {
    bytes(4): np.dtype("<f4"),
    struct.pack("<I", 0x01306B47): np.dtype("<f2"),
}
_FLAGS = {dtype.name: flag for flag, dtype in _DTYPES.items()}
#: Layers without weights; of any other, where the next one's begin is not known here.
_WEIGHTLESS = frozenset(
    {
        *("Input", "Noop", "Split", "Concat", "Slice", "Crop", "Padding", "Interp", "Dropout"),
        *("Reshape", "Permute", "Flatten", "Squeeze", "ExpandDims", "Pooling", "Pooling1D"),
        *("ReLU", "Sigmoid", "TanH", "Softmax", "HardSigmoid", "GELU", "Swish", "ELU", "Clip"),
        *("BinaryOp", "UnaryOp", "Eltwise", "Reduction"),
    }
)


@dataclass(frozen=True, slots=True)
class _Layer:
    kind: str
    name: str
    numbers: Mapping[int, int]


def read(source: SourceFile, beside: Neighbours) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a file's LSTMs, lazily, and its metadata.

    Raises:
        CorruptFile, LimitExceeded: it is not of this format, or does not fit the file beside.
        SourceError: there is no file beside.
    """
    try:
        lines = files.whole_text(source).decode().splitlines()
    except UnicodeDecodeError:
        raise CorruptFile("not a text", where=source.path) from None
    count = _counts(lines, source.path)
    layers = [_layer(line, source.path) for line in lines[2 : 2 + count]]
    # What lies behind the last LSTM is not looked at.
    while layers and layers[-1].kind != _LSTM:
        layers.pop()
    reader = _Blobs(beside.only(source.path.with_suffix(BESIDE).name, str(source.path)))
    found: dict[str, Tensor] = {}
    for layer in layers:
        for role, tensor in reader.of(layer):
            prefix = "" if layer.name == _ALONE else f"{layer.name}."
            if prefix + role in found:
                raise CorruptFile("two layers of one name", where=source.path, found=layer.name)
            found[prefix + role] = tensor
    texts = [line.removeprefix(_MARK) for line in lines[2 + count :] if line.startswith(_MARK)]
    if not texts:
        return found, {}
    value = parse_object(texts[0], f"{source.path}: {metadata.KEY}")
    return found, {metadata.KEY: canonical(value)}


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


class _Blobs:
    """Reads the weights of layer after layer from the file beside."""

    def __init__(self, source: SourceFile) -> None:
        self._source, self._offset = source, 0

    def of(self, layer: _Layer) -> Iterator[tuple[str, Tensor]]:
        """Yield an LSTM's arrays by role; step over what another layer has."""
        if layer.kind == _LSTM:
            shapes = _shapes(layer, self._source.path)
            yield from ((role, self._blob(shape, layer)) for role, shape in shapes.items())
        elif layer.kind == "InnerProduct":
            self._blob((max(layer.numbers.get(2, 0), 0),), layer)
            # A bias is read as it is, without a flag.
            bias = layer.numbers.get(0, 0) if layer.numbers.get(1, 0) else 0
            self._offset += 4 * max(bias, 0)
        elif layer.kind not in _WEIGHTLESS:
            raise CorruptFile(
                "a layer whose weights are not known here stands before an LSTM's",
                where=self._source.path,
                found=f"{layer.kind} {layer.name}",
                expected="LSTM, InnerProduct, and layers without weights",
            )

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


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    texts: Callable[[], Mapping[str, str]],
    beside: Beside,
) -> None:
    """Write a file and the one beside it. The other arguments are those of `safetensors.write`.

    Raises:
        UnsupportedByTarget: a dtype or a name that ncnn does not have, or other tensors.
    """
    texts()
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
    lines = []
    with open(beside.temporary, "xb") as file:
        for name in names:
            start = f"{name}." if name else ""
            arrays = {role: tensors[start + role] for role in _ROLES if start + role in tensors}
            lines += _lines(name, arrays)
            for tensor in arrays.values():
                file.write(_FLAGS[_known(tensor, name).dtype.name])
                for block in tensor.blocks():
                    file.write(little_endian(block).tobytes())
                file.write(bytes(-tensor.nbytes % 4))
    final = texts()
    with open(path, "x", encoding="utf-8", newline="\n") as text:
        text.write(f"{SIGNATURE.decode()}{len(lines)} {len(lines)}\n")
        text.writelines(f"{line}\n" for line in lines)
        if metadata.KEY in final:
            text.write(f"{_MARK}{final[metadata.KEY]}\n")


def _lines(name: str, arrays: Mapping[str, Tensor]) -> list[str]:
    is_whole = all(role in arrays for role, always in _ROLES.items() if always)
    if not is_whole or name.split() != [name][: len(name)] or len(name) > 200:
        raise _refused(name, "name", name or "other tensors", "LSTMs with names of one word")
    sides, rows, output = arrays["weight_hc"].shape
    own = name or _ALONE
    numbers = f"0={output} 1={arrays['weight_xc'].size} 2={2 if sides == 2 else 0} 3={rows // 4}"
    return [f"Input {own}.in 0 1 {own}.x", f"{_LSTM} {own} 1 1 {own}.x {own}.y {numbers}"]


def _known(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype.name not in _FLAGS:
        raise _refused(name, "dtype", tensor.dtype.name, ", ".join(_FLAGS))
    return tensor


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
