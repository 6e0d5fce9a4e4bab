"""The table: one row for each arrangement of an LSTM's weights, grouped by framework.

A new framework is a new row and its test. `run` tells whether the real framework has run the
weights in the tests. Where a row allows other functions, merge modes or dtypes than `Row` does by
default (tanh and sigmoid; halves side by side; every floating type), a comment gives the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from lstmconvert.errors import UsageError, close_to
from lstmconvert.layouts.row import Form, Names, Row, Slot
from lstmconvert.model.activations import (
    ANY,
    HARD_SIGMOID_KERAS2,
    KERAS3,
    Functions,
)
from lstmconvert.model.fit import MERGE_MODES

_IFGO = Names("i", "f", "g", "o")
_IFCO_IN_WORDS = Names("input", "forget", "cell", "output")
_PEEPHOLES = Names("i", "f", "", "o")
#: The last four of the eight matrices and biases that cuDNN numbers are the recurrent ones.
_SECOND = Names("4", "5", "6", "7")


def _fused(
    kernel: str, recurrent: str, bias: str, second: str | None = None, *, transposed: bool = False
) -> tuple[Slot, ...]:
    """Return the slots of a kernel, a recurrent kernel, a bias, and perhaps a second bias."""
    slots = (
        Slot(key=kernel, parts=("kernel",), transposed=transposed),
        Slot(key=recurrent, parts=("recurrent_kernel",), transposed=transposed),
        Slot(key=bias, parts=("bias",)),
    )
    extra = (Slot(key=second, parts=("recurrent_bias",), filled=True),) if second else ()
    return slots + extra


def _keras3(*names: str) -> Functions:
    """Return the functions that Keras 3 calls by these names, with its constants."""
    return Functions(tuple(KERAS3[name] for name in names))

# ---- Keras, and engines that read Keras's configs ------------------------------------------------

#: tfjs-layers/src/activations.ts
_TFJS_FUNCTIONS = Functions(
    (
        *_keras3("elu", "gelu", "linear", "mish", "relu", "selu", "sigmoid").exact,
        *_keras3("softmax", "softplus", "softsign", "silu", "tanh").exact,
        HARD_SIGMOID_KERAS2,
    )
)
#: hls4ml/templates/vivado/nnet_utils/nnet_recr_activations.h
_HLS4ML_FUNCTIONS = _keras3("relu", "sigmoid", "tanh")
#: frugally-deep/include/fdeep/recurrent_ops.hpp, `get_activation_func` (0.20.0, compiled and run)
FRUGALLY_DEEP_FUNCTIONS = _keras3(
    *("linear", "tanh", "sigmoid", "silu", "hard_sigmoid", "relu"),
    *("selu", "elu", "exponential", "gelu", "softsign"),
)

KERAS = Row(
    name="keras",
    title="Keras LSTM, as plain arrays",
    slots=(
        Slot(key="{d}{k}kernel", parts=("kernel",)),
        Slot(key="{d}{k}recurrent_kernel", parts=("recurrent_kernel",)),
        Slot(key="{d}{k}bias", parts=("bias",)),
        Slot(key="{d}{k}{gate}_gate_peephole_weights", parts=("peephole",), order="ifo"),
    ),
    gates=_IFCO_IN_WORDS,
    bidirectional=True,
    # keras/src/layers/rnn/lstm.py: any function can be passed, a user's too.
    activation=ANY,
    recurrent_activation=ANY,
    merge_modes=MERGE_MODES,
    expresses=frozenset({"go_backwards", "convolution"}),
    gives_last=True,
    recognised=True,
    evidence="keras/src/layers/rnn/lstm.py:246",
    hint="layer.set_weights([kernel, recurrent_kernel, bias]).",
)

TFJS = Row(
    name="tfjs",
    title="TensorFlow.js LSTM",
    slots=_fused("{d}kernel", "{d}recurrent_kernel", "{d}bias"),
    sides=("", "forward_lstm/", "backward_lstm/"),
    bidirectional=True,
    alike=True,
    index=None,
    activation=_TFJS_FUNCTIONS,
    recurrent_activation=_TFJS_FUNCTIONS,
    # tfjs-layers/src/layers/wrappers.ts, `VALID_BIDIRECTIONAL_MERGE_MODES`
    merge_modes=("concat", "sum", "mul", "ave"),
    expresses=frozenset({"go_backwards"}),
    gives_last=True,
    # tfjs-core/src/types.ts, `DataTypeMap`: its one floating type.
    dtypes=("float32",),
    evidence="tfjs-layers/src/layers/recurrent.ts:1616",
    hint="tf.loadLayersModel takes model.json, which comes with model.bin. The library's default "
    "recurrent activation is hardSigmoid.",
)

HLS4ML = Row(
    name="hls4ml",
    title="hls4ml",
    slots=_fused("w{d}", "wr{d}", "b{d}", "br{d}"),
    sides=("", "_f", "_b"),
    index=None,
    bidirectional=True,
    # templates/vivado/nnet_utils/nnet_recr_activations.h has these three, and compiles no other.
    activation=_HLS4ML_FUNCTIONS,
    recurrent_activation=_HLS4ML_FUNCTIONS,
    # nnet_recurrent.h, `bidirectional_stack`, puts them side by side and reads no merge_mode.
    merge_modes=("concat",),
    gives_last=True,
    always_bias=True,
    evidence="hls4ml/converters/keras_v3/recurrent.py; hls4ml/model/layers.py, class LSTM",
    hint="Keras's own arrays, and a second bias, of zeros. It puts the layer's number behind their "
    "names: w2, or w_f_2.",
)

FRUGALLY_DEEP = Row(
    name="frugally-deep",
    title="frugally-deep",
    slots=_fused("{d}{k}weights", "{d}{k}recurrent_weights", "{d}{k}bias"),
    sides=("", "forward_", "backward_"),
    index="cell{}_",
    bidirectional=True,
    activation=FRUGALLY_DEEP_FUNCTIONS,
    recurrent_activation=FRUGALLY_DEEP_FUNCTIONS,
    # include/fdeep/layers/bidirectional_layer.hpp, `apply_impl`
    merge_modes=("concat", "sum", "mul", "ave"),
    gives_last=True,
    # include/fdeep/common.hpp: `float_type` is float, and so are the numbers of the file.
    dtypes=("float32",),
    evidence="frugally-deep/keras_export/convert_model.py, show_lstm_layer; "
    "include/fdeep/import_model.hpp, create_lstm_layer, create_rnn_layer",
    hint="fdeep::load_model takes the .json file, whose config is spelled as Keras 3 does. It has "
    "no test cases: give verify=false.",
)

RTNEURAL = Row(
    name="rtneural",
    title="RTNeural",
    slots=_fused("{d}{k}kernel", "{d}{k}recurrent_kernel", "{d}{k}bias"),
    index=None,
    always_bias=True,
    single=True,
    # Its JSON holds decimal numbers. The library reads them as float or double.
    evidence="RTNeural/model_loader.h, loadLSTM; the library is compiled in the tests, and files "
    "that come with it answer as was recorded with them",
    hint="Always tanh and sigmoid, always stateful; the layers follow one another.",
)

#: lwtnn/include/lwtnn/generic/Stack.tcc, `get_raw_activation_layer`; its hard_sigmoid is Theano's.
_LWTNN_FUNCTIONS = Functions(
    (
        *_keras3("linear", "sigmoid", "tanh", "relu", "softmax", "silu").exact,
        HARD_SIGMOID_KERAS2,
    ),
    (("elu", ("alpha",)), ("leaky_relu", ("negative_slope",))),
)

LWTNN = Row(
    name="lwtnn",
    title="lwtnn",
    slots=(
        Slot(key="{d}{k}components.{gate}.weights", parts=("kernel",), transposed=True),
        Slot(key="{d}{k}components.{gate}.U", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{d}{k}components.{gate}.bias", parts=("bias",)),
    ),
    index=None,
    single=True,
    always_bias=True,
    activation=_LWTNN_FUNCTIONS,
    recurrent_activation=_LWTNN_FUNCTIONS,
    gives_last=True,
    # Its JSON holds decimal numbers, which the library reads as double.
    evidence="lwtnn/converters/keras_v2_layer_converters.py, _rnn_parameters; the library is "
    "compiled in the tests",
    hint="lwt::parse_json_graph takes the file. compute() gives the last step, scan() every one.",
)

NAM = Row(
    name="nam",
    title="Neural Amp Modeler LSTM",
    slots=(
        Slot(
            key="{d}{k}weight", parts=("kernel", "recurrent_kernel"), below=True, transposed=True
        ),
        Slot(key="{d}{k}bias", parts=("bias",)),
        Slot(key="{d}{k}initial_hidden", parts=("initial_hidden",)),
        Slot(key="{d}{k}initial_cell", parts=("initial_cell",)),
    ),
    index=None,
    always_bias=True,
    single=True,
    # NeuralAmpModelerCore/NAM/lstm.h: its numbers are float.
    dtypes=("float32",),
    evidence="NeuralAmpModelerCore/NAM/lstm.cpp, LSTMCell; the player is compiled in the tests",
    hint="Always tanh and sigmoid, always stateful; layers of one size, and a Dense after them.",
)

# ---- PyTorch, and arrangements like its own ------------------------------------------------------

_TORCH_SLOTS = (
    *_fused(
        "weight_ih_l{k}{d}",
        "weight_hh_l{k}{d}",
        "bias_ih_l{k}{d}",
        "bias_hh_l{k}{d}",
        transposed=True,
    ),
    Slot(key="weight_hr_l{k}{d}", parts=("projection",), transposed=True),
)
_TORCH_CELL_SLOTS = _fused(
    "{d}{k}weight_ih", "{d}{k}weight_hh", "{d}{k}bias_ih", "{d}{k}bias_hh", transposed=True
)

TORCH = Row(
    name="torch",
    title="PyTorch nn.LSTM",
    slots=_TORCH_SLOTS,
    sides=("", "", "_reverse"),
    index="{}",
    alone="0",
    bidirectional=True,
    alike=True,
    chained=True,
    format="pt",
    recognised=True,
    evidence="torch/nn/modules/rnn.py:204",
    hint="Build it with batch_first=True to feed it (batch, time, inputs) as Keras does.",
)

TORCH_CELL = Row(
    name="torch-cell",
    title="PyTorch nn.LSTMCell",
    slots=_TORCH_CELL_SLOTS,
    format="pt",
    recognised=True,
    evidence="torch/nn/modules/rnn.py, class LSTMCell",
    hint="A cell of one step: its user writes the loop over time.",
)

TINYGRAD = Row(
    name="tinygrad",
    title="tinygrad nn.LSTMCell",
    slots=_TORCH_CELL_SLOTS,
    evidence="tinygrad/nn/__init__.py:417",
    hint=TORCH_CELL.hint,
)

CANDLE = Row(
    name="candle",
    title="candle-nn LSTM",
    slots=_TORCH_SLOTS[:4],
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
    gates=_IFCO_IN_WORDS,
    sides=("", "forward.", "reverse."),
    bidirectional=True,
    alike=True,
    index=None,
    run=False,
    evidence="burn-nn/src/modules/rnn/lstm.rs, gate_controller.rs",
    hint="Linear layers of Burn keep (inputs, outputs), as Keras does.",
)

# ---- JAX -----------------------------------------------------------------------------------------

FLAX = Row(
    name="flax",
    title="Flax linen LSTMCell, OptimizedLSTMCell",
    slots=(
        Slot(key="{d}i{gate}.kernel", parts=("kernel",)),
        Slot(key="{d}h{gate}.kernel", parts=("recurrent_kernel",)),
        Slot(key="{d}h{gate}.bias", parts=("bias",)),
    ),
    gates=_IFGO,
    sides=("cell.", "forward_rnn.cell.", "backward_rnn.cell."),
    bidirectional=True,
    index=None,
    # flax/linen/recurrent.py: gate_fn and activation_fn are fields of the cell.
    activation=ANY,
    recurrent_activation=ANY,
    # flax/linen/recurrent.py, class Bidirectional: merge_fn joins the two outputs.
    merge_modes=MERGE_MODES,
    always_bias=True,
    expresses=frozenset({"go_backwards"}),
    format="flax",
    recognised=True,
    evidence="flax/linen/recurrent.py:167, 335",
    hint="Parameters of nn.RNN(cell), or nn.Bidirectional(nn.RNN, nn.RNN); the carry is (c, h).",
)

NNX = Row(
    name="nnx",
    title="Flax nnx LSTMCell",
    slots=(
        # `if` is a word of Python.
        Slot(key="{d}i{gate}.kernel", parts=("kernel",), gates=Names("i", "f_", "g", "o")),
        *FLAX.slots[1:],
    ),
    gates=_IFGO,
    sides=FLAX.sides,
    bidirectional=True,
    index=None,
    activation=ANY,
    recurrent_activation=ANY,
    merge_modes=MERGE_MODES,
    always_bias=True,
    expresses=FLAX.expresses,
    format="flax",
    recognised=True,
    evidence="flax/nnx/nn/recurrent.py:180",
    hint="State of nnx.RNN(cell), or nnx.Bidirectional(nnx.RNN, nnx.RNN); the carry is (c, h).",
)

NNX_OPTIMIZED = Row(
    name="nnx-optimized",
    title="Flax nnx OptimizedLSTMCell",
    slots=_fused("{d}dense_i.kernel", "{d}dense_h.kernel", "{d}dense_h.bias"),
    sides=FLAX.sides,
    bidirectional=True,
    index=None,
    activation=ANY,
    recurrent_activation=ANY,
    merge_modes=MERGE_MODES,
    always_bias=True,
    expresses=FLAX.expresses,
    format="flax",
    recognised=True,
    evidence="flax/nnx/nn/recurrent.py:399",
    hint=NNX.hint,
)


def _cell_alone(row: Row, title: str) -> Row:
    """Return the row of a Flax cell outside an RNN: its module's name replaces `cell`."""
    return replace(
        row,
        name=f"{row.name}-cell",
        title=title,
        sides=("", "forward.", "backward."),
        bidirectional=False,
        expresses=frozenset(),
        hint="A cell of one step: its user scans it; the carry is (c, h).",
    )


