"""Rows of frameworks that run in the tests in a process or an interpreter of their own."""

from __future__ import annotations

from lstmconvert.layouts.row import FREE, Names, Row, Slot

_HALVES = ("cell.", "cell_fw.", "cell_bw.")
#: The last four of the eight matrices and biases that cuDNN numbers are the recurrent ones.
_SECOND = Names("4", "5", "6", "7")


def _fused(start: str, names: tuple[str, str, str, str]) -> tuple[Slot, ...]:
    kernel, recurrent, bias, second = names
    return (
        Slot(key=f"{start}{kernel}", parts=("kernel",), transposed=True),
        Slot(key=f"{start}{recurrent}", parts=("recurrent_kernel",), transposed=True),
        Slot(key=f"{start}{bias}", parts=("bias",)),
        Slot(key=f"{start}{second}", parts=("recurrent_bias",), filled=True),
    )


PADDLE = Row(
    name="paddle",
    title="PaddlePaddle nn.LSTM",
    slots=(
        *_fused("{k}.{d}", ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        Slot(key="{k}.{d}weight_ho", parts=("projection",)),
    ),
    sides=_HALVES,
    index="{}",
    alone="0",
    bidirectional=True,
    alike=True,
    chained=True,
    # Without its biases it ends in a segmentation fault (3.3.1, on CPU).
    always_bias=True,
    recognised=True,
    evidence="paddle/nn/layer/rnn.py:1120",
    hint="Its state_dict names every array twice, the second time weight_ih_l0 and so on: either "
    "name is enough, and set_state_dict warns of the other.",
)

MXNET = Row(
    name="mxnet",
    title="MXNet gluon.rnn.LSTM",
    slots=(
        *_fused("_unfused.{k}.{d}", ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")),
        Slot(key="_unfused.{k}.{d}h2r_weight", parts=("projection",), transposed=True),
    ),
    sides=("", "l_cell.", "r_cell."),
    index="{}",
    alone="0",
    bidirectional=True,
    alike=True,
    chained=True,
    always_bias=True,
    containers=("params", "safetensors", "npz", "json"),
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
    containers=("npz", "safetensors", "json"),
    evidence="chainer/functions/rnn/n_step_lstm.py, _lstm",
    hint="w0 to w3 are input, forget, cell, output, whatever its documentation says.",
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
    containers=CHAINER.containers,
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
    containers=CHAINER.containers,
    recognised=True,
    evidence="chainer/functions/rnn/lstm.py, _extract_gates",
    hint="The gates alternate unit by unit. Stateful.",
)

TFJS = Row(
    name="tfjs",
    title="TensorFlow.js LSTM",
    slots=(
        Slot(key="{d}kernel", parts=("kernel",)),
        Slot(key="{d}recurrent_kernel", parts=("recurrent_kernel",)),
        Slot(key="{d}bias", parts=("bias",)),
    ),
    sides=("", "forward_lstm/", "backward_lstm/"),
    bidirectional=True,
    alike=True,
    index=None,
    fixed=FREE,
    expresses=frozenset({"go_backwards", "merge_mode"}),
    containers=("tfjs", "safetensors", "npz"),
    evidence="tfjs-layers/src/layers/recurrent.ts:1616",
    hint="tf.loadLayersModel takes model.json, which comes with model.bin. Its own default "
    "recurrent activation is hardSigmoid.",
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
    gates=Names("input", "forget", "cell", "output"),
    always_bias=True,
    bidirectional=True,
    expresses=frozenset({"cell_clip", "projection_clip"}),
    containers=("tflite", "safetensors", "npz", "json"),
    evidence="tensorflow/lite/kernels/lstm_shared.h",
    hint="The .tflite file has batch 1; reset_all_variables() sets its states to zero. The arrays "
    "are the inputs 1 to 17 of the operator, by name.",
)

HLS4ML = Row(
    name="hls4ml",
    title="hls4ml",
    slots=(
        Slot(key="w{d}", parts=("kernel",)),
        Slot(key="wr{d}", parts=("recurrent_kernel",)),
        Slot(key="b{d}", parts=("bias",)),
        Slot(key="br{d}", parts=("recurrent_bias",), filled=True),
    ),
    sides=("", "_f", "_b"),
    index=None,
    bidirectional=True,
    fixed=FREE,
    always_bias=True,
    expresses=frozenset({"merge_mode"}),
    evidence="hls4ml/converters/keras_v3/recurrent.py; hls4ml/model/layers.py, class LSTM",
    hint="Keras's own arrays, and a second bias, of zeros. It puts the layer's number behind their "
    "names: w2, or w_f_2.",
)

OTHERS: tuple[Row, ...] = (
    HLS4ML,
    PADDLE,
    MXNET,
    CHAINER,
    CHAINER_BOTH,
    CHAINER_LSTM,
    TFJS,
    TFLITE,
)
