"""No guard refuses a real file: every fixture, and every public file of the corpus, still loads.

What is refused is named below, with the reason. `NEVER` holds files that hold no LSTM or are not
models; `NOT_YET` kinds of file that are not read today: an entry goes when its kind is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.corpus import CORPUS, IS_HERE
from support.thinned import each

import lstmconvert
from lstmconvert.errors import (
    CorruptFile,
    LSTMConvertError,
    NoLSTM,
    NotAModel,
    SourceError,
)
from lstmconvert.pergate import gatesfile

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"

NEVER: dict[str, tuple[type[LSTMConvertError], str]] = {
    "*/gru_only.keras": (NoLSTM, "gru"),
    "*/lstm_model.h5": (NoLSTM, "gru"),  # for all its name
    "*/seed95_00000.weights.h5": (NoLSTM, "lstm_cell"),  # one shard of two
    "*/seed95_00001.weights.h5": (CorruptFile, "an array of a layer is missing"),
    "*/dl4j__*_inputs_and_outputs.h5": (NotAModel, "not one that Keras wrote"),
    "*/onnx__text_format_test_lstm_defaults.onnx": (NotAModel, "a text"),
    "*/quantized.mlpackage": (SourceError, "not a constant"),
    "*/onnx__test_lstm_*.onnx": (SourceError, "does not hold the weights"),
}
NOT_YET: dict[str, type[LSTMConvertError]] = {
    "*/snakers4_silero-vad__*.onnx": CorruptFile,  # an LSTM inside an If
}

_SUFFIXES = (
    ".keras", ".h5", ".hdf5", ".weights.json", ".safetensors", ".onnx", ".json", ".index",
    ".tflite", ".mlmodel", ".param", ".params", ".mat", ".msgpack", ".eqx", ".pt",
)  # fmt: skip
_NO_MODELS = (".io.npz", ".config.json", "MANIFEST.json", "_notes.json")


def _models(root: Path) -> Iterator[Path]:
    """Every file or directory below a folder that is a model of its own."""
    for path in sorted(root.rglob("*")):
        marks = ("config.json", "Manifest.json")
        inside = any((parent / mark).exists() for parent in path.parents for mark in marks)
        is_model = path.name.endswith(_SUFFIXES) and not path.name.endswith(_NO_MODELS)
        is_bundle = path.parent.name == "variables"
        is_directory = any((path / mark).is_file() for mark in (*marks, "saved_model.pb"))
        if is_directory or (is_model and path.is_file() and not inside and not is_bundle):
            yield path


def _name(path: Path) -> str:
    if path.is_relative_to(FIXTURES):
        return f"fixtures/{path.relative_to(FIXTURES).as_posix()}"
    return f"corpus/{path.relative_to(CORPUS).as_posix()}"


OURS = list(_models(FIXTURES))
PUBLIC = list(_models(CORPUS)) if IS_HERE else []


@each("path", OURS, _name)
def test_fixture(path: Path) -> None:
    check(path)


@pytest.mark.corpus
@pytest.mark.parametrize("path", PUBLIC, ids=_name)
def test_public_file(path: Path) -> None:
    check(path)


def check(path: Path) -> None:
    """Load a file, or see that it is refused as the tables say."""
    name = _name(path)
    never = next((entry for glob, entry in NEVER.items() if fnmatch(name, glob)), None)
    not_yet = next((kind for glob, kind in NOT_YET.items() if fnmatch(name, glob)), None)
    if never is not None:
        with pytest.raises(never[0], match=never[1]):
            lstmconvert.load(path)
        return
    try:
        model = lstmconvert.load(path)
    except LSTMConvertError as error:
        if not_yet is None or not isinstance(error, not_yet):
            raise
        pytest.skip(f"not read yet: {type(error).__name__}")
    assert model.parameters["lstm"] > 0
    assert gatesfile.tensors(model, with_optimizer=True)  # nor is a name of it refused


def test_there_are_fixtures() -> None:
    assert len(OURS) > 150


@pytest.mark.corpus
def test_the_table_is_of_files_that_exist() -> None:
    names = [_name(path) for path in (*OURS, *PUBLIC)]
    assert len(names) > 200
    assert all(any(fnmatch(name, glob) for name in names) for glob in (*NEVER, *NOT_YET))
