"""safetensors: read where the library is safe, written by ourselves, streaming.

    8 bytes, little-endian: length of the header
    header: JSON, {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets"}}
    data: the tensors, back to back

The format is small, so the library is not used. To read, it opens a file by its name, which may be
another's by then. To write, it needs every tensor in memory at once, and version 0.8.0 writes wrong
numbers for arrays that are not C-contiguous (safetensors issue 825).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed lacks it
from json.encoder import encode_basestring
from pathlib import Path
from typing import IO

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile, DestinationError
from lstmconvert.files.jsontext import Json, parse_object
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors.dtypes import FROM_SAFETENSORS, DType, dtype_of, safetensors_name
from lstmconvert.tensors.streaming import Sums, gathered, pour_into
from lstmconvert.tensors.tensor import FileTensor, Shape, SourceFile, Tensor, write_whole

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_ALIGNMENT = 8
#: No number of a header is as large (the library: usize), and no tensor has more axes here.
_MOST, _RANK = 1 << 64, limits.RANK.default


def read(
    source: SourceFile, *, with_metadata: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's tensors, lazily, and its metadata.

    Args:
        source: the file.
        with_metadata: False, where nobody looks at them: of thousands of layers they are megabytes.

    Raises:
        CorruptFile: it is not a valid safetensors file, or names a tensor twice.
        LimitExceeded: its header is larger than the format allows.
    """
    head = source.read_at(0, max(_LENGTH.size, min(_LENGTH.size + 1, source.size)))
    (length,) = _LENGTH.unpack_from(head)
    limits.HEADER_BYTES.check(length, source.path, "the safetensors header")
    if not length or head[_LENGTH.size :] != b"{":
        raise _damaged(source, "its header does not begin with {")
    start = _LENGTH.size + length
    plain = _plain(source, start, with_metadata)
    if plain is not None:
        return plain
    header = parse_object(_decoded(source.read_at(_LENGTH.size, length)), source.path)
    metadata = header.pop(_METADATA, None)
    if not _is_texts({} if metadata is None else metadata):
        raise _damaged(source, f"{_METADATA} holds more than texts")
    tensors: dict[str, Tensor] = {}
    places = []
    for name, entry in header.items():
        shape, begin, end, dtype = _entry(source, name, entry)
        if (size := math.prod(shape) * dtype.itemsize) != end - begin:
            raise _damaged(source, f"{name} takes {size:,} bytes, not {end - begin:,}")
        tensors[name] = FileTensor(source, start + begin, shape, dtype)
        places.append((begin, end))
    _check_places(source, sorted(places), source.size - start)
    return tensors, metadata or {}


def _decoded(data: bytearray) -> str | bytearray:
    """Return bytes as text, or where they are none as they are, which the parser tells. Only one
    of the two is in memory: of thousands of layers they are many megabytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


_FIRST = f'{{"{_METADATA}":{{'
#: What is between the metadata and the first entry: in a text, each quote is after a backslash.
_BETWEEN, _BACKSLASHES = b'"},"', 8
_NUMBER = "(?:0|[1-9][0-9]{0,18})"
_ENTRY = re.compile(
    r'"([^"\\\x00-\x1f]*)":\{"dtype":"(\w{1,9})","shape":\[([0-9,]*)\],'
    rf'"data_offsets":\[({_NUMBER}),({_NUMBER})\]\}}([,}}])'
)
_SHAPE = re.compile(f"{_NUMBER}(?:,{_NUMBER})*|")
#: The fewest JSON values of an entry.
_VALUES = 8


def _plain(
    source: SourceFile, start: int, with_metadata: bool
) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Do what `read` does for a header that is spelled as the library and we spell it, its tensors
    one behind the other: without an object for each value of its JSON, of which there are millions.

    None, where it is spelled otherwise, or anything is wrong with it.

    Args:
        source: the file.
        start: where its header ends.
        with_metadata: as in `read`.
    """
    metadata: dict[str, str] = {}
    at, first = 0, _LENGTH.size + 1
    try:
        between = _between(source, start)
        if between is not None:
            first = between + len(_BETWEEN) - 1
            if with_metadata:
                metadata = _texts(source.read_at(_LENGTH.size, first - _LENGTH.size).decode())
        text = source.read_at(first, start - first).decode()
    except (ValueError, IndexError):  # no UTF-8, too
        return None
    tensors: dict[str, Tensor] = {}
    kinds: dict[tuple[str, str], tuple[Shape, DType, int]] = {}
    match, last, count = _ENTRY.match, 0, 0
    most = limits.JSON_VALUES.value // _VALUES
    while (entry := match(text, at)) is not None:
        name, short, sizes, begin, end, following = entry.groups()
        kind = kinds.get((short, sizes))
        if kind is None:
            known = FROM_SAFETENSORS.get(short)
            if known is None or _SHAPE.fullmatch(sizes) is None or sizes.count(",") >= _RANK:
                return None
            shape, dtype = tuple(map(int, sizes.split(",") if sizes else ())), dtype_of(known)
            kind = kinds[short, sizes] = shape, dtype, math.prod(shape) * dtype.itemsize
        shape, dtype, size = kind
        count += 1
        if int(begin) != last or int(end) != last + size or name == _METADATA or count > most:
            return None
        tensors[name] = FileTensor(source, start + last, shape, dtype)
        last, at = last + size, entry.end()
        if following == "}":
            break
    else:
        return None
    if len(tensors) != count or last != source.size - start or text[at:].strip(" "):
        return None
    return tensors, metadata


