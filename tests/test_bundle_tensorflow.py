"""Checkpoints and SavedModels that TensorFlow itself wrote, now or long ago, read without it.

The oracle is TensorFlow's own reader: every tensor must have its bits.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstmconvert.dtypes import same_bits
from lstmconvert.errors import CorruptFile, LSTMConvertError, NotAModel, SourceError
from lstmconvert.tensorflow.bundle import Bundle
from lstmconvert.tensorflow.checkpoint import read_checkpoint
from lstmconvert.tensorflow.objectgraph import SlotOf
from lstmconvert.tensorflow.savedmodel import is_saved_model, read_saved_model

ROOT = Path(__file__).parents[1]
FIXTURES = sorted(ROOT.glob("fixtures/*/**/*.index"))
CORPUS = ROOT.parent / "shared" / "corpus"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
DTYPES = "float64 float32 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
V1_DTYPES = "float64 float32 float16 int8 int16 int32 int64 uint8 bool complex64 complex128"

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")
keras = pytest.importorskip("keras")


def assert_as_tensorflow_reads(bundle: Bundle, prefix: Path) -> None:
    """Compare keys, dtypes, shapes and bits; partitioned variables come from RestoreV2 only."""
    reader = tf.train.load_checkpoint(str(prefix))
    dtypes = reader.get_variable_to_dtype_map()
    assert {*bundle.tensors, *bundle.strings, *bundle.unread} == set(dtypes)
    assert list(bundle.tensors) == sorted(bundle.tensors)
    bundle.check_large()
    for key, tensor in bundle.tensors.items():
        restored = tf.raw_ops.RestoreV2(
            prefix=str(prefix), tensor_names=[key], shape_and_slices=[""], dtypes=[dtypes[key]]
        )
        assert same_bits(tensor.read(), restored[0].numpy()), key
        assert (tensor.shape, tensor.dtype) == (tensor.read().shape, tensor.read().dtype)
    for key, strings in bundle.strings.items():
        expected = np.asarray(reader.get_tensor(key), dtype=object).reshape(-1).tolist()
        assert list(strings.read()) == expected


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
    old.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    old.fit(np.zeros((1, 2, 3)), np.zeros((1, 2)), verbose=0)
    tf.train.Checkpoint(model=old, optimizer=old.optimizer).write(str(root / "slots" / "ckpt"))
    return root


def session(path: Path, build: Callable[[], object], version: int, **options: Any) -> Path:
    """Save the variables of a TF1 graph."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as running:
        build()
        running.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=version, **options)
        return Path(saver.save(running, str(path), write_meta_graph=False))


def sample(dtype: str) -> Any:
    numbers = np.array([[0, 1, 2], [3, 4, 100]]).astype(getattr(tf, dtype).as_numpy_dtype)
    return tf.compat.v1.get_variable(dtype, initializer=numbers)


def partitioned(dtype: str = "float32") -> None:
    """Variables in pieces of rows, of columns, of a vector."""
    v1 = tf.compat.v1
    for name, axis, shape in (("rows", 0, [7, 3]), ("columns", 2, [2, 3, 5]), ("vector", 0, [5])):
        cut = v1.fixed_size_partitioner(3, axis=axis)
        with v1.variable_scope(name, partitioner=cut):
            start = v1.random_normal_initializer(seed=1)
            v1.get_variable("x", shape, getattr(tf, dtype), initializer=start)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: str(path.relative_to(ROOT)))
def test_fixtures(path: Path) -> None:
    bundle = read_checkpoint(path)
    assert_as_tensorflow_reads(bundle, path.with_suffix(""))
    assert (bundle.graph is None) == ("-cells" in str(path))
    if bundle.graph is not None:
        assert set(bundle.graph.keys) == set(bundle.tensors)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not here")
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
    """Drop the counters that a library appends to class names during a process."""
    return "/".join(
        part if part.startswith("lstm_cell_1") else part.removesuffix("_1").removesuffix("_2")
        for part in full_name.split("/")
    )


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
    if "cell_1" not in full_name:
        assert plain(attribute.full_name) == full_name


def test_keys_need_not_tell_the_role(written: Path) -> None:
    """Of a traced SavedModel they are `variables/0`, of a Keras 3 optimizer's they are its own."""
    for name, key in (
        ("saved/variables/variables", "variables/0"),
        ("new/ckpt-1", "model/optimizer/_trainable_variables/0"),
    ):
        graph = read_checkpoint(written / name).graph
        assert graph is not None
        node, attribute = graph.keys[key + VALUE]
        assert attribute.full_name == "enc/lstm_cell/kernel"
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


def test_every_dtype(tmp_path: Path) -> None:
    def build() -> None:
        for dtype in (*DTYPES.split(), "complex64", "complex128"):
            sample(dtype)
        v1 = tf.compat.v1
        v1.get_variable("text", initializer=np.array([[b"a", b""], [b"long" * 99, b"\xff"]]))
        v1.get_variable("scalar", initializer=-0.0)
        v1.get_variable("empty", initializer=np.zeros((0, 3), "f4"))
        v1.get_variable("nan", initializer=np.array([0x7FC12345], "<u4").view("<f4"))

    prefix = session(tmp_path / "x", build, 2)
    bundle = read_checkpoint(prefix)
    assert_as_tensorflow_reads(bundle, prefix)
    assert len(bundle.tensors) == 18
    assert bundle.strings["text"].shape == (2, 2)


