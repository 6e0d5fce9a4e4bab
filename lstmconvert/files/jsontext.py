"""JSON in and out: strict and bounded on the way in, canonical on the way out.

A config is data. What Python's parser lets through and JSON does not (NaN, duplicate keys, endless
nesting, integers of a million digits) is refused here with one typed error.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
#: A part of a text that is known when the rest has been made: it is asked for with True then; with
#: False before, when what stands for it is as long.
Later = Callable[[bool], Iterable[str]]
Piece = str | Later


def parse(
    text: str | bytes | bytearray, where: object, nesting: Collection[str] | None = None
) -> Json:
    """Parse one JSON text.

    Args:
        text: the text.
        where: the place, for errors.
        nesting: given if the objects of a long list may share what is equal in them, and nobody
            changes them; an object that has one of these keys shares nothing.

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
        most = limits.JSON_DEPTH.value
        is_deep = len(text) > most and sum(map(text.count, _BRACKETS)) > most
        value = None
        if nesting is not None and len(text) > _PIECE:
            value, depth = _Sharing(nesting).parsed(text)
            is_deep = depth > most
        if value is None and text.startswith("\ufeff"):
            raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
        if value is None:
            value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            canonical(value).encode()  # fails on half a surrogate pair
    except ValueError as error:
        raise CorruptFile(f"not valid JSON: {str(error)[:200]}", where=where) from None
    except RecursionError:
        raise CorruptFile("the JSON text is nested too deeply", where=where) from None
    if is_deep:
        limits.JSON_DEPTH.check(_depth(value), where, "the nesting of the JSON text")
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


def in_slices(value: Json) -> Iterator[str]:
    """Yield the canonical text of a value; of a long text in pieces."""
    if not isinstance(value, str):
        yield canonical(value)
        return
    yield '"'
    for at in range(0, len(value), _PIECE):
        yield encode_basestring(value[at : at + _PIECE])[1:-1]
    yield '"'


def in_pieces(values: Mapping[str, Iterable[Piece]]) -> Iterator[Piece]:
    """Yield the canonical text of an object in pieces, of whose values the texts are given so.

    That of thousands of layers is many megabytes: it is never in memory as a whole.
    """
    run, size, before = list[str](), 0, "{"
    for key in sorted(values):
        run.append(f"{before}{encode_basestring(key)}:")
        before = ","
        for piece in values[key]:
            if isinstance(piece, str):
                run.append(piece)
                size += len(piece)
                if size < _PIECE:
                    continue
                yield "".join(run)
            else:
                yield "".join(run)
                yield piece
            run, size = [], 0
    run.append("}" if values else "{}")
    yield "".join(run)


def joined(pieces: Iterable[Piece], *, is_known: bool = True) -> str:
    """Return a text as a whole.

    Args:
        pieces: of the text.
        is_known: whether the parts that are known later are known now.
    """
    made = list(pieces)  # all others are made before such a part is asked for
    return "".join([p if isinstance(p, str) else "".join(p(is_known)) for p in made])


def _depth(value: Json) -> int:
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
    return depth


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


#: As `json.loads` makes one for each text.
_DECODER = json.JSONDecoder(
    parse_constant=_no_constant,
    parse_float=_float,
    parse_int=_integer,
    object_pairs_hook=_unique,
)

# -- lists of objects that are alike -------------------------------------------------------------


_WHITE = re.compile(r"[ \t\n\r]*")
#: A name as text: what could be no end of it, and no part of what stands between two texts.
_NAME = re.compile(r'"[^"\\\x00-\x1f]{1,256}"')
_BETWEEN = frozenset(",:[]{}")
#: How often an object may have its name, and how many kinds of objects are known at once.
_MOST_NAMES, _MOST_KINDS = 8, 4

#: Key or index -> None where the name stands, else the places further down.
_Places = dict[Any, Any]


class _Kind:
    """An object of a list, whose text tells others that differ in nothing but their name.

    Args:
        text: of the object, without a backslash, so that each quotation mark is the end of a text.
        value: the object.
        name: its name.
    """

    def __init__(self, text: str, value: JsonObject, name: str) -> None:
        self._pieces = text.split(f'"{name}"')
        self._value, self._name = value, name
        self._places: _Places | None = None

    def read(self, text: str, index: int) -> tuple[JsonObject, int] | None:
        """Return an object of this kind and where it ends; None if there is another value."""
        pieces = self._pieces
        if not text.startswith(pieces[0], index):
            return None
        token = _NAME.match(text, index + len(pieces[0]))
        if token is None:
            return None
        whole = token[0].join(pieces)
        if not text.startswith(whole, index):
            return None
        if self._places is None:
            self._places = _places(self._value, self._name)
        if _count(self._places) != len(pieces) - 1:
            return None  # one is a key
        return _renamed(self._value, self._places, token[0][1:-1]), index + len(whole)


def _places(value: Json, name: str) -> _Places:
    """Return where a text stands in an object or a list."""
    result: _Places = {}
    for key, item in value.items() if type(value) is dict else enumerate(value):
        if type(item) in NESTED:
            if inside := _places(item, name):
                result[key] = inside
        elif item == name:
            result[key] = None
    return result


