"""Running the command line in this process, and in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from lstmconvert.cli.main import program

FIXTURES = Path("fixtures")
KERAS = FIXTURES / "keras-3.15.1"
SEED95 = KERAS / "seed95.keras"
WEIGHTS = KERAS / "seed95.weights.h5"


class Run(NamedTuple):
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*args: object, **environment: str) -> Run:
    """Run a command in this process."""
    result = CliRunner().invoke(program, [str(arg) for arg in args], env=environment)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return Run(result.exit_code, result.stdout, result.stderr)


def failure(*args: object, **environment: str) -> tuple[str, str]:
    """Run a command that must fail: return its error and its hint, without their labels."""
    result = run(*args, **environment)
    assert result.code == 2, result
    assert result.out == ""
    error, hint = result.err.splitlines()
    assert error.startswith("lstmconvert: error: ")
    assert hint.startswith("hint: ")
    return error.removeprefix("lstmconvert: error: "), hint.removeprefix("hint: ")


def spawn(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lstmconvert", *map(str, args)],
        **({"capture_output": True} if "stdout" not in options else {}),
        **{"text": True, "encoding": "utf-8", "timeout": 120, "check": False, **options},
    )


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment with changes."""
    return {**os.environ, **changes}
