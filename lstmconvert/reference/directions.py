"""One direction of a layer run over time: order of time, masks, and stacks of cells."""

from __future__ import annotations

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.reference.cells import CellRun, known, over_rows

#: Hidden and cell state of each cell in turn.
States = list[Array]


def run_direction(
    layer: LSTMLayer, direction: Direction, x: Array, mask: Array | None, given: States | None
) -> tuple[Array, States]:
    """Return the output of one direction and the final states of its cells.

    Args:
        layer: the layer the direction belongs to.
        direction: the cells and how they are run.
        x: (batch, time, …), or (time, batch, …) if time_major.
        mask: (batch, time), or (time, batch) if time_major.
        given: hidden and cell state of each cell, or None for the cells' own start.
    """
    # An unknown time_major is batch-major: only Keras 2 has the option, and it is off by default.
    time_major = bool(direction.options.time_major)
    sequence = _time_first(x, time_major)
    steps = None if mask is None else _time_first(mask, time_major)
    if steps is not None:
        _check_mask(layer, steps, sequence)
    if known(layer, "go_backwards", direction.options.go_backwards):
        sequence = sequence[::-1]
        steps = None if steps is None else steps[::-1]
    hidden, states = _run_cells(layer, direction, sequence, steps, given)
    if steps is not None:
        hidden = _masked(hidden, steps, _zero_output_for_mask(layer, direction))
    if direction.options.keeps_time_order and direction.options.go_backwards:
        if not known(layer, "return_sequences", direction.options.return_sequences):
            return hidden[-1], states
        hidden = hidden[::-1]
    return _last_or_all(layer, hidden, time_major), states


def _run_cells(
    layer: LSTMLayer,
    direction: Direction,
    sequence: Array,
    mask: Array | None,
    given: States | None,
) -> tuple[Array, States]:
    # Keras runs all cells of a stack at each step; one cell after another over the whole sequence
    # is the same, because a cell only ever sees the step it is at. What a lower cell says at a
    # masked step does not matter: the cells above are masked there too.
    states: States = []
    for index, cell in enumerate(direction.cells):
        start = None if given is None else (given[2 * index], given[2 * index + 1])
        sequence, hidden, carry = CellRun(layer, _lstm(layer, cell), sequence.dtype).over(
            sequence, mask, start
        )
        states += [hidden, carry]
    return sequence, states


def _lstm(layer: LSTMLayer, cell: Cell | OpaqueCell) -> Cell:
    if isinstance(cell, Cell):
        return cell
    raise UnsupportedByTarget(
        "the forward pass knows LSTM cells only",
        layer=layer.name,
        option="cell",
        target="reference",
        where=layer.name,
        found=cell.class_name,
        expected="an LSTM cell",
    )


def _time_first(array: Array, time_major: bool) -> Array:
    return array if time_major or array.ndim < 2 else np.swapaxes(array, 0, 1)


def _last_or_all(layer: LSTMLayer, hidden: Array, time_major: bool) -> Array:
    # Keras wants both halves of a Bidirectional to return the same; the forward one speaks.
    if known(layer, "return_sequences", layer.forward.options.return_sequences):
        return _time_first(hidden, time_major)
    last: Array = hidden[-1]
    return last


def _zero_output_for_mask(layer: LSTMLayer, direction: Direction) -> bool:
    if layer.backward is not None:
        # keras/src/layers/rnn/bidirectional.py, `force_zero_output_for_mask`
        return known(layer, "return_sequences", layer.forward.options.return_sequences)
    return known(layer, "zero_output_for_mask", direction.options.zero_output_for_mask)


def _masked(hidden: Array, mask: Array, zero: bool) -> Array:
    """Put the previous output, or zero, in the place of masked steps: (time, batch, …)."""
    outputs = np.zeros_like(hidden)
    previous = np.zeros_like(hidden[0])
    for step, keep in enumerate(mask):
        outputs[step] = np.where(over_rows(keep, previous), hidden[step], previous)
        previous = previous if zero else outputs[step]
    return outputs


def _check_mask(layer: LSTMLayer, mask: Array, sequence: Array) -> None:
    if mask.shape != sequence.shape[:2]:
        raise UsageError(
            "the mask does not have one entry for each step of each sequence",
            where=layer.name,
            found=f"{mask.shape} (time, batch)",
            expected=f"{sequence.shape[:2]}",
        )
