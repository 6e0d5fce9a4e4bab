"""A framework's file as a model: by our metadata where the file has it, else by names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.layouts import find
from lstmconvert.layouts.arrange import grid_of
from lstmconvert.layouts.gather import ModuleStructure, gather, key_names
from lstmconvert.layouts.row import Row
from lstmconvert.layouts.rows import row_of
from lstmconvert.model import edit, naming
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import same_bits
from lstmconvert.tensors.tensor import ArrayTensor, Tensor
from lstmconvert.tensors.views import is_zero

#: The key of our metadata object that says how a framework's file is arranged.
KEY = "layout"


def model(
    arrays: Mapping[str, Tensor],
    value: JsonObject | None,
    container: str,
    where: object,
    layout: str | None = None,
) -> Model | None:
    """Return the model of a framework's arrays; None if no known layout fits them.

    Args:
        arrays: the arrays of the file, by name.
        value: our metadata object, where the file has one.
        container: what kind of file it is.
        where: for errors.
        layout: the layout that the user names.

    Raises:
        CorruptFile: the metadata do not fit the arrays, or the arrays do not fit each other.
        SourceError: the arrays are not of the layout that the user names.
    """
    if value is not None:
        if KEY not in value:
            return None
        return _Recorded(arrays, value, where).model(container)
    if layout is None:
        recognised = find.recognised(arrays)
        if recognised is None:
            return None
        row = recognised
    else:
        row = row_of(layout)
    layers, used = modules(arrays, row, "lstm")
    if not layers:
        raise SourceError(
            f"it has no arrays of {row.title}",
            where=where,
            found=", ".join(list(arrays)[:5]) or "no arrays",
            expected=", ".join(example(row)),
            hint=_hint(arrays),
        )
    other = {
        name.removeprefix(naming.OTHER): tensor
        for name, tensor in arrays.items()
        if name not in used
    }
    return Model(
        layers=layers,
        source=Source(container=container),
        container=container,
        layout=row.name,
        other=other,
    )


def _hint(arrays: Mapping[str, Tensor]) -> str:
    row = find.recognised(arrays)
    if row is None:
        return "lstmconvert formats lists the layouts, and the names of each"
    return f"its names are those of {row.title}: --from {row.name}, or leave --from away"


def modules(
    arrays: Mapping[str, Tensor], row: Row, name: str
) -> tuple[tuple[LSTMLayer, ...], set[str]]:
    """Return the layers of every module of a row, and the names of their arrays.

    Raises:
        CorruptFile: the shapes of some contradict each other.
    """
    layers: list[LSTMLayer] = []
    used: set[str] = set()
    for prefix, structure in find.modules(arrays, row).items():
        if _is_of_another_cell(arrays, row, structure):
            continue
        module = prefix.rstrip("./").replace(".", "/") or name
        gathered, names = gather(arrays, row, structure, module)
        layers += gathered
        used |= names
    unique = naming.layer_names([layer.name for layer in layers])
    return tuple(
        replace(layer, name=wanted) for layer, wanted in zip(layers, unique, strict=True)
    ), used


#: How many gates a GRU and a plain RNN have, whose arrays many frameworks call as an LSTM's.
_GATES_OF_OTHERS = (3, 1)


def _is_of_another_cell(
    arrays: Mapping[str, Tensor], row: Row, structure: ModuleStructure
) -> bool:
    """Whether a module's recurrent kernel has the blocks of a GRU's, or of a plain RNN's."""
    slot = next((s for s in row.slots if s.parts == ("recurrent_kernel",)), None)
    if slot is None or slot.per_gate or slot.leading or row.joined:
        return False
    side = row.place(0, structure.depth, "forward", structure.both)
    tensor = arrays.get(structure.prefix + slot.key.format(**side))
    if tensor is None or len(tensor.shape) != 2:
        return False
    units, fused = tensor.shape[::-1] if slot.transposed else tensor.shape
    return units > 0 and any(fused == count * units for count in _GATES_OF_OTHERS)


def example(row: Row) -> list[str]:
    """Return the names of the arrays that a layer of one direction has in a row."""
    return key_names(row, row.place(0, 1, "forward", False))


def _other(name: str) -> str:
    return name if name.startswith(naming.OTHER) else naming.OTHER + name


