"""No cell is found where there is none: more than 200 graphs of gates, products and sums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.spelled_graphs import (
    CHANGES,
    gru,
    layers,
    lstm_like,
    minimal,
    random_graph,
    simple,
    unrolled,
)

import lstmconvert as lc
from lstmconvert.errors import NoLSTM
from lstmconvert.spelled.flow import Carried, Flow, FlowNode
from lstmconvert.spelled.layers import recovered
from lstmconvert.tensors.tensor import ArrayTensor

GRAPHS: dict[str, tuple[Callable[[int], onnx.ModelProto], int]] = {
    "gru": (lambda seed: unrolled(gru, 1, seed), 10),
    "simple": (lambda seed: unrolled(simple, 1, seed), 10),
    "minimal": (lambda seed: unrolled(minimal, 1, seed), 10),
    **{
        change: (lambda seed, change=change: unrolled(lstm_like(change), 2, seed), 5)
        for change in CHANGES
    },
    **{
        kind: (lambda seed, kind=kind: layers(kind, seed), 12)
        for kind in ("highway", "wavenet", "squeeze", "attention", "ladder")
    },
    "random": (random_graph, 80),
}


def test_there_are_more_than_200() -> None:
    assert sum(count for _, count in GRAPHS.values()) > 200


@pytest.mark.parametrize("name", GRAPHS)
def test_none_is_found(name: str, tmp_path: Path) -> None:
    make, count = GRAPHS[name]
    path = tmp_path / "x.onnx"
    for seed in range(count):
        path.write_bytes(make(seed).SerializeToString())
        with pytest.raises(NoLSTM, match="no LSTM node"):
            lc.load(path)


def test_the_same_step_without_a_fault_is_found(tmp_path: Path) -> None:
    """Else none of the above would mean anything."""
    (tmp_path / "x.onnx").write_bytes(unrolled(lstm_like("none"), 2, 0).SerializeToString())
    (layer,) = lc.load(tmp_path / "x.onnx").layers
    assert layer.cell.units == 3


def test_values_that_are_made_from_themselves() -> None:
    """No format allows them, and no search may go round in them."""
    weights = ArrayTensor(np.ones((3, 12), "f4"))
    joined = {"axis": -1}
    flow = Flow(
        nodes={
            "concat": FlowNode("concat", ("concat",), joined),
            "two": FlowNode("concat", ("two", "concat"), joined),
            "product": FlowNode("matmul", ("concat", "w"), {}),
            "same": FlowNode("identity", ("same",), {}),
            "gate": FlowNode("sigmoid", ("product",), {}),
            "index": FlowNode("sub", ("same", "index"), {}),
            "step": FlowNode("move", ("two",), {"counter": "index"}),
            "kept": FlowNode("mul", ("gate", "sum"), {}),
            "new": FlowNode("mul", ("gate", "gate"), {}),
            "sum": FlowNode("add", ("kept", "new"), {}),
            "out": FlowNode("mul", ("gate", "sum"), {}),
        },
        constants={"w": weights},
        carried={"sum": Carried("sum", "sum"), "concat": Carried("out", "concat")},
        known_widths={"concat": 3, "two": 3},
        known_ranks={"concat": 2, "two": 2},
    )
    assert recovered(flow).layers == ()
    assert flow.counts("index") is None
    assert flow.width("two") == 3


def test_a_number_beside_a_value_of_unknown_rank() -> None:
    """As in a checkpoint's graph whose weights are not there: a forget bias is a number."""
    flow = Flow(
        nodes={
            "forget": FlowNode("add", ("unknown", "one"), {}),
            "both": FlowNode("add", ("one", "one"), {}),
            "joined": FlowNode("concat", ("forget", "forget"), {"axis": 1}),
            "of_numbers": FlowNode("concat", ("both", "both"), {"axis": 0}),
        },
        constants={"one": ArrayTensor(np.ones((), "f4"))},
    )
    assert (flow.rank("forget"), flow.rank("both")) == (None, 0)
    assert not flow.is_last("joined")
    assert not flow.is_last("of_numbers")
