"""Live Keras 3 layers: rebuilt from every fixture, equal in options, weights and outputs; and back.

The oracle is the model as Keras loads it; a rebuilt layer is called as the model's own layer is,
in one process: one engine, the same bits.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import keras_tools as tools
from support.keras_tools import FIXTURES, LATEST, name_of
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.errors import (
    LOSSY_HINT,
    ConversionWarning,
    UnknownOption,
    UnsupportedByTarget,
    UsageError,
)
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, KERAS3, Activation
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, GateWeights, LSTMLayer, OpaqueCell
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import bits, same_bits
from lstmconvert.tensors.tensor import ArrayTensor

pytestmark = pytest.mark.engines

keras = pytest.importorskip("keras")
L = keras.layers

LATEST_DIR = FIXTURES / LATEST
KERAS3_FILES = [
    pytest.param(path, id=name_of(path), marks=pytest.mark.slow if is_slow else ())
    for path in tools.fixtures("keras-3*", loaded=True)
    for is_slow in ["zoo" in path.name and path.parent.name != LATEST]
    if "subclassed" not in path.name
]


def live_pairs(path: Path) -> list[tuple[LSTMLayer, Any]]:
    """Return each LSTM layer of a fixture as we read it, and as Keras loads it."""
    found = dict(tools.live_layers(tools.loaded(path)))
    model = tools.model(path)
    return [(x, found.get(n) or found[n.removesuffix("_")]) for n, x in model.items()]


def sample(layer: Any, dtype: str = "float32", seed: int = 0) -> Any:
    shape = tools.built_shape(layer)
    full = tuple(size or other for size, other in zip(shape, (3, *[4] * 5), strict=False))
    return np.random.default_rng(seed).normal(size=full).astype(dtype)


def serialized(layer: Any) -> Any:
    return tools.as_json(keras.saving.serialize_keras_object(layer)["config"])


def without_shapes(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_shapes(v) for k, v in value.items() if k != "build_config"}
    return [without_shapes(item) for item in value] if isinstance(value, list) else value


def assert_same_weights(one: Any, two: Any) -> None:
    for a, b in zip(one.weights, two.weights, strict=True):
        assert a.path.rpartition("/")[2] == b.path.rpartition("/")[2]
        assert a.trainable == b.trainable
        assert same_bits(np.asarray(a), np.asarray(b)), a.path


@pytest.mark.parametrize("path", KERAS3_FILES)
def test_rebuilt_layers_are_the_originals(path: Path) -> None:
    for layer, original in live_pairs(path):
        live = lc.to_keras(layer)
        assert type(live) is type(original)
        assert live.built
        if path.suffix == ".keras":
            assert serialized(live) == serialized(original)
        assert without_shapes(serialized(live)) == without_shapes(serialized(original))
        assert_same_weights(live, original)
        if tools.is_new(original):
            x = sample(original)
            tools.assert_same_outputs(tools.call(live, [x]), tools.call(original, [x]))


@pytest.mark.parametrize("path", KERAS3_FILES)
def test_live_layers_become_neutral_again(path: Path) -> None:
    """`from_keras(to_keras(layer))` has the layer's tensors and options."""
    for layer, original in live_pairs(path):
        assert_same_layer(lc.from_keras(original), layer)


def assert_same_layer(found: LSTMLayer, wanted: LSTMLayer) -> None:
    assert found.class_name == wanted.class_name
    assert [n for n, _ in found.directions] == [n for n, _ in wanted.directions]
    for (_, one), (_, two) in zip(found.directions, wanted.directions, strict=True):
        assert one.options == two.options
        assert len(one.cells) == len(two.cells)
        for a, b in zip(one.cells, two.cells, strict=True):
            if isinstance(a, OpaqueCell) or isinstance(b, OpaqueCell):
                assert isinstance(a, OpaqueCell)
                assert isinstance(b, OpaqueCell)
                pairs = list(zip(a.tensors, b.tensors, strict=True))
            else:
                assert a.options == b.options
                pairs = [(x, y) for (_, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True)]
            assert all(same_bits(x.read(), y.read()) for x, y in pairs)
    assert found.options.merge_mode == wanted.options.merge_mode


