"""Classes of the user's own on the way to Keras 3: each judged by both Keras libraries, of which
one writes the old file with the class, and the other opens ours with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from support.cli import run
from support.own_classes import classes

import lstmconvert as lc
from lstmconvert.errors import CorruptFile, UnsupportedByTarget, UsageError
from lstmconvert.keras.configs.nodes import node
from lstmconvert.keras.modern import custom
from lstmconvert.keras.modern.parts import Part

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
STEPS, WIDTH = 4, 3
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
OLD, NEW = classes(tf_keras), classes(keras)
layers = tf_keras.layers


def _context(h: Any) -> Any:
    return OLD["AttentionWithContext"](name="context")(h)


def _bahdanau(h: Any) -> Any:
    return OLD["BahdanauAttention"](2, name="look")(h, query=layers.Dense(2)(h[:, -1]))


def _crf(h: Any) -> Any:
    return OLD["CRF"](3, name="crf")(layers.Bidirectional(layers.LSTM(2, return_sequences=True))(h))


def _scaled(h: Any) -> Any:
    return OLD["ScaledLSTM"](2, scale=1.5, name="scaled")(h)


def _cell(h: Any) -> Any:
    return layers.RNN(OLD["MinimalCell"](2), name="rnn")(h)


def _both_ways(h: Any) -> Any:
    return layers.Bidirectional(layers.RNN(OLD["MinimalCell"](2)), name="both")(h)


#: Case -> the layers, the class, and the attributes that an .h5 does not say.
CASES: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "context": (_context, "AttentionWithContext", ""),
    "bahdanau": (_bahdanau, "BahdanauAttention", "W1,W2,V"),
    "crf": (_crf, "CRF", ""),
    "lstm": (_scaled, "ScaledLSTM", "cell"),
    "cell": (_cell, "MinimalCell", ""),
    "both ways": (_both_ways, "MinimalCell", ""),
}


def numbers(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


X = numbers(2, STEPS, WIDTH)


def model(case: str) -> Any:
    inputs = tf_keras.Input((STEPS, WIDTH))
    h = layers.LSTM(2, return_sequences=True, name="before")(inputs)
    made = tf_keras.Model(inputs, layers.Dense(2, name="head")(CASES[case][0](h)))
    for index, weight in enumerate(made.weights):
        weight.assign(np.random.default_rng(index).normal(size=weight.shape))
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Any]]:
    """Case -> the old .h5 and .keras, and what the model gives."""
    result = {}
    for case in CASES:
        folder = tmp_path_factory.mktemp("own")
        made = model(case)
        paths = folder / "old.h5", folder / "old.keras"
        for path in paths:
            made.save(path)
        result[case] = (*paths, made(X).numpy())
    return result


def options(case: str) -> dict[str, Any]:
    _, name, attributes = CASES[case]
    return {"weights_of": [f"{name}={attributes}"]} if attributes else {}


def opened(result: Any) -> Any:
    # A test that registered a class leaves it registered, under its package's name.
    objects = {name: NEW[name.rpartition(">")[2]] for name in result.custom_objects}
    return keras.models.load_model(result.destination, custom_objects=objects)


@pytest.mark.parametrize("case", CASES)
def test_keras_opens_it_with_the_class(case: str, written: Any, tmp_path: Path) -> None:
    h5, archive, expected = written[case]
    name, attributes = CASES[case][1:]
    for source, stated in ((h5, options(case)), (archive, {})):
        target = tmp_path / f"{source.suffix[1:]}.keras"
        result = lc.convert(source, target, keep_custom=True, warn=False, **stated)
        assert result.custom_objects == (name,)
        assert any(f"custom_objects={{\"{name}\": {name}}}" in text for text in result.notes)
        assert any(f"{name} is kept as it stands" in text for text in result.warnings)
        # Two engines sum in another order.
        assert np.allclose(opened(result)(X), expected, rtol=1e-5, atol=2e-6)
    if attributes:
        with pytest.raises(UnsupportedByTarget, match="which attributes") as caught:
            lc.convert(h5, tmp_path / "x.keras", keep_custom=True)
        assert f"--weights-of {name}=" in str(caught.value.hint)


@pytest.mark.parametrize("case", ["context", "bahdanau"])
def test_an_h5_lists_them_in_its_order(case: str, written: Any, tmp_path: Path) -> None:
    h5, archive, expected = written[case]
    result = lc.convert(
        h5, tmp_path / "new.h5", keep_custom=True, warn=False, **options(case)
    )
    assert np.allclose(opened(result)(X), expected, rtol=1e-5, atol=2e-6)
    if case == "bahdanau":
        with pytest.raises(UnsupportedByTarget, match="the order in which an"):
            lc.convert(archive, tmp_path / "x.h5", keep_custom=True)


def test_registered_names_and_configs_stay(tmp_path: Path) -> None:
    made = tf_keras.saving.register_keras_serializable("shop")(OLD["AttentionWithContext"])
    inputs = tf_keras.Input((STEPS, WIDTH))
    h = layers.LSTM(2, return_sequences=True)(inputs)
    tf_keras.Model(inputs, made(name="seen", trainable=False)(h)).save(tmp_path / "old.h5")
    result = lc.convert(tmp_path / "old.h5", tmp_path / "new.keras", keep_custom=True, warn=False)
    assert result.custom_objects == ("shop>AttentionWithContext",)
    text = lc.load(result.destination).texts["model_config"]
    written = json.loads(text)["config"]["layers"][-1]
    assert written["class_name"] == "AttentionWithContext"
    assert written["registered_name"] == "shop>AttentionWithContext"
    assert written["module"] is None
    assert written["config"] == {"name": "seen", "trainable": False, "dtype": "float32"}


def test_a_class_that_is_named_as_one_of_keras_is_the_users_where_they_say_so(
    tmp_path: Path,
) -> None:
    units = FIXTURES / "tf_keras-2.21.0-own" / "subclass.h5"  # with a keyword of its own
    with pytest.raises(UnsupportedByTarget) as caught:
        lc.convert(units, tmp_path / "no.keras", keep_custom=True)
    assert "--keep-custom --weights-of Attention=…" in str(caught.value.hint)
    # Keras's own have no weights, or one.
    for name, kind in (("Attention", UnsupportedByTarget), ("AdditiveAttention", CorruptFile)):
        inputs = tf_keras.Input((STEPS, WIDTH))
        h = layers.LSTM(2, return_sequences=True)(inputs)
        made = tf_keras.Model(inputs, type(name, (OLD["AttentionWithContext"],), {})(name="a")(h))
        made.set_weights([numbers(*weight.shape) for weight in made.weights])
        old, new = tmp_path / f"{name}.h5", tmp_path / f"{name}.keras"
        made.save(old)
        with pytest.raises(kind) as caught:
            lc.convert(old, new, keep_custom=True)
        assert f"--keep-custom --weights-of {name}=…" in str(caught.value.hint)
        result = lc.convert(old, new, keep_custom=True, weights_of=[f"{name}=."], warn=False)
        assert result.custom_objects == (name,)
        objects = {name: type(name, (NEW["AttentionWithContext"],), {})}
        again = keras.models.load_model(new, custom_objects=objects)
        assert np.allclose(again(X), made(X), rtol=1e-5, atol=2e-6)


def test_an_h5_of_keras_3_becomes_an_archive(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, WIDTH))
    h = keras.layers.LSTM(2, return_sequences=True)(inputs)
    made = keras.Model(inputs, NEW["AttentionWithContext"](name="context")(h))
    made.set_weights([numbers(*weight.shape) for weight in made.weights])
    made.save(tmp_path / "old.h5")
    result = lc.convert(tmp_path / "old.h5", tmp_path / "new.keras", keep_custom=True, warn=False)
    assert np.array_equal(opened(result)(X), made(X))


def test_a_mask_that_reaches_it_in_another_way_is_refused(tmp_path: Path) -> None:
    """A class of one's own may compute by its mask, and Keras 3 joins masks otherwise."""
    for is_joined in (False, True):
        ids = tf_keras.Input((STEPS,))
        h = layers.Embedding(9, 2, mask_zero=True, name="words")(ids)
        h = layers.LSTM(2, return_sequences=True, name="lstm")(h)
        if is_joined:
            h = layers.Add(name="sum")([h, layers.Embedding(9, 2, name="plain")(ids)])
        made = tf_keras.Model(ids, OLD["AttentionWithContext"](name="context")(h))
        made.save(tmp_path / "old.h5")
        target = tmp_path / "new.keras"
        if is_joined:
            with pytest.raises(UnsupportedByTarget, match="another mask"):
                lc.convert(tmp_path / "old.h5", target, keep_custom=True, force=True)
            continue
        result = lc.convert(tmp_path / "old.h5", target, keep_custom=True, warn=False)
        words = np.array([[3, 1, 0, 0], [2, 2, 5, 0]])
        assert np.allclose(opened(result)(words), made(words), rtol=1e-5, atol=2e-6)
        assert any("Keras 3.16 gives this layer another mask" in text for text in result.warnings)


