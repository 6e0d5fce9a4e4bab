"""A model as one JSON object: what `inspect --json` prints.

    {"version": 1,
     "source": {"name", "container", "layout", "keras_version", "era", "sha256", "origin",
                "whole_model", "notes", "losses"},
     "parameters": {"total", "lstm", "other"},
     "layers": [{"name", "path", "class", "parameters", "merge_mode", …options…, "unknown": […],
                 "directions": {"forward": {…options…}, "backward": {…}},
                 "cells": [{"direction", "index", "units", "input_dim", "dtype", "activation",
                            "recurrent_activation", "use_bias", "parameters", …options…,
                            "tensors": {"kernel": {"shape": [7, 8]}, …},
                            "gates": {"forget": {"columns": [2, 4], "kernel": [7, 2], …}, …},
                            "stats": {"forget": {"kernel": {"min", …}}}}],
                 "opaque": [{"direction", "index", "class"}]}],
     "other": [{"name", "shape", "dtype", "parameters"}]}

`layers[].options` are those of the layer and of its forward direction; a layer with one cell has
that cell's keys too. `columns` are half-open, in Keras's fused order. An activation is
`{"name", …constants…}`. Unknown is null, and listed under `unknown`. `source.sha256` is of this
very file; `origin` is the file that a per-gate file was made from, or null.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lstmconvert import files, optionjson
from lstmconvert.gates import GATES, columns
from lstmconvert.jsontext import JsonObject
from lstmconvert.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model import Model
from lstmconvert.stats import cell_stats

VERSION = 1


def describe(
    model: Model, path: Path | None = None, *, layer: str | None = None, stats: bool = False
) -> JsonObject:
    """Return the JSON object of a model.

    Args:
        model: the model.
        path: the file it was loaded from.
        layer: list this layer alone; totals and other tensors stay those of the model.
        stats: read every LSTM weight, and add `stats` to each cell.

    Raises:
        UnknownLayer: the model has no layer of that name.
        CorruptFile: the file changed meanwhile.
    """
    layers = model.layers if layer is None else (model[layer],)
    return {
        "version": VERSION,
        "source": _source(model, path),
        "parameters": model.parameters,
        "layers": [_layer(item, stats) for item in layers],
        "other": [
            {
                "name": name,
                "shape": list(tensor.shape),
                "dtype": tensor.dtype.name,
                "parameters": tensor.size,
            }
            for name, tensor in model.other.items()
        ],
    }


def is_converted(model: Model) -> bool:
    """Whether the file is one that was made from another, and says so."""
    return model.container != model.source.container


def is_per_gate(model: Model) -> bool:
    """Whether the file keeps one tensor for each gate, under our names."""
    return layout_of(model) == "gates"


def is_whole(model: Model) -> bool:
    """Whether the file holds a model's config, and every tensor that the config's file had."""
    is_split = model.source.structure is not None and not model.is_complete
    return "model_config" in model.texts and not is_split


def layout_of(model: Model) -> str:
    """How the file arranges the gates: `gates`, `keras`, or as a framework does."""
    if model.layout is not None:
        return model.layout
    return "gates" if model.container in ("safetensors", "npz") else "keras"


def unknown_options(layer: LSTMLayer) -> list[str]:
    """Return the names of the options that no file said, each once."""
    found = dict.fromkeys(optionjson.unknown(layer.options))
    if layer.backward is None:
        found.pop("merge_mode", None)  # it has none
    for _, direction in layer.directions:
        found.update(dict.fromkeys(optionjson.unknown(direction.options)))
    for _, _, cell in layer.cells():
        found.update(dict.fromkeys(optionjson.unknown(cell.options)))
    return sorted(found)


def _source(model: Model, path: Path | None) -> JsonObject:
    source = model.source
    origin = {"container": source.container, "sha256": source.sha256}
    digest = source.sha256
    if is_converted(model) or model.layout is not None or is_per_gate(model):
        digest = files.digest_of_file(files.open_source(path)) if path else None
    return {
        "name": path.resolve().name if path else None,
        "container": model.container,
        "layout": layout_of(model),
        "keras_version": source.keras_version,
        "era": source.era,
        "sha256": digest,
        "origin": origin if is_converted(model) else None,
        "whole_model": is_whole(model),
        "notes": list(model.notes),
        "losses": list(model.losses),
    }


def _layer(layer: LSTMLayer, stats: bool) -> JsonObject:
    cells = [_cell(direction, index, cell, stats) for direction, index, cell in layer.cells()]
    directions = {name: _options(direction.options) for name, direction in layer.directions}
    own = {key: value for key, value in _options(layer.options).items() if value is not None}
    result: JsonObject = {
        "name": layer.name,
        "path": layer.path,
        "class": layer.class_name,
        "parameters": layer.parameters,
        "merge_mode": None,
        "masked": None,
        **directions["forward"],
        **own,
        "unknown": unknown_options(layer),
        "directions": directions,
        "cells": cells,
        "opaque": [
            {"direction": name, "index": index, "class": cell.class_name}
            for name, direction in layer.directions
            for index, cell in enumerate(direction.cells)
            if isinstance(cell, OpaqueCell)
        ],
    }
    return (
        result | {k: v for k, v in cells[0].items() if k not in result}
        if len(cells) == 1
        else result
    )


def _options(options: optionjson.Options) -> dict[str, Any]:
    return {key: value for key, value in optionjson.to_json(options).items() if key != "unknown"}


def _cell(direction: str, index: int, cell: Cell, stats: bool) -> JsonObject:
    order = tuple(gate for gate in GATES if gate in cell.gates)
    result: JsonObject = {
        "direction": direction,
        "index": index,
        "units": cell.units,
        "input_dim": cell.input_dim,
        "dtype": cell.dtype.name,
        **_options(cell.options),
        "use_bias": cell.use_bias,
        "parameters": cell.parameters,
        "tensors": {part: {"shape": list(cell.fused_shape(part))} for part in cell.gate_parts}
        | {part: {"shape": list(tensor.shape)} for part, tensor in cell.parts.items()},
        "gates": {
            str(gate): {
                "columns": list(columns(gate, cell.units, order)),
                **{part: list(t.shape) for part, t in cell.gates[gate].tensors.items()},
            }
            for gate in order
        },
    }
    if stats:
        result["stats"] = {
            gate: {part: value.to_json() for part, value in parts.items()}
            for gate, parts in cell_stats(cell).items()
        }
    return result
