"""`lstmconvert batch`, with `batch report merge` and `batch report summary`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from lstmconvert.cli import options, output
from lstmconvert.cli.failures import FINDING

if TYPE_CHECKING:
    from lstmconvert.bulk.outcome import Outcome
    from lstmconvert.bulk.plan import Plan
    from lstmconvert.bulk.run import Run


class _Batch(click.Command):
    """The command, and `batch report merge|summary`, which look at reports instead."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:

        command = COMMANDS.get(args[1]) if args[:1] == ["report"] and args[1:] else None
        if command is None:
            return super().make_context(info_name, args, parent, **extra)
        name = f"{info_name} report {args[1]}"
        return command.make_context(name, args[2:], parent, **extra)

    def invoke(self, context: click.Context) -> Any:
        if context.command is not self:
            return context.command.invoke(context)
        return super().invoke(context)


@options.command(
    "Convert many files into the folder --out-dir. SRC is a file, a folder, which is searched for "
    "models and whose sub-folders are kept, or a glob; or an fsspec URL of one (s3://, gs://, "
    "hf://, https://). A bad file never stops the others. A destination that exists "
    "counts as done if it is the file that would be written; otherwise the conversion fails, "
    "unless --force is given. A report records the outcome of each file, and a later run goes on "
    "from it. Exit code 1 if any failed or was lost. batch report merge and batch report summary "
    "look at reports.",
    "batch models/ --out-dir gates",
    "batch 'runs/**/*.h5' --out-dir modern --suffix .keras -j 4",
    "batch s3://bucket/models --out-dir s3://bucket/gates",
    "batch --from-file list.txt --out-dir gates --shard 3/8",
    "batch /data/models --out-dir gates --dask tcp://host:8786",
    "batch report summary gates/lstmconvert-batch.jsonl",
    kind=_Batch,
)
@click.argument("sources", metavar="SRC...", nargs=-1)
@click.option("--out-dir", metavar="DIR", required=True, help="The output folder.")
@click.option(
    "--suffix",
    metavar="SUFFIX",
    shell_complete=options.completed("suffixes"),
    default=".safetensors",
    show_default=True,
    help="Names the kind of file, as DST's does in convert.",
)
@click.option(
    "--from-file",
    metavar="FILE",
    help="A file with further sources, one a line; - is the standard input. One that is not there "
    "has failed, and stops no other. Each keeps its path below --root.",
)
@click.option(
    "--root",
    metavar="DIR",
    help="The folder, or URL, below which the sources of --from-file keep their paths. By default "
    "the current folder.",
)
@click.option(
    "--keep-suffix",
    is_flag=True,
    help="Keep the suffix of every source: m.keras becomes m.keras.safetensors, so that it does "
    "not meet m.h5.",
)
@click.option(
    "--shard",
    "part",
    metavar="I/N",
    help="Convert the I-th of N parts: for N jobs that share the work. A file's part depends on "
    "its name alone. Each part has a report of its own.",
)
@click.option(
    "-j",
    "--jobs",
    "workers",
    metavar="N",
    type=int,
    help="How many processes. By default one for each processor.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Convert on the workers of a scheduler of Dask, tcp://host:8786. They must see the same "
    "paths, or URLs.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Convert on a cluster of Ray: auto, host:6379, ray://host:10001, or local.",
)
@click.option(
    "--stall",
    metavar="SECONDS",
    type=float,
    help="With --dask or --ray: give up when nothing is done for this long. By default half an "
    "hour.",
)
@click.option(
    "--report",
    metavar="FILE",
    help="Where to keep the report, a JSON object a line; a URL too. By default "
    "lstmconvert-batch.jsonl in DIR.",
)
@click.option(
    "--skip-without-lstm",
    is_flag=True,
    help="Pass over a file that holds no LSTM layer, and do not count it as failed.",
)
@click.option(
    "--retries",
    metavar="N",
    type=int,
    default=0,
    show_default=True,
    help="Try a file again N times whose failure may pass: its process died, its store was busy.",
)
@options.conversion
@click.option(
    "--isolate",
    is_flag=True,
    help="Limit the memory of each process, and its processor time for each file, so that a file "
    "which crashes a C library, or keeps it busy, has failed like any other.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print what became of each file, in order, as JSON."
)
def command(
    sources: tuple[str, ...],
    out_dir: str,
    suffix: str,
    from_file: str | None,
    root: str | None,
    keep_suffix: bool,
    part: str | None,
    workers: int | None,
    dask: str | None,
    ray: str | None,
    stall: float | None,
    report: str | None,
    skip_without_lstm: bool,
    retries: int,
    isolate: bool,
    as_json: bool,
    **given: Any,
) -> int:
    from lstmconvert.bulk import engines, runners
    from lstmconvert.bulk.plan import shard_of
    from lstmconvert.bulk.report import name_for
    from lstmconvert.bulk.run import Run, plan

    if not sources and from_file is None:
        raise click.UsageError("missing SRC: give files, folders or globs, or --from-file")
    _check_suffix(suffix, given)
    shard = shard_of(part)
    with _listed(from_file) as listed:
        todo = plan(
            sources,
            out_dir,
            suffix=suffix,
            listed=listed,
            root=root,
            keep_suffix=keep_suffix,
            shard=shard,
        )
    workers = _processors() if workers is None else workers
    talk = _Talk(todo, dry=bool(given["dry_run"]))
    with contextlib.ExitStack() as stack:
        executor = engines.chosen({"dask": dask, "ray": ray})
        if executor is not None:
            stack.enter_context(executor)
        ways = runners.Ways(
            executor=executor,
            workers=min(workers, max(1, len(todo))),
            isolated=isolate,
            stall=runners.STALL if stall is None else stall,
            size=len(todo),
        )
        spool = stack.enter_context(_spool(len(todo))) if as_json else None
        run = stack.enter_context(
            Run(
                todo,
                ways,
                place=report,
                report_name=name_for(shard),
                skip_without_lstm=skip_without_lstm,
                retries=retries,
                **given,
            )
        )
        try:
            with _progress(len(todo)) as advance:
                for index, outcome in run.outcomes():
                    talk.tell(outcome)
                    if spool is not None:
                        spool.add(index, outcome)
                    advance()
        except KeyboardInterrupt:
            talk.end(run, interrupted=True)
            raise
        if spool is not None:
            spool.print()
        talk.end(run)
    return talk.code


