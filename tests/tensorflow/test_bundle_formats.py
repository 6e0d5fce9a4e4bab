"""The small formats below a checkpoint: CRC-32C, snappy, protocol buffers, tables, keys."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundlefiles import (
    RESTARTS,
    block,
    fixed32,
    header,
    nested,
    number,
    sealed,
    table,
    varint,
)
from support.pace import within
from support.thinned import each, rounds

from lstmconvert.errors import CorruptFile, LimitExceeded, LSTMConvertError, NotAModel
from lstmconvert.files import wire
from lstmconvert.tensorflow.formats import checkpoint, objectgraph, savedmodel
from lstmconvert.tensorflow.formats.checkpoint import SortedTable, decompress
from lstmconvert.tensors.checksums import crc32c, unmask
from lstmconvert.tensors.tensor import SourceFile


def slow_crc(data: bytes, crc: int = 0) -> int:
    """The CRC as its definition reads, bit by bit."""
    crc ^= 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),  # RFC 3720, B.4, and the check value of the CRC catalogue
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc_of_known_data(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


@settings(max_examples=rounds(60), deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2**32 - 1), st.integers(0, 99))
def test_crc_of_any_length_in_any_pieces(one: int, two: int, crc: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(one + two)
    assert crc32c(data, crc) == slow_crc(data, crc)
    assert crc32c(data[one:], crc32c(data[:one], crc)) == crc32c(data, crc)


def test_crc_of_more_than_a_chunk() -> None:
    data = np.random.default_rng(0).bytes((1 << 18) + 12_345)
    crc = 0
    for start in range(0, len(data), 200):  # pieces that the byte loop takes
        crc = crc32c(data[start : start + 200], crc)
    assert crc32c(data) == crc == crc32c(memoryview(data)) == crc32c(bytearray(data))


def test_crc_is_fast() -> None:
    data = bytes(32 << 20)
    with within(2.0):  # 0.1 s on a quiet machine; 5 s in a loop over words
        crc32c(data)


def test_unmask() -> None:
    crc = 0x12345678
    assert unmask(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF) == crc


SNAPPY = [
    (b"\x00", b""),
    (b"\x05\x10hello", b"hello"),
    (b"\x0a\x04ab" + b"\x11\x02", b"ab" * 5),  # copy of 8 from 2 back, over its own end
    (b"\x08\x0cabcd\x0e\x04\x00", b"abcdabcd"),  # 16-bit offset
    (b"\x08\x0cabcd\x0f\x04\x00\x00\x00", b"abcdabcd"),  # 32-bit offset
    (b"\x50\xf0\x4f" + bytes(80), bytes(80)),  # a literal with its length in one byte more
    (varint(300) + b"\xf4\x2b\x01" + bytes(300), bytes(300)),  # in two bytes
]


@pytest.mark.parametrize(("stored", "plain"), SNAPPY)
def test_snappy(stored: bytes, plain: bytes) -> None:
    assert bytes(decompress(memoryview(stored), "x")) == plain


@each("stored, message",
    [
        (b"", "cut off"),
        (b"\x05\x10hell", "a literal is cut off"),
        (b"\x04\x10hello", "longer than it declares"),
        (b"\x02\x04ab" + b"\x11\x02" * 1000 + b"\x12", "longer than it declares"),  # at once
        (b"\x06\x10hello", "shorter than it declares"),
        (b"\x04\x01\x01", "before the block"),
        (b"\x08\x0cabcd\x0e\x05\x00", "before the block"),
        (b"\x08\x0cabcd\x0e\x00\x00", "before the block"),
        (b"\x08\x0cabcd\x0e\x04", "a copy is cut off"),
        (b"\xff\xff\xff\xff\x0f\x00a", "above the limit"),
    ],
)
def test_snappy_refuses(stored: bytes, message: str) -> None:
    with pytest.raises((CorruptFile, LimitExceeded), match=message):
        decompress(memoryview(stored), "x")


@settings(max_examples=rounds(300), deadline=None)
@given(st.binary(max_size=60))
def test_snappy_of_anything_ends_well(stored: bytes) -> None:
    with contextlib.suppress(CorruptFile, LimitExceeded):
        decompress(memoryview(stored), "x")


@dataclass(frozen=True, slots=True)
class Inner:
    value: int = wire.integer(1)


@dataclass(frozen=True, slots=True)
class Outer:
    number: int = wire.integer(1)
    name: str = wire.text(2)
    inner: Inner | None = wire.message(3, Inner)
    many: tuple[Inner, ...] = wire.messages(4, Inner)
    check: int = wire.fixed32(5)
    maybe: int | None = wire.integer(6, default=None)
    raw: bytes = wire.blob(8)
    names: tuple[str, ...] = wire.texts(9)


def parse(data: bytes) -> Outer:
    return wire.Parser("x").parse(Outer, data)


def test_a_message() -> None:
    data = (
        number(1, -3)
        + nested(2, "é".encode())
        + nested(3, number(1, 5))
        + nested(4, b"")
        + nested(4, number(1, 7))
        + fixed32(5, 0xFFFFFFFF)
        + number(6, 0)
        + nested(8, b"\xff")
        + nested(9, b"a")
        + nested(9, b"b")
        + number(100, 1)
        + nested(101, b"unknown")
        + varint(102 << 3 | 1)
        + bytes(8)
    )
    many = (Inner(0), Inner(7))
    assert parse(data) == Outer(-3, "é", Inner(5), many, 0xFFFFFFFF, 0, b"\xff", ("a", "b"))
    assert parse(b"") == Outer()
    assert parse(b"").maybe is None


@each("data, message",
    [
        (b"\x08", "cut off"),
        (b"\x08" + b"\x80" * 10 + b"\x00", "too long"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "too long"),  # 65 bits
        (b"\x12\x05a", "longer than its message"),
        (b"\x12" + varint(1 << 63) + b"a", "longer than its message"),
        (b"\x2d\x01\x02", "longer than its message"),
        (b"\x00\x01", "number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (nested(1, b"a"), "another wire type"),
        (number(1, 1) * 2, "appears twice"),
        (nested(3, b"") * 2, "appears twice"),
        (nested(2, b"\xff"), "UTF-8"),
        (nested(3, b"\x08"), "cut off"),
    ],
)
def test_a_broken_message(data: bytes, message: str) -> None:
    with pytest.raises(CorruptFile, match=message):
        parse(data)


def test_messages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMCONVERT_MAX_PROTOBUF_MESSAGES", "10")
    assert len(parse(nested(4, b"") * 9).many) == 9
    with pytest.raises(LimitExceeded, match="number of messages"):
        parse(nested(4, b"") * 10)


@settings(max_examples=rounds(300), deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    with contextlib.suppress(CorruptFile):
        parse(data)


def test_no_message_holds_itself() -> None:
    """Nesting is bounded because the classes are: no recursion on what a file says."""

    def walk(kind: type, above: tuple[type, ...]) -> None:
        assert kind not in above
        module = vars(__import__(kind.__module__, fromlist=["_"]))
        for hint in get_type_hints(kind, module).values():
            for inner in getattr(hint, "__args__", (hint,)):
                if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                    walk(inner, (*above, kind))

    for module in (checkpoint, objectgraph, savedmodel):
        for kind in vars(module).values():
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                walk(kind, ())


def test_spans_step_over_what_is_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.pb"
    data = (
        number(1, 1) + nested(2, bytes(1000)) + fixed32(3, 1) + nested(4, b"here") + nested(4, b"")
    )
    path.write_bytes(data)
    source = SourceFile(path)
    whole = wire.MessageSpan(source, 0, source.size)
    assert [bytes(span.read()) for span in whole.find(4)] == [b"here", b""]
    path.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(CorruptFile, match="longer than its message"):
        list(wire.MessageSpan(SourceFile(path), 0, len(data)).find(4))


def open_table(path: Path, data: bytes) -> list[tuple[bytes, bytes]]:
    path.write_bytes(data)
    return [(key, bytes(value)) for key, value in SortedTable(SourceFile(path))]


def test_a_table_of_two_blocks_one_compressed(tmp_path: Path) -> None:
    plain = block([(b"c", b"3")])
    body = b"\0\1\1a1" + b"\1\1\1b2" + RESTARTS  # the second key shares one byte: "ab"
    literal = varint(len(body)) + bytes([len(body) - 1 << 2]) + body
    found = open_table(tmp_path / "t", table([sealed(literal, 1), plain]))
    assert found == [(b"a", b"1"), (b"ab", b"2"), (b"c", b"3")]


@each("data, message",
    [
        (table([block([(b"b", b"")]), block([(b"a", b"")])]), "out of order"),
        (table([block([(b"a", b""), (b"a", b"")])]), "out of order"),
        (table([sealed(b"\1\1\0a" + RESTARTS)]), "does not fit"),  # shares with no key
        (table([sealed(b"\0\1\x09a" + RESTARTS)]), "does not fit"),
        (table([sealed(bytes(3))]), "too short"),
        (table([sealed(b"\xff\xff\xff\x7f")]), "too short"),  # two billion restarts
        (table([sealed(RESTARTS, 7)]), "compression 7"),
        (table([block([])[:-1] + b"!"]), "CRC"),
        (table([], block([(b"a", varint(1 << 40) + varint(9))])), "outside"),
        (table([], block([(b"a", varint(0) + varint((1 << 64) - 1))])), "outside"),
        (table([], block([(b"a", b"\x80")])), "cut off"),
        (table([block([(b"a", b"")])], block([(b"a", b"\0\x0c"), (b"b", b"\0\x0c")])), "overlap"),
    ],
)
def test_a_broken_table(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CorruptFile, match=message):
        open_table(tmp_path / "t", data)


def test_not_a_table(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="truncated"):
        open_table(tmp_path / "t", table([block([])])[:-1])


def test_long_keys_of_short_entries_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTMCONVERT_MAX_PROTOBUF_BYTES", "1000000")
    long = b"\0" + varint(10_000) + b"\0" + bytes(10_000)
    body = long + b"".join(varint(10_000) + b"\1\0" + bytes([i]) for i in range(1, 200))
    with pytest.raises(LimitExceeded, match="length of the keys"):
        open_table(tmp_path / "t", table([sealed(body + RESTARTS)]))


@settings(max_examples=rounds(150), deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=30))
def test_any_blocks_are_a_table_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, index: bytes, footer: bytes
) -> None:
    """The CRCs hold, so that what is behind them is reached."""
    path = tmp_path_factory.getbasetemp() / "any-table"
    for bytes_ in (table([sealed(data)]), table([sealed(data)], sealed(index))):
        for whole in (bytes_, bytes_[:-48] + footer.ljust(40, b"\0") + bytes_[-8:]):
            with contextlib.suppress(LSTMConvertError):
                open_table(path, whole)


@pytest.mark.parametrize(
    ("extents", "key"),
    [
        ([(0, 7)], b"\x00x\x00\x01\x01\x01\x80\x87"),
        ([(0, None), (64, 1000)], b"\x00x\x00\x01\x01\x02\x80\x7f\xc0\x40\xc3\xe8"),
        ([(70_000, 1)], b"\x00x\x00\x01\x01\x01\xe1\x11\x70\x81"),
    ],
)
def test_keys_of_slices(extents: list[tuple[int, int | None]], key: bytes) -> None:
    part = checkpoint.Slice(tuple(checkpoint.Extent(start, length) for start, length in extents))
    assert checkpoint.slice_key(b"x", part) == key


def test_integers_of_every_length() -> None:
    values = [0, 1, 127, 128, 2**14, 2**31 - 1, 2**35, 2**63 - 1, -1, -(2**63)]
    packed = b"".join(varint(value) for value in values)
    assert checkpoint._varints(packed, "x").tolist() == values
    assert checkpoint._varints(b"", "x").tolist() == []
    for broken in (packed + b"\x80", b"\x80" * 11 + b"\x01"):
        with pytest.raises(CorruptFile, match="cut off"):
            checkpoint._varints(broken, "x")


def test_the_header_helper_is_what_tensorflow_writes() -> None:
    assert header() == b"\x08\x01\x10\x00\x1a\x04\x08\x01\x10\x00"
