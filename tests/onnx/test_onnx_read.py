"""Any ONNX file with LSTM nodes becomes layers that compute what its nodes compute.

Oracles: the ONNX project's own node tests, ONNX Runtime, and PyTorch, Keras and tf2onnx for the
files that they write. Bounds: float32 sums in another order, some ten times what was measured.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.corpus import CORPUS
from support.onnx_tools import INPUTS, difference, node_model, run, weights

import lstmconvert as lc
from lstmconvert.errors import CorruptFile, NoLSTM, SourceError, UnsupportedByTarget
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.options import UNKNOWN
from lstmconvert.reference import run as reference
from lstmconvert.tensors.dtypes import Array, same_bits

BOUND = 2e-6
IOFC = (Gate.INPUT, Gate.OUTPUT, Gate.FORGET, Gate.CELL)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def only(path: Path) -> LSTMLayer:
    (layer,) = lc.load(path).layers
    return layer


def with_two_outputs(layer: LSTMLayer) -> LSTMLayer:
    """Return a layer whose directions, if there are two, are not joined, as a node leaves them."""
    return replace(layer, options=replace(layer.options, merge_mode=None))


def assert_gates(layer: LSTMLayer, given: Mapping[str, Array]) -> None:
    """Assert that a layer's gates are the blocks of a node's W, R and B, bit for bit."""
    units = given["R"].shape[-1]
    for (_, _, cell), direction in zip(layer.cells(), itertools.count(), strict=False):
        for index, gate in enumerate(IOFC):
            rows = slice(index * units, (index + 1) * units)
            tensors = cell.gates[gate]
            assert same_bits(tensors.kernel, given["W"][direction, rows].T)
            assert same_bits(tensors.recurrent_kernel, given["R"][direction, rows].T)
            if "B" in given:
                bias = given["B"][direction, rows]
                second = given["B"][direction, 4 * units :][rows]
                assert tensors.bias is not None
                assert same_bits(tensors.bias, bias)
                assert tensors.recurrent_bias is not None or not second.any()
                if tensors.recurrent_bias is not None:
                    assert same_bits(tensors.recurrent_bias, second)


# ---- the ONNX project's tests --------------------------------------------------------------------


def node_cases() -> dict[str, Any]:
    """Return the LSTM cases of the onnx package: model, inputs and outputs."""
    import onnx.backend.test.case.node as package
    import onnx.backend.test.case.node.lstm  # noqa: F401  # fills the list

    found = {c.name: c for c in package._NodeTestCases if c.name.startswith("test_lstm")}
    assert len(found) >= 6
    return found


@pytest.mark.parametrize(
    "name", ["defaults", "with_initial_bias", "with_peepholes", "batchwise", "reverse",
             "bidirectional"]
)
def test_the_onnx_projects_own_cases(name: str, path: Path) -> None:
    case = node_cases()[f"test_lstm_{name}"]
    (inputs, wanted), model = case.data_sets[0], case.model
    node = model.graph.node[0]
    given = dict(zip([value for value in node.input if value], inputs, strict=True))
    with pytest.raises(SourceError, match="W is not a constant"):
        lc.load(saved(model, path))
    for key, array in given.items():
        if key not in ("X", "sequence_lens"):
            model.graph.initializer.append(numpy_helper.from_array(array, key))
    layer = only(saved(model, path))
    assert_gates(layer, given)
    batch_first = any(attribute.name == "layout" for attribute in node.attribute)
    x = given["X"] if batch_first else np.swapaxes(given["X"], 0, 1)
    outputs = dict(zip([value for value in node.output if value], wanted, strict=True))
    result = reference(with_two_outputs(layer), x)
    if "Y_h" in outputs:
        hidden = np.stack(result.states[::2], axis=1 if batch_first else 0)
        assert difference([hidden], [outputs["Y_h"]]) < BOUND
    if "Y_c" in outputs:
        assert difference([np.stack(result.states[1::2])], [outputs["Y_c"]]) < BOUND
    if "Y" in outputs:
        assert difference([result.outputs[0][:, :, None]], [outputs["Y"]]) < BOUND


# ---- ONNX Runtime --------------------------------------------------------------------------------

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "plain": {"activations": ["Sigmoid", "Softsign", "Softplus"]},
    "lower case": {"activations": ["sigmoid", "tanh", "relu"]},
    "hard_sigmoid": {"activations": ["HardSigmoid", "Tanh", "Tanh"]},
    "constants": {
        "activations": ["HardSigmoid", "Elu", "ScaledTanh"],
        "activation_alpha": [0.3, 0.7, 0.9],
        "activation_beta": [0.4, 1.3],
    },
    "affine": {
        "activations": ["Affine", "LeakyRelu", "ThresholdedRelu"],
        "activation_alpha": [0.3, 0.1, 0.05],
        "activation_beta": [0.4],
    },
    "short lists": {"activations": ["HardSigmoid", "LeakyRelu", "Elu"], "activation_alpha": [0.3]},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clip": {"clip": 0.3},
    "input_forget": {"input_forget": 1},
    "both": {"clip": 0.3, "input_forget": 1},
}


def compare(path: Path, x: Array, outputs: Mapping[str, Array], **arguments: Any) -> float:
    """Return how far a node's outputs are from the reference pass of the layer that was read."""
    layer = with_two_outputs(only(path))
    result = reference(layer, np.swapaxes(x, 0, 1), **arguments)
    hidden, carry = np.stack(result.states[::2]), np.stack(result.states[1::2])
    return difference([hidden, carry], [outputs["Y_h"], outputs["Y_c"]])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_onnx_runtime(activations: str, options: str, direction: str, path: Path) -> None:
    if options in ("input_forget", "both") and activations in ("affine",):
        pytest.skip("coupled gates need a function with f(-x) = 1 - f(x)")
    rng = np.random.default_rng(0)
    count = 2 if direction == "bidirectional" else 1
    given = weights(rng, directions=count)
    given["P"] = (0.5 * rng.normal(size=(count, 6))).astype("f4")
    attributes = dict(ACTIVATIONS[activations])
    if count == 2:
        attributes = {key: value * 2 for key, value in attributes.items()}
    if count == 2 and activations == "short lists":
        attributes["activation_alpha"] = [0.3]
    if options in ("input_forget", "both") and activations == "constants":
        attributes["activation_beta"] = [0.5, 1.3] * count
    model = node_model(given, direction=direction, **attributes, **OPTIONS[options])
    x = rng.normal(size=(5, 3, 3)).astype("f4")
    outputs = run(saved(model, path), {"X": x})
    assert compare(path, x, outputs) < 10 * BOUND
    layer = only(path)
    if direction == "forward":
        steps = reference(layer, np.swapaxes(x, 0, 1)).outputs[0]
        assert difference([np.swapaxes(steps, 0, 1)[:, None]], [outputs["Y"]]) < 10 * BOUND


