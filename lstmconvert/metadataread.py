"""The metadata object of a per-gate file, read. The reader trusts nothing: it comes from a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lstmconvert import naming, optionjson, wellformed
from lstmconvert.errors import CorruptFile
from lstmconvert.gates import Gate
from lstmconvert.jsontext import Json, JsonObject, parse_object
from lstmconvert.layer import (
    CELL_PARTS,
    GATE_PARTS,
    Cell,
    Direction,
    GateWeights,
    LSTMLayer,
    OpaqueCell,
)
from lstmconvert.metadata import KEY, TEXTS, VERSION
from lstmconvert.model import Model, Source, Structure
from lstmconvert.options import CellOptions, DirectionOptions, LayerOptions
from lstmconvert.tensors import Tensor

#: Of these the one that is carried, and never looked into.
_UNREAD = ("training_config",)
_SHA256 = re.compile("[0-9a-f]{64}")


class Reader:
    """Builds a model from a metadata text and the tensors of the same file.

    Raises:
        CorruptFile: the text is not of this format, or does not fit the tensors.
    """

    def __init__(self, tensors: Mapping[str, Tensor], where: object) -> None:
        self._tensors, self._where = tensors, where
        self._used: set[str] = set()

    def fail(self, what: str, **facts: Any) -> CorruptFile:
        return CorruptFile(f"not a per-gate file: {what}", where=self._where, **facts)

    def _at(self, place: str) -> str:
        return f"{self._where}: {place}"

    def model(self, text: str, container: str) -> Model:
        """Return the model that `text` describes."""
        value = parse_object(text, f"{self._where}: {KEY}")
        if value.get("version") != VERSION or isinstance(value["version"], (bool, float)):
            raise self.fail(
                "format version", found=str(value.get("version"))[:40], expected=str(VERSION)
            )
        layers = tuple(self._layer(item) for item in self._list(value, "layers"))
        names = [layer.name for layer in layers]
        if not layers or len(set(names)) != len(names):
            raise self.fail("its layers are none, or two of one name")
        source = self._source(self._object(value, "source"))
        other, optimizer, assets = self._rest(source)
        return Model(
            layers=layers,
            source=source,
            container=container,
            other=other,
            optimizer=optimizer,
            assets=assets,
            texts={key: self._json_text(value, key) for key in TEXTS if key in value},
            notes=tuple(self._texts(value.get("notes", []))),
            losses=tuple(self._texts(value.get("losses", []))),
        )

    def _rest(
        self, source: Source
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        other: dict[str, Tensor] = {}
        optimizer: dict[str, Tensor] = {}
        assets: dict[str, Tensor] = {}
        for name in sorted(set(self._tensors) - self._used):
            if not name.startswith(naming.OTHER):
                raise self.fail("a tensor that belongs to nothing", found=name)
            path = name[len(naming.OTHER) :]
            first = path.partition("/")[0]
            is_slot = first in ("optimizer", "optimizer_weights")
            is_asset = first == "assets" and source.container == "keras"
            if not naming.is_path(path, asset=is_asset):
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
            digest=lambda: digest,
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
            raise self.fail("a layer is no object")
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
        return LSTMLayer(
            name=name,
            path=self._text(value, "path"),
            class_name=self._text(value, "class"),
            forward=built["forward"],
            backward=built.get("backward"),
            options=optionjson.from_json(LayerOptions, value.get("options"), self._at(name)),
            config=config,
            input_shape=self._shape(value.get("input_shape"), name),
        )

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
            options=optionjson.from_json(DirectionOptions, value.get("options"), self._at(where)),
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
            gates={g: GateWeights(g, _in_order(gates[g])) for g in Gate if g in gates},
            options=optionjson.from_json(CellOptions, value.get("options"), self._at(where)),
            parts=parts,
            name=self._optional_text(value, "name"),
            class_name=self._optional_text(value, "class"),
            places=self._text_map(value, "places"),
            stored_as=self._text(value, "stored_as"),
        )
        self._check_cell(cell, value, where)
        return cell

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
        if fault := wellformed.cell_fault(cell, whole=False):
            raise self.fail(f"{where}: {fault}")
        if {name: list(tensor.shape) for name, tensor in cell.tensors()} != value.get("shapes"):
            raise self.fail(f"{where}: the tensors have not the recorded shapes")

    def _object(self, value: JsonObject, key: str) -> JsonObject:
        found = value.get(key)
        if not isinstance(found, dict):
            raise self.fail(key)
        return found

    def _list(self, value: JsonObject, key: str) -> list[Json]:
        found = value.get(key)
        if not isinstance(found, list):
            raise self.fail(key)
        return found

    def _json_text(self, value: JsonObject, key: str) -> str:
        """A text that is written as it stands: no archive could be read with another."""
        text = self._text(value, key)
        if key not in _UNREAD:
            parse_object(text, self._at(key))
        return text

    def _text(self, value: JsonObject, key: str) -> str:
        found = value.get(key)
        if not isinstance(found, str):
            raise self.fail(key)
        return found

    def _optional_text(self, value: JsonObject, key: str) -> str | None:
        return None if value.get(key) is None else self._text(value, key)

    def _texts(self, value: Json) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail("a list of texts")
        return value

    def _text_map(self, value: JsonObject, key: str) -> dict[str, str]:
        found = self._object(value, key)
        if not all(isinstance(item, str) for item in found.values()):
            raise self.fail(key)
        return found


def _in_order(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {part: tensors[part] for part in GATE_PARTS if part in tensors}
