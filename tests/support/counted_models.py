"""Ten models whose nodes are counted: here, and by the other exporters.

    python tests/support/counted_models.py     the table of the guide, counted anew (minutes)
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.whole_tools import nodes, written


class Counted(NamedTuple):
    """A model and what was counted, bodies of loops included: `tf2onnx`: by tf2onnx 1.17.0 and by
    Keras 3.15.1's export, which calls it, from Keras 3 on TensorFlow 2.21; both count the same."""

    build: Callable[[Any], Any]
    what: str
    gates: int
    fused: int
    tf2onnx: int


def _plain(keras: Any) -> Any:
    m = keras.layers
    return keras.Sequential([keras.Input((None, 4)), m.LSTM(3), m.Dense(2)])


def _masked(keras: Any) -> Any:
    m = keras.layers
    words = keras.Input((None,), dtype="int32")
    x = m.Bidirectional(m.LSTM(5, return_sequences=True))(m.Embedding(20, 6, mask_zero=True)(words))
    return keras.Model(words, m.Dense(3, activation="softmax")(m.Bidirectional(m.LSTM(4))(x)))


def _convolved(keras: Any) -> Any:
    m = keras.layers
    x = keras.Input((None, 6))
    y = m.BatchNormalization()(m.Conv1D(8, 3, padding="same", activation="relu")(x))
    y = m.LSTM(8, return_sequences=True)(m.MaxPooling1D(2)(y))
    y = m.LayerNormalization()(m.Add()([y, m.MultiHeadAttention(2, 4)(y, y)]))
    return keras.Model(x, m.Dense(3)(m.GlobalAveragePooling1D()(y)))


def _gated(keras: Any) -> Any:
    m = keras.layers
    x = keras.Input((None, 4))
    y = m.Bidirectional(m.GRU(5, return_sequences=True))(x)
    y = m.SimpleRNN(4)(m.TimeDistributed(m.Dense(6, activation="gelu"))(y))
    return keras.Model(x, m.Dense(2)(y))


def _stack(keras: Any) -> Any:
    m = keras.layers
    steps = [m.LSTM(size, return_sequences=True) for size in (8, 6)]
    return keras.Sequential([keras.Input((None, 4)), *steps, m.LSTM(5), m.Dense(2)])


def _tagger(keras: Any) -> Any:
    m = keras.layers
    both = m.Bidirectional(m.LSTM(5, return_sequences=True))
    return keras.Sequential([keras.Input((None, 4)), both, m.Dense(3, activation="softmax")])


def _translator(keras: Any) -> Any:
    m = keras.layers
    x, y = keras.Input((None, 4)), keras.Input((None, 3))
    _, *states = m.LSTM(5, return_state=True)(x)
    told = m.LSTM(5, return_sequences=True)(y, initial_state=states)
    return keras.Model([x, y], m.Dense(3, activation="softmax")(told))


def _sentiment(keras: Any) -> Any:
    m = keras.layers
    words = keras.Input((None,), dtype="int32")
    x = m.Dropout(0.2)(m.LSTM(5)(m.Embedding(20, 6)(words)))
    return keras.Model(words, m.Dense(1, activation="sigmoid")(x))


def _video(keras: Any) -> Any:
    m = keras.layers
    each = [m.Conv2D(4, 3, activation="relu"), m.MaxPooling2D(2), m.Flatten()]
    frames = [m.TimeDistributed(layer) for layer in each]
    return keras.Sequential([keras.Input((6, 8, 8, 1)), *frames, m.LSTM(5), m.Dense(2)])


def _attentive(keras: Any) -> Any:
    m = keras.layers
    x = keras.Input((None, 4))
    y, h, _ = m.LSTM(6, return_sequences=True, return_state=True)(x)
    seen = m.Flatten()(m.Attention()([m.Reshape((1, 6))(m.Dense(6)(h)), y]))
    return keras.Model(x, m.Dense(2)(m.Concatenate()([seen, h])))


MODELS: dict[str, Counted] = {
    "A": Counted(_plain, "LSTM, Dense", 10, 4, 13),
    "B": Counted(_masked, "Embedding with a mask, two Bidirectional LSTMs, Dense", 44, 28, 318),
    "C": Counted(_convolved, "Conv1D, BatchNormalization, MaxPooling1D, LSTM, MultiHeadAttention, "
                 "LayerNormalization, GlobalAveragePooling1D, Dense", 40, 34, 125),
    "D": Counted(_gated, "Bidirectional GRU, TimeDistributed Dense, SimpleRNN, Dense", 19, 19, 234),
    "E": Counted(_stack, "three LSTMs, Dense", 26, 8, 35),
    "F": Counted(_tagger, "Bidirectional LSTM, Dense", 15, 7, 33),
    "G": Counted(_translator, "encoder and decoder joined by states, Dense", 21, 9, 22),
    "H": Counted(_sentiment, "Embedding, LSTM, Dense", 12, 6, 24),
    "I": Counted(_video, "TimeDistributed Conv2D, MaxPooling2D and Flatten, LSTM, Dense",
                 18, 12, 110),
    "J": Counted(_attentive, "LSTM with states, Attention, Dense", 20, 14, 21),
}  # fmt: skip


def ours(model: Any, folder: Path) -> tuple[int, int]:
    """Return how many nodes a model has here, gate by gate and fused."""
    gates = nodes(written(model, folder / "gates.onnx", force=True))
    return gates, nodes(written(model, folder / "fused.onnx", fused=True, force=True))


def table() -> str:
    """The table of the guide."""
    rows = [
        f"| {name} | {row.what} | {row.gates} | {row.fused} | {row.tf2onnx} |"
        for name, row in MODELS.items()
    ]
    head = ["| | model | nodes, gate by gate | `--fused` | tf2onnx, Keras's export |",
            "|---|---|---|---|---|"]  # fmt: skip
    return "\n".join([*head, *rows]) + "\n"


def _counted_anew() -> None:
    import keras
    import tensorflow as tf
    import tf2onnx

    for name, row in MODELS.items():
        with tempfile.TemporaryDirectory() as place:
            model, folder = row.build(keras), Path(place)
            signature = [
                tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in model.inputs
            ]

            def called(*given: Any, model: Any = model) -> Any:
                return model(list(given) if len(given) > 1 else given[0], training=False)

            function = tf.function(called, input_signature=signature)
            path = folder / "other.onnx"
            tf2onnx.convert.from_function(function, signature, opset=17, output_path=str(path))
            model.export(folder / "export.onnx", format="onnx", verbose=False)
            print(name, *ours(model, folder), nodes(path), nodes(folder / "export.onnx"))


if __name__ == "__main__":
    _counted_anew()
