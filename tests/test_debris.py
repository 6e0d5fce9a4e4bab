"""What a killed process left is removed; names at their limit; a reader that goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from crafted import FIXTURES
from jail import ROOT

import lstmconvert
from lstmconvert import writing
from lstmconvert.errors import DestinationError

SOURCE = FIXTURES / "seed95.keras"


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


def test_what_a_process_left_whose_parent_does_not_reap_it(tmp_path: Path) -> None:
    """As below a container's first process that waits for none of its children."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is over, and not reaped
    left = tmp_path / f".x.safetensors.{child.pid}.0123abcd.lstmconvert-tmp"
    left.touch()
    writing.remove_stale(tmp_path / "x.safetensors")
    child.wait()
    assert not left.exists()
