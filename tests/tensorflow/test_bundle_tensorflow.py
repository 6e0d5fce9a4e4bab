"""Checkpoints and SavedModels that TensorFlow itself wrote, now or long ago, read without it.

The oracle is TensorFlow's own reader: every tensor must have its bits.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundleoracle import assert_as_tensorflow_reads, tf
from support.corpus import CORPUS

from lstmconvert.errors import CorruptFile
from lstmconvert.tensorflow.formats.checkpoint import read_checkpoint
from lstmconvert.tensorflow.formats.objectgraph import SlotOf
from lstmconvert.tensorflow.formats.savedmodel import is_saved_model, read_saved_model

pytestmark = pytest.mark.engines

ROOT = Path(__file__).parents[2]
FIXTURES = sorted(ROOT.glob("fixtures/*/**/*.index"))
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"

tf_keras = pytest.importorskip("tf_keras")
keras = pytest.importorskip("keras")


def network(library: Any) -> Any:
    """A model with an LSTM of each kind; both libraries spell it alike."""
    layers = library.layers
    inputs = library.Input((5, 3))
    x = layers.LSTM(4, return_sequences=True, name="enc")(inputs)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="bi")(x)
    x = layers.RNN([layers.LSTMCell(2), layers.LSTMCell(3)], name="stk")(x)
    return library.Model(inputs, layers.Dense(1, name="head")(x))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one model in each form that TensorFlow and Keras write."""
    root = tmp_path_factory.mktemp("tensorflow")
    model = network(tf_keras)
    model.save_weights(str(root / "weights" / "ckpt"), save_format="tf")
    model.save(str(root / "light"), save_format="tf", save_traces=False)
    small = tf_keras.Sequential([tf_keras.Input((2, 3)), tf_keras.layers.LSTM(4, name="enc")])
    small.save(str(root / "saved"), save_format="tf")  # traces, and so keys `variables/0`
    new = network(keras)
    new.export(str(root / "export"), verbose=False)
    tf.saved_model.save(new, str(root / "module"))
    new.compile("adam", "mse")
    new.optimizer.build(new.trainable_variables)
    tf.train.Checkpoint(model=new).save(str(root / "new" / "ckpt"))
    old = tf_keras.Sequential([tf_keras.layers.LSTM(2, name="enc")])
    old.compile(tf_keras.optimizers.legacy.Adam(), "mse", run_eagerly=True)
    old.fit(np.zeros((1, 2, 3)), np.zeros((1, 2)), verbose=0)
    tf.train.Checkpoint(model=old, optimizer=old.optimizer).write(str(root / "slots" / "ckpt"))
    return root


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: str(path.relative_to(ROOT)))
def test_fixtures(path: Path) -> None:
    bundle = read_checkpoint(path)
    assert_as_tensorflow_reads(bundle, path.with_suffix(""))
    assert (bundle.graph is None) == ("-cells" in str(path))
    if bundle.graph is not None:
        assert set(bundle.graph.keys) == set(bundle.tensors)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["crazydonkey200__char_rnn", "iteam1__lstm_model/variables"])
def test_corpus(name: str) -> None:
    bundle = read_checkpoint(CORPUS / name)
    assert_as_tensorflow_reads(bundle, bundle.path)
    assert (bundle.graph is None) == ("char_rnn" in name)


@pytest.mark.parametrize(
    "name",
    [
        "weights/ckpt",
        "saved/variables/variables",
        "light/variables/variables",
        "export/variables/variables",
        "module/variables/variables",
        "new/ckpt-1",
        "slots/ckpt",
    ],
)
def test_every_writer(written: Path, name: str) -> None:
    assert_as_tensorflow_reads(read_checkpoint(written / name), written / name)