class _Recorded:
    """Reads a framework's file by the metadata that were written with it.

    The arrays become the tensors of a per-gate file, which the per-gate reader then reads.
    """

    def __init__(self, arrays: Mapping[str, Tensor], value: JsonObject, where: object) -> None:
        self._arrays, self._value, self._where = arrays, value, where
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
        kept = self._neighbours(arranged)
        names = [name for prefix in kept for name in self._below(f"{prefix.replace('/', '.')}.")]
        self._used.update(names)
        self._used.update(self._filled(arranged))
        rest = {name: t for name, t in self._arrays.items() if name not in self._used}
        others = arranged.get("others", {})
        if not isinstance(others, dict) or not all(isinstance(x, str) for x in others.values()):
            raise self.fail("others")
        named = {name: naming.OTHER + path for name, path in others.items()}
        tensors = {
            **self._canonical,
            **{named.get(name, _other(name)): tensor for name, tensor in rest.items()},
        }
        read = metadata.Reader(tensors, self._where).model(self._value, container)
        layers = tuple(self._restored(layer, arranged, row) for layer in read.layers)
        read = replace(read, layers=layers, layout=row.name)
        return self._with_neighbours(read, row, kept) if kept else read

    def _below(self, prefix: str) -> dict[str, Tensor]:
        """Return the arrays whose names begin so, by the rest of their names."""
        return {name: t for name, t in self._arrays.items() if name.startswith(prefix)}

    def _neighbours(self, arranged: JsonObject) -> dict[str, dict[str, str]]:
        """Return name of a layer beside the LSTMs -> weight -> path in the source."""
        if "neighbours" not in arranged:
            return {}
        result = {}
        for item in self._list(arranged, "neighbours"):
            match item:
                case {"name": str(name), "paths": dict(paths)} if all(
                    isinstance(path, str) and naming.is_path(path) for path in paths.values()
                ):
                    result[name] = paths
                case _:
                    raise self.fail(f"{KEY}.neighbours")
        return result

    def _filled(self, arranged: JsonObject) -> Iterator[str]:
        """Yield the names of arrays that were added for the framework, and were not edited."""
        added = arranged.get("filled", {})
        if not isinstance(added, dict):
            raise self.fail("filled")
        for name, number in added.items():
            if not isinstance(number, (int, float)) or name not in self._arrays:
                raise self.fail("filled", found=name)
            if bool((self._arrays[name].read() == number).all()):
                yield name

    def _with_neighbours(
        self, model: Model, row: Row, kept: Mapping[str, Mapping[str, str]]
    ) -> Model:
        """Return the model with the other layers' weights where its source had them."""
        # Few files have any, and start-up is faster without.
        from lstmconvert.keras.modern.neighbours import of
        from lstmconvert.layouts import neighbours
        from lstmconvert.layouts.neighbourrows import TABLE

        described = of(model)
        other = dict(model.other)
        for name, paths in kept.items():
            if name not in described or row.name not in TABLE:
                raise self.fail(f"{KEY}.neighbours", found=name)
            prefix = f"{name.replace('/', '.')}."
            arrays = {key[len(prefix) :]: t for key, t in self._below(prefix).items()}
            layer = described[name]
            tensors, used, _ = neighbours.gather(layer, TABLE[row.name], row.sides, arrays)
            if used != set(arrays) or set(tensors) != set(paths):
                odd = {*(set(arrays) - used), *(set(tensors) ^ set(paths))}
                raise self.fail(f"{KEY}.neighbours", found=f"{name}: {min(odd)}")
            other.update({paths[role]: tensor for role, tensor in tensors.items()})
        return replace(model, other=other)

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
        structure = ModuleStructure(prefix=prefix, depth=depth, both=both)
        layers, used = gather(self._arrays, row, structure, "lstm")
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
        """Give the arrays of a cell their per-gate names, and add the names to the tensor map."""
        cells = self._cells(layer).get(side, [])
        if index >= len(cells) or not isinstance(cells[index], dict):
            raise self.fail("cells")
        shapes = cells[index].get("shapes")
        places = layer.setdefault("tensors", {})
        if not isinstance(shapes, dict) or not isinstance(places, dict):
            raise self.fail("shapes")
        for part, tensor in self._recorded(cell, shapes).tensors():
            if part not in shapes:
                shapes[part] = list(tensor.shape)
                options = cells[index].get("options")
                if part.endswith("_gate.bias") and isinstance(options, dict):
                    options["use_bias"] = True
            name = f"{layer['name']}.{side}.cells.{index}.{part}"
            self._canonical[name] = tensor
            places[name] = [side, index, part]

    def _recorded(self, cell: Cell, shapes: JsonObject) -> Cell:
        """Return a cell without the zeros that only its framework wanted.

        A part that was not recorded and is +0.0 in all gates is left out. If it was edited to be
        something else, every gate keeps it.
        """
        return edit.without_parts(
            cell,
            [
                part
                for part in cell.gate_parts
                if all(
                    f"{gate}_gate.{part}" not in shapes and is_zero(weights.tensors[part])
                    for gate, weights in cell.gates.items()
                    if part in weights.tensors
                )
            ],
        )

    def _restored(self, layer: LSTMLayer, arranged: JsonObject, row: Row) -> LSTMLayer:
        kept = arranged.get("originals", {})
        if not isinstance(kept, dict):
            raise self.fail("originals")
        return edit.map_cells(
            layer,
            lambda side, index, cell: self._with_original(
                cell, kept.get(f"{layer.name}.{side}.{index}"), row
            ),
        )

    def _with_original(self, cell: Cell, kept: Any, row: Row) -> Cell:
        """Return a cell with its original forget bias, unless the stored bias was edited since."""
        if kept is None:
            return cell
        match kept:
            case {"data": str(data), "forget_bias": int() | float() as amount}:
                pass
            case _:
                raise self.fail("originals")
        stored = cell.gates[Gate.FORGET].tensors.get("bias")
        try:
            raw = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise self.fail("originals") from None
        if stored is None or len(raw) != stored.nbytes:
            return cell
        bias = ArrayTensor(np.frombuffer(raw, stored.dtype).reshape(stored.shape))
        original = edit.map_gates(
            cell,
            lambda gate, tensors: {**tensors, "bias": bias} if gate is Gate.FORGET else tensors,
        )
        original = replace(original, options=replace(cell.options, forget_bias=float(amount)))
        refitted = edit.with_forget_bias(original, row.forget_bias)
        if not same_bits(edit.bias_of(refitted, Gate.FORGET).read(), stored.read()):
            return cell
        others = [edit.bias_of(cell, gate) for gate in cell.gates if gate is not Gate.FORGET]
        if kept.get("had_bias") is False and all(map(is_zero, others)):
            options = replace(original.options, use_bias=False)
            return replace(edit.without_parts(original, ["bias"]), options=options)
        return original

    def _list(self, value: JsonObject, key: str) -> list[Any]:
        items = value.get(key)
        if not isinstance(items, list):
            raise self.fail(key)
        return items


