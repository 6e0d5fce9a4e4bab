"""The wire format of protocol buffers, without protobuf: read within bounds, and written.

A message is described by a frozen dataclass whose fields state their number and kind, or by a table
(`Schema`), for formats with many messages that are read and written:

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
import math
import struct
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, cast, overload

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile
from lstmconvert.limits import KIB
from lstmconvert.tensors.tensor import SourceFile, Tensor

M = TypeVar("M")
Buffer = bytes | memoryview

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
#: How many bytes a field of fixed length has.
FIXED = {FIXED64: 8, FIXED32: 4}
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


def blobs(number: int) -> Any:
    """Declare repeated bytes: a tuple."""
    return _field(Rule(number, LENGTH, lambda _, value: bytes(value), True), ())


def message(number: int, kind: type[Any]) -> Any:
    """Declare an embedded message; None if it is absent."""
    return _field(Rule(number, LENGTH, lambda parser, value: parser.embed(kind, value)), None)


def messages(number: int, kind: type[Any]) -> Any:
    """Declare a repeated embedded message: a tuple."""
    return _field(Rule(number, LENGTH, lambda parser, value: parser.embed(kind, value), True), ())


def _field(rule: Rule, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"rule": rule})


def _signed(value: int) -> int:
    return value - _WORD if value >= _WORD >> 1 else value


@functools.cache
def _rules(kind: Hashable) -> dict[int, tuple[str, Rule]]:
    fields = dataclasses.fields(cast(Any, kind))
    return {field.metadata["rule"].number: (field.name, field.metadata["rule"]) for field in fields}


def varint(data: Buffer | Stretch, at: int, where: object) -> tuple[int, int]:
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
            CorruptFile: the bytes are not such a message.
            LimitExceeded: it holds too many messages.
        """
        self._count += 1
        if self._count > self._limit:
            limits.PROTOBUF_MESSAGES.check(self._count, self.where, "the number of messages")
        if self._count & 0xFFF == 0:
            limits.check_density(self._count, self._bytes, self.where)
        rules = _rules(cast(Hashable, kind))
        values: dict[str, Any] = {}
        for number, wire, payload in self.fields(data):
            # What was read so far, not all there is: a dense file is refused at its start.
            self._bytes += 2 if wire == VARINT else 2 + len(payload)
            if number not in rules:
                continue
            name, rule = rules[number]
            if wire != rule.wire:
                raise self.fail(f"{kind.__name__}.{name} is of another wire type")
            if rule.repeated:
                values.setdefault(name, []).append(rule.convert(self, payload))
            elif name in values:
                raise self.fail(f"{kind.__name__}.{name} appears twice in one message")
            else:
                values[name] = rule.convert(self, payload)
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def embed(self, kind: type[M], data: Buffer) -> M:
        """Read a message that is a field of another, whose bytes were counted with that field."""
        self._bytes -= len(data)
        return self.parse(kind, data)

    def fields(self, data: Buffer | Stretch) -> Iterator[tuple[int, int, Any]]:
        """Yield number, wire type and payload of each field: an integer, or a view of bytes."""
        view, at = data if isinstance(data, Stretch) else memoryview(data), 0
        while at < len(view):
            tag, at = varint(view, at, self.where)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise self.fail("a field has the number 0")
            if wire == VARINT:
                value, at = varint(view, at, self.where)
                yield number, wire, value
                continue
            size, at = (FIXED[wire], at) if wire in FIXED else self._length(view, wire, at)
            if size > len(view) - at:
                raise self.fail("a field is longer than its message")
            yield number, wire, view[at : at + size]
            at += size

    def embedded(self, data: Buffer, *numbers: int) -> Iterator[tuple[int, Any]]:
        """Yield number and bytes of each embedded message of those numbers.

        Raises:
            CorruptFile: a field of such a number is not a message.
        """
        for number, wire, payload in self.fields(data):
            if number in numbers:
                if wire != LENGTH:
                    raise self.fail(f"field {number} is of another wire type")
                yield number, payload

    def _length(self, view: Buffer | Stretch, wire: int, at: int) -> tuple[int, int]:
        if wire != LENGTH:
            raise self.fail(f"a field has the wire type {wire}, which nobody writes today")
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
            hint=DAMAGED,
        )


