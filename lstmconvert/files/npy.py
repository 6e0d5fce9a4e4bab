"""`.npy` members: NumPy's array format, read by ourselves, in place.

    \\x93NUMPY, version (2 bytes), header length (2 bytes in version 1, else 4), header, data

The header is the text of a Python dict with the keys `descr`, `fortran_order` and `shape`
(numpy/lib/format.py, which evaluates it). Here one closed grammar reads it, sizes are checked
against the bytes that are there before anything is allocated, and the data is read when touched.
Objects, records and strings are refused: they are not numbers, and objects are a pickle.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files.opening import Window
from lstmconvert.tensors.dtypes import Array, DType
from lstmconvert.tensors.tensor import FileTensor, Shape, SourceFile, Tensor

MAGIC = b"\x93NUMPY"
OBJECT = "|O"

#: Version -> (bytes of the header's length, the header's encoding): numpy/lib/format.py.
_VERSIONS = {(1, 0): (2, "latin-1"), (2, 0): (4, "latin-1"), (3, 0): (4, "utf-8")}

#: NumPy's one-letter kinds and the sizes that mean the same on every machine (no float128).
_KINDS = {"b": {1}, "i": {1, 2, 4, 8}, "u": {1, 2, 4, 8}, "f": {2, 4, 8}, "c": {8, 16}}
_DESCR = re.compile(r"([<>|])([biufc])([0-9]{1,2})")
#: The other kinds by their letters, to refuse them by name.
_FOREIGN = {
    "O": "Python objects",
    "S": "byte strings",
    "a": "byte strings",
    "U": "text",
    "V": "raw bytes",
    "M": "dates",
    "m": "time spans",
}

_VALUE = r"'(?P<text>[^'\\]*)'|(?P<flag>True|False)|\((?P<shape>[^()]*)\)"
_ENTRY = re.compile(rf"\s*'(?P<key>descr|fortran_order|shape)'\s*:\s*(?:{_VALUE})\s*(?:,|$)")
#: NumPy on Python 2 wrote a large number with an L.
_SHAPE = re.compile(r" *|(?: *[0-9]{1,19}L? *,)+ *(?:[0-9]{1,19}L? *)?")


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a `.npy` header says, and at which byte of its window the data begins."""

    descr: str
    fortran: bool
    shape: Shape
    data: int


def read_tensor(window: Window, where: object) -> Tensor:
    """Return the array of a `.npy` file, little-endian, read when touched.

    Args:
        window: the member, or a whole `.npy` file.
        where: its name, for errors.

    Raises:
        CorruptFile: the header is not NumPy's, the data is shorter or longer than it says, or the
            elements are not numbers.
        LimitExceeded: the header, the rank or the size is above a limit.
    """
    header = read_header(window, where)
    dtype = number_dtype(header.descr, where)
    data = Window(window.source, window.offset + header.data, window.size - header.data)
    return tensor_at(data, dtype, header.shape, header.fortran, where)


def read_header(window: Window, where: object) -> NpyHeader:
    """Parse the header of a `.npy` file.

    Raises:
        CorruptFile: it is not what NumPy writes.
        LimitExceeded: it is longer than the limit.
    """
    start = window.source.peek(window.offset, min(window.size, len(MAGIC) + 6))
    if not start.startswith(MAGIC):
        raise _error("no .npy array", where, repr(start[: len(MAGIC)]), "NumPy's signature")
    version = tuple(start[len(MAGIC) : len(MAGIC) + 2])
    if version not in _VERSIONS:
        raise _error(
            "an unknown version of .npy", where, ".".join(map(str, version)), "1.0, 2.0 or 3.0"
        )
    width, encoding = _VERSIONS[version]
    begin = len(MAGIC) + 2 + width
    length = int.from_bytes(start[begin - width : begin], "little")
    limits.NPY_HEADER_BYTES.check(length, where, "the .npy header's length")
    if begin + length > window.size:
        raise _error(
            "the .npy header is truncated", where, f"{window.size} bytes", f"{begin + length}"
        )
    try:
        text = window.source.peek(window.offset + begin, length).decode(encoding)
    except UnicodeDecodeError:
        raise _error("the .npy header is not text", where) from None
    return _parse(text, begin + length, where)


