"""Datasets that the HDF5 library itself reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from lstmconvert.dtypes import Array, DType
from lstmconvert.errors import CorruptFile
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors import SourceFile, Tensor


class DatasetTensor(Tensor):
    """A dataset that is compact, of texts, or chunked behind a user block, a slab at a time.

    Holding it holds the HDF5 file open.
    """

    def __init__(
        self, dataset: Any, shape: tuple[int, ...], dtype: DType, source: SourceFile
    ) -> None:
        self._dataset, self.source = h5py.Dataset(dataset), source
        self._stored = dtype
        self.shape = shape
        self.dtype = dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype

    def rows(self, start: int, stop: int) -> Array:
        if len(self.shape) < 2:
            return self._read(()).reshape(1, -1)[start:stop]
        inner = math.prod(self.shape[1:-1])
        first, last = start // inner, -(-stop // inner)
        whole = self._read(slice(first, last)).reshape(-1, self.shape[-1])
        return whole[start - first * inner : stop - first * inner]

    def blocks(self, budget: int = BUFFER_BYTES) -> Iterator[Array]:
        if len(self.shape) != 1:
            yield from super().blocks(budget)
            return
        step = max(1, budget // self.dtype.itemsize)  # a vector is one row, of any length
        for start in range(0, self.size, step):
            yield self._read(slice(start, min(start + step, self.size)))

    def _read(self, selection: slice | tuple[()]) -> Array:
        if self._stored.names and self._stored.hasobject:
            raise CorruptFile(
                f"records of texts, which are not read: {self._dataset.name}",
                where=self.source.path,
            )
        try:
            values: Array = np.asarray(self._dataset[selection])
        except (OSError, RuntimeError, ValueError) as error:
            raise CorruptFile(
                f"HDF5 cannot read {self._dataset.name}: {reason(error)}", where=self.source.path
            ) from None
        if values.dtype.kind == "V":
            values = values.view(self._stored)
        return values.astype(self.dtype, copy=False)


def reason(error: Exception) -> str:
    """Return the first line of what h5py says."""
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__
