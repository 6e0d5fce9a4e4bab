"""What became of each file: one JSON object a line, which is also what a later run goes by."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lstmconvert import limits
from lstmconvert.bulk.stores import same
from lstmconvert.errors import CorruptFile, DestinationError
from lstmconvert.jsontext import JsonObject
from lstmconvert.locking import alone
from lstmconvert.records import dataclass
from lstmconvert.writing import replacing

#: The report's name in the folder of the destinations.
NAME = "lstmconvert-batch.jsonl"
#: How each line starts.
_START = '{"source": '
#: No line is so long.
_LINE = 1 << 20
#: What tells how a destination was made.
_MADE_OF = ("layers", "sha256", "options")
WRITTEN, SKIPPED, FAILED = "written", "skipped", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file.

    Fields: `source` and `destination`, paths or URLs; `status`: `written`, `skipped` (an earlier
    run had written it from the same bytes) or `failed`; `layers`, their names; `seconds`; `error`
    and `hint`, of a failure, and `kind`, the name of its class; `warnings`; `sha256` of the source,
    and `options` that it was written with, which a later run compares.
    """

    source: str
    destination: str
    status: str
    layers: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    hint: str | None = None
    kind: str | None = None
    warnings: tuple[str, ...] = ()
    sha256: str | None = None
    options: str = ""

    def __bool__(self) -> bool:
        """Whether the destination holds what it should."""
        return self.status != FAILED

    def to_json(self) -> JsonObject:
        """Return the line of the report, as an object."""
        return {
            "source": self.source,
            "destination": self.destination,
            "status": self.status,
            "layers": list(self.layers),
            "seconds": round(self.seconds, 4),
            "error": self.error,
            "hint": self.hint,
            "kind": self.kind,
            "warnings": list(self.warnings),
            "sha256": self.sha256,
            "options": self.options,
        }


class Report:
    """The report of a run, a line written as each file is done, so that a kill loses none.

    What earlier runs report stays until this one has done the same destinations anew, and so does
    what other runs add meanwhile. A failure leaves what is reported of the destination's making.
    Destinations are whole paths there, however the user spells them.

    Args:
        path: the file; None keeps none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        #: Destination -> its line. Of a hundred thousand files the lines take little, read they
        #: would take a lot.
        self._known: dict[str, str] = {}
        if path is not None:
            with _changing(path):
                self._known = _read(path)
                _drop_cut_line(path)

    def of(self, destination: str) -> Mapping[str, Any] | None:
        """Return what earlier runs report of a destination, if they do."""
        line = self._known.get(same(destination))
        return None if line is None else json.loads(line)

    def add(self, outcome: Outcome) -> None:
        """Write what became of one file.

        Raises:
            DestinationError: the report cannot be written.
        """
        if self.path is None:
            return
        key = same(outcome.destination)
        row = {**outcome.to_json(), "destination": key}
        if not outcome:  # the destination holds what it held, made as an earlier run says
            earlier = self.of(key) or {}
            row |= {name: earlier[name] for name in _MADE_OF if name in earlier}
        self._known[key] = json.dumps(row)
        with _changing(self.path), open(self.path, "ab", buffering=0) as file:
            _append(file, f"{self._known[key]}\n".encode())

    def close(self, destinations: Iterable[str]) -> None:
        """Leave one line a file: of this run's files in their order, then of other runs'.

        Raises:
            DestinationError: the report cannot be written; it is as it was then.
        """
        if self.path is None:
            return
        with _changing(self.path):
            rows = {**self._known, **_read(self.path)}
            order = dict.fromkeys((*map(same, destinations), *rows))
            with replacing(self.path, force=True) as whole, open(whole, "x") as file:
                file.writelines(f"{rows[d]}\n" for d in order if d in rows)


@contextlib.contextmanager
def _changing(report: Path) -> Iterator[None]:
    try:
        with alone(report.parent):
            yield
    except OSError as error:
        raise DestinationError(
            f"the report cannot be written: {error.strerror or error}", where=report
        ) from None


def _append(file: io.RawIOBase, line: bytes) -> None:
    """Write a line, or of a full disk nothing: another run's line would join what is cut."""
    end = file.seek(0, os.SEEK_END)
    try:
        while line:
            line = line[file.write(line) or 0 :]
    except OSError:
        file.truncate(end)
        raise


def _drop_cut_line(path: Path) -> None:
    """Take away what a killed run wrote of a line, so that the next line does not join it."""
    with contextlib.suppress(OSError), open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LINE))
        cut = file.read().rpartition(b"\n")[2]
        if len(cut) < _LINE:
            file.truncate(size - len(cut))


def _read(path: Path) -> dict[str, str]:
    """Return destination -> line of a report that an earlier run left; a cut last line is dropped.

    Raises:
        CorruptFile: it is no such report.
    """
    rows: dict[str, str] = {}
    try:
        limits.REPORT_BYTES.check(path.stat().st_size, path, "the report")
        with open(path, encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                line = text.rstrip("\n")
                destination = _destination(line)
                if destination is not None:
                    rows[destination] = line
                elif _is_cut(line) and next(file, None) is None:
                    break  # the run was killed while it wrote
                else:
                    raise CorruptFile(
                        "not a report of lstmconvert batch",
                        where=path,
                        found=f"line {number}",
                        hint="name another with --report, or remove it",
                    )
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFile(f"the report cannot be read: {error}", where=path) from None
    return rows


def _destination(line: str) -> str | None:
    """Return the destination that a line of a report is of; None if it is no such line."""
    try:
        destination = json.loads(line)["destination"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return destination if isinstance(destination, str) else None


def _is_cut(line: str) -> bool:
    return line.startswith(_START) or _START.startswith(line)
