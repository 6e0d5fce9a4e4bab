"""Making a layer expressible in a target, or saying what is in the way.

What a target can hold is data: `Abilities`. One `Fitter` reads it for every target, Keras, ONNX and
the frameworks' layouts alike. A second bias is summed and a run-time forget bias folded into the
stored bias, each a declared rounding loss. An option that the target cannot express is refused by
name, or with `allow_lossy` declared lost where the target can do without it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from lstmconvert.errors import LOSSY_HINT, UnknownOption, UnsupportedByTarget
from lstmconvert.model import edit
from lstmconvert.model.activations import ANY, Functions
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import (
    CELL_PARTS,
    GATE_PARTS,
    Cell,
    Direction,
    LSTMLayer,
    OpaqueCell,
)
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import FLOATS, name_of
from lstmconvert.tensors.tensor import Tensor

CLIPS = ("gate_clip", "cell_clip", "projection_clip")
#: Options that some frameworks have and others do not, other than activations and merge modes.
OF_FRAMEWORKS = ("go_backwards", "convolution", "output_activation", *CLIPS, "input_forget")
#: Options that a target may have no place for, other than activations and merge modes.
OPTIONS = frozenset({*OF_FRAMEWORKS, "keeps_time_order", "time_major"})
#: Every merge mode of a Bidirectional (keras/src/layers/rnn/bidirectional.py).
MERGE_MODES: tuple[str | None, ...] = ("concat", "sum", "mul", "ave", None)
#: Options that no target can give up: without them, the written weights would mean nothing.
_VITAL = frozenset({"projection", "convolution", "input_forget", "time_major"})
#: Options that a target may give up where the user allows it.
GIVABLE = frozenset(
    {*OPTIONS, *GATE_PARTS, *CELL_PARTS, "merge_mode", "activation", "recurrent_activation"}
) - _VITAL
#: The loss that comes with an option, in words.
_WHY = {
    "go_backwards": "it reads forwards, and gives its outputs so",
    "keeps_time_order": "it gives the outputs of go_backwards reversed: turn them round",
    "input_forget": "there is no input gate to write",
    "convolution": "its kernels are not matrices",
    "projection": "the state has another width",
}


class Abilities(NamedTuple):
    """What a target can hold of a layer.

    Fields:
        title: the target, in messages.
        name: the target, in the field `target` of an error.
        parts: the gate parts and cell parts that the target can hold.
        options: which of `OPTIONS` it expresses.
        activation, recurrent_activation: the functions that it computes. An output activation, if
            it is expressed at all, is one of `activation` too.
        merge_modes: how it joins the two halves of a Bidirectional.
        dtypes: the dtypes that its weights can have.
        forget_bias: what it adds to the forget gate at run time; None: what the layer says.
        known: options that the file must have stated: of cells, of directions, and `merge_mode`.
        givable: what `allow_lossy` may give up.
        forgets: whether what is given up is taken out of the layer's options, because the target
            states them itself.
        holds_opaque: whether the target can hold cells of other kinds (a GRU).
        directions: how many directions a layer can have.
        stacks: whether a direction can have several cells; `both_ways`: also in a Bidirectional.
        alike: whether the two halves must have one size; `alike_in_stacks`: the cells of a stack.
        hint: what the user can do about a refusal that `allow_lossy` does not lift.
    """

    title: str
    name: str
    parts: frozenset[str]
    options: frozenset[str] = frozenset()
    activation: Functions = ANY
    recurrent_activation: Functions = ANY
    merge_modes: Sequence[str | None] = MERGE_MODES
    dtypes: Sequence[str] = FLOATS
    forget_bias: float | None = 0.0
    known: frozenset[str] = frozenset()
    givable: frozenset[str] = frozenset()
    forgets: bool = False
    holds_opaque: bool = False
    directions: Sequence[int] = (1, 2)
    stacks: bool = True
    both_ways: bool = True
    alike: bool = False
    alike_in_stacks: bool = False
    hint: str | None = None


@dataclass(slots=True, eq=False)
class Fitter:
    """Fits layers into a target.

    Fields: `target`; `allow_lossy`: declare what cannot be expressed instead of refusing it, where
    the target can do without it; `losses`: what was lost, each text once, in order; `originals`:
    the stored forget biases before a run-time one was folded in, by `(layer, side, cell)`.

    Raises:
        UnknownOption: an option that matters to the target is unknown.
        UnsupportedByTarget: the target cannot express an option or a part.
    """

    target: Abilities
    allow_lossy: bool = False
    losses: dict[str, None] = field(default_factory=dict)
    originals: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)

    def fit(self, layer: LSTMLayer) -> LSTMLayer:
        """Return the layer as the target can have it."""
        self._check_structure(layer)
        check_known(layer, self.target.title, self.target.known)
        self._check_merge_mode(layer)
        layer = edit.map_directions(layer, lambda side, d: self._direction(layer, side, d))
        return edit.map_cells(layer, lambda side, index, c: self._cell(layer, side, index, c))

    def lose(self, text: str) -> None:
        """Declare a loss."""
        self.losses[text] = None

    def refuse(self, layer: LSTMLayer, option: str, value: object, expected: object = None) -> None:
        """Refuse an option or a part by name, or declare it lost.

        Raises:
            UnsupportedByTarget: unless the user allows the option to be lost.
        """
        givable = option in self.target.givable
        why = _WHY.get(option)
        text = f"{self.target.title} cannot express {option}" + (f": {why}" if why else "")
        if givable and self.allow_lossy:
            self.lose(f"{layer.name}: {text} ({value}): lost, as allowed")
            return
        hint = "--dtype float32 casts" if option == "dtype" else self.target.hint
        raise UnsupportedByTarget(
            text,
            where=layer.name,
            layer=layer.name,
            option=option,
            target=self.target.name,
            found=str(value),
            expected=expected,
            hint=LOSSY_HINT if givable else hint,
        )

    # ---- the layer as a whole ----------------------------------------------------------------

    def _check_structure(self, layer: LSTMLayer) -> None:
        target, both = self.target, layer.backward is not None
        cells = [cell for _, direction in layer.directions for cell in direction.cells]
        opaque = [cell.class_name for cell in cells if isinstance(cell, OpaqueCell)]
        if opaque and not target.holds_opaque:
            self.refuse(layer, "cells", opaque[0], "LSTM cells only")
        if len(layer.directions) not in target.directions:
            if both:
                self.refuse(layer, "Bidirectional", "two directions", "one")
            else:
                self.refuse(layer, "one direction", "one direction", "two")
        counts = {len(direction.cells) for _, direction in layer.directions}
        if max(counts) > 1 and not (target.stacks and (target.both_ways or not both)):
            self.refuse(layer, "cells", f"{max(counts)} in a direction", "one in each direction")
        if max(counts) > 1 and len(counts) > 1 and not target.holds_opaque:
            text = " and ".join(map(str, sorted(counts)))
            self.refuse(layer, "cells", text, "the same number in each direction")
        if both and target.alike:
            self._check_equal(layer, [cell for _, _, cell in layer.cells()])
        if target.alike_in_stacks:
            for _, direction in layer.directions:
                self._check_equal(layer, direction.lstm_cells)

    def _check_equal(self, layer: LSTMLayer, cells: Sequence[Cell]) -> None:
        for option in ("units", "recurrent_dim", "dtype"):
            values = list(dict.fromkeys(str(getattr(cell, option)) for cell in cells))
            if len(values) > 1:
                self.refuse(layer, option, " and ".join(values), "the same in all cells")

    def _check_merge_mode(self, layer: LSTMLayer) -> None:
        mode = layer.options.merge_mode
        if layer.backward is None or mode is UNKNOWN or mode in self.target.merge_modes:
            return
        expected = ", ".join(map(str, self.target.merge_modes))
        self.refuse(layer, "merge_mode", mode, expected)

    def _direction(self, layer: LSTMLayer, side: str, direction: Direction) -> Direction:
        options, can = direction.options, self.target.options
        if options.time_major is True and "time_major" not in can:
            self.refuse(layer, "time_major", True)
        if "go_backwards" not in can and options.go_backwards is (side == "forward"):
            self.refuse(layer, "go_backwards", f"{side} half: {options.go_backwards}")
        if options.keeps_time_order and "keeps_time_order" not in can:
            self.refuse(layer, "keeps_time_order", True)
            if self.target.forgets:
                return replace(direction, options=replace(options, keeps_time_order=False))
        return direction

    # ---- a cell ------------------------------------------------------------------------------

    def _cell(self, layer: LSTMLayer, side: str, index: int, cell: Cell) -> Cell:
        self._check_functions(cell, layer)
        cell = self._without_options(cell, layer)
        cell = self._without_parts(cell, layer)
        dtype = name_of(cell.dtype)
        if dtype not in self.target.dtypes:
            self.refuse(layer, "dtype", dtype, ", ".join(self.target.dtypes))
        return self._with_biases(cell, layer, (layer.name, side, index))

    def _check_functions(self, cell: Cell, layer: LSTMLayer) -> None:
        for option in ("activation", "recurrent_activation"):
            allowed: Functions = getattr(self.target, option)
            value = getattr(cell.options, option)
            if value is not UNKNOWN and value not in allowed:
                self.refuse(layer, option, value, allowed)

    def _without_options(self, cell: Cell, layer: LSTMLayer) -> Cell:
        """Return a cell without the options that the target does not have."""
        options, can = cell.options, self.target.options
        kernel = cell.fused_shape("kernel")
        is_window = options.convolution is not None or len(kernel) > 2
        if is_window and "convolution" not in can:
            self.refuse(layer, "convolution", f"a kernel of {kernel}")
        if options.input_forget and "input_forget" not in can:
            self.refuse(layer, "input_forget", True)
        gone = {name: getattr(options, name) for name in CLIPS if name not in can}
        gone = {name: value for name, value in gone.items() if value not in (None, UNKNOWN)}
        output = options.output_activation
        has_output = "output_activation" in can and output in self.target.activation
        if output not in (None, options.activation) and not has_output:
            gone["output_activation"] = output
        for name, value in gone.items():
            self.refuse(layer, name, value)
        if not gone or not self.target.forgets:
            return cell
        without: dict[str, Any] = dict.fromkeys(gone)
        return replace(cell, options=replace(options, **without))

    def _without_parts(self, cell: Cell, layer: LSTMLayer) -> Cell:
        placed = self.target.parts | {"bias", "recurrent_bias"}
        gone = [part for part in (*cell.gate_parts, *cell.parts) if part not in placed]
        for part in gone:
            self.refuse(layer, part, "a stored tensor")
        return edit.without_parts(cell, gone) if gone else cell

    def _with_biases(self, cell: Cell, layer: LSTMLayer, key: tuple[str, str, int]) -> Cell:
        title, amount = self.target.title, self.target.forget_bias
        if "recurrent_bias" not in self.target.parts:
            if edit.has_second_bias(cell):
                self.lose(
                    f"{layer.name}: {title} has one bias: bias and recurrent_bias are summed, "
                    "rounded"
                )
            cell = edit.with_one_bias(cell)
        if amount is None or cell.options.forget_bias is UNKNOWN:
            return cell
        difference = float(cell.options.forget_bias) - amount
        if difference:
            self.originals[key] = edit.bias_of(cell, Gate.FORGET)
            has = f"adds {amount:g} to the forget gate at run time" if amount else (
                "has no run-time forget bias"
            )
            self.lose(
                f"{layer.name}: {title} {has}: {difference:g} is added to the stored bias, rounded"
            )
        return edit.with_forget_bias(cell, amount)


def check_known(layer: LSTMLayer, target: str, names: Collection[str]) -> None:
    """Raise an error if one of some options of a layer is unknown.

    Args:
        layer: the layer.
        target: what needs them, for the message.
        names: the names of options of cells, of directions and of the layer. `merge_mode` counts
            for a Bidirectional only.

    Raises:
        UnknownOption: one of them is unknown.
    """
    missing = [name for name in dict.fromkeys(_unknown(layer)) if name in names]
    if missing:
        raise UnknownOption(
            f"the file does not say what {target} needs",
            where=layer.name,
            found=f"unknown: {', '.join(missing)}",
            hint="give the model's config with --config FILE, or each option with "
            f"--set {missing[0]}=VALUE",
        )


def _unknown(layer: LSTMLayer) -> Iterator[str]:
    groups: list[object] = []
    for _, direction in layer.directions:
        groups += [direction.options, *(cell.options for cell in direction.lstm_cells)]
    for options in groups:
        for option in fields(options):  # type: ignore[arg-type]  # each is a data class
            if getattr(options, option.name) is UNKNOWN:
                yield option.name
    if layer.backward is not None and layer.options.merge_mode is UNKNOWN:
        yield "merge_mode"
