"""PyTorch runs the weights: nn.LSTM and nn.LSTMCell, by files that torch reads, and live."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.layout_tools import BATCH, BUILDERS, SINGLE, UNITS, case, checked, close
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array, same_bits

pytestmark = pytest.mark.engines


def answer(module: torch.nn.Module, x: Array) -> tuple[Array, Array, Array]:
    with torch.no_grad():
        y, (hidden, cell) = module(torch.from_numpy(x))
    return y.numpy(), hidden.numpy(), cell.numpy()


def model_of(*layers: LSTMLayer) -> Model:
    return Model(layers=layers, source=Source(container="live"), container="live")


@pytest.mark.parametrize("name", BUILDERS)
def test_a_live_module_answers_as_keras_does(name: str) -> None:
    known = case(name)
    module = lc.to_torch(known.layer if len(known.layers) == 1 else known.layers)
    assert module.num_layers == len(known.layers)
    y, hidden, cell = answer(module, known.x)
    close(y, known.y)
    sides = 2 if known.both else 1
    for side in range(sides):
        close(hidden[side - sides], known.states[2 * side])
        close(cell[side - sides], known.states[2 * side + 1])


@pytest.mark.parametrize("name", BUILDERS)
def test_a_file_loads_into_a_module_that_torch_made(name: str, tmp_path: Path) -> None:
    known, path = case(name), tmp_path / "torch.safetensors"
    model = model_of(*known.layers)
    stack = {"stacks": ["s=layer0,layer1"]} if len(known.layers) > 1 else {}
    lc.save(model, path, layout="torch", bare=True, **stack)
    module = torch.nn.LSTM(
        known.layers[0].input_dim,
        known.layers[0].units,
        len(known.layers),
        bias="no-bias" not in name,
        batch_first=True,
        bidirectional=known.both,
    )
    module.load_state_dict(load_file(path), strict=True)
    close(answer(module, known.x)[0], known.y)


def test_a_module_with_an_attribute_of_the_layers_name_loads_its_file(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer0 = torch.nn.LSTM(5, UNITS, batch_first=True)

    known, path = case("plain"), tmp_path / "net.safetensors"
    lc.save(model_of(known.layer), path, layout="torch")
    net = Net()
    net.load_state_dict(load_file(path), strict=True)
    close(answer(net.layer0, known.x)[0], known.y)


@pytest.mark.parametrize("name", SINGLE)
def test_a_cell_steps_as_keras_does(name: str) -> None:
    known = case(name)

    def run(arrays: Any, x: Array) -> Array:
        width = arrays["weight_hh"].shape[1]
        cell = torch.nn.LSTMCell(x.shape[-1], width, bias="bias_ih" in arrays)
        cell.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()})
        state = (torch.zeros(BATCH, width), torch.zeros(BATCH, width))
        outputs = []
        with torch.no_grad():
            for step in range(x.shape[1]):
                state = cell(torch.from_numpy(x[:, step]), state)
                outputs.append(state[0].numpy())
        return np.stack(outputs, 1)

    checked(known, run, "torch-cell")


def test_a_live_cell() -> None:
    known = case("plain")
    cell = lc.to_torch(known.layer, cell=True)
    with torch.no_grad():
        hidden, _ = cell(torch.from_numpy(known.x[:, 0]))
    close(hidden.numpy(), known.y[:, 0])
    assert same_bits(lc.from_torch(cell).forget_gate.kernel, known.layer.forget_gate.kernel)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_projection_runs_and_comes_back() -> None:
    rng = np.random.default_rng(3)
    cells = [make_cell(rng, 5, 4, projected=2) for _ in range(2)]
    layer = make_layer(cells[0], cells[1], return_sequences=True)
    module = lc.to_torch(layer)
    assert module.proj_size == 2
    x = rng.normal(size=(3, 6, 5)).astype(np.float32)
    close(answer(module, x)[0], reference.run(layer, x).outputs[0])
    again = lc.from_torch(module)
    assert isinstance(again, LSTMLayer)
    for side in ("forward", "backward"):
        one = getattr(layer, side).cells[0].parts["projection"].read()
        assert same_bits(getattr(again, side).cells[0].parts["projection"].read(), one)


def test_a_stack_of_cells_is_a_stack_of_layers() -> None:
    rng = np.random.default_rng(4)
    layer = make_layer([make_cell(rng, 5, 4), make_cell(rng, 4, 4)], return_sequences=True)
    module = lc.to_torch(layer)
    assert module.num_layers == 2
    x = rng.normal(size=(3, 6, 5)).astype(np.float32)
    close(answer(module, x)[0], reference.run(layer, x).outputs[0])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_keep_their_bits(dtype: str) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 5, 4, dtype=dtype))
    module = lc.to_torch(layer)
    assert str(module.weight_ih_l0.dtype) == f"torch.{dtype}"
    again = lc.from_torch(module)
    for (name, one), (_, two) in zip(layer.cell.tensors(), again.cell.tensors(), strict=True):
        assert same_bits(one.read(), two.read()), name


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_torchs_own_module_runs_in_keras(bias: bool, count: int, both: bool) -> None:
    """Two random biases, which Keras has no place for: a declared rounding loss."""
    torch.manual_seed(7)
    module = torch.nn.LSTM(5, 4, count, bias=bias, batch_first=True, bidirectional=both)
    found = lc.from_torch(module)
    layers = list(found.values()) if isinstance(found, Model) else [found]
    assert len(layers) == count
    x = np.random.default_rng(2).normal(size=(3, 6, 5)).astype(np.float32)
    y = x
    for number, layer in enumerate(layers):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            keras_layer = lc.to_keras(layer)
        assert any("summed, rounded" in str(w.message) for w in caught) is bias
        is_last = number == count - 1
        assert layer.forward.options.return_sequences is not is_last
        y = np.asarray(keras_layer(y))
    wanted, hidden, _ = answer(module, x)
    last = np.concatenate([hidden[-2], hidden[-1]], -1) if both else hidden[-1]
    close(y, last)
    assert wanted.shape[-1] == y.shape[-1]


@pytest.mark.parametrize("both", [False, True])
def test_a_module_comes_back_bit_for_bit(both: bool) -> None:
    torch.manual_seed(8)
    module = torch.nn.LSTM(5, 4, 2, batch_first=True, bidirectional=both)
    again = lc.to_torch(list(lc.from_torch(module).values()))
    state, wanted = again.state_dict(), module.state_dict()
    assert list(state) == list(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


def test_modules_inside_a_module_are_found_by_their_paths() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LSTM(5, 4))
            self.step = torch.nn.LSTMCell(4, 2)

    found = lc.from_torch(Net())
    assert list(found) == ["encoder/1", "step"]
    assert isinstance(lc.to_torch(found)["step"], torch.nn.LSTM)


def test_what_is_no_module_or_has_no_lstm_is_refused() -> None:
    with pytest.raises(lc.LSTMConvertError, match=r"not a torch\.nn\.Module"):
        lc.from_torch("a module")
    with pytest.raises(lc.LSTMConvertError, match=r"no LSTM in it; found Linear"):
        lc.from_torch(torch.nn.Linear(2, 2))


class TestFilesOfTorch:
    """`.pt`, as PyTorch writes it and reads it: see `tests/containers/test_torchfile.py`, too."""

    def write(self, path: Path, value: Any) -> Path:
        torch.save(value, path)
        return path

    def test_a_state_dict(self, tmp_path: Path) -> None:
        module = torch.nn.LSTM(5, 4, 2, bidirectional=True)
        path = self.write(tmp_path / "m.pt", {"state_dict": {"rnn": module.state_dict()}, "n": 3})
        model = lc.load(path)
        assert list(model) == ["rnn_l0", "rnn_l1"]
        kernel = model["rnn_l1"].backward.cells[0].forget_gate.kernel
        wanted = module.weight_ih_l1_reverse.detach().numpy()[4:8].T
        assert same_bits(kernel, np.ascontiguousarray(wanted))

    def test_converts_to_per_gate_and_back_to_keras(self, tmp_path: Path) -> None:
        module = torch.nn.LSTM(5, 4, batch_first=True)
        path = self.write(tmp_path / "m.pth", module.state_dict())
        lc.convert(path, tmp_path / "gates.safetensors")
        result = lc.convert(tmp_path / "gates.safetensors", tmp_path / "m.keras")
        said = [text for text in result.warnings if "assumed" in text]
        assert "return_sequences=False" in said[0]
        import keras

        model = keras.saving.load_model(tmp_path / "m.keras")
        x = np.random.default_rng(2).normal(size=(3, 6, 5)).astype(np.float32)
        close(np.asarray(model(x)), answer(module, x)[1][-1])

    @pytest.mark.parametrize("both", [False, True])
    def test_onnx_gives_all_that_the_module_gives(self, both: bool, tmp_path: Path) -> None:
        """What PyTorch returns is not an option of its module: nothing is guessed, all is given."""
        onnxruntime = pytest.importorskip("onnxruntime")
        module = torch.nn.LSTM(5, 4, batch_first=True, bidirectional=both)
        path = self.write(tmp_path / "m.pt", module.state_dict())
        result = lc.convert(path, tmp_path / "m.onnx")
        assert [text for text in result.warnings if "unknown: the graph gives" in text]
        x = np.random.default_rng(2).normal(size=(3, 6, 5)).astype(np.float32)
        session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
        steps, *states = session.run(None, {"lstm.x": x})
        with torch.no_grad():
            wanted, (hidden, carry) = module(torch.from_numpy(x))
        close(steps, wanted.numpy())
        for k in range(1 + both):
            close(states[2 * k], hidden[k].numpy())
            close(states[2 * k + 1], carry[k].numpy())
        again = lc.load(tmp_path / "m.onnx")["lstm"].forward.options
        assert again.return_state is lc.load(path)["lstm"].forward.options.return_state
        assert lc.diff(path, tmp_path / "m.onnx")
        sure = lc.convert(path, tmp_path / "n.onnx", settings=["return_state=true"])
        assert not any("return_state" in text for text in sure.warnings)

    def test_without_checksums(self, tmp_path: Path) -> None:
        state = torch.nn.LSTM(5, 4).state_dict()
        torch.serialization.set_crc32_options(False)
        try:
            path = self.write(tmp_path / "m.pt", state)
        finally:
            torch.serialization.set_crc32_options(True)
        result = lc.convert(path, tmp_path / "m.safetensors")
        assert "without checksums" in " ".join(result.warnings)
        kernel = lc.load(path)["lstm"].forget_gate.kernel
        assert same_bits(kernel, np.ascontiguousarray(state["weight_ih_l0"].numpy()[4:8].T))
        data = bytearray(self.write(tmp_path / "n.pt", state).read_bytes())
        assert "without" not in " ".join(lc.load(tmp_path / "n.pt").notes)
        data[data.index(state["weight_hh_l0"].numpy().tobytes())] ^= 1
        (tmp_path / "n.pt").write_bytes(data)
        with pytest.raises(lc.LSTMConvertError, match="bad CRC-32"):
            lc.load(tmp_path / "n.pt")

    def test_a_pickle_that_runs_code_does_not_run_it(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return (Path(tmp_path / "ran").touch, ())

        path = self.write(tmp_path / "evil.pt", {"weight_ih_l0": Evil()})
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path)
        assert not (tmp_path / "ran").exists()

    def test_without_tensors(self, tmp_path: Path) -> None:
        with pytest.raises(lc.LSTMConvertError, match="no tensors"):
            lc.load(self.write(tmp_path / "m.pt", {"a": 1}))
