"""Frozen graphs of TensorFlow 1: the weights are constants, and the graph says all else of a cell.

TensorFlow itself makes and runs them: its outputs are what ours are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn.legacy_cells import BasicLSTMCell, LSTMCell, MultiRNNCell

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.errors import CorruptFile, NoLSTM, UnsupportedByTarget

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
v1 = tf.compat.v1

STEPS, WIDTH = 5, 4
#: What a graph does not say of a layer: what its caller takes of it.
RUN = (
    *("return_sequences=true", "return_state=false", "stateful=false", "go_backwards=false"),
    "zero_output_for_mask=false",
)
X = np.random.default_rng(7).uniform(-1, 1, (2, STEPS, WIDTH)).astype("f4")
Build = Callable[[Any], Any]


def frozen(build: Build, path: Path, loops: int = 1) -> tuple[Any, dict[str, Any]]:
    """Write a frozen graph; return what it gives for `X`, and the variables that it was made of.

    `loops`: 1 for loops as TensorFlow 1 wrote them, 2 for those of functions.
    """
    rng = np.random.default_rng(3)
    was_on = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2() if loops == 1 else v1.enable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            build(v1.placeholder(tf.float32, X.shape, name="x"))
            tf.identity(tf.convert_to_tensor(v1.get_collection("y")[0]), name="y")
            session.run(v1.global_variables_initializer())
            for weight in v1.global_variables():
                weight.load(rng.uniform(-0.8, 0.8, weight.shape.as_list()), session)
            values = {w.op.name: session.run(w) for w in v1.global_variables()}
            graph = v1.graph_util.convert_variables_to_constants(session, session.graph_def, ["y"])
    finally:
        v1.enable_control_flow_v2() if was_on else v1.disable_control_flow_v2()
    path.write_bytes(graph.SerializeToString())
    return answer(path), values


def answer(path: Path) -> Any:
    """Return what a frozen graph gives for `X`."""
    definition = v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default(), v1.Session() as session:
        (y,) = tf.import_graph_def(definition, return_elements=["y:0"], name="")
        return session.run(y, {"x:0": X})


def dynamic(make: Callable[[], Any]) -> Build:
    def build(x: Any) -> None:
        v1.add_to_collection("y", v1.nn.dynamic_rnn(make(), x, dtype=tf.float32)[0])

    return build


def static(make: Callable[[], Any]) -> Build:
    """Unrolled: each step has its own operations."""

    def build(x: Any) -> None:
        outputs, _ = v1.nn.static_rnn(make(), tf.unstack(x, axis=1), dtype=tf.float32)
        v1.add_to_collection("y", tf.stack(outputs, axis=1))

    return build


def both(runner: str) -> Build:
    def build(x: Any) -> None:
        cells = [LSTMCell(3, forget_bias=0.2), LSTMCell(3, forget_bias=0.9)]
        if runner == "dynamic":
            outputs, _ = v1.nn.bidirectional_dynamic_rnn(*cells, x, dtype=tf.float32)
            y = tf.concat(outputs, 2)
        else:
            steps = tf.unstack(x, axis=1)
            y = tf.stack(v1.nn.static_bidirectional_rnn(*cells, steps, dtype=tf.float32)[0], axis=1)
        v1.add_to_collection("y", y)

    return build


def weight(name: str, *shape: int) -> Any:
    return v1.get_variable(name, shape, tf.float32)


def fused(version: str, *, peepholes: bool = False, clip: float = -1.0) -> Build:
    """The operation that runs a whole sequence, under names that say nothing."""

    def build(x: Any) -> None:
        zeros = tf.zeros((2, 3))
        diagonals = [weight(f"d{n}", 3) if peepholes else tf.zeros(3) for n in range(3)]
        shared = {
            "seq_len_max": tf.constant(STEPS, tf.int64),
            "x": tf.transpose(x, (1, 0, 2)),
            **dict.fromkeys(("cs_prev", "h_prev"), zeros),
            "w": weight("w", WIDTH + 3, 12),
            "b": weight("b", 12),
            **dict(zip(("wci", "wcf", "wco"), diagonals, strict=True)),
            "use_peephole": peepholes,
            "cell_clip": clip,
        }
        if version == "V1":
            h = tf.raw_ops.BlockLSTM(**shared, forget_bias=0.6).h
        else:
            h = tf.raw_ops.BlockLSTMV2(**shared).h
        v1.add_to_collection("y", tf.transpose(h, (1, 0, 2)))

    return build


def blocks(x: Any) -> None:
    """The operation that runs one step, once a step."""
    w, b, zeros = weight("lstm_cell/kernel", WIDTH + 3, 12), weight("lstm_cell/bias", 12), None
    h = c = tf.zeros((2, 3))
    zeros = tf.zeros(3)
    steps = []
    for step in tf.unstack(x, axis=1):
        result = tf.raw_ops.LSTMBlockCell(
            x=step, cs_prev=c, h_prev=h, w=w, wci=zeros, wcf=zeros, wco=zeros, b=b,
            forget_bias=0.4, cell_clip=0.3,
        )
        h, c = result.h, result.cs
        steps.append(h)
    v1.add_to_collection("y", tf.stack(steps, axis=1))


GRAPHS: dict[str, tuple[Build, int]] = {
    "basic": (dynamic(lambda: BasicLSTMCell(3, forget_bias=0.7)), 1),
    "a loop of a function": (dynamic(lambda: BasicLSTMCell(3, activation=tf.nn.relu)), 2),
    "all": (
        dynamic(
            lambda: LSTMCell(
                3, use_peepholes=True, num_proj=2, cell_clip=0.4, proj_clip=0.25, forget_bias=2.0
            )
        ),
        1,
    ),
    "one unit, plain": (dynamic(lambda: LSTMCell(1)), 1),
    "one unit": (dynamic(lambda: LSTMCell(1, use_peepholes=True)), 1),
    "one unit, unrolled": (static(lambda: LSTMCell(1, use_peepholes=True)), 1),
    "stack": (
        dynamic(lambda: MultiRNNCell([LSTMCell(3, forget_bias=0.2), LSTMCell(2)])), 2,
    ),
    "unrolled": (static(lambda: LSTMCell(3, activation=tf.nn.softsign)), 1),
    "fused": (fused("V1"), 1),
    "fused, peepholes and clip": (fused("V1", peepholes=True, clip=0.35), 1),
    "fused, in Keras's order": (fused("V2"), 1),
    "block cells": (blocks, 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_frozen_graph_says_all(name: str, tmp_path: Path) -> None:
    build, loops = GRAPHS[name]
    y, variables = frozen(build, tmp_path / "model.pb", loops)
    model = lc.load(tmp_path / "model.pb")
    definition = v1.GraphDef.FromString((tmp_path / "model.pb").read_bytes())
    meta = v1.MetaGraphDef(graph_def=definition)
    meta.meta_info_def.tags.append("serve")
    (tmp_path / "model.meta").write_bytes(meta.SerializeToString())
    for twin, layer in zip(lc.load(tmp_path / "model.meta").layers, model.layers, strict=True):
        assert twin.forward.options == layer.forward.options
        for mine, theirs in zip(twin.cells(), layer.cells(), strict=True):
            for (_, a), (_, b) in zip(mine[2].tensors(), theirs[2].tensors(), strict=True):
                assert a.read().tobytes() == b.read().tobytes()
    (layer,) = model.layers
    (ours,) = reference.run(layer, X).outputs
    np.testing.assert_allclose(ours, y, rtol=0, atol=1e-6)
    # Every number of the variables is among the cells', bit for bit, and none is left over.
    stored = np.sort(np.concatenate([v.ravel() for v in variables.values()]))
    cells = [cell for _, _, cell in layer.cells()]
    gates = [t.read().ravel() for c in cells for w in c.gates.values() for t in w.tensors.values()]
    parts = [tensor.read().ravel() for cell in cells for tensor in cell.parts.values()]
    np.testing.assert_array_equal(np.sort(np.concatenate(gates + parts)), stored)
    assert not set(variables) & set(model.other)


@pytest.mark.parametrize("runner", ["dynamic", "static"])
def test_both_directions(runner: str, tmp_path: Path) -> None:
    y, _ = frozen(both(runner), tmp_path / "model.pb")
    model = lc.load(tmp_path / "model.pb", settings=("merge_mode=concat",))
    (layer,) = model.layers
    assert layer.backward is not None
    (ours,) = reference.run(layer, X).outputs
    np.testing.assert_allclose(ours, y, rtol=0, atol=1e-6)


def test_layer_normalisation_is_carried_and_not_computed(tmp_path: Path) -> None:
    """As `LayerNormBasicLSTMCell` of tf.contrib, which later versions lack, names its arrays."""

    def norm(x: Any, scope: str) -> Any:
        with v1.variable_scope(scope):
            gamma, beta = weight("gamma", 3), weight("beta", 3)
        mean, variance = tf.nn.moments(x, [1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)

    def build(x: Any) -> None:
        h = c = tf.zeros((2, 3))
        for time in range(STEPS):
            with v1.variable_scope("rnn/layer_norm_basic_lstm_cell", reuse=v1.AUTO_REUSE):
                z = tf.concat([x[:, time], h], 1) @ weight("kernel", WIDTH + 3, 12)
                i, g, f, o = tf.split(z, 4, axis=1)
                i, g, f, o = norm(i, "input"), norm(g, "transform"), norm(f, "forget"), norm(
                    o, "output"
                )
                c = norm(c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(g), "state")
                h = tf.tanh(c) * tf.sigmoid(o)
        v1.add_to_collection("y", h)

    frozen(build, tmp_path / "model.pb")
    told = (*RUN, "use_bias=false")
    (layer,) = lc.load(tmp_path / "model.pb").layers
    options = layer.cell.options
    assert (options.forget_bias, options.activation.name) == (1.0, "tanh")
    assert (options.output_activation, options.cell_clip) == (None, None)
    assert {"layer_norm", "layer_norm_bias"} <= set(layer.cell.gate_parts)
    assert {"state_norm", "state_norm_bias"} <= set(layer.cell.parts)
    with pytest.raises(UnsupportedByTarget, match="layer_norm"):
        lc.convert(tmp_path / "model.pb", tmp_path / "x.keras", settings=told)


def test_the_lengths_of_sequences_are_a_mask(tmp_path: Path) -> None:
    """`dynamic_rnn` gives zeros where a sequence is over, and keeps its states."""
    lengths = (3, 5)

    def build(x: Any) -> None:
        cell = BasicLSTMCell(3)
        y, _ = v1.nn.dynamic_rnn(cell, x, sequence_length=lengths, dtype=tf.float32)
        v1.add_to_collection("y", y)

    y, _ = frozen(build, tmp_path / "model.pb")
    model = lc.load(tmp_path / "model.pb")
    (layer,) = model.layers
    assert layer.options.masked is True
    assert layer.forward.options.zero_output_for_mask is True
    assert any("its mask, or the lengths" in note for note in model.notes)
    mask = np.arange(STEPS) < np.array(lengths)[:, None]
    (ours,) = reference.run(layer, X, mask=mask).outputs
    np.testing.assert_allclose(ours, y, rtol=0, atol=1e-6)


def of_cudnn(path: Path, vector: Any, units: int, sides: int, layers: int) -> None:
    """Write a graph of cuDNN's operation, which no CPU runs."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, (STEPS, 2, WIDTH), name="x")
        state = tf.zeros((layers * sides, tf.shape(x)[1], units))
        direction = "bidirectional" if sides == 2 else "unidirectional"
        y, *_ = tf.raw_ops.CudnnRNN(
            input=x, input_h=state, input_c=state, rnn_mode="lstm", direction=direction,
            params=tf.constant(vector, name="cudnn_lstm/opaque_kernel/read"),
        )  # fmt: skip
        tf.identity(y, name="y")
    path.write_bytes(graph.as_graph_def().SerializeToString())


