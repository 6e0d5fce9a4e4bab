"""frugally-deep's JSON is read. Its writer is a script over a live model: here its steps are taken
(keras_export/convert_model.py), on what a real model has."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import KERAS, SEED95, failure, run

import lstmconvert as lc
from lstmconvert.dtypes import Array


def encoded(array: Array) -> list[str]:
    text = base64.b64encode(np.ascontiguousarray(array, np.float32)).decode("ascii")
    return [text[place : place + 1024] for place in range(0, len(text), 1024)]


def exported(source: Path, path: Path) -> Path:
    model = lc.load(source)
    params: dict[str, Any] = {"dense": {"weights": encoded(np.ones(10)), "bias": []}}
    for layer in model.values():
        params[layer.name] = found = {}
        for side, _, cell in layer.cells():
            start = f"{side}_" if layer.backward else ""
            for role, name in (
                ("kernel", "weights"),
                ("recurrent_kernel", "recurrent_weights"),
                ("bias", "bias"),
            ):
                fused = [getattr(gate, role) for gate in cell.gates.values()]
                found[start + name] = encoded(np.concatenate(fused, axis=-1))
    config = {**json.loads(model.texts["model_config"]), "keras_version": "3.15.1"}
    path.write_text(json.dumps({"architecture": config, "trainable_params": params, "tests": []}))
    return path


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras"])
def test_it_is_read(source: Path, tmp_path: Path) -> None:
    path = exported(source, tmp_path / "x.json")
    model = lc.load(path)
    assert model.layout == "frugally-deep"
    report = lc.diff(source, model)
    assert report.layers
    assert all(report.layers)
    done = run("convert", path, tmp_path / "x.keras")
    assert done.code == 0, done.err
    assert "alone, not the whole model" in done.err


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(architecture=3),
        lambda v: v.update(trainable_params={}),
        lambda v: v["trainable_params"].update(lstm=3),
        lambda v: v["trainable_params"]["lstm"].update(weights=3),
        lambda v: v["trainable_params"]["lstm"].update(weights=["!"]),
        lambda v: v["trainable_params"]["lstm"].update(weights=["AAAA"]),
        lambda v: v["trainable_params"]["lstm"].update(weights=[None]),
        lambda v: v["trainable_params"]["lstm"].update(weights=[1.0] * 9),
        lambda v: v["trainable_params"]["lstm"].update(bias=[1.0] * 9),
        lambda v: v["trainable_params"]["lstm"].update(recurrent_weights=[]),
        lambda v: v["trainable_params"]["lstm"].pop("weights"),
    ],
)
def test_files_that_lie_are_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    path = exported(SEED95, tmp_path / "x.json")
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    failure("inspect", path)
