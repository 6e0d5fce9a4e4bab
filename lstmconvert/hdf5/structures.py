"""The structures that an HDF5 file is made of: headers of objects, their messages, heaps, trees.

Names and numbers in comments are those of "HDF5 File Format Specification Version 3.0". Everything
here is read from the file by ourselves: the HDF5 library believes what a file says, and a damaged
file keeps it busy for ever, or ends the process.

Three rules keep a hostile file from taking time or memory. No structure is read twice in a walk.
All the bytes that are asked for are together not many more than the file has. A checksum, where the
file has one, is compared before anything else in its structure is used.
"""

from __future__ import annotations

import bisect
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import DAMAGED, CorruptFile
from lstmconvert.files.opening import Window
from lstmconvert.tensors.dtypes import DType
from lstmconvert.tensors.tensor import Shape

SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: An address that is not there, and a size that has no bound: all bits are set.
UNDEFINED = (1 << 64) - 1

PAIR, WORD = struct.Struct("<QQ"), struct.Struct("<Q")
_SUM = struct.Struct("<I")

#: The latest blocks of the file are kept: groups and their headers are near each other. A block
#: has the beginning of the next, too, so that hardly any structure is in two.
_BLOCK_BITS, _BLOCKS, _TAIL = 16, 16, 4096
_BLOCK = 1 << _BLOCK_BITS
#: So many groups beside each other, in a group or in a stretch of a file, are worth a comparison.
MANY = 32
#: All stretches of a file (`Blocks.stretch`) together are no longer than it is, times this.
_STRETCHES = 4
#: A tree with this number of levels has more leaves than a file has bytes.
_DEEPEST = 12

_SHARED_PLACE = "its structures or texts share one place"
_UNREAD = "rewrite the file: `h5repack -l CONTI -f NONE IN.h5 OUT.h5`, or copy it with h5py"


def signatures(window: Window) -> Iterator[int]:
    """Yield where in a window an HDF5 file may begin: at 0, or behind a user block (II.A)."""
    start = 0
    while start + len(SIGNATURE) <= window.size:
        if window.source.peek(window.offset + start, len(SIGNATURE)) == SIGNATURE:
            yield start
        start = start * 2 or 512


class Blocks:
    """A file's bytes, by address, read in blocks that are kept for a while.

    Fields: `window`, where the file is, without its user block; `size`, where its last address
    is; `described`: the attributes that were read, by the bytes before their values.
    """

    def __init__(self, window: Window) -> None:
        self.window, self.size = window, window.size
        self._largest = limits.ATTRIBUTE_BYTES.value
        self._left = 2 * window.size + _BLOCK
        self._ahead = _STRETCHES * window.size + _BLOCK
        self._kept: dict[int, bytes] = {}
        #: The block that was read from last, where it begins, and how many of its bytes count.
        self._last, self._begin, self._room = b"", 0, 0
        self._visited: set[int] = set()
        self.described: dict[bytes, _Described] = {}
        #: The largest heap of names that is taken together with its head.
        self.nearest = LARGEST_KEPT

    def at(self, address: int, length: int) -> bytes:
        """Return the bytes at an address.

        Raises:
            CorruptFile: the file ends before, or the same bytes are asked for again and again.
            LimitExceeded: one structure has more bytes than an attribute may have.
        """
        data, begin = self.find(address, length)
        self.spend(length)
        return data[begin : begin + length]

    def find(self, address: int, length: int) -> tuple[bytes, int]:
        """Return bytes of the file, and where among them those at an address begin.

        Behind them are so many that a structure of `_TAIL` bytes is whole, or all to the file's
        end. Who asks for bytes counts them (`spend`).

        Raises:
            CorruptFile: the file ends before.
            LimitExceeded: one structure has more bytes than an attribute may have.
        """
        begin = address - self._begin
        if 0 <= begin < _BLOCK and begin + length <= self._room:  # as nearly always
            return self._last, begin
        if address + length > self.size:
            raise self.damaged("a structure is past the end of the file")
        number, begin = address >> _BLOCK_BITS, address & _BLOCK - 1
        if begin + length <= _BLOCK + _TAIL:
            kept = self._kept
            self._last = kept[number] if number in kept else self._block(number)
            self._begin = address - begin
            self._room = min(len(self._last), self.size - self._begin)
            return self._last, begin
        if length > self._largest:
            where, what = self.window.source.path, "an HDF5 structure's size"
            limits.ATTRIBUTE_BYTES.check(length, where, what)
        return self.window.source.peek(self.window.offset + address, length), 0

    def lonely(self, address: int, length: int) -> tuple[bytes, int]:
        """Do what `find` does for a structure that is far from those before and behind it: what is
        around it is not read."""
        if address >> _BLOCK_BITS in self._kept or address + length > self.size:
            return self.find(address, length)
        return self.window.source.peek(self.window.offset + address, length), 0

    def _block(self, number: int) -> bytes:
        if len(self._kept) == _BLOCKS:
            del self._kept[next(iter(self._kept))]
        begin = number * _BLOCK
        length = min(_BLOCK + _TAIL, self.window.size - begin)
        block = self.window.source.peek(self.window.offset + begin, length)
        self._kept[number] = block
        return block

    def stretch(self, address: int, length: int) -> bytes | None:
        """Return a long part of the file, to compare what is in it with what was read; None where
        that was done so often that whoever asks again follows a file that was made for it.

        The bytes that count are counted where they turn out to be alike (`visit`).
        """
        self._ahead -= length
        if self._ahead < 0:
            return None
        return self.window.source.peek(self.window.offset + address, length)

    def end_at(self, size: int) -> None:
        """Let nothing be read from the address `size` on."""
        self.size, self._room = size, min(self._room, size - self._begin)

    def signed(self, address: int, length: int, signature: bytes, version: int = 0) -> bytes:
        """Return a structure that begins with a signature and a version, without its checksum.

        Args:
            length: of the structure, the checksum at its end included.
        """
        data = self.at(address, length)
        if not data.startswith(signature) or data[len(signature)] != version:
            raise self.damaged(f"no {signature.decode()} where one should be")
        return self.verified(data, signature)

    def verified(self, data: bytes, signature: bytes) -> bytes:
        """Return bytes without the checksum at their end.

        Raises:
            CorruptFile: it is not theirs.
        """
        body, (stored,) = data[: -_SUM.size], _SUM.unpack(data[-_SUM.size :])
        if checksum(body) != stored:
            raise self.damaged(f"the checksum of a structure is wrong ({signature.decode()})")
        return body

    def check_attribute(self, size: int) -> None:
        """Raise `LimitExceeded` if an attribute is larger than allowed."""
        if size > self._largest:  # as rarely, and limits take time to look up
            limits.ATTRIBUTE_BYTES.check(size, self.window.source.path, "an attribute's size")

    def spend(self, length: int) -> None:
        """Count bytes that were asked for.

        Raises:
            CorruptFile: they are twice what the file holds. Whoever asks for the same bytes again
                and again follows a file that was made for it.
        """
        self._left -= length
        if self._left < 0:
            raise self.damaged(_SHARED_PLACE)

    def take(self, address: int, length: int) -> None:  # noqa: ARG002  # `Recorded` keeps it
        """Count bytes that begin where `find` has looked, and may be more than it was asked for."""
        self.spend(length)

    def visit(self, *addresses: int, length: int = 0) -> None:
        """Note that nodes are read, and count their bytes.

        Raises:
            CorruptFile: one was read before, or as `spend`.
        """
        self._left -= length
        if self._left < 0:
            raise self.damaged(_SHARED_PLACE)
        count = len(self._visited) + len(addresses)
        self._visited.update(addresses)
        if len(self._visited) != count:
            raise self.damaged("a tree or a heap that is in two places, or holds itself")

    def damaged(self, reason: str) -> CorruptFile:
        """Return the error of a file that no reader can make sense of."""
        return self._error(reason, DAMAGED)

    def unread(self, what: str) -> CorruptFile:
        """Return the error of a file that uses a rare part of HDF5, which is not read here."""
        return self._error(f"it has {what}, which Keras never writes", _UNREAD)

    def _error(self, reason: str, hint: str) -> CorruptFile:
        path = self.window.source.path
        return CorruptFile(f"not a readable HDF5 file: {reason}", where=path, hint=hint)

    def truncated(self, end: int) -> CorruptFile:
        """Return the error of a file that should be longer."""
        return CorruptFile(
            "not a readable HDF5 file: the file is truncated",
            where=self.window.source.path,
            found=f"{self.window.size:,} bytes",
            expected=f"{end:,}",
            hint="copy or download it again",
        )


