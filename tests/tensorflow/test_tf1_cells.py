"""TensorFlow 1's cells under any name: found, and computing what TensorFlow's own cells compute.

The oracle is TensorFlow in graph mode, with the cells of TensorFlow 1 that tf_keras still has. The
names of 0.x are given to its variables by the Saver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn.legacy_cells import BasicLSTMCell, BasicRNNCell, LSTMCell, MultiRNNCell

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.errors import NoLSTM

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
v1 = tf.compat.v1

STEPS, WIDTH = 5, 7
KNOWN = (
    *("activation=tanh", "cell_clip=null", "return_sequences=true", "return_state=false"),
    *("stateful=false", "forget_bias=1.0", "zero_output_for_mask=false"),
)


class Saved:
    """A checkpoint, and what its graph computed: `x`, and `y`, one output or two."""

    def __init__(
        self,
        folder: Path,
        build: Callable[[Any], Any],
        names: Mapping[str, str] | None = None,
        optimizer: bool = False,
    ) -> None:
        self.path = folder / "model.ckpt"
        random = np.random.default_rng(3)
        with tf.Graph().as_default(), v1.Session() as session:
            inputs = v1.placeholder(tf.float32, (2, STEPS, WIDTH))
            outputs = tf.nest.flatten(build(inputs))
            weights = v1.global_variables()
            if optimizer:
                with v1.variable_scope("train"):
                    v1.train.AdamOptimizer().minimize(tf.add_n([tf.reduce_sum(y) for y in outputs]))
            session.run(v1.global_variables_initializer())
            for weight in weights:
                weight.load(random.uniform(-0.8, 0.8, weight.shape.as_list()), session)
            self.x = random.uniform(-1, 1, (2, STEPS, WIDTH)).astype("float32")
            self.y = session.run(outputs, {inputs: self.x})
            self._save(session, names)

    def _save(self, session: Any, names: Mapping[str, str] | None) -> None:
        variables = {w.op.name: w for w in v1.global_variables()}
        saver = v1.train.Saver(
            {_renamed(name, names or {}): variable for name, variable in variables.items()}
        )
        saver.save(session, str(self.path), write_meta_graph=False)


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for pattern, new in names.items():
        name = re.sub(pattern, new, name)
    return name


def dynamic(cell: Callable[[], Any], scope: str | None = None) -> Callable[[Any], Any]:
    return lambda x: v1.nn.dynamic_rnn(cell(), x, dtype=tf.float32, scope=scope)[0]


def stack(*cells: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: MultiRNNCell([cell() for cell in cells])


def both(x: Any) -> Any:
    fw, bw = LSTMCell(3, name="there"), LSTMCell(2, name="back")
    return v1.nn.bidirectional_dynamic_rnn(fw, bw, x, dtype=tf.float32)[0]


def both_stacked(x: Any) -> Any:
    fw, bw = (stack(*(lambda n=n: LSTMCell(n, name="own") for n in sizes))()
              for sizes in ((3, 2), (2, 4)))
    return v1.nn.bidirectional_dynamic_rnn(fw, bw, x, dtype=tf.float32)[0]


OWN_NAME = {
    "named": (dynamic(lambda: LSTMCell(3, name="foo")), "rnn", {}),
    "scoped": (dynamic(lambda: LSTMCell(3, name="foo"), "my_rnn"), "my_rnn", {}),
    "says it": (dynamic(lambda: BasicLSTMCell(1, name="my_lstm"), "net"), "net", {}),
    "one stack": (dynamic(stack(lambda: LSTMCell(3, name="foo"), lambda: LSTMCell(2, name="bar"))),
                  "rnn", {}),
    "two directions": (both, "bidirectional_rnn", {}),
    "two stacks": (both_stacked, "bidirectional_rnn", {}),
    "1.0": (dynamic(stack(lambda: LSTMCell(3), lambda: LSTMCell(2))), "rnn",
            {"kernel": "weights", "bias": "biases"}),
    "0.x": (dynamic(stack(lambda: LSTMCell(3), lambda: LSTMCell(2))), "RNN",
            {"rnn/multi_rnn_cell/cell_": "RNN/MultiRNNCell/Cell", "lstm_cell": "LSTMCell",
             "kernel": "W_0", "bias": "B"}),
    "0.x basic": (dynamic(lambda: BasicLSTMCell(3)), "RNN",
                  {"rnn/basic_lstm_cell/kernel": "RNN/BasicLSTMCell/Linear/Matrix",
                   "rnn/basic_lstm_cell/bias": "RNN/BasicLSTMCell/Linear/Bias"}),
    "0.x both": (both, "BiRNN", {"bidirectional_rnn/": "BiRNN_", "fw/there": "FW/LSTMCell",
                                 "bw/back": "BW/LSTMCell", "kernel": "W_0", "bias": "B"}),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN_NAME)
def test_a_cell_of_any_name_computes_what_it_did(case: str, tmp_path: Path) -> None:
    build, name, names = OWN_NAME[case]
    saved = Saved(tmp_path, build, names)
    settings = [*KNOWN, "go_backwards=false", *(["merge_mode=null"] if len(saved.y) > 1 else [])]
    model = lc.load(saved.path, settings=settings)
    assert list(model) == [name]
    assert not model.other
    outputs = reference.run(model[name], saved.x).outputs
    for found, wanted in zip(outputs, saved.y, strict=True):
        # Sums in float32, in another order than TensorFlow's.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", ["named", "one stack", "0.x basic"])
def test_today_s_keras_layer_computes_it_too(case: str, tmp_path: Path) -> None:
    build, name, names = OWN_NAME[case]
    saved = Saved(tmp_path, build, names)
    settings = [*KNOWN, "go_backwards=false"]
    layer = lc.to_keras(lc.load(saved.path, settings=settings)[name])
    np.testing.assert_allclose(layer(saved.x), saved.y[0], rtol=0, atol=1e-6)


def test_peepholes_projection_and_clips_of_a_cell_of_any_name(tmp_path: Path) -> None:
    def cell() -> Any:
        return LSTMCell(
            4, name="deep", use_peepholes=True, num_proj=2, cell_clip=0.4, proj_clip=0.3
        )

    settings = [s for s in KNOWN if "clip" not in s]
    settings += ["go_backwards=false", "cell_clip=0.4", "projection_clip=0.3"]
    old = {"rnn/deep": "lstm/lstm_0", "projection/kernel": "W_P_0", "kernel": "W_0",
           "bias": "B", "w_(.)_diag": lambda m: f"W_{m[1].upper()}_diag"}  # fmt: skip
    for names in ({}, old):
        saved = Saved(tmp_path, dynamic(cell), names)
        model = lc.load(saved.path, settings=settings)
        (layer,) = model.layers
        assert (layer.cell.units, layer.cell.recurrent_dim, layer.cell.input_dim) == (4, 2, WIDTH)
        assert not model.other
        (found,) = reference.run(layer, saved.x).outputs
        np.testing.assert_allclose(found, saved.y[0], rtol=0, atol=1e-6)


def test_rows_in_shards_are_joined(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return dynamic(lambda: LSTMCell(3))(x)

    saved = Saved(tmp_path / "whole", build)
    whole = lc.load(saved.path)
    kernel = tf.train.load_variable(str(saved.path), "rnn/lstm_cell/kernel")
    with tf.Graph().as_default(), v1.Session() as session:
        parts = {"a/LSTMCell/W_0": kernel[:4], "a/LSTMCell/W_1": kernel[4:7],
                 "a/LSTMCell/W_2": kernel[7:],
                 "a/LSTMCell/B": tf.train.load_variable(str(saved.path), "rnn/lstm_cell/bias")}
        variables = {name: v1.Variable(value) for name, value in parts.items()}
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables).save(session, str(tmp_path / "parts"), write_meta_graph=False)
    joined = lc.load(tmp_path / "parts")
    pairs = zip(joined["a"].cell.tensors(), whole["rnn"].cell.tensors(), strict=True)
    assert all(np.array_equal(a.read(), b.read()) for (_, a), (_, b) in pairs)
    assert not joined.other


def test_what_may_be_another_cell_is_left_to_the_user(tmp_path: Path) -> None:
    saved = Saved(tmp_path, dynamic(lambda: BasicRNNCell(4, name="foo")))
    with pytest.raises(NoLSTM, match="no variable belongs") as caught:
        lc.load(saved.path)
    assert "rnn/foo" in (caught.value.hint or "")
    assert "--from tf1" in (caught.value.hint or "")
    taken = lc.load(saved.path, layout="tf1")
    assert (taken["rnn"].units, taken["rnn"].input_dim) == (1, WIDTH + 3)


def test_dense_layers_and_other_cells_are_left_among_the_others(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        y = dynamic(lambda: LSTMCell(3, name="foo"))(x)
        for name, width in (("dense", 8), ("hidden", 8), ("other_rnn/wide", 4)):
            y = y @ v1.get_variable(f"{name}/kernel", (y.shape[-1], width))
            y = tf.nn.relu(y + v1.get_variable(f"{name}/bias", (width,)))
        return y

    saved = Saved(tmp_path, build, optimizer=True)
    model = lc.load(saved.path)
    assert list(model) == ["rnn"]
    layers = ("dense", "hidden", "other_rnn/wide")
    assert sorted(model.other) == [f"{name}/{x}" for name in layers for x in ("bias", "kernel")]
    assert len(model.optimizer) == 2 * 8 + 2
    said = " ".join(model.notes)
    assert "not by name: rnn/foo" in said
    assert ("hidden" in said, "other_rnn/wide" in said) == (False, True)


def test_cells_side_by_side_are_layers_of_their_own(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        with v1.variable_scope("net"):
            cells = [LSTMCell(3), LSTMCell(2)]
            states = [cell.get_initial_state(batch_size=2, dtype=tf.float32) for cell in cells]
            return [cell(x[:, 0], state)[0] for cell, state in zip(cells, states, strict=True)]

    model = lc.load(Saved(tmp_path, build).path)
    assert [(name, layer.units) for name, layer in model.items()] == [
        ("net/lstm_cell", 3), ("net/lstm_cell_1", 2),
    ]  # fmt: skip


def test_cells_that_are_no_chain_are_no_stack(tmp_path: Path) -> None:
    saved = Saved(tmp_path, dynamic(stack(lambda: LSTMCell(3), lambda: LSTMCell(2))),
                  {"cell_1": "cell_2"})
    assert list(lc.load(saved.path)) == ["rnn/cell_0", "rnn/cell_2"]


@pytest.mark.parametrize("kind", ["one", "both"])
def test_a_keras_layer_that_tensorflow_1_saved(kind: str, tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        import tf_keras

        layer = tf_keras.layers.LSTM(3, return_sequences=True, name="enc")
        return (tf_keras.layers.Bidirectional(layer, name="two") if kind == "both" else layer)(x)

    saved = Saved(tmp_path, build)
    settings = [s for s in KNOWN if not s.startswith(("forget_bias", "cell_clip"))]
    settings += ["recurrent_activation=sigmoid"]
    settings += ["go_backwards=false", *(["merge_mode=concat"] if kind == "both" else [])]
    model = lc.load(saved.path, settings=settings)
    (layer,) = model.layers
    assert layer.name == ("two" if kind == "both" else "enc")
    assert not model.other
    (found,) = reference.run(layer, saved.x).outputs
    np.testing.assert_allclose(found, saved.y[0], rtol=0, atol=1e-6)


def canonical(x: Any) -> Any:
    """Two bidirectional layers, as CudnnLSTM computes and CudnnLSTMSaveable names them."""
    name = "cudnn_compatible_lstm_cell"
    for index in range(2):
        with v1.variable_scope(f"cudnn_lstm/stack_bidirectional_rnn/cell_{index}"):
            cells = [LSTMCell(3, forget_bias=0.0, name=name) for _ in range(2)]
            x = tf.concat(v1.nn.bidirectional_dynamic_rnn(*cells, x, dtype=tf.float32)[0], -1)
    return x


def test_cudnn_s_canonical_form_says_what_it_computes(tmp_path: Path) -> None:
    saved = Saved(tmp_path, canonical)
    unknown = ("return_sequences=true", "return_state=false", "stateful=false")
    more = ("go_backwards=false", "merge_mode=concat", "zero_output_for_mask=false")
    model = lc.load(saved.path, settings=[*unknown, *more])
    outer = "cudnn_lstm/stack_bidirectional_rnn"
    assert list(model) == [f"{outer}/cell_{index}/bidirectional_rnn" for index in range(2)]
    y = saved.x
    for layer in model.layers:
        (y,) = reference.run(layer, y).outputs
    np.testing.assert_allclose(y, saved.y[0], rtol=0, atol=1e-6)


def test_an_opaque_cudnn_buffer_is_no_lstm_that_can_be_read(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("cudnn_lstm/opaque_kernel", (240,))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    with pytest.raises(NoLSTM, match="opaque_kernel"):
        lc.load(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "shapes",
    [
        {"W_0": (4, 12), "W_1": (12,), "B": (12,)},
        {"W_0": (), "W_1": (), "B": (12,)},
        {"kernel": (7, 12), "bias": (12,), "projection/kernel": ()},
        {"kernel": (3, 12), "bias": (12,)},
        {"kernel": (7, 10), "bias": (10,)},
        {"weights": (7, 12), "biases": (3, 4)},
    ],
)
def test_variables_that_only_look_like_a_cell_s(shapes: Any, tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        for name, shape in shapes.items():
            v1.get_variable(f"rnn/some/{name}", shape)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    with pytest.raises(NoLSTM):
        lc.load(tmp_path / "model.ckpt")
