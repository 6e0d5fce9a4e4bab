"""SavedModels and checkpoints as whole models: today's Keras loads them, and they run the same.

The oracles are tf_keras, which wrote them, and the outputs that older TensorFlows recorded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from support.corpus import CORPUS
from support.modern_models import (
    attention,
    convolutions,
    filled,
    masked,
    mixed,
    nested,
    outputs,
    samples,
    sequence_to_sequence,
)

import lstmconvert as lc
from lstmconvert.errors import CorruptFile

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"
#: Sums in float32, in another order than the writer's engine.
CLOSE = 2e-6
RECORDED = [
    ("tf-2.12.1/seed95.savedmodel", None),
    ("tf-2.15.1/seed95.savedmodel", None),
    ("tf_keras-2.21.0/seed95.savedmodel", None),
    ("tf-1.15.5/seed95.tf_weights", "seed95.config.json"),
    ("tf-2.12.1/seed95.tf_weights", "seed95.config.json"),
    ("tf-2.15.1/seed95.checkpoint", "seed95.config.json"),
    ("tf-2.15.1/zoo.tf_weights", "zoo.keras"),
    ("tf_keras-2.21.0/zoo.tf_weights", "zoo.h5"),
    ("keras-3.15.1/seed95.export", "seed95.keras"),
    ("keras-3.15.1/seed95.tf_saved_model", "seed95.keras"),
    ("keras-3.15.1/seed95.checkpoint", "seed95.keras"),
]
KINDS = [attention, convolutions, mixed, nested, sequence_to_sequence]


def assert_close(found: list[Any], wanted: list[Any]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(("name", "config"), RECORDED)
def test_a_file_of_an_older_tensorflow_gives_its_recorded_numbers(
    name: str, config: str | None, tmp_path: Path
) -> None:
    path = FIXTURES / name
    given = path.with_name(config) if config else None
    result = lc.convert(path, tmp_path / "today.keras", config=given)
    assert result.whole_model
    record = np.load(path.with_name(f"{path.name.split('.')[0]}.io.npz"))
    inputs = [record[key] for key in sorted(record.files) if key[0] == "x"]
    wanted = [record[f"y{index}"] for index in range(sum(k[0] == "y" for k in record.files))]
    assert_close(outputs(keras.models.load_model(tmp_path / "today.keras"), inputs), wanted)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_checkpoint_with_its_config_is_the_whole_model(kind: Any, tmp_path: Path) -> None:
    old = filled(kind(tf_keras), kind.__name__)
    given = samples(old, kind.__name__)
    wanted = outputs(old, given)
    old.save_weights(tmp_path / "weights" / "ckpt", save_format="tf")
    (tmp_path / "config.json").write_text(old.to_json())
    source, config = tmp_path / "weights", tmp_path / "config.json"
    assert lc.load(source, config=config).parameters["total"] == old.count_params()
    assert lc.convert(source, tmp_path / "today.keras", config=config).whole_model
    assert_close(outputs(keras.models.load_model(tmp_path / "today.keras"), given), wanted)


def masked_stack(library: Any) -> Any:
    """A Sequential with bare operations between its layers, as a mask makes them."""
    layer = library.layers
    return library.Sequential(
        [
            layer.Input((6, 4)),
            layer.Masking(0.5),
            layer.TimeDistributed(layer.Dense(3, name="dense")),
            layer.LSTM(3, return_sequences=True, name="lstm"),
            layer.Dense(2, name="dense"),
            layer.Bidirectional(layer.LSTM(2), merge_mode="sum", name="both"),
        ],
        name="stack",
    )


def twice_named(library: Any) -> Any:
    """Two functional models whose layers have the same names."""
    layer = library.layers
    halves = []
    for units in (3, 4):
        start = library.Input((6, 4))
        x = layer.LSTM(units, return_sequences=True, name="lstm")(start)
        halves.append(library.Model(start, layer.Dense(4, name="dense")(x), name=f"half{units}"))
    start = library.Input((6, 4))
    return library.Model(start, layer.LSTM(2, name="last")(halves[1](halves[0](start))))


def deep_stack(library: Any) -> Any:
    """Sequential models three deep, the innermost with a layer that keeps its states."""
    layer = library.layers
    inner = library.Sequential(
        [
            library.Input((6, 4), batch_size=3),
            layer.LSTM(4, return_sequences=True, stateful=True, name="lstm"),
            layer.Bidirectional(layer.LSTM(2, return_sequences=True), name="both"),
        ],
        name="inner",
    )
    for name in ("middle", "outer"):
        inner = library.Sequential([library.Input((6, 4), batch_size=3), inner], name=name)
    return inner


def exported(model: Any, path: Path) -> Path:
    model.export(path, verbose=False)
    return path


def saved(model: Any, path: Path) -> Path:
    import tensorflow as tf

    tf.saved_model.save(model, path)
    return path


def checkpoint(model: Any, path: Path) -> Path:
    """With an optimizer, whose edges to the weights are shorter than the model's own."""
    import tensorflow as tf

    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    kept = {"optimizer": optimizer, "step": tf.Variable(3)}
    tf.train.Checkpoint(model=model, **kept).save(path / "ckpt")
    return path


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (nested, checkpoint),
        (attention, checkpoint),
        (masked, exported),
        (twice_named, exported),
        (masked_stack, checkpoint),
        (masked_stack, saved),
        (deep_stack, checkpoint),
    ],
    ids=lambda value: value.__name__,
)
def test_a_model_of_keras_3_comes_back_to_the_bit(kind: Any, way: Any, tmp_path: Path) -> None:
    model = filled(kind(keras), kind.__name__)
    given = samples(model, kind.__name__)
    source = way(model, tmp_path / "source")
    (tmp_path / "config.json").write_text(model.to_json())
    config = tmp_path / "config.json"
    assert lc.load(source, config=config).parameters["total"] == model.count_params()
    assert lc.convert(source, tmp_path / "again.keras", config=config).whole_model
    again = outputs(keras.models.load_model(tmp_path / "again.keras"), given)
    for one, other in zip(again, outputs(model, given), strict=True):
        np.testing.assert_array_equal(one, other)


