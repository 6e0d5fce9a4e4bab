"""The table: how each framework names and turns the layers beside an LSTM.

A new class is a new row, and so is a new framework. A class without a row is left out there, by
name. Layouts of one framework (a layer, a cell) share what they have in common.
"""

from __future__ import annotations

from collections.abc import Mapping

from lstmconvert.files.jsontext import Json
from lstmconvert.layouts.neighbours import GateSlot, NeighbourRow, NeighbourSlot, Rows, Turn

_TANH_ONLY: Mapping[str, tuple[Json, ...]] = {"activation": ("tanh", None)}
#: The reset gate works after the product with the recurrent kernel, as in cuDNN.
_RESET_AFTER: Mapping[str, tuple[Json, ...]] = {
    **_TANH_ONLY,
    "recurrent_activation": ("sigmoid", None),
    "reset_after": (True,),
}
#: It works on the state, before the product.
_RESET_BEFORE = {**_RESET_AFTER, "reset_after": (False, None)}
#: The same, where the user passes the functions.
_AFTER_ANY: Mapping[str, tuple[Json, ...]] = {"reset_after": (True,)}
_BEFORE_ANY: Mapping[str, tuple[Json, ...]] = {"reset_after": (False, None)}
_TANH_OR_RELU: Mapping[str, tuple[Json, ...]] = {"activation": ("tanh", "relu", None)}
_WINDOW = ("Conv1D", "Conv2D")
_KERNELS = ("kernel", "recurrent_kernel")


def _plain(title: str, *slots: NeighbourSlot, hint: str = "", **takes: str) -> NeighbourRow:
    return NeighbourRow(title=title, slots=slots, takes=takes, hint=hint)


def _dense(title: str, kernel: str, bias: str, turn: Turn = Turn.SAME) -> NeighbourRow:
    return _plain(
        title,
        NeighbourSlot(key=kernel, role="kernel", turn=turn),
        NeighbourSlot(key=bias, role="bias"),
    )


def _embedding(title: str, key: str) -> NeighbourRow:
    return _plain(title, NeighbourSlot(key=key, role="embeddings"))


def _convolutions(
    titles: tuple[str, str],
    kernel: str,
    bias: str,
    turn: Turn = Turn.SAME,
    column: Turn = Turn.SAME,
    hint: str = "",
    **takes: str,
) -> Rows:
    slots = (
        NeighbourSlot(key=kernel, role="kernel", turn=turn),
        NeighbourSlot(key=bias, role="bias", turn=column),
    )
    return {
        name: _plain(title, *slots, hint=hint, **takes)
        for name, title in zip(_WINDOW, titles, strict=True)
    }


def _normalized(
    title: str,
    scale: str,
    offset: str,
    mean: str = "",
    variance: str = "",
    constants: Mapping[str, str] | None = None,
    hint: str = "",
    **takes: str,
) -> NeighbourRow:
    slots = [
        NeighbourSlot(key=scale, role="gamma", fill=1.0),
        NeighbourSlot(key=offset, role="beta", fill=0.0),
    ]
    if mean:
        slots += [
            NeighbourSlot(key=mean, role="moving_mean"),
            NeighbourSlot(key=variance, role="moving_variance"),
        ]
    return NeighbourRow(
        title=title, slots=tuple(slots), takes=takes, constants=constants or {}, hint=hint
    )


def _prelu(title: str, key: str) -> NeighbourRow:
    return _plain(title, NeighbourSlot(key=key, role="alpha", turn=Turn.CHANNELS))


def _absent(framework: str, *classes: str) -> Rows:
    return {name: NeighbourRow(title="", absent=f"{framework} has no {name}") for name in classes}


def _gated(
    kernel: str,
    recurrent: str,
    bias: str,
    second: str,
    gates: str,
    *,
    second_gates: str = "",
    turned: bool = True,
) -> tuple[GateSlot, ...]:
    """Return the slots of a kernel, a recurrent kernel, a bias, and perhaps a second bias."""
    slots = (
        GateSlot(key=kernel, parts=("kernel",), gates=gates, turned=turned),
        GateSlot(key=recurrent, parts=("recurrent_kernel",), gates=gates, turned=turned),
        GateSlot(key=bias, parts=("bias",), gates=gates),
    )
    extra = GateSlot(key=second, parts=("recurrent_bias",), gates=second_gates or gates)
    return (*slots, extra) if second else slots


