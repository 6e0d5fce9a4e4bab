"""LiteRT runs our `.tflite`; tf_keras's, by TensorFlow's own converter, is read back."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cli import FIXTURES, KERAS, SEED95, failure, run
from support.foreign import answers
from support.layout_tools import SINGLE, case, close
from support.neutral import make_cell, make_layer
from support.thinned import rounds

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array, same_bits

RUN = """
    from ai_edge_litert.interpreter import Interpreter

    for name, arrays in cases.items():
        engine, outputs = Interpreter(f"{name}.tflite", num_threads=1), []
        place = engine.get_input_details()[0]["index"]
        for sequence in arrays["x"]:
            engine.resize_tensor_input(place, (1, *sequence.shape))
            engine.allocate_tensors()
            engine.reset_all_variables()
            engine.set_tensor(place, sequence[None])
            engine.invoke()
            outputs.append(engine.get_tensor(engine.get_output_details()[0]["index"])[0])
        answers[name] = np.stack(outputs)
"""
X = np.random.default_rng(4).normal(size=(3, 6, 5)).astype(np.float32)


def special() -> dict[str, LSTMLayer]:
    """What Keras has no layers for and the operator has a place; and layers that give one step."""
    rng = np.random.default_rng(8)
    parts = ("bias", "peephole")
    made = {
        "clipped": make_cell(rng, 5, 4, cell_clip=0.2),
        "projected": make_cell(rng, 5, 4, projected=2, projection_clip=0.1),
        "peepholes": make_cell(rng, 5, 4, gate_parts=parts),
    }
    layers = {name: make_layer(cell, return_sequences=True) for name, cell in made.items()}
    cells = [make_cell(rng, 5, 3), make_cell(rng, 3, 2)]
    return {
        **layers,
        "cells": make_layer(cells, return_sequences=True),
        "last": make_layer(make_cell(rng, 5, 3)),
        "last-of-cells": make_layer([make_cell(rng, 5, 3), make_cell(rng, 3, 2)]),
        "last-of-both": make_layer(make_cell(rng, 5, 3), make_cell(rng, 5, 2)),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    folder, given = tmp_path_factory.mktemp("tflite"), {}
    for name in SINGLE:
        lc.save(case(name).layer, folder / f"{name}.tflite")
        given[name] = {"x": case(name).x}
    for name, layer in special().items():
        lc.save(layer, folder / f"{name}.tflite")
        given[name] = {"x": X}
    return answers(RUN, given, folder)


@pytest.mark.engines
@pytest.mark.parametrize("name", SINGLE)
def test_tflite(name: str, found: dict[str, Array]) -> None:
    close(found[name], case(name).y)


@pytest.mark.engines
@pytest.mark.parametrize("name", special())
def test_layers_made_by_hand(name: str, found: dict[str, Array]) -> None:
    close(found[name], reference.run(special()[name], X).outputs[0])


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras", KERAS / "rnn_stack.keras"])
def test_every_option_comes_back(source: Path, tmp_path: Path) -> None:
    lc.convert(source, tmp_path / "x.tflite", allow_lossy=True)
    report = lc.diff(source, tmp_path / "x.tflite")
    assert report.layers
    assert all(report.layers)
    before = (tmp_path / "x.tflite").read_bytes()
    lc.convert(source, tmp_path / "x.tflite", allow_lossy=True, force=True)
    assert (tmp_path / "x.tflite").read_bytes() == before


def test_several_layers_and_bare(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = tuple(make_layer(make_cell(rng, 3, 2), name=name) for name in "ab")
    model = Model(layers=layers, source=Source(container="live"), container="live")
    lc.save(model, tmp_path / "x.tflite")
    assert list(lc.load(tmp_path / "x.tflite")) == ["a", "b"]
    lc.save(layers[0], tmp_path / "y.tflite", bare=True)
    assert lc.diff(layers_model(layers[0]), tmp_path / "y.tflite").layers


def layers_model(layer: LSTMLayer) -> Model:
    return Model(layers=(layer,), source=Source(container="live"), container="live")


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, dtype="float64"))
    with pytest.raises(lc.LSTMConvertError, match="cannot express dtype; found float64"):
        lc.save(layer, tmp_path / "x.tflite")
    assert not list(tmp_path.iterdir())


# ---- files of TensorFlow's converter ------------------------------------------------------------


WRITTEN = FIXTURES / "tflite-2.21.0"


@pytest.mark.parametrize("name", ["both_last", "both_last.float16"])
def test_tensorflows_own_file_is_read(name: str) -> None:
    model = lc.load(WRITTEN / f"{name}.tflite")
    assert (list(model), model.layout, model.container) == (["lstm", "lstm_1"], "tflite", "tflite")
    dtype = np.float16 if "16" in name else np.float32
    cells = [cell for layer in model.values() for _, _, cell in layer.cells()]
    with np.load(WRITTEN / "both_last.io.npz") as found:
        weights = [found[f"w{number}"].astype(dtype) for number in range(9)]
    for number, cell in enumerate(cells):
        kernel, recurrent, bias = weights[3 * number : 3 * number + 3]
        for index, gate in enumerate(cell.gates.values()):
            columns = slice(index * cell.units, (index + 1) * cell.units)
            assert same_bits(gate.kernel, kernel[:, columns])
            assert same_bits(gate.recurrent_kernel, recurrent[:, columns])
            assert same_bits(gate.bias, bias[columns])


def test_it_answers_as_the_keras_model_did() -> None:
    model = lc.load(WRITTEN / "both_last.tflite", settings=["return_sequences=true"])
    with np.load(WRITTEN / "both_last.io.npz") as found:
        y, wanted, kernel, bias = (found[key] for key in ("x0", "y0", "w9", "w10"))
    for layer in model.values():
        options = replace(
            layer.forward.options, stateful=False, return_state=False, zero_output_for_mask=False
        )
        halves = {s: replace(d, options=replace(options, go_backwards=s == "backward"))
                  for s, d in layer.directions}
        layer = replace(layer, forward=halves["forward"], backward=halves.get("backward"))
        y = reference.run(layer, y).outputs[0]
    close(y[:, -1] @ kernel + bias, wanted)


def test_the_clip_that_the_converter_adds_is_no_secret(tmp_path: Path) -> None:
    """TensorFlow's converter writes cell_clip 10, whatever the layer did."""
    path = WRITTEN / "both_last.tflite"
    assert lc.load(path)["lstm_1"].cell.options.cell_clip == 10.0
    error, _ = failure("convert", path, tmp_path / "x.keras")
    assert "cell_clip" in error
    done = run("convert", path, tmp_path / "x.keras", "--allow-lossy")
    assert done.code == 0
    assert "cell_clip" in done.err
    assert run("convert", path, tmp_path / "y.tflite").code == 0
    assert lc.load(tmp_path / "y.tflite")["lstm_1"].cell.options.cell_clip == 10.0


