"""Models of many kinds of layer, made by either Keras, and what they predict."""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

STEPS, WIDTH = 6, 4


def dense_stack(keras: Any) -> Any:
    """Sequential: the layers without weights, and dense ones."""
    layer = keras.layers
    return keras.Sequential(
        [
            layer.Input((STEPS, WIDTH)),
            layer.GaussianNoise(0.1),
            layer.ZeroPadding1D(1),
            layer.Cropping1D((1, 1)),
            layer.Masking(0.5),
            layer.LSTM(5, return_sequences=True, recurrent_activation="hard_sigmoid"),
            layer.TimeDistributed(layer.Dense(4, activation="hard_sigmoid")),
            layer.LeakyReLU(0.2),
            layer.ELU(0.7),
            layer.PReLU(shared_axes=[1]),
            layer.SpatialDropout1D(0.2),
            layer.Activation("hard_sigmoid"),
            layer.Permute((2, 1)),
            layer.UpSampling1D(2),
            layer.Flatten(),
            layer.Dropout(0.4),
            layer.RepeatVector(3),
            layer.Reshape((3, 4, 12)),
            layer.TimeDistributed(layer.Reshape((8, 6))),
            layer.TimeDistributed(layer.LSTM(3)),
            layer.GlobalMaxPooling1D(),
            layer.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.01),
            layer.ActivityRegularization(0.01, 0.01),
            layer.Dense(
                3,
                activation="softmax",
                kernel_regularizer=keras.regularizers.l2(0.01),
                kernel_constraint=keras.constraints.MaxNorm(2),
                bias_initializer=keras.initializers.Constant(0.1),
            ),
        ],
        name="stack",
    )


def convolutions(keras: Any) -> Any:
    """Sequential: convolutions, normalizations, poolings and the other recurrent layers."""
    layer = keras.layers
    return keras.Sequential(
        [
            layer.Input((16, WIDTH)),
            layer.Conv1D(6, 3, padding="causal", activation="relu"),
            layer.BatchNormalization(),
            layer.SeparableConv1D(5, 2, use_bias=False),
            layer.DepthwiseConv1D(2, depth_multiplier=2),
            layer.AveragePooling1D(2),
            layer.Conv1DTranspose(4, 2, strides=2),
            layer.LayerNormalization(),
            layer.MaxPooling1D(2),
            layer.GRU(3, return_sequences=True),
            layer.GRU(3, return_sequences=True, reset_after=False),
            layer.SimpleRNN(4, return_sequences=True),
            layer.BatchNormalization(trainable=False),
            layer.Bidirectional(layer.GRU(3, return_sequences=True), merge_mode="ave"),
            layer.Bidirectional(layer.LSTM(3, return_sequences=True)),
            layer.RNN([layer.GRUCell(2), layer.SimpleRNNCell(3)], return_sequences=True),
            layer.RNN([layer.LSTMCell(2), layer.LSTMCell(3)], return_sequences=True),
            layer.RNN(layer.SimpleRNNCell(2), return_sequences=True),
            layer.GlobalAveragePooling1D(),
        ],
        name="convolutions",
    )


def images(keras: Any) -> Any:
    """Functional: two-dimensional layers."""
    layer = keras.layers
    image = keras.Input((9, 9, 2), name="image")
    x = layer.Rescaling(0.5, 0.1)(image)
    x = layer.Conv2D(3, 2)(layer.ZeroPadding2D(1)(x))
    x = layer.BatchNormalization(scale=False)(x)
    x = layer.DepthwiseConv2D(2)(x)
    x = layer.SpatialDropout2D(0.2)(x)
    x = layer.SeparableConv2D(4, 2)(x)
    x = layer.MaxPooling2D(2)(x)
    x = layer.Conv2DTranspose(2, 2)(layer.UpSampling2D(2)(x))
    side = layer.GlobalAveragePooling2D()(x)
    x = layer.AveragePooling2D(1)(layer.Cropping2D(1)(x))
    x = layer.Reshape((-1, 7))(x)
    x = layer.LSTM(3)(x)
    return keras.Model(image, [layer.Dense(2)(x), side])


