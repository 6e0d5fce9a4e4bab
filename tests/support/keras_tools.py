"""What the round-trip tests share: the fixtures, h5py's own view of them, Keras as the oracle.

The oracles use nothing of lstmconvert's readers: a file is looked at through h5py, zipfile and json
alone, a model through the Keras that wrote it.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import h5py
import ml_dtypes
import numpy as np

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array, same_bits
from support.thinned import ALL

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
LATEST = "keras-3.15.1"
T = TypeVar("T")

#: The one table of fixtures that cannot be a source yet, or never: pattern -> why. The first match
#: counts. A file that is read in spite of its row fails `test_what_is_not_read_yet`.
NOT_READ: dict[str, str] = {
    "*/gru_only.keras": "no LSTM in it",
    "*/lstm_model.h5": "no LSTM in it, in spite of its name",
    f"{LATEST}/seed95_0000?.weights.h5": "a shard alone: half a cell",
}
#: Read, and stored otherwise than as Keras 2 and 3 store an LSTM: not slices of fused arrays.
REARRANGED: dict[str, str] = {
    "keras-1*": "Keras 1: an array for each gate, and other keys in the config",
    "*/cudnn*": "CuDNNLSTM: gates in cuDNN's order, and two biases",
}
#: Written by a Keras that cannot load it again (fixtures/README.md), or not by the one installed.
NOT_LOADED: dict[str, str] = {
    f"{LATEST}/options.h5": "Unknown layer: 'NotEqual', from Masking",
    f"{LATEST}/seed95.npz.keras": "pickled objects",
    "tf-2.12.1/seed95.keras": "keras.engine.functional is nowhere any more",
    "tf-2.1[234].1/*.keras": "tf_keras 2.21 looks for variables under other names",
    "tf-2.15.1/both_unlike.h5": "tf_keras shuffles the weights of unlike halves",
    "tf_keras-2.21.0-own/*.h5": "it needs the user's own code",
}
_SUFFIXES = (".keras", ".h5", ".unzipped", ".weights.json")
_INSIDE = (".unzipped/", ".savedmodel/", ".export/")


@functools.cache
def name_of(path: Path) -> str:
    """Return a fixture's name: `keras-3.15.1/seed95.keras`."""
    return path.relative_to(FIXTURES).as_posix()


def why_not(table: dict[str, str], path: Path) -> str | None:
    """Return the reason of the first row that matches a fixture, None if no row does."""
    return next((why for p, why in table.items() if fnmatch(name_of(path), p)), None)


@functools.cache
def _all() -> tuple[Path, ...]:
    found = (p for p in FIXTURES.rglob("*") if p.name.endswith(_SUFFIXES))
    return tuple(sorted(p for p in found if not any(part in name_of(p) for part in _INSIDE)))


def candidates() -> list[Path]:
    """Every fixture whose container is one of Keras's own files."""
    return list(_all())


def fixtures(*patterns: str, loaded: bool = False) -> list[Path]:
    """Return the fixtures that are read, and match one of the patterns, if there are any.

    Args:
        patterns: of `name_of`, as of a shell.
        loaded: only those that the installed Keras or tf_keras loads, with a config.
    """
    found = [p for p in _all() if why_not(NOT_READ, p) is None]
    if patterns:
        found = [p for p in found if any(fnmatch(name_of(p), pattern) for pattern in patterns)]
    if loaded:
        found = [p for p in found if is_whole(p) and why_not(NOT_LOADED, p) is None]
    return found


def fused(*patterns: str) -> list[Path]:
    """Return the fixtures that are read and hold LSTMs as Keras 2 and 3 store them."""
    return [p for p in fixtures(*patterns) if why_not(REARRANGED, p) is None]


def is_whole(path: Path) -> bool:
    """Whether a fixture is a whole model in one file."""
    return path.name.endswith((".keras", ".h5")) and ".weights" not in path.name


