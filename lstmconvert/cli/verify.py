"""`lstmconvert verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lstmconvert.cli import options, output

if TYPE_CHECKING:
    from lstmconvert.verification import Line, Report


_BOUND = click.FloatRange(min=0)


@options.command(
    "Run the same random input through each layer of A, and of B if it is given, in NumPy and in "
    "every installed framework that can take the layer, and compare all outputs with NumPy's in "
    "float64. Exit code 0 if they agree, 1 if one does not.",
    "verify model.keras torch.safetensors",
    "verify model.keras --engine keras --engine torch",
)
@click.argument("a", type=options.PATH)
@click.argument("b", type=options.PATH, required=False)
@click.option(
    "--engine",
    "engines",
    metavar="NAME",
    multiple=True,
    help="Run this engine: numpy, keras, tf_keras, torch, onnxruntime, openvino, flax, nnx, haiku, "
    "equinox, mlx, tinygrad, tf1 or c (gcc). May be given more than once.",
)
@click.option("--rtol", type=_BOUND, metavar="R", help="Relative tolerance; by dtype by default.")
@click.option("--atol", type=_BOUND, metavar="A", help="Absolute tolerance; by dtype by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random input.")
@options.as_json
@options.isolate
def command(
    a: Path,
    b: Path | None,
    engines: tuple[str, ...],
    rtol: float | None,
    atol: float | None,
    seed: int,
    as_json: bool,
) -> int:
    from lstmconvert import verification
    from lstmconvert.cli import failures

    _hush_tensorflow()
    report = verification.verify(a, b, engines=engines, rtol=rtol, atol=atol, seed=seed)
    if as_json:
        output.as_json(report.to_json())
    else:
        _show(report, verification.NAN_POLICY)
    return failures.DONE if report else failures.FINDING


def _hush_tensorflow() -> None:
    """Keep what TensorFlow says of its processor and of old functions from the answer."""
    import logging
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _show(report: Report, policy: str) -> None:
    compared = [line for line in report.lines if line.skipped is None]
    header = ("layer", "file", "engine", "dtype", "max abs", "max rel", "max ULP", "", "")
    if compared:
        output.table([_row(line, report) for line in compared], header=header, right=(4, 5, 6))
    for line in report.lines:
        if line.skipped is not None:
            output.paragraph(f"{line.layer}: {line.engine} was not run: {line.skipped}", indent=2)
    output.line()
    bounds = " and ".join(
        dict.fromkeys(f"{line.atol:g} + {line.rtol:g}·|reference|" for line in compared)
    )
    output.paragraph(
        f"reference: NumPy in float64, on {report.a}. Allowed: {bounds or 'nothing'}. "
        f"seed {report.seed}. {policy}.",
        indent=2,
    )


def _row(line: Line, report: Report) -> tuple[str, ...]:
    verdict = "agrees" if line else f"{line.bad} of {line.size} differ"
    where = "" if line.first_bad is None else f"first at {list(line.first_bad)}"
    return (
        line.layer,
        str(report.a if line.file == "a" else report.b),
        line.engine,
        line.dtype,
        f"{line.max_abs:.2g}",
        f"{line.max_rel:.2g}",
        str(line.max_ulp),
        verdict,
        where,
    )
