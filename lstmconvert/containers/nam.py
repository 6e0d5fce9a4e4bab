"""A `.nam` of the architecture LSTM: Neural Amp Modeler's JSON, whose weights are one flat list.

    {"version": "0.5.4", "architecture": "LSTM", "metadata": {…}, "sample_rate": 48000,
     "config": {"input_size": 1, "hidden_size": 3, "num_layers": 1}, "weights": […]}

For each layer W (4 units, inputs + units), row by row, with the input's columns before the state's,
and the gates input, forget, cell, output; the bias (4 units); the initial hidden state and the
initial cell state. Then the head: W (outputs, units) and its bias (NeuralAmpModelerCore/NAM/
lstm.cpp, `LSTMCell`, `LSTM`; neural-amp-modeler/nam/models/recurrent.py, `_export_weights`). The
player reads no other keys, so that the names of the layers and our metadata have a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.containers import sequential
from lstmconvert.containers.jsonarrays import numbers, tensor_of
from lstmconvert.containers.modules import Arrays, Opened, Writing, check_finite
from lstmconvert.errors import CorruptFile, NotAModel, UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.model import edit
from lstmconvert.model.chain import Chain, Holds, Link
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor

HOLDS = Holds(
    title="A .nam",
    kinds=frozenset({"Dense"}),
    roles={"Dense": (("kernel", "bias"),)},
    every_step=True,
)
#: The version of the format whose keys these are (neural-amp-modeler/nam/models/exportable.py).
_VERSION = "0.5.4"
#: The values that are written where the source has none. They state nothing.
_USUAL: JsonObject = {"version": _VERSION, "metadata": {}}
_NAMES, _HEAD = "names", "head"
_OF_LAYERS = frozenset({"architecture", "config", "weights", _NAMES, metadata.KEY})
_SIZES = ("input_size", "hidden_size", "num_layers")
#: The arrays of a layer in the list, as the layout calls them; the states are left out where zero.
ROLES = ("weight", "bias", "initial_hidden", "initial_cell")
_STATES = ROLES[2:]


def read(file: Opened) -> Arrays:
    """Read a file: by our metadata, where it has them, else as the Keras model that it says, with
    the initial states of its cells.

    Raises:
        NotAModel: it is of another architecture.
        CorruptFile: its list is of another length than its config says.
    """
    value, where = file.json, str(file.path)
    if not isinstance(value, dict) or value.get("architecture") != "LSTM":
        kind = value.get("architecture") if isinstance(value, dict) else None
        raise NotAModel(
            "a .nam of another architecture than LSTM",
            where=where,
            found=str(kind)[:40],
            expected="LSTM",
        )
    layers, head = _split(value, where)
    document = {
        key: item
        for key, item in value.items()
        if key not in _OF_LAYERS and _USUAL.get(key) != item
    }
    names = _layer_names(value, len(layers))
    if metadata.KEY in value:
        named = {
            f"{name}.{role}" if name else role: ArrayTensor(array)
            for name, layer in zip(names, layers, strict=False)
            for role, array in layer.items()
        }
        named |= {f"{names[-1]}.{role}": ArrayTensor(array) for role, array in head.items()}
        return Arrays(named, {metadata.KEY: canonical(value[metadata.KEY])}, document=document)
    states = {
        name: {role: layer[role] for role in _STATES if role in layer}
        for name, layer in zip(names, layers, strict=False)
    }
    steps = list(_steps(names, layers, head))
    inputs = _sizes(value, where)[0]
    return Arrays(
        {},
        {},
        store=lambda: sequential.store(inputs, steps),
        completed=lambda layer: _started(layer, states[layer.name]),
        document=document,
    )


def _sizes(value: JsonObject, where: str) -> tuple[int, int, int]:
    config: Json = value.get("config")
    sizes: list[Any] = [config.get(key) for key in _SIZES] if isinstance(config, dict) else [None]
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise CorruptFile(
                "not the config of an LSTM", where=f"{where}: config", expected=", ".join(_SIZES)
            )
        limits.UNITS.check(size, where, "a size of its config")
    inputs, units, count = sizes
    limits.JSON_VALUES.check(inputs * units * count, where, "the number of its weights")
    return inputs, units, count


def _split(value: JsonObject, where: str) -> tuple[list[dict[str, Array]], dict[str, Array]]:
    """Return the arrays of each layer, and those of the head."""
    inputs, units, count = _sizes(value, where)
    outputs = value["config"].get("out_channels", 1)
    if not isinstance(outputs, int) or isinstance(outputs, bool) or outputs < 1:
        raise CorruptFile("not a number of channels", where=where, found=str(outputs)[:40])
    shapes: list[tuple[int, ...]] = []
    for index in range(count):
        width = inputs if index == 0 else units
        shapes += [(4 * units, width + units), (4 * units,), (units,), (units,)]
    shapes += [(outputs, units), (outputs,)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    listed = value.get("weights")
    if not isinstance(listed, list) or len(listed) != sum(sizes):
        raise CorruptFile(
            "its list of weights is of another length than its config says",
            where=f"{where}: weights",
            found=len(listed) if isinstance(listed, list) else "no list",
            expected=sum(sizes),
        )
    flat = tensor_of(listed, f"{where}: weights").read()
    pieces = np.split(flat, np.cumsum(sizes)[:-1])
    arrays = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    layers = []
    for index in range(count):
        layer = dict(zip(ROLES, arrays[4 * index : 4 * index + 4], strict=True))
        if not any(_is_set(layer[role]) for role in _STATES):
            layer = {role: array for role, array in layer.items() if role not in _STATES}
        layers.append(layer)
    return layers, {"kernel": arrays[-2].T, "bias": arrays[-1]}


def _is_set(array: Array) -> bool:
    """Whether a number of it is another than +0.0."""
    return bool((array != 0).any() or np.signbit(array).any())


def _layer_names(value: JsonObject, count: int) -> list[str]:
    given = value.get(_NAMES)
    if isinstance(given, list) and len(given) == count + 1 and all(map(_is_text, given)):
        return given
    return sequential.names(["LSTM"] * count + ["Dense"], [None] * count + [_HEAD])


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _steps(
    names: Sequence[str], layers: Sequence[Mapping[str, Array]], head: Mapping[str, Array]
) -> Iterator[sequential.SequentialLayer]:
    for name, layer in zip(names, layers, strict=False):
        units = len(layer["bias"]) // 4
        weight = layer["weight"].T
        arrays = {
            "kernel": ArrayTensor(np.ascontiguousarray(weight[:-units])),
            "recurrent_kernel": ArrayTensor(np.ascontiguousarray(weight[-units:])),
            "bias": ArrayTensor(layer["bias"]),
        }
        config: JsonObject = {
            "units": units,
            "activation": "tanh",
            "recurrent_activation": "sigmoid",
            "return_sequences": True,
        }
        yield sequential.SequentialLayer("LSTM", name, config, arrays)
    arrays = {role: ArrayTensor(np.ascontiguousarray(array)) for role, array in head.items()}
    config = {"units": len(head["bias"]), "activation": "linear"}
    yield sequential.SequentialLayer("Dense", names[-1], config, arrays)


def _started(layer: LSTMLayer, states: Mapping[str, Array]) -> LSTMLayer:
    """Return a layer whose cell starts from the states of the file."""
    parts = {role: ArrayTensor(array) for role, array in states.items()}
    return edit.map_cells(layer, lambda _, __, cell: replace(cell, parts={**cell.parts, **parts}))


def carried(
    document: Mapping[str, Json], _: Chain | None
) -> tuple[Mapping[str, Json], list[str]]:
    """Return what of a document is written again: all of it."""
    return document, []


# ---- writing ------------------------------------------------------------------------------------


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        UnsupportedByTarget: it is not a chain of LSTMs of one size and a Dense; NaN or infinity.
    """
    cells, head = _checked(content.chain)
    listed: list[Json] = []
    units = cells[0].outputs
    for link in cells:
        for role in ROLES:
            tensor = content.tensors.get(link.prefix + role)
            array = np.zeros(units, np.float32) if tensor is None else tensor.read()
            listed += _numbers(array, link)
    listed += _numbers(content.tensors[f"{head.prefix}kernel"].read().T, head)
    listed += _numbers(content.tensors[f"{head.prefix}bias"].read(), head)
    inputs = cells[0].inputs
    config = {"input_size": inputs, "hidden_size": units, "num_layers": len(cells)}
    if inputs > 1:
        config["in_channels"] = inputs
    if head.outputs > 1:
        config["out_channels"] = head.outputs
    value: JsonObject = {**_USUAL, **content.document}
    value |= {
        "architecture": "LSTM",
        "config": config,
        "weights": listed,
        _NAMES: [link.prefix.removesuffix(".") for link in (*cells, head)],
        metadata.KEY: parse_object(content.metadata()[metadata.KEY], metadata.KEY),
    }
    path.write_text(canonical(value), encoding="utf-8")


