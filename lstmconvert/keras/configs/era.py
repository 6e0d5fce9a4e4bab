"""Which Keras wrote a config, and what that changes: names of keys, and defaults.

Keras 1's and 0.x's keywords and classes get today's names (keras/legacy/interfaces.py of Keras
2.3.1). Keras 0.x has weights without names, and configs whose `name` is a class:

    layer_0/param_0, param_1, …      a Sequential's layers, by number (keras/models.py of Keras 0.3)
    graph/param_0, …                 a Graph's weights, in one group
    {"name": "Sequential", "layers": [{"name": "LSTM", "output_dim": 2, …}, …]}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs.nodes import snake_case

# -- which Keras ---------------------------------------------------------------------------------


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


class _Fields(NamedTuple):
    name: str
    version: str | None = None
    is_convolutional: bool = False


class Era(_Fields):
    """The Keras that wrote a config.

    Fields: `name`: `keras1`, `keras2` (tf.keras and tf_keras too) or `keras3`; `version`, as the
    file says it, or None; `is_convolutional`: ConvLSTM kept its old default longer.
    """

    @property
    def convolutional(self) -> Era:
        """This Keras, for its ConvLSTM layers."""
        return self._replace(is_convolutional=True)

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
        return recurrent(config)


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


# -- Keras 1 and 0.x -----------------------------------------------------------------------------


#: Letter in the name of an array of a recurrent layer, in Keras 1's order -> its role
#: (keras/layers/recurrent.py of Keras 1.2.2).
ROLES_BY_LETTER = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}
#: Class of Keras 1 -> its class today.
RENAMED = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
}
#: The key of a serialized layer that says which class of Keras 1 it stands for.
STANDS_FOR = "stands_for"
_COMMON = {
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "b_constraint": "bias_constraint",
    "inner_activation": "recurrent_activation",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "bias": "use_bias",
    "output_dim": "units",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "nb_filter": "filters",
    "subsample": "strides",
    "atrous_rate": "dilation_rate",
}
_CLASS_KEYS: Mapping[str, Mapping[str, str]] = {
    "Embedding": {
        "output_dim": "output_dim",
        "init": "embeddings_initializer",
        "W_regularizer": "embeddings_regularizer",
        "W_constraint": "embeddings_constraint",
    },
    "Dropout": {"p": "rate"},
    "SpatialDropout1D": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "GaussianDropout": {"p": "rate"},
    "GaussianNoise": {"sigma": "stddev"},
    "Conv1D": {"filter_length": "kernel_size", "subsample_length": "strides"},
    "MaxPooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "AveragePooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "UpSampling1D": {"length": "size"},
    "BatchNormalization": {"beta_init": "beta_initializer", "gamma_init": "gamma_initializer"},
    "PReLU": {"init": "alpha_initializer"},
}
#: Keys that say how the input is made, or how the computation is spread: no number depends on them.
_DROPPED = frozenset(
    {"input_length", "create_input_layer", "cache_enabled", "consume_less", "forget_bias_init"}
)
_SIZES = ("kernel_dim1", "kernel_dim2", "kernel_dim3", "nb_row", "nb_col")
_DIM_ORDERING = {"th": "channels_first", "tf": "channels_last"}
_MERGE_MODES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
}


def ordering(value: Json) -> str | None:
    """Return the one order of an image's axes that the layers of a model state, if there is one:
    Keras 1 notes none for ZeroPadding2D and its like, whose default was the process's."""
    orders: set[str] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stated = item.get("dim_ordering")
            orders |= {stated} if isinstance(stated, str) else set()
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return orders.pop() if len(orders) == 1 else None


def modern(value: JsonObject, default_ordering: str | None = None) -> JsonObject:
    """Return a serialized layer of Keras 1 as Keras 2 would have written it; a class that has no
    such form as it is.

    Args:
        value: the layer.
        default_ordering: what `ordering` returns for the model.
    """
    class_name, config = value.get("class_name"), value.get("config")
    if not isinstance(class_name, str) or not isinstance(config, dict):
        return value
    if class_name == "TimeDistributedDense":
        return _time_distributed(value, config)
    if class_name == "Merge":
        return _merge(value, config)
    if class_name in COMPOSITIONS:
        return _composed(value, class_name, config)
    name = RENAMED.get(class_name, class_name)
    if class_name == "Deconvolution2D":
        if not _has_usual_size(config, default_ordering):
            return value
        value = {**value, STANDS_FOR: class_name}
    if name.endswith(("2D", "3D")) and default_ordering is not None:
        config = {"dim_ordering": default_ordering, **config}
    return {**value, "class_name": name, "config": _keywords(name, config)}


