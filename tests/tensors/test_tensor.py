"""Lazily read arrays, their views and casts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lstmconvert.tensors.checksums import crc32c
from lstmconvert.tensors.dtypes import dtype_of, same_bits
from lstmconvert.tensors.streaming import Sums, pour_into
from lstmconvert.tensors.tensor import (
    ArrayTensor,
    Cast,
    Columns,
    SideBySide,
    SourceFile,
    Tensor,
    written_by_us,
)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 4), (0, 3)])
def test_views_and_blocks(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype("f4")
    tensor = ArrayTensor(array)
    assert same_bits(tensor.read(), array)
    for budget in (1, 7, 10_000):
        found = [block.reshape(-1) for block in tensor.blocks(budget)]
        joined = np.concatenate(found) if found else np.zeros(0, "f4")
        assert same_bits(joined, array.reshape(-1))
    for start in range(array.size):
        piece = tensor.elements(start, array.size)
        assert same_bits(piece, array.reshape(-1)[start:])


def test_gates_of_one_array_cost_nothing_to_fuse() -> None:
    class Counted(ArrayTensor):
        reads = 0

        def rows(self, start: int, stop: int) -> Any:
            Counted.reads += 1
            return super().rows(start, stop)

    base = Counted(np.arange(24, dtype="f4").reshape(3, 8))
    parts = tuple(Columns(base, 2 * i, 2 * i + 2) for i in range(4))
    assert same_bits(SideBySide(parts).read(), base._array)
    assert Counted.reads == 1
    turned = SideBySide(parts[::-1]).read()
    assert same_bits(turned[:, :2], np.ascontiguousarray(base._array[:, 6:]))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_small_pieces_of_one_tensor_are_written_and_summed_in_turn(
    tmp_path: Path, count: int
) -> None:
    """Narrow columns of an array of several buffers, before and behind what waits to be written
    together; of all gates, or of some."""
    wide = ArrayTensor(np.random.default_rng(0).normal(size=(700, 1024)).astype("f4"))
    few = ArrayTensor(np.arange(5, dtype="f4"))
    gates = [Columns(wide, 4 * index, 4 * index + 4) for index in range(count)]
    tensors: dict[str, Tensor] = {"a": few}
    tensors.update((f"gate {index}", gate) for index, gate in enumerate(gates))
    tensors |= {"b": few, "empty": ArrayTensor(np.zeros((0, 4), "f4"))}
    ends = list(accumulate([tensor.nbytes for tensor in tensors.values()]))
    offsets = [end - tensor.nbytes for end, tensor in zip(ends, tensors.values(), strict=True)]
    sums, path = Sums(), tmp_path / "poured"
    with open(path, "wb") as file:
        pour_into(file.fileno(), tensors, offsets, sums)
    expected = [tensor.read().tobytes() for tensor in tensors.values()]
    assert path.read_bytes() == b"".join(expected)
    assert sums.passed(tensors) == [crc32c(data) for data in expected]
    passed = dict(zip(tensors, sums.passed(tensors), strict=True))
    assert sums.of(tensors) == {name: crc for name, crc in passed.items() if name != "empty"}


CASTS: list[tuple[str, Callable[[Any], Any]]] = [
    ("float16", lambda a: a.astype("f2")),
    ("bfloat16", lambda a: a.astype(ml_dtypes.bfloat16)),
    ("float64", lambda a: a.astype("f8")),
]


@pytest.mark.parametrize(("name", "wanted"), CASTS)
def test_casts_are_numpys(name: str, wanted: Callable[[Any], Any]) -> None:
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 1e30, 65519.9, 1 + 2**-9, -1e-8]
    array = np.array(special, "f4").reshape(2, 5)
    with np.errstate(over="ignore"):
        assert same_bits(Cast(ArrayTensor(array), dtype_of(name)).read(), wanted(array))


def test_what_this_process_writes_is_not_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(bytes(8))
    with written_by_us([path]):
        ours = SourceFile(path)
        assert ours._looked_at is None
    assert ours.is_closed
    assert SourceFile(path)._looked_at == []
