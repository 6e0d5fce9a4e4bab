"""lwtnn's JSON, both ways.

Its writer is a script over a Keras 2 file, whose steps are taken here (converters/
keras_v2_layer_converters.py). Where the library's sources are (see `support.cpp`), the real library
loads what we write and answers as Keras does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cpp
from support.cli import KERAS, SEED95, failure, run
from support.layout_tools import case, close
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, KERAS3, Activation
from lstmconvert.tensors.dtypes import same_bits


def exported(kernel: Any, recurrent: Any, bias: Any, **functions: Any) -> dict[str, Any]:
    """An LSTM as `_rnn_parameters` makes it of Keras's fused arrays."""
    units = recurrent.shape[0]
    components = {}
    for number, gate in enumerate("ifco"):
        columns = slice(units * number, units * (number + 1))
        components[gate] = {
            "U": recurrent[:, columns].T.flatten().tolist(),
            "weights": kernel[:, columns].T.flatten().tolist(),
            "bias": bias[columns].flatten().tolist(),
        }
    functions = {"activation": "tanh", "inner_activation": "sigmoid"} | functions
    return {"components": components, "architecture": "lstm", **functions}


def arrays(inputs: int = 3, units: int = 2, seed: int = 4) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    shapes = ((inputs, 4 * units), (units, 4 * units), (4 * units,))
    kernel, recurrent, bias = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return kernel, recurrent, bias


DENSE = {"architecture": "dense", "activation": "linear", "weights": [1.0, 2.0], "bias": [3.0]}


def as_list(*layers: Any, scale: float = 1) -> dict[str, Any]:
    """The older form, of keras2json.py."""
    inputs = [{"name": f"in_{n}", "offset": 0, "scale": scale} for n in range(3)]
    return {"inputs": inputs, "layers": list(layers), "outputs": ["a"], "defaults": {}}


def as_graph(*layers: Any) -> dict[str, Any]:
    """The form of kerasfunc2json.py."""
    variables = [{"name": f"variable_{n}", "offset": 0, "scale": 1} for n in range(3)]
    nodes = [
        {"type": "input_sequence", "sources": [0], "size": 3},
        {"type": "sequence", "sources": [0], "layer_index": 0},
    ]
    return {
        "inputs": [],
        "input_sequences": [{"name": "node_0", "variables": variables}],
        "layers": list(layers),
        "nodes": nodes,
        "outputs": {"lstm_0": {"labels": ["out_0", "out_1"], "node_index": 1}},
    }


def saved(value: Any, path: Path) -> Path:
    path.write_text(json.dumps(value, indent=2, sort_keys=True))
    return path


@pytest.mark.parametrize("form", [as_list, as_graph])
def test_it_is_read(form: Callable[..., Any], tmp_path: Path) -> None:
    kernel, recurrent, bias = arrays()
    path = saved(
        form(exported(kernel, recurrent, bias, inner_activation="hard_sigmoid"), DENSE),
        tmp_path / "x.json",
    )
    model = lc.load(path)
    layer = model["lstm"]
    assert model.layout == "lwtnn"
    assert layer.cell.options.recurrent_activation == HARD_SIGMOID_KERAS2
    for number, gate in enumerate(("input", "forget", "cell", "output")):
        weights = getattr(layer, f"{gate}_gate")
        columns = slice(2 * number, 2 * number + 2)
        assert same_bits(weights.kernel, np.ascontiguousarray(kernel[:, columns]))
        assert same_bits(weights.recurrent_kernel, np.ascontiguousarray(recurrent[:, columns]))
        assert same_bits(weights.bias, bias[columns])
    assert sorted(model.other) == ["1.dense.bias", "1.dense.weights"]
    done = run("inspect", path)
    assert "an lwtnn model" in done.out


@pytest.mark.parametrize(
    ("spelled", "function"),
    [
        ("linear", KERAS3["linear"]),
        ("rectified", KERAS3["relu"]),
        ("softmax", KERAS3["softmax"]),
        ("elu", Activation("elu", {"alpha": 1.0})),
        ({"function": "elu", "alpha": 0.5}, Activation("elu", {"alpha": 0.5})),
        (
            {"function": "leakyrelu", "alpha": 0.3},
            Activation("leaky_relu", {"negative_slope": 0.3}),
        ),
        ({"function": "swish", "alpha": 1.0}, KERAS3["silu"]),
    ],
)
def test_functions_both_ways(spelled: Any, function: Activation, tmp_path: Path) -> None:
    path = saved(as_list(exported(*arrays(), activation=spelled)), tmp_path / "x.json")
    assert lc.load(path)["lstm"].cell.options.activation == function
    lc.convert(path, tmp_path / "y.json", layout="lwtnn")
    value = json.loads((tmp_path / "y.json").read_text())
    again = value["layers"][0]["activation"]
    assert again == ({"function": "elu", "alpha": 1.0} if spelled == "elu" else spelled)
    del value["lstmconvert"]
    assert lc.load(saved(value, tmp_path / "z.json"))["lstm"].cell.options.activation == function


