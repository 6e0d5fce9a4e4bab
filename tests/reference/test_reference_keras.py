"""The forward pass against Keras 3 on TensorFlow: every option, layer kind and activation.

Random weights with non-zero biases, input != units, a batch of 3, unlike halves. The comparison is
of everything the layer returns, states included.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.neutral import from_keras_layer

from lstmconvert.model.activations import KERAS3
from lstmconvert.model.options import UNKNOWN
from lstmconvert.reference import Outputs, run

pytestmark = pytest.mark.engines

keras = pytest.importorskip("keras")
layers = keras.layers

#: float64: the same operations in another order (one product for all steps, gates apart); 5 steps
#: of numbers near 1 leave some 1e-15.
FLOAT64 = 1e-13
#: float32: an ULP of a number near 1 is 1.2e-7; a dot product of 10 terms and a vectorised tanh
#: err by a few, and the recurrence adds them up over 5 steps.
FLOAT32 = 2e-6

BATCH, STEPS, INPUTS = 3, 5, 4
MASKS: dict[str, Any] = {
    "none": None,
    "right": np.arange(STEPS) < np.array([[5], [3], [1]]),
    "left": np.arange(STEPS) >= np.array([[0], [2], [4]]),
    "scattered": np.array([[1, 0, 1, 0, 1], [0, 1, 0, 0, 1], [1, 1, 0, 1, 0]], bool),
    "nothing": np.zeros((BATCH, STEPS), bool),
}


def randomise(layer: Any, shape: tuple[int, ...], seed: int, scale: float = 0.4) -> None:
    rng = np.random.default_rng(seed)
    layer.build(shape)
    layer.set_weights([scale * rng.normal(size=w.shape) for w in layer.get_weights()])


def agree(ours: Outputs, theirs: Any, tolerance: float, with_states: bool) -> None:
    flat = [np.asarray(a) for a in keras.tree.flatten(theirs)]
    mine = [*ours.outputs, *(ours.states if with_states else ())]
    assert [a.shape for a in mine] == [a.shape for a in flat]
    assert [a.dtype for a in mine] == [a.dtype for a in flat]
    for one, two in zip(mine, flat, strict=True):
        scale = max(1.0, float(np.abs(two).max()))
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance * scale)


def compiled(layer: Any) -> Any:
    """Return the layer under XLA: TensorFlow's CPU kernels have no channels_first convolution."""
    import tensorflow as tf

    return tf.function(
        lambda x, mask, initial_state: layer(x, mask=mask, initial_state=initial_state),
        jit_compile=True,
    )


def check(
    layer: Any,
    *,
    dtype: str = "float64",
    inputs: int = INPUTS,
    shape: tuple[int, ...] = (),
    mask: Any = None,
    state: Any = None,
    scale: float = 0.4,
    seed: int = 0,
    xla: bool = False,
) -> None:
    """Give a Keras layer random weights, call it and the forward pass, and compare."""
    full = (BATCH, STEPS, *(shape or (inputs,)))
    randomise(layer, full, seed, scale)
    x = np.random.default_rng(seed + 1).normal(size=full).astype(dtype)
    theirs = (compiled(layer) if xla else layer)(x, mask=mask, initial_state=state)
    flat = None if state is None else keras.tree.flatten(state)
    ours = run(from_keras_layer(layer), x, mask=mask, initial_state=flat)
    agree(ours, theirs, FLOAT64 if dtype == "float64" else FLOAT32, layer.return_state)


BOTH = (False, True)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("sequences", "backwards"), [*itertools.product(BOTH, BOTH)])
def test_lstm(sequences: bool, backwards: bool, mask: str) -> None:
    for zero in BOTH:
        check(
            layers.LSTM(
                3,
                return_sequences=sequences,
                return_state=True,
                go_backwards=backwards,
                zero_output_for_mask=zero,
                dtype="float64",
            ),
            mask=MASKS[mask],
        )


