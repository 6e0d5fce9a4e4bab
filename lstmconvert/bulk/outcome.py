"""The outcome of one file of a batch, and its line in a report: one JSON object."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lstmconvert import __version__
from lstmconvert.conversion import Compiled, LeftOut
from lstmconvert.files.jsontext import JsonObject

#: The version of a report's rows. Rows of another version are carried, and not believed.
SCHEMA = 2
#: The destination is what this run would write: it wrote it, or found it so.
WRITTEN, SKIPPED = "written", "skipped"
#: The file itself is in the way; nobody knows, since whoever converted it did not answer; and the
#: file was left out, because it holds no LSTM and the user asked for that.
FAILED, LOST, PASSED_OVER = "failed", "lost", "passed over"


class FileIdentity(NamedTuple):
    """What tells a file from one of other bytes.

    Fields: `name`; `size` in bytes, None of a folder; `sha256`, None where nobody read the file;
    `etag`: what its store has in its place, None for files of this machine.
    """

    name: str
    size: int | None
    sha256: str | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file.

    Fields:
        source, destination: paths or URLs.
        status: `written`; `skipped`: the destination was there, and is what would be written;
            `failed`; `lost`: whoever converted it did not answer, so that nobody knows; or
            `passed over`: it holds no LSTM layer, and the user asked to leave such files out.
        layers: the names of the LSTM layers.
        seconds: how long it took.
        error, hint, kind: of a failure, what is wrong, what to do next, and the error's class.
        may_pass: whether the failure may pass by itself: a lost worker, a store that is busy.
        warnings: what the user should know of what was written; losses among them.
        losses: what was lost, as declared.
        left_out, compiled: as in `Result`.
        sources: the files that were read, the source itself first.
        files: the files that were written, the destination first.
        options: the options that they were written with.
        time: when it was done, in seconds since 1970.
        attempts: how often it was tried in this run.
    """

    source: str
    destination: str
    status: str
    layers: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    hint: str | None = None
    kind: str | None = None
    may_pass: bool = False
    warnings: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    compiled: Compiled | None = None
    sources: tuple[FileIdentity, ...] = ()
    files: tuple[FileIdentity, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)
    attempts: int = 1

    def __bool__(self) -> bool:
        """Whether the destination holds the right file."""
        return self.status in (WRITTEN, SKIPPED)

    def to_json(self) -> JsonObject:
        """Return the line of the report, as an object."""
        return {
            "schema": SCHEMA,
            "destination": self.destination,
            "source": self.source,
            "status": self.status,
            "time": _text_of(self.time),
            "seconds": round(self.seconds, 4),
            "layers": list(self.layers),
            "warnings": list(self.warnings),
            "losses": list(self.losses),
            "left_out": [each._asdict() for each in self.left_out],
            "compiled": None if self.compiled is None else self.compiled.to_json(),
            "error": self.error,
            "hint": self.hint,
            "kind": self.kind,
            "attempts": self.attempts,
            **_columns("source", self.sources),
            **_columns("destination", self.files),
            "options": dict(self.options),
            "tool": __version__,
        }


def _columns(start: str, files: Sequence[FileIdentity]) -> JsonObject:
    """Return the facts of some files as columns: of the first one each, of the others together."""
    first = files[0] if files else FileIdentity("", None)
    return {
        f"{start}_size": first.size,
        f"{start}_sha256": first.sha256,
        f"{start}_etag": first.etag,
        f"{start}_beside": [each._asdict() for each in files[1:]],
    }


def _text_of(seconds: float) -> str:
    """Return a time as ISO 8601 writes it, in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03}Z"


class Known(NamedTuple):
    """What a report says was written to a destination: fields as in `Outcome`."""

    sources: tuple[FileIdentity, ...]
    files: tuple[FileIdentity, ...]
    options: Mapping[str, Any]
    tool: str
    layers: tuple[str, ...]
    warnings: tuple[str, ...]
    losses: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    compiled: Compiled | None


def known(row: Mapping[str, Any]) -> Known | None:
    """Return what a row of a report says was written, if it is a row that can be believed."""
    made = row if row.get("status") in (WRITTEN, SKIPPED) else row.get("before")
    if not isinstance(made, dict) or made.get("schema") != SCHEMA:
        return None
    try:
        return Known(
            sources=_facts("source", made),
            files=_facts("destination", made),
            options=dict(made["options"]),
            tool=str(made["tool"]),
            layers=tuple(made["layers"]),
            warnings=tuple(made["warnings"]),
            losses=tuple(made["losses"]),
            left_out=tuple(LeftOut(**each) for each in made["left_out"]),
            compiled=_compiled(made.get("compiled")),
        )
    except (KeyError, TypeError, ValueError):  # a row that somebody has edited
        return None


def _compiled(value: Any) -> Compiled | None:
    return None if value is None else Compiled(tuple(value["carried"]), tuple(value["dropped"]))


def _facts(start: str, row: Mapping[str, Any]) -> tuple[FileIdentity, ...]:
    name = str(row[start]).replace("\\", "/").rstrip("/").rpartition("/")[2]
    first = FileIdentity(name, *(row[f"{start}_{key}"] for key in ("size", "sha256", "etag")))
    return (first, *(FileIdentity(**each) for each in row[f"{start}_beside"]))
