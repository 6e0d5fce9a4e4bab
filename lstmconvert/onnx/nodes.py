"""One LSTM node as gates and options: what the operator's attributes and inputs say.

The operator is that of onnx/defs/rnn/defs.cc, versions 1 to 22, which differ in nothing that
matters here; where its text leaves something open, ONNX Runtime decides (measured with 1.32).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.model import wellformed
from lstmconvert.model.activations import SIGMOID, TANH, Activation
from lstmconvert.model.gates import GATES, Gate, blocks, entries, split
from lstmconvert.model.layer import Cell, GateWeights, weights_of
from lstmconvert.model.options import CellOptions
from lstmconvert.onnx import functions
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.inputs import initial_state, is_turned
from lstmconvert.onnx.skeleton import DEFAULT_DOMAINS, Scope, attributes
from lstmconvert.onnx.weights import ORDER, PEEPHOLES
from lstmconvert.tensors.dtypes import Array, bits
from lstmconvert.tensors.tensor import ArrayTensor, Tensor
from lstmconvert.tensors.views import is_zero, negated, transposed

_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_OUTPUTS = ("Y", "Y_h", "Y_c")
_KINDS: dict[str, int] = {
    "activation_alpha": onnx.AttributeProto.FLOATS,
    "activation_beta": onnx.AttributeProto.FLOATS,
    "activations": onnx.AttributeProto.STRINGS,
    "clip": onnx.AttributeProto.FLOAT,
    "direction": onnx.AttributeProto.STRING,
    "hidden_size": onnx.AttributeProto.INT,
    "input_forget": onnx.AttributeProto.INT,
    "layout": onnx.AttributeProto.INT,
    "output_sequence": onnx.AttributeProto.INT,  # version 1 only
}
_DIRECTIONS = ("forward", "reverse", "bidirectional")
#: The quantized LSTM of ONNX Runtime.
OPERATOR, DOMAIN = "DynamicQuantizeLSTM", "com.microsoft"
#: Weight -> the inputs that hold its scale and its zero point, by their places.
SCALES = {"W": (8, 9), "R": (10, 11)}
_TYPES = ("int8", "uint8")


@dataclass(frozen=True, slots=True, kw_only=True)
class LSTMNode:
    """An LSTM node, checked.

    Fields: `node`; `scope`, its graph; `name`, for messages and for the layer; `direction`;
    `batch_first`: layout 1; `activations`: three for each direction; `clip`, or None; `coupled`:
    input_forget; `values`: W and R, and B and P where there are; `states`: initial_h and initial_c
    where they are constant, (directions, units); `origins`: where they come from if they are not;
    `turned`: whether the graph turns the sequence round before the node.
    """

    node: onnx.NodeProto
    scope: Scope
    name: str
    direction: str
    batch_first: bool
    activations: Sequence[Activation]
    clip: float | None
    coupled: bool
    values: Mapping[str, Tensor] = field(repr=False)
    states: Mapping[str, Array] = field(repr=False)
    origins: Mapping[str, str] = field(repr=False)
    turned: bool = False

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def units(self) -> int:
        return self.values["R"].shape[2]

    @property
    def is_quantized(self) -> bool:
        return is_quantized(self.node)

    def reads_backwards(self, half: int) -> bool:
        """Whether a direction reads its sequences from the end, as the graph is given them."""
        return (self.direction == "reverse" or half == 1) != self.turned

    @property
    def has_lengths(self) -> bool:
        return bool(self.input("sequence_lens"))

    def input(self, name: str) -> str:
        """Return the name of an input's value, empty if there is none."""
        index = _INPUTS.index(name)
        return self.node.input[index] if index < len(self.node.input) else ""

    def place(self, name: str) -> tuple[Scope, str, str]:
        """Return an input's graph and value, and where that is, for messages."""
        return self.scope, self.input(name), f"{self.name}: {name}"

    @property
    def shape(self) -> tuple[int, int, bool]:
        """The number of directions, the units, and whether the batch comes first."""
        return self.directions, self.units, self.batch_first

    def output(self, name: str) -> str:
        """Return the name of an output's value, empty if there is none."""
        index = _OUTPUTS.index(name)
        return self.node.output[index] if index < len(self.node.output) else ""


def is_lstm(node: onnx.NodeProto) -> bool:
    """Whether a node is the standard LSTM operator, or the quantized one of ONNX Runtime."""
    standard = node.op_type == "LSTM" and node.domain in DEFAULT_DOMAINS
    return standard or is_quantized(node)