def recurrent(config: JsonObject) -> JsonObject:
    """Return the keywords of a recurrent layer under today's names.

    (keras/legacy/interfaces.py of Keras 2, `recurrent_args_preprocessor`.)
    """
    result = {_COMMON.get(key, key): value for key, value in config.items()}
    if "data_format" in result:
        result["data_format"] = _DIM_ORDERING.get(str(result["data_format"]))
    if {"nb_row", "nb_col"} <= config.keys():
        result["kernel_size"] = [config["nb_row"], config["nb_col"]]
        result = {"strides": [1, 1], "dilation_rate": [1, 1], **result}
    if "forget_bias_init" in config:
        result["unit_forget_bias"] = config["forget_bias_init"] == "one"
    return result


def _keywords(class_name: str, config: JsonObject) -> JsonObject:
    names = {**_COMMON, **_CLASS_KEYS.get(class_name, {})}
    result = {names.get(key, key): item for key, item in config.items() if key not in _DROPPED}
    if class_name == "Conv2DTranspose":
        result.pop("output_shape", None)  # `_has_usual_size` has compared it
    if class_name != "Embedding":
        result.pop("input_dim", None)
    elif result.get("dropout") is not None:
        del result["dropout"]  # of whole rows, in training only
    if isinstance(result.get("data_format"), str):
        ordering = result["data_format"]
        result["data_format"] = _DIM_ORDERING.get(ordering, ordering)
    sizes = [config[key] for key in _SIZES if key in config]
    if sizes:
        result = {key: item for key, item in result.items() if key not in _SIZES}
        result["kernel_size"] = sizes
    return result


def _time_distributed(value: JsonObject, config: JsonObject) -> JsonObject:
    outer = {"name", "trainable", "batch_input_shape", "input_dtype"}
    inner: Json = {key: item for key, item in config.items() if key not in outer}
    inner["name"] = f"{config.get('name', 'time_distributed')}_dense"
    dense = {"class_name": "Dense", "config": inner}
    around = {key: item for key, item in config.items() if key in outer}
    return {**value, "class_name": "TimeDistributed", "config": {**around, "layer": dense}}


def _merge(value: JsonObject, config: JsonObject) -> JsonObject:
    class_name = _MERGE_MODES.get(str(config.get("mode")))
    if class_name is None or config.get("layers") or config.get("mode_type", "raw") != "raw":
        return value
    result: JsonObject = {"name": config.get("name")}
    if class_name == "Concatenate":
        result["axis"] = config.get("concat_axis", -1)
    if class_name == "Dot":
        axes = config.get("dot_axes", -1)
        result["axes"] = axes[0] if isinstance(axes, list) and len(axes) == 1 else axes
    return {**value, "class_name": class_name, "config": result}


#: Class of Keras 1 -> the layers that compute what it does, each with its inputs, in order: `x` is
#: what the layer is called on, and `dense` has the keywords of the layer itself
#: (keras/layers/core.py of Keras 1.2.2, `Highway.call` and `MaxoutDense.call`). The last is the
#: output. `1 - t` is `t * -1 + 1`, to the bit.
COMPOSITIONS: Mapping[str, tuple[tuple[str, str, JsonObject, tuple[str, ...]], ...]] = {
    "Highway": (
        ("dense", "Dense", {}, ("x",)),
        ("transform", "Dense", {"activation": "sigmoid"}, ("x",)),
        ("carry", "Rescaling", {"scale": -1.0, "offset": 1.0}, ("transform",)),
        ("changed", "Multiply", {}, ("dense", "transform")),
        ("carried", "Multiply", {}, ("carry", "x")),
        ("sum", "Add", {}, ("changed", "carried")),
    ),
    "MaxoutDense": (
        ("dense", "Dense", {}, ("x",)),
        ("features", "Reshape", {}, ("dense",)),
        ("maximum", "GlobalMaxPooling1D", {}, ("features",)),
    ),
}


