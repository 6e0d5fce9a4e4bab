"""From a neutral layer to the config of a Keras 3 layer: only what differs from Keras's defaults.

Fewer keys open in more versions: Keras 3.3 refuses keywords that 3.15 writes. Every class named
here is Keras's own, so that a file needs no import of ours.

What a Keras LSTM can hold is said here for `model.fit`; Keras 2's hard_sigmoid may be held by
rescaled weights. A Keras LSTM has one bias, no run-time forget bias, and nothing beyond four gates.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs import options, spelling, verbatim
from lstmconvert.keras.configs.era import DEFAULTS, Era
from lstmconvert.keras.configs.spelling import LAYERS, MODULES, serialized
from lstmconvert.keras.configs.values import object_spec
from lstmconvert.model import edit
from lstmconvert.model.activations import (
    HARD_SIGMOID_KERAS2,
    HARD_SIGMOID_KERAS3,
    KERAS3,
    Activation,
)
from lstmconvert.model.fit import CLIPS, Abilities, Fitter
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.model.options import UNKNOWN, CellOptions, DirectionOptions
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

# -- what a Keras LSTM can hold ------------------------------------------------------------------


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


# -- its config ----------------------------------------------------------------------------------


TARGET = "Keras 3"

#: Options that are written under another key, or elsewhere.
_ELSEWHERE = frozenset({"policy", "trainable", "use_bias", "time_major"})
#: Cells that can be rebuilt next to an LSTM.
_OPAQUE = frozenset({"GRU", "GRUCell", "SimpleRNN", "SimpleRNNCell"})


class Spelling(NamedTuple):
    """How one Keras spells a layer's config.

    Fields: `library`: `keras` (Keras 3) or `tf_keras`; `custom`: names of a user's own objects that
    will be there when the config is read.
    """

    library: str = "keras"
    custom: frozenset[str] = frozenset()

    @property
    def target(self) -> str:
        """The name of this Keras in messages."""
        return TARGET if self.library == "keras" else self.library

    @property
    def has_time_major(self) -> bool:
        """Whether this Keras has the option `time_major`: Keras 3 does not."""
        return self.library == "tf_keras"

    def known(self, name: str) -> str | None:
        """Return the name under which a user's own object was supplied, if it was."""
        short = name.rpartition(">")[2]
        return next((given for given in (name, short) if given in self.custom), None)

    def _named(self, name: str) -> str:
        """Return a name as this Keras takes it: Keras 3 allows no / in it, tf_keras does."""
        return name.replace("/", "_") if self.library == "keras" else name

    def layer_config(self, layer: LSTMLayer, name: str) -> JsonObject:
        """Return the serialized object of a whole layer, as `keras.saving.serialize_keras_object`.

        Raises:
            UnsupportedByTarget: an option has no spelling in Keras 3.
        """
        name = self._named(name)
        if layer.backward is None:
            return self._direction(layer.forward, layer, name)
        outer = layer.options
        policy = outer.policy if isinstance(outer.policy, str) else _policy(layer.forward)
        config: JsonObject = {"name": name, **_common(outer.trainable, policy)}
        if outer.merge_mode != "concat":
            config["merge_mode"] = outer.merge_mode
        base = name.removeprefix("forward_")
        forward = self._direction(layer.forward, layer, layer.forward.name or f"forward_{base}")
        backward = self._direction(layer.backward, layer, layer.backward.name or f"backward_{base}")
        config["layer"] = forward
        # tf_keras makes, and leaves unsaid, the backward half that it was not given.
        is_said = self.library == "keras" or verbatim.is_given_backward(layer)
        if is_said or _unlike(forward, backward):
            config["backward_layer"] = backward
        return serialized(LAYERS, "Bidirectional", config)

    def _direction(self, direction: Direction, layer: LSTMLayer, name: str) -> JsonObject:
        first = direction.cells[0]
        config: JsonObject = {
            "name": self._named(name),
            **self._changed(direction.options, layer),
        }
        if _is_rnn(direction, layer):
            config["cell"] = self._rnn_cell(direction, layer)
        elif isinstance(first, OpaqueCell):
            config.update(self._opaque(first, layer))
        else:
            config.update(self._cell(first, layer))
            config.update(self._in_steps(verbatim.arguments(layer, direction), first))
        if self.library == "tf_keras" and layer.backward is not None:
            # Its Bidirectional sets this of the halves itself, and does not state it.
            stated = verbatim.arguments(layer, direction)
            if "zero_output_for_mask" not in stated:
                config.pop("zero_output_for_mask", None)
        if direction.options.time_major is True and self.has_time_major:
            config["time_major"] = True
        config.update(_common(direction.options.trainable, _policy(direction)))
        return serialized(LAYERS, class_of(direction, layer), config)

    def _rnn_cell(self, direction: Direction, layer: LSTMLayer) -> JsonObject:
        cells = [self._rnn_part(cell, layer) for cell in direction.cells]
        for made, stated, cell in zip(
            cells, verbatim.cells(layer, direction), direction.cells, strict=False
        ):
            made["config"].update(self._in_steps(stated, cell))
        if not is_stack(layer, direction):
            return cells[0]
        stack = verbatim.stack(layer, direction)
        config: JsonObject = {"name": "stacked_rnn_cells", **_common(True, _policy(direction))}
        config.update(stack)
        config["name"] = self._named(config["name"])
        return serialized(LAYERS, "StackedRNNCells", {**config, "cells": cells})

    def _in_steps(self, stated: JsonObject, cell: Cell | OpaqueCell) -> JsonObject:
        """Return tf_keras's `implementation`, if it is to multiply gate by gate: that rounds
        otherwise than all four at once, its default. Keras 3 has no place for it."""
        is_plain = isinstance(cell, Cell) and cell.options.convolution is None
        is_by_gate = is_plain and stated.get("implementation") in (0, 1)
        return {"implementation": 1} if is_by_gate and self.library == "tf_keras" else {}

    def _rnn_part(self, cell: Cell | OpaqueCell, layer: LSTMLayer) -> JsonObject:
        named = {"name": self._named(cell.name)} if cell.name else {}
        if isinstance(cell, OpaqueCell):
            config = {**named, **self._opaque(cell, layer)}
            return serialized(LAYERS, cell.class_name, config)
        common = _common(cell.options.trainable, cell.options.policy)
        config = {**named, **self._cell(cell, layer), **common}
        return serialized(LAYERS, "LSTMCell", config)

    def _opaque(self, cell: OpaqueCell, layer: LSTMLayer) -> JsonObject:
        """Spell a GRU or simple RNN beside an LSTM: its options have the names of an LSTM's."""
        source = (cell.config or {}).get("config")
        if cell.class_name not in _OPAQUE or not isinstance(source, dict) or "units" not in source:
            raise UnsupportedByTarget(
                f"{self.target} cannot rebuild the {cell.class_name} beside the LSTM",
                where=layer.name,
                layer=layer.name,
                option=cell.class_name,
                target=self.target,
            )
        era = Era("keras3" if "module" in (cell.config or {}) else "keras2")
        known = options.cell_options(source, era, layer.name)
        config = {"units": source["units"], **self._changed(known, layer)}
        config.update(_common(known.trainable, known.policy))
        for name, default in (("use_bias", True), ("reset_after", None)):
            if name in source and source[name] != default:
                config[name] = source[name]
        return config

    def _cell(self, cell: Cell, layer: LSTMLayer) -> JsonObject:
        convolution = cell.options.convolution
        width = "units" if convolution is None else "filters"
        config: JsonObject = {width: cell.units, **self._changed(cell.options, layer)}
        if not cell.use_bias:
            config["use_bias"] = False
        if convolution is not None:
            config.update(convolution)
            if self.library == "tf_keras":
                config.pop("seed", None)  # only its LSTM takes one
        return config

    def _changed(
        self, known: CellOptions | DirectionOptions, layer: LSTMLayer
    ) -> JsonObject:
        result: JsonObject = {}
        for field in fields(known):
            name, value = field.name, getattr(known, field.name)
            if name in _ELSEWHERE or name not in DEFAULTS or value is UNKNOWN:
                continue
            if isinstance(value, Activation):
                # tf_keras's ConvLSTM has another default than its LSTM.
                if self.library == "tf_keras" or value != KERAS3[DEFAULTS[name]]:
                    result[name] = self.activation(value, layer, name)
            elif not _is_default(name, value):
                result[name] = self._object(value, name, layer)
        return result

    def _object(self, value: Any, name: str, layer: LSTMLayer) -> Json:
        module = MODULES.get(name.rpartition("_")[2])
        if module is None or value is None:
            return value
        if "registered_name" not in value:
            kind = name.rpartition("_")[2]
            value = (spelling.spec(kind, value) if self.library == "keras" else None) or value
            return serialized(module, value["class_name"], value["config"])
        known = self.known(value["registered_name"])
        if known is None:
            raise self._custom(name, value["class_name"], layer)
        return {**serialized(module, known, value["config"]), "registered_name": known}

    def activation(self, value: Activation, layer: LSTMLayer, option: str) -> Json:
        """Return how this Keras spells an activation: a name, or a layer in its place.

        Raises:
            UnsupportedByTarget: it has no spelling.
        """
        if value.custom:
            known = self.known(value.name)
            if known is None:
                raise self._custom(option, value.name, layer)
            return known
        class_name = spelling.ACTIVATION_LAYERS.get(value.name, "")
        stated = verbatim.activation_layer(layer, option, class_name)
        if "name" in stated:
            stated["name"] = self._named(stated["name"])
        dtype = spelling.computed_in(_policy(layer.forward))
        spelled = spelling.activation(value, dtype, self.library, stated)
        if isinstance(spelled, dict) and self.library == "tf_keras":
            # Keras 3 does not state what an activation saw.
            return {**spelled, **verbatim.activation_build(layer, option, class_name)}
        if spelled is not None:
            return spelled
        raise UnsupportedByTarget(
            f"{self.target} has no {option} {value}",
            where=layer.name,
            layer=layer.name,
            option=option,
            target=self.target,
            found=str(value),
        )

    def _custom(self, option: str, found: str, layer: LSTMLayer) -> UnsupportedByTarget:
        return UnsupportedByTarget(
            f"a custom {option}, which is code that no file holds",
            where=layer.name,
            layer=layer.name,
            option=option,
            target=self.target,
            found=found,
            hint="rebuild in Python with to_keras(layer, custom_objects={…})",
        )


