"""What a framework's arrangement of an LSTM's weights is made of: rows and their slots.

A row is data. `arrange` and `gather` read it, and nothing else in the package knows a framework.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from lstmconvert.activations import SIGMOID, TANH, Activation
from lstmconvert.gates import GATES, Gate, by_letters
from lstmconvert.layer import CELL_PARTS
from lstmconvert.records import dataclass

#: Gate parts that are vectors, one number for each unit.
VECTORS = frozenset(
    {"bias", "recurrent_bias", "peephole", "layer_norm", "layer_norm_bias", "projection_bias"}
)


class Form(StrEnum):
    """How a vector of n numbers is shaped: (n,), (1, n), (n, 1), or (gates, n / gates)."""

    FLAT = "flat"
    ROW = "row"
    COLUMN = "column"
    GATES = "gates"


class Names(NamedTuple):
    """What a framework calls each gate."""

    input: str
    forget: str
    cell: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One array of a cell, or with `{gate}` in its key one array for each gate.

    Fields: `key`: its name, with the places `{d}` (direction), `{k}` (number in a stack) and
    `{gate}`; `parts`: the gate parts that it joins, or
    the one cell part that it is; `below`: whether the parts lie one below the other (along the
    inputs), not side by side (along the units); `transposed`: whether units are rows; `order`: the
    gates in it, where it differs from the row's; `gates`: what `{gate}` stands for, where it
    differs from the row's; `filled`: whether it is zeros where a cell has other biases but not
    this one; `form`: the shape of a vector; `interleaved`: whether the gates alternate unit by
    unit.
    """

    key: str
    parts: tuple[str, ...]
    below: bool = False
    transposed: bool = False
    order: str | None = None
    gates: Names | None = None
    filled: bool = False
    form: Form = Form.FLAT
    interleaved: bool = False

    @property
    def per_gate(self) -> bool:
        """Whether there is one array for each gate."""
        return "{gate}" in self.key

    @property
    def of_cell(self) -> bool:
        """Whether it holds a cell part such as `projection`, not a part of the gates."""
        return self.parts[0] in CELL_PARTS

    @property
    def is_vector(self) -> bool:
        """Whether its neutral form is a vector."""
        return self.parts[0] in VECTORS


#: What the functions of a cell are in the frameworks that allow no others.
FIXED: tuple[tuple[str, Activation], ...] = (
    ("activation", TANH),
    ("recurrent_activation", SIGMOID),
)
FREE: tuple[tuple[str, Activation], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One framework's arrangement.

    Fields:
        name: what `--to` and `--from` call it.
        title: the framework and its class.
        slots: the arrays of a cell.
        order: the gates in a fused array.
        gates: what the framework calls each gate.
        sides: what `{d}` is for a layer of one direction, and for the forward and backward half.
        single: whether there is no place for a second direction at all.
        paired: whether there are always two directions, which `{k}` counts in turn.
        joined: whether the directions are a leading axis of every array.
        bidirectional: whether the framework itself runs both directions and concatenates them;
            where it does not, its user does.
        alike: whether the two halves must have one size.
        index: what `{k}` is in a stack, a format of the number; None: no stacks.
        alone: what `{k}` is without a stack.
        chained: whether each of a stack takes what both directions of the one before gave.
        fixed: the functions that the framework computes always; the others its user passes.
        always_bias: whether a bias is always there: zeros for a layer without one.
        forget_bias: what the framework adds to the forget gate at run time.
        expresses: further options of the neutral model that the framework has: `go_backwards`,
            `merge_mode`, `convolution`, `output_activation`, `gate_clip`, `cell_clip`,
            `projection_clip`, `input_forget`.
        containers: the containers that hold it, the natural one first.
        format: the metadata key `format` of a safetensors file.
        recognised: whether a file without metadata is known by its names.
        run: whether the real framework has run the weights in the tests.
        evidence: where the facts come from.
        hint: what its user has to know, in a sentence or two.
    """

    name: str
    title: str
    slots: tuple[Slot, ...]
    order: str = "ifco"
    gates: Names = Names("i", "f", "c", "o")
    sides: tuple[str, str, str] = ("", "forward.", "backward.")
    single: bool = False
    paired: bool = False
    joined: bool = False
    bidirectional: bool = False
    alike: bool = False
    index: str | None = "cells.{}."
    alone: str = ""
    chained: bool = False
    fixed: tuple[tuple[str, Activation], ...] = FIXED
    always_bias: bool = False
    forget_bias: float = 0.0
    expresses: frozenset[str] = frozenset()
    containers: tuple[str, ...] = ("safetensors", "npz", "json")
    format: str = "np"
    recognised: bool = False
    run: bool = True
    evidence: str = ""
    hint: str = ""

    @property
    def class_name(self) -> str:
        """What the class of a layer is called that came from there without metadata of ours."""
        return f"LSTM ({self.name})"

    @property
    def parts(self) -> frozenset[str]:
        """Every gate and cell part that has a place here."""
        return frozenset(part for slot in self.slots for part in slot.parts)

    def order_of(self, slot: Slot) -> tuple[Gate, ...]:
        """The gates that a slot holds, in its order."""
        return by_letters(slot.order or self.order)

    def gate_name(self, slot: Slot, gate: Gate) -> str:
        """What a slot's key calls a gate."""
        return (slot.gates or self.gates)[GATES.index(gate)]

    def place(self, index: int, depth: int, side: str, both: bool) -> dict[str, str]:
        """Return what `{d}` and `{k}` stand for at one place.

        Args:
            index: the number in the stack.
            depth: how many the stack has.
            side: `forward` or `backward`.
            both: whether there are two directions.
        """
        which = (1 if side == "forward" else 2) if both else 0
        if self.paired and self.index is not None:
            return {"d": "", "k": self.index.format(2 * index + (side == "backward"))}
        text = self.alone if depth == 1 or self.index is None else self.index.format(index)
        return {"d": self.sides[which], "k": text}
