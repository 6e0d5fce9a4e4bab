"""Keras's own objects as its configs spell them: modules, classes, keywords, activations, dtypes.

The tables hold every initializer, regularizer and constraint with the keywords that Keras 3.3 to
3.15 take
(keras/src/initializers, keras/src/regularizers, keras/src/constraints). A keyword of an older
Keras (`dtype`, `partition_info`) has no effect on a trained weight and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs import values
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, KERAS2, KERAS3, Activation
from lstmconvert.model.options import Unknown
from lstmconvert.tensors.dtypes import FLOATS

_SEED = frozenset({"seed"})
#: Kind -> class -> its keywords.
CLASSES: Mapping[str, Mapping[str, frozenset[str]]] = {
    "initializer": {
        "Constant": frozenset({"value"}),
        "Identity": frozenset({"gain"}),
        "Ones": frozenset(),
        "Zeros": frozenset(),
        **dict.fromkeys(("GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform"), _SEED),
        **dict.fromkeys(("LecunNormal", "LecunUniform"), _SEED),
        "Orthogonal": frozenset({"gain", "seed"}),
        "RandomNormal": frozenset({"mean", "stddev", "seed"}),
        "RandomUniform": frozenset({"minval", "maxval", "seed"}),
        "TruncatedNormal": frozenset({"mean", "stddev", "seed"}),
        "VarianceScaling": frozenset({"scale", "mode", "distribution", "seed"}),
    },
    "regularizer": {
        "L1": frozenset({"l1"}),
        "L2": frozenset({"l2"}),
        "L1L2": frozenset({"l1", "l2"}),
        "OrthogonalRegularizer": frozenset({"factor", "mode"}),
    },
    "constraint": {
        "MaxNorm": frozenset({"max_value", "axis"}),
        "MinMaxNorm": frozenset({"min_value", "max_value", "rate", "axis"}),
        "NonNeg": frozenset(),
        "UnitNorm": frozenset({"axis"}),
    },
}
#: Their names in Keras 3.3 and later.
OLDEST_NAMES = {"Orthogonal": "OrthogonalInitializer"}
#: VarianceScaling's distribution before TensorFlow 1.13.
_DISTRIBUTIONS = {"normal": "truncated_normal"}
#: Kind -> the module of its classes.
MODULES = {
    "initializer": "keras.initializers",
    "regularizer": "keras.regularizers",
    "constraint": "keras.constraints",
}
LAYERS = "keras.layers"
#: The modules of the classes of models. Functional has no public name in Keras 3.
_MODEL_MODULES = {"Sequential": "keras", "Functional": "keras.src.models.functional"}
#: Activation layers for functions whose constants are not those of Keras's bare name.
ACTIVATION_LAYERS = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "elu": "ELU"}
#: The activations that tf_keras has by name (tf_keras/src/activations.py).
_TF_KERAS_NAMES: tuple[str, ...] = (
    "linear",
    "sigmoid",
    "tanh",
    "hard_sigmoid",
    "relu",
    "elu",
    "selu",
    "gelu",
    "softplus",
    "softsign",
    "exponential",
    "leaky_relu",
    "swish",
    "mish",
    "softmax",
)
DEFAULT_POLICY = "float32"
#: The name of the model that represents Keras 2's hard_sigmoid.
COMPOSITION_NAME = "keras2_hard_sigmoid"


def kind_of(keyword: str) -> str | None:
    """Return `initializer`, `regularizer` or `constraint` for a keyword that takes one."""
    kind = keyword.rpartition("_")[2]
    return kind if kind in CLASSES else None


def spec(kind: str, value: JsonObject) -> JsonObject | None:
    """Return `{"class_name", "config"}` of Keras's own object with Keras 3's keywords.

    Args:
        kind: what `kind_of` returns.
        value: as `values.object_spec` returns it.

    Returns:
        None if Keras has no such class.
    """
    if "registered_name" in value:
        return None
    name = value["class_name"].removesuffix("V2")
    allowed = CLASSES[kind].get(name)
    if allowed is None:
        return None
    config = {key: item for key, item in value["config"].items() if key in allowed}
    distribution = config.get("distribution")
    if isinstance(distribution, str):
        config["distribution"] = _DISTRIBUTIONS.get(distribution, distribution)
    return {"class_name": OLDEST_NAMES.get(name, name), "config": config}


def spelled(keyword: str, value: Json, where: str) -> JsonObject | None:
    """Return an initializer, regularizer or constraint as Keras 3 serializes it; None if Keras has
    no such class.

    Raises:
        CorruptFile: it is not a serialized object.
    """
    kind = kind_of(keyword)
    stated = values.object_spec(value, f"{where}.{keyword}")
    known = spec(kind, stated) if kind and stated else None
    if kind is None or known is None:
        return None
    return serialized(MODULES[kind], known["class_name"], known["config"])


def left_out(where: str, keyword: str, value: Json) -> str:
    """Return the note for an initializer, regularizer or constraint of the user's own."""
    name = value.get("class_name") if isinstance(value, dict) else value
    return (
        f"{where}: its {keyword} {name} is the user's own code, and left out: it changes no number "
        "of a trained model"
    )


