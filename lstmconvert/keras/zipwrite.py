"""Writing a `.keras` archive: members stored, dates fixed, the same bytes for the same input."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from lstmconvert.keras.archive import CONFIG, METADATA, WEIGHTS_H5
from lstmconvert.tensors import Tensor

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can state: no clock
_CHUNK = 1 << 20


def write(
    path: Path, config: str, metadata: str, weights: IO[bytes], assets: Mapping[str, Tensor]
) -> None:
    """Write a new archive.

    Args:
        path: the file to write.
        config, metadata: JSON texts.
        weights: an open HDF5 weight store, which becomes `model.weights.h5`.
        assets: member name -> its bytes.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(member(METADATA), metadata)
        archive.writestr(member(CONFIG), config)
        info = member(WEIGHTS_H5)
        info.file_size = weights.seek(0, os.SEEK_END)
        weights.seek(0)
        with archive.open(info, "w") as target:
            while chunk := weights.read(_CHUNK):
                target.write(chunk)
        for name, tensor in sorted(assets.items()):
            archive.writestr(member(name), tensor.read().tobytes())


def member(name: str) -> zipfile.ZipInfo:
    """Return the entry of a stored member, with the one date."""
    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = 0o644 << 16
    return info
