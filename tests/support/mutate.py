"""Seeded mutations of files: of bytes, of JSON texts, of what an HDF5 file holds."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Mutation = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1)


def dice(*seed: object) -> random.Random:
    """Dice that always fall the same way."""
    return random.Random("/".join(map(str, seed)))


def flip(data: bytes, dice: random.Random) -> bytes:
    """One bit."""
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def several(data: bytes, dice: random.Random) -> bytes:
    """A few bytes, anywhere."""
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 8)):
        changed[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(changed)


def number(data: bytes, dice: random.Random) -> bytes:
    """A number that is often a bound, of one to eight bytes."""
    packed = struct.pack("<Q", dice.choice((*_NUMBERS, len(data))))[: dice.choice((1, 2, 4, 8))]
    at = dice.randrange(len(data))
    return data[:at] + packed + data[at + len(packed) :]


def truncate(data: bytes, dice: random.Random) -> bytes:
    """The end is missing."""
    return data[: dice.randrange(len(data))]


def cut(data: bytes, dice: random.Random) -> bytes:
    """A piece in the middle is missing."""
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.randrange(1, 600) :]


def repeat(data: bytes, dice: random.Random) -> bytes:
    """A piece stands twice."""
    start = dice.randrange(len(data))
    end = start + dice.randrange(1, 600)
    return data[:end] + data[start:end] + data[end:]


def many(data: bytes, dice: random.Random) -> bytes:
    """A short piece stands thousands of times: what grows faster than the file is found by time."""
    start = dice.randrange(len(data))
    piece = data[start : start + dice.choice((1, 2, 8, 30, 64, 200))]
    return data[:start] + piece * dice.randrange(1000, 20_000) + data[start:]


def swap(data: bytes, dice: random.Random) -> bytes:
    """Two pieces of one length have changed places."""
    size = dice.choice((1, 8, 16, 64, 512))
    one, two = sorted(dice.randrange(max(1, len(data) - size)) for _ in range(2))
    if two - one < size:
        return flip(data, dice)
    pieces = data[one : one + size], data[two : two + size]
    return data[:one] + pieces[1] + data[one + size : two] + pieces[0] + data[two + size :]


def splice(data: bytes, dice: random.Random) -> bytes:
    """A piece of another place stands here, or in the place of what was here."""
    size = dice.choice((1, 4, 8, 32, 128, 512))
    start, at = dice.randrange(len(data)), dice.randrange(len(data))
    return data[:at] + data[start : start + size] + data[at + dice.choice((0, size)) :]


def blank(data: bytes, dice: random.Random) -> bytes:
    """A sector was never written."""
    size = dice.choice((16, 64, 512))
    start = dice.randrange(len(data)) // size * size
    return data[:start] + bytes(len(data[start : start + size])) + data[start + size :]


BYTES: tuple[Mutation, ...] = (
    flip,
    flip,
    flip,
    several,
    number,
    truncate,
    cut,
    repeat,
    many,
    swap,
    splice,
    blank,
)

#: Values that a config never has where they are put.
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 2, 1.5, 1e308, 2**31, 2**63, 10**399, "", "x", "x" * 3000, "\0",
    "a/b", "../..", "\u202e", "lstm", "LSTM", "float64", "hard_sigmoid", "concat",
    [], [None], [[]], [1, 2], {}, {"a": 1}, {"class_name": "LSTM"},
    {"class_name": "LSTM", "config": {}},
    {"class_name": "RNN", "config": {"cell": {"class_name": "StackedRNNCells", "config": {}}}},
    {"class_name": ["LSTM"], "config": 3}, {"class_name": "Bidirectional", "config": {"layer": 1}},
)  # fmt: skip


def mutate_json(value: Any, dice: random.Random) -> Any:
    """A JSON value with one to three of its parts replaced, dropped, renamed or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return dice.choice(_ODD)
        holder, key = dice.choice(places)
        match dice.randrange(6):
            case 0 | 1 | 2:
                holder[key] = json.loads(json.dumps(dice.choice(_ODD)))
            case 3:
                del holder[key]
            case 4:
                other, its_key = dice.choice(places)
                holder[key] = json.loads(json.dumps(other[its_key]))
            case _:
                if isinstance(holder, dict):
                    holder[dice.choice(("name", "config", "class_name", "x"))] = holder.pop(key)
                else:
                    holder.append(json.loads(json.dumps(holder[key])))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        keys = item.keys() if isinstance(item, dict) else range(len(item))
        for key in list(keys):
            yield item, key
            if isinstance(item[key], (dict, list)):
                stack.append(item[key])


def mutate_hdf5(source: Path, target: Path, dice: random.Random) -> None:
    """A copy of an HDF5 file, well formed, in which something is not as Keras would have it."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        groups, datasets = [file["/"]], []
        file.visititems(lambda _, x: (groups if isinstance(x, h5py.Group) else datasets).append(x))
        for _ in range(dice.choice((1, 1, 2))):
            dice.choice(_HDF5)(file, groups, datasets, dice)


def _exchange_attributes(file: Any, groups: Any, datasets: Any, dice: random.Random) -> None:
    one, two = dice.choice(groups), dice.choice(groups)
    for name in [*one.attrs]:
        with contextlib.suppress(UnicodeEncodeError):  # h5py reads bytes that it cannot write
            two.attrs[name] = one.attrs[name]


def _odd_attribute(file: Any, groups: Any, datasets: Any, dice: random.Random) -> None:
    group = dice.choice([group for group in groups if len(group.attrs)] or groups)
    names = [*group.attrs, "layer_names", "weight_names", "name", "weight_names0", "keras_version"]
    group.attrs[dice.choice(names)] = dice.choice(
        (1, 1.5, "", "x", b"\xff", "3.x", "[]", "{}", np.arange(3), ["a", "b"], [b"lstm"] * 2,
         np.zeros((2, 2), "S3"), h5py.Empty("f4"), np.zeros(0), "\u202e", "a/b/../c")
    )  # fmt: skip


def _drop(file: Any, groups: Any, datasets: Any, dice: random.Random) -> None:
    item = dice.choice([*groups[1:], *datasets])
    if item and item.name and item.name in file:
        del file[item.name]


def _drop_attribute(file: Any, groups: Any, datasets: Any, dice: random.Random) -> None:
    group = dice.choice(groups)
    if group and len(group.attrs):
        del group.attrs[dice.choice([*group.attrs])]


def _move(file: Any, groups: Any, datasets: Any, dice: random.Random) -> None:
    item = dice.choice([*groups[1:], *datasets])
    parent = dice.choice(groups)
    name = f"{parent.name}/{dice.choice(('0', '1', 'vars', 'cell', 'kernel', 'x'))}"
    if item.name and item.name in file and name not in file and not name.startswith(item.name):
        file.move(item.name, name)


def _reshape(file: Any, groups: Any, datasets: Any, dice: random.Random) -> None:
    dataset = dice.choice(datasets)
    if not dataset or not dataset.name or dataset.name not in file:
        return
    name, shape = dataset.name, [*dataset.shape]
    match dice.randrange(4):
        case 0 if shape:
            shape[dice.randrange(len(shape))] = dice.choice((0, 1, 3, 4, 8, 100))
        case 1:
            shape.append(1)
        case 2 if shape:
            shape.pop()
        case _:
            shape.reverse()
    del file[name]
    file[name] = np.ones(shape, dice.choice(("f4", "f2", "f8", ">f4", "i4", "?", "S2")))


_HDF5 = (
    _exchange_attributes,
    _odd_attribute,
    _odd_attribute,
    _drop,
    _drop_attribute,
    _move,
    _reshape,
)
