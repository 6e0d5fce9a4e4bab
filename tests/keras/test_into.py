"""`--into`: the weights of one file in another, of which all else stays as it is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.cli import run

import lstmconvert as lc
from lstmconvert.errors import LSTMConvertError

FIXTURES = Path(__file__).parents[2] / "fixtures/keras-3.15.1"
NEIGHBOURS, FITTED = FIXTURES / "neighbours.keras", FIXTURES / "fitted.keras"


def trained(model: Path, folder: Path, layout: str = "torch") -> Path:
    """Return a framework's file of a model, every weight of which is another number now."""
    path = folder / "trained.safetensors"
    lc.convert(model, path, layout=layout, warn=False)
    arrays = load_file(path)
    rng = np.random.default_rng(5)
    save_file({n: a if not a.shape else rng.normal(size=a.shape).astype(a.dtype)
               for n, a in arrays.items()}, path)
    return path


def member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def test_all_else_stays_byte_for_byte(tmp_path: Path) -> None:
    source, made = trained(FITTED, tmp_path), tmp_path / "new.keras"
    result = lc.convert(source, made, into=FITTED, warn=False)
    assert result.whole_model
    told = "\n".join(result.warnings)
    assert "written into fitted.keras: lstm, dense" in told
    for name in ("config.json", "metadata.json"):
        assert member(made, name) == member(FITTED, name)
    before, after = lc.load(FITTED), lc.load(made)
    assert before.optimizer
    assert {n: t.read().tobytes() for n, t in before.optimizer.items()} == {
        n: t.read().tobytes() for n, t in after.optimizer.items()
    }
    arrays = load_file(source)
    np.testing.assert_array_equal(after.neighbours["dense"].kernel, arrays["dense.weight"].T)
    assert not lc.diff(FITTED, made)


def test_a_file_into_itself_is_itself(tmp_path: Path) -> None:
    lc.convert(NEIGHBOURS, tmp_path / "a.keras")
    lc.convert(NEIGHBOURS, tmp_path / "b.keras", into=tmp_path / "a.keras", warn=False)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5", ".safetensors", ".npz"])
def test_any_kind_of_file(suffix: str, tmp_path: Path) -> None:
    model, made = tmp_path / f"model{suffix}", tmp_path / f"new{suffix}"
    lc.convert(NEIGHBOURS, model, warn=False)
    if suffix == ".weights.h5":  # it has no config, so its other layers have no names
        source = tmp_path / "lstm.safetensors"
        lc.convert(NEIGHBOURS, source, layout="torch", lstm_only=True, warn=False)
        result = lc.convert(source, made, into=model, warn=False)
    else:
        result = lc.convert(trained(NEIGHBOURS, tmp_path), made, into=model, warn=False)
        assert "gru" in "\n".join(result.warnings)
        assert not lc.diff(model, made)
    assert lc.load(made).parameters == lc.load(model).parameters


def test_layers_that_the_source_lacks_stay(tmp_path: Path) -> None:
    source = tmp_path / "lstm.safetensors"
    lc.convert(FITTED, source, layout="torch", lstm_only=True, warn=False)
    done = run("convert", source, tmp_path / "new.keras", "--into", FITTED)
    assert done.code == 0
    assert "written into fitted.keras: lstm" in done.err
    assert "as they were: dense" in done.err


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("dense.weight", (7, 2), ["dense", "units 1"]),
        ("extra.weight", (2, 2), ["extra.weight"]),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, shape: tuple[int, int], words: list[str], tmp_path: Path
) -> None:
    source, made = trained(FITTED, tmp_path), tmp_path / "new.keras"
    arrays = {**load_file(source), name: np.zeros(shape, np.float32)}
    if name == "dense.weight":
        arrays["dense.bias"] = np.zeros(7, np.float32)
    save_file(arrays, source)
    with pytest.raises(LSTMConvertError) as caught:
        lc.convert(source, made, into=FITTED, warn=False)
    for word in words:
        assert word in str(caught.value)
    assert not made.exists()


def test_another_dtype_is_not_cast_in_silence(tmp_path: Path) -> None:
    source = trained(FITTED, tmp_path)
    save_file({n: a.astype(np.float64) for n, a in load_file(source).items()}, source)
    with pytest.raises(LSTMConvertError, match="float64"):
        lc.convert(source, tmp_path / "new.keras", into=FITTED, warn=False)


def test_another_activation_is_no_other_weight(tmp_path: Path) -> None:
    lc.convert(FITTED, tmp_path / "a.safetensors")
    model = lc.load(tmp_path / "a.safetensors", settings=[])
    assert model["lstm"]
    with pytest.raises(LSTMConvertError):
        lc.convert(
            FIXTURES / "options.weights.h5", tmp_path / "new.keras", into=FITTED, warn=False
        )
