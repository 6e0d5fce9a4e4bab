"""Keras file → per-gate safetensors → Keras file: the same bits, options and predictions.

Keras 3 on TensorFlow is the oracle. A model is loaded once; the file that we write is loaded by
the same Keras and called in the same way, eagerly, and for some kinds by `predict` too (one model
may differ by 7.6e-6 between the two: like is compared with like).
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import keras_tools as tools
from support.keras_tools import FIXTURES, LATEST, name_of
from support.neutral import make_cell, make_layer
from support.thinned import ALL

import lstmconvert as lc
from lstmconvert.errors import UnknownOption, UnsupportedByTarget
from lstmconvert.model.edit import cast
from lstmconvert.tensors.dtypes import dtype_of, same_bits

pytestmark = pytest.mark.engines

keras = pytest.importorskip("keras")

LATEST_DIR = FIXTURES / LATEST
#: Weight stores of every kind and era that go back to their own container.
SAME = [p for p in tools.fused() if p.name.endswith((".keras", ".h5", ".unzipped"))]
#: Archives of Keras 2 have paths that Keras 3 does not use: they go back as their LSTM layers.
SAME = [p for p in SAME if tools.is_keras3(p) or not zipfile.is_zipfile(p)]
KERAS3 = tools.fixtures("keras-3*", loaded=True)
#: Kinds whose `predict` is compared too: each LSTM class, container of classes, dtype and option.
PREDICTED = ("options", "both_unlike", "rnn_stack_gru", "conv_lstm1d", "embedding")
PREDICTED += ("mixed_float16", "float64", "text", "seed95")


#: Every archive that has an LSTM, of any era.
ARCHIVES = [
    path
    for path in sorted(FIXTURES.glob("*/*.keras"))
    if zipfile.is_zipfile(path) and path.stem != "gru_only"
]


@dataclass(frozen=True)
class Made:
    """What a fixture became: per gate, and a Keras file again."""

    gates: Path
    back: Path
    result: lc.Result


Workshop = Callable[..., Made]


def suffix_of(path: Path) -> str:
    name = path.name
    if name.endswith((".weights.h5", ".weights.json")) and not is_legacy(path):
        return ".weights.h5"
    return ".h5" if path.suffix == ".h5" or is_hdf5(path) else ".keras"


def is_hdf5(path: Path) -> bool:
    # A zip may hold an HDF5 file just where a user block would end.
    return path.is_file() and not zipfile.is_zipfile(path) and h5py.is_hdf5(path)


def is_legacy(path: Path) -> bool:
    return any("layer_names" in found for found in tools.attributes(path).values())


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    @functools.cache
    def make(path: Path, suffix: str = "", lstm_only: bool = False) -> Made:
        folder = tmp_path_factory.mktemp(path.parent.name)
        gates = folder / "gates.safetensors"
        back = folder / f"back{suffix or suffix_of(path)}"
        lc.convert(path, gates)
        return Made(gates, back, lc.convert(gates, back, lstm_only=lstm_only))

    return make


def without_slots(arrays: dict[str, Any]) -> dict[str, Any]:
    slots = ("optimizer/", "optimizer_weights/")
    return {name: array for name, array in arrays.items() if not name.startswith(slots)}


@pytest.mark.parametrize("path", SAME, ids=name_of)
def test_every_weight_of_the_file(path: Path, workshop: Workshop) -> None:
    made = workshop(path)
    if ".npz." not in path.name:
        tools.assert_same_arrays(tools.stored(made.back), without_slots(tools.stored(path)))
    assert tools.config_text(made.back) == tools.config_text(path)
    assert made.result.losses == ()
    is_whole = tools.config_text(path) is not None or made.back.name.endswith(".weights.h5")
    assert made.result.whole_model is is_whole
    assert made.result.layers == tuple(tools.model(path))


#: The attributes that say something: whose weights, in which order, of which model.
KEPT = {"name", "layer_names", "weight_names", "model_config", "training_config"}
KEPT |= {"keras_version", "backend"}


@pytest.mark.parametrize("path", SAME, ids=name_of)
def test_what_is_beside_the_weights(path: Path, workshop: Workshop) -> None:
    """The attributes that Keras reads, and every member of an archive."""
    made = workshop(path)
    if ".npz." not in path.name:
        found = tools.attributes(made.back)
        for group, attrs in tools.attributes(path).items():
            for key in attrs.keys() & KEPT if not group.startswith("optimizer") else ():
                assert texts(found[group][key]) == texts(attrs[key]), (group, key)
    if made.back.suffix == ".keras" and path.is_file():
        assert members(made.back) == members(path) - {"model.weights.npz"} | {"model.weights.h5"}
        for name in members(path) - {"model.weights.h5", "model.weights.npz"}:
            assert read(made.back, name) == read(path, name)


def texts(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [texts(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def members(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def read(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


@functools.cache
def first_call(path: Path) -> list[Any]:
    return tools.call(tools.loaded(path), tools.inputs_of(path))


#: The zoo of one version stands for those of the others, which are called slow.
CALLED = [
    pytest.param(p, id=name_of(p), marks=pytest.mark.slow if is_slow else ())
    for p in KERAS3
    for is_slow in ["zoo" in p.name and p.parent.name != LATEST]
]


#: The oracle's own `predict`, perhaps of another Keras and TensorFlow, on another processor:
#: rounding of float32 over 18 steps; of float16 and bfloat16, of the numbers that they hold.
TOLERANCES = {"bfloat16": 2e-2, "mixed_bfloat16": 2e-2, "float16": 2e-3, "mixed_float16": 2e-3}


@pytest.mark.parametrize("path", CALLED)
def test_keras_computes_the_same(path: Path, workshop: Workshop) -> None:
    """The bits of all weights, the config, and the writer's own outputs."""
    tools.builder()  # registers the custom classes
    again = keras.models.load_model(workshop(path).back, compile=False)
    original = tools.loaded(path)
    for one, two in zip(again.weights, original.weights, strict=True):
        assert one.name == two.name  # a path has the numbers that this process gave to names
        assert same_bits(np.asarray(one), np.asarray(two)), one.path
    assert tools.as_json(again.get_config()) == tools.as_json(original.get_config())
    tolerance = TOLERANCES.get(tools.stem(path).name, 2e-6)
    found = tools.call(again, tools.inputs_of(path))
    for one, two in zip(found, tools.outputs_of(path), strict=True):
        np.testing.assert_allclose(one.astype("f8"), two, rtol=tolerance, atol=tolerance)


