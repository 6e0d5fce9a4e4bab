"""From a sketch and its arrays to a neutral layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, TypeVar

from lstmconvert.dtypes import name_of
from lstmconvert.keras import options, values
from lstmconvert.keras.cells import cell as build_cell
from lstmconvert.keras.era import Era
from lstmconvert.keras.inputs import Shape, fed
from lstmconvert.keras.masks import Mask, reaching
from lstmconvert.keras.nodes import Node
from lstmconvert.keras.sketch import CellSketch, DirectionSketch, LayerSketch
from lstmconvert.keras.stored import CUDNN, FLIPPED, CellArrays
from lstmconvert.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions
from lstmconvert.records import dataclass

AnyOptions = TypeVar("AnyOptions", DirectionOptions, LayerOptions)


@dataclass(frozen=True, slots=True)
class Context:
    """What a model says of its layers, by the `id` of a layer's JSON object.

    Fields: `masks`: whether a mask reaches it; `shapes`: what it is fed.
    """

    masks: Mapping[int, Mask] = field(default_factory=dict)
    shapes: Mapping[int, Shape] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Node) -> Context:
        """Read a model's config."""
        return cls(reaching(root), fed(root))


#: Gives the arrays of a cell.
Arrays = Callable[[CellSketch], CellArrays]


def layer(
    sketch: LayerSketch,
    arrays: Arrays,
    era: Era | None,
    name: str,
    context: Context | None = None,
) -> LSTMLayer:
    """Build one layer.

    Args:
        sketch: what the config, or the shapes, say of it.
        arrays: where its arrays are.
        era: the Keras that wrote the config; None without one: every option is unknown.
        name: its canonical name.
        context: what the model around it says of it.

    Raises:
        CorruptFile: config and arrays contradict each other.
    """
    directions = [_direction(part, arrays, era) for part in sketch.directions]
    if len(directions) > 1:
        directions = [_half(direction) for direction in directions]
    node = sketch.node
    outer = options.layer_options(node.config, era, name) if node and era else LayerOptions()
    context = context or Context()
    key = id(node.whole) if node else 0
    if era is not None:
        outer = _with_policy(outer, directions[0])
    return LSTMLayer(
        name=name,
        path=sketch.group or sketch.top,
        class_name=sketch.class_name,
        forward=directions[0],
        backward=directions[1] if len(directions) > 1 else None,
        options=replace(outer, masked=context.masks.get(key, UNKNOWN)),
        config=node.whole if node else None,
        input_shape=context.shapes.get(key),
    )


def _half(direction: Direction) -> Direction:
    """Return a direction as it is run in a Bidirectional, which decides what masked steps give
    (keras/src/layers/rnn/bidirectional.py, `force_zero_output_for_mask`; tf_keras likewise)."""
    known = direction.options
    return replace(
        direction, options=replace(known, zero_output_for_mask=known.return_sequences)
    )


def _direction(sketch: DirectionSketch, arrays: Arrays, era: Era | None) -> Direction:
    node = sketch.node
    direction = Direction(
        cells=tuple(_cell(part, arrays, era) for part in sketch.cells),
        options=DirectionOptions(),
        name=node.name if node else None,
        class_name=node.class_name if node else None,
    )
    if node is None or era is None:
        return direction
    known = options.direction_options(node.config, era, node.name)
    return replace(direction, options=_with_policy(known, direction))


def _with_policy(known: AnyOptions, direction: Direction) -> AnyOptions:
    """Fill in the policy that a config leaves out: Keras's float type then, which weights show."""
    if known.policy is not UNKNOWN or not direction.lstm_cells:
        return known
    return replace(known, policy=name_of(direction.lstm_cells[0].dtype))


def _cell(sketch: CellSketch, arrays: Arrays, era: Era | None) -> Cell | OpaqueCell:
    node, found = sketch.node, arrays(sketch)
    if not sketch.is_lstm:
        return OpaqueCell(
            class_name=sketch.class_name,
            name=node.name if node else None,
            config=node.whole if node else None,
            paths=tuple(one.path for one in found.arrays.values()),
            tensors=tuple(one.tensor for one in found.arrays.values()),
        )
    where = sketch.group or (node.name if node else "")
    known = (
        options.cell_options(node.config, era, where, sketch.class_name)
        if node and era
        else CellOptions()
    )
    cell = build_cell(
        found.arrays,
        known,
        where,
        turns=found.turns,
        name=node.name if node and sketch.own else None,
        class_name=sketch.class_name if sketch.own else None,
        units=_units(era.modern(node.config), where) if node and era else None,
    )
    if cell.stored_as == CUDNN:
        known = options.cudnn(known)
    if cell.stored_as.endswith(FLIPPED) and known.convolution is not None:
        known = options.theano(known)
    if era is not None and known.policy is UNKNOWN:
        known = replace(known, policy=name_of(cell.dtype))
    return replace(cell, options=replace(known, use_bias=cell.use_bias))


def _units(config: Mapping[str, Any], where: str) -> int | None:
    for key in ("units", "filters"):
        if key in config:
            return values.integer(config[key], f"{where}.{key}")
    return None
