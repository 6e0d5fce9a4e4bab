"""Names that Windows does not give to files."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import failure
from support.crafted import FIXTURES

import lstmconvert as lc
from lstmconvert.errors import CorruptFile, DestinationError
from lstmconvert.files import names, writing
from lstmconvert.files.names import fault, is_plain
from lstmconvert.files.neighbours import Neighbours

ODD = ["CON", "aux.safetensors", "nul.tar.npz", "com1.h5", "LPT\N{SUPERSCRIPT TWO}.h5", "prn .npz",
       "a:b.safetensors", "a.npz.", "a.npz "]  # fmt: skip
FINE = ["console.npz", "auxiliary.h5", "com10.h5", "a.con.npz", "nul_.npz"]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "WINDOWS", True)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("name", ODD)
def test_a_name_that_is_no_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="no file can have this name"):
        writing.check_destination(tmp_path / name)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CorruptFile, match="outside the model's folder"):
        Neighbours(tmp_path / "model.onnx").file(name, "a tensor")


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("name", FINE)
def test_a_name_that_is_a_files(name: str, tmp_path: Path) -> None:
    assert fault(name) is None
    (tmp_path / name).write_bytes(b"x")
    assert Neighbours(tmp_path / "model.onnx").file(name, "a tensor").size == 1


def test_other_systems_give_them() -> None:
    for name in (*ODD, *FINE):
        assert fault(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0b", "/etc/passwd"])
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    assert not is_plain(name)


SOURCE = FIXTURES / "seed95.keras"
LONG = "a" * 300


@pytest.mark.parametrize(
    ("command", "blamed"),
    [
        (["convert", SOURCE, f"{LONG}.npz"], 2),
        (["convert", f"{LONG}.keras", "x.npz"], 1),
        (["convert", SOURCE, f"{LONG}/x.npz"], 2),
        (["inspect", f"{LONG}.keras"], 1),
        (["diff", SOURCE, f"{LONG}.npz"], 2),
        (["inspect", "/".join(["a" * 250] * 20)], 1),
    ],
)
def test_a_name_that_is_too_long(
    command: list[str], blamed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """255 bytes are a name's most, and 4,096 a path's: one line says which name it is."""
    monkeypatch.chdir(tmp_path)
    line, _ = failure(*command)
    assert line.startswith(str(command[blamed])[:30])
    assert "too long" in line or "does not exist" in line
    assert not list(tmp_path.iterdir())


def test_a_path_of_more_than_260_characters(tmp_path: Path) -> None:
    """Windows has had no more, before long paths were switched on."""
    folder = tmp_path.joinpath(*["d" * 50] * 8)
    folder.mkdir(parents=True)
    for suffix in (".npz", ".keras", ".onnx", ".param"):
        path = folder / f"{'e' * 100}{suffix}"
        lc.convert(SOURCE, path)
        assert len(lc.load(path)) == 1