CELLS = {
    "enc/lstm_cell/kernel": {
        "weights/ckpt": "layer_with_weights-0/cell/kernel",
        "saved/variables/variables": "layer_with_weights-0/cell/kernel",
        "export/variables/variables": "trainable_variables/0",
        "module/variables/variables": "_operations/1/cell/kernel",
        "new/ckpt-1": "model/_operations/1/cell/kernel",
        "slots/ckpt": "model/layer_with_weights-0/cell/kernel",
    },
    "bi/backward_lstm/lstm_cell/recurrent_kernel": {
        "weights/ckpt": "layer_with_weights-1/backward_layer/cell/recurrent_kernel",
        "light/variables/variables": "layer_with_weights-1/backward_layer/cell/recurrent_kernel",
        "module/variables/variables": "_operations/2/backward_layer/cell/recurrent_kernel",
        "new/ckpt-1": "model/_operations/2/backward_layer/cell/recurrent_kernel",
    },
    "stk/stacked_rnn_cells/lstm_cell_1/bias": {
        "weights/ckpt": "layer_with_weights-2/cell/cells/1/bias",
        "light/variables/variables": "layer_with_weights-2/cell/cells/1/bias",
        "module/variables/variables": "_operations/3/cell/cells/1/bias",
    },
}


def plain(full_name: str) -> str:
    """Drop the counters that a library appends to class names, as many as the process made."""
    return "/".join(re.sub(r"_\d+$", "", part) for part in full_name.split("/"))


@pytest.mark.parametrize(
    ("full_name", "name", "path"),
    [(full, name, path) for full, paths in CELLS.items() for name, path in paths.items()],
)
def test_paths_of_variables(written: Path, full_name: str, name: str, path: str) -> None:
    """Whatever the key, the graph leads from the role in a layer to the variable, and back."""
    graph = read_checkpoint(written / name).graph
    assert graph is not None
    node = graph.find(path)
    assert node is not None
    assert path in graph.paths(node)
    (attribute,) = graph.nodes[node].attributes
    assert graph.keys[attribute.key] == (node, attribute)
    assert plain(attribute.full_name) == plain(full_name)


def test_keys_need_not_tell_the_role(written: Path) -> None:
    """Of a traced SavedModel they are `variables/0`, of a Keras 3 optimizer's they are its own."""
    for name, key in (
        ("saved/variables/variables", "variables/0"),
        ("new/ckpt-1", "model/optimizer/_trainable_variables/0"),
    ):
        graph = read_checkpoint(written / name).graph
        assert graph is not None
        node, attribute = graph.keys[key + VALUE]
        assert plain(attribute.full_name) == "enc/lstm_cell/kernel"
        assert any(path.endswith("/cell/kernel") for path in graph.paths(node))


def test_slots_of_optimizers(written: Path) -> None:
    bundle = read_checkpoint(written / "slots" / "ckpt")
    assert bundle.graph is not None
    kernel = f"model/layer_with_weights-0/cell/kernel{VALUE}"
    slot = kernel.replace("/.ATTR", "/.OPTIMIZER_SLOT/optimizer/m/.ATTR")
    assert bundle.graph.slots[slot] == SlotOf(kernel, "m")
    assert bundle.tensors[slot].shape == bundle.tensors[kernel].shape
    assert kernel not in bundle.graph.slots
    assert len(bundle.graph.slots) == 6


def test_names_with_dots_and_slashes(tmp_path: Path) -> None:
    module = tf.Module()
    module.d = {"a/b.c": tf.Variable([1.0])}
    tf.train.Checkpoint(module).write(str(tmp_path / "x"))
    bundle = read_checkpoint(tmp_path / "x")
    assert bundle.graph is not None
    assert f"d/a.Sb..c{VALUE}" in bundle.tensors
    node = bundle.graph.find("d/a.Sb..c")
    assert node is not None
    assert bundle.graph.paths(node) == ("d/a.Sb..c",)


def test_a_variant_is_listed_and_not_read(tmp_path: Path) -> None:
    tf.train.Checkpoint(it=iter(tf.data.Dataset.range(3)), w=tf.Variable(1.0)).write(
        str(tmp_path / "x")
    )
    bundle = read_checkpoint(tmp_path / "x")
    assert set(bundle.unread.values()) <= {"variant"}
    assert bundle.tensors[f"w{VALUE}"].read() == 1


