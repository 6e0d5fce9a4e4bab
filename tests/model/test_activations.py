"""Activations as JSON, and when they are equal."""

from __future__ import annotations

import json
import pickle

from lstmconvert.model.activations import KERAS2, KERAS3, Activation


def test_json_of_activations() -> None:
    for table in (KERAS2, KERAS3):
        for activation in table.values():
            text = json.dumps(activation.to_json())
            assert pickle.loads(pickle.dumps(activation)) == activation  # our own
            assert json.loads(text)["name"] == activation.name
    assert KERAS2["hard_sigmoid"] != KERAS3["hard_sigmoid"]
    assert {KERAS2["tanh"], KERAS3["tanh"]} == {Activation("tanh")}
