"""What each unit of a cell is like: memory, norms, and what is unusual about it, by stated rules.

Nothing here is a guess. A rule that does not hold for a cell (an unbounded output, a function that
no file names) is left out, and `Units.left_out` says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lstmconvert.errors import LSTMConvertError
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import Cell
from lstmconvert.model.options import UNKNOWN, Unknown
from lstmconvert.pictures.survey import COMPARED_UNITS, Survey
from lstmconvert.reference.maths import apply
from lstmconvert.tensors.dtypes import Array

#: A gate is stuck if it never leaves this distance from its bounds 0 and 1.
STUCK = 0.01
#: Functions from 0 to 1 that never fall, and functions whose answers are in [-1, 1].
_RISING = ("sigmoid", "hard_sigmoid")
_BOUNDED = ("tanh", "sigmoid", "hard_sigmoid", "softsign", "hard_tanh", "softmax", "sparsemax")
#: The vectors of a gate that are added before its function.
_BIASES = ("bias", "recurrent_bias")


@dataclass(slots=True)
class Units:
    """Facts of each unit.

    Fields: `forget_bias` (units,) or None; `half_life` (units,), in steps, or None; `norms`: gate
    -> (units,); `read_by` (units,) or None; `flags`: unit -> its unusual traits; `left_out`:
    the statements that are not made about this cell, and why.
    """

    forget_bias: Array | None
    half_life: Array | None
    norms: dict[Gate, Array]
    read_by: Array | None
    flags: dict[int, list[str]]
    left_out: list[str]


def units_of(surveyed: Survey) -> Units:
    """Return the facts of a cell's units."""
    result = Units(
        forget_bias=_bias(surveyed, Gate.FORGET),
        half_life=None,
        norms={gate: np.sqrt(known.squares) for gate, known in surveyed.gates.items()},
        read_by=None if surveyed.read_by is None else np.sqrt(surveyed.read_by),
        flags={},
        left_out=[],
    )
    result.half_life = _half_lives(surveyed.cell, result)
    if "projection" in surveyed.cell.parts:
        result.left_out.append("read by others: a recurrent row is a projected output here")
    flags: list[tuple[int, str]] = []
    flags += [(unit, "not finite") for unit in _where_not_finite(surveyed)]
    flags += [(unit, "dead") for unit in _dead(surveyed)]
    flags += _stuck(surveyed, result)
    for unit, (other, is_exact) in surveyed.twins.items():
        flags.append((unit, f"twin of {other}" + (", same bits" if is_exact else "")))
    if surveyed.units > COMPARED_UNITS:
        result.left_out.append(
            f"twins are only those with the same bits, above {COMPARED_UNITS:,} units"
        )
    for unit, text in flags:
        result.flags.setdefault(unit, []).append(text)
    return result


def _bias(surveyed: Survey, gate: Gate) -> Array | None:
    """Return all that is added to a gate whatever comes in, (units,); None if nothing is stored."""
    vectors = surveyed.gates[gate].vectors
    stored = [vectors[part].astype(np.float64) for part in _BIASES if part in vectors]
    if not stored:
        return None
    total: Array = np.sum(stored, axis=0)
    return total


def _half_lives(cell: Cell, units: Units) -> Array | None:
    """ln 0.5 / ln f, f the forget gate with no input and no output fed back."""
    function, added = cell.options.recurrent_activation, cell.options.forget_bias
    if isinstance(function, Unknown) or isinstance(added, Unknown):
        units.left_out.append("half-life: the file does not say the forget gate's function")
        return None
    if "layer_norm" in cell.gate_parts:
        units.left_out.append("half-life: the gates are normalised before their function")
        return None
    bias = units.forget_bias
    if bias is None:
        bias = np.zeros(cell.units)
    return half_life(function, bias + float(added), units)


def half_life(function: Activation, z: Array, units: Units) -> Array | None:
    """Return after how many steps half of a state is left, (units,), at forget gates f(z)."""
    try:
        kept = apply(function, z)
    except LSTMConvertError as error:
        units.left_out.append(f"half-life: {error.message}")
        return None
    return steps_of(kept)


def steps_of(kept: Array) -> Array:
    """Return ln 0.5 / ln f: infinite where f is 1 and more, 0 where it is 0 and less."""
    with np.errstate(all="ignore"):
        steps = math.log(0.5) / np.log(kept)
    return np.where(kept >= 1, np.inf, np.where(kept <= 0, 0.0, steps))


def _where_not_finite(surveyed: Survey) -> list[int]:
    is_finite = np.logical_and.reduce([gate.is_finite for gate in surveyed.gates.values()])
    return [int(unit) for unit in np.flatnonzero(~is_finite)]


def _dead(surveyed: Survey) -> list[int]:
    """Units whose output is zero for every input, from a zero state: nothing new ever enters."""
    function = surveyed.cell.options.activation
    if not isinstance(function, Activation):
        return []
    try:
        at_zero = float(apply(function, np.zeros(1))[0])
    except LSTMConvertError:
        return []
    if at_zero != 0 or "projection_bias" in surveyed.cell.parts:
        return []
    return [int(unit) for unit in np.flatnonzero(surveyed.gates[Gate.CELL].is_zero)]


def _stuck(surveyed: Survey, units: Units) -> list[tuple[int, str]]:
    """Gates that no input in [-1, 1] moves away from open or shut."""
    reason = _why_not_bounded(surveyed.cell)
    function, added = surveyed.cell.options.recurrent_activation, surveyed.cell.options.forget_bias
    if reason or isinstance(function, Unknown) or isinstance(added, Unknown):
        units.left_out.append(f"stuck gates: {reason}")
        return []
    flags = []
    for gate in GATES:
        if gate is Gate.CELL or gate not in surveyed.gates:
            continue
        bias = _bias(surveyed, gate)
        centre = np.zeros(surveyed.units) if bias is None else bias
        centre = centre + (added if gate is Gate.FORGET else 0.0)
        reach = surveyed.gates[gate].sizes
        with np.errstate(all="ignore"):
            least, most = apply(function, centre - reach), apply(function, centre + reach)
        flags += [(int(u), f"{gate} stuck open") for u in np.flatnonzero(least > 1 - STUCK)]
        flags += [(int(u), f"{gate} stuck shut") for u in np.flatnonzero(most < STUCK)]
    return flags


def _why_not_bounded(cell: Cell) -> str | None:
    """Why Σ|w| does not bound what reaches a gate, or None if it does."""
    known = cell.options
    function, output = known.recurrent_activation, known.output_activation or known.activation
    if isinstance(function, Unknown) or isinstance(output, Unknown) or known.forget_bias is UNKNOWN:
        return "the file does not say the functions"
    if function.name not in _RISING:
        return f"{function} is not a function that rises from 0 to 1"
    if output.name not in _BOUNDED:
        return f"{output} does not bound the output that is fed back"
    if "projection" in cell.parts:
        return "a projection does not bound the output that is fed back"
    for part, words in (
        ("peephole", "a peephole reads the unbounded state"),
        ("layer_norm", "the gates are normalised before their function"),
    ):
        if part in cell.gate_parts:
            return words
    return None
