"""Neural Amp Modeler's files, both ways, and the JSON of guitar trainers: real writers' formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cpp
from support.chain_models import model
from support.cli import failure, run
from support.cpp import run_in_c
from support.layout_tools import close

import lstmconvert as lc
from lstmconvert.keras.modern import chains
from lstmconvert.reference import chains as forward
from lstmconvert.tensors.dtypes import Array, same_bits

pytestmark = pytest.mark.engines  # the trainers' models are PyTorch's own


def numbers(array: Any) -> Any:
    return np.asarray(array, np.float32).astype(np.float64).tolist()


def trained(unit: str = "LSTM", *, depth: int = 1, skip: int = 0, inputs: int = 1) -> Any:
    """A model of PyTorch as the trainers have it: `rec`, then `lin`."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    rec = getattr(torch.nn, unit)(inputs, 4, depth, batch_first=True)
    return rec, torch.nn.Linear(4, 1), skip


def answer(made: Any, x: Array) -> Array:
    import torch

    rec, lin, skip = made
    with torch.no_grad():
        given = torch.from_numpy(x)
        return np.asarray(lin(rec(given)[0]) + (given[..., :skip].sum(-1, True) if skip else 0))


def trainer_file(made: Any, folder: Path, **data: Any) -> Path:
    rec, lin, skip = made
    state = {f"rec.{k}": numbers(v) for k, v in rec.state_dict().items()}
    state |= {f"lin.{k}": numbers(v) for k, v in lin.state_dict().items()}
    stated = {
        "model": "SimpleRNN", "input_size": rec.input_size, "skip": skip, "output_size": 1,
        "unit_type": type(rec).__name__, "num_layers": rec.num_layers,
        "hidden_size": rec.hidden_size, "bias_fl": True, **data,
    }  # fmt: skip
    path = folder / "trained.json"
    path.write_text(json.dumps({"model_data": stated, "state_dict": state}))
    return path