# A `predict` is traced, which takes seconds.
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.name)
        for p in KERAS3
        if p.parent.name == LATEST and p.suffix == ".keras"
        if ALL or tools.stem(p).name in PREDICTED
    ],
)
def test_predict(path: Path, workshop: Workshop) -> None:
    """`predict` of the written model gives the bits of the original's: those that were recorded
    when the fixture was made, by the same Keras and TensorFlow."""
    tools.builder()
    again = keras.models.load_model(workshop(path).back, compile=False)
    found = tools.predict(again, tools.inputs_of(path))
    recorded = tools.outputs_of(path)
    if not all(map(same_bits, map(widened, found), recorded)):  # another TensorFlow or processor
        tools.assert_same_outputs(found, tools.predict(tools.loaded(path), tools.inputs_of(path)))


def widened(array: Any) -> Any:
    return array.astype("f4") if array.dtype.itemsize == 2 else array


def test_every_kind_of_layer_is_compared() -> None:
    stems = {tools.stem(p).name for p in KERAS3 if p.parent.name == LATEST}
    kinds = set(tools.builder().KINDS) - {"gru_only"}
    assert stems >= kinds | {"text", "seed95", "zoo"}


# ---- the LSTM layers alone ---------------------------------------------------------------------

ALONE = [p for p in KERAS3 if p.parent.name == LATEST and p.suffix == ".keras"]
ALONE += tools.fixtures(f"{LATEST}/both_concat.h5", f"{LATEST}/nested.h5")


def originals(path: Path) -> list[tuple[str, Any]]:
    """Return `(name in our model, live layer)` of every LSTM layer of a loaded model."""
    found = dict(tools.live_layers(tools.loaded(path)))
    names = list(tools.model(path))
    return [(name, found.get(name) or found[name.removesuffix("_")]) for name in names]


def has_live_names(path: Path) -> bool:
    return tools.stem(path).name != "subclassed"


@pytest.mark.parametrize("path", [p for p in ALONE if has_live_names(p)], ids=name_of)
def test_lstm_layers_alone(path: Path, workshop: Workshop) -> None:
    made = workshop(path, ".keras", True)
    assert not made.result.whole_model
    model = keras.models.load_model(made.back, compile=False)
    live = [layer for layer in model.layers if layer.weights]
    wanted = originals(path)
    assert [layer.name for layer in live] == list(made.result.layers)
    for layer, (_, original) in zip(live, wanted, strict=True):
        assert_same_layer(layer, original)
    if len(live) == 1:
        assert type(model).__name__ == "Sequential"
    else:
        assert len(model.inputs) == len(live)


