"""Pickles read as data: what they would call is written down, and never called.

A pickle is a program for a stack machine that may call anything (Lib/pickletools.py describes every
opcode). This machine knows a closed table of opcodes and no function at all: a global is a
`Symbol`, a name and nothing more; calling it, or making an object of it, gives a `Call`, the record
that it would have been called; bytes are a `Span`, the place in the file where they lie, and are
not read. Who reads the result decides which calls mean something (`lstmconvert.keras.npzstore`).

Values are `None`, bool, int, float, str, tuple, list, dict with str keys, `Symbol`, `Span`, `Call`.
They may share parts and hold themselves, so nothing may walk through them without an end.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files import Window
from lstmconvert.records import dataclass

_STOP = 0x2E
#: Protocol 2 has the first opcodes below, protocol 5 the last; NumPy writes 3 (1.x) and 4 (2.x).
_PROTOCOLS = range(2, 6)
#: The longest name of a module or a class; Keras's and TensorFlow's take 60.
_NAME = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """A global that a pickle names, `module.name`. It is never looked up."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Bytes that a pickle holds: where they lie in the source file."""

    offset: int
    length: int


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call that unpickling would make, and the state that it would then set.

    `function` is a `Symbol` or another `Call`; `state` is None where there is none.
    """

    function: object
    arguments: tuple[object, ...]
    state: object = None


def read_pickle(window: Window, where: object) -> object:
    """Return what the pickle that fills `window` describes.

    Raises:
        CorruptFile: no pickle, truncated, or with an opcode that array pickles do not have.
        LimitExceeded: it is longer than the limits allow.
    """
    return _Machine(window, where).run()


class _Machine:
    def __init__(self, window: Window, where: object) -> None:
        self.where = where
        self.start, self.size = window.offset, window.size
        self.stream = io.BufferedReader(Window(window.source, window.offset, window.size))
        self.stack: list[object] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, object] = {}
        self.text = 0

    def fail(self, message: str) -> CorruptFile:
        return CorruptFile(f"the member's pickle {message}", where=self.where)

    def run(self) -> object:
        if self.take(1) != b"\x80" or self.number(1) not in _PROTOCOLS:
            raise self.fail("is none of protocol 2 to 5")
        maximum, count = limits.PICKLE_OPCODES.value, 0
        while (code := self.number(1)) != _STOP:
            step = OPCODES.get(code)
            if step is None:
                raise self.fail(f"has an opcode that arrays do not need: 0x{code:02x}")
            step[1](self)
            count += 1
            if count > maximum:
                limits.PICKLE_OPCODES.check(count, self.where, "the number of pickle opcodes")
        if self.marks or len(self.stack) != 1 or self.stream.tell() != self.size:
            raise self.fail("does not end where it should")
        return self.stack[0]

    def take(self, length: int) -> bytes:
        data = self.stream.read(length)
        if len(data) != length:
            raise self.fail("is truncated")
        return data

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.fail("takes from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise self.fail("lacks a mark")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def count_text(self, length: int) -> None:
        self.text += length
        limits.PICKLE_TEXT_BYTES.check(self.text, self.where, "the pickle's text")

    def string(self, length: int) -> None:
        self.count_text(length)
        try:
            self.push(self.take(length).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            raise self.fail("has text that is not UTF-8") from None

    def span(self, length: int) -> None:
        begin = self.stream.tell()
        if length > self.size - begin:
            raise self.fail("is truncated")
        self.stream.seek(begin + length)
        self.push(Span(self.start + begin, length))

    def group(self, length: int) -> None:
        values = [self.pop() for _ in range(length)]
        self.push(tuple(reversed(values)))

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def remember(self, index: int) -> None:
        if index in self.memo:
            raise self.fail("fills a memo entry twice")
        value = self.pop()
        self.push(value)
        self.memo[index] = value

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise self.fail("recalls what it never had")
        self.push(self.memo[index])

    def extend(self, values: list[object]) -> None:
        target = self.pop()
        self.push(target)
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Call):  # a set, an OrderedDict: what it holds means nothing
            raise self.fail("appends to what is no list")

    def items(self, values: list[object]) -> None:
        target = self.pop()
        self.push(target)
        if len(values) % 2:
            raise self.fail("has a key without a value")
        if isinstance(target, Call):
            return
        if not isinstance(target, dict):
            raise self.fail("sets an item of what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, str):  # an entry with another key means nothing here
                if key in target:
                    raise self.fail("sets a key twice")
                target[key] = value

    def pair(self) -> list[object]:
        value, key = self.pop(), self.pop()
        return [key, value]

    def line(self) -> str:
        data = self.stream.readline(_NAME + 1)
        if not data.endswith(b"\n"):
            raise self.fail("has a global whose name does not end")
        self.count_text(len(data))
        return data[:-1].decode("utf-8", "replace")

    def symbol(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.fail("has a global whose name is no text")
        if len(module) + len(name) > 2 * _NAME:
            raise self.fail("has a global whose name does not end")
        self.push(Symbol(f"{module}.{name}"))

    def global_(self) -> None:
        module = self.line()
        self.symbol(module, self.line())

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.symbol(module, name)

    def call(self, keywords: bool = False) -> None:
        if keywords:
            self.pop()  # of no call that means something here
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or not isinstance(function, (Symbol, Call)):
            raise self.fail("calls what is no function")
        self.push(Call(function, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if not isinstance(target, Call) or target.state is not None:
            raise self.fail("sets a state where there can be none")
        target.state = state
        self.push(target)


_Step = Callable[[_Machine], object]

#: Every opcode that is known: code -> (its name in pickletools, what it does). Those of protocol 0,
#: persistent ids, extension codes and out-of-band buffers are not here, and refused.
OPCODES: dict[int, tuple[str, _Step]] = {
    0x95: ("FRAME", lambda m: m.take(8)),
    0x28: ("MARK", _Machine.mark),
    0x30: ("POP", _Machine.pop),
    0x31: ("POP_MARK", _Machine.pop_to_mark),
    0x4E: ("NONE", lambda m: m.push(None)),
    0x88: ("NEWTRUE", lambda m: m.push(True)),
    0x89: ("NEWFALSE", lambda m: m.push(False)),
    0x4A: ("BININT", lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True))),
    0x4B: ("BININT1", lambda m: m.push(m.number(1))),
    0x4D: ("BININT2", lambda m: m.push(m.number(2))),
    0x8A: ("LONG1", lambda m: m.push(int.from_bytes(m.take(m.number(1)), "little", signed=True))),
    0x47: ("BINFLOAT", lambda m: m.push(struct.unpack(">d", m.take(8))[0])),
    0x8C: ("SHORT_BINUNICODE", lambda m: m.string(m.number(1))),
    0x58: ("BINUNICODE", lambda m: m.string(m.number(4))),
    0x8D: ("BINUNICODE8", lambda m: m.string(m.number(8))),
    0x43: ("SHORT_BINBYTES", lambda m: m.span(m.number(1))),
    0x42: ("BINBYTES", lambda m: m.span(m.number(4))),
    0x8E: ("BINBYTES8", lambda m: m.span(m.number(8))),
    0x96: ("BYTEARRAY8", lambda m: m.span(m.number(8))),
    0x29: ("EMPTY_TUPLE", lambda m: m.push(())),
    0x85: ("TUPLE1", lambda m: m.group(1)),
    0x86: ("TUPLE2", lambda m: m.group(2)),
    0x87: ("TUPLE3", lambda m: m.group(3)),
    0x74: ("TUPLE", lambda m: m.push(tuple(m.pop_to_mark()))),
    0x5D: ("EMPTY_LIST", lambda m: m.push([])),
    0x61: ("APPEND", lambda m: m.extend([m.pop()])),
    0x65: ("APPENDS", lambda m: m.extend(m.pop_to_mark())),
    0x7D: ("EMPTY_DICT", lambda m: m.push({})),
    0x73: ("SETITEM", lambda m: m.items(m.pair())),
    0x75: ("SETITEMS", lambda m: m.items(m.pop_to_mark())),
    0x8F: ("EMPTY_SET", lambda m: m.push(Call(Symbol("builtins.set"), ()))),
    0x90: ("ADDITEMS", lambda m: m.extend(m.pop_to_mark())),
    0x91: ("FROZENSET", lambda m: m.push(Call(Symbol("builtins.frozenset"), (m.pop_to_mark(),)))),
    0x94: ("MEMOIZE", lambda m: m.remember(len(m.memo))),
    0x71: ("BINPUT", lambda m: m.remember(m.number(1))),
    0x72: ("LONG_BINPUT", lambda m: m.remember(m.number(4))),
    0x68: ("BINGET", lambda m: m.recall(m.number(1))),
    0x6A: ("LONG_BINGET", lambda m: m.recall(m.number(4))),
    0x63: ("GLOBAL", _Machine.global_),
    0x93: ("STACK_GLOBAL", _Machine.stack_global),
    0x52: ("REDUCE", _Machine.call),
    0x81: ("NEWOBJ", _Machine.call),
    0x92: ("NEWOBJ_EX", lambda m: m.call(keywords=True)),
    0x62: ("BUILD", _Machine.build),
}
