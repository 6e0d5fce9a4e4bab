"""The table: one row for each arrangement of an LSTM's weights.

The rows here and in `rows_others` are run by the real framework in the tests; those that are known
from source alone are in `rows_unrun`. A new framework is a new row and its test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from lstmconvert.errors import UsageError
from lstmconvert.layouts.row import FREE, Form, Names, Row, Slot
from lstmconvert.layouts.rows_others import OTHERS
from lstmconvert.layouts.rows_unrun import UNRUN

_IFGO = Names("i", "f", "g", "o")
_PEEPHOLES = Names("i", "f", "", "o")


def _torch_slots(end: str, start: str = "") -> tuple[Slot, ...]:
    """PyTorch's names (torch/nn/modules/rnn.py, `_flat_weights_names`)."""
    return (
        Slot(key=f"{start}weight_ih{end}", parts=("kernel",), transposed=True),
        Slot(key=f"{start}weight_hh{end}", parts=("recurrent_kernel",), transposed=True),
        Slot(key=f"{start}bias_ih{end}", parts=("bias",)),
        Slot(key=f"{start}bias_hh{end}", parts=("recurrent_bias",), filled=True),
        Slot(key=f"{start}weight_hr{end}", parts=("projection",), transposed=True),
    )


_TORCH_SLOTS = _torch_slots("_l{k}{d}")

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
    containers=("safetensors", "npz", "json"),
    format="pt",
    recognised=True,
    evidence="torch/nn/modules/rnn.py:204",
    hint="Build it with batch_first=True to feed it (batch, time, inputs) as Keras does.",
)

TORCH_CELL = Row(
    name="torch-cell",
    title="PyTorch nn.LSTMCell",
    slots=_torch_slots("", "{d}{k}")[:4],
    format="pt",
    recognised=True,
    evidence="torch/nn/modules/rnn.py, class LSTMCell",
    hint="A cell of one step: its user writes the loop over time.",
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
    gates=Names("input", "forget", "cell", "output"),
    bidirectional=True,
    fixed=FREE,
    expresses=frozenset({"go_backwards", "merge_mode", "convolution"}),
    recognised=True,
    evidence="keras/src/layers/rnn/lstm.py:246",
    hint="layer.set_weights([kernel, recurrent_kernel, bias]).",
)

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
    fixed=FREE,
    always_bias=True,
    expresses=frozenset({"go_backwards", "merge_mode"}),
    containers=("safetensors", "msgpack", "npz", "json"),
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
    fixed=FREE,
    always_bias=True,
    expresses=FLAX.expresses,
    containers=("safetensors", "msgpack", "npz", "json"),
    format="flax",
    recognised=True,
    evidence="flax/nnx/nn/recurrent.py:180",
    hint="State of nnx.RNN(cell), or nnx.Bidirectional(nnx.RNN, nnx.RNN); the carry is (c, h).",
)

NNX_OPTIMIZED = Row(
    name="nnx-optimized",
    title="Flax nnx OptimizedLSTMCell",
    slots=(
        Slot(key="{d}dense_i.kernel", parts=("kernel",)),
        Slot(key="{d}dense_h.kernel", parts=("recurrent_kernel",)),
        Slot(key="{d}dense_h.bias", parts=("bias",)),
    ),
    sides=FLAX.sides,
    bidirectional=True,
    index=None,
    fixed=FREE,
    always_bias=True,
    expresses=FLAX.expresses,
    containers=("safetensors", "msgpack", "npz", "json"),
    format="flax",
    recognised=True,
    evidence="flax/nnx/nn/recurrent.py:399",
    hint=NNX.hint,
)



def _cell_alone(row: Row, title: str) -> Row:
    """Return the row of a Flax cell outside an RNN: its module's name stands for `cell`."""
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
    slots=(
        Slot(key="{d}{k}weight_ih", parts=("kernel",), transposed=True),
        Slot(key="{d}{k}weight_hh", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{d}{k}bias", parts=("bias",)),
    ),
    containers=("safetensors", "eqx", "npz", "json"),
    recognised=True,
    evidence="equinox/nn/_rnn.py:197",
    hint="A cell of one step of one example: its user writes the scan, and vmaps it.",
)

