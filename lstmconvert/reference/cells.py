"""One cell run over a sequence: the four gates' formulas with every option a cell may have.

    z_g = x·K_g + h·R_g + b_g [+ recurrent bias] [+ forget bias] [+ peephole_g * c], clipped
    i, f, o = recurrent_activation(z);  g = activation(z);  i = 1 - f if the gates are coupled
    c' = f * c + i * g, clipped         h' = o * output_activation(c'), projected, clipped

The input and forget peephole see c, the output's sees c'. `gate_clip` bounds the four z and not
c' (ONNX operator LSTM, attribute `clip`, as ONNX Runtime computes it); `cell_clip` and
`projection_clip` are those of TensorFlow 1's LSTMCell and of TFLite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from lstmconvert.activations import Activation
from lstmconvert.dtypes import Array, DType
from lstmconvert.errors import UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.gates import Gate
from lstmconvert.layer import Cell, LSTMLayer
from lstmconvert.maths import apply
from lstmconvert.options import UNKNOWN, Unknown
from lstmconvert.reference.products import Convolution, Dense, Products

T = TypeVar("T")

#: Parts whose maths the neutral model does not fix: no field holds the epsilon, which is 1e-8 in
#: TFLite and 1e-12 in TensorFlow 1, nor whether a bias comes before or after the norm.
_UNDEFINED_PARTS = ("layer_norm", "layer_norm_bias", "state_norm")


def known(layer: LSTMLayer, option: str, value: T | Unknown) -> T:
    """Return `value`, which must not be `UNKNOWN`.

    Raises:
        UnknownOption: it is.
    """
    if isinstance(value, Unknown):
        raise UnknownOption(
            f"the source does not say {option}, and the result depends on it",
            where=layer.name,
            found="unknown",
            expected=option,
            hint=f"say it with --set {layer.name}.{option}=VALUE, or give --config FILE",
        )
    return value


def over_rows(flags: Array, like: Array) -> Array:
    """Return flags (batch,) as (batch, 1, …), to choose whole rows of `like` (batch, …)."""
    return flags.reshape(-1, *[1] * (like.ndim - 1))


class CellRun:
    """A cell with its weights read in the dtype of the computation and its options known.

    Args:
        layer: the layer the cell belongs to, for its name.
        cell: the cell.
        dtype: float32 or float64.
    """

    def __init__(self, layer: LSTMLayer, cell: Cell, dtype: DType) -> None:
        _check_parts(layer, cell)
        self._layer, self._cell, self._dtype = layer, cell, dtype
        options = cell.options
        self._activation: Activation = known(layer, "activation", options.activation)
        self._sigmoid: Activation = known(
            layer, "recurrent_activation", options.recurrent_activation
        )
        self._output_activation = options.output_activation or self._activation
        self._coupled, self._products = options.input_forget, _products(layer, cell)
        self._gates = {
            gate: {part: tensor.read().astype(dtype) for part, tensor in weights.tensors.items()}
            for gate, weights in cell.gates.items()
            if not (options.input_forget and gate is Gate.INPUT)
        }
        self._parts = {part: tensor.read().astype(dtype) for part, tensor in cell.parts.items()}

    def over(
        self, x: Array, mask: Array | None, start: tuple[Array, Array] | None
    ) -> tuple[Array, Array, Array]:
        """Run over x (time, batch, …): return the hidden states (time, batch, …), and the last.

        Masked steps keep the states; the hidden states listed for them have no meaning.
        """
        self._check_input(x)
        inputs = {gate: self._input(gate, x) for gate in self._gates}
        hidden, carry = self._start(inputs[Gate.FORGET][0], start)
        sequence = []
        for time in range(len(x)):
            now = {gate: values[time] for gate, values in inputs.items()}
            new_hidden, new_carry = self._step(now, hidden, carry)
            sequence.append(new_hidden)
            if mask is not None:
                keep = over_rows(mask[time], carry)
                new_hidden = np.where(keep, new_hidden, hidden)
                new_carry = np.where(keep, new_carry, carry)
            hidden, carry = new_hidden, new_carry
        return np.stack(sequence), hidden, carry

    def _input(self, gate: Gate, x: Array) -> Array:
        """The part of a gate that does not depend on the state, for all steps at once."""
        weights = self._gates[gate]
        total = self._products.of_input(x, weights["kernel"])
        for part in ("bias", "recurrent_bias"):
            if part in weights:
                total = total + self._products.per_unit(weights[part])
        if gate is Gate.FORGET:
            total = total + known(self._layer, "forget_bias", self._cell.options.forget_bias)
        return total

    def _step(
        self, inputs: Mapping[Gate, Array], hidden: Array, carry: Array
    ) -> tuple[Array, Array]:
        z = {
            gate: inputs[gate] + self._products.of_state(hidden, weights["recurrent_kernel"])
            for gate, weights in self._gates.items()
        }
        forget_gate = self._gate(Gate.FORGET, z, carry)
        input_gate = 1 - forget_gate if self._coupled else self._gate(Gate.INPUT, z, carry)
        cell_gate = apply(self._activation, self._clipped(z[Gate.CELL]))
        carry = _clip(forget_gate * carry + input_gate * cell_gate, self._known_clip("cell_clip"))
        output_gate = self._gate(Gate.OUTPUT, z, carry)
        return self._projected(output_gate * apply(self._output_activation, carry)), carry

    def _gate(self, gate: Gate, z: Mapping[Gate, Array], carry: Array) -> Array:
        total = z[gate]
        if "peephole" in self._gates[gate]:
            total = total + self._products.per_unit(self._gates[gate]["peephole"]) * carry
        return apply(self._sigmoid, self._clipped(total))

    def _clipped(self, z: Array) -> Array:
        return _clip(z, self._known_clip("gate_clip"))

    def _known_clip(self, option: str) -> float | None:
        clip: float | None = known(self._layer, option, getattr(self._cell.options, option))
        return clip

    def _projected(self, hidden: Array) -> Array:
        if "projection" not in self._parts:
            return hidden
        hidden = hidden @ self._parts["projection"]
        if "projection_bias" in self._parts:
            hidden = hidden + self._parts["projection_bias"]
        return _clip(hidden, self._known_clip("projection_clip"))

    def _start(self, like: Array, given: tuple[Array, Array] | None) -> tuple[Array, Array]:
        shapes = {
            "initial_hidden": self._products.with_width(like.shape, self._cell.recurrent_dim),
            "initial_cell": like.shape,
        }
        if given is None:
            hidden, carry = (self._stored(part, shape) for part, shape in shapes.items())
            return hidden, carry
        for state, shape in zip(given, shapes.values(), strict=True):
            self._check_state(state, shape)
        return given[0].astype(self._dtype), given[1].astype(self._dtype)

    def _stored(self, part: str, shape: tuple[int, ...]) -> Array:
        if part not in self._parts:
            return np.zeros(shape, self._dtype)
        return np.broadcast_to(self._products.per_unit(self._parts[part]), shape)

    def _check_state(self, state: Array, shape: tuple[int, ...]) -> None:
        if state.shape != shape:
            raise UsageError(
                "an initial state does not have the shape of the cell's state",
                where=self._layer.name,
                found=state.shape,
                expected=shape,
            )

    def _check_input(self, x: Array) -> None:
        kernel = self._gates[Gate.FORGET]["kernel"]
        width = self._cell.input_dim
        if x.ndim != kernel.ndim + 1 or self._products.width(x.shape) != width or len(x) == 0:
            raise UsageError(
                "the input does not fit the layer",
                where=self._layer.name,
                found=f"{x.shape} (time, batch, …)",
                expected=f"{kernel.ndim + 1} axes, {width} inputs, at least one step",
            )


def _clip(values: Array, bound: float | None) -> Array:
    return values if bound is None else np.clip(values, -bound, bound)


def _products(layer: LSTMLayer, cell: Cell) -> Products:
    rank = len(cell.gates[Gate.FORGET].tensors["kernel"].shape) - 2
    if rank == 0:
        return Dense()
    if "projection" in cell.parts:
        raise _unsupported(layer, "projection", "a ConvLSTM has no projection")
    settings = cell.options.convolution or {}
    strides, dilation, padding, data_format = (
        known(layer, option, settings.get(option, UNKNOWN))
        for option in ("strides", "dilation_rate", "padding", "data_format")
    )
    return Convolution(
        strides=_each_axis(strides, rank),
        dilation_rate=_each_axis(dilation, rank),
        padding=padding,
        channels_first=data_format == "channels_first",
        extra_before=bool(settings.get("extra_before")),
    )


def _each_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _check_parts(layer: LSTMLayer, cell: Cell) -> None:
    for part in (*cell.gate_parts, *cell.parts):
        if part in _UNDEFINED_PARTS:
            raise _unsupported(layer, part, "the forward pass has no layer normalisation")


def _unsupported(layer: LSTMLayer, option: str, message: str) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        message,
        layer=layer.name,
        option=option,
        target="reference",
        where=layer.name,
        found=option,
    )
