"""JSON in and out: strict and bounded on the way in, canonical on the way out.

A config is data. What Python's parser lets through and JSON does not (NaN, duplicate keys, endless
nesting, integers of a million digits) is refused here with one typed error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, NoReturn

from lstmconvert import limits
from lstmconvert.errors import CorruptFile

#: The value of a JSON text. `Any`, because its shape is checked where a value is read.
Json = Any
JsonObject = dict[str, Any]

#: Lists, objects and their keys, which take the most memory. Each value of a text but the first
#: follows one of these, or a comma.
_HEAVY = "[{:"
#: A text is no deeper than the number of these in it.
_BRACKETS = "[{"
#: At most one in this number of bytes of a model's text is heavy.
_HEAVY_BYTES = 16

#: Python refuses longer integers with a ValueError of its own; 64 bits need 20 digits.
_MAX_DIGITS = 400
NESTED = frozenset({dict, list})
#: So many characters of a text are a piece of it.
_PIECE = 1 << 16


def parse(text: str | bytes | bytearray, where: object) -> Json:
    """Parse one JSON text.

    Raises:
        CorruptFile: it is not UTF-8, not JSON, has a duplicate key, NaN or Infinity, a number that
            no float holds, or half a surrogate pair.
        LimitExceeded: it is longer, deeper or of more values than the limits allow.
    """
    limits.JSON_BYTES.check(len(text), where, "the JSON text")
    try:
        if not isinstance(text, str):
            text = text.decode("utf-8")
        # Counted before they are made: a value takes two bytes of text, and sixty of memory.
        # Each takes a byte: a short text need not be counted.
        most, dense = limits.JSON_VALUES.value, limits.JSON_DENSE.value
        if len(text) > min(most, dense):
            heavy = sum(map(text.count, _HEAVY))
            limits.JSON_VALUES.check(
                heavy + text.count(","), where, "the number of JSON values"
            )
            limits.JSON_DENSE.check(
                heavy - len(text) // _HEAVY_BYTES,
                where,
                f"the number of keys and lists beyond one in {_HEAVY_BYTES} bytes of JSON",
            )
        value = json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
        if "\\ud" in text or "\\uD" in text:
            canonical(value).encode()  # fails on half a surrogate pair
    except ValueError as error:
        raise CorruptFile(f"not valid JSON: {str(error)[:200]}", where=where) from None
    except RecursionError:
        raise CorruptFile("the JSON text is nested too deeply", where=where) from None
    most = limits.JSON_DEPTH.value
    if len(text) > most and sum(map(text.count, _BRACKETS)) > most:
        _check_depth(value, where)
    return value


def parse_object(text: str | bytes | bytearray, where: object) -> JsonObject:
    """Parse one JSON text that must be an object.

    Raises:
        CorruptFile, LimitExceeded: as `parse`; also if it is a list, string or number.
    """
    value = parse(text, where)
    if not isinstance(value, dict):
        raise CorruptFile(
            "the JSON text is not an object", where=where, found=type(value).__name__
        )
    return value


#: Made once: `json.dumps` makes one for each text.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical(value: Json) -> str:
    """Return the one text of a JSON value: sorted keys, no white space, no NaN."""
    return _CANONICAL.encode(value)


def in_pieces(values: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the canonical text of an object in pieces, of whose values the texts are given so.

    That of thousands of layers is many megabytes: it is never in memory as a whole. That of a few
    is one piece.
    """
    pieces, before = list[str](), "{"
    for key in sorted(values):
        pieces.append(f"{before}{encode_basestring(key)}:")
        pieces += values[key]
        before = ","
    pieces.append("}" if values else "{}")
    return pieces if sum(map(len, pieces)) > _PIECE else ["".join(pieces)]


def _check_depth(value: Json, where: object) -> None:
    # `json` makes no other types, which `isinstance` would look for, more slowly.
    level: list[Any] = [[value]]
    depth = -1
    while level:
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) in NESTED
        ]
        depth += 1
    limits.JSON_DEPTH.check(depth, where, "the nesting of the JSON text")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value - value != 0:
        raise ValueError(f"{digits[:40]} is too large")
    return value


def _unique(pairs: list[tuple[str, Json]]) -> JsonObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice!r} appears twice in one object")
    return result
