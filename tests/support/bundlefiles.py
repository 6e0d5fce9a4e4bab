"""Writes checkpoints by hand, so that tests can write the ones that TensorFlow would not."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from lstmconvert.tensors.checksums import crc32c

FLOAT, STRING = 1, 7
#: The end of a block: one restart point, at its begin.
RESTARTS = struct.pack("<II", 0, 1)
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def varint(value: int) -> bytes:
    """Encode an integer, a negative one as its 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    """Encode a varint field."""
    return varint(field << 3) + varint(value)


def nested(field: int, payload: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def fixed32(field: int, value: int) -> bytes:
    """Encode a fixed32 field."""
    return varint(field << 3 | 5) + struct.pack("<I", value)


def masked(data: bytes) -> int:
    """Return the masked CRC of bytes."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def header(shards: int = 1, endianness: int = 0, min_consumer: int = 0) -> bytes:
    """Encode a BundleHeaderProto."""
    version = nested(3, number(1, 1) + number(2, min_consumer))
    return number(1, shards) + number(2, endianness) + version


def shape_proto(shape: tuple[int, ...]) -> bytes:
    """Encode a TensorShapeProto."""
    return b"".join(nested(2, number(1, size)) for size in shape)


def entry(
    shape: tuple[int, ...] = (2,),
    *,
    dtype: int = FLOAT,
    shard: int = 0,
    offset: int = 0,
    size: int = 8,
    crc: int = 0,
    extra: bytes = b"",
) -> bytes:
    """Encode a BundleEntryProto."""
    place = number(3, shard) + number(4, offset) + number(5, size) + fixed32(6, crc)
    return number(1, dtype) + nested(2, shape_proto(shape)) + place + extra


def block(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """Encode a table's block with its trailer; no key shares a prefix."""
    body = b"".join(b"\0" + varint(len(k)) + varint(len(v)) + k + v for k, v in entries)
    return sealed(body + RESTARTS, kind)


def sealed(body: bytes, kind: int = 0) -> bytes:
    """Append a block's trailer."""
    stored = body + bytes([kind])
    return stored + struct.pack("<I", masked(stored))


def table(blocks: list[bytes], index: bytes | None = None) -> bytes:
    """Encode a table of finished blocks."""
    out, handles = b"", []
    for one in blocks:
        handles.append((b"\xff%08d" % len(handles), varint(len(out)) + varint(len(one) - 5)))
        out += one
    index = block(handles) if index is None else index
    footer = varint(0) + varint(0) + varint(len(out)) + varint(len(index) - 5)
    return out + index + footer.ljust(40, b"\0") + MAGIC


def write_bundle(prefix: Path, entries: dict[bytes, bytes], data: bytes, **facts: int) -> Path:
    """Write an index of these entries, and one shard."""
    records = [(b"", header(**facts)), *sorted(entries.items())]
    prefix.with_name(f"{prefix.name}.index").write_bytes(table([block(records)]))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix


def write_floats(prefix: Path, values: list[float]) -> Path:
    """Write a bundle of one vector, `x`."""
    data = np.array(values, "<f4").tobytes()
    record = entry((len(values),), size=len(data), crc=masked(data))
    return write_bundle(prefix, {b"x": record}, data)


def graph(nodes: list[bytes]) -> bytes:
    """Encode a TrackableObjectGraph."""
    return b"".join(nested(1, node) for node in nodes)


def child(node: int, name: str) -> bytes:
    """Encode an edge of an object."""
    return nested(1, number(1, node) + nested(2, name.encode()))


def write_graph(prefix: Path, nodes: list[bytes]) -> Path:
    """Write a bundle of an object graph and nothing else."""
    text = graph(nodes)
    sizes = np.array([len(text)], "<u4").tobytes()
    check = struct.pack("<I", masked(sizes))
    data = varint(len(text)) + check + text
    record = entry((), dtype=STRING, size=len(data), crc=masked(sizes + check + text))
    return write_bundle(prefix, {b"_CHECKPOINTABLE_OBJECT_GRAPH": record}, data)
