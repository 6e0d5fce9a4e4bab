"""Where sources lie and destinations go: this machine's files, or what fsspec reaches by a URL.

A URL is what the user gives, never what a file says. It is copied to a temporary folder, converted
there, and its result copied up; an object store shows the new object when it is whole.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lstmconvert.bulk.sources import Source, models
from lstmconvert.errors import (
    DestinationError,
    LSTMConvertError,
    MissingPackage,
    SourceError,
    UsageError,
)

_MARK = "://"


def is_url(path: str) -> bool:
    """Whether a path is a URL: `s3://bucket/key`, `memory://folder/file`."""
    return _MARK in path


def expanded(given: Sequence[str], out_dir: str) -> list[Source]:
    """Return every model that files, folders and globs name, in their order.

    A file is taken as it is, a folder is searched, and a glob is expanded here, `**` too: what is
    below its first wildcard is kept of the path. What lies in `out_dir` is no source.

    Raises:
        SourceError: nothing is there, or no model.
        MissingPackage: a URL, and fsspec or its back end is not installed.
    """
    found: dict[str, Source] = {}
    for one in given:
        listed = _remote(one) if is_url(one) else _local(one, out_dir)
        if not listed:
            raise SourceError(
                "no model there", where=one, hint="give files, folders or globs that exist"
            )
        for source in listed:
            found.setdefault(same(source.path), source)
    return list(found.values())


def same(path: str) -> str:
    """Return one spelling for all of a path's: `out/x`, `./out/x` and `/home/me/out/x`."""
    return path if is_url(path) else os.path.abspath(path)


def _local(given: str, out_dir: str) -> list[Source]:
    if os.path.isdir(given):
        own = PurePosixPath(os.path.basename(os.path.abspath(given)))
        return _folder(given, out_dir, own, PurePosixPath())
    if os.path.lexists(given) or os.path.isfile(f"{given}.index"):
        return [Source(given, PurePosixPath(os.path.basename(given)))]
    if not glob.has_magic(given):
        raise SourceError("No such file or directory", where=given, hint="check the path")
    root = _root(given)
    found: list[Source] = []
    for path in sorted(glob.iglob(given, recursive=True)):
        place = PurePosixPath(Path(os.path.relpath(path, root)).as_posix())
        is_folder = os.path.isdir(path)
        found += _folder(path, out_dir, place, place) if is_folder else [Source(path, place)]
    return found


def _root(pattern: str) -> str:
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return str(Path(*parts[:first])) if first else "."


def _folder(
    folder: str, out_dir: str, own: PurePosixPath, below: PurePosixPath
) -> list[Source]:
    """Return the models of a folder; links to folders are not followed, so that none is a loop.

    Args:
        folder: the folder.
        out_dir: a folder in it that is left out.
        own: the place of the folder itself, where it is one model.
        below: the place of what is in it.
    """
    away = None if is_url(out_dir) else os.path.realpath(out_dir)
    names: list[str] = []
    closed: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=lambda e: closed.append(e.filename)):
        folders[:] = [
            name for name in folders if os.path.realpath(os.path.join(parent, name)) != away
        ]
        here = PurePosixPath(Path(os.path.relpath(parent, folder)).as_posix())
        names += (f"{here}/{name}" if here.parts else name for name in files)
    found = models(names)
    if found == ["."] or folder in closed:
        return [Source(folder, own)]
    # What may not be looked into fails in its turn, and does not stop the others.
    found += [Path(os.path.relpath(path, folder)).as_posix() for path in closed]
    return [Source(os.path.join(folder, *name.split("/")), below / name) for name in found]


# -- URLs -------------------------------------------------------------------------------------


