"""Layers for a framework's row: fitted by `model.fit`, several as one stack, and what to tell.

A row's arrays hold weights and no options. `notices` tells the framework's user what
to pass or to do, so that the framework computes the same as the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from lstmconvert.errors import UsageError
from lstmconvert.layouts.row import Row
from lstmconvert.model.activations import SIGMOID, TANH
from lstmconvert.model.fit import Fitter
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.options import UNKNOWN, CellOptions

#: What every framework does unless its user asks for something else. It is not told.
_DEFAULTS = CellOptions(activation=TANH, recurrent_activation=SIGMOID)
#: What a user may pass.
_PASSED = (
    *("activation", "recurrent_activation", "output_activation"),
    *("gate_clip", "cell_clip", "projection_clip"),
)
#: How a user joins two halves that the framework runs separately, by merge mode.
_JOINS = {
    "concat": "concatenates the two",
    "sum": "adds the two",
    "mul": "multiplies the two",
    "ave": "averages the two",
    None: "keeps both",
    UNKNOWN: "joins the two as the model does, which the file does not say",
}


def fit_stack(layers: Sequence[LSTMLayer], row: Row, fitter: Fitter) -> tuple[LSTMLayer, ...]:
    """Fit layers that become one module of a framework: one layer, or several as one stack.

    Raises:
        UsageError: the row has no stacks, or the layers do not follow one another.
        UnknownOption, UnsupportedByTarget: see `Fitter`.
    """
    fitted = tuple(fitter.fit(layer) for layer in layers)
    if len(layers) < 2:
        return fitted
    if not row.chained:
        raise UsageError("no stacks of layers in this layout", found=row.name)
    names = ", ".join(layer.name for layer in layers)
    for layer in fitted:
        if len(layer.forward.cells) != 1:
            raise UsageError("a layer of several cells cannot join a stack", where=layer.name)
    for before, after in pairwise(fitted):
        width = sum(d.lstm_cells[-1].recurrent_dim for _, d in before.directions)
        same = _shape(before) == _shape(after)
        if not same or after.input_dim != width:
            raise UsageError(
                "these layers do not fit into one stack",
                where=names,
                found=f"{after.name} takes {after.input_dim} inputs, {_shape(after)}",
                expected=f"{width} inputs, {_shape(before)}",
            )
        if before.forward.options.return_sequences is False:
            raise UsageError(
                "a layer inside a stack hands on its whole sequence",
                where=before.name,
                found="return_sequences=False",
                expected="True",
            )
    return fitted


def _shape(layer: LSTMLayer) -> str:
    directions = "two directions" if layer.backward else "one direction"
    cell = layer.forward.lstm_cells[0]
    return f"{directions} of {cell.units} units, {cell.recurrent_dim} wide, {cell.dtype.name}"


def notices(layer: LSTMLayer, row: Row, *, in_document: bool) -> list[str]:
    """Return what the user of a framework has to do, so that it computes what a layer computes.

    Args:
        layer: the layer, fitted.
        row: the framework.
        in_document: whether the file says the layer's options, so that its user need not.
    """
    texts = [*_states(layer), *_halves(layer, row, in_document=in_document)]
    passed = [] if in_document else list(_passed(layer, row))
    if passed:
        texts.append(
            f"{row.title} keeps no options with its weights: the caller passes {', '.join(passed)}"
        )
    return [f"{layer.name}: {text}" for text in texts]


def _states(layer: LSTMLayer) -> Iterator[str]:
    options = layer.forward.options
    if options.stateful is True:
        yield (
            "it is stateful: each run starts from zero unless the caller passes on the final state"
        )
    if layer.options.masked is True:
        yield "a mask reaches it in its model: the caller must skip those steps"
    if options.time_major is True:
        yield "it is time_major: its input is (time, batch, inputs)"


def _halves(layer: LSTMLayer, row: Row, *, in_document: bool) -> Iterator[str]:
    if layer.backward is None:
        return
    mode, units = layer.options.merge_mode, layer.forward.units
    if not row.bidirectional:
        yield (
            f"{row.title} runs one direction: the caller runs the backward half on the reversed "
            f"input, reverses its outputs in time, and {_JOINS.get(mode, _JOINS[UNKNOWN])}"
        )
        return
    if mode is UNKNOWN and len(row.merge_modes) == 1:
        yield (
            "the file does not say how its two halves are joined (merge_mode): "
            f"{row.title} gives them side by side"
        )
    gives_last = row.gives_last or (in_document and row.document_gives_last)
    if layer.forward.options.return_sequences is False and not gives_last:
        yield (
            f"{row.title} gives every step: with return_sequences=False the output is the last "
            f"step of the forward half (the first {units} columns) and the first step of the "
            "backward half"
        )


def _passed(layer: LSTMLayer, row: Row) -> Iterator[str]:
    """Yield `option=value` for what differs from every framework's default."""
    has = row.expresses | ({"activation", "recurrent_activation"} - row.fixed.keys())
    passed: dict[str, None] = {}
    for _, _, cell in layer.cells():
        for option in _PASSED:
            value = getattr(cell.options, option)
            if option == "output_activation" and value == cell.options.activation:
                continue
            if option in has and value != getattr(_DEFAULTS, option):
                passed[f"{option}={value}"] = None
        for option, value in (cell.options.convolution or {}).items():
            passed[f"{option}={value}"] = None
    yield from passed
    backwards = layer.forward.options.go_backwards
    if "go_backwards" in has and backwards is not False:
        yield f"go_backwards={backwards}"
    joins = layer.backward is not None and row.bidirectional and len(row.merge_modes) > 1
    if joins and layer.options.merge_mode != "concat":
        yield f"merge_mode={layer.options.merge_mode}"
