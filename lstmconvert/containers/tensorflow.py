"""SavedModels, checkpoints and frozen graphs of TensorFlow, which are read and not written."""

from __future__ import annotations

from pathlib import Path

from lstmconvert.containers.modules import Asked, Opened
from lstmconvert.model.model import Model
from lstmconvert.tensorflow import load
from lstmconvert.tensorflow.formats.graphdef import is_graph
from lstmconvert.tensorflow.formats.savedmodel import is_saved_model


def open(file: Opened, asked: Asked) -> Model:  # noqa: A001  # what every such module calls it
    """Open a SavedModel, a checkpoint, or a file of either; or a frozen graph.

    Raises as `load_saved_model`, `load_checkpoint` and `load_graph`.
    """
    path = file.path
    is_part = path.suffix == ".meta" and path.with_suffix(".index").is_file()
    if file.is_there and not is_part and is_graph(file.source):
        return load.load_graph(file.source, asked.layout)
    for folder in (path, path.parent):
        if folder.is_dir() and is_saved_model(folder) and (file.is_folder or _stands_for(path)):
            return load.load_saved_model(folder, asked.config)
    return load.load_checkpoint(path, asked.config, asked.layout)


def _stands_for(path: Path) -> bool:
    """Whether a file is one that people name where they mean the directory that holds it."""
    return path.name in ("saved_model.pb", "keras_metadata.pb")
