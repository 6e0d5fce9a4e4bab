"""Tensors whose numbers lie in a file beside the model: never anywhere else.

Three versions of the onnx library in four years let such a path lead out of the model's folder
(CVE-2022-25882, CVE-2024-27318, CVE-2026-34446). Here it must be the bare name of a regular file in
the same folder, reached by no link, symbolic or hard.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Sequence
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.tensors import SourceFile

#: The keys of onnx.proto's `external_data`; what else a writer put there is not read.
_LOCATION, _OFFSET, _LENGTH = "location", "offset", "length"
_DIGITS = 19


class Neighbours:
    """The data files beside a model, opened once each.

    Args:
        model: the path of the model file.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._open: dict[str, SourceFile] = {}

    def place(
        self, entries: Sequence[tuple[str, str]], where: str
    ) -> tuple[SourceFile, int, int]:
        """Return the file, offset and length that a tensor's entries name.

        Raises:
            CorruptFile: the entries are not those of a tensor, or lead out of the folder.
            SourceError: there is no such file, or it cannot be opened.
        """
        texts = dict(entries)
        if len(texts) != len(entries) or _LOCATION not in texts:
            raise CorruptFile("external data without one location", where=where)
        source = self._file(texts[_LOCATION], where)
        offset = _number(texts.get(_OFFSET, "0"), where)
        length = _number(texts[_LENGTH], where) if _LENGTH in texts else source.size - offset
        if offset + length > source.size or length < 0:
            raise CorruptFile(
                "external data behind the end of its file",
                where=where,
                found=f"{offset:,} + {length:,}",
                expected=f"at most {source.size:,}",
            )
        return source, offset, length

    @property
    def paths(self) -> list[Path]:
        """The files that have been opened."""
        return [source.path for source in self._open.values()]

    @property
    def size(self) -> int:
        """The bytes of the files that have been opened."""
        return sum(source.size for source in self._open.values())

    def check(self) -> None:
        """Raise `CorruptFile` if one was written to since it was opened."""
        for source in self._open.values():
            source.check_unchanged()

    def _file(self, name: str, where: str) -> SourceFile:
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


def _number(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise CorruptFile("external data at no valid place", where=where, found=text[:40])
    return int(text)