def read(node: onnx.NodeProto, scope: Scope, constants: Constants, where: str) -> LSTMNode:
    """Read one node.

    Raises:
        SourceError: a weight is no constant.
        CorruptFile: the node contradicts the operator or itself.
    """
    stated = _attributes(node, where)
    direction = _text(stated.get("direction", b"forward"))
    if direction not in _DIRECTIONS:
        raise CorruptFile("no such direction", where=where, found=direction[:40])
    clip = stated.get("clip")
    if clip is not None and not (clip > 0 and math.isfinite(clip)):
        raise CorruptFile("a clip that is no bound", where=where, found=clip)
    result = LSTMNode(
        node=node,
        scope=scope,
        name=where,
        direction=direction,
        batch_first=stated.get("layout", 0) == 1,
        activations=_activations(stated, 2 if direction == "bidirectional" else 1, where),
        clip=None if clip is None else functions.exact(clip),
        coupled=stated.get("input_forget", 0) != 0,
        values=_values(node, scope, constants, where),
        states={},
        origins={},
    )
    _check_shapes(result, stated.get("hidden_size"), where)
    states = {
        name: initial_state(result.place(name), constants, result.shape)
        for name in ("initial_h", "initial_c")
        if result.input(name)
    }
    axes = "BTI" if result.batch_first else "TBI"
    return replace(
        result,
        states={name: state.array for name, state in states.items() if state.array is not None},
        origins={name: state.origin for name, state in states.items() if state.origin},
        turned=is_turned(result.place("X"), axes, constants, result.input("sequence_lens")),
    )


def _attributes(node: onnx.NodeProto, where: str) -> dict[str, Any]:
    result = {}
    for name, attribute in attributes(node).items():
        if name not in _KINDS or attribute.type != _KINDS[name]:
            raise SourceError(
                "no attribute of an LSTM",
                where=where,
                found=name[:40],
                expected=", ".join(_KINDS),
                hint="nothing is damaged: it is of a draft, or of another operator set than ONNX's",
            )
        result[name] = onnx.helper.get_attribute_value(attribute)
    return result


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _activations(
    stated: Mapping[str, Any], directions: int, where: str
) -> Sequence[Activation]:
    if "activations" not in stated:
        return [SIGMOID, TANH, TANH] * directions
    names = [_text(name) for name in stated["activations"]]
    if len(names) != 3 * directions:
        raise CorruptFile(
            "an LSTM needs three activations for each direction", where=where, found=len(names)
        )
    try:
        return functions.from_lists(
            names, stated.get("activation_alpha", ()), stated.get("activation_beta", ())
        )
    except ValueError as error:
        raise CorruptFile(str(error), where=where) from None


def _values(
    node: onnx.NodeProto, scope: Scope, constants: Constants, where: str
) -> dict[str, Tensor]:
    result = {}
    for place, name in enumerate(_INPUTS):
        if name in ("W", "R", "B", "P"):
            tensor = _constant(node, place, name, (scope, constants, where))
            if tensor is not None:
                result[name] = tensor
    missing = {"W", "R"} - result.keys()
    if missing:
        raise CorruptFile("an LSTM without weights", where=where, found=f"no {min(missing)}")
    if is_quantized(node):
        for name, (scale, zero) in SCALES.items():
            scales = _constant(node, scale, f"{name}_scale", (scope, constants, where))
            if scales is None:
                raise CorruptFile("a quantized weight without its scale", where=where, found=name)
            offset = _constant(node, zero, f"{name}_zero_point", (scope, constants, where))
            result[name] = dequantized(result[name], scales, offset, f"{where}: {name}")
    return result


def _constant(
    node: onnx.NodeProto, place: int, name: str, known: tuple[Scope, Constants, str]
) -> Tensor | None:
    """Return what a node is given at a place; None if nothing is."""
    scope, constants, where = known
    value = node.input[place] if place < len(node.input) else ""
    if not value:
        return None
    try:
        return constants.tensor(scope, value)
    except NotConstantError as error:
        made, why = error.args
        raise SourceError(
            f"the LSTM's {name} is no constant: the file does not hold the weights",
            where=where,
            found=f"{made}, {why}",
            expected="an initializer, or what is computed from initializers",
            hint="make the weights initializers of the graph, and try again",
        ) from None


def _check_shapes(node: LSTMNode, hidden_size: int | None, where: str) -> None:
    values, count = node.values, node.directions
    w, r = values["W"].shape, values["R"].shape
    units = r[2] if len(r) == 3 else -1
    if units < 1 or len(w) != 3 or w[2] < 1 or hidden_size not in (None, units):
        raise CorruptFile(
            "W and R disagree with each other or with hidden_size",
            where=where,
            found=f"W {w}, R {r}, hidden_size {hidden_size}",
        )
    wanted = {
        "W": (count, 4 * units, w[2]),
        "R": (count, 4 * units, units),
        "B": (count, 8 * units),
        "P": (count, 3 * units),
    }
    for name, shape in wanted.items():
        if name in values and values[name].shape != shape:
            raise CorruptFile(
                f"the LSTM's {name} has the wrong shape",
                where=where,
                found=str(values[name].shape),
                expected=str(shape),
            )


# ---- to gates ------------------------------------------------------------------------------------


