"""No number is handed out before its checksum, whoever asks for it; and no file that changes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import run
from support.crafted import FIXTURES
from support.neutral import from_keras_weights

import lstmconvert as lc
from lstmconvert.errors import CorruptFile
from lstmconvert.files import opening, writing, zipmembers
from lstmconvert.files.opening import open_source
from lstmconvert.onnx import write as onnx_write
from lstmconvert.tensorflow.formats import checkpoint
from lstmconvert.tensors import checksums, tensor
from lstmconvert.tensors.checksums import checking_later
from lstmconvert.tensors.tensor import CheckedTensor

TF = FIXTURES.parent / "tf-2.12.1"


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small members and tensors are checked as they are opened."""
    monkeypatch.setattr(zipmembers, "_CHECK_NOW", 0)
    monkeypatch.setattr(checkpoint, "_CHECK_NOW", 0)


def _flipped(path: Path, kernel: bytes) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(kernel)
    data[at + 5] ^= 1
    path.write_bytes(data)


def _keras(folder: Path) -> Path:
    return Path(shutil.copy(FIXTURES / "seed95.keras", folder))


def _gates(name: str, **options: Any) -> Callable[[Path], Path]:
    """Makes a file of ours."""

    def make(folder: Path) -> Path:
        path = folder / name
        with pytest.MonkeyPatch.context() as patch:
            if name == "two.onnx":
                patch.setattr(onnx_write, "PROTOBUF_BYTES", 1000)
            lc.convert(FIXTURES / "seed95.keras", path, **options)
        return path

    return make


def _checkpoint(folder: Path) -> Path:
    shutil.copytree(TF / "seed95.tf_weights", folder / "tf")
    return folder / "tf" / "ckpt"


#: Those of ours keep one gate's kernel by itself.
OURS = {
    "safetensors": _gates("a.safetensors"),
    "npz": _gates("a.npz"),
    "onnx": _gates("a.onnx"),
    "onnx in two files": _gates("two.onnx"),
    "whole onnx": _gates("a.onnx", whole=True),
}
SOURCES = {"keras": _keras, "checkpoint": _checkpoint, **OURS}
CONFIG = FIXTURES / "seed95.config.json"
#: Who asks for numbers.
ASKING: dict[str, Callable[[Path, Path], Any]] = {
    "touch": lambda path, _: next(iter(lc.load(path).values())).forget_gate.kernel,
    "save": lambda path, out: lc.save(lc.load(path), out / "a.safetensors"),
    "save a layer": lambda path, out: lc.save(
        next(iter(lc.load(path).values())), out / "a.safetensors"
    ),
    "convert": lambda path, out: lc.convert(path, out / "a.h5", config=CONFIG),
    "a layout": lambda path, out: lc.convert(
        path, out / "b.safetensors", layout="torch", config=CONFIG
    ),
    "two files": lambda path, out: lc.convert(path, out / "a.param", config=CONFIG),
    "onnx": lambda path, out: lc.convert(path, out / "a.onnx", config=CONFIG),
    "arrange": lambda path, _: lc.arrange(next(iter(lc.load(path).values())), "flax"),
    "diff": lambda path, _: lc.diff(path, FIXTURES / "seed95.keras"),
    "verify": lambda path, _: lc.verify(lc.load(path, config=CONFIG), engines=["numpy"]),
}


