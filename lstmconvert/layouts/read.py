"""A framework's file as a model: by our metadata where it is there, else by names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lstmconvert import metadata, metadataread, naming
from lstmconvert.dtypes import same_bits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.gates import Gate
from lstmconvert.jsontext import JsonObject, canonical, parse_object
from lstmconvert.layer import Cell, Direction, GateWeights, LSTMLayer
from lstmconvert.layouts import find
from lstmconvert.layouts.arrange import grid_of
from lstmconvert.layouts.gather import Structure, gather, key_names
from lstmconvert.layouts.row import Row
from lstmconvert.layouts.rows import row_of
from lstmconvert.model import Model, Source
from lstmconvert.tensors import ArrayTensor, Tensor
from lstmconvert.views import Added, is_zero

#: The key of our metadata object that says how a framework's file is arranged.
KEY = "layout"


def model(
    found: Mapping[str, Tensor],
    texts: Mapping[str, str],
    container: str,
    where: object,
    layout: str | None = None,
) -> Model | None:
    """Return the model of a framework's arrays; None if no layout here is theirs.

    Args:
        found: the arrays.
        texts: the file's metadata.
        container: what kind of file it is.
        where: for errors.
        layout: the layout that the user says it is.

    Raises:
        CorruptFile: the metadata do not fit the arrays, or the arrays each other.
        SourceError: they are not of the layout that was said.
    """
    if metadata.KEY in texts:
        value = parse_object(texts[metadata.KEY], f"{where}: {metadata.KEY}")
        if KEY not in value:
            return None
        return _Recorded(found, value, where).model(container)
    if layout is None:
        known = find.recognised(found)
        if known is None:
            return None
        row = known
    else:
        row = row_of(layout)
    layers, used = modules(found, row, "lstm")
    if not layers:
        raise SourceError(
            f"no arrays of {row.title} are in it",
            where=where,
            found=", ".join(list(found)[:5]) or "no arrays",
            expected=", ".join(example(row)),
            hint=_hint(found),
        )
    other = {
        name.removeprefix(naming.OTHER): tensor
        for name, tensor in found.items()
        if name not in used
    }
    return Model(
        layers=layers,
        source=Source(container=container),
        container=container,
        layout=row.name,
        other=other,
    )


def _hint(found: Mapping[str, Tensor]) -> str:
    known = find.recognised(found)
    if known is None:
        return "lstmconvert formats lists the layouts, and the names of each"
    return f"its names are those of {known.title}: --from {known.name}, or leave --from away"


def modules(
    found: Mapping[str, Tensor], row: Row, name: str
) -> tuple[tuple[LSTMLayer, ...], set[str]]:
    """Return the layers of every module of a row, and the names of their arrays.

    Raises:
        CorruptFile: the shapes of some contradict each other.
    """
    layers: list[LSTMLayer] = []
    used: set[str] = set()
    for prefix, structure in find.modules(found, row).items():
        own = prefix.rstrip("./").replace(".", "/") or name
        gathered, names = gather(found, row, structure, own)
        layers += gathered
        used |= names
    unique = naming.layer_names([layer.name for layer in layers])
    return tuple(
        replace(layer, name=wanted) for layer, wanted in zip(layers, unique, strict=True)
    ), used


def example(row: Row) -> list[str]:
    """Return the names that a layer of one direction has in a row."""
    return key_names(row, row.place(0, 1, "forward", False))


def _other(name: str) -> str:
    return name if name.startswith(naming.OTHER) else naming.OTHER + name


class _Recorded:
    """Reads a framework's file by the metadata that were written with it.

    The arrays become the tensors of a per-gate file, which the per-gate reader then reads.
    """

    def __init__(self, found: Mapping[str, Tensor], value: JsonObject, where: object) -> None:
        self._found, self._value, self._where = found, value, where
        self._canonical: dict[str, Tensor] = {}
        self._used: set[str] = set()

    def fail(self, what: str, **facts: Any) -> CorruptFile:
        return CorruptFile(f"its metadata: {what}", where=self._where, **facts)

    def model(self, container: str) -> Model:
        """Return the model, with every option that it had when it was written."""
        arranged = self._value[KEY]
        if not isinstance(arranged, dict) or not isinstance(arranged.get("name"), str):
            raise self.fail(KEY)
        row = row_of(arranged["name"])
        recorded = self._layers()
        for item in self._list(arranged, "modules"):
            self._module(item, row, recorded)
        rest = {name: t for name, t in self._found.items() if name not in self._used}
        tensors = {
            **self._canonical,
            **{_other(name): tensor for name, tensor in rest.items()},
        }
        text = canonical(self._value)
        read = metadataread.Reader(tensors, self._where).model(text, container)
        layers = tuple(self._restored(layer, arranged, row) for layer in read.layers)
        return replace(read, layers=layers, layout=row.name)

    def _layers(self) -> dict[str, JsonObject]:
        layers = self._list(self._value, "layers")
        named = {str(layer.get("name")): layer for layer in layers if isinstance(layer, dict)}
        if len(named) != len(layers):
            raise self.fail("layers")
        return named

    def _module(self, item: Any, row: Row, recorded: Mapping[str, JsonObject]) -> None:
        match item:
            case {"prefix": str(prefix), "layers": [str(), *_] as names}:
                pass
            case _:
                raise self.fail(f"{KEY}.modules")
        if not all(isinstance(name, str) and name in recorded for name in names):
            raise self.fail(f"{KEY}.modules", found=str(names)[:80])
        cells = self._cells(recorded[names[0]])
        both = len(cells) > 1
        depth = len(names) if len(names) > 1 else len(cells["forward"])
        structure = Structure(prefix=prefix, depth=depth, both=both)
        layers, used = gather(self._found, row, structure, "lstm")
        self._used |= used
        for number, members in enumerate(grid_of(layers)):
            name = names[number] if len(names) > 1 else names[0]
            index = 0 if len(names) > 1 else number
            for side, cell in members:
                self._name(recorded[name], side, index, cell)

    def _cells(self, layer: JsonObject) -> dict[str, list[Any]]:
        directions = layer.get("directions")
        if not isinstance(directions, dict) or "forward" not in directions:
            raise self.fail("directions")
        result = {}
        for side, direction in directions.items():
            if not isinstance(direction, dict):
                raise self.fail("directions")
            result[side] = self._list(direction, "cells")
        if {len(cells) for cells in result.values()} != {len(result["forward"]) or 1}:
            raise self.fail("cells")
        return result

    def _name(self, layer: JsonObject, side: str, index: int, cell: Cell) -> None:
        """Give the arrays of a cell their per-gate names, and put these in the tensor map."""
        cells = self._cells(layer).get(side, [])
        if index >= len(cells) or not isinstance(cells[index], dict):
            raise self.fail("cells")
        shapes = cells[index].get("shapes")
        places = layer.setdefault("tensors", {})
        if not isinstance(shapes, dict) or not isinstance(places, dict):
            raise self.fail("shapes")
        for part, tensor in cell.tensors():
            if part not in shapes:
                if is_zero(tensor):
                    continue
                shapes[part] = list(tensor.shape)
            name = f"{layer['name']}.{side}.cells.{index}.{part}"
            self._canonical[name] = tensor
            places[name] = [side, index, part]

    def _restored(self, layer: LSTMLayer, arranged: JsonObject, row: Row) -> LSTMLayer:
        kept = arranged.get("originals", {})
        if not isinstance(kept, dict):
            raise self.fail("originals")
        halves: dict[str, Direction] = {}
        for side, direction in layer.directions:
            cells = [
                self._with_original(cell, kept.get(f"{layer.name}.{side}.{index}"), row)
                if isinstance(cell, Cell)
                else cell
                for index, cell in enumerate(direction.cells)
            ]
            halves[side] = replace(direction, cells=tuple(cells))
        return replace(layer, forward=halves["forward"], backward=halves.get("backward"))

    def _with_original(self, cell: Cell, kept: Any, row: Row) -> Cell:
        """Return a cell with its forget bias as it was, if the stored one is still made of it."""
        if kept is None:
            return cell
        match kept:
            case {"data": str(data), "forget_bias": int() | float() as amount}:
                pass
            case _:
                raise self.fail("originals")
        weights = cell.gates[Gate.FORGET].tensors
        stored = weights.get("bias")
        try:
            raw = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise self.fail("originals") from None
        if stored is None or len(raw) != stored.nbytes:
            return cell
        original = ArrayTensor(np.frombuffer(raw, stored.dtype).reshape(stored.shape))
        if not same_bits(Added(original, amount - row.forget_bias).read(), stored.read()):
            return cell
        gates = dict(cell.gates)
        others = [w.tensors["bias"] for g, w in gates.items() if g is not Gate.FORGET]
        had_bias = kept.get("had_bias") is not False or not all(map(is_zero, others))
        if not had_bias:
            gates = {
                gate: GateWeights(gate, {p: t for p, t in w.tensors.items() if p != "bias"})
                for gate, w in gates.items()
            }
        else:
            gates[Gate.FORGET] = GateWeights(Gate.FORGET, {**weights, "bias": original})
        options = replace(
            cell.options, forget_bias=float(amount), use_bias=had_bias
        )
        return replace(cell, gates=gates, options=options)

    def _list(self, value: JsonObject, key: str) -> list[Any]:
        found = value.get(key)
        if not isinstance(found, list):
            raise self.fail(key)
        return found


