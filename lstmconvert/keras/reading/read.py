"""From a weight store and, where there is one, a config to a model's layers.

A sketch, which the config or the store gives, and its arrays become one neutral layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from lstmconvert.errors import CorruptFile, NoLSTM, NotAModel
from lstmconvert.files.jsontext import parse
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.keras.configs import options, values
from lstmconvert.keras.configs.era import Era, era_of, is_config, modern_keras0
from lstmconvert.keras.configs.nodes import (
    PEEPHOLE_CELL,
    ConfigNode,
    Mask,
    Shape,
    fed,
    node,
    reaching,
)
from lstmconvert.keras.configs.sketch import (
    CellSketch,
    ConfigSketch,
    DirectionSketch,
    LayerSketch,
    plan,
)
from lstmconvert.keras.stores import legacy, v3store
from lstmconvert.keras.stores.stored import CUDNN, FLIPPED, CellArrays, by_role, not_plain
from lstmconvert.keras.stores.stored import cell as build_cell
from lstmconvert.model import wellformed
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.model.model import Structure
from lstmconvert.model.naming import layer_names
from lstmconvert.model.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions
from lstmconvert.tensors.dtypes import name_of
from lstmconvert.tensors.tensor import Tensor

# -- from a sketch to a layer --------------------------------------------------------------------


AnyOptions = TypeVar("AnyOptions", DirectionOptions, LayerOptions)


class Context(NamedTuple):
    """What a model says about its layers, by the `id` of a layer's JSON object.

    Fields: `masks`: whether a mask reaches it; `shapes`: what it is fed.
    """

    masks: Mapping[int, Mask] = {}
    shapes: Mapping[int, Shape] = {}

    @classmethod
    def of(cls, root: ConfigNode) -> Context:
        """Read a model's config."""
        return cls(reaching(root), fed(root))


#: Gives the arrays of a cell.
Arrays = Callable[[CellSketch], CellArrays]


def build_layer(
    sketch: LayerSketch,
    arrays: Arrays,
    era: Era | None,
    name: str,
    context: Context | None = None,
) -> LSTMLayer:
    """Build one layer.

    Args:
        sketch: what the config, or the shapes, say about it.
        arrays: where its arrays are.
        era: the Keras that wrote the config; None without one: every option is unknown.
        name: its canonical name.
        context: what the model around it says about it.

    Raises:
        CorruptFile: config and arrays contradict each other.
    """
    directions = [_direction(part, arrays, era) for part in sketch.directions]
    if len(directions) > 1:
        directions = [_half(direction, era) for direction in directions]
    node = sketch.node
    outer = options.layer_options(node.config, era, name) if node and era else LayerOptions()
    context = context or Context()
    key = id(node.whole) if node else 0
    if era is not None:
        outer = _with_policy(outer, directions[0].cells)
    result = LSTMLayer(
        name=name,
        path=sketch.group or sketch.top,
        class_name=sketch.class_name,
        forward=directions[0],
        backward=directions[1] if len(directions) > 1 else None,
        options=options.changed(outer, "masked", context.masks.get(key, UNKNOWN)),
        config=node.whole if node else None,
        input_shape=context.shapes.get(key),
    )
    wellformed.check_layer(result, name)
    return result


def _half(direction: Direction, era: Era | None) -> Direction:
    """Return a direction as it is run in a Bidirectional, which decides what masked steps give
    (keras/src/layers/rnn/bidirectional.py, `force_zero_output_for_mask`; tf_keras likewise, but
    that its ConvLSTM knows no such option: base_conv_rnn.py, `call`)."""
    known = direction.options
    if era is not None and era.name != "keras3" and direction.is_convolutional:
        return direction
    changed = options.changed(known, "zero_output_for_mask", known.return_sequences)
    return replace(direction, options=changed)


def _direction(sketch: DirectionSketch, arrays: Arrays, era: Era | None) -> Direction:
    node = sketch.node
    cells = tuple([_cell(part, arrays, era) for part in sketch.cells])
    known = _UNKNOWN
    if node is not None and era is not None:
        known = options.direction_options(node.config, era, node.name)
        known = _with_policy(known, cells)
    return Direction(
        cells=cells,
        options=known,
        name=node.name if node else None,
        class_name=node.class_name if node else None,
    )


