"""Every command and snippet of the README and of the guide runs, and prints what they say.

A ```console block holds commands after `$ ` and, below each, its exact output (standard output and
error together, in the order of a terminal that shows both). A ```python block runs as it stands.
A command in a cell of a table runs by itself. The installation commands run in a virtual
environment of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import PAGES, README, ROOT, Page, Snippet
from support.foreign import OLD, TFJS, installed


def runner(kind: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs a snippet of a kind, and what its environment needs."""
    if kind == "c":
        strict = "-std=c99 -Wall -Wextra -Werror -Wno-unused-const-variable -Wno-unused-function"
        build = f'printf %s "$0" | gcc {strict} -x c -I. -o snippet.out - -lm && ./snippet.out'
        return ["sh", "-c", build], {}
    if kind == "js":
        package = installed(*TFJS)
        return ["node", "-e"], {"NODE_PATH": str(package.parent.parent)}
    python = sys.executable if kind == "py" else str(installed(*OLD))
    return [python, "-W", "ignore", "-c"], {"PYTHONPATH": ""}


#: Snippets that load the files of the last block of commands before them.
RUNNERS = ("py", "py-old", "js", "c")
KNOWN = {"console", "python", "sh", "text", "json", "yaml", "toml", *RUNNERS}
#: Marks of the blocks of the README that install: they have tests of their own.
INSTALLING = ("<!-- start -->", "<!-- tests -->")
#: Commands that need no framework: they are to work after `pip install .` alone.
ALONE = (
    ["inspect", "fixtures/keras-3.15.1/seed95.keras", "--stats"],
    ["convert", "fixtures/keras-3.15.1/seed95.keras", "OUT/a.safetensors"],
    ["convert", "fixtures/keras-3.15.1/seed95.keras", "OUT/a.onnx", "--whole"],
    ["convert", "OUT/a.onnx", "OUT/b.keras"],
    ["convert", "fixtures/keras-1.2.2/sequential.h5", "OUT/c.keras"],
    ["convert", "fixtures/keras-3.15.1/seed95.keras", "OUT/a.h", "--explain"],
    ["diff", "fixtures/keras-3.15.1/seed95.keras", "OUT/a.safetensors"],
    ["verify", "fixtures/keras-3.15.1/seed95.keras", "OUT/a.safetensors", "--engine", "numpy"],
    ["view", "fixtures/keras-3.15.1/seed95.keras", "-o", "OUT/a.html"],
    ["formats"],
    ["batch", "fixtures/keras-2.0.8", "--out-dir", "OUT/many"],
    ["guide", "recipes"],
    ["completion", "bash"],
)


def every(*kinds: str) -> list[object]:
    """Return each snippet of some kinds with its page, as parameters of a test."""
    result: list[object] = []
    for page in PAGES:
        lines = page.text.splitlines()
        for snippet in page.snippets:
            if snippet.kind in kinds and lines[snippet.line - 2] not in INSTALLING:
                marks = (
                    [pytest.mark.skip(reason=f"not run: {snippet.not_run}")]
                    if snippet.not_run
                    else []
                )
                name = f"{page.name}:{snippet.line}"
                result.append(pytest.param(page, snippet, id=name, marks=marks))
    return result


class Folders:
    """A folder for each page, like a fresh checkout: nothing is in it that another page made."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._folders: dict[str, Path] = {}
        #: Page and line of a block of commands -> the folder where they were run, once.
        self._run: dict[tuple[str, int], Path] = {}

    def fresh(self, page: Page) -> Path:
        folder = self._factory.mktemp("page")
        page.files(folder)
        return folder

    def of(self, page: Page) -> Path:
        if page.name not in self._folders:
            self._folders[page.name] = self.fresh(page)
        return self._folders[page.name]

    def after(self, page: Page, line: int, environ: dict[str, str]) -> Path:
        """Return a folder where the last block of commands before a line was run."""
        before = [s for s in page.snippets if s.kind == "console" and s.line < line][-1]
        key = page.name, before.line
        if key not in self._run:
            self._run[key] = self.fresh(page)
            for text in re.findall(r"^\$ (.*)$", before.text, re.MULTILINE):
                subprocess.run(["sh", "-c", text], cwd=self._run[key], env=environ, check=True)
        return self._run[key]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory)


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose `lstmconvert` is this checkout's, and whose terminal is 80 wide."""
    scripts = tmp_path_factory.mktemp("bin")
    script = scripts / "lstmconvert"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lstmconvert "$@"\n')
    script.chmod(0o755)
    python = Path(sys.executable).parent
    unset = ("FORCE_COLOR", "LSTMCONVERT_DEBUG")
    return {
        **{name: value for name, value in os.environ.items() if name not in unset},
        "PATH": f"{scripts}{os.pathsep}{python}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_TASK_COUNT": "8",
    }


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {snippet.kind for page in PAGES for snippet in page.snippets} <= KNOWN


