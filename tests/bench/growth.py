"""How cost grows: a power law through measured points, whose exponent shows what is not linear."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return b of the power law `cost = a * size ** b` that fits points best, by least squares of
    the logarithms. Weights are the costs: small ones are mostly noise.

    Args:
        sizes, costs: of at least two points; above zero.
    """
    xs, ys = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    total = sum(costs)
    x_mean = sum(x * w for x, w in zip(xs, costs, strict=True)) / total
    y_mean = sum(y * w for y, w in zip(ys, costs, strict=True)) / total
    points = list(zip(xs, ys, costs, strict=True))
    above = sum(w * (x - x_mean) * (y - y_mean) for x, y, w in points)
    return above / sum(w * (x - x_mean) ** 2 for x, _, w in points)
