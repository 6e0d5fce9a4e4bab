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
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed lacks it
from json.encoder import encode_basestring
from pathlib import Path
from typing import IO

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile, DestinationError
from lstmconvert.files.jsontext import Json, Later, Piece, joined, parse_object
from lstmconvert.files.writing import Written, differs
from lstmconvert.limits import BUFFER_BYTES
from lstmconvert.tensors import progress
from lstmconvert.tensors.checksums import crc32c
from lstmconvert.tensors.dtypes import FROM_SAFETENSORS, DType, dtype_of, safetensors_name
from lstmconvert.tensors.streaming import Sums, gathered, pour_into, sums_in
from lstmconvert.tensors.tensor import FileTensor, Shape, SourceFile, Tensor, write_whole

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
#: What a limit calls it.
_HEADER = "the safetensors header"
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
    limits.HEADER_BYTES.check(length, source.path, _HEADER)
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
    metadata: Callable[[bool], Mapping[str, Iterable[Piece]]],
    sums: Sums,
) -> Written:
    """Write a file, streaming, and return what reads it back and completes it.

    Tensors are in the library's own order, by dtype and then by name, so that the same input gives
    the same bytes. They can be read back while the source is still being hashed.

    Args:
        path: the file to write.
        tensors: name -> tensor.
        metadata: returns texts, each in pieces, and each JSON text or a word, so that no control
            character is in it; it is called once. Of tensors that fit into a
            buffer it is called with True, when all of them were read. Else with False, before: it
            may leave the hash of the source and the checksums of the tensors for later.
        sums: takes the checksum of each tensor.

    Raises:
        UnsupportedByTarget: a dtype that safetensors does not have.
        DestinationError: a tensor has the reserved name `__metadata__`.
        LimitExceeded: the header is larger than the format allows.
    """
    if _METADATA in tensors:
        raise DestinationError("a tensor has the reserved name __metadata__", where=path)
    limits.JSON_VALUES.check(len(tensors) * _VALUES, path, "the number of JSON values")
    placed = _Placed(tensors)
    if placed.size <= BUFFER_BYTES:
        return _write_at_once(path, tensors, placed, metadata, sums)
    file = _Large(path, tensors, placed, metadata(False), sums)
    return Written(check=file.check, seal=file.seal)


def _write_at_once(
    path: Path,
    tensors: Mapping[str, Tensor],
    placed: _Placed,
    metadata: Callable[[bool], Mapping[str, Iterable[Piece]]],
    sums: Sums,
) -> Written:
    data = gathered(tensors, placed.offsets, placed.size, sums)
    texts = {key: [joined(pieces)] for key, pieces in metadata(True).items()}
    header = b"".join([piece for piece in _spelled(texts, placed) if isinstance(piece, bytes)])
    header += _padding(len(header))
    limits.HEADER_BYTES.check(len(header), path, _HEADER)
    whole = _LENGTH.pack(len(header)) + header + data
    with open(path, "wb", 0) as file:
        write_whole(file.fileno(), whole, 0)

    def check() -> None:
        with open(path, "rb", 0) as file:
            _compare(file, whole, path)
            if file.read(1):
                raise differs(path, "it is longer")
        progress.advance(placed.size)

    return Written(check=check, seal=lambda: None)


#: How many entries are a piece.
_ENTRIES = 1024


class _Placed:
    """Where tensors lie, one behind the other, by dtype and then by name.

    In columns, as thousands of layers have tens of thousands. Each field is of the tensors in the
    order of the file, but for `offsets`, which are of them as they are given.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        numbers = {short: number for number, short in enumerate(ORDER)}
        # Thousands of layers have tensors of a few shapes.
        known: dict[tuple[DType, Shape], tuple[int, str, int]] = {}
        kinds = []
        for name, tensor in tensors.items():
            key = tensor.dtype, tensor.shape
            kind = known.get(key)
            if kind is None:
                kind = known[key] = _kind(*key, name, numbers)
            kinds.append(kind)
        names = list(tensors)
        # Texts are in the same order as their bytes in UTF-8.
        order = sorted(range(len(names)), key=names.__getitem__)
        if len({number for number, _, _ in known.values()}) > 1:
            order.sort(key=lambda index: kinds[index][0])
        self.names = [names[index] for index in order]
        #: The number of the dtype in the order, what follows the name in the header, the size.
        self.kinds = [kinds[index] for index in order]
        self.offsets = array("q", bytes(8 * len(names)))
        self.size = 0
        for index, (_, _, size) in zip(order, self.kinds, strict=True):
            self.offsets[index] = self.size
            self.size += size

    def sizes(self) -> Iterator[int]:
        """Yield how many bytes the tensors have."""
        return (size for _, _, size in self.kinds)

    def entries(self) -> Iterator[str]:
        """Yield the JSON text of the tensors' entries in pieces, without the brackets."""
        begin = 0
        for at in range(0, len(self.names), _ENTRIES):
            entries = []
            some = slice(at, at + _ENTRIES)
            for name, (_, text, size) in zip(self.names[some], self.kinds[some], strict=True):
                end = begin + size
                entries.append(f"{encode_basestring(name)}{text}{begin},{end}]}}")
                begin = end
            yield ("," if at else "") + ",".join(entries)


