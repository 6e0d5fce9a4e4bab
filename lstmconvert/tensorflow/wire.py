"""The wire format of protocol buffers, read within bounds and without protobuf.

A message is described by a frozen dataclass whose fields say their number and kind:

    @dataclass(frozen=True, slots=True)
    class Dim:
        size: int = integer(1)

Format: https://protobuf.dev/programming-guides/encoding. Fields that a class does not name are
stepped over unread. No class here holds itself, so nesting is as deep as the classes are, and a
parser counts the messages it makes: two bytes of input can be one Python object.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.tensors import SourceFile

M = TypeVar("M")
Buffer = bytes | memoryview

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES = 10
_WORD = 1 << 64


class Rule(NamedTuple):
    """How a field is written (`wire`), and what becomes of its payload."""

    number: int
    wire: int
    convert: Callable[[Parser, Any], Any]
    repeated: bool = False


def integer(number: int, default: int | None = 0) -> Any:
    """Declare an int32, int64, bool or enum; `default=None` tells an absent one."""
    return _field(Rule(number, VARINT, lambda _, value: _signed(value)), default)


def fixed32(number: int) -> Any:
    """Declare a fixed32: four bytes, little-endian, unsigned."""
    return _field(Rule(number, FIXED32, lambda _, value: int.from_bytes(value, "little")), 0)


def text(number: int) -> Any:
    """Declare a string: UTF-8."""
    return _field(Rule(number, LENGTH, lambda parser, value: parser.text(value)), "")


def texts(number: int) -> Any:
    """Declare a repeated string."""
    return _field(Rule(number, LENGTH, lambda parser, value: parser.text(value), True), ())


def blob(number: int) -> Any:
    """Declare bytes, or a packed list."""
    return _field(Rule(number, LENGTH, lambda _, value: bytes(value)), b"")


def message(number: int, kind: type[Any]) -> Any:
    """Declare an embedded message; None if it is absent."""
    return _field(Rule(number, LENGTH, lambda parser, value: parser.parse(kind, value)), None)


def messages(number: int, kind: type[Any]) -> Any:
    """Declare a repeated embedded message: a tuple."""
    return _field(Rule(number, LENGTH, lambda parser, value: parser.parse(kind, value), True), ())


def _field(rule: Rule, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"rule": rule})


def _signed(value: int) -> int:
    return value - _WORD if value >= _WORD >> 1 else value


@functools.cache
def _rules(kind: Hashable) -> dict[int, tuple[str, Rule]]:
    fields = dataclasses.fields(cast(Any, kind))
    return {field.metadata["rule"].number: (field.name, field.metadata["rule"]) for field in fields}


def varint(data: Buffer, at: int, where: object) -> tuple[int, int]:
    """Return the variable-length integer at `at`, and the position behind it.

    Raises:
        CorruptFile: it runs over the end, is longer than ten bytes, or does not fit in 64 bits.
    """
    if at < len(data) and data[at] < 0x80:  # most are: tags, node numbers, short lengths
        return data[at], at + 1
    result = 0
    for index in range(min(_VARINT_BYTES, len(data) - at)):
        byte = data[at + index]
        result |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if result >= _WORD:
                break
            return result, at + index + 1
    raise CorruptFile("a variable-length integer is cut off or too long", where=where)


class Parser:
    """Reads messages of one file, and keeps count of them.

    Args:
        where: the file, or the part of it, for the errors.
    """

    def __init__(self, where: object) -> None:
        self.where = where
        self._count = self._bytes = 0
        self._limit = limits.PROTOBUF_MESSAGES.value

    def parse(self, kind: type[M], data: Buffer) -> M:
        """Read one message.

        Raises:
            CorruptFile: the bytes are no such message.
            LimitExceeded: it holds too many messages.
        """
        self._count += 1
        if self._count > self._limit:
            limits.PROTOBUF_MESSAGES.check(self._count, self.where, "the number of messages")
        self._bytes += len(data)
        if self._count & 0xFFF == 0:
            limits.check_density(self._count, self._bytes, self.where)
        rules = _rules(cast(Hashable, kind))
        found: dict[str, Any] = {}
        for number, wire, payload in self.fields(data):
            if number not in rules:
                continue
            name, rule = rules[number]
            if wire != rule.wire:
                raise self.fail(f"{kind.__name__}.{name} is of another wire type")
            if rule.repeated:
                found.setdefault(name, []).append(rule.convert(self, payload))
            elif name in found:
                raise self.fail(f"{kind.__name__}.{name} stands twice in one message")
            else:
                found[name] = rule.convert(self, payload)
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})

    def fields(self, data: Buffer) -> Iterator[tuple[int, int, Any]]:
        """Yield number, wire type and payload of each field: an integer, or a view of bytes."""
        view, at = memoryview(data), 0
        while at < len(view):
            tag, at = varint(view, at, self.where)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise self.fail("a field has the number 0")
            if wire == VARINT:
                value, at = varint(view, at, self.where)
                yield number, wire, value
                continue
            size, at = (_FIXED[wire], at) if wire in _FIXED else self._length(view, wire, at)
            if size > len(view) - at:
                raise self.fail("a field is longer than its message")
            yield number, wire, view[at : at + size]
            at += size

    def _length(self, view: Buffer, wire: int, at: int) -> tuple[int, int]:
        if wire != LENGTH:
            raise self.fail(f"a field has the wire type {wire}, which TensorFlow never writes")
        return varint(view, at, self.where)

    def text(self, payload: Buffer) -> str:
        """Decode a string field."""
        try:
            return bytes(payload).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("a text is not valid UTF-8") from None

    def fail(self, message: str) -> CorruptFile:
        """Return the error for a message that breaks the format."""
        return CorruptFile(
            f"not a valid protocol buffer: {message}",
            where=self.where,
            hint="the file is truncated or damaged: copy or download it again",
        )


@dataclass(frozen=True, slots=True)
class Span:
    """A message that lies in a file: bytes `offset` to `offset + size`."""

    source: SourceFile
    offset: int
    size: int

    def read(self) -> memoryview:
        """Return its bytes.

        Raises:
            LimitExceeded: it is longer than a message may be.
        """
        limits.PROTOBUF_BYTES.check(self.size, self.source.path, "the protocol buffer")
        return memoryview(self.source.read_at(self.offset, self.size))

    def find(self, number: int) -> Iterator[Span]:
        """Yield the embedded messages `number`; all else is stepped over without reading it."""
        parser, at, end = Parser(self.source.path), self.offset, self.offset + self.size
        while at < end:
            head = memoryview(self.source.read_at(at, min(2 * _VARINT_BYTES, end - at)))
            tag, used = varint(head, 0, self.source.path)
            wire = tag & 7
            if wire == VARINT:
                _, used = varint(head, used, self.source.path)
                size = 0
            elif wire in _FIXED:
                size = _FIXED[wire]
            else:
                size, used = parser._length(head, wire, used)
            if size > end - at - used:
                raise parser.fail("a field is longer than its message")
            if tag == number << 3 | LENGTH:
                yield Span(self.source, at + used, size)
            at += used + size
