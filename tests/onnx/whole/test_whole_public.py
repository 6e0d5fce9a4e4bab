"""Whole models as people publish them, tiny: taggers, translators, readers of images and of sound.

Each is built by its Keras, saved as that saves it, and run in ONNX Runtime at batch 1 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.thinned import turns
from support.whole_tools import FLOAT32, compared, randomized

from lstmconvert.tensors.dtypes import Array

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::UserWarning")]
ERAS = ("keras", "tf_keras")


def _ids(*places: tuple[int, int | None]) -> Callable[[int, int], list[Array]]:
    """Return what makes inputs of whole numbers: each below a bound, and of one more axis."""
    rng = np.random.default_rng(0)
    return lambda batch, length: [
        rng.integers(0, top, (batch, length, *([wide] if wide else []))).astype("float32")
        for top, wide in places
    ]


def _tagger(keras: Any) -> Any:
    """Words and their letters: a mask in each step becomes one of the steps."""
    m = keras.layers
    words, letters = keras.Input((None,)), keras.Input((None, 5))
    by_letter = m.TimeDistributed(m.Embedding(3, 3, mask_zero=True))(letters)
    by_letter = m.TimeDistributed(m.LSTM(2, recurrent_dropout=0.5))(by_letter)
    x = m.Concatenate()([m.Embedding(4, 4, mask_zero=True)(words), by_letter])
    x = m.Bidirectional(m.LSTM(3, return_sequences=True))(m.SpatialDropout1D(0.3)(x))
    return keras.Model([words, letters], m.TimeDistributed(m.Dense(3, activation="softmax"))(x))


def _translator(keras: Any) -> Any:
    m = keras.layers
    given, made = keras.Input((None,)), keras.Input((None,))
    read, h, c = m.LSTM(4, return_sequences=True, return_state=True)(
        m.Embedding(6, 4, mask_zero=True)(given)
    )
    told = m.LSTM(4, return_sequences=True)(m.Embedding(6, 4)(made), initial_state=[h, c])
    seen = m.AdditiveAttention()([told, read])
    x = m.Concatenate()([told, m.Attention()([told, read]), seen])
    return keras.Model([given, made], m.Dense(3, activation="softmax")(x))


def _halves(keras: Any) -> Any:
    """An encoder and a decoder that are models of their own, joined by states."""
    m = keras.layers
    x = keras.Input((None, 4))
    encoder = keras.Model(x, m.LSTM(3, return_sequences=True, return_state=True)(x), name="encode")
    y, h, c = keras.Input((None, 2)), keras.Input((3,)), keras.Input((3,))
    steps, *states = m.LSTM(3, return_sequences=True, return_state=True)(y, initial_state=[h, c])
    decoder = keras.Model([y, h, c], [m.Dense(2)(steps), *states], name="decode")
    a, b = keras.Input((None, 4)), keras.Input((None, 2))
    read, h1, c1 = encoder(a)
    return keras.Model([a, b], [decoder([b, h1, c1])[0], m.GlobalMaxPooling1D()(read)])


def _video(keras: Any) -> Any:
    m = keras.layers
    frame = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            m.Rescaling(1 / 127.5, offset=-1),
            m.RandomFlip(),
            m.Resizing(6, 6),
            m.Conv2D(2, 3, strides=2, padding="same", activation="relu"),
            m.BatchNormalization(),
            m.Flatten(),
        ]
    )
    x = keras.Input((None, 8, 8, 1))
    return keras.Model(x, m.Dense(2)(m.LSTM(3)(m.TimeDistributed(frame)(x))))


def _twins(keras: Any) -> Any:
    m = keras.layers
    tower = keras.Sequential([m.Embedding(6, 3, mask_zero=True), m.LSTM(4)])
    a, b = keras.Input((None,)), keras.Input((None,))
    x, y = tower(a), tower(b)
    both = m.Concatenate()([m.Subtract()([x, y]), m.Dot(1, normalize=True)([x, y])])
    return keras.Model([a, b], m.Dense(1, activation="sigmoid")(both))


def _signal(keras: Any) -> Any:
    """LSTM-FCN, with windows that step further than they are long."""
    m = keras.layers
    x = keras.Input((None, 3))
    pooled = [m.MaxPooling1D(4, strides=6, padding="same")(x),
              m.AveragePooling1D(3, strides=5, padding="same")(x)]  # fmt: skip
    fcn = m.GlobalAveragePooling1D()(m.Conv1D(2, 3, strides=5, padding="same")(x))
    return keras.Model(x, m.Concatenate()([*(m.LSTM(2)(each) for each in pooled), fcn]))


def _by_hand(keras: Any) -> Any:
    """Attention by layers alone, as tutorials had it before there was a layer."""
    m = keras.layers
    x = keras.Input((7, 3))
    h, *states = m.Bidirectional(m.LSTM(2, return_sequences=True, return_state=True))(x)
    weights = m.Flatten()(m.Dense(1, activation="tanh")(h))
    weights = m.Permute([2, 1])(m.RepeatVector(4)(m.Activation("softmax")(weights)))
    context = m.GlobalAveragePooling1D()(m.Multiply()([h, weights]))
    return keras.Model(x, m.Dense(2)(m.Concatenate()([context, states[0], states[3]])))


MODELS: dict[str, tuple[Callable[[Any], Any], Callable[[int, int], list[Array]] | None]] = {
    "tagger": (_tagger, _ids((4, None), (3, 5))),
    "translator": (_translator, _ids((6, None), (6, None))),
    "halves": (_halves, None),
    "video": (_video, None),
    "twins": (_twins, _ids((6, None), (6, None))),
    "signal": (_signal, None),
    "by hand": (_by_hand, None),
}


@pytest.mark.parametrize(("name", "era"), turns(MODELS, ERAS))
def test_public_models(era: str, name: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(era)
    build, inputs = MODELS[name]
    model = randomized(build(keras))
    # 31 leaves a rest of one step to windows of five and six.
    lengths = (31,) if name == "signal" else (7,)
    assert compared(model, tmp_path / "model.onnx", inputs=inputs, lengths=lengths) < FLOAT32