def _below(kernel: str, bias: str, gates: str) -> tuple[GateSlot, ...]:
    """Return the slots of TensorFlow 1: the kernel above the recurrent kernel, and a bias."""
    return (
        GateSlot(key=kernel, parts=_KERNELS, gates=gates),
        GateSlot(key=bias, parts=("bias",), gates=gates),
    )


_CHANNELS_FIRST = "its input is (batch, channels, steps) where Keras has (batch, steps, channels)"

# ---- PyTorch (torch/nn/modules: linear, conv, batchnorm, normalization, sparse, rnn) -------------

_TORCH_LIKE: dict[str, NeighbourRow] = {
    "Dense": _dense("nn.Linear", "weight", "bias", Turn.TRANSPOSED),
    "Embedding": _embedding("nn.Embedding", "weight"),
    "LayerNormalization": _normalized("nn.LayerNorm", "weight", "bias", epsilon="eps"),
    **_convolutions(
        ("nn.Conv1d", "nn.Conv2d"),
        *("weight", "bias", Turn.OUTPUTS_FIRST),
        hint=_CHANNELS_FIRST,
        strides="stride",
        padding="padding",
        dilation_rate="dilation",
        groups="groups",
    ),
}
_TRACKED = {"num_batches_tracked": "int64"}
_TORCH_BATCHNORM = _normalized(
    "nn.BatchNorm",
    *("weight", "bias", "running_mean", "running_var"),
    constants=_TRACKED,
    epsilon="eps",
)
_TORCH_GRU = _gated(
    "weight_ih_l0{d}", "weight_hh_l0{d}", "bias_ih_l0{d}", "bias_hh_l0{d}", "rzh"
)
_TORCH_RNN = _gated(
    "weight_ih_l0{d}", "weight_hh_l0{d}", "bias_ih_l0{d}", "bias_hh_l0{d}", "h"
)
_TORCH_COMMON: dict[str, NeighbourRow] = {
    **_TORCH_LIKE,
    "BatchNormalization": _TORCH_BATCHNORM,
    "PReLU": _prelu("nn.PReLU", "weight"),
}
TORCH: Rows = {
    **_TORCH_COMMON,
    "GRU": NeighbourRow(title="nn.GRU", gate_slots=_TORCH_GRU, needs=_RESET_AFTER),
    "SimpleRNN": NeighbourRow(
        title="nn.RNN",
        gate_slots=_TORCH_RNN,
        needs=_TANH_OR_RELU,
        takes={"activation": "nonlinearity"},
    ),
}
_CELL_KEYS = ("{d}weight_ih", "{d}weight_hh", "{d}bias_ih", "{d}bias_hh")
TORCH_CELL: Rows = {
    **_TORCH_COMMON,
    "GRU": NeighbourRow(
        title="nn.GRUCell", gate_slots=_gated(*_CELL_KEYS, "rzh"), needs=_RESET_AFTER
    ),
    "SimpleRNN": NeighbourRow(
        title="nn.RNNCell",
        gate_slots=_gated(*_CELL_KEYS, "h"),
        needs=_TANH_OR_RELU,
        takes={"activation": "nonlinearity"},
    ),
}
#: tinygrad/nn/__init__.py: it has no recurrent cell but the LSTM's, and no PReLU.
TINYGRAD: Rows = {
    **_TORCH_LIKE,
    "BatchNormalization": _TORCH_BATCHNORM,
    **_absent("tinygrad", "GRU", "PReLU", "SimpleRNN"),
}

# ---- JAX -----------------------------------------------------------------------------------------

_STATISTICS = "mean and var belong to the collection batch_stats, the others to params"
_FLAX_FUNCTIONS = {"activation": "activation_fn", "recurrent_activation": "gate_fn"}


