"""Arrays that are read when they are touched, and views of them that cost nothing.

A file of 600 MB is converted through a few megabytes of memory: a tensor knows its shape and dtype
at once, and hands out its numbers in slabs of rows. "Rows" are those of the tensor seen as a matrix
whose columns are its last axis; a vector is one row. So the four gates of a kernel are column
ranges of one matrix (`Columns`), and a fused kernel is four matrices side by side (`SideBySide`),
whatever the rank.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import threading
import time
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.limits import BUFFER_BYTES, HOT_BYTES, KIB
from lstmconvert.tensors import progress
from lstmconvert.tensors.checksums import Check, at_the_end, crc32c, running
from lstmconvert.tensors.dtypes import Array, DType, little_endian

Shape = tuple[int, ...]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
#: Windows changes the ends of lines without it.
_BINARY = getattr(os, "O_BINARY", 0)
#: Some columns of a file's rows are read row by row, where the rest of a row is more than this:
#: as many bytes are copied in the time that one more call takes (measured on Linux).
_CALL = 16 * KIB
#: A read of up to this many bytes is one of many small arrays that are near each other: what is
#: around it is read with it, in a block of this many bytes, of which the last few are kept: HDF5
#: has biases, kernels and names in places of their own. A file that is no larger is read once.
_FEW, _NEAR, _BLOCKS = 16 * KIB, 64 * KIB, 4


class Tensor(ABC):
    """An unnamed array that is read when it is asked for: `shape`, `dtype` (little-endian).

    `read()` gives the array, and so do `numpy.asarray` and `pandas.DataFrame`.
    """

    #: Those that a file has thousands of name their fields, which takes half the memory.
    __slots__ = ()

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
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """`(rows, columns)` of the matrix view."""
        if not self.shape:
            return 1, 1
        return math.prod(self.shape[:-1]), self.shape[-1]

    @property
    def grain(self) -> int:
        """How many bytes of rows are read at once at least: a few rows of a transposed matrix would
        cost as much as many. That of a view is its base's."""
        base = getattr(self, "base", None)
        return base.grain if isinstance(base, Tensor) else 0

    def slabs(self, budget: int = BUFFER_BYTES) -> Iterator[tuple[int, int]]:
        """Yield row ranges that each take about `budget` bytes, or the grain, at least one row."""
        count, width = self.matrix_shape
        step = max(1, max(budget, self.grain) // max(1, width * self.dtype.itemsize))
        for start in range(0, count, step):
            yield start, min(start + step, count)

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        """Yield the elements in C order, as arrays of about `budget` bytes."""
        if self.size:
            for start, stop in self.slabs(budget):
                block = self.rows(start, stop)
                yield block
                progress.advance(block.nbytes)

    def elements(self, start: int, stop: int) -> Array:
        """Read elements `start` to `stop` in C order: `(stop - start,)`, little-endian."""
        width = self.matrix_shape[1] or 1
        first, last = start // width, -(-stop // width)
        flat = self.rows(first, last).reshape(-1)
        return little_endian(flat[start - first * width : stop - first * width])

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        """Read columns `first` to `last` of rows `start` to `stop` of the matrix view.

        Returns:
            `(stop - start, last - first)`.
        """
        if (first, last) == (0, self.matrix_shape[1]):
            return self.rows(start, stop)
        return self._by_slabs(start, stop, first, last)

    def _by_slabs(self, start: int, stop: int, first: int, last: int) -> Array:
        """`window`, through whole rows of about a buffer."""
        result = np.empty((stop - start, last - first), self.dtype)
        for begin, end in self.slabs():
            low, high = max(begin, start), min(end, stop)
            if low < high:
                result[low - start : high - start] = self.rows(low, high)[:, first:last]
        return result

    def checksum(self) -> int:
        """Return the CRC-32C of the elements in C order, little-endian."""
        crc = 0
        for block in self.blocks():
            crc = crc32c(little_endian(block).reshape(-1).view(np.uint8), crc)
        return crc

    def columns(self, start: int, stop: int) -> Array:
        """Read columns `start` to `stop` of the matrix view: `(rows, stop - start)`."""
        return self.window(0, self.matrix_shape[0], start, stop)

    def read(self) -> Array:
        """Return the whole array, C-contiguous, little-endian and read-only.

        It is read-only because a change to it would reach neither the model nor a file:
        `LSTMLayer.replacing` is how to edit.
        """
        count, _ = self.matrix_shape
        array = little_endian(self.rows(0, count).reshape(self.shape))
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the array, as NumPy's protocol asks."""
        return as_numpy_asks(self.read(), dtype, copy)

    def __iter__(self) -> Iterator[Any]:
        """Yield the items of the array along its first axis."""
        return iter(self.read())

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process there is no open file: the numbers are taken along.
        return ArrayTensor, (self.read(),)

    def __deepcopy__(self, memo: object) -> Tensor:
        """Return the tensor itself: nobody changes one, and it may hold an open file."""
        return self

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape)) + ("," if len(self.shape) == 1 else "")
        return f"{type(self).__name__}(({shape}), {self.dtype.name})"


