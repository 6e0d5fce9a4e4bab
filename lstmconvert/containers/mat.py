"""MATLAB's `.mat`, level 5: each layer a struct, whose fields are its arrays or structs of them.

`lstm.forward.Bias` is the field `Bias` of the struct `forward` in the struct `lstm`. SciPy reads
and writes it; our metadata are a variable of bytes. The date in the file's head is left out, so
that the same input gives the same bytes.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits, metadata
from lstmconvert.errors import CorruptFile, MissingPackage, SourceError, UnsupportedByTarget
from lstmconvert.jsontext import canonical, parse_object
from lstmconvert.tensors import ArrayTensor, SourceFile, Tensor

#: How a file of version 7.3 begins, which is HDF5.
_HDF5 = b"MATLAB 7.3"
_TEXT = b"MATLAB 5.0 MAT-file, written by lstmconvert"
_HEAD, _TEXT_BYTES, _COMPRESSED = 128, 116, 15
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_DTYPES = ("float32", "float64")


def _scipy() -> Any:
    try:
        from scipy import io as scipy_io
    except ImportError:
        raise MissingPackage(
            "a .mat file needs SciPy, which is not installed",
            hint="pip install 'lstmconvert[matlab]'",
        ) from None
    return scipy_io


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's real arrays, those in structs by dotted names, and our metadata.

    Raises:
        MissingPackage: SciPy is not installed.
        SourceError: it is of version 7.3.
        CorruptFile, LimitExceeded: SciPy refuses it, or it expands too far.
    """
    scipy_io = _scipy()
    limits.TENSOR_BYTES.check(source.size, source.path, "its size")
    data = bytes(source.read_at(0, source.size))
    if data.startswith(_HDF5):
        raise SourceError(
            "a .mat file of version 7.3, which is not read",
            where=source.path,
            expected="version 7 or earlier",
            hint="in MATLAB: save(file, '-struct', …, '-v7')",
        )
    try:
        _check_sizes(data, source)
        found = scipy_io.loadmat(io.BytesIO(data), squeeze_me=False, appendmat=False)
    except SourceError:
        raise
    except Exception as error:  # whatever SciPy makes of a file that is not MATLAB's
        raise CorruptFile(
            f"SciPy refuses it: {type(error).__name__}: {error}"[:160], where=source.path
        ) from None
    text = found.pop(metadata.KEY, None)
    # SciPy's own entries, such as the head, have names that no variable can have.
    tensors: dict[str, Tensor] = {
        name: ArrayTensor(np.ascontiguousarray(array))
        for key, value in found.items()
        if not key.startswith("__")
        for name, array in _arrays(key, value, source.path)
    }
    if text is None:
        return tensors, {}
    raw = np.ascontiguousarray(text).tobytes()
    return tensors, {metadata.KEY: canonical(parse_object(raw, f"{source.path}: {metadata.KEY}"))}


def _check_sizes(data: bytes, source: SourceFile) -> None:
    """Refuse compressed elements that expand too far."""
    offset = _HEAD
    while offset + 8 <= len(data):
        order = "<" if data[126:128] == b"IM" else ">"
        kind, size = struct.unpack_from(f"{order}II", data, offset)
        if kind == _COMPRESSED:
            stream, total = zlib.decompressobj(), 0
            rest = data[offset + 8 : offset + 8 + size]
            while rest and not stream.eof:
                total += len(stream.decompress(rest, limits.BUFFER_BYTES))
                limits.check_expansion(total, size, source.path)
                rest = stream.unconsumed_tail
        offset += 8 + size


def _arrays(name: str, value: Any, where: object, depth: int = 0) -> Iterator[tuple[str, Any]]:
    limits.RANK.check(depth, where, "the depth of its structs")
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names is not None and value.size == 1:
        for field in value.dtype.names:
            yield from _arrays(f"{name}.{field}", value.flat[0][field], where, depth + 1)
    elif value.dtype.kind in "fiub":
        yield name, value


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
    if not all(_WORD.fullmatch(word) for word in words):
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