def test_the_vector_that_keras_makes_for_cudnn(tmp_path: Path) -> None:
    from tf_keras.src.layers.rnn import gru_lstm_utils

    rng, units = np.random.default_rng(1), 3
    kernel, recurrent = (rng.normal(size=(n, 4 * units)).astype("f4") for n in (WIDTH, units))
    biases = rng.normal(size=8 * units).astype("f4")
    vector = gru_lstm_utils.canonical_to_params(
        weights=[*tf.split(kernel, 4, axis=1), *tf.split(recurrent, 4, axis=1)],
        biases=tf.split(biases, 8), shape=tf.constant([-1]), transpose_weights=True,
    )  # fmt: skip
    of_cudnn(tmp_path / "model.pb", vector.numpy(), units, 1, 1)
    model = lc.load(tmp_path / "model.pb")
    assert list(model) == ["cudnn_lstm"]
    assert "cuDNN's order of gates" in model.notes[0]
    cell = model["cudnn_lstm"].cell
    for part, wanted in (
        ("kernel", kernel), ("recurrent_kernel", recurrent),
        ("bias", biases[: 4 * units]), ("recurrent_bias", biases[4 * units :]),
    ):  # fmt: skip
        np.testing.assert_array_equal(cell.fused(part).read(), wanted)
    assert cell.options.forget_bias == 0.0
    for wrong in (vector.numpy()[:-1], np.append(vector.numpy(), 0).astype("f4")):
        of_cudnn(tmp_path / "model.pb", wrong, units, 1, 1)
        with pytest.raises(NoLSTM, match="how its one vector is cut"):
            lc.load(tmp_path / "model.pb")


