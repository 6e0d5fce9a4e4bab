"""How much of a product of parameters is run, and in how many tests.

By default a covering set, and few rounds of what is random; all with LSTMCONVERT_TESTS=all. Cases
that take less than a test of their own does are run in one test (`each`).
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

#: Whether everything is run.
ALL = os.environ.get("LSTMCONVERT_TESTS") == "all"


def rounds(most: int) -> int:
    """Return how many of so many random examples are tried: other ones in each run."""
    return most if ALL else max(min(most, 6), most // 4)


def pairs(
    *axes: Iterable[Any], fits: Callable[..., bool] = lambda *_: True
) -> list[tuple[Any, ...]]:
    """Return rows of the product in which any two values of two axes meet, or the whole product.

    The same axes give the same rows in every process. Rows that `fits` refuses are left out.
    """
    values: list[Sequence[Any]] = [list(axis) for axis in axes]
    rows = [row for row in itertools.product(*values) if fits(*row)]
    if ALL:
        return rows
    # Places, not values: values need not be hashable.
    places = [tuple(axis.index(v) for axis, v in zip(values, row, strict=True)) for row in rows]
    meets = [set(itertools.combinations(enumerate(place), 2)) for place in places]
    missing = set().union(*meets)
    chosen = []
    while missing:
        best = max(range(len(rows)), key=lambda i: len(meets[i] & missing))
        chosen.append(best)
        missing -= meets[best]
    return [rows[i] for i in sorted(chosen)]


def turns(items: Iterable[Any], other: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return each item once, with the values of the other axis in turn, or the whole product."""
    if ALL:
        return list(itertools.product(items, other))
    return [(item, other[i % len(other)]) for i, item in enumerate(items)]


def groups(names: Iterable[str], size: int) -> list[Any]:
    """Return parameters of so many names each: what is built for one test is built for several."""
    every = list(names)
    parts = [every[i : i + size] for i in range(0, len(every), size)]
    return [pytest.param(part, id=f"{part[0]} to {part[-1]}") for part in parts]


class _Axis(NamedTuple):
    """Parameters of a test by name, their values, and what a case is called."""

    names: list[str]
    cases: Iterable[Any] | Callable[[], Iterable[Any]]
    ids: Callable[[Any], str]


def each(
    names: str,
    cases: Iterable[Any] | Callable[[], Iterable[Any]],
    ids: Callable[[Any], str] = str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each case in one test, as `parametrize` does in as many.

    All cases are run, and all that fail are named. Several of these make a product. Each case has a
    `tmp_path` and a `monkeypatch` of its own; other fixtures are one for all. No case may skip.
    Cases that are a function's are made when the test is run.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        inner = getattr(test, "one_case", test)
        axes = [*getattr(test, "axes", ()), _Axis(names.replace(" ", "").split(","), cases, ids)]
        taken = {name for axis in axes for name in axis.names}
        signature = inspect.signature(inner)
        parameters = [p for p in signature.parameters.values() if p.name not in taken]

        @functools.wraps(inner)
        def whole(**fixtures: Any) -> None:
            failed, labels, number = [], [], 0
            for number, (label, values) in enumerate(_product(axes)):
                own = dict(fixtures)
                if "tmp_path" in own:
                    own["tmp_path"] = Path(fixtures["tmp_path"], f"case{number}")
                    own["tmp_path"].mkdir()
                with pytest.MonkeyPatch.context() as patch:
                    if "monkeypatch" in own:
                        own["monkeypatch"] = patch
                    try:
                        inner(**own, **values)
                    except (Exception, pytest.fail.Exception) as error:
                        error.add_note(f"the case: {label}")
                        failed.append(error)
                        labels.append(label)
                    except pytest.skip.Exception:
                        failed.append(AssertionError(f"a case that skips is hidden: {label}"))
                        labels.append(label)
            if failed:
                text = f"{len(failed)} of {number + 1} cases: {'; '.join(labels)}"
                raise BaseExceptionGroup(text, failed)
            assert number

        whole.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        whole.one_case, whole.axes = inner, axes  # type: ignore[attr-defined]
        return whole

    return decorate


def _product(axes: list[_Axis]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield what each case is called, and its values by name."""
    listed = [axis.cases() if callable(axis.cases) else axis.cases for axis in axes]
    for case in itertools.product(*listed):
        label, values = [], dict[str, Any]()
        for axis, item in zip(axes, case, strict=True):
            parts = item if len(axis.names) > 1 else (item,)
            values.update(zip(axis.names, parts, strict=True))
            label += [axis.ids(part) for part in parts]
        yield "-".join(label), values