def nam_file(made: Any, folder: Path, *, start: float = 0.0) -> Path:
    """What the trainer of Neural Amp Modeler writes: see its `_export_weights`."""
    rec, lin, _ = made
    flat: list[float] = []
    for k in range(rec.num_layers):
        parts = {name: getattr(rec, f"{name}_l{k}").detach().numpy() for name in
                 ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
        weight = np.concatenate([parts["weight_ih"], parts["weight_hh"]], axis=1)
        flat += numbers(weight.reshape(-1)) + numbers(parts["bias_ih"] + parts["bias_hh"])
        flat += [start] * 8
    flat += numbers(lin.weight.detach().numpy().reshape(-1)) + numbers(lin.bias.detach().numpy())
    config = {"input_size": 1, "hidden_size": 4, "num_layers": rec.num_layers}
    value = {
        "version": "0.5.4", "metadata": {"name": "mine"}, "architecture": "LSTM",
        "config": config, "weights": flat, "sample_rate": 48000,
    }  # fmt: skip
    path = folder / "made.nam"
    path.write_text(json.dumps(value))
    return path


SEQUENCE = np.random.default_rng(2).normal(size=(1, 50, 1)).astype(np.float32)


def in_numpy(path: Path, x: Array = SEQUENCE) -> Array:
    chain = chains.of(lc.load(path), "x", "x")
    assert chain is not None
    return forward.run(chain, x)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("skip", [0, 1])
def test_a_trained_lstm_with_its_head(depth: int, skip: int, tmp_path: Path) -> None:
    made = trained(depth=depth, skip=skip)
    source = trainer_file(made, tmp_path)
    close(in_numpy(source), answer(made, SEQUENCE), 1e-6)
    layer = next(iter(lc.load(source).values()))
    assert layer.forget_gate.tensors.keys() >= {"bias", "recurrent_bias"}
    for name in ("x.keras", "x.aidax", "x.safetensors"):
        lc.convert(source, tmp_path / name, warn=False)
    close(in_numpy(tmp_path / "x.aidax"), answer(made, SEQUENCE), 1e-6)
    written = json.loads((tmp_path / "x.aidax").read_text())
    assert written.get("in_skip", 0) == skip


def test_a_trained_gru_is_named_and_not_taken_for_an_lstm(tmp_path: Path) -> None:
    source = trainer_file(trained("GRU", skip=1), tmp_path)
    assert "rec: GRU" in run("inspect", source).out


def test_a_trainer_file_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    for name, data in {"hidden_size": {"hidden_size": 5}, "unit": {"unit_type": "RNN"}}.items():
        error, _ = failure("inspect", trainer_file(trained(), tmp_path, **data))
        assert "rec.weight_ih_l0" in error or name in error
    path = trainer_file(trained(), tmp_path)
    value = json.loads(path.read_text())
    del value["state_dict"]["lin.weight"]
    path.write_text(json.dumps(value))
    assert "lin.weight" in failure("inspect", path)[0]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_nam_becomes_a_whole_model(depth: int, tmp_path: Path) -> None:
    made = trained(depth=depth)
    source = nam_file(made, tmp_path)
    close(in_numpy(source), answer(made, SEQUENCE), 1e-6)
    lc.convert(source, tmp_path / "x.keras", warn=False)
    lc.convert(tmp_path / "x.keras", tmp_path / "back.nam", warn=False)
    before, after = (json.loads(p.read_text()) for p in (source, tmp_path / "back.nam"))
    assert after["weights"] == before["weights"]
    assert after["config"] == before["config"]


def test_a_nam_keeps_its_states_and_keys(tmp_path: Path) -> None:
    source = nam_file(trained(), tmp_path, start=0.25)
    lc.convert(source, tmp_path / "x.safetensors", warn=False)
    lc.convert(tmp_path / "x.safetensors", tmp_path / "back.nam", warn=False)
    before, after = (json.loads(p.read_text()) for p in (source, tmp_path / "back.nam"))
    assert {key: after[key] for key in before} == before
    assert lc.diff(source, tmp_path / "back.nam")
    for name in ("x.keras", "x.aidax"):
        with pytest.raises(lc.LSTMConvertError, match="initial_hidden"):
            lc.convert(source, tmp_path / name)


def test_a_header_begins_with_the_states_of_a_nam(tmp_path: Path) -> None:
    source = nam_file(trained(depth=2), tmp_path, start=0.25)
    lc.convert(source, tmp_path / "x.h", prefix="amp", warn=False)
    ran, stepped = run_in_c(tmp_path, SEQUENCE, 1, "gcc")
    close(ran, in_numpy(source)[0], 1e-6)
    assert same_bits(ran, stepped)
    assert abs(ran - in_numpy(nam_file(trained(depth=2), tmp_path))[0]).max() > 0.01


def test_a_nam_of_another_kind_or_length_is_refused(tmp_path: Path) -> None:
    path = nam_file(trained(), tmp_path)
    value = json.loads(path.read_text())
    for key, wrong in {"architecture": "WaveNet", "weights": value["weights"][1:]}.items():
        path.write_text(json.dumps({**value, key: wrong}))
        error, _ = failure("inspect", path)
        assert key in error


def test_what_a_nam_cannot_hold(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    for name in ("convolution", "dropout", "gru"):
        model(keras, name, inputs=1).save(tmp_path / "x.keras")
        with pytest.raises(lc.LSTMConvertError):
            lc.convert(tmp_path / "x.keras", tmp_path / "x.nam")
    model(keras, "amplifier", inputs=1).save(tmp_path / "x.keras")
    with pytest.raises(lc.LSTMConvertError, match="Dense after them"):
        lc.convert(tmp_path / "x.keras", tmp_path / "x.nam", lstm_only=True)
    assert not (tmp_path / "x.nam").exists()


@pytest.mark.slow
def test_the_real_player_answers_as_keras_does(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    program = cpp.neural_amp_modeler(tmp_path)
    whole = model(keras, "amplifier", inputs=1)
    whole.save(tmp_path / "x.keras")
    lc.convert(tmp_path / "x.keras", tmp_path / "x.nam", warn=False)
    played = cpp.answer(program, tmp_path / "x.nam", SEQUENCE[0])
    assert not isinstance(played, str), played
    close(played, np.asarray(whole(SEQUENCE)).reshape(-1), 2e-6)
    source = nam_file(trained(depth=2), tmp_path, start=0.25)
    lc.convert(source, tmp_path / "y.nam", warn=False)
    played = cpp.answer(program, source, SEQUENCE[0])
    assert not isinstance(played, str)
    close(played, cpp.answer(program, tmp_path / "y.nam", SEQUENCE[0]), 0)  # type: ignore[arg-type]
    close(played, in_numpy(tmp_path / "y.nam").reshape(-1), 2e-6)


def test_arrays_of_keras_by_layer(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    kernel, recurrent, bias = (numbers(rng.normal(size=s)) for s in ((2, 12), (3, 12), (12,)))
    value = {
        "conv1d": {"kernel:0": numbers(rng.normal(size=(3, 1, 2)))},
        "lstm": {"kernel:0": kernel, "recurrent_kernel:0": recurrent, "bias:0": bias},
    }
    (tmp_path / "x.json").write_text(json.dumps(value))
    loaded = lc.load(tmp_path / "x.json")
    assert list(loaded) == ["lstm"]
    assert numbers(loaded["lstm"].forget_gate.kernel) == np.array(kernel)[:, 3:6].tolist()
    assert list(loaded.other) == ["conv1d.kernel"]