def _between(source: SourceFile, start: int) -> int | None:
    """Return where in a file the text ends that is the last of the metadata, before an entry; None
    of a header that does not begin with metadata. Only a piece of it is in memory.

    Raises:
        ValueError: there is no such place, or many backslashes are before it: it is not sure.
    """
    first = _FIRST.encode()
    at = _LENGTH.size
    if source.read_at(at, min(len(first), start - at)) != first:
        return None
    while at < start:
        piece = source.read_at(at, min(_PIECE, start - at))
        end = piece.find(_BETWEEN)
        while end >= 0:
            before = piece[max(end - _BACKSLASHES, 0) : end]
            slashes = len(before) - len(before.rstrip(b"\\"))
            if slashes == len(before):
                raise ValueError
            if slashes % 2 == 0:
                return at + end
            end = piece.find(_BETWEEN, end + 1)
        # The next begins with the end of this one.
        at += max(len(piece) - _BACKSLASHES - len(_BETWEEN), 1)
    raise ValueError


def _texts(text: str) -> dict[str, str]:
    """Return the metadata at the start of a header, up to the first entry.

    Raises:
        ValueError, IndexError: they are spelled otherwise.
    """
    if "\\ud" in text or "\\uD" in text:  # half a surrogate pair, perhaps
        raise ValueError
    metadata: dict[str, str] = {}
    at = len(_FIRST)
    while True:
        if text[at] != '"':
            raise ValueError
        key, at = scanstring(text, at + 1)
        if text[at : at + 2] != ':"' or key in metadata:
            raise ValueError
        metadata[key], at = scanstring(text, at + 2)
        at += 1
        if text[at - 1] != ",":
            break
    if text[at - 1 :] != "},":
        raise ValueError
    return metadata


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
        hint=DAMAGED,
    )


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Callable[[], Mapping[str, Sequence[str]]],
    sums: Sums,
) -> Callable[[], None]:
    """Write a file, streaming, and return what puts the final metadata into it.

    Tensors are in the library's own order, by dtype and then by name, so that the same input gives
    the same bytes. They can be read back while the source is still being hashed.

    Args:
        path: the file to write.
        tensors: name -> tensor.
        metadata: returns texts, each in pieces. It is called twice, here and by what is returned:
            it may return the hash of the source and the checksums of the tensors only the second
            time, in a text of the same length. Of tensors that fit into a buffer it is called once,
            when all of them were read.
        sums: takes the checksum of each tensor.

    Raises:
        UnsupportedByTarget: a dtype that safetensors does not have.
        DestinationError: a tensor has the reserved name `__metadata__`.
    """
    if _METADATA in tensors:
        raise DestinationError("a tensor has the reserved name __metadata__", where=path)
    body, places, size = _laid_out(tensors)
    if size <= BUFFER_BYTES:
        data = gathered({name: tensors[name] for name in places}, size, sums)
        whole = b"".join(_header(metadata(), body))
        whole = _LENGTH.pack(len(whole) - _LENGTH.size) + whole[_LENGTH.size :]
        with open(path, "wb", 0) as whole_file:
            write_whole(whole_file.fileno(), whole + data, 0)
        return partial(_check_header, path, whole)
    with open(path, "wb") as file:
        length = 0
        for piece in _header(metadata(), body):
            length += file.write(piece)
        file.truncate(length + size)
        file.seek(0)
        file.write(_LENGTH.pack(length - _LENGTH.size))
        file.flush()
        places = {name: length + begin for name, begin in places.items()}
        pour_into(file.fileno(), {name: tensors[name] for name in places}, places, sums)

    def seal() -> None:
        at = 0
        with open(path, "rb+", 0) as file:
            for piece in _header(metadata(), body, length):
                write_whole(file.fileno(), piece, at)
                file.seek(at)
                _compare(file, piece, path)
                at += len(piece)
        if at != length:
            raise AssertionError("the metadata changed its length")

    return seal


