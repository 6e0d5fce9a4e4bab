"""Attacks on MATLAB's files, the first two of which SciPy's reader dies of."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from support.crafted import Bench
from support.crafted_others import Files, attack, main_of, plain, put

plain("mat")


def _mat(label: str, refused: str, element: bytes | Callable[[], bytes]) -> None:
    def change(found: Files, bench: Bench) -> None:
        data = main_of(found)
        more = element if isinstance(element, bytes) else element()
        put(found, data[:128] + more + data[128:])

    change.__name__ = label
    attack("mat", refused)(change)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _matrix(
    body: bytes, kind: int = 7, shape: tuple[int, ...] = (1, 2), name: bytes = b"x"
) -> bytes:
    """A matrix; kind 7 is single."""
    flags = _element(6, struct.pack("<II", kind, 0))
    dims = _element(5, struct.pack(f"<{len(shape)}i", *shape))
    return _element(14, flags + dims + _element(1, name) + body)


def _packed(element: bytes) -> bytes:
    data = zlib.compress(element, 9)
    return struct.pack("<II", 15, len(data)) + data


_TWO = _element(7, bytes(8))


def _structs(depth: int) -> bytes:
    body = _matrix(_TWO, name=b"")
    for _ in range(depth):
        names = _element(5, struct.pack("<i", 8)) + _element(1, b"a".ljust(8, b"\0"))
        body = _matrix(names + body, 2, (1, 1), b"")
    return body.replace(struct.pack("<II", 1, 0), struct.pack("<HH4s", 1, 1, b"s"), 1)


_mat("type_of_no_table", "no numbers in x", _matrix(_element(0x4444, bytes(8))))
_mat("type_in_a_short_element", "no numbers in x", _matrix(struct.pack("<HH4x", 0x7777, 4)))
_mat("element_cut", "too long", _matrix(_TWO)[:-1])
_mat("huge_shape", "above the limit", _matrix(_TWO, shape=(1 << 30, 1 << 30)))
_mat("large_shape", "not as long as its shape", _matrix(_TWO, shape=(1, 1 << 20)))
_mat("negative_axes", "not the dimensions", _matrix(_TWO, shape=(-1, -2)))
_mat("many_axes", "above the limit", _matrix(_TWO, shape=(1, 2, *[1] * 90)))
_mat("one_axis", "not the dimensions", _matrix(_TWO, shape=(2,)))
_mat("beyond_the_end", "truncated", struct.pack("<II", 14, 1 << 31) + bytes(64))
_mat("short_of_a_hundred", "too long", struct.pack("<HH4x", 14, 100))
_mat("no_array", "not an array", _element(9, bytes(8)))
_mat("control_characters", "a name that no variable has", _matrix(_TWO, name=b"\x1b[31m\r\n"))
_mat("name_of_no_text", "not ASCII", _matrix(_TWO, name=b"\xff\xfe"))
_mat("name_with_a_dot", "a name that no variable has", _matrix(_TWO, name=b"../../x"))
_mat("two_of_one_name", "has twice", _matrix(_TWO) * 2)
_mat("more_than_its_numbers", "more data", _matrix(_TWO * 2))
_mat("numbers_of_another_class", "is stored as", _matrix(_element(9, bytes(16)), kind=9))
_mat("deep", "above the limit", _structs(3000))
_mat("of_empty_arrays", "above the limit", lambda: b"".join(
    _matrix(_element(7, b""), shape=(0, 0), name=b"a%d" % number) for number in range(101_000)
))  # fmt: skip
_mat(
    "bomb", "expands beyond",
    lambda: _packed(_matrix(_element(7, bytes(1 << 27)), shape=(1, 1 << 25))),
)  # fmt: skip
_mat(
    "bomb_in_many_small_ones", "expands beyond",
    lambda: _packed(_matrix(_element(7, bytes(1 << 25)), shape=(1, 1 << 23), kind=4)) * 20,
)  # fmt: skip
_mat("packed_twice", "not an array", _packed(_element(15, zlib.compress(_matrix(_TWO)))))
_mat("damaged_stream", "damaged", _packed(_matrix(_TWO))[:-1] + b"\0")
_mat("stream_cut_off", "cut off", struct.pack("<II", 15, 10) + zlib.compress(bytes(4000))[:10])
_mat(
    "bytes_behind_a_stream", "after a compressed",
    _element(15, _packed(_matrix(_TWO))[8:] + bytes(9)),
)  # fmt: skip


@attack("mat", "which is not read")
def of_hdf5(found: Files, bench: Bench) -> None:
    put(found, b"MATLAB 7.3 MAT-file" + main_of(found)[19:])


@attack("mat", "no head")
def of_another_level(found: Files, bench: Bench) -> None:
    data = main_of(found)
    put(found, data[:124] + b"\0\3" + data[126:])
