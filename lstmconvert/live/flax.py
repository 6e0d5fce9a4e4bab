"""Flax modules out of neutral layers, and back: linen with its variables, and nnx."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.layouts.plain import arrange
from lstmconvert.live import jax as shared
from lstmconvert.live.sources import imported, layers_of, value_of
from lstmconvert.model import edit
from lstmconvert.model.layer import Cell, Direction, LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.model.options import UNKNOWN


def _modules(
    make: Callable[..., Any], value: Model, *, optimized: bool, allow_lossy: bool
) -> dict[str, Any]:
    """Return what `to_flax` or `to_nnx` makes of each LSTM layer of a model."""
    made = partial(make, optimized=optimized, allow_lossy=allow_lossy)
    return {name: made(layer) for name, layer in value.items()}


def _module(library: Any, layer: LSTMLayer, cell: Callable[..., Any]) -> Any:
    """Return the module of a layer: one RNN, or the Bidirectional of two.

    Args:
        library: `flax.linen`, or `flax.nnx`.
        layer: the layer.
        cell: makes the library's cell of ours; it takes Flax's keywords of a cell.

    Raises:
        UnknownOption: the module depends on an option that is unknown.
        UnsupportedByTarget: it is a Bidirectional whose forward half goes backwards, or JAX does
            not have its functions.
    """
    given = shared.functions(layer)

    def rnn(direction: Direction, reverse: bool) -> Any:
        ours = direction.lstm_cells[0]
        return library.RNN(cell(ours, param_dtype=ours.dtype, **given), reverse=reverse)

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
    merge = {} if mode in ("concat", UNKNOWN) else {"merge_fn": _MERGES[mode]}
    return library.Bidirectional(*halves, **merge)


#: Keras's merge modes -> functions of the two outputs; concat is Flax's default.
_MERGES: Mapping[object, Callable[[Any, Any], Any]] = {
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
    None: lambda forward, backward: (forward, backward),
}


# --- linen ----------------------------------------------------------------------------------------

_LINEN_ROWS = ("flax", "flax-cell")
_PARAMS = "params"


def to_flax(value: LSTMLayer | Model, *, optimized: bool = False, allow_lossy: bool = False) -> Any:
    """Return `(module, variables)`: `module.apply(variables, x)` runs (batch, time, inputs).

    The module is an `nn.RNN` over an `nn.LSTMCell`, or an `nn.Bidirectional` of two, with the
    layer's functions, merge mode and direction; it gives every output.

    Args:
        value: a layer; or a model, which gives a dict of its LSTMs by name.
        optimized: over an `nn.OptimizedLSTMCell`, which has the same variables.
        allow_lossy: give a warning, not an error, for what Flax cannot express.

    Raises:
        MissingPackage: Flax is not installed.
        UnknownOption: the module depends on an option that is unknown.
        UnsupportedByTarget: Flax cannot express an option of a layer.
    """
    linen = imported("flax.linen", shared.NEEDS)
    if isinstance(value, Model):
        return _modules(to_flax, value, optimized=optimized, allow_lossy=allow_lossy)
    arrays = arrange(value, "flax", allow_lossy=allow_lossy)
    kind = linen.OptimizedLSTMCell if optimized else linen.LSTMCell
    module = _module(linen, value, lambda cell, **given: kind(cell.units, **given))
    return module, {_PARAMS: shared.nested(arrays)}


def from_flax(variables: Mapping[str, Any], *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of Flax variables; of several, a model.

    Flax's functions are arguments of the module, not among its variables: they stay unknown.

    Args:
        variables: `{"params": …}`, or the params alone, as `module.init` gave or training left.
        name: of the layer, where its module has none.

    Raises:
        UsageError: they are not a mapping.
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
    layers = layers_of(shared.flat(params), _LINEN_ROWS, name)
    return value_of(layers, ", ".join(params)[:80] or "no variables")


# --- nnx ------------------------------------------------------------------------------------------

#: Whether the cell is the optimized one -> its layouts: in an RNN, and alone.
_NNX_ROWS = {False: ("nnx", "nnx-cell"), True: ("nnx-optimized", "nnx-optimized-cell")}


def to_nnx(value: LSTMLayer | Model, *, optimized: bool = False, allow_lossy: bool = False) -> Any:
    """Return an `nnx.RNN` over an `nnx.LSTMCell`, or an `nnx.Bidirectional` of two.

    It has the layer's functions, merge mode and direction, runs (batch, time, inputs) and gives
    every output.

    Args:
        value: a layer; or a model, which gives a dict of its LSTMs by name.
        optimized: over an `nnx.OptimizedLSTMCell`, which has other parameters.
        allow_lossy: give a warning, not an error, for what Flax cannot express.

    Raises:
        MissingPackage: Flax is not installed.
        UnknownOption: the module depends on an option that is unknown.
        UnsupportedByTarget: Flax cannot express an option of a layer.
    """
    nnx = imported("flax.nnx", shared.NEEDS)
    if isinstance(value, Model):
        return _modules(to_nnx, value, optimized=optimized, allow_lossy=allow_lossy)
    arrays = arrange(value, _NNX_ROWS[optimized][0], allow_lossy=allow_lossy)
    kind = nnx.OptimizedLSTMCell if optimized else nnx.LSTMCell

    def made(cell: Cell, **given: Any) -> Any:
        return kind(cell.input_dim, cell.units, rngs=nnx.Rngs(0), **given)

    module = _module(nnx, value, made)
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, shared.nested(arrays))
    nnx.update(module, state)
    return module


def from_nnx(module: Any, *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of an nnx module; of one with several LSTMs, a model.

    Args:
        module: an `nnx.RNN`, `nnx.Bidirectional` or cell, or any module with such inside it, which
            are named by their paths.
        name: of the layer, where the module is itself the LSTM.

    Raises:
        MissingPackage: Flax is not installed.
        UsageError: it is not a module.
        NoLSTM: there is no LSTM cell in it.
    """
    nnx = imported("flax.nnx", shared.NEEDS)
    if not isinstance(module, nnx.Module):
        raise UsageError("not an nnx.Module", found=type(module).__name__)
    layers: list[LSTMLayer] = []
    taken: list[tuple[Any, ...]] = []
    for path, child in _outermost_first(module, nnx):
        if any(path[: len(above)] == above for above in taken):
            continue
        cells = _cells(child, nnx)
        if cells:
            taken.append(path)
            layers += _layers(child, cells, "/".join(map(str, path)) or name, nnx)
    return value_of(layers, type(module).__name__)