def _flax(module: str, dense: str, hint: str) -> dict[str, NeighbourRow]:
    """Return the rows that linen and nnx have in common, under the names of a module."""
    return {
        "Dense": _dense(f"{module}.{dense}", "kernel", "bias"),
        "Embedding": _embedding(f"{module}.Embed", "embedding"),
        "BatchNormalization": _normalized(
            f"{module}.BatchNorm", "scale", "bias", "mean", "var", hint=hint, epsilon="epsilon"
        ),
        "LayerNormalization": _normalized(
            f"{module}.LayerNorm", "scale", "bias", epsilon="epsilon"
        ),
        **_convolutions(
            (f"{module}.Conv", f"{module}.Conv"),
            *("kernel", "bias"),
            strides="strides",
            padding="padding",
            dilation_rate="kernel_dilation",
            groups="feature_group_count",
        ),
    }


#: flax/linen/recurrent.py, `GRUCell`, `SimpleCell`.
FLAX: Rows = {
    **_flax("nn", "Dense", _STATISTICS),
    # flax/linen/activation.py: one slope for all channels.
    "PReLU": _plain(
        "nn.PReLU", NeighbourSlot(key="negative_slope", role="alpha", turn=Turn.SINGLE)
    ),
    "GRU": NeighbourRow(
        title="nn.GRUCell",
        gate_slots=(
            GateSlot(
                key="{d}i{gate}.kernel", parts=("kernel",), gates="rzh", names=("r", "z", "n")
            ),
            GateSlot(key="{d}i{gate}.bias", parts=("bias",), gates="rzh", names=("r", "z", "n")),
            GateSlot(
                key="{d}h{gate}.kernel",
                parts=("recurrent_kernel",),
                gates="rzh",
                names=("r", "z", "n"),
            ),
            GateSlot(key="{d}hn.bias", parts=("recurrent_bias",), gates="h"),
        ),
        needs=_AFTER_ANY,
        takes=_FLAX_FUNCTIONS,
        folded="rz",
        always_bias=True,
    ),
    "SimpleRNN": NeighbourRow(
        title="nn.SimpleCell",
        gate_slots=_gated("{d}i.kernel", "{d}h.kernel", "{d}i.bias", "", "h", turned=False),
        takes={"activation": "activation_fn"},
        always_bias=True,
    ),
}
#: flax/nnx/nn: linear.py, normalization.py, recurrent.py, activations.py.
NNX: Rows = {
    **_flax("nnx", "Linear", ""),
    "PReLU": _prelu("nnx.PReLU", "negative_slope"),
    "GRU": NeighbourRow(
        title="nnx.GRUCell",
        gate_slots=_gated(
            "{d}dense_i.kernel", "{d}dense_h.kernel", "{d}dense_i.bias", "", "rzh", turned=False
        ),
        needs=_AFTER_ANY,
        takes=_FLAX_FUNCTIONS,
        folded="rz",
        always_bias=True,
    ),
    "SimpleRNN": NeighbourRow(
        title="nnx.SimpleCell",
        gate_slots=_gated(
            "{d}dense_i.kernel", "{d}dense_h.kernel", "{d}dense_i.bias", "", "h", turned=False
        ),
        takes={"activation": "activation_fn"},
        always_bias=True,
    ),
}
#: haiku/_src: basic.py, conv.py, embed.py, layer_norm.py, recurrent.py, batch_norm.py,
#: moving_averages.py (`hk.ExponentialMovingAverage`, of which only `average` is read at the end).
HAIKU: Rows = {
    **_absent("Haiku", "PReLU"),
    "BatchNormalization": _plain(
        "hk.BatchNorm",
        NeighbourSlot(key="scale", role="gamma", fill=1.0, turn=Turn.BROADCAST),
        NeighbourSlot(key="offset", role="beta", fill=0.0, turn=Turn.BROADCAST),
        NeighbourSlot(key="~.mean_ema.average", role="moving_mean", turn=Turn.BROADCAST),
        NeighbourSlot(key="~.var_ema.average", role="moving_variance", turn=Turn.BROADCAST),
        hint="the averages belong to the state, the others to the params",
        epsilon="eps",
    ),
    "Dense": _dense("hk.Linear", "w", "b"),
    "Embedding": _embedding("hk.Embed", "embeddings"),
    "LayerNormalization": _normalized("hk.LayerNorm", "scale", "offset", epsilon="eps"),
    **_convolutions(
        ("hk.Conv1D", "hk.Conv2D"),
        *("w", "b"),
        strides="stride",
        padding="padding",
        dilation_rate="rate",
        groups="feature_group_count",
    ),
    # It keeps the state where its z is 0, and Keras where z is 1; its z and r stand in that order.
    "GRU": NeighbourRow(
        title="hk.GRU",
        gate_slots=_gated("{d}w_i", "{d}w_h", "{d}b", "", "zrh", turned=False),
        needs=_RESET_BEFORE,
        negated="z",
        always_bias=True,
        hint="hk.GRU keeps the state where its update gate is 0: that gate has the other sign",
    ),
    "SimpleRNN": NeighbourRow(
        title="hk.VanillaRNN",
        gate_slots=_gated(
            *("{d}linear.w", "{d}linear_1.w", "{d}linear.b", "{d}linear_1.b", "h"), turned=False
        ),
        needs={"activation": ("relu",)},
        always_bias=True,
    ),
}
#: equinox/nn: _linear.py, _conv.py, _embedding.py, _normalisation.py, _rnn.py, _activations.py,
#: _batch_norm.py, whose statistics are in a state, as one pair.
EQUINOX: Rows = {
    **_absent("Equinox", "SimpleRNN"),
    "BatchNormalization": _normalized(
        "eqx.nn.BatchNorm",
        *("weight", "bias", "ema_state_index.mean", "ema_state_index.var"),
        hint="mode is 'ema', and the caller sets the statistics: "
        "state.set(norm.ema_state_index, (mean, var)); its channels are the first axis",
        epsilon="eps",
    ),
    "Dense": _dense("eqx.nn.Linear", "weight", "bias", Turn.TRANSPOSED),
    "Embedding": _embedding("eqx.nn.Embedding", "weight"),
    "LayerNormalization": _normalized("eqx.nn.LayerNorm", "weight", "bias", epsilon="eps"),
    **_convolutions(
        ("eqx.nn.Conv1d", "eqx.nn.Conv2d"),
        *("weight", "bias", Turn.OUTPUTS_FIRST, Turn.COLUMN),
        hint=_CHANNELS_FIRST,
        strides="stride",
        padding="padding",
        dilation_rate="dilation",
        groups="groups",
    ),
    "PReLU": _prelu("eqx.nn.PReLU", "negative_slope"),
    "GRU": NeighbourRow(
        title="eqx.nn.GRUCell",
        gate_slots=_gated(*_CELL_KEYS[:2], "{d}bias", "{d}bias_n", "rzh", second_gates="h"),
        needs=_RESET_AFTER,
        folded="rz",
    ),
}

