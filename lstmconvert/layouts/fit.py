"""Making a layer expressible in a framework's row, or saying what is in the way.

A second bias is summed and a run-time forget bias subtracted, each a declared rounding loss; what
the framework has no way to compute is refused by name, or with `allow_lossy` declared lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from itertools import pairwise

from lstmconvert.activations import Activation
from lstmconvert.errors import LOSSY_HINT, UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.gates import Gate
from lstmconvert.layer import GATE_PARTS, Cell, GateWeights, LSTMLayer, OpaqueCell
from lstmconvert.layouts.row import Row
from lstmconvert.options import UNKNOWN
from lstmconvert.records import dataclass
from lstmconvert.tensors import ArrayTensor, Tensor
from lstmconvert.views import Added, Zeros, is_zero

#: Options that bound a value, or change what a cell computes, and what "not there" is.
_SWITCHES = {
    "gate_clip": None,
    "cell_clip": None,
    "projection_clip": None,
}


@dataclass(slots=True)
class Fitter:
    """Fits layers into a row.

    Fields: `row`; `allow_lossy`: declare what cannot be expressed instead of refusing it;
    `says_functions`: whether the target says what functions the gates have, so that its user need
    not; `losses`: what was lost; `warnings`: what the caller has to see to; `originals`: forget
    biases as they were before a run-time one was taken off, by `(layer, direction, cell)`.

    Raises:
        UnknownOption: an option that matters to the framework is unknown.
        UnsupportedByTarget: the framework cannot express an option or a part.
    """

    row: Row
    allow_lossy: bool = False
    says_functions: bool = False
    losses: dict[str, None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    originals: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)

    def fit(self, layer: LSTMLayer) -> LSTMLayer:
        """Return the layer as the framework can have it."""
        self._check_structure(layer)
        self._check_run(layer)
        halves = {}
        for side, direction in layer.directions:
            cells = [
                self._cell(cell, layer, side, index)
                for index, cell in enumerate(direction.lstm_cells)
            ]
            halves[side] = replace(direction, cells=tuple(cells))
        self._warn(layer)
        return replace(layer, forward=halves["forward"], backward=halves.get("backward"))

    def _lose(self, text: str) -> None:
        self.losses[text] = None

    def refuse(self, layer: LSTMLayer, option: str, found: object, why: str = "") -> None:
        """Refuse an option by name, or declare it lost."""
        text = f"{self.row.title} cannot express {option}"
        if self.allow_lossy:
            self._lose(f"{layer.name}: {text} ({found}): lost, as allowed")
            return
        error = self._unsupported(layer, option, found, text, why)
        error.hint = LOSSY_HINT
        raise error

    def _unsupported(
        self, layer: LSTMLayer, option: str, found: object, text: str, why: str = ""
    ) -> UnsupportedByTarget:
        return UnsupportedByTarget(
            f"{text}: {why}" if why else text,
            where=layer.name,
            layer=layer.name,
            option=option,
            target=self.row.name,
            found=str(found),
        )

    def _never(self, layer: LSTMLayer, option: str, found: object, why: str) -> None:
        """Refuse what cannot be written at all, whatever is allowed."""
        text = f"{self.row.title} cannot hold {option}"
        raise self._unsupported(layer, option, found, text, why)

    def _check_structure(self, layer: LSTMLayer) -> None:
        for side, direction in layer.directions:
            opaque = [c.class_name for c in direction.cells if isinstance(c, OpaqueCell)]
            if opaque:
                self._never(layer, "cells", opaque[0], f"its {side} half is not all LSTM")
        counts = {len(direction.cells) for _, direction in layer.directions}
        if max(counts) > 1:
            apart = self.row.chained or self.row.joined
            if self.row.index is None or len(counts) > 1 or (layer.backward is not None and apart):
                self._never(layer, "cells", f"{max(counts)} in a direction", "a stack in one layer")
            if self.row.chained:
                self._check_equal(layer, layer.forward.lstm_cells)
        if layer.backward is not None and self.row.single:
            self._never(layer, "Bidirectional", "two directions", "there is no place for a second")
        if layer.backward is None and self.row.paired:
            self._never(layer, "one direction", "one direction", "it always runs two")
        if layer.backward is not None and self.row.alike:
            self._check_equal(layer, [cell for _, _, cell in layer.cells()])

    def _check_equal(self, layer: LSTMLayer, cells: Sequence[Cell]) -> None:
        for option in ("units", "recurrent_dim", "dtype"):
            values = [getattr(cell, option) for cell in cells]
            if len(set(values)) > 1:
                found = " and ".join(str(value) for value in dict.fromkeys(values))
                self._never(layer, option, found, "its cells must be alike")

    def _check_run(self, layer: LSTMLayer) -> None:
        row = self.row
        if layer.forward.options.keeps_time_order:
            self.refuse(layer, "keeps_time_order", True, "it answers in the input's order")
        if "go_backwards" not in row.expresses:
            found = layer.forward.options.go_backwards
            self._need(layer, "go_backwards", found)
            if found is True:
                self.refuse(layer, "go_backwards", True, "it reads and answers in reverse")
            turned = layer.backward is not None and layer.backward.options.go_backwards is False
            if turned and found is False:
                self.refuse(layer, "go_backwards", "backward half: False")
        if layer.backward is not None and "merge_mode" not in row.expresses:
            self._need(layer, "merge_mode", layer.options.merge_mode)
            if layer.options.merge_mode not in ("concat", UNKNOWN):
                self.refuse(layer, "merge_mode", layer.options.merge_mode, "it concatenates")

    def _need(self, layer: LSTMLayer, option: str, value: object) -> None:
        if value is UNKNOWN:
            raise UnknownOption(
                f"the file does not say what {self.row.title} depends on",
                where=layer.name,
                found=f"unknown: {option}",
                hint="give the model's config with --config FILE, or the option with "
                f"--set {option}=VALUE",
            )

    def _cell(self, cell: Cell, layer: LSTMLayer, side: str, index: int) -> Cell:
        self._check_functions(cell, layer)
        cell = self._without_parts(cell, layer)
        cell = self._with_biases(cell, layer)
        return self._with_forget_bias(cell, layer, (layer.name, side, index))

    def _check_functions(self, cell: Cell, layer: LSTMLayer) -> None:
        options, row = cell.options, self.row
        for option, meant in row.fixed:
            found: Activation | object = getattr(options, option)
            self._need(layer, option, found)
            if found != meant:
                self.refuse(layer, option, found, f"it computes {meant}")
        output = options.output_activation
        if output not in (None, options.activation) and "output_activation" not in row.expresses:
            self.refuse(layer, "output_activation", output)
        for option, absent in _SWITCHES.items():
            if getattr(options, option) != absent and option not in row.expresses:
                self.refuse(layer, option, getattr(options, option))
        if options.input_forget and "input_forget" not in row.expresses:
            self._never(layer, "input_forget", True, "there is no input gate to write")
        if options.convolution is not None and "convolution" not in row.expresses:
            self._never(layer, "convolution", "ConvLSTM", "its kernels are no matrices")
        if len(cell.fused_shape("kernel")) > 2 and "convolution" not in row.expresses:
            self._never(layer, "convolution", cell.fused_shape("kernel"), "no matrices")

    def _without_parts(self, cell: Cell, layer: LSTMLayer) -> Cell:
        gone = [
            part
            for part in (*cell.gate_parts, *cell.parts)
            if part not in self.row.parts and part not in ("bias", "recurrent_bias")
        ]
        for part in gone:
            if part in ("projection",):
                self._never(layer, part, "a stored tensor", "the state has another width")
            self.refuse(layer, part, "a stored tensor")
        if not gone:
            return cell
        parts = {part: tensor for part, tensor in cell.parts.items() if part not in gone}
        return replace(_without(cell, gone), parts=parts)

    def _with_biases(self, cell: Cell, layer: LSTMLayer) -> Cell:
        if "recurrent_bias" in self.row.parts or "recurrent_bias" not in cell.gate_parts:
            return cell
        first = {g: _bias(cell, g) for g in cell.gates}
        second = {g: w.tensors["recurrent_bias"] for g, w in cell.gates.items()}
        if all(map(is_zero, second.values())):
            return _with_bias(_without(cell, ["recurrent_bias"]), first)
        self._lose(
            f"{layer.name}: {self.row.title} has one bias: bias and recurrent_bias are summed, "
            "rounded"
        )
        added: dict[Gate, Tensor] = {}
        for gate, tensor in first.items():
            one, two = tensor.read(), second[gate].read()
            # A second bias of +0.0 leaves the first as it is, -0.0 included.
            added[gate] = tensor if is_zero(second[gate]) else ArrayTensor(
                (one + two).astype(one.dtype)
            )
        return _with_bias(_without(cell, ["recurrent_bias"]), added)

    def _with_forget_bias(self, cell: Cell, layer: LSTMLayer, key: tuple[str, str, int]) -> Cell:
        has = cell.options.forget_bias
        self._need(layer, "forget_bias", has)
        amount = (has if isinstance(has, (int, float)) else 0.0) - self.row.forget_bias
        if not amount:
            return cell
        old = {gate: _bias(cell, gate) for gate in cell.gates}
        self.originals[key] = old[Gate.FORGET]
        new = {**old, Gate.FORGET: Added(old[Gate.FORGET], amount)}
        what = "adds" if self.row.forget_bias else "does not add"
        self._lose(
            f"{layer.name}: {self.row.title} {what} {self.row.forget_bias or has:g} to the forget "
            f"gate at run time: {amount:+g} is added to the stored bias, rounded"
        )
        cell = _with_bias(cell, new)
        options = replace(cell.options, forget_bias=self.row.forget_bias, use_bias=True)
        return replace(cell, options=options)

    def _warn(self, layer: LSTMLayer) -> None:
        options, name, title = layer.forward.options, layer.name, self.row.title
        both = layer.backward is not None
        if options.stateful is True:
            self.warnings.append(
                f"{name} is stateful: {title} starts from zero unless the caller passes on the "
                "final state"
            )
        if layer.options.masked is True:
            self.warnings.append(
                f"{name}: a mask reaches it in its model: the caller must skip those steps"
            )
        if options.time_major is True:
            self.warnings.append(f"{name} is time_major: its input is (time, batch, inputs)")
        if both and not self.row.bidirectional:
            self.warnings.append(
                f"{name}: {title} runs one direction: the caller runs the backward half on the "
                "reversed input, reverses its outputs in time, and concatenates"
            )
        self._warn_functions(layer)

    def _warn_functions(self, layer: LSTMLayer) -> None:
        if self.row.fixed or self.says_functions:
            return
        passed = dict.fromkeys(
            f"{option}={'unknown' if value is UNKNOWN else value}"
            for _, _, cell in layer.cells()
            for option, default in _DEFAULTS.items()
            if (value := getattr(cell.options, option)) != default
        )
        if passed:
            self.warnings.append(
                f"{layer.name}: {self.row.title} keeps no functions with its weights: the caller "
                f"passes {', '.join(passed)}"
            )


def fit_stack(layers: Sequence[LSTMLayer], fitter: Fitter) -> tuple[LSTMLayer, ...]:
    """Fit layers that become one stack.

    Raises:
        UsageError: the row has no stacks, or the layers do not follow one another.
        UnknownOption, UnsupportedByTarget: see `Fitter`.
    """
    fitted = tuple(fitter.fit(layer) for layer in layers)
    if len(layers) < 2:
        return fitted
    if not fitter.row.chained:
        raise UsageError("no stacks of layers in this layout", found=fitter.row.name)
    names = ", ".join(layer.name for layer in layers)
    for layer in fitted:
        if len(layer.forward.cells) != 1:
            raise UsageError("a layer of several cells cannot join a stack", where=layer.name)
    for before, after in pairwise(fitted):
        width = sum(d.lstm_cells[-1].recurrent_dim for _, d in before.directions)
        same = _shape(before) == _shape(after)
        if not same or after.input_dim != width:
            raise UsageError(
                "these layers do not fit into one stack",
                where=names,
                found=f"{after.name} takes {after.input_dim} inputs, {_shape(after)}",
                expected=f"{width} inputs, {_shape(before)}",
            )
        if before.forward.options.return_sequences is False:
            raise UsageError(
                "a layer inside a stack hands on its whole sequence",
                where=before.name,
                found="return_sequences=False",
                expected="True",
            )
    return fitted


def _shape(layer: LSTMLayer) -> str:
    directions = "two directions" if layer.backward else "one direction"
    cell = layer.forward.lstm_cells[0]
    return f"{directions} of {cell.units} units, {cell.recurrent_dim} wide, {cell.dtype.name}"


#: What goes without saying: the functions that every framework's user gets unless he asks.
_DEFAULTS = {"activation": Activation("tanh"), "recurrent_activation": Activation("sigmoid")}


def _bias(cell: Cell, gate: Gate) -> Tensor:
    found = cell.gates[gate].tensors.get("bias")
    return Zeros((cell.units,), cell.dtype) if found is None else found


def _with_bias(cell: Cell, biases: dict[Gate, Tensor]) -> Cell:
    gates = {
        gate: GateWeights(gate, _ordered({**weights.tensors, "bias": biases[gate]}))
        for gate, weights in cell.gates.items()
    }
    return replace(cell, gates=gates)


def _ordered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {part: tensors[part] for part in GATE_PARTS if part in tensors}


def _without(cell: Cell, parts: Iterable[str]) -> Cell:
    gone = set(parts)
    gates = {
        gate: GateWeights(gate, {p: t for p, t in weights.tensors.items() if p not in gone})
        for gate, weights in cell.gates.items()
    }
    return replace(cell, gates=gates)
