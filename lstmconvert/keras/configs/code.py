"""What in a Keras config makes Keras run, import or fetch something, told from the config alone.

Keras 3 refuses most of it in a `.keras` unless the user passes `safe_mode=False`. It asks nothing
of a legacy `.h5` (CVE-2025-9905), so a config with any of it is never carried into another kind of
file, and never written for another Keras than its own.

What a Lambda says of itself is its name, the kind of its function, and the names in its code. The
code of a Lambda is in the file as Python's marshal format, of the Python that wrote it. It is never
made a code object here: the bytes are walked over by their lengths, within bounds, and the names
that they hold are data like any other (CPython, Python/marshal.c: `r_object`, for Python 2.7 to
3.13). Where the bytes are not understood, nothing is said of names.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.jsontext import NESTED, Json, JsonObject, parse_object

# -- what runs, imports or fetches something -----------------------------------------------------


#: Class -> what Keras does when it opens or calls one (keras/src/layers and keras/src/export).
CLASSES = {
    "Lambda": "runs Python code that the file holds",
    "TFSMLayer": "opens a SavedModel that the file names, and runs it",
    "TorchModuleWrapper": "unpickles a PyTorch module that the file holds",
    "JaxLayer": "runs functions that the file names",
    "FlaxLayer": "runs a module that the file names",
}
#: Keyword -> what Keras does where its value is a text (keras/src/layers/preprocessing).
KEYWORDS = {
    "vocabulary": "opens a path or an address that the file names",
    "idf_weights": "opens a path or an address that the file names",
}
#: The parts of Keras whose functions and classes compute, and do nothing else. `applications` is
#: none of them: it downloads weights.
_COMPUTES = frozenset(
    {
        "activations",
        "constraints",
        "dtype_policies",
        "engine",  # of Keras 2: models and what they are made of
        "initializers",
        "layers",
        "losses",
        "metrics",
        "mixed_precision",  # of Keras 2: dtype policies
        "models",
        "ops",
        "optimizers",
        "quantizers",
        "random",
        "regularizers",
    }
)
#: Names in those parts that open files or fetch them (keras/src/models, keras/src/utils).
_OPENS = frozenset({"load_model", "load_weights", "get_file", "model_from_json"})


class Finding(NamedTuple):
    """One such thing: the name of the layer or object, and what Keras would do with it."""

    name: str
    what: str


def findings(config: JsonObject) -> list[Finding]:
    """Return all that a config would make Keras run, import or fetch.

    Args:
        config: a model's, as the text `model_config` holds it.
    """
    return list(_walk(config))


def _walk(root: Any) -> Iterator[Finding]:
    waiting = [(root, "the model")]
    while waiting:
        value, name = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, name) for item in value if type(item) in NESTED]
        else:
            name = _name(value) or name
            waiting += [(item, name) for item in value.values() if type(item) in NESTED]
            what = _what(value)
            if what is not None:
                yield Finding(name, what)


def _what(value: dict[str, Any]) -> str | None:
    class_name = value.get("class_name")
    if isinstance(class_name, str):
        if class_name in CLASSES:
            return CLASSES[class_name]
        called = value.get("config") if class_name == "function" else class_name
        if not _is_harmless(value, called):
            return f"imports {value['module']} and takes {called} from it"
    for keyword, what in KEYWORDS.items():
        if isinstance(value.get(keyword), str):
            return what
    return None


def _is_harmless(value: dict[str, Any], called: Any) -> bool:
    """Whether making an object makes Keras compute, and do nothing else.

    An object without a module is found among Keras's own, or in what the caller registers.
    """
    if isinstance(called, str) and called in _OPENS:
        return False
    module = value.get("module")
    if not isinstance(module, str) or module == "builtins":
        return True
    first, _, rest = module.partition(".")
    if first in ("keras", "tf_keras"):
        return not rest or rest.removeprefix("src.").partition(".")[0] in _COMPUTES
    # A name with a package (`Custom>MyLayer`) is one that the caller registers; for any other,
    # Keras imports the module.
    return ">" in str(value.get("registered_name"))


def _name(value: dict[str, Any]) -> str | None:
    config = value.get("config")
    for holder in (config, value):
        if isinstance(holder, dict) and isinstance(holder.get("name"), str):
            return str(holder["name"])
    return None


def refused(name: str, what: str, target: str) -> UnsupportedByTarget:
    """Return the error for a config that would make Keras run, import or fetch something.

    Args:
        name: of the layer or object.
        what: Keras would do.
        target: the kind of file that was asked for.
    """
    return UnsupportedByTarget(
        f"Keras {what} when it opens this layer, so it is not written for {target}",
        where=name,
        hint="keep the source's kind of file, or write the LSTM layers alone with --lstm-only",
    )


# -- what a Lambda says of itself ----------------------------------------------------------------


_CLASS = "Lambda"
#: More bytes, or objects in objects, than the code of one function has.
_MOST_BYTES, _DEEPEST, _MOST_OBJECTS = 1 << 20, 24, 1 << 16
#: How many names one note lists.
_SHOWN = 12


class Lambda(NamedTuple):
    """One Lambda: the layer's name; `kind`: how its function is stored; the `names` that its code
    mentions, in order."""

    layer: str
    kind: str
    names: tuple[str, ...]

    def text(self, *, replaceable: bool) -> str:
        """Return it in one line, with what to do where `--replace` takes it."""
        rest = len(self.names) - _SHOWN
        listed = ", ".join(self.names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        mentioned = f"; the names in it: {listed}" if self.names else ""
        how = f"; --replace {self.layer}='…' says what it computes" if replaceable else ""
        return f"{self.layer}: a Lambda, of {self.kind}, which is never run here{mentioned}{how}"


def lambdas(config: str) -> list[Lambda]:
    """Return the Lambda layers of a model's config, which is JSON."""
    if f'"{_CLASS}"' not in config:
        return []
    return list(_layers(parse_object(config, "model_config")))


