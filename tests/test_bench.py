"""The benchmark runs, and prints a table of numbers. What they are is not asserted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.thinned import ALL

sys.path.insert(0, str(Path(__file__).parent / "bench"))  # it is run as a folder, not as a package

import growth
import others


def table(*options: str) -> list[list[str]]:
    """Run the benchmark quickly; return the cells of its rows."""
    command = [sys.executable, "tests/bench", "--quick", "--markdown", *options]
    if not ALL:
        command.append("--few")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


@pytest.mark.slow
def test_the_benchmark_prints_ratios() -> None:
    rows = table()
    works = " ".join(row[0] for row in rows)
    for part in (
        *("95 parameters", "--help", "--version", ".weights.h5", "--to torch", "torch to .keras"),
        *("tfjs to .keras", "--whole", "diff", "verify", "view", "inspect", "peak memory"),
        *("bytes", "layers", "files", "tensors beside", "one small file"),
    ):
        assert part in works
    for row in rows:
        assert re.fullmatch(r"-?\d+\.\d\d", row[3]), row
        assert row[2], row  # the limit
        assert row[4], row
        assert (row[5] in ("met", "missed")) == (row[4] != "none"), row


def test_what_users_do_instead_is_python() -> None:
    scripts = [value for value in vars(others).values() if isinstance(value, others.Script)]
    assert len(scripts) > 10
    for script in scripts:
        compile(script.text, script.title, "exec")
    assert others.Script("", ("no_such_package",), "").command() is None


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_exponent_of_a_power_law_is_found(power: float) -> None:
    sizes = [10.0, 100.0, 1000.0, 20_000.0]
    assert growth.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_a_command_that_fails_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMCONVERT_MAX_CONFIG_BYTES", "1")
    with pytest.raises(subprocess.CalledProcessError):
        table()
