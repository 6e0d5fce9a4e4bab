"""`lstmconvert convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lstmconvert.cli import options, output
from lstmconvert.errors import UsageError

if TYPE_CHECKING:
    from lstmconvert.targets import Result, Target

#: Options that mean something for some targets only: option -> what it is for.
_LAYOUTS = "framework layouts (--to torch, flax, …)"
_ONNX = "ONNX destinations (.onnx)"
_GATES = "destinations of named arrays (.safetensors, .npz, .onnx, .json)"
_KERAS = "Keras destinations (.keras, .weights.h5, .h5)"
_ONNX_OPTIONS = ("fused", "chain", "opset", "state_inputs", "length_input")
#: Options that may be given more than once.
_SINGULAR = frozenset({"layers", "stacks"})
#: Options that contradict each other: the second leaves out what the first asks for.
_CONTRADICTIONS = (
    ("with_other", "lstm_only"),
    ("with_optimizer", "lstm_only"),
    ("with_other", "layers"),
    ("with_optimizer", "layers"),
)


@options.command(
    "Write the model in SRC to DST, whose suffix names the kind of file: .safetensors or .npz for "
    "one tensor a gate, .onnx for a graph that runs, .keras, .weights.h5 or .h5 for Keras, .h for "
    "C; .tflite, .mlmodel, .param, .params, .mat, .msgpack, .eqx and .json are frameworks' own. "
    "What is written is read back and compared bit for bit before it takes its name.",
    "convert model.keras lstm.safetensors --to torch",
    "convert lstm.weights.h5 lstm.keras --config architecture.json",
    "convert model.keras lstm.onnx --length-input",
)
@click.argument("source", metavar="SRC", type=options.PATH)
@options.destination
@options.conversion
@click.option(
    "--layer",
    "layers",
    metavar="NAME",
    multiple=True,
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
@options.as_json
@options.isolate
def command(
    source: Path,
    destination: Path,
    from_layout: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    from lstmconvert import api, targets

    check(targets.target_of(destination, given["layout"]), destination, given)
    result = api.convert(
        source,
        destination,
        from_layout=from_layout,
        **given,
    )
    for text in result.warnings:
        output.warning(text)
    if as_json:
        output.as_json(_json(result))
    else:
        output.done(_summary(result))


def check(target: Target, destination: Path, given: dict[str, Any]) -> None:
    """Raise `UsageError` for an option that means nothing here, or contradicts another."""
    is_keras, is_onnx = target.is_keras, target.container == "onnx"
    is_framework = not is_keras and (given["layout"] or target.default) != "gates"
    for option, purpose, fits in (
        *((option, _ONNX, is_onnx) for option in _ONNX_OPTIONS),
        ("bare", _LAYOUTS, is_framework),
        ("stacks", _LAYOUTS, is_framework),
        ("with_other", _GATES, not is_keras),
        ("rescale_hard_sigmoid", _KERAS, is_keras),
    ):
        if given.get(option) not in (None, False, ()) and not fits:
            raise UsageError(f"{_flag(option)} is for {purpose}", found=destination)
    for wanted, other in _CONTRADICTIONS:
        if given.get(wanted) and given.get(other):
            raise UsageError(f"{_flag(wanted)} and {_flag(other)} contradict each other")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}" if name not in _SINGULAR else f"--{name[:-1]}"


def _json(result: Result) -> dict[str, Any]:
    return {
        "version": 1,
        "destination": str(result.destination),
        "container": result.container,
        "layout": result.layout,
        "layers": list(result.layers),
        "tensors": result.tensors,
        "whole_model": result.whole_model,
        "all_weights": result.all_weights,
        "losses": list(result.losses),
        "warnings": list(result.warnings),
        "written": result.written,
    }


def _summary(result: Result) -> str:
    from lstmconvert.cli.shapes import counted

    verb = "wrote" if result.written else "would write"
    layers = counted(len(result.layers), "LSTM layer")
    what = f"{counted(result.tensors, 'tensor')}, {layers}"
    if result.layout == "keras":
        what += _extent(result)
    return f"{verb} {result.destination}: {what}"


def _extent(result: Result) -> str:
    if result.whole_model and result.container != "weights.h5":
        return ", the whole model"
    if result.all_weights:
        return ", all weights of the model"
    return " alone, not the whole model"