class Recorded(Blocks):
    """Bytes of a file that keep which of them were asked for.

    Fields: `parts`: the address and the length of each read.
    """

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self.parts: list[tuple[int, int]] = []
        self.nearest = -1

    def find(self, address: int, length: int) -> tuple[bytes, int]:
        self.parts.append((address, length))
        return super().find(address, length)

    def lonely(self, address: int, length: int) -> tuple[bytes, int]:
        return self.find(address, length)

    def take(self, address: int, length: int) -> None:
        self.parts.append((address, length))
        super().take(address, length)

    def stretch(self, address: int, length: int) -> None:  # noqa: ARG002  # as `Blocks` has it
        """Return nothing: what is compared in a stretch is not kept."""
        return


# --- the checksum of version 2 --------------------------------------------------------------------

_BITS = 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """Return Bob Jenkins's lookup3 hash, which HDF5 signs its later structures with (H5checksum.c).

    Its arithmetic is modulo 2^32.
    """
    a = b = c = (0xDEADBEEF + len(data)) & _BITS
    whole = (len(data) - 1) // 12 * 12 if data else 0
    for x, y, z in struct.iter_unpack("<III", data[:whole]):
        a, b, c = a + x, b + y, c + z & _BITS
        a = (a - c & _BITS) ^ (c << 4 & _BITS | c >> 28)
        c = c + b & _BITS
        b = (b - a & _BITS) ^ (a << 6 & _BITS | a >> 26)
        a = a + c & _BITS
        c = (c - b & _BITS) ^ (b << 8 & _BITS | b >> 24)
        b = b + a & _BITS
        a = (a - c & _BITS) ^ (c << 16 & _BITS | c >> 16)
        c = c + b & _BITS
        b = (b - a & _BITS) ^ (a << 19 & _BITS | a >> 13)
        a = a + c & _BITS
        c = (c - b & _BITS) ^ (b << 4 & _BITS | b >> 28)
        b = b + a & _BITS
    if not data:
        return c
    x, y, z = struct.unpack("<III", data[whole:].ljust(12, b"\0"))
    a, b, c = a + x & _BITS, b + y & _BITS, c + z & _BITS
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - (b << turn & _BITS | b >> 32 - turn) & _BITS
        a, b, c = b, c, a
    return int(b)


# --- headers of objects (IV.A.1) ------------------------------------------------------------------

HEADER, MESSAGE = struct.Struct("<BxHIIxxxx"), struct.Struct("<HHB3x")
_LATER_HEADER, _LATER_MESSAGE = struct.Struct("<4sBB"), struct.Struct("<BHB")
_TIMES, _PHASES, _ORDER = 0x20, 0x10, 0x04
#: Flags of a message that say nothing to a reader: it never changes, it is not to be shared.
_HARMLESS = 0x05
#: It is shared by several objects; a writer that does not know it must not write; must mark
#: it; it was marked; a reader that does not know it must not read.
_SHARED, _WRITERS, _MARK, _MARKED, _VITAL = 0x02, 0x08, 0x10, 0x20, 0x80
_CONTINUED, _LAST_KNOWN = 16, 24
#: Kinds of messages.
DATASPACE, LINKS, DATATYPE, LINK, EXTERNAL, LAYOUT, FILTERS = 1, 2, 3, 6, 7, 8, 11
ATTRIBUTE, SHARED_TABLE, SYMBOLS, DRIVER, ATTRIBUTES, CACHE = 12, 15, 17, 20, 21, 24
#: Messages without names or numbers: free space, fill values, a comment, times.
_PASSED_BY = frozenset({0, 4, 5, 13, 14, 18})

#: The kind of a message -> what it says, and where that is in the file.
Parts = dict[int, tuple[bytes, int]]


class _Form(NamedTuple):
    """Where the messages of a piece of a header are: files have thousands of headers of few forms.

    Fields: `unpack_from` takes a piece apart into the head of each message and what it says, in
    turn; `heads`, and their number; which of these parts are `attributes` and `links`; `parts`: of
    each other message that counts, which part it is, its kind, and where it is in the piece;
    `continued`: which of the parts tell where a further piece is.
    """

    unpack_from: Callable[[bytes, int], tuple[bytes, ...]]
    heads: tuple[bytes, ...]
    number: int
    attributes: tuple[int, ...]
    links: tuple[int, ...]
    parts: tuple[tuple[int, int, int], ...]
    continued: tuple[int, ...]


#: The most forms that are kept, and messages of each: a file of Keras has a dozen forms, of ten.
_FORMS, _MOST_KEPT = 64, 32
#: By the length of a piece and its first message. The files of a batch have the same.
_forms: dict[tuple[int, bytes], _Form] = {}


#: The head of the only message in most groups' headers, or in the first piece of them: where their
#: tables are, or where a further piece of the header is.
ONLY_TABLES = MESSAGE.pack(SYMBOLS, PAIR.size, 0)
ONLY_CONTINUED = MESSAGE.pack(_CONTINUED, PAIR.size, 0)


