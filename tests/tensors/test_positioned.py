"""Reading and writing at an offset, with the calls of POSIX and without them."""

from __future__ import annotations

import gc
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.crafted import FIXTURES

import lstmconvert as lc
from lstmconvert.errors import CorruptFile
from lstmconvert.files.opening import open_source
from lstmconvert.tensors import tensor
from lstmconvert.tensors.checksums import checking_later
from lstmconvert.tensors.tensor import SourceFile, write_whole


@pytest.fixture(params=["as it is", "as on Windows"], autouse=True)
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "as on Windows":
        for name in ("preadv", "pread", "pwrite", "pwritev"):
            monkeypatch.delattr(os, name, raising=False)


def test_threads_read_what_they_ask_for(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(1 << 20)
    path = tmp_path / "a"
    path.write_bytes(data)
    source = open_source(path)

    def is_right(start: int) -> bool:
        return source.read_at(start, 999) == data[start : start + 999]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, range(0, len(data) - 999, 1009)))
    with pytest.raises(CorruptFile, match="truncated"):
        source.read_at(len(data) - 5, 6)
    assert source.read_at(len(data), 0) == b""


def test_pieces_are_written_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with open(path, "wb") as file:
        file.truncate(10)
        for start in (5, 0):
            write_whole(file.fileno(), bytes(range(start, start + 5)), start)
    assert path.read_bytes() == bytes(range(10))


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    source = open_source(path)
    os.truncate(path, 10)
    with pytest.raises(CorruptFile, match="changed while it was read"):
        source.read_at(0, 50)


def test_small_arrays_are_read_with_what_is_near(tmp_path: Path) -> None:
    """Whatever the order, and over the borders of the blocks that are kept."""
    data = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes()
    (tmp_path / "a").write_bytes(data)
    source = open_source(tmp_path / "a")
    for offset in (0, 70_000, 65_530, 10, 131_060, 199_990, 0):
        for length in (0, 5, 10):
            buffer = bytearray(length)
            source.read_near(memoryview(buffer), offset)
            assert buffer == data[offset : offset + length]


def test_a_change_is_seen_in_what_was_read_with_its_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    source = open_source(path)
    source.read_near(memoryview(bytearray(10)), 0)
    path.write_bytes(b"1" * 101)
    with pytest.raises(CorruptFile, match="changed"):
        source.read_near(memoryview(bytearray(10)), 50)
    source = open_source(path)

    def read_twice() -> None:
        with checking_later():
            source.read_near(memoryview(bytearray(10)), 0)
            path.write_bytes(b"2" * 101)
            source.read_near(memoryview(bytearray(10)), 50)

    with pytest.raises(CorruptFile, match="changed"):
        read_twice()


@pytest.mark.parametrize("name", ["seed95.keras", "seed95.weights.h5"])
def test_a_small_file_is_read_once_and_closed_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the garbage collector: nothing that holds the file is in a cycle."""
    path = Path(shutil.copy(FIXTURES / name, tmp_path))
    os.utime(path, (0, 0))  # what was written just now is looked at twice
    reads: list[int] = []
    real = SourceFile._read

    def read(self: SourceFile, buffer: memoryview, offset: int) -> None:
        if self.path == path:
            reads.append(len(buffer))
        real(self, buffer, offset)

    monkeypatch.setattr(SourceFile, "_read", read)
    gc.disable()
    try:
        lc.convert(path, tmp_path / "a.safetensors", warn=False)
        assert path not in [source.path for source in tensor._open]
    finally:
        gc.enable()
    assert reads == [path.stat().st_size]


def test_a_change_of_what_is_kept_is_seen_where_no_time_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    source = open_source(path)
    monkeypatch.setattr(SourceFile, "_is_as_it_was", lambda *_: True)
    source.read_at(0, 10)

    def read_again() -> None:
        with checking_later():
            assert source.read_at(50, 10) == bytes(10)
            path.write_bytes(b"1" * 100)

    with pytest.raises(CorruptFile, match="changed"):
        read_again()
