"""What a killed process left is removed; names at their limit; readers that go away; interrupts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import spawn
from crafted import FIXTURES
from jail import ROOT, Fault, Jail

import lstmconvert
from lstmconvert import writing
from lstmconvert.errors import DestinationError

SOURCE = FIXTURES / "seed95.keras"
OTHER = FIXTURES.parent / "keras-3.15.1" / "square.keras"


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """A jail whose server has imported what draws tables."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import rich.console, rich.table\n")
    with Jail(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)])) as one:
        yield one


def _left(destination: Path, process: int) -> Path:
    with writing.replacing(destination) as path:
        path.write_bytes(b"x")
        name = path.name.replace(f".{os.getpid()}.", f".{process}.")
    destination.unlink()
    left = destination.with_name(name)
    left.write_bytes(b"half")
    return left


def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    destination = tmp_path / "lstm.safetensors"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    of_dead, of_living = _left(destination, dead.pid), _left(destination, os.getppid())
    of_same_number = _left(destination, os.getpid())
    of_another = _left(tmp_path / "other.safetensors", dead.pid)
    lstmconvert.convert(SOURCE, destination)
    assert not of_dead.exists()
    assert not of_same_number.exists()  # an earlier process of our number
    assert of_living.exists()
    assert of_another.exists()


def test_long_names(tmp_path: Path) -> None:
    destination = tmp_path / ("ü" * 121 + ".safetensors")  # 254 bytes; 255 are allowed
    lstmconvert.convert(SOURCE, destination)
    assert os.listdir(tmp_path) == [destination.name]
    with pytest.raises(DestinationError, match="too long"):
        lstmconvert.convert(SOURCE, tmp_path / ("ü" * 130 + ".safetensors"))


# --- pipes ----------------------------------------------------------------------------------------


def test_closed_pipe() -> None:
    command = [sys.executable, "-m", "lstmconvert", "inspect", FIXTURES / "zoo.keras", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 141, -13)
    assert not stderr


_PRINTING = {
    "inspect": ["inspect", SOURCE],
    "stats": ["inspect", SOURCE, "--stats", "--json"],
    "convert": ["convert", SOURCE, "OUT/lstm.npz", "--json"],
    "batch": ["batch", SOURCE, "--out-dir", "OUT", "-j", "1", "--json"],
    "diff": ["diff", SOURCE, OTHER],
    "verify": ["verify", SOURCE, "--engine", "numpy"],
    "formats": ["formats"],
    "help": ["convert", "--help"],
}


@pytest.mark.parametrize("name", _PRINTING)
def test_nobody_reads(name: str, tmp_path: Path) -> None:
    """Data for a pipe that is closed already, or for a disk that is full."""
    command = [str(x).replace("OUT", str(tmp_path)) for x in _PRINTING[name]]
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        run = spawn(*command, stdout=pipe, stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (141, "")
    with open("/dev/full", "w") as full:
        run = spawn(*command, stdout=full, stderr=subprocess.PIPE)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 2, run.stderr
    made = {"convert": {"lstm.npz"}, "batch": {"seed95.safetensors", "lstmconvert-batch.jsonl"}}
    assert set(os.listdir(tmp_path)) == made.get(name, set())


@pytest.mark.parametrize("name", sorted({*_PRINTING} - {"batch", "help"}))
def test_interrupts(name: str, jail: Jail, tmp_path: Path) -> None:
    command = [x if isinstance(x, Path) else x.replace("OUT", str(tmp_path))
               for x in _PRINTING[name]]  # fmt: skip
    count = jail.run(*command, fault=Fault("call", 0, "kill")).counts["call"]
    assert count > 100
    for at in range(5, count, count // 8):  # from when the command line hears of it
        run = jail.run(*command, fault=Fault("call", at, "interrupt"))
        if run.code == 130:
            assert run.stderr == "lstmconvert: interrupted\n"
        # Python itself reports one that lands in a generator's finalizer, and goes on.
        assert run.code == 130 or "Exception ignored" in run.stderr, run
        assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]
        for left in tmp_path.iterdir():
            left.unlink()


def test_what_a_process_left_whose_parent_does_not_reap_it(tmp_path: Path) -> None:
    """As below a container's first process that waits for none of its children."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is over, and not reaped
    left = tmp_path / f".x.safetensors.{child.pid}.0123abcd.lstmconvert-tmp"
    left.touch()
    writing.remove_stale(tmp_path / "x.safetensors")
    child.wait()
    assert not left.exists()