def _kind(
    dtype: DType, shape: Shape, name: str, numbers: Mapping[str, int]
) -> tuple[int, str, int]:
    short = safetensors_name(dtype, name)
    sizes = ",".join(map(str, shape))
    text = f':{{"dtype":"{short}","shape":[{sizes}],"data_offsets":['
    return numbers[short], text, math.prod(shape) * dtype.itemsize


class _Large:
    """A file that is written in pieces, none of which is kept.

    Args: as of `write`; `placed`: where its tensors lie; `texts`: the metadata.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        placed: _Placed,
        texts: Mapping[str, Iterable[Piece]],
        sums: Sums,
    ) -> None:
        self._path, self._placed, self._sums = path, placed, sums
        #: Where the parts of the header begin that are known later, and where they end.
        self._later: list[tuple[int, int, Later]] = []
        #: Where the others begin, their lengths, and their checksums.
        self._parts: list[tuple[int, int, int]] = []
        with open(path, "wb") as file:
            self._at = file.write(_LENGTH.pack(0))
            for piece in _spelled(texts, placed):
                if isinstance(piece, bytes):
                    self._write(file, piece)
                else:
                    begin = self._at
                    self._at += sum([file.write(_escaped(text)) for text in piece(False)])
                    self._later.append((begin, self._at, piece))
            self._write(file, _padding(self._at))
            limits.HEADER_BYTES.check(self._at - _LENGTH.size, path, _HEADER)
            file.truncate(self._at + placed.size)
            file.flush()
            offsets = (self._at + offset for offset in placed.offsets)
            pour_into(file.fileno(), tensors, offsets, sums)
            length = _LENGTH.pack(self._at - _LENGTH.size)
            write_whole(file.fileno(), length, 0)
        self._parts.insert(0, (0, len(length), crc32c(length)))

    def _write(self, file: IO[bytes], piece: bytes) -> None:
        self._parts.append((self._at, len(piece), crc32c(piece)))
        self._at += file.write(piece)

    def check(self) -> None:
        """Compare the tensors in the file with what was written.

        Raises:
            DestinationError: they differ.
        """
        placed, source = self._placed, SourceFile(self._path)
        if source.size != self._at + placed.size:
            raise differs(self._path, f"it has {source.size:,} bytes")
        stored = sums_in(source, self._at, placed.sizes())
        written = self._sums.passed(placed.names)
        for name, crc, expected in zip(placed.names, stored, written, strict=True):
            if crc != expected:
                raise differs(self._path, name)

    def seal(self) -> None:
        """Write the parts of the header that are known now, and compare all of it.

        Raises:
            DestinationError: it is not as it was written.
        """
        with open(self._path, "rb+", 0) as file:
            for begin, end, later in self._later:
                at = begin
                for data in map(_escaped, later(True)):
                    write_whole(file.fileno(), data, at)
                    file.seek(at)
                    _compare(file, data, self._path)
                    at += len(data)
                if at != end:
                    raise AssertionError("the metadata changed its length")
            for begin, length, crc in self._parts:
                file.seek(begin)
                if crc32c(file.read(length)) != crc:
                    raise differs(self._path, "the header")


def _compare(file: IO[bytes], piece: bytes, path: Path) -> None:
    """Raise unless these bytes are where an open file stands."""
    if file.read(len(piece)) != piece:
        raise differs(path, "the header")


def _padding(size: int) -> bytes:
    """Return what brings a header to a multiple of the alignment."""
    return b" " * (-size % _ALIGNMENT)


#: How many characters of a text are escaped at once: those of thousands of layers are large.
_PIECE = 1 << 20


def _spelled(texts: Mapping[str, Iterable[Piece]], placed: _Placed) -> Iterator[bytes | Later]:
    """Yield the header, without its length, in pieces of up to a megabyte, and the parts of its
    metadata that are known later."""
    start = _FIRST
    for key in sorted(texts):
        yield f'{start}{encode_basestring(key)}:"'.encode()
        for piece in texts[key]:
            if isinstance(piece, str):
                for at in range(0, len(piece), _PIECE):
                    yield _escaped(piece[at : at + _PIECE])
            else:
                yield piece
        start = '",'
    yield b"{" if not texts else b'"},' if placed.names else b'"}'
    for text in placed.entries():
        yield text.encode()
    yield b"}"


def _escaped(text: str) -> bytes:
    """Return a text as it stands between the quotes of a JSON text.

    It is JSON text itself, or a word, and so without control characters.
    """
    return text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"')


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

