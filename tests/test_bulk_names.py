"""Which of many files are models, and where each goes."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from lstmconvert.bulk.sources import Source, jobs, models
from lstmconvert.errors import UsageError


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a.keras", "b/c.H5", "b/d.hdf5"], ["a.keras", "b/c.H5", "b/d.hdf5"]),
        (["notes.txt", "config.json"], []),
        (["io.npz", ".hidden.keras"], []),
        (["m/saved_model.pb", "m/variables/variables.index", "m/assets/x.h5"], ["m"]),
        (["saved_model.pb", "variables/variables.index"], ["."]),
        (["m/config.json", "m/model.weights.h5", "m/metadata.json"], ["m"]),
        (["m/config.json", "m/model.weights.npz"], ["m"]),
        (["w.weights.json", "w_00000.weights.h5", "w_00001.weights.h5"], ["w.weights.json"]),
        (["w_00000.weights.h5"], ["w_00000.weights.h5"]),
        (["checkpoint", "ckpt.index", "ckpt.data-00000-of-00001"], ["ckpt"]),
        (["pages.index"], []),
    ],
)
def test_models_of_a_folder(names: list[str], found: list[str]) -> None:
    assert models(names) == found


def destinations(*paths: str, place: str | None = None) -> list[str]:
    sources = [Source(path, PurePosixPath(place or path.rpartition("/")[2])) for path in paths]
    return [job.destination for job in jobs(sources, lambda place: f"out/{place}", ".npz")]


def test_destinations() -> None:
    assert destinations("in/a.weights.h5", "in/b.keras") == ["out/a.npz", "out/b.npz"]
    assert destinations("in/run.v2", "in/run") == ["out/run.v2.npz", "out/run.npz"]


def test_a_source_named_twice_is_one() -> None:
    assert destinations("in/a.h5", "in/a.h5") == ["out/a.npz"]


def test_sources_of_one_name_keep_what_tells_them_apart() -> None:
    assert destinations("in/a.h5", "in/a.keras", "in/b.h5") == [
        "out/a.h5.npz",
        "out/a.keras.npz",
        "out/b.npz",
    ]
    assert destinations("in/x/a.h5", "in/y/a.h5") == ["out/x/a.h5.npz", "out/y/a.h5.npz"]
    # Where case is ignored, both would be one file.
    assert destinations("in/a.h5", "in/A.keras") == ["out/a.h5.npz", "out/A.keras.npz"]


def test_two_sources_of_one_destination_are_refused() -> None:
    with pytest.raises(UsageError, match="one destination"):
        destinations("in/A.h5", "in/a.h5")
