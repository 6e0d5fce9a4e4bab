"""Every layout with every option: written and back bit for bit, or refused by a name and a hint.

A hint that names --allow-lossy is kept: with it, the layer is written, and the loss declared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cli import SEED95
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.containers import table
from lstmconvert.errors import LOSSY_HINT, LSTMConvertError, UnsupportedByTarget, UsageError
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, KERAS3
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import same_bits


def one(**options: object) -> LSTMLayer:
    rng = np.random.default_rng(5)
    return make_layer(make_cell(rng, 3, 2, **options), return_sequences=True)


def both(merge_mode: str = "concat", units: int = 2) -> LSTMLayer:
    rng = np.random.default_rng(6)
    cells = make_cell(rng, 3, 2), make_cell(rng, 3, units)
    layer = make_layer(*cells, return_sequences=True)
    return replace(layer, options=replace(layer.options, merge_mode=merge_mode))


def stacked() -> LSTMLayer:
    rng = np.random.default_rng(7)
    return make_layer([make_cell(rng, 3, 2), make_cell(rng, 2, 2)], return_sequences=True)


def run(**options: object) -> LSTMLayer:
    return make_layer(make_cell(np.random.default_rng(8), 3, 2), **options)


def masked() -> LSTMLayer:
    layer = one()
    return replace(layer, options=replace(layer.options, masked=True))


CASES: dict[str, Callable[[], LSTMLayer]] = {
    "plain": one,
    "no bias": lambda: one(gate_parts=()),
    "two biases": lambda: one(gate_parts=("bias", "recurrent_bias")),
    "stacked": stacked,
    "bidirectional": both,
    "unlike halves": lambda: both(units=3),
    "merge_mode": lambda: both("sum"),
    "activation": lambda: one(activation=KERAS3["relu"]),
    "recurrent_activation": lambda: one(recurrent_activation=HARD_SIGMOID_KERAS2),
    "go_backwards": lambda: run(return_sequences=True, go_backwards=True),
    "keeps_time_order": lambda: run(
        return_sequences=True, go_backwards=True, keeps_time_order=True
    ),
    "peephole": lambda: one(gate_parts=("bias", "peephole")),
    "projection": lambda: one(projected=1),
    "cell_clip": lambda: one(cell_clip=0.5),
    "gate_clip": lambda: one(gate_clip=0.5),
    "output_activation": lambda: one(output_activation=KERAS3["relu"]),
    "float64": lambda: one(dtype="float64"),
    "bfloat16": lambda: one(dtype="bfloat16"),
    "last output": lambda: run(return_sequences=False, return_state=True, unroll=True),
    "stateful": lambda: run(return_sequences=True, stateful=True),
    "masked": masked,
}
#: What is no reason to refuse a layer.
NEVER = ("last output", "stateful", "masked")
#: Each layout with the container that is its own.
PAIRS = [
    (name, next(row.name for row in table.holders(name) if not row.is_keras))
    for name in ROWS
    if name != "nam"  # a model with its head, never a layer alone: tests/containers/test_nam.py
]
ROW = {row.name: row for row in table.written()}
#: All layouts with all options take ten seconds: every fourth layout is quick.
GRID = [
    pytest.param(*pair, marks=[pytest.mark.slow] * (index % 4 > 0))
    for index, pair in enumerate(PAIRS)
]


def attempt(
    layer: LSTMLayer, path: Path, layout: str, *, allow_lossy: bool = False
) -> lc.Result | LSTMConvertError:
    """Save a layer, and return the result or the refusal."""
    model = Model(layers=(layer,), source=Source(container="live"), container="live")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return lc.save(
                model, path, layout=layout, bare=True, allow_lossy=allow_lossy, force=True
            )
        except LSTMConvertError as error:
            return error


@pytest.mark.parametrize(("layout", "container"), GRID)
def test_each_option_is_kept_or_refused_by_name(
    layout: str, container: str, tmp_path: Path
) -> None:
    path, kept = tmp_path / f"x{ROW[container].suffixes[0]}", 0
    for name, make in CASES.items():
        layer = make()
        result = attempt(layer, path, layout)
        if isinstance(result, LSTMConvertError):
            assert name not in NEVER or ROWS[layout].paired, (name, result)
            check_refusal(result, layer, path, layout)
            continue
        kept += 1
        if name in ("stateful", "masked"):
            assert any(word in text for text in result.warnings for word in ("stateful", "mask"))
        if container != "c":  # which no one reads
            check_back(layer, path, layout, container, exact=not result.losses)
    assert kept


@pytest.mark.parametrize(("layout", "container"), PAIRS)
def test_other_tensors_are_carried_or_refused(layout: str, container: str, tmp_path: Path) -> None:
    model = lc.load(SEED95)
    path = tmp_path / f"x{ROW[container].suffixes[0]}"
    if ROWS[layout].paired:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not ROW[container].other:
            with pytest.raises(UsageError, match="--with-other"):
                lc.save(model, path, layout=layout, with_other=True, bare=True)
            assert not list(tmp_path.iterdir())
            return
        lc.save(model, path, layout=layout, with_other=True, bare=True)
    back = lc.load(path, layout=None if ROW[container].metadata else layout)
    assert len(back.other) == len(model.other) == 2


def check_refusal(
    error: LSTMConvertError, layer: LSTMLayer, path: Path, layout: str
) -> None:
    assert isinstance(error, UnsupportedByTarget), error
    assert error.where
    assert error.option
    assert error.target
    again = attempt(layer, path, layout, allow_lossy=True)
    if error.hint != LOSSY_HINT:
        assert isinstance(again, UnsupportedByTarget), error
    elif isinstance(again, LSTMConvertError):
        # Something else is in the way, which nothing lifts.
        assert isinstance(again, UnsupportedByTarget), again
        assert again.hint != LOSSY_HINT
        assert again.option != error.option
    else:
        assert any("lost, as allowed" in text for text in again.losses), error


def check_back(layer: LSTMLayer, path: Path, layout: str, container: str, *, exact: bool) -> None:
    bare = not ROW[container].metadata
    (found,) = lc.load(path, layout=layout if bare else None).values()
    for (side, number, cell), (_, _, other) in zip(layer.cells(), found.cells(), strict=True):
        tensors = dict(other.tensors())
        for part, tensor in cell.tensors():
            assert not exact or same_bits(tensor.read(), tensors[part].read()), (side, number, part)
        if exact and not bare:
            assert len(tensors) == len(dict(cell.tensors()))
            assert cell.options == other.options
    if not bare:
        assert found.forward.options == layer.forward.options
        assert found.options == layer.options
