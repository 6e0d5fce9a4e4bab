"""Configs of layers for engines that read Keras's own: TensorFlow.js and frugally-deep.

They state every key that those engines look for, and nothing else: no initializers, which no
engine without training needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from lstmconvert.errors import UnknownOption, UnsupportedByTarget
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.keras.configs.spelling import LAYERS, serialized
from lstmconvert.keras.writing.emit import Spelling
from lstmconvert.model.activations import Activation
from lstmconvert.model.layer import Cell, Direction, LSTMLayer
from lstmconvert.model.options import UNKNOWN

_FLAGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
#: Options in which the halves of a Bidirectional may differ.
_DIFFERENT_IN_HALVES = frozenset({"name", "go_backwards"})


@dataclass(frozen=True, slots=True)
class Dialect:
    """An engine that reads Keras's configs.

    Fields: `title` and `target` (the layout's name), for errors; `library`: whose names it takes,
    `keras` or `tf_keras`. What it computes, its row in `layouts.rows` says.
    """

    title: str
    target: str
    library: str

    def layer(self, layer: LSTMLayer, name: str) -> JsonObject:
        """Return `{"class_name", "name", "config"}` of a layer.

        Raises:
            UnknownOption: an option is unknown that the config has to say.
            UnsupportedByTarget: halves that differ.
        """
        forward = layer.forward
        if layer.backward is None:
            return {"name": name, **self._direction(forward, layer, name)}
        halves = [self._direction(half, layer, "lstm") for _, half in layer.directions]
        if any(half["class_name"] != "LSTM" for half in halves):
            raise self.refused(layer, "cells", "several in a half of two")
        forward_config, backward_config = (half["config"] for half in halves)
        for key in forward_config:
            if key not in _DIFFERENT_IN_HALVES and forward_config[key] != backward_config[key]:
                raise self.refused(layer, key, f"{forward_config[key]} and {backward_config[key]}")
        config = {"name": name, "layer": halves[0], "merge_mode": layer.options.merge_mode}
        return {"name": name, **self.entry("Bidirectional", config)}

    def entry(self, class_name: str, config: JsonObject) -> JsonObject:
        """Return a serialized object: Keras 3's say their module, earlier ones do not."""
        if self.library == "keras":
            return serialized(LAYERS, class_name, config)
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
        # It does not change the numbers, so it may be unknown.
        flags["unroll"] = flags["unroll"] is True
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
        value: Activation = getattr(cell.options, option)  # known, and one of the row's
        name = Spelling(library=self.library).activation(value, layer, option)
        if not isinstance(name, str):
            raise AssertionError(f"{value} has no name in {self.library}")
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
