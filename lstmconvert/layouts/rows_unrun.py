"""Rows of the table that are known from the framework's source, and have not been run here."""

from __future__ import annotations

from lstmconvert.layouts.row import FREE, Form, Names, Row, Slot

_TORCH_END = "_l{k}{d}"


def _fused(
    kernel: str, recurrent: str, bias: str, second: str | None = None, *, transposed: bool = False
) -> tuple[Slot, ...]:
    slots = (
        Slot(key=kernel, parts=("kernel",), transposed=transposed),
        Slot(key=recurrent, parts=("recurrent_kernel",), transposed=transposed),
        Slot(key=bias, parts=("bias",)),
    )
    extra = (Slot(key=second, parts=("recurrent_bias",), filled=True),) if second else ()
    return slots + extra


CANDLE = Row(
    name="candle",
    title="candle-nn LSTM",
    slots=_fused(
        f"weight_ih{_TORCH_END}",
        f"weight_hh{_TORCH_END}",
        f"bias_ih{_TORCH_END}",
        f"bias_hh{_TORCH_END}",
        transposed=True,
    ),
    sides=("", "", "_reverse"),
    index="{}",
    alone="0",
    alike=True,
    chained=True,
    run=False,
    evidence="candle-nn/src/rnn.rs",
    hint="One LSTM for each layer and direction: LSTMConfig has layer_idx and direction.",
)

BURN = Row(
    name="burn",
    title="Burn Lstm, BiLstm",
    slots=(
        Slot(key="{d}{gate}_gate.input_transform.weight", parts=("kernel",)),
        Slot(key="{d}{gate}_gate.hidden_transform.weight", parts=("recurrent_kernel",)),
        Slot(key="{d}{gate}_gate.input_transform.bias", parts=("bias",)),
        Slot(key="{d}{gate}_gate.hidden_transform.bias", parts=("recurrent_bias",), filled=True),
    ),
    gates=Names("input", "forget", "cell", "output"),
    sides=("", "forward.", "reverse."),
    bidirectional=True,
    alike=True,
    index=None,
    run=False,
    evidence="burn-nn/src/modules/rnn/lstm.rs, gate_controller.rs",
    hint="Linear layers of Burn keep (inputs, outputs), as Keras does.",
)

FLUX = Row(
    name="flux",
    title="Flux.jl LSTMCell, from 0.15",
    slots=_fused("{d}{k}Wi", "{d}{k}Wh", "{d}{k}bias", transposed=True),
    run=False,
    evidence="Flux.jl/src/layers/recurrent.jl:383",
    hint="Julia reads these C-ordered arrays turned: permutedims restores (4 units, inputs).",
)

LUX = Row(
    name="lux",
    title="Lux.jl LSTMCell, from 1.0",
    slots=_fused(
        "{d}{k}weight_ih", "{d}{k}weight_hh", "{d}{k}bias_ih", "{d}{k}bias_hh", transposed=True
    ),
    run=False,
    evidence="Lux.jl/src/layers/recurrent.jl:494",
    hint=FLUX.hint,
)

