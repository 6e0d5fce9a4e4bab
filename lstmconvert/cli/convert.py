"""`lstmconvert convert`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lstmconvert.cli import options, output
from lstmconvert.containers import table

if TYPE_CHECKING:
    from lstmconvert.conversion import Result
    from lstmconvert.model.model import Model


@options.command(
    f"Write the model in SRC to DST, whose suffix names the kind of file: {table.uses()}. Where "
    "DST is a folder, the file in it is named as SRC. The written file is read back and compared "
    "before it takes its name.",
    "convert model.keras lstm.safetensors --to torch",
    "convert lstm.weights.h5 lstm.keras --config architecture.json",
    "convert model.keras lstm.onnx --length-input",
    "convert old.h5 new.keras --explain",
    "convert trained.safetensors new.keras --into model.keras",
    "convert model.keras folder/ --to torch",
)
@click.argument("source", metavar="SRC", type=options.SOURCE)
@options.destination
@options.conversion
@click.option(
    "--layer",
    "layers",
    metavar="NAME",
    multiple=True,
    shell_complete=options.completed("layers"),
    help="Convert this layer alone. May be given more than once.",
)
@click.option(
    "--stack",
    "stacks",
    metavar="NAME=a,b",
    multiple=True,
    help="For framework layouts: the layers a and b, which follow one another, become one of "
    "several layers (PyTorch's num_layers). May be given more than once.",
)
@click.option(
    "--into",
    metavar="FILE",
    type=options.PATH,
    help="Write the weights of SRC into the layers of this file, and all else of it as it is: DST "
    "is FILE with other weights.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Write nothing, and print what would be written, kept, changed, left out and assumed. "
    "Without DST: for a file of the usual kind in this folder.",
)
@options.as_json
@options.isolate
@options.fetched("source")
def command(
    source: Path, destination: Path | str, as_json: bool, explain: bool, **given: Any
) -> None:
    from lstmconvert.errors import UnsupportedByTarget

    named = str(click.get_current_context().params["source"])
    try:
        if explain:
            _explain(source, destination, named, as_json=as_json, **given)
            return
        with output.progress():
            model, result = _converted(source, destination, named, given)
    except UnsupportedByTarget as error:
        from lstmconvert.checks import explanation  # rarely needed: start-up is faster without

        # Of a whole model another layer may be what stops it, and of an era the file's Keras.
        if not (given["whole"] or given["era"]):
            explanation.point_out(error, source, **given)
        raise
    output.detail(
        f"opened {named}: {table.title_of(model.source.container)}, "
        f"Keras {model.source.keras_version or 'of a version that it does not say'}, "
        f"layout {model.layout}"
    )
    output.detail(
        f"as {table.title_of(result.container)}, layout {result.layout}: {', '.join(result.layers)}"
    )
    for text in result.warnings:
        output.warning(text)
    for text in result.notes:
        output.note(text)
    if as_json:
        output.as_json(result.to_json())
    else:
        output.done(result.summary)


def _converted(
    source: Path, destination: Path | str, named: str, given: dict[str, Any]
) -> tuple[Model, Result]:
    """Convert a file, and send what was made where the destination is a URL.

    Args:
        source: the file on this machine.
        destination: a path, or a URL.
        named: what the user called the source.
        given: the options.
    """
    from lstmconvert import api

    if isinstance(destination, Path):
        return api.converted(source, destination, **given)
    from lstmconvert.bulk import ends

    force, dry = given["force"], given["dry_run"]
    with ends.going_to(destination, source=named, force=force, dry=dry) as sending:
        model, result = api.converted(source, sending.path, **given)
        sending.send(result.files if result.written else ())
        return model, replace(result, url=destination)


def _explain(
    source: Path, destination: Path | str, named: str, *, as_json: bool, **given: Any
) -> None:
    from lstmconvert.checks import explanation

    if isinstance(destination, Path):
        report = explanation.explain(source, destination, **given)
    else:
        from lstmconvert.bulk import ends

        with ends.going_to(destination, source=named, force=True, dry=True) as sending:
            report = explanation.explain(source, sending.path, **given)
            report = replace(report, result=replace(report.result, url=destination))
    if as_json:
        output.as_json(report.to_json())
    else:
        report.show(output)