# ---- MLX (mlx/nn/layers) -------------------------------------------------------------------------

MLX: Rows = {
    "Dense": _dense("nn.Linear", "weight", "bias", Turn.TRANSPOSED),
    "Embedding": _embedding("nn.Embedding", "weight"),
    "BatchNormalization": _normalized(
        "nn.BatchNorm", "weight", "bias", "running_mean", "running_var", epsilon="eps"
    ),
    "LayerNormalization": _normalized("nn.LayerNorm", "weight", "bias", epsilon="eps"),
    **_convolutions(
        ("nn.Conv1d", "nn.Conv2d"),
        *("weight", "bias", Turn.WINDOW_INSIDE),
        strides="stride",
        padding="padding",
        dilation_rate="dilation",
        groups="groups",
    ),
    "PReLU": _prelu("nn.PReLU", "weight"),
    "GRU": NeighbourRow(
        title="nn.GRU",
        gate_slots=_gated("{d}Wx", "{d}Wh", "{d}b", "{d}bhn", "rzh", second_gates="h"),
        needs=_RESET_AFTER,
        folded="rz",
    ),
    "SimpleRNN": NeighbourRow(
        title="nn.RNN",
        gate_slots=_gated("{d}Wxh", "{d}Whh", "{d}bias", "", "h"),
        takes={"activation": "nonlinearity"},
    ),
}

