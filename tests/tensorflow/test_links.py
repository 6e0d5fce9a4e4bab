"""No file of a SavedModel or checkpoint is a symbolic link: it may lead anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.crafted import FIXTURES

import lstmconvert
from lstmconvert.errors import CorruptFile

TF = FIXTURES.parent / "tf-2.12.1"
CASES = [
    ("seed95.savedmodel", "", "saved_model.pb"),
    ("seed95.savedmodel", "", "variables/variables.index"),
    ("seed95.savedmodel", "", "variables/variables.data-00000-of-00001"),
    ("seed95.tf_weights", "ckpt", "ckpt.index"),
    ("seed95.tf_weights", "ckpt", "ckpt.data-00000-of-00001"),
]


@pytest.mark.parametrize(("name", "prefix", "part"), CASES)
def test_a_link_is_refused(name: str, prefix: str, part: str, tmp_path: Path) -> None:
    root = Path(shutil.copytree(TF / name, tmp_path / "model"))
    assert len(lstmconvert.load(root / prefix)) == 1
    elsewhere = tmp_path / "elsewhere"
    (root / part).rename(elsewhere)
    (root / part).symlink_to(elsewhere)
    with pytest.raises(CorruptFile, match="a symbolic link among a model's files"):
        lstmconvert.load(root / prefix)


def test_the_whole_may_be_one(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to((TF / "seed95.savedmodel").resolve())
    assert len(lstmconvert.load(link)) == 1
