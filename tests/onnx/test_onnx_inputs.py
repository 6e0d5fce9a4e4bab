"""What a graph does before an LSTM node: it turns the sequence round, and gives initial states.

ONNX Runtime is the judge: it runs the graph, and the layer that was read computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.corpus import CORPUS
from support.onnx_tools import difference, run

import lstmconvert as lc
from lstmconvert.errors import SourceError
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.reference import run as reference
from lstmconvert.tensors.dtypes import Array

BOUND = 2e-6
BATCH, TIME, INPUTS, UNITS = 2, 5, 3, 4
LEAST = -(2**63)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    names = [name if name != "-" else "" for name in inputs.split()]
    return helper.make_node(operator, names, [output], **attributes)


def ints(name: str, *values: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value_ints=list(values))


def int_(name: str, value: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value_int=value)


def model(
    path: Path, nodes: Sequence[onnx.NodeProto], more: str = "", given: Any = (), **how: Any
) -> Path:
    """Write a graph: input x (batch, time, inputs), `nodes`, which make X, and an LSTM of X."""
    rng = np.random.default_rng(0)
    directions = 2 if how.get("direction") == "bidirectional" else 1
    weights = {
        "W": rng.normal(size=(directions, 4 * UNITS, INPUTS)),
        "R": rng.normal(size=(directions, 4 * UNITS, UNITS)),
        "B": rng.normal(size=(directions, 8 * UNITS)),
    }
    dims = how.pop("dims", ["batch", "time", INPUTS])
    behind = how.pop("behind", [node("Identity", "Y", "out")])
    lstm = helper.make_node(
        "LSTM", ["X", *weights, *more.split(",")], ["Y"], name="encoder", hidden_size=UNITS, **how
    )
    graph = helper.make_graph(
        [*nodes, lstm, *behind],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims), *given],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype("f4"), name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def only(path: Path) -> LSTMLayer:
    (layer,) = lc.load(path).layers
    return layer


BY_TIME = node("Transpose", "x", "t", perm=[1, 0, 2])
SIZES = [ints("i0", 0), ints("i1", 1), node("Shape", "t", "s")]
#: What tf2onnx makes of tf.reverse.
ALL_STEPS = [
    *SIZES,
    node("Gather", "s i0", "steps"),
    node("Gather", "s i1", "count"),
    node("Expand", "steps count", "lens"),
]
SLICE = [ints("last", -1), ints("least", LEAST)]
#: Nodes that make X (time, batch, inputs) of x, and whether they turn it round.
BEFORE: dict[str, tuple[list[onnx.NodeProto], bool]] = {
    "not": ([node("Transpose", "x", "X", perm=[1, 0, 2])], False),
    "reverse_sequence": (
        [BY_TIME, *ALL_STEPS, node("ReverseSequence", "t lens", "X", batch_axis=1, time_axis=0)],
        True,
    ),
    "reverse_sequence_of_the_batch_first": (
        [
            ints("i0", 0), ints("i1", 1), ints("i2", 2), node("Shape", "x", "s"),
            node("Cast", "s", "s32", to=TensorProto.INT32),
            node("Slice", "s32 i1 i2 i0", "steps"),
            node("Gather", "s i0", "count"),
            node("Expand", "steps count", "lens32"),
            node("Cast", "lens32", "lens", to=TensorProto.INT64),
            node("ReverseSequence", "x lens", "r", batch_axis=0, time_axis=1),
            node("Transpose", "r", "X", perm=[1, 0, 2]),
        ],
        True,
    ),
    "the_length_of_another_layout": (
        [
            BY_TIME, int_("one", 1), ints("i0", 0), node("Shape", "x", "s"),
            node("Gather", "s one", "steps"), node("Gather", "s i0", "count"),
            node("Expand", "steps count", "lens"),
            node("ReverseSequence", "t lens", "X", batch_axis=1, time_axis=0),
        ],
        True,
    ),
    "slice": (
        [BY_TIME, *SLICE, ints("i0", 0), node("Slice", "t last least i0 last", "X")],
        True,
    ),
    "slice_before_the_transpose": (
        [
            *SLICE, ints("i1", 1), node("Slice", "x last least i1 last", "r"),
            node("Transpose", "r", "X", perm=[1, 0, 2]),
        ],
        True,
    ),
    "twice": (
        [
            *SLICE, ints("i0", 0), ints("i1", 1), node("Slice", "x last least i1 last", "r"),
            node("Transpose", "r", "t", perm=[1, 0, 2]),
            node("Slice", "t last least i0 last", "X"),
        ],
        False,
    ),
    "behind_a_cast": (
        [
            *SLICE, ints("i1", 1), node("Slice", "x last least i1 last", "r"),
            node("Cast", "r", "c", to=TensorProto.DOUBLE),
            node("Cast", "c", "d", to=TensorProto.FLOAT),
            node("Transpose", "d", "X", perm=[1, 0, 2]),
        ],
        True,
    ),
    "behind_new_axes": (
        [
            *SLICE, ints("i1", 1), ints("i0", 0), node("Slice", "x last least i1 last", "r"),
            node("Unsqueeze", "r i0", "u"), node("Squeeze", "u i0", "q"),
            node("Transpose", "q", "X", perm=[1, 0, 2]),
        ],
        True,
    ),
}
STATIC: dict[str, list[onnx.NodeProto]] = {
    "lengths": [
        BY_TIME, ints("lens", *[TIME] * BATCH),
        node("ReverseSequence", "t lens", "X", batch_axis=1, time_axis=0),
    ],
    "slice": [
        BY_TIME, ints("last", TIME - 1), ints("least", -TIME - 1), ints("i0", 0), ints("m", -1),
        node("Slice", "t last least i0 m", "X"),
    ],
    "gather": [BY_TIME, ints("at", *range(TIME - 1, -1, -1)), node("Gather", "t at", "X", axis=0)],
}


def x_of() -> Array:
    return np.random.default_rng(1).normal(size=(BATCH, TIME, INPUTS)).astype("f4")


def assert_agrees(path: Path) -> None:
    """Assert that the layer that was read computes what ONNX Runtime computes."""
    (steps,) = run(path, {"x": x_of()}).values()  # (time, directions, batch, units)
    layer = only(path)
    outputs = reference(layer, x_of()).outputs
    wanted = [np.swapaxes(steps[:, half], 0, 1) for half in range(steps.shape[1])]
    assert difference(outputs[: len(wanted)], wanted) < BOUND


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("kind", BEFORE)
def test_a_sequence_that_is_turned_before(kind: str, direction: str, tmp_path: Path) -> None:
    nodes, turned = BEFORE[kind]
    path = model(tmp_path / "m.onnx", nodes, direction=direction)
    backwards = turned != (direction == "reverse")
    layer = only(path)
    assert layer.forward.options.go_backwards is backwards
    notes = " ".join(lc.load(path).notes)
    assert ("turns the sequence round" in notes) is turned
    if direction == "reverse" and turned:  # reads forwards, and its steps come out turned round
        assert "turn them round yourself" in notes
    else:
        assert_agrees(path)


@pytest.mark.parametrize("kind", STATIC)
def test_one_of_a_length_that_the_graph_states(kind: str, tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx", STATIC[kind], dims=[BATCH, TIME, INPUTS])
    assert only(path).forward.options.go_backwards is True
    assert_agrees(path)
    unknown = model(tmp_path / "n.onnx", STATIC[kind], dims=["b", "t", INPUTS])
    with pytest.raises(SourceError, match="turns a part of each sequence round"):
        lc.load(unknown)


def test_both_halves_of_a_bidirectional_node_read_the_other_way(tmp_path: Path) -> None:
    nodes, _ = BEFORE["reverse_sequence"]
    behind = [
        node("Transpose", "Y", "u", perm=[0, 2, 1, 3]), ints("joined", 0, 0, -1),
        node("Reshape", "u joined", "out"),
    ]
    path = model(tmp_path / "m.onnx", nodes, direction="bidirectional", behind=behind)
    layer = only(path)
    assert layer.backward is not None
    assert layer.forward.options.go_backwards is True
    assert layer.backward.options.go_backwards is False
    (steps,) = run(path, {"x": x_of()}).values()
    assert difference(reference(layer, x_of()).outputs, [np.swapaxes(steps, 0, 1)]) < BOUND


LENGTHS = helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"])


def test_lengths_of_the_caller_are_refused_unless_the_node_has_them(tmp_path: Path) -> None:
    """Each sequence turned round within its length, and read for that length: read backwards."""
    turned = node("ReverseSequence", "t lengths", "X", batch_axis=1, time_axis=0)
    with pytest.raises(SourceError, match="turns a part of each sequence round"):
        lc.load(model(tmp_path / "m.onnx", [BY_TIME, turned], given=[LENGTHS]))
    cast = node("Cast", "lengths", "lens", to=TensorProto.INT32)
    path = model(tmp_path / "n.onnx", [BY_TIME, turned, cast], "lens", given=[LENGTHS])
    assert only(path).forward.options.go_backwards is True


# ---- initial states ------------------------------------------------------------------------------


def info(name: str, *dims: object) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


PLAIN = BEFORE["not"][0]
STATE = [info("state", 2, 1, "batch", UNITS)]
PICKED = [
    int_("zero", 0), int_("one", 1), node("Gather", "state zero", "h", axis=0),
    node("Gather", "state one", "c", axis=0),
]


def test_initial_states_of_the_caller_are_told(tmp_path: Path) -> None:
    given = [info("h0", 1, "batch", UNITS), info("c0", 1, "batch", UNITS)]
    path = model(tmp_path / "m.onnx", PLAIN, ",h0,c0", given=given)
    result = lc.convert(path, tmp_path / "m.safetensors")
    (warning,) = [text for text in result.warnings if "initial" in text]
    assert "encoder: the graph gives the LSTM its initial states" in warning
    assert "initial_h from the graph's input h0" in warning
    assert "initial_c from the graph's input c0" in warning
    assert f"initial_state=[h, c], each (batch, {UNITS})" in warning
    assert "initial states" in str(lc.inspect(path))
    # And what is told is what the graph computes.
    rng = np.random.default_rng(2)
    h, c = (rng.normal(size=(BATCH, UNITS)).astype("f4") for _ in range(2))
    (steps,) = run(path, {"x": x_of(), "h0": h[None], "c0": c[None]}).values()
    layer = only(path)
    found = reference(layer, x_of(), initial_state=[h, c]).outputs[0]
    assert difference([found], [np.swapaxes(steps[:, 0], 0, 1)]) < BOUND


def test_they_are_told_behind_nodes_that_pick_them(tmp_path: Path) -> None:
    """Silero's and other streaming models take one tensor of both states."""
    path = model(tmp_path / "m.onnx", [*PLAIN, *PICKED], ",h,c", given=STATE)
    (note,) = lc.load(path).notes
    assert note.count("the graph's input state") == 2


