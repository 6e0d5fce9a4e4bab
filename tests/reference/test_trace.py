"""What a trace says happens inside a layer is what the layer answers with."""

from __future__ import annotations

import numpy as np
import pytest
from support.neutral import make_cell, make_layer

from lstmconvert import reference
from lstmconvert.model.gates import Gate

STEPS = 6


def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def test_gates_states_and_outputs_are_those_of_the_equations() -> None:
    cell = make_cell(rng(), 3, 2)
    x = rng().normal(size=(STEPS, 3))
    trace = reference.trace(make_layer(cell), x, dtype="float64")["forward", 0]
    h, c = np.zeros(2), np.zeros(2)
    for step in range(STEPS):
        z = {
            gate: x[step] @ w.kernel + h @ w.recurrent_kernel + w.bias
            for gate, w in cell.gates.items()
        }
        gates = {gate: np.tanh(v) if gate is Gate.CELL else sigmoid(v) for gate, v in z.items()}
        c = gates[Gate.FORGET] * c + gates[Gate.INPUT] * gates[Gate.CELL]
        h = gates[Gate.OUTPUT] * np.tanh(c)
        for gate, value in gates.items():
            assert np.allclose(trace.gates[gate][step], value, rtol=1e-12)
        assert np.allclose(trace.carry[step], c, rtol=1e-12)
        assert np.allclose(trace.hidden[step], h, rtol=1e-12)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("is_masked", [False, True])
def test_both_directions_and_stacks_in_the_order_of_the_input(
    time_major: bool, is_masked: bool
) -> None:
    def stack() -> list:
        return [make_cell(rng(), 3, 2), make_cell(rng(), 2, 4)]

    layer = make_layer(
        stack(), stack(), merge_mode=None, return_sequences=True, time_major=time_major
    )
    x = rng().normal(size=(STEPS, 3))
    mask = np.array([1, 1, 0, 1, 1, 0], bool) if is_masked else None
    traces = reference.trace(layer, x, mask=mask)
    assert list(traces) == [(side, k) for side in ("forward", "backward") for k in (0, 1)]
    axis = 1 if time_major else 0
    whole = reference.run(
        layer, np.expand_dims(x, axis), mask=None if mask is None else np.expand_dims(mask, axis)
    )
    for side, output in zip(("forward", "backward"), whole.outputs, strict=True):
        hidden = traces[side, 1].hidden
        assert hidden.shape == (STEPS, 4)
        real = slice(None) if mask is None else mask
        assert np.array_equal(hidden[real], np.take(output, 0, axis)[real])
    assert np.array_equal(traces["backward", 1].hidden[0], whole.states[6][0])


def test_masked_steps_keep_the_states() -> None:
    trace = reference.trace(
        make_layer(make_cell(rng(), 3, 2)),
        rng().normal(size=(4, 3)),
        mask=[True, False, False, True],
    )["forward", 0]
    assert np.array_equal(trace.carry[2], trace.carry[0])
    assert np.array_equal(trace.hidden[1], trace.hidden[0])
    assert not np.array_equal(trace.carry[3], trace.carry[2])


def test_projection_coupled_gates_and_convolution() -> None:
    cell = make_cell(rng(), 3, 4, projected=2, input_forget=True)
    trace = reference.trace(make_layer(cell), rng().normal(size=(STEPS, 3)))["forward", 0]
    assert trace.hidden.shape == (STEPS, 2)
    assert np.array_equal(trace.gates[Gate.INPUT], 1 - trace.gates[Gate.FORGET])
    settings = {"strides": 1, "dilation_rate": 1, "padding": "same", "data_format": "channels_last"}
    cell = make_cell(rng(), 2, 3, window=(3, 2), convolution=settings)
    trace = reference.trace(make_layer(cell), rng().normal(size=(STEPS, 5, 4, 2)))["forward", 0]
    assert trace.carry.shape == (STEPS, 5, 4, 3)
