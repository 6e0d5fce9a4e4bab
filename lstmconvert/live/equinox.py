"""Equinox cells out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmconvert.live import jax as shared
from lstmconvert.live.sources import built, imported, layers_of, value_of
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array

_ROW = "equinox"
_KEYS = ("weight_ih", "weight_hh", "bias")


def to_equinox(value: LSTMLayer | Model, *, allow_lossy: bool = False) -> Any:
    """Return an `equinox.nn.LSTMCell` with the weights of a layer: one step of one example.

    Its user scans it over time and maps it over the batch (`jax.lax.scan`, `jax.vmap`).

    Args:
        value: a layer. A stack of cells gives a tuple of cells, a Bidirectional `Both`, a model a
            dict by layer name.
        allow_lossy: give a warning, not an error, for what Equinox cannot express.

    Raises:
        MissingPackage: Equinox is not installed.
        UnknownOption: Equinox's maths depend on an option that is unknown.
        UnsupportedByTarget: Equinox cannot express an option of a layer.
    """
    return built(value, _ROW, _cell, allow_lossy=allow_lossy)


def _cell(arrays: Mapping[str, Array]) -> Any:
    equinox, jax = imported("equinox", shared.NEEDS), imported("jax", shared.NEEDS)
    given = {name: shared.array(array) for name, array in arrays.items()}
    kernel = given["weight_ih"]
    cell = equinox.nn.LSTMCell(
        kernel.shape[1],
        kernel.shape[0] // 4,
        use_bias="bias" in given,
        dtype=kernel.dtype,
        key=jax.random.PRNGKey(0),
    )
    return equinox.tree_at(
        lambda c: [getattr(c, name) for name in given], cell, list(given.values())
    )


def from_equinox(tree: Any, *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of an `equinox.nn.LSTMCell`; of a tree with several cells, a model.

    Args:
        tree: a cell, or any tree with cells in it, which are named by their paths.
        name: of the layer, where the tree is itself a cell.

    Raises:
        MissingPackage: Equinox is not installed.
        NoLSTM: there is no cell in it.
    """
    equinox, jax = imported("equinox", shared.NEEDS), imported("jax", shared.NEEDS)
    kind = equinox.nn.LSTMCell
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, kind))
    layers: list[LSTMLayer] = []
    for path, cell in leaves:
        if isinstance(cell, kind):
            arrays = {k: np.asarray(a) for k in _KEYS if (a := getattr(cell, k)) is not None}
            path_name = jax.tree_util.keystr(path, simple=True, separator="/")
            layers += layers_of(arrays, [_ROW], path_name or name)
    return value_of(layers, type(tree).__name__)
