"""Recognising a framework's modules among named arrays, without metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from lstmconvert.gates import Gate
from lstmconvert.layouts.gather import Structure
from lstmconvert.layouts.row import Row, Slot
from lstmconvert.layouts.rows import ROWS

#: What may stand between a module's name and its arrays' names: PyTorch's dot, Flax's slash.
_SEPARATORS = r"[./]"
_NEEDED = ("kernel", "recurrent_kernel")


def modules(names: Iterable[str], row: Row) -> dict[str, Structure]:
    """Return the modules whose arrays have a row's names: prefix -> structure.

    A module is there only if every gate's kernel and recurrent kernel are, at each of its places.
    """
    found: dict[str, dict[tuple[int, str], set[str]]] = {}
    for name in names:
        for pattern, slot in _patterns(row):
            match = pattern.fullmatch(name)
            if match is not None:
                groups = match.groupdict()
                index = int(groups.get("k") or 0)
                side = _side(row, groups.get("d"), index)
                place = (index, side)
                parts = found.setdefault(groups["prefix"] or "", {}).setdefault(place, set())
                parts.update(f"{part}.{groups.get('gate', '')}" for part in slot.parts)
    return {
        prefix: structure
        for prefix, places in found.items()
        if (structure := _structure(prefix, places, row)) is not None
    }


def recognised(names: Sequence[str]) -> tuple[Row, dict[str, Structure]] | None:
    """Return the first row whose modules are all there, of those that names alone can tell."""
    for row in ROWS.values():
        if row.recognised:
            found = modules(names, row)
            if found:
                return row, found
    return None


def _structure(
    prefix: str, places: Mapping[tuple[int, str], set[str]], row: Row
) -> Structure | None:
    needed = _needed(row)
    complete = sorted(place for place, parts in places.items() if needed <= parts)
    if not complete:
        return None
    depth = max(index for index, _ in complete) + 1
    both = any(side == "backward" for _, side in complete)
    sides = ("forward", "backward") if both else ("forward",)
    if complete != [(index, side) for index in range(depth) for side in sorted(sides)]:
        return None
    return Structure(prefix=prefix, depth=depth, both=both)


@cache
def _needed(row: Row) -> frozenset[str]:
    return frozenset(
        f"{part}.{row.gate_name(slot, gate) if slot.per_gate else ''}"
        for slot in row.slots
        for part in slot.parts
        if part in _NEEDED
        for gate in (row.order_of(slot) if slot.per_gate else (Gate.INPUT,))
    )


def _side(row: Row, text: str | None, index: int) -> str:  # noqa: ARG001
    return "backward" if text is not None and text == row.sides[2] else "forward"


@cache
def _patterns(row: Row) -> tuple[tuple[re.Pattern[str], Slot], ...]:
    return tuple((_pattern(row, slot), slot) for slot in row.slots)


def _pattern(row: Row, slot: Slot) -> re.Pattern[str]:
    sides = "|".join(re.escape(side) for side in sorted(set(row.sides), key=len, reverse=True))
    number = re.escape(row.index or "").replace(r"\{\}", r"(?P<k>\d{1,6})")
    choices = f"(?:{number}|{re.escape(row.alone)})" if row.alone != "0" else number
    gates = "|".join(re.escape(row.gate_name(slot, gate)) for gate in row.order_of(slot))
    text = re.escape(slot.key)
    for place, expression in (
        ("d", f"(?P<d>{sides})"),
        ("k", choices),
        ("n", r"\d{1,6}"),
        ("gate", f"(?P<gate>{gates})"),
    ):
        text = text.replace(rf"\{{{place}\}}", expression, 1)
    return re.compile(rf"(?P<prefix>(?:.+?{_SEPARATORS})??){text}", re.DOTALL)