def test_the_vector_of_a_stack_of_both_directions(tmp_path: Path) -> None:
    """All matrices, layer by layer and direction by direction, then all biases."""
    units, layers, sides = 2, 2, 2
    rng, pieces, wanted = np.random.default_rng(2), [], {}
    for part in ("weights", "biases"):
        for layer in range(layers):
            for side in range(sides):
                width = WIDTH if layer == 0 else sides * units
                kernel_shape, state_shape = (units, width), (units, units)
                for name, shape in (("kernel", kernel_shape), ("recurrent_kernel", state_shape)):
                    name = name if part == "weights" else {"kernel": "bias"}.get(
                        name, "recurrent_bias"
                    )
                    shape = shape if part == "weights" else (units,)
                    for gate in ("input", "forget", "cell", "output"):
                        array = rng.normal(size=shape).astype("f4")
                        wanted[layer, side, gate, name] = array.T
                        pieces.append(array.ravel())
    of_cudnn(tmp_path / "model.pb", np.concatenate(pieces), units, sides, layers)
    model = lc.load(tmp_path / "model.pb")
    assert len(model) == layers
    for (number, side, gate, name), array in wanted.items():
        halves = dict(model.layers[number].directions)
        cell = halves["backward" if side else "forward"].lstm_cells[0]
        stored = {g.value: weights for g, weights in cell.gates.items()}[gate].tensors[name]
        np.testing.assert_array_equal(stored.read(), array)
    assert model.layers[0].forward.options.return_sequences is True
    assert model.layers[0].options.merge_mode == "concat"


