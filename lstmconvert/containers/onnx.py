"""ONNX as a container: an LSTM of any writer in, one tensor a gate and a graph that runs out."""

from __future__ import annotations

from pathlib import Path

from lstmconvert.containers.modules import Asked, Opened
from lstmconvert.conversion import Draft, Options
from lstmconvert.model.model import Model


def open(file: Opened, asked: Asked) -> Model:  # noqa: A001  # what every such module calls it
    """Open an ONNX file. Raises as `onnx.read.open_model`."""
    from lstmconvert.onnx import read

    del asked  # its graph says all
    return read.open_model(file.source)


def draft(model: Model, destination: Path, container: str, how: Options) -> Draft:
    """Return what an ONNX file will hold. Raises as `onnx.write.draft`."""
    from lstmconvert.onnx import write

    del container  # there is one kind
    return write.draft(model, destination, how)