def test_initial_states_that_are_constant(path: Path) -> None:
    rng = np.random.default_rng(0)
    given = weights(rng)
    for key in ("initial_h", "initial_c"):
        given[key] = np.repeat(rng.normal(size=(1, 1, 2)).astype("f4"), 3, axis=1)
    x = rng.normal(size=(5, 3, 3)).astype("f4")
    outputs = run(saved(node_model(given), path), {"X": x})
    assert compare(path, x, outputs) < BOUND
    assert set(only(path).cell.parts) == {"initial_hidden", "initial_cell"}
    given["initial_h"][0, 1] += 1
    with pytest.raises(SourceError, match="differs from row to row"):
        lc.load(saved(node_model(given), path))


def test_lengths_are_a_mask(path: Path) -> None:
    rng = np.random.default_rng(0)
    given = weights(rng)
    given["sequence_lens"] = lengths = np.array([2, 5, 3], "i4")
    x = rng.normal(size=(5, 3, 3)).astype("f4")
    outputs = run(saved(node_model(given), path), {"X": x})
    layer = only(path)
    assert layer.options.masked is True
    mask = np.arange(5) < lengths[:, None]
    result = reference(layer, np.swapaxes(x, 0, 1), mask=mask)
    assert difference([np.swapaxes(result.outputs[0], 0, 1)[:, None]], [outputs["Y"]]) < BOUND


