"""`verify --whole`: Keras and the written graph on one input, and what is said where one is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import run
from support.keras_tools import FIXTURES

import lstmconvert as lc
from lstmconvert.checks import wholemodel
from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.keras.configs import code

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
SMALL = FIXTURES / "keras-3.15.1" / "seed95.keras"


@pytest.fixture(autouse=True)
def _needs() -> None:
    pytest.importorskip("keras")
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("name", "judges"),
    [
        ("keras-3.15.1/zoo.keras", {"keras"}),
        ("keras-3.15.1/neighbours.keras", {"keras"}),
        ("keras-3.15.1/mixed_float16.keras", {"keras"}),
        ("keras-1.2.2/seed95.h5", {"keras"}),
        ("tf_keras-2.21.0/zoo.h5", {"keras", "tf_keras"}),
    ],
)
def test_models_of_every_era(name: str, judges: set[str]) -> None:
    report = lc.verify(FIXTURES / name, whole=True)
    assert report, repr(report.lines)
    assert report.whole
    assert {line.against for line in report.lines} == judges
    assert {line.engine for line in report.lines} == {"onnxruntime"}
    assert all(line.is_compared for line in report.lines)


def test_a_graph_that_computes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of one weight is off by a thousandth."""
    inner = wholemodel._in_onnxruntime

    def nudged(path: Path, names: Any) -> Any:
        import onnx
        from onnx import numpy_helper

        model = onnx.load(str(path))
        (weight,) = [w for w in model.graph.initializer if w.name == "lstm.forget_gate.kernel"]
        array = numpy_helper.to_array(weight).copy()
        array[0, 0] += 1e-3
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))
        onnx.save(model, str(path))
        return inner(path, names)

    assert lc.verify(SMALL, whole=True)
    monkeypatch.setattr(wholemodel, "_in_onnxruntime", nudged)
    report = lc.verify(SMALL, whole=True)
    assert not report
    assert report.is_compared
    assert report.lines[0].bad
    assert lc.verify(SMALL, whole=True, atol=1.0)


def test_without_keras_or_an_engine_nothing_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in (("keras", "tf_keras"), ("onnxruntime",)):
        with monkeypatch.context() as patch:
            patch.setattr(
                wholemodel, "find_spec", lambda name, gone=missing: None if name in gone else name
            )
            report = lc.verify(SMALL, whole=True)
            assert not report
            assert not report.is_compared
            assert "nothing was compared: that takes Keras and ONNX Runtime" in str(report)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("verify", SMALL, "--whole")
    assert done.code == 0
    assert "reference: Keras itself" in done.out
    monkeypatch.setattr(wholemodel, "find_spec", lambda _: None)
    nothing = run("verify", SMALL, "--whole")
    assert nothing.code == 2
    assert "nothing was compared" in nothing.out


def test_what_keras_would_run_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "findings", lambda *_: [code.Finding("evil", "imports os")])
    report = lc.verify(SMALL, whole=True)
    assert not report.is_compared
    assert "not opened, since of evil Keras imports os" in str(report.lines[0].skipped)


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedByTarget, match="no config"):
        lc.verify(FIXTURES / "keras-3.15.1" / "seed95.weights.h5", whole=True)
    with pytest.raises(UnsupportedByTarget, match="cannot cross"):
        lc.verify(FIXTURES / "keras-3.15.1" / "custom.keras", whole=True)
    with pytest.raises(UsageError, match="takes one file"):
        lc.verify(SMALL, SMALL, whole=True)
    with pytest.raises(UsageError, match="takes one file"):
        lc.verify(lc.load(SMALL), whole=True)
    with pytest.raises(UsageError, match="no engine for whole models"):
        lc.verify(SMALL, whole=True, engines=["torch"])


def test_ids_are_rows_of_the_table(tmp_path: Path) -> None:
    """An Embedding of three rows is given no fourth, whatever the input's dtype is."""
    keras = pytest.importorskip("keras")
    m = keras.layers
    x, y = keras.Input((None,), dtype="int32"), keras.Input((4,))
    ids = [m.Embedding(3, 2, mask_zero=True)(x), m.Embedding(5, 2)(y)]
    model = keras.Model([x, y], [m.LSTM(2)(value) for value in ids])
    model.save(tmp_path / "model.keras")
    report = lc.verify(tmp_path / "model.keras", whole=True)
    assert report, repr(report.lines)


def test_texts_are_of_words_that_the_graph_knows(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    m, x = keras.layers, keras.Input((1,), dtype="string")
    places = m.TextVectorization(vocabulary=["um", "uhr"])(x)
    keras.Model(x, m.LSTM(2)(m.Embedding(4, 2)(places))).save(tmp_path / "model.keras")
    report = lc.verify(tmp_path / "model.keras", whole=True, engines=["keras", "onnxruntime"])
    assert report, repr(report.lines)


def test_openvino_is_asked_by_name() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    report = lc.verify(SMALL, whole=True, engines=["openvino", "keras"])
    assert report, repr(report.lines)
    assert {line.engine for line in report.lines} == {"openvino"}


def test_a_model_that_needs_a_longer_sequence(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    m = keras.layers
    chain = [keras.Input((None, 3)), m.MaxPooling1D(24), m.LSTM(2)]
    model = keras.Sequential(chain)
    model.save(tmp_path / "model.keras")
    report = lc.verify(tmp_path / "model.keras", whole=True)
    assert report, repr(report.lines)
    assert np.isfinite(report.lines[0].allowed)
