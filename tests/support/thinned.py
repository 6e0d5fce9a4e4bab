"""How much of a product of parameters is run.

By default a covering set, and few rounds of what is random; all with LSTMCONVERT_TESTS=all.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

#: Whether everything is run.
ALL = os.environ.get("LSTMCONVERT_TESTS") == "all"


def rounds(most: int) -> int:
    """Return how many of so many random examples are tried: other ones in each run."""
    return most if ALL else max(min(most, 6), most // 4)


def pairs(
    *axes: Iterable[Any], fits: Callable[..., bool] = lambda *_: True
) -> list[tuple[Any, ...]]:
    """Return rows of the product in which any two values of two axes meet, or the whole product.

    The same axes give the same rows in every process. Rows that `fits` refuses are left out.
    """
    values: list[Sequence[Any]] = [list(axis) for axis in axes]
    rows = [row for row in itertools.product(*values) if fits(*row)]
    if ALL:
        return rows
    # Places, not values: values need not be hashable.
    places = [tuple(axis.index(v) for axis, v in zip(values, row, strict=True)) for row in rows]
    meets = [set(itertools.combinations(enumerate(place), 2)) for place in places]
    missing = set().union(*meets)
    chosen = []
    while missing:
        best = max(range(len(rows)), key=lambda i: len(meets[i] & missing))
        chosen.append(best)
        missing -= meets[best]
    return [rows[i] for i in sorted(chosen)]


def turns(items: Iterable[Any], other: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return each item once, with the values of the other axis in turn, or the whole product."""
    if ALL:
        return list(itertools.product(items, other))
    return [(item, other[i % len(other)]) for i, item in enumerate(items)]


def groups(names: Iterable[str], size: int) -> list[Any]:
    """Return parameters of so many names each: what is built for one test is built for several."""
    every = list(names)
    parts = [every[i : i + size] for i in range(0, len(every), size)]
    return [pytest.param(part, id=f"{part[0]} to {part[-1]}") for part in parts]
