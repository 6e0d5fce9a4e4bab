"""Measure what the design allows: `python tests/bench [--quick] [--few] [--alone] [--markdown]`.

All numbers are ratios of whole processes that ran in turn on one machine, and medians, because
seconds say little about another machine. The limit stands beside each: the bare imports, cp and
sync, cat, or one that grows with the size; and what a user would do instead, which takes the
longest: `--alone` leaves it out.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from sys import stderr

from rows import FEW, FULL, QUICK, Row, rows

_HEADER = ("work", "takes", "limit", "ratio", "budget", "", "instead")
_PACKAGES = ("numpy", "h5py", "safetensors", "click")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Measure the speed and the memory of lstmconvert.")
    parser.add_argument("--quick", action="store_true", help="small files, once: a smoke test")
    parser.add_argument("--few", action="store_true", help="few of the roads of a large file")
    parser.add_argument("--alone", action="store_true", help="leave the users' own ways out")
    parser.add_argument("--markdown", action="store_true", help="print a table for the README")
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL._replace(alone=given.alone)
    plan = plan._replace(roads=FEW if given.few else ())
    os.chdir(Path(__file__).parents[2])  # where `python -m lstmconvert` finds the package
    measured = []
    with tempfile.TemporaryDirectory(prefix="lstmconvert-bench-") as scratch:
        for row in rows(plan, Path(scratch)):
            print(row.work, file=stderr, flush=True)
            measured.append(row)
    lines = [_HEADER, *map(_cells, measured)]
    print(facts())
    print()
    print("\n".join(_markdown(lines) if given.markdown else _aligned(lines)))


def facts() -> str:
    """Return the machine and the versions, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    machine = f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return f"{machine}; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _cells(row: Row) -> Sequence[str]:
    met = "" if row.met is None else "met" if row.met else "missed"
    return row.work, row.took, row.limit, f"{row.ratio:.2f}", row.budget, met, row.instead


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = [f"| {' | '.join(line)} |" for line in lines]
    return [head, "|---" * len(_HEADER) + "|", *rest]


if __name__ == "__main__":
    main()
