"""Masks: joined where branches meet, and taken out of a sequence before a recurrent node.

Keras skips a masked step without touching the state, so the states are those of the sequence of
the other steps alone. Those are moved to the front, a node runs over them with their number as the
length, and each step of the input then takes the last result that was made up to it. Nothing runs
in a loop, and a mask may have gaps.
"""

from __future__ import annotations

from collections.abc import Sequence

from lstmconvert.onnx.messages import NUMBERS
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import TIME_MAJOR, GraphWriter, Value


class Compaction:
    """What follows from one mask (batch, steps): each value is made once, when it is asked for.

    Keys of a sort must differ: OpenVINO's TopK does not keep the order of equal ones.
    """

    def __init__(self, writer: GraphWriter, mask: Value) -> None:
        self._writer, self._mask = writer, mask
        self._name = writer.form(mask)

    def _op(self, operator: str, inputs: Sequence[str], what: str, **attributes: object) -> str:
        return self._writer.op(operator, inputs, f"{self._name}.{what}", **attributes)

    def _once(self, what: str, make: object) -> str:
        return str(self._writer.cached((id(self), what), make))

    @property
    def kept(self) -> str:
        """(batch, steps) bool: the mask."""
        return self._name

    @property
    def ones(self) -> str:
        """(batch, steps) int64: 1 for a step that counts, 0 for one that is masked."""
        return self._once(
            "ones", lambda: self._op("Cast", [self._name], "as_int", to=NUMBERS["int64"])
        )

    @property
    def steps(self) -> str:
        """(1,) int64: the number of steps."""

        def make() -> str:
            shape = self._op("Shape", [self._name], "shape")
            return self._op("Gather", [shape, self._writer.ints(1)], "steps")

        return self._once("steps", make)

    @property
    def order(self) -> str:
        """(batch, steps, 1) int64: where each step of the compacted sequence comes from."""

        def make() -> str:
            writer = self._writer
            end = self._op("Squeeze", [self.steps], "end")
            numbers = self._op("Range", [writer.place(0), end, writer.place(1)], "numbers")
            first = self._op("Mul", [self.ones, self.steps], "first")
            keys = self._op("Sub", [first, numbers], "keys")
            places = writer.ops("TopK", [keys, self.steps], f"{self._name}.order", 2, axis=1)[1]
            return self._op("Unsqueeze", [places, writer.ints(2)], "order_column")

        return self._once("order", make)

    @property
    def count(self) -> str:
        """(batch, 1) int64: how many steps of each sequence count."""
        return self._once(
            "count",
            lambda: self._writer.reduce(
                "ReduceSum", self.ones, [1], f"{self._name}.count", keep=True
            ),
        )

    @property
    def lengths(self) -> str:
        """(batch,) int32: the same, at least 1, as ONNX Runtime forgets the initial state of a
        sequence of none."""

        def make() -> str:
            flat = self._op("Squeeze", [self.count, self._writer.ints(1)], "flat_count")
            least = self._op("Max", [flat, self._writer.place(1)], "at_least_1")
            return self._op("Cast", [least], "lengths", to=NUMBERS["int32"])

        return self._once("lengths", make)

    @property
    def any(self) -> str:
        """(batch, 1) bool: whether a sequence has a step that counts."""
        return self._once(
            "any", lambda: self._op("Greater", [self.count, self._writer.place(0)], "any")
        )

    @property
    def sums(self) -> str:
        """(batch, steps) int64: how many steps count up to each, itself included."""
        return self._once(
            "sums", lambda: self._op("CumSum", [self.ones, self._writer.place(1)], "sums")
        )

    def ends(self, *, first: bool) -> str:
        """(batch, 1) bool: whether the last step, or the first one, counts."""
        name = "first_step" if first else "last_step"
        place = self._writer.ints(0 if first else -1)
        return self._once(
            name, lambda: self._op("Gather", [self._name, place], name, axis=1)
        )

    def place(self, *, backwards: bool) -> tuple[str, str]:
        """(batch, steps, 1) int64 and bool: which step of the compacted sequence has the result
        that Keras gives at each step, and whether there is any yet."""
        writer = self._writer

        def forward() -> str:
            before = self._op("Sub", [self.sums, writer.place(1)], "before")
            return self._column(self._op("Max", [before, writer.place(0)], "place"))

        def passed() -> str:
            return self._op("Sub", [self.sums, self.ones], "passed")

        def reverse() -> str:
            last = self._op("Sub", [self.count, writer.place(1)], "last_place")
            place = self._op("Min", [self._once("passed", passed), last], "until_last")
            return self._column(self._op("Max", [place, writer.place(0)], "place_backwards"))

        def is_begun() -> str:
            begun = self._op("Greater", [self.sums, writer.place(0)], "is_begun")
            return self._column(begun)

        def is_begun_backwards() -> str:
            begun = self._op("Less", [self._once("passed", passed), self.count], "is_begun_back")
            return self._column(begun)

        if backwards:
            return self._once("reverse", reverse), self._once("is_begun_back", is_begun_backwards)
        return self._once("forward", forward), self._once("is_begun", is_begun)

    @property
    def column(self) -> str:
        """(batch, steps, 1) bool: the mask."""
        return self._once("column", lambda: self._column(self._name))

    def _column(self, name: str) -> str:
        return self._op("Unsqueeze", [name, self._writer.ints(2)], f"{_leaf(name)}_column")


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def compaction(writer: GraphWriter, mask: Value) -> Compaction:
    """Return what follows from a mask: the same for all layers that have the same one."""
    key = ("compaction", writer.form(mask))
    compaction: Compaction = writer.cached(key, lambda: Compaction(writer, mask))
    return compaction