@pytest.mark.parametrize("name", ["saved", "light", "export", "module"])
def test_saved_models(written: Path, name: str) -> None:
    path = written / name
    assert is_saved_model(path)
    saved = read_saved_model(path)
    assert saved.tags == ("serve",)
    assert saved.tensorflow_version == tf.__version__
    assert {source.path for source in saved.sources} <= set(path.rglob("*"))
    assert bool(saved.keras) == (name in ("saved", "light"))
    variables = {one.variable.name for one in saved.objects if one.variable is not None}
    assert saved.bundle.graph is not None
    assert {one.full_name for _, one in saved.bundle.graph.keys.values()} <= variables


def test_metadata_of_keras_2(written: Path) -> None:
    saved = read_saved_model(written / "light")
    found = {one.path: one for one in saved.keras}
    layer = found["root.layer_with_weights-0"]
    assert layer.identifier == "_tf_keras_rnn_layer"
    facts = json.loads(layer.metadata)
    assert (facts["class_name"], facts["config"]["units"]) == ("LSTM", 4)
    assert "layer_with_weights-0" in saved.graph.paths(layer.node)
    root = json.loads(found["root"].metadata)
    assert root["keras_version"] == tf_keras.__version__
    assert len(root["model_config"]["config"]["layers"]) == 5


def test_metadata_inside_the_program(written: Path, tmp_path: Path) -> None:
    """TensorFlow 2.0 to 2.4 wrote the same texts into the objects of saved_model.pb."""
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(written / "light", tmp_path / "old")
    new = read_saved_model(tmp_path / "old").keras
    program = saved_model_pb2.SavedModel()
    program.ParseFromString((tmp_path / "old" / "saved_model.pb").read_bytes())
    nodes = program.meta_graphs[0].object_graph_def.nodes
    for one in new:
        nodes[one.node].user_object.identifier = one.identifier
        nodes[one.node].user_object.metadata = one.metadata
    (tmp_path / "old" / "saved_model.pb").write_bytes(program.SerializeToString())
    (tmp_path / "old" / "keras_metadata.pb").unlink()
    old = {one.node: one for one in read_saved_model(tmp_path / "old").keras}
    assert len(old) == len(new)
    for one in new:
        same = old[one.node]
        assert (same.identifier, same.metadata) == (one.identifier, one.metadata)
        assert saved_path(same.path) in {
            "",
            *read_saved_model(tmp_path / "old").graph.paths(one.node),
        }


def saved_path(dotted: str) -> str:
    return dotted.removeprefix("root").removeprefix(".").replace(".", "/")


def test_a_saved_model_without_its_program(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "saved" / "variables", tmp_path / "x" / "variables")
    saved = read_saved_model(tmp_path / "x")
    assert saved.objects == saved.keras == ()
    assert len(saved.bundle.tensors) == 3


def test_a_saved_model_without_variables(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "x"))
    shutil.rmtree(tmp_path / "x" / "variables")
    assert read_saved_model(tmp_path / "x").bundle.tensors == {}


def test_metadata_of_another_model(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "light", tmp_path / "x")
    shutil.copy(written / "module" / "saved_model.pb", tmp_path / "x")
    tf.saved_model.save(tf.Module(), str(tmp_path / "small"))
    shutil.copy(tmp_path / "small" / "saved_model.pb", tmp_path / "x")
    with pytest.raises(CorruptFile, match="does not have"):
        read_saved_model(tmp_path / "x")


def test_tensorflow_is_not_imported(written: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from lstmconvert.tensorflow.formats.savedmodel import read_saved_model\n"
        "model = read_saved_model(Path(sys.argv[1]))\n"
        "assert [t.read() for t in model.bundle.tensors.values()]\n"
        "found = {'tensorflow', 'keras', 'google', 'onnx', 'h5py'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    command = [sys.executable, "-c", code, str(written / "saved")]
    subprocess.run(command, check=True, cwd=ROOT)
