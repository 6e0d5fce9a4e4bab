"""A `.pt` is read without PyTorch, as PyTorch itself reads it; and nothing in it runs."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmconvert as lc
from lstmconvert.containers import torchfile
from lstmconvert.containers.modules import Opened

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.engines
SEED95 = Path("fixtures/keras-3.15.1/seed95.keras")


class Amplifier(torch.nn.Module):
    """A recurrent network of two directions, and a head. The second half is unlike the first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.rec = torch.nn.LSTM(7, 3, 2, batch_first=True, bidirectional=True)
        self.norm = torch.nn.BatchNorm1d(6)
        self.lin = torch.nn.Linear(6, 5)
        self.register_buffer("scratch", torch.zeros(4), persistent=False)


def arrays_of(path: Path) -> dict[str, Any]:
    return {name: tensor.read() for name, tensor in read(path).tensors.items()}


def read(path: Path) -> Any:
    return torchfile.read(Opened(path))


def assert_same(path: Path, expected: dict[str, Any]) -> None:
    """Every tensor of PyTorch's, by name, in its order, bit for bit, and no other."""
    arrays = arrays_of(path)
    assert list(arrays) == list(expected)
    for name, tensor in expected.items():
        array, dense = arrays[name], tensor.detach().contiguous()
        assert array.shape == tuple(dense.shape), name
        assert array.dtype.name == str(dense.dtype).removeprefix("torch."), name
        raw = dense.reshape(-1).view(torch.uint8).numpy() if dense.numel() else np.zeros(0, "u1")
        assert array.tobytes() == raw.tobytes(), name


#: How a state_dict lies in a file, and the notes that say what is left out.
FORMS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "alone": (lambda _, state: state, ()),
    "tutorial": (
        lambda module, state: {
            "epoch": 3,
            "model_state_dict": state,
            "optimizer_state_dict": _optimizer(module),
            "loss": 0.25,
        },
        ("tensors of an optimizer", "'model_state_dict.'"),
    ),
    "imagenet": (
        lambda module, state: {
            "epoch": 90,
            "arch": "lstm",
            "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
            "best_acc1": torch.tensor(3.0).item(),
            "optimizer": _optimizer(module),
            "args": argparse.Namespace(lr=0.1, data="x"),
        },
        ("tensors of an optimizer", "argparse.Namespace", "'state_dict.'", "'module.'"),
    ),
    "lightning": (
        lambda module, state: {
            "epoch": 1,
            "global_step": 30,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
            "optimizer_states": [_optimizer(module)],
            "hyper_parameters": {"lr": 0.1},
        },
        ("tensors of an optimizer", "'state_dict.'", "'model.'"),
    ),
    "compiled": (
        lambda _, state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        ("'_orig_mod.'",),
    ),
    "module": (lambda module, _: module, ()),
    "wrapped": (lambda module, _: torch.nn.DataParallel(module), ("'module.'",)),
    "module in a checkpoint": (
        lambda module, _: {"model": module, "best": np.float64(3.5)},
        ("'model.'",),
    ),
}