def _outermost_first(module: Any, nnx: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    nodes = ((path, node) for path, node in nnx.iter_graph(module) if isinstance(node, nnx.Module))
    return iter(sorted(nodes, key=lambda item: len(item[0])))


def _cells(module: Any, nnx: Any) -> list[Any]:
    """Return the cells of a Bidirectional, an RNN or a cell; none of any other module."""
    if isinstance(module, nnx.Bidirectional):
        halves = [_cells(half, nnx) for half in (module.forward_rnn, module.backward_rnn)]
        return halves[0] + halves[1] if all(halves) else []
    cell = module.cell if isinstance(module, nnx.RNN) else module
    return [cell] if isinstance(cell, (nnx.LSTMCell, nnx.OptimizedLSTMCell)) else []


def _layers(module: Any, cells: list[Any], name: str, nnx: Any) -> list[LSTMLayer]:
    optimized = isinstance(cells[0], nnx.OptimizedLSTMCell)
    arrays = shared.flat(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    layers = layers_of(arrays, _NNX_ROWS[optimized], name)
    return [_with_functions(replace(layer, name=name), cells) for layer in layers]


def _with_functions(layer: LSTMLayer, cells: list[Any]) -> LSTMLayer:
    """Return a layer whose functions are those of the live cells, where these are JAX's own."""
    live = dict(zip(("forward", "backward"), cells, strict=False))

    def with_functions(side: str, _: int, cell: Cell) -> Cell:
        options = replace(
            cell.options,
            activation=shared.activation_of(live[side].activation_fn),
            recurrent_activation=shared.activation_of(live[side].gate_fn),
        )
        return replace(cell, options=options)

    return edit.map_cells(layer, with_functions)
