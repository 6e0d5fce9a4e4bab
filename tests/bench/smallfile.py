"""What one small file of a batch costs: `smallfile.py SOURCE FOLDER COUNT`.

Prints how many functions are called for one file, how many milliseconds it takes, how many of
these the processor works, and how many the disk takes to keep as many bytes: a new file, `fsync`,
and its name. The last is the limit.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lstmconvert.bulk import work
from lstmconvert.bulk.plan import Job

#: What is called for the first files only, to import and to fill caches, does not count.
_BEFORE = 5


def main(source: str, folder: str, count: int) -> None:
    """Convert a file several times, each to a new one, and print the numbers."""
    order = work.order({})
    made = Path(folder)

    def convert(number: int) -> None:
        job = Job(source, str(made / f"{number}.safetensors"))
        outcome = work.convert(work.Task(number=number, job=job), order)
        assert outcome.status == "written", outcome.error

    for number in range(_BEFORE):
        convert(number)
    data = (made / "0.safetensors").read_bytes()

    def keep(number: int) -> None:
        path = made / f"{number}.kept"
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.rename(made / f"{number}.bin")

    profile = cProfile.Profile()
    profile.enable()
    convert(_BEFORE)
    profile.disable()
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]  # typeshed lacks it
    first = _BEFORE + 1
    ours = [_took(convert, first + i) for i in range(count)]
    disk = [_took(keep, first + i) for i in range(count)]
    columns = (*zip(*ours, strict=True), [took for took, _ in disk])
    print(calls, *(1000 * statistics.median(column) for column in columns))


def _took(do: Callable[[int], None], number: int) -> tuple[float, float]:
    """Return how long it takes, and how long the processor works for it, in seconds."""
    start, worked = time.perf_counter(), time.process_time()
    do(number)
    return time.perf_counter() - start, time.process_time() - worked


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
