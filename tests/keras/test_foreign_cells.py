"""A cell is known by all its arrays, and by its class where a config names one.

Models of cells that are not plain LSTM, written by Keras 3 and tf_keras in every container: what is
read as an LSTM is one, and what is not is named.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.foreign_cells import cells

import lstmconvert as lc
from lstmconvert.errors import NoLSTM
from lstmconvert.reference import run

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]  # the writers' own
LIBRARIES = ("tf_keras", "keras")
#: Container -> what writes it, and whether it says the classes of layers.
CONTAINERS = {
    "weights.h5": False,
    "legacy.h5": False,
    "checkpoint": False,
    "h5": True,
    "keras": True,
    "savedmodel": True,
}
#: Cells whose arrays alone show that they are not an LSTM -> one array that shows it.
BY_ARRAYS = {"LayerNormLSTMCell": "norm", "AttentionLSTMCell": "attention"}
#: Classes with an LSTM's arrays and no others.
BY_CLASS = ("ScaledLSTMCell", "QLSTM", "Gated")
UNITS, INPUTS = 3, 4
Saved = Callable[[str, str, str], Path]


def written(library: str, container: str) -> bool:
    """Whether a library writes a container, and a SavedModel with classes."""
    if library == "keras":
        return container != "legacy.h5"
    return True


CASES = [(lib, box) for lib in LIBRARIES for box in CONTAINERS if written(lib, box)]
WITH_CLASSES = [
    (lib, box) for lib, box in CASES if CONTAINERS[box] and (lib, box) != ("keras", "savedmodel")
]


def each(
    cases: list[tuple[str, str]], kinds: Iterable[str], of_savedmodels: str
) -> list[tuple[str, str, str]]:
    """Return cases of every kind; of SavedModels, each of which takes ten seconds, one kind's."""
    return [
        (lib, box, kind)
        for lib, box in cases
        for kind in kinds
        if box != "savedmodel" or kind == of_savedmodels
    ]


@functools.cache
def model(library: str, kind: str) -> Any:
    """A model of a plain LSTM, a layer of the kind, called `rec`, and a Dense."""
    keras = importlib.import_module(library)
    layers, made = keras.layers, getattr(cells(keras), kind)
    keras.utils.set_random_seed(5)
    rec = made(UNITS, name="rec") if kind in ("QLSTM", "Gated") else layers.RNN(
        made(UNITS), name="rec"
    )
    inputs = layers.Input((5, INPUTS))
    plain = layers.LSTM(INPUTS, return_sequences=True, name="plain")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="head")(rec(plain)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """What saves a model of a kind, once: a SavedModel takes seconds."""
    folder = tmp_path_factory.mktemp("saved")

    @functools.cache
    def save(library: str, kind: str, container: str) -> Path:
        path = folder / f"{library}-{kind}.{container}"
        return save_model(library, model(library, kind), container, path)

    return save


def save_model(library: str, made: Any, container: str, path: Path) -> Path:
    import tensorflow as tf

    if container in ("h5", "keras"):
        made.save(str(path))
    elif container == "savedmodel":
        if library == "keras":
            made.export(str(path), verbose=False)
        else:
            made.save(str(path), save_format="tf")
    elif container == "checkpoint":
        tf.train.Checkpoint(model=made).write(str(path))
    else:
        made.save_weights(str(path))
    return path


def read(path: Path) -> tuple[dict[str, Any], str]:
    """Return the layers, and all that is said of the file."""
    try:
        found = lc.load(path)
    except NoLSTM as error:
        return {}, f"{error}; {error.hint}"
    return dict(found), "\n".join(found.notes)


@pytest.mark.parametrize(
    ("library", "container", "kind"), each(CASES, BY_ARRAYS, "LayerNormLSTMCell")
)
def test_a_cell_with_more_arrays_is_no_lstm(
    library: str, container: str, kind: str, saved: Saved
) -> None:
    layers, said = read(saved(library, kind, container))
    assert len(layers) == 1
    assert next(iter(layers.values())).units == INPUTS  # the plain one
    assert "left as it is" in said
    assert "rec" in said or "rnn" in said
    if (library, container) in WITH_CLASSES:
        assert kind in said
    elif container != "weights.h5":  # which has numbers in place of names
        assert BY_ARRAYS[kind] in said


@pytest.mark.parametrize(
    ("library", "container", "kind"), each(WITH_CLASSES, BY_CLASS, "QLSTM")
)
def test_a_class_of_the_users_own_is_no_lstm_where_the_config_names_it(
    library: str, container: str, kind: str, saved: Saved
) -> None:
    layers, said = read(saved(library, kind, container))
    assert [name for name in layers if "plain" in name] == list(layers)
    assert kind in said
    assert "rec" in said


@pytest.mark.parametrize("kind", ["ScaledLSTMCell", "QLSTM"])
@pytest.mark.parametrize(
    ("library", "container"),
    [case for case in CASES if case not in WITH_CLASSES and case[1] != "weights.h5"],
)
def test_a_cell_that_is_called_otherwise_is_told(
    library: str, container: str, kind: str, saved: Saved
) -> None:
    layers, said = read(saved(library, kind, container))
    assert len(layers) == 2
    assert "may compute something else" in said


#: Where a layer of a user's own class may lie -> what makes a model of a made layer.
PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "alone": lambda _, layer: layer,
    "bidirectional": lambda keras, layer: keras.layers.Bidirectional(layer, name="both"),
    "nested": lambda keras, layer: keras.Sequential(
        [
            keras.layers.Input((5, INPUTS)),
            keras.layers.LSTM(INPUTS, return_sequences=True, name="plain"),
            layer,
        ],
        name="inside",
    ),
}


