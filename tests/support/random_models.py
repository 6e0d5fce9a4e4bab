"""Random whole models out of a seed: sequences, masks, branches, nested and shared parts.

Every layer is Keras's own, with options drawn at random; Keras builds the model, and says itself
what does not fit. Each model has an LSTM, since without one it is not a source here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from support.whole_tools import example, predicted

#: The kinds of values between layers: (batch, time, channels), (batch, channels), images and
#: sequences of images, both (…, height, width, channels).
SEQUENCE, VECTOR, IMAGE, FILM = "sequence", "vector", "image", "film"
#: So many times another layer is tried where Keras refuses one.
_TRIES = 6
_ACTIVATIONS = (
    *("linear", "relu", "sigmoid", "tanh", "elu", "selu", "softplus", "softsign", "silu", "gelu"),
    *("hard_sigmoid", "exponential", "mish", "leaky_relu", "softmax"),
)
#: Functions that a recurrent layer does not run away with.
_BOUNDED = ("tanh", "sigmoid", "hard_sigmoid", "softsign")

Step = tuple[Any, str]


class Random:
    """Draws models.

    Args:
        keras: the module.
        seed: the same seed gives the same model.
    """

    def __init__(self, keras: Any, seed: int) -> None:
        self._keras, self._m = keras, keras.layers
        self._rng = np.random.default_rng(seed)
        self._has_lstm = False
        self._shared: dict[str, list[Any]] = {}

    def model(self) -> Any:
        """Return a random model, its weights still as Keras made them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # masks that end at a layer
            make = self._pick([self._sequential, self._functional, self._functional, self._nested])
            return make()

    # ---- draws -------------------------------------------------------------------------------

    def _pick(self, items: Sequence[Any]) -> Any:
        return items[int(self._rng.integers(len(items)))]

    def _is(self, chance: float) -> bool:
        return bool(self._rng.random() < chance)

    def _size(self, low: int = 2, high: int = 6) -> int:
        return int(self._rng.integers(low, high))

    # ---- models ------------------------------------------------------------------------------

    def _sequential(self) -> Any:
        chain: list[Any] = []
        value, kind, start = self._start(chain)
        for _ in range(self._size(2, 6)):
            value, kind = self._step(value, kind, chain)
        if not self._has_lstm:
            value, kind = self._lstm(value, kind, chain)
        return self._keras.Sequential([start, *chain])

    def _functional(self) -> Any:
        starts, ends = [], []
        for _ in range(self._size(1, 4)):
            value, kind, start = self._start()
            starts.append(start)
            for _ in range(self._size(1, 4)):
                value, kind = self._step(value, kind)
            ends.append((value, kind))
        for _ in range(self._size(0, 3)):
            ends = self._merged(ends)
        ends = [self._step(*end) if self._is(0.5) else end for end in ends]
        if not self._has_lstm:
            ends[0] = self._lstm(*ends[0])
        return self._keras.Model(starts, [value for value, _ in ends])

    def _nested(self) -> Any:
        """Return a model that calls another, once or twice."""
        width = self._size()
        inner_start = self._keras.Input((None, width))
        value, kind = self._lstm(inner_start, SEQUENCE, sequences=True)
        value, kind = self._step(value, kind)
        inner = self._keras.Model(inner_start, value)
        start = self._keras.Input((None, width))
        first: Any = start
        if self._is(0.5):
            first = self._m.Masking(self._pick([0.0, 1.0]))(first)
        ends = [(inner(first), kind)]
        if self._is(0.5):
            second = self._m.Dense(width, activation="tanh")(start)
            ends.append((inner(second), kind))
            ends = self._merged(ends)
        ends = [self._step(*end) for end in ends]
        return self._keras.Model(start, [value for value, _ in ends])

    def _start(self, chain: list[Any] | None = None) -> tuple[Any, str, Any]:
        kind = self._pick(["ids", "ids", "steps", "steps", "steps", "fixed", "image", "film"])
        if kind == "ids":
            start = self._keras.Input((None,), dtype="int32")
            layer = self._m.Embedding(5, self._size(), mask_zero=self._is(0.6))
            if chain is not None:
                chain.append(layer)
            return layer(start), SEQUENCE, start
        if kind == "image":
            start = self._keras.Input((6, 5, self._size(1, 4)))
            return start, IMAGE, start
        if kind == "film":
            start = self._keras.Input((None, 5, 4, 2))
            return start, FILM, start
        start = self._keras.Input((None if kind == "steps" else 7, self._size()))
        value = start
        if self._is(0.4):
            layer = self._m.Masking(self._pick([0.0, 0.0, 1.0]))
            value = layer(value)
            if chain is not None:
                chain.append(layer)
        return value, SEQUENCE, start

    # ---- one layer ---------------------------------------------------------------------------

    def _step(self, value: Any, kind: str, chain: list[Any] | None = None) -> Step:
        for _ in range(_TRIES):
            layer, after = self._pick(self._choices(kind))()
            try:
                made = layer(value)
            except (ValueError, NotImplementedError, TypeError):
                continue
            if None in tuple(made.shape[1:])[1:] or 0 in tuple(made.shape):
                continue
            if kind == SEQUENCE and after == "same":
                after = SEQUENCE
            if chain is not None:
                chain.append(layer)
            return made, kind if after == "same" else after
        return value, kind

    def _lstm(
        self, value: Any, kind: str, chain: list[Any] | None = None, *, sequences: bool = False
    ) -> Step:
        """Bring a value to a sequence, and put an LSTM behind it."""
        layers: list[Any] = []
        if kind == VECTOR:
            layers.append(self._m.RepeatVector(3))
        elif kind == IMAGE:
            height, width, channels = value.shape[1:]
            layers.append(self._m.Reshape((height, width * channels)))
        elif kind == FILM:
            layers.append(self._m.TimeDistributed(self._m.Flatten()))
        self._has_lstm = True
        layers.append(self._m.LSTM(self._size(), return_sequences=sequences))
        for layer in layers:
            value = layer(value)
            if chain is not None:
                chain.append(layer)
        return value, SEQUENCE if sequences else VECTOR

    def _choices(self, kind: str) -> list[Callable[[], tuple[Any, str]]]:
        return {
            SEQUENCE: [
                self._recurrent, self._recurrent, self._both, self._both, self._stack, self._dense,
                self._activation, self._norm, self._conv1d, self._pool1d, self._dropout,
                self._global1d, self._time_distributed, self._both_over_cells,
            ],
            VECTOR: [self._dense, self._dense, self._activation, self._norm, self._dropout,
                     self._repeat],
            IMAGE: [self._conv2d, self._conv2d, self._pool2d, self._norm, self._activation,
                    self._shape2d, self._global2d, self._flatten],
            FILM: [self._convlstm, self._time_distributed_image, self._film_norm],
        }[kind]  # fmt: skip

    def _recurrent(self) -> tuple[Any, str]:
        m, sequences = self._m, self._is(0.7)
        options: dict[str, Any] = {
            "return_sequences": sequences,
            "go_backwards": self._is(0.25),
            "use_bias": self._is(0.8),
        }
        if self._is(0.4):
            options["activation"] = self._pick(_BOUNDED)
        cls = self._pick([m.LSTM, m.LSTM, m.GRU, m.SimpleRNN])
        if cls is not m.SimpleRNN and self._is(0.4):
            options["recurrent_activation"] = self._pick(["hard_sigmoid", "sigmoid", "tanh"])
        if cls is m.GRU:
            options["reset_after"] = self._is(0.5)
        if sequences and self._is(0.2):
            options["zero_output_for_mask"] = True
        self._has_lstm = self._has_lstm or cls is m.LSTM
        return cls(self._size(), **options), SEQUENCE if sequences else VECTOR

    def _both(self) -> tuple[Any, str]:
        m, sequences = self._m, self._is(0.7)
        cls = self._pick([m.LSTM, m.LSTM, m.GRU, m.SimpleRNN])
        self._has_lstm = self._has_lstm or cls is m.LSTM
        mode = self._pick(["concat", "concat", "sum", "mul", "ave"])
        inner = cls(self._size(), return_sequences=sequences)
        layer = m.Bidirectional(inner, merge_mode=mode)
        if mode == "concat" and self._is(0.2):
            other = self._pick([m.LSTM, m.GRU])(
                inner.units, return_sequences=sequences, go_backwards=True
            )
            layer = m.Bidirectional(inner, backward_layer=other)
        return layer, SEQUENCE if sequences else VECTOR

    def _stack(self) -> tuple[Any, str]:
        m, sequences = self._m, self._is(0.7)
        cells = [
            self._pick([m.LSTMCell, m.GRUCell, m.SimpleRNNCell])(self._size())
            for _ in range(self._size(1, 4))
        ]
        self._has_lstm = self._has_lstm or any(isinstance(cell, m.LSTMCell) for cell in cells)
        # Keras on TensorFlow does not run a stack of one cell under a mask.
        inner = cells if len(cells) > 1 else cells[0]
        layer = m.RNN(inner, return_sequences=sequences, go_backwards=self._is(0.2))
        return layer, SEQUENCE if sequences else VECTOR

    def _dense(self) -> tuple[Any, str]:
        activation = self._pick(_ACTIVATIONS)
        return self._m.Dense(self._size(), activation=activation, use_bias=self._is(0.8)), "same"

    def _activation(self) -> tuple[Any, str]:
        m = self._m
        makes: list[Callable[[], Any]] = [
            lambda: m.Activation(self._pick(_ACTIVATIONS)),
            lambda: m.LeakyReLU(negative_slope=0.2),
            lambda: m.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2),
            lambda: m.ELU(0.7),
            lambda: m.PReLU(shared_axes=[1]),
        ]
        return self._pick(makes)(), "same"

    def _norm(self) -> tuple[Any, str]:
        m = self._m
        makes: list[Callable[[], Any]] = [
            lambda: m.BatchNormalization(center=self._is(0.7), scale=self._is(0.7)),
            lambda: m.LayerNormalization(epsilon=0.1),
            lambda: m.UnitNormalization(),
            lambda: m.GroupNormalization(-1, epsilon=0.1),
            lambda: m.RMSNormalization(epsilon=0.1),
            lambda: m.Rescaling(self._pick([0.5, 2.0]), 0.25),
        ]
        return self._pick(makes)(), "same"

    def _film_norm(self) -> tuple[Any, str]:
        return self._m.BatchNormalization(), "same"

    def _dropout(self) -> tuple[Any, str]:
        m = self._m
        return self._pick([m.Dropout, m.GaussianNoise, m.AlphaDropout])(0.3), "same"

    def _repeat(self) -> tuple[Any, str]:
        return self._m.RepeatVector(self._size()), SEQUENCE

    def _conv1d(self) -> tuple[Any, str]:
        m = self._m
        padding = self._pick(["same", "causal", "valid"])
        strides, dilation = self._pick([(1, 1), (1, 2), (2, 1)])
        if self._is(0.2):
            layer = m.SeparableConv1D(self._size(), 3, padding="same", strides=strides)
        elif self._is(0.2):
            layer = m.Conv1DTranspose(
                self._size(), 3, strides=strides, padding=self._pick(["same", "valid"])
            )
        else:
            layer = m.Conv1D(
                self._size(), self._size(1, 4), strides=strides, padding=padding,
                dilation_rate=dilation, activation=self._pick(["relu", "tanh", None]),
            )  # fmt: skip
        return layer, SEQUENCE

    def _pool1d(self) -> tuple[Any, str]:
        m = self._m
        makes: list[Callable[[], Any]] = [
            lambda: m.MaxPooling1D(2, strides=self._pick([None, 1]),
                                   padding=self._pick(["same", "valid"])),
            lambda: m.AveragePooling1D(2, strides=self._pick([None, 1]),
                                       padding=self._pick(["same", "valid"])),
            lambda: m.UpSampling1D(2),
            lambda: m.ZeroPadding1D((1, 2)),
            lambda: m.Cropping1D((1, 0)),
        ]  # fmt: skip
        return self._pick(makes)(), SEQUENCE

    def _global1d(self) -> tuple[Any, str]:
        m = self._m
        return self._pick([m.GlobalAveragePooling1D, m.GlobalMaxPooling1D])(), VECTOR

    def _time_distributed(self) -> tuple[Any, str]:
        return self._m.TimeDistributed(self._m.Dense(self._size(), activation="tanh")), SEQUENCE

    def _both_over_cells(self) -> tuple[Any, str]:
        """A Bidirectional over cells."""
        m = self._m
        cells = [m.LSTMCell(self._size()) for _ in range(self._size(1, 3))]
        self._has_lstm = True
        inner = m.RNN(cells if len(cells) > 1 else cells[0], return_sequences=True)
        return m.Bidirectional(inner), SEQUENCE

    def _conv2d(self) -> tuple[Any, str]:
        m = self._m
        makes: list[Callable[[], Any]] = [
            lambda: m.Conv2D(self._size(), self._pick([1, 2, 3]), padding="same",
                             strides=self._pick([1, 2]), activation="relu"),
            lambda: m.Conv2D(self._size(), 2),
            lambda: m.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            lambda: m.SeparableConv2D(self._size(), 3, padding="same"),
            lambda: m.Conv2DTranspose(self._size(), 3, strides=2, padding="same"),
        ]  # fmt: skip
        return self._pick(makes)(), IMAGE

    def _pool2d(self) -> tuple[Any, str]:
        m, padding = self._m, self._pick(["same", "valid"])
        return self._pick([m.MaxPooling2D, m.AveragePooling2D])(2, padding=padding), IMAGE

    def _shape2d(self) -> tuple[Any, str]:
        m = self._m
        makes: list[Callable[[], Any]] = [
            lambda: m.UpSampling2D(2, interpolation=self._pick(["nearest", "bilinear"])),
            lambda: m.ZeroPadding2D(((1, 0), (0, 2))),
            lambda: m.Cropping2D(((1, 0), (0, 1))),
            lambda: m.Permute((2, 1, 3)),
        ]
        return self._pick(makes)(), IMAGE

    def _global2d(self) -> tuple[Any, str]:
        m = self._m
        return self._pick([m.GlobalAveragePooling2D, m.GlobalMaxPooling2D])(), VECTOR

    def _flatten(self) -> tuple[Any, str]:
        return self._m.Flatten(), VECTOR

    def _convlstm(self) -> tuple[Any, str]:
        self._has_lstm, sequences = True, self._is(0.5)
        layer = self._m.ConvLSTM2D(
            self._size(), self._pick([2, 3]), padding=self._pick(["same", "valid"]),
            return_sequences=sequences, go_backwards=self._is(0.3), strides=self._pick([1, 2]),
        )  # fmt: skip
        return layer, FILM if sequences else IMAGE

    def _time_distributed_image(self) -> tuple[Any, str]:
        m = self._m
        inner, after = self._pick(
            [
                (lambda: m.Conv2D(self._size(), 2), FILM),
                (lambda: m.Flatten(), SEQUENCE),
                (lambda: m.GlobalAveragePooling2D(), SEQUENCE),
            ]
        )
        return m.TimeDistributed(inner()), after

    # ---- several values ----------------------------------------------------------------------

    def _merged(self, ends: list[Step]) -> list[Step]:
        """Merge two values, or give one to two layers and merge these."""
        if len(ends) < 2 or self._is(0.3):
            (value, kind), *rest = ends
            if kind not in (SEQUENCE, VECTOR):
                return ends
            width = self._size()
            if kind == SEQUENCE and self._is(0.4):
                return [self._attended(value, value), *rest]
            pair = [(self._m.Dense(width, activation="tanh")(value), kind) for _ in range(2)]
            if self._is(0.5):
                pair[0] = (value, kind)
                pair[1] = (self._m.Dense(int(value.shape[-1]))(value), kind)
        else:
            pair, rest = ends[:2], ends[2:]
            if any(kind not in (SEQUENCE, VECTOR) for _, kind in pair):
                return [*rest, *pair]
            both_sequences = pair[0][1] == pair[1][1] == SEQUENCE
            if both_sequences and self._is(0.4):
                return [self._attended(pair[0][0], pair[1][0]), *rest]
            if pair[0][1] == pair[1][1] == SEQUENCE or pair[0][1] != pair[1][1]:
                pair = [self._pooled(*end) for end in pair]
            width = self._size()
            pair = [(self._m.Dense(width)(value), kind) for value, kind in pair]
        m = self._m
        layer = self._pick(
            [m.Add, m.Subtract, m.Average, m.Multiply, m.Maximum, m.Minimum, m.Concatenate]
        )
        if pair[0][1] == SEQUENCE and layer is m.Subtract and self._is(0.5):
            layer = m.Concatenate
        try:
            made = layer()([value for value, _ in pair])
        except ValueError:
            return ends
        return [(made, pair[0][1]), *rest]

    def _pooled(self, value: Any, kind: str) -> Step:
        if kind == VECTOR:
            return value, kind
        m = self._m
        if self._is(0.5):
            self._has_lstm = True
            return m.LSTM(self._size())(value), VECTOR
        return m.GlobalAveragePooling1D()(value), VECTOR

    def _attended(self, query: Any, value: Any) -> Step:
        m = self._m
        if self._is(0.5):
            made = m.MultiHeadAttention(self._size(1, 4), self._size())(
                query, value, use_causal_mask=self._is(0.3)
            )
            return made, SEQUENCE
        width = self._size()
        both = [m.Dense(width)(item) for item in (query, value)]
        layer = self._pick([m.Attention, m.AdditiveAttention])(use_scale=self._is(0.5))
        return layer(both), SEQUENCE


def random_model(keras: Any, seed: int) -> Any:
    """Return the random model of a seed that Keras itself can run."""
    for attempt in range(_TRIES):
        model = Random(keras, 1000 * attempt + seed).model()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers = predicted(model, example(model, 2, 9))
        except Exception:  # noqa: S112  # faults of Keras's own in what it has built
            continue
        if all(array.size for array in answers):
            return model
    raise AssertionError(f"no model of seed {seed} runs in Keras")
