"""The `lstmconvert` metadata object of a per-gate file: everything about a model but its numbers.

One JSON object with sorted keys, no clock and no absolute path. `to_pieces` writes it, and `Reader`
reads it, by its tensor map and never by the tensors' names. The reader trusts nothing, since the
text comes from a file. `Digest` makes the texts of a file that is being written: it adds the
source's hash and the checksums.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, TypeGuard

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import (
    Json,
    JsonObject,
    Later,
    Piece,
    canonical,
    in_pieces,
    in_slices,
    parse_object,
)
from lstmconvert.model import naming, wellformed
from lstmconvert.model.chain import Answer
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import (
    CELL_PARTS,
    GATE_PARTS,
    Cell,
    Direction,
    FusedGates,
    LSTMLayer,
    OpaqueCell,
    weights_of,
)
from lstmconvert.model.model import PER_GATE, Model, Source, Structure
from lstmconvert.model.options import (
    AnyOptions,
    CellOptions,
    DirectionOptions,
    LayerOptions,
    Options,
    options_from_json,
    options_to_json,
)
from lstmconvert.pergate.checksums import WITHOUT, Sealing
from lstmconvert.tensors.dtypes import Array, name_of
from lstmconvert.tensors.streaming import Sums
from lstmconvert.tensors.tensor import Shape, Tensor

KEY = "lstmconvert"
#: The facts in another program's file besides its layers: `{"keys", "program"}`.
DOCUMENT = "document"
TEXTS = ("model_config", "training_config", "archive_metadata", DOCUMENT)
#: The one of the texts that is carried and never looked into.
_UNREAD = ("training_config",)
#: The model's answer to one input, in the object; `convert --check` writes it.
_CHECK = "check"
#: The options that decided what is in the file; a file that was made with none has no such key.
_MADE_WITH = "made_with"
#: No number of a check is as large: sums and differences of such numbers stay finite.
_LARGEST = 1e300
_SHA256 = re.compile("[0-9a-f]{64}")


def to_pieces(
    model: Model, *, digest: str | Later | None, arranged: Mapping[str, Json] | None = None
) -> dict[str, Iterable[Piece]]:
    """Return the JSON text of each value of a model's metadata object, in pieces.

    Args:
        model: the model.
        digest: the hash of its source.
        arranged: further values, by which the layers' tensors are found in a file that is in a
            framework's layout. None: by maps of them.
    """
    value: JsonObject = {
        "version": WITHOUT,
        **{key: model.texts[key] for key in TEXTS if key in model.texts},
        **(arranged or {}),
    }
    if model.notes:
        value["notes"] = list(model.notes)
    if model.losses:
        value["losses"] = list(model.losses)
    if model.made_with:
        value[_MADE_WITH] = model.made_with
    if model.answers:
        value[_CHECK] = [_answer(answer) for answer in model.answers]
    source = {key: [canonical(item)] for key, item in _source(model.source).items()}
    return {
        **{key: in_slices(item) for key, item in value.items()},
        "layers": _layers(model.layers, are_mapped=arranged is None),
        "source": in_pieces(
            {**source, "sha256": [digest if callable(digest) else canonical(digest)]}
        ),
    }


def _layers(layers: Iterable[LSTMLayer], *, are_mapped: bool) -> Iterator[str]:
    """Yield the list of the layers, one at a time: as objects, 10,000 take ten times the memory of
    their text, which is many megabytes itself."""
    before, texts = "[", _LayerTexts(are_mapped=are_mapped)
    for layer in layers:
        yield f"{before}{texts.of(layer)}"
        before = ","
    yield "]" if before == "," else "[]"


def _object(texts: Mapping[str, str]) -> str:
    """Return the canonical text of an object, of whose values the texts are given."""
    items = [f"{encode_basestring(key)}:{texts[key]}" for key in sorted(texts)]
    return f"{{{','.join(items)}}}"


def _source(source: Source) -> JsonObject:
    """Return what is said of a source, without its hash."""
    result: JsonObject = {
        "container": source.container,
        "keras_version": source.keras_version,
        "era": source.era,
    }
    if source.structure is not None:
        structure = source.structure
        result["structure"] = {
            "kind": structure.kind,
            "attributes": dict(structure.attributes),
            "names": dict(structure.names),
            # A list, because the order of the layers counts and JSON objects here are sorted.
            "weights": [[name, list(weights)] for name, weights in structure.weights.items()],
            "root": structure.root,
            "paths": sorted(structure.paths),
        }
    return result


def _answer(answer: Answer) -> JsonObject:
    return {
        "layer": answer.layer,
        "x": {"shape": list(answer.x.shape), "numbers": answer.x.reshape(-1).tolist()},
        "y": {"shape": list(answer.y.shape), "numbers": answer.y.reshape(-1).tolist()},
        "bound": answer.bound,
    }


#: The text of options, by their `id`: the layers of a model, and the models of a folder, mostly
#: have the same object.
_texts: dict[int, tuple[Options, str]] = {}
_MOST_TEXTS = 256


class _LayerTexts:
    """The texts of a model's layers: of those that differ in their names only, one is made.

    Args:
        are_mapped: whether their tensors are.
    """

    def __init__(self, *, are_mapped: bool) -> None:
        self._are_mapped = are_mapped
        #: Stands for the name; nobody can have written it into a file.
        self._name = os.urandom(16).hex()
        #: What is before, between and behind the names; empty, where one layer had that form.
        self._texts: dict[tuple[Any, ...], list[str]] = {}

    def of(self, layer: LSTMLayer) -> str:
        """Return the canonical text of a layer."""
        form = self._form(layer)
        if form is None:
            return self._made(layer)
        pieces = self._texts.get(form)
        if pieces is None:  # most models have one layer
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            self._texts[form] = []
            return self._made(layer)
        if not pieces:
            pieces = self._texts[form] = self._made(self._renamed(layer)).split(self._name)
        return encode_basestring(layer.name)[1:-1].join(pieces)

    def _made(self, layer: LSTMLayer) -> str:
        return _layer(layer, _tensors(layer) if self._are_mapped else "{}")

    def _form(self, layer: LSTMLayer) -> tuple[Any, ...] | None:
        """Return all that the text of a layer says besides its name: what layers share by its
        identity, which it keeps while they are there. None, where its config has another name."""
        config, name = layer.config or {}, layer.name
        inner = config.get("config")
        if not isinstance(inner, dict) or not name == inner.get("name") == config.get("name", name):
            return None
        directions: list[tuple[Any, ...]] = []
        for side, direction in layer.directions:
            named = self._without_name(layer, direction.name)
            directions.append((side, named, direction.class_name, id(direction.options)))
            for cell in direction.cells:
                if isinstance(cell, OpaqueCell):
                    return None
                paths = [self._without_name(layer, path) for path in cell.places.values()]
                directions.append(
                    (
                        *(self._without_name(layer, cell.name), cell.class_name, id(cell.options)),
                        *(cell.dtype, cell.stored_as, tuple(cell.places), tuple(paths)),
                        _kinds(cell),
                    )
                )
        return (
            *(self._without_name(layer, layer.path), layer.class_name, id(layer.options)),
            *(layer.input_shape, tuple(directions), tuple(config), tuple(inner)),
            tuple(map(id, {**config, "config": None, "name": None}.values())),
            tuple(map(id, {**inner, "name": None}.values())),
        )

    def _without_name(self, layer: LSTMLayer, text: str | None) -> str | None:
        return text and text.replace(layer.name, self._name)

    def _renamed(self, layer: LSTMLayer) -> LSTMLayer:
        """Return a layer with what stands for the name, wherever `_form` leaves the name out."""

        def renamed(direction: Direction) -> Direction:
            cells = [
                replace(
                    cell,
                    name=self._without_name(layer, cell.name),
                    places={
                        key: path.replace(layer.name, self._name)
                        for key, path in cell.places.items()
                    },
                )
                for cell in direction.lstm_cells
            ]
            name = self._without_name(layer, direction.name)
            return replace(direction, name=name, cells=tuple(cells))

        config = dict(layer.config or {})
        config["config"] = {**config["config"], "name": self._name}
        if "name" in config:
            config["name"] = self._name
        return replace(
            layer,
            name=self._name,
            path=layer.path.replace(layer.name, self._name),
            config=config,
            forward=renamed(layer.forward),
            backward=layer.backward and renamed(layer.backward),
        )


def _kinds(cell: Cell) -> tuple[Any, ...]:
    """Return all that the names and the shapes of a cell's tensors depend on."""
    if isinstance(cell.gates, FusedGates):
        shapes = [tensor.shape for tensor in cell.arrays()]
        return cell.gates.parts, tuple(cell.parts), tuple(shapes)
    return tuple([(name, tensor.shape) for name, tensor in cell.tensors()])