def messages(blocks: Blocks, address: int) -> tuple[Parts, list[bytes], list[bytes]]:
    """Return what the header of the object at an address says about names and numbers: what each
    message of an attribute says, what each of a link says, and before them the others.

    Raises:
        CorruptFile: no header, one that does not fit together, a message that objects share, or
            two of one kind.
    """
    data, at = blocks.find(address, HEADER.size)
    version, count, _, size = HEADER.unpack_from(data, at)
    parts: Parts = {}
    attributes: list[bytes] = []
    links: list[bytes] = []
    if version != 1:
        blocks.spend(HEADER.size)
        if data[at : at + 4] != b"OHDR":
            raise blocks.damaged("no object where one should be")
        for kind, body, place in _later_messages(blocks, address):
            if kind == ATTRIBUTE:
                attributes.append(body)
            elif kind == LINK:
                links.append(body)
            elif kind in parts:
                raise blocks.damaged(_TWICE)
            else:
                parts[kind] = body, place
        return parts, attributes, links
    begin, says = address + HEADER.size, at + HEADER.size + MESSAGE.size
    pieces = [(begin, size)]
    if size == MESSAGE.size + PAIR.size and begin + size <= blocks.size:
        head = data[says - MESSAGE.size : says]
        if head == ONLY_TABLES and count == 1:
            blocks.take(address, HEADER.size + size)
            tables = data[says : says + PAIR.size], begin + MESSAGE.size
            return {SYMBOLS: tables}, attributes, links
        if head == ONLY_CONTINUED and count > 1:
            blocks.take(begin, size)
            pieces, count = [PAIR.unpack_from(data, says)], count - 1
    blocks.spend(HEADER.size)
    values: tuple[bytes, ...] = ()
    for start, length in pieces:
        data, at = blocks.find(start, length)
        blocks.spend(length)
        form = _forms.get((length, data[at : at + 8]))
        if form is not None:
            values = form.unpack_from(data, at)
        if form is None or values[::2] != form.heads:
            form = _form(blocks, data[at : at + length])
            values = form.unpack_from(data, at)
        _, _, number, its_attributes, its_links, its_parts, continued = form
        count -= number
        if count < 0:
            break
        for index, kind, offset in its_parts:
            if kind in parts:
                raise blocks.damaged(_TWICE)
            parts[kind] = values[index], start + offset
        if its_attributes:
            attributes += [values[index] for index in its_attributes]
        if its_links:
            links += [values[index] for index in its_links]
        if continued:
            pieces += [PAIR.unpack(values[index]) for index in continued]
    if count:
        raise blocks.damaged("the header of an object does not fit together")
    return parts, attributes, links


_TWICE = "an object with two messages of one kind"


def _form(blocks: Blocks, data: bytes) -> _Form:
    """Return the form of a piece of a header."""
    heads, sizes, parts = list[bytes](), list[str](), list[tuple[int, int, int]]()
    attributes, links, continued = list[int](), list[int](), list[int]()
    position, length = 0, len(data)
    while position < length:
        kind, size, flags = MESSAGE.unpack_from(data, position)
        heads.append(data[position : position + 8])
        position += 8
        if size % 8 or position + size > length:
            raise blocks.damaged("the header of an object does not fit together")
        if kind != _CONTINUED and flags & ~_HARMLESS:
            _check_flags(blocks, kind, flags)
        index = 2 * len(heads) - 1
        if kind == _CONTINUED:
            continued.append(index)
        elif kind == ATTRIBUTE:
            attributes.append(index)
        elif kind == LINK:
            links.append(index)
        elif kind not in _PASSED_BY:
            parts.append((index, kind, position))
        sizes.append(f"8s{size}s")
        position += size
    unpack_from = struct.Struct("".join(sizes)).unpack_from
    form = _Form(
        unpack_from, tuple(heads), len(heads),
        tuple(attributes), tuple(links), tuple(parts), tuple(continued),
    )  # fmt: skip
    if len(heads) <= _MOST_KEPT:
        if len(_forms) >= _FORMS:
            _forms.clear()
        _forms[length, data[:8]] = form
    return form


def _check_flags(blocks: Blocks, kind: int, flags: int) -> None:
    if flags & _SHARED:
        raise blocks.unread("a named type, or messages that objects share")
    if flags & _MARKED and flags & (_WRITERS | _MARK) != _MARK:
        raise blocks.damaged("a message whose flags contradict each other")
    if flags & _VITAL and kind > _LAST_KNOWN:
        raise blocks.unread("messages of an unknown kind")


