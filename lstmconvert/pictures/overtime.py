"""What a given input does to a cell, step by step, as maps: by the reference in NumPy.

The input is read from a file: `.npy`, or `.csv` with a row for each time step.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lstmconvert.checks.words import is_convolution
from lstmconvert.errors import LSTMConvertError, SourceError, UsageError, counted
from lstmconvert.files import npy, opening
from lstmconvert.files.opening import Window
from lstmconvert.limits import CSV_BYTES
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.pictures.words import SYMBOLS, ceiling, rounded
from lstmconvert.reference import Trace, trace
from lstmconvert.tensors.dtypes import Array

#: A unit whose output never exceeds this is idle. A gate is listed if it is beyond these in most of
#: the steps.
_IDLE, _OPEN, _SHUT, _MOST_STEPS = 1e-6, 0.99, 0.01, 0.99
#: Functions whose answers are in [0, 1], and in [-1, 1].
_UNIT = frozenset({"sigmoid", "hard_sigmoid", "softmax", "sparsemax"})
_SYMMETRIC = _UNIT | {"tanh", "softsign", "hard_tanh"}


@dataclass(frozen=True, slots=True)
class Map:
    """One quantity over time.

    Fields: `gate`, or None for a state; `key` and `symbol`, its letters; `name`; `numbers`
    (units, steps); `centre` and `reach` of its colours; `span`, those in words.
    """

    gate: Gate | None
    key: str
    symbol: str
    name: str
    numbers: Array
    centre: float
    reach: float
    span: str


@dataclass(slots=True)
class SourceRun:
    """What an input does to one cell of one source.

    Fields: `name` of the source; `trace`, or None, and then `reason`; `maps`; `steps`; `masked`
    (steps,): the steps that are skipped; `notes`; `half_life` (units,); `flags`: unit -> what is
    odd.
    """

    name: str
    trace: Trace | None = None
    reason: str = ""
    maps: list[Map] = field(default_factory=list)
    steps: int = 0
    masked: Array = field(default_factory=lambda: np.zeros(0, bool))
    notes: list[str] = field(default_factory=list)
    half_life: Array | None = None
    flags: dict[int, list[str]] = field(default_factory=dict)

    @property
    def steps_text(self) -> str:
        """How many steps were given, and how many of them are skipped."""
        count = int(self.masked.sum())
        skipped = f", {count:,} of them masked (hatched)" if count else ""
        return (
            f"{counted(self.steps, 'step')} of the given input{skipped}, by the reference in NumPy."
        )


@dataclass(frozen=True, slots=True)
class InputSequence:
    """An input to run: `x` (time, …), one sequence; `mask` (time,), true for real steps, or None;
    `notes` on what of the given array it is."""

    x: Array
    mask: Array | None
    notes: tuple[str, ...] = ()


def given(layer: LSTMLayer, x: Array, mask_value: float | None) -> InputSequence:
    """Take one sequence from an array that the user gives.

    Args:
        layer: the layer to feed.
        x: (time, inputs), or (batch, time, inputs), of which the first sequence is taken; with the
            axes of an image for ConvLSTM.
        mask_value: steps all of whose inputs are this number are skipped, as Keras's `Masking`
            has it (keras/src/layers/core/masking.py); None to skip none.

    Raises:
        UsageError: the array has another number of axes, no numbers, or no step.
    """
    cell = next(cell for _, _, cell in layer.cells())
    rank = len(cell.fused_shape("kernel"))
    notes: list[str] = []
    if x.dtype.kind not in "fiub" and x.dtype.name != "bfloat16":
        raise UsageError("the input holds no numbers", where=layer.name, found=x.dtype.name)
    if x.ndim == rank + 1:
        if len(x) > 1:
            notes.append(f"The first of {len(x):,} sequences.")
        x = x[0] if len(x) else x.reshape(0, *x.shape[2:])
    if x.ndim != rank or not len(x):
        axes = "(time, inputs)" if rank == 2 else f"(time, …), {rank} axes"
        raise UsageError(
            "the input does not fit the layer",
            where=layer.name,
            found=x.shape,
            expected=f"{axes}, or a batch of such, with at least one step",
        )
    numbers = x.astype(np.float64)
    mask = None
    if mask_value is not None:
        mask = np.any(numbers != mask_value, axis=tuple(range(1, rank)))
    elif layer.options.masked is True:
        notes.append(
            "In its model a mask reaches this layer. Here every step counts: --mask-value says "
            "which number marks the steps to skip."
        )
    return InputSequence(numbers, mask, tuple(notes))


def runs(name: str, layer: LSTMLayer, feed: InputSequence) -> dict[tuple[str, int], SourceRun]:
    """Run a layer: (direction, index of the cell) -> what happens there.

    What the reference refuses is not an error here: each run then says why.
    """
    places = [(side, index, cell) for side, index, cell in layer.cells()]
    try:
        traces = trace(layer, feed.x, mask=feed.mask)
    except LSTMConvertError as error:
        hint = f" {error.hint[0].upper()}{error.hint[1:]}." if error.hint else ""
        reason = f"{error}.{hint}"
        return {(side, index): SourceRun(name, reason=reason) for side, index, _ in places}
    result = {}
    for side, index, cell in places:
        turned = dict(layer.directions)[side].options.go_backwards
        result[side, index] = _run(name, cell, traces[side, index], feed, bool(turned))
    return result


def _run(name: str, cell: Cell, taken: Trace, feed: InputSequence, is_turned: bool) -> SourceRun:
    steps = len(taken.carry)
    masked = np.zeros(steps, bool) if feed.mask is None else ~feed.mask
    run = SourceRun(name, taken, steps=steps, masked=masked, notes=list(feed.notes))
    if is_turned:
        run.notes.append("This direction reads the steps from the last to the first.")
    if is_convolution(cell):
        run.notes.append("A row is a filter’s mean over all positions.")
    run.maps = list(_maps(cell, taken))
    real = ~masked
    _judge(run, taken, cell, real)
    return run


def _maps(cell: Cell, taken: Trace) -> Iterator[Map]:
    known = cell.options
    names = {Gate.CELL: "new content"}
    for gate in (Gate.INPUT, Gate.FORGET, Gate.CELL):
        yield _gate_map(cell, gate, names.get(gate, f"{gate} gate"), taken)
    yield _gate_map(cell, Gate.OUTPUT, "output gate", taken)
    carry = _rows(cell, taken.carry)
    yield Map(None, "s", "c", "cell state", carry, 0.0, *_own_span(carry))
    hidden = _rows(cell, taken.hidden)
    function = known.output_activation or known.activation
    bounded = getattr(function, "name", "") in _SYMMETRIC and "projection" not in cell.parts
    span = (1.0, "−1 … 1") if bounded else _own_span(hidden)
    yield Map(None, "h", "h", "output", hidden, 0.0, *span)


def _gate_map(cell: Cell, gate: Gate, name: str, taken: Trace) -> Map:
    known = cell.options
    function = known.activation if gate is Gate.CELL else known.recurrent_activation
    numbers = _rows(cell, taken.gates[gate])
    kind = getattr(function, "name", "")
    symbol = SYMBOLS[gate]
    if kind in _UNIT and gate is not Gate.CELL:
        return Map(gate, gate.letter, symbol, name, numbers, 0.5, 0.5, "0 … 1")
    if kind in _SYMMETRIC:
        return Map(gate, gate.letter, symbol, name, numbers, 0.0, 1.0, "−1 … 1")
    return Map(gate, gate.letter, symbol, name, numbers, 0.0, *_own_span(numbers))


def _own_span(numbers: Array) -> tuple[float, str]:
    finite = np.abs(numbers[np.isfinite(numbers)])
    reach = ceiling(float(finite.max(initial=0.0)))
    return reach, f"±{rounded(reach)}"


def _rows(cell: Cell, steps: Array) -> Array:
    """Return (units, steps), the mean over all positions of a convolution."""
    if steps.ndim > 2:
        settings = cell.options.convolution or {}
        is_first = settings.get("data_format") == "channels_first"
        axes = tuple(range(2, steps.ndim)) if is_first else tuple(range(1, steps.ndim - 1))
        steps = steps.mean(axis=axes)
    rows: Array = np.ascontiguousarray(steps.T, dtype=np.float32)
    return rows


@np.errstate(all="ignore")
def _judge(run: SourceRun, taken: Trace, cell: Cell, real: Array) -> None:
    """Find what is unusual over the given steps, masked ones left out."""
    if not real.any() or taken.carry.ndim > 2:
        return
    kept = taken.gates[Gate.FORGET][real]
    mean = np.log(np.clip(kept, 0, None)).mean(axis=0)
    run.half_life = np.where(
        mean >= 0, np.inf, np.where(np.isneginf(mean), 0.0, math.log(0.5) / mean)
    )
    if "projection" not in cell.parts:
        _flag(run, np.abs(taken.hidden[real]).max(axis=0) <= _IDLE, "idle over the input")
    for gate in GATES:
        if gate is not Gate.CELL:
            open_steps = (taken.gates[gate][real] > _OPEN).mean(axis=0)
            shut_steps = (taken.gates[gate][real] < _SHUT).mean(axis=0)
            _flag(run, open_steps >= _MOST_STEPS, f"{gate} open in 99 % of steps")
            _flag(run, shut_steps >= _MOST_STEPS, f"{gate} shut in 99 % of steps")


def _flag(run: SourceRun, where: Array, text: str) -> None:
    for unit in np.flatnonzero(where):
        run.flags.setdefault(int(unit), []).append(text)


def difference(first: SourceRun, second: SourceRun, name: str) -> SourceRun:
    """Return the second run's numbers minus the first's, each map on a scale of its own."""
    run = SourceRun(name, second.trace, steps=second.steps, masked=first.masked | second.masked)
    pairs: Sequence[tuple[Map, Map]] = list(zip(first.maps, second.maps, strict=False))
    for a, b in pairs:
        numbers = b.numbers - a.numbers
        run.maps.append(Map(b.gate, b.key, b.symbol, b.name, numbers, 0.0, *_own_span(numbers)))
    return run


_HINT = "give a .npy, or a .csv of numbers: a row for each time step, a column for each input"


def read_sequence(path: Path) -> Array:
    """Return the numbers of a file: of a `.csv` (time, inputs) in float64, of a `.npy` as it is.

    A `.csv` has commas between its numbers. Its first row may name the columns.

    Raises:
        SourceError: the file is missing, damaged, or holds something else than numbers.
        UsageError: the file is neither.
        LimitExceeded: it is larger than the limits allow.
    """
    source = opening.open_source(path)
    if opening.head(source, len(npy.MAGIC)).startswith(npy.MAGIC):
        return npy.read_tensor(Window(source, 0, source.size), path).read()
    if path.suffix.lower() != ".csv":
        raise UsageError(
            "not an input sequence", where=path, found=path.suffix or "no suffix", hint=_HINT
        )
    CSV_BYTES.check(source.size, path, "the size of the text")
    try:
        text = bytes(source.read_at(0, source.size)).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"not a table of numbers: {error}", where=path, hint=_HINT) from None
    if rows and not any(_number(cell) is not None for cell in rows[0]):
        rows = rows[1:]  # the names of the columns
    if not rows:
        raise SourceError("the table has no row of numbers", where=path, hint=_HINT)
    return np.array([_row(path, number, row, len(rows[0])) for number, row in enumerate(rows, 1)])


def _row(path: Path, number: int, row: list[str], width: int) -> list[float]:
    values = [_number(cell) for cell in row]
    if len(row) != width or None in values:
        odd = next((cell for cell, value in zip(row, values, strict=True) if value is None), None)
        raise SourceError(
            f"row {number} of the numbers is not a time step",
            where=path,
            found=f"{len(row)} columns" if odd is None else repr(odd[:40]),
            expected=f"{width} numbers",
            hint=_HINT,
        )
    return [value for value in values if value is not None]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
