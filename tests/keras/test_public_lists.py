"""Every class of both Keras libraries, and every function that the tables name: carried, or refused
with why. The guide's lists are made from the same tables."""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import pytest
import tensorflow as tf
import tf_keras
from support.write_guide import carried

from lstmconvert.keras.configs import era
from lstmconvert.keras.modern import operations
from lstmconvert.keras.modern.classes import CLASSES, REFUSED

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
#: In Keras 3, and still refused when an older Keras wrote it, whose numbers are others.
BOTH = {"RandomCrop"}


def layer_classes(library: Any) -> set[str]:
    """The names by which configs call the public classes of layers."""
    values = (getattr(library.layers, name) for name in dir(library.layers))
    return {value.__name__ for value in values if isinstance(value, type)}


@pytest.mark.parametrize("library", [tf_keras, keras])
def test_every_layer_is_carried_or_refused_with_why(library: Any) -> None:
    named = {name for name in layer_classes(library) if not name.startswith("_")}
    assert named - carried() - REFUSED.keys() == set()
    assert len(named) > 100
    assert carried() & REFUSED.keys() == BOTH
    assert all(len(why.split()) > 4 for why in REFUSED.values())


def test_what_is_carried_is_a_layer_of_keras_3() -> None:
    there = layer_classes(keras) | {"Functional", "Model", "Sequential"}
    old = {"CuDNNGRU", "CuDNNLSTM", "ThresholdedReLU"}
    assert carried() - there == old
    assert all(CLASSES[name].today for name in old & CLASSES.keys())


def test_the_classes_of_keras_1_are_carried_under_a_name_of_today() -> None:
    assert set(era.RENAMED.values()) <= CLASSES.keys()
    inside = {layer for layers in era.COMPOSITIONS.values() for _, layer, _, _ in layers}
    assert inside <= CLASSES.keys()


def public(name: str) -> bool:
    """Whether TensorFlow has a function of that name, of its own or among those of version 1."""
    if name.startswith("__operators__."):  # of tensors: tf.Tensor.__add__ and its like
        return True
    for start in (tf, tf.compat.v1):
        try:
            reduce(getattr, name.split("."), start)
        except AttributeError:
            continue
        return True
    return False


def test_the_functions_of_the_tables_are_tensorflow_s() -> None:
    names = operations.OPERATIONS.keys() | operations.REFUSED.keys()
    assert {name for name in names if not public(name)} == set()
    assert not operations.OPERATIONS.keys() & operations.REFUSED.keys()
    raw = {name for name in operations.OPERATORS if not hasattr(tf.raw_ops, name)}
    assert raw == set()
    assert {function for function, _ in operations.OPERATORS.values()} <= {
        *operations.OPERATIONS, "shape"
    }  # fmt: skip


def test_every_operation_of_keras_3_is_a_class_of_the_table() -> None:
    """A function of `keras.ops` leaves an operation of its class in a model's config."""
    named = {name for name in dir(keras.ops) if not name.startswith("_")}
    assert len(named) > 250
    spelled = {name.lower() for name in operations.BARE}
    runs_code = {"associative_scan", "cond", "custom_gradient", "fori_loop", "jvp", "map", "scan",
                 "switch", "vectorize", "vectorized_map", "while_loop"}  # fmt: skip
    by_another_name = {"batch_normalization", "hard_swish", "layer_normalization", "rearrange",
                       "rms_normalization", "swish"}  # fmt: skip
    of_no_tensor = {"bartlett", "blackman", "empty", "eye", "hamming", "hanning", "identity",
                    "kaiser", "ones", "tri", "zeros"}  # fmt: skip
    no_operation = {"convert_to_numpy", "dtype", "is_tensor", "shape"}
    modules = {"image", "linalg", "nn", "numpy"}
    rest = {name for name in named if name.replace("_", "") not in spelled}
    assert rest <= runs_code | by_another_name | of_no_tensor | no_operation | modules
