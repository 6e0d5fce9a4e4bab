"""safetensors as a container. The format itself is in `files.safetensors`, which ONNX uses too."""

from __future__ import annotations

from pathlib import Path

from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.files import safetensors
from lstmconvert.files.writing import Written


def read(file: Opened) -> Arrays:
    """Read a file's tensors, lazily, and its metadata. Raises as `files.safetensors.read`."""
    return Arrays(*safetensors.read(file.source, with_metadata=not file.arrays_only))


def write(path: Path, content: Writing) -> Written:
    """Write a file. Raises as `files.safetensors.write`."""
    return safetensors.write(path, content.tensors, content.texts, content.sums)