def test_what_is_zero_is_left_out(path: Path) -> None:
    given = weights(np.random.default_rng(0))
    given["B"][:, 8:] = 0
    given["P"] = np.zeros((1, 6), "f4")
    given["initial_h"] = np.zeros((1, 1, 2), "f4")
    cell = only(saved(node_model(given), path)).cell
    assert cell.gate_parts == ("kernel", "recurrent_kernel", "bias")
    assert not cell.parts
    given["B"][0, 9] = -0.0
    cell = only(saved(node_model(given), path)).cell
    assert cell.gate_parts == ("kernel", "recurrent_kernel", "bias", "recurrent_bias")


def test_hard_sigmoid_is_the_function_with_its_constants(path: Path) -> None:
    names = ["HardSigmoid", "Tanh", "Tanh"]
    given = weights(np.random.default_rng(0))
    saved(node_model(given, activations=names), path)
    assert only(path).cell.options.recurrent_activation == Activation(
        "hard_sigmoid", {"alpha": 0.2, "beta": 0.5}
    )
    saved(node_model(given, activations=names, activation_alpha=[1 / 6]), path)
    assert only(path).cell.options.recurrent_activation == Activation(
        "hard_sigmoid", {"alpha": 1 / 6, "beta": 0.5}
    )


# ---- weights behind nodes ------------------------------------------------------------------------