def gates(
    node: LSTMNode, direction: int, *, with_empty: bool = True
) -> dict[Gate, GateWeights]:
    """Return the weights of each gate of a direction.

    Args:
        node: the node.
        direction: 0 or 1.
        with_empty: keep a second bias and peepholes that are +0.0 all through. They change nothing.
    """
    values = {
        name: entries(tensor, node.directions)[direction] for name, tensor in node.values.items()
    }
    fused = {
        "kernel": split(transposed(values["W"]), ORDER),
        "recurrent_kernel": split(transposed(values["R"]), ORDER),
    }
    if "B" in values:
        first, second = (split(half, ORDER) for half in blocks(values["B"], 2))
        fused["bias"] = first
        if with_empty or not all(map(is_zero, second.values())):
            fused["recurrent_bias"] = second
    if "P" in values:
        peepholes = split(values["P"], PEEPHOLES)
        if with_empty or not all(map(is_zero, peepholes.values())):
            fused["peephole"] = peepholes
    parts: dict[Gate, dict[str, Tensor]] = {
        gate: {part: tensors[gate] for part, tensors in fused.items() if gate in tensors}
        for gate in GATES
    }
    if node.coupled:
        # ONNX stores the input gate, and ONNX Runtime computes f = 1 - i. Here the forget gate is
        # stored, and i = 1 - f: the same with every sign turned, for the functions that
        # `_check_coupled` lets pass.
        parts[Gate.FORGET] = {p: negated(tensor) for p, tensor in parts.pop(Gate.INPUT).items()}
    return weights_of(parts)


def cell(node: LSTMNode, direction: int) -> Cell:
    """Return one direction as a cell, without a second bias or peepholes that change nothing.

    Raises:
        CorruptFile: the weights are not those of one cell; coupled gates with a function that has
            no counterpart.
    """
    recurrent, activation, output = node.activations[3 * direction : 3 * direction + 3]
    if node.coupled:
        _check_coupled(node, recurrent)
    result = Cell(
        gates=gates(node, direction, with_empty=False),
        options=CellOptions(
            activation=activation,
            recurrent_activation=recurrent,
            output_activation=None if output == activation else output,
            use_bias="B" in node.values,
            policy=node.values["W"].dtype.name,
            gate_clip=node.clip,
            input_forget=node.coupled,
        ),
        parts={
            part: ArrayTensor(node.states[name][direction])
            for name, part in (("initial_h", "initial_hidden"), ("initial_c", "initial_cell"))
            if name in node.states and bits(node.states[name][direction]).any()
        },
    )
    wellformed.check_cell(result, node.name, arrays=node.values)
    return result


def _check_coupled(node: LSTMNode, recurrent: Activation) -> None:
    if recurrent.name not in ("sigmoid", "hard_sigmoid") or (
        recurrent.constants.get("beta", 0.5) != 0.5
    ):
        raise CorruptFile(
            "input_forget with a function whose mirror image is another: it is read as nothing",
            where=node.name,
            found=str(recurrent),
        )


# ---- ONNX Runtime's DynamicQuantizeLSTM: W and R as 8-bit integers -------------------------------
#
# `onnxruntime.quantization.quantize_dynamic` puts it in an LSTM's place. Its inputs are the
# LSTM's, and four more (onnxruntime/docs/ContribOperators.md); W and R lie the other way round, and
# a weight is (q - zero point) * scale, with one scale for each direction or each column of one.


def is_quantized(node: onnx.NodeProto) -> bool:
    """Whether a node is ONNX Runtime's quantized LSTM."""
    return node.op_type == OPERATOR and node.domain == DOMAIN


def dequantized(stored: Tensor, scale: Tensor, zero: Tensor | None, where: str) -> Tensor:
    """Return W or R of the operator LSTM, (directions, 4 * units, inputs), float32.

    Args:
        stored: (directions, inputs, 4 * units), of 8 bits.
        scale, zero: (directions,), or (directions, 4 * units).
        where: for messages.

    Raises:
        CorruptFile: a type or a shape is not the operator's.
    """
    shape = stored.shape
    shapes = (shape[:1], (*shape[:1], *shape[2:]))
    fits = (
        len(shape) == 3
        and stored.dtype.name in _TYPES
        and scale.dtype.name == "float32"
        and scale.shape in shapes
        and (zero is None or (zero.dtype == stored.dtype and zero.shape in shapes))
    )
    if not fits:
        raise CorruptFile(
            "the weights of a quantized LSTM do not fit their scales",
            where=where,
            found=f"{stored.dtype.name} {shape}, scale {scale.dtype.name} {scale.shape}",
        )
    whole = stored.read().astype(np.int32)
    if zero is not None:
        whole -= _each_column(zero.read()).astype(np.int32)
    values = whole.astype(np.float32) * _each_column(scale.read())
    return ArrayTensor(np.ascontiguousarray(values.swapaxes(1, 2)))


def _each_column(array: Array) -> Array:
    return array.reshape(array.shape[0], 1, -1)
