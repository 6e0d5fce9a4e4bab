"""What a layer, its directions and cells do, beside their numbers: typed, or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

from lstmconvert.activations import Activation
from lstmconvert.records import dataclass


class Unknown(Enum):
    """The type of `UNKNOWN`: what a file does not say. It is false, and null in JSON."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "unknown"

    __str__ = __repr__

    def __bool__(self) -> Literal[False]:
        return False


UNKNOWN = Unknown.UNKNOWN

#: The options of Keras's layers and cells that are true or false.
FLAGS = (
    "use_bias",
    "unit_forget_bias",
    "trainable",
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "time_major",
    "zero_output_for_mask",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """What the weights of one step do, beside their numbers. `UNKNOWN` is what no file said.

    `activation` is applied to the cell gate, and to the state on the way out unless
    `output_activation` is another; `recurrent_activation` to the three sigmoid gates. The
    initializers, regularizers and constraints are `{"class_name", "config"}` objects, or None.
    `unit_forget_bias` is how the bias was initialised: it never changes a stored number, whereas
    `forget_bias` is added at run time. `convolution` is set for ConvLSTM only: kernel_size,
    strides, padding, data_format, dilation_rate.
    """

    activation: Activation | Unknown = UNKNOWN
    recurrent_activation: Activation | Unknown = UNKNOWN
    output_activation: Activation | None = None
    use_bias: bool | Unknown = UNKNOWN
    unit_forget_bias: bool | Unknown = UNKNOWN
    dropout: float | Unknown = UNKNOWN
    recurrent_dropout: float | Unknown = UNKNOWN
    seed: int | Unknown | None = UNKNOWN
    kernel_initializer: Any = UNKNOWN
    recurrent_initializer: Any = UNKNOWN
    bias_initializer: Any = UNKNOWN
    kernel_regularizer: Any = UNKNOWN
    recurrent_regularizer: Any = UNKNOWN
    bias_regularizer: Any = UNKNOWN
    kernel_constraint: Any = UNKNOWN
    recurrent_constraint: Any = UNKNOWN
    bias_constraint: Any = UNKNOWN
    trainable: bool | Unknown = UNKNOWN
    policy: str | Unknown = UNKNOWN
    gate_clip: float | Unknown | None = None
    cell_clip: float | Unknown | None = None
    projection_clip: float | Unknown | None = None
    input_forget: bool = False
    forget_bias: float | Unknown = 0.0
    convolution: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionOptions:
    """How the cells of one direction are run over time. `UNKNOWN` is what no file said.

    `go_backwards` reads the input from its end, and Keras then returns the sequence reversed;
    `keeps_time_order` says that it comes in the order of the input all the same, as ONNX's
    `reverse` gives it (of a lone direction: a Bidirectional always turns its backward half round).
    `policy` is the name of the dtype policy (`float32`, `mixed_float16`, …).
    """

    return_sequences: bool | Unknown = UNKNOWN
    return_state: bool | Unknown = UNKNOWN
    go_backwards: bool | Unknown = UNKNOWN
    stateful: bool | Unknown = UNKNOWN
    unroll: bool | Unknown = UNKNOWN
    time_major: bool | Unknown = UNKNOWN
    keeps_time_order: bool = False
    zero_output_for_mask: bool | Unknown = UNKNOWN
    activity_regularizer: Any = UNKNOWN
    trainable: bool | Unknown = UNKNOWN
    policy: str | Unknown = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """What belongs to the layer as a whole.

    `merge_mode` is that of a Bidirectional (`concat`, `sum`, `mul`, `ave` or None: two outputs).
    `masked` says whether a mask reaches the layer in its model. `trainable` and `policy` are those
    of the outer layer.
    """

    merge_mode: str | Unknown | None = UNKNOWN
    masked: bool | Unknown = UNKNOWN
    trainable: bool | Unknown = UNKNOWN
    policy: str | Unknown = UNKNOWN