# The canonical text of a layer: the keys of an object are sorted by name.


def _layer(layer: LSTMLayer, tensors: str) -> str:
    shape = layer.input_shape
    input_shape = "null" if shape is None else canonical(list(shape))
    directions = [f'"{name}":{_direction(d)}' for name, d in sorted(layer.directions)]
    return (
        f'{{"class":{encode_basestring(layer.class_name)},"config":{canonical(layer.config)},'
        f'"directions":{{{",".join(directions)}}},"input_shape":{input_shape},'
        f'"name":{encode_basestring(layer.name)},"options":{_options(layer.options)},'
        f'"path":{encode_basestring(layer.path)},"tensors":{tensors}}}'
    )


def _tensors(layer: LSTMLayer) -> str:
    """Return the map of a layer's tensors: those of layers of one form differ in the name."""
    form = tuple(
        [
            (
                naming.prefix(layer, side, index)[len(layer.name) :],
                side,
                index,
                *[name for name, _ in cell.tensors()],
            )
            for side, index, cell in layer.cells()
        ]
    )
    # No JSON text holds this character.
    return _map(form).replace("\0", encode_basestring(layer.name)[1:-1])


@lru_cache(_MOST_TEXTS)
def _map(form: tuple[tuple[Any, ...], ...]) -> str:
    """Return the map of the tensors of layers of one form, with a null character for the name."""
    places = {
        f"{end}.{name}": f'["{side}",{index},{encode_basestring(name)}]'
        for end, side, index, *names in form
        for name in names
    }
    items = [f'"\0{encode_basestring(end)[1:]}:{places[end]}' for end in sorted(places)]
    return f"{{{','.join(items)}}}"


