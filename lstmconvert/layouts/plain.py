"""A layout on plain dicts of arrays, both ways: `lc.arrange` and `lc.gather`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from lstmconvert import gatesfile, naming
from lstmconvert.dtypes import Array
from lstmconvert.errors import CorruptFile, UsageError
from lstmconvert.layer import LSTMLayer
from lstmconvert.layouts import assume, fit, read
from lstmconvert.layouts.arrange import arrange as arrange_tensors
from lstmconvert.layouts.rows import row_of
from lstmconvert.model import Model, Source
from lstmconvert.tensors import ArrayTensor

GATES = "gates"


def arrange(
    value: LSTMLayer | Model | Sequence[LSTMLayer], layout: str, *, allow_lossy: bool = False
) -> dict[str, Array]:
    """Return the weights as a framework names and arranges them.

    >>> import lstmconvert as lc
    >>> lstm = lc.load("fixtures/keras-3.15.1/seed95.keras")["lstm"]
    >>> {name: array.shape for name, array in lc.arrange(lstm, "torch").items()}
    {'weight_ih_l0': (8, 7), 'weight_hh_l0': (8, 2), 'bias_ih_l0': (8,), 'bias_hh_l0': (8,)}

    Args:
        value: a layer; several, as one stack (PyTorch's num_layers); or a model, whose arrays
            have their layer's name and a dot before them.
        layout: a name that `lstmconvert formats` lists, or `gates`.
        allow_lossy: give a warning, not an error, for what the framework cannot express.

    Raises:
        UsageError: no such layout, or layers that do not fit into one stack.
        UnknownOption: the framework's maths depend on an option that no file said.
        UnsupportedByTarget: the framework cannot express an option of a layer.
    """
    if isinstance(value, Model):
        return {
            f"{prefix_of(layer)}{name}": array
            for layer in value.layers
            for name, array in arrange(layer, layout, allow_lossy=allow_lossy).items()
        }
    layers = [value] if isinstance(value, LSTMLayer) else list(value)
    if not layers:
        raise UsageError("no layers to arrange")
    if layout == GATES:
        bare = [(layer, f"{layer.name}.") for layer in layers]
        return {
            name.removeprefix(start): tensor.read()
            for layer, start in bare
            for name, tensor in naming.tensors(layer)
        }
    fitter = fit.Fitter(row_of(layout), allow_lossy)
    fitted = fit.fit_stack(layers, fitter)
    for text in fitter.losses:
        warnings.warn(text, UserWarning, stacklevel=2)
    return {name: tensor.read() for name, tensor in arrange_tensors(fitted, fitter.row).items()}


def prefix_of(layer: LSTMLayer) -> str:
    """Return what stands before a layer's arrays in a framework's file: `encoder.lstm.`."""
    return layer.name.replace("/", ".") + "."


def gather(
    arrays: Mapping[str, ArrayLike], layout: str, *, name: str = "lstm"
) -> LSTMLayer | Model:
    """Return the layer of a framework's arrays; where they hold several, a model of them.

    What the framework does not say is what Keras does by default.

    >>> import lstmconvert as lc
    >>> lstm = lc.load("fixtures/keras-3.15.1/seed95.keras")["lstm"]
    >>> lc.gather(lc.arrange(lstm, "torch"), "torch").forget_gate.kernel.shape
    (7, 2)

    Args:
        arrays: the framework's names -> arrays, of which others than an LSTM's are left out.
        layout: a name that `lstmconvert formats` lists, or `gates`.
        name: of the layer, where the arrays have none before theirs.

    Raises:
        UsageError: no such layout.
        CorruptFile: the arrays are not of that layout, or contradict each other.
    """
    tensors = {key: ArrayTensor(np.asarray(array)) for key, array in arrays.items()}
    if layout == GATES:
        named = {
            key if naming.parse(key) else f"{name}.{key}": tensor for key, tensor in tensors.items()
        }
        layers: Sequence[LSTMLayer] = gatesfile.read(named, {}, "arrays", "arrays").layers
    else:
        row = row_of(layout)
        layers, _ = read.modules(tensors, row, name)
        if not layers:
            raise CorruptFile(
                f"no arrays of {row.title}",
                where="arrays",
                found=", ".join(list(tensors)[:8]) or "no arrays",
                expected=", ".join(read.example(row)),
            )
    layers = [assume.layer(layer)[0] for layer in layers]
    if len(layers) == 1:
        return layers[0]
    return Model(layers=tuple(layers), source=Source(container="arrays"), container="arrays")
