"""The forward pass by itself: what it takes, what it refuses, and identities that must hold."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support.neutral import from_keras_weights, make_cell, make_layer

from lstmconvert.errors import UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.model.activations import LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model.options import UNKNOWN, LayerOptions
from lstmconvert.reference import run

RNG = np.random.default_rng(0)
#: Two orders of the same float64 operations: a few roundings of numbers near 1.
SAME = 1e-14


def x_of(layer: LSTMLayer, batch: int = 2, steps: int = 4) -> np.ndarray:
    return RNG.normal(size=(batch, steps, layer.input_dim))


def double(**options: Any) -> Cell:
    return make_cell(np.random.default_rng(1), 3, 2, dtype="float64", **options)


def test_one_step_by_hand() -> None:
    kernel = np.array([[0.1, 0.2, 0.3, 0.4]])
    recurrent = np.array([[0.5, -0.6, 0.7, -0.8]])
    bias = np.array([0.01, 0.02, 0.03, 0.04])
    layer = from_keras_weights([kernel, recurrent, bias], cell_options={"activation": LINEAR})
    h, c, x = 0.25, -2.0, 3.0
    result = run(layer, [[[x]]], initial_state=[[[h]], [[c]]])

    i, f, g, o = (x * kernel + h * recurrent + bias)[0]
    i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
    new_c = f * c + i * g
    np.testing.assert_allclose(result.states[1], [[new_c]], rtol=1e-15)
    np.testing.assert_allclose(result.states[0], [[o * new_c]], rtol=1e-15)
    np.testing.assert_array_equal(result.outputs[0], result.states[0])


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_of_the_computation(stored: str) -> None:
    layer = make_layer(make_cell(RNG, 3, 2, dtype=stored))
    expected = "float64" if stored == "float64" else "float32"
    result = run(layer, x_of(layer))
    assert {a.dtype.name for a in (*result.outputs, *result.states)} == {expected}
    wide = run(layer, x_of(layer), dtype="float64")
    assert {a.dtype.name for a in (*wide.outputs, *wide.states)} == {"float64"}


def test_narrow_weights_are_widened_exactly() -> None:
    narrow = make_layer(make_cell(np.random.default_rng(2), 3, 2, dtype="bfloat16"))
    arrays = [narrow.cell.fused(p).read().astype("float32") for p in narrow.cell.gate_parts]
    x = x_of(narrow)
    one, two = run(narrow, x), run(from_keras_weights(arrays), x)
    np.testing.assert_array_equal(one.outputs[0], two.outputs[0])


def test_states_feed_the_next_call() -> None:
    """A sequence in two calls is the sequence in one: what stateful means."""
    cells = [double(), make_cell(RNG, 2, 4, dtype="float64")]
    layer = make_layer(cells, return_sequences=True)
    x = x_of(layer, steps=6)
    whole = run(layer, x)
    first = run(layer, x[:, :2])
    second = run(layer, x[:, 2:], initial_state=first.states)
    joined = np.concatenate([first.outputs[0], second.outputs[0]], axis=1)
    np.testing.assert_allclose(joined, whole.outputs[0], atol=SAME)
    for ours, theirs in zip(second.states, whole.states, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=SAME)


def test_shapes_of_a_stack_in_both_directions() -> None:
    cells = [make_cell(RNG, 3, 4), make_cell(RNG, 4, 2)]
    layer = make_layer(cells, cells, return_sequences=True, merge_mode=None)
    result = run(layer, np.zeros((5, 7, 3)))
    assert [a.shape for a in result.outputs] == [(5, 7, 2)] * 2
    assert [a.shape for a in result.states] == [(5, 4), (5, 4), (5, 2), (5, 2)] * 2


def test_two_biases_are_summed() -> None:
    cell = double(gate_parts=("bias", "recurrent_bias"))
    weights = [cell.fused(part).read() for part in cell.gate_parts]
    summed = [*weights[:2], weights[2] + weights[3]]
    x = x_of(make_layer(cell))
    one, two = run(make_layer(cell), x), run(from_keras_weights(summed), x)
    np.testing.assert_allclose(one.outputs[0], two.outputs[0], atol=SAME)


def test_forget_bias_is_added_to_the_forget_gate_at_run_time() -> None:
    cell = double()
    weights = [cell.fused(part).read() for part in cell.gate_parts]
    x = x_of(make_layer(cell))
    added = run(make_layer(double(forget_bias=1.5)), x)
    weights[2] = weights[2] + np.repeat([0, 1.5, 0, 0], 2)
    np.testing.assert_allclose(
        added.outputs[0], run(from_keras_weights(weights), x).outputs[0], atol=SAME
    )


def test_coupled_gates_have_the_input_gate_of_the_forget_gate() -> None:
    """sigmoid(-z) = 1 - sigmoid(z): the negated forget gate as input gate is the coupled cell."""
    coupled = double(input_forget=True, gate_parts=("bias", "peephole"))
    assert Gate.INPUT not in coupled.gates
    negated = {p: -t.read() for p, t in coupled.forget_gate.tensors.items()}
    full = double(gate_parts=("bias", "peephole"))
    gates = dict(coupled.gates) | {Gate.INPUT: _gate(full, Gate.INPUT, negated)}
    plain = dataclasses.replace(full, gates={gate: gates[gate] for gate in GATES})
    x = x_of(make_layer(plain))
    one, two = run(make_layer(coupled), x), run(make_layer(plain), x)
    np.testing.assert_allclose(one.outputs[0], two.outputs[0], atol=SAME)


def _gate(cell: Cell, gate: Gate, arrays: dict[str, np.ndarray]) -> Any:
    from lstmconvert.tensors.tensor import ArrayTensor

    tensors = {part: ArrayTensor(array) for part, array in arrays.items()}
    return dataclasses.replace(cell.gates[gate], tensors=tensors)


def test_output_activation_is_for_the_way_out_only() -> None:
    x = x_of(make_layer(double()))
    squashed, plain = (
        run(make_layer(double(output_activation=a)), x) for a in (Activation("softsign"), TANH)
    )
    default = run(make_layer(double()), x)
    np.testing.assert_array_equal(plain.outputs[0], default.outputs[0])
    assert np.abs(squashed.outputs[0] - plain.outputs[0]).max() > 1e-3


def test_stored_initial_state_is_the_default_and_gives_way_to_the_caller() -> None:
    cell = double(parts={"initial_hidden": (2,), "initial_cell": (2,)})
    x = x_of(make_layer(cell))
    start = [np.tile(cell.parts[p].read(), (2, 1)) for p in ("initial_hidden", "initial_cell")]
    bare = make_layer(dataclasses.replace(cell, parts={}))
    np.testing.assert_array_equal(
        run(make_layer(cell), x).outputs[0], run(bare, x, initial_state=start).outputs[0]
    )
    zero = [np.zeros((2, 2))] * 2
    np.testing.assert_array_equal(
        run(make_layer(cell), x, initial_state=zero).outputs[0], run(bare, x).outputs[0]
    )


def test_time_major_swaps_input_mask_and_output() -> None:
    cells = double(), make_cell(RNG, 3, 5, dtype="float64")
    x, mask = RNG.normal(size=(2, 4, 3)), RNG.random((2, 4)) > 0.4
    batch = run(make_layer(*cells, return_sequences=True), x, mask=mask)
    time = run(
        make_layer(*cells, return_sequences=True, time_major=True), x.swapaxes(0, 1), mask=mask.T
    )
    np.testing.assert_array_equal(batch.outputs[0], time.outputs[0].swapaxes(0, 1))


def test_an_unknown_time_major_is_batch_major() -> None:
    x = RNG.normal(size=(2, 4, 3))
    unknown, known = (run(make_layer(double(), time_major=t), x) for t in (UNKNOWN, False))
    np.testing.assert_array_equal(unknown.outputs[0], known.outputs[0])


def test_a_masked_start_gives_zero_and_keeps_the_initial_state() -> None:
    layer = make_layer(double(), return_sequences=True)
    state = [RNG.normal(size=(2, 2)) for _ in range(2)]
    nothing = np.zeros((2, 4), bool)
    result = run(layer, x_of(layer), mask=nothing, initial_state=state)
    assert not result.outputs[0].any()
    np.testing.assert_array_equal(result.states, state)


@pytest.mark.parametrize(
    ("option", "cell", "layer", "call"),
    [
        ("activation", {"activation": UNKNOWN}, {}, {}),
        ("recurrent_activation", {"recurrent_activation": UNKNOWN}, {}, {}),
        ("forget_bias", {"forget_bias": UNKNOWN}, {}, {}),
        ("return_sequences", {}, {"return_sequences": UNKNOWN}, {}),
        ("go_backwards", {}, {"go_backwards": UNKNOWN}, {}),
        ("zero_output_for_mask", {}, {"zero_output_for_mask": UNKNOWN}, {"mask": [[1, 0]]}),
        ("merge_mode", {}, {"backward": double(), "merge_mode": UNKNOWN}, {}),
    ],
)
def test_unknown_options_are_asked_for_by_name(
    option: str, cell: dict[str, Any], layer: dict[str, Any], call: dict[str, Any]
) -> None:
    made = make_layer(double(**cell), name="encoder", **layer)
    with pytest.raises(UnknownOption) as caught:
        run(made, np.zeros((1, 2, 3)), **call)
    assert caught.value.where == "encoder"
    assert option in str(caught.value)
    assert f"--set encoder.{option}=VALUE" in str(caught.value.hint)


def test_what_does_not_matter_may_be_unknown() -> None:
    options = ("return_state", "stateful", "unroll", "zero_output_for_mask", "activity_regularizer")
    layer = make_layer(
        double(dropout=UNKNOWN, use_bias=UNKNOWN, policy=UNKNOWN), **dict.fromkeys(options, UNKNOWN)
    )
    assert layer.options == LayerOptions()
    run(layer, x_of(layer))


@pytest.mark.parametrize("option", ["strides", "padding", "dilation_rate", "data_format"])
def test_unknown_options_of_a_convolution(option: str) -> None:
    known = {"strides": 1, "padding": "same", "dilation_rate": 1, "data_format": "channels_last"}
    del known[option]
    for convolution in (known, known | {option: UNKNOWN}):
        cell = make_cell(RNG, 2, 3, window=(3,), convolution=convolution)
        with pytest.raises(UnknownOption, match=option):
            run(make_layer(cell), np.zeros((1, 2, 5, 2)))


def refused_layers() -> dict[str, LSTMLayer]:
    gru = OpaqueCell(class_name="GRUCell", name="gru_cell", config=None)
    settings = {"strides": 1, "padding": "same", "dilation_rate": 1, "data_format": "channels_last"}
    return {
        "GRUCell": make_layer([double(), gru]),
        "layer_norm": make_layer(double(gate_parts=("layer_norm",))),
        "state_norm": make_layer(double(parts={"state_norm": (2,)})),
        "projection": make_layer(
            make_cell(RNG, 3, 4, window=(1,), projected=2, convolution=settings)
        ),
        "glu": make_layer(double(activation=Activation("glu"))),
        "lambda": make_layer(double(recurrent_activation=Activation("lambda"))),
        "weird": make_layer(double(), double(), merge_mode="weird"),
    }


@pytest.mark.parametrize("what", refused_layers())
def test_refused(what: str) -> None:
    layer = refused_layers()[what]
    x = np.zeros((2, 4, 5, 3) if what == "projection" else (2, 4, 3))
    with pytest.raises(UnsupportedByTarget) as caught:
        run(layer, x)
    assert caught.value.target == "reference"
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("x", "call"),
    [
        (np.zeros((4, 3)), {}),
        (np.zeros((2, 4, 5)), {}),
        (np.zeros((2, 0, 3)), {}),
        (np.zeros((2, 4, 3)), {"mask": np.ones((4, 2), bool)}),
        (np.zeros((2, 4, 3)), {"mask": np.ones((2, 4, 1), bool)}),
        (np.zeros((2, 4, 3)), {"initial_state": [np.zeros((2, 2))]}),
        (np.zeros((2, 4, 3)), {"initial_state": [np.zeros((2, 2)), np.zeros((1, 2))]}),
        (np.zeros((2, 4, 3)), {"dtype": "float16"}),
    ],
)
def test_arguments_that_do_not_fit(x: np.ndarray, call: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        run(make_layer(double(), name="encoder"), x, **call)
    assert caught.value.where == "encoder"
    assert caught.value.found
    assert caught.value.expected


def test_nan_in_weights_is_answered_without_a_warning() -> None:
    kernel = np.array([[np.nan, 1e38, -1e38, np.inf]], np.float32)
    layer = from_keras_weights([kernel, kernel], cell_options={"recurrent_activation": SIGMOID})
    assert np.isnan(run(layer, np.ones((1, 2, 1))).outputs[0]).all()


def test_no_framework_is_imported() -> None:
    code = (
        "import sys, lstmconvert.reference; "
        "print({m.split('.')[0] for m in sys.modules} & {'keras', 'tensorflow', 'torch', 'jax'})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
