"""One file of many: what a worker does. Whatever happens to it, the answer is an outcome."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstmconvert.bulk import stores
from lstmconvert.bulk.report import FAILED, SKIPPED, WRITTEN, Outcome
from lstmconvert.bulk.sources import Job
from lstmconvert.errors import DestinationError, LSTMConvertError
from lstmconvert.jsontext import canonical

if TYPE_CHECKING:
    from lstmconvert.model import Model


def fingerprint(options: Mapping[str, Any]) -> str:
    """Return what options a destination was written with, as a text to compare."""
    shapes = {key: value for key, value in options.items() if key != "force" and value}
    return canonical({key: _plain(value) for key, value in sorted(shapes.items())})


def _plain(value: Any) -> Any:
    if isinstance(value, Path):  # a config: what it says counts, not where it lies
        from lstmconvert import files

        return files.digest_of_file(files.open_source(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float)) else str(value)


def convert(job: Job, options: Mapping[str, Any], known: Mapping[str, Any] | None) -> Outcome:
    """Convert one file, or find that it has been converted.

    Args:
        job: the source and the destination.
        options: of `lstmconvert.convert`.
        known: what an earlier run reports of the destination.
    """
    start = time.perf_counter()
    try:
        outcome = _done(job, options, known) or _converted(job, options)
    except LSTMConvertError as error:
        outcome = _failed(job, str(error), error.hint, type(error).__name__)
    except MemoryError as error:
        outcome = _failed(job, f"{job.source}: not enough memory", None, type(error).__name__)
    except Exception as error:  # a bad file never stops the others
        outcome = _failed(job, f"{job.source}: {error}", None, type(error).__name__)
    return replace(outcome, seconds=time.perf_counter() - start)


def _failed(job: Job, error: str, hint: str | None, kind: str) -> Outcome:
    return Outcome(
        source=job.source,
        destination=job.destination,
        status=FAILED,
        error=error,
        hint=hint,
        kind=kind,
    )


def died(job: Job) -> Outcome:
    """Return the outcome of a file whose worker died of it."""
    text = f"{job.source}: the process that converted it died: of a crash, of a limit, or killed"
    return _failed(job, text, "lstmconvert convert --isolate tells of what", "BrokenProcessPool")


def _done(
    job: Job, options: Mapping[str, Any], known: Mapping[str, Any] | None
) -> Outcome | None:
    """Return that an earlier run did this, if it did: from the same bytes, with the same options.

    Raises:
        DestinationError: the destination is there, and made of something else.
    """
    if options.get("force") or options.get("dry_run") or not stores.exists(job.destination):
        return None
    made_with = fingerprint(options)
    with stores.local_source(job.source) as path:
        digest = _digest(path, options)
    if known is None:
        known = _unreported(job.destination, options)
    is_same = known.get("sha256") == digest and known.get("options") == made_with
    if is_same and digest is not None:
        return Outcome(
            source=job.source,
            destination=job.destination,
            status=SKIPPED,
            layers=tuple(known.get("layers") or ()),
            sha256=digest,
            options=made_with,
        )
    raise DestinationError(
        "the destination exists, and the report does not say that it was made from this source "
        "with these options",
        where=job.destination,
        hint="--force replaces it",
    )


def _unreported(destination: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a file says of itself that no report lists: its run was killed just then.

    Per-gate files keep their source's hash, and nothing of the options but the layout: `{}` where
    there were others, and for what is no such file.
    """
    from lstmconvert import api, describe, targets

    if set(options) - {"layout"} and any(options[key] for key in set(options) - {"layout"}):
        return {}
    try:
        model = api.load(destination)
    except LSTMConvertError:
        return {}
    wanted = options.get("layout") or targets.GATES
    if not describe.is_converted(model) or describe.layout_of(model) != wanted:
        return {}
    made_with = fingerprint(options)
    return {"sha256": model.source.sha256, "options": made_with, "layers": list(model)}


def _digest(path: Path, options: Mapping[str, Any]) -> str | None:
    """Return the SHA-256 of the source: of the file, or of the files that make up the model."""
    from lstmconvert import api, files

    if path.is_file():
        return files.digest_of_file(files.open_source(path))
    return api.load(path, layout=options.get("from_layout")).source.sha256


def _taken(model: Model, path: Path) -> str | None:
    """Return the hash that the conversion took, where it is that of this one file."""
    from lstmconvert import targets

    is_keras = any(x.is_keras and x.container == model.container for x in targets.TARGETS)
    is_whole = path.is_file() and not model.source.files
    is_source = model.source.container == model.container and model.layout is None
    return model.source.sha256 if is_keras and is_whole and is_source else None


def _converted(job: Job, options: Mapping[str, Any]) -> Outcome:
    from lstmconvert import api, writing

    force, dry = bool(options.get("force")), bool(options.get("dry_run"))
    with (
        stores.local_source(job.source) as source,
        stores.local_destination(job.destination, force=force, dry=dry) as destination,
        writing.swept(),
    ):
        model, result = api.converted(source, destination, **options)
        return Outcome(
            source=job.source,
            destination=job.destination,
            status=WRITTEN,
            layers=result.layers,
            warnings=result.warnings,
            sha256=_taken(model, source) or _digest(source, options),
            options=fingerprint(options),
        )
