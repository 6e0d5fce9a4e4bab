"""A layout on plain dicts of arrays, both ways: `lc.arrange` and `lc.gather`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from lstmconvert.errors import ConversionWarning, CorruptFile, UsageError
from lstmconvert.layouts import assume, fit, read
from lstmconvert.layouts.arrange import arrange as arrange_tensors
from lstmconvert.layouts.rows import row_of
from lstmconvert.model import naming
from lstmconvert.model.fit import Fitter
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.pergate import gatesfile
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor

GATES = "gates"


def arrange(
    value: LSTMLayer | Model | Sequence[LSTMLayer],
    layout: str,
    *,
    allow_lossy: bool = False,
    lstm_only: bool = False,
) -> dict[str, Array]:
    """Return the weights as a framework names and arranges them.

    >>> import lstmconvert as lc
    >>> lstm = lc.load("fixtures/keras-3.15.1/seed95.keras")["lstm"]
    >>> {name: array.shape for name, array in lc.arrange(lstm, "torch").items()}
    {'weight_ih_l0': (8, 7), 'weight_hh_l0': (8, 2), 'bias_ih_l0': (8,), 'bias_hh_l0': (8,)}

    Args:
        value: a layer; several, as one stack (PyTorch's num_layers); or a model, whose arrays
            have their layer's name and a dot before them. Of a model, the layers beside the LSTMs
            come too, as in the framework's files: a warning names those that the framework lacks,
            and what its user has to pass.
        layout: a name that `lstmconvert formats` lists, or `gates`, which has the LSTMs alone.
        allow_lossy: give a warning, not an error, for what the framework cannot express.
        lstm_only: leave the layers beside the LSTMs out.

    Raises:
        UsageError: the layout is unknown, or the layers do not fit into one stack.
        UnknownOption: what the framework computes depends on an option that is unknown.
        UnsupportedByTarget: the framework cannot express an option of a layer.
    """
    if isinstance(value, Model):
        arrays = {
            f"{prefix_of(layer)}{name}": array
            for layer in value.layers
            for name, array in arrange(layer, layout, allow_lossy=allow_lossy).items()
        }
        if layout == GATES or lstm_only:
            return arrays
        from lstmconvert.layouts.write import neighbours_of  # it imports this module

        others = neighbours_of(value, row_of(layout))
        for text in (*others.losses, *others.notes):
            warnings.warn(text, ConversionWarning, stacklevel=2)
        for prefix, tensors in others.arrays.items():
            arrays |= {prefix + name: tensor.read() for name, tensor in tensors.items()}
        return arrays
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
    row = row_of(layout)
    fitter = Fitter(row.abilities(), allow_lossy)
    fitted = fit.fit_stack(layers, row, fitter)
    for text in fitter.losses:
        warnings.warn(text, ConversionWarning, stacklevel=2)
    return {name: tensor.read() for name, tensor in arrange_tensors(fitted, row).items()}


def prefix_of(layer: LSTMLayer) -> str:
    """Return the prefix of a layer's arrays in a framework's file: `encoder.lstm.`."""
    return layer.name.replace("/", ".") + "."


def gather(
    arrays: Mapping[str, ArrayLike], layout: str, *, name: str = "lstm"
) -> LSTMLayer | Model:
    """Return the layer of a framework's arrays; where they hold several, a model of them.

    Options that the framework does not say get Keras's defaults.

    >>> import lstmconvert as lc
    >>> lstm = lc.load("fixtures/keras-3.15.1/seed95.keras")["lstm"]
    >>> lc.gather(lc.arrange(lstm, "torch"), "torch").forget_gate.kernel.shape
    (7, 2)

    Args:
        arrays: the framework's names -> arrays. Arrays that belong to no LSTM are left out.
        layout: a name that `lstmconvert formats` lists, or `gates`.
        name: the name of the layer, where the names of the arrays have no prefix.

    Raises:
        UsageError: the layout is unknown.
        CorruptFile: the arrays are not of that layout, or contradict each other.
    """
    tensors = {key: ArrayTensor(np.asarray(array)) for key, array in arrays.items()}
    if layout == GATES:
        named = {
            key if naming.parse(key) else f"{name}.{key}": tensor for key, tensor in tensors.items()
        }
        layers: Sequence[LSTMLayer] = gatesfile.read(named, None, "arrays", "arrays").layers
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