def test_commands_take_the_same_options(written: Any, tmp_path: Path) -> None:
    h5, _, _ = written["lstm"]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "old.h5").write_bytes(h5.read_bytes())
    given = ["--keep-custom", "--weights-of", "ScaledLSTM=cell"]
    shown = run("convert", folder / "old.h5", tmp_path / "one.keras", *given, "--json")
    assert shown.json["custom_objects"] == ["ScaledLSTM"]
    assert "custom_objects=" in shown.err
    explained = run("convert", folder / "old.h5", tmp_path / "no.keras", *given, "--explain")
    assert "custom_objects=" in explained.out
    many = run("batch", folder, "--out-dir", tmp_path / "out", "--suffix", ".keras", *given)
    assert many.code == 0, many
    files = [tmp_path / "one.keras", tmp_path / "out" / "old.keras"]
    assert files[0].read_bytes() == files[1].read_bytes()
    # Of a target of gates, of a part of the model, of ONNX without --whole.
    for target, options in (("x.safetensors", given), ("x.keras", [*given, "--lstm-only"]),
                            ("x.onnx", ["--replace", "scaled=x"])):
        refused = run("convert", h5, tmp_path / target, *options)
        assert refused.code == 2
        assert not (tmp_path / target).exists()


def test_what_is_said_of_classes_that_are_not_there_is_refused(
    written: Any, tmp_path: Path
) -> None:
    h5, _, _ = written["context"]
    target = tmp_path / "new.keras"
    with pytest.raises(UnsupportedByTarget, match="not among those that cross") as caught:
        lc.convert(h5, target)
    assert "--keep-custom" in str(caught.value.hint)
    for stated, message in {
        ("Nothing=a",): "no layer that is kept",
        ("AttentionWithContext=a,b",): "another number of attributes",
        ("AttentionWithContext",): "not a class and its attributes",
        ("AttentionWithContext=a b",): "not a class and its attributes",
    }.items():
        with pytest.raises(UsageError, match=message):
            lc.convert(h5, target, keep_custom=True, weights_of=stated)
    with pytest.raises(UsageError, match="for --keep-custom"):
        lc.convert(h5, target, weights_of=["AttentionWithContext=."])
    with pytest.raises(UsageError, match="not for Keras 2"):
        lc.convert(h5, target, keep_custom=True, era="keras2")
    assert not target.exists()


