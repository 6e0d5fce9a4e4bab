"""Groups that are like one beside them, which was walked: their bytes are compared with its, those
of many at once.

A model of thousands of layers is thousands of groups that differ in where things are, and in
nothing else that a walk looks at. What was walked becomes a pattern: for each structure the bytes
that must be the same, and where in it is what may differ, the addresses of other structures, of
numbers, and of names in a heap of texts. A group whose every structure fits is not walked. What
leads elsewhere is followed as a walk follows it: the same things are refused, and where anything is
not as in the pattern, the group is walked after all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lstmconvert.hdf5 import structures
from lstmconvert.hdf5.structures import (
    ENTRY,
    GROUP,
    HEADER,
    HEAP_HEAD,
    MANY,
    MESSAGE,
    NO_CHILD,
    NODE_HEAD,
    ONE_CHILD,
    ONLY_CONTINUED,
    ONLY_TABLES,
    PAIR,
    PLAIN,
    TABLE_HEAD,
    WORD,
    Blocks,
    Described,
    Entry,
    SymbolTable,
)
from lstmconvert.tensors.dtypes import Array

#: Groups whose headers are in one stretch of a file are compared at once, with what is around it.
_STRETCH_BITS, _AROUND = 22, 1 << 16
#: In one group, no more patterns are tried; none has more objects.
_PATTERNS, _OBJECTS = 8, 64
_HEAD = HEADER.size + MESSAGE.size
_WORDS = np.dtype("<u8")


class _Piece:
    """What the bytes of a structure must be.

    Args:
        data: those of the pattern.
        free: the places and lengths of bytes that may differ.
        room: how many bytes a walk asks for, where they are more.
    """

    def __init__(self, data: bytes, free: list[tuple[int, int]], room: int = 0) -> None:
        self.size, self.room = len(data), max(room, len(data))
        self.bytes = np.frombuffer(data, np.uint8)
        self.mask = np.full(self.size, 0xFF, np.uint8)
        for start, length in free:
            self.mask[start : start + length] = 0
        self.kind = np.dtype(("V", self.size))

    def fits(self, given: Array) -> Array:
        """Whether bytes are those, of each row of some."""
        return np.logical_not(((given ^ self.bytes) & self.mask).any(axis=1))


class _Stretch:
    """Bytes of a file, and the groups with a header in them.

    Fields: `fits`: whether each group has been like the pattern so far; `headers`: the addresses of
    the objects; `nodes`: those of trees, of tables and of names; `places`: those of numbers;
    `texts`: lengths, heaps and numbers. Each list has arrays with a row or a value for each group.
    """

    def __init__(self, data: bytes, begin: int, count: int) -> None:
        self._data, self._begin = data, np.uint64(begin)
        self.fits = np.ones(count, bool)
        self.headers: list[Array] = []
        self.nodes: list[Array] = []
        self.places: list[Array] = []
        self.texts: list[Array] = []

    def bytes(self, addresses: Array, piece: _Piece) -> Array:
        """Return as many bytes at each address as a piece has, of groups that fit so far."""
        last = len(self._data) - piece.room
        if last < 0:
            self.fits[:] = False
            return np.zeros((len(addresses), piece.size), np.uint8)
        begins = addresses - self._begin  # of an address before it, too large
        self.fits &= begins <= last
        begins = np.where(self.fits, begins, 0).astype(np.intp)
        count = len(self._data) - piece.size + 1
        each = np.ndarray((count,), piece.kind, self._data, strides=(1,))[begins]
        return each.view(np.uint8).reshape(-1, piece.size)

    def check(self, addresses: Array, piece: _Piece) -> Array:
        """Return what `bytes` does, and note which groups do not have a piece there."""
        given = self.bytes(addresses, piece)
        self.fits &= piece.fits(given)
        return given


def _words(pieces: Array, start: int, count: int = 1) -> Array:
    """Return words of eight bytes of each piece, (groups, count)."""
    return np.ascontiguousarray(pieces[:, start : start + WORD.size * count]).view(_WORDS)


class _ArrayPattern:
    """A dataset in one piece.

    Args:
        piece: its header.
        place: where in it the address of the numbers is.
        most: the highest address that they may have.
    """

    def __init__(self, piece: _Piece, place: int, most: int) -> None:
        self._piece, self._place, self._most = piece, place, most

    def compare(self, stretch: _Stretch, addresses: Array, _: Array) -> None:
        """Hold the datasets at some addresses against this one."""
        place = _words(stretch.check(addresses, self._piece), self._place)[:, 0]
        stretch.fits &= place <= self._most
        stretch.headers.append(addresses)
        stretch.places.append(place)


class _Header:
    """The header of a group: where its tables are, and perhaps an attribute that is one text.

    With an attribute, HDF5 has lengthened the header where there was room behind it, and put all of
    it elsewhere where there was none: two groups that are alike may differ in that.

    Args:
        body: the messages.
        links: how many lead here, as every header says.
        text: where in the messages the text is referred to, if there is one.
    """

    def __init__(self, body: bytes, links: int, text: int | None) -> None:
        free = [(MESSAGE.size, PAIR.size)]
        if text is not None:
            free.append((text, _TEXT.itemsize))
        self._body, self._text = _Piece(body, free), text
        count = 1 if text is None else 2
        whole = HEADER.pack(1, count, links, len(body))
        moved = HEADER.pack(1, count + 1, links, len(ONLY_CONTINUED) + PAIR.size)
        length = WORD.pack(len(body))
        self._whole = _Piece(whole, [])
        self._moved = _Piece(moved + ONLY_CONTINUED + WORD.pack(0) + length, [(_HEAD, WORD.size)])
        #: How many bytes a walk asks for at most.
        self.bytes = len(body) + (self._whole.size if text is None else self._moved.size)

    def tables(self, stretch: _Stretch, addresses: Array) -> Array:
        """Return where the tables of groups are, (groups, 2), whose headers are at some
        addresses."""
        if self._text is None:
            stretch.check(addresses, self._whole)
            begins = addresses + np.uint64(HEADER.size)
        else:
            heads = stretch.bytes(addresses, self._moved)
            is_whole = self._whole.fits(heads[:, : HEADER.size])
            stretch.fits &= is_whole | self._moved.fits(heads)
            behind = addresses + np.uint64(HEADER.size)
            begins = np.where(is_whole, behind, _words(heads, _HEAD)[:, 0])
        given = stretch.check(begins, self._body)
        if self._text is not None:
            text = given[:, self._text : self._text + _TEXT.itemsize]
            stretch.texts.append(np.ascontiguousarray(text))
        return _words(given, MESSAGE.size, 2)


class _GroupPattern:
    """A group with one table of symbols, or an empty one.

    Args:
        header: its own.
        names: the heap of its names.
        node: the one node of its tree.

    Fields: `table`, where there is one; `rows`: of each entry of it, where it is there, and what it
    leads to.
    """

    def __init__(self, header: _Header, names: _Piece, node: _Piece) -> None:
        self._header, self._names, self._node = header, names, node
        self.table: _Piece | None = None
        self.rows: list[tuple[int, _GroupPattern | _ArrayPattern]] = []

    def compare(self, stretch: _Stretch, addresses: Array, tables: Array) -> None:
        """Hold the groups at some addresses, whose tables are at others, against this one."""
        stretch.headers.append(addresses)
        stated = self._header.tables(stretch, addresses)
        stretch.fits &= (stated == tables).all(axis=1)
        node, heap = tables[:, 0], tables[:, 1]
        start = heap + np.uint64(HEAP_HEAD.size)
        given = stretch.check(heap, self._names)
        stretch.fits &= _words(given, HEAP_HEAD.size - WORD.size)[:, 0] == start
        given = stretch.check(node, self._node)
        stretch.nodes += [start, node]
        if self.table is None:
            return
        child = _words(given, NODE_HEAD.size + WORD.size)[:, 0]
        stretch.nodes.append(child)
        given = stretch.check(child, self.table)
        for at, inner in self.rows:
            header, below = _words(given, at + WORD.size)[:, 0], _words(given, at + _TABLES, 2)
            inner.compare(stretch, header, below)


#: Where in an entry the tables of a group are; a reference to a text (`structures.REFERENCE`).
_TABLES = ENTRY.size - PAIR.size
_TEXT = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])


class Pattern:
    """A group that was walked, and all below it.

    Fields: the paths from it of its `groups`, with its own, which is empty; of those with an
    attribute, in `texts`, with the attribute's name; and of its datasets, in `arrays`, with what
    they are, each in the order of a walk; `longest`: the length of the longest of them;
    `objects`: how many there are; `bytes`: how many a walk asks for; `stored`: by the datasets.

    Args:
        blocks: of the file.
        table: how its tables are read.
        address: of the group, which was walked.
    """

    def __init__(self, blocks: Blocks, table: SymbolTable, address: int) -> None:
        self._blocks, self._table = blocks, table
        self.groups: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.arrays: list[tuple[str, Described]] = []
        self.longest = self.objects = self.bytes = self.stored = 0
        self._root = self._group(address, "")

    def _note(self, path: str) -> bool:
        self.objects += 1
        self.longest = max(self.longest, len(path))
        return self.objects <= _OBJECTS

    def _group(self, address: int, path: str) -> _GroupPattern | None:
        if not self._note(path):
            return None
        self.groups.append(path)
        header = self._header(address, path)
        if header is None:
            return None
        known, tables = header
        node, heap = PAIR.unpack(tables)
        names = self._names(heap)
        data, at = self._blocks.find(node, self._table.node_bytes)
        head, child = data[at : at + len(ONE_CHILD)], NODE_HEAD.size + WORD.size
        if names is None or head not in (ONE_CHILD, NO_CHILD):
            return None
        end = child if head == NO_CHILD else child + PAIR.size
        piece = _Piece(data[at : at + end], [(child, WORD.size)], self._table.node_bytes)
        self.bytes += known.bytes + names.size + piece.room
        result = _GroupPattern(known, names, piece)
        if head == NO_CHILD:
            return result
        (place,) = WORD.unpack_from(data, at + child)
        return result if self._rows(result, place, names, path) else None

    def _header(self, address: int, path: str) -> tuple[_Header, bytes] | None:
        """Return how the header of a group is compared, and where its tables are."""
        data, at = self._blocks.find(address, _HEAD + PAIR.size)
        version, count, links, size = HEADER.unpack_from(data, at)
        begin = address + HEADER.size
        if data[at + HEADER.size : at + _HEAD] == ONLY_CONTINUED and count > 1:
            begin, further = PAIR.unpack_from(data, at + _HEAD)
            count = count - 1 if size == MESSAGE.size + PAIR.size else 0
            size = further
        if version != 1 or count not in (1, 2) or size > structures.LARGEST_KEPT:
            return None
        data, at = self._blocks.find(begin, size)
        body, end = data[at : at + size], MESSAGE.size + PAIR.size
        tables, text = body[MESSAGE.size : end], None
        if not body.startswith(ONLY_TABLES) or (count == 1) != (size == end):
            return None
        if count == 2:
            kind, length, flags = MESSAGE.unpack_from(body, end)
            end += MESSAGE.size
            if kind != structures.ATTRIBUTE or flags or end + length != size:
                return None
            attribute = structures.single_text(self._blocks, body[end:])
            if attribute is None:
                return None
            name, text = attribute
            self.texts.append((path, name))
            text += end
        return _Header(body, links, text), tables

    def _names(self, heap: int) -> _Piece | None:
        """Return how a heap of names is compared that is in one piece."""
        data, at = self._blocks.find(heap, HEAP_HEAD.size)
        _, size, _, start = HEAP_HEAD.unpack_from(data, at)
        if start != heap + HEAP_HEAD.size or size > structures.LARGEST_KEPT:
            return None
        whole = data[at : at + HEAP_HEAD.size + size]
        return _Piece(whole, [(HEAP_HEAD.size - WORD.size, WORD.size)])

    def _rows(self, group: _GroupPattern, address: int, heap: _Piece, path: str) -> bool:
        """Add the table of a group; return whether all that it leads to has a form that is known
        here."""
        data, at = self._blocks.find(address, self._table.table_bytes)
        _, count = TABLE_HEAD.unpack_from(data, at)
        data = data[at : at + TABLE_HEAD.size + count * ENTRY.size]
        names = heap.bytes[HEAP_HEAD.size :].tobytes()
        free = list[tuple[int, int]]()
        for start in range(TABLE_HEAD.size, len(data), ENTRY.size):
            name, header, kind, _ = ENTRY.unpack_from(data, start)
            text = structures.as_text(names[name : names.index(b"\0", name)])
            inner = f"{path}/{text}"
            below: _GroupPattern | _ArrayPattern | None = None
            if kind == GROUP:
                below = self._group(header, inner)
            elif kind == PLAIN:
                below = self._array(header, inner)
            if below is None:
                return False
            free += [(start + WORD.size, WORD.size), (start + _TABLES, PAIR.size)]
            group.rows.append((start, below))
        group.table = _Piece(data, free, self._table.table_bytes)
        self.bytes += group.table.room
        return True

    def _array(self, address: int, path: str) -> _ArrayPattern | None:
        header = structures.array_at(self._blocks, address)
        if header is None or not self._note(path):
            return None
        described, _, stored, known = header
        self.arrays.append((path, described))
        self.bytes += known.size
        self.stored += stored
        data, at = self._blocks.find(address, known.size)
        size_ends = known.before + PAIR.size
        free, end = [(known.before, WORD.size)], size_ends
        for place in known.places:
            free.append((end, place - end))
            end = place + MESSAGE.size
        free.append((end, known.size - end))
        piece = _Piece(data[at : at + known.size], free)
        return _ArrayPattern(piece, known.before, self._blocks.size - stored)

    def compared(self, stretch: _Stretch, addresses: Array, tables: Array) -> Iterator[Like]:
        """Yield the groups of a stretch that are like this one: none if it has a form of its
        own."""
        if self._root is None:
            return
        self._root.compare(stretch, addresses, tables)
        fits = stretch.fits
        headers, nodes = np.stack(stretch.headers, axis=1), np.stack(stretch.nodes, axis=1)
        for each in (headers, nodes):  # none may be in two places
            in_order = np.sort(each, axis=1)
            fits &= (in_order[:, 1:] != in_order[:, :-1]).all(axis=1)
        if not fits.any():
            return
        places = [place[fits].tolist() for place in stretch.places]
        texts = [text[fits].view(_TEXT)[:, 0].tolist() for text in stretch.texts]
        headers, nodes = headers[fits].tolist(), nodes[fits].tolist()
        each_place = zip(*places, strict=True) if places else [()] * len(headers)
        each_text = zip(*texts, strict=True) if texts else [()] * len(headers)
        for fields in zip(headers, nodes, each_place, each_text, strict=True):
            yield Like(self, *fields)


class Like(NamedTuple):
    """A group that is like a pattern.

    Fields: the addresses of its objects, its own first (`headers`); of the `nodes` of its trees and
    of its names; of the numbers of its datasets (`places`), and where the `texts` of its attributes
    are, both in the pattern's order.
    """

    pattern: Pattern
    headers: list[int]
    nodes: list[int]
    places: tuple[int, ...]
    texts: tuple[tuple[int, int, int], ...]


class Siblings:
    """The groups in one group, of which many may be alike.

    Args:
        blocks: of the file.
        table: how its tables are read.
        entries: what is in the group.
    """

    def __init__(self, blocks: Blocks, table: SymbolTable, entries: list[Entry]) -> None:
        self._blocks, self._table = blocks, table
        #: Those that were neither walked nor alike: the address of each, and where its tables are.
        self._left = {
            address: tables for _, address, kind, tables in entries if kind == GROUP
        }
        self._likes: dict[int, Like] = {}
        self._patterns = _PATTERNS

    def like(self, address: int) -> Like | None:
        """Return the group at an address, if it is like one that was walked. Ask for it once."""
        self._left.pop(address, None)
        return self._likes.pop(address, None)

    def learn(self, address: int) -> None:
        """Look for groups like that at an address, which was walked."""
        if self._patterns == 0 or len(self._left) < MANY:
            return
        self._patterns -= 1
        for like in self._alike(Pattern(self._blocks, self._table, address)):
            address = like.headers[0]
            self._likes[address] = like
            del self._left[address]

    def _alike(self, pattern: Pattern) -> Iterator[Like]:
        """Yield the groups that are like a pattern, by address."""
        addresses = np.fromiter(self._left, np.uint64, len(self._left))
        tables = np.frombuffer(b"".join(self._left.values()), _WORDS).reshape(-1, 2)
        order = np.argsort(addresses)
        addresses, tables = addresses[order], tables[order]
        numbers = addresses >> np.uint64(_STRETCH_BITS)
        ends = [*(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(numbers)]
        start, size = 0, self._blocks.size
        for end in ends:
            begin = int(numbers[start]) << _STRETCH_BITS
            here, start = slice(start, end), end
            if here.stop - here.start < MANY or begin >= size:
                continue
            last = min(size, begin + (1 << _STRETCH_BITS) + _AROUND)
            begin = max(0, begin - _AROUND)
            data = self._blocks.stretch(begin, last - begin)
            if data is None:
                return
            stretch, is_like = _Stretch(data, begin, end - here.start), False
            for like in pattern.compared(stretch, addresses[here], tables[here]):
                is_like = True
                yield like
            if not is_like:
                return  # perhaps it is like no other: few are looked at in vain
