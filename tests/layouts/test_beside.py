"""The real frameworks run the layers beside the LSTM: what they compute is what Keras computes."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.beside_tools import FEATURES, UNITS, Known, model, relu
from support.foreign import OLD, answers, installed

import lstmconvert as lc
from lstmconvert.conversion import Result
from lstmconvert.tensors.dtypes import Array

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def known() -> Known:
    return model()


def written(known: Known, path: Path, layout: str) -> tuple[Result, dict[str, dict[str, Array]]]:
    """Write the file of a framework; return layer -> its arrays, by the framework's names."""
    result = lc.convert(known.path, path, layout=layout, warn=False)
    layers: dict[str, dict[str, Array]] = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            layer, _, rest = name.partition(".")
            if not name.startswith("__"):
                layers.setdefault(layer, {})[rest] = arrays[name]
    return result, layers


def left_out(result: Result) -> list[str]:
    return sorted(layer.name for layer in result.left_out)


def last(x: Array) -> Array:
    """Channels first."""
    return np.moveaxis(x, -1, 1)


def first(y: Any) -> Array:
    """Channels last again."""
    return np.moveaxis(np.asarray(y), 1, -1)


def test_torch_takes_the_whole_file(known: Known, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(FEATURES, UNITS, batch_first=True)
            self.head = nn.Linear(FEATURES, 5)
            self.words = nn.Embedding(9, 4)
            self.normed = nn.BatchNorm1d(FEATURES, eps=0.02)
            self.shifted = nn.BatchNorm1d(FEATURES, eps=0.001)
            self.even = nn.LayerNorm(FEATURES, eps=0.0008)
            self.wave = nn.Conv1d(FEATURES, 4, 2, padding="same")
            self.groups = nn.Conv1d(FEATURES, 6, 3, stride=2, groups=3)
            self.image = nn.Conv2d(FEATURES, 4, (2, 3))
            self.leak = nn.PReLU(FEATURES)
            self.drop = nn.PReLU(1)
            self.after = nn.GRU(FEATURES, UNITS, batch_first=True)
            self.both = nn.GRU(FEATURES, UNITS, batch_first=True, bidirectional=True)
            self.simple = nn.RNN(FEATURES, UNITS, batch_first=True)
            self.rectified = nn.RNN(FEATURES, UNITS, nonlinearity="relu", batch_first=True)

    path = tmp_path / "x.safetensors"
    result = lc.convert(known.path, path, layout="torch", warn=False)
    assert left_out(result) == ["before"]
    told = "\n".join(result.warnings)
    assert "before: it has no place in this layout: reset_after is False" in told
    assert "normed: nn.BatchNorm keeps no options with its weights: the caller passes eps=0.02" in (
        told
    )
    assert "head: nn.Linear has no activation: the caller applies relu to its output" in told
    net = Net().eval()
    net.load_state_dict(load_file(path), strict=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # padding="same" copies, as torch says
        for name, module in net.named_children():
            x = known.inputs[name]
            turned = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.PReLU))
            y = module(torch.from_numpy(last(x) if turned else x))
            y = y[0] if isinstance(y, tuple) else y
            got = first(y) if turned else y.numpy()
            known.check(name, relu(got) if name == "head" else got)


def test_flax_runs_them(known: Known, tmp_path: Path) -> None:
    import jax.numpy as jnp
    from flax import linen as nn
    from flax.traverse_util import unflatten_dict

    result, layers = written(known, tmp_path / "x.npz", "flax")
    assert left_out(result) == ["before", "leak"]
    told = "\n".join(result.warnings)
    assert "leak: it has no place in this layout: its alpha has 3 numbers, and nn.PRe" in told
    made: dict[str, Any] = {
        "head": nn.Dense(5),
        "words": nn.Embed(9, 4),
        "normed": nn.BatchNorm(use_running_average=True, epsilon=0.02),
        "shifted": nn.BatchNorm(use_running_average=True, epsilon=0.001),
        "even": nn.LayerNorm(epsilon=0.0008),
        "wave": nn.Conv(4, (2,), padding="SAME"),
        "groups": nn.Conv(6, (3,), strides=2, padding="VALID", feature_group_count=3),
        "image": nn.Conv(4, (2, 3), padding="VALID"),
        "drop": nn.PReLU(),
        "after": nn.RNN(nn.GRUCell(UNITS)),
        "both": nn.Bidirectional(nn.RNN(nn.GRUCell(UNITS)), nn.RNN(nn.GRUCell(UNITS))),
        "simple": nn.RNN(nn.SimpleCell(UNITS)),
        "rectified": nn.RNN(nn.SimpleCell(UNITS, activation_fn=nn.relu)),
    }
    assert {*made, "lstm"} == set(layers)
    for name, module in made.items():
        arrays = dict(layers[name])
        statistics = {key: arrays.pop(key) for key in ("mean", "var") if key in arrays}
        flat = {tuple(key.split(".")): jnp.asarray(array) for key, array in arrays.items()}
        variables = {"params": unflatten_dict(flat), "batch_stats": statistics}
        y = module.apply(variables, jnp.asarray(known.inputs[name]))
        known.check(name, relu(y) if name == "head" else y)


