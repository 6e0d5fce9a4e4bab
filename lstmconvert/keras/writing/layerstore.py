"""LSTM layers alone as a Keras model: its config, and where each array is in either store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.keras.configs.nodes import counted, input_shape
from lstmconvert.keras.configs.spelling import DEFAULT_POLICY, LAYERS, serialized, serialized_model
from lstmconvert.keras.stores.stored import ROLES
from lstmconvert.keras.writing import emit
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, OpaqueCell
from lstmconvert.model.naming import unique
from lstmconvert.tensors.dtypes import FLOATS
from lstmconvert.tensors.tensor import Tensor

#: The layers of a model that is written, each with its name there.
Named = Sequence[tuple[str, LSTMLayer]]


#: The names of the models that we make around lone layers.
SEQUENTIAL, FUNCTIONAL = "sequential", "lstm_layers"


def named(layers: Sequence[LSTMLayer]) -> list[tuple[str, LSTMLayer]]:
    """Name each layer as its source does; by its whole path where two have one name."""
    own_names = [layer.own_name for layer in layers]
    names = [
        name if own_names.count(name) == 1 else layer.name.replace("/", "_")
        for name, layer in zip(own_names, layers, strict=True)
    ]
    return list(zip(unique([name.replace("/", "_") for name in names]), layers, strict=True))


def model_config(layers: Named) -> JsonObject:
    """Return the config of a model that holds these layers and nothing else.

    One layer becomes a Sequential of an input and it; several, a functional model with one input
    each, and their outputs.

    Raises:
        UnsupportedByTarget: Keras cannot express an option.
    """
    if len(layers) == 1:
        name, layer = layers[0]
        shape = list(input_shape(layer))
        config = {"name": SEQUENTIAL, "layers": [_input(layer, "input"), _entry(name, layer)]}
        return {**serialized_model("Sequential", config), "build_config": _build(shape)}
    return _functional(layers)


def _functional(layers: Named) -> JsonObject:
    entries: list[JsonObject] = []
    for name, layer in layers:
        entries.append(_input(layer, f"{name}_input") | {"inbound_nodes": []})
        tensor = {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": list(input_shape(layer)),
                "dtype": _input_dtype(layer),
                "keras_history": [f"{name}_input", 0, 0],
            },
        }
        entries.append(_entry(name, layer) | {"inbound_nodes": [{"args": [tensor], "kwargs": {}}]})
    config = {
        "name": FUNCTIONAL,
        "layers": [entry | {"name": entry["config"]["name"]} for entry in entries],
        "input_layers": [[f"{name}_input", 0, 0] for name, _ in layers],
        "output_layers": [[name, 0, k] for name, layer in layers for k in range(_outputs(layer))],
    }
    return serialized_model("Functional", config)


def _input(layer: LSTMLayer, name: str) -> JsonObject:
    config = {
        "batch_shape": list(input_shape(layer)),
        "dtype": _input_dtype(layer),
        "name": name,
    }
    return serialized(LAYERS, "InputLayer", config)


def _entry(name: str, layer: LSTMLayer) -> JsonObject:
    config = emit.Spelling().layer_config(layer, name)
    return {**config, "build_config": _build(list(input_shape(layer)))}


def _build(shape: list[int | None]) -> JsonObject:
    return {"input_shape": shape}


def _input_dtype(layer: LSTMLayer) -> str:
    # An input narrower than the layer would round what the user feeds it.
    policy = layer.forward.options.policy
    return policy if isinstance(policy, str) and policy in FLOATS else DEFAULT_POLICY


def _outputs(layer: LSTMLayer) -> int:
    states = 0
    if layer.forward.options.return_state is True:
        states = sum(
            2 if isinstance(cell, Cell) or "LSTM" in cell.class_name else 1
            for _, direction in layer.directions
            for cell in direction.cells
        )
    split = layer.backward is not None and layer.options.merge_mode is None
    return states + (2 if split else 1)


def v3_store(layers: Named) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return full path -> tensor, and group -> `name` attribute, of a v3 store.

    Keras 3.3 to 3.5 do not open one without a group of the model itself.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {"": SEQUENTIAL if len(layers) == 1 else FUNCTIONAL}
    used: dict[str, int] = {}
    for name, layer in layers:
        group = f"layers/{counted(class_name(layer), used)}"
        names[group] = name
        for cell_group, cell_name, arrays in v3_cells(layer, group):
            if cell_name:
                names[cell_group] = cell_name
            for index, tensor in enumerate(arrays):
                tensors[f"{cell_group}/vars/{index}"] = tensor
    return tensors, names


def v3_cells(layer: LSTMLayer, group: str) -> Iterator[tuple[str, str | None, list[Tensor]]]:
    """Yield `(group, name, arrays)` of each cell of a layer that is in a group of a v3 store."""
    for direction_group, direction in _v3_directions(layer, group):
        for cell_group, cell in _v3_cells(layer, direction, direction_group):
            yield cell_group, cell.name, arrays_of(cell, layer)


def class_name(layer: LSTMLayer) -> str:
    """Return the Keras 3 class that a layer becomes."""
    return "Bidirectional" if layer.backward is not None else emit.class_of(layer.forward, layer)


def _v3_directions(layer: LSTMLayer, group: str) -> Iterator[tuple[str, Direction]]:
    if layer.backward is None:
        yield group, layer.forward
        return
    for name, direction in layer.directions:
        yield f"{group}/{name}_layer", direction


def _v3_cells(
    layer: LSTMLayer, direction: Direction, group: str
) -> Iterator[tuple[str, Cell | OpaqueCell]]:
    if not emit.is_stack(layer, direction):
        yield f"{group}/cell", direction.cells[0]
        return
    used: dict[str, int] = {}
    for cell in direction.cells:
        kind = cell.class_name if isinstance(cell, OpaqueCell) else "LSTMCell"
        yield f"{group}/cell/cells/{counted(kind, used)}", cell


def arrays_of(cell: Cell | OpaqueCell, layer: LSTMLayer) -> list[Tensor]:
    """Return the arrays of a cell as Keras has them, in its order.

    Raises:
        UnsupportedByTarget: the source does not hold those of a cell of another kind.
    """
    if isinstance(cell, Cell):
        return [cell.fused(role) for role in ROLES if role in cell.gate_parts]
    if not cell.tensors:
        raise UnsupportedByTarget(
            f"the weights of the {cell.class_name} beside the LSTM are not in the file",
            where=layer.name,
            layer=layer.name,
            option=cell.class_name,
            target=emit.TARGET,
            hint="convert without --lstm-only, so that they are carried",
        )
    return list(cell.tensors)


def legacy_store(layers: Named) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Return full path below the weights' group -> tensor, and layer -> weight names."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, tuple[str, ...]] = {}
    for name, layer in layers:
        weights = list(legacy_weights(layer, name))
        if _outer_trainable(layer):
            weights.sort(key=lambda item: not item[2])
        names[name] = tuple(weight for weight, _, _ in weights)
        tensors.update({f"{name}/{weight}": tensor for weight, tensor, _ in weights})
    return tensors, names


def _outer_trainable(layer: LSTMLayer) -> bool:
    outer = layer.options if layer.backward is not None else layer.forward.options
    return outer.trainable is not False


def legacy_weights(layer: LSTMLayer, name: str) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield `(weight name, tensor, trainable)` in the order in which the layer makes its weights.

    A weight counts as trainable unless its own cell is frozen, or the LSTM whose cell it is:
    Keras 3 asks no wrapper (keras/src/layers/layer.py, `_track_variable`).
    """
    for half, direction in layer.directions:
        scope = [name]
        if layer.backward is not None:
            scope.append(direction.name or f"{half}_lstm")
        for index, cell in enumerate(direction.cells):
            parts = [*scope, *_cell_scope(layer, direction, cell, index)]
            trainable = _cell_trainable(direction, cell, layer)
            for role, tensor in zip(ROLES, arrays_of(cell, layer), strict=False):
                yield "/".join([*parts, role]), tensor, trainable


def _cell_trainable(direction: Direction, cell: Cell | OpaqueCell, layer: LSTMLayer) -> bool:
    if emit.class_of(direction, layer) != "RNN":
        return direction.options.trainable is not False
    if isinstance(cell, Cell):
        return cell.options.trainable is not False
    config = (cell.config or {}).get("config")
    return not isinstance(config, dict) or config.get("trainable", True) is not False


def _cell_scope(
    layer: LSTMLayer, direction: Direction, cell: Cell | OpaqueCell, index: int
) -> list[str]:
    if emit.is_stack(layer, direction):
        return ["stacked_rnn_cells", cell.name or f"cell_{index}"]
    return [cell.name or "lstm_cell"]