def test_a_file_without_a_fused_operator_says_why(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.tflite")
    data = (tmp_path / "x.tflite").read_bytes()
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    model.subgraphs[0].operators = []
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "y.tflite").write_bytes(builder.Output())
    error, hint = failure("inspect", tmp_path / "y.tflite")
    assert "no operator of it is an LSTM" in error
    assert "tf_keras" in hint


# ---- files that lie -----------------------------------------------------------------------------


def test_damaged_files_give_an_error_of_ours_or_a_model(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.tflite")
    good, rng = (tmp_path / "x.tflite").read_bytes(), np.random.default_rng(6)
    refused = 0
    for number in range(rounds(250)):
        data = bytearray(good)
        place = int(rng.integers(0, len(data) - 4))
        if number % 3 == 0:
            data[place] = int(rng.integers(0, 256))
        elif number % 3 == 1:
            value = rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0xFFFFFFF0])
            data[place : place + 4] = struct.pack("<I", int(value))
        else:
            data = data[:place]
        (tmp_path / "y.tflite").write_bytes(data)
        try:
            model = lc.load(tmp_path / "y.tflite")
            for layer in model.values():
                for _, _, cell in layer.cells():
                    for _, tensor in cell.tensors():
                        tensor.read()
        except lc.LSTMConvertError:
            refused += 1
    assert refused > rounds(250) // 4


def test_without_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("ai_edge_litert", "flatbuffers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(lc.LSTMConvertError, match="needs ai-edge-litert"):
        lc.convert(SEED95, tmp_path / "x.tflite")
    assert not list(tmp_path.iterdir())
