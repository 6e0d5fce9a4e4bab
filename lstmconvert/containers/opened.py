"""What a path shows of itself: first bytes, names inside, JSON. Each is read once, if asked for."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from lstmconvert.files import opening
from lstmconvert.files.jsontext import Json, parse
from lstmconvert.files.neighbours import Neighbours
from lstmconvert.files.zipmembers import SIGNATURE as ZIP
from lstmconvert.files.zipmembers import ZipMembers
from lstmconvert.tensors.tensor import SourceFile

#: As many of a file's first bytes as any container needs to be recognised.
_HEAD_BYTES = 16


class Opened:
    """A path that is being opened.

    Args:
        path: the path; nothing need be there.
        second_files: files next to it that are open already, by the names that it has for them.
    """

    def __init__(self, path: Path, second_files: dict[str, SourceFile] | None = None) -> None:
        self.path = path
        #: The files next to it that it names.
        self.neighbours = Neighbours(path, second_files)

    @cached_property
    def source(self) -> SourceFile:
        """The open file. Raises as `files.opening.open_source`."""
        return opening.open_source(self.path)

    @cached_property
    def is_folder(self) -> bool:
        """Whether the path is a folder."""
        return os.path.isdir(self.path)  # false where Path.is_dir raises: too long, not allowed

    @cached_property
    def is_there(self) -> bool:
        """Whether anything is there that may be opened as a file."""
        return not self.is_folder and os.path.lexists(self.path)

    @cached_property
    def head(self) -> bytes:
        """The first 16 bytes; none of a folder, or where nothing is."""
        return opening.head(self.source, _HEAD_BYTES) if self.is_there else b""

    @property
    def is_zip(self) -> bool:
        """Whether it begins as a zip file does."""
        return self.head.startswith(ZIP)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the files and folders in a folder, the latter with a slash; or in a zip."""
        if not self.is_folder:
            return frozenset(self.members)
        entries = list(self.path.iterdir())
        files = {entry.name for entry in entries if entry.is_file()}
        return frozenset(files | {f"{entry.name}/" for entry in entries if entry.is_dir()})

    @property
    def members(self) -> tuple[str, ...]:
        """The names of a zip file's members, in its order."""
        return self.archive.names if self.is_zip else ()

    @cached_property
    def archive(self) -> ZipMembers:
        """The members of a zip file. Raises as `ZipMembers`."""
        return ZipMembers(self.source)

    @cached_property
    def is_hdf5(self) -> bool:
        """Whether it is an HDF5 file."""
        from lstmconvert.hdf5.reading import is_hdf5  # imported late to keep start-up fast

        return self.is_there and is_hdf5(self.source)

    @cached_property
    def json(self) -> Json:
        """The value of a JSON text; None of anything else. Raises as `jsontext.parse`."""
        if self.head.lstrip()[:1] not in (b"{", b"["):
            return None
        return parse(opening.whole_text(self.source), self.path)
