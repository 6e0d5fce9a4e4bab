"""Every road reads its source twice and its hash once, and what it writes once: no more passes.

Counted are the bytes that are asked of files, there and back, for every layout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lstmconvert as lc
from lstmconvert.files import zipmembers
from lstmconvert.layouts.rows import ROWS
from lstmconvert.tensors import tensor as tensors

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))  # which makes files of any size

import models

#: What is read besides the numbers: headers, trees, configs; rows that are read for a part; with
#: each small array, 64 KiB in which its neighbours would be, were they small too.
SLACK = 2_000_000

#: Without a text that is not read, and one of two directions.
LAYOUTS = ["gates", *(name for name in ROWS if name not in ("c", "chainer-bi"))]
#: Those whose biases are looked at before anything is written: then the archive is checked before.
LOOKING = ("haiku", "tf1")


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    lengths: list[int] = []
    original = tensors.read_into

    def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
        lengths.append(len(buffer))
        return original(descriptor, buffer, offset)

    with monkeypatch.context() as patch:
        patch.setattr(tensors, "read_into", read_into)
        yield lengths


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("passes") / "source.keras"
    models.write_archive(path, 384, 2)
    os.utime(path, (0, 0))  # one that was just written is read once more
    return path


@pytest.mark.filterwarnings("ignore::lstmconvert.errors.ConversionWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_more_passes_than_needed(
    layout: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipmembers, "_CHECK_NOW", 0)  # a small member is read once more
    middle, end = tmp_path / "middle.safetensors", tmp_path / "end.keras"
    with counted(monkeypatch) as read:
        lc.convert(source, middle, layout=layout, allow_lossy=True)
    there = source.stat().st_size
    written = middle.stat().st_size
    assert written > there // 2
    assert sum(read) <= (3 + (layout in LOOKING)) * there + written + SLACK
    os.utime(middle, (0, 0))
    with counted(monkeypatch) as read:
        lc.convert(middle, end, from_layout=layout, allow_lossy=True)
    # An archive is read once for its checksum, too.
    assert sum(read) <= 3 * written + 2 * end.stat().st_size + SLACK
