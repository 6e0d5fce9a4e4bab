"""Objects in a Keras config, under their names of today."""

from __future__ import annotations

import pytest

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs import options, values
from lstmconvert.keras.configs.era import Era
from lstmconvert.model.options import UNKNOWN


def test_one_penalty_of_every_keras_has_one_name() -> None:
    """Keras 1's names and keywords are read as today's, so that `diff` sees one option."""
    today = values.object_spec({"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.1}}, "x")
    for name in ("WeightRegularizer", "L1L2Regularizer", "l1l2"):
        assert values.object_spec({"name": name, "l1": 0.0, "l2": 0.1}, "x") == today
    norm = values.object_spec({"name": "maxnorm", "m": 2}, "x")
    assert norm == {"class_name": "MaxNorm", "config": {"max_value": 2}}
    own = {"class_name": "Own", "config": {"m": 2}, "registered_name": "mine>Own"}
    assert (values.object_spec(own, "x") or {})["config"] == {"m": 2}


def test_layers_of_the_same_options_share_them_and_no_others_do() -> None:
    """1, 1.0 and True are equal in Python, and are not the same option."""
    era = Era("keras3", "3.15.1")

    def read(**config: object) -> options.CellOptions:
        return options.cell_options({"units": 2, **config}, era, "x")

    assert read(seed=1, name="a") is read(seed=1, name="b")
    assert read(seed=1) is not read(seed=2)
    with pytest.raises(CorruptFile):
        read(seed=True)
    assert read(dropout=-0.0) is not read(dropout=0.0)
    older = options.cell_options({"units": 2, "seed": 1}, Era("keras1"), "x")
    assert older.recurrent_activation != read(seed=1).recurrent_activation
    known = read(seed=1)
    assert options.changed(known, "policy", "float16").policy == "float16"
    assert options.changed(known, "seed", 1) is known
    assert known.policy is UNKNOWN