def sequence_to_sequence(keras: Any) -> Any:
    """Encoder and decoder, tied by their states, with an embedding and attention."""
    layer = keras.layers
    words = keras.Input((STEPS,), dtype="int32", name="words")
    begun = keras.Input((5, WIDTH), name="begun")
    told = layer.Embedding(10, 4, mask_zero=False, name="embed")(words)
    encoder = layer.LSTM(6, return_sequences=True, return_state=True, name="encoder")
    seen, hidden, cell = encoder(told)
    both = layer.Bidirectional(layer.LSTM(3, return_state=True), name="both")
    _, a, b, c, d = both(told)
    decoder = layer.LSTM(6, return_sequences=True, return_state=True, name="decoder")
    said, last, _ = decoder(begun, initial_state=[hidden, cell])
    turned = layer.Bidirectional(layer.LSTM(3, return_sequences=True), name="turned")
    more = turned(begun, initial_state=[a, b, c, d])
    joined = layer.Concatenate()([said, more])
    gru, state = layer.GRU(6, return_sequences=True, return_state=True)(told)
    more = layer.GRU(6, return_sequences=True)(joined, initial_state=state)
    looked = layer.Attention(use_scale=True)([more, seen])
    looked = layer.AdditiveAttention()([looked, gru])
    return keras.Model([words, begun], {"said": layer.Dense(3)(looked), "last": last})


def attention(keras: Any) -> Any:
    """Multi-head attention, called with keywords, and merging layers."""
    layer = keras.layers
    one = keras.Input((STEPS, WIDTH), name="one")
    two = keras.Input((STEPS, WIDTH), name="two")
    x = layer.MultiHeadAttention(2, 3, value_dim=2, dropout=0.1, name="heads")(one, two)
    y = layer.MultiHeadAttention(2, 3, use_bias=False, output_shape=4)(
        query=two, value=one, key=x, use_causal_mask=True
    )
    x = layer.Add()([x, y, one])
    x = layer.Multiply()([x, layer.Subtract()([y, two])])
    x = layer.Maximum()([x, layer.Minimum()([y, one])])
    x = layer.Average()([x, two])
    x = layer.Concatenate(axis=1)([x, layer.Softmax()(y)])
    z = layer.LSTM(4, name="late")(x)
    return keras.Model([one, two], layer.Dot(axes=1, normalize=True)([z, layer.LSTM(4)(y)]))


def nested(keras: Any) -> Any:
    """Models inside models, called twice, partly frozen, with normalizations between."""
    layer = keras.layers
    inner = keras.Sequential(
        [layer.Input((WIDTH,)), layer.Dense(5, name="first"), layer.BatchNormalization(),
         layer.Dense(WIDTH, name="second")],
        name="inner",
    )
    deep_in = keras.Input((STEPS, WIDTH))
    deep = layer.TimeDistributed(inner)(deep_in)
    frozen = layer.Dense(WIDTH, name="frozen")
    deep = frozen(deep)
    frozen.trainable = False
    deep = layer.BatchNormalization()(layer.LSTM(WIDTH, return_sequences=True)(deep))
    deep = keras.Model(deep_in, [deep, layer.GRU(2)(deep)], name="deep")
    shared = layer.LSTM(WIDTH, return_sequences=True, name="shared")
    start = keras.Input((STEPS, WIDTH), name="start")
    first, _ = deep(shared(start))
    second, side = deep(shared(layer.Dense(WIDTH, name="between")(first)))
    bare = keras.Sequential([layer.LSTM(3), layer.Dense(2)], name="bare")
    still = keras.Sequential([layer.Dense(3), layer.BatchNormalization()], name="still")
    ended = still(bare(second))
    still.trainable = False
    return keras.Model(start, [ended, side, bare(first)], name="outer")


def branches(keras: Any) -> Any:
    """Layers at several depths, shared and in an order of their own: what a store counts by."""
    layer = keras.layers
    late = keras.Input((WIDTH,), name="late")
    early = keras.Input((STEPS, WIDTH), name="early")
    c, b, a = (layer.LSTM(3, name=name) for name in ("c", "b", "a"))
    last = layer.Dense(3, name="last")
    x = last(a(early))
    y = last(last(b(early)))
    z = c(layer.Dense(WIDTH, name="deep")(layer.Dense(WIDTH, name="deeper")(early)))
    w = layer.Dense(3, name="aside")(late)
    return keras.Model([late, early], [layer.Add()([w, y]), layer.Concatenate()([x, z, w])])


def convolving(keras: Any) -> Any:
    """Functional: convolutional LSTMs, one of them both ways."""
    layer = keras.layers
    film = keras.Input((3, 5, 5, 2), name="film")
    x = layer.ConvLSTM2D(2, 3, padding="same", return_sequences=True)(film)
    x = layer.Bidirectional(layer.ConvLSTM2D(2, 2))(x)
    line = layer.TimeDistributed(layer.Conv1D(3, 2))(layer.Reshape((4, 4, 4))(x))
    return keras.Model(film, layer.ConvLSTM1D(2, 2)(line))