def test_nnx_runs_them(known: Known, tmp_path: Path) -> None:
    import jax.numpy as jnp
    from flax import nnx

    result, layers = written(known, tmp_path / "x.npz", "nnx")
    # nnx.GRUCell has no second bias of the candidate.
    assert left_out(result) == ["after", "before", "both"]
    rngs = nnx.Rngs(0)
    made: dict[str, Any] = {
        "head": nnx.Linear(FEATURES, 5, rngs=rngs),
        "words": nnx.Embed(9, 4, rngs=rngs),
        "normed": nnx.BatchNorm(FEATURES, use_running_average=True, epsilon=0.02, rngs=rngs),
        "shifted": nnx.BatchNorm(FEATURES, use_running_average=True, epsilon=0.001, rngs=rngs),
        "even": nnx.LayerNorm(FEATURES, epsilon=0.0008, rngs=rngs),
        "wave": nnx.Conv(FEATURES, 4, (2,), padding="SAME", rngs=rngs),
        "groups": nnx.Conv(
            FEATURES, 6, (3,), strides=2, padding="VALID", feature_group_count=3, rngs=rngs
        ),
        "image": nnx.Conv(FEATURES, 4, (2, 3), padding="VALID", rngs=rngs),
        "leak": nnx.PReLU(),
        "drop": nnx.PReLU(),
        "simple": nnx.RNN(nnx.SimpleCell(FEATURES, UNITS, rngs=rngs)),
        "rectified": nnx.RNN(
            nnx.SimpleCell(FEATURES, UNITS, activation_fn=nnx.relu, rngs=rngs)
        ),
    }
    assert {*made, "lstm"} == set(layers)
    for name, module in made.items():
        for key, array in layers[name].items():
            *path, leaf = key.split(".")
            place = module
            for step in path:
                place = getattr(place, step)
            getattr(place, leaf).set_value(jnp.asarray(array))
        y = module(jnp.asarray(known.inputs[name]))
        known.check(name, relu(y) if name == "head" else y)


def test_haiku_runs_them(known: Known, tmp_path: Path) -> None:
    import haiku as hk
    import jax.numpy as jnp

    result, layers = written(known, tmp_path / "x.npz", "haiku")
    assert left_out(result) == ["after", "both", "drop", "leak", "simple"]
    assert "drop: it has no place in this layout: Haiku has no PReLU" in result.warnings

    def core(make: Any) -> Any:
        def run(x: Any) -> Any:
            unit = make()
            return hk.dynamic_unroll(unit, x, unit.initial_state(x.shape[0]), time_major=False)[0]

        return run

    made: dict[str, Any] = {
        "head": lambda x: hk.Linear(5, name="head")(x),
        "words": lambda x: hk.Embed(9, 4, name="words")(x),
        "even": lambda x: hk.LayerNorm(-1, True, True, eps=0.0008, name="even")(x),
        "wave": lambda x: hk.Conv1D(4, 2, padding="SAME", name="wave")(x),
        "groups": lambda x: hk.Conv1D(
            6, 3, stride=2, padding="VALID", feature_group_count=3, name="groups"
        )(x),
        "image": lambda x: hk.Conv2D(4, (2, 3), padding="VALID", name="image")(x),
        "before": core(lambda: hk.GRU(UNITS, name="before")),
        "rectified": core(lambda: hk.VanillaRNN(UNITS, name="rectified")),
        "normed": lambda x: hk.BatchNorm(True, True, 0.9, eps=0.02, name="normed")(x, False),
        "shifted": lambda x: hk.BatchNorm(True, True, 0.9, eps=0.001, name="shifted")(x, False),
    }
    assert {*made, "lstm"} == set(layers)
    for name, function in made.items():
        params: dict[str, dict[str, Any]] = {}
        for key, array in layers[name].items():
            *path, leaf = key.split(".")
            params.setdefault("/".join([name, *path]), {})[leaf] = jnp.asarray(array)
        state = {key: params.pop(key) for key in [*params] if key.endswith("_ema")}
        run = hk.transform_with_state(function)
        y, _ = run.apply(params, state, None, jnp.asarray(known.inputs[name]))
        known.check(name, relu(y) if name == "head" else y)


