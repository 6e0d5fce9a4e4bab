"""From a weight store and, where there is one, a config to a model's layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lstmconvert.errors import CorruptFile, NoLSTM
from lstmconvert.jsontext import parse
from lstmconvert.keras import build, keras0, legacy, v3store
from lstmconvert.keras.build import Context
from lstmconvert.keras.cells import by_role
from lstmconvert.keras.era import Era, era_of
from lstmconvert.keras.nodes import Node, node
from lstmconvert.keras.sketch import CellSketch, LayerSketch, Plan, plan
from lstmconvert.keras.stored import CellArrays
from lstmconvert.keras.tree import Tree
from lstmconvert.layer import LSTMLayer, OpaqueCell
from lstmconvert.model import Structure
from lstmconvert.naming import layer_names
from lstmconvert.records import dataclass
from lstmconvert.tensors import Tensor


@dataclass(frozen=True, slots=True)
class Content:
    """What a weight store holds: layers, all other tensors by full path, the optimizer's slots,
    what it takes to write the store anew, and notes for the user."""

    layers: tuple[LSTMLayer, ...]
    other: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    structure: Structure
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A parsed model config and the era it was written in."""

    root: Node
    era: Era


def parse_config(text: str | bytes, version: str | None, where: object) -> Config:
    """Parse a model's config.

    Raises:
        CorruptFile: it is no JSON, or no serialized model.
    """
    value = parse(text, where)
    if keras0.is_config(value):
        value = keras0.modern(value)
    if isinstance(value, list):  # Keras 0.x
        value = {"class_name": "Sequential", "config": value}
    stated = value.get("keras_version") if isinstance(value, dict) else None
    version = version or (stated if isinstance(stated, str) else None)
    if isinstance(value, dict) and "model_config" in value and "class_name" not in value:
        value = value["model_config"]
    return Config(node(value, str(where)), era_of(version, value))


def read(tree: Tree, config: Config | None, where: object) -> Content:
    """Read the layers of a weight store of either kind.

    Args:
        tree: the store.
        config: the model's config, if there is one.
        where: the file, for errors.

    Raises:
        NoLSTM: it holds no LSTM layer; the error lists what it holds.
        CorruptFile: config and store contradict each other, or it is no weight store.
    """
    if legacy.is_legacy(tree):
        return _read_legacy(legacy.read_store(tree, where), config, where)
    if v3store.is_v3(tree):
        return _read_v3(v3store.read_store(tree, where), config, where)
    raise CorruptFile(
        "an HDF5 file, and not one that Keras wrote",
        where=where,
        found=f"groups {', '.join(sorted(tree.groups)[1:6]) or 'none'}",
        expected="layer_names and weight_names attributes, or groups called vars",
    )


def _read_v3(store: v3store.V3Store, config: Config | None, where: object) -> Content:
    result = plan(config.root, store.container, store.groups) if config else Plan()
    found = [(sketch, config.era) for sketch in result.layers if sketch.has_lstm] if config else []
    notes: list[str] = []
    inferred = _inferred(store, result, notes, where, whole=config is None)
    located = [(_located(sketch, store, where), era) for sketch, era in found]
    sketches = [*((s, e) for s, e in located if s is not None), *((s, None) for s in inferred)]
    if not sketches:
        raise _no_lstm(where, result.classes or _groups(store), notes)
    names = layer_names(sketch.name for sketch, _ in sketches)

    def arrays(cell: CellSketch) -> CellArrays:
        if not cell.is_lstm:
            inside = [stored for group in store.below(cell.group) for stored in store.vars[group]]
            return CellArrays({str(index): stored for index, stored in enumerate(inside)})
        if cell.group not in store.vars:
            raise _unbuilt(where, cell.group)
        return CellArrays(by_role(store.vars[cell.group], f"{where}: {cell.group}"))

    context = Context.of(config.root) if config else None
    layers = tuple(
        build.layer(sketch, arrays, era, name, context)
        for (sketch, era), name in zip(sketches, names, strict=True)
    )
    structure = Structure(kind="v3", names=_groups_and_names(store))
    return _content(layers, store.tensors, v3store.OPTIMIZER, structure, notes)


def _groups_and_names(store: v3store.V3Store) -> dict[str, str]:
    """Return the name of every group that may hold arrays, empty where it has none: tf_keras looks
    for the groups of layers that have no weights, too."""
    found = (path[: -len("vars")].rstrip("/") for path in store.groups if v3store.is_vars(path))
    groups = sorted(group for group in found if group.partition("/")[0] != v3store.OPTIMIZER)
    return dict.fromkeys(groups, "") | store.names


