"""What the live frameworks share: a layer's arrays cell by cell, and layers out of named arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.errors import MissingPackage, NoLSTM
from lstmconvert.layouts import assume, find, read
from lstmconvert.layouts.plain import arrange
from lstmconvert.layouts.rows import row_of
from lstmconvert.model import naming
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor

LIVE = "live"


class Stack(tuple[Any, ...]):
    """The cells of a stack, the first below."""

    __slots__ = ()


class Both(NamedTuple):
    """The two halves of a Bidirectional, for a framework that runs one direction at a time.

    The caller runs `backward` on the input reversed in time, reverses its outputs, and joins them.
    """

    forward: Any
    backward: Any


def imported(module: str, needs: str) -> Any:
    """Import a framework.

    Args:
        module: its name, or one of its modules'.
        needs: the command that installs it.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"{module.partition('.')[0]} is not installed: {error}", hint=needs
        ) from None


def cells(
    layer: LSTMLayer, layout: str, *, allow_lossy: bool = False
) -> list[list[dict[str, Array]]]:
    """Return the arrays of each cell: by direction, then by its place in the stack.

    Args:
        layer: the layer.
        layout: a layout that runs one cell at a time: its keys begin with direction and place.
        allow_lossy: as in `arrange`.
    """
    row, arrays = row_of(layout), arrange(layer, layout, allow_lossy=allow_lossy)
    both, depth = layer.backward is not None, len(layer.forward.cells)
    result = []
    for side, _ in layer.directions:
        places = (row.place(index, depth, side, both) for index in range(depth))
        result.append([_below(arrays, place["d"] + place["k"]) for place in places])
    return result


def _below(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): array for k, array in arrays.items() if k.startswith(prefix)}


def built(
    value: LSTMLayer | Model,
    layout: str,
    make: Callable[[dict[str, Array]], Any],
    *,
    allow_lossy: bool = False,
) -> Any:
    """Return the object that `make` makes of a cell's arrays.

    Of a stack of cells it is a tuple of them, `Stack`; of two directions, `Both`; of a model, a
    dict by layer name.
    """
    if isinstance(value, Model):
        return {
            name: built(layer, layout, make, allow_lossy=allow_lossy)
            for name, layer in value.items()
        }
    halves = []
    for stack in cells(value, layout, allow_lossy=allow_lossy):
        made = Stack(make(arrays) for arrays in stack)
        halves.append(made[0] if len(made) == 1 else made)
    return halves[0] if len(halves) == 1 else Both(*halves)


def one_way(made: Any, x: Array, run: Callable[[Any, Array], Array]) -> Array:
    """Run what `built` made of a layer as its caller has to: cell after cell, each way.

    Args:
        made: an object of one cell, a tuple of a stack's, or `Both`.
        x: (batch, time, inputs).
        run: from the object of one cell and x to every output.
    """
    if isinstance(made, Both):
        forward = one_way(made.forward, x, run)
        backward = one_way(made.backward, np.flip(x, 1).copy(), run)
        return np.concatenate([forward, np.flip(backward, 1)], axis=-1)
    for cell in made if isinstance(made, Stack) else (made,):
        x = run(cell, x)
    return x


def layers_of(
    arrays: Mapping[str, Array], layouts: Sequence[str], name: str
) -> tuple[LSTMLayer, ...]:
    """Return the layers of named arrays: in that of the layouts that explains most names."""
    tensors = {key: ArrayTensor(array) for key, array in arrays.items()}
    row = find.recognised(tensors, [row_of(layout) for layout in layouts])
    return read.modules(tensors, row, name)[0] if row is not None else ()


def value_of(layers: Iterable[LSTMLayer], what: str) -> LSTMLayer | Model:
    """Return the only layer, or a model of several, with Keras's defaults for unknown options.

    Args:
        layers: the layers.
        what: names the object that they are from, for the error.

    Raises:
        NoLSTM: there is no layer.
    """
    assumed = [assume.layer(layer)[0] for layer in layers]
    if not assumed:
        raise NoLSTM("no LSTM in it", found=what)
    names = naming.layer_names([layer.name for layer in assumed])
    named = [replace(layer, name=name) for layer, name in zip(assumed, names, strict=True)]
    if len(named) == 1:
        return named[0]
    return Model(layers=tuple(named), source=Source(container=LIVE), container=LIVE)
