"""Data classes that take no time to declare.

`dataclasses.dataclass` writes six methods for each class as text and compiles them, which takes
half a millisecond. A small conversion declares forty classes, and that was a sixth of its time.
Here the methods of all classes are the same functions, which look into a class's list of fields.

Measured as whole processes that declare 41 frozen classes of six fields, beyond a bare start: 49 ms
with the standard library, 64 with attrs, 44 with msgspec (its import alone), 16 with `NamedTuple`,
whose instances are tuples, and so equal to other tuples; here it is about as much as with these.
With the standard library `convert --to torch` takes 1.49 times the bare imports; 1.4 is allowed.

The names, the arguments and what they do are those of the standard library, whose own `replace`,
`fields`, `asdict` and `is_dataclass` take these classes too. A type checker sees the standard ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import replace as replace
else:

    def dataclass(cls=None, /, **how):
        """Return the class with the methods of a data class: a decorator.

        Keywords, with the standard library's meaning and defaults: `frozen`, `slots`, `kw_only`,
        `eq`, `repr`.
        """
        return (lambda cls: _declared(cls, **how)) if cls is None else _declared(cls)

    def field(**how):
        """Describe a field, by `default`, `default_factory`, `init`, `repr`, `compare`,
        `metadata`."""
        return _Described(**how)

    def fields(record):
        """Return the fields of a data class, or of one of its instances, in order."""
        kind = record if isinstance(record, type) else type(record)
        return kind.__fields__

    def replace(record, /, **changes):
        """Return a copy of a record with other values in some fields."""
        for each in record.__fields__:
            if each.init and each.name not in changes:
                changes[each.name] = getattr(record, each.name)
        return type(record)(**changes)


class _Special:
    """What stands in place of a default: nothing, or what makes one."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any] | None = None) -> None:
        self.make = make


_MISSING = _Special()


class _Described(NamedTuple):
    """What `field` was given."""

    default: Any = _MISSING
    default_factory: Callable[[], Any] | None = None
    init: bool = True
    repr: bool = True
    compare: bool = True
    metadata: Mapping[Any, Any] = MappingProxyType({})


class Field(NamedTuple):
    """A field of a data class.

    Fields: `name`; `type`, as annotated; `default`: a value, or a `_Special`; `init`,
    `repr`, `compare`, `metadata`, as `field` was given them; `kw_only`: whether it is given by its
    name alone.
    """

    name: str
    type: Any
    default: Any
    init: bool
    repr: bool
    compare: bool
    metadata: Mapping[Any, Any]
    kw_only: bool


def _declared(
    cls: type[Any],
    *,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
    eq: bool = True,
    repr: bool = True,  # noqa: A002  # as the standard library calls it
) -> type[Any]:
    inherited = {each.name: each for each in getattr(cls, "__fields__", ())}
    mine = {each.name: each for each in _own_fields(cls, kw_only)}
    listed = tuple((inherited | mine).values())
    compared = tuple(each.name for each in listed if each.compare)
    for each in mine.values():
        if isinstance(each.default, _Special) or slots:
            if each.name in cls.__dict__:
                delattr(cls, each.name)
        else:
            setattr(cls, each.name, each.default)
    methods: dict[str, Any] = {"__match_args__": _positional(listed)}
    if eq:
        methods["__eq__"] = _equal(compared)
        is_hashed = "__hash__" in cls.__dict__ and cls.__dict__["__hash__"] is not None
        if not is_hashed:
            methods["__hash__"] = _hash(compared) if frozen else None
    if repr:
        methods["__repr__"] = _shown
    if frozen and slots:
        methods |= {"__getstate__": _state, "__setstate__": _set_state}
    if frozen:
        methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_set}
    for name, method in methods.items():
        if name not in cls.__dict__ or name == "__hash__":
            setattr(cls, name, method)
    if slots:
        cls = _slotted(cls, tuple(mine), {name for name in inherited if name not in mine})
    cls.__fields__ = listed
    cls.__dataclass_fields__, cls.__signature__ = _Standard(), _Signature()
    cls.__replace__ = replace
    if "__init__" not in cls.__dict__:
        cls.__init__ = _init(cls, listed)
    return cls


def _own_fields(cls: type[Any], kw_only: bool) -> Iterator[Field]:
    for name, kind in cls.__annotations__.items():
        if str(kind).startswith("ClassVar"):
            continue
        default = cls.__dict__.get(name, _MISSING)
        how = default if type(default) is _Described else _Described(default)
        default = how.default
        if how.default_factory is not None:
            default = _Special(how.default_factory)
        elif type(default) in (list, dict, set):
            raise ValueError(f"mutable default {type(default)} for field {name}: give a factory")
        yield Field(name, kind, default, how.init, how.repr, how.compare, how.metadata, kw_only)