class MessageSpan(NamedTuple):
    """A message that is in a file: bytes `offset` to `offset + size`."""

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

    def find(self, number: int) -> Iterator[MessageSpan]:
        """Yield the embedded messages `number`; all else is stepped over without reading it."""
        return (span for other, span in self.embedded() if other == number)

    def embedded(self) -> Iterator[tuple[int, MessageSpan]]:
        """Yield the number and the place of each field that has a length, in the file's order."""
        parser, at, end = Parser(self.source.path), self.offset, self.offset + self.size
        while at < end:
            head = memoryview(self.source.read_at(at, min(2 * _VARINT_BYTES, end - at)))
            tag, used = varint(head, 0, self.source.path)
            wire = tag & 7
            if wire == VARINT:
                _, used = varint(head, used, self.source.path)
                size = 0
            elif wire in FIXED:
                size = FIXED[wire]
            else:
                size, used = parser._length(head, wire, used)
            if size > end - at - used:
                raise parser.fail("a field is longer than its message")
            if wire == LENGTH:
                yield tag >> 3, MessageSpan(self.source, at + used, size)
            at += used + size


#: Up to this many bytes are read at once: to look at them one by one takes longer.
_AT_ONCE = 64 * KIB


class Stretch:
    """Bytes of a file that are read when they are asked for: what a message's parser takes.

    A part of them is such a stretch too, or, of few bytes, what is there.
    """

    __slots__ = ("offset", "size", "source")

    def __init__(self, source: SourceFile, offset: int, size: int) -> None:
        self.source, self.offset, self.size = source, offset, size

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> Stretch | memoryview: ...

    def __getitem__(self, at: int | slice) -> int | Stretch | memoryview:
        if isinstance(at, slice):
            start, stop, _ = at.indices(self.size)
            part = Stretch(self.source, self.offset + start, stop - start)
            return part if part.size > _AT_ONCE else memoryview(bytes(part))
        octet = bytearray(1)
        self.source.read_near(memoryview(octet), self.offset + at)
        return octet[0]

    def __bytes__(self) -> bytes:
        return bytes(self.source.read_at(self.offset, self.size))


def length_of(piece: bytes | Tensor) -> int:
    """Return how many bytes a piece of a message takes."""
    return piece.nbytes if isinstance(piece, Tensor) else len(piece)


class Field(NamedTuple):
    """A field of a `Schema`: its name, its type (a scalar's or a message's), whether it repeats,
    and how it is on the wire."""

    number: int
    name: str
    kind: str
    repeated: bool
    wire: int


#: The scalars of a schema -> how they are on the wire. Messages have a length, like texts.
_WIRES = {
    **dict.fromkeys(("int32", "int64", "uint64", "bool"), VARINT),
    "float": FIXED32,
    **dict.fromkeys(("string", "bytes"), LENGTH),
}
#: How deep messages may be in messages: the limit of the protobuf library.
_NESTING = 100


