"""What goes into an ONNX file comes back out of it: every bit and option, with and without names.

Also the writer itself: the same bytes each time, opsets, data beside the model, what is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.keras_tools import (
    FIXTURES,
    LATEST,
    assert_same_arrays,
    config_text,
    fixtures,
    name_of,
    stored,
)
from support.neutral import make_cell, make_layer
from support.onnx_tools import difference, model_of, run, write
from support.thinned import turns

import lstmconvert as lc
from lstmconvert.errors import (
    DestinationError,
    UnknownOption,
    UnsupportedByTarget,
    UsageError,
)
from lstmconvert.model import naming
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3, Activation
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model
from lstmconvert.model.options import UNKNOWN
from lstmconvert.onnx import messages
from lstmconvert.onnx import write as onnx_write
from lstmconvert.reference import run as reference
from lstmconvert.tensors.dtypes import same_bits

BOUND = 2e-6
#: Fixtures that the operator cannot express (ConvLSTM, GRU halves, activations of its own), or
#: whose config is code.
REFUSED = (
    *("conv_lstm", "both_gru", "rnn_stack_gru", "custom", "subclassed"),
    *("zoo.", "text.", "options.", "square."),
)


def assert_same_layers(one: Model, two: Model) -> None:
    assert list(one) == list(two)
    for left, right in zip(one.layers, two.layers, strict=True):
        assert (left.class_name, left.options, left.config) == (
            right.class_name, right.options, right.config
        )
        for (_, a), (_, b) in zip(left.directions, right.directions, strict=True):
            assert a.options == b.options
            assert [c.options for c in a.lstm_cells] == [c.options for c in b.lstm_cells]
        found = dict(naming.tensors(right))
        for name, tensor in naming.tensors(left):
            assert same_bits(tensor.read(), found.pop(name).read()), name
        assert not found


def expressible() -> Iterator[Path]:
    for path in fixtures():
        if path.name.endswith((".keras", ".h5")) and ".weights" not in path.name:
            yield path


@pytest.mark.parametrize(
    ("source", "fused"),
    turns(expressible(), (False, True)),
    ids=lambda value: name_of(value) if isinstance(value, Path) else f"fused={value}",
)
def test_every_fixture_that_can_be_expressed(source: Path, fused: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    try:
        lc.convert(source, path, fused=fused)
    except (UnsupportedByTarget, UnknownOption):
        assert any(part in source.name for part in REFUSED) or "keras-1" in str(source)
        return
    onnx.checker.check_model(str(path), full_check=True)
    before, after = lc.load(source), lc.load(path)
    assert_same_layers(before, after)
    assert after.source.sha256 == before.source.sha256
    assert after.texts == before.texts
    assert (after.container, after.layout) == ("onnx", "gates")


def test_enough_fixtures_can_be_expressed() -> None:
    kept = [path for path in expressible() if not any(part in path.name for part in REFUSED)]
    assert len(kept) > 40


@pytest.mark.parametrize(
    "name", ["seed95.keras", "both_concat.keras", "several.keras", "fitted.h5"]
)
def test_with_other_the_whole_keras_file_comes_back(name: str, tmp_path: Path) -> None:
    source = FIXTURES / LATEST / name
    target = tmp_path / f"back{source.suffix}"
    lc.convert(source, tmp_path / "model.onnx", with_other=True, with_optimizer=True)
    assert lc.convert(tmp_path / "model.onnx", target, with_optimizer=True).whole_model
    assert lc.diff(source, target)
    assert_same_arrays(stored(target), stored(source))
    assert config_text(target) == config_text(source)


def test_without_other_the_layers_alone_come_back(tmp_path: Path) -> None:
    source = FIXTURES / LATEST / "several.keras"
    lc.convert(source, tmp_path / "model.onnx")
    assert not lc.convert(tmp_path / "model.onnx", tmp_path / "back.keras").whole_model


# ---- bits ----------------------------------------------------------------------------------------


def strange(layer: LSTMLayer) -> LSTMLayer:
    """Put what is easily lost into a layer: -0.0, infinity, and NaN with a payload."""
    array = layer.forget_gate.kernel.copy()
    bits = array.reshape(-1).view(f"u{array.itemsize}")
    odd = np.array([-0.0, np.inf, np.nan], array.dtype).view(bits.dtype)
    bits[:3] = odd + np.array([0, 0, 1], bits.dtype)
    return layer.replacing({"forget_gate.kernel": array})


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_every_bit_of_every_type(dtype: str, fused: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = ("bias", "recurrent_bias", "peephole")
    layer = strange(make_layer(make_cell(rng, 3, 2, dtype=dtype, gate_parts=parts)))
    model = model_of(layer)
    result = lc.save(model, tmp_path / "model.onnx", fused=fused)
    assert bool(result.warnings) == (dtype in ("float64", "bfloat16"))
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert_same_layers(model, lc.load(tmp_path / "model.onnx"))


def test_the_initializers_have_the_names_of_the_safetensors_file(tmp_path: Path) -> None:
    from safetensors import safe_open

    source = FIXTURES / LATEST / "both_unlike.keras"
    lc.convert(source, tmp_path / "a.onnx")
    lc.convert(source, tmp_path / "a.safetensors")
    names = {proto.name for proto in onnx.load(tmp_path / "a.onnx").graph.initializer}
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        found = file.keys()  # it is not a mapping
        assert names == {name for name in found if not name.startswith("other/")}


# ---- from the bare node --------------------------------------------------------------------------

LAYERS: dict[str, Any] = {
    "plain": {},
    "sequences": {"return_sequences": True},
    "state": {"return_sequences": True, "return_state": True},
    "last state": {"return_state": True},
    "backwards": {"go_backwards": True},
    "backwards sequences": {"go_backwards": True, "return_sequences": True},
}
CELLS: dict[str, Any] = {
    "plain": {},
    "two biases": {"gate_parts": ("bias", "recurrent_bias")},
    "no bias": {"gate_parts": ()},
    "peephole": {"gate_parts": ("bias", "peephole")},
    "clip": {"gate_clip": 0.4},
    "keras 2": {"recurrent_activation": HARD_SIGMOID_KERAS2},
    "keras 3": {"recurrent_activation": HARD_SIGMOID_KERAS3},
    "functions": {"activation": Activation("elu", {"alpha": 0.7}),
                  "output_activation": Activation("scaled_tanh", {"alpha": 0.9, "beta": 1.1})},
    "initial": {"parts": {"initial_hidden": (2,), "initial_cell": (2,)}},
    "coupled": {"input_forget": True, "gate_parts": ("bias", "peephole")},
}


def bare(path: Path) -> Path:
    """Take the metadata and the names of initializers away from a file."""
    model = onnx.load(path)
    del model.metadata_props[:]
    renamed = {proto.name: f"t{i}" for i, proto in enumerate(model.graph.initializer)}
    for proto in model.graph.initializer:
        proto.name = renamed[proto.name]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("kind", LAYERS)
def test_options_of_the_layer_without_metadata(kind: str, fused: bool, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2), **LAYERS[kind])
    check_bare(layer, tmp_path, fused)


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("kind", CELLS)
def test_options_of_the_cell_without_metadata(kind: str, fused: bool, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2, **CELLS[kind]))
    check_bare(layer, tmp_path, fused)


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_directions_without_metadata(merge_mode: str, sequences: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(
        make_cell(rng, 3, 2), make_cell(rng, 3, 2), merge_mode=merge_mode,
        return_sequences=sequences,
    )
    check_bare(layer, tmp_path, False)


def check_bare(layer: LSTMLayer, folder: Path, fused: bool) -> None:
    """Assert that the bare node gives the same layer, as far as it says."""
    (found,) = lc.load(bare(write(layer, folder / "model.onnx", fused=fused))).layers
    assert found.name == "lstm"
    rest = dict(naming.tensors(found))
    for name, tensor in naming.tensors(layer):
        assert same_bits(tensor.read(), rest.pop(name).read()), name
    assert not rest
    if layer.backward is not None:
        assert found.options.merge_mode == layer.options.merge_mode
    for (_, one), (_, two) in zip(layer.directions, found.directions, strict=True):
        for option in ("return_sequences", "return_state", "go_backwards"):
            assert getattr(one.options, option) == getattr(two.options, option), option
        for option in ("activation", "recurrent_activation", "output_activation", "gate_clip",
                       "input_forget"):
            a, b = (getattr(half.lstm_cells[0].options, option) for half in (one, two))
            assert a == b, option


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("kind", CELLS)
def test_what_keras_has_not_runs_as_the_reference_does(
    kind: str, fused: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(make_cell(rng, 3, 2, **CELLS[kind]), return_sequences=True)
    x = rng.normal(size=(3, 5, 3)).astype("f4")
    found = run(write(layer, tmp_path / "model.onnx", fused=fused), {"lstm.x": x})
    assert difference([found["lstm.y"]], reference(layer, x).outputs) < BOUND


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
@pytest.mark.parametrize("options", [{}, {"gate_parts": ()}, {"input_forget": True}], ids=str)
def test_a_forget_bias_of_run_time(options: Any, fused: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(make_cell(rng, 3, 2, forget_bias=1.5, **options))
    x = rng.normal(size=(3, 5, 3)).astype("f4")
    result = lc.save(model_of(layer), tmp_path / "model.onnx", fused=fused)
    found = run(tmp_path / "model.onnx", {"lstm.x": x})
    assert difference([found["lstm.y"]], reference(layer, x).outputs) < BOUND
    (back,) = lc.load(tmp_path / "model.onnx").layers
    assert difference(reference(back, x).outputs, reference(layer, x).outputs) < BOUND
    assert bool(result.losses) == fused
    if not fused:  # the graph adds it: nothing is folded
        assert back.cell.options.forget_bias == 1.5


# ---- the writer ----------------------------------------------------------------------------------


def seed95(folder: Path, name: str = "model.onnx", **options: Any) -> Path:
    lc.convert(FIXTURES / LATEST / "seed95.keras", folder / name, **options)
    return folder / name


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
def test_the_same_bytes_each_time(fused: bool, tmp_path: Path) -> None:
    one, two = (seed95(tmp_path, name, fused=fused) for name in ("a.onnx", "b.onnx"))
    assert one.read_bytes() == two.read_bytes()
    assert str(FIXTURES) not in one.read_bytes().decode("latin-1")


@pytest.mark.parametrize("opset", range(messages.OLDEST, messages.newest() + 1))
def test_every_opset(opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(
        make_cell(rng, 3, 2), make_cell(rng, 3, 2), return_sequences=True, return_state=True
    )
    path = write(
        layer, tmp_path / "model.onnx", opset=opset, length_input=True, state_inputs=True
    )
    assert onnx.load(path).opset_import[0].version == opset
    x = rng.normal(size=(3, 5, 3)).astype("f4")
    found = run(path, {"lstm.x": x, "lstm.lengths": np.array([5, 1, 3], "i4")})
    mask = np.arange(5) < np.array([[5], [1], [3]])
    assert difference([found["lstm.y"]], reference(layer, x, mask=mask).outputs) < BOUND


@pytest.mark.parametrize("opset", [13, 1000])
def test_no_other_opset(opset: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such opset"):
        seed95(tmp_path, opset=opset)


def test_bfloat16_needs_a_later_opset(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2, dtype="bfloat16"))
    assert onnx.load(write(layer, tmp_path / "a.onnx")).opset_import[0].version == 22
    with pytest.raises(UsageError, match="bfloat16"):
        write(layer, tmp_path / "b.onnx", opset=21)


def test_the_default_opset_is_the_oldest(tmp_path: Path) -> None:
    model = onnx.load(seed95(tmp_path))
    assert (model.opset_import[0].version, model.ir_version) == (14, 7)


@pytest.mark.parametrize(
    ("option", "layer"),
    [
        ("activation", {"activation": Activation("gelu")}),
        ("activation", {"activation": Activation("mine", custom=True)}),
        ("recurrent_activation", {"recurrent_activation": Activation("softmax")}),
        ("output_activation", {"output_activation": Activation("selu")}),
        ("activation", {"activation": Activation("relu", {"max_value": 6.0})}),
        ("cell_clip", {"cell_clip": 3.0}),
        ("projection", {"projected": 1}),
        ("layer_norm", {"gate_parts": ("bias", "layer_norm")}),
        ("convolution", {"window": (3,), "convolution": {"strides": [1]}}),
        ("input_forget", {"input_forget": True, "recurrent_activation": Activation("relu")}),
    ],
)
def test_what_the_operator_cannot_express_is_refused(
    option: str, layer: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    bad = make_layer(make_cell(rng, 3, 2, **layer), name="bad")
    with pytest.raises(UnsupportedByTarget) as caught:
        lc.save(model_of(bad), tmp_path / "model.onnx", allow_lossy=True)
    assert (caught.value.layer, caught.value.option) == ("bad", option)
    good = make_layer(make_cell(rng, 3, 2), name="good")
    result = lc.save(model_of(bad, good), tmp_path / "model.onnx", allow_lossy=True)
    assert result.layers == ("good",)
    assert "bad: left out" in result.losses[0]
    with pytest.raises(UnsupportedByTarget):
        lc.save(model_of(bad, good), tmp_path / "other.onnx")


def test_a_cell_that_is_no_lstm_is_refused(tmp_path: Path) -> None:
    gru = OpaqueCell(class_name="GRU", name="gru", config=None)
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2), gru)
    with pytest.raises(UnsupportedByTarget, match="GRU"):
        lc.save(model_of(layer), tmp_path / "model.onnx")


@pytest.mark.parametrize("option", ["return_sequences", "return_state", "go_backwards"])
def test_an_unknown_option_that_shapes_the_graph(option: str, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(0), 3, 2), **{option: UNKNOWN})
    with pytest.raises(UnknownOption, match=option):
        lc.save(model_of(layer), tmp_path / "model.onnx", allow_lossy=True)


def test_a_weights_only_file_says_what_it_needs(tmp_path: Path) -> None:
    source = FIXTURES / LATEST / "seed95.weights.h5"
    with pytest.raises(UnknownOption, match="return_sequences"):
        lc.convert(source, tmp_path / "model.onnx")
    lc.convert(source, tmp_path / "model.onnx", config=FIXTURES / LATEST / "seed95.config.json")
    assert (tmp_path / "model.onnx").exists()


def test_what_the_graph_lacks_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(make_cell(rng, 3, 2), stateful=True)
    result = lc.save(model_of(layer), tmp_path / "a.onnx")
    assert "stateful" in result.warnings[0]
    source = FIXTURES / LATEST / "text.keras"
    result = lc.convert(source, tmp_path / "b.onnx", allow_lossy=True)
    assert any("--length-input" in text for text in result.warnings)
    result = lc.convert(source, tmp_path / "c.onnx", allow_lossy=True, length_input=True)
    assert not any("--length-input" in text for text in result.warnings)


def test_one_file_for_inspect_and_diff(tmp_path: Path) -> None:
    path = seed95(tmp_path)
    assert lc.diff(FIXTURES / LATEST / "seed95.keras", path, weights_only=True)


# ---- data beside the model -----------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be too large for one protocol buffer."""
    monkeypatch.setattr(onnx_write, "PROTOBUF_BYTES", 1000)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
