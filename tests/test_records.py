"""Our `dataclass` does what the standard one does: each check runs against both."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytest

from lstmconvert import records


@records.dataclass(frozen=True, slots=True)
class Ours:
    """A record."""

    name: str
    sizes: tuple[int, ...] = ()
    notes: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)
    hidden: int = dataclasses.field(default=0, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """A record."""

    name: str
    sizes: tuple[int, ...] = ()
    notes: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)
    hidden: int = dataclasses.field(default=0, repr=False)


both = pytest.mark.parametrize("kind", [Ours, Standard])


@both
def test_fields_defaults_and_copies(kind: Any) -> None:
    one = kind("a", notes={"x": 1})
    assert (one.name, one.sizes, one.notes, one.hidden) == ("a", (), {"x": 1}, 0)
    assert kind("a").notes is not kind("a").notes
    assert [field.name for field in dataclasses.fields(one)] == ["name", "sizes", "notes", "hidden"]
    assert dataclasses.replace(one, sizes=(1,)) == kind("a", (1,))
    for same in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (same, same.notes) == (one, {"x": 1})


@both
def test_equality_is_by_the_fields_that_compare(kind: Any) -> None:
    assert kind("a") == kind("a", notes={"x": 1})
    assert hash(kind("a")) == hash(kind("a", notes={"x": 1}))
    assert kind("a") != kind("b")
    assert kind("a") != kind("a", hidden=1)
    assert Ours("a") != Standard("a")
    assert repr(kind("a", (1,))) == f"{kind.__name__}(name='a', sizes=(1,), notes={{}})"


@both
def test_nothing_can_be_set(kind: Any) -> None:
    one = kind("a")
    for change in (
        lambda: setattr(one, "name", "b"),
        lambda: delattr(one, "name"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert not hasattr(one, "__dict__")


@both
@pytest.mark.parametrize(
    "wrong",
    [
        lambda kind: kind(),
        lambda kind: kind("a", name="b"),
        lambda kind: kind("a", other=1),
        lambda kind: kind("a", (), {}, 0, 1),
    ],
)
def test_wrong_arguments_are_refused(kind: Any, wrong: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        wrong(kind)


def test_what_a_class_defines_stays() -> None:
    @records.dataclass(frozen=True, kw_only=True)
    class Own:
        value: int

        def __post_init__(self) -> None:
            object.__setattr__(self, "value", self.value + 1)

        def __repr__(self) -> str:
            return "own"

        @cached_property
        def twice(self) -> int:
            return 2 * self.value

    assert (Own(value=1).value, Own(value=1).twice, repr(Own(value=1))) == (2, 4, "own")
    with pytest.raises(TypeError):
        Own(1)


def test_what_is_not_frozen_can_be_set_and_not_hashed() -> None:
    @records.dataclass(slots=True)
    class Open:
        value: int

    one = Open(1)
    one.value = 2
    assert one == Open(2)
    with pytest.raises(TypeError):
        hash(one)

    @records.dataclass(eq=False)
    class Same:
        value: int

    assert Same(1) != Same(1)


def test_help_shows_the_fields() -> None:
    assert list(inspect.signature(Ours).parameters) == ["name", "sizes", "notes", "hidden"]
    assert inspect.signature(Ours).parameters["sizes"].default == ()