FLAX_CELL = _cell_alone(FLAX, "Flax linen LSTMCell, outside an nn.RNN")
NNX_CELL = _cell_alone(NNX, "Flax nnx LSTMCell, outside an nnx.RNN")
NNX_OPTIMIZED_CELL = _cell_alone(NNX_OPTIMIZED, "Flax nnx OptimizedLSTMCell, outside an nnx.RNN")

HAIKU = Row(
    name="haiku",
    title="Haiku hk.LSTM",
    slots=(
        Slot(key="{d}{k}linear.w", parts=("kernel", "recurrent_kernel"), below=True),
        Slot(key="{d}{k}linear.b", parts=("bias",)),
    ),
    order="icfo",
    always_bias=True,
    forget_bias=1.0,
    evidence="haiku/_src/recurrent.py:342",
    hint="It adds 1 to the forget gate at run time, so 1 less is stored.",
)

EQUINOX = Row(
    name="equinox",
    title="Equinox nn.LSTMCell",
    slots=_fused("{d}{k}weight_ih", "{d}{k}weight_hh", "{d}{k}bias", transposed=True),
    recognised=True,
    evidence="equinox/nn/_rnn.py:197",
    hint="A cell of one step of one example: its user writes the scan, and vmaps it.",
)

# ---- MLX -----------------------------------------------------------------------------------------

