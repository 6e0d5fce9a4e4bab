"""TensorFlow's own files: the layers in them, their gates, options, and the numbers they give.

The oracles are the writers: what TensorFlow's own loader reads of a checkpoint, what the same
writer put into an `.h5` of the same model, and the outputs that TensorFlow 1's cells gave.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from support.corpus import CORPUS

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.errors import CorruptFile, NoLSTM, UnknownOption, UsageError
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import same_bits

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"
CELLS = FIXTURES / "tf-1.15.5-cells"

#: What a user of TensorFlow 1 knows and the file does not say.
RUN = (
    "activation=tanh",
    "cell_clip=null",
    "return_sequences=true",
    "return_state=true",
    "stateful=false",
)

SEEDS = [
    "tf-2.12.1/seed95.savedmodel",
    "tf-2.12.1/seed95.tf_weights",
    "tf-2.13.1/seed95.tf_weights",
    "tf-2.14.1/seed95.tf_weights",
    "tf-2.15.1/seed95.savedmodel",
    "tf-2.15.1/seed95.tf_weights",
    "tf-2.15.1/seed95.checkpoint",
    "tf-1.15.5/seed95.tf_weights",
    "tf_keras-2.21.0/seed95.savedmodel",
    "tf_keras-2.21.0/seed95.tf_weights",
    "tf_keras-2.21.0/seed95.checkpoint",
    "keras-3.15.1/seed95.checkpoint",
    "keras-3.15.1/seed95.export",
    "keras-3.15.1/seed95.tf_saved_model",
]


def same_gates(a: LSTMLayer, b: LSTMLayer) -> bool:
    return all(
        d == e and i == j and dict(x.tensors()).keys() == dict(y.tensors()).keys()
        and all(same_bits(t.read(), dict(y.tensors())[n].read()) for n, t in x.tensors())
        for (d, i, x), (e, j, y) in zip(a.cells(), b.cells(), strict=True)
    )


@pytest.mark.parametrize("name", SEEDS)
def test_the_same_gates_as_in_the_writers_h5(name: str) -> None:
    found = lc.load(FIXTURES / name)
    other = lc.load(FIXTURES / name.split("/")[0] / "seed95.h5")
    assert list(found) == ["lstm"]
    assert same_gates(found["lstm"], other["lstm"])


@pytest.mark.parametrize("name", [name for name in SEEDS if "savedmodel" in name])
def test_a_saved_model_of_keras_2_says_its_options(name: str) -> None:
    layer = lc.load(FIXTURES / name)["lstm"]
    options = layer.cell.options
    assert str(options.activation) == "tanh"
    assert str(options.recurrent_activation) == "sigmoid"
    assert layer.forward.options.return_sequences is False


def test_a_checkpoint_leaves_options_unknown_until_a_config_says_them() -> None:
    path = FIXTURES / "tf-2.15.1" / "seed95.tf_weights"
    assert lc.load(path)["lstm"].cell.options.activation is UNKNOWN
    layer = lc.load(path, config=FIXTURES / "tf-2.15.1" / "seed95.config.json")["lstm"]
    assert str(layer.cell.options.recurrent_activation) == "sigmoid"


@pytest.mark.parametrize("writer", ["tf-2.15.1", "tf_keras-2.21.0"])
def test_every_layer_of_a_zoo(writer: str) -> None:
    whole = next((FIXTURES / writer).glob("zoo.[kh]*"))
    found = lc.load(FIXTURES / writer / "zoo.tf_weights", config=whole)
    other = lc.load(whole)
    assert list(found) == list(other)
    assert all(same_gates(found[name], other[name]) for name in found)


def test_a_config_of_another_model_is_refused() -> None:
    with pytest.raises(CorruptFile, match="of different models"):
        lc.load(
            FIXTURES / "tf-2.15.1" / "zoo.tf_weights",
            config=FIXTURES / "tf-2.15.1" / "seed95.config.json",
        )


@pytest.mark.parametrize("name", ["basic", "lstm", "lstm.v1", "partitioned", "multi", "both"])
def test_tensorflow_1_cells_give_their_recorded_outputs(name: str) -> None:
    forget_bias = 0.5 if _half(name) else 1.0
    settings = [*RUN, f"forget_bias={forget_bias}"]
    extra = ["go_backwards=false"] if name != "both" else ["merge_mode=null"]
    model = lc.load(CELLS / name, settings=[*settings, *extra])
    record = np.load(CELLS / f"{name}.io.npz")
    outputs = reference.run(model.layers[0], record["x0"]).outputs
    for index, output in enumerate(outputs):
        # float32 sums in another order than TensorFlow's.
        np.testing.assert_allclose(output, record[f"y{index}"], rtol=0, atol=1e-6)


def _half(name: str) -> bool:
    import json

    entries = json.loads((FIXTURES / "MANIFEST.json").read_text())
    return "forget_bias=0.5" in json.dumps(
        [value for key, value in _walk(entries) if f"tf-1.15.5-cells/{name}/" in key]
    )


def _walk(value: object, key: str = "") -> list[tuple[str, object]]:
    if isinstance(value, dict):
        label = str(value.get("file", value.get("path", key)))
        inner = [pair for k, v in value.items() for pair in _walk(v, k)]
        return [(label, value), *inner]
    if isinstance(value, list):
        return [pair for item in value for pair in _walk(item, key)]
    return []


def test_a_forget_bias_is_unknown_until_it_is_set_and_kept_as_its_own_field(tmp_path: Path) -> None:
    model = lc.load(CELLS / "basic")
    assert model.layers[0].cell.options.forget_bias is UNKNOWN
    assert "forget_bias" in model.notes[0]
    stored = model.layers[0].forget_gate.bias
    destination = tmp_path / "basic.safetensors"
    lc.convert(CELLS / "basic", destination, settings=["forget_bias=1.0"])
    again = lc.load(destination)
    assert again.layers[0].cell.options.forget_bias == 1.0
    assert same_bits(again.layers[0].forget_gate.bias, stored)


def test_keras_takes_the_forget_bias_folded_in_as_a_declared_loss(tmp_path: Path) -> None:
    settings = [*RUN, "forget_bias=1.0", "go_backwards=false", "zero_output_for_mask=false"]
    result = lc.convert(CELLS / "basic", tmp_path / "basic.keras", settings=settings)
    assert any("run-time forget bias" in loss for loss in result.losses)
    source = lc.load(CELLS / "basic").layers[0]
    layer = lc.load(tmp_path / "basic.keras").layers[0]
    folded = source.forget_gate.bias + np.float32(1.0)
    assert same_bits(layer.forget_gate.bias, folded)
    assert same_bits(layer.input_gate.bias, source.input_gate.bias)


def test_what_a_file_does_not_say_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UnknownOption, match="forget_bias"):
        lc.convert(CELLS / "basic", tmp_path / "basic.keras")
    assert not list(tmp_path.iterdir())


def test_peepholes_and_projection_are_kept() -> None:
    cell = lc.load(CELLS / "peephole").layers[0].cell
    assert cell.units == 4
    assert cell.recurrent_dim == 2
    assert cell.parts["projection"].shape == (4, 2)
    assert cell.gates[Gate.INPUT].peephole is not None
    assert cell.gates[Gate.CELL].peephole is None


def test_layer_norm_is_kept() -> None:
    cell = lc.load(CELLS / "layer_norm").layers[0].cell
    assert cell.gates[Gate.CELL].layer_norm is not None
    assert cell.parts["state_norm"].shape == (3,)
    assert not cell.use_bias


def test_optimizer_slots_are_no_weights() -> None:
    model = lc.load(CELLS / "both.adam")
    assert model.parameters["other"] == 0
    assert len(model.optimizer) == 10


@pytest.mark.engines
def test_a_checkpoint_without_lstm_lists_what_it_has(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(v=tf.Variable([1.0])).write(str(tmp_path / "plain"))
    with pytest.raises(NoLSTM, match="no variable belongs to an LSTM cell"):
        lc.load(tmp_path / "plain")


def test_a_setting_that_contradicts_the_file_is_refused() -> None:
    with pytest.raises(UsageError, match="the file says otherwise"):
        lc.load(CELLS / "basic", settings=["recurrent_activation=tanh"])


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "layers"), [("crazydonkey200__char_rnn", ["rnn"]), ("iteam1__lstm_model", ["lstm_5"])]
)
def test_real_checkpoints(name: str, layers: list[str], tmp_path: Path) -> None:
    model = lc.load(CORPUS / name)
    assert list(model) == layers
    destination = tmp_path / "gates.safetensors"
    lc.convert(CORPUS / name, destination)
    assert lc.diff(CORPUS / name, destination)


@pytest.mark.parametrize("name", ["seed95.savedmodel", "seed95.tf_weights"])
def test_the_digest_of_a_directory_is_of_all_its_files(name: str) -> None:
    path = FIXTURES / "tf-2.15.1" / name
    found = [one for one in path.rglob("*") if one.is_file()]
    lines = sorted(f"{sha256(one)} {one.relative_to(path).as_posix()}\n" for one in found)
    wanted = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert lc.load(path).source.sha256 == wanted


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["saved_model.pb", "keras_metadata.pb"])
def test_a_file_of_a_saved_model_stands_for_its_directory(name: str) -> None:
    directory = FIXTURES / "tf-2.15.1" / "seed95.savedmodel"
    assert lc.diff(directory / name, directory)


def test_a_checkpoint_s_directory_is_described_by_its_files() -> None:
    found = lc.inspect(CELLS / "basic").to_json()
    assert found["source"]["container"] == "checkpoint"
    assert len(found["source"]["sha256"]) == 64
