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
    "params": "params",
}
#: Container -> where in a file, and by what bytes, it is known.
_SIGNATURES = {"params": (0, b"\x12\x01" + bytes(6))}


def container_of(head: bytes) -> str | None:
    """Return the container whose files begin with these bytes, if there is one."""
    for container, (offset, signature) in _SIGNATURES.items():
        if head[offset:].startswith(signature):
            return container
    return None


def _module(container: str) -> Any:
    return import_module(f"lstmconvert.containers.{_MODULES[container]}")


def read(container: str, source: SourceFile) -> Found:
    """Return the arrays of an open file, and its metadata."""
    found: Found = _module(container).read(source)
    return found


def write(container: str, path: Path, tensors: Mapping[str, Tensor], texts: Texts) -> None:
    """Write arrays and metadata: see `safetensors.write`."""
    _module(container).write(path, tensors, texts)
