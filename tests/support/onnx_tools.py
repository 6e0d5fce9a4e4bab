"""What the ONNX tests share: running a file in ONNX Runtime, and making files of one LSTM node."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import lstmconvert as lc
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array

#: The operator's inputs and outputs, in order.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")


def model_of(*layers: LSTMLayer, **fields: Any) -> Model:
    """Return a model of layers made in memory."""
    return Model(layers=layers, source=Source(container="live"), container="live", **fields)


def write(layer: LSTMLayer | Model, path: Path, **options: Any) -> Path:
    """Write a layer or model as ONNX, check it with onnx's own checker, and return the path."""
    model = layer if isinstance(layer, Model) else model_of(layer)
    lc.save(model, path, **options)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def run(path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return every output of a model by name, computed by ONNX Runtime on the CPU."""
    session = _session(path, path.stat().st_mtime_ns)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@functools.lru_cache(maxsize=8)
def _session(path: Path, _: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def difference(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Return the greatest difference of two lists of arrays of equal shapes."""
    assert [array.shape for array in found] == [array.shape for array in wanted]
    return max(
        float(np.abs(one.astype("f8") - two.astype("f8")).max(initial=0.0))
        for one, two in zip(found, wanted, strict=True)
    )


def node_model(
    given: Mapping[str, Array],
    *,
    outputs: Sequence[str] = ("Y", "Y_h", "Y_c"),
    nodes: Sequence[onnx.NodeProto] = (),
    inputs: Mapping[str, str] | None = None,
    initializers: Mapping[str, Array] | None = None,
    name: str = "lstm",
    opset: int = 14,
    **attributes: Any,
) -> onnx.ModelProto:
    """Return a model around one LSTM node.

    Args:
        given: the node's inputs as initializers, by the operator's names; `X` is the graph's input.
        outputs: those that the node has.
        nodes: further nodes, before it.
        inputs: what the node is given in place of the initializers of `given`.
        initializers: further ones.
        name: the node's.
        opset: the version of the operators.
        attributes: the node's; hidden_size is that of R.
    """
    wanted = {"X": "X", **{key: key for key in given}, **(inputs or {})}
    arguments = [wanted.get(key, "") for key in INPUTS]
    while not arguments[-1]:
        arguments.pop()
    named = [key if key in outputs else "" for key in OUTPUTS]
    if "R" in given:
        attributes = {"hidden_size": given["R"].shape[-1], **attributes}
    lstm = helper.make_node("LSTM", arguments, named, name=name, **attributes)
    graph = helper.make_graph(
        [*nodes, lstm],
        "test",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["t", "b", "i"])],
        [helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, None) for key in outputs],
        [numpy_helper.from_array(a, k) for k, a in {**given, **(initializers or {})}.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def weights(
    rng: np.random.Generator, input_dim: int = 3, units: int = 2, directions: int = 1
) -> dict[str, Array]:
    """Return random W, R and B of a node, both biases non-zero."""

    def normal(*shape: int) -> Array:
        return (0.5 * rng.normal(size=shape)).astype("f4")

    return {
        "W": normal(directions, 4 * units, input_dim),
        "R": normal(directions, 4 * units, units),
        "B": normal(directions, 8 * units),
    }
