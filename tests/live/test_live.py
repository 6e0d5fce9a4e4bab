"""Live objects of Flax, nnx, Haiku, Equinox, MLX and tinygrad: they answer as Keras, and return."""

from __future__ import annotations

import doctest
import warnings
from typing import Any

import numpy as np
import pytest
from support.layout_tools import SINGLE, case, close
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import live, reference
from lstmconvert.checks.verification import _sequences
from lstmconvert.live import jax as shared
from lstmconvert.live.engines import ENGINES
from lstmconvert.model.activations import KERAS3
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import Array, same_bits

pytestmark = pytest.mark.engines

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx
    from mlx import nn as mlx_nn

FROM: dict[str, Any] = {
    "flax": lambda made: live.from_flax(made[1]),
    "haiku": lambda made: live.from_haiku(made[1]),
}


def layer_of(**options: Any) -> LSTMLayer:
    return make_layer(make_cell(np.random.default_rng(1), 3, 2, **options), return_sequences=True)


def same(one: LSTMLayer, two: LSTMLayer) -> None:
    for (_, _, a), (_, _, b) in zip(one.cells(), two.cells(), strict=True):
        for (name, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True):
            assert same_bits(x.read(), y.read()), name


def test_every_name_is_there_and_the_examples_run() -> None:
    for framework in live.FRAMEWORKS:
        for way in ("to", "from"):
            assert getattr(live, f"{way}_{framework}").__doc__
    assert len(live.__all__) == 2 * len(live.FRAMEWORKS)
    result = doctest.testmod(live)
    assert result.attempted
    assert not result.failed
    with pytest.raises(AttributeError):
        _ = live.to_nothing


@pytest.mark.parametrize("framework", ["equinox", "flax", "mlx", "nnx"])
def test_a_layer_comes_back_bit_for_bit(framework: str) -> None:
    layer = layer_of()
    made = getattr(live, f"to_{framework}")(layer)
    back = FROM.get(framework, getattr(live, f"from_{framework}"))(made)
    same(back, layer)
    assert back.name == "lstm"


@pytest.mark.parametrize("framework", ["flax", "nnx"])
@pytest.mark.parametrize("optimized", [False, True])
def test_bidirectional_comes_back(framework: str, optimized: bool) -> None:
    layer = case("bidirectional").layer
    made = getattr(live, f"to_{framework}")(layer, optimized=optimized)
    back = FROM.get(framework, getattr(live, f"from_{framework}"))(made)
    assert back.backward is not None
    same(back, layer)


def test_a_bidirectional_is_both_halves_where_a_framework_runs_one() -> None:
    made = live.to_equinox(case("bidirectional").layer)
    back = live.from_equinox(made)
    assert isinstance(back, Model)
    assert list(back) == ["forward", "backward"]
    kernel = case("bidirectional").layer.backward.cells[0].forget_gate.kernel
    assert same_bits(back["backward"].forget_gate.kernel, kernel)


def test_a_stack_of_cells_is_a_tuple() -> None:
    rng = np.random.default_rng(2)
    layer = make_layer([make_cell(rng, 3, 2), make_cell(rng, 2, 4)])
    first, second = live.to_mlx(layer)
    assert (first.Wx.shape, second.Wx.shape) == ((8, 3), (16, 2))


@pytest.mark.filterwarnings("ignore:.*forget gate:UserWarning")
def test_haiku_comes_back_with_its_forget_bias() -> None:
    layer = layer_of()
    _, params = live.to_haiku(layer)
    back = live.from_haiku(params)
    assert back.name == "lstm"
    assert back.cell.options.forget_bias == 1.0
    same(live.from_haiku({"net/lstm/linear": params["lstm/linear"]}), back)
    dense = {"linear": {"w": jnp.zeros((2, 8)), "b": jnp.zeros(8)}}
    with pytest.raises(lc.LSTMConvertError, match="no LSTM"):
        live.from_haiku(dense)


def test_modules_inside_modules_are_found_by_their_paths() -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.rnn = nnx.RNN(nnx.LSTMCell(3, 2, rngs=rngs))
            self.step = nnx.OptimizedLSTMCell(3, 4, rngs=rngs, activation_fn=nnx.relu)
            self.dense = nnx.Linear(3, 4, rngs=rngs)

    found = live.from_nnx(Net())
    assert sorted(found) == ["rnn", "step"]
    assert found["step"].cell.options.activation == KERAS3["relu"]

    class Compact(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.Dense(3)(linen.RNN(linen.LSTMCell(2))(x))

    variables = Compact().init(jax.random.PRNGKey(0), jnp.zeros((1, 2, 3)))
    layer = live.from_flax(variables)  # the cell is named in its parent, without the RNN
    assert (layer.name, layer.units, layer.input_dim) == ("LSTMCell_0", 2, 3)
    assert layer.cell.options.activation is UNKNOWN

    tree = {"a": equinox.nn.LSTMCell(3, 2, key=jax.random.PRNGKey(1)), "b": [jnp.zeros(3)]}
    assert live.from_equinox(tree).name == "a"

    mlx_model = mlx_nn.Sequential(mlx_nn.Linear(3, 3), mlx_nn.LSTM(3, 2))
    assert live.from_mlx(mlx_model).name == "layers/1"


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ("flax-cell", linen.LSTMCell),
        ("nnx-cell", nnx.LSTMCell),
        ("nnx-optimized-cell", nnx.OptimizedLSTMCell),
    ],
)
def test_a_cell_of_flax_alone_steps_as_keras_does(layout: str, kind: Any) -> None:
    known = case("plain")
    params = shared.nested(lc.arrange(known.layer, layout))
    x = jnp.asarray(known.x[:, 0])
    if layout == "flax-cell":
        zeros = jnp.zeros((len(x), known.layer.units))
        _, hidden = kind(known.layer.units).apply({"params": params}, (zeros, zeros), x)
    else:
        cell = kind(x.shape[-1], known.layer.units, rngs=nnx.Rngs(0))
        state = nnx.state(cell, nnx.Param)
        nnx.replace_by_pure_dict(state, params)
        nnx.update(cell, state)
        _, hidden = cell(cell.initialize_carry(x.shape, nnx.Rngs(0)), x)
    close(hidden, known.y[:, 0])


