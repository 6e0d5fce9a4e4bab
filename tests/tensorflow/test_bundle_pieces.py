"""Variables in pieces, and graphs of objects: sound ones, and ones made to do harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bundlefiles import (
    STRING,
    child,
    entry,
    graph,
    masked,
    nested,
    number,
    shape_proto,
    write_bundle,
    write_graph,
)
from support.pace import within

from lstmconvert.errors import CorruptFile, LimitExceeded
from lstmconvert.tensorflow.formats.checkpoint import Extent, Slice, read_bundle, slice_key

#: A generous bound on any one read of a small file: a hang, not a slow machine, exceeds it.
SECONDS = 5.0

#: For each axis where a piece begins and how long it is; then its numbers.
Part = tuple[list[tuple[int, int]], list[float]]
TOP: Part = ([(0, 1), (0, 2)], [1, 2])
LOW: Part = ([(1, 1), (0, 2)], [3, 4])


def write_parts(prefix: Path, shape: tuple[int, ...], parts: list[Part], **facts: int) -> Path:
    """Write one variable in pieces."""
    entries, data, slices = {}, b"", b""
    for extents, values in parts:
        numbers = np.array(values, "<f4").tobytes()
        key = slice_key(b"x", Slice(tuple(Extent(*extent) for extent in extents)))
        size = tuple(length for _, length in extents)
        size = size[::-1] if facts.get("turned") else size
        entries[key] = entry(size, offset=len(data), size=len(numbers), crc=masked(numbers))
        data += numbers
        slices += nested(
            7, b"".join(nested(1, number(1, start) + number(2, n)) for start, n in extents)
        )
    entries[b"x"] = number(1, facts.get("dtype", 1)) + nested(2, shape_proto(shape)) + slices
    if facts.get("lost"):
        del entries[min(entries)]
    return write_bundle(prefix, entries, data)


def test_a_grid_of_pieces(tmp_path: Path) -> None:
    whole = np.arange(12.0).reshape(3, 4)
    parts = []
    for top, height in ((0, 2), (2, 1)):
        for left, width in ((1, 3), (0, 1)):
            piece = whole[top : top + height, left : left + width]
            parts.append(([(top, height), (left, width)], piece.reshape(-1).tolist()))
    tensor = read_bundle(write_parts(tmp_path / "x", (3, 4), parts)).tensors["x"]
    assert tensor.read().tolist() == whole.tolist()
    assert np.concatenate(list(tensor.blocks(20))).tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("parts", "facts", "message"),
    [
        ([TOP, TOP], {}, "do not tile"),
        ([TOP], {}, "do not tile"),
        ([TOP, ([(2, 1), (0, 2)], [3, 4])], {}, "outside"),
        ([TOP, ([(-1, 1), (0, 2)], [3, 4])], {}, "outside"),
        ([TOP, ([(1, 1)], [3])], {}, "other axes"),
        ([TOP, LOW], {"lost": 1}, "missing"),
        ([TOP, LOW], {"dtype": 3}, "differ in dtype"),
        ([TOP, LOW], {"turned": 1}, "not of the shape that it fills"),
    ],
)
def test_broken_pieces(
    tmp_path: Path, parts: list[Part], facts: dict[str, int], message: str
) -> None:
    good = read_bundle(write_parts(tmp_path / "good", (2, 2), [TOP, LOW]))
    assert good.tensors["x"].read().tolist() == [[1, 2], [3, 4]]
    with pytest.raises(CorruptFile, match=message):
        read_bundle(write_parts(tmp_path / "x", (2, 2), parts, **facts))


def test_too_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMCONVERT_MAX_PARTITIONS", "1")
    with pytest.raises(LimitExceeded, match="number of partitions"):
        read_bundle(write_parts(tmp_path / "x", (2, 2), [TOP, LOW]))


def value(key: str, name: str = "full") -> bytes:
    """An object's VARIABLE_VALUE."""
    texts = (b"VARIABLE_VALUE", name.encode(), key.encode())
    return nested(2, b"".join(nested(i + 1, text) for i, text in enumerate(texts)))


def test_a_graph_with_cycles(tmp_path: Path) -> None:
    nodes = [
        child(1, "a") + child(0, "self") + child(2, "b"),
        child(0, "up") + child(1, "self") + child(3, "w") + child(2, "next"),
        child(1, "next") + child(3, "v"),
        value("a/w"),
        child(3, "unreachable") + value("lost"),
    ]
    found = read_bundle(write_graph(tmp_path / "x", nodes)).graph
    assert found is not None
    assert found.paths(3) == ("a/w", "b/v")
    assert found.path(3) == "a/w"
    assert found.path(0) == ""
    assert found.path(4) is None
    assert found.paths(0) == ("self", "a/up")
    assert found.find("a/next/next/up/b/v") == 3
    assert found.find("a/none/w") is None
    assert found.find("") == 0
    assert found.keys["a/w"][0] == 3
    assert found.keys["lost"][1].full_name == "full"


@pytest.mark.parametrize(
    "node",
    [
        child(2, "a"),
        child(-1, "a"),
        child(1 << 40, "a"),
        nested(3, number(1, 9) + nested(2, b"m") + number(3, 0)),
        nested(3, number(1, 0) + nested(2, b"m") + number(3, -1)),
    ],
)
def test_edges_that_lead_nowhere(tmp_path: Path, node: bytes) -> None:
    with pytest.raises(CorruptFile, match="does not have"):
        read_bundle(write_graph(tmp_path / "x", [node, b""]))


def test_an_empty_graph(tmp_path: Path) -> None:
    found = read_bundle(write_graph(tmp_path / "x", [])).graph
    assert found is not None
    assert (found.find("a"), found.path(0), found.keys) == (None, None, {})


def test_a_deep_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No recursion, and no terabyte of paths."""
    count = 5_000
    nodes = [child(index + 1, "a") + value(f"k{index}") for index in range(count)] + [b""]
    monkeypatch.setenv("LSTMCONVERT_MAX_PROTOBUF_BYTES", str(len(graph(nodes)) + 100))
    found = read_bundle(write_graph(tmp_path / "x", nodes)).graph
    assert found is not None
    with within(SECONDS):
        assert found.path(count) == "/".join("a" * count)
        with pytest.raises(LimitExceeded, match="object paths"):
            [found.paths(node) for node in range(count)]


def test_an_object_graph_that_is_a_list(tmp_path: Path) -> None:
    prefix = write_graph(tmp_path / "x", [b""])
    record = entry((1,), dtype=STRING)
    write_bundle(prefix, {b"_CHECKPOINTABLE_OBJECT_GRAPH": record}, bytes(8))
    with pytest.raises(CorruptFile, match="not one string"):
        read_bundle(prefix)