def placed(library: str, place: str) -> Any:
    """Return a model of a subclass of LSTM that says no name, in some place."""
    keras = importlib.import_module(library)
    made = cells(keras).Gated
    with keras.utils.custom_object_scope({"Gated": made}):  # Bidirectional copies its layer
        layer = PLACES[place](keras, made(UNITS))
    return keras.Sequential([keras.layers.Input((5, INPUTS)), layer, keras.layers.Dense(2)])


@pytest.mark.parametrize(("library", "container", "place"), each(CASES, PLACES, "nested"))
def test_a_subclass_of_lstm_is_told_wherever_it_lies(
    library: str, container: str, place: str, tmp_path: Path
) -> None:
    path = save_model(library, placed(library, place), container, tmp_path / f"m.{container}")
    layers, said = read(path)
    if (library, container) in WITH_CLASSES:
        assert "custom class Gated is left as it is" in said
        assert all(name.endswith("plain") for name in layers)
        assert len(layers) == (place == "nested")
    elif place != "bidirectional":  # which names both halves itself, by no class
        assert len(layers) == 1 + (place == "nested")


@pytest.mark.parametrize("container", ["legacy.h5", "checkpoint", "weights.h5"])
def test_a_layer_named_as_its_class_is_doubted_where_no_config_says_the_class(
    container: str, tmp_path: Path
) -> None:
    import tf_keras

    class NoisyLSTM(tf_keras.layers.LSTM):  # type: ignore[misc]
        pass

    made = tf_keras.Sequential(
        [tf_keras.layers.Input((5, INPUTS)), NoisyLSTM(UNITS), tf_keras.layers.Dense(2)]
    )
    path = save_model("tf_keras", made, container, tmp_path / f"m.{container}")
    layers, said = read(path)
    assert len(layers) == 1
    assert "noisy_lstm" in said
    assert "may compute something else" in said
    plain = tf_keras.Sequential(
        [
            tf_keras.layers.Input((5, INPUTS)),
            tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(UNITS, return_sequences=True)),
            tf_keras.layers.LSTM(UNITS),
        ]
    )
    path = save_model("tf_keras", plain, container, tmp_path / f"plain.{container}")
    assert read(path)[1] == ""


