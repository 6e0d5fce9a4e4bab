"""One check of a cell: what one reader refuses, every reader refuses, and names the arrays.

Each fault is put into the arrays of a cell as a framework or file keeps them, written with a
library that is not ours (h5py, safetensors, NumPy, onnx, torch), and read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from support.crafted_safetensors import unsealed
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert.errors import CorruptFile
from lstmconvert.model import wellformed
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import Cell, LSTMLayer, weights_of
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.tensor import ArrayTensor

Arrays = dict[str, Any]
INPUTS, UNITS = 3, 2


def layer(**options: Any) -> LSTMLayer:
    return make_layer(make_cell(np.random.default_rng(3), INPUTS, UNITS, **options))


# ---- faults of a file's arrays ------------------------------------------------------------------


def of_two_dtypes(arrays: Arrays) -> Arrays:
    last = list(arrays)[-1]
    return {**arrays, last: arrays[last].astype("f8")}


def of_integers(arrays: Arrays) -> Arrays:
    return {name: np.round(array).astype("i4") for name, array in arrays.items()}


def without_inputs(arrays: Arrays) -> Arrays:
    """Every axis of the input's width has length 0; one of inputs and state has the state's."""
    sizes = {INPUTS: 0, INPUTS + UNITS: UNITS}
    return {name: _resized(array, sizes) for name, array in arrays.items()}


def without_units(arrays: Arrays) -> Arrays:
    """Every axis that counts units has length 0."""
    sizes = {UNITS * count: 0 for count in (1, 4, 8)}
    return {name: _resized(array, sizes) for name, array in arrays.items()}


def _resized(array: Any, sizes: dict[int, int]) -> Any:
    return np.zeros([sizes.get(size, size) for size in array.shape], array.dtype)


FAULTS: dict[str, Callable[[Arrays], Arrays]] = {
    "two dtypes": of_two_dtypes,
    "integers": of_integers,
    "no inputs": without_inputs,
    "no units": without_units,
}
LAYOUTS = ("torch", "torch-cell", "flax", "nnx-optimized", "keras", "mlx", "onnx", "haiku", "gates")


def _message(path: Path, layout: str | None = None) -> str:
    with pytest.raises(CorruptFile) as caught:
        lc.load(path, layout=layout)
    return str(caught.value)


@each("fault", FAULTS)
@each("layout", LAYOUTS)
@each("suffix", [".safetensors", ".npz"])
def test_arrays_of_a_framework(fault: str, layout: str, suffix: str, tmp_path: Path) -> None:
    options = {"forget_bias": 1.0} if layout == "haiku" else {}
    arrays = FAULTS[fault](lc.arrange(layer(**options), layout))
    if layout == "gates":
        arrays = {f"lstm.{name}": array for name, array in arrays.items()}
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        safetensors.numpy.save_file(arrays, path)
    text = _message(path, layout)
    assert any(name.removeprefix("lstm.") in text for name in arrays), text


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_keras_files(fault: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    model = Model(layers=(layer(),), source=Source(container="live"), container="live")
    lc.save(replace(model, layers=(with_options(model.layers[0]),)), path)
    with h5py.File(path, "r+") as file:
        places: dict[str, str] = {}
        file.visititems(lambda name, item: _note(places, name, item))
        arrays = {name: file[name][()] for name in places}
        for name, array in FAULTS[fault](arrays).items():
            del file[name]
            file[name] = array
    _message(path)


def _note(places: dict[str, str], name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
        places[name] = name


def with_options(value: LSTMLayer) -> LSTMLayer:
    cells = tuple(
        replace(cell, options=replace(cell.options, use_bias=True))
        for cell in value.forward.lstm_cells
    )
    return replace(value, forward=replace(value.forward, cells=cells))


@pytest.mark.parametrize("fault", FAULTS)
def test_an_onnx_graph(fault: str, tmp_path: Path) -> None:
    arrays = FAULTS[fault](lc.arrange(layer(gate_parts=("bias", "recurrent_bias")), "onnx"))
    node = helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], "lstm")
    values = [numpy_helper.from_array(arrays[name], name) for name in ("W", "R", "B")]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        values,
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert "W " in _message(tmp_path / "m.onnx")


@pytest.mark.engines
def test_a_live_module() -> None:
    torch = pytest.importorskip("torch")
    for change in (
        lambda module: module.bias_hh_l0.data.double(),
        lambda module: module.bias_hh_l0.data.to(torch.complex64),
    ):
        module = torch.nn.LSTM(INPUTS, UNITS)
        module.bias_hh_l0.data = change(module)
        with pytest.raises(CorruptFile, match="bias_hh_l0"):
            lc.from_torch(module)


# ---- all gates or none --------------------------------------------------------------------------


@each("part", ["bias", "recurrent_bias", "layer_norm", "peephole"])
@each("gate", [Gate.INPUT, Gate.FORGET, Gate.OUTPUT])
def test_a_part_is_in_every_gate_or_in_none(part: str, gate: Gate) -> None:
    cell = make_cell(np.random.default_rng(1), INPUTS, UNITS, gate_parts=(part,))
    wellformed.check_cell(cell, "here")
    tensors = {g: dict(weights.tensors) for g, weights in cell.gates.items()}
    del tensors[gate][part]
    less = replace(cell, gates=weights_of(tensors))
    words = f"here: .*the {gate} gate has no {part}, and other gates have one; found input_gate"
    with pytest.raises(CorruptFile, match=words):
        wellformed.check_cell(less, "here")


def test_a_second_bias_in_some_gates_of_an_edited_file(tmp_path: Path) -> None:
    """The metadata say one bias. An edit of the second one counts in all gates, or is refused."""
    path = tmp_path / "x.safetensors"
    model = Model(layers=(layer(),), source=Source(container="live"), container="live")
    lc.save(model, path, layout="torch")
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load_file(path)
    arrays["lstm.bias_hh_l0"][0] = 0.5  # of the input gate's first unit
    safetensors.numpy.save_file(arrays, path, {k: v for k, v in metadata.items() if v})
    found = lc.load(path)["lstm"]
    assert found.input_gate.recurrent_bias is not None
    assert found.input_gate.recurrent_bias[0] == 0.5
    for gate in GATES[1:]:
        second = found.cell.gates[gate].recurrent_bias
        assert second is not None
        assert not second.any()
    for suffix in (".keras", ".onnx", ".safetensors"):
        lc.convert(path, tmp_path / f"back{suffix}")


def test_a_second_bias_in_some_gates_of_a_per_gate_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    value = layer(gate_parts=("bias", "recurrent_bias"))
    lc.save(Model(layers=(value,), source=Source(container="live"), container="live"), path)
    with safetensors.safe_open(path, "np") as file:
        stored = json.loads(file.metadata()["lstmconvert"])
    arrays = safetensors.numpy.load_file(path)
    name = next(name for name in arrays if name.endswith("forget_gate.recurrent_bias"))
    del arrays[name]
    for item in stored["layers"]:
        item["tensors"].pop(name, None)
        for cell in item["directions"]["forward"]["cells"]:
            cell["shapes"].pop("forget_gate.recurrent_bias", None)
    texts = {"lstmconvert": json.dumps(unsealed(stored))}
    safetensors.numpy.save_file(arrays, path, texts)
    assert "the forget gate has no recurrent_bias" in _message(path)


# ---- shapes -------------------------------------------------------------------------------------


def _cell(**changed: Any) -> Cell:
    """A cell one of whose arrays has another shape in every gate, or as a part of the cell."""
    cell = make_cell(
        np.random.default_rng(2), INPUTS, UNITS, gate_parts=("bias", "peephole", "layer_norm")
    )
    tensors = {
        gate: {
            part: ArrayTensor(np.ones(changed.get(part, tensor.shape), "f4"))
            for part, tensor in weights.tensors.items()
        }
        for gate, weights in cell.gates.items()
    }
    parts = {
        part: ArrayTensor(np.ones(shape, "f4"))
        for part, shape in changed.items()
        if part not in tensors[Gate.INPUT]
    }
    return replace(cell, gates=weights_of(tensors), parts=parts)


@each(
    "changed",
    [
        {"kernel": (UNITS,)},
        {"kernel": (3, INPUTS, UNITS)},
        {"kernel": (INPUTS, UNITS + 1)},
        {"recurrent_kernel": (UNITS + 1, UNITS)},
        {"bias": (1, UNITS)},
        {"peephole": (UNITS, UNITS)},
        {"layer_norm": ()},
        {"projection": (UNITS, 1)},
        {"projection": ()},
        {"projection": (UNITS, UNITS), "projection_bias": (1,)},
        {"state_norm": (1,)},
        {"initial_hidden": (1, UNITS)},
        {"initial_cell": (UNITS + 1,)},
    ],
)
def test_shapes_that_do_not_fit_each_other(changed: dict[str, Any]) -> None:
    wellformed.check_cell(_cell(), "here")
    with pytest.raises(CorruptFile, match="not the arrays of one LSTM cell"):
        wellformed.check_cell(_cell(**changed), "here")


def test_the_options_and_the_arrays_agree_on_the_bias() -> None:
    for parts, said in (((), True), (("bias",), False)):
        cell = make_cell(np.random.default_rng(1), 3, 2, gate_parts=parts, use_bias=said)
        with pytest.raises(CorruptFile, match=f"use_bias={said} and the stored biases contradict"):
            wellformed.check_cell(cell, "here")


def test_a_keras_archive_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    lc.save(
        Model(layers=(with_options(layer()),), source=Source(container="live"), container="live"),
        path,
    )
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    store = tmp_path / "store.h5"
    store.write_bytes(entries["model.weights.h5"])
    with h5py.File(store, "r+") as file:
        places: dict[str, str] = {}
        file.visititems(lambda name, item: _note(places, name, item))
        first = next(iter(places))
        array = file[first][()]
        del file[first]
        file[first] = array.astype("i8")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**entries, "model.weights.h5": store.read_bytes()}.items():
            archive.writestr(name, data)
    assert "the same in all" in _message(path)
