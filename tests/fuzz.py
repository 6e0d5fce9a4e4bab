"""Mutation fuzzing of every container that is read.

    python tests/fuzz.py --seconds 600          every target, in turn, with new mutants each time
    python tests/fuzz.py --target keras --seed 7 --count 5000
    python tests/fuzz.py --target keras --seed 7 --only 1234 --keep mutant.keras

A mutant must give a typed error, or a result that is the original's, or, where a format has no
checksum, what the format's own library sees in the mutant. Anything else is a finding: another
exception, other numbers, a signal, a hang. A signal that h5py alone gets from the same file is a
fault of the HDF5 library, and is counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import io
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
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import h5py  # noqa: E402
import mutate  # noqa: E402
import numpy as np  # noqa: E402

import lstmconvert  # noqa: E402
from lstmconvert import gatesfile, metadata  # noqa: E402
from lstmconvert.errors import LSTMConvertError  # noqa: E402
from lstmconvert.keras import stored  # noqa: E402
from lstmconvert.model import Model  # noqa: E402

FIXTURES = ROOT / "fixtures" / "keras-3.6.0"
_SECONDS = 10  # for one mutant
_ROOM = 1 << 30
Numbers = Mapping[str, tuple[Any, str, bytes]]


class Finding(Exception):
    """A mutant whose result is wrong."""


# --- what a file holds ----------------------------------------------------------------------------


def numbers(model: Model) -> Numbers:
    """Every tensor of a per-gate file of the model."""
    found = gatesfile.tensors(model, with_optimizer=True)
    return {n: (t.shape, t.dtype.name, t.read().tobytes()) for n, t in found.items()}


def everything(model: Model) -> tuple[Numbers, str]:
    """Every tensor, and all that the metadata says."""
    return numbers(model), metadata.to_text(model, digest=None)


def same_as_h5py(model: Model, path: Path) -> None:
    """Compare every array with h5py's view of it."""
    with h5py.File(path, "r") as file:
        for layer in model.layers:
            for _, _, cell in layer.cells():
                for part, place in cell.places.items():
                    _compare(file, place, cell.fused(part).read())
        for place, tensor in {**model.other, **model.optimizer}.items():
            if tensor.dtype.kind in "fiub":
                _compare(file, place, tensor.read())


def _compare(file: h5py.File, place: str, ours: Any) -> None:
    theirs = np.asarray(file[place][()])
    if theirs.dtype.byteorder == ">":
        theirs = theirs.astype(theirs.dtype.newbyteorder("<"))
    if theirs.shape != ours.shape or theirs.tobytes() != ours.tobytes():
        raise Finding(f"{place}: ours {ours.dtype}{ours.shape}, h5py's {theirs.dtype}{theirs.shape}")


def same_as_safetensors(model: Model, path: Path) -> None:
    """Compare every tensor with the library's view, whatever its name."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        theirs = sorted(np.ascontiguousarray(file.get_tensor(n)).tobytes() for n in file.keys())
    if sorted(data for _, _, data in numbers(model).values()) != theirs:
        raise Finding("other tensors than the library's")


# --- targets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A container to fuzz.

    Fields: `make` puts the valid file into a folder; `mutate` makes a mutant there, given the valid
    file and dice; `agree` raises `Finding` where an accepted mutant's result is wrong; `rewrite`:
    accepted mutants are also written as Keras files.
    """

    make: Callable[[Path], Path]
    mutate: Callable[[Path, Path, random.Random], Path]
    agree: Callable[[Model, Path, tuple[Numbers, str]], None]
    rewrite: bool = False


def _copied(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(FIXTURES / name, folder))


