"""The tests have the same names in every process, so that several workers can share them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.cli import environment


@pytest.mark.slow
def test_names_do_not_depend_on_the_process() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "not engines"]
    names = []
    for seed in "12":
        done = subprocess.run(
            command,
            env=environment(PYTHONHASHSEED=seed, PYTEST_ADDOPTS=""),
            capture_output=True,
            text=True,
            check=True,
        )
        names.append([line for line in done.stdout.splitlines() if "::" in line])
    assert len(names[0]) > 1000
    assert names[0] == names[1]
