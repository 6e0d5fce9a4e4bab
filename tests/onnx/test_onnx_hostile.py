"""Every crafted ONNX file, under guard; and mutants, of which none may give an untyped error."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from support.crafted import FIXTURES, KERAS, SECRET, Bench, Craft
from support.crafted_onnx import CRAFTS
from support.jail import ROOT, Jail, Watch
from support.onnx_tools import node_model, weights
from support.thinned import rounds
from support.verdicts import check_bounds, check_refusal, lstm_numbers, numbers

import lstmconvert as lc
from lstmconvert.errors import LSTMConvertError
from lstmconvert.onnx import skeleton

MUTANTS = rounds(600)


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """A jail whose server has imported what honest ONNX files need."""
    folder = tmp_path_factory.mktemp("warm")
    given = weights(np.random.default_rng(0))
    nodes = [helper.make_node("Neg", ["negative"], ["out"])]
    model = node_model(
        given, nodes=nodes, inputs={"W": "out"}, initializers={"negative": -given.pop("W")}
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "sitecustomize.py").write_text(
        "import lstmconvert.onnx.write, onnx.inliner\n"
        f"lstmconvert.load({str(folder / 'model.onnx')!r})\n"
    )
    with Jail(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)])) as one:
        yield one


@pytest.mark.parametrize("craft", CRAFTS, ids=lambda craft: craft.name)
def test_crafted_onnx(craft: Craft, jail: Jail, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bench = Bench(folder, tmp_path / "victim", tmp_path / "sentinel")
    source = craft.make(bench)
    destination = tmp_path / "out" / "out.safetensors"
    destination.parent.mkdir()
    watches = [Watch(bench.victim)] if bench.victim.exists() else []

    run = jail.run("convert", source, destination, allow=[folder])

    opened = [watch.opened() for watch in watches]
    for watch in watches:
        watch.close()
    assert not any(opened)
    check_bounds(run)
    if craft.refused is None:
        assert run.code == 0, run
        assert list(lstm_numbers(destination).values()) == list(numbers().values())
        assert SECRET not in destination.read_bytes()
    else:
        check_refusal(run, craft.refused)
        assert os.listdir(destination.parent) == []


@pytest.mark.parametrize("fused", [False, True], ids=["gates", "fused"])
def test_mutants(fused: bool, tmp_path: Path) -> None:
    path = tmp_path / "mutant.onnx"
    lc.convert(FIXTURES / KERAS, path, fused=fused)
    valid, dice = path.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(MUTANTS):
        data = bytearray(valid)
        for _ in range(dice.choice((1, 1, 2, 8))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data[: dice.choice((len(data), dice.randrange(len(data))))])
        try:
            for layer in lc.load(path).layers:
                for _, _, cell in layer.cells():
                    for _, tensor in cell.tensors():
                        tensor.read()
        except LSTMConvertError:
            refused += 1
    assert MUTANTS // 4 < refused < MUTANTS


def test_every_truncation(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    lc.convert(FIXTURES / KERAS, path)
    valid = path.read_bytes()
    end = len(valid)
    for length in {*range(0, end, 61), *range(0, 300, 4), *range(end - 60, end, 4)}:
        path.write_bytes(valid[:length])
        with pytest.raises(LSTMConvertError):
            lc.load(path)


def test_names_of_axes_are_no_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The parts of a large graph are counted before they are made; its texts are not looked into.
    path = tmp_path / "x.onnx"
    lc.convert(FIXTURES / KERAS, path)
    model = onnx.load(path)
    axes = model.graph.input[0].type.tensor_type.shape.dim
    axes[0].dim_param, axes[0].denotation = "batch_size", "DATA_BATCH"
    onnx.save(model, path)
    monkeypatch.setattr(skeleton, "_UNCOUNTED", 0)
    assert lc.diff(FIXTURES / KERAS, path, weights_only=True)