def constant(name: str, array: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def ints(name: str, *values: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value_ints=list(values))


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


#: The norms of the rows of a weight that is stored as its direction and its norm.
NORMS = np.linspace(0.5, 1.5, 8, dtype="f4").reshape(1, 8, 1)

#: What is stored in W's place, and the nodes that make W of it.
HIDDEN: dict[str, Any] = {
    "Constant": lambda w: ({}, [constant("out", w)]),
    "Identity": lambda w: ({"s": w}, [node("Identity", "s", "t"), node("Identity", "t", "out")]),
    "Concat": lambda w: (
        {"a": w[:, :3], "b": w[:, 3:]},
        [node("Concat", "a b", "out", axis=1)],
    ),
    "Transpose": lambda w: (
        {"s": np.ascontiguousarray(w.transpose(2, 0, 1))},
        [node("Transpose", "s", "out", perm=[1, 2, 0])],
    ),
    "Slice": lambda w: (
        {"s": np.concatenate([w, w + 1], axis=1)},
        [ints("z", 0), ints("e", w.shape[1]), ints("x", 1), node("Slice", "s z e x", "out")],
    ),
    "Split": lambda w: (
        {"s": np.concatenate([w, w + 1], axis=1)},
        [ints("h", w.shape[1], w.shape[1]),
         helper.make_node("Split", ["s", "h"], ["out", "rest"], axis=1)],
    ),
    "Cast": lambda w: (
        {"s": w.astype("f2").astype("f8")},
        [node("Cast", "s", "out", to=TensorProto.FLOAT)],
    ),
    "Unsqueeze": lambda w: ({"s": w[0]}, [ints("z", 0), node("Unsqueeze", "s z", "out")]),
    "Squeeze": lambda w: ({"s": w[None]}, [ints("z", 0), node("Squeeze", "s z", "out")]),
    "Reshape": lambda w: (
        {"s": w.reshape(-1)},
        [ints("z", *w.shape), node("Reshape", "s z", "out")],
    ),
    "Gather": lambda w: (
        {"s": w[:, ::-1].copy()},
        [ints("z", *range(w.shape[1] - 1, -1, -1)), node("Gather", "s z", "out", axis=1)],
    ),
    "Neg": lambda w: ({"s": -w}, [node("Neg", "s", "out")]),
    "weight norm": lambda w: (
        {"v": w, "g": NORMS},
        [node("ReduceL2", "v", "n", axes=[2], keepdims=1), node("Div", "v n", "u"),
         node("Mul", "u g", "out")],
    ),
    "DequantizeLinear": lambda w: (
        {
            "q": np.round(w * 20).astype("i1"),
            "scale": np.float32(0.05).reshape(()),
            "zero": np.zeros((), "i1"),
        },
        [node("DequantizeLinear", "q scale zero", "out")],
    ),
}


def in_place(kind: str, w: Array) -> tuple[dict[str, Array], list[onnx.NodeProto], Array]:
    """Return initializers, nodes, and what they make of W."""
    stored, nodes = HIDDEN[kind](w)
    made = w
    if kind == "Cast":
        made = w.astype("f2").astype("f4")
    if kind == "DequantizeLinear":
        made = stored["q"].astype("f4") * np.float32(0.05)
    if kind == "weight norm":
        made = w / np.sqrt(np.sum(w * w, axis=2, keepdims=True)) * NORMS
    return stored, nodes, made


@pytest.mark.parametrize("kind", HIDDEN)
def test_weights_behind_nodes(kind: str, path: Path) -> None:
    given = weights(np.random.default_rng(0))
    stored, nodes, made = in_place(kind, given.pop("W"))
    model = node_model(given, nodes=nodes, inputs={"W": "out"}, initializers=stored)
    assert_gates(only(saved(model, path)), {**given, "W": made})
    assert set(lc.load(path).other) == set()


@pytest.mark.parametrize("raw", [False, True], ids=["int32_data", "raw_data"])
@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
def test_weights_of_four_bits(kind: str, raw: bool, path: Path) -> None:
    given = weights(np.random.default_rng(0), input_dim=3, units=1)  # W has 12 numbers
    del given["W"]
    low = -8 if kind == "INT4" else 0
    stored = (np.arange(12) * 5 % 16 + low).reshape(1, 4, 3)
    proto = helper.make_tensor("q", getattr(TensorProto, kind), stored.shape, stored.reshape(-1))
    if raw:
        pairs = (stored.reshape(-1, 2) & 0xF).astype("u1")
        del proto.int32_data[:]
        proto.raw_data = (pairs[:, 0] | pairs[:, 1] << 4).tobytes()
    nodes = [node("DequantizeLinear", "q scale", "out")]
    scale = np.float32(0.125).reshape(())
    model = node_model(
        given, nodes=nodes, inputs={"W": "out"}, initializers={"scale": scale}, opset=21
    )
    model.graph.initializer.append(proto)
    layer = only(saved(model, path))
    assert_gates(layer, {**given, "W": stored.astype("f4") * scale})


def test_a_sparse_initializer_is_refused_by_name(path: Path) -> None:
    given = weights(np.random.default_rng(0))
    w = given.pop("W")
    values = numpy_helper.from_array(w.reshape(-1), "W")
    places = numpy_helper.from_array(np.arange(w.size), "places")
    model = node_model(given, inputs={"W": "W"})
    sparse = helper.make_sparse_tensor(values, places, list(w.shape))
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(SourceError, match="a sparse initializer"):
        lc.load(saved(model, path))


@pytest.mark.parametrize("opset", [1, 7, 11, 12, 13, 14, 22])
def test_every_version_of_the_operators(opset: int, path: Path) -> None:
    given = weights(np.random.default_rng(0))
    w = given.pop("W")
    turned = {"s": w[0].T.copy()}
    nodes = [node("Transpose", "s", "t", perm=[1, 0])]
    if opset < 13:
        nodes.append(node("Unsqueeze", "t", "out", axes=[0]))
    else:
        nodes += [ints("z", 0), node("Unsqueeze", "t z", "out")]
    model = node_model(
        given, nodes=nodes, inputs={"W": "out"}, initializers=turned, opset=opset, hidden_size=2
    )
    assert_gates(only(saved(model, path)), {**given, "W": w})


def test_the_same_initializer_in_two_places(path: Path) -> None:
    given = weights(np.random.default_rng(0), input_dim=2)
    given["R"] = given["W"]
    shared = {"s": given["W"]}
    model = node_model({"B": given["B"]}, inputs={"W": "s", "R": "s"}, initializers=shared)
    assert_gates(only(saved(model, path)), given)


# ---- graphs in nodes -----------------------------------------------------------------------------


def inner_lstm(given: Mapping[str, Array], name: str = "inner") -> onnx.NodeProto:
    return helper.make_node("LSTM", ["X", *given], ["Y"], name=f"/{name}/LSTM", hidden_size=2)


def graph_around(body: onnx.NodeProto, given: Mapping[str, Array], extra: Any = ()) -> Any:
    values = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["t", "b", 3]), *extra]
    graph = helper.make_graph(
        [body],
        "test",
        values,
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, key) for key, array in given.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branch(given: Mapping[str, Array], name: str = "inner") -> onnx.GraphProto:
    output = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    return helper.make_graph([inner_lstm(given, name)], "branch", [], [output])


