"""Mutation fuzzing of every container that is read.

    python tests/support/fuzz.py --seconds 600    every target, in turn, with new mutants each time
    python tests/support/fuzz.py --target keras --seed 7 --count 5000
    python tests/support/fuzz.py --target keras --seed 7 --only 1234 --keep mutant.keras
    python tests/support/fuzz.py --truncate       every file of every target cut at every offset

A mutant must give a typed error, or a result that is the original's, or, where a format has no
checksum, what the format's own library sees in the mutant. Anything else is a finding: another
exception, other numbers, a signal, a hang.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import lstmconvert  # noqa: E402
from lstmconvert.errors import LSTMConvertError  # noqa: E402
from support import mutate  # noqa: E402
from support.fuzz_targets import TARGETS, Finding, Numbers, Target, everything, numbers  # noqa: E402

_SECONDS = 30  # of processor time, for one mutant
_STUCK = 240  # by the clock
_ROOM = 1 << 30


# --- one mutant -----------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the mutants: `refused`, `accepted`, `findings`."""

    refused: int = 0
    accepted: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many there were."""
        return self.refused + self.accepted + len(self.findings)


def examine(target: Target, path: Path, valid: tuple[Numbers, str], dice: random.Random) -> str:
    """Load one mutant and, if it is accepted, convert it. Returns `refused` or `accepted`.

    Raises:
        Finding: its result is wrong. Any exception that is not ours is one as well.
    """
    try:
        model = lstmconvert.load(path, **target.given(path))
        found = numbers(model)
    except LSTMConvertError as error:
        _check_error(error)
        return "refused"
    target.agree(model, path, valid)
    suffixes = (
        (".safetensors", ".keras", ".h5", ".weights.h5") if target.rewrite else (".safetensors",)
    )
    destination = path.parent / f"out{dice.choice(suffixes)}"
    try:
        lstmconvert.convert(
            path, destination, force=True, with_optimizer=True, **target.given(path)
        )
    except LSTMConvertError as error:
        _check_error(error)
        return "refused"
    written = lstmconvert.load(destination)
    if destination.suffix == ".safetensors" and numbers(written) != found:
        raise Finding("what was written is not what was read")
    return "accepted"


def _check_error(error: LSTMConvertError) -> None:
    text = str(error)
    if "\n" in text or not text.isprintable():
        raise Finding(f"not one printable line: {text!r}")


def _work(
    name: str, seed: int, indices: Iterable[int], progress: Callable[[dict[str, Any]], None]
) -> None:
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(dir=_memory()) as text:
        folder = Path(text)
        valid_path = target.make(folder)
        valid = everything(lstmconvert.load(valid_path, **target.given(valid_path)))
        for index in indices:
            dice = mutate.dice(name, seed, index)
            progress({"at": index})
            _allow(_SECONDS, _STUCK)
            try:
                path = target.mutate(valid_path, folder, dice)
                outcome = examine(target, path, valid, dice)
            except MemoryError:
                outcome = "MemoryError"
            except Exception:
                outcome = traceback.format_exc(limit=-4)
            _allow(0, 0)
            progress({"at": index, "outcome": outcome})


def _allow(seconds: int, by_the_clock: int) -> None:
    """Die by a signal after so long; 0 is for ever."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(by_the_clock)


def truncated(
    name: str, folder: Path, lengths: Callable[[Path], Iterable[int]]
) -> Iterator[tuple[str, bool]]:
    """Cut every file of a target to the lengths that are given for it.

    Yields what was cut, and whether that was accepted, as some formats must: a last array may be
    missing, or our own text.

    Raises:
        Finding: a number is in it that the whole file does not have.
    """
    path = TARGETS[name].make(folder)
    known = _contents(lstmconvert.load(path))
    root = path if path.is_dir() else path.parent
    for part in sorted(part for part in root.rglob("*") if part.is_file()):
        whole = part.read_bytes()
        for length in sorted(lengths(part), reverse=True):
            os.truncate(part, length)
            what = f"{name}: {part.name} cut at {length} of {len(whole)}"
            yield what, _is_accepted(path, known, what)
        part.write_bytes(whole)


