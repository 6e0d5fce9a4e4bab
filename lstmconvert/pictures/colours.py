"""The colours of pictures: one scale for values, one colour for each gate, light and dark.

The scale runs from blue (negative) over the neutral colour of a zero to orange (positive). It has
`LEVELS` colours, between stops that were chosen so that lightness falls evenly both ways and
colour-blind readers can tell the two sides. The gates' colours avoid the scale's blue and orange
and can be told in the same way; a gate always carries its letter too, and a sign is always printed
or read out, so nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from lstmconvert.model.gates import Gate
from lstmconvert.tensors.dtypes import Array

#: How many colours the scale has; the middle one is zero's.
LEVELS = 41
MIDDLE = LEVELS // 2
#: Colours at -1, -2/3, -1/3, 0, 1/3, 2/3 and 1 of the scale.
_STOPS = {
    "light": ("#123f7d", "#3a78bd", "#9cc0e4", "#f1f1ef", "#f2b48a", "#cc5f22", "#7d2c05"),
    "dark": ("#9fd0ff", "#4a92dd", "#2b568f", "#2a2d33", "#8a4318", "#e07b35", "#ffc189"),
}
#: Numbers that are not finite have a colour that the scale does not have.
NOT_FINITE = {"light": "#e6007e", "dark": "#ff4fb0"}
THEMES = tuple(_STOPS)
#: Colours of the page, by theme.
PAGE = {
    "light": {
        "card": "#fff",
        "page": "#f7f7f5",
        "ink": "#1a1c1f",
        "quiet": "#5a5f66",
        "line": "#dcdcd8",
        "focus": "#0b57d0",
        "i": "#284621",
        "f": "#6855d6",
        "c": "#846c1b",
        "o": "#a01675",
        "chip": "#fff",
    },
    "dark": {
        "card": "#1b1d21",
        "page": "#121418",
        "ink": "#eceae6",
        "quiet": "#a5a9b0",
        "line": "#353941",
        "focus": "#8ab4ff",
        "i": "#63e6d5",
        "f": "#9a91ff",
        "c": "#f0c630",
        "o": "#f0758a",
        "chip": "#15171a",
    },
}


def gate(name: Gate, theme: str = "light") -> str:
    """Return a gate's colour, `#rrggbb`."""
    return PAGE[theme][name.letter]


@cache
def scale(theme: str = "light") -> tuple[str, ...]:
    """Return the `LEVELS` colours from the most negative to the most positive, `#rrggbb`.

    Between the stops the colours run straight in OKLab (Ottosson 2020), in which equal steps look
    equal.
    """
    stops = np.stack([_to_oklab(_rgb(text)) for text in _STOPS[theme]])
    places = np.linspace(0, len(stops) - 1, LEVELS)
    mixed = np.stack([np.interp(places, range(len(stops)), stops[:, axis]) for axis in range(3)], 1)
    return tuple(_text(_from_oklab(colour)) for colour in mixed)


@cache
def inks(theme: str = "light") -> tuple[str, ...]:
    """Return for each level the ink, black or white, that stands out more on it."""
    dark, light = "#000", "#fff"
    return tuple(
        dark if contrast(dark, colour) >= contrast(light, colour) else light
        for colour in scale(theme)
    )


def levels(values: Array, limit: float) -> Array:
    """Return the level of each value, 0 to `LEVELS` - 1, on a scale from -limit to limit.

    Args:
        values: finite numbers.
        limit: the value that takes the last colour; beyond it the colour stays the same.
    """
    with np.errstate(all="ignore"):
        part = np.clip(values / (limit or 1.0), -1, 1)
    return np.floor((part + 1) * MIDDLE + 0.5).astype(np.int64)


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def rgb_bytes(colours: Sequence[str]) -> bytes:
    """Return colours as three bytes each."""
    return b"".join(bytes(round(255 * part) for part in _rgb(text)) for text in colours)


def _rgb(text: str) -> tuple[float, ...]:
    digits = text.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    return tuple(int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))


def _text(rgb: Array) -> str:
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in np.clip(rgb, 0, 1))


def _luminance(text: str) -> float:
    red, green, blue = (float(part) for part in _linear(np.array(_rgb(text))))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(srgb: Array) -> Array:
    """IEC 61966-2-1: sRGB to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


#: Linear sRGB to cone responses, and their cube roots to OKLab (bottosson.github.io/posts/oklab).
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _to_oklab(rgb: Sequence[float]) -> Array:
    lab: Array = _TO_LAB @ np.cbrt(_TO_CONES @ _linear(np.array(rgb)))
    return lab


def _from_oklab(lab: Array) -> Array:
    linear = np.linalg.solve(_TO_CONES, np.linalg.solve(_TO_LAB, lab) ** 3)
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