def test_a_model_without_lstm_names_classes_and_arrays(tmp_path: Path) -> None:
    import tf_keras

    class Gates(tf_keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.gates = self.add_weight(shape=(shape[-1], 4 * UNITS), name="gates")

        def call(self, x: Any) -> Any:
            return x @ self.gates

    made = tf_keras.Sequential([tf_keras.layers.Input((5, INPUTS)), Gates(name="own")])
    path = save_model("tf_keras", made, "savedmodel", tmp_path / "m")
    assert "layers own (Gates: gates)" in read(path)[1]


@pytest.mark.parametrize(("library", "container"), CASES)
def test_peepholes_are_read_in_every_container(
    library: str, container: str, saved: Saved
) -> None:
    kind = "PeepholeLSTMCell"
    path = saved(library, kind, container)
    found = lc.load(path)
    layer = next(layer for layer in found.values() if layer.units == UNITS)
    cell = model(library, kind).get_layer("rec").cell
    for gate in ("input", "forget", "output"):
        expected = np.asarray(getattr(cell, f"{gate}_gate_peephole_weights"))
        stored = getattr(layer, f"{gate}_gate").peephole
        assert stored is not None
        assert np.array_equal(stored, expected)
    assert layer.cell_gate.peephole is None
    assert len(found) == 2
    assert len(found.other) == 2  # the Dense


@pytest.mark.parametrize(("library", "container"), WITH_CLASSES)
def test_peepholes_compute_what_that_class_computes(
    library: str, container: str, saved: Saved
) -> None:
    path = saved(library, "PeepholeLSTMCell", container)
    layer = next(layer for layer in lc.load(path).values() if layer.units == UNITS)
    x = np.random.default_rng(1).normal(size=(2, 5, INPUTS)).astype("f4")
    theirs = np.asarray(model(library, "PeepholeLSTMCell").get_layer("rec")(x))
    np.testing.assert_allclose(run(layer, x).outputs[0], theirs, atol=2e-6)


@pytest.mark.parametrize("container", ["weights.h5", "h5", "keras"])
@pytest.mark.parametrize("kind", ["PeepholeLSTMCell", "LayerNormLSTMCell"])
def test_they_go_back_into_their_container(
    kind: str, container: str, saved: Saved, tmp_path: Path
) -> None:
    path = saved("keras", kind, container)
    back = tmp_path / f"back.{container}"
    result = lc.convert(path, back)
    assert result.whole_model
    again = lc.load(back)
    assert sorted(again.other) == sorted(lc.load(path).other)
    if container == "weights.h5":
        model("keras", kind).load_weights(str(back))


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("container", ["weights.h5", "checkpoint"])
def test_states_and_seeds_are_no_arrays_of_a_cell(
    library: str, container: str, stateful: bool, tmp_path: Path
) -> None:
    import tensorflow as tf

    keras = importlib.import_module(library)
    layers = keras.layers
    inputs = layers.Input(batch_shape=(2, 5, INPUTS))
    options = {"stateful": stateful, "dropout": 0.5, "recurrent_dropout": 0.5}
    inner = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True, **options))(inputs)
    made = keras.Model(inputs, layers.LSTM(UNITS, **options)(inner))
    path = tmp_path / f"m.{container}"
    if container == "checkpoint":
        tf.train.Checkpoint(model=made).write(str(path))
    else:
        made.save_weights(str(path))
    found = lc.load(path)
    assert sorted(layer.class_name for layer in found.values()) == ["Bidirectional", "LSTM"]
    assert found.notes == ()


def test_a_class_named_for_peepholes_without_them_is_left(tmp_path: Path) -> None:
    keras = importlib.import_module("keras")
    scaled = cells(keras).ScaledLSTMCell
    named = type("PeepholeLSTMCell", (scaled,), {})
    inputs = keras.layers.Input((5, INPUTS))
    plain = keras.layers.LSTM(INPUTS, return_sequences=True)(inputs)
    made = keras.Model(inputs, keras.layers.RNN(named(UNITS), name="rec")(plain))
    for path in (tmp_path / "m.keras", tmp_path / "m.h5"):
        made.save(str(path))
        layers, said = read(path)
        assert len(layers) == 1
        assert "PeepholeLSTMCell" in said


# -- models of a user's own class -------------------------------------------------------------


def own_model(library: str, form: str) -> Any:
    """A model whose class is the user's own, with a `train_step`, made of layers or of calls."""
    keras = importlib.import_module(library)
    base = keras.Model if form == "functional" else keras.Sequential

    class MyModel(base):  # type: ignore[misc,valid-type]
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    layers = keras.layers
    if form == "functional":
        inputs = layers.Input((5, INPUTS))
        hidden = layers.LSTM(UNITS, name="lstm")(inputs)
        return MyModel(inputs, layers.Dense(2, name="head")(hidden))
    return MyModel([layers.Input((5, INPUTS)), layers.LSTM(UNITS, name="lstm"), layers.Dense(2)])


@pytest.mark.parametrize("form", ["functional", "sequential"])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("container", ["h5", "keras"])
def test_a_model_of_the_users_own_class_is_what_its_config_says(
    library: str, container: str, form: str, tmp_path: Path
) -> None:
    keras3 = importlib.import_module("keras")
    made = own_model(library, form)
    path = tmp_path / f"m.{container}"
    made.save(str(path))
    found = lc.load(path)
    assert list(found) == ["lstm"]
    assert found["lstm"].forward.options.return_sequences is False
    assert "MyModel" in "\n".join(found.notes)
    x = np.random.default_rng(2).normal(size=(2, 5, INPUTS)).astype("f4")
    theirs = np.asarray(made(x))
    # To the other container, it is a model of Keras's own class: no code of the user's is needed.
    target = tmp_path / ("back.keras" if container == "h5" else "back.h5")
    result = lc.convert(path, target)
    assert result.whole_model
    assert any("MyModel" in warning for warning in result.warnings)
    loaded = keras3.saving.load_model(str(target), compile=False)
    np.testing.assert_allclose(np.asarray(loaded(x)), theirs, atol=2e-6)
    # To its own container, its class is kept.
    same = tmp_path / f"same.{container}"
    lc.convert(path, same)
    assert "MyModel" in json.dumps(dict(lc.load(same).texts))