def _contents(model: Any) -> set[bytes]:
    """Return what each array holds, in whichever order: without our metadata a matrix of another
    program is not turned."""
    return {bytes(sorted(data)) for _, _, data in numbers(model).values()}


def every_length(path: Path) -> range:
    """Every length that a file is cut to."""
    return range(path.stat().st_size)


def _is_accepted(path: Path, known: set[bytes], what: str) -> bool:
    try:
        contents = _contents(lstmconvert.load(path))
    except LSTMConvertError as error:
        _check_error(error)
        return False
    if not contents <= known:
        raise Finding(what)
    return True


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


# --- the parent -----------------------------------------------------------------------------------


def fuzz(name: str, seed: int, count: int, start: int = 0) -> Tally:
    """Try `count` mutants of a target, in a child process that is restarted when it dies."""
    tally, at, end = Tally(), start, start + count
    while at < end:
        at = _batch(name, seed, at, end, tally)
    return tally


def _batch(name: str, seed: int, at: int, end: int, tally: Tally) -> int:
    command = [sys.executable, __file__, "--worker", name, str(seed), str(at), str(end)]
    with tempfile.TemporaryFile() as notes:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=notes, text=True)
        assert process.stdout is not None
        last: dict[str, Any] = {"at": at, "outcome": "nothing"}
        for line in process.stdout:
            last = json.loads(line)
            if "outcome" in last:
                _count(tally, name, seed, last["at"], last["outcome"])
        process.stdout.close()
        code = process.wait()
        notes.seek(0)
        said = notes.read().decode(errors="replace")
    if "outcome" in last and code == 0:
        return int(last["at"]) + 1
    if "outcome" in last:
        raise RuntimeError(f"the worker failed with {code} between two mutants: {said[-2000:]}")
    _count(tally, name, seed, last["at"], f"exit code {code}\n{said[-2000:]}")
    return int(last["at"]) + 1


def _count(tally: Tally, name: str, seed: int, index: int, outcome: str) -> None:
    if outcome == "refused":
        tally.refused += 1
    elif outcome == "accepted":
        tally.accepted += 1
    else:
        tally.findings.append(f"--target {name} --seed {seed} --only {index}\n{outcome}")


def mutant(name: str, seed: int, index: int, folder: Path) -> Path:
    """Make one mutant again."""
    target = TARGETS[name]
    return target.mutate(target.make(folder), folder, mutate.dice(name, seed, index))


def _worker(name: str, seed: int, start: int, end: int) -> None:
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    # A program that makes the valid file may ask for more.
    unlimited = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _ROOM, unlimited))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    _work(name, seed, range(start, end), lambda x: print(json.dumps(x), flush=True))


def _truncate(name: str) -> None:
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        accepted = sum(kept for _, kept in truncated(name, Path(folder), every_length))
    print(f"{name}: {accepted} accepted", flush=True)


def main() -> None:
    """Run from the command line."""
    if sys.argv[1:2] == ["--cut"]:
        _truncate(sys.argv[2])
        return
    if sys.argv[1:2] == ["--worker"]:
        _worker(sys.argv[2], *map(int, sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", choices=TARGETS, help="default: all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--count", type=int, default=2000, help="mutants in one turn")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", type=int, help="examine this mutant alone")
    parser.add_argument("--keep", type=Path, help="where to keep it")
    parser.add_argument("--truncate", action="store_true", help="cut files instead")
    args = parser.parse_args()
    names = [args.target] if args.target else list(TARGETS)
    if args.truncate:
        runs = [subprocess.run([sys.executable, __file__, "--cut", name]) for name in names]
        sys.exit(any(run.returncode for run in runs))
    if args.only is not None:
        if args.keep:
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy(mutant(args.target, args.seed, args.only, Path(folder)), args.keep)
        print(fuzz(args.target, args.seed, 1, args.only))
        return
    end, start, failed = time.monotonic() + args.seconds, 0, False
    while time.monotonic() < end:
        for name in names:
            tally = fuzz(name, args.seed, args.count, start)
            failed |= bool(tally.findings)
            print(f"{name}: {tally.accepted} accepted, {tally.refused} refused", flush=True)
            for text in tally.findings:
                print(text)
        start += args.count
    sys.exit(failed)


if __name__ == "__main__":
    main()
