"""SavedModel directories, as data: variables, the graph of objects, and what Keras wrote of itself.

`saved_model.pb` is mostly graphs, and graphs are programs: they are stepped over. What is read of
it is the list of objects. Keras 2 wrote each layer's class and config as a JSON text, into
`saved_model.pb` at first, into `keras_metadata.pb` since TensorFlow 2.5; Keras 3 writes none.
Formats: tensorflow/core/protobuf/saved_object_graph.proto, tf_keras/protobuf/saved_metadata.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files.opening import open_part
from lstmconvert.files.wire import MessageSpan, Parser, integer, message, messages, text, texts
from lstmconvert.tensorflow.formats.checkpoint import Bundle, index_path, read_bundle
from lstmconvert.tensorflow.formats.objectgraph import ROOT, Child, ObjectGraph, TrackedObject
from lstmconvert.tensors.tensor import SourceFile

PROGRAM_FILE = "saved_model.pb"
METADATA_FILE = "keras_metadata.pb"

#: Field numbers: SavedModel.meta_graphs, MetaGraphDef.meta_info_def and .object_graph_def.
META_GRAPHS, _META_INFO, OBJECT_GRAPH = 2, 1, 7
#: Keras 2's names for its objects (tf_keras/saving/legacy/saved_model/constants.py):
#: `_tf_keras_layer`, `_tf_keras_rnn_layer`, `_tf_keras_sequential`, `_tf_keras_metric`, …
_KERAS = "_tf_keras_"


@dataclass(frozen=True, slots=True)
class UserObject:
    """SavedUserObject: the kind of a tracked Python object, and a text that it wrote."""

    identifier: str = text(1)
    metadata: str = text(3)


@dataclass(frozen=True, slots=True)
class Variable:
    """SavedVariable: a variable's own name, `enc/lstm_cell/kernel`."""

    trainable: int = integer(3)
    name: str = text(6)


@dataclass(frozen=True, slots=True)
class Asset:
    """SavedAsset: which of the SavedModel's files an object is."""

    number: int = integer(1)


@dataclass(frozen=True, slots=True)
class SavedFunction:
    """SavedFunction: the names of its traced forms."""

    names: tuple[str, ...] = texts(1)


@dataclass(frozen=True, slots=True)
class Constant:
    """SavedConstant: the operation of the graph that it is."""

    operation: str = text(1)


@dataclass(frozen=True, slots=True)
class SavedObject:
    """An object of a SavedModel: tracked Python, a file, a function, a variable or a constant."""

    children: tuple[Child, ...] = messages(1, Child)
    user_object: UserObject | None = message(4, UserObject)
    asset: Asset | None = message(5, Asset)
    function: SavedFunction | None = message(6, SavedFunction)
    variable: Variable | None = message(7, Variable)
    constant: Constant | None = message(9, Constant)


@dataclass(frozen=True, slots=True)
class _Objects:
    objects: tuple[SavedObject, ...] = messages(1, SavedObject)


@dataclass(frozen=True, slots=True)
class _MetaInfo:
    tags: tuple[str, ...] = texts(4)
    tensorflow_version: str = text(5)


@dataclass(frozen=True, slots=True)
class KerasObject:
    """What Keras 2 wrote of one object.

    Fields: `node` (its number among the SavedModel's objects), `path` (`root`, then the names of
    the edges, joined with dots), `identifier` (`_tf_keras_rnn_layer`, …), `metadata` (a JSON text
    with `class_name`, `config`, …; a model's has `model_config` and `training_config` too).
    """

    node: int = integer(2)
    path: str = text(3)
    identifier: str = text(4)
    metadata: str = text(5)


@dataclass(frozen=True, slots=True)
class _Metadata:
    nodes: tuple[KerasObject, ...] = messages(1, KerasObject)


