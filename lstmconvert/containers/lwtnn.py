"""lwtnn's JSON: a graph of layers, each LSTM with named gates, for C++ without Python (CERN).

    {"inputs": […], "input_sequences": [{"name": …, "variables": [{"name", "offset", "scale"}, …]}],
     "layers": [{"architecture": "lstm", "activation": "tanh", "inner_activation": "sigmoid",
                 "components": {"i": {"weights": […], "U": […], "bias": […]}, "f": …, "c": …, "o": …
                }}, …],
     "nodes": [{"type": "input_sequence", "sources": [0], "size": 7},
               {"type": "sequence", "sources": [0], "layer_index": 0}],
     "outputs": {name: {"labels": […], "node_index": 1}}}

`weights` and `U` are flat, units before inputs (lwtnn/converters/keras_v2_layer_converters.py,
`_rnn_parameters`; src/parse_json.cxx). The older form lists its layers in order, and has neither
nodes nor input_sequences. lwtnn ignores keys that it does not know, so that a layer's `name` and
`dtype` and our metadata have a place in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.jsonarrays import tensor_of, typed
from lstmconvert.containers.modules import Arrays, Opened, Writing, check_finite
from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.model import edit
from lstmconvert.model.activations import KERAS2, Activation
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.options import Unknown
from lstmconvert.pergate import metadata
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

LAYOUT = "lwtnn"
_LSTM, _COMPONENTS = "lstm", "components"
_GATES = tuple(gate.letter for gate in GATES)
_PARTS = ("weights", "U", "bias")
#: What lwtnn calls the functions of Keras (src/parse_json.cxx, `get_activation_function`).
_FUNCTIONS: Mapping[str, Activation] = {
    **{name: KERAS2[name] for name in ("linear", "sigmoid", "tanh", "softmax", "hard_sigmoid")},
    "rectified": KERAS2["relu"],
}
#: Functions with a constant, `alpha` there, and what the constant is called here. Its swish is
#: x * sigmoid(alpha * x): silu with an alpha of 1.
_FAMILIES = {"elu": ("elu", "alpha"), "leakyrelu": ("leaky_relu", "negative_slope")}
_SWISH, _ALPHA = "swish", "alpha"


def read(file: Opened) -> Arrays:
    """Read an LSTM's arrays as `<name>.components.<gate>.<part>`, others' as `<number>.<type>.…`.

    Raises:
        CorruptFile: it is not of this format, or an LSTM's arrays do not fit each other.
    """
    value, where = file.json, str(file.path)
    if not isinstance(value, dict) or not isinstance(value.get("layers"), list):
        raise CorruptFile("not a model of lwtnn", where=where)
    limits.JSON_VALUES.check(len(value["layers"]), where, "the number of layers")
    tensors: dict[str, Tensor] = {}
    functions: dict[str, tuple[Activation, Activation]] = {}
    count = 0
    for number, layer in enumerate(value["layers"]):
        place = f"{where}: layers[{number}]"
        if not isinstance(layer, dict) or not isinstance(layer.get("architecture"), str):
            raise CorruptFile("not a layer", where=place)
        if layer["architecture"] != _LSTM:
            name = f"{number}.{layer['architecture']}"
            tensors |= {key: tensor_of(data, place) for key, data in _lists(layer, name)}
            continue
        given = layer.get("name")
        name = given if isinstance(given, str) else _LSTM if not count else f"{_LSTM}_{count}"
        count += 1
        if f"{name}.{_COMPONENTS}.i.bias" in tensors:
            raise CorruptFile("two layers of one name", where=place, found=name)
        tensors |= _cell(layer, f"{name}." if name else "", place)
        functions[name] = (
            _function(layer.get("activation"), place),
            _function(layer.get("inner_activation"), place),
        )
    texts = {}
    if metadata.KEY in value:
        texts[metadata.KEY] = canonical(value[metadata.KEY])

    def completed(layer: LSTMLayer) -> LSTMLayer:
        def with_functions(_side: str, _index: int, cell: Cell) -> Cell:
            activation, inner = functions[layer.path]
            options = replace(cell.options, activation=activation, recurrent_activation=inner)
            return replace(cell, options=options)

        return edit.map_cells(layer, with_functions)

    return Arrays(tensors, texts, completed=completed, notes=tuple(_notes(value)))


def _notes(value: JsonObject) -> Iterator[str]:
    """Say what the file does to the inputs before the first layer."""
    entries = [*_objects(value.get("inputs")), *_objects(value.get("input_sequences"))]
    variables = [each for entry in entries for each in _objects(entry.get("variables")) or [entry]]
    if any(entry.get("offset", 0) != 0 or entry.get("scale", 1) != 1 for entry in variables):
        yield "the inputs are shifted and scaled before the first layer: offset and scale of the "
        "file are not part of the LSTM, and are left out"


def _objects(value: Json) -> list[JsonObject]:
    """The objects of a list; none of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _cell(layer: JsonObject, prefix: str, where: str) -> dict[str, Tensor]:
    components = layer.get(_COMPONENTS)
    if not isinstance(components, dict) or sorted(components) != sorted(_GATES):
        raise CorruptFile(
            "an LSTM whose gates are others", where=where, expected="components i, f, c and o"
        )
    arrays: dict[str, Tensor] = {}
    for gate in _GATES:
        component, place = components[gate], f"{where}.{_COMPONENTS}.{gate}"
        if not isinstance(component, dict) or not set(_PARTS) <= component.keys():
            raise CorruptFile("a gate lacks an array", where=place, expected=", ".join(_PARTS))
        weights, recurrent, bias = (tensor_of(component[part], place).read() for part in _PARTS)
        units = bias.size
        flat = all(array.ndim == 1 for array in (weights, recurrent, bias))
        if not flat or recurrent.size != units * units or not weights.size or weights.size % units:
            raise CorruptFile(
                "the arrays of a gate do not fit each other",
                where=place,
                found=f"weights {weights.shape}, U {recurrent.shape}, bias {bias.shape}",
                expected="flat: units × inputs, units × units, units",
            )
        for part, array in zip(
            _PARTS,
            (weights.reshape(units, -1), recurrent.reshape(units, units), bias),
            strict=True,
        ):
            arrays[f"{prefix}{_COMPONENTS}.{gate}.{part}"] = ArrayTensor(array)
    # JSON says no type: all arrays of a cell have the widest that one of them needs.
    widest = np.result_type(*(array.dtype for array in arrays.values()))
    return {
        name: typed(ArrayTensor(array.read().astype(widest)), layer.get("dtype"), where)
        for name, array in arrays.items()
    }


