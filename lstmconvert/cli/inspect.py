"""`lstmconvert inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from lstmconvert.cli import options, output


@options.command(
    "Show what the file SRC holds: each LSTM layer's tensors, why they have their shapes, which "
    "columns are which gate's, the options, and how many parameters there are.",
    "inspect model.keras",
    "inspect model.keras --json --stats",
)
@click.argument("source", metavar="SRC", type=options.PATH)
@options.as_json
@click.option(
    "--stats", is_flag=True, help="Read the weights: range, mean, NaN and other oddities."
)
@click.option("--layer", metavar="NAME", help="Show this layer alone.")
@options.isolate
def command(source: Path, as_json: bool, stats: bool, layer: str | None) -> None:
    from lstmconvert import api
    from lstmconvert.describe import describe

    model = api.load(source)
    if as_json:
        output.as_json(describe(model, source, layer=layer, stats=stats))
        return
    from lstmconvert.cli import explain

    explain.model(model, source, layer=layer, stats=stats)
