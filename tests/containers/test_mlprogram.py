"""Packages of Core ML: those that coremltools wrote, every number against PyTorch's own module; and
those that we write, which coremltools reads as the programs that it makes itself.

Predictions need a Mac.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import FIXTURES, KERAS, SEED95, failure, run
from support.foreign import WITHOUT_FRAMEWORKS, answers
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.errors import (
    CorruptFile,
    DestinationError,
    NoLSTM,
    NotAModel,
    SourceError,
    UnsupportedByTarget,
)
from lstmconvert.files import locking, writing
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, KERAS3
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import same_bits

FOLDER = FIXTURES / "coremltools-9.0"
#: PyTorch's names of a direction -> ours; its gates are in the order input, forget, cell, output.
SIDES = {"": "forward", "_reverse": "backward"}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "torch.io.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", ["torch", "network", "half"])
def test_weights_are_the_modules_own(name: str, weights: dict[str, np.ndarray]) -> None:
    model = lc.load(FOLDER / f"{name}.mlpackage")
    dtype = np.float16 if name == "half" else np.float32
    assert len(model) == 2
    for number, layer in enumerate(model.values()):
        for side, ours in SIDES.items():
            cell = dict(layer.directions)[ours].lstm_cells[0]
            end = f"l{number}{side}"
            kernel = weights[f"lstm.weight_ih_{end}"].astype(dtype)
            recurrent = weights[f"lstm.weight_hh_{end}"].astype(dtype)
            bias = (weights[f"lstm.bias_ih_{end}"] + weights[f"lstm.bias_hh_{end}"]).astype(dtype)
            gates = (cell.input_gate, cell.forget_gate, cell.cell_gate, cell.output_gate)
            for position, gate in enumerate(gates):
                rows = slice(3 * position, 3 * position + 3)
                assert np.array_equal(gate.kernel, kernel[rows].T)
                assert np.array_equal(gate.recurrent_kernel, recurrent[rows].T)
                assert gate.bias is not None
                assert np.array_equal(gate.bias, bias[rows])
        assert layer.forward.options.return_sequences is True


def test_what_an_operation_says() -> None:
    layer = lc.load(FOLDER / "options.mlpackage")["options"]
    options = layer.forward.lstm_cells[0].options
    assert options.recurrent_activation == HARD_SIGMOID_KERAS2
    assert (options.activation.name, options.output_activation.name) == ("relu", "tanh")
    assert options.cell_clip == 0.5
    assert layer.forward.options.go_backwards is True
    assert layer.forward.options.return_sequences is False
    with np.load(FOLDER / "options.io.npz") as arrays:
        peephole = layer.forward.lstm_cells[0].forget_gate.peephole
        assert peephole is not None
        assert np.array_equal(peephole, arrays["peephole"][2:4])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("options", "initial_h from a constant of the program"),
        ("stated", "initial_h from the input h"),
    ],
)
def test_initial_states_are_told(name: str, words: str) -> None:
    (note,) = lc.load(FOLDER / f"{name}.mlpackage").notes
    assert words in note
    assert "initial_state=[h, c], each (batch, 2)" in note


def test_compressed_weights_are_named() -> None:
    with pytest.raises(SourceError, match=r"weight_ih.*constexpr_affine_dequantize") as caught:
        lc.load(FOLDER / "quantized.mlpackage")
    assert "decompress_weights" in str(caught.value.hint)


@pytest.mark.usefixtures("here")
def test_through_the_command_line(tmp_path: Path) -> None:
    done = run("batch", FOLDER, "--out-dir", tmp_path)
    assert "7 written, 1 failed" in done.err
    done = run("inspect", FOLDER / "torch.mlpackage")
    assert "a Core ML package (.mlpackage)" in done.out
    run("convert", FOLDER / "torch.mlpackage", tmp_path / "x.mlpackage")
    assert "equal" in run("diff", FOLDER / "torch.mlpackage", tmp_path / "x.mlpackage").out


def copied(folder: Path, name: str = "torch") -> Path:
    shutil.copytree(FOLDER / f"{name}.mlpackage", folder / "x.mlpackage")
    return folder / "x.mlpackage"


INSIDE = Path("Data", "com.apple.CoreML")


def test_the_model_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ML program") as caught:
        lc.load(FOLDER / "torch.mlpackage" / INSIDE / "model.mlmodel")
    assert "Manifest.json" in str(caught.value.hint)
    package = copied(tmp_path)
    (package / INSIDE / "model.mlmodel").unlink()
    with pytest.raises(NotAModel, match="without its model"):
        lc.load(package)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b"@model_path/weights/weight.bin", b"@model_path/../../weight.bin\0\0", CorruptFile),
        (b"@model_path/weights/weight.bin", b"@model_path/weights/WEIGHT.bin", CorruptFile),
        (b"lstm", b"lstn", NoLSTM),
        (b"bidirectional", b"bidirectionam", CorruptFile),
        (b"sigmoid", b"sigmoie", SourceError),
    ],
)
def test_programs_that_lie(old: bytes, new: bytes, error: type[Exception], tmp_path: Path) -> None:
    path = copied(tmp_path) / INSIDE / "model.mlmodel"
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(error):
        lc.load(tmp_path / "x.mlpackage")["lstm"]


def test_weights_that_lie(tmp_path: Path) -> None:
    path = copied(tmp_path) / INSIDE / "weights" / "weight.bin"
    data = path.read_bytes()
    for damaged, words in (
        (data.replace(b"\xef\xbe\xad\xde", b"\0\0\0\0"), "no numbers of that type"),
        (data[:200], "truncated"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=words):
            lc.load(tmp_path / "x.mlpackage")


def test_a_link_in_a_package_is_never_followed(tmp_path: Path) -> None:
    path = copied(tmp_path) / INSIDE / "weights" / "weight.bin"
    path.rename(tmp_path / "elsewhere.bin")
    try:
        os.symlink(tmp_path / "elsewhere.bin", path)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(CorruptFile, match="symbolic link"):
        lc.load(tmp_path / "x.mlpackage")


# -- what we write ----------------------------------------------------------------------------


def layers() -> dict[str, LSTMLayer]:
    """Layers with what the operation has a place for: units 1, an odd width, halves, every option.

    The `half` one is of float16, which takes a later set of operations.
    """
    rng = np.random.default_rng(4)
    options: dict[str, Any] = {
        "activation": KERAS3["relu"],
        "recurrent_activation": HARD_SIGMOID_KERAS2,
        "output_activation": KERAS3["tanh"],
        "cell_clip": 0.5,
    }
    return {
        "plain": make_layer(make_cell(rng, 5, 3), return_sequences=True),
        "one": make_layer(make_cell(rng, 3, 1), return_sequences=False),
        "both": make_layer(make_cell(rng, 3, 2), make_cell(rng, 3, 2), return_sequences=True),
        "half": make_layer(make_cell(rng, 7, 4, dtype="float16"), return_sequences=True),
        "options": make_layer(
            make_cell(rng, 3, 2, gate_parts=("bias", "peephole"), **options),
            go_backwards=True,
            return_sequences=False,
        ),
    }


#: What the operation says of a cell.
OPTIONS = ("activation", "recurrent_activation", "output_activation", "cell_clip")
#: What coremltools finds in our package, and makes itself of the same arguments.
BUILD = WITHOUT_FRAMEWORKS + """
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.converters.mil.mil import types

    def listed(path):
        ct.models.MLModel(path, skip_model_load=True)
        spec = ct.utils.load_spec(path)
        inside = path + "/Data/com.apple.CoreML/weights"
        program = load(spec, spec.specificationVersion, file_weights_dir=inside)
        main = program.functions["main"]
        lines = [main.opset_version.name, spec.specificationVersion]
        for end in (*spec.description.input, *spec.description.output):
            array = end.type.multiArrayType
            lines += [array.dataType, list(array.shape),
                      [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges]]
        for operation in main.operations:
            if operation.op_type == "const":
                continue
            lines.append(operation.op_type)
            for key, value in sorted(operation.inputs.items()):
                number = None if value is None else value.val
                bits = None if number is None else np.asarray(number).tobytes().hex()
                lines.append((key, None if number is None else str(np.asarray(number).dtype), bits))
            lines.append([(v.dtype.__name__, len(v.shape), [s for s in v.shape if s == s and
                           isinstance(s, (int, np.integer))]) for v in operation.outputs])
        lines.append(len(main.outputs))
        return "|".join(map(str, lines))

    for name, a in cases.items():
        words = {key[1:]: a.pop(key).item() for key in list(a) if key[0] == "_"}
        is_half = a["weight_ih"].dtype == np.float16
        target = ct.target.iOS17 if is_half else ct.target.iOS15
        of = types.fp16 if is_half else types.fp32
        width, units = a["weight_ih"].shape[1], a["weight_hh"].shape[1]
        states = np.zeros((1, units * (1 + ("weight_ih_back" in a))), a["weight_ih"].dtype)

        @mb.program(input_specs=[mb.TensorSpec((1, ct.converters.mil.mil.get_new_symbol(), width),
                                               dtype=of)], opset_version=target)
        def program(x):
            turned = mb.transpose(x=x, perm=[1, 0, 2])
            y, h, _ = mb.lstm(x=turned, initial_h=states, initial_c=states, **a, **words)
            return mb.transpose(x=y, perm=[1, 0, 2]) if words["output_sequence"] else h

        kind = np.float16 if is_half else np.float32
        shape = (1, ct.RangeDim(1, 65536, default=1), width)
        ct.convert(program, convert_to="mlprogram", minimum_deployment_target=target,
                   compute_precision=ct.precision.FLOAT32, skip_model_load=True,
                   inputs=[ct.TensorType("x", shape=shape, dtype=kind)],
                   outputs=[ct.TensorType(dtype=kind)]).save(f"theirs-{name}.mlpackage")
        answers[f"{name}|theirs"] = np.array(listed(f"theirs-{name}.mlpackage"))
        answers[f"{name}|ours"] = np.array(listed(f"{name}.mlpackage"))
