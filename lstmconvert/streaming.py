"""Moving tensors through a few megabytes of memory, each source byte read once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from lstmconvert.dtypes import Array, little_endian
from lstmconvert.tensors import Columns, Tensor

#: Takes a tensor's key, a byte offset in it, and a piece of it: little-endian, each row's elements
#: side by side, the rows perhaps apart.
Sink = Callable[[str, int, Array], None]


def pour(tensors: Mapping[str, Tensor], sink: Sink) -> None:
    """Hand every byte of every tensor to `sink`, in pieces of a few megabytes.

    Column ranges of one base are cut from the same slab of rows, so that the four gates of a fused
    kernel cost one pass over it.
    """
    groups: dict[int, dict[str, Columns]] = {}
    for key, tensor in tensors.items():
        if isinstance(tensor, Columns):
            groups.setdefault(id(tensor.base), {})[key] = tensor
        else:
            _pour_one(key, tensor, sink)
    for group in groups.values():
        _pour_columns(group, sink)


def _pour_one(key: str, tensor: Tensor, sink: Sink) -> None:
    offset = 0
    for block in tensor.blocks():
        sink(key, offset, block)
        offset += block.nbytes


def _pour_columns(group: Mapping[str, Columns], sink: Sink) -> None:
    base = next(iter(group.values())).base
    for start, stop in base.slabs():
        slab = base.rows(start, stop)
        for key, view in group.items():
            offset = start * view.matrix_shape[1] * view.dtype.itemsize
            sink(key, offset, slab[:, view.start : view.stop])


def write_at(descriptor: int, offset: int, piece: Array) -> None:
    """Write a piece's bytes at an offset of an open file."""
    view = memoryview(little_endian(piece).reshape(-1).view("u1").data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
