"""LSTMs without an operator in ONNX: of PyTorch's exporters, of tf2onnx, and in many spellings.

Weights are compared bit for bit with those that the graph was made of, outputs with ONNX Runtime's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import FIXTURES
from support.spelled_graphs import STEPS, UNITS, WIDTH, Graph, State, affine, mixed

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.model.gates import Gate

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]


def answer(path: Path, x: Any) -> Any:
    """Return what ONNX Runtime makes of an input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def stored(layer: lc.LSTMLayer) -> set[bytes]:
    """Return the bytes of each column of a layer's weights, and of each number of its vectors."""
    columns = set()
    for _, _, cell in layer.cells():
        for _, tensor in cell.tensors():
            array = tensor.read()
            columns |= {column.tobytes() for column in np.atleast_2d(array).T}
    return columns


# -- PyTorch ---------------------------------------------------------------------------------------

HIDDEN, INPUTS = 3, 4


def of_torch(kind: str) -> Any:
    import torch

    class Unrolled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.LSTMCell(INPUTS, HIDDEN)

        def forward(self, x: Any) -> Any:
            h = c = torch.zeros(2, HIDDEN)
            steps = []
            for time in range(x.shape[1]):
                h, c = self.cell(x[:, time], (h, c))
                steps.append(h)
            return torch.stack(steps, 1)

    class ByHand(torch.nn.Module):
        """Gates f i o g, one matrix, the state before the input."""

        def __init__(self) -> None:
            super().__init__()
            self.joined = torch.nn.Linear(INPUTS + HIDDEN, 4 * HIDDEN)

        def forward(self, x: Any) -> Any:
            h = c = torch.zeros(2, HIDDEN)
            for time in reversed(range(x.shape[1])):
                f, i, o, g = self.joined(torch.cat([h, x[:, time]], 1)).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            return h

    class Scanned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wx = torch.nn.Linear(INPUTS, 4 * HIDDEN)
            self.wh = torch.nn.Linear(HIDDEN, 4 * HIDDEN)

        def forward(self, x: Any) -> Any:
            from torch._higher_order_ops.scan import scan

            def step(carry: Any, now: Any) -> Any:
                h, c = carry
                i, f, g, o = (self.wx(now) + self.wh(h)).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                return [h, c], h.clone()

            start = [torch.zeros(2, HIDDEN), torch.zeros(2, HIDDEN)]
            return scan(step, start, x.transpose(0, 1).contiguous(), dim=0)[1].transpose(0, 1)

    torch.manual_seed(0)
    return {"unrolled": Unrolled, "by hand": ByHand, "scan": Scanned}[kind]()


@pytest.mark.parametrize(
    ("kind", "dynamo"),
    [
        ("unrolled", False),
        ("by hand", False),
        pytest.param("scan", True, marks=pytest.mark.slow),
    ],
)
def test_pytorchs_exporters(kind: str, dynamo: bool, tmp_path: Path) -> None:
    import torch

    module, x = of_torch(kind), np.random.default_rng(1).normal(size=(2, 5, INPUTS)).astype("f4")
    path = tmp_path / "x.onnx"
    torch.onnx.export(module, (torch.from_numpy(x),), str(path), dynamo=dynamo, verbose=False)
    (layer,) = lc.load(path).layers
    (ours,) = reference.run(layer, x).outputs
    np.testing.assert_allclose(ours, answer(path, x), rtol=0, atol=1e-6)
    if kind == "by hand":
        assert layer.forward.options.go_backwards is True
        assert layer.forward.options.return_sequences is False
        joined = module.joined.weight.detach().numpy()
        np.testing.assert_array_equal(layer.forget_gate.kernel, joined[:HIDDEN, HIDDEN:].T)
        np.testing.assert_array_equal(layer.cell_gate.recurrent_kernel, joined[9:, :HIDDEN].T)
    else:
        lc.convert(path, tmp_path / "x.safetensors", layout="torch")
        again = lc.load(tmp_path / "x.safetensors")
        assert stored(again.layers[0]) == stored(layer)
        wanted = [tensor.detach().numpy() for tensor in module.state_dict().values()]
        rows = {row.tobytes() for array in wanted for row in np.atleast_2d(array.T).T}
        assert stored(layer) == rows


