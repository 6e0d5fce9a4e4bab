"""Making a layer expressible in a Keras LSTM, or saying what is in the way.

A Keras LSTM has one bias, no run-time forget bias, and nothing beyond four gates. A second bias is
added to the first and a forget bias folded into it, each a declared rounding loss; what has no
place at all is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lstmconvert import needed
from lstmconvert.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3
from lstmconvert.dtypes import Array
from lstmconvert.errors import LOSSY_HINT, UnsupportedByTarget
from lstmconvert.gates import Gate
from lstmconvert.layer import Cell, Direction, GateWeights, LSTMLayer, OpaqueCell
from lstmconvert.options import UNKNOWN
from lstmconvert.tensors import ArrayTensor, Tensor

_GATE_PARTS = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")

#: Options without which a layer would be rebuilt on a guess that changes its numbers.
_CLIPS = ("gate_clip", "cell_clip", "projection_clip")
_NEEDED_CELL = ("activation", "recurrent_activation", "forget_bias", *_CLIPS)
_NEEDED_DIRECTION = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "zero_output_for_mask",
)
#: Ratio of the slopes of the two hard_sigmoids, 0.2 and 1/6.
_RESCALE = 1.2


class Fitter:
    """Fits layers into Keras.

    Fields: `target`: what to name in an error; `allow_lossy`: take off what Keras cannot express
    and can do without, instead of refusing it; `keeps_time_major`: this Keras has that option;
    `losses`: what was lost, declared, each text once, in the order in which it is found.

    Raises:
        UnknownOption: an option that changes numbers is unknown.
        UnsupportedByTarget: Keras cannot express an option or a part.
    """

    def __init__(
        self,
        target: str,
        *,
        rescale: bool = False,
        allow_lossy: bool = False,
        keeps_time_major: bool = False,
    ) -> None:
        self.target, self.rescale, self.allow_lossy = target, rescale, allow_lossy
        self.keeps_time_major = keeps_time_major
        self.losses: dict[str, None] = {}

    def fit(self, layer: LSTMLayer) -> LSTMLayer:
        """Return the layer with one bias and nothing that Keras does not have."""
        needed.check(layer, self.target, cell=_NEEDED_CELL, direction=_NEEDED_DIRECTION)
        return self.fit_weights(layer)

    def fit_weights(self, layer: LSTMLayer) -> LSTMLayer:
        """`fit`, for a file that holds no options, so that unknown ones do not matter."""
        change = self._direction(layer.name)
        backward = layer.backward
        return replace(
            layer, forward=change(layer.forward), backward=change(backward) if backward else None
        )

    def _lose(self, text: str) -> None:
        self.losses[text] = None

    def _direction(self, where: str) -> Callable[[Direction], Direction]:
        def change(direction: Direction) -> Direction:
            if direction.options.time_major is True and not self.keeps_time_major:
                raise self._unsupported("time_major", where, "True")
            if direction.options.keeps_time_order:
                direction = self._turned(direction, where)
            cells = tuple(
                cell if isinstance(cell, OpaqueCell) else self._cell(cell, where)
                for cell in direction.cells
            )
            return replace(direction, cells=cells)

        return change

    def _turned(self, direction: Direction, where: str) -> Direction:
        """Return a direction whose sequence comes reversed, as Keras's does: a loss."""
        if not self.allow_lossy:
            raise self._unsupported(
                "keeps_time_order",
                where,
                "go_backwards with the sequence in the input's order",
                LOSSY_HINT,
            )
        self._lose(
            f"{where}: {self.target} returns the sequence of a layer with go_backwards reversed: "
            "turn it round"
        )
        return replace(direction, options=replace(direction.options, keeps_time_order=False))

    def _cell(self, cell: Cell, where: str) -> Cell:
        cell = self._without_extras(cell, where)
        self._check_cell(cell, where)
        if any("recurrent_bias" in weights.tensors for weights in cell.gates.values()):
            cell = self._with_one_bias(cell, where)
        if cell.options.forget_bias:
            cell = self._with_folded_bias(cell, where)
        if self.rescale and cell.options.recurrent_activation == HARD_SIGMOID_KERAS2:
            cell = self._rescaled(cell, where)
        return cell

    def _check_cell(self, cell: Cell, where: str) -> None:
        options = cell.options
        for part in (*cell.parts, *(p for p in cell.gate_parts if p not in _GATE_PARTS)):
            raise self._unsupported(part, where, "a stored tensor")
        if (options.convolution or {}).get("extra_before"):
            raise self._unsupported("Theano's padding of an even kernel", where, "same")
        if options.input_forget:
            raise self._unsupported("input_forget", where, "True")

    def _without_extras(self, cell: Cell, where: str) -> Cell:
        """Return a cell without the options that Keras has no place for."""
        gone = {n: x for n in _CLIPS if (x := getattr(cell.options, n)) not in (None, UNKNOWN)}
        output = cell.options.output_activation
        if output is not None and output != cell.options.activation:
            gone["output_activation"] = output
        for name, value in gone.items():
            error = self._unsupported(name, where, str(value), LOSSY_HINT)
            if not self.allow_lossy:
                raise error
            self._lose(f"{where}: {error.message} ({value}): lost, as allowed")
        options: dict[str, Any] = dict.fromkeys(gone)
        return replace(cell, options=replace(cell.options, **options)) if gone else cell

    def _unsupported(
        self, option: str, layer: str, found: str, hint: str | None = None
    ) -> UnsupportedByTarget:
        return UnsupportedByTarget(
            f"{self.target} cannot express {option}",
            where=layer,
            layer=layer,
            option=option,
            target=self.target,
            found=found,
            hint=hint,
        )

    def _with_one_bias(self, cell: Cell, where: str) -> Cell:
        def added(gate: Gate, bias: Array) -> Array:
            second = cell.gates[gate].tensors["recurrent_bias"].read()
            return np.asarray(bias + second, bias.dtype) if _counts(second) else bias

        seconds = [weights.tensors["recurrent_bias"].read() for weights in cell.gates.values()]
        if any(_counts(second) for second in seconds):
            self._lose(
                f"{where}: {self.target} has one bias: bias and recurrent_bias are summed, rounded"
            )
        return _with_biases(cell, added)

    def _with_folded_bias(self, cell: Cell, where: str) -> Cell:
        amount = cell.options.forget_bias

        def folded(gate: Gate, bias: Array) -> Array:
            return bias + bias.dtype.type(amount) if gate is Gate.FORGET else bias

        self._lose(
            f"{where}: {self.target} has no run-time forget bias: {amount} is added to the stored "
            "bias, rounded"
        )
        cell = _with_biases(cell, folded)
        return replace(cell, options=replace(cell.options, forget_bias=0.0, use_bias=True))

    def _rescaled(self, cell: Cell, where: str) -> Cell:
        self._lose(
            f"{where}: weights of the sigmoid gates times {_RESCALE}, rounded, so that Keras 3's "
            "hard_sigmoid computes Keras 2's"
        )

        def scaled(gate: Gate, tensor: Tensor) -> Tensor:
            if gate is Gate.CELL:
                return tensor
            array = tensor.read()
            return ArrayTensor((array.astype(np.float64) * _RESCALE).astype(array.dtype))

        gates = {
            gate: GateWeights(gate, {p: scaled(gate, t) for p, t in weights.tensors.items()})
            for gate, weights in cell.gates.items()
        }
        options = replace(cell.options, recurrent_activation=HARD_SIGMOID_KERAS3)
        return replace(cell, gates=gates, options=options)


def _counts(second: Array) -> bool:
    # A second bias of all +0.0 adds nothing, and the first keeps its bits, -0.0 included.
    return bool(second.view(f"u{second.dtype.itemsize}").any())


def _with_biases(cell: Cell, change: Callable[[Gate, Array], Array]) -> Cell:
    gates = {}
    for gate, weights in cell.gates.items():
        tensors = {p: t for p, t in weights.tensors.items() if p != "recurrent_bias"}
        bias = (
            tensors["bias"].read() if "bias" in tensors else np.zeros(cell.units, cell.dtype)
        )
        tensors["bias"] = ArrayTensor(change(gate, bias))
        gates[gate] = GateWeights(gate, tensors)
    return replace(cell, gates=gates)

