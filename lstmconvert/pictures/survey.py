"""All that a page says about a cell's numbers, from one pass over its weights.

A small or middling cell is kept whole while its page is made. Of a large one only dots are kept:
the weight farthest from zero of each block of rows and units, so that no extreme is lost and the
page of any model takes a few megabytes. Everything else (norms, largest weights, spread) is summed
up as the weights go by.

What each unit of a cell is like is said too: memory, norms, and what is unusual about it, by stated
rules. Nothing here is a guess. A rule that does not hold for a cell (an unbounded output, a
function that no file names) is left out, and `Units.left_out` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lstmconvert.checks.bitdiff import differing, max_ulp
from lstmconvert.checks.stats import Stats
from lstmconvert.checks.words import gate_count, is_convolution
from lstmconvert.errors import LSTMConvertError
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import Cell
from lstmconvert.model.options import UNKNOWN, Unknown
from lstmconvert.reference.maths import apply
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import SideBySide, Tensor

#: The parts of a gate that are matrices; all others are a number for each unit.
MATRICES = ("kernel", "recurrent_kernel")
#: A cell with more weights than this is drawn as dots (2.2 MB of a page at a byte a weight).
MOST_DOTS = 2_200_000
#: Up to this number of weights are kept in the page exactly.
EXACT = 16_384
#: Up to this number of units, all pairs are compared and eigenvalues computed: seconds of work.
COMPARED_UNITS = 1024
#: How many bins a histogram has, and up to how many weights it is a tick for each instead.
BINS, TICKS = 41, 1000
#: A float32 without its lower 16 bits: fine enough to sort weights into bins as they go by.
_HALF = 16


@dataclass(frozen=True, slots=True)
class Band:
    """One part of the gates as rows of their pictures.

    Fields: `part`; `rows`, of the matrix; `dots`, rows of the picture; `inner`: so many
    neighbouring rows belong to one place of a convolution's window (all, without one); `gates`
    that have the part.
    """

    part: str
    rows: int
    dots: int
    inner: int
    gates: tuple[Gate, ...]

    @property
    def is_matrix(self) -> bool:
        return self.part in MATRICES


@dataclass(slots=True)
class Extreme:
    """The weight of a gate that is farthest from zero: `value`, `part`, `row` and `unit`."""

    value: float = 0.0
    part: str = "kernel"
    row: int = 0
    unit: int = 0


@dataclass(slots=True)
class Change:
    """How a gate differs from that of another source.

    Fields: `dots` (rows, units) of the picture: the other's weight minus this one's, or of a block
    the difference farthest from zero; `marks`, likewise: whether bits differ there; `other`, the
    other's own dots, and `vectors`: part -> (units,); `farthest`, the other's largest weight;
    `count` of weights whose bits differ; `largest`, the difference farthest from zero, with its
    place; `ulp`, the largest distance in units of the last place, or None where that has no
    meaning.
    """

    dots: Array
    marks: Array
    other: Array
    vectors: dict[str, Array] = field(default_factory=dict)
    farthest: Extreme = field(default_factory=Extreme)
    count: int = 0
    largest: Extreme = field(default_factory=Extreme)
    ulp: int | None = None


@dataclass(slots=True)
class GateSurvey:
    """What is known of one gate.

    Fields: `dots` (rows, units) of the picture: the weights themselves, or the farthest from zero
    of each block; `vectors`: part -> (units,); `largest`; `squares` (units,): the sum of squares of
    each unit's column, biases left out; `sizes` (units,): likewise the sum of absolute values;
    `is_zero` (units,): whether every weight of the unit is zero, biases too; `is_finite` (units,);
    `spread`: part -> statistics, of the two matrices; `counts`: part -> how many weights are in
    each half-precision bin, of a cell drawn as dots; `radius`: the spectral radius of the recurrent
    kernel, or None; `change`, against another source.
    """

    dots: Array
    vectors: dict[str, Array]
    squares: Array
    sizes: Array
    is_zero: Array
    is_finite: Array
    largest: Extreme = field(default_factory=Extreme)
    spread: dict[str, Stats] = field(default_factory=dict)
    counts: dict[str, Array] = field(default_factory=dict)
    radius: float | None = None
    change: Change | None = None


@dataclass(slots=True)
class Survey:
    """What is known of a cell.

    Fields: `cell`; `gates`: gate -> its survey; `bands`, the parts as rows of the pictures;
    `block`: a dot represents so many rows and units (1: for one weight); `read_by` (units,): the
    sum of squares of each unit's recurrent row, or None where recurrent rows are not units;
    `twins`: unit -> (the unit that it is like, whether bit for bit).
    """

    cell: Cell
    gates: dict[Gate, GateSurvey]
    bands: tuple[Band, ...]
    block: int
    read_by: Array | None = None
    twins: dict[int, tuple[int, bool]] = field(default_factory=dict)

    @property
    def units(self) -> int:
        return self.cell.units

    @property
    def weights(self) -> int:
        """How many weights the gates have."""
        return sum(band.rows * len(band.gates) for band in self.bands) * self.units

    @property
    def is_exact(self) -> bool:
        """Whether the page holds every weight as it is."""
        return self.block == 1 and self.weights <= EXACT

    @property
    def largest(self) -> float:
        """The size of the largest finite weight."""
        return max(abs(gate.largest.value) for gate in self.gates.values())


def survey(cell: Cell, other: Cell | None = None, *, most_dots: int = MOST_DOTS) -> Survey:
    """Read a cell's gates once, and those of another cell along with them.

    Args:
        cell: the cell.
        other: a cell with the same shapes, to compare it with.
        most_dots: a cell with more weights is drawn as dots.
    """
    block = _block(cell, most_dots)
    bands = tuple(_bands(cell, block))
    height = sum(band.dots for band in bands)
    width = -(-cell.units // block)
    is_wide = _is_wide(cell) or (other is not None and _is_wide(other))
    kind = np.float64 if is_wide else np.float32
    result = Survey(
        cell=cell,
        gates={
            gate: _empty(cell.units, (height, width), np.dtype(kind), other is not None)
            for gate in GATES
            if gate in cell.gates
        },
        bands=bands,
        block=block,
    )
    pairs = _Pairs(cell.units)
    recurrent: dict[Gate, list[Array]] = {}
    top = 0
    for band in bands:
        _pour(result, band, top, other, pairs, recurrent)
        top += band.dots
    _radii(result, recurrent)
    result.twins = pairs.twins(result)
    return result


def same_shapes(first: Cell, second: Cell) -> bool:
    """Whether two cells have the same gates and parts, of the same shapes."""
    return {name: t.shape for name, t in first.tensors()} == {
        n: t.shape for n, t in second.tensors()
    }


def _is_wide(cell: Cell) -> bool:
    return cell.dtype.itemsize == 8


def _empty(units: int, shape: tuple[int, int], kind: DType, pair: bool) -> GateSurvey:
    return GateSurvey(
        dots=np.full(shape, np.nan, kind),
        vectors={},
        squares=np.zeros(units),
        sizes=np.zeros(units),
        is_zero=np.ones(units, bool),
        is_finite=np.ones(units, bool),
        change=(
            Change(np.zeros(shape, kind), np.zeros(shape, bool), np.full(shape, np.nan, kind))
            if pair
            else None
        ),
    )


def _bands(cell: Cell, block: int) -> Iterator[Band]:
    for part in cell.gate_parts:
        shape = cell.fused_shape(part)
        rows = math.prod(shape[:-1])
        dots = -(-rows // block) if part in MATRICES else 1
        inner = shape[-2] if len(shape) > 1 else 1
        gates = tuple(g for g in GATES if g in cell.gates and part in cell.gates[g].tensors)
        yield Band(part, rows, dots, inner, gates)


def _block(cell: Cell, most: int) -> int:
    """Return the smallest block whose dots are not too many."""
    shapes = [(cell.fused_shape(part), gate_count(cell, part)) for part in cell.gate_parts]
    sizes = [(math.prod(shape[:-1]), gates) for shape, gates in shapes]
    total = sum(rows * gates for rows, gates in sizes) * cell.units
    block = max(1, math.isqrt(max(0, total - 1) // most))
    while sum(-(-rows // block) * gates for rows, gates in sizes) * -(-cell.units // block) > most:
        block += 1
        if block > max(cell.units, *(rows for rows, _ in sizes)):
            break
    return block


def _pour(
    result: Survey,
    band: Band,
    top: int,
    other: Cell | None,
    pairs: _Pairs,
    recurrent: dict[Gate, list[Array]],
) -> None:
    """Read one part of all gates, slab by slab; its picture's rows begin at `top`."""
    cell, units = result.cell, result.units
    tensor = _side_by_side(cell, band)
    counterpart = None if other is None else _side_by_side(other, band)
    wants_rows = band.part == "recurrent_kernel" and reads_units(cell)
    if wants_rows:
        result.read_by = np.zeros(units)
    for start, stop in _slabs(tensor, result.block):
        rows = tensor.rows(start, stop)
        others = None if counterpart is None else counterpart.rows(start, stop)
        for place, gate in enumerate(band.gates):
            known = result.gates[gate]
            columns = slice(place * units, (place + 1) * units)
            piece = _widened(rows[:, columns])
            lines = slice(top + start // result.block, top + -(-stop // result.block))
            if not band.is_matrix:
                lines = slice(top, top + 1)
                known.vectors[band.part] = piece[0]
            _take(known, band, start, piece, result.block)
            known.dots[lines] = farthest(piece, result.block)
            if others is not None and known.change is not None:
                _compare(
                    known.change,
                    band,
                    start,
                    rows[:, columns],
                    others[:, columns],
                    lines,
                    result.block,
                )
            if band.is_matrix:
                pairs.add(piece)
                if wants_rows and result.read_by is not None:
                    with np.errstate(all="ignore"):
                        result.read_by[start:stop] += np.square(piece, dtype=np.float64).sum(axis=1)
            if band.part == "recurrent_kernel" and _has_radius(cell) and result.block > 1:
                recurrent.setdefault(gate, []).append(np.ascontiguousarray(piece))


def _side_by_side(cell: Cell, band: Band) -> Tensor:
    return SideBySide(tuple(cell.gates[gate].tensors[band.part] for gate in band.gates))


def _slabs(tensor: Tensor, block: int) -> Iterator[tuple[int, int]]:
    """Yield row ranges of about a buffer that are whole blocks."""
    count, width = tensor.matrix_shape
    step = max(1, BUFFER_BYTES // max(1, width * tensor.dtype.itemsize * block)) * block
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _widened(piece: Array) -> Array:
    """Return weights as float32, float64 as it is."""
    with np.errstate(all="ignore"):  # to widen a signalling NaN is an invalid operation
        return piece if piece.dtype.itemsize == 8 else piece.astype(np.float32)


def farthest(piece: Array, block: int) -> Array:
    """Return the number farthest from zero of each block of rows and columns, with its sign.

    A block that holds NaN gives NaN.

    Args:
        piece: (rows, columns).
        block: how many rows and columns a block has; those at the edges may have fewer.
    """
    if block == 1:
        return piece
    places = [np.arange(0, size, block) for size in piece.shape]
    high, low = (
        reduce.reduceat(reduce.reduceat(piece, places[0], axis=0), places[1], axis=1)
        for reduce in (np.maximum, np.minimum)
    )
    dots: Array = np.where(high >= -low, high, low)
    return dots


@np.errstate(all="ignore")  # NaN and infinity are found out, not refused
def _take(known: GateSurvey, band: Band, start: int, piece: Array, block: int) -> None:
    """Add rows `start` and on of one part to what is known of a gate."""
    size = np.abs(piece)
    is_finite = np.isfinite(size)
    known.is_finite &= is_finite.all(axis=0)
    known.is_zero &= (size == 0).all(axis=0)
    _farther(known.largest, band, start, piece, np.where(is_finite, size, -1))
    if not band.is_matrix:
        return
    known.squares += np.square(size, dtype=np.float64).sum(axis=0)
    known.sizes += size.sum(axis=0, dtype=np.float64)
    known.spread.setdefault(band.part, Stats()).add(piece)
    if block > 1:
        halves = np.ascontiguousarray(piece, np.float32).view(np.uint32).ravel() >> _HALF
        counts = np.bincount(halves, minlength=1 << _HALF)
        known.counts[band.part] = known.counts.get(band.part, 0) + counts


def _farther(largest: Extreme, band: Band, start: int, piece: Array, size: Array) -> None:
    if not size.size:
        return
    row, unit = divmod(int(np.argmax(size)), size.shape[1])
    if size[row, unit] > abs(largest.value):
        largest.value = float(piece[row, unit])
        largest.part, largest.row, largest.unit = band.part, start + row, unit


@np.errstate(all="ignore")
def _compare(
    change: Change, band: Band, start: int, a: Array, b: Array, lines: slice, block: int
) -> None:
    """Add rows `start` and on of one part to what is known of a gate's change."""
    is_same_kind = a.dtype.name == b.dtype.name
    marks = differing(a, b) if is_same_kind else _widened(a) != _widened(b)
    step = _widened(b).astype(np.float64) - _widened(a).astype(np.float64)
    step = np.where(marks, step, 0.0)
    change.count += int(np.count_nonzero(marks))
    change.dots[lines] = farthest(step, block)
    change.marks[lines] = farthest(marks, block) if block == 1 else farthest(marks * 1.0, block) > 0
    size = np.abs(step)
    _farther(change.largest, band, start, step, np.where(np.isfinite(size), size, -1))
    other = _widened(b)
    change.other[lines] = farthest(other, block)
    size = np.abs(other)
    _farther(change.farthest, band, start, other, np.where(np.isfinite(size), size, -1))
    if not band.is_matrix:
        change.vectors[band.part] = other[0]
    distance = max_ulp(a[marks], b[marks]) if is_same_kind and marks.any() else None
    if distance is not None:
        change.ulp = max(change.ulp or 0, distance)


def reads_units(cell: Cell) -> bool:
    """Whether each recurrent row is the output of one unit."""
    return not is_convolution(cell) and "projection" not in cell.parts


def _has_radius(cell: Cell) -> bool:
    return reads_units(cell) and cell.units <= COMPARED_UNITS


def _radii(result: Survey, recurrent: dict[Gate, list[Array]]) -> None:
    """Compute spectral radii, of weights that were kept for it where the pictures hold dots."""
    for gate in result.gates if _has_radius(result.cell) else ():
        if result.block > 1:
            matrix = np.concatenate(recurrent[gate])
        else:
            matrix = rows_of(result, gate, "recurrent_kernel")
        if matrix.shape[0] == matrix.shape[1] and np.isfinite(matrix).all():
            result.gates[gate].radius = float(np.abs(np.linalg.eigvals(matrix)).max())


class _Pairs:
    """Which units have the same weights, or nearly.

    Up to `COMPARED_UNITS`, the products of all pairs of columns are summed up; beyond, a hash of
    each column's bits, so that exact twins alone are found.
    """

    #: Weights that differ by no more than this part of the larger norm, and biases by this.
    NEAR, NEAR_BIAS = 0.01, 0.01
    #: Odd constants that mix the bits of a hash (Steele, Lea and Flood 2014, SplitMix64).
    _MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15)

    def __init__(self, units: int) -> None:
        self._products = np.zeros((units, units)) if units <= COMPARED_UNITS else None
        self._hashes = np.zeros(units, np.uint64)
        self._row = 0

    def add(self, piece: Array) -> None:
        """Take in rows of one gate, (rows, units)."""
        if self._products is not None:
            with np.errstate(all="ignore"):
                self._products += piece.T @ piece
        words = np.ascontiguousarray(piece).view(f"<u{piece.dtype.itemsize}").astype(np.uint64)
        with np.errstate(over="ignore"):
            rows = np.arange(self._row + 1, self._row + 1 + len(piece), dtype=np.uint64)
            self._row += len(piece)
            mixed = words ^ (rows * np.uint64(self._MIX[2]))[:, None]
            for factor in self._MIX[:2]:
                mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(factor)
            self._hashes += (mixed ^ (mixed >> np.uint64(31))).sum(axis=0, dtype=np.uint64)

    def twins(self, surveyed: Survey) -> dict[int, tuple[int, bool]]:
        """Return unit -> (an earlier unit that it is like, whether bit for bit)."""
        biases = [vector for gate in surveyed.gates.values() for vector in gate.vectors.values()]
        table = np.stack(biases) if biases else np.zeros((0, surveyed.units))
        exact = self._exact(table)
        return exact if self._products is None else {**self._near(surveyed, table), **exact}

    def _exact(self, biases: Array) -> dict[int, tuple[int, bool]]:
        words = np.ascontiguousarray(biases.T).view(np.uint8).reshape(len(self._hashes), -1)
        first: dict[bytes, int] = {}
        result = {}
        for unit, key in enumerate(self._hashes):
            other = first.setdefault(key.tobytes() + words[unit].tobytes(), unit)
            if other != unit:
                result[unit] = other, True
        return result

    @np.errstate(all="ignore")
    def _near(self, surveyed: Survey, biases: Array) -> dict[int, tuple[int, bool]]:
        if self._products is None:
            return {}
        norms = np.diag(self._products)
        result = {}
        for unit in range(1, surveyed.units):
            before = slice(0, unit)
            distances = norms[unit] + norms[before] - 2 * self._products[unit, before]
            larger = np.maximum(norms[unit], norms[before])
            near = (distances <= self.NEAR**2 * larger) & (larger > 0)
            near &= (np.abs(biases[:, before] - biases[:, [unit]]) <= self.NEAR_BIAS).all(axis=0)
            if near.any():
                result[unit] = int(np.argmax(near)), False
        return result


def histogram(surveyed: Survey, gate: Gate, part: str, limit: float) -> Array:
    """Return how many weights of a part are in each of `BINS` equal bins from -limit to limit.

    The bins at the ends hold what is beyond, too. Of a cell drawn as dots, weights are sorted by
    their upper 16 bits, 0.4 % of their size at most.
    """
    known = surveyed.gates[gate]
    if part in known.counts:
        values = (np.arange(1 << _HALF, dtype=np.uint32) << _HALF | 1 << _HALF - 1).view(np.float32)
        counts = known.counts[part]
    else:
        values = rows_of(surveyed, gate, part).ravel()
        counts = np.ones(len(values))
    is_finite = np.isfinite(values)
    with np.errstate(all="ignore"):
        places = np.floor((values[is_finite] / (limit or 1.0) + 1) / 2 * BINS)
    places = np.clip(places, 0, BINS - 1).astype(np.int64)
    bins: Array = np.bincount(places, counts[is_finite], minlength=BINS)
    return bins


def rows_of(surveyed: Survey, gate: Gate, part: str) -> Array:
    """Return the picture's rows of one part of a gate: `(rows, units)`."""
    top = 0
    for band in surveyed.bands:
        if band.part == part:
            return surveyed.gates[gate].dots[top : top + band.dots]
        top += band.dots
    raise KeyError(part)


def matrix_dots(surveyed: Survey) -> Array:
    """Return the sizes of all finite dots of kernels and recurrent kernels, in one row."""
    is_matrix = np.concatenate([np.full(band.dots, band.is_matrix) for band in surveyed.bands])
    dots = np.abs(
        np.concatenate([gate.dots[is_matrix].ravel() for gate in surveyed.gates.values()])
    )
    finite: Array = dots[np.isfinite(dots)]
    return finite


# -- what each unit is like ----------------------------------------------------------------------


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
