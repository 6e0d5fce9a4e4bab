"""Arrays that are read when they are touched, and views of them that cost nothing.

A file of 600 MB is converted through a few megabytes of memory: a tensor knows its shape and dtype
at once, and hands out its numbers in slabs of rows. "Rows" are those of the tensor seen as a matrix
whose columns are its last axis; a vector is one row. So the four gates of a kernel are column
ranges of one matrix (`Columns`), and a fused kernel is four matrices side by side (`SideBySide`),
whatever the rank.
"""

from __future__ import annotations

import math
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from lstmconvert.dtypes import Array, DType, little_endian
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.limits import BUFFER_BYTES

Shape = tuple[int, ...]
#: Columns are read row by row where they are less than this part of a file's rows.
_SPARSE = 32


class Tensor(ABC):
    """A named-nothing array: `shape`, `dtype` (little-endian), and numbers on demand."""

    shape: Shape
    dtype: DType

    @abstractmethod
    def rows(self, start: int, stop: int) -> Array:
        """Read rows `start` to `stop` of the matrix view: `(stop - start, columns)`."""

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes the elements take."""
        return self.size * self.dtype.itemsize

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """`(rows, columns)` of the matrix view."""
        if not self.shape:
            return 1, 1
        return math.prod(self.shape[:-1]), self.shape[-1]

    def slabs(self, budget: int = BUFFER_BYTES) -> Iterator[tuple[int, int]]:
        """Yield row ranges that each take about `budget` bytes, at least one row."""
        count, width = self.matrix_shape
        step = max(1, budget // max(1, width * self.dtype.itemsize))
        for start in range(0, count, step):
            yield start, min(start + step, count)

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        """Yield the elements in C order, as arrays of about `budget` bytes."""
        if self.size:
            for start, stop in self.slabs(budget):
                yield self.rows(start, stop)

    def elements(self, start: int, stop: int) -> Array:
        """Read elements `start` to `stop` in C order: `(stop - start,)`, little-endian."""
        width = self.matrix_shape[1] or 1
        first, last = start // width, -(-stop // width)
        flat = self.rows(first, last).reshape(-1)
        return little_endian(flat[start - first * width : stop - first * width])

    def columns(self, start: int, stop: int) -> Array:
        """Read columns `start` to `stop` of the matrix view: `(rows, stop - start)`."""
        result = np.empty((self.matrix_shape[0], stop - start), self.dtype)
        for first, last in self.slabs():
            result[first:last] = self.rows(first, last)[:, start:stop]
        return result

    def read(self) -> Array:
        """Return the whole array, C-contiguous and little-endian."""
        count, _ = self.matrix_shape
        return little_endian(self.rows(0, count).reshape(self.shape))

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape)) + ("," if len(self.shape) == 1 else "")
        return f"{type(self).__name__}(({shape}), {self.dtype.name})"


class ArrayTensor(Tensor):
    """An array already in memory."""

    def __init__(self, array: Array) -> None:
        self._array = little_endian(array)
        self.shape = self._array.shape
        self.dtype = self._array.dtype

    def rows(self, start: int, stop: int) -> Array:
        return self._array.reshape(self.matrix_shape)[start:stop]


class SourceFile:
    """An open file that tensors read from, by offset; closed when the last of them is gone.

    The descriptor is opened once, so that what is read is the file that was parsed, even when
    another takes its name meanwhile.

    Args:
        path: the file, for errors too.
        descriptor: of a file that is open already, and that its owner closes.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        self._state = self._stat()
        status = os.fstat(descriptor)
        self._identity = status.st_dev, status.st_ino

    def _stat(self) -> tuple[int, int]:
        return _state(os.fstat(self.descriptor))

    @property
    def size(self) -> int:
        """The size in bytes when the file was opened."""
        return self._state[0]

    def read_at(self, offset: int, length: int) -> bytearray:
        """Read exactly `length` bytes.

        Raises:
            CorruptFile: the file ends before.
            SourceError: the disk cannot read it.
        """
        self._check_range(offset, length)
        buffer = bytearray(length)
        self._fill(memoryview(buffer), offset)
        return buffer

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise CorruptFile(
                "the file is truncated: it ends before its data",
                where=self.path,
                found=f"{self.size:,} bytes",
                expected=f"at least {offset + length:,}",
                hint="copy or download the file again",
            )

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer with the bytes from an offset on. Raises as `read_at`."""
        self._check_range(offset, len(buffer))
        self._fill(buffer, offset)

    def _fill(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            try:
                count = os.preadv(self.descriptor, [buffer], offset)
            except OSError as error:
                raise SourceError(
                    f"the file cannot be read: {error.strerror or error}", where=self.path
                ) from None
            if count == 0:
                raise self.changed()
            buffer, offset = buffer[count:], offset + count

    def check_unchanged(self) -> None:
        """Raise `CorruptFile` if the file was written to since it was opened."""
        if self._stat() != self._state:
            raise self.changed()

    def check_in_place(self) -> None:
        """Raise `CorruptFile` if the file was written to since it was opened, or has lost its name
        to another: what is read by that name now is then not what was read before."""
        try:
            status = os.stat(self.path)
        except OSError:
            raise self.changed() from None
        if (_state(status), (status.st_dev, status.st_ino)) != (self._state, self._identity):
            raise self.changed()

    def changed(self) -> CorruptFile:
        """Return the error of a file that changes under its reader."""
        return CorruptFile(
            "the file changed while it was read", where=self.path, hint="try again when it is whole"
        )


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


class FileTensor(Tensor):
    """Elements that lie contiguous, in C order, at an offset of a file.

    Args:
        source: the open file.
        offset: where the first element's first byte lies.
        shape: the shape.
        dtype: the dtype as stored; a big-endian one is turned as it is read.
    """

    def __init__(self, source: SourceFile, offset: int, shape: Shape, dtype: DType) -> None:
        self.source = source
        self.offset = offset
        self.shape = shape
        self._stored = dtype
        self.dtype = dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype
        if offset < 0 or offset + self.nbytes > source.size:
            source.read_at(offset, self.nbytes)  # raises, and says what is missing

    def rows(self, start: int, stop: int) -> Array:
        width = self.matrix_shape[1]
        return self.elements(start * width, stop * width).reshape(stop - start, width)

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        step = max(1, budget // self.dtype.itemsize)
        for start in range(0, self.size, step):
            yield self.elements(start, min(start + step, self.size))

    def columns(self, start: int, stop: int) -> Array:
        count, width = self.matrix_shape
        if (stop - start) * _SPARSE > width:
            return super().columns(start, stop)
        parts = [self.elements(row * width + start, row * width + stop) for row in range(count)]
        return np.stack(parts) if parts else np.empty((0, stop - start), self.dtype)

    def elements(self, start: int, stop: int) -> Array:
        size = self.dtype.itemsize
        buffer = np.empty((stop - start) * size, np.uint8)
        self.source.read_into(buffer.data, self.offset + start * size)
        return little_endian(buffer.view(self._stored))


class Columns(Tensor):
    """A range of the last axis of another tensor: one gate of a fused array."""

    def __init__(self, base: Tensor, start: int, stop: int) -> None:
        self.base, self.start, self.stop = base, start, stop
        self.shape = (*base.shape[:-1], stop - start)
        self.dtype = base.dtype

    def rows(self, start: int, stop: int) -> Array:
        return self.base.rows(start, stop)[:, self.start : self.stop]

    def columns(self, start: int, stop: int) -> Array:
        return self.base.columns(self.start + start, self.start + stop)


class Rows(Tensor):
    """A range of rows of a matrix: TensorFlow 1 keeps the kernel above the recurrent kernel."""

    def __init__(self, base: Tensor, start: int, stop: int) -> None:
        self.base, self.start = base, start
        self.shape = (stop - start, base.shape[-1])
        self.dtype = base.dtype

    def rows(self, start: int, stop: int) -> Array:
        return self.base.rows(self.start + start, self.start + stop)


class SideBySide(Tensor):
    """Tensors of one dtype joined along the last axis: a fused array of four gates.

    Where the parts are the neighbouring columns of one base, that base is read instead, so that
    splitting and fusing again costs nothing.
    """

    def __init__(self, parts: tuple[Tensor, ...]) -> None:
        self.parts = parts
        self.shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
        self.dtype = parts[0].dtype

    @cached_property
    def whole(self) -> Tensor | None:
        """The one base that the parts are, side by side, the whole of; None if there is none."""
        end, base = 0, None
        for part in self.parts:
            if not isinstance(part, Columns) or part.start != end:
                return None
            if base is not None and part.base is not base:
                return None
            base, end = part.base, part.stop
        return base if base is not None and base.shape[-1] == end else None

    def rows(self, start: int, stop: int) -> Array:
        if self.whole is not None:
            return self.whole.rows(start, stop)
        return np.concatenate([part.rows(start, stop) for part in self.parts], axis=-1)

    def columns(self, start: int, stop: int) -> Array:
        pieces, end = [], 0
        for part in self.parts:
            begin, end = end, end + part.matrix_shape[1]
            low, high = max(start, begin), min(stop, end)
            if low < high:
                pieces.append(part.columns(low - begin, high - begin))
        return np.concatenate(pieces, axis=-1) if pieces else super().columns(start, stop)


class Computed(Tensor):
    """Another tensor's elements in another arrangement, which takes the whole of it to compute.

    Args:
        base: the tensor.
        shape: the shape of the result.
        change: a permutation of the elements, such as a transposition.
    """

    def __init__(self, base: Tensor, shape: Shape, change: Callable[[Array], Array]) -> None:
        self.base, self.shape, self.dtype = base, shape, base.dtype
        self._change = change

    def rows(self, start: int, stop: int) -> Array:
        whole = little_endian(self._change(self.base.read()))
        return whole.reshape(self.matrix_shape)[start:stop]

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        whole = self.rows(0, self.matrix_shape[0])
        for start, stop in self.slabs(budget):
            yield whole[start:stop]


class Retyped(Tensor):
    """Another tensor's bits under another dtype of the same width."""

    def __init__(self, base: Tensor, dtype: DType) -> None:
        if base.dtype.itemsize != dtype.itemsize:
            raise CorruptFile("bits of another width", found=base.dtype.name, expected=dtype.name)
        self.base, self.shape, self.dtype = base, base.shape, dtype

    def rows(self, start: int, stop: int) -> Array:
        return little_endian(self.base.rows(start, stop)).view(self.dtype)


class Cast(Tensor):
    """Another tensor's numbers in another dtype, rounded to nearest even."""

    def __init__(self, base: Tensor, dtype: DType) -> None:
        self.base, self.shape, self.dtype = base, base.shape, dtype

    def rows(self, start: int, stop: int) -> Array:
        with np.errstate(over="ignore"):  # too large for float16 is infinity, and counted later
            return self.base.rows(start, stop).astype(self.dtype)
