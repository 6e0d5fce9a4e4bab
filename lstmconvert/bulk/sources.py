"""Which of many files are models, and where each goes: pure work on names.

A directory may be one model (a SavedModel, an unzipped `.keras`), and a model several files (a
checkpoint, a sharded `.weights.json`). What a folder holds is told by the names alone, so that a
hundred thousand files cost one listing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from lstmconvert.errors import UsageError

#: Suffixes of models, the longer first.
SUFFIXES = (
    ".weights.json",
    ".weights.h5",
    ".safetensors",
    ".tflite",
    ".mlmodel",
    ".keras",
    ".hdf5",
    ".onnx",
    ".index",
    ".h5",
    ".npz",
    ".pth",
    ".pt",
)
#: Suffixes of what may as well be something else: such a file is a source when it is named, by a
#: glob too, and not when a folder is searched.
_DATA = (".npz",)
_SAVED_MODEL = "saved_model.pb"
#: The members of an unzipped `.keras`, either of the two weight stores.
_CONFIG, _WEIGHTS = "config.json", ("model.weights.h5", "model.weights.npz")
_SHARD = re.compile(r"(.*)_\d{5}\.weights\.h5")


class Source(NamedTuple):
    """One model: `path` as it is opened, and `place`, its path below what the user named."""

    path: str
    place: PurePosixPath


class Job(NamedTuple):
    """One conversion: from a path or URL to another."""

    source: str
    destination: str


class Task(NamedTuple):
    """A job, and what an earlier run reports of its destination."""

    job: Job
    known: Mapping[str, Any] | None


def models(names: Iterable[str]) -> list[str]:
    """Return the models among the files of a folder, as relative paths, sorted.

    Args:
        names: the relative path of every file, with `/`.
    """
    everything = set(names)
    folders = {_folder(name) for name in everything if _leaf(name) == _SAVED_MODEL}
    folders |= {
        _folder(name)
        for name in everything
        if _leaf(name) == _CONFIG and any(_beside(name, w) in everything for w in _WEIGHTS)
    }
    found = {folder or "." for folder in folders}
    prefixes = {name.rpartition(".data-")[0] for name in everything if ".data-" in name}
    for name in everything:
        if _is_model(name, everything, prefixes) and folders.isdisjoint(_above(name)):
            found.add(name.removesuffix(".index"))
    return sorted(found)


def _is_model(name: str, everything: set[str], prefixes: set[str]) -> bool:
    lower = _leaf(name).lower()
    if not lower.endswith(SUFFIXES) or lower.endswith(_DATA) or lower.startswith("."):
        return False
    shard = _SHARD.fullmatch(name)
    if shard and f"{shard[1]}.weights.json" in everything:
        return False
    return not name.endswith(".index") or name.removesuffix(".index") in prefixes


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _beside(name: str, leaf: str) -> str:
    return f"{_folder(name)}/{leaf}".lstrip("/")


def _above(name: str) -> Iterable[str]:
    while name:
        name = _folder(name)
        yield name


def jobs(sources: Sequence[Source], join: Callable[[str], str], suffix: str) -> list[Job]:
    """Return a job for each source, none of which shares its destination with another.

    A source goes to its place, with another suffix. Where two would meet (`a.h5` and `a.keras`, or
    `x/a.h5` and `y/a.h5`, each named by itself), all of them keep their own suffix too, then as
    much of their path as tells them apart.

    Args:
        sources: the models; one that is named twice is taken once.
        join: makes a destination of a place.
        suffix: of the destinations.

    Raises:
        UsageError: two sources would still have one destination.
    """
    unique = {source.path: source for source in reversed(sources)}
    listed = [unique[path] for path in dict.fromkeys(source.path for source in sources)]
    places = {source.path: _stem(source.place) for source in listed}
    for spread in (_suffixed, _apart):
        if meeting := _meeting(listed, places):
            place = spread(listed)
            places |= {source.path: place(source) for source in meeting}
    if left := _meeting(listed, places):
        raise UsageError(
            "two sources have one destination",
            where=left[0].path,
            found=join(f"{places[left[0].path]}{suffix}"),
            expected="a destination for each",
            hint="convert one of them by itself",
        )
    return [Job(source.path, join(f"{places[source.path]}{suffix}")) for source in listed]


def _meeting(
    sources: Sequence[Source], places: dict[str, PurePosixPath]
) -> list[Source]:
    by_place: dict[str, list[Source]] = {}
    for source in sources:
        # File systems that ignore case would write both to one file.
        by_place.setdefault(str(places[source.path]).casefold(), []).append(source)
    return [source for group in by_place.values() if len(group) > 1 for source in group]


def _suffixed(_: Sequence[Source]) -> Callable[[Source], PurePosixPath]:
    """Return what gives a source's place, with its own suffix."""
    return lambda source: source.place


def _apart(sources: Sequence[Source]) -> Callable[[Source], PurePosixPath]:
    """Return what gives a source's path below the folder that all sources share."""
    folders = [PurePosixPath(source.path).parent.parts for source in sources]
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    return lambda source: PurePosixPath(*PurePosixPath(source.path).parts[shared:])


def _stem(place: PurePosixPath) -> PurePosixPath:
    lower = place.name.lower()
    suffix = next((s for s in SUFFIXES if lower.endswith(s) and len(lower) > len(s)), "")
    return place.with_name(place.name[: len(place.name) - len(suffix)]) if suffix else place