@pytest.mark.parametrize("spelled", ["abs", {"function": "swish", "alpha": 0.5}])
def test_a_function_without_a_name_here_is_kept_and_not_guessed(
    spelled: Any, tmp_path: Path
) -> None:
    path = saved(as_list(exported(*arrays(), activation=spelled)), tmp_path / "x.json")
    assert lc.load(path)["lstm"].cell.options.activation.custom
    with pytest.raises(lc.LSTMConvertError, match="activation"):
        lc.convert(path, tmp_path / "y.json", layout="lwtnn")


def test_scaled_inputs_are_told(tmp_path: Path) -> None:
    path = saved(as_list(exported(*arrays()), scale=0.5), tmp_path / "x.json")
    assert any("offset and scale" in note for note in lc.load(path).notes)
    assert not lc.load(saved(as_list(exported(*arrays())), tmp_path / "y.json")).notes


@each(
    "change",
    [
        lambda layer: layer["components"].pop("c"),
        lambda layer: layer["components"].update(z={}),
        lambda layer: layer["components"]["i"].pop("U"),
        lambda layer: layer["components"]["i"].update(U=[1.0]),
        lambda layer: layer["components"]["i"].update(weights=[1.0] * 7),
        lambda layer: layer["components"]["i"].update(weights=[]),
        lambda layer: layer["components"]["i"].update(bias="x"),
        lambda layer: layer["components"]["i"].update(bias=[[1.0, 2.0]]),
        lambda layer: layer["components"]["f"].update(weights=[1.0] * 8),
        lambda layer: layer.update(components=3),
        lambda layer: layer.pop("activation"),
        lambda layer: layer.update(inner_activation=3),
        lambda layer: layer.update(dtype="float16"),
    ],
)
def test_files_that_lie_are_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    layer = exported(*arrays())
    change(layer)
    failure("inspect", saved(as_graph(layer), tmp_path / "x.json"))


@each("key", ["inputs", "input_sequences"])
@each("value", [True, 3, "x", [3], [{"variables": True}], None])
def test_inputs_that_are_none(key: str, value: Any, tmp_path: Path) -> None:
    """They are not part of the LSTM: nothing is told, and nothing fails."""
    whole = {**as_graph(exported(*arrays())), key: value}
    if key == "inputs" and not isinstance(value, list):
        failure("inspect", saved(whole, tmp_path / "x.json"))
        return
    assert not lc.load(saved(whole, tmp_path / "x.json")).notes


def test_two_layers_of_one_name(tmp_path: Path) -> None:
    layer = {**exported(*arrays()), "name": "a"}
    failure("inspect", saved(as_list(layer, layer), tmp_path / "x.json"))


# ---- what we write -------------------------------------------------------------------------------


def test_every_option_comes_back(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.json", layout="lwtnn")
    report = lc.diff(SEED95, tmp_path / "x.json")
    assert report.layers
    assert all(report.layers)


def test_it_is_what_the_script_makes(tmp_path: Path) -> None:
    import h5py

    lc.convert(SEED95, tmp_path / "x.json", layout="lwtnn")
    lc.convert(SEED95, tmp_path / "x.h5")
    (written,) = json.loads((tmp_path / "x.json").read_text())["layers"]
    with h5py.File(tmp_path / "x.h5") as file:
        group = file["model_weights/lstm"]
        names = [name.decode() for name in group.attrs["weight_names"]]
        fused = [np.asarray(group[name]) for name in names]
    made = exported(*fused)
    assert {key: written[key] for key in made} == made


@pytest.mark.parametrize("source", ["both_sum", "rnn_stack"])
def test_what_it_cannot_express(source: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedByTarget):
        lc.convert(KERAS / f"{source}.keras", tmp_path / "x.json", layout="lwtnn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("activation", ["gelu", "hard_sigmoid", "selu", "mish"])
def test_functions_that_it_lacks(activation: str, tmp_path: Path) -> None:
    cell = make_cell(np.random.default_rng(2), 3, 2, activation=KERAS3[activation])
    with pytest.raises(UnsupportedByTarget, match="activation"):
        lc.save(make_layer(cell), tmp_path / "x.json", layout="lwtnn")


# ---- the real library ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cpp.lwtnn(tmp_path_factory.mktemp("lwtnn"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "square", "one-unit", "no-bias"])
def test_the_real_library_answers_as_keras_does(name: str, program: Path, tmp_path: Path) -> None:
    known = case(name)
    path = tmp_path / "x.json"
    lc.save(known.layer, path, layout="lwtnn")
    for x, wanted in zip(known.x, known.y, strict=True):
        close(cpp.answer(program, path, x), wanted.reshape(-1))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["activation", "recurrent_activation"])
def test_the_real_library_has_every_function_of_the_row(
    option: str, program: Path, tmp_path: Path
) -> None:
    functions = [
        *getattr(ROWS["lwtnn"], option).exact,
        Activation("elu", {"alpha": 0.7}),
        Activation("leaky_relu", {"negative_slope": 0.3}),
    ]
    x = np.random.default_rng(5).normal(size=(1, 200, 3)).astype(np.float32)
    for function in functions:
        cell = make_cell(np.random.default_rng(3), 3, 2, scale=0.1, **{option: function})
        layer = make_layer(cell, return_sequences=True)
        path = tmp_path / "x.json"
        lc.save(layer, path, layout="lwtnn", force=True)
        wanted = reference.run(layer, x, dtype="float64").outputs[0].reshape(-1)
        close(cpp.answer(program, path, x[0]), wanted, 1e-9)
