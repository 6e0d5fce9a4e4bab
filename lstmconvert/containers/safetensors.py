"""safetensors: read where the library is safe, written by ourselves, streaming.

    8 bytes, little-endian: length of the header
    header: JSON, {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets"}}
    data: the tensors, back to back

The library validates what we read. It is not used to write, because it needs every tensor in
memory at once, and because safetensors 0.8.0 writes wrong numbers for arrays that are not
C-contiguous (safetensors issue 825).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lstmconvert import limits
from lstmconvert.dtypes import FROM_SAFETENSORS, Array, dtype_of, safetensors_name
from lstmconvert.errors import CorruptFile, DestinationError
from lstmconvert.jsontext import parse_object
from lstmconvert.streaming import pour, write_at
from lstmconvert.tensors import FileTensor, SourceFile, Tensor

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_ALIGNMENT = 8


def looks_like(head: bytes) -> bool:
    """Whether the first bytes of a file can be those of a safetensors file."""
    return len(head) > _LENGTH.size and head[_LENGTH.size : _LENGTH.size + 1] == b"{"


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's tensors, lazily, and its metadata.

    Raises:
        CorruptFile: it is not a valid safetensors file, or names a tensor twice.
        LimitExceeded: its header is larger than the format allows.
    """
    (length,) = _LENGTH.unpack(source.read_at(0, _LENGTH.size))
    limits.HEADER_BYTES.check(length, source.path, "the safetensors header")
    header = parse_object(bytes(source.read_at(_LENGTH.size, length)), source.path)
    _validate(source)
    metadata = header.pop(_METADATA, None) or {}
    start, rank = _LENGTH.size + length, max((len(x["shape"]) for x in header.values()), default=0)
    limits.RANK.check(rank, source.path, "the number of a tensor's axes")
    return {name: _tensor(source, start, name, entry) for name, entry in header.items()}, metadata


def _validate(source: SourceFile) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(f"/dev/fd/{source.descriptor}", framework="np"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptFile(
            f"not a valid safetensors file: {str(error)[:160]}",
            where=source.path,
            hint="the file is truncated or damaged: copy or download it again",
        ) from None


def _tensor(source: SourceFile, start: int, name: str, entry: Any) -> Tensor:
    dtype = FROM_SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        raise CorruptFile(
            "a dtype that is not read here", where=f"{source.path}: {name}", found=entry["dtype"]
        )
    shape = tuple(entry["shape"])
    return FileTensor(source, start + entry["data_offsets"][0], shape, dtype_of(dtype))


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: Callable[[], Mapping[str, str]]
) -> Callable[[], None]:
    """Write a file, streaming, and return what puts the final metadata into it.

    Tensors lie in the library's own order, by dtype and then by name, so that the same input gives
    the same bytes. They can be read back while the source is still being hashed.

    Args:
        path: the file to write; it must not exist.
        tensors: name -> tensor.
        metadata: called twice, here and by what is returned: it may return the hash of the source
            only the second time, in a text of the same length.

    Raises:
        UnsupportedByTarget: a dtype that safetensors does not have.
        DestinationError: a tensor has the reserved name `__metadata__`.
    """
    if _METADATA in tensors:
        raise DestinationError("a tensor has the reserved name __metadata__", where=path)
    types = {name: safetensors_name(tensor.dtype, name) for name, tensor in tensors.items()}
    ordered = sorted(tensors, key=lambda name: (ORDER.index(types[name]), name.encode()))
    entries, offsets, end = {}, {}, 0
    for name in ordered:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": types[name],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        offsets[name] = begin
    body = _dumped(entries)
    header = _header(metadata(), body)
    with open(path, "xb") as file:
        file.write(header)
        file.truncate(len(header) + end)
        file.flush()

        def sink(name: str, offset: int, piece: Array) -> None:
            write_at(file.fileno(), len(header) + offsets[name] + offset, piece)

        pour({name: tensors[name] for name in ordered}, sink)

    def seal() -> None:
        final = _header(metadata(), body)
        if len(final) != len(header):
            raise AssertionError("the metadata changed its length")
        with open(path, "rb+") as file:
            file.write(final)
            file.seek(0)
            if file.read(len(final)) != final:
                raise DestinationError(
                    "what was written differs from what was meant: the header", where=path
                )

    return seal


def _header(metadata: Mapping[str, str], entries: bytes) -> bytes:
    """Return the header, with the entries' JSON text, which is made once."""
    texts = {key: metadata[key] for key in sorted(metadata)}
    start = b'{"%s":%s%s' % (_METADATA.encode(), _dumped(texts), b"," if len(entries) > 2 else b"")
    text = start + entries[1:] if texts else entries
    text += b" " * (-len(text) % _ALIGNMENT)
    return _LENGTH.pack(len(text)) + text


def _dumped(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


#: The library's order: safetensors/src/tensor.rs sorts by its Dtype enum, largest first.
ORDER: tuple[str, ...] = (
    "U64",
    "I64",
    "F64",
    "C64",
    "F32",
    "U32",
    "I32",
    "BF16",
    "F16",
    "U16",
    "I16",
    "F8_E4M3",
    "F8_E5M2",
    "I8",
    "U8",
    "BOOL",
)