def is_keras3(path: Path) -> bool:
    """Whether Keras 3 wrote a fixture."""
    return path.parent.name.startswith("keras-3")


def stem(path: Path) -> Path:
    """Return a fixture's path without any of its suffixes."""
    return path.with_name(path.name.partition(".")[0])


def _once(function: Callable[[Path], T]) -> Callable[[Path], T]:
    """Look at a fixture once, at any other file anew: it may have been written to."""
    cached = functools.cache(function)

    @functools.wraps(function)
    def look(path: Path) -> T:
        return cached(path) if path.is_relative_to(FIXTURES) else function(path)

    return look


# ---- h5py's view -------------------------------------------------------------------------------


@_once
def stored(path: Path) -> dict[str, Array]:
    """Return every array of a Keras file by its full path, as h5py reads it."""
    if path.name.endswith(".weights.json"):
        shards = sorted(path.parent.glob(path.name.removesuffix(".weights.json") + "_*.weights.h5"))
        return {name: array for shard in shards for name, array in stored(shard).items()}
    arrays: dict[str, Array] = {}
    with h5py.File(_hdf5(path), "r") as file:

        def visit(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset):
                arrays[name] = _array(found)

        file.visititems(visit)
    return arrays


def _hdf5(path: Path) -> Any:
    if path.is_dir():
        return path / "model.weights.h5"
    if zipfile.is_zipfile(path):
        return io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5"))
    return path


def _array(dataset: Any) -> Array:
    array = dataset[()]
    if dataset.attrs.get("dtype") == "bfloat16":
        return array.view(ml_dtypes.bfloat16)
    return np.asarray(array)


@_once
def attributes(path: Path) -> dict[str, dict[str, Any]]:
    """Return the attributes of every group of a Keras file, by path; the root's is empty."""
    with h5py.File(_hdf5(path), "r") as file:
        found = {"": dict(file.attrs)}
        file.visititems(
            lambda name, item: found.update({name: dict(item.attrs)})
            if isinstance(item, h5py.Group)
            else None
        )
    return found


@_once
def config_text(path: Path) -> str | None:
    """Return the model's config as the file holds it, or None."""
    if path.is_dir():
        return (path / "config.json").read_text()
    if zipfile.is_zipfile(path):
        return zipfile.ZipFile(path).read("config.json").decode()
    if path.name.endswith(".json"):
        return None
    text = attributes(path)[""].get("model_config")
    return text.decode() if isinstance(text, bytes) else text


def config_of(path: Path) -> Any:
    """Return the model's config, parsed; None for weights alone."""
    text = config_text(path)
    return None if text is None else json.loads(text)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every serialized object of a config, outermost first, in the order of the text."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for item in value.values():
            yield from objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from objects(item)


def assert_same_arrays(found: dict[str, Array], wanted: dict[str, Array]) -> None:
    """Assert that two files hold the same arrays, bit for bit."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert same_bits(found[name], array), name


@functools.cache
def model(path: Path) -> lc.Model:
    """Return a fixture as lstmconvert opens it, opened once."""
    return lc.load(path)


# ---- Keras -------------------------------------------------------------------------------------


@functools.cache
def builder() -> Any:
    """Return the module that made the fixtures of Keras 3: it registers their custom classes."""
    sys.path.insert(0, str(FIXTURES / "builders"))
    try:
        return importlib.import_module("keras3")
    finally:
        sys.path.pop(0)


def library_of(path: Path) -> Any:
    """Return the Keras that loads a fixture: keras or tf_keras."""
    return importlib.import_module("keras" if is_keras3(path) else "tf_keras")


@functools.cache
def loaded(path: Path) -> Any:
    """Return the model of a fixture, loaded once by its own Keras."""
    if is_keras3(path):
        builder()
    return library_of(path).models.load_model(path, compile=False)


def live_layers(model: Any, outer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(path of names, layer)` of a live model's layers, through models and wrappers."""
    for layer in model.layers:
        name = f"{outer}/{layer.name}".strip("/")
        if hasattr(layer, "layers"):
            yield from live_layers(layer, name)
        elif type(layer).__name__ == "TimeDistributed":
            yield f"{name}/{layer.layer.name}", layer.layer
        else:
            yield name, layer


