"""Vocabularies of lookup layers in TensorFlow's files, put where a config has its vocabulary.

A layer that was adapted, or that read its words from a file, does not state them in its config. A
SavedModel has them as constants: a table's `_initialize` is a function that imports keys and values
into it, and the constants that it takes are listed beside it; or it reads a file, which the
SavedModel has among its assets. A checkpoint, and a SavedModel of TensorFlow before 2.8, have the
keys and values of a table that can change as two tensors. Nothing of a graph is run: operations and
their inputs are read as data.
Formats: tensorflow/core/protobuf/saved_object_graph.proto, meta_graph.proto; the tables are those
of tf_keras/src/layers/preprocessing/index_lookup.py, `_lookup_table_from_tokens` and `_from_file`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.files.jsontext import Json
from lstmconvert.files.opening import open_part
from lstmconvert.files.wire import (
    MessageSpan,
    Parser,
    blob,
    message,
    messages,
    text,
    varint,
)
from lstmconvert.keras.configs.nodes import ConfigNode
from lstmconvert.keras.modern.classes import CLASSES, LOOKUPS
from lstmconvert.tensorflow.formats import graphdef
from lstmconvert.tensorflow.formats.checkpoint import Bundle
from lstmconvert.tensorflow.formats.objectgraph import ObjectGraph
from lstmconvert.tensorflow.formats.savedmodel import (
    META_GRAPHS,
    OBJECT_GRAPH,
    PROGRAM_FILE,
    SavedModel,
    SavedObject,
)
from lstmconvert.tensors.tensor import SourceFile

#: Attributes of a TextVectorization that hold its lookup layer, since TensorFlow 2.7 and before.
_INNER = ("_lookup_layer", "_index_lookup_layer")
#: Attributes of a lookup layer that hold its table, since TensorFlow 2.6 and before.
_TABLES = ("lookup_table", "_table")
_INITIALIZE = "_initialize"
#: The ends of the keys of a table in a checkpoint.
_PAIR = ("keys", "values")
#: Field number: MetaGraphDef.asset_file_def.
_ASSETS = 6
#: Operations that fill a table: with keys and values, with the lines of a file.
_IMPORT, _FROM_FILE = "LookupTableImportV2", "InitializeTableFromTextFileV2"
#: `TextFileIndex` (tensorflow/python/ops/lookup_ops.py): a whole line, its number.
_WHOLE_LINE, _LINE_NUMBER = -2, -1


@dataclass(frozen=True, slots=True)
class _Bound:
    inputs: bytes = blob(2)


@dataclass(frozen=True, slots=True)
class _Concrete:
    name: str = text(1)
    value: _Bound | None = message(2, _Bound)


@dataclass(frozen=True, slots=True)
class _Functions:
    functions: tuple[_Concrete, ...] = messages(2, _Concrete)


@dataclass(frozen=True, slots=True)
class _AssetFile:
    filename: str = text(2)


class _Table(NamedTuple):
    """The keys and values of a table, and the file that they are from, if it is filled by one: its
    keys are then the lines, and its values their numbers."""

    keys: list[Json]
    values: list[Json]
    file: str = ""


class FilledConfig(NamedTuple):
    """What came of filling a config.

    Fields: `changed`: whether a vocabulary was put into it; `notes` for the user; `sources`: files
    that were read; `keys`: of tensors of the checkpoint that are tables and not weights.
    """

    changed: bool = False
    notes: tuple[str, ...] = ()
    sources: tuple[SourceFile, ...] = ()
    keys: frozenset[str] = frozenset()


def fill(
    layers: Iterable[tuple[str, ConfigNode, int]], bundle: Bundle, saved: SavedModel | None
) -> FilledConfig:
    """Put the vocabularies of lookup layers into their configs, which are changed in place.

    Args:
        layers: of the model: group, config and node in the checkpoint's graph of objects.
        bundle: the checkpoint.
        saved: the SavedModel that it is in, if it is in one.
    """
    listed = [(item, at) for _, item, at in layers if item.class_name in LOOKUPS]
    if bundle.graph is None or not listed:
        return FilledConfig()
    reader = _Reader(bundle, bundle.graph, saved)
    notes: list[str] = []
    changed = False
    for item, at in listed:
        reader.take(at)
        stated = item.config.get("vocabulary")
        if isinstance(stated, list):
            continue
        try:
            table = reader.table(at)
            if table is None:
                continue
            item.config["vocabulary"] = _in_order(table, item, notes)
        except SourceError as error:
            notes.append(f"{item.name}: its vocabulary is not read: {error.message}")
            continue
        changed = True
        if isinstance(stated, str):
            notes.append(
                f"{item.name}: its vocabulary is that of the SavedModel's own {table.file}, not of "
                "the file that its config names"
            )
    return FilledConfig(changed, tuple(notes), tuple(reader.sources), frozenset(reader.keys))


def _in_order(table: _Table, item: ConfigNode, notes: list[str]) -> list[Json]:
    """Return a layer's words in the order of their indices, without the tokens before them.

    Args:
        table: of the layer.
        item: the layer.
        notes: for the user; one is added where Keras 3 gives a token another index.

    Raises:
        CorruptFile: the table is not one of words and the indices that the layer gives them.
    """
    listed, numbers = table.keys, table.values
    if item.config.get("invert") is True and not table.file:
        listed, numbers = numbers, listed
    words = {n: word for n, word in zip(numbers, listed, strict=False) if isinstance(n, int)}
    if not len(listed) == len(numbers) == len(words) == len(set(listed)):
        raise CorruptFile("its table does not have one index for each word",
                          found=f"{len(listed)} words, {len(numbers)} indices")
    start = _start(item)
    # TensorFlow before 2.6 has the tokens for masks and unknown words in it, too.
    indices = sorted(index for index in words if index >= start)
    if indices != list(range(start, start + len(indices))):
        raise CorruptFile("the indices of its table are not those of words",
                          found=f"{indices[0]} to {indices[-1]}, {len(indices)} of them")
    config = CLASSES[item.class_name].renamed_in(item.config)
    special: set[Json] = {"", "[UNK]"} if item.class_name == "TextVectorization" else set()
    tokens = [config.get(key) for key in ("mask_token", "oov_token")]
    special |= {token for token in tokens if isinstance(token, (str, int))}
    if lost := {word for index, word in words.items() if index < start} - special:
        raise CorruptFile("a word of its table has an index below those of words",
                          found=lost.pop())
    result = [words[index] for index in indices]
    if item.class_name == "IntegerLookup":
        result = [_whole(word) for word in result]
    if reserved := special.intersection(result):
        raise CorruptFile("a reserved token is one of its words", found=reserved.pop())
    unknown = config.get("num_oov_indices", 1)
    if isinstance(unknown, int) and unknown > 1:
        notes.extend(
            f"{item.name}: its table gives {word} the index {index}; Keras 3 gives it one of the "
            f"{unknown} before {start}, as it does any unknown word"
            for index, word in words.items()
            if index < start and word == config.get("oov_token")
        )
    return result


def _whole(word: Json) -> Json:
    if isinstance(word, str) and not word.removeprefix("-").isdecimal():
        raise CorruptFile("a word of its table is not a whole number", found=word[:40])
    return int(word) if isinstance(word, str) else word


def _start(item: ConfigNode) -> int:
    """Return the index of the first word (index_lookup.py, `_token_start_index`)."""
    config = CLASSES[item.class_name].renamed_in(item.config)
    is_int = int(config.get("output_mode", "int") == "int")
    if item.class_name == "TextVectorization":
        return 1 + is_int
    unknown = config.get("num_oov_indices", 1)
    begin = is_int if config.get("mask_token", "") is not None else 0
    return begin + unknown if isinstance(unknown, int) else begin + 1


class _Reader:
    """Finds the tables of layers."""

    def __init__(self, bundle: Bundle, graph: ObjectGraph, saved: SavedModel | None) -> None:
        self._bundle, self._graph, self._saved = bundle, graph, saved
        self.sources: list[SourceFile] = []
        self.keys: set[str] = set()

    def take(self, layer: int) -> None:
        """Note which tensors are tables of a layer: the words, and what `adapt` counted."""
        below = list(self._graph.children(layer).values())
        below += [inner for at in below for inner in self._graph.children(at).values()]
        for at in below:
            for attribute in self._graph.nodes[at].attributes:
                pair = {f"{attribute.key}-{part}" for part in _PAIR}
                self.keys |= pair if pair <= self._known else set()

    @cached_property
    def _known(self) -> set[str]:
        return {*self._bundle.strings, *self._bundle.tensors}

    def table(self, layer: int) -> _Table | None:
        """Return the table of a layer, if the file has one that is filled.

        Raises:
            CorruptFile: it is not read.
        """
        below = self._graph.children(layer)
        inner = next((below[name] for name in _INNER if name in below), layer)
        below = self._graph.children(inner)
        for name in _TABLES:
            if name not in below:
                continue
            stored = self._stored(below[name])
            if stored is not None:
                return stored
            path = self._graph.path(below[name])
            if path is not None and self._program is not None:
                return self._program.table(path)
        return None

    def _stored(self, table: int) -> _Table | None:
        """Return a table whose keys and values a checkpoint has."""
        for attribute in self._graph.nodes[table].attributes:
            pair = [f"{attribute.key}-{part}" for part in _PAIR]
            keys, values = (self._values(key) for key in pair)
            if keys and values:
                return _Table(keys, values)
        return None

    def _values(self, key: str) -> list[Json] | None:
        if key in self._bundle.strings:
            return _decoded(self._bundle.strings[key].read())
        tensor = self._bundle.tensors.get(key)
        return None if tensor is None else [int(value) for value in tensor.read().ravel()]

    @cached_property
    def _program(self) -> _Program | None:
        if self._saved is None or not (self._saved.path / PROGRAM_FILE).is_file():
            return None
        return _Program(self._saved, self.sources)


class _Program:
    """The part of `saved_model.pb` that says how tables are filled."""

    def __init__(self, saved: SavedModel, sources: list[SourceFile]) -> None:
        self._saved, self._sources = saved, sources
        source = next(s for s in saved.sources if s.path.name == PROGRAM_FILE)
        whole = next(MessageSpan(source, 0, source.size).find(META_GRAPHS))
        self._whole, self._parser = whole, Parser(source.path)
        self._objects = saved.objects
        graphs = [self._parser.parse(_Functions, s.read()) for s in whole.find(OBJECT_GRAPH)]
        listed = graphs[-1].functions if graphs else ()
        self._bound = {item.name: item.value.inputs if item.value else b"" for item in listed}

    def table(self, path: str) -> _Table | None:
        """Return the table at a path of the SavedModel's objects; None if nothing fills it."""
        at = self._saved.graph.find(path)
        function = None if at is None else self._initializer(at)
        if function is None:
            return None
        nodes, arguments = graphdef.function(self._whole, function)
        ends = dict(zip(arguments, self._ends(function), strict=False))
        for node in nodes.values():
            if node.op == _IMPORT and len(node.inputs) == 3:
                keys, values = (self._constant(name, nodes, ends) for name, _ in node.inputs[1:])
                return _Table(keys, values)
            if node.op == _FROM_FILE and len(node.inputs) == 2:
                return self._of_file(node, self._asset(node.inputs[1][0], ends))
        return None

    def _initializer(self, table: int) -> str | None:
        for child in self._objects[table].children:
            function = self._objects[child.node].function if self._is_there(child.node) else None
            if child.name == _INITIALIZE and function is not None and function.names:
                return function.names[0]
        return None

    def _is_there(self, number: int) -> bool:
        return 0 <= number < len(self._objects)

    def _ends(self, function: str) -> Iterator[SavedObject]:
        """Yield the objects that a function takes, in the order of its arguments."""
        packed, at = self._bound.get(function, b""), 0
        while at < len(packed):
            number, at = varint(packed, at, self._parser.where)
            yield self._objects[number] if self._is_there(number) else SavedObject()

    def _constant(
        self,
        name: str,
        nodes: Mapping[str, graphdef.GraphOperation],
        ends: Mapping[str, SavedObject],
    ) -> list[Json]:
        node = nodes.get(name)
        end = ends.get(name)
        if node is None and end is not None and end.constant is not None:
            node = graphdef.top_node(self._whole, end.constant.operation)
        where = self._parser.where
        words = None if node is None else graphdef.strings(node, where)
        if words is not None:
            return _decoded(words)
        tensor = None if node is None else graphdef.constant(node, where)
        if tensor is None or tensor.dtype.kind not in "iu":
            raise CorruptFile("what fills its table is not a constant of the file", where=where)
        # A few bytes may state a constant of any size.
        limits.PROTOBUF_MESSAGES.check(tensor.size, where, "the words of a table")
        return [int(value) for value in tensor.read().ravel()]

    def _asset(self, name: str, ends: Mapping[str, SavedObject]) -> str:
        end = ends.get(name)
        files = [
            self._parser.parse(_AssetFile, span.read()).filename
            for span in self._whole.find(_ASSETS)
        ]
        if end is None or end.asset is None or not 0 <= end.asset.number < len(files):
            raise CorruptFile("what fills its table is not a file of the SavedModel")
        filename = files[end.asset.number]
        if filename in ("", ".", "..") or {"/", "\\", "\0"} & set(filename):
            raise CorruptFile("the file that fills its table is not in the folder of assets",
                              found=filename)
        return filename

    def _of_file(self, node: graphdef.GraphOperation, filename: str) -> _Table:
        """Return the words of a file, one a line, of which each line's number is the index."""
        columns = [_number(node, key) for key in ("key_index", "value_index")]
        if sorted(columns) != [_WHOLE_LINE, _LINE_NUMBER]:
            raise CorruptFile("its file has another form than a word a line", found=filename)
        path = Path(self._saved.path / "assets" / filename)
        source = open_part(path)
        self._sources.append(source)
        lines = MessageSpan(source, 0, source.size).read().tobytes().split(b"\n")
        if not lines[-1]:
            lines.pop()
        # TensorFlow's reader drops one \r at the end of a line (io/inputbuffer.cc, `ReadLine`).
        words = _decoded(line.removesuffix(b"\r") for line in lines)
        first = _number(node, "offset")
        return _Table(words, list(range(first, first + len(words))), f"assets/{filename}")


def _number(node: graphdef.GraphOperation, key: str) -> int:
    value = node.attributes.get(key)
    return 0 if value is None else value.number


def _decoded(words: Iterable[bytes]) -> list[Json]:
    try:
        return [word.decode() for word in words]
    except UnicodeDecodeError:
        raise CorruptFile("its vocabulary is not UTF-8") from None