def class_of(direction: Direction, layer: LSTMLayer) -> str:
    """Return the Keras 3 class that one direction becomes: LSTM, RNN or ConvLSTM1D to 3D."""
    if _is_rnn(direction, layer):
        return "RNN"
    cell = direction.cells[0]
    if isinstance(cell, OpaqueCell):
        return cell.class_name
    rank = len(cell.fused_shape("kernel")) - 2
    return f"ConvLSTM{rank}D" if rank else "LSTM"


def is_stack(layer: LSTMLayer, direction: Direction) -> bool:
    """Whether a direction becomes a StackedRNNCells: of one cell too, if the source's is."""
    return _is_rnn(direction, layer) and verbatim.is_stack(layer, direction)


def _is_rnn(direction: Direction, layer: LSTMLayer) -> bool:
    named = direction.class_name or layer.class_name
    return named == "RNN" or len(direction.cells) > 1


def _unlike(forward: JsonObject, backward: JsonObject) -> bool:
    """Whether the backward half is not what tf_keras makes of the forward one by itself."""

    def shared(half: JsonObject) -> JsonObject:
        names = ("name", "go_backwards")
        return {**half, "config": {k: v for k, v in half["config"].items() if k not in names}}

    return shared(forward) != shared(backward)


def _is_default(name: str, value: Any) -> bool:
    known = DEFAULTS[name]
    is_object = name.rpartition("_")[2] in MODULES
    return bool(value == (object_spec(known, name) if is_object else known))


def _policy(direction: Direction) -> str:
    """Return the dtype policy of a direction; where it is unknown, the dtype of its weights."""
    policy = direction.options.policy
    if isinstance(policy, str):
        return policy
    cells = direction.lstm_cells
    return cells[0].dtype.name if cells else spelling.DEFAULT_POLICY


def _common(trainable: Any, policy: Any) -> JsonObject:
    # A policy is always stated: the reader's global default may be another.
    frozen = {"trainable": False} if trainable is False else {}
    return {**frozen, "dtype": policy} if isinstance(policy, str) else frozen
