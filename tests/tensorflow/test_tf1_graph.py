"""What the graph beside a checkpoint of TensorFlow 1 says is read: forget bias, functions, clips,
and how many layers run on one cell. Nothing is set: the outputs are TensorFlow's own.
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
from lstmconvert.model.options import UNKNOWN

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
v1 = tf.compat.v1

STEPS, WIDTH = 5, 4


def saved(folder: Path, build: Callable[[Any], Any], loops: int = 1) -> tuple[Path, Any, Any]:
    """Save a checkpoint with its graph, and return its path, the input and the output.

    `loops`: 1 for loops as TensorFlow 1 wrote them, 2 for those of functions.
    """
    path = folder / "model.ckpt"
    rng = np.random.default_rng(3)
    was_on = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2() if loops == 1 else v1.enable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            inputs = v1.placeholder(tf.float32, (2, STEPS, WIDTH))
            output = build(inputs)
            session.run(v1.global_variables_initializer())
            for weight in v1.global_variables():
                weight.load(rng.uniform(-0.8, 0.8, weight.shape.as_list()), session)
            x = rng.uniform(-1, 1, (2, STEPS, WIDTH)).astype("f4")
            y = session.run(output, {inputs: x})
            v1.train.Saver().save(session, str(path))
    finally:
        v1.enable_control_flow_v2() if was_on else v1.disable_control_flow_v2()
    return path, x, y


def dynamic(make: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda x: v1.nn.dynamic_rnn(make(), x, dtype=tf.float32)[0]


def static(make: Callable[[], Any]) -> Callable[[Any], Any]:
    """Unrolled: each step has its own operations."""

    def build(x: Any) -> Any:
        outputs, _ = v1.nn.static_rnn(make(), tf.unstack(x, axis=1), dtype=tf.float32)
        return tf.stack(outputs, axis=1)

    return build


def shared(count: int) -> Any:
    cell = LSTMCell(WIDTH, forget_bias=0.5)
    return MultiRNNCell([cell] * count)


def wrapped() -> Any:
    from tf_keras.src.layers.rnn.cell_wrappers import DropoutWrapper

    return MultiRNNCell([DropoutWrapper(LSTMCell(3), output_keep_prob=1.0), LSTMCell(2)])


CELLS: dict[str, Callable[[], Any]] = {
    "basic": lambda: BasicLSTMCell(3, forget_bias=0.7),
    "no forget bias": lambda: BasicLSTMCell(3, forget_bias=0.0),
    "relu": lambda: BasicLSTMCell(3, activation=tf.nn.relu),
    "softsign": lambda: LSTMCell(3, activation=tf.nn.softsign, forget_bias=-0.5),
    "linear": lambda: LSTMCell(3, activation=tf.identity),
    "clipped": lambda: LSTMCell(3, cell_clip=0.3),
    "all": lambda: LSTMCell(
        3, use_peepholes=True, num_proj=2, cell_clip=0.4, proj_clip=0.25, forget_bias=2.0
    ),
    "stack": lambda: MultiRNNCell([LSTMCell(3, forget_bias=0.2), LSTMCell(2, forget_bias=0.9)]),
    "shared": lambda: shared(3),
}


@pytest.mark.parametrize(
    ("name", "loops"), [*((name, 1) for name in CELLS), ("all", 2), ("shared", 2)]
)
def test_nothing_has_to_be_set(name: str, loops: int, tmp_path: Path) -> None:
    path, x, y = saved(tmp_path, dynamic(CELLS[name]), loops)
    model = lc.load(path)
    (layer,) = model.layers
    assert not any("says neither" in note for note in model.notes)
    (found,) = reference.run(layer, x).outputs
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["all", "shared"])
def test_a_graph_without_a_loop_is_read_too(name: str, tmp_path: Path) -> None:
    path, x, y = saved(tmp_path, static(CELLS[name]))
    (layer,) = lc.load(path).layers
    (found,) = reference.run(layer, x).outputs
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-6)


def fused(inputs: Any) -> Any:
    """One operation for all steps, under the names of a plain cell, but in another order."""
    with v1.variable_scope("rnn/lstm_cell"):
        kernel = v1.get_variable("kernel", (WIDTH + 3, 12))
        bias = v1.get_variable("bias", 12)
    zeros, none = tf.zeros((2, 3)), tf.zeros(3)
    h = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.cast(tf.shape(inputs)[1], tf.int64), x=tf.transpose(inputs, (1, 0, 2)),
        cs_prev=zeros, h_prev=zeros, w=kernel, b=bias, wci=none, wcf=none, wco=none,
    ).h  # fmt: skip
    return tf.transpose(h, (1, 0, 2))


def trained(inputs: Any) -> Any:
    """The last output, with what trains it."""
    outputs, _ = v1.nn.dynamic_rnn(BasicLSTMCell(3), inputs, dtype=tf.float32)
    y = tf.reduce_sum(outputs[:, -1], axis=1, keepdims=True)
    v1.train.AdamOptimizer().minimize(tf.reduce_mean(y**2))
    return y


def test_the_order_of_gates_is_the_operation_s(tmp_path: Path) -> None:
    path, x, y = saved(tmp_path, fused)
    (layer,) = lc.load(path).layers
    (found,) = reference.run(layer, x).outputs
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-6)


def test_what_trains_a_model_takes_nothing_of_it(tmp_path: Path) -> None:
    path, x, y = saved(tmp_path, trained)
    (layer,) = lc.load(path).layers
    assert layer.forward.options.return_sequences is False
    (found,) = reference.run(layer, x).outputs
    np.testing.assert_allclose(found.sum(axis=1, keepdims=True), y, rtol=0, atol=1e-6)


def test_two_ways_to_run_one_cell_are_told(tmp_path: Path) -> None:
    def build(inputs: Any) -> Any:
        cell = LSTMCell(3)
        with v1.variable_scope("", reuse=v1.AUTO_REUSE):
            first, _ = v1.nn.dynamic_rnn(cell, inputs, dtype=tf.float32)
            second, _ = v1.nn.dynamic_rnn(cell, inputs, dtype=tf.float32)
        return tf.concat([first, second[:, -1:]], axis=1)

    path, _, _ = saved(tmp_path, build)
    model = lc.load(path)
    assert model.layers[0].forward.options.return_sequences is UNKNOWN
    assert model.layers[0].forward.options.go_backwards is False
    assert any("runs it 2 times, with return_sequences False and True" in n for n in model.notes)


def test_layers_that_share_a_cell_are_told(tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path, dynamic(CELLS["shared"]))
    model = lc.load(path)
    assert [len(direction.cells) for _, direction in model.layers[0].directions] == [3]
    assert any("share their weights" in note for note in model.notes)


def test_other_functions_stay_unknown(tmp_path: Path) -> None:
    def make() -> Any:
        return LSTMCell(3, activation=lambda x: tf.tanh(0.5 * x))

    path, _, _ = saved(tmp_path, dynamic(make))
    model = lc.load(path)
    (layer,) = model.layers
    assert layer.cell.options.activation is UNKNOWN
    assert any("does not say how it runs" in note for note in model.notes)
    assert layer.cell.options.forget_bias == 1.0


@pytest.mark.parametrize("how", ["gone", "cut", "other"])
def test_without_a_graph_that_is_read_nothing_is_known(how: str, tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path, dynamic(CELLS["basic"]))
    graph = path.with_name("model.ckpt.meta")
    if how == "gone":
        graph.unlink()
    else:
        graph.write_bytes(graph.read_bytes()[:-100] if how == "cut" else b"\xff" * 50)
    model = lc.load(path)
    assert model.layers[0].cell.options.forget_bias is UNKNOWN
    assert any("forget_bias" in note for note in model.notes)
    assert any("is not read" in note for note in model.notes) is (how != "gone")


def test_the_graph_is_part_of_what_the_source_is(tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path, dynamic(CELLS["basic"]))
    graph = path.with_name("model.ckpt.meta")
    before = lc.load(path).source.sha256
    graph.write_bytes(graph.read_bytes() + b"\x4a\x01x")  # an unknown field: the same facts
    changed = lc.load(path)
    assert changed.layers[0].cell.options.forget_bias == float(np.float32(0.7))
    assert changed.source.sha256 not in (before, None)
    graph.unlink()
    assert lc.load(path).source.sha256 not in (before, changed.source.sha256)