def trained() -> Any:
    """A model that was built when it was fitted: it has an optimizer's slots and metrics."""
    layer = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layer.Conv1D(4, 2),
            layer.LSTM(3, return_sequences=True, stateful=False),
            layer.BatchNormalization(),
            layer.LSTM(2),
            layer.Dropout(0.3),
            layer.Dense(2),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    random = np.random.RandomState(3)
    model.fit(random.rand(8, 6, 3), random.rand(8, 2), verbose=0)
    return model


@pytest.mark.slow
def test_a_saved_model_is_the_whole_model_by_every_way(tmp_path: Path) -> None:
    old = trained()
    given = [np.random.RandomState(4).rand(3, 6, 3).astype("float32")]
    wanted = outputs(old, given)
    source = tmp_path / "saved"
    old.save(source, save_format="tf", save_traces=False)
    model = lc.load(source)
    assert model.parameters["total"] == old.count_params()
    assert len(model.optimizer) > len(old.trainable_weights)
    lc.convert(source, tmp_path / "gates.safetensors")
    ways = {"a.keras": source, "b.h5": source, "c.keras": tmp_path / "gates.safetensors"}
    for name, start in ways.items():
        result = lc.convert(start, tmp_path / name)
        assert result.whole_model
        assert result.compiled is not None
        assert result.compiled.carried == ("optimizer Adam", "loss mse", "metric mae")
        assert not result.compiled.dropped
        assert_close(outputs(keras.models.load_model(tmp_path / name), given), wanted)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "c.keras").read_bytes()


def test_a_keras_model_that_tensorflow_1s_saver_wrote_is_whole_by_its_names(tmp_path: Path) -> None:
    import tensorflow as tf

    layer = tf_keras.layers
    start = layer.Input((6, 4))
    x = layer.BatchNormalization()(layer.Conv1D(4, 2)(start))
    x = layer.Bidirectional(layer.LSTM(3, return_sequences=True))(x)
    cells = [layer.LSTMCell(2, name="second"), layer.GRUCell(3, name="first")]  # not by alphabet
    old = filled(tf_keras.Model(start, layer.Dense(2)(layer.RNN(cells)(x))), "saver")
    given = samples(old, "saver")
    names = [weight.name.partition(":")[0] for weight in old.weights]
    slots = {f"{names[0]}/Adam": np.ones((2, 4, 4), "f"), "beta1_power": np.float32(0.9)}
    tensors = dict(zip(names, old.get_weights(), strict=True)) | slots
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    (tmp_path / "config.json").write_text(old.to_json())
    config = tmp_path / "config.json"
    assert lc.load(tmp_path / "model", config=config).parameters["total"] == old.count_params()
    assert lc.convert(tmp_path / "model", tmp_path / "x.keras", config=config).whole_model
    assert_close(outputs(keras.models.load_model(tmp_path / "x.keras"), given), outputs(old, given))


