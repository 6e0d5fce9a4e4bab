"""Sequences of several lengths in one batch, as Keras treats a mask that ends early.

Keras keeps the state at a masked step and repeats the last output there, or gives zeros with
zero_output_for_mask; a Bidirectional that returns sequences always gives zeros. The operator says
nothing of its output behind the end of a sequence, so all of that is computed around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lstmconvert.onnx.builder import Graph
from lstmconvert.onnx.types import NUMBERS

#: The default: longer than any sequence, so every sequence is whole.
_WHOLE = np.iinfo(np.int32).max
_INT32 = NUMBERS["int32"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of one batch, as values of a graph.

    Fields: `given`: (batch,) int32 from 0 to time; `positive`: the same, at least 1: what the
    operator is given; `is_valid`: (time, batch, 1), true within a sequence; `is_any` and
    `is_whole`: (batch, 1), whether a sequence has a step at all, and whether it has every step.
    """

    given: str
    positive: str
    is_valid: str
    is_any: str
    is_whole: str


def add(graph: Graph, layer: str, sizes: str, batch: str) -> Lengths:
    """Add the input `<layer>.lengths` and what follows from it.

    Args:
        graph: the graph.
        layer: the layer's name.
        sizes: the value (2,) int64: time and batch.
        batch: the name of the batch axis.
    """
    default = np.asarray([_WHOLE], np.int32)
    given = graph.input(f"{layer}.lengths", "int32", [f"{batch}_or_1"], default)
    time64 = graph.node("Gather", [sizes, graph.integers(0)], f"{layer}.time_64")
    time = graph.node("Cast", [time64], f"{layer}.time_32", to=_INT32)
    count = graph.node("Gather", [sizes, graph.integers(1)], f"{layer}.count")
    zero, one = graph.scalar(0, "int32"), graph.scalar(1, "int32")
    least = graph.node("Max", [given, zero], f"{layer}.lengths_from_0")
    most = graph.node("Min", [least, time], f"{layer}.lengths_to_time")
    each = graph.node("Expand", [most, count], f"{layer}.lengths_each")
    positive = graph.node("Max", [each, one], f"{layer}.lengths_from_1")
    column = graph.node("Unsqueeze", [each, graph.integers(1)], f"{layer}.lengths_column")
    end = graph.node("Squeeze", [time], f"{layer}.end")
    steps = graph.node("Range", [zero, end, one], f"{layer}.step_numbers")
    apart = graph.node("Unsqueeze", [steps, graph.integers(1, 2)], f"{layer}.step_column")
    return Lengths(
        given=each,
        positive=positive,
        is_valid=graph.node("Less", [apart, column], f"{layer}.is_valid"),
        is_any=graph.node("Greater", [column, zero], f"{layer}.is_any"),
        is_whole=graph.node("Equal", [column, time], f"{layer}.is_whole"),
    )
