"""TensorFlow's own reader of checkpoints, as the judge of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lstmconvert.tensorflow.formats.checkpoint import Bundle
from lstmconvert.tensors.dtypes import same_bits

tf = pytest.importorskip("tensorflow")


def assert_as_tensorflow_reads(bundle: Bundle, prefix: Path) -> None:
    """Compare keys, dtypes, shapes and bits; partitioned variables come from RestoreV2 only."""
    reader = tf.train.load_checkpoint(str(prefix))
    dtypes = reader.get_variable_to_dtype_map()
    assert {*bundle.tensors, *bundle.strings, *bundle.unread} == set(dtypes)
    assert list(bundle.tensors) == sorted(bundle.tensors)
    for key, tensor in bundle.tensors.items():
        restored = tf.raw_ops.RestoreV2(
            prefix=str(prefix), tensor_names=[key], shape_and_slices=[""], dtypes=[dtypes[key]]
        )
        assert same_bits(tensor.read(), restored[0].numpy()), key
        assert (tensor.shape, tensor.dtype) == (tensor.read().shape, tensor.read().dtype)
    for key, strings in bundle.strings.items():
        expected = np.asarray(reader.get_tensor(key), dtype=object).reshape(-1).tolist()
        assert list(strings.read()) == expected