def _check_suffix(suffix: str, given: dict[str, Any]) -> None:
    """Raise `UsageError` if --suffix, or an option, names no kind of file that is written."""
    from lstmconvert import api
    from lstmconvert.containers import table
    from lstmconvert.errors import UsageError, close_to

    known = table.suffixes(table.written())
    if table.suffix_of(f"x{suffix}", table.written()) is None:
        raise UsageError(
            "--suffix names no kind of file that is written",
            found=suffix or "nothing",
            expected=" ".join(known),
            hint=table.ROADS.get(suffix.lower())
            or (close_to(f".{suffix.lstrip('.')}", known) if suffix else None),
        )
    try:
        api.check_target(f"x{suffix}", **given)
    except UsageError as error:
        # It is about no file yet: what is wrong is what the user said of all of them.
        error.where = f"--suffix {suffix}" if error.where else None
        raise


@contextlib.contextmanager
def _listed(name: str | None) -> Iterator[Iterator[str]]:
    """Yield the lines of the file that lists sources; of none, none."""
    from lstmconvert.bulk import listing

    if name is None:
        yield iter(())
    elif name == "-":
        yield listing.lines(sys.stdin)
    else:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            yield listing.lines(file)


def _processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Talk:
    """What the user is told: of each file what is wrong with it, and at the end how many did what.

    Args:
        todo: the jobs of the run.
        dry: whether nothing is written.
    """

    def __init__(self, todo: Plan, *, dry: bool) -> None:
        self._todo, self._dry = todo, dry
        self._counts: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._passed = Counter(todo.passed)

    @property
    def code(self) -> int:
        """The exit code."""
        from lstmconvert.bulk.outcome import FAILED, LOST

        return FINDING if self._counts[FAILED] or self._counts[LOST] else 0

    def tell(self, outcome: Outcome) -> None:
        """Say what is wrong with a file, and count it."""
        from lstmconvert.bulk.outcome import FAILED, LOST, PASSED_OVER, WRITTEN
        from lstmconvert.bulk.plan import shown
        from lstmconvert.conversion import omission

        self._counts[outcome.status] += 1
        if outcome.status == PASSED_OVER:
            suffix = Path(outcome.source).suffix.lower()
            self._passed["without an LSTM" if outcome.kind == "NoLSTM" else suffix] += 1
        if outcome.status == FAILED:
            self._kinds[outcome.kind or "?"] += 1
        if outcome.status in (FAILED, LOST) and outcome.error is not None:
            output.error(shown(outcome.error))
        output.detail(
            shown(f"{outcome.source}: {outcome.status}: {outcome.destination}")
            + (f", {outcome.seconds:.2f} s" if outcome.seconds else "")
        )
        if outcome.status == WRITTEN:
            for text in outcome.warnings:
                output.warning(shown(f"{outcome.source}: {text}"))
            if outcome.left_out:
                output.note(shown(f"{outcome.source}: {omission(outcome.left_out)}"))

    def end(self, run: Run, *, interrupted: bool = False) -> None:
        """Say how many files did what, where that is written, and how to go on."""
        from lstmconvert.bulk.plan import shown

        output.done(self._summary())
        if run.report is not None:
            output.done(f"report: {shown(run.report)}")
        if interrupted:
            output.hint("the same command goes on where this one stopped")
        elif self.code:
            output.hint("the same command tries again what failed, and leaves alone what is done")

    def _summary(self) -> str:
        from lstmconvert.bulk.outcome import FAILED, LOST, PASSED_OVER, SKIPPED, WRITTEN
        from lstmconvert.errors import counted, number

        words = {
            WRITTEN: "would be written" if self._dry else "written",
            SKIPPED: "done before",
            FAILED: f"failed ({_listed_counts(self._kinds)})",
            LOST: "lost",
        }
        counts = self._counts
        parts = [f"{number(counts[key])} {word}" for key, word in words.items() if counts[key]]
        left = len(self._todo) - counts.total()
        parts += [f"{number(left)} not begun"] if left else []
        tried = counted(len(self._todo) - counts[PASSED_OVER], "file")
        text = f"{tried}: {', '.join(parts)}" if parts else f"{tried} converted"
        return text + (f"; passed over: {_listed_counts(self._passed)}" if self._passed else "")