@pytest.mark.slow
@pytest.mark.parametrize(("page", "snippet"), every("console"))
def test_console(page: Page, snippet: Snippet, folders: Folders, environ: dict[str, str]) -> None:
    for entry in re.split(r"^\$ ", snippet.text, flags=re.MULTILINE)[1:]:
        command, _, expected = entry.partition("\n")
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folders.of(page),
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        assert done.stdout.rstrip() == expected.rstrip(), f"{page.name}: {command}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "command"),
    [
        pytest.param(page, command, id=f"{page.name}:{line}:{command}")
        for page in PAGES
        for command, line in page.commands
    ],
)
def test_a_command_in_a_table(
    page: Page, command: str, folders: Folders, environ: dict[str, str]
) -> None:
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folders.fresh(page),
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "snippet"), every("sh"))
def test_shell(page: Page, snippet: Snippet, folders: Folders, environ: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-e", "-c", snippet.text],
        cwd=folders.of(page),
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{page.name}, line {snippet.line}:\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "snippet"), every("python"))
def test_python(page: Page, snippet: Snippet, folders: Folders, environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet.text],
        cwd=folders.of(page),
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{page.name}, line {snippet.line}:\n{done.stderr}"
    printed = re.findall(r"#> (.*)", snippet.text)
    assert done.stdout.splitlines() == printed, f"{page.name}, line {snippet.line}"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "snippet"), every(*RUNNERS))
def test_what_loads_the_files(
    page: Page, snippet: Snippet, folders: Folders, environ: dict[str, str]
) -> None:
    command, needed = runner(snippet.kind)
    done = subprocess.run(
        [*command, snippet.text],
        cwd=folders.after(page, snippet.line, environ),
        env={**environ, **needed},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{page.name}, line {snippet.line}:\n{done.stderr}"
    printed = re.findall(r"(?:#|//)> (.*)", snippet.text)
    assert [x for x in done.stdout.splitlines() if x] == printed, f"{page.name}, {snippet.line}"


@pytest.mark.slow
def test_the_first_command_on_a_fresh_machine(tmp_path: Path) -> None:
    """Install from a copy of the checkout, convert, and show: what a newcomer types first.

    What was installed runs every command that needs no framework.

    Afterwards git would see no file that it did not know.
    """
    command = re.search(r"<!-- start -->\n```sh\n(.*?)```", README.text, re.DOTALL)
    assert command
    clone = tmp_path / "lstmconvert"
    ignore = shutil.ignore_patterns(
        ".git", ".venv*", ".tfjs", ".browser", "*.egg-info", "__pycache__", "tests"
    )
    shutil.copytree(ROOT, clone, ignore=ignore)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *arguments], cwd=clone, check=True, capture_output=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        ["sh", "-c", command[1]], cwd=clone, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "7 inputs × 4 gates × 2 units" in done.stdout
    out = tmp_path / "out"
    out.mkdir()
    for words in ALONE:
        line = [word.replace("OUT", str(out)) for word in words]
        done = subprocess.run(
            [str(clone / ".venv" / "bin" / "lstmconvert"), *line],
            cwd=clone,
            env=environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (line, done.stderr)
    new = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True
    )
    assert new.stdout == ""


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"<!-- tests -->\n```sh\n(.*?)```", README.text, re.DOTALL)
    assert command
    assert "pytest" in command[1]
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_is_short() -> None:
    assert len(README.text.splitlines()) <= 200