MLX = Row(
    name="mlx",
    title="MLX nn.LSTM",
    slots=_fused("{d}{k}Wx", "{d}{k}Wh", "{d}{k}bias", transposed=True),
    # mx.load refuses F64, and mx.array makes float32 of float64 (0.32, tried).
    dtypes=("float32", "float16", "bfloat16"),
    format="mlx",
    recognised=True,
    evidence="mlx/nn/layers/recurrent.py:275",
    hint="It returns all hidden and all cell states, each (batch, time, units).",
)

# ---- TensorFlow 1 and TFLite ---------------------------------------------------------------------

TF1 = Row(
    name="tf1",
    title="TensorFlow 1 LSTMCell, BasicLSTMCell",
    slots=(
        Slot(key="{d}{k}kernel", parts=("kernel", "recurrent_kernel"), below=True),
        Slot(key="{d}{k}bias", parts=("bias",)),
        Slot(key="{d}{k}w_{gate}_diag", parts=("peephole",), order="ifo", gates=_PEEPHOLES),
        Slot(key="{d}{k}projection.kernel", parts=("projection",)),
        Slot(key="{d}{k}projection.bias", parts=("projection_bias",)),
    ),
    order="icfo",
    sides=("", "fw.", "bw."),
    index="cell_{}.",
    always_bias=True,
    forget_bias=1.0,
    expresses=frozenset({"cell_clip", "projection_clip"}),
    evidence="tensorflow/python/keras/layers/legacy_rnn/rnn_cell_impl.py",
    hint="It adds forget_bias=1 at run time, so 1 less is stored; cell_clip is an argument.",
)

