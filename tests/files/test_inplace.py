"""A member that is written in place is a member like others."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from lstmconvert.files.zipmembers import ArchiveFile, FilePart, entry


def sized(name: str, size: int) -> zipfile.ZipInfo:
    info = entry(name)
    info.file_size = size
    return info


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 7])
def test_the_archive_is_the_one_that_zipfile_writes(size: int, tmp_path: Path) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    plain, other = tmp_path / "plain.zip", tmp_path / "other.zip"
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr(entry("a"), "before")
        archive.writestr(entry("b"), data)
        archive.writestr(entry("c"), "after")

    def write(part: FilePart) -> None:
        half = size // 2
        part.seek(half)
        part.write(data[half:])
        part.seek(0)
        part.write(data[:half])
        assert part.tell() == half
        part.truncate(size)
        part.seek(0)
        assert part.read() == data

    with ArchiveFile(other) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(entry("a"), "before")
        file.add(archive, sized("b", size), write)
        archive.writestr(entry("c"), "after")
    assert other.read_bytes() == plain.read_bytes()


def test_a_file_that_is_cut_meanwhile_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ArchiveFile, "readinto", lambda *_: 0, raising=False)
    with (
        pytest.raises(OSError, match="cut"),
        ArchiveFile(tmp_path / "x.zip") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        file.add(archive, sized("b", 3), lambda part: part.write(b"abc") and None)
