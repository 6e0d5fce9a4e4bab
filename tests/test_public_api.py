"""The public face: what `import lstmconvert as lc` offers."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.thinned import each

import lstmconvert
from lstmconvert.containers import table

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(lstmconvert.__path__, "lstmconvert.")
    if not info.name.endswith("__main__")
)


def test_all_is_sorted_and_short() -> None:
    assert lstmconvert.__all__ == sorted(lstmconvert.__all__)
    errors = {name for name in lstmconvert.__all__ if name in vars(lstmconvert.errors)}
    assert len(set(lstmconvert.__all__) - errors) <= 24


def test_every_error_is_public() -> None:
    errors = vars(importlib.import_module("lstmconvert.errors"))
    kinds = {k for k, v in errors.items() if isinstance(v, type) and issubclass(v, Exception)}
    assert kinds <= set(lstmconvert.__all__)


def test_load_names_everything_that_it_opens() -> None:
    for suffix in table.main_suffixes(table.read()):
        assert f"`{suffix}`" in str(lstmconvert.load.__doc__), suffix


@each("name", lstmconvert.__all__)
def test_every_public_name_is_there_documented_and_at_home(name: str) -> None:
    value = getattr(lstmconvert, name)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("lstmconvert.")
    assert getattr(importlib.import_module(value.__module__), name) is value


def test_dir_lists_them() -> None:
    assert set(lstmconvert.__all__) <= set(dir(lstmconvert))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lstmconvert.nothing


def test_the_names_of_the_design() -> None:
    wanted = {"load", "save", "convert", "diff", "from_keras", "to_keras", "Model", "LSTMLayer"}
    wanted |= {"arrange", "gather", "to_torch", "from_torch", "verify"}
    assert wanted <= set(lstmconvert.__all__)


def test_public_classes_survive_pickling() -> None:
    error = lstmconvert.LSTMConvertError("what", where="here", hint="there")
    again = pickle.loads(pickle.dumps(error))  # our own
    assert (str(again), again.hint) == (str(error), "there")


@each("name", MODULES)
def test_every_module_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, name
    for key, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == name and not key.startswith("_")
        if is_own and inspect.isclass(value):
            assert value.__doc__, f"{name}.{key}"


@pytest.mark.parametrize(
    "name",
    [
        "lstmconvert",
        "lstmconvert.checks.compare",
        "lstmconvert.checks.formats",
        "lstmconvert.checks.inspection",
        "lstmconvert.layouts.plain",
        "lstmconvert.model.layer",
        "lstmconvert.model.model",
    ],
)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", ["zoo.keras", "fitted.h5", "seed95.npz.keras"])
def test_a_model_is_pickled_with_its_arrays(name: str, tmp_path: Path) -> None:
    """As for a process pool: its arrays and the hash of its source come along."""
    model = lstmconvert.load(Path("fixtures/keras-3.15.1") / name)
    data = pickle.dumps(model)
    again = pickle.loads(data)
    assert lstmconvert.diff(model, again)
    assert again.source.sha256 == model.source.sha256
    for number, one in enumerate((model, again)):
        lstmconvert.save(one, tmp_path / f"{number}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    text = (
        "import pickle, sys, lstmconvert\n"
        "model = pickle.load(sys.stdin.buffer)\n"
        f"lstmconvert.save(model, {str(tmp_path / '2.safetensors')!r})"
    )
    subprocess.run([sys.executable, "-c", text], input=data, check=True)
    assert (tmp_path / "2.safetensors").read_bytes() == (tmp_path / "0.safetensors").read_bytes()