def test_in_the_branches_of_an_if(path: Path) -> None:
    given = weights(np.random.default_rng(0))
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    body = helper.make_node(
        "If", ["c"], ["out"], then_branch=branch(given, "a"), else_branch=branch(given, "b")
    )
    layer = only(saved(graph_around(body, given, [condition]), path))
    assert layer.name in ("a", "b")  # both branches are one layer
    assert_gates(layer, given)


def test_in_a_loop(path: Path) -> None:
    given = weights(np.random.default_rng(0))
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
    ]
    outputs = [
        helper.make_tensor_value_info("on_", TensorProto.BOOL, []),
        helper.make_tensor_value_info("Y", TensorProto.FLOAT, None),
    ]
    nodes = [helper.make_node("Identity", ["on"], ["on_"]), inner_lstm(given)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    count = numpy_helper.from_array(np.array(2, "i8"), "n")
    model = graph_around(helper.make_node("Loop", ["n", ""], ["out"], body=body), given)
    model.graph.initializer.append(count)
    assert_gates(only(saved(model, path)), given)


def test_in_a_scan(path: Path) -> None:
    given = weights(np.random.default_rng(0))
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)]
    inputs = [helper.make_tensor_value_info("s", TensorProto.FLOAT, ["t", "b", 3])]
    inner = helper.make_node("LSTM", ["s", *given], ["Y"], name="inner", hidden_size=2)
    body = helper.make_graph([inner], "body", inputs, outputs)
    scan = helper.make_node("Scan", ["X"], ["out"], body=body, num_scan_inputs=1)
    layer = only(saved(graph_around(scan, given), path))
    assert_gates(layer, given)
    assert layer.name == "inner"


def test_in_a_function(path: Path) -> None:
    given = weights(np.random.default_rng(0))
    versions = [helper.make_opsetid("", 17)]
    inner = helper.make_function(
        "own", "Inner", ["x", "w", "r", "b"], ["y"],
        [helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], name="deep", hidden_size=2)],
        versions,
    )
    call = helper.make_node("Inner", ["x", "w", "r", "b"], ["y"], domain="own")
    outer = helper.make_function(
        "own", "Outer", ["x", "w", "r", "b"], ["y"], [call],
        [*versions, helper.make_opsetid("own", 1)],
    )
    model = graph_around(
        helper.make_node("Outer", ["X", *given], ["out"], domain="own", name="call"), given
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.extend([inner, outer])
    assert_gates(only(saved(model, path)), given)


# ---- what follows a node -------------------------------------------------------------------------


def joined(*nodes: onnx.NodeProto, directions: int = 2, **attributes: Any) -> onnx.ModelProto:
    given = weights(np.random.default_rng(0), directions=directions)
    way = "bidirectional" if directions == 2 else "forward"
    model = node_model(given, direction=attributes.pop("direction", way), **attributes)
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, None))
    return model


SPLIT = [
    helper.make_node("Split", ["Y"], ["f", "b"], axis=1),
    ints("one", 1),
    node("Squeeze", "f one", "f1"),
    node("Squeeze", "b one", "b1"),
]
HALF = constant("half", np.float32(0.5))


@pytest.mark.parametrize(
    ("mode", "nodes"),
    [
        ("concat", [*SPLIT, node("Concat", "f1 b1", "out", axis=2)]),
        ("concat", [*SPLIT, node("Concat", "f1 b1", "out", axis=-1)]),
        (UNKNOWN, [*SPLIT, node("Concat", "b1 f1", "out", axis=2)]),
        (UNKNOWN, [*SPLIT, node("Concat", "f1 b1", "out", axis=0)]),
        ("sum", [*SPLIT, node("Add", "b1 f1", "out")]),
        ("mul", [*SPLIT, node("Mul", "f1 b1", "out")]),
        ("ave", [*SPLIT, HALF, node("Add", "f1 b1", "s"), node("Mul", "half s", "out")]),
        (
            "concat",
            [
                ints("shape", 0, 0, -1),
                node("Transpose", "Y", "t", perm=[0, 2, 1, 3]),
                node("Reshape", "t shape", "out"),
            ],
        ),
        (UNKNOWN, [ints("shape", 0, 0, -1), node("Reshape", "Y shape", "out")]),
        (UNKNOWN, [node("Identity", "Y", "out")]),
    ],
)
def test_how_two_directions_are_joined(mode: object, nodes: Any, path: Path) -> None:
    layer = only(saved(joined(*nodes), path))
    assert layer.options.merge_mode == mode
    assert layer.forward.options.return_sequences is True


