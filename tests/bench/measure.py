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


def in_turn(
    commands: Sequence[Sequence[str]],
    times: int,
    scratch: Path,
    *,
    warm: bool = True,
    once: Sequence[Sequence[str]] = (),
    may_fail: Sequence[Sequence[str]] = (),
) -> list[list[Cost]]:
    """Run commands in turn, and return the costs of each: A B A B …, after one run to warm up.

    Args:
        commands: the commands.
        times: how many rounds.
        scratch: where their output goes.
        warm: whether each runs once before.
        once: those that run in the first round alone, and not before.
        may_fail: those that may fail, and have no costs then.

    Raises:
        RuntimeError: another one failed.
    """
    if warm and times > 1:
        for command in commands:
            if command not in once:
                run(command, scratch)
    costs: list[list[Cost]] = [[] for _ in commands]
    for number in range(times):
        for command, list_of_costs in zip(commands, costs, strict=True):
            if number and command in once:
                continue
            try:
                list_of_costs.append(run(command, scratch))
            except RuntimeError:
                if command not in may_fail:
                    raise
    return costs


def ratio(ours: Sequence[Cost], others: Sequence[Cost]) -> float:
    """Return the median of the ratios of neighbouring runs' wall times."""
    return median(a.wall / b.wall for a, b in zip(ours, others, strict=True))