def test_a_variant_is_listed_and_not_read(tmp_path: Path) -> None:
    tf.train.Checkpoint(it=iter(tf.data.Dataset.range(3)), w=tf.Variable(1.0)).write(
        str(tmp_path / "x")
    )
    bundle = read_checkpoint(tmp_path / "x")
    assert set(bundle.unread.values()) <= {"variant"}
    assert bundle.tensors[f"w{VALUE}"].read() == 1


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("sharded", [False, True])
def test_partitioned_variables(tmp_path: Path, version: int, sharded: bool) -> None:
    def build() -> None:
        partitioned()
        for dtype in V1_DTYPES.split():
            sample(dtype)

    saved = session(tmp_path / "x", build, version, sharded=sharded)
    path = saved.with_name("x-00000-of-00001") if sharded and version == 1 else saved
    bundle = read_checkpoint(path)
    assert_as_tensorflow_reads(bundle, saved)
    assert bundle.tensors["rows/x"].shape == (7, 3)
    for tensor in bundle.tensors.values():
        whole = tensor.read().reshape(tensor.matrix_shape)
        for start, stop in tensor.slabs(13):
            assert same_bits(tensor.rows(start, stop), whole[start:stop])


def test_shards_of_two_devices(tmp_path: Path) -> None:
    """A sharded save has a data file for each device; TensorFlow merges the indexes."""

    def build() -> None:
        for index in range(2):
            with tf.device(f"/cpu:{index}"):
                tf.compat.v1.get_variable(f"v{index}", initializer=[float(index), 2.0])

    v1 = tf.compat.v1
    config = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), v1.Session(config=config) as running:
        build()
        running.run(v1.global_variables_initializer())
        saver = v1.train.Saver(sharded=True)
        saver.save(running, str(tmp_path / "x"), write_meta_graph=False)
    names = {path.name for path in tmp_path.glob("x.data*")}
    assert names == {"x.data-00000-of-00002", "x.data-00001-of-00002"}
    (tmp_path / "x.data-00000-of-00001").write_bytes(b"a leftover of an earlier save")
    bundle = read_checkpoint(tmp_path / "x")
    assert_as_tensorflow_reads(bundle, tmp_path / "x")
    assert {path.name for path in bundle.files} == {"x.index", *names}
    (tmp_path / "x.data-00001-of-00002").unlink()
    with pytest.raises(SourceError) as caught:
        read_checkpoint(tmp_path / "x")
    assert "copy them together" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["saved", "light", "export", "module"])
def test_saved_models(written: Path, name: str) -> None:
    path = written / name
    assert is_saved_model(path)
    saved = read_saved_model(path)
    assert saved.tags == ("serve",)
    assert saved.tensorflow_version == tf.__version__
    assert set(saved.files) <= {file for file in path.rglob("*") if file.is_file()}
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


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_what_names_a_checkpoint(written: Path, suffix: str) -> None:
    bundle = read_checkpoint(written / "weights" / f"ckpt{suffix}")
    assert bundle.path == written / "weights" / "ckpt"


def state(directory: Path, text: str) -> Path:
    (directory / "checkpoint").write_text(text)
    return directory


def copy(written: Path, directory: Path, *names: str) -> Path:
    for name in names:
        for file in (written / "weights").glob("ckpt.*"):
            shutil.copy(file, directory / file.name.replace("ckpt", name))
    return directory


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "a-1"\nall_model_checkpoint_paths: "b"\n',
        'all_model_checkpoint_paths: "b"\nmodel_checkpoint_path: "a-1"\n',
        r'model_checkpoint_path: "\141-1"',
        'model_checkpoint_path: "/home/somebody/elsewhere/a-1"',
        'model_checkpoint_path: "C:\\\\models\\\\a-1"',
    ],
)
def test_a_directory_names_its_newest(written: Path, tmp_path: Path, text: str) -> None:
    copy(written, tmp_path, "a-1", "b")
    state(tmp_path, text)
    assert read_checkpoint(tmp_path).path == tmp_path / "a-1"
    assert read_checkpoint(tmp_path / "checkpoint").path == tmp_path / "a-1"


@pytest.mark.parametrize(
    "path", ["../up/ckpt", "sub/ckpt", "/etc/passwd", "..", "", "gone", "a\\000b", "a" * 5000]
)
def test_a_directory_names_nothing_elsewhere(written: Path, tmp_path: Path, path: str) -> None:
    for name in ("up", "here", "here/sub"):
        (tmp_path / name).mkdir()
        copy(written, tmp_path / name, "ckpt")
    state(tmp_path / "here", f'model_checkpoint_path: "{path}"\n')
    with pytest.raises(CorruptFile, match="not in its own directory"):
        read_checkpoint(tmp_path / "here")


def test_a_directory_without_a_state_file(written: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="holds no checkpoint"):
        read_checkpoint(tmp_path)
    assert read_checkpoint(copy(written, tmp_path, "a")).path == tmp_path / "a"
    with pytest.raises(NotAModel, match=r"several checkpoints; found a\.index, b\.index"):
        read_checkpoint(copy(written, tmp_path, "b"))
    with pytest.raises(NotAModel, match="names no checkpoint"):
        read_checkpoint(state(tmp_path, "nothing"))


@pytest.mark.parametrize("name", ["no", "no.index", "x.txt"])
def test_no_checkpoint(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(LSTMConvertError):
        read_checkpoint(tmp_path / name)
    with pytest.raises(NotAModel):
        read_saved_model(tmp_path)


def test_tensorflow_is_not_imported(written: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from lstmconvert.tensorflow.savedmodel import read_saved_model\n"
        "model = read_saved_model(Path(sys.argv[1]))\n"
        "assert [t.read() for t in model.bundle.tensors.values()]\n"
        "found = {'tensorflow', 'keras', 'google', 'onnx', 'h5py'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    command = [sys.executable, "-c", code, str(written / "saved")]
    subprocess.run(command, check=True, cwd=ROOT)
