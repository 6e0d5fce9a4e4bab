"""A chain of layers that a file of another program holds, as a Keras model: a config and a store.

Programs that run audio models say a list of layers, each with its weights. As Keras's Sequential
model, it goes wherever a whole Keras model goes. Where the input is added to the output, it is a
functional model with an Add at its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lstmconvert.containers.modules import KerasStore
from lstmconvert.files.jsontext import Json, JsonObject, canonical
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.keras.configs import spelling
from lstmconvert.keras.configs.nodes import snake_case
from lstmconvert.keras.configs.spelling import LAYERS, serialized, serialized_model
from lstmconvert.keras.writing import layerstore
from lstmconvert.keras.writing.emit import Spelling
from lstmconvert.model.chain import Chain, Link
from lstmconvert.tensors.tensor import Tensor

#: The Keras whose configs are spelled here.
_KERAS = "3.15.1"
#: Classes whose weights Keras keeps in a cell -> what a legacy file calls that.
_CELLS = {"LSTM": "lstm_cell/", "GRU": "gru_cell/"}


class SequentialLayer(NamedTuple):
    """One layer: `class_name` of Keras; its `name`; its `config`, without name and dtype; `arrays`:
    Keras's name of a weight -> tensor, in Keras's order."""

    class_name: str
    name: str
    config: JsonObject
    arrays: Mapping[str, Tensor]


def names(class_names: Sequence[str], given: Sequence[str | None]) -> list[str]:
    """Return names of layers as Keras counts them, `lstm`, `dense`, `lstm_1`, unless one is given.

    A given name is kept the first time that it is there.
    """
    result: list[str] = []
    counts: dict[str, int] = {}
    reserved = {name for name in given if name}
    for class_name, name in zip(class_names, given, strict=True):
        if name and name not in result:
            result.append(name)
            continue
        base = snake_case(class_name)
        while True:
            count = counts.get(base, 0)
            counts[base] = count + 1
            wanted = base if count == 0 else f"{base}_{count}"
            if wanted not in reserved and wanted not in result:
                break
        result.append(wanted)
    return result


def store(inputs: int, steps: Sequence[SequentialLayer], *, skip: bool = False) -> KerasStore:
    """Return a chain as a legacy Keras store with the config of its model.

    Args:
        inputs: how many numbers each step of the input has.
        steps: the layers. A layer without weights computes in the dtype of the one before it.
        skip: whether the input is added to the output.
    """
    dtype = next((t.dtype.name for step in steps for t in step.arrays.values()), "float32")
    first: JsonObject = {"name": "input", "batch_shape": [None, None, inputs], "dtype": dtype}
    layers = [serialized(LAYERS, "InputLayer", first)]
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Any] = {
        "": {
            "layer_names": [step.name for step in steps],
            "keras_version": _KERAS,
            "backend": "tensorflow",
        }
    }
    for step in steps:
        dtype = next((tensor.dtype.name for tensor in step.arrays.values()), dtype)
        config = {"name": step.name, "dtype": dtype, **step.config}
        layers.append(serialized(LAYERS, step.class_name, config))
        cell = _CELLS.get(step.class_name, "")
        named = {f"{step.name}/{cell}{role}": tensor for role, tensor in step.arrays.items()}
        attributes[step.name] = {"weight_names": list(named)}
        tensors |= {f"{step.name}/{name}": tensor for name, tensor in named.items()}
    if skip:
        layers.append(serialized(LAYERS, "Add", {"name": "skip", "dtype": dtype}))
        config = _functional(layers, dtype)
        attributes[""]["layer_names"].append("skip")
        attributes["skip"] = {"weight_names": []}
    else:
        config = serialized_model("Sequential", {"name": "sequential", "layers": layers})
    tree = StoredTree(tensors, attributes, frozenset(attributes))
    return KerasStore(tree, canonical(config), _KERAS)


def of(chain: Chain) -> KerasStore:
    """Return a chain of Keras's own layers as a legacy store with the config of its model.

    Raises:
        UnsupportedByTarget: Keras cannot express a layer.
    """
    given = [link.name.rpartition("/")[2] for link in chain.links]
    called = names([link.kind for link in chain.links], given)
    steps = [_step(link, name) for link, name in zip(chain.links, called, strict=True)]
    return store(chain.inputs, steps, skip=chain.skip)


def _step(link: Link, name: str) -> SequentialLayer:
    if link.layer is not None:
        entry = Spelling().layer_config(link.layer, name)
        class_name, config = entry["class_name"], entry["config"]
        arrays = {
            path.rpartition("/")[2] if class_name in _CELLS else path.removeprefix(f"{name}/"): each
            for path, each, _ in layerstore.legacy_weights(link.layer, name)
        }
        return SequentialLayer(class_name, name, config, arrays)
    config = _config(link)
    if link.kind in ("Dense", "Conv1D", "Activation", "GRU"):
        function = spelling.activation(link.activation, spelling.DEFAULT_POLICY)
        if link.kind == "Activation" and isinstance(function, dict):
            return SequentialLayer(function["class_name"], name, function["config"], {})
        config["activation"] = function
    return SequentialLayer(link.kind, name, config, link.arrays)


def _config(link: Link) -> JsonObject:
    """Return the config of a layer that is not an LSTM, without its activation."""
    use_bias: JsonObject = {"use_bias": "bias" in link.arrays}
    match link.kind:
        case "Dense":
            return {"units": link.outputs, **use_bias}
        case "Conv1D":
            return {
                "filters": link.outputs,
                "kernel_size": [link.window],
                "dilation_rate": [link.dilation],
                "groups": link.groups,
                "padding": link.padding,
                **use_bias,
            }
        case "GRU":
            return {
                "units": link.outputs,
                "recurrent_activation": spelling.activation(
                    link.recurrent_activation, spelling.DEFAULT_POLICY
                ),
                "reset_after": link.reset_after,
                "return_sequences": link.return_sequences,
                **use_bias,
            }
        case "BatchNormalization" | "LayerNormalization":
            parts = {"center": "beta" in link.arrays, "scale": "gamma" in link.arrays}
            return {"epsilon": link.epsilon, **parts}
        case "PReLU":
            return {"shared_axes": [1]} if len(link.arrays["alpha"].shape) > 1 else {}
        case _:
            return {}


def _functional(layers: Sequence[JsonObject], dtype: str) -> JsonObject:
    """Return a functional model in which the last layer takes what the others give, and the input
    (keras/src/models/functional.py, `get_config`)."""
    *chained, last = layers
    made = [{**chained[0], "name": chained[0]["config"]["name"], "inbound_nodes": []}]
    for layer in chained[1:]:
        given = _tensor(made[-1]["name"], dtype)
        node: JsonObject = {"args": [given], "kwargs": {}}
        made.append({**layer, "name": layer["config"]["name"], "inbound_nodes": [node]})
    both: Json = [_tensor(made[0]["name"], dtype), _tensor(made[-1]["name"], dtype)]
    name = last["config"]["name"]
    ends: JsonObject = {
        "name": "model",
        "input_layers": [[made[0]["name"], 0, 0]],
        "output_layers": [[name, 0, 0]],
    }
    made.append({**last, "name": name, "inbound_nodes": [{"args": [both], "kwargs": {}}]})
    return serialized_model("Functional", {**ends, "layers": made})


def _tensor(layer: str, dtype: str) -> JsonObject:
    # Keras takes the shape from the layer that makes the tensor (`convert_revived_tensor`).
    history: JsonObject = {"shape": [None], "dtype": dtype, "keras_history": [layer, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": history}
