"""The files beside a model that it names: never any elsewhere.

Three versions of the onnx library in four years let such a path lead out of the model's folder
(CVE-2022-25882, CVE-2024-27318, CVE-2026-34446). Here it must be the bare name of a regular file in
the same folder, reached by no link, symbolic or hard.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Mapping
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.tensors import SourceFile


class Neighbours:
    """The data files beside a model, opened once each.

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
        """Return the one file that a model has beside it, which has this name unless it is known.

        Raises as `file`.
        """
        return next(iter(self._open.values())) if self._open else self.file(name, where)

    def file(self, name: str, where: str) -> SourceFile:
        """Return the file of a name.

        Raises:
            CorruptFile: the name leads out of the folder, or the file has several names.
            SourceError: there is no such file, or it cannot be opened.
        """
        name = name.removeprefix("./")
        if name not in self._open:
            if not name or name in (".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
                raise CorruptFile(
                    "external data outside the model's folder, which is never opened",
                    where=where,
                    found=repr(name)[:80],
                    expected="the name of a file beside the model",
                )
            limits.DIRECTORY_FILES.check(len(self._open) + 1, self._model, "the data files")
            self._open[name] = _opened(self._model.parent / name, where)
        return self._open[name]


def _opened(path: Path, where: str) -> SourceFile:
    try:
        # Before it is opened, and after it: another may have taken its name meanwhile.
        _check(os.lstat(path), path, where)
        # O_NONBLOCK: a named pipe would wait for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise SourceError(
            f"the data file beside the model cannot be opened: {_reason(error)}",
            where=where,
            found=path.name,
            hint="the model and its data belong in one folder, as files, not as links",
        ) from None
    source = SourceFile(path, descriptor)
    weakref.finalize(source, os.close, descriptor)
    _check(os.fstat(descriptor), path, where)
    return source


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _check(status: os.stat_result, path: Path, where: str) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise CorruptFile(
            "the data file beside the model is no regular file, or has several names",
            where=where,
            found=path.name,
            hint="copy it: a linked file is never opened",
        )
