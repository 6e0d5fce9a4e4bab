"""Every crafted file, under guard: refused in one line, or converted to equal numbers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import (
    crafted_config,
    crafted_hdf5,
    crafted_hdf5_bytes,
    crafted_kinds,
    crafted_paths,
    crafted_safetensors,
    crafted_zip,
)
from support.crafted import CRAFTS, FIXTURES, KERAS, SECRET, Bench, Craft
from support.jail import RESIDENT, Jail, Watch
from support.verdicts import check_bounds, check_refusal, lstm_numbers, numbers

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


def in_turn() -> Iterator[Any]:
    """Yield each craft. Of one that is made in several kinds of file, one in turn is quick."""
    kinds: dict[str, list[Craft]] = {}
    for craft in CRAFTS:
        kinds.setdefault(craft.name.rpartition("-")[0] or craft.name, []).append(craft)
    for number, same in enumerate(kinds.values()):
        for place, craft in enumerate(same):
            marks = () if place == number % len(same) else pytest.mark.slow
            yield pytest.param(craft, id=craft.name, marks=marks)


@pytest.mark.parametrize("craft", [*in_turn()])
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
        assert lstm_numbers(destination) == numbers()
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
    assert lstm_numbers(destination) == numbers()


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


@pytest.mark.slow
def test_the_limits_of_memory_hold(jail: Jail, tmp_path: Path) -> None:
    run = jail.run("convert", FIXTURES / KERAS, tmp_path / "out.safetensors")
    assert 10 * 2**20 < run.resident < RESIDENT
