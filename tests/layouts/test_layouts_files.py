"""Framework layouts as files: names, metadata, options that come back, refusals, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from support.cli import FIXTURES, KERAS, SEED95, failure, run
from support.corpus import CORPUS
from support.neutral import make_cell, make_layer
from support.thinned import each, turns

import lstmconvert as lc
from lstmconvert.containers import table
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array, same_bits

_HOLDER = table.container("safetensors")
assert _HOLDER is not None
SAFETENSORS = [
    name for name, row in ROWS.items() if _HOLDER.holds(name) and not row.paired
]


def model_of(*layers: LSTMLayer) -> Model:
    return Model(layers=layers, source=Source(container="live"), container="live")


def texts(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(file.metadata())


def same_lstm(a: Any, b: Any) -> bool:
    """Whether the layers of two models are equal, with every option known in both."""
    report = lc.diff(a, b)
    return all(report.layers) and not any(x.unknown for x in report.layers) and bool(report.layers)


# ---- every option comes back --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "suffix"), turns(SAFETENSORS, (".safetensors", ".npz", ".json"))
)
def test_every_option_comes_back_by_the_metadata(
    layout: str, suffix: str, tmp_path: Path
) -> None:
    path, back = tmp_path / f"x{suffix}", tmp_path / "back.keras"
    if not any(suffix in row.suffixes for row in table.holders(layout)):
        with pytest.raises(lc.LSTMConvertError, match="layout"):
            lc.convert(SEED95, path, layout=layout)
        return
    result = lc.convert(SEED95, path, layout=layout)
    assert (result.layout, result.layers) == (layout, ("lstm",))
    assert bool(result.losses) is bool(ROWS[layout].forget_bias)
    assert same_lstm(lc.load(SEED95), lc.load(path))
    lc.convert(path, back)
    assert same_lstm(lc.load(SEED95), lc.load(back))


@pytest.mark.parametrize("layout", SAFETENSORS)
def test_a_bidirectional_layer_comes_back(layout: str, tmp_path: Path) -> None:
    source = KERAS / "both_concat.keras"
    path = tmp_path / "x.safetensors"
    if ROWS[layout].single:
        with pytest.raises(lc.LSTMConvertError, match="Bidirectional"):
            lc.convert(source, path, layout=layout)
        return
    lc.convert(source, path, layout=layout)
    assert same_lstm(lc.load(source), lc.load(path))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for suffix in ("safetensors", "npz", "json"):
        paths = [tmp_path / f"{number}.{suffix}" for number in (1, 2)]
        for path in paths:
            lc.convert(SEED95, path, layout="torch")
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_names_and_metadata_are_the_frameworks_own(tmp_path: Path) -> None:
    for layout, form in (("torch", "pt"), ("mlx", "mlx"), ("flax", "flax"), ("keras", "np")):
        path = tmp_path / f"{layout}.safetensors"
        lc.convert(SEED95, path, layout=layout, lstm_only=True)
        assert texts(path)["format"] == form
        value = json.loads(texts(path)["lstmconvert"])
        assert value["layout"]["name"] == layout
        assert value["layout"]["modules"] == [{"prefix": "lstm.", "layers": ["lstm"]}]
        assert value["source"]["sha256"] == lc.load(SEED95).source.sha256
        names = [f"lstm.{name}" for name in lc.arrange(lc.load(SEED95)["lstm"], layout)]
        assert sorted(load_file(path)) == sorted(names)


def test_a_path_becomes_dots(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2), name="net/encoder")
    lc.save(layer, tmp_path / "x.safetensors", layout="torch")
    assert "net.encoder.weight_ih_l0" in load_file(tmp_path / "x.safetensors")
    assert list(lc.load(tmp_path / "x.safetensors")) == ["net/encoder"]


def test_other_tensors_go_along_when_asked(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "a.safetensors", layout="burn", warn=False)
    assert len(load_file(tmp_path / "a.safetensors")) == 16
    lc.convert(SEED95, tmp_path / "b.safetensors", layout="burn", with_other=True)
    found = load_file(tmp_path / "b.safetensors")
    assert [name for name in found if name.startswith("other/")]
    assert lc.diff(lc.load(SEED95), lc.load(tmp_path / "b.safetensors"))
    lc.convert(tmp_path / "b.safetensors", tmp_path / "whole.keras")
    assert lc.diff(lc.load(SEED95), lc.load(tmp_path / "whole.keras"))


# ---- the forget bias ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["haiku", "tf1"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".json"])
def test_the_forget_bias_comes_back_bit_for_bit(layout: str, suffix: str, tmp_path: Path) -> None:
    """1e-9 - 1 + 1 is 0 in float32: only what the metadata keep can bring it back."""
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    layer.forget_gate.tensors["bias"]._array[:] = (1e-9, -0.0)
    lc.save(layer, tmp_path / f"x{suffix}", layout=layout)
    found = lc.load(tmp_path / f"x{suffix}")["lstm"]
    assert found.cell.options.forget_bias == 0.0
    assert same_bits(found.forget_gate.bias, layer.forget_gate.bias)


def test_a_layer_without_bias_comes_back_without(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, gate_parts=()))
    for layout in ("haiku", "flax", "openvino", "torch", "mlx"):
        lc.save(layer, tmp_path / "x.safetensors", layout=layout, force=True)
        found = lc.load(tmp_path / "x.safetensors")["lstm"]
        assert not found.cell.use_bias, layout
        assert found.cell.options.forget_bias == 0.0


def retrained(path: Path, name: str, change: Any) -> None:
    """Change one array of a file, and keep its metadata, as training goes on would."""
    from safetensors.numpy import save_file

    arrays, kept = load_file(path), texts(path)
    arrays[name] = np.ascontiguousarray(change(arrays[name]))
    save_file(arrays, path, kept)


def test_a_forget_bias_that_was_trained_on_is_not_put_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    lc.save(layer, path, layout="haiku")
    retrained(path, "lstm.linear.b", lambda b: b + np.float32(0.25))
    found = lc.load(path)["lstm"]
    assert found.cell.options.forget_bias == 1.0
    wanted = (layer.forget_gate.bias - np.float32(1)) + np.float32(0.25)
    assert same_bits(found.forget_gate.bias, wanted)
    result = lc.convert(path, tmp_path / "x.keras")
    assert any("run-time forget bias" in loss for loss in result.losses)


def test_a_bias_that_was_trained_is_kept_where_there_was_none(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, gate_parts=()))
    for layout, name in (("flax", "lstm.cell.hi.bias"), ("haiku", "lstm.linear.b")):
        lc.save(layer, path, layout=layout, force=True)
        retrained(path, name, lambda b: b + np.float32(0.5))
        found = lc.load(path)["lstm"]
        assert found.input_gate.bias.tolist() == [0.5, 0.5], layout


def test_a_second_bias_that_was_trained_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    lc.save(make_layer(make_cell(np.random.default_rng(1), 3, 2)), path, layout="torch")
    retrained(path, "lstm.bias_hh_l0", lambda b: b + np.float32(0.5))
    assert lc.load(path)["lstm"].output_gate.recurrent_bias.tolist() == [0.5, 0.5]


# ---- files without metadata ---------------------------------------------------------------------


def plain_file(path: Path, arrays: dict[str, Array]) -> Path:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


@pytest.mark.parametrize(
    ("path", "others"),
    [
        (FIXTURES / "torch-2.13.0/detector.safetensors", 4),
        pytest.param(
            CORPUS / "snakers4_silero-vad__silero_vad_16k.safetensors", 11, marks=pytest.mark.corpus
        ),
    ],
)
def test_an_lstm_cell_among_convolutions_is_known_by_its_names(
    path: Path, others: int, tmp_path: Path
) -> None:
    model = lc.load(path)
    assert (list(model), model.layout, len(model.other)) == (["lstm_cell"], "torch-cell", others)
    arrays = load_file(path)
    for number, gate in enumerate(("input", "forget", "cell", "output")):
        weights = getattr(model["lstm_cell"], f"{gate}_gate")
        units = model["lstm_cell"].units
        rows = slice(units * number, units * number + units)
        assert np.array_equal(weights.kernel, arrays["lstm_cell.weight_ih"][rows].T)
        assert np.array_equal(weights.recurrent_bias, arrays["lstm_cell.bias_hh"][rows])
    lc.convert(path, tmp_path / "gates.safetensors")
    lc.convert(tmp_path / "gates.safetensors", tmp_path / "back.safetensors", layout="torch-cell")
    again = load_file(tmp_path / "back.safetensors")
    assert all(same_bits(array, arrays[name]) for name, array in again.items())


@pytest.mark.parametrize(
    "path",
    [
        FIXTURES / "torch-2.13.0/chain.json",
        pytest.param(
            CORPUS / "jatinchowdhury18_RTNeural__lstm_torch.json", marks=pytest.mark.corpus
        ),
    ],
)
def test_state_dicts_as_json_are_known_by_their_names(path: Path) -> None:
    model = lc.load(path)
    assert list(model) == ["lstm", "lstm2_l0", "lstm2_l1", "lstm2_l2"]
    assert (model.container, model.layout) == ("json", "torch")


def test_from_names_what_names_do_not_tell(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    path = plain_file(tmp_path / "x.safetensors", lc.arrange(layer, "onnx"))
    error, hint = failure("convert", path, tmp_path / "y.safetensors")
    assert "no layout that is known by its names" in error
    assert "--from" in hint
    assert run("convert", path, tmp_path / "y.safetensors", "--from", "onnx").code == 0
    found = lc.load(tmp_path / "y.safetensors")["lstm"]
    assert same_bits(found.cell_gate.kernel, layer.cell_gate.kernel)


def test_from_contradicts_the_file(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.safetensors", layout="torch")
    for source, found in ((tmp_path / "x.safetensors", "torch"), (SEED95, "keras")):
        error, _ = failure("convert", source, tmp_path / "y.npz", "--from", "mlx")
        assert f"found {found}; expected mlx" in error
    error, _ = failure("convert", SEED95, tmp_path / "y.npz", "--from", "nothing")
    assert "no such layout" in error


def test_what_a_framework_does_not_say_is_assumed_and_listed(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    path = plain_file(tmp_path / "x.safetensors", lc.arrange(layer, "torch"))
    model = lc.load(path)
    assert model["lstm"].cell.options.activation.name == "tanh"
    done = run("convert", path, tmp_path / "x.keras")
    assert done.code == 0
    assert "warning: lstm: assumed, as PyTorch nn.LSTM does not say: return_sequences=" in done.err
    said = run("convert", path, tmp_path / "y.keras", "--set", "return_sequences=true")
    assert "return_sequences" not in said.err
    assert lc.load(tmp_path / "y.keras")["lstm"].forward.options.return_sequences is True


def test_functions_that_a_framework_leaves_open_are_asked_for(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    path = plain_file(tmp_path / "x.safetensors", lc.arrange(layer, "flax"))
    error, hint = failure("convert", path, tmp_path / "x.keras")
    assert "activation" in error
    assert "--set" in hint
    settings = ("--set", "activation=tanh", "--set", "recurrent_activation=sigmoid")
    assert run("convert", path, tmp_path / "x.keras", *settings).code == 0


@pytest.mark.engines
def test_a_live_keras_layer_from_a_framework_file(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    path = plain_file(tmp_path / "x.safetensors", lc.arrange(layer, "mlx"))
    built = lc.to_keras(lc.load(path)["lstm"])
    assert np.array_equal(built.get_weights()[0][:, 2:4], layer.forget_gate.kernel)


# ---- the command --------------------------------------------------------------------------------


def test_bare_stack_and_summary(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = [
        make_layer(make_cell(rng, inputs, 3), name=name, return_sequences=True)
        for inputs, name in ((2, "a"), (3, "b"), (3, "c"))
    ]
    source, path = tmp_path / "abc.safetensors", tmp_path / "x.safetensors"
    lc.save(model_of(*layers), source)
    error, hint = failure("convert", source, path, "--to", "torch", "--bare")
    assert "--bare is for one layer" in error
    assert "--stack" in hint
    done = run("convert", source, path, "--to", "torch", "--stack", "s=a,b")
    assert done.code == 0, done.err
    assert {"s.weight_ih_l1", "c.weight_ih_l0"} <= set(load_file(path))
    assert same_lstm(lc.load(source), lc.load(path))
    done = run("convert", source, path, "--to", "torch", "--stack", "s=a,b,c", "--bare", "--force")
    assert sorted(load_file(path))[-1] == "weight_ih_l2"
    assert same_lstm(lc.load(source), lc.load(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s", "--stack takes NAME=a,b"),
        ("s=a", "--stack takes NAME=a,b"),
        ("s=a,nothing", "no LSTM layer of that name"),
        ("s=a,a", "is in two stacks"),
        ("b=a,c", "has the name of a layer"),
        ("s=c,a", "do not fit into one stack"),
    ],
)
def test_stacks_that_make_no_sense(text: str, message: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = [
        make_layer(make_cell(rng, inputs, 3), name=name, return_sequences=True)
        for inputs, name in ((2, "a"), (3, "b"), (3, "c"))
    ]
    lc.save(model_of(*layers), tmp_path / "abc.safetensors")
    error, _ = failure(
        *("convert", tmp_path / "abc.safetensors", tmp_path / "x.npz", "--to", "torch"),
        *("--stack", text),
    )
    assert message in error


def test_what_torch_cannot_is_refused_by_name_unless_allowed(tmp_path: Path) -> None:
    from lstmconvert.model.activations import Activation

    layer = make_layer(
        make_cell(np.random.default_rng(1), 3, 2, activation=Activation("relu")), name="enc"
    )
    lc.save(layer, tmp_path / "x.safetensors")
    args = ("convert", tmp_path / "x.safetensors", tmp_path / "y.safetensors", "--to", "torch")
    error, hint = failure(*args)
    assert error.startswith("enc: PyTorch nn.LSTM cannot express activation")
    assert "relu" in error
    assert "--allow-lossy" in hint
    done = run(*args, "--allow-lossy", "--json")
    assert "activation" in done.json["losses"][0]
    assert "warning" in done.err
    found = lc.load(tmp_path / "y.safetensors")
    assert "lost, as allowed" in found.losses[0]
    assert found["enc"].cell.options.activation.name == "relu"


def test_stateful_and_masked_warn(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2), stateful=True)
    result = lc.save(layer, tmp_path / "y.safetensors", layout="torch")
    assert "stateful" in " ".join(result.warnings)
    assert result.losses == ()


def test_the_seed_ports_to_torch_without_a_word(tmp_path: Path) -> None:
    done = run("convert", SEED95, tmp_path / "y.safetensors", "--to", "torch")
    assert done.code == 0
    assert "warning" not in done.err


def test_suffixes_and_layouts(tmp_path: Path) -> None:
    error, _ = failure("convert", SEED95, tmp_path / "y.json")
    assert "--to" in error
    error, hint = failure("convert", SEED95, tmp_path / "y.h5", "--to", "torch")
    assert "h5 does not hold the layout torch" in error
    assert ".safetensors" in hint
    error, _ = failure("convert", SEED95, tmp_path / "y.safetensors", "--bare")
    assert "--bare is for framework layouts" in error
    error, _ = failure("convert", SEED95, tmp_path / "y.safetensors", "--stack", "s=a,b")
    assert "--stack is for framework layouts" in error


def test_inspect_names_the_layout(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "y.safetensors", layout="torch")
    found = run("inspect", tmp_path / "y.safetensors", "--json").json["source"]
    assert (found["container"], found["layout"]) == ("safetensors", "torch")
    assert found["origin"]["container"] == "keras"
    assert run("inspect", tmp_path / "y.safetensors").code == 0


# ---- metadata that lie --------------------------------------------------------------------------


@each(
    "change",
    [
        lambda v: v["layout"].update(name="nothing"),
        lambda v: v["layout"].update(name=3),
        lambda v: v.update(layout=[]),
        lambda v: v["layout"].update(modules=[{"prefix": "lstm.", "layers": []}]),
        lambda v: v["layout"].update(modules=[{"prefix": "lstm.", "layers": ["else"]}]),
        lambda v: v["layout"].update(modules=[{"prefix": "else.", "layers": ["lstm"]}]),
        lambda v: v["layout"].update(modules=[{"prefix": "lstm.", "layers": ["lstm", "lstm"]}]),
        lambda v: v["layout"].update(modules=[]),
        lambda v: v["layout"].update(originals=3),
        lambda v: v["layout"].update(originals={"lstm.forward.0": 3}),
        lambda v: v["layout"]["originals"]["lstm.forward.0"].update(data="not base64!"),
        lambda v: v["layers"][0].update(directions={}),
        lambda v: v["layers"][0].update(tensors=3),
        lambda v: v["layers"][0]["directions"]["forward"].update(cells=[]),
        lambda v: v["layers"][0]["directions"]["forward"]["cells"][0].update(shapes=[]),
        lambda v: v.update(layers=[]),
        lambda v: v.update(layers=[3]),
    ],
)
def test_metadata_that_do_not_fit_are_refused(change: Any, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    lc.convert(SEED95, tmp_path / "x.safetensors", layout="haiku")
    kept = texts(tmp_path / "x.safetensors")
    value = json.loads(kept["lstmconvert"])
    change(value)
    arrays = load_file(tmp_path / "x.safetensors")
    save_file(arrays, tmp_path / "y.safetensors", {**kept, "lstmconvert": json.dumps(value)})
    with pytest.raises(lc.LSTMConvertError):
        lc.load(tmp_path / "y.safetensors")


def test_json_that_lies_is_refused(tmp_path: Path) -> None:
    good = {"dtype": "float32", "shape": [2], "data": [1.0, 2.0]}
    for item in (
        {**good, "dtype": "int8"},
        {**good, "shape": [3]},
        {**good, "shape": [-2]},
        {**good, "shape": [1 << 60]},
        {**good, "data": [1.0, True]},
        {**good, "data": [1.0, "0xfffffffff"]},
        {**good, "data": [1.0, "nan"]},
        {**good, "data": 3},
        [1],
    ):
        path = tmp_path / "x.json"
        path.write_text(json.dumps({"tensors": {"lstm.weight_ih_l0": item}}))
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path)
    for data in ([[1.0], [1.0, 2.0]], [[]], [1.0, "x"], [[1.0], 2.0]):
        path.write_text(json.dumps({"lstm.weight_ih_l0": data}))
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path)


def test_json_keeps_every_bit(tmp_path: Path) -> None:
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, dtype=dtype))
        flat = layer.forget_gate.tensors["kernel"]._array.reshape(-1)
        flat[:4] = (np.nan, np.inf, -np.inf, -0.0)
        lc.save(layer, tmp_path / "x.json", layout="torch", force=True)
        found = lc.load(tmp_path / "x.json")["lstm"]
        assert same_bits(found.forget_gate.kernel, layer.forget_gate.kernel)


def test_a_wrong_from_is_told_the_right_one(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = lc.arrange(make_layer(make_cell(np.random.default_rng(1), 3, 2)), "mlx")
    found = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    save_file(found, tmp_path / "x.safetensors")
    _, hint = failure("convert", tmp_path / "x.safetensors", tmp_path / "y.npz", "--from", "torch")
    assert "--from mlx" in hint
