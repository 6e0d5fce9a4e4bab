"""A model that is a chain: each of its layers takes what the one before it gives, step by step.

Programs for microcontrollers and for audio hold such models, and a C header, ncnn, TensorFlow Lite
and frugally-deep hold them too. A chain is described by what its layers compute, not by how a
framework spells them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lstmconvert.model.activations import (
    LINEAR,
    ONLY_SIGMOID,
    ONLY_TANH,
    SIGMOID,
    Activation,
    Functions,
)
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Tensor

#: The hint where a target does not hold a layer of the chain.
WITHOUT_OTHERS = "--lstm-only writes the LSTM layers alone"
#: No function but the linear one.
NONE = Functions()
#: The kinds of links -> the roles of their arrays, in Keras's order. An array may be missing where
#: its layer has none (a Dense without a bias).
ROLES: Mapping[str, tuple[str, ...]] = {
    "LSTM": (),
    "Dense": ("kernel", "bias"),
    "Conv1D": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "PReLU": ("alpha",),
    "Activation": (),
    "GRU": ("kernel", "recurrent_kernel", "bias"),
}


class Link(NamedTuple):
    """One layer of a chain.

    Fields:
        name: of the layer.
        kind: what it computes, of `ROLES`. `LSTM` is every layer of LSTM cells.
        inputs, outputs: how many numbers each step takes and gives.
        layer: the neutral layer, of an LSTM.
        neighbour: what the layer is called among the model's neighbours, where it is one: that in a
            wrapper has the wrapper's name before its own.
        arrays: role -> tensor, shaped as Keras has them: `kernel` of a Dense (inputs, outputs), of
            a Conv1D (window, inputs of a group, outputs), of a GRU (inputs, 3 units) with the gates
            update, reset, candidate; `bias` (outputs,), of a GRU (3 units,) or (2, 3 units);
            `gamma`, `beta`, `moving_mean`, `moving_variance` (outputs,); `alpha` (outputs,) or
            (1, outputs).
        paths: role -> full path in the source.
        activation: the function of its outputs; of a GRU that of the candidate.
        recurrent_activation: of a GRU's two gates.
        epsilon: of a normalization: what is added to the variance.
        dilation, groups, padding: of a Conv1D.
        reset_after: of a GRU: whether the reset gate comes after the recurrent product.
        return_sequences: of an LSTM or GRU: whether every step is handed on, or the last alone.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    layer: LSTMLayer | None = None
    neighbour: str = ""
    arrays: Mapping[str, Tensor] = {}
    paths: Mapping[str, str] = {}
    activation: Activation = LINEAR
    recurrent_activation: Activation = SIGMOID
    epsilon: float = 0.0
    dilation: int = 1
    groups: int = 1
    padding: str = "valid"
    reset_after: bool = True
    return_sequences: bool = True

    @property
    def window(self) -> int:
        """How many steps a Conv1D looks at."""
        return self.arrays["kernel"].shape[0]

    @property
    def prefix(self) -> str:
        """What stands before the names of its arrays in a file of named arrays."""
        return f"{self.name.replace('/', '.')}."


class Chain(NamedTuple):
    """A model as a chain.

    Fields: `inputs`: how many numbers each step of the input has; `links`, in order; `skip`:
    whether the input is added to the output of the last link; `vanished`: the layers that do
    nothing when the model runs, in words; `filled`: name of an array that its layer lacks and the
    target wants -> the number that it is full of, with which the layer computes the same;
    `steps`: how many steps the input has, where the model takes no other number.
    """

    inputs: int
    links: tuple[Link, ...]
    skip: bool = False
    vanished: tuple[str, ...] = ()
    filled: Mapping[str, float] = {}
    steps: int | None = None

    @property
    def outputs(self) -> int:
        """How many numbers each step of the output has."""
        return self.links[-1].outputs

    @property
    def is_one_lstm(self) -> bool:
        """Whether it is one LSTM layer and nothing else."""
        return len(self.links) == 1 and self.links[0].layer is not None and not self.skip

    @property
    def gives_sequence(self) -> bool:
        """Whether the output has every step, or the last alone."""
        return all(link.return_sequences for link in self.links)

    def arrays(self) -> dict[str, Tensor]:
        """Return the arrays of all links but the LSTMs', under the names they have in files."""
        return {
            f"{link.prefix}{role}": tensor
            for link in self.links
            for role, tensor in link.arrays.items()
        }

    def paths(self) -> dict[str, str]:
        """Return the names of `arrays` -> their full paths in the source."""
        return {
            f"{link.prefix}{role}": path
            for link in self.links
            for role, path in link.paths.items()
        }


class Holds(NamedTuple):
    """Which chains a target holds.

    Fields:
        title: the target, in messages.
        kinds: the kinds of links that it has, besides LSTM.
        activations: the functions that it applies to the output of a Dense or Conv1D, or as a
            layer of their own.
        gru: the functions of a GRU's candidate and of its gates.
        reset: which of the two conventions of a GRU it has: the values of `reset_after`.
        paddings: of a Conv1D.
        groups: whether a Conv1D may have groups.
        skip: whether the input can be added to the output.
        every_step: whether it gives every step even where the model gives the last alone.
        roles: kind -> the sets of arrays that it takes, where that is not any.
        streams: whether it runs step by step, so that no layer may read backwards.
        reasons: kind -> why the target has none of it, where that is not plain.
        dtypes: of the arrays of links other than an LSTM, where they are fewer than an LSTM's.
    """

    title: str
    kinds: frozenset[str]
    activations: Functions = NONE
    gru: tuple[Functions, Functions] = (ONLY_TANH, ONLY_SIGMOID)
    reset: tuple[bool, ...] = (True, False)
    paddings: tuple[str, ...] = ("causal",)
    groups: bool = False
    skip: bool = False
    every_step: bool = False
    roles: Mapping[str, tuple[tuple[str, ...], ...]] = {}
    streams: bool = False
    reasons: Mapping[str, str] = {}
    dtypes: tuple[str, ...] = ()


class Answer(NamedTuple):
    """What a model, or one LSTM layer of it, gives for one input.

    Fields: `x` (1, steps, inputs), `y` (1, steps, outputs), or (1, outputs) of what gives the last
    step alone, both float64; `bound`: how far the answer of an engine may be from it; `layer`: the
    name of the layer, None: the whole model. `x` of a layer is (1, steps, *spatial, channels) for a
    ConvLSTM, or with the axes as its options have them; two outputs are side by side in `y`.
    """

    x: Array
    y: Array
    bound: float
    layer: str | None = None
