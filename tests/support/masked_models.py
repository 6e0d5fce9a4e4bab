"""Models of tf_keras in which masks meet, are handed on, or are not: for the tests of masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STEPS, IDS, WIDTH = 6, 9, 4


def models(keras: Any) -> dict[str, Callable[[], Any]]:
    """Return the makers of the models, for one Keras."""
    layers = keras.layers

    def ids() -> Any:
        return layers.Input((STEPS,))

    def embedded(of: Any, masked: bool = True) -> Any:
        return layers.Embedding(IDS, WIDTH, mask_zero=masked)(of)

    def joined(merge: Any, second: bool = True) -> Any:
        """Two embeddings, of which the second makes no mask unless told, joined before an LSTM."""
        one, two = ids(), ids()
        both = merge([embedded(one), embedded(two, second)])
        return keras.Model([one, two], layers.LSTM(3)(both))

    def stack() -> Any:
        return keras.Sequential(
            [
                layers.Input((STEPS,)),
                layers.Embedding(IDS, WIDTH, mask_zero=True),
                layers.LSTM(3, return_sequences=True),
                layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
                layers.LSTM(3),
            ]
        )

    def without_input() -> Any:
        first = layers.Embedding(IDS, WIDTH, mask_zero=True, input_length=STEPS)
        return keras.Sequential([first, layers.GRU(3, return_sequences=True), layers.LSTM(3)])

    def masking() -> Any:
        return keras.Sequential(
            [
                layers.Input((STEPS, 3)),
                layers.Masking(0.5),
                layers.Dense(4),
                layers.LSTM(3, return_sequences=True),
                layers.Dropout(0.1),
                layers.LSTM(2),
            ]
        )

    def multiplied() -> Any:
        """A product whose masked steps are looked at."""
        one, two = ids(), ids()
        product = layers.Multiply()(
            [layers.LSTM(WIDTH, return_sequences=True)(embedded(one)), embedded(two)]
        )
        return keras.Model([one, two], layers.Flatten()(product))

    def rescaled() -> Any:
        one, two = ids(), ids()
        stopped = layers.LSTM(3)(layers.Rescaling(0.5)(embedded(one)))
        return keras.Model([one, two], layers.concatenate([stopped, layers.LSTM(2)(embedded(two))]))

    def decoded() -> Any:
        """A decoder that starts from the encoder's states."""
        one, two = ids(), ids()
        shared = layers.Embedding(IDS, WIDTH, mask_zero=True)
        _, *states = layers.LSTM(3, return_state=True)(shared(one))
        decoder = layers.LSTM(3, return_sequences=True)(shared(two), initial_state=states)
        return keras.Model([one, two], layers.LSTM(2)(decoder))

    def pooled() -> Any:
        one, two = ids(), ids()
        mean = layers.GlobalAveragePooling1D()(
            layers.Add()([embedded(one), embedded(two, masked=False)])
        )
        return keras.Model([one, two], layers.concatenate([mean, layers.LSTM(2)(embedded(two))]))

    def residual() -> Any:
        of = ids()
        first = embedded(of)
        hidden = layers.LSTM(WIDTH, return_sequences=True)(first)
        return keras.Model(of, layers.LSTM(2)(layers.Add()([first, hidden])))

    def nested() -> Any:
        inner = keras.Sequential(
            [
                layers.Embedding(IDS, WIDTH, mask_zero=True, input_shape=(STEPS,)),
                layers.LSTM(3, return_sequences=True),
                layers.LSTM(2),
            ]
        )
        of = ids()
        return keras.Model(of, layers.Dense(2)(inner(of)))

    def ordered() -> Any:
        """Two branches whose Dense layers change places in Keras 3's order by a mask's edges."""
        one, two = layers.Input((STEPS, 3)), layers.Input((STEPS, 3))
        masked = layers.LSTM(2)(layers.Masking()(layers.Dense(3)(one)))
        plain = layers.LSTM(2)(layers.Dropout(0.1)(layers.Dense(3)(two)))
        return keras.Model([one, two], layers.Concatenate()([plain, masked]))

    return {
        "stack": stack,
        "without_input": without_input,
        "masking": masking,
        "concatenate": lambda: joined(layers.Concatenate()),
        "concatenate_one": lambda: joined(layers.Concatenate(), second=False),
        "add": lambda: joined(layers.Add()),
        "multiply": lambda: joined(layers.Multiply()),
        "maximum": lambda: joined(layers.Maximum()),
        "multiplied": multiplied,
        "rescaled": rescaled,
        "decoded": decoded,
        "pooled": pooled,
        "residual": residual,
        "nested": nested,
        "ordered": ordered,
    }
