"""Two arrays, bit by bit: where they differ first, how often, and by how much. Streamed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.checks.stats import float_bits
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors import progress
from lstmconvert.tensors.dtypes import Array, DType, bits, little_endian
from lstmconvert.tensors.streaming import SMALL
from lstmconvert.tensors.tensor import FileTensor, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDiff:
    """A tensor that differs.

    Fields: `name`; `reason`: `values`, `shape`, `dtype`, `missing` (on one side), or `cell` (one
    side has no LSTM cell there); `a` and `b`: the first differing values, or the shapes, dtypes, or
    what is there (None where nothing is). For `values`: `first`, the index of the first difference;
    `count` of `size` elements differ; `max_abs`, the largest absolute difference, None where it is
    not a number; `max_ulp`, the largest distance in units of the last place
    (0.0 and -0.0 differ by one), None where it means nothing: NaN, and other dtypes than floats.
    """

    name: str
    reason: str
    a: Any
    b: Any
    first: tuple[int, ...] | None = None
    count: int | None = None
    size: int | None = None
    max_ulp: int | None = None
    max_abs: float | None = None


class Within(NamedTuple):
    """How much two numbers may differ and still count as equal: |a - b| <= atol + rtol * |b|."""

    rtol: float
    atol: float


class _Tally:
    """What is known of one range of columns after some rows."""

    def __init__(self, within: Within | None) -> None:
        self._within = within
        self.count = 0
        self.max_abs: float | None = None
        self.max_ulp: int | None = None
        self.first: tuple[int, int] | None = None
        self.values: tuple[Any, Any] = (None, None)

    def add(self, row: int, a: Array, b: Array) -> None:
        """Take in rows of both, `(rows, columns)`, the first of them being row `row`."""
        differs = _differing(a, b, self._within)
        count = int(np.count_nonzero(differs))
        if not count:
            return
        if self.first is None:
            r, c = (int(i) for i in np.unravel_index(int(np.argmax(differs)), differs.shape))
            self.first, self.values = (row + r, c), (_plain(a[r, c]), _plain(b[r, c]))
        self.count += count
        distance = max_abs(a[differs], b[differs])
        if distance is not None:
            self.max_abs = max(self.max_abs or 0.0, distance)
        largest = max_ulp(a[differs], b[differs]) if a.dtype == b.dtype else None
        if largest is not None:
            self.max_ulp = max(self.max_ulp or 0, largest)


def compare_tensors(
    labels: Mapping[str, int | None],
    a: Tensor | None,
    b: Tensor | None,
    within: Within | None = None,
) -> Iterator[TensorDiff]:
    """Yield the differences of two tensors.

    Args:
        labels: name -> width of each range of the last axis, in order; one label, and None, for
            the whole tensor.
        a, b: the tensors, or None where one side has none.
        within: how much numbers may differ, whatever their float dtypes; None: not in a bit.
    """
    name = next(iter(labels))
    if a is None or b is None:
        if a is not b:
            yield TensorDiff(name=name, reason="missing", a=_shape(a), b=_shape(b))
        return
    if a.shape != b.shape:
        yield TensorDiff(name=name, reason="shape", a=_shape(a), b=_shape(b))
        return
    are_numbers = is_float(a.dtype) and is_float(b.dtype)
    if a.dtype.name != b.dtype.name and (within is None or not are_numbers):
        for label in labels:
            yield TensorDiff(name=label, reason="dtype", a=a.dtype.name, b=b.dtype.name)
        return
    width = a.matrix_shape[1]
    tallies = {label: _Tally(within if are_numbers else None) for label in labels}
    # Half a buffer for each side, or as much as one of them reads at once.
    for start, stop in a.slabs(max(BUFFER_BYTES // 2, b.grain)) if a.size else ():
        rows_a, rows_b = a.rows(start, stop), b.rows(start, stop)
        progress.advance(rows_a.nbytes)
        if _differing(rows_a, rows_b, within if are_numbers else None).any():
            column = 0
            for label, wide in labels.items():
                end = column + (width if wide is None else wide)
                tallies[label].add(start, rows_a[:, column:end], rows_b[:, column:end])
                column = end
        del rows_a, rows_b  # before the next are read: of a turned matrix they are large
    for label, tally in tallies.items():
        if tally.first is not None:
            wide = labels[label]
            yield _diff(label, tally, (*a.shape[:-1], width if wide is None else wide), a.shape)


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two small tensors have one shape, one dtype and the same bits; False of large ones.

    Files have thousands of small tensors, which are mostly the same.
    """
    if a.nbytes > min(SMALL, BUFFER_BYTES // 2) or a.shape != b.shape:
        return False
    if a.dtype != b.dtype or a.dtype.kind == "O":
        return False
    if _bytes_of(a) != _bytes_of(b):
        return False
    progress.advance(a.nbytes)
    return True


def _bytes_of(tensor: Tensor) -> bytes | bytearray:
    """Return the elements of a small tensor in C order, little-endian."""
    if type(tensor) is FileTensor and tensor.is_little_endian:
        return tensor.stored()
    return little_endian(tensor.rows(0, tensor.matrix_shape[0])).tobytes()


def _diff(label: str, tally: _Tally, shape: tuple[int, ...], whole: tuple[int, ...]) -> TensorDiff:
    row, column = tally.first or (0, 0)
    index = [column]
    for axis in reversed(shape[:-1]):
        row, place = divmod(row, axis)
        index.insert(0, place)
    return TensorDiff(
        name=label,
        reason="values",
        a=tally.values[0],
        b=tally.values[1],
        first=tuple(index) if whole else (),
        count=tally.count,
        size=math.prod(shape),
        max_ulp=tally.max_ulp,
        max_abs=tally.max_abs,
    )


def is_float(dtype: DType) -> bool:
    """Whether a dtype is one of floating-point numbers."""
    return float_bits(dtype) is not None


@np.errstate(all="ignore")
def _differing(a: Array, b: Array, within: Within | None) -> Array:
    """Return where two arrays of one shape differ: in a bit, or by more than is allowed."""
    if within is None:
        return differing(a, b)
    first, second = a.astype(np.float64), b.astype(np.float64)
    is_near = np.abs(first - second) <= within.atol + within.rtol * np.abs(second)
    return np.asarray(~(is_near | (first == second) | (np.isnan(first) & np.isnan(second))))


@np.errstate(all="ignore")
def max_abs(a: Array, b: Array) -> float | None:
    """Return the largest absolute difference of two arrays, NaN left out; None for no numbers."""
    if not (is_float(a.dtype) and is_float(b.dtype)):
        return None
    distance = np.abs(a.astype(np.float64) - b.astype(np.float64))
    known = distance[~np.isnan(distance)]
    return float(known.max()) if known.size else None


def differing(a: Array, b: Array) -> Array:
    """Return where two arrays of one shape and dtype differ in any bit."""
    if a.dtype.kind == "O":
        return np.asarray(a != b, dtype=bool)
    bits_a, bits_b = bits(a), bits(b)
    if bits_a.size == a.size:
        return np.asarray(bits_a != bits_b).reshape(a.shape)
    return np.asarray((bits_a != bits_b).reshape(a.size, -1).any(axis=1)).reshape(a.shape)


def max_ulp(a: Array, b: Array) -> int | None:
    """Return the largest distance of two arrays in units of the last place, NaN left out.

    Read as integers, positive floats are in order of size, and negative ones are once their bits
    are inverted. The distance is the number of floats between.
    """
    masks = float_bits(a.dtype)
    if masks is None:
        return None
    bits_a, bits_b = bits(a), bits(b)
    number = bits_a.dtype.type
    sign = number(masks.sign)
    ordered = [np.where(x & sign, ~x, x | sign) for x in (bits_a, bits_b)]
    is_nan = [(x & number(masks.sign - 1)) > masks.exponent for x in (bits_a, bits_b)]
    comparable = ~(is_nan[0] | is_nan[1])
    if not comparable.any():
        return None
    high, low = np.maximum(*ordered)[comparable], np.minimum(*ordered)[comparable]
    return int((high - low).max())


def _shape(tensor: Tensor | None) -> list[int] | None:
    return None if tensor is None else list(tensor.shape)


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a number or text that prints in full."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value
    item = value.item() if hasattr(value, "item") else value
    if isinstance(item, (bool, int, float)):
        # The shortest text that tells a float32 from its neighbours, not the float64 it makes.
        return item if isinstance(item, (bool, int)) else float(str(value))
    return str(item)