def _converted(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        lstmconvert.convert(FIXTURES / "seed95.keras", folder / f"valid{suffix}", force=True)
        return folder / f"valid{suffix}"

    return make


def _bytes(valid: Path, folder: Path, dice: random.Random) -> Path:
    path = folder / f"mutant{''.join(valid.suffixes)}"
    data = dice.choice(mutate.BYTES)(valid.read_bytes(), dice)
    if dice.random() < 0.2:
        data = dice.choice(mutate.BYTES)(data, dice) if data else data
    path.write_bytes(data)
    return path


def _archive_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    path = folder / "mutant.keras"
    with zipfile.ZipFile(valid) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json" or (name == "metadata.json" and dice.random() < 0.1):
                data = json.dumps(mutate.mutate_json(json.loads(data), dice)).encode()
            target.writestr(name, data)
    return path


def _legacy_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    path = Path(shutil.copy(valid, folder / "mutant.h5"))
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(mutate.mutate_json(config, dice))
    return path


def _metadata_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    from crafted_safetensors import joined, split

    header, body = split(valid.read_bytes())
    value = json.loads(header["__metadata__"]["lstmconvert"])
    header["__metadata__"]["lstmconvert"] = json.dumps(mutate.mutate_json(value, dice))
    path = folder / "mutant.safetensors"
    path.write_bytes(joined(header, body))
    return path


def _shards(folder: Path) -> Path:
    shutil.copy(FIXTURES / "seed95.weights.h5", folder / "a.weights.h5")
    path = folder / "valid.weights.json"
    path.write_text('{"metadata": {"total_size": 1}, "weight_map": {"/l/v": ["a.weights.h5"]}}')
    return path


def _shards_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    if dice.random() < 0.5:
        return _bytes(valid, folder, dice)
    path = folder / "mutant.weights.json"
    path.write_text(json.dumps(mutate.mutate_json(json.loads(valid.read_text()), dice)))
    return path


def _hdf5(valid: Path, folder: Path, dice: random.Random) -> Path:
    mutate.mutate_hdf5(valid, folder / "mutant.h5", dice)
    return folder / "mutant.h5"


def _equal(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    if everything(model) != valid:
        raise Finding("another result than the original's")


def _numbers_of(archive: str) -> Callable[[Model, Path, tuple[Numbers, str]], None]:
    """A config cannot change a number: it only says where they are."""
    return lambda model, path, valid: _check_places(model, _fixture(archive))


def _check_places(model: Model, known: Mapping[str, bytes]) -> None:
    found = {**model.other, **model.optimizer}
    for layer in model.layers:
        for _, _, cell in layer.cells():
            found.update(stored.places(cell))
    for place, tensor in found.items():
        if tensor.read().tobytes() != known[place]:
            raise Finding(f"{place} has other numbers than the original")


@cache
def _fixture(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(FIXTURES / name) as archive:
        data = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(data) as file:
        items: list[Any] = []
        file.visititems(lambda _, item: items.append(item))
        datasets = [item for item in items if isinstance(item, h5py.Dataset)]
        return {one.name.strip("/"): one[()].tobytes() for one in datasets}


def _as_h5py(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    same_as_h5py(model, path)


def _as_safetensors(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    same_as_safetensors(model, path)


TARGETS: dict[str, Target] = {
    "keras": Target(_copied("seed95.keras"), _bytes, _equal),
    "keras-config": Target(_copied("zoo.keras"), _archive_json, _numbers_of("zoo.keras"), rewrite=True),
    "weights": Target(_copied("seed95.weights.h5"), _bytes, _as_h5py),
    "weights-tree": Target(_copied("seed95.weights.h5"), _hdf5, _as_h5py),
    "legacy": Target(_copied("seed95.h5"), _bytes, _as_h5py),
    "legacy-tree": Target(_copied("seed95.h5"), _hdf5, _as_h5py),
    "legacy-config": Target(_copied("seed95.h5"), _legacy_json, _as_h5py, rewrite=True),
    "safetensors": Target(_converted(".safetensors"), _bytes, _as_safetensors),
    "safetensors-metadata": Target(
        _converted(".safetensors"), _metadata_json, _as_safetensors, rewrite=True
    ),
    "npz": Target(_converted(".npz"), _bytes, _equal),
    "shards": Target(_shards, _shards_json, _numbers_of("seed95.keras")),
}


# --- one mutant -----------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the mutants: `refused`, `accepted`, `library` (HDF5's faults), `findings`."""

    refused: int = 0
    accepted: int = 0
    library: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many there were."""
        return self.refused + self.accepted + self.library + len(self.findings)


def examine(target: Target, path: Path, valid: tuple[Numbers, str], dice: random.Random) -> str:
    """Load one mutant and, if it is accepted, convert it. Returns `refused` or `accepted`.

    Raises:
        Finding: its result is wrong. Any exception that is not ours is one as well.
    """
    try:
        model = lstmconvert.load(path)
        found = numbers(model)
    except LSTMConvertError as error:
        _check_error(error)
        return "refused"
    target.agree(model, path, valid)
    suffixes = (".safetensors", ".keras", ".h5", ".weights.h5") if target.rewrite else (".safetensors",)
    destination = path.parent / f"out{dice.choice(suffixes)}"
    try:
        lstmconvert.convert(path, destination, force=True, with_optimizer=True)
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


def _work(name: str, seed: int, numbers_of: Iterator[int], progress: Callable[[dict[str, Any]], None]) -> None:
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(dir=_memory()) as text:
        folder = Path(text)
        valid_path = target.make(folder)
        valid = everything(lstmconvert.load(valid_path))
        for index in numbers_of:
            dice = random.Random(f"{name}/{seed}/{index}")
            progress({"at": index})
            signal.alarm(_SECONDS)
            try:
                path = target.mutate(valid_path, folder, dice)
                outcome = examine(target, path, valid, dice)
            except MemoryError:
                outcome = "MemoryError"
            except Exception:
                outcome = traceback.format_exc(limit=-4)
            signal.alarm(0)
            progress({"at": index, "outcome": outcome})


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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last: dict[str, Any] = {"at": at, "outcome": "nothing"}
    for line in process.stdout:
        last = json.loads(line)
        if "outcome" in last:
            _count(tally, name, seed, last["at"], last["outcome"])
    process.stdout.close()
    code = process.wait()
    if "outcome" in last and code == 0:
        return end
    if "outcome" in last:
        raise RuntimeError(f"the worker failed with {code} between two mutants")
    if _dies_in_h5py_alone(name, seed, last["at"]):
        tally.library += 1
    else:
        _count(tally, name, seed, last["at"], f"exit code {code}")
    return int(last["at"]) + 1


def _count(tally: Tally, name: str, seed: int, index: int, outcome: str) -> None:
    if outcome == "refused":
        tally.refused += 1
    elif outcome == "accepted":
        tally.accepted += 1
    else:
        tally.findings.append(f"--target {name} --seed {seed} --only {index}\n{outcome}")


_H5PY = """
import h5py, sys
file = h5py.File(sys.argv[1], "r")
items = [file["/"]]
file.visititems(lambda name, item: items.append(item))
for item in items:
    dict(item.attrs)
    if isinstance(item, h5py.Dataset) and item.size and item.size < 1e6:
        item[()]
"""


def _dies_in_h5py_alone(name: str, seed: int, index: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = mutant(name, seed, index, Path(folder))
        command = [sys.executable, "-c", _H5PY, path]
        with contextlib.suppress(subprocess.TimeoutExpired):
            return subprocess.run(command, capture_output=True, timeout=_SECONDS).returncode < 0
    return True


def mutant(name: str, seed: int, index: int, folder: Path) -> Path:
    """Make one mutant again."""
    target = TARGETS[name]
    return target.mutate(target.make(folder), folder, random.Random(f"{name}/{seed}/{index}"))


def _worker(name: str, seed: int, start: int, end: int) -> None:
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _ROOM, mapped + _ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _work(name, seed, iter(range(start, end)), lambda x: print(json.dumps(x), flush=True))


def main() -> None:
    """Run from the command line."""
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
    args = parser.parse_args()
    if args.only is not None:
        if args.keep:
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy(mutant(args.target, args.seed, args.only, Path(folder)), args.keep)
        print(fuzz(args.target, args.seed, 1, args.only))
        return
    end, start, failed = time.monotonic() + args.seconds, 0, False
    while time.monotonic() < end:
        for name in [args.target] if args.target else TARGETS:
            tally = fuzz(name, args.seed, args.count, start)
            failed |= bool(tally.findings)
            print(f"{name}: {tally.accepted} accepted, {tally.refused} refused, {tally.library} died in HDF5")
            for text in tally.findings:
                print(text)
        start += args.count
    sys.exit(failed)


if __name__ == "__main__":
    main()
