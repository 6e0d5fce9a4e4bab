"""Cells run over a sequence: the four gates' formulas with every option a cell may have.

    z_g = x·K_g + h·R_g + b_g [+ recurrent bias] [+ forget bias] [+ peephole_g * c], clipped
    i, f, o = recurrent_activation(z);  g = activation(z);  i = 1 - f if the gates are coupled
    c' = f * c + i * g, clipped         h' = o * output_activation(c'), projected, clipped

The input and forget peephole see c, the output's sees c'. `gate_clip` bounds the four z and not
c' (ONNX operator LSTM, attribute `clip`, as ONNX Runtime computes it); `cell_clip` and
`projection_clip` are those of TensorFlow 1's LSTMCell and of TFLite.

A cell multiplies with its kernels as matrices, or by convolution (ConvLSTM). `run_direction` runs
one direction of a layer: the order of time, masks, and stacks of cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from lstmconvert.errors import UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.model.options import UNKNOWN, Unknown
from lstmconvert.reference.maths import apply
from lstmconvert.tensors.dtypes import Array, DType

T = TypeVar("T")

#: Parts whose maths the neutral model does not fix: no field holds the epsilon, which is 1e-8 in
#: TFLite and 1e-12 in TensorFlow 1, nor whether a bias comes before or after the norm.
_UNDEFINED_PARTS = ("layer_norm", "layer_norm_bias", "state_norm")


def known(layer: LSTMLayer, option: str, value: T | Unknown) -> T:
    """Return `value`, which must not be `UNKNOWN`.

    Raises:
        UnknownOption: it is `UNKNOWN`.
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


class Step(NamedTuple):
    """One step of a cell, for a batch: the four `gates` (batch, …, units), the cell state `carry`
    (batch, …, units) and the output `hidden` (batch, …, recurrent_dim) after it."""

    gates: dict[Gate, Array]
    carry: Array
    hidden: Array


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
        self,
        x: Array,
        mask: Array | None,
        start: tuple[Array, Array] | None,
        record: list[Step] | None = None,
    ) -> tuple[Array, Array, Array]:
        """Run over x (time, batch, …): return the hidden states (time, batch, …), and the last.

        Masked steps keep the states; the hidden states listed for them have no meaning. `record`
        takes what happens at each step; at masked ones the gates have no meaning.
        """
        self._check_input(x)
        inputs = {gate: self._input(gate, x) for gate in self._gates}
        hidden, carry = self._start(inputs[Gate.FORGET][0], start)
        sequence = []
        for time in range(len(x)):
            now = {gate: values[time] for gate, values in inputs.items()}
            new_hidden, new_carry, gates = self._step(now, hidden, carry)
            sequence.append(new_hidden)
            if mask is not None:
                keep = over_rows(mask[time], carry)
                new_hidden = np.where(keep, new_hidden, hidden)
                new_carry = np.where(keep, new_carry, carry)
            hidden, carry = new_hidden, new_carry
            if record is not None:
                record.append(Step(gates, carry, hidden))
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
    ) -> tuple[Array, Array, dict[Gate, Array]]:
        z = {
            gate: inputs[gate] + self._products.of_state(hidden, weights["recurrent_kernel"])
            for gate, weights in self._gates.items()
        }
        forget_gate = self._gate(Gate.FORGET, z, carry)
        input_gate = 1 - forget_gate if self._coupled else self._gate(Gate.INPUT, z, carry)
        cell_gate = apply(self._activation, self._clipped(z[Gate.CELL]))
        carry = _clip(forget_gate * carry + input_gate * cell_gate, self._known_clip("cell_clip"))
        output_gate = self._gate(Gate.OUTPUT, z, carry)
        gates = {
            Gate.INPUT: input_gate,
            Gate.FORGET: forget_gate,
            Gate.CELL: cell_gate,
            Gate.OUTPUT: output_gate,
        }
        hidden = self._projected(output_gate * apply(self._output_activation, carry))
        return hidden, carry, gates

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


Sizes = tuple[int, ...]

#: `same` as Theano pads it (measured on files that Keras 1.2.2 wrote there).
SAME_BEFORE = "same, extra before"


class Products(Protocol):
    """The products that a cell makes with its kernels, for kernels of any rank."""

    def of_input(self, x: Array, kernel: Array) -> Array:
        """Return (time, batch, …, units) of x (time, batch, …, inputs), all steps at once."""

    def of_state(self, hidden: Array, kernel: Array) -> Array:
        """Return (batch, …, units) of a hidden state (batch, …, recurrent_dim)."""

    def per_unit(self, values: Array) -> Array:
        """Return values (units,) in a shape that broadcasts along the axis of units."""

    def width(self, shape: Sizes) -> int:
        """Return the length of the axis of inputs or units."""

    def with_width(self, shape: Sizes, width: int) -> Sizes:
        """Return `shape` with another number of units."""