def test_data_beside_the_model(fused: bool, tmp_path: Path) -> None:
    path = seed95(tmp_path, fused=fused)
    assert {entry.name for entry in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    onnx.checker.check_model(str(path), full_check=True)
    protos = onnx.load(path, load_external_data=False).graph.initializer
    assert all(proto.data_location == onnx.TensorProto.EXTERNAL for proto in protos)
    before = lc.load(FIXTURES / LATEST / "seed95.keras")
    assert_same_layers(before, lc.load(path))
    x = np.random.default_rng(0).normal(size=(2, 3, 7)).astype("f4")
    found = run(path, {"lstm.x": x})["lstm.y"]
    assert difference([found], reference(before["lstm"], x).outputs) < BOUND
    if not fused:  # the data is a per-gate file itself
        assert_same_layers(before, lc.load(tmp_path / "model.onnx.data"))


@pytest.mark.usefixtures("small")
def test_the_pair_is_replaced_only_by_force(tmp_path: Path) -> None:
    path, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    data.write_bytes(b"mine")
    with pytest.raises(DestinationError, match="exists"):
        seed95(tmp_path)
    assert not path.exists()
    assert data.read_bytes() == b"mine"
    seed95(tmp_path, force=True)
    before = path.read_bytes(), data.read_bytes()
    with pytest.raises(DestinationError):
        seed95(tmp_path)
    assert (path.read_bytes(), data.read_bytes()) == before
    with pytest.raises(DestinationError, match="same file"):
        lc.convert(data, path, force=True)
    assert (path.read_bytes(), data.read_bytes()) == before


@pytest.mark.usefixtures("small")
def test_a_source_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lstmconvert.onnx.write.Parts.write", broken)
    with pytest.raises(DestinationError, match="No space"):
        seed95(tmp_path)
    assert not list(tmp_path.iterdir())


def test_size_is_what_is_written(tmp_path: Path) -> None:
    """The threshold is met exactly: what is counted before is what is there afterwards."""
    for fused, name in itertools.product((False, True), ("both_unlike.keras", "seed95.keras")):
        path = tmp_path / f"{fused}{name}.onnx"
        lc.convert(FIXTURES / LATEST / name, path, fused=fused)
        model = onnx.load(path)
        counted = path.stat().st_size
        del model.metadata_props[:]
        bare_size = len(model.SerializeToString())
        assert abs(counted - bare_size) < 20_000
        assert bare_size < counted


# ---- other runtimes ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"fused": True}, {"state_inputs": True}], ids=str)
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_openvino(both: bool, options: Any, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    cells = [make_cell(rng, 3, 2), make_cell(rng, 3, 2) if both else None]
    layer = make_layer(*cells, return_sequences=True, return_state=True)
    path = write(layer, tmp_path / "model.onnx", **options)
    x = rng.normal(size=(3, 5, 3)).astype("f4")
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled = core.compile_model(core.read_model(path), "CPU")
    feeds = {"lstm.x": x}
    for port in compiled.inputs:
        if port.any_name != "lstm.x":
            feeds[port.any_name] = np.zeros((1, 2), "f4")
    found = compiled(feeds)
    result = reference(layer, x)
    assert difference([found["lstm.y"]], result.outputs) < 10 * BOUND


def test_gates_are_in_the_order_of_the_operator(tmp_path: Path) -> None:
    """The Concat nodes say i o f c, for whoever reads the graph."""
    model = onnx.load(seed95(tmp_path))
    joined = next(node for node in model.graph.node if node.name == "lstm.W_gates")
    order = (Gate.INPUT, Gate.OUTPUT, Gate.FORGET, Gate.CELL)
    assert list(joined.input) == [f"lstm.{gate}_gate.kernel" for gate in order]
