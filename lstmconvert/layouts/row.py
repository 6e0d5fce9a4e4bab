"""What a framework's arrangement of an LSTM's weights is made of: rows and their slots.

A row is data, and is checked when it is made: a word that means nothing, or two facts that
contradict each other, are a `ValueError` at import, not a wrong array later. `arrange` and `gather`
read rows, and no other code knows a framework.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lstmconvert.model.activations import ONLY_SIGMOID, ONLY_TANH, Activation, Functions
from lstmconvert.model.fit import GIVABLE, MERGE_MODES, OF_FRAMEWORKS, Abilities
from lstmconvert.model.gates import GATES, Gate, by_letters
from lstmconvert.model.layer import CELL_PARTS, GATE_PARTS
from lstmconvert.tensors.dtypes import FLOATS

#: Parts that are vectors, one number for each unit.
VECTORS = frozenset(
    {
        *("bias", "recurrent_bias", "peephole", "layer_norm", "layer_norm_bias"),
        *("projection_bias", "state_norm", "state_norm_bias", "initial_hidden", "initial_cell"),
    }
)
_MATRICES = ("kernel", "recurrent_kernel")
#: The options that a framework's row can say it expresses.
WORDS = frozenset(OF_FRAMEWORKS) - {"input_forget"}
_PLACES = re.compile(r"\{(\w*)\}")


class Form(StrEnum):
    """How a vector of n numbers is shaped: (n,), (1, n) or (n, 1)."""

    FLAT = "flat"
    ROW = "row"
    COLUMN = "column"


class Names(NamedTuple):
    """What a framework calls each gate."""

    input: str
    forget: str
    cell: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """One array of a cell, or with `{gate}` in its key one array for each gate.

    Fields:
        key: the array's name, with the places `{d}` (direction), `{k}` (number in a stack) and
            `{gate}`.
        parts: the gate parts that it joins, or the one cell part that it is.
        below: whether its two parts are one below the other (along the inputs), instead of side by
            side (along the units).
        transposed: whether units are rows.
        order: the gates in it, where they differ from the row's.
        gates: what `{gate}` represents, where it differs from the row's.
        filled: whether it is zeros where a cell has other biases but not this one.
        form: the shape of a vector.
        interleaved: whether the gates alternate unit by unit along the units.
        leading: whether the gates are a first axis: (4, inputs, units), or (4, units) of a vector.

    Raises:
        ValueError: the facts contradict each other.
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
    leading: bool = False

    def __post_init__(self) -> None:
        for fault in self._faults():
            raise ValueError(f"slot {self.key!r}: {fault}")

    def _faults(self) -> Iterator[str]:
        unknown = set(self.parts) - {*GATE_PARTS, *CELL_PARTS}
        if unknown or not self.parts or len(set(self.parts)) != len(self.parts):
            yield f"parts that are unknown, or listed twice: {self.parts}"
        if set(_PLACES.findall(self.key)) - {"d", "k", "gate"} or not self.key:
            yield "a key has the places {d}, {k} and {gate}, and no others"
        several, vector = len(self.parts) > 1, self.is_vector
        if several and (self.of_cell or any((p in VECTORS) is not vector for p in self.parts)):
            yield f"parts that cannot be one array: {self.parts}"
        if self.below and self.parts != _MATRICES:
            yield "the kernel lies above the recurrent kernel: other parts do not"
        if self.form is not Form.FLAT and not vector:
            yield f"a matrix has no form {self.form}"
        if self.transposed and vector:
            yield "a vector is not transposed"
        if self.interleaved and (several or self.leading):
            yield "gates that alternate are those of one part, and no first axis"
        fused = self.interleaved or self.leading
        if fused and (self.per_gate or self.of_cell):
            yield "an array of one gate, or of none, has no axis of gates"
        if self.leading and self.form is not Form.FLAT:
            yield "a first axis of gates is the form"
        if self.gates is not None and not self.per_gate:
            yield "gates are named, and the key has no place for {gate}"
        if self.filled and not set(self.parts) <= {"bias", "recurrent_bias"}:
            yield "only a bias is filled with zeros"
        if self.order is not None:
            wanted = "fio" if "peephole" in self.parts else "cfio"
            if self.of_cell or "".join(sorted(self.order)) != wanted:
                yield f"an order of other gates than {wanted}: {self.order}"
        elif "peephole" in self.parts:
            yield "the cell gate has no peephole: the order of the others is needed"

    @property
    def per_gate(self) -> bool:
        """Whether there is one array for each gate."""
        return "{gate}" in self.key

    @property
    def of_cell(self) -> bool:
        """Whether it holds a cell part such as `projection`, not a part of the gates."""
        return any(part in CELL_PARTS for part in self.parts)

    @property
    def is_vector(self) -> bool:
        """Whether its neutral form is a vector."""
        return any(part in VECTORS for part in self.parts)


