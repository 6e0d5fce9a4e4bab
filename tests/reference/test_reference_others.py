"""The forward pass against engines that are not Keras: what only they have.

ONNX Runtime: peepholes, gate clip, coupled gates, two biases, its own activations. PyTorch:
projection. TensorFlow 1's LSTMCell (as tf_keras keeps it): peepholes, cell clip, projection and
its clip, the run-time forget bias.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from support.neutral import make_cell, make_layer

from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import Gate, by_letters
from lstmconvert.model.layer import Cell
from lstmconvert.reference import run

#: float32: an ULP of a number near 1 is 1.2e-7; dot products of 8 terms and the engines' own
#: rational tanh and sigmoid err by a few, and 6 steps add them up.
FLOAT32 = 2e-6
#: float64: the same operations in another order.
FLOAT64 = 1e-13

BATCH, STEPS, INPUTS, UNITS = 3, 6, 4, 5
#: Large enough that clips and kinks are reached.
SCALE = 0.9


def x_of(dtype: str) -> np.ndarray:
    return (2 * np.random.default_rng(3).normal(size=(BATCH, STEPS, INPUTS))).astype(dtype)


def cell_of(dtype: str, **options: Any) -> Cell:
    return make_cell(np.random.default_rng(4), INPUTS, UNITS, dtype=dtype, scale=SCALE, **options)


def stacked(cell: Cell, part: str, letters: str) -> np.ndarray:
    """One part of all gates as PyTorch and ONNX have it: rows are units, gates in that order."""
    return np.concatenate([cell.gates[g].tensors[part].read().T for g in by_letters(letters)])


def onnx_lstm(cells: Sequence[Cell], x: np.ndarray, **attributes: Any) -> list[np.ndarray]:
    """Run ONNX Runtime's LSTM: Y (time, directions, batch, units), Y_h, Y_c."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    biases = [
        np.concatenate([stacked(c, p, "iofc") for p in ("bias", "recurrent_bias")]) for c in cells
    ]
    values = {
        "W": np.stack([stacked(c, "kernel", "iofc") for c in cells]),
        "R": np.stack([stacked(c, "recurrent_kernel", "iofc") for c in cells]),
        "B": np.stack(biases),
        "P": np.stack([stacked(c, "peephole", "iof") for c in cells]),
    }
    node = helper.make_node(
        "LSTM",
        ["X", "W", "R", "B", "", "", "", "P"],
        ["Y", "Y_h", "Y_c"],
        hidden_size=UNITS,
        direction="bidirectional" if len(cells) == 2 else "forward",
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("X", number, [STEPS, BATCH, INPUTS])],
        [helper.make_tensor_value_info(name, number, None) for name in ("Y", "Y_h", "Y_c")],
        [onnx.numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"X": x.swapaxes(0, 1)}))


def onnx_cell(**options: Any) -> Cell:
    parts = ("bias", "recurrent_bias", "peephole")
    return cell_of("float32", gate_parts=parts, **options)


def agrees_with_onnx(cells: Sequence[Cell], theirs: Sequence[np.ndarray]) -> None:
    layer = make_layer(*cells, return_sequences=True, merge_mode=None)
    ours = run(layer, x_of("float32"))
    y, last, carry = theirs
    for side, output in enumerate(ours.outputs):
        np.testing.assert_allclose(output.swapaxes(0, 1), y[:, side], atol=FLOAT32)
        np.testing.assert_allclose(ours.states[2 * side], last[side], atol=FLOAT32)
        np.testing.assert_allclose(ours.states[2 * side + 1], carry[side], atol=FLOAT32)


@pytest.mark.parametrize("clip", [None, 0.7])
def test_onnx_peepholes_two_biases_and_gate_clip(clip: float | None) -> None:
    cell = onnx_cell(gate_clip=clip)
    attributes = {} if clip is None else {"clip": clip}
    agrees_with_onnx([cell], onnx_lstm([cell], x_of("float32"), **attributes))