def assert_same_layer(layer: Any, original: Any) -> None:
    config, wanted = (tools.as_json(x.get_config()) for x in (layer, original))
    assert type(layer) is type(original)
    config.pop("name"), wanted.pop("name")
    assert without_shapes(config) == without_shapes(wanted)
    for one, two in zip(tools.weights_of(layer), tools.weights_of(original), strict=True):
        assert same_bits(one, two)
    if tools.is_new(original, "alone"):
        x = np.random.default_rng(0).normal(size=sample_shape(original)).astype("f4")
        tools.assert_same_outputs(tools.call(layer, [x]), tools.call(original, [x]))


def without_shapes(value: Any) -> Any:
    """Leave out what a half was built with: how many steps, which is not an option."""
    if isinstance(value, dict):
        return {k: without_shapes(v) for k, v in value.items() if k != "build_config"}
    return [without_shapes(item) for item in value] if isinstance(value, list) else value


def sample_shape(layer: Any) -> tuple[int, ...]:
    shape = tools.built_shape(layer)
    return tuple(size or default for size, default in zip(shape, (3, *[4] * 5), strict=False))


@pytest.mark.parametrize("stem", ["both_gru", "rnn_stack_gru"])
def test_a_gru_that_is_not_carried(stem: str, tmp_path: Path) -> None:
    """Its weights are among the other tensors: without them the layer cannot be written."""
    lc.convert(LATEST_DIR / f"{stem}.keras", tmp_path / "g.safetensors", lstm_only=True)
    with pytest.raises(UnsupportedByTarget, match="beside the LSTM are not in the file"):
        lc.convert(tmp_path / "g.safetensors", tmp_path / "g.keras")
    assert not (tmp_path / "g.keras").exists()


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize(
    "path",
    tools.fixtures(
        f"{LATEST}/seed95.*",
        f"{LATEST}/both_unlike.*",
        f"{LATEST}/rnn_stack.*",
        f"{LATEST}/conv_lstm2d.*",
        "keras-3.0.5/seed95.*",
        "keras-2.2.4/seed95.h5",
        "tf-1.15.5/sequential.h5",
        "tf-2.12.1/seed95.keras",
        "tf-2.13.1/zoo.keras",
        "tf-2.15.1/both_unlike.h5",
        "tf_keras-2.21.0/zoo.h5",
    ),
    ids=name_of,
)
def test_across_containers(path: Path, suffix: str, tmp_path: Path) -> None:
    """From any container into any other: what Keras reads from it are the LSTM layers' bits."""
    gates, back = tmp_path / "gates.safetensors", tmp_path / f"back{suffix}"
    lc.convert(path, gates)
    if tools.config_of(path) is None and suffix == ".keras":
        with pytest.raises(UnknownOption, match="recurrent_activation"):
            lc.convert(gates, back)
        assert not back.exists()
        return
    result = lc.convert(gates, back, lstm_only=True)
    assert not result.whole_model
    again = lc.load(back)
    assert len(again) == len(tools.model(path))
    wanted = sorted_by_first(numbers(tools.model(path)))
    found = sorted_by_first(numbers(again))
    assert all(same_bits(a, b) for a, b in zip(found, wanted, strict=True))
    assert again.parameters["other"] == 0
    if tools.config_of(back) is not None:
        live = keras.models.load_model(back, compile=False)
        kept = [w for layer in live.layers for w in tools.weights_of(layer)]
        fused = [
            cell.fused(part).read()
            for name in again
            for _, _, cell in again[name].cells()
            for part in cell.gate_parts
        ]
        assert sorted(a.tobytes() for a in kept) == sorted(a.tobytes() for a in fused)


def numbers(model: lc.Model) -> list[Any]:
    return [t.read() for la in model.layers for _, _, c in la.cells() for _, t in c.tensors()]


def sorted_by_first(arrays: list[Any]) -> list[Any]:
    return sorted(arrays, key=lambda array: (array.shape, array.tobytes()))


