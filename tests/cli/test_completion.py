"""Completion at the TAB key: what click is asked, and what real shells show."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import SEED95, run

import lstmconvert as lc
from lstmconvert.cli.completion import SHELLS
from lstmconvert.layouts.rows import ROWS


def offered(*words: str) -> list[str]:
    """Return what may stand for the last of some words, as zsh is told."""
    line = " ".join(["lstmconvert", *words])
    result = run(_LSTMCONVERT_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    assert (result.code, result.err) == (0, "")
    return [line.split(",", 1)[1] for line in result.out.splitlines() if "," in line]


def test_commands() -> None:
    assert offered("co") == ["convert", "completion"]


def test_a_word_that_is_no_command_offers_nothing_and_is_no_error() -> None:
    assert "co" not in offered("nothing", "")


@pytest.mark.parametrize("option", ["--to", "--from"])
def test_layouts(option: str) -> None:
    assert offered("convert", "a.keras", "b.npz", option, "torch") == ["torch", "torch-cell"]
    assert set(ROWS) <= set(offered("convert", "a.keras", "b.npz", option, "''"))


def test_dtypes() -> None:
    assert offered("convert", "a", "b", "--dtype", "b") == ["bfloat16"]


@pytest.mark.engines
def test_engines_that_are_installed() -> None:
    assert "numpy" in offered("verify", "a", "--engine", "n")


def test_layers_of_the_file_on_the_line() -> None:
    both = SEED95.with_name("several.keras")
    names = offered("convert", str(both), "x.npz", "--layer", "''")
    assert names == list(lc.load(both))
    assert offered("inspect", str(SEED95), "--layer", "l") == ["lstm"]


@pytest.mark.parametrize("path", ["absent.keras", "README.md"])
def test_a_file_that_cannot_be_read_offers_no_layers(path: str) -> None:
    assert offered("inspect", path, "--layer", "''") == []


def test_topics_settings_and_suffixes() -> None:
    assert offered("guide", "rec") == ["recipes"]
    assert "activation=" in offered("convert", "a", "b", "--set", "act")
    assert offered("batch", "a", "--suffix", ".ker") == [".keras"]
    assert offered("convert", "a", "b", "--weights", "int1") == ["int16"]
    assert offered("completion", "z") == ["zsh"]


def test_no_run_of_another_command_imports_it() -> None:
    code = "import sys; sys.argv[1:] = ['--version']; from lstmconvert.cli.main import program\n"
    code += "try: program.main()\nexcept SystemExit: pass\n"
    code += "assert not {'lstmconvert.cli.completion', 'click.shell_completion'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_of_the_shell(shell: str) -> None:
    script = run("completion", shell)
    assert script.code == 0
    assert f"_LSTMCONVERT_COMPLETE={shell}_complete" in script.out
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n"], input=script.out, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """An environment with `lstmconvert` on the PATH."""
    script = tmp_path / "bin" / "lstmconvert"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lstmconvert "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "TERM": "dumb"}
    return {**os.environ, "PATH": path, "PYTHONPATH": str(Path.cwd()), **home}


#: Shell -> a script that prints what TAB would offer for the words that it is given. For zsh the
#: builtins that only work inside its editor are replaced by ones that print what they are given.
ASKING = {
    "bash": """
eval "$(lstmconvert completion bash)"
COMP_WORDS=(lstmconvert "$@"); COMP_CWORD=$#; COMPREPLY=()
_lstmconvert_completion lstmconvert
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { : }
compadd() {
  local a
  for a in "$@"; do [[ $a != -* && -n ${(P)a} ]] && print -l -- ${(P)a}; done
}
_describe() { print -l -- ${(P)3} }
_path_files() { : }
eval "$(lstmconvert completion zsh)"
words=(lstmconvert "$@"); CURRENT=$(( $# + 1 ))
_lstmconvert_completion
""",
    "fish": """
lstmconvert completion fish | source
complete --do-complete "lstmconvert $argv"
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["conv"], "convert"),
        (["convert", "a.keras", "b.npz", "--to", "haik"], "haiku"),
        (["inspect", str(SEED95.resolve()), "--layer", "ls"], "lstm"),
        (["verify", "a.keras", "--engine", "nump"], "numpy"),
    ],
    ids=["command", "layout", "layer", "engine"],
)
def test_a_real_shell(
    shell: str, words: list[str], expected: str, commands: dict[str, str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    name = ["asking"] if shell != "fish" else []
    done = subprocess.run(
        [shell, *flags, "-c", ASKING[shell], *name, *words],
        env=commands,
        capture_output=True,
        text=True,
    )
    lines = [line.split("\t")[0].split(":")[0] for line in done.stdout.splitlines()]
    assert expected in lines, done
