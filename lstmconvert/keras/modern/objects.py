"""Initializers, regularizers, constraints, activations and dtypes as Keras 3 spells them.

The tables hold every class of Keras's own with the keywords that Keras 3.3 to 3.15 take
(keras/src/initializers, keras/src/regularizers, keras/src/constraints). A keyword of an older
Keras (`dtype`, `partition_info`) says nothing about a trained weight and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from lstmconvert.activations import HARD_SIGMOID_KERAS2, KERAS3
from lstmconvert.dtypes import FLOATS
from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.keras import values
from lstmconvert.options import Unknown

_SEED = frozenset({"seed"})
_CLASSES: Mapping[str, Mapping[str, frozenset[str]]] = {
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
#: What Keras 3.3 calls them, and every later one too.
_OLDEST = {"Orthogonal": "OrthogonalInitializer"}
#: VarianceScaling's distribution before TensorFlow 1.13.
_DISTRIBUTIONS = {"normal": "truncated_normal"}
_MODULES = {
    "initializer": "keras.initializers",
    "regularizer": "keras.regularizers",
    "constraint": "keras.constraints",
}
DEFAULT_POLICY = "float32"
#: The name of the model that stands for Keras 2's hard_sigmoid.
COMPOSITION_NAME = "keras2_hard_sigmoid"


def kind_of(keyword: str) -> str | None:
    """Return `initializer`, `regularizer` or `constraint` for a keyword that takes one."""
    kind = keyword.rpartition("_")[2]
    return kind if kind in _CLASSES else None


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
    allowed = _CLASSES[kind].get(name)
    if allowed is None:
        return None
    config = {key: item for key, item in value["config"].items() if key in allowed}
    distribution = config.get("distribution")
    if isinstance(distribution, str):
        config["distribution"] = _DISTRIBUTIONS.get(distribution, distribution)
    return {"class_name": _OLDEST.get(name, name), "config": config}


def spelled(keyword: str, value: Json, where: str) -> JsonObject | None:
    """Return an initializer, regularizer or constraint as Keras 3 serializes it; None if Keras has
    no such class.

    Raises:
        CorruptFile: it is no serialized object.
    """
    kind = kind_of(keyword)
    found = values.object_spec(value, f"{where}.{keyword}")
    known = spec(kind, found) if kind and found else None
    if kind is None or known is None:
        return None
    return serialized(_MODULES[kind], known["class_name"], known["config"])


def activation(value: Json, era: str, dtype: str, where: str) -> Json | None:
    """Return an activation as Keras 3 spells it: a name, or layers in its place; None if Keras 3
    cannot say it.

    Args:
        value: as the source's config has it.
        era: of the source.
        dtype: what the layer computes in.
        where: for errors.
    """
    meant = values.activation(value, era, where)
    if meant.custom:
        return None
    for name, function in KERAS3.items():
        if function == meant:
            return name
    if meant == HARD_SIGMOID_KERAS2:
        return composition(dtype)
    names = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "elu": "ELU"}
    if meant.name in names:
        said = value.get("config") if isinstance(value, dict) else None
        own = policy(said.get("dtype"), where) if isinstance(said, dict) else None
        config: JsonObject = {**meant.constants, **({"dtype": own} if own else {})}
        return serialized("keras.layers", names[meant.name], config)
    return None


def composition(dtype: str) -> JsonObject:
    """Return Keras 2's hard_sigmoid in Keras 3's own layers, in the dtype that a layer computes in.

    Keras 3 takes a model for an activation from 3.10 on.
    """
    layers = [
        serialized("keras.layers", class_name, {**config, "dtype": dtype})
        for class_name, config in values.COMPOSITION
    ]
    return serialized("keras", "Sequential", {"name": COMPOSITION_NAME, "layers": layers})


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
