"""Two arrays, bit by bit: where they differ first, how often, and by how much. Streamed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.checks.stats import float_bits
from lstmconvert.limits import BUFFER_BYTES, KIB
from lstmconvert.tensors import progress
from lstmconvert.tensors.dtypes import Array, DType, bits, little_endian
from lstmconvert.tensors.streaming import SMALL
from lstmconvert.tensors.tensor import FileTensor, SourceFile, Tensor

#: Small tensors of a file are read together where no more than this is between two of them: as many
#: bytes are copied in the time that one more call takes.
_GAP = 16 * KIB
#: The most pairs of tensors that are taken at once, however few bytes they have.
_AT_ONCE = 1024


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


class Compared(NamedTuple):
    """Two tensors to compare.

    Fields: `labels`: returns name -> width of each range of the last axis, in order; one label, and
    None, for the whole tensor; `a`, `b`: the tensors, or None where one side has none.
    """

    labels: Callable[[], Mapping[str, int | None]]
    a: Tensor | None
    b: Tensor | None


class _Tallies:
    """What is known of some tensors of one shape after some rows of each, by ranges of columns.

    Args:
        labels: name -> width of each range, as in `Compared`.
        tensor: of that shape.
        within: how much numbers may differ.
    """

    def __init__(
        self, labels: Mapping[str, int | None], tensor: Tensor, within: Within | None
    ) -> None:
        self._shape, self._within = tensor.shape, within
        width = tensor.matrix_shape[1]
        widths = [width if wide is None else wide for wide in labels.values()]
        self._starts = np.cumsum([0, *widths[:-1]])
        self._range_of = np.repeat(np.arange(len(widths)), widths)
        #: By tensor and range: how many elements differ, and by how much; the first of them.
        self._count: Array = np.zeros((), np.int64)
        self._max_abs: Array = np.full((), -1.0)
        self._max_ulp: Array = np.zeros((), np.uint64)
        self._first: dict[tuple[int, int], _First] = {}

    def add(self, row: int, a: Array, b: Array) -> None:
        """Take in rows of both, `(tensors, rows, columns)`, the first of them being row `row`."""
        differs = _differing(a, b, self._within)
        rows = np.flatnonzero(differs.any(axis=(0, 2)))
        if not rows.size:
            return
        if rows.size < a.shape[1]:  # the others cost nothing from here on
            a, b, differs = a[:, rows], b[:, rows], differs[:, rows]
        count = self._by_range(np.add, np.count_nonzero(differs, axis=1))
        self._note_first(row + rows, a, b, differs, count)
        self._count = self._count + count
        distance = _distance(a, b)
        if distance is not None:
            known = np.where(differs & ~np.isnan(distance), distance, -1.0)
            largest = self._by_range(np.maximum, known.max(axis=1))
            self._max_abs = np.maximum(self._max_abs, largest)
        steps = _steps(a, b) if a.dtype == b.dtype else None
        if steps is not None:
            known = np.where(differs & steps[1], steps[0], steps[0].dtype.type(0))
            largest = self._by_range(np.maximum, known.max(axis=1))
            self._max_ulp = np.maximum(self._max_ulp, largest.astype(np.uint64))

    def _by_range(self, reduce: np.ufunc, columns: Array) -> Array:
        """Return, from a number for each column of each tensor, that of each range."""
        result: Array = reduce.reduceat(columns, self._starts, axis=1)
        return result

    def _note_first(self, rows: Array, a: Array, b: Array, differs: Array, count: Array) -> None:
        tensors, ranges = np.nonzero(count)
        if len(self._first) == count.size:
            return
        # The first row of each range, and in it the first of the range's columns.
        per_range = np.logical_or.reduceat(differs, self._starts, axis=2)
        places = per_range.argmax(axis=1)[tensors, ranges]
        inside = differs[tensors, places] & (self._range_of == ranges[:, None])
        columns = inside.argmax(axis=1)
        keys = zip(tensors.tolist(), ranges.tolist(), strict=True)
        firsts = zip(
            rows[places].tolist(),
            (columns - self._starts[ranges]).tolist(),
            a[tensors, places, columns],
            b[tensors, places, columns],
            strict=True,
        )
        for key, (row, column, x, y) in zip(keys, firsts, strict=True):
            if key not in self._first:
                self._first[key] = _First(row, column, _plain(x), _plain(y))

    def diffs(self, labels: Sequence[Mapping[str, int | None]]) -> list[list[TensorDiff]]:
        """Return the differences of each tensor, by the names of its ranges."""
        result: list[list[TensorDiff]] = [[] for _ in labels]
        if not self._first:
            return result
        shape = self._count.shape  # of what are no numbers, there is one distance for all
        count = self._count.tolist()
        max_abs = np.broadcast_to(self._max_abs, shape).tolist()
        max_ulp = np.broadcast_to(self._max_ulp, shape).tolist()
        named = [list(each.items()) for each in labels]
        for (tensor, index), first in sorted(self._first.items(), key=itemgetter(0)):
            label, wide = named[tensor][index]
            shape = self._shape if wide is None else (*self._shape[:-1], wide)
            distance = max_abs[tensor][index]
            result[tensor].append(
                TensorDiff(
                    name=label,
                    reason="values",
                    a=first.a,
                    b=first.b,
                    first=_index(first.row, first.column, shape),
                    count=count[tensor][index],
                    size=math.prod(shape),
                    # What differs and is no NaN is a step apart.
                    max_ulp=max_ulp[tensor][index] or None,
                    max_abs=None if distance < 0 else distance,
                )
            )
        return result


class _First(NamedTuple):
    """The first difference: its row, its column in the range, and both values."""

    row: int
    column: int
    a: Any
    b: Any


def _index(row: int, column: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of an element, from its row and column in the matrix view."""
    if not shape:
        return ()
    index = [column]
    for axis in reversed(shape[:-1]):
        row, place = divmod(row, axis)
        index.insert(0, place)
    return tuple(index)


