"""A bounded run of the fuzzer (fuzz.py makes longer ones), and truncations of small files.

With LSTMCONVERT_TESTS=all there are more mutants, and every file is cut at every offset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import h5py
import pytest
from support import fuzz, fuzz_targets, mutate
from support.crafted import members, zipped
from support.thinned import ALL

import lstmconvert
from lstmconvert.containers import table
from lstmconvert.errors import LSTMConvertError
from lstmconvert.files import writing, zipmembers
from lstmconvert.tensorflow.formats import checkpoint
from lstmconvert.tensors import tensor as tensor_module
from lstmconvert.tensors.tensor import SourceFile

SEED = 20240229
COUNT = 100 if ALL else 25


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some targets change how files are read in this process: that ends with the test."""
    for owner, name in (
        *((module, "_CHECK_NOW") for module in (zipmembers, checkpoint)),
        (writing, "WORTH_A_THREAD"),
        (tensor_module, "_NEAR"),
        (SourceFile, "_read"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))


#: What is left with a note where it is damaged: no number depends on it.
LEFT = {"checkpoint-graph"}
#: Whose files take several times as long as the others to read.
LARGER = {"keras-config", "checkpoint-graph"}


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_mutants(name: str) -> None:
    count = COUNT // 4 if name in LARGER else COUNT
    tally = fuzz.fuzz(name, SEED, count)
    assert not tally.findings, "\n".join(tally.findings)
    assert tally.total == count
    assert tally.refused > count // 20 or name in LEFT  # they are mutants
    assert tally.accepted + tally.refused >= count - 2


#: The targets whose files no other target has.
CUT = [
    name for name in fuzz.TARGETS
    if not name.endswith(("-tree", "-config", "-metadata", "-header", "-files", "-members",
                          "-records", "-nodes", "-graph", "-large", "-failing"))
]  # fmt: skip
#: The file of this one is made in this process, by PyTorch.
MADE = {"pt": pytest.mark.engines}
#: Of these a part can be a whole: an array less, or our own text.
OPEN = {"onnx", "onnx-data", "tflite", "params", "mat", "mat-compressed", "ncnn", "eqx",
        "savedmodel", "mlpackage"}  # fmt: skip


#: So many lengths at a file's start and end, and about so many between them.
ENDS, BETWEEN = 64, 150


def lengths(path: Path) -> Iterable[int]:
    every = fuzz.every_length(path)
    if ALL:
        return every
    step = len(every) // BETWEEN | 1  # odd: lengths of every alignment
    return {*every[:ENDS], *every[::step], *every[-ENDS:]}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=MADE.get(n, ())) for n in CUT])
def test_truncations(name: str, tmp_path: Path) -> None:
    accepted = [what for what, kept in fuzz.truncated(name, tmp_path, lengths) if kept]
    assert not accepted or name in OPEN, accepted[:9]


# What the longer runs found.


def test_two_layers_of_one_name(tmp_path: Path) -> None:
    config = json.loads(members("zoo.keras")["config.json"])
    layers = config["config"]["layers"]
    layers.append(next(layer for layer in layers if layer["class_name"] == "RNN"))
    path, destination = tmp_path / "twice.keras", tmp_path / "twice.h5"
    path.write_bytes(zipped({**members("zoo.keras"), "config.json": json.dumps(config).encode()}))
    with pytest.raises(LSTMConvertError, match="cannot hold two layers of one name"):
        lstmconvert.convert(path, destination)
    assert not destination.exists()


def test_half_a_bidirectional_without_cells(tmp_path: Path) -> None:
    config = json.loads(members("zoo.keras")["config.json"])
    layers = config["config"]["layers"]
    both = next(layer for layer in layers if layer["class_name"] == "Bidirectional")
    stack = {"class_name": "StackedRNNCells", "config": {}}
    both["config"]["backward_layer"] = {"class_name": "RNN", "config": {"cell": stack}}
    path = tmp_path / "half.keras"
    path.write_bytes(zipped({**members("zoo.keras"), "config.json": json.dumps(config).encode()}))
    with pytest.raises(LSTMConvertError, match="half of a Bidirectional has no cells"):
        lstmconvert.load(path)


