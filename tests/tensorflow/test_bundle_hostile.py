"""Checkpoints that are damaged, or written to do harm: an equal result, or a typed error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.bundlefiles import (
    STRING,
    block,
    entry,
    masked,
    nested,
    table,
    varint,
    write_bundle,
    write_floats,
)
from support.pace import within
from support.thinned import each

from lstmconvert.errors import CorruptFile, LimitExceeded, LSTMConvertError, NotAModel, SourceError
from lstmconvert.tensorflow.formats import checkpoint
from lstmconvert.tensorflow.formats.checkpoint import Bundle, read_bundle
from lstmconvert.tensorflow.formats.savedmodel import SavedModel, read_saved_model

FIXTURES = Path(__file__).parents[2] / "fixtures"
SAVED = FIXTURES / "tf-2.12.1" / "seed95.savedmodel"
#: A generous bound on any one read of a small file: a hang, not a slow machine, exceeds it.
SECONDS = 5.0


def content(bundle: Bundle) -> object:
    """All that a bundle says, as something that can be compared."""
    tensors = {k: (t.shape, t.dtype.name, t.read().tobytes()) for k, t in bundle.tensors.items()}
    strings = {key: one.read() for key, one in bundle.strings.items()}
    nodes = None if bundle.graph is None else bundle.graph.nodes
    return tensors, strings, dict(bundle.unread), nodes


def outcome(read: Callable[[], object]) -> object:
    """Return what reading gives: a result, or the typed error; any other exception passes."""
    with within(SECONDS):
        try:
            return read()
        except LSTMConvertError as error:
            return error


def copied(source: Path, target: Path) -> Path:
    for suffix in (".index", ".data-00000-of-00001"):
        data = source.with_name(source.name + suffix).read_bytes()
        target.with_name(target.name + suffix).write_bytes(data)
    return target


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "step"), [(".index", 1), (".data-00000-of-00001", 5)])
def test_every_byte_and_every_length(tmp_path: Path, suffix: str, step: int) -> None:
    """Of the data, every fifth: one checksum covers a tensor."""
    source = FIXTURES / "tf-2.12.1" / "seed95.tf_weights" / "ckpt"
    prefix = copied(source, tmp_path / "x")
    path = prefix.with_name(f"x{suffix}")
    good, expected = path.read_bytes(), content(read_bundle(prefix))
    errors = 0
    for index in range(0, len(good), step):
        for changed in (
            good[:index] + bytes([good[index] ^ 0xFF]) + good[index + 1 :],
            good[:index] + bytes([good[index] ^ 0x01]) + good[index + 1 :],
            good[:index],
        ):
            path.write_bytes(changed)
            found = outcome(lambda: content(read_bundle(prefix)))
            if isinstance(found, LSTMConvertError):
                errors += 1
            else:
                assert found == expected, index
    # What may change unseen: the meta index, of 13 bytes and unused, its place, the padding.
    unseen = 2 * (13 + 40) if suffix == ".index" else 0
    assert errors >= 3 * (len(good) // step) - unseen
    path.write_bytes(good)
    assert content(read_bundle(prefix)) == expected


@pytest.mark.parametrize(("name", "step"), [("keras_metadata.pb", 67), ("saved_model.pb", 101)])
def test_bytes_of_a_saved_model(tmp_path: Path, name: str, step: int) -> None:
    """These files have no checksum: another text can come out, but no other kind of error."""
    (tmp_path / "variables").mkdir()
    copied(SAVED / "variables" / "variables", tmp_path / "variables" / "variables")
    for other in ("keras_metadata.pb", "saved_model.pb"):
        (tmp_path / other).write_bytes((SAVED / other).read_bytes())
    path = tmp_path / name
    good = path.read_bytes()
    for index in [*range(20), *range(20, len(good), step)]:
        for changed in (
            good[:index] + bytes([good[index] ^ 0xFF]) + good[index + 1 :],
            good[:index],
        ):
            path.write_bytes(changed)
            found = outcome(lambda: read_saved_model(tmp_path))
            assert isinstance(found, (SavedModel, LSTMConvertError))


def test_a_hand_written_bundle(tmp_path: Path) -> None:
    bundle = read_bundle(write_floats(tmp_path / "x", [1.0, -2.0]))
    assert bundle.tensors["x"].read().tolist() == [1, -2]
    assert bundle.graph is None


def test_a_big_endian_bundle(tmp_path: Path) -> None:
    data = struct.pack(">2f", 1.5, -0.0) + b"\x3f\x80"
    entries = {
        b"x": entry(crc=masked(data[:8])),
        b"y": entry((1,), dtype=14, offset=8, size=2, crc=masked(data[8:])),
    }
    bundle = read_bundle(write_bundle(tmp_path / "x", entries, data, endianness=1))
    assert bundle.tensors["x"].read().tobytes() == struct.pack("<2f", 1.5, -0.0)
    assert bundle.tensors["y"].read().tobytes() == b"\x80\x3f"
    text = struct.pack(">I", masked(struct.pack(">I", 2)))
    data = b"\x02" + text + b"ab"
    crc = masked(struct.pack(">I", 2) + text + b"ab")
    string = {b"s": entry((), dtype=STRING, size=len(data), crc=crc)}
    bundle = read_bundle(write_bundle(tmp_path / "y", string, data, endianness=1))
    assert bundle.strings["s"].read() == (b"ab",)


EIGHT = bytes(8)
GOOD = masked(EIGHT)


@each("record, message",
    [
        (entry(crc=GOOD ^ 1), "bad CRC-32C of a tensor"),
        (entry(crc=GOOD, offset=1), "truncated"),
        (entry(crc=GOOD, offset=1 << 62), "truncated"),
        (entry(crc=GOOD, offset=-8), "no shard"),
        (entry(crc=GOOD, size=-8), "does not agree|no shard"),
        (entry(crc=GOOD, shard=1), "no shard"),
        (entry(crc=GOOD, shard=-1), "no shard"),
        (entry(crc=GOOD, size=4), "does not agree"),
        (entry((3,), crc=GOOD), "does not agree"),
        (entry((1 << 40, 1 << 40), crc=GOOD), "shape is above the limit"),
        (entry((0, 1 << 40, 1 << 40), size=0), "shape is above the limit"),
        (entry((1,) * 9, crc=GOOD), "number of axes"),
        (entry((-1, -2), crc=GOOD), "without a shape"),
        (entry((2,), crc=GOOD, dtype=99), "unknown TensorFlow type"),
        (entry((2,), crc=GOOD, dtype=0), "unknown TensorFlow type"),
        (entry(crc=GOOD, extra=b"\x08"), "cut off"),
        (entry(crc=GOOD, extra=nested(7, b"")), "partition of a variable is missing"),
    ],
)
def test_a_broken_entry(tmp_path: Path, record: bytes, message: str) -> None:
    read_bundle(write_bundle(tmp_path / "good", {b"x": entry(crc=GOOD)}, EIGHT))
    with pytest.raises((CorruptFile, LimitExceeded), match=message):
        content(read_bundle(write_bundle(tmp_path / "x", {b"x": record}, EIGHT)))


def test_tensors_on_the_same_bytes(tmp_path: Path) -> None:
    entries = {b"a": entry(crc=GOOD), b"b": entry(crc=GOOD)}
    with pytest.raises(CorruptFile, match="same bytes"):
        read_bundle(write_bundle(tmp_path / "x", entries, EIGHT))


def test_a_key_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="UTF-8"):
        read_bundle(write_bundle(tmp_path / "x", {b"\xff": entry(crc=GOOD)}, EIGHT))


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"shards": 0}, CorruptFile),
        ({"shards": -1}, CorruptFile),
        ({"shards": 1 << 31}, SourceError),  # the shard of that set is not there
        ({"endianness": 2}, CorruptFile),
        ({"min_consumer": 2}, NotAModel),
    ],
)
def test_a_broken_header(tmp_path: Path, facts: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_bundle(write_bundle(tmp_path / "x", {b"x": entry(crc=GOOD)}, EIGHT, **facts))


def test_an_index_without_a_header(tmp_path: Path) -> None:
    for blocks in ([], [block([(b"x", entry())])]):
        (tmp_path / "x.index").write_bytes(table(blocks))
        with pytest.raises(CorruptFile, match="no header"):
            read_bundle(tmp_path / "x")


def test_stale_shards_are_not_looked_at(tmp_path: Path) -> None:
    prefix = write_floats(tmp_path / "x", [1.0])
    for name in ("x.data-00000-of-00002", "x.data-00001-of-00002", "x.data-00001-of-00001"):
        (tmp_path / name).write_bytes(b"stale")
    bundle = read_bundle(prefix)
    assert [path.name for path in bundle.files] == ["x.index", "x.data-00000-of-00001"]
    assert bundle.tensors["x"].read().tolist() == [1]


def test_large_tensors_are_checked_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_CHECK_NOW", 8)
    entries = {b"a": entry(crc=GOOD), b"b": entry(crc=GOOD ^ 1, offset=8)}
    bundle = read_bundle(write_bundle(tmp_path / "x", entries, bytes(16)))
    good, bad = bundle.tensors["a"], bundle.tensors["b"]
    assert good.read().shape == (2,)
    for read in (bad.read, lambda: bad.rows(0, 1), lambda: bad.columns(0, 1),
                 lambda: bad.elements(1, 2), lambda: next(bad.blocks(4))):  # fmt: skip
        for _ in range(2):  # what failed once fails again
            with pytest.raises(CorruptFile, match=r"x\.data-00000-of-00001: b: bad CRC"):
                read()


def test_an_empty_shard(tmp_path: Path) -> None:
    record = entry((0, 3), size=0, crc=masked(b""))
    bundle = read_bundle(write_bundle(tmp_path / "x", {b"x": record}, b""))
    assert bundle.tensors["x"].read().shape == (0, 3)


def strings(
    lengths: bytes, check: int, text: bytes, crc: int, shape: tuple[int, ...]
) -> tuple[bytes, bytes]:
    data = lengths + struct.pack("<I", check) + text
    return entry(shape, dtype=STRING, size=len(data), crc=crc), data


def test_lying_strings(tmp_path: Path) -> None:
    check = masked(struct.pack("<I", 2))
    crc = masked(struct.pack("<I", 2) + struct.pack("<I", check) + b"ab")
    cases = [
        (strings(b"\x02", check, b"ab", crc, ()), None),
        (strings(b"\x02", check ^ 1, b"ab", crc, ()), "bad CRC"),
        (strings(b"\x02", check, b"ab", crc ^ 1, ()), "bad CRC"),
        (strings(b"\x02", 0, b"ab", masked(struct.pack("<II", 2, 0) + b"ab"), ()), "bad CRC"),
        (strings(b"\x03", check, b"ab", crc, ()), "do not add up"),
        (strings(b"\x01", check, b"ab", crc, ()), "do not add up"),
        (strings(varint((1 << 64) - 1), check, b"ab", crc, ()), "do not add up"),
        (strings(b"\x80" * 11, check, b"ab", crc, ()), "too long"),
        (strings(b"\x02", check, b"ab", crc, (1 << 20,)), "more strings than it has bytes"),
    ]
    for (record, data), message in cases:
        prefix = write_bundle(tmp_path / "x", {b"s": record}, data)
        if message is None:
            assert read_bundle(prefix).strings["s"].read() == (b"ab",)
        else:
            with pytest.raises(CorruptFile, match=message):
                read_bundle(prefix).strings["s"].read()


def test_limits_of_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = write_floats(tmp_path / "x", [1.0, 2.0])
    monkeypatch.setenv("LSTMCONVERT_MAX_TENSOR_BYTES", "7")
    with pytest.raises(LimitExceeded, match="tensor"):
        read_bundle(prefix)
    monkeypatch.setenv("LSTMCONVERT_MAX_PROTOBUF_BYTES", "10")
    with pytest.raises(LimitExceeded, match="checkpoint index"):
        read_bundle(prefix)


def test_many_small_tensors_are_read_fast(tmp_path: Path) -> None:
    count = 3_000
    data = np.arange(count * 64, dtype="<f4").tobytes()
    entries = {
        b"k%06d" % i: entry((64,), offset=256 * i, size=256, crc=masked(data[256 * i :][:256]))
        for i in range(count)
    }
    prefix = write_bundle(tmp_path / "x", entries, data)
    with within(SECONDS):
        assert len(read_bundle(prefix).tensors) == count
