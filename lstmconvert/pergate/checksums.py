"""The checksums in our metadata: one of each tensor, and a seal over their descriptions.

    "checksums": {"lstm.forget_gate.kernel": "1f0a33c2", …}
    "seal": "90d47c01"

Each is a CRC-32C in eight hexadecimal digits. A tensor's is that of its elements in C order,
little-endian, as they lie in the file. The seal is that of the metadata object's own text, with
zeros for the seal, followed by the canonical JSON list of `[name, dtype, shape]` of every tensor,
sorted by name. So a changed bit is found wherever it is: in a number, in an option, or in the
header that says how a number is to be read.

A file of format version 2 has both. One of version 1 has neither: it was written before there were
any, or is in a container or a layout that has none.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from json.encoder import encode_basestring
from pathlib import Path

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Later, Piece, in_pieces, parse_object
from lstmconvert.limits import MIB
from lstmconvert.tensors.checksums import crc32c, followed
from lstmconvert.tensors.dtypes import DType, name_of
from lstmconvert.tensors.streaming import Sums
from lstmconvert.tensors.tensor import Shape, Tensor, verified

#: The version without checksums, and the one with them.
WITHOUT, WITH = 1, 2
CHECKSUMS, SEAL = "checksums", "seal"
_DIGITS = re.compile("[0-9a-f]{8}")
_NO_SEAL = "0" * 8
_HINT = (
    "the file is damaged, or another program changed it: copy or download it again, or see "
    "lstmconvert guide integrity"
)


class Sealing:
    """Puts the checksums of a file's tensors into its metadata, which may be made before them.

    Args:
        tensors: the tensors of the file.
        sums: their checksums, as far as they are written.
    """

    def __init__(self, tensors: Mapping[str, Tensor], sums: Sums) -> None:
        self._tensors, self._sums = tensors, sums
        self._names = sorted(tensors)

    def sealed(
        self, values: Mapping[str, Iterable[Piece]], *, is_known: bool
    ) -> Iterator[Piece]:
        """Yield the text with the checksums.

        Args:
            values: the metadata object of `in_pieces`, without them.
            is_known: whether the tensors are written: else the checksums are a part that is known
                later. The seal over all is one always.
        """
        #: What is sealed, in order: the CRC and the length of a part, or what is known later.
        parts: list[tuple[int, int] | _LatePart] = []

        def checksums(is_known: bool) -> Iterator[str]:
            return self._checksums() if is_known else self._stand_in()

        def seal(is_known: bool) -> Iterator[str]:
            yield f'"{self._seal(parts) if is_known else 0:08x}"'

        texts = {
            **values,
            "version": [str(WITH)],
            CHECKSUMS: self._checksums() if is_known else [checksums],
            SEAL: [seal],
        }
        part = 0, 0
        for piece in in_pieces(texts):
            if isinstance(piece, str):
                part = _summed([piece], *part)
                yield piece
            elif piece is seal:
                part = _summed([f'"{_NO_SEAL}"'], *part)
                yield piece
            else:
                later = _LatePart(piece)
                parts += [part, later]
                part = 0, 0
                yield later
        parts.append(part)

    def _checksums(self) -> Iterator[str]:
        """Yield the object of checksums in pieces."""

        def entries(names: Sequence[str]) -> list[str]:
            crcs = self._sums.passed(names)
            digits = struct.pack(f">{len(crcs)}I", *crcs).hex(" ", 4).split()
            return [
                f'{encode_basestring(name)}:"{eight}"'
                for name, eight in zip(names, digits, strict=True)
            ]

        return _listed("{", self._names, entries, "}")

    def _stand_in(self) -> Iterator[str]:
        """Yield as many of each character that JSON escapes as are in the object, and of others."""
        yield encode_basestring("".join(self._names))[1:-1]
        yield ",".join([f'"":"{_NO_SEAL}"'] * len(self._names)) + "{}"

    def _seal(self, parts: Iterable[tuple[int, int] | _LatePart]) -> int:
        """Return the CRC of a metadata text, with zeros for the seal, and of the tensors' heads."""
        crc = 0
        for part in parts:
            crc = followed(crc, *(part.summed() if isinstance(part, _LatePart) else part))
        return _summed(_heads(self._names, self._tensors), crc)[0]


class _LatePart:
    """A part of a text that is known later, and its CRC and length, which making it gives.

    Args:
        make: makes it.
    """

    def __init__(self, make: Later) -> None:
        self._make = make
        self._summed: tuple[int, int] | None = None

    def __call__(self, is_known: bool) -> Iterator[str]:
        summed = 0, 0
        for text in self._make(is_known):
            summed = _summed([text], *summed)
            yield text
        self._summed = summed if is_known else None

    def summed(self) -> tuple[int, int]:
        """Return its CRC and length; it is made now if it was not yet."""
        return self._summed or _summed(self._make(True))


