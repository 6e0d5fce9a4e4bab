"""`inspect`: what people and programs are told of a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.cli import FIXTURES, KERAS, SEED95, WEIGHTS, run
from support.corpus import CORPUS
from support.neutral import make_cell, make_layer
from support.thinned import rounds

import lstmconvert as lc
from lstmconvert.checks import words
from lstmconvert.checks.stats import Stats
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import dtype_of

SEED95_REPORT = """\
seed95.keras
a Keras archive (.keras), the whole model, by Keras 3.15.1
95 parameters: 80 in 1 LSTM layer, 15 in 1 other layer

lstm: LSTM, 7 inputs, 2 units, float32, 80 parameters

  tensor            shape  why                           parameters
  kernel            7×8    7 inputs × 4 gates × 2 units          56
  recurrent_kernel  2×8    2 units × 4 gates × 2 units           16
  bias              8      4 gates × 2 units                      8
                           4·(7·2 + 2·2 + 2) =                   80

  gate    columns  kernel  recurrent_kernel  bias  decides
  input   0:2      7×2     2×2               2     how much new content enters
  forget  2:4      7×2     2×2               2     how much old state stays
  cell    4:6      7×2     2×2               2     the new content itself
  output  6:8      7×2     2×2               2     how much state is shown
  side by side along the last axis: kernel[:, 2:4] is the forget gate's

  activation            tanh: cell gate, state on its way out
  recurrent_activation  sigmoid: all other gates

other layers
  dense: Dense, 2 inputs, 5 units, linear, 10 + 5 = 15 parameters, 2×5 and 5
