"""MATLAB's `.mat`, level 5: each layer a struct, whose fields are its arrays or structs of them.

`lstm.forward.Bias` is the field `Bias` of the struct `forward` in the struct `lstm`. SciPy writes
it; our metadata are a variable of bytes. The date in the file's head is left out, so that the same
input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import files, metadata
from lstmconvert.containers import matread
from lstmconvert.errors import MissingPackage, SourceError, UnsupportedByTarget
from lstmconvert.jsontext import canonical, parse_object
from lstmconvert.tensors import ArrayTensor, SourceFile, Tensor

#: How a file of version 7.3 begins, which is HDF5.
_HDF5 = b"MATLAB 7.3"
_TEXT = b"MATLAB 5.0 MAT-file, written by lstmconvert"
_TEXT_BYTES = 116
_DTYPES = ("float32", "float64")


def _scipy() -> Any:
    try:
        from scipy import io as scipy_io
    except ImportError:
        raise MissingPackage(
            "SciPy writes .mat files, and is not installed",
            hint="pip install 'lstmconvert[matlab]'",
        ) from None
    return scipy_io


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's real arrays, those in structs by dotted names, and our metadata.

    Raises:
        SourceError: it is of version 7.3.
        CorruptFile, LimitExceeded: see `matread.read`.
    """
    if files.head(source, len(_HDF5)) == _HDF5:
        raise SourceError(
            "a .mat file of version 7.3, which is not read",
            where=source.path,
            expected="version 7 or earlier",
            hint="in MATLAB: save(file, '-struct', …, '-v7')",
        )
    found = matread.read(source)
    text = found.pop(metadata.KEY, None)
    tensors: dict[str, Tensor] = {name: ArrayTensor(array) for name, array in found.items()}
    if text is None:
        return tensors, {}
    value = parse_object(text.tobytes(), f"{source.path}: {metadata.KEY}")
    return tensors, {metadata.KEY: canonical(value)}


def write(
    path: Path, tensors: Mapping[str, Tensor], texts: Callable[[], Mapping[str, str]]
) -> None:
    """Write a file. The arguments are those of `safetensors.write`.

    Raises:
        MissingPackage: SciPy is not installed.
        UnsupportedByTarget: a name, dtype or rank that MATLAB does not have.
    """
    scipy_io = _scipy()
    texts()  # the first has no hash of the source yet
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *folders, last = _words(name)
        if tensor.dtype.name not in _DTYPES:
            raise _refused(name, "dtype", tensor.dtype.name, ", ".join(_DTYPES))
        if len(tensor.shape) != 2:
            raise _refused(name, "rank", str(tensor.shape), "two axes")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = tensor.read()
    if metadata.KEY in tree:
        raise _refused(metadata.KEY, "name", metadata.KEY, "another: it is the metadata's")
    final = texts()
    if metadata.KEY in final:
        tree[metadata.KEY] = np.frombuffer(final[metadata.KEY].encode(), np.uint8)[None]
    with open(path, "xb") as file:
        scipy_io.savemat(file, tree, long_field_names=True)
        file.seek(0)
        file.write(_TEXT.ljust(_TEXT_BYTES))


def _words(name: str) -> list[str]:
    words = name.split(".")
    if not all(matread.NAME.fullmatch(word) for word in words):
        raise _refused(name, "name", name, "letters, digits and underlines, 63 at most")
    return words


def _refused(name: str, option: str, found: str, expected: str) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        f"MATLAB has no such {option} here",
        where=name,
        option=option,
        target="mat",
        found=found,
        expected=expected,
        hint="--bare leaves the layer's name away" if option == "name" else None,
    )
