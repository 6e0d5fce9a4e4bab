"""Flax's `.msgpack`: a tree of dicts whose leaves are arrays, as `flax.serialization` writes it.

An array is an extension of type 1 that holds (shape, dtype's name, bytes), packed again; one above
2^30 bytes is a dict of flat chunks (flax/serialization.py). There is no place for metadata: Flax
gives back every key, and refuses a tree that has others than its module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.dtypes import Array, dtype_of
from lstmconvert.errors import CorruptFile, MissingPackage, SourceError, UsageError
from lstmconvert.tensors import ArrayTensor, SourceFile, Tensor

_ARRAY = 1
_CHUNKED = "__msgpack_chunked_array__"
_CHUNK_BYTES = 1 << 30
_DTYPES = ("float32", "float64", "float16", "bfloat16")
_OTHERS = (
    "bool", "complex64", "complex128",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)  # fmt: skip


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's arrays, named by the dots between their keys. Numbers and texts are passed by.

    Raises:
        MissingPackage: msgpack is not installed.
        CorruptFile, LimitExceeded: it is not of this format, or too large.
    """
    library = _import()
    limits.TENSOR_BYTES.check(source.size, source.path, "the file's bytes")

    # Counted as they are made: a byte of the file is a dict of sixty.
    seen, most = count(1), limits.ARRAYS.value

    def unpacked(code: int, data: bytes) -> Any:
        return _array(library, data, source.path) if code == _ARRAY else None

    def counted(value: Any) -> Any:
        limits.ARRAYS.check(next(seen), source.path, "the number of dicts")
        return value

    try:
        tree = library.unpackb(
            bytes(source.read_at(0, source.size)),
            ext_hook=unpacked,
            object_hook=counted,
            list_hook=counted,
            max_array_len=most,
            max_map_len=most,
            strict_map_key=True,
        )
    except SourceError:
        raise
    except Exception as error:  # whatever msgpack makes of bytes that are not its own
        length = str(error).partition(" exceeds max_")[0]
        if length.isdigit() and int(length) <= source.size:
            limits.ARRAYS.check(int(length), source.path, "the number of a dict's entries")
        raise CorruptFile(
            f"no msgpack of Flax: {str(error)[:80]}", where=source.path, expected="a tree of arrays"
        ) from None
    if not isinstance(tree, dict):
        raise CorruptFile("no tree of arrays", where=source.path, found=type(tree).__name__)
    found: dict[str, Tensor] = {}
    for name, array in _leaves(tree, "", source.path, 0):
        limits.ARRAYS.check(len(found) + 1, source.path, "the number of arrays")
        if name in found:
            raise CorruptFile("two arrays of one name", where=source.path, found=name)
        found[name] = ArrayTensor(array)
    return found, {}


def _leaves(
    tree: dict[str, Any], prefix: str, where: object, depth: int
) -> Iterator[tuple[str, Array]]:
    limits.TREE_DEPTH.check(depth, where, "the depth of its dicts")
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and _CHUNKED in value:
            yield name, _joined(value, name, where)
        elif isinstance(value, dict):
            yield from _leaves(value, f"{name}.", where, depth + 1)
        elif isinstance(value, np.ndarray):
            yield name, value


def _joined(value: dict[str, Any], name: str, where: object) -> Array:
    match value:
        case {"shape": dict(shape), "chunks": dict(chunks)}:
            named = [shape.get(str(axis)) for axis in range(len(shape))]
            sizes = [size for size in named if isinstance(size, int) and size >= 0]
            stored = [chunks.get(str(index)) for index in range(len(chunks))]
            pieces = [one for one in stored if isinstance(one, np.ndarray) and one.ndim == 1]
            if pieces and len(pieces) == len(stored) and len(sizes) == len(named):
                whole: Array = np.concatenate(pieces)
                if whole.size == prod(sizes):
                    return whole.reshape(sizes)
    raise CorruptFile("the chunks of an array do not fit it", where=f"{where}: {name}")


def _array(library: Any, data: bytes, where: object) -> Array:
    match library.unpackb(data, raw=True):
        case [[*shape], bytes(name), bytes(raw)] if all(isinstance(s, int) for s in shape):
            text = name.decode("ascii", "replace")
        case _:
            raise CorruptFile("not an array", where=where)
    if text not in _DTYPES and text not in _OTHERS:
        raise CorruptFile("an array of no numbers", where=where, found=text[:40])
    dtype = dtype_of(text) if text in _DTYPES else np.dtype(text)
    limits.RANK.check(len(shape), where, "the number of its axes")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(raw):
        raise CorruptFile(
            "the array's data is not as long as its shape says",
            where=where,
            found=f"{len(raw)} bytes",
            expected=f"{text}{tuple(shape)}",
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def write(
    path: Path, tensors: Mapping[str, Tensor], texts: Callable[[], Mapping[str, str]]
) -> None:
    """Write a file that `flax.serialization.msgpack_restore` reads. Arguments: `safetensors.write`.

    Raises:
        MissingPackage: msgpack is not installed.
        UsageError: a name is also a module of others.
    """
    library = _import()
    texts()
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *folders, leaf = name.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise UsageError("an array has the name of a module", where=path, found=name)
        node[leaf] = _leaf(library, tensor.read())
    path.write_bytes(library.packb(tree, strict_types=True))


def _leaf(library: Any, array: Array) -> Any:
    if array.nbytes <= _CHUNK_BYTES:
        return library.ExtType(_ARRAY, _packed(library, array))
    flat, step = array.reshape(-1), _CHUNK_BYTES // array.dtype.itemsize
    chunks = [flat[start : start + step] for start in range(0, flat.size, step)]
    return {
        _CHUNKED: True,
        "shape": {str(axis): size for axis, size in enumerate(array.shape)},
        "chunks": {
            str(number): library.ExtType(_ARRAY, _packed(library, chunk))
            for number, chunk in enumerate(chunks)
        },
    }


def _packed(library: Any, array: Array) -> bytes:
    packed: bytes = library.packb((array.shape, array.dtype.name, array.tobytes()))
    return packed


def _import() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise MissingPackage(
            f"msgpack is not installed: {error}", hint="pip install 'lstmconvert[jax]'"
        ) from None
    return msgpack
