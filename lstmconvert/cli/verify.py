"""`lstmconvert verify`."""

from __future__ import annotations

from pathlib import Path

import click

from lstmconvert.cli import options, output


@options.command(
    "Run the same random input through each layer of A, and of B if it is given, in NumPy and in "
    "every installed framework that can take the layer, and compare all outputs with NumPy's in "
    "float64. A check that convert --check stored in A is made first: in NumPy, in Keras, and in "
    "what runs such files as they are. Exit code 0 if they agree, 1 if one does not.",
    "verify model.keras torch.safetensors",
    "verify checked.onnx --engine onnxruntime",
    "verify model.keras --engine keras --engine torch",
    "verify model.keras --whole",
)
@click.argument("a", type=options.SOURCE)
@click.argument("b", type=options.SOURCE, required=False)
@click.option(
    "--engine",
    "engines",
    metavar="NAME",
    multiple=True,
    shell_complete=options.completed("engines"),
    help="Run this engine: numpy, keras, tf_keras, torch, onnxruntime, openvino, flax, nnx, haiku, "
    "equinox, mlx, tinygrad, tf1, litert or c (gcc). May be given more than once.",
)
@click.option(
    "--rtol", type=options.BOUND, metavar="R", help="Relative tolerance; by dtype by default."
)
@click.option(
    "--atol", type=options.BOUND, metavar="A", help="Absolute tolerance; by dtype by default."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random input.")
@click.option(
    "--whole",
    is_flag=True,
    help="Run the whole model in Keras, and in ONNX Runtime the graph that convert --whole writes; "
    "engines: keras, tf_keras, onnxruntime, openvino.",
)
@options.as_json
@options.isolate
@options.fetched("a", "b")
def command(
    a: Path,
    b: Path | None,
    engines: tuple[str, ...],
    rtol: float | None,
    atol: float | None,
    seed: int,
    whole: bool,
    as_json: bool,
) -> int:
    from lstmconvert.checks import verification
    from lstmconvert.cli import failures

    _hush_tensorflow()
    with output.progress():
        report = verification.verify(
            a, b, engines=engines, rtol=rtol, atol=atol, seed=seed, whole=whole
        )
    if as_json:
        output.as_json(report.to_json())
    else:
        report.show(output)
    if not report.is_compared:
        return failures.TROUBLE
    return failures.DONE if report else failures.FINDING


def _hush_tensorflow() -> None:
    """Keep TensorFlow's notes on processors and old functions out of the output."""
    import logging
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