def inputs_of(path: Path) -> list[Array]:
    """Return the oracle's inputs."""
    return _oracle(path, "x")


def outputs_of(path: Path) -> list[Array]:
    """Return the outputs that the writer's own `predict` gave."""
    return _oracle(path, "y")


def _oracle(path: Path, kind: str) -> list[Array]:
    with np.load(f"{stem(path)}.io.npz") as found:
        keys = [key for key in found.files if key[0] == kind]
        return [found[key] for key in sorted(keys, key=lambda key: int(key[1:]))]


def call(model: Any, xs: list[Array], **options: Any) -> list[Array]:
    """Call a model or layer from zero states, and return its outputs in order."""
    reset(model)
    given = [_tensor(x) for x in xs]
    return flat(model(given if len(given) > 1 else given[0], **options))


_RUN: set[str] = set()


def is_new(layer: Any, *how: Any) -> bool:
    """Whether no layer with these options, but for names, was asked for in this way before.

    Layers of the same options and weights compute the same: one of each is run, not one of each
    file that has it.
    """
    if ALL:
        return True
    key = json.dumps([type(layer).__module__, _nameless(as_json(layer.get_config())), *how])
    if key in _RUN:
        return False
    _RUN.add(key)
    return True


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _nameless(v) for k, v in value.items() if k not in ("name", "build_config")}
    return [_nameless(item) for item in value] if isinstance(value, list) else value


def predict(model: Any, xs: list[Array]) -> list[Array]:
    """`call`, by the model's own `predict`."""
    reset(model)
    given = [_tensor(x) for x in xs]
    given_batch = {"batch_size": len(xs[0]), "verbose": 0}
    return flat(model.predict(given if len(given) > 1 else given[0], **given_batch))


def _tensor(x: Array) -> Any:
    import tensorflow as tf

    return tf.constant(x)


def reset(model: Any) -> None:
    """Set the states of every stateful layer to zero."""
    below = model._flatten_layers() if hasattr(model, "_flatten_layers") else [model]
    for layer in below:
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_states"):
            layer.reset_states()


def built_shape(layer: Any) -> tuple[int | None, ...]:
    """Return the shape that a live Keras 3 layer was built with."""
    shapes = layer._build_shapes_dict
    shape = shapes.get("sequences_shape") or shapes.get("input_shape")
    return tuple(shape)


def flat(values: Any) -> list[Array]:
    """Return the arrays of a nest, dicts by key."""
    if isinstance(values, dict):
        values = [values[key] for key in sorted(values)]
    if isinstance(values, list | tuple):
        return [array for value in values for array in flat(value)]
    return [np.asarray(values)]


def assert_same_outputs(found: list[Array], wanted: list[Array]) -> None:
    """Assert that two lists of outputs have the same bits."""
    assert len(found) == len(wanted)
    for one, two in zip(found, wanted, strict=True):
        assert same_bits(one, two), np.abs(one.astype("f8") - two.astype("f8")).max()


def weights_of(layer: Any) -> list[Array]:
    """Return a live layer's weights, in their own dtypes."""
    return [
        np.asarray(w.numpy() if hasattr(w, "numpy") else w) for w in layer.weights if _is_weight(w)
    ]


def _is_weight(weight: Any) -> bool:
    return "seed" not in getattr(weight, "path", weight.name)


def as_json(config: Any) -> Any:
    """Return a config as JSON has it: tuples are lists, and object ids mean nothing."""
    return json.loads(json.dumps(_without_ids(config)))


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_ids(v) for k, v in value.items() if k != "shared_object_id"}
    if isinstance(value, list | tuple):
        return [_without_ids(item) for item in value]
    return value
