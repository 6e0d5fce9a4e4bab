"""Models, layers, options and shapes in words: `7 inputs × 4 gates × 2 units`.

Weights are text too: all with the same number of digits, or the shortest text that reads back.
Numbers that are compared by eye have one number of decimals, chosen so that the largest of them
shows the digits asked for. A zero is `0`, a stored minus zero `-0`, and what would round to zero is
written with an exponent, so that no weight reads as zero that is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmconvert.containers import table
from lstmconvert.errors import counted, number
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.configs.era import DEFAULTS
from lstmconvert.model.activations import (
    KERAS2_HARD_SIGMOID_ALPHA,
    KERAS3_HARD_SIGMOID_ALPHA,
    Activation,
)
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, Direction, LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.model.options import UNKNOWN, CellOptions
from lstmconvert.tensors.dtypes import Array

if TYPE_CHECKING:
    from lstmconvert.tensors.tensor import Shape


#: Gate -> its purpose in words, in the order of the design.
MEANING = {
    Gate.INPUT: "how much new content enters",
    Gate.FORGET: "how much old state stays",
    Gate.CELL: "the new content itself",
    Gate.OUTPUT: "how much state is shown",
}


def shape(value: Shape) -> str:
    """`7×8`, `8`, `()`."""
    return "×".join(map(str, value)) or "()"


def is_convolution(cell: Cell) -> bool:
    """Whether the kernels have a window: ConvLSTM."""
    return len(_kernel(cell)) > 2


def size(cell: Cell) -> str:
    """`7 inputs, 2 units`."""
    return f"{counted(cell.input_dim, _input(cell))}, {counted(cell.units, _unit(cell))}"


def gate_count(cell: Cell, part: str) -> int:
    """How many gates have a part: 4, or 3 of a peephole."""
    return sum(part in weights.tensors for weights in cell.gates.values())


def reason(cell: Cell, part: str) -> str:
    """Say what the axes of a fused part are."""
    gates = counted(gate_count(cell, part), "gate")
    units = counted(cell.units, _unit(cell))
    if part not in ("kernel", "recurrent_kernel"):
        return f"{gates} × {units}"
    window = [f"{shape(_kernel(cell)[:-2])} window"] if is_convolution(cell) else []
    if part == "kernel":
        rows = counted(cell.input_dim, _input(cell))
    elif cell.recurrent_dim == cell.units:
        rows = units
    else:
        rows = f"{cell.recurrent_dim:,} projected"
    return " × ".join([*window, rows, gates, units])


def part_reason(cell: Cell, part: str) -> str:
    """Say what the axes of a cell's own part are."""
    if part == "projection":
        return f"{counted(cell.units, _unit(cell))} × {cell.recurrent_dim:,} projected"
    return "one for each of the hidden state" if part == "initial_hidden" else ""


def formula(cell: Cell) -> str:
    """`4·(7·2 + 2·2 + 2)`: how the number of parameters comes about."""
    terms: dict[int, list[str]] = {}
    for part in cell.gate_parts:
        shape = next(w.tensors[part].shape for w in cell.gates.values() if part in w.tensors)
        terms.setdefault(gate_count(cell, part), []).append("·".join(map(str, shape)))
    sums = [
        f"{count}·({' + '.join(items)})" if len(items) > 1 else f"{count}·{items[0]}"
        for count, items in terms.items()
    ]
    parts = ["·".join(map(str, tensor.shape)) or "1" for tensor in cell.parts.values()]
    return " + ".join([*sums, *parts])


#: Part of a gate -> what its rows are called.
ROWS = {
    "kernel": "x",
    "recurrent_kernel": "h",
    "bias": "b",
    "recurrent_bias": "b'",
    "peephole": "p",
    "layer_norm": "γ",
    "layer_norm_bias": "β",
}


def row_name(cell: Cell, part: str, row: int) -> str:
    """`x 4`, `h 0`, `b`; of a convolution `x 2,1 ch 0`: the place in the window, and the channel.

    Args:
        cell: the cell.
        part: a gate's part.
        row: which row of the part, seen as a matrix with a column for each unit.
    """
    shape = cell.fused_shape(part)
    if len(shape) == 1:
        return ROWS[part]
    place, channel = divmod(row, shape[-2])
    if len(shape) == 2:
        return f"{ROWS[part]} {row}"
    places: list[str] = []
    for size in reversed(shape[:-2]):
        place, index = divmod(place, size)
        places.insert(0, str(index))
    return f"{ROWS[part]} {','.join(places)} ch {channel}"


def _kernel(cell: Cell) -> Shape:
    return cell.gates[Gate.FORGET].tensors["kernel"].shape


def _input(cell: Cell) -> str:
    return "channel" if is_convolution(cell) else "input"


def _unit(cell: Cell) -> str:
    return "filter" if is_convolution(cell) else "unit"


