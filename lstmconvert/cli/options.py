"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from lstmconvert.cli import output
from lstmconvert.files.names import is_url

F = TypeVar("F", bound=Callable[..., Any])

#: Whether it can be read is found out by reading it, which gives the better message.
PATH = click.Path(path_type=Path, readable=False)

class _PathOrURL(click.Path):
    """The path of a file, as a `Path`; a URL stays a text, of which a `Path` would drop a slash."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if isinstance(value, str) and is_url(value):
            return value
        return super().convert(value, param, ctx)


#: The source of a command: a file, a folder, or the URL of one.
SOURCE = _PathOrURL(path_type=Path, readable=False)

#: What `--rtol` and `--atol` take.
BOUND = click.FloatRange(min=0)

def completed(name: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes a value at the TAB key: a function of `completing`, by its name."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        del parameter  # click's signature
        from lstmconvert.cli import completion  # imported late: no other run needs it

        values: list[str] = getattr(completion, name)(context)
        return [value for value in values if value.startswith(incomplete)]

    return complete


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
layer = click.option(
    "--layer",
    metavar="NAME",
    shell_complete=completed("layers"),
    help="Show this layer alone.",
)


def destination(function: F) -> F:
    """Add the argument `DST`: a file, a folder in which one is named as SRC, or the URL of a file.

    With `--explain` it may be left out, and is this folder.
    """

    @functools.wraps(function)
    def resolved(*args: Any, destination: str | None, **given: Any) -> Any:
        from lstmconvert.targets import file_path, in_folder

        if destination is None and not given.get("explain"):
            raise click.UsageError("Missing argument 'DST'.", click.get_current_context())
        if destination is not None and is_url(destination):
            file_path(destination)
            return function(*args, destination=destination, **given)
        source = given["source"]
        if isinstance(source, str):
            from lstmconvert.bulk import stores  # imported late to keep start-up fast

            source = Path(stores.name_of(source))
        path = in_folder(destination or ".", source, given.get("layout"), given)
        return function(*args, destination=path, **given)

    kind = click.Path(path_type=str, readable=False)  # a `Path` forgets a `/` at the end
    argument = click.argument("destination", metavar="DST", type=kind, required=False)
    return cast("F", argument(resolved))


def fetched(*names: str) -> Callable[[F], F]:
    """Give the function paths of this machine for arguments that are URLs: what they name is copied
    to a temporary folder first, and removed after the function.

    Args:
        names: of the arguments.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def brought(**given: Any) -> Any:
            urls = {name: given[name] for name in names if isinstance(given[name], str)}
            if not urls:
                return function(**given)
            from contextlib import ExitStack

            from lstmconvert.bulk import ends  # imported late to keep start-up fast

            with ExitStack() as stack:
                paths = {
                    name: stack.enter_context(ends.brought(url)) for name, url in urls.items()
                }
                return function(**given | paths)

        return cast("F", brought)

    return decorate


def isolate(function: F) -> F:
    """Add `--isolate`: the function's work is then done in a child process with limits."""

    @click.option(
        "--isolate",
        is_flag=True,
        help="Read in a child process with limits on memory and time, so that a file that crashes "
        "a C library (PyTorch's, for one) is an error like any other.",
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
            target if isinstance(target := given.get("destination"), Path) else None,
        )

    return cast("F", isolated)


