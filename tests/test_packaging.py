"""The package as it is built and installed: the same bytes, the same version, nothing missing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from support.documents import GUIDE, ROOT

import lstmconvert
from lstmconvert.errors import install

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def copied(folder: Path) -> Path:
    """Return a copy of what a distribution is built from."""
    clone = folder / "checkout"
    clone.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, clone / name)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lstmconvert", clone / "lstmconvert", ignore=ignore)
    return clone


def built(folder: Path) -> dict[str, bytes]:
    """Build a wheel and an sdist from a copy; return their names and bytes."""
    hatchling = pytest.importorskip("hatchling.build", reason="hatchling is not installed")
    assert hatchling
    clone, out = copied(folder), folder / "out"
    out.mkdir()
    code = "import sys; from hatchling import build; f = sys.argv[1]; "
    code += "print(build.build_wheel(f), build.build_sdist(f))"
    subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=clone, check=True, capture_output=True
    )
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.slow
def test_two_builds_are_the_same_bytes_and_hold_the_guide(tmp_path: Path) -> None:
    first = built(tmp_path / "first")
    assert first == built(tmp_path / "second")
    (wheel,) = [name for name in first if name.endswith(".whl")]
    assert wheel.startswith(f"lstmconvert-{lstmconvert.__version__}-py3-")
    (tmp_path / wheel).write_bytes(first[wheel])
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        names = set(archive.namelist())
    for path in GUIDE.rglob("*"):
        if path.suffix in (".md", ".json", ".png"):
            assert path.relative_to(ROOT).as_posix() in names


def test_there_is_one_version_and_the_changes_begin_with_it() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    changes = (GUIDE / "changes.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == lstmconvert.__version__


def test_every_hint_names_an_extra_that_there_is() -> None:
    """`pip install 'lstmconvert[x]'` takes what is installed, so it works from a checkout too."""
    asked = set()
    for path in (ROOT / "lstmconvert").rglob("*.py"):
        asked |= set(re.findall(r"""\binstall\(["'](\w+)["']\)""", path.read_text("utf-8")))
    assert {"jax", "torch", "yaml", "plot", "remote"} <= asked
    assert asked <= set(EXTRAS)
    assert install("yaml") == "pip install 'lstmconvert[yaml]'"


def test_all_has_every_extra_but_those_for_tests() -> None:
    (every,) = EXTRAS["all"]
    names = re.fullmatch(r"lstmconvert\[(.*)\]", every)
    assert names
    assert set(names[1].split(",")) == set(EXTRAS) - {"all", "test"}


def test_the_group_for_development_is_part_of_the_extra_for_tests() -> None:
    tests = {re.split(r"[<>=\[]", text)[0] for text in EXTRAS["test"]}
    group = {re.split(r"[<>=\[]", text)[0] for text in PROJECT["dependency-groups"]["dev"]}
    # The extra has fsspec by s3fs.
    assert group - tests == {"pre-commit", "fsspec"}
