"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])

#: Whether it can be read is found out by reading it, which gives the better message.
PATH = click.Path(path_type=Path, readable=False)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


def destination(function: F) -> F:
    """Add the argument `DST`, the path of a file."""

    def checked(context: click.Context, parameter: click.Parameter, value: str) -> Path:
        from lstmconvert.targets import file_path

        del context, parameter  # click's signature
        return file_path(value)

    kind = click.Path(path_type=str, readable=False)  # a `Path` forgets a `/` at the end
    return click.argument("destination", metavar="DST", type=kind, callback=checked)(function)


def isolate(function: F) -> F:
    """Add `--isolate`: the function's work is then done in a child process with limits."""

    @click.option(
        "--isolate",
        is_flag=True,
        help="Read in a child process with limits on memory and time, so that a file that crashes "
        "a C library (HDF5's, for one) is an error like any other.",
    )
    @functools.wraps(function)
    def isolated(*args: Any, isolate: bool, **given: Any) -> Any:
        if not isolate:
            return function(*args, **given)
        from lstmconvert.cli import isolation

        sources = [given[name] for name in ("source", "a", "b") if given.get(name) is not None]
        return isolation.run(
            lambda: function(*args, **given),
            " and ".join(map(str, sources)),
            given.get("destination"),
        )

    return cast("F", isolated)


def command(doc: str, *examples: str) -> Callable[[F], click.Command]:
    """Make a function a command whose help is `doc` and ends with examples."""
    lines = "\n".join(f"  lstmconvert {example}" for example in examples)
    return click.command(
        help=doc,
        epilog=f"\b\nExamples:\n{lines}",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def onnx(function: F) -> F:
    """Add the options that shape an ONNX graph."""
    for decorate in reversed(_ONNX):
        function = decorate(function)
    return function


_ONNX: tuple[Callable[[F], F], ...] = (
    click.option("--fused", is_flag=True, help="For ONNX: write W, R and B instead of gates."),
    click.option(
        "--chain",
        is_flag=True,
        help="For ONNX: connect layers that feed one another in the source, with nothing between.",
    ),
    click.option(
        "--opset",
        metavar="N",
        type=int,
        help="For ONNX: the version of the operators, from 14, which most runtimes read and is "
        "the default (22 for bfloat16).",
    ),
    click.option(
        "--state-inputs", is_flag=True, help="For ONNX: initial states are inputs; default zero."
    ),
    click.option(
        "--length-input",
        is_flag=True,
        help="For ONNX: the lengths of the sequences are an input; default all of them whole.",
    ),
)


def conversion(function: F) -> F:
    """Add the options that every conversion takes, of one file or of many."""
    for decorate in reversed(_CONVERSION):
        function = decorate(function)
    return function


_CONVERSION: tuple[Callable[[F], F], ...] = (
    click.option(
        "--from",
        "from_layout",
        metavar="LAYOUT",
        help="How SRC arranges the gates: torch, flax, … By default found out from its metadata, "
        "then its names.",
    ),
    click.option(
        "--to",
        "layout",
        metavar="LAYOUT",
        help="How to arrange the gates: torch, flax, … (lstmconvert formats lists them). By "
        "default gates for .safetensors, .npz and .onnx, keras for Keras files.",
    ),
    click.option(
        "--dtype",
        metavar="DTYPE",
        help="Cast the LSTM weights: float32, float16, bfloat16 or float64.",
    ),
    click.option(
        "--config",
        metavar="FILE",
        type=PATH,
        help="The model's config, for weights without one: the text of to_json(), a .keras "
        "or a whole-model .h5.",
    ),
    click.option(
        "--set",
        "settings",
        metavar="[LAYER.]OPTION=VALUE",
        multiple=True,
        help="Say an option that no file says. May be given more than once.",
    ),
    click.option(
        "--lstm-only", is_flag=True, help="Leave out all that belongs to no LSTM layer."
    ),
    click.option(
        "--with-other",
        is_flag=True,
        help="Carry the other tensors too: the default where the destination is per gate.",
    ),
    click.option("--with-optimizer", is_flag=True, help="Carry the optimizer's slots too."),
    onnx,
    click.option(
        "--bare", is_flag=True, help="For framework layouts: no layer name before tensors'."
    ),
    click.option(
        "--rescale-hard-sigmoid",
        is_flag=True,
        help="For Keras destinations: express the hard_sigmoid of Keras 2 by that of Keras 3 "
        "and rescaled weights, equal to rounding.",
    ),
    click.option("--force", is_flag=True, help="Replace a destination that exists."),
    click.option(
        "--allow-lossy",
        is_flag=True,
        help="Accept that the destination cannot express some of what a layer does.",
    ),
    click.option("--dry-run", is_flag=True, help="Do everything but write."),
)
