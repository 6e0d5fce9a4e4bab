"""Equinox's `.eqx`: the leaves of a tree as `.npy` arrays, one after another, without names.

(equinox/_serialisation.py, `tree_serialise_leaves`.) A line of JSON may precede them, where
Equinox's documentation has people keep how to build the tree; it is stepped over. Three or two
arrays that have the shapes of an `equinox.nn.LSTMCell`'s leaves are one: `weight_ih` (4 units,
inputs), `weight_hh` (4 units, units), `bias` (4 units,). A cell's name is its number, where there
are several.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.files import npy
from lstmconvert.files.opening import Window
from lstmconvert.tensors.dtypes import dtype_of
from lstmconvert.tensors.tensor import SourceFile, Tensor

_KEYS = ("weight_ih", "weight_hh", "bias")
#: A line of JSON is looked for in this number of bytes.
_LINE_BYTES = 1 << 20
#: NumPy has no name for bfloat16: it is written as raw bytes of two (jax.numpy.save).
_RAW, _BFLOAT16 = ("<V2", "|V2"), "bfloat16"


def read(file: Opened) -> Arrays:
    """Read a file's arrays: a cell's as `<number>.weight_ih`, others' by their number.

    Raises:
        CorruptFile, LimitExceeded: it is not of this format.
    """
    leaves = _leaves(file.source)
    cells: list[dict[str, Tensor]] = []
    others: dict[str, Tensor] = {}
    start = 0
    while start < len(leaves):
        count = _cell(leaves[start : start + 3])
        if count:
            cells.append(dict(zip(_KEYS, leaves[start : start + count], strict=False)))
        else:
            others[f"leaf.{start}"] = leaves[start]
        start += count or 1
    if len(cells) == 1:
        return Arrays({**cells[0], **others}, {})
    named = {f"{number}.{key}": t for number, cell in enumerate(cells) for key, t in cell.items()}
    return Arrays({**named, **others}, {})


def _leaves(source: SourceFile) -> list[Tensor]:
    leaves: list[Tensor] = []
    offset = _after_json(source)
    while offset < source.size:
        limits.EQX_LEAVES.check(len(leaves), source.path, "the number of arrays")
        where = f"{source.path}: array {len(leaves)}"
        header = npy.read_header(Window(source, offset), where)
        is_raw = header.descr in _RAW
        dtype = dtype_of(_BFLOAT16) if is_raw else npy.number_dtype(header.descr, where)
        begin, size = offset + header.data, math.prod(header.shape) * dtype.itemsize
        size = min(size, source.size - begin)
        data = Window(source, begin, size)
        leaves.append(npy.tensor_at(data, dtype, header.shape, header.fortran, where))
        offset = begin + size
    return leaves


def _after_json(source: SourceFile) -> int:
    """Return where the arrays begin: behind a first line of JSON, if there is one."""
    head = bytes(source.read_at(0, min(source.size, _LINE_BYTES)))
    if not head.startswith(b"{"):
        return 0
    line, newline, _ = head.partition(b"\n")
    if not newline:
        raise CorruptFile(
            "no arrays behind its line of JSON", where=source.path, expected=".npy arrays"
        )
    return len(line) + 1


def _cell(leaves: list[Tensor]) -> int:
    """Return how many of the first leaves are a cell's: 3, 2 without bias, or 0."""
    shapes = [leaf.shape for leaf in leaves]
    if len(shapes) < 2 or len(shapes[0]) != 2 or len(shapes[1]) != 2:
        return 0
    rows = shapes[0][0]
    if shapes[1][0] != rows or rows != 4 * shapes[1][1] or not rows:
        return 0
    return 3 if shapes[2:] == [(rows,)] else 2


def write(path: Path, content: Writing) -> None:
    """Write one cell, which `tree_deserialise_leaves` reads.

    Raises:
        UnsupportedByTarget: it is more than one cell: the format has no names for them.
    """
    tensors = content.tensors
    if not set(tensors) <= set(_KEYS):
        raise UnsupportedByTarget(
            "an .eqx has no names: it holds one cell here, without a name before its arrays",
            where=".eqx",
            option="layers",
            target="eqx",
            found=", ".join(tensors)[:80],
            expected=", ".join(_KEYS),
            hint="give --bare, and one layer of one direction with --layer",
        )
    with open(path, "wb") as file:
        for key in (key for key in _KEYS if key in tensors):
            # Into a file itself, NumPy writes past Python, and a full disk goes unseen.
            sink = SimpleNamespace(write=file.write)
            np.save(sink, np.ascontiguousarray(tensors[key].read()), allow_pickle=False)
