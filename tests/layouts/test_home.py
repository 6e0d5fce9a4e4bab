"""A framework's file and the config of its model: the whole Keras model again, or a refusal."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import lstmconvert as lc
from lstmconvert.errors import LSTMConvertError
from lstmconvert.tensors.dtypes import Array

FIXTURES = Path(__file__).parents[2] / "fixtures/keras-3.15.1"
NEIGHBOURS, SEED95 = FIXTURES / "neighbours.keras", FIXTURES / "seed95.keras"
Edit = Callable[[dict[str, Array]], dict[str, Array]]


def foreign(source: Path, folder: Path, layout: str, edit: Edit = lambda arrays: arrays) -> Path:
    """Write a framework's file without any metadata of ours."""
    path = folder / "foreign.safetensors"
    lc.convert(source, path, layout=layout, warn=False)
    save_file(edit(load_file(path)), path)
    return path


def config_of(source: Path, folder: Path) -> Path:
    """Return the architecture alone, as `to_json()` gives it."""
    with zipfile.ZipFile(source) as archive:
        archive.extract("config.json", folder)
    return folder / "config.json"


@pytest.mark.parametrize("layout", ["torch", "paddle", "mxnet", "keras"])
def test_the_whole_model_comes_home_bit_for_bit(layout: str, tmp_path: Path) -> None:
    path = foreign(NEIGHBOURS, tmp_path, layout)
    home = tmp_path / "home.keras"
    for config in (NEIGHBOURS, config_of(NEIGHBOURS, tmp_path)):
        result = lc.convert(
            path, home, from_layout=layout, config=config, force=True, warn=False
        )
        assert result.whole_model
        report = lc.diff(NEIGHBOURS, home)
        assert report, str(report)
        assert not report.only_in_a


@pytest.mark.parametrize("layout", ["flax", "mlx"])
def test_one_bias_of_two_is_a_loss_that_was_declared(layout: str, tmp_path: Path) -> None:
    """They have one bias of a GRU's update and reset gates; all else comes home bit for bit."""
    result = lc.convert(NEIGHBOURS, tmp_path / "x.safetensors", layout=layout, warn=False)
    assert any("gru: the two biases" in text for text in result.losses)
    path, home = foreign(NEIGHBOURS, tmp_path, layout), tmp_path / "home.keras"
    assert lc.convert(path, home, config=NEIGHBOURS, warn=False).whole_model
    first, second = lc.load(NEIGHBOURS), lc.load(home)
    different = [
        name
        for name, tensor in first.other.items()
        if tensor.read().tobytes() != second.other[name].read().tobytes()
    ]
    assert different == ["layers/gru/cell/vars/2"]


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".safetensors"])
def test_into_any_kind_of_file(suffix: str, tmp_path: Path) -> None:
    path = foreign(SEED95, tmp_path, "torch")
    home = tmp_path / f"home{suffix}"
    lc.convert(path, home, config=SEED95, warn=False)
    config = SEED95 if suffix == ".weights.h5" else None
    assert lc.diff(lc.load(SEED95), lc.load(home, config=config))


def renamed(old: str, new: str) -> Edit:
    return lambda arrays: {name.replace(old, new, 1): a for name, a in arrays.items()}


def test_another_name_is_found_by_shape_and_said(tmp_path: Path) -> None:
    path = foreign(SEED95, tmp_path, "torch", renamed("dense.", "net.lin."))
    path = foreign_again(path, renamed("lstm.", "rec."))
    result = lc.convert(path, tmp_path / "home.keras", config=SEED95, warn=False)
    told = "\n".join(result.warnings)
    assert "net.lin of the file is taken for dense of the config, by its shapes" in told
    assert "rec of the file is taken for lstm of the config, by order" in told
    assert result.whole_model
    assert lc.diff(SEED95, tmp_path / "home.keras")


def foreign_again(path: Path, edit: Edit) -> Path:
    save_file(edit(load_file(path)), path)
    return path


def wider(arrays: dict[str, Array]) -> dict[str, Array]:
    return {
        **arrays,
        "dense.weight": np.zeros((6, 2), np.float32),
        "dense.bias": np.zeros(6, np.float32),
    }


def deeper(arrays: dict[str, Array]) -> dict[str, Array]:
    return {**arrays, "dense.weight": np.zeros((5, 3), np.float32)}


def without(name: str) -> Edit:
    return lambda arrays: {key: array for key, array in arrays.items() if name not in key}


def with_more(arrays: dict[str, Array]) -> dict[str, Array]:
    return {**arrays, "extra.weight": np.zeros((3, 3), np.float32)}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (wider, ["dense", "2×6", "units 5"]),
        (deeper, ["dense", "3×5", "2 inputs"]),
        (without("dense"), ["dense (Dense)", "hold"]),
        (without("dense.bias"), ["dense", "weight", "bias"]),
        (with_more, ["extra.weight", "dense (Dense: kernel, bias)"]),
    ],
    ids=["another width", "other inputs", "no head", "no bias", "one too many"],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    edit: Edit, words: list[str], tmp_path: Path
) -> None:
    path = foreign(SEED95, tmp_path, "torch", edit)
    home = tmp_path / "home.keras"
    with pytest.raises(LSTMConvertError) as caught:
        lc.convert(path, home, config=SEED95, warn=False)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not home.exists()


