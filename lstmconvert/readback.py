"""What was written is read back and compared, before it takes the destination's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lstmconvert.dtypes import Array
from lstmconvert.errors import DestinationError
from lstmconvert.streaming import pour
from lstmconvert.tensors import Tensor


def check_written(
    meant: Mapping[str, Tensor], written: Mapping[str, Tensor], destination: Path
) -> None:
    """Compare what a file holds with what was meant, bit for bit.

    Raises:
        DestinationError: a tensor is missing or differs: the disk or the writer is at fault.
    """

    def compare(key: str, offset: int, piece: Array) -> None:
        start = offset // piece.itemsize if piece.itemsize else 0
        found = written[key].elements(start, start + piece.size)
        if piece.tobytes() != found.tobytes():
            raise differs(key)

    def differs(key: str) -> DestinationError:
        return DestinationError(
            f"what was written differs from what was meant: {key}", where=destination
        )

    for key, tensor in meant.items():
        there = written.get(key)
        if there is None or there.shape != tensor.shape or there.dtype != tensor.dtype:
            raise differs(key)
    pour(meant, compare)