def compare_all(
    pairs: Iterable[Compared], within: Within | None = None
) -> Iterator[list[TensorDiff]]:
    """Yield the differences of each pair of tensors.

    Files have thousands of small tensors. As many pairs as have half a buffer of them are taken at
    once, before what they differ in is yielded.

    Args:
        pairs: the tensors.
        within: how much numbers may differ, whatever their float dtypes; None: not in a bit.
    """
    batch, size, most = list[Compared](), 0, _small_bytes()
    for pair in pairs:
        batch.append(pair)
        if pair.a is not None and pair.a.nbytes <= most:
            size += pair.a.nbytes
        if size >= BUFFER_BYTES // 2 or len(batch) >= _AT_ONCE:
            yield from _batch(batch, within)
            batch, size = [], 0
    yield from _batch(batch, within)


def _batch(pairs: Sequence[Compared], within: Within | None) -> list[list[TensorDiff]]:
    """Return the differences of each of some pairs. Small tensors that lie near each other are read
    together; those of one kind that differ are looked at together."""
    result: list[list[TensorDiff]] = [[] for _ in pairs]
    places, tensors_a, tensors_b = list[int](), list[Tensor](), list[Tensor]()
    most = _small_bytes()
    for place, (labels, a, b) in enumerate(pairs):
        if a is not None and b is not None and a.nbytes <= most and _is_one_kind(a, b):
            places.append(place)
            tensors_a.append(a)
            tensors_b.append(b)
        else:
            result[place] = _compared(labels(), a, b, within)
    all_a, all_b = _stored(tensors_a), _stored(tensors_b)
    progress.advance(sum([len(data) for data in all_a]))
    kinds: dict[Hashable, list[_Differing]] = {}
    for place, a, data_a, data_b in zip(places, tensors_a, all_a, all_b, strict=True):
        if data_a != data_b:
            named = pairs[place].labels()
            kind = a.shape, a.dtype, *named.values()
            kinds.setdefault(kind, []).append(_Differing(place, named, a, data_a, data_b))
    for alike in kinds.values():
        first = alike[0].tensor
        shape = len(alike), *first.matrix_shape
        tallies = _Tallies(alike[0].labels, first, within if is_float(first.dtype) else None)
        sides = ([each.data_a for each in alike], [each.data_b for each in alike])
        stacks = [np.frombuffer(b"".join(side), first.dtype).reshape(shape) for side in sides]
        tallies.add(0, *stacks)
        diffs = tallies.diffs([each.labels for each in alike])
        for each, differences in zip(alike, diffs, strict=True):
            result[each.place] = differences
    return result


class _Differing(NamedTuple):
    """A small tensor that differs: its place among the pairs, its labels, and the bytes of both."""

    place: int
    labels: Mapping[str, int | None]
    tensor: Tensor
    data_a: bytes | bytearray
    data_b: bytes | bytearray


