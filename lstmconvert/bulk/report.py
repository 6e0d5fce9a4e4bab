"""The report of a batch: one JSON object a line, which is also what a later run goes by.

Where reports are in the millions of lines, only the place of each line is in memory. Several runs
may write to one report of this machine at once. A report in a store is kept here while a run lasts,
and sent up now and then, and at the end.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstmconvert import limits
from lstmconvert.bulk import outcome as outcomes
from lstmconvert.bulk import scratch, stores
from lstmconvert.bulk.outcome import SCHEMA, SKIPPED, WRITTEN, Known, Outcome
from lstmconvert.errors import CorruptFile, DestinationError, LSTMConvertError, SourceError
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.files.locking import alone
from lstmconvert.files.names import is_url
from lstmconvert.files.writing import replacing

if TYPE_CHECKING:
    from lstmconvert.bulk.plan import Shard

#: The report's name in the folder of the destinations.
NAME = "lstmconvert-batch.jsonl"
#: How each line starts. The cut line of a killed run is recognised by it.
_START = f'{{"schema": {SCHEMA}, "destination": "'
#: The destination in a line that was written here, and may have been changed by nobody since.
_FAST = re.compile(rb'\{"schema": \d+, "destination": ("(?:[^"\\]|\\.)*"), "source": "')
#: No line is longer, in bytes.
_LINE = 1 << 20
#: Between two times that a report in a store is sent up, in seconds; and the share of the run's
#: time that it may take.
_SEND_SECONDS, _SEND_SHARE = 60.0, 0.05


def name_for(shard: Shard | None) -> str:
    """Return the name of the report of a shard, or of all: each shard has its own."""
    return NAME if shard is None else NAME.replace(".", f".{shard.name}.", 1)


class Index:
    """Where each destination's last line begins in a report.

    Args:
        path: the report; it need not be there.

    Raises:
        CorruptFile: it is not a report.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np  # imported late, as everything that a dry run does not need

        self._path = path
        self._file: io.BufferedReader | None = None
        self._starts, hashes = array("q"), array("q")
        for start, line in _lines(path):
            self._starts.append(start)
            hashes.append(hash(destination_of(line, path)))
        #: The lines' numbers by hash, and the hashes, sorted.
        self._order = array("q")
        if hashes:
            order = np.argsort(np.frombuffer(hashes, np.int64), kind="stable")
            self._order.frombytes(order.astype(np.int64).tobytes())
        self._sorted = array("q", (hashes[number] for number in self._order))

    def last(self, destination: str) -> int | None:
        """Return the number of the last line of a destination, if it has one."""
        wanted = hash(destination)
        place = bisect_right(self._sorted, wanted) - 1
        while place >= 0 and self._sorted[place] == wanted:
            number: int = self._order[place]
            if destination_of(self.line(number), self._path) == destination:
                return number
            place -= 1
        return None

    def latest(self, line: bytes, number: int) -> bytes:
        """Return the line with the latest time of those of a destination, of which one is given."""
        destination = destination_of(line, self._path)
        wanted = hash(destination)
        place = bisect_left(self._sorted, wanted)
        best, best_time = line, _time_of(line)
        while place < len(self._sorted) and self._sorted[place] == wanted:
            if self._order[place] != number:
                other = self.line(self._order[place])
                if destination_of(other, self._path) == destination and _time_of(other) > best_time:
                    best, best_time = other, _time_of(other)
            place += 1
        return best

    def row(self, destination: str) -> JsonObject | None:
        """Return the last row of a destination, if it has one."""
        number = self.last(destination)
        return None if number is None else json.loads(self.line(number))

    def line(self, number: int) -> bytes:
        """Return a line, as the report was when it was indexed."""
        if self._file is None:
            self._file = open(self._path, "rb")  # noqa: SIM115  # until `close`
        self._file.seek(self._starts[number])
        return self._file.readline()

    def __len__(self) -> int:
        return len(self._starts)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and bytes of the last line of each destination, in their order."""
        is_last = bytearray(b"\1") * len(self._starts)
        for first in range(len(self._order) - 1):
            if self._sorted[first] == self._sorted[first + 1]:  # of one destination, as a rule
                number = self._order[first]
                destination = destination_of(self.line(number), self._path)
                is_last[number] = self.last(destination) == number
        for number, flag in enumerate(is_last):
            if flag:
                yield number, self.line(number)

    def close(self) -> None:
        """Close the report."""
        if self._file is not None:
            self._file.close()
            self._file = None


def rows(path: Path) -> Iterator[JsonObject]:
    """Yield the rows of a report: the last of each destination.

    Raises:
        CorruptFile: it is not a report, or cannot be read.
        SourceError: the file does not exist.
    """
    if not path.exists():
        raise SourceError("no such report", where=path, hint="check the path")
    index = Index(path)
    try:
        for _, line in index.lines():
            yield json.loads(line)
    finally:
        index.close()


def merged(reports: Sequence[Path], destination: Path, *, force: bool = False) -> int:
    """Join reports: of each destination the row with the latest time. Return how many rows.

    Raises:
        DestinationError: it exists, and `force` is off; or it cannot be written.
        CorruptFile, SourceError: see `rows`.
    """
    with scratch.folder() as folder, replacing(destination, force=force) as temporary:
        whole = folder / NAME
        with open(whole, "wb") as file:
            for path in reports:
                file.writelines(f"{json.dumps(row)}\n".encode() for row in rows(path))
        index = Index(whole)
        try:
            count = 0
            with open(temporary, "wb") as file:
                for number, line in index.lines():
                    file.write(index.latest(line, number))
                    count += 1
        finally:
            index.close()
    return count


class ReportFile(contextlib.AbstractContextManager["ReportFile"]):
    """The report of a run: a line is written as each file is done, so that a kill loses none.

    What earlier runs report stays until this one has done the same destinations anew, and so does
    what other runs add meanwhile. A file that was found done keeps its row, with its warnings and
    the time of its making. A row of a failure holds, as `before`, the row of what the destination
    holds.

    If a line cannot be written, the run goes on: it is tried again with the next line, and at the
    end it goes to another file, which the error names.

    Args:
        place: path or URL.
        dry: whether it is looked at alone, and not written.

    Raises:
        CorruptFile: the file is not a report.
    """

    def __init__(self, place: str | Path, *, dry: bool = False) -> None:
        self.place, self._dry = os.fspath(place), dry
        self._open = contextlib.ExitStack()
        self._remote: stores.Remote | None = None
        self._unwritten: list[bytes] = []
        self._problem: DestinationError | None = None
        self._next_sending = time.monotonic() + _SEND_SECONDS
        if is_url(self.place):
            self._path = self._open.enter_context(scratch.folder()) / NAME
            self._remote = _fetched(self.place, self._path)
        else:
            self._path = Path(os.path.abspath(self.place))
        with contextlib.nullcontext() if dry else _changing(self._path):
            self._before = Index(self._path)
            if not dry:
                _drop_cut_line(self._path)
        self._open.callback(self._before.close)

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def known(self, destination: str) -> Known | None:
        """Return what earlier runs say was written to a destination."""
        row = self._before.row(destination)
        return None if row is None else outcomes.known(row)

    def add(self, outcome: Outcome) -> None:
        """Write what became of a file."""
        if self._dry:
            return
        row = {**outcome.to_json(), **self._kept(outcome)}
        self._unwritten.append(f"{json.dumps(row)}\n".encode())
        self._write()
        if self._remote is not None and time.monotonic() > self._next_sending:
            with contextlib.suppress(DestinationError):  # it is sent again later, and at the end
                self._send(self._remote)

    def _kept(self, outcome: Outcome) -> JsonObject:
        """Return what stays in a row of what an earlier run reports of the destination."""
        before = self._before.row(outcome.destination)
        if before is None or before.get("schema") != SCHEMA:
            return {}
        if outcome.status == SKIPPED and _is_made(before):
            return {key: before[key] for key in ("status", "time", "seconds") if key in before}
        if not outcome:
            made = before if _is_made(before) else before.get("before")
            return {"before": made} if made else {}
        return {}

    def _write(self) -> None:
        try:
            with _changing(self._path), open(self._path, "ab", buffering=0) as file:
                while self._unwritten:
                    _append(file, self._unwritten[0])
                    self._unwritten.pop(0)
        except DestinationError as error:
            self._problem = error
        else:
            self._problem = None

    def close(self, destinations: Iterable[str]) -> None:
        """Leave one line a file: of this run's files in their order, then of other runs'.

        Args:
            destinations: those of this run, in the order of its jobs.

        Raises:
            DestinationError: the report cannot be written. The lines that it lacks
                are in a file that the error names.
        """
        if self._dry:
            return
        try:
            if self._unwritten:
                self._write()
            if self._problem is not None:
                raise self._problem
            self._put_in_order(destinations)
            if self._remote is not None:
                self._send(self._remote)
        except LSTMConvertError as error:
            raise self._rescued(error) from None

    def _put_in_order(self, destinations: Iterable[str]) -> None:
        self._before.close()  # Windows replaces no file that is open
        with _changing(self._path):
            whole = Index(self._path)
            try:
                with replacing(self._path, force=True) as temporary, open(temporary, "wb") as file:
                    written = bytearray(len(whole))
                    for number in map(whole.last, destinations):
                        if number is None:  # the run was stopped before it
                            continue
                        file.write(whole.line(number))
                        written[number] = True
                    for number, line in whole.lines():
                        if not written[number]:
                            file.write(line)
                    whole.close()
            finally:
                whole.close()

    def _send(self, remote: stores.Remote) -> None:
        start = time.monotonic()
        stores.send([self._path], remote, force=True)
        # The larger it grows, the more rarely it is sent.
        now = time.monotonic()
        self._next_sending = now + max(_SEND_SECONDS, (now - start) / _SEND_SHARE)

    def _rescued(self, error: LSTMConvertError) -> DestinationError:
        """Return an error that says where the rows are that the report does not have."""
        descriptor, name = tempfile.mkstemp(prefix="lstmconvert-batch-", suffix=".jsonl")
        with open(descriptor, "wb") as file:
            if self._remote is not None and self._path.exists():
                file.write(self._path.read_bytes())
            file.writelines(self._unwritten)
        return DestinationError(
            f"the report could not be written: {error}",
            where=self.place,
            hint=f"the missing rows are in {name}: lstmconvert batch report merge joins them",
        )


def _time_of(line: bytes) -> str:
    return str(json.loads(line).get("time") or "")


def _is_made(row: Mapping[str, Any]) -> bool:
    return row.get("status") in (WRITTEN, SKIPPED)


def _fetched(url: str, path: Path) -> stores.Remote:
    """Copy a report from a store, if it is there; return its place."""
    remote = stores.single(url).remote.looked_up()
    if remote.size is not None:
        stores.fetch(remote, path)
    return remote


@contextlib.contextmanager
def _changing(report: Path) -> Iterator[None]:
    try:
        with alone(report.parent):
            yield
    except OSError as error:
        raise DestinationError(
            f"the report cannot be written: {error.strerror or error}", where=report
        ) from None


def _append(file: io.RawIOBase, line: bytes) -> int:
    """Write a line, or of a full disk nothing: another run's line would join what is cut.

    Returns:
        Where it begins.
    """
    start = file.seek(0, os.SEEK_END)
    rest = line
    try:
        while rest:
            rest = rest[file.write(rest) or 0 :]
    except OSError:
        file.truncate(start)
        raise
    return start


def _drop_cut_line(path: Path) -> None:
    """Take away what a killed run wrote of a line, so that the next line does not join it."""
    with contextlib.suppress(OSError), open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LINE))
        cut = file.read().rpartition(b"\n")[2]
        if cut and len(cut) < _LINE:
            file.truncate(size - len(cut))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield place and bytes of each line; a last one that is cut is left out."""
    try:
        limits.REPORT_BYTES.check(path.stat().st_size, path, "the report")
        with open(path, "rb") as file:
            start = 0
            while line := file.readline(_LINE):
                if not line.endswith(b"\n") and _is_cut(line) and not file.read(1):
                    return  # the run was killed while it wrote
                yield start, line
                start += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CorruptFile(f"the report cannot be read: {error}", where=path) from None


def _is_cut(line: bytes) -> bool:
    start = _START.encode()
    return line.startswith(start) or start.startswith(line)


def destination_of(line: bytes, where: object) -> str:
    """Return the destination that a line of a report is of.

    Raises:
        CorruptFile: the line has another form.
    """
    match = _FAST.match(line)
    try:
        value = json.loads(match[1]) if match else json.loads(line)["destination"]
    except (ValueError, TypeError, KeyError, RecursionError):
        value = None
    if not isinstance(value, str):
        raise CorruptFile(
            "not a report of lstmconvert batch",
            where=where,
            found=f"the line {line[:40]!r}",
            hint="name another with --report, or remove it",
        )
    return value
