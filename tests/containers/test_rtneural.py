"""RTNeural's JSON, both ways: files with the outputs that were recorded with them.

Our own fixtures hold what Keras and PyTorch gave; the corpus has RTNeural's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cpp
from support.cli import FIXTURES, SEED95, failure, run
from support.corpus import CORPUS
from support.layout_tools import close
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array, same_bits

THEIRS = "jatinchowdhury18_RTNeural__"
KERAS_CHAINS = [FIXTURES / f"rtneural-keras-3.15.1/{name}.json" for name in ("lstm", "lstm_1d")]
OF_CORPUS = [
    pytest.param(CORPUS / f"{THEIRS}{name}.json", marks=pytest.mark.corpus)
    for name in ("lstm", "lstm_1d")
]


def recorded(path: Path) -> tuple[Array, Array]:
    """The input (batch, time, 1) and the output that were recorded with a file."""
    if (record := path.with_suffix(".io.npz")).is_file():
        arrays = np.load(record)
        return arrays["x0"], arrays["y0"]
    x, y = (np.loadtxt(path.with_name(f"{path.stem}_{end}_python.csv")) for end in "xy")
    return x.reshape(1, -1, 1), y


def sequences(layer: LSTMLayer) -> LSTMLayer:
    """The layer with every option as RTNeural has it: every output, in order."""
    from dataclasses import replace

    options = replace(
        layer.forward.options, return_sequences=True, zero_output_for_mask=False, time_major=False
    )
    return replace(layer, forward=replace(layer.forward, options=options))


def dense(x: Array, weights: Any, activation: str) -> Array:
    kernel, bias = (np.asarray(w, np.float64) for w in weights)
    y = x @ kernel + bias
    return np.tanh(y) if activation == "tanh" else y


@pytest.mark.parametrize("path", [*KERAS_CHAINS, *OF_CORPUS])
def test_a_recorded_model_answers_as_recorded(path: Path) -> None:
    model, plain = lc.load(path), json.loads(path.read_text())
    x, wanted = recorded(path)
    layers = iter(model.values())
    for layer in plain["layers"]:
        if layer["type"] == "lstm":
            x = reference.run(sequences(next(layers)), x, dtype="float64").outputs[0]
        else:
            x = dense(x, layer["weights"], layer["activation"])
    close(x.reshape(wanted.shape), wanted, 1e-6)


@pytest.mark.parametrize(
    "path",
    [
        FIXTURES / "torch-2.13.0/chain.json",
        pytest.param(CORPUS / f"{THEIRS}lstm_torch.json", marks=pytest.mark.corpus),
    ],
)
def test_a_recorded_state_dict_answers_as_recorded(path: Path) -> None:
    model, plain = lc.load(path), json.loads(path.read_text())
    x, wanted = recorded(path)
    for layer in model.values():
        x = reference.run(sequences(layer), x, dtype="float64").outputs[0]
    x = dense(x, [np.transpose(plain["dense.weight"]), plain["dense.bias"]], "")
    close(x.reshape(wanted.shape), wanted, 1e-6)


@pytest.mark.parametrize("source", [*KERAS_CHAINS, *OF_CORPUS])
def test_arrays_go_out_as_they_came_in(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    lc.convert(source, path, layout="rtneural")
    before, after = (json.loads(p.read_text()) for p in (source, path))
    for wanted, written in zip(before["layers"], after["layers"], strict=True):
        for key in {*wanted} & {"weights", "activation", "epsilon", "kernel_size"}:
            assert written[key] == wanted[key]
        # Every layer runs step by step there: the two are one.
        assert written["type"] == wanted["type"].replace("time-distributed-dense", "dense")
        assert written["shape"][-1] == wanted["shape"][-1]
    assert after["in_shape"][-1] == before["in_shape"][-1]


def test_every_option_comes_back(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.json", layout="rtneural")
    report = lc.diff(lc.load(SEED95), lc.load(tmp_path / "x.json"))
    assert all(report.layers)
    assert report.layers


def test_a_chain_of_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a, b, c = (
        make_layer(make_cell(rng, inputs, 3), name=name)
        for inputs, name in ((2, "z"), (3, "a"), (4, "c"))
    )
    model = Model(layers=(a, b), source=Source(container="live"), container="live")
    lc.save(model, tmp_path / "x.json", layout="rtneural")
    assert list(lc.load(tmp_path / "x.json")) == ["z", "a"]
    shapes = [x["shape"] for x in json.loads((tmp_path / "x.json").read_text())["layers"]]
    assert shapes == [[None, None, 3], [None, None, 3]]
    model = Model(layers=(a, c), source=Source(container="live"), container="live")
    with pytest.raises(lc.LSTMConvertError, match="follow one another"):
        lc.save(model, tmp_path / "y.json", layout="rtneural")


def test_what_it_cannot_hold(tmp_path: Path) -> None:
    cell = make_cell(np.random.default_rng(1), 2, 3)
    with pytest.raises(lc.LSTMConvertError, match="Bidirectional"):
        lc.save(make_layer(cell, cell), tmp_path / "x.json", layout="rtneural")
    layer = make_layer(cell)
    layer.forget_gate.tensors["bias"]._array[0] = np.nan
    with pytest.raises(lc.LSTMConvertError, match="NaN"):
        lc.save(layer, tmp_path / "x.json", layout="rtneural")


@pytest.mark.parametrize(
    "layers",
    [
        [3],
        [{"type": "lstm", "weights": [[[1.0]]]}],
        [{"type": "lstm", "weights": [[[1.0]], [[1.0]], [[1.0]]]}],
        [{"type": "lstm", "weights": [[["x"]], [[1.0]], [1.0]]}],
    ],
)
def test_files_that_lie_are_refused(layers: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"in_shape": [None, None, 1], "layers": layers}))
    failure("inspect", tmp_path / "x.json")


def test_a_model_without_an_lstm(tmp_path: Path) -> None:
    layers = [{"type": "dense", "weights": [[[1.0]], [1.0]]}]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"in_shape": [None, None, 1], "layers": layers}))
    with pytest.raises(lc.NoLSTM):
        lc.load(path)
    assert "No LSTM layer" in run("inspect", path).out


def test_the_command(tmp_path: Path) -> None:
    source = KERAS_CHAINS[0]
    assert run("inspect", source).code == 0
    assert run("convert", source, tmp_path / "x.safetensors").code == 0
    found = lc.load(tmp_path / "x.safetensors")["lstm"]
    assert same_bits(found.forget_gate.kernel, lc.load(source)["lstm"].forget_gate.kernel)


# ---- what plug-ins read besides the layers -------------------------------------------------------

KEYS = {"in_skip": 1, "in_gain": 3.5, "out_gain": -2.0, "samplerate": 48000, "metadata": {"a": 1}}


def audio(tmp_path: Path, **keys: Any) -> Path:
    """A model of one LSTM and a head, with the answer that its own layers give."""
    plain = json.loads(KERAS_CHAINS[0].read_text())
    path = tmp_path / "audio.json"
    path.write_text(json.dumps({**plain, **keys}))
    return path


def answered(tmp_path: Path, **keys: Any) -> Path:
    from lstmconvert.keras.modern import chains
    from lstmconvert.reference import chains as forward

    path = audio(tmp_path, **keys)
    chain = chains.of(lc.load(path), "x", "x")
    assert chain is not None
    x = np.random.default_rng(3).normal(size=(1, 64, chain.inputs))
    batches = {"input_batch": x.reshape(-1).tolist()}
    batches["output_batch"] = forward.run(chain, x).reshape(-1).tolist()
    return audio(tmp_path, **keys, **batches)


@pytest.mark.parametrize("road", [[], ["x.safetensors"], ["x.json"], ["x.npz", "y.aidax"]])
def test_every_key_of_a_file_is_carried(road: list[str], tmp_path: Path) -> None:
    source = path = answered(tmp_path, **KEYS, license="mine")
    for name in [*road, "back.aidax"]:
        layout = "rtneural" if name.endswith(".json") else None
        lc.convert(path, tmp_path / name, layout=layout, warn=False)
        path = tmp_path / name
    before, after = (json.loads(p.read_text()) for p in (source, path))
    kept = before.keys() - {"layers", "in_shape"}
    if any(name.endswith((".safetensors", ".npz")) for name in road):
        assert {*KEYS, "license"} <= kept
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}


def test_what_has_no_place_is_named(tmp_path: Path) -> None:
    result = lc.convert(audio(tmp_path, **KEYS), tmp_path / "x.keras", warn=False)
    (told,) = [text for text in result.warnings if "no place" in text]
    for key in KEYS:
        assert key in told


@pytest.mark.engines
def test_the_input_that_is_added_to_the_output_is_part_of_the_model(tmp_path: Path) -> None:
    source = audio(tmp_path, in_skip=1)
    x = np.random.default_rng(1).normal(size=(1, 9, 1)).astype(np.float32)
    from lstmconvert.keras.modern import chains
    from lstmconvert.reference import chains as forward

    with_skip, without = (
        forward.run(chains.of(lc.load(path), "x", "x"), x)  # type: ignore[arg-type]
        for path in (source, KERAS_CHAINS[0])
    )
    close(with_skip, without + x, 1e-12)
    keras = pytest.importorskip("keras")
    lc.convert(source, tmp_path / "x.keras", warn=False)
    whole = keras.saving.load_model(tmp_path / "x.keras")
    close(np.asarray(whole([x])), with_skip, 1e-5)
    lc.convert(tmp_path / "x.keras", tmp_path / "x.aidax", warn=False)
    assert json.loads((tmp_path / "x.aidax").read_text())["in_skip"] == 1


def test_a_file_that_does_not_answer_as_it_says_is_refused(tmp_path: Path) -> None:
    path = answered(tmp_path)
    assert lc.load(path)
    value = json.loads(path.read_text())
    value["layers"][-1]["weights"][1][0] += 0.1
    path.write_text(json.dumps(value))
    error, _ = failure("inspect", path)
    assert "output_batch" in error


def test_an_edited_model_leaves_the_old_answer_out(tmp_path: Path) -> None:
    loaded = lc.load(answered(tmp_path))
    name = next(iter(loaded))
    edited = loaded.replacing(
        {f"{name}.forget_gate.bias": loaded[name].forget_gate.bias + 1}  # type: ignore[dict-item]
    )
    result = lc.save(edited, tmp_path / "x.aidax", warn=False)
    assert "output_batch" not in json.loads((tmp_path / "x.aidax").read_text())
    assert any("output_batch" in text for text in result.warnings)


def test_an_answer_is_stored_on_request(tmp_path: Path) -> None:
    lc.convert(KERAS_CHAINS[0], tmp_path / "x.aidax", check=True)
    value = json.loads((tmp_path / "x.aidax").read_text())
    assert len(value["input_batch"]) == len(value["output_batch"]) == 8
    value["output_batch"][-1] += 0.01
    (tmp_path / "x.aidax").write_text(json.dumps(value))
    assert "output_batch" in failure("inspect", tmp_path / "x.aidax")[0]


@pytest.mark.parametrize("place", ["in_shape", "lstm", "dense"])
def test_a_shape_that_contradicts_the_arrays_is_refused(place: str, tmp_path: Path) -> None:
    value = json.loads(KERAS_CHAINS[0].read_text())
    shapes = {layer["type"]: layer["shape"] for layer in value["layers"]}
    shapes |= {"in_shape": value["in_shape"], "dense": value["layers"][-1]["shape"]}
    shapes[place][-1] += 1
    (tmp_path / "x.json").write_text(json.dumps(value))
    error, _ = failure("inspect", tmp_path / "x.json")
    assert "contradicts" in error or "do not take" in error


# ---- the real library ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float", "double"])
def test_the_real_library_answers_as_the_reference_does(kind: str, tmp_path: Path) -> None:
    program = cpp.rtneural(tmp_path, kind)
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1, 30, 3))
    below = make_layer(make_cell(rng, 3, 4, dtype="float64"), name="a", return_sequences=True)
    above = make_layer(make_cell(rng, 4, 2, dtype="float64"), name="b", return_sequences=True)
    for layers in ((below,), (below, above)):
        model = Model(layers=layers, source=Source(container="live"), container="live")
        lc.save(model, tmp_path / "x.json", layout="rtneural", force=True)
        wanted = x
        for layer in layers:
            wanted = reference.run(layer, wanted).outputs[0]
        found = cpp.answer(program, tmp_path / "x.json", x[0])
        close(found, wanted.reshape(-1), 1e-12 if kind == "double" else 2e-6)