@pytest.mark.parametrize(
    "stem", ["zoo", "nested", "subclassed", "embedding", "both_rnn", "text", "conv_lstm2d"]
)
def test_live_models(stem: str) -> None:
    """A live model is read as its own Keras would write it."""
    path = LATEST_DIR / f"{stem}.keras"
    model = lc.from_keras(tools.loaded(path))
    assert list(model) == list(tools.model(path))
    assert model.container == model.source.container == "live"
    assert model.source.sha256 is None
    for name, layer in model.items():
        assert_same_layer(layer, tools.model(path)[name])
    for name, tensor in tools.model(path).other.items():
        assert same_bits(model.other[name].read(), tensor.read())
    if stem != "subclassed":  # whose config is its own: no option of its layers is known
        assert lc.to_keras(model).keys() == model.keys()


def test_a_live_model_is_saved_like_a_file(tmp_path: Path) -> None:
    path = LATEST_DIR / "zoo.keras"
    lc.save(lc.from_keras(tools.loaded(path)), tmp_path / "live.safetensors")
    lc.convert(tmp_path / "live.safetensors", tmp_path / "live.keras")
    again = keras.models.load_model(tmp_path / "live.keras", compile=False)
    xs = tools.inputs_of(path)
    tools.assert_same_outputs(tools.call(again, xs), tools.call(tools.loaded(path), xs))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "not a live object"),
        (L.LSTM(2), "not built"),
        (keras.Sequential([L.LSTM(2)]), "not built"),
    ],
)
def test_what_is_no_live_lstm(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lc.from_keras(value)


def test_a_live_dense_is_no_lstm() -> None:
    dense = L.Dense(2)
    dense.build((None, 3))
    with pytest.raises(UsageError, match="not an LSTM layer"):
        lc.from_keras(dense)


# ---- called in every way -----------------------------------------------------------------------

CALLED = ("options", "no_bias", "both_unlike", "both_none", "both_last", "rnn_stack", "rnn_cell")


@pytest.mark.parametrize("stem", CALLED)
@pytest.mark.parametrize("mask", ["none", "right", "scattered", "nothing"])
def test_masks(stem: str, mask: str) -> None:
    (layer, original), *_ = live_pairs(LATEST_DIR / f"{stem}.keras")
    live, x = lc.to_keras(layer), sample(original)
    masks = {
        "none": None,
        "right": np.arange(x.shape[1]) < np.array([[4], [2], [1]]),
        "scattered": np.random.default_rng(1).random(x.shape[:2]) < 0.5,
        "nothing": np.zeros(x.shape[:2], bool),
    }
    given = {"mask": masks[mask]}
    tools.assert_same_outputs(tools.call(live, [x], **given), tools.call(original, [x], **given))


@pytest.mark.parametrize("stem", CALLED)
def test_initial_states_and_training(stem: str) -> None:
    (layer, original), *_ = live_pairs(LATEST_DIR / f"{stem}.keras")
    live, x = lc.to_keras(layer), sample(original)
    widths = [c.units for _, d in layer.directions for c in d.lstm_cells]
    rng = np.random.default_rng(2)
    states = [rng.normal(size=(3, width)).astype("f4") for width in widths for _ in "hc"]
    given: Any = states
    if layer.class_name == "RNN" and len(widths) > 1:
        given = [states[i : i + 2] for i in range(0, len(states), 2)]
    for options in ({"initial_state": given}, {"training": False}):
        one, two = (tools.call(a, [x], **options) for a in (live, original))
        tools.assert_same_outputs(one, two)


def test_stateful_layers_carry_their_states() -> None:
    ((layer, original),) = live_pairs(LATEST_DIR / "options.keras")
    live = lc.to_keras(layer)
    tools.reset(live), tools.reset(original)
    calls = []
    for seed in range(3):
        x = sample(original, seed=seed)
        one, two = tools.flat(live(x)), tools.flat(original(x))
        tools.assert_same_outputs(one, two)
        calls.append(one[0])
    tools.reset(live)
    again = tools.flat(live(sample(original, seed=2)))[0]
    assert not same_bits(again, calls[2])  # states mattered


def test_dropout_uses_the_same_seed() -> None:
    """In training, a rebuilt layer draws what the original draws: seed and rates are its own."""
    ((layer, _),) = live_pairs(LATEST_DIR / "options.keras")
    config = tools.config_of(LATEST_DIR / "options.keras")
    (found,) = [o for o in tools.objects(config) if o["class_name"] == "LSTM"]
    fresh = L.LSTM.from_config(found["config"])
    fresh.build(tools.built_shape(lc.to_keras(layer)))
    live = lc.to_keras(layer)
    fresh.set_weights(tools.weights_of(live))
    x = sample(live)
    one, two = (tools.call(a, [x], training=True) for a in (live, fresh))
    tools.assert_same_outputs(one, two)
    assert not same_bits(one[0], tools.call(live, [x], training=False)[0])


# ---- options of all kinds ----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(KERAS3) - {"swish", "hard_swish"}))
def test_every_activation_of_keras(name: str) -> None:
    """Each name, in both roles: config and outputs of the rebuilt layer are the original's."""
    original = L.LSTM(2, activation=name, recurrent_activation=name)
    original.build((None, None, 3))
    layer = lc.from_keras(original)
    assert isinstance(layer, LSTMLayer)
    assert layer.cell.options.activation == KERAS3[name]
    live = lc.to_keras(layer)
    assert serialized(live)["activation"] == name
    x = sample(original)
    tools.assert_same_outputs(tools.call(live, [x]), tools.call(original, [x]))


OBJECTS: list[dict[str, Any]] = [
    {"kernel_initializer": keras.initializers.VarianceScaling(2.0, "fan_out", "uniform", seed=3)},
    {"kernel_initializer": "he_normal", "recurrent_initializer": "identity"},
    {"bias_initializer": "ones", "unit_forget_bias": False},
    {"kernel_initializer": keras.initializers.TruncatedNormal(0.0, 0.3, seed=1)},
    {"recurrent_initializer": keras.initializers.RandomNormal(0.5, 0.3)},
    {"kernel_initializer": "lecun_uniform", "recurrent_initializer": "zeros"},
    {"kernel_regularizer": "l1", "bias_regularizer": keras.regularizers.L1L2(0.1, 0.2)},
    {"recurrent_regularizer": keras.regularizers.OrthogonalRegularizer(0.1, "columns")},
    {"activity_regularizer": keras.regularizers.L2(0.5)},
    {"kernel_constraint": keras.constraints.MinMaxNorm(0.1, 2.0, 0.5, axis=0)},
    {"bias_constraint": "non_neg", "recurrent_constraint": keras.constraints.MaxNorm(3)},
    {"dtype": "float64"},
    {"dtype": "mixed_float16"},
    {"dtype": "mixed_bfloat16"},
    {"activation": L.LeakyReLU(negative_slope=0.125)},
    {"activation": L.ELU(alpha=0.5), "recurrent_activation": L.ReLU(max_value=2.0)},
    {"trainable": False, "name": "frozen"},
    {"seed": 12, "dropout": 0.25, "recurrent_dropout": 0.5},
    {"unroll": True, "return_sequences": True},
    {"use_bias": False, "go_backwards": True, "return_state": True},
]


@pytest.mark.parametrize("options", OBJECTS, ids=lambda o: "-".join(o))
@pytest.mark.parametrize("both", [False, True], ids=["LSTM", "Bidirectional"])
def test_every_option(options: dict[str, Any], both: bool) -> None:
    """The rebuilt layer has the original's config, initializers and weights included."""
    original = L.LSTM(3, **options)
    if both:
        other = L.LSTM(3, **options | {"go_backwards": not original.go_backwards, "name": "other"})
        original = L.Bidirectional(original, merge_mode="sum", backward_layer=other)
    original.build((None, 4, 3))
    live = lc.to_keras(lc.from_keras(original))
    config, wanted = serialized(live), serialized(original)
    assert alike(config, options) == alike(wanted, options)
    assert_same_weights(live, original)
    x = sample(original)
    tools.assert_same_outputs(tools.call(live, [x]), tools.call(original, [x]))


def alike(config: Any, options: dict[str, Any]) -> Any:
    """Leave out the automatic names of activation layers, and what they have by default."""
    if isinstance(config, dict):
        if config.get("class_name") in ("LeakyReLU", "ELU", "ReLU"):
            kept = ("negative_slope", "alpha", "max_value")
            return config["class_name"], [config["config"].get(key) for key in kept]
        return {key: alike(item, options) for key, item in config.items()}
    return [alike(item, options) for item in config] if isinstance(config, list) else config


def scaled_tanh(x: Any) -> Any:
    """A user's own activation."""
    return 2.0 * keras.ops.tanh(x)


class Sevens(keras.initializers.Initializer):
    """A user's own initializer, with a setting."""

    def __init__(self, value: float = 7.0) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
        return self.value * keras.ops.ones(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


class Half(keras.constraints.Constraint):
    """A user's own constraint."""

    def __call__(self, w: Any) -> Any:
        return 0.5 * w


class Cubic(keras.regularizers.Regularizer):
    """A user's own regularizer."""

    def __call__(self, x: Any) -> Any:
        return keras.ops.sum(x * x * x)

    def get_config(self) -> dict[str, Any]:
        return {}


CUSTOM = [
    ("activation", scaled_tanh, "scaled_tanh"),
    ("recurrent_activation", scaled_tanh, "scaled_tanh"),
    ("kernel_initializer", Sevens(3.0), "Sevens"),
    ("bias_initializer", Sevens(2.0), "Sevens"),
    ("recurrent_constraint", Half(), "Half"),
    ("kernel_regularizer", Cubic(), "Cubic"),
]


@pytest.mark.parametrize(("option", "value", "name"), CUSTOM, ids=lambda x: str(x)[:20])
def test_custom_objects(option: str, value: Any, name: str) -> None:
    """Refused by name without `custom_objects`, used with it; never imported from anywhere."""
    original = L.LSTM(2, **{option: value})
    original.build((None, None, 3))
    layer = lc.from_keras(original)
    with pytest.raises(UnsupportedByTarget, match=f"custom {option}") as error:
        lc.to_keras(layer)
    assert name in str(error.value.found)
    assert error.value.option == option
    assert "custom_objects" in str(error.value.hint)
    objects = {name: value if callable(value) and not hasattr(value, "get_config") else type(value)}
    if option == "recurrent_constraint":
        objects = {name: Half}
    live = lc.to_keras(layer, custom_objects=objects)
    assert_same_weights(live, original)
    assert type(getattr(live.cell, option)) is type(getattr(original.cell, option))
    if hasattr(value, "value"):
        assert getattr(live.cell, option).value == value.value
    x = sample(original)
    tools.assert_same_outputs(tools.call(live, [x]), tools.call(original, [x]))


@pytest.mark.parametrize("option", ["activation", "recurrent_activation"])
def test_a_custom_function_is_refused_in_a_file(option: str, tmp_path: Path) -> None:
    original = L.LSTM(2, **{option: scaled_tanh})
    original.build((None, None, 3))
    layer = lc.from_keras(original)
    assert isinstance(layer, LSTMLayer)
    model = lc.Model(layers=(layer,), source=tools.model(LATEST_DIR / "zoo.keras").source)
    with pytest.raises(UnsupportedByTarget, match=f"custom {option}"):
        lc.save(model, tmp_path / "x.keras")
    lc.save(model, tmp_path / "x.safetensors")  # it is a name, and kept as one
    again = lc.load(tmp_path / "x.safetensors")[layer.name]
    assert again.cell.options == layer.cell.options


# ---- what Keras lacks --------------------------------------------------------------------------


def some_layer(**options: Any) -> LSTMLayer:
    return make_layer(make_cell(np.random.default_rng(0), 3, 2, **options))


LACKING: list[tuple[str, dict[str, Any]]] = [
    ("peephole", {"gate_parts": ("bias", "peephole")}),
    ("layer_norm", {"gate_parts": ("bias", "layer_norm")}),
    ("projection", {"projected": 1}),
    ("state_norm", {"parts": {"state_norm": (2,)}}),
    ("initial_hidden", {"parts": {"initial_hidden": (2,)}}),
    ("gate_clip", {"gate_clip": 3.0}),
    ("cell_clip", {"cell_clip": 3.0}),
    ("projection_clip", {"projection_clip": 3.0}),
    ("input_forget", {"input_forget": True}),
    ("output_activation", {"output_activation": KERAS3["relu"]}),
    ("activation", {"activation": Activation("scaled_tanh", {"alpha": 1.7, "beta": 0.6})}),
]


@pytest.mark.parametrize(("option", "made"), LACKING, ids=[option for option, _ in LACKING])
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_what_keras_cannot_express(option: str, made: dict[str, Any], library: str) -> None:
    layer = some_layer(**made)
    with pytest.raises(UnsupportedByTarget) as error:
        lc.to_keras(layer, library=library)
    assert (error.value.option, error.value.layer) == (option, "lstm")
    assert error.value.target == ("Keras 3" if library == "keras" else "tf_keras")
    if error.value.hint == LOSSY_HINT:
        with warnings.catch_warnings(record=True) as told:  # TensorFlow's own are none of ours
            warnings.simplefilter("always")
            assert lc.to_keras(layer, library=library, allow_lossy=True).units == 2
        text = f"cannot express {option}"
        assert any(text in str(one.message) and "lost" in str(one.message) for one in told)
    else:
        with pytest.raises(UnsupportedByTarget, match=option):
            lc.to_keras(layer, library=library, allow_lossy=True)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_what_a_file_cannot_express(suffix: str, tmp_path: Path) -> None:
    model = lc.Model(
        layers=(some_layer(gate_parts=("bias", "peephole")),),
        source=tools.model(LATEST_DIR / "zoo.keras").source,
    )
    with pytest.raises(UnsupportedByTarget, match="peephole"):
        lc.save(model, tmp_path / f"x{suffix}")
    assert not list(tmp_path.iterdir())


def test_time_major_is_refused_by_keras_3() -> None:
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2), time_major=True)
    with pytest.raises(UnsupportedByTarget, match="time_major"):
        lc.to_keras(layer)