def activation(
    wanted: Activation, dtype: str, library: str = "keras", stated: JsonObject | None = None
) -> Json | None:
    """Return an activation as a Keras spells it: a name, or layers in its place.

    Args:
        wanted: the function.
        dtype: what the layer computes in.
        library: `keras` (Keras 3) or `tf_keras`.
        stated: keywords of the activation layer that replaces it in the source, other than its
            constants: its name, its dtype.

    Returns:
        None if that Keras cannot express it without the user's own code.
    """
    if wanted.custom:
        return None
    is_keras3 = library == "keras"
    names = KERAS3 if is_keras3 else {name: KERAS2[name] for name in _TF_KERAS_NAMES}
    for name, function in names.items():
        if function == wanted:
            return name
    if wanted == HARD_SIGMOID_KERAS2 and is_keras3:
        return composition(dtype)
    class_name = ACTIVATION_LAYERS.get(wanted.name)
    if class_name is None:
        return None
    constants: JsonObject = dict(wanted.constants)
    if class_name == "LeakyReLU" and not is_keras3:
        constants = {"alpha": constants.pop("negative_slope"), **constants}
    return serialized(LAYERS, class_name, {**constants, **(stated or {})})


def composition(dtype: str) -> JsonObject:
    """Return Keras 2's hard_sigmoid in Keras 3's own layers, in the dtype that a layer computes in.

    Keras 3 takes a model for an activation from 3.10 on.
    """
    layers = [
        serialized(LAYERS, class_name, {**config, "dtype": dtype})
        for class_name, config in values.COMPOSITION
    ]
    return serialized_model("Sequential", {"name": COMPOSITION_NAME, "layers": layers})


def policy(value: Json, where: str) -> str | None:
    """Return a layer's dtype policy by name; None where the config says none that a layer computes
    in (Keras 2.0 notes the dtype of an Embedding's input)."""
    name = values.policy(value, where)
    if isinstance(name, Unknown) or name.removeprefix("mixed_") not in FLOATS:
        return None
    return name


def computed_in(policy_name: str) -> str:
    """Return the dtype that a policy computes in."""
    return policy_name.removeprefix("mixed_")


def serialized(module: str, class_name: str, config: JsonObject) -> JsonObject:
    """Return an object as Keras 3 serializes it."""
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def serialized_model(class_name: str, config: JsonObject) -> JsonObject:
    """Return a Sequential or a Functional as Keras 3 serializes it."""
    return serialized(model_module(class_name), class_name, config)


def model_module(class_name: str) -> str:
    """Return the module of a class of models."""
    return _MODEL_MODULES.get(class_name, "keras")


#: Class -> scale, mode and distribution of the VarianceScaling that it is
#: (keras/src/initializers/random_initializers.py).
_SCALINGS = {
    "GlorotUniform": (1.0, "fan_avg", "uniform"),
    "GlorotNormal": (1.0, "fan_avg", "truncated_normal"),
    "HeUniform": (2.0, "fan_in", "uniform"),
    "HeNormal": (2.0, "fan_in", "truncated_normal"),
    "LecunUniform": (1.0, "fan_in", "uniform"),
    "LecunNormal": (1.0, "fan_in", "truncated_normal"),
}
#: Class -> the keywords of its constructor and their defaults (keras/src/initializers,
#: keras/src/regularizers/regularizers.py, keras/src/constraints/constraints.py).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "VarianceScaling": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"},
    "RandomNormal": {"mean": 0.0, "stddev": 0.05},
    "TruncatedNormal": {"mean": 0.0, "stddev": 0.05},
    "RandomUniform": {"minval": -0.05, "maxval": 0.05},
    "Orthogonal": {"gain": 1.0},
    "Identity": {"gain": 1.0},
    "L1": {"l1": 0.01},
    "L2": {"l2": 0.01},
    "L1L2": {"l1": 0.0, "l2": 0.0},
    "MaxNorm": {"max_value": 2, "axis": 0},
    "UnitNorm": {"axis": 0},
    "MinMaxNorm": {"min_value": 0.0, "max_value": 1.0, "rate": 1.0, "axis": 0},
}


def of_object(spec: Any) -> Any:
    """Return what a `{"class_name", "config"}` object means: the same for the same function.

    An object that is not Keras's own is returned as it is. Numbers are compared as float32, since
    Keras 2 stored them so.
    """
    if not isinstance(spec, dict) or "registered_name" in spec or "config" not in spec:
        return spec
    name, config = spec["class_name"], dict(spec["config"])
    if name in _SCALINGS:
        scaling = dict(zip(("scale", "mode", "distribution"), _SCALINGS[name], strict=True))
        name, config = "VarianceScaling", {**scaling, **config}
    config = {**_DEFAULTS.get(name, {}), **config}
    if name == "VarianceScaling" and config["distribution"] == "normal":
        config["distribution"] = "truncated_normal"
    if name in ("L1", "L2", "L1L2"):
        config = {**_DEFAULTS["L1L2"], **config}
        if not config["l1"] and not config["l2"]:
            return None  # it adds nothing
        name = "L1L2"
    return {"class_name": name, "config": {key: _number(item) for key, item in config.items()}}


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return float(np.float32(value))
