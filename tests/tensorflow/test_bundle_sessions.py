"""Checkpoints of TF1 sessions: both formats, every dtype, partitions, shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundleoracle import assert_as_tensorflow_reads, tf

from lstmconvert.errors import SourceError
from lstmconvert.tensorflow.formats.checkpoint import read_checkpoint
from lstmconvert.tensors.dtypes import same_bits

pytestmark = pytest.mark.engines

FIXTURES = Path(__file__).parents[2] / "fixtures"
DTYPES = "float64 float32 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
V1_DTYPES = "float64 float32 float16 int8 int16 int32 int64 uint8 bool complex64 complex128"


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


def test_a_v1_fixture() -> None:
    folder = FIXTURES / "tf-1.15.5-cells" / "lstm.v1"
    bundle = read_checkpoint(folder)
    assert bundle.path == folder / "model.ckpt"
    assert_as_tensorflow_reads(bundle, bundle.path)
    assert bundle.tensors


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


def save_on_two_devices(prefix: Path, version: int) -> None:
    """A sharded save has a file for each device; TensorFlow merges the indexes of V2."""
    v1 = tf.compat.v1
    config = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), v1.Session(config=config) as running:
        for index in range(2):
            with tf.device(f"/cpu:{index}"):
                v1.get_variable(f"v{index}", initializer=[float(index), 2.0])
        running.run(v1.global_variables_initializer())
        saver = v1.train.Saver(sharded=True, write_version=version)
        saver.save(running, str(prefix), write_meta_graph=False)


def test_shards_of_v1(tmp_path: Path) -> None:
    save_on_two_devices(tmp_path / "x", 1)
    bundle = read_checkpoint(tmp_path / "x-00001-of-00002")
    assert {key: tensor.read().tolist() for key, tensor in bundle.tensors.items()} == {
        "v0": [0, 2],
        "v1": [1, 2],
    }
    (tmp_path / "x-00000-of-00002").unlink()
    with pytest.raises(SourceError, match="No such file"):
        read_checkpoint(tmp_path / "x-00001-of-00002")


def test_shards_of_v2(tmp_path: Path) -> None:
    save_on_two_devices(tmp_path / "x", 2)
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
