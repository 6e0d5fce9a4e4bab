"""Flax nnx modules out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lstmconvert.errors import UsageError
from lstmconvert.layer import Cell, Direction, LSTMLayer
from lstmconvert.layouts.plain import arrange
from lstmconvert.live import jax as shared
from lstmconvert.live.flax import joined
from lstmconvert.live.sources import imported, layers_of, value_of
from lstmconvert.model import Model

#: Whether the cell is the optimized one -> its layouts: in an RNN, and alone.
_ROWS = {False: ("nnx", "nnx-cell"), True: ("nnx-optimized", "nnx-optimized-cell")}


def to_nnx(value: LSTMLayer | Model, *, optimized: bool = False, allow_lossy: bool = False) -> Any:
    """Return an `nnx.RNN` over an `nnx.LSTMCell`, or an `nnx.Bidirectional` of two.

    It has the layer's functions, merge mode and direction, runs (batch, time, inputs) and gives
    every output.

    Args:
        value: a layer; or a model, which gives a dict by layer name.
        optimized: over an `nnx.OptimizedLSTMCell`, which has other parameters.
        allow_lossy: give a warning, not an error, for what Flax cannot express.

    Raises:
        MissingPackage: Flax is not installed.
        UnknownOption: the module depends on an option that no file said.
        UnsupportedByTarget: Flax cannot express an option of a layer.
    """
    nnx = imported("flax.nnx", shared.EXTRA)
    if isinstance(value, Model):
        return {
            name: to_nnx(layer, optimized=optimized, allow_lossy=allow_lossy)
            for name, layer in value.items()
        }
    arrays = arrange(value, _ROWS[optimized][0], allow_lossy=allow_lossy)
    kind = nnx.OptimizedLSTMCell if optimized else nnx.LSTMCell
    given = shared.functions(value)

    def rnn(direction: Direction, reverse: bool) -> Any:
        cell = direction.lstm_cells[0]
        made = kind(
            cell.input_dim, cell.units, param_dtype=cell.dtype, rngs=nnx.Rngs(0), **given
        )
        return nnx.RNN(made, reverse=reverse)

    module = joined(value, rnn, nnx.Bidirectional)
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
        UsageError: it is no module.
        NoLSTM: there is no LSTM cell in it.
    """
    nnx = imported("flax.nnx", shared.EXTRA)
    if not isinstance(module, nnx.Module):
        raise UsageError("not an nnx.Module", found=type(module).__name__)
    layers: list[LSTMLayer] = []
    taken: list[tuple[Any, ...]] = []
    for path, found in _outermost_first(module, nnx):
        if any(path[: len(above)] == above for above in taken):
            continue
        cells = _cells(found, nnx)
        if cells:
            taken.append(path)
            layers += _layers(found, cells, "/".join(map(str, path)) or name, nnx)
    return value_of(layers, type(module).__name__)


def _outermost_first(module: Any, nnx: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    found = [(path, node) for path, node in nnx.iter_graph(module) if isinstance(node, nnx.Module)]
    return iter(sorted(found, key=lambda item: len(item[0])))


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
    layers = layers_of(arrays, _ROWS[optimized], name)
    return [_with_functions(replace(layer, name=name), cells) for layer in layers]


def _with_functions(layer: LSTMLayer, cells: list[Any]) -> LSTMLayer:
    """Return a layer whose functions are those of the live cells, where these are JAX's own."""
    halves = {}
    for (side, direction), live in zip(layer.directions, cells, strict=False):
        cell: Cell = direction.lstm_cells[0]
        options = replace(
            cell.options,
            activation=shared.activation_of(live.activation_fn),
            recurrent_activation=shared.activation_of(live.gate_fn),
        )
        halves[side] = replace(direction, cells=(replace(cell, options=options),))
    return replace(layer, forward=halves["forward"], backward=halves.get("backward"))
