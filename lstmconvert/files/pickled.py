"""Pickles read as data: the calls that they contain are recorded, and never made.

A pickle is a program for a stack machine that may call anything (Lib/pickletools.py describes every
opcode). This machine knows a closed table of opcodes and no function at all: a global is a
`Symbol`, a name and nothing more; calling it, or making an object of it, gives a `Call`, the record
that it would have been called; bytes are `PickledBytes`, the place in the file where they are, and
are not read. Who reads the result decides which calls mean something (`keras.stores.npzstore`).

Values are `None`, bool, int, float, str, tuple, list, dict with str or int keys, `Symbol`,
`PickledBytes`, `Call`, `Persistent`.
They may share parts and hold themselves, so nothing may walk through them without an end.

Arrays of NumPy are among the calls that mean something to every reader: `array_of` gives a tensor,
a place in the file with a dtype and a shape. A number type of ml_dtypes is pickled by its class.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from lstmconvert import limits
from lstmconvert.errors import CorruptFile
from lstmconvert.files.npy import number_dtype, tensor_at
from lstmconvert.files.opening import Window
from lstmconvert.tensors.dtypes import DType, dtype_of
from lstmconvert.tensors.tensor import Shape, SourceFile, Tensor

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
class PickledBytes:
    """Bytes that a pickle holds: where they are in the source file."""

    offset: int
    length: int


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call that unpickling would make, and the state that it would then set.

    `function` is a `Symbol`, a `Persistent` or another `Call`; `state` and `items`, what would be
    set in the result by key, are None where there are none.
    """

    function: object
    arguments: tuple[object, ...]
    state: object = None
    items: dict[str | int, object] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """An object outside the pickle, by what the pickle calls it: PyTorch's storages."""

    identity: object


#: Returns how many bytes that are not part of the pickle follow an object whose state was set: the
#: object, and the offset in the source behind it.
Inline = Callable[["Call", int], int]


def read_pickle(window: Window, where: object, inline: Inline | None = None) -> object:
    """Return what the pickle that fills `window` describes.

    Raises:
        CorruptFile: no pickle, truncated, or with an opcode that array pickles do not have.
        LimitExceeded: it is longer than the limits allow.
    """
    value, end = _Machine(window, where, inline).run()
    if end != window.offset + window.size:
        raise _error("does not end where it should", where)
    return value


def read_pickle_at(source: SourceFile, offset: int, where: object) -> tuple[object, int]:
    """Return what the pickle at an offset describes, and the offset behind it.

    Raises: as `read_pickle`.
    """
    return _Machine(Window(source, offset, source.size - offset), where).run()


def _error(message: str, where: object) -> CorruptFile:
    return CorruptFile(f"the member's pickle {message}", where=where)


