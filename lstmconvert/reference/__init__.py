"""The forward pass of a layer in NumPy, which conversions are checked against.

It follows inference in Keras (keras/src/layers/rnn, keras/src/backend/tensorflow/rnn.py): no
dropout, no regularisation. It computes in float32 or float64 and nothing else: weights stored in
16 bits are widened, exactly. A layer under `mixed_float16` or `mixed_bfloat16` keeps float32
weights and rounds every step to 16 bits in Keras; here those steps are not rounded, so such a
layer agrees with Keras to 16-bit accuracy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import Direction, LSTMLayer
from lstmconvert.reference.cells import States, Step, known, run_direction
from lstmconvert.tensors.dtypes import Array, DType

__all__ = ["Outputs", "Trace", "run", "trace"]

#: How a Bidirectional joins its halves (keras/src/layers/rnn/bidirectional.py, `call`).
_MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "concat": lambda forward, backward: np.concatenate((forward, backward), axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a layer returns.

    Fields: `outputs`, one array, or the two of a Bidirectional without merge_mode, each
    (batch, units), or (batch, time, units) with return_sequences; `states`, the final states,
    whether or not the layer returns them: hidden and cell of each cell, the forward cells first.
    `states` of one call is `initial_state` of the next, for a stateful layer.
    """

    outputs: tuple[Array, ...]
    states: tuple[Array, ...]


@np.errstate(all="ignore")  # NaN and infinity go through, as they do in every framework
def run(
    layer: LSTMLayer,
    x: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    initial_state: Sequence[ArrayLike] | None = None,
    dtype: DTypeLike | None = None,
) -> Outputs:
    """Return the outputs of the layer for `x`, as Keras's layer computes them.

    Args:
        layer: the layer, with every option that matters known.
        x: (batch, time, input_dim), or (batch, time, *spatial, channels) for ConvLSTM, with the
            channels first if its data_format says so; (time, batch, …) if the layer is known to
            be time_major.
        mask: (batch, time), or (time, batch) if time_major: false where a step is to be skipped.
            A skipped step keeps the state and repeats the previous output, zero before the first,
            or is zero itself with zero_output_for_mask, which Bidirectional sets to
            return_sequences.
        initial_state: hidden and cell state of each cell, the forward cells first; by default
            what the cell stores as initial_hidden and initial_cell, else zero.
        dtype: float32 or float64; by default float64 if some weight is, else float32.

    Raises:
        UnknownOption: an option that matters is unknown.
        UnsupportedByTarget: a cell of another kind, layer normalisation, an unknown activation.
        UsageError: the shapes of the arguments do not fit the layer.
    """
    compute = _compute_dtype(layer, dtype)
    sequence = np.asarray(x, dtype=compute)
    steps = None if mask is None else np.asarray(mask, dtype=bool)
    given = _split_states(layer, initial_state)
    outputs: list[Array] = []
    states: list[Array] = []
    for (side, direction), start in zip(layer.directions, given, strict=True):
        output, final = run_direction(layer, direction, sequence, steps, start)
        outputs.append(output if side == "forward" else _turned(layer, output))
        states.extend(final)
    return Outputs(_merged(layer, outputs), tuple(states))


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What one cell does at each step of one sequence, in the order of the input's steps.

    Fields: `gates`: gate -> (time, …, units), after their functions; `carry`, the cell state, and
    `hidden`, the output, after each step: (time, …, units), of a projection (time, projected).
    """

    gates: dict[Gate, Array]
    carry: Array
    hidden: Array


@np.errstate(all="ignore")
def trace(
    layer: LSTMLayer, x: ArrayLike, *, mask: ArrayLike | None = None, dtype: DTypeLike | None = None
) -> dict[tuple[str, int], Trace]:
    """Return what happens inside a layer: (direction, index of the cell) -> its trace.

    Args:
        layer: the layer, with every option that matters known.
        x: one sequence (time, input_dim); for ConvLSTM (time, *spatial, channels), or with the
            channels first if its data_format says so.
        mask: (time,), false where a step is skipped: the states stay, and the gates listed there
            have no meaning.
        dtype: float32 or float64; by default float64 if some weight is, else float32.

    Raises:
        UnknownOption, UnsupportedByTarget, UsageError: as `run`.
    """
    sequence = np.asarray(x, dtype=_compute_dtype(layer, dtype))[None]
    steps = None if mask is None else np.asarray(mask, dtype=bool)[None]
    traces: dict[tuple[str, int], Trace] = {}
    for side, direction in layer.directions:
        is_time_major = bool(direction.options.time_major)
        record: dict[int, list[Step]] = {}
        run_direction(
            layer,
            direction,
            np.swapaxes(sequence, 0, 1) if is_time_major else sequence,
            np.swapaxes(steps, 0, 1) if is_time_major and steps is not None else steps,
            None,
            record,
        )
        turn = -1 if direction.options.go_backwards else 1
        for index, taken in record.items():
            traces[side, index] = Trace(
                {gate: np.stack([step.gates[gate][0] for step in taken])[::turn] for gate in GATES},
                np.stack([step.carry[0] for step in taken])[::turn],
                np.stack([step.hidden[0] for step in taken])[::turn],
            )
    return traces


def _compute_dtype(layer: LSTMLayer, dtype: DTypeLike | None) -> DType:
    if dtype is None:
        wide = any(cell.dtype.name == "float64" for _, _, cell in layer.cells())
        return np.dtype("float64" if wide else "float32")
    asked = np.dtype(dtype)
    if asked.name not in ("float32", "float64"):
        raise UsageError(
            "the forward pass does not compute in this dtype",
            where=layer.name,
            found=asked.name,
            expected="float32 or float64",
        )
    return asked


def _split_states(layer: LSTMLayer, given: Sequence[ArrayLike] | None) -> list[States | None]:
    sides = [direction for _, direction in layer.directions]
    if given is None:
        return [None] * len(sides)
    count = sum(_state_count(side) for side in sides)
    if len(given) != count:
        raise UsageError(
            "the initial state is not one hidden and one cell state for each cell",
            where=layer.name,
            found=f"{len(given)} arrays",
            expected=count,
        )
    rest = iter(given)
    return [[np.asarray(next(rest)) for _ in range(_state_count(side))] for side in sides]


def _state_count(direction: Direction) -> int:
    return 2 * len(direction.cells)


def _turned(layer: LSTMLayer, output: Array) -> Array:
    """Put the backward half's output into the forward half's order of time."""
    forward = layer.forward.options
    if not known(layer, "return_sequences", forward.return_sequences):
        return output
    return np.flip(output, axis=0 if forward.time_major else 1)


def _merged(layer: LSTMLayer, outputs: list[Array]) -> tuple[Array, ...]:
    if layer.backward is None:
        return tuple(outputs)
    mode = known(layer, "merge_mode", layer.options.merge_mode)
    if mode is None:
        return tuple(outputs)
    if mode not in _MERGES:
        raise UnsupportedByTarget(
            "no such merge_mode",
            layer=layer.name,
            option="merge_mode",
            target="reference",
            where=layer.name,
            found=mode,
            expected=", ".join(_MERGES),
        )
    return (_MERGES[mode](*outputs),)
