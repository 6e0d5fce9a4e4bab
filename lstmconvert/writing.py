"""A destination holds the whole new file, or what it held before, whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lstmconvert.dtypes import Array, bits
from lstmconvert.errors import DestinationError
from lstmconvert.streaming import pour
from lstmconvert.tensors import Tensor

_SUFFIX = "lstmconvert-tmp"


@contextlib.contextmanager
def replacing(
    destination: Path, *, force: bool = False, source: Path | None = None
) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes `destination` if the block succeeds.

    The temporary file lies in the same directory, is flushed to disk before it takes the name, and
    is removed when the block fails. What a killed process left there is removed by the next one.

    Raises:
        DestinationError: `destination` exists and `force` is off; it is the source, a directory,
            or in no directory; the disk is full or read-only.
    """
    check_destination(destination, force=force, source=source)
    _remove_stale(destination)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.{_SUFFIX}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        _take_name(temporary, destination, force)
    except OSError as error:
        raise DestinationError(
            f"cannot write: {error.strerror or error}", where=destination
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_destination(
    destination: Path, *, force: bool = False, source: Path | None = None
) -> None:
    """Raise `DestinationError` if `destination` cannot become a new file."""
    if not destination.parent.is_dir():
        raise DestinationError(
            "the destination's directory does not exist",
            where=destination.parent,
            hint=f"mkdir -p {destination.parent}",
        )
    if destination.is_dir():
        raise DestinationError("the destination is a directory", where=destination)
    both_exist = source is not None and destination.exists() and source.exists()
    if source is not None and both_exist and os.path.samefile(source, destination):
        raise DestinationError("source and destination are the same file", where=destination)
    if destination.exists() and not force:
        raise DestinationError(
            "the destination exists", where=destination, hint="--force replaces it"
        )


def _take_name(temporary: Path, destination: Path, force: bool) -> None:
    if force:
        os.replace(temporary, destination)
        return
    try:
        # Unlike a rename, a link fails when another process took the name meanwhile.
        os.link(temporary, destination)
    except FileExistsError:
        raise DestinationError(
            "the destination appeared meanwhile", where=destination, hint="--force replaces it"
        ) from None
    except OSError:  # a file system without hard links
        os.rename(temporary, destination)


def _remove_stale(destination: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(destination.name)}\.(\d+)\.{_SUFFIX}(\..*)?")
    with contextlib.suppress(OSError):
        for entry in os.scandir(destination.parent):
            match = pattern.fullmatch(entry.name)
            if match and not _alive(int(match[1])):
                os.unlink(entry.path)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def check_written(
    meant: Mapping[str, Tensor], written: Mapping[str, Tensor], destination: Path
) -> None:
    """Compare what a file holds with what was meant, bit for bit.

    Raises:
        DestinationError: a tensor is missing or differs: the disk or the writer is at fault.
    """

    def compare(key: str, offset: int, piece: Array) -> None:
        start = offset // piece.itemsize if piece.itemsize else 0
        found = flat(written[key], start, piece.size)
        if not np.array_equal(bits(piece), bits(found)):
            raise differs(key)

    def differs(key: str) -> DestinationError:
        return DestinationError(
            f"what was written differs from what was meant: {key}", where=destination
        )

    for key, tensor in meant.items():
        there = written.get(key)
        if there is None or there.shape != tensor.shape or there.dtype.name != tensor.dtype.name:
            raise differs(key)
    pour(meant, compare)


def flat(tensor: Tensor, start: int, count: int) -> Array:
    """Read elements `start` to `start + count` of a tensor in C order."""
    width = tensor.matrix_shape[1] or 1
    first, last = start // width, -(-(start + count) // width)
    return tensor.rows(first, last).reshape(-1)[start - first * width :][:count]