NEEDED_CELL = ("activation", "recurrent_activation", "forget_bias")
NEEDED = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")


@pytest.mark.parametrize("name", [*NEEDED_CELL, *NEEDED])
def test_an_unknown_option_is_named(name: str) -> None:
    made = {name: UNKNOWN} if name in NEEDED_CELL else {}
    run = {} if made else {name: UNKNOWN}
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2, **made), **run)
    with pytest.raises(UnknownOption) as error:
        lc.to_keras(layer)
    assert error.value.found == f"unknown: {name}"
    assert f"--set {name}=" in str(error.value.hint)


def test_unknown_options_are_all_listed() -> None:
    layer = tools.model(LATEST_DIR / "both_concat.weights.h5")["both"]
    with pytest.raises(UnknownOption) as error:
        lc.to_keras(layer)
    named = str(error.value.found).removeprefix("unknown: ").split(", ")
    assert set(named) == {*NEEDED, *NEEDED_CELL[:2], "merge_mode"}


@pytest.mark.parametrize("option", ["stateful", "unroll"])
def test_a_layer_built_for_one_size_needs_it(option: str) -> None:
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2), **{option: True})
    with pytest.raises(UnknownOption, match="builds such a layer for one"):
        lc.to_keras(layer)


def test_a_convolution_needs_its_size() -> None:
    layer = tools.model(FIXTURES / "keras-2.2.4" / "conv_lstm.h5")["conv"]
    layer = replace(layer, input_shape=None)
    with pytest.raises(UnknownOption, match="image size"):
        lc.to_keras(layer)


