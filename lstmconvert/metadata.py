"""The `lstmconvert` metadata object of a per-gate file: everything about a model but its numbers.

One JSON object with sorted keys, no clock and no absolute path. Readers
(`metadataread`) use its tensor map, never the tensors' names.
"""

from __future__ import annotations

from lstmconvert import naming, optionjson
from lstmconvert.dtypes import name_of
from lstmconvert.jsontext import JsonObject, canonical
from lstmconvert.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.model import Model, Source

VERSION = 1
KEY = "lstmconvert"
TEXTS = ("model_config", "training_config", "archive_metadata")


def to_text(model: Model, *, digest: str | None) -> str:
    """Return the metadata object of a model as one JSON text."""
    value: JsonObject = {
        "version": VERSION,
        "source": _source(model.source, digest),
        **{key: model.texts[key] for key in TEXTS if key in model.texts},
    }
    if model.notes:
        value["notes"] = list(model.notes)
    if model.losses:
        value["losses"] = list(model.losses)
    texts = {key: canonical(item) for key, item in value.items()}
    # One at a time: as objects, 10,000 layers take ten times the memory of their text.
    texts["layers"] = f"[{','.join(canonical(_layer(layer)) for layer in model.layers)}]"
    return f"{{{','.join(f'{canonical(key)}:{texts[key]}' for key in sorted(texts))}}}"


def _source(source: Source, digest: str | None) -> JsonObject:
    result: JsonObject = {
        "container": source.container,
        "keras_version": source.keras_version,
        "era": source.era,
        "sha256": digest,
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


def _layer(layer: LSTMLayer) -> JsonObject:
    return {
        "name": layer.name,
        "path": layer.path,
        "class": layer.class_name,
        "options": optionjson.to_json(layer.options),
        "config": layer.config,
        "input_shape": None if layer.input_shape is None else list(layer.input_shape),
        "directions": {name: _direction(value) for name, value in layer.directions},
        "tensors": {
            f"{start}.{name}": [direction, index, name]
            for direction, index, cell in layer.cells()
            for start in [naming.prefix(layer, direction, index)]
            for name, _ in cell.tensors()
        },
    }


def _direction(direction: Direction) -> JsonObject:
    return {
        "name": direction.name,
        "class": direction.class_name,
        "options": optionjson.to_json(direction.options),
        "cells": [_cell(cell) for cell in direction.cells],
    }


def _cell(cell: Cell | OpaqueCell) -> JsonObject:
    if isinstance(cell, OpaqueCell):
        return {
            "opaque": cell.class_name,
            "name": cell.name,
            "config": cell.config,
            "paths": list(cell.paths),
        }
    return {
        "name": cell.name,
        "class": cell.class_name,
        "units": cell.units,
        "input_dim": cell.input_dim,
        "dtype": name_of(cell.dtype),
        "shapes": {name: list(tensor.shape) for name, tensor in cell.tensors()},
        "places": dict(cell.places),
        "stored_as": cell.stored_as,
        "options": optionjson.to_json(cell.options),
    }
