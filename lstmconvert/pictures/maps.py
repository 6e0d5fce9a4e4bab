"""Numbers as heat maps: pictures for a reader without scripts, and the same numbers for the script.

A map's picture is a PNG (Portable Network Graphics, third edition): the same bytes for the same
numbers, though another zlib may pack otherwise. Its palette index is the number's level, so the
script that reads the picture's bytes has the number again to half a step. What a level cannot hold
(the few numbers beyond the levels, biases, and whole small maps) goes along exactly.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstmconvert.pictures import colours
from lstmconvert.tensors.dtypes import Array

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE_COLOURS = 3  # colour type of an image whose samples are indices of a palette


def png(indices: Array, palette: bytes) -> bytes:
    """Return an 8-bit palette PNG.

    Args:
        indices: (rows, columns), unsigned bytes.
        palette: three bytes for each colour.
    """
    height, width = indices.shape
    lines = np.zeros((height, width + 1), np.uint8)  # a line begins with its filter: 0, none
    lines[:, 1:] = indices
    # Noise compresses by its entropy alone: looking for few and long matches wastes bytes.
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    packed = packer.compress(lines.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, _PALETTE_COLOURS, 0, 0, 0)
    return _SIGNATURE + b"".join(
        _chunk(*part)
        for part in ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", packed), (b"IEND", b""))
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


#: Levels on either side of zero, from fine to coarse: the first whose pictures take no more than
#: `_ROOM` characters a number is taken. Noise that fills its range evenly needs the coarser ones.
HALVES = (80, 60, 48, 40)
_ROOM = 1.05
#: How much of a set of numbers is within the levels, and the parts that colours may span.
WITHIN = 0.999
SPANS = (0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Levels:
    """How numbers become palette indices.

    Fields: `half`, how many levels either side of zero's has; `reach`, the number at the last
    level; `limit`, the number at the last colour; `centre`, the number at the middle level.

    Indices 0 to 2·half are levels, 2·half + 1 is a number that is not finite, and 2·half + 2 a
    difference that is not zero and too small for a level.
    """

    half: int
    reach: float
    limit: float
    centre: float = 0.0

    @property
    def not_finite(self) -> int:
        return 2 * self.half + 1

    @property
    def small(self) -> int:
        return 2 * self.half + 2

    def indices(self, numbers: Array, marks: Array | None = None) -> Array:
        """Return the palette index of each number, (rows, columns) of bytes.

        Args:
            numbers: (rows, columns).
            marks: where a difference is not zero, bit for bit.
        """
        with np.errstate(all="ignore"):
            steps = np.rint((numbers - self.centre) * (self.half / (self.reach or 1.0)))
            result = np.clip(steps, -self.half, self.half) + self.half
        if marks is not None:
            result[marks & (result == self.half)] = self.small
        result[~np.isfinite(numbers)] = self.not_finite
        return result.astype(np.uint8)

    def palette(self) -> bytes:
        """Return the colours of all indices, in the light theme."""
        values = np.arange(-self.half, self.half + 1) * (self.reach / self.half)
        scale = colours.scale()
        texts = [scale[level] for level in colours.levels(values, self.limit)]
        texts += [colours.NOT_FINITE["light"], colours.PAGE["light"]["quiet"]]
        return colours.rgb_bytes(texts)

    def beyond(self, numbers: Array) -> list[str]:
        """Return the places and values of finite numbers beyond the levels, as `packed` texts."""
        flat = numbers.ravel()
        with np.errstate(all="ignore"):
            places = np.flatnonzero((np.abs(flat - self.centre) > self.reach) & np.isfinite(flat))
        if not len(places):
            return []
        return [packed(places.astype("<u4")), packed(flat[places].astype("<f4"))]


def levels_for(maps: Sequence[Array], sizes: Array, limit: float) -> Levels:
    """Return levels whose pictures are small enough.

    Args:
        maps: the numbers of each picture, (rows, columns).
        sizes: what is measured to find how far the levels reach: finite sizes of numbers.
        limit: the number at the last colour.
    """
    reach = max(quantile(sizes, WITHIN), limit)
    total = sum(numbers.size for numbers in maps)
    for half in HALVES:
        levels = Levels(half, reach, limit)
        if half == HALVES[-1] or total * _entropy(maps, levels) / 6 <= _ROOM * total:
            return levels
    raise AssertionError("the last one is always taken")


def _entropy(maps: Sequence[Array], levels: Levels) -> float:
    """Return the bits that a level of these maps takes when it is packed well."""
    counts = np.zeros(256)
    for numbers in maps:
        counts += np.bincount(levels.indices(numbers).ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def quantile(sizes: Array, part: float) -> float:
    """Return the size that so large a part of all does not exceed; 0 of none."""
    if not len(sizes):
        return 0.0
    place = min(len(sizes) - 1, max(0, math.ceil(part * len(sizes)) - 1))
    return float(np.partition(sizes, place)[place])


def picture(numbers: Array, levels: Levels, marks: Array | None = None) -> bytes:
    """Return a map as a PNG, a pixel for each number."""
    return png(levels.indices(numbers, marks), levels.palette())


def packed(numbers: Array) -> str:
    """Return an array's bytes, little-endian, as base64 text."""
    array = np.ascontiguousarray(numbers)
    array = array.astype(array.dtype.newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode("ascii")


def inline(picture_bytes: bytes) -> str:
    """Return a PNG as base64 text."""
    return base64.b64encode(picture_bytes).decode("ascii")


def step_text(levels: Levels) -> float:
    """Return half a step between levels, rounded up to one digit: how far a reading may be off."""
    half = levels.reach / levels.half / 2
    power = 10.0 ** math.floor(math.log10(half)) if half else 1.0
    return float(f"{math.ceil(half / power - 1e-9) * power:.0e}")