def _listed_counts(counts: Counter[str]) -> str:
    from lstmconvert.errors import number

    return ", ".join(f"{number(count)} {kind}" for kind, count in sorted(counts.items()))


@contextlib.contextmanager
def _spool(count: int) -> Iterator[_Spool]:
    import tempfile

    with tempfile.TemporaryFile() as file:
        yield _Spool(file, count)


class _Spool:
    """Keeps outcomes in a file as they come, and prints them in the order of the sources."""

    def __init__(self, file: IO[bytes], count: int) -> None:
        self._file, self._starts = file, array("q", [-1]) * count

    def add(self, index: int, outcome: Outcome) -> None:
        """Keep one."""
        self._starts[index] = self._file.seek(0, os.SEEK_END)
        self._file.write(f"{json.dumps(outcome.to_json())}\n".encode())

    def print(self) -> None:
        """Print all."""
        for start in self._starts:
            if start >= 0:
                self._file.seek(start)
                click.echo(self._file.readline().decode(), nl=False)


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal; yield what moves it by one file."""
    if output.is_quiet() or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
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


@options.command(
    "Join reports of batch into one: of each destination the last row, by its time. The reports of "
    "shards are joined so.",
    "batch report merge all.jsonl gates/lstmconvert-batch.*-of-8.jsonl",
)
@click.argument("destination", metavar="DST", type=options.PATH)
@click.argument("reports", metavar="REPORT...", nargs=-1, required=True, type=options.PATH)
@options.force
def merge(destination: Path, reports: tuple[Path, ...], force: bool) -> int:
    from lstmconvert.bulk.report import merged
    from lstmconvert.errors import counted

    count = merged(reports, destination, force=force)
    output.done(
        f"wrote {destination}: {counted(count, 'row')} of {counted(len(reports), 'report')}"
    )
    return 0


@options.command(
    "Say what the reports of batch say: how many files were written, how many failed and of what.",
    "batch report summary gates/lstmconvert-batch.jsonl",
)
@click.argument("reports", metavar="REPORT...", nargs=-1, required=True, type=options.PATH)
@options.as_json
def summary(reports: tuple[Path, ...], as_json: bool) -> int:
    from lstmconvert.bulk.report import rows

    facts = _facts(row for path in reports for row in rows(path))
    if as_json:
        output.as_json(facts)
        return 0
    output.table(
        [
            *([status, f"{count:,}"] for status, count in facts["status"].items()),
            *([f"  {kind}", f"{count:,}"] for kind, count in facts["failed"].items()),
            ["bytes read", f"{facts['source_bytes']:,}"],
            ["bytes written", f"{facts['destination_bytes']:,}"],
            ["seconds of work", f"{facts['seconds']:,.1f}"],
            ["first", facts["first"] or ""],
            ["last", facts["last"] or ""],
        ],
        right=[1],
        indent=0,
    )
    return 0


def _facts(rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    from lstmconvert.bulk.outcome import FAILED, LOST

    status: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    seconds, times = 0.0, ("", "")
    for row in rows:
        status[str(row.get("status"))] += 1
        if row.get("kind") and row.get("status") in (FAILED, LOST):
            kinds[str(row["kind"])] += 1
        for name in ("source_size", "destination_size"):
            numbers[name] += row.get(name) or 0
        seconds += row.get("seconds") or 0
        if time := row.get("time"):
            times = min(times[0] or time, time), max(times[1], time)
    return {
        "status": dict(status),
        "failed": dict(kinds),
        "source_bytes": numbers["source_size"],
        "destination_bytes": numbers["destination_size"],
        "seconds": round(seconds, 3),
        "first": times[0] or None,
        "last": times[1] or None,
    }


COMMANDS = {"merge": merge, "summary": summary}