class Schema:
    """Messages that a table describes, read and written as dictionaries.

    A dictionary has the fields that are set: texts, bytes, numbers, dictionaries, and lists of
    these where a field repeats. A number or text that is zero or empty is not set, as in proto3.

    Args:
        table: message -> field -> `NUMBER TYPE`, or `NUMBER* TYPE` where the field repeats. A type
            is a message of the table, int32, int64, uint64, bool, float, string or bytes.
    """

    def __init__(self, table: Mapping[str, Mapping[str, str]]) -> None:
        self._fields: dict[str, dict[int, Field]] = {}
        for message, fields in table.items():
            listed = []
            for name, text in fields.items():
                number, kind = text.split()
                wire = LENGTH if kind in table else _WIRES[kind]
                is_repeated = number.endswith("*")
                listed.append(Field(int(number.rstrip("*")), name, kind, is_repeated, wire))
            self._fields[message] = {field.number: field for field in sorted(listed)}

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the fields of a message, in the order of their numbers."""
        return tuple(field.name for field in self._fields[kind].values())

    def decode(
        self, kind: str, data: Buffer | Stretch, where: object, most: limits.Limit
    ) -> dict[str, Any]:
        """Read a message, with all that it holds.

        Args:
            kind: the message.
            data: its bytes. In a `Stretch` of a file, fields of many bytes are such, too.
            where: the file, for errors.
            most: the limit for the number of messages and texts: two bytes can be one object.

        Raises:
            CorruptFile: the bytes are not such a message.
            LimitExceeded: it holds too many messages.
        """
        return _Decoder(self._fields, Parser(where), most).message(kind, data, 0)

    def encode(self, kind: str, value: Mapping[str, Any]) -> list[bytes | Tensor]:
        """Return a message as pieces of bytes: the same for the same value.

        A field of bytes may be a tensor, which is a piece of its own, and is not read.
        """
        pieces: list[bytes | Tensor] = []
        for field in self._fields[kind].values():
            if field.name not in value:
                continue
            items = value[field.name] if field.repeated else [value[field.name]]
            if field.repeated and field.wire != LENGTH:
                packed = b"".join(_number(field.kind, item) for item in items)
                pieces += [_head(field.number, len(packed)), packed] if items else []
                continue
            for item in items:
                pieces += self._encoded(field, item)
        return pieces

    def _encoded(self, field: Field, item: Any) -> list[bytes | Tensor]:
        if field.kind in self._fields:
            inner = self.encode(field.kind, item)
            return [_head(field.number, sum(map(length_of, inner))), *inner]
        if not field.repeated and not _is_set(item):
            return []
        if field.wire == LENGTH:
            data = item.encode() if field.kind == "string" else item
            return [_head(field.number, length_of(data)), data]
        return [encoded(field.number << 3 | field.wire) + _number(field.kind, item)]


class _Decoder:
    def __init__(
        self, fields: Mapping[str, Mapping[int, Field]], parser: Parser, most: limits.Limit
    ) -> None:
        self._fields, self._parser, self._most, self._count = fields, parser, most, 0

    def message(self, kind: str, data: Buffer | Stretch, depth: int) -> dict[str, Any]:
        if depth > _NESTING:
            raise self._parser.fail(f"messages are more than {_NESTING} deep in one another")
        fields, messages, most = self._fields[kind], self._fields, self._most.value
        result: dict[str, Any] = {}
        parts: dict[Field, list[Buffer | Stretch]] = {}
        for number, wire, payload in self._parser.fields(data):
            field = fields.get(number)
            if field is None:
                continue
            _, name, inner, repeated, wanted = field
            if wire == LENGTH:
                self._count += 1
                if self._count > most:
                    self._most.check(self._count, self._parser.where, "the number of messages")
            if wire != wanted and not (repeated and wire == LENGTH):
                raise self._parser.fail(f"{name} is of another wire type")
            if inner not in messages:
                values = self._values(field, wire, payload)
                if repeated:
                    result.setdefault(name, []).extend(values)
                else:
                    result[name] = values[-1]
            elif not repeated:
                parts.setdefault(field, []).append(payload)
            else:
                made = self.message(inner, payload, depth + 1) if payload else {}
                result.setdefault(name, []).append(made)
        for field, payloads in parts.items():  # a message in several parts is one
            joined = payloads[0] if len(payloads) == 1 else b"".join(map(bytes, payloads))
            result[field.name] = self.message(field.kind, joined, depth + 1)
        return {name: value for name, value in result.items() if _is_set(value)}

    def _values(self, field: Field, wire: int, payload: Any) -> list[Any]:
        match field.kind:
            case "string":
                return [self._parser.text(payload)]
            case "bytes":
                return [payload if isinstance(payload, Stretch) else bytes(payload)]
        if wire == LENGTH:
            return list(self._packed(field, bytes(payload)))
        return [_scalar(field.kind, payload)]

    def _packed(self, field: Field, payload: Buffer) -> Iterator[Any]:
        at, view = 0, memoryview(payload)
        while at < len(view):
            value: Any
            if field.wire == VARINT:
                value, at = varint(view, at, self._parser.where)
            else:
                value, at = view[at : at + 4], at + 4
                if len(value) < 4:
                    raise self._parser.fail("a packed list is cut off")
            yield _scalar(field.kind, value)


def _is_set(value: Any) -> bool:
    """Whether proto3 writes a value: any message, and every value but zero and empty; -0.0 too."""
    if isinstance(value, float):
        return value != 0 or math.copysign(1, value) < 0
    return isinstance(value, dict) or bool(value)


def _scalar(kind: str, payload: Any) -> Any:
    match kind:
        case "float":
            return struct.unpack("<f", payload)[0]
        case "bool":
            return bool(payload)
        case "uint64":
            return payload
    return _signed(payload)


def _number(kind: str, value: Any) -> bytes:
    return struct.pack("<f", value) if kind == "float" else encoded(int(value))


def _head(number: int, length: int) -> bytes:
    return encoded(number << 3 | LENGTH) + encoded(length)


def encoded(value: int) -> bytes:
    """Return an integer as protobuf writes it, seven bits a byte, a negative one in 64 bits."""
    value &= _WORD - 1
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
