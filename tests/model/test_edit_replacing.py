"""Arrays are read-only, and `replacing` is the way to edit, in every kind of file."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import FIXTURES, KERAS, SEED95

import lstmconvert as lc
from lstmconvert.model import naming
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2
from lstmconvert.tensors.dtypes import same_bits


@pytest.fixture
def model() -> lc.Model:
    return lc.load(SEED95)


def test_arrays_are_read_only(model: lc.Model) -> None:
    layer = model["lstm"]
    arrays = [
        layer.forget_gate.kernel,
        layer.forget_gate.bias,
        layer.cell.fused("kernel").read(),
        next(iter(model.other.values())).read(),
        np.asarray(layer.forget_gate),
        np.asarray(next(iter(model.other.values()))),
        *lc.arrange(layer, "torch").values(),
        *lc.arrange(layer, "keras").values(),
    ]
    for array in arrays:
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize(
    "suffix", [".safetensors", ".npz", ".onnx", ".keras", ".weights.h5", ".h5", ".msgpack"]
)
def test_an_edit_reaches_every_kind_of_file(model: lc.Model, suffix: str, tmp_path: Path) -> None:
    """The forget bias plus one; every other weight stays bit for bit."""
    bias = model["lstm"].forget_gate.bias
    edited = model.replacing({"lstm.forget_gate.bias": bias + np.float32(1)})
    path = tmp_path / f"edited{suffix}"
    lc.save(edited, path)
    back = lc.load(path)
    old, new = dict(naming.tensors(model["lstm"])), dict(naming.tensors(*back.layers))
    for (name, one), two in zip(old.items(), new.values(), strict=True):
        wanted = one.read() + 1 if name == "lstm.forget_gate.bias" else one.read()
        assert same_bits(two.read(), wanted), name
    assert same_bits(model["lstm"].forget_gate.bias, bias)


@pytest.mark.parametrize(
    "name",
    ["keras-3.15.1/both_unlike.keras", "keras-3.15.1/rnn_stack_gru.keras", "tf-1.15.5/cudnn.h5"],
)
def test_every_tensor_of_a_model_can_be_replaced(name: str, tmp_path: Path) -> None:
    model = lc.load(FIXTURES / name)
    names = {k: t for layer in model.layers for k, t in naming.tensors(layer)}
    names |= {naming.other(path): t for path, t in model.other.items()}
    twice = {k: t.read() * t.dtype.type(2) for k, t in names.items() if t.dtype.kind == "f"}
    edited = model.replacing(twice)
    lc.save(edited, tmp_path / "x.safetensors")
    back = lc.load(tmp_path / "x.safetensors")
    found = {k: t for layer in back.layers for k, t in naming.tensors(layer)}
    found |= {naming.other(path): t for path, t in back.other.items()}
    assert all(same_bits(found[k].read(), array) for k, array in twice.items())
    assert back.notes[-1].startswith("edited after it was read: ")


def test_a_layer_is_edited_by_shorter_names() -> None:
    layer = lc.load(KERAS / "both_unlike.keras")["both"]
    assert layer.backward is not None
    kernel = layer.backward.cells[0].output_gate.kernel
    edited = layer.replacing({"backward.output_gate.kernel": -kernel})
    assert edited.backward is not None
    assert same_bits(edited.backward.cells[0].output_gate.kernel, -kernel)
    assert edited.forward is not None
    assert same_bits(
        edited.forward.cells[0].output_gate.kernel, layer.forward.cells[0].output_gate.kernel
    )
    assert layer.replacing({}).cells


def test_later_changes_to_the_given_array_do_not_count(model: lc.Model) -> None:
    bias = np.ones(2, np.float32)
    edited = model["lstm"].replacing({"forget_gate.bias": bias})
    bias[:] = 7
    assert np.array_equal(edited.forget_gate.bias, [1, 1])


@pytest.mark.parametrize(
    ("name", "array", "message", "hint"),
    [
        ("forget_gate.bais", np.ones(2, np.float32), "no weights of that name", "forget_gate.bias"),
        ("lstm.forget_gate.bias", np.ones(2, np.float32), "no weights of that", "forget_gate.bias"),
        ("forget_gate.bias", np.ones(3, np.float32), "another shape; found (3,); exp", None),
        ("forget_gate.bias", [1.0, 2.0], "dtype, .* found float64; expected float32", "astype"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: lc.Model, name: str, array: object, message: str, hint: str | None
) -> None:
    with pytest.raises(lc.UsageError, match=message.replace("(", r"\(").replace(")", r"\)")) as e:
        model["lstm"].replacing({name: array})
    assert (hint or "") in (e.value.hint or "")


@pytest.mark.parametrize(
    ("key", "message", "hint"),
    [
        (0, "layers are taken by name, not by number; found 0; expected one of lstm", "layers[0]"),
        ("lsmt", "lsmt: no LSTM layer of that name; expected one of lstm", "did you mean lstm?"),
        ("dense", "dense: this layer is not an LSTM: its tensors are among model.other", None),
    ],
)
def test_a_wrong_key_says_what_is_there(
    model: lc.Model, key: str, message: str, hint: str | None
) -> None:
    with pytest.raises(lc.UnknownLayer) as caught:
        _ = model[key]
    assert message in str(caught.value)
    assert (hint or "") in (caught.value.hint or "")
    assert key not in model
    assert model.get(key) is None


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("neighbours.keras", {"batch_normalization": 12, "conv1d": 33, "dense": 6, "gru": 72}),
        ("neighbours.h5", {"batch_normalization": 12, "conv1d": 33, "dense": 6, "gru": 72}),
        ("zoo.keras", {"inner/dense": 8}),
    ],
)
def test_the_layers_beside_are_known_by_name(name: str, layers: dict[str, int]) -> None:
    assert layers.items() <= lc.load(KERAS / name).other_layers.items()


def test_numpy_takes_gates_and_other_tensors(model: lc.Model) -> None:
    kernel = model.other["layers/dense/vars/0"]
    assert np.asarray(kernel).shape == (2, 5)
    assert np.asarray(kernel, dtype="float64").dtype == "float64"
    gate = model["lstm"].forget_gate
    bias = gate.bias
    assert bias is not None
    rows = np.asarray(gate)
    assert same_bits(rows, np.vstack([gate.kernel, gate.recurrent_kernel, bias]))
    assert np.array(gate).flags.writeable
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # before, it is a wish that may be denied
        with pytest.raises(ValueError, match="read when they are asked for"):
            np.array(gate, copy=False)


def test_pandas_takes_gates_other_tensors_and_facts(model: lc.Model) -> None:
    pandas = pytest.importorskip("pandas")
    gate, kernel = model["lstm"].forget_gate, model.other["layers/dense/vars/0"]
    assert pandas.DataFrame(gate).shape == (7 + 2 + 1, 2)
    assert np.array_equal(pandas.DataFrame(kernel).to_numpy(), kernel.read())
    assert list(pandas.DataFrame(lc.inspect(model).other).columns) == [
        "name",
        "shape",
        "dtype",
        "parameters",
    ]


def test_ipython_completes_layer_names(model: lc.Model) -> None:
    assert model._ipython_key_completions_() == ["lstm"]


def test_dataclasses_and_copy_take_what_is_handed_out(model: lc.Model) -> None:
    layer = model["lstm"]
    for value in (layer.forget_gate, layer.cell, layer, model, model.source, lc.inspect(model)):
        assert dataclasses.asdict(value)
        assert copy.deepcopy(value)
    assert same_bits(copy.deepcopy(model)["lstm"].forget_gate.kernel, layer.forget_gate.kernel)


def test_the_constants_of_an_activation_stay() -> None:
    constants: Any = HARD_SIGMOID_KERAS2.constants
    with pytest.raises(TypeError, match="cannot be changed"):
        constants["alpha"] = 2
    with pytest.raises(TypeError, match="cannot be changed"):
        constants.update(alpha=2)
