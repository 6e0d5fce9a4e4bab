"""Changed copies of layers: every place is reached, and one folding of a forget bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.neutral import make_cell, make_layer

from lstmconvert import reference
from lstmconvert.model import edit
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import OpaqueCell
from lstmconvert.tensors.dtypes import same_bits

GRU = OpaqueCell(class_name="GRUCell", name=None, config=None)


def test_every_cell_of_both_halves_is_reached_and_no_other() -> None:
    rng = np.random.default_rng(1)
    cells = [make_cell(rng, 3, 2), GRU, make_cell(rng, 4, 2)]
    layer = make_layer(cells, [make_cell(rng, 3, 2)])
    places = []
    changed = edit.map_cells(layer, lambda side, index, cell: places.append((side, index)) or cell)
    assert places == [("forward", 0), ("forward", 2), ("backward", 0)]
    assert changed == layer
    named = edit.map_directions(layer, lambda side, direction: replace(direction, name=side))
    assert named.backward is not None
    assert (named.forward.name, named.backward.name) == ("forward", "backward")
    alone = edit.map_directions(make_layer(make_cell(rng, 3, 2)), lambda _, half: half)
    assert alone.backward is None


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("has", "wanted"), [(1.0, 0.0), (0.0, 1.0), (0.25, 1.0)])
def test_a_run_time_forget_bias_moves_into_the_stored_one(
    biased: bool, has: float, wanted: float
) -> None:
    rng = np.random.default_rng(2)
    parts = ("bias",) if biased else ()
    cell = make_cell(rng, 3, 2, gate_parts=parts, dtype="float64", forget_bias=has)
    folded = edit.with_forget_bias(cell, wanted)
    assert folded.options.forget_bias == wanted
    for gate, weights in folded.gates.items():
        before = edit.bias_of(cell, gate).read()
        moved = before + (has - wanted) if gate is Gate.FORGET else before
        assert same_bits(weights.tensors["bias"].read(), moved)
    x = rng.normal(size=(2, 4, 3))
    one, two = (reference.run(make_layer(c), x).outputs[0] for c in (cell, folded))
    np.testing.assert_allclose(one, two, rtol=1e-12)
    assert edit.with_forget_bias(cell, has) is cell


def test_a_second_bias_of_zeros_leaves_the_first_as_it_is() -> None:
    cell = make_cell(np.random.default_rng(3), 3, 2, gate_parts=("bias", "recurrent_bias"))
    for weights in cell.gates.values():
        weights.tensors["bias"]._array[0] = -0.0  # type: ignore[attr-defined]
        weights.tensors["recurrent_bias"]._array[:] = 0.0  # type: ignore[attr-defined]
    assert not edit.has_second_bias(cell)
    joined = edit.with_one_bias(cell)
    assert joined.gate_parts == ("kernel", "recurrent_kernel", "bias")
    for gate in joined.gates:
        assert same_bits(edit.bias_of(joined, gate).read(), edit.bias_of(cell, gate).read())
    cell.output_gate.tensors["recurrent_bias"]._array[1] = 2.0  # type: ignore[attr-defined]
    assert edit.has_second_bias(cell)
    summed = edit.with_one_bias(cell).output_gate.bias
    assert summed is not None
    assert summed[1] == cell.output_gate.tensors["bias"].read()[1] + np.float32(2)
