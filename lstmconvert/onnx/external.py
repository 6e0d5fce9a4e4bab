"""Tensors whose numbers lie in a file beside the model: see `neighbours` for where that may be."""

from __future__ import annotations

from collections.abc import Sequence

from lstmconvert.errors import CorruptFile
from lstmconvert.neighbours import Neighbours
from lstmconvert.tensors import SourceFile

#: The keys of onnx.proto's `external_data`; what else a writer put there is not read.
_LOCATION, _OFFSET, _LENGTH = "location", "offset", "length"
_DIGITS = 19


def place(
    beside: Neighbours, entries: Sequence[tuple[str, str]], where: str
) -> tuple[SourceFile, int, int]:
    """Return the file, offset and length that a tensor's entries name.

    Raises:
        CorruptFile: the entries are not those of a tensor, or lead out of the folder.
        SourceError: there is no such file, or it cannot be opened.
    """
    texts = dict(entries)
    if len(texts) != len(entries) or _LOCATION not in texts:
        raise CorruptFile("external data without one location", where=where)
    source = beside.file(texts[_LOCATION], where)
    offset = _number(texts.get(_OFFSET, "0"), where)
    length = _number(texts[_LENGTH], where) if _LENGTH in texts else source.size - offset
    if offset + length > source.size or length < 0:
        raise CorruptFile(
            "external data behind the end of its file",
            where=where,
            found=f"{offset:,} + {length:,}",
            expected=f"at most {source.size:,}",
        )
    return source, offset, length


def _number(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise CorruptFile("external data at no valid place", where=where, found=text[:40])
    return int(text)
