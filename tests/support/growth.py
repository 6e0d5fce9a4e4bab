"""How the work grows with what a file holds: counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from support.thinned import ALL

#: How many times as many things are counted.
TIMES = 10 if ALL else 4
#: What is done once for a file is a smaller share of the more that there are.
MORE = 1.1 if ALL else 1.15


def calls(work: Callable[[], Any]) -> int:
    """How many functions are called, Python's own among them."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def steps(work: Callable[[], Any]) -> int:
    """How many instructions of Python's are run: those of a loop within one function, too."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return seen

    sys.settrace(seen)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def check_linear(
    work: Callable[[int], Callable[[], Any]],
    few: int = 1_000,
    count: Callable[[Callable[[], Any]], int] = calls,
) -> None:
    """So many times as many things take so many times the calls, and not many more.

    Args:
        work: makes what holds so many things, and returns what reads it.
        few: how many things they are at first.
        count: `calls`, or `steps`, which sees loops and takes far longer.
    """
    work(few)()  # what is imported, and kept, the first time
    small, large = count(work(few)), count(work(TIMES * few))
    assert small > few / 10, "the work is not done in Python, and this counts nothing"
    assert large < MORE * TIMES * small, (
        f"{few:,}: {small:,} {count.__name__}; {TIMES * few:,}: {large:,}"
    )
