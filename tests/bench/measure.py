"""Whole processes side by side: wall time, CPU time and peak memory, A B A B …, medians."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

#: In a command: a directory that is new for each run, and removed after it.
OUT = "{out}"
#: `ru_maxrss` is in these: kilobytes, and bytes on macOS.
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


class Cost(NamedTuple):
    """What one run took: seconds, seconds of processor time, bytes."""

    wall: float
    cpu: float
    peak: int


class Pair(NamedTuple):
    """Two commands' median costs, and the medians of the ratios of neighbouring runs."""

    ours: Cost
    other: Cost
    wall: float
    cpu: float


def run(command: Sequence[str], scratch: Path) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; its output is in the message.
    """
    out = Path(tempfile.mkdtemp(dir=scratch))
    log = scratch / "log"
    arguments = [part.replace(OUT, str(out)) for part in command]
    # Compiled modules are used, and written by the first run, as for any user.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), mode, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    start = time.perf_counter()
    process = os.posix_spawnp(arguments[0], arguments, environment, file_actions=actions)
    _, status, used = os.wait4(process, 0)
    wall = time.perf_counter() - start
    shutil.rmtree(out)
    if status:
        raise RuntimeError(f"{' '.join(arguments)}\n{log.read_text()}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * _PEAK_UNIT)


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the medians of some runs."""
    return Cost(
        median(c.wall for c in costs), median(c.cpu for c in costs), max(c.peak for c in costs)
    )


def alternate(
    commands: Sequence[Sequence[str]], times: int, scratch: Path, *, warm: bool = True
) -> list[list[Cost]]:
    """Run commands in turn, and return the costs of each: A B A B …, after one run to warm up."""
    if warm:
        for command in commands:
            run(command, scratch)
    rounds = [[run(command, scratch) for command in commands] for _ in range(times)]
    return [list(costs) for costs in zip(*rounds, strict=True)]


def compare(
    ours: Sequence[str], other: Sequence[str], times: int, scratch: Path, *, warm: bool = True
) -> Pair:
    """Run two commands in turn."""
    one, two = alternate([ours, other], times, scratch, warm=warm)
    ratios = [(a.wall / b.wall, a.cpu / max(b.cpu, 1e-6)) for a, b in zip(one, two, strict=True)]
    return Pair(
        middle(one), middle(two), median(w for w, _ in ratios), median(c for _, c in ratios)
    )