def _optimizer(module: Any) -> dict[str, Any]:
    optimizer = torch.optim.Adam(module.parameters())
    module.rec(torch.randn(2, 4, 7))[0].sum().backward()
    optimizer.step()
    state: dict[str, Any] = optimizer.state_dict()
    return state


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, old: bool, tmp_path: Path) -> None:
    module = Amplifier()
    make, notes = FORMS[form]
    path = tmp_path / "m.pt"
    saved = make(module, module.state_dict())
    torch.save(saved, path, _use_new_zipfile_serialization=not old)
    assert_same(path, module.state_dict())
    told = " / ".join(read(path).notes)
    assert all(note in told for note in notes), told
    assert len(read(path).notes) == len(notes) + old, told
    assert list(lc.load(path)) == ["rec_l0", "rec_l1"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_dtypes_strides_and_shared_storages(protocol: int, old: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    base = torch.randn(6, 8)
    state: dict[str, Any] = {
        "turned": base.T,
        "columns": base[:, 2:5],
        "rows": base[3:],
        "every second": base[::2, 1::3],
        "repeated": base[0:1, 0:1].expand(3, 4),
        "scalar": base[2, 3],
        "none": base[0:0],
        "three axes": torch.randn(2, 3, 4).permute(2, 0, 1),
        "parameter": torch.nn.Parameter(base[1:3]),
    }
    kinds = ["float16", "float64", "bfloat16", "int64", "int32", "int16", "int8", "uint8"]
    for kind in kinds:
        state[kind] = (torch.randn(3, 5) * 50).to(getattr(torch, kind))
    state["bool"] = torch.tensor([True, False])
    path = tmp_path / "m.pt"
    torch.save(
        state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not old
    )
    assert_same(path, state)


def test_no_pytorch_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch.nn.LSTM(3, 2).state_dict(), path)
    program = (
        f"import sys, lstmconvert as lc; lc.load({str(path)!r})['lstm'].forget_gate.kernel;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
        (lambda: torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8), "qtensor"),
        (lambda: torch.empty(3, device="meta"), "_rebuild_meta_tensor"),
        (lambda: torch.randn(3, dtype=torch.complex64).conj(), "conjugated"),
        (lambda: torch._neg_view(torch.randn(3)), "negated"),
    ],
)
def test_a_tensor_that_is_no_plain_array_is_named(make: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({**torch.nn.LSTM(3, 2).state_dict(), "odd": make()}, path)
    with pytest.raises(lc.CorruptFile, match="odd: ") as caught:
        lc.load(path)
    assert kind in str(caught.value)


def test_two_models_keep_the_names_of_both(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"model": torch.nn.LSTM(3, 2).state_dict(), "ema": Amplifier().state_dict()}, path)
    assert list(lc.load(path)) == ["model", "ema/rec_l0", "ema/rec_l1"]


@pytest.mark.parametrize("name", ["model", "net", "module_"])
def test_a_module_of_a_common_name_keeps_it(name: str, tmp_path: Path) -> None:
    """Only a dictionary's key is left out, not the first part of every name."""
    path = tmp_path / "m.pt"
    torch.save(torch.nn.ModuleDict({name: torch.nn.LSTM(3, 2)}).state_dict(), path)
    assert list(lc.load(path)) == [name]
    assert not lc.load(path).notes


def test_a_file_before_1_6_that_is_cut_or_longer(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    state = torch.nn.LSTM(3, 2).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    weights = sum(tensor.numel() * 4 + 8 for tensor in state.values())
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path)
    for data in (whole + b"\0", whole[: -weights - 1] + whole[-weights:]):
        path.write_bytes(data)
        with pytest.raises(lc.LSTMConvertError):
            lc.load(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_storage_that_is_not_there(old: bool, tmp_path: Path) -> None:
    """PyTorch itself gives whatever lay in memory for one that no list names."""
    path = tmp_path / "m.pt"
    torch.save(torch.nn.LSTM(3, 2).state_dict(), path, _use_new_zipfile_serialization=not old)
    if old:
        data = path.read_bytes()
        at = data.rindex(b"\x80\x02]")  # the pickle of the list of storages
        keys = pickle.loads(data[at:])
        rest = data[at + len(pickle.dumps(keys, 2)) :]
        path.write_bytes(data[:at] + pickle.dumps(keys[:-1], 2) + rest)
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                if not name.endswith("data/0"):
                    archive.writestr(name, data)
    with pytest.raises(lc.CorruptFile):
        lc.load(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_file_that_changes_after_it_was_opened(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch.nn.LSTM(3, 2).state_dict(), path, _use_new_zipfile_serialization=not old)
    arrays = read(path)
    arrays.check()
    os.utime(path, ns=(1, 1))
    with pytest.raises(lc.CorruptFile, match="changed"):
        arrays.check()


class _Runs:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("old", [False, True])
def test_nothing_in_it_runs(old: bool, tmp_path: Path) -> None:
    state = torch.nn.LSTM(3, 2).state_dict()
    path, sentinel = tmp_path / "m.pt", tmp_path / "ran"
    saved = {"args": _Runs(sentinel), "state_dict": state}
    torch.save(saved, path, _use_new_zipfile_serialization=not old)
    assert_same(path, state)
    assert not sentinel.exists()


def test_a_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(2, 3)).save(path)
    with pytest.raises(lc.LSTMConvertError, match="TorchScript"):
        lc.load(path)


@pytest.mark.parametrize("member", ["data.pkl", "x/data.pkl"])
def test_no_member_of_an_archive_imports_pytorch(member: str, tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    path.write_bytes(SEED95.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"\x80\x02N.")
    load = f"import sys, lstmconvert as lc; lc.load({str(path)!r})"
    program = f"{load}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