def compacted(site: Site, value: Value, mask: Value) -> str:
    """Return steps (time, batch, features) with the masked ones moved to the end."""
    writer = site.writer
    if value.compact is not None and writer.form(value.compact[1]) == writer.form(mask):
        return value.compact[0]()
    known = compaction(writer, mask)
    label = f"{known.kept}.compacted"

    def make() -> str:
        picked = writer.op("GatherND", [writer.form(value), known.order], label, batch_dims=1)
        return writer.op("Transpose", [picked], f"{label}_by_time", perm=list(TIME_MAJOR))

    return str(writer.cached((writer.form(value), "compacted", known.kept), make))


def looked_up(site: Site, steps: str, mask: Value, *, backwards: bool, zero: bool) -> str:
    """Return what Keras gives at each step, (batch, time, features).

    Args:
        site: the layer's.
        steps: (batch, time, features) of the compacted sequence.
        mask: the mask.
        backwards: whether the steps were run from the last to the first.
        zero: whether a masked step gives zero, and not the last result once more.
    """
    known = compaction(site.writer, mask)
    place, is_begun = known.place(backwards=backwards and not zero)
    picked = site.op("GatherND", [steps, place], "at_each_step", batch_dims=1)
    chosen = known.column if zero else is_begun
    return site.op("Where", [chosen, picked, site.number(0.0)], "masked")


def joined(site: Site, masks: Sequence[Value | None]) -> Value | None:
    """Return the mask of what several values with masks of one shape are merged into: in Keras 3 a
    step counts if it counts in one of them, before if it counts in all that have a mask."""
    known = [mask for mask in masks if mask is not None]
    if not known or (site.is_modern and len(known) < len(masks)):
        return None
    return either(site, known) if site.is_modern else _every(site, known)


def either(site: Site, masks: Sequence[Value]) -> Value:
    """Return where any of several masks counts."""
    return _folded(site, "Or", masks)


def _every(site: Site, masks: Sequence[Value]) -> Value:
    return _folded(site, "And", masks)


def _folded(site: Site, operator: str, masks: Sequence[Value]) -> Value:
    names = list(dict.fromkeys(site.writer.form(mask) for mask in masks))
    name = names[0]
    for other in names[1:]:
        name = site.op(operator, [name, other], "mask")
    return masks[0] if len(names) == 1 else Value(name, "bool", masks[0].shape)
