"""Files of Keras 2 and tf_keras, with tf_keras as the oracle, and on to Keras 3.

tf_keras and Keras 3 live in one process here, on one TensorFlow: outputs are compared bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import keras_tools as tools
from support.keras_tools import FIXTURES, name_of
from support.neutral import make_cell, make_layer
from support.thinned import ALL

import lstmconvert as lc
from lstmconvert.errors import UnknownOption, UnsupportedByTarget
from lstmconvert.keras.configs.nodes import input_shape
from lstmconvert.live.keras import live_cells
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3, KERAS3
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import same_bits

pytestmark = pytest.mark.engines

keras = pytest.importorskip("keras")
tf_keras = pytest.importorskip("tf_keras")
L = tf_keras.layers

#: Much like a neighbour. Other tests read all of them, and compare their numbers.
LIKE_OTHERS = ("keras-2.1.6/*", "keras-2.3.1/*", "tf-2.1[234].1/*")
QUICK_ZOO = "tf-2.15.1/zoo.keras"


def case(path: Path) -> Any:
    name = name_of(path)
    is_slow = "zoo" in name and name != QUICK_ZOO
    return pytest.param(path, id=name, marks=pytest.mark.slow if is_slow else ())


KERAS2 = [p for p in tools.fused() if not tools.is_keras3(p) and tools.is_whole(p)]
KERAS2 = [p for p in KERAS2 if ALL or not any(fnmatch(name_of(p), x) for x in LIKE_OTHERS)]
LOADED = [p for p in KERAS2 if tools.why_not(tools.NOT_LOADED, p) is None]


def pairs(path: Path) -> list[tuple[LSTMLayer, Any]]:
    """Return each LSTM layer as we read it, and as tf_keras loads it."""
    found = dict(tools.live_layers(tools.loaded(path)))
    return [(layer, found[name]) for name, layer in tools.model(path).items()]


def call(layer: Any, x: Any) -> list[Any]:
    """Call a layer, computing as Keras 3 does.

    Old configs ask tf_keras for `implementation=1`, which multiplies gate by gate, and rounds
    otherwise. No file of Keras 3 has a place for it.
    """
    cells = [cell for cell in live_cells(layer) if hasattr(cell, "implementation")]
    kept = [cell.implementation for cell in cells]
    for cell in cells:
        cell.implementation = 2
    try:
        return tools.call(layer, [x])
    finally:
        for cell, implementation in zip(cells, kept, strict=True):
            cell.implementation = implementation


def can_build(layer: LSTMLayer) -> bool:
    """Whether the file says the size that Keras builds the layer for."""
    try:
        input_shape(layer)
    except UnknownOption:
        assert layer.class_name == "ConvLSTM2D"
        return False
    return True


def sample(layer: LSTMLayer, seed: int = 0) -> Any:
    shape = [size or other for size, other in zip(input_shape(layer), (3, *[4] * 5), strict=False)]
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


@pytest.mark.parametrize("path", [*map(case, LOADED)])
def test_tf_keras_layers_are_the_originals(path: Path) -> None:
    """Weights, options and outputs of the layer that we rebuild in tf_keras."""
    for layer, original in pairs(path):
        for one, two in zip(all_arrays(layer), original.get_weights(), strict=True):
            assert same_bits(one, two)
        if not can_build(layer):
            continue
        live = lc.to_keras(layer, library="tf_keras")
        assert type(live).__module__.startswith("tf_keras")
        assert type(live).__name__ == type(original).__name__
        assert options_of(live) == options_of(original)
        for one, two in zip(live.get_weights(), original.get_weights(), strict=True):
            assert same_bits(one, two)
        assert_same_layer(lc.from_keras(live), layer)
        if tools.is_new(original, "tf_keras"):
            x = sample(layer)
            tools.assert_same_outputs(tools.call(live, [x]), tools.call(original, [x]))


def all_arrays(layer: LSTMLayer) -> list[Any]:
    return [c.fused(p).read() for _, _, c in layer.cells() for p in c.gate_parts]


#: A half's name is given by tf_keras, and what a layer was built with is not an option.
NOT_OPTIONS = {"name", "batch_input_shape", "build_config", "shared_object_id"}


def options_of(layer: Any) -> Any:
    return plain(tools.as_json(layer.get_config()))


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        if "merge_mode" in value:
            value = {"backward_layer": mirrored(value["layer"])} | value
            for half in (value["layer"], value["backward_layer"]):
                half["config"].pop("zero_output_for_mask", None)  # what it decides itself
        return {k: plain(v) for k, v in value.items() if k not in NOT_OPTIONS}
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_what_a_bidirectional_decides() -> None:
    """Masked steps of its halves give zeros if sequences are returned, whatever the config says."""
    layer, original = next(
        pair for pair in pairs(FIXTURES / "tf-2.15.1" / "zoo.keras") if pair[0].name == "both"
    )
    assert original.forward_layer.zero_output_for_mask is True
    assert layer.forward.options.zero_output_for_mask is True
    x, mask = sample(layer), np.arange(4) < np.array([[4], [2], [1]])
    for library in ("keras", "tf_keras"):
        live = lc.to_keras(layer, library=library)
        one, two = (tools.call(layer, [x], mask=mask) for layer in (live, original))
        tools.assert_same_outputs(one, two)


def mirrored(half: Any) -> Any:
    """Return the other half that a Bidirectional makes if it is given none."""
    config = half["config"]
    return half | {"config": config | {"go_backwards": not config["go_backwards"]}}


def assert_same_layer(found: Any, wanted: LSTMLayer) -> None:
    assert isinstance(found, LSTMLayer)
    for (_, _, one), (_, _, two) in zip(found.cells(), wanted.cells(), strict=True):
        assert one.options == replace(two.options, policy=one.options.policy)
        for (name, a), (other, b) in zip(one.tensors(), two.tensors(), strict=True):
            assert name == other
            assert same_bits(a.read(), b.read())


@pytest.mark.parametrize("path", [*map(case, LOADED)])
def test_keras_3_computes_what_keras_2_did(path: Path) -> None:
    """The layer rebuilt in Keras 3 gives tf_keras's float32 outputs bit for bit, hard_sigmoid and
    all."""
    for layer, original in pairs(path):
        if not can_build(layer):
            continue
        live = lc.to_keras(layer)
        assert type(live).__module__.startswith("keras.")
        for one, two in zip(tools.weights_of(live), original.get_weights(), strict=True):
            assert same_bits(one, two)
        assert_same_layer(lc.from_keras(live), layer)
        if tools.is_new(original, "keras"):
            x = sample(layer)
            tools.assert_same_outputs(call(live, x), call(original, x))


WHOLE = [p for p in LOADED if p.suffix == ".h5"]


@pytest.mark.parametrize("path", [*map(case, WHOLE)])
def test_whole_models_of_keras_2_come_back(path: Path, tmp_path: Path) -> None:
    """Per gate and back to `.h5`: tf_keras loads the same model from it, and its outputs are those
    of the old Keras, on another TensorFlow: to rounding."""
    lc.convert(path, tmp_path / "g.safetensors")
    result = lc.convert(tmp_path / "g.safetensors", tmp_path / "back.h5")
    assert result.whole_model
    again = tf_keras.models.load_model(tmp_path / "back.h5", compile=False)
    original = tools.loaded(path)
    config, wanted = options_of(again), options_of(original)
    assert config == wanted
    for one, two in zip(again.get_weights(), original.get_weights(), strict=True):
        assert same_bits(one, two)
    found = tools.call(again, tools.inputs_of(path))
    for one, two in zip(found, tools.outputs_of(path), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["seed95.weights-only.h5", "seed95.weights.h5"])
@pytest.mark.parametrize("folder", ["tf_keras-2.21.0", "tf-2.15.1", "tf-2.12.1"])
def test_tf_keras_loads_our_weights(folder: str, name: str, tmp_path: Path) -> None:
    """Weights alone, per gate and back, into a model with other weights."""
    source = FIXTURES / folder / name
    lc.convert(source, tmp_path / "g.safetensors")
    back = tmp_path / ("back.weights.h5" if name.endswith("95.weights.h5") else "back.h5")
    lc.convert(tmp_path / "g.safetensors", back)
    tools.assert_same_arrays(tools.stored(back), tools.stored(source))
    if folder != "tf_keras-2.21.0":
        return  # tf_keras looks for the variables of older stores under other names
    original = tools.loaded(FIXTURES / folder / "seed95.h5")
    model = tf_keras.models.clone_model(original)
    model.load_weights(back)
    for one, two in zip(model.get_weights(), original.get_weights(), strict=True):
        assert same_bits(one, two)


def test_a_stack_with_other_cells_is_found_without_a_config(tmp_path: Path) -> None:
    """An unlike stack in a weights file: which cell is which is told by the shapes alone."""
    cells = [L.LSTMCell(4), L.GRUCell(3), L.SimpleRNNCell(6), L.LSTMCell(5)]
    model = tf_keras.Sequential([L.Input((7, 2)), L.RNN(cells, name="stack")])
    model.save_weights(tmp_path / "w.h5")
    (layer,) = lc.load(tmp_path / "w.h5").layers
    found = {index: cell for _, index, cell in layer.cells()}
    assert layer.name == "stack"
    assert len(layer.forward.cells) == len(cells)
    assert set(found) == {0, 3}
    for index, cell in found.items():
        units = cells[index].units
        whole = cells[index].kernel.numpy()
        assert same_bits(np.asarray(cell.forget_gate.kernel), whole[:, units : 2 * units])


FILES = [p for p in LOADED if p.name.startswith(("zoo", "seed95", "sequential", "both_unlike"))]


@pytest.mark.parametrize("path", [*map(case, FILES)])
def test_files_of_keras_2_become_files_of_keras_3(path: Path, tmp_path: Path) -> None:
    """The LSTM layers of an old file, in a `.keras` that Keras 3 loads without any of our code."""
    lc.convert(path, tmp_path / "g.safetensors", lstm_only=True)
    result = lc.convert(tmp_path / "g.safetensors", tmp_path / "new.keras")
    assert not result.whole_model
    assert result.losses == ()
    model = keras.models.load_model(tmp_path / "new.keras")
    live = [layer for layer in model.layers if layer.weights]
    for layer, (neutral, original) in zip(live, pairs(path), strict=True):
        assert type(layer).__module__.startswith("keras.")
        if tools.is_new(original, "file"):
            x = sample(neutral)
            tools.assert_same_outputs(call(layer, x), call(original, x))
    again = lc.load(tmp_path / "new.keras")
    for new, old in zip(again.layers, tools.model(path).layers, strict=True):
        for (_, _, one), (_, _, two) in zip(new.cells(), old.cells(), strict=True):
            assert one.options.recurrent_activation == two.options.recurrent_activation
            assert one.options.activation == two.options.activation


# ---- hard_sigmoid ------------------------------------------------------------------------------

HARD = {"recurrent_activation": "hard_sigmoid", "return_sequences": True}


def hard_layers() -> dict[str, Any]:
    """tf_keras layers of each kind with hard_sigmoid."""
    cells = [L.LSTMCell(2, recurrent_activation="hard_sigmoid"), L.LSTMCell(3)]
    return {
        "LSTM": L.LSTM(3, **HARD),
        "both": L.Bidirectional(L.LSTM(3, **HARD)),
        "RNN": L.RNN(L.LSTMCell(3, recurrent_activation="hard_sigmoid"), return_sequences=True),
        "stack": L.RNN(cells, return_sequences=True),
        "ConvLSTM1D": L.ConvLSTM1D(2, 3, **HARD),
        "ConvLSTM2D": L.ConvLSTM2D(2, 2, **HARD),
        "activation": L.LSTM(3, activation="hard_sigmoid", return_state=True),
        "no bias": L.LSTM(3, use_bias=False, **HARD),
        "float64": L.LSTM(3, dtype="float64", **HARD),
    }


@pytest.mark.parametrize("kind", hard_layers())
def test_hard_sigmoid_goes_to_keras_3_unchanged(kind: str, tmp_path: Path) -> None:
    """By composition: float32 outputs are tf_keras's bit for bit, and it is read back."""
    original = hard_layers()[kind]
    images = {"ConvLSTM1D": (6,), "ConvLSTM2D": (5, 6)}
    shape = (None, 4, *images.get(kind, ()), 3)
    original.build(shape)
    rng = np.random.default_rng(3)
    original.set_weights([rng.normal(size=w.shape) for w in original.get_weights()])
    layer = lc.from_keras(original)
    assert isinstance(layer, LSTMLayer)
    live = lc.to_keras(layer)
    dtype = "f8" if kind == "float64" else "f4"
    x = rng.normal(size=(3, *shape[1:])).astype(dtype)
    (one, *_), (two, *_) = call(live, x), call(original, x)
    if kind == "float64":  # whose 0.2 tf_keras rounds to float32: 3e-9 more
        np.testing.assert_allclose(one, two, rtol=0, atol=2e-8)
    else:
        assert same_bits(one, two)
    back = lc.from_keras(live)
    assert isinstance(back, LSTMLayer)
    for (_, _, new), (_, _, old) in zip(back.cells(), layer.cells(), strict=True):
        assert new.options.recurrent_activation == old.options.recurrent_activation
        assert new.options.activation == old.options.activation
    assert HARD_SIGMOID_KERAS2 in {
        getattr(cell.options, name)
        for _, _, cell in back.cells()
        for name in ("activation", "recurrent_activation")
    }


