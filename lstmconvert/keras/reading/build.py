"""From a sketch and its arrays to a neutral layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from lstmconvert.keras.configs import options, values
from lstmconvert.keras.configs.era import Era
from lstmconvert.keras.configs.nodes import Mask, Node, Shape, fed, reaching
from lstmconvert.keras.configs.sketch import CellSketch, DirectionSketch, LayerSketch
from lstmconvert.keras.stores.cells import cell as build_cell
from lstmconvert.keras.stores.stored import CUDNN, FLIPPED, CellArrays
from lstmconvert.model import wellformed
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.model.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions
from lstmconvert.tensors.dtypes import name_of

AnyOptions = TypeVar("AnyOptions", DirectionOptions, LayerOptions)


class Context(NamedTuple):
    """What a model says about its layers, by the `id` of a layer's JSON object.

    Fields: `masks`: whether a mask reaches it; `shapes`: what it is fed.
    """

    masks: Mapping[int, Mask] = {}
    shapes: Mapping[int, Shape] = {}

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
        directions = [_half(direction) for direction in directions]
    node = sketch.node
    outer = options.layer_options(node.config, era, name) if node and era else LayerOptions()
    context = context or Context()
    key = id(node.whole) if node else 0
    if era is not None:
        outer = _with_policy(outer, directions[0].lstm_cells)
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


def _half(direction: Direction) -> Direction:
    """Return a direction as it is run in a Bidirectional, which decides what masked steps give
    (keras/src/layers/rnn/bidirectional.py, `force_zero_output_for_mask`; tf_keras likewise)."""
    known = direction.options
    changed = options.changed(known, "zero_output_for_mask", known.return_sequences)
    return replace(direction, options=changed)


def _direction(sketch: DirectionSketch, arrays: Arrays, era: Era | None) -> Direction:
    node = sketch.node
    cells = tuple([_cell(part, arrays, era) for part in sketch.cells])
    known = _UNKNOWN
    if node is not None and era is not None:
        known = options.direction_options(node.config, era, node.name)
        known = _with_policy(known, [cell for cell in cells if isinstance(cell, Cell)])
    return Direction(
        cells=cells,
        options=known,
        name=node.name if node else None,
        class_name=node.class_name if node else None,
    )


#: Options that no file states.
_UNKNOWN = DirectionOptions()


def _with_policy(known: AnyOptions, cells: Sequence[Cell]) -> AnyOptions:
    """Fill in the policy that a config leaves out: Keras's float type then, which weights show."""
    if known.policy is not UNKNOWN or not cells:
        return known
    return options.changed(known, "policy", name_of(cells[0].dtype))


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
        units=units(era.modern(node.config), where) if node and era else None,
    )
    if cell.stored_as == CUDNN:
        known = options.cudnn(known)
    if cell.stored_as.endswith(FLIPPED) and known.convolution is not None:
        known = options.theano(known)
    if era is not None and known.policy is UNKNOWN:
        known = options.changed(known, "policy", name_of(cell.dtype))
    known = options.changed(known, "use_bias", cell.use_bias)
    return cell if cell.options is known else replace(cell, options=known)


def units(config: Mapping[str, Any], where: str) -> int | None:
    """Return the units that a layer's or cell's config states."""
    for key in ("units", "filters"):
        if key in config:
            return values.integer(config[key], f"{where}.{key}")
    return None