"""


@pytest.mark.slow
@pytest.mark.engines
def test_our_program_is_coremltools_own(tmp_path: Path) -> None:
    """Operations, arguments and every bit of the weights, and what the file says of its ends."""
    given: dict[str, dict[str, Any]] = {}
    for name, layer in layers().items():
        lc.save(layer, tmp_path / f"{name}.mlpackage")
        cell, half = layer.forward.lstm_cells[0].options, layer.forward.options
        both = layer.backward is not None
        is_odd = name == "options"
        given[name] = {
            **lc.arrange(layer, "coreml-mil"),
            "_direction": np.array(
                "bidirectional" if both else "reverse" if half.go_backwards else "forward"
            ),
            "_output_sequence": np.array(half.return_sequences),
            "_recurrent_activation": np.array("hard_sigmoid" if is_odd else "sigmoid"),
            "_cell_activation": np.array("relu" if is_odd else "tanh"),
            "_activation": np.array("tanh"),
            **({"clip": np.float32(cell.cell_clip)} if cell.cell_clip else {}),
        }
    found = answers(BUILD, given, tmp_path)
    for name in given:
        lines = [found[f"{name}|{whose}"].item().split("|") for whose in ("ours", "theirs")]
        assert "lstm" in lines[0]
        assert lines[0] == lines[1], name
        (read,) = lc.load(tmp_path / f"theirs-{name}.mlpackage").values()
        (written,) = lc.load(stranger(tmp_path / f"{name}.mlpackage")).values()
        for layer in (read, written):
            for one, other in zip(layer.cells(), layers()[name].cells(), strict=True):
                for option in OPTIONS:
                    mine, theirs = (getattr(cell[2].options, option) for cell in (one, other))
                    assert mine == theirs, (name, option)
                for (role, a), (_, b) in zip(one[2].tensors(), other[2].tensors(), strict=True):
                    assert same_bits(a.read(), b.read()), role
            assert layer.forward.options.return_sequences is (name not in ("one", "options"))
            assert layer.forward.options.go_backwards is (name == "options")


def stranger(package: Path) -> Path:
    """Hide our metadata from the reader."""
    path = package / INSIDE / "model.mlmodel"
    key, other = (b"\x0a\x0b" + text + b"\x12" for text in (b"lstmconvert", b"hidden away"))
    assert key in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(key, other))
    return package


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras"])
def test_every_option_comes_back(source: Path, tmp_path: Path) -> None:
    package = tmp_path / "x.mlpackage"
    result = lc.convert(source, package)
    assert (result.container, result.layout) == ("mlpackage", "coreml-mil")
    assert result.files == (package,)
    report = lc.diff(source, package)
    assert report.layers
    assert all(report.layers)
    before = bytes_of(package)
    assert set(before) == {
        "Manifest.json",
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
    }
    assert list(tmp_path.iterdir()) == [package]
    lc.convert(source, package, force=True)
    assert bytes_of(package) == before


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_several_layers_whose_names_no_program_has(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = ("a", "net/c", "ein Netz", "a_")
    made = tuple(make_layer(make_cell(rng, 3, 2), name=name) for name in names[:3])
    model = Model(layers=made, source=Source(container="live"), container="live")
    lc.save(model, tmp_path / "x.mlpackage")
    assert list(lc.load(tmp_path / "x.mlpackage")) == ["a", "net/c", "ein Netz"]
    assert list(lc.load(stranger(tmp_path / "x.mlpackage"))) == ["a", "net/c", "ein Netz"]
    lc.save(made[0], tmp_path / "bare.mlpackage", bare=True)
    assert list(lc.load(stranger(tmp_path / "bare.mlpackage"))) == ["lstm"]
    twins = (made[0], make_layer(make_cell(rng, 3, 2), name=names[3]))
    with pytest.raises(lc.LSTMConvertError, match="one name"):
        lc.save(
            Model(layers=twins, source=Source(container="live"), container="live"),
            tmp_path / "z.mlpackage",
        )
    assert not (tmp_path / "z.mlpackage").exists()


def test_halves_that_differ_in_what_they_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    cells = [make_cell(rng, 3, 2, activation=KERAS3[name]) for name in ("tanh", "relu")]
    with pytest.raises(UnsupportedByTarget, match="cannot express activation"):
        lc.save(make_layer(*cells), tmp_path / "x.mlpackage")
    assert list(tmp_path.iterdir()) == []


# -- a folder that is whole, or as it was -----------------------------------------------------


def test_only_a_package_gives_way(tmp_path: Path) -> None:
    package = tmp_path / "x.mlpackage"
    lc.convert(SEED95, package)
    with pytest.raises(DestinationError, match="exists"):
        lc.convert(SEED95, package)
    before = bytes_of(package)
    with pytest.raises(DestinationError, match="same file"):
        lc.convert(package, package, force=True)
    inside = package / INSIDE / "model.mlmodel"
    shutil.copy(SEED95, package / "Data" / "seed.keras")
    for source in (package / "Data" / "seed.keras",):
        with pytest.raises(DestinationError, match="lies inside the destination"):
            lc.convert(source, package, force=True)
    (package / "Data" / "seed.keras").unlink()
    assert inside.is_file()
    assert bytes_of(package) == before
    lc.convert(KERAS / "both_concat.keras", f"{package}{os.sep}", force=True)  # as shells complete
    assert list(lc.load(package)) == ["both"]
    other = tmp_path / "notes.mlpackage"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(DestinationError, match="of another kind"):
        lc.convert(SEED95, other, force=True)
    assert (other / "thesis.tex").read_text() == "x"
    (tmp_path / "file.mlpackage").write_text("x")
    lc.convert(SEED95, tmp_path / "file.mlpackage", force=True)
    assert lc.load(tmp_path / "file.mlpackage")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_failure_leaves_the_old_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "x.mlpackage"
    lc.convert(SEED95, package)
    before = bytes_of(package)
    real = os.rename

    def fails(*names: Any) -> None:
        if os.fspath(names[1]) == str(package):
            raise OSError(5, "no")
        real(*names)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda a, b: fails(a, b) if "-tmp" in str(a) else real(a, b))
        with pytest.raises(DestinationError, match="no"):
            lc.convert(KERAS / "both_concat.keras", package, force=True)
    assert bytes_of(package) == before
    assert list(tmp_path.iterdir()) == [package]


@pytest.mark.usefixtures("here")
def test_who_writes_next_ends_what_a_killed_process_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "x.mlpackage"
    lc.convert(SEED95, package)
    before = bytes_of(package)
    with monkeypatch.context() as patched:  # killed when the old one was moved away
        patched.setattr(writing, "_take_name", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr(writing, "_put_back", lambda *_: None)
        patched.setattr(writing, "_remove", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            lc.convert(KERAS / "both_concat.keras", package, force=True)
    assert not package.exists()
    assert len(list(tmp_path.iterdir())) == 2
    run("batch", tmp_path, "--out-dir", tmp_path / "out")  # neither is taken for a model
    assert list((tmp_path / "out").glob("*.safetensors")) == []
    with pytest.raises(DestinationError, match="appeared"):
        lc.convert(SEED95, package)
    assert bytes_of(package) == before
    if locking.has_locks():  # else who is alive cannot be told, and what is new is left alone
        assert list(tmp_path.iterdir()) == [package]


@pytest.mark.usefixtures("here")
def test_batch_writes_packages_and_finds_them_done(tmp_path: Path) -> None:
    shutil.copy(SEED95, tmp_path / "seed.keras")
    arguments = ("batch", tmp_path / "seed.keras", "--out-dir", tmp_path / "out")
    assert "1 written" in run(*arguments, "--suffix", ".mlpackage").err
    assert "1 done before" in run(*arguments, "--suffix", ".mlpackage").err
    assert lc.load(tmp_path / "out" / "seed.mlpackage")
    error, _ = failure("convert", SEED95, "memory://models/x.mlpackage")
    assert "is a folder, and files alone are sent to a store" in error