def _check_header(path: Path, header: bytes) -> None:
    with open(path, "rb", 0) as file:
        _compare(file, header, path)


def _compare(file: IO[bytes], piece: bytes | memoryview, path: Path) -> None:
    """Raise unless these bytes are where an open file stands."""
    if file.read(len(piece)) != piece:
        raise DestinationError(
            "the written file differs from the intended one: the header", where=path
        )


def _laid_out(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int], int]:
    """Return the JSON text of the tensors' entries, where in the data each begins, in order, and
    the size of the data."""
    order = {short: number for number, short in enumerate(ORDER)}
    # Thousands of layers have tensors of a few shapes.
    kinds: dict[tuple[DType, Shape], tuple[int, str, int]] = {}
    described: dict[str, tuple[int, str, int]] = {}
    for name, tensor in tensors.items():
        key = tensor.dtype, tensor.shape
        kind = kinds.get(key)
        if kind is None:
            short = safetensors_name(tensor.dtype, name)
            shape = ",".join(map(str, tensor.shape))
            text = f':{{"dtype":"{short}","shape":[{shape}],"data_offsets":['
            kind = kinds[key] = order[short], text, tensor.nbytes
        described[name] = kind
    entries, begins, end = [], dict[str, int](), 0
    for number in sorted({number for number, _, _ in described.values()}):
        # Texts are in the same order as their bytes in UTF-8.
        for name in sorted([name for name, kind in described.items() if kind[0] == number]):
            _, text, size = described[name]
            begins[name] = begin = end
            end += size
            entries.append(f"{encode_basestring(name)}{text}{begin},{end}]}}")
    return f"{{{','.join(entries)}}}".encode(), begins, end


#: How many characters of a text are escaped at once: those of thousands of layers are large.
_PIECE = 1 << 20


def _header(
    metadata: Mapping[str, Sequence[str]], entries: bytes, length: int | None = None
) -> Iterator[bytes | memoryview]:
    """Yield the header in pieces of a megabyte or so, with the entries' JSON text, which is made
    once.

    Args:
        length: of the whole header in bytes, if it is known; else zeros stand for it.
    """
    total = size = _LENGTH.size
    run: list[bytes | memoryview] = [_LENGTH.pack(0 if length is None else length - size)]
    for piece in _spelled({key: metadata[key] for key in sorted(metadata)}, entries):
        run.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(run)
            total, size, run = total + size, 0, []
    run.append(b" " * (-(total + size) % _ALIGNMENT))
    yield b"".join(run)


def _spelled(texts: Mapping[str, Sequence[str]], entries: bytes) -> Iterator[bytes | memoryview]:
    if not texts:
        yield entries
        return
    start = _FIRST
    for key, pieces in texts.items():
        yield f'{start}{encode_basestring(key)}:"'.encode()
        for text in pieces:
            for at in range(0, len(text), _PIECE):
                yield encode_basestring(text[at : at + _PIECE])[1:-1].encode()
        start = '",'
    yield b'"},' if len(entries) > 2 else b'"}'
    yield memoryview(entries)[1:]


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

