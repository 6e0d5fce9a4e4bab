"""Configs of layers for engines that read Keras's own: TensorFlow.js and frugally-deep.

They hold what those engines look for, each key said, and nothing else: no initializers, which no
engine without training needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from lstmconvert.activations import Activation
from lstmconvert.errors import UnknownOption, UnsupportedByTarget
from lstmconvert.jsontext import JsonObject
from lstmconvert.keras.emit import Spelling, serialized
from lstmconvert.layer import Cell, Direction, LSTMLayer
from lstmconvert.options import UNKNOWN

_FLAGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
#: What the halves of a Bidirectional may have of their own.
_OWN = frozenset({"name", "go_backwards"})


@dataclass(frozen=True, slots=True)
class Dialect:
    """An engine: its `title` and layout's name (`target`) for errors, whose Keras's names it takes
    (`library`: `keras` or `tf_keras`), and the `functions` that it has."""

    title: str
    target: str
    library: str
    functions: frozenset[str]

    def layer(self, layer: LSTMLayer, name: str) -> JsonObject:
        """Return `{"class_name", "name", "config"}` of a layer.

        Raises:
            UnknownOption: an option is unknown that the config has to say.
            UnsupportedByTarget: a function that is not there, or halves that differ.
        """
        forward = layer.forward
        if layer.backward is None:
            return {"name": name, **self._direction(forward, layer, name)}
        halves = [self._direction(half, layer, "lstm") for _, half in layer.directions]
        if any(half["class_name"] != "LSTM" for half in halves):
            raise self.refused(layer, "cells", "several in a half of two")
        own, other = (half["config"] for half in halves)
        for key in own:
            if key not in _OWN and own[key] != other[key]:
                raise self.refused(layer, key, f"{own[key]} and {other[key]}")
        config = {"name": name, "layer": halves[0], "merge_mode": layer.options.merge_mode}
        return {"name": name, **self.entry("Bidirectional", config)}

    def entry(self, class_name: str, config: JsonObject) -> JsonObject:
        """Return a serialized object: Keras 3's say their module, earlier ones do not."""
        if self.library == "keras":
            return serialized("keras.layers", class_name, config)
        return {"class_name": class_name, "config": config}

    def _direction(self, direction: Direction, layer: LSTMLayer, name: str) -> JsonObject:
        config = {"name": name, "trainable": True, **self._flags(direction, layer)}
        cells = [self._cell(cell, layer) for cell in direction.lstm_cells]
        if len(cells) == 1:
            return self.entry("LSTM", {**config, **cells[0]})
        parts = [self.entry("LSTMCell", cell) for cell in cells]
        stack = self.entry("StackedRNNCells", {"cells": parts})
        return self.entry("RNN", {**config, "cell": stack})

    def _flags(self, direction: Direction, layer: LSTMLayer) -> JsonObject:
        flags = {key: getattr(direction.options, key) for key in _FLAGS}
        flags["unroll"] = flags["unroll"] is True  # how, not what: unknown is no matter
        for key, value in flags.items():
            if value is UNKNOWN:
                raise self._unknown(layer, key)
        return flags

    def _cell(self, cell: Cell, layer: LSTMLayer) -> JsonObject:
        return {
            "units": cell.units,
            "activation": self._function(cell, "activation", layer),
            "recurrent_activation": self._function(cell, "recurrent_activation", layer),
            "use_bias": cell.use_bias,
        }

    def _function(self, cell: Cell, option: str, layer: LSTMLayer) -> str:
        value = getattr(cell.options, option)
        if not isinstance(value, Activation):
            raise self._unknown(layer, option)
        name = Spelling(library=self.library).activation(value, layer, option)
        if not isinstance(name, str) or name not in self.functions:
            raise self.refused(layer, option, str(value))
        return name

    def _unknown(self, layer: LSTMLayer, option: str) -> UnknownOption:
        return UnknownOption(
            f"the file does not say what {self.title} has to be told",
            where=layer.name,
            found=f"unknown: {option}",
            hint=f"--set {option}=VALUE",
        )

    def refused(self, layer: LSTMLayer, option: str, found: str) -> UnsupportedByTarget:
        """Return the error for what this engine cannot express."""
        return UnsupportedByTarget(
            f"{self.title} cannot express {option}",
            where=layer.name,
            layer=layer.name,
            option=option,
            target=self.target,
            found=found,
        )