# -- tf2onnx: loops --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"activation": "softplus", "go_backwards": True, "implementation": 1}, None),
        (
            {
                "activation": "softsign",
                "recurrent_activation": "hard_sigmoid",
                "return_sequences": True,
            },
            {"activation": "softplus"},
        ),
    ],
)
def test_loops_of_tf2onnx(first: Any, second: Any, tmp_path: Path) -> None:
    """Its converter leaves the loop of a Keras layer whose functions it does not know."""
    import onnx
    import tensorflow as tf
    import tf2onnx
    import tf_keras

    rng = np.random.default_rng(4)
    sizes = [options for options in (first, second) if options is not None]
    layers = [tf_keras.layers.LSTM(UNITS + k, **options) for k, options in enumerate(sizes)]
    model = tf_keras.Sequential([tf_keras.Input((STEPS, WIDTH)), *layers])
    model.set_weights([rng.uniform(-0.8, 0.8, w.shape).astype("f4") for w in model.get_weights()])
    signature = [tf.TensorSpec((2, STEPS, WIDTH), tf.float32)]
    function = tf.function(lambda x: model(x), input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    onnx.save(proto, tmp_path / "x.onnx")
    assert {node.op_type for node in proto.graph.node}.isdisjoint({"LSTM"})
    x = rng.normal(size=(2, STEPS, WIDTH)).astype("f4")
    value: Any = x
    for layer, theirs in zip(lc.load(tmp_path / "x.onnx").layers, layers, strict=True):
        (value,) = reference.run(layer, value).outputs
        for part, weights in zip(
            ("kernel", "recurrent_kernel", "bias"), theirs.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(layer.cell.fused(part).read(), weights)
    np.testing.assert_allclose(value, model(x).numpy(), rtol=0, atol=1e-6)


# -- many spellings --------------------------------------------------------------------------------


def logistic(graph: Graph, z: str) -> str:
    """As JAX writes it."""
    one = graph.constant(1.0)
    return graph("Div", one, graph("Add", graph("Exp", graph("Neg", z)), one))


def halved(graph: Graph, z: str) -> str:
    half = graph.constant(0.5)
    inner = graph("Tanh", graph("Mul", z, half))
    return graph("Add", graph("Mul", inner, half), half)


def per_gate(graph: Graph, x: str, state: State) -> State:
    h, c = state
    i, f, g, o = (affine(graph, name, UNITS, x, h) for name in "ifgo")
    new = mixed(graph, logistic(graph, f), c, logistic(graph, i), graph("Tanh", g))
    return graph("Mul", graph("Tanh", new), logistic(graph, o)), new


def joint_sigmoid(graph: Graph, x: str, state: State) -> State:
    """One sigmoid for three gates, before they are cut apart; a number added to the forget gate."""
    h, c = state
    z = affine(graph, "z", 4 * UNITS, x, h)
    ends = [graph.constant([k * UNITS], "i8") for k in (0, 3, 4)]
    axis = graph.constant([1], "i8")
    three = graph("Sigmoid", graph("Slice", z, ends[0], ends[1], axis))
    g = graph("Slice", z, ends[1], ends[2], axis)
    f, i, o = graph.split(three, 3)
    new = mixed(graph, i, graph("Tanh", g), f, c)
    return graph("Mul", o, graph("Tanh", new)), new


def forget_bias(graph: Graph, x: str, state: State) -> State:
    h, c = state
    i, g, f, o = graph.split(affine(graph, "z", 4 * UNITS, x, h), 4)
    f = graph("Sigmoid", graph("Add", f, graph.constant(0.7)))
    new = mixed(graph, c, f, halved(graph, i), graph("Softsign", g))
    return graph("Mul", graph("Softsign", new), halved(graph, o)), new


def peepholes(graph: Graph, x: str, state: State) -> State:
    h, c = state
    i, g, f, o = graph.split(affine(graph, "z", 4 * UNITS, x, h), 4)
    i = graph("Add", i, graph("Mul", c, graph.weight(UNITS, name="pi")))
    f = graph("Add", graph("Mul", graph.weight(UNITS, name="pf"), c), f)
    new = mixed(graph, graph("Sigmoid", f), c, graph("Sigmoid", i), graph("Tanh", g))
    low, high = graph.constant(-0.3), graph.constant(0.3)
    new = graph("Max", graph("Min", new, high), low)
    o = graph("Add", o, graph("Mul", new, graph.weight(UNITS, name="po")))
    return graph("Mul", graph("Tanh", new), graph("Sigmoid", o)), new


def projected(graph: Graph, x: str, state: State) -> State:
    h, c = state
    i, g, f, o = graph.split(affine(graph, "z", 4 * UNITS, x, h), 4)
    new = mixed(graph, graph("Sigmoid", f), c, graph("Sigmoid", i), graph("Tanh", g))
    out = graph("Mul", graph("Tanh", new), graph("Sigmoid", o))
    return graph("MatMul", out, graph.weight(UNITS, UNITS, name="p")), new


def coupled(graph: Graph, x: str, state: State) -> State:
    h, c = state
    f, g, o = graph.split(affine(graph, "z", 3 * UNITS, x, h), 3)
    f = graph("Sigmoid", f)
    new = mixed(graph, f, c, graph("Sub", graph.constant(1.0), f), graph("Tanh", g))
    return graph("Mul", graph("Tanh", new), graph("Sigmoid", o)), new


def identity_output(graph: Graph, x: str, state: State) -> State:
    h, c = state
    i, g, f, o = graph.split(affine(graph, "z", 4 * UNITS, x, h), 4)
    new = mixed(graph, graph("Sigmoid", f), c, graph("Sigmoid", i), graph("Tanh", g))
    return graph("Mul", new, graph("Sigmoid", o)), new


def two_parts(graph: Graph, x: str, state: State) -> State:
    """softsign, as a converter to TFLite writes it: x / (1 + |x|)."""
    h, c = state

    def softsign(value: str) -> str:
        return graph("Div", value, graph("Add", graph("Abs", value), graph.constant(1.0)))

    i, g, f, o = graph.split(affine(graph, "z", 4 * UNITS, x, h), 4)
    new = mixed(graph, graph("Sigmoid", f), c, graph("Sigmoid", i), softsign(g))
    return graph("Mul", softsign(new), graph("Sigmoid", o)), new


SPELLINGS: dict[str, Callable[[Graph, str, State], State]] = {
    "one product a gate, 1 / (1 + exp(-z))": per_gate,
    "one sigmoid for three gates": joint_sigmoid,
    "a number added, tanh for a sigmoid": forget_bias,
    "peepholes and a clip": peepholes,
    "a projection": projected,
    "coupled gates": coupled,
    "no function on the way out": identity_output,
    "a function of two parts": two_parts,
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("back", [False, True])
def test_spellings(name: str, back: bool, tmp_path: Path) -> None:
    graph, path = Graph(3), tmp_path / "x.onnx"
    state: State = (graph.zeros(), graph.zeros())
    outputs = []
    for time in reversed(range(STEPS)) if back else range(STEPS):
        state = SPELLINGS[name](graph, graph.step_of(time), state)
        outputs.append(graph("Unsqueeze", state[0], graph.constant([1], "i8")))
    output = graph("Concat", *outputs, axis=1)
    path.write_bytes(graph.model(output).SerializeToString())
    model = lc.load(path)
    (layer,) = model.layers
    assert layer.forward.options.go_backwards is back
    x = np.random.default_rng(2).normal(size=(2, STEPS, WIDTH)).astype("f4")
    (ours,) = reference.run(layer, x).outputs
    np.testing.assert_allclose(ours, answer(path, x), rtol=0, atol=1e-6)
    weights = [array for key, array in graph.weights.items() if not key[1:].isdecimal()]
    numbers = np.sort(np.concatenate([array.ravel() for array in weights]))
    mine = [tensor.read().ravel() for _, tensor in layer.cell.tensors()]
    np.testing.assert_array_equal(np.sort(np.concatenate(mine)), numbers)
    assert not {key for key in model.other if not key[1:].isdecimal()}
    assert (layer.cell.options.forget_bias == pytest.approx(0.7)) is ("number" in name)


def test_a_state_that_does_not_start_from_zero_is_told(tmp_path: Path) -> None:
    graph = Graph(3)
    state: State = (graph.weight(2, UNITS), graph.weight(2, UNITS))
    for time in range(STEPS):
        state = per_gate(graph, graph.step_of(time), state)
    (tmp_path / "x.onnx").write_bytes(graph.model(state[0]).SerializeToString())
    model = lc.load(tmp_path / "x.onnx")
    assert any("initial_state" in note for note in model.notes)
    assert model.layers[0].forward.options.return_sequences is False


def test_steps_of_other_weights_are_no_layer(tmp_path: Path) -> None:
    """Cells that feed one another, each with weights of its own: a stack, run once."""
    graph = Graph(3)
    state: State = (graph.zeros(), graph.zeros())
    for name in "abc":
        z = affine(graph, name, 4 * UNITS, graph.step_of(0), state[0])
        i, f, g, o = graph.split(z, 4)
        new = mixed(graph, graph("Sigmoid", f), state[1], graph("Sigmoid", i), graph("Tanh", g))
        state = graph("Mul", graph("Tanh", new), graph("Sigmoid", o)), new
    (tmp_path / "x.onnx").write_bytes(graph.model(state[0]).SerializeToString())
    with pytest.raises(lc.NoLSTM) as caught:
        lc.load(tmp_path / "x.onnx")
    assert "no other step has its weights" in str(caught.value.hint)


def test_nothing_is_believed_without_a_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that was put together wrongly computes something else, and is refused."""
    from lstmconvert.spelled import cells

    graph = Graph(3)
    state: State = (graph.zeros(), graph.zeros())
    for time in range(STEPS):
        state = per_gate(graph, graph.step_of(time), state)
    (tmp_path / "x.onnx").write_bytes(graph.model(state[0]).SerializeToString())

    right = cells.weights_of

    def wrong(parts: Any) -> Any:
        exchanged = {Gate.INPUT: parts[Gate.OUTPUT], Gate.OUTPUT: parts[Gate.INPUT]}
        return right({**parts, **exchanged})

    monkeypatch.setattr(cells, "weights_of", wrong)
    with pytest.raises(lc.NoLSTM) as caught:
        lc.load(tmp_path / "x.onnx")
    assert "computes something else than an LSTM's" in str(caught.value.hint)


@pytest.mark.parametrize("stem", ["flax_loop", "flax_unrolled", "equinox_loop"])
def test_loops_and_steps_of_jax2onnx(stem: str) -> None:
    """Weights go through its loops, and in Equinox's they are multiplied by columns."""
    (layer,) = lc.load(FIXTURES / "jax2onnx-0.17.1" / f"{stem}.onnx").layers
    with np.load(FIXTURES / "jax2onnx-0.17.1" / f"{stem}.io.npz") as oracle:
        (ours,) = reference.run(layer, oracle["x0"]).outputs
        np.testing.assert_allclose(ours, oracle["y0"], rtol=0, atol=1e-6)


#: How a masked step is written: `m` says that it counts.
MASKS = ("Where", "Where, turned round", "sums, as tf2onnx writes them")
NO_MASKS = {
    "another mask for the output": "different masks",
    "the output is not masked": "not masked alike",
    "to zero": "",
}


def masked(kind: str, *, zeros: bool) -> tuple[Any, dict[str, Any]]:
    """Return a model whose Scan leaves out steps, and its weights: inputs x and m (time, batch, …).

    `zeros`: what is left out is zero in the output, and not the output before it.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng, node = np.random.default_rng(6), helper.make_node
    weights = {
        "w": rng.uniform(-0.9, 0.9, (WIDTH, 4 * UNITS)).astype("f4"),
        "r": rng.uniform(-0.9, 0.9, (UNITS, 4 * UNITS)).astype("f4"),
        "b": rng.uniform(-0.9, 0.9, 4 * UNITS).astype("f4"),
    }
    more: list[Any] = []

    def chosen(new: str, old: str, name: str, mask: str = "m_t") -> None:
        if kind == MASKS[1]:
            more.append(node("Where", [f"no_{mask}", old, new], [name]))
        elif kind == MASKS[2]:
            more.append(node("Mul", [f"one_{mask}", new], [f"{name}1"]))
            more.append(node("Mul", [f"zero_{mask}", old], [f"{name}0"]))
            more.append(node("Add", [f"{name}1", f"{name}0"], [name]))
        else:
            more.append(node("Where", [mask, new, old], [name]))

    is_other, is_zero = "another" in kind, kind == "to zero"
    chosen("c1", "nothing" if is_zero else "c", "c2")
    if kind == "the output is not masked":
        more.append(node("Identity", ["h1"], ["h2"]))
    else:
        chosen("h1", "nothing" if is_zero else "h", "h2", "other" if is_other else "m_t")
    chosen("h1", "nothing" if zeros else "h", "y_t")
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            *(node("Not", [name], [f"no_{name}"]) for name in ("m_t", "other")),
            node("Cast", ["m_t"], ["one_m_t"], to=TensorProto.FLOAT),
            node("Cast", ["no_m_t"], ["zero_m_t"], to=TensorProto.FLOAT),
            node("MatMul", ["x_t", "w"], ["zx"]),
            node("MatMul", ["h", "r"], ["zh"]),
            node("Add", ["zx", "zh"], ["zxh"]),
            node("Add", ["zxh", "b"], ["z"]),
            node("Split", ["z"], ["i", "f", "g", "o"], axis=1, num_outputs=4),
            *(node("Sigmoid", [gate], [f"s{gate}"]) for gate in "ifo"),
            node("Tanh", ["g"], ["tg"]),
            node("Mul", ["sf", "c"], ["kept"]),
            node("Mul", ["si", "tg"], ["added"]),
            node("Add", ["kept", "added"], ["c1"]),
            node("Tanh", ["c1"], ["tc"]),
            node("Mul", ["so", "tc"], ["h1"]),
            *more,
        ],
        "body",
        [
            *(value(name, TensorProto.FLOAT, (2, UNITS)) for name in "hc"),
            value("x_t", TensorProto.FLOAT, (2, WIDTH)),
            *(value(name, TensorProto.BOOL, (2, 1)) for name in ("m_t", "other")),
        ],
        [value(name, TensorProto.FLOAT, None) for name in ("h2", "c2", "y_t")],
    )
    graph = helper.make_graph(
        [
            node("Scan", ["start", "start", "x", "m", "m2"], ["h", "c", "y"], body=body,
                 num_scan_inputs=3)
        ],
        "g",
        [
            value("x", TensorProto.FLOAT, (STEPS, 2, WIDTH)),
            *(value(name, TensorProto.BOOL, (STEPS, 2, 1)) for name in ("m", "m2")),
        ],
        [value("y", TensorProto.FLOAT, None), value("h", TensorProto.FLOAT, None)],
        [
            *(numpy_helper.from_array(array, name) for name, array in weights.items()),
            numpy_helper.from_array(np.zeros((2, UNITS), "f4"), "start"),
            numpy_helper.from_array(np.zeros((2, UNITS), "f4"), "nothing"),
        ],
    )  # fmt: skip
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9), weights


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_steps_that_a_mask_leaves_out(kind: str, zeros: bool, tmp_path: Path) -> None:
    import onnxruntime

    model, weights = masked(kind, zeros=zeros)
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    found = lc.load(tmp_path / "x.onnx")
    (layer,) = found.layers
    assert layer.options.masked is True
    assert layer.forward.options.zero_output_for_mask is zeros
    assert layer.forward.options.return_sequences is True
    assert any("its mask, or the lengths" in note for note in found.notes)
    for part, name in (("kernel", "w"), ("recurrent_kernel", "r"), ("bias", "b")):
        np.testing.assert_array_equal(layer.cell.fused(part).read(), weights[name])
    x = np.random.default_rng(1).normal(size=(STEPS, 2, WIDTH)).astype("f4")
    mask = np.array([[1, 0], [0, 1], [1, 1]], bool)[..., None]
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    y, h = session.run(None, {"x": x, "m": mask, "m2": mask})
    out = reference.run(layer, x.swapaxes(0, 1), mask=mask[..., 0].T)
    np.testing.assert_allclose(out.outputs[0].swapaxes(0, 1), y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(out.states[0], h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", NO_MASKS)
def test_what_is_no_mask_of_an_lstm(kind: str, tmp_path: Path) -> None:
    model, _ = masked(kind, zeros=False)
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(lc.NoLSTM) as caught:
        lc.load(tmp_path / "x.onnx")
    assert NO_MASKS[kind] in str(caught.value.hint)


#: What is not a mask of an unrolled LSTM: why.
NO_UNROLLED_MASKS = {
    "the last step has none": "its last step has no mask",
    "the state has another": "different masks",
    "a step takes that of another": "the mask of a step is not that of its input",
    "the state becomes the input": "left out as an LSTM's are not",
}


def masked_steps(kind: str, width: int) -> tuple[Graph, str]:
    """Return an unrolled graph that leaves out steps of zeros; its last state is the output."""
    graph = Graph(4)
    state = h, c = graph.zeros(width), graph.zeros(width)
    counts = graph("ReduceMax", graph("Abs", "x"), graph.constant([2], "i8"), keepdims=1)
    counts = graph("Greater", counts, graph.constant(0.0))
    other = graph("Not", counts)
    for time in range(STEPS):
        x, (h, c) = graph.step_of(time), state
        kernel = graph.weight(WIDTH + width, 4 * width, name="k.w")
        z = graph("MatMul", graph("Concat", x, h, axis=-1), kernel)
        i, f, g, o = graph.split(graph("Add", z, graph.weight(4 * width, name="k.b")), 4)
        new = mixed(graph, graph("Sigmoid", f), c, graph("Sigmoid", i), graph("Tanh", g))
        out = graph("Mul", graph("Tanh", new), graph("Sigmoid", o))
        if kind == "the last step has none" and time == STEPS - 1:
            return graph, out
        place = STEPS - 1 - time if "another" in kind and "takes" in kind else time
        at = graph.constant(place, "i8")
        yes = graph("Gather", counts, at, axis=1)
        of_state = graph("Gather", other, at, axis=1) if "state has" in kind else yes
        kept = x if "becomes" in kind else h
        state = graph("Where", yes, out, kept), graph("Where", of_state, new, c)
    return graph, state[0]


@pytest.mark.parametrize("width", [UNITS, WIDTH, 1])
def test_steps_of_an_unrolled_graph_that_a_mask_leaves_out(width: int, tmp_path: Path) -> None:
    graph, output = masked_steps("right", width)
    (tmp_path / "x.onnx").write_bytes(graph.model(output).SerializeToString())
    model = lc.load(tmp_path / "x.onnx")
    (layer,) = model.layers
    assert layer.options.masked is True
    assert layer.forward.options.return_sequences is False
    assert any("its mask, or the lengths" in note for note in model.notes)
    x = np.random.default_rng(2).normal(size=(2, STEPS, WIDTH)).astype("f4")
    x[0, 1] = x[1, :2] = 0
    (ours,) = reference.run(layer, x, mask=(x != 0).any(-1)).outputs
    np.testing.assert_allclose(ours, answer(tmp_path / "x.onnx", x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", NO_UNROLLED_MASKS)
def test_what_is_no_mask_of_an_unrolled_lstm(kind: str, tmp_path: Path) -> None:
    graph, output = masked_steps(kind, WIDTH)
    (tmp_path / "x.onnx").write_bytes(graph.model(output).SerializeToString())
    with pytest.raises(lc.NoLSTM) as caught:
        lc.load(tmp_path / "x.onnx")
    assert NO_UNROLLED_MASKS[kind] in str(caught.value.hint)
