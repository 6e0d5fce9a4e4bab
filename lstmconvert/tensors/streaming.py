"""Moving tensors through a few megabytes of memory, each source byte read once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import IO, TypeGuard, TypeVar

import numpy as np

from lstmconvert.limits import BUFFER_BYTES, KIB, MIB
from lstmconvert.tensors import progress
from lstmconvert.tensors.checksums import crc32c, crc32c_each
from lstmconvert.tensors.dtypes import Array, little_endian
from lstmconvert.tensors.tensor import (
    ArrayTensor,
    Bytes,
    Columns,
    FileTensor,
    SourceFile,
    Tensor,
    write_whole,
)
from lstmconvert.tensors.views import PANEL, Transposed, transposed

Key = TypeVar("Key")
#: Takes a tensor's key, a byte offset in it, and a piece of it: little-endian, each row's elements
#: side by side; the rows need not be contiguous.
Sink = Callable[[Key, int, Array], None]
#: Arrays of up to this many bytes cost more calls than bytes: they are read at once, and written
#: together, as many as fit into a buffer.
SMALL = 64 * KIB
#: Files of at least this many bytes are sent to the disk while they are written, with pauses of so
#: many seconds: what is written in one takes about as long to send.
_WORTH_SENDING, _PAUSE = 64 * MIB, 0.05


def pour(tensors: Iterable[tuple[Key, Tensor]], sink: Sink[Key]) -> None:
    """Hand every byte of every tensor to `sink`, in pieces of a few megabytes.

    Column ranges of one base are cut from the same slab of rows, so that the four gates of a fused
    kernel cost one pass over it; and where they are turned, from all of it.

    Args:
        tensors: each with its key.
        sink: takes the pieces.
    """
    # Of a base of which columns are still to come: those that came, and how many are missing.
    groups: dict[int, tuple[list[tuple[Key, Columns]], int]] = {}
    turned: dict[int, list[tuple[Key, Columns]]] = {}
    for key, tensor in tensors:
        if isinstance(tensor, Columns):
            base, width = tensor.base, tensor.stop - tensor.start
            views, missing = groups.get(id(base)) or ([], base.shape[-1])
            views.append((key, tensor))
            if width < missing:
                groups[id(base)] = views, missing - width
            else:
                groups.pop(id(base), None)
                _pour_columns(views, sink)
        elif isinstance(tensor, Transposed) and _fits(tensor.base):
            turned.setdefault(id(tensor.base.base), []).append((key, tensor.base))
        else:
            _pour_one(key, tensor, sink)
    for views, _ in groups.values():
        _pour_columns(views, sink)
    for views in turned.values():
        _pour_turned(views, sink)


def _fits(tensor: Tensor) -> TypeGuard[Columns]:
    """Whether a tensor is columns of one that may be in memory."""
    return isinstance(tensor, Columns) and tensor.base.nbytes <= PANEL


def _pour_turned(views: Sequence[tuple[Key, Columns]], sink: Sink[Key]) -> None:
    base = views[0][1].base
    whole = ArrayTensor(base.read()) if len(views) > 1 else base
    for key, view in views:
        _pour_one(key, transposed(Columns(whole, view.start, view.stop)), sink)


def _pour_one(key: Key, tensor: Tensor, sink: Sink[Key]) -> None:
    offset = 0
    for block in tensor.blocks():
        sink(key, offset, block)
        offset += block.nbytes


def _pour_columns(views: Sequence[tuple[Key, Columns]], sink: Sink[Key]) -> None:
    base = views[0][1].base
    if base.nbytes <= SMALL:
        slab = base.rows(0, base.matrix_shape[0])
        for key, view in views:
            sink(key, 0, slab[:, view.start : view.stop])
        progress.advance(slab.nbytes)
        return
    for start, stop in base.slabs():
        slab = base.rows(start, stop)
        for key, view in views:
            offset = start * view.matrix_shape[1] * view.dtype.itemsize
            sink(key, offset, slab[:, view.start : view.stop])
        progress.advance(slab.nbytes)


class Sums:
    """The CRC-32C of each tensor of a file, computed while its bytes are written."""

    def __init__(self) -> None:
        #: Name -> the checksum, and above it of how many bytes it is: in one number, of which
        #: thousands of layers have tens of thousands.
        self._sums: dict[str, int] = {}

    def add(self, name: str, data: Bytes | bytes) -> None:
        """Continue the checksum of a tensor with its next bytes."""
        known = self._sums.get(name)
        if known is None:
            self._sums[name] = len(data) << _BITS | crc32c(data)
        else:
            size = (known >> _BITS) + len(data)
            self._sums[name] = size << _BITS | crc32c(data, known & _CRC)

    def add_whole(self, names: Sequence[str], pieces: Sequence[bytes]) -> None:
        """Take the checksums of tensors, of each of which these are all bytes, or the first."""
        crcs = zip(pieces, crc32c_each(pieces), strict=True)
        sums = [len(data) << _BITS | crc for data, crc in crcs]
        self._sums.update(zip(names, sums, strict=True))

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """Return the checksums of those of some tensors whose bytes have all passed."""
        sums = self._sums
        return {
            name: sums[name] & _CRC
            for name, tensor in tensors.items()
            if name in sums and sums[name] >> _BITS == tensor.nbytes
        }

    def passed(self, names: Iterable[str]) -> list[int]:
        """Return the checksums of what was written of some tensors: 0 of nothing."""
        known = self._sums.get
        return [known(name, 0) & _CRC for name in names]


#: The bits of a checksum.
_BITS, _CRC = 32, 0xFFFFFFFF


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the CRC-32C of the elements of each tensor, in C order, little-endian, by its name.

    Small ones that lie one behind the other in a file are read together.
    """
    result: dict[str, int] = {}
    run: list[str] = []
    sizes: list[int] = []
    begin, end, source = 0, 0, None
    for name, tensor in tensors.items():
        if type(tensor) is not FileTensor or tensor.nbytes > SMALL or not tensor.is_little_endian:
            result[name] = tensor.checksum()
            continue
        if tensor.offset != end or tensor.source is not source or end - begin > BUFFER_BYTES:
            if source is not None:
                result.update(zip(run, _sums_at(source, begin, sizes), strict=True))
            run, sizes, begin, source = [], [], tensor.offset, tensor.source
        run.append(name)
        sizes.append(tensor.nbytes)
        end = tensor.offset + tensor.nbytes
    if source is not None:
        result.update(zip(run, _sums_at(source, begin, sizes), strict=True))
    return result


