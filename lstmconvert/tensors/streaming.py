"""Moving tensors through a few megabytes of memory, each source byte read once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TypeGuard

import numpy as np

from lstmconvert.limits import BUFFER_BYTES, KIB, MIB
from lstmconvert.tensors import progress
from lstmconvert.tensors.checksums import crc32c
from lstmconvert.tensors.dtypes import Array, little_endian
from lstmconvert.tensors.tensor import (
    ArrayTensor,
    Bytes,
    Columns,
    FileTensor,
    Tensor,
    write_whole,
)
from lstmconvert.tensors.views import PANEL, Transposed, transposed

#: Takes a tensor's key, a byte offset in it, and a piece of it: little-endian, each row's elements
#: side by side; the rows need not be contiguous.
Sink = Callable[[str, int, Array], None]
#: Arrays of up to this many bytes cost more calls than bytes: they are read at once, and written
#: together, as many as fit into a buffer.
SMALL = 64 * KIB
#: Files of at least this many bytes are sent to the disk while they are written, with pauses of so
#: many seconds: what is written in one takes about as long to send.
_WORTH_SENDING, _PAUSE = 64 * MIB, 0.05


def pour(tensors: Mapping[str, Tensor], sink: Sink) -> None:
    """Hand every byte of every tensor to `sink`, in pieces of a few megabytes.

    Column ranges of one base are cut from the same slab of rows, so that the four gates of a fused
    kernel cost one pass over it; and where they are turned, from all of it.
    """
    groups: dict[int, tuple[Tensor, dict[str, Columns]]] = {}
    turned: dict[int, dict[str, Columns]] = {}
    for key, tensor in tensors.items():
        if isinstance(tensor, Columns):
            groups.setdefault(id(tensor.base), (tensor.base, {}))[1][key] = tensor
        elif isinstance(tensor, Transposed) and _fits(tensor.base):
            turned.setdefault(id(tensor.base.base), {})[key] = tensor.base
        else:
            _pour_one(key, tensor, sink)
    for base, views in groups.values():
        _pour_columns(base, views, sink)
    for group in turned.values():
        _pour_turned(group, sink)


def _fits(tensor: Tensor) -> TypeGuard[Columns]:
    """Whether a tensor is columns of one that may be in memory."""
    return isinstance(tensor, Columns) and tensor.base.nbytes <= PANEL


def _pour_turned(group: Mapping[str, Columns], sink: Sink) -> None:
    base = next(iter(group.values())).base
    whole = ArrayTensor(base.read()) if len(group) > 1 else base
    for key, view in group.items():
        _pour_one(key, transposed(Columns(whole, view.start, view.stop)), sink)


def _pour_one(key: str, tensor: Tensor, sink: Sink) -> None:
    offset = 0
    for block in tensor.blocks():
        sink(key, offset, block)
        offset += block.nbytes


def _pour_columns(base: Tensor, group: Mapping[str, Columns], sink: Sink) -> None:
    if base.nbytes <= SMALL:
        slab = base.rows(0, base.matrix_shape[0])
        for key, view in group.items():
            sink(key, 0, slab[:, view.start : view.stop])
        progress.advance(slab.nbytes)
        return
    for start, stop in base.slabs():
        slab = base.rows(start, stop)
        for key, view in group.items():
            offset = start * view.matrix_shape[1] * view.dtype.itemsize
            sink(key, offset, slab[:, view.start : view.stop])
        progress.advance(slab.nbytes)


class Sums:
    """The CRC-32C of each tensor of a file, computed while its bytes are written."""

    def __init__(self) -> None:
        #: Name -> the checksum, and of how many bytes it is.
        self._sums: dict[str, tuple[int, int]] = {}

    def add(self, name: str, data: Bytes | bytes) -> None:
        """Continue the checksum of a tensor with its next bytes."""
        crc, size = self._sums.get(name, _NOTHING)
        self._sums[name] = crc32c(data, crc), size + len(data)

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """Return the checksums of those of some tensors whose bytes have all passed."""
        sums = self._sums
        return {
            name: sums[name][0]
            for name, tensor in tensors.items()
            if name in sums and sums[name][1] == tensor.nbytes
        }

    @property
    def is_begun(self) -> bool:
        """Whether anything was written."""
        return bool(self._sums)

    def passed(self, names: Iterable[str]) -> list[int]:
        """Return the checksums of what was written of some tensors: 0 of nothing."""
        sums = self._sums
        return [sums[name][0] if name in sums else 0 for name in names]


#: The checksum of nothing, and its length.
_NOTHING = 0, 0


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the CRC-32C of the elements of each tensor, in C order, little-endian, by its name.

    Small ones that lie one behind the other in a file are read together.
    """
    result: dict[str, int] = {}
    run: list[tuple[str, FileTensor]] = []
    begin, end, source = 0, 0, None
    for name, tensor in tensors.items():
        if type(tensor) is not FileTensor or tensor.nbytes > SMALL or not tensor.is_little_endian:
            result[name] = tensor.checksum()
            continue
        if tensor.offset != end or tensor.source is not source or end - begin > BUFFER_BYTES:
            _sum_run(run, begin, end, result)
            run, begin, source = [], tensor.offset, tensor.source
        run.append((name, tensor))
        end = tensor.offset + tensor.nbytes
    _sum_run(run, begin, end, result)
    return result


