"""RTNeural's JSON: a list of layers in order, each with its weights as nested lists.

    {"in_shape": [null, null, 1], "layers": [
        {"type": "lstm", "activation": "tanh", "shape": [null, null, 8],
         "weights": [kernel, recurrent_kernel, bias]}, …]}

(RTNeural/model_loader.h, `parseJson`.) It reads no other keys, so that a layer's `name` and `dtype`
and our metadata have a place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import files, limits, metadata
from lstmconvert.containers.jsonarrays import numbers, tensor_of
from lstmconvert.dtypes import FLOATS, dtype_of
from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.tensors import ArrayTensor, SourceFile, Tensor

#: The weights of an LSTM, in their order there.
ROLES = ("kernel", "recurrent_kernel", "bias")
_LSTM = "lstm"


def looks_like(value: Json) -> bool:
    """Whether a JSON value is of this container."""
    return isinstance(value, dict) and "in_shape" in value and isinstance(value.get("layers"), list)


def read(source: SourceFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's arrays and its metadata. Raises as `from_value`."""
    return from_value(parse_object(files.whole_text(source), source.path), source.path)


def from_value(value: JsonObject, where: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read arrays and metadata: an LSTM's as `<name>.kernel`, others' as `<number>.<type>.<n>`.

    Raises:
        CorruptFile: it is not of this format.
    """
    limits.JSON_VALUES.check(len(value["layers"]), where, "the number of layers")
    found: dict[str, Tensor] = {}
    count = 0
    for number, layer in enumerate(value["layers"]):
        match layer:
            case {"type": str(kind), "weights": [*weights]}:
                pass
            case {"type": str()}:
                continue
            case _:
                raise CorruptFile("not a layer", where=f"{where}: layers[{number}]")
        name = f"{number}.{kind}"
        roles: tuple[str, ...] = tuple(map(str, range(len(weights))))
        if kind == _LSTM:
            if len(weights) != len(ROLES):
                raise CorruptFile(
                    "an LSTM has three arrays",
                    where=f"{where}: layers[{number}]",
                    found=len(weights),
                )
            given = layer.get("name")
            name, roles = (given if isinstance(given, str) else _named(count)), ROLES
            count += 1
        prefix = f"{name}." if name else ""
        for role, data in zip(roles, weights, strict=True):
            found[f"{prefix}{role}"] = _typed(
                tensor_of(data, f"{where}: layers[{number}].{role}"), layer.get("dtype"), where
            )
    texts = {}
    if metadata.KEY in value:
        texts[metadata.KEY] = canonical(value[metadata.KEY])
    return found, texts


def _typed(tensor: Tensor, said: Json, where: object) -> Tensor:
    """Return numbers in the dtype that we wrote, which holds them all; theirs say none."""
    if said is None:
        return tensor
    wide = tensor.read().astype(np.float64)
    if said in FLOATS:
        with np.errstate(over="ignore"):
            narrow = wide.astype(dtype_of(said))
        if (narrow.astype(np.float64) == wide).all():
            return ArrayTensor(narrow)
    raise CorruptFile("its dtype does not hold its numbers", where=where, found=str(said)[:40])


def _named(count: int) -> str:
    return _LSTM if count == 0 else f"{_LSTM}_{count}"


def write(
    path: Path, tensors: Mapping[str, Tensor], texts: Callable[[], Mapping[str, str]]
) -> None:
    """Write a file. The arguments are those of `safetensors.write`.

    Raises:
        UnsupportedByTarget: a layer does not take what the one before it gives.
    """
    texts()
    layers: list[JsonObject] = []
    width = 0
    for name in _prefixes(tensors):
        kernel, recurrent, bias = (tensors[f"{name}.{r}" if name else r].read() for r in ROLES)
        if layers and kernel.shape[0] != width:
            raise UnsupportedByTarget(
                "the layers of RTNeural follow one another",
                where=name,
                layer=name,
                option="input_dim",
                target="rtneural",
                found=f"{kernel.shape[0]} inputs",
                expected=f"{width}",
                hint="convert one layer with --layer",
            )
        width = recurrent.shape[0]
        layers.append(_layer(name, width, [kernel, recurrent, bias]))
    inputs = len(layers[0]["weights"][0])
    value: JsonObject = {"in_shape": [None, None, inputs], "layers": layers}
    final = texts()
    if metadata.KEY in final:
        value[metadata.KEY] = parse_object(final[metadata.KEY], metadata.KEY)
    with open(path, "x", encoding="utf-8") as file:
        file.write(canonical(value))


def _layer(name: str, units: int, weights: list[Any]) -> JsonObject:
    for array in weights:
        if not np.isfinite(array.astype(np.float64)).all():
            raise UnsupportedByTarget(
                "RTNeural's JSON has no NaN and no infinity",
                where=name,
                layer=name,
                option="weights",
                target="rtneural",
            )
    return {
        "name": name,
        "type": _LSTM,
        "dtype": weights[0].dtype.name,
        "activation": "tanh",
        "shape": [None, None, units],
        "weights": [numbers(array) for array in weights],
    }


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