_SHORT_NAMES = Names("i", "f", "c", "o")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One framework's arrangement, and what the framework can do.

    Fields:
        name: what `--to` and `--from` call it.
        title: the framework and its class.
        slots: the arrays of a cell.
        order: the gates in a fused array.
        gates: what the framework calls each gate.
        sides: what `{d}` is for a layer of one direction, and for the forward and backward half.
        single: whether the layout cannot hold a second direction.
        paired: whether there are always two directions, which `{k}` counts in turn.
        joined: whether the directions are a leading axis of every array.
        bidirectional: whether the framework itself runs both directions and joins them; where it
            does not, its user does.
        alike: whether the two halves must have one size.
        index: what `{k}` is in a stack, a format of the number; None: no stacks.
        alone: what `{k}` is without a stack.
        chained: whether each of a stack takes what both directions of the one before gave.
        activation, recurrent_activation: the functions that the framework computes. `ANY`: its
            user passes them.
        merge_modes: how it joins the two directions, if it runs both. Where it runs one, its user
            joins them in any way.
        expresses: options of the neutral model that the framework has, of `WORDS`. The arrays
            do not hold them: a document does, or the caller passes them.
        gives_last: whether it can give only each direction's last output, as Keras does with
            return_sequences=False. Where it cannot, it gives every step.
        document_gives_last: whether the framework's own kind of file gives it, which says options.
        dtypes: the dtypes that its weights can have.
        always_bias: whether a bias is always there: zeros for a layer without one.
        forget_bias: what the framework adds to the forget gate at run time.
        format: the metadata key `format` of a safetensors file.
        recognised: whether a file without metadata is known by its names.
        run: whether the real framework has run the weights in the tests.
        evidence: where the facts come from.
        hint: what its user has to know, in a sentence or two.

    Raises:
        ValueError: the facts contradict each other, or evidence or hint are missing.
    """

    name: str
    title: str
    slots: tuple[Slot, ...]
    order: str = "ifco"
    gates: Names = _SHORT_NAMES
    sides: tuple[str, str, str] = ("", "forward.", "backward.")
    single: bool = False
    paired: bool = False
    joined: bool = False
    bidirectional: bool = False
    alike: bool = False
    index: str | None = "cells.{}."
    alone: str = ""
    chained: bool = False
    activation: Functions = ONLY_TANH
    recurrent_activation: Functions = ONLY_SIGMOID
    merge_modes: tuple[str | None, ...] = ("concat",)
    expresses: frozenset[str] = frozenset()
    gives_last: bool = False
    document_gives_last: bool = False
    dtypes: tuple[str, ...] = FLOATS
    always_bias: bool = False
    forget_bias: float = 0.0
    format: str = "np"
    recognised: bool = False
    run: bool = True
    evidence: str = ""
    hint: str = ""

    def __post_init__(self) -> None:
        for fault in self._faults():
            raise ValueError(f"row {self.name!r}: {fault}")

    def _faults(self) -> Iterator[str]:
        for field in ("name", "title", "evidence", "hint", "format"):
            if not getattr(self, field).strip():
                yield f"no {field}"
        if unknown := self.expresses - WORDS:
            yield f"`expresses` lists unknown options: {', '.join(sorted(unknown))}"
        if not self.dtypes or not set(self.dtypes) <= set(FLOATS):
            yield f"unknown dtypes: {self.dtypes}"
        if not set(self.merge_modes) <= set(MERGE_MODES) or "concat" not in self.merge_modes:
            yield f"merge modes that are unknown, or lack concat: {self.merge_modes}"
        if "".join(sorted(self.order)) != "cfio":
            yield f"no order of the four gates: {self.order}"
        if self.single and (self.paired or self.joined or self.bidirectional or self.alike):
            yield "one direction has no halves"
        if self.paired and (self.index is None or self.joined):
            yield "two directions that take turns are counted by {k}, and are not an axis"
        if self.index is not None and self.index.count("{}") != 1:
            yield f"no format of a number: {self.index}"
        parts = [part for slot in self.slots for part in slot.parts]
        if len(set(parts)) != len(parts) or not set(_MATRICES) <= set(parts):
            yield "a kernel and a recurrent kernel are needed, and no part has two slots"
        yield from self._name_faults()

    def _name_faults(self) -> Iterator[str]:
        """Two arrays of a cell, of two directions, or of a stack of two, have two names."""
        both = not (self.joined or self.single)
        sides = ("forward", "backward") if both else ("forward",)
        depth = 1 if self.index is None else 2
        places = [self.place(k, depth, side, both) for k in range(depth) for side in sides]
        names = [key.format(**place) for key in self._keys() for place in places]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            yield f"two arrays would be called {twice!r}"

    def _keys(self) -> Iterator[str]:
        """The keys of the arrays of one cell, with the gates' names put in."""
        for slot in self.slots:
            for gate in self.order_of(slot) if slot.per_gate else GATES[:1]:
                yield slot.key.replace("{gate}", self.gate_name(slot, gate))

    @property
    def class_name(self) -> str:
        """What the class of a layer is called that came from there without metadata of ours."""
        return f"LSTM ({self.name})"

    @property
    def parts(self) -> frozenset[str]:
        """Every gate and cell part that has a place here."""
        return frozenset(part for slot in self.slots for part in slot.parts)

    @property
    def fixed(self) -> dict[str, Activation]:
        """The functions that its weights imply, as it computes no others."""
        options = {
            "activation": self.activation,
            "recurrent_activation": self.recurrent_activation,
        }
        return {
            option: functions.exact[0]
            for option, functions in options.items()
            if len(functions.exact) == 1 and not functions.families and not functions.is_any
        }

    def abilities(self, *, in_document: bool = False) -> Abilities:
        """Return what the framework can hold of a layer, for `model.fit`.

        Args:
            in_document: whether the layer goes to a file that says its options. Then all of them
                have to be known. With plain arrays, the framework's user passes them.
        """
        passed = {"activation", "recurrent_activation"} - self.fixed.keys()
        known = {"forget_bias", *self.fixed, *(WORDS - self.expresses)}
        several = self.bidirectional and len(self.merge_modes) > 1
        if in_document:
            known |= passed | self.expresses | ({"merge_mode"} if several else set())
        return Abilities(
            title=self.title,
            name=self.name,
            parts=self.parts,
            options=self.expresses | {"time_major"},
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            merge_modes=self.merge_modes if self.bidirectional else MERGE_MODES,
            dtypes=self.dtypes,
            forget_bias=self.forget_bias,
            known=frozenset(known),
            # The user or the document has to state these, so they cannot be left out.
            givable=GIVABLE - passed - self.expresses - ({"merge_mode"} if several else set()),
            directions=(1,) if self.single else (2,) if self.paired else (1, 2),
            stacks=self.index is not None,
            both_ways=not (self.chained or self.joined),
            alike=self.alike,
            alike_in_stacks=self.chained,
        )

    def order_of(self, slot: Slot) -> tuple[Gate, ...]:
        """The gates that a slot holds, in its order."""
        return by_letters(slot.order or self.order)

    def gate_name(self, slot: Slot, gate: Gate) -> str:
        """What a slot's key calls a gate."""
        return (slot.gates or self.gates)[GATES.index(gate)]

    def place(self, index: int, depth: int, side: str, both: bool) -> dict[str, str]:
        """Return what `{d}` and `{k}` represent at one place.

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