LAST = [ints("one", 1), node("Squeeze", "Y one", "s"), constant("last", np.array(-1, "i8"))]
END = [ints("n1", -1), ints("end", 2**63 - 1), ints("z", 0)]


@pytest.mark.parametrize(
    ("sequences", "nodes"),
    [
        (False, [*LAST, node("Gather", "s last", "out", axis=0)]),
        (False, [*LAST, *END, node("Slice", "s n1 end z", "out")]),
        (True, [*LAST, constant("first", np.array(0, "i8")), node("Gather", "s first", "out")]),
        (True, [*LAST, node("Gather", "s last", "out", axis=1)]),
        (True, [*LAST, node("Gather", "s last", "o1", axis=0), node("Identity", "s", "out")]),
        (True, [*LAST, *END, node("Slice", "s z end z", "out")]),
    ],
)
def test_whether_only_the_last_step_counts(sequences: bool, nodes: Any, path: Path) -> None:
    layer = only(saved(joined(*nodes, directions=1), path))
    assert layer.forward.options.return_sequences is sequences


def test_a_sequence_in_its_own_order_of_time(path: Path, tmp_path: Path) -> None:
    """Keras returns it reversed: refused by name, or turned round by the caller who allows it."""
    plain = joined(node("Identity", "Y", "out"), directions=1, direction="reverse")
    layer = only(saved(plain, path))
    assert layer.forward.options.keeps_time_order is True
    with pytest.raises(UnsupportedByTarget, match="keeps_time_order"):
        lc.convert(path, tmp_path / "x.keras")
    with pytest.raises(UnsupportedByTarget, match="keeps_time_order"):
        lc.arrange(layer, "keras")
    forced = lc.convert(path, tmp_path / "x.keras", allow_lossy=True)
    assert "turn them round" in forced.losses[0]
    x = np.random.default_rng(5).normal(size=(2, 4, layer.input_dim)).astype("f4")
    (steps,) = run(path, {"X": np.swapaxes(x, 0, 1)}).values()
    wanted = np.swapaxes(steps[:, 0], 0, 1)
    assert difference([reference(layer, x).outputs[0]], [wanted]) < BOUND
    # And through files of ours, the graph's order is kept.
    lc.convert(path, tmp_path / "x.safetensors")
    lc.convert(tmp_path / "x.safetensors", tmp_path / "again.onnx")
    (found,) = run(tmp_path / "again.onnx", {f"{layer.name}.x": x}).values()
    assert difference([found], [wanted]) < BOUND


def test_a_sequence_that_the_graph_turns_round(path: Path) -> None:
    ends = [ints("n1", -1), ints("before", -(2**63)), ints("z", 0)]
    turned = joined(
        *ends, node("Slice", "Y n1 before z n1", "out"), directions=1, direction="reverse"
    )
    (layer,) = lc.load(saved(turned, path)).layers
    assert layer.forward.options.go_backwards is True
    assert layer.forward.options.keeps_time_order is False


# ---- names, and what is left ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("/encoder/lstm/LSTM", "encoder/lstm"),
        ("/encoder/lstm/LSTM_1", "encoder/lstm_1"),
        ("", "Y"),
        ("lstm", "lstm"),
        ("other/lstm", "other_/lstm"),
        ("../../etc/passwd", "etc/passwd"),
        ("a\nb", "lstm"),
        ("a.forward", "a.forward_"),
        ("module::rnn", "module/rnn"),
    ],
)
def test_names(name: str, wanted: str, path: Path) -> None:
    model = node_model(weights(np.random.default_rng(0)), name=name)
    assert only(saved(model, path)).name == wanted