@pytest.mark.parametrize("mask", ["none", "left", "scattered"])
def test_unrolled(mask: str) -> None:
    for sequences, zero in itertools.product(BOTH, BOTH):
        options = {"return_sequences": sequences, "zero_output_for_mask": zero}
        check(
            layers.LSTM(3, unroll=True, return_state=True, dtype="float64", **options),
            mask=MASKS[mask],
        )


@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (4, 1), (1, 4), (3, 3), (9, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", BOTH)
def test_widths(inputs: int, units: int, dtype: str, bias: bool) -> None:
    layer = layers.LSTM(units, return_sequences=True, use_bias=bias, dtype=dtype)
    check(layer, inputs=inputs, dtype=dtype)


@pytest.mark.parametrize("implementation", [1, 2])
def test_implementation(implementation: int) -> None:
    check(layers.LSTM(3, implementation=implementation, return_state=True, dtype="float64"))


#: sparsemax is wrong in Keras up to 3.15.1 (keras issue 23425): test_maths.py has its definition.
NAMES = sorted(KERAS3.keys() - {"sparsemax"})
#: Keras on TensorFlow has these with float32 constants in float64: test_maths.py again.
ROUNDED = {"leaky_relu", "gelu"}


#: exp of a state that is itself a sum of exp: larger weights soon reach 1e200, and every rounding
#: is blown up with them.
SCALES = {"exponential": 0.05}


@pytest.mark.parametrize("name", NAMES)
def test_activations(name: str) -> None:
    """Each name as activation and as recurrent activation."""
    dtype = "float32" if name in ROUNDED else "float64"
    for role in ("activation", "recurrent_activation"):
        options = {role: name, "return_sequences": True, "return_state": True}
        check(layers.LSTM(3, dtype=dtype, **options), dtype=dtype, scale=SCALES.get(name, 0.3))


@pytest.mark.parametrize("name", ["tanh", "hard_sigmoid", "softmax", "relu"])
def test_activations_in_float32(name: str) -> None:
    layer = layers.LSTM(
        3, activation=name, recurrent_activation=name, return_sequences=True, return_state=True
    )
    check(layer, dtype="float32")


def states(*widths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.normal(size=(BATCH, width)) for width in widths]


@pytest.mark.parametrize("mask", MASKS)
def test_initial_state(mask: str) -> None:
    layer = layers.LSTM(3, return_sequences=True, return_state=True, dtype="float64")
    check(layer, mask=MASKS[mask], state=states(3, 3))


MERGES = ["concat", "sum", "mul", "ave", None]


def halves(sequences: bool, forward_backwards: bool = False) -> tuple[Any, Any]:
    """Two halves that share what Keras wants them to share, and nothing else but the units."""
    common = {"return_sequences": sequences, "return_state": True, "dtype": "float64"}
    one = layers.LSTM(3, go_backwards=forward_backwards, zero_output_for_mask=True, **common)
    other = layers.LSTM(
        3,
        activation="softsign",
        recurrent_activation="hard_sigmoid",
        use_bias=False,
        go_backwards=not forward_backwards,
        **common,
    )
    return one, other


@pytest.mark.parametrize("mask", ["none", "scattered"])
@pytest.mark.parametrize("sequences", BOTH)
@pytest.mark.parametrize("merge", MERGES)
def test_bidirectional(merge: str | None, sequences: bool, mask: str) -> None:
    one, other = halves(sequences)
    check(
        layers.Bidirectional(one, merge_mode=merge, backward_layer=other, dtype="float64"),
        mask=MASKS[mask],
    )


@pytest.mark.parametrize("said", [False, True, UNKNOWN])
@pytest.mark.parametrize("sequences", BOTH)
def test_bidirectional_sets_zero_output_for_mask_itself(sequences: bool, said: Any) -> None:
    """Whatever a half's config says: Keras overwrites it, so it may even be unknown."""
    options = {"return_sequences": sequences, "dtype": "float64"}
    layer = layers.Bidirectional(layers.LSTM(3, **options), dtype="float64")
    randomise(layer, (BATCH, STEPS, INPUTS), seed=0)
    neutral = from_keras_layer(layer)
    forward, backward = (
        replace(half, options=replace(half.options, zero_output_for_mask=said))
        for _, half in neutral.directions
    )
    x = np.random.default_rng(1).normal(size=(BATCH, STEPS, INPUTS))
    ours = run(replace(neutral, forward=forward, backward=backward), x, mask=MASKS["scattered"])
    agree(ours, layer(x, mask=MASKS["scattered"]), FLOAT64, with_states=False)


@pytest.mark.parametrize("sequences", BOTH)
def test_bidirectional_whose_forward_half_goes_backwards(sequences: bool) -> None:
    one, other = halves(sequences, forward_backwards=True)
    check(layers.Bidirectional(one, backward_layer=other, dtype="float64"), mask=MASKS["scattered"])


def test_bidirectional_of_unlike_widths() -> None:
    one = layers.LSTM(2, return_sequences=True, return_state=True, dtype="float64")
    other = layers.LSTM(
        5, return_sequences=True, return_state=True, go_backwards=True, dtype="float64"
    )
    check(
        layers.Bidirectional(one, backward_layer=other, dtype="float64"),
        mask=MASKS["left"],
        state=states(2, 2, 5, 5),
    )


def test_bidirectional_in_float32() -> None:
    check(layers.Bidirectional(layers.LSTM(4, return_sequences=True)), dtype="float32")


def cells(*widths: int) -> Any:
    """A cell, or a stack of several with unlike activations."""
    names = ("tanh", "relu", "softsign")
    made = [
        layers.LSTMCell(width, activation=name, dtype="float64")
        for width, name in zip(widths, names, strict=False)
    ]
    # Not a plain list: RNN would put it in StackedRNNCells of the default dtype, and that casts
    # the input to float32.
    return made[0] if len(made) == 1 else layers.StackedRNNCells(made, dtype="float64")


@pytest.mark.parametrize("mask", ["none", "left", "scattered"])
@pytest.mark.parametrize("widths", [(3,), (5, 2), (2, 6, 3)])
def test_rnn_over_cells(widths: tuple[int, ...], mask: str) -> None:
    for sequences, backwards in ((False, False), (True, True)):
        layer = layers.RNN(
            cells(*widths),
            return_sequences=sequences,
            return_state=True,
            go_backwards=backwards,
            dtype="float64",
        )
        check(layer, mask=MASKS[mask])


def test_stack_with_initial_state() -> None:
    given = [states(5, 5), states(2, 2)]
    layer = layers.RNN(cells(5, 2), return_sequences=True, return_state=True, dtype="float64")
    check(layer, state=given, mask=MASKS["scattered"])


@pytest.mark.parametrize("merge", MERGES)
def test_bidirectional_over_a_stack(merge: str | None) -> None:
    one = layers.RNN(cells(5, 2), return_sequences=True, return_state=True, dtype="float64")
    check(layers.Bidirectional(one, merge_mode=merge, dtype="float64"), mask=MASKS["scattered"])


def stateful_layers() -> Iterator[Any]:
    options = {"stateful": True, "return_sequences": True, "dtype": "float64"}
    yield layers.LSTM(3, return_state=True, **options)
    yield layers.RNN(cells(4, 3), return_state=True, **options)
    # With return_state, Keras 3.15.1 fails in Bidirectional.compute_mask when stateful.
    yield layers.Bidirectional(layers.LSTM(3, **options), dtype="float64")


@pytest.mark.parametrize("which", range(3))
def test_stateful(which: int) -> None:
    layer = next(itertools.islice(stateful_layers(), which, None))
    randomise(layer, (BATCH, STEPS, INPUTS), seed=3)
    neutral, state = from_keras_layer(layer), None
    for call in range(3):
        x = np.random.default_rng(call).normal(size=(BATCH, STEPS, INPUTS))
        ours = run(neutral, x, initial_state=state)
        agree(ours, layer(x), FLOAT64, layer.return_state)
        state = ours.states


def test_a_mask_from_a_masking_layer() -> None:
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, INPUTS))
    x[~MASKS["right"]] = 0.0
    layer = layers.Bidirectional(
        layers.LSTM(3, return_sequences=True, dtype="float64"), dtype="float64"
    )
    model = keras.Sequential([layers.Masking(dtype="float64"), layer])
    model(x)
    randomise(layer, x.shape, seed=0)
    ours = run(from_keras_layer(layer), x, mask=MASKS["right"])
    agree(ours, model(x), FLOAT64, with_states=False)


