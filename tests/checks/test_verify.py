"""`verify`: the same input through several engines, and what it says when one differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import KERAS, SEED95, failure, run
from support.layout_tools import case
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.checks import verification
from lstmconvert.live.engines import ENGINES
from lstmconvert.model import edit
from lstmconvert.model.activations import KERAS3, Activation
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import GateWeights, LSTMLayer
from lstmconvert.model.options import UNKNOWN
from lstmconvert.reference import maths
from lstmconvert.tensors.tensor import ArrayTensor

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def layer_of(**options: Any) -> LSTMLayer:
    return make_layer(make_cell(np.random.default_rng(1), 3, 2, **options))


def nudged(layer: LSTMLayer, amount: float, gate: Gate = Gate.FORGET) -> LSTMLayer:
    """The layer with one number of a kernel changed."""
    cell = layer.cell
    array = cell.gates[gate].kernel.copy()
    array[0, 0] += amount
    tensors = {**cell.gates[gate].tensors, "kernel": ArrayTensor(array)}
    gates = {**cell.gates, gate: GateWeights(gate, tensors)}
    forward = replace(layer.forward, cells=(replace(cell, gates=gates),))
    return replace(layer, forward=forward)


def test_every_engine_agrees_on_keras_layers() -> None:
    for name in ("plain", "bidirectional", "no-bias"):
        report = lc.verify(case(name).layer)
        assert report
        assert [line.engine for line in report.lines] == list(ENGINES)
        assert [line.skipped for line in report.lines] == [None] * len(ENGINES)
        assert all(line.max_abs < 1e-6 for line in report.lines)


def test_a_port_agrees_and_a_changed_number_does_not(tmp_path: Path) -> None:
    layer, path = layer_of(), tmp_path / "t.safetensors"
    lc.save(layer, path, layout="torch")
    assert lc.verify(layer, path, engines=["numpy", "torch"])
    lc.save(nudged(layer, 1e-2), path, layout="torch", force=True)
    report = lc.verify(layer, path, engines=["numpy", "torch"])
    assert not report
    a, b = ([line for line in report.lines if line.file == file] for file in "ab")
    assert all(a)
    assert not any(b)
    assert b[0].bad
    assert b[0].first_bad is not None
    assert len(b[0].first_bad) == 3


@pytest.mark.parametrize("gate", list(Gate))
def test_every_gate_is_seen(gate: Gate) -> None:
    layer = layer_of()
    assert not lc.verify(layer, nudged(layer, 1e-2, gate), engines=["numpy"])


def test_swapped_gates_are_seen() -> None:
    layer = layer_of()
    gates = dict(layer.cell.gates)
    gates[Gate.INPUT], gates[Gate.FORGET] = gates[Gate.FORGET], gates[Gate.INPUT]
    cell = replace(layer.cell, gates=gates)
    other = replace(layer, forward=replace(layer.forward, cells=(cell,)))
    assert not lc.verify(layer, other, engines=["numpy"])


def test_tolerances_and_seed_are_taken() -> None:
    layer = layer_of(dtype="float64")
    other = nudged(layer, 1e-6)
    assert not lc.verify(layer, other, engines=["numpy"])
    assert lc.verify(layer, other, engines=["numpy"], atol=1e-3)
    assert not lc.verify(layer, other, engines=["numpy"], atol=0, rtol=1e-12)
    one, two = (lc.verify(layer, other, engines=["numpy"], seed=s).lines[1] for s in (0, 1))
    assert one.max_abs != two.max_abs
    assert lc.verify(layer, other, engines=["numpy"]).lines[1] == one


def test_nan_is_nan_and_nothing_else() -> None:
    layer = layer_of()
    broken = nudged(layer, np.nan)
    assert lc.verify(broken, broken, engines=["numpy", "torch"])
    report = lc.verify(layer, broken, engines=["numpy"])
    assert not report
    assert not lc.verify(broken, layer, engines=["numpy"])


def test_an_engine_that_cannot_is_skipped_unless_it_was_named() -> None:
    layer = layer_of(activation=Activation("relu"))
    report = lc.verify(layer)
    skipped = {line.engine: line.skipped for line in report.lines if line.skipped}
    others = {"torch", "mlx", "haiku", "equinox", "tinygrad", "tf1", "litert"}
    assert set(skipped) == others
    assert "cannot express activation" in skipped["torch"]
    assert report
    with pytest.raises(lc.LSTMConvertError, match="cannot express activation"):
        lc.verify(layer, engines=["torch"])


def test_what_is_unknown_is_asked_for() -> None:
    with pytest.raises(lc.LSTMConvertError, match="does not say activation"):
        lc.verify(layer_of(activation=UNKNOWN))


@pytest.mark.parametrize("name", ["conv_lstm1d", "conv_lstm2d", "rnn_stack", "both_sum"])
def test_layers_of_every_kind(name: str) -> None:
    assert lc.verify(KERAS / f"{name}.keras", engines=["numpy", "keras"])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes(dtype: str) -> None:
    layer = layer_of(dtype=dtype)
    report = lc.verify(layer, engines=["numpy", "torch"])
    assert report
    assert report.lines[1].dtype == dtype


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_policy_rounds_as_it_computes(policy: str) -> None:
    """The weights are float32; the bounds are those of the narrow dtype, and so is the input."""
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, policy=policy))
    engines = ["keras", "torch", *(["onnxruntime"] if policy == "mixed_float16" else [])]
    report = lc.verify(layer, engines=engines)
    assert report
    assert report.lines[0].allowed > maths.EPSILONS[policy.removeprefix("mixed_")]
    if policy == "mixed_bfloat16":
        with pytest.raises(lc.LSTMConvertError, match="no LSTM in bfloat16"):
            lc.verify(layer, engines=["onnxruntime"])


def test_both_halves_that_nothing_merges() -> None:
    rng = np.random.default_rng(1)
    layer = make_layer(make_cell(rng, 3, 2), make_cell(rng, 3, 2), merge_mode=None)
    assert lc.verify(layer, engines=["keras", "onnxruntime", "openvino", "flax"])
    with pytest.raises(lc.LSTMConvertError, match="merge_mode; found None; expected concat"):
        lc.verify(layer, engines=["torch"])


def test_ulp() -> None:
    one = np.array([1.0, -1.0, 0.0, -0.0], np.float32)
    two = np.nextafter(one, np.float32(2)).astype(np.float64)
    assert verification._ulp(one, two, np.zeros(4, bool)) == 1
    assert verification._ulp(one[:1], np.array([-1.0]), np.zeros(1, bool)) == 2 * 0x3F800000


def test_files_that_have_not_the_same_layers() -> None:
    with pytest.raises(lc.LSTMConvertError, match="do not have the same layers"):
        lc.verify(SEED95, KERAS / "several.keras", engines=["numpy"])
    wide = make_layer(make_cell(np.random.default_rng(1), 3, 4))
    with pytest.raises(lc.LSTMConvertError, match="other shapes"):
        lc.verify(layer_of(), wide, engines=["numpy"])


def test_a_tolerance_is_not_negative() -> None:
    assert "'--rtol'" in failure("verify", SEED95, "--rtol", "-1")[0]


def test_the_command(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "t.safetensors", layout="torch")
    args = ("verify", SEED95, tmp_path / "t.safetensors", "--engine", "numpy", "--engine", "torch")
    done = run(*args)
    assert done.code == 0
    assert done.out.count("agrees") == 3
    assert done.out.count("is the reference") == 1
    assert "seed 0" in done.out
    assert "NaN equals NaN" in done.out
    found = run(*args, "--json", "--seed", "3").json
    assert (found["equal"], found["seed"], len(found["lines"])) == (True, 3, 4)
    assert run(*args, "--atol", "0", "--rtol", "1e-12").code == 1
    error, _ = failure("verify", SEED95, "--engine", "nothing")
    assert "no such engine" in error


# ---- two files: equal to the last bit, unless a rounding lies between them ---------------------


def swapped(layer: LSTMLayer) -> LSTMLayer:
    old = layer.cell.gates
    return layer.replacing(
        {
            f"{a}_gate.{part}": old[b].tensors[part].read()
            for a, b in ((Gate.INPUT, Gate.FORGET), (Gate.FORGET, Gate.INPUT))
            for part in old[b].tensors
        }
    )


def zeroed(layer: LSTMLayer) -> LSTMLayer:
    kernel = layer.cell_gate.recurrent_kernel
    return layer.replacing({"cell_gate.recurrent_kernel": np.zeros_like(kernel)})


def stretched(layer: LSTMLayer) -> LSTMLayer:
    kernel = layer.output_gate.kernel.copy()
    kernel[0, 0] *= kernel.dtype.type(1.5)
    return layer.replacing({"output_gate.kernel": kernel})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("damage", [swapped, zeroed, stretched])
def test_damage_is_seen_in_every_dtype(damage: Any, dtype: str) -> None:
    layer = layer_of(dtype=dtype)
    report = lc.verify(layer, damage(layer), engines=["numpy", "torch"])
    assert [bool(line) for line in report.lines] == [True, True, False, False]
    assert lc.verify(layer, layer, engines=["numpy", "torch"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_one_unit_in_the_last_place_is_seen(dtype: str) -> None:
    layer = layer_of(dtype=dtype)
    bias = layer.forget_gate.bias
    assert bias is not None
    bits = bias.copy().view(f"u{bias.itemsize}")
    bits[0] += 1
    other = layer.replacing({"forget_gate.bias": bits.view(bias.dtype)})
    report = lc.verify(layer, other, engines=["numpy"])
    assert not report
    assert report.lines[1].allowed == 0


@pytest.mark.parametrize("damage", [None, swapped, zeroed, stretched])
def test_a_cast_is_a_rounding_that_is_done_again(damage: Any, tmp_path: Path) -> None:
    layer, path = layer_of(), tmp_path / "x.safetensors"
    lc.save(damage(layer) if damage else layer, path, dtype="float16", warn=False)
    assert bool(lc.verify(layer, path, engines=["numpy", "torch"])) is (damage is None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("damage", [None, swapped, zeroed, stretched])
def test_a_summed_bias_is_a_rounding_that_is_done_again(
    damage: Any, dtype: str, tmp_path: Path
) -> None:
    layer = layer_of(gate_parts=("bias", "recurrent_bias"), dtype=dtype)
    path = tmp_path / "x.safetensors"
    lc.save(damage(layer) if damage else layer, path, layout="keras", warn=False)
    report = lc.verify(layer, path, engines=["numpy", "torch"])
    assert bool(report) is (damage is None)
    assert report.lines[-1].allowed == 0


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("damage", [None, swapped, zeroed, stretched])
def test_a_forget_bias_that_was_added_is_too(damage: Any, second: bool) -> None:
    parts = ("bias", "recurrent_bias") if second else ("bias",)
    layer = layer_of(gate_parts=parts, forget_bias=0.7)
    other = damage(layer) if damage else layer
    cell = edit.with_forget_bias(edit.with_one_bias(other.cell), 0.0)
    other = replace(other, forward=replace(other.forward, cells=(cell,)))
    report = lc.verify(layer, other, engines=["numpy"])
    assert bool(report) is (damage is None)
    # The sum of three depends on the order in which they are added.
    assert (report.lines[-1].allowed == 0) is not second


def test_nothing_compared_is_said_and_is_trouble() -> None:
    report = lc.verify(SEED95, engines=["numpy"])
    assert not report
    assert not report.is_compared
    done = run("verify", SEED95, "--engine", "numpy")
    assert done.code == 2
    assert "nothing was compared: no other engine ran" in done.out
    assert "agrees" not in done.out
    assert run("verify", SEED95, "--engine", "numpy", "--json").json["compared"] is False
    assert run("verify", SEED95, SEED95, "--engine", "numpy").code == 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["exponential", "softplus", "relu"])
def test_engines_that_round_elsewhere_raise_no_alarm(name: str, seed: int) -> None:
    """What such a layer makes of rounding errors grows with the steps, in every engine."""
    cell = make_cell(np.random.default_rng(seed), 4, 6, activation=KERAS3[name])
    report = lc.verify(make_layer(cell), engines=["keras", "flax"])
    assert report, str(report)


def test_an_engine_that_is_wrong_is_seen() -> None:
    """The bounds are wide enough for rounding, and too narrow for another function."""
    layer = layer_of(dtype="float16")
    wrong = layer_of(dtype="float16", recurrent_activation=KERAS3["hard_sigmoid"])
    yardstick = verification._Yardstick(verification._sequences(layer), np.ones((2, 5, 3)))
    answer = ENGINES["numpy"].run(verification._sequences(wrong), np.ones((2, 5, 3)))
    line = verification.VerifiedLayer(layer="x", file="a", engine="x")
    assert not verification.compared(
        line, answer, yardstick.answer, yardstick.bound("float16"), None
    )