def _direction(direction: Direction) -> str:
    cells = ",".join([_cell(cell) for cell in direction.cells])
    return (
        f'{{"cells":[{cells}],"class":{_text_or_null(direction.class_name)},'
        f'"name":{_text_or_null(direction.name)},"options":{_options(direction.options)}}}'
    )


def _cell(cell: Cell | OpaqueCell) -> str:
    if isinstance(cell, OpaqueCell):
        return canonical(
            {
                "opaque": cell.class_name,
                "name": cell.name,
                "config": cell.config,
                "paths": list(cell.paths),
            }
        )
    places = {key: encode_basestring(path) for key, path in cell.places.items()}
    shapes = _shapes(tuple([(name, tensor.shape) for name, tensor in cell.tensors()]))
    return (
        f'{{"class":{_text_or_null(cell.class_name)},"dtype":"{name_of(cell.dtype)}",'
        f'"input_dim":{cell.input_dim},"name":{_text_or_null(cell.name)},'
        f'"options":{_options(cell.options)},"places":{_object(places)},'
        f'"shapes":{shapes},"stored_as":{encode_basestring(cell.stored_as)},'
        f'"units":{cell.units}}}'
    )


@lru_cache(_MOST_TEXTS)
def _shapes(shapes: tuple[tuple[str, Shape], ...]) -> str:
    return canonical({name: list(shape) for name, shape in shapes})


def _options(options: Options) -> str:
    known = _texts.get(id(options))
    if known is None or known[0] is not options:
        if len(_texts) >= _MOST_TEXTS:
            _texts.clear()
        known = _texts[id(options)] = options, canonical(options_to_json(options))
    return known[1]


def _text_or_null(text: str | None) -> str:
    return "null" if text is None else encode_basestring(text)


# -- reading -------------------------------------------------------------------------------------


