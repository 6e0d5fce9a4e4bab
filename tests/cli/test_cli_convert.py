"""`convert` on the command line: what it says, what it refuses, and that nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from support.cli import FIXTURES, KERAS, SEED95, WEIGHTS, failure, run, spawn
from support.thinned import each

import lstmconvert as lc
from lstmconvert.errors import DestinationError
from lstmconvert.tensors.dtypes import same_bits

CONFIG = KERAS / "seed95.config.json"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "lstm.safetensors"


def test_it_converts_and_says_so(out: Path) -> None:
    assert run("convert", SEED95, out) == (0, "", f"wrote {out}: 14 tensors, 1 LSTM layer\n")
    a, b = lc.load(SEED95)["lstm"], lc.load(out)["lstm"]
    assert same_bits(a.forget_gate.kernel, b.forget_gate.kernel)


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        (".keras", ", the whole model"),
        (".weights.h5", ", all weights of the model"),
        (".h5", ", the whole model"),
    ],
)
def test_keras_destinations_say_what_they_hold(tmp_path: Path, suffix: str, said: str) -> None:
    path = tmp_path / f"copy{suffix}"
    code, _, err = run("convert", SEED95, path)
    assert code == 0
    assert err.splitlines()[-1].endswith(f"1 LSTM layer{said}")
    path = tmp_path / f"part{suffix}"
    _, _, err = run("convert", SEED95, path, "--lstm-only")
    assert err.splitlines()[-1].endswith("1 LSTM layer alone, not the whole model")


def test_weights_without_their_config_are_all_there(tmp_path: Path) -> None:
    """As much as the source held: it is not called the LSTM layers alone."""
    old = FIXTURES / "tf-1.15.5" / "cudnn.weights-only.h5"
    for source, tensors in ((FIXTURES / "keras-2.3.1" / "seed95.weights-only.h5", 5), (old, 9)):
        path = tmp_path / f"{tensors}.h5"
        assert f"{tensors} tensors, " in (said := run("convert", source, path).err)
        assert said.endswith(", all weights of the model\n")
        result = lc.convert(source, path, dry_run=True, force=True)
        assert (result.whole_model, result.all_weights) == (False, True)
        assert ", weights only, by " in run("inspect", path).out
    assert not lc.convert(old, tmp_path / "a.weights.h5").all_weights  # one by one, in new places


def test_json_is_the_result(out: Path) -> None:
    code, text, err = run("convert", SEED95, out, "--json", "--dry-run")
    assert (code, err) == (0, "")
    assert not out.exists()
    dry = run("convert", SEED95, out, "--json", "--dry-run").json
    assert dry == {
        "version": 1,
        "destination": str(out),
        "container": "safetensors",
        "layout": "gates",
        "layers": ["lstm"],
        "tensors": 14,
        "whole_model": False,
        "all_weights": False,
        "losses": [],
        "rounded": None,
        "warnings": [],
        "opens": None,
        "custom_objects": [],
        "compiled": None,
        "left_out": [],
        "written": False,
    }
    assert text == run("convert", SEED95, out, "--json", "--dry-run").out
    assert run("convert", SEED95, out, "--json").json == {**dry, "written": True}
    assert out.exists()


def test_a_dry_run_says_would(out: Path) -> None:
    assert run("convert", SEED95, out, "--dry-run").err.startswith(f"would write {out}: ")
    assert list(out.parent.iterdir()) == []


def test_layers_and_lstm_only(out: Path, tmp_path: Path) -> None:
    zoo = KERAS / "zoo.keras"
    assert run("convert", zoo, out, "--layer", "both", "--layer", "enc").code == 0
    assert list(lc.load(out)) == ["enc", "both"]
    assert not lc.load(out).other
    other = tmp_path / "other.npz"
    assert run("convert", zoo, other, "--lstm-only").code == 0
    assert len(lc.load(other)) == 8
    assert not lc.load(other).other


def test_a_loss_is_warned_of_and_recorded(out: Path) -> None:
    code, text, err = run("convert", SEED95, out, "--dtype", "bfloat16", "--json")
    assert code == 0
    assert err == "warning: lstm: weights rounded from float32 to bfloat16, as asked\n"
    assert '"lstm: weights rounded from float32 to bfloat16, as asked"' in text
    assert run("inspect", out).err.endswith(
        "note: an earlier conversion lost: lstm: weights rounded from float32 to bfloat16, as "
        "asked\n"
    )


def test_options_are_supplied_by_config_or_one_by_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert run("convert", WEIGHTS, one, "--config", CONFIG).code == 0
    assert lc.diff(one, SEED95)
    assert not any(layer.unknown for layer in lc.diff(one, SEED95).layers)
    assert (
        run(
            *("convert", WEIGHTS, two, "--set", "lstm.activation=relu", "--set", "dropout=0.5")
        ).code
        == 0
    )
    assert run("inspect", two, "--json").json["layers"][0]["activation"] == {"name": "relu"}
    assert failure("convert", WEIGHTS, two, "--force", "--set", "activaton=tanh")[1] == (
        "did you mean activation?"
    )


def test_what_a_keras_file_needs_and_the_source_does_not_say(tmp_path: Path) -> None:
    error, hint = failure("convert", WEIGHTS, tmp_path / "lstm.keras")
    assert error.startswith("lstm: the file does not say what Keras 3 needs; found unknown: ")
    assert "--config FILE" in hint
    assert list(tmp_path.iterdir()) == []


def test_keras_2s_hard_sigmoid_by_rescaling_is_a_loss(tmp_path: Path) -> None:
    source = FIXTURES / "keras-2.3.1" / "zoo.h5"
    done = run("convert", source, tmp_path / "a.keras", "--rescale-hard-sigmoid", "--json")
    assert "times 1.2" in "".join(done.json["losses"])
    assert run("convert", source, tmp_path / "b.keras", "--json").json["losses"] == []


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_which_keras_opens_a_composed_hard_sigmoid_is_said(tmp_path: Path, suffix: str) -> None:
    """Keras 3.9.2 does not take a model for an activation, 3.10.0 does."""
    source, config = FIXTURES / "keras-1.2.2" / "sequential.h5", tmp_path / "again.keras"
    assert "opens in Keras 3.10 and later, for Keras 2's" in run("convert", source, config).err
    again = run("convert", config, tmp_path / f"copy{suffix}", "--json").json
    assert again["opens"]["release"] == "3.10"
    rescaled = run(
        *("convert", source, tmp_path / f"a{suffix}", "--json", "--rescale-hard-sigmoid")
    ).json
    assert rescaled["opens"] == {"release": "3.3", "because": []}
    assert run("convert", source, tmp_path / "a.weights.h5", "--json").json["opens"] is None


@each("args, error",
    [
        (["a.xyz"], "the destination's suffix names no kind of file; found .xyz"),
        (["a"], "the destination's suffix names no kind of file; found no suffix"),
        (["a.onnx", "--to", "torch"], "onnx does not hold the layout torch; expected gates"),
        (["a.keras", "--to", "gates"], "keras does not hold the layout gates; expected keras"),
        (
            ["a.npz", "--from", "gates"],
            "the file is in another layout; found keras; expected gates",
        ),
        (["a.npz", "--from", "x"], "no such layout; found x; expected gates, keras, torch, "),
        (["a.npz", "--fused"], "--fused is for ONNX destinations (.onnx); found a.npz"),
        (["a.npz", "--bare"], "--bare is for framework layouts (--to torch, flax, …); found a.npz"),
        (
            ["a.npz", "--rescale-hard-sigmoid"],
            "--rescale-hard-sigmoid is for Keras destinations (.keras, .weights.h5, .h5); found",
        ),
        (
            ["a.keras", "--with-other"],
            "--with-other is for destinations of named arrays (.safetensors, .npz, ",
        ),
        (
            ["a.npz", "--with-other", "--lstm-only"],
            "--with-other and --lstm-only contradict each other",
        ),
        (
            ["a.npz", "--with-optimizer", "--layer", "lstm"],
            "--with-optimizer and --layer contradict each other",
        ),
        (["a.npz", "--dtype", "int8"], "--dtype: no such dtype; found int8; expected float32, "),
        (["a.npz", "--set", "x"], "--set: no such option; found x; expected [LAYER.]OPTION=VALUE"),
        (["a.npz", "--set", "lstn.dropout=0"], "lstn: no LSTM layer of that name; "),
        (["a.npz", "--config", "nowhere"], "nowhere: No such file or directory"),
    ],
)
def test_usage(
    args: list[str], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SEED95.resolve()
    monkeypatch.chdir(tmp_path)
    assert error in failure("convert", source, *args)[0]
    assert list(tmp_path.iterdir()) == []


def test_options_that_are_the_default_are_accepted(tmp_path: Path) -> None:
    for index, args in enumerate((["--with-other"], ["--from", "keras"], ["--to", "gates"])):
        assert run("convert", SEED95, tmp_path / f"{index}.npz", *args).code == 0


# ---- destinations -----------------------------------------------------------------------------


def test_an_existing_destination_needs_force(out: Path) -> None:
    out.write_bytes(b"precious")
    assert failure("convert", SEED95, out) == (
        f"{out}: the destination exists",
        "--force replaces it",
    )
    assert out.read_bytes() == b"precious"
    assert run("convert", SEED95, out, "--force").code == 0
    assert lc.diff(SEED95, out)


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("name", ["model.keras", "link.keras", "./model.keras"])
def test_source_and_destination_are_never_the_same_file(
    tmp_path: Path, name: str, force: list[str]
) -> None:
    source = tmp_path / "model.keras"
    source.write_bytes(SEED95.read_bytes())
    if name == "link.keras":
        os.link(source, tmp_path / name)
    error, _ = failure("convert", source, f"{tmp_path}/{name}", *force)
    assert error.endswith("source and destination are the same file")
    assert source.read_bytes() == SEED95.read_bytes()


def test_a_directory_is_no_destination(tmp_path: Path) -> None:
    folder = tmp_path / "out.npz"
    folder.mkdir()
    assert failure("convert", SEED95, folder)[0] == f"{folder}: the destination is a directory"


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["x.npz", "--to", "pytorch"], "did you mean torch?"),
        (["x.npz", "--from", "trch"], "did you mean torch?"),
        (["x.npz", "--to", "zzz"], "lstmconvert formats lists the layouts"),
        (["x.pt"], "PyTorch takes .safetensors --to torch: safetensors.torch.load_file(path)"),
        (["x.engine"], "write a .onnx, of which trtexec --onnx=FILE makes an engine"),
        (["x.pkl"], "no pickle is written: .npz holds the same arrays and their names"),
        (["x"], "name one: x.safetensors; or a folder that is there"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(args: list[str], hint: str) -> None:
    assert failure("convert", SEED95, *args)[1] == hint


def test_a_slash_at_the_end_names_a_directory(tmp_path: Path) -> None:
    """A `Path` forgets it, and would write the file."""
    named = f"{tmp_path}/lstm.npz/"
    said = "the destination is named as a folder, and none is there"
    assert failure("convert", SEED95, named) == (
        f"{named}: {said}",
        f"mkdir -p {tmp_path}/lstm.npz, or leave out the / at its end",
    )
    with pytest.raises(DestinationError, match=said):
        lc.convert(SEED95, named)
    with pytest.raises(DestinationError, match="a file is written"):
        lc.save(lc.load(SEED95), named)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ([], "seed95.safetensors"),
        (["--to", "torch"], "seed95.safetensors"),
        (["--to", "keras"], "seed95.keras"),
        (["--to", "flax"], "seed95.msgpack"),
        (["--to", "c"], "seed95.h"),
        (["--whole"], "seed95.onnx"),
        (["--era", "keras3"], "seed95.keras"),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_in_a_folder_the_file_is_named_as_the_source(
    args: list[str], name: str, slash: str, tmp_path: Path
) -> None:
    done = run("convert", SEED95, f"{tmp_path}{slash}", *args)
    assert done.code == 0, done.err
    assert f"wrote {tmp_path}/{name}: " in done.err
    assert name in {path.name for path in tmp_path.iterdir()}


def test_the_library_names_it_so_too(tmp_path: Path) -> None:
    assert lc.convert(SEED95, tmp_path).destination == tmp_path / "seed95.safetensors"
    with pytest.raises(DestinationError, match="exists"):
        lc.convert(SEED95, f"{tmp_path}/")


def test_nothing_is_written_into_a_model(tmp_path: Path) -> None:
    saved = shutil.copytree(FIXTURES / "tf-2.15.1" / "seed95.savedmodel", tmp_path / "saved")
    before = sorted(saved.rglob("*"))
    error, hint = failure("convert", SEED95, saved)
    assert error == f"{saved}: the folder is a SavedModel directory, and nothing is written into it"
    assert hint == "name a file, or a folder beside it"
    assert sorted(saved.rglob("*")) == before


def test_a_refusal_says_which_roads_there_are(tmp_path: Path) -> None:
    _, hint = failure("convert", KERAS / "both_unlike.keras", tmp_path / "a.npz", "--to", "torch")
    assert hint.startswith("these take it as it is: gates, keras, ")
    assert "torch" not in hint
    path = tmp_path / "b.safetensors"
    assert run("convert", KERAS / "both_unlike.keras", path, "--to", "keras").code == 0


def test_explain_writes_nothing_and_says_all(tmp_path: Path) -> None:
    old = FIXTURES / "keras-2.2.4" / "cudnn.h5"
    done = run("convert", old, tmp_path / "new.keras", "--explain")
    assert (done.code, done.err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    lines = [line.split("  ") for line in done.out.splitlines()]
    fates = {line[1].strip() for line in lines if len(line) > 2}
    assert fates == {"written", "kept", "changed", "note"}
    assert re.search(r"changed +cu_both +Keras 3 has one bias: bias and recurrent", done.out)


def test_explain_of_each_fate(tmp_path: Path) -> None:
    value = run(
        *("convert", FIXTURES / "torch-2.13.0" / "detector.safetensors"),
        *(tmp_path / "a.keras", "--explain", "--json"),
    ).json
    fates = {line["fate"]: line for line in value["lines"]}
    assert set(fates) == {"written", "kept", "changed", "left out", "assumed", "note"}
    assert fates["left out"]["what"] == "final_conv"
    assert value["result"]["written"] is False
    existing = tmp_path / "b.npz"
    existing.write_bytes(b"precious")
    assert "--force replaces it" in run("convert", SEED95, existing, "--explain").out
    assert existing.read_bytes() == b"precious"


def test_explain_needs_no_destination(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = SEED95.resolve()
    monkeypatch.chdir(tmp_path)
    assert run("convert", source, "--explain").out.startswith("seed95.safetensors: nothing is")
    assert failure("convert", source)[0] == "missing argument 'DST'"


def test_the_directory_must_exist(tmp_path: Path) -> None:
    assert failure("convert", SEED95, tmp_path / "no" / "a.npz") == (
        f"{tmp_path}/no: the destination's directory does not exist",
        f"mkdir -p {tmp_path}/no",
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a read-only file system")
def test_a_directory_that_takes_no_files() -> None:
    error, _ = failure("convert", SEED95, "/proc/self/lstm.safetensors")
    assert error.startswith("/proc/self/lstm.safetensors: cannot write: ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".keras", ".h5"])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource", reason="needs POSIX", exc_type=ImportError)

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    path = tmp_path / f"lstm{suffix}"
    path.write_bytes(b"precious")
    done = spawn("convert", SEED95, path, "--force", preexec_fn=small_files)
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"lstmconvert: error: {path}: ")
    assert done.stderr.count("\n") == 2
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nan_is_kept(tmp_path: Path) -> None:
    import h5py

    source, path = tmp_path / "model.weights.h5", tmp_path / "lstm.safetensors"
    source.write_bytes(WEIGHTS.read_bytes())
    with h5py.File(source, "r+") as file:
        kernel = file["layers/lstm/cell/vars/0"]
        values = kernel[()]
        values[0, 2] = np.array(0x7FC12345, "<u4").view("<f4")
        kernel[...] = values
    assert run("convert", source, path).code == 0
    bits = lc.load(path)["lstm"].forget_gate.kernel.view("<u4")[0, 0]
    assert bits == 0x7FC12345
    assert "lstm.forget_gate.kernel holds 1 NaN" in run("inspect", path, "--stats").err
