"""The gates, and arithmetic on their order."""

from __future__ import annotations

import numpy as np
import pytest
from support.thinned import each

from lstmconvert.model import gates
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.tensors.dtypes import same_bits
from lstmconvert.tensors.tensor import ArrayTensor


def test_gates_and_their_order() -> None:
    assert [str(gate) for gate in GATES] == ["input", "forget", "cell", "output"]
    assert "".join(gate.letter for gate in GATES) == "ifco"
    assert gates.by_letters("iofc") == (Gate.INPUT, Gate.OUTPUT, Gate.FORGET, Gate.CELL)
    assert [gates.columns(gate, 2) for gate in GATES] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert gates.columns(Gate.OUTPUT, 3, gates.by_letters("iofc")) == (3, 6)
    with pytest.raises(ValueError, match="not an order of the gates"):
        gates.by_letters("ifgo")


@each("order", ["ifco", "iofc", "icfo", "fico", "iof"])
@each("shape", [(2,), (3, 2), (2, 1, 3, 5)])
def test_split_and_fuse(order: str, shape: tuple[int, ...]) -> None:
    """A gate is a block of the last axis, or an entry of the first one, in the order said."""
    letters = gates.by_letters(order)
    one_each = np.random.default_rng(3).normal(size=(len(order), *shape))
    for fused, split, fuse in (
        (np.concatenate(list(one_each), axis=-1), gates.split, gates.fuse),
        (one_each, gates.split_first, gates.fuse_first),
    ):
        parts = split(ArrayTensor(fused), letters)
        assert "".join(gate.letter for gate in parts) == order
        for gate, wanted in zip(letters, one_each, strict=True):
            assert same_bits(parts[gate].read(), wanted)
        assert same_bits(fuse(parts, letters).read(), fused)


def test_axes_that_are_no_gates_are_refused() -> None:
    for shape in [(7,), (2, 0), ()]:
        with pytest.raises(ValueError, match="does not hold 4 equal gates"):
            gates.split(ArrayTensor(np.zeros(shape)))
    for shape in [(5, 3), (4,), (), (8, 4)]:
        with pytest.raises(ValueError, match="no first axis of 4"):
            gates.split_first(ArrayTensor(np.zeros(shape)))