def test_large_constants_stay_in_the_file(tmp_path: Path) -> None:
    """Above a few kilobytes a constant is not read with the graph."""
    from lstmconvert.tensors.tensor import FileTensor

    _, variables = frozen(dynamic(lambda: BasicLSTMCell(20)), tmp_path / "model.pb")
    from lstmconvert.files.opening import open_source
    from lstmconvert.tensorflow.formats import graphdef

    graph = graphdef.read_graph(open_source(tmp_path / "model.pb"))
    kernel = graphdef.constant(graph.nodes["", "rnn/basic_lstm_cell/kernel"], "")
    assert isinstance(kernel, FileTensor)
    np.testing.assert_array_equal(kernel.read(), variables["rnn/basic_lstm_cell/kernel"])


def test_a_graph_without_its_weights_is_named(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        dynamic(lambda: BasicLSTMCell(3))(v1.placeholder(tf.float32, X.shape))
        (tmp_path / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
        v1.train.export_meta_graph(str(tmp_path / "model.meta"), graph=graph)
    with pytest.raises(NoLSTM, match="without its weights") as caught:
        lc.load(tmp_path / "model.pb")
    assert "variables" in str(caught.value)
    with pytest.raises(NoLSTM, match="without its weights"):
        lc.load(tmp_path / "model.meta")


def test_a_graph_without_an_lstm_is_named(tmp_path: Path) -> None:
    def build(x: Any) -> None:
        v1.add_to_collection("y", tf.nn.relu(x[:, 0] @ weight("dense/kernel", WIDTH, 3)))

    frozen(build, tmp_path / "model.pb")
    with pytest.raises(NoLSTM, match="no constant belongs to an LSTM cell"):
        lc.load(tmp_path / "model.pb")


@pytest.mark.parametrize("cut", [60, 500, 2000])
def test_a_cut_graph_is_refused(cut: int, tmp_path: Path) -> None:
    frozen(dynamic(lambda: BasicLSTMCell(20)), tmp_path / "model.pb")
    data = (tmp_path / "model.pb").read_bytes()
    (tmp_path / "cut.pb").write_bytes(data[: len(data) - cut])
    with pytest.raises((CorruptFile, NoLSTM)):
        lc.load(tmp_path / "cut.pb").layers[0].cell.forget_gate.kernel.sum()