# -- another layer in its place ---------------------------------------------------------------


def put(tmp_path: Path, class_name: str, **config: Any) -> str:
    path = tmp_path / f"{class_name}.json"
    path.write_text(json.dumps({"class_name": class_name, "config": config}))
    return str(path)


def test_a_plain_lstm_takes_the_place_of_a_subclass(written: Any, tmp_path: Path) -> None:
    for source in written["lstm"][:2]:
        target = tmp_path / f"{source.suffix[1:]}.keras"
        lstm = put(tmp_path, "LSTM", units=2, activation="tanh")
        result = lc.convert(source, target, replace=[f"scaled={lstm}"], warn=False)
        assert any("scaled: LSTM takes its place" in text for text in result.warnings)
        old = tf_keras.models.load_model(written["lstm"][0], custom_objects=OLD)
        old.get_layer("scaled").scale = 1.0
        assert np.allclose(keras.models.load_model(target)(X), old(X), rtol=1e-5, atol=2e-6)
        assert lc.load(target)["scaled"].units == 2


def test_the_config_that_is_put_there_is_read_as_keras_3_means_it(
    written: Any, tmp_path: Path
) -> None:
    """Keras 2's hard_sigmoid would be a composition of layers."""
    lstm = put(tmp_path, "LSTM", units=2, recurrent_activation="hard_sigmoid")
    target = tmp_path / "new.keras"
    lc.convert(written["lstm"][0], target, replace=[f"scaled={lstm}"], warn=False)
    layers = json.loads(lc.load(target).texts["model_config"])["config"]["layers"]
    (config,) = [each["config"] for each in layers if each["config"]["name"] == "scaled"]
    assert config["recurrent_activation"] == "hard_sigmoid"


