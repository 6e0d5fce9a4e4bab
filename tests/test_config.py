"""`--config`: what the user says of a model is used, or refused, whatever kind of file it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.cli import SEED95, failure

import lstmconvert as lc
from lstmconvert.containers import table
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import same_bits

pytest.importorskip("scipy")
pytest.importorskip("msgpack")
pytest.importorskip("ai_edge_litert")

KERAS = Path("fixtures/keras-3.15.1")
TF = Path("fixtures/tf-2.12.1")


def config(folder: Path, name: str = "lstm", units: int = 2, **options: Any) -> Path:
    """Write the config of a model with one LSTM of 7 inputs."""
    shape = {"class_name": "InputLayer", "config": {"batch_shape": [None, 18, 7], "name": "x"}}
    layer = {"class_name": "LSTM", "config": {"name": name, "units": units, **options}}
    value = {
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [shape, layer]},
        "keras_version": "3.15.1",
    }
    path = folder / "config.json"
    path.write_text(json.dumps(value))
    return path


# -- sources that do not say what their layer does ------------------------------------------------


def as_torch(folder: Path, suffix: str) -> Path:
    lc.convert(SEED95, folder / "ours.safetensors", layout="torch", bare=True)
    arrays, path = load_file(folder / "ours.safetensors"), folder / f"foreign{suffix}"
    if suffix == ".safetensors":
        save_file(arrays, path)
    elif suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_text(json.dumps({name: array.tolist() for name, array in arrays.items()}))
    return path


def of_torch(folder: Path) -> Path:
    torch = pytest.importorskip("torch")
    arrays = load_file(as_torch(folder, ".safetensors"))
    torch.save({name: torch.from_numpy(x) for name, x in arrays.items()}, folder / "x.pt")
    return folder / "x.pt"


def without_metadata(folder: Path, suffix: str, cut: bytes) -> Path:
    """Write a file, and cut our metadata off its end."""
    path = folder / f"x{suffix}"
    lc.convert(SEED95, path, layout={".params": "mxnet"}.get(suffix), bare=suffix == ".eqx")
    if cut:
        content = path.read_bytes()
        path.write_bytes(content[: content.index(cut)])
    return path


def as_onnx(folder: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    lc.convert(SEED95, folder / "x.onnx", fused=True)
    model = onnx.load(folder / "x.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "x.onnx")
    return folder / "x.onnx"


def as_mat(folder: Path) -> Path:
    from scipy import io

    lc.convert(SEED95, folder / "x.mat", bare=True)
    fields = {k: v for k, v in io.loadmat(folder / "x.mat").items() if k[0] != "_"}
    del fields["lstmconvert"]
    io.savemat(folder / "x.mat", fields)
    return folder / "x.mat"


def as_lwtnn(folder: Path) -> Path:
    lc.convert(SEED95, folder / "x.json", layout="lwtnn")
    value = json.loads((folder / "x.json").read_text())
    del value["lstmconvert"]
    (folder / "x.json").write_text(json.dumps(value))
    return folder / "x.json"


def as_weights(folder: Path) -> Path:
    return KERAS / "seed95.weights.h5"


SILENT: dict[str, Callable[[Path], Path]] = {
    "safetensors": lambda folder: as_torch(folder, ".safetensors"),
    "npz": lambda folder: as_torch(folder, ".npz"),
    "json": lambda folder: as_torch(folder, ".json"),
    "pt": of_torch,
    "params": lambda folder: without_metadata(folder, ".params", b'{"'),
    "ncnn": lambda folder: without_metadata(folder, ".param", b"# lstmconvert"),
    "msgpack": lambda folder: without_metadata(folder, ".msgpack", b""),
    "eqx": lambda folder: without_metadata(folder, ".eqx", b""),
    "mat": as_mat,
    "lwtnn": as_lwtnn,
    "onnx": as_onnx,
    "weights.h5": as_weights,
}
#: Those that an engine makes.
ENGINES = {"pt": pytest.mark.engines}


def marked(kinds: Iterable[str]) -> list[Any]:
    """Return kinds of files as parameters, marked where an engine makes the file."""
    return [pytest.param(kind, marks=ENGINES.get(kind, ())) for kind in kinds]


#: Kinds of files that have no test here, and why.
ELSEWHERE = {
    **dict.fromkeys(("keras", "h5", "tfjs", "frugally-deep"), "they hold their config: see below"),
    "pickle": "it may hold its config: tests/containers",
    **dict.fromkeys(("rtneural", "aida-x", "nam", "trainer"), "they say their layers"),
    **dict.fromkeys(("tflite", "mlmodel", "mlpackage"), "opened as named arrays, like ncnn"),
    "weights.json": "opened as .weights.h5",
    **dict.fromkeys(("savedmodel", "checkpoint", "graphdef"), "tests/tensorflow"),
}


def test_every_kind_of_file_is_among_them() -> None:
    assert {row.name for row in table.read()} == SILENT.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("kind", marked(SILENT))
def test_what_a_file_does_not_say_the_config_does(kind: str, tmp_path: Path) -> None:
    source = SILENT[kind](tmp_path)
    every = kind != "onnx"  # whose graph says which steps it gives
    stated = config(tmp_path, return_sequences=every, dropout=0.25, unit_forget_bias=False)
    model = lc.load(source, config=stated)
    (layer,) = model.values()
    run = layer.forward.options
    assert run.return_sequences is every
    assert layer.cell.options.unit_forget_bias is False
    assert run.go_backwards is False
    assert layer.cell.options.dropout == 0.25
    assert str(layer.cell.options.activation) == "tanh"
    assert layer.class_name == "LSTM"
    # It reaches what is written, and nothing has to be assumed.
    path = tmp_path / "back.keras"
    result = lc.convert(source, path, config=stated, lstm_only=True, warn=False)
    assert not any("assumed" in text for text in result.warnings)
    (back,) = lc.load(path).values()
    assert back.forward.options.return_sequences is every
    assert back.cell.options.dropout == 0.25
    assert same_bits(back.forget_gate.kernel, lc.load(SEED95)["lstm"].forget_gate.kernel)


@pytest.mark.parametrize("kind", marked(SILENT))
@pytest.mark.parametrize(
    "options", [{"units": 3}, {"use_bias": False}, {"name": "a", "units": 5}], ids=str
)
def test_a_config_of_another_model_is_refused(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    source = SILENT[kind](tmp_path)
    with pytest.raises((lc.UsageError, lc.SourceError), match=r"config|contradict"):
        lc.load(source, config=config(tmp_path, **options))


#: What a file says by its format, and a config that says otherwise.
FIXED = ("safetensors", "npz", "json", "pt", "params", "ncnn", "eqx", "mat", "lwtnn", "onnx")


@pytest.mark.parametrize("kind", marked(FIXED))
def test_a_config_that_contradicts_the_file_is_refused(kind: str, tmp_path: Path) -> None:
    source = SILENT[kind](tmp_path)
    stated = config(tmp_path, activation="relu")
    error, hint = failure("convert", source, tmp_path / "x.keras", "--config", stated)
    assert "config.json: lstm.activation: the config says otherwise than the file" in error
    assert "found {'name': 'relu'}" in error
    assert hint == "give the config of this model, or leave --config away"


@pytest.mark.parametrize(
    "source",
    [SEED95, Path("fixtures/keras-2.3.1/seed95.h5"), TF / "seed95.savedmodel", "gates"],
    ids=lambda source: Path(source).suffix or source,
)
def test_a_file_with_a_config_keeps_it(source: Path | str, tmp_path: Path) -> None:
    if source == "gates":
        source = tmp_path / "gates.safetensors"
        lc.convert(SEED95, source)
    before = lc.load(source)
    (name,) = before
    same = lc.load(source, config=SEED95 if "keras-2" not in str(source) else source)
    assert same[name].forward.options == before[name].forward.options
    assert same.texts == before.texts
    with pytest.raises(lc.UsageError, match="says otherwise"):
        lc.load(source, config=config(tmp_path, name=name, go_backwards=True))
    with pytest.raises(lc.UsageError, match="another model"):
        lc.load(source, config=config(tmp_path, name=name, units=3))


def test_zeros_of_a_framework_that_always_has_a_bias(tmp_path: Path) -> None:
    arrays = load_file(as_torch(tmp_path, ".safetensors"))
    zeros = {k: np.zeros_like(x) if "bias" in k else x for k, x in arrays.items()}
    save_file(zeros, tmp_path / "zeros.safetensors")
    stated = config(tmp_path, use_bias=False)
    (layer,) = lc.load(tmp_path / "zeros.safetensors", config=stated).values()
    assert layer.cell.options.use_bias is False


# -- what says a config ---------------------------------------------------------------------------


def foreign(folder: Path) -> Path:
    return as_torch(folder, ".safetensors")


def check(model: Model) -> None:
    (layer,) = model.values()
    assert layer.forward.options.return_sequences is False
    assert layer.cell.options.unit_forget_bias is True


@pytest.mark.parametrize(
    "stated",
    [
        SEED95,
        KERAS / "seed95.config.json",
        Path("fixtures/keras-2.3.1/seed95.config.json"),
        Path("fixtures/keras-2.3.1/seed95.h5"),
        TF / "seed95.savedmodel",
    ],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_a_config_comes_from(stated: Path, tmp_path: Path) -> None:
    if not stated.exists():
        pytest.skip("no such fixture")
    check(lc.load(foreign(tmp_path), config=stated))


@pytest.mark.parametrize("options", [{}, {"layout": "torch"}, {"lstm_only": True}], ids=str)
def test_a_config_comes_from_our_own_files(options: dict[str, Any], tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "own.safetensors", warn=False, **options)
    check(lc.load(foreign(tmp_path), config=tmp_path / "own.safetensors"))


def test_a_config_in_yaml(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    value = json.loads(Path("fixtures/keras-2.3.1/seed95.config.json").read_text())
    value["config"]["layers"][0]["config"]["batch_input_shape"] = (None, 18, 7)  # as Keras had it
    path = tmp_path / "config.yaml"
    path.write_text(yaml.dump(value))
    assert "python/tuple" in path.read_text()
    check(lc.load(foreign(tmp_path), config=path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class_name: !!python/object/apply:os.system ['touch ran']", "not YAML of a config"),
        ("class_name: *nothing", "not YAML of a config"),
        ("class_name: &a [*a]", "the depth of the YAML"),
        ("nothing: that says a config", "no config is in it"),
        ("{}", "not an object with a class"),
    ],
)
def test_texts_that_are_no_config(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yaml")
    path, source = tmp_path / "c.yaml", foreign(tmp_path).resolve()
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((lc.UsageError, lc.SourceError)) as caught:
        lc.load(source, config="c.yaml")
    assert message in str(caught.value) or text == "{}"
    assert not (tmp_path / "ran").exists()


def test_a_yaml_that_repeats_itself_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    lines = ["class_name: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(lc.SourceError, match="the number of values"):
        lc.load(foreign(tmp_path), config=tmp_path / "bomb.yaml")


def test_what_is_wrong_is_the_config(tmp_path: Path) -> None:
    source = foreign(tmp_path)
    gru = config(tmp_path)
    gru.write_text(gru.read_text().replace('"LSTM"', '"GRU"'))
    weights, made = KERAS / "seed95.weights.h5", tmp_path / "x.keras"
    error, _ = failure("convert", weights, made, "--config", gru)
    assert error.startswith(f"{gru}: the config is of another model")
    error, _ = failure("convert", weights, tmp_path / "x.npz", "--config", gru)
    assert error.startswith(f"{gru}: the config has no LSTM layer")
    error, _ = failure("convert", source, made, "--config", weights)
    assert "seed95.weights.h5: the file holds weights and no config" in error
    error, _ = failure("convert", source, made, "--config", "README.md")
    assert "README.md: no config is in it" in error


# -- arrays in the order of get_weights() ---------------------------------------------------------


def test_arrays_of_get_weights(tmp_path: Path) -> None:
    cell = lc.load(SEED95)["lstm"].cell
    arrays = [cell.fused(part).read() for part in ("kernel", "recurrent_kernel", "bias")]
    np.savez(tmp_path / "weights.npz", *arrays, np.ones((2, 5), np.float32), np.ones(5, np.float32))
    error, hint = failure("inspect", tmp_path / "weights.npz")
    assert "in no layout that is known" in error
    assert "--config" in hint
    found = lc.load(tmp_path / "weights.npz", config=SEED95)
    assert list(found) == ["lstm"]
    assert found.neighbours["dense"].kernel.tolist() == np.ones((2, 5)).tolist()
    assert lc.save(found, tmp_path / "x.keras").whole_model
    assert all(lc.diff(SEED95, tmp_path / "x.keras", weights_only=True).layers)


def test_arrays_that_could_be_of_several_layers_are_refused(tmp_path: Path) -> None:
    cell = [np.zeros((7, 8)), np.zeros((2, 8)), np.zeros(8)]
    np.savez(tmp_path / "two.npz", *cell, *cell)
    with pytest.raises(lc.UsageError, match="in one way alone"):
        lc.load(tmp_path / "two.npz", config=SEED95)
    np.savez(tmp_path / "none.npz", *cell[:2])
    with pytest.raises(lc.UsageError, match="in one way alone"):
        lc.load(tmp_path / "none.npz", config=SEED95)


def _sequential(folder: Path, *layers: tuple[str, dict[str, Any]]) -> Path:
    items = [{"class_name": kind, "config": options} for kind, options in layers]
    path = folder / "sequential.json"
    path.write_text(json.dumps({"class_name": "Sequential", "config": {"layers": items}}))
    return path


@pytest.mark.parametrize("weights", ["weights.h5", "h5"])
def test_a_config_with_layers_that_are_not_stored_is_of_another_model(
    weights: str, tmp_path: Path
) -> None:
    source = SEED95.with_name(f"seed95.{weights}")
    if weights == "h5":
        source = SEED95.parents[1] / "tf-2.15.1" / "seed95.weights-only.h5"
    fitting = [
        ("InputLayer", {"batch_input_shape": [None, 18, 7], "name": "input"}),
        ("LSTM", {"units": 2, "name": "lstm"}),
        ("Dropout", {"rate": 0.5, "name": "dropout"}),
        ("Dense", {"units": 5, "name": "dense"}),
    ]
    assert len(lc.load(source, config=_sequential(tmp_path, *fitting)).layers) == 1
    more = ("Dense", {"units": 3, "name": "more"})
    for target in ("x.keras", "x.safetensors", "x.npz"):
        error, hint = failure(
            "convert", source, tmp_path / target, "--config", _sequential(tmp_path, *fitting, more)
        )
        assert "another model" in error or "different models" in error
        assert "--config" in hint or "config" in error
        assert not (tmp_path / target).exists()