def kernel_of(path: Path) -> bytes:
    """How a kernel is stored: one gate's in our own files, the four of them in Keras's."""
    layer = next(iter(lc.load(path).values()))
    whole = layer.forward.lstm_cells[0].fused("kernel").read().tobytes()
    is_ours = path.suffix in (".npz", ".onnx", ".safetensors")
    return layer.forget_gate.kernel.tobytes() if is_ours else whole


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("kind", SOURCES)
def test_a_flipped_bit_is_found_before(kind: str, asking: str, tmp_path: Path) -> None:
    path, out = SOURCES[kind](tmp_path), tmp_path / "out"
    out.mkdir()
    files = [file for file in path.parent.iterdir() if file.is_file()]
    kernel = kernel_of(path)
    hit = next(file for file in files if kernel in file.read_bytes())
    ASKING[asking](path, out)
    shutil.rmtree(out)
    out.mkdir()
    _flipped(hit, kernel)
    lc.load(path)  # what says where the numbers are is whole
    with pytest.raises(CorruptFile, match="bad CRC-32"):
        ASKING[asking](path, out)
    assert not os.listdir(out)


@pytest.mark.parametrize("kind", ["keras", "safetensors", "onnx"])
@pytest.mark.parametrize("options", [["--stats"], ["--values"]])
def test_inspect_tells_none(options: list[str], kind: str, tmp_path: Path) -> None:
    path = SOURCES[kind](tmp_path)
    _flipped(path, kernel_of(path))
    done = run("inspect", path, *options)
    assert done.code == 2
    assert "bad CRC-32" in done.err


@pytest.mark.engines
@pytest.mark.parametrize("kind", ["keras", "safetensors"])
def test_a_live_layer_gets_none(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = SOURCES[kind](tmp_path)
    _flipped(path, kernel_of(path))
    layer = next(iter(lc.load(path).values()))
    with pytest.raises(CorruptFile, match="bad CRC-32"):
        lc.to_torch(layer)


def test_a_member_that_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it comes, with nothing patched: above 16 MiB."""
    monkeypatch.undo()
    layer = next(iter(lc.load(FIXTURES / "seed95.keras").values()))
    wide = np.random.default_rng(0).standard_normal((4400, 1100)).astype("f4")
    path = tmp_path / "a.npz"
    np.savez(path, **{"lstm.weight_ih_l0": wide, "lstm.weight_hh_l0": wide,
                      "lstm.bias_ih_l0": wide[:, 0], "lstm.bias_hh_l0": wide[:, 0]})  # fmt: skip
    model = lc.load(path)
    assert next(iter(model.values())).units == 1100
    assert layer.units == 2
    _flipped(path, wide[7].tobytes())
    found = next(iter(lc.load(path).values()))
    with pytest.raises(CorruptFile, match="bad CRC-32"):
        found.forget_gate.kernel  # noqa: B018  # it reads


# --- one tensor -----------------------------------------------------------------------------------


def checked(folder: Path, crc: int | None = None) -> tuple[CheckedTensor, np.ndarray[Any, Any]]:
    values = np.arange(20_000, dtype="<f4").reshape(1000, 20)  # of a file that is not kept whole
    path = folder / "a"
    path.write_bytes(b"head" + values.tobytes())
    crc = checksums.crc32c(values.tobytes()) if crc is None else crc
    return CheckedTensor(open_source(path), 4, (1000, 20), np.dtype("<f4"), crc, "a"), values


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths that are read."""
    found: list[int] = []
    real = tensor.SourceFile._read

    def read(self: Any, buffer: memoryview, offset: int) -> None:
        found.append(len(buffer))
        real(self, buffer, offset)

    monkeypatch.setattr(tensor.SourceFile, "_read", read)
    return found


def test_one_pass_reads_and_checks(tmp_path: Path, reads: list[int]) -> None:
    one, values = checked(tmp_path)
    one.source._looked_at = None  # as of a file that was written long ago
    reads.clear()
    assert one.read().tobytes() == values.tobytes()
    assert sum(reads) == values.nbytes
    one.rows(3, 4)
    assert sum(reads) == values.nbytes + 80  # it is known to be right
    two, _ = checked(tmp_path)
    two.source._looked_at = None
    reads.clear()
    with checking_later():
        blocks = b"".join(block.tobytes() for block in two.blocks(4000))
    assert blocks == values.tobytes()
    assert sum(reads) == values.nbytes


def test_parts_are_checked_by_a_pass_of_their_own(tmp_path: Path, reads: list[int]) -> None:
    for later in (False, True):
        one, values = checked(tmp_path)
        one.source._looked_at = None
        reads.clear()
        if later:
            with checking_later():
                assert one.rows(5, 6).tobytes() == values[5].tobytes()
        else:
            assert one.rows(5, 6).tobytes() == values[5].tobytes()
        assert sum(reads) == values.nbytes + 80


def test_what_is_read_in_a_block_is_checked_at_its_end(tmp_path: Path) -> None:
    bad, _ = checked(tmp_path, crc=1)
    with pytest.raises(CorruptFile, match="bad CRC-32C"), checking_later():
        bad.rows(5, 6)
    for _ in range(2):
        with pytest.raises(CorruptFile, match="bad CRC-32C"):
            bad.rows(5, 6)
    with pytest.raises(CorruptFile, match="bad CRC-32C"), checking_later():
        list(bad.blocks(400))


def test_another_thread_checks_at_once(tmp_path: Path) -> None:
    bad, _ = checked(tmp_path, crc=1)
    errors: list[Exception] = []

    def read() -> None:
        try:
            bad.rows(5, 6)
        except CorruptFile as error:
            errors.append(error)

    with checking_later():
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert len(errors) == 1


def test_threads_that_read_one_tensor(tmp_path: Path) -> None:
    one, values = checked(tmp_path)
    found: list[bytes] = []

    def read() -> None:
        with checking_later():
            found.append(b"".join(block.tobytes() for block in one.blocks(40)))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [values.tobytes()] * 8


def test_the_checksum_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, 3_000_000, "u1")
    for length in (0, 1, 9, 255, 256, 257, 70_000, len(data)):
        part = data[:length]
        expected = checksums.by_numpy(part.tobytes(), 7)
        for given in (part, part.tobytes(), bytearray(part), memoryview(part)):
            assert checksums.crc32c(given, 7) == expected
    assert checksums.crc32c(b"123456789") == 0xE3069283  # RFC 3720


