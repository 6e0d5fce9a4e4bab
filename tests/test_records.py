"""Data classes of `lstmconvert.records` do what the standard library's do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

from lstmconvert import records


def _declare(library: Any) -> dict[str, type[Any]]:
    """Declare the same classes with one library or the other."""
    dataclass, field = library.dataclass, library.field

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Frozen:
        a: int
        b: Any = field(default=None, compare=False, repr=False)
        c: Any = field(default_factory=list)

    @dataclass(frozen=True, slots=True)
    class Checked:
        a: int
        b: int = 2

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError("negative")

    @dataclass
    class Open:
        a: int
        b: int = 2

    @dataclass(frozen=True)
    class Below(Checked):
        b: int = 5
        c: int = 7

    @dataclass(frozen=True, eq=False, repr=False)
    class Same:
        a: int = 1

    @dataclass(slots=True)
    class Later:
        a: int
        b: int = field(init=False)

    kinds = (Frozen, Checked, Open, Below, Same, Later)
    return {kind.__name__: kind for kind in kinds}


STANDARD, OURS = _declare(dataclasses), _declare(records)
#: Class -> what is given, by position and by name; some of it is refused.
GIVEN: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Frozen", (), {"a": 1}),
    ("Frozen", (), {"a": 1, "b": 2, "c": (3,)}),
    ("Frozen", (1,), {}),
    ("Frozen", (), {}),
    ("Frozen", (), {"a": 1, "d": 2}),
    ("Checked", (1,), {}),
    ("Checked", (1, 3), {}),
    ("Checked", (1, 3, 4), {}),
    ("Checked", (1,), {"a": 1}),
    ("Checked", (-1,), {}),
    ("Open", (1,), {"b": 3}),
    ("Open", (), {"b": 3}),
    ("Below", (1,), {}),
    ("Below", (-1,), {}),
    ("Below", (1, 2, 3), {}),
    ("Same", (), {}),
    ("Later", (1,), {}),
    ("Later", (1, 2), {}),
]


def _outcomes(kind: type[Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """What happens when a record is made, shown, compared, changed and copied."""
    try:
        record = kind(*args, **given)
    except Exception as error:
        return type(error)
    named: tuple[Any, ...] = tuple(f.name for f in dataclasses.fields(record) if f.init)
    shown = "" if kind.__name__ in ("Same", "Later") else repr(record).rpartition(".")[2]
    outcomes: list[Any] = [shown, record == 1, kind.__hash__ is None]
    for attempt in (
        lambda: record == kind(*args, **given),
        lambda: hash(record) == hash(kind(*args, **given)),
        lambda: setattr(record, "a", 9),
        lambda: delattr(record, "a"),
        lambda: dataclasses.replace(record, a=4).a,
        lambda: _library(kind).replace(record, a=4).a,
        lambda: copy.deepcopy(record).a,
        lambda: dataclasses.asdict(record),
        lambda: [(f.name, f.type, f.compare, f.kw_only) for f in dataclasses.fields(kind)],
        lambda: list(inspect.signature(kind).parameters),
        lambda: kind.__match_args__,
        lambda: hasattr(record, "__dict__"),
    ):
        try:
            outcomes.append(attempt())
        except Exception as error:
            outcomes.append(type(error))
    return named, outcomes


def _library(kind: type[Any]) -> Any:
    return records if kind in OURS.values() else dataclasses


@pytest.mark.parametrize(("name", "args", "given"), GIVEN)
def test_a_record_does_what_a_standard_one_does(
    name: str, args: tuple[Any, ...], given: dict[str, Any]
) -> None:
    assert _outcomes(OURS[name], args, given) == _outcomes(STANDARD[name], args, given)


def test_a_record_survives_pickling() -> None:
    from lstmconvert.model.options import CellOptions

    options = CellOptions(dropout=0.5)
    assert pickle.loads(pickle.dumps(options)) == options


def test_a_mutable_default_is_refused() -> None:
    with pytest.raises(ValueError, match="give a factory"):

        @records.dataclass
        class Shared:
            a: list[int] = []  # noqa: RUF012  # it is refused


def test_no_command_declares_a_standard_data_class() -> None:
    """Declaring one takes half a millisecond."""
    code = (
        "import sys, lstmconvert, lstmconvert.cli.convert, lstmconvert.api\n"
        "import lstmconvert.keras.reading.load, lstmconvert.layouts.rows\n"
        "print('dataclasses' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
