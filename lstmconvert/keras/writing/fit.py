"""What a Keras LSTM can hold, for `model.fit`, and Keras 2's hard_sigmoid by rescaled weights.

A Keras LSTM has one bias, no run-time forget bias, and nothing beyond four gates.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from lstmconvert.keras.configs import spelling
from lstmconvert.model import edit
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3
from lstmconvert.model.fit import CLIPS, Abilities, Fitter
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.options import UNKNOWN, CellOptions, DirectionOptions
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

AnyOptions = TypeVar("AnyOptions", CellOptions, DirectionOptions)

#: Options without which a layer would be rebuilt on a guess that changes its numbers.
_KNOWN = frozenset(
    {
        *("activation", "recurrent_activation", "forget_bias", *CLIPS),
        *("return_sequences", "return_state", "go_backwards", "stateful"),
        *("zero_output_for_mask", "merge_mode"),
    }
)
#: Ratio of the slopes of the two hard_sigmoids, 0.2 and 1/6.
_RESCALE = 1.2
#: The loss that is declared of a layer whose weights were rescaled.
RESCALED = f"weights of the sigmoid gates times {_RESCALE}"


class KerasFitter:
    """Fits layers into Keras.

    Args:
        target: what to name in an error.
        rescale: turn Keras 2's hard_sigmoid into Keras 3's, with rescaled weights.
        allow_lossy: take off what Keras cannot express and can do without, instead of refusing it.
        keeps_time_major: this Keras has that option.
        for_file: leave out initializers, regularizers and constraints of the user's own, which no
            file can hold, and which change no number of a trained model; a live layer can be given
            them.

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
        for_file: bool = False,
    ) -> None:
        self._rescale, self._for_file = rescale, for_file
        #: Notes on the fitted layers for the user, each text once.
        self.notes: dict[str, None] = {}
        options = {"go_backwards", "convolution"} | ({"time_major"} if keeps_time_major else set())
        abilities = Abilities(
            title=target,
            name=target,
            parts=frozenset({"kernel", "recurrent_kernel", "bias"}),
            options=frozenset(options),
            known=_KNOWN,
            givable=frozenset({*CLIPS, "output_activation", "keeps_time_order"}),
            forgets=True,
            holds_opaque=True,
        )
        self._fitter = Fitter(abilities, allow_lossy)

    @property
    def losses(self) -> dict[str, None]:
        """What was lost, each text once, in the order in which it was found."""
        return self._fitter.losses

    def fit(self, layer: LSTMLayer) -> LSTMLayer:
        """Return the layer with one bias and nothing that Keras does not have."""
        return self._fit(self._fitter, layer)

    def fit_weights(self, layer: LSTMLayer) -> LSTMLayer:
        """`fit`, for a file that holds no options, so that unknown ones do not matter."""
        target = self._fitter.target._replace(known=frozenset())
        return self._fit(replace(self._fitter, target=target), layer)

    def _fit(self, fitter: Fitter, layer: LSTMLayer) -> LSTMLayer:
        for _, _, cell in layer.cells():
            if (cell.options.convolution or {}).get("extra_before"):
                fitter.refuse(layer, "Theano's padding of an even kernel", "same")
        layer = fitter.fit(layer)
        if self._for_file:
            layer = self._without_custom(layer)
        if not self._rescale:
            return layer
        return edit.map_cells(layer, lambda _, __, cell: self._rescaled(cell, layer.name))

    def _without_custom(self, layer: LSTMLayer) -> LSTMLayer:
        """Return a layer without initializers, regularizers and constraints of the user's own."""

        def plain(options: AnyOptions) -> AnyOptions:
            gone: dict[str, Any] = {}
            for name in (field.name for field in fields(options)):
                value = getattr(options, name)
                is_object = spelling.kind_of(name) is not None and isinstance(value, dict)
                if is_object and "registered_name" in value:
                    self.notes[spelling.left_out(layer.name, name, value)] = None
                    gone[name] = UNKNOWN  # an option that is not stated has Keras's default
            return replace(options, **gone) if gone else options

        layer = edit.map_cells(
            layer, lambda _, __, cell: replace(cell, options=plain(cell.options))
        )
        return edit.map_directions(
            layer, lambda _, direction: replace(direction, options=plain(direction.options))
        )

    def _rescaled(self, cell: Cell, where: str) -> Cell:
        """Return a cell of Keras 2's hard_sigmoid as one of Keras 3's: equal to rounding."""
        if cell.options.recurrent_activation != HARD_SIGMOID_KERAS2:
            return cell
        self._fitter.lose(
            f"{where}: {RESCALED}, rounded, so that Keras 3's hard_sigmoid computes Keras 2's"
        )

        def scaled(gate: Gate, tensors: edit.Parts) -> edit.Parts:
            if gate is Gate.CELL:
                return tensors
            return {part: _times(tensor, _RESCALE) for part, tensor in tensors.items()}

        options = replace(cell.options, recurrent_activation=HARD_SIGMOID_KERAS3)
        return replace(edit.map_gates(cell, scaled), options=options)


def _times(tensor: Tensor, factor: float) -> Tensor:
    array = tensor.read()
    return ArrayTensor((array.astype(np.float64) * factor).astype(array.dtype))
