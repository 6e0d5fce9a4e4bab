"""frugally-deep's JSON, both ways.

Its writer is a script over a live model, whose steps are taken here (keras_export/convert_model.py)
on what a real model has. What we write has a config that real Keras builds, and the arrays are what
that script makes of the layer that Keras built. Where the library's headers are (see
`support.cpp`), the real library loads what we write and answers as Keras does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cpp
from support.cli import KERAS, SEED95, failure, run
from support.layout_tools import SINGLE, case, close
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.containers import fdeep
from lstmconvert.errors import UnknownOption, UnsupportedByTarget
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, KERAS3
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import Array, same_bits


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


@each(
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


# ---- what we write -------------------------------------------------------------------------------

WRITTEN = (SEED95, *(KERAS / f"{name}.keras" for name in ("both_sum", "both_concat", "rnn_stack")))


@pytest.mark.parametrize("source", WRITTEN)
def test_every_option_comes_back(source: Path, tmp_path: Path) -> None:
    lc.convert(source, tmp_path / "x.json", layout="frugally-deep")
    report = lc.diff(source, tmp_path / "x.json")
    assert report.layers
    assert all(report.layers)


@pytest.mark.engines
@pytest.mark.parametrize("source", WRITTEN)
def test_keras_builds_the_config_and_has_the_arrays_of_it(source: Path, tmp_path: Path) -> None:
    import keras

    lc.convert(source, tmp_path / "x.json", layout="frugally-deep", lstm_only=True)
    value = json.loads((tmp_path / "x.json").read_text())
    model = keras.models.model_from_json(json.dumps(value["architecture"]))
    original = keras.models.load_model(source)
    (name,) = value["trainable_params"]
    layer, wanted = model.get_layer(name), original.get_layer(name)
    params = value["trainable_params"][name]
    starts = {"both": ("forward_", "backward_"), "stack": ("cell0_", "cell1_")}.get(name, ("",))
    roles = ("weights", "recurrent_weights", "bias")
    for key, array in zip(
        [start + role for start in starts for role in roles], wanted.get_weights(), strict=True
    ):
        assert params[key] == encoded(array), key
    layer.set_weights(wanted.get_weights())
    steps, inputs = original.input_shape[1:]
    x = np.random.default_rng(3).normal(size=(2, steps or 6, inputs)).astype(np.float32)
    y, found = (np.asarray(keras.tree.flatten(run(given))[0]) for run, given in (
        (wanted, x), (model, [x])
    ))
    assert same_bits(found, y)
    shape = [*[None] * (y.ndim - 2), y.shape[-1]]
    assert value["output_shapes"] == [shape]
    assert value["input_shapes"] == [[None, inputs]]


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_sum.keras"])
def test_the_config_says_the_options_without_our_metadata(source: Path, tmp_path: Path) -> None:
    lc.convert(source, tmp_path / "x.json", layout="frugally-deep")
    value = json.loads((tmp_path / "x.json").read_text())
    del value["lstmconvert"]
    (tmp_path / "y.json").write_text(json.dumps(value))
    first, second = lc.load(source), lc.load(tmp_path / "y.json")
    for before, after in zip(first.values(), second.values(), strict=True):
        assert before.options.merge_mode == after.options.merge_mode
        for (_, _, a), (_, _, b) in zip(before.cells(), after.cells(), strict=True):
            assert a.options.activation == b.options.activation
            assert a.options.recurrent_activation == b.options.recurrent_activation
            for (part, one), (_, two) in zip(a.tensors(), b.tensors(), strict=True):
                assert same_bits(one.read(), two.read()), part
        run_before, run_after = before.forward.options, after.forward.options
        assert run_before.return_sequences == run_after.return_sequences


def test_bare_and_two_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layer = make_layer(make_cell(rng, 3, 2))
    lc.save(layer, tmp_path / "x.json", layout="frugally-deep", bare=True)
    assert list(lc.load(tmp_path / "x.json")) == [layer.name]
    assert list(json.loads((tmp_path / "x.json").read_text())["trainable_params"]) == [fdeep.ALONE]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": KERAS3["mish"]}, "cannot express activation"),
        ({"recurrent_activation": HARD_SIGMOID_KERAS2}, "cannot express recurrent_activation"),
        ({"dtype": "float64"}, "float32"),
        ({"cell_clip": 1.0}, "cell_clip"),
    ],
)
def test_what_it_cannot_express(options: Any, message: str, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2, **options))
    with pytest.raises(UnsupportedByTarget, match=message):
        lc.save(layer, tmp_path / "x.json", layout="frugally-deep")
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_no_file_said(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.safetensors", layout="torch", bare=True)
    from safetensors.numpy import load_file, save_file

    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors")
    with pytest.raises(UnknownOption, match="return_sequences"):
        lc.convert(tmp_path / "y.safetensors", tmp_path / "y.json", layout="frugally-deep")


# ---- the real library ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cpp.frugally_deep(tmp_path_factory.mktemp("frugally-deep"))


def written(layer: LSTMLayer, path: Path) -> Path:
    lc.save(layer, path, layout="frugally-deep", force=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
def test_the_real_library_answers_as_keras_does(name: str, program: Path, tmp_path: Path) -> None:
    known = case(name)
    path = written(known.layer, tmp_path / "x.json")
    for x, wanted in zip(known.x, known.y, strict=True):
        close(cpp.answer(program, path, x), wanted.reshape(-1))


def _run(seed: int = 3, both: bool = False, **options: Any) -> LSTMLayer:
    rng = np.random.default_rng(seed)
    cells = [make_cell(rng, 3, 2) for _ in range(1 + both)]
    return make_layer(*cells, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        _run(),
        make_layer([make_cell(np.random.default_rng(k), 3 - k, 2) for k in range(2)]),
        *(
            _run(both=True, merge_mode=mode, return_sequences=sequences)
            for mode in ("concat", "sum", "mul", "ave")
            for sequences in (True, False)
        ),
    ],
    ids=lambda layer: f"{layer.options.merge_mode}-{layer.forward.options.return_sequences}",
)
def test_the_real_library_has_these_options(
    layer: LSTMLayer, program: Path, tmp_path: Path
) -> None:
    x = np.random.default_rng(5).normal(size=(1, 6, 3)).astype(np.float32)
    wanted = reference.run(layer, x).outputs[0].reshape(-1)
    close(cpp.answer(program, written(layer, tmp_path / "x.json"), x[0]), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["activation", "recurrent_activation"])
def test_the_row_allows_what_the_real_library_runs_and_nothing_else(
    option: str, program: Path, tmp_path: Path
) -> None:
    """Every function that Keras 3 has by name, put into a config as the library reads it."""
    path = written(_run(return_sequences=True), tmp_path / "x.json")
    plain = json.loads(path.read_text())
    x = np.random.default_rng(5).normal(size=(1, 6, 3)).astype(np.float32)
    allowed = getattr(ROWS["frugally-deep"], option)
    for name, activation in KERAS3.items():
        (tmp_path / "y.json").write_text(json.dumps(_with(plain, option, name)))
        found = cpp.answer(program, tmp_path / "y.json", x[0])
        assert isinstance(found, str) is (activation not in allowed), (name, found)
        if activation in allowed:
            cell = make_cell(np.random.default_rng(3), 3, 2, scale=0.1, **{option: activation})
            layer = make_layer(cell, return_sequences=True)
            found = cpp.answer(program, written(layer, tmp_path / "z.json"), x[0])
            close(found, reference.run(layer, x).outputs[0].reshape(-1), 1e-5)


def _with(value: Any, option: str, name: str) -> Any:
    """Return JSON with another function in every config that has the option."""
    if isinstance(value, dict):
        return {key: name if key == option else _with(v, option, name) for key, v in value.items()}
    return [_with(item, option, name) for item in value] if isinstance(value, list) else value