def test_hard_sigmoid_of_keras_3_is_refused_by_tf_keras() -> None:
    """tf_keras has one hard_sigmoid, and it is the other one."""
    original = keras.layers.LSTM(2, recurrent_activation="hard_sigmoid")
    original.build((None, None, 3))
    layer = lc.from_keras(original)
    assert isinstance(layer, LSTMLayer)
    assert layer.cell.options.recurrent_activation == HARD_SIGMOID_KERAS3
    with pytest.raises(UnsupportedByTarget, match="tf_keras has no recurrent_activation"):
        lc.to_keras(layer, library="tf_keras")


NAMES = ("linear", "sigmoid", "tanh", "relu", "elu", "selu", "gelu", "softplus", "softsign")
NAMES += ("exponential", "swish", "mish", "softmax", "hard_sigmoid", "leaky_relu")


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_of_tf_keras(name: str) -> None:
    original = L.LSTM(2, activation=name, recurrent_activation=name)
    original.build((None, None, 3))
    layer = lc.from_keras(original)
    live = lc.to_keras(layer, library="tf_keras")
    assert live.get_config()["activation"] == original.get_config()["activation"]
    x = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("f4")
    tools.assert_same_outputs(call(live, x), call(original, x))


@pytest.mark.parametrize("name", ["celu", "hard_tanh", "sparsemax"])
def test_activations_that_tf_keras_lacks(name: str) -> None:
    cell = make_cell(np.random.default_rng(0), 3, 2, activation=KERAS3[name])
    with pytest.raises(UnsupportedByTarget, match="tf_keras has no activation"):
        lc.to_keras(make_layer(cell), library="tf_keras")


