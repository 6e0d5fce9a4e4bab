"""The layers beside the LSTMs: named by the config, whatever kind of file holds them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert.errors import UnknownLayer

FIXTURES = Path(__file__).parents[2] / "fixtures"
CONFIG = FIXTURES / "keras-3.15.1/seed95.keras"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("keras-1.2.2/seed95.h5", {}),
        ("keras-2.1.6/seed95.h5", {}),
        ("keras-3.15.1/seed95.keras", {}),
        ("keras-3.15.1/seed95.weights.h5", {"config": CONFIG}),
        ("tf-2.15.1/seed95.savedmodel", {}),
        ("tf-2.15.1/seed95.weights-only.h5", {"config": FIXTURES / "tf-2.15.1/seed95.h5"}),
        ("tf_keras-2.21.0/seed95.tf_weights", {"config": FIXTURES / "tf_keras-2.21.0/seed95.h5"}),
    ],
)
def test_a_head_has_its_names_in_every_kind_of_file(name: str, options: dict[str, Path]) -> None:
    model = lc.load(FIXTURES / name, **options)
    (head,) = (item for item in model.neighbours.values() if item.parameters)
    assert (head.class_name, head.inputs, head.outputs, head.parameters) == ("Dense", 2, 5, 15)
    assert head.kernel.shape == (2, 5)
    assert head.is_named
    for role, paths in head.paths.items():
        (path,) = paths  # the storage path stays
        np.testing.assert_array_equal(model.other[path].read(), head[role])


def test_no_config_no_names() -> None:
    model = lc.load(FIXTURES / "keras-3.15.1/seed95.weights.h5")
    assert model.neighbours == {}
    assert model.other


def test_a_class_that_is_unknown_keeps_its_tensors_by_their_paths() -> None:
    layer = lc.load(FIXTURES / "keras-3.15.1/custom.keras").neighbours["scaled_lstm"]
    assert not layer.is_named
    assert "layers/scaled_lstm/vars/0" in layer.unnamed


def test_neighbours_survive_a_file_of_ours_and_a_pickle(tmp_path: Path) -> None:
    model = lc.load(FIXTURES / "keras-3.15.1/zoo.keras")
    lc.save(model, tmp_path / "a.safetensors")
    again = lc.load(tmp_path / "a.safetensors")
    pickled = pickle.loads(pickle.dumps(model))
    assert model.neighbours
    for other in (again, pickled):
        assert [repr(x) for x in other.neighbours.values()] == [
            repr(x) for x in model.neighbours.values()
        ]


def test_a_weight_that_is_not_there_is_refused_by_name() -> None:
    head = lc.load(CONFIG).neighbours["dense"]
    with pytest.raises(UnknownLayer, match="dense"):
        head["alpha"]
    with pytest.raises(AttributeError):
        head.alpha  # noqa: B018