def test_a_null_character_in_a_layers_name(tmp_path: Path) -> None:
    config = members()["config.json"].replace(b'"dense"', b'"de\\u0000nse"')
    path, destination = tmp_path / "null.keras", tmp_path / "null.h5"
    path.write_bytes(zipped({**members(), "config.json": config}))
    with pytest.raises(LSTMConvertError, match="cannot hold a text with a null character"):
        lstmconvert.convert(path, destination)
    assert not destination.exists()


@pytest.mark.parametrize("digits", [20, 400])
@pytest.mark.parametrize("layout", ["torch", "rtneural"])
def test_an_integer_that_no_float_holds(layout: str, digits: int, tmp_path: Path) -> None:
    path = tmp_path / "valid.json"
    lstmconvert.convert(fuzz_targets.FIXTURES / "seed95.keras", path, layout=layout)
    text = path.read_text()
    number = re.search(r"-?\d\.\d{3,}(e-\d+)?", text)
    assert number is not None
    path.write_text(text.replace(number[0], "1" * digits, 1))
    with pytest.raises(LSTMConvertError, match="an integer that no float holds"):
        lstmconvert.load(path)


# The fuzzer itself must be able to fail.


def test_other_numbers_are_a_finding(tmp_path: Path) -> None:
    path = fuzz.TARGETS["weights"].make(tmp_path)
    model = lstmconvert.load(path)
    fuzz_targets.same_as_h5py(model, path)
    changed = tmp_path / "changed.h5"
    changed.write_bytes(path.read_bytes())
    with h5py.File(changed, "r+") as file:
        file["layers/lstm/cell/vars/0"][0, 0] += 1
    with pytest.raises(fuzz_targets.Finding, match="vars/0"):
        fuzz_targets.same_as_h5py(model, changed)
    valid = fuzz.everything(model)
    with pytest.raises(fuzz_targets.Finding):
        fuzz.TARGETS["keras"].agree(lstmconvert.load(changed), changed, valid)


def test_an_untyped_error_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = fuzz.TARGETS["keras"]
    valid = target.make(tmp_path)
    content = fuzz.everything(lstmconvert.load(valid))

    def broken(path: Path) -> None:
        raise KeyError("x")

    monkeypatch.setattr(lstmconvert, "load", broken)
    with pytest.raises(KeyError):
        fuzz.examine(target, valid, content, mutate.dice(1))


#: Whose files another program makes in seconds. They are mutated as others are.
SLOWLY_MADE = {"checkpoint-graph", "pt"}


@pytest.mark.engines
def test_mutants_are_repeatable(tmp_path: Path) -> None:
    for name in fuzz.TARGETS.keys() - (set() if ALL else SLOWLY_MADE):
        pairs = []
        target = fuzz.TARGETS[name]
        (tmp_path / name).mkdir()
        valid = target.make(tmp_path / name)
        for folder in (tmp_path / f"{name}-1", tmp_path / f"{name}-2"):
            folder.mkdir()
            path = target.mutate(valid, folder, mutate.dice(name, 1, 2))
            paths = sorted(path.rglob("*.*")) if path.is_dir() else [path]
            pairs.append([each.read_bytes() for each in paths if each.is_file()])
        if "tree" not in name and name != "legacy-config":  # HDF5 keeps times and addresses
            assert pairs[0] == pairs[1], name
    suffixes = {path.name.partition(".")[2] for path in tmp_path.rglob("*")}
    assert {row.suffixes[0].lstrip(".") for row in table.read() if row.suffixes} <= suffixes


def test_json_mutations_reach_everything() -> None:
    value = {"a": [1, {"b": 2}], "c": "d"}
    found = {str(mutate.mutate_json(value, mutate.dice(seed))) for seed in range(300)}
    assert len(found) > 100
    assert value == {"a": [1, {"b": 2}], "c": "d"}