# ---- Paddle (python/paddle/nn/layer), MXNet (python/mxnet/gluon) ---------------------------------

_PADDLE_KEYS = ("0.{d}weight_ih", "0.{d}weight_hh", "0.{d}bias_ih", "0.{d}bias_hh")
PADDLE: Rows = {
    "Dense": _dense("nn.Linear", "weight", "bias"),
    "Embedding": _embedding("nn.Embedding", "weight"),
    "BatchNormalization": _normalized(
        "nn.BatchNorm", "weight", "bias", "_mean", "_variance", epsilon="epsilon"
    ),
    "LayerNormalization": _normalized("nn.LayerNorm", "weight", "bias", epsilon="epsilon"),
    **_convolutions(
        ("nn.Conv1D", "nn.Conv2D"),
        *("weight", "bias", Turn.OUTPUTS_FIRST),
        hint=_CHANNELS_FIRST,
        strides="stride",
        padding="padding",
        dilation_rate="dilation",
        groups="groups",
    ),
    "PReLU": _prelu("nn.PReLU", "_weight"),
    "GRU": NeighbourRow(
        title="nn.GRU",
        gate_slots=_gated(*_PADDLE_KEYS, "rzh"),
        needs=_RESET_AFTER,
        always_bias=True,
    ),
    "SimpleRNN": NeighbourRow(
        title="nn.SimpleRNN",
        gate_slots=_gated(*_PADDLE_KEYS, "h"),
        needs=_TANH_OR_RELU,
        takes={"activation": "activation"},
        always_bias=True,
    ),
}
_MXNET_KEYS = (
    "_unfused.0.{d}i2h_weight",
    "_unfused.0.{d}h2h_weight",
    "_unfused.0.{d}i2h_bias",
    "_unfused.0.{d}h2h_bias",
)
#: gluon/rnn/rnn_layer.py: the gates of its GRU are r z o, as cuDNN's.
MXNET: Rows = {
    "Dense": _dense("gluon.nn.Dense", "weight", "bias", Turn.TRANSPOSED),
    "Embedding": _embedding("gluon.nn.Embedding", "weight"),
    "BatchNormalization": _normalized(
        "gluon.nn.BatchNorm",
        *("gamma", "beta", "running_mean", "running_var"),
        hint="its channels are axis 1 unless the caller passes axis=-1",
        epsilon="epsilon",
    ),
    "LayerNormalization": _normalized("gluon.nn.LayerNorm", "gamma", "beta", epsilon="epsilon"),
    **_convolutions(
        ("gluon.nn.Conv1D", "gluon.nn.Conv2D"),
        *("weight", "bias", Turn.OUTPUTS_FIRST),
        hint=_CHANNELS_FIRST,
        strides="strides",
        padding="padding",
        dilation_rate="dilation",
        groups="groups",
    ),
    "PReLU": _prelu("gluon.nn.PReLU", "alpha"),
    "GRU": NeighbourRow(
        title="gluon.rnn.GRU",
        gate_slots=_gated(*_MXNET_KEYS, "rzh"),
        needs=_RESET_AFTER,
        always_bias=True,
    ),
    "SimpleRNN": NeighbourRow(
        title="gluon.rnn.RNN",
        gate_slots=_gated(*_MXNET_KEYS, "h"),
        needs=_TANH_OR_RELU,
        takes={"activation": "activation"},
        always_bias=True,
    ),
}

# ---- ncnn (src/layer/*.h, under the names of its members) ----------------------------------------

