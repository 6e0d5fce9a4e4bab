"""`lstmconvert diff`."""

from __future__ import annotations

from pathlib import Path

import click

from lstmconvert.cli import options


@options.command(
    "Tell whether the files A and B hold the same LSTM layers: every weight bit for bit, every "
    "option that both say by what it means, and every other tensor. Exit code 0 if they do, 1 if "
    "they differ.",
    "diff model.keras lstm.safetensors",
    "diff old.h5 new.keras --weights-only",
)
@click.argument("a", type=options.SOURCE)
@click.argument("b", type=options.SOURCE)
@click.option(
    "--weights-only",
    is_flag=True,
    help="Compare the weights of the LSTM layers alone: no options, no other tensors.",
)
@click.option(
    "--rtol",
    type=options.BOUND,
    metavar="R",
    help="Numbers are equal within R times the number in B, plus --atol. By default every bit "
    "counts.",
)
@click.option(
    "--atol", type=options.BOUND, metavar="A", help="Numbers are equal within A, plus --rtol."
)
@options.as_json
@options.isolate
@options.fetched("a", "b")
def command(
    a: Path,
    b: Path,
    weights_only: bool,
    rtol: float | None,
    atol: float | None,
    as_json: bool,
) -> int:
    from lstmconvert.checks import compare
    from lstmconvert.cli import failures, output

    with output.progress():
        report = compare.diff(a, b, weights_only=weights_only, rtol=rtol, atol=atol)
    if as_json:
        output.as_json(report.streamed())
    else:
        report.show(output)
    return failures.DONE if report else failures.FINDING
