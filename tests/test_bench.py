"""The benchmark runs, and prints a table of numbers. What they are is not asserted."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


def table(*options: str) -> list[list[str]]:
    """Run the benchmark quickly; return the cells of its rows."""
    command = [sys.executable, "tests/bench", "--quick", "--markdown", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


def test_the_benchmark_prints_ratios() -> None:
    rows = table()
    works = " ".join(row[0] for row in rows)
    for part in ("95 parameters", "--help", "--version", "keras", "weights.h5", "layers", "batch"):
        assert part in works
    for row in rows:
        assert re.fullmatch(r"-?\d+\.\d\d", row[3]), row
        assert row[4], row
        assert row[5] in ("met", "missed"), row


def test_a_command_that_fails_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMCONVERT_MAX_CONFIG_BYTES", "1")
    with pytest.raises(subprocess.CalledProcessError):
        table()
