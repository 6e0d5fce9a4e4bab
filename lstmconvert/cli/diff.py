"""`lstmconvert diff`."""

from __future__ import annotations

from pathlib import Path

import click

from lstmconvert.cli import options


@options.command(
    "Tell whether the files A and B hold the same LSTM layers: every weight bit for bit, every "
    "option that both say, and every other tensor. Exit code 0 if they do, 1 if they differ.",
    "diff model.keras lstm.safetensors",
    "diff old.h5 new.keras --weights-only",
)
@click.argument("a", type=options.PATH)
@click.argument("b", type=options.PATH)
@click.option(
    "--weights-only",
    is_flag=True,
    help="Compare the weights of the LSTM layers alone: no options, no other tensors.",
)
@options.as_json
@options.isolate
def command(a: Path, b: Path, weights_only: bool, as_json: bool) -> int:
    from lstmconvert import compare
    from lstmconvert.cli import failures, output

    report = compare.diff(a, b, weights_only=weights_only)
    if as_json:
        output.as_json(report.to_json())
    else:
        from lstmconvert.cli import difference

        difference.show(report)
    return failures.DONE if report else failures.FINDING
