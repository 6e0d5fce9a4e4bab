"""Parts of a model: layers, LSTMs alone, another dtype."""

from __future__ import annotations

import pytest
from support.keras_tools import FIXTURES, LATEST

import lstmconvert as lc
from lstmconvert.errors import (
    UnknownLayer,
    UsageError,
)
from lstmconvert.model import edit
from lstmconvert.tensors.tensor import Cast

LATEST_DIR = FIXTURES / LATEST


def test_layers_and_nothing_else() -> None:
    model = lc.load(LATEST_DIR / "several.keras")
    found = edit.only_layers(model, ["m_last", "z_first"])
    assert list(found) == ["z_first", "m_last"]
    assert not found.other
    assert found.source.structure is None
    assert model.other
    with pytest.raises(UnknownLayer) as error:
        edit.only_layers(model, ["m_lost"])
    assert error.value.hint == "did you mean m_last?"


def test_lstm_only() -> None:
    found = edit.lstm_only(lc.load(LATEST_DIR / "text.keras"))
    for rest in (found.other, found.assets, found.optimizer, found.texts):
        assert not rest
    assert list(found) == ["lstm"]


def test_cast_to_no_dtype_of_weights() -> None:
    model = lc.load(LATEST_DIR / "seed95.keras")
    for name in ("int8", "float8_e4m3fn", "complex64", "Float32"):
        with pytest.raises(UsageError, match="no such dtype"):
            edit.cast(model, name)


def test_cast_to_its_own_dtype_is_nothing() -> None:
    model = lc.load(LATEST_DIR / "seed95.keras")
    found = edit.cast(model, "float32")
    assert found.losses == ()
    assert not isinstance(found["lstm"].forget_gate.tensors["kernel"], Cast)
