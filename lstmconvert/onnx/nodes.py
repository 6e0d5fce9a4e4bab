"""One LSTM node as gates and options: what the operator's attributes and inputs say.

The operator is that of onnx/defs/rnn/defs.cc, versions 1 to 22, which differ in nothing that
matters here; where its text leaves something open, ONNX Runtime decides (measured with 1.32).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from lstmconvert.activations import SIGMOID, TANH, Activation
from lstmconvert.dtypes import FLOATS, Array, bits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.gates import GATES, Gate
from lstmconvert.layer import GATE_PARTS, Cell, GateWeights
from lstmconvert.onnx import functions
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.initial import initial_states
from lstmconvert.onnx.negated import Negated, negated
from lstmconvert.onnx.quantized import SCALES, dequantized, is_quantized
from lstmconvert.onnx.scopes import DEFAULT_DOMAINS, Scope, attributes
from lstmconvert.onnx.weights import ORDER, PEEPHOLES
from lstmconvert.options import CellOptions
from lstmconvert.tensors import ArrayTensor, Columns, Tensor
from lstmconvert.views import Reshaped, Rows, is_zero, transposed

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LSTMNode:
    """An LSTM node, checked.

    Fields: `node`; `scope`, its graph; `name`, for messages and for the layer; `direction`;
    `batch_first`: layout 1; `activations`: three for each direction; `clip`, or None; `coupled`:
    input_forget; `values`: W and R, and B and P where there are; `states`: initial_h and initial_c
    where they are constant, (directions, units).
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

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def units(self) -> int:
        return self.values["R"].shape[2]

    @property
    def is_quantized(self) -> bool:
        return is_quantized(self.node)

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
    found = _attributes(node, where)
    direction = _text(found.get("direction", b"forward"))
    if direction not in _DIRECTIONS:
        raise CorruptFile("no such direction", where=where, found=direction[:40])
    clip = found.get("clip")
    if clip is not None and not (clip > 0 and math.isfinite(clip)):
        raise CorruptFile("a clip that is no bound", where=where, found=clip)
    result = LSTMNode(
        node=node,
        scope=scope,
        name=where,
        direction=direction,
        batch_first=found.get("layout", 0) == 1,
        activations=_activations(found, 2 if direction == "bidirectional" else 1, where),
        clip=None if clip is None else functions.exact(clip),
        coupled=found.get("input_forget", 0) != 0,
        values=_values(node, scope, constants, where),
        states={},
    )
    _check_shapes(result, found.get("hidden_size"), where)
    states = {
        name: initial_states(result.place(name), constants, result.shape)
        for name in ("initial_h", "initial_c")
        if result.input(name)
    }
    return replace(result, states={k: array for k, array in states.items() if array is not None})


def _attributes(node: onnx.NodeProto, where: str) -> dict[str, Any]:
    result = {}
    for name, attribute in attributes(node).items():
        if name not in _KINDS or attribute.type != _KINDS[name]:
            raise CorruptFile("no attribute of an LSTM", where=where, found=name[:40])
        result[name] = onnx.helper.get_attribute_value(attribute)
    return result


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _activations(
    found: Mapping[str, Any], directions: int, where: str
) -> Sequence[Activation]:
    if "activations" not in found:
        return [SIGMOID, TANH, TANH] * directions
    names = [_text(name) for name in found["activations"]]
    if len(names) != 3 * directions:
        raise CorruptFile(
            "an LSTM needs three activations for each direction", where=where, found=len(names)
        )
    try:
        return functions.from_lists(
            names, found.get("activation_alpha", ()), found.get("activation_beta", ())
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
            found = _constant(node, scale, f"{name}_scale", (scope, constants, where))
            if found is None:
                raise CorruptFile("a quantized weight without its scale", where=where, found=name)
            offset = _constant(node, zero, f"{name}_zero_point", (scope, constants, where))
            result[name] = dequantized(result[name], found, offset, f"{where}: {name}")
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
    dtypes = {tensor.dtype.name for tensor in values.values()}
    if len(dtypes) != 1 or not dtypes <= set(FLOATS):
        raise CorruptFile(
            "an LSTM's weights must be of one floating type",
            where=where,
            found=", ".join(sorted(dtypes)),
        )


# ---- to gates ------------------------------------------------------------------------------------


def gates(node: LSTMNode, direction: int) -> dict[Gate, dict[str, Tensor]]:
    """Return every tensor that a direction of the node has: gate -> part -> tensor."""
    units, result = node.units, dict[Gate, dict[str, Tensor]]()
    for index, gate in enumerate(ORDER):
        row = (direction * len(ORDER) + index) * units
        result[gate] = {
            part: transposed(_rows(node.values[name], row, units))
            for part, name in (("kernel", "W"), ("recurrent_kernel", "R"))
        }
        if "B" in node.values:
            for half, part in enumerate(("bias", "recurrent_bias")):
                start = (half * len(ORDER) + index) * units
                result[gate][part] = _vector(node.values["B"], direction, start, units)
    for index, gate in enumerate(PEEPHOLES):
        if "P" in node.values:
            result[gate]["peephole"] = _vector(node.values["P"], direction, index * units, units)
    if node.coupled:
        # The input gate is what ONNX Runtime computes, f = 1 - i. Here i = 1 - f: the same, with
        # every sign turned, for the functions that `_check_coupled` lets pass.
        result[Gate.FORGET] = {p: negated(t) for p, t in result.pop(Gate.INPUT).items()}
    return {gate: result[gate] for gate in GATES if gate in result}


def _rows(tensor: Tensor, start: int, count: int) -> Tensor:
    return Rows(tensor, start, start + count, (count, tensor.shape[-1]))


def _vector(tensor: Tensor, direction: int, start: int, units: int) -> Tensor:
    row = Rows(tensor, direction, direction + 1, (tensor.shape[-1],))
    return Reshaped(Columns(row, start, start + units), (units,))


def cell(node: LSTMNode, direction: int) -> Cell:
    """Return one direction as a cell. A second bias and peepholes that are all +0.0 are left out.

    Raises:
        CorruptFile: coupled gates with a function that has no counterpart.
    """
    recurrent, activation, output = node.activations[3 * direction : 3 * direction + 3]
    if node.coupled:
        _check_coupled(node, recurrent)
    found = gates(node, direction)
    for part in ("recurrent_bias", "peephole"):
        if all(_is_nothing(tensors[part]) for tensors in found.values() if part in tensors):
            found = {
                gate: {p: t for p, t in tensors.items() if p != part}
                for gate, tensors in found.items()
            }
    return Cell(
        gates={
            gate: GateWeights(gate, {p: tensors[p] for p in GATE_PARTS if p in tensors})
            for gate, tensors in found.items()
        },
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


def _is_nothing(tensor: Tensor) -> bool:
    return is_zero(tensor.base if isinstance(tensor, Negated) else tensor)


def _check_coupled(node: LSTMNode, recurrent: Activation) -> None:
    if recurrent.name not in ("sigmoid", "hard_sigmoid") or (
        recurrent.constants.get("beta", 0.5) != 0.5
    ):
        raise CorruptFile(
            "input_forget with a function whose mirror image is another: it is read as nothing",
            where=node.name,
            found=str(recurrent),
        )