def embedded(source: Path, destination: Path) -> Path:
    """Write a SavedModel as TensorFlow 2.0 to 2.4 did: what Keras says is in `saved_model.pb`."""
    from tensorflow.core.protobuf import saved_model_pb2

    from lstmconvert.tensorflow.formats.savedmodel import (
        METADATA_FILE,
        PROGRAM_FILE,
        read_saved_model,
    )

    shutil.copytree(source, destination)
    program = saved_model_pb2.SavedModel()
    program.ParseFromString((destination / PROGRAM_FILE).read_bytes())
    for one in read_saved_model(source).keras:
        node = program.meta_graphs[0].object_graph_def.nodes[one.node]
        text = one.metadata.replace('"class_name": "Functional"', '"class_name": "Model"')
        node.user_object.metadata = text
    (destination / PROGRAM_FILE).write_bytes(program.SerializeToString())
    (destination / METADATA_FILE).unlink()
    return destination


def test_what_tensorflow_2_0_wrote_into_the_program_is_read_too(tmp_path: Path) -> None:
    path = FIXTURES / "tf-2.12.1" / "seed95.savedmodel"
    assert lc.convert(embedded(path, tmp_path / "old"), tmp_path / "old.keras").whole_model
    lc.convert(path, tmp_path / "new.keras")
    assert (tmp_path / "old.keras").read_bytes() == (tmp_path / "new.keras").read_bytes()


def test_a_config_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = FIXTURES / "tf-2.15.1" / "seed95.tf_weights"
    text = path.with_name("seed95.config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"units": 5', '"units": 6'))
    with pytest.raises(CorruptFile, match=r"dense/kernel: .*found shape 2×5; expected units 6"):
        lc.convert(path, tmp_path / "x.keras", config=tmp_path / "config.json")


def test_a_config_of_other_layers_is_refused(tmp_path: Path) -> None:
    path = FIXTURES / "tf-2.15.1" / "seed95.tf_weights"
    config = json.loads(path.with_name("seed95.config.json").read_text())
    extra = json.loads(json.dumps(config["config"]["layers"][-1]).replace("dense", "more"))
    config["config"]["layers"].append(extra)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptFile, match="different models; found 3 layers; expected 4"):
        lc.load(path, config=tmp_path / "config.json")


class Subclassed(tf_keras.Model):
    """Says nothing of how its layers are called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = tf_keras.layers.LSTM(3, name="first")
        self.last = tf_keras.layers.Dense(2, name="last")
        self.seen = tf_keras.metrics.Mean(name="seen")

    def call(self, x: Any) -> Any:
        return self.last(self.first(x))


def test_a_subclassed_model_gives_its_lstm_layers_and_says_so(tmp_path: Path) -> None:
    old = Subclassed()
    old.compile("sgd", "mse")
    old.predict(np.zeros((2, 5, 4)), verbose=0)
    old.save(tmp_path / "saved", save_format="tf", save_traces=False)
    model = lc.load(tmp_path / "saved")
    assert any("a class of its own, Subclassed" in note for note in model.notes)
    # tf_keras counts the metric's two numbers too.
    assert model.parameters["total"] == old.first.count_params() + old.last.count_params()
    result = lc.convert(tmp_path / "saved", tmp_path / "lstm.keras")
    assert not result.whole_model
    layer = keras.models.load_model(tmp_path / "lstm.keras").get_layer("first")
    for mine, theirs in zip(layer.get_weights(), old.first.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_class_outside_the_table_is_refused_by_name(tmp_path: Path) -> None:
    layer = tf_keras.layers
    trick = layer.Lambda(abs, name="trick")
    model = tf_keras.Sequential([layer.LSTM(2, input_shape=(4, 3)), trick])
    model.save_weights(tmp_path / "ckpt", save_format="tf")
    (tmp_path / "config.json").write_text(model.to_json())
    with pytest.raises(lc.LSTMConvertError, match="trick: Keras runs Python code"):
        lc.convert(tmp_path / "ckpt", tmp_path / "x.keras", config=tmp_path / "config.json")
    assert not (tmp_path / "x.keras").exists()


@pytest.mark.corpus
def test_a_real_saved_model(tmp_path: Path) -> None:
    source = CORPUS / "iteam1__lstm_model"
    old = tf_keras.models.load_model(source, compile=False)
    assert lc.load(source).parameters["total"] == old.count_params()
    assert lc.convert(source, tmp_path / "today.keras").whole_model
    given = samples(old, "iteam1")
    today = keras.models.load_model(tmp_path / "today.keras")
    assert_close(outputs(today, given), outputs(old, given))
