"""MATLAB's `.mat`, level 5: each layer a struct, whose fields are its arrays or structs of them.

`lstm.forward.Bias` is the field `Bias` of the struct `forward` in the struct `lstm`. SciPy writes
it; our metadata are a variable of bytes. The date in the file's head is left out, so that the same
input gives the same bytes.
"""

from __future__ import annotations

import struct
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
        raise other_version("7.3", source)
    found = matread.read(source)
    text = found.pop(metadata.KEY, None)
    tensors: dict[str, Tensor] = {name: ArrayTensor(array) for name, array in found.items()}
    if text is None:
        return tensors, {}
    value = parse_object(text.tobytes(), f"{source.path}: {metadata.KEY}")
    return tensors, {metadata.KEY: canonical(value)}


def is_level_4(head: bytes) -> bool:
    """Whether the first 16 bytes may be those of a `.mat` file of version 4: it has no signature.

    Type (in decimal: byte order, 0, numbers, kind), rows, columns, whether there are imaginary
    parts ("MAT-File Format", MathWorks, chapter 2; scipy/io/matlab/_mio4.py).
    """
    if len(head) < 16:
        return False
    for order in "<>":
        kind, rows, columns, imaginary = struct.unpack(f"{order}4i", head[:16])
        fits = kind // 1000 in range(5) and kind // 100 % 10 == 0
        fits = fits and kind // 10 % 10 in range(6) and kind % 10 in range(3)
        if fits and min(rows, columns) >= 0 and imaginary in (0, 1):
            return True
    return False


def other_version(found: str, source: SourceFile) -> SourceError:
    """Return the error that refuses a version of `.mat`, and says how to save another."""
    return SourceError(
        f"a .mat file of version {found}, which is not read",
        where=source.path,
        expected="version 5 to 7",
        hint="in MATLAB: s = load(file); save(file, '-struct', 's', '-v7')",
    )


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
