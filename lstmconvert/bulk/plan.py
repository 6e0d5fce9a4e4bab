"""Which source becomes which destination. The whole plan is made before anything is converted.

A destination's name depends on its source's name alone: `sub/m.keras` becomes `sub/m.safetensors`.
So a file that appears beside it tomorrow moves nothing, and a run on a part of the files, or on
another machine, gives the same names. Two sources of one destination (`m.keras` and `m.h5`) are
refused before anything is written; with `keep_suffix` both keep their suffix and cannot meet.
"""

from __future__ import annotations

import os
import zlib
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lstmconvert.bulk import stores
from lstmconvert.bulk.listing import Listed
from lstmconvert.errors import UsageError
from lstmconvert.files.names import is_url
from lstmconvert.targets import renamed

if TYPE_CHECKING:
    from lstmconvert.bulk.stores import Remote

class Places(Sequence[str]):
    """A list of texts that takes their bytes and eight more each: a million of them fit 60 MB."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def append(self, text: str) -> None:
        """Add a text; it may hold half a surrogate pair, as names of files do."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices are needed
        start, end = self._ends[index], self._ends[index + 1]
        return self._bytes[start:end].decode("utf-8", "surrogatepass")


def shown(text: str) -> str:
    """Return a text for people, in which whole paths below the current folder are short ones."""
    folder = os.getcwd()
    return text if folder == os.sep else text.replace(folder + os.sep, "")


class Shard(NamedTuple):
    """One of several parts of the sources: `number` from 1 to `total`.

    A source's shard depends on its place alone, so that each is in exactly one shard, whatever
    else is there, on any machine.
    """

    number: int
    total: int

    def has(self, place: str) -> bool:
        """Whether a source is of this shard."""
        return self.total == 1 or _number(place) % self.total == self.number - 1

    @property
    def name(self) -> str:
        """What a shard's report is called by."""
        return f"{self.number}-of-{self.total}"


def _number(place: str) -> int:
    return zlib.crc32(place.encode("utf-8", "surrogatepass"))


def shard_of(text: str | None) -> Shard | None:
    """Read `3/8`, the third of eight shards.

    Raises:
        UsageError: the text has another form.
    """
    if text is None:
        return None
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise UsageError(
            "--shard takes a number and a count",
            found=text,
            expected="1/8 to 8/8, for eight shards",
        )
    return Shard(int(number), int(total))


#: How many pairs of sources that meet are listed in an error.
_LISTED = 3


class Job(NamedTuple):
    """One conversion.

    Fields: `source`, `destination`: whole paths or URLs; `doubtful`: whether the source may as well
    be no model; `origin`, `target`: where they are, if that is a store.
    """

    source: str
    destination: str
    doubtful: bool = False
    origin: Remote | None = None
    target: Remote | None = None


class Plan(Sequence[Job]):
    """The jobs of a run. They are made when they are asked for: a million of them fit 100 MB.

    Args:
        out_dir: the output folder, or the URL of one.
        suffix: of the destinations.
        keep_suffix: let every source keep its suffix too.
    """

    def __init__(self, out_dir: str, suffix: str, *, keep_suffix: bool = False) -> None:
        self.out_dir = out_dir if is_url(out_dir) else os.path.abspath(out_dir)
        self.suffix, self._keep = suffix, keep_suffix
        self._destinations = stores.Destinations(self.out_dir) if is_url(out_dir) else None
        self._places = Places()
        self._doubtful = bytearray()
        #: Where the sources of each folder begin, and the folder: most sources share theirs.
        self._starts = array("Q")
        self._roots: list[str] = []
        self._remote: dict[int, Remote] = {}
        #: How many files of folders are not models, by suffix.
        self.passed: Counter[str] = Counter()

    def add(self, source: Listed, remote: Remote | None = None) -> None:
        """Add a source, and where it is, if that is a store."""
        if not self._roots or self._roots[-1] != source.root:
            self._starts.append(len(self._places))
            self._roots.append(source.root)
        if remote is not None:
            self._remote[len(self._places)] = remote
        self._places.append(source.place)
        self._doubtful.append(source.doubtful)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Job:  # type: ignore[override]  # no slices are needed
        place = self.destination_place(index)
        origin = self._remote.get(index)
        remote = None if self._destinations is None else self._destinations.at(place)
        return Job(
            self.source(index),
            remote.url if remote else os.path.join(self.out_dir, *place.split("/")),
            bool(self._doubtful[index]),
            origin,
            remote,
        )

    def source(self, index: int) -> str:
        """Return the path or URL of a source."""
        if index in self._remote:
            return self._remote[index].url
        root = self._roots[bisect_right(self._starts, index) - 1]
        return os.path.join(root, *self._places[index].split("/"))

    def destination_place(self, index: int) -> str:
        """Return where a destination is below the folder of all."""
        return renamed(self._places[index], self.suffix, keep_suffix=self._keep)

    # -- what is done once, when all are there ---------------------------------------------------

    def settled(self, shard: Shard | None = None) -> Plan:
        """Return the plan with each source once, and those of one shard alone.

        Raises:
            UsageError: two sources would have one destination.
        """
        again = {later for _, later in _alike(self.source, len(self))}
        once = self._only([i for i in range(len(self)) if i not in again]) if again else self
        once.check()
        if shard is None:
            return once
        places = (once.destination_place(index) for index in range(len(once)))
        return once._only(index for index, place in enumerate(places) if shard.has(place))

    def _only(self, indices: Iterable[int]) -> Plan:
        plan = Plan(self.out_dir, self.suffix, keep_suffix=self._keep)
        plan._destinations, plan.passed = self._destinations, self.passed
        for index in indices:
            root = self._roots[bisect_right(self._starts, index) - 1]
            place = Listed(root, self._places[index], bool(self._doubtful[index]))
            plan.add(place, self._remote.get(index))
        return plan

    def check(self) -> None:
        """Raise `UsageError` if two sources would have one destination."""
        # File systems that ignore case would write both to one file.
        groups = _alike(lambda index: self.destination_place(index).casefold(), len(self))
        if not groups:
            return
        pairs = [shown(f"{self.source(a)} and {self.source(b)}") for a, b in groups[:_LISTED]]
        more = f", and {len(groups) - _LISTED:,} more" if len(groups) > _LISTED else ""
        raise UsageError(
            "several sources would have one destination; nothing has been written",
            where=self.destination_place(groups[0][0]),
            found=f"{', '.join(pairs)}{more}",
            expected="one source for each destination",
            hint="--keep-suffix keeps m.keras and m.h5 apart; a folder or a glob keeps sub-folders",
        )


def _alike(text: Callable[[int], str], count: int) -> list[tuple[int, int]]:
    """Return pairs of indices of equal texts, the first of them and each later one.

    Their hashes are compared, so that the texts need not be in memory at once.

    Args:
        text: returns the text of an index.
        count: how many there are.
    """
    if count < 2:
        return []
    import numpy as np  # imported late, as everything that a short run does not need

    hashes = np.frombuffer(array("q", (hash(text(index)) for index in range(count))), np.int64)
    order = np.argsort(hashes, kind="stable")
    pairs: list[tuple[int, int]] = []
    #: Of the hash that is looked at, the first index of each text.
    firsts: dict[str, int] = {}
    previous = None
    for place in (np.flatnonzero(np.diff(hashes[order]) == 0) + 1).tolist():
        if hashes[order[place]] != previous:
            previous, index = hashes[order[place]], int(order[place - 1])
            firsts = {text(index): index}
        index = int(order[place])
        first = firsts.setdefault(text(index), index)
        if first != index:
            pairs.append((first, index))
    return sorted(pairs)
