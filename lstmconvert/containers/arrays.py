"""The containers that hold nothing but named arrays and metadata texts, each read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from lstmconvert import readback, writing
from lstmconvert.neighbours import Neighbours
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
    "mat": "mat",
    "msgpack": "msgpack",
    "eqx": "eqx",
    "ncnn": "ncnn",
    "tfjs": "tfjs",
    "tflite": "tflite",
    "mlmodel": "mlmodel",
    "frugally-deep": "fdeep",
}
#: Container -> the suffix of a second file, beside it, that holds the numbers.
_BESIDE = {"ncnn": ".bin", "tfjs": ".bin"}
#: Container -> where in a file, and by what bytes, it is known.
_SIGNATURES = {
    "params": (0, b"\x12\x01" + bytes(6)),
    "ncnn": (0, b"7767517\n"),
    "tflite": (4, b"TFL3"),
    "mat": (0, b"MATLAB "),
}
#: Containers that hold arrays of any name, not an LSTM's alone.
OPEN = frozenset({"safetensors", "npz", "json", "params", "msgpack"})
#: Containers with no place for metadata: options do not come back from them.
BARE = frozenset({"msgpack", "eqx"})
#: Containers whose arrays have the names of one layout.
_OWN = {"ncnn": "ncnn", "tflite": "tflite", "mlmodel": "coreml"}


def container_of(head: bytes) -> str | None:
    """Return the container whose files begin with these bytes, if there is one."""
    for container, (offset, signature) in _SIGNATURES.items():
        if head[offset:].startswith(signature):
            return container
    return None


def layout_of(container: str) -> str | None:
    """Return the one layout whose arrays a container holds; None if it holds any."""
    return _OWN.get(container)


def module_of(container: str) -> Any:
    """Return the module that reads and writes a container."""
    return import_module(f"lstmconvert.containers.{_MODULES[container]}")


def read(container: str, source: SourceFile, beside: Neighbours | None = None) -> Found:
    """Return the arrays of an open file, and its metadata.

    Args:
        container: its container.
        source: the file.
        beside: what opens the files beside it.
    """
    module = module_of(container)
    if container not in _BESIDE:
        found: Found = module.read(source)
    else:
        found = module.read(source, beside or Neighbours(source.path))
    return found


def write(
    container: str,
    path: Path,
    tensors: Mapping[str, Tensor],
    texts: Texts,
    destination: Path,
    beside: Beside | None = None,
) -> None:
    """Write arrays and metadata (see `safetensors.write`), read them back and compare.

    Args:
        container: its container.
        path: a temporary file.
        tensors: name -> tensor.
        texts: makes the metadata texts.
        destination: the name that the file will take, for errors.
        beside: the file that the container wants beside it, from `beside`.

    Raises as `readback.check_written`.
    """
    module = module_of(container)
    neighbours = None
    if beside is None:
        seal = module.write(path, tensors, texts)
    else:
        seal = module.write(path, tensors, texts, beside)
        neighbours = Neighbours(path, {beside.name: SourceFile(beside.temporary)})
    found, _ = read(container, SourceFile(path), neighbours)
    with writing.flushing(path):
        readback.check_written(tensors, found, destination)
    if seal is not None:
        seal()


class Beside(NamedTuple):
    """A second file on its way: `temporary` will take the name `name`."""

    temporary: Path
    name: str


def second(container: str, path: Path) -> list[Path]:
    """Return the file that a container has beside its first, in a list; none is an empty one."""
    return [path.with_suffix(_BESIDE[container])] if container in _BESIDE else []


def beside(temporaries: Sequence[Path], seconds: Sequence[Path]) -> Beside | None:
    """Return the second file on its way, if there is one.

    Args:
        temporaries: of the first file, and of what `second` returned.
        seconds: what `second` returned.
    """
    return Beside(temporaries[1], seconds[0].name) if seconds else None