def _small_bytes() -> int:
    """Return how many bytes a tensor has at most that is read at once."""
    return min(SMALL, BUFFER_BYTES // 2)


def _is_one_kind(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and one dtype, of which the bytes are the numbers."""
    return a.shape == b.shape and a.dtype == b.dtype and a.dtype.kind != "O"


def _stored(tensors: Sequence[Tensor]) -> list[bytes | bytearray]:
    """Return the elements of small tensors in C order, little-endian."""
    result: list[bytes | bytearray] = []
    in_files: dict[SourceFile, list[tuple[int, int, int]]] = {}
    for index, tensor in enumerate(tensors):
        if type(tensor) is FileTensor and tensor.is_little_endian:
            places = in_files.setdefault(tensor.source, [])
            places.append((tensor.offset, tensor.nbytes, index))
            result.append(b"")
        else:
            rows = tensor.rows(0, tensor.matrix_shape[0])
            result.append(little_endian(rows).tobytes())
    for source, places in in_files.items():
        places.sort()
        for run in _runs(places):
            begin = run[0][0]
            data = source.read_at(begin, max([offset + size for offset, size, _ in run]) - begin)
            for offset, size, index in run:
                result[index] = data[offset - begin : offset - begin + size]
    return result


def _runs(places: Sequence[tuple[int, int, int]]) -> Iterator[Sequence[tuple[int, int, int]]]:
    """Cut places in a file, in order, where what lies between two is not worth reading."""
    start = 0
    for index in range(1, len(places)):
        before, size, _ = places[index - 1]
        if places[index][0] - before - size > _GAP:
            yield places[start:index]
            start = index
    if places:
        yield places[start:]


def _compared(
    labels: Mapping[str, int | None], a: Tensor | None, b: Tensor | None, within: Within | None
) -> list[TensorDiff]:
    """Return the differences of two tensors, of any size."""
    name = next(iter(labels))
    if a is None or b is None:
        if a is b:
            return []
        return [TensorDiff(name=name, reason="missing", a=_shape(a), b=_shape(b))]
    if a.shape != b.shape:
        return [TensorDiff(name=name, reason="shape", a=_shape(a), b=_shape(b))]
    are_numbers = is_float(a.dtype) and is_float(b.dtype)
    if a.dtype.name != b.dtype.name and (within is None or not are_numbers):
        return [
            TensorDiff(name=label, reason="dtype", a=a.dtype.name, b=b.dtype.name)
            for label in labels
        ]
    tallies = _Tallies(labels, a, within if are_numbers else None)
    # Half a buffer for each side, or as much as one of them reads at once.
    for start, stop in a.slabs(max(BUFFER_BYTES // 2, b.grain)) if a.size else ():
        rows_a, rows_b = a.rows(start, stop), b.rows(start, stop)
        progress.advance(rows_a.nbytes)
        tallies.add(start, rows_a[None], rows_b[None])
        del rows_a, rows_b  # before the next are read: of a turned matrix they are large
    return tallies.diffs([labels])[0]


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
def _distance(a: Array, b: Array) -> Array | None:
    """Return how far apart the numbers of two arrays are; None for no numbers."""
    if not (is_float(a.dtype) and is_float(b.dtype)):
        return None
    return np.asarray(np.abs(a.astype(np.float64) - b.astype(np.float64)))


def differing(a: Array, b: Array) -> Array:
    """Return where two arrays of one shape and dtype differ in any bit."""
    if a.dtype.kind == "O":
        return np.asarray(a != b, dtype=bool)
    bits_a, bits_b = bits(a), bits(b)
    if bits_a.size == a.size:
        return np.asarray(bits_a != bits_b).reshape(a.shape)
    return np.asarray((bits_a != bits_b).reshape(a.size, -1).any(axis=1)).reshape(a.shape)


def max_ulp(a: Array, b: Array) -> int | None:
    """Return the largest distance of two arrays in units of the last place, NaN left out."""
    steps = _steps(a, b)
    if steps is None or not steps[1].any():
        return None
    return int(steps[0][steps[1]].max())


def _steps(a: Array, b: Array) -> tuple[Array, Array] | None:
    """Return the distances of two arrays of floats in units of the last place, and where they mean
    something: where neither is NaN. None of other dtypes.

    Read as integers, positive floats are in order of size, and negative ones are once their bits
    are inverted. The distance is the number of floats between.
    """
    masks = float_bits(a.dtype)
    if masks is None:
        return None
    bits_a, bits_b = bits(a).reshape(a.shape), bits(b).reshape(b.shape)
    number = bits_a.dtype.type
    sign = number(masks.sign)
    ordered = [np.where(x & sign, ~x, x | sign) for x in (bits_a, bits_b)]
    is_nan = [(x & number(masks.sign - 1)) > masks.exponent for x in (bits_a, bits_b)]
    return np.maximum(*ordered) - np.minimum(*ordered), ~(is_nan[0] | is_nan[1])


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