def command(
    doc: str, *examples: str, kind: type[click.Command] = click.Command
) -> Callable[[F], click.Command]:
    """Make a function a command, of some kind, whose help is `doc` and ends with examples."""
    lines = "\n".join(f"  lstmconvert {example}" for example in examples)
    make = click.command(
        cls=kind,
        help=doc,
        epilog=f"\b\nExamples:\n{lines}",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def made(function: F) -> click.Command:
        result = make(function)
        result.params += [_level(*each) for each in _LEVELS]
        return result

    return made


_LEVELS = (
    ("-q", "--quiet", output.Level.QUIET, "Print the answer and errors alone: no notes, warnings."),
    ("-v", "--verbose", output.Level.VERBOSE, "Say more: what was opened, how long it took."),
)


def _level(short: str, long: str, level: output.Level, doc: str) -> click.Option:
    """Return an option that says how much is told."""

    def set_level(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        del context, parameter  # click's signature
        if value:
            output.speak(level)

    return click.Option(
        [short, long], is_flag=True, expose_value=False, callback=set_level, help=doc
    )


def onnx(function: F) -> F:
    """Add the options that shape an ONNX graph."""
    for decorate in reversed(_ONNX):
        function = decorate(function)
    return function


_ONNX: tuple[Callable[[F], F], ...] = (
    click.option("--fused", is_flag=True, help="For ONNX: write W, R and B instead of gates."),
    click.option(
        "--whole",
        is_flag=True,
        help="For ONNX: write the graph of the whole model, not of its LSTM layers alone.",
    ),
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
        help="For ONNX: the lengths of the sequences are an input; by default all are whole.",
    ),
)


def conversion(function: F) -> F:
    """Add the options that every conversion takes, of one file or of many."""
    for decorate in reversed(_CONVERSION):
        function = decorate(function)
    return function


force = click.option("--force", is_flag=True, help="Replace a destination that exists.")
settings = click.option(
    "--set",
    "settings",
    metavar="[LAYER.]OPTION=VALUE",
    multiple=True,
    shell_complete=completed("settings"),
    help="Set an option that the file does not state. May be given more than once.",
)
_CONVERSION: tuple[Callable[[F], F], ...] = (
    click.option(
        "--check",
        is_flag=True,
        help="Store one input and what the model gives for it in the file; lstmconvert verify "
        "uses it.",
    ),
    click.option(
        "--fold-batchnorm",
        is_flag=True,
        help="For chains of layers: put each BatchNormalization into the weights of a layer next "
        "to it, which rounds them.",
    ),
    click.option(
        "--prefix", metavar="NAME", help="For C: what every name in the header begins with."
    ),
    click.option(
        "--weights",
        metavar="KIND",
        shell_complete=completed("integers"),
        help="For C: write matrices as int16 or int8, with one scale for each column. It rounds: "
        "the header and --json say how far the outputs go.",
    ),
    click.option(
        "--from",
        "from_layout",
        metavar="LAYOUT",
        shell_complete=completed("layouts"),
        help="How SRC arranges the gates: torch, flax, … By default its metadata tell, "
        "or else its names.",
    ),
    click.option(
        "--to",
        "layout",
        metavar="LAYOUT",
        shell_complete=completed("layouts"),
        help="How to arrange the gates: torch, flax, … (lstmconvert formats lists them). By "
        "default gates for .safetensors, .npz and .onnx, keras for Keras files.",
    ),
    click.option(
        "--dtype",
        metavar="DTYPE",
        shell_complete=completed("dtypes"),
        help="Cast the LSTM weights: float32, float16, bfloat16 or float64.",
    ),
    click.option(
        "--config",
        metavar="FILE",
        type=PATH,
        help="The model's config, for options that SRC does not state: the JSON of to_json(), the "
        "YAML of to_yaml(), a .keras, a whole-model .h5, a SavedModel or a file of lstmconvert.",
    ),
    settings,
    click.option(
        "--lstm-only",
        is_flag=True,
        help="Leave out everything that does not belong to an LSTM layer.",
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
    click.option(
        "--era",
        type=click.Choice(["keras2", "keras3"]),
        help="For Keras destinations: the Keras that is to open the file. A file of Keras 2 goes "
        "back as one where the kind of file is the same, and is modernised where it is another.",
    ),
    click.option(
        "--for-keras",
        metavar="RELEASE",
        help="For Keras destinations: the release of Keras 3 that is to open the file, as 3.3. "
        "Where Keras 2's hard_sigmoid needs a later one, the weights are rescaled.",
    ),
    click.option(
        "--keep-custom",
        is_flag=True,
        help="For Keras destinations: write layers of your own classes as they stand. Keras is "
        "then given the classes by custom_objects.",
    ),
    click.option(
        "--weights-of",
        metavar="CLASS=a,b",
        multiple=True,
        help="For --keep-custom: the attributes under which a class of your own holds the layers "
        "that its weights belong to, in their order. May be given more than once.",
    ),
    click.option(
        "--replace",
        metavar="LAYER=NEW",
        multiple=True,
        help="For whole models: put something else in a layer's place. NEW is a file (.json) with "
        "the config of a layer of Keras, which gets the weights in their order; or, for a Lambda, "
        "what it computes: 'ops.expand_dims(x, -1)'. May be given more than once.",
    ),
    click.option(
        "--no-compile",
        is_flag=True,
        help="For Keras destinations: leave out what the model was compiled with: its optimizer, "
        "loss and metrics.",
    ),
    force,
    click.option(
        "--allow-lossy",
        is_flag=True,
        help="Accept that the destination cannot express some of what a layer does.",
    ),
    click.option("--dry-run", is_flag=True, help="Do everything but write."),
)