def sums_in(source: SourceFile, offset: int, sizes: Iterable[int]) -> Iterator[int]:
    """Yield the CRC-32C of tensors that lie one behind the other in a file.

    Args:
        source: the file.
        offset: where the first begins.
        sizes: how many bytes each has.
    """
    run: list[int] = []
    end = offset
    for size in sizes:
        if size > SMALL or end - offset > BUFFER_BYTES:
            yield from _sums_at(source, offset, run)
            run, offset = [], end
        end += size
        if size > SMALL:
            yield FileTensor(source, offset, (size,), _OCTETS).checksum()
            offset = end
        else:
            run.append(size)
    yield from _sums_at(source, offset, run)


_OCTETS = np.dtype(np.uint8)


def _sums_at(source: SourceFile, begin: int, sizes: Sequence[int]) -> Iterator[int]:
    """Yield the CRC-32C of some pieces of a file, which are read at once."""
    data = bytes(source.read_at(begin, sum(sizes)))
    ends = pairwise(accumulate(sizes, initial=0))
    yield from crc32c_each([data[start:end] for start, end in ends])
    progress.advance(len(data))


def pour_into(
    descriptor: int, tensors: Mapping[str, Tensor], offsets: Iterable[int], sums: Sums
) -> None:
    """Write tensors into an open file.

    Args:
        descriptor: of the file.
        tensors: name -> tensor.
        offsets: the byte at which each begins in the file, in the same order.
        sums: takes the checksum of each.
    """

    few: list[tuple[int, str, bytes]] = []
    size = 0

    def sink(place: tuple[str, int], offset: int, piece: Array) -> None:
        nonlocal size
        name, begin = place
        if offset:  # it continues the checksum of what may wait still
            write_few()
        if offset or piece.nbytes > SMALL:
            data = _bytes_of(piece)
            sums.add(name, data)
            write_whole(descriptor, data.data, begin + offset)
            return
        few.append((begin, name, piece.tobytes()))
        size += piece.nbytes
        if size > BUFFER_BYTES:
            write_few()

    def write_few() -> None:
        nonlocal size
        if few:
            few.sort()
            begins, names, pieces = zip(*few, strict=True)
            sums.add_whole(names, pieces)
            _write_together(descriptor, begins, pieces)
            few.clear()
            size = 0

    with _sent_on(descriptor, sum([tensor.nbytes for tensor in tensors.values()])):
        pour(_placed(tensors, offsets), sink)
        write_few()


def _placed(
    tensors: Mapping[str, Tensor], offsets: Iterable[int]
) -> Iterable[tuple[tuple[str, int], Tensor]]:
    return zip(zip(tensors, offsets, strict=True), tensors.values(), strict=True)


def gathered(
    tensors: Mapping[str, Tensor], offsets: Iterable[int], size: int, sums: Sums
) -> bytes:
    """Return the bytes of tensors, one behind the other.

    Args:
        tensors: name -> tensor.
        offsets: the byte at which each begins, in the same order.
        size: how many bytes they have.
        sums: takes the checksum of each.
    """
    result = bytearray(size)

    def sink(place: tuple[str, int], offset: int, piece: Array) -> None:
        name, begin = place
        data = piece.tobytes()
        sums.add(name, data)
        start = begin + offset
        result[start : start + len(data)] = data

    pour(_placed(tensors, offsets), sink)
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


def _write_together(descriptor: int, offsets: Sequence[int], pieces: Sequence[bytes]) -> None:
    """Write pieces at their offsets of an open file, in the order of which they are: those that lie
    one behind the other in one go."""
    first, begin = 0, offsets[0]
    end = begin
    for index, (offset, data) in enumerate(zip(offsets, pieces, strict=True)):
        if offset != end:
            write_whole(descriptor, b"".join(pieces[first:index]), begin)
            first, begin, end = index, offset, offset
        end += len(data)
    write_whole(descriptor, b"".join(pieces[first:]), begin)


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