def _inferred(
    store: v3store.V3Store, result: Plan, notes: list[str], where: object, *, whole: bool
) -> list[LayerSketch]:
    """Sketch what no config describes: the whole store, or the custom layers of a plan."""
    if not whole and not result.custom:
        return []
    from lstmconvert.keras import infer  # not needed for most files, nor is bindlegacy below

    if whole:
        return infer.layers(store, where)
    sketches: list[LayerSketch] = []
    for custom, name, group in result.custom:
        below = [f"{group}/{part}".strip("/") for part in ("cell", "forward_layer", "layer")]
        is_recurrent = any(store.below(part) for part in below)
        inside = [] if is_recurrent else infer.layers(store, where, group, name if group else "")
        sketches.extend(inside)
        if is_recurrent or not inside:
            notes.append(f"{name}: the custom class {custom.class_name} is left as it is")
    return sketches


def _located(sketch: LayerSketch, store: v3store.V3Store, where: object) -> LayerSketch | None:
    """Return the sketch if the store has its group, None if another layer shares its weights."""
    if store.below(sketch.group):
        return sketch
    name = sketch.node.name if sketch.node else ""
    if name in store.own_names:
        return None
    raise _unbuilt(where, sketch.group)


def _unbuilt(where: object, group: str) -> CorruptFile:
    return CorruptFile(
        "the config names a layer whose weights are not stored",
        where=f"{where}: {group}",
        hint="was the model built, and are config and weights of one model?",
    )


def _read_legacy(store: legacy.LegacyStore, config: Config | None, where: object) -> Content:
    from lstmconvert.keras import bindlegacy

    result = plan(config.root) if config else bindlegacy.infer(store, where)
    inside = bindlegacy.inside(store, result) if config else Plan()
    described = [sketch for sketch in result.layers if sketch.has_lstm]
    inferred = [sketch for sketch in inside.layers if sketch.has_lstm]
    left = [(custom.class_name, name) for custom, name, _ in result.custom] + inside.classes
    notes = [f"{name}: the custom class {class_name} is left as it is" for class_name, name in left]
    if not described and not inferred:
        raise _no_lstm(where, result.classes, notes)
    era = config.era if config else None
    arrays = bindlegacy.LegacyArrays(store, result, where)
    others = bindlegacy.LegacyArrays(store, inside, where)
    sketches = [*((one, arrays, era) for one in described), *((o, others, None) for o in inferred)]
    names = layer_names(sketch.name for sketch, _, _ in sketches)
    context = Context.of(config.root) if config else None
    layers = tuple(
        build.layer(sketch, source, version, name, context)
        for (sketch, source, version), name in zip(sketches, names, strict=True)
    )
    structure = Structure(
        kind="legacy", attributes=store.attributes, weights=store.names, root=store.root
    )
    return _content(layers, store.tensors, legacy.OPTIMIZER, structure, notes)


def _content(
    layers: tuple[LSTMLayer, ...],
    tensors: Mapping[str, Tensor],
    optimizer: str,
    structure: Structure,
    notes: list[str],
) -> Content:
    cells = [cell for layer in layers for _, _, cell in layer.cells()]
    used = {path for cell in cells for path in cell.places.values()}
    def is_slot(path: str) -> bool:
        return path.partition("/")[0] == optimizer

    rest = {path: tensor for path, tensor in tensors.items() if path not in used}
    return Content(
        layers,
        {path: tensor for path, tensor in rest.items() if not is_slot(path)},
        {path: tensor for path, tensor in rest.items() if is_slot(path)},
        replace(structure, paths=frozenset(path for path in tensors if not is_slot(path))),
        (*notes, *_opaque_notes(layers)),
    )


def _opaque_notes(layers: tuple[LSTMLayer, ...]) -> list[str]:
    return [
        f"{layer.name}: its {direction} half holds a {cell.class_name}, kept as it is"
        for layer in layers
        for direction, value in layer.directions
        for cell in value.cells
        if isinstance(cell, OpaqueCell)
    ]


def _groups(store: v3store.V3Store) -> list[tuple[str, str]]:
    return [("", store.names.get(group, group) or "the root") for group in store.vars]


def _no_lstm(where: object, classes: list[tuple[str, str]], notes: list[str]) -> NoLSTM:
    listed = [f"{name} ({kind})" if kind else name for kind, name in classes]
    shown = ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
    return NoLSTM(
        "the model has no LSTM layer",
        where=where,
        found=f"layers {shown or 'none'}",
        hint="; ".join(notes[:3]) or None,
    )

