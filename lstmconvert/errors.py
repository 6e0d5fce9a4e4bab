"""Every error that lstmconvert raises, in one tree.

    LSTMConvertError
    ├── UsageError               the call itself is wrong (option, layer name, destination)
    │   └── UnknownLayer         no layer of that name
    ├── SourceError              a file cannot be used as a source
    │   ├── NotAModel            its bytes are not a container that is read here
    │   ├── NoLSTM               a model, but without an LSTM layer
    │   ├── CorruptFile          truncated, inconsistent or changed while it was read
    │   └── LimitExceeded        larger, deeper or denser than the limits allow
    ├── DestinationError         a file cannot be written there
    ├── UnknownOption            the file does not say it, and the target needs it
    ├── UnsupportedByTarget      the target cannot express what the layer does
    └── MissingPackage           a live object was asked for and its package is not installed

and one warning, ConversionWarning, which is a UserWarning.

Each error carries its facts as fields, prints as one line, holds one hint for what to do next, and
survives pickling, so that a process pool can hand it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: The hint of an error about a file whose bytes do not fit together.
DAMAGED = "the file is truncated or damaged: copy or download it again"


def number(value: int) -> str:
    """`1,234`."""
    return f"{value:,}"


def counted(count: int, noun: str) -> str:
    """`1 unit`, `2 units`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: object) -> str:
    """Return `text` on one line, with every control or bidirectional character escaped."""
    plain = str(text)
    if plain.isprintable():  # as nearly every text is: reports have hundreds of thousands
        return plain
    return "".join(c if c.isprintable() else _escape(c) for c in plain)


#: The most characters of one part of a message: names in a file may have tens of thousands.
_MOST = 1_000


def _shortened(text: str) -> str:
    """Return a text without its middle, if it is too long for a line."""
    half = _MOST // 2
    return text if len(text) <= _MOST else f"{text[:half]}…{text[-half:]}"


def install(extra: str) -> str:
    """Return the command that installs what an extra of this package needs."""
    return f"pip install 'lstmconvert[{extra}]'"


def close_to(name: str, names: Iterable[str]) -> str | None:
    """Return the hint that names what is spelled much like `name`, if anything is."""
    from difflib import get_close_matches  # only for the hint

    close = get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}?" if close else None


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


class LSTMConvertError(Exception):
    """The base of the tree: what went wrong, where, and what to do next.

    Fields: `message` (one line), `where` (a path, layer or tensor name, or None), `found` and
    `expected` (what the file or call had, and what was needed, or None), `hint` (or None).
    """

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = None if where is None else str(where)
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self.hint = hint

    def __str__(self) -> str:
        message = _shortened(self.message)
        parts = [f"{_shortened(self.where)}: {message}" if self.where else message]
        if self.found is not None:
            parts.append(f"found {_shortened(self.found)}")
        if self.expected is not None:
            parts.append(f"expected {_shortened(self.expected)}")
        return printable("; ".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(
    kind: type[LSTMConvertError], message: str, fields: dict[str, Any]
) -> LSTMConvertError:
    error = kind(message)
    error.__dict__.update(fields)
    return error


class UsageError(LSTMConvertError):
    """The call itself is wrong: an option, a layer name, a suffix."""


class UnknownLayer(UsageError, KeyError):
    """No layer of that name is in the model."""


class SourceError(LSTMConvertError):
    """A file cannot be used as a source."""


class NotAModel(SourceError):
    """The bytes are not a container that lstmconvert reads."""


class NoLSTM(SourceError):
    """The file is a model, and holds no LSTM layer."""


class CorruptFile(SourceError):
    """The file is truncated, contradicts itself, or changed while it was read."""


class LimitExceeded(SourceError):
    """The file is larger, deeper or denser than the limits in `lstmconvert.limits` allow."""


class DestinationError(LSTMConvertError):
    """The destination cannot be written."""


class UnknownOption(LSTMConvertError):
    """The source does not say an option that the target needs."""


#: The hint of a refusal that `--allow-lossy` (`allow_lossy=True`) lifts; others have none such.
LOSSY_HINT = "choose another target, or accept the loss with --allow-lossy"


class UnsupportedByTarget(LSTMConvertError):
    """The target cannot express what a layer does.

    Fields in addition to the common ones: `layer`, `option`, `target`.
    """

    def __init__(
        self,
        message: str,
        *,
        layer: str | None = None,
        option: str | None = None,
        target: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.layer = layer
        self.option = option
        self.target = target


class MissingPackage(LSTMConvertError, ImportError):
    """A live object was asked for, and its package is not installed."""


class ConversionWarning(UserWarning):
    """What a user should know of a conversion that was done: `warnings.warn` gives it."""
