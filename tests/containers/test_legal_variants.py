"""Files that are legal and unlike what the frameworks write by default: read, and as before."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import set_external_data
from support.crafted import FIXTURES, KERAS

import lstmconvert
from lstmconvert.errors import CorruptFile, LSTMConvertError

MEMBERS = FIXTURES.parent / "keras-3.15.1" / "seed95.unzipped"
ARCHIVE = MEMBERS.with_name("seed95.keras")


def numbers(path: Path) -> dict[str, bytes]:
    (layer,) = lstmconvert.load(path).values()
    return {name: tensor.read().tobytes() for name, tensor in layer.cell.tensors()}


class _Pipe(io.RawIOBase):
    """What cannot be sought in: sizes and checksums follow the data."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def _piped(method: int) -> bytes:
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for path in sorted(MEMBERS.iterdir()):
            archive.writestr(path.name, path.read_bytes())
    return bytes(pipe.data)


def _packed(
    method: int = zipfile.ZIP_STORED,
    *,
    folders: tuple[str, ...] = (),
    large: bool = False,
    comment: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in folders:
            archive.writestr(name, "")
        for path in sorted(MEMBERS.iterdir()):
            info = zipfile.ZipInfo(path.name)
            info.compress_type, info.extra = method, extra
            with archive.open(info, "w", force_zip64=large) as target:
                target.write(path.read_bytes())
        archive.comment = comment
    return buffer.getvalue()


def _large_end() -> bytes:
    """An archive whose end record says that all is in the ZIP64 one (APPNOTE 4.3.14 to 16)."""
    data = _packed()
    at = data.rindex(b"PK\5\6")
    _, _, _, here, count, size, start, _ = struct.unpack("<4s4H2IH", data[at:])
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, here, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:at] + record + locator + end


ZIPS: dict[str, Callable[[], bytes]] = {
    "stored": _packed,
    "deflated": lambda: _packed(zipfile.ZIP_DEFLATED),
    "as `zip -r` packs folders": lambda: _packed(zipfile.ZIP_DEFLATED, folders=("assets/",)),
    "through a pipe": lambda: _piped(zipfile.ZIP_STORED),
    "deflated, through a pipe": lambda: _piped(zipfile.ZIP_DEFLATED),
    "members of ZIP64": lambda: _packed(large=True),
    "an end record of ZIP64": _large_end,
    "a comment": lambda: _packed(comment=b"a comment"),
    "extra fields": lambda: _packed(extra=struct.pack("<HH4s", 0x9999, 4, b"abcd")),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_archives_as_others_pack_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    path.write_bytes(ZIPS[kind]())
    assert numbers(path) == numbers(ARCHIVE)


@pytest.mark.parametrize("kind", ZIPS)
def test_and_each_is_refused_when_a_bit_of_a_weight_is_another(kind: str, tmp_path: Path) -> None:
    data = bytearray(ZIPS[kind]())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("model.weights.h5")
    name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    data[info.header_offset + 30 + name + extra + info.compress_size // 2] ^= 4
    path = tmp_path / "a.keras"
    path.write_bytes(data)
    with pytest.raises(CorruptFile):
        numbers(path)


def test_npz_through_a_pipe(tmp_path: Path) -> None:
    (layer,) = lstmconvert.load(ARCHIVE).values()
    pipe = _Pipe()
    np.savez(pipe, **lstmconvert.arrange(layer, "torch"))  # type: ignore[arg-type]
    path = tmp_path / "a.npz"
    path.write_bytes(pipe.data)
    assert numbers(path) == numbers(ARCHIVE)


@pytest.mark.parametrize("spaces", [0, 1, 8, 4000])
@pytest.mark.parametrize("indent", [None, 2])
def test_safetensors_with_a_padded_header(spaces: int, indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    lstmconvert.convert(ARCHIVE, path)
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.dumps(json.loads(data[8 : 8 + size]), indent=indent).encode() + b" " * spaces
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
    assert numbers(path) == numbers(ARCHIVE)


def _external(path: Path, step: int, *, with_length: bool) -> bytearray:
    """Move all numbers of a model into a file beside it, each at a multiple of `step`."""
    model, data = onnx.load(path), bytearray(b"what is read by nobody")
    for tensor in model.graph.initializer:
        data += bytes(-len(data) % step)
        raw = tensor.raw_data
        length = {"length": len(raw)} if with_length else {}
        set_external_data(tensor, "weights.bin", offset=len(data), **length)
        data += raw
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    path.with_name("weights.bin").write_bytes(data)
    return data


@pytest.mark.parametrize("step", [1, 3, 4096])
def test_onnx_with_external_data_at_offsets(step: int, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    lstmconvert.convert(ARCHIVE, path)
    data = _external(path, step, with_length=True)
    assert numbers(path) == numbers(ARCHIVE)
    path.with_name("weights.bin").write_bytes(data[:-1])
    with pytest.raises(LSTMConvertError, match="behind the end"):
        numbers(path)


def test_onnx_with_a_file_for_each_tensor(tmp_path: Path) -> None:
    lstmconvert.convert(ARCHIVE, tmp_path / "whole.onnx")
    path = tmp_path / "folder" / "a.onnx"
    path.parent.mkdir()
    onnx.save_model(
        onnx.load(tmp_path / "whole.onnx"),
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    assert len(list(path.parent.iterdir())) > 10
    assert numbers(path) == numbers(ARCHIVE)


def test_a_folder_with_files_of_the_system(tmp_path: Path) -> None:
    shutil.copytree(MEMBERS, tmp_path / "a")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert numbers(tmp_path / "a") == numbers(ARCHIVE)
    assert numbers(FIXTURES / KERAS) == numbers(ARCHIVE)
