"""The containers that hold nothing but named arrays and metadata texts, each read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lstmconvert.tensors import SourceFile, Tensor

Texts = Callable[[], Mapping[str, str]]
Found = tuple[dict[str, Tensor], dict[str, str]]

#: Container -> the module with its `read` and `write`.
_MODULES = {
    "safetensors": "safetensors",
    "npz": "npz",
    "json": "jsonarrays",
    "rtneural": "rtneural",
}


def _module(container: str) -> Any:
    return import_module(f"lstmconvert.containers.{_MODULES[container]}")


def read(container: str, source: SourceFile) -> Found:
    """Return the arrays of an open file, and its metadata."""
    found: Found = _module(container).read(source)
    return found


def write(container: str, path: Path, tensors: Mapping[str, Tensor], texts: Texts) -> None:
    """Write arrays and metadata: see `safetensors.write`."""
    _module(container).write(path, tensors, texts)
