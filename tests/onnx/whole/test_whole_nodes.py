"""How many nodes ten models have: none more than tf2onnx makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.counted_models import MODELS, ours
from support.whole_tools import FLOAT32, compared, randomized

pytestmark = pytest.mark.engines


def test_none_has_more_nodes_than_tf2onnx_makes(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    counted = {name: ours(row.build(keras), tmp_path) for name, row in MODELS.items()}
    assert counted == {name: (row.gates, row.fused) for name, row in MODELS.items()}
    assert [name for name, row in MODELS.items() if row.gates > row.tf2onnx] == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_states_go_from_layer_to_layer_as_they_are(dtype: str, tmp_path: Path) -> None:
    """Of one direction and of two, also crosswise: what a node gives, the next one takes."""
    keras = pytest.importorskip("keras")
    m = keras.layers
    x, y = keras.Input((None, 4), dtype=dtype), keras.Input((None, 3), dtype=dtype)
    options = {"dtype": dtype, "return_state": True}
    read, *states = m.Bidirectional(m.LSTM(3, **options), dtype=dtype)(x)
    steps = {"dtype": dtype, "return_sequences": True}
    straight = m.Bidirectional(m.LSTM(3, **steps), dtype=dtype)(y, initial_state=states)
    crossed = m.Bidirectional(m.LSTM(3, **steps), dtype=dtype)(
        y, initial_state=[*states[2:], *states[:2]]
    )
    one = m.LSTM(3, **steps)(y, initial_state=states[2:])
    _, *last = m.GRU(3, **options)(y, initial_state=states[0])
    again = m.SimpleRNN(3, **steps)(y, initial_state=last)
    model = randomized(keras.Model([x, y], [read, straight, crossed, one, again]))
    path = tmp_path / "model.onnx"
    assert compared(model, path) < (FLOAT32 if dtype == "float32" else 2e-3)
    joins = [node for node in onnx.load(path).graph.node if "initial" in node.name]
    # Two states of the crossed one, each of two rows, and the halves that single ones take.
    assert len(joins) == 2 * 3 + 2 + 1


def test_weights_are_turned_by_one_node(tmp_path: Path) -> None:
    """In the types that ONNX Runtime has an Einsum of; the numbers are those of the gates."""
    keras = pytest.importorskip("keras")
    model = randomized(MODELS["A"].build(keras))
    compared(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [node.op_type for node in graph.node[:6]].count("Einsum") == 2
    arrays = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    kernel = np.asarray(model.layers[0].cell.kernel)
    name = model.layers[0].name
    gates = [arrays[f"{name}.{gate}_gate.kernel"] for gate in ("input", "forget", "cell", "output")]
    assert np.array_equal(np.concatenate(gates, axis=1), kernel)