def _layers(root: Json) -> Iterator[Lambda]:
    waiting: list[Json] = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            config = value.get("config")
            if value.get("class_name") == _CLASS and isinstance(config, dict):
                yield _described(config, str(config.get("name") or value.get("name") or _CLASS))
            waiting.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _described(config: JsonObject, layer: str) -> Lambda:
    function = config.get("function")
    if isinstance(function, dict):  # Keras 3's
        inner = function.get("config")
        if function.get("class_name") == "__lambda__" and isinstance(inner, dict):
            return Lambda(layer, "code in the file", names_in(inner.get("code")))
        function = inner
    if isinstance(function, list):
        return Lambda(layer, "code in the file", names_in(function[0] if function else None))
    if isinstance(function, str) and config.get("function_type") != "lambda":
        return Lambda(layer, f"a function that the file names, {function[:80]}", ())
    return Lambda(layer, "code in the file", names_in(function))


def names_in(code: Json) -> tuple[str, ...]:
    """Return the names that the code of a function mentions: globals, attributes, and those in
    functions inside it.

    Args:
        code: as a config holds it: marshal's bytes in base64, or of Keras 1 each as a character.
    """
    if not isinstance(code, str) or len(code) > _MOST_BYTES:
        return ()
    for data in _bytes(code):
        for form in _FORMS:
            try:
                reader = _Reader(data, form)
                value = reader.object(0)
            except _NotRead:
                continue
            if isinstance(value, _Code) and reader.is_at_end:
                return tuple(dict.fromkeys(value.every()))
    return ()


def _bytes(code: str) -> Iterator[bytes]:
    with suppress(binascii.Error, ValueError):
        yield base64.b64decode("".join(code.split()), validate=True)
    with suppress(UnicodeEncodeError):
        yield code.encode("raw_unicode_escape")


class _NotRead(Exception):
    """Bytes that are not those of a function."""


class _Code(NamedTuple):
    names: tuple[str, ...]
    inside: tuple[_Code, ...]

    def every(self) -> Iterator[str]:
        yield from self.names
        for code in self.inside:
            yield from code.every()


