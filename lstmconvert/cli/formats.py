"""`lstmconvert formats`."""

from __future__ import annotations

import click

from lstmconvert.cli import options, output


@options.command(
    "List the layouts that --to and --from take: how each framework arranges the gates, what it "
    "keeps, what it changes, what it cannot express, and whether the real framework has run the "
    "weights in the tests. Then list the kinds of files that are read and written.",
    "formats torch",
    "formats --json",
)
@click.argument(
    "layout", metavar="[LAYOUT]", required=False, shell_complete=options.completed("layouts")
)
@options.as_json
def command(layout: str | None, as_json: bool) -> None:
    from lstmconvert.checks.formats import formats

    report = formats(layout)
    if as_json:
        output.as_json(report.to_json())
    else:
        report.show(output)