def test_other_initializers_are_kept_by_name(path: Path, tmp_path: Path) -> None:
    given = weights(np.random.default_rng(0))
    extra = {"/dense/./kernel": np.ones((2, 3), "f4"), "steps": np.arange(3)}
    model = node_model(given, initializers=extra)
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"a"]))
    found = lc.load(saved(model, path))
    assert set(found.other) == {"dense/kernel", "steps"}
    assert "1 tensors of types" in found.notes[0]
    lc.convert(path, tmp_path / "out.safetensors")
    assert set(lc.load(tmp_path / "out.safetensors").other) == {"dense/kernel", "steps"}


def test_two_layers_that_are_slices_of_one_initializer_are_two(path: Path) -> None:
    given = weights(np.random.default_rng(0))
    both = {key: np.concatenate([array, array + 1]) for key, array in given.items()}
    nodes, inputs = [ints("split", 1, 1)], {}
    for key in both:
        nodes.append(helper.make_node("Split", [key, "split"], [f"{key}0", f"{key}1"], axis=0))
        inputs[key] = f"{key}0"
    model = node_model(both, nodes=nodes, inputs=inputs)
    second = helper.make_node("LSTM", ["X", "W1", "R1", "B1"], ["Z"], name="b", hidden_size=2)
    model.graph.node.append(second)
    assert list(lc.load(saved(model, path))) == ["lstm", "b"]


def test_a_graph_without_an_lstm(path: Path) -> None:
    model = node_model(weights(np.random.default_rng(0)))
    model.graph.node[0].op_type = "GRU"
    with pytest.raises(NoLSTM, match="GRU"):
        lc.load(saved(model, path))


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        ("no such direction", {"direction": "sideways"}),
        ("three activations", {"activations": ["Tanh"]}),
        ("no activation of the LSTM operator: Gelu", {"activations": ["Gelu", "Tanh", "Tanh"]}),
        ("Affine without its constants", {"activations": ["Affine", "Tanh", "Tanh"]}),
        ("a clip that is no bound", {"clip": -1.0}),
        ("no attribute of an LSTM", {"projection": 3}),
        ("no attribute of an LSTM", {"hidden_size": 2.0}),
        ("disagree", {"hidden_size": 3}),
        ("mirror image", {"input_forget": 1, "activations": ["Relu", "Tanh", "Tanh"]}),
    ],
)
def test_what_no_node_may_say(error: str, attributes: Any, path: Path) -> None:
    model = node_model(weights(np.random.default_rng(0)), **attributes)
    with pytest.raises(SourceError, match=error):
        lc.load(saved(model, path))


@pytest.mark.parametrize("key", INPUTS[1:4])
def test_weights_of_a_wrong_shape(key: str, path: Path) -> None:
    given = weights(np.random.default_rng(0))
    given[key] = given[key][:, 1:]
    with pytest.raises(CorruptFile, match=r"wrong shape|disagree"):
        lc.load(saved(node_model(given), path))


# ---- inside an If --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        Path("fixtures/torch-2.13.0/in_branches.onnx"),
        *(
            pytest.param(CORPUS / f"snakers4_silero-vad__{name}.onnx", marks=pytest.mark.corpus)
            for name in ("silero_vad_16k_op15", "silero_vad_half")
        ),
    ],
)
def test_a_cell_in_both_branches(path: Path) -> None:
    layer = only(path)
    assert re.fullmatch(r"(.*/)?decoder/rnn(_1)?", layer.name)  # either branch may come first
    stored = {
        proto.name.rpartition(".")[2]: numpy_helper.to_array(proto)
        for proto in onnx.load(path).graph.initializer
        if ".rnn." in proto.name
    }
    units = layer.units
    for index, gate in enumerate(Gate):  # PyTorch's order: i f g o
        rows = slice(index * units, (index + 1) * units)
        found = layer.cell.gates[gate]
        for part, key in (("kernel", "weight_ih"), ("recurrent_kernel", "weight_hh")):
            assert same_bits(getattr(found, part), stored[key][rows].T.astype("f4"))
        for part, key in (("bias", "bias_ih"), ("recurrent_bias", "bias_hh")):
            assert same_bits(getattr(found, part), stored[key][rows].astype("f4"))