def _summed(texts: Iterable[str], crc: int = 0, size: int = 0) -> tuple[int, int]:
    """Return the CRC of texts, one behind the other, and how many bytes they have: both continued
    from those of what is before them."""
    for text in texts:
        data = text.encode()
        crc = crc32c(data, crc)
        size += len(data)
    return crc, size


def _listed(
    begin: str, names: Sequence[str], items: Callable[[Sequence[str]], list[str]], end: str
) -> Iterator[str]:
    """Yield the text of a JSON list or object in pieces.

    Args:
        begin, end: its brackets.
        names: of what is in it.
        items: returns the texts of some.
    """
    for at in range(0, len(names), _ITEMS):
        yield ("," if at else begin) + ",".join(items(names[at : at + _ITEMS]))
    yield end if names else begin + end


#: How many items are a piece.
_ITEMS = 1024


def _heads(names: Sequence[str], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the canonical JSON list of `[name, dtype, shape]` of every tensor, in pieces.

    Args:
        names: sorted.
        tensors: those of the names.
    """
    ends: dict[tuple[DType, Shape], str] = {}  # thousands of layers have a few

    def heads(names: Sequence[str]) -> list[str]:
        result = []
        for name in names:
            tensor = tensors[name]
            kind = tensor.dtype, tensor.shape
            end = ends.get(kind)
            if end is None:
                shape = ",".join(map(str, tensor.shape))
                end = ends[kind] = f'"{name_of(tensor.dtype)}",[{shape}]]'
            result.append(f"[{encode_basestring(name)},{end}")
        return result

    return _listed("[", names, heads, "]")


class Described:
    """A metadata text, parsed, and the checksums that it holds.

    Args:
        text: the metadata text of a file.
        path: the file.
        place: the text's name in the file, for errors.

    Raises:
        CorruptFile: it is not a JSON object, of no known version, or without what its version has.
    """

    def __init__(self, text: str, path: Path, place: str) -> None:
        self._text, self._path, self._where = text, path, f"{path}: {place}"
        self.value = parse_object(text, self._where)
        version = self.value.get("version")
        if type(version) is not int or version not in (WITHOUT, WITH):
            raise CorruptFile(
                "not a per-gate file: format version",
                where=path,
                found=str(version)[:40],
                expected=f"{WITHOUT} or {WITH}",
            )
        if (version == WITH) != (CHECKSUMS in self.value) or (
            (CHECKSUMS in self.value) != (SEAL in self.value)
        ):
            raise self._damaged(f"version {version} with, or without, {CHECKSUMS} and {SEAL}")
        #: Name -> CRC-32C of the tensors; None if the file keeps no checksums.
        self.checksums = self._read() if version == WITH else None

    def _read(self) -> dict[str, int]:
        checksums, seal = self.value[CHECKSUMS], self.value[SEAL]
        texts = [*checksums.values(), seal] if isinstance(checksums, dict) else [None]
        if not all(isinstance(text, str) and _DIGITS.fullmatch(text) for text in texts):
            raise self._damaged("a checksum that is not eight hexadecimal digits")
        return {name: int(text, 16) for name, text in checksums.items()}

    def check_seal(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise `CorruptFile` unless the text is as it was written, and the tensors' names, dtypes
        and shapes are.

        Args:
            tensors: those that have a checksum.
        """
        if self.checksums is None:
            return
        text, begins = self._text, f'"{SEAL}":"'
        at = text.rfind(f'{begins}{self.value[SEAL]}"') + len(begins)
        end = at + len(_NO_SEAL)
        # Not as two texts: of thousands of layers they would be as many megabytes again.
        before = (text[start : min(start + MIB, at)] for start in range(0, at, MIB))
        after = (text[start : start + MIB] for start in range(end, len(text), MIB))
        crc, _ = _summed(chain(before, [_NO_SEAL], after, _heads(sorted(tensors), tensors)))
        if at < len(begins) or crc != int(self.value[SEAL], 16):
            raise self._damaged("the seal over the metadata and the tensors' shapes is wrong")

    def verified(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the tensors of the file, each with its checksum.

        Raises:
            CorruptFile: a tensor has no checksum, or a checksum no tensor; the seal is wrong.
        """
        if self.checksums is None:
            return tensors
        if lost := sorted(self.checksums.keys() ^ tensors.keys()):
            raise self._damaged("a tensor without a checksum, or the reverse", lost[0])
        self.check_seal(tensors)
        return {name: self.with_checksum(tensor, name) for name, tensor in tensors.items()}

    def with_checksum(self, tensor: Tensor, name: str) -> Tensor:
        """Return a tensor of the file with its checksum, if it has one."""
        if self.checksums is None or name not in self.checksums:
            return tensor
        return verified(tensor, self.checksums[name], name, self._path, _HINT)

    def _damaged(self, message: str, found: str | None = None) -> CorruptFile:
        return CorruptFile(message, where=self._where, found=found and found[:80], hint=_HINT)
