"""What the module of a container has: two protocols, and what passes through them.

A module is given the file as `Opened`: first bytes, names inside, JSON, each read once, if asked
for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files import opening
from lstmconvert.files.jsontext import Json, Piece, joined, parse
from lstmconvert.files.neighbours import Neighbours
from lstmconvert.files.zipmembers import SIGNATURE as ZIP
from lstmconvert.files.zipmembers import ZipMembers
from lstmconvert.tensors.tensor import SourceFile

if TYPE_CHECKING:
    from lstmconvert.conversion import Draft, Options, Rounded
    from lstmconvert.files.writing import Written
    from lstmconvert.hdf5.reading import StoredTree
    from lstmconvert.keras.reading.load import GivenConfig
    from lstmconvert.model.chain import Answer, Chain, Holds
    from lstmconvert.model.layer import LSTMLayer
    from lstmconvert.model.model import Model
    from lstmconvert.tensors.dtypes import Array
    from lstmconvert.tensors.streaming import Sums
    from lstmconvert.tensors.tensor import Tensor


# -- a file that is asked what it is -------------------------------------------------------------


#: As many of a file's first bytes as any container needs to be recognised.
_HEAD_BYTES = 16


class Opened:
    """A path that is being opened.

    Args:
        path: the path; nothing need be there.
        second_files: files next to it that are open already, by the names that it has for them.
        arrays_only: whether nobody will look at the metadata: a file that we have just written.
    """

    def __init__(
        self,
        path: Path,
        second_files: dict[str, SourceFile] | None = None,
        *,
        arrays_only: bool = False,
    ) -> None:
        self.path, self.arrays_only = path, arrays_only
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


# -- what a module of a container has ------------------------------------------------------------


class Asked(NamedTuple):
    """What the user states about a file: the layout of its arrays, and the config of its model."""

    layout: str | None = None
    config: GivenConfig | None = None


class KerasStore(NamedTuple):
    """A file of another program that is a Keras model: arrays as in a legacy file, and a config.

    Fields: `tree`, `config` (JSON text), `version` of Keras, where it says one; `whole`: whether
    every array of the model is in `tree`.
    """

    tree: StoredTree
    config: str
    version: str | None
    whole: bool = True


class Arrays(NamedTuple):
    """What was read from a file.

    Fields: `tensors`: name -> array; `texts`: our metadata, where the file has them; `store`: makes
    a Keras model of a file that is one; `completed`: adds to a layer what else the file states
    about it; `check`: raises `CorruptFile` if the file changed, or a checksum is wrong;
    `notes`, for the user; `document`: what the file states in addition to its layers, for the
    program that it is made for; `proven`: raises `CorruptFile` if the model, as a chain, does not
    answer the file's own input as the file states; `answers`: what it states, where our metadata
    do not.
    """

    tensors: Mapping[str, Tensor]
    texts: Mapping[str, str]
    store: Callable[[], KerasStore] | None = None
    completed: Callable[[LSTMLayer], LSTMLayer] | None = None
    check: Callable[[], None] | None = None
    notes: tuple[str, ...] = ()
    document: Mapping[str, Json] | None = None
    proven: Callable[[Chain], None] | None = None
    answers: tuple[Answer, ...] = ()


class SecondFile(NamedTuple):
    """A second file that is being written: `temporary` will take the name `name`."""

    temporary: Path
    name: str


class Writing(NamedTuple):
    """What is to be written into a file.

    Fields: `tensors`: name -> array; `layers`: the prefix of the names of a layer's arrays, and the
    layer, where they are arranged as a framework has them; `texts`: returns our metadata, each text
    in pieces, those that are known when all arrays were read as such (`jsontext.Later`) unless they
    are known now; `second_file`: the second file, where the container has one; `chain`: the model
    as a chain, where all of it is written; `document`: what the source states in addition to its
    layers, for the same program; `sums`: takes the checksum of each array as it is written, where
    the row says that the container keeps them; `answer`: what the chain gives for one input, where
    the file is to say it; `name`: what the names of a source text begin with; `rounded`: of what
    kind the integers of the matrices are, where they are to be some.
    """

    tensors: Mapping[str, Tensor]
    texts: Callable[[bool], Mapping[str, Iterable[Piece]]]
    sums: Sums
    layers: Sequence[tuple[str, LSTMLayer]] = ()
    second_file: SecondFile | None = None
    chain: Chain | None = None
    document: Mapping[str, Json] = MappingProxyType({})
    answer: Answer | None = None
    name: str = ""
    rounded: Rounded | None = None

    def metadata(self, *, is_known: bool = True) -> Mapping[str, str]:
        """Return our metadata as they are in the end, after all arrays were read; with `is_known`
        off as long a text before."""
        texts = self.texts(is_known)
        return {key: joined(pieces, is_known=is_known) for key, pieces in texts.items()}


class ArrayModule(Protocol):
    """A module of a container whose files are named arrays, and perhaps metadata."""

    def read(self, file: Opened, /) -> Arrays:
        """Read a file: names, shapes and metadata; the arrays when they are touched.

        Raises:
            SourceError: it is not such a file, is damaged, or larger than the limits.
        """

    def write(self, path: Path, content: Writing, /) -> Written | None:
        """Write a file, which must not exist.

        Returns:
            Who reads it back; None: it is read as any other.

        Raises:
            UnsupportedByTarget: the container cannot hold a name, a dtype or an option.
        """


class ChainModule(ArrayModule, Protocol):
    """A module of a container that holds a whole chain of layers: `HOLDS` says which."""

    HOLDS: Holds

    def carried(
        self, document: Mapping[str, Json], chain: Chain | None, /
    ) -> tuple[Mapping[str, Json], list[str]]:
        """Return what of a document is written again, and sentences about what is not.

        Args:
            document: what a file for the same program said besides its layers.
            chain: the whole model, where all of it is written.
        """


class OpeningModule(Protocol):
    """A module of a container whose files are models."""

    def open(self, file: Opened, asked: Asked, /) -> Model:
        """Open a file as a model.

        Raises:
            SourceError: it is not such a file, is damaged, larger than the limits, or has no LSTM.
        """


class DraftingModule(Protocol):
    """A module of a container that is written from models."""

    def draft(self, model: Model, destination: Path, container: str, how: Options, /) -> Draft:
        """Return what a file will hold.

        Raises:
            UnsupportedByTarget, UnknownOption: the container cannot hold the model.
        """


def check_finite(array: Array, layer: str, title: str, target: str) -> None:
    """Raise `UnsupportedByTarget` where a layer has a number that a target's text cannot spell."""
    if not np.isfinite(array.astype(np.float64, copy=False)).all():
        raise UnsupportedByTarget(
            f"{title} has no NaN and no infinity",
            where=layer,
            layer=layer,
            option="weights",
            target=target,
        )


def carries_nothing(
    document: Mapping[str, Json], _: Chain | None
) -> tuple[Mapping[str, Json], list[str]]:
    """`ChainModule.carried` of a container whose files hold no keys of other programs."""
    return {}, [f"left out: {key}" for key in document]


if TYPE_CHECKING:  # the checker's proof that each module is what the table takes it for
    from lstmconvert.containers import (
        cheader,
        eqx,
        fdeep,
        jsonarrays,
        keras,
        lwtnn,
        mat,
        mlmodel,
        msgpack,
        nam,
        ncnn,
        npz,
        onnx,
        params,
        rtneural,
        safetensors,
        tensorflow,
        tfjs,
        tflite,
    )

    _ARRAYS: Sequence[ArrayModule] = (
        *(cheader, eqx, fdeep, jsonarrays, lwtnn, mat, mlmodel, msgpack, ncnn, npz),
        *(params, rtneural, safetensors, tfjs, tflite),
    )
    _CHAINS: Sequence[ChainModule] = (cheader, fdeep, nam, ncnn, rtneural, tflite)
    _OPENING: Sequence[OpeningModule] = (keras, onnx, tensorflow)
    _DRAFTING: Sequence[DraftingModule] = (keras, onnx)
