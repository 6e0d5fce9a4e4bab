"""Every command and snippet of the README runs, and prints what the README says it prints.

A ```console block holds commands after `$ ` and, below each, its exact output (standard output and
error together, in the order of a terminal that shows both). A ```python block runs as it stands.
The installation commands run in a virtual environment of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from foreign import OLD, TFJS, installed

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```([\w-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(m[1], m[2], README.count("\n", 0, m.start()) + 1) for m in BLOCK.finditer(README)]


def runner(kind: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs a snippet of a kind, and what its environment needs."""
    if kind == "c":
        strict = "-std=c99 -Wall -Wextra -Werror -Wno-unused-const-variable -Wno-unused-function"
        build = f'printf %s "$0" | gcc {strict} -x c -I. -o readme.out - -lm && ./readme.out'
        return ["sh", "-c", build], {}
    if kind == "js":
        package = installed(*TFJS)
        return ["node", "-e"], {"NODE_PATH": str(package.parent.parent)}
    python = sys.executable if kind == "py" else str(installed(*OLD))
    return [python, "-W", "ignore", "-c"], {"PYTHONPATH": ""}


RUNNERS = ("py", "py-old", "js", "c")
CONSOLE = [pytest.param(b, n, id=f"line{n}") for kind, b, n in BLOCKS if kind == "console"]
PYTHON = [pytest.param(b, n, id=f"line{n}") for kind, b, n in BLOCKS if kind == "python"]

#: Block of commands -> the folder where they were run, once for every snippet.
WRITTEN: dict[str, Path] = {}
#: Snippets that load the files of the last block of commands before them.
LOADING = [pytest.param(k, b, n, id=f"line{n}") for k, b, n in BLOCKS if k in RUNNERS]
KNOWN = {"console", "python", "sh", "text", *RUNNERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh checkout: the fixtures, and nothing that a command wrote before."""
    path = tmp_path_factory.mktemp("readme")
    (path / "fixtures").symlink_to(ROOT / "fixtures")
    return path


def environment(scripts: Path) -> dict[str, str]:
    python = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{python}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        "COLUMNS": "80",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the PATH whose `lstmconvert` is this checkout's."""
    path = tmp_path_factory.mktemp("bin")
    script = path / "lstmconvert"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lstmconvert "$@"\n')
    script.chmod(0o755)
    return path


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {kind for kind, _, _ in BLOCKS} <= KNOWN


@pytest.mark.parametrize(("body", "line"), CONSOLE)
def test_console(body: str, line: int, folder: Path, scripts: Path) -> None:
    for entry in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, expected = entry.partition("\n")
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=environment(scripts),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        assert done.stdout.rstrip() == expected.rstrip(), f"README.md, line {line}: {command}"


@pytest.mark.parametrize(("body", "line"), PYTHON)
def test_python(body: str, line: int, folder: Path, scripts: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", body],
        cwd=folder,
        env=environment(scripts),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"README.md, line {line}:\n{done.stderr}"
    printed = re.findall(r"#> (.*)", body)
    assert done.stdout.splitlines() == printed, f"README.md, line {line}"


@pytest.mark.parametrize(("kind", "body", "line"), LOADING)
def test_what_loads_the_files(
    kind: str, body: str, line: int, tmp_path_factory: pytest.TempPathFactory, scripts: Path
) -> None:
    command, needed = runner(kind)
    before = [commands for k, commands, n in BLOCKS if k == "console" and n < line][-1]
    environ = environment(scripts)
    if before not in WRITTEN:
        WRITTEN[before] = folder = tmp_path_factory.mktemp("files")
        (folder / "fixtures").symlink_to(ROOT / "fixtures")
        for text in re.findall(r"^\$ (.*)$", before, re.MULTILINE):
            subprocess.run(["sh", "-c", text], cwd=folder, env=environ, check=True)
    done = subprocess.run(
        [*command, body],
        cwd=WRITTEN[before],
        env={**environ, **needed},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"README.md, line {line}:\n{done.stderr}"
    printed = re.findall(r"(?:#|//)> (.*)", body)
    assert [x for x in done.stdout.splitlines() if x] == printed, f"README.md, line {line}"


@pytest.mark.slow
def test_the_first_command_on_a_fresh_machine(tmp_path: Path) -> None:
    """Install from a copy of the checkout, convert, and show: what a newcomer types first."""
    command = re.search(r"<!-- start -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert command
    clone = tmp_path / "lstmconvert"
    ignore = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, clone, ignore=ignore)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        ["sh", "-c", command[1]], cwd=clone, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "7 inputs × 4 gates × 2 units" in done.stdout


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"<!-- tests -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert command
    assert "pytest" in command[1]
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()
