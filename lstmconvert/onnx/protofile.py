"""Writing a model file, streaming: the library makes every message but not the weights' bytes.

A protocol buffer is its fields one after another, so that a file is

    ModelProto without its graph · tag and length of the graph ·
    GraphProto without its initializers · for each: tag and length ·
        TensorProto without its numbers · tag and length of raw_data · the numbers ·
    metadata_props

(https://protobuf.dev/programming-guides/encoding; field numbers: onnx/onnx.proto). The numbers go
from file to file through a few megabytes of memory, and the metadata comes last, when the hash of
the source is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from lstmconvert.dtypes import Array
from lstmconvert.onnx.types import NUMBERS
from lstmconvert.streaming import pour, write_at
from lstmconvert.tensors import Tensor

#: Field numbers with wire type 2, "a length and that many bytes".
_GRAPH = bytes([7 << 3 | 2])
_INITIALIZER = bytes([5 << 3 | 2])
_RAW_DATA = bytes([9 << 3 | 2])


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a tensor's numbers lie in a data file beside: its name there, offset and length."""

    location: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model file is made of.

    Fields: `model`: without a graph; `graph`: without the weights; `weights`: name -> tensor;
    `placed`: where the numbers are, if they lie in a data file.
    """

    model: onnx.ModelProto
    graph: onnx.GraphProto
    weights: Mapping[str, Tensor]
    placed: Mapping[str, Placed] | None = None

    def size(self) -> int:
        """The size of the file in bytes, without metadata."""
        graph = len(_bytes(self.graph)) + sum(
            len(_framed(_INITIALIZER, head, length)) + len(head) + length
            for head, length in self._initializers().values()
        )
        return len(_bytes(self.model)) + len(_framed(_GRAPH, b"", graph)) + graph

    def _initializers(self) -> dict[str, tuple[bytes, int]]:
        """Return each TensorProto up to its numbers, and their length here."""
        result = {}
        for name, tensor in self.weights.items():
            proto = onnx.TensorProto(
                name=name, dims=tensor.shape, data_type=NUMBERS[tensor.dtype.name]
            )
            if self.placed is None:
                head = _bytes(proto) + _RAW_DATA + varint(tensor.nbytes)
                result[name] = head, tensor.nbytes
            else:
                result[name] = _bytes(_external(proto, self.placed[name])), 0
        return result

    def write(self, path: Path, metadata: Callable[[], Mapping[str, str]]) -> None:
        """Write the file, which must not exist.

        Args:
            path: the file.
            metadata: called once, after the weights are written.
        """
        with open(path, "xb") as file:
            heads = self._initializers()
            graph = _bytes(self.graph)
            framed = {n: _framed(_INITIALIZER, h, size) + h for n, (h, size) in heads.items()}
            length = len(graph) + sum(len(framed[n]) + size for n, (_, size) in heads.items())
            start = _bytes(self.model) + _framed(_GRAPH, b"", length) + graph
            offsets, end = {}, len(start)
            file.write(start)
            for name, (_, size) in heads.items():
                file.seek(end)
                file.write(framed[name])
                offsets[name] = end + len(framed[name])
                end = offsets[name] + size
            file.truncate(end)
            file.flush()

            def sink(name: str, offset: int, piece: Array) -> None:
                write_at(file.fileno(), offsets[name] + offset, piece)

            if self.placed is None:
                pour(self.weights, sink)
            file.seek(end)
            file.write(_bytes(_metadata(metadata())))


def _external(proto: onnx.TensorProto, placed: Placed) -> onnx.TensorProto:
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (
        ("location", placed.location),
        ("offset", placed.offset),
        ("length", placed.length),
    ):
        entry = proto.external_data.add()
        entry.key, entry.value = key, str(value)
    return proto


def _metadata(texts: Mapping[str, str]) -> onnx.ModelProto:
    """Return a message that holds nothing but metadata: appended, it is part of the model."""
    model = onnx.ModelProto()
    for key in sorted(texts):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, texts[key]
    return model


def _bytes(message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _framed(tag: bytes, head: bytes, rest: int) -> bytes:
    """Return the tag and length of a message that is `head` and `rest` more bytes."""
    return tag + varint(len(head) + rest)


def varint(value: int) -> bytes:
    """Return an integer as protobuf writes it, seven bits a byte."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