def test_equinox_runs_them(known: Known, tmp_path: Path) -> None:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    result, layers = written(known, tmp_path / "x.npz", "equinox")
    assert left_out(result) == ["before", "rectified", "simple"]
    assert "simple: it has no place in this layout: Equinox has no SimpleRNN" in result.warnings
    key = jax.random.key(0)
    made: dict[str, Any] = {
        "head": eqx.nn.Linear(FEATURES, 5, key=key),
        "words": eqx.nn.Embedding(9, 4, key=key),
        "even": eqx.nn.LayerNorm(FEATURES, eps=0.0008),
        "wave": eqx.nn.Conv1d(FEATURES, 4, 2, padding="SAME", key=key),
        "groups": eqx.nn.Conv1d(FEATURES, 6, 3, stride=2, groups=3, key=key),
        "image": eqx.nn.Conv2d(FEATURES, 4, (2, 3), key=key),
        "leak": eqx.nn.PReLU(jnp.zeros(FEATURES)),
        "drop": eqx.nn.PReLU(jnp.zeros(1)),
        "after": eqx.nn.GRUCell(FEATURES, UNITS, key=key),
    }
    for name, epsilon in {"normed": 0.02, "shifted": 0.001}.items():
        norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
            FEATURES, "batch", mode="ema", eps=epsilon, inference=True
        )
        arrays = layers.pop(name)
        pair = (arrays["ema_state_index.mean"], arrays["ema_state_index.var"])
        state = state.set(norm.ema_state_index, tuple(map(jnp.asarray, pair)))
        both = (jnp.asarray(arrays["weight"]), jnp.asarray(arrays["bias"]))
        norm = eqx.tree_at(lambda m: (m.weight, m.bias), norm, both)
        x = jnp.moveaxis(jnp.asarray(known.inputs[name]), -1, 1)
        y, _ = jax.vmap(norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
        known.check(name, first(y))
    assert {*made, "lstm", "both"} == set(layers)
    for name, module in made.items():
        for leaf, array in layers[name].items():
            assert getattr(module, leaf).shape == array.shape, (name, leaf)
            module = eqx.tree_at(lambda m, leaf=leaf: getattr(m, leaf), module, jnp.asarray(array))
        x = jnp.asarray(known.inputs[name])
        if name in ("wave", "groups", "image"):
            y = first(jax.vmap(module)(jnp.moveaxis(x, -1, 1)))
        elif name == "after":

            def scanned(sequence: Any, cell: Any = module) -> Any:
                def step(h: Any, v: Any) -> Any:
                    h = cell(v, h)
                    return h, h

                return jax.lax.scan(step, jnp.zeros(UNITS), sequence)[1]

            y = jax.vmap(scanned)(x)
        else:
            y = jax.vmap(jax.vmap(module))(x)
        known.check(name, relu(y) if name == "head" else y)


def test_mlx_runs_them(known: Known, tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    from mlx import nn

    class Net(nn.Module):  # type: ignore[misc]  # mlx has no types
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(FEATURES, UNITS)
            self.head = nn.Linear(FEATURES, 5)
            self.words = nn.Embedding(9, 4)
            self.normed = nn.BatchNorm(FEATURES, eps=0.02)
            self.shifted = nn.BatchNorm(FEATURES, eps=0.001)
            self.even = nn.LayerNorm(FEATURES, eps=0.0008)
            self.wave = nn.Conv1d(FEATURES, 4, 2, padding=0)
            self.groups = nn.Conv1d(FEATURES, 6, 3, stride=2, groups=3)
            self.image = nn.Conv2d(FEATURES, 4, (2, 3))
            self.leak = nn.PReLU(FEATURES)
            self.drop = nn.PReLU(1)
            self.after = nn.GRU(FEATURES, UNITS)
            self.simple = nn.RNN(FEATURES, UNITS)
            self.rectified = nn.RNN(FEATURES, UNITS, nonlinearity=nn.relu)

    path = tmp_path / "x.safetensors"
    result = lc.convert(known.path, path, layout="mlx", warn=False)
    assert left_out(result) == ["before"]
    arrays = mx.load(str(path))
    both = {name: array for name, array in arrays.items() if name.startswith("both.")}
    assert len(both) == 8
    net = Net().eval()
    net.load_weights([item for item in arrays.items() if item[0] not in both], strict=True)
    for name, module in net.children().items():
        x = mx.array(known.inputs[name])
        if name == "wave":  # Keras pads one step at the end
            x = mx.pad(x, [(0, 0), (0, 1), (0, 0)])
        y = module(x)
        y = y[0] if isinstance(y, tuple) else y
        known.check(name, relu(y) if name == "head" else y)


#: Paddle and TensorFlow do not run in one process.
PADDLE = """
    import paddle
    nn = paddle.nn
    made = {
        "head": nn.Linear(3, 5),
        "words": nn.Embedding(9, 4),
        "normed": nn.BatchNorm1D(3, epsilon=0.02, data_format="NLC"),
        "shifted": nn.BatchNorm1D(3, epsilon=0.001, data_format="NLC"),
        "even": nn.LayerNorm(3, epsilon=0.0008),
        "wave": nn.Conv1D(3, 4, 2, padding=[0, 1]),
        "groups": nn.Conv1D(3, 6, 3, stride=2, groups=3),
        "image": nn.Conv2D(3, 4, (2, 3)),
        "leak": nn.PReLU(3),
        "drop": nn.PReLU(1),
        "after": nn.GRU(3, 4),
        "both": nn.GRU(3, 4, direction="bidirect"),
        "simple": nn.SimpleRNN(3, 4),
        "rectified": nn.SimpleRNN(3, 4, activation="relu"),
    }
    assert set(made) == set(cases)
    for name, arrays in cases.items():
        x, module = arrays.pop("x"), made[name]
        missing, unexpected = module.set_state_dict(arrays)
        assert not unexpected and not [key for key in missing if ".cell" in key], name
        module.eval()
        turned = name in ("wave", "groups", "image", "leak")
        y = module(paddle.to_tensor(np.moveaxis(x, -1, 1) if turned else x))
        y = (y[0] if isinstance(y, tuple) else y).numpy()
        answers[name] = np.moveaxis(y, 1, -1) if turned else y
"""
MXNET = """
    from mxnet import nd
    from mxnet.gluon import nn, rnn
    made = {
        "head": nn.Dense(5, flatten=False, in_units=3),
        "words": nn.Embedding(9, 4),
        "normed": nn.BatchNorm(axis=-1, epsilon=0.02, in_channels=3),
        "shifted": nn.BatchNorm(axis=-1, epsilon=0.001, in_channels=3),
        "even": nn.LayerNorm(epsilon=0.0008, in_channels=3),
        "groups": nn.Conv1D(6, 3, strides=2, groups=3, in_channels=3),
        "image": nn.Conv2D(4, (2, 3), in_channels=3),
        "after": rnn.GRU(4, layout="NTC", input_size=3),
        "both": rnn.GRU(4, layout="NTC", input_size=3, bidirectional=True),
        "simple": rnn.RNN(4, activation="tanh", layout="NTC", input_size=3),
        "rectified": rnn.RNN(4, activation="relu", layout="NTC", input_size=3),
    }
    for name, module in made.items():
        arrays = cases[name]
        x = arrays.pop("x")
        nd.save("one.params", {key: nd.array(array) for key, array in arrays.items()})
        module.load_parameters("one.params")
        turned = name in ("groups", "image")
        y = module(nd.array(np.moveaxis(x, -1, 1) if turned else x)).asnumpy()
        answers[name] = np.moveaxis(y, 1, -1) if turned else y
"""
TINYGRAD = """
    import os
    os.environ["DEV"] = "PYTHON"
    from tinygrad import Tensor, nn
    from tinygrad.nn.state import load_state_dict
    made = {
        "head": nn.Linear(3, 5),
        "words": nn.Embedding(9, 4),
        "even": nn.LayerNorm(3, eps=0.0008),
        "normed": nn.BatchNorm(3, eps=0.02),
        "groups": nn.Conv1d(3, 6, 3, stride=2, groups=3),
        "image": nn.Conv2d(3, 4, (2, 3)),
    }
    for name, module in made.items():
        arrays = cases[name]
        x = arrays.pop("x")
        load_state_dict(module, {k: Tensor(a) for k, a in arrays.items()}, verbose=False)
        turned = name in ("normed", "groups", "image")
        y = module(Tensor(np.moveaxis(x, -1, 1) if turned else x)).numpy()
        answers[name] = np.moveaxis(y, 1, -1) if turned else y
"""


@pytest.mark.parametrize(
    ("layout", "script", "left", "interpreter"),
    [
        ("paddle", PADDLE, ["before"], None),
        ("mxnet", MXNET, ["before"], OLD),
        (
            *("tinygrad", TINYGRAD),
            ["after", "before", "both", "drop", "leak", "rectified", "simple"],
            None,
        ),
    ],
    ids=["paddle", "mxnet", "tinygrad"],
)
def test_others_run_them(
    known: Known,
    layout: str,
    script: str,
    left: list[str],
    interpreter: tuple[str, str, str] | None,
    tmp_path: Path,
) -> None:
    python = installed(*interpreter) if interpreter else sys.executable
    result, layers = written(known, tmp_path / "x.npz", layout)
    assert left_out(result) == left
    del layers["lstm"]
    cases = {name: {"x": known.inputs[name], **arrays} for name, arrays in layers.items()}
    done = answers(script, cases, tmp_path, python)
    assert len(done) > 5
    for name, y in done.items():
        known.check(name, relu(y) if name == "head" else y)


def test_tf1_and_keras_have_their_own_names(known: Known, tmp_path: Path) -> None:
    import tensorflow as tf

    result, layers = written(known, tmp_path / "x.npz", "tf1")
    assert left_out(result) == ["after", "both"]
    kernel, bias = layers["before"]["gates.kernel"], layers["before"]["gates.bias"]
    second, offset = layers["before"]["candidate.kernel"], layers["before"]["candidate.bias"]
    x = known.inputs["before"]
    h, steps = np.zeros((len(x), UNITS), np.float32), []
    for step in range(x.shape[1]):
        # The operator behind TensorFlow 1's GRUBlockCell.
        answer = tf.raw_ops.GRUBlockCell(
            x=x[:, step], h_prev=h, w_ru=kernel, w_c=second, b_ru=bias, b_c=offset
        )
        h = answer.h.numpy()
        steps.append(h)
    known.check("before", np.stack(steps, 1))

    result, layers = written(known, tmp_path / "y.npz", "keras")
    assert left_out(result) == []
    assert set(layers["both"]) == {
        f"{side}.{role}"
        for side in ("forward", "backward")
        for role in ("kernel", "recurrent_kernel", "bias")
    }


@pytest.mark.parametrize("layout", ["torch", "flax", "mlx", "paddle", "keras", "mxnet", "tinygrad"])
def test_what_was_carried_comes_back_bit_for_bit(
    known: Known, layout: str, tmp_path: Path
) -> None:
    source = lc.load(known.path)
    path = tmp_path / "x.safetensors"
    result = lc.convert(known.path, path, layout=layout, with_other=True, warn=False)
    assert not result.left_out
    back = lc.load(path)
    assert back.is_complete
    assert lc.save(back, tmp_path / "y.keras", warn=False).whole_model
    report = lc.diff(known.path, tmp_path / "y.keras")
    rounds = {"flax": 3, "mlx": 3}  # of a GRU, and of each half of another, a bias
    if layout not in rounds:
        assert report
        return
    assert len([text for text in result.losses if "biases" in text]) == 2
    changed = [
        name
        for name, tensor in source.other.items()
        if back.other[name].read().tobytes() != tensor.read().tobytes()
    ]
    assert len(changed) == rounds[layout]