#: Options that no file states.
_UNKNOWN = DirectionOptions()


def _with_policy(known: AnyOptions, cells: Sequence[Cell | OpaqueCell]) -> AnyOptions:
    """Fill in the policy that a config leaves out: Keras's float type then, which weights show."""
    if known.policy is not UNKNOWN:
        return known
    first = next((cell for cell in cells if isinstance(cell, Cell)), None)
    return known if first is None else options.changed(known, "policy", name_of(first.dtype))


def _cell(sketch: CellSketch, arrays: Arrays, era: Era | None) -> Cell | OpaqueCell:
    node, stored = sketch.node, arrays(sketch)
    if not sketch.is_lstm:
        return OpaqueCell(
            class_name=sketch.class_name,
            name=node.name if node else None,
            config=node.whole if node else None,
            paths=tuple(array.path for array in stored.arrays.values()),
            tensors=tuple(array.tensor for array in stored.arrays.values()),
        )
    where = sketch.group or (node.name if node else "")
    known = (
        options.cell_options(node.config, era, where, sketch.class_name)
        if node and era
        else CellOptions()
    )
    cell = build_cell(
        stored.arrays,
        known,
        where,
        turns=stored.turns,
        name=node.name if node and sketch.is_separate else None,
        class_name=sketch.class_name if sketch.is_separate else None,
        units=units_of(era.modern(node.config), where) if node and era else None,
    )
    if cell.stored_as == CUDNN:
        known = options.cudnn(known)
    if cell.stored_as.endswith(FLIPPED) and known.convolution is not None:
        known = options.theano(known)
    if era is not None and known.policy is UNKNOWN:
        known = options.changed(known, "policy", name_of(cell.dtype))
    known = options.changed(known, "use_bias", cell.use_bias)
    return cell if cell.options is known else replace(cell, options=known)


def units_of(config: Mapping[str, Any], where: str) -> int | None:
    """Return the units that a layer's or cell's config states."""
    for key in ("units", "filters"):
        if key in config:
            return values.integer(config[key], f"{where}.{key}")
    return None


# -- from a store to layers ----------------------------------------------------------------------


#: A group of an HDF5 file that another program wrote -> what the file is, and what to do.
OTHER_HDF5 = {
    "RNN_0/RNN/MultiRNNCell": (
        "weights of ELMo, which are not read",
        "give the checkpoint of bilm-tf that they are of: TensorFlow 1's cells are read",
    ),
}


class StoreContent(NamedTuple):
    """What a weight store holds: layers, all other tensors by full path, the optimizer's slots,
    what it takes to write the store anew, notes for the user, and where there is no LSTM layer the
    error that says so."""

    layers: tuple[LSTMLayer, ...]
    other: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    structure: Structure
    notes: tuple[str, ...]
    absent: NoLSTM | None = None


_WINDOWS = (
    "written on Windows by Keras 2.12 to 2.15, which named its groups in a way that no Keras finds "
    "on other systems; what is written from it opens everywhere"
)


class ParsedConfig(NamedTuple):
    """A parsed model config and the era it was written in."""

    root: ConfigNode
    era: Era


#: Keys under which a layer holds layers, which `Context` tells apart by the objects that they are.
_TOLD_APART = frozenset({"layer", "backward_layer", "layers", "cell", "cells"})
#: Text and stated version -> what was parsed from them.
ParsedConfigs = dict[tuple[str | bytes, str | None], ParsedConfig]
_parsed: ContextVar[ParsedConfigs | None] = ContextVar("_parsed", default=None)


@contextlib.contextmanager
def parsing_once(parsed: ParsedConfigs) -> Iterator[None]:
    """Parse each config once in the block: the text of thousands of layers is asked for again.

    Args:
        parsed: what was parsed in such blocks. Nobody may change it.
    """
    token = _parsed.set(parsed)
    try:
        yield
    finally:
        _parsed.reset(token)


def parse_config(text: str | bytes, version: str | None, where: object) -> ParsedConfig:
    """Parse a model's config.

    Raises:
        CorruptFile: it is not JSON, or no serialized model.
    """
    parsed = _parsed.get()
    if parsed is None:
        return _parse_config(text, version, where)
    if (text, version) not in parsed:
        parsed[text, version] = _parse_config(text, version, where)
    return parsed[text, version]