def _fsspec(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingPackage(
            f"fsspec, which reads URLs, is not installed: {error}",
            where=url,
            hint="pip install 'lstmconvert[remote]'",
        ) from None
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        raise MissingPackage(str(error), where=url, hint="install the package it names") from None
    except ValueError as error:
        raise UsageError(f"no such kind of URL: {error}", where=url) from None
    return system, str(path)


def _remote(url: str) -> list[Source]:
    system, path = _fsspec(url)
    with _errors(SourceError, url):
        if glob.has_magic(path):
            root = path[: path.index(next(c for c in path if c in "*?["))].rpartition("/")[0]
            names = [name for name in system.glob(path) if not system.isdir(name)]
            return [_source(system, name, root) for name in sorted(names)]
        if system.isdir(path):
            root = path.rstrip("/")
            below = {name[len(root) :].lstrip("/"): name for name in system.find(root)}
            found = models(below)
            if found == ["."]:
                return [Source(url, PurePosixPath(root.rpartition("/")[2]))]
            return [
                Source(system.unstrip_protocol(f"{root}/{name}"), PurePosixPath(name))
                for name in found
            ]
        if not system.exists(path) and not system.exists(f"{path}.index"):
            raise SourceError("no such object", where=url, hint="check the URL")
    return [Source(url, PurePosixPath(path.rpartition("/")[2]))]


def _source(system: Any, path: str, root: str) -> Source:
    return Source(system.unstrip_protocol(path), PurePosixPath(path[len(root) :].lstrip("/")))


@contextlib.contextmanager
def local_source(source: str) -> Iterator[Path]:
    """Yield a local path with what lies at a path or URL.

    Raises:
        SourceError: it cannot be fetched.
    """
    if not is_url(source):
        yield Path(source)
        return
    from tempfile import TemporaryDirectory

    system, path = _fsspec(source)
    with TemporaryDirectory() as folder:
        own = Path(folder, path.rstrip("/").rpartition("/")[2])
        with _errors(SourceError, source):
            if system.isdir(path):
                system.get(path.rstrip("/") + "/", f"{own}/", recursive=True)
            elif system.exists(path):
                system.get_file(path, str(own))
            else:  # a checkpoint is the name that its files begin with
                for part in system.glob(f"{path}.*"):
                    system.get_file(part, str(own.with_name(part.rpartition("/")[2])))
            _shards(system, path, own)
        yield own


def _shards(system: Any, path: str, own: Path) -> None:
    """Fetch the shards of a `.weights.json`: they lie beside it, under its own name."""
    base = path.removesuffix(".weights.json")
    for part in system.glob(f"{base}_*.weights.h5") if base != path else ():
        system.get_file(part, str(own.with_name(part.rpartition("/")[2])))


@contextlib.contextmanager
def local_destination(destination: str, *, force: bool, dry: bool) -> Iterator[Path]:
    """Yield a local path, whose file is at the destination when the block has succeeded.

    Args:
        destination: a path, whose folder is made, or a URL.
        force: replace what is there.
        dry: touch nothing: no file will be made.

    Raises:
        DestinationError: it exists (and no `force`), or cannot be written.
    """
    is_here = not is_url(destination)
    if is_here and not dry:
        with _errors(DestinationError, destination):
            Path(destination).parent.mkdir(parents=True, exist_ok=True)
        yield Path(destination)
        return
    if not force and exists(destination):
        raise DestinationError(
            "the destination exists", where=destination, hint="--force replaces it"
        )
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        own = Path(folder, destination.rpartition("/")[2])
        yield own
        if own.exists():
            _put(own, destination)


def _put(own: Path, destination: str) -> None:
    system, path = _fsspec(destination)
    parent = path.rpartition("/")[0]
    with _errors(DestinationError, destination):
        system.makedirs(parent, exist_ok=True)
        for part in sorted(own.parent.iterdir()):  # external data lies beside
            system.put_file(str(part), f"{parent}/{part.name}")


def exists(destination: str) -> bool:
    """Whether something is at a path or URL."""
    if not is_url(destination):
        return os.path.lexists(destination)
    system, path = _fsspec(destination)
    with _errors(DestinationError, destination):
        return bool(system.exists(path))


def joined(folder: str, place: str) -> str:
    """Return the path or URL of a place below a folder."""
    if is_url(folder):
        return f"{folder.rstrip('/')}/{place}"
    return os.path.join(folder, *place.split("/"))


@contextlib.contextmanager
def _errors(kind: type[SourceError] | type[DestinationError], where: str) -> Iterator[None]:
    """Turn what a file system raises into our error: each store has exceptions of its own."""
    try:
        yield
    except LSTMConvertError:
        raise
    except Exception as error:  # each store has exceptions of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise kind(reason, where=where) from None
