"""What became of each file: one JSON object a line, which is also what a later run goes by."""

from __future__ import annotations

import contextlib
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

#: The report's name in the folder of the destinations.
NAME = "lstmconvert-batch.jsonl"
#: How each line starts.
_START = '{"source": '
#: No line is so long.
_LINE = 1 << 20
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
    what other runs add meanwhile. Destinations are whole paths there, however the user spells them.

    Args:
        path: the file; None keeps none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[str, Mapping[str, Any]] = {}
        if path is not None:
            with _changing(path):
                self._known = _read(path)
                _drop_cut_line(path)

    def of(self, destination: str) -> Mapping[str, Any] | None:
        """Return what earlier runs report of a destination, if they do."""
        return self._known.get(same(destination))

    def add(self, outcome: Outcome) -> None:
        """Write what became of one file.

        Raises:
            DestinationError: the report cannot be written.
        """
        key = same(outcome.destination)
        self._known[key] = {**outcome.to_json(), "destination": key}
        if self.path is not None:
            with _changing(self.path):
                _write(self.path, "a", [self._known[key]])

    def close(self, destinations: Iterable[str]) -> None:
        """Leave one line a file: of this run's files in their order, then of other runs'."""
        if self.path is None:
            return
        with _changing(self.path):
            rows = {**self._known, **_read(self.path)}
            order = dict.fromkeys((*map(same, destinations), *rows))
            whole = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            _write(whole, "w", [rows[d] for d in order if d in rows])
            os.replace(whole, self.path)


@contextlib.contextmanager
def _changing(report: Path) -> Iterator[None]:
    try:
        with alone(report.parent):
            yield
    except OSError as error:
        raise DestinationError(
            f"the report cannot be written: {error.strerror or error}", where=report
        ) from None


def _write(path: Path, mode: str, rows: list[Mapping[str, Any]]) -> None:
    with open(path, mode, encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def _drop_cut_line(path: Path) -> None:
    """Take away what a killed run wrote of a line, so that the next line does not join it."""
    with contextlib.suppress(OSError), open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LINE))
        cut = file.read().rpartition(b"\n")[2]
        if len(cut) < _LINE:
            file.truncate(size - len(cut))


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return destination -> row of a report that an earlier run left; a cut last line is dropped.

    Raises:
        CorruptFile: it is no such report.
    """
    try:
        limits.JSON_BYTES.check(path.stat().st_size, path, "the report")
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFile(f"the report cannot be read: {error}", where=path) from None
    rows: dict[str, Mapping[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows[row["destination"]] = row
        except (ValueError, TypeError, KeyError, RecursionError):
            if number == len(lines) and (line.startswith(_START) or _START.startswith(line)):
                break  # the run was killed while it wrote
            raise CorruptFile(
                "not a report of lstmconvert batch",
                where=path,
                found=f"line {number}",
                hint="name another with --report, or remove it",
            ) from None
    return rows