def _sum_run(
    run: Sequence[tuple[str, FileTensor]], begin: int, end: int, result: dict[str, int]
) -> None:
    """Add the checksums of tensors that are all of the bytes from `begin` to `end` of a file."""
    if not run:
        return
    data = bytes(run[0][1].source.read_at(begin, end - begin))
    for name, tensor in run:
        start = tensor.offset - begin
        result[name] = crc32c(data[start : start + tensor.nbytes])
    progress.advance(len(data))


def pour_into(
    descriptor: int, tensors: Mapping[str, Tensor], offsets: Mapping[str, int], sums: Sums
) -> None:
    """Write tensors into an open file.

    Args:
        descriptor: of the file.
        tensors: name -> tensor.
        offsets: name -> the byte at which the tensor begins in the file.
        sums: takes the checksum of each.
    """

    waiting: list[tuple[int, bytes]] = []
    waits = 0

    def sink(name: str, offset: int, piece: Array) -> None:
        nonlocal waits
        if piece.nbytes > SMALL:
            data = _bytes_of(piece)
            sums.add(name, data)
            write_whole(descriptor, data.data, offsets[name] + offset)
            return
        few = piece.tobytes()
        sums.add(name, few)
        waiting.append((offsets[name] + offset, few))
        waits += piece.nbytes
        if waits > BUFFER_BYTES:
            _write_together(descriptor, waiting)
            waits = 0

    with _sent_on(descriptor, sum([tensor.nbytes for tensor in tensors.values()])):
        pour(tensors, sink)
        _write_together(descriptor, waiting)


def gathered(tensors: Mapping[str, Tensor], size: int, sums: Sums) -> bytes:
    """Return the bytes of tensors, one behind the other.

    Args:
        tensors: name -> tensor.
        size: how many bytes they have.
        sums: takes the checksum of each.
    """
    begins, end = dict[str, int](), 0
    for name, tensor in tensors.items():
        begins[name] = end
        end += tensor.nbytes
    result = bytearray(size)

    def sink(name: str, offset: int, piece: Array) -> None:
        data = piece.tobytes()
        sums.add(name, data)
        start = begins[name] + offset
        result[start : start + len(data)] = data

    pour(tensors, sink)
    return bytes(result)


@contextlib.contextmanager
def _sent_on(descriptor: int, size: int) -> Iterator[None]:
    """Send what the block writes to the disk meanwhile: it has less to wait for at the end.

    A failure is left to the flush before the file takes its name, which reports it.

    Args:
        descriptor: of the file.
        size: how many bytes are to be written. Of a few, nothing is sent: the disk would wait for
            the rest.
    """
    if size < _WORTH_SENDING or not hasattr(os, "fdatasync"):
        yield
        return
    is_written = threading.Event()
    duplicate = os.dup(descriptor)  # as the file may be closed before the thread ends

    def send() -> None:
        try:
            while not is_written.wait(_PAUSE):
                os.fdatasync(duplicate)
        except OSError:
            pass
        finally:
            os.close(duplicate)

    threading.Thread(target=send, daemon=True).start()
    try:
        yield
    finally:
        is_written.set()


def _write_together(descriptor: int, waiting: list[tuple[int, bytes]]) -> None:
    """Write pieces, each at its offset of an open file, and forget them."""
    waiting.sort()
    begin, end, run = 0, 0, list[bytes]()
    for offset, data in waiting:
        if offset != end and run:
            write_whole(descriptor, b"".join(run), begin)
            run = []
        if not run:
            begin = offset
        run.append(data)
        end = offset + len(data)
    if run:
        write_whole(descriptor, b"".join(run), begin)
    waiting.clear()


def write_at(descriptor: int, offset: int, piece: Array) -> None:
    """Write a piece's bytes at an offset of an open file."""
    write_whole(descriptor, _bytes_of(piece).data, offset)


def write_to(
    file: IO[bytes], tensor: Tensor, seen: Callable[[Bytes], None] = lambda _: None
) -> None:
    """Write a tensor's bytes where an open file stands, in pieces of a few megabytes.

    Args:
        file: the file.
        tensor: the tensor.
        seen: is shown each piece, for a checksum.
    """
    for block in tensor.blocks():
        data = _bytes_of(block)
        seen(data)
        file.write(data.data)


def _bytes_of(piece: Array) -> Bytes:
    """Return a piece's bytes, without a copy where they lie side by side."""
    return little_endian(piece).reshape(-1).view(np.uint8)