TFLITE = Row(
    name="tflite",
    title="TFLite UNIDIRECTIONAL_SEQUENCE_LSTM",
    slots=(
        Slot(key="{d}{k}input_to_{gate}_weights", parts=("kernel",), transposed=True),
        Slot(key="{d}{k}recurrent_to_{gate}_weights", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{d}{k}cell_to_{gate}_weights", parts=("peephole",), order="ifo"),
        Slot(key="{d}{k}{gate}_gate_bias", parts=("bias",)),
        Slot(key="{d}{k}projection_weights", parts=("projection",), transposed=True),
        Slot(key="{d}{k}projection_bias", parts=("projection_bias",)),
    ),
    gates=_IFCO_IN_WORDS,
    always_bias=True,
    bidirectional=True,
    document_gives_last=True,
    # lite/kernels/unidirectional_sequence_lstm.cc, `Eval`: weights of a float input are float32.
    dtypes=("float32",),
    expresses=frozenset({"cell_clip", "projection_clip"}),
    evidence="tensorflow/lite/kernels/lstm_shared.h",
    hint="The .tflite file has batch 1; reset_all_variables() sets its states to zero. The arrays "
    "are the inputs 1 to 17 of the operator, by name.",
)

# ---- ONNX and engines for inference --------------------------------------------------------------

#: onnx/defs/rnn/defs.cc, "Activation functions"; `onnx.functions` spells them. Alpha and beta are
#: attributes, any numbers.
_ONNX_FUNCTIONS = Functions(
    (
        *_keras3("sigmoid", "tanh", "linear", "relu", "softsign", "softplus").exact,
        *_keras3("sparse_sigmoid", "celu").exact,
    ),
    (
        ("hard_sigmoid", ("alpha", "beta")),
        ("leaky_relu", ("negative_slope",)),
        ("relu", ("negative_slope",)),
        ("thresholded_relu", ("alpha",)),
        ("relu", ("threshold",)),
        ("elu", ("alpha",)),
        ("affine", ("alpha", "beta")),
        ("scaled_tanh", ("alpha", "beta")),
    ),
)
#: openvino/op/lstm_sequence.hpp; src/plugins/intel_cpu/src/nodes/rnn.cpp
_OPENVINO_FUNCTIONS = _keras3("relu", "sigmoid", "tanh")

ONNX = Row(
    name="onnx",
    title="ONNX LSTM, as plain arrays",
    slots=(
        Slot(key="{k}W", parts=("kernel",), transposed=True),
        Slot(key="{k}R", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{k}B", parts=("bias", "recurrent_bias")),
        Slot(key="{k}P", parts=("peephole",), order="iof"),
    ),
    order="iofc",
    joined=True,
    bidirectional=True,
    alike=True,
    activation=_ONNX_FUNCTIONS,
    recurrent_activation=_ONNX_FUNCTIONS,
    expresses=frozenset({"output_activation", "gate_clip"}),
    recognised=False,
    evidence="onnx/defs/rnn/defs.cc, operator LSTM",
    hint="Activations and clip are attributes of the node, which plain arrays do not hold.",
)

OPENVINO = Row(
    name="openvino",
    title="OpenVINO LSTMSequence",
    slots=_fused("{k}W", "{k}R", "{k}B", transposed=True),
    order="fico",
    joined=True,
    bidirectional=True,
    alike=True,
    always_bias=True,
    # The CPU plug-in compiles these three in each place, and no other (2026.4, tried).
    activation=_OPENVINO_FUNCTIONS,
    recurrent_activation=_OPENVINO_FUNCTIONS,
    expresses=frozenset({"output_activation", "gate_clip"}),
    evidence="openvino/op/lstm_sequence.hpp",
    hint="Activations (relu, sigmoid, tanh) and clip are attributes of the operation.",
)

NCNN = Row(
    name="ncnn",
    title="ncnn LSTM",
    slots=(
        Slot(key="{k}weight_xc", parts=("kernel",), transposed=True),
        Slot(key="{k}bias_c", parts=("bias",), leading=True),
        Slot(key="{k}weight_hc", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{k}weight_hr", parts=("projection",), transposed=True),
    ),
    order="ifoc",
    joined=True,
    bidirectional=True,
    alike=True,
    always_bias=True,
    document_gives_last=True,
    # Its Flip reverses the sequence before the LSTM.
    expresses=frozenset({"go_backwards"}),
    # ncnn/src/modelbin.cpp reads weights of 32 or 16 bits.
    dtypes=("float32", "float16"),
    evidence="ncnn/src/layer/lstm.cpp",
    hint="x.param comes with x.bin. It takes one sequence at a time, without a batch: from blob "
    "model.x to model.y, or <layer>.x to <layer>.y of an LSTM alone.",
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
            gates=_SECOND,
        ),
        Slot(key="{d}{k}bias.{gate}", parts=("bias",)),
        Slot(
            key="{d}{k}bias.{gate}",
            parts=("recurrent_bias",),
            filled=True,
            gates=_SECOND,
        ),
    ),
    gates=Names("0", "1", "2", "3"),
    bidirectional=True,
    alike=True,
    always_bias=True,
    run=False,
    evidence="cuDNN's linLayerID, as ONNX Runtime and TensorFlow use it",
    hint="There was no GPU to run it.",
)

# ---- Apple's -------------------------------------------------------------------------------------

#: coremltools/mlmodel/format/NeuralNetwork.proto, message UniDirectionalLSTMLayerParams: sigmoid,
#: tanh, ReLU, sigmoidHard and linear, with their default constants.
_COREML_FUNCTIONS = Functions(
    (*_keras3("sigmoid", "tanh", "relu", "linear").exact, HARD_SIGMOID_KERAS2)
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
    activation=_COREML_FUNCTIONS,
    recurrent_activation=_COREML_FUNCTIONS,
    expresses=frozenset({"go_backwards", "output_activation", "cell_clip"}),
    gives_last=True,
    # NeuralNetwork.proto, message WeightParams: floatValue and float16Value.
    dtypes=("float32", "float16"),
    run=False,
    evidence="coremltools mlmodel/format/NeuralNetwork.proto:3663; coremltools makes the same "
    "layers of coreml-mil's arrays in the tests, and nothing is predicted: that takes a Mac",
    hint="The .mlmodel takes x (1, time, inputs). It always bounds the cell state: by 50000, as "
    "coremltools writes it, where a layer has no clip.",
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
    activation=_COREML_FUNCTIONS,
    recurrent_activation=_COREML_FUNCTIONS,
    # In reverse the outputs come in the order in which they are made, as Keras's do: coremltools
    # compares them with PyTorch's on turned input (converters/mil/mil/ops/tests/iOS14/
    # test_recurrent.py, `test_builder_to_backend_smoke_unilstm`); clip: `test_numpy_numerical`.
    expresses=frozenset({"go_backwards", "output_activation", "cell_clip"}),
    gives_last=True,
    # coremltools/converters/mil/mil/ops/defs/iOS17/recurrent.py: "T: fp16, fp32".
    dtypes=("float32", "float16"),
    run=False,
    evidence="coremltools/converters/mil/mil/ops/defs/iOS15/recurrent.py:224; coremltools reads "
    "our .mlpackage as the program that it makes itself, in the tests, and nothing is predicted: "
    "that takes a Mac",
    hint="Arguments of mb.lstm, whose input is (time, batch, inputs). The .mlpackage takes x (1, "
    "time, inputs), up to 65,536 steps; in float16 from iOS 17 and macOS 14 on.",
)

# ---- Paddle, MXNet, Chainer, CNTK, Deeplearning4j ------------------------------------------------

PADDLE = Row(
    name="paddle",
    title="PaddlePaddle nn.LSTM",
    slots=(
        *_fused(
            "{k}.{d}weight_ih",
            "{k}.{d}weight_hh",
            "{k}.{d}bias_ih",
            "{k}.{d}bias_hh",
            transposed=True,
        ),
        Slot(key="{k}.{d}weight_ho", parts=("projection",)),
    ),
    sides=("cell.", "cell_fw.", "cell_bw."),
    index="{}",
    alone="0",
    bidirectional=True,
    alike=True,
    chained=True,
    # Without its biases it ends in a segmentation fault (3.3.1, on CPU).
    always_bias=True,
    # Its kernels are registered for these alone, on CPU and GPU (paddle/phi/kernels, rnn_kernel),
    # and the module cannot be made in another (tried).
    dtypes=("float32", "float64"),
    recognised=True,
    evidence="paddle/nn/layer/rnn.py:1120",
    hint="Its state_dict names every array twice, the second time weight_ih_l0 and so on: either "
    "name is enough, and set_state_dict warns of the other.",
)

MXNET = Row(
    name="mxnet",
    title="MXNet gluon.rnn.LSTM",
    slots=(
        *_fused(
            "_unfused.{k}.{d}i2h_weight",
            "_unfused.{k}.{d}h2h_weight",
            "_unfused.{k}.{d}i2h_bias",
            "_unfused.{k}.{d}h2h_bias",
            transposed=True,
        ),
        Slot(key="_unfused.{k}.{d}h2r_weight", parts=("projection",), transposed=True),
    ),
    sides=("", "l_cell.", "r_cell."),
    index="{}",
    alone="0",
    bidirectional=True,
    alike=True,
    chained=True,
    always_bias=True,
    recognised=True,
    evidence="mxnet/gluon/rnn/rnn_layer.py",
    hint="load_parameters takes the .params file; build it with layout='NTC' for Keras's input.",
)


def _chainer_slots() -> tuple[Slot, ...]:
    return (
        Slot(key="{k}/w{gate}", parts=("kernel",), transposed=True),
        Slot(key="{k}/w{gate}", parts=("recurrent_kernel",), transposed=True, gates=_SECOND),
        Slot(key="{k}/b{gate}", parts=("bias",)),
        Slot(key="{k}/b{gate}", parts=("recurrent_bias",), filled=True, gates=_SECOND),
    )


CHAINER = Row(
    name="chainer",
    title="Chainer NStepLSTM",
    slots=_chainer_slots(),
    gates=Names("0", "1", "2", "3"),
    index="{}",
    alone="0",
    single=True,
    chained=True,
    always_bias=True,
    evidence="chainer/functions/rnn/n_step_lstm.py, _lstm",
    hint="w0 to w3 are input, forget, cell, output; its documentation has another order.",
)

CHAINER_BOTH = Row(
    name="chainer-bi",
    title="Chainer NStepBiLSTM",
    slots=_chainer_slots(),
    gates=CHAINER.gates,
    index="{}",
    alone="0",
    paired=True,
    bidirectional=True,
    alike=True,
    chained=True,
    always_bias=True,
    evidence=CHAINER.evidence,
    hint="Forward and backward links take turns: 0 and 1 are the first layer, 2 and 3 the second.",
)

CHAINER_LSTM = Row(
    name="chainer-lstm",
    title="Chainer L.LSTM",
    slots=(
        Slot(key="{d}{k}upward/W", parts=("kernel",), transposed=True, interleaved=True),
        Slot(key="{d}{k}upward/b", parts=("bias",), interleaved=True),
        Slot(key="{d}{k}lateral/W", parts=("recurrent_kernel",), transposed=True, interleaved=True),
    ),
    order="cifo",
    always_bias=True,
    recognised=True,
    evidence="chainer/functions/rnn/lstm.py, _extract_gates",
    hint="The gates alternate unit by unit. Stateful.",
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

# ---- Julia and MATLAB ----------------------------------------------------------------------------

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
    slots=_TORCH_CELL_SLOTS,
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
    # A learnable parameter is single or double; MATLAB has no bfloat16.
    dtypes=("float32", "float64"),
    recognised=True,
    run=False,
    evidence="MathWorks' Keras importer, TranslatorForLSTMLayer",
    hint="After w = load('x.mat'): layer.InputWeights = w.lstm.InputWeights, and so on. A "
    "bilstmLayer takes the forward half's rows above the backward half's.",
)

# ---- C -------------------------------------------------------------------------------------------

#: The functions that `cheader` writes in C.
C_FUNCTIONS = Functions(
    (
        *_keras3("linear", "tanh", "sigmoid", "softsign", "softplus", "silu").exact,
        *_keras3("exponential", "relu").exact,
    ),
    (("elu", ("alpha",)), ("hard_sigmoid", ("alpha", "beta"))),
)

C = Row(
    name="c",
    title="C header",
    slots=(
        Slot(key="{d}{k}{gate}_gate.kernel", parts=("kernel",)),
        Slot(key="{d}{k}{gate}_gate.recurrent_kernel", parts=("recurrent_kernel",)),
        Slot(key="{d}{k}{gate}_gate.bias", parts=("bias",)),
        Slot(key="{d}{k}initial_hidden", parts=("initial_hidden",)),
        Slot(key="{d}{k}initial_cell", parts=("initial_cell",)),
    ),
    gates=_IFCO_IN_WORDS,
    bidirectional=True,
    always_bias=True,
    activation=C_FUNCTIONS,
    recurrent_activation=C_FUNCTIONS,
    # ISO/IEC 9899:1999, 6.2.5: the types of a C program that have these numbers.
    dtypes=("float32", "float64"),
    evidence="ISO/IEC 9899:1999",
    hint="One array for each gate, and a forward pass in C99 that needs only math.h.",
)

# ---- the table -----------------------------------------------------------------------------------

_TABLE: dict[str, Row] = {
    row.name: row
    for row in (
        KERAS,
        TORCH,
        TORCH_CELL,
        FLAX,
        NNX,
        NNX_OPTIMIZED,
        FLAX_CELL,
        NNX_CELL,
        NNX_OPTIMIZED_CELL,
        HAIKU,
        EQUINOX,
        MLX,
        TINYGRAD,
        TF1,
        ONNX,
        OPENVINO,
        NCNN,
        C,
        HLS4ML,
        PADDLE,
        MXNET,
        CHAINER,
        CHAINER_BOTH,
        CHAINER_LSTM,
        TFJS,
        TFLITE,
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
        LWTNN,
        NAM,
    )
}
#: Name -> row.
ROWS: Mapping[str, Row] = MappingProxyType(_TABLE)


def hint_for(name: str) -> str:
    """Return the hint for the name of a layout that is unknown."""
    return close_to(name.lower(), ROWS) or "lstmconvert formats lists the layouts"


def row_of(name: str) -> Row:
    """Return the row of a layout.

    Raises:
        UsageError: the layout is unknown.
    """
    if name not in ROWS:
        raise UsageError(
            "no such layout",
            found=name,
            expected=", ".join(("gates", *ROWS)),
            hint=hint_for(name),
        )
    return ROWS[name]