def test_the_config_of_another_model(tmp_path: Path) -> None:
    path = foreign(SEED95, tmp_path, "torch")
    value = json.loads(config_of(SEED95, tmp_path).read_text())
    for layer in value["config"]["layers"]:
        if layer["class_name"] == "Dense":
            layer["class_name"] = "PReLU"
            layer["config"] = {"name": "dense"}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(value))
    with pytest.raises(LSTMConvertError, match="dense"):
        lc.convert(path, tmp_path / "home.keras", config=other, warn=False)


def test_a_config_of_another_model_is_refused_where_the_file_has_its_own(
    tmp_path: Path,
) -> None:
    lc.convert(SEED95, tmp_path / "x.safetensors", layout="torch", warn=False)
    lc.convert(SEED95, tmp_path / "y.safetensors", warn=False)
    config = config_of(SEED95, tmp_path)
    sources = (SEED95, tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    for source in sources:
        assert lc.convert(source, tmp_path / "home.keras", config=config, force=True, warn=False)
    (tmp_path / "home.keras").unlink()
    text = config.read_text()
    for old, new in {'"units": 5': '"units": 7', '"use_bias": true': '"use_bias": false'}.items():
        start, _, end = text.partition('"class_name": "Dense"')
        assert old in end
        config.write_text(f'{start}"class_name": "Dense"{end.replace(old, new, 1)}')
        for source in sources:
            with pytest.raises(lc.UsageError, match="dense: the config is of another model"):
                lc.convert(source, tmp_path / "home.keras", config=config)
            assert not (tmp_path / "home.keras").exists()
    renamed = text.replace('"dense"', '"head"')
    assert renamed != text
    wider, without = renamed.replace('"units": 5', '"units": 7'), text.replace('"Dense"', '"ReLU"')
    for other in (wider, without):
        config.write_text(other)
        for source in sources:
            with pytest.raises(lc.UsageError, match="the config is of another model"):
                lc.convert(source, tmp_path / "home.keras", config=config)
    config.write_text(renamed)  # as Keras numbers its layers anew
    for source in sources:
        assert lc.convert(source, tmp_path / "home.keras", config=config, force=True, warn=False)


def test_a_layer_fits_where_it_uses_every_array(tmp_path: Path) -> None:
    """The arrays of a LayerNormalization are among those of a BatchNormalization of its size."""
    names = {"batch_normalization.": "bn.", "layer_normalization.": "ln."}

    def renamed(arrays: dict[str, Array]) -> dict[str, Array]:
        result = {}
        for name, array in arrays.items():
            start = next((old for old in names if name.startswith(old)), "")
            result[names.get(start, "") + name.removeprefix(start)] = array
        assert result["bn.weight"].shape == result["ln.weight"].shape
        return result

    path = foreign(NEIGHBOURS, tmp_path, "torch", renamed)
    done = lc.convert(path, tmp_path / "home.keras", config=NEIGHBOURS, warn=False)
    assert "ln of the file is taken for layer_normalization of the config, by its shapes" in (
        "\n".join(done.warnings)
    )
    assert lc.diff(NEIGHBOURS, tmp_path / "home.keras")


def test_two_places_that_fit_are_not_guessed(tmp_path: Path) -> None:
    def twice(arrays: dict[str, Array]) -> dict[str, Array]:
        heads = {n.replace("dense", "a"): x for n, x in arrays.items() if "dense" in n}
        rest = {n.replace("dense", "b"): x for n, x in arrays.items()}
        return {**heads, **rest}

    path = foreign(SEED95, tmp_path, "torch", twice)
    with pytest.raises(LSTMConvertError, match=r"more than one place .*; found a\.\*, b\.\*"):
        lc.convert(path, tmp_path / "home.keras", config=SEED95, warn=False)


def test_the_lstm_alone_needs_the_word_for_it(tmp_path: Path) -> None:
    path = foreign(SEED95, tmp_path, "torch", without("dense"))
    with pytest.raises(LSTMConvertError, match="dense"):
        lc.convert(path, tmp_path / "a.keras", config=SEED95, warn=False)
    result = lc.convert(path, tmp_path / "a.keras", config=SEED95, lstm_only=True, warn=False)
    assert not result.whole_model
    gates = lc.convert(path, tmp_path / "a.npz", config=SEED95, warn=False)
    assert any("dense" in text for text in gates.warnings)


def test_a_gru_of_the_same_names_is_no_lstm(tmp_path: Path) -> None:
    path = foreign(NEIGHBOURS, tmp_path, "torch")
    model = lc.load(path)
    assert list(model) == list(lc.load(NEIGHBOURS))
    assert "gru.weight_ih_l0" in model.other