def _parse(text: str, data: int, where: object) -> NpyHeader:
    body = text.strip()
    if not (body.startswith("{") and body.endswith("}")):
        raise _error("the .npy header is not a dict", where, repr(body[:80]))
    body, position = body[1:-1].rstrip(), 0
    entries: dict[str, str | bool | Shape] = {}
    while position < len(body):
        entry = _ENTRY.match(body, position)
        if entry is None or entry["key"] in entries:
            raise _error(
                "a .npy header that NumPy does not write", where, repr(body[position:][:80])
            )
        entries[entry["key"]] = _value(entry, where)
        position = entry.end()
    match entries:
        case {"descr": str(descr), "fortran_order": bool(fortran), "shape": tuple(shape)}:
            return NpyHeader(descr, fortran, shape, data)
    raise _error(
        "a .npy header lacks an entry", where, ", ".join(entries) or "none", "descr, shape, order"
    )


def _value(entry: re.Match[str], where: object) -> str | bool | Shape:
    if entry["text"] is not None:
        return entry["text"]
    if entry["flag"] is not None:
        return entry["flag"] == "True"
    if not _SHAPE.fullmatch(entry["shape"]):
        raise _error("the shape of a .npy header is not a tuple", where, repr(entry["shape"][:80]))
    sizes = (size.strip().removesuffix("L") for size in entry["shape"].split(","))
    return tuple(int(size) for size in sizes if size)


def number_dtype(descr: str, where: object) -> DType:
    """Return the dtype that NumPy's `descr` means: `<f4`, `>i8`, `|b1`.

    Raises:
        NotAModel: it names texts, objects or dates.
        CorruptFile: it names no number that has one size on every machine.
    """
    parts = _DESCR.fullmatch(descr)
    if parts is None or int(parts[3]) not in _KINDS[parts[2]]:
        stated, kind = repr(descr[:40]), _FOREIGN.get(descr.lstrip("<>|=")[:1])
        if kind is None:
            raise _error("an array of an unknown type", where, stated, "plain numbers")
        raise NotAModel(f"an array of {kind}", where=where, found=stated, expected="plain numbers")
    if parts[1] == "|" and parts[3] != "1":
        raise _error("an array whose byte order is not said", where, repr(descr), "< or >")
    return np.dtype("?" if parts[2] == "b" else f"{parts[1]}{parts[2]}{parts[3]}")


def tensor_at(data: Window, dtype: DType, shape: Shape, fortran: bool, where: object) -> Tensor:
    """Return the elements that fill a window exactly, in C or in Fortran order.

    Raises:
        CorruptFile: the window is smaller or larger than shape and dtype say.
        LimitExceeded: too many axes, or too many bytes.
    """
    limits.RANK.check(len(shape), where, "the number of axes")
    declared = math.prod(shape) * dtype.itemsize
    limits.TENSOR_BYTES.check(declared, where, "the tensor's bytes")
    if declared != data.size:
        raise _error(
            "the array's data is not as long as its shape says",
            where,
            f"{data.size:,} bytes",
            f"{declared:,} for shape {shape}",
        )
    if fortran and len(shape) > 1 and declared:
        return FortranTensor(data.source, data.offset, shape, dtype)
    return FileTensor(data.source, data.offset, shape, dtype)


class FortranTensor(Tensor):
    """Elements that are in Fortran order, the first axis fastest, at an offset of a file."""

    def __init__(self, source: SourceFile, offset: int, shape: Shape, dtype: DType) -> None:
        self.shape = shape
        # A column of the matrix view is contiguous in the file, its own axes in Fortran order.
        self._stored = FileTensor(source, offset, (math.prod(shape), 1), dtype)
        self.dtype = self._stored.dtype

    def rows(self, start: int, stop: int) -> Array:
        height, width = self.matrix_shape
        values = np.empty((stop - start, width), self.dtype)
        for column in range(width):
            values[:, column] = self._column(column * height, start, stop)
        return values

    def _column(self, offset: int, start: int, stop: int) -> Array:
        if len(self.shape) == 2:
            return self._stored.rows(offset + start, offset + stop)[:, 0]
        whole = self._stored.rows(offset, offset + self.matrix_shape[0])
        return whole.reshape(self.shape[:-1], order="F").reshape(-1)[start:stop]


def _error(
    message: str, where: object, found: str | None = None, expected: str | None = None
) -> CorruptFile:
    return CorruptFile(message, where=where, found=found, expected=expected)