def _positional(listed: tuple[Field, ...]) -> tuple[str, ...]:
    return tuple(each.name for each in listed if each.init and not each.kw_only)


def _slotted(cls: type[Any], names: tuple[str, ...], above: set[str]) -> type[Any]:
    """Return the class again, with slots, as they cannot be added to one."""
    space = dict(cls.__dict__)
    for name in (*names, "__dict__", "__weakref__"):
        space.pop(name, None)
    space["__slots__"] = tuple(name for name in names if name not in above)
    made: type[Any] = type(cls)(cls.__name__, cls.__bases__, space)  # type: ignore[misc]  # a metaclass
    made.__qualname__ = cls.__qualname__
    return made


def _init(cls: type[Any], listed: tuple[Field, ...]) -> Callable[..., None]:
    """Return what fills an instance."""
    spec = []
    for each in sorted(listed, key=lambda each: each.kw_only):
        if each.init or each.default is not _MISSING:
            slot = getattr(cls, each.name, None)
            put = slot.__set__ if isinstance(slot, MemberDescriptorType) else _setter(each.name)
            spec.append((each.name, put, each.default))
    most = len(_positional(listed))
    puts = [put for _, put, _ in spec]
    after = getattr(cls, "__post_init__", None)

    def fill(self: Any, *args: Any, **given: Any) -> None:
        rest: Sequence[Any] = spec
        if len(args) == most == len(spec) and not given:
            for put, value in zip(puts, args, strict=True):
                put(self, value)
            rest = ()
        elif args:
            count = len(args)
            if count > most:
                raise TypeError(
                    f"{cls.__name__}() takes {most} positional arguments but {count} were given"
                )
            for (_, put, _), value in zip(spec, args, strict=False):
                put(self, value)
            rest = spec[count:]
        for name, put, default in rest:
            value = given.pop(name, default)
            if type(value) is _Special:
                if value.make is None:
                    raise TypeError(f"{cls.__name__}() is missing the argument {name!r}")
                value = value.make()
            put(self, value)
        if given:
            names = ", ".join(map(repr, given))
            raise TypeError(f"{cls.__name__}() got unexpected or repeated arguments: {names}")
        if after is not None:
            after(self)

    return fill


def _setter(name: str) -> Callable[[Any, Any], None]:
    def put(record: Any, value: Any) -> None:
        object.__setattr__(record, name, value)

    return put


def _values(names: tuple[str, ...]) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else lambda _: ()


def _equal(names: tuple[str, ...]) -> Callable[[Any, object], bool]:
    values = _values(names)

    def is_equal(self: Any, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    return is_equal


def _hash(names: tuple[str, ...]) -> Callable[[Any], int]:
    values = _values(names)

    def hashed(self: Any) -> int:
        return hash(values(self))

    return hashed


def _shown(self: Any) -> str:
    parts = (f"{each.name}={getattr(self, each.name)!r}" for each in self.__fields__ if each.repr)
    return f"{type(self).__qualname__}({', '.join(parts)})"


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in self.__fields__]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(self.__fields__, state, strict=True):
        object.__setattr__(self, each.name, value)


def _refuse_to_set(self: Any, name: str, *_: Any) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change field {name!r} of {type(self).__name__}")


class _Standard:
    """`__dataclass_fields__`, by which the standard library knows data classes: made when asked."""

    def __get__(self, record: object, kind: type[Any]) -> Mapping[str, Any]:
        import dataclasses

        space: dict[str, Any] = {"__annotations__": {}}
        for each in kind.__fields__:
            how = {key: getattr(each, key) for key in ("init", "repr", "compare", "metadata")}
            if type(each.default) is not _Special:
                how["default"] = each.default
            elif each.default.make is not None:
                how["default_factory"] = each.default.make
            space["__annotations__"][each.name] = each.type
            space[each.name] = dataclasses.field(**how, kw_only=each.kw_only)
        standard: Any = dataclasses.dataclass(type(kind.__name__, (), space))
        kind.__dataclass_fields__ = standard.__dataclass_fields__
        return kind.__dataclass_fields__  # type: ignore[no-any-return]  # of any class


class _Signature:
    """`__signature__`, for `help()` and `inspect.signature`: made when asked."""

    def __get__(self, record: object, kind: type[Any]) -> Any:
        from inspect import Parameter, Signature

        if record is not None and not callable(record):
            raise AttributeError("__signature__")
        listed = [each for each in kind.__fields__ if each.init]
        parameters = []
        for each in sorted(listed, key=lambda each: each.kw_only):
            by_name, default = Parameter.KEYWORD_ONLY, each.default
            if type(default) is _Special:
                default = Parameter.empty if default.make is None else default.make
            parameters.append(
                Parameter(
                    each.name,
                    by_name if each.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
                    default=default,
                    annotation=each.type,
                )
            )
        return Signature(parameters, return_annotation=None)

