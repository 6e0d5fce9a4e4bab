"""Which sources files, folders, globs and lists of this machine name: by names, no file is opened.

A folder is walked one directory at a time, and of a directory only the names are held, so that a
million files take little memory. A directory may be one model (a SavedModel, an unzipped `.keras`),
and a model several files (a checkpoint, a sharded `.weights.json`). Names alone tell (`search`), so
that a hundred thousand files cost one listing.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lstmconvert.containers import table
from lstmconvert.containers.table import Container
from lstmconvert.errors import SourceError
from lstmconvert.files.writing import is_temporary

#: What an index of a TensorFlow checkpoint ends with; the checkpoint is the name before it.
_INDEX = ".index"
#: Its other files: numbers, graph, and the note that names it.
_DATA, _GRAPH, _STATE = ".data-", ".meta", "checkpoint"
#: An ONNX model's file of numbers has the model's whole name, and this after it.
_NUMBERS = ".data"
_SHARD = re.compile(r"(.*)_\d{5}\.weights\.h5")


class Folder(NamedTuple):
    """What was found in a folder, by the names alone.

    Fields: `models`: relative paths, sorted; `doubtful`: those of them that may be none; `passed`:
    how many other files there are, by suffix.
    """

    models: list[str]
    doubtful: Set[str]
    passed: Counter[str]


def search(names: Iterable[str], folders: Iterable[str] = ()) -> Folder:
    """Return the models among the files of a folder.

    Args:
        names: the relative path of every file, with `/`.
        folders: names of folders in it whose files are not among them.
    """
    files = _Files(names, folders)
    models = {folder or "." for folder in files.models}
    doubtful: set[str] = set()
    passed: Counter[str] = Counter()
    for name in files.names:
        if files.is_in_model(name) or files.is_part(name) or _leaf(name).startswith("."):
            continue
        rows = files.rows(name)
        if not rows:
            passed[PurePosixPath(name).suffix.lower() or "no suffix"] += 1
            continue
        models.add(name.removesuffix(_INDEX))
        if all(row.ambiguous for row in rows):
            doubtful.add(name)
    return Folder(sorted(models), doubtful, passed)


class _Files:
    """The files below a folder, and what their names say about one another."""

    def __init__(self, names: Iterable[str], folders: Iterable[str]) -> None:
        self.names = set(names)
        self._rows = table.read()
        self._checkpoints = {n.rpartition(_DATA)[0] for n in self.names if _DATA in n}
        leaves: dict[str, set[str]] = {"": {f"{folder}/" for folder in folders}}
        for name in self.names:
            leaves.setdefault(_folder_part(name), set()).add(_leaf(name))
        for above in {above for inner in leaves for above in (inner, *_above(inner)) if above}:
            leaves.setdefault(_folder_part(above), set()).add(f"{_leaf(above)}/")
        tests = [row.folder for row in self._rows if row.folder is not None]
        #: The folders that are models.
        self.models = {
            folder for folder, inside in leaves.items() if any(test(inside) for test in tests)
        }

    def is_in_model(self, name: str) -> bool:
        """Whether a file is in a folder that is a model."""
        return not self.models.isdisjoint(_above(name))

    def rows(self, name: str) -> list[Container]:
        """Return the containers that a file may be of, by its name."""
        suffix = table.suffix_of(_leaf(name), self._rows)
        if suffix == _INDEX and name.removesuffix(_INDEX) not in self._checkpoints:
            return []
        return [row for row in self._rows if suffix in row.suffixes]

    def is_part(self, name: str) -> bool:
        """Whether a file belongs to a model that another file represents."""
        if name.rpartition(_DATA)[0] in self._checkpoints or _leaf(name) == _STATE:
            return True
        if shard := _SHARD.fullmatch(name):
            return f"{shard[1]}.weights.json" in self.names
        return any(
            name.removesuffix(ending) + start in self.names
            for ending, starts in self._endings.items()
            if name.endswith(ending)
            for start in starts
        )

    @cached_property
    def _endings(self) -> dict[str, tuple[str, ...]]:
        """How a second file's name ends -> how its first file's name may end in its place."""
        endings: dict[str, tuple[str, ...]] = {_GRAPH: (_INDEX,), _NUMBERS: ("",)}
        for row in self._rows:
            if row.second is not None:
                endings[row.second] = (*endings.get(row.second, ()), *row.suffixes)
        return endings


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]


def _folder_part(name: str) -> str:
    return name.rpartition("/")[0]


def _above(name: str) -> Iterable[str]:
    while name:
        name = _folder_part(name)
        yield name


class Listed(NamedTuple):
    """One source.

    Fields: `root`: the folder that its place is below; `place`: its path below that, with `/`;
    `doubtful`: whether it was found in a folder, and files of its suffix are often no models.
    """

    root: str
    place: str
    doubtful: bool = False


def expanded(given: str, out_dir: str | None, passed: Counter[str]) -> Iterator[Listed]:
    """Yield the sources that a path or glob names.

    A file is taken as it is, a folder is searched, and a glob is expanded here, `**` too: what is
    below its first wildcard is kept of the path.

    Args:
        given: the path or glob.
        out_dir: a folder that holds no sources, where it is in a folder that is searched.
        passed: is told how many files of folders are not models, by suffix.

    Raises:
        SourceError: nothing exists there.
    """
    if os.path.isdir(given):
        whole = os.path.abspath(given)
        yield from _folder(whole, "", os.path.split(whole), out_dir, passed)
    elif _is_source(given):
        yield single(given)
    elif not glob.has_magic(given):
        raise SourceError("No such file or directory", where=given, hint="check the path")
    else:
        yield from _globbed(given, out_dir, passed)


def single(path: str) -> Listed:
    """Return a file that was named by itself: it goes to its name."""
    return Listed(*os.path.split(os.path.abspath(path)))


def below(path: str, root: str) -> Listed:
    """Return a file of a list: it keeps its path below a folder, or outside it its whole path."""
    whole = os.path.abspath(path)
    try:
        is_below = os.path.commonpath([whole, root]) == root and whole != root
    except ValueError:  # on another drive
        is_below = False
    start = root if is_below else os.path.splitdrive(whole)[0] + os.sep
    return Listed(start, Path(os.path.relpath(whole, start)).as_posix())


def _is_source(path: str) -> bool:
    """Whether a path is there; a checkpoint is the name that its files begin with."""
    return os.path.lexists(path) or os.path.isfile(f"{path}.index")


def _globbed(pattern: str, out_dir: str | None, passed: Counter[str]) -> Iterator[Listed]:
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = os.path.abspath(Path(*parts[:first]))
    for path in sorted(glob.iglob(pattern, recursive=True)):
        place = Path(os.path.relpath(path, root)).as_posix()
        if os.path.isdir(path):
            yield from _folder(os.path.join(root, place), place, (root, place), out_dir, passed)
        else:
            yield Listed(root, place)


def _folder(
    folder: str,
    start: str,
    itself: tuple[str, str],
    out_dir: str | None,
    passed: Counter[str],
) -> Iterator[Listed]:
    """Yield the models of a folder, sorted by their paths.

    Args:
        folder: the folder.
        start: the prefix of their places.
        itself: root and place of the folder, where it is one model.
        out_dir, passed: as in `expanded`.
    """
    root = folder[: len(folder) - len(start)].rstrip(os.sep) or os.sep if start else folder
    away = _identity(out_dir)
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        place = Path(os.path.relpath(path, root)).as_posix()
        names, folders = _names(path)
        if names is None:  # it may not be looked into: it fails in its turn, and stops no other
            yield Listed(*itself) if path == folder else Listed(root, place)
            continue
        files = search(names, folders)
        if files.models == ["."]:
            yield Listed(*itself) if path == folder else Listed(root, place)
            continue
        passed.update(files.passed)
        before = "" if place == "." else f"{place}/"
        yield from (Listed(root, before + n, n in files.doubtful) for n in files.models)
        inner = (os.path.join(path, name) for name in sorted(folders, reverse=True))
        waiting += [each for each in inner if away is None or _identity(each) != away]


def _identity(path: str | None) -> tuple[int, int] | None:
    """Return what tells a folder from all others, whatever its name; None if it is not there."""
    try:
        status = os.stat(path or "")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _names(path: str) -> tuple[list[str] | None, list[str]]:
    """Return the names of the files, and of the folders, in a folder; None if it is closed."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not is_temporary(entry.name):
                        folders.append(entry.name)
                elif not entry.is_symlink() or not entry.is_dir():
                    files.append(entry.name)
    except OSError:
        return None, []
    return files, folders


def lines(stream: Iterable[str]) -> Iterator[str]:
    """Yield the sources of a list: one a line; empty lines count for nothing."""
    for line in stream:
        text = line.rstrip("\r\n")
        if text:
            yield text
