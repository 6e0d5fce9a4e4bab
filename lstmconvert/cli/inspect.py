"""`lstmconvert inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from lstmconvert.cli import options, output

#: What `--precision` takes for the shortest text that reads back as the same number.
_EXACT = "exact"
#: A float64 needs no more significant digits.
_MOST_DIGITS = 17


def _digits(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | int | None:
    if value in (None, _EXACT):
        return value
    if value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= _MOST_DIGITS:
        return int(value)
    raise click.BadParameter(
        f"{value!r}: neither a number of digits, 1 to {_MOST_DIGITS}, nor {_EXACT}",
        context,
        parameter,
    )


@options.command(
    "Show what the file SRC holds: each LSTM layer's tensors, why they have their shapes, which "
    "columns are which gate's, the options, and how many parameters there are.",
    "inspect model.keras",
    "inspect model.keras --values --gate forget",
    "inspect model.keras --json --stats",
)
@click.argument("source", metavar="SRC", type=options.SOURCE)
@options.as_json
@click.option(
    "--stats", is_flag=True, help="Read the weights: range, mean, NaN and other oddities."
)
@click.option(
    "--values",
    is_flag=True,
    help="Print the weights, gate by gate. A large matrix shows its corners; --json has all of it.",
)
@click.option(
    "--precision",
    metavar="DIGITS",
    callback=_digits,
    help="For --values: significant digits of the largest weight, by default 3; or exact, the "
    "shortest text that reads back as the same number.",
)
@options.layer
@click.option(
    "--gate",
    type=click.Choice(["input", "forget", "cell", "output"]),
    help="For --values and --stats: this gate alone.",
)
@options.isolate
@options.fetched("source")
def command(
    source: Path,
    as_json: bool,
    stats: bool,
    values: bool,
    precision: str | int | None,
    layer: str | None,
    gate: str | None,
) -> None:
    from lstmconvert.checks import inspection

    if gate is not None and not (values or stats):
        raise click.UsageError("--gate chooses among the weights: say --values or --stats too")
    if precision is not None and not values:
        raise click.UsageError("--precision is for the numbers of --values: say that too")
    if precision is not None and as_json:
        raise click.UsageError("--json prints every number exactly: leave --precision away")
    report = inspection.inspect(source, layer=layer, stats=stats, values=values, gate=gate)
    with output.progress():
        report.read()
    if as_json:
        output.as_json(report.streamed())
        return
    from lstmconvert.checks.explain import DIGITS

    report.show(output, digits=None if precision == _EXACT else int(precision or DIGITS))