def _parse_config(text: str | bytes, version: str | None, where: object) -> ParsedConfig:
    value = parse(text, where, _TOLD_APART)
    if is_config(value):
        value = modern_keras0(value)
    if isinstance(value, list):  # Keras 0.x
        value = {"class_name": "Sequential", "config": value}
    stated = value.get("keras_version") if isinstance(value, dict) else None
    version = version or (stated if isinstance(stated, str) else None)
    if isinstance(value, dict) and "model_config" in value and "class_name" not in value:
        value = value["model_config"]
    return ParsedConfig(node(value, str(where)), era_of(version, value))


def read(tree: StoredTree, config: ParsedConfig | None, where: object) -> StoreContent:
    """Read the layers of a weight store of either kind.

    Args:
        tree: the store.
        config: the model's config, if there is one.
        where: the file, for errors.

    Raises:
        NoLSTM: it holds no LSTM layer, and there is no config that says what it is; the error lists
            what it holds.
        NotAModel: it is not a weight store.
        CorruptFile: config and store contradict each other.
    """
    if legacy.is_legacy(tree):
        return _read_legacy(legacy.read_store(tree, where), config, where)
    if v3store.is_v3(tree):
        portable = v3store.of_windows(tree, where)
        content = _read_v3(v3store.read_store(portable or tree, where), config, where)
        return content if portable is None else content._replace(notes=(*content.notes, _WINDOWS))
    for group, (what, hint) in OTHER_HDF5.items():
        if group in tree.groups:
            raise NotAModel(what, where=where, hint=hint)
    raise NotAModel(
        "an HDF5 file, and not one that Keras wrote",
        where=where,
        found=f"groups {', '.join(sorted(tree.groups)[1:6]) or 'none'}",
        expected="layer_names and weight_names attributes, or groups called vars",
        hint="save the model or its weights with Keras: other HDF5 files are not read",
    )


def _read_v3(store: v3store.V3Store, config: ParsedConfig | None, where: object) -> StoreContent:
    result = plan(config.root, store.container, store.groups) if config else ConfigSketch()
    notes = list(result.notes)
    era = config.era if config else None
    located = [_located(sketch, store, where) for sketch in result.layers if sketch.has_lstm]
    described = [sketch for sketch in located if sketch is not None and _fits(sketch, store)]
    kept = set(map(id, described))
    for sketch in result.layers:
        if id(sketch) not in kept and sketch.foreign_cell is not None:
            paths = _paths_below(store, sketch.group)
            notes.append(not_plain(sketch.name, sketch.foreign_cell.class_name, paths))
    inferred = _inferred(store, result, notes, where, whole=config is None)
    sketches = [*((sketch, era) for sketch in described), *((sketch, None) for sketch in inferred)]
    absent = None
    if not sketches:
        absent = _no_lstm(where, result.classes or _groups(store), notes)
        if config is None:
            raise absent
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
        build_layer(sketch, arrays, era, name, context)
        for (sketch, era), name in zip(sketches, names, strict=True)
    )
    structure = Structure(kind="v3", names=_groups_and_names(store))
    content = _content(layers, store.tensors, v3store.OPTIMIZER, structure, notes)
    return content._replace(absent=absent)


def _groups_and_names(store: v3store.V3Store) -> dict[str, str]:
    """Return the name of every group that may hold arrays, empty where it has none: tf_keras looks
    for the groups of layers that have no weights, too."""
    holders = [v3store.holder(path) for path in store.groups if path.endswith("vars")]
    groups = [group for group in holders if group is not None]
    named = sorted([group for group in groups if group.partition("/")[0] != v3store.OPTIMIZER])
    return dict.fromkeys(named, "") | store.names


def _inferred(
    store: v3store.V3Store, result: ConfigSketch, notes: list[str], where: object, *, whole: bool
) -> list[LayerSketch]:
    """Sketch what no config describes: the whole store, or the custom layers of a plan."""
    if not whole and not result.custom:
        return []
    from lstmconvert.keras.stores import (
        infer,  # not needed for most files, nor is legacycells below
    )

    if whole:
        return infer.layers(store, where, notes)
    sketches: list[LayerSketch] = []
    for custom in result.custom:
        name, group = custom.name, custom.group
        below = [f"{group}/{part}".strip("/") for part in ("cell", "forward_layer", "layer")]
        is_recurrent = (
            custom.is_recurrent
            or infer.kind(store, group) == len(GATES)
            or any(store.below(part) for part in below)
        )
        inside: list[LayerSketch] = []
        if not is_recurrent:
            inside = infer.layers(store, where, notes, group, name if group else "")
        sketches.extend(inside)
        if is_recurrent or not inside:
            notes.append(not_plain(name, custom.node.class_name, _paths_below(store, group)))
    return sketches


