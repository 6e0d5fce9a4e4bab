"""Recognising a framework's modules among named arrays, without metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from lstmconvert.layouts.gather import SIDES, ModuleStructure
from lstmconvert.layouts.row import Row, Slot
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.gates import Gate
from lstmconvert.tensors.tensor import Tensor

#: Characters between a module's name and its arrays' names: PyTorch's dot, Flax's slash.
_SEPARATORS = r"[./]"
Patterns = tuple[tuple[re.Pattern[str], Slot], ...]
_NEEDED = ("kernel", "recurrent_kernel")


def modules(arrays: Mapping[str, Tensor], row: Row) -> dict[str, ModuleStructure]:
    """Return the modules whose arrays have a row's names: prefix -> structure.

    A module is there only if every gate's kernel and recurrent kernel are, at each of its places.
    """
    return {prefix: structure for prefix, (structure, _) in _modules(arrays, row).items()}


def recognised(arrays: Mapping[str, Tensor], rows: Iterable[Row] | None = None) -> Row | None:
    """Return the row that explains most of the names.

    Of two rows that explain the same number, it is the one that leaves the shorter prefix.

    Args:
        arrays: the arrays, by name.
        rows: the rows to choose from; by default those that are recognised by names.
    """
    best, most = None, (0, 0)
    every = tuple(row for row in ROWS.values() if row.recognised) if rows is None else tuple(rows)
    ends = _ends(every)  # most names of a large file are not a layer's: one look tells
    arrays = {name: tensor for name, tensor in arrays.items() if ends.search(name)}
    for row in every:
        modules_of_row = _modules(arrays, row)
        count = sum(number for _, number in modules_of_row.values())
        score = (count, -max(map(len, modules_of_row), default=0))
        if count and score > most:
            best, most = row, score
    return best


def _modules(arrays: Mapping[str, Tensor], row: Row) -> dict[str, tuple[ModuleStructure, int]]:
    """Return `prefix -> (structure, how many names belong to it)`."""
    parts_at: dict[str, dict[tuple[int, str], set[str]]] = {}
    counts: dict[str, int] = {}
    patterns = _patterns(row)  # once: to hash a row takes longer than to match a name
    for name, tensor in arrays.items():
        for groups, slot in _matches(name, patterns):
            prefix, index = groups["prefix"] or "", int(groups.get("k") or 0)
            parts = {f"{part}.{groups.get('gate', '')}" for part in slot.parts}
            sides = _sides(row, groups.get("d"), tensor)
            if row.paired:
                index, backward = divmod(index, 2)
                sides = SIDES[backward : backward + 1]
            for side in sides:
                parts_at.setdefault(prefix, {}).setdefault((index, side), set()).update(parts)
            counts[prefix] = counts.get(prefix, 0) + 1
    return {
        prefix: (structure, counts[prefix])
        for prefix, places in parts_at.items()
        if (structure := _structure(prefix, places, row)) is not None
    }


def _matches(name: str, patterns: Patterns) -> list[tuple[dict[str, str], Slot]]:
    """Return the slots that a name fits, with the groups of the match: those with the shortest
    prefix."""
    matches = [(pattern.fullmatch(name), slot) for pattern, slot in patterns]
    groups = [(match.groupdict(), slot) for match, slot in matches if match is not None]
    shortest = min((len(group["prefix"]) for group, _ in groups), default=0)
    return [(group, slot) for group, slot in groups if len(group["prefix"]) == shortest]


def _sides(row: Row, text: str | None, tensor: Tensor) -> tuple[str, ...]:
    if row.joined:
        return SIDES[: tensor.shape[0]] if tensor.shape else ()
    is_backward = text is not None and text == row.sides[2]
    return SIDES[1:] if is_backward else SIDES[:1]


def _structure(
    prefix: str, places: Mapping[tuple[int, str], set[str]], row: Row
) -> ModuleStructure | None:
    needed = _needed(row)
    complete = sorted(place for place, parts in places.items() if needed <= parts)
    if not complete:
        return None
    depth = max(index for index, _ in complete) + 1
    both = any(side == "backward" for _, side in complete)
    sides = sorted(SIDES if both else SIDES[:1])
    if complete != [(index, side) for index in range(depth) for side in sides]:
        return None
    return ModuleStructure(prefix=prefix, depth=depth, both=both)


@cache
def _ends(rows: tuple[Row, ...]) -> re.Pattern[str]:
    """Return a pattern that is in every name that fits a slot of one of some rows."""
    texts = sorted({_text(row, slot) for row in rows for slot in row.slots})
    nameless = re.sub(r"\(\?P<\w+>", "(?:", "|".join(texts))
    return re.compile(rf"(?:\A|{_SEPARATORS})(?:{nameless})\Z")


@cache
def _needed(row: Row) -> frozenset[str]:
    return frozenset(
        f"{part}.{row.gate_name(slot, gate) if slot.per_gate else ''}"
        for slot in row.slots
        for part in slot.parts
        if part in _NEEDED
        for gate in (row.order_of(slot) if slot.per_gate else (Gate.INPUT,))
    )


@cache
def _patterns(row: Row) -> Patterns:
    return tuple((_pattern(row, slot), slot) for slot in row.slots)


def _pattern(row: Row, slot: Slot) -> re.Pattern[str]:
    return re.compile(rf"(?P<prefix>(?:.+?{_SEPARATORS})??){_text(row, slot)}", re.DOTALL)


def _text(row: Row, slot: Slot) -> str:
    """Return the expression for a slot's name behind the prefix of its module."""
    sides = "|".join(re.escape(side) for side in sorted(set(row.sides), key=len, reverse=True))
    number = re.escape(row.index or "").replace(r"\{\}", r"(?P<k>\d{1,6})")
    choices = f"(?:{number}|{re.escape(row.alone)})" if row.alone != "0" else number
    gates = "|".join(re.escape(row.gate_name(slot, gate)) for gate in row.order_of(slot))
    text = re.escape(slot.key)
    for place, expression in (
        ("d", f"(?P<d>{sides})"),
        ("k", choices),
        ("gate", f"(?P<gate>{gates})"),
    ):
        text = text.replace(rf"\{{{place}\}}", expression, 1)
    return text
