"""The safetensors reader against the library: both read the same, and refuse the same."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from support.growth import check_linear
from support.thinned import ALL, each

from lstmconvert.errors import CorruptFile, LimitExceeded, SourceError
from lstmconvert.files import safetensors
from lstmconvert.files.opening import open_source
from lstmconvert.tensors.dtypes import SAFETENSORS

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def is_theirs(path: Path) -> bool:
    """Whether the library reads a file."""
    try:
        with safe_open(path, "np") as file:
            list(file.keys())
    except SafetensorError:
        return False
    return True


FINE = [
    {}, {"a": F32}, {"a": F32, "__metadata__": {"x": "y"}}, {"a": F32, "__metadata__": None},
    {"a": F32, "__metadata__": {}}, {"a": {**F32, "shape": [2, 1]}},
    {"a": {"dtype": "F32", "shape": [], "data_offsets": [4, 8]},
     "b": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}},
    {"a": F32, "b": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}},
    {"a": {"dtype": "BOOL", "shape": [8], "data_offsets": [0, 8]}},
    {"a": {**F32, "more": 1}},
]  # fmt: skip
REFUSED = [
    {"a": {**F32, "shape": [3]}}, {"a": {**F32, "data_offsets": [0, 4]}},
    {"a": {**F32, "shape": 2}},
    {"a": {**F32, "data_offsets": [4, 12]}}, {"a": {**F32, "data_offsets": [0, 8, 8]}},
    {"a": {**F32, "data_offsets": [8, 0]}}, {"a": {**F32, "shape": [-2]}}, {"a": {"dtype": "F32"}},
    {"a": {**F32, "shape": [2.0]}}, {"a": {**F32, "shape": [True, 2]}}, {"a": 1}, {"a": None},
    {"a": {**F32, "dtype": "F33"}}, {"a": {**F32, "dtype": ["F32"]}}, {"a": {**F32, "dtype": None}},
    {"a": {**F32, "data_offsets": "08"}}, {"a": {**F32, "shape": ["2"]}},
    {"a": F32, "b": F32}, {"a": F32, "__metadata__": {"x": 1}}, {"a": F32, "__metadata__": []},
    {"a": {**F32, "shape": [1 << 63, 4]}}, {"a": {**F32, "shape": [1 << 64]}},
    {"a": {**F32, "shape": [1 << 62, 1 << 62, 0], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}, "b": F32},
    b"[]", b"", b" {}", b'{"a": ', b"\xff{}", b'"', b"null",
]  # fmt: skip


@pytest.mark.parametrize("header", FINE)
def test_what_the_library_reads_is_read(header: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", header, bytes(range(8)) if header else b"")
    assert is_theirs(path)
    tensors, metadata = safetensors.read(open_source(path))
    with safe_open(path, "np") as file:
        assert metadata == (file.metadata() or {})
        assert tensors.keys() == set(file.keys())
        for name, tensor in tensors.items():
            theirs = file.get_tensor(name)
            assert (tensor.shape, tensor.dtype) == (theirs.shape, theirs.dtype)
            assert tensor.read().tobytes() == theirs.tobytes()


@each("header", REFUSED)
def test_what_the_library_refuses_is_refused(header: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", header)
    assert not is_theirs(path)
    with pytest.raises((CorruptFile, LimitExceeded)):
        safetensors.read(open_source(path))


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    """The library takes the later one."""
    entry = json.dumps(F32)
    path = written(tmp_path / "a.safetensors", f'{{"a": {entry}, "a": {entry}}}'.encode())
    assert is_theirs(path)
    with pytest.raises(CorruptFile, match="appears twice"):
        safetensors.read(open_source(path))


@pytest.mark.parametrize("size", [0, 7, 8, 9, 40, 70])
def test_a_file_that_is_cut(size: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", {"a": F32})
    path.write_bytes(path.read_bytes()[:size])
    assert not is_theirs(path)
    with pytest.raises(SourceError):
        safetensors.read(open_source(path))


def test_every_dtype(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    kinds = [name for name in SAFETENSORS if not name.startswith(("float8", "bfloat"))]
    save_file({name: np.ones(3, name) for name in kinds}, path)
    tensors, _ = safetensors.read(open_source(path))
    assert {name: tensor.dtype.name for name, tensor in tensors.items()} == {x: x for x in kinds}


def test_a_file_that_has_another_name_by_now(tmp_path: Path) -> None:
    """What is checked is what was opened."""
    path = written(tmp_path / "a.safetensors", {"a": F32})
    source = open_source(path)
    written(tmp_path / "b.safetensors", b"[]").replace(path)
    assert safetensors.read(source)[0].keys() == {"a"}


def test_growth_by_count(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}

    def reading(count: int) -> Callable[[], Any]:
        header = dict.fromkeys(map(str, range(count)), empty)
        path = written(tmp_path / "a.safetensors", header, b"")
        return lambda: safetensors.read(open_source(path))

    check_linear(reading)


def _read(path: Path) -> Any:
    """What is read of a file, or that it is refused."""
    try:
        tensors, texts = safetensors.read(open_source(path))
    except (CorruptFile, LimitExceeded):
        return None
    return {name: (t.shape, t.dtype.name, t.read().tobytes()) for name, t in tensors.items()}, texts


def test_metadata_whose_texts_look_like_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = ['x"},', '"},"', '"},\\', "\\" * 20, 'y\\"},', '"}', "", '{"a":{"b":"c"},"d":1}']
    texts = {f"{number}{end}": end for number, end in enumerate(ends)}
    for size in (20, 21, 22, 1 << 20):
        monkeypatch.setattr(safetensors, "_PIECE", size)
        for end in ends:
            metadata = {**texts, "z": end}
            header = json.dumps({"__metadata__": metadata, "a": F32}, separators=(",", ":"))
            source = open_source(written(tmp_path / "a.safetensors", header.encode()))
            assert safetensors.read(source)[1] == metadata
            tensors, none = safetensors.read(source, with_metadata=False)
            assert tensors.keys() == {"a"}
            # All is read where it is not sure: after many backslashes.
            assert none == ({} if size > 99 and end != ends[3] else none)


def _new_bytes(text: bytes, at: int) -> Sequence[bytes]:
    every = (b"", b'"', b"\\", b"}", b"0", b"\xff", b"\x00", text[at : at + 1] * 2)
    return every if ALL else (every[at % 8], every[(at + 3) % 8])


def _spellings() -> list[bytes]:
    """Headers as the library spells them, and each with one byte changed, doubled or left out."""
    texts = {"a": 'say "é\n', "\u2028": "\\ud800", "b": "\U0001f600"}
    headers = [
        *FINE, *(header for header in REFUSED if isinstance(header, dict)),
        {"__metadata__": texts, "a": F32, 'n"é': {**F32, "shape": [0], "data_offsets": [8, 8]}},
        {"a": {**F32, "shape": [1], "data_offsets": [0, 4]},
         "b": {**F32, "shape": [1, 1], "data_offsets": [4, 8]}},
    ]  # fmt: skip
    compact = [
        json.dumps(header, separators=(",", ":"), ensure_ascii=is_ascii).encode()
        for header in headers
        for is_ascii in (True, False)
    ]
    changed = [
        text[:at] + new + text[at + 1 :]
        for text in compact[-4:-1]
        for at in range(len(text))
        for new in _new_bytes(text, at)
    ]
    return [*compact, *changed]


@pytest.mark.slow
def test_the_short_road_reads_what_the_long_one_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers that are spelled as usual are read without their JSON: with the same result."""
    path, plain, took = tmp_path / "x.safetensors", safetensors._plain, [0]

    def counted(*arguments: Any) -> Any:
        answer = plain(*arguments)
        took[0] += answer is not None
        return answer

    for header in _spellings():
        written(path, header)
        monkeypatch.setattr(safetensors, "_plain", counted)
        short = _read(path)
        monkeypatch.setattr(safetensors, "_plain", lambda *_: None)
        assert short == _read(path), header
        assert short is None or is_theirs(path), header
    assert took[0] > 15  # the others are spelled otherwise, or damaged