"""


def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def model_of(*layers: LSTMLayer) -> Model:
    return Model(layers=layers, source=Source(container="live"), container="live")


def saved(path: Path, *layers: LSTMLayer) -> Path:
    lc.save(model_of(*layers), path)
    return path


def test_the_report_of_the_example() -> None:
    code, out, err = run("inspect", SEED95)
    assert (code, out) == (0, SEED95_REPORT)
    assert re.fullmatch(r"note: opens in Keras 3\.15 and later, for .+ \(lstm, dense\); .+\n", err)


def test_what_the_report_says_of_the_columns_is_so() -> None:
    import h5py

    with h5py.File(KERAS / "seed95.h5") as file:
        kernel = np.asarray(next(d for d in _datasets(file) if d.shape == (7, 8)))
    assert np.array_equal(lc.load(SEED95)["lstm"].forget_gate.kernel, kernel[:, 2:4])


def _datasets(group: Any) -> Iterator[Any]:
    for item in group.values():
        yield from _datasets(item) if hasattr(item, "values") else [item]


def test_a_bidirectional_with_unlike_halves_explains_both() -> None:
    out = run("inspect", KERAS / "both_unlike.keras").out
    head, forward, backward = out.replace("\n  backward: ", "\n  forward: ").split("\n  forward: ")
    assert head.endswith("\n\nboth: Bidirectional, merge_mode concat, 160 parameters\n")
    assert forward.startswith("5 inputs, 2 units, float32\n")
    assert "4·(5·2 + 2·2 + 2) =                   64\n" in forward
    assert backward.startswith("5 inputs, 3 units, float32\n")
    assert "bias              none   use_bias=False                         0\n" in backward
    assert "4·(5·3 + 3·3) =                       96\n" in backward
    assert "activation            elu(alpha=1): cell gate" in backward
    assert "hard_sigmoid of Keras 3, clip(x/6 + 0.5, 0, 1)" in backward
    assert "dropout=0.5" in backward


def test_alike_halves_are_explained_once() -> None:
    out = run("inspect", KERAS / "both_concat.keras").out
    assert "\n  forward and backward, alike: 5 inputs, 2 units, float32\n" in out
    assert "64 each\n" in out
    assert out.count("recurrent_kernel  2×8") == 1


def test_keras_2s_hard_sigmoid_is_told_from_keras_3s() -> None:
    out = run("inspect", FIXTURES / "keras-2.3.1" / "zoo.h5", "--layer", "hard").out
    assert "hard_sigmoid of Keras 1 and 2, clip(0.2*x + 0.5, 0, 1)" in out
    out = run("inspect", KERAS / "zoo.keras", "--layer", "hard").out
    assert "hard_sigmoid of Keras 3, clip(x/6 + 0.5, 0, 1)" in out


def test_a_convolution_has_a_window_channels_and_filters() -> None:
    out = run("inspect", FIXTURES / "keras-2.3.1" / "conv_lstm.h5").out
    assert "conv: ConvLSTM2D, 2 channels, 3 filters, float32, 372 parameters" in out
    assert "3×2×2×12  3×2 window × 2 channels × 4 gates × 3 filters  " in out
    assert "4·(3·2·2·3 + 3·2·3·3 + 3) = " in out
    assert "kernel[:, :, :, 3:6] is the forget gate's" in out


def test_a_stack_with_a_gru_in_it() -> None:
    code, out, err = run("inspect", KERAS / "rnn_stack_gru.keras")
    assert code == 0
    assert "\n  cells.0: 5 inputs, 2 units, float32\n" in out
    assert "\n  cells.2: 4 inputs, 3 units, float32\n" in out
    assert "forward.cells.1 is a GRUCell, no LSTM: its tensors are among the others" in out
    assert err.endswith("\nnote: stack: its forward half holds a GRUCell, kept as it is\n")


def test_a_weights_file_says_what_it_does_not_say() -> None:
    code, out, err = run("inspect", WEIGHTS)
    assert (code, err) == (0, "")
    assert out.startswith("seed95.weights.h5\na Keras weights file (.weights.h5), weights only\n")
    assert "activation            " not in out
    words = " ".join(out.split())
    assert (
        "unknown of lstm, because the file does not say it: activation, recurrent_activation, "
        "return_sequences, return_state, go_backwards, stateful and " in words
    )
    assert "convert with --config FILE" in words
    assert "--set lstm.activation=tanh" in words


def test_the_advice_for_unknown_options_works(tmp_path: Path) -> None:
    path = tmp_path / "lstm.safetensors"
    assert run("convert", WEIGHTS, path, "--set", "lstm.activation=tanh").code == 0
    assert run("inspect", path, "--json").json["layers"][0]["activation"] == {"name": "tanh"}


def test_a_per_gate_file(tmp_path: Path) -> None:
    path = tmp_path / "lstm.safetensors"
    lc.convert(SEED95, path)
    out = run("inspect", path).out
    assert "a per-gate file (.safetensors), made from a Keras archive (.keras)" in out
    assert "this file stores each gate separately; joined as Keras does, kernel[:, 2:4] is" in out
    report = run("inspect", path, "--json").json
    original = run("inspect", SEED95, "--json").json
    assert report["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["source"]["origin"] == {
        "container": "keras",
        "sha256": hashlib.sha256(SEED95.read_bytes()).hexdigest(),
    }
    assert original["source"]["origin"] is None
    for key in ("parameters", "layers", "other"):
        assert report[key] == original[key]


def test_many_layers_stay_readable(tmp_path: Path) -> None:
    layers = [make_layer(make_cell(rng(), 8, 8), name=f"lstm_{i}") for i in range(300)]
    both = make_layer(make_cell(rng(), 8, 4), make_cell(rng(), 8, 4), name="both")
    odd = [make_layer(make_cell(rng(), 8, 1 + i), name=f"odd_{i}") for i in range(60)]
    path = saved(tmp_path / "many.safetensors", *layers[:200], both, *layers[200:], *odd)
    code, out, err = run("inspect", path)
    assert code == 0
    assert len(out.splitlines()) < 70
    assert "  lstm_0 … lstm_199 (200)  " in out
    assert "  both, each half  " in out
    assert "  … and 23 more: --json lists them all\n" in out
    assert err == f"hint: lstmconvert inspect {path} --layer NAME explains one layer\n"
    assert len(run("inspect", path, "--json").json["layers"]) == 361
    assert "\nodd_59: LSTM, 8 inputs, 60 units" in run("inspect", path, "--layer", "odd_59").out


def test_names_from_a_file_are_escaped_and_no_markup(tmp_path: Path) -> None:
    layer = make_layer(make_cell(rng(), 3, 2), name="evil\x1b[31m[red]\u202e")
    path = saved(tmp_path / "lstm.safetensors", layer)
    for more in ((), ("--stats",), ("--json",)):
        out = run("inspect", path, *more).out
        assert "\x1b" not in out
        assert "\u202e" not in out
    assert r"evil\x1b[31m[red]\u202e" in run("inspect", path).out


def test_parts_that_only_other_frameworks_have(tmp_path: Path) -> None:
    cell = make_cell(
        rng(), 4, 6, projected=3, gate_parts=("bias", "recurrent_bias", "peephole"), gate_clip=2.0
    )
    out = run("inspect", saved(tmp_path / "lstm.safetensors", make_layer(cell))).out
    assert "recurrent_kernel  3×24   3 projected × 4 gates × 6 units" in out
    assert "recurrent_bias    24     4 gates × 6 units" in out
    assert "peephole          18     3 gates × 6 units" in out
    assert "projection        6×3    6 units × 3 projected" in out
    assert re.search(r"4·\(4·6 \+ 3·6 \+ 6 \+ 6\) \+ 3·6 \+ 6·3 = +252\n", out)
    assert "gate_clip=2.0" in out


@settings(max_examples=rounds(40), deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sets(st.sampled_from(["bias", "recurrent_bias", "peephole", "layer_norm"])),
    st.none() | st.integers(1, 5),
    st.booleans(),
)
def test_the_formula_gives_the_number_of_parameters(
    input_dim: int, units: int, parts: set[str], projected: int | None, coupled: bool
) -> None:
    cell = make_cell(
        rng(),
        input_dim,
        units,
        gate_parts=sorted(parts),
        projected=projected,
        input_forget=coupled,
    )
    text = words.formula(cell)
    assert re.fullmatch(r"[\d·+() ]+", text)
    assert eval(text.replace("·", "*")) == cell.parameters  # noqa: S307  # digits, as just seen


def test_coupled_gates_have_three(tmp_path: Path) -> None:
    layer = make_layer(make_cell(rng(), 3, 2, input_forget=True))
    path = saved(tmp_path / "lstm.safetensors", layer)
    out = run("inspect", path).out
    assert "kernel            3×6    3 inputs × 3 gates × 2 units" in out
    assert "3·(3·2 + 2·2 + 2) =" in out
    gates = run("inspect", path, "--json").json["layers"][0]["gates"]
    assert {name: gate["columns"] for name, gate in gates.items()} == {
        "forget": [0, 2],
        "cell": [2, 4],
        "output": [4, 6],
    }


# ---- numbers ----------------------------------------------------------------------------------


def odd_layer() -> LSTMLayer:
    cell = make_cell(rng(), 3, 2)
    weights = np.array(cell.gates[Gate.FORGET].tensors["kernel"].read())
    weights[0, 0], weights[1, 1], weights[2, 0], weights[2, 1] = np.nan, -np.inf, -0.0, 1e-40
    return make_layer(cell).replacing({"forget_gate.kernel": weights})


def test_stats_mention_nan_and_its_kind(tmp_path: Path) -> None:
    path = saved(tmp_path / "lstm.safetensors", odd_layer())
    code, out, err = run("inspect", path, "--stats")
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("  lstm.forget_gate.kernel "))
    assert row.endswith("  1 NaN, 1 Inf, 1 -0.0, 1 denormal")
    assert err == (
        "warning: lstm.forget_gate.kernel holds 1 NaN, 1 Inf, 1 -0.0, 1 denormal; they are kept "
        "as they are\n"
    )
    stats = run("inspect", path, "--stats", "--json").json["layers"][0]["stats"]
    assert stats["forget"]["kernel"] | {"min": 0, "max": 0, "mean": 0, "std": 0} == {
        "count": 6,
        "min": 0,
        "max": 0,
        "mean": 0,
        "std": 0,
        "nan": 1,
        "inf": 1,
        "negative_zero": 1,
        "denormal": 1,
    }
    assert "NaN" not in run("inspect", path).out


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@settings(max_examples=rounds(30), deadline=None)
@given(data=st.data())
def test_stats_equal_numpys(name: str, data: st.DataObject) -> None:
    width = np.dtype(dtype_of(name)).itemsize
    raw = data.draw(arrays.arrays(f"<u{width}", st.integers(0, 60)))
    values = raw.view(dtype_of(name))
    cut = data.draw(st.integers(0, len(values)))
    stats = Stats()
    stats.add(values[:cut])
    stats.add(values[cut:])
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    tiny = 2.0 ** {"float16": -14, "bfloat16": -126, "float32": -126, "float64": -1022}[name]
    assert stats.odd() == {
        "nan": np.isnan(wide).sum(),
        "inf": np.isinf(wide).sum(),
        "negative_zero": ((wide == 0) & np.signbit(wide)).sum(),
        "denormal": ((wide != 0) & (np.abs(wide) < tiny)).sum(),
    }
    assert stats.count == len(values)
    if finite.size:
        assert (stats.min, stats.max) == (finite.min(), finite.max())
    else:
        assert stats.min is stats.max is stats.mean is stats.std is None


def test_moments_equal_numpys() -> None:
    values = rng().normal(3.0, 2.0, 10_000).astype(np.float32)
    stats = Stats()
    for start in range(0, 10_000, 700):
        stats.add(values[start : start + 700])
    assert stats.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert stats.std == pytest.approx(values.astype(np.float64).std(), rel=1e-12)


# ---- JSON -------------------------------------------------------------------------------------


def test_the_json_of_the_example() -> None:
    code, out, err = run("inspect", SEED95, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert set(report) == {"version", "source", "parameters", "layers", "neighbours", "other"}
    assert report["version"] == 1
    assert report["source"]["name"] == "seed95.keras"
    assert report["source"]["container"] == "keras"
    assert report["source"]["keras_version"] == "3.15.1"
    assert report["source"]["era"] == "keras3"
    assert report["source"]["sha256"] == hashlib.sha256(SEED95.read_bytes()).hexdigest()
    assert report["parameters"] == {"total": 95, "lstm": 80, "other": 15}
    assert report["other"] == [
        {"name": "layers/dense/vars/0", "shape": [2, 5], "dtype": "float32", "parameters": 10},
        {"name": "layers/dense/vars/1", "shape": [5], "dtype": "float32", "parameters": 5},
    ]
    (head,) = report["neighbours"]
    assert (head["name"], head["class"]) == ("dense", "Dense")
    assert (head["inputs"], head["outputs"]) == (2, 5)
    assert head["tensors"]["kernel"] == {
        "shape": [2, 5], "dtype": "float32",
        "paths": ["layers/dense/vars/0"],
    }
    (layer,) = report["layers"]
    (cell,) = layer["cells"]
    assert (layer["name"], layer["path"], layer["class"]) == ("lstm", "layers/lstm", "LSTM")
    assert layer["parameters"] == 80
    assert layer["merge_mode"] is None
    assert layer["return_sequences"] is False
    assert "merge_mode" not in layer["unknown"]
    assert cell["direction"] == "forward"
    assert cell["index"] == 0
    assert (cell["units"], cell["input_dim"], cell["dtype"]) == (2, 7, "float32")
    assert cell["activation"] == {"name": "tanh"}
    assert cell["recurrent_activation"] == {"name": "sigmoid"}
    assert cell["use_bias"] is True
    assert cell["tensors"] == {
        "kernel": {"shape": [7, 8]},
        "recurrent_kernel": {"shape": [2, 8]},
        "bias": {"shape": [8]},
    }
    assert cell["gates"] == {
        gate: {"columns": columns, "kernel": [7, 2], "recurrent_kernel": [2, 2], "bias": [2]}
        for gate, columns in zip(
            ("input", "forget", "cell", "output"), ([0, 2], [2, 4], [4, 6], [6, 8]), strict=True
        )
    }
    # A layer with one cell has that cell's keys itself.
    assert layer | cell == layer


def test_json_keeps_unknown_apart_from_null() -> None:
    (known,) = run("inspect", SEED95, "--json").json["layers"]
    (unknown,) = run("inspect", WEIGHTS, "--json").json["layers"]
    assert (known["seed"], unknown["seed"]) == (None, None)
    assert "seed" not in known["unknown"]
    assert {"seed", "activation", "go_backwards"} <= set(unknown["unknown"])
    assert unknown["activation"] is None
    assert unknown["use_bias"] is True


def test_json_has_constants_and_both_halves() -> None:
    (layer,) = run("inspect", KERAS / "both_unlike.keras", "--json").json["layers"]
    assert "units" not in layer
    assert [(c["direction"], c["units"], c["use_bias"]) for c in layer["cells"]] == [
        ("forward", 2, True),
        ("backward", 3, False),
    ]
    assert layer["cells"][1]["activation"] == {"name": "elu", "alpha": 1.0}
    assert layer["cells"][1]["recurrent_activation"]["alpha"] == pytest.approx(1 / 6)
    assert layer["directions"]["backward"]["go_backwards"] is True
    assert layer["merge_mode"] == "concat"


def test_json_of_one_layer() -> None:
    report = run("inspect", KERAS / "zoo.keras", "--json", "--layer", "hard").json
    assert [layer["name"] for layer in report["layers"]] == ["hard"]
    assert report["parameters"] == {"total": 780, "lstm": 772, "other": 8}


@pytest.mark.parametrize(
    "path", sorted({*KERAS.glob("*.keras"), *KERAS.glob("z*.h5")}, key=str), ids=lambda p: p.name
)
def test_every_fixture_has_consistent_json_and_a_report(path: Path) -> None:
    if path.name == "gru_only.keras":
        pytest.skip("has no LSTM")
    out = run("inspect", path, "--json").out
    assert out == run("inspect", path.resolve(), "--json").out, "not deterministic, or a path in it"
    check_sums(json.loads(out))
    assert run("inspect", path, "--stats").code == 0


def check_sums(report: Any) -> None:
    totals = report["parameters"]
    assert totals["total"] == totals["lstm"] + totals["other"]
    assert totals["lstm"] == sum(layer["parameters"] for layer in report["layers"])
    assert totals["other"] == sum(other["parameters"] for other in report["other"])
    for layer in report["layers"]:
        assert layer["parameters"] == sum(cell["parameters"] for cell in layer["cells"])
        for cell in layer["cells"]:
            words = [tensor["shape"] for tensor in cell["tensors"].values()]
            assert cell["parameters"] == sum(int(np.prod(shape)) for shape in words)
            ranges = [gate["columns"] for gate in cell["gates"].values()]
            assert [r[0] for r in ranges] == [0, *(r[1] for r in ranges[:-1])]
            assert ranges[-1][1] == cell["tensors"]["kernel"]["shape"][-1]


def test_describe_takes_a_model_without_a_file() -> None:
    report = lc.inspect(model_of(make_layer(make_cell(rng(), 3, 2)))).to_json()
    assert report["source"]["name"] is None
    assert report["source"]["sha256"] is None
    json.dumps(report, allow_nan=False)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "lstm"),
    [
        ("zabir-nabil_dot-res-lstm__bilstm.h5", 52_160),
        ("umbertogriffo_Predictive-Maintenance-using-LSTM__regression_model.h5", None),
        ("dl4j__lstm_functional_tf_keras_2.h5", None),
        ("dl4j__masking_two_lstm.h5", None),
    ],
)
def test_real_files(name: str, lstm: int | None) -> None:
    report = run("inspect", CORPUS / name, "--json").json
    check_sums(report)
    assert report["source"]["era"] == "keras2"
    assert lstm in (None, report["parameters"]["lstm"])
    assert run("inspect", CORPUS / name).code == 0