_HARD_SIGMOIDS = {
    KERAS2_HARD_SIGMOID_ALPHA: "hard_sigmoid of Keras 1 and 2, clip(0.2*x + 0.5, 0, 1)",
    KERAS3_HARD_SIGMOID_ALPHA: "hard_sigmoid of Keras 3, clip(x/6 + 0.5, 0, 1)",
}
_RUN = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "time_major",
    "zero_output_for_mask",
    "activity_regularizer",
)
_CELL = (
    "unit_forget_bias",
    "dropout",
    "recurrent_dropout",
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
)
#: What only other frameworks' cells have.
_FOREIGN = ("gate_clip", "cell_clip", "projection_clip", "input_forget", "forget_bias")
_NOT_THERE = CellOptions()


def option_rows(
    layer: LSTMLayer, name: str, direction: Direction, cell: Cell
) -> list[tuple[str, str]]:
    """Return `(option, what it is)` of one cell, as it runs in its direction."""
    known = cell.options
    result = []
    if known.activation is not UNKNOWN:
        uses = "cell gate" if known.output_activation else "cell gate, state on its way out"
        result.append(("activation", f"{activation_text(known.activation)}: {uses}"))
    if known.output_activation is not None:
        text = activation_text(known.output_activation)
        result.append(("output_activation", f"{text}: state on its way out"))
    if known.recurrent_activation is not UNKNOWN:
        text = activation_text(known.recurrent_activation)
        result.append(("recurrent_activation", f"{text}: all other gates"))
    if known.convolution:
        result.append(
            ("convolution", ", ".join(f"{k}={value_text(v)}" for k, v in known.convolution.items()))
        )
    set_here = [f"{k}={value_text(v)}" for k, v in _not_default(layer, name, direction, cell)]
    if set_here:
        result.append(("also", ", ".join(set_here)))
    return result


def activation_text(value: Activation | Any) -> str:
    """`tanh`, `hard_sigmoid of Keras 1 and 2, clip(0.2*x + 0.5, 0, 1)`."""
    if value is UNKNOWN:
        return "unknown"
    if value.custom:
        return f"{value} (custom: known by name only)"
    if value.name == "hard_sigmoid" and value.constants.get("beta") == 0.5:
        return _HARD_SIGMOIDS.get(value.constants.get("alpha", 0.0), str(value))
    return str(value)


def value_text(value: Any) -> str:
    """One option's value as Python would show it; of an object, its class."""
    if isinstance(value, Activation):
        return activation_text(value)
    if isinstance(value, dict):
        return str(value.get("class_name", "set"))
    if isinstance(value, (list, tuple)):
        return "×".join(map(str, value))
    return str(value)


def _not_default(
    layer: LSTMLayer, name: str, direction: Direction, cell: Cell
) -> Iterator[tuple[str, Any]]:
    for option in _RUN:
        value = getattr(direction.options, option)
        default = option == "go_backwards" and name == "backward"
        if value is not UNKNOWN and value != (default or DEFAULTS[option]):
            yield option, value
    if direction.options.keeps_time_order:
        yield "keeps_time_order", True
    for option in _CELL:
        value = getattr(cell.options, option)
        if value is not UNKNOWN and value != DEFAULTS[option]:
            yield option, value
    for option in _FOREIGN:
        value = getattr(cell.options, option)
        if value != getattr(_NOT_THERE, option):
            yield option, value
    if layer.options.trainable is False:
        yield "trainable", False
    if layer.options.masked is True:
        yield "masked", True
    if cell.options.policy not in (UNKNOWN, cell.dtype.name):
        yield "dtype policy", cell.options.policy


#: The word for the outputs of a class; of others, `output`.
_OUTPUTS = {
    **dict.fromkeys(("Dense", "GRU", "SimpleRNN"), "unit"),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), "filter"),
}
#: Options that change what a layer computes -> the value that is worth no words.
_OPTIONS: dict[str, Json] = {
    "recurrent_activation": None,
    "epsilon": None,
    "axis": -1,
    "shared_axes": None,
    "merge_mode": None,
    "padding": "valid",
    "strides": 1,
    "dilation_rate": 1,
    "groups": 1,
    "mask_zero": False,
}
#: An option that is one of two, in words.
_RESET = {True: "reset after the product", False: "reset before the product"}


def neighbour_text(layer: Neighbour) -> str:
    """Return what a layer is, in one line, without its name."""
    return ", ".join([layer.class_name, *_sizes(layer), *_options(layer), *_weights(layer)])


def _sizes(layer: Neighbour) -> Iterator[str]:
    if layer.inputs is not None and layer.class_name.endswith("Normalization"):
        yield counted(layer.inputs, "feature")
        return
    if layer.inputs is not None:
        yield counted(layer.inputs, "input")
    if layer.outputs is not None:
        yield counted(layer.outputs, _OUTPUTS.get(layer.class_name, "output"))