class Reader:
    """Builds a model from a metadata object and the tensors of the same file.

    Raises:
        CorruptFile: the object is not of this format, or does not fit the tensors.
    """

    def __init__(self, tensors: Mapping[str, Tensor], where: object) -> None:
        self._tensors, self._where = tensors, where
        self._used: set[str] = set()
        #: By their text, as 1, 1.0 and True are equal: thousands of layers have the same options.
        self._options: dict[tuple[type, str], Any] = {}

    def fail(self, what: str, **facts: Any) -> CorruptFile:
        return CorruptFile(f"not a per-gate file: {what}", where=self._where, **facts)

    def _at(self, place: str) -> str:
        return f"{self._where}: {place}"

    def model(self, value: JsonObject, container: str) -> Model:
        """Return the model that the object `value` of `checksums.Described` describes."""
        layers = tuple(self._layer(item) for item in self._list(value, "layers"))
        names = [layer.name for layer in layers]
        if not layers or len(set(names)) != len(names):
            raise self.fail("its layers are none, or two of one name")
        source = self._source(self._object(value, "source"))
        other, optimizer, assets = self._rest()
        return Model(
            layers=layers,
            source=source,
            container=container,
            layout=PER_GATE,
            other=other,
            optimizer=optimizer,
            assets=assets,
            texts={key: self._json_text(value, key) for key in TEXTS if key in value},
            notes=tuple(self._texts(value.get("notes", []))),
            losses=tuple(self._texts(value.get("losses", []))),
            made_with=self._object(value, _MADE_WITH) if _MADE_WITH in value else {},
            answers=tuple(
                self._answer(item, names)
                for item in (self._list(value, _CHECK) if _CHECK in value else [])
            ),
        )

    def _answer(self, value: Json, layers: Sequence[str]) -> Answer:
        if not isinstance(value, dict):
            raise self.fail(_CHECK)
        layer, bound = self._optional_text(value, "layer"), value.get("bound")
        if not _is_number(bound) or bound < 0 or not (layer is None or layer in layers):
            raise self.fail(_CHECK, found=str(layer)[:70])
        return Answer(self._numbers(value, "x"), self._numbers(value, "y"), float(bound), layer)

    def _numbers(self, value: JsonObject, key: str) -> Array:
        """Return the array of a check."""
        match value.get(key):
            case {"shape": [*sizes], "numbers": [*numbers]} if (
                all(type(size) is int and size >= 0 for size in sizes)
                and len(numbers) == math.prod(sizes)
                and all(map(_is_number, numbers))
            ):
                return np.array(numbers, np.float64).reshape(sizes)
        raise self.fail(f"{_CHECK}.{key}")

    def _rest(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        other: dict[str, Tensor] = {}
        optimizer: dict[str, Tensor] = {}
        assets: dict[str, Tensor] = {}
        for name in sorted(set(self._tensors) - self._used):
            if not name.startswith(naming.OTHER):
                raise self.fail("a tensor that belongs to nothing", found=name)
            path = name[len(naming.OTHER) :]
            first = path.partition("/")[0]
            is_slot = first in ("optimizer", "optimizer_weights")
            is_asset = first == "assets" and _is_bytes(self._tensors[name])
            if not naming.is_path(path):
                raise self.fail("a tensor whose path no file can hold", found=repr(name)[:80])
            target = optimizer if is_slot else assets if is_asset else other
            target[path] = self._tensors[name]
        return other, optimizer, assets

    def _source(self, value: JsonObject) -> Source:
        digest = self._optional_text(value, "sha256")
        if digest is not None and not _SHA256.fullmatch(digest):
            raise self.fail("source.sha256", found=digest[:70])
        return Source(
            container=self._text(value, "container"),
            keras_version=self._optional_text(value, "keras_version"),
            era=self._optional_text(value, "era"),
            digest=None if digest is None else lambda: digest,
            is_recorded=True,
            structure=self._structure(value["structure"]) if "structure" in value else None,
        )

    def _structure(self, value: Json) -> Structure:
        if not isinstance(value, dict):
            raise self.fail("structure")
        weights: dict[str, tuple[str, ...]] = {}
        for item in self._list(value, "weights"):
            if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
                raise self.fail("structure.weights")
            weights[item[0]] = tuple(self._texts(item[1]))
        return Structure(
            kind=self._text(value, "kind"),
            attributes=self._text_map(value, "attributes"),
            names=self._text_map(value, "names"),
            weights=weights,
            root=self._text(value, "root"),
            paths=frozenset(self._texts(value.get("paths"))),
        )

    def _layer(self, value: Json) -> LSTMLayer:
        if not isinstance(value, dict):
            raise self.fail("a layer is not an object")
        name = self._text(value, "name")
        places = self._placed(self._object(value, "tensors"))
        directions = self._object(value, "directions")
        if set(directions) not in ({"forward"}, {"forward", "backward"}):
            raise self.fail(f"{name}: directions", found=str(sorted(directions))[:80])
        built = {
            key: self._direction(item, key, places, f"{name}.{key}")
            for key, item in directions.items()
        }
        if places:
            raise self.fail(f"{name}: a tensor without a cell", found=str(next(iter(places))))
        config = value.get("config")
        if config is not None and not isinstance(config, dict):
            raise self.fail(f"{name}: config")
        layer = LSTMLayer(
            name=name,
            path=self._text(value, "path"),
            class_name=self._text(value, "class"),
            forward=built["forward"],
            backward=built.get("backward"),
            options=self._options_of(LayerOptions, value, name),
            config=config,
            input_shape=self._shape(value.get("input_shape"), name),
        )
        wellformed.check_layer(layer, self._at(name))
        return layer

    def _shape(self, value: Json, name: str) -> tuple[int | None, ...] | None:
        if value is None:
            return None
        sizes = value if isinstance(value, list) else [""]
        if not all(size is None or (type(size) is int and 0 < size < 1 << 40) for size in sizes):
            raise self.fail(f"{name}: input_shape", found=str(value)[:60])
        return tuple(sizes)

    def _placed(self, value: JsonObject) -> dict[tuple[str, int], dict[str, str]]:
        """Return `(direction, cell) -> {forget_gate.kernel: tensor name}`."""
        result: dict[tuple[str, int], dict[str, str]] = {}
        for tensor, place in value.items():
            match place:
                case [str(direction), int(index), str(part)] if (
                    tensor in self._tensors and not isinstance(index, bool)
                ):
                    result.setdefault((direction, index), {})[part] = tensor
                case _:
                    raise self.fail("its tensor map names no tensor of the file", found=tensor)
            if tensor in self._used:
                raise self.fail("a tensor has two places", found=tensor)
            self._used.add(tensor)
        return result

    def _direction(
        self,
        value: Json,
        key: str,
        places: dict[tuple[str, int], dict[str, str]],
        where: str,
    ) -> Direction:
        if not isinstance(value, dict):
            raise self.fail(where)
        cells = tuple(
            self._cell(item, places.pop((key, index), {}), f"{where}.cells[{index}]")
            for index, item in enumerate(self._list(value, "cells"))
        )
        if not cells:
            raise self.fail(f"{where}: no cells")
        return Direction(
            cells=cells,
            options=self._options_of(DirectionOptions, value, where),
            name=self._optional_text(value, "name"),
            class_name=self._optional_text(value, "class"),
        )

    def _cell(self, value: Json, names: dict[str, str], where: str) -> Cell | OpaqueCell:
        if not isinstance(value, dict):
            raise self.fail(where)
        if "opaque" in value:
            return self._opaque(value)
        gates: dict[Gate, dict[str, Tensor]] = {}
        parts: dict[str, Tensor] = {}
        for name, tensor in names.items():
            self._put(name, self._tensors[tensor], gates, parts, where)
        cell = Cell(
            gates=weights_of(gates),
            options=self._options_of(CellOptions, value, where),
            parts=parts,
            name=self._optional_text(value, "name"),
            class_name=self._optional_text(value, "class"),
            places=self._text_map(value, "places"),
            stored_as=self._text(value, "stored_as"),
        )
        self._check_cell(cell, value, where)
        return cell

    def _options_of(self, kind: type[AnyOptions], value: JsonObject, place: str) -> AnyOptions:
        stated = value.get("options")
        key = kind, repr(stated)
        known: AnyOptions | None = self._options.get(key)
        if known is None:
            known = self._options[key] = options_from_json(kind, stated, self._at(place))
        return known

    def _opaque(self, value: JsonObject) -> OpaqueCell:
        config = value.get("config")
        paths = self._texts(value.get("paths", []))
        names = [f"{naming.OTHER}{path}" for path in paths]
        return OpaqueCell(
            class_name=self._text(value, "opaque"),
            name=self._optional_text(value, "name"),
            config=config if isinstance(config, dict) else None,
            paths=tuple(paths),
            tensors=tuple(self._tensors[name] for name in names if name in self._tensors),
        )

    def _put(
        self,
        name: str,
        tensor: Tensor,
        gates: dict[Gate, dict[str, Tensor]],
        parts: dict[str, Tensor],
        where: str,
    ) -> None:
        if name in CELL_PARTS:
            parts[name] = tensor
            return
        gate, _, part = name.partition("_gate.")
        if gate not in set(Gate) or part not in GATE_PARTS:
            raise self.fail(f"{where}: no part of a cell", found=name)
        gates.setdefault(Gate(gate), {})[part] = tensor

    def _check_cell(self, cell: Cell, value: JsonObject, where: str) -> None:
        wellformed.check_cell(cell, self._at(where))
        if {name: list(tensor.shape) for name, tensor in cell.tensors()} != value.get("shapes"):
            raise self.fail(f"{where}: the tensors do not have the recorded shapes")

    def _object(self, value: JsonObject, key: str) -> JsonObject:
        item = value.get(key)
        if not isinstance(item, dict):
            raise self.fail(key)
        return item

    def _list(self, value: JsonObject, key: str) -> list[Json]:
        item = value.get(key)
        if not isinstance(item, list):
            raise self.fail(key)
        return item

    def _json_text(self, value: JsonObject, key: str) -> str:
        """A text that is written as it stands: no archive could be read with another."""
        text = self._text(value, key)
        if key not in _UNREAD:
            parse_object(text, self._at(key))
        return text

    def _text(self, value: JsonObject, key: str) -> str:
        item = value.get(key)
        if not isinstance(item, str):
            raise self.fail(key)
        return item

    def _optional_text(self, value: JsonObject, key: str) -> str | None:
        return None if value.get(key) is None else self._text(value, key)

    def _texts(self, value: Json) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail("a list of texts")
        return value

    def _text_map(self, value: JsonObject, key: str) -> dict[str, str]:
        texts = self._object(value, key)
        if not all(isinstance(text, str) for text in texts.values()):
            raise self.fail(key)
        return texts


def _is_number(value: Json) -> TypeGuard[float]:
    """Whether a JSON value is a number, of a size that a check can have."""
    return type(value) in (int, float) and abs(value) < _LARGEST


def _is_bytes(tensor: Tensor) -> bool:
    """Whether a tensor is a row of bytes, as an archive's assets are carried."""
    return tensor.dtype.name == "uint8" and len(tensor.shape) == 1


#: Is as long as a hash.
_NO_HASH = "0" * 64


class Digest:
    """The source's hash, taken in a thread while the tensors are written.

    Args:
        model: the model.
        tensors: what is written: of a few bytes, the hash is taken when it is asked for.
        sums: the checksums of the tensors, as they are written.
        is_sealed: whether the file keeps them.
    """

    def __init__(
        self, model: Model, tensors: Mapping[str, Tensor], sums: Sums, *, is_sealed: bool = True
    ) -> None:
        size = sum([tensor.nbytes for tensor in tensors.values()])
        self._sealing = Sealing(tensors, sums) if is_sealed else None
        self._error: Exception | None = None
        self._value: str | None = None
        self._model = model
        self._thread: threading.Thread | None = None
        from lstmconvert.files.writing import WORTH_A_THREAD  # a reader needs none of it

        if size > WORTH_A_THREAD:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._model.source.sha256
        except Exception as error:  # raised anew where the digest is asked for
            self._error = error

    def texts(
        self, model: Model, *, is_known: bool, arranged: Mapping[str, Json] | None = None
    ) -> dict[str, Iterable[Piece]]:
        """Return the metadata texts in pieces, with the checksums and the hash.

        Args:
            model: the model that the file is to hold.
            is_known: whether the tensors are written. Else the checksums are parts of the text that
                are known later, and so is the hash where it is being taken.
            arranged: as in `to_pieces`.
        """
        # A model that was not read from a file of its own kind has a known hash, or none.
        is_taken = self._thread is not None and not is_known
        is_taken = is_taken and model.source.digest is not None and not model.is_converted
        digest = self._later if is_taken else self._joined()
        values = to_pieces(model, digest=digest, arranged=arranged)
        if self._sealing is None:
            return {"format": ["np"], KEY: in_pieces(values)}
        return {"format": ["np"], KEY: self._sealing.sealed(values, is_known=is_known)}

    def _later(self, is_known: bool) -> list[str]:
        return [canonical(self._joined() if is_known else _NO_HASH)]

    def _joined(self) -> str | None:
        if self._thread is None:
            return self._model.source.sha256
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value