@pytest.mark.parametrize("stem", ["seed95", "both_concat", "options", "no_bias", "conv_lstm2d"])
def test_keras_loads_our_weights_into_its_own_model(stem: str, tmp_path: Path) -> None:
    """`load_weights` of the `.weights.h5` that we wrote, into a model with other weights."""
    whole, weights = LATEST_DIR / f"{stem}.keras", tmp_path / "only.weights.h5"
    lc.convert(LATEST_DIR / f"{stem}.weights.h5", tmp_path / "g.safetensors")
    result = lc.convert(tmp_path / "g.safetensors", weights)
    assert result.whole_model
    model = keras.models.load_model(whole, compile=False)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(np.zeros(weight.shape))
    model.load_weights(weights)
    for one, two in zip(model.weights, tools.loaded(whole).weights, strict=True):
        assert same_bits(np.asarray(one), np.asarray(two))


def test_lstm_layers_alone_as_weights(tmp_path: Path) -> None:
    source = LATEST_DIR / "zoo.keras"
    lc.convert(source, tmp_path / "a.keras", lstm_only=True)
    lc.convert(source, tmp_path / "a.weights.h5", lstm_only=True)
    model = keras.models.load_model(tmp_path / "a.keras")
    wanted = [np.asarray(w) for w in model.weights]
    for weight in model.weights:
        weight.assign(np.ones(weight.shape))
    model.load_weights(tmp_path / "a.weights.h5")
    assert all(same_bits(np.asarray(a), b) for a, b in zip(model.weights, wanted, strict=True))


def test_some_layers_of_a_model(tmp_path: Path) -> None:
    path = LATEST_DIR / "several.keras"
    result = lc.convert(path, tmp_path / "two.safetensors", layers=["m_last", "z_first"])
    assert result.layers == ("z_first", "m_last")
    model = lc.load(tmp_path / "two.safetensors")
    assert list(model) == ["z_first", "m_last"]
    assert model.parameters["other"] == 0
    lc.convert(path, tmp_path / "one.keras", layers=["a_second"])
    live = keras.models.load_model(tmp_path / "one.keras")
    (layer,) = live.layers
    assert_same_layer(layer, dict(originals(path))["a_second"])
    with pytest.raises(lc.LSTMConvertError, match="no LSTM layer"):
        lc.convert(path, tmp_path / "none.keras", layers=["z_frist"])
    assert not (tmp_path / "none.keras").exists()


@pytest.mark.parametrize("source", ["seed95.weights.h5", "seed95.weights.json"])
@pytest.mark.parametrize("config", ["seed95.config.json", "seed95.keras", "seed95.h5"])
def test_weights_and_their_config_make_the_whole_model(
    source: str, config: str, tmp_path: Path
) -> None:
    """`to_json()` beside `save_weights`: together they are the model."""
    lc.convert(LATEST_DIR / source, tmp_path / "g.safetensors", config=LATEST_DIR / config)
    result = lc.convert(tmp_path / "g.safetensors", tmp_path / "back.keras")
    assert result.whole_model
    whole = LATEST_DIR / "seed95.keras"
    again = keras.models.load_model(tmp_path / "back.keras", compile=False)
    tools.assert_same_outputs(tools.call(again, tools.inputs_of(whole)), first_call(whole))


def test_weights_and_settings_make_the_layer(tmp_path: Path) -> None:
    names = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")
    given = ["activation=tanh", "recurrent_activation=sigmoid", *(f"{n}=false" for n in names)]
    lc.convert(LATEST_DIR / "seed95.weights.json", tmp_path / "g.safetensors", settings=given)
    result = lc.convert(tmp_path / "g.safetensors", tmp_path / "back.keras")
    assert any("written as Keras's defaults" in text for text in result.warnings)
    (layer,) = keras.models.load_model(tmp_path / "back.keras").layers
    original = tools.loaded(LATEST_DIR / "seed95.keras").get_layer("lstm")
    x = tools.inputs_of(LATEST_DIR / "seed95.keras")
    tools.assert_same_outputs(tools.call(layer, x), tools.call(original, x))


