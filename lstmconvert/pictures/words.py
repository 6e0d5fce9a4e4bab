"""Words and numbers of a page: escaped, with a real minus sign, in a few digits."""

from __future__ import annotations

import html
import math

from lstmconvert.checks import words
from lstmconvert.errors import printable
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import Gate
from lstmconvert.model.options import Unknown

MINUS = "−"
#: Gate -> its letter in equations. The cell gate's is what others call c tilde, g or z.
SYMBOLS = {Gate.INPUT: "i", Gate.FORGET: "f", Gate.CELL: "c̃", Gate.OUTPUT: "o"}
#: It stands for a function that no file names.
UNKNOWN_FUNCTION = "act?"
_FUNCTIONS = {"sigmoid": "σ", "hard_sigmoid": "hard σ", "linear": "id"}


def escaped(text: object) -> str:
    """Return text from a file as HTML text: no markup, no control or direction characters."""
    return html.escape(printable(text))


def minus(text: str) -> str:
    """Return a number's text with the typographic minus sign."""
    return text.replace("-", MINUS)


def exact(value: float, itemsize: int = 4) -> str:
    """Return the shortest text that tells a float32 (float64 for `itemsize` 8) from all others."""
    return minus(words.exact(value, itemsize))


def rounded(value: float) -> str:
    """Return three significant digits: `0.534`, `12.3`, `1,234`, `4.20e−5`, `∞`."""
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value and abs(value) >= 999.5:
        return minus(f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.2e}".replace("e+", "e"))
    return minus(
        words.fixed(value, max(0, words.decimals(value, 3)), 3)
        if abs(value) >= 1e-4 or not value
        else words.fixed(value, words.EXPONENT, 3)
    )


def function(value: Activation | Unknown | None) -> str:
    """Return how an equation writes a function: `σ`, `tanh`, `act?`, as HTML text."""
    if not isinstance(value, Activation):
        return UNKNOWN_FUNCTION
    return _FUNCTIONS.get(value.name, escaped(value.name))


def ceiling(value: float, digits: int = 3) -> float:
    """Return a number rounded up to a number of significant digits."""
    if not value or not math.isfinite(value):
        return 1.0
    power = math.floor(math.log10(value)) - digits + 1
    step = 10.0**power
    up = math.ceil(value / step - 1e-9) * step
    return float(f"{up:.{digits - 1}e}")