def _options(layer: Neighbour) -> Iterator[str]:
    config = layer.config
    if "activation" in config:
        yield spelled(config["activation"] or "linear")
    for key, usual in _OPTIONS.items():
        value = config.get(key)
        if value is not None and value != usual and value != [usual] * _length(value):
            yield f"{key} {spelled(value)}"
    if isinstance(reset := config.get("reset_after"), bool):
        yield _RESET[reset]


def _length(value: Json) -> int:
    return len(value) if isinstance(value, list) else 0


def spelled(value: Json) -> str:
    """Return a config's value in a word or two: of an object, its class or name."""
    if isinstance(value, dict):
        name = value.get("class_name")
        config = value.get("config")
        return str(config if name == "function" and isinstance(config, str) else name)
    if isinstance(value, list):
        return "×".join(map(str, value))
    return str(value)


def _weights(layer: Neighbour) -> Iterator[str]:
    tensors = (*layer.tensors.values(), *layer.unnamed.values())
    if not tensors:
        return
    total = counted(layer.parameters, "parameter")
    sizes = " + ".join(number(tensor.size) for tensor in tensors)
    yield total if len(tensors) == 1 else f"{sizes} = {total}"
    *first, last = [shape(tensor.shape) for tensor in tensors]
    yield f"{', '.join(first)} and {last}" if first else last
    if layer.missing:
        yield f"not stored: {', '.join(layer.missing)}"


def file_facts(model: Model) -> str:
    """Return what a model's file is: its kind, what it was made from, how much of a model it holds,
    and by what it was written."""
    source = model.source
    version = f"Keras {source.keras_version}" if source.keras_version else ""
    if not version and source.era:
        version = source.era.replace("keras", "Keras ")
    parts = [
        _kind(model),
        f"made from {table.title_of(source.container)}" if model.is_converted else "",
        _extent(model),
        f"by {version}" if version else "",
    ]
    return ", ".join(filter(None, parts))


def _extent(model: Model) -> str:
    if model.is_whole:
        return "the whole model"
    cells = [cell.options for layer in model.layers for _, _, cell in layer.cells()]
    has_options = all(options.activation is not UNKNOWN for options in cells)
    row = table.container(model.container)
    if row is not None and row.is_keras and "model_config" not in model.texts:
        has_options = False  # a CuDNNLSTM's are known, for it has no others
    return "the LSTM layers alone" if has_options else "weights only"


def _kind(model: Model) -> str:
    row, title = table.container(model.container), table.title_of(model.container)
    if row is None:
        return title
    if model.is_per_gate:
        return f"a per-gate file ({row.suffixes[0]})" if row.arrays else title
    return title if row.tells(model.layout) else f"{title} in layout {model.layout}"


# -- numbers -------------------------------------------------------------------------------------


#: Beyond these powers of ten, decimals say less than an exponent does.
_SMALL, _LARGE = -4, 7
#: Decimals that mean "write every number with an exponent".
EXPONENT = -1


def decimals(largest: float, digits: int) -> int:
    """Return how many decimals show `digits` significant digits of a number of this size.

    Returns:
        0 or more, or `EXPONENT` for numbers that are all too small or too large for decimals.
    """
    if not largest or not math.isfinite(largest):
        return digits
    power = math.floor(math.log10(abs(largest)))
    if not _SMALL <= power < _LARGE:
        return EXPONENT
    return max(0, digits - 1 - power)


def fixed(value: float, places: int, digits: int) -> str:
    """Return a number as text.

    Args:
        value: the number.
        places: how many decimals, as `decimals` counts them.
        digits: how many significant digits, where there are no decimals.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    if places == EXPONENT:
        return _exponent(value, digits - 1)
    text = f"{value:.{places}f}"
    return _exponent(value, 0) if float(text) == 0 else text


def _exponent(value: float, places: int) -> str:
    mantissa, _, power = f"{value:.{places}e}".partition("e")
    return f"{mantissa}e{int(power)}"


def exact(value: float, itemsize: int = 4) -> str:
    """Return the shortest text that reads back as the same float32 (float64 for `itemsize` 8)."""
    if not math.isfinite(value) or value == 0:
        return fixed(value, 0, 1)
    return str(np.float64(value) if itemsize == 8 else np.float32(value)).removesuffix(".0")


def plain(array: Array) -> Array:
    """Return weights as float64 numbers that print as the shortest text of a float32.

    The numbers of 16-bit types are widened to float32, exactly; float64 stays as it is.
    """
    if array.dtype.itemsize == 8:
        return array
    with np.errstate(invalid="ignore"):  # to widen a signalling NaN is an invalid operation
        return array.astype(np.float32).astype(str).astype(np.float64)
