"""What the module of a container has: two protocols, and what passes through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from lstmconvert.containers.opened import Opened
    from lstmconvert.conversion import Draft, Options, Rounded
    from lstmconvert.files.jsontext import Json
    from lstmconvert.hdf5.reading import Tree
    from lstmconvert.keras.reading.load import Given
    from lstmconvert.model.chain import Answer, Chain, Holds
    from lstmconvert.model.layer import LSTMLayer
    from lstmconvert.model.model import Model
    from lstmconvert.tensors.streaming import Sums
    from lstmconvert.tensors.tensor import Tensor


class Asked(NamedTuple):
    """What the user states about a file: the layout of its arrays, and the config of its model."""

    layout: str | None = None
    config: Given | None = None


class KerasStore(NamedTuple):
    """A file of another program that is a Keras model: arrays as in a legacy file, and a config.

    Fields: `tree`, `config` (JSON text), `version` of Keras, where it says one; `whole`: whether
    every array of the model is in `tree`.
    """

    tree: Tree
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

    Fields: `tensors`: name -> array; `layers`: the prefix of the names of a layer's arrays,
    and the layer, where they are arranged as a framework has them; `texts`: returns our metadata,
    the first time with a stand-in for the source's hash, of the same length; `second_file`: the
    second file, where the container has one; `chain`: the model as a chain, where all of it is
    written; `document`: what the source states in addition to its layers, for the
    same program; `sums`: takes the checksum of each array as it is written, where the row says
    that the container keeps them; `answer`: what the chain gives for one input, where the file is
    to say it; `name`: what the names of a source text begin with; `rounded`: of what kind the
    integers of the matrices are, where they are to be some.
    """

    tensors: Mapping[str, Tensor]
    texts: Callable[[], Mapping[str, str]]
    sums: Sums
    layers: Sequence[tuple[str, LSTMLayer]] = ()
    second_file: SecondFile | None = None
    chain: Chain | None = None
    document: Mapping[str, Json] = MappingProxyType({})
    answer: Answer | None = None
    name: str = ""
    rounded: Rounded | None = None

    def metadata(self) -> Mapping[str, str]:
        """Return our metadata as they are in the end, after all arrays were read."""
        self.texts()
        return self.texts()


#: Called when all was compared: puts in place what is known only then.
Seal = Callable[[], None]


class ArrayModule(Protocol):
    """A module of a container whose files are named arrays, and perhaps metadata."""

    def read(self, file: Opened, /) -> Arrays:
        """Read a file: names, shapes and metadata; the arrays when they are touched.

        Raises:
            SourceError: it is not such a file, is damaged, or larger than the limits.
        """

    def write(self, path: Path, content: Writing, /) -> Seal | None:
        """Write a file, which must not exist.

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
