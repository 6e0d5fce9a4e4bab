"""`lstmconvert batch`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lstmconvert.cli import options, output
from lstmconvert.cli.convert import check
from lstmconvert.cli.failures import FINDING

if TYPE_CHECKING:
    from lstmconvert.bulk.report import Outcome


@options.command(
    "Convert many files into the folder --out-dir. SRC is a file, a folder, which is searched for "
    "models and whose sub-folders are kept, or a glob; or an fsspec URL of one (s3://, gs://, "
    "memory://). A bad file never stops the others. What became of each is in a report, by which a "
    "later run skips what is done. Exit code 1 if any failed.",
    "batch models/ --out-dir gates",
    "batch 'runs/**/*.h5' --out-dir modern --suffix .keras -j 4",
    "batch s3://bucket/models --out-dir s3://bucket/gates",
)
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.option("--out-dir", metavar="DIR", required=True, help="The folder for what is made.")
@click.option(
    "--suffix",
    metavar="SUFFIX",
    default=".safetensors",
    show_default=True,
    help="Names the kind of file, as DST's does in convert.",
)
@click.option(
    "-j",
    "--jobs",
    "workers",
    metavar="N",
    type=int,
    help="So many processes. By default one for each processor.",
)
@click.option(
    "--report",
    metavar="FILE",
    type=options.PATH,
    help="Where to keep the report, a JSON object a line. By default lstmconvert-batch.jsonl in "
    "DIR, and nowhere if that is a URL.",
)
@options.conversion
@click.option(
    "--isolate",
    is_flag=True,
    help="Limit the memory of each process, and its processor time for each file, so that a file "
    "which crashes a C library, or keeps it busy, has failed like any other.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report's lines, in order, too.")
def command(
    sources: tuple[str, ...],
    out_dir: str,
    suffix: str,
    workers: int | None,
    report: Path | None,
    isolate: bool,
    as_json: bool,
    **given: Any,
) -> int:
    workers = _processors() if workers is None else workers
    from lstmconvert import targets
    from lstmconvert.bulk.run import convert_jobs, plan

    destination = Path(f"x{suffix}")
    check(targets.target_of(destination, given["layout"]), destination, given)
    todo = plan(sources, out_dir, suffix=suffix)
    with _progress(len(todo)) as advance:

        def on_event(outcome: Outcome) -> None:
            _tell(outcome)
            advance()

        outcomes = convert_jobs(
            todo,
            out_dir,
            suffix=suffix,
            workers=min(workers, len(todo)),
            isolate=isolate,
            report=report,
            on_event=on_event,
            **given,
        )
    for outcome in outcomes if as_json else ():
        click.echo(json.dumps(outcome.to_json()))
    return _summary(outcomes, dry=bool(given["dry_run"]))


def _processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _tell(outcome: Outcome) -> None:
    for text in outcome.warnings:
        output.warning(f"{outcome.source}: {text}")
    if outcome.error is not None:
        output.error(outcome.error)


def _summary(outcomes: list[Outcome], *, dry: bool) -> int:
    from lstmconvert.bulk.report import FAILED, SKIPPED, WRITTEN
    from lstmconvert.cli.shapes import counted, number

    counts = dict.fromkeys((WRITTEN, SKIPPED, FAILED), 0)
    for outcome in outcomes:
        counts[outcome.status] += 1
    words = {
        WRITTEN: "would be written" if dry else "written",
        SKIPPED: "done before",
        FAILED: "failed",
    }
    parts = [f"{number(counts[status])} {word}" for status, word in words.items() if counts[status]]
    output.done(f"{counted(len(outcomes), 'file')}: {', '.join(parts)}")
    return FINDING if counts[FAILED] else 0


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal; yield what moves it by one file."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    )
    with bar:
        task = bar.add_task("", total=count)
        yield lambda: bar.advance(task)