MATLAB = Row(
    name="matlab",
    title="MATLAB lstmLayer",
    slots=(
        Slot(key="{d}{k}InputWeights", parts=("kernel",), transposed=True),
        Slot(key="{d}{k}RecurrentWeights", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{d}{k}Bias", parts=("bias",), form=Form.COLUMN),
    ),
    always_bias=True,
    containers=("mat", "safetensors", "npz", "json"),
    recognised=True,
    run=False,
    evidence="MathWorks' Keras importer, TranslatorForLSTMLayer",
    hint="After w = load('x.mat'): layer.InputWeights = w.lstm.InputWeights, and so on. A "
    "bilstmLayer takes the forward half's rows above the backward half's.",
)

DL4J = Row(
    name="dl4j",
    title="Deeplearning4j LSTM",
    slots=(
        Slot(key="{d}{k}W", parts=("kernel",)),
        Slot(key="{d}{k}RW", parts=("recurrent_kernel",)),
        Slot(key="{d}{k}b", parts=("bias",), form=Form.ROW),
    ),
    order="cfoi",
    always_bias=True,
    run=False,
    evidence="deeplearning4j KerasLSTM.java, LSTMParamInitializer.java",
    hint="What it calls the input gate is the candidate.",
)

CNTK = Row(
    name="cntk",
    title="CNTK layers.LSTM",
    slots=_fused("{d}{k}W", "{d}{k}H", "{d}{k}b"),
    order="icfo",
    always_bias=True,
    run=False,
    evidence="cntk/layers/blocks.py",
    hint="Without self-stabilization.",
)

CUDNN = Row(
    name="cudnn",
    title="cuDNN, by linLayerID",
    slots=(
        Slot(key="{d}{k}matrix.{gate}", parts=("kernel",), transposed=True),
        Slot(
            key="{d}{k}matrix.{gate}",
            parts=("recurrent_kernel",),
            transposed=True,
            gates=Names("4", "5", "6", "7"),
        ),
        Slot(key="{d}{k}bias.{gate}", parts=("bias",)),
        Slot(
            key="{d}{k}bias.{gate}",
            parts=("recurrent_bias",),
            filled=True,
            gates=Names("4", "5", "6", "7"),
        ),
    ),
    gates=Names("0", "1", "2", "3"),
    bidirectional=True,
    alike=True,
    always_bias=True,
    run=False,
    evidence="cuDNN's linLayerID, as ONNX Runtime and TensorFlow use it",
    hint="No GPU was at hand.",
)

FRUGALLY_DEEP = Row(
    name="frugally-deep",
    title="frugally-deep",
    slots=_fused("{d}{k}weights", "{d}{k}recurrent_weights", "{d}{k}bias"),
    sides=("", "forward_", "backward_"),
    index="cell{}_",
    bidirectional=True,
    fixed=FREE,
    expresses=frozenset({"merge_mode"}),
    containers=("frugally-deep", "safetensors", "npz"),
    run=False,
    evidence="frugally-deep/keras_export/convert_model.py, show_lstm_layer; "
    "include/fdeep/import_model.hpp, create_lstm_layer, create_rnn_layer",
    hint="fdeep::load_model takes the .json file, whose config is spelled as Keras 3 does. It has "
    "no test cases: give verify=false.",
)

COREML = Row(
    name="coreml",
    title="Core ML NeuralNetwork LSTMWeightParams",
    slots=(
        Slot(key="{d}{gate}WeightMatrix", parts=("kernel",), transposed=True),
        Slot(key="{d}{gate}RecursionMatrix", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{d}{gate}BiasVector", parts=("bias",)),
        Slot(key="{d}{gate}PeepholeVector", parts=("peephole",), order="ifo"),
    ),
    gates=Names("inputGate", "forgetGate", "blockInput", "outputGate"),
    bidirectional=True,
    alike=True,
    index=None,
    fixed=FREE,
    expresses=frozenset({"go_backwards", "output_activation", "cell_clip"}),
    containers=("mlmodel", "safetensors", "npz", "json"),
    run=False,
    evidence="coremltools mlmodel/format/NeuralNetwork.proto:3663; coremltools makes the same "
    "layers of coreml-mil's arrays in the tests, and nothing is predicted: that takes a Mac",
    hint="The .mlmodel takes x (1, time, inputs). It always bounds the cell state: by 50000, as "
    "coremltools writes it, where a layer has no clip. Its own files are read: neural networks, "
    "not ML programs.",
)

COREML_MIL = Row(
    name="coreml-mil",
    title="Core ML MIL lstm",
    slots=(
        Slot(key="weight_ih{d}", parts=("kernel",), transposed=True),
        Slot(key="weight_hh{d}", parts=("recurrent_kernel",), transposed=True),
        Slot(key="bias{d}", parts=("bias",)),
        Slot(key="peephole{d}", parts=("peephole",), order="ifo"),
    ),
    order="ifoc",
    sides=("", "", "_back"),
    bidirectional=True,
    alike=True,
    index=None,
    run=False,
    evidence="coremltools/converters/mil/mil/ops/defs/iOS15/recurrent.py:224; coremltools "
    "converts the arrays in the tests, and nothing is predicted",
    hint="Arguments of mb.lstm. Its input is (time, batch, inputs).",
)

RTNEURAL = Row(
    name="rtneural",
    title="RTNeural",
    slots=_fused("{d}{k}kernel", "{d}{k}recurrent_kernel", "{d}{k}bias"),
    index=None,
    always_bias=True,
    single=True,
    containers=("rtneural", "safetensors", "npz"),
    run=False,
    evidence="RTNeural/model_loader.h, loadLSTM; files that come with RTNeural answer in the tests "
    "as was recorded with them, by our own forward pass",
    hint="Always tanh and sigmoid, always stateful; the layers follow one another.",
)

UNRUN: tuple[Row, ...] = (
    BURN,
    CANDLE,
    CNTK,
    COREML,
    COREML_MIL,
    CUDNN,
    DL4J,
    FLUX,
    FRUGALLY_DEEP,
    LUX,
    MATLAB,
    RTNEURAL,
)