class Dense:
    """Kernels (input_dim, units): plain matrix products."""

    def of_input(self, x: Array, kernel: Array) -> Array:
        product: Array = x @ kernel
        return product

    of_state = of_input

    def per_unit(self, values: Array) -> Array:
        return values

    def width(self, shape: Sizes) -> int:
        return shape[-1]

    def with_width(self, shape: Sizes, width: int) -> Sizes:
        return (*shape[:-1], width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """Kernels (*window, channels, filters): the input's and the state's convolution of ConvLSTM.

    The state's is always stride 1, undilated and `same`, and has no bias
    (keras/src/layers/rnn/conv_lstm.py, `recurrent_conv`).

    Fields: `strides` and `dilation_rate`, one number for each axis of the window; `padding`,
    `same` or `valid`; `channels_first`, whether channels come before the spatial axes in
    everything the layer takes and returns; `extra_before`, whether the odd zero of `same` is
    before (Theano) or behind.
    """

    strides: Sizes
    dilation_rate: Sizes
    padding: str
    channels_first: bool
    extra_before: bool = False

    def of_input(self, x: Array, kernel: Array) -> Array:
        flat = x.reshape(-1, *x.shape[2:])
        result = self._convolved(flat, kernel, self.strides, self.dilation_rate, self.padding)
        return result.reshape(*x.shape[:2], *result.shape[1:])

    def of_state(self, hidden: Array, kernel: Array) -> Array:
        ones = (1,) * len(self.strides)
        return self._convolved(hidden, kernel, ones, ones, "same")

    def _convolved(
        self, x: Array, kernel: Array, strides: Sizes, dilation: Sizes, padding: str
    ) -> Array:
        last = np.moveaxis(x, 1, -1) if self.channels_first else x
        if padding == "same" and self.extra_before:
            padding = SAME_BEFORE
        result = convolve(last, kernel, strides, dilation, padding)
        return np.moveaxis(result, -1, 1) if self.channels_first else result

    def per_unit(self, values: Array) -> Array:
        return values.reshape(-1, *[1] * len(self.strides)) if self.channels_first else values

    def width(self, shape: Sizes) -> int:
        return shape[self._channels]

    def with_width(self, shape: Sizes, width: int) -> Sizes:
        sizes = list(shape)
        sizes[self._channels] = width
        return tuple(sizes)

    @property
    def _channels(self) -> int:
        return -1 - len(self.strides) if self.channels_first else -1


def convolve(x: Array, kernel: Array, strides: Sizes, dilation: Sizes, padding: str) -> Array:
    """Return the cross-correlation that deep learning calls a convolution.

    Args:
        x: (batch, *spatial, channels).
        kernel: (*window, channels, filters).
        strides: the step along each spatial axis.
        dilation: the distance of neighbouring kernel elements along each spatial axis.
        padding: `same` (zeros around, as TensorFlow spreads them: the odd one behind), `valid`, or
            `SAME_BEFORE` (the odd one before).

    Returns:
        (batch, *spatial', filters).
    """
    window = kernel.shape[:-2]
    spans = [(length - 1) * rate + 1 for length, rate in zip(window, dilation, strict=True)]
    if padding != "valid":
        x = _padded(x, spans, strides, before=padding == SAME_BEFORE)
    sizes = [
        (length - span) // stride + 1
        for length, span, stride in zip(x.shape[1:-1], spans, strides, strict=True)
    ]
    if min(sizes) < 1:
        raise UsageError(
            "the input is smaller than the window", found=x.shape[1:-1], expected=tuple(spans)
        )
    total = np.zeros((len(x), *sizes, kernel.shape[-1]), x.dtype)
    for place in np.ndindex(*window):
        total += x[:, *_slices(place, sizes, strides, dilation)] @ kernel[place]
    return total


def _slices(place: Sizes, sizes: Sequence[int], strides: Sizes, dilation: Sizes) -> list[slice]:
    """Return the inputs that one element of the window is multiplied with, one for each output."""
    return [
        slice(at * rate, at * rate + (size - 1) * stride + 1, stride)
        for at, size, stride, rate in zip(place, sizes, strides, dilation, strict=True)
    ]


def _padded(x: Array, spans: Sequence[int], strides: Sizes, *, before: bool) -> Array:
    # tensorflow.org/api_docs/python/tf/nn, "Notes on padding": ceil(length / stride) outputs.
    needs = [
        max((-(-length // stride) - 1) * stride + span - length, 0)
        for length, span, stride in zip(x.shape[1:-1], spans, strides, strict=True)
    ]
    split = [(need // 2, need - need // 2) for need in needs]
    if before:
        split = [(high, low) for low, high in split]
    return np.pad(x, [(0, 0), *split, (0, 0)])


#: Hidden and cell state of each cell in turn.
States = list[Array]


def run_direction(
    layer: LSTMLayer,
    direction: Direction,
    x: Array,
    mask: Array | None,
    given: States | None,
    record: dict[int, list[Step]] | None = None,
) -> tuple[Array, States]:
    """Return the output of one direction and the final states of its cells.

    Args:
        layer: the layer the direction belongs to.
        direction: the cells and how they are run.
        x: (batch, time, …), or (time, batch, …) if time_major.
        mask: (batch, time), or (time, batch) if time_major.
        given: initial hidden and cell state of each cell, or None for what the cells store.
        record: takes each cell's steps, by its index, in the order in which they are run.
    """
    # An unknown time_major is batch-major: only Keras 2 has the option, and it is off by default.
    time_major = bool(direction.options.time_major)
    sequence = _time_first(x, time_major)
    steps = None if mask is None else _time_first(mask, time_major)
    if steps is not None:
        _check_mask(layer, steps, sequence)
    if known(layer, "go_backwards", direction.options.go_backwards):
        sequence = sequence[::-1]
        steps = None if steps is None else steps[::-1]
    hidden, states = _run_cells(layer, direction, sequence, steps, given, record)
    if steps is not None:
        hidden = _masked(hidden, steps, _zero_output_for_mask(layer, direction))
    if direction.options.keeps_time_order and direction.options.go_backwards:
        if not known(layer, "return_sequences", direction.options.return_sequences):
            return hidden[-1], states
        hidden = hidden[::-1]
    return _last_or_all(layer, hidden, time_major), states


def _run_cells(
    layer: LSTMLayer,
    direction: Direction,
    sequence: Array,
    mask: Array | None,
    given: States | None,
    record: dict[int, list[Step]] | None,
) -> tuple[Array, States]:
    # Keras runs all cells of a stack at each step; one cell after another over the whole sequence
    # is the same, because a cell only ever sees the step it is at. What a lower cell says at a
    # masked step does not matter: the cells above are masked there too.
    states: States = []
    for index, cell in enumerate(direction.cells):
        start = None if given is None else (given[2 * index], given[2 * index + 1])
        sequence, hidden, carry = CellRun(layer, _lstm(layer, cell), sequence.dtype).over(
            sequence, mask, start, None if record is None else record.setdefault(index, [])
        )
        states += [hidden, carry]
    return sequence, states


def _lstm(layer: LSTMLayer, cell: Cell | OpaqueCell) -> Cell:
    if isinstance(cell, Cell):
        return cell
    raise UnsupportedByTarget(
        "the forward pass knows LSTM cells only",
        layer=layer.name,
        option="cell",
        target="reference",
        where=layer.name,
        found=cell.class_name,
        expected="an LSTM cell",
    )


def _time_first(array: Array, time_major: bool) -> Array:
    return array if time_major or array.ndim < 2 else np.swapaxes(array, 0, 1)


def _last_or_all(layer: LSTMLayer, hidden: Array, time_major: bool) -> Array:
    # Keras demands the same of both halves of a Bidirectional, so the forward half is asked.
    if known(layer, "return_sequences", layer.forward.options.return_sequences):
        return _time_first(hidden, time_major)
    last: Array = hidden[-1]
    return last


def _zero_output_for_mask(layer: LSTMLayer, direction: Direction) -> bool:
    if layer.backward is not None and not direction.is_convolutional:
        # keras/src/layers/rnn/bidirectional.py, `force_zero_output_for_mask`
        return known(layer, "return_sequences", layer.forward.options.return_sequences)
    return known(layer, "zero_output_for_mask", direction.options.zero_output_for_mask)


def _masked(hidden: Array, mask: Array, zero: bool) -> Array:
    """Put the previous output, or zero, in the place of masked steps: (time, batch, …)."""
    outputs = np.zeros_like(hidden)
    previous = np.zeros_like(hidden[0])
    for step, keep in enumerate(mask):
        outputs[step] = np.where(over_rows(keep, previous), hidden[step], previous)
        previous = previous if zero else outputs[step]
    return outputs


def _check_mask(layer: LSTMLayer, mask: Array, sequence: Array) -> None:
    if mask.shape != sequence.shape[:2]:
        raise UsageError(
            "the mask does not have one entry for each step of each sequence",
            where=layer.name,
            found=f"{mask.shape} (time, batch)",
            expected=f"{sequence.shape[:2]}",
        )