def masked(keras: Any) -> Any:
    """A mask through wrappers and merging layers."""
    layer = keras.layers
    words = keras.Input((STEPS,), name="words")
    x = layer.Embedding(10, 4, mask_zero=True)(words)
    y = layer.Bidirectional(layer.LSTM(3, return_sequences=True))(x)
    x = layer.Concatenate()([x, y])
    x = layer.TimeDistributed(layer.Dense(4, activation="hard_sigmoid"))(x)
    x = layer.Activation("hard_sigmoid")(layer.Dense(4, activation="hard_sigmoid")(x))
    return keras.Model(words, layer.LSTM(3)(layer.Dropout(0.2)(x)))


def volumes(keras: Any) -> Any:
    """Functional: three-dimensional layers, and what normalizes."""
    layer = keras.layers
    film = keras.Input((4, 5, 6, 2), name="film")
    x = layer.Normalization(mean=[0.5, -0.25], variance=[2.0, 0.5])(film)
    x = layer.Normalization(name="adapted")(x)
    x = layer.Conv3D(4, 2)(layer.ZeroPadding3D(1)(x))
    x = layer.GroupNormalization(2)(layer.Identity()(x))
    x = layer.SpatialDropout3D(0.2)(layer.Conv3DTranspose(3, 2)(x))
    x = layer.MaxPooling3D(2)(layer.UpSampling3D(2)(x))
    side = layer.Concatenate()([layer.GlobalMaxPooling3D()(x), layer.GlobalAveragePooling3D()(x)])
    x = layer.AveragePooling3D((1, 2, 2))(layer.Cropping3D(1)(x))
    x = layer.UnitNormalization()(layer.TimeDistributed(layer.Flatten())(x))
    x = layer.TimeDistributed(layer.TimeDistributed(layer.Dense(2)))(layer.Reshape((4, -1, 3))(x))
    x = layer.TimeDistributed(layer.LSTM(3))(x)
    return keras.Model(film, [layer.LSTM(3)(x), side])


def mixed(keras: Any) -> Any:
    """Layers of several dtypes."""
    layer = keras.layers
    return keras.Sequential(
        [
            layer.Input((STEPS, WIDTH)),
            layer.LSTM(3, return_sequences=True, dtype="float64"),
            layer.Dense(3, dtype="float16"),
            layer.LSTM(3, dtype="float32"),
            layer.Dense(2, dtype="float64"),
        ]
    )


MODELS: dict[str, Callable[[Any], Any]] = {
    build.__name__: build
    for build in (
        dense_stack,
        convolutions,
        images,
        sequence_to_sequence,
        attention,
        nested,
        branches,
        convolving,
        masked,
        volumes,
        mixed,
    )
}


def filled(model: Any, seed: str) -> Any:
    """Give a model weights that are never zero, positive where variances are."""
    random = np.random.RandomState(zlib.crc32(seed.encode()))
    arrays = []
    for weight in model.weights:
        shape = tuple(weight.shape)
        values = random.uniform(0.2, 0.8, shape) * random.choice([-1, 1], shape)
        values = np.abs(values) if "variance" in weight.name else values
        arrays.append(np.asarray(7) if weight.name.endswith(("count", "count:0")) else values)
    model.set_weights(arrays)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # a Normalization computes with what it made of them
            layer.finalize_state()
    return model


def samples(model: Any, seed: str) -> list[np.ndarray[Any, Any]]:
    """Return one batch of three for each input."""
    random = np.random.RandomState(zlib.crc32(seed.encode()))
    return [
        random.randint(0, 10, (3, *tensor.shape[1:])).astype("float32")
        if tensor.name.startswith("words")
        else random.uniform(-1, 1, (3, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]


def outputs(model: Any, given: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Return what a model computes, dicts in the order of their keys."""
    found: list[np.ndarray[Any, Any]] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                collect(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item)
        else:
            found.append(np.asarray(value))

    collect(model(given if len(given) > 1 else given[0], training=False))
    return found


@functools.cache
def example(library: str, name: str) -> tuple[Any, list[Any], list[Any]]:
    """Return a model of one Keras, inputs for it and its outputs, built and run once."""
    model = filled(MODELS[name](importlib.import_module(library)), name)
    given = samples(model, name)
    return model, given, outputs(model, given)
