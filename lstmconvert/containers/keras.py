"""Keras's own files as containers: archives, HDF5 files of every era, and sharded weights."""

from __future__ import annotations

from pathlib import Path

from lstmconvert.containers.modules import Asked, Opened
from lstmconvert.conversion import Draft, Options
from lstmconvert.keras.reading import load
from lstmconvert.model.model import Model


def open(file: Opened, asked: Asked) -> Model:  # noqa: A001  # what every such module calls it
    """Open a file or an unzipped archive. Raises as the functions of `keras.reading.load`."""
    if file.is_folder:
        return load.load_directory(file.path, asked.config)
    if file.is_zip:
        return load.load_zip(file.archive, asked.config)
    if file.is_hdf5:
        return load.load_hdf5(file.source, asked.config)
    return load.load_shards(file.path, asked.config)


def draft(model: Model, destination: Path, container: str, how: Options) -> Draft:
    """Return what a Keras file of one kind will hold. Raises as `keras.writing.write.draft`."""
    from lstmconvert.keras.writing import write
    from lstmconvert.layouts import assume

    return write.draft(assume.model(model), destination, container, how)
