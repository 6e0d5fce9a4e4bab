"""Every crafted file, under guard: refused in one line, or converted to equal numbers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import crafted_config
import crafted_hdf5
import crafted_hdf5_bytes
import crafted_kinds
import crafted_paths
import crafted_safetensors
import crafted_zip
import numpy as np
import pytest
from crafted import CRAFTS, FIXTURES, KERAS, SECRET, Bench, Craft
from jail import RESIDENT, SECONDS, Jail, Run, Watch

import lstmconvert

MODULES = (
    crafted_config,
    crafted_hdf5,
    crafted_hdf5_bytes,
    crafted_kinds,
    crafted_paths,
    crafted_safetensors,
    crafted_zip,
)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a library that HDF5 could take for a filter."""
    folder = tmp_path_factory.mktemp("plugins")
    import h5py.h5

    shutil.copy(h5py.h5.__file__, folder / "libh5sentinel.so")
    return folder


@pytest.fixture(scope="module")
def jail(plugins: Path) -> Iterator[Jail]:
    with Jail(HDF5_PLUGIN_PATH=str(plugins)) as one:
        yield one


@cache
def numbers() -> dict[str, bytes]:
    """The per-gate numbers of the valid file."""
    return _numbers(FIXTURES / KERAS)


def _numbers(path: Path) -> dict[str, bytes]:
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


@pytest.mark.parametrize("craft", CRAFTS, ids=lambda craft: craft.name)
def test_crafted_file(craft: Craft, jail: Jail, plugins: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bench = Bench(folder, tmp_path / "victim", tmp_path / "sentinel")
    source = craft.make(bench)
    destination = tmp_path / "out" / "out.safetensors"
    destination.parent.mkdir()
    watches = [
        Watch(path) for path in (bench.victim, plugins / "libh5sentinel.so") if path.exists()
    ]

    run = jail.run("convert", source, destination, allow=[folder])

    opened = [watch.opened() for watch in watches]
    for watch in watches:
        watch.close()
    assert not any(opened)
    assert not bench.sentinel.exists()
    check_bounds(run)
    if craft.refused is None:
        assert run.code == 0, run
        assert _numbers(destination) == numbers()
        assert SECRET not in destination.read_bytes()
        assert os.listdir(destination.parent) == [destination.name]
    else:
        check_refusal(run, craft.refused)
        assert os.listdir(destination.parent) == []


def test_crafts_differ_from_a_file_that_converts(jail: Jail, tmp_path: Path) -> None:
    destination = tmp_path / "out.safetensors"
    run = jail.run("convert", FIXTURES / KERAS, destination)
    check_bounds(run)
    assert run.code == 0
    assert _numbers(destination) == numbers()


# The guard itself must be able to fail.


def test_the_guard_sees_what_is_opened(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    watch = Watch(victim)
    assert not watch.opened()
    victim.read_text()
    assert watch.opened()
    watch.close()


def test_the_guard_sees_a_foreign_file(jail: Jail, tmp_path: Path) -> None:
    # A source that may not be opened is a file outside source and destination.
    run = jail.run("convert", str(FIXTURES / KERAS), tmp_path / "out.safetensors")
    assert any(KERAS in event for event in run.events)


def test_numbers_are_told_apart() -> None:
    assert all(np.frombuffer(data, "f4").any() for data in list(numbers().values())[:8])


def test_the_limits_of_memory_hold(jail: Jail, tmp_path: Path) -> None:
    run = jail.run("convert", FIXTURES / KERAS, tmp_path / "out.safetensors")
    assert 10 * 2**20 < run.resident < RESIDENT
