"""Statistics of weights, taken in one streaming pass: what `inspect --stats` shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lstmconvert.model.layer import Cell
from lstmconvert.tensors.dtypes import Array, DType, bits
from lstmconvert.tensors.streaming import pour


class FloatBits(NamedTuple):
    """Where a binary floating-point format keeps its sign, exponent and fraction (IEEE 754;
    bfloat16 is the upper half of a float32)."""

    sign: int
    exponent: int
    fraction: int


def float_bits(dtype: DType) -> FloatBits | None:
    """Return the masks of a float dtype; None for any other."""
    fractions = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
    if dtype.name not in fractions:
        return None
    sign = 1 << (8 * dtype.itemsize - 1)
    fraction = (1 << fractions[dtype.name]) - 1
    return FloatBits(sign, (sign - 1) & ~fraction, fraction)


@dataclass(slots=True)
class Stats:
    """Counts and moments of an array.

    Fields: `count`; `nan`, `inf`, `negative_zero`, `denormal`: how many elements are that; and of
    the finite elements `min`, `max`, `mean`, `std` (of the population), None without any.
    """

    count: int = 0
    nan: int = 0
    inf: int = 0
    negative_zero: int = 0
    denormal: int = 0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    _finite: int = 0
    _square: float = 0.0  # sum of squared distances from the mean

    @property
    def std(self) -> float | None:
        return math.sqrt(self._square / self._finite) if self._finite else None

    def add(self, piece: Array) -> None:
        """Take in one piece of the array."""
        self.count += piece.size
        self._count_odd(piece)
        with np.errstate(invalid="ignore"):  # to widen a signalling NaN is an invalid operation
            numbers = piece.reshape(-1).astype(np.float64)
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            self._merge(numbers)

    def _count_odd(self, piece: Array) -> None:
        masks = float_bits(piece.dtype)
        if masks is None:
            return
        raw = bits(piece)
        exponent, fraction = (
            raw & raw.dtype.type(masks.exponent),
            raw & raw.dtype.type(masks.fraction),
        )
        special = exponent == masks.exponent
        self.nan += int(np.count_nonzero(special & (fraction != 0)))
        self.inf += int(np.count_nonzero(special & (fraction == 0)))
        self.negative_zero += int(np.count_nonzero(raw == masks.sign))
        self.denormal += int(np.count_nonzero((exponent == 0) & (fraction != 0)))

    def _merge(self, numbers: Array) -> None:
        # Chan, Golub and LeVeque's pairwise update: the mean of a large array loses no digits.
        low, high, mean = float(numbers.min()), float(numbers.max()), float(numbers.mean())
        with np.errstate(over="ignore"):
            square = float(np.square(numbers - mean).sum())
        if self.mean is None or self.min is None or self.max is None:
            self.min, self.max, self.mean = low, high, mean
            self._finite, self._square = numbers.size, square
            return
        total = self._finite + numbers.size
        step = mean - self.mean
        self._square += square + step * step * self._finite * numbers.size / total
        self.mean += step * numbers.size / total
        self.min, self.max = min(self.min, low), max(self.max, high)
        self._finite = total

    def to_json(self) -> dict[str, int | float | None]:
        """Return all fields by name."""
        return {
            "count": self.count,
            "min": self.min,
            "max": self.max,
            "mean": self.mean,
            "std": self.std,
            **self.odd(),
        }

    def odd(self) -> dict[str, int]:
        """Return the counts of what weights rarely hold."""
        return {
            "nan": self.nan,
            "inf": self.inf,
            "negative_zero": self.negative_zero,
            "denormal": self.denormal,
        }


def cell_stats(cell: Cell) -> dict[str, dict[str, Stats]]:
    """Return gate -> part -> statistics, each weight read once; a cell's own parts under `""`."""
    names = dict(cell.tensors())
    stats_of = {name: Stats() for name in names}
    pour(names.items(), lambda name, _offset, piece: stats_of[name].add(piece))
    result: dict[str, dict[str, Stats]] = {}
    for name, stats in stats_of.items():
        gate, _, part = name.rpartition("_gate.")
        result.setdefault(gate, {})[part] = stats
    return result