# ---- two biases, forget bias -------------------------------------------------------------------


def declared(layer: LSTMLayer, **options: Any) -> tuple[Any, list[str]]:
    """Return the rebuilt layer, and the losses that were declared as warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        live = lc.to_keras(layer, **options)
    return live, [str(w.message) for w in caught if w.category is ConversionWarning]


def with_biases(first: Any, second: Any, **options: Any) -> LSTMLayer:
    cell = make_cell(np.random.default_rng(0), 3, 2, **options)
    gates = {
        gate: GateWeights(
            gate,
            {
                **weights.tensors,
                "bias": ArrayTensor(np.asarray(first, "f4")),
                "recurrent_bias": ArrayTensor(np.asarray(second, "f4")),
            },
        )
        for gate, weights in cell.gates.items()
    }
    return make_layer(Cell(gates=gates, options=cell.options))


def test_two_biases_are_summed_and_declared() -> None:
    first, second = np.array([1.0, 1e-8], "f4"), np.array([1e-8, 3.0], "f4")
    live, (loss,) = declared(with_biases(first, second))
    assert "one bias: bias and recurrent_bias are summed" in loss
    assert same_bits(np.asarray(live.cell.bias), np.tile(first + second, 4))


def test_a_second_bias_of_zeros_is_no_loss() -> None:
    """+0.0 adds nothing, and -0.0 in the first bias survives."""
    first = np.array([-0.0, 1.0], "f4")
    live, losses = declared(with_biases(first, np.zeros(2)))
    assert losses == []
    assert same_bits(np.asarray(live.cell.bias), np.tile(first, 4))
    assert np.signbit(np.asarray(live.cell.bias)[::2]).all()


def test_a_second_bias_of_minus_zero_counts() -> None:
    live, losses = declared(with_biases(np.zeros(2), np.full(2, -0.0)))
    assert len(losses) == 1
    assert not bits(np.asarray(live.cell.bias)).any()


def test_forget_bias_is_folded_and_declared() -> None:
    layer = some_layer(forget_bias=1.5)
    live, (loss,) = declared(layer)
    assert "no run-time forget bias: 1.5 is added" in loss
    bias = np.asarray(live.cell.bias).reshape(4, 2)
    for row, gate in zip(bias, layer.cell.gates, strict=True):
        stored = layer.cell.gates[gate].bias
        wanted = stored + np.float32(1.5) if gate is Gate.FORGET else stored
        assert same_bits(row, wanted)


def test_forget_bias_without_a_bias() -> None:
    live, (loss,) = declared(some_layer(forget_bias=1.0, gate_parts=()))
    assert "run-time forget bias" in loss
    assert np.asarray(live.cell.bias).tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_losses_reach_the_file(tmp_path: Path) -> None:
    model = lc.Model(
        layers=(replace(with_biases([1, 2], [3, 4]), name="two"), some_layer(forget_bias=1.0)),
        source=tools.model(LATEST_DIR / "zoo.keras").source,
    )
    lc.save(model, tmp_path / "g.safetensors")
    again = lc.load(tmp_path / "g.safetensors")
    assert again.losses == ()
    result = lc.convert(tmp_path / "g.safetensors", tmp_path / "k.keras")
    assert len(result.losses) == 2
    assert set(result.losses) <= set(result.warnings)


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    """Their tensors would have one name, and one layer would be lost."""
    source = tools.model(LATEST_DIR / "zoo.keras").source
    model = lc.Model(layers=(some_layer(), some_layer(forget_bias=1.0)), source=source)
    with pytest.raises(UsageError, match="two layers of one name"):
        lc.save(model, tmp_path / "g.safetensors")
    assert not list(tmp_path.iterdir())


# ---- Keras 2's hard_sigmoid in Keras 3 ---------------------------------------------------------


def test_the_composition_is_read_back_as_keras_2s() -> None:
    layer = some_layer(recurrent_activation=HARD_SIGMOID_KERAS2)
    live = lc.to_keras(layer)
    x = np.linspace(-4, 4, 41, dtype="f4")
    wanted = np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1)
    assert same_bits(np.asarray(live.cell.recurrent_activation(x)), wanted)
    back = lc.from_keras(live)
    assert isinstance(back, LSTMLayer)
    assert back.cell.options.recurrent_activation == HARD_SIGMOID_KERAS2


def test_the_composition_in_both_roles_and_directions() -> None:
    rng = np.random.default_rng(0)
    hard = {"activation": HARD_SIGMOID_KERAS2, "recurrent_activation": HARD_SIGMOID_KERAS2}
    layer = make_layer(make_cell(rng, 3, 2, **hard), make_cell(rng, 3, 2, **hard))
    live = lc.to_keras(layer)
    back = lc.from_keras(live)
    assert isinstance(back, LSTMLayer)
    for _, _, cell in back.cells():
        assert cell.options.activation == cell.options.recurrent_activation == HARD_SIGMOID_KERAS2


def test_rescaled_weights_are_declared_and_close() -> None:
    layer = some_layer(recurrent_activation=HARD_SIGMOID_KERAS2)
    rescaled, (loss,) = declared(layer, rescale_hard_sigmoid=True)
    assert "times 1.2, rounded" in loss
    assert serialized(rescaled)["recurrent_activation"] == "hard_sigmoid"
    exact = lc.to_keras(layer)
    x = sample(exact)
    (one,), (two,) = tools.call(rescaled, [x]), tools.call(exact, [x])
    assert not same_bits(one, two)
    np.testing.assert_allclose(one, two, rtol=0, atol=4e-7)  # rounding of the products, 4 steps
    kernel = np.asarray(rescaled.cell.kernel).reshape(3, 4, 2)
    cell_gate = layer.cell_gate.kernel
    assert same_bits(np.ascontiguousarray(kernel[:, 2]), cell_gate)
    assert not np.array_equal(kernel[:, 1], layer.forget_gate.kernel)


def test_rescaling_in_a_file(tmp_path: Path) -> None:
    source = FIXTURES / "keras-2.2.4" / "seed95.h5"
    result = lc.convert(source, tmp_path / "r.keras", rescale_hard_sigmoid=True)
    (loss,) = result.losses
    assert "rounded" in loss
    live = keras.models.load_model(tmp_path / "r.keras").get_layer("lstm")
    assert serialized(live)["recurrent_activation"] == "hard_sigmoid"
    exact = lc.to_keras(tools.model(source)["lstm"])
    x = tools.inputs_of(source)
    np.testing.assert_allclose(
        tools.call(live, x)[0], tools.call(exact, x)[0], rtol=0, atol=4e-7
    )


# ---- another backend ---------------------------------------------------------------------------

TORCH = """
import sys
from pathlib import Path
import numpy as np
import keras
import lstmconvert as lc
from lstmconvert.tensors.dtypes import same_bits

