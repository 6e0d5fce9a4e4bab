"""What the tests of whole models as ONNX share: models of one class, and both engines' answers.

Keras computes what a model means, ONNX Runtime what was written; neither is ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import lstmconvert as lc
from lstmconvert.tensors.dtypes import Array

#: A shape without the batch; None is an axis of any length.
Shape = tuple[int | None, ...]
#: The lengths that an axis of any length is given, in turn.
LENGTHS = (6, 9)
BATCHES = (1, 3)
#: The name of an LSTM that is there to make a model a source.
BESIDE = "beside"
#: The bound of float32, relative to the largest output.
FLOAT32 = 2e-6


def randomized(model: Any, seed: int = 0) -> Any:
    """Give a model random weights, positive where they must be (variances)."""
    rng = np.random.default_rng(seed)
    arrays = []
    for weight in model.weights:
        name = getattr(weight, "path", weight.name)
        shape = tuple(weight.shape)
        found = 0.5 * rng.normal(size=shape)
        if "variance" in name:
            found = np.abs(found) + 0.3
        if "gamma" in name:
            found = found + 1.0
        dtype = str(getattr(weight.dtype, "name", weight.dtype))
        arrays.append(found.astype(dtype) if dtype != "int64" else np.ones(shape, dtype))
    model.set_weights(arrays)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # a Normalization, which keeps what it derives
            layer.finalize_state()
    return model


def beside_lstm(keras: Any, inputs: Sequence[Any], outputs: Any) -> Any:
    """Return a model of some layers, and of an LSTM beside them: without one it is not a source."""
    steps = keras.Input((None, 2), name="steps")
    last = keras.layers.LSTM(1, name=BESIDE)(steps)
    return keras.Model([*inputs, steps], [*_flat(outputs), last])


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value]
    return [item for inner in value for item in _flat(inner)]


def example(model: Any, batch: int, length: int, *, seed: int = 1, top: int = 5) -> list[Array]:
    """Return random inputs of a model: whole numbers from 0 up to `top`, and real ones."""
    rng = np.random.default_rng(seed)
    found = []
    for tensor in model.inputs:
        shape = [batch if i == 0 else size or length for i, size in enumerate(tensor.shape)]
        dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
        if dtype.startswith("int"):
            found.append(rng.integers(0, top, shape).astype(dtype))
        else:
            found.append(rng.normal(size=shape).astype(dtype))
    return found


def session(path: Path) -> Any:
    """Return ONNX Runtime with a file, after the strictest check that onnx has."""
    import onnxruntime

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    check_used(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check_used(model: onnx.ModelProto) -> None:
    """Every node is there for an output."""
    needed = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):
        assert not needed.isdisjoint(node.output), node.name
        needed.update(node.input)
        for attribute in node.attribute:
            needed.update(name for inner in attribute.g.node for name in inner.input)


def answers(ran: Any, inputs: Sequence[Array]) -> list[Array]:
    """Return what ONNX Runtime computes."""
    names = [value.name for value in ran.get_inputs()]
    return list(ran.run(None, dict(zip(names, inputs, strict=False))))


def distance(found: Array, wanted: Array) -> float:
    """Return the largest difference over the largest number; NaN equals NaN."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    if not wanted.size:
        return 0.0
    one, two = found.astype(np.float64), wanted.astype(np.float64)
    assert (np.isnan(one) == np.isnan(two)).all()
    apart = np.abs(np.nan_to_num(one) - np.nan_to_num(two)).max()
    return float(apart / max(np.abs(np.nan_to_num(two)).max(), 1e-30))


def written(model: Any, path: Path, **options: Any) -> Path:
    """Save a model as its Keras does, and write the whole of it as ONNX."""
    source = path.with_suffix(".keras" if _is_keras3(model) else ".h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that .h5 is legacy
        model.save(source)
    lc.convert(source, path, whole=True, warn=False, **options)
    return path


def _is_keras3(model: Any) -> bool:
    return not type(model).__module__.startswith("tf_keras")


def predicted(model: Any, inputs: Sequence[Array]) -> list[Array]:
    """Return what a model's own Keras computes."""
    answer = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    if isinstance(answer, dict):
        answer = [answer[key] for key in sorted(answer)]
    return [np.asarray(value) for value in _flat(answer)]


def without_beside(model: Any) -> Any:
    """Return the part of a model that is compared: to compute the LSTM beside it takes time."""
    if BESIDE not in [layer.name for layer in model.layers]:
        return model
    inputs, outputs = model.inputs[:-1], model.outputs[:-1]
    return type(model)(inputs if len(inputs) > 1 else inputs[0], outputs)


def compared(
    model: Any,
    path: Path,
    *,
    inputs: Callable[[int, int], list[Array]] | None = None,
    lengths: Sequence[int] = LENGTHS,
    **options: Any,
) -> float:
    """Return how far ONNX Runtime is from Keras, at worst, over batches and lengths."""
    return max(distances(model, path, inputs=inputs, lengths=lengths, **options).values())


def distances(
    model: Any,
    path: Path,
    *,
    inputs: Callable[[int, int], list[Array]] | None = None,
    lengths: Sequence[int] = LENGTHS,
    **options: Any,
) -> Mapping[str, float]:
    """Return the same for each output by its name, but for that of the LSTM beside."""
    ran = session(written(model, path, **options))
    names = [value.name for value in ran.get_outputs()]
    found: dict[str, list[Array]] = {name: [] for name in names}
    wanted: dict[str, list[Array]] = {name: [] for name in names}
    oracle = without_beside(model)
    # Each batch and each length once: an oracle of Keras takes longer than all the rest.
    for batch, length in zip(BATCHES, islice(cycle(lengths), len(BATCHES)), strict=True):
        given = inputs(batch, length) if inputs else example(model, batch, length)
        theirs = predicted(oracle, given[: len(oracle.inputs)])
        for name, one, two in zip(names, answers(ran, given), theirs, strict=False):
            assert one.shape == two.shape, (name, one.shape, two.shape)
            found[name].append(one.reshape(-1))
            wanted[name].append(two.reshape(-1))
    return {
        name: distance(np.concatenate(found[name]), np.concatenate(wanted[name]))
        for name in names
        if name != BESIDE and found[name]
    }


def nodes(path: Path) -> int:
    """The number of a file's nodes, those of bodies included."""
    def count(graph: onnx.GraphProto) -> int:
        inner = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
        return len(graph.node) + sum(map(count, inner))

    return count(onnx.load(path).graph)