def _composed(value: JsonObject, class_name: str, config: JsonObject) -> JsonObject:
    """Return a layer as a model of layers that computes the same. The sizes that the config does
    not say are those of the stored weights, and are put there when these are read."""
    name = config.get("name", value.get("name"))
    outer = {"name", "trainable", "batch_input_shape", "input_dtype", "input_dim", "nb_feature"}
    dense = {key: item for key, item in config.items() if key not in outer}
    features, units = config.get("nb_feature"), config.get("output_dim")
    shape = config.get("batch_input_shape") or [None, config.get("input_dim")]
    layers: list[JsonObject] = [
        {
            "class_name": "InputLayer",
            "config": {"name": f"{name}_x", "batch_input_shape": shape},
            "name": f"{name}_x",
            "inbound_nodes": [],
        }
    ]
    for place, layer_class, options, inputs in COMPOSITIONS[class_name]:
        stated = dict(options)
        if place == "dense":
            stated = dense
        elif layer_class == "Dense":
            stated = {**options, "bias": config.get("bias", True)}
        if class_name == "MaxoutDense" and isinstance(features, int) and isinstance(units, int):
            if place == "dense":
                stated = {**dense, "output_dim": features * units}
            elif place == "features":
                stated = {"target_shape": [features, units]}
        layers.append(
            {
                "class_name": layer_class,
                "config": {"name": f"{name}_{place}", **stated},
                "name": f"{name}_{place}",
                "inbound_nodes": [[[f"{name}_{each}", 0, 0] for each in inputs]],
            }
        )
    model: JsonObject = {
        "name": name,
        "trainable": config.get("trainable", True),
        "layers": layers,
        "input_layers": [[f"{name}_x", 0, 0]],
        "output_layers": [[layers[-1]["name"], 0, 0]],
    }
    return {**value, "class_name": "Model", "config": model, STANDS_FOR: class_name}


def _has_usual_size(config: JsonObject, ordering: str | None) -> bool:
    """Whether the output that a Deconvolution2D states is what Conv2DTranspose gives, which is told
    how much it gets alone.

    An output of n rows has ceil(n / step) before it with `same`, ceil((n - size + 1) / step) with
    `valid` (keras/backend/tensorflow_backend.py of Keras 1.2.2, `deconv2d`).
    """
    shape, steps = config.get("output_shape"), config.get("subsample", [1, 1])
    first = 2 if config.get("dim_ordering", ordering) == "th" else 1
    sizes = [config.get("nb_row"), config.get("nb_col")]
    if not isinstance(shape, list) or len(shape) != 4 or not isinstance(steps, list):
        return False
    for length, size, step in zip(shape[first : first + 2], sizes, steps, strict=False):
        if not all(type(number) is int and number > 0 for number in (length, size, step)):
            return False
        if config.get("border_mode") == "same":
            given = -(-length // step) * step
        else:
            given = -(-(length - size + 1) // step) * step + max(size - step, 0)
        if given != length:
            return False
    return True


_PARAM = re.compile(r"(layer_\d{1,6}|graph)/param_(\d{1,6})")


def keras0_weight_names(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return layer -> the names of its weights, in order; empty if the paths are not Keras 0.x's.

    Layers without weights leave an empty group, and have no part in it.
    """
    layers: dict[tuple[int, str], dict[int, str]] = {}
    for path in paths:
        match = _PARAM.fullmatch(path)
        if match is None:
            return {}
        number = int(match[1].partition("_")[2] or 0)
        layers.setdefault((number, match[1]), {})[int(match[2])] = path.partition("/")[2]
    if any(sorted(params) != list(range(len(params))) for params in layers.values()):
        return {}
    return {
        layer: [params[index] for index in sorted(params)]
        for (_, layer), params in sorted(layers.items())
    }


def is_config(value: Json) -> bool:
    """Whether a model's config is one of Keras 0.x."""
    return (
        isinstance(value, dict)
        and "class_name" not in value
        and value.get("name") == "Sequential"
        and isinstance(value.get("layers"), list)
    )


def modern_keras0(value: JsonObject) -> JsonObject:
    """Return a config of Keras 0.x as Keras 1 writes it; layers get a name where they have none."""
    layers = [_layer(item, index) for index, item in enumerate(value["layers"])]
    return {"class_name": "Sequential", "config": layers}


def _layer(value: Json, index: int) -> Json:
    if is_config(value):
        return modern_keras0(value)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return value
    class_name, custom_name = value["name"], value.get("custom_name")
    config = {key: item for key, item in value.items() if key != "custom_name"}
    # All unnamed layers of a class had the class's name.
    is_default = not isinstance(custom_name, str) or custom_name in (class_name, class_name.lower())
    config["name"] = f"{snake_case(class_name)}_{index}" if is_default else custom_name
    if class_name == "Merge" and isinstance(config.get("layers"), list):
        config["layers"] = [_layer(item, number) for number, item in enumerate(config["layers"])]
    return {"class_name": class_name, "config": config}
