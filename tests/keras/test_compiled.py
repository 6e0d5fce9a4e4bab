"""What a model was compiled with crosses: tf_keras computes and trains, and so does Keras 3."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert.keras.modern import compiled
from lstmconvert.keras.modern.compiled import ModelOutputs

tf_keras = pytest.importorskip("tf_keras")
keras = pytest.importorskip("keras")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(7)
X = RNG.normal(size=(6, 5, 4)).astype("f4")
#: Two roundings of float32 in each of two engines' sums.
CLOSE = {"rtol": 5e-6, "atol": 1e-6}


def crossed(stated: dict[str, Any], era: str = "keras2", version: str = "2.15.0") -> Any:
    return compiled.carried(stated, ModelOutputs(("out",)), era, version)


# -- optimizers ---------------------------------------------------------------------------------

SCHEDULE = ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 2, "decay_rate": 0.5})
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"learning_rate": 0.03, "momentum": 0.8, "nesterov": True}),
    ("SGD", {"learning_rate": SCHEDULE}),
    ("RMSprop", {"learning_rate": 0.02, "rho": 0.8, "momentum": 0.3, "centered": True}),
    ("Adagrad", {"learning_rate": 0.02, "initial_accumulator_value": 0.2}),
    ("Adadelta", {"learning_rate": 0.5, "rho": 0.9}),
    ("Adam", {"learning_rate": 0.02, "beta_1": 0.8, "amsgrad": True, "clipvalue": 0.3}),
    ("Adamax", {"learning_rate": 0.02, "clipnorm": 0.5}),
    ("Nadam", {"learning_rate": 0.02, "beta_1": 0.8}),
    ("Ftrl", {"learning_rate": 0.05, "l1_regularization_strength": 0.01,
              "l2_regularization_strength": 0.02, "beta": 0.1}),
]  # fmt: skip
NEW: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {"learning_rate": 0.02, "weight_decay": 0.1, "global_clipnorm": 0.4}),
    ("Lion", {"learning_rate": 0.02}),
    ("Adafactor", {"learning_rate": 0.02}),
]
CASES = [(name, options, True) for name, options in OPTIMIZERS]
CASES += [(name, options, False) for name, options in (*OPTIMIZERS, *NEW)]
CASES += [("SGD", {"learning_rate": 0.1, "decay": 0.7}, True)]
CASES += [("Adam", {"learning_rate": 0.1, "decay": 0.7}, True)]
START = RNG.normal(size=(3, 4)).astype("f4")
GRADIENTS = RNG.normal(size=(4, 3, 4)).astype("f4")


def steps(optimizer: Any, variable: Any, scale: float = 1.0) -> np.ndarray:
    for gradient in GRADIENTS:
        tensor = importlib.import_module("tensorflow").constant(scale * gradient)
        optimizer.apply_gradients([(tensor, variable)])
    return np.asarray(variable)


@pytest.mark.parametrize(("name", "options", "legacy"), CASES)
def test_an_optimizer_takes_the_same_steps(
    name: str, options: dict[str, Any], legacy: bool
) -> None:
    tf = importlib.import_module("tensorflow")
    module = tf_keras.optimizers.legacy if legacy else tf_keras.optimizers
    given = dict(options)
    if isinstance(given["learning_rate"], tuple):
        schedule, numbers = given["learning_rate"]
        given["learning_rate"] = getattr(tf_keras.optimizers.schedules, schedule)(**numbers)
    theirs = getattr(module, name)(**given)
    for use_legacy in (True, False):  # as in an .h5, and in a .keras
        config = tf_keras.optimizers.serialize(theirs, use_legacy_format=use_legacy)
        made = crossed({"optimizer": json.loads(json.dumps(config, default=float))})
        assert made.compiled.carried == (f"optimizer {name}",)
        assert not made.compiled.dropped
    ours = keras.optimizers.deserialize(made.config["optimizer"])
    for key, value in options.items():
        if key not in ("learning_rate", "decay"):
            assert ours.get_config()[key] == pytest.approx(value)
    wanted = steps(theirs, tf.Variable(START))
    found = steps(ours, keras.Variable(START))
    kind = "legacy" if legacy else "now"
    if not made.warnings:
        np.testing.assert_allclose(found, wanted, **CLOSE)
    assert bool(made.warnings) == ((kind, name) in compiled.DIFFERENT and name != "RMSprop")


@pytest.mark.parametrize("name", sorted({name for _, name in compiled.DIFFERENT}))
def test_an_optimizer_of_other_steps_is_told(name: str) -> None:
    tf = importlib.import_module("tensorflow")
    options = {"initial_accumulator_value": 0.0} if name == "Adagrad" else {}
    theirs = getattr(tf_keras.optimizers.legacy, name)(0.1, **options)
    config = tf_keras.optimizers.serialize(theirs, use_legacy_format=True)
    made = crossed({"optimizer": json.loads(json.dumps(config, default=float))})
    assert len(made.warnings) == 1
    ours = keras.optimizers.deserialize(made.config["optimizer"])
    wanted = steps(theirs, tf.Variable(START), 1e-3)
    assert not np.allclose(steps(ours, keras.Variable(START), 1e-3), wanted, **CLOSE)


def test_the_decay_of_an_old_optimizer_is_a_schedule() -> None:
    config = {"lr": 0.5, "momentum": 0.0, "decay": 0.25, "nesterov": False}
    stated = {"optimizer": {"class_name": "SGD", "config": config}}
    made = crossed(stated, "keras1", "1.2.2")
    ours = keras.optimizers.deserialize(made.config["optimizer"])
    rates = [float(ours._learning_rate(step)) for step in range(5)]
    # keras/optimizers.py of 1.2.2: lr *= 1 / (1 + decay * iterations), from 0 on.
    np.testing.assert_allclose(rates, [0.5 / (1 + 0.25 * step) for step in range(5)], rtol=1e-7)


def test_clipnorm_before_tf_keras_was_of_all_gradients() -> None:
    config = {"lr": 0.5, "clipnorm": 1.5, "decay": 0.0}
    for version, keyword in (("2.2.4", "global_clipnorm"), ("2.2.4-tf", "clipnorm")):
        stated = {"optimizer": {"class_name": "SGD", "config": {**config, "name": "SGD"}}}
        written = crossed(stated, "keras2", version).config["optimizer"]["config"]
        assert written[keyword] == 1.5
        assert ("clipnorm" in written) == (keyword == "clipnorm")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"class_name": "Mine", "config": {}, "module": "mine"}, "user's own"),
        ({"class_name": "pkg>Mine", "config": {}}, "may be the user's own"),
        ({"class_name": "SGD", "config": {"lr": "often", "decay": 0.0}}, "not a number"),
        ({"class_name": "SGD", "config": {"learning_rate": {"class_name": "Mine", "config": {}}}},
         "schedule Mine"),
        ({"class_name": "Adam", "config": {"name": "a", "beta_3": 1}}, "no beta_3"),
        ({"class_name": "Adam", "config": {"name": "a", "beta_1": {"class_name": "X"}}}, "plain"),
        ({"class_name": "Adam", "config": {"clipnorm": 1, "clipvalue": 1}}, "one of"),
        (None, "not state"),
    ],
)  # fmt: skip
def test_without_its_optimizer_no_compile_state_crosses(value: Any, told: str) -> None:
    made = crossed({"optimizer": value, "loss": "mse", "metrics": ["mae"]})
    assert made.config == {}
    assert made.compiled.carried == ()
    optimizer, *rest = made.compiled.dropped
    assert told in optimizer
    assert [text.partition(":")[0] for text in rest] == ["loss mse", "metric mae"]


@pytest.mark.parametrize(
    "value",
    [1, [], "x", {"items": 1, "class_name": "__tuple__"}, {"a": 1}, [[["mse"]]],
     {"class_name": "x"}],
)  # fmt: skip
def test_damaged_texts_are_dropped(value: Any) -> None:
    """Whatever stands there: what cannot be read is dropped by name, and stops nothing."""
    outputs = (
        ModelOutputs(()),
        ModelOutputs(("a",)),
        ModelOutputs(("a", "b")),
        ModelOutputs(("a",), True),
    )
    for key in ("optimizer", "loss", "metrics", "weighted_metrics", "loss_weights"):
        stated = {"optimizer": "sgd", "loss": "mse", key: value}
        for era, version in (("keras1", "1.2.2"), ("keras2", "9" * 9000), ("keras3", "3.3")):
            for each in outputs:
                made = compiled.carried(stated, each, era, version)
                assert isinstance(made.config, dict)
    big = {"class_name": "SGD", "config": {"lr": 10**400}}
    assert "beyond" in crossed({"optimizer": big}).compiled.dropped[0]


# -- losses and metrics -------------------------------------------------------------------------

PROBABILITIES = RNG.dirichlet(np.ones(3), size=8).astype("f4")
ONE_HOT = np.eye(3, dtype="f4")[RNG.integers(3, size=8)]
SPARSE = ONE_HOT.argmax(-1)
LOSS_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "CosineSimilarity": [{"axis": 0}],
    "Huber": [{"delta": 0.1}],
    "BinaryCrossentropy": [{"from_logits": True, "label_smoothing": 0.2}],
    "BinaryFocalCrossentropy": [{"apply_class_balancing": True, "alpha": 0.4, "gamma": 1.5}],
    "CategoricalCrossentropy": [{"from_logits": True, "label_smoothing": 0.2}],
    "CategoricalFocalCrossentropy": [{"alpha": 0.4, "gamma": 1.5}],
    "SparseCategoricalCrossentropy": [{"from_logits": True, "ignore_class": 1}],
}
LOSSES = [
    (name, {**options, "reduction": reduction})
    for name in sorted(compiled.LOSSES)
    if hasattr(tf_keras.losses, name)
    for options, reduction in [
        ({}, "auto"),
        *((each, "sum") for each in LOSS_OPTIONS.get(name, [{}])),
    ]
]
METRIC_OPTIONS: dict[str, dict[str, Any]] = {
    "AUC": {"num_thresholds": 20, "curve": "PR"},
    "BinaryAccuracy": {"threshold": 0.3},
    "BinaryIoU": {"target_class_ids": [1], "threshold": 0.3},
    "F1Score": {"average": "macro", "threshold": 0.3},
    "FBetaScore": {"average": "weighted", "beta": 2.0},
    "IoU": {"num_classes": 3, "target_class_ids": [0, 2]},
    "MeanIoU": {"num_classes": 3},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [0, 2]},
    "OneHotMeanIoU": {"num_classes": 3},
    "Precision": {"thresholds": [0.2, 0.4]},
    "Recall": {"top_k": 2},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.4},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "TopKCategoricalAccuracy": {"k": 2},
    "SparseTopKCategoricalAccuracy": {"k": 2},
    "CategoricalCrossentropy": {"label_smoothing": 0.1},
    "TruePositives": {"thresholds": 0.3},
}
METRICS = sorted(name for name in compiled.METRICS if hasattr(tf_keras.metrics, name))


def labels(name: str) -> np.ndarray:
    if name == "Accuracy" or name in ("IoU", "MeanIoU"):
        return SPARSE
    return SPARSE if name.startswith("Sparse") else ONE_HOT


def guesses(name: str) -> np.ndarray:
    if name in ("Accuracy", "IoU", "MeanIoU"):
        return PROBABILITIES.argmax(-1)
    return PROBABILITIES


def serialized(module: Any, thing: Any, legacy: bool) -> Any:
    return json.loads(json.dumps(module.serialize(thing, use_legacy_format=legacy), default=float))


def test_each_loss_gives_the_same_number() -> None:
    for name, options in LOSSES:
        theirs = getattr(tf_keras.losses, name)(**options)
        for legacy in (True, False):  # as in an .h5, and in a .keras
            config = serialized(tf_keras.losses, theirs, legacy)
            made = crossed({"optimizer": "sgd", "loss": config})
            assert made.compiled.carried[1:] == (f"loss {name}",), made.compiled
        ours = keras.losses.deserialize(made.config["loss"])
        wanted = theirs(labels(name), PROBABILITIES)
        np.testing.assert_allclose(ours(labels(name), PROBABILITIES), wanted, rtol=3e-6)


@pytest.mark.slow
def test_each_metric_gives_the_same_number() -> None:
    for name in METRICS:
        theirs = getattr(tf_keras.metrics, name)(**METRIC_OPTIONS.get(name, {}), name="own")
        for legacy in (True, False):
            config = serialized(tf_keras.metrics, theirs, legacy)
            made = crossed({"optimizer": "sgd", "metrics": [[config]]})
            assert made.compiled.carried[1:] == (f"metric {name}",), made.compiled
        (ours,) = map(keras.metrics.deserialize, made.config["metrics"])
        assert ours.name == "own"
        for each in (theirs, ours):
            each.update_state(labels(name), guesses(name))
        np.testing.assert_allclose(ours.result(), theirs.result(), rtol=3e-6, err_msg=name)


def test_each_function_gives_the_same_number_by_its_name() -> None:
    names = {*compiled.FUNCTIONS, *compiled.ALIASES}
    for name in sorted(names):
        function = getattr(tf_keras.losses, name, None)
        if not callable(function) or isinstance(function, type):
            continue
        made = crossed({"optimizer": "sgd", "loss": name, "metrics": [name]})
        ours = keras.losses.get(made.config["loss"])
        y = SPARSE if name.startswith("sparse") else ONE_HOT
        wanted = np.mean(function(y, PROBABILITIES))
        np.testing.assert_allclose(np.mean(ours(y, PROBABILITIES)), wanted, rtol=3e-6)
        if "metrics" in made.config:
            (metric,) = map(keras.metrics.deserialize, made.config["metrics"])
            metric.update_state(y, PROBABILITIES)
            assert metric.name == name
            # As a metric, a similarity has the sign of a similarity.
            sign = -1 if name == "cosine_similarity" else 1
            np.testing.assert_allclose(metric.result(), sign * wanted, rtol=3e-6)


def names_of(module: Any) -> set[str]:
    named = {name for name in dir(module) if not name.startswith("_")}
    no_objects = {"deserialize", "get", "serialize", "experimental", "legacy", "schedules"}
    return named - no_objects


@pytest.mark.parametrize("library", [tf_keras, keras])
def test_every_public_loss_metric_and_optimizer_is_carried_or_refused(library: Any) -> None:
    functions = {*compiled.FUNCTIONS, *compiled.ALIASES}
    known = {
        "losses": {*compiled.LOSSES, *functions},
        "metrics": {*compiled.METRICS, *functions},
        "optimizers": {*compiled.OPTIMIZERS, "LossScaleOptimizer"},
        "optimizers.schedules": {*compiled.SCHEDULES},
    }
    for path, carried in known.items():
        module = importlib.import_module(f"{library.__name__}.{path}")
        assert names_of(module) - carried - compiled.REFUSED.keys() == set(), path
        assert not carried & compiled.REFUSED.keys()
    assert all(len(why.split()) > 4 for why in compiled.REFUSED.values())


# -- whole models ---------------------------------------------------------------------------------

TWO = {"a": RNG.normal(size=(6, 3)).astype("f4"), "b": RNG.dirichlet(np.ones(2), 6).astype("f4")}


def one(library: Any) -> Any:
    layers = library.layers
    return library.Sequential(
        [layers.Input((5, 4)), layers.LSTM(3, name="lstm"), layers.Dense(3, name="a")]
    )


def two(library: Any) -> Any:
    layers = library.layers
    inputs = layers.Input((5, 4))
    hidden = layers.LSTM(3, name="lstm")(inputs)
    outputs = [layers.Dense(3, name="a")(hidden), layers.Dense(2, "softmax", name="b")(hidden)]
    return library.Model(inputs, outputs)


def mine(y: Any, p: Any) -> Any:
    return (y - p) ** 2


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "one": (one, {"loss": "mae", "metrics": ["mse", "mae"]}),
    "one, weighted": (
        one, {"loss": {"a": "huber"}, "loss_weights": [0.25], "metrics": {"a": "mse"}}
    ),
    "two, one loss": (two, {"loss": "mse", "metrics": ["mae", "mse"]}),
    "two, weights of one loss": (two, {"loss": "mse", "loss_weights": [0.25, 2.0]}),
    "two, by name": (
        two,
        {
            "loss": {"b": "categorical_crossentropy", "a": "mae"},
            "loss_weights": {"b": 0.3, "a": 2},
            "metrics": {"b": ["accuracy", "mse"], "a": "mae"},
            "weighted_metrics": {"b": ["mae"]},
        },
    ),
}  # fmt: skip


def logs(model: Any, data: Any) -> dict[str, float]:
    model.run_eagerly = True
    found = model.evaluate(X, data, verbose=0, return_dict=True)
    return {key: float(value) for key, value in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suffix", "evaluated"),
    [
        ("one", "h5", True),
        ("one, weighted", "keras", False),
        ("two, one loss", "h5", False),
        ("two, weights of one loss", "keras", True),
        ("two, by name", "h5", True),
        ("two, by name", "keras", False),
        ("two, by name", "savedmodel", False),
    ],
)
def test_a_model_is_compiled_as_it_was(
    name: str, suffix: str, evaluated: bool, tmp_path: Path
) -> None:
    build, options = MODELS[name]
    data = TWO["a"] if build is one else [TWO["a"], TWO["b"]]
    model = build(tf_keras)
    model.compile(optimizer=tf_keras.optimizers.Adam(0.02, beta_1=0.8), **options)
    wanted = logs(model, data) if evaluated else {}
    source = tmp_path / f"m.{suffix}"
    model.save(str(source), **({"save_format": "tf"} if suffix == "savedmodel" else {}))
    wanted = wanted or logs(model, data)
    result = lc.convert(source, tmp_path / "new.keras", era="keras3", warn=False)
    assert result.compiled is not None
    assert result.compiled.dropped == ()
    loaded = keras.saving.load_model(str(tmp_path / "new.keras"))
    found = logs(loaded, data)
    assert set(found) >= {"loss"}
    same = [key for key in wanted if key in found]
    assert len(found) == len(wanted), (found, wanted)
    assert len(same) == len(wanted), (found, wanted)
    np.testing.assert_allclose(
        [found[key] for key in same], [wanted[key] for key in same], rtol=5e-6
    )
    for each in (model, loaded):
        each.train_on_batch(X, data)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_what_is_the_users_own_is_named(tmp_path: Path) -> None:
    model = two(tf_keras)
    model.compile("sgd", loss=["mse", mine], loss_weights=[1.0, 2.0], metrics=[["mae"], [mine]])
    model.save(str(tmp_path / "m.h5"))
    result = lc.convert(tmp_path / "m.h5", tmp_path / "m.keras", warn=False)
    assert result.compiled.carried == ("optimizer SGD", "metric mae")
    assert [text.partition(":")[0] for text in result.compiled.dropped] == [
        "loss mine", "loss mse", "loss_weights", "metric mine"
    ]  # fmt: skip
    assert any("metric mine" in text for text in result.warnings)
    loaded = keras.saving.load_model(str(tmp_path / "m.keras"))
    assert loaded.loss is None
    assert lc.convert(
        tmp_path / "m.h5", tmp_path / "n.keras", warn=False, no_compile=True
    ).to_json()["compiled"] == {"carried": [], "dropped": ["all of it, as asked"]}
    assert not keras.saving.load_model(str(tmp_path / "n.keras")).compiled


@pytest.mark.slow
@pytest.mark.parametrize(("source", "target"), [("h5", "keras"), ("keras", "h5")])
def test_a_model_of_keras_3_keeps_it_in_the_other_kind_of_file(
    source: str, target: str, tmp_path: Path
) -> None:
    model = two(keras)
    rate = keras.optimizers.schedules.CosineDecay(0.1, 5)
    # Keras 3.15 writes no delta of a Huber (keras/src/losses/losses.py, `get_config`), and loads no
    # "mae" of an .h5.
    short = target == "h5"
    entropy = keras.losses.BinaryCrossentropy(label_smoothing=0.1)
    loss = ["mae" if short else keras.losses.MeanAbsoluteError(), entropy]
    model.compile(
        keras.optimizers.Lion(rate), loss=loss, loss_weights=[0.5, 2.0],
        metrics=[
            ["mae" if short else keras.metrics.MeanAbsoluteError(name="mae")],
            [keras.metrics.AUC(name="auc")],
        ],
    )  # fmt: skip
    data = [TWO["a"], TWO["b"]]
    wanted = logs(model, data)
    model.save(str(tmp_path / f"m.{source}"))
    for no_compile in (False, True):
        out = tmp_path / f"{no_compile}.{target}"
        lc.convert(tmp_path / f"m.{source}", out, warn=False, no_compile=no_compile)
        loaded = keras.saving.load_model(str(out))
        assert bool(loaded.compiled) is not no_compile
        same = tmp_path / f"{no_compile}.{source}"
        lc.convert(tmp_path / f"m.{source}", same, warn=False, no_compile=no_compile)
        assert bool(keras.saving.load_model(str(same)).compiled) is not no_compile
        if not no_compile:
            assert list(logs(loaded, data).values()) == pytest.approx(list(wanted.values()))
            assert loaded.optimizer.get_config() == model.optimizer.get_config()


@pytest.mark.slow
@pytest.mark.parametrize(("library", "target"), [("tf_keras", "h5"), ("keras", "keras")])
def test_keras_2_gets_it_too(library: str, target: str, tmp_path: Path) -> None:
    model = two(importlib.import_module(library))
    model.compile("adam", loss=["mse", "mae"], loss_weights=[0.5, 2.0], metrics=[["mae"], ["mse"]])
    data = [TWO["a"], TWO["b"]]
    wanted = logs(model, data)
    source = {"h5": "keras", "keras": "h5"}[target]
    model.save(str(tmp_path / f"m.{source}"))
    out = tmp_path / f"n.{target}"
    result = lc.convert(tmp_path / f"m.{source}", out, era="keras2", warn=False)
    assert result.compiled.dropped == ()
    loaded = tf_keras.models.load_model(str(out))
    found = logs(loaded, data)
    assert found["loss"] == pytest.approx(wanted["loss"], rel=5e-6)
    assert len(found) == len(wanted)
    assert type(loaded.optimizer).__name__ == "Adam"
