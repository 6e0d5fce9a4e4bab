"""CRC-32C (Castagnoli), vectorised: half a gigabyte a second with NumPy alone.

A CRC is linear: a word `d` bytes before the end weighs as much as the word `w · x^(8d)` at the end.
So a chunk is folded in half: the first half, multiplied by that power, is XORed into the second.
Eighteen folds bring 256 KiB down to one word. Multiplying is four look-ups, one for each byte.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]

#: The polynomial of RFC 3720, reflected.
_POLYNOMIAL = 0x82F63B78
#: TensorFlow and LevelDB store `rotate(crc) + delta` (tensorflow/core/lib/hash/crc32c.h), because
#: a CRC over data that holds a CRC is a poor check.
_MASK_DELTA = 0xA282EAD8
_ALL = 0xFFFFFFFF
#: Words in a chunk: 2 ** 16, which the caches hold (measured: the fastest of 2 ** 12 to 2 ** 18).
_LEVEL = 16


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """Return the CRC-32C of `data`, or of what `crc` was computed over followed by `data`."""
    stream = np.frombuffer(data, dtype=np.uint8)
    state, step = crc ^ _ALL, 4 << _LEVEL
    for start in range(0, len(stream), step):
        state = _chunk(stream[start : start + step], state)
    return state ^ _ALL


def unmask(stored: int) -> int:
    """Return the CRC that a file stores masked as `stored`."""
    rotated = (stored - _MASK_DELTA) & _ALL
    return (rotated >> 17) | (rotated << 15) & _ALL


def _chunk(part: np.ndarray[Any, np.dtype[np.uint8]], state: int) -> int:
    # The running state is XORed into the first four bytes; zeros before them change nothing.
    level = max(0, (max(4, len(part)) - 1).bit_length() - 2)
    padded = np.zeros((4 << level) + 4, np.uint8)
    begin = len(padded) - len(part)
    padded[begin:] = part
    carried = np.frombuffer(state.to_bytes(4, "little"), np.uint8)
    if len(part) < 4:  # the state reaches behind the data: those bytes are shifted, not folded
        padded[begin:] ^= carried[: len(part)]
        rest = state >> (8 * len(part))
        return _fold(padded[4:].view("<u4"), level) ^ rest
    padded[begin : begin + 4] ^= carried
    return _fold(padded[4:].view("<u4"), level)


def _fold(words: Words, level: int) -> int:
    while level:
        level -= 1
        half = len(words) // 2
        words = _times(_power(level), words[:half]) ^ words[half:]
    return int(_times(_power(0), words)[0])


def _times(tables: Words, words: Words) -> Words:
    """Multiply each word by a power of x: `tables` is its product with every byte, `(4, 256)`."""
    octets = words.view(np.uint8)
    result = np.take(tables[0], octets[0::4])
    for index in (1, 2, 3):
        result ^= np.take(tables[index], octets[index::4])
    return result


@functools.cache
def _power(level: int) -> Words:
    """Return the tables that multiply by `x ** (32 · 2 ** level)`."""
    bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    if level == 0:
        for _ in range(32):
            bits = np.where(bits & 1, (bits >> 1) ^ np.uint32(_POLYNOMIAL), bits >> 1)
    else:
        bits = _times(_power(level - 1), _times(_power(level - 1), bits))
    tables = np.zeros((4, 256), np.uint32)
    for bit in range(32):
        row, low = tables[bit // 8], 1 << bit % 8
        row[low : 2 * low] = row[:low] ^ bits[bit]
    return tables