OPTIONS: list[dict[str, Any]] = [
    {"kernel_initializer": tf_keras.initializers.VarianceScaling(2.0, "fan_out", "uniform", 3)},
    {"recurrent_initializer": "identity", "bias_initializer": "ones", "unit_forget_bias": False},
    {"kernel_regularizer": "l2", "bias_regularizer": tf_keras.regularizers.L1L2(0.1, 0.2)},
    {"activity_regularizer": "l1", "kernel_constraint": tf_keras.constraints.MaxNorm(2, axis=0)},
    {"recurrent_constraint": "unit_norm", "bias_constraint": "non_neg"},
    {"dropout": 0.25, "recurrent_dropout": 0.5, "trainable": False},
    {"unroll": True, "return_sequences": True, "return_state": True},
    {"go_backwards": True, "use_bias": False},
    {"zero_output_for_mask": True, "return_sequences": True},
    {"dtype": "float64"},
    {"dtype": "mixed_float16"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_every_option_of_tf_keras(options: dict[str, Any]) -> None:
    original = L.LSTM(3, **options)
    original.build((None, 4, 3))
    live = lc.to_keras(lc.from_keras(original), library="tf_keras")
    assert options_of(live) == options_of(original)
    for one, two in zip(live.get_weights(), original.get_weights(), strict=True):
        assert same_bits(one, two)
    x = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("f4")
    mask = np.arange(4) < np.array([[4], [2], [1]])
    for given in ({}, {"mask": mask}):
        one, two = (tools.call(layer, [x], **given) for layer in (live, original))
        tools.assert_same_outputs(one, two)


def test_what_keras_3_leaves_unsaid_is_said_where_tf_keras_has_another_default() -> None:
    """The recurrent_activation of a ConvLSTM, which takes no seed there either."""
    x = np.random.default_rng(2).normal(size=(2, 4, 6, 3)).astype("f4")
    layer = keras.layers.ConvLSTM1D(2, 1, dropout=0.1, seed=3)
    layer(x)
    layer.set_weights([np.full(v.shape, 0.6) for v in layer.get_weights()[:3]])
    found = lc.to_keras(lc.from_keras(layer), library="tf_keras")
    np.testing.assert_allclose(np.asarray(found(x)), np.asarray(layer(x)), rtol=0, atol=1e-6)


def test_keras_3_into_tf_keras() -> None:
    """A Keras 3 layer rebuilt in tf_keras gives Keras 3's outputs."""
    for path in tools.fixtures("keras-3.15.1/rnn_stack.keras", "keras-3.15.1/both_sum.keras"):
        (layer,) = tools.model(path).layers
        (original,) = [x for x in tools.loaded(path).layers if x.weights]
        live = lc.to_keras(layer, library="tf_keras")
        x = sample(layer)
        tools.assert_same_outputs(call(live, x), call(original, x))


@pytest.mark.parametrize("name", ["sequential.h5", pytest.param("zoo.h5", marks=pytest.mark.slow)])
def test_live_models_of_tf_keras(name: str) -> None:
    path = FIXTURES / "keras-2.3.1" / name
    model = lc.from_keras(tools.loaded(path))
    assert list(model) == list(tools.model(path))
    for name, layer in model.items():
        wanted = all_arrays(tools.model(path)[name])
        assert all(same_bits(a, b) for a, b in zip(all_arrays(layer), wanted, strict=True))
        assert layer.options.merge_mode == tools.model(path)[name].options.merge_mode
    live = lc.to_keras(model, library="tf_keras")
    assert list(live) == list(model)


@pytest.mark.parametrize("config", ["seed95.config.json", "seed95.h5"])
def test_weights_that_are_given_their_config_are_a_whole_model(
    config: str, tmp_path: Path
) -> None:
    folder = FIXTURES / "tf-2.15.1"
    weights, path = folder / "seed95.weights-only.h5", tmp_path / "whole.h5"
    lc.convert(weights, tmp_path / "g.safetensors", config=folder / config)
    assert lc.convert(tmp_path / "g.safetensors", path).whole_model
    found = tf_keras.models.load_model(path, compile=False)
    original = tools.loaded(folder / "seed95.h5")
    assert found.get_config() == original.get_config()
    xs = tools.inputs_of(folder / "seed95.h5")
    tools.assert_same_outputs(tools.call(found, xs), tools.call(original, xs))
