"""The files next to a model that it names. Files elsewhere are never opened.

Three versions of the onnx library in four years let such a path lead out of the model's folder
(CVE-2022-25882, CVE-2024-27318, CVE-2026-34446). Here it must be the bare name of a regular file in
the same folder, reached by no link, symbolic or hard.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.files.names import is_plain
from lstmconvert.tensors.tensor import SourceFile

#: Functions that bring a file that is not there: each is of one model that was copied from a store.
_fetches: ContextVar[tuple[Callable[[Path], None], ...]] = ContextVar("_fetches", default=())


@contextmanager
def fetched(fetch: Callable[[Path], None]) -> Iterator[None]:
    """Let a function bring the files that models name and that are not there.

    Args:
        fetch: is called with the path of the file, whose name was checked. It leaves out what it
            cannot bring, and what lies in the folder of another model.
    """
    token = _fetches.set((*_fetches.get(), fetch))
    try:
        yield
    finally:
        _fetches.reset(token)


class Neighbours:
    """The data files next to a model, opened once each.

    Args:
        model: the path of the model file.
        known: files that are open already, by the name that the model has for them.
    """

    def __init__(self, model: Path, known: Mapping[str, SourceFile] | None = None) -> None:
        self._model = model
        self._open: dict[str, SourceFile] = dict(known or {})

    @property
    def files(self) -> list[SourceFile]:
        """The files that have been opened."""
        return list(self._open.values())

    @property
    def paths(self) -> list[Path]:
        """Their paths."""
        return [source.path for source in self.files]

    @property
    def size(self) -> int:
        """The bytes of the files that have been opened."""
        return sum(source.size for source in self._open.values())

    def check(self) -> None:
        """Raise `CorruptFile` if one was written to since it was opened."""
        for source in self._open.values():
            source.check_unchanged()

    def only(self, name: str, where: str) -> SourceFile:
        """Return the only file that belongs to a model. It has this name unless it is known.

        Raises as `file`.
        """
        return next(iter(self._open.values())) if self._open else self.file(name, where)

    def file(self, name: str, where: str) -> SourceFile:
        """Return the file of a name.

        Raises:
            CorruptFile: the name leads out of the folder, or the file has several names.
            SourceError: the file does not exist, or cannot be opened.
        """
        name = name.removeprefix("./")
        if name not in self._open:
            if not is_plain(name):
                raise CorruptFile(
                    "external data outside the model's folder, which is never opened",
                    where=where,
                    found=repr(name)[:80],
                    expected="the name of a file beside the model",
                )
            limits.DIRECTORY_FILES.check(len(self._open) + 1, self._model, "the data files")
            path = self._model.parent / name
            for fetch in _fetches.get():
                if not os.path.lexists(path):
                    fetch(path)
            self._open[name] = _opened(path, where)
        return self._open[name]


#: A named pipe would wait for ever. Windows has none of these.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC")
)


def _opened(path: Path, where: str) -> SourceFile:
    try:
        # Before it is opened, and after it: another may have taken its name meanwhile.
        before = os.lstat(path)
        _check(before, path, where)
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise SourceError(
            f"the data file beside the model cannot be opened: {_reason(error)}",
            where=where,
            found=path.name,
            hint="the model and its data belong in one folder, as files, not as links",
        ) from None
    source = SourceFile(path, descriptor)
    weakref.finalize(source, os.close, descriptor)
    after = os.fstat(descriptor)
    _check(after, path, where)
    if not os.path.samestat(before, after):
        raise source.changed()
    return source


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _check(status: os.stat_result, path: Path, where: str) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise CorruptFile(
            "the data file beside the model is not a regular file, or has several names",
            where=where,
            found=path.name,
            hint="copy it: a linked file is never opened",
        )
