"""Which Keras wrote a config, and what that changes: names of keys, and defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from lstmconvert.files.jsontext import Json, JsonObject

#: Keyword -> default of `keras.layers.LSTM` (keras/src/layers/rnn/lstm.py, and Keras 2 likewise).
DEFAULTS: Mapping[str, Json] = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "unit_forget_bias": True,
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "recurrent_regularizer": None,
    "bias_regularizer": None,
    "activity_regularizer": None,
    "kernel_constraint": None,
    "recurrent_constraint": None,
    "bias_constraint": None,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "seed": None,
    "trainable": True,
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "time_major": False,
    "zero_output_for_mask": False,
}

#: recurrent_activation was hard_sigmoid until these (Keras 2.3.0; tf.keras gave its V2 LSTM the
#: version 2.2.4-tf, and configs of both hold the key).
_SIGMOID_SINCE = (2, 3)


@dataclass(frozen=True)
class Era:
    """The Keras that wrote a config.

    Fields: `name`: `keras1`, `keras2` (tf.keras and tf_keras too) or `keras3`; `version`, as the
    file says it, or None; `is_convolutional`: ConvLSTM kept its old default longer.
    """

    name: str
    version: str | None = None
    is_convolutional: bool = False

    @property
    def convolutional(self) -> Era:
        """This Keras, for its ConvLSTM layers."""
        return replace(self, is_convolutional=True)

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers: (2, 2, 4); empty if unknown."""
        match = re.match(r"\d+(?:\.\d+)*", self.version or "")
        return tuple(int(part[:9]) for part in match[0].split(".")) if match else ()

    @cached_property
    def defaults(self) -> Mapping[str, Json]:
        """Keyword -> what it means when this Keras leaves it out of an LSTM's config.

        Where neither key nor version tell the recurrent activation, it is missing here: unknown.
        """
        result = dict(DEFAULTS)
        is_old = bool(self.numbers) and self.numbers < _SIGMOID_SINCE
        # ConvLSTM2D of Keras 2 (tf_keras/src/layers/rnn/base_conv_lstm.py) never changed.
        if self.name == "keras1" or is_old or (self.is_convolutional and self.name == "keras2"):
            result["recurrent_activation"] = "hard_sigmoid"
        elif self.name == "keras2" and not self.numbers:
            del result["recurrent_activation"]
        return result

    def modern(self, config: JsonObject) -> JsonObject:
        """Return a config with Keras 1's keys under today's names."""
        if self.name != "keras1":
            return config
        from lstmconvert.keras.configs import keras1  # such files are rare

        return keras1.recurrent(config)


def era_of(version: str | None, config: JsonObject | None) -> Era:
    """Tell the era by the version that the file states, else by the spelling of its config."""
    if version and version[0] in "0123" and version[1:2] == ".":
        names = {"0": "keras1", "1": "keras1", "2": "keras2", "3": "keras3"}
        return Era(names[version[0]], version)
    if config is not None and _spells(config, "module"):
        return Era("keras3", version)
    if config is not None and _spells(config, "output_dim") and _spells(config, "inner_activation"):
        return Era("keras1", version)
    return Era("keras2", version)


def _spells(value: Json, key: str) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if key in item:
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False