class _Parts(NamedTuple):
    cells: Sequence[Link]
    head: Link


def _checked(chain: Chain | None) -> _Parts:
    """Return the LSTMs of a chain, and the Dense at its end."""
    links = () if chain is None else chain.links
    cells, ends = links[:-1], links[-1:]
    is_held = bool(cells) and all(link.kind == "LSTM" for link in cells) and ends[0].kind == "Dense"
    if not is_held:
        raise UnsupportedByTarget(
            "a .nam holds LSTM layers and one Dense after them",
            where="the model",
            option="layers",
            target="nam",
            found=", ".join(f"{link.name} ({link.kind})" for link in links) or "LSTM layers alone",
            hint="a .aidax holds chains of other layers",
        )
    sizes = sorted({link.outputs for link in cells})
    if len(sizes) > 1:
        raise UnsupportedByTarget(
            "the LSTM layers of a .nam have one size",
            where=cells[1].name,
            layer=cells[1].name,
            option="units",
            target="nam",
            found=", ".join(map(str, sizes)),
            hint="a .aidax holds layers of different sizes",
        )
    return _Parts(cells, ends[0])


def _numbers(array: Array, link: Link) -> list[Json]:
    check_finite(array, link.name, "a .nam", "nam")
    flat = numbers(array.reshape(-1))
    return list(flat)