_NCNN_KEYS = ("{d}weight_xc_data", "{d}weight_hc_data", "{d}bias_c_data")
NCNN: Rows = {
    "Dense": _dense("InnerProduct", "weight_data", "bias_data", Turn.TRANSPOSED),
    "Embedding": _embedding("Embed", "weight_data"),
    "BatchNormalization": _normalized(
        "BatchNorm", "slope_data", "bias_data", "mean_data", "var_data", epsilon="eps"
    ),
    "LayerNormalization": _normalized("LayerNorm", "gamma_data", "beta_data", epsilon="eps"),
    **_convolutions(
        ("Convolution1D", "Convolution"),
        *("weight_data", "bias_data", Turn.OUTPUTS_FIRST),
        hint=_CHANNELS_FIRST,
        strides="stride_w",
        padding="pad_left",
        dilation_rate="dilation_w",
        groups="group",
    ),
    "PReLU": _prelu("PReLU", "slope_data"),
    # gru.cpp: the gates are R, U and N; the last bias of four is that of N inside the reset gate.
    "GRU": NeighbourRow(
        title="GRU",
        gate_slots=_gated(*_NCNN_KEYS, "{d}bias_bn_data", "rzh", second_gates="h"),
        needs=_RESET_AFTER,
        folded="rz",
        always_bias=True,
    ),
    "SimpleRNN": NeighbourRow(
        title="RNN",
        gate_slots=_gated(*_NCNN_KEYS, "", "h"),
        needs=_TANH_ONLY,
        always_bias=True,
    ),
}

# ---- TensorFlow 1, and Keras ---------------------------------------------------------------------

_OWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "Dense": ("kernel", "bias"),
    "Embedding": ("embeddings",),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "Conv1D": ("kernel", "bias"),
    "Conv2D": ("kernel", "bias"),
    "PReLU": ("alpha",),
}


def _as_keras(title: str) -> Rows:
    """Return rows with Keras's own names; an epsilon has to be passed, as by anyone."""
    return {
        name: _plain(f"{title}.{name}", *(NeighbourSlot(key=role, role=role) for role in roles))
        for name, roles in _OWN_NAMES.items()
    }


#: tensorflow/python/layers: dense, conv, batch_normalization name their variables as Keras does.
TF1: Rows = {
    **_as_keras("tf.layers"),
    # rnn_cell_impl.py, `GRUCell`: r and u side by side, then the candidate.
    "GRU": NeighbourRow(
        title="GRUCell",
        gate_slots=(
            *_below("{d}gates.kernel", "{d}gates.bias", "rz"),
            *_below("{d}candidate.kernel", "{d}candidate.bias", "h"),
        ),
        needs={**_BEFORE_ANY, "recurrent_activation": ("sigmoid", None)},
        takes={"activation": "activation"},
        always_bias=True,
    ),
    "SimpleRNN": NeighbourRow(
        title="BasicRNNCell",
        gate_slots=_below("{d}kernel", "{d}bias", "h"),
        takes={"activation": "activation"},
        always_bias=True,
    ),
}
KERAS: Rows = {
    **_as_keras("keras.layers"),
    "GRU": NeighbourRow(
        title="keras.layers.GRU",
        slots=tuple(NeighbourSlot(key=role, role=role) for role in (*_KERNELS, "bias")),
    ),
    "SimpleRNN": NeighbourRow(
        title="keras.layers.SimpleRNN",
        slots=tuple(NeighbourSlot(key=role, role=role) for role in (*_KERNELS, "bias")),
    ),
}

#: Layout -> class -> row. A layout that is not here has no place for other layers.
TABLE: Mapping[str, Rows] = {
    "torch": TORCH,
    "torch-cell": TORCH_CELL,
    "tinygrad": TINYGRAD,
    "flax": FLAX,
    "flax-cell": FLAX,
    "nnx": NNX,
    "nnx-cell": NNX,
    "nnx-optimized": NNX,
    "nnx-optimized-cell": NNX,
    "haiku": HAIKU,
    "equinox": EQUINOX,
    "mlx": MLX,
    "paddle": PADDLE,
    "mxnet": MXNET,
    "ncnn": NCNN,
    "tf1": TF1,
    "keras": KERAS,
}
