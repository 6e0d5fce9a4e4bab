"""What may name a checkpoint: a prefix, one of its files, a directory; and what may not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lstmconvert.errors import CorruptFile, LSTMConvertError, NotAModel
from lstmconvert.tensorflow.formats.checkpoint import read_checkpoint
from lstmconvert.tensorflow.formats.savedmodel import read_saved_model

WEIGHTS = Path(__file__).parents[2] / "fixtures" / "tf-2.12.1" / "seed95.tf_weights"


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_what_names_a_checkpoint(suffix: str) -> None:
    bundle = read_checkpoint(WEIGHTS / f"ckpt{suffix}")
    assert bundle.path == WEIGHTS / "ckpt"


def state(directory: Path, text: str) -> Path:
    (directory / "checkpoint").write_text(text)
    return directory


def copy(directory: Path, *names: str) -> Path:
    for name in names:
        for file in WEIGHTS.glob("ckpt.*"):
            shutil.copy(file, directory / file.name.replace("ckpt", name))
    return directory


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "a-1"\nall_model_checkpoint_paths: "b"\n',
        'all_model_checkpoint_paths: "b"\nmodel_checkpoint_path: "a-1"\n',
        r'model_checkpoint_path: "\141-1"',
        'model_checkpoint_path: "/home/somebody/elsewhere/a-1"',
        'model_checkpoint_path: "C:\\\\models\\\\a-1"',
    ],
)
def test_a_directory_names_its_newest(tmp_path: Path, text: str) -> None:
    copy(tmp_path, "a-1", "b")
    state(tmp_path, text)
    assert read_checkpoint(tmp_path).path == tmp_path / "a-1"
    assert read_checkpoint(tmp_path / "checkpoint").path == tmp_path / "a-1"


@pytest.mark.parametrize(
    "path", ["../up/ckpt", "sub/ckpt", "/etc/passwd", "..", "", "gone", "a\\000b", "a" * 5000]
)
def test_a_directory_names_nothing_elsewhere(tmp_path: Path, path: str) -> None:
    for name in ("up", "here", "here/sub"):
        (tmp_path / name).mkdir()
        copy(tmp_path / name, "ckpt")
    state(tmp_path / "here", f'model_checkpoint_path: "{path}"\n')
    with pytest.raises(CorruptFile, match="not in its own directory"):
        read_checkpoint(tmp_path / "here")


def test_a_directory_without_a_state_file(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="holds no checkpoint"):
        read_checkpoint(tmp_path)
    assert read_checkpoint(copy(tmp_path, "a")).path == tmp_path / "a"
    with pytest.raises(NotAModel, match=r"several checkpoints; found a\.index, b\.index"):
        read_checkpoint(copy(tmp_path, "b"))
    with pytest.raises(NotAModel, match="names no checkpoint"):
        read_checkpoint(state(tmp_path, "nothing"))


@pytest.mark.parametrize("name", ["no", "no.index", "x.txt"])
def test_no_checkpoint(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(LSTMConvertError):
        read_checkpoint(tmp_path / name)
    with pytest.raises(NotAModel):
        read_saved_model(tmp_path)