def test_onnx_bidirectional() -> None:
    one, other = (
        onnx_cell(),
        make_cell(
            np.random.default_rng(9),
            INPUTS,
            UNITS,
            gate_parts=("bias", "recurrent_bias", "peephole"),
        ),
    )
    agrees_with_onnx([one, other], onnx_lstm([one, other], x_of("float32")))


@pytest.mark.parametrize("clip", [None, 0.7])
def test_onnx_coupled_gates(clip: float | None) -> None:
    """ONNX Runtime computes f = 1 - i from the input gate; our cells store the forget gate.

    With i = sigmoid(-z), f = sigmoid(z): the input gate of the ONNX node is the negated forget
    gate, and what the node has as forget gate must not matter.
    """
    full = onnx_cell()
    coupled = onnx_cell(input_forget=True, gate_clip=clip)
    forget = {part: t.read() for part, t in full.forget_gate.tensors.items()}
    ours = _with(coupled, {g: full.gates[g] for g in coupled.gates})
    theirs = _with(full, {Gate.INPUT: _gate(full, {p: -a for p, a in forget.items()})})
    attributes = {"input_forget": 1} | ({} if clip is None else {"clip": clip})
    agrees_with_onnx([ours], onnx_lstm([theirs], x_of("float32"), **attributes))


def _with(cell: Cell, gates: Mapping[Gate, Any]) -> Cell:
    from dataclasses import replace

    return replace(cell, gates=dict(cell.gates) | dict(gates))


def _gate(cell: Cell, arrays: Mapping[str, np.ndarray]) -> Any:
    from lstmconvert.model.layer import GateWeights
    from lstmconvert.tensors.tensor import ArrayTensor

    return GateWeights(Gate.INPUT, {part: ArrayTensor(array) for part, array in arrays.items()})


#: (f, g, h): what ONNX calls them, with alpha and beta, and what we call them.
ONNX_ACTIVATIONS: dict[str, tuple[dict[str, Any], tuple[Activation, Activation, Activation]]] = {
    "affine": (
        {"activations": ["HardSigmoid", "Affine", "ScaledTanh"]}
        | {"activation_alpha": [0.3, 0.7, 1.7], "activation_beta": [0.4, -0.2, 0.6]},
        (
            Activation("hard_sigmoid", {"alpha": 0.3, "beta": 0.4}),
            Activation("affine", {"alpha": 0.7, "beta": -0.2}),
            Activation("scaled_tanh", {"alpha": 1.7, "beta": 0.6}),
        ),
    ),
    "leaky": (
        {"activations": ["Sigmoid", "LeakyRelu", "Softsign"], "activation_alpha": [0.05]},
        (
            Activation("sigmoid"),
            Activation("leaky_relu", {"negative_slope": 0.05}),
            Activation("softsign"),
        ),
    ),
    "thresholded": (
        {"activations": ["Sigmoid", "ThresholdedRelu", "Elu"], "activation_alpha": [0.5, 0.8]},
        (
            Activation("sigmoid"),
            Activation("thresholded_relu", {"alpha": 0.5}),
            Activation("elu", {"alpha": 0.8}),
        ),
    ),
    "relu": (
        {"activations": ["Sigmoid", "Tanh", "Relu"]},
        (Activation("sigmoid"), Activation("tanh"), Activation("relu")),
    ),
}


