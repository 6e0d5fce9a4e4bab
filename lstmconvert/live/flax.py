"""Flax linen modules and their variables out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.layer import Direction, LSTMLayer
from lstmconvert.layouts.plain import arrange
from lstmconvert.live import jax as shared
from lstmconvert.live.sources import imported, layers_of, value_of
from lstmconvert.model import Model
from lstmconvert.options import UNKNOWN

_ROWS = ("flax", "flax-cell")
_PARAMS = "params"


def to_flax(value: LSTMLayer | Model, *, optimized: bool = False, allow_lossy: bool = False) -> Any:
    """Return `(module, variables)`: `module.apply(variables, x)` runs (batch, time, inputs).

    The module is an `nn.RNN` over an `nn.LSTMCell`, or an `nn.Bidirectional` of two, with the
    layer's functions, merge mode and direction; it gives every output.

    Args:
        value: a layer; or a model, which gives a dict by layer name.
        optimized: over an `nn.OptimizedLSTMCell`, which has the same variables.
        allow_lossy: give a warning, not an error, for what Flax cannot express.

    Raises:
        MissingPackage: Flax is not installed.
        UnknownOption: the module depends on an option that no file said.
        UnsupportedByTarget: Flax cannot express an option of a layer.
    """
    linen = imported("flax.linen", shared.EXTRA)
    if isinstance(value, Model):
        return {
            name: to_flax(layer, optimized=optimized, allow_lossy=allow_lossy)
            for name, layer in value.items()
        }
    arrays = arrange(value, "flax", allow_lossy=allow_lossy)
    kind = linen.OptimizedLSTMCell if optimized else linen.LSTMCell
    given = shared.functions(value)

    def rnn(direction: Direction, reverse: bool) -> Any:
        dtype = direction.lstm_cells[0].dtype
        cell = kind(direction.units, param_dtype=dtype, **given)
        return linen.RNN(cell, reverse=reverse)

    return joined(value, rnn, linen.Bidirectional), {_PARAMS: shared.nested(arrays)}


def joined(
    layer: LSTMLayer, rnn: Callable[[Direction, bool], Any], bidirectional: Callable[..., Any]
) -> Any:
    """Return the module of a layer: one RNN, or the Bidirectional of two.

    Raises:
        UnsupportedByTarget: it is a Bidirectional whose forward half goes backwards.
    """
    backwards = layer.forward.options.go_backwards
    if layer.backward is None:
        return rnn(layer.forward, backwards is True)
    mode = layer.options.merge_mode
    if backwards is True or layer.backward.options.go_backwards is False:
        raise UnsupportedByTarget(
            "the Bidirectional of Flax runs forward, then backward",
            where=layer.name,
            layer=layer.name,
            option="go_backwards",
            target="flax",
            found="a forward half that goes backwards",
        )
    halves = rnn(layer.forward, False), rnn(layer.backward, False)
    if mode in ("concat", UNKNOWN):
        return bidirectional(*halves)
    return bidirectional(*halves, merge_fn=_MERGES[mode])


#: Keras's merge modes -> what they do with the two outputs; concat is Flax's own.
_MERGES: Mapping[object, Callable[[Any, Any], Any]] = {
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
    None: lambda forward, backward: (forward, backward),
}


def from_flax(variables: Mapping[str, Any], *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of Flax variables; of several, a model.

    Flax's functions are arguments of the module, not among its variables: they stay unknown.

    Args:
        variables: `{"params": …}`, or the params alone, as `module.init` gave or training left.
        name: of the layer, where its module has none.

    Raises:
        UsageError: they are no mapping.
        NoLSTM: there are no parameters of an LSTM cell among them.
        CorruptFile: the shapes of some contradict each other.
    """
    if not isinstance(variables, Mapping):
        raise UsageError(
            "Flax's variables are a mapping",
            found=type(variables).__name__,
            hint='give module.init(…), or its "params"',
        )
    params = variables.get(_PARAMS, variables)
    found = layers_of(shared.flat(params), _ROWS, name)
    return value_of(found, ", ".join(params)[:80] or "no variables")