@dataclass(frozen=True)
class SavedModel:
    """A SavedModel directory.

    Fields: `path`, `bundle` (its variables), `objects` (empty in those of TF1), `keras` (what
    Keras 2 wrote, by node; empty for Keras 3 and plain modules), `tags`, `tensorflow_version`,
    `sources` (the files that were read, open).
    """

    path: Path
    bundle: Bundle
    objects: tuple[SavedObject, ...] = ()
    keras: tuple[KerasObject, ...] = ()
    tags: tuple[str, ...] = ()
    tensorflow_version: str = ""
    sources: tuple[SourceFile, ...] = ()

    @cached_property
    def graph(self) -> ObjectGraph:
        """The edges between `objects`.

        Their numbers are not those of `bundle.graph`: paths and variable names are common to both.
        """
        nodes = [TrackedObject(children=item.children) for item in self.objects]
        return ObjectGraph(nodes, self.path / PROGRAM_FILE)


def is_saved_model(path: Path) -> bool:
    """Whether a path is a directory that holds a SavedModel."""
    return (path / PROGRAM_FILE).is_file() or index_path(_variables(path)).is_file()


def read_saved_model(path: Path) -> SavedModel:
    """Read a SavedModel directory; a lost `saved_model.pb` costs the metadata, not the variables.

    Raises:
        NotAModel: it is none, or a text one (`saved_model.pbtxt`).
        CorruptFile: one of its files contradicts itself or another.
        LimitExceeded: something is larger than the limits allow.
    """
    if not is_saved_model(path):
        raise NotAModel(
            "a directory that holds no SavedModel",
            where=path,
            expected=f"{PROGRAM_FILE} and variables/variables.index",
        )
    program, metadata = (
        open_part(file) if file.is_file() else None
        for file in (path / PROGRAM_FILE, path / METADATA_FILE)
    )
    info, objects = _program(program) if program else (_MetaInfo(), ())
    keras = _keras(metadata, objects) if metadata else _embedded(path / PROGRAM_FILE, objects)
    prefix = _variables(path)
    has_variables = index_path(prefix).is_file()
    bundle = read_bundle(prefix) if has_variables else Bundle(prefix, {})
    return SavedModel(
        path=path,
        bundle=bundle,
        objects=objects,
        keras=tuple(keras),
        tags=info.tags,
        tensorflow_version=info.tensorflow_version,
        sources=(*filter(None, (program, metadata)), *bundle.sources),
    )


def _variables(path: Path) -> Path:
    return path / "variables" / "variables"


def _program(source: SourceFile) -> tuple[_MetaInfo, tuple[SavedObject, ...]]:
    """Read the tags and the objects of the first graph; TensorFlow 2 writes one."""
    path = source.path
    graph = next(MessageSpan(source, 0, source.size).find(META_GRAPHS), None)
    if graph is None:
        raise CorruptFile("the SavedModel holds no graph", where=path)
    info, objects = _MetaInfo(), _Objects()
    for span in graph.find(_META_INFO):
        info = Parser(path).parse(_MetaInfo, span.read())
    for span in graph.find(OBJECT_GRAPH):
        objects = Parser(path).parse(_Objects, span.read())
    return info, objects.objects


def _keras(source: SourceFile, objects: tuple[SavedObject, ...]) -> tuple[KerasObject, ...]:
    path = source.path
    keras_objects = Parser(path).parse(_Metadata, MessageSpan(source, 0, source.size).read()).nodes
    for item in keras_objects:
        if objects and not 0 <= item.node < len(objects):
            raise CorruptFile(
                "Keras's metadata is of an object that the SavedModel does not have",
                where=path,
                found=item.node,
                expected=f"0 to {len(objects) - 1}",
            )
    return keras_objects


def _embedded(path: Path, objects: tuple[SavedObject, ...]) -> Iterator[KerasObject]:
    """Yield what TensorFlow 2.0 to 2.4 wrote into the objects themselves."""
    graph = ObjectGraph([TrackedObject(children=item.children) for item in objects], path)
    for node, item in enumerate(objects):
        user = item.user_object
        if user is not None and user.identifier.startswith(_KERAS) and user.metadata:
            below = graph.path(node)
            if below is not None:
                dotted = "root" if node == ROOT else f"root.{below.replace('/', '.')}"
                yield KerasObject(node, dotted, user.identifier, user.metadata)