class _Form(NamedTuple):
    """The form of a code object: how many bytes its first numbers take, and how many objects come
    after the number of its first line, before which `_OBJECTS` are."""

    numbers: int
    after: int


#: Of Python 3.11 and later, 3.8 to 3.10, 3.0 to 3.7, and 2.7. The first object is its bytes, the
#: second its constants, the third its names.
_FORMS = (_Form(20, 2), _Form(24, 1), _Form(20, 1), _Form(16, 1))
_OBJECTS = 8
_NOTHING = frozenset(b"NFTS.")
_TEXT_LENGTHS: Mapping[int, str] = {
    **dict.fromkeys(b"satAu", "<I"), **dict.fromkeys(b"zZ", "B"),
}
_SIZES = {**dict.fromkeys(b"i", 4), **dict.fromkeys(b"gI", 8), **dict.fromkeys(b"y", 16)}
_NUMBER_TEXTS = {**dict.fromkeys(b"f", 1), **dict.fromkeys(b"x", 2)}
_REF, _SHORT = 0x80, 15


class _Reader:
    """Walks over marshal's bytes, and keeps texts, tuples and codes alone."""

    def __init__(self, data: bytes, form: _Form) -> None:
        self._data, self._form, self._at, self._count = data, form, 0, 0
        self._refs: list[Any] = []
        #: Texts that Python 2 gives by number.
        self._interned: list[Any] = []

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if size < 0 or len(piece) != size:
            raise _NotRead
        self._at += size
        return piece

    def _number(self, form: str = "<I") -> int:
        (value,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return int(value)

    def object(self, depth: int) -> Any:
        """Read one object: a text, a tuple of objects, a code; None of any other."""
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_OBJECTS:
            raise _NotRead
        tag = self._number("B")
        kind, place = tag & ~_REF, None
        if tag & _REF:
            place = len(self._refs)
            self._refs.append(None)
        value = self._value(kind, depth)
        if place is not None:
            self._refs[place] = value
        return value

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _NOTHING:
            return None
        if kind in _TEXT_LENGTHS:
            text = self._take(self._number(_TEXT_LENGTHS[kind])).decode("utf-8", "replace")
            if kind == ord("t"):
                self._interned.append(text)
            return text
        if kind in _SIZES:
            self._take(_SIZES[kind])
            return None
        if kind in _NUMBER_TEXTS:
            for _ in range(_NUMBER_TEXTS[kind]):
                self._take(self._number("B"))
            return None
        match chr(kind):
            case "l":
                self._take(2 * abs(self._number("<i")))
                return None
            case "r":
                return self._of(self._refs, self._number())
            case "R":
                return self._of(self._interned, self._number())
            case ")":
                return self._tuple(self._number("B"), depth)
            case "(" | "[" | "<" | ">":
                return self._tuple(self._number(), depth)
            case "c":
                return self._code(depth)
        raise _NotRead

    @staticmethod
    def _of(values: list[Any], number: int) -> Any:
        if number >= len(values):
            raise _NotRead
        return values[number]

    def _tuple(self, count: int, depth: int) -> tuple[Any, ...]:
        if count > _MOST_OBJECTS:
            raise _NotRead
        return tuple(self.object(depth + 1) for _ in range(count))

    def _code(self, depth: int) -> _Code:
        self._take(self._form.numbers)
        parts = [self.object(depth + 1) for _ in range(_OBJECTS)]
        self._take(4)  # the number of its first line
        rest = [self.object(depth + 1) for _ in range(self._form.after)]
        code, constants, names = parts[:3]
        if not all(isinstance(text, str) for text in (code, *rest)):
            raise _NotRead
        if not isinstance(names, tuple):
            raise _NotRead
        if not all(isinstance(name, str) for name in names) or not isinstance(constants, tuple):
            raise _NotRead
        inside = tuple(each for each in constants if isinstance(each, _Code))
        return _Code(names, inside)