def _paths_below(store: v3store.V3Store, group: str) -> list[str]:
    paths = [stored.path for stored in store.arrays_below(group)]
    return [path.removeprefix(f"{group}/") for path in paths]


def _fits(sketch: LayerSketch, store: v3store.V3Store) -> bool:
    """Whether the cells whose class may be anyone's have the arrays of what that class is."""
    cells = [cell for cell in sketch.cells if cell.class_name == PEEPHOLE_CELL]
    if not cells:
        return True
    from lstmconvert.keras.stores import infer  # most files need neither this nor legacycells

    return all(infer.has_peepholes(store, cell.group) for cell in cells)


def _located(sketch: LayerSketch, store: v3store.V3Store, where: object) -> LayerSketch | None:
    """Return the sketch if the store has its group, None if another layer shares its weights."""
    # Most have a cell with arrays, and then no index of the groups below each other is made.
    if any(cell.group in store.vars for cell in sketch.cells) or store.below(sketch.group):
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


def _read_legacy(
    store: legacy.LegacyStore, config: ParsedConfig | None, where: object
) -> StoreContent:
    from lstmconvert.keras.stores import legacycells

    result = plan(config.root) if config else legacycells.infer(store, where)
    if config:
        legacycells.name_unnamed(store, result)
    inside = legacycells.inside(store, result) if config else ConfigSketch()
    recurrent = [sketch for sketch in result.layers if sketch.has_lstm]
    described = [s for s in recurrent if legacycells.peepholes_fit(store, s)]
    kept = set(map(id, described))
    inferred = [sketch for sketch in inside.layers if sketch.has_lstm]
    notes = [*result.notes, *inside.notes]
    for sketch in result.layers:
        if id(sketch) not in kept and sketch.foreign_cell is not None:
            listed = store.names.get(sketch.top, ())
            below = [name.removeprefix(f"{sketch.top}/") for name in listed]
            notes.append(not_plain(sketch.name, sketch.foreign_cell.class_name, below))
    absent = None
    if not described and not inferred:
        absent = _no_lstm(where, result.classes, notes)
        if config is None:
            raise absent
    era = config.era if config else None
    arrays = legacycells.LegacyArrays(store, result, where)
    others = legacycells.LegacyArrays(store, inside, where)
    sketches = [
        *((sketch, arrays, era) for sketch in described),
        *((sketch, others, None) for sketch in inferred),
    ]
    names = layer_names(sketch.name for sketch, _, _ in sketches)
    context = Context.of(config.root) if config else None
    layers = tuple(
        build_layer(sketch, source, version, name, context)
        for (sketch, source, version), name in zip(sketches, names, strict=True)
    )
    structure = Structure(
        kind="legacy", attributes=store.attributes, weights=store.names, root=store.root
    )
    content = _content(layers, store.tensors, legacy.OPTIMIZER, structure, notes)
    return content._replace(absent=absent)


def _content(
    layers: tuple[LSTMLayer, ...],
    tensors: Mapping[str, Tensor],
    optimizer: str,
    structure: Structure,
    notes: list[str],
) -> StoreContent:
    cells = [cell for layer in layers for _, _, cell in layer.cells()]
    used = {path for cell in cells for path in cell.places.values()}
    below = f"{optimizer}/"
    slots = {path for path in tensors if path.startswith(below) or path == optimizer}
    rest = {path: tensor for path, tensor in tensors.items() if path not in used}
    return StoreContent(
        layers,
        {path: tensor for path, tensor in rest.items() if path not in slots},
        {path: tensor for path, tensor in rest.items() if path in slots},
        structure._replace(paths=frozenset(tensors.keys() - slots)),
        (*notes, *opaque_notes(layers)),
    )


def opaque_notes(layers: tuple[LSTMLayer, ...]) -> list[str]:
    """Return a note on each cell of a layer that is not an LSTM and is kept as it is."""
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
