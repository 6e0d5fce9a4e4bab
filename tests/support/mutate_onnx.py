"""Mutations of an ONNX graph that leave it a graph: swapped attributes, inputs, names, shapes."""

from __future__ import annotations

import random
from typing import Any

import onnx

_NUMBERS = (-1, 0, 1, 2, 3, 7, 8, 1 << 31, (1 << 63) - 1)
_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64, 0, 99)


def mutate(data: bytes, dice: random.Random) -> bytes:
    """A model with one to three of its parts exchanged, dropped or changed."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        dice.choice(_ALL)(model.graph, dice)
    return bytes(model.SerializeToString())


def _some(items: Any, dice: random.Random) -> Any:
    return dice.choice(list(items)) if items else None


def _attributes(graph: Any, dice: random.Random) -> None:
    found = [one for node in graph.node for one in node.attribute]
    one, two = _some(found, dice), _some(found, dice)
    if one is None:
        return
    match dice.randrange(3):
        case 0:
            name = one.name
            one.CopyFrom(two)
            one.name = name
        case 1:
            one.name, two.name = two.name, one.name
        case _:
            one.i, one.type = dice.choice(_NUMBERS), onnx.AttributeProto.INT


def _inputs(graph: Any, dice: random.Random) -> None:
    one, two = _some(graph.node, dice), _some(graph.node, dice)
    if one.input and two.input:
        index, other = dice.randrange(len(one.input)), dice.randrange(len(two.input))
        one.input[index], two.input[other] = two.input[other], one.input[index]


def _operators(graph: Any, dice: random.Random) -> None:
    one, two = _some(graph.node, dice), _some(graph.node, dice)
    one.op_type, two.op_type = two.op_type, one.op_type


def _shapes(graph: Any, dice: random.Random) -> None:
    tensor = _some(graph.initializer, dice)
    if tensor.dims and dice.random() < 0.7:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(_NUMBERS)
    else:
        tensor.dims.append(dice.choice(_NUMBERS))


def _tensors(graph: Any, dice: random.Random) -> None:
    one, two = _some(graph.initializer, dice), _some(graph.initializer, dice)
    match dice.randrange(4):
        case 0:
            one.name, two.name = two.name, one.name
        case 1:
            one.raw_data = two.raw_data
        case 2:
            one.data_type = dice.choice(_TYPES)
        case _:
            one.float_data.extend([1.0] * dice.randrange(4))


def _gone(graph: Any, dice: random.Random) -> None:
    holder = dice.choice([one for one in (graph.node, graph.initializer, graph.input) if one])
    item = dice.choice(list(holder))
    if dice.random() < 0.6:
        holder.remove(item)
    else:
        holder.append(item)


_ALL = (_attributes, _attributes, _inputs, _operators, _shapes, _tensors, _gone)
