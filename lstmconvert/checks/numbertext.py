"""Weights as text: all with the same number of digits, or the shortest text that reads back.

Numbers that are compared by eye have one number of decimals, chosen so that the largest of them
shows the digits asked for. A zero is `0`, a stored minus zero `-0`, and what would round to zero is
written with an exponent, so that no weight reads as zero that is not.
"""

from __future__ import annotations

import math

import numpy as np

from lstmconvert.tensors.dtypes import Array

#: Beyond these powers of ten, decimals say less than an exponent does.
_SMALL, _LARGE = -4, 7
#: Decimals that mean "write every number with an exponent".
EXPONENT = -1


def decimals(largest: float, digits: int) -> int:
    """Return how many decimals show `digits` significant digits of a number of this size.

    Returns:
        0 or more, or `EXPONENT` for numbers that are all too small or too large for decimals.
    """
    if not largest or not math.isfinite(largest):
        return digits
    power = math.floor(math.log10(abs(largest)))
    if not _SMALL <= power < _LARGE:
        return EXPONENT
    return max(0, digits - 1 - power)


def fixed(value: float, places: int, digits: int) -> str:
    """Return a number as text.

    Args:
        value: the number.
        places: how many decimals, as `decimals` counts them.
        digits: how many significant digits, where there are no decimals.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    if places == EXPONENT:
        return _exponent(value, digits - 1)
    text = f"{value:.{places}f}"
    return _exponent(value, 0) if float(text) == 0 else text


def _exponent(value: float, places: int) -> str:
    mantissa, _, power = f"{value:.{places}e}".partition("e")
    return f"{mantissa}e{int(power)}"


def exact(value: float, itemsize: int = 4) -> str:
    """Return the shortest text that reads back as the same float32 (float64 for `itemsize` 8)."""
    if not math.isfinite(value) or value == 0:
        return fixed(value, 0, 1)
    return str(np.float64(value) if itemsize == 8 else np.float32(value)).removesuffix(".0")


def plain(array: Array) -> Array:
    """Return weights as float64 numbers that print as the shortest text of a float32.

    The numbers of 16-bit types are widened to float32, exactly; float64 stays as it is.
    """
    if array.dtype.itemsize == 8:
        return array
    with np.errstate(invalid="ignore"):  # to widen a signalling NaN is an invalid operation
        return array.astype(np.float32).astype(str).astype(np.float64)