def test_what_holds_no_lstm_is_refused() -> None:
    with pytest.raises(lc.LSTMConvertError, match="no LSTM"):
        live.from_mlx(mlx_nn.Linear(2, 2))
    with pytest.raises(lc.LSTMConvertError, match="no LSTM"):
        live.from_flax({"params": {}})
    with pytest.raises(lc.LSTMConvertError, match=r"not an nnx\.Module"):
        live.from_nnx("x")
    with pytest.raises(lc.LSTMConvertError, match="a mapping"):
        live.from_flax("x")
    with pytest.raises(lc.LSTMConvertError, match="no LSTM"):
        live.from_equinox([jnp.zeros(3)])


@pytest.mark.parametrize("mode", ["sum", "mul", "ave"])
def test_flax_merges_as_keras_does(mode: str) -> None:
    rng = np.random.default_rng(5)
    cells = [make_cell(rng, 3, 2) for _ in range(2)]
    layer = make_layer(cells[0], cells[1], merge_mode=mode, return_sequences=True)
    x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    module, variables = live.to_flax(layer)
    wanted = reference.run(layer, x).outputs[0]
    close(module.apply(variables, x), wanted)
    close(live.to_nnx(layer)(jnp.asarray(x)), wanted)


@pytest.mark.parametrize("name", ["relu", "hard_sigmoid", "elu", "softsign", "gelu"])
def test_flax_takes_the_functions(name: str) -> None:
    layer = layer_of(activation=KERAS3[name], recurrent_activation=KERAS3["hard_sigmoid"])
    x = np.random.default_rng(3).normal(size=(2, 4, 3)).astype(np.float32)
    module, variables = live.to_flax(layer)
    close(module.apply(variables, x), reference.run(layer, x).outputs[0])


def test_what_a_framework_cannot_is_refused() -> None:
    with pytest.raises(lc.LSTMConvertError, match="cannot express activation"):
        live.to_equinox(layer_of(activation=KERAS3["relu"]))
    with pytest.raises(lc.LSTMConvertError, match="JAX has no such function"):
        live.to_flax(layer_of(activation=KERAS3["softmax"]))
    with pytest.raises(lc.LSTMConvertError, match="does not say"):
        live.to_nnx(layer_of(activation=UNKNOWN))
    for make in (live.to_flax, live.to_mlx):
        with pytest.raises(lc.LSTMConvertError, match=r"would round float64|cannot express dtype"):
            make(layer_of(dtype="float64"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("framework", ["equinox", "flax", "mlx", "nnx"])
def test_other_dtypes_keep_their_bits(dtype: str, framework: str) -> None:
    layer = layer_of(dtype=dtype)
    made = getattr(live, f"to_{framework}")(layer)
    same(FROM.get(framework, getattr(live, f"from_{framework}"))(made), layer)


def test_a_model_is_a_dict_by_layer_name() -> None:
    model = lc.load("fixtures/keras-3.15.1/seed95.keras")
    assert set(live.to_flax(model)) == set(live.to_equinox(model)) == {"lstm"}


# ---- every engine of verify, against Keras ------------------------------------------------------


def chained(engine: str, name: str) -> Array:
    known = case(name)
    y = known.x
    for layer in known.layers:
        y = np.asarray(ENGINES[engine].run(_sequences(layer), y.astype(np.float64)))
    return y


@pytest.mark.filterwarnings("ignore:.*forget gate:UserWarning")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*SINGLE, "stacked", "stacked-bidirectional"])
def test_matrix(engine: str, name: str, matrix: dict[tuple[str, str], float]) -> None:
    matrix[engine, name] = close(chained(engine, name), case(name).y)


@pytest.mark.parametrize(
    ("engine", "dtype"),
    [(e, "float64") for e in ("flax", "nnx", "equinox", "tinygrad", "c", "keras", "torch")]
    + [(e, d) for e in ("flax", "nnx", "equinox", "mlx") for d in ("float16", "bfloat16")],
)
def test_matrix_of_dtypes(
    engine: str, dtype: str, matrix: dict[tuple[str, str], float]
) -> None:
    layer = layer_of(dtype=dtype)
    x = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(layer.dtype).astype(np.float64)
    wanted = reference.run(layer, x, dtype="float64").outputs[0]
    found = ENGINES[engine].run(layer, x)
    assert found.dtype.name == dtype
    limit = {"float64": 1e-14, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    matrix[engine, dtype] = close(found, wanted, limit)