class _Machine:
    def __init__(self, window: Window, where: object, inline: Inline | None = None) -> None:
        self.where, self.inline = where, inline
        self.start, self.size = window.offset, window.size
        self.stream = io.BufferedReader(Window(window.source, window.offset, window.size))
        self.stack: list[object] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, object] = {}
        self.text = 0
        self.objects = 0
        self.most_objects = limits.PICKLE_OBJECTS.value

    def fail(self, message: str) -> CorruptFile:
        return _error(message, self.where)

    def run(self) -> tuple[object, int]:
        """Return the value, and the offset in the source behind the pickle."""
        if self.take(1) != b"\x80" or self.number(1) not in _PROTOCOLS:
            raise self.fail("is not of protocol 2 to 5")
        maximum, count = limits.PICKLE_OPCODES.value, 0
        while (code := self.number(1)) != _STOP:
            step = OPCODES.get(code)
            if step is None:
                raise self.fail(f"has an opcode that arrays do not need: 0x{code:02x}")
            step[1](self)
            count += 1
            if count > maximum:
                limits.PICKLE_OPCODES.check(count, self.where, "the number of pickle opcodes")
        if self.marks or len(self.stack) != 1:
            raise self.fail("does not end where it should")
        return self.stack[0], self.start + self.stream.tell()

    def take(self, length: int) -> bytes:
        data = self.stream.read(length)
        if len(data) != length:
            raise self.fail("is truncated")
        return data

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def make(self, value: object) -> None:
        """Push an object that was not there before: it takes a hundred bytes of memory, and one
        byte of the file."""
        self.objects += 1
        if self.objects > self.most_objects:
            limits.PICKLE_OBJECTS.check(self.objects, self.where, "the number of pickle objects")
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
        self.make(PickledBytes(self.start + begin, length))

    def group(self, length: int) -> None:
        values = [self.pop() for _ in range(length)]
        self.make(tuple(reversed(values)))

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
            raise self.fail("recalls an object that it never stored")
        self.push(self.memo[index])

    def extend(self, values: list[object]) -> None:
        target = self.pop()
        self.push(target)
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Call):  # a set, an OrderedDict: its items are not needed
            raise self.fail("appends to something that is not a list")

    def items(self, values: list[object]) -> None:
        target = self.pop()
        self.push(target)
        if len(values) % 2:
            raise self.fail("has a key without a value")
        if isinstance(target, Call):
            if target.items is None:
                target.items = {}
            target = target.items
        if not isinstance(target, dict):
            raise self.fail("sets an item of something that is not a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) in (str, int):  # an entry with another key means nothing here
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
            raise self.fail("has a global whose name is not a text")
        if len(module) + len(name) > 2 * _NAME:
            raise self.fail("has a global whose name does not end")
        self.make(Symbol(f"{module}.{name}"))

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
        if not isinstance(arguments, tuple) or not isinstance(function, (Symbol, Call, Persistent)):
            raise self.fail("calls something that is not a function")
        self.make(Call(function, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if not isinstance(target, Call) or target.state is not None:
            raise self.fail("sets a state where there can be none")
        target.state = state
        self.push(target)
        if self.inline is not None:
            place = self.stream.tell()
            length = self.inline(target, self.start + place)
            if length > self.size - place:
                raise self.fail("is truncated")
            self.stream.seek(place + length)


_Step = Callable[[_Machine], object]

#: Every opcode that is known: code -> (its name in pickletools, its method). Those of protocol 0,
#: extension codes and out-of-band buffers are not here, and refused.
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
    0x55: ("SHORT_BINSTRING", lambda m: m.string(m.number(1))),  # Python 2
    0x54: ("BINSTRING", lambda m: m.string(m.number(4))),
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
    0x74: ("TUPLE", lambda m: m.make(tuple(m.pop_to_mark()))),
    0x5D: ("EMPTY_LIST", lambda m: m.make([])),
    0x61: ("APPEND", lambda m: m.extend([m.pop()])),
    0x65: ("APPENDS", lambda m: m.extend(m.pop_to_mark())),
    0x7D: ("EMPTY_DICT", lambda m: m.make({})),
    0x73: ("SETITEM", lambda m: m.items(m.pair())),
    0x75: ("SETITEMS", lambda m: m.items(m.pop_to_mark())),
    0x8F: ("EMPTY_SET", lambda m: m.make(Call(Symbol("builtins.set"), ()))),
    0x90: ("ADDITEMS", lambda m: m.extend(m.pop_to_mark())),
    0x91: ("FROZENSET", lambda m: m.make(Call(Symbol("builtins.frozenset"), (m.pop_to_mark(),)))),
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
    0x51: ("BINPERSID", lambda m: m.make(Persistent(m.pop()))),
}


#: numpy/_core/src/multiarray/methods.c, `array_reduce`; before NumPy 2 in numpy.core.
RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
#: Number types that NumPy pickles by the class of ml_dtypes that adds them.
_ML_DTYPES = {f"ml_dtypes.{name}": name for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}


def array_of(value: object, source: SourceFile, where: str) -> Tensor | None:
    """Return the array that a value is, or None of anything else.

    Raises:
        CorruptFile: it has no plain numbers, or not as many as its shape says.
    """
    match value:
        case Call(Symbol(name=name), _, tuple(state)) if name in RECONSTRUCT:
            return array_of_state(state, source, where)
        case Call(Symbol(name=name), (dtype, PickledBytes() as data)) if name in _SCALAR:
            return _at(data, source, dtype, (), False, where)
        case Call(Symbol(name=name), (PickledBytes() as data, dtype, tuple(shape), str(order))) if (
            name in _FROM_BUFFER
        ):
            return _at(data, source, dtype, shape, order == "F", where)
    return None


def array_of_state(state: tuple[object, ...], source: SourceFile, where: str) -> Tensor | None:
    """Return the array of a state: (version, shape, dtype, Fortran order, data)."""
    match state:
        case (_, tuple(shape), dtype, bool(fortran), PickledBytes() as data):
            return _at(data, source, dtype, shape, fortran, where)
    return None


def _at(
    data: PickledBytes,
    source: SourceFile,
    dtype: object,
    shape: tuple[object, ...],
    fortran: bool,
    where: str,
) -> Tensor:
    window = Window(source, data.offset, data.length)
    return tensor_at(window, _dtype(dtype, where), _shape(shape, where), fortran, where)


def array_from(
    window: Window, dtype: object, shape: tuple[object, ...], fortran: bool, where: str
) -> Tensor:
    """Return the array that begins where a window does, which may be longer.

    Raises:
        CorruptFile: as `array_of`.
    """
    number, sizes = _dtype(dtype, where), _shape(shape, where)
    limits.RANK.check(len(sizes), where, "the number of an array's axes")
    length = prod(sizes) * number.itemsize
    if length > window.size:
        raise CorruptFile("an array is truncated", where=where, found=window.size, expected=length)
    return tensor_at(Window(window.source, window.offset, length), number, sizes, fortran, where)


def _shape(sizes: tuple[object, ...], where: str) -> Shape:
    shape = tuple(n for n in sizes if isinstance(n, int) and not isinstance(n, bool) and n >= 0)
    if len(shape) != len(sizes):
        raise CorruptFile("an array whose shape is not a tuple of sizes", where=where)
    return shape


def _dtype(value: object, where: str) -> DType:
    """The dtype of `numpy.dtype("f4", False, True)` with the state (3, "<", None, …)."""
    match value:
        case Call(
            Symbol(name="numpy.dtype"), (kind, *_), (_, str(order), None, None, None, *_)
        ) if order in ("<", ">", "|"):
            if isinstance(kind, str):
                return number_dtype(order + kind, where)
            if isinstance(kind, Symbol) and kind.name in _ML_DTYPES and order != ">":
                return dtype_of(_ML_DTYPES[kind.name])
    raise CorruptFile("an array of no plain numbers", where=where, found=describe(value))


def describe(value: object) -> str:
    """Return what a value is called in errors: the class or function that makes it."""
    while isinstance(value, Call):
        value = value.function
    return value.name if isinstance(value, Symbol) else type(value).__name__
