"""From which release of Keras 3 on a file opens: judged by the releases themselves.

The table's oracle is the installed Keras; where LSTMCONVERT_KERASES names the Pythons of others
(`.ci/kerases FOLDER` makes them), each opens every file here, and the file must give its numbers
from the release on that we state, and not before.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import open_keras
from support.modern_models import MODELS, filled, outputs, samples
from support.thinned import each

import lstmconvert as lc
from lstmconvert.conversion import Release, shown
from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.keras.configs import releases
from lstmconvert.keras.configs.spelling import composition

PYTHONS = [path for path in os.environ.get("LSTMCONVERT_KERASES", "").split(os.pathsep) if path]


# -- the table, without an engine --------------------------------------------------------------


def model(class_name: str, config: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    layer = {"module": module, "class_name": class_name, "config": {"name": "layer", **config}}
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}}


OPS = "keras.src.ops.numpy"
DENSE = {"units": 2}
CALLED = {"class_name": "__keras_tensor__", "config": {"keras_history": ["b", 0, 0]}}
FUNCTIONAL = {
    "module": "keras.src.models.functional",
    "class_name": "Functional",
    "config": {
        "name": "model",
        "input_layers": [["x", 0, 0]],
        "output_layers": [["a", 0, 0]],
        "layers": [
            {"class_name": "InputLayer", "config": {"name": "x"}, "name": "x", "inbound_nodes": []},
            {"class_name": "Dense", "config": {"name": "a"}, "name": "a",
             "inbound_nodes": [{"args": [CALLED], "kwargs": {"mask": CALLED}}]},
            {"class_name": "Dense", "config": {"name": "b"}, "name": "b",
             "inbound_nodes": [[["x", 0, 0, {}]]]},
        ],
    },
}  # fmt: skip


@each("config, release, what",
    [
        (model("Dense", DENSE), "3.3", ""),
        (model("RMSNormalization", {}), "3.9", "the class RMSNormalization"),
        (model("Dense", {"activation": "glu"}), "3.7", "the function glu"),
        (model("Dense", {"activation": composition("float32")}), "3.10", "hard_sigmoid"),
        (model("Dense", {"quantization_config": {"a": 1}}), "3.13", "quantization_config"),
        (model("Exp2", {}, OPS), "3.7", "the operation Exp2"),
        ({**model("Dense", DENSE), "compile_config": model("Muon", {}, "keras.optimizers")},
         "3.10", "the class Muon"),
        (model("Squeeze", {"axis": 1}, OPS), "3.11", "with a name"),
        (model("TimeDistributed", {"layer": model("Dense", DENSE)}), "3.4", "a model in"),
        (FUNCTIONAL, "3.7", "a call that stands before"),
        ({"config": {"input_layers": ["x", 0, 0], "layers": []}, "class_name": "Functional"},
         "3.6", "not a list"),
        (model("Dense", {"lora_alpha": 1}, "mine.layers"), "3.3", ""),
    ],
)  # fmt: skip
def test_a_config_needs_the_latest_of_what_is_in_it(
    config: dict[str, Any], release: str, what: str
) -> None:
    opens = releases.opens(config)
    assert shown(opens.release) == release
    assert what in opens.text
    assert f"Keras {release} and later" in opens.text
    number = releases.number(release)
    assert releases.fitted(json.loads(json.dumps(config)), number, "m.keras")
    if number > releases.OLDEST and "with a name" not in what and "not a list" not in what:
        with pytest.raises(UnsupportedByTarget, match=f"needs Keras {release}") as refusal:
            releases.fitted(config, releases.OLDEST, "m.keras")
        assert f"--for-keras {release}" in str(refusal.value.hint)


def test_what_says_nothing_is_left_out_for_an_older_keras() -> None:
    config = model("Dense", {**DENSE, "quantization_config": None, "lora_alpha": None})
    initializer = {"module": "keras.initializers", "class_name": "Orthogonal",
                   "config": {"gain": 1.0, "seed": None}}  # fmt: skip
    layer = config["config"]["layers"][0]["config"]
    layer["kernel_initializer"] = initializer
    fitted = releases.fitted(config, (3, 3), "m.keras")["config"]["layers"][0]["config"]
    assert fitted.keys() == {"name", "units", "kernel_initializer"}
    assert fitted["kernel_initializer"]["class_name"] == "OrthogonalInitializer"
    assert releases.opens(config).release == (3, 3)


def test_an_adapted_normalization_is_of_an_h5_alone() -> None:
    config = model("Normalization", {"mean": None})
    assert releases.opens(config).release == (3, 3)
    assert releases.opens(config, is_h5=True).release == (3, 6)


@pytest.mark.parametrize("text", ["2.15", "3", "3.2", "3.x", "", "4.0", "3.3; x"])
def test_a_release_is_one_of_keras_3(text: str, tmp_path: Path) -> None:
    layer = lc.load("fixtures/keras-3.15.1/seed95.keras")
    with pytest.raises(UsageError, match="release of Keras 3"):
        lc.save(layer, tmp_path / "m.keras", for_keras=text or " ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("m.weights.h5", {}, "weights alone"),
        ("m.keras", {"era": "keras2"}, "contradict"),
        ("m.safetensors", {}, "--for-keras is for"),
    ],
)
def test_the_option_is_effective_or_refused(
    name: str, options: dict[str, Any], what: str, tmp_path: Path
) -> None:
    source = lc.load("fixtures/keras-3.15.1/seed95.keras")
    with pytest.raises(UsageError, match=what):
        lc.save(source, tmp_path / name, for_keras="3.3", **options)
    assert not list(tmp_path.iterdir())


def test_the_report_says_it(tmp_path: Path) -> None:
    source = "fixtures/keras-3.15.1/seed95.keras"
    opens = lc.inspect(source).to_json()["source"]["opens"]
    assert opens["release"] == "3.15"
    assert {reason["layer"] for reason in opens["because"]} >= {"lstm"}
    result = lc.convert(source, tmp_path / "m.keras", for_keras="3.3")
    assert result.to_json()["opens"] == {"release": "3.3", "because": []}
    assert "opens in Keras 3.3 and later" in result.notes
    assert lc.inspect(tmp_path / "m.keras").source.opens == result.opens
    assert lc.inspect("fixtures/tf-2.15.1/seed95.keras").source.opens is None
    assert lc.diff(source, tmp_path / "m.keras")


def test_an_older_keras_gets_rescaled_weights(tmp_path: Path) -> None:
    source = "fixtures/keras-1.2.2/sequential.h5"
    plain = lc.convert(source, tmp_path / "a.keras", dry_run=True)
    assert plain.opens is not None
    assert plain.opens.release == (3, 10)
    rescaled = lc.convert(source, tmp_path / "a.keras", for_keras="3.9")
    assert any("1.2" in text for text in rescaled.losses)
    assert rescaled.opens is not None
    assert rescaled.opens.release == (3, 3)


# -- the installed Keras -----------------------------------------------------------------------


@pytest.mark.engines
def test_the_table_names_what_keras_has() -> None:
    import keras
    from keras.src import ops

    for name in releases._LAYERS:
        assert hasattr(keras.layers, name), name
    trained = (keras.losses, keras.metrics, keras.optimizers)
    for name in releases._COMPILED:
        assert any(hasattr(module, name) for module in trained), name
    for name in releases._FUNCTIONS:
        assert callable(keras.activations.get(name)), name
    modules = [getattr(ops, part) for part in ("core", "numpy", "nn", "math", "image", "linalg")]
    modules += [importlib_module("keras.src.ops.einops")]

    def operation(name: str) -> Any:
        return next((getattr(m, name) for m in modules if hasattr(m, name)), None)

    for name in (*releases._OPERATIONS, *releases._NAMED):
        assert operation(name) is not None, name
    for text in releases._KEYWORDS:
        class_name, keyword = text.split(".")
        places = (keras.layers, keras.initializers, *trained)
        known = next((getattr(m, class_name) for m in places if hasattr(m, class_name)), None)
        known = known or operation(class_name)
        parameters = inspect.signature(known.__init__).parameters
        assert keyword in parameters or "kwargs" in parameters, text


def importlib_module(name: str) -> Any:
    import importlib

    return importlib.import_module(name)


# -- every release -----------------------------------------------------------------------------


def tail(*layers: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def build(keras: Any) -> Any:
        start = [keras.layers.Input((6, 4)), keras.layers.LSTM(2, return_sequences=True)]
        return keras.Sequential([*start, *(layer(keras) for layer in layers)])

    return build


#: A small model for each kind of row: what came later, and the release that it came with.
LATER: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "rms": ("3.9", tail(lambda keras: keras.layers.RMSNormalization())),
    "glu": ("3.7", tail(lambda keras: keras.layers.Dense(4, activation="glu"))),
    "squareplus": ("3.7", tail(lambda keras: keras.layers.Activation("squareplus"))),
    "sparse_plus": ("3.8", tail(lambda keras: keras.layers.Activation("sparse_plus"))),
    "sparse_sigmoid": ("3.10", tail(lambda keras: keras.layers.Activation("sparse_sigmoid"))),
    "pooling": ("3.13", tail(lambda keras: keras.layers.AdaptiveMaxPooling1D(2))),
    "padded": ("3.5", tail(
        lambda keras: keras.layers.ZeroPadding1D(1, data_format="channels_first")
    )),
    "exp2": ("3.7", lambda keras: _with(keras, lambda x: keras.ops.exp2(x))),
    "trunc": ("3.11", lambda keras: _with(keras, lambda x: keras.ops.trunc(x * 3.0))),
    "cbrt": ("3.11", lambda keras: _with(keras, lambda x: keras.ops.cbrt(x))),
    "logaddexp2": ("3.12", lambda keras: _with(keras, lambda x: keras.ops.logaddexp2(x, x))),
    "squeeze": ("3.3", lambda keras: _with(keras, lambda x: keras.ops.squeeze(x[:, :1], 1))),
}  # fmt: skip


def _with(keras: Any, function: Callable[[Any], Any]) -> Any:
    x = keras.Input((6, 4))
    return keras.Model(x, function(keras.layers.LSTM(2, return_sequences=True)(x)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Release]:
    """Files for many releases, with what each gives, and the release that we state for each."""
    keras = pytest.importorskip("keras")
    tf_keras = pytest.importorskip("tf_keras")
    folder = tmp_path_factory.mktemp("releases")
    stated: dict[Path, Release] = {}
    index = {}
    builds = [(name, tf_keras, build, "h5") for name, build in MODELS.items()]
    builds += [(name, keras, build, "keras") for name, build in MODELS.items()]
    builds += [(name, keras, build, "keras") for name, (_, build) in LATER.items()]
    for number, (name, library, build, suffix) in enumerate(builds):
        source = folder / f"source{number}.{suffix}"
        built = filled(build(library), name)
        built.save(str(source))
        given = samples(built, name)
        numbers = folder / f"{number}.npz"
        xs = {f"x{i:02}": array for i, array in enumerate(given)}
        ys = {f"y{i:02}": array for i, array in enumerate(outputs(built, given))}
        np.savez(numbers, **xs, **ys)
        for release in dict.fromkeys((None, "3.3", "3.6", LATER.get(name, ("3.10",))[0])):
            for container in ("keras", "h5") if release == "3.3" else ("keras",):
                target = folder / f"{name}-{library.__name__}-{release}.{container}"
                try:
                    result = lc.convert(source, target, for_keras=release)
                except UnsupportedByTarget:
                    continue
                if result.opens is not None:
                    stated[target] = result.opens.release
                    index[target.name] = numbers.name
    (folder / "index.json").write_text(json.dumps(index))
    return stated


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not PYTHONS, reason="LSTMCONVERT_KERASES names no Python (.ci/kerases)")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_file_opens_from_the_stated_release_on(
    python: str, files: dict[Path, Release]
) -> None:
    code = "import os; os.environ['KERAS_BACKEND'] = 'jax'; import keras; print(keras.__version__)"
    version = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    release = releases.number(version)
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    folder = next(iter(files)).parent
    run = subprocess.run(
        [python, "-I", open_keras.__file__, str(folder)],
        capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    results = dict(json.loads(line) for line in run.stdout.splitlines() if line.startswith("["))
    assert results.keys() == {path.name for path in files}
    wrong = {
        path.name: (shown(stated), results[path.name])
        for path, stated in files.items()
        if (results[path.name] == "same") != (release >= stated)
    }
    assert not wrong, f"Keras {version}"
