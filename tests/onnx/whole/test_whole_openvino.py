"""A second engine on a sample of whole models: OpenVINO, which knows nothing of ONNX Runtime.

OpenVINO 2026.4 does not take a Scan whose body uses values of the graph around it, which ONNX
allows and cells beyond the operators need: no such model is in the sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.whole_tools import FLOAT32, distance, example, predicted, randomized, written

pytestmark = [pytest.mark.engines, pytest.mark.slow]


def _plain(k: Any, m: Any) -> Any:
    x = k.Input((None, 4))
    y = m.LSTM(3, return_sequences=True)(x)
    return k.Model(x, m.Dense(2)(m.LSTM(3, go_backwards=True)(y)))


def _masked(k: Any, m: Any) -> Any:
    x = k.Input((None,), dtype="int32")
    y = m.Embedding(5, 4, mask_zero=True)(x)
    y = m.Bidirectional(m.LSTM(3, return_sequences=True))(y)
    return k.Model(x, m.Dense(2, activation="softmax")(m.Bidirectional(m.LSTM(3))(y)))


def _windows(k: Any, m: Any) -> Any:
    x = k.Input((12, 4))
    y = m.BatchNormalization()(m.Conv1D(8, 3, padding="same", activation="relu")(x))
    y = m.LSTM(8, return_sequences=True)(m.MaxPooling1D(2)(y))
    y = m.LayerNormalization()(m.Add()([y, m.MultiHeadAttention(2, 4)(y, y)]))
    return k.Model(x, m.Dense(2)(m.GlobalAveragePooling1D()(y)))


def _gated(k: Any, m: Any) -> Any:
    x = k.Input((None, 4))
    y = m.Bidirectional(m.GRU(3, return_sequences=True), merge_mode="sum")(x)
    y = m.TimeDistributed(m.Dense(4, activation="gelu"))(y)
    return k.Model(x, m.LSTM(2)(m.SimpleRNN(3, return_sequences=True)(y)))


MODELS = {"plain": _plain, "masked": _masked, "windows": _windows, "gated": _gated}


@pytest.mark.parametrize("name", MODELS)
def test_openvino(name: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    keras = pytest.importorskip("keras")
    model = randomized(MODELS[name](keras, keras.layers))
    path = written(model, tmp_path / "model.onnx")
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    for batch in (1, 3):
        inputs = example(model, batch, 12)
        (wanted,) = predicted(model, inputs)
        assert distance(compiled(inputs)[0], wanted) < FLOAT32
