"""`lstmconvert view`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lstmconvert.cli import options, output

if TYPE_CHECKING:
    from lstmconvert.model.model import Model


@options.command(
    "Make one HTML page of the file SRC to look at: why its tensors have their shapes, the four "
    "gates as pictures and numbers, and what each unit is like. With SRC2, both files and their "
    "difference; with --input, what happens over time. The page needs no server and no network.",
    "view model.keras -o model.html --open",
    "view before.keras after.keras -o change.html",
    "view model.keras --input sequence.csv --layer lstm",
)
@click.argument("source", metavar="SRC", type=options.SOURCE)
@click.argument("other", metavar="[SRC2]", type=options.SOURCE, required=False)
@click.option(
    "-o",
    "--output",
    "destination",
    metavar="PAGE.html",
    type=options.PATH,
    help="Where to write the page; by default the name of SRC with .html, in this folder.",
)
@options.layer
@click.option(
    "--input",
    "fed",
    metavar="FILE",
    type=options.PATH,
    help="An input of the layer, .npy or .csv: a row for each time step, a column for each input. "
    "The page then shows the gates, the cell state and the output over time.",
)
@click.option(
    "--mask-value",
    metavar="NUMBER",
    type=float,
    help="For --input: steps all of whose inputs are this number are skipped, as Keras's Masking "
    "has it.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=options.PATH,
    help="The model's config, for weights without one.",
)
@options.settings
@click.option("--force", is_flag=True, help="Replace a page that exists.")
@click.option("--open", "is_opened", is_flag=True, help="Open the page in the browser.")
@options.isolate
@options.fetched("source", "other")
def command(
    source: Path,
    other: Path | None,
    destination: Path | None,
    layer: str | None,
    fed: Path | None,
    mask_value: float | None,
    config: Path | None,
    settings: tuple[str, ...],
    force: bool,
    is_opened: bool,
) -> None:
    from lstmconvert.files import writing
    from lstmconvert.pictures import page as pages
    from lstmconvert.pictures.overtime import read_sequence

    if mask_value is not None and fed is None:
        raise click.UsageError("--mask-value marks steps of an input: give --input too")
    target = destination or Path(f"{source.resolve().name}.html")
    paths = [path for path in (source, other) if path is not None]
    for path in paths:
        writing.check_destination(target, force=force, source=path)
    models = [
        pages.Loaded(
            _load(path, config, settings, always=path is source), path.resolve().name, path
        )
        for path in paths
    ]
    x = None if fed is None else read_sequence(fed)
    page = pages.view(*models, layer=layer, x=x, mask_value=mask_value)
    page.save(target, force=force)
    size = target.stat().st_size
    output.done(f"wrote {target}: {size / 1e6:.1f} MB" if size >= 1e5 else f"wrote {target}")
    if is_opened:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())


def _load(path: Path, config: Path | None, settings: tuple[str, ...], *, always: bool) -> Model:
    """Open a file. The user's options are for SRC, and for an SRC2 that has none itself."""
    from lstmconvert import api
    from lstmconvert.checks.inspection import TELLING, unknown_options

    if not always:
        model = api.load(path)
        silent = any(set(unknown_options(layer)) & set(TELLING) for layer in model.layers)
        if not silent:
            return model
    return api.load(path, config=config, settings=settings)
