"""What must hold of a run over a hostile file, and the numbers of the file it was made from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import lstmconvert
from support.crafted import FIXTURES, KERAS
from support.jail import RESIDENT, SECONDS, Run


@cache
def numbers() -> dict[str, bytes]:
    """The per-gate numbers of the valid file."""
    return lstm_numbers(FIXTURES / KERAS)


def lstm_numbers(path: Path) -> dict[str, bytes]:
    (layer,) = lstmconvert.load(path).values()
    return {name: tensor.read().tobytes() for name, tensor in layer.cell.tensors()}


def check_bounds(run: Run) -> None:
    """What holds whatever the file is."""
    assert run.code in (0, 2), run
    assert not run.events, run.events
    assert run.seconds < SECONDS, run
    assert run.resident < RESIDENT, run
    assert "Traceback" not in run.stderr, run.stderr
    assert "a fault of lstmconvert itself" not in run.stderr, run.stderr
    assert all(char.isprintable() or char == "\n" for char in run.stderr + run.stdout), run


def check_refusal(run: Run, words: str) -> None:
    """One line that says what is wrong, one hint, exit 2."""
    assert run.code == 2, run
    error, *rest = run.stderr.splitlines()
    assert error.startswith("lstmconvert: error: ")
    assert words in error, error
    assert len(error) < 1500
    assert len(rest) == 1
    assert rest[0].startswith("hint: ")
    assert "not enough memory" not in error
    assert not run.stdout