MLX = Row(
    name="mlx",
    title="MLX nn.LSTM",
    slots=(
        Slot(key="{d}{k}Wx", parts=("kernel",), transposed=True),
        Slot(key="{d}{k}Wh", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{d}{k}bias", parts=("bias",)),
    ),
    format="mlx",
    recognised=True,
    evidence="mlx/nn/layers/recurrent.py:275",
    hint="It returns all hidden and all cell states, each (batch, time, units).",
)

TINYGRAD = Row(
    name="tinygrad",
    title="tinygrad nn.LSTMCell",
    slots=TORCH_CELL.slots,
    evidence="tinygrad/nn/__init__.py:417",
    hint=TORCH_CELL.hint,
)

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
    fixed=FREE,
    expresses=frozenset({"output_activation", "gate_clip"}),
    recognised=False,
    evidence="onnx/defs/rnn/defs.cc, operator LSTM",
    hint="Activations and clip are attributes of the node, which plain arrays do not hold.",
)

OPENVINO = Row(
    name="openvino",
    title="OpenVINO LSTMSequence",
    slots=(
        Slot(key="{k}W", parts=("kernel",), transposed=True),
        Slot(key="{k}R", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{k}B", parts=("bias",)),
    ),
    order="fico",
    joined=True,
    bidirectional=True,
    alike=True,
    always_bias=True,
    fixed=FREE,
    expresses=frozenset({"output_activation", "gate_clip"}),
    evidence="openvino/op/lstm_sequence.hpp",
    hint="Activations (relu, sigmoid, tanh) and clip are attributes of the operation.",
)

NCNN = Row(
    name="ncnn",
    title="ncnn LSTM",
    slots=(
        Slot(key="{k}weight_xc", parts=("kernel",), transposed=True),
        Slot(key="{k}bias_c", parts=("bias",), form=Form.GATES),
        Slot(key="{k}weight_hc", parts=("recurrent_kernel",), transposed=True),
        Slot(key="{k}weight_hr", parts=("projection",), transposed=True),
    ),
    order="ifoc",
    joined=True,
    bidirectional=True,
    alike=True,
    always_bias=True,
    containers=("ncnn", "safetensors", "npz"),
    evidence="ncnn/src/layer/lstm.cpp",
    hint="x.param comes with x.bin. It takes one sequence at a time, without a batch.",
)

C = Row(
    name="c",
    title="C header",
    slots=(
        Slot(key="{d}{k}{gate}_gate.kernel", parts=("kernel",)),
        Slot(key="{d}{k}{gate}_gate.recurrent_kernel", parts=("recurrent_kernel",)),
        Slot(key="{d}{k}{gate}_gate.bias", parts=("bias",)),
    ),
    gates=Names("input", "forget", "cell", "output"),
    bidirectional=True,
    always_bias=True,
    fixed=FREE,
    containers=("c",),
    evidence="ISO/IEC 9899:1999",
    hint="One array for each gate, and a forward pass in C99 that needs nothing but math.h.",
)

RUN: tuple[Row, ...] = (
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
)

ROWS: Mapping[str, Row] = MappingProxyType({row.name: row for row in (*RUN, *OTHERS, *UNRUN)})


def close_to(name: str) -> str | None:
    """Return the hint that names a layout which is spelled much like `name`."""
    from difflib import get_close_matches  # only for the hint

    close = get_close_matches(name.lower(), ROWS, n=1)
    return f"did you mean {close[0]}?" if close else None


def row_of(name: str) -> Row:
    """Return the row of a layout.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in ROWS:
        raise UsageError(
            "no such layout",
            found=name,
            expected=", ".join(("gates", *ROWS)),
            hint=close_to(name) or "lstmconvert formats lists them",
        )
    return ROWS[name]
