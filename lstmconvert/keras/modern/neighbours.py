"""The layers of a model that hold no LSTM, as its config says them: `Model.neighbours`.

The table of classes knows what the weights of each are called. A layer whose class is not in it, or
whose stored weights do not fit it, keeps its tensors under their paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.configs.nodes import RECURRENT
from lstmconvert.keras.modern import crossing
from lstmconvert.keras.modern.classes import SIZES
from lstmconvert.keras.modern.parts import Leave, Part
from lstmconvert.keras.modern.weights import TreeFiller
from lstmconvert.keras.stores.stored import tensors as all_tensors
from lstmconvert.model import naming
from lstmconvert.model.model import Model, Structure
from lstmconvert.model.neighbours import Neighbour, NeighbourCell
from lstmconvert.tensors.tensor import Tensor

#: The prefix of a weight's name for each attribute that holds it, where it is not the attribute.
#: A GRU has its weights in its cell, and there is no other.
_PREFIXES = {"cell": "", "forward_layer": "forward.", "backward_layer": "backward."}

#: The class of a cell -> that of the layer which is one.
_OF_A_CELL = {"GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}


def of(model: Model) -> dict[str, Neighbour]:
    """Return name -> neighbour, in the order of the config; none where there is no config."""
    known = _tree(model)
    if known is None:
        return {}
    root, structure, era, _ = known
    source = TreeFiller(structure, model.other, model.layers, model.source.container)
    source.fill_known(root, era)
    paths = {layer.path for layer in model.layers}
    layers = [(name, part) for name, part in _layers(root, "") if part.group not in paths]
    names = naming.unique([name for name, _ in layers])
    return {
        name: _neighbour(name, part, source, model.other)
        for name, (_, part) in zip(names, layers, strict=True)
    }


def contradiction(model: Model) -> CorruptFile | UnsupportedByTarget | None:
    """Return how the weights of a model are others than its config says; None where they are not,
    or where a class stands in it of which that is not known."""
    known = _tree(model)
    if known is None:
        return None
    root, structure, era, refusals = known
    if refusals:
        return None
    try:
        TreeFiller(structure, all_tensors(model), model.layers, model.source.container).fill(
            root, era
        )
    except (CorruptFile, UnsupportedByTarget) as error:
        return error
    return None


def _tree(model: Model) -> tuple[Part, Structure, str, list[UnsupportedByTarget]] | None:
    """Return a model's layers without arrays, its structure and era, and what cannot cross; None
    where there is no config that can be read."""
    refusals: list[UnsupportedByTarget] = []
    try:
        known = crossing.known_config(model)
        if known is None:
            return None
        structure, config = known
        era = config.era.name
        leave = Leave(refusals=refusals, any_keyword=True)
        root = crossing.parts_of(model, structure, era, config.root, leave)
    except (CorruptFile, UnsupportedByTarget):  # a class of the user's own, for one
        return None
    return root, structure, era, refusals


def _layers(part: Part, outer: str) -> Iterator[tuple[str, Part]]:
    """Yield the layers below a model or a wrapper that hold no LSTM, each with its whole name."""
    for _, child in part.children:
        name = f"{outer}{child.node.name or child.name}"
        holds = any(below.layer is not None for below in child.walk())
        if child.is_model or child.class_name == "TimeDistributed":
            yield from _layers(child, f"{name}/")
        elif not holds and child.class_name not in RECURRENT | {"InputLayer"}:
            yield name, child


def _neighbour(
    name: str, part: Part, source: TreeFiller, stored: Mapping[str, Tensor]
) -> Neighbour:
    tensors: dict[str, Tensor] = {}
    paths: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    for prefix, below in _prefixed(part, ""):
        if not below.arrays:
            for index, weight in enumerate(below.weights):
                missing.append(f"{prefix}{weight.role}")
                paths[f"{prefix}{weight.role}"] = source.expected(below, index)
            continue
        for weight, tensor, places in zip(below.weights, below.arrays, below.paths, strict=True):
            tensors[f"{prefix}{weight.role}"] = tensor
            paths[f"{prefix}{weight.role}"] = places
    named = {path for places in paths.values() for path in places}
    inputs, outputs = _sizes(part, tensors)
    fed = _fed(part)
    return Neighbour(
        name=name,
        class_name=part.class_name,
        config=part.config,
        path=part.group,
        tensors=tensors,
        paths=paths,
        unnamed={path: stored[path] for path in source.paths_of(part) if path not in named},
        missing=tuple(missing),
        cells=tuple(_cells(part)),
        fed=fed[-1] if fed and type(fed[-1]) is int else None,
        rank=len(fed) or None,
        inputs=inputs,
        outputs=outputs,
    )


def _cells(part: Part) -> Iterator[NeighbourCell]:
    """Yield the directions of a GRU or SimpleRNN, alone, in an RNN, or in a Bidirectional."""
    halves = [child for _, child in part.children] if part.class_name == "Bidirectional" else [part]
    cells = []
    for half, side in zip(halves, ("forward.", "backward."), strict=False):
        inner = [child for attribute, child in half.children if attribute == "cell"]
        if len(inner) != 1 or inner[0].class_name not in _OF_A_CELL:
            return
        config = {**half.config, **inner[0].config}
        prefix = side if len(halves) > 1 else ""
        cells.append(NeighbourCell(prefix, _OF_A_CELL[inner[0].class_name], config))
    yield from cells


def _prefixed(part: Part, prefix: str) -> Iterator[tuple[str, Part]]:
    """Yield a layer and its parts, each with the prefix of its weights' names."""
    yield prefix, part
    count = 0
    for attribute, child in part.children:
        if attribute == "cells":
            yield from _prefixed(child, f"{prefix}cells.{count}.")
            count += 1
        else:
            yield from _prefixed(child, prefix + _PREFIXES.get(attribute, f"{attribute}."))


def _fed(part: Part) -> list[Json]:
    """Return the shape of the input that a layer was built for, where the config says it: Keras 3
    keeps that (keras/src/saving/serialization_lib.py, `build_config`)."""
    built = part.node.whole.get("build_config")
    shape = built.get("input_shape") if isinstance(built, dict) else None
    return shape if isinstance(shape, list) else []


def _sizes(part: Part, tensors: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    sizes = SIZES.get(part.class_name)
    if sizes is None or sizes.role not in tensors:
        return None, None
    shape = tensors[sizes.role].shape
    try:
        inputs = None if sizes.inputs is None else shape[sizes.inputs]
        outputs = None if sizes.outputs is None else shape[sizes.outputs]
    except IndexError:  # of another rank than its class has
        return None, None
    groups = part.config.get("groups")
    if sizes.grouped and inputs is not None and isinstance(groups, int):
        inputs *= groups
    if inputs is None and "kernel" in tensors and len(tensors["kernel"].shape) > 1:
        inputs = tensors["kernel"].shape[-2]
    return inputs, outputs