def _lists(value: JsonObject, name: str) -> Iterator[tuple[str, Json]]:
    """Yield the arrays of a layer that is not an LSTM, by name."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _lists(item, f"{name}.{key}")
        elif isinstance(item, list) and item:
            if isinstance(item[0], dict):
                for number, entry in enumerate(item):
                    if isinstance(entry, dict):
                        yield from _lists(entry, f"{name}.{key}.{number}")
            else:
                yield f"{name}.{key}", item


def _function(value: Json, where: str) -> Activation:
    """Return what a function of lwtnn is; one that has no name here is kept as the user's own."""
    match value:
        case str() if value in _FUNCTIONS:
            return _FUNCTIONS[value]
        case {"function": str(name), "alpha": int() | float() as alpha}:
            if name in _FAMILIES:
                known, constant = _FAMILIES[name]
                return Activation(known, {constant: float(alpha)})
            if name == _SWISH and alpha == 1:
                return KERAS2["silu"]
            return Activation(f"{name}({alpha})"[:80], custom=True)
        case "elu":  # an older converter left its constant out (src/parse_json.cxx)
            return Activation("elu", {"alpha": 1.0})
        case str():
            return Activation(value[:80], custom=True)
    raise CorruptFile("an LSTM without its two functions", where=where, found=str(value)[:60])


def _spelled(function: Activation | Unknown) -> Json:
    """Return a function of the layout's row as lwtnn spells it."""
    if isinstance(function, Unknown):
        raise AssertionError("a row without ANY takes no unknown function")
    for name, known in _FUNCTIONS.items():
        if known == function:
            return name
    for name, (family, constant) in _FAMILIES.items():
        if function.name == family:
            return {"function": name, _ALPHA: function.constants[constant]}
    return {"function": _SWISH, _ALPHA: 1.0}


def write(path: Path, content: Writing) -> None:
    """Write a file: each layer between an input and an output of its own.

    Raises:
        UnsupportedByTarget: a number that JSON does not have.
    """
    sequences: list[Json] = []
    layers: list[Json] = []
    nodes: list[Json] = []
    outputs: JsonObject = {}
    for number, (prefix, layer) in enumerate(content.layers):
        name = prefix.rstrip(".")
        (_, direction), *_ = layer.directions
        (cell,) = direction.lstm_cells
        options = cell.options
        sequences.append({"name": name or _LSTM, "variables": _variables(layer.input_dim)})
        layers.append(
            {
                "name": name,
                "architecture": _LSTM,
                "dtype": cell.dtype.name,
                "activation": _spelled(options.activation),
                "inner_activation": _spelled(options.recurrent_activation),
                _COMPONENTS: _components(content.tensors, prefix, layer),
            }
        )
        nodes.append({"type": "input_sequence", "sources": [number], "size": layer.input_dim})
        nodes.append({"type": "sequence", "sources": [2 * number], "layer_index": number})
        labels = [f"out_{unit}" for unit in range(direction.units)]
        outputs[name or _LSTM] = {"labels": labels, "node_index": 2 * number + 1}
    value: JsonObject = {
        "inputs": [],
        "input_sequences": sequences,
        "layers": layers,
        "nodes": nodes,
        "outputs": outputs,
        metadata.KEY: parse_object(content.metadata()[metadata.KEY], metadata.KEY),
    }
    path.write_text(canonical(value), encoding="utf-8")


def _variables(inputs: int) -> list[Json]:
    return [{"name": f"variable_{n}", "offset": 0, "scale": 1} for n in range(inputs)]


def _components(tensors: Mapping[str, Tensor], prefix: str, layer: LSTMLayer) -> JsonObject:
    components: JsonObject = {}
    for gate in _GATES:
        arrays: dict[str, Any] = {}
        for part in _PARTS:
            wide = tensors[f"{prefix}{_COMPONENTS}.{gate}.{part}"].read().astype(np.float64)
            check_finite(wide, layer.name, "lwtnn's JSON", LAYOUT)
            arrays[part] = wide.reshape(-1).tolist()
        components[gate] = arrays
    return components