assert keras.backend.backend() == "torch"
root = Path(sys.argv[1])
for stem in ("seed95", "both_unlike", "rnn_stack", "bfloat16", "options", "conv_lstm2d"):
    path = root / f"{stem}.keras"
    model = lc.load(path)
    for name, layer in model.items():
        live = lc.to_keras(layer)
        back = lc.from_keras(live)
        for (_, _, a), (_, _, b) in zip(layer.cells(), back.cells(), strict=True):
            assert a.options == b.options
            for (key, x), (other, y) in zip(a.tensors(), b.tensors(), strict=True):
                assert key == other and same_bits(x.read(), y.read()), (stem, key)
    if stem in ("seed95", "both_unlike", "bfloat16"):
        whole = keras.models.load_model(path, compile=False)
        own = [x for x in whole.layers if type(x).__name__ in ("LSTM", "Bidirectional")]
        (original,) = own
        live = lc.to_keras(next(iter(model.values())))
        x = np.random.default_rng(0).normal(size=(3, 4, layer.input_dim)).astype("f4")
        one, two = (keras.ops.convert_to_numpy(a(x)) for a in (live, original))
        assert same_bits(one, two), stem
print("done")
"""


@pytest.mark.slow
def test_on_pytorch() -> None:
    """The same layers on Keras's PyTorch backend, in a process of its own."""
    pytest.importorskip("torch")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(tools.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TORCH, str(LATEST_DIR)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "done"
