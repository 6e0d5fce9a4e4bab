"""Pickled Keras models and weights are read as data; the Keras that pickled them is the oracle."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import KERAS, SEED95, failure, run

import lstmconvert as lc
from lstmconvert.tensors.dtypes import same_bits


def pickled(value: object, path: Path, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def weights() -> list[Any]:
    """What `get_weights()` of the example gives."""
    model = lc.load(SEED95)
    fused = [
        np.concatenate([getattr(gate, part) for gate in model["lstm"].cell.gates.values()], axis=-1)
        for part in ("kernel", "recurrent_kernel", "bias")
    ]
    head = model.neighbours["dense"]
    return [*fused, np.asarray(head.kernel), np.asarray(head.bias)]


@pytest.mark.engines
class TestModels:
    def model(self, library: str) -> Any:
        keras = pytest.importorskip(library)
        built = keras.Sequential(
            [
                keras.layers.Input((6, 4)),
                keras.layers.Bidirectional(keras.layers.LSTM(3), name="both"),
                keras.layers.Dense(2, name="head"),
            ]
        )
        rng = np.random.default_rng(2)
        built.set_weights([rng.normal(size=w.shape) for w in built.get_weights()])
        return built

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("library", ["keras", "tf_keras"])
    def test_a_model(self, library: str, protocol: int, tmp_path: Path) -> None:
        import keras

        model = self.model(library)
        path = pickled(model, tmp_path / "m.pkl", protocol)
        lc.convert(path, tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        assert all(map(same_bits, again.get_weights(), model.get_weights()))
        x = np.random.default_rng(1).normal(size=(2, 6, 4)).astype(np.float32)
        assert np.abs(np.asarray(again(x)) - np.asarray(model(x))).max() <= 1e-6

    @pytest.mark.parametrize("compress", [0, 3, ("gzip", 3)])
    def test_of_joblib(self, compress: Any, tmp_path: Path) -> None:
        joblib = pytest.importorskip("joblib")
        model = self.model("keras")
        joblib.dump(model, tmp_path / "m.joblib", compress=compress)
        model.save(tmp_path / "m.keras")
        report = lc.diff(tmp_path / "m.joblib", tmp_path / "m.keras")
        assert report.layers
        assert all(report.layers)
        assert "the whole model" in run("inspect", tmp_path / "m.joblib").out

    def test_among_other_things(self, tmp_path: Path) -> None:
        import argparse

        model = self.model("keras")
        value = {"scaler": np.arange(3.0), "args": argparse.Namespace(a=1), "models": [model]}
        opened = lc.load(pickled(value, tmp_path / "m.pkl"))
        assert list(opened) == ["both"]
        assert any("argparse.Namespace" in note for note in opened.notes)

    def test_two_models_are_not_one(self, tmp_path: Path) -> None:
        path = pickled([self.model("keras"), self.model("keras")], tmp_path / "m.pkl")
        error, hint = failure("inspect", path)
        assert "several models in one pickle; found 2 models" in error
        assert "model.save" in hint


def test_weights_with_a_config(tmp_path: Path) -> None:
    path = pickled(weights(), tmp_path / "w.pkl")
    _, hint = failure("inspect", path)
    assert "--config" in hint
    model = lc.load(path, config=SEED95)
    report = lc.diff(model, lc.load(SEED95), weights_only=True)
    assert all(report.layers)


@pytest.mark.parametrize("form", ["pair", "keys"])
def test_weights_and_their_config(form: str, tmp_path: Path) -> None:
    text = lc.load(SEED95).texts["model_config"]
    value: Any = (text, weights()) if form == "pair" else {"config": text, "weights": weights()}
    model = lc.load(pickled(value, tmp_path / "w.pkl"))
    report = lc.diff(model, lc.load(SEED95), weights_only=True)
    assert all(report.layers)
    assert model["lstm"].cell.options.activation == lc.load(SEED95)["lstm"].cell.options.activation


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compress", [0, 3])
def test_arrays_of_joblib(compress: int, order: Any, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    arrays = [np.asarray(array, order=order) for array in weights()]
    joblib.dump(arrays, tmp_path / "w.joblib", compress=compress)
    model = lc.load(tmp_path / "w.joblib", config=SEED95)
    assert all(lc.diff(model, lc.load(SEED95), weights_only=True).layers)


def test_named_arrays_are_in_their_layout(tmp_path: Path) -> None:
    arrays = lc.arrange(lc.load(SEED95)["lstm"], "torch")
    path = pickled({"rnn": {name: np.asarray(a) for name, a in arrays.items()}}, tmp_path / "w.pkl")
    model = lc.load(path)
    assert (model.layout, list(model)) == ("torch", ["rnn"])
    for gate, weights in lc.load(SEED95)["lstm"].cell.gates.items():
        read = model["rnn"].cell.gates[gate]
        assert same_bits(read.kernel, weights.kernel)
        assert same_bits(read.recurrent_kernel, weights.recurrent_kernel)
        assert same_bits(read.bias, weights.bias)


# ---- what is not a model, and what lies ----------------------------------------------------------


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_nothing_in_it_runs(tmp_path: Path) -> None:
    path = pickled([_Runs(tmp_path / "ran"), 3], tmp_path / "m.pkl")
    error, _ = failure("inspect", path)
    assert "no Keras model and no arrays" in error
    assert not (tmp_path / "ran").exists()


def deserialize_model_from_bytecode(data: object) -> None:
    """Named as Keras 2.6 to 2.11 named what takes a SavedModel as a tar file."""


class _OldModel:
    def __reduce__(self) -> tuple[Any, ...]:
        buffer = io.BytesIO()
        tarfile.open(fileobj=buffer, mode="w").close()
        return deserialize_model_from_bytecode, (np.frombuffer(buffer.getvalue(), np.uint8),)


def test_an_older_keras_is_named(tmp_path: Path) -> None:
    data = pickle.dumps(_OldModel(), 2)
    name = f"{__name__}\ndeserialize".encode()
    assert name in data
    path = tmp_path / "m.pkl"
    path.write_bytes(data.replace(name, b"keras.saving.pickle_utils\ndeserialize"))
    error, hint = failure("inspect", path)
    assert "a pickled model of a Keras before 2.12" in error
    assert "save('model.h5')" in hint


def test_damaged_files(tmp_path: Path) -> None:
    whole = pickle.dumps(weights())
    path = tmp_path / "m.pkl"
    for length in range(2, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path, config=SEED95)
    packed = gzip.compress(whole)
    for length in range(2, len(packed), 61):
        path.write_bytes(packed[:length])
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path, config=SEED95)


def test_arrays_of_joblib_that_are_cut(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "w.joblib"
    joblib.dump(weights(), path)
    whole = path.read_bytes()
    for length in range(2, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path, config=SEED95)


def test_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(gzip.compress(b"\x80\x04" + bytes(65 << 20)))
    with pytest.raises(lc.LSTMConvertError, match="expands"):
        lc.load(path)


def test_it_is_not_written(tmp_path: Path) -> None:
    _, hint = failure("convert", KERAS / "seed95.keras", tmp_path / "x.pkl")
    assert ".npz" in hint
