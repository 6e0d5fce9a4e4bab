"""`dataclass` as in the standard library, at a tenth of its start-up time.

The standard decorator compiles up to eight methods for each class as it is defined: 0.6 ms a class,
30 ms at each start of the command, a quarter of importing numpy and h5py. Here those methods are
written once, and go by the fields when they are called. Type checkers see the standard decorator,
and `dataclasses.fields` and `replace` work.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from inspect import Signature
else:

    def dataclass(*, frozen=False, slots=False, kw_only=False, eq=True, repr=True):  # noqa: A002  # its name
        """Make a class a data class. The options are those of `dataclasses.dataclass`."""

        def make(plain: type) -> type:
            plain.__doc__ = plain.__doc__ or plain.__name__  # else made of the signature, slowly
            kind = dataclasses.dataclass(
                init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
            )(plain)
            methods = {"__init__": _init, "__signature__": _LazySignature()}
            if repr:
                methods["__repr__"] = _repr
            if eq:
                methods |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
            if frozen:
                methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
                methods |= {"__getstate__": _get_state, "__setstate__": _set_state}
            for name, method in methods.items():
                if name not in plain.__dict__:
                    setattr(kind, name, method)
            fields = dataclasses.fields(kind)
            kind.__record__ = (
                tuple(field.name for field in fields if not field.kw_only),
                frozenset(field.name for field in fields),
                {f.name: f.default for f in fields if f.default is not dataclasses.MISSING},
                {f.name: f.default_factory for f in fields if _has_factory(f)},
            )
            return kind

        return make


_MISSING = dataclasses.MISSING
_set = object.__setattr__


def _has_factory(field: dataclasses.Field[Any]) -> bool:
    return field.default_factory is not _MISSING


def _init(self: Any, /, *values: Any, **given: Any) -> None:
    positional, names, defaults, factories = self.__record__
    if values:
        given = _named(self, positional, values, given)
    if len(given) < len(names):
        for name, make in factories.items():
            if name not in given:
                given[name] = make()
        given = defaults | given
    if given.keys() != names:
        raise _misfit(self, given.keys(), names)
    for name, value in given.items():
        _set(self, name, value)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _named(
    self: Any, positional: tuple[str, ...], values: tuple[Any, ...], given: dict[str, Any]
) -> dict[str, Any]:
    named = dict(zip(positional, values, strict=False))
    if len(values) > len(positional):
        raise TypeError(f"{type(self).__qualname__} takes {len(positional)} positional arguments")
    if twice := named.keys() & given.keys():
        raise TypeError(f"{type(self).__qualname__} got several values for {min(twice)!r}")
    return named | given


def _misfit(self: Any, given: Any, names: frozenset[str]) -> TypeError:
    if odd := given - names:
        return TypeError(f"{type(self).__qualname__} has no field {min(odd)!r}")
    return TypeError(f"{type(self).__qualname__} needs {', '.join(sorted(names - given))}")


def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.compare)


def _eq(self: Any, other: object) -> bool:
    if type(other) is not type(self):
        return NotImplemented  # type: ignore[no-any-return]  # it is what Python wants
    return bool(_compared(self) == _compared(other))


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"{type(self).__qualname__}.{name} is frozen")


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        _set(self, field.name, value)


class _LazySignature:
    """The signature for `help()`: by the fields, made when it is asked for."""

    def __get__(self, instance: object, kind: type[Any]) -> Signature:
        from inspect import Parameter, Signature

        return Signature(
            [
                Parameter(
                    field.name,
                    Parameter.KEYWORD_ONLY if field.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
                    default=field.default if field.default is not _MISSING
                    else ... if _has_factory(field) else Parameter.empty,
                    annotation=field.type,
                )
                for field in dataclasses.fields(kind)
            ]
        )