def _later_messages(blocks: Blocks, address: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the kind of each message (IV.A.2) of a header of version 2, whose pieces have
    checksums; what it says, and where that is."""
    _, version, flags = _LATER_HEADER.unpack(blocks.at(address, _LATER_HEADER.size))
    begin = _LATER_HEADER.size
    begin += 16 if flags & _TIMES else 0
    begin += 4 if flags & _PHASES else 0
    width = 1 << (flags & 3)
    size = int.from_bytes(blocks.at(address + begin, width), "little")
    begin += width
    pieces = [(address, begin + size + _SUM.size, b"OHDR", begin)]
    gap = 2 if flags & _ORDER else 0
    for start, length, signature, first in pieces:
        if version != 2 or length < first + _SUM.size:
            raise blocks.damaged("the header of an object does not fit together")
        blocks.visit(start)
        data = blocks.at(start, length)
        if not data.startswith(signature):
            raise blocks.damaged("the header of an object does not fit together")
        data, position = blocks.verified(data, signature), first
        while position + _LATER_MESSAGE.size + gap <= len(data):  # the rest is a gap
            kind, size, flags = _LATER_MESSAGE.unpack_from(data, position)
            position += _LATER_MESSAGE.size + gap
            if position + size > len(data):
                raise blocks.damaged("the header of an object does not fit together")
            body = data[position : position + size]
            if kind == _CONTINUED:
                place, length = PAIR.unpack(body)
                pieces.append((place, length, b"OCHK", 4))
            else:
                _check_flags(blocks, kind, flags)
                if kind not in _PASSED_BY:
                    yield kind, body, start + position
            position += size


class ArrayHeader(NamedTuple):
    """How the header of a dataset in one piece is taken apart: thousands differ in nothing but
    where their numbers are.

    Fields: `size`, of the header; `unpack_from` returns all bytes before the numbers' address, that
    address, how many bytes they have, and the heads of the messages behind; `heads`, of these;
    `before`: where the numbers' address is; `places`: where the heads are.
    """

    size: int
    unpack_from: Callable[[bytes, int], tuple[Any, ...]]
    heads: list[bytes]
    before: int
    places: list[int]


#: A dataset's shape, the dtype that is stored, and how many bytes its elements have.
Described = tuple[Shape, DType, int]

#: The most headers of datasets that are kept.
_ARRAYS = 256
#: By the beginning of a header and the head of its first message.
_array_headers: dict[bytes, ArrayHeader] = {}
#: By all that a header says before its numbers' address.
_arrays: dict[bytes, Described] = {}


def array_at(blocks: Blocks, address: int) -> tuple[Described, int, int, ArrayHeader] | None:
    """Return what a header says that is like one that was read before (`learn_array`), the address
    and the bytes of the numbers, and how it is taken apart; None of any other header.

    Who uses it counts its bytes (`Blocks.take`).
    """
    data, at = blocks.find(address, HEADER.size)
    header = _array_headers.get(data[at : at + HEADER.size + MESSAGE.size])
    if header is None or address + header.size > blocks.size:
        return None
    before, place, size, *heads = header.unpack_from(data, at)
    known = _arrays.get(before)
    if known is None or heads != header.heads:
        return None
    return known, place, size, header


def learn_array(blocks: Blocks, address: int, known: Described) -> None:
    """Keep what the header of a dataset says that is stored in one piece, if it is of version 1, in
    one piece itself, and says nothing else that counts."""
    data, begin = blocks.find(address, HEADER.size)
    version, _, _, size = HEADER.unpack_from(data, begin)
    size += HEADER.size
    if version != 1 or size > _TAIL:
        return
    before, heads, fields, position = 0, list[bytes](), "", HEADER.size
    places = list[int]()
    while position < size:
        start = begin + position
        kind, length, _ = MESSAGE.unpack_from(data, start)
        position += MESSAGE.size + length
        if kind not in (*_PASSED_BY, ATTRIBUTE) and (before or kind not in _OF_ARRAYS):
            return
        if before:
            heads.append(data[start : start + MESSAGE.size])
            places.append(start - begin)
            fields += f"{MESSAGE.size}s{length}x"
        elif kind == LAYOUT:  # its version and class, the address, the size, and padding
            before = start - begin + MESSAGE.size + 2
            fields = f"<{before}sQQ{length - 2 - PAIR.size}x"
    if len(_array_headers) >= _FORMS or len(_arrays) >= _ARRAYS:
        _array_headers.clear()
        _arrays.clear()
    unpack_from = struct.Struct(fields).unpack_from
    key = data[begin : begin + HEADER.size + MESSAGE.size]
    _array_headers[key] = ArrayHeader(size, unpack_from, heads, before, places)
    _arrays[data[begin : begin + before]] = known


# --- groups as tables of symbols (III.A.1, III.B to III.D) ----------------------------------------

NODE_HEAD, HEAP_HEAD = struct.Struct("<4sBBHQQ"), struct.Struct("<5s3xQQQ")
TABLE_HEAD, ENTRY = struct.Struct("<5sxH"), struct.Struct("<QQI4x16s")
#: A tree that is one node, with its first key, its only child if it has one, and the last key.
_LEAF, NO_CHILD, ONE_CHILD = struct.Struct("<8s16xQQQ"), b"TREE\0\0\0\0", b"TREE\0\0\1\0"
#: The end of the chain of free places in a heap of names.
_NO_MORE = 1
#: What an entry of a table of symbols says about its object: a group's tables, or a soft link.
PLAIN, GROUP, SOFT = 0, 1, 2


#: A name in a group; the address of the object's header; a kind of entry, which may say that this
#: is a link to elsewhere, or a group, whose tables are where the last says.
Entry = tuple[str, int, int, bytes]
#: The same with a name as it is stored, and with the name's place in the heap of names.
Named = tuple[bytes, int, int, bytes]
_Row = tuple[int, int, int, bytes]


def entries_of(blocks: Blocks, named: list[Named], path: str) -> list[Entry]:
    """Return the entries of a group.

    Args:
        path: of the group, for the error.

    Raises:
        CorruptFile: a name is one that HDF5 cannot write, or two are one text.
    """
    texts = set[str]()
    result = list[Entry]()
    for name, header, kind, tables in named:
        text = as_text(name)
        # Two names of bytes that are not UTF-8 may be one text.
        if name in (b"", b".") or b"/" in name or text in texts:
            where = f"{blocks.window.source.path}: {path or '/'}"
            what = "a name that HDF5 cannot write"
            raise CorruptFile(what, where=where, found=repr(name)[:80])
        texts.add(text)
        result.append((text, header, kind, tables))
    return result


#: The names of groups of one table, by all that tells them: the bytes of their heap, its chain of
#: free places, both keys of the tree, where each name begins, and the kinds of the entries.
#: Thousands of layers have the same. Those of a heap of more bytes are not kept.
_contents: dict[tuple[object, ...], list[str]] = {}
LARGEST_KEPT = 512


class SymbolTable:
    """A group of the first format: names in a heap, and a tree of tables.

    Args:
        leaf, inner: how many entries a table may have, and a node of the tree (superblock).
    """

    def __init__(self, blocks: Blocks, leaf: int, inner: int) -> None:
        self._blocks, self._leaf, self._inner = blocks, leaf, inner
        # A table and a node are read as a whole, whatever of them is used.
        self.table_bytes = TABLE_HEAD.size + leaf * ENTRY.size
        self.node_bytes = NODE_HEAD.size + inner * 2 * WORD.size + WORD.size

    def entries(self, tables: bytes, most: int, path: str) -> Iterable[Entry]:
        """Return what is in a group, sorted by name.

        Args:
            tables: where the group's tree and names are.
            most: no more entries are wanted, and a few more than these at most are returned.
            path: of the group, for the error.
        """
        tree, heap = PAIR.unpack(tables)
        blocks, rows = self._blocks, list[_Row]()
        data, at = blocks.find(heap, HEAP_HEAD.size)
        signature, size, free, start = HEAP_HEAD.unpack_from(data, at)
        if signature != b"HEAP\0":
            raise blocks.damaged("no heap of names where one should be")
        at += HEAP_HEAD.size  # where HDF5 writes them, unless there are many
        if start != heap + HEAP_HEAD.size or size > blocks.nearest or start + size > blocks.size:
            data, at = blocks.find(start, size)
        names, length = data[at : at + size], HEAP_HEAD.size + size
        data, at = blocks.find(tree, self.node_bytes)
        head, low, child, high = _LEAF.unpack_from(data, at)
        key: tuple[object, ...] = ()
        if head == ONE_CHILD and self._inner and (rows := self._rows(child)):
            begins, headers, kinds, places = zip(*rows, strict=True)
            key = names, free, low, high, begins, kinds
        elif head == NO_CHILD:
            key = names, free, low
        known = _contents.get(key)
        if known is None:
            blocks.visit(start, length=length)
            self._check_free(names, free)
            entries = entries_of(blocks, self._sorted(tree, names, most), path)
            if key and size <= LARGEST_KEPT:
                if len(_contents) >= _FORMS:
                    _contents.clear()
                _contents[key] = [name for name, *_ in entries]
            return entries
        length += self.node_bytes
        if not rows:
            blocks.visit(start, tree, length=length)
            return ()
        blocks.visit(start, tree, child, length=length + self.table_bytes)
        return zip(known, headers, kinds, places, strict=True)

    def _sorted(self, tree: int, names: bytes, most: int) -> list[Named]:
        """Return what is in a group, which must be sorted by name."""
        last = b""
        result: list[Named] = []
        self._branch(tree, None, names, result, most)
        for name, *_ in result:
            if name <= last:
                raise self._blocks.damaged("the names of a group are not sorted, or appear twice")
            last = name
        return result

    def _check_free(self, names: bytes, free: int) -> None:
        """Raise `CorruptFile` if the chain of free places in a heap of names has no end."""
        room = size = len(names)
        while free != _NO_MORE:
            following, length = PAIR.unpack_from(names, min(free, size))
            room -= length
            if length < PAIR.size or free + length > size or room < 0:
                raise self._blocks.damaged("a heap of names whose free places have no end")
            free = following

    def _branch(
        self, address: int, level: int | None, names: bytes, result: list[Named], most: int
    ) -> None:
        """Add the entries below a node. Each child's names are between two keys."""
        level, keys = node(self._blocks, address, 0, level, self._inner, WORD.size)
        if (end := names.find(b"\0", keys[0])) < 0:
            raise self._outside()
        low = names[keys[0] : end]
        for child, key in zip(keys[1::2], keys[2::2], strict=True):
            if (end := names.find(b"\0", key)) < 0:
                raise self._outside()
            high, first = names[key:end], len(result)
            if first > most:
                return
            if level:
                self._branch(child, level, names, result, most)
            else:
                self._symbols(child, names, result)
            # Those between are, once all are sorted.
            if len(result) > first and not low < result[first][0] <= result[-1][0] <= high:
                raise self._blocks.damaged("a name in the wrong branch of its group")
            low = high

    def _symbols(self, address: int, names: bytes, result: list[Named]) -> None:
        rows = self._rows(address, is_lonely=True)
        self._blocks.visit(address, length=self.table_bytes)
        try:
            result += [
                (names[name : names.index(b"\0", name)], header, kind, table)
                for name, header, kind, table in rows
            ]
        except ValueError:
            raise self._outside() from None

    def _rows(self, address: int, *, is_lonely: bool = False) -> list[_Row]:
        """Read a table; in a group of thousands, each was written long after the one before."""
        find = self._blocks.lonely if is_lonely else self._blocks.find
        data, at = find(address, self.table_bytes)
        signature, count = TABLE_HEAD.unpack_from(data, at)
        if signature != b"SNOD\1" or count > self._leaf:
            raise self._blocks.damaged("a tree with a branch that is not a node")
        begin = at + TABLE_HEAD.size
        return list(ENTRY.iter_unpack(data[begin : begin + count * ENTRY.size]))

    def _outside(self) -> CorruptFile:
        return self._blocks.damaged("a name is outside its heap")


def node(
    blocks: Blocks, address: int, kind: int, level: int | None, most: int, key: int
) -> tuple[int, list[int]]:
    """Read a node of a tree of version 1 (III.A.1), which no other node may lead to.

    Args:
        kind: 0 for names, 1 for chunks.
        level: of the node above, or None for the root.
        most: how many children a node may have: the library reads a node's room as a whole.
        key: the bytes of a key.

    Returns:
        The node's level, and its keys and children in turn, from the first key to the last, as
        numbers of eight bytes.
    """
    data = blocks.at(address, NODE_HEAD.size + most * (key + WORD.size) + key)
    signature, node_kind, node_level, used, _, _ = NODE_HEAD.unpack_from(data)
    is_next = node_level <= _DEEPEST if level is None else node_level == level - 1
    if signature != b"TREE" or node_kind != kind or not is_next:
        raise blocks.damaged("a tree with a branch that is not a node, or that grows into itself")
    if used > most:
        raise blocks.damaged("a tree with a node that is fuller than it can be")
    blocks.visit(address)
    size = used * (key + WORD.size) + key
    return node_level, list(struct.unpack_from(f"<{size // 8}Q", data, NODE_HEAD.size))


def root_entry(blocks: Blocks, address: int) -> Entry:
    """Return the entry (III.C) of the root group."""
    _, header, kind, table = ENTRY.unpack(blocks.at(address, ENTRY.size))
    return "", header, kind, table


# --- the heaps where texts of any length are (III.E) ----------------------------------------------

_HEAP, _OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")
#: VIII.B: how a text is referred to: its length, its heap's address, its number there.
REFERENCE = struct.Struct("<IQI")


class Texts:
    """The global heaps of a file."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._heaps: dict[int, dict[int, bytes]] = {}

    def text(self, reference: tuple[int, int, int]) -> bytes:
        """Return the text that a length, a heap's address and a number in it refer to."""
        length, address, number = reference
        if not length and not number:
            return b""
        if length > self._blocks.size:
            raise self._blocks.damaged("a text is longer than the file")
        if address not in self._heaps:
            self._heaps[address] = self._objects(address)
        data = self._heaps[address].get(number)
        if data is not None and length > len(data):
            raise self._blocks.damaged("a text is longer than its place")
        if data is None or len(data) != length:
            raise self._blocks.damaged("a text's place is damaged")
        self._blocks.spend(length)
        return data

    def ended(self, reference: tuple[int, int, int]) -> bytes:
        """Return the text that is referred to up to a null character."""
        return self.text(reference).partition(b"\0")[0]

    def _objects(self, address: int) -> dict[int, bytes]:
        signature, version, size = _HEAP.unpack(self._blocks.at(address, _HEAP.size))
        if signature != b"GCOL" or version != 1:
            raise self._blocks.damaged("no heap of texts where one should be")
        data, position = self._blocks.at(address, size), _HEAP.size
        objects: dict[int, bytes] = {}
        while position + _OBJECT.size <= size:
            number, _, length = _OBJECT.unpack_from(data, position)
            if number == 0:  # what is free, to the end
                if length != size - position:
                    raise self._blocks.damaged("a heap of texts whose free place has no end")
                break
            position += _OBJECT.size
            if position + length > size or number in objects:
                raise self._blocks.damaged("a heap of texts that does not fit together")
            objects[number] = data[position : position + length]
            position += -(-length // 8) * 8
        return objects


# --- what later formats keep many names and attributes in: trees of version 2 (III.A.2) -----------

_TREE_2 = struct.Struct("<4sBBIHHBBQHQ")
_NODE_2 = 6  # the signature, the version, the type


def _width(most: int) -> int:
    """Return how many bytes a number up to `most` takes."""
    return max(1, -(-most.bit_length() // 8))


class Records:
    """The records of a tree of version 2, in its order.

    Fields: `kind`, of its records; `size`, of each in bytes; `total`, how many there are.
    """

    def __init__(self, blocks: Blocks, address: int) -> None:
        self._blocks = blocks
        data = blocks.signed(address, _TREE_2.size + _SUM.size, b"BTHD")
        _, _, self.kind, room, self.size, depth, _, _, self._root, self._used, self.total = (
            _TREE_2.unpack(data)
        )
        overhead = _NODE_2 + _SUM.size
        if depth > _DEEPEST or not self.size or room < overhead + self.size:
            raise blocks.damaged("a tree that does not fit together (BTHD)")
        # For each level from the leaves on: how many bytes a child's pointer takes below it.
        most = below = (room - overhead) // self.size
        self._count = _width(most)
        self._depth, self._sums = depth, [0]
        for _ in range(1, depth):
            pointer = WORD.size + self._count + self._sums[-1]
            most = (room - overhead - pointer) // (self.size + pointer)
            below = (most + 1) * below + most
            self._sums.append(_width(below))

    def __iter__(self) -> Iterator[bytes]:
        if self._root == UNDEFINED:
            return
        count = 0
        for record in self._node(self._root, self._depth, self._used):
            count += 1
            yield record
        if count != self.total:
            raise self._blocks.damaged("a tree with more or fewer records than it says (BTHD)")

    def _node(self, address: int, level: int, used: int) -> Iterator[bytes]:
        self._blocks.visit(address)
        sums = self._sums[level - 1] if level else 0
        pointer = WORD.size + self._count + sums if level else 0
        signature = b"BTIN" if level else b"BTLF"
        size = _NODE_2 + used * self.size + (used + 1) * pointer + _SUM.size
        data = self._blocks.signed(address, size, signature)
        if data[5] != self.kind:
            raise self._blocks.damaged("a tree with a branch that is not a node")
        at = _NODE_2 + used * self.size
        for index in range(used + bool(level)):
            if level:
                (child,) = WORD.unpack_from(data, at)
                at += WORD.size
                inside = int.from_bytes(data[at : at + self._count], "little")
                at += self._count + sums
                yield from self._node(child, level - 1, inside)
            if index < used:
                start = _NODE_2 + index * self.size
                yield data[start : start + self.size]


# --- … and the heaps that their records lead to (III.G) -------------------------------------------

_FRACTAL = struct.Struct("<4sBHHBIQQQQQQQQQQQQHQQHHQH")
_MANAGED, _HUGE, _TINY = 0, 1, 2
_HUGE_RECORD = struct.Struct("<QQQ")
_HAS_SUMS = 2


class Heap:
    """A fractal heap: objects of any length, in blocks of growing size.

    Fields: `total`, how many objects there are.
    """

    def __init__(self, blocks: Blocks, address: int) -> None:
        self._blocks, self._address = blocks, address
        data = blocks.signed(address, _FRACTAL.size + _SUM.size, b"FRHP")
        fields = _FRACTAL.unpack(data)
        self._identifier, filters, self._flags, largest = fields[2:6]
        self._huge_tree, self.total = fields[7], fields[13] + fields[15] + fields[17]
        self._columns, self._start, self._direct, bits, _, root, rows = fields[18:25]
        if filters:
            raise blocks.unread("compressed names or attributes")
        powers = (self._columns, self._start, self._direct)
        if any(size.bit_count() != 1 for size in powers) or not 0 < bits <= 64:
            raise blocks.damaged("a heap that does not fit together (FRHP)")
        self._offset = -(-bits // 8)
        # H5HF: as many bytes as the larger of a direct block and a managed object may need.
        self._length = min(_width(self._direct - 1), _width(largest))
        self._starts: list[int] = []
        self._data: list[bytes] = []
        self._huge: dict[int, tuple[int, int]] | None = None
        if root != UNDEFINED:
            self._read(root, rows, 0)

    def object(self, identifier: bytes) -> bytes:
        """Return the object that an identifier from a tree leads to."""
        kind, rest = identifier[0] >> 4 & 3, identifier[1 : self._identifier]
        if identifier[0] >> 6 or len(identifier) < self._identifier:
            raise self._blocks.damaged("an object of a heap that cannot be found")
        if kind == _TINY:
            return self._tiny(identifier[0] & 0xF, rest)
        if kind == _HUGE:
            return self._large(rest)
        start = int.from_bytes(rest[: self._offset], "little")
        length = int.from_bytes(rest[self._offset : self._offset + self._length], "little")
        number = bisect.bisect(self._starts, start) - 1
        begin = start - self._starts[number] if number >= 0 else -1
        if kind != _MANAGED or begin < 0 or begin + length > len(self._data[number]):
            raise self._blocks.damaged("an object of a heap that cannot be found")
        self._blocks.spend(length)
        return self._data[number][begin : begin + length]

    def _tiny(self, length: int, rest: bytes) -> bytes:
        if self._identifier - 1 > 16:  # then the length takes twelve bits
            length, rest = length << 8 | rest[0], rest[1:]
        return rest[: length + 1]

    def _large(self, rest: bytes) -> bytes:
        if self._huge is None:
            self._huge = dict(self._huge_places())
        key = int.from_bytes(rest, "little")
        if len(rest) >= PAIR.size:  # the identifier has room for the place itself
            address, length = PAIR.unpack_from(rest)
        elif key in self._huge:
            address, length = self._huge[key]
        else:
            raise self._blocks.damaged("an object of a heap that cannot be found")
        where = self._blocks.window.source.path
        limits.ATTRIBUTE_BYTES.check(length, where, "an attribute's size")
        return self._blocks.at(address, length)

    def _huge_places(self) -> Iterator[tuple[int, tuple[int, int]]]:
        if self._huge_tree == UNDEFINED:
            return
        records = Records(self._blocks, self._huge_tree)
        if records.kind != 1 or records.size != _HUGE_RECORD.size:
            return  # they are not looked up by number
        for record in records:
            address, length, key = _HUGE_RECORD.unpack(record)
            yield key, (address, length)

    def _read(self, address: int, rows: int, start: int) -> None:
        """Read the blocks below one, in the order of their places in the heap."""
        self._blocks.visit(address)
        head = 5 + WORD.size + self._offset
        if not rows:
            self._direct_block(address, self._start, start)
            return
        if rows > 64:
            raise self._blocks.damaged("a heap that does not fit together (FHIB)")
        size = head + rows * self._columns * WORD.size + _SUM.size
        data = self._blocks.signed(address, size, b"FHIB")
        self._check_head(data, start)
        for index, (child,) in enumerate(WORD.iter_unpack(data[head:])):
            row = index // self._columns
            size = self._start << max(0, row - 1)
            if child != UNDEFINED and size <= self._direct:
                self._blocks.visit(child)
                self._direct_block(child, size, start)
            elif child != UNDEFINED:
                first = self._start * self._columns
                self._read(child, size.bit_length() - first.bit_length() + 1, start)
            start += size

    def _direct_block(self, address: int, size: int, start: int) -> None:
        data = self._blocks.at(address, size)
        at = 5 + WORD.size + self._offset
        if not data.startswith(b"FHDB\0"):
            raise self._blocks.damaged("no FHDB where one should be")
        self._check_head(data, start)
        if self._flags & _HAS_SUMS:
            (stored,) = _SUM.unpack_from(data, at)
            if checksum(data[:at] + bytes(_SUM.size) + data[at + _SUM.size :]) != stored:
                raise self._blocks.damaged("the checksum of a structure is wrong (FHDB)")
        self._starts.append(start)
        self._data.append(data)

    def _check_head(self, data: bytes, start: int) -> None:
        heap, place = data[5:13], data[13 : 13 + self._offset]
        if heap != WORD.pack(self._address) or int.from_bytes(place, "little") != start:
            raise self._blocks.damaged("a block of another heap")


#: What tells a dataset from others, if it is stored in one piece.
_OF_ARRAYS = (DATASPACE, DATATYPE, LAYOUT)

Attribute = tuple[str, str | list[str]]


# --- datatypes (IV.A.2.d) -------------------------------------------------------------------------

#: A datatype's class: the lower half of its first byte; the upper one is its version.
_NUMBERS = (0, 1)
_FIXED_TEXT, _BIT_FIELD, _OPAQUE, _RECORD, _ENUM, _VARIABLE = 3, 4, 5, 6, 8, 9
_VERSIONS = (1, 2, 3, 4, 5)
_NAMES_OF_CLASSES = {
    2: "times", _RECORD: "records", 7: "references", _VARIABLE: "lists", 10: "arrays",
    11: "complex numbers of HDF5 2",
}  # fmt: skip
_SIZE = struct.Struct("<4xI")


class Type(NamedTuple):
    """A dataset's type. `unread`: names the type of its elements if it is not read here."""

    dtype: DType
    is_text: bool = False
    unread: str | None = None


def _number(kind: str, size: int, order: str) -> bytes:
    """Return the message of a number, of version 1, as HDF5 writes it."""
    is_big = order == ">"
    if kind in "iu":
        flags = bytes((is_big | (8 if kind == "i" else 0), 0, 0))
        return b"\x10" + flags + struct.pack("<IHH", size, 0, 8 * size)
    exponent, mantissa = {2: (5, 10), 4: (8, 23), 8: (11, 52)}[size]
    bits, bias = 8 * size, (1 << exponent - 1) - 1
    # The mantissa's first bit is implied; the sign is the first bit of all.
    flags = bytes((0x20 | is_big, bits - 1, 0))
    fields = (size, 0, bits, mantissa, exponent, 0, mantissa, bias)
    return b"\x11" + flags + struct.pack("<IHHBBBBI", *fields)


def _complex(version: int, size: int, order: str) -> bytes:
    """Return the message of a complex number as h5py writes it: a record of `r` and `i`."""
    part = _number("f", size // 2, order)
    result = bytes((version << 4 | _RECORD, 2, 0, 0)) + struct.pack("<I", size)
    for name, offset in ((b"r", 0), (b"i", size // 2)):
        if version == 1:
            result += name.ljust(8, b"\0") + struct.pack("<I28x", offset) + part
        elif version == 2:
            result += name.ljust(8, b"\0") + struct.pack("<I", offset) + part
        else:
            result += name + b"\0" + bytes((offset,)) + part
    return result


@cache
def _known() -> dict[bytes, DType]:
    """Return the messages of the numbers that are read, without the version of single ones."""
    result = {}
    for order in "<>":
        for kind, sizes in (("f", (2, 4, 8)), ("i", (1, 2, 4, 8)), ("u", (1, 2, 4, 8))):
            for size in sizes:
                message = _number(kind, size, order)
                result[bytes((message[0] & 0xF,)) + message[1:]] = np.dtype(f"{order}{kind}{size}")
        for size in (8, 16):
            for version in _VERSIONS:
                result[_complex(version, size, order)] = np.dtype(f"{order}c{size}")
    return result


@cache
def _lengths() -> tuple[int, ...]:
    return tuple(sorted({len(message) for message in _known()}))


@lru_cache(64)  # a file has one or two
def number(data: bytes) -> DType | None:
    """Return the dtype of a number's message, which may be padded; None if it is another type.

    None also for a format of bits that NumPy does not have.
    """
    known = _known()
    single = bytes((data[0] & 0xF,)) + data[1:] if data[0] & 0xF in _NUMBERS else data
    for length in _lengths():
        dtype = known.get(single[:length])
        if dtype is not None:
            return dtype
    return None


def _enumerated(data: bytes) -> DType | None:
    """Return the dtype of an enumeration: h5py writes booleans as one of integers of 8 bits."""
    count, base = data[1] | data[2] << 8, data[8:]
    dtype = number(base)
    if dtype is None or dtype.kind not in "iu":
        return None
    padded = data[0] >> 4 < 3
    names = b"FALSE\0\0\0TRUE\0\0\0\0" if padded else b"FALSE\0TRUE\0"
    is_flag = count == 2 and dtype.itemsize == 1 and base[12:].startswith(names + b"\0\1")
    return np.dtype("?") if is_flag else dtype


def type_of(data: bytes) -> Type | None:
    """Return what a datatype message says; None for numbers of a format that NumPy does not have.

    An opaque type is `V` and its size; so is a type that is not read.
    """
    kind, version = data[0] & 0xF, data[0] >> 4
    (size,) = _SIZE.unpack_from(data)
    if version not in _VERSIONS or not size:
        return None
    dtype = _enumerated(data) if kind == _ENUM else number(data)
    if dtype is not None:
        return Type(dtype) if dtype.itemsize == size else None
    if kind in (*_NUMBERS, _BIT_FIELD, _ENUM):
        return None
    if kind == _FIXED_TEXT:
        return Type(np.dtype(f"S{size}"))
    if kind == _VARIABLE and data[1] & 0xF == 1:
        return Type(np.dtype(object), is_text=True) if size == REFERENCE.size else None
    what = None if kind == _OPAQUE else _NAMES_OF_CLASSES.get(kind, "elements of an unknown type")
    return Type(np.dtype(f"V{size}"), unread=what)


# --- shapes (IV.A.2.b) ----------------------------------------------------------------------------

_SPACE = struct.Struct("<4B")


def space(blocks: Blocks, data: bytes) -> tuple[Shape, Shape] | None:
    """Return a shape and the largest that it may grow to; None for a space of nothing.

    Raises:
        CorruptFile: it is not a shape.
    """
    version, rank, flags, kind = _SPACE.unpack_from(data)
    if version == 2 and kind == 2:
        return None
    start = 8 if version == 1 else 4
    if version not in (1, 2) or start + 8 * rank > len(data):
        raise blocks.damaged("a shape of an unknown form")
    shape = struct.unpack_from(f"<{rank}Q", data, start)
    if not flags & 1:
        return shape, shape
    return shape, struct.unpack_from(f"<{rank}Q", data, start + 8 * rank)


# --- attributes (IV.A.2.m) ------------------------------------------------------------------------

_ATTRIBUTE = struct.Struct("<BBHHH")


class _Described(NamedTuple):
    """What an attribute's message says before its value, which thousands of them have in common.

    Fields: `name`; `shape`; None: a space of nothing; `kind`: of the elements, where they are
    texts: of a fixed length, or `_VARIABLE`; None of others; `size`: of an element; `length`: of
    all of them.
    """

    name: str
    shape: Shape | None
    kind: int | None
    size: int
    length: int


def attributes(blocks: Blocks, texts: Texts, messages: list[bytes]) -> dict[str, str | list[str]]:
    """Return the text attributes among some attribute messages, and those that hold nothing, sorted
    by name."""
    pairs = [_attribute(blocks, texts, data) for data in messages]
    if len(pairs) > 1:
        if len({name for name, _ in pairs}) < len(pairs):
            raise blocks.damaged("an attribute appears twice")
        pairs.sort(key=lambda pair: pair[0])
    return {name: value for name, value in pairs if value is not None}


def _attribute(blocks: Blocks, texts: Texts, data: bytes) -> tuple[str, str | list[str] | None]:
    """Return an attribute's name, and its text or texts; None of other values."""
    end = _value_begins(data[: _ATTRIBUTE.size])
    known = blocks.described.get(data[:end])
    if known is None:
        known = _described(blocks, data)
        if len(blocks.described) < _FORMS and end <= _LONGEST_KEPT:
            blocks.described[data[:end]] = known
    name, shape, kind, size, length = known
    if shape is None:
        return name, None
    blocks.check_attribute(length)
    value = data[end : end + length]
    if length > len(value):
        raise blocks.damaged("an attribute is longer than its place")
    if kind == _VARIABLE:
        items = [texts.ended(each) for each in REFERENCE.iter_unpack(value)]
    elif kind == _FIXED_TEXT:
        items = [value[at : at + size].rstrip(b"\0") for at in range(0, length, size)]
    elif math.prod(shape):
        return name, None  # numbers, references: nothing that Keras reads back
    else:
        items = []
    return name, [as_text(item) for item in items] if shape else as_text(items[0])


def single_text(blocks: Blocks, data: bytes) -> tuple[str, int] | None:
    """Return the name of an attribute that is one text, and where in its message that is referred
    to; None of any other attribute."""
    name, shape, kind, _, length = _described(blocks, data)
    value = _value_begins(data[: _ATTRIBUTE.size])
    is_text = shape == () and kind == _VARIABLE and value + length == len(data)
    return (name, value) if is_text else None


#: The head of an attribute that is kept is no longer.
_LONGEST_KEPT = 1024


@lru_cache(64)
def _value_begins(head: bytes) -> int:
    """Return where the value of an attribute begins in its message, which begins so."""
    parts: tuple[int, ...] = _ATTRIBUTE.unpack(head)
    version, _, name, datatype, extent = parts
    if version == 1:  # each part is padded
        return _ATTRIBUTE.size + (name + 7 & -8) + (datatype + 7 & -8) + (extent + 7 & -8)
    return _ATTRIBUTE.size + (version == 3) + name + datatype + extent


def _described(blocks: Blocks, data: bytes) -> _Described:
    version, flags, *sizes = _ATTRIBUTE.unpack_from(data)
    if version not in (1, 2, 3):
        raise blocks.damaged("an attribute of an unknown form")
    if flags and version > 1:
        raise blocks.unread("a named type")
    position = _ATTRIBUTE.size + (version == 3)
    parts = []
    for size in sizes:
        if position + size > len(data):
            raise blocks.damaged("an attribute is longer than its place")
        parts.append(data[position : position + size])
        position += -(-size // 8) * 8 if version == 1 else size
    name, datatype, extent = parts
    if not name.endswith(b"\0") or b"\0" in name[:-1] or len(datatype) < 8:
        raise blocks.damaged("an attribute without a name or a type")
    shapes = space(blocks, extent)
    (size,) = _SIZE.unpack_from(datatype)
    kind = datatype[0] & 0xF
    is_text = kind == _FIXED_TEXT and size > 0
    is_text |= kind == _VARIABLE and size == REFERENCE.size and datatype[1] & 0xF == 1
    shape = None if shapes is None else shapes[0]
    length = 0 if shape is None else size * math.prod(shape)
    return _Described(as_text(name[:-1]), shape, kind if is_text else None, size, length)


def as_text(name: bytes) -> str:
    """Decode a name; a byte that is not part of UTF-8 becomes `\\x` and its number."""
    return name.decode("utf-8", "backslashreplace")


# --- filters (IV.A.2.l) ---------------------------------------------------------------------------

_FILTER, _PLUG_IN = struct.Struct("<HH"), 256


def filters(blocks: Blocks, data: bytes) -> list[tuple[int, int]]:
    """Return the filters of a dataset, in the order in which they were applied.

    Each is its number, and its first parameter or 0.
    """
    version, count = data[:2]
    if version not in (1, 2):
        raise blocks.damaged("filters of an unknown form")
    position, result = 8 if version == 1 else 2, []
    for _ in range(count):
        code, length = _FILTER.unpack_from(data, position)
        if version == 2 and code < _PLUG_IN:  # HDF5's own have no name
            position, length = position - 2, 0
        _, values = _FILTER.unpack_from(data, position + 4)
        position += 8 + (-(-length // 8) * 8 if version == 1 else length)
        value = int.from_bytes(data[position : position + 4], "little") if values else 0
        result.append((code, value))
        position += 4 * (values + values % 2 if version == 1 else values)
    return result


# --- links (IV.A.2.c, IV.A.2.g), and where many links or attributes are (IV.A.2.v) ----------------

_HARD = 0


def link(blocks: Blocks, data: bytes) -> Named:
    """Return what a link message says."""
    version, flags, position = data[0], data[1], 2
    kind = data[position] if flags & 8 else _HARD
    position += bool(flags & 8) + (8 if flags & 4 else 0) + bool(flags & 16)
    width = 1 << (flags & 3)
    length = int.from_bytes(data[position : position + width], "little")
    position += width
    name = data[position : position + length]
    if version != 1 or len(name) != length or not name:
        raise blocks.damaged("a link of an unknown form")
    if kind != _HARD:
        return name, UNDEFINED, SOFT, b""
    return name, WORD.unpack_from(data, position + length)[0], PLAIN, b""


def elsewhere(data: bytes, numbered: int) -> tuple[int, int]:
    """Return the addresses of the heap that holds many links or attributes, and of their tree.

    Args:
        numbered: the bytes of the largest number given so far, if they are counted.
    """
    start = 2 + (numbered if data[1] & 1 else 0)
    heap, tree = struct.unpack_from("<QQ", data, start)
    return heap, tree