def test_they_are_told_where_the_graph_computes_them(tmp_path: Path) -> None:
    nodes = [*PLAIN, *PICKED, node("Tanh", "h", "h2")]
    path = model(tmp_path / "m.onnx", nodes, ",h2", given=STATE)
    (note,) = lc.load(path).notes
    assert "initial_h from what Tanh computes, the other zero" in note


def test_both_halves_are_given_theirs(tmp_path: Path) -> None:
    given = [info("h0", 2, "batch", UNITS), info("c0", 2, "batch", UNITS)]
    path = model(tmp_path / "m.onnx", PLAIN, ",h0,c0", given=given, direction="bidirectional")
    (note,) = lc.load(path).notes
    assert "[forward h, forward c, backward h, backward c]" in note


ZEROS: dict[str, list[onnx.NodeProto]] = {
    "expand": [
        helper.make_node("Constant", [], ["z"], value_floats=[0.0] * UNITS),
        node("Expand", "z shape", "h"),
    ],
    "constant_of_shape": [node("ConstantOfShape", "shape", "h")],
    "joined": [
        node("ConstantOfShape", "shape", "a"), ints("i0", 0), ints("i1", 1),
        node("Slice", "a i0 i1 i0", "h"),
    ],
}


@pytest.mark.parametrize("kind", ZEROS)
def test_zeros_of_the_size_of_a_batch_are_nothing_to_tell(kind: str, tmp_path: Path) -> None:
    nodes = [
        *PLAIN, ints("first", 0), ints("units", UNITS), ints("single", 1),
        node("Shape", "x", "sizes"), node("Gather", "sizes first", "count"),
        node("Concat", "single count units", "shape", axis=0), *ZEROS[kind],
    ]
    path = model(tmp_path / "m.onnx", nodes, ",h,h")
    assert lc.load(path).notes == ()
    assert_agrees(path)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["silero_vad_16k_op15", "silero_vad_half"])
def test_silero_is_told_what_to_pass(name: str) -> None:

    notes = lc.load(CORPUS / f"snakers4_silero-vad__{name}.onnx").notes
    (note,) = notes
    assert note.count("the graph's input state") == 2
    assert "initial_state=[h, c]" in note