def test_mixed_precision_agrees_to_16_bits() -> None:
    """Keras rounds each step to float16 (11 bits, 5e-4); the forward pass does not."""
    layer = layers.LSTM(3, return_sequences=True, dtype="mixed_float16")
    randomise(layer, (BATCH, STEPS, INPUTS), seed=0)
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS, INPUTS)).astype("float32")
    ours = run(from_keras_layer(layer), x).outputs[0]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.asarray(layer(x)), atol=4e-3)


CONV = {1: layers.ConvLSTM1D, 2: layers.ConvLSTM2D, 3: layers.ConvLSTM3D}
SPACE = {1: (7,), 2: (6, 5), 3: (5, 6, 4)}
WINDOW = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}
#: (strides, dilation): Keras allows one of them to be more than 1.
STEPPING = [(1, 1), (2, 1), (1, 2)]


def conv_lstm(rank: int, **options: Any) -> Any:
    return CONV[rank](3, WINDOW[rank], **({"return_state": True, "dtype": "float64"} | options))


@pytest.mark.parametrize(("strides", "dilation"), STEPPING)
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_lstm(rank: int, padding: str, strides: int, dilation: int) -> None:
    stepping = {"strides": strides, "dilation_rate": dilation, "padding": padding}
    check(conv_lstm(rank, return_sequences=True, **stepping), shape=(*SPACE[rank], 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_lstm_in_float32(rank: int) -> None:
    layer = conv_lstm(rank, padding="same", return_sequences=True, dtype="float32")
    check(layer, shape=(*SPACE[rank], 2), dtype="float32")


@pytest.mark.parametrize(
    ("rank", "padding", "strides", "dilation"),
    [(1, "valid", 2, 1), (2, "same", 1, 2), (3, "same", 1, 1)],
)
def test_conv_lstm_with_channels_first(
    rank: int, padding: str, strides: int, dilation: int
) -> None:
    stepping = {"strides": strides, "dilation_rate": dilation, "padding": padding}
    # softmax takes the last axis, which is a spatial one here
    layer = conv_lstm(rank, data_format="channels_first", activation="softmax", **stepping)
    check(layer, shape=(2, *SPACE[rank]), xla=True)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_lstm_with_unlike_strides(rank: int) -> None:
    options = {"activation": "softmax", "recurrent_activation": "hard_sigmoid", "use_bias": False}
    layer = conv_lstm(rank, strides=(2, 1, 3)[:rank], padding="same", **options)
    check(layer, shape=(*SPACE[rank], 2))


@pytest.mark.parametrize("mask", ["none", "scattered"])
def test_conv_lstm_over_time(mask: str) -> None:
    given = [np.random.default_rng(5).normal(size=(BATCH, 4, 4, 3)) for _ in range(2)]
    for sequences, backwards in itertools.product(BOTH, BOTH):
        layer = conv_lstm(2, return_sequences=sequences, go_backwards=backwards)
        check(layer, shape=(*SPACE[2], 2), mask=MASKS[mask], state=given)


def test_conv_lstm_with_channels_first_over_time() -> None:
    given = [np.random.default_rng(5).normal(size=(BATCH, 3, 4, 4)) for _ in range(2)]
    layer = conv_lstm(2, data_format="channels_first", return_sequences=True, go_backwards=True)
    check(layer, shape=(2, *SPACE[2]), mask=MASKS["scattered"], state=given, xla=True)


def test_conv_lstm_in_a_bidirectional() -> None:
    one = conv_lstm(1, return_sequences=True)
    check(layers.Bidirectional(one, dtype="float64"), shape=(*SPACE[1], 2), mask=MASKS["scattered"])