# ---- beside the weights ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_optimizer_slots_on_request(suffix: str, tmp_path: Path) -> None:
    source = LATEST_DIR / f"fitted{suffix}"
    plain, full = tmp_path / "plain.safetensors", tmp_path / "full.safetensors"
    lc.convert(source, plain)
    lc.convert(source, full, with_optimizer=True)
    slots = {n: a for n, a in tools.stored(source).items() if n.startswith("optimizer")}
    assert len(slots) > 5
    without, with_slots = lc.load(plain), lc.load(full)
    assert not without.optimizer
    assert with_slots.parameters == without.parameters == tools.model(source).parameters
    assert with_slots.parameters["total"] == 4 * 2 * (5 + 2 + 1) + 3
    assert not any(name.startswith("optimizer") for name in with_slots.other)
    tools.assert_same_arrays({n: t.read() for n, t in with_slots.optimizer.items()}, slots)
    back = tmp_path / f"back{suffix}"
    lc.convert(full, back)
    tools.assert_same_arrays(tools.stored(back), without_slots(tools.stored(source)))
    lc.convert(full, back, with_optimizer=True, force=True)
    tools.assert_same_arrays(tools.stored(back), tools.stored(source))
    if suffix == ".keras":
        again = keras.models.load_model(back)  # compiled: Keras reads the slots
        original = keras.models.load_model(source)
        for one, two in zip(again.optimizer.variables, original.optimizer.variables, strict=True):
            assert same_bits(np.asarray(one), np.asarray(two))


def test_custom_objects_are_loaded_by_keras(workshop: Workshop) -> None:
    """A file with a user's own class loads with custom_objects, as the original does."""
    path = LATEST_DIR / "custom.keras"
    scaled = tools.builder().ScaledLSTM
    model = keras.models.load_model(workshop(path).back, custom_objects={"ScaledLSTM": scaled})
    assert any(type(layer) is scaled for layer in model.layers)


def test_sharded_and_unzipped_become_files(tmp_path: Path) -> None:
    for name in ("seed95.unzipped", "seed95.npz.keras"):
        lc.convert(LATEST_DIR / name, tmp_path / f"{name}.keras")
        model = keras.models.load_model(tmp_path / f"{name}.keras", compile=False)
        whole = LATEST_DIR / "seed95.keras"
        tools.assert_same_outputs(tools.call(model, tools.inputs_of(whole)), first_call(whole))
    lc.convert(LATEST_DIR / "seed95.weights.json", tmp_path / "one.weights.h5")
    tools.assert_same_arrays(
        tools.stored(tmp_path / "one.weights.h5"), tools.stored(LATEST_DIR / "seed95.weights.h5")
    )


@pytest.mark.parametrize("stem", ["bfloat16", "float16", "float64", "zoo", "subclassed"])
def test_a_second_trip_changes_nothing(stem: str, workshop: Workshop, tmp_path: Path) -> None:
    made = workshop(LATEST_DIR / f"{stem}.keras")
    lc.convert(made.back, tmp_path / "again.safetensors")
    one, two = (lc.load(p) for p in (made.gates, tmp_path / "again.safetensors"))
    assert list(one) == list(two)
    assert all(same_bits(a, b) for a, b in zip(numbers(one), numbers(two), strict=True))
    assert one.source.sha256 != two.source.sha256


def test_bfloat16_is_refused_where_keras_cannot_read_it(tmp_path: Path) -> None:
    source = LATEST_DIR / "bfloat16.keras"
    with pytest.raises(UnsupportedByTarget, match="bfloat16 back from a legacy"):
        lc.convert(source, tmp_path / "x.h5")
    result = lc.convert(source, tmp_path / "x.keras")
    assert any("bfloat16" in text for text in result.warnings)
    lc.convert(source, tmp_path / "x.h5", dtype="float32", lstm_only=True)
    (live,) = keras.models.load_model(tmp_path / "x.h5", compile=False).layers
    assert live.dtype_policy.name == "float32"


# ---- the same input, the same bytes ------------------------------------------------------------

