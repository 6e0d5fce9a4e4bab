"""Checksums: CRC-32C, and when it is compared.

CRC-32C (Castagnoli) is computed by Google's library, and without it by NumPy, twenty times slower.
A CRC is linear: a word `d` bytes before the end weighs as much as the word `w · x^(8d)` at the end.
So a chunk is folded in half: the first half, multiplied by that power, is XORed into the second.
Folds bring 256 KiB down to a few bytes. Multiplying is four look-ups, one for each byte of a word.

A reader that has a checksum compares it when the first of its numbers is asked for. The writer of a
file does not hand numbers out before the file has its name: inside `checking_later` they are read
at once, and what was read is checked at the end, so that one pass over a file may do both.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]
Data = bytes | bytearray | memoryview | np.ndarray[Any, np.dtype[np.uint8]]

#: The polynomial of RFC 3720, reflected.
_POLYNOMIAL = 0x82F63B78
#: TensorFlow and LevelDB store `rotate(crc) + delta` (tensorflow/core/lib/hash/crc32c.h), because
#: a CRC over data that holds a CRC is a poor check.
_MASK_DELTA = 0xA282EAD8
_ALL = 0xFFFFFFFF
#: Bytes in a chunk: what the caches hold (measured: the fastest of 2 ** 14 to 2 ** 20).
_CHUNK = 1 << 18
#: Up to this number of bytes, a loop over them is faster than NumPy's calls.
_FEW = 256


def crc32c(data: Data, crc: int = 0) -> int:
    """Return the CRC-32C of `data`, or of what `crc` was computed over followed by `data`.

    Args:
        data: bytes, or a contiguous array of them.
    """
    extend = _library()
    if type(data) is bytes and data and extend is not None:
        return extend(crc, data)
    if extend is None or not len(data):
        return by_numpy(data, crc)
    # The library takes no writable memory, nor a `memoryview`.
    view = np.frombuffer(data, np.uint8)
    view.flags.writeable = False
    return extend(crc, view)


def crc32c_each(pieces: Iterable[bytes]) -> list[int]:
    """Return the CRC-32C of each of many small pieces."""
    extend = _library() or (lambda crc, data: by_numpy(data, crc))
    return [extend(0, piece) for piece in pieces]


@functools.cache
def _library() -> Callable[[int, Any], int] | None:
    try:
        import google_crc32c
    except ImportError:
        return None
    # Without its C part it is slower than NumPy.
    extend: Callable[[int, Any], int] = google_crc32c.extend
    return extend if google_crc32c.implementation == "c" else None


def by_numpy(data: Data, crc: int = 0) -> int:
    """Do what `crc32c` does, without the library."""
    if isinstance(data, np.ndarray):
        data = data.data
    state = crc ^ _ALL
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK]
        if len(part) > _FEW:
            part, state = _folded(part, state), 0
        table = _table()
        for octet in part:
            state = table[(state ^ octet) & 0xFF] ^ state >> 8
    return state ^ _ALL


def followed(crc: int, behind: int, size: int) -> int:
    """Return the CRC-32C of two texts, one behind the other.

    Args:
        crc: of the first.
        behind: of the second.
        size: how many bytes the second has.
    """
    # As in zlib (crc32.c, `crc32_combine`): the first weighs x ** (8 · size) as much.
    for level in range(size.bit_length() if crc else 0):
        if size >> level & 1:
            crc = _product(_weight(level), crc)
    return crc ^ behind


def _product(factor: int, value: int) -> int:
    """Return the product of two polynomials, reflected as a CRC is."""
    result = 0
    for bit in range(31, -1, -1):
        if factor >> bit & 1:
            result ^= value
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return result


@functools.cache
def _weight(level: int) -> int:
    """Return the power of x that as many bytes as `2 ** level` weigh."""
    if level == 0:
        return 1 << 31 - 8
    half = _weight(level - 1)
    return _product(half, half)


def unmask(stored: int) -> int:
    """Return the CRC that a file stores masked as `stored`."""
    rotated = (stored - _MASK_DELTA) & _ALL
    return (rotated >> 17) | (rotated << 15) & _ALL


def _folded(part: bytes | bytearray | memoryview, state: int) -> bytes:
    """Return the few bytes that, from state 0, have the CRC of `part` from `state`."""
    count = 1 << (len(part) - 1).bit_length()
    padded = np.zeros(count, np.uint8)  # zeros in front change nothing, from state 0
    begin = count - len(part)
    padded[begin:] = np.frombuffer(part, np.uint8)
    padded[begin : begin + 4] ^= np.frombuffer(state.to_bytes(4, "little"), np.uint8)
    words: Words = padded.view("<u4")
    while 8 * len(words) > _FEW:  # down to 128 bytes
        half = len(words) // 2
        words = _times(_power(half.bit_length() - 1), words[:half]) ^ words[half:]
    return words.tobytes()


@functools.cache
def _table() -> list[int]:
    """The CRC of each byte, from state 0."""
    bits = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        bits = np.where(bits & 1, (bits >> 1) ^ np.uint32(_POLYNOMIAL), bits >> 1)
    return [int(value) for value in bits]


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


#: Checks that are due at the end of the block, by the thing checked; None outside of any.
_later: ContextVar[dict[int, Callable[[], None]] | None] = ContextVar("_later", default=None)


@contextlib.contextmanager
def checking_later() -> Iterator[None]:
    """Let numbers be read before they are checked, and check them at the end of the block.

    Another thread checks at once, as the block is not its own.

    Raises:
        CorruptFile: a checksum is wrong.
    """
    later: dict[int, Callable[[], None]] = {}
    token = _later.set(later)
    try:
        yield
    finally:
        _later.reset(token)
    for check in later.values():
        check()


def at_the_end(item: object, check: Callable[[], None]) -> bool:
    """Have something checked at the end of the block of `checking_later` that we are in.

    Args:
        item: what is checked, once.
        check: raises `CorruptFile`.

    Returns:
        False if no block has these bytes: then they must be checked now.
    """
    later = _later.get()
    if later is None:
        return False
    later[id(item)] = check
    return True


class Check:
    """A check that is made once, when it is due.

    Args:
        compare: reads what is to be checked, and raises `CorruptFile` if a checksum is wrong.
    """

    __slots__ = ("_compare", "is_done")

    def __init__(self, compare: Callable[[], None]) -> None:
        self._compare, self.is_done = compare, False

    def due(self) -> bool:
        """Make the check now, unless it may wait; return whether it has been made.

        Raises:
            CorruptFile: a checksum is wrong.
        """
        if self.is_done:
            return True
        if at_the_end(self, self.now):
            return False
        self.now()
        return True

    def now(self) -> None:
        """Make the check, unless it has been made. Raises as `due`."""
        if not self.is_done:
            self._compare()
            self.is_done = True


#: Held while a running checksum is continued.
running = threading.Lock()