def _count(places: _Places) -> int:
    return sum(1 if inside is None else _count(inside) for inside in places.values())


def _renamed(value: Json, places: _Places, name: str) -> Json:
    """Return an object or a list with another name in some places; it shares all else."""
    result = value.copy()
    for key, inside in places.items():
        result[key] = name if inside is None else _renamed(value[key], inside, name)
    return result


class _Sharing:
    """Parses a text with lists of thousands of objects, of which many differ in their names only.

    Each kind of object is parsed once. The others are told by their text, and are copies of it,
    down to where the name stands; what is below is one object, which nobody changes.

    Args:
        nesting: an object with one of these keys in its config shares nothing.
    """

    def __init__(self, nesting: Collection[str]) -> None:
        self._nesting = frozenset(nesting)
        self._decoder = json.JSONDecoder(
            parse_constant=_no_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=self._unique,
        )
        self._keys: dict[str, str] = {}
        self._kinds: list[_Kind] = []
        self._depth = 0

    def parsed(self, text: str) -> tuple[Json, int]:
        """Return the value of a text and how deeply it is nested; None where it has another form,
        or is not JSON: the other parser makes the value or the error."""
        try:
            value, end = self._value(text, _WHITE.match(text).end(), 0)  # type: ignore[union-attr]
        except (ValueError, IndexError, RecursionError):
            return None, 0
        return (value, self._depth) if not text[end:].strip(" \t\n\r") else (None, 0)

    def _unique(self, pairs: list[tuple[str, Json]]) -> JsonObject:
        # The decoder shares the keys of what it parses at once, which is one object of a list.
        shared = self._keys.setdefault
        return _unique([(shared(key, key), value) for key, value in pairs])

    def _value(self, text: str, index: int, level: int) -> tuple[Json, int]:
        """Return the value at an index and where it ends.

        Raises:
            ValueError, IndexError: it is not JSON.
        """
        if text[index] == "{":
            return self._object(text, index, level + 1)
        if text[index] == "[":
            return self._list(text, index, level + 1)
        return self._decoder.raw_decode(text, index)

    def _object(self, text: str, index: int, level: int) -> tuple[JsonObject, int]:
        self._depth = max(self._depth, level)
        pairs: list[tuple[str, Json]] = []
        index, mark = _next(text, index + 1)
        if mark == "}":
            return {}, index + 1
        while mark != "}":
            if mark != '"':
                raise ValueError
            key, end = self._decoder.raw_decode(text, index)
            end, mark = _next(text, end)
            if mark != ":":
                raise ValueError
            value, end = self._value(text, _next(text, end + 1)[0], level)
            pairs.append((key, value))
            index, mark = _next(text, end)
            if mark == ",":
                index, mark = _next(text, index + 1)
                if mark == "}":
                    raise ValueError
            elif mark != "}":
                raise ValueError
        return self._unique(pairs), index + 1

    def _list(self, text: str, begin: int, level: int) -> tuple[list[Json], int]:
        self._depth = max(self._depth, level)
        result: list[Json] = []
        index, mark = _next(text, begin + 1)
        if mark != "{":
            return self._whole(text, begin, level - 1)
        while True:
            value, end = self._known(text, index) or self._new(text, index, level)
            result.append(value)
            index, mark = _next(text, end)
            if mark == "]":
                return result, index + 1
            if mark != ",":
                raise ValueError
            index, mark = _next(text, index + 1)
            if mark != "{":
                raise ValueError  # numbers and texts are the other parser's

    def _whole(self, text: str, index: int, level: int) -> tuple[Json, int]:
        """Parse what is within `level` lists and objects, all at once."""
        value, end = self._decoder.raw_decode(text, index)
        self._depth = max(self._depth, level + _depth(value))
        return value, end

    def _known(self, text: str, index: int) -> tuple[Json, int] | None:
        for kind in self._kinds:
            if (known := kind.read(text, index)) is not None:
                return known
        return None

    def _new(self, text: str, index: int, level: int) -> tuple[Json, int]:
        """Parse an item of a list, and take it for a kind if it is one."""
        value, end = self._whole(text, index, level)
        config: Json = value.get("config") if type(value) is dict else None
        name = config.get("name") if type(config) is dict else None
        if type(name) is not str or not _NAME.fullmatch(f'"{name}"'):
            return value, end
        piece = text[index:end]
        is_kind = (
            "\\" not in piece
            and _BETWEEN.isdisjoint(name)
            and self._nesting.isdisjoint(config)
            and piece.count(f'"{name}"') <= _MOST_NAMES
        )
        if is_kind:
            self._kinds.insert(0, _Kind(piece, value, name))
            del self._kinds[_MOST_KINDS:]
        return value, end


def _next(text: str, index: int) -> tuple[int, str]:
    """Return where white space ends, and what is there.

    Raises:
        IndexError: it is the end of the text.
    """
    mark = text[index]
    if mark in " \t\n\r":
        index = _WHITE.match(text, index).end()  # type: ignore[union-attr]
        mark = text[index]
    return index, mark
