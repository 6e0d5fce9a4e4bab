"""safetensors: read where the library is safe, written by ourselves, streaming.

    8 bytes, little-endian: length of the header
    header: JSON, {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets"}}
    data: the tensors, back to back

The format is small, so the library is not used. To read, it opens a file by its name, which may be
another's by then. To write, it needs every tensor in memory at once, and version 0.8.0 writes wrong
numbers for arrays that are not C-contiguous (safetensors issue 825).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, DestinationError
from lstmconvert.files.jsontext import Json, parse_object
from lstmconvert.tensors.dtypes import FROM_SAFETENSORS, DType, dtype_of, safetensors_name
from lstmconvert.tensors.streaming import Sums, pour_into
from lstmconvert.tensors.tensor import FileTensor, Shape, SourceFile, Tensor

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_ALIGNMENT = 8
#: No number of a header is as large (the library: usize), and no tensor has more axes here.
_MOST, _RANK = 1 << 64, limits.RANK.default


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's tensors, lazily, and its metadata.

    Raises:
        CorruptFile: it is not a valid safetensors file, or names a tensor twice.
        LimitExceeded: its header is larger than the format allows.
    """
    (length,) = _LENGTH.unpack(source.read_at(0, _LENGTH.size))
    limits.HEADER_BYTES.check(length, source.path, "the safetensors header")
    if source.read_at(_LENGTH.size, min(length, 1)) != b"{":
        raise _damaged(source, "its header does not begin with {")
    header = parse_object(source.read_at(_LENGTH.size, length), source.path)
    metadata = header.pop(_METADATA, None)
    if not _is_texts({} if metadata is None else metadata):
        raise _damaged(source, f"{_METADATA} holds more than texts")
    tensors: dict[str, Tensor] = {}
    places = []
    start = _LENGTH.size + length
    for name, entry in header.items():
        shape, begin, end, dtype = _entry(source, name, entry)
        if (size := math.prod(shape) * dtype.itemsize) != end - begin:
            raise _damaged(source, f"{name} takes {size:,} bytes, not {end - begin:,}")
        tensors[name] = FileTensor(source, start + begin, shape, dtype)
        places.append((begin, end))
    _check_places(source, sorted(places), source.size - start)
    return tensors, metadata or {}


def _entry(source: SourceFile, name: str, entry: Json) -> tuple[Shape, int, int, DType]:
    """Return the shape of a tensor, where its bytes begin and end in the data, and its dtype."""
    try:
        (begin, end), shape, short = entry["data_offsets"], entry["shape"], entry["dtype"]
        if len(shape) > _RANK:  # as rarely, and limits take time to look up
            limits.RANK.check(len(shape), source.path, "the number of a tensor's axes")
        for number in (begin, end, *shape):
            if type(number) is not int or not 0 <= number < _MOST:
                raise ValueError(name)
        dtype = FROM_SAFETENSORS.get(short)
    except (TypeError, KeyError, ValueError):
        raise _damaged(source, f"the entry of {name} is not that of a tensor") from None
    if dtype is None:
        raise CorruptFile(
            "a dtype that is not read here", where=f"{source.path}: {name}", found=repr(short)[:40]
        )
    return tuple(shape), begin, end, dtype_of(dtype)


def _is_texts(value: Json) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _check_places(source: SourceFile, places: Sequence[tuple[int, int]], size: int) -> None:
    """Raise unless the tensors are one behind the other, from the first byte of data to the last.

    Else two could share their bytes, or a file could hold what nobody sees.
    """
    last = 0
    for begin, end in places:
        if begin != last:
            raise _damaged(source, "its tensors overlap, or leave bytes between them")
        last = end
    if last != size:
        raise _damaged(source, f"its tensors take {last:,} bytes, and it holds {size:,}")


def _damaged(source: SourceFile, reason: str) -> CorruptFile:
    return CorruptFile(
        f"not a valid safetensors file: {reason}",
        where=source.path,
        hint="the file is truncated or damaged: copy or download it again",
    )


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Callable[[], Mapping[str, str]],
    sums: Sums,
) -> Callable[[], None]:
    """Write a file, streaming, and return what puts the final metadata into it.

    Tensors are in the library's own order, by dtype and then by name, so that the same input gives
    the same bytes. They can be read back while the source is still being hashed.

    Args:
        path: the file to write.
        tensors: name -> tensor.
        metadata: called twice, here and by what is returned: it may return the hash of the source
            and the checksums of the tensors only the second time, in a text of the same length.
        sums: takes the checksum of each tensor.

    Raises:
        UnsupportedByTarget: a dtype that safetensors does not have.
        DestinationError: a tensor has the reserved name `__metadata__`.
    """
    if _METADATA in tensors:
        raise DestinationError("a tensor has the reserved name __metadata__", where=path)
    body, places, size = _laid_out(tensors)
    start = _header(metadata(), body)
    length = len(start)
    with open(path, "wb") as file:
        file.write(start)
        del start  # of thousands of layers it is large
        file.truncate(length + size)
        file.flush()
        places = {name: length + begin for name, begin in places.items()}
        pour_into(file.fileno(), {name: tensors[name] for name in places}, places, sums)

    def seal() -> None:
        final = _header(metadata(), body)
        if len(final) != length:
            raise AssertionError("the metadata changed its length")
        with open(path, "rb+") as file:
            file.write(final)
            file.seek(0)
            if file.read(len(final)) != final:
                raise DestinationError(
                    "the written file differs from the intended one: the header", where=path
                )

    return seal


def _laid_out(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int], int]:
    """Return the JSON text of the tensors' entries, where in the data each begins, in order, and
    the size of the data."""
    order = {short: number for number, short in enumerate(ORDER)}
    # Texts are in the same order as their bytes in UTF-8.
    items = sorted(
        (order[safetensors_name(tensor.dtype, name)], name) for name, tensor in tensors.items()
    )
    entries, begins, end = [], dict[str, int](), 0
    for number, name in items:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        begins[name] = begin
        shape = ",".join(map(str, tensor.shape))
        entries.append(
            f'{encode_basestring(name)}:{{"dtype":"{ORDER[number]}","shape":[{shape}],'
            f'"data_offsets":[{begin},{end}]}}'
        )
    return f"{{{','.join(entries)}}}".encode(), begins, end


def _header(metadata: Mapping[str, str], entries: bytes) -> bytes:
    """Return the header, with the entries' JSON text, which is made once."""
    texts = {key: metadata[key] for key in sorted(metadata)}
    parts: list[bytes | memoryview] = [entries]
    if texts:
        comma = b"," if len(entries) > 2 else b""
        parts = [f'{{"{_METADATA}":{_dumped(texts)}'.encode(), comma, memoryview(entries)[1:]]
    length = sum(map(len, parts))
    spaces = -length % _ALIGNMENT
    return b"".join([_LENGTH.pack(length + spaces), *parts, b" " * spaces])


def _dumped(value: Mapping[str, str]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


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

