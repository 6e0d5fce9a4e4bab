"""A config that makes Keras run, import or fetch something stays in the kind of file it came in."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.keras_tools import FIXTURES, name_of

import lstmconvert as lc
from lstmconvert.keras.configs import code

pytestmark = pytest.mark.engines


def _saved(path: Path, layer: Any = None) -> Path:
    import keras

    layers = [keras.Input((4, 3)), keras.layers.LSTM(2, name="lstm")]
    keras.Sequential(layers + ([layer] if layer is not None else [])).save(path)
    return path


def _edited(path: Path, entry: dict[str, Any], target: Path) -> Path:
    """Write an archive whose config has one layer more."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["config"]["layers"].append(entry)
                data = json.dumps(config).encode()
            new.writestr(name, data)
    return target


def _entry(class_name: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": "odd", **config},
        "registered_name": None,
    }


HOSTILE = {
    "SavedModel": _entry("TFSMLayer", filepath="evil/model"),
    "PyTorch": _entry("TorchModuleWrapper", module={"class_name": "__bytes__", "config": "x"}),
    "address": _entry("StringLookup", vocabulary="https://example.com/words.txt"),
    "path": _entry("TextVectorization", vocabulary="/etc/passwd"),
    "fetched": _entry("Activation", activation={
        "module": "keras.utils", "class_name": "function", "config": "get_file",
        "registered_name": "function",
    }),
    "download": _entry("Activation", activation={
        "module": "keras.applications", "class_name": "function", "config": "ResNet50",
        "registered_name": "function",
    }),
    "module": _entry("Popen", module="subprocess"),
    "nested": _entry("TimeDistributed", layer=_entry("Lambda", function="x")),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_never_written_to_a_file_that_keras_trusts(name: str, tmp_path: Path) -> None:
    source = _edited(_saved(tmp_path / "a.keras"), HOSTILE[name], tmp_path / "odd.keras")
    target = tmp_path / "odd.h5"
    with pytest.raises(lc.LSTMConvertError):
        lc.convert(source, target)
    assert not target.exists()
    with pytest.warns(lc.ConversionWarning, match="does more than compute"):
        result = lc.convert(source, tmp_path / "copy.keras")
    assert any("odd" in text for text in result.warnings)
    lc.convert(source, tmp_path / "gates.safetensors")  # per gate, nothing of it is run


def test_a_real_lambda(tmp_path: Path) -> None:
    import keras

    source = _saved(tmp_path / "a.keras", keras.layers.Lambda(lambda x: x, name="trick"))
    with pytest.raises(lc.LSTMConvertError, match="trick"):
        lc.convert(source, tmp_path / "a.h5")
    lc.convert(source, tmp_path / "layers.h5", lstm_only=True)


def test_what_keras_writes_of_its_own_is_harmless(tmp_path: Path) -> None:
    import keras

    every = keras.Sequential(
        [
            keras.Input((4, 3)),
            keras.layers.LSTM(
                2,
                activation=keras.activations.gelu,
                kernel_regularizer=keras.regularizers.L1(),
                kernel_constraint=keras.constraints.MaxNorm(),
                return_sequences=True,
                dtype="mixed_float16",
            ),
            keras.layers.TimeDistributed(keras.layers.Dense(2, activation="softmax")),
        ]
    )
    every.compile("adam", keras.losses.MeanSquaredError(), [keras.metrics.MeanAbsoluteError()])
    assert code.findings(json.loads(every.to_json())) == []
    words = keras.layers.StringLookup(vocabulary=["a", "b"])
    text = json.dumps(keras.saving.serialize_keras_object(words))
    assert code.findings(json.loads(text)) == []


ARCHIVES = sorted(path for path in FIXTURES.glob("*/*.keras") if zipfile.is_zipfile(path))


@pytest.mark.parametrize("path", ARCHIVES, ids=name_of)
def test_what_keras_and_tf_keras_write_of_their_own_classes_is_none(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert code.findings(json.loads(config)) == []


def test_a_policy_of_keras_2_is_none(tmp_path: Path) -> None:
    import tf_keras

    layer = tf_keras.layers.LSTM(2, dtype=tf_keras.mixed_precision.Policy("mixed_float16"))
    model = tf_keras.Sequential([tf_keras.layers.Input((4, 3)), layer])
    path = tmp_path / "m.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert code.findings(json.loads(archive.read("config.json"))) == []
