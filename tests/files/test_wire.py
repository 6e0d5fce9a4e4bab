"""Messages of a table, against the protobuf library: what it writes is read, and the other way."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.protobuf import class_of, pool_of
from support.thinned import rounds

from lstmconvert.errors import CorruptFile, LimitExceeded
from lstmconvert.files import wire
from lstmconvert.files.wire import Schema, encoded
from lstmconvert.limits import Limit
from lstmconvert.tensors.tensor import ArrayTensor, SourceFile, Tensor

TABLE = {
    "Tree": {
        "name": "1 string",
        "raw": "2 bytes",
        "count": "3 int64",
        "size": "4 uint64",
        "flag": "5 bool",
        "scale": "6 float",
        "child": "20 Tree",
        "names": "7* string",
        "counts": "8* int64",
        "scales": "9* float",
        "flags": "10* bool",
        "children": "3000* Tree",
        "nothing": "21 Empty",
    },
    "Empty": {},
}
SCHEMA = Schema(TABLE)
MOST = Limit("test_messages", 1000, "a test")
PACKAGE = "lstmconvert.trees"
POOL = pool_of(TABLE, PACKAGE)
Tree: Any = class_of(POOL, PACKAGE, "Tree")

_SIGNED = st.integers(-(1 << 63), (1 << 63) - 1)
_SINGLE = st.floats(width=32, allow_nan=False)
_LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(max_size=5),
    "raw": st.binary(max_size=5),
    "count": _SIGNED,
    "size": st.integers(0, (1 << 64) - 1),
    "flag": st.booleans(),
    "scale": _SINGLE,
    "names": st.lists(st.text(max_size=3), max_size=3),
    "counts": st.lists(_SIGNED, max_size=3),
    "scales": st.lists(_SINGLE, max_size=3),
    "flags": st.lists(st.booleans(), max_size=3),
    "nothing": st.just({}),
}
TREES = st.recursive(
    st.fixed_dictionaries({}, optional=_LEAVES),
    lambda inner: st.fixed_dictionaries(
        {}, optional={**_LEAVES, "child": inner, "children": st.lists(inner, max_size=2)}
    ),
    max_leaves=5,
)


def fill(message: Any, tree: dict[str, Any]) -> Any:
    """Give a message of the library what a dictionary has."""
    for name, value in tree.items():
        if name in ("child", "nothing"):
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif name == "children":
            for inner in value:
                fill(message.children.add(), inner)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


def stated(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a dictionary without what proto3 does not write: zeros and empty lists."""
    kept: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            kept[name] = stated(value)
        elif name == "children" and value:
            kept[name] = [stated(inner) for inner in value]
        elif value or (isinstance(value, float) and math.copysign(1, value) < 0):
            kept[name] = value
    return kept


def decode(data: bytes) -> dict[str, Any]:
    return SCHEMA.decode("Tree", data, "x", MOST)


@settings(max_examples=rounds(200), deadline=None)
@given(TREES)
def test_against_the_library(tree: dict[str, Any]) -> None:
    theirs = fill(Tree(), tree).SerializeToString(deterministic=True)
    assert decode(theirs) == stated(tree)
    ours = b"".join(map(bytes, SCHEMA.encode("Tree", tree)))
    back = Tree.FromString(ours)
    assert back.SerializeToString(deterministic=True) == theirs
    assert b"".join(map(bytes, SCHEMA.encode("Tree", decode(ours)))) == theirs


@pytest.mark.parametrize("at_once", [0, 3, 64])
def test_a_file_is_read_as_its_bytes_are(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is read piece by piece, at every place where it may be cut off."""
    monkeypatch.setattr(wire, "_AT_ONCE", at_once)
    inner = {"name": "é" * 40, "raw": bytes(90), "counts": [1, -2], "scales": [0.5] * 30}
    tree = {**inner, "child": {**inner, "child": inner}, "children": [inner, {}]}
    data = b"".join(map(bytes, SCHEMA.encode("Tree", tree)))
    (tmp_path / "x").write_bytes(b"before" + data)
    source = SourceFile(tmp_path / "x")

    def read(size: int) -> Any:
        try:
            return _in_memory(SCHEMA.decode("Tree", wire.Stretch(source, 6, size), "x", MOST))
        except CorruptFile as error:
            return str(error)

    def meant(size: int) -> Any:
        try:
            return decode(data[:size])
        except CorruptFile as error:
            return str(error)

    for size in (*range(0, len(data), 7), len(data)):
        assert read(size) == meant(size)
    large = SCHEMA.decode("Tree", wire.Stretch(source, 6, len(data)), "x", MOST)["raw"]
    assert isinstance(large, wire.Stretch) == (at_once < 90)


def _in_memory(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_memory(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_memory(item) for item in value]
    return bytes(value) if isinstance(value, wire.Stretch) else value


def test_a_tensor_is_a_piece_that_is_not_read() -> None:
    array = np.arange(100, dtype="<f4")
    pieces = SCHEMA.encode("Tree", {"child": {"raw": ArrayTensor(array)}, "count": 1})
    written = [p.read().tobytes() if isinstance(p, Tensor) else p for p in pieces]
    assert sum(isinstance(piece, Tensor) for piece in pieces) == 1
    assert decode(b"".join(written)) == {"child": {"raw": array.tobytes()}, "count": 1}


def field(number: int, wire: int, payload: bytes) -> bytes:
    return encoded(number << 3 | wire) + payload


def nested(number: int, payload: bytes) -> bytes:
    return field(number, 2, encoded(len(payload)) + payload)


def test_what_the_library_takes_too() -> None:
    unpacked = field(8, 0, encoded(1)) + field(8, 0, encoded(-2)) + nested(8, encoded(3))
    assert decode(unpacked) == {"counts": [1, -2, 3]}
    assert Tree.FromString(unpacked).counts == [1, -2, 3]
    parts = nested(20, nested(1, b"a")) + nested(20, field(5, 0, b"\1"))
    assert decode(parts) == {"child": {"name": "a", "flag": True}}
    assert Tree.FromString(parts).child.name == "a"
    assert decode(nested(99, b"?") + field(3, 0, b"\1") + field(3, 0, b"\2")) == {"count": 2}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (field(1, 0, b"\1"), "another wire type"),
        (nested(3, b"\1"), "another wire type"),
        (field(20, 5, struct.pack("<f", 1)), "another wire type"),
        (nested(1, b"\xff"), "not valid UTF-8"),
        (nested(9, b"\0\0\0"), "cut off"),
        (nested(8, b"\xff"), "cut off"),
        (field(1, 2, b"\5abc"), "longer than its message"),
    ],
)
def test_what_is_damaged(data: bytes, message: str) -> None:
    with pytest.raises(CorruptFile, match=message):
        decode(data)


def test_bounds() -> None:
    data = b""
    for _ in range(101):
        data = nested(20, data + field(5, 0, b"\1"))
    with pytest.raises(CorruptFile, match="deep"):
        decode(data)
    with pytest.raises(LimitExceeded, match="the number of messages"):
        decode(nested(3000, b"") * 1001)
    with pytest.raises(LimitExceeded, match="the number of messages"):
        decode(nested(7, b"") * 1001)
