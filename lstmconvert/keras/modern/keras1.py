"""Keras 1's layers under Keras 2's names (keras/legacy/interfaces.py of Keras 2.3.1).

Recurrent LSTM layers pass through untouched: the neutral model has read them already.
"""

from __future__ import annotations

from collections.abc import Mapping

from lstmconvert.jsontext import Json, JsonObject

_RENAMED_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
}
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
    found: set[str] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stated = item.get("dim_ordering")
            found |= {stated} if isinstance(stated, str) else set()
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return found.pop() if len(found) == 1 else None


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
    name = _RENAMED_CLASSES.get(class_name, class_name)
    if name.endswith(("2D", "3D")) and default_ordering is not None:
        config = {"dim_ordering": default_ordering, **config}
    return {**value, "class_name": name, "config": _keywords(name, config)}


def _keywords(class_name: str, config: JsonObject) -> JsonObject:
    names = {**_COMMON, **_CLASS_KEYS.get(class_name, {})}
    result = {names.get(key, key): item for key, item in config.items() if key not in _DROPPED}
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
