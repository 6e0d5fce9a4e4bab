"""TensorFlow.js, in Node, loads our model.json and runs it; its own files come back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import KERAS, SEED95, failure, run
from support.foreign import TFJS, installed
from support.layout_tools import SINGLE, case, close
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.model.activations import Activation
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import Array, same_bits

pytestmark = pytest.mark.engines  # the cases are layers of Keras

#: Loads each model, runs it on x, and saves it as TensorFlow.js itself does, in two shards.
SCRIPT = """
const tf = require(process.argv[2]), fs = require('fs');
const names = JSON.parse(fs.readFileSync('cases.json'));
async function main() {
  await tf.setBackend('cpu');
  const answers = {};
  for (const [name, x] of Object.entries(names)) {
    const json = JSON.parse(fs.readFileSync(name + '.json'));
    const group = json.weightsManifest[0];
    const data = Buffer.concat(group.paths.map((path) => fs.readFileSync(path)));
    const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
    const model = await tf.loadLayersModel(tf.io.fromMemory({
      modelTopology: json.modelTopology, weightSpecs: group.weights, weightData: bytes}));
    let y = model.predict(tf.tensor(x));
    answers[name] = (Array.isArray(y) ? y[0] : y).arraySync();
    await model.save(tf.io.withSaveHandler(async (found) => {
      const whole = Buffer.from(found.weightData), half = 10;
      const shards = [1, 2].map((n) => `${name}-group1-shard${n}of2.bin`);
      fs.writeFileSync(shards[0], whole.subarray(0, half));
      fs.writeFileSync(shards[1], whole.subarray(half));
      fs.writeFileSync(name + '.own.json', JSON.stringify({
        modelTopology: found.modelTopology, format: found.format, generatedBy: found.generatedBy,
        convertedBy: null, weightsManifest: [{paths: shards, weights: found.weightSpecs}]}));
      return {modelArtifactsInfo: {dateSaved: new Date(0), modelTopologyType: 'JSON'}};
    }));
  }
  fs.writeFileSync('answers.json', JSON.stringify(answers));
}
main().catch((error) => { console.error(error); process.exit(1); });
"""
X = np.random.default_rng(4).normal(size=(3, 6, 5)).astype(np.float32)


def cell(seed: int, **options: Any) -> Any:
    return make_cell(np.random.default_rng(seed), 5, 4, **options)


def special() -> dict[str, LSTMLayer]:
    """Options that other frameworks do not have, and TensorFlow.js has."""
    hard = Activation("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5)))
    functions = {"activation": Activation("softsign"), "recurrent_activation": hard}
    both = make_layer(cell(2), cell(3), return_sequences=False)
    return {
        "functions": make_layer(cell(1, **functions), return_sequences=True),
        "backwards": make_layer(cell(1), go_backwards=True, return_sequences=True),
        "last": make_layer(cell(1), return_sequences=False),
        "sum": replace(both, options=replace(both.options, merge_mode="sum")),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = installed(*TFJS)
    folder, inputs = tmp_path_factory.mktemp("tfjs"), {}
    for name in SINGLE:
        lc.save(case(name).layer, folder / f"{name}.json", layout="tfjs")
        inputs[name] = case(name).x.tolist()
    for name, layer in special().items():
        lc.save(layer, folder / f"{name}.json", layout="tfjs", bare=True)
        inputs[name] = X.tolist()
    (folder / "cases.json").write_text(json.dumps(inputs))
    (folder / "run.js").write_text(SCRIPT)
    done = subprocess.run(
        ["node", "run.js", str(package)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "NODE_OPTIONS": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def answer(folder: Path, name: str) -> Array:
    return np.array(json.loads((folder / "answers.json").read_text())[name], np.float32)


@pytest.mark.parametrize("name", SINGLE)
def test_tfjs(name: str, folder: Path) -> None:
    close(answer(folder, name), case(name).y)


@pytest.mark.parametrize("name", special())
def test_options(name: str, folder: Path) -> None:
    close(answer(folder, name), reference.run(special()[name], X).outputs[0])


@pytest.mark.parametrize("name", [*SINGLE, *special()])
def test_its_own_files_come_back(name: str, folder: Path) -> None:
    layer = special().get(name) or case(name).layer
    (found,) = lc.load(folder / f"{name}.own.json").values()
    for (_, _, one), (_, _, two) in zip(found.cells(), layer.cells(), strict=True):
        for part, tensor in two.tensors():
            assert same_bits(dict(one.tensors())[part].read(), tensor.read())
        assert one.options.activation == two.options.activation
        assert one.options.recurrent_activation == two.options.recurrent_activation
    assert found.forward.options.return_sequences == layer.forward.options.return_sequences
    assert found.forward.options.go_backwards == layer.forward.options.go_backwards


def test_its_own_file_becomes_a_whole_keras_model(folder: Path, tmp_path: Path) -> None:
    assert run("inspect", folder / "bidirectional.own.json").code == 0
    done = run("convert", folder / "bidirectional.own.json", tmp_path / "x.keras")
    assert done.code == 0, done.err
    assert lc.diff(folder / "bidirectional.own.json", tmp_path / "x.keras", weights_only=True)


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras"])
@pytest.mark.parametrize("bare", [False, True])
def test_every_option_comes_back(source: Path, bare: bool, tmp_path: Path) -> None:
    lc.convert(source, tmp_path / "model.json", layout="tfjs", bare=bare)
    report = lc.diff(source, tmp_path / "model.json")
    assert report.layers
    assert all(report.layers)
    assert not any(layer.unknown for layer in report.layers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.json"]


def test_what_it_cannot_express(tmp_path: Path) -> None:
    odd = {
        "dtype": make_layer(cell(1, dtype="float64")),
        "activation": make_layer(cell(1, activation=Activation("exponential"))),
        "recurrent_activation": make_layer(
            cell(1), cell(1, recurrent_activation=Activation("tanh"))
        ),
        "cells": make_layer([cell(1), make_cell(np.random.default_rng(1), 4, 2)]),
    }
    for option, layer in odd.items():
        with pytest.raises(lc.LSTMConvertError) as caught:
            lc.save(layer, tmp_path / "x.json", layout="tfjs")
        assert getattr(caught.value, "option", None) == option
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["weightsManifest"].append(3),
        lambda v: v["weightsManifest"][0].update(paths=[3]),
        lambda v: v["weightsManifest"][0].update(paths=["../x.bin"]),
        lambda v: v["weightsManifest"][0].update(paths=["/etc/passwd"]),
        lambda v: v["weightsManifest"][0].update(paths=["https://example.com/x.bin"]),
        lambda v: v["weightsManifest"][0].update(paths=["y.bin"]),
        lambda v: v["weightsManifest"][0].update(paths=[]),
        lambda v: v["weightsManifest"][0]["weights"].append(3),
        lambda v: v["weightsManifest"][0]["weights"][0].update(shape=[1 << 50]),
        lambda v: v["weightsManifest"][0]["weights"][0].update(shape=[-1]),
        lambda v: v["weightsManifest"][0]["weights"][0].update(shape=[True]),
        lambda v: v["weightsManifest"][0]["weights"][0].update(shape=[70, 80]),
        lambda v: v["weightsManifest"][0]["weights"][0].update(dtype="string"),
        lambda v: v["weightsManifest"][0]["weights"][0].update(quantization={}),
        lambda v: v["weightsManifest"][0]["weights"][1].update(name="lstm/kernel"),
        lambda v: v.update(modelTopology={"node": []}, userDefinedMetadata={}),
        lambda v: v.update(modelTopology=3, userDefinedMetadata=3),
        lambda v: v["weightsManifest"].clear(),
    ],
)
def test_files_that_lie_are_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.json", layout="tfjs")
    value = json.loads((tmp_path / "x.json").read_text())
    change(value)
    (tmp_path / "x.json").write_text(json.dumps(value))
    failure("inspect", tmp_path / "x.json")
