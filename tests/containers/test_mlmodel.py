"""Core ML: coremltools makes of the MIL arrays the very NeuralNetwork layers that we write.

Predictions need a Mac. What is compared here is where each number and option ends: coremltools
converts a MIL program into a NeuralNetwork, whose weights lie gate by gate, and it reads our file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import KERAS, SEED95, failure
from support.foreign import WITHOUT_FRAMEWORKS, answers
from support.layout_tools import SINGLE, case
from support.neutral import make_cell, make_layer
from support.protobuf import message

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3, KERAS3
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array, same_bits

pytestmark = pytest.mark.engines

#: Beside each case's file, coremltools's own of the same weights; both as coremltools reads them.
CONVERT = WITHOUT_FRAMEWORKS + """
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    def lstm_of(spec):
        for layer in spec.neuralNetwork.layers:
            kind = layer.WhichOneof("layer")
            if kind in ("uniDirectionalLSTM", "biDirectionalLSTM"):
                return layer, getattr(layer, kind)

    def bits(text):
        return np.frombuffer(text, np.uint8)

    def built(a):
        from coremltools.models import datatypes
        from coremltools.models.neural_network import NeuralNetworkBuilder

        def of(part):
            gates = ("inputGate", "forgetGate", "outputGate", "blockInput")
            return [a[gate + part] for gate in gates if gate + part in a]

        features = [("x", datatypes.Array(1))], [("y", datatypes.Array(1))]
        layer = NeuralNetworkBuilder(*features, disable_rank5_shape_mapping=True).add_unilstm(
            "lstm", of("RecursionMatrix"), of("WeightMatrix"), of("BiasVector"),
            hidden_size=2, input_size=3, input_names=["x"], output_names=["y"],
            inner_activation="SIGMOID_HARD", cell_state_update_activation="RELU",
            output_activation="TANH", peep=of("PeepholeVector"), output_all=True,
            cell_clip_threshold=0.2, reverse_input=True)
        return layer.uniDirectionalLSTM

    options = cases.pop("options")
    _, ours = lstm_of(ct.utils.load_spec("options.mlmodel"))
    answers["options|theirs"] = bits(built(options).SerializeToString(deterministic=True))
    answers["options|ours"] = bits(ours.SerializeToString(deterministic=True))

    for name, arrays in cases.items():
        both, (rows, width) = "weight_ih_back" in arrays, arrays["weight_ih"].shape
        side = "bidirectional" if both else "forward"

        @mb.program(input_specs=[mb.TensorSpec(shape=(6, 1, width))])
        def program(x):
            h = np.zeros((1, rows // 4 * (2 if both else 1)), np.float32)
            y, *_ = mb.lstm(x=x, initial_h=h, initial_c=h, direction=side, output_sequence=True,
                            **arrays)
            return y

        spec = ct.convert(program, convert_to="neuralnetwork").get_spec()
        ct.utils.save_spec(spec, f"theirs-{name}.mlmodel")
        layer, theirs = lstm_of(spec)
        ours_spec = ct.utils.load_spec(f"{name}.mlmodel")
        ct.models.MLModel(ours_spec, skip_model_load=True)
        layer_of_ours, ours = lstm_of(ours_spec)
        answers[f"{name}|ends"] = np.array([len(layer.input) - len(layer_of_ours.input),
                                            len(layer.output) - len(layer_of_ours.output)])
        assert (theirs.params.cellClipThreshold, ours.params.cellClipThreshold) == (500, 50000)
        theirs.params.cellClipThreshold = ours.params.cellClipThreshold
        answers[f"{name}|theirs"] = bits(theirs.SerializeToString(deterministic=True))
        answers[f"{name}|ours"] = bits(ours.SerializeToString(deterministic=True))
        answers[f"{name}|kinds"] = np.array([
            item.WhichOneof("layer") for item in ours_spec.neuralNetwork.layers
        ])
"""
NAMES = [name for name in SINGLE if "no-bias" not in name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coreml")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Array]:
    for name in NAMES:
        lc.save(case(name).layer, folder / f"{name}.mlmodel")
    lc.save(with_options(), folder / "options.mlmodel")
    given = {name: lc.arrange(case(name).layer, "coreml-mil") for name in NAMES}
    given["options"] = lc.arrange(with_options(), "coreml")
    return answers(CONVERT, given, folder)


@pytest.mark.parametrize("name", NAMES)
def test_our_layer_is_coremltools_own(name: str, found: dict[str, Array]) -> None:
    """Sizes, functions, flags and every bit of the weights."""
    assert same_bits(found[f"{name}|ours"], found[f"{name}|theirs"])
    assert found[f"{name}|ours"].size > 100
    assert list(found[f"{name}|ends"]) == [0, 0]
    kinds = [kind for kind in found[f"{name}|kinds"] if kind != "loadConstantND"]
    lstm = "biDirectionalLSTM" if case(name).both else "uniDirectionalLSTM"
    assert kinds == ["transpose", "expandDims", lstm, "squeeze", "transpose"]


def with_options() -> LSTMLayer:
    """What only a neural network has a place for."""
    cell = make_cell(
        np.random.default_rng(4), 3, 2, activation=KERAS3["relu"],
        recurrent_activation=HARD_SIGMOID_KERAS2, output_activation=KERAS3["tanh"],
        cell_clip=0.2, gate_parts=("bias", "peephole"),
    )  # fmt: skip
    return make_layer(cell, go_backwards=True, return_sequences=True)


def test_functions_peepholes_clip_and_direction_are_coremltools_own(
    found: dict[str, Array],
) -> None:
    assert same_bits(found["options|ours"], found["options|theirs"])


@pytest.mark.parametrize("name", NAMES)
def test_coremltools_own_file_is_read(name: str, found: dict[str, Array], folder: Path) -> None:
    model = lc.load(folder / f"theirs-{name}.mlmodel")
    assert (model.layout, model.container) == ("coreml", "mlmodel")
    (layer,) = model.values()
    for one, other in zip(layer.cells(), case(name).layer.cells(), strict=True):
        for (role, a), (_, b) in zip(one[2].tensors(), other[2].tensors(), strict=True):
            assert same_bits(a.read(), b.read()), role
        assert one[2].options.cell_clip == 500
        assert one[2].options.activation == KERAS3["tanh"]
        assert one[2].options.recurrent_activation == KERAS3["sigmoid"]
    assert layer.forward.options.return_sequences is True
    assert layer.forward.options.go_backwards is False


@pytest.mark.parametrize("source", [SEED95, KERAS / "both_concat.keras"])
def test_every_option_comes_back(source: Path, tmp_path: Path) -> None:
    lc.convert(source, tmp_path / "x.mlmodel")
    report = lc.diff(source, tmp_path / "x.mlmodel")
    assert report.layers
    assert all(report.layers)
    before = (tmp_path / "x.mlmodel").read_bytes()
    lc.convert(source, tmp_path / "x.mlmodel", force=True)
    assert (tmp_path / "x.mlmodel").read_bytes() == before


def stranger(path: Path, change: Any = None) -> Path:
    """Take our metadata out of a file, and change what else it says."""
    model = message("Model").FromString(path.read_bytes())
    del model.description.metadata.userDefined[:]
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def options_of(path: Path) -> tuple[Any, Any]:
    (layer,) = lc.load(path).values()
    return layer.forward.lstm_cells[0].options, layer.forward.options


@pytest.mark.parametrize(
    ("functions", "output"),
    [
        (("relu", HARD_SIGMOID_KERAS2), None),
        (("linear", HARD_SIGMOID_KERAS2), "tanh"),
        (("tanh", "tanh"), "relu"),
    ],
)
def test_what_a_file_says_without_our_metadata(
    functions: Any, output: str | None, tmp_path: Path
) -> None:
    activation, recurrent = (KERAS3[f] if isinstance(f, str) else f for f in functions)
    cell = make_cell(
        np.random.default_rng(4), 3, 2, activation=activation, recurrent_activation=recurrent,
        output_activation=output and KERAS3[output], cell_clip=0.2,
        gate_parts=("bias", "peephole"), dtype="float16",
    )  # fmt: skip
    layer = make_layer(cell, go_backwards=True, return_sequences=False)
    lc.save(layer, tmp_path / "x.mlmodel")
    path = stranger(tmp_path / "x.mlmodel")
    of_cell, run = options_of(path)
    assert of_cell.activation == activation
    assert of_cell.recurrent_activation == recurrent
    assert of_cell.output_activation == (output and KERAS3[output])
    assert of_cell.cell_clip == 0.2
    assert (run.go_backwards, run.return_sequences) == (True, False)
    (found,) = lc.load(path).values()
    for (role, a), (_, b) in zip(found.cell.tensors(), cell.tensors(), strict=True):
        assert same_bits(a.read(), b.read()), role


def test_flags(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        params = model.neuralNetwork.layers[4].uniDirectionalLSTM.params
        params.cellClipThreshold, params.forgetBias = 0, True

    lc.save(case("plain").layer, tmp_path / "x.mlmodel")
    options, _ = options_of(stranger(tmp_path / "x.mlmodel", change))
    assert (options.cell_clip, options.forget_bias) == (50.0, 1.0)


def test_inside_a_pipeline_and_without_a_bias(tmp_path: Path) -> None:
    lc.save(case("no-bias").layer, tmp_path / "x.mlmodel")
    inner = message("Model").FromString((tmp_path / "x.mlmodel").read_bytes())
    outer = message("Model")(specificationVersion=4)
    inner.neuralNetworkClassifier.CopyFrom(inner.neuralNetwork)
    inner.ClearField("neuralNetwork")
    outer.pipelineClassifier.pipeline.models.add().CopyFrom(inner)
    (tmp_path / "y.mlmodel").write_bytes(outer.SerializeToString())
    (layer,) = lc.load(tmp_path / "y.mlmodel").values()
    assert layer.forget_gate.bias is None
    assert same_bits(layer.forget_gate.kernel, case("no-bias").layer.forget_gate.kernel)


def hard(lstm: Any, alpha: float, beta: float) -> None:
    lstm.activations[0].Clear()
    lstm.activations[0].sigmoidHard.alpha, lstm.activations[0].sigmoidHard.beta = alpha, beta


def test_a_hard_sigmoid_that_says_its_constants(tmp_path: Path) -> None:
    lc.save(case("plain").layer, tmp_path / "x.mlmodel")
    path = stranger(
        tmp_path / "x.mlmodel",
        lambda model: hard(model.neuralNetwork.layers[4].uniDirectionalLSTM, 0.2, 0.5),
    )
    assert options_of(path)[0].recurrent_activation == HARD_SIGMOID_KERAS2


def model_of(*layers: LSTMLayer) -> Model:
    return Model(layers=layers, source=Source(container="live"), container="live")


def test_several_layers_and_bare(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = tuple(make_layer(make_cell(rng, 3, 2), name=name) for name in ("a", "b", "net/c"))
    lc.save(model_of(*layers), tmp_path / "x.mlmodel")
    assert list(lc.load(tmp_path / "x.mlmodel")) == ["a", "b", "net/c"]
    assert list(lc.load(stranger(tmp_path / "x.mlmodel"))) == ["a", "b", "net/c"]
    lc.save(layers[0], tmp_path / "y.mlmodel", bare=True)
    assert list(lc.load(stranger(tmp_path / "y.mlmodel"))) == ["lstm"]
    twins = [make_layer(make_cell(rng, 3, 2), name=name) for name in ("a/b", "a_b")]
    with pytest.raises(lc.LSTMConvertError, match="one name"):
        lc.save(model_of(*twins), tmp_path / "z.mlmodel")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": KERAS3["gelu"]}, "cannot express activation"),
        ({"activation": KERAS3["relu6"]}, "cannot express activation"),
        ({"recurrent_activation": HARD_SIGMOID_KERAS3}, "cannot express recurrent_activation"),
        ({"dtype": "bfloat16"}, "cannot express dtype"),
        ({"projected": 1}, "projection"),
        ({"gate_clip": 1.0}, "gate_clip"),
    ],
)
def test_what_it_cannot_express(options: Any, message: str, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2, **options))
    with pytest.raises(UnsupportedByTarget, match=message):
        lc.save(layer, tmp_path / "x.mlmodel")
    assert list(tmp_path.iterdir()) == []


def test_halves_that_differ_in_what_they_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    cells = [make_cell(rng, 3, 2, cell_clip=clip) for clip in (0.1, 0.2)]
    with pytest.raises(UnsupportedByTarget, match=r"cell_clip; found 0\.1 and 0\.2"):
        lc.save(make_layer(cells[0], cells[1]), tmp_path / "x.mlmodel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _m, p: p.ClearField("activations"), "three functions"),
        (lambda _m, p: p.activations[0].Clear(), "three functions"),
        (lambda _m, p: setattr(p, "outputVectorSize", 7), "do not have its shape"),
        (lambda _m, p: setattr(p.params, "cellClipThreshold", -1.0), "not a bound"),
        (lambda _m, p: setattr(p.params, "cellClipThreshold", np.nan), "not a bound"),
        (lambda _m, p: hard(p, 0.25, 0.5), "three functions"),
        (lambda _m, p: hard(p, np.nan, 0.5), "three functions"),
        (lambda _m, p: setattr(p, "inputVectorSize", 0), "do not have its shape"),
        (lambda _m, p: setattr(p, "outputVectorSize", 1 << 60), "above the limit"),
        (lambda _m, p: setattr(p.params, "coupledInputAndForgetGate", True), "coupled"),
        (
            lambda _m, p: setattr(p.weightParams.blockInputBiasVector, "rawValue", b"1"),
            "quantized weights",
        ),
        (lambda _m, p: p.weightParams.ClearField("blockInputBiasVector"), "bias"),
        (lambda _m, p: p.weightParams.ClearField("blockInputWeightMatrix"), "no arrays"),
        (lambda m, _p: m.neuralNetwork.layers.append(m.neuralNetwork.layers[4]), "one name"),
        (lambda m, _p: m.ClearField("neuralNetwork"), "no layer of it is an LSTM"),
        (
            lambda m, _p: (m.ClearField("neuralNetwork"), m.mlProgram.SetInParent()),
            "an ML program",
        ),
    ],
)
def test_files_that_lie_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    def changed(model: Any) -> None:
        change(model, model.neuralNetwork.layers[4].uniDirectionalLSTM)

    lc.save(case("plain").layer, tmp_path / "x.mlmodel")
    error, _ = failure("inspect", stranger(tmp_path / "x.mlmodel", changed))
    assert message in error


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    lc.save(case("plain").layer, tmp_path / "x.mlmodel")
    data = (tmp_path / "x.mlmodel").read_bytes()
    (tmp_path / "x.mlmodel").write_bytes(data[:-100])
    assert "not a model of Core ML" in failure("inspect", tmp_path / "x.mlmodel")[0]
