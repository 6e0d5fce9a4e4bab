"""Weights and configs as Keras 0.x wrote them: Keras 1's fixtures, put into its form.

Keras 0.x does not run here. Its `save_weights` (keras/models.py of Keras 0.3) numbers layers and
weights and names none; its arrays and their order are Keras 1's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert.errors import LSTMConvertError
from lstmconvert.tensors.dtypes import same_bits

pytestmark = pytest.mark.engines

FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "keras-1.2.2"
CONFIG = {
    "name": "Sequential",
    "loss": "mse",
    "optimizer": {"name": "SGD"},
    "layers": [
        {"name": "LSTM", "output_dim": 2, "input_dim": 7, "init": "glorot_uniform",
         "inner_init": "orthogonal", "forget_bias_init": "one", "activation": "tanh",
         "inner_activation": "hard_sigmoid", "return_sequences": False, "truncate_gradient": -1},
        {"name": "Dropout", "p": 0.5},
        {"name": "Dense", "output_dim": 5, "init": "glorot_uniform", "activation": "linear"},
    ],
}  # fmt: skip


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.h5"
    with h5py.File(FIXTURES / "seed95.h5") as source, h5py.File(path, "w") as target:
        weights = source["model_weights"]
        groups = [weights[name] for name in weights.attrs["layer_names"]]
        held = [[group[name][()] for name in group.attrs["weight_names"]] for group in groups]
        arrays: list[Any] = [each for each in held if each]
        arrays.insert(1, [])  # the Dropout's
        target.attrs["nb_layers"] = len(arrays)
        for index, each in enumerate(arrays):
            group = target.create_group(f"layer_{index}")
            group.attrs["nb_params"] = len(each)
            for number, array in enumerate(each):
                group[f"param_{number}"] = array
    return path


def test_weights_without_names(old: Path) -> None:
    (found,) = lc.load(old).layers
    (wanted,) = lc.load(FIXTURES / "seed95.h5").layers
    assert found.name == "layer_0"
    for (name, one), (_, other) in zip(found.cell.tensors(), wanted.cell.tensors(), strict=True):
        assert same_bits(one.read(), other.read()), name
    assert sorted(lc.load(old).other) == ["layer_2/param_0", "layer_2/param_1"]


def test_a_config_whose_name_is_a_class(old: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    assert lc.convert(old, tmp_path / "today.keras", config=config).whole_model
    model = keras.models.load_model(tmp_path / "today.keras")
    record = np.load(FIXTURES / "seed95.io.npz")
    np.testing.assert_allclose(model(record["x0"]), record["y0"], rtol=0, atol=1e-6)


def test_a_weight_is_missing(old: Path) -> None:
    with h5py.File(old, "r+") as file:
        del file["layer_0/param_3"]
    with pytest.raises(LSTMConvertError, match="not one that Keras wrote"):
        lc.load(old)