DETERMINED = ("zoo.keras", "fitted.h5", "subclassed.weights.h5", "text.keras", "seed95.npz.keras")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (name, suffix)
        for name in DETERMINED
        for suffix in (".safetensors", ".keras", ".weights.h5", ".h5", ".npz")
        # The one has no options, and no .h5 holds the other's assets.
        if (name, suffix) not in {("subclassed.weights.h5", ".keras"), ("text.keras", ".h5")}
    ],
)
def test_the_same_bytes_twice(name: str, suffix: str, tmp_path: Path) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    lc.convert(LATEST_DIR / name, one)
    lc.convert(LATEST_DIR / name, two)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_the_same_bytes_in_two_processes(tmp_path: Path) -> None:
    """String hashes differ from process to process, and must not show."""
    script = (
        "import sys, lstmconvert as lc\n"
        "from pathlib import Path\n"
        "source, out = map(Path, sys.argv[1:])\n"
        "for name in ('zoo.keras', 'fitted.h5', 'embedding.keras'):\n"
        "    for suffix in ('.safetensors', '.npz', '.keras', '.weights.h5', '.h5'):\n"
        "        lc.convert(source / name, out / (name + suffix))\n"
    )
    folders = []
    for seed in ("0", "1"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tools.ROOT)}
        command = [sys.executable, "-c", script, str(LATEST_DIR), str(folder)]
        subprocess.run(command, env=environment, check=True)
        folders.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert len(folders[0]) == 15
    assert folders[0] == folders[1]


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    """A config whose keys come in another order gives the same layers, byte for byte."""
    source = LATEST_DIR / "both_unlike.keras"
    turned = tmp_path / "turned.keras"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(turned, "w") as new:
        for name in reversed(old.namelist()):
            data = old.read(name)
            if name == "config.json":
                data = json.dumps(reversed_keys(json.loads(data))).encode()
            new.writestr(name, data)
    results = []
    for path in (source, turned):
        out = tmp_path / f"{path.stem}.safetensors"
        lc.convert(path, out, lstm_only=True)
        arrays = {n: t.read().tobytes() for n, t in flat(lc.load(out)).items()}
        metadata = json.loads(header(out)["__metadata__"]["lstmconvert"])
        assert metadata.pop("source")["sha256"]
        assert metadata.pop("seal")  # which is over the source's hash, too
        results.append((arrays, json.dumps(metadata), list(header(out))))
    assert results[0] == results[1]


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(data[8 : 8 + size])
    return found


def flat(model: lc.Model) -> dict[str, Any]:
    from lstmconvert.pergate import gatesfile

    return gatesfile.tensors(model)


# ---- another dtype -----------------------------------------------------------------------------

EXACT = {("float16", "float32"), ("float16", "float64"), ("float32", "float64")}
EXACT |= {("bfloat16", "float32"), ("bfloat16", "float64")}


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_casts(stored: str, wanted: str, tmp_path: Path) -> None:
    """Bits are NumPy's own; a narrowing is declared, recorded and survives; others stay."""
    name = "seed95" if stored == "float32" else stored
    source, out = LATEST_DIR / f"{name}.keras", tmp_path / "cast.safetensors"
    result = lc.convert(source, out, dtype=wanted)
    is_exact = stored == wanted or (stored, wanted) in EXACT
    losses = [] if is_exact else [f"lstm: weights rounded from {stored} to {wanted}, as asked"]
    assert list(result.losses) == losses
    model, original = lc.load(out), tools.model(source)
    assert list(model.losses) == losses
    for found, old in zip(numbers(model), numbers(original), strict=True):
        assert same_bits(found, old.astype(dtype_of(wanted)))
    for path, tensor in original.other.items():
        assert same_bits(model.other[path].read(), tensor.read())
    layer = model["lstm"]
    assert (layer.options.policy, layer.cell.options.policy) == (wanted, wanted)
    if wanted != "bfloat16":
        lc.convert(out, tmp_path / "cast.keras", lstm_only=True)
        (live,) = keras.models.load_model(tmp_path / "cast.keras").layers
        assert live.dtype_policy.name == wanted
        for one, two in zip(live.weights, tools.weights_of(originals(source)[0][1]), strict=True):
            assert same_bits(np.asarray(one), two.astype(wanted))


def test_a_cast_that_overflows_is_infinity(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2, scale=1e5))
    model = lc.Model(layers=(layer,), source=tools.model(LATEST_DIR / "seed95.keras").source)
    (found,) = cast(model, "float16").layers
    kernel = found.forget_gate.kernel
    with np.errstate(over="ignore"):
        assert same_bits(kernel, layer.forget_gate.kernel.astype("f2"))
    assert np.isinf(kernel).any()


@pytest.mark.parametrize("path", ARCHIVES, ids=name_of)
def test_an_archive_keeps_its_era_by_way_of_gates(path: Path, tmp_path: Path) -> None:
    gates, back = tmp_path / "gates.safetensors", tmp_path / "back.keras"
    lc.convert(path, gates, warn=False)
    assert lc.convert(gates, back, warn=False).whole_model
    assert lc.diff(path, back)
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(back) as after:
        assert before.read("config.json") == after.read("config.json")