@pytest.mark.parametrize(
    ("class_name", "config", "message", "expected"),
    [
        ("LSTM", {"units": 3}, "does not fit", "any×12"),
        ("Dense", {"units": 2}, "another number of weights", "scaled/kernel, scaled/bias"),
        ("Sequential", {"layers": []}, "not that of a layer of Keras", None),
        ("Nothing", {}, "not among those that cross", None),
    ],
)
def test_what_does_not_fit_is_refused(
    class_name: str, config: Any, message: str, expected: str | None, written: Any, tmp_path: Path
) -> None:
    layer = put(tmp_path, class_name, **config)
    with pytest.raises((UsageError, UnsupportedByTarget), match=message) as caught:
        lc.convert(written["lstm"][0], tmp_path / "new.keras", replace=[f"scaled={layer}"])
    assert expected is None or caught.value.expected == expected
    assert not (tmp_path / "new.keras").exists()


def test_a_layer_that_is_not_there_is_refused(written: Any, tmp_path: Path) -> None:
    lstm = put(tmp_path, "LSTM", units=2)
    for text, message in {
        f"scalled={lstm}": "no such layer",
        f"scaled={tmp_path / 'none.json'}": "cannot be read",
        "scaled=ops.exp(x)": "for a Lambda",
        "scaled": "not a layer and what replaces it",
    }.items():
        with pytest.raises((UsageError, UnsupportedByTarget), match=message):
            lc.convert(written["lstm"][0], tmp_path / "new.keras", replace=[text])


def test_a_graph_of_objects_tells_the_attributes_and_not_the_order_of_the_weights() -> None:
    part = Part(node({"class_name": "Own"}, "own"), "own", "Own", {}, None, "layers/own", True)
    names = ["W", "_score/bias", "_score/kernel", "b", "rec/cell/bias", "rec/cell/kernel"]
    assert custom.of_objects(part, names[:3], None) == [
        "vars/0", "_score/vars/1", "_score/vars/0",
    ]
    assert custom.of_objects(part, names, ["b", "W"]) == [
        "vars/1", "_score/vars/1", "_score/vars/0", "vars/0", "rec/cell/vars/1", "rec/cell/vars/0",
    ]
    for listed in (names, ["several/0/kernel"], ["inner/scale_of_mine"]):
        with pytest.raises(UnsupportedByTarget, match="in which order"):
            custom.of_objects(part, listed, None)
    with pytest.raises(UsageError, match="makes itself"):
        custom.of_objects(part, names, ["W"])
