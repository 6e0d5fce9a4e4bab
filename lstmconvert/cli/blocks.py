"""The cells of a layer, as the pieces that a report explains one by one."""

from __future__ import annotations

from collections.abc import Iterator

from lstmconvert import optionjson
from lstmconvert.layer import Cell, Direction, LSTMLayer
from lstmconvert.records import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One cell to explain: its layer, direction and place, and how many are just like it."""

    layer: LSTMLayer
    label: str
    name: str
    direction: Direction
    cell: Cell
    count: int = 1


def blocks_of(layer: LSTMLayer) -> Iterator[Block]:
    """Yield a layer's cells; of two halves that are just alike, the forward one."""
    forward, backward = layer.forward, layer.backward
    if backward is not None and _alike(forward, backward):
        for block in of_direction(layer, "forward", forward):
            label = block.label.replace("forward", "forward and backward, alike", 1)
            yield Block(layer, label, "forward", forward, block.cell, 2)
        return
    yield from every_block(layer)


def every_block(layer: LSTMLayer) -> Iterator[Block]:
    """Yield all of a layer's cells."""
    for name, direction in layer.directions:
        yield from of_direction(layer, name, direction)


def of_direction(layer: LSTMLayer, name: str, direction: Direction) -> Iterator[Block]:
    """Yield the cells of one direction."""
    for index, cell in enumerate(direction.cells):
        labels = [name] if layer.backward is not None else []
        labels += [f"cells.{index}"] if len(direction.cells) > 1 else []
        if isinstance(cell, Cell):
            yield Block(layer, ".".join(labels), name, direction, cell)


def _alike(one: Direction, two: Direction) -> bool:
    if len(one.cells) != len(two.cells):
        return False
    for a, b in zip(one.cells, two.cells, strict=True):
        if not isinstance(a, Cell) or not isinstance(b, Cell) or kind(a) != kind(b):
            return False
    turned = one.options.go_backwards is not True and two.options.go_backwards is not False
    rest_a, rest_b = optionjson.to_json(one.options), optionjson.to_json(two.options)
    return turned and {**rest_a, "go_backwards": None} == {**rest_b, "go_backwards": None}


def kind(cell: Cell) -> object:
    """What makes two cells look the same: shapes, dtypes and options."""
    tensors = [(name, tensor.shape, tensor.dtype.name) for name, tensor in cell.tensors()]
    return tensors, optionjson.to_json(cell.options)