# --- files that change ----------------------------------------------------------------------------


def _in_place(path: Path) -> None:
    with open(path, "rb+") as file:
        file.seek(2000)
        file.write(b"!")


def _and_its_time(path: Path) -> None:
    before = path.stat()
    _in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _shorter(path: Path) -> None:
    os.truncate(path, 1000)


@pytest.mark.parametrize("change", [_in_place, _and_its_time, _shorter])
def test_a_file_that_is_written_to_gives_no_number(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = Path(shutil.copy(FIXTURES / "seed95.weights.h5", tmp_path))
    _old(path)
    layer = next(iter(lc.load(path).values()))
    change(path)
    with pytest.raises(CorruptFile, match=r"changed while it was read|truncated"):
        layer.forget_gate.kernel  # noqa: B018  # it reads


def _old(path: Path) -> None:
    """Make a file look as if nobody had written to it for long."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.mark.parametrize("change", [_in_place, _and_its_time])
def test_a_file_that_is_written_to_while_it_is_converted(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(FIXTURES / "seed95.weights.h5", tmp_path))
    _old(path)
    real = writing.flushing

    def later(temporary: Path) -> Any:  # the numbers have been read, the hash has been taken
        change(path)
        return real(temporary)

    monkeypatch.setattr(writing, "flushing", later)
    with pytest.raises(CorruptFile, match="changed while it was read"):
        lc.convert(path, tmp_path / "out.safetensors")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.safetensors", {}),
        ("a.safetensors", {"layout": "torch"}),
        ("a.npz", {}),
        ("a.onnx", {}),
        ("a.onnx", {"fused": True}),
        ("a.h5", {}),
        ("a.keras", {}),
        ("a.msgpack", {}),
        ("a.params", {"layout": "mxnet"}),
    ],
)
def test_a_byte_that_is_not_on_the_disk_as_it_was_written(
    name: str, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read back is compared with the checksum of what was written, or with the source."""
    path = FIXTURES / "seed95.keras"
    layer = next(iter(lc.load(path).values()))
    number = layer.forget_gate.recurrent_kernel.tobytes()[:4]
    real = writing.flushing

    def damaged(temporary: Path) -> Any:
        data = bytearray(temporary.read_bytes())
        assert data.count(number) == 1
        data[data.index(number)] ^= 1
        temporary.write_bytes(data)
        return real(temporary)

    monkeypatch.setattr(writing, "flushing", damaged)
    with pytest.raises(lc.LSTMConvertError, match=r"differs from the intended|bad CRC-32"):
        lc.convert(path, tmp_path / name, lstm_only=True, **options)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("place", "differs"), [(20, "the header"), (-1, "output_gate"), (None, "bytes")]
)
def test_a_byte_of_a_file_that_is_not_kept_whole(
    place: int | None, differs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header is written in pieces, which are compared by their checksums."""
    weights = [np.full(shape, 0.5, np.float32) for shape in [(300, 1600), (400, 1600), (1600,)]]
    real = writing.flushing

    def damaged(temporary: Path) -> Any:
        data = bytearray(temporary.read_bytes())
        if place is None:
            data.append(0)
        else:
            data[place] ^= 1
        temporary.write_bytes(data)
        return real(temporary)

    monkeypatch.setattr(writing, "flushing", damaged)
    with pytest.raises(lc.LSTMConvertError, match=f"differs from the intended one: .*{differs}"):
        lc.save(from_keras_weights(weights), tmp_path / "a.safetensors")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("is_fresh", [True, False])
def test_within_one_tick_of_the_clock(
    is_fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time says that it changed: a file that was just written is read twice."""
    path = tmp_path / "a"
    path.write_bytes(bytes(4000))
    if not is_fresh:
        _old(path)
    monkeypatch.setattr(tensor.SourceFile, "_is_as_it_was", lambda *_: True)
    source = open_source(path)

    def read_and_change() -> None:
        with checking_later():
            source.read_at(1000, 2000)
            _in_place(path)

    if is_fresh:
        with pytest.raises(CorruptFile, match="changed while it was read"):
            read_and_change()
    else:
        read_and_change()


def test_what_is_no_write_is_no_change(tmp_path: Path) -> None:
    path = Path(shutil.copy(FIXTURES / "seed95.weights.h5", tmp_path))
    layer = next(iter(lc.load(path).values()))
    path.chmod(0o400)
    assert layer.forget_gate.kernel.any()
    os.link(path, tmp_path / "another name")
    assert layer.input_gate.kernel.any()
    path.unlink()
    assert layer.cell_gate.kernel.any()


def test_a_first_error_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full while the source changes: the disk's error is told."""
    path = Path(shutil.copy(FIXTURES / "seed95.keras", tmp_path))
    _old(path)

    def full(*_: object) -> None:
        _in_place(path)
        raise OSError(28, "No space left on device")

    for module in ("tensors.streaming", "files.safetensors"):
        monkeypatch.setattr(f"lstmconvert.{module}.write_whole", full)
    for name in ("a.safetensors", "a.onnx", "a.keras", "a.h5"):
        out = tmp_path / "out"
        out.mkdir()
        shutil.copy(FIXTURES / "seed95.keras", path)
        _old(path)
        with pytest.raises(lc.LSTMConvertError, match="No space left"):
            lc.convert(path, out / name)
        shutil.rmtree(out)


def test_digests_read_what_was_opened(tmp_path: Path) -> None:
    path = Path(shutil.copy(FIXTURES / "seed95.keras", tmp_path))
    _old(path)
    source = open_source(path)
    _in_place(path)
    with pytest.raises(CorruptFile, match="changed while it was read"):
        opening.digest_of_file(source)