@pytest.mark.parametrize("name", ONNX_ACTIVATIONS)
def test_onnx_activations(name: str) -> None:
    attributes, (gates, activation, output) = ONNX_ACTIVATIONS[name]
    cell = onnx_cell(recurrent_activation=gates, activation=activation, output_activation=output)
    agrees_with_onnx([cell], onnx_lstm([cell], x_of("float32"), **attributes))


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("projected", [None, 2])
def test_torch(projected: int | None, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    parts = ("bias", "recurrent_bias")
    cell = cell_of(dtype, gate_parts=parts, projected=projected)
    module = torch.nn.LSTM(INPUTS, UNITS, batch_first=True, proj_size=projected or 0)
    weights = {
        "weight_ih_l0": stacked(cell, "kernel", "ifco"),
        "weight_hh_l0": stacked(cell, "recurrent_kernel", "ifco"),
        "bias_ih_l0": stacked(cell, "bias", "ifco"),
        "bias_hh_l0": stacked(cell, "recurrent_bias", "ifco"),
    }
    if projected:
        weights["weight_hr_l0"] = cell.parts["projection"].read().T
    module = module.to(getattr(torch, dtype))
    module.load_state_dict({k: torch.tensor(np.ascontiguousarray(v)) for k, v in weights.items()})
    x = x_of(dtype)
    with torch.no_grad():
        output, (hidden, carry) = module(torch.tensor(x))
    ours = run(make_layer(cell, return_sequences=True), x)
    tolerance = FLOAT64 if dtype == "float64" else FLOAT32
    theirs = (output, hidden[0], carry[0])
    for one, two in zip((*ours.outputs, *ours.states), theirs, strict=True):
        np.testing.assert_allclose(one, two.numpy(), atol=tolerance)


TF1: list[dict[str, Any]] = [
    {},
    {"use_peepholes": True},
    {"use_peepholes": True, "cell_clip": 0.3},
    {"num_proj": 2},
    {"use_peepholes": True, "cell_clip": 0.3, "num_proj": 2, "proj_clip": 0.15},
    {"forget_bias": 0.25},
]


@pytest.mark.engines
@pytest.mark.parametrize("settings", TF1, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensorflow_1(settings: dict[str, Any], dtype: str) -> None:
    legacy = pytest.importorskip("tf_keras.src.layers.rnn.legacy_cells")
    cell = cell_of(
        dtype,
        gate_parts=("bias", *(["peephole"] if settings.get("use_peepholes") else [])),
        projected=settings.get("num_proj"),
        forget_bias=settings.get("forget_bias", 1.0),
        cell_clip=settings.get("cell_clip"),
        projection_clip=settings.get("proj_clip"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow 1's cells announce their deprecation
        theirs = legacy.LSTMCell(UNITS, dtype=dtype, **settings)
    x = x_of(dtype)
    theirs.build((BATCH, INPUTS))
    theirs.set_weights(_tensorflow_1_weights(cell))
    state = theirs.zero_state(BATCH, dtype)
    sequence = []
    for step in x.swapaxes(0, 1):
        output, state = theirs(step, state)
        sequence.append(np.asarray(output))
    ours = run(make_layer(cell, return_sequences=True), x)
    tolerance = FLOAT64 if dtype == "float64" else FLOAT32
    np.testing.assert_allclose(ours.outputs[0], np.stack(sequence, axis=1), atol=tolerance)
    np.testing.assert_allclose(ours.states[0], np.asarray(state[1]), atol=tolerance)
    np.testing.assert_allclose(ours.states[1], np.asarray(state[0]), atol=tolerance)


def _tensorflow_1_weights(cell: Cell) -> list[np.ndarray]:
    order = by_letters("icfo")
    kernels = [cell.fused(part, order).read() for part in ("kernel", "recurrent_kernel")]
    weights = [np.concatenate(kernels), cell.fused("bias", order).read()]
    if "peephole" in cell.gate_parts:
        weights += [cell.gates[gate].tensors["peephole"].read() for gate in by_letters("fio")]
    if "projection" in cell.parts:
        weights.append(cell.parts["projection"].read())
    return weights


@pytest.mark.parametrize("clip", ["gate_clip", "cell_clip", "projection_clip"])
def test_the_clips_of_these_tests_are_reached(clip: str) -> None:
    bound = {"gate_clip": 0.7, "cell_clip": 0.3, "projection_clip": 0.15}[clip]
    x = x_of("float32")
    with_clip, without = (
        run(make_layer(cell_of("float32", projected=2, **options)), x).outputs[0]
        for options in ({clip: bound}, {})
    )
    assert np.abs(with_clip - without).max() > 1e-2