def as_numpy_asks(array: Array, dtype: Any, copy: bool | None) -> Array:
    """Return an array as the protocol `__array__` asks for it.

    Args:
        array: one that was just read or computed.
        dtype: another dtype to convert it to, or None.
        copy: True for an array that may be written to; False for no copy at all, None for either.

    Raises:
        ValueError: `copy` is False, and every array here is read from a file or computed.
    """
    if copy is False:
        raise ValueError("the numbers are read when they are asked for, which makes an array")
    if copy:
        return np.array(array, dtype)
    return array if dtype is None else array.astype(dtype, copy=False)


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
    another takes its name meanwhile. Whether it is written to is looked at after each read, or,
    where numbers are not handed out at once, after the last (`checking_later`): its size, and the
    times of its content and of its entry. A file that was written within two seconds before it was
    opened may still be written to within the same tick of the clock. Bytes that were read are read
    once more at the end, and compared. Not found is who writes in one call that began before we
    opened the file and ends after we have read it, and a clock that is set back.

    Args:
        path: the file, for errors too.
        descriptor: of a file that is open already, and that its owner closes.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        if descriptor is None:
            descriptor = os.open(str(path), os.O_RDONLY | _BINARY)
            self._close = weakref.finalize(self, os.close, descriptor)
            with _registering:
                _open.add(self)
        self.descriptor = descriptor
        self.is_closed = False
        self._status = os.fstat(descriptor)
        #: The size in bytes when the file was opened.
        self.size = self._status.st_size
        #: Where the blocks begin that are kept, and what is in them; the newest first.
        self._near: list[tuple[int, bytearray]] = []
        #: Of a file that has just been written: offset, length and CRC of each piece that was read.
        self._looked_at: list[tuple[int, int, int]] | None = None
        is_ours = bool(_ours) and _is_among(path, _ours)
        if not is_ours and time.time() - self._status.st_mtime < _FRESH_SECONDS:
            self._looked_at = []
        #: Whether all of it is kept, once it was read: not of a file that we still write to.
        self._is_kept = not is_ours and 0 < self.size <= _NEAR

    def read_at(self, offset: int, length: int) -> bytearray:
        """Read exactly `length` bytes.

        Raises:
            CorruptFile: the file ends before, or is written to meanwhile.
            SourceError: the disk cannot read it.
        """
        self._check_range(offset, length)
        if self._is_kept:
            return self._block(offset, offset + length)
        buffer = bytearray(length)
        self._fill(memoryview(buffer), offset)
        return buffer

    def peek(self, offset: int, length: int) -> bytes:
        """Read bytes that locate numbers and are not numbers: their checksum may come later.

        Raises as `read_at`.
        """
        if not self._is_kept and hasattr(os, "pread"):
            self._check_range(offset, length)
            with contextlib.suppress(OSError):  # which is told below
                data = os.pread(self.descriptor, length, offset)
                if len(data) == length:
                    self._has_read(data, offset)
                    return data
        elif self._is_kept and self._near:  # which was looked at when it was read
            self._check_range(offset, length)
            return bytes(memoryview(self._near[0][1])[offset : offset + length])
        return bytes(self.read_at(offset, length))

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
        if self._is_kept:
            self._fill_near(buffer, offset)
        else:
            self._fill(buffer, offset)

    def read_near(self, buffer: memoryview, offset: int) -> None:
        """Do what `read_into` does, for one of many small arrays that are near each other."""
        self._check_range(offset, len(buffer))
        self._fill_near(buffer, offset)

    def near(self, offset: int, length: int) -> bytearray:
        """Return what `read_near` gives. Raises as `read_at`."""
        self._check_range(offset, length)
        return self._block(offset, offset + length)

    def _fill_near(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self._block(offset, offset + len(buffer))

    def _block(self, start: int, end: int) -> bytearray:
        """Return bytes of a block that is kept; one is read where none holds them all."""
        for begin, block in self._near:
            if begin <= start and end <= begin + len(block):
                if not at_the_end(self, self._look_again):
                    self.check_unchanged()
                elif self._looked_at is not None and self._is_kept and not self._looked_at:
                    self._looked_at.append((begin, len(block), zlib.crc32(block)))
                break
        else:
            begin = start - start % _NEAR
            block = bytearray(min(max(end, begin + _NEAR), self.size) - begin)
            self._fill(memoryview(block), begin)
            self._near = [(begin, block), *self._near[: _BLOCKS - 1]]
        return block[start - begin : end - begin]

    def _fill(self, buffer: memoryview, offset: int) -> None:
        self._read(buffer, offset)
        self._has_read(buffer, offset)

    def _has_read(self, buffer: bytes | memoryview, offset: int) -> None:
        if at_the_end(self, self._look_again):
            if self._looked_at is not None:
                self._looked_at.append((offset, len(buffer), zlib.crc32(buffer)))
        else:
            self.check_unchanged()

    def _read(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            try:
                count = read_into(self.descriptor, buffer, offset)
            except OSError as error:
                raise SourceError(
                    f"the file cannot be read: {error.strerror or error}", where=self.path
                ) from None
            if count == 0:
                raise self.changed()
            buffer, offset = buffer[count:], offset + count

    def _look_again(self) -> None:
        """Make sure that what was read before is there still."""
        if self.is_closed:  # a file of our own, which has been compared
            return
        looked_at, self._looked_at = self._looked_at or [], self._looked_at and []
        for offset, length, crc in looked_at:
            buffer = bytearray(length)
            self._read(memoryview(buffer), offset)
            if zlib.crc32(buffer) != crc:
                raise self.changed()
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise `CorruptFile` if the file was written to since it was opened."""
        if not self._is_as_it_was(os.fstat(self.descriptor)):
            raise self.changed()

    def check_in_place(self) -> None:
        """Raise `CorruptFile` if the file was written to since it was opened, or has lost its name
        to another: what is read by that name now is then not what was read before."""
        try:
            status = os.stat(self.path)
        except OSError:
            raise self.changed() from None
        if not os.path.samestat(status, self._status) or not self._is_as_it_was(status):
            raise self.changed()

    def _is_as_it_was(self, status: os.stat_result) -> bool:
        known = self._status
        if (status.st_size, status.st_mtime_ns) != (known.st_size, known.st_mtime_ns):
            return False
        # The time of its entry is set by a write, whatever becomes of the other, and by much else:
        # another name, other permissions. Any change that cannot be a write is let pass.
        if status.st_ctime_ns == known.st_ctime_ns:
            return True
        self._status = status
        return _entry(status) != _entry(known)

    def changed(self) -> CorruptFile:
        """Return the error of a file that changes under its reader."""
        return CorruptFile(
            "the file changed while it was read", where=self.path, hint="try again when it is whole"
        )

    def close(self) -> None:
        """Close the file now. Reading from it fails from then on."""
        self.is_closed = True
        self._close()


def _entry(status: os.stat_result) -> tuple[int, ...]:
    return status.st_nlink, status.st_mode, status.st_uid, status.st_gid


#: How long ago a file was written that is looked at twice: FAT counts every other second.
_FRESH_SECONDS = 2.0
#: The files that are open; threads open some, too.
_open: weakref.WeakSet[SourceFile] = weakref.WeakSet()
_registering = threading.Lock()
#: The names of the files that this process is writing.
_ours: set[str] = set()


@contextlib.contextmanager
def written_by_us(paths: Collection[Path]) -> Iterator[None]:
    """Take it that nobody else writes to the files of these paths, or below them, that are opened
    in the block, and close them at its end."""
    names = [str(path) for path in paths]
    with _registering:
        _ours.update(names)
    try:
        yield
    finally:  # as Windows neither renames nor deletes an open file
        with _registering:
            sources = [source for source in _open if _is_among(source.path, names)]
            _ours.difference_update(names)
        for source in sources:
            source.close()


def _is_among(path: Path, names: Collection[str]) -> bool:
    """Whether a path, or a folder that it is in, is one of several."""
    name = str(path)
    if name in names:
        return True
    folders = tuple(names)  # a copy: other threads add to them
    return name.startswith(tuple([folder + os.sep for folder in folders]))


class FileTensor(Tensor):
    """Elements that are contiguous, in C order, at an offset of a file.

    Args:
        source: the open file.
        offset: where the first element's first byte is.
        shape: the shape.
        dtype: the dtype as stored; a big-endian one is turned as it is read.
    """

    __slots__ = ("_stored", "dtype", "is_little_endian", "nbytes", "offset", "shape", "source")

    nbytes: int

    def __init__(self, source: SourceFile, offset: int, shape: Shape, dtype: DType) -> None:
        self.source = source
        self.offset = offset
        self.shape = shape
        self._stored = dtype
        #: Whether the elements are stored as they are handed out.
        self.is_little_endian = dtype.byteorder != ">"
        self.dtype = dtype if self.is_little_endian else dtype.newbyteorder("<")
        self.nbytes = math.prod(shape) * dtype.itemsize
        if offset < 0 or offset + self.nbytes > source.size:
            source.read_at(offset, self.nbytes)  # raises, and says what is missing

    def rows(self, start: int, stop: int) -> Array:
        width = self.shape[-1] if self.shape else 1
        return self.elements(start * width, stop * width).reshape(stop - start, width)

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        step = max(1, budget // self.dtype.itemsize)
        for start in range(0, self.size, step):
            yield self.elements(start, min(start + step, self.size))

    def checksum(self) -> int:
        if not self.is_little_endian:
            return super().checksum()
        crc, size, step = 0, self.size, HOT_BYTES // self.dtype.itemsize
        buffer = np.empty(min(size, step), self.dtype).view(np.uint8)
        for start in range(0, size, step):
            piece = buffer[: (min(start + step, size) - start) * self.dtype.itemsize]
            self._fill(piece, start)
            crc = crc32c(piece, crc)
            progress.advance(piece.nbytes)
        return crc

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        width, run = self.matrix_shape[1], last - first
        if run == width:
            return self.rows(start, stop)
        if (width - run) * self.dtype.itemsize <= _CALL:
            return super().window(start, stop, first, last)
        result = np.empty((stop - start, run), self._stored)
        if run:
            for row, memory in enumerate(result.view(np.uint8), start):
                self._fill(memory, row * width + first)
        return little_endian(result)

    def elements(self, start: int, stop: int) -> Array:
        if self.nbytes <= _FEW:
            size = self.dtype.itemsize
            buffer = np.frombuffer(self._near(start * size, (stop - start) * size), self._stored)
        else:
            buffer = np.empty(stop - start, self._stored)
            self._fill(buffer.view(np.uint8), start)
        return buffer if self._stored is self.dtype else little_endian(buffer)

    def stored(self) -> bytearray:
        """Read all bytes, as they are stored. Raises as `SourceFile.read_at`."""
        read = self.source.near if self.nbytes <= _FEW else self.source.read_at
        return read(self.offset, self.nbytes)

    def _near(self, begin: int, count: int) -> bytearray:
        """Read some bytes, as they are stored, of one of many small arrays."""
        return self.source.near(self.offset + begin, count)

    def _fill(self, buffer: Bytes, start: int) -> None:
        """Read bytes, as they are stored, from element `start` on."""
        read = self.source.read_near if self.nbytes <= _FEW else self.source.read_into
        read(buffer.data, self.offset + start * self.dtype.itemsize)


#: What to do where a tensor's checksum is wrong.
_HINT = "the data is damaged, or of another save: copy or download it again"


class CheckedTensor(FileTensor):
    """Elements with a CRC-32C, which is compared before one of them is handed out.

    Where they are read from the first to the last, that pass computes it, too.

    Args:
        crc: of the bytes as they are stored.
        name: the tensor's, for the error.
        hint: what to do where the checksum is wrong, for the error.
    """

    def __init__(
        self,
        source: SourceFile,
        offset: int,
        shape: Shape,
        dtype: DType,
        crc: int,
        name: str,
        hint: str = _HINT,
    ) -> None:
        super().__init__(source, offset, shape, dtype)
        self._crc, self._name, self._hint = crc, name, hint
        self._check = Check(self._compare)
        self._state = 0, 0  # how many bytes were read in turn so far, and their CRC

    def verify(self) -> None:
        """Compare the checksum now, if it was not yet.

        Raises:
            CorruptFile: the bytes are not those that were stored.
        """
        self._check.now()

    def _near(self, begin: int, count: int) -> bytearray:
        is_checked = self._is_checked(count)
        data = super()._near(begin, count)
        if not is_checked:
            self._follow(begin, data)
        return data

    def _fill(self, buffer: Bytes, start: int) -> None:
        is_checked = self._is_checked(buffer.nbytes)
        super()._fill(buffer, start)
        if not is_checked:
            self._follow(start * self.dtype.itemsize, buffer)

    def _is_checked(self, count: int) -> bool:
        """Make the check, where it is due before some bytes are read; whether it has been made."""
        return self._check.is_done or (count != self.nbytes and self._check.due())

    def _follow(self, start: int, data: Bytes | bytearray) -> None:
        if len(data) == self.nbytes:
            self._finish(crc32c(data))
            return
        with running:
            position, crc = self._state
            if start != position:
                return
            crc = crc32c(data, crc)
            self._state = position + len(data), crc
        if self._state[0] == self.nbytes:
            self._finish(crc)

    def _compare(self) -> None:
        if self.source.is_closed:
            return
        crc = 0
        for start in range(0, self.nbytes, BUFFER_BYTES):
            count = min(BUFFER_BYTES, self.nbytes - start)
            crc = crc32c(self.source.read_at(self.offset + start, count), crc)
        self._finish(crc)

    def _finish(self, crc: int) -> None:
        _check_crc(crc, self._crc, f"{self.source.path}: {self._name}", self._hint)
        self._check.is_done = True


def _check_crc(crc: int, expected: int, where: str, hint: str) -> None:
    if crc != expected:
        raise CorruptFile(
            "bad CRC-32C of a tensor",
            where=where,
            found=f"{crc:08x}",
            expected=f"{expected:08x}",
            hint=hint,
        )


class Verified(Tensor):
    """Another tensor, whose CRC-32C is compared before an element is handed out.

    Args:
        base: the tensor.
        crc: of its elements in C order, little-endian.
        where: the file and the tensor's name, for the error.
        hint: what to do where the checksum is wrong, for the error.
    """

    def __init__(self, base: Tensor, crc: int, where: str, hint: str) -> None:
        self.base, self.shape, self.dtype = base, base.shape, base.dtype
        self._crc, self._where, self._hint = crc, where, hint
        self._check = Check(self._compare)

    def rows(self, start: int, stop: int) -> Array:
        self._check.due()
        return self.base.rows(start, stop)

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        self._check.due()
        return self.base.window(start, stop, first, last)

    def _compare(self) -> None:
        _check_crc(self.base.checksum(), self._crc, self._where, self._hint)


def verified(tensor: Tensor, crc: int, name: str, path: Path, hint: str) -> Tensor:
    """Return a tensor of a file with the CRC-32C that the file says of it.

    Args:
        tensor: as it was read.
        crc: of its elements in C order, little-endian.
        name: its name, for the error.
        path: the file, for the error.
        hint: what to do where the checksum is wrong, for the error.
    """
    if isinstance(tensor, Retyped):
        return Retyped(verified(tensor.base, crc, name, path, hint), tensor.dtype)
    if isinstance(tensor, FileTensor) and tensor.is_little_endian:
        return CheckedTensor(
            tensor.source, tensor.offset, tensor.shape, tensor.dtype, crc, name, hint
        )
    return Verified(tensor, crc, f"{path}: {name}", hint)


class Columns(Tensor):
    """A range of the last axis of another tensor: one gate of a fused array."""

    __slots__ = ("base", "dtype", "nbytes", "shape", "start", "stop")

    nbytes: int

    def __init__(self, base: Tensor, start: int, stop: int) -> None:
        self.base, self.start, self.stop = base, start, stop
        self.shape = (*base.shape[:-1], stop - start)
        self.dtype = base.dtype
        self.nbytes = math.prod(self.shape) * base.dtype.itemsize

    @classmethod
    def equal(cls, base: Tensor, width: int, count: int) -> list[Columns]:
        """Return the first `count` ranges of `width` columns, which share what is the same."""
        first = cls(base, 0, width)
        result = [first]
        for start in range(width, count * width, width):
            following = cls.__new__(cls)  # files have thousands
            following.base, following.start, following.stop = base, start, start + width
            following.shape, following.dtype = first.shape, first.dtype
            following.nbytes = first.nbytes
            result.append(following)
        return result

    def rows(self, start: int, stop: int) -> Array:
        return self.base.window(start, stop, self.start, self.stop)

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        return self.base.window(start, stop, self.start + first, self.start + last)


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
        """The array whose columns are all of the parts, in order; None if there is none."""
        end, base = 0, None
        for part in self.parts:
            if not isinstance(part, Columns) or part.start != end:
                return None
            if base is not None and part.base is not base:
                return None
            base, end = part.base, part.stop
        return base if base is not None and base.shape[-1] == end else None

    @cached_property
    def _ranges(self) -> tuple[Tensor, list[slice]] | None:
        """The tensor of which all parts are columns, and the columns of each; None if the parts are
        of several tensors."""
        cuts = [part for part in self.parts if isinstance(part, Columns)]
        if len(cuts) < len(self.parts) or any(part.base is not cuts[0].base for part in cuts):
            return None
        return cuts[0].base, [slice(part.start, part.stop) for part in cuts]

    @property
    def grain(self) -> int:
        return max(part.grain for part in self.parts)

    def rows(self, start: int, stop: int) -> Array:
        if self.whole is not None:
            return self.whole.rows(start, stop)
        if self._ranges is not None:
            base, ranges = self._ranges
            slab = base.rows(start, stop)
            return np.concatenate([slab[:, columns] for columns in ranges], axis=-1)
        return self.window(start, stop, 0, self.shape[-1])

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        if self.whole is not None:
            return self.whole.window(start, stop, first, last)
        if self._ranges is not None and 2 * (last - first) > self.shape[-1]:
            return self._by_slabs(start, stop, first, last)  # the base's rows are read once
        result = np.empty((stop - start, last - first), self.dtype)
        end = 0
        for part in self.parts:
            begin, end = end, end + part.matrix_shape[1]
            low, high = max(first, begin), min(last, end)
            if low < high:
                piece = part.window(start, stop, low - begin, high - begin)
                result[:, low - first : high - first] = piece
        return result


class Computed(Tensor):
    """Another tensor's elements in another arrangement, which all of it is needed to compute.

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


class Changed(Tensor):
    """Another tensor whose elements are changed one by one, as `_changed` does it."""

    base: Tensor

    @abstractmethod
    def _changed(self, array: Array) -> Array:
        """Return the elements of a part of the base as they are here."""

    def rows(self, start: int, stop: int) -> Array:
        return self._changed(self.base.rows(start, stop))

    def window(self, start: int, stop: int, first: int, last: int) -> Array:
        return self._changed(self.base.window(start, stop, first, last))


class Retyped(Changed):
    """Another tensor's bits under another dtype of the same width."""

    def __init__(self, base: Tensor, dtype: DType) -> None:
        if base.dtype.itemsize != dtype.itemsize:
            raise CorruptFile("bits of another width", found=base.dtype.name, expected=dtype.name)
        self.base, self.shape, self.dtype = base, base.shape, dtype

    def _changed(self, array: Array) -> Array:
        return little_endian(array).view(self.dtype)


class Cast(Changed):
    """Another tensor's numbers in another dtype, rounded to nearest even."""

    def __init__(self, base: Tensor, dtype: DType) -> None:
        self.base, self.shape, self.dtype = base, base.shape, dtype

    def _changed(self, array: Array) -> Array:
        with np.errstate(over="ignore"):  # too large for float16 is infinity, and counted later
            return array.astype(self.dtype)


#: Held from where a file's place is set to where its bytes are read or written.
_place = threading.Lock()


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill a buffer from an offset on, and return how many bytes came: at the end, none.

    Raises:
        OSError: the system cannot read it.
    """
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    with _place:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return io.FileIO(descriptor, closefd=False).readinto(buffer) or 0


def write_whole(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset of an open file.

    Raises:
        OSError: the system cannot write them.
    """
    view = memoryview(data).cast("B")
    while view:
        if hasattr(os, "pwrite"):
            count = os.pwrite(descriptor, view, offset)
        else:
            with _place:
                os.lseek(descriptor, offset, os.SEEK_SET)
                count = os.write(descriptor, view)
        view, offset = view[count:], offset + count
