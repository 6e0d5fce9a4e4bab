"""Files of whole models: what comes back out of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.cli import run as command
from support.keras_tools import FIXTURES
from support.thinned import turns
from support.whole_tools import answers, distance, session

import lstmconvert as lc
from lstmconvert.errors import LSTMConvertError, UnsupportedByTarget, UsageError
from lstmconvert.onnx import write

#: Fixtures that no graph says, and what the refusal names.
REFUSED = {
    "keras-3.15.1/custom.keras": "scaled_lstm",
    "keras-3.15.1/subclassed.keras": "Branches",
    "tf_keras-2.21.0-own/attention.h5": "AttentionWithContext",
    "tf_keras-2.21.0-own/expand.h5": "lambda",
    "tf_keras-2.21.0-own/subclass.h5": "MyLSTM",
}
#: Half precision: no two programs round alike (see `test_whole_models`).
HALF = {"bfloat16": 8e-3, "mixed_bfloat16": 8e-3, "mixed_float16": 1e-3, "float16": 1e-3}
SUFFIXES = (".keras", ".h5", ".savedmodel", ".hdf5.keras", ".unzipped")
WHOLE = sorted(
    path.relative_to(FIXTURES).as_posix()
    for record in FIXTURES.glob("*/*.io.npz")
    for suffix in SUFFIXES
    if (path := record.with_name(record.name.replace(".io.npz", suffix))).exists()
    and record.name != "gru_only.io.npz"
)


def converted(source: Path, path: Path, **options: Any) -> Path:
    lc.convert(source, path, whole=True, force=True, warn=False, **options)
    return path


@pytest.mark.parametrize("name", WHOLE)
def test_recorded(name: str, tmp_path: Path) -> None:
    """Each fixture gives what its own Keras, of whatever era, once gave."""
    source = FIXTURES / name
    if name in REFUSED:
        with pytest.raises(UnsupportedByTarget, match=REFUSED[name]):
            converted(source, tmp_path / "model.onnx")
        return
    ran = session(converted(source, tmp_path / "model.onnx"))
    record = np.load(_record(source))
    inputs = [record[key] for key in record.files if key.startswith("x")]
    types = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
             "tensor(int32)": "int32", "tensor(int64)": "int64",
             "tensor(string)": "object"}  # fmt: skip
    given = [x.astype(types[v.type]) for x, v in zip(inputs, ran.get_inputs(), strict=False)]
    stem = Path(name).name.split(".")[0]
    wanted = [record[key] for key in record.files if key.startswith("y")]
    for one, two in zip(answers(ran, given), wanted, strict=False):
        assert distance(one, two) < HALF.get(stem, 2e-6)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name.split('.')[0]}.io.npz")


BOTH_WAYS = (
    *("keras-3.15.1/seed95.keras", "keras-3.15.1/zoo.keras", "keras-3.15.1/conv_lstm2d.keras"),
    *("keras-3.15.1/neighbours.keras", "keras-3.15.1/rnn_stack_gru.keras"),
    "keras-2.2.4/zoo.h5",
    *("keras-3.15.1/mixed_float16.keras", "tf_keras-2.21.0/zoo.h5", "keras-1.2.2/seed95.h5"),
    *("keras-3.15.1/shared.keras", "keras-3.15.1/nested.keras", "keras-3.15.1/both_gru.keras"),
)


@pytest.mark.parametrize(("name", "fused"), turns(BOTH_WAYS, (True, False)))
def test_back_bit_for_bit(name: str, fused: bool, tmp_path: Path) -> None:
    source = FIXTURES / name
    path = converted(source, tmp_path / "model.onnx", fused=fused)
    back = tmp_path / f"back{source.suffix}"
    result = lc.convert(path, back, warn=False)
    assert result.whole_model
    assert lc.diff(source, back)
    before, after = lc.load(source), lc.load(path)
    assert before.other.keys() == after.other.keys()
    assert before.texts == after.texts
    for key, tensor in before.other.items():
        assert tensor.read().tobytes() == after.other[key].read().tobytes(), key


def test_readable(tmp_path: Path) -> None:
    """Nodes and values have the layers' names; shapes are known throughout."""
    path = converted(FIXTURES / "keras-3.15.1" / "seed95.keras", tmp_path / "model.onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    layers = ("input_layer", "lstm", "dense")
    assert all(node.name.split(".")[0] in layers for node in model.graph.node)
    shapes = {v.name: v.type.tensor_type.shape for v in model.graph.value_info}
    for node in model.graph.node[:-1]:
        for name in filter(None, node.output):
            assert len(shapes[name].dim) or name == "lstm", name
    names = {weight.name for weight in model.graph.initializer}
    assert {"lstm.forget_gate.kernel", "dense.kernel", "dense.bias"} <= names


def test_past_two_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model has its weights in a file beside it, and comes back all the same."""
    monkeypatch.setattr(write, "PROTOBUF_BYTES", 1000)
    source = FIXTURES / "keras-3.15.1" / "neighbours.keras"
    path = converted(source, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").exists()
    assert lc.diff(source, path)
    lc.convert(path, tmp_path / "back.keras", warn=False)
    assert lc.diff(source, tmp_path / "back.keras")
    session(path)


def test_same_bytes(tmp_path: Path) -> None:
    source = FIXTURES / "keras-3.15.1" / "zoo.keras"
    one, two = (converted(source, tmp_path / f"{name}.onnx") for name in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_changed_file_is_read_by_its_nodes(tmp_path: Path) -> None:
    """A weight of the whole model that is gone makes the file an ONNX file like any other."""
    path = converted(FIXTURES / "keras-3.15.1" / "seed95.keras", tmp_path / "model.onnx")
    model = onnx.load(path)
    for weight in model.graph.initializer:
        if weight.name == "dense.kernel":
            weight.name = "other.kernel"
    onnx.save(model, path)
    with pytest.raises(LSTMConvertError, match="missing"):
        lc.load(path)


@pytest.mark.parametrize("option", ["lstm_only", "chain", "state_inputs", "length_input"])
def test_options_that_say_something_else(option: str, tmp_path: Path) -> None:
    source = FIXTURES / "keras-3.15.1" / "seed95.keras"
    with pytest.raises(UsageError, match="contradict"):
        converted(source, tmp_path / "model.onnx", **{option: True})


def test_weights_alone(tmp_path: Path) -> None:
    """Weights without a config are not a whole model; with one they are."""
    source = FIXTURES / "keras-3.15.1" / "seed95.weights.h5"
    with pytest.raises(UnsupportedByTarget, match="no config"):
        converted(source, tmp_path / "model.onnx")
    config = FIXTURES / "keras-3.15.1" / "seed95.config.json"
    session(converted(source, tmp_path / "model.onnx", config=config))


@pytest.mark.engines
def test_what_is_in_the_way(tmp_path: Path) -> None:
    """All layers are looked at: the first three are named, and how many more there are."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    x = keras.Input((None, 4))
    y = layers.Lambda(lambda v: v * 2, name="first")(x)
    y = layers.LSTM(3, return_sequences=True)(y)
    for name in ("second", "third", "fourth", "fifth"):
        y = layers.Lambda(lambda v: v * 2, name=name)(y)
    keras.Model(x, y).save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedByTarget) as caught:
        converted(tmp_path / "model.keras", tmp_path / "model.onnx")
    assert caught.value.found == "first (Lambda), second (Lambda), third (Lambda) and 2 more"
    assert not (tmp_path / "model.onnx").exists()


def test_command(tmp_path: Path) -> None:
    """Without --whole the command says that a whole model is to be had."""
    source = FIXTURES / "keras-3.15.1" / "seed95.keras"
    alone = command("convert", source, tmp_path / "a.onnx")
    assert "--whole" in alone.err
    whole = command("convert", source, tmp_path / "b.onnx", "--whole")
    assert "the whole model" in whole.err
    assert "--whole" not in whole.err
